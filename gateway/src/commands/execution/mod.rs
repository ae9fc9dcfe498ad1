//! One command of a device on its way to its end: a machine without I/O and without a clock.
//!
//! ```text
//!          Start ──durable──► Publish ──► Sent ──PUBACK──► Delivered ──durable──► Waiting
//!   Received │ poison, expired    │        │ │ refused for now, no PUBACK            │ answer, deadline
//!            └────────────────────┴────────┼─┴──► Backoff ──► Abandoning             │
//!                                          └──────────► Final ◄─────────────────────┘
//!                                                         └──durable──► Settle
//! ```
//!
//! [`Execution::on`] takes what happened, [`Execution::step`] says what is to be done next, and each thing is said once.
//! Whoever drives it writes with [`Execution::commit`]: what is written is decided at the moment of submitting, so that
//! the order in the log is the order of decisions. A device's answer is written by its own connection
//! ([`Execution::answer`]) in between.
//!
//! **What holds**, whatever happens in whatever order, the death of the process included:
//!
//! - a message is settled only when the final event of its command is durable;
//! - for each command there is one final event;
//! - a command goes to the device again only if its acknowledgement is not known: after that nothing but the answer
//!   is waited for.
//!
//! A write that failed may be there all the same. So nothing is decided after one until somebody looked into the store
//! ([`Event::Looked`]): event and record are one batch, and the record says whether it is there.

mod burial;
mod stage;
mod table;
#[cfg(test)]
mod tests;

use std::sync::Arc;

pub(crate) use burial::Standing;
use stage::{Content, Current, Next, Stage};
pub(crate) use table::{Said, Seat, Table};

use super::contract::{
    Answer, Command, Completion, Identity, Outcome, Phase, Poison, Record, Reply, Status, Voice, record_key,
};
use super::message::{Disposition, LockToken};
use crate::mqtt::NotDelivered;
use crate::outbox::{Encoded, StateOps};

/// A device's command in flight, or none.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Execution {
    timing: Timing,
    current: Option<Current>,
    /// Another message that came while something of the current one was still to be written.
    next: Option<Next>,
    /// What the driver writes now.
    writing: Option<Record>,
    /// Whether an answer that was written behind it is durable already: then it says nothing any more.
    overtaken: bool,
    /// What the device's connection writes now, for an answer.
    answering: Option<Record>,
    /// A write failed, and nobody has looked whether it is there.
    in_doubt: bool,
    /// The device is away.
    gone: bool,
    news: Option<News>,
}

/// How long things may take, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Timing {
    /// From handing a command to the device's session to its acknowledgement.
    pub(crate) ack_timeout_ms: u64,
    /// From the acknowledgement to the answer, where the sender set no deadline.
    pub(crate) answer_timeout_ms: u64,
}

/// A moment by two clocks. How long something may take is measured by the one that only goes forward, so that setting
/// the other changes nothing of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Now {
    /// The wall clock, for deadlines and for what is written, in Unix milliseconds.
    pub(crate) unix_ms: u64,
    /// The monotonic clock, in milliseconds since any moment.
    pub(crate) steady_ms: u64,
}

/// What happened.
#[derive(Debug, Clone)]
pub(crate) enum Event {
    /// A message came over the link, also one that came before.
    Received {
        /// What it says.
        arrival: Arrival,
        /// The device's record, in whatever version is known here.
        known: Option<Record>,
        /// Whether the store may have another one.
        in_doubt: bool,
    },
    /// What [`Execution::commit`] put down is durable, or its write failed.
    Committed(bool),
    /// The same for what [`Execution::answer`] put down.
    AnswerCommitted(bool),
    /// Somebody looked into the store after a failed write: this is the device's record.
    Looked(Option<Record>),
    /// The device acknowledged it.
    Acknowledged,
    /// The device refused it, with this reason code of PUBACK.
    Refused(u8),
    /// Its lifetime ended before it was sent.
    ExpiredUnsent,
    /// It could not be handed to the device's session.
    NotDelivered(NotDelivered),
    /// The device went away, or takes no commands any more.
    Gone,
    /// The lock, the link or the connection to Service Bus is lost.
    LinkLost,
    /// The message was settled or abandoned as was said.
    Settled,
}

/// A message that came, and what it is settled by.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Arrival {
    pub(crate) lock: LockToken,
    pub(crate) message: Result<Arc<Command>, Arc<Poison>>,
}

/// What is to be done next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Step {
    /// Nothing is in flight: take the next message, while the device is there.
    Receive,
    /// Call [`Execution::commit`] and submit what it puts down, without anything in between.
    Commit,
    /// Hand the command to the device, and forget any delivery before.
    Publish {
        command: Arc<Command>,
        /// Whether the device may have got it before.
        redelivered: bool,
    },
    /// Send the reply, if there is to be one, and settle the message; the record says it to other replicas.
    Settle { lock: LockToken, disposition: Disposition, record: Record, reply: Option<Box<Reply>> },
    /// Give the message back, to be delivered again; forget its delivery to the device.
    Abandon { lock: LockToken },
    /// Close the link without settling anything; forget the delivery to the device.
    Close,
    /// Wait for something to happen, or until then in Unix milliseconds.
    Wait { until_ms: Option<u64> },
}

/// What an answer of the device is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Heard {
    /// It was put down; [`Event::AnswerCommitted`] is due.
    Written,
    /// The same was said before, and what is put down, if anything, makes sure that it is durable.
    Repeated,
    /// It is no answer.
    Malformed,
    /// It belongs to no command that waits for one.
    Unknown,
}

/// What those who remember records have to know.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum News {
    /// This is durable.
    Durable(Record),
    /// The store may have something else than is known.
    Doubt,
}

/// Whom an answer came from, and what there is to know about it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Heeding<'a> {
    pub(crate) device: &'a str,
    /// The command id, as it stands in the topic.
    pub(crate) id: &'a str,
    pub(crate) payload: &'a [u8],
    /// The device's record, and whether the store may have another one.
    pub(crate) known: Option<&'a Record>,
    pub(crate) in_doubt: bool,
}

/// Where writes are put down.
#[derive(Debug)]
pub(crate) struct Batch<'a> {
    pub(crate) voice: &'a Voice,
    pub(crate) entries: &'a mut Encoded,
    pub(crate) state: &'a mut StateOps,
}

/// How soon a command that the session has no room for is offered again, in milliseconds.
const FULL_PAUSE_MS: u64 = 1000;

// === impl Now ===

impl Now {
    /// What the wall clock shows at `steady_ms` if nobody sets it before.
    const fn unix_at(self, steady_ms: u64) -> u64 {
        self.unix_ms.saturating_add(steady_ms.saturating_sub(self.steady_ms))
    }
}

/// For what is no matter of how long something takes: both clocks show the same.
impl From<u64> for Now {
    fn from(unix_ms: u64) -> Self {
        Self { unix_ms, steady_ms: unix_ms }
    }
}

// === impl Execution ===

impl Execution {
    /// Nothing in flight.
    pub(crate) const fn new(timing: Timing) -> Self {
        Self {
            timing,
            current: None,
            next: None,
            writing: None,
            overtaken: false,
            answering: None,
            in_doubt: false,
            gone: false,
            news: None,
        }
    }

    /// Takes what happened.
    pub(crate) fn on(&mut self, event: Event, now: impl Into<Now>) {
        let Now { unix_ms, steady_ms } = now.into();
        match event {
            Event::Received { arrival, known, in_doubt } => self.received(arrival, known, in_doubt),
            Event::Committed(durable) => self.committed(durable),
            Event::AnswerCommitted(durable) => self.answer_committed(durable),
            Event::Looked(found) => self.looked(found),
            Event::Acknowledged => self.acknowledged(unix_ms),
            Event::Refused(code) => self.refused(code, steady_ms),
            Event::ExpiredUnsent => self.end_sent(Outcome::expired()),
            Event::NotDelivered(reason) => self.not_delivered(reason, steady_ms),
            Event::Gone => self.gone = true,
            Event::LinkLost => self.link_lost(),
            Event::Settled => self.settled(),
        }
        self.go_on();
    }

    /// What is to be done next. Everything but [`Step::Wait`], [`Step::Receive`] and [`Step::Commit`] is said once.
    pub(crate) fn step(&mut self, now: impl Into<Now>) -> Step {
        const WAIT: Step = Step::Wait { until_ms: None };
        if self.in_doubt {
            return WAIT;
        }
        let now = now.into();
        let steady_ms = now.steady_ms;
        let busy = self.is_writing();
        self.time_passes(now);
        if self.gone && self.current.as_ref().is_none_or(Current::ends_with_device) {
            if busy {
                return WAIT;
            }
            (self.current, self.gone) = (None, false);
            return Step::Close;
        }
        let Some(current) = &mut self.current else {
            return if self.next.is_some() { WAIT } else { Step::Receive };
        };
        match &mut current.stage {
            Stage::Start | Stage::Delivered { .. } | Stage::Final(_) if !busy => Step::Commit,
            Stage::Publish { not_before_ms } if *not_before_ms > steady_ms => {
                Step::Wait { until_ms: Some(now.unix_at(*not_before_ms)) }
            }
            Stage::Publish { .. } => current.publish(steady_ms.saturating_add(self.timing.ack_timeout_ms)),
            Stage::Sent { ack_by_ms } => Step::Wait { until_ms: Some(now.unix_at(*ack_by_ms)) },
            Stage::Backoff { at_ms } if *at_ms > steady_ms => {
                Step::Wait { until_ms: Some(now.unix_at(*at_ms)) }
            }
            Stage::Backoff { .. } => current.abandon(),
            Stage::Waiting { deadline_ms } => Step::Wait { until_ms: Some(*deadline_ms) },
            Stage::Settle { .. } => current.settle(),
            Stage::Start | Stage::Delivered { .. } | Stage::Final(_) | Stage::Abandoning => WAIT,
        }
    }

    /// Puts down what [`Step::Commit`] asked for. `false` if there is nothing to write any more.
    pub(crate) fn commit(&mut self, batch: &mut Batch<'_>, now_ms: u64) -> bool {
        let Some(current) = self.current.as_ref().filter(|_| !self.in_doubt && !self.is_writing()) else {
            return false;
        };
        let record = match &current.stage {
            Stage::Start => current.record(Phase::Started, now_ms),
            Stage::Delivered { deadline_ms } => {
                current.tell(&Outcome::delivered(), false, batch, now_ms);
                current.record(Phase::Delivered { deadline_ms: *deadline_ms }, now_ms)
            }
            Stage::Final(outcome) => {
                current.tell(outcome, true, batch, now_ms);
                current.done(outcome, now_ms)
            }
            _ => return false,
        };
        batch.state.put(&record_key(current.device()), &record.encode());
        self.writing = Some(record);
        true
    }

    /// Takes an answer of the device. What follows from it is put down and belongs into one submission with what
    /// acknowledges the answer.
    pub(crate) fn answer(&mut self, answer: &Heeding<'_>, batch: &mut Batch<'_>, now_ms: u64) -> Heard {
        let is_current =
            |current: &&Current| current.awaits_answer() && *current.content.about().id == *answer.id;
        match self.current.as_ref().filter(is_current) {
            Some(_) => self.answer_current(answer, batch, now_ms),
            None => self.answer_recorded(answer, batch, now_ms),
        }
    }

    /// What is new for those who remember records; asked after every event.
    pub(crate) fn take_news(&mut self) -> Option<News> {
        self.news.take()
    }

    /// Whether somebody has to look into the store, and can: no write is on its way.
    #[cfg(test)]
    pub(crate) fn wants_look(&self) -> bool {
        self.in_doubt && !self.is_writing()
    }

    /// Whoever drove it does so no more: link and delivery are gone.
    pub(crate) fn leave(&mut self) {
        self.link_lost();
        if self.current.as_ref().is_some_and(Current::ends_with_device) {
            self.current = None;
        }
        self.gone = self.current.is_some();
    }

    /// Who is in flight, and the word for where it stands.
    pub(crate) fn in_flight(&self) -> Option<(&Identity, &'static str)> {
        self.current.as_ref().map(|current| (&current.content.about().identity, current.stage.word()))
    }

    /// How the command in flight ends, while that is decided and not durable.
    pub(crate) fn ending(&self) -> Option<Status> {
        match &self.current.as_ref()?.stage {
            Stage::Final(outcome) => Some(outcome.status),
            _ => None,
        }
    }

    const fn is_writing(&self) -> bool {
        self.writing.is_some() || self.answering.is_some()
    }

    // --- messages ---

    fn received(&mut self, arrival: Arrival, known: Option<Record>, in_doubt: bool) {
        if std::mem::take(&mut self.gone) && self.current.as_ref().is_some_and(Current::ends_with_device) {
            // Its delivery went with the device: the record says how it goes on.
            self.current = None;
        }
        self.in_doubt |= in_doubt;
        let content = Content::from(arrival.message);
        if let Some(current) = &mut self.current
            && current.content.about().identity == content.about().identity
        {
            current.attach(arrival.lock);
            return;
        }
        self.next = Some(Next { lock: arrival.lock, content, known });
    }

    /// Begins with the message that waits, as soon as nothing of the one before is left to be written. That one is
    /// gone from the queue by other hands, or done.
    fn go_on(&mut self) {
        let decided = self.current.as_ref().is_some_and(|current| matches!(current.stage, Stage::Final(_)));
        if self.in_doubt || self.is_writing() || decided {
            return;
        }
        if let Some(next) = self.next.take() {
            self.current = Some(Current::begin(next));
        }
    }

    fn link_lost(&mut self) {
        self.next = None;
        if let Some(current) = &mut self.current {
            current.lock = None;
            match &mut current.stage {
                Stage::Settle { told, .. } => *told = false,
                // Its delivery is withdrawn, and the record says that it had begun.
                Stage::Abandoning => self.current = None,
                _ => {}
            }
        }
    }

    fn settled(&mut self) {
        let Some(current) = &mut self.current else { return };
        current.lock = None;
        if matches!(current.stage, Stage::Abandoning | Stage::Settle { told: true, .. }) {
            self.current = None;
        }
    }

    // --- writes ---

    fn committed(&mut self, durable: bool) {
        let Some(record) = self.writing.take() else { return };
        match (std::mem::take(&mut self.overtaken), durable) {
            (true, _) => {}
            (false, true) => self.durable(record),
            (false, false) => self.doubt(),
        }
    }

    fn answer_committed(&mut self, durable: bool) {
        let Some(record) = self.answering.take() else { return };
        if durable {
            // What the driver wrote before stands under it.
            self.overtaken = self.writing.is_some();
            self.durable(record);
        } else {
            self.doubt();
        }
    }

    fn doubt(&mut self) {
        self.in_doubt = true;
        self.news = Some(News::Doubt);
    }

    fn durable(&mut self, record: Record) {
        self.catch_up(&record);
        self.news = Some(News::Durable(record));
    }

    fn looked(&mut self, found: Option<Record>) {
        self.in_doubt = false;
        match found {
            Some(record) => self.catch_up(&record),
            // Of what it stands for nothing is there.
            None => {
                if let Some(next) = &mut self.next {
                    next.known = None;
                }
            }
        }
    }

    /// Goes on to where the record says that the command is.
    fn catch_up(&mut self, record: &Record) {
        if let Some(current) = &mut self.current
            && current.content.about().identity == record.identity
        {
            current.catch_up(record);
        }
        if let Some(next) = &mut self.next {
            next.known = Some(record.clone());
        }
    }

    // --- the device ---

    fn acknowledged(&mut self, now_ms: u64) {
        let timeout_ms = self.timing.answer_timeout_ms;
        let Some(current) = &mut self.current else { return };
        if !matches!(current.stage, Stage::Sent { .. } | Stage::Backoff { .. }) {
            return;
        }
        let Content::Command(command) = &current.content else { return };
        current.stage = match command.completion {
            Completion::Delivered => Stage::Final(Outcome::delivered()),
            Completion::Answered => {
                let deadline_ms = command.deadline_ms.unwrap_or(now_ms.saturating_add(timeout_ms));
                Stage::Delivered { deadline_ms }
            }
        };
    }

    fn refused(&mut self, code: u8, steady_ms: u64) {
        /// Packet identifier in use, quota exceeded (MQTT 5, section 3.4.2.1): it may do later.
        const TRANSIENT: [u8; 2] = [0x91, 0x97];
        if !TRANSIENT.contains(&code) {
            return self.end_sent(Outcome::refused(code));
        }
        if let Some(current) = &mut self.current
            && matches!(current.stage, Stage::Sent { .. })
        {
            current.back_off(steady_ms);
        }
    }

    fn not_delivered(&mut self, reason: NotDelivered, steady_ms: u64) {
        let Some(current) = &mut self.current else { return };
        if !matches!(current.stage, Stage::Sent { .. }) {
            return;
        }
        current.published = false;
        match reason {
            NotDelivered::Absent => self.gone = true,
            NotDelivered::TooLarge { bytes, most } => self.end_sent(Outcome::too_large(bytes, most)),
            NotDelivered::Full => {
                current.stage = Stage::Publish { not_before_ms: steady_ms.saturating_add(FULL_PAUSE_MS) };
            }
        }
    }

    /// The command, which is with the device's session, comes to its end without an acknowledgement.
    fn end_sent(&mut self, outcome: Outcome) {
        if let Some(current) = &mut self.current
            && matches!(current.stage, Stage::Sent { .. } | Stage::Backoff { .. })
        {
            current.stage = Stage::Final(outcome);
        }
    }

    fn time_passes(&mut self, now: Now) {
        let Now { unix_ms, steady_ms } = now;
        let Some(current) = self.current.as_mut().filter(|_| self.answering.is_none()) else { return };
        let expired = current.is_expired(unix_ms);
        match &current.stage {
            // What is being written has begun, and is looked at again before it is published.
            Stage::Start | Stage::Publish { .. } if expired && self.writing.is_none() => {
                current.stage = Stage::Final(Outcome::expired());
            }
            Stage::Sent { ack_by_ms } if steady_ms >= *ack_by_ms && expired => {
                current.stage = Stage::Final(Outcome::expired());
            }
            Stage::Sent { ack_by_ms } if steady_ms >= *ack_by_ms => current.back_off(steady_ms),
            Stage::Waiting { deadline_ms } if unix_ms >= *deadline_ms => {
                current.stage = Stage::Final(Outcome::no_answer());
            }
            _ => {}
        }
    }

    // --- answers ---

    /// An answer to the command in flight.
    fn answer_current(&mut self, answer: &Heeding<'_>, batch: &mut Batch<'_>, now_ms: u64) -> Heard {
        let Some(current) = &mut self.current else { return Heard::Unknown };
        if current.answered || matches!(current.stage, Stage::Settle { .. }) {
            return Heard::Repeated;
        }
        if self.answering.is_some() || (self.writing.is_some() && matches!(current.stage, Stage::Final(_))) {
            return repeated(batch);
        }
        if self.in_doubt && matches!(current.stage, Stage::Final(_)) {
            // It is written again if it is not there.
            return Heard::Repeated;
        }
        if !current.may_be_answered() {
            return Heard::Unknown;
        }
        let Ok(read) = Answer::read(answer.payload) else { return Heard::Malformed };
        let outcome = read.outcome();
        current.tell(&outcome, true, batch, now_ms);
        let record = current.done(&outcome, now_ms);
        batch.state.put(&record_key(answer.device), &record.encode());
        current.stage = Stage::Final(outcome);
        self.answering = Some(record);
        Heard::Written
    }

    /// An answer to a command whose message is not at hand: it is kept until that comes again.
    fn answer_recorded(&mut self, answer: &Heeding<'_>, batch: &mut Batch<'_>, now_ms: u64) -> Heard {
        let is_known = |record: &&Record| {
            record.completion == Completion::Answered && record.identity.command_id() == answer.id
        };
        let Some(known) = answer.known.filter(is_known) else { return Heard::Unknown };
        match &known.phase {
            Phase::Done(_) | Phase::Answered(_) => return Heard::Repeated,
            // With another command in flight its record is about to go, and it is not waited for.
            _ if self.current.is_some() || self.in_doubt || answer.in_doubt => return Heard::Unknown,
            Phase::Started | Phase::Delivered { .. } => {}
        }
        let key = record_key(answer.device);
        // What is written without a command in flight is its end.
        if self.answering.is_some() || self.writing.is_some() {
            return repeated(batch);
        }
        let Ok(read) = Answer::read(answer.payload) else { return Heard::Malformed };
        let record = Record { phase: Phase::Answered(read), at_ms: now_ms, ..known.clone() };
        batch.state.put(&key, &record.encode());
        self.answering = Some(record);
        Heard::Written
    }
}

/// An answer that was said before and is not durable yet. It is acknowledged with a write behind that one, which
/// changes nothing: no device has this key. Writing the record again would say too much if the first write failed.
fn repeated(batch: &mut Batch<'_>) -> Heard {
    batch.state.delete(&record_key(""));
    Heard::Repeated
}

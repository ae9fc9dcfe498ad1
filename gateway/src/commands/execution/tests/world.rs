//! A world around one device's execution. Whatever can happen in it is an [`Action`]; after each the promises are
//! checked against what Service Bus, the disk and the device have seen.

use std::collections::VecDeque;
use std::sync::Arc;

use penstock_proto::Lane;
use serde_json::Value as Json;

use super::messages::{DEVICE, START_MS, command, received, timing, voice};
use crate::commands::contract::{Command, Completion, Identity, Phase, Record, record_key};
use crate::commands::execution::{Arrival, Batch, Event, Execution, Heard, Heeding, News, Step};
use crate::commands::message::{Disposition, LockToken};
use crate::mqtt::NotDelivered;
use crate::outbox::{Encoded, StateOps};

/// Deliveries after which Service Bus gives a message up.
const DELIVERIES_MAX: u32 = 10;

/// Everything there is.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct World {
    now_ms: u64,
    messages: Vec<Message>,
    /// What Service Bus still has, in order.
    queue: VecDeque<usize>,
    /// Whether there is a link, and what it handed over.
    linked: bool,
    locked: Option<usize>,
    disk: Disk,
    /// Submissions in order.
    arena: Vec<Submission>,
    execution: Execution,
    /// The record as the process remembers it, and whether that is in doubt.
    known: Option<Record>,
    in_doubt: bool,
    present: bool,
    /// What the device's session has and did not acknowledge.
    delivery: Option<usize>,
    pub(super) budget: Budget,
    flaw: Option<Flaw>,
    /// With [`Flaw::LateSubmission`]: what is to be submitted later.
    pocket: Option<Submission>,
}

/// A message, and what became of it so far.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Message {
    command: Arc<Command>,
    deliveries: u32,
    /// It left the queue otherwise than by our hands.
    vanished: bool,
    settled: Option<Disposition>,
    published: u32,
    /// It was published, and nothing said yet that this came to nothing.
    with_device: bool,
    /// The process knows that the device has it.
    acknowledged: bool,
    /// The answer that the device was promised to be durable, first of all.
    answered: Option<&'static str>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
struct Disk {
    record: Option<Record>,
    /// Message, whether final, and the status.
    events: Vec<(usize, bool, String)>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Submission {
    writer: Writer,
    events: Vec<(usize, bool, String)>,
    record: Option<Record>,
    state: Commit,
    /// The answer it is for.
    answer: Option<(usize, &'static str)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Writer {
    Driver,
    Hook,
    /// Nobody hears of it.
    Repeat,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Commit {
    Waiting,
    Durable,
    Failed,
}

/// How often things may happen that nobody asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Budget {
    pub(super) crashes: u8,
    pub(super) failures: u8,
    pub(super) link_losses: u8,
    pub(super) departures: u8,
    pub(super) refusals: u8,
    pub(super) timeouts: u8,
    pub(super) answers: u8,
    pub(super) vanishings: u8,
}

/// What is done wrong, to see that it is noticed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Flaw {
    /// What is submitted counts as durable at once: so messages are settled before.
    SettlesEarly,
    /// Of a command that was acknowledged only its beginning is remembered.
    ForgetsAcknowledgements,
    /// A command in flight is forgotten with its link.
    ForgetsWithLink,
    /// A write that failed counts as not there.
    BelievesFailures,
    /// Events are written without their records.
    EventAlone,
    /// The driver decides what to write first, and submits it later.
    LateSubmission,
    /// A command is published before its record is durable.
    PublishesEarly,
}

/// Something that happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Action {
    /// The driver does what it is told; `lost`: Service Bus never hears of it.
    Drive {
        lost: bool,
    },
    Link,
    Deliver,
    LoseLink,
    /// The first submission that waits is on the disk.
    Store,
    /// Its writer hears what became of a submission.
    Tell(usize),
    /// The disk fails; so many of what waits are there all the same.
    Fail {
        there: usize,
    },
    Look,
    Crash {
        there: usize,
    },
    Acknowledge,
    Refuse(u8),
    Full,
    Leave,
    Come,
    Answer(usize, &'static str),
    Pass,
    Vanish,
    Submit,
}

/// A promise that was broken.
pub(super) type Broken = String;

impl World {
    pub(super) fn new(completions: &[Completion], budget: Budget, flaw: Option<Flaw>) -> Self {
        let messages: Vec<_> =
            (1..).zip(completions).map(|(n, completion)| message(n, *completion)).collect();
        Self {
            now_ms: START_MS,
            queue: (0..messages.len()).collect(),
            messages,
            linked: false,
            locked: None,
            disk: Disk::default(),
            arena: Vec::new(),
            execution: Execution::new(timing()),
            known: None,
            in_doubt: false,
            present: true,
            delivery: None,
            budget,
            flaw,
            pocket: None,
        }
    }

    /// What can happen now.
    pub(super) fn actions(&self) -> Vec<Action> {
        let mut actions = self.duties();
        let Budget { crashes, failures, link_losses, departures, refusals, timeouts, answers, vanishings } =
            self.budget;
        let mut may = |left: u8, all: &[Action]| actions.extend(all.iter().filter(|_| left > 0));
        let waiting = self.waiting();
        may(crashes, &[Action::Crash { there: 0 }]);
        for there in 1..=waiting {
            may(crashes, &[Action::Crash { there }]);
        }
        for there in 0..=waiting {
            may(if waiting > 0 { failures } else { 0 }, &[Action::Fail { there }]);
        }
        if self.linked {
            may(link_losses, &[Action::LoseLink]);
            may(link_losses, &[Action::Drive { lost: true }]);
        }
        if self.present {
            may(departures, &[Action::Leave]);
        }
        if self.delivery.is_some() {
            may(refusals, &[Action::Refuse(0x97), Action::Refuse(0x87), Action::Full]);
        }
        may(if self.wake_up().is_some() { timeouts } else { 0 }, &[Action::Pass]);
        for (place, message) in self.messages.iter().enumerate() {
            if self.present && message.published > 0 {
                may(answers, &[Action::Answer(place, "succeeded"), Action::Answer(place, "failed")]);
            }
        }
        may(if self.locked.is_none() && !self.queue.is_empty() { vanishings } else { 0 }, &[Action::Vanish]);
        actions
    }

    /// What happens sooner or later if nothing goes wrong.
    pub(super) fn duties(&self) -> Vec<Action> {
        let mut duties = Vec::new();
        if self.present
            && !matches!(self.execution.clone().step(self.now_ms), Step::Wait { .. } | Step::Receive)
        {
            duties.push(Action::Drive { lost: false });
        }
        if self.present && !self.linked {
            duties.push(Action::Link);
        }
        if self.present && self.linked && self.locked.is_none() && !self.queue.is_empty() {
            duties.push(Action::Deliver);
        }
        if self.waiting() > 0 {
            duties.push(Action::Store);
        }
        let told = |submission: &Submission| submission.state != Commit::Waiting;
        let tell = self.arena.iter().enumerate().filter(|(_, submission)| told(submission));
        duties.extend(tell.map(|(place, _)| Action::Tell(place)));
        if self.in_doubt && self.arena.is_empty() && !self.is_writing() {
            duties.push(Action::Look);
        }
        if self.delivery.is_some() {
            duties.push(Action::Acknowledge);
        }
        if !self.present {
            duties.push(Action::Come);
        }
        if self.pocket.is_some() {
            duties.push(Action::Submit);
        }
        duties
    }

    /// Lets something happen.
    pub(super) fn act(&mut self, action: Action) -> Result<(), Broken> {
        match action {
            Action::Drive { lost } => self.drive(lost)?,
            Action::Link => self.linked = true,
            Action::Deliver => self.deliver(),
            Action::LoseLink => self.lose_link(),
            Action::Store => self.store(),
            Action::Tell(place) => self.tell(place),
            Action::Fail { there } => self.fail(there),
            Action::Look => self.look(),
            Action::Crash { there } => self.crash(there),
            Action::Acknowledge => self.acknowledge(),
            Action::Refuse(code) => self.refuse(code),
            Action::Full => self.full(),
            Action::Leave => self.leave(),
            Action::Come => self.present = true,
            Action::Answer(place, status) => self.answer(place, status)?,
            Action::Pass => self.pass(),
            Action::Vanish => self.vanish(),
            Action::Submit => self.arena.extend(self.pocket.take()),
        }
        self.check_events()
    }

    /// Lets everything come to its end without further trouble, and checks what is to hold then.
    pub(super) fn finish(&mut self) -> Result<(), Broken> {
        for _ in 0..400 {
            let duties = self.duties();
            let Some(action) = duties.first() else {
                if self.queue.is_empty() {
                    return self.check_end();
                }
                let Some(at_ms) = self.wake_up() else {
                    return Err(format!("it stands still: {:?}", self.execution));
                };
                self.wait_until(at_ms);
                continue;
            };
            self.act(*action)?;
        }
        Err(format!("it does not come to an end: {self:#?}"))
    }

    fn waiting(&self) -> usize {
        self.arena.iter().filter(|submission| submission.state == Commit::Waiting).count()
    }

    fn is_writing(&self) -> bool {
        self.arena.iter().any(|submission| submission.writer != Writer::Repeat) || self.pocket.is_some()
    }

    fn wake_up(&self) -> Option<u64> {
        match self.execution.clone().step(self.now_ms) {
            Step::Wait { until_ms } if self.present => until_ms,
            _ => None,
        }
    }

    fn on(&mut self, event: Event) {
        self.execution.on(event, self.now_ms);
        match self.execution.take_news() {
            Some(News::Durable(record)) => self.known = Some(record),
            Some(News::Doubt) => self.in_doubt = true,
            None => {}
        }
    }

    // --- the driver ---

    fn drive(&mut self, lost: bool) -> Result<(), Broken> {
        match self.execution.step(self.now_ms) {
            Step::Commit => self.commit(),
            Step::Publish { command, redelivered } => self.publish(&command, redelivered)?,
            Step::Settle { lock, disposition, record, .. } => {
                let place = self.place_of(&record.identity)?;
                if lost {
                    self.budget.link_losses -= 1;
                    self.lose_link();
                    return Ok(());
                }
                self.settle(place, lock, disposition)?;
                self.on(Event::Settled);
            }
            Step::Abandon { lock } => {
                let place = usize::from(lock.0[0]);
                if self.locked != Some(place) {
                    return Err("it abandons what is not locked".to_owned());
                }
                let message = &mut self.messages[place];
                (self.locked, self.delivery, message.with_device) = (None, None, false);
                message.deliveries += 1;
                if message.deliveries > DELIVERIES_MAX {
                    self.queue.retain(|other| *other != place);
                    self.messages[place].vanished = true;
                }
                self.on(Event::Settled);
            }
            Step::Close => {
                (self.linked, self.locked) = (false, None);
                self.withdraw();
                self.execution.leave();
                self.present = false;
            }
            Step::Receive | Step::Wait { .. } => {}
        }
        Ok(())
    }

    fn commit(&mut self) {
        let (mut entries, mut state) = (Encoded::default(), StateOps::default());
        let mut batch = Batch { voice: &voice(), entries: &mut entries, state: &mut state };
        if !self.execution.commit(&mut batch, self.now_ms) {
            return;
        }
        let submission = self.submission(Writer::Driver, &entries, &state);
        let is_start = submission.events.is_empty();
        match self.flaw {
            Some(Flaw::LateSubmission) => self.pocket = Some(submission),
            Some(Flaw::SettlesEarly) if !is_start => {
                self.arena.push(Submission { writer: Writer::Repeat, ..submission });
                self.on(Event::Committed(true));
            }
            Some(Flaw::PublishesEarly) if is_start => {
                self.arena.push(Submission { writer: Writer::Repeat, ..submission });
                self.on(Event::Committed(true));
            }
            _ => self.arena.push(submission),
        }
    }

    fn publish(&mut self, command: &Command, redelivered: bool) -> Result<(), Broken> {
        let identity = &command.about.identity;
        let place = self.place_of(identity)?;
        let stored = self.disk.record.as_ref().filter(|record| record.identity == *identity);
        if stored.is_none_or(|record| record.phase != Phase::Started) {
            return Err(format!("it publishes what is recorded as {stored:?}"));
        }
        let message = &mut self.messages[place];
        if message.acknowledged {
            return Err("it publishes what was acknowledged".to_owned());
        }
        if message.with_device {
            return Err("it publishes what the device has from it".to_owned());
        }
        if message.published > 0 && !redelivered {
            return Err("it publishes again without saying so".to_owned());
        }
        if self.locked != Some(place) {
            return Err("it publishes what is not locked".to_owned());
        }
        message.published += 1;
        message.with_device = true;
        self.delivery = Some(place);
        Ok(())
    }

    fn settle(&mut self, place: usize, lock: LockToken, disposition: Disposition) -> Result<(), Broken> {
        if usize::from(lock.0[0]) != place || self.locked != Some(place) {
            return Err("it settles what is not locked".to_owned());
        }
        if !self.disk.events.iter().any(|(of, is_final, _)| *of == place && *is_final) {
            return Err("it settles before the final event is durable".to_owned());
        }
        self.queue.retain(|other| *other != place);
        self.locked = None;
        self.messages[place].settled = Some(disposition);
        self.withdraw();
        Ok(())
    }

    // --- Service Bus ---

    fn deliver(&mut self) {
        let Some(place) = self.queue.front().copied() else { return };
        self.locked = Some(place);
        let message = &self.messages[place];
        let mut command = Command::clone(&message.command);
        command.about.delivery_count = message.deliveries;
        let mut known = self.known.clone();
        if let (Some(Flaw::ForgetsAcknowledgements), Some(record)) = (self.flaw, &mut known)
            && matches!(record.phase, Phase::Delivered { .. })
        {
            record.phase = Phase::Started;
        }
        let lock = LockToken([u8::try_from(place).unwrap(); 16]);
        let arrival = Arrival { lock, message: Ok(Arc::new(command)) };
        self.on(Event::Received { arrival, known, in_doubt: self.in_doubt });
    }

    fn lose_link(&mut self) {
        self.budget.link_losses = self.budget.link_losses.saturating_sub(1);
        (self.linked, self.locked) = (false, None);
        if self.flaw == Some(Flaw::ForgetsWithLink) && !self.is_writing() {
            self.execution = Execution::new(timing());
            self.known = self.known.take().map(|record| Record { phase: Phase::Started, ..record });
        } else {
            self.on(Event::LinkLost);
        }
    }

    fn vanish(&mut self) {
        self.budget.vanishings -= 1;
        if let Some(place) = self.queue.pop_front() {
            self.messages[place].vanished = true;
        }
    }

    // --- the disk ---

    fn submission(&self, writer: Writer, entries: &Encoded, state: &StateOps) -> Submission {
        let events = entries.payloads(Lane::Status).into_iter().map(|(device, payload)| {
            assert_eq!(device, DEVICE);
            let event: Json = serde_json::from_slice(&payload).expect("JSON");
            let data = &event["data"];
            let place =
                data["sequence"].as_u64().and_then(|n| usize::try_from(n - 1).ok()).expect("a sequence");
            let is_final = data["final"].as_bool().expect("final");
            let phase = if is_final { "final" } else { "delivered" };
            assert!(event["id"].as_str().is_some_and(|id| id.ends_with(phase)));
            (place, is_final, data["status"].as_str().expect("a status").to_owned())
        });
        let record = state.changes().into_iter().filter_map(|(key, value)| {
            assert_eq!(key, record_key(if value.is_some() { DEVICE } else { "" }));
            value.map(|value| Record::decode(&value).expect("a record"))
        });
        let (events, mut records) = (events.collect::<Vec<_>>(), record.collect::<Vec<_>>());
        assert!(records.len() <= 1);
        let alone = self.flaw == Some(Flaw::EventAlone) && !events.is_empty();
        let record = records.pop().filter(|_| !alone);
        Submission { writer, events, record, state: Commit::Waiting, answer: None }
    }

    fn store(&mut self) {
        let waits = |submission: &&mut Submission| submission.state == Commit::Waiting;
        let Some(submission) = self.arena.iter_mut().find(waits) else { return };
        submission.state = Commit::Durable;
        let submission = submission.clone();
        self.write(&submission);
        if submission.writer == Writer::Repeat {
            self.arena.retain(|other| *other != submission);
        }
        if let Some((place, status)) = submission.answer {
            // From here on the device has its acknowledgement.
            self.messages[place].answered.get_or_insert(status);
        }
    }

    fn write(&mut self, submission: &Submission) {
        self.disk.events.extend(submission.events.iter().cloned());
        if let Some(record) = &submission.record {
            self.disk.record = Some(record.clone());
        }
    }

    /// Writes so many of what waits, and says what is left.
    fn write_some(&mut self, there: usize) {
        let waits = |submission: &&Submission| submission.state == Commit::Waiting;
        let written: Vec<_> = self.arena.iter().filter(waits).take(there).cloned().collect();
        written.iter().for_each(|submission| self.write(submission));
    }

    fn tell(&mut self, place: usize) {
        let submission = self.arena.remove(place);
        let durable = submission.state == Commit::Durable;
        match submission.writer {
            Writer::Driver => self.on(Event::Committed(durable)),
            Writer::Hook => self.on(Event::AnswerCommitted(durable)),
            Writer::Repeat => {}
        }
    }

    fn fail(&mut self, there: usize) {
        self.budget.failures -= 1;
        self.write_some(there);
        for submission in self.arena.iter_mut().filter(|submission| submission.state == Commit::Waiting) {
            submission.state = Commit::Failed;
        }
        self.arena
            .retain(|submission| submission.writer != Writer::Repeat || submission.state == Commit::Durable);
    }

    fn look(&mut self) {
        let found = self.disk.record.clone();
        self.in_doubt = false;
        self.known.clone_from(&found);
        let believed = if self.flaw == Some(Flaw::BelievesFailures) { None } else { found };
        self.on(Event::Looked(believed));
    }

    fn crash(&mut self, there: usize) {
        self.budget.crashes -= 1;
        self.write_some(there);
        self.arena.clear();
        self.pocket = None;
        self.execution = Execution::new(timing());
        self.known.clone_from(&self.disk.record);
        (self.in_doubt, self.linked, self.locked, self.delivery) = (false, false, None, None);
        self.present = false;
        for message in &mut self.messages {
            (message.with_device, message.acknowledged) = (false, false);
        }
    }

    // --- the device ---

    fn withdraw(&mut self) {
        if let Some(place) = self.delivery.take() {
            self.messages[place].with_device = false;
        }
    }

    fn acknowledge(&mut self) {
        if let Some(place) = self.delivery.take() {
            self.messages[place].acknowledged = true;
            self.on(Event::Acknowledged);
        }
    }

    fn refuse(&mut self, code: u8) {
        self.budget.refusals -= 1;
        self.withdraw();
        self.on(Event::Refused(code));
    }

    fn full(&mut self) {
        self.budget.refusals -= 1;
        if let Some(place) = self.delivery {
            self.messages[place].published -= 1;
        }
        self.withdraw();
        self.on(Event::NotDelivered(NotDelivered::Full));
    }

    fn leave(&mut self) {
        self.budget.departures -= 1;
        self.withdraw();
        self.on(Event::Gone);
    }

    fn answer(&mut self, place: usize, status: &'static str) -> Result<(), Broken> {
        self.budget.answers -= 1;
        let command = Arc::clone(&self.messages[place].command);
        let (mut entries, mut state) = (Encoded::default(), StateOps::default());
        let payload = format!(r#"{{"status":"{status}"}}"#);
        let heeding = Heeding {
            device: DEVICE,
            id: &command.about.id,
            payload: payload.as_bytes(),
            known: self.known.as_ref(),
            in_doubt: self.in_doubt,
        };
        let mut batch = Batch { voice: &voice(), entries: &mut entries, state: &mut state };
        let heard = self.execution.answer(&heeding, &mut batch, self.now_ms);
        let submission = |writer, answer| Submission { answer, ..self.submission(writer, &entries, &state) };
        match heard {
            Heard::Written => {
                let submission = submission(Writer::Hook, Some((place, status)));
                self.arena.push(submission);
            }
            Heard::Repeated if !state.is_empty() => {
                let submission = submission(Writer::Repeat, None);
                self.arena.push(submission);
            }
            Heard::Repeated => {}
            Heard::Unknown if entries.is_empty() && state.is_empty() => {}
            Heard::Unknown | Heard::Malformed => return Err(format!("{heard:?}, and something is put down")),
        }
        Ok(())
    }

    fn pass(&mut self) {
        self.budget.timeouts -= 1;
        if let Some(at_ms) = self.wake_up() {
            self.wait_until(at_ms);
        }
    }

    /// The driver sleeps until then, and looks what is to be done.
    fn wait_until(&mut self, at_ms: u64) {
        self.now_ms = self.now_ms.max(at_ms);
        let looked = &mut self.execution.clone();
        if matches!(looked.step(self.now_ms), Step::Wait { .. }) {
            self.execution.clone_from(looked);
        }
    }

    // --- the promises ---

    fn place_of(&self, identity: &Identity) -> Result<usize, Broken> {
        let place = self.messages.iter().position(|message| message.command.about.identity == *identity);
        place.ok_or_else(|| format!("there is no {identity:?}"))
    }

    fn check_events(&self) -> Result<(), Broken> {
        for place in 0..self.messages.len() {
            let of: Vec<_> = self.disk.events.iter().filter(|(of, ..)| *of == place).collect();
            if of.iter().filter(|(_, is_final, _)| *is_final).count() > 1 {
                return Err(format!("two final events: {of:?}"));
            }
            if of.iter().filter(|(_, is_final, _)| !*is_final).count() > 1 {
                return Err(format!("told twice that it is delivered: {of:?}"));
            }
            if of.iter().rev().skip(1).any(|(_, is_final, _)| *is_final) {
                return Err(format!("an event behind the final one: {of:?}"));
            }
        }
        Ok(())
    }

    fn check_end(&self) -> Result<(), Broken> {
        for (place, message) in self.messages.iter().enumerate().filter(|(_, message)| !message.vanished) {
            let last = self.disk.events.iter().rev().find(|(of, ..)| *of == place);
            let Some((_, true, status)) = last else { return Err(format!("no final event for {place}")) };
            if message.settled.is_none() {
                return Err(format!("{place} is not settled"));
            }
            if message.answered.is_some_and(|answered| answered != status) {
                return Err(format!("the device's answer {:?} was told as {status}", message.answered));
            }
        }
        Ok(())
    }
}

fn message(sequence: i64, completion: Completion) -> Message {
    Message {
        command: command(&received(sequence, completion)),
        deliveries: 0,
        vanished: false,
        settled: None,
        published: 0,
        with_device: false,
        acknowledged: false,
        answered: None,
    }
}

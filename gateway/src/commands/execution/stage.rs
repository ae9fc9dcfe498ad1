//! Where a command stands.

use std::sync::Arc;

use super::{Batch, Step};
use crate::commands::contract::{
    About, Command, Completion, Ending, Outcome, Phase, Poison, Record, Reply, StatusEvent,
};
use crate::commands::message::LockToken;

/// The message in flight.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Current {
    pub(super) content: Content,
    /// What it is settled by, while there is a link that has it.
    pub(super) lock: Option<LockToken>,
    pub(super) stage: Stage,
    /// The device may have got it before.
    redelivered: bool,
    /// It went to the device's session.
    pub(super) published: bool,
    /// Its end is an answer that is durable: no other one counts.
    pub(super) answered: bool,
    /// What is durable, once it is done.
    done: Option<Record>,
}

/// A message that waits for the one before it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Next {
    pub(super) lock: LockToken,
    pub(super) content: Content,
    pub(super) known: Option<Record>,
}

/// What a message is.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Content {
    Command(Arc<Command>),
    Poison(Arc<Poison>),
}

/// Where a command stands. Deadlines are in Unix milliseconds; other times are by the monotonic clock.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Stage {
    /// That it begins is to be written.
    Start,
    /// It may go to the device.
    Publish { not_before_ms: u64 },
    /// The device's session has it.
    Sent { ack_by_ms: u64 },
    /// The device did not take it now: its message is given back after a pause. A late acknowledgement counts.
    Backoff { at_ms: u64 },
    /// Its message is being given back.
    Abandoning,
    /// The device has it: that is to be written, and its answer waited for.
    Delivered { deadline_ms: u64 },
    /// Its answer is waited for.
    Waiting { deadline_ms: u64 },
    /// How it ends is decided, and to be written.
    Final(Outcome),
    /// That is durable: its message is to be settled.
    Settle { told: bool },
}

/// First and longest pause before a message is given back, in milliseconds.
const BACKOFF_MS: (u64, u64) = (1000, 30_000);

// === impl Current ===

impl Current {
    /// A message from the beginning, or from where its record says.
    pub(super) fn begin(next: Next) -> Self {
        let Next { lock, content, known } = next;
        let about = content.about();
        let known = known.filter(|record| record.identity == about.identity);
        let begun = known.as_ref().is_some_and(|record| record.phase == Phase::Started);
        let stage = match &content {
            Content::Command(_) => Stage::Start,
            Content::Poison(poison) => Stage::Final(Outcome::malformed(&poison.why)),
        };
        let redelivered = begun || about.delivery_count > 0;
        let lock = Some(lock);
        let (published, answered, done) = (false, false, None);
        let mut current = Self { content, lock, stage, redelivered, published, answered, done };
        if let Some(record) = &known {
            current.catch_up(record);
        }
        current
    }

    /// The message came again, over this link.
    pub(super) fn attach(&mut self, lock: LockToken) {
        self.lock = Some(lock);
        match &mut self.stage {
            Stage::Settle { told } => *told = false,
            // Its delivery was withdrawn.
            Stage::Abandoning => {
                self.redelivered = true;
                self.stage = Stage::Publish { not_before_ms: 0 };
            }
            _ => {}
        }
    }

    /// Goes on to where a record of this command says that it is; never back.
    pub(super) fn catch_up(&mut self, record: &Record) {
        let waits = matches!(self.stage, Stage::Waiting { .. });
        let before_final = !matches!(self.stage, Stage::Final(_) | Stage::Settle { .. });
        match &record.phase {
            Phase::Started if self.stage == Stage::Start => self.stage = Stage::Publish { not_before_ms: 0 },
            Phase::Delivered { deadline_ms } if before_final && !waits => {
                self.stage = Stage::Waiting { deadline_ms: *deadline_ms };
            }
            Phase::Answered(answer) if before_final => {
                self.answered = true;
                self.stage = Stage::Final(answer.outcome());
            }
            Phase::Done(_) if !matches!(self.stage, Stage::Settle { .. }) => {
                self.done = Some(record.clone());
                self.stage = Stage::Settle { told: false };
            }
            _ => {}
        }
    }

    /// Whether nothing is lost if the device is away and the link is closed now.
    pub(super) fn ends_with_device(&self) -> bool {
        match self.stage {
            Stage::Start
            | Stage::Publish { .. }
            | Stage::Sent { .. }
            | Stage::Backoff { .. }
            | Stage::Waiting { .. } => true,
            Stage::Settle { .. } => self.lock.is_none(),
            Stage::Abandoning => self.lock.is_none(),
            Stage::Delivered { .. } | Stage::Final(_) => false,
        }
    }

    pub(super) fn publish(&mut self, ack_by_ms: u64) -> Step {
        // Without a lock somebody else may have it by now.
        let (Content::Command(command), Some(_)) = (&self.content, self.lock) else {
            return Step::Wait { until_ms: None };
        };
        let (command, redelivered) = (Arc::clone(command), self.redelivered);
        self.stage = Stage::Sent { ack_by_ms };
        self.published = true;
        Step::Publish { command, redelivered }
    }

    pub(super) fn abandon(&mut self) -> Step {
        let Some(lock) = self.lock else { return Step::Wait { until_ms: None } };
        self.stage = Stage::Abandoning;
        Step::Abandon { lock }
    }

    pub(super) fn settle(&mut self) -> Step {
        let (Stage::Settle { told: told @ false }, Some(lock), Some(record)) =
            (&mut self.stage, self.lock, &self.done)
        else {
            return Step::Wait { until_ms: None };
        };
        let Phase::Done(disposition) = &record.phase else { return Step::Wait { until_ms: None } };
        *told = true;
        let reply = Reply::new(self.content.about(), record).map(Box::new);
        Step::Settle { lock, disposition: disposition.clone(), record: record.clone(), reply }
    }

    pub(super) fn back_off(&mut self, steady_ms: u64) {
        let (first, longest) = BACKOFF_MS;
        let pause = first.checked_shl(self.content.about().delivery_count.min(16)).unwrap_or(longest);
        self.stage = Stage::Backoff { at_ms: steady_ms.saturating_add(pause.min(longest)) };
    }

    pub(super) fn is_expired(&self, now_ms: u64) -> bool {
        matches!(&self.content, Content::Command(command) if command.is_expired(now_ms))
    }

    /// Whether an answer is part of it.
    pub(super) fn awaits_answer(&self) -> bool {
        matches!(&self.content, Content::Command(command) if command.completion == Completion::Answered)
    }

    /// Whether the device can know it.
    pub(super) const fn may_be_answered(&self) -> bool {
        self.published || self.redelivered || matches!(self.stage, Stage::Waiting { .. })
    }

    /// Puts an event about it down.
    pub(super) fn tell(&self, outcome: &Outcome, is_final: bool, batch: &mut Batch<'_>, now_ms: u64) {
        let (about, redelivered) = (self.content.about(), self.redelivered && self.published);
        let event = StatusEvent { about, outcome, is_final, redelivered, now_ms };
        event.push(batch.voice, batch.entries);
    }

    pub(super) fn record(&self, phase: Phase, at_ms: u64) -> Record {
        let completion = match &self.content {
            Content::Command(command) => command.completion,
            Content::Poison(_) => Completion::Delivered,
        };
        let identity = self.content.about().identity.clone();
        Record { identity, completion, phase, at_ms, ending: None }
    }

    /// The record that it is done, with how it ended if its sender asked for a reply.
    pub(super) fn done(&self, outcome: &Outcome, at_ms: u64) -> Record {
        let about = self.content.about();
        let ending = about.reply_to.as_ref().map(|_| {
            let redelivered = self.redelivered && self.published;
            Box::new(Ending { outcome: outcome.clone(), redelivered })
        });
        Record { ending, ..self.record(Phase::Done(outcome.disposition()), at_ms) }
    }

    pub(super) fn device(&self) -> &str {
        &self.content.about().device
    }
}

// === impl Content ===

impl Content {
    pub(super) fn about(&self) -> &About {
        match self {
            Self::Command(command) => &command.about,
            Self::Poison(poison) => &poison.about,
        }
    }
}

impl From<Result<Arc<Command>, Arc<Poison>>> for Content {
    fn from(message: Result<Arc<Command>, Arc<Poison>>) -> Self {
        message.map_or_else(Self::Poison, Self::Command)
    }
}

// === impl Stage ===

impl Stage {
    /// The word for it, for operators.
    pub(super) const fn word(&self) -> &'static str {
        match self {
            Self::Start => "starting",
            Self::Publish { .. } => "to-publish",
            Self::Sent { .. } => "published",
            Self::Backoff { .. } | Self::Abandoning => "given-back",
            Self::Delivered { .. } | Self::Waiting { .. } => "delivered",
            Self::Final(_) => "ending",
            Self::Settle { .. } => "to-settle",
        }
    }
}

//! How a device executes commands: commands in, acknowledgements and answers out. No I/O and no clock.
//!
//! ```text
//! PUBLISH ──► waits (latency) ──► PUBACK ──► works on it ──► answer, until that is acknowledged
//!                     └─► or the device crashes
//! ```
//!
//! Acknowledgements leave in the order in which the commands came, as MQTT demands. They die with their
//! connection; answers do not: a device that took a command tells its outcome on the next connection.
//! What a device does with a command follows from its seed and the number of the command alone, so that a
//! command that comes again meets the same device. A command that comes again is acknowledged again, and
//! answered again unless its answer has not left yet.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use testkit::commands::account::{Account, Outcome, Reply};
use testkit::commands::{Body, decoded};
use tokio::time::Instant;

use crate::device::PKID_MAX;
use crate::profile::Commands;

/// The first packet id of an answer.
const PKID_FIRST: u16 = PKID_MAX + 1;
/// The packet id of the subscription; answers stay below it.
pub(crate) const SUBSCRIBE_PKID: u16 = u16::MAX;

/// A command as it came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Incoming {
    /// 0 at QoS 0, which is not acknowledged.
    pub(crate) pkid: u16,
    pub(crate) topic: String,
    pub(crate) payload: Bytes,
    /// Whether it is marked as delivered before; `None` where MQTT has no place for it.
    pub(crate) redelivered: Option<bool>,
    /// Where the answer goes, if it says so.
    pub(crate) response_topic: Option<String>,
    pub(crate) correlation: Option<Bytes>,
}

/// What a device does now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Act {
    /// PUBACK, with a reason if it refuses.
    Acknowledge { pkid: u16, refused: Option<u8> },
    /// PUBLISH of an answer at QoS 1.
    Answer { pkid: u16, topic: String, payload: Vec<u8>, correlation: Option<Bytes> },
    /// Reset the connection.
    Crash,
}

/// Why a publish to a device is no command for it. Such a gateway is wrong, and the run says so.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NotACommand {
    #[error("a publish to {0:?}, which is no command topic of this device")]
    Topic(String),
    #[error("the body of {0} is no command of this fleet")]
    Body(String),
    #[error("the command {0} came at QoS 0")]
    Qos(String),
}

/// A device's part that executes commands.
#[derive(Debug)]
pub(crate) struct Executor {
    /// `devices/ID/commands/`.
    prefix: String,
    profile: Commands,
    version_5: bool,
    seed: u64,
    account: Account,
    waiting: VecDeque<Waiting>,
    answers: VecDeque<Answer>,
    pkid: u16,
}

/// A delivery that is not acknowledged yet.
#[derive(Debug)]
struct Waiting {
    due: Instant,
    pkid: u16,
    receipt: usize,
    crashes: bool,
    refused: Option<u8>,
    /// What follows on the acknowledgement.
    answer: Option<Planned>,
}

#[derive(Debug, Clone)]
struct Planned {
    after: Duration,
    number: u64,
    outcome: Outcome,
    topic: String,
    correlation: Option<Bytes>,
}

/// An answer that is not acknowledged yet.
#[derive(Debug)]
struct Answer {
    due: Instant,
    receipt: usize,
    planned: Planned,
    /// The packet id under which it is on the wire.
    flying: Option<u16>,
}

/// What a device does with one command, whenever it comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Temper {
    latency: Duration,
    answer_after: Duration,
    refuses: bool,
    crashes: bool,
    /// `None`: it never answers.
    outcome: Option<Outcome>,
}

impl Executor {
    pub(crate) fn new(device: &str, seed: u64, version_5: bool, profile: Commands) -> Self {
        Self {
            prefix: format!("devices/{device}/commands/"),
            profile,
            version_5,
            seed,
            account: Account::default(),
            waiting: VecDeque::new(),
            answers: VecDeque::new(),
            pkid: PKID_FIRST,
        }
    }

    /// The filter of its commands.
    pub(crate) fn filter(&self) -> String {
        format!("{}+", self.prefix)
    }

    /// Whether it has nothing to acknowledge and nothing to say.
    pub(crate) fn is_idle(&self) -> bool {
        self.waiting.is_empty() && self.answers.is_empty()
    }

    /// A connection to the gateway with this place in the list of targets.
    pub(crate) fn connected(&mut self, target: usize) {
        self.account.connected(target);
    }

    /// The connection is over: what was not acknowledged on it never will be.
    pub(crate) fn disconnected(&mut self, now_ms: u64) {
        self.account.disconnected(now_ms);
        self.waiting.clear();
        for answer in &mut self.answers {
            answer.flying = None;
        }
    }

    /// Takes a command.
    ///
    /// # Errors
    /// When it is none of this device's.
    pub(crate) fn received(
        &mut self,
        command: Incoming,
        now: Instant,
        now_ms: u64,
    ) -> Result<(), NotACommand> {
        let Incoming { pkid, topic, payload, redelivered, response_topic, correlation } = command;
        let level = topic.strip_prefix(&self.prefix).filter(|level| !level.contains('/'));
        let Some(id) = level.and_then(decoded) else { return Err(NotACommand::Topic(topic)) };
        if pkid == 0 {
            return Err(NotACommand::Qos(id));
        }
        let Ok(body) = serde_json::from_slice::<Body>(&payload) else { return Err(NotACommand::Body(id)) };
        let number = body.number;
        let first = self.account.receipts.iter().all(|receipt| receipt.number != number);
        let receipt = self.account.received(id, number, redelivered, now_ms);
        let temper = self.temper(number);
        let wants_answer = body.answer && !temper.refuses && !self.has_to_say(number);
        let topic = response_topic.unwrap_or_else(|| format!("{topic}/status"));
        let answer = temper.outcome.filter(|_| wants_answer).map(|outcome| Planned {
            after: temper.answer_after,
            number,
            outcome,
            topic,
            correlation,
        });
        self.waiting.push_back(Waiting {
            due: now + temper.latency,
            pkid,
            receipt,
            crashes: first && temper.crashes,
            refused: temper.refuses.then_some(self.profile.refuse_reason),
            answer,
        });
        Ok(())
    }

    /// PUBACK for an answer. An unknown one is of an answer that was given up with its connection.
    pub(crate) fn answer_acked(&mut self, pkid: u16) {
        let place = self.answers.iter().position(|answer| answer.flying == Some(pkid));
        if let Some(answer) = place.and_then(|place| self.answers.remove(place)) {
            self.account.answer_acked(answer.receipt);
        }
    }

    /// What is due now; to be asked again until it is nothing.
    pub(crate) fn next(&mut self, now: Instant, now_ms: u64) -> Option<Act> {
        if self.waiting.front().is_some_and(|waiting| waiting.due <= now) {
            return self.waiting.pop_front().map(|waiting| self.acknowledge(waiting, now, now_ms));
        }
        let due = |answer: &&mut Answer| answer.flying.is_none() && answer.due <= now;
        let answer = self.answers.iter_mut().find(due)?;
        let pkid = self.pkid;
        self.pkid = if pkid + 1 == SUBSCRIBE_PKID { PKID_FIRST } else { pkid + 1 };
        answer.flying = Some(pkid);
        let Planned { outcome, topic, correlation, .. } = answer.planned.clone();
        self.account.answered(answer.receipt, outcome, now_ms);
        let payload = serde_json::json!({ "status": outcome.word(), "code": answer.planned.number });
        Some(Act::Answer { pkid, topic, payload: payload.to_string().into_bytes(), correlation })
    }

    /// When something is due next.
    pub(crate) fn due(&self) -> Option<Instant> {
        let answers = self.answers.iter().filter(|answer| answer.flying.is_none()).map(|answer| answer.due);
        answers.chain(self.waiting.front().map(|waiting| waiting.due)).min()
    }

    /// The account, when the device's work is done.
    pub(crate) fn into_account(self) -> Account {
        self.account
    }

    fn acknowledge(&mut self, waiting: Waiting, now: Instant, now_ms: u64) -> Act {
        let Waiting { pkid, receipt, crashes, refused, answer, .. } = waiting;
        if crashes {
            return Act::Crash;
        }
        let reply = match refused {
            Some(reason) => Reply::Refused { reason, at_ms: now_ms },
            None => Reply::Acked(now_ms),
        };
        self.account.replied(receipt, reply);
        if let Some(planned) = answer {
            self.answers.push_back(Answer { due: now + planned.after, receipt, planned, flying: None });
        }
        Act::Acknowledge { pkid, refused }
    }

    /// Whether an answer about this command is still to leave.
    fn has_to_say(&self, number: u64) -> bool {
        self.answers.iter().any(|answer| answer.planned.number == number && answer.flying.is_none())
    }

    fn temper(&self, number: u64) -> Temper {
        let Commands { refuse_percent, fail_percent, reject_percent, silent_percent, crash_percent, .. } =
            self.profile;
        let mut rng = StdRng::seed_from_u64(self.seed ^ number.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let mut around =
            |average_ms: u32| Duration::from_millis(average_ms.into()).mul_f64(rng.random_range(0.5..1.5));
        let (latency, answer_after) = (around(self.profile.latency_ms), around(self.profile.answer_ms));
        let mut percent = || rng.random_range(0..100_u8);
        let (refuses, crashes) = (percent() < refuse_percent && self.version_5, percent() < crash_percent);
        let word = percent();
        let outcome = if word < fail_percent {
            Some(Outcome::Failed)
        } else if word < fail_percent + reject_percent {
            Some(Outcome::Rejected)
        } else if word < fail_percent + reject_percent + silent_percent {
            None
        } else {
            Some(Outcome::Succeeded)
        };
        Temper { latency, answer_after, refuses, crashes, outcome }
    }
}

#[cfg(test)]
mod tests;

//! The verdict over commands: what was sent against what devices, Service Bus and the cloud saw.
//!
//! | Word | Meaning | Allowed |
//! |---|---|---|
//! | stuck | no final status, or not settled | never |
//! | repeated | delivered again although its device had acknowledged it and the gateway could know | never |
//! | unmarked | delivered again without saying so, where MQTT can say it: by the same gateway, or by any that Service Bus told of a failed delivery | never |
//! | out of order | a device got a command after a later one, or they were settled in another order | never |
//! | early | settled before the device acknowledged it, or before it answered where it was to answer | never |
//! | burnt | a delivery counts as failed that nobody gave back and whose lock did not run out | never |
//! | ambiguous | more than one final status, told apart by the ids of the events | never |
//! | contradicted | device, status and settlement do not tell the same story | never |
//! | unexpected | never sent, or for another device | never |
//! | again | delivered again for a reason: the connection went before the acknowledgement, or with it | always |
//! | elsewhere | delivered again by another gateway, which could not know that its device had acknowledged it | while it is not settled |
//!
//! An acknowledgement that was written shortly before its connection ended may not have reached the gateway, so
//! a delivery after it is no broken promise ([`Conditions::grace_ms`]).

mod case;
mod device;

use std::collections::HashMap;

use super::Sent;
use super::account::Account;
use super::status::StatusEvent;
use super::wire::Entry;
use case::Case;

/// Most examples kept of what went wrong.
pub const EXAMPLES_MAX: usize = 20;

/// Everything that the witnesses say. All times are of one clock.
#[derive(Debug, Clone, Copy)]
pub struct Evidence<'e> {
    /// What was sent, in the order in which it was enqueued.
    pub sent: &'e [Sent],
    /// The accounts of the devices.
    pub accounts: &'e HashMap<String, Account>,
    /// What Service Bus saw, in order.
    pub settlements: &'e [Entry],
    /// What the gateway told the cloud. The same event may be there more than once.
    pub events: &'e [StatusEvent],
}

/// What a run tolerates.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Conditions {
    /// An acknowledgement written less than so many milliseconds before its connection ended may have been lost.
    pub grace_ms: u64,
}

/// What was counted, in commands unless said otherwise.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Counts {
    /// Commands sent.
    pub sent: u64,
    /// Different ones that reached their device.
    pub received: u64,
    /// Those with exactly one final status and one settlement.
    pub completed: u64,
    /// Those among the completed that were dead-lettered.
    pub dead_lettered: u64,
    /// Deliveries beyond the first of a command, whatever the reason.
    pub again: u64,
    /// Those among them that another gateway made after an acknowledgement.
    pub elsewhere: u64,
    /// See the table of this module; deliveries.
    pub repeated: u64,
    /// Deliveries.
    pub unmarked: u64,
    /// See the table of this module.
    pub out_of_order: u64,
    /// See the table of this module.
    pub stuck: u64,
    /// See the table of this module.
    pub early: u64,
    /// See the table of this module.
    pub burnt: u64,
    /// See the table of this module.
    pub ambiguous: u64,
    /// See the table of this module.
    pub contradicted: u64,
    /// See the table of this module.
    pub unexpected: u64,
}

/// The outcome: counts, and the reasons when a promise was broken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// The counts.
    pub counts: Counts,
    /// One sentence per broken promise, then examples; empty when every promise was kept.
    pub reasons: Vec<String>,
}

/// Compares everything with everything.
#[must_use]
pub fn judge(evidence: Evidence<'_>, conditions: Conditions) -> Verdict {
    let mut findings = Findings { conditions, ..Findings::default() };
    findings.counts.sent = evidence.sent.len() as u64;
    let mut cases = cases(evidence, &mut findings);
    for (device, account) in evidence.accounts {
        device::examine(device, account, &mut cases, &mut findings);
    }
    order_of_settlements(evidence.settlements, &mut findings);
    // In the order in which they were sent, so that the examples of a run do not depend on hashing.
    for sent in evidence.sent {
        if let Some(case) = cases.get(sent.id.as_str()) {
            case.examine(&mut findings);
        }
    }
    findings.verdict()
}

/// Brings everything about a command together.
fn cases<'e>(evidence: Evidence<'e>, findings: &mut Findings) -> HashMap<&'e str, Case<'e>> {
    let mut cases: HashMap<&str, Case<'_>> = HashMap::with_capacity(evidence.sent.len());
    for sent in evidence.sent {
        if cases.insert(sent.id.as_str(), Case::new(sent)).is_some() {
            findings.unexpected(&sent.id, "sent twice under one id");
        }
    }
    for settlement in evidence.settlements {
        let id = settlement.message_id.as_deref().unwrap_or_default();
        match cases.get_mut(id) {
            Some(case) => case.settlements.push(settlement),
            None if settlement.is_final() => findings.unexpected(id, "settled, but never sent"),
            None => {}
        }
    }
    for event in evidence.events {
        match cases.get_mut(event.command_id.as_str()) {
            Some(case) if case.sent.device == event.device => case.events.push(event),
            Some(_) => findings.unexpected(&event.command_id, "the event names another device"),
            None => findings.unexpected(&event.command_id, "has an event, but was never sent"),
        }
    }
    cases
}

/// Commands of one session leave the queue in the order in which they came.
fn order_of_settlements(settlements: &[Entry], findings: &mut Findings) {
    let mut last: HashMap<&str, i64> = HashMap::new();
    for settlement in settlements.iter().filter(|settlement| settlement.is_final()) {
        let Some(session) = settlement.session.as_deref() else { continue };
        let last = last.entry(session).or_insert(i64::MIN);
        if settlement.sequence < *last {
            let id = settlement.message_id.as_deref().unwrap_or_default();
            findings.out_of_order(id, &format!("settled after sequence number {last}"));
        }
        *last = settlement.sequence.max(*last);
    }
}

/// What was found so far.
#[derive(Debug, Default)]
struct Findings {
    conditions: Conditions,
    counts: Counts,
    examples: Vec<String>,
}

impl Default for Conditions {
    fn default() -> Self {
        Self { grace_ms: 2000 }
    }
}

impl Findings {
    fn example(&mut self, word: &str, id: &str, what: &str) {
        if self.examples.len() < EXAMPLES_MAX {
            self.examples.push(format!("{word}: {id}: {what}"));
        }
    }

    fn unexpected(&mut self, id: &str, what: &str) {
        self.counts.unexpected += 1;
        self.example("unexpected", id, what);
    }

    fn out_of_order(&mut self, id: &str, what: &str) {
        self.counts.out_of_order += 1;
        self.example("out of order", id, what);
    }

    fn contradicted(&mut self, id: &str, what: &str) {
        self.counts.contradicted += 1;
        self.example("contradicted", id, what);
    }

    fn verdict(self) -> Verdict {
        let counts = self.counts;
        let rules = [
            (counts.stuck, "commands are stuck: no final status, or not settled"),
            (counts.repeated, "deliveries repeat what was acknowledged"),
            (counts.unmarked, "deliveries are repeats that do not say so"),
            (counts.out_of_order, "commands are out of order"),
            (counts.early, "commands were settled before their device was done with them"),
            (counts.burnt, "commands lost deliveries that nobody used"),
            (counts.ambiguous, "commands have more than one final status"),
            (counts.contradicted, "commands have a status or a settlement that does not fit"),
            (counts.unexpected, "things nothing explains"),
        ];
        let broken = rules.iter().filter(|(count, _)| *count > 0);
        let mut reasons: Vec<String> = broken.map(|(count, what)| format!("{count} {what}")).collect();
        if !reasons.is_empty() {
            reasons.extend(self.examples);
        }
        Verdict { counts, reasons }
    }
}

impl Verdict {
    /// Whether every promise was kept.
    #[must_use]
    pub fn pass(&self) -> bool {
        self.reasons.is_empty()
    }
}

#[cfg(test)]
mod tests;

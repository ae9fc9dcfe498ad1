//! Everything about one command, and whether it fits together.

use std::collections::BTreeMap;

use super::Findings;
use crate::commands::Sent;
use crate::commands::account::{Receipt, Reply};
use crate::commands::status::StatusEvent;
use crate::commands::wire::{Entry, Event};

/// What the gateway puts before the reason of a dead letter.
const REASON_PREFIX: &str = "penstock-";
/// The reason of a command whose device refused it.
const REFUSED: &str = "refused";
/// The reason of a command whose device took it and never answered.
const NO_ANSWER: &str = "no-answer";

/// A command with what each witness says about it.
#[derive(Debug)]
pub(super) struct Case<'e> {
    pub(super) sent: &'e Sent,
    pub(super) receipts: Vec<&'e Receipt>,
    pub(super) settlements: Vec<&'e Entry>,
    pub(super) events: Vec<&'e StatusEvent>,
}

impl<'e> Case<'e> {
    pub(super) const fn new(sent: &'e Sent) -> Self {
        Self { sent, receipts: Vec::new(), settlements: Vec::new(), events: Vec::new() }
    }

    /// Whether the gateway that made this delivery was told by Service Bus that an earlier one had failed. It had the
    /// message from Service Bus shortly before.
    pub(super) fn had_failed(&self, receipt: &Receipt, grace_ms: u64) -> bool {
        let handed = self.settlements.iter().rev().filter(|entry| entry.event == Event::Delivered);
        let mut handed = handed.skip_while(|entry| entry.at_ms > receipt.received_ms);
        let recent = |entry: &&&Entry| entry.at_ms.saturating_add(grace_ms) >= receipt.received_ms;
        handed.next().is_some_and(|entry| entry.delivery_count > 0)
            && handed.take_while(recent).all(|entry| entry.delivery_count > 0)
    }

    pub(super) fn examine(&self, findings: &mut Findings) {
        let id = self.sent.id.as_str();
        findings.counts.received += u64::from(!self.receipts.is_empty());
        let status = self.status(findings);
        let settlement = self.settlement(findings);
        match (status, settlement) {
            (Some(status), Some(settlement)) => {
                findings.counts.completed += 1;
                findings.counts.dead_lettered += u64::from(settlement.event == Event::DeadLettered);
                self.fits(status, settlement, findings);
                self.in_time(status, settlement, findings);
            }
            (status, settlement) => {
                findings.counts.stuck += 1;
                let said = |there: bool| if there { "there" } else { "missing" };
                let (status, settlement) = (said(status.is_some()), said(settlement.is_some()));
                findings.example("stuck", id, &format!("final status {status}, settlement {settlement}"));
            }
        }
    }

    /// The final status, if there is exactly one by the ids of the events.
    fn status(&self, findings: &mut Findings) -> Option<&'e StatusEvent> {
        let mut finals: BTreeMap<&str, &StatusEvent> = BTreeMap::new();
        for event in self.events.iter().copied().filter(|event| event.is_final) {
            let known = finals.entry(event.event_id.as_str()).or_insert(event);
            if (&known.status, &known.reason) != (&event.status, &event.reason) {
                let both = format!("{} and {} under {}", known.status, event.status, event.event_id);
                findings.contradicted(&self.sent.id, &both);
            }
        }
        if finals.len() > 1 {
            findings.counts.ambiguous += 1;
            let ids = finals.keys().copied().collect::<Vec<_>>().join(", ");
            findings.example("ambiguous", &self.sent.id, &format!("final events {ids}"));
        }
        finals.into_values().next()
    }

    /// The settlement that took it from the queue. Looks at the delivery count on the way.
    fn settlement(&self, findings: &mut Findings) -> Option<&'e Entry> {
        let used = self.settlements.iter().filter(|settlement| settlement.is_failed_delivery());
        let used = u32::try_from(used.count()).unwrap_or(u32::MAX);
        let counted = self.settlements.iter().map(|settlement| settlement.delivery_count).max().unwrap_or(0);
        if counted > used {
            findings.counts.burnt += 1;
            let what = format!("delivery count {counted}, of which {used} are explained");
            findings.example("burnt", &self.sent.id, &what);
        }
        let mut last = self.settlements.iter().copied().filter(|settlement| settlement.is_final());
        let settlement = last.next();
        if last.next().is_some() {
            findings.contradicted(&self.sent.id, "taken from the queue twice");
        }
        settlement
    }

    /// Whether device, status and settlement tell the same story.
    fn fits(&self, status: &StatusEvent, settlement: &Entry, findings: &mut Findings) {
        let reason = status.reason.as_deref();
        let replied = |is: fn(&Reply) -> bool| self.receipts.iter().any(|receipt| is(&receipt.reply));
        let acked = replied(|reply| matches!(reply, Reply::Acked(_)));
        let answered = |word: &str| {
            let answers = self.receipts.iter().filter_map(|receipt| receipt.answer);
            answers.into_iter().any(|answer| answer.outcome.word() == word)
        };
        let outcome = settlement.event;
        let (device, outcome_wanted) = match (status.status.as_str(), reason) {
            ("delivered", None) => (!self.sent.answer && acked, Event::Completed),
            ("failed", Some(NO_ANSWER)) => (self.sent.answer && acked, Event::Completed),
            ("rejected", Some(REFUSED)) => {
                (replied(|reply| matches!(reply, Reply::Refused { .. })), Event::DeadLettered)
            }
            (word @ ("succeeded" | "failed" | "rejected"), None) => {
                (self.sent.answer && answered(word), Event::Completed)
            }
            _ => (false, outcome),
        };
        if !device {
            let what = format!("status {} ({reason:?}), but its device says otherwise", status.status);
            findings.contradicted(&self.sent.id, &what);
        }
        let dead = settlement.reason.as_deref().and_then(|reason| reason.strip_prefix(REASON_PREFIX));
        let reasons_fit = outcome != Event::DeadLettered || dead == reason;
        if outcome != outcome_wanted || !reasons_fit {
            let what = format!("status {} ({reason:?}), settled as {outcome:?} ({dead:?})", status.status);
            findings.contradicted(&self.sent.id, &what);
        }
    }

    /// Whether it was settled only after its device was done with it.
    fn in_time(&self, status: &StatusEvent, settlement: &Entry, findings: &mut Findings) {
        let replies = self.receipts.iter().filter_map(|receipt| receipt.reply.at_ms());
        let answers = self.receipts.iter().filter_map(|receipt| receipt.answer).map(|answer| answer.sent_ms);
        let waits_for_answer = self.sent.answer && settlement.event == Event::Completed;
        let done = if waits_for_answer && status.reason.as_deref() != Some(NO_ANSWER) {
            answers.min()
        } else {
            replies.min()
        };
        if done.is_none_or(|done_ms| settlement.at_ms < done_ms) {
            findings.counts.early += 1;
            let what = format!("settled at {} ms, done at {done:?}", settlement.at_ms);
            findings.example("early", &self.sent.id, &what);
        }
        let late = self.receipts.iter().find(|receipt| receipt.received_ms > settlement.at_ms);
        if let Some(receipt) = late {
            findings.counts.repeated += 1;
            let what = format!("came at {} ms, settled at {} ms", receipt.received_ms, settlement.at_ms);
            findings.example("repeated", &self.sent.id, &what);
        }
    }
}

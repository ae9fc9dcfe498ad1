//! What the account of one device says by itself: order, repeats, strangers.

use std::collections::HashMap;

use super::Findings;
use super::case::Case;
use crate::commands::account::{Account, Receipt, Reply};

/// Goes through the deliveries of a device and hands each to the case of its command.
pub(super) fn examine<'e>(
    device: &str,
    account: &'e Account,
    cases: &mut HashMap<&'e str, Case<'e>>,
    findings: &mut Findings,
) {
    let mut highest = 0;
    let mut seen: HashMap<u64, Vec<&Receipt>> = HashMap::new();
    for receipt in &account.receipts {
        let Receipt { id, number, .. } = receipt;
        let before = seen.entry(*number).or_default();
        if !before.is_empty() {
            findings.counts.again += 1;
            let grace_ms = findings.conditions.grace_ms;
            let failed = cases.get(id.as_str()).is_some_and(|case| case.had_failed(receipt, grace_ms));
            repeat(account, before, receipt, failed, findings);
        }
        before.push(receipt);
        if *number < highest {
            findings.out_of_order(id, &format!("came to {device} after number {highest}"));
        }
        highest = highest.max(*number);
        match cases.get_mut(id.as_str()) {
            Some(case) if case.sent.device == device && case.sent.number == *number => {
                case.receipts.push(receipt);
            }
            Some(_) => findings.unexpected(id, &format!("{device} got it as its number {number}")),
            None => findings.unexpected(id, &format!("{device} got it, but it was never sent")),
        }
    }
}

/// A command that came before comes again; `failed` if Service Bus said that a delivery of it had failed.
fn repeat(account: &Account, before: &[&Receipt], again: &Receipt, failed: bool, findings: &mut Findings) {
    let target =
        |receipt: &Receipt| account.connections.get(receipt.connection).map(|connection| connection.target);
    let (here, elsewhere): (Vec<&Receipt>, Vec<&Receipt>) =
        before.iter().copied().partition(|receipt| target(receipt) == target(again));
    let grace_ms = findings.conditions.grace_ms;
    let known = |receipts: &[&Receipt]| {
        receipts
            .iter()
            .find(|receipt| was_known(account, receipt, again, grace_ms))
            .map(|receipt| receipt.reply)
    };
    if let Some(reply) = known(&here) {
        findings.counts.repeated += 1;
        let what = format!("{reply:?}, and again at {} ms", again.received_ms);
        findings.example("repeated", &again.id, &what);
    } else if known(&elsewhere).is_some() {
        findings.counts.elsewhere += 1;
    }
    if (failed || !here.is_empty()) && again.redelivered == Some(false) {
        findings.counts.unmarked += 1;
        let whose = if here.is_empty() { "another" } else { "the same" };
        findings.example("unmarked", &again.id, &format!("came again from {whose} gateway without a mark"));
    }
}

/// Whether the gateway that made the delivery `receipt` must have known that its device was done with it when it
/// came `again`.
fn was_known(account: &Account, receipt: &Receipt, again: &Receipt, grace_ms: u64) -> bool {
    let (Reply::Acked(at_ms) | Reply::Refused { at_ms, .. }) = receipt.reply else { return false };
    if again.received_ms < at_ms {
        return false;
    }
    let ended = account.connections.get(receipt.connection).and_then(|connection| connection.ended_ms);
    receipt.connection == again.connection
        || ended.is_none_or(|ended_ms| at_ms.saturating_add(grace_ms) < ended_ms)
}

//! What a run says about its commands: the witnesses are heard, `testkit`'s judge compares them.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use testkit::commands::Sent;
use testkit::commands::judge::{Conditions, Evidence, judge};
use testkit::commands::wire::Entry;
use testkit::report::{AckMs, Commands};

use crate::fleet::Outcome;
use crate::progress::float;
use crate::readback::{self, Source};
use crate::run::Cancel;

/// Reads the status events back and judges; returns the figures and what was broken.
pub(crate) fn report(
    outcome: &Outcome,
    statuses: &Source,
    wait: Duration,
    cancel: &Cancel,
) -> (Commands, Vec<String>) {
    let dispatched = &outcome.dispatched;
    // What is not settled has no final status either; waiting for it would only take time.
    let settled: HashSet<&str> = dispatched
        .settlements
        .iter()
        .filter(|settlement| settlement.is_final())
        .filter_map(|settlement| settlement.message_id.as_deref())
        .collect();
    let mut broken = Vec::new();
    let events = readback::statuses(statuses, settled, wait, cancel).unwrap_or_else(|error| {
        broken.push(error.to_string());
        Vec::new()
    });
    let evidence = Evidence {
        sent: &dispatched.sent,
        accounts: &outcome.accounts,
        settlements: &dispatched.settlements,
        events: &events,
    };
    let verdict = judge(evidence, Conditions::default());
    broken.extend(verdict.reasons);
    if dispatched.sent.is_empty() {
        broken.push("no command was sent, so nothing was proved".to_owned());
    }
    for (count, what) in [
        (outcome.wrong_commands, "publishes to devices are no commands of theirs"),
        (outcome.answers_refused, "answers of devices were refused"),
    ] {
        if count > 0 {
            let last_error = outcome.last_error.as_deref().unwrap_or("none");
            broken.push(format!("{count} {what}; last error: {last_error}"));
        }
    }
    let totals = outcome.accounts.values().map(testkit::commands::account::Account::totals);
    let mut commands = Commands {
        counts: verdict.counts,
        settle_ms: times(&dispatched.sent, &dispatched.settlements),
        ..Commands::default()
    };
    for totals in totals {
        commands.acked += totals.acked;
        commands.refused += totals.refused;
        commands.answered += totals.answered;
    }
    (commands, broken)
}

/// The times from handing commands over to their settlement.
fn times(sent: &[Sent], settlements: &[Entry]) -> AckMs {
    let since: HashMap<&str, u64> = sent.iter().map(|sent| (sent.id.as_str(), sent.sent_ms)).collect();
    let finals = settlements.iter().filter(|settlement| settlement.is_final());
    let mut times: Vec<u64> = finals
        .filter_map(|settlement| {
            let since = since.get(settlement.message_id.as_deref()?)?;
            Some(settlement.at_ms.saturating_sub(*since))
        })
        .collect();
    times.sort_unstable();
    let at = |percent: usize| {
        let place = (times.len() * percent).div_ceil(100).saturating_sub(1);
        float(times.get(place).copied().unwrap_or(0))
    };
    AckMs { p50: at(50), p99: at(99), max: at(100) }
}

#[cfg(test)]
mod tests {
    use testkit::commands::wire::Event;

    use super::*;

    #[test]
    fn times_are_those_of_final_settlements() {
        let sent = |number: u64| Sent {
            device: "d".to_owned(),
            number,
            id: format!("d/{number}"),
            answer: false,
            sent_ms: 1000,
        };
        let settled = |number: u64, event| Entry {
            id: number,
            at_ms: 1000 + number,
            session: None,
            sequence: 1,
            message_id: Some(format!("d/{number}")),
            event,
            delivery_count: 0,
            reason: None,
        };
        let all: Vec<Sent> = (1..=100).map(sent).collect();
        let mut settlements: Vec<Entry> = (1..=100).map(|number| settled(number, Event::Completed)).collect();
        settlements.push(settled(5000, Event::Completed));
        settlements.push(Entry { at_ms: 9999, ..settled(1, Event::Abandoned) });
        assert_eq!(times(&all, &settlements), AckMs { p50: 50.0, p99: 99.0, max: 100.0 });
        assert_eq!(times(&all, &[]), AckMs::default());
    }
}

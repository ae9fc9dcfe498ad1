//! The verdict over what was kept while the cloud was away: in which order it came when the cloud was back.
//!
//! That nothing is missing is for [`super::judge()`] to say, which knows what the devices did.

use serde::Serialize;

use super::arrival::{Arrival, First, Sorted};

/// When the cloud was away, in Unix milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Away {
    /// From then on nothing was accepted …
    pub from_ms: u64,
    /// … until the cloud was back.
    pub until_ms: u64,
    /// How far apart the clocks of events may be: `time` is when something was measured, and what happened at the same
    /// moment on two connections has no order.
    pub slack_ms: u64,
}

/// The verdict.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Order {
    /// Critical events of the time without a cloud.
    pub criticals: u64,
    /// The others.
    pub others: u64,
    /// Others that arrived before a critical one.
    pub overtaking: u64,
    /// Critical ones that arrived after one that had happened later.
    pub reordered: u64,
    /// Events that were accepted though the cloud was away.
    pub amid: u64,
    /// From the return of the cloud to the first of them, in milliseconds.
    pub first_after_ms: u64,
    /// … to the last critical one.
    pub criticals_after_ms: u64,
    /// … to the last of all.
    pub all_after_ms: u64,
    /// Events that arrived once more, the same in every byte.
    pub repeated: u64,
    /// What was promised and not kept, one sentence each.
    pub reasons: Vec<String>,
}

/// Looks at the order of what arrived, given in that order, after the cloud was back.
#[must_use]
pub fn weigh_order(arrivals: &[Arrival<'_>], away: Away) -> Order {
    let sorted = Sorted::new(arrivals);
    let mut order = Order { repeated: sorted.repeated, reasons: sorted.broken(), ..Order::default() };
    let amid = (away.from_ms.saturating_add(away.slack_ms))..away.until_ms;
    order.amid = sorted.firsts.iter().map(|first| u64::from(amid.contains(&first.at_ms))).sum();
    // What happened in the last moment may be durable only when the first request was made already.
    let happened = ..away.until_ms.saturating_sub(away.slack_ms);
    let kept = sorted
        .firsts
        .iter()
        .filter(|first| first.at_ms >= away.until_ms && happened.contains(&first.event.time_ms));
    order.read(&kept.collect::<Vec<_>>(), away);
    let wrong = [
        (order.overtaking, "events that are not critical arrived before critical ones that were kept"),
        (order.reordered, "critical events arrived after some that had happened later"),
        (order.amid, "events were accepted though the cloud was away, so that the drill shows nothing"),
        (u64::from(order.criticals == 0), "kinds of events are missing: nothing critical was kept"),
        (u64::from(order.others == 0), "kinds of events are missing: nothing was kept but what is critical"),
    ];
    let wrong = wrong.iter().filter(|(count, _)| *count > 0);
    order.reasons.extend(wrong.map(|(count, what)| format!("{count} {what}")).collect::<Vec<_>>());
    order
}

impl Order {
    fn read(&mut self, kept: &[&First<'_>], away: Away) {
        let after = |first: &First<'_>| first.at_ms.saturating_sub(away.until_ms);
        let (mut latest_ms, mut others) = (0, 0);
        for first in kept {
            self.all_after_ms = self.all_after_ms.max(after(first));
            if !first.is_critical() {
                others += 1;
                continue;
            }
            self.criticals += 1;
            self.criticals_after_ms = self.criticals_after_ms.max(after(first));
            // Those before a critical one are too early.
            self.overtaking = others;
            let time_ms = first.event.time_ms;
            self.reordered += u64::from(time_ms.saturating_add(away.slack_ms) < latest_ms);
            latest_ms = latest_ms.max(time_ms);
        }
        self.others = others;
        self.first_after_ms = kept.first().map(|first| after(first)).unwrap_or_default();
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    const AWAY: Away = Away { from_ms: 10_000, until_ms: 60_000, slack_ms: 500 };

    fn event(name: &str, severity: &str, second: u64) -> Value {
        json!({
            "source": "/g", "id": format!("a1-{name}:1"), "type": "t.alert.raised.v1", "severity": severity,
            "deviceid": name, "ruleid": "r", "time": format!("1970-01-01T00:{:02}:{:02}Z", second / 60, second % 60),
            "data": { "alertId": format!("a1-{name}"), "transition": 1, "state": "raised" }
        })
    }

    /// What is told in the order that is promised.
    fn told() -> Vec<(u64, Value)> {
        vec![
            (9000, event("before", "warning", 9)),
            (60_100, event("c1", "critical", 20)),
            (60_100, event("c2", "critical", 30)),
            (60_200, event("c3", "critical", 40)),
            (60_300, event("w1", "warning", 15)),
            (60_300, event("i1", "info", 35)),
            (61_000, event("new", "critical", 61)),
        ]
    }

    fn order(told: &[(u64, Value)]) -> Order {
        let arrivals: Vec<_> = told.iter().map(|(at_ms, event)| Arrival { at_ms: *at_ms, event }).collect();
        weigh_order(&arrivals, AWAY)
    }

    fn check(change: impl FnOnce(&mut Vec<(u64, Value)>), expected: &str) {
        let mut told = told();
        change(&mut told);
        let reasons = order(&told).reasons;
        assert!(reasons.len() == 1 && reasons.iter().all(|one| one.contains(expected)), "{reasons:?}");
    }

    #[test]
    fn the_order_that_is_promised_passes() {
        let order = order(&told());
        assert_eq!(order.reasons, [""; 0]);
        assert_eq!((order.criticals, order.others, order.repeated), (3, 2, 0));
        assert_eq!((order.first_after_ms, order.criticals_after_ms, order.all_after_ms), (100, 200, 300));
    }

    #[test]
    fn an_event_that_overtakes_a_critical_one_is_found_out() {
        check(|told| told.swap(3, 4), "1 events that are not critical arrived before");
        check(
            |told| {
                let last = told.remove(3);
                told.insert(5, last);
            },
            "2 events that are not critical arrived before",
        );
    }

    #[test]
    fn critical_events_come_the_oldest_first() {
        check(|told| told.swap(1, 3), "2 critical events arrived after");
        check(|told| told.swap(2, 3), "1 critical events arrived after");
        let mut close = told();
        close[2].1["time"] = json!("1970-01-01T00:00:40.4Z");
        assert_eq!(order(&close).reasons, [""; 0], "at the same moment");
    }

    #[test]
    fn repeats_are_counted_and_may_not_differ() {
        let mut again = told();
        again.insert(3, again[1].clone());
        let found = order(&again);
        assert_eq!((found.repeated, found.reasons.len(), found.criticals), (1, 0, 3));
        again[3].1["severity"] = json!("info");
        assert!(order(&again).reasons[0].contains("with other contents"));
    }

    #[test]
    fn an_outage_that_was_none_shows_nothing() {
        check(|told| told[0].0 = 30_000, "accepted though the cloud was away");
        check(|told| told.retain(|(_, event)| event["severity"] != "critical"), "nothing critical was kept");
        check(|told| told.retain(|(_, event)| event["severity"] == "critical"), "nothing was kept but");
    }
}

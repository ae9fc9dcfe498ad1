//! Events with the moment at which they arrived, and what the judges of running gateways ask of them.

use std::collections::HashMap;

use serde_json::Value;

use super::event::{self, Event};

/// An event as it arrived in the cloud.
#[derive(Debug, Clone, Copy)]
pub struct Arrival<'a> {
    /// When it was accepted, in Unix milliseconds.
    pub at_ms: u64,
    /// The `CloudEvent`.
    pub event: &'a Value,
}

/// The first arrival of an event about alerts.
#[derive(Debug, Clone)]
pub(super) struct First<'a> {
    pub(super) at_ms: u64,
    pub(super) event: Event<'a>,
    pub(super) severity: &'a str,
    pub(super) value: &'a Value,
}

/// What arrived, sorted out.
#[derive(Debug, Default)]
pub(super) struct Sorted<'a> {
    /// In the order of arrival.
    pub(super) firsts: Vec<First<'a>>,
    /// Events that came again, the same in every byte.
    pub(super) repeated: u64,
    /// Events that came again with other contents.
    pub(super) contradicting: u64,
    /// Events about alerts that are none by their shape.
    pub(super) unreadable: u64,
}

impl<'a> Sorted<'a> {
    /// Takes arrivals in the order in which they came; events about other things are passed over.
    pub(super) fn new(arrivals: &[Arrival<'a>]) -> Self {
        let (mut sorted, mut known) = (Self::default(), HashMap::new());
        for Arrival { at_ms, event: value } in arrivals {
            let event = match event::read(value) {
                Ok(Some(event)) => event,
                Ok(None) => continue,
                Err(_) => {
                    sorted.unreadable += 1;
                    continue;
                }
            };
            match known.insert((event.source, event.id), *value) {
                Some(before) if before == *value => sorted.repeated += 1,
                Some(_) => sorted.contradicting += 1,
                None => {
                    let severity = value["severity"].as_str().unwrap_or_default();
                    sorted.firsts.push(First { at_ms: *at_ms, event, severity, value });
                }
            }
        }
        sorted
    }

    /// What must never be there.
    pub(super) fn broken(&self) -> Vec<String> {
        let wrong = [
            (self.contradicting, "events came again under the same id with other contents"),
            (self.unreadable, "events about alerts are not readable"),
        ];
        let wrong = wrong.iter().filter(|(count, _)| *count > 0);
        wrong.map(|(count, what)| format!("{count} {what}")).collect()
    }
}

impl First<'_> {
    pub(super) fn is_critical(&self) -> bool {
        self.severity == "critical"
    }

    /// Whether it tells that an alert begins.
    pub(super) fn is_raised(&self) -> bool {
        self.value["type"].as_str().is_some_and(|kind| kind.ends_with(".alert.raised.v1"))
    }
}

/// The value below which so many percent of the sorted ones lie.
pub(super) fn percentile(sorted: &[u64], percent: usize) -> Option<u64> {
    let place = (sorted.len() * percent).div_ceil(100).max(1) - 1;
    sorted.get(place).copied()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn percentiles_are_values_that_are_there() {
        let values: Vec<u64> = (1..=200).collect();
        let found = [1, 50, 99, 100].map(|percent| percentile(&values, percent));
        assert_eq!(found, [Some(2), Some(100), Some(198), Some(200)]);
        assert_eq!((percentile(&[7], 50), percentile(&[], 50)), (Some(7), None));
    }

    #[test]
    fn the_first_of_each_event_counts_and_what_differs_is_named() {
        let event = |value: u64| {
            json!({
                "source": "/g", "id": "a1-0:1", "type": "t.alert.raised.v1", "severity": "critical", "ruleid": "r",
                "deviceid": "d", "time": "1970-01-01T00:00:02Z",
                "data": { "alertId": "a1-0", "transition": 1, "value": value }
            })
        };
        let (one, other) = (event(1), event(2));
        let broken = json!({ "type": "t.alert.raised.v1" });
        let beside = json!({ "type": "t.command.succeeded.v1" });
        let all = [(5, &one), (6, &one), (7, &other), (8, &broken), (9, &beside)];
        let arrivals = all.map(|(at_ms, event)| Arrival { at_ms, event });
        let sorted = Sorted::new(&arrivals);
        assert_eq!((sorted.repeated, sorted.contradicting, sorted.unreadable), (1, 1, 1));
        let first = sorted.firsts.first().unwrap();
        assert_eq!(
            (sorted.firsts.len(), first.at_ms, first.is_critical(), first.is_raised()),
            (1, 5, true, true)
        );
        assert_eq!(sorted.broken().len(), 2);
    }
}

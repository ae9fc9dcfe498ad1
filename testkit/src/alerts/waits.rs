//! How long it takes from a breach to the arrival of its alert.

use std::collections::HashMap;

use serde::Serialize;

use super::arrival::{Arrival, First, Sorted, percentile};
use super::event::Subject;
use super::storm::Breach;

/// Waits in milliseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Waits {
    /// Of how many alerts.
    pub alerts: usize,
    /// Half of them arrived within this time …
    pub p50_ms: u64,
    /// … 99 percent …
    pub p99_ms: u64,
    /// … all.
    pub max_ms: u64,
}

/// The waits of all alerts that were raised, each from the device's last breach before.
#[must_use]
pub fn waits(breaches: &[Breach<'_>], arrivals: &[Arrival<'_>]) -> Waits {
    let mut begun: HashMap<(&str, &str), Vec<u64>> = HashMap::new();
    for breach in breaches {
        begun.entry((breach.device, breach.rule)).or_default().push(breach.at_ms);
    }
    let sorted = Sorted::new(arrivals);
    let wait = |first: &First<'_>| {
        let Subject::Alert { device, rule } = first.event.subject else { return None };
        let before = begun.get(&(device, rule))?.iter().filter(|begun| **begun <= first.at_ms);
        before.max().map(|begun| first.at_ms - begun)
    };
    let mut waits: Vec<u64> =
        sorted.firsts.iter().filter(|first| first.is_raised()).filter_map(wait).collect();
    waits.sort_unstable();
    let [p50_ms, p99_ms, max_ms] =
        [50, 99, 100].map(|percent| percentile(&waits, percent).unwrap_or_default());
    Waits { alerts: waits.len(), p50_ms, p99_ms, max_ms }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn an_alert_waits_from_the_last_breach_before_it() {
        let raised = |number: u64, device: &str| -> Value {
            json!({
                "source": "/g", "id": format!("a1-{number}:1"), "type": "t.alert.raised.v1", "severity": "info",
                "deviceid": device, "ruleid": "r", "time": "1970-01-01T00:00:01Z",
                "data": { "alertId": format!("a1-{number}"), "transition": 1, "state": "raised" }
            })
        };
        let breach = |device, at_ms| Breach { device, rule: "r", critical: false, at_ms };
        let breaches = [breach("d", 1000), breach("d", 5000), breach("e", 2000)];
        let events = [raised(1, "d"), raised(2, "e"), raised(3, "d"), raised(4, "stranger")];
        let arrivals: Vec<_> = [1010, 2030, 5020, 6000]
            .into_iter()
            .zip(&events)
            .map(|(at_ms, event)| Arrival { at_ms, event })
            .collect();
        let expected = Waits { alerts: 3, p50_ms: 20, p99_ms: 30, max_ms: 30 };
        assert_eq!(waits(&breaches, &arrivals), expected);
        assert_eq!(waits(&breaches, &[]), Waits::default());
    }
}

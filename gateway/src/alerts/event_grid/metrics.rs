//! What is counted of what is sent to Event Grid, of all destinations together. Counted once per request.

use metrics::{Counter, Gauge, Histogram};

use super::disposition::Disposition;
use super::refusal::REASONS;
use crate::alerts::circuit::Trouble;
use crate::observe::{Kind, Metric, counter, counter_with, gauge, gauge_with, histogram};

const OUTCOMES: &[&str] = &[
    "confirmed",
    "split",
    "quarantined",
    "credential",
    "configuration",
    "throttled",
    "failed",
    "unreachable",
    "lost",
    "timed-out",
];
const CAUSES: &[&str] = &["credential", "configuration", "everything-refused", "dead-letters-full"];
const PROBLEMS: &[&str] = &["credential", "state", "outbox"];
const AGES: &[f64] = &[0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0, 60.0, 300.0, 3600.0, 86_400.0];

const REQUESTS: Metric = Metric {
    name: "penstock_alerts_event_grid_requests_total",
    kind: Kind::Counter,
    help: "Requests by what followed: `confirmed`; `split`, sent again by halves since one of the events is refused or they are too much together; `quarantined`, the only event is refused for good; `credential`, 401 or 403; `configuration`, 404, 410 or an answer that Event Grid does not give; `throttled`, 429; `failed`, 408 or 5xx; `unreachable`, no connection; `lost`, a connection that ended before the answer; `timed-out`.",
    labels: &[("outcome", OUTCOMES)],
};
const SENT: Metric = Metric {
    name: "penstock_alerts_event_grid_events_sent_total",
    kind: Kind::Counter,
    help: "Events that Event Grid confirmed.",
    labels: &[],
};
const DUPLICATES: Metric = Metric {
    name: "penstock_alerts_event_grid_duplicates_possible_total",
    kind: Kind::Counter,
    help: "Events of requests whose answer was lost, late or a failure of the service: sent again under the same id, they may have come twice.",
    labels: &[],
};
const QUARANTINED: Metric = Metric {
    name: "penstock_alerts_event_grid_quarantined_total",
    kind: Kind::Counter,
    help: "Events that went to lane `dead`: `malformed`, an entry that says it is a CloudEvent and is none; `too-large` for the service; `refused` by it.",
    labels: &[("reason", REASONS)],
};
const HELD: Metric = Metric {
    name: "penstock_alerts_event_grid_held_destinations",
    kind: Kind::Gauge,
    help: "Destinations that get nothing but probes until somebody changes something: the `credential` is refused; the `configuration` leads to no topic; every event is refused (`everything-refused`); lane `dead` is full (`dead-letters-full`).",
    labels: &[("reason", CAUSES)],
};
const CONNECTED: Metric = Metric {
    name: "penstock_alerts_event_grid_connected_destinations",
    kind: Kind::Gauge,
    help: "Destinations that confirmed the last request.",
    labels: &[],
};
const PROBLEM: Metric = Metric {
    name: "penstock_alerts_event_grid_problems_total",
    kind: Kind::Counter,
    help: "What kept a request from being sent: `credential`, there is no key or token; `outbox`, committed entries could not be read. Also `state`, stored progress that could not be read.",
    labels: &[("problem", PROBLEMS)],
};
const AGE: Metric = Metric {
    name: "penstock_alerts_event_grid_confirm_age_seconds",
    kind: Kind::Histogram(AGES),
    help: "Age of the first event of a request when it was confirmed, since the gateway took it in.",
    labels: &[],
};

/// Every metric of this folder.
pub(crate) const METRICS: &[Metric] =
    &[REQUESTS, SENT, DUPLICATES, QUARANTINED, HELD, CONNECTED, PROBLEM, AGE];

/// What kept a request from being sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Problem {
    Credential,
    State,
    Outbox,
}

pub(super) struct Metrics {
    sent: Counter,
    duplicates: Counter,
    connected: Gauge,
    age: Histogram,
    /// What this destination adds to the gauges.
    shown_connected: bool,
    shown_held: Option<Trouble>,
}

// === impl Metrics ===

impl Metrics {
    pub(super) fn new() -> Self {
        let metrics = Self {
            sent: counter(&SENT),
            duplicates: counter(&DUPLICATES),
            connected: gauge(&CONNECTED),
            age: histogram(&AGE),
            shown_connected: false,
            shown_held: None,
        };
        metrics.connected.increment(0.0);
        Trouble::ALL.iter().for_each(|trouble| gauge_with(&HELD, "reason", trouble.name()).increment(0.0));
        metrics
    }

    pub(super) fn answered(disposition: &Disposition) {
        counter_with(&REQUESTS, "outcome", disposition.name()).increment(1);
    }

    #[expect(clippy::cast_precision_loss, reason = "histograms are floats; exact for 285,000 years")]
    pub(super) fn confirmed(&self, events: u64, age_ms: u64) {
        self.sent.increment(events);
        self.age.record(age_ms as f64 / 1000.0);
    }

    pub(super) fn maybe_accepted(&self, events: u64) {
        self.duplicates.increment(events);
    }

    pub(super) fn quarantined(reason: &'static str) {
        counter_with(&QUARANTINED, "reason", reason).increment(1);
    }

    pub(super) fn problem(problem: Problem) {
        let name = match problem {
            Problem::Credential => "credential",
            Problem::State => "state",
            Problem::Outbox => "outbox",
        };
        counter_with(&PROBLEM, "problem", name).increment(1);
    }

    /// Shows how the destination is.
    pub(super) fn show(&mut self, connected: bool, held: Option<Trouble>) {
        if connected != self.shown_connected {
            self.connected.increment(if connected { 1.0 } else { -1.0 });
            self.shown_connected = connected;
        }
        if held != self.shown_held {
            let held_by = |trouble: Trouble| gauge_with(&HELD, "reason", trouble.name());
            self.shown_held.into_iter().for_each(|before| held_by(before).decrement(1.0));
            held.into_iter().for_each(|now| held_by(now).increment(1.0));
            self.shown_held = held;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::disposition::{Cause, Why};
    use super::*;

    #[test]
    fn every_word_is_declared() {
        let retry = |why| Disposition::Retry { after: None, why };
        for disposition in [
            Disposition::Confirm,
            Disposition::Split(Cause::Refused),
            Disposition::Quarantine(Cause::Refused),
            Disposition::Credential { halve: true },
            Disposition::Configuration,
            retry(Why::Throttled),
            retry(Why::Failed),
            retry(Why::Unreachable),
            retry(Why::Lost),
            retry(Why::TimedOut),
        ] {
            assert!(OUTCOMES.contains(&disposition.name()), "{disposition:?}");
        }
        assert_eq!(Trouble::ALL.map(Trouble::name), CAUSES);
    }
}

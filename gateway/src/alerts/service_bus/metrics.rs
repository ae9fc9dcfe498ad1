//! What is counted of commands that are sent to Service Bus, of all destinations together.

use metrics::{Counter, Gauge, Histogram};

use super::posting::{MALFORMED, UNLISTED, UNSENDABLE};
use crate::alerts::circuit::Trouble;
use crate::commands::Why;
use crate::observe::{Kind, Metric, counter, counter_with, gauge, gauge_with, histogram};

const REASONS: &[&str] = &["lost", "busy", "full", "no-entity", "not-allowed", "too-large", "refused"];
const REFUSALS: &[&str] = &[Why::TooLarge.name(), Why::Refused.name(), UNSENDABLE, UNLISTED, MALFORMED];
const CAUSES: &[&str] = &["credential", "configuration", "everything-refused", "dead-letters-full"];
const AGES: &[f64] = &[0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0, 60.0, 300.0, 3600.0, 86_400.0];

const SENT: Metric = Metric {
    name: "penstock_alerts_service_bus_sent_total",
    kind: Kind::Counter,
    help: "Commands that Service Bus accepted.",
    labels: &[],
};
const RETRIES: Metric = Metric {
    name: "penstock_alerts_service_bus_retries_total",
    kind: Kind::Counter,
    help: "Commands and links that Service Bus did not take, and that are tried again: the connection was `lost` or nobody answered, so that the commands on it may have arrived; `busy`, it asks for a pause; `full`, the entity has no room; `no-entity`; `not-allowed`, the credential has no right to send or the entity is disabled; `too-large` and `refused`, before that is said twice of one command.",
    labels: &[("reason", REASONS)],
};
const EXPIRED: Metric = Metric {
    name: "penstock_alerts_service_bus_expired_total",
    kind: Kind::Counter,
    help: "Commands that could not be sent while somebody wanted them.",
    labels: &[],
};
const REFUSED: Metric = Metric {
    name: "penstock_alerts_service_bus_refused_total",
    kind: Kind::Counter,
    help: "Commands that are never sent. In lane `dead` now: `too-large` for the entity, `refused` by it, `unsendable`, with ids that Service Bus does not take. Passed over: `unlisted`, to an entity that was in the configuration when the rule asked for it and is not any more; `malformed`, of another version.",
    labels: &[("reason", REFUSALS)],
};
const PENDING: Metric = Metric {
    name: "penstock_alerts_service_bus_pending_messages",
    kind: Kind::Gauge,
    help: "Commands in hand that are not accepted yet, at most 64 for each destination. More may stand behind them in the lane.",
    labels: &[],
};
const HELD: Metric = Metric {
    name: "penstock_alerts_service_bus_held_destinations",
    kind: Kind::Gauge,
    help: "Destinations that are tried once per interval only, until somebody changes something: no right to send (`credential`), no such entity (`configuration`), every command is refused (`everything-refused`), lane `dead` is full (`dead-letters-full`).",
    labels: &[("reason", CAUSES)],
};
const CONNECTED: Metric = Metric {
    name: "penstock_alerts_service_bus_connected_destinations",
    kind: Kind::Gauge,
    help: "Destinations with a link. One that has nothing to send for five minutes closes its link until it has.",
    labels: &[],
};
const AGE: Metric = Metric {
    name: "penstock_alerts_service_bus_accept_age_seconds",
    kind: Kind::Histogram(AGES),
    help: "Age of a command when it was accepted, since the alert that asks for it.",
    labels: &[],
};

/// Every metric of this folder.
pub(crate) const METRICS: &[Metric] = &[SENT, RETRIES, EXPIRED, REFUSED, PENDING, HELD, CONNECTED, AGE];

pub(super) struct Metrics {
    sent: Counter,
    expired: Counter,
    pending: Gauge,
    connected: Gauge,
    age: Histogram,
    /// What this destination adds to the gauges.
    shown_pending: u32,
    shown_connected: bool,
    shown_held: Option<Trouble>,
}

// === impl Metrics ===

impl Metrics {
    pub(super) fn new() -> Self {
        let metrics = Self {
            sent: counter(&SENT),
            expired: counter(&EXPIRED),
            pending: gauge(&PENDING),
            connected: gauge(&CONNECTED),
            age: histogram(&AGE),
            shown_pending: 0,
            shown_connected: false,
            shown_held: None,
        };
        metrics.pending.increment(0.0);
        metrics.connected.increment(0.0);
        Trouble::ALL.iter().for_each(|trouble| gauge_with(&HELD, "reason", trouble.name()).increment(0.0));
        metrics
    }

    #[expect(clippy::cast_precision_loss, reason = "histograms are floats; exact for 285,000 years")]
    pub(super) fn sent(&self, age_ms: u64) {
        self.sent.increment(1);
        self.age.record(age_ms as f64 / 1000.0);
    }

    pub(super) fn not_taken(why: Why) {
        counter_with(&RETRIES, "reason", why.name()).increment(1);
    }

    pub(super) fn expired(&self, commands: u64) {
        self.expired.increment(commands);
    }

    pub(super) fn refused(reason: &'static str) {
        counter_with(&REFUSED, "reason", reason).increment(1);
    }

    /// Shows how the destination is.
    pub(super) fn show(&mut self, pending: usize, connected: bool, held: Option<Trouble>) {
        let pending = u32::try_from(pending).unwrap_or(u32::MAX);
        if pending != self.shown_pending {
            self.pending.increment(f64::from(pending) - f64::from(self.shown_pending));
            self.shown_pending = pending;
        }
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
    use super::*;

    #[test]
    fn every_word_is_declared() {
        assert_eq!(Why::ALL.map(Why::name), REASONS);
        assert_eq!(Trouble::ALL.map(Trouble::name), CAUSES);
    }
}

//! What the uplink counts. Counted once per batch, never per record.

use metrics::{Counter, Gauge, Histogram};
use penstock_proto::Lane;

use super::failure::Disposition;
use crate::observe::{Kind, Metric, counter, counter_with, gauge, gauge_with, histogram};

const LANES: &[&str] = &["alerts", "status", "telemetry", "bulk"];
const REASONS: &[&str] = &["refused", "fatal", "stalled"];
const DISPOSITIONS: &[&str] = &["retry", "hold", "record", "collateral", "state", "outbox"];
const HOLDS: &[&str] = &["refused", "unreachable"];
const AGES: &[f64] = &[0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0, 60.0, 300.0, 3600.0, 86_400.0];

const SENT: Metric = Metric {
    name: "penstock_uplink_records_sent_total",
    kind: Kind::Counter,
    help: "Records handed to the Kafka client, repeats after a rebuild included.",
    labels: &[],
};
const ACKED: Metric = Metric {
    name: "penstock_uplink_acked_total",
    kind: Kind::Counter,
    help: "Records that the cloud confirmed.",
    labels: &[],
};
const IN_FLIGHT: Metric = Metric {
    name: "penstock_uplink_in_flight_records",
    kind: Kind::Gauge,
    help: "Records sent and not confirmed.",
    labels: &[],
};
const IN_FLIGHT_BYTES: Metric = Metric {
    name: "penstock_uplink_in_flight_bytes",
    kind: Kind::Gauge,
    help: "Bytes sent and not confirmed.",
    labels: &[],
};
const CONNECTED: Metric = Metric {
    name: "penstock_uplink_connected",
    kind: Kind::Gauge,
    help: "1 while the cloud answers, else 0.",
    labels: &[],
};
const REBUILDS: Metric = Metric {
    name: "penstock_uplink_rebuilds_total",
    kind: Kind::Counter,
    help: "Kafka clients built anew, with replay from the last progress: after a refused record, a fatal error, or three socket timeouts without any confirmation.",
    labels: &[("reason", REASONS)],
};
const SKIPPED: Metric = Metric {
    name: "penstock_uplink_replay_skipped_total",
    kind: Kind::Counter,
    help: "Entries that a replay did not send again, since their partition had confirmed them.",
    labels: &[],
};
const HELD: Metric = Metric {
    name: "penstock_uplink_held_topics",
    kind: Kind::Gauge,
    help: "Topics that get nothing now: refused (missing, not authorised, or lane `dead` is full) or unreachable since the last start of the client.",
    labels: &[("reason", HOLDS)],
};
const ERRORS: Metric = Metric {
    name: "penstock_uplink_errors_total",
    kind: Kind::Counter,
    help: "Refused records by what follows: `retry` builds the client anew, `hold` also holds the topic, `record` looks for the one that the service never takes, `collateral` fell with another record; `state`, stored progress that could not be read; `outbox`, committed entries that could not be read.",
    labels: &[("disposition", DISPOSITIONS)],
};
const REPARTITIONED: Metric = Metric {
    name: "penstock_uplink_repartitioned_total",
    kind: Kind::Counter,
    help: "Topics found with another number of partitions than the stored one.",
    labels: &[],
};
const ACK_AGE: Metric = Metric {
    name: "penstock_uplink_ack_age_seconds",
    kind: Kind::Histogram(AGES),
    help: "Age of an entry when the cloud confirmed it, since the gateway received it; one sample per batch of reports.",
    labels: &[],
};
const PACKS: Metric = Metric {
    name: "penstock_uplink_packs_sent_total",
    kind: Kind::Counter,
    help: "Packed records handed to the Kafka client; their entries count as records sent.",
    labels: &[],
};
const DEAD_LETTERED: Metric = Metric {
    name: "penstock_uplink_dead_lettered_total",
    kind: Kind::Counter,
    help: "Entries moved to lane `dead`, since the service never takes them.",
    labels: &[],
};
const TAIL_FOUND: Metric = Metric {
    name: "penstock_uplink_tail_found_total",
    kind: Kind::Counter,
    help: "Entries that were found in their partition at the start of a session although nobody had heard of it, and so were not sent again.",
    labels: &[],
};
const TAIL_UNREAD: Metric = Metric {
    name: "penstock_uplink_tail_unread_total",
    kind: Kind::Counter,
    help: "Partitions whose end could not be read at the start of a session, for want of the right to listen or because a bound came first. What was sent to them last may arrive twice.",
    labels: &[],
};
const FENCED: Metric = Metric {
    name: "penstock_uplink_fenced",
    kind: Kind::Gauge,
    help: "1 if nothing is sent because another gateway sends from a copy of this outbox.",
    labels: &[],
};
const THROTTLE: Metric = Metric {
    name: "penstock_uplink_throttle_seconds",
    kind: Kind::Gauge,
    help: "The delay that the service announced last because too much was sent.",
    labels: &[],
};
const PACE: Metric = Metric {
    name: "penstock_uplink_pace_bytes_per_second",
    kind: Kind::Gauge,
    help: "What may be sent in a second now, by the configured units and by how the service throttles; 0 if there is no limit.",
    labels: &[],
};
const BACKLOG: Metric = Metric {
    name: "penstock_uplink_backlog_messages",
    kind: Kind::Gauge,
    help: "Entries that wait as backlog while new ones go first.",
    labels: &[],
};
const DRAIN: Metric = Metric {
    name: "penstock_uplink_drain_seconds",
    kind: Kind::Gauge,
    help: "Estimated time until everything that waits is sent, as fast as it goes now; -1 while that is not known or never.",
    labels: &[],
};
const CAP: Metric = Metric {
    name: "penstock_uplink_cap_bytes_per_second",
    kind: Kind::Gauge,
    help: "What an operator lets telemetry and bulk use in a second for now (`docs/control.md`); 0 if there is no cap.",
    labels: &[],
};
const PAUSED: Metric = Metric {
    name: "penstock_uplink_paused_topics",
    kind: Kind::Gauge,
    help: "Topics that get no telemetry and no bulk for now because an operator said so (`docs/control.md`).",
    labels: &[],
};
const LOW: Metric = Metric {
    name: "penstock_uplink_low_seq",
    kind: Kind::Gauge,
    help: "First position of the lane that is not confirmed.",
    labels: &[("lane", LANES)],
};

/// Every metric of the stage.
pub(crate) const METRICS: &[Metric] = &[
    SENT,
    ACKED,
    IN_FLIGHT,
    IN_FLIGHT_BYTES,
    CONNECTED,
    REBUILDS,
    SKIPPED,
    HELD,
    ERRORS,
    REPARTITIONED,
    ACK_AGE,
    PACKS,
    DEAD_LETTERED,
    TAIL_FOUND,
    TAIL_UNREAD,
    FENCED,
    THROTTLE,
    PACE,
    BACKLOG,
    DRAIN,
    CAP,
    PAUSED,
    LOW,
];

/// Why a producer was given up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rebuild {
    /// A record was refused.
    Refused,
    /// The client library met an error that ends it.
    Fatal,
    /// Nothing was confirmed for too long.
    Stalled,
}

/// Handles, made once.
pub(crate) struct Metrics {
    pub(crate) sent: Counter,
    pub(crate) acked: Counter,
    pub(crate) in_flight: Gauge,
    pub(crate) in_flight_bytes: Gauge,
    pub(crate) connected: Gauge,
    pub(crate) skipped: Counter,
    pub(crate) held_refused: Gauge,
    pub(crate) held_unreachable: Gauge,
    pub(crate) repartitioned: Counter,
    pub(crate) ack_age: Histogram,
    pub(crate) packs: Counter,
    pub(crate) dead_lettered: Counter,
    pub(crate) tail_found: Counter,
    pub(crate) fenced: Gauge,
    pub(crate) throttle: Gauge,
    pub(crate) pace: Gauge,
    pub(crate) backlog: Gauge,
    pub(crate) drain: Gauge,
    pub(crate) cap: Gauge,
    pub(crate) paused: Gauge,
}

impl std::fmt::Debug for Metrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Metrics")
    }
}

impl Metrics {
    pub(crate) fn new() -> Self {
        Self {
            sent: counter(&SENT),
            acked: counter(&ACKED),
            in_flight: gauge(&IN_FLIGHT),
            in_flight_bytes: gauge(&IN_FLIGHT_BYTES),
            connected: gauge(&CONNECTED),
            skipped: counter(&SKIPPED),
            held_refused: gauge_with(&HELD, "reason", "refused"),
            held_unreachable: gauge_with(&HELD, "reason", "unreachable"),
            repartitioned: counter(&REPARTITIONED),
            ack_age: histogram(&ACK_AGE),
            packs: counter(&PACKS),
            dead_lettered: counter(&DEAD_LETTERED),
            tail_found: counter(&TAIL_FOUND),
            fenced: gauge(&FENCED),
            throttle: gauge(&THROTTLE),
            pace: gauge(&PACE),
            backlog: gauge(&BACKLOG),
            drain: gauge(&DRAIN),
            cap: gauge(&CAP),
            paused: gauge(&PAUSED),
        }
    }

    pub(crate) fn rebuild(reason: Rebuild) {
        counter_with(&REBUILDS, "reason", reason.name()).increment(1);
    }

    pub(crate) fn error(disposition: Disposition) {
        counter_with(&ERRORS, "disposition", disposition.name()).increment(1);
    }

    pub(crate) fn bad_state() {
        counter_with(&ERRORS, "disposition", "state").increment(1);
    }

    pub(crate) fn tail_unread(partitions: u64) {
        counter(&TAIL_UNREAD).increment(partitions);
    }

    pub(crate) fn unreadable() {
        counter_with(&ERRORS, "disposition", "outbox").increment(1);
    }

    #[expect(clippy::cast_precision_loss, reason = "a gauge is a float; exact up to 2^53 entries")]
    pub(crate) fn low(lane: Lane, low: u64) {
        gauge_with(&LOW, "lane", lane.name()).set(low as f64);
    }
}

impl Rebuild {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Refused => "refused",
            Self::Fatal => "fatal",
            Self::Stalled => "stalled",
        }
    }
}

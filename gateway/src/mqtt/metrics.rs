//! The metrics of the stage; counted once per socket read or per connection, not per message.

use std::sync::atomic::{AtomicU64, Ordering};

use metrics::{Counter, Gauge, Histogram};

use super::codec::Qos;
use super::devices::Taken;
use super::end::{End, Refusal};
use super::intake::Shortage;
use super::outgoing::Loss;
use super::publisher::PublishError;
use super::reload::Part;
use crate::observe::{Kind, Metric, counter, counter_with, gauge, histogram};

const CONNECTIONS: Metric = Metric {
    name: "penstock_mqtt_connections",
    kind: Kind::Gauge,
    help: "Connections that are open, those before CONNECT included.",
    labels: &[],
};
const CONNECTS: Metric = Metric {
    name: "penstock_mqtt_connects_total",
    kind: Kind::Counter,
    help: "Connections by what became of their CONNECT.",
    labels: &[("result", Refusal::RESULTS)],
};
const DISCONNECTS: Metric = Metric {
    name: "penstock_mqtt_disconnects_total",
    kind: Kind::Counter,
    help: "Ends of connections that were accepted, by reason.",
    labels: &[("reason", End::REASONS)],
};
const MALFORMED: Metric = Metric {
    name: "penstock_mqtt_malformed_total",
    kind: Kind::Counter,
    help: "Packets that break the protocol, each of which ended its connection.",
    labels: &[],
};
const PUBLISHES: Metric = Metric {
    name: "penstock_mqtt_publishes_total",
    kind: Kind::Counter,
    help: "Publishes submitted to the outbox; repeats of QoS 2 and refused ones are not among them.",
    labels: &[("qos", &["0", "1", "2"])],
};
const REPEATS: Metric = Metric {
    name: "penstock_mqtt_repeats_total",
    kind: Kind::Counter,
    help: "QoS 2 publishes that were there already and were acknowledged again without being stored.",
    labels: &[],
};
const ACKS: Metric = Metric {
    name: "penstock_mqtt_acks_total",
    kind: Kind::Counter,
    help: "Acknowledgements that accept, written after the commit.",
    labels: &[("kind", &["puback", "pubrec", "pubcomp"])],
};
const REFUSED: Metric = Metric {
    name: "penstock_mqtt_refused_total",
    kind: Kind::Counter,
    help: "Publishes that were not stored, by reason; `quota` and `space` at QoS 1 and 2, with 0x97, the others at any.",
    labels: &[("reason", &["foreign", "unknown_topic", "quota", "space"])],
};
const SHED: Metric = Metric {
    name: "penstock_mqtt_shed_total",
    kind: Kind::Counter,
    help: "Publishes at QoS 0 let go because a listener refuses what the outbox has no room for, by what was used up.",
    labels: &[("reason", &Shortage::NAMES)],
};
const RECEIVED: Metric = Metric {
    name: "penstock_mqtt_received_bytes_total",
    kind: Kind::Counter,
    help: "Bytes read from accepted connections, after TLS.",
    labels: &[],
};
const DELIVERED: Metric = Metric {
    name: "penstock_mqtt_delivered_total",
    kind: Kind::Counter,
    help: "Publishes taken in for a subscriber, on their way to it or queued.",
    labels: &[],
};
const DELIVERIES_DROPPED: Metric = Metric {
    name: "penstock_mqtt_deliveries_dropped_total",
    kind: Kind::Counter,
    help: "Publishes not delivered to a subscriber: its buffer or queue was full, they exceed its packet size, or their lifetime ended.",
    labels: &[("reason", &Loss::NAMES)],
};
const ACKNOWLEDGED: Metric = Metric {
    name: "penstock_mqtt_deliveries_acknowledged_total",
    kind: Kind::Counter,
    help: "Deliveries at QoS 1 and 2 that a subscriber ended, by acknowledging or refusing them.",
    labels: &[],
};
const LOCAL: Metric = Metric {
    name: "penstock_mqtt_local_publishes_total",
    kind: Kind::Counter,
    help: "Publishes that are no telemetry: they go to subscribers only.",
    labels: &[],
};
const NOT_RETAINED: Metric = Metric {
    name: "penstock_mqtt_not_retained_total",
    kind: Kind::Counter,
    help: "Publishes with the retain flag whose message was not kept, since retained messages are at their bound.",
    labels: &[],
};
const WILLS: Metric = Metric {
    name: "penstock_mqtt_wills_total",
    kind: Kind::Counter,
    help: "Wills that were published.",
    labels: &[],
};
const SESSIONS: Metric = Metric {
    name: "penstock_mqtt_sessions",
    kind: Kind::Gauge,
    help: "Sessions that outlive their connections, connected or not.",
    labels: &[],
};
const TAKE_OVERS: Metric = Metric {
    name: "penstock_mqtt_take_overs_total",
    kind: Kind::Counter,
    help: "Connections that were replaced by a new one of the same client.",
    labels: &[],
};
const TAKE_OVERS_DELAYED: Metric = Metric {
    name: "penstock_mqtt_take_overs_delayed_total",
    kind: Kind::Counter,
    help: "Take-overs that had to wait, since the client id had changed hands too often.",
    labels: &[],
};
const WITHHELD: Metric = Metric {
    name: "penstock_mqtt_withheld_duration_seconds",
    kind: Kind::Histogram(&[0.001, 0.01, 0.1, 1.0, 10.0, 60.0, 600.0]),
    help: "How long one connection was not read because the outbox had no room.",
    labels: &[],
};
const PACED: Metric = Metric {
    name: "penstock_mqtt_paced_total",
    kind: Kind::Counter,
    help: "How often a connection was not read for a moment, since its client sent faster than `bytes_per_second_max`.",
    labels: &[],
};
const ACCEPT_ERRORS: Metric = Metric {
    name: "penstock_mqtt_accept_errors_total",
    kind: Kind::Counter,
    help: "Failed accepts; with file descriptors exhausted the listener waits before the next.",
    labels: &[],
};
const WILLS_LOST: Metric = Metric {
    name: "penstock_mqtt_wills_lost_total",
    kind: Kind::Counter,
    help: "Wills that were due and not stored, since the outbox had no room.",
    labels: &[],
};

const ANSWERS: Metric = Metric {
    name: "penstock_mqtt_answers_total",
    kind: Kind::Counter,
    help: "Publishes of devices to the answer topic of a command: taken, not understood, or stored as they came since no command is known for them.",
    labels: &[("result", &Taken::NAMES)],
};
const OWN: Metric = Metric {
    name: "penstock_mqtt_own_publishes_total",
    kind: Kind::Counter,
    help: "Publishes of the gateway itself: taken, or why not.",
    labels: &[("result", &PublishError::NAMES)],
};
const RELOADS: Metric = Metric {
    name: "penstock_mqtt_reloads_total",
    kind: Kind::Counter,
    help: "What was read again while running and is in force.",
    labels: &[("what", &Part::NAMES)],
};
const RELOADS_REFUSED: Metric = Metric {
    name: "penstock_mqtt_reloads_refused_total",
    kind: Kind::Counter,
    help: "What was read again while running and could not be used, so that the old stays in force; the log says why.",
    labels: &[("what", &Part::NAMES)],
};

pub(crate) const METRICS: &[Metric] = &[
    CONNECTIONS,
    CONNECTS,
    DISCONNECTS,
    MALFORMED,
    PUBLISHES,
    REPEATS,
    ACKS,
    REFUSED,
    SHED,
    RECEIVED,
    DELIVERED,
    DELIVERIES_DROPPED,
    ACKNOWLEDGED,
    LOCAL,
    NOT_RETAINED,
    WILLS,
    SESSIONS,
    TAKE_OVERS,
    TAKE_OVERS_DELAYED,
    WITHHELD,
    PACED,
    ACCEPT_ERRORS,
    WILLS_LOST,
    ANSWERS,
    OWN,
    RELOADS,
    RELOADS_REFUSED,
];

/// The handles, made once.
pub(super) struct Metrics {
    pub(super) connections: Gauge,
    connects: Vec<(&'static str, Counter)>,
    disconnects: Vec<(&'static str, Counter)>,
    pub(super) malformed: Counter,
    publishes: [Counter; 3],
    repeats: Counter,
    acks: [Counter; 3],
    foreign: Counter,
    unknown_topic: Counter,
    short: Vec<Counter>,
    shed: Vec<Counter>,
    received: Counter,
    delivered: Counter,
    lost: [Counter; 3],
    acknowledged: Counter,
    local: Counter,
    not_retained: Counter,
    wills: Counter,
    pub(super) sessions: Gauge,
    pub(super) take_overs: Counter,
    pub(super) take_overs_delayed: Counter,
    pub(super) totals: Totals,
    pub(super) withheld: Histogram,
    pub(super) paced: Counter,
    pub(super) accept_errors: Counter,
    pub(super) wills_lost: Counter,
    answers: [Counter; 3],
    own: [Counter; PublishError::NAMES.len()],
    reloads: [Counter; 3],
    reloads_refused: [Counter; 3],
}

/// What `$SYS` tells, since the start.
#[derive(Debug, Default)]
pub(super) struct Totals {
    pub(super) received: AtomicU64,
    pub(super) received_bytes: AtomicU64,
    pub(super) delivered: AtomicU64,
    pub(super) dropped: AtomicU64,
    pub(super) sent_bytes: AtomicU64,
}

/// What one pass over a connection counted.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Tally {
    pub(super) received_bytes: u64,
    pub(super) sent_bytes: u64,
    pub(super) delivered: u64,
    /// Deliveries let go, by reason.
    lost: [u64; 3],
    pub(super) acknowledged: u64,
    pub(super) local: u64,
    pub(super) not_retained: u64,
    pub(super) wills: u64,
    /// By QoS.
    pub(super) publishes: [u64; 3],
    pub(super) repeats: u64,
    pub(super) foreign: u64,
    pub(super) unknown_topic: u64,
    /// QoS 1 and 2 that a shortage refused, by shortage.
    short: [u64; Shortage::NAMES.len()],
    /// QoS 0 that a shortage let go, by shortage.
    shed: [u64; Shortage::NAMES.len()],
    pub(super) pubacks: u64,
    pub(super) pubrecs: u64,
    pub(super) pubcomps: u64,
    /// Answers to commands, by what became of them.
    answers: [u64; 3],
}

// === impl Metrics ===

impl Metrics {
    pub(super) fn new() -> Self {
        let by = |metric: &Metric, label, values: &[&'static str]| {
            values.iter().map(|value| (*value, counter_with(metric, label, value))).collect()
        };
        Self {
            connections: gauge(&CONNECTIONS),
            connects: by(&CONNECTS, "result", Refusal::RESULTS),
            disconnects: by(&DISCONNECTS, "reason", End::REASONS),
            malformed: counter(&MALFORMED),
            publishes: ["0", "1", "2"].map(|qos| counter_with(&PUBLISHES, "qos", qos)),
            repeats: counter(&REPEATS),
            acks: ["puback", "pubrec", "pubcomp"].map(|kind| counter_with(&ACKS, "kind", kind)),
            foreign: counter_with(&REFUSED, "reason", "foreign"),
            unknown_topic: counter_with(&REFUSED, "reason", "unknown_topic"),
            short: Shortage::NAMES.map(|name| counter_with(&REFUSED, "reason", name)).into(),
            shed: Shortage::NAMES.map(|name| counter_with(&SHED, "reason", name)).into(),
            received: counter(&RECEIVED),
            delivered: counter(&DELIVERED),
            lost: Loss::NAMES.map(|name| counter_with(&DELIVERIES_DROPPED, "reason", name)),
            acknowledged: counter(&ACKNOWLEDGED),
            local: counter(&LOCAL),
            not_retained: counter(&NOT_RETAINED),
            wills: counter(&WILLS),
            sessions: gauge(&SESSIONS),
            take_overs: counter(&TAKE_OVERS),
            take_overs_delayed: counter(&TAKE_OVERS_DELAYED),
            totals: Totals::default(),
            withheld: histogram(&WITHHELD),
            paced: counter(&PACED),
            accept_errors: counter(&ACCEPT_ERRORS),
            wills_lost: counter(&WILLS_LOST),
            answers: Taken::NAMES.map(|name| counter_with(&ANSWERS, "result", name)),
            own: PublishError::NAMES.map(|name| counter_with(&OWN, "result", name)),
            reloads: Part::NAMES.map(|name| counter_with(&RELOADS, "what", name)),
            reloads_refused: Part::NAMES.map(|name| counter_with(&RELOADS_REFUSED, "what", name)),
        }
    }

    /// Counts one connect by its result.
    pub(super) fn connect(&self, result: &str) {
        increment(&self.connects, result);
    }

    /// Counts one end of an accepted connection by its reason.
    pub(super) fn disconnect(&self, reason: &str) {
        increment(&self.disconnects, reason);
    }

    /// Counts a publish of the gateway itself.
    pub(super) fn own(&self, error: Option<&PublishError>) {
        if let Some(counter) = self.own.get(error.map_or(0, |error| error.index())) {
            counter.increment(1);
        }
    }

    /// Counts what was read again by whether it is in force.
    pub(super) fn reload(&self, part: Part, taken: bool) {
        let counters = if taken { &self.reloads } else { &self.reloads_refused };
        if let Some(counter) = counters.get(part as usize) {
            counter.increment(1);
        }
    }

    /// Adds a tally and empties it.
    pub(super) fn add(&self, tally: &mut Tally) {
        let counted = std::mem::take(tally);
        let add = |counter: &Counter, count: u64| {
            if count > 0 {
                counter.increment(count);
            }
        };
        add(&self.received, counted.received_bytes);
        add(&self.delivered, counted.delivered);
        add(&self.acknowledged, counted.acknowledged);
        add(&self.local, counted.local);
        add(&self.not_retained, counted.not_retained);
        add(&self.wills, counted.wills);
        for (counter, count) in self.lost.iter().zip(counted.lost) {
            add(counter, count);
        }
        self.totals.add(&counted);
        for (counter, count) in self.publishes.iter().zip(counted.publishes) {
            add(counter, count);
        }
        for (counter, count) in self.acks.iter().zip([counted.pubacks, counted.pubrecs, counted.pubcomps]) {
            add(counter, count);
        }
        add(&self.repeats, counted.repeats);
        add(&self.foreign, counted.foreign);
        add(&self.unknown_topic, counted.unknown_topic);
        for (counter, count) in self.answers.iter().zip(counted.answers) {
            add(counter, count);
        }
        for (counter, count) in self.short.iter().zip(counted.short) {
            add(counter, count);
        }
        for (counter, count) in self.shed.iter().zip(counted.shed) {
            add(counter, count);
        }
    }
}

// === impl Totals ===

impl Totals {
    fn add(&self, counted: &Tally) {
        let add = |total: &AtomicU64, count: u64| {
            if count > 0 {
                total.fetch_add(count, Ordering::Relaxed);
            }
        };
        add(&self.received, counted.publishes.iter().sum::<u64>() + counted.local);
        add(&self.received_bytes, counted.received_bytes);
        add(&self.delivered, counted.delivered);
        add(&self.dropped, counted.dropped());
        add(&self.sent_bytes, counted.sent_bytes);
    }
}

// === impl Tally ===

impl Tally {
    /// One message taken in for a subscriber.
    pub(super) fn one_delivered() -> Self {
        Self { delivered: 1, ..Self::default() }
    }

    /// Counts deliveries that were let go.
    pub(super) fn lose(&mut self, loss: Loss, count: u64) {
        if let Some(lost) = self.lost.get_mut(loss.index()) {
            *lost += count;
        }
    }

    /// Deliveries that were let go.
    pub(super) fn dropped(&self) -> u64 {
        self.lost.iter().sum()
    }

    /// Counts an answer to a command.
    pub(super) fn answer(&mut self, taken: &Taken) {
        if let Some(count) = self.answers.get_mut(taken.index()) {
            *count += 1;
        }
    }

    /// Counts a publish that a shortage kept out.
    pub(super) fn short(&mut self, shortage: Shortage, qos: Qos) {
        let counts = if qos == Qos::AtMostOnce { &mut self.shed } else { &mut self.short };
        if let Some(count) = counts.get_mut(shortage.index()) {
            *count += 1;
        }
    }
}

fn increment(counters: &[(&'static str, Counter)], value: &str) {
    if let Some((_, counter)) = counters.iter().find(|(name, _)| *name == value) {
        counter.increment(1);
    }
}

//! What is measured of the rules and alerts; what becomes of alerts on their way is measured by their sinks.

use metrics::{Counter, Gauge, Histogram};

use super::engine::Engine;
use super::lifecycle;
use super::measure::{Counts, Form, LeftOut, Refused, Untouched};
use super::requests::REQUESTS;
use crate::observe::{Kind, Metric, counter, counter_with, gauge, gauge_with, histogram};

const RECORDS: Metric = Metric {
    name: "penstock_alerts_records_total",
    kind: Kind::Counter,
    help: "Telemetry messages that the rules have looked at; after a crash some are looked at again.",
    labels: &[],
};
const SAMPLES: Metric = Metric {
    name: "penstock_alerts_samples_total",
    kind: Kind::Counter,
    help: "Numbers found in them that some rule wants.",
    labels: &[],
};
const SKIPPED: Metric = Metric {
    name: "penstock_alerts_skipped_messages_total",
    kind: Kind::Counter,
    help: "Telemetry messages that no rule looked at, because the rules lagged too far behind or the messages were let go to make room.",
    labels: &[],
};
const LAG: Metric = Metric {
    name: "penstock_alerts_lag_messages",
    kind: Kind::Gauge,
    help: "Telemetry messages that are durable and that the rules have not looked at yet.",
    labels: &[],
};
const READ: Metric = Metric {
    name: "penstock_alerts_messages_read_total",
    kind: Kind::Counter,
    help: "Telemetry messages that measurements were read from, by the form of their payload.",
    labels: &[("form", Form::NAMES)],
};
const UNTOUCHED: Metric = Metric {
    name: "penstock_alerts_messages_untouched_total",
    kind: Kind::Counter,
    help: "Telemetry messages that mean nothing to rules and were carried all the same, by reason.",
    labels: &[("reason", Untouched::NAMES)],
};
const REFUSED: Metric = Metric {
    name: "penstock_alerts_messages_refused_total",
    kind: Kind::Counter,
    help: "Telemetry messages that should be readable and are not, by reason; rules see nothing of them, the cloud all.",
    labels: &[("reason", Refused::NAMES)],
};
const LEFT_OUT: Metric = Metric {
    name: "penstock_alerts_values_left_out_total",
    kind: Kind::Counter,
    help: "Values that a rule wants and that are no usable number or time, by reason.",
    labels: &[("reason", LeftOut::NAMES)],
};
const IGNORED: Metric = Metric {
    name: "penstock_alerts_samples_ignored_total",
    kind: Kind::Counter,
    help: "Samples that were not evaluated: earlier than the last one of their series, or of a series or device beyond a bound (`learned`: of those that rules learn); expressions that could not be decided.",
    labels: &[("reason", &["late", "series", "learned", "devices", "undecided"])],
};
const TIMES_WRONG: Metric = Metric {
    name: "penstock_alerts_times_wrong_total",
    kind: Kind::Counter,
    help: "Times of devices that were unreadable or cannot be true; the time of receiving stands for them.",
    labels: &[],
};
const STALE_DEATHS: Metric = Metric {
    name: "penstock_alerts_sparkplug_stale_deaths_total",
    kind: Kind::Counter,
    help: "NDEATHs of a Sparkplug session before the present one, which say nothing about it.",
    labels: &[],
};
const REBIRTHS: Metric = Metric {
    name: "penstock_alerts_sparkplug_rebirths_total",
    kind: Kind::Counter,
    help: "Reasons to ask a Sparkplug edge node for its births: one that led to a request, one within a minute of the last request, one that found too many waiting. After a crash some are found again, and not asked for again.",
    labels: &[("what", &["wanted", "held", "lost"])],
};
const EDGES: Metric = Metric {
    name: "penstock_alerts_conditions_total",
    kind: Kind::Counter,
    help: "How often the condition of a rule began to hold, or ended.",
    labels: &[("change", &["raised", "cleared"])],
};
const EVENTS: Metric = Metric {
    name: "penstock_alerts_events_total",
    kind: Kind::Counter,
    help: "Events put into lane alerts, by what they tell.",
    labels: &[("what", &["raised", "updated", "resolved", "flapping", "storm"])],
};
const WITHHELD: Metric = Metric {
    name: "penstock_alerts_withheld_total",
    kind: Kind::Counter,
    help: "What was not told at once, by what stood before it; `untracked`: there was no room for the alert.",
    labels: &[("reason", &["inhibited", "muted", "storm", "tokens", "untracked"])],
};
const REACTIONS: Metric = Metric {
    name: "penstock_alerts_reactions_total",
    kind: Kind::Counter,
    help: "Reactions to alerts that were decided and put into lane alerts, by where they go.",
    labels: &[("kind", &["mqtt", "service-bus"])],
};
const REACTIONS_WITHHELD: Metric = Metric {
    name: "penstock_alerts_reactions_withheld_total",
    kind: Kind::Counter,
    help: "Reactions that were not to be, by reason: the alert is inhibited or muted, or ended because its `rule` was changed or removed; or could not be: `unusable`, what would be rendered is no topic, too long, or of a device whose name is; `no-room`, too many at the same moment.",
    labels: &[("reason", &["inhibited", "muted", "rule", "unusable", "no-room"])],
};
const OPEN: Metric =
    Metric { name: "penstock_alerts_open", kind: Kind::Gauge, help: "Alerts that are open.", labels: &[] };
const HELD: Metric = Metric {
    name: "penstock_alerts_held",
    kind: Kind::Gauge,
    help: "Alerts that wait for their turn to be told.",
    labels: &[],
};
const STORMS: Metric = Metric {
    name: "penstock_alerts_storms",
    kind: Kind::Gauge,
    help: "Groups of alerts that one event speaks for.",
    labels: &[],
};
const SERIES: Metric = Metric {
    name: "penstock_alerts_series",
    kind: Kind::Gauge,
    help: "Series that are watched, each a rule, a device and a metric.",
    labels: &[],
};
const LEARNED: Metric = Metric {
    name: "penstock_alerts_learned_series",
    kind: Kind::Gauge,
    help: "Those of them that rules of kind `learned` learn.",
    labels: &[],
};
const FORGOTTEN: Metric = Metric {
    name: "penstock_alerts_devices_forgotten_total",
    kind: Kind::Counter,
    help: "Devices that said nothing for `forget_after`, and that rules know no more.",
    labels: &[],
};
const COMMITS: Metric = Metric {
    name: "penstock_alerts_commits_total",
    kind: Kind::Counter,
    help: "Batches in which alerts, their table and the progress became durable together.",
    labels: &[],
};
const COMMIT_FAILURES: Metric = Metric {
    name: "penstock_alerts_commit_failures_total",
    kind: Kind::Counter,
    help: "Such batches that failed or were refused; their messages are looked at again.",
    labels: &[],
};
const LATENCY: Metric = Metric {
    name: "penstock_alerts_latency_seconds",
    kind: Kind::Histogram(&[0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 30.0]),
    help: "From the commit of the message that showed it until the alert is durable.",
    labels: &[],
};
const SNAPSHOTS: Metric = Metric {
    name: "penstock_alerts_snapshots_total",
    kind: Kind::Counter,
    help: "Snapshots that were written.",
    labels: &[],
};
const SNAPSHOT_FAILURES: Metric = Metric {
    name: "penstock_alerts_snapshot_failures_total",
    kind: Kind::Counter,
    help: "Snapshots that could not be written, or not be used at a start; the rules then learn again.",
    labels: &[],
};
const SNAPSHOT_BYTES: Metric = Metric {
    name: "penstock_alerts_snapshot_bytes",
    kind: Kind::Gauge,
    help: "Size of the newest snapshot.",
    labels: &[],
};
const RELOADS: Metric = Metric {
    name: "penstock_alerts_reloads_total",
    kind: Kind::Counter,
    help: "How often the rules file was read again, and whether it could be used.",
    labels: &[("result", &["used", "refused"])],
};
const RULES: Metric = Metric {
    name: "penstock_alerts_rules",
    kind: Kind::Gauge,
    help: "Rules of the file, by whether they are in force or were left out because of an error.",
    labels: &[("state", &["in-force", "left-out"])],
};

pub(crate) const METRICS: &[Metric] = &[
    RECORDS,
    SAMPLES,
    SKIPPED,
    LAG,
    READ,
    UNTOUCHED,
    REFUSED,
    LEFT_OUT,
    IGNORED,
    TIMES_WRONG,
    STALE_DEATHS,
    REBIRTHS,
    REQUESTS,
    EDGES,
    EVENTS,
    WITHHELD,
    REACTIONS,
    REACTIONS_WITHHELD,
    OPEN,
    HELD,
    STORMS,
    SERIES,
    LEARNED,
    FORGOTTEN,
    COMMITS,
    COMMIT_FAILURES,
    LATENCY,
    SNAPSHOTS,
    SNAPSHOT_FAILURES,
    SNAPSHOT_BYTES,
    RELOADS,
    RULES,
];

pub(super) struct Metrics {
    /// What only grows in the engine and its parts.
    grown: Vec<(Grown, Look)>,
    told: Told,
    lag: Gauge,
    open: Gauge,
    held: Gauge,
    storms: Gauge,
    series: Gauge,
    learned: Gauge,
    pub(super) commits: Counter,
    pub(super) commit_failures: Counter,
    pub(super) latency: Histogram,
    pub(super) snapshots: Counter,
    pub(super) snapshot_failures: Counter,
    pub(super) snapshot_bytes: Gauge,
    reload_used: Counter,
    in_force: Gauge,
    left_out: Gauge,
}

/// Reads a number that only grows.
type Look = Box<dyn Fn(&Engine) -> u64 + Send>;

/// A counter that follows a number which starts again from nothing when the engine is built again.
struct Grown {
    counter: Counter,
    seen: u64,
}

/// What the lifecycle counts, which is set back whenever it is read.
struct Told {
    raised: Counter,
    updated: Counter,
    resolved: Counter,
    flapping: Counter,
    storm: Counter,
    inhibited: Counter,
    muted: Counter,
    gathered: Counter,
    tokens: Counter,
    untracked: Counter,
    reactions: [Counter; 2],
    reactions_withheld: [Counter; 5],
}

// === impl Grown ===

impl Grown {
    fn follow(&mut self, now: u64) {
        let before = if now < self.seen { 0 } else { self.seen };
        self.counter.increment(now - before);
        self.seen = now;
    }
}

// === impl Told ===

impl Told {
    fn new() -> Self {
        let event = |what| counter_with(&EVENTS, "what", what);
        let withheld = |reason| counter_with(&WITHHELD, "reason", reason);
        Self {
            raised: event("raised"),
            updated: event("updated"),
            resolved: event("resolved"),
            flapping: event("flapping"),
            storm: event("storm"),
            inhibited: withheld("inhibited"),
            muted: withheld("muted"),
            gathered: withheld("storm"),
            tokens: withheld("tokens"),
            untracked: withheld("untracked"),
            reactions: ["mqtt", "service-bus"].map(|kind| counter_with(&REACTIONS, "kind", kind)),
            reactions_withheld: ["inhibited", "muted", "rule", "unusable", "no-room"]
                .map(|reason| counter_with(&REACTIONS_WITHHELD, "reason", reason)),
        }
    }

    fn add(&self, counts: &lifecycle::Counts) {
        self.raised.increment(counts.told_raised);
        self.updated.increment(counts.told_updated);
        self.resolved.increment(counts.told_resolved);
        self.flapping.increment(counts.told_flapping);
        self.storm.increment(counts.told_storm);
        self.inhibited.increment(counts.inhibited);
        self.muted.increment(counts.muted);
        self.gathered.increment(counts.gathered);
        self.tokens.increment(counts.held);
        self.untracked.increment(counts.untracked);
        let decided = [counts.reactions_mqtt, counts.reactions_service_bus];
        let withheld = [
            counts.reactions_inhibited,
            counts.reactions_muted,
            counts.reactions_rule,
            counts.reactions_unusable,
            counts.reactions_crowded,
        ];
        let all = self.reactions.iter().zip(decided).chain(self.reactions_withheld.iter().zip(withheld));
        all.for_each(|(counter, count)| counter.increment(count));
    }
}

// === impl Metrics ===

impl Metrics {
    pub(super) fn new() -> Self {
        Self {
            grown: grown(),
            told: Told::new(),
            lag: gauge(&LAG),
            open: gauge(&OPEN),
            held: gauge(&HELD),
            storms: gauge(&STORMS),
            series: gauge(&SERIES),
            learned: gauge(&LEARNED),
            commits: counter(&COMMITS),
            commit_failures: counter(&COMMIT_FAILURES),
            latency: histogram(&LATENCY),
            snapshots: counter(&SNAPSHOTS),
            snapshot_failures: counter(&SNAPSHOT_FAILURES),
            snapshot_bytes: gauge(&SNAPSHOT_BYTES),
            reload_used: counter_with(&RELOADS, "result", "used"),
            in_force: gauge_with(&RULES, "state", "in-force"),
            left_out: gauge_with(&RULES, "state", "left-out"),
        }
    }

    /// Shows what the engine stands at, and adds what the lifecycle counted since the last call.
    #[expect(clippy::cast_precision_loss, reason = "numbers in gauges")]
    pub(super) fn show(&mut self, engine: &Engine, told: &lifecycle::Counts, behind: u64) {
        for (grown, look) in &mut self.grown {
            grown.follow(look(engine));
        }
        self.told.add(told);
        let lifecycle = engine.lifecycle();
        self.lag.set(behind as f64);
        self.open.set(lifecycle.open() as f64);
        self.held.set(lifecycle.held() as f64);
        self.storms.set(lifecycle.storms() as f64);
        self.series.set(engine.evaluator().series() as f64);
        self.learned.set(engine.evaluator().learned() as f64);
    }

    #[expect(clippy::cast_precision_loss, reason = "rules are counted in thousands")]
    pub(super) fn rules(&self, in_force: usize, left_out: usize) {
        self.in_force.set(in_force as f64);
        self.left_out.set(left_out as f64);
    }

    pub(super) fn reloaded(&self) {
        self.reload_used.increment(1);
    }
}

/// Counts a rules file that could not be used.
pub(super) fn refused() {
    counter_with(&RELOADS, "result", "refused").increment(1);
}

fn grown() -> Vec<(Grown, Look)> {
    let mut all: Vec<(Grown, Look)> = Vec::new();
    let mut add = |counter, look: Look| all.push((Grown { counter, seen: 0 }, look));
    add(counter(&RECORDS), Box::new(|engine| engine.counts().records));
    add(counter(&SAMPLES), Box::new(|engine| engine.counts().samples));
    add(counter(&SKIPPED), Box::new(|engine| engine.counts().skipped));
    add(counter_with(&EDGES, "change", "raised"), Box::new(|engine| engine.counts().raised));
    add(counter_with(&EDGES, "change", "cleared"), Box::new(|engine| engine.counts().cleared));
    for form in Form::ALL {
        let counter = counter_with(&READ, "form", form.name());
        add(counter, Box::new(|engine| engine.reader().counts().read(*form)));
    }
    for why in Untouched::ALL {
        let counter = counter_with(&UNTOUCHED, "reason", why.name());
        add(counter, Box::new(|engine| engine.reader().counts().untouched(*why)));
    }
    for why in Refused::ALL {
        let counter = counter_with(&REFUSED, "reason", why.name());
        add(counter, Box::new(|engine| engine.reader().counts().refused(*why)));
    }
    for why in LeftOut::ALL {
        let counter = counter_with(&LEFT_OUT, "reason", why.name());
        add(counter, Box::new(|engine| engine.reader().counts().left_out(*why)));
    }
    let mut read = |counter, look: fn(&Counts) -> u64| {
        add(counter, Box::new(move |engine| look(engine.reader().counts())));
    };
    let rebirths = |what| counter_with(&REBIRTHS, "what", what);
    read(counter(&TIMES_WRONG), |counts| counts.times_wrong);
    read(counter(&STALE_DEATHS), |counts| counts.stale_deaths);
    read(rebirths("wanted"), |counts| counts.rebirths_wanted);
    read(rebirths("held"), |counts| counts.rebirths_held);
    read(rebirths("lost"), |counts| counts.rebirths_lost);
    add(counter(&FORGOTTEN), Box::new(|engine| engine.evaluator().counts().forgotten));
    let ignored = |reason| counter_with(&IGNORED, "reason", reason);
    add(ignored("late"), Box::new(|engine| engine.evaluator().counts().late));
    add(ignored("series"), Box::new(|engine| engine.evaluator().counts().series_refused));
    add(ignored("learned"), Box::new(|engine| engine.evaluator().counts().learned_refused));
    add(ignored("devices"), Box::new(|engine| engine.evaluator().counts().devices_refused));
    add(ignored("undecided"), Box::new(|engine| engine.evaluator().counts().undecided));
    all
}

impl std::fmt::Debug for Metrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Metrics")
    }
}

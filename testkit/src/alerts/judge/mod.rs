//! The verdict: faults that a fleet had against the alerts that arrived.
//!
//! | Word | Meaning | Allowed |
//! |---|---|---|
//! | found | a rule that is expected to see the fault began to alert about it, in time | |
//! | missed | no such alert, although every reading concerned was acknowledged | up to the share of the expectation |
//! | summarised | no such alert, but a storm of such a rule at that time | always |
//! | unproven | no such alert, but not all of it was sent and acknowledged | always |
//! | unwatched | no rule is expected to see it | always |
//! | false alerts | raised without a fault of that device and metric nearby | up to the number of the conditions |
//! | unresolved | still open long after its fault ended | never |
//! | contradicting | the same event id with other content, or an alert about two things | never |
//! | gaps | transitions of an alert that never arrived | never |
//! | unreadable | an event about alerts that is none by its shape | never |
//! | duplicated | the same event once more | always: delivery is at least once |
//! | late | raised after the fleet had ended: its devices are silent then | always |
//!
//! An alert belongs to a fault by its device, its metric and its time: it *began* (`data.startedAt`, else `time`) at most
//! [`Conditions::slack_ms`] or two readings before the first reading concerned was taken, for a stuck value starts with
//! the good one before. The delay is from the sending of that reading to `time` of the event that raised it; where the
//! gateway believes the device's own time and the reading had to wait, that is none.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::ops::RangeInclusive;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::event::{self, Event, Subject};
use super::truth::{Injected, Kind, Truth};

/// Most examples kept of what went wrong.
const EXAMPLES_MAX: usize = 20;

/// Which rules are expected to see a kind of fault, and how soon.
#[derive(Debug, Clone, Copy)]
pub struct Expectation<'a> {
    /// The kind of fault.
    pub kind: Kind,
    /// The metric it is in; `None` for every one.
    pub metric: Option<&'a str>,
    /// Rule ids; one of them is enough.
    pub rules: &'a [&'a str],
    /// The alert began within this time after the fault did, in milliseconds …
    pub within_ms: u64,
    /// … or within so many readings of the device, whichever is longer.
    pub within_readings: u32,
    /// How many of those that could have been found must be, in percent.
    pub found_percent_min: u8,
}

/// What the judgement tolerates.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Conditions {
    /// How long before a fault an alert about it may have begun, in milliseconds: clocks differ.
    pub slack_ms: u64,
    /// How long after the end of a fault alerts may still begin because of it, in milliseconds: a signal that returns
    /// jumps once more.
    pub after_ms: u64,
    /// How long after the end of its fault an alert may stay open, in milliseconds.
    pub resolve_ms: u64,
    /// When the alerts were collected, in Unix milliseconds: what ended shortly before may be open.
    pub until_ms: u64,
    /// How many false alerts are allowed.
    pub false_alerts_max: u64,
}

/// What became of the faults of one kind.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen {
    /// Faults that were sent, at least in part.
    pub injected: u64,
    /// An expected rule alerted in time.
    pub found: u64,
    /// None did.
    pub missed: u64,
    /// None did, but a storm told about such a rule.
    pub summarised: u64,
    /// None did, but not all of it was sent and acknowledged.
    pub unproven: u64,
    /// No rule is expected to.
    pub unwatched: u64,
    /// Half of those found were alerted within this time, in milliseconds.
    pub delay_p50_ms: Option<u64>,
    /// All of them were.
    pub delay_max_ms: Option<u64>,
}

/// What was found.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// The faults, by kind.
    pub faults: BTreeMap<Kind, Seen>,
    /// Events about alerts, each as often as it arrived.
    pub events: u64,
    /// Different alerts.
    pub alerts: u64,
    /// Different storms and other summaries.
    pub storms: u64,
    /// Alerts without a fault nearby.
    pub false_alerts: u64,
    /// Alerts raised after the fleet had ended, without a fault nearby.
    pub late: u64,
    /// Alerts that stayed open although their fault ended.
    pub unresolved: u64,
    /// Events whose id was there before with the same content.
    pub duplicated: u64,
    /// Events whose id was there before with other content, or that say of an alert what contradicts its others.
    pub contradicting: u64,
    /// Transitions that never arrived although later ones did.
    pub gaps: u64,
    /// Events that claim to be about alerts and are not readable.
    pub unreadable: u64,
}

/// The verdict.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// What was found.
    pub counts: Counts,
    /// Why the verdict is not "pass"; empty when it is.
    pub reasons: Vec<String>,
}

/// One alert with all that arrived about it.
#[derive(Debug)]
struct Alert<'a> {
    id: &'a str,
    device: &'a str,
    rule: &'a str,
    metric: Option<&'a str>,
    /// Whether each of them ended it.
    transitions: BTreeMap<u64, bool>,
    /// The lowest transition that arrived, and when it happened.
    first: (u64, u64),
    started_ms: Option<u64>,
}

/// A summary of many alerts.
#[derive(Debug)]
struct Storm<'a> {
    rule: Option<&'a str>,
    /// When it began and, as far as it is told, ended.
    from_ms: u64,
    until_ms: u64,
    transitions: BTreeSet<u64>,
}

/// Where alerts and storms are, by source and id.
#[derive(Debug, Default)]
struct Places<'a> {
    alerts: HashMap<(&'a str, &'a str), usize>,
    storms: HashMap<(&'a str, &'a str), usize>,
}

/// The events, sorted.
#[derive(Debug, Default)]
struct Arrived<'a> {
    alerts: Vec<Alert<'a>>,
    storms: Vec<Storm<'a>>,
    /// The alerts of each device, as places in the list.
    by_device: HashMap<&'a str, Vec<usize>>,
    counts: Counts,
    examples: Vec<String>,
}

/// Holds the alerts that arrived, as CloudEvents in any order, against the faults that the fleet had.
///
/// Events that are not about alerts are passed over.
#[must_use]
pub fn judge(
    truth: &Truth,
    events: &[Value],
    expectations: &[Expectation<'_>],
    conditions: &Conditions,
) -> Verdict {
    let mut arrived = Arrived::sort(events);
    let mut delays: BTreeMap<Kind, Vec<u64>> = BTreeMap::new();
    let mut short = vec![(0, 0); expectations.len()];
    for fault in &truth.faults {
        let expected = expectations.iter().position(|expectation| expectation.fits(fault));
        let found = expected
            .and_then(|place| expectations.get(place))
            .map_or(Found::Unwatched, |one| find(fault, one, &arrived, conditions));
        let seen = arrived.counts.faults.entry(fault.kind).or_default();
        seen.injected += 1;
        *found.count(seen) += 1;
        if let Found::After(delay) = found {
            delays.entry(fault.kind).or_default().push(delay);
        }
        let share = expected.and_then(|place| short.get_mut(place));
        if let (Some((found_of, all)), Found::After(_) | Found::Missed) = (share, found) {
            *all += 1_u64;
            *found_of += u64::from(found != Found::Missed);
        }
        if found == Found::Missed {
            arrived.example(format!("missed: {}", named(fault)));
        }
    }
    for (kind, mut delays) in delays {
        delays.sort_unstable();
        let seen = arrived.counts.faults.entry(kind).or_default();
        seen.delay_p50_ms = delays.get((delays.len() - 1) / 2).copied();
        seen.delay_max_ms = delays.last().copied();
    }
    arrived.weigh(truth, conditions);
    let mut reasons = misses(expectations, &short);
    reasons.extend(broken(&arrived.counts, conditions));
    if !reasons.is_empty() {
        reasons.append(&mut arrived.examples);
    }
    Verdict { counts: arrived.counts, reasons }
}

/// What became of one fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Found {
    /// An alert was raised after so many milliseconds.
    After(u64),
    Missed,
    Summarised,
    Unproven,
    Unwatched,
}

fn find(
    fault: &Injected,
    expectation: &Expectation<'_>,
    arrived: &Arrived<'_>,
    conditions: &Conditions,
) -> Found {
    let window = expectation.window(fault, conditions);
    let rules = expectation.rules;
    let alerts = arrived.of(&fault.device).filter(|alert| rules.contains(&alert.rule));
    let alerts = alerts.filter(|alert| alert.is_about(fault) && window.contains(&alert.began_ms(fault)));
    if let Some(raised_ms) = alerts.map(Alert::raised_ms).min() {
        return Found::After(raised_ms.saturating_sub(fault.begin_ms));
    }
    let meets = |storm: &&Storm<'_>| storm.from_ms <= *window.end() && storm.until_ms >= *window.start();
    let mut storms = arrived.storms.iter().filter(meets);
    if storms.any(|storm| storm.rule.is_none_or(|rule| rules.contains(&rule))) {
        Found::Summarised
    } else if fault.is_proven() {
        Found::Missed
    } else {
        Found::Unproven
    }
}

/// The expectations that were not met, of pairs of how many were found and how many could have been.
fn misses(expectations: &[Expectation<'_>], found: &[(u64, u64)]) -> Vec<String> {
    let short = expectations.iter().zip(found).filter(|(expectation, (found, all))| {
        found.saturating_mul(100) < all.saturating_mul(expectation.found_percent_min.into())
    });
    let sentence = |(expectation, (found, all)): (&Expectation<'_>, &(u64, u64))| {
        format!(
            "{found} of {all} faults of kind {} were found by {}, at least {} percent have to be",
            expectation.kind,
            expectation.rules.join(", "),
            expectation.found_percent_min
        )
    };
    short.map(sentence).collect()
}

fn broken(counts: &Counts, conditions: &Conditions) -> Vec<String> {
    let rules = [
        (counts.false_alerts, conditions.false_alerts_max, "alerts are false"),
        (counts.unresolved, 0, "alerts stayed open although their fault ended"),
        (counts.contradicting, 0, "events contradict others of the same id or alert"),
        (counts.gaps, 0, "transitions never arrived"),
        (counts.unreadable, 0, "events about alerts are not readable"),
    ];
    let broken = rules.iter().filter(|(count, allowed, _)| count > allowed);
    broken.map(|(count, _, what)| format!("{count} {what}")).collect()
}

fn named(fault: &Injected) -> String {
    let Injected { device, metric, kind, first, last, begin_ms, .. } = fault;
    let of = metric.as_ref().map(|metric| format!(" of {metric}")).unwrap_or_default();
    format!("{kind}{of} in readings {first} to {last} of {device}, sent from {begin_ms} on")
}

// === impl Expectation ===

impl Expectation<'_> {
    fn fits(&self, fault: &Injected) -> bool {
        let metric = self.metric.is_none_or(|metric| fault.metric.as_deref() == Some(metric));
        self.kind == fault.kind && metric
    }

    /// When an alert about the fault may have begun, in Unix milliseconds.
    fn window(&self, fault: &Injected, conditions: &Conditions) -> RangeInclusive<u64> {
        let readings = u64::from(self.within_readings).saturating_mul(fault.period_ms);
        earliest(fault, conditions)..=fault.begin_ms.saturating_add(self.within_ms.max(readings))
    }
}

/// Whether an alert should be over, after the ends of the faults that may have caused it; `None` for one that has none.
fn is_overdue(ends: &[Option<u64>], conditions: &Conditions) -> bool {
    let last = ends.iter().try_fold(0, |last, end| end.map(|end| end.max(last)));
    last.is_some_and(|last: u64| last.saturating_add(conditions.resolve_ms) <= conditions.until_ms)
}

fn earliest(fault: &Injected, conditions: &Conditions) -> u64 {
    let slack_ms = conditions.slack_ms.max(fault.period_ms.saturating_mul(2));
    fault.taken_ms.min(fault.begin_ms).saturating_sub(slack_ms)
}

/// How many of the numbers from 1 to the latest are not among so many different ones.
fn missing_before(latest: Option<u64>, arrived: usize) -> u64 {
    latest.unwrap_or_default().saturating_sub(u64::try_from(arrived).unwrap_or(u64::MAX))
}

// === impl Found ===

impl Found {
    fn count(self, seen: &mut Seen) -> &mut u64 {
        match self {
            Self::After(_) => &mut seen.found,
            Self::Missed => &mut seen.missed,
            Self::Summarised => &mut seen.summarised,
            Self::Unproven => &mut seen.unproven,
            Self::Unwatched => &mut seen.unwatched,
        }
    }
}

// === impl Alert ===

impl<'a> Alert<'a> {
    /// Whether it is about what the fault concerns. One without a metric is about the device as a whole.
    fn is_about(&self, fault: &Injected) -> bool {
        let both = self.metric.zip(fault.metric.as_deref());
        both.is_none_or(|(mine, its)| mine == its)
    }

    /// When it began; a device whose clock is wrong does not know.
    fn began_ms(&self, fault: &Injected) -> u64 {
        let started = self.started_ms.filter(|_| fault.kind != Kind::ClockJump);
        started.unwrap_or_else(|| self.raised_ms())
    }

    /// Whether the fault explains it.
    fn may_come_from(&self, fault: &Injected, conditions: &Conditions) -> bool {
        let end = fault.end_ms.unwrap_or(u64::MAX).saturating_add(conditions.after_ms);
        self.is_about(fault) && (earliest(fault, conditions)..=end).contains(&self.began_ms(fault))
    }

    fn raised_ms(&self) -> u64 {
        self.first.1
    }

    fn is_open(&self) -> bool {
        self.transitions.last_key_value().is_some_and(|(_, is_over)| !is_over)
    }

    /// How many transitions up to the latest that arrived did not.
    fn gaps(&self) -> u64 {
        missing_before(self.transitions.last_key_value().map(|(number, _)| *number), self.transitions.len())
    }

    fn take(&mut self, event: &Event<'a>) {
        self.transitions.insert(event.transition, event.is_over);
        if event.transition < self.first.0 {
            self.first = (event.transition, event.time_ms);
            self.started_ms = event.started_ms.or(self.started_ms);
        }
        self.metric = self.metric.or(event.metric);
    }
}

impl fmt::Display for Alert<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {} about {}, raised at {}", self.id, self.rule, self.device, self.raised_ms())
    }
}

// === impl Arrived ===

impl<'a> Arrived<'a> {
    fn sort(events: &'a [Value]) -> Self {
        let mut arrived = Self::default();
        let mut known: HashMap<(&str, &str), &Value> = HashMap::new();
        let mut places = Places::default();
        for value in events {
            let event = match event::read(value) {
                Ok(None) => continue,
                Ok(Some(event)) => event,
                Err(error) => {
                    arrived.counts.events += 1;
                    arrived.counts.unreadable += 1;
                    arrived.example(format!("unreadable: {error} in {value}"));
                    continue;
                }
            };
            arrived.counts.events += 1;
            match known.insert((event.source, event.id), value) {
                Some(before) if before == value => arrived.counts.duplicated += 1,
                Some(_) => arrived.contradicting(format!("{} has two contents", event.id)),
                None => arrived.take(event, &mut places),
            }
        }
        arrived.counts.alerts = u64::try_from(arrived.alerts.len()).unwrap_or(u64::MAX);
        arrived.counts.storms = u64::try_from(arrived.storms.len()).unwrap_or(u64::MAX);
        arrived
    }

    /// Takes an event that was not there before.
    fn take(&mut self, event: Event<'a>, places: &mut Places<'a>) {
        let (device, rule) = match event.subject {
            Subject::Alert { device, rule } => (device, rule),
            Subject::Storm { rule } => return self.take_storm(&event, rule, places),
        };
        let place = *places.alerts.entry((event.source, event.alert)).or_insert(self.alerts.len());
        if let Some(alert) = self.alerts.get_mut(place) {
            let same = alert.device == device && alert.rule == rule;
            if !same || alert.transitions.contains_key(&event.transition) {
                return self.contradicting(format!("{} does not fit its alert", event.id));
            }
            return alert.take(&event);
        }
        self.by_device.entry(device).or_default().push(place);
        self.alerts.push(Alert {
            id: event.alert,
            device,
            rule,
            metric: event.metric,
            transitions: BTreeMap::from([(event.transition, event.is_over)]),
            first: (event.transition, event.time_ms),
            started_ms: event.started_ms,
        });
    }

    fn take_storm(&mut self, event: &Event<'a>, rule: Option<&'a str>, places: &mut Places<'a>) {
        let place = *places.storms.entry((event.source, event.alert)).or_insert(self.storms.len());
        if self.storms.get(place).is_none() {
            let from_ms = event.started_ms.unwrap_or(event.time_ms);
            self.storms.push(Storm { rule, from_ms, until_ms: u64::MAX, transitions: BTreeSet::new() });
        }
        let Some(storm) = self.storms.get_mut(place) else { return };
        if !storm.transitions.insert(event.transition) {
            return self.contradicting(format!("{} does not fit its storm", event.id));
        }
        if event.is_over {
            storm.until_ms = event.time_ms;
        }
    }

    fn of(&self, device: &str) -> impl Iterator<Item = &Alert<'a>> {
        let places = self.by_device.get(device).into_iter().flatten();
        places.filter_map(|place| self.alerts.get(*place))
    }

    /// Judges every alert by itself: does a fault explain it, did it end, did all of it arrive.
    fn weigh(&mut self, truth: &Truth, conditions: &Conditions) {
        let mut faults: HashMap<&str, Vec<&Injected>> = HashMap::new();
        for fault in &truth.faults {
            faults.entry(&fault.device).or_default().push(fault);
        }
        let end_ms = truth.run.as_ref().and_then(|run| run.end_ms).unwrap_or(u64::MAX);
        let (mut counts, mut examples) = (Counts::default(), Vec::new());
        for alert in &self.alerts {
            let mut wrong = |what: &str| examples.push(format!("{what}: {alert}"));
            counts.gaps += alert.gaps();
            if alert.gaps() > 0 {
                wrong("incomplete");
            }
            let known = faults.get(alert.device).map(Vec::as_slice).unwrap_or_default();
            let causes = known.iter().filter(|fault| alert.may_come_from(fault, conditions));
            let ends: Vec<Option<u64>> = causes.map(|fault| fault.end_ms).collect();
            if ends.is_empty() && alert.raised_ms() > end_ms {
                counts.late += 1;
            } else if ends.is_empty() {
                counts.false_alerts += 1;
                wrong("false");
            } else if alert.is_open() && is_overdue(&ends, conditions) {
                counts.unresolved += 1;
                wrong("unresolved");
            }
        }
        let storms = self.storms.iter();
        let gaps =
            storms.map(|storm| missing_before(storm.transitions.last().copied(), storm.transitions.len()));
        self.counts.gaps = counts.gaps + gaps.sum::<u64>();
        self.counts.false_alerts = counts.false_alerts;
        self.counts.late = counts.late;
        self.counts.unresolved = counts.unresolved;
        examples.into_iter().for_each(|what| self.example(what));
    }

    fn contradicting(&mut self, what: String) {
        self.counts.contradicting += 1;
        self.example(format!("contradicting: {what}"));
    }

    fn example(&mut self, what: String) {
        if self.examples.len() < EXAMPLES_MAX {
            self.examples.push(what);
        }
    }
}

#[cfg(test)]
mod tests;

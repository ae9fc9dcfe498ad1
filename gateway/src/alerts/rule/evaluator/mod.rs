//! Evaluates rules: samples and the time go in, edges come out.
//!
//! Everything that is remembered of a device stands together in its [`device::Device`], which is found once per entry.
//! Which rules are about it was found when it was first seen ([`plan`]); a sample then goes straight to the states of
//! the rules of its metric, which lie side by side ([`series::Entry`]). Only what is waiting or raised takes more room
//! ([`course::Active`]). Silence is noticed by timers ([`wheel`]), which an entry does not touch: a timer that finds
//! that its device has spoken is set again.
//!
//! Bounds: [`Limits`]. At a bound what is new is not evaluated, and counted.

mod course;
mod device;
mod forget;
mod pass;
mod plan;
mod series;
mod silence;
mod snapshot;
mod watched;
mod wheel;

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use super::RuleSet;
use super::definition::Kind;
use crate::alerts::nouns::{Change, Edge, Origin, Position, Sample, Subject};

use device::{Angle, Device, State};
use pass::Pass;
use plan::{Matches, Planner};
use wheel::{Timer, Wheel};

/// Tenant, site and class come with the topic of an entry, so that a device can have several; at most so many.
const ANGLES_MAX: usize = 8;
/// Those that were not seen for so long are its own no more.
const ANGLE_MS_MAX: u64 = 86_400_000;

/// How much an evaluator may remember.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Limits {
    /// States of series: one for each rule, device and metric.
    pub(crate) series_max: usize,
    /// Those of them that rules of kind `learned` learn, which take ten times as much room.
    pub(crate) learned_max: usize,
    pub(crate) devices_max: usize,
    /// How long a device is remembered that says nothing, unless something is raised about it or it is watched for
    /// silence, in milliseconds by the stage's clock.
    pub(crate) forget_after_ms: u64,
}

/// What came of what was given to an evaluator, since it was made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    /// A sample or a record met a rule.
    pub(crate) evaluations: u64,
    /// Samples earlier than the last one of their series.
    pub(crate) late: u64,
    /// Samples of series that were not begun, because there are as many as there may be.
    pub(crate) series_refused: u64,
    /// Samples of series that rules did not begin to learn, for the same reason.
    pub(crate) learned_refused: u64,
    /// Entries of devices that were not begun, for the same reason.
    pub(crate) devices_refused: u64,
    /// Expressions that could not be decided, as after dividing nothing by nothing.
    pub(crate) undecided: u64,
    /// States in a snapshot whose rule has changed or is gone.
    pub(crate) outdated: u64,
    /// Learned series in a snapshot that were damaged, and are learned anew.
    pub(crate) damaged: u64,
    /// Devices that were forgotten, since they had said nothing for long.
    pub(crate) forgotten: u64,
}

/// State of all series of all rules.
pub(crate) struct Evaluator {
    rules: Arc<RuleSet>,
    limits: Limits,
    planner: Planner,
    places: HashMap<Arc<str>, u32>,
    devices: Vec<Device>,
    /// Log, epoch and lane of entries that states refer to.
    sources: Vec<Position>,
    wheel: Wheel,
    now_ms: u64,
    hold_ms: Option<u64>,
    /// The hour when it was last looked for devices to forget.
    swept_ms: u64,
    series: usize,
    learned: usize,
    counts: Counts,
    due: Vec<Timer>,
    joint: Vec<u16>,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            series_max: 2_000_000,
            learned_max: 300_000,
            devices_max: 500_000,
            forget_after_ms: 30 * 86_400_000,
        }
    }
}

impl fmt::Debug for Evaluator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("Evaluator");
        shown.field("devices", &self.devices.len()).field("series", &self.series);
        shown.field("now_ms", &self.now_ms).field("counts", &self.counts).finish_non_exhaustive()
    }
}

impl Evaluator {
    pub(crate) fn new(rules: Arc<RuleSet>, limits: Limits) -> Self {
        Self {
            rules,
            limits,
            planner: Planner::default(),
            places: HashMap::new(),
            devices: Vec::new(),
            sources: Vec::new(),
            wheel: Wheel::new(0),
            now_ms: 0,
            hold_ms: None,
            swept_ms: 0,
            series: 0,
            learned: 0,
            counts: Counts::default(),
            due: Vec::new(),
            joint: Vec::new(),
        }
    }

    /// What came of what it was given.
    pub(crate) fn counts(&self) -> &Counts {
        &self.counts
    }

    /// How many states of series there are; see [`Limits`].
    pub(crate) fn series(&self) -> usize {
        self.series
    }

    /// How many of them rules learn.
    pub(crate) fn learned(&self) -> usize {
        self.learned
    }

    /// How many devices are known.
    #[cfg(test)]
    pub(crate) fn devices(&self) -> usize {
        self.devices.len()
    }

    /// Takes an entry and its samples, which may be none: an entry is a sign of life. A sample that is earlier than
    /// the last one of its series is ignored.
    pub(crate) fn observe(
        &mut self,
        origin: &Origin<'_>,
        samples: &[Sample],
        edges: &mut dyn FnMut(Edge<'_>),
    ) {
        self.now_ms = self.now_ms.max(origin.now_ms);
        let Some(place) = self.device(origin, edges) else {
            self.counts.devices_refused += 1;
            return;
        };
        let source = self.source(origin.position);
        let Some(device) = usize::try_from(place).ok().and_then(|place| self.devices.get_mut(place)) else {
            return;
        };
        device.seen_ms = self.now_ms;
        device.seen_at = origin.position;
        let own = device.own_plan();
        let matches = if device.plan.streamed {
            self.planner.matches(&self.rules, origin.stream)
        } else {
            Matches::default()
        };
        let mut pass = Pass {
            rules: &self.rules,
            device,
            matches,
            own,
            origin,
            here: series::Here { position: origin.position, source, sources: &self.sources },
            series: &mut self.series,
            series_max: self.limits.series_max,
            learned: &mut self.learned,
            learned_max: self.limits.learned_max,
            counts: &mut self.counts,
            edges,
        };
        pass.alive(place, &mut self.wheel);
        pass.samples(samples, &mut self.joint);
    }

    /// Says who has been silent for too long, and forgets who has been for very long.
    pub(crate) fn advance(&mut self, now_ms: u64, edges: &mut dyn FnMut(Edge<'_>)) {
        self.now_ms = self.now_ms.max(now_ms);
        self.wheel.advance(self.now_ms, &mut self.due);
        let mut silent = Vec::new();
        for timer in self.due.drain(..) {
            let Kind::Deadman(deadman) = &self.rules.rule(timer.rule).kind else { continue };
            let device = usize::try_from(timer.device).ok().and_then(|place| self.devices.get_mut(place));
            let Some(device) = device else { continue };
            let seen_ms = device.seen_ms;
            let Some(State::Deadman { due_ms, silent: told }) = device.whole(timer.rule) else { continue };
            if *told || *due_ms != timer.due_ms {
                continue;
            }
            let held = self.hold_ms.map(|hold| hold.saturating_add(deadman.patience_ms.saturating_mul(2)));
            let due = seen_ms.saturating_add(deadman.patience_ms).max(held.unwrap_or_default());
            *due_ms = due;
            if due > self.now_ms {
                self.wheel.set(Timer { due_ms: due, ..timer });
            } else {
                *told = true;
                device.silent = device.silent.saturating_add(1);
                silent.push((due, Arc::clone(&device.key), timer));
            }
        }
        silent.sort_unstable_by(|one, two| (one.0, &one.1, one.2.rule).cmp(&(two.0, &two.1, two.2.rule)));
        for (due_ms, _, timer) in silent {
            let device = usize::try_from(timer.device).ok().and_then(|place| self.devices.get(place));
            let Some(device) = device else { continue };
            self.counts.evaluations += 1;
            let change = Change::Raised {
                severity: self.rules.rule(timer.rule).severity,
                threshold: None,
                score: None,
                episode: device.seen_at,
                started_ms: device.seen_ms,
            };
            edges(device.edge(timer.rule, None, change, due_ms));
        }
        self.forget();
    }

    /// Whether the condition of a rule holds, as the last edge about it said.
    pub(crate) fn is_raised(&self, subject: &Subject<'_>) -> bool {
        let place = self.places.get(subject.device).and_then(|place| usize::try_from(*place).ok());
        let Some(device) = place.and_then(|place| self.devices.get(place)) else { return false };
        match subject.metric {
            None => device.is_whole_raised(subject.rule),
            // A metric that has no place is read by no rule any more.
            Some(name) => {
                self.rules.metric(name).is_some_and(|metric| device.is_raised(subject.rule, metric))
            }
        }
    }

    /// The devices that are known, in no order.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.places.keys().map(|name| &**name)
    }

    /// When [`Self::advance`] should be called next; there is nothing to say before. It may find nothing then either.
    pub(crate) fn next_due_ms(&self) -> Option<u64> {
        self.wheel.next_ms()
    }

    /// The gateway was away, or the clock jumped: silence until now says nothing about devices. Each may be silent from
    /// here for twice the time that its rule allows.
    pub(crate) fn hold(&mut self, now_ms: u64) {
        self.now_ms = self.now_ms.max(now_ms);
        self.hold_ms = Some(self.now_ms);
    }

    /// Goes on with other rules. State is kept for rules that mean the same as before; what was raised by others is
    /// cleared. Edges name rules by their places in the set that is replaced.
    pub(crate) fn replace(&mut self, rules: Arc<RuleSet>, edges: &mut dyn FnMut(Edge<'_>)) {
        let old = std::mem::replace(&mut self.rules, rules);
        let same = |(_, rule): (u16, &super::Rule)| {
            let place = self.rules.find(&rule.id)?;
            (self.rules.rule(place).fingerprint == rule.fingerprint).then_some(place)
        };
        let kept: Vec<Option<u16>> = old.places().map(same).collect();
        let metrics: Vec<Option<u16>> = old.metrics().iter().map(|name| self.rules.metric(name)).collect();
        self.planner = Planner::default();
        self.wheel = Wheel::new(self.wheel.elapsed_ms());
        (self.series, self.learned) = (0, 0);
        let mut order: Vec<usize> = (0..self.devices.len()).collect();
        order.sort_unstable_by(|one, two| self.key(*one).cmp(&self.key(*two)));
        for place in order {
            let Some(device) = self.devices.get_mut(place) else { continue };
            let parts = device.parts();
            let raised = parts.raised();
            for angle in &mut device.angles {
                let facet = &angle.facet;
                let properties = [facet.tenant.as_deref(), facet.site.as_deref(), facet.class.as_deref()];
                let facet = self.planner.facet(&self.rules, properties);
                angle.plan = self.planner.plan_of(&self.rules, &facet, &device.key);
                angle.facet = facet;
            }
            device.plan = self.planner.union(&self.rules, &device.angles);
            device.fill(&self.rules, parts.renamed(&kept, &metrics));
            self.series += device.series();
            self.learned += device.learned();
            let still = device.parts().raised();
            let renamed = |rule: u16, metric: Option<u16>| {
                let rule = kept.get(usize::from(rule)).copied().flatten()?;
                let metric = match metric {
                    Some(metric) => Some(metrics.get(usize::from(metric)).copied().flatten()?),
                    None => None,
                };
                Some((rule, metric))
            };
            for (rule, metric) in raised {
                if !renamed(rule, metric).is_some_and(|new| still.contains(&new)) {
                    let name = metric.and_then(|metric| old.metric_name(metric));
                    edges(device.edge(rule, name, Change::Cleared, self.now_ms));
                }
            }
            self.set_timers(place);
        }
    }

    fn key(&self, place: usize) -> Option<&str> {
        self.devices.get(place).map(|device| &*device.key)
    }

    /// Sets the timers of a device that has states but no timers.
    fn set_timers(&mut self, place: usize) {
        let Some(device) = self.devices.get(place) else { return };
        for whole in &device.wholes {
            if let State::Deadman { due_ms, silent: false } = whole.state {
                let device = u32::try_from(place).unwrap_or(u32::MAX);
                self.wheel.set(Timer { due_ms, device, rule: whole.rule });
            }
        }
    }

    /// The device of an entry, with the plan that it has now. None if it is new and there are too many.
    fn device(&mut self, origin: &Origin<'_>, edges: &mut dyn FnMut(Edge<'_>)) -> Option<u32> {
        if let Some(place) = self.places.get(origin.device) {
            let place = *place;
            self.turn(usize::try_from(place).ok()?, origin, edges);
            return Some(place);
        }
        if self.devices.len() >= self.limits.devices_max {
            return None;
        }
        let place = u32::try_from(self.devices.len()).ok()?;
        let angle = self.angle(origin);
        let plan = Arc::clone(&angle.plan);
        let key: Arc<str> = origin.device.into();
        self.places.insert(Arc::clone(&key), place);
        self.devices.push(Device::new(key, vec![angle], plan, origin.position));
        Some(place)
    }

    fn angle(&mut self, origin: &Origin<'_>) -> Angle {
        let facet = self.planner.facet(&self.rules, [origin.tenant, origin.site, origin.class]);
        let plan = self.planner.plan_of(&self.rules, &facet, origin.device);
        Angle { facet, plan, seen_ms: self.now_ms }
    }

    /// Puts the properties of an entry first among those of its device. Properties that were not seen for a day, or are
    /// too many, are forgotten: what rules had raised that fit only them is cleared.
    fn turn(&mut self, place: usize, origin: &Origin<'_>, edges: &mut dyn FnMut(Edge<'_>)) {
        let Some(device) = self.devices.get_mut(place) else { return };
        let known = device.angles.iter().position(|angle| angle.facet.is_of(origin));
        if let Some(known) = known {
            if let Some(angles) = device.angles.get_mut(..=known) {
                angles.rotate_right(1);
            }
            if let Some(angle) = device.angles.first_mut() {
                angle.seen_ms = self.now_ms;
            }
        }
        let oldest_ms = device.angles.last().map_or(self.now_ms, |angle| angle.seen_ms);
        if known.is_some() && self.now_ms.saturating_sub(oldest_ms) <= ANGLE_MS_MAX {
            return;
        }
        let mut angles = std::mem::take(&mut device.angles);
        if known.is_none() {
            let angle = self.angle(origin);
            angles.insert(0, angle);
        }
        angles.truncate(ANGLES_MAX);
        angles.retain(|angle| self.now_ms.saturating_sub(angle.seen_ms) <= ANGLE_MS_MAX);
        let plan = self.planner.union(&self.rules, &angles);
        let Some(device) = self.devices.get_mut(place) else { return };
        device.angles = angles;
        if Arc::ptr_eq(&plan, &device.plan) {
            return;
        }
        let parts = device.parts();
        for (rule, metric) in parts.raised().into_iter().filter(|(rule, _)| !plan.has(*rule)) {
            let name = metric.and_then(|metric| self.rules.metric_name(metric));
            edges(device.edge(rule, name, Change::Cleared, self.now_ms));
        }
        self.series -= device.series();
        self.learned -= device.learned();
        device.plan = plan;
        device.fill(&self.rules, parts);
        self.series += device.series();
        self.learned += device.learned();
    }

    /// The place of an entry's log, epoch and lane. There are few: one for each time that the gateway was started.
    fn source(&mut self, position: Position) -> u32 {
        let same = |known: &Position| {
            (known.log, known.epoch, known.lane) == (position.log, position.epoch, position.lane)
        };
        let place = self.sources.iter().rposition(same).unwrap_or_else(|| {
            self.sources.push(position);
            self.sources.len() - 1
        });
        u32::try_from(place).unwrap_or(u32::MAX)
    }
}

impl Device {
    /// An edge that no entry of the device shows.
    fn edge<'e>(&'e self, rule: u16, metric: Option<&'e str>, change: Change, at_ms: u64) -> Edge<'e> {
        let facet = self.facet();
        Edge {
            subject: Subject { rule, device: &self.key, metric },
            change,
            observed: None,
            at_ms,
            tenant: facet.and_then(|facet| facet.tenant.as_deref()),
            site: facet.and_then(|facet| facet.site.as_deref()),
            class: facet.and_then(|facet| facet.class.as_deref()),
            stream: None,
            traceparent: None,
        }
    }
}

#[cfg(test)]
impl Evaluator {
    /// How many timers are set.
    pub(super) fn timers(&self) -> usize {
        self.wheel.len()
    }
}

/// Bytes of a state, and of the series that it belongs to.
#[cfg(test)]
pub(super) const fn state_bytes() -> (usize, usize) {
    (size_of::<series::Entry>(), size_of::<device::Head>())
}

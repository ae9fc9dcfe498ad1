//! One entry and its samples, on their way past the rules of their device.

use std::sync::Arc;

use super::super::RuleSet;
use super::super::definition::Kind;
use super::super::expression::NAMES_MAX;
use super::Counts;
use super::course::{Moment, step};
use super::device::{Device, Known, State, last};
use super::plan::{Matches, Plan, Step};
use super::series::{Entry, Here, Shown};
use super::wheel::{Timer, Wheel};
use crate::alerts::nouns::{Change, Edge, Origin, Sample, Subject};

/// An entry, its device, and what may be changed on the way.
pub(super) struct Pass<'p, 'o> {
    pub(super) rules: &'p RuleSet,
    pub(super) device: &'p mut Device,
    pub(super) matches: Matches,
    /// The rules that fit the entry, where they are not all rules of the device.
    pub(super) own: Option<Arc<Plan>>,
    pub(super) origin: &'p Origin<'o>,
    pub(super) here: Here<'p>,
    pub(super) series: &'p mut usize,
    pub(super) series_max: usize,
    /// Series that rules learn, and how many there may be.
    pub(super) learned: &'p mut usize,
    pub(super) learned_max: usize,
    pub(super) counts: &'p mut Counts,
    pub(super) edges: &'p mut dyn FnMut(Edge<'_>),
}

impl Pass<'_, '_> {
    /// The device lives: it is silent no more, and watched from now on by the rules that its entries select.
    pub(super) fn alive(&mut self, device: u32, wheel: &mut Wheel) {
        let now_ms = self.device.seen_ms;
        if self.device.silent > 0 {
            self.device.silent = 0;
            for place in 0..self.device.wholes.len() {
                let Some(whole) = self.device.wholes.get_mut(place) else { break };
                let rule = whole.rule;
                let State::Deadman { due_ms, silent: silent @ true } = &mut whole.state else { continue };
                *silent = false;
                *due_ms = due(self.rules, rule, now_ms);
                wheel.set(Timer { due_ms: *due_ms, device, rule });
                self.tell(rule, None, Shown { change: Change::Cleared, observed: None }, now_ms);
            }
        }
        for place in 0..self.device.plan.deadmen.len() {
            let Some(step) = self.device.plan.deadmen.get(place).copied() else { break };
            if self.device.has_whole(step.rule) || !fits(step, &self.matches, self.own.as_deref()) {
                continue;
            }
            if self.is_full(1) {
                continue;
            }
            *self.series += 1;
            let due_ms = due(self.rules, step.rule, now_ms);
            self.device.add_whole(step.rule, State::Deadman { due_ms, silent: false });
            wheel.set(Timer { due_ms, device, rule: step.rule });
        }
    }

    /// Evaluates samples one by one, and rules about several metrics after all samples of the same time.
    pub(super) fn samples(&mut self, samples: &[Sample], joint: &mut Vec<u16>) {
        joint.clear();
        let mut at_ms = 0;
        for sample in samples {
            if sample.at_ms != at_ms && !joint.is_empty() {
                self.joint(joint, at_ms);
            }
            at_ms = sample.at_ms;
            self.sample(sample, joint);
        }
        self.joint(joint, at_ms);
    }

    fn sample(&mut self, sample: &Sample, joint: &mut Vec<u16>) {
        let Some(reading) = self.device.plan.reading(sample.metric).copied() else { return };
        let found = self.device.heads.binary_search_by_key(&sample.metric, |head| head.metric);
        let start = match found.ok().and_then(|place| self.device.heads.get_mut(place)) {
            Some(head) if sample.at_ms < head.last_ms => {
                self.counts.late += 1;
                return;
            }
            Some(head) => {
                head.last_ms = sample.at_ms;
                head.start
            }
            None => {
                let states = self.device.plan.steps(&reading).len();
                if self.is_full(states + usize::from(reading.kept)) {
                    return;
                }
                *self.series += states;
                self.device.begin(self.rules, sample.metric, sample.at_ms)
            }
        };
        if reading.kept {
            let known = Known { metric: sample.metric, value: sample.value, at_ms: sample.at_ms };
            *self.series += usize::from(self.device.keep(known));
            for step in self.device.plan.joint(&reading) {
                if fits(*step, &self.matches, self.own.as_deref()) {
                    joint.push(step.rule);
                }
            }
        }
        let start = usize::try_from(start).unwrap_or(usize::MAX);
        let Device { plan, entries, known, .. } = &mut *self.device;
        let steps = plan.steps(&reading);
        for (step, entry) in steps.iter().zip(entries.get_mut(start..).unwrap_or_default()) {
            if !fits(*step, &self.matches, self.own.as_deref()) {
                continue;
            }
            self.counts.evaluations += 1;
            let value = |metric| last(known, metric).map(|known| known.value);
            let kind = &self.rules.rule(step.rule).kind;
            let shown = match (entry, kind) {
                (Entry::Learned(watched), Kind::Learned { learned, .. }) => {
                    if !watched.has_begun() {
                        if *self.learned >= self.learned_max {
                            self.counts.learned_refused += 1;
                            continue;
                        }
                        *self.learned += 1;
                        watched.begin();
                    }
                    watched.take(learned, sample, &self.here, self.counts)
                }
                (entry, kind) => entry.take(kind, sample, &self.here, value),
            };
            if let Some(shown) = shown {
                let metric = self.rules.metric_name(sample.metric);
                (self.edges)(edge(self.origin, step.rule, metric, shown, sample.at_ms));
            }
        }
    }

    /// Evaluates rules about several metrics with what is known now.
    fn joint(&mut self, joint: &mut Vec<u16>, at_ms: u64) {
        // A rule is there for each of its metrics that came.
        joint.sort_unstable();
        joint.dedup();
        for rule in joint.drain(..) {
            let Kind::Expression { watch, expression } = &self.rules.rule(rule).kind else { continue };
            if !self.device.has_whole(rule) {
                if self.is_full(1) {
                    continue;
                }
                *self.series += 1;
                self.device.add_whole(rule, State::Expression { active: None, last_ms: 0 });
            }
            let Some(State::Expression { last_ms, .. }) = self.device.whole(rule) else { continue };
            // Samples of different metrics need not come in the order of their times.
            *last_ms = at_ms.max(*last_ms);
            let at_ms = *last_ms;
            let mut values = [f64::NAN; NAMES_MAX];
            let mut complete = true;
            for (metric, value) in expression.metrics.iter().zip(&mut values) {
                match self.device.last(*metric) {
                    Some(known) if at_ms.saturating_sub(known.at_ms) <= expression.max_staleness_ms => {
                        *value = known.value;
                    }
                    _ => complete = false,
                }
            }
            self.counts.evaluations += 1;
            let holds = if complete { expression.holds(&values) } else { Some(false) };
            self.counts.undecided += u64::from(holds.is_none());
            let value = if holds == Some(true) { 1.0 } else { 0.0 };
            let moment = Moment { at_ms, episode: self.here.position, started_ms: at_ms };
            let Some(State::Expression { active, .. }) = self.device.whole(rule) else { continue };
            if let Some(change) = step(watch, active, value, &moment) {
                self.tell(rule, None, Shown { change, observed: None }, at_ms);
            }
        }
    }

    /// Whether there is no room for so many more states; counted if so.
    fn is_full(&mut self, states: usize) -> bool {
        let full = *self.series + states > self.series_max;
        self.counts.series_refused += u64::from(full);
        full
    }

    fn tell(&mut self, rule: u16, metric: Option<&str>, shown: Shown, at_ms: u64) {
        (self.edges)(edge(self.origin, rule, metric, shown, at_ms));
    }
}

/// Whether a rule of the device is about an entry.
fn fits(step: Step, matches: &Matches, own: Option<&Plan>) -> bool {
    step.fits(matches) && own.is_none_or(|own| own.has(step.rule))
}

/// An edge that an entry shows.
fn edge<'e>(
    origin: &'e Origin<'_>,
    rule: u16,
    metric: Option<&'e str>,
    shown: Shown,
    at_ms: u64,
) -> Edge<'e> {
    Edge {
        subject: Subject { rule, device: origin.device, metric },
        change: shown.change,
        observed: shown.observed,
        at_ms,
        tenant: origin.tenant,
        site: origin.site,
        class: origin.class,
        stream: origin.stream,
        traceparent: origin.traceparent,
    }
}

/// When a device that was just heard will have been silent for too long.
fn due(rules: &RuleSet, rule: u16, now_ms: u64) -> u64 {
    match &rules.rule(rule).kind {
        Kind::Deadman(deadman) => now_ms.saturating_add(deadman.patience_ms),
        _ => u64::MAX,
    }
}

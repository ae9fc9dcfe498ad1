//! What is remembered of one device.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::super::RuleSet;
use super::course::{Active, told};
use super::plan::{Facet, Plan};
use super::series::Entry;
use crate::alerts::nouns::Position;

/// A device and its series.
#[derive(Debug)]
pub(super) struct Device {
    pub(super) key: Arc<str>,
    /// The properties under which it speaks, those of the last entry first; at least one. A device that publishes to
    /// topics of several templates has several.
    pub(super) angles: Vec<Angle>,
    /// The rules under all of them.
    pub(super) plan: Arc<Plan>,
    /// The last entry, and the stage's clock at it.
    pub(super) seen_at: Position,
    pub(super) seen_ms: u64,
    /// By metric.
    pub(super) heads: Vec<Head>,
    /// For each head the states of its rules, in the order of the plan.
    pub(super) entries: Vec<Entry>,
    /// Last values that other metrics' rules read, by metric.
    pub(super) known: Vec<Known>,
    /// States of rules about the device as a whole, by rule.
    pub(super) wholes: Vec<Whole>,
    /// How many rules say that it is silent.
    pub(super) silent: u16,
}

/// Properties of a device, and the rules that fit them.
#[derive(Debug, Clone)]
pub(super) struct Angle {
    pub(super) facet: Arc<Facet>,
    pub(super) plan: Arc<Plan>,
    /// When it last spoke under them, by the stage's clock.
    pub(super) seen_ms: u64,
}

/// A series.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Head {
    /// Of the last sample; others must not be earlier.
    pub(super) last_ms: u64,
    /// Where its states begin.
    pub(super) start: u32,
    pub(super) metric: u16,
}

/// The last value of a metric.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Known {
    pub(super) metric: u16,
    pub(super) value: f64,
    pub(super) at_ms: u64,
}

/// The state of a rule about the whole device.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Whole {
    pub(super) rule: u16,
    pub(super) state: State,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum State {
    Expression {
        active: Option<Box<Active>>,
        /// Of the last evaluation.
        last_ms: u64,
    },
    Deadman {
        /// The timer that is set; any other is none of this rule's.
        due_ms: u64,
        silent: bool,
    },
}

/// Everything remembered of a device's series, apart from the places that a plan gives them.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Parts {
    /// Metrics and the times of their last samples, by metric.
    pub(super) heads: Vec<(u16, u64)>,
    /// By metric and rule.
    pub(super) entries: BTreeMap<(u16, u16), Entry>,
    pub(super) known: Vec<Known>,
    pub(super) wholes: Vec<Whole>,
}

impl Device {
    pub(super) fn new(key: Arc<str>, angles: Vec<Angle>, plan: Arc<Plan>, seen_at: Position) -> Self {
        let (heads, entries, known, wholes) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        Self { key, angles, plan, seen_at, seen_ms: 0, heads, entries, known, wholes, silent: 0 }
    }

    /// The properties of the last entry.
    pub(super) fn facet(&self) -> Option<&Facet> {
        self.angles.first().map(|angle| &*angle.facet)
    }

    /// The rules that fit the last entry, where they are not all rules of the device.
    pub(super) fn own_plan(&self) -> Option<Arc<Plan>> {
        let angle = self.angles.first().filter(|_| self.angles.len() > 1);
        angle.map(|angle| Arc::clone(&angle.plan))
    }

    /// How much it counts towards the bound of series.
    pub(super) fn series(&self) -> usize {
        self.entries.len() + self.wholes.len() + self.known.len()
    }

    /// How many series rules have learned of it.
    pub(super) fn learned(&self) -> usize {
        self.entries.iter().filter(|entry| entry.is_learned()).count()
    }

    pub(super) fn last(&self, metric: u16) -> Option<&Known> {
        last(&self.known, metric)
    }

    /// Remembers the last value of a metric. Returns whether it is the first.
    pub(super) fn keep(&mut self, known: Known) -> bool {
        match self.known.binary_search_by_key(&known.metric, |known| known.metric) {
            Ok(place) => {
                if let Some(old) = self.known.get_mut(place) {
                    *old = known;
                }
                false
            }
            Err(place) => {
                self.known.insert(place, known);
                true
            }
        }
    }

    pub(super) fn has_whole(&self, rule: u16) -> bool {
        self.wholes.binary_search_by_key(&rule, |whole| whole.rule).is_ok()
    }

    pub(super) fn whole(&mut self, rule: u16) -> Option<&mut State> {
        let place = self.wholes.binary_search_by_key(&rule, |whole| whole.rule).ok()?;
        self.wholes.get_mut(place).map(|whole| &mut whole.state)
    }

    pub(super) fn add_whole(&mut self, rule: u16, state: State) {
        let place = self.wholes.partition_point(|whole| whole.rule < rule);
        self.wholes.insert(place, Whole { rule, state });
    }

    /// Makes room for a series of which this is the first sample.
    pub(super) fn begin(&mut self, rules: &RuleSet, metric: u16, last_ms: u64) -> u32 {
        let start = u32::try_from(self.entries.len()).unwrap_or(u32::MAX);
        if let Some(reading) = self.plan.reading(metric) {
            let new = |rule| Entry::new(&rules.rule(rule).kind);
            self.entries.extend(self.plan.steps(reading).iter().filter_map(|step| new(step.rule)));
        }
        let place = self.heads.partition_point(|head| head.metric < metric);
        self.heads.insert(place, Head { last_ms, start, metric });
        start
    }

    /// Whether a rule about a series of a metric has raised it.
    pub(super) fn is_raised(&self, rule: u16, metric: u16) -> bool {
        let found = || {
            let head = self.heads.get(self.heads.binary_search_by_key(&metric, |head| head.metric).ok()?)?;
            let steps = self.plan.steps(self.plan.reading(metric)?);
            let place = steps.binary_search_by_key(&rule, |step| step.rule).ok()?;
            Some(self.entries.get(usize::try_from(head.start).ok()? + place)?.is_raised())
        };
        found().unwrap_or_default()
    }

    /// Whether a rule about the device as a whole has raised it.
    pub(super) fn is_whole_raised(&self, rule: u16) -> bool {
        let place = self.wholes.binary_search_by_key(&rule, |whole| whole.rule).ok();
        place.and_then(|place| self.wholes.get(place)).is_some_and(|whole| whole.state.is_raised())
    }

    /// Whether something is raised about it, or a rule waits for it to be silent.
    pub(super) fn is_awaited(&self) -> bool {
        let deadman = |whole: &Whole| matches!(whole.state, State::Deadman { .. });
        self.wholes.iter().any(|whole| deadman(whole) || whole.state.is_raised())
            || self.entries.iter().any(Entry::is_raised)
    }

    /// Every state of a series by its metric and rule, in that order.
    pub(super) fn states(&self) -> impl Iterator<Item = ((u16, u16), &Entry)> {
        self.heads.iter().flat_map(|head| {
            let steps = self.plan.reading(head.metric).map(|reading| self.plan.steps(reading));
            let start = usize::try_from(head.start).unwrap_or(usize::MAX);
            let states = self.entries.get(start..).unwrap_or_default();
            let steps = steps.unwrap_or_default().iter().zip(states);
            steps.map(|(step, entry)| ((head.metric, step.rule), entry))
        })
    }

    /// Everything remembered, by the names that the plan of the device has for it.
    pub(super) fn parts(&self) -> Parts {
        Parts {
            heads: self.heads.iter().map(|head| (head.metric, head.last_ms)).collect(),
            entries: self.states().map(|(place, entry)| (place, entry.clone())).collect(),
            known: self.known.clone(),
            wholes: self.wholes.clone(),
        }
    }

    /// Takes over what the plan of the device has a use for. Metrics and rules are those of `rules`.
    pub(super) fn fill(&mut self, rules: &RuleSet, parts: Parts) {
        let Parts { mut heads, mut entries, known, mut wholes } = parts;
        heads.sort_unstable();
        self.heads.clear();
        self.entries.clear();
        for (metric, last_ms) in heads {
            let Some(reading) = self.plan.reading(metric).copied() else { continue };
            let start = u32::try_from(self.entries.len()).unwrap_or(u32::MAX);
            self.heads.push(Head { last_ms, start, metric });
            for step in self.plan.steps(&reading) {
                let entry = entries.remove(&(metric, step.rule));
                self.entries.extend(entry.or_else(|| Entry::new(&rules.rule(step.rule).kind)));
            }
        }
        wholes.retain(|whole| self.plan.has(whole.rule));
        wholes.sort_by_key(|whole| whole.rule);
        let silent = wholes.iter().filter(|whole| matches!(whole.state, State::Deadman { silent: true, .. }));
        self.silent = u16::try_from(silent.count()).unwrap_or(u16::MAX);
        self.wholes = wholes;
        self.known = known;
        self.known.retain(|known| self.plan.reading(known.metric).is_some_and(|reading| reading.kept));
        self.known.sort_by_key(|known| known.metric);
    }
}

impl Parts {
    /// The same under other places of rules and metrics; without what has none.
    pub(super) fn renamed(self, rules: &[Option<u16>], metrics: &[Option<u16>]) -> Self {
        let rule = |old: u16| rules.get(usize::from(old)).copied().flatten();
        let metric = |old: u16| metrics.get(usize::from(old)).copied().flatten();
        let Self { heads, entries, known, wholes } = self;
        Self {
            heads: heads.into_iter().filter_map(|(old, last_ms)| Some((metric(old)?, last_ms))).collect(),
            entries: entries
                .into_iter()
                .filter_map(|((about, by), entry)| Some(((metric(about)?, rule(by)?), entry)))
                .collect(),
            known: known
                .into_iter()
                .filter_map(|known| Some(Known { metric: metric(known.metric)?, ..known }))
                .collect(),
            wholes: wholes
                .into_iter()
                .filter_map(|whole| Some(Whole { rule: rule(whole.rule)?, ..whole }))
                .collect(),
        }
    }

    /// Every rule, and metric where it is about one, whose condition is raised, in that order.
    pub(super) fn raised(&self) -> Vec<(u16, Option<u16>)> {
        let entries = self.entries.iter().filter(|(_, entry)| entry.is_raised());
        let mut raised: Vec<_> = entries.map(|((metric, rule), _)| (*rule, Some(*metric))).collect();
        let wholes = self.wholes.iter().filter(|whole| whole.state.is_raised());
        raised.extend(wholes.map(|whole| (whole.rule, None)));
        raised.sort_unstable();
        raised
    }
}

pub(super) fn last(known: &[Known], metric: u16) -> Option<&Known> {
    known.get(known.binary_search_by_key(&metric, |known| known.metric).ok()?)
}

impl State {
    fn is_raised(&self) -> bool {
        match self {
            Self::Expression { active, .. } => told(active.as_deref()),
            Self::Deadman { silent, .. } => *silent,
        }
    }
}

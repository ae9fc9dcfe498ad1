//! Which rules a device has: found by its texts once, and then known.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use super::super::RuleSet;
use super::super::definition::Kind;
use super::device::Angle;
use crate::alerts::nouns::Origin;

/// Names of streams whose matches are remembered, at most; then all are forgotten.
const STREAMS_MAX: usize = 1_024;

/// Properties that many devices share, and the rules that fit them.
#[derive(Debug)]
pub(super) struct Facet {
    pub(super) tenant: Option<Box<str>>,
    pub(super) site: Option<Box<str>>,
    pub(super) class: Option<Box<str>>,
    /// Rules that ask for no device.
    every: Vec<u16>,
    /// Rules that name devices in full.
    named: HashMap<String, Vec<u16>>,
    /// Rules that have patterns for devices.
    patterned: Vec<u16>,
    /// The plan of devices that nothing more is asked for.
    plain: Arc<Plan>,
}

/// The rules of a device, by what makes them be evaluated.
#[derive(Debug, Default)]
pub(super) struct Plan {
    /// All of them, ascending.
    pub(super) rules: Box<[u16]>,
    /// By metric.
    pub(super) metrics: Box<[Reading]>,
    /// Rules about single series, by metric and rule.
    steps: Box<[Step]>,
    /// Rules about several metrics, by metric and rule.
    joint: Box<[Step]>,
    /// Rules about the silence of the device.
    pub(super) deadmen: Box<[Step]>,
    /// Whether any rule asks for a stream.
    pub(super) streamed: bool,
}

/// What is done with a sample of a metric.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reading {
    pub(super) metric: u16,
    /// Whether its last value is kept for rules about several metrics.
    pub(super) kept: bool,
    steps: (u32, u32),
    joint: (u32, u32),
}

/// A rule, and the stream that it asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Step {
    pub(super) rule: u16,
    /// The place of its patterns among those of the set.
    stream: Option<u16>,
}

/// Which patterns for streams an entry's stream matches.
#[derive(Debug, Clone, Default)]
pub(super) struct Matches(Option<Arc<[bool]>>);

/// Finds plans and remembers them. What is remembered never shows in what comes out.
#[derive(Debug, Default)]
pub(super) struct Planner {
    facets: BTreeMap<[Option<Box<str>>; 3], Arc<Facet>>,
    plans: HashMap<Box<[u16]>, Arc<Plan>>,
    streams: HashMap<Box<str>, Arc<[bool]>>,
    /// At so many, those that no device has any more are forgotten.
    facets_full: usize,
    plans_full: usize,
}

impl Facet {
    pub(super) fn is_of(&self, origin: &Origin<'_>) -> bool {
        self.tenant.as_deref() == origin.tenant
            && self.site.as_deref() == origin.site
            && self.class.as_deref() == origin.class
    }
}

impl Plan {
    fn new(rules: &RuleSet, places: &[u16]) -> Self {
        let mut steps = Vec::new();
        let mut joint = Vec::new();
        let mut deadmen = Vec::new();
        let mut kept = BTreeSet::new();
        for &rule in places {
            let step = Step { rule, stream: rules.stream_of(rule) };
            let definition = rules.rule(rule);
            definition.kind.each_kept(&mut |metric| {
                kept.insert(metric);
            });
            match &definition.kind {
                Kind::Deadman(_) => deadmen.push(step),
                Kind::Expression { expression, .. } => {
                    joint.extend(expression.metrics.iter().map(|metric| (*metric, step)));
                }
                Kind::Threshold { .. }
                | Kind::Rate { .. }
                | Kind::Stuck { .. }
                | Kind::Drift { .. }
                | Kind::Learned { .. } => {
                    steps.extend(definition.metrics().iter().map(|metric| (*metric, step)));
                }
            }
        }
        steps.sort_by_key(|(metric, step)| (*metric, step.rule));
        joint.sort_by_key(|(metric, step)| (*metric, step.rule));
        let mut metrics: Vec<u16> =
            steps.iter().chain(&joint).map(|(metric, _)| *metric).chain(kept.iter().copied()).collect();
        metrics.sort_unstable();
        metrics.dedup();
        let range = |list: &[(u16, Step)], metric: u16| {
            let from = list.partition_point(|(other, _)| *other < metric);
            let to = list.partition_point(|(other, _)| *other <= metric);
            (u32::try_from(from).unwrap_or_default(), u32::try_from(to).unwrap_or_default())
        };
        let reading = |metric: &u16| Reading {
            metric: *metric,
            kept: kept.contains(metric),
            steps: range(&steps, *metric),
            joint: range(&joint, *metric),
        };
        Self {
            rules: places.into(),
            metrics: metrics.iter().map(reading).collect(),
            streamed: places.iter().any(|rule| rules.stream_of(*rule).is_some()),
            steps: steps.into_iter().map(|(_, step)| step).collect(),
            joint: joint.into_iter().map(|(_, step)| step).collect(),
            deadmen: deadmen.into(),
        }
    }

    pub(super) fn reading(&self, metric: u16) -> Option<&Reading> {
        let place = self.metrics.binary_search_by_key(&metric, |reading| reading.metric).ok()?;
        self.metrics.get(place)
    }

    /// Rules about the series of a metric, ascending.
    pub(super) fn steps(&self, reading: &Reading) -> &[Step] {
        slice(&self.steps, reading.steps)
    }

    /// Rules about several metrics of which this is one, ascending.
    pub(super) fn joint(&self, reading: &Reading) -> &[Step] {
        slice(&self.joint, reading.joint)
    }

    pub(super) fn has(&self, rule: u16) -> bool {
        self.rules.binary_search(&rule).is_ok()
    }
}

fn slice(steps: &[Step], (from, to): (u32, u32)) -> &[Step] {
    let range = usize::try_from(from).unwrap_or_default()..usize::try_from(to).unwrap_or_default();
    steps.get(range).unwrap_or_default()
}

impl Step {
    pub(super) fn fits(self, matches: &Matches) -> bool {
        let Some(stream) = self.stream else { return true };
        let matches = matches.0.as_ref().and_then(|matches| matches.get(usize::from(stream)));
        matches.copied().unwrap_or_default()
    }
}

impl Planner {
    /// What devices with these properties have in common.
    pub(super) fn facet(&mut self, rules: &RuleSet, properties: [Option<&str>; 3]) -> Arc<Facet> {
        let properties = properties.map(|property| property.map(Box::from));
        if let Some(facet) = self.facets.get(&properties) {
            return Arc::clone(facet);
        }
        let [tenant, site, class] = properties.clone();
        let (mut every, mut patterned) = (Vec::new(), Vec::new());
        let mut named: HashMap<String, Vec<u16>> = HashMap::new();
        for (place, rule) in rules.places() {
            let selector = &rule.selector;
            let fits = selector.tenant.matches(tenant.as_deref())
                && selector.site.matches(site.as_deref())
                && selector.class.matches(class.as_deref());
            if !fits {
                continue;
            }
            if selector.device.is_anything() {
                every.push(place);
            } else if let Some(names) = selector.device.names() {
                for name in names {
                    named.entry(name).or_default().push(place);
                }
            } else {
                patterned.push(place);
            }
        }
        let plain = self.plan(rules, &every);
        let facet = Arc::new(Facet { tenant, site, class, every, named, patterned, plain });
        if self.facets.len() >= self.facets_full {
            self.facets.retain(|_, facet| Arc::strong_count(facet) > 1);
            self.facets_full = self.facets.len() * 2 + 1_024;
        }
        self.facets.insert(properties, Arc::clone(&facet));
        facet
    }

    /// The rules of a device with these properties.
    pub(super) fn plan_of(&mut self, rules: &RuleSet, facet: &Facet, device: &str) -> Arc<Plan> {
        let mut more: Vec<u16> = facet.named.get(device).cloned().unwrap_or_default();
        let fits = |place: &&u16| rules.rule(**place).selector.device.matches(Some(device));
        more.extend(facet.patterned.iter().filter(fits));
        if more.is_empty() {
            return Arc::clone(&facet.plain);
        }
        more.extend(&facet.every);
        more.sort_unstable();
        more.dedup();
        self.plan(rules, &more)
    }

    /// The rules of all these plans.
    pub(super) fn union(&mut self, rules: &RuleSet, angles: &[Angle]) -> Arc<Plan> {
        if let [only] = angles {
            return Arc::clone(&only.plan);
        }
        let places: BTreeSet<u16> =
            angles.iter().flat_map(|angle| angle.plan.rules.iter().copied()).collect();
        self.plan(rules, &places.into_iter().collect::<Vec<_>>())
    }

    fn plan(&mut self, rules: &RuleSet, places: &[u16]) -> Arc<Plan> {
        if let Some(plan) = self.plans.get(places) {
            return Arc::clone(plan);
        }
        if self.plans.len() >= self.plans_full {
            self.plans.retain(|_, plan| Arc::strong_count(plan) > 1);
            self.plans_full = self.plans.len() * 2 + 1_024;
        }
        let plan = Arc::new(Plan::new(rules, places));
        self.plans.insert(places.into(), Arc::clone(&plan));
        plan
    }

    /// Which patterns for streams this one matches.
    pub(super) fn matches(&mut self, rules: &RuleSet, stream: Option<&str>) -> Matches {
        let Some(stream) = stream else { return Matches::default() };
        if let Some(matches) = self.streams.get(stream) {
            return Matches(Some(Arc::clone(matches)));
        }
        if self.streams.len() >= STREAMS_MAX {
            self.streams.clear();
        }
        let matches: Arc<[bool]> =
            rules.streams().iter().map(|patterns| patterns.matches(Some(stream))).collect();
        self.streams.insert(stream.into(), Arc::clone(&matches));
        Matches(Some(matches))
    }
}

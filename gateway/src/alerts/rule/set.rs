//! All rules of a file.

use std::collections::BTreeMap;

use super::definition::Rule;
use super::selector::Patterns;

/// Rules, compiled and immutable.
#[derive(Debug, Default)]
pub(crate) struct RuleSet {
    rules: Box<[Rule]>,
    metrics: Box<[Box<str>]>,
    ids: BTreeMap<Box<str>, u16>,
    /// Different patterns that rules have for streams.
    streams: Vec<Patterns>,
    /// The place of each rule's in it.
    stream_of: Box<[Option<u16>]>,
}

impl RuleSet {
    pub(super) fn new(rules: Vec<Rule>, metrics: Vec<Box<str>>) -> Self {
        let id = |(place, rule): (usize, &Rule)| Some((rule.id.clone(), u16::try_from(place).ok()?));
        let ids = rules.iter().enumerate().filter_map(id).collect();
        let mut streams: Vec<Patterns> = Vec::new();
        let mut known = BTreeMap::new();
        let mut stream_of = Vec::with_capacity(rules.len());
        for rule in &rules {
            let patterns = &rule.selector.stream;
            stream_of.push(if patterns.is_anything() {
                None
            } else {
                let place = known.entry(patterns.texts().collect::<Vec<_>>()).or_insert_with(|| {
                    streams.push(patterns.clone());
                    streams.len() - 1
                });
                u16::try_from(*place).ok()
            });
        }
        let (rules, stream_of) = (rules.into(), stream_of.into());
        Self { rules, metrics: metrics.into(), ids, streams, stream_of }
    }

    /// Every metric that a rule reads, sorted, each once. Its place in the list is what samples call it by.
    pub(crate) fn metrics(&self) -> &[Box<str>] {
        &self.metrics
    }

    /// The rule at a place of the set.
    ///
    /// # Panics
    ///
    /// If there is none: places come from this set.
    pub(crate) fn rule(&self, place: u16) -> &Rule {
        &self.rules[usize::from(place)]
    }

    /// The place of the rule with this id.
    pub(crate) fn find(&self, id: &str) -> Option<u16> {
        self.ids.get(id).copied()
    }

    /// How many rules there are.
    pub(crate) fn len(&self) -> usize {
        self.rules.len()
    }

    /// Every rule with its place.
    pub(crate) fn places(&self) -> impl Iterator<Item = (u16, &Rule)> {
        (0..=u16::MAX).zip(&self.rules)
    }

    pub(super) fn metric_name(&self, metric: u16) -> Option<&str> {
        self.metrics.get(usize::from(metric)).map(|name| &**name)
    }

    pub(super) fn metric(&self, name: &str) -> Option<u16> {
        let place = self.metrics.binary_search_by(|known| (**known).cmp(name)).ok()?;
        u16::try_from(place).ok()
    }

    /// Different patterns that rules have for streams.
    pub(super) fn streams(&self) -> &[Patterns] {
        &self.streams
    }

    /// The place of a rule's patterns for streams, if it has any.
    pub(super) fn stream_of(&self, rule: u16) -> Option<u16> {
        self.stream_of.get(usize::from(rule)).copied().flatten()
    }
}

//! What the births of an edge node told: the names behind its aliases, for the node itself and for each device behind it.

use std::collections::{BTreeMap, HashMap};

use super::payload::Metric;

/// The metrics that rules want, by name; the number is the place in the list.
#[derive(Debug, Default)]
pub(super) struct Wanted(HashMap<Box<str>, u16>);

/// The metrics of one birth: of the node, or of a device.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Scope {
    /// Sorted by name, once each.
    metrics: Vec<Known>,
    /// Places in `metrics` by alias, sorted, once each.
    aliases: Vec<(u64, u32)>,
    /// Whether messages were missing since, so that an alias may mean something else by now.
    pub(super) is_shaken: bool,
}

/// A metric that a birth named.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Known {
    pub(super) name: Box<str>,
    pub(super) datatype: u32,
    /// The metrics that it is for rules: under its name, and under its device's and its own.
    pub(super) wanted: [Option<u16>; 2],
}

/// What a known metric takes beside its name, roughly, in bytes.
const KNOWN_BYTES: usize = 64;
/// What a scope takes beside its metrics, roughly, in bytes.
const SCOPE_BYTES: usize = 128;

// === impl Wanted ===

impl Wanted {
    pub(super) fn new(metrics: &[Box<str>]) -> Self {
        Self((0..u16::MAX).zip(metrics).map(|(metric, name)| (name.clone(), metric)).collect())
    }

    /// Of a metric under its name, and under `device/name`.
    pub(super) fn places(&self, device: Option<&str>, name: &str) -> [Option<u16>; 2] {
        let place = |name: &str| self.0.get(name).copied();
        [place(name), device.and_then(|device| place(&format!("{device}/{name}")))]
    }
}

// === impl Scope ===

impl Scope {
    /// From the metrics of a birth. One without a name is nothing that could be known; of a name that repeats the last
    /// one counts; an alias of several names belongs to none, since a guess would be a wrong measurement.
    pub(super) fn new<'a>(
        metrics: impl Iterator<Item = Metric<'a>>,
        device: Option<&str>,
        wanted: &Wanted,
    ) -> Self {
        let named = metrics.filter_map(|metric| {
            let known = |name: &str| (name.into(), (metric.datatype.unwrap_or(0), metric.alias));
            metric.name.map(known)
        });
        Self::from_named(named.collect(), device, wanted)
    }

    fn from_named(
        named: BTreeMap<Box<str>, (u32, Option<u64>)>,
        device: Option<&str>,
        wanted: &Wanted,
    ) -> Self {
        let mut aliases = BTreeMap::new();
        let mut metrics = Vec::with_capacity(named.len());
        for (place, (name, (datatype, alias))) in (0_u32..).zip(named) {
            let wanted = wanted.places(device, &name);
            metrics.push(Known { name, datatype, wanted });
            if let Some(alias) = alias {
                aliases.entry(alias).and_modify(|place| *place = None).or_insert(Some(place));
            }
        }
        let aliases = aliases.into_iter().filter_map(|(alias, place)| Some((alias, place?))).collect();
        Self { metrics, aliases, is_shaken: false }
    }

    pub(super) fn by_name(&self, name: &str) -> Option<&Known> {
        let place = self.metrics.binary_search_by(|known| (*known.name).cmp(name)).ok()?;
        self.metrics.get(place)
    }

    pub(super) fn by_alias(&self, alias: u64) -> Option<&Known> {
        let place = self.aliases.binary_search_by_key(&alias, |(alias, _)| *alias).ok()?;
        let (_, place) = self.aliases.get(place)?;
        self.metrics.get(usize::try_from(*place).ok()?)
    }

    /// Looks up again what is wanted.
    pub(super) fn want(&mut self, device: Option<&str>, wanted: &Wanted) {
        for known in &mut self.metrics {
            known.wanted = wanted.places(device, &known.name);
        }
    }

    pub(super) fn metrics(&self) -> &[Known] {
        &self.metrics
    }

    pub(super) fn aliases(&self) -> &[(u64, u32)] {
        &self.aliases
    }

    /// From a snapshot; `None` if it is not as [`Self::new`] makes it.
    pub(super) fn restore(metrics: Vec<Known>, aliases: Vec<(u64, u32)>, is_shaken: bool) -> Option<Self> {
        let names = metrics.is_sorted_by(|one, two| one.name < two.name);
        let numbers = aliases.is_sorted_by(|(one, _), (two, _)| one < two);
        let all_known =
            aliases.iter().all(|(_, place)| usize::try_from(*place).is_ok_and(|place| place < metrics.len()));
        (names && numbers && all_known).then_some(Self { metrics, aliases, is_shaken })
    }

    /// What it takes in memory with the name of its device, roughly.
    pub(super) fn bytes(&self, device: Option<&str>) -> usize {
        bytes(device, self.metrics.iter().map(|known| &*known.name))
    }

    /// What the scope of these metrics would take, at most.
    pub(super) fn bytes_most<'a>(device: Option<&str>, metrics: impl Iterator<Item = Metric<'a>>) -> usize {
        bytes(device, metrics.filter_map(|metric| metric.name))
    }

    /// How much of the bound on metrics it takes: a device without any takes a little too.
    pub(super) const fn len(&self) -> usize {
        self.metrics.len() + 1
    }
}

fn bytes<'a>(device: Option<&str>, names: impl Iterator<Item = &'a str>) -> usize {
    let names: usize = names.map(|name| name.len() + KNOWN_BYTES).sum();
    SCOPE_BYTES + device.map_or(0, str::len) + names
}

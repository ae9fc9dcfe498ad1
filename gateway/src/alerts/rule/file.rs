//! Reads a rules file.

use std::collections::{BTreeMap, BTreeSet};

use toml::Spanned;
use toml::de::{DeArray, DeTable, DeValue};

use super::definition::Rule;
use super::draft::{Defaults, Draft, read_rule};
use super::error::{FileError, RuleError};
use super::reading::{Keys, Source, nearest, spelled};
use super::set::RuleSet;
use crate::alerts::reaction::Queues;

/// Rules of a file, at most.
pub(crate) const RULES_MAX: usize = 10_000;
/// Bytes of a file, at most.
pub(crate) const FILE_BYTES_MAX: usize = 4 << 20;
/// Metrics that the rules of a file read, at most.
const METRICS_MAX: usize = 65_535;

const TABLES: [&str; 4] = ["defaults", "rule", "alerting", "mute"];

/// A rules file, read as far as it goes.
#[derive(Debug)]
pub(crate) struct Parsed {
    /// The rules that can be used.
    pub(crate) rules: RuleSet,
    /// Why others cannot, in the order of the file.
    pub(crate) errors: Vec<RuleError>,
    /// The table of that name as it stands, for its owner to read.
    pub(crate) alerting: Option<toml::Table>,
    /// The tables of that name as they stand, for their owner to read.
    pub(crate) mutes: Vec<toml::Table>,
}

impl RuleSet {
    /// Reads a rules file; `file` is its name in errors. A rule that cannot be used is left out and the others are
    /// read; see [`Parsed::errors`].
    ///
    /// # Errors
    ///
    /// The text is too long or not TOML.
    pub(crate) fn parse(text: &str, file: &str) -> Result<Parsed, FileError> {
        Self::parse_for(text, file, &Queues::Any)
    }

    /// As [`Self::parse`], where actions may send to `queues` only.
    ///
    /// # Errors
    ///
    /// The text is too long or not TOML.
    pub(crate) fn parse_for(text: &str, file: &str, queues: &Queues) -> Result<Parsed, FileError> {
        let source = Source::new(file, text);
        let document = document(&source, text, file)?;
        let (alerting, mutes) = policy(text);
        let mut reading = Reading { source: &source, names: Names::default(), errors: Vec::new() };
        reading.check_tables(document.get_ref());
        let defaults = reading.defaults(document.get_ref());
        let mut ids = BTreeSet::new();
        let drafts = reading.drafts(document.get_ref(), &defaults, queues, &mut ids);
        let rules = reading.connected(drafts, &ids);
        let Reading { names, mut errors, .. } = reading;
        errors.sort_by_key(|error| (error.line, error.column));
        Ok(Parsed { rules: complete(rules, &names), errors, alerting, mutes })
    }
}

/// The text as a table with places.
pub(super) fn document<'t>(
    source: &Source<'_>,
    text: &'t str,
    file: &str,
) -> Result<Spanned<DeTable<'t>>, FileError> {
    if text.len() > FILE_BYTES_MAX {
        return Err(FileError::TooLarge { file: file.to_owned(), bytes: text.len(), max: FILE_BYTES_MAX });
    }
    DeTable::parse(text).map_err(|error| {
        let (line, column) = source.place(error.span().map_or(0, |span| span.start));
        FileError::NotToml { file: file.to_owned(), line, column, text: error.message().trim().to_owned() }
    })
}

/// What the lifecycle reads.
fn policy(text: &str) -> (Option<toml::Table>, Vec<toml::Table>) {
    let Ok(mut table) = text.parse::<toml::Table>() else { return (None, Vec::new()) };
    let alerting = match table.remove("alerting") {
        Some(toml::Value::Table(alerting)) => Some(alerting),
        _ => None,
    };
    let mutes = match table.remove("mute") {
        Some(toml::Value::Array(mutes)) => mutes,
        _ => Vec::new(),
    };
    let mutes = mutes.into_iter().filter_map(|mute| match mute {
        toml::Value::Table(mute) => Some(mute),
        _ => None,
    });
    (alerting, mutes.collect())
}

/// A file that is being read.
#[derive(Debug)]
struct Reading<'a> {
    source: &'a Source<'a>,
    names: Names,
    errors: Vec<RuleError>,
}

/// Names of metrics in the order in which they were met.
#[derive(Debug, Default)]
pub(super) struct Names {
    places: BTreeMap<Box<str>, u16>,
}

impl Names {
    /// The place of a name. None if there are too many.
    pub(super) fn place(&mut self, name: &str) -> Option<u16> {
        if let Some(place) = self.places.get(name) {
            return Some(*place);
        }
        let place =
            u16::try_from(self.places.len()).ok().filter(|place| usize::from(*place) < METRICS_MAX)?;
        self.places.insert(name.into(), place);
        Some(place)
    }
}

impl<'a> Reading<'a> {
    /// Top-level keys that are none, and policies that are no tables.
    fn check_tables(&mut self, document: &DeTable<'_>) {
        for (key, value) in document {
            let (name, at) = (key.get_ref().as_ref(), key.span().start);
            let text = match (name, value.get_ref()) {
                ("rule", DeValue::Array(_)) | ("defaults" | "alerting", DeValue::Table(_)) => continue,
                ("mute", DeValue::Array(list)) if list.iter().all(|item| item.get_ref().is_table()) => {
                    continue;
                }
                ("rule" | "mute", value) => {
                    format!("{name} = {}: expected tables, each begun by [[{name}]]", spelled(value))
                }
                ("defaults" | "alerting", value) => format!("{name} = {}: expected a table", spelled(value)),
                _ => {
                    let near = nearest(name, TABLES.into_iter());
                    let near = near.map_or(String::new(), |near| format!("; did you mean {near}?"));
                    format!("there is no table {name}{near}")
                }
            };
            self.errors.push(self.source.wrong("the file", at, text));
        }
    }

    fn defaults(&mut self, document: &DeTable<'_>) -> Defaults {
        let Some(value) = document.get("defaults") else { return Defaults::default() };
        let Some(table) = value.get_ref().as_table() else { return Defaults::default() };
        let keys = Keys::new(self.source, table, "[defaults]", value.span().start);
        Defaults::read(&keys, &mut self.errors)
    }

    /// Every rule that can be read, and in `ids` the names of all that have one.
    fn drafts(
        &mut self,
        document: &DeTable<'_>,
        defaults: &Defaults,
        queues: &Queues,
        ids: &mut BTreeSet<Box<str>>,
    ) -> Vec<Draft> {
        let none = DeArray::new();
        let list = document.get("rule").and_then(|rules| rules.get_ref().as_array()).unwrap_or(&none);
        let mut drafts = Vec::new();
        for (number, value) in list.iter().enumerate() {
            let at = value.span().start;
            let rule = name_of(value.get_ref(), number + 1);
            if number == RULES_MAX {
                let text = format!("there are {} rules: at most {RULES_MAX} are read", list.len());
                self.errors.push(self.source.wrong(&rule, at, text));
                break;
            }
            let Some(table) = value.get_ref().as_table() else {
                let text = format!("{}: expected a table", spelled(value.get_ref()));
                self.errors.push(self.source.wrong(&rule, at, text));
                continue;
            };
            let keys = Keys::new(self.source, table, &rule, at);
            match read_rule(&keys, defaults, (&mut self.names, ids), queues) {
                Ok(draft) => drafts.push(draft),
                Err(error) => self.errors.push(error),
            }
        }
        drafts
    }

    /// Leaves out rules that are inhibited by what is in no rule of the file, and resolves the names of the others. A
    /// rule that could not be read inhibits nothing, which its own error says.
    fn connected(&mut self, mut drafts: Vec<Draft>, ids: &BTreeSet<Box<str>>) -> Vec<Rule> {
        let (source, errors) = (self.source, &mut self.errors);
        drafts.retain(|draft| {
            let Some((id, at)) = draft.inhibited_by.iter().find(|(id, _)| !ids.contains(id)) else {
                return true;
            };
            let near = nearest(id, ids.iter().map(|id| &**id));
            let near = near.map_or(String::new(), |near| format!("; did you mean {near}?"));
            let text = format!("inhibited_by = \"{id}\": expected the id of another rule of this file{near}");
            errors.push(source.wrong(&format!("rule {:?}", draft.rule.id), *at, text));
            false
        });
        let place =
            |(place, draft): (usize, &Draft)| Some((draft.rule.id.clone(), u16::try_from(place).ok()?));
        let places: BTreeMap<_, _> = drafts.iter().enumerate().filter_map(place).collect();
        let connected = drafts.into_iter().map(|draft| {
            let mut rule = draft.rule;
            let inhibitors = draft.inhibited_by.iter().filter_map(|(id, _)| places.get(id).copied());
            rule.inhibited_by = inhibitors.collect();
            rule
        });
        connected.collect()
    }
}

/// What errors call a rule.
pub(super) fn name_of(value: &DeValue<'_>, number: usize) -> String {
    let id = value.as_table().and_then(|table| table.get("id")).and_then(|id| id.get_ref().as_str());
    match id {
        Some(id) if id.len() <= 64 => format!("rule {id:?}"),
        _ => format!("rule number {number}"),
    }
}

/// Numbers the metrics that are used in the order of their names.
fn complete(mut rules: Vec<Rule>, names: &Names) -> RuleSet {
    let mut used = BTreeSet::new();
    for rule in &mut rules {
        rule.kind.each_metric(&mut |metric| {
            used.insert(*metric);
        });
    }
    let mut metrics: Vec<Box<str>> = Vec::with_capacity(used.len());
    let mut places = BTreeMap::new();
    for (name, old) in names.places.iter().filter(|(_, old)| used.contains(old)) {
        if let Ok(new) = u16::try_from(metrics.len()) {
            places.insert(*old, new);
            metrics.push(name.clone());
        }
    }
    for rule in &mut rules {
        rule.kind.each_metric(&mut |metric| *metric = places.get(metric).copied().unwrap_or_default());
    }
    RuleSet::new(rules, metrics)
}

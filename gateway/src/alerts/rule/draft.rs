//! Reads what every rule says, whatever its kind.

use std::collections::BTreeSet;

use super::action::actions;
use super::definition::{Kind, Meaning, Rule};
use super::error::RuleError;
use super::file::Names;
use super::kinds::{KindReader, SAMPLES_MAX, WAIT_MS_MAX, own_keys};
use super::learned;
use super::reading::{Given, Keys};
use super::selector::Selector;
use crate::alerts::nouns::Severity;
use crate::alerts::reaction::Queues;

/// Labels of a rule, at most; bytes of a label's name and value.
const LABELS_MAX: usize = 16;
const LABEL_BYTES_MAX: (usize, usize) = (64, 256);
const RUNBOOK_BYTES_MAX: usize = 1_024;
const INHIBITORS_MAX: usize = 64;
/// Versions are numbers in JSON too.
const VERSION_MAX: u64 = (1 << 53) - 1;

/// What every rule may say.
const COMMON: &[&str] =
    &["id", "kind", "version", "match", "severity", "labels", "runbook", "inhibited_by", "resolve", "action"];
const LEVELS: &[&str] = &["info", "warning", "critical"];
const KINDS: &str =
    "one of \"threshold\", \"rate\", \"stuck\", \"drift\", \"deadman\", \"expr\", \"learned\"";

/// A rule whose references to others are not resolved.
#[derive(Debug)]
pub(super) struct Draft {
    pub(super) rule: Rule,
    /// Ids and where they are.
    pub(super) inhibited_by: Vec<(Box<str>, usize)>,
}

/// What holds for rules that do not say it themselves.
#[derive(Debug, Default)]
pub(super) struct Defaults {
    pub(super) severity: Fallback<Severity>,
    pub(super) for_ms: Fallback<u64>,
    pub(super) keep_ms: Fallback<u64>,
    pub(super) min_samples: Fallback<u64>,
    resolve: Fallback<()>,
}

/// A default, which rules that need it cannot do without once it is given.
#[derive(Debug, Clone, Copy, Default)]
pub(super) enum Fallback<T> {
    #[default]
    Absent,
    Given(T),
    Unusable,
}

pub(super) type Read<T> = Result<T, RuleError>;

impl Defaults {
    pub(super) fn read(keys: &Keys<'_>, errors: &mut Vec<RuleError>) -> Self {
        const KNOWN: &[&str] = &["severity", "for", "keep_firing_for", "min_samples", "resolve"];
        errors.extend(keys.only(&[KNOWN]).err());
        Self {
            severity: Fallback::of(severity(keys, "severity"), errors),
            for_ms: Fallback::of(keys.time("for", 0, WAIT_MS_MAX), errors),
            keep_ms: Fallback::of(keys.time("keep_firing_for", 0, WAIT_MS_MAX), errors),
            min_samples: Fallback::of(keys.whole("min_samples", 1, SAMPLES_MAX), errors),
            resolve: Fallback::of(resolve(keys), errors),
        }
    }
}

impl<T: Copy> Fallback<T> {
    fn of(read: Read<Option<Given<T>>>, errors: &mut Vec<RuleError>) -> Self {
        match read {
            Ok(None) => Self::Absent,
            Ok(Some(given)) => Self::Given(given.value),
            Err(error) => {
                errors.push(error);
                Self::Unusable
            }
        }
    }

    /// What the rule says, else what the file says for all, else `otherwise`.
    pub(super) fn unless(self, own: Option<Given<T>>, keys: &Keys<'_>, key: &str, otherwise: T) -> Read<T> {
        match (own, self) {
            (Some(given), _) => Ok(given.value),
            (None, Self::Given(value)) => Ok(value),
            (None, Self::Absent) => Ok(otherwise),
            (None, Self::Unusable) => {
                Err(keys.error(keys.at(), format!("{key} is that of [defaults], which is wrong there")))
            }
        }
    }
}

/// Reads a rule. Its id is put among `ids` even if the rest is wrong.
pub(super) fn read_rule(
    keys: &Keys<'_>,
    defaults: &Defaults,
    (names, ids): (&mut Names, &mut BTreeSet<Box<str>>),
    queues: &Queues,
) -> Read<Draft> {
    let id = read_id(keys, ids)?;
    let kind_name = kind_name(keys)?;
    if kind_name == "learned" {
        learned::refuse_others(keys)?;
    }
    keys.only(&[COMMON, own_keys(kind_name)])?;
    let base = defaults.severity.unless(severity(keys, "severity")?, keys, "severity", Severity::Warning)?;
    defaults.resolve.unless(resolve(keys)?, keys, "resolve", ())?;
    let selector = match keys.table("match", "a table such as { class = \"boiler\" }")? {
        Some(keys) => Selector::read(&keys)?,
        None => Selector::default(),
    };
    let mut meaning = Meaning::default();
    meaning.text(id).text(kind_name).selector(&selector);
    let mut reader = KindReader { keys, defaults, base, names, meaning: &mut meaning };
    let kind = reader.read(kind_name)?;
    let version = keys.whole("version", 1, VERSION_MAX)?.map(|version| version.value);
    // Whoever counts the version up wants a new rule.
    meaning.number(version.unwrap_or_default());
    let fingerprint = meaning.fingerprint();
    let severity = match &kind {
        Kind::Threshold { watch, .. } | Kind::Rate { watch, .. } | Kind::Drift { watch, .. } => {
            watch.levels.first().map_or(base, |level| level.severity)
        }
        Kind::Stuck { .. } | Kind::Deadman(_) | Kind::Expression { .. } | Kind::Learned { .. } => base,
    };
    let rule = Rule {
        id: id.into(),
        version: version.unwrap_or(fingerprint >> 11),
        severity,
        labels: labels(keys)?,
        runbook: runbook(keys)?,
        actions: actions(keys, queues)?.into(),
        inhibited_by: Box::default(),
        kind,
        selector,
        fingerprint,
    };
    Ok(Draft { rule, inhibited_by: inhibitors(keys)? })
}

fn read_id<'a>(keys: &Keys<'a>, ids: &mut BTreeSet<Box<str>>) -> Read<&'a str> {
    const ALLOWED: &str = "1 to 64 of A-Z a-z 0-9 . _ -";
    let Some(id) = keys.text("id", ALLOWED)? else { return Err(keys.missing("id", ALLOWED)) };
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    if !(1..=64).contains(&id.value.len()) || !id.value.bytes().all(plain) {
        return Err(keys.wrong("id", id.at, &format!("\"{}\"", id.value), ALLOWED));
    }
    if !ids.insert(id.value.into()) {
        return Err(keys.wrong("id", id.at, &format!("\"{}\"", id.value), "an id that no rule above has"));
    }
    Ok(id.value)
}

/// The kind, which is a threshold where none is given and something is raised.
fn kind_name<'a>(keys: &Keys<'a>) -> Read<&'a str> {
    let Some(kind) = keys.text("kind", KINDS)? else {
        let raises = keys.has("raise") || LEVELS.iter().any(|level| keys.has(level));
        return if raises { Ok("threshold") } else { Err(keys.missing("kind", KINDS)) };
    };
    if own_keys(kind.value).is_empty() {
        return Err(keys.wrong("kind", kind.at, &format!("\"{}\"", kind.value), KINDS));
    }
    Ok(kind.value)
}

pub(super) fn severity(keys: &Keys<'_>, key: &str) -> Read<Option<Given<Severity>>> {
    const ALLOWED: &str = "one of \"info\", \"warning\", \"critical\"";
    let Some(text) = keys.text(key, ALLOWED)? else { return Ok(None) };
    match Severity::ALL.into_iter().find(|severity| severity.name() == text.value) {
        Some(value) => Ok(Some(Given { value, at: text.at })),
        None => Err(keys.wrong(key, text.at, &format!("\"{}\"", text.value), ALLOWED)),
    }
}

/// Alerts are resolved when their condition ends; there is no other way yet.
fn resolve(keys: &Keys<'_>) -> Read<Option<Given<()>>> {
    match keys.text("resolve", "\"auto\"")? {
        None => Ok(None),
        Some(text) if text.value == "auto" => Ok(Some(Given { value: (), at: text.at })),
        Some(text) => Err(keys.wrong("resolve", text.at, &format!("\"{}\"", text.value), "\"auto\"")),
    }
}

/// A name and its value.
type Label = (Box<str>, Box<str>);

fn labels(keys: &Keys<'_>) -> Read<Box<[Label]>> {
    const ALLOWED: &str = "at most 16 texts, as { team = \"ops\" }";
    const NAME: &str = "names of labels of 1 to 64 of A-Z a-z 0-9 . _ -";
    let Some(table) = keys.table("labels", ALLOWED)? else { return Ok(Box::default()) };
    let mut labels: Vec<Label> = Vec::new();
    for name in table.names() {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
        if !(1..=LABEL_BYTES_MAX.0).contains(&name.value.len()) || !name.value.bytes().all(plain) {
            return Err(keys.wrong("labels", name.at, &format!("\"{}\"", name.value), NAME));
        }
        let value = table.text(name.value, "a text of at most 256 bytes")?;
        let Some(value) = value else { continue };
        if value.value.len() > LABEL_BYTES_MAX.1 {
            return Err(table.wrong(name.value, value.at, value.value, "a text of at most 256 bytes"));
        }
        if labels.len() == LABELS_MAX {
            return Err(keys.wrong("labels", name.at, "more than 16 labels", ALLOWED));
        }
        labels.push((name.value.into(), value.value.into()));
    }
    labels.sort();
    Ok(labels.into())
}

fn runbook(keys: &Keys<'_>) -> Read<Option<Box<str>>> {
    const ALLOWED: &str = "a text of 1 to 1024 bytes, such as a link";
    let Some(text) = keys.text("runbook", ALLOWED)? else { return Ok(None) };
    if (1..=RUNBOOK_BYTES_MAX).contains(&text.value.len()) {
        Ok(Some(text.value.into()))
    } else {
        Err(keys.wrong("runbook", text.at, &format!("\"{}\"", text.value), ALLOWED))
    }
}

fn inhibitors(keys: &Keys<'_>) -> Read<Vec<(Box<str>, usize)>> {
    let texts =
        keys.texts("inhibited_by", INHIBITORS_MAX, "the id of a rule, or a list of 1 to 64 of them")?;
    let texts = texts.map(|texts| texts.value).unwrap_or_default();
    Ok(texts.into_iter().map(|id| (id.value.into(), id.at)).collect())
}

//! From TOML to a [`Policy`].

use jiff::Timestamp;
use toml::{Table, Value};

use super::mute::Pattern;
use super::section::Section;
use super::window::Window;
use super::{Facet, Flapping, Mute, OPEN_MAX, Policy, PolicyError, Rate, TRANSITIONS_MAX};

const SECOND: u64 = 1000;
const MINUTE: u64 = 60 * SECOND;
const HOUR: u64 = 60 * MINUTE;
const DAY: u64 = 24 * HOUR;

const MUTES_MAX: usize = 1000;
const PATTERNS_MAX: usize = 1000;
const WINDOWS_MAX: usize = 100;

const ALERTING: [&str; 10] = [
    "group_by",
    "group_wait",
    "group_interval",
    "repeat_interval",
    "max_open_alerts",
    "held_max",
    "max_rate",
    "tenant_rate",
    "flapping",
    "storm",
];

pub(super) fn policy(alerting: Option<&Table>, mutes: &[Table], file: &str) -> Result<Policy, PolicyError> {
    let empty = Table::new();
    let section = Section { file, path: "alerting", table: alerting.unwrap_or(&empty) };
    section.only(&ALERTING)?;
    let repeat = repeat_interval(&section)?;
    let open_max = section.integer("max_open_alerts", 200_000, 1..=OPEN_MAX as u64)?;
    let held_max = section.integer("held_max", 10_000, 1..=OPEN_MAX as u64)?;
    Ok(Policy {
        group_by: group_by(&section)?,
        group_wait_ms: section.duration_ms("group_wait", 2 * SECOND, 0..=5 * MINUTE)?,
        group_interval_ms: section.duration_ms("group_interval", MINUTE, SECOND..=DAY)?,
        repeat_interval_ms: repeat,
        max_open_alerts: usize::try_from(open_max).unwrap_or(OPEN_MAX),
        held_max: usize::try_from(held_max).unwrap_or(OPEN_MAX),
        max_rate: rate(&section, "max_rate", Rate { per_1000_s: 50_000, burst: 500 })?,
        tenant_rate: rate(&section, "tenant_rate", Rate { per_1000_s: 20_000, burst: 200 })?,
        flapping: flapping(&section)?,
        storm_when: storm(&section)?,
        mutes: self::mutes(mutes, file)?,
    })
}

/// None if it is 0.
fn repeat_interval(section: &Section<'_>) -> Result<Option<u64>, PolicyError> {
    let ms = section.duration_ms("repeat_interval", 4 * HOUR, 0..=30 * DAY)?;
    match section.table.get("repeat_interval") {
        Some(value) if ms > 0 && ms < SECOND => {
            Err(section.error("repeat_interval", value, "\"0s\", or a duration from \"1s\" to \"720h\""))
        }
        _ => Ok((ms > 0).then_some(ms)),
    }
}

fn group_by(section: &Section<'_>) -> Result<Vec<Facet>, PolicyError> {
    let Some(names) = section.texts("group_by", Facet::ALL.len())? else {
        return Ok(vec![Facet::Tenant, Facet::Rule]);
    };
    for (value, name) in &names {
        let known = Facet::ALL.iter().any(|facet| facet.name() == *name);
        if !known || names.iter().filter(|(_, other)| other == name).count() > 1 {
            let expected = "each of tenant, site, class, rule and severity at most once";
            return Err(section.error("group_by", value, expected));
        }
    }
    let chosen = |facet: &Facet| names.iter().any(|(_, name)| facet.name() == *name);
    Ok(Facet::ALL.into_iter().filter(chosen).collect())
}

fn rate(section: &Section<'_>, key: &str, default: Rate) -> Result<Rate, PolicyError> {
    let Some((table, path)) = section.table(key)? else { return Ok(default) };
    let section = Section { table, path: &path, ..*section };
    section.only(&["events_per_s", "burst"])?;
    Ok(Rate {
        per_1000_s: section.events_per_s("events_per_s", default.per_1000_s)?,
        burst: section.integer("burst", default.burst, 1..=1_000_000)?,
    })
}

fn flapping(section: &Section<'_>) -> Result<Flapping, PolicyError> {
    let default = Flapping { max_transitions: 10, window_ms: 10 * MINUTE };
    let Some((table, path)) = section.table("flapping")? else { return Ok(default) };
    let section = Section { table, path: &path, ..*section };
    section.only(&["max_transitions", "window"])?;
    let most = section.integer("max_transitions", 10, 0..=TRANSITIONS_MAX as u64)?;
    Ok(Flapping {
        max_transitions: usize::try_from(most).unwrap_or(TRANSITIONS_MAX),
        window_ms: section.duration_ms("window", default.window_ms, SECOND..=DAY)?,
    })
}

fn storm(section: &Section<'_>) -> Result<u64, PolicyError> {
    const DEFAULT: u64 = 50;
    let Some((table, path)) = section.table("storm")? else { return Ok(DEFAULT) };
    let section = Section { table, path: &path, ..*section };
    section.only(&["when_open_in_group"])?;
    section.integer("when_open_in_group", DEFAULT, 2..=OPEN_MAX as u64)
}

fn mutes(mutes: &[Table], file: &str) -> Result<Vec<Mute>, PolicyError> {
    if mutes.len() > MUTES_MAX {
        return Err(PolicyError {
            file: file.to_owned(),
            key: "mute".to_owned(),
            value: format!("{} tables", mutes.len()),
            expected: format!("at most {MUTES_MAX}"),
        });
    }
    let numbered = mutes.iter().zip(1_usize..);
    numbered.map(|(table, n)| mute(&Section { file, path: &format!("mute[{n}]"), table })).collect()
}

fn mute(section: &Section<'_>) -> Result<Mute, PolicyError> {
    section.only(&["name", "match", "windows", "mode", "from", "until"])?;
    section.texts("name", 1)?;
    let limited = ["match", "windows", "from", "until"].iter().any(|key| section.table.contains_key(*key));
    if !limited {
        let nothing = Value::Table(section.table.clone());
        return Err(section.error(
            "match",
            &nothing,
            "a mute that says what or when: match, windows, from or until",
        ));
    }
    if let Some(mode) = section.table.get("mode")
        && mode.as_str() != Some("record-only")
    {
        return Err(section.error("mode", mode, "\"record-only\""));
    }
    let mut mute =
        Mute { from_ms: moment(section, "from")?, until_ms: moment(section, "until")?, ..Mute::default() };
    if let (Some(from), Some(until), Some(value)) = (mute.from_ms, mute.until_ms, section.table.get("until"))
        && until <= from
    {
        return Err(section.error("until", value, "a moment after `from`"));
    }
    if let Some((table, path)) = section.table("match")? {
        let section = Section { table, path: &path, ..*section };
        section.only(&["tenant", "site", "class", "device", "rule"])?;
        mute.tenant = patterns(&section, "tenant")?;
        mute.site = patterns(&section, "site")?;
        mute.class = patterns(&section, "class")?;
        mute.device = patterns(&section, "device")?;
        mute.rule = patterns(&section, "rule")?;
    }
    for (value, text) in section.texts("windows", WINDOWS_MAX)?.unwrap_or_default() {
        let window = Window::parse(text).map_err(|expected| section.error("windows", value, expected))?;
        mute.windows.push(window);
    }
    Ok(mute)
}

fn patterns(section: &Section<'_>, key: &str) -> Result<Vec<Pattern>, PolicyError> {
    let texts = section.texts(key, PATTERNS_MAX)?;
    match (texts, section.table.get(key)) {
        // An empty list would match everything, which nobody means who wrote one.
        (Some(texts), Some(value)) if texts.is_empty() => Err(section.error(key, value, "at least one text")),
        (texts, _) => Ok(texts.unwrap_or_default().iter().map(|(_, text)| Pattern::new(text)).collect()),
    }
}

/// A moment with its offset from UTC, as text or as TOML's own kind of value, in Unix milliseconds.
fn moment(section: &Section<'_>, key: &str) -> Result<Option<u64>, PolicyError> {
    let Some(value) = section.table.get(key) else { return Ok(None) };
    let text = match value {
        Value::String(text) => Some(text.clone()),
        Value::Datetime(moment) => Some(moment.to_string()),
        _ => None,
    };
    let moment = text.and_then(|text| text.parse::<Timestamp>().ok());
    let ms = moment.and_then(|moment| u64::try_from(moment.as_millisecond()).ok());
    ms.map(Some).ok_or_else(|| section.error(key, value, "a moment such as 2026-11-21T02:00:00+01:00"))
}

//! Settings of rules that learn what is usual.

use super::draft::Read;
use super::error::RuleError;
use super::reading::{Keys, parse_time};

/// The keys of the kind.
pub(super) const KEYS: &[&str] =
    &["metrics", "input", "budget", "sensitivity", "warmup", "season", "cooldown", "learn_while_firing"];

const METRICS_MAX: usize = 64;
const DAY_MS: u64 = 86_400_000;

/// How samples of a window become one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Aggregate {
    Mean,
    Min,
    Max,
    Last,
}

/// How often a series may alert though nothing is wrong with it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Eagerness {
    /// So many alerts in so many milliseconds.
    Budget { alerts: u64, per_ms: u64 },
    /// From 1, which is hard to impress, to 100.
    Sensitivity(u64),
}

/// What a series repeats.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Season {
    None,
    HourOfDay,
    HourOfWeek,
}

/// A rule of kind `learned`, checked.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Settings {
    pub(super) metrics: Vec<Box<str>>,
    pub(super) aggregate: Aggregate,
    /// Milliseconds of a window.
    pub(super) every_ms: u64,
    pub(super) eagerness: Eagerness,
    pub(super) warmup_ms: u64,
    pub(super) season: Season,
    pub(super) cooldown_ms: u64,
    pub(super) learn_while_firing: bool,
}

pub(super) fn read(keys: &Keys<'_>) -> Read<Settings> {
    let metrics = keys.texts("metrics", METRICS_MAX, "a metric, or a list of 1 to 64 of them")?;
    let Some(metrics) = metrics else { return Err(keys.missing("metrics", "a metric, or a list of them")) };
    for metric in &metrics.value {
        if !(1..=256).contains(&metric.value.len()) {
            return Err(keys.wrong("metrics", metric.at, metric.value, "names of 1 to 256 bytes"));
        }
    }
    let (aggregate, every_ms) = input(keys)?;
    let warmup = keys.time("warmup", 0, 30 * DAY_MS)?;
    let cooldown = keys.time("cooldown", 0, 7 * DAY_MS)?;
    Ok(Settings {
        metrics: metrics.value.iter().map(|metric| metric.value.into()).collect(),
        aggregate,
        every_ms,
        eagerness: eagerness(keys)?,
        warmup_ms: warmup.map_or(2 * DAY_MS, |time| time.value),
        season: season(keys)?,
        cooldown_ms: cooldown.map_or(2 * 3_600_000, |time| time.value),
        learn_while_firing: keys.truth("learn_while_firing")?.is_some_and(|truth| truth.value),
    })
}

fn input(keys: &Keys<'_>) -> Read<(Aggregate, u64)> {
    const ALLOWED: &str = "a table such as { aggregate = \"mean\", every = \"1m\" }";
    const AGGREGATES: &str = "one of \"mean\", \"min\", \"max\", \"last\"";
    let Some(input) = keys.table("input", ALLOWED)? else { return Ok((Aggregate::Mean, 60_000)) };
    input.only(&[&["aggregate", "every"]])?;
    let aggregate = match input.text("aggregate", AGGREGATES)? {
        None => Aggregate::Mean,
        Some(text) => match text.value {
            "mean" => Aggregate::Mean,
            "min" => Aggregate::Min,
            "max" => Aggregate::Max,
            "last" => Aggregate::Last,
            other => return Err(input.wrong("aggregate", text.at, &format!("\"{other}\""), AGGREGATES)),
        },
    };
    let every = input.time("every", 1_000, DAY_MS)?;
    Ok((aggregate, every.map_or(60_000, |every| every.value)))
}

fn eagerness(keys: &Keys<'_>) -> Read<Eagerness> {
    const BUDGET: &str = "a text such as \"1 per series per 7d\"";
    let sensitivity = keys.whole("sensitivity", 1, 100)?;
    let Some(text) = keys.text("budget", BUDGET)? else {
        return Ok(sensitivity.map_or(Eagerness::Budget { alerts: 1, per_ms: 7 * DAY_MS }, |given| {
            Eagerness::Sensitivity(given.value)
        }));
    };
    if let Some(given) = sensitivity {
        return Err(keys.wrong("sensitivity", given.at, &given.value.to_string(), "either it or budget"));
    }
    let words: Vec<&str> = text.value.split_whitespace().collect();
    let budget = match words.as_slice() {
        [alerts, "per", "series", "per", time] => alerts.parse().ok().zip(parse_time(time)),
        _ => None,
    };
    match budget {
        Some((alerts @ 1..=1_000, per_ms @ 60_000..=31_536_000_000)) => {
            Ok(Eagerness::Budget { alerts, per_ms })
        }
        _ => Err(keys.wrong("budget", text.at, &format!("\"{}\"", text.value), BUDGET)),
    }
}

fn season(keys: &Keys<'_>) -> Read<Season> {
    const ALLOWED: &str = "one of \"none\", \"hour_of_day\", \"hour_of_week\"";
    match keys.text("season", ALLOWED)? {
        None => Ok(Season::HourOfDay),
        Some(text) => match text.value {
            "none" => Ok(Season::None),
            "hour_of_day" => Ok(Season::HourOfDay),
            "hour_of_week" => Ok(Season::HourOfWeek),
            other => Err(keys.wrong("season", text.at, &format!("\"{other}\""), ALLOWED)),
        },
    }
}

/// Until the detector stands behind it, a rule of the kind is refused rather than silent.
pub(super) fn not_available(keys: &Keys<'_>) -> RuleError {
    keys.error(keys.at(), "kind = \"learned\": not available yet".to_owned())
}

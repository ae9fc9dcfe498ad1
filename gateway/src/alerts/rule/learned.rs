//! Settings of rules that learn what is usual.

use super::definition::Meaning;
use super::draft::Read;
use super::reading::{Given, Keys, parse_time, show_time};
use crate::alerts::learned::{Budget, Detector, Settings as DetectorSettings, Tuning};
use crate::alerts::nouns::Severity;

/// The keys of the kind.
pub(super) const KEYS: &[&str] =
    &["metrics", "input", "budget", "sensitivity", "warmup", "season", "cooldown", "learn_while_firing"];

/// What other kinds have and this one cannot mean, and why.
const OTHERS: &[(&str, &str)] = &[
    ("metric", "a learned rule has a list of them, metrics"),
    ("raise", "a learned rule finds its limits itself; budget says how often it may be wrong"),
    ("clear", "a learned rule ends its alert when cooldown is over and the series is usual"),
    ("for", "a learned rule judges whole windows; input.every says how long they are"),
    ("min_samples", "a learned rule judges whole windows; input.every says how long they are"),
    ("keep_firing_for", "the alert of a learned rule stays for cooldown"),
    ("critical", "a learned rule has one severity, that of severity"),
    ("warning", "a learned rule has one severity, that of severity"),
    ("info", "a learned rule has one severity, that of severity"),
];

const METRICS_MAX: usize = 64;
const SECOND_MS: u64 = 1_000;
const HOUR_MS: u64 = 3_600_000;
const DAY_MS: u64 = 86_400_000;
/// What is allowed where nothing else is said: one alert in a week.
const BUDGET_MS: u64 = 7 * DAY_MS;

/// How samples of a window become one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Aggregate {
    Mean,
    Min,
    Max,
    Last,
}

/// A rule of kind `learned`, checked.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Settings {
    /// By name, each once.
    pub(super) metrics: Vec<Box<str>>,
    aggregate: Aggregate,
    /// Milliseconds of a window.
    every_ms: u32,
    /// The score from which on it alerts.
    threshold: f32,
    warmup_ms: u64,
    season: bool,
    cooldown_ms: u64,
    learn_while_firing: bool,
}

/// The same, as it is used.
#[derive(Debug)]
pub(super) struct Learned {
    pub(super) detector: Detector,
    pub(super) aggregate: Aggregate,
    /// Milliseconds of a window.
    pub(super) every_ms: u64,
    /// The score from which on it alerts.
    pub(super) threshold: f32,
    pub(super) severity: Severity,
}

impl Settings {
    pub(super) fn note(&self, meaning: &mut Meaning) {
        for metric in &self.metrics {
            meaning.text(metric);
        }
        meaning.number(self.aggregate as u64).number(u64::from(self.every_ms));
        meaning.number(u64::from(self.threshold.to_bits())).number(self.warmup_ms);
        meaning.number(u64::from(self.season)).number(self.cooldown_ms);
        meaning.number(u64::from(self.learn_while_firing));
    }

    pub(super) fn learned(&self, severity: Severity) -> Learned {
        let settings = DetectorSettings {
            every_ms: self.every_ms,
            threshold: self.threshold,
            warm_up_ms: self.warmup_ms,
            cooldown_ms: Some(self.cooldown_ms),
            season: self.season,
            learn_while_firing: self.learn_while_firing,
        };
        Learned {
            detector: Detector::new(Tuning::SHIPPED, settings),
            aggregate: self.aggregate,
            every_ms: u64::from(self.every_ms),
            threshold: self.threshold,
            severity,
        }
    }
}

/// Says why keys of other kinds are none of this one.
pub(super) fn refuse_others(keys: &Keys<'_>) -> Read<()> {
    for name in keys.names() {
        if let Some((_, why)) = OTHERS.iter().find(|(other, _)| *other == name.value) {
            return Err(keys.error(name.at, format!("there is no key {} here: {why}", name.value)));
        }
    }
    Ok(())
}

pub(super) fn read(keys: &Keys<'_>) -> Read<Settings> {
    let metrics = metrics(keys)?;
    let (aggregate, every_ms) = input(keys)?;
    let warmup = keys.time("warmup", 0, 30 * DAY_MS)?;
    let cooldown = keys.time("cooldown", 0, 7 * DAY_MS)?;
    Ok(Settings {
        metrics,
        aggregate,
        every_ms,
        threshold: budget(keys, every_ms)?.threshold(),
        warmup_ms: warmup.map_or(2 * DAY_MS, |time| time.value),
        season: season(keys)?,
        cooldown_ms: cooldown.map_or(2 * HOUR_MS, |time| time.value),
        learn_while_firing: keys.truth("learn_while_firing")?.is_some_and(|truth| truth.value),
    })
}

fn metrics(keys: &Keys<'_>) -> Read<Vec<Box<str>>> {
    let given = keys.texts("metrics", METRICS_MAX, "a metric, or a list of 1 to 64 of them")?;
    let Some(given) = given else { return Err(keys.missing("metrics", "a metric, or a list of them")) };
    let mut metrics: Vec<Box<str>> = Vec::new();
    for metric in given.value {
        if !(1..=256).contains(&metric.value.len()) {
            return Err(keys.wrong("metrics", metric.at, metric.value, "names of 1 to 256 bytes"));
        }
        if metrics.iter().any(|known| **known == *metric.value) {
            return Err(keys.wrong("metrics", metric.at, metric.value, "each name once"));
        }
        metrics.push(metric.value.into());
    }
    metrics.sort();
    Ok(metrics)
}

fn input(keys: &Keys<'_>) -> Read<(Aggregate, u32)> {
    const ALLOWED: &str = "a table such as { aggregate = \"mean\", every = \"1m\" }";
    const AGGREGATES: &str = "one of \"mean\", \"min\", \"max\", \"last\"";
    const EVERY_MS: u32 = 60_000;
    let Some(input) = keys.table("input", ALLOWED)? else { return Ok((Aggregate::Mean, EVERY_MS)) };
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
    let every = input.time("every", SECOND_MS, DAY_MS)?;
    Ok((aggregate, every.and_then(|every| u32::try_from(every.value).ok()).unwrap_or(EVERY_MS)))
}

/// How often a series may alert though nothing is wrong with it.
fn budget(keys: &Keys<'_>, every_ms: u32) -> Read<Budget> {
    const BUDGET: &str = "a text such as \"1 per series per 7d\"";
    let sensitivity = keys.whole("sensitivity", 1, 100)?;
    let text = keys.text("budget", BUDGET)?;
    if let (Some(_), Some(given)) = (text, sensitivity) {
        return Err(keys.wrong("sensitivity", given.at, &given.value.to_string(), "either it or budget"));
    }
    let of_sensitivity = |given: Given<u64>| Budget::of_sensitivity(u8::try_from(given.value).ok()?);
    if let Some(budget) = sensitivity.and_then(of_sensitivity) {
        return Ok(budget);
    }
    let Some(text) = text else { return Ok(Budget::at_most(BUDGET_MS, every_ms)) };
    let wrong = |allowed: &str| keys.wrong("budget", text.at, &format!("\"{}\"", text.value), allowed);
    let words: Vec<&str> = text.value.split_whitespace().collect();
    let budget = match words.as_slice() {
        [alerts, "per", "series", "per", time] => alerts.parse().ok().zip(parse_time(time)),
        _ => None,
    };
    let budget = budget.and_then(|(alerts, per_ms)| Budget::new(alerts, per_ms, every_ms));
    let budget = budget.ok_or_else(|| wrong(BUDGET))?;
    if budget.is_kept() {
        return Ok(budget);
    }
    let (often, rare) = Budget::bounds_ms(every_ms);
    let allowed = format!(
        "from one in {} to one in {}, which is what windows of {} can keep",
        show_time(rounded(often, u64::div_ceil)),
        show_time(rounded(rare, |time, unit| time / unit)),
        show_time(u64::from(every_ms)),
    );
    Err(wrong(&allowed))
}

/// A time in a unit of which it has at least two, for people.
fn rounded(ms: u64, divide: impl Fn(u64, u64) -> u64) -> u64 {
    let unit = [DAY_MS, HOUR_MS, 60_000, SECOND_MS].into_iter().find(|unit| ms >= 2 * unit).unwrap_or(1);
    divide(ms, unit) * unit
}

/// Whether the hour of the day matters.
fn season(keys: &Keys<'_>) -> Read<bool> {
    const ALLOWED: &str = "one of \"none\", \"hour_of_day\"";
    match keys.text("season", ALLOWED)? {
        None => Ok(true),
        Some(text) => match text.value {
            "none" => Ok(false),
            "hour_of_day" => Ok(true),
            other => Err(keys.wrong("season", text.at, &format!("\"{other}\""), ALLOWED)),
        },
    }
}

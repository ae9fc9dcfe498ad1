//! Reads what is special to a kind of rule.

use super::comparison::{Comparison, Unit};
use super::definition::{Deadman, Drift, Kind, Level, Meaning, Rate, Stuck, Watch};
use super::draft::{Defaults, Read};
use super::error::RuleError;
use super::expression::{EXPRESSION_BYTES_MAX, Expression, NAMES_MAX};
use super::file::Names;
use super::learned;
use super::reading::{Given, Keys, show_time};
use crate::alerts::nouns::Severity;

/// Milliseconds of a second, a minute, an hour and a day.
const SECOND: u64 = 1_000;
const MINUTE: u64 = 60 * SECOND;
const HOUR: u64 = 60 * MINUTE;
const DAY: u64 = 24 * HOUR;
/// The longest time that a rule may wait.
pub(super) const WAIT_MS_MAX: u64 = 30 * DAY;
/// The most samples that a rule may want to see.
pub(super) const SAMPLES_MAX: u64 = 1_000_000;
const METRIC_BYTES_MAX: usize = 256;
const METRIC: &str = "the name of a metric, of 1 to 256 bytes";

/// The keys of a kind beside the common ones; none for what is no kind.
pub(super) fn own_keys(kind: &str) -> &'static [&'static str] {
    match kind {
        "threshold" => &[
            "metric",
            "raise",
            "clear",
            "for",
            "keep_firing_for",
            "min_samples",
            "info",
            "warning",
            "critical",
        ],
        "rate" => &[
            "metric",
            "raise",
            "clear",
            "for",
            "keep_firing_for",
            "min_samples",
            "info",
            "warning",
            "critical",
            "over",
        ],
        "drift" => &[
            "metric",
            "raise",
            "clear",
            "for",
            "keep_firing_for",
            "min_samples",
            "info",
            "warning",
            "critical",
            "fast",
            "slow",
            "warmup",
        ],
        "stuck" => &["metric", "epsilon", "for", "keep_firing_for", "min_samples", "when"],
        "deadman" => &["expect_every", "missed"],
        "expr" => &["expr", "metrics", "max_staleness", "for", "keep_firing_for", "min_samples"],
        "learned" => learned::KEYS,
        _ => &[],
    }
}

/// Reads what is special to a kind of rule, and notes what it means.
#[derive(Debug)]
pub(super) struct KindReader<'r, 'a> {
    pub(super) keys: &'r Keys<'a>,
    pub(super) defaults: &'r Defaults,
    pub(super) base: Severity,
    pub(super) names: &'r mut Names,
    pub(super) meaning: &'r mut Meaning,
}

/// Which units the comparisons of a rule may have.
#[derive(Debug, Clone, Copy)]
struct Units {
    allowed: &'static [Unit],
    example: &'static str,
}

impl<'a> KindReader<'_, 'a> {
    pub(super) fn read(&mut self, kind: &str) -> Read<Kind> {
        match kind {
            "threshold" => self.threshold(),
            "rate" => self.rate(),
            "stuck" => self.stuck(),
            "drift" => self.drift(),
            "deadman" => self.deadman(),
            "expr" => self.expression(),
            _ => self.learned(),
        }
    }

    fn threshold(&mut self) -> Read<Kind> {
        let metric = self.metric()?;
        let units = Units { allowed: &[Unit::None], example: "\"> 90\"" };
        let (watch, _) = self.levels(units)?;
        self.meaning.watch(&watch);
        Ok(Kind::Threshold { metric, watch })
    }

    fn rate(&mut self) -> Read<Kind> {
        let metric = self.metric()?;
        let units = Units {
            allowed: &[Unit::PerSecond, Unit::PerMinute, Unit::PerHour],
            example: "\"> 5 per minute\" (or per second, or per hour)",
        };
        let (watch, unit) = self.levels(units)?;
        let per_ms = match unit {
            Unit::PerMinute => MINUTE,
            Unit::PerHour => HOUR,
            Unit::PerSecond | Unit::None | Unit::Deviations => SECOND,
        };
        let over_ms = self.keys.time("over", 100, HOUR)?.map_or(SECOND, |over| over.value);
        self.meaning.watch(&watch).number(over_ms).number(per_ms);
        Ok(Kind::Rate { metric, watch, rate: Rate { over_ms, per_ms: per_ms as f64 } })
    }

    fn drift(&mut self) -> Read<Kind> {
        let metric = self.metric()?;
        let units =
            Units { allowed: &[Unit::None, Unit::Deviations], example: "\"> 2.5\" or \"> 4 deviations\"" };
        let (watch, unit) = self.levels(units)?;
        let keys = self.keys;
        let fast = keys.time("fast", SECOND, WAIT_MS_MAX)?.map_or(HOUR, |fast| fast.value);
        let slow = keys.time("slow", SECOND, 365 * DAY)?;
        let slow_at = slow.map_or(keys.at(), |slow| slow.at);
        let slow = slow.map_or(7 * DAY, |slow| slow.value);
        if slow < fast.saturating_mul(2) {
            return Err(keys.wrong("slow", slow_at, &show_time(slow), "at least twice `fast`"));
        }
        let warmup = keys.time("warmup", 0, 365 * DAY)?.map_or(slow, |warmup| warmup.value);
        let in_deviations = unit == Unit::Deviations;
        self.meaning.watch(&watch).number(fast).number(slow).number(warmup).number(u64::from(in_deviations));
        let drift = Drift {
            fast_ms: fast as f64,
            slow_ms: slow as f64,
            warmup_s: u32::try_from(warmup.div_ceil(SECOND)).unwrap_or(u32::MAX),
            in_deviations,
        };
        Ok(Kind::Drift { metric, watch, drift })
    }

    fn stuck(&mut self) -> Read<Kind> {
        let metric = self.metric()?;
        let keys = self.keys;
        let epsilon = keys.number("epsilon", 0.0, 1e300)?.map_or(0.0, |epsilon| epsilon.value);
        let Some(for_ms) = keys.time("for", SECOND, WAIT_MS_MAX)? else {
            return Err(keys.missing("for", "how long the value may stand still, such as \"10m\""));
        };
        let min_samples = self.min_samples(2)?.max(2);
        let when = self.when()?;
        let stuck = Stuck {
            epsilon,
            for_ms: for_ms.value,
            min_samples,
            when: when.map(|(place, _, rest)| (place, rest)),
        };
        let watch = Watch { levels: [truth(self.base, 0)].into(), min_samples: 1, keep_ms: self.keep_ms()? };
        self.meaning.watch(&watch).real(epsilon).number(for_ms.value).number(u64::from(min_samples));
        if let Some((_, name, comparison)) = when {
            self.meaning.text(name).comparison(comparison);
        }
        Ok(Kind::Stuck { metric, watch, stuck })
    }

    fn deadman(&mut self) -> Read<Kind> {
        let every = self.keys.time("expect_every", SECOND, WAIT_MS_MAX)?;
        let Some(every) = every else {
            return Err(self.keys.missing("expect_every", "how often a device speaks, such as \"30s\""));
        };
        let missed = self.keys.whole("missed", 1, 1_000)?.map_or(3, |missed| missed.value);
        let patience_ms = every.value.saturating_mul(missed);
        self.meaning.text(self.base.name()).number(patience_ms);
        Ok(Kind::Deadman(Deadman { patience_ms }))
    }

    fn expression(&mut self) -> Read<Kind> {
        const ALLOWED: &str = "an expression of 1 to 1024 bytes, such as \"pressure < 1.2 && rpm > 500\"";
        const NAMES: &str = "1 to 16 names, as { p = \"motor.pressure\" }";
        let keys = self.keys;
        let Some(text) = keys.text("expr", ALLOWED)? else { return Err(keys.missing("expr", ALLOWED)) };
        if !(1..=EXPRESSION_BYTES_MAX).contains(&text.value.len()) {
            return Err(keys.wrong("expr", text.at, &format!("\"{}\"", text.value), ALLOWED));
        }
        let mut names = Vec::new();
        if let Some(table) = keys.table("metrics", NAMES)? {
            for name in table.names() {
                if names.len() == NAMES_MAX {
                    return Err(keys.wrong("metrics", name.at, "more than 16 names", NAMES));
                }
                let Some(metric) = table.text(name.value, METRIC)? else { continue };
                self.check_metric(&format!("metrics.{}", name.value), metric)?;
                names.push((name.value, metric.value));
            }
        }
        let max_staleness_ms = keys.time("max_staleness", SECOND, DAY)?.map_or(MINUTE, |time| time.value);
        let wrong = |why: String| keys.error(text.at, format!("expr: {why}"));
        let mut expression = Expression::compile(text.value, &names).map_err(wrong)?;
        self.meaning.text(text.value).number(max_staleness_ms);
        expression.max_staleness_ms = max_staleness_ms;
        for metric in expression.metric_names() {
            self.meaning.text(metric);
        }
        let places: Option<Box<[u16]>> =
            expression.metric_names().map(|metric| self.names.place(metric)).collect();
        expression.metrics = places.ok_or_else(|| too_many_metrics(keys, text.at))?;
        let for_ms = self.for_ms()?;
        let watch = Watch {
            levels: [truth(self.base, for_ms)].into(),
            min_samples: self.min_samples(1)?,
            keep_ms: self.keep_ms()?,
        };
        self.meaning.watch(&watch);
        Ok(Kind::Expression { watch, expression: Box::new(expression) })
    }

    fn learned(&mut self) -> Read<Kind> {
        let keys = self.keys;
        let settings = learned::read(keys)?;
        settings.note(self.meaning.text(self.base.name()));
        let metrics = settings.metrics.iter().map(|metric| self.names.place(metric));
        let metrics = metrics.collect::<Option<_>>().ok_or_else(|| too_many_metrics(keys, keys.at()))?;
        Ok(Kind::Learned { metrics, learned: Box::new(settings.learned(self.base)) })
    }

    /// Another metric and what its last value must be, as in `running == true`.
    fn when(&mut self) -> Read<Option<(u16, &'a str, Comparison)>> {
        const ALLOWED: &str = "a metric and a comparison, such as \"running == true\"";
        let keys = self.keys;
        let Some(text) = keys.text("when", ALLOWED)? else { return Ok(None) };
        let wrong = || keys.wrong("when", text.at, &format!("\"{}\"", text.value), ALLOWED);
        let sign = text.value.find(['<', '>', '=', '!']).ok_or_else(wrong)?;
        let (name, rest) = text.value.split_at_checked(sign).ok_or_else(wrong)?;
        let (comparison, Unit::None) = Comparison::parse(rest).ok_or_else(wrong)? else {
            return Err(wrong());
        };
        let name = Given { value: name.trim_end(), at: text.at };
        self.check_metric("when", name)?;
        let place = self.names.place(name.value).ok_or_else(|| too_many_metrics(keys, text.at))?;
        Ok(Some((place, name.value, comparison)))
    }

    fn metric(&mut self) -> Read<u16> {
        let keys = self.keys;
        let Some(name) = keys.text("metric", METRIC)? else { return Err(keys.missing("metric", METRIC)) };
        self.check_metric("metric", name)?;
        self.meaning.text(name.value);
        self.names.place(name.value).ok_or_else(|| too_many_metrics(keys, name.at))
    }

    fn check_metric(&self, key: &str, name: Given<&str>) -> Read<()> {
        if (1..=METRIC_BYTES_MAX).contains(&name.value.len()) {
            Ok(())
        } else {
            Err(self.keys.wrong(key, name.at, &format!("\"{}\"", name.value), METRIC))
        }
    }

    fn for_ms(&self) -> Read<u64> {
        let own = self.keys.time("for", 0, WAIT_MS_MAX)?;
        self.defaults.for_ms.unless(own, self.keys, "for", 0)
    }

    fn keep_ms(&self) -> Read<u64> {
        let own = self.keys.time("keep_firing_for", 0, WAIT_MS_MAX)?;
        self.defaults.keep_ms.unless(own, self.keys, "keep_firing_for", 0)
    }

    fn min_samples(&self, otherwise: u64) -> Read<u32> {
        let own = self.keys.whole("min_samples", 1, SAMPLES_MAX)?;
        let samples = self.defaults.min_samples.unless(own, self.keys, "min_samples", otherwise)?;
        Ok(u32::try_from(samples).unwrap_or(u32::MAX))
    }

    /// Every severity that the rule has, and the unit of its limits.
    fn levels(&self, units: Units) -> Read<(Watch, Unit)> {
        let keys = self.keys;
        let for_ms = self.for_ms()?;
        let mut levels = Vec::new();
        let mut unit = None;
        if keys.has("raise") {
            levels.push(level(keys, self.base, for_ms, units, &mut unit)?);
        } else if keys.has("clear") {
            return Err(keys.missing("raise", &format!("a comparison such as {}", units.example)));
        }
        for severity in Severity::ALL {
            let allowed = format!("a table such as {{ raise = {} }}", units.example);
            let Some(inner) = keys.table(severity.name(), &allowed)? else { continue };
            inner.only(&[&["raise", "clear", "for"]])?;
            if severity == self.base && keys.has("raise") {
                let text =
                    format!("{} is the rule's own severity: its limits are raise and clear", severity.name());
                return Err(keys.error(inner.at(), text));
            }
            let for_ms = inner.time("for", 0, WAIT_MS_MAX)?.map_or(for_ms, |time| time.value);
            levels.push(level(&inner, severity, for_ms, units, &mut unit)?);
        }
        if levels.is_empty() {
            return Err(keys.missing("raise", &format!("a comparison such as {}", units.example)));
        }
        levels.sort_by_key(|level| level.severity);
        let watch =
            Watch { levels: levels.into(), min_samples: self.min_samples(1)?, keep_ms: self.keep_ms()? };
        Ok((watch, unit.unwrap_or(Unit::None)))
    }
}

/// `raise` and `clear` of one severity.
fn level(
    keys: &Keys<'_>,
    severity: Severity,
    for_ms: u64,
    units: Units,
    unit: &mut Option<Unit>,
) -> Read<Level> {
    let mut read = |key: &str| -> Read<Option<(Comparison, usize)>> {
        let allowed = format!("a comparison such as {}", units.example);
        let Some(text) = keys.text(key, &allowed)? else { return Ok(None) };
        let wrong = |allowed: &str| keys.wrong(key, text.at, &format!("\"{}\"", text.value), allowed);
        let parsed = Comparison::parse(text.value).filter(|(_, unit)| units.allowed.contains(unit));
        let (comparison, own) = parsed.ok_or_else(|| wrong(&allowed))?;
        if *unit.get_or_insert(own) != own {
            return Err(wrong("the unit that the other limits of the rule have"));
        }
        Ok(Some((comparison, text.at)))
    };
    let Some((raise, _)) = read("raise")? else {
        return Err(keys.missing("raise", &format!("a comparison such as {}", units.example)));
    };
    let clear = match read("clear")? {
        Some((clear, at)) if clear.meets(raise) => {
            let text = format!("{} {}", clear.operator.sign(), clear.limit);
            return Err(keys.wrong("clear", at, &text, "what never holds together with raise"));
        }
        Some((clear, _)) => clear,
        None => raise.negation(),
    };
    Ok(Level { severity, raise, clear, for_ms, is_limit: true })
}

/// The level of a condition that holds or does not.
fn truth(severity: Severity, for_ms: u64) -> Level {
    Level { severity, raise: Comparison::TRUE, clear: Comparison::TRUE.negation(), for_ms, is_limit: false }
}

fn too_many_metrics(keys: &Keys<'_>, at: usize) -> RuleError {
    keys.error(at, "the rules of a file read at most 65535 metrics".to_owned())
}

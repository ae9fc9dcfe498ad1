//! Tests of rules: samples given in a file, and what must be open when.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use penstock_proto::{Epoch, Lane, LogId, Seq};
use toml::de::{DeArray, DeTable, DeValue};

use super::draft::Read;
use super::error::{FileError, RuleError};
use super::file::document;
use super::reading::{Keys, Source, number, show_time, spelled};
use super::{Evaluator, Limits, RuleSet};
use crate::alerts::nouns::{Change, Edge, Origin, Position, Sample, Severity};

/// Tests of a file, at most.
const TESTS_MAX: usize = 1_000;
/// Series and expectations of a test, at most.
const PARTS_MAX: usize = 1_000;
/// Samples of a test, at most.
const SAMPLES_MAX: usize = 1_000_000;
/// The longest time that a test may span.
const SPAN_MS_MAX: u64 = 400 * 86_400_000;
/// When every test begins: in 2026, at midnight.
const START_MS: u64 = 1_767_225_600_000;

/// What came of the tests of a file.
#[derive(Debug)]
pub(crate) struct Report {
    /// What is wrong with either file, in its order. Rules and tests that are wrong are left out.
    pub(crate) errors: Vec<String>,
    pub(crate) outcomes: Vec<Outcome>,
}

/// What came of a test.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) name: String,
    /// What was not as expected; nothing if it passed.
    pub(crate) failures: Vec<String>,
}

impl Report {
    /// Whether both files are right and every test passed.
    pub(crate) fn is_well(&self) -> bool {
        self.errors.is_empty() && self.outcomes.iter().all(|outcome| outcome.failures.is_empty())
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for error in &self.errors {
            writeln!(f, "{error}")?;
        }
        for outcome in &self.outcomes {
            writeln!(
                f,
                "{}  {}",
                if outcome.failures.is_empty() { "ok    " } else { "FAILED" },
                outcome.name
            )?;
            for failure in &outcome.failures {
                writeln!(f, "        {failure}")?;
            }
        }
        let failed = self.outcomes.iter().filter(|outcome| !outcome.failures.is_empty()).count();
        write!(f, "{} passed, {failed} failed", self.outcomes.len() - failed)
    }
}

/// Runs the tests of one text against the rules of another. Each comes with the name of its file.
///
/// # Errors
///
/// Either is no TOML at all.
pub(crate) fn run(rules: (&str, &str), tests: (&str, &str)) -> Result<Report, FileError> {
    let parsed = RuleSet::parse(rules.0, rules.1)?;
    let source = Source::new(tests.1, tests.0);
    let document = document(&source, tests.0, tests.1)?;
    let mut report =
        Report { errors: parsed.errors.iter().map(ToString::to_string).collect(), outcomes: Vec::new() };
    let rules = Arc::new(parsed.rules);
    for (key, _) in document.get_ref().iter().filter(|(key, _)| key.get_ref() != "test") {
        let text = format!("there is no table {}; did you mean test?", key.get_ref());
        report.errors.push(source.wrong("the file", key.span().start, text).to_string());
    }
    let none = DeArray::new();
    let list = document.get_ref().get("test").and_then(|tests| tests.get_ref().as_array()).unwrap_or(&none);
    if list.is_empty() || list.len() > TESTS_MAX {
        let text = format!("{} tests: expected 1 to {TESTS_MAX}, each begun by [[test]]", list.len());
        report.errors.push(source.wrong("the file", 0, text).to_string());
        return Ok(report);
    }
    for (place, value) in list.iter().enumerate() {
        let at = value.span().start;
        let rule = format!("test number {}", place + 1);
        let table = value.get_ref().as_table();
        let test = match table {
            Some(table) => Test::read(&Keys::new(&source, table, &rule, at), &source, &rules),
            None => Err(source.wrong(&rule, at, "expected a table".to_owned())),
        };
        match test {
            Ok(test) => report.outcomes.push(test.run(&rules)),
            Err(error) => report.errors.push(error.to_string()),
        }
    }
    Ok(report)
}

/// A test, checked.
#[derive(Debug)]
struct Test {
    name: String,
    devices: Vec<Properties>,
    /// What is heard when from which device: entries by time, with the samples of each.
    entries: BTreeMap<(u64, usize), Vec<(u16, f64)>>,
    /// What must be open when.
    expected: Vec<(u64, BTreeSet<Open>)>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Properties {
    device: String,
    tenant: Option<String>,
    site: Option<String>,
    class: Option<String>,
    stream: Option<String>,
}

/// An open alert.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Open {
    device: String,
    rule: Box<str>,
    severity: Severity,
}

impl fmt::Display for Open {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {} ({})", self.rule, self.device, self.severity.name())
    }
}

impl Test {
    fn read(keys: &Keys<'_>, source: &Source<'_>, rules: &RuleSet) -> Read<Self> {
        keys.only(&[&["name", "series", "expect"]])?;
        let name = keys.text("name", "what the test shows")?;
        let Some(name) = name else { return Err(keys.missing("name", "what the test shows")) };
        let mut test = Self {
            name: name.value.to_owned(),
            devices: Vec::new(),
            entries: BTreeMap::new(),
            expected: Vec::new(),
        };
        let called = format!("test \"{}\"", test.name);
        for keys in tables(keys, source, "series", &called)? {
            test.series(&keys, rules)?;
        }
        for keys in tables(keys, source, "expect", &called)? {
            test.expect(&keys, source, rules)?;
        }
        Ok(test)
    }

    fn series(&mut self, keys: &Keys<'_>, rules: &RuleSet) -> Read<()> {
        const VALUES: &str = "values as in \"80 91x3 _ 0+5x4 (1 2)x3\", or a list of numbers";
        keys.only(&[&["device", "tenant", "site", "class", "stream", "metric", "start", "every", "values"]])?;
        let text = |key| Ok(keys.text(key, "a text")?.map(|text| text.value.to_owned()));
        let Some(device) = text("device")? else { return Err(keys.missing("device", "a device key")) };
        let properties = Properties {
            device,
            tenant: text("tenant")?,
            site: text("site")?,
            class: text("class")?,
            stream: text("stream")?,
        };
        let known = self.devices.iter().position(|known| *known == properties);
        let place = known.unwrap_or_else(|| {
            self.devices.push(properties);
            self.devices.len() - 1
        });
        let metric = keys.text("metric", "the name of a metric")?;
        let metric = metric.map(|name| (rules.metric(name.value), name));
        if let Some((None, name)) = metric {
            return Err(keys.wrong("metric", name.at, name.value, "a metric that a rule reads"));
        }
        let metric = metric.and_then(|(metric, _)| metric);
        let start = keys.time("start", 0, SPAN_MS_MAX)?.map_or(0, |start| start.value);
        let every = keys.time("every", 1, SPAN_MS_MAX)?.map_or(1_000, |every| every.value);
        let Some(value) = keys.value("values") else { return Err(keys.missing("values", VALUES)) };
        let at = value.span().start;
        let values = values(value.get_ref());
        let values = values.ok_or_else(|| keys.wrong("values", at, &spelled(value.get_ref()), VALUES))?;
        let mut at_ms = start;
        for value in values {
            if let Some(value) = value {
                let samples = self.entries.entry((at_ms, place)).or_default();
                samples.extend(metric.map(|metric| (metric, value)));
            }
            at_ms = at_ms.saturating_add(every);
        }
        if at_ms > 2 * SPAN_MS_MAX || self.entries.len() > SAMPLES_MAX {
            return Err(keys.error(at, "a test has at most 1000000 samples in 400 days".to_owned()));
        }
        Ok(())
    }

    fn expect(&mut self, keys: &Keys<'_>, source: &Source<'_>, rules: &RuleSet) -> Read<()> {
        keys.only(&[&["at", "alerts"]])?;
        let Some(at) = keys.time("at", 0, 2 * SPAN_MS_MAX)? else {
            return Err(keys.missing("at", "a time from the beginning, such as \"20s\""));
        };
        if !keys.has("alerts") {
            return Err(keys.missing("alerts", "everything that is open then; an empty list if nothing is"));
        }
        let mut open = BTreeSet::new();
        let called = format!("test \"{}\"", self.name);
        for keys in tables(keys, source, "alerts", &called)? {
            keys.only(&[&["rule", "device", "severity"]])?;
            let Some(rule) = keys.text("rule", "the id of a rule")? else {
                return Err(keys.missing("rule", "the id of a rule"));
            };
            let Some(place) = rules.find(rule.value) else {
                return Err(keys.wrong("rule", rule.at, rule.value, "the id of a rule that can be used"));
            };
            let Some(device) = keys.text("device", "a device key")? else {
                return Err(keys.missing("device", "a device key"));
            };
            let severity = super::draft::severity(&keys, "severity")?;
            let severity = severity.map_or(rules.rule(place).severity, |given| given.value);
            open.insert(Open { device: device.value.to_owned(), rule: rule.value.into(), severity });
        }
        self.expected.push((at.value, open));
        Ok(())
    }

    fn run(mut self, rules: &Arc<RuleSet>) -> Outcome {
        let mut evaluator = Evaluator::new(Arc::clone(rules), Limits::default());
        let mut open = BTreeMap::new();
        let mut failures = Vec::new();
        self.expected.sort_by_key(|(at_ms, _)| *at_ms);
        let mut expected = self.expected.into_iter().peekable();
        let last = expected.len();
        for (seq, ((at_ms, place), samples)) in (1..).zip(self.entries) {
            while let Some((due_ms, wanted)) = expected.next_if(|(due_ms, _)| *due_ms < at_ms) {
                evaluator.advance(START_MS + due_ms, &mut |edge| note(&mut open, rules, &edge));
                failures.extend(difference(due_ms, &wanted, &open));
            }
            evaluator.advance(START_MS + at_ms, &mut |edge| note(&mut open, rules, &edge));
            let Some(device) = self.devices.get(place) else { continue };
            let sample = |(metric, value)| Sample { metric, value, at_ms: START_MS + at_ms };
            let samples: Vec<Sample> = samples.into_iter().map(sample).collect();
            let origin = device.origin(seq, START_MS + at_ms);
            evaluator.observe(&origin, &samples, &mut |edge| note(&mut open, rules, &edge));
        }
        for (due_ms, wanted) in expected {
            evaluator.advance(START_MS + due_ms, &mut |edge| note(&mut open, rules, &edge));
            failures.extend(difference(due_ms, &wanted, &open));
        }
        if last == 0 {
            failures.push("it expects nothing: give it [[test.expect]]".to_owned());
        }
        Outcome { name: self.name, failures }
    }
}

impl Properties {
    fn origin(&self, seq: u64, now_ms: u64) -> Origin<'_> {
        let (log, epoch, lane) = (LogId(1), Epoch(1), Lane::Telemetry);
        Origin {
            position: Position { log, epoch, lane, seq: Seq(seq) },
            device: &self.device,
            tenant: self.tenant.as_deref(),
            site: self.site.as_deref(),
            class: self.class.as_deref(),
            stream: self.stream.as_deref(),
            traceparent: None,
            now_ms,
        }
    }
}

type OpenAlerts = BTreeMap<(u16, String, Option<String>), Open>;

fn note(open: &mut OpenAlerts, rules: &RuleSet, edge: &Edge<'_>) {
    let subject = edge.subject;
    let key = (subject.rule, subject.device.to_owned(), subject.metric.map(str::to_owned));
    match edge.change {
        Change::Raised { severity, .. } | Change::Severity { severity, .. } => {
            let rule = rules.rule(subject.rule).id.clone();
            open.insert(key, Open { device: subject.device.to_owned(), rule, severity });
        }
        Change::Cleared => {
            open.remove(&key);
        }
    }
}

fn difference(at_ms: u64, wanted: &BTreeSet<Open>, open: &OpenAlerts) -> Vec<String> {
    let open: BTreeSet<Open> = open.values().cloned().collect();
    let at = show_time(at_ms);
    let missing =
        wanted.difference(&open).map(|alert| format!("at {at}: expected {alert}, which is not open"));
    let more =
        open.difference(wanted).map(|alert| format!("at {at}: {alert} is open, which was not expected"));
    missing.chain(more).collect()
}

/// The tables of a list.
fn tables<'a>(
    keys: &Keys<'a>,
    source: &'a Source<'a>,
    key: &str,
    called: &'a str,
) -> Result<Vec<Keys<'a>>, RuleError> {
    let Some(value) = keys.value(key) else { return Ok(Vec::new()) };
    let wrong =
        || keys.wrong(key, value.span().start, &spelled(value.get_ref()), "a list of at most 1000 tables");
    let list = value.get_ref().as_array().filter(|list| list.len() <= PARTS_MAX).ok_or_else(wrong)?;
    let table = |item: &'a toml::Spanned<DeValue<'a>>| -> Result<Keys<'a>, RuleError> {
        let table: &'a DeTable<'a> = item.get_ref().as_table().ok_or_else(wrong)?;
        Ok(Keys::new(source, table, called, item.span().start))
    };
    list.iter().map(table).collect()
}

/// The values of a series; none where nothing is heard.
fn values(value: &DeValue<'_>) -> Option<Vec<Option<f64>>> {
    let mut values = Vec::new();
    match value {
        DeValue::Array(list) => {
            for item in list {
                values.push(Some(number(item.get_ref())?));
            }
        }
        DeValue::String(text) => {
            let mut rest: &str = text;
            while let Some((before, group)) = rest.split_once('(') {
                items(before, &mut values)?;
                let (group, after) = group.split_once(')')?;
                let (count, after) = after.split_once(char::is_whitespace).unwrap_or((after, ""));
                let count = count.strip_prefix('x')?.parse::<usize>().ok()?;
                let mut once = Vec::new();
                items(group, &mut once)?;
                if once.len().saturating_mul(count).saturating_add(values.len()) > SAMPLES_MAX {
                    return None;
                }
                values.extend(std::iter::repeat_n(once, count).flatten());
                rest = after;
            }
            items(rest, &mut values)?;
        }
        _ => return None,
    }
    (!values.is_empty()).then_some(values)
}

/// Values that are no group, each perhaps with a count.
fn items(text: &str, values: &mut Vec<Option<f64>>) -> Option<()> {
    for item in text.split_whitespace() {
        let (item, count) = match item.rsplit_once('x') {
            Some((item, count)) => (item, count.parse::<usize>().ok()?),
            None => (item, 1),
        };
        if values.len().saturating_add(count) > SAMPLES_MAX {
            return None;
        }
        values.extend(repeated(item, count)?);
    }
    Some(())
}

/// `91`, `_` for nothing, or `0+5` for a value that grows by five each time.
fn repeated(item: &str, count: usize) -> Option<Vec<Option<f64>>> {
    if item == "_" {
        return Some(vec![None; count]);
    }
    let finite = |text: &str| text.parse().ok().filter(|value: &f64| value.is_finite());
    if let Some(value) = finite(item) {
        return Some(vec![Some(value); count]);
    }
    // The sign of the step: not the first character, and not that of an exponent.
    let is_step = |(at, c): &(usize, char)| {
        let before = item.get(..*at).and_then(|before| before.chars().next_back());
        matches!(c, '+' | '-') && before.is_some_and(|before| before.is_ascii_digit() || before == '.')
    };
    let (at, _) = item.char_indices().find(is_step)?;
    let (first, step) = item.split_at_checked(at)?;
    let (first, step) = (finite(first)?, finite(step)?);
    let value = |number: u32| Some(first + f64::from(number) * step).filter(|value| value.is_finite());
    Some((0..u32::try_from(count).ok()?).map(value).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULES: &str = "[[rule]]\nid = \"hot\"\nmetric = \"temp\"\nraise = \"> 90\"\nclear = \"< 85\"\nfor = \"10s\"\n\
        critical = { raise = \"> 105\", for = \"0s\" }\n\
        [[rule]]\nid = \"silent\"\nkind = \"deadman\"\nexpect_every = \"30s\"\nmissed = 2\nseverity = \"info\"\n";

    fn check(tests: &str, passes: bool, part: &str) {
        let report = run((RULES, "rules.toml"), (tests, "tests.toml")).expect("TOML");
        let shown = report.to_string();
        assert_eq!(report.is_well(), passes, "{shown}");
        assert!(shown.contains(part), "{shown}");
    }

    #[test]
    fn tests_say_what_is_open_when() {
        let series = "[[test]]\nname = \"t\"\n\
            series = [{ device = \"d\", metric = \"temp\", every = \"5s\", values = \"80 91x3 106 84 _x3\" }]\n";
        let good = "[[test.expect]]\nat = \"14s\"\nalerts = []\n\
            [[test.expect]]\nat = \"15s\"\nalerts = [{ rule = \"hot\", device = \"d\" }]\n\
            [[test.expect]]\nat = \"20s\"\nalerts = [{ rule = \"hot\", device = \"d\", severity = \"critical\" }]\n\
            [[test.expect]]\nat = \"84s\"\nalerts = []\n\
            [[test.expect]]\nat = \"85s\"\nalerts = [{ rule = \"silent\", device = \"d\" }]\n";
        check(&format!("{series}{good}"), true, "ok      t\n1 passed, 0 failed");
        let bad = good.replace("severity = \"critical\"", "severity = \"info\"").replace("84s", "85s");
        check(
            &format!("{series}{bad}"),
            false,
            "FAILED  t\n        at 20s: expected hot of d (info), which is not open\n        \
             at 20s: hot of d (critical) is open, which was not expected\n        \
             at 85s: silent of d (info) is open",
        );
    }

    #[test]
    fn series_without_a_metric_are_only_heard() {
        check(
            "[[test]]\nname = \"t\"\nseries = [{ device = \"d\", every = \"10s\", values = \"1x6 _x6 1\" }]\n\
             expect = [{ at = \"110s\", alerts = [{ rule = \"silent\", device = \"d\" }] }, { at = \"120s\", alerts = [] }]\n",
            true,
            "1 passed",
        );
    }

    #[test]
    fn mistakes_in_tests_are_named_with_their_place() {
        for (test, part) in [
            ("", "tests.toml:1:1: the file: 0 tests"),
            ("[[tests]]\nname = \"t\"", "there is no table tests"),
            ("[[test]]", "tests.toml:1:1: test number 1: name is missing"),
            ("[[test]]\nname = \"t\"", "it expects nothing"),
            (
                "[[test]]\nname = \"t\"\nseries = [{ device = \"d\", metric = \"tmp\", values = \"1\" }]",
                "a metric that a rule reads",
            ),
            ("[[test]]\nname = \"t\"\nseries = [{ device = \"d\", values = \"1y\" }]", "values = \"1y\""),
            ("[[test]]\nname = \"t\"\nseries = [{ device = \"d\", values = \"1x2000000\" }]", "values = "),
            ("[[test]]\nname = \"t\"\nexpect = [{ at = \"5s\" }]", "alerts is missing"),
            (
                "[[test]]\nname = \"t\"\nexpect = [{ at = \"5s\", alerts = [{ rule = \"cold\", device = \"d\" }] }]",
                "can be used",
            ),
        ] {
            check(test, false, part);
        }
    }

    #[test]
    fn values_repeat_pause_and_climb() {
        let read = |text: &str| values(&DeValue::String(text.into()));
        assert_eq!(read("1 2x2 _"), Some(vec![Some(1.0), Some(2.0), Some(2.0), None]));
        assert_eq!(read("0+5x3"), Some(vec![Some(0.0), Some(5.0), Some(10.0)]));
        assert_eq!(read("-1-0.5x2"), Some(vec![Some(-1.0), Some(-1.5)]));
        assert_eq!(read("1e-2x2"), Some(vec![Some(0.01), Some(0.01)]));
        assert_eq!(read("1 (2x2 _)x2 3"), read("1 2x2 _ 2x2 _ 3"));
        assert_eq!(read("(1)x1000000").map(|values| values.len()), Some(1_000_000));
        for text in ["(1)x1000001", "(1 2)x500000 1", "(1", "(1)", "1)x2", "((1)x2)x2", "(1)x2x3", "(1)x-1"] {
            assert_eq!(read(text), None, "{text}");
        }
        for text in ["", "x", "x3", "1x", "nan", "inf", "1+", "a+b", "1x-1"] {
            assert_eq!(read(text), None, "{text}");
        }
    }
}

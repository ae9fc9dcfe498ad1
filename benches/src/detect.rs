//! `detect`: what rules cost, in processor time and memory.
//!
//! Messages of a fleet are given to the same engine that runs in the gateway, without its outbox, in one thread. What a
//! rule costs is the difference between runs with many rules and with one, so that reading the payload is not counted
//! to it. Figures are processor time, not wall time.

use std::fmt::Write;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use penstock::alerts::learned::exam::{self, Calibration, Recall};
use penstock::alerts::learned::{Detector, Series, Settings, Tuning};
use penstock::alerts::{Rules, Trial};
use penstock::outbox::{Properties, Record};
use penstock_proto::{Epoch, LogId, Seq};
use serde::Serialize;
use testkit::process::Usage;

use crate::bars::Bar;
use crate::machine::Machine;
use crate::stats::median;

/// When the fleet begins to speak, in Unix milliseconds, and how far its rounds are apart.
const START_MS: u64 = 1_790_000_000_000;
const EVERY_MS: u64 = 1_000;
/// Static rules that are added to tell what one costs.
const RULES: u32 = 10;
/// Windows of rules that learn, as in the rules: one message in each until they are past their beginning, then some
/// that are timed, and then a minute with a message a second.
const WINDOW_MS: u64 = 60_000;
const WARM_WINDOWS: u32 = 45;
const TIMED_WINDOWS: u32 = 10;
const SECONDS: u32 = 60;
/// Series of the detector alone for each device, so that they do not fit into any cache, and their measurements: until
/// they are warm, and then timed.
const SERIES: u32 = 2;
const WARM_ROUNDS: u32 = 60;
const TIMED_ROUNDS: u32 = 60;

/// What is measured.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    /// Devices, each with three metrics in one message.
    pub devices: u32,
    /// Messages of each device.
    pub rounds: u32,
    /// How often everything is measured; figures are medians.
    pub repeats: u32,
}

/// Everything one run found.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// Which benchmark.
    pub benchmark: &'static str,
    /// Where and when.
    pub machine: Machine,
    /// As planned.
    pub devices: u32,
    /// Nanoseconds per message: reading three numbers out of JSON and one rule.
    pub message_ns: f64,
    /// Nanoseconds per sample that a further static rule costs.
    pub rule_ns: f64,
    /// Nanoseconds that an expression over two metrics costs per evaluation.
    pub expression_ns: f64,
    /// Bytes of memory that a series of a further static rule costs.
    pub rule_bytes: f64,
    /// Share of one core for 300,000 samples per second under all rules, in percent.
    pub core_percent: f64,
    /// The same with rules that learn every series, on windows of a minute.
    pub learned_core_percent: f64,
    /// Nanoseconds that the end of a window of a learned series costs, in a sweep over all series.
    pub learned_window_ns: f64,
    /// Nanoseconds of the detector alone per measurement, in a sweep over twice as many series as devices.
    pub detector_ns: f64,
    /// How many times too many or too few alerts the detector raised about noise, in the worst of all cases.
    pub budget_factor: f64,
    /// In how many of a hundred cases it found a clear fault, of the one that it found least.
    pub recall_percent: f64,
    /// After how many measurements it found a clear fault on average, of the one that it found latest.
    pub recall_delay: f64,
    /// In how many of a hundred cases it found something where nothing was wrong.
    pub false_percent: f64,
    /// Bytes of memory that a learned series costs.
    pub learned_bytes: f64,
    /// Memory of the process with all rules and devices and every series learned, in MiB.
    pub memory_mib: f64,
    /// The bars and whether they hold.
    pub bars: Vec<Bar>,
}

/// What one set of rules cost.
#[derive(Debug)]
struct Cost {
    /// Nanoseconds of processor time per message.
    message_ns: f64,
    /// Growth of resident memory, in bytes. Tells something only while nothing was freed before.
    bytes: f64,
    /// What took it.
    trial: Trial,
}

/// What rules take in memory.
#[derive(Debug, Clone, Copy)]
struct Memory {
    /// Bytes of a series of a further static rule.
    rule_bytes: f64,
    /// Bytes of a series that is learned.
    learned_bytes: f64,
    /// The process with a rule of every kind, in MiB.
    process_mib: f64,
}

impl Memory {
    /// Measures before anything else: what was freed would be used again and hide what is taken. So each trial is kept
    /// until all are measured.
    fn of(plan: &Plan) -> Result<Self> {
        let brief = Plan { rounds: 2, ..*plan };
        let learned = cost(&brief, &every_kind_and_learned())?;
        let rss = Usage::of(std::process::id()).context("the memory of this process")?.rss_bytes;
        let all = cost(&brief, &every_kind())?;
        let (one, many) = (cost(&brief, &one_rule())?, cost(&brief, &static_rules(1 + RULES))?);
        let series = |cost: &Cost| f64::from(u32::try_from(cost.trial.outcome().series).unwrap_or(u32::MAX));
        let each =
            |more: &Cost, less: &Cost| (more.bytes - less.bytes) / (series(more) - series(less)).max(1.0);
        let (rule_bytes, learned_bytes) = (each(&many, &one), each(&learned, &all));
        #[expect(clippy::cast_precision_loss, reason = "a size in MiB")]
        let process_mib = rss as f64 / f64::from(1 << 20);
        Ok(Self { rule_bytes, learned_bytes, process_mib })
    }
}

/// Measures.
///
/// # Errors
/// When the system does not tell what the process uses.
pub fn run(plan: &Plan, progress: fn(&str)) -> Result<Report> {
    let machine = Machine::look(Path::new("."));
    let memory = Memory::of(plan)?;
    let mut base = Vec::new();
    let mut many = Vec::new();
    let mut expression = Vec::new();
    let (mut all, mut windows, mut learned, mut detector) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for repeat in 1..=plan.repeats {
        // Compared with what ran beside it: the machine is not as fast at all times.
        let least = cost(plan, &one_rule())?.message_ns;
        many.push(cost(plan, &static_rules(1 + RULES))?.message_ns - least);
        expression.push(cost(plan, &format!("{}{EXPRESSION}", one_rule()))?.message_ns - least);
        base.push(least);
        let unlearned = cost(plan, &every_kind())?.message_ns;
        let (window, message) = learning(plan)?;
        all.push(unlearned);
        windows.push(window - unlearned);
        learned.push(message);
        detector.push(detecting(plan)?);
        progress(&format!("repeat {repeat} of {}: {:.0} ns per message", plan.repeats, ns(&base)));
    }
    let rule_ns = ns(&many) / f64::from(RULES);
    // Two of its metrics arrive in one message, which is one evaluation.
    let expression_ns = ns(&expression);
    // 100,000 messages of three samples in a second.
    let percent = |message_ns: f64| message_ns * 100_000.0 / 1e9 * 100.0;
    let (core_percent, learned_core_percent) = (percent(ns(&all)), percent(ns(&learned)));
    // Three windows end with a message.
    let learned_window_ns = ns(&windows) / 3.0;
    let detector_ns = ns(&detector);
    let budget_factor = exam::calibrate().iter().map(Calibration::factor).fold(1.0, f64::max);
    let found = exam::recall();
    let clear = || found.iter().filter(|recall| recall.fault.is_clear());
    let recall_percent = clear().map(|recall| recall.percent).fold(100.0, f64::min);
    let recall_delay = clear().map(|recall| recall.delay).fold(0.0, f64::max);
    let nothing = |recall: &&Recall| recall.fault == exam::Fault::Nothing;
    let false_percent = found.iter().find(nothing).map_or(100.0, |recall| recall.percent);
    let Memory { rule_bytes, learned_bytes, process_mib: memory_mib } = memory;
    let bars = vec![
        Bar::at_most("nanoseconds of a static rule per sample", rule_ns, 20.0),
        Bar::at_most("nanoseconds of an expression per evaluation", expression_ns, 1500.0),
        Bar::at_most("nanoseconds of the detector per measurement", detector_ns, 250.0),
        Bar::at_most("times a budget is missed on noise, at worst", budget_factor, 3.0),
        Bar::at_least("percent of clear faults that are found, at worst", recall_percent, 93.0),
        Bar::at_most("measurements until then, at worst", recall_delay, 3.0),
        Bar::at_most("bytes of a series of a static rule", rule_bytes, 64.0),
        Bar::at_most("bytes of a learned series", learned_bytes, 640.0),
        Bar::at_most("percent of a core, 300,000 samples/s under all rules", core_percent, 15.0),
        Bar::at_most("the same with every series learned", learned_core_percent, 15.0),
        Bar::at_most("MiB of the whole process", memory_mib, 300.0),
    ];
    Ok(Report {
        benchmark: "detect",
        machine,
        devices: plan.devices,
        message_ns: ns(&base),
        rule_ns,
        expression_ns,
        rule_bytes,
        core_percent,
        learned_core_percent,
        learned_window_ns,
        detector_ns,
        budget_factor,
        recall_percent,
        recall_delay,
        false_percent,
        learned_bytes,
        memory_mib,
        bars,
    })
}

fn ns(samples: &[f64]) -> f64 {
    median(samples).unwrap_or_default()
}

/// Devices and the rules that look at what they say.
#[derive(Debug)]
struct Fleet {
    names: Vec<String>,
    trial: Trial,
    at_ms: u64,
    seq: u64,
    round: u32,
}

impl Fleet {
    fn new(plan: &Plan, rules: &str) -> Result<Self> {
        let rules = Rules::parse(rules, "detect")?;
        if let Some(error) = rules.errors().next() {
            anyhow::bail!("{error}");
        }
        let names = (0..plan.devices).map(|device| format!("device-{device:06}")).collect();
        Ok(Self { names, trial: Trial::new(&rules, None), at_ms: START_MS, seq: 0, round: 0 })
    }

    /// Each device says something so often, so far apart. Returns the nanoseconds of processor time per message.
    fn speak(&mut self, rounds: u32, every_ms: u64) -> Result<f64> {
        let begun = Usage::of(std::process::id())?.cpu;
        let mut payload = String::new();
        for _ in 0..rounds {
            for (device, name) in (0_u32..).zip(&self.names) {
                self.seq += 1;
                payload.clear();
                let wave = f64::from((device + self.round * 7) % 100) / 10.0;
                write!(
                    payload,
                    "{{\"temperature\":{:.2},\"pressure\":{:.1},\"vibration\":{:.3},\"unit\":\"C\",\"ok\":true}}",
                    20.0 + wave,
                    100.0 + wave,
                    1.0 + wave / 10.0
                )?;
                let record = Record {
                    device: name,
                    topic: "devices/x/telemetry",
                    received_ms: self.at_ms,
                    qos: 1,
                    retain: false,
                    clock_synced: true,
                    properties: Properties::default(),
                    payload: payload.as_bytes(),
                };
                self.trial.apply((LogId(1), Epoch(1), Seq(self.seq)), &record, self.at_ms);
            }
            self.trial.take_outcomes(|_| Ok::<(), anyhow::Error>(()))?;
            self.at_ms += every_ms;
            self.round += 1;
        }
        let spent: Duration = Usage::of(std::process::id())?.cpu.saturating_sub(begun);
        let devices = u32::try_from(self.names.len()).context("devices")?;
        Ok(spent.as_secs_f64() * 1e9 / (f64::from(devices) * f64::from(rounds)))
    }
}

/// Gives the fleet's messages to rules.
fn cost(plan: &Plan, rules: &str) -> Result<Cost> {
    let before = Usage::of(std::process::id()).context("the memory of this process")?;
    let mut fleet = Fleet::new(plan, rules)?;
    // The first round makes the series, and is not timed.
    fleet.speak(1, EVERY_MS)?;
    let message_ns = fleet.speak(plan.rounds, EVERY_MS)?;
    let after = Usage::of(std::process::id())?;
    #[expect(clippy::cast_precision_loss, reason = "sizes of processes")]
    let bytes = after.rss_bytes as f64 - before.rss_bytes as f64;
    Ok(Cost { message_ns, bytes, trial: fleet.trial })
}

/// What a message costs under rules of every kind and one that learns: where each ends three windows, and where only
/// one in sixty does.
fn learning(plan: &Plan) -> Result<(f64, f64)> {
    let mut fleet = Fleet::new(plan, &every_kind_and_learned())?;
    fleet.speak(WARM_WINDOWS, WINDOW_MS)?;
    let window = fleet.speak(TIMED_WINDOWS, WINDOW_MS)?;
    Ok((window, fleet.speak(SECONDS, EVERY_MS)?))
}

/// Nanoseconds of processor time that the detector alone takes per measurement of series that are warm.
fn detecting(plan: &Plan) -> Result<f64> {
    let detector = Detector::new(Tuning::SHIPPED, Settings::every_ms(u32::try_from(WINDOW_MS)?));
    let mut series = vec![Series::NEW; usize::try_from(plan.devices * SERIES)?];
    let mut at_ms = START_MS;
    let mut sweep = |rounds: u32| -> Result<Duration> {
        let begun = Usage::of(std::process::id())?.cpu;
        for round in 0..rounds {
            for (number, series) in (0_u32..).zip(&mut series) {
                // Something like noise: the high bits of a product.
                let noise = (number ^ round.wrapping_mul(0x9E37_79B9)).wrapping_mul(0x85EB_CA6B) >> 16;
                let observed = detector.observe(series, at_ms, 50.0 + f64::from(noise) / 65_536.0);
                std::hint::black_box(observed).map_err(|why| anyhow::anyhow!("a measurement is {why:?}"))?;
            }
            at_ms += WINDOW_MS;
        }
        Ok(Usage::of(std::process::id())?.cpu.saturating_sub(begun))
    };
    sweep(WARM_ROUNDS)?;
    let spent = sweep(TIMED_ROUNDS)?;
    Ok(spent.as_secs_f64() * 1e9 / (f64::from(plan.devices * SERIES) * f64::from(TIMED_ROUNDS)))
}

fn one_rule() -> String {
    static_rules(1)
}

/// Thresholds on one metric that nothing passes, beside a rule on each of the other two.
fn static_rules(count: u32) -> String {
    let mut text = String::from(
        "[[rule]]\nid = \"p\"\nmetric = \"pressure\"\nraise = \"> 1000\"\n[[rule]]\nid = \"v\"\nmetric = \"vibration\"\nraise = \"> 1000\"\n",
    );
    for number in 0..count {
        text.push_str(&format!(
            "[[rule]]\nid = \"t{number}\"\nmetric = \"temperature\"\nraise = \"> {}\"\nclear = \"< 500\"\n",
            1000 + number
        ));
    }
    text
}

const EXPRESSION: &str =
    "[[rule]]\nid = \"both\"\nkind = \"expr\"\nexpr = \"temperature > 1000.0 && pressure < 1.0\"\n";

/// One of every deterministic kind.
fn every_kind() -> String {
    let rest = "[[rule]]\nid = \"rate\"\nkind = \"rate\"\nmetric = \"pressure\"\nraise = \"> 1000 per second\"\n\
         [[rule]]\nid = \"stuck\"\nkind = \"stuck\"\nmetric = \"vibration\"\nepsilon = 0.0001\nfor = \"10m\"\n\
         [[rule]]\nid = \"silent\"\nkind = \"deadman\"\nexpect_every = \"30s\"\nmissed = 3\n";
    format!("{}{rest}", one_rule())
}

/// The same, and each series learned by minutes.
fn every_kind_and_learned() -> String {
    let learned = "[[rule]]\nid = \"learned\"\nkind = \"learned\"\nmetrics = [\"temperature\", \"pressure\", \"vibration\"]\n\
         input = { every = \"1m\" }\n";
    format!("{}{learned}", every_kind())
}

impl Report {
    /// The figures as a table.
    ///
    /// # Errors
    /// Never: writing to a text does not fail.
    pub fn markdown(&self) -> Result<String> {
        let mut text = String::new();
        writeln!(text, "{}\n", self.machine.line())?;
        writeln!(text, "| {} devices, three metrics each | |\n|---|---|", self.devices)?;
        writeln!(text, "| message with one rule per metric, JSON read | {:.0} ns |", self.message_ns)?;
        writeln!(text, "| one more static rule, per sample | {:.1} ns |", self.rule_ns)?;
        writeln!(text, "| an expression, per evaluation | {:.0} ns |", self.expression_ns)?;
        writeln!(text, "| one more series of a static rule | {:.1} bytes |", self.rule_bytes)?;
        writeln!(text, "| 300,000 samples/s under all rules | {:.1} % of a core |", self.core_percent)?;
        writeln!(
            text,
            "| the same with every series learned | {:.1} % of a core |",
            self.learned_core_percent
        )?;
        writeln!(text, "| the detector alone, per measurement | {:.0} ns |", self.detector_ns)?;
        writeln!(text, "| the end of a window of a learned series | {:.0} ns |", self.learned_window_ns)?;
        writeln!(
            text,
            "| a budget of alerts is missed on noise, at worst, by | {:.1} times |",
            self.budget_factor
        )?;
        writeln!(
            text,
            "| clear faults found within 120 measurements, at worst | {:.1} % after {:.1} |",
            self.recall_percent, self.recall_delay
        )?;
        writeln!(text, "| found within 120 where nothing was wrong | {:.1} % |", self.false_percent)?;
        writeln!(text, "| one more learned series | {:.0} bytes |", self.learned_bytes)?;
        writeln!(text, "| the whole process | {:.0} MiB |", self.memory_mib)?;
        Bar::write(&self.bars, &mut text)?;
        Ok(text)
    }

    /// Whether every bar holds.
    #[must_use]
    pub fn pass(&self) -> bool {
        Bar::all(&self.bars)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rules_of_the_benchmark_are_rules_and_watch_what_they_should() {
        let plan = Plan { devices: 10, rounds: 2, repeats: 1 };
        let series = |rules: &str| cost(&plan, rules).unwrap().trial.outcome().series;
        assert_eq!(series(&one_rule()), 30);
        assert_eq!(series(&static_rules(11)), 130);
        assert_eq!(series(&format!("{}{EXPRESSION}", one_rule())), 60);
        assert_eq!(series(&every_kind()), 60);
        assert_eq!(series(&every_kind_and_learned()), 90);
        assert!(cost(&plan, "[[rule]]\nid = \"x\"\n").is_err());
    }
}

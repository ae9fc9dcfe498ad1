//! The figures as a table, held against their bars.

use std::fmt::{self, Write};

use serde::Serialize;

use super::scene::{Scene, Topics};
use super::{Plan, Sample, Side};
use crate::bars::Bar;
use crate::load::count;
use crate::machine::Machine;
use crate::peer::Peer;
use crate::stats;

/// Largest ratio of the gateway's processor time per delivery to mosquitto's.
const RATIO: f64 = 0.7;

/// Everything one run found.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// Which benchmark.
    pub benchmark: &'static str,
    /// Where and when.
    pub machine: Machine,
    /// Measured seconds of each sample.
    pub seconds: f64,
    /// Bytes of each payload.
    pub payload_bytes: usize,
    /// Every measurement, in the order taken.
    pub samples: Vec<Sample>,
    /// The bars and whether they hold.
    pub bars: Vec<Bar>,
}

impl fmt::Display for Side {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.peer {
            Peer::Penstock => write!(f, "penstock, {}", self.topics),
            peer => peer.fmt(f),
        }
    }
}

/// Every side, in the order of the table.
const SIDES: [Side; 4] = [
    Side { peer: Peer::Penstock, topics: Topics::Local },
    Side { peer: Peer::Penstock, topics: Topics::Telemetry },
    Side { peer: Peer::Mosquitto, topics: Topics::Local },
    Side { peer: Peer::Rumqttd, topics: Topics::Local },
];

const MOSQUITTO: Side = SIDES[2];

impl Report {
    pub(super) fn new(machine: Machine, plan: &Plan, samples: Vec<Sample>) -> Self {
        let (seconds, payload_bytes) = (plan.measure.as_secs_f64(), plan.payload_bytes);
        let bars = Vec::new();
        let mut report = Self { benchmark: "fanout", machine, seconds, payload_bytes, samples, bars };
        report.judge();
        report
    }

    fn judge(&mut self) {
        let mut bars = Vec::new();
        for scene in self.scenes() {
            for side in SIDES.into_iter().filter(|side| side.peer == Peer::Penstock) {
                let Some(ratio) = self.ratio(scene, side) else { continue };
                let name =
                    format!("processor time per delivery, {scene}, {}, ratio to mosquitto", side.topics);
                bars.push(Bar::at_most(name, ratio, RATIO));
            }
        }
        let ours = self.samples.iter().filter(|sample| sample.side.peer == Peer::Penstock);
        let lost: Vec<f64> = ours.map(|sample| count(sample.lost)).collect();
        if !lost.is_empty() {
            bars.push(Bar::at_most("deliveries that never came", lost.iter().sum(), 0.0));
        }
        self.bars = bars;
    }

    /// Whether every bar holds.
    pub fn pass(&self) -> bool {
        Bar::all(&self.bars)
    }

    /// The run as Markdown.
    ///
    /// # Errors
    /// None in practice: writing to a string does not fail.
    pub fn markdown(&self) -> Result<String, fmt::Error> {
        let mut text = String::new();
        writeln!(text, "{}.", self.machine.line())?;
        writeln!(text, "Payload {} bytes, {} s per sample.\n", self.payload_bytes, self.seconds)?;
        writeln!(
            text,
            "| scene | server | rounds | CPU µs/delivery, median (range) | ÷ mosquitto | deliveries/s | p50 ms | p99 ms | lost |"
        )?;
        writeln!(text, "|---|---|---|---|---|---|---|---|---|")?;
        for scene in self.scenes() {
            for side in SIDES {
                let all: Vec<&Sample> = self.of(scene, side).collect();
                let median = |of: fn(&Sample) -> f64| {
                    stats::median(&all.iter().map(|sample| of(sample)).collect::<Vec<_>>())
                };
                let Some(cpu) = median(|s| s.cpu_us) else { continue };
                let costs: Vec<f64> = all.iter().map(|sample| sample.cpu_us).collect();
                let (low, high) = stats::range(&costs).unwrap_or_default();
                let ratio =
                    self.ratio(scene, side).map_or_else(|| "-".to_owned(), |ratio| format!("{ratio:.2}"));
                writeln!(
                    text,
                    "| {scene} | {side} | {} | {cpu:.2} ({low:.2} to {high:.2}) | {ratio} | {:.0} | {:.2} | {:.2} | {} |",
                    all.len(),
                    median(|s| s.per_second).unwrap_or_default(),
                    median(|s| s.p50_ms).unwrap_or_default(),
                    median(|s| s.p99_ms).unwrap_or_default(),
                    all.iter().map(|sample| sample.lost).sum::<u64>()
                )?;
            }
        }
        Bar::write(&self.bars, &mut text)?;
        Ok(text)
    }

    /// The median over the rounds of the ratio to mosquitto within each round.
    fn ratio(&self, scene: Scene, side: Side) -> Option<f64> {
        let pairs = self.of(scene, side).zip(self.of(scene, MOSQUITTO));
        stats::median(&pairs.map(|(one, other)| one.cpu_us / other.cpu_us).collect::<Vec<_>>())
    }

    fn of(&self, scene: Scene, side: Side) -> impl Iterator<Item = &Sample> {
        self.samples.iter().filter(move |sample| (sample.scene, sample.side) == (scene, side))
    }

    fn scenes(&self) -> Vec<Scene> {
        let mut scenes: Vec<Scene> = Vec::new();
        for sample in &self.samples {
            if !scenes.contains(&sample.scene) {
                scenes.push(sample.scene);
            }
        }
        scenes
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::time::Duration;

    use super::*;
    use crate::fanout::scene::{Load, Shape};
    use crate::frames::Qos;

    fn report(costs: &[(Side, f64)], lost: u64) -> Report {
        let scene = Scene { shape: Shape::Out, qos: Qos::One, load: Load::Windowed };
        let sample = |&(side, cpu_us): &(Side, f64)| Sample {
            scene,
            side,
            cpu_us,
            per_second: 200_000.0,
            p50_ms: 5.0,
            p99_ms: 9.0,
            lost,
        };
        let plan = Plan {
            shapes: vec![Shape::Out],
            topics: vec![Topics::Local, Topics::Telemetry],
            peers: vec![Peer::Penstock, Peer::Mosquitto],
            rounds: 1,
            warm_up: Duration::ZERO,
            measure: Duration::from_secs(2),
            payload_bytes: 200,
        };
        Report::new(Machine::look(Path::new(".")), &plan, costs.iter().map(sample).collect())
    }

    #[test]
    fn local_and_telemetry_each_have_a_bar() {
        let report = report(&[(SIDES[0], 1.0), (SIDES[1], 3.0), (MOSQUITTO, 4.0)], 0);
        let passed: Vec<bool> = report.bars.iter().map(|bar| bar.pass).collect();
        assert_eq!(passed, [true, false, true]);
        let text = report.markdown().unwrap();
        let line = "| 1 to 1000, QoS 1, window 16 | penstock, telemetry | 1 | 3.00 (3.00 to 3.00) | 0.75 | 200000 | 5.00 | 9.00 | 0 |";
        assert!(text.contains(line), "{text}");
    }

    #[test]
    fn a_lost_delivery_is_no_good_result() {
        assert!(!report(&[(SIDES[0], 1.0), (MOSQUITTO, 4.0)], 1).pass());
        assert!(report(&[(SIDES[0], 1.0), (MOSQUITTO, 4.0)], 0).pass());
    }
}

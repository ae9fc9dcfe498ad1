//! `fanout`: what it costs to bring a message to its subscribers, beside brokers that do nothing else.
//!
//! Deliveries are what counts: the server's processor time in the measured time, publishes taken in included, divided
//! by the messages that subscribers read in it. The gateway is measured twice: with topics of no template, where it
//! only routes, and with telemetry, which it also stores and syncs; the brokers store nothing either way.

mod flow;
pub mod scene;
mod table;

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use serde::Serialize;
use testkit::gateway::Config;

pub use self::table::Report;
use crate::clock::now;
use crate::load::count;
use crate::machine::Machine;
use crate::peer::Peer;
use crate::servers::{Server, Wish};
use flow::Flow;
use scene::{Scene, Shape, Topics};

/// What is measured, and how long.
#[derive(Debug, Clone)]
pub struct Plan {
    /// How many on either side, in turn.
    pub shapes: Vec<Shape>,
    /// The topics the gateway is measured with, in turn.
    pub topics: Vec<Topics>,
    /// The servers.
    pub peers: Vec<Peer>,
    /// How many rounds; figures are medians over them.
    pub rounds: u32,
    /// Time under load before each measurement.
    pub warm_up: Duration,
    /// Time of each measurement.
    pub measure: Duration,
    /// Bytes of each payload.
    pub payload_bytes: usize,
}

/// A server, and for the gateway the topics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Side {
    /// The server.
    pub peer: Peer,
    /// The topics; to a broker all are the same.
    pub topics: Topics,
}

/// The figures of one measurement.
#[derive(Debug, Clone, Serialize)]
pub struct Sample {
    /// The arrangement.
    pub scene: Scene,
    /// The server and the topics.
    pub side: Side,
    /// The server's processor time per delivery, in microseconds.
    pub cpu_us: f64,
    /// Deliveries per second.
    pub per_second: f64,
    /// Median time from the write of a PUBLISH to the read of a delivery, in milliseconds.
    pub p50_ms: f64,
    /// 99th percentile of it.
    pub p99_ms: f64,
    /// Deliveries that never came, from the first publish to the last.
    pub lost: u64,
}

/// Runs the measurements with the servers' data in `folder`; `progress` hears of each.
///
/// # Errors
/// A server cannot be started, a connection fails or a subscription is refused.
pub async fn run(plan: &Plan, folder: &Path, progress: impl Fn(&str)) -> Result<Report> {
    let machine = Machine::look(folder);
    let mut samples = Vec::new();
    for round in 0..plan.rounds {
        for scene in scene::all(&plan.shapes) {
            for side in sides(plan, round) {
                let sample = sample(plan, folder, scene, side).await;
                let sample = sample.with_context(|| format!("round {}, {scene}, {side}", round + 1))?;
                progress(&format!(
                    "round {}: {scene}, {side}: {:.2} µs/delivery, {:.0}/s, p99 {:.2} ms, {} lost",
                    round + 1,
                    sample.cpu_us,
                    sample.per_second,
                    sample.p99_ms,
                    sample.lost
                ));
                samples.push(sample);
            }
        }
    }
    Ok(Report::new(machine, plan, samples))
}

fn sides(plan: &Plan, round: u32) -> Vec<Side> {
    let mut sides = Vec::new();
    for peer in Peer::order(&plan.peers, round) {
        match peer {
            Peer::Penstock => sides.extend(plan.topics.iter().map(|&topics| Side { peer, topics })),
            _ => sides.push(Side { peer, topics: Topics::Local }),
        }
    }
    sides
}

async fn sample(plan: &Plan, folder: &Path, scene: Scene, side: Side) -> Result<Sample> {
    let rule = side.topics.rule();
    let config =
        rule.into_iter().fold(Config::default(), |config, line| config.set("[mqtt.access.rule]", line));
    let server = Server::start_with(side.peer, folder, Wish { config, ..Wish::default() }).await?;
    let mut flow = Flow::start(server.address(), scene, side.topics, plan.payload_bytes).await?;
    tokio::time::sleep(plan.warm_up).await;
    flow.measure();
    let (start, cpu, delivered) = (now(), server.cpu()?, flow.delivered());
    tokio::time::sleep(plan.measure).await;
    let (elapsed, cpu) = (start.elapsed(), server.cpu()?.saturating_sub(cpu));
    let delivered = count(flow.delivered() - delivered);
    flow.check()?;
    let latency = flow.latency();
    let lost = flow.stop().await?;
    Ok(Sample {
        scene,
        side,
        cpu_us: cpu.as_secs_f64() * 1e6 / delivered.max(1.0),
        per_second: delivered / elapsed.as_secs_f64(),
        p50_ms: count(latency.value_at_percentile(50.0)) / 1e3,
        p99_ms: count(latency.value_at_percentile(99.0)) / 1e3,
        lost,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frames::Qos;
    use scene::Load;

    // Machines without the test packages cannot run this comparison at all; `xtask test` installs them.
    #[tokio::test]
    async fn deliveries_of_the_peer_broker_are_counted_and_none_is_lost() {
        let folder = tempfile::tempdir().unwrap();
        let plan = Plan {
            shapes: vec![Shape::In],
            topics: vec![Topics::Local],
            peers: vec![Peer::Mosquitto],
            rounds: 1,
            warm_up: Duration::from_millis(50),
            measure: Duration::from_millis(200),
            payload_bytes: 200,
        };
        let side = Side { peer: Peer::Mosquitto, topics: Topics::Local };
        for (qos, load) in [(Qos::Zero, Load::Windowed), (Qos::One, Load::Fixed)] {
            let scene = Scene { shape: Shape::In, qos, load };
            let sample = sample(&plan, folder.path(), scene, side).await.unwrap();
            assert!(sample.per_second > 100.0 && sample.lost == 0, "{sample:?}");
            assert!(sample.p99_ms >= sample.p50_ms && sample.p50_ms > 0.0, "{sample:?}");
        }
    }
}

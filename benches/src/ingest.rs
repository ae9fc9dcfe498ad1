//! `ingest`: what durable acknowledgement costs beside brokers that store nothing.
//!
//! The gateway's uplink is off. Rounds of the servers alternate within one run, and every other round turns their
//! order round, so that what the machine does meanwhile hits all of them.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::cell::Cell;
use crate::load::{self, Load};
use crate::machine::Machine;
use crate::packets::Payloads;
use crate::peer::Peer;
use crate::probe;
use crate::report::{Report, Sample};
use crate::servers::Server;

/// Appends of one probe; there is one probe after every cell of a round.
const PROBE_APPENDS: usize = 50;

/// What is measured, and how long.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The cells, each measured once per round and server.
    pub cells: Vec<Cell>,
    /// How many rounds; figures are medians over them.
    pub rounds: u32,
    /// Time under load before each measurement.
    pub warm_up: Duration,
    /// Time of each measurement.
    pub measure: Duration,
    /// Bytes of each payload.
    pub payload_bytes: usize,
    /// The servers.
    pub peers: Vec<Peer>,
}

/// Runs the comparison with the servers' data in `folder`; `progress` hears of each sample.
///
/// # Errors
/// A server cannot be started or a connection fails.
pub async fn run(plan: &Plan, folder: &Path, progress: impl Fn(&str)) -> Result<Report> {
    let machine = Machine::look(folder);
    let payloads = Arc::new(Payloads::new(plan.payload_bytes)?);
    let (mut samples, mut probe_ms) = (Vec::new(), Vec::new());
    for round in 0..plan.rounds {
        for &cell in &plan.cells {
            for peer in Peer::order(&plan.peers, round) {
                let sample = sample(plan, folder, cell, peer, &payloads).await;
                let sample = sample.with_context(|| format!("round {}, {cell}, {peer}", round + 1))?;
                progress(&format!("round {}: {}", round + 1, sample.line()));
                samples.push(sample);
            }
            probe_ms.extend(probe::run(folder, PROBE_APPENDS).context("the probe cannot write")?);
        }
    }
    let mut report = Report {
        benchmark: "ingest",
        machine,
        seconds: plan.measure.as_secs_f64(),
        payload_bytes: plan.payload_bytes,
        samples,
        probe_ms,
        bars: Vec::new(),
    };
    report.judge();
    Ok(report)
}

async fn sample(
    plan: &Plan,
    folder: &Path,
    cell: Cell,
    peer: Peer,
    payloads: &Arc<Payloads>,
) -> Result<Sample> {
    let server = Server::start(peer, folder).await?;
    let load = Load {
        address: server.address(),
        cell,
        payloads: Arc::clone(payloads),
        warm_up: plan.warm_up,
        measure: plan.measure,
    };
    let outcome = load::run(&load, || server.cpu()).await?;
    Ok(Sample::new(cell, peer, &outcome))
}

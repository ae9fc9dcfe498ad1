//! `idle`: what a connection that says nothing costs: resident memory before and after many devices connect.

use std::fmt::{self, Write};
use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde::Serialize;

use crate::bars::Bar;
use crate::clock::now;
use crate::devices::{self, Greeting};
use crate::frames::Qos;
use crate::load::count;
use crate::machine::Machine;
use crate::peer::Peer;
use crate::servers::Server;

/// Descriptors kept free for everything but the idle connections, on either side.
const SPARE_DESCRIPTORS: u32 = 500;

/// How often resident memory is looked at until it rests.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// Longest wait for resident memory to rest.
const REST_WITHIN: Duration = Duration::from_secs(10);

/// Memory is at rest when it moved less than this between two looks.
const REST_BYTES: u64 = 64 * 1024;

/// Most resident bytes of an idle connection without TLS, its session included.
const BYTES_MAX: f64 = 2560.0;

/// Most resident bytes of a gateway without connections.
const GATEWAY_BYTES_MAX: f64 = 60e6;

/// What the idle devices are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// MQTT 3.1.1 with a clean session.
    Clean,
    /// MQTT 5 with a session that outlives the connection.
    Lasting,
    /// The same with one subscription at QoS 1, each device inside its own topics.
    Subscribed,
}

/// What is measured.
#[derive(Debug, Clone)]
pub struct Plan {
    /// How many connections are wanted; fewer if descriptors are short.
    pub connections: u32,
    /// The servers.
    pub peers: Vec<Peer>,
}

/// Memory of a server without and with idle connections.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Idle {
    /// The server.
    pub peer: Peer,
    /// What the devices are.
    pub kind: Kind,
    /// How many connections there were.
    pub connections: u32,
    /// Resident memory before, in bytes.
    pub rss_before: u64,
    /// Resident memory with all of them connected, in bytes.
    pub rss_after: u64,
    /// The server's processor time until they were, in microseconds per connection.
    pub cpu_us: f64,
}

/// Everything one run found.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// Which benchmark.
    pub benchmark: &'static str,
    /// Where and when.
    pub machine: Machine,
    /// Connections that were wanted.
    pub wanted: u32,
    /// Every measurement, in the order taken.
    pub samples: Vec<Idle>,
    /// The bars and whether they hold.
    pub bars: Vec<Bar>,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Clean => "no session",
            Self::Lasting => "lasting session",
            Self::Subscribed => "lasting session, one subscription",
        })
    }
}

impl Kind {
    /// What the server can be measured with: rumqttd's sessions never expire and need MQTT 5 on another port.
    fn of(peer: Peer) -> &'static [Self] {
        match peer {
            Peer::Rumqttd => &[Self::Clean],
            _ => &[Self::Clean, Self::Lasting, Self::Subscribed],
        }
    }

    fn greeting(self, index: u32) -> std::io::Result<Greeting> {
        let id = devices::id(index);
        match self {
            Self::Clean => Greeting::clean(&id),
            Self::Lasting => Greeting::lasting(&id),
            Self::Subscribed => {
                Greeting::lasting(&id)?.subscribed(&format!("devices/{id}/telemetry"), Qos::One)
            }
        }
    }
}

impl Idle {
    /// Resident bytes per connection.
    pub fn bytes_per_connection(&self) -> u64 {
        self.rss_after.saturating_sub(self.rss_before) / u64::from(self.connections.max(1))
    }
}

/// Runs the measurements with the servers' data in `folder`; `progress` hears of each.
///
/// # Errors
/// A server cannot be started, a device is refused, or the limit of descriptors leaves no room.
pub async fn run(plan: &Plan, folder: &Path, progress: impl Fn(&str)) -> Result<Report> {
    let machine = Machine::look(folder);
    let connections = possible(plan.connections)?;
    let mut samples = Vec::new();
    for &peer in &plan.peers {
        for &kind in Kind::of(peer) {
            let server = Server::start(peer, folder).await?;
            let idle = measure(&server, peer, kind, connections).await;
            let idle = idle.with_context(|| format!("{peer}, {kind}"))?;
            progress(&format!("{peer}, {kind}: {} bytes each", idle.bytes_per_connection()));
            samples.push(idle);
        }
    }
    let mut report =
        Report { benchmark: "idle", machine, wanted: plan.connections, samples, bars: Vec::new() };
    report.judge();
    Ok(report)
}

/// Connects the devices, waits until the server's memory rests, and compares.
async fn measure(server: &Server, peer: Peer, kind: Kind, connections: u32) -> Result<Idle> {
    let rss_before = at_rest(server).await?;
    let cpu_before = server.cpu()?;
    let streams = devices::connect_each(server.address(), connections, |index| kind.greeting(index)).await?;
    let cpu = server.cpu()?.saturating_sub(cpu_before);
    let rss_after = at_rest(server).await?;
    drop(streams);
    let cpu_us = cpu.as_secs_f64() * 1e6 / f64::from(connections.max(1));
    Ok(Idle { peer, kind, connections, rss_before, rss_after, cpu_us })
}

/// Waits until two looks in a row see the same memory; the last value when it never rests.
pub(crate) async fn at_rest(server: &Server) -> Result<u64> {
    let deadline = now() + REST_WITHIN;
    let mut last = server.usage()?.rss_bytes;
    while now() < deadline {
        tokio::time::sleep(LOOK_EVERY).await;
        let next = server.usage()?.rss_bytes;
        if next.abs_diff(last) < REST_BYTES {
            return Ok(next);
        }
        last = next;
    }
    Ok(last)
}

/// As many of the wanted connections as this process may open descriptors for. The server inherits the limit.
///
/// # Errors
/// The limit cannot be read or leaves no room.
pub fn possible(wanted: u32) -> Result<u32> {
    let limits =
        fs::read_to_string("/proc/self/limits").context("the limits of this process cannot be read")?;
    let soft = soft_limit(&limits).context("the limit of open files is not understood")?;
    match soft.saturating_sub(SPARE_DESCRIPTORS) {
        0 => bail!("a limit of {soft} open files leaves no room for connections; raise it with `ulimit -n`"),
        room => Ok(wanted.min(room)),
    }
}

fn soft_limit(limits: &str) -> Option<u32> {
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    match line.split_whitespace().next()? {
        "unlimited" => Some(u32::MAX),
        number => number.parse().ok(),
    }
}

impl Report {
    fn judge(&mut self) {
        let ours = || self.samples.iter().filter(|idle| idle.peer == Peer::Penstock);
        let plain = ours().filter(|idle| idle.kind != Kind::Subscribed);
        let mut bars: Vec<Bar> = plain
            .map(|idle| {
                let name = format!("resident bytes per idle connection, {}", idle.kind);
                Bar::at_most(name, count(idle.bytes_per_connection()), BYTES_MAX)
            })
            .collect();
        if let Some(idle) = ours().next() {
            let name = "resident bytes of an idle gateway";
            bars.push(Bar::at_most(name, count(idle.rss_before), GATEWAY_BYTES_MAX));
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
        let connections = self.samples.first().map_or(0, |idle| idle.connections);
        if connections < self.wanted {
            writeln!(text, "{connections} of {} connections: descriptors are short.", self.wanted)?;
        }
        writeln!(
            text,
            "\n| server | idle devices | connections | bytes each | CPU µs to connect one | MB without connections |"
        )?;
        writeln!(text, "|---|---|---|---|---|---|")?;
        for idle in &self.samples {
            writeln!(
                text,
                "| {} | {} | {} | {} | {:.1} | {:.1} |",
                idle.peer,
                idle.kind,
                idle.connections,
                idle.bytes_per_connection(),
                idle.cpu_us,
                count(idle.rss_before) / 1e6
            )?;
        }
        Bar::write(&self.bars, &mut text)?;
        Ok(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn idle(peer: Peer, kind: Kind, each: u64) -> Idle {
        let rss_before = 20_000_000;
        Idle { peer, kind, connections: 1000, rss_before, rss_after: rss_before + each * 1000, cpu_us: 12.0 }
    }

    #[test]
    fn the_soft_limit_is_the_first_column() {
        let limits = "Limit                     Soft Limit           Hard Limit           Units\n\
                      Max open files            1024                 20000                files\n";
        assert_eq!(soft_limit(limits), Some(1024));
        assert_eq!(soft_limit("Max open files  unlimited  unlimited  files\n"), Some(u32::MAX));
        assert_eq!(soft_limit("Max processes  1  1  processes\n"), None);
    }

    #[test]
    fn memory_is_divided_among_the_connections() {
        assert_eq!(idle(Peer::Penstock, Kind::Clean, 2500).bytes_per_connection(), 2500);
        let shrunk = Idle { rss_after: 0, ..idle(Peer::Penstock, Kind::Clean, 0) };
        assert_eq!(shrunk.bytes_per_connection(), 0);
    }

    #[test]
    fn sessions_have_a_bar_and_peers_have_none() {
        let samples = vec![
            idle(Peer::Penstock, Kind::Clean, 2500),
            idle(Peer::Penstock, Kind::Lasting, 2600),
            idle(Peer::Penstock, Kind::Subscribed, 2900),
            idle(Peer::Rumqttd, Kind::Clean, 44_000),
        ];
        let machine = Machine::look(Path::new("."));
        let mut report = Report { benchmark: "idle", machine, wanted: 18_000, samples, bars: Vec::new() };
        report.judge();
        let passed: Vec<bool> = report.bars.iter().map(|bar| bar.pass).collect();
        assert_eq!(passed, [true, false, true]);
        let text = report.markdown().unwrap();
        assert!(text.contains("1000 of 18000 connections: descriptors are short."), "{text}");
        assert!(text.contains("| rumqttd | no session | 1000 | 44000 | 12.0 | 20.0 |"), "{text}");
    }
}

//! `storm`: many devices reconnect at once while others publish: what the others notice, how fast the storm is taken
//! in, and what a connection costs.
//!
//! The storm's own processor time comes from the same machine, and with TLS it is as much as the server's, so what the
//! established devices notice is an upper bound. Their own side runs with real-time priority ([`crate::steady`]).

use std::fmt::{self, Write};
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::ValueEnum;
use serde::Serialize;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::ServerName;

use crate::bars::Bar;
use crate::cell::Cell;
use crate::clock::now;
use crate::devices::Greeting;
use crate::load::count;
use crate::machine::Machine;
use crate::packets::Payloads;
use crate::peer::Peer;
use crate::servers::{Server, Wish};
use crate::stats;
use crate::steady::Steady;
use crate::tls::Identity;

/// The established devices and what they publish altogether, in messages per second.
pub const ESTABLISHED: Cell = Cell { connections: 100, window: 16 };
/// See [`ESTABLISHED`].
pub const RATE: u32 = 2_000;

/// Bytes of each payload.
const PAYLOAD_BYTES: usize = 200;

/// How long the loss of the old connections is watched before the storm.
const LOSS: Duration = Duration::from_secs(1);

/// Devices that connect at once before the storm, where nothing is measured.
const CALM: usize = 64;

/// Longest time for one attempt to connect, and what a device waits after one that failed.
const ATTEMPT_WITHIN: Duration = Duration::from_secs(20);
const AGAIN_AFTER: Duration = Duration::from_millis(200);

/// Attempts of one device: a storm of handshakes may last longer than a server waits for each.
const ATTEMPTS_MAX: u32 = 100;

/// Largest ratio of the established devices' 99th percentile during the storm to before.
const P99_RATIO: f64 = 3.0;

/// How the devices of the storm connect.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Transport {
    /// TCP alone.
    Plain,
    /// A full TLS 1.3 handshake each.
    Tls,
}

/// What is measured.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The servers.
    pub peers: Vec<Peer>,
    /// How the storm connects, in turn.
    pub transports: Vec<Transport>,
    /// How many rounds; figures are medians over them.
    pub rounds: u32,
    /// Devices in the storm.
    pub devices: u32,
    /// Time under load before the measurement.
    pub warm_up: Duration,
    /// Time measured before the storm.
    pub before: Duration,
}

/// The figures of one storm.
#[derive(Debug, Clone, Serialize)]
pub struct Sample {
    /// The server.
    pub peer: Peer,
    /// How the storm connected.
    pub transport: Transport,
    /// Seconds until the last device had its CONNACK.
    pub seconds: f64,
    /// Devices that connected, per second.
    pub accepted_per_second: f64,
    /// Attempts that failed and were made again.
    pub again: u64,
    /// The server's processor time for one device; what the established devices cost before is taken off. In
    /// microseconds.
    pub cpu_us: f64,
    /// 99th percentile of the established devices' acknowledgement time before, in milliseconds.
    pub p99_before_ms: f64,
    /// The same of what they sent in the second in which all old connections ended.
    pub p99_loss_ms: f64,
    /// The same of what they sent during the storm.
    pub p99_during_ms: f64,
}

/// Everything one run found.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// Which benchmark.
    pub benchmark: &'static str,
    /// Where and when.
    pub machine: Machine,
    /// Devices in the storm.
    pub devices: u32,
    /// Whether the established devices' thread got real-time priority.
    pub realtime: bool,
    /// Every measurement, in the order taken.
    pub samples: Vec<Sample>,
    /// The bars and whether they hold.
    pub bars: Vec<Bar>,
}

impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Plain => "plain",
            Self::Tls => "TLS",
        })
    }
}

/// Runs the storms with the servers' data in `folder`; `progress` hears of each.
///
/// # Errors
/// A server cannot be started, or a device does not get in.
pub async fn run(plan: &Plan, folder: &Path, progress: impl Fn(&str)) -> Result<Report> {
    let machine = Machine::look(folder);
    let identity = Identity::make(folder)?;
    let (mut samples, mut realtime) = (Vec::new(), true);
    for round in 0..plan.rounds {
        for &transport in &plan.transports {
            for peer in Peer::order(&plan.peers, round) {
                if (peer, transport) == (Peer::Rumqttd, Transport::Tls) {
                    continue;
                }
                let sample = sample(plan, folder, peer, transport, &identity).await;
                let sample = sample.with_context(|| format!("round {}, {peer}, {transport}", round + 1))?;
                progress(&format!("round {}: {}", round + 1, sample.0.line()));
                realtime &= sample.1;
                samples.push(sample.0);
            }
        }
    }
    let (devices, bars) = (plan.devices, Vec::new());
    let mut report = Report { benchmark: "storm", machine, devices, realtime, samples, bars };
    report.judge();
    Ok(report)
}

async fn sample(
    plan: &Plan,
    folder: &Path,
    peer: Peer,
    transport: Transport,
    identity: &Identity,
) -> Result<(Sample, bool)> {
    let tls = (transport == Transport::Tls).then(|| identity.files.clone());
    let server = Server::start_with(peer, folder, Wish { tls, ..Wish::default() }).await?;
    let way = Way::of(&server, transport, identity)?;
    let payloads = Arc::new(Payloads::new(PAYLOAD_BYTES)?);
    let connected = way.storm(plan.devices, CALM).await.context("the devices before the storm")?;
    let established = Steady::start(server.address(), ESTABLISHED, &payloads, RATE).await?;
    tokio::time::sleep(plan.warm_up).await;
    let (start, cpu) = (now(), server.cpu()?);
    let before = established.measure(plan.before).await?;
    let steady_cpu = server.cpu()?.saturating_sub(cpu).as_secs_f64() / start.elapsed().as_secs_f64();

    established.begin().await?;
    drop(connected);
    tokio::time::sleep(LOSS).await;
    let loss = established.end().await?;

    let (start, cpu) = (now(), server.cpu()?);
    established.begin().await?;
    let stormed = way.storm(plan.devices, Semaphore::MAX_PERMITS).await?;
    let seconds = start.elapsed().as_secs_f64();
    let cpu = server.cpu()?.saturating_sub(cpu).as_secs_f64() - steady_cpu * seconds;
    let during = established.end().await?;
    let devices = f64::from(plan.devices.max(1));
    let sample = Sample {
        peer,
        transport,
        seconds,
        accepted_per_second: devices / seconds,
        again: stormed.again,
        cpu_us: cpu.max(0.0) * 1e6 / devices,
        p99_before_ms: before.ms(99.0),
        p99_loss_ms: loss.ms(99.0),
        p99_during_ms: during.ms(99.0),
    };
    Ok((sample, established.realtime()))
}

/// Where and how the storm connects.
struct Way {
    address: SocketAddr,
    tls: Option<(TlsConnector, ServerName<'static>)>,
}

/// Devices that are connected; dropped, they are gone.
struct Stormed {
    /// Held, not used: these devices are silent.
    _streams: Vec<Box<dyn Stream>>,
    again: u64,
}

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

impl Way {
    fn of(server: &Server, transport: Transport, identity: &Identity) -> Result<Self> {
        Ok(match transport {
            Transport::Plain => Self { address: server.address(), tls: None },
            Transport::Tls => Self {
                address: server.tls_address().context("the server has no TLS")?,
                tls: Some(identity.client()?),
            },
        })
    }

    /// Connects so many devices, so many of them at once.
    async fn storm(&self, devices: u32, at_once: usize) -> Result<Stormed> {
        let turns = Arc::new(Semaphore::new(at_once));
        let mut connecting = JoinSet::new();
        for index in 0..devices {
            let greeting = Greeting::clean(&format!("storm-{index:0>6}"))?;
            let persist = persist(self.address, self.tls.clone(), greeting);
            let turns = Arc::clone(&turns);
            connecting.spawn(async move {
                let _turn = turns.acquire().await?;
                persist.await
            });
        }
        let mut streams = Vec::with_capacity(usize::try_from(devices)?);
        let mut again = 0;
        while let Some(connected) = connecting.join_next().await {
            let (stream, failed) = connected??;
            streams.push(stream);
            again += u64::from(failed);
        }
        Ok(Stormed { _streams: streams, again })
    }
}

/// Tries until it is in; how often it was not.
async fn persist(
    address: SocketAddr,
    tls: Option<(TlsConnector, ServerName<'static>)>,
    greeting: Greeting,
) -> Result<(Box<dyn Stream>, u32)> {
    for failed in 0..ATTEMPTS_MAX {
        let attempt = attempt(address, tls.clone(), &greeting);
        match tokio::time::timeout(ATTEMPT_WITHIN, attempt).await {
            Ok(Ok(stream)) => return Ok((stream, failed)),
            Ok(Err(error)) if failed + 1 == ATTEMPTS_MAX => {
                return Err(error).context("a device of the storm does not get in");
            }
            _ => tokio::time::sleep(AGAIN_AFTER).await,
        }
    }
    bail!("a device of the storm got no answer")
}

async fn attempt(
    address: SocketAddr,
    tls: Option<(TlsConnector, ServerName<'static>)>,
    greeting: &Greeting,
) -> io::Result<Box<dyn Stream>> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let mut stream: Box<dyn Stream> = match tls {
        None => Box::new(stream),
        Some((connector, name)) => Box::new(connector.connect(name, stream).await?),
    };
    greeting.over(&mut stream).await?;
    Ok(stream)
}

impl Sample {
    fn ratio(&self) -> f64 {
        self.p99_during_ms / self.p99_before_ms.max(1e-3)
    }

    fn line(&self) -> String {
        format!(
            "{} {}: {:.0} accepted/s, {:.0} µs each, {} again; established p99 {:.2} ms before, {:.2} at the loss, \
             {:.2} during",
            self.peer,
            self.transport,
            self.accepted_per_second,
            self.cpu_us,
            self.again,
            self.p99_before_ms,
            self.p99_loss_ms,
            self.p99_during_ms
        )
    }
}

impl Report {
    fn judge(&mut self) {
        let bars = [Transport::Plain, Transport::Tls].into_iter().filter_map(|transport| {
            let ratio = self.median(Peer::Penstock, transport, Sample::ratio)?;
            let name = format!("ack p99 of the established during the storm ÷ before, {transport}");
            Some(Bar::at_most(name, ratio, P99_RATIO))
        });
        self.bars = bars.collect();
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
        let priority = if self.realtime { "with" } else { "WITHOUT" };
        writeln!(
            text,
            "{} devices lose their connections and reconnect at once; {} established ones publish {RATE} messages/s of {PAYLOAD_BYTES} bytes at QoS 1, \
             {priority} real-time priority.\n",
            self.devices, ESTABLISHED.connections
        )?;
        writeln!(
            text,
            "| storm | server | rounds | accepted/s | CPU µs/connect | tried again | ack p99 ms before | when all are lost | in the storm | ratio |"
        )?;
        writeln!(text, "|---|---|---|---|---|---|---|---|---|---|")?;
        for transport in [Transport::Plain, Transport::Tls] {
            for peer in [Peer::Penstock, Peer::Mosquitto, Peer::Rumqttd] {
                let median = |of: fn(&Sample) -> f64| self.median(peer, transport, of);
                let Some(ratio) = median(Sample::ratio) else { continue };
                writeln!(
                    text,
                    "| {transport} | {peer} | {} | {:.0} | {:.0} | {:.0} | {:.2} | {:.2} | {:.2} | {ratio:.2} |",
                    self.of(peer, transport).count(),
                    median(|s| s.accepted_per_second).unwrap_or_default(),
                    median(|s| s.cpu_us).unwrap_or_default(),
                    median(|s| count(s.again)).unwrap_or_default(),
                    median(|s| s.p99_before_ms).unwrap_or_default(),
                    median(|s| s.p99_loss_ms).unwrap_or_default(),
                    median(|s| s.p99_during_ms).unwrap_or_default(),
                )?;
            }
        }
        Bar::write(&self.bars, &mut text)?;
        Ok(text)
    }

    fn median(&self, peer: Peer, transport: Transport, of: impl Fn(&Sample) -> f64) -> Option<f64> {
        stats::median(&self.of(peer, transport).map(of).collect::<Vec<_>>())
    }

    fn of(&self, peer: Peer, transport: Transport) -> impl Iterator<Item = &Sample> {
        self.samples.iter().filter(move |sample| (sample.peer, sample.transport) == (peer, transport))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ratio_of_each_storm_counts_and_not_that_of_medians() {
        let sample = |p99_before_ms, p99_during_ms| Sample {
            peer: Peer::Penstock,
            transport: Transport::Tls,
            seconds: 2.0,
            accepted_per_second: 5000.0,
            again: 3,
            cpu_us: 180.0,
            p99_before_ms,
            p99_loss_ms: 3.0,
            p99_during_ms,
        };
        let samples = vec![sample(1.0, 2.0), sample(10.0, 20.0), sample(1.0, 9.0)];
        let machine = Machine::look(Path::new("."));
        let (devices, realtime, bars) = (10_000, true, Vec::new());
        let mut report = Report { benchmark: "storm", machine, devices, realtime, samples, bars };
        report.judge();
        assert_eq!(report.bars.len(), 1);
        assert!((report.bars[0].measured - 2.0).abs() < 1e-9 && report.pass(), "{:?}", report.bars);
        let text = report.markdown().unwrap();
        assert!(
            text.contains("| TLS | penstock | 3 | 5000 | 180 | 3 | 1.00 | 3.00 | 9.00 | 2.00 |"),
            "{text}"
        );
    }

    // Machines without the test packages cannot run this comparison at all; `xtask test` installs them.
    #[tokio::test]
    async fn a_small_storm_gets_into_the_peer_broker_both_ways() {
        let folder = tempfile::tempdir().unwrap();
        let identity = Identity::make(folder.path()).unwrap();
        let wish = Wish { tls: Some(identity.files.clone()), ..Wish::default() };
        let server = Server::start_with(Peer::Mosquitto, folder.path(), wish).await.unwrap();
        for transport in [Transport::Plain, Transport::Tls] {
            let way = Way::of(&server, transport, &identity).unwrap();
            assert_eq!(way.storm(5, 2).await.unwrap()._streams.len(), 5, "{transport}");
        }
    }
}

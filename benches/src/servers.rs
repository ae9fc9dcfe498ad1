//! The servers of the comparison as child processes, each killed when it is dropped.
//!
//! Every measurement gets a fresh server in a folder of its own, so that one round's data is no burden on the
//! next, and the data is removed at once: a minute of load is gigabytes.

use std::fmt::Write;
use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tempfile::TempDir;
use testkit::gateway::{Config, Gateway};
use testkit::process::{Process, Usage};

use crate::clock::now;
use crate::peer::Peer;
use crate::threads::{self, Threads};
use crate::uplink::backlog::Backlog;

/// The topic of the cloud stand-in and its partitions.
pub const TOPIC: (&str, u32) = ("telemetry", 4);

/// More connections than the benchmarks make; as many as descriptors allow count.
const CONNECTIONS_MAX: &str = "connections_max = 20000";

/// Longest time for the peer broker to listen.
const LISTEN_WITHIN: Duration = Duration::from_secs(10);

/// How often a listener is tried until it is there.
const TRY_EVERY: Duration = Duration::from_millis(20);

/// A running server.
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    tls: Option<SocketAddr>,
    pid: u32,
    running: Running,
    // After the process, so that the folder goes last.
    _folder: TempDir,
}

#[derive(Debug)]
enum Running {
    Gateway(Box<Gateway>),
    Broker { _killed_on_drop: Process },
}

/// What a measurement wants of a server, whichever it is.
#[derive(Debug, Clone, Default)]
pub struct Wish {
    /// The gateway's configuration beyond the defaults; its uplink is off in any case.
    pub config: Config,
    /// What rumqttd's local link consumes, as a gateway around it would; without, there is no link.
    pub consumed: Option<&'static str>,
    /// Certificate and key of a TLS listener. rumqttd gets none.
    pub tls: Option<(PathBuf, PathBuf)>,
}

/// What rumqttd's local link consumes where devices publish telemetry.
pub const TELEMETRY: &str = "devices/#";

/// Names the program that runs rumqttd; `cargo xtask bench` builds it and sets this.
const RUMQTTD_PROGRAM: &str = "PENSTOCK_BENCH_RUMQTTD";

impl Server {
    /// Starts the server with nothing in particular: the gateway with its defaults, where every acknowledgement waits
    /// for an fdatasync, and its uplink off; rumqttd with a local link for telemetry.
    ///
    /// # Errors
    /// It cannot be started or does not become ready.
    pub async fn start(peer: Peer, parent: &Path) -> Result<Self> {
        Self::start_with(peer, parent, Wish { consumed: Some(TELEMETRY), ..Wish::default() }).await
    }

    /// Starts the server as wished.
    ///
    /// # Errors
    /// It cannot be started or does not become ready.
    pub async fn start_with(peer: Peer, parent: &Path, wish: Wish) -> Result<Self> {
        match peer {
            Peer::Penstock => {
                let config = match &wish.tls {
                    Some((certificate, key)) => wish.config.tls(certificate, key),
                    None => wish.config,
                };
                let config = config.set("uplink", "enabled = false").set("mqtt", CONNECTIONS_MAX);
                Self::gateway_with(parent, config, None)
            }
            Peer::Mosquitto => Self::mosquitto(parent, wish.tls).await,
            Peer::Rumqttd => Self::rumqttd(parent, wish.consumed).await,
        }
    }

    /// Starts the gateway with this uplink, and with what is in an outbox already.
    ///
    /// # Errors
    /// It cannot be started or does not become ready.
    pub fn gateway_with(parent: &Path, config: Config, backlog: Option<&Backlog>) -> Result<Self> {
        let folder = folder(parent, "gateway-")?;
        if let Some(backlog) = backlog {
            backlog.copy_to(folder.path())?;
        }
        let mut gateway = Gateway::start(folder.path(), config.id("bench").set("log", "level = \"warn\""))?;
        let address = gateway.mqtt().parse().context("the gateway's address is not understood")?;
        let tls = gateway.mqtt_tls().map(str::parse).transpose();
        let tls = tls.context("the gateway's address is not understood")?;
        let pid = gateway.process().pid();
        Ok(Self { address, tls, pid, running: Running::Gateway(Box::new(gateway)), _folder: folder })
    }

    /// mosquitto as the current user: no persistence, no limits on windows and queues.
    async fn mosquitto(parent: &Path, certificate: Option<(PathBuf, PathBuf)>) -> Result<Self> {
        let folder = folder(parent, "mosquitto-")?;
        let address = free_address()?;
        let secure = match &certificate {
            Some((certificate, key)) => Some((free_address()?, certificate.as_path(), key.as_path())),
            None => None,
        };
        let file = folder.path().join("mosquitto.conf");
        fs::write(&file, mosquitto_config(address, secure, &user()?))?;
        let mut command = Command::new(program("mosquitto")?);
        command.arg("-c").arg(&file);
        let tls = secure.map(|(address, _, _)| address);
        Self::broker("mosquitto", command, folder, address, tls).await
    }

    /// rumqttd in a process of ours.
    async fn rumqttd(parent: &Path, consumed: Option<&str>) -> Result<Self> {
        let program = std::env::var_os(RUMQTTD_PROGRAM).context(
            "rumqttd is not built; `cargo xtask bench` does that, or leave it out with `--servers penstock,mosquitto`",
        )?;
        let folder = folder(parent, "rumqttd-")?;
        let address = free_address()?;
        let mut command = Command::new(program);
        command.arg(address.port().to_string()).args(consumed);
        Self::broker("rumqttd", command, folder, address, None).await
    }

    async fn broker(
        name: &str,
        mut command: Command,
        folder: TempDir,
        address: SocketAddr,
        tls: Option<SocketAddr>,
    ) -> Result<Self> {
        let mut process = Process::spawn(name, &mut command, &folder.path().join("log"))?;
        let deadline = now() + LISTEN_WITHIN;
        while tokio::net::TcpStream::connect(address).await.is_err() {
            if !process.running()? || now() > deadline {
                bail!("{name} does not listen; its last words:\n{}", process.stderr_tail());
            }
            tokio::time::sleep(TRY_EVERY).await;
        }
        let pid = process.pid();
        let running = Running::Broker { _killed_on_drop: process };
        Ok(Self { address, tls, pid, running, _folder: folder })
    }

    /// Where it takes MQTT connections, without TLS.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where it takes MQTT connections with TLS, if that was wished.
    pub fn tls_address(&self) -> Option<SocketAddr> {
        self.tls
    }

    /// Its processor time and resident memory.
    ///
    /// # Errors
    /// It ended.
    pub fn usage(&self) -> Result<Usage> {
        Usage::of(self.pid).context("the server has ended")
    }

    /// The processor time of its threads that live, to the nanosecond; none of a server's own end under load.
    ///
    /// # Errors
    /// It ended.
    pub fn cpu(&self) -> Result<Duration> {
        Ok(self.threads()?.values().sum())
    }

    /// The processor time of its threads.
    ///
    /// # Errors
    /// It ended.
    pub fn threads(&self) -> Result<Threads> {
        threads::of(self.pid).context("the server has ended")
    }

    /// The most memory that was resident so far, in bytes.
    ///
    /// # Errors
    /// It ended.
    pub fn rss_bytes_max(&self) -> Result<u64> {
        let status =
            fs::read_to_string(format!("/proc/{}/status", self.pid)).context("the server has ended")?;
        let kib = status.lines().find_map(|line| line.strip_prefix("VmHWM:")?.strip_suffix("kB"));
        let kib: u64 = kib.context("the kernel does not account for memory")?.trim().parse()?;
        Ok(kib * 1024)
    }

    /// Messages of lane `telemetry` that the cloud confirmed, in the order of the lane and without a hole; only of a
    /// gateway.
    ///
    /// # Errors
    /// It does not answer.
    pub fn confirmed(&self) -> Result<u64> {
        Ok(low(&self.metrics()?).map_or(0, |low| low - 1))
    }

    /// Its metrics; only of a gateway.
    ///
    /// # Errors
    /// It does not answer.
    pub fn metrics(&self) -> Result<String> {
        let Running::Gateway(gateway) = &self.running else { bail!("only a gateway has metrics") };
        gateway.health("/metrics")?.context("the gateway has no metrics")
    }
}

/// First position that is not confirmed; none before anything is.
fn low(metrics: &str) -> Option<u64> {
    let line = |line: &str| -> Option<u64> {
        line.strip_prefix("penstock_uplink_low_seq{lane=\"telemetry\"}")?.trim().parse().ok()
    };
    metrics.lines().find_map(line).filter(|low| *low > 0)
}

/// A new folder inside `parent`, which is made if need be.
///
/// # Errors
/// It cannot be made.
pub fn folder(parent: &Path, prefix: &str) -> Result<TempDir> {
    fs::create_dir_all(parent).with_context(|| format!("{} cannot be made", parent.display()))?;
    let folder = tempfile::Builder::new().prefix(prefix).tempdir_in(parent);
    folder.with_context(|| format!("no folder can be made in {}", parent.display()))
}

/// mosquitto drops to a user of its own when root starts it, unless told to stay; it must see its configuration.
fn mosquitto_config(address: SocketAddr, secure: Option<(SocketAddr, &Path, &Path)>, user: &str) -> String {
    let mut text = format!(
        "allow_anonymous true\npersistence false\nmax_inflight_messages 0\nmax_queued_messages 0\n\
         log_dest stderr\nlog_type error\nuser {user}\nlistener {} {}\n",
        address.port(),
        address.ip()
    );
    if let Some((address, certificate, key)) = secure {
        let _infallible = writeln!(
            text,
            "listener {} {}\ncertfile {}\nkeyfile {}",
            address.port(),
            address.ip(),
            certificate.display(),
            key.display()
        );
    }
    text
}

fn user() -> Result<String> {
    let output = Command::new("id").arg("-un").output().context("id cannot be started")?;
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// A port that is free now. Somebody else may take it before the server does, which the start then reports.
fn free_address() -> Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0").context("no free port")?;
    Ok(listener.local_addr()?)
}

fn program(name: &str) -> Result<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain(["/usr/sbin".into(), "/usr/local/sbin".into()]);
    let found = folders.map(|folder| folder.join(name)).find(|file| file.is_file());
    found.with_context(|| format!("{name} is not installed"))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::load::{self, Load};
    use crate::packets::Payloads;

    #[test]
    fn the_peer_stores_nothing_and_limits_nothing() {
        let config = mosquitto_config("127.0.0.1:77".parse().unwrap(), None, "me");
        let expected = ["listener 77 127.0.0.1", "persistence false", "max_inflight_messages 0", "user me"];
        assert!(expected.iter().all(|line| config.lines().any(|found| found == *line)), "{config}");
    }

    #[test]
    fn the_first_position_that_is_not_confirmed_is_found_in_the_metrics() {
        let metrics = "# HELP x\npenstock_uplink_low_seq{lane=\"status\"} 3\npenstock_uplink_low_seq{lane=\"telemetry\"} 70\n";
        assert_eq!(low(metrics), Some(70));
        assert_eq!(low("penstock_uplink_low_seq{lane=\"status\"} 3\n"), None);
    }

    // Machines without the test packages cannot run this comparison at all; `xtask test` installs them.
    #[tokio::test]
    async fn the_load_on_the_peer_broker_is_counted() {
        let parent = tempfile::tempdir().unwrap();
        let server = Server::start(Peer::Mosquitto, parent.path()).await.unwrap();
        let load = Load {
            address: server.address(),
            cell: "3x4".parse().unwrap(),
            payloads: Arc::new(Payloads::new(200).unwrap()),
            warm_up: Duration::from_millis(50),
            measure: Duration::from_millis(100),
        };
        let outcome = load::run(&load, || Ok(server.usage()?.cpu)).await.unwrap();
        assert!(outcome.acked > 0 && outcome.acked <= outcome.acked_total, "{outcome:?}");
        assert!(!outcome.latency.is_empty(), "{outcome:?}");
        assert!(server.usage().unwrap().rss_bytes > 0);
        drop(server);
        assert_eq!(fs::read_dir(parent.path()).unwrap().count(), 0);
    }

    #[tokio::test]
    async fn a_load_without_a_server_is_an_error() {
        let load = Load {
            address: free_address().unwrap(),
            cell: "1x1".parse().unwrap(),
            payloads: Arc::new(Payloads::new(200).unwrap()),
            warm_up: Duration::ZERO,
            measure: Duration::ZERO,
        };
        let error = load::run(&load, || Ok(Duration::ZERO)).await.unwrap_err();
        assert_eq!(error.to_string(), "device-000000 cannot connect");
    }
}

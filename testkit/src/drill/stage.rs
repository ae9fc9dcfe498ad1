//! A broker, a gateway that dies and comes back, and a fleet that goes on publishing meanwhile.
//!
//! The fleet keeps the ledger of what was acknowledged, reads back what arrived and judges. So a drill only
//! decides when and how the gateway dies, and on which data it comes back.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::time::Duration;

use serde_json::Value;

use super::broker::Broker;
use crate::cloud::ControlError;
use crate::gateway::{Config, Gateway};
use crate::kafka::KafkaError;
use crate::process::{self, Process, ProcessError};
use crate::report::Report;

/// The topic of a drill and its partitions.
const TOPIC: (&str, u32) = ("telemetry", 2);
/// The topic to which the gateway's own events go, so that the read-back has readings only.
pub const EVENTS: &str = "events";
/// A fleet that nobody stops publishes for this long.
const PUBLISH_FOR: Duration = Duration::from_secs(120);
/// Longest time after publishing for the fleet to drain, read back and judge.
const JUDGE_WITHIN: Duration = Duration::from_secs(90);
/// What a drill whose gateway dies has to allow.
const ALLOW: &str = "duplicated,resent";
/// Longest time for `penstock verify`.
const VERIFY_WITHIN: Duration = Duration::from_secs(60);

/// What the fleet does.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Load {
    /// From this the whole behaviour of the fleet follows.
    pub seed: u64,
    /// How many devices; half of them at QoS 1, half at QoS 2.
    pub devices: u32,
    /// Readings per second of the whole fleet.
    pub rate: u32,
    /// Bytes of each payload, from 150 to 65536.
    pub payload_bytes: u32,
    /// The read-back ends after this time without a new record.
    pub give_up_after: Duration,
}

/// What can go wrong on a stage. A lost message is not among it: that is in the [`Outcome`].
#[derive(Debug, thiserror::Error)]
pub enum StageError {
    /// A process could not be started, stopped or observed.
    #[error(transparent)]
    Process(#[from] ProcessError),
    /// The cloud stand-in did not do as told.
    #[error(transparent)]
    Cloud(#[from] ControlError),
    /// Apache Kafka did not do as told.
    #[error(transparent)]
    Kafka(#[from] KafkaError),
    /// A file of the drill could not be used.
    #[error("{}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The gateway ended while nobody had killed it.
    #[error("the gateway ended by itself ({status}); its last words:\n{words}")]
    Ended {
        /// How.
        status: ExitStatus,
        /// The end of its log.
        words: String,
    },
}

/// What is on the stage, and for how long.
#[derive(Debug)]
pub struct Scene<'a> {
    /// Where logs and reports go.
    pub folder: &'a Path,
    /// Where the gateway's data lie.
    pub home: &'a Path,
    /// The topic of the readings; the gateway's own events go to [`EVENTS`].
    pub topic: &'a str,
    /// Whether the gateway uses the broker's listener with TLS.
    pub secured: bool,
    /// The gateway's configuration, to which the uplink and the topics are added.
    pub config: Config,
    /// What the fleet does.
    pub load: Load,
    /// Further lines of the fleet's profile, after those that the load makes.
    pub profile: &'a str,
    /// How long it does so unless the drill ends before.
    pub publish_for: Duration,
    /// Longest time after publishing for the fleet to drain, read back and judge.
    pub judge_within: Duration,
    /// Whether `penstock verify` also reads the gateway's own events, which name what it let go.
    pub with_events: bool,
    /// What the fleet's verdict tolerates, in the words of `firmware-sim run --allow`; may be empty.
    pub allow: &'a str,
}

/// How a life of the gateway ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Death {
    /// It killed itself at the point it was ordered to.
    AtPoint,
    /// It was killed when the time was up.
    InTime,
}

/// How a life began.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Birth {
    /// It is ready for devices.
    Ready,
    /// It killed itself before it was, at the point it was ordered to.
    Stillborn,
}

/// What a drill found in the end.
#[derive(Debug)]
pub struct Outcome {
    /// The fleet's report, with its verdict.
    pub report: Report,
    /// How the gateway ended when it was asked to stop.
    pub stopped: ExitStatus,
    /// How `penstock verify` ended.
    pub verified: ExitStatus,
    /// What it said.
    pub verify_said: String,
    /// Its counts: `records`, `gaps`, `duplicates` and so on.
    pub verify_totals: Value,
    /// Incidents that the gateway announced, by the paths of their reports.
    pub incidents: Vec<PathBuf>,
}

/// A fleet at work on a gateway. Everything is killed when it is dropped.
#[derive(Debug)]
pub struct Stage {
    folder: PathBuf,
    // Dropped in this order: the fleet first, the cloud last.
    fleet: Process,
    gateway: Gateway,
    broker: Broker,
    topic: String,
    with_events: bool,
    judge_within: Duration,
    /// Where the gateway's present data lie; its outbox is the folder `outbox` in there.
    home: PathBuf,
}

impl Stage {
    /// Starts a cloud in `folder`, a gateway whose data lie below `home`, and a fleet.
    ///
    /// # Errors
    /// When one of them does not get ready.
    pub fn set(folder: &Path, home: &Path, config: Config, load: Load) -> Result<Stage, StageError> {
        let broker = Broker::sim(folder, &[TOPIC, (EVENTS, 1)])?;
        let scene = Scene {
            folder,
            home,
            topic: TOPIC.0,
            secured: false,
            config,
            load,
            profile: "",
            publish_for: PUBLISH_FOR,
            judge_within: JUDGE_WITHIN,
            with_events: false,
            allow: ALLOW,
        };
        Stage::open(scene, broker)
    }

    /// Starts a gateway and a fleet with a broker that is there already.
    ///
    /// # Errors
    /// When one of them does not get ready.
    pub fn open(scene: Scene<'_>, broker: Broker) -> Result<Stage, StageError> {
        let Scene { folder, home, topic, .. } = scene;
        for path in [folder, home] {
            fs::create_dir_all(path).map_err(|source| StageError::File { path: path.to_owned(), source })?;
        }
        let config = scene.config.clone().id("drill").events(EVENTS);
        let config = match broker.secured().filter(|_| scene.secured) {
            Some(listener) => {
                let text = |path: &Path| format!("{:?}", path.to_string_lossy());
                let file = text(&listener.connection_string_file);
                config
                    .set("uplink", &format!("bootstrap_servers = {:?}", listener.address))
                    .set("uplink", &format!("connection_string_file = {file}"))
                    .set("uplink", &format!("ca_file = {}", text(&listener.ca_file)))
                    .set("uplink", &format!("topic = {topic:?}"))
            }
            None => config.uplink(&broker.address(), topic),
        };
        let gateway = Gateway::start(home, config)?;
        let fleet = start_fleet(&scene, gateway.mqtt(), &broker.address())?;
        Ok(Stage {
            folder: folder.to_owned(),
            fleet,
            gateway,
            broker,
            topic: topic.to_owned(),
            with_events: scene.with_events,
            judge_within: scene.judge_within,
            home: home.to_owned(),
        })
    }

    /// Whether the cloud takes what is sent; without it everything acknowledged is in the outbox alone.
    ///
    /// # Errors
    /// When the stand-in does not answer. A real broker is left alone.
    pub fn cloud_is_there(&self, there: bool) -> Result<(), StageError> {
        let Some(control) = self.broker.control() else { return Ok(()) };
        control.accepting(there)?;
        if !there {
            control.cut()?;
        }
        Ok(())
    }

    /// `host:port` of the cloud's Kafka listener, which lives as long as the stage.
    #[must_use]
    pub fn kafka(&self) -> String {
        self.broker.address()
    }

    /// The broker.
    pub fn broker(&mut self) -> &mut Broker {
        &mut self.broker
    }

    /// Ends the fleet and the gateway, and leaves the broker for the next scene.
    #[must_use]
    pub fn leave(self) -> Broker {
        self.broker
    }

    /// Whether the fleet still publishes, drains or reads back.
    ///
    /// # Errors
    /// When the system cannot tell.
    pub fn fleet_runs(&mut self) -> Result<bool, StageError> {
        Ok(self.fleet.running()?)
    }

    /// The gateway.
    pub fn gateway(&mut self) -> &mut Gateway {
        &mut self.gateway
    }

    /// Waits until the gateway kills itself, or kills it when the time is up.
    ///
    /// # Errors
    /// When it ends in another way.
    pub fn end_life(&mut self, within: Duration) -> Result<Death, StageError> {
        match self.gateway.process().wait(within) {
            Ok(status) if is_killed(status) => Ok(Death::AtPoint),
            Ok(status) => Err(self.ended(status)),
            Err(ProcessError::Late { .. }) => {
                let status = self.gateway.kill()?;
                // It may have reached its point between the deadline and the kill; nobody can tell.
                if is_killed(status) { Ok(Death::InTime) } else { Err(self.ended(status)) }
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Brings the gateway back on the data below `home`, on the same ports.
    ///
    /// # Errors
    /// When it refuses to start, or hangs.
    pub fn next_life(
        &mut self,
        home: &Path,
        environment: impl IntoIterator<Item = (&'static str, OsString)>,
    ) -> Result<Birth, StageError> {
        home.clone_into(&mut self.home);
        match self.gateway.resume(home, environment) {
            Ok(()) => Ok(Birth::Ready),
            Err(error) if error.is_killed() => Ok(Birth::Stillborn),
            Err(error) => Err(error.into()),
        }
    }

    /// Lets the fleet publish for a little longer, drain, read back and judge; then stops the gateway and verifies
    /// the topic.
    ///
    /// # Errors
    /// When one of the processes does not do its part.
    pub fn judge(&mut self, longer: Duration) -> Result<Outcome, StageError> {
        if matches!(self.fleet.wait(longer), Err(ProcessError::Late { .. })) {
            // The first of two: stop publishing, but wait for what is not answered yet.
            self.fleet.signal("INT")?;
        }
        self.fleet.wait(self.judge_within)?;
        if let Some(status) = self.gateway_ended()? {
            return Err(self.ended(status));
        }
        let stopped = self.gateway.stop()?;
        let (verified, verify_totals, verify_said) = self.verify()?;
        let path = self.folder.join("report.json");
        let report = Report::read(&path).map_err(|source| StageError::File { path, source })?;
        let incidents = incidents(&self.home.join("outbox"))?;
        Ok(Outcome { report, stopped, verified, verify_said, verify_totals, incidents })
    }

    fn gateway_ended(&mut self) -> Result<Option<ExitStatus>, StageError> {
        if self.gateway.process().running()? {
            return Ok(None);
        }
        Ok(Some(self.gateway.process().wait(Duration::from_secs(1))?))
    }

    fn verify(&self) -> Result<(ExitStatus, Value, String), StageError> {
        let mut command = Command::new(process::find("penstock")?);
        let events = if self.with_events { [",", EVENTS].concat() } else { String::new() };
        let topics = [self.topic.as_str(), events.as_str()].concat();
        command.args(["verify", "--json", "--bootstrap", &self.broker.address(), "--topic", &topics]);
        let mut verify = Process::spawn("penstock verify", &mut command, &self.folder.join("verify.log"))?;
        let status = verify.wait(VERIFY_WITHIN)?;
        let report: Value = serde_json::from_str(&verify.lines().join("\n")).unwrap_or_default();
        let totals = report["totals"].clone();
        Ok((status, totals.clone(), format!("{totals} {}", verify.stderr_tail())))
    }

    fn ended(&mut self, status: ExitStatus) -> StageError {
        StageError::Ended { status, words: self.gateway.process().stderr_tail() }
    }
}

impl Outcome {
    /// What was promised and not kept, one sentence each.
    #[must_use]
    pub fn broken(&self) -> Vec<String> {
        let mut broken = self.report.reasons.clone();
        if self.report.acked == 0 {
            broken.push("nothing was acknowledged, so nothing was proved".to_owned());
        }
        if self.stopped.code() != Some(0) {
            broken.push(format!("the gateway was asked to stop and ended with {}", self.stopped));
        }
        if !self.verified.success() {
            broken.push(format!("penstock verify ended with {}: {}", self.verified, self.verify_said.trim()));
        }
        for incident in &self.incidents {
            broken.push(format!("the gateway announced an incident: {}", incident.display()));
        }
        broken
    }
}

/// The reports of incidents in an outbox's directory.
///
/// # Errors
/// When the directory cannot be read.
pub fn incidents(outbox: &Path) -> Result<Vec<PathBuf>, StageError> {
    let folder = outbox.join("quarantine");
    let entries = match fs::read_dir(&folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other.and_then(|entries| entries.collect::<io::Result<Vec<_>>>()),
    };
    let entries = entries.map_err(|source| StageError::File { path: folder, source })?;
    // A death may leave one that is not complete; it then has another name, and the next opening makes its own.
    let folders = entries.into_iter().map(|entry| entry.path()).filter(|folder| folder.extension().is_none());
    Ok(folders.map(|folder| folder.join("incident.json")).collect())
}

fn is_killed(status: ExitStatus) -> bool {
    use std::os::unix::process::ExitStatusExt as _;
    const SIGKILL: i32 = 9;
    status.signal() == Some(SIGKILL)
}

fn start_fleet(scene: &Scene<'_>, mqtt: &str, kafka: &str) -> Result<Process, StageError> {
    let Scene { folder, topic, load, publish_for, allow, profile: more, .. } = scene;
    let profile = folder.join("profile.toml");
    // One reading in flight per device and bytes of history would hide reordering; 32 show it.
    let text = format!("payload_bytes = {}\nwindow = 32\n{more}", load.payload_bytes);
    fs::write(&profile, text).map_err(|source| StageError::File { path: profile.clone(), source })?;
    let mut command = Command::new(process::find("firmware-sim")?);
    command.args(["run", "--progress", "none", "--qos0", "0", "--qos2", "50", "--v5", "50"]);
    command.args(["--drain-wait", "60s"]);
    let mut option = |name: &str, value: String| {
        command.args([format!("--{name}"), value]);
    };
    if !allow.is_empty() {
        option("allow", (*allow).to_owned());
    }
    option("target", format!("mqtt://{mqtt}"));
    option("devices", load.devices.to_string());
    option("rate", load.rate.to_string());
    option("seconds", publish_for.as_secs().to_string());
    option("seed", load.seed.to_string());
    option("profile", profile.to_string_lossy().into_owned());
    option("readback", format!("kafka://{kafka}/{topic}"));
    option("readback-wait", format!("{}ms", load.give_up_after.as_millis()));
    option("report", folder.join("report.json").to_string_lossy().into_owned());
    Ok(Process::spawn("firmware-sim", &mut command, &folder.join("fleet.log"))?)
}

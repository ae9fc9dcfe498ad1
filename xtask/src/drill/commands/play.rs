//! The drill at work: a cloud with a queue, two gateways on it, and a fleet that takes commands and judges.

use std::fs;
use std::path::Path;
use std::process::{Command, ExitStatus};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::json;
use testkit::cloud::Cloud;
use testkit::commands::queue::{self, QUEUE};
use testkit::gateway::{Config, Gateway};
use testkit::process::{self, Process};
use testkit::report::Report;

use super::plan::{Plan, Trouble};
use crate::say;
use crate::signals;

/// Topics and their partitions: readings, and what the gateways themselves have to say.
const TOPICS: [(&str, u32); 2] = [("telemetry", 2), ("events", 2)];
/// How often the drill looks whether something is due.
const LOOK: Duration = Duration::from_millis(20);
/// How long locks last, in seconds.
const LOCK_SECONDS: u32 = 5;
/// Longest time after the last trouble for everything to be settled, read back and judged.
const JUDGE_WITHIN: Duration = Duration::from_secs(300);
/// Commands without a settlement for this long are stuck.
const STUCK_AFTER: &str = "60s";
/// The same in the control, in which some must be.
const CONTROL_STUCK_AFTER: &str = "3s";
/// What the control lasts.
const CONTROL: Duration = Duration::from_secs(3);
/// What the devices of the drill do with commands.
const PROFILE: &str = "payload_bytes = 200\nconnect_per_second = 1000\n[churn]\npercent = 10\nevery_seconds = 2.0\n\
    [commands]\nlatency_ms = 5\nanswer_ms = 20\nrefuse_percent = 3\nfail_percent = 5\nreject_percent = 3\n\
    silent_percent = 2\ncrash_percent = 2\n";

/// What was done and found.
#[derive(Debug)]
pub(super) struct Played {
    pub(super) fleet: Report,
    /// How often a gateway was killed.
    pub(super) kills: u64,
    /// The troubles that were made, each with its time since the start.
    pub(super) troubles: Vec<(&'static str, Duration)>,
    /// How the gateways ended when they were asked to stop.
    pub(super) stopped: Vec<ExitStatus>,
}

/// Plays the whole drill, then lets everything be settled.
pub(super) fn play(plan: &Plan, folder: &Path) -> Result<Played> {
    let mut stage = Stage::set(plan, folder, 2, PROFILE, &["--command-wait", STUCK_AFTER])?;
    for (at, trouble) in plan.troubles() {
        stage.look_until(at)?;
        let begun = stage.start.elapsed();
        stage.make(&trouble).with_context(|| format!("trouble: {}", trouble.name()))?;
        say::line(&format!("{:7.1} s  {}", begun.as_secs_f64(), trouble.name()));
        stage.troubles.push((trouble.name(), begun));
    }
    stage.order(&json!({ "fault": "delay-disposition", "ms": 0 }))?;
    stage.order(&json!({ "fault": "busy", "operations": 0 }))?;
    stage.look_until(plan.lasts)?;
    say::line("no more commands are sent; what is left is settled and judged");
    stage.judge()
}

/// A sender that loses, repeats and reorders commands. Returns what the judge found.
pub(super) fn control(seed: u64, folder: &Path) -> Result<Report> {
    let plan = Plan { devices: 10, commands: 100, rate: None, lasts: CONTROL, seed };
    let more = ["--command-wait", CONTROL_STUCK_AFTER, "--command-fault", "forgotten,twice,swapped"];
    Ok(Stage::set(&plan, folder, 1, "[commands]\nlatency_ms = 1\n", &more)?.judge()?.fleet)
}

/// Everything on stage. Killed in this order when dropped: the fleet first, the cloud last.
struct Stage {
    fleet: Process,
    gateways: Vec<Gateway>,
    cloud: Cloud,
    report: std::path::PathBuf,
    start: Instant,
    kills: u64,
    troubles: Vec<(&'static str, Duration)>,
}

impl Stage {
    fn set(plan: &Plan, folder: &Path, gateways: u32, profile: &str, more: &[&str]) -> Result<Self> {
        let make = |name: &str| -> Result<std::path::PathBuf> {
            let place = folder.join(name);
            fs::create_dir_all(&place).with_context(|| place.display().to_string())?;
            Ok(place)
        };
        let (cloud, connection_string_file) = queue::start(&make("cloud")?, &TOPICS, LOCK_SECONDS)?;
        let room = plan.devices.saturating_mul(2).max(1000);
        let gateways = (1..=gateways).map(|number| {
            let id = format!("drill-{number}");
            let config = Config::default()
                .id(&id)
                .uplink(&cloud.ready().kafka, "telemetry")
                .events("events")
                .commands(&connection_string_file)
                .set("mqtt", &format!("connections_max = {room}"))
                .set("commands", "replicas = true")
                .set("commands", "answer_timeout = \"3s\"")
                .set("commands", "accepts_per_second = 2000")
                .set("commands.connection", "idle_timeout = \"2s\"");
            Ok(Gateway::start(&make(&id)?, config)?)
        });
        let gateways = gateways.collect::<Result<Vec<_>>>()?;
        let report = folder.join("report.json");
        let file = folder.join("profile.toml");
        fs::write(&file, profile).with_context(|| file.display().to_string())?;
        let mut command = Command::new(process::find("firmware-sim")?);
        command.args(["run", "--progress", "none", "--qos0", "0", "--qos2", "0", "--v5", "50"]);
        let targets: Vec<String> =
            gateways.iter().map(|gateway| format!("mqtt://{}", gateway.mqtt())).collect();
        let mut option = |name: &str, value: String| {
            command.args([format!("--{name}"), value]);
        };
        option("target", targets.join(","));
        option("devices", plan.devices.to_string());
        option("rate", plan.rate().to_string());
        option("seconds", plan.lasts.as_secs().to_string());
        option("seed", plan.seed.to_string());
        option("profile", file.to_string_lossy().into_owned());
        option("report", report.to_string_lossy().into_owned());
        option("commands", plan.commands.to_string());
        option("command-control", cloud.ready().control.clone());
        option("command-entity", QUEUE.to_owned());
        option("command-status", format!("kafka://{}/events", cloud.ready().kafka));
        command.args(more);
        let fleet = Process::spawn("firmware-sim", &mut command, &folder.join("fleet.log"))?;
        Ok(Self { fleet, gateways, cloud, report, start: signals::now(), kills: 0, troubles: Vec::new() })
    }

    /// Waits until a time since the start.
    fn look_until(&mut self, time: Duration) -> Result<()> {
        while self.start.elapsed() < time {
            signals::check()?;
            self.still_there()?;
            thread::park_timeout(LOOK);
        }
        Ok(())
    }

    fn still_there(&mut self) -> Result<()> {
        for gateway in &mut self.gateways {
            if !gateway.process().running()? {
                bail!("a gateway ended by itself; its last words:\n{}", gateway.process().stderr_tail());
            }
        }
        if !self.cloud.process().running()? {
            bail!(
                "the cloud stand-in ended by itself; its last words:\n{}",
                self.cloud.process().stderr_tail()
            );
        }
        Ok(())
    }

    fn make(&mut self, trouble: &Trouble) -> Result<()> {
        self.order(&json!({ "fault": "delay-disposition", "ms": 0 }))?;
        match trouble {
            Trouble::Cut => self.order(&json!({ "fault": "cut-connections" })),
            Trouble::Freeze => self.order(&json!({ "fault": "freeze-connections" })),
            Trouble::Detach => {
                self.order(&json!({ "fault": "detach-all", "condition": "amqp:link:detach-forced" }))
            }
            Trouble::Busy(operations) => self.order(&json!({ "fault": "busy", "operations": operations })),
            Trouble::Slow(ms) => self.order(&json!({ "fault": "delay-disposition", "ms": ms })),
            Trouble::Locks(sessions) => {
                for session in sessions {
                    // A device that is not connected holds none.
                    drop(self.order(&json!({ "fault": "expire-lock", "entity": QUEUE, "session": session })));
                }
                Ok(())
            }
            Trouble::Kill(number) => self.kill(*number),
        }
    }

    fn order(&self, fault: &serde_json::Value) -> Result<()> {
        Ok(self.cloud.control().post("/servicebus/faults", fault)?)
    }

    fn kill(&mut self, number: usize) -> Result<()> {
        let gateway = self.gateways.get_mut(number).context("there is no such gateway")?;
        gateway.kill()?;
        gateway.restart()?;
        self.kills += 1;
        Ok(())
    }

    /// Lets the fleet settle, read back and judge; then stops the gateways.
    fn judge(mut self) -> Result<Played> {
        let end = signals::now() + JUDGE_WITHIN;
        while self.fleet.running()? {
            signals::check()?;
            self.still_there()?;
            if signals::now() > end {
                bail!("the fleet did not finish in time; its last words:\n{}", self.fleet.stderr_tail());
            }
            thread::park_timeout(LOOK);
        }
        let mut stopped = Vec::new();
        for gateway in &mut self.gateways {
            stopped.push(gateway.stop()?);
        }
        let fleet = Report::read(&self.report);
        let fleet = fleet.with_context(|| format!("no report; last words:\n{}", self.fleet.stderr_tail()))?;
        Ok(Played { fleet, kills: self.kills, troubles: self.troubles, stopped })
    }
}

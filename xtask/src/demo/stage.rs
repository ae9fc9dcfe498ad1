//! The running demo: three processes, what they cost, and their end. Each is killed when it is dropped.

use std::fs;
use std::io::{BufRead, BufReader, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use testkit::alerts::Truth;
use testkit::cloud::event_grid::KEYS;
use testkit::cloud::{Cloud, Ready};
use testkit::commands::queue::{self, QUEUE};
use testkit::gateway::{Config, Gateway};
use testkit::process::{self, Process};

use super::alerts::{self, Arrived, Script, Standing};
use super::{Arguments, kills};
use crate::say;
use crate::signals;

/// The topic of the demo and its partitions.
const TOPIC: (&str, u32) = ("telemetry", 4);

/// The topic of what the gateway itself has to say, the status of commands among it, and its partitions.
const EVENTS: (&str, u32) = ("events", 2);

/// How long the locks of sessions last, in seconds.
const LOCK_SECONDS: u32 = 30;

/// What devices do with commands.
const COMMANDS: &str = "[commands]\nlatency_ms = 2\nanswer_ms = 20\nrefuse_percent = 2\nfail_percent = 3\n";

/// How often the stage looks at its processes.
const LOOK: Duration = Duration::from_millis(100);

/// How often it says what has become of alerts.
const ALERTS_EVERY: Duration = Duration::from_secs(5);

/// Longest time after the load for the last alerts to arrive.
const ALERTS_WITHIN: Duration = Duration::from_secs(60);

/// Longest time after the load for the fleet to drain, read back and judge.
const JUDGE_WITHIN: Duration = Duration::from_secs(180);

/// Longest time for `penstock verify`.
const VERIFY_WITHIN: Duration = Duration::from_secs(120);

/// What is to be played, and where.
#[derive(Debug)]
pub(super) struct Plan<'a> {
    pub(super) arguments: &'a Arguments,
    pub(super) seed: u64,
    pub(super) folder: &'a Path,
    pub(super) report: &'a Path,
}

impl Plan<'_> {
    /// Where the fleet's profile lies.
    fn profile(&self) -> PathBuf {
        self.folder.join("profile.toml")
    }

    /// Where the fleet writes down which faults it had.
    fn truth(&self) -> PathBuf {
        self.folder.join("truth.jsonl")
    }
}

/// What was played.
#[derive(Debug)]
pub(super) struct Played {
    /// How the fleet ended: success is a passed verdict.
    pub(super) fleet: ExitStatus,
    /// How the gateway ended after SIGTERM.
    pub(super) gateway: ExitStatus,
    /// How `penstock verify` ended.
    pub(super) verify: ExitStatus,
    /// The last line `penstock verify` printed.
    pub(super) verified: String,
    /// Kills that were asked for, and those that took place.
    pub(super) kills_wanted: u32,
    pub(super) kills: u32,
    /// What the gateway cost.
    pub(super) cost: Cost,
    /// What came of the alerts.
    pub(super) alerts: alerts::Account,
}

/// What all incarnations of the gateway used together.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Cost {
    /// Processor time, the sum.
    pub(super) cpu: Duration,
    /// Resident memory, the highest peak, in bytes.
    pub(super) rss_peak: u64,
}

/// A growing log, shown line by line.
#[derive(Debug)]
struct Tail {
    file: PathBuf,
    shown: u64,
}

/// The processes on stage.
#[derive(Debug)]
pub(super) struct Stage<'a> {
    plan: &'a Plan<'a>,
    // Dropped in this order: the fleet first, the cloud last.
    fleet: Process,
    gateway: Gateway,
    cloud: Cloud,
    progress: Tail,
    kills: u32,
    cost: Cost,
    script: Script,
    arrived: Arrived,
}

impl<'a> Stage<'a> {
    /// Starts the cloud stand-in, the gateway and the fleet, in this order.
    pub(super) fn set(plan: &'a Plan<'a>) -> Result<Self> {
        let folder = |name: &str| -> Result<_> {
            let folder = plan.folder.join(name);
            fs::create_dir(&folder).with_context(|| format!("{} cannot be made", folder.display()))?;
            Ok(folder)
        };
        let event_grid = ["--eventgrid", "127.0.0.1:0"];
        let cloud = queue::start_with(&folder("cloud")?, &[TOPIC, EVENTS], LOCK_SECONDS, &event_grid);
        let (cloud, connection_string) = cloud.context("the cloud stand-in")?;
        let script = Script::of(plan.arguments);
        let (rules, key) = (plan.folder.join("rules.toml"), plan.folder.join("event-grid-key"));
        write(&rules, &script.rules())?;
        write(&key, KEYS[0])?;
        let endpoint = cloud.ready().event_grid_endpoint().context("the stand-in has no Event Grid")?;
        let config = Config::default()
            .id("demo")
            .uplink(&cloud.ready().kafka, TOPIC.0)
            .events(EVENTS.0)
            .commands(&connection_string)
            .rules(&rules, &plan.folder.join("alerts"))
            .event_grid(&endpoint, &key);
        let gateway = Gateway::start(&folder("gateway")?, config)?;
        say::line(&format!(
            "cloud stand-in: kafka {}, event grid {endpoint}, control {}",
            cloud.ready().kafka,
            cloud.ready().control
        ));
        say::line(&format!("gateway: mqtt {}, health http://{}", gateway.mqtt(), gateway.ready().health));
        let mut command = Command::new(process::find("firmware-sim")?);
        command.args(fleet_arguments(plan, gateway.mqtt(), cloud.ready()));
        let commands = if plan.arguments.commands > 0 { COMMANDS } else { "" };
        write(&plan.profile(), &format!("{commands}{}", script.faults()))?;
        let log = plan.folder.join("fleet.log");
        let fleet = Process::spawn("firmware-sim", &mut command, &log)?;
        let progress = Tail { file: log, shown: 0 };
        let (cost, arrived) = (Cost::default(), Arrived::default());
        Ok(Self { plan, fleet, gateway, cloud, progress, kills: 0, cost, script, arrived })
    }

    /// Plays to the end: load with kills, read-back, graceful stop, verification.
    pub(super) fn run(mut self) -> Result<Played> {
        self.watch()?;
        let fleet = self.fleet.wait(Duration::from_secs(10))?;
        self.progress.show()?;
        if !fleet.success() {
            self.fleet.lines().iter().for_each(|line| say::line(line));
        }
        let alerts = self.account()?;
        say::step("stopping the gateway");
        self.charge()?;
        let gateway = self.gateway.stop()?;
        say::step("penstock verify");
        let (verify, verified) = self.verify()?;
        Ok(Played {
            fleet,
            gateway,
            verify,
            verified,
            kills_wanted: self.plan.arguments.kill_gateway,
            kills: self.kills,
            cost: self.cost,
            alerts,
        })
    }

    /// Waits for the end of the fleet, shows what it says, and kills the gateway when its moments come.
    fn watch(&mut self) -> Result<()> {
        let load = Duration::from_secs(self.plan.arguments.seconds.into());
        let moments = kills::moments(self.plan.arguments.kill_gateway, self.plan.seed, load);
        let mut moments = moments.into_iter().peekable();
        let start = signals::now();
        let mut due = start + ALERTS_EVERY;
        while self.fleet.running()? {
            signals::check()?;
            self.progress.show()?;
            due = self.show_alerts(due)?;
            if moments.next_if(|moment| start.elapsed() >= *moment).is_some() {
                self.kill_gateway()?;
            }
            self.still_running()?;
            if start.elapsed() > load + JUDGE_WITHIN {
                bail!("the fleet did not finish in time; its last words:\n{}", self.fleet.stderr_tail());
            }
            thread::park_timeout(LOOK);
        }
        signals::check()
    }

    /// Says what has become of alerts, once it is time. Returns when to say it next.
    fn show_alerts(&mut self, due: Instant) -> Result<Instant> {
        if signals::now() < due {
            return Ok(due);
        }
        self.arrived.follow(self.cloud.control().event_grid())?;
        let Arrived { raised, resolved, storms, .. } = self.arrived;
        say::line(&format!("alerts: {raised} raised, {resolved} resolved, {storms} of storms"));
        Ok(signals::now() + ALERTS_EVERY)
    }

    /// Waits for the last alerts and holds all of them against the faults of the fleet.
    fn account(&mut self) -> Result<alerts::Account> {
        say::step("the alerts");
        let end = signals::now() + ALERTS_WITHIN;
        let patience = || {
            signals::check()?;
            thread::park_timeout(LOOK);
            Ok(signals::now() < end)
        };
        let standing = alerts::settled(&self.gateway, &self.cloud, &mut self.arrived, patience)?;
        let Standing { entries, open, .. } = standing;
        let truth = Truth::read(&self.plan.truth()).context("what the fleet says of its faults")?;
        let verdict = self.script.judge(&truth, &self.arrived);
        let Arrived { raised, resolved, .. } = self.arrived;
        Ok(alerts::Account { verdict, raised, resolved, entries, arrived: self.arrived.different(), open })
    }

    fn kill_gateway(&mut self) -> Result<()> {
        self.charge()?;
        self.gateway.kill()?;
        let start = signals::now();
        self.gateway.restart()?;
        self.kills += 1;
        say::line(&format!(
            "gateway killed ({} of {}) and ready again after {} ms",
            self.kills,
            self.plan.arguments.kill_gateway,
            start.elapsed().as_millis()
        ));
        Ok(())
    }

    /// Adds what the gateway has used so far; called once at the end of each incarnation.
    fn charge(&mut self) -> Result<()> {
        let process = self.gateway.process();
        let usage = process.usage()?;
        let status = fs::read_to_string(format!("/proc/{}/status", process.pid()))?;
        let peak = peak_rss(&status).context("the gateway's peak memory is not known")?;
        self.cost.cpu += usage.cpu;
        self.cost.rss_peak = self.cost.rss_peak.max(peak);
        Ok(())
    }

    fn still_running(&mut self) -> Result<()> {
        if !self.gateway.process().running()? {
            bail!("the gateway ended by itself; its last words:\n{}", self.gateway.process().stderr_tail());
        }
        if !self.cloud.process().running()? {
            bail!(
                "the cloud stand-in ended by itself; its last words:\n{}",
                self.cloud.process().stderr_tail()
            );
        }
        Ok(())
    }

    fn verify(&self) -> Result<(ExitStatus, String)> {
        let mut command = Command::new(process::find("penstock")?);
        command.args(["verify", "--bootstrap", &self.cloud.ready().kafka, "--topic", TOPIC.0]);
        let mut verify =
            Process::spawn("penstock verify", &mut command, &self.plan.folder.join("verify.log"))?;
        let status = verify.wait(VERIFY_WITHIN)?;
        let lines = verify.lines();
        for line in &lines {
            say::line(line);
        }
        if !status.success() {
            say::error_line(&verify.stderr_tail());
        }
        Ok((status, lines.last().cloned().unwrap_or_default()))
    }
}

impl Tail {
    /// Prints the whole lines that came since the last call.
    fn show(&mut self) -> Result<()> {
        let mut file = fs::File::open(&self.file).context("the fleet's log is gone")?;
        file.seek(SeekFrom::Start(self.shown))?;
        let mut news = BufReader::new(file);
        let mut line = String::new();
        while news.read_line(&mut line)? > 0 && line.ends_with('\n') {
            self.shown += u64::try_from(line.len())?;
            say::line(line.trim_end());
            line.clear();
        }
        Ok(())
    }
}

fn write(file: &Path, text: &str) -> Result<()> {
    fs::write(file, text).with_context(|| format!("{} cannot be written", file.display()))
}

fn fleet_arguments(plan: &Plan<'_>, mqtt: &str, cloud: &Ready) -> Vec<String> {
    let Arguments { devices, rate, seconds, commands, kill_gateway, .. } = plan.arguments;
    let kafka = &cloud.kafka;
    let mut words = vec!["run".to_owned()];
    let mut option = |name: &str, value: String| words.extend([format!("--{name}"), value]);
    option("target", format!("mqtt://{mqtt}"));
    option("devices", devices.to_string());
    option("rate", rate.to_string());
    option("seconds", seconds.to_string());
    option("seed", plan.seed.to_string());
    option("readback", format!("kafka://{kafka}/{}", TOPIC.0));
    option("report", plan.report.to_string_lossy().into_owned());
    option("progress", "plain".to_owned());
    option("profile", plan.profile().to_string_lossy().into_owned());
    option("truth", plan.truth().to_string_lossy().into_owned());
    if *commands > 0 {
        option("commands", commands.to_string());
        option("command-control", cloud.control.clone());
        option("command-entity", QUEUE.to_owned());
        option("command-status", format!("kafka://{kafka}/{}", EVENTS.0));
    }
    if *kill_gateway > 0 {
        option("kills", kill_gateway.to_string());
        option("allow", "duplicated".to_owned());
    }
    words
}

/// The highest resident memory so far, from `/proc/PID/status`, in bytes.
fn peak_rss(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arguments(kill_gateway: u32) -> Arguments {
        let commands = 5 * kill_gateway;
        Arguments { devices: 3, rate: 10, seconds: 2, commands, kill_gateway, report: None, seed: None }
    }

    fn ready() -> Ready {
        serde_json::from_str(r#"{"kafka":"127.0.0.1:2","control":"127.0.0.1:3"}"#).unwrap()
    }

    #[test]
    fn duplicates_are_allowed_when_the_gateway_is_killed_and_commands_sent_when_wanted() {
        for kills in [0, 2] {
            let arguments = arguments(kills);
            let plan =
                Plan { arguments: &arguments, seed: 9, folder: Path::new("f"), report: Path::new("r.json") };
            let words = fleet_arguments(&plan, "127.0.0.1:1", &ready());
            let commands = "--commands 10 --command-control 127.0.0.1:3 --command-entity commands --command-status kafka://127.0.0.1:2/events";
            assert_eq!(words.join(" ").contains(commands), kills > 0, "{words:?}");
            assert_eq!(words.join(" ").contains("--allow duplicated"), kills > 0);
            assert!(words.join(" ").contains("--readback kafka://127.0.0.1:2/telemetry"), "{words:?}");
        }
    }

    #[test]
    fn progress_is_shown_by_whole_lines() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("log");
        let mut tail = Tail { file: file.clone(), shown: 0 };
        let mut check = |text: &str, shown: u64| {
            fs::write(&file, text).unwrap();
            tail.show().unwrap();
            assert_eq!(tail.shown, shown, "{text:?}");
        };
        check("", 0);
        check("1 s\n2", 4);
        check("1 s\n2 s\n", 8);
    }

    #[test]
    fn peak_memory_is_read_in_bytes() {
        assert_eq!(peak_rss("Name:\tpenstock\nVmHWM:\t    2048 kB\nVmRSS:\t    1024 kB\n"), Some(2_097_152));
        assert_eq!(peak_rss("Name:\tzombie\n"), None);
    }
}

//! The scenarios: the real gateway and a fleet with a real broker, each with a topic of its own.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::Value;
use testkit::drill::broker::Broker;
use testkit::drill::stage::{Birth, EVENTS, Load, Outcome, Scene, Stage};
use testkit::gateway::Config;

use crate::drill::{metrics, tally};
use crate::say;
use crate::signals;

/// Partitions of a scenario's topic.
const PARTITIONS: u32 = 3;
/// How long a fleet publishes before and between what happens.
const A_WHILE: Duration = Duration::from_millis(1200);
/// How often something is asked for, and how long at most.
const LOOK: Duration = Duration::from_millis(50);
const PATIENCE: Duration = Duration::from_secs(60);
/// Longest time for a fleet to drain, read back and judge.
const JUDGE_WITHIN: Duration = Duration::from_secs(150);

/// What is tried.
struct Scenario {
    name: &'static str,
    /// Settings of the topic; without any it is not there from the start.
    topic: Option<&'static [(&'static str, &'static str)]>,
    secured: bool,
    /// Sections and lines of the gateway's configuration.
    settings: &'static [(&'static str, &'static str)],
    /// Whether something goes to the dead letters: then the chain has a gap that the gateway's own events explain.
    buried: bool,
    /// What the fleet's verdict tolerates.
    allow: &'static str,
    /// What happens while the fleet publishes.
    act: fn(&mut Act<'_>) -> Result<()>,
}

const PLAIN: Scenario = Scenario {
    name: "per-message",
    topic: Some(&[]),
    secured: false,
    settings: &[],
    buried: false,
    allow: "",
    act: |_| Ok(()),
};

const SCENARIOS: &[Scenario] = &[
    PLAIN,
    Scenario {
        name: "tls-sasl-gzip",
        secured: true,
        settings: &[("uplink", "compression = \"gzip\"")],
        ..PLAIN
    },
    Scenario {
        name: "packed",
        settings: &[
            ("uplink", "format = \"packed\""),
            ("uplink", "pack_linger = \"50ms\""),
            ("uplink", "pack_compression = \"gzip\""),
        ],
        ..PLAIN
    },
    Scenario { name: "missing-topic", topic: None, act: missing_topic, ..PLAIN },
    Scenario {
        name: "too-large",
        topic: Some(&[("max.message.bytes", "400000")]),
        settings: &[("mqtt", "packet_bytes_max = \"800KiB\"")],
        buried: true,
        act: too_large,
        ..PLAIN
    },
    Scenario {
        name: "broker-killed",
        settings: &[("uplink", "socket_timeout = \"5s\"")],
        act: broker_killed,
        ..PLAIN
    },
    Scenario { name: "partitions-grow", allow: "moved,resent", act: partitions_grow, ..PLAIN },
];

/// A scenario at work.
struct Act<'a> {
    stage: &'a mut Stage,
    topic: &'a str,
    home: PathBuf,
}

/// Plays the scenarios one after another with one broker.
pub(super) fn run(folder: &Path, seed: u64, only: Option<&str>) -> Result<()> {
    let chosen: Vec<&Scenario> =
        SCENARIOS.iter().filter(|scenario| only.is_none_or(|only| only == scenario.name)).collect();
    if chosen.is_empty() {
        let names: Vec<&str> = SCENARIOS.iter().map(|scenario| scenario.name).collect();
        bail!("no such scenario; there are {}", names.join(", "));
    }
    let start = signals::now();
    let mut broker = Broker::kafka(folder, &[(EVENTS, 1)])?;
    say::line(&format!("broker ready after {:.1} s", start.elapsed().as_secs_f64()));
    let mut failed = Vec::new();
    for (number, scenario) in (0..).zip(chosen) {
        let start = signals::now();
        if let Some(settings) = scenario.topic {
            let kafka = broker.real().context("it is a real one")?;
            kafka.create_topic(scenario.name, PARTITIONS, settings)?;
        }
        let place = folder.join(scenario.name);
        let (outcome, back) = play(scenario, &place, broker, seed.wrapping_add(number))?;
        broker = back;
        let mut broken = outcome.broken();
        let explained = outcome.verify_totals["explained_gaps"].as_u64();
        if scenario.buried != (explained > Some(0)) {
            broken.push(format!("gaps that events of the gateway explain: {explained:?}"));
        }
        say::line(&format!(
            "{}: {}, verify: {} records, {} gaps, {} duplicates, {:.1} s",
            scenario.name,
            tally::line(&outcome.report),
            outcome.verify_totals["records"],
            outcome.verify_totals["gaps"],
            outcome.verify_totals["duplicates"],
            start.elapsed().as_secs_f64()
        ));
        failed.extend(broken.into_iter().map(|broken| format!("{}: {broken}", scenario.name)));
    }
    broker.process().stop(PATIENCE)?;
    match &failed[..] {
        [] => Ok(()),
        _ => bail!("{}; seed {seed}", failed.join("; ")),
    }
}

fn play(scenario: &Scenario, folder: &Path, broker: Broker, seed: u64) -> Result<(Outcome, Broker)> {
    let home = folder.join("gateway");
    let config = Config::default().set("uplink", "linger = \"5ms\"");
    let config = scenario.settings.iter().fold(config, |config, (section, line)| config.set(section, line));
    let scene = Scene {
        folder,
        home: &home,
        topic: scenario.name,
        secured: scenario.secured,
        config,
        load: Load {
            seed,
            devices: 60,
            rate: 2000,
            payload_bytes: 250,
            give_up_after: Duration::from_secs(45),
        },
        profile: "",
        publish_for: PATIENCE * 3,
        judge_within: JUDGE_WITHIN,
        with_events: scenario.buried,
        allow: scenario.allow,
    };
    let mut stage = Stage::open(scene, broker).with_context(|| scenario.name)?;
    let mut act = Act { stage: &mut stage, topic: scenario.name, home: home.clone() };
    act.publish_a_while()?;
    (scenario.act)(&mut act).with_context(|| scenario.name)?;
    act.publish_a_while()?;
    let outcome = stage.judge(Duration::ZERO).with_context(|| scenario.name)?;
    Ok((outcome, stage.leave()))
}

/// Everything waits while the topic is not there, the gateway says so, and all of it arrives once it is.
fn missing_topic(act: &mut Act<'_>) -> Result<()> {
    let topic = act.topic;
    act.until("the topic to be held", |status| {
        let held = status["uplink"]["held"].as_array();
        held.is_some_and(|held| held.iter().any(|held| held["topic"] == topic))
    })?;
    act.kafka()?.create_topic(topic, PARTITIONS, &[])?;
    act.until("no topic to be held", |status| status["uplink"]["held"].as_array().is_some_and(Vec::is_empty))
}

/// A record that the broker does not take goes to the dead letters, and everything behind it flows on.
fn too_large(act: &mut Act<'_>) -> Result<()> {
    let file = act.home.join("too-large");
    std::fs::write(&file, [b'x'; 600_000]).with_context(|| file.display().to_string())?;
    let (host, port) = act.stage.gateway().mqtt().split_once(':').context("host and port")?;
    let mut command = Command::new("mosquitto_pub");
    command.args([
        "-h",
        host,
        "-p",
        port,
        "-q",
        "1",
        "-i",
        "too-large",
        "-t",
        "devices/too-large/telemetry",
        "-f",
    ]);
    let output = command.arg(&file).output().context("mosquitto_pub cannot be started")?;
    if !output.status.success() {
        bail!("mosquitto_pub: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    let start = signals::now();
    loop {
        signals::check()?;
        let metrics = act.stage.gateway().health("/metrics").context("no answer")?.context("no metrics")?;
        if metrics::sum(&metrics, "penstock_uplink_dead_lettered_total") > 0.0 {
            return Ok(());
        }
        if start.elapsed() > PATIENCE {
            bail!("waited in vain for the dead letter");
        }
        thread::park_timeout(LOOK);
    }
}

/// The broker dies under load, several times, and comes back on what is left of its data.
fn broker_killed(act: &mut Act<'_>) -> Result<()> {
    for _ in 0..3 {
        act.kafka()?.kill()?;
        act.publish_a_while()?;
        act.kafka()?.restart()?;
        act.publish_a_while()?;
    }
    Ok(())
}

/// A device's readings go on in another partition, in order. The gateway learns of it at its next session.
fn partitions_grow(act: &mut Act<'_>) -> Result<()> {
    let topic = act.topic;
    act.kafka()?.grow_topic(topic, PARTITIONS * 2)?;
    act.publish_a_while()?;
    let home = act.home.clone();
    act.stage.gateway().kill()?;
    if act.stage.next_life(&home, [])? != Birth::Ready {
        bail!("the gateway was killed by somebody else");
    }
    act.publish_a_while()
}

impl Act<'_> {
    fn kafka(&mut self) -> Result<&mut testkit::kafka::Kafka> {
        self.stage.broker().real().context("it is a real one")
    }

    fn publish_a_while(&mut self) -> Result<()> {
        let start = signals::now();
        while start.elapsed() < A_WHILE {
            signals::check()?;
            thread::park_timeout(LOOK);
        }
        Ok(())
    }

    /// Asks the gateway for its status until it is so.
    fn until(&mut self, what: &str, so: impl Fn(&Value) -> bool) -> Result<()> {
        let start = signals::now();
        loop {
            signals::check()?;
            let status = self.stage.gateway().admin("/api/v1/status").context("no answer")?;
            let status: Value = serde_json::from_str(&status.context("no status")?)?;
            if so(&status) {
                return Ok(());
            }
            if start.elapsed() > PATIENCE {
                bail!("waited in vain for {what}: {}", status["uplink"]);
            }
            thread::park_timeout(LOOK);
        }
    }
}

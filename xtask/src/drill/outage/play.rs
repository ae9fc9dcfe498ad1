//! The drill at work: acts come when they are due, and the gateway's memory and backlog are looked at meanwhile.

use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use testkit::drill::broker::Broker;
use testkit::drill::stage::{Birth, EVENTS, Load, Outcome, Scene, Stage};
use testkit::gateway::Config;

use super::plan::{Act, Trouble};
use super::{BrokerKind, CatchUp, Format, Options};
use crate::drill::metrics;
use crate::say;
use crate::signals;

/// The topic of the readings and its partitions.
const TOPIC: (&str, u32) = ("telemetry", 4);
/// How often the drill looks whether something is due.
const LOOK: Duration = Duration::from_millis(20);
/// How often memory and backlog are looked at.
const SAMPLE: Duration = Duration::from_millis(500);
/// The read-back ends after this time without a new record; the uplink's longest pause is shorter.
const GIVE_UP: Duration = Duration::from_secs(45);
/// The same in the control, in which something must be missing.
const CONTROL_GIVE_UP: Duration = Duration::from_secs(6);
/// Longest time for what is left to be sent, read back and judged.
const JUDGE_WITHIN: Duration = Duration::from_secs(300);
/// The gateway gives a request up after this time, so that a frozen broker is noticed within a short drill.
const SOCKET_TIMEOUT: &str = "socket_timeout = \"5s\"";

/// What was done and found.
#[derive(Debug)]
pub(super) struct Played {
    pub(super) outcome: Outcome,
    /// How often the gateway was killed.
    pub(super) kills: u64,
    /// The troubles that were made, each with its time since the start.
    pub(super) troubles: Vec<(&'static str, Duration)>,
    pub(super) samples: Vec<Sample>,
    /// What the stand-in counted.
    pub(super) cloud: Option<Value>,
}

/// The gateway at one moment.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Sample {
    pub(super) rss_bytes: u64,
    /// What the outbox holds that is not confirmed.
    pub(super) backlog_bytes: f64,
}

/// Plays all troubles under load, then lets everything drain.
pub(super) fn play(
    options: &Options,
    troubles: &[Trouble],
    lasts: Duration,
    seed: u64,
    folder: &Path,
) -> Result<Played> {
    let topics = [TOPIC, (EVENTS, 1)];
    let broker = match options.broker {
        BrokerKind::Sim => Broker::sim(folder, &topics)?,
        BrokerKind::Kafka => Broker::kafka(folder, &topics)?,
    };
    let home = folder.join("gateway");
    let allow = if options.strict() { "resent" } else { "duplicated,resent" };
    let scene = Scene {
        folder,
        home: &home,
        topic: TOPIC.0,
        secured: false,
        config: config(options),
        load: load(options, seed, GIVE_UP),
        profile: "",
        publish_for: lasts * 10,
        judge_within: JUDGE_WITHIN,
        with_events: false,
        allow,
    };
    let stage = Stage::open(scene, broker)?;
    let start = signals::now();
    let mut play = Play {
        stage,
        home: &home,
        start,
        sampled: start,
        kills: 0,
        troubles: Vec::new(),
        samples: Vec::new(),
    };
    play.run(troubles, lasts)?;
    say::line("everything is there again; what is left is sent and judged");
    let cloud = play.stage.broker().control().map(|control| control.counters()).transpose()?;
    let outcome = play.stage.judge(Duration::ZERO)?;
    let Play { kills, troubles, samples, .. } = play;
    Ok(Played { outcome, kills, troubles, samples, cloud })
}

/// A cloud that confirms one batch and forgets it: what the drill must notice. Returns what it found.
pub(super) fn control(options: &Options, seed: u64, folder: &Path) -> Result<Outcome> {
    let home = folder.join("gateway");
    let scene = Scene {
        folder,
        home: &home,
        topic: TOPIC.0,
        secured: false,
        config: config(options),
        load: load(options, seed, CONTROL_GIVE_UP),
        profile: "",
        publish_for: Duration::from_secs(60),
        judge_within: JUDGE_WITHIN,
        with_events: false,
        allow: "",
    };
    let mut stage = Stage::open(scene, Broker::sim(folder, &[TOPIC, (EVENTS, 1)])?)?;
    count(&mut stage, "records_appended", 100)?;
    let control = stage.broker().control().context("the stand-in takes orders")?;
    control.post("/v1/faults/swallow", &json!({ "batches": 1 }))?;
    count(&mut stage, "batches_swallowed", 1)?;
    Ok(stage.judge(Duration::from_millis(500))?)
}

/// Waits until the stand-in has counted so many.
fn count(stage: &mut Stage, name: &str, wanted: u64) -> Result<()> {
    let start = signals::now();
    loop {
        signals::check()?;
        let control = stage.broker().control().context("the stand-in counts")?;
        if control.counters()?[name].as_u64() >= Some(wanted) {
            return Ok(());
        }
        if start.elapsed() > GIVE_UP {
            bail!("waited in vain for {wanted} {name}");
        }
        thread::park_timeout(LOOK);
    }
}

fn load(options: &Options, seed: u64, give_up_after: Duration) -> Load {
    Load { seed, devices: options.devices, rate: options.rate, payload_bytes: 200, give_up_after }
}

fn config(options: &Options) -> Config {
    let mut config = Config::default().set("uplink", SOCKET_TIMEOUT).set("uplink", "linger = \"5ms\"");
    if options.format == Format::Packed {
        // Packs of a few entries, so that a short drill cuts many of them.
        for line in ["format = \"packed\"", "pack_linger = \"50ms\"", "pack_messages_max = 40"] {
            config = config.set("uplink", line);
        }
    }
    if options.catch_up == CatchUp::LiveFirst {
        config = config.set("uplink", "catch_up = \"live-first\"").set("uplink", "live_first_after = \"1s\"");
    }
    if options.no_tail_read {
        config = config.set("uplink", "tail_read = false");
    }
    config
}

struct Play<'a> {
    stage: Stage,
    home: &'a Path,
    start: Instant,
    sampled: Instant,
    kills: u64,
    troubles: Vec<(&'static str, Duration)>,
    samples: Vec<Sample>,
}

impl Play<'_> {
    fn run(&mut self, troubles: &[Trouble], lasts: Duration) -> Result<()> {
        // What starts takes its time, a real broker most of all; all that follows is put off by as much.
        let mut late = Duration::ZERO;
        for trouble in troubles {
            if trouble.begins() + late > lasts {
                break;
            }
            late = self.trouble(trouble, late).with_context(|| format!("trouble: {}", trouble.name))?;
        }
        self.look_until(lasts)
    }

    /// Makes one trouble from beginning to end. Returns by how much the plan is late then.
    fn trouble(&mut self, trouble: &Trouble, late: Duration) -> Result<Duration> {
        self.look_until(trouble.begins() + late)?;
        let (begun, mut late) = (self.start.elapsed(), late);
        for (at, act) in &trouble.acts {
            self.look_until(*at + late)?;
            self.act(*act).with_context(|| format!("{act:?}"))?;
            late = self.start.elapsed().saturating_sub(*at);
        }
        let seconds = self.start.elapsed().saturating_sub(begun).as_secs_f64();
        say::line(&format!("{:7.1} s  {} ({seconds:.1} s)", begun.as_secs_f64(), trouble.name));
        self.troubles.push((trouble.name, begun));
        Ok(late)
    }

    /// Waits until a time since the start; now and then notes what the gateway uses.
    fn look_until(&mut self, time: Duration) -> Result<()> {
        while self.start.elapsed() < time {
            signals::check()?;
            if self.sampled.elapsed() >= SAMPLE {
                self.sampled = signals::now();
                self.sample()?;
            }
            thread::park_timeout(LOOK);
        }
        Ok(())
    }

    fn sample(&mut self) -> Result<()> {
        let gateway = self.stage.gateway();
        if !gateway.process().running()? {
            let words = gateway.process().stderr_tail();
            bail!("the gateway ended by itself; its last words:\n{words}");
        }
        let rss_bytes = gateway.process().usage()?.rss_bytes;
        let text = gateway.health("/metrics").context("the health listener does not answer")?;
        let backlog_bytes =
            metrics::sum(&text.context("there are no metrics")?, "penstock_outbox_backlog_bytes");
        self.samples.push(Sample { rss_bytes, backlog_bytes });
        if !self.stage.fleet_runs()? {
            bail!("the fleet ended too early; see fleet.log");
        }
        Ok(())
    }

    fn act(&mut self, act: Act) -> Result<()> {
        match act {
            Act::Away => self.stage.cloud_is_there(false)?,
            Act::Back => self.stage.cloud_is_there(true)?,
            Act::Cut => self.order("cut", &json!({}))?,
            Act::LoseAcks(every) => self.order("lose-ack", &json!({ "every": every }))?,
            Act::Throttle(ms) => self.order("throttle", &json!({ "ms": ms }))?,
            Act::Quota(events) => self.order("quota", &json!({ "events": events, "bytes": 0 }))?,
            Act::Refuse(code, times) => {
                self.order("produce-error", &json!({ "code": code, "times": times }))?
            }
            Act::Forget => self.order("forget-producers", &json!({}))?,
            Act::Authorize(enabled) => {
                self.order("authorize", &json!({ "topic": TOPIC.0, "enabled": enabled }))?;
            }
            Act::KillGateway => self.kill_gateway()?,
            Act::KillBroker => drop(self.stage.broker().process().kill()?),
            Act::StopBroker => drop(self.real()?.stop()?),
            Act::StartBroker => self.real()?.restart()?,
            Act::Freeze => self.stage.broker().process().signal("STOP")?,
            Act::Thaw => self.stage.broker().process().signal("CONT")?,
        }
        Ok(())
    }

    fn order(&mut self, fault: &str, body: &Value) -> Result<()> {
        let control = self.stage.broker().control().context("only the stand-in takes orders")?;
        Ok(control.post(&format!("/v1/faults/{fault}"), body)?)
    }

    fn real(&mut self) -> Result<&mut testkit::kafka::Kafka> {
        self.stage.broker().real().context("the stand-in is not killed")
    }

    fn kill_gateway(&mut self) -> Result<()> {
        self.stage.gateway().kill()?;
        if self.stage.next_life(self.home, [])? != Birth::Ready {
            bail!("the gateway was killed by somebody else");
        }
        self.kills += 1;
        Ok(())
    }
}

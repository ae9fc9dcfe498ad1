//! The drill at work: the fleet does what its profile says, the gateway is killed when it is due, and its memory is
//! looked at meanwhile.

use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use testkit::drill::broker::Broker;
use testkit::drill::stage::{Birth, EVENTS, Load, Outcome, Scene, Stage};
use testkit::gateway::Config;

use super::Plan;
use crate::say;
use crate::signals;

/// The topic of the readings and its partitions.
const TOPIC: (&str, u32) = ("telemetry", 4);
/// How often the drill looks whether something is due.
const LOOK: Duration = Duration::from_millis(20);
/// How often memory is looked at.
const SAMPLE: Duration = Duration::from_millis(500);
/// The read-back ends after this time without a new record; the uplink's longest pause is shorter.
const GIVE_UP: Duration = Duration::from_secs(45);
/// Longest time for what is left to be sent, read back and judged.
const JUDGE_WITHIN: Duration = Duration::from_secs(400);
/// How long a device that churns keeps a connection on average, in seconds.
const KEPT_SECONDS: u32 = 3;
/// How many devices begin to connect per second.
const CONNECT_PER_SECOND: u32 = 1000;
/// What the control lasts.
const CONTROL: Duration = Duration::from_secs(5);

/// What was done and found.
#[derive(Debug)]
pub(super) struct Played {
    pub(super) outcome: Outcome,
    /// How often the gateway was killed.
    pub(super) kills: u64,
    /// Resident memory of the gateway in bytes, each with its time since the start.
    pub(super) memory: Vec<(Duration, u64)>,
}

/// Plays the whole drill, then lets everything drain.
pub(super) fn play(plan: &Plan, folder: &Path) -> Result<Played> {
    let profile = format!(
        "connect_per_second = {CONNECT_PER_SECOND}\n[sessions]\nlasting_percent = 70\n\
         [churn]\npercent = {}\nevery_seconds = {KEPT_SECONDS}\n",
        plan.share
    );
    // Take-overs count twice for a moment, and so do connections whose end the gateway has not seen.
    let room = plan.devices.saturating_mul(2).max(1000);
    let config = Config::default().set("mqtt", &format!("connections_max = {room}"));
    let home = folder.join("gateway");
    let scene = Scene {
        folder,
        home: &home,
        topic: TOPIC.0,
        secured: false,
        config,
        load: Load {
            seed: plan.seed,
            devices: plan.devices,
            rate: plan.rate,
            payload_bytes: 200,
            give_up_after: GIVE_UP,
        },
        profile: &profile,
        publish_for: plan.lasts * 10,
        judge_within: JUDGE_WITHIN,
        with_events: false,
        allow: "",
    };
    let stage = Stage::open(scene, Broker::sim(folder, &[TOPIC, (EVENTS, 1)])?)?;
    let start = signals::now();
    let mut play = Play { stage, home: &home, start, sampled: start, kills: 0, memory: Vec::new() };
    for at in plan.kills() {
        play.look_until(at)?;
        play.kill()?;
    }
    play.look_until(plan.lasts)?;
    say::line("devices publish no more; what is left is sent and judged");
    let outcome = play.stage.judge(Duration::ZERO)?;
    Ok(Played { outcome, kills: play.kills, memory: play.memory })
}

/// A gateway that keeps no sessions, and devices that go on as if it did. Returns what the judge found.
pub(super) fn control(seed: u64, folder: &Path) -> Result<Outcome> {
    let home = folder.join("gateway");
    let scene = Scene {
        folder,
        home: &home,
        topic: TOPIC.0,
        secured: false,
        config: Config::default().set("mqtt", "session_expiry_max = \"0s\""),
        load: Load { seed, devices: 40, rate: 4000, payload_bytes: 200, give_up_after: GIVE_UP },
        profile: "[sessions]\nlasting_percent = 100\ntrusting = true\n[churn]\npercent = 100\nevery_seconds = 0.3\n",
        publish_for: CONTROL,
        judge_within: JUDGE_WITHIN,
        with_events: false,
        allow: "",
    };
    let mut stage = Stage::open(scene, Broker::sim(folder, &[TOPIC, (EVENTS, 1)])?)?;
    Ok(stage.judge(CONTROL)?)
}

struct Play<'a> {
    stage: Stage,
    home: &'a Path,
    start: Instant,
    sampled: Instant,
    kills: u64,
    memory: Vec<(Duration, u64)>,
}

impl Play<'_> {
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
        let process = self.stage.gateway().process();
        if !process.running()? {
            bail!("the gateway ended by itself; its last words:\n{}", process.stderr_tail());
        }
        let memory = process.usage()?.rss_bytes;
        self.memory.push((self.start.elapsed(), memory));
        if !self.stage.fleet_runs()? {
            bail!("the fleet ended too early; see fleet.log");
        }
        Ok(())
    }

    fn kill(&mut self) -> Result<()> {
        let at = self.start.elapsed();
        self.stage.gateway().kill()?;
        if self.stage.next_life(self.home, [])? != Birth::Ready {
            bail!("the gateway was killed by somebody else");
        }
        self.kills += 1;
        let took = self.start.elapsed().saturating_sub(at).as_secs_f64();
        say::line(&format!("{:7.1} s  gateway killed, ready again after {took:.1} s", at.as_secs_f64()));
        Ok(())
    }
}

//! The same log read twice: by a gateway that is left alone, and by one that is killed at random moments while Event Grid
//! gets in the way.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::{Value, json};
use testkit::cloud::event_grid::EventGrid;
use testkit::gateway::Gateway;

use super::Plan;
use super::log::{self, Log};
use super::scene::{Scene, settle, wait_until};
use crate::signals;

/// The rules of the drill: one of each kind that raises by itself on what the fleet publishes. Nothing is held back, so
/// that the events of two runs can be told apart by what they are about alone.
const RULES: &str = r#"
[alerting]
group_by = ["tenant", "rule"]
max_rate = { events_per_s = 5000, burst = 1000000 }
tenant_rate = { events_per_s = 5000, burst = 1000000 }
flapping = { max_transitions = 0, window = "1s" }
repeat_interval = "0s"
storm = { when_open_in_group = 100000 }

[[rule]]
id = "warm"
metric = "temperature"
raise = "> 21"
clear = "< 20.5"
critical = { raise = "> 23", clear = "< 22.5" }

[[rule]]
id = "lasting"
metric = "temperature"
raise = "> 20"
clear = "< 19.8"
for = "500ms"
keep_firing_for = "300ms"
min_samples = 3
severity = "info"

[[rule]]
id = "quick"
kind = "rate"
metric = "pressure"
raise = "> 20 per second"
clear = "< 1 per second"

[[rule]]
id = "silent"
kind = "deadman"
expect_every = "1s"
missed = 3
"#;
/// How long nothing may happen before a run counts as over: longer than silent devices are waited for after a start.
const QUIET: Duration = Duration::from_secs(8);
/// Longest time for a run to come to an end.
const SETTLE_WITHIN: Duration = Duration::from_secs(300);
/// A gateway lives between these before it is killed: in the first half of the kills, so that they meet it while it
/// reads the log, and then, so that they meet snapshots and what is sent.
const LIVES: [(Duration, Duration); 2] = [
    (Duration::from_millis(1), Duration::from_millis(250)),
    (Duration::from_millis(20), Duration::from_millis(2500)),
];

/// The events of a run.
pub(super) struct Run {
    /// As they were accepted, repeats included.
    pub(super) events: Vec<Value>,
    pub(super) kills: u32,
    pub(super) seconds: f64,
    /// How often the gateway was killed before it had looked at the whole log.
    pub(super) amid: u32,
}

impl Run {
    pub(super) fn words(&self) -> String {
        format!("{} events, {:.1} s", self.events.len(), self.seconds)
    }

    fn of(scene: &Scene, kills: u32, amid: u32, seconds: f64) -> Result<Self> {
        let entries = scene.cloud.control().event_grid().all_events_after(0)?;
        let events = entries.into_iter().map(|entry| entry.event).collect();
        Ok(Self { events, kills, seconds, amid })
    }
}

/// Lets a gateway read the log in peace.
pub(super) fn undisturbed(log: &Log, folder: &Path) -> Result<Run> {
    let (scene, home) = (Scene::set(folder, RULES)?, folder.join("gateway"));
    log.copy_to(&home)?;
    let start = signals::now();
    let mut gateway = Gateway::start(&home, scene.config(&home, log::config())?)?;
    settle(&mut gateway, &scene.cloud, QUIET, SETTLE_WITHIN)?;
    gateway.stop()?;
    Run::of(&scene, 0, 0, start.elapsed().as_secs_f64())
}

/// Kills the gateway again and again while it reads the log.
pub(super) fn killed(plan: &Plan, log: &Log, folder: &Path) -> Result<Run> {
    let (scene, home) = (Scene::set(folder, RULES)?, folder.join("gateway"));
    log.copy_to(&home)?;
    let mut random = StdRng::seed_from_u64(plan.seed);
    let start = signals::now();
    let mut gateway = Gateway::start(&home, scene.config(&home, log::config())?)?;
    let mut amid = 0;
    for kill in 0..plan.kills {
        trouble(&mut random, scene.cloud.control().event_grid())?;
        let [(least, most), later] = LIVES;
        let (least, most) = if kill < plan.kills / 2 { (least, most) } else { later };
        wait_until(signals::now() + random.random_range(least..most))?;
        amid += u32::from(super::scene::standing(&gateway).is_ok_and(|standing| standing.lag > 0));
        gateway.kill()?;
        gateway.restart().with_context(|| format!("start after kill {}", kill + 1))?;
    }
    scene.cloud.control().event_grid().fault(&json!({ "fault": "clear" }))?;
    settle(&mut gateway, &scene.cloud, QUIET, SETTLE_WITHIN)?;
    gateway.stop()?;
    Run::of(&scene, plan.kills, amid, start.elapsed().as_secs_f64())
}

/// Something that Event Grid does to the next requests.
fn trouble(random: &mut StdRng, event_grid: EventGrid<'_>) -> Result<()> {
    let requests = random.random_range(1..4);
    let order = match random.random_range(0..8) {
        0 => json!({ "fault": "lose-answers", "requests": requests }),
        1 => json!({ "fault": "cut-requests", "requests": requests }),
        2 => json!({ "fault": "status", "status": 503, "requests": requests }),
        3 => json!({ "fault": "status", "status": 503, "requests": requests, "accept": true }),
        4 => json!({ "fault": "status", "status": 429, "requests": 1, "retry_after": 1 }),
        5 => json!({ "fault": "status", "status": 401, "requests": 1 }),
        6 => json!({ "fault": "cut-connections" }),
        _ => return Ok(()),
    };
    event_grid.fault(&order)?;
    Ok(())
}

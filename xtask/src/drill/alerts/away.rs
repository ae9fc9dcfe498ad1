//! Event Grid never answers: whether the devices notice. Runs without and with each trouble take turns, all at the same
//! offered rate, so that what differs is what the trouble costs.

use std::path::Path;

use anyhow::{Context, Result, bail};
use serde_json::json;
use testkit::alerts::{Bounds, Difference, Showing, Waits, waits, weigh_bystanders};
use testkit::gateway::{Config, Gateway};
use testkit::ports;

use super::finding::Finding;
use super::fleet::{self, Breaches, Fleet, Load, RULE_OF};
use super::outage::ALERTING;
use super::scene::{EVENT_GRID, Scene};
use crate::say;
use crate::signals;

/// How Event Grid behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Trouble {
    None,
    /// Nobody listens there.
    Refused,
    /// Connections and requests are taken and never answered.
    Hangs,
    /// Every request gets 503.
    Busy,
}

/// Tried again as often as that, so that the trouble costs more than it would in earnest.
const IMPATIENT: [&str; 3] = ["timeout = \"1s\"", "retry_first = \"100ms\"", "retry_longest = \"200ms\""];
/// Requests that a fault is for: more than there can be.
const FOR_EVER: u64 = 1_000_000_000;
/// Devices breach each limit once in a turn of so many seconds, for a third of it.
const TURN_S: u32 = 3;

/// The size of the comparison.
#[derive(Debug, Clone, Copy)]
pub(super) struct Plan {
    pub(super) devices: u32,
    pub(super) rate: u32,
    /// How long each run publishes.
    pub(super) seconds: u32,
    /// How often each trouble has its turn.
    pub(super) rounds: u32,
    /// Least share of what the devices and the processor do without the trouble.
    pub(super) share_min: f64,
    pub(super) seed: u64,
}

impl Trouble {
    const ALL: [Self; 4] = [Self::None, Self::Refused, Self::Hangs, Self::Busy];

    const fn name(self) -> &'static str {
        match self {
            Self::None => "well",
            Self::Refused => "refused",
            Self::Hangs => "hangs",
            Self::Busy => "503",
        }
    }
}

pub(super) fn play(plan: Plan, folder: &Path) -> Result<Finding> {
    let mut showings = Trouble::ALL.map(|trouble| (trouble, Vec::new()));
    let mut ways = Vec::new();
    for round in 1..=plan.rounds {
        // Every other round goes backwards, so that a machine that becomes slower does so for all of them.
        let mut turns: Vec<_> = showings.iter_mut().collect();
        if round % 2 == 0 {
            turns.reverse();
        }
        for (trouble, showings) in turns {
            signals::check()?;
            let place = folder.join(format!("{}-{round}", trouble.name()));
            let (showing, way) = run(plan, *trouble, &place)
                .with_context(|| format!("Event Grid {}, round {round}", trouble.name()))?;
            ways.extend(way);
            say::line(&format!(
                "away: Event Grid {}: {:.0} acknowledged/s, p99 {:.1} ms, {:.2} us of processor time per message",
                trouble.name(),
                showing.acked_per_s,
                showing.ack_p99_ms,
                showing.cpu_us
            ));
            showings.push(showing);
            std::fs::remove_dir_all(&place).with_context(|| place.display().to_string())?;
        }
    }
    let [(_, well), troubles @ ..] = &showings;
    let compared: Vec<(&str, Difference)> = troubles
        .iter()
        .map(|(trouble, showings)| (trouble.name(), weigh_bystanders(well, showings, plan.bounds())))
        .collect();
    let sentences = compared.iter().flat_map(|(name, difference)| {
        difference.reasons.iter().map(move |reason| format!("Event Grid {name}: {reason}"))
    });
    let reasons = sentences.collect();
    let words = compared.iter().map(|(name, difference)| {
        format!(
            "{name}: share of messages/s {:.3}, of processor time per message {:.3} (noise {:.3}), p99 {:.1} ms for {:.1} ms",
            difference.acked_share, difference.cpu_share, difference.cpu_noise, difference.away.ack_p99_ms, difference.well.ack_p99_ms
        )
    });
    let way = ways.iter().map(|way| way.waits.p99_ms).max().unwrap_or_default();
    let durable = ways.iter().filter_map(|way| way.durable_p99_ms).fold(0.0, f64::max);
    let summary = format!(
        "{}; well, 99 percent of alerts were durable within {durable:.0} ms and arrived within {way} ms",
        words.collect::<Vec<_>>().join("; ")
    );
    let details = json!({
        "devices": plan.devices, "rate": plan.rate, "seconds": plan.seconds, "rounds": plan.rounds,
        "share_min": plan.share_min, "alerts_when_well": ways,
        "troubles": compared.iter().map(|(name, difference)| json!({ "trouble": name, "compared": difference }))
            .collect::<Vec<_>>(),
        "runs": showings.iter().map(|(trouble, showings)| json!({ "trouble": trouble.name(), "runs": showings }))
            .collect::<Vec<_>>(),
    });
    Ok(Finding { name: "away", summary, details, reasons })
}

/// How long alerts were on their way; the worst run counts.
#[derive(Debug, Clone, Copy, serde::Serialize)]
struct Way {
    durable_p99_ms: Option<f64>,
    waits: Waits,
}

/// One run; says what devices and processor showed and, when Event Grid is well, how long alerts were on their way.
fn run(plan: Plan, trouble: Trouble, folder: &Path) -> Result<(Showing, Option<Way>)> {
    let scene = Scene::set(folder, &format!("{ALERTING}{}", fleet::RULES))?;
    let home = folder.join("gateway");
    let config = IMPATIENT.iter().fold(super::log::config(), |config, line| config.set(EVENT_GRID, line));
    let mut gateway = Gateway::start(&home, configured(&scene, &home, config, trouble)?)?;
    let event_grid = scene.cloud.control().event_grid();
    match trouble {
        Trouble::None | Trouble::Refused => 0,
        Trouble::Hangs => event_grid.black_hole(FOR_EVER)?,
        Trouble::Busy => event_grid.refuse(503, FOR_EVER)?,
    };
    let load = plan.load();
    let (mut fleet, _) = Fleet::start(&load, &mut gateway, folder)?;
    let (report, truth) = fleet.end()?;
    let mut broken = fleet::broken(&report);
    // The drill would show nothing if alerts went out all the same, or if there were none.
    let accepted = event_grid.events_after(u64::MAX)?.accepted;
    match trouble {
        Trouble::None if accepted == 0 => broken.push("no alert arrived".to_owned()),
        Trouble::Refused | Trouble::Hangs | Trouble::Busy if accepted > 0 => {
            broken.push(format!("{accepted} alerts arrived though nobody took them"));
        }
        _ => {}
    }
    let mut way = None;
    if trouble == Trouble::None {
        let entries = event_grid.all_events_after(0)?;
        let waits = waits(&fleet::breaches(&truth), &fleet::arrivals(&entries));
        way = Some(Way { durable_p99_ms: fleet::durable_p99_ms(&gateway)?, waits });
    }
    gateway.kill()?;
    if let Some(broken) = broken.first() {
        bail!("{broken}");
    }
    let showing = Showing {
        acked_per_s: report.acked_per_second,
        ack_p99_ms: report.ack_ms.p99,
        cpu_us: report.gateway_cpu_us_per_message.context("the fleet did not see what the gateway used")?,
    };
    Ok((showing, way))
}

fn configured(scene: &Scene, home: &Path, config: Config, trouble: Trouble) -> Result<Config> {
    match trouble {
        Trouble::Refused => {
            let [nobody] = ports::free().context("no port is free")?;
            scene.config_to(home, config, &format!("http://{nobody}/api/events"))
        }
        Trouble::None | Trouble::Hangs | Trouble::Busy => scene.config(home, config),
    }
}

impl Plan {
    fn load(self) -> Load {
        let turns = (1..self.seconds.saturating_sub(1)).step_by(usize::try_from(TURN_S).unwrap_or(1));
        let (third, most) = (f64::from(TURN_S) / 3.0, 20);
        let of = |start: u32| {
            RULE_OF.map(|(metric, ..)| Breaches {
                metric,
                percent: 100,
                start: start.into(),
                spread: third,
                length: third,
            })
        };
        Load {
            devices: self.devices,
            rate: self.rate,
            seconds: self.seconds,
            seed: self.seed,
            breaches: turns.take(most).flat_map(of).collect(),
            measured: true,
        }
    }

    /// The processor time per message decides: at a fixed rate it varies least from run to run. A tail of latencies
    /// depends on what else the machine does, so that only a coarse bound means anything.
    const fn bounds(self) -> Bounds {
        Bounds {
            share_min: self.share_min,
            cpu_share_min: self.share_min,
            p99_factor_max: 2.0,
            p99_more_ms: 10.0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_device_breaches_every_limit_in_every_turn() {
        let plan = Plan { devices: 10, rate: 100, seconds: 8, rounds: 1, share_min: 0.95, seed: 1 };
        let load = plan.load();
        assert_eq!(load.breaches.len(), 6);
        assert!(load.breaches.iter().all(|one| one.start + one.spread + one.length <= 8.0));
        assert!(Plan { seconds: 600, ..plan }.load().breaches.len() <= 60);
    }
}

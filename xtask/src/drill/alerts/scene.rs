//! A gateway with rules, and the Event Grid that it sends to.

use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::Value;
use testkit::cloud::Cloud;
use testkit::cloud::event_grid::KEYS;
use testkit::gateway::{Config, Gateway};

use crate::signals;

/// The section of the gateway's configuration that says where alerts go.
pub(super) const EVENT_GRID: &str = "[alerts.event_grid]";
/// The topic that telemetry goes to.
const TELEMETRY: &str = "telemetry";
/// How often somebody is asked.
const LOOK: Duration = Duration::from_millis(50);

/// A cloud with Event Grid, and the files that a gateway needs for it.
pub(super) struct Scene {
    pub(super) cloud: Cloud,
    pub(super) rules: PathBuf,
    key: PathBuf,
}

impl Scene {
    /// Starts a cloud in `folder` and writes the rules there.
    pub(super) fn set(folder: &Path, rules: &str) -> Result<Self> {
        fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
        let cloud = Cloud::start_with_event_grid(folder, &[(TELEMETRY, 4)], &[] as &[&str])?;
        let write = |name: &str, text: &str| {
            let path = folder.join(name);
            fs::write(&path, text).with_context(|| path.display().to_string()).map(|()| path)
        };
        let (rules, key) = (write("rules.toml", rules)?, write("event-grid-key", KEYS[0])?);
        Ok(Self { cloud, rules, key })
    }

    /// What a gateway in `home` has to be told of rules and Event Grid.
    pub(super) fn config(&self, home: &Path, config: Config) -> Result<Config> {
        let endpoint = self.cloud.ready().event_grid_endpoint().context("the stand-in has an Event Grid")?;
        self.config_to(home, config, &endpoint)
    }

    /// As [`Self::config`], with an Event Grid elsewhere.
    pub(super) fn config_to(&self, home: &Path, config: Config, endpoint: &str) -> Result<Config> {
        fs::create_dir_all(home).with_context(|| home.display().to_string())?;
        let config = config.rules(&self.rules, &home.join("alerts")).event_grid(endpoint, &self.key);
        Ok(config.set("alerts", "snapshot_every = \"1s\""))
    }
}

/// The configuration with telemetry on its way to the event hub.
pub(super) fn uplink(scene: &Scene, config: Config) -> Config {
    config.uplink(&scene.cloud.ready().kafka, TELEMETRY)
}

/// What the gateway says of its alerts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Standing {
    /// Messages not looked at.
    pub(super) lag: u64,
    /// Alerts not sent.
    pub(super) unsent: u64,
    pub(super) open: u64,
}

/// Asks the gateway.
pub(super) fn standing(gateway: &Gateway) -> Result<Standing> {
    let status = gateway.admin("/api/v1/status")?.context("the gateway refuses to tell its status")?;
    let status: Value = serde_json::from_str(&status).context("its status is not JSON")?;
    let number = |pointer: &str| {
        let value = status.pointer(pointer).and_then(Value::as_u64);
        value.with_context(|| format!("its status has no number at {pointer}: {status}"))
    };
    let sinks =
        status.pointer("/alerts/sinks").and_then(Value::as_array).context("no sinks in its status")?;
    let unsent = sinks.iter().filter_map(|sink| sink["backlog_messages"].as_u64()).sum();
    Ok(Standing { lag: number("/alerts/lag_messages")?, unsent, open: number("/alerts/open")? })
}

/// Waits until every message was looked at, every alert was sent and, for `quiet`, no other came up.
pub(super) fn settle(gateway: &mut Gateway, cloud: &Cloud, quiet: Duration, limit: Duration) -> Result<()> {
    let start = signals::now();
    let (mut since, mut before) = (signals::now(), None);
    loop {
        signals::check()?;
        if !gateway.process().running()? {
            bail!("the gateway ended by itself; its last words:\n{}", gateway.process().stderr_tail());
        }
        let (now, accepted) =
            (standing(gateway)?, cloud.control().event_grid().events_after(u64::MAX)?.accepted);
        let idle = now.lag == 0 && now.unsent == 0;
        if !idle || before != Some((now.open, accepted)) {
            (since, before) = (signals::now(), Some((now.open, accepted)));
        } else if since.elapsed() >= quiet {
            return Ok(());
        }
        if start.elapsed() > limit {
            bail!("after {limit:?} the alerts are not settled: {now:?}, {accepted} accepted");
        }
        look()?;
    }
}

/// Waits until it is time to look again.
pub(super) fn look() -> Result<()> {
    signals::check()?;
    thread::park_timeout(LOOK);
    Ok(())
}

/// Waits until `end`.
pub(super) fn wait_until(end: Instant) -> Result<()> {
    loop {
        signals::check()?;
        let left = end.saturating_duration_since(signals::now());
        if left.is_zero() {
            return Ok(());
        }
        thread::park_timeout(left.min(LOOK));
    }
}

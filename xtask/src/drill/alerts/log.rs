//! The log that rules read: what a fleet published into a gateway that has no rules yet.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use testkit::gateway::{Config, Gateway};
use testkit::process::{self, Process};

use super::Plan;

/// An outbox with telemetry and without a gateway.
pub(super) struct Log {
    /// The directory of the outbox.
    pub(super) outbox: PathBuf,
    pub(super) messages: u64,
}

/// Has a fleet fill an outbox in `folder`.
pub(super) fn record(plan: &Plan, folder: &Path) -> Result<Log> {
    fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
    let mut gateway = Gateway::start(folder, config())?;
    let report = folder.join("report.json");
    let mut command = Command::new(process::find("firmware-sim")?);
    command.args(["run", "--progress", "none", "--qos0", "0", "--qos2", "0", "--v5", "50"]);
    let mut option = |name: &str, value: String| {
        command.args([format!("--{name}"), value]);
    };
    option("target", format!("mqtt://{}", gateway.mqtt()));
    option("devices", plan.devices.to_string());
    option("rate", plan.rate.to_string());
    option("seconds", plan.log_seconds.to_string());
    option("seed", plan.seed.to_string());
    option("report", report.to_string_lossy().into_owned());
    let mut fleet = Process::spawn("firmware-sim", &mut command, &folder.join("fleet.log"))?;
    let status = fleet.wait(Duration::from_secs(u64::from(plan.log_seconds) + 120))?;
    if !status.success() {
        bail!("the fleet ended with {status}; its last words:\n{}", fleet.stderr_tail());
    }
    let text = fs::read_to_string(&report).context("the fleet wrote no report")?;
    let report: testkit::report::Report = serde_json::from_str(&text).context("the fleet's report")?;
    gateway.stop()?;
    Ok(Log { outbox: folder.join("outbox"), messages: report.acked })
}

/// A gateway whose telemetry stays where it is.
pub(super) fn config() -> Config {
    Config::default().set("uplink", "enabled = false")
}

impl Log {
    /// Puts a copy of it where a gateway in `home` looks for its outbox.
    pub(super) fn copy_to(&self, home: &Path) -> Result<()> {
        copy(&self.outbox, &home.join("outbox"))
    }
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to).with_context(|| to.display().to_string())?;
    for entry in fs::read_dir(from).with_context(|| from.display().to_string())? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy(&entry.path(), &target)?;
        } else {
            fs::copy(entry.path(), &target).with_context(|| target.display().to_string())?;
        }
    }
    Ok(())
}

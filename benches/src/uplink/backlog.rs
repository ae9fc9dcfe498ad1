//! An outbox full of messages that no device needs to send again for every measurement: filled once, copied for
//! each gateway.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use penstock_proto::Lane;
use tempfile::TempDir;

use crate::outbox::job::alone;
use crate::outbox::load::{Load, Pace};
use crate::outbox::log::{Codec, Outbox, Setup};
use crate::outbox::telemetry::Telemetry;
use crate::servers;

/// Devices that sent the messages, and messages each has in flight meanwhile.
const FILL: (u32, u32) = (1000, 16);

/// How often a fill looks at what it has got.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// A closed outbox in which nothing is confirmed.
#[derive(Debug)]
pub struct Backlog {
    folder: TempDir,
    messages: u64,
}

impl Backlog {
    /// Fills a new outbox in `parent` with at least `messages` of 200 bytes from a thousand devices.
    ///
    /// # Errors
    /// It cannot be opened or closed, or a producer fails.
    pub async fn fill(parent: &Path, messages: u64, payloads: Telemetry) -> Result<Self> {
        let folder = servers::folder(parent, "backlog-")?;
        let setup = Setup { codec: Codec::Lz4, floor_micros: crate::outbox::FLOOR_MICROS };
        let consumers = penstock::uplink::consumers();
        let (log, _) = Outbox::open_for(&folder.path().join("outbox"), setup, &consumers, |_| {})?;
        let log = Arc::new(log);
        let mut load = Load::new(&log, &Arc::new(payloads))?;
        load.start(FILL.0, Lane::Telemetry, Pace::Window(FILL.1));
        while load.acked() < messages {
            tokio::time::sleep(LOOK_EVERY).await;
        }
        load.stop().await?;
        let lanes = log.handle().status().lanes;
        let lane = lanes.into_iter().find(|lane| lane.lane == Lane::Telemetry);
        let messages = lane.context("every lane is there")?.next.0 - 1;
        tokio::task::spawn_blocking(|| alone(log)?.close()).await??;
        Ok(Self { folder, messages })
    }

    /// How many messages it holds.
    pub fn messages(&self) -> u64 {
        self.messages
    }

    /// Copies it into the folder of a gateway.
    ///
    /// # Errors
    /// A file cannot be copied.
    pub fn copy_to(&self, gateway: &Path) -> Result<()> {
        copy(&self.folder.path().join("outbox"), &gateway.join("outbox"))
    }
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    let failed = || format!("{} cannot be copied", from.display());
    fs::create_dir_all(to).with_context(failed)?;
    for entry in fs::read_dir(from).with_context(failed)? {
        let entry = entry.with_context(failed)?;
        let (old, new) = (entry.path(), to.join(entry.file_name()));
        if entry.file_type().with_context(failed)?.is_dir() {
            copy(&old, &new)?;
        } else {
            fs::copy(&old, &new).with_context(|| format!("{} cannot be copied", old.display()))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(flavor = "multi_thread")]
    async fn a_copy_holds_what_was_filled() {
        let parent = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap();
        let backlog = Backlog::fill(parent.path(), 2_000, Telemetry::new().unwrap()).await.unwrap();
        assert!(backlog.messages() >= 2_000);
        backlog.copy_to(&parent.path().join("gateway")).unwrap();
        let setup = Setup { codec: Codec::Lz4, floor_micros: 0 };
        let consumers = penstock::uplink::consumers();
        let directory = parent.path().join("gateway/outbox");
        let (log, _) = Outbox::open_for(&directory, setup, &consumers, |_| {}).unwrap();
        let lanes = log.handle().status().lanes;
        let lane = lanes.iter().find(|lane| lane.lane == Lane::Telemetry).unwrap();
        assert_eq!((lane.low.0, lane.next.0), (1, backlog.messages() + 1));
        log.close().unwrap();
    }
}

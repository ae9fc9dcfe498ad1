//! A gateway with a full outbox in front of a cloud that does not answer yet.

use std::path::Path;
use std::time::Duration;

use anyhow::{Result, bail};

use super::backlog::Backlog;
use super::way::{Sky, Way};
use crate::clock::now;
use crate::load::count;
use crate::servers::Server;
use crate::threads::{self, Threads};

/// Longest time without any new confirmation.
const STALLED_AFTER: Duration = Duration::from_secs(60);
/// How often the gateway is asked how much was confirmed, until something was and then.
const ASK_FIRST: Duration = Duration::from_millis(10);
const ASK_EVERY: Duration = Duration::from_millis(100);

/// The gateway and its cloud.
#[derive(Debug)]
pub struct Site {
    /// The gateway.
    pub gateway: Server,
    sky: Sky,
}

/// What sending cost.
#[derive(Debug, Clone, Copy)]
pub struct Cost {
    /// Messages confirmed.
    pub messages: u64,
    /// Messages confirmed per second, from the first confirmation seen to the last.
    pub per_second: f64,
    /// Processor time of the gateway.
    pub cpu: Duration,
    /// Of it, the uplink's own thread.
    pub uplink: Duration,
    /// Of it, the client library's threads.
    pub client: Duration,
    /// The most memory resident so far, in bytes.
    pub rss_bytes_max: u64,
}

impl Site {
    /// Starts both; the cloud refuses connections until [`Self::open`].
    ///
    /// # Errors
    /// One of them does not become ready.
    pub fn start(parent: &Path, backlog: &Backlog, way: Way) -> Result<Self> {
        let sky = Sky::start(parent)?;
        sky.cloud.control().accepting(false)?;
        let gateway = Server::gateway_with(parent, sky.config(way)?, Some(backlog))?;
        Ok(Self { gateway, sky })
    }

    /// Lets the cloud answer.
    ///
    /// # Errors
    /// It cannot be told.
    pub fn open(&self) -> Result<()> {
        Ok(self.sky.cloud.control().accepting(true)?)
    }

    /// Opens the cloud and waits until so many messages are confirmed.
    ///
    /// # Errors
    /// Nothing is confirmed for too long.
    pub async fn drain(&self, messages: u64) -> Result<Cost> {
        let before = self.spent()?;
        self.open()?;
        let (first, seen) = self.wait(1, ASK_FIRST).await?;
        let (last, all) = self.wait(messages, ASK_EVERY).await?;
        let after = self.spent()?;
        let elapsed = last.duration_since(first).as_secs_f64();
        Ok(Cost {
            messages: all,
            per_second: count(all - seen) / elapsed.max(1e-9),
            cpu: after.0.saturating_sub(before.0),
            uplink: threads::spent(&before.1, &after.1, "uplink"),
            client: threads::spent(&before.1, &after.1, "rdk:"),
            rss_bytes_max: self.gateway.rss_bytes_max()?,
        })
    }

    fn spent(&self) -> Result<(Duration, Threads)> {
        Ok((self.gateway.usage()?.cpu, self.gateway.threads()?))
    }

    async fn wait(&self, messages: u64, ask_every: Duration) -> Result<(std::time::Instant, u64)> {
        let (mut newest, mut moved) = (0, now());
        loop {
            let confirmed = self.gateway.confirmed()?;
            if confirmed >= messages {
                return Ok((now(), confirmed));
            }
            if confirmed > newest {
                (newest, moved) = (confirmed, now());
            } else if moved.elapsed() > STALLED_AFTER {
                bail!("{confirmed} of {messages} messages are confirmed, and none for {STALLED_AFTER:?}");
            }
            tokio::time::sleep(ask_every).await;
        }
    }
}

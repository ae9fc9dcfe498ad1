//! What the generator drives: a log that takes records in and says when they are durable.

use std::future::Future;
use std::path::Path;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use anyhow::{Result, bail};
use penstock::outbox::{
    Appender, Completion, Config, ConsumerId, Encoded, Entry, Handle, Properties, Service, StateOps, Ticket,
};
use penstock::supervise::Supervisor;
use penstock_proto::Lane;
use serde::{Deserialize, Serialize};

use crate::clock::now;

/// Longest time to close a log.
const CLOSE_WITHIN: Duration = Duration::from_secs(60);

/// The consumer that drains the outbox, where one is wanted.
pub const CONSUMER: &str = "bench";

/// A message on its way into a log.
#[derive(Debug, Clone, Copy)]
pub struct Message<'a> {
    /// The lane; a log without lanes ignores it.
    pub lane: Lane,
    /// The device key.
    pub device: &'a str,
    /// The topic.
    pub topic: &'a str,
    /// When it was taken in, in Unix milliseconds.
    pub received_ms: u64,
    /// The payload.
    pub payload: &'a [u8],
}

/// A log under load. Producers encode into buffers of their own, submit one buffer at a time and are woken once
/// for all that became durable, as the gateway's connections are.
pub trait Log: Send + Sync + 'static {
    /// Encoded messages of one submission.
    type Records: Default + Send;
    /// Tells one producer how far its submissions are durable.
    type Done: Default + Send + Sync;

    /// Forgets what is encoded and keeps the buffers.
    fn clear(records: &mut Self::Records);

    /// Encodes one message.
    fn push(records: &mut Self::Records, message: &Message<'_>);

    /// Submits what is encoded, waiting for room if there is none. Returns the number of the submission.
    ///
    /// # Errors
    /// Nothing can be taken in any more.
    fn submit(
        &self,
        records: &Self::Records,
        done: &Arc<Self::Done>,
    ) -> impl Future<Output = Result<u64>> + Send;

    /// Ready when a submission above `seen` is durable, with the highest such number.
    ///
    /// # Errors
    /// A submission failed.
    fn poll_durable(done: &Self::Done, seen: u64, cx: &mut Context<'_>) -> Poll<Result<u64>>;

    /// Groups committed so far.
    fn commits(&self) -> u64;
}

/// How an outbox is set up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Setup {
    /// How bodies are compressed.
    pub codec: Codec,
    /// Least time between the starts of two commits, in microseconds.
    pub floor_micros: u64,
}

/// How bodies are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Codec {
    /// Stored as they are.
    None,
    /// LZ4 block format.
    Lz4,
}

/// The outbox under test.
#[derive(Debug)]
pub struct Outbox {
    service: Service,
    handle: Handle,
    appender: Appender,
    // Outlives what it started.
    _supervisor: Supervisor,
}

// === impl Outbox ===

impl Outbox {
    /// Opens or creates an outbox in `directory`; also how long that took. `consumed` lanes get a consumer;
    /// `change` may change what `setup` leaves at its default.
    ///
    /// # Errors
    /// It does not open.
    pub fn open(
        directory: &Path,
        setup: Setup,
        consumed: &[Lane],
        change: impl FnOnce(&mut Config),
    ) -> Result<(Self, Duration)> {
        let consumers: Vec<_> =
            consumed.iter().map(|lane| ConsumerId { name: CONSUMER.to_owned(), lane: *lane }).collect();
        Self::open_for(directory, setup, &consumers, change)
    }

    /// As [`Self::open`], for these consumers.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn open_for(
        directory: &Path,
        setup: Setup,
        consumers: &[ConsumerId],
        change: impl FnOnce(&mut Config),
    ) -> Result<(Self, Duration)> {
        let mut config = Config::new(directory);
        config.commit_floor = Duration::from_micros(setup.floor_micros);
        config.body_codec = match setup.codec {
            Codec::None => penstock::outbox::BodyCodec::None,
            Codec::Lz4 => penstock::outbox::BodyCodec::Lz4,
        };
        // A benchmark is bound by its time, not by the quota.
        config.bytes_max = 1 << 40;
        change(&mut config);
        let supervisor = Supervisor::new();
        let start = now();
        let (service, handle) = Service::open(config, consumers, &supervisor)?;
        let took = start.elapsed();
        let appender = handle.appender();
        Ok((Self { service, handle, appender, _supervisor: supervisor }, took))
    }

    /// The handle.
    pub fn handle(&self) -> &Handle {
        &self.handle
    }

    /// Whether its committer got real-time scheduling.
    pub fn realtime(&self) -> bool {
        self.handle.status().realtime
    }

    /// Closes it.
    ///
    /// # Errors
    /// It does not close in time.
    pub fn close(self) -> Result<()> {
        if !self.service.close(now() + CLOSE_WITHIN) {
            bail!("the outbox does not close");
        }
        Ok(())
    }
}

impl Log for Outbox {
    type Records = Encoded;
    type Done = Completion;

    fn clear(records: &mut Encoded) {
        records.clear();
    }

    fn push(records: &mut Encoded, message: &Message<'_>) {
        let Message { lane, device, topic, received_ms, payload } = *message;
        records.push(&Entry {
            lane,
            device,
            topic,
            received_ms,
            qos: 1,
            retain: false,
            clock_synced: true,
            properties: Properties::default(),
            payload,
        });
    }

    async fn submit(&self, records: &Encoded, done: &Arc<Completion>) -> Result<u64> {
        // Only the quota differs by lane, and the quota is out of reach here.
        let lane = Lane::Telemetry;
        loop {
            match self.appender.reserve(lane, records.bytes()) {
                Ok(permit) => return Ok(self.appender.submit(permit, records, &StateOps::default(), done).0),
                Err(penstock::outbox::Refused::Full) => self.appender.room(lane).await,
                Err(refused) => bail!("the outbox takes nothing in: {refused:?}"),
            }
        }
    }

    fn poll_durable(done: &Completion, seen: u64, cx: &mut Context<'_>) -> Poll<Result<u64>> {
        done.poll_durable(Ticket(seen), cx).map(|ticket| Ok(ticket?.0))
    }

    fn commits(&self) -> u64 {
        self.handle.wait_commit(u64::MAX, Duration::ZERO)
    }
}

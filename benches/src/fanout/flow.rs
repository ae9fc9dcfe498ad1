//! Publishers and subscribers at work: raw connections that decode just enough to count, to acknowledge and to know
//! when a message was sent.

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use hdrhistogram::Histogram;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::scene::{Scene, Topics, stamp, stamped};
use crate::clock::now;
use crate::devices::{self, Greeting};
use crate::frames;
use crate::frames::Qos;
use crate::load::{Pace, take_acks};
use crate::packets::{Payloads, Publisher};

/// Bytes a subscriber reads at once.
const READ_BYTES: usize = 16 * 1024;

/// Packet ids a publisher takes in turn; more than any window, so that none is in flight when its turn comes.
const PACKET_IDS: u16 = 30_000;

/// Most publishes of one write.
const BURST: usize = 16;

/// How long deliveries may still come when nothing is published any more.
const LAST_WITHIN: Duration = Duration::from_secs(5);

/// How often it is looked whether they came.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Latencies above this count as this much, in microseconds.
const LATENCY_MICROS_MAX: u64 = 60_000_000;

/// A scene that plays; dropped, everybody is gone.
#[derive(Debug)]
pub(super) struct Flow {
    shared: Arc<Shared>,
    tasks: JoinSet<io::Result<()>>,
}

#[derive(Debug)]
struct Shared {
    start: Instant,
    /// Deliveries of one publish.
    fan: u64,
    published: AtomicU64,
    delivered: AtomicU64,
    /// Publishes that may still go out; given back by deliveries.
    window: Semaphore,
    stopped: AtomicBool,
    measuring: AtomicBool,
    latency: Mutex<Histogram<u64>>,
    payloads: Payloads,
}

impl Flow {
    /// Subscribes, connects the publishers and lets them go.
    ///
    /// # Errors
    /// A connection or a subscription is refused.
    pub(super) async fn start(
        address: SocketAddr,
        scene: Scene,
        topics: Topics,
        payload: usize,
    ) -> Result<Self> {
        let filter = topics.filter(scene.shape);
        let subscribers = devices::connect_each(address, scene.subscribers(), |index| {
            Greeting::clean(&devices::id_of("watcher-", index))?.subscribed(&filter, scene.qos)
        });
        let subscribers = subscribers.await.context("the subscribers")?;
        let publishers = devices::connect_all(address, scene.publishers()).await.context("the publishers")?;
        let shared = Arc::new(Shared {
            start: now(),
            fan: u64::from(scene.subscribers()),
            published: AtomicU64::new(0),
            delivered: AtomicU64::new(0),
            window: Semaphore::new(usize::from(scene.window())),
            stopped: AtomicBool::new(false),
            measuring: AtomicBool::new(false),
            latency: Mutex::new(Histogram::new_with_bounds(1, LATENCY_MICROS_MAX, 3)?),
            payloads: Payloads::few(payload, 64)?,
        });
        let mut tasks = JoinSet::new();
        for stream in subscribers {
            tasks.spawn(watch(stream, Arc::clone(&shared)));
        }
        for (index, stream) in publishers.into_iter().enumerate() {
            let number = u32::try_from(index)?;
            let source = Source::new(stream, &topics.topic(number), scene.qos, Arc::clone(&shared))?;
            match scene.rate() {
                None => tasks.spawn(source.fill()),
                Some(rate) => tasks.spawn(source.keep(Pace::new(rate, scene.publishers(), index))),
            };
        }
        Ok(Self { shared, tasks })
    }

    /// Messages delivered so far, over all subscribers.
    pub(super) fn delivered(&self) -> u64 {
        self.shared.delivered.load(Ordering::Relaxed)
    }

    /// Takes latencies from now on.
    pub(super) fn measure(&self) {
        self.shared.measuring.store(true, Ordering::Relaxed);
    }

    /// From the write of a PUBLISH to the read of each delivery, in microseconds.
    pub(super) fn latency(&self) -> Histogram<u64> {
        self.shared.measuring.store(false, Ordering::Relaxed);
        self.shared.latency.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether all connections still work.
    ///
    /// # Errors
    /// One of them does not.
    pub(super) fn check(&mut self) -> Result<()> {
        if let Some(ended) = self.tasks.try_join_next() {
            ended?.context("a connection failed under load")?;
            bail!("a connection ended under load");
        }
        Ok(())
    }

    /// Publishes no more, waits for the deliveries of what was published, and tells how many never came.
    ///
    /// # Errors
    /// A connection failed.
    pub(super) async fn stop(mut self) -> Result<u64> {
        self.shared.stopped.store(true, Ordering::Relaxed);
        let deadline = now() + LAST_WITHIN;
        loop {
            self.check()?;
            let expected = self.shared.published.load(Ordering::Relaxed) * self.shared.fan;
            let missing = expected.saturating_sub(self.delivered());
            if missing == 0 || now() > deadline {
                return Ok(missing);
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }
}

impl Shared {
    fn micros(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    /// Counts deliveries and lets as many publishes out as are complete by them.
    fn arrived(&self, sent: &[u64]) {
        let new = u64::try_from(sent.len()).unwrap_or_default();
        let before = self.delivered.fetch_add(new, Ordering::Relaxed);
        let complete = (before + new) / self.fan - before / self.fan;
        self.window.add_permits(usize::try_from(complete).unwrap_or_default());
        if self.measuring.load(Ordering::Relaxed) {
            let now = self.micros();
            let mut latency = self.latency.lock().unwrap_or_else(PoisonError::into_inner);
            for moment in sent {
                latency.saturating_record(now.saturating_sub(*moment).max(1));
            }
        }
    }
}

/// One subscriber: takes deliveries and acknowledges them; never returns `Ok`.
async fn watch(mut stream: TcpStream, shared: Arc<Shared>) -> io::Result<()> {
    let mut buffer = vec![0; READ_BYTES];
    let (mut filled, mut acks, mut sent) = (0, Vec::new(), Vec::new());
    loop {
        let read = stream.read(buffer.get_mut(filled..).unwrap_or_default()).await?;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        filled = take_deliveries(&mut buffer, filled + read, &mut acks, &mut sent)?;
        if !acks.is_empty() {
            stream.write_all(&acks).await?;
            acks.clear();
        }
        shared.arrived(&sent);
        sent.clear();
    }
}

/// Takes whole packets from the front of the buffer, moves the rest to its start and returns the rest's length.
fn take_deliveries(
    buffer: &mut [u8],
    filled: usize,
    acks: &mut Vec<u8>,
    sent: &mut Vec<u64>,
) -> io::Result<usize> {
    let mut taken = 0;
    while let Some(frame) = frames::first(buffer.get(taken..filled).unwrap_or_default())? {
        taken += frame.bytes;
        let Some(delivery) = frame.delivery()? else { continue };
        if let Some([high, low]) = delivery.id {
            acks.extend_from_slice(&[0x40, 2, high, low]);
        }
        sent.push(stamped(delivery.payload)?);
    }
    buffer.copy_within(taken..filled, 0);
    Ok(filled - taken)
}

/// One publisher.
struct Source {
    read: OwnedReadHalf,
    write: OwnedWriteHalf,
    publisher: Publisher,
    shared: Arc<Shared>,
    payload: Vec<u8>,
    out: Vec<u8>,
    next: u16,
}

impl Source {
    fn new(stream: TcpStream, topic: &str, qos: Qos, shared: Arc<Shared>) -> Result<Self> {
        let (read, write) = stream.into_split();
        let publisher = Publisher::at(qos, topic, shared.payloads.size())?;
        let payload = shared.payloads.get(0).to_vec();
        Ok(Self { read, write, publisher, shared, payload, out: Vec::new(), next: 0 })
    }

    /// Publishes whenever the window has room; never returns `Ok`.
    async fn fill(mut self) -> io::Result<()> {
        let shared = Arc::clone(&self.shared);
        let (mut acks, mut filled, mut acked) = ([0; 256], 0, Vec::new());
        loop {
            tokio::select! {
                permit = shared.window.acquire() => {
                    permit.map_err(io::Error::other)?.forget();
                    let mut count = 1;
                    while count < BURST && let Ok(permit) = shared.window.try_acquire() {
                        permit.forget();
                        count += 1;
                    }
                    self.publish(count).await?;
                }
                read = self.read.read(acks.get_mut(filled..).unwrap_or_default()) => {
                    filled = taken(read?, &mut acks, filled, &mut acked)?;
                }
            }
        }
    }

    /// Publishes at a fixed rate, whatever is delivered; never returns `Ok`.
    async fn keep(mut self, pace: Pace) -> io::Result<()> {
        let (mut acks, mut filled, mut acked) = ([0; 256], 0, Vec::new());
        let (start, mut sent) = (now(), 0);
        loop {
            let due = pace.due(start.elapsed()).saturating_sub(sent);
            if due > 0 {
                sent += due;
                self.publish(due).await?;
            }
            let next = tokio::time::Instant::from_std(start + pace.time_of(sent));
            tokio::select! {
                () = tokio::time::sleep_until(next) => {}
                read = self.read.read(acks.get_mut(filled..).unwrap_or_default()) => {
                    filled = taken(read?, &mut acks, filled, &mut acked)?;
                }
            }
        }
    }

    /// Publishes so many messages, none once the scene is stopped.
    async fn publish(&mut self, count: usize) -> io::Result<()> {
        if self.shared.stopped.load(Ordering::Relaxed) {
            return Ok(());
        }
        let moment = self.shared.micros();
        for _ in 0..count {
            self.next = self.next % PACKET_IDS + 1;
            self.payload.copy_from_slice(self.shared.payloads.get(usize::from(self.next)));
            stamp(&mut self.payload, moment);
            self.publisher.push(&mut self.out, self.next, &self.payload);
        }
        self.shared.published.fetch_add(u64::try_from(count).unwrap_or_default(), Ordering::Relaxed);
        self.write.write_all(&self.out).await?;
        self.out.clear();
        Ok(())
    }
}

/// Takes the acknowledgements that were read and returns what is left of them.
fn taken(read: usize, acks: &mut [u8], filled: usize, acked: &mut Vec<u16>) -> io::Result<usize> {
    if read == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    acked.clear();
    take_acks(acks, filled + read, acked)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deliveries_are_acknowledged_and_the_rest_stays() {
        let mut buffer = vec![0x32, 13, 0, 1, b'a', 0, 9, 0, 0, 0, 0, 0, 0, 0, 5];
        buffer.extend_from_slice(&[0x30, 11, 0, 1, b'a', 0, 0, 0, 0, 0, 0, 0, 6, 0x30, 11]);
        let filled = buffer.len();
        let (mut acks, mut sent) = (Vec::new(), Vec::new());
        assert_eq!(take_deliveries(&mut buffer, filled, &mut acks, &mut sent).unwrap(), 2);
        assert_eq!((acks.as_slice(), sent.as_slice()), ([0x40, 2, 0, 9].as_slice(), [5, 6].as_slice()));
        assert_eq!(buffer[..2], [0x30, 11]);
    }

    #[tokio::test]
    async fn the_window_opens_when_every_subscriber_has_the_message() {
        let shared = Shared {
            start: now(),
            fan: 3,
            published: AtomicU64::new(0),
            delivered: AtomicU64::new(0),
            window: Semaphore::new(0),
            stopped: AtomicBool::new(false),
            measuring: AtomicBool::new(true),
            latency: Mutex::new(Histogram::new_with_bounds(1, LATENCY_MICROS_MAX, 3).unwrap()),
            payloads: Payloads::few(96, 1).unwrap(),
        };
        shared.arrived(&[0, 0]);
        assert_eq!(shared.window.available_permits(), 0);
        shared.arrived(&[0]);
        assert_eq!(shared.window.available_permits(), 1);
        shared.arrived(&[0; 7]);
        assert_eq!(shared.window.available_permits(), 3);
        assert_eq!(shared.latency.lock().unwrap().len(), 10);
    }
}

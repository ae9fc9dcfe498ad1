//! The closed loop: every connection keeps its window full, and everything acknowledged in the measured time
//! counts. Or a fixed rate, within the window.

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicI64, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use hdrhistogram::Histogram;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::cell::Cell;
use crate::clock::now;
use crate::devices::{self, Greeting};
use crate::packets::{self, ACK_BYTES, Payloads, Publisher};

/// Longest wait for the last acknowledgements of a time that was measured.
const LAST_WITHIN: Duration = Duration::from_secs(30);

/// How often it is looked whether they came.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Latencies above this count as this much, in microseconds.
const LATENCY_MICROS_MAX: u64 = 60_000_000;

/// One measurement: which server, how much load, how long.
#[derive(Debug, Clone)]
pub struct Load {
    /// The server's MQTT listener.
    pub address: SocketAddr,
    /// Connections and window.
    pub cell: Cell,
    /// What is published.
    pub payloads: Arc<Payloads>,
    /// Time under load before the measurement starts.
    pub warm_up: Duration,
    /// Time that is measured.
    pub measure: Duration,
}

/// What a measurement found.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// Messages acknowledged in the measured time.
    pub acked: u64,
    /// Messages acknowledged since the first connection, warm-up included.
    pub acked_total: u64,
    /// The measured time.
    pub elapsed: Duration,
    /// The server's processor time within it.
    pub cpu: Duration,
    /// From the write of a PUBLISH to the read of its PUBACK, in microseconds.
    pub latency: Histogram<u64>,
}

impl Outcome {
    /// Server processor time per acknowledged message, in microseconds.
    pub fn cpu_micros_per_message(&self) -> f64 {
        self.cpu.as_secs_f64() * 1e6 / count(self.acked).max(1.0)
    }

    /// Messages acknowledged in a second.
    pub fn acked_per_second(&self) -> f64 {
        count(self.acked) / self.elapsed.as_secs_f64().max(1e-9)
    }

    /// A percentile of the latency, in milliseconds.
    pub fn latency_ms(&self, percentile: f64) -> f64 {
        count(self.latency.value_at_percentile(percentile)) / 1e3
    }
}

/// What the connections share. Latencies are those of messages that were sent while `phase` was `measured`,
/// whenever their acknowledgements come.
#[derive(Debug)]
struct Shared {
    phase: AtomicU32,
    measured: AtomicU32,
    /// Messages of the measured phase without acknowledgement.
    open: AtomicI64,
    acked: AtomicU64,
    latency: Mutex<Histogram<u64>>,
    payloads: Arc<Payloads>,
}

/// Connections under load; dropped, they are closed.
#[derive(Debug)]
pub struct Running {
    shared: Arc<Shared>,
    connections: JoinSet<io::Result<()>>,
}

/// Runs one measurement. `cpu` tells the server's processor time so far.
///
/// # Errors
/// A connection is refused or fails, or `cpu` fails: a measurement with broken connections means nothing.
pub async fn run(load: &Load, cpu: impl Fn() -> Result<Duration>) -> Result<Outcome> {
    let mut running = Running::start(load.address, load.cell, &load.payloads, None).await?;
    tokio::time::sleep(load.warm_up).await;
    running.restart_latency();
    let (start, cpu_before, acked_before) = (now(), cpu()?, running.acked());
    tokio::time::sleep(load.measure).await;
    let (elapsed, cpu_after, acked_after) = (start.elapsed(), cpu()?, running.acked());
    running.check()?;
    let latency = running.latency();
    let acked_total = running.stop().await;
    Ok(Outcome {
        acked: acked_after - acked_before,
        acked_total,
        elapsed,
        cpu: cpu_after.saturating_sub(cpu_before),
        latency,
    })
}

// === impl Running ===

impl Running {
    /// Connects all devices and lets them publish: as fast as their windows allow, or `rate` messages per second
    /// altogether as far as the windows allow.
    ///
    /// # Errors
    /// A connection is refused.
    pub async fn start(
        address: SocketAddr,
        cell: Cell,
        payloads: &Arc<Payloads>,
        rate: Option<u32>,
    ) -> Result<Self> {
        Self::start_as(address, cell, payloads, rate, devices::PREFIX).await
    }

    /// The same for devices whose client ids start with `prefix`.
    ///
    /// # Errors
    /// A connection is refused.
    pub async fn start_as(
        address: SocketAddr,
        cell: Cell,
        payloads: &Arc<Payloads>,
        rate: Option<u32>,
        prefix: &str,
    ) -> Result<Self> {
        let greeting = |index| Greeting::clean(&devices::id_of(prefix, index));
        let streams = devices::connect_each(address, cell.connections, greeting).await?;
        let shared = Arc::new(Shared {
            phase: AtomicU32::new(0),
            measured: AtomicU32::new(u32::MAX),
            open: AtomicI64::new(0),
            acked: AtomicU64::new(0),
            latency: Mutex::new(Histogram::new_with_bounds(1, LATENCY_MICROS_MAX, 3)?),
            payloads: Arc::clone(payloads),
        });
        let mut connections = JoinSet::new();
        for (index, stream) in streams.into_iter().enumerate() {
            let id = devices::id_of(prefix, index);
            let device = Device::new(stream, &id, index, cell, payloads.size())?;
            let shared = Arc::clone(&shared);
            match rate {
                None => connections.spawn(device.drive(shared)),
                Some(rate) => {
                    let pace = Pace::new(rate, cell.connections, index);
                    connections.spawn(device.drive_paced(shared, pace))
                }
            };
        }
        Ok(Self { shared, connections })
    }

    /// Messages acknowledged since the first connection.
    pub fn acked(&self) -> u64 {
        self.shared.acked.load(Ordering::Relaxed)
    }

    /// Forgets the latencies seen and takes those of messages sent from now on.
    pub fn restart_latency(&self) {
        let mut latency = self.shared.latency.lock().unwrap_or_else(PoisonError::into_inner);
        let phase = self.shared.phase.load(Ordering::Relaxed) + 1;
        self.shared.open.store(0, Ordering::Relaxed);
        self.shared.measured.store(phase, Ordering::Relaxed);
        self.shared.phase.store(phase, Ordering::Relaxed);
        latency.reset();
    }

    /// The latencies of all messages sent since [`Self::restart_latency`], once the last of them is acknowledged;
    /// those sent from now on are not taken.
    ///
    /// # Errors
    /// A connection fails, or acknowledgements stay away.
    pub async fn finish_latency(&mut self) -> Result<Histogram<u64>> {
        self.shared.phase.fetch_add(1, Ordering::Relaxed);
        let deadline = now() + LAST_WITHIN;
        while self.shared.open.load(Ordering::Relaxed) > 0 {
            self.check()?;
            if now() > deadline {
                bail!("a message was not acknowledged within {LAST_WITHIN:?}");
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
        Ok(self.latency())
    }

    /// The latencies seen, in microseconds.
    pub fn latency(&self) -> Histogram<u64> {
        self.shared.latency.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether all connections still work.
    ///
    /// # Errors
    /// One of them does not.
    pub fn check(&mut self) -> Result<()> {
        if let Some(ended) = self.connections.try_join_next() {
            ended?.context("a connection failed under load")?;
            bail!("a connection ended under load");
        }
        Ok(())
    }

    /// Ends them in the middle of their work. Returns how many messages were acknowledged.
    pub async fn stop(mut self) -> u64 {
        self.connections.shutdown().await;
        self.acked()
    }
}

/// One connection of the closed loop.
struct Device {
    stream: TcpStream,
    publisher: Publisher,
    /// When the publish with packet id `index + 1` was written, and in which phase.
    sent: Vec<(Instant, u32)>,
    /// Number of the next payload.
    next: usize,
}

impl Device {
    fn new(stream: TcpStream, id: &str, index: usize, cell: Cell, payload_bytes: usize) -> Result<Self> {
        let topic = format!("devices/{id}/telemetry");
        let publisher = Publisher::new(&topic, payload_bytes)?;
        let sent = vec![(now(), 0); usize::from(cell.window)];
        // Connections start at different payloads, so that neighbours in a group differ.
        Ok(Self { stream, publisher, sent, next: index.wrapping_mul(37) })
    }

    /// Publishes until the connection fails or the task is aborted; never returns `Ok`.
    async fn drive(mut self, shared: Arc<Shared>) -> io::Result<()> {
        let window = self.sent.len();
        let mut ready: Vec<u16> = (1..=u16::try_from(window).map_err(io::Error::other)?).collect();
        let mut out = Vec::with_capacity(window * self.publisher.packet_bytes(shared.payloads.size()));
        let mut acks = vec![0; window * ACK_BYTES];
        let mut filled = 0;
        loop {
            self.publish(&mut ready, &mut out, &shared);
            self.stream.write_all(&out).await?;
            out.clear();
            while ready.is_empty() {
                let room = acks.get_mut(filled..).unwrap_or_default();
                let read = self.stream.read(room).await?;
                if read == 0 {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
                filled = take_acks(&mut acks, filled + read, &mut ready)?;
            }
            self.record(&ready, &shared)?;
        }
    }

    /// Publishes what is due, as far as the window has room; never returns `Ok`.
    async fn drive_paced(mut self, shared: Arc<Shared>, pace: Pace) -> io::Result<()> {
        let mut free: Vec<u16> = (1..=u16::try_from(self.sent.len()).map_err(io::Error::other)?).collect();
        let (mut out, mut acked) = (Vec::new(), Vec::new());
        let mut acks = vec![0; self.sent.len() * ACK_BYTES];
        let (start, mut sent, mut filled) = (now(), 0, 0);
        loop {
            let due = pace.due(start.elapsed()).saturating_sub(sent).min(free.len());
            if due > 0 {
                let mut ready = free.split_off(free.len() - due);
                sent += due;
                self.publish(&mut ready, &mut out, &shared);
                self.stream.write_all(&out).await?;
                out.clear();
            }
            let room = acks.get_mut(filled..).unwrap_or_default();
            let next = tokio::time::Instant::from_std(start + pace.time_of(sent));
            let read = tokio::select! {
                () = tokio::time::sleep_until(next), if !free.is_empty() => continue,
                read = self.stream.read(room) => read?,
            };
            if read == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            filled = take_acks(&mut acks, filled + read, &mut acked)?;
            self.record(&acked, &shared)?;
            free.append(&mut acked);
        }
    }

    fn publish(&mut self, ready: &mut Vec<u16>, out: &mut Vec<u8>, shared: &Shared) {
        let (now, phase) = (now(), shared.phase.load(Ordering::Relaxed));
        if phase == shared.measured.load(Ordering::Relaxed) {
            shared.open.fetch_add(i64::try_from(ready.len()).unwrap_or_default(), Ordering::Relaxed);
        }
        for packet_id in ready.drain(..) {
            self.publisher.push(out, packet_id, shared.payloads.get(self.next));
            self.next = self.next.wrapping_add(1);
            if let Some(sent) = self.sent.get_mut(usize::from(packet_id) - 1) {
                *sent = (now, phase);
            }
        }
    }

    fn record(&self, acked: &[u16], shared: &Shared) -> io::Result<()> {
        shared.acked.fetch_add(u64::try_from(acked.len()).map_err(io::Error::other)?, Ordering::Relaxed);
        let measured = shared.measured.load(Ordering::Relaxed);
        if measured == u32::MAX {
            return Ok(());
        }
        let now = now();
        let mut latency = shared.latency.lock().unwrap_or_else(PoisonError::into_inner);
        for packet_id in acked {
            let sent = self.sent.get(usize::from(*packet_id) - 1);
            let (sent, phase) = sent.ok_or_else(|| io::Error::other("strange id"))?;
            if *phase != measured {
                continue;
            }
            let micros = u64::try_from(now.duration_since(*sent).as_micros()).unwrap_or(LATENCY_MICROS_MAX);
            latency.saturating_record(micros.max(1));
            shared.open.fetch_sub(1, Ordering::Relaxed);
        }
        Ok(())
    }
}

/// When a device publishes: at a steady rate, each device at a moment of its own.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pace {
    per_second: f64,
    /// How much of the first message is due at the start, 0 to 1.
    offset: f64,
}

impl Pace {
    /// The pace of device `index` out of `count`, which publish `rate` messages per second altogether.
    pub(crate) fn new(rate: u32, count: u32, index: usize) -> Self {
        let count = f64::from(count.max(1));
        let index = u32::try_from(index).map_or(0.0, f64::from);
        Self { per_second: f64::from(rate) / count, offset: (index / count).fract() }
    }

    /// How many messages are due after this time.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a product of a time and a rate that are not negative, far below 2^52"
    )]
    pub(crate) fn due(&self, elapsed: Duration) -> usize {
        elapsed.as_secs_f64().mul_add(self.per_second, self.offset) as usize
    }

    /// When the message after `sent` of them is due.
    pub(crate) fn time_of(&self, sent: usize) -> Duration {
        let next = u64::try_from(sent).map_or(0.0, count) + 1.0;
        Duration::from_secs_f64(((next - self.offset) / self.per_second).clamp(0.0, 86_400.0))
    }
}

/// Takes whole PUBACKs from the front of the buffer, moves the rest to its start and returns the rest's length.
pub(crate) fn take_acks(buffer: &mut [u8], filled: usize, ready: &mut Vec<u16>) -> io::Result<usize> {
    let (whole, rest) = buffer.get(..filled).unwrap_or_default().as_chunks::<ACK_BYTES>();
    for ack in whole {
        let packet_id = packets::acknowledged(*ack)?;
        if packet_id == 0 {
            return Err(io::Error::other("PUBACK of packet id 0"));
        }
        ready.push(packet_id);
    }
    let rest = rest.len();
    buffer.copy_within(filled - rest..filled, 0);
    Ok(rest)
}

#[expect(clippy::cast_precision_loss, reason = "counts of a benchmark stay far below 2^52")]
pub(crate) fn count(count: u64) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn acks_are_taken_whole_and_the_rest_stays() {
        let mut buffer = [0x40, 2, 0, 1, 0x40, 2, 1, 0, 0x40, 2, 0, 0];
        let mut ready = Vec::new();
        assert_eq!(take_acks(&mut buffer, 10, &mut ready).unwrap(), 2);
        assert_eq!((ready.as_slice(), &buffer[..2]), ([1, 256].as_slice(), [0x40, 2].as_slice()));
        assert!(take_acks(&mut [0x20, 2, 0, 0], 4, &mut ready).is_err());
        assert!(take_acks(&mut [0x40, 2, 0, 0], 4, &mut ready).is_err());
    }

    #[test]
    fn devices_publish_at_their_rate_and_not_all_at_once() {
        let (first, last) = (Pace::new(200, 100, 0), Pace::new(200, 100, 99));
        assert_eq!((first.due(Duration::ZERO), last.due(Duration::ZERO)), (0, 0));
        assert_eq!(first.time_of(0), Duration::from_millis(500));
        assert_eq!(last.time_of(0), Duration::from_millis(5));
        for pace in [first, last] {
            let due = pace.due(Duration::from_secs(10));
            assert!((19..=20).contains(&due), "{due}");
            assert_eq!(pace.due(pace.time_of(due) + Duration::from_micros(1)), due + 1);
        }
    }

    #[test]
    fn figures_follow_from_the_counts() {
        let mut latency = Histogram::new_with_bounds(1, LATENCY_MICROS_MAX, 3).unwrap();
        latency.record_n(2_000, 100).unwrap();
        let (elapsed, cpu) = (Duration::from_secs(2), Duration::from_millis(500));
        let outcome = Outcome { acked: 1_000, acked_total: 1_500, elapsed, cpu, latency };
        assert!((outcome.cpu_micros_per_message() - 500.0).abs() < 1e-6);
        assert!((outcome.acked_per_second() - 500.0).abs() < 1e-6);
        assert!((outcome.latency_ms(50.0) - 2.0).abs() < 0.01);
    }
}

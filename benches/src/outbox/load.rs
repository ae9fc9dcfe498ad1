//! The generator: producers that each keep a window in flight, or send at a fixed rate. The same code for both
//! logs, on a runtime as the gateway's: one task per producer, as there is one per connection.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use hdrhistogram::Histogram;
use penstock_proto::Lane;
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;

use super::accounts::Accounts;
use super::log::{Log, Message};
use super::telemetry::Telemetry;
use crate::clock::now;
use crate::load::count as float;

/// Latencies above this count as this much, in microseconds.
const LATENCY_MICROS_MAX: u64 = 60_000_000;

/// How often a producer with a rate looks at what is due.
const TICK: Duration = Duration::from_millis(1);

/// Any time will do: it is stored, not read.
const RECEIVED_MS: u64 = 1_790_000_000_000;

/// How a producer sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pace {
    /// So many messages are in flight, always.
    Window(u32),
    /// So many messages per second, whatever becomes of them.
    Rate(u32),
}

/// Producers at work.
#[derive(Debug)]
pub struct Load<L: Log> {
    log: Arc<L>,
    payloads: Arc<Telemetry>,
    shared: Arc<Shared>,
    producers: JoinSet<Result<()>>,
    started: usize,
}

/// A span of time under load.
#[derive(Debug)]
pub struct Window {
    start: Instant,
    acked: u64,
    commits: u64,
    accounts: Accounts,
}

/// What happened in a window.
#[derive(Debug)]
pub struct Seen {
    /// How long it was.
    pub elapsed: Duration,
    /// Messages that became durable in it.
    pub acked: u64,
    /// Groups that did.
    pub commits: u64,
    /// What it cost.
    pub spent: Accounts,
    /// From the encoding of a message to the news that it is durable, in microseconds.
    pub latency: Histogram<u64>,
}

#[derive(Debug)]
struct Shared {
    stop: AtomicBool,
    acked: AtomicU64,
    latency: Mutex<Histogram<u64>>,
}

// === impl Load ===

impl<L: Log> Load<L> {
    /// No producers yet.
    ///
    /// # Errors
    /// None in practice: the histogram's bounds are constants.
    pub fn new(log: &Arc<L>, payloads: &Arc<Telemetry>) -> Result<Self> {
        let latency = Mutex::new(Histogram::new_with_bounds(1, LATENCY_MICROS_MAX, 3)?);
        Ok(Self {
            log: Arc::clone(log),
            payloads: Arc::clone(payloads),
            shared: Arc::new(Shared { stop: AtomicBool::new(false), acked: AtomicU64::new(0), latency }),
            producers: JoinSet::new(),
            started: 0,
        })
    }

    /// Starts `producers` more.
    pub fn start(&mut self, producers: u32, lane: Lane, pace: Pace) {
        for _ in 0..producers {
            let device = format!("device-{:06}", self.started);
            let producer = Producer {
                log: Arc::clone(&self.log),
                payloads: Arc::clone(&self.payloads),
                shared: Arc::clone(&self.shared),
                done: Arc::default(),
                records: L::Records::default(),
                lane,
                topic: format!("devices/{device}/telemetry"),
                device,
                next: Telemetry::first_of(self.started),
                seen: 0,
                in_flight: VecDeque::new(),
            };
            self.started += 1;
            match pace {
                Pace::Window(window) => self.producers.spawn(producer.closed(window)),
                Pace::Rate(rate) => self.producers.spawn(producer.paced(rate)),
            };
        }
    }

    /// Messages that became durable so far.
    pub fn acked(&self) -> u64 {
        self.shared.acked.load(Ordering::Relaxed)
    }

    /// Starts to measure, forgetting latencies seen before.
    ///
    /// # Errors
    /// The kernel does not account.
    pub fn window(&self) -> Result<Window> {
        self.shared.latency().reset();
        Ok(Window {
            accounts: Accounts::now()?,
            start: now(),
            acked: self.acked(),
            commits: self.log.commits(),
        })
    }

    /// Ends a measurement.
    ///
    /// # Errors
    /// A producer failed: then the figures mean nothing.
    pub fn seen(&mut self, window: &Window) -> Result<Seen> {
        let (elapsed, acked) = (window.start.elapsed(), self.acked() - window.acked);
        let commits = self.log.commits() - window.commits;
        let spent = Accounts::now()?.since(&window.accounts);
        let latency = self.shared.latency().clone();
        if let Some(ended) = self.producers.try_join_next() {
            ended?.context("a producer failed")?;
            bail!("a producer ended under load");
        }
        Ok(Seen { elapsed, acked, commits, spent, latency })
    }

    /// Measures for `time`.
    ///
    /// # Errors
    /// As [`Self::seen`].
    pub async fn measure(&mut self, time: Duration) -> Result<Seen> {
        let window = self.window()?;
        tokio::time::sleep(time).await;
        self.seen(&window)
    }

    /// Lets the producers end once everything they sent is durable.
    ///
    /// # Errors
    /// One of them failed.
    pub async fn stop(mut self) -> Result<()> {
        self.shared.stop.store(true, Ordering::Release);
        while let Some(ended) = self.producers.join_next().await {
            ended?.context("a producer failed")?;
        }
        Ok(())
    }
}

// === impl Seen ===

impl Seen {
    /// Messages per second.
    pub fn per_second(&self) -> f64 {
        float(self.acked) / self.elapsed.as_secs_f64().max(1e-9)
    }

    /// A percentile of the latency, in microseconds.
    pub fn micros(&self, percentile: f64) -> f64 {
        float(self.latency.value_at_percentile(percentile))
    }

    /// Processor time per message, generator included, in microseconds.
    pub fn cpu_micros(&self) -> f64 {
        self.spent.cpu.as_secs_f64() * 1e6 / float(self.acked).max(1.0)
    }

    /// Messages per commit.
    pub fn group(&self) -> f64 {
        float(self.acked) / float(self.commits).max(1.0)
    }
}

impl Shared {
    fn latency(&self) -> MutexGuard<'_, Histogram<u64>> {
        self.latency.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One producer, with buffers of its own.
struct Producer<L: Log> {
    log: Arc<L>,
    payloads: Arc<Telemetry>,
    shared: Arc<Shared>,
    done: Arc<L::Done>,
    records: L::Records,
    lane: Lane,
    device: String,
    topic: String,
    /// Number of the next payload.
    next: usize,
    /// The last submission known to be durable.
    seen: u64,
    in_flight: VecDeque<Sent>,
}

/// A submission.
struct Sent {
    number: u64,
    count: u32,
    at: Instant,
}

enum Event {
    Tick,
    Durable(Result<u64>),
}

impl<L: Log> Producer<L> {
    async fn closed(mut self, window: u32) -> Result<()> {
        let mut free = window;
        loop {
            if !self.stopping() {
                self.send(free).await?;
                free = 0;
            } else if self.in_flight.is_empty() {
                return Ok(());
            }
            let number = durable::<L>(&self.done, self.seen).await?;
            free += self.arrived(number);
        }
    }

    async fn paced(mut self, rate: u32) -> Result<()> {
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        let (start, mut sent) = (now(), 0_u64);
        while !(self.stopping() && self.in_flight.is_empty()) {
            let event = tokio::select! {
                _ = ticks.tick() => Event::Tick,
                number = durable::<L>(&self.done, self.seen) => Event::Durable(number),
            };
            match event {
                Event::Durable(number) => {
                    self.arrived(number?);
                }
                Event::Tick if self.stopping() => {}
                Event::Tick => {
                    let elapsed = u64::try_from(start.elapsed().as_micros())?;
                    let due = (u64::from(rate) * elapsed / 1_000_000).saturating_sub(sent);
                    if due > 0 {
                        self.send(u32::try_from(due)?).await?;
                        sent += due;
                    }
                }
            }
        }
        Ok(())
    }

    fn stopping(&self) -> bool {
        self.shared.stop.load(Ordering::Acquire)
    }

    async fn send(&mut self, count: u32) -> Result<()> {
        let at = now();
        L::clear(&mut self.records);
        for _ in 0..count {
            let message = Message {
                lane: self.lane,
                device: &self.device,
                topic: &self.topic,
                received_ms: RECEIVED_MS,
                payload: self.payloads.get(self.next),
            };
            L::push(&mut self.records, &message);
            self.next = self.next.wrapping_add(1);
        }
        let number = self.log.submit(&self.records, &self.done).await?;
        self.in_flight.push_back(Sent { number, count, at });
        Ok(())
    }

    /// Everything up to and with `number` is durable. Returns how many messages that are.
    fn arrived(&mut self, number: u64) -> u32 {
        self.seen = number;
        let (mut arrived, now) = (0, now());
        let mut latency = self.shared.latency();
        while let Some(sent) = self.in_flight.pop_front_if(|sent| sent.number <= number) {
            let micros = u64::try_from(now.duration_since(sent.at).as_micros()).unwrap_or(LATENCY_MICROS_MAX);
            latency.saturating_record_n(micros.max(1), sent.count.into());
            arrived += sent.count;
        }
        drop(latency);
        self.shared.acked.fetch_add(arrived.into(), Ordering::Relaxed);
        arrived
    }
}

async fn durable<L: Log>(done: &L::Done, seen: u64) -> Result<u64> {
    poll_fn(|cx| L::poll_durable(done, seen, cx)).await
}

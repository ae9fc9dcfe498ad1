//! The devices, and the sender of their commands.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use testkit::cloud::Control;
use testkit::commands::queue::QUEUE;
use testkit::commands::wire::{Entry, Page};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::{JoinSet, spawn_blocking};

use crate::devices;
use crate::frames::{self, Qos};
use crate::stats;

/// Bytes a device reads at once.
const READ_BYTES: usize = 2048;
/// Commands of one request; together they take the time of a few.
const BATCH_MAX: u64 = 50;
/// How long the sender rests when it is on time.
const REST: Duration = Duration::from_millis(2);

/// Connected devices; dropped, they are gone.
#[derive(Debug)]
pub(super) struct Fleet {
    waiting: Vec<TcpStream>,
    tasks: JoinSet<io::Result<()>>,
}

impl Fleet {
    /// Connects so many devices that subscribe to nothing yet.
    pub(super) async fn connect(address: SocketAddr, count: u32) -> Result<Self> {
        Ok(Self { waiting: devices::connect_all(address, count).await?, tasks: JoinSet::new() })
    }

    /// Each device subscribes to its commands, and acknowledges from then on what comes.
    pub(super) async fn subscribe(&mut self) -> Result<()> {
        for (number, mut stream) in std::mem::take(&mut self.waiting).into_iter().enumerate() {
            let filter = format!("devices/{}/commands/+", devices::id(number));
            stream.write_all(&frames::subscribe(&filter, Qos::One, false)?).await?;
            self.tasks.spawn(acknowledge(stream));
        }
        Ok(())
    }

    /// Whether all connections still work.
    pub(super) fn check(&mut self) -> Result<()> {
        if let Some(ended) = self.tasks.try_join_next() {
            ended?.context("the connection of a device failed")?;
            bail!("the connection of a device ended");
        }
        Ok(())
    }
}

/// Acknowledges every command at once; never returns `Ok`.
async fn acknowledge(mut stream: TcpStream) -> io::Result<()> {
    // Room is taken when something comes, so that thousands of quiet devices own none.
    let mut kept = Vec::new();
    loop {
        stream.readable().await?;
        let mut room = [0; READ_BYTES];
        let read = stream.read(&mut room).await?;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        kept.extend_from_slice(room.get(..read).unwrap_or_default());
        let acks = take(&mut kept)?;
        if !acks.is_empty() {
            stream.write_all(&acks).await?;
        }
    }
}

/// Takes whole packets and returns the acknowledgements of the commands among them.
fn take(kept: &mut Vec<u8>) -> io::Result<Vec<u8>> {
    let (mut taken, mut acks) = (0, Vec::new());
    while let Some(frame) = frames::first(kept.get(taken..).unwrap_or_default())? {
        taken += frame.bytes;
        if let Some([high, low]) = frame.delivery()?.and_then(|delivery| delivery.id) {
            acks.extend_from_slice(&[0x40, 2, high, low]);
        }
    }
    kept.drain(..taken);
    Ok(acks)
}

/// Sends commands to the devices in turn, at a rate, and follows them in the log of Service Bus.
#[derive(Debug)]
pub(super) struct Sender {
    control: Control,
    devices: u32,
    rate: u32,
    /// Latencies of commands sent before are not counted.
    warm_up: Duration,
    sent: u64,
    /// When what is not settled was sent (Unix milliseconds), and whether it counts.
    open: HashMap<String, (u64, bool)>,
    after: u64,
    latencies: Vec<f64>,
}

impl Sender {
    pub(super) fn new(control: Control, devices: u32, rate: u32, warm_up: Duration) -> Self {
        let open = HashMap::new();
        Self { control, devices, rate, warm_up, sent: 0, open, after: 0, latencies: Vec::new() }
    }

    /// Sends what is due at this time since the start, or rests when nothing is.
    pub(super) async fn send(&mut self, elapsed: Duration) -> Result<()> {
        let due = elapsed.as_millis() * u128::from(self.rate) / 1000;
        let due = u64::try_from(due).unwrap_or(u64::MAX).saturating_sub(self.sent).min(BATCH_MAX);
        if due == 0 {
            tokio::time::sleep(REST).await;
            return Ok(());
        }
        let messages: Vec<Value> = (0..due).map(|number| self.message(self.sent + number)).collect();
        let (at_ms, counts) = (unix_ms(), elapsed >= self.warm_up);
        for number in self.sent..self.sent + due {
            self.open.insert(number.to_string(), (at_ms, counts));
        }
        self.sent += due;
        let (control, path) = (self.control.clone(), format!("/servicebus/entities/{QUEUE}/messages"));
        spawn_blocking(move || control.post(&path, &Value::Array(messages))).await??;
        Ok(())
    }

    /// Reads what was settled since the last time.
    pub(super) async fn follow(&mut self) -> Result<()> {
        let (control, path) = (self.control.clone(), format!("/servicebus/wire-log?after={}", self.after));
        let log = spawn_blocking(move || control.get(&path)).await??;
        let page: Page = serde_json::from_value(log)?;
        if page.has_gap_after(self.after) {
            bail!("the wire log has forgotten what came after entry {}", self.after);
        }
        for entry in &page.entries {
            self.after = entry.id;
            self.settle(entry);
        }
        Ok(())
    }

    fn settle(&mut self, entry: &Entry) {
        if !entry.is_final() {
            return;
        }
        let id = entry.message_id.as_deref().unwrap_or_default();
        let Some((at_ms, counts)) = self.open.remove(id) else { return };
        if counts {
            self.latencies.push(crate::load::count(entry.at_ms.saturating_sub(at_ms)));
        }
    }

    fn message(&self, number: u64) -> Value {
        let device = devices::id(number % u64::from(self.devices.max(1)));
        json!({ "session_id": device, "message_id": number.to_string(), "body": "{\"setpoint\":21.5}" })
    }

    pub(super) const fn sent(&self) -> u64 {
        self.sent
    }

    /// How many are not settled.
    pub(super) fn open(&self) -> u64 {
        self.open.len() as u64
    }

    /// How many of those that count are.
    pub(super) fn settled(&self) -> u64 {
        self.latencies.len() as u64
    }

    /// The latency that this share of the commands has at most, in milliseconds; without any, infinite.
    pub(super) fn percentile(&self, share: f64) -> f64 {
        stats::percentile(&self.latencies, share).unwrap_or(f64::INFINITY)
    }
}

/// The wall clock in Unix milliseconds, which the stand-in shares.
#[expect(
    clippy::disallowed_methods,
    reason = "the rule is about the gateway; the stand-in's log carries the wall clock"
)]
fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use testkit::commands::wire::Event;

    use super::*;

    fn sender() -> Sender {
        Sender::new(Control::new("127.0.0.1:1"), 3, 1000, Duration::from_secs(1))
    }

    fn entry(id: u64, number: u64, at_ms: u64, event: Event) -> Entry {
        Entry {
            id,
            at_ms,
            event,
            session: None,
            sequence: 1,
            message_id: Some(number.to_string()),
            delivery_count: 0,
            reason: None,
        }
    }

    #[test]
    fn commands_are_acknowledged_and_the_rest_stays() {
        let mut kept = vec![0x90, 3, 0, 1, 1, 0x32, 6, 0, 1, b'a', 0, 9, b'x', 0x32, 6];
        assert_eq!(take(&mut kept).unwrap(), [0x40, 2, 0, 9]);
        assert_eq!(kept, [0x32, 6]);
    }

    #[test]
    fn latencies_are_those_of_commands_sent_after_the_warm_up() {
        let mut sender = sender();
        sender.open = HashMap::from([("1".to_owned(), (100, false)), ("2".to_owned(), (100, true))]);
        sender.settle(&entry(1, 2, 101, Event::Delivered));
        assert_eq!(sender.open(), 2);
        sender.settle(&entry(2, 1, 150, Event::Completed));
        sender.settle(&entry(3, 2, 107, Event::Completed));
        assert_eq!((sender.open(), sender.settled()), (0, 1));
        assert!((sender.percentile(0.5) - 7.0).abs() < f64::EPSILON);
    }

    #[test]
    fn devices_get_commands_in_turn() {
        let sender = sender();
        let sessions = [0, 1, 2, 3].map(|number| sender.message(number)["session_id"].clone());
        assert_eq!(sessions, ["device-000000", "device-000001", "device-000002", "device-000000"]);
    }
}

//! The application that sends commands to the fleet: through the control API of cloud-sim, which is as good as
//! any sender to the queue, and with an eye on what Service Bus says it settled.
//!
//! Which device gets a command, and whether it is to answer, follows from the seed. The commander sends while
//! the fleet publishes, then waits until everything it sent is settled, or nothing more is for a while.

use std::collections::HashSet;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::{Value, json};
use testkit::cloud::{Control, ControlError};
use testkit::commands::wire::{Entry, Page};
use testkit::commands::{Body, Sent, command_id};
use tokio::sync::watch;
use tokio::task::{JoinError, spawn_blocking};
use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::cli::Fault;
use crate::fleet::{Phase, unix_ms};
use crate::stats::Stats;

/// How often commands are sent and settlements looked for.
const TICK: Duration = Duration::from_millis(50);
/// Share of commands that are to be answered, in percent.
const ANSWERED_PERCENT: u32 = 50;
/// The status of a queue that is told to be busy.
const BUSY: u16 = 503;
/// A fault is made with every how manyth command.
const FAULT_EVERY: u64 = 10;

/// What is to be sent, and where.
#[derive(Debug)]
pub(crate) struct Mission {
    pub(crate) control: Control,
    /// The queue, as cloud-sim calls it.
    pub(crate) entity: String,
    pub(crate) count: u64,
    /// Over how long the sending is spread.
    pub(crate) over: Duration,
    pub(crate) devices: Vec<String>,
    pub(crate) seed: u64,
    /// Longest wait without a settlement once everything is sent.
    pub(crate) wait: Duration,
    /// What the commander does wrong on purpose.
    pub(crate) faults: Vec<Fault>,
}

/// What was sent and settled.
#[derive(Debug, Default)]
pub(crate) struct Dispatched {
    pub(crate) sent: Vec<Sent>,
    pub(crate) settlements: Vec<Entry>,
}

/// Why a mission ended early.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CommanderError {
    #[error(transparent)]
    Control(#[from] ControlError),
    #[error("cloud-sim: the wire log: {0}")]
    Log(#[from] serde_json::Error),
    #[error("cloud-sim: the wire log has forgotten what came after entry {0}")]
    Gap(u64),
    #[error("a request to cloud-sim failed: {0}")]
    Task(#[from] JoinError),
}

/// Sends what the mission says and follows its settlement.
///
/// # Errors
/// When cloud-sim does not do as told.
pub(crate) async fn run(
    mission: Mission,
    stats: &Stats,
    mut phase: watch::Receiver<Phase>,
) -> Result<Dispatched, CommanderError> {
    let start = Instant::now();
    let mut orders = Orders::new(mission.seed, mission.devices.clone(), mission.faults.clone());
    let mut done = Dispatched::default();
    let (mut open, mut after) = (HashSet::new(), 0);
    let mut last_news = start;
    let mut ticks = interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    // Made, but not taken by the queue yet.
    let mut batch = Batch::default();
    let mut ended = None;
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            changed = phase.changed() => if changed.is_err() { break },
        }
        let now = *phase.borrow_and_update();
        if now == Phase::Stop {
            break;
        }
        // What was due when the publishing ended is sent all the same, however slow the queue is.
        let until =
            if now == Phase::Publish { start.elapsed() } else { *ended.get_or_insert(start.elapsed()) };
        orders.batch(due(&mission, until), unix_ms(), &mut batch);
        let sending = !batch.sent.is_empty();
        // Where the queue is busy, the same is sent again.
        if sending && send(&mission, &batch.messages).await? {
            let Batch { sent, .. } = std::mem::take(&mut batch);
            open.extend(sent.iter().map(|sent| sent.id.clone()));
            done.sent.extend(sent);
            stats.commands_sent.store(done.sent.len() as u64, Relaxed);
        }
        let news = settled(&mission, after).await?;
        if sending || !news.is_empty() {
            last_news = Instant::now();
        }
        after = news.last().map_or(after, |settlement| settlement.id);
        for settlement in news.iter().filter(|settlement| settlement.is_final()) {
            if open.remove(settlement.message_id.as_deref().unwrap_or_default()) {
                stats.commands_settled.fetch_add(1, Relaxed);
            }
        }
        done.settlements.extend(news);
        if now > Phase::Publish
            && batch.sent.is_empty()
            && (open.is_empty() || last_news.elapsed() > mission.wait)
        {
            break;
        }
    }
    Ok(done)
}

/// How many are to be sent by now.
fn due(mission: &Mission, elapsed: Duration) -> u64 {
    let over = mission.over.as_millis().max(1);
    let due = elapsed.as_millis().saturating_mul(mission.count.into()) / over;
    u64::try_from(due).unwrap_or(u64::MAX).min(mission.count)
}

/// Sends all or nothing; false when the queue is busy.
async fn send(mission: &Mission, messages: &[Value]) -> Result<bool, CommanderError> {
    let path = format!("/servicebus/entities/{}/messages", mission.entity);
    let (control, messages) = (mission.control.clone(), Value::Array(messages.to_vec()));
    match spawn_blocking(move || control.post(&path, &messages)).await? {
        Err(error) if error.status() == Some(BUSY) => Ok(false),
        other => Ok(other.map(|()| true)?),
    }
}

async fn settled(mission: &Mission, after: u64) -> Result<Vec<Entry>, CommanderError> {
    let path = format!("/servicebus/wire-log?after={after}");
    let control = mission.control.clone();
    let log = spawn_blocking(move || control.get(&path)).await??;
    let page: Page = serde_json::from_value(log)?;
    if page.has_gap_after(after) { Err(CommanderError::Gap(after)) } else { Ok(page.entries) }
}

/// The commands of a mission, one after the other.
#[derive(Debug)]
struct Orders {
    rng: StdRng,
    devices: Vec<String>,
    /// How many each device got.
    numbers: Vec<u64>,
    made: u64,
    faults: Vec<Fault>,
}

/// Commands to send at once.
#[derive(Debug, Default)]
struct Batch {
    sent: Vec<Sent>,
    messages: Vec<Value>,
}

impl Orders {
    fn new(seed: u64, devices: Vec<String>, faults: Vec<Fault>) -> Self {
        let numbers = vec![0; devices.len()];
        // Apart from what the seed decides about the fleet.
        Self { rng: StdRng::seed_from_u64(seed.rotate_left(17)), devices, numbers, made: 0, faults }
    }

    /// Adds everything up to the command with this number, counted over all devices.
    fn batch(&mut self, until: u64, now_ms: u64, batch: &mut Batch) {
        while self.made < until {
            self.made += 1;
            let place = self.rng.random_range(0..self.devices.len().max(1));
            let answer = self.rng.random_range(0..100) < ANSWERED_PERCENT;
            let (Some(device), Some(number)) = (self.devices.get(place), self.numbers.get_mut(place)) else {
                break;
            };
            *number += 1;
            let sent = Sent {
                device: device.clone(),
                number: *number,
                id: command_id(device, *number),
                answer,
                sent_ms: now_ms,
            };
            batch.messages.extend(messages(&sent, self.fault()));
            batch.sent.push(sent);
        }
    }

    /// What is done wrong with the command that is being made.
    fn fault(&self) -> Option<Fault> {
        let turn = usize::try_from(self.made / FAULT_EVERY).unwrap_or(0);
        let faults = self.faults.iter().cycle().skip(turn % self.faults.len().max(1));
        faults.copied().next().filter(|_| self.made.is_multiple_of(FAULT_EVERY))
    }
}

/// A command as messages for the queue: one, unless a fault makes it another number.
fn messages(sent: &Sent, fault: Option<Fault>) -> Vec<Value> {
    let one = |id: &str, number: u64| {
        let body = Body { device: sent.device.clone(), number, answer: sent.answer };
        json!({
            "session_id": sent.device,
            "message_id": id,
            "subject": "drill",
            "properties": { "penstock-completion": if sent.answer { "answered" } else { "delivered" } },
            "body": serde_json::to_string(&body).unwrap_or_default(),
        })
    };
    match fault {
        None => vec![one(&sent.id, sent.number)],
        Some(Fault::Forgotten) => Vec::new(),
        Some(Fault::Twice) => {
            vec![one(&sent.id, sent.number), one(&format!("{}-again", sent.id), sent.number)]
        }
        Some(Fault::Swapped) => {
            let later = sent.number + 1_000_000;
            vec![one(&format!("{}-ahead", sent.id), later), one(&sent.id, sent.number)]
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn orders(seed: u64, faults: Vec<Fault>) -> Orders {
        Orders::new(seed, (1..=5).map(|number| format!("device-{number}")).collect(), faults)
    }

    fn batch(orders: &mut Orders, until: u64) -> Batch {
        let mut batch = Batch::default();
        orders.batch(until, 5, &mut batch);
        batch
    }

    #[test]
    fn the_same_seed_sends_the_same_commands_however_they_are_cut() {
        let whole = batch(&mut orders(7, Vec::new()), 100).sent;
        let mut cut = orders(7, Vec::new());
        let parts: Vec<Sent> =
            [10, 60, 60, 100].iter().flat_map(|&until| batch(&mut cut, until).sent).collect();
        assert_eq!(whole, parts);
        assert_ne!(whole, batch(&mut orders(8, Vec::new()), 100).sent);
        assert!((20..80).contains(&whole.iter().filter(|sent| sent.answer).count()));
    }

    #[test]
    fn commands_of_a_device_are_numbered_from_one_without_a_gap() {
        let sent = batch(&mut orders(7, Vec::new()), 200).sent;
        for device in 1..=5 {
            let device = format!("device-{device}");
            let numbers: Vec<u64> =
                sent.iter().filter(|sent| sent.device == device).map(|sent| sent.number).collect();
            assert!(numbers.iter().copied().eq(1..=numbers.len() as u64), "{numbers:?}");
        }
    }

    #[test]
    fn faults_change_what_is_sent_and_not_what_is_said_to_be() {
        let batch = batch(&mut orders(7, vec![Fault::Forgotten, Fault::Twice, Fault::Swapped]), 30);
        assert_eq!(batch.sent.len(), 30);
        // One is forgotten, one is there twice, one has another before it.
        assert_eq!(batch.messages.len(), 31);
        let ids: HashSet<&str> =
            batch.messages.iter().filter_map(|message| message["message_id"].as_str()).collect();
        assert_eq!(batch.sent.iter().filter(|sent| !ids.contains(sent.id.as_str())).count(), 1);
    }

    #[test]
    fn a_message_carries_session_completion_and_body() {
        let sent = batch(&mut orders(7, Vec::new()), 1).sent.remove(0);
        let message = messages(&sent, None).remove(0);
        assert_eq!(message["session_id"], sent.device);
        let body: Body = serde_json::from_str(message["body"].as_str().unwrap()).unwrap();
        assert_eq!((body.number, body.answer), (1, sent.answer));
        let completion = if sent.answer { "answered" } else { "delivered" };
        assert_eq!(message["properties"]["penstock-completion"], completion);
    }
}

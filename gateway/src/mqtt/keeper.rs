//! What happens to sessions without a connection: their end, and their wills. It also waits for what the gateway
//! itself published.
//!
//! One task looks once per tick, and at once when a will is due. Times are those of
//! [`Shared::now_ms`], which does not jump when the clock of the box is set.

use std::collections::BTreeMap;
use std::future::poll_fn;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::durable::StateKey;
use super::promise::Promises;
use super::protocol::{Batch, Stored, entry_bytes_max};
use super::routing::{Routed, retain, route};
use super::session::Session;
use super::shared::Shared;
use super::sys;
use super::template::Verdict;
use super::will::Will;
use crate::outbox::{Completion, Permit, StateOps, Ticket, Urgency};
use crate::supervise::{Phase, Shutdown, clock};

/// How long a will waits for room in the outbox, in milliseconds.
const WILL_WAITS_MS: u64 = 5_000;

/// What is to happen, and when.
#[derive(Debug, Default)]
pub(super) struct Keeper {
    ends: Mutex<Agenda>,
    wills: Mutex<Agenda>,
    due: Mutex<Vec<DueWill>>,
    woken: Notify,
}

/// Sessions by time, in milliseconds, and number.
type Agenda = BTreeMap<(u64, u64), Arc<Session>>;

/// A will that is to be published now.
#[derive(Debug)]
struct DueWill {
    session: Arc<Session>,
    will: Box<Will>,
    since_ms: u64,
}

// === impl Keeper ===

impl Keeper {
    /// The session ends at `at_ms` unless a connection comes.
    pub(super) fn end_at(&self, at_ms: u64, session: &Arc<Session>) {
        self.ends.lock().insert((at_ms, session.number()), Arc::clone(session));
    }

    /// The session's will is due at `at_ms` unless a connection comes.
    pub(super) fn will_at(&self, at_ms: u64, session: &Arc<Session>) {
        self.wills.lock().insert((at_ms, session.number()), Arc::clone(session));
    }

    /// A connection came: what was planned for its session is not.
    pub(super) fn forget(&self, number: u64, end_ms: Option<u64>, will_ms: Option<u64>) {
        if let Some(at) = end_ms {
            self.ends.lock().remove(&(at, number));
        }
        if let Some(at) = will_ms {
            self.wills.lock().remove(&(at, number));
        }
    }

    /// Publishes a will soon.
    pub(super) fn publish(&self, session: &Arc<Session>, will: Box<Will>, now_ms: u64) {
        let due = DueWill { session: Arc::clone(session), will, since_ms: now_ms };
        self.due.lock().push(due);
        self.woken.notify_one();
    }

    /// Something was published that has to be waited for.
    pub(super) fn wake(&self) {
        self.woken.notify_one();
    }
}

fn take_due(agenda: &Mutex<Agenda>, now_ms: u64) -> Vec<Arc<Session>> {
    let mut agenda = agenda.lock();
    let later = agenda.split_off(&(now_ms.saturating_add(1), 0));
    std::mem::replace(&mut *agenda, later).into_values().collect()
}

/// Looks after sessions until the gateway has nothing to publish any more.
///
/// # Cancel safety
///
/// Cancelling it may lose wills that were being published.
pub(super) async fn run(shared: Arc<Shared>, tick: Duration, shutdown: Shutdown) {
    let mut interval = tokio::time::interval(tick);
    interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
    let stopped = shutdown.reached(Phase::DrainUplink);
    tokio::pin!(stopped);
    let mut done = Arc::new(Completion::new());
    let since = clock::now();
    let mut sys = tokio::time::interval(shared.limits.sys_interval.max(Duration::from_millis(100)));
    sys.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
    loop {
        tokio::select! {
            biased;
            () = &mut stopped => return shared.pending.close(),
            () = shared.keeper.woken.notified() => {}
            _ = interval.tick() => end_sessions(&shared).await,
            _ = sys.tick(), if !shared.limits.sys_interval.is_zero() => sys::publish(&shared, since),
        }
        let ticket = publish_wills(&shared, &done);
        if let Some((ticket, promises)) = ticket
            && !settle(&done, ticket, promises).await
        {
            done = Arc::new(Completion::new());
        }
        for owed in shared.pending.take() {
            owed.settle(&shared.pending).await;
        }
    }
}

async fn end_sessions(shared: &Arc<Shared>) {
    let now_ms = shared.now_ms();
    for session in take_due(&shared.keeper.ends, now_ms) {
        let over = session.ends_at_ms().is_some_and(|at| at <= now_ms);
        if !over || !shared.registry.forget_session(&session, true) {
            continue;
        }
        let received = received_of(shared, &session).await;
        shared.end(&session, &received);
    }
    shared.forget_retained(shared.retained.expire(now_ms));
}

/// The packet ids of QoS 2 that a session without a connection has open.
pub(super) async fn received_of(shared: &Arc<Shared>, session: &Session) -> Vec<u16> {
    if let Some(received) = session.take_received() {
        return received;
    }
    // A commit failed: only the store knows what it made of it.
    let (reader, number) = (shared.appender.state(), session.number());
    let read = move || {
        let mut received = Vec::new();
        let scanned = reader.scan(&StateKey::received_of(number), &mut |key, _| {
            if let Some(StateKey::Received(_, id)) = StateKey::decode(key) {
                received.push(id);
            }
            ControlFlow::Continue(())
        });
        scanned.map(|()| received)
    };
    match tokio::task::spawn_blocking(read).await {
        Ok(Ok(received)) => received,
        Ok(Err(error)) => {
            tracing::warn!(client_id = &**session.client(), %error, "cannot read a session");
            Vec::new()
        }
        Err(_) => Vec::new(),
    }
}

/// Submits what is due; the last ticket, and what waits for it.
fn publish_wills(shared: &Shared, done: &Arc<Completion>) -> Option<(Ticket, Promises)> {
    let now_ms = shared.now_ms();
    for session in take_due(&shared.keeper.wills, now_ms) {
        if let Some(will) = session.take_due_will(now_ms) {
            let mut ops = StateOps::default();
            session.record(&mut ops);
            shared.submit_relaxed(&ops);
            let due = DueWill { session, will, since_ms: now_ms };
            shared.keeper.due.lock().push(due);
        }
    }
    let due = std::mem::take(&mut *shared.keeper.due.lock());
    let mut batch = Batch::default();
    let mut last = None;
    for due in due {
        batch.received_ms = clock::unix_ms();
        match submit_will(shared, &mut batch, &due, done) {
            Ok(Some(ticket)) => {
                let (_, promises) = last.get_or_insert_with(|| (ticket, Promises::default()));
                for (session, order) in batch.promised.drain(..) {
                    promises.push(ticket.0, session, order);
                }
                if let Some((last, _)) = &mut last {
                    *last = ticket;
                }
            }
            Ok(None) => {}
            Err(Wait) if now_ms.saturating_sub(due.since_ms) < WILL_WAITS_MS => {
                shared.keeper.due.lock().push(due);
            }
            Err(Wait) => shared.metrics.wills_lost.increment(1),
        }
        shared.metrics.add(&mut batch.tally);
        batch.clear();
    }
    last
}

/// There is no room now.
struct Wait;

fn submit_will(
    shared: &Shared,
    batch: &mut Batch,
    DueWill { session, will, .. }: &DueWill,
    done: &Arc<Completion>,
) -> Result<Option<Ticket>, Wait> {
    let properties = will.properties();
    let mut room: Option<Permit> = None;
    match shared.templates.verdict(will.topic(), session.device()) {
        Verdict::Own(matched) => {
            let reserved = shared.appender.reserve(matched.lane, entry_bytes_max(will.bytes()));
            room = Some(reserved.map_err(|_| Wait)?);
            let (qos, retain) = (will.qos(), will.retain());
            let (device, topic, payload) = (&**session.device(), will.topic(), will.payload());
            batch.store(Stored { device, topic, qos, retain, properties: &properties, payload }, &matched);
        }
        Verdict::Foreign | Verdict::Answer(_) => return Ok(None),
        Verdict::Unknown => {}
    }
    let publish = Routed {
        topic: will.topic(),
        publisher: session.client(),
        qos: will.qos(),
        retain: will.retain(),
        properties: &properties,
        payload: will.payload(),
    };
    if will.retain() {
        let kept = retain(shared, batch, &publish);
        batch.tally.not_retained += u64::from(!kept);
    }
    route(shared, batch, &publish);
    batch.tally.wills += 1;
    let ticket = match room {
        Some(room) => shared.appender.submit(room, &batch.encoded, &batch.state, done),
        None => shared.appender.submit_state(&batch.state, Urgency::Prompt, done),
    };
    Ok((ticket != Ticket::default()).then_some(ticket))
}

/// Waits until `ticket` is durable; false if it never will be.
async fn settle(done: &Completion, ticket: Ticket, mut promises: Promises) -> bool {
    let mut durable = Ticket::default();
    while durable < ticket {
        match poll_fn(|cx| done.poll_durable(durable, cx)).await {
            Ok(more) => durable = more,
            Err(_) => return false,
        }
        promises.keep(durable.0);
    }
    true
}

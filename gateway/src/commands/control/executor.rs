//! Carries out what the gateway is told, and keeps what lasts of it.
//!
//! An answer, what it changes and what is told about the change are one batch with the record of the command
//! (`execution/table.rs`). Nothing changes before that is durable; what is durable is taken up again at the next start.

use std::convert::Infallible;
use std::future::poll_fn;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::{Duration, Instant};

use penstock_proto::Lane;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::time::{sleep, sleep_until};

use super::audit::Change;
use super::everybody::{Order, Own};
use super::limits::{self, Kind, Limit};
use super::operation::{End, Operation, SECONDS_MAX, Subject};
use super::site::Site;
use crate::commands::contract::{Phase, Records, Voice};
use crate::commands::execution::{Said, Table};
use crate::commands::metrics::Metrics;
use crate::commands::status::{ControlStatus, Handle};
use crate::mqtt::{Fate, Taken};
use crate::outbox::{self, Appender, Completion, Encoded, Permit, StateOps, Ticket, rfc3339};
use crate::supervise::{self, Shutdown, clock};

/// The task that carries commands for the gateway out, one after the other.
#[derive(Debug)]
pub(crate) struct Executor {
    session: Arc<str>,
    orders: mpsc::Receiver<Order>,
    site: Arc<dyn Site>,
    table: Table,
    voice: Voice,
    outbox: outbox::Handle,
    appender: Appender,
    handle: Handle,
    shutdown: Shutdown,
    held: Vec<Held>,
}

/// A limit that holds, and when it ends by a clock that nobody sets.
#[derive(Debug, Clone)]
struct Held {
    limit: Limit,
    ends_at: Instant,
}

/// What an operation comes to.
struct Verdict {
    status: &'static str,
    detail: Value,
    change: Option<Changed>,
}

/// Limits that changed.
struct Changed {
    /// All that hold afterwards.
    held: Vec<Held>,
    /// What became of which.
    told: Vec<(Change, Limit)>,
}

/// Room for the final event and what else goes with it.
const BATCH_BYTES: usize = 64 << 10;
/// How soon the store is looked at again after a failed write.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// How often limits are compared with the clock on the wall, which may be set at any time.
const LOOK_AT_CLOCK: Duration = Duration::from_secs(30);
/// Most bytes of a list in a detail, so that all of it is kept.
const LISTED_BYTES_MAX: usize = 1000;

impl Executor {
    /// Takes up the limits that were stored. Blocks on the disk.
    ///
    /// # Errors
    ///
    /// When the store cannot be read.
    pub(crate) fn open(
        (own, orders): (&Own, mpsc::Receiver<Order>),
        site: Arc<dyn Site>,
        (table, voice): (Table, Voice),
        outbox: &outbox::Handle,
        handle: Handle,
        shutdown: Shutdown,
    ) -> Result<Self, outbox::Error> {
        let appender = outbox.appender();
        let mut stored = None;
        appender.state().scan(&limits::KEY, &mut |key, value| {
            if key == limits::KEY {
                stored = Some(value.to_vec());
            }
            ControlFlow::Break(())
        })?;
        let found = stored.map(|stored| limits::decode(&stored));
        if found == Some(None) {
            tracing::warn!("commands: stored limits of the uplink cannot be read; there are none now");
        }
        let (now, now_ms) = (clock::now(), clock::unix_ms());
        let hold = |limit: Limit| Held { ends_at: now + limit.left(now_ms), limit };
        let held = found.flatten().unwrap_or_default().into_iter().map(hold).collect();
        let session = Arc::clone(own.session());
        let outbox = outbox.clone();
        let executor = Self { session, orders, site, table, voice, outbox, appender, handle, shutdown, held };
        executor.apply();
        Ok(executor)
    }

    /// Runs until connections end.
    pub(crate) async fn run(mut self) -> Result<(), Infallible> {
        let shutdown = self.shutdown.clone();
        loop {
            self.let_go().await;
            let soon = clock::now() + LOOK_AT_CLOCK;
            let end = self.held.iter().map(|held| held.ends_at.min(soon)).min();
            tokio::select! {
                biased;
                () = shutdown.reached(supervise::Phase::FinishPublishes) => return Ok(()),
                order = self.orders.recv() => match order {
                    Some(order) => self.carry_out(order).await,
                    None => return Ok(()),
                },
                () = sleep_until(end.unwrap_or(soon).into()), if end.is_some() => {}
            }
        }
    }

    /// Carries one command out. If that comes to nothing, its message comes again.
    async fn carry_out(&mut self, order: Order) {
        let Order { id, operation, fate } = order;
        let Some(permit) = self.room().await else { return };
        if fate.is_closed() {
            return;
        }
        let now_ms = clock::unix_ms();
        let Verdict { status, detail, change } = self.decide(&operation, &id, now_ms);
        let payload = json!({ "status": status, "detail": detail }).to_string();
        let (mut entries, mut state) = (Encoded::default(), StateOps::default());
        let said = Said { id: &id, payload: payload.as_bytes(), now_ms };
        let taken = self.table.heed(&self.session, said, &mut entries, &mut state);
        let Taken::Here(Some(durable)) = taken else { return };
        if let Some(Changed { held, told }) = &change {
            state.put(&limits::KEY, &limits::encode(held.iter().map(|held| &held.limit)));
            for (change, limit) in told {
                change.tell(limit, Some(&id), &self.voice, now_ms, &mut entries);
            }
        }
        let written = self.write(permit, &entries, &state, Some(&id)).await;
        if written {
            if let Some(Changed { held, .. }) = change {
                self.held = held;
                self.apply();
            }
            Metrics::controlled(operation.name(), status);
            tracing::info!(
                operation = operation.name(),
                command_id = &*id,
                status,
                "command for the gateway"
            );
        }
        durable.settled(written);
        // The link may have let go of it: then its message comes again, and is settled as recorded.
        let _gone = fate.send(if written { Fate::Acknowledged } else { Fate::Gone });
    }

    fn decide(&self, operation: &Operation, id: &str, now_ms: u64) -> Verdict {
        match operation {
            Operation::Health => {
                let mut detail = self.site.health();
                detail["limits"] = listed(self.statuses());
                Verdict::succeeded(detail)
            }
            Operation::Cap { bytes_per_second, end } => {
                self.set(Kind::Cap(*bytes_per_second), *end, id, now_ms)
            }
            Operation::Pause { subject, end } => self.set(Kind::Pause(subject.clone()), *end, id, now_ms),
            Operation::Uncap => self.clear(|kind| matches!(kind, Kind::Cap(_))),
            Operation::Resume { subject } => {
                let is_meant = |paused: &Subject| subject.as_ref().is_none_or(|subject| subject == paused);
                self.clear(|kind| matches!(kind, Kind::Pause(paused) if is_meant(paused)))
            }
        }
    }

    fn set(&self, kind: Kind, end: End, id: &str, now_ms: u64) -> Verdict {
        if !self.site.has_uplink() {
            return Verdict::rejected("this gateway has no uplink");
        }
        let event_hubs = match &kind {
            Kind::Cap(_) => Vec::new(),
            Kind::Pause(subject) => match self.site.select(subject) {
                Ok(event_hubs) => event_hubs,
                Err(why) => return Verdict::rejected(&why),
            },
        };
        let until_ms = match until(end, now_ms) {
            Ok(until_ms) => until_ms,
            Err(why) => return Verdict::rejected(&why),
        };
        let (same, mut held): (Vec<_>, Vec<_>) =
            self.held.iter().cloned().partition(|held| held.limit.is_about(&kind));
        if held.len() >= limits::COUNT_MAX {
            return Verdict::rejected("there are 64 limits already; resume something first");
        }
        let limit = Limit { kind, command: id.to_owned(), set_ms: now_ms, until_ms };
        held.push(Held { ends_at: clock::now() + limit.left(now_ms), limit: limit.clone() });
        let change = if same.is_empty() { Change::Set } else { Change::Replaced };
        let mut detail = json!({ "changed": true, "until": rfc3339(until_ms) });
        if !event_hubs.is_empty() {
            detail["event_hubs"] = listed(event_hubs.into_iter());
        }
        let change = Some(Changed { held, told: vec![(change, limit)] });
        Verdict { change, ..Verdict::succeeded(detail) }
    }

    fn clear(&self, is_meant: impl Fn(&Kind) -> bool) -> Verdict {
        let (gone, held): (Vec<_>, Vec<_>) =
            self.held.iter().cloned().partition(|held| is_meant(&held.limit.kind));
        let cleared = listed(gone.iter().map(|held| held.limit.status()));
        let detail = json!({ "changed": !gone.is_empty(), "cleared": cleared });
        let told: Vec<_> = gone.into_iter().map(|held| (Change::Cleared, held.limit)).collect();
        let change = (!told.is_empty()).then_some(Changed { held, told });
        Verdict { change, ..Verdict::succeeded(detail) }
    }

    /// Lets go of limits that are over, and of pauses whose subject has no event hub of its own any more.
    async fn let_go(&mut self) {
        let (now, now_ms) = (clock::now(), clock::unix_ms());
        let mut changes = Vec::new();
        self.held.retain(|held| {
            let lost = matches!(&held.limit.kind, Kind::Pause(subject) if self.site.select(subject).is_err());
            let change = match () {
                () if held.ends_at <= now || held.limit.is_over(now_ms) => Change::Expired,
                () if lost || !self.site.has_uplink() => Change::Cancelled,
                () => return true,
            };
            tracing::info!(limit = ?held.limit.kind, change = change.word(), "a limit of the uplink is over");
            changes.push((change, held.limit.clone()));
            false
        });
        if changes.is_empty() {
            return;
        }
        self.apply();
        let (mut entries, mut state) = (Encoded::default(), StateOps::default());
        state.put(&limits::KEY, &limits::encode(self.held.iter().map(|held| &held.limit)));
        for (change, limit) in &changes {
            change.tell(limit, None, &self.voice, now_ms, &mut entries);
        }
        // Whatever becomes of it: what is stored is over at the next start too.
        if let Some(permit) = self.room().await {
            self.write(permit, &entries, &state, None).await;
        }
    }

    /// Has the uplink and those who watch know the limits.
    fn apply(&self) {
        let cap = self.held.iter().find_map(|held| match held.limit.kind {
            Kind::Cap(bytes) => Some(bytes),
            Kind::Pause(_) => None,
        });
        let mut paused: Vec<String> = Vec::new();
        for held in &self.held {
            let Kind::Pause(subject) = &held.limit.kind else { continue };
            paused.extend(self.site.select(subject).unwrap_or_default());
        }
        paused.sort_unstable();
        paused.dedup();
        self.site.limit(cap, paused);
        let limits = self.statuses().collect();
        self.handle.set_control(ControlStatus { session: self.session.to_string(), limits });
    }

    fn statuses(&self) -> impl Iterator<Item = super::LimitStatus> {
        self.held.iter().map(|held| held.limit.status())
    }

    /// Waits for room in the log; `None` when the gateway stops.
    async fn room(&self) -> Option<Permit> {
        loop {
            if let Ok(permit) = self.appender.reserve(Lane::Status, BATCH_BYTES) {
                return Some(permit);
            }
            tokio::select! {
                biased;
                () = self.shutdown.reached(supervise::Phase::DrainUplink) => return None,
                () = self.appender.room(Lane::Status) => {}
            }
        }
    }

    /// Writes until it is durable; `false` when the gateway stops before that is known. A write that failed may be
    /// there all the same: if it has the end of the command `id`, the command's record says whether it is.
    async fn write(&self, permit: Permit, entries: &Encoded, state: &StateOps, id: Option<&str>) -> bool {
        let mut permit = permit;
        loop {
            let done = Arc::new(Completion::new());
            let ticket = self.appender.submit(permit, entries, state, &done);
            let before = Ticket(ticket.0.saturating_sub(1));
            if poll_fn(|cx| done.poll_durable(before, cx)).await.is_ok() {
                return true;
            }
            loop {
                tokio::select! {
                    biased;
                    () = self.shutdown.reached(supervise::Phase::DrainUplink) => return false,
                    () = sleep(LOOK_AGAIN) => {}
                }
                match self.is_there(id).await {
                    Some(true) => return true,
                    Some(false) => break,
                    None => {}
                }
            }
            match self.room().await {
                Some(again) => permit = again,
                None => return false,
            }
        }
    }

    /// Whether the store has the end of the command; `None` while it cannot be asked.
    async fn is_there(&self, id: Option<&str>) -> Option<bool> {
        if self.outbox.status().poisoned.is_some() {
            return None;
        }
        let Some(id) = id else { return Some(false) };
        let (reader, session) = (self.appender.state(), Arc::clone(&self.session));
        let read = tokio::task::spawn_blocking(move || Records::read(&reader, &session)).await;
        let record = read.ok()?.ok()?;
        let is_end = |phase: &Phase| matches!(phase, Phase::Done(_) | Phase::Answered(_));
        Some(record.is_some_and(|record| record.identity.command_id() == id && is_end(&record.phase)))
    }
}

// === impl Verdict ===

impl Verdict {
    const fn succeeded(detail: Value) -> Self {
        Self { status: "succeeded", detail, change: None }
    }

    fn rejected(why: &str) -> Self {
        Self { status: "rejected", detail: json!({ "error": why }), change: None }
    }
}

/// When a limit that is set now ends, in Unix milliseconds.
fn until(end: End, now_ms: u64) -> Result<u64, String> {
    const MOST_MS: u64 = SECONDS_MAX * 1000;
    match end {
        End::After(ms) => Ok(now_ms.saturating_add(ms)),
        End::At(_) if !clock::plausible(now_ms) => {
            Err("the clock of this gateway is not set; use for_seconds".to_owned())
        }
        End::At(at_ms) if at_ms <= now_ms => Err(format!("until is over: here it is {}", rfc3339(now_ms))),
        End::At(at_ms) if at_ms - now_ms > MOST_MS => {
            Err(format!("until is later than {}, seven days from now", rfc3339(now_ms + MOST_MS)))
        }
        End::At(at_ms) => Ok(at_ms),
    }
}

/// The first of some things as JSON, and how many there are if these are not all.
fn listed(things: impl Iterator<Item = impl serde::Serialize>) -> Value {
    let (mut list, mut bytes, mut left) = (Vec::new(), 0, 0_usize);
    for thing in things {
        let value = json!(thing);
        bytes += value.to_string().len();
        if bytes <= LISTED_BYTES_MAX {
            list.push(value);
        } else {
            left += 1;
        }
    }
    if left > 0 {
        list.push(json!({ "and_more": left }));
    }
    Value::Array(list)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW_MS: u64 = 1_790_000_000_000;

    #[test]
    fn an_end_is_at_most_seven_days_away_and_not_over() {
        let week = SECONDS_MAX * 1000;
        assert_eq!(until(End::After(1000), NOW_MS), Ok(NOW_MS + 1000));
        assert_eq!(until(End::At(NOW_MS + week), NOW_MS), Ok(NOW_MS + week));
        let refused = |end, now_ms| until(end, now_ms).expect_err("refused");
        assert!(refused(End::At(NOW_MS + week + 1), NOW_MS).contains("seven days"));
        assert!(refused(End::At(NOW_MS), NOW_MS).contains("here it is 2026-09-21T14:13:20Z"));
        assert!(refused(End::At(NOW_MS), 5).contains("use for_seconds"));
    }

    #[test]
    fn a_list_is_cut_and_says_so() {
        let names: Vec<String> = (0..64).map(|n| format!("{n:0100}")).collect();
        let list = listed(names.into_iter());
        assert!(list.to_string().len() < 1100, "{list}");
        assert_eq!(list.as_array().and_then(|list| list.last()), Some(&json!({ "and_more": 55 })));
        assert_eq!(listed(["a"].into_iter()), json!(["a"]));
    }
}

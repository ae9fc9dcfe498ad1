//! A session: one producer from its first record to its end.

use std::time::{Duration, Instant};

use super::caution::Refusal;
use super::failure::{Disposition, Failure};
use super::feed::Fed;
use super::lane::LaneFeed;
use super::metrics::{Metrics, Rebuild};
use super::packer::{Key, Packer};
use super::producer::{Producer, Report};
use super::service::{IDLE, Worker};
use super::tracker::{Ack, TopicId};
use crate::supervise::{Phase, clock};
use penstock_proto::Seq;

/// Progress goes to the outbox at least this often while something is confirmed.
const COMMIT_INTERVAL: Duration = Duration::from_millis(100);
/// Or after this many confirmations.
const COMMIT_RECORDS: u64 = 65_536;
/// Socket timeouts without any confirmation after which a producer is given up.
const STALL_TIMEOUTS: u32 = 3;
/// A topic to which a lane sent nothing for this long is closed: a start after that need not look for what may
/// have arrived.
const QUIET: Duration = Duration::from_secs(10);
/// How often rates are looked at.
const OBSERVE_INTERVAL: Duration = Duration::from_secs(1);
/// Shortest and longest wait while something is in flight.
const POLL_MIN: Duration = Duration::from_millis(2);
const POLL_MAX: Duration = Duration::from_millis(50);

/// What one session keeps track of.
pub(super) struct Session {
    /// Last report, or the moment the window stopped being empty.
    heard: Instant,
    committed: Instant,
    acked_since_commit: u64,
    acked: u64,
    /// Rounds without any event, for the length of the next wait.
    quiet: u32,
    observed: Instant,
    /// Confirmed since then: records and bytes.
    confirmed: (u64, u64),
}

/// Why a session ended.
pub(super) enum End {
    Stopped,
    Rebuild(Rebuild, Failure),
}

/// The refusals of one round.
#[derive(Default)]
struct Failed {
    worst: Option<(TopicId, Failure)>,
    /// What was refused for itself, per partition.
    records: Vec<Refusal>,
}

impl Session {
    pub(super) const fn new(now: Instant) -> Self {
        Self {
            heard: now,
            committed: now,
            acked_since_commit: 0,
            acked: 0,
            quiet: 0,
            observed: now,
            confirmed: (0, 0),
        }
    }
}

impl Failed {
    fn add(&mut self, key: Key, count: u32, last: Seq, failure: Failure) {
        Metrics::error(failure.disposition);
        if failure.disposition == Disposition::Record {
            self.add_record(key, count, last, &failure.reason);
        }
        let known = self.worst.as_ref().map(|(_, failure)| failure.disposition);
        if known.is_none_or(|known| failure.disposition > known) {
            self.worst = Some((key.1.target.topic, failure));
        }
    }

    fn add_record(&mut self, key: Key, count: u32, last: Seq, reason: &str) {
        let target = key.1.target;
        let place = self.records.iter().position(|refusal| refusal.target == target).unwrap_or_else(|| {
            self.records.push(Refusal { target, chains: Vec::new(), reason: reason.to_owned() });
            self.records.len() - 1
        });
        let chains = &mut self.records[place].chains;
        match chains.iter_mut().find(|(known, ..)| *known == key) {
            Some((_, sum, newest)) => {
                *sum = sum.saturating_add(count);
                *newest = (*newest).max(last);
            }
            None => chains.push((key, count, last)),
        }
    }
}

impl Worker {
    pub(super) fn session(&mut self, producer: &Producer) -> End {
        let mut session = Session::new(clock::now());
        loop {
            let now = clock::now();
            producer.poll(Duration::ZERO, &mut self.reports);
            if let Some(failure) = self.collect(&mut session, now) {
                return End::Rebuild(Rebuild::Refused, failure);
            }
            let was_empty = self.window.is_empty();
            if let Some(failure) = producer.fatal() {
                return End::Rebuild(Rebuild::Fatal, failure);
            }
            self.look_at_topics(producer, now);
            self.look_at_wishes(now);
            let fed = self.feed(producer, now);
            if let Fed::Fatal(failure) = fed {
                return End::Rebuild(Rebuild::Fatal, failure);
            }
            if was_empty {
                session.heard = now;
            }
            if now.duration_since(session.heard) > self.settings.connection.socket_timeout * STALL_TIMEOUTS {
                let reason = "nothing was confirmed for three socket timeouts".to_owned();
                return End::Rebuild(Rebuild::Stalled, Failure { disposition: Disposition::Retry, reason });
            }
            self.commit_if_due(producer, &mut session, now);
            if self.is_over(producer, &fed, now) {
                return End::Stopped;
            }
            self.wait(&mut session, &fed, now);
        }
    }

    /// Takes the reports in. Returns the failure that ends the session, if there is one.
    pub(super) fn collect(&mut self, session: &mut Session, now: Instant) -> Option<Failure> {
        let (mut acked, mut records, mut bytes, mut newest_ms) = (0_u64, 0_u64, 0_u64, 0);
        let mut failed = Failed::default();
        let mut reports = std::mem::take(&mut self.reports);
        for Report { slot, result } in reports.drain(..) {
            let Some(flight) = self.window.leave(slot) else { continue };
            match result {
                Ok(offset) => {
                    let lane = &mut self.lanes[flight.place];
                    let known = lane.tracker.acked(flight.chain, flight.last, offset);
                    assert!(known != Ack::Unknown, "what holds a slot is known to its tracker");
                    lane.touch();
                    if !self.caution.is_empty() {
                        self.caution.confirmed((flight.place, flight.chain), flight.last);
                    }
                    self.topics.confirmed(flight.chain.target.topic);
                    newest_ms = flight.received_ms;
                    acked += u64::from(flight.count);
                    records += 1;
                    bytes += flight.bytes as u64;
                }
                Err(failure) => failed.add((flight.place, flight.chain), flight.count, flight.last, failure),
            }
        }
        self.reports = reports;
        if acked > 0 {
            self.metrics.acked.increment(acked);
            let age = clock::unix_ms().saturating_sub(newest_ms);
            self.metrics.ack_age.record(Duration::from_millis(age).as_secs_f64());
            self.acked += acked;
            self.acked_bytes += bytes;
            self.connected = true;
            session.acked += acked;
            session.acked_since_commit += acked;
            session.confirmed = (session.confirmed.0 + records, session.confirmed.1 + bytes);
        }
        if acked > 0 || failed.worst.is_some() {
            session.heard = now;
            session.quiet = 0;
        }
        failed.records.iter().for_each(|refusal| self.caution.refused(refusal));
        let (topic, failure) = failed.worst?;
        match failure.disposition {
            Disposition::Hold => self.topics.fail(topic, &failure, now),
            Disposition::Retry if failure.is_violation() => self.pace.violated(now),
            _ => {}
        }
        if session.acked > 0 {
            self.pauses.succeed();
        }
        Some(failure)
    }

    fn commit_if_due(&mut self, producer: &Producer, session: &mut Session, now: Instant) {
        let waited = now.duration_since(session.committed) >= COMMIT_INTERVAL;
        let drained = session.acked_since_commit > 0 && self.window.is_empty();
        if !(waited || drained || session.acked_since_commit >= COMMIT_RECORDS) {
            return;
        }
        if let Some(before) = now.checked_sub(QUIET) {
            self.close_topics(Some(before));
        }
        for lane in &mut self.lanes {
            lane.commit();
        }
        session.committed = now;
        session.acked_since_commit = 0;
        let elapsed = now.duration_since(session.observed);
        if elapsed >= OBSERVE_INTERVAL {
            let (records, bytes) = std::mem::take(&mut session.confirmed);
            self.pace.observe(now, bytes, records, producer.throttle());
            session.observed = now;
            self.publish_rates(producer, now);
        }
        self.publish(producer);
    }

    /// Whether a stop was asked for and there is nothing more to do about it.
    fn is_over(&mut self, producer: &Producer, fed: &Fed, now: Instant) -> bool {
        let phase = self.shutdown.phase();
        if phase < Phase::DrainUplink {
            return false;
        }
        let stop_at = *self.stop_at.get_or_insert(now + self.drain_timeout);
        if matches!(fed, Fed::Nothing) {
            // Nothing more joins the packs, so they need not wait. What does not go now goes in a later round.
            drop(self.send_due_packs(producer, now, true));
        }
        let sent = matches!(fed, Fed::Nothing) && self.lanes.iter().all(LaneFeed::is_between_segments);
        (sent && self.window.is_empty() && self.packer_is_empty()) || now >= stop_at || phase >= Phase::Close
    }

    fn wait(&mut self, session: &mut Session, fed: &Fed, now: Instant) {
        if matches!(fed, Fed::Some) {
            session.quiet = 0;
            return;
        }
        let busy = !self.window.is_empty() || self.lanes.iter().any(LaneFeed::is_waiting);
        let timeout = if busy { (POLL_MIN * (1 << session.quiet.min(8))).min(POLL_MAX) } else { IDLE };
        let due = self.packer.as_ref().and_then(Packer::next_due);
        let until_due = due.map_or(timeout, |due| due.saturating_duration_since(now).max(POLL_MIN));
        let until_room = self.pace.next(now).map_or(timeout, |room| room.max(POLL_MIN));
        session.quiet = session.quiet.saturating_add(1);
        let timeout = timeout.min(until_due).min(until_room);
        self.commits_seen = self.outbox.wait_commit(self.commits_seen, timeout);
    }
}

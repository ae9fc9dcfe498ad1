//! What must be known before records are sent: how many partitions a topic has, and what of ours arrived there
//! although nobody heard of it.
//!
//! Before the first record of a topic is sent, "open" is made durable with the offsets from which on anything may
//! be news. A session that begins with an open topic, after a crash or with a producer that was given up, reads the
//! partitions from there on (`tail/`) and skips what it finds. So what arrived is not sent twice. The first session of
//! a process looks in any case, since it may find that another process sends from a copy of its outbox.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use penstock_proto::Seq;

use super::failure::{Disposition, Failure};
use super::lane::LaneFeed;
use super::metrics::Metrics;
use super::producer::Producer;
use super::reader;
use super::service::{LANES, Worker};
use super::tail::{self, Bounds, Found, Outcome, Own, Want};
use super::tracker::{ChainId, Partitions, Target, TopicId};
use crate::outbox::Encoded;
use crate::supervise::{Phase, clock};

/// Longest wait for a topic's partitions, during which no report is handled.
const ASK_TIMEOUT: Duration = Duration::from_secs(1);
/// Longest wait for the ends of a topic's partitions.
const ENDS_TIMEOUT: Duration = Duration::from_secs(10);
/// Most bytes read to find what arrived.
const TAIL_BYTES_MAX: usize = 64 << 20;
/// Longest time for it.
const TAIL_LONGEST: Duration = Duration::from_secs(60);
/// Clocks may be this far apart.
const CLOCKS_APART_MS: u64 = 120_000;

/// What is remembered about ends of partitions.
#[derive(Debug)]
pub(super) struct Doubts {
    /// How long nothing of our own must have come.
    quiet: Duration,
    /// Whether this process has sent anything: what has its epoch is its own then.
    sent: bool,
    /// The topics that this process has looked at.
    looked: HashSet<TopicId>,
    /// The ends of topics, asked once in a session.
    ends: HashMap<TopicId, Vec<i64>>,
    /// Whether it was said that reading is not allowed.
    told: bool,
}

/// What the records found say about another gateway with our name.
#[derive(Debug, Default)]
struct Rivals {
    fenced: Option<String>,
}

impl Doubts {
    pub(super) fn new(quiet: Duration) -> Self {
        Self { quiet, sent: false, looked: HashSet::new(), ends: HashMap::new(), told: false }
    }
}

impl Worker {
    /// Reads the partition count of one topic that is due, and settles the doubts of those that are known.
    pub(super) fn look_at_topics(&mut self, producer: &Producer, now: Instant) {
        if let Some(topic) = self.topics.due(now) {
            match producer.partitions(self.routes.name(topic), ASK_TIMEOUT) {
                Ok(count) => {
                    self.connected = true;
                    self.set_partitions(topic, count, now);
                }
                Err(failure) => {
                    if failure.disposition < Disposition::Hold {
                        self.connected = false;
                    }
                    self.topics.refused(topic, &failure, clock::now());
                }
            }
            return;
        }
        let known = self.topics.known();
        if !known.is_empty() && self.settle_doubts(&known, now) {
            for topic in known {
                self.topics.ready(topic, now);
                for lane in &mut self.lanes {
                    lane.tracker.release(topic);
                }
            }
        }
    }

    fn set_partitions(&mut self, topic: TopicId, count: u32, now: Instant) {
        let name = self.routes.name(topic);
        let heads = self.outbox.status().lanes;
        let mut busy = false;
        for lane in &mut self.lanes {
            let head = Seq(heads[lane.lane.index()].next.0.saturating_sub(1));
            match lane.tracker.set_partitions(topic, count, head) {
                Ok(Partitions::First | Partitions::Same) => {}
                Ok(Partitions::Busy) => busy = true,
                Ok(change @ (Partitions::Grown { .. } | Partitions::Shrunk)) => {
                    tracing::warn!(topic = name, lane = %lane.lane, count, ?change, "the number of partitions changed");
                    self.metrics.repartitioned.increment(1);
                    lane.commit_durably(&Encoded::default(), None);
                    self.doubts.ends.remove(&topic);
                }
                Err(error) => {
                    let failure = Failure { disposition: Disposition::Hold, reason: error.to_string() };
                    return self.topics.fail(topic, &failure, now);
                }
            }
        }
        if busy {
            let reason = "the topic was made anew while records are in flight".to_owned();
            self.topics.fail(topic, &Failure { disposition: Disposition::Retry, reason }, now);
        } else {
            self.topics.set_known(topic, now);
        }
    }

    /// Looks up what arrived unheard. Returns whether the topics may be sent to now.
    fn settle_doubts(&mut self, topics: &[TopicId], now: Instant) -> bool {
        let (wants, targets) = self.wants(topics);
        for topic in topics {
            let unknown = |lane: &LaneFeed| lane.tracker.wants_ends(*topic);
            if !self.tail_read || self.lanes.iter().any(unknown) {
                self.doubt(*topic);
            }
        }
        if wants.is_empty() || !self.tail_read {
            return true;
        }
        let is_open = |topic: &TopicId| self.lanes.iter().any(|lane| lane.tracker.is_open(*topic));
        let in_doubt = topics.iter().any(is_open);
        let own = Own { gateway: self.gateway.clone(), log: self.outbox.log() };
        let bounds = Bounds {
            until_ms: clock::unix_ms().saturating_add(CLOCKS_APART_MS),
            bytes_max: TAIL_BYTES_MAX,
            // What nobody has in flight needs no waiting for.
            quiet: if in_doubt { self.doubts.quiet } else { Duration::ZERO },
            longest: TAIL_LONGEST,
        };
        let connection = self.settings.connection.clone();
        let shutdown = self.shutdown.clone();
        let stopped = move || shutdown.phase() >= Phase::DrainUplink;
        let (mut rivals, mut news) = (Rivals::default(), 0_u64);
        let result = tail::read(&connection, &wants, &own, &bounds, &stopped, &mut |found| {
            let Some(target) = targets.get(found.want) else { return };
            if self.is_ours(&found, &own, &mut rivals) {
                let chain = ChainId { target: *target, stream: found.identity.stream };
                if let Some(lane) = self.lanes.get_mut(found.identity.lane.index())
                    && lane.tracker.found(chain, found.identity.seq, found.offset)
                {
                    lane.touch();
                    news += u64::from(found.count);
                }
            }
        });
        if let Some(reason) = rivals.fenced {
            self.fence(reason);
            return true;
        }
        let summary = match result {
            Ok(summary) => summary,
            Err(error) => {
                // Nothing is in flight, so waiting costs time only; the outbox holds everything.
                let error = crate::supervise::chain(&error);
                tracing::warn!(error, "the ends of the partitions cannot be read; trying again");
                self.connected = false;
                let until = self.pauses.fail(now);
                self.pause(until);
                return false;
            }
        };
        self.account(&summary, &targets);
        self.metrics.tail_found.increment(news);
        self.doubts.looked.extend(topics);
        tracing::info!(news, bytes = summary.bytes, ended = ?summary.ended, "looked up what had arrived");
        true
    }

    /// The partitions in doubt, each with the lowest offset that some lane has not accounted for.
    fn wants(&self, topics: &[TopicId]) -> (Vec<Want>, Vec<Target>) {
        let (mut wants, mut targets) = (Vec::new(), Vec::new());
        for topic in topics {
            let mut from: HashMap<u32, i64> = HashMap::new();
            for lane in &self.lanes {
                // The first session looks in any case: another process may use a copy of this outbox.
                if self.doubts.looked.contains(topic) && !lane.tracker.is_open(*topic) {
                    continue;
                }
                for (partition, offset) in lane.tracker.offsets(*topic) {
                    // The ends were not to be had when it was opened.
                    let Some(offset) = offset else { continue };
                    let lowest = from.entry(partition).or_insert(offset + 1);
                    *lowest = (*lowest).min(offset + 1);
                }
            }
            for (partition, from) in from {
                wants.push(Want { topic: self.routes.name(*topic).to_owned(), partition, from });
                targets.push(Target { topic: *topic, partition });
            }
        }
        (wants, targets)
    }

    /// Whether a record found is one that this outbox sent.
    fn is_ours(&self, found: &Found<'_>, own: &Own, rivals: &mut Rivals) -> bool {
        let identity = found.identity;
        if identity.log != own.log {
            return false;
        }
        let epoch = self.outbox.epoch();
        let next = self.outbox.status().lanes[identity.lane.index()].next;
        let elsewhere = identity.epoch > epoch || (identity.epoch == epoch && !self.doubts.sent);
        if elsewhere || identity.seq >= next {
            rivals.fenced = Some(format!(
                "{identity} was sent from a copy of this outbox, which is at epoch {epoch} and position {next} of its lane"
            ));
            return false;
        }
        identity.lane.index() < LANES.len()
    }

    /// Another process sends under our name: nothing is sent from here until an operator decides.
    fn fence(&mut self, reason: String) {
        tracing::error!(reason, "nothing is sent any more: two gateways share one identity");
        self.metrics.fenced.set(1.0);
        self.handle.update(|status| status.last_error = Some(reason.clone()));
        self.fenced = Some(reason);
    }

    fn account(&mut self, summary: &tail::Summary, targets: &[Target]) {
        let mut unread = 0;
        for (part, target) in summary.parts.iter().zip(targets) {
            match part.outcome {
                Outcome::End | Outcome::Passed => {
                    for lane in &mut self.lanes {
                        lane.tracker.account(*target, part.next - 1);
                    }
                }
                Outcome::OutOfRange => {
                    let end = part.end.unwrap_or(0);
                    self.lanes.iter_mut().for_each(|lane| lane.tracker.reset_offset(*target, end - 1));
                }
                Outcome::Missing => {}
                Outcome::Cut => unread += self.doubt(target.topic),
                Outcome::Refused => {
                    unread += self.doubt(target.topic);
                    if !self.doubts.told && unread > 0 {
                        tracing::warn!("no right to listen: what arrived unheard may be sent twice");
                        self.doubts.told = true;
                    }
                }
            }
        }
        if unread > 0 {
            Metrics::tail_unread(unread);
        }
    }

    /// What of a topic arrived unheard stays unknown, if anything may have. Returns 1 then, to be counted.
    fn doubt(&mut self, topic: TopicId) -> u64 {
        let heads = self.outbox.status().lanes;
        let mut doubts = 0;
        for lane in &mut self.lanes {
            if lane.tracker.is_open(topic) {
                lane.tracker.doubt(Seq(heads[lane.lane.index()].next.0.saturating_sub(1)));
                doubts = 1;
            }
        }
        doubts
    }

    /// Makes durable that records of a topic are about to be sent.
    pub(super) fn open_topic(&mut self, place: usize, topic: TopicId, now: Instant) {
        let mut ends = Vec::new();
        if self.tail_read && self.lanes[place].tracker.wants_ends(topic) {
            if !self.doubts.ends.contains_key(&topic) {
                let count = self.lanes[place].tracker.partition_count(topic);
                let name = self.routes.name(topic).to_owned();
                let shutdown = self.shutdown.clone();
                let stopped = move || shutdown.phase() >= Phase::DrainUplink;
                match reader::ends(&self.settings.connection, &name, count, ENDS_TIMEOUT, &stopped) {
                    Ok(ends) => drop(self.doubts.ends.insert(topic, ends)),
                    Err(reader::ReadError::Ends { trouble: reader::Trouble::Refused, .. }) => {
                        // Without the right to listen there is nothing to read later either.
                        self.doubts.ends.insert(topic, Vec::new());
                    }
                    Err(error) => {
                        let reason = crate::supervise::chain(&error);
                        return self.topics.fail(
                            topic,
                            &Failure { disposition: Disposition::Retry, reason },
                            now,
                        );
                    }
                }
            }
            ends = self.doubts.ends.get(&topic).cloned().unwrap_or_default();
        }
        self.doubts.sent = true;
        let lane = &mut self.lanes[place];
        lane.tracker.open(topic, &ends);
        lane.sent(topic, now);
        lane.commit_durably(&Encoded::default(), None);
    }
}

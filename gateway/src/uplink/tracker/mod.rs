//! What was sent, what was confirmed, and from where to go on: the uplink's memory for one lane.
//!
//! No I/O and no clock. Entries of a lane are admitted in order of their seq, each for one *target*: a
//! partition of a topic. The client library confirms the records of a target in order, but targets
//! confirm at their own pace, so progress has two parts:
//!
//! - `low`: everything below it is confirmed, in whichever target it belongs to;
//! - per target the last confirmed seq: replay from `low` skips what a target has already.
//!
//! **`prev` is a function of the log, not of the session.** The record of an entry names the entry sent
//! before it to the same target. All entries of a target up to the confirmed one are confirmed, so after
//! a restart the first one not skipped follows exactly the confirmed one, and a record that is sent twice
//! carries the same header both times.
//!
//! That holds only while an entry keeps its target, so a change of the mapping is handled explicitly:
//!
//! - *More partitions*: entries up to the lane's head at that moment keep the old count, later ones get the
//!   new count, and no later one is sent before all earlier ones of that topic are confirmed
//!   ([`Admit::Drain`]). Nothing is sent twice for it, and a device's order survives its change of partition.
//! - *Fewer partitions* (the topic was made anew) or *other routes*: what a target confirmed no longer
//!   says whether an entry is confirmed under the new mapping. Nothing is skipped: everything from `low` is
//!   sent again. Duplicates are bounded by what lies between `low` and the last confirmed entry. The chain
//!   of a target continues where the first record sent is above everything it held (the *basis*), and
//!   starts anew (`prev` 0) where it is not.

mod state;

use std::collections::VecDeque;

use penstock_proto::Seq;

use self::state::{SavedTarget, SavedTopic};
pub(crate) use self::state::{State, TOPIC_LENGTH_MAX};

/// Most topics that one lane's progress remembers.
pub(crate) const TOPICS_MAX: usize = 64;
/// Most partitions of one topic.
pub(crate) const PARTITIONS_MAX: u32 = 1024;

/// A topic's place in the list of topics the tracker was made with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct TopicId(pub(crate) u16);

/// Where a record goes: a partition of a topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Target {
    pub(crate) topic: TopicId,
    pub(crate) partition: u32,
}

/// What to do with an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Admit {
    /// Send it, with this `prev` in its header.
    Send { prev: Seq },
    /// Its target confirmed it in an earlier session.
    AlreadyAcked,
    /// Not yet: it belongs to the new partition count, and the old one is not drained.
    Drain,
}

/// What a delivery report meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ack {
    /// The target's confirmed seq moved.
    Advanced,
    /// Confirmed before an earlier record of its target; kept until that one is confirmed.
    Early,
    /// Nothing of the kind is in flight.
    Unknown,
}

/// What a topic's partition count means compared to the stored one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Partitions {
    /// No count was stored.
    First,
    /// The stored one.
    Same,
    /// More: the old count holds up to this seq.
    Grown { until: Seq },
    /// Fewer: the topic was made anew, and nothing is skipped in it.
    Shrunk,
    /// Another count, but records of the topic are in flight: nothing changed, ask again when they are not.
    Busy,
}

/// A count outside 1 to [`PARTITIONS_MAX`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0} partitions: expected 1 to {PARTITIONS_MAX}")]
pub(crate) struct BadCount(pub(crate) u32);

/// One lane's memory.
#[derive(Debug)]
pub(crate) struct Tracker {
    routes: u64,
    topics: Vec<Topic>,
    /// Where this session began: everything below is confirmed.
    start: Seq,
    /// The position after the last one admitted or skipped.
    next: Seq,
}

#[derive(Debug)]
struct Topic {
    name: String,
    /// 0 while unknown.
    partitions: u32,
    /// The count that holds up to `until`; 0 when there is none.
    previous: u32,
    until: Seq,
    targets: Vec<TargetState>,
}

#[derive(Debug, Default)]
struct TargetState {
    /// Last seq confirmed under the present mapping; all of this target up to it are.
    acked: Seq,
    /// Its offset, -1 when unknown.
    offset: i64,
    /// Last seq confirmed under an earlier mapping: where the chain goes on, never a reason to skip.
    basis: Seq,
    /// Last seq sent in this session, 0 before the first.
    sent: Seq,
    /// Sent and not confirmed, in order.
    pending: VecDeque<Pending>,
}

#[derive(Debug)]
struct Pending {
    seq: Seq,
    acked_at: Option<i64>,
}

// === impl Tracker ===

impl Tracker {
    /// A tracker that goes on from `low` with what `state` remembers.
    ///
    /// `topics` are the topics of the present routes and `routes` is their fingerprint: with another
    /// fingerprint than the stored one nothing is skipped. Topics that are no longer routed to are
    /// remembered as far as [`TOPICS_MAX`] allows.
    pub(crate) fn new(topics: &[String], routes: u64, low: Seq, state: &State) -> Self {
        let rerouted = state.routes != routes;
        let mut tracker = Self { routes, topics: Vec::with_capacity(topics.len()), start: low, next: low };
        for name in topics {
            let saved = state.topics.iter().find(|saved| saved.name == *name);
            tracker.topics.push(saved.map_or_else(|| Topic::new(name), |saved| Topic::load(saved, rerouted)));
        }
        for saved in &state.topics {
            if tracker.topics.len() >= TOPICS_MAX {
                break;
            }
            if !topics.contains(&saved.name) {
                tracker.topics.push(Topic::load(saved, rerouted));
            }
        }
        tracker
    }

    /// Sets a topic's partition count as the service has it, while nothing of the topic is in flight.
    ///
    /// `head` is the last seq of the lane: nothing above it was ever sent.
    ///
    /// # Errors
    ///
    /// [`BadCount`] when the count is out of range; nothing changes then.
    pub(crate) fn set_partitions(
        &mut self,
        topic: TopicId,
        count: u32,
        head: Seq,
    ) -> Result<Partitions, BadCount> {
        if !(1..=PARTITIONS_MAX).contains(&count) {
            return Err(BadCount(count));
        }
        let low = self.low();
        let topic = &mut self.topics[usize::from(topic.0)];
        let change = match topic.partitions {
            0 => Partitions::First,
            known if known == count => return Ok(Partitions::Same),
            _ if topic.targets.iter().any(|target| !target.pending.is_empty()) => {
                return Ok(Partitions::Busy);
            }
            known if known > count => {
                topic.forget_mapping();
                topic.targets.truncate(count as usize);
                Partitions::Shrunk
            }
            known => {
                // While an old generation drains nothing of the next one was sent, so the older count stays.
                if topic.previous == 0 {
                    topic.previous = known;
                }
                topic.until = head.max(Seq(low.0.saturating_sub(1)));
                Partitions::Grown { until: topic.until }
            }
        };
        topic.partitions = count;
        topic.targets.resize_with(count as usize, TargetState::default);
        Ok(change)
    }

    /// The partition count of a topic, or `None` while it is unknown.
    #[cfg(test)]
    pub(crate) fn partitions(&self, topic: TopicId) -> Option<u32> {
        self.topics.get(usize::from(topic.0)).map(|topic| topic.partitions).filter(|count| *count > 0)
    }

    /// The count that decides the partition of the entry `seq`, or `None` while it is unknown.
    pub(crate) fn partitions_at(&self, topic: TopicId, seq: Seq) -> Option<u32> {
        let topic = self.topics.get(usize::from(topic.0))?;
        let count = if topic.previous > 0 && seq <= topic.until { topic.previous } else { topic.partitions };
        (count > 0).then_some(count)
    }

    /// Decides about the next entry of the lane.
    ///
    /// Entries come in ascending order; after [`Admit::Drain`] the same entry is offered again later. Entries
    /// below the start of the session may be offered too, since a consumer rewinds to what is durable.
    pub(crate) fn admit(&mut self, target: Target, seq: Seq) -> Admit {
        if seq < self.start {
            return Admit::AlreadyAcked;
        }
        assert!(seq >= self.next, "entries are admitted in order, or the tracker would skip one");
        let topic = &mut self.topics[usize::from(target.topic.0)];
        if topic.previous > 0 && seq > topic.until && !topic.try_finish_drain() {
            return Admit::Drain;
        }
        self.next = seq.next();
        let state = &mut topic.targets[target.partition as usize];
        if seq <= state.acked {
            return Admit::AlreadyAcked;
        }
        let prev = state.prev(seq);
        state.sent = seq;
        state.pending.push_back(Pending { seq, acked_at: None });
        Admit::Send { prev }
    }

    /// Takes back the last admission of `target`: the client library had no room for it.
    ///
    /// It is offered again with the same result.
    pub(crate) fn retract(&mut self, target: Target, seq: Seq, prev: Seq) {
        let state = &mut self.topics[usize::from(target.topic.0)].targets[target.partition as usize];
        let last = state.pending.pop_back();
        assert_eq!(last.map(|pending| pending.seq), Some(seq), "only the last admission is taken back");
        state.sent = prev;
        self.next = seq;
    }

    /// Notes that `target` confirmed `seq` at `offset`.
    pub(crate) fn acked(&mut self, target: Target, seq: Seq, offset: i64) -> Ack {
        let state = self
            .topics
            .get_mut(usize::from(target.topic.0))
            .and_then(|topic| topic.targets.get_mut(target.partition as usize));
        state.map_or(Ack::Unknown, |state| state.acked(seq, offset))
    }

    /// The first position that is not confirmed.
    pub(crate) fn low(&self) -> Seq {
        let targets = self.topics.iter().flat_map(|topic| &topic.targets);
        let oldest = targets.filter_map(|target| target.pending.front()).map(|pending| pending.seq).min();
        oldest.map_or(self.next, |oldest| oldest.min(self.next))
    }

    /// How many positions below `below` are not confirmed, as far as this session knows.
    pub(crate) fn unconfirmed_below(&self, below: Seq) -> u64 {
        let targets = self.topics.iter().flat_map(|topic| &topic.targets);
        let in_flight = |target: &TargetState| {
            let sent = target.pending.iter().filter(|pending| pending.seq < below);
            sent.filter(|pending| pending.acked_at.is_none()).count() as u64
        };
        let never_sent = below.0.saturating_sub(self.next.0);
        targets.map(in_flight).sum::<u64>() + never_sent
    }

    /// Forgets what is in flight, because its producer is gone, and says where to go on.
    ///
    /// What was confirmed early stays unconfirmed: it is sent again and the broker's copy is a duplicate.
    pub(crate) fn restart(&mut self) -> Seq {
        let low = self.low();
        for target in self.topics.iter_mut().flat_map(|topic| &mut topic.targets) {
            target.pending.clear();
            target.sent = Seq::ZERO;
        }
        self.start = low;
        self.next = low;
        low
    }

    /// What must be stored with [`Self::low`] for a later session.
    pub(crate) fn state(&self) -> State {
        State { routes: self.routes, topics: self.topics.iter().filter_map(Topic::save).collect() }
    }
}

// === impl Topic ===

impl Topic {
    fn new(name: &str) -> Self {
        Self { name: name.to_owned(), partitions: 0, previous: 0, until: Seq::ZERO, targets: Vec::new() }
    }

    fn load(saved: &SavedTopic, rerouted: bool) -> Self {
        let mut topic = Self::new(&saved.name);
        topic.partitions = saved.partitions;
        topic.previous = saved.previous;
        topic.until = saved.until;
        topic.targets.resize_with(saved.partitions as usize, TargetState::default);
        for target in &saved.targets {
            let SavedTarget { partition, acked, offset, basis } = *target;
            if let Some(state) = topic.targets.get_mut(partition as usize) {
                *state = TargetState { acked, offset, basis, ..TargetState::default() };
            }
        }
        if rerouted {
            topic.forget_mapping();
        }
        topic
    }

    fn save(&self) -> Option<SavedTopic> {
        if self.partitions == 0 {
            return None;
        }
        let targets = (0_u32..).zip(&self.targets).filter_map(|(partition, target)| {
            let known = target.acked > Seq::ZERO || target.basis > Seq::ZERO;
            let TargetState { acked, offset, basis, .. } = *target;
            known.then_some(SavedTarget { partition, acked, offset, basis })
        });
        Some(SavedTopic {
            name: self.name.clone(),
            partitions: self.partitions,
            previous: self.previous,
            until: self.until,
            targets: targets.collect(),
        })
    }

    /// What was confirmed stops being a reason to skip and stays where chains go on.
    fn forget_mapping(&mut self) {
        for target in &mut self.targets {
            target.basis = target.basis.max(target.acked);
            target.acked = Seq::ZERO;
        }
        self.previous = 0;
        self.until = Seq::ZERO;
    }

    /// Whether all entries of the old partition count are confirmed; if so the new one holds alone.
    fn try_finish_drain(&mut self) -> bool {
        let drained = self.targets.iter().all(|target| target.pending.is_empty());
        if drained {
            self.previous = 0;
            self.until = Seq::ZERO;
        }
        drained
    }
}

// === impl TargetState ===

impl TargetState {
    fn prev(&self, seq: Seq) -> Seq {
        let last = self.sent.max(self.acked);
        if last > Seq::ZERO {
            last
        } else if self.basis < seq {
            self.basis
        } else {
            Seq::ZERO
        }
    }

    fn acked(&mut self, seq: Seq, offset: i64) -> Ack {
        let Ok(place) = self.pending.binary_search_by_key(&seq, |pending| pending.seq) else {
            return Ack::Unknown;
        };
        self.pending[place].acked_at = Some(offset);
        if place > 0 {
            return Ack::Early;
        }
        while let Some(&Pending { seq, acked_at: Some(offset) }) = self.pending.front() {
            self.acked = seq;
            self.offset = offset;
            self.pending.pop_front();
        }
        Ack::Advanced
    }
}

#[cfg(test)]
mod tests;

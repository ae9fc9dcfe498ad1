//! What was sent, what was confirmed, and from where to go on: the uplink's memory for one lane.
//!
//! No I/O and no clock. Each entry goes to one *target*, a partition of a topic, as part of one *stream*, live or
//! backlog. Target and stream make a *chain*: entries of a chain are sent and confirmed in order, while chains
//! proceed at their own pace. So progress has these parts:
//!
//! - `low`: everything below it is confirmed, in whichever chain it belongs to;
//! - per chain the last confirmed seq: replay from `low` skips what a chain has already;
//! - the *spans*: the ranges whose entries go as backlog. Every other entry goes as live;
//! - `live_low`: every live entry below it is confirmed, so that a replay need not read them all again.
//!
//! **`prev` is a function of the log, not of the session.** The record of an entry names the entry sent
//! before it in the same chain. All entries of a chain up to the confirmed one are confirmed, so after
//! a restart the first one not skipped follows exactly the confirmed one, and a record that is sent twice
//! carries the same header both times.
//!
//! That holds only while an entry keeps its chain, so whatever changes the mapping is handled explicitly:
//!
//! - *More partitions*: entries up to the lane's head at that moment keep the old count, later ones get the
//!   new count, and no later one is sent before all earlier ones of that topic and stream are confirmed
//!   ([`Admit::Drain`]). Nothing is sent twice for it, and a device's order survives its change of partition.
//! - *Fewer partitions* (the topic was made anew) or *other routes*: what a chain confirmed no longer
//!   says whether an entry is confirmed under the new mapping. Nothing is skipped: everything from `low` is
//!   sent again. Duplicates are bounded by what lies between `low` and the last confirmed entry. The chain
//!   of a target continues where the first record sent is above everything it held (the *basis*), and
//!   starts anew (`prev` 0) where it is not.
//! - *A span* is made durable before anything in it or above it is sent; see [`Tracker::split`].
//!
//! A topic that takes nothing now does not stop its lane: its entries are passed over ([`Tracker::pass`]) and
//! read again when it takes records ([`Tracker::release`]); `low` stays at the first of them.

mod chain;
mod spans;
mod state;

use penstock_proto::{Seq, Stream};

pub(crate) use self::chain::Ack;
use self::chain::Topic;
use self::spans::Spans;
pub(crate) use self::state::{State, TOPIC_LENGTH_MAX};

/// Most topics that one lane's progress remembers.
pub(crate) const TOPICS_MAX: usize = 64;
/// Most partitions of one topic.
pub(crate) const PARTITIONS_MAX: u32 = 1024;
/// Both streams, in the order of [`index`].
pub(crate) const STREAMS: [Stream; 2] = [Stream::Live, Stream::Backlog];

/// A topic's place in the list of topics the tracker was made with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct TopicId(pub(crate) u16);

/// Where a record goes: a partition of a topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Target {
    pub(crate) topic: TopicId,
    pub(crate) partition: u32,
}

/// A target and a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct ChainId {
    pub(crate) target: Target,
    pub(crate) stream: Stream,
}

/// What to do with an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Admit {
    /// Send it, with this `prev` in its header.
    Send { prev: Seq },
    /// It is confirmed, or on its way.
    Skip,
    /// Not yet: it belongs to the new partition count, and the old one is not drained.
    Drain,
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
    spans: Spans,
    /// Where this session began: everything below is confirmed.
    start: Seq,
    /// Per stream the first position that is not dealt with.
    next: [Seq; 2],
    /// Live entries up to this one may have been sent, so they stay live.
    sent_live: Seq,
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
        let mut known: Vec<Topic> = Vec::with_capacity(topics.len());
        for name in topics {
            let saved = state.topics.iter().find(|saved| saved.name == *name);
            known.push(saved.map_or_else(|| Topic::new(name), |saved| Topic::load(saved, rerouted)));
        }
        for saved in &state.topics {
            if known.len() >= TOPICS_MAX {
                break;
            }
            if !topics.contains(&saved.name) {
                known.push(Topic::load(saved, rerouted));
            }
        }
        let live_low = if rerouted { low } else { state.live_low.max(low) };
        let spans = Spans::new(&state.spans);
        let mut tracker =
            Self { routes, topics: known, spans, start: low, next: [low; 2], sent_live: Seq::ZERO };
        tracker.go_to(low, live_low);
        tracker
    }

    fn go_to(&mut self, low: Seq, live_low: Seq) {
        self.start = low;
        self.spans.retire(low);
        let backlog = self.spans.first_from(low).unwrap_or(Seq(u64::MAX));
        self.next = [self.spans.behind(live_low), backlog];
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
        let change = self.topics[usize::from(topic.0)].set_partitions(count, head, low);
        if change == Partitions::Shrunk {
            self.go_to(low, low);
        }
        Ok(change)
    }

    /// The partition count of a topic, 0 while it is unknown.
    pub(crate) fn partition_count(&self, topic: TopicId) -> u32 {
        self.topics.get(usize::from(topic.0)).map_or(0, Topic::partitions)
    }

    /// The count that decides the partition of the entry `seq`, or `None` while it is unknown.
    pub(crate) fn partitions_at(&self, topic: TopicId, seq: Seq) -> Option<u32> {
        self.topics.get(usize::from(topic.0))?.partitions_at(seq)
    }

    /// Where the reading of a stream goes on, or `None` if it has come to its end: the backlog does.
    ///
    /// [`Self::run`] says which entries from there on belong to it.
    pub(crate) fn position(&self, stream: Stream) -> Option<Seq> {
        Some(self.next[index(stream)]).filter(|next| next.0 != u64::MAX)
    }

    /// The first position at or above `from` that is of `stream`, and where that run of it ends (exclusive).
    pub(crate) fn run(&self, stream: Stream, from: Seq) -> Option<(Seq, Seq)> {
        match stream {
            Stream::Live => {
                let first = self.spans.behind(from);
                Some((first, self.spans.first_from(first).unwrap_or(Seq(u64::MAX))))
            }
            Stream::Backlog => {
                let first = self.spans.first_from(from)?;
                Some((first, self.spans.behind(first)))
            }
        }
    }

    /// Decides about the next entry of a stream.
    ///
    /// Entries of a stream come in ascending order; after [`Admit::Drain`] the same entry is offered again later.
    /// Entries below the start of the session may be offered too, since a reader begins where a segment does.
    pub(crate) fn admit(&mut self, chain: ChainId, seq: Seq) -> Admit {
        let place = index(chain.stream);
        if seq < self.start || seq < self.next[place] {
            return Admit::Skip;
        }
        let topic = &mut self.topics[usize::from(chain.target.topic.0)];
        let admit = topic.admit(chain.target.partition, chain.stream, seq);
        if admit != Admit::Drain {
            self.advance(chain.stream, seq);
        }
        admit
    }

    /// Adds an entry to the record of the entry admitted last in its chain: one record carries both.
    pub(crate) fn extend(&mut self, chain: ChainId, seq: Seq) {
        self.topics[usize::from(chain.target.topic.0)].extend(chain.target.partition, chain.stream, seq);
        self.advance(chain.stream, seq);
    }

    /// Whether an entry is new to its chain: neither confirmed nor on its way.
    pub(crate) fn is_new(&self, chain: ChainId, seq: Seq) -> bool {
        let topic = &self.topics[usize::from(chain.target.topic.0)];
        seq >= self.start && topic.is_new(chain.target.partition, chain.stream, seq)
    }

    /// Takes back the last record admitted to a chain, which ends with `seq` and follows `prev`: the client
    /// library had no room for it. Its entries are offered again with the same result.
    pub(crate) fn retract(&mut self, chain: ChainId, seq: Seq, prev: Seq) {
        let topic = &mut self.topics[usize::from(chain.target.topic.0)];
        let first = topic.retract(chain.target.partition, chain.stream, seq, prev);
        let next = &mut self.next[index(chain.stream)];
        *next = (*next).min(first);
    }

    /// Whether an entry has to wait until those of the old partition count are confirmed.
    pub(crate) fn is_draining(&self, chain: ChainId, seq: Seq) -> bool {
        self.topics[usize::from(chain.target.topic.0)].is_draining(chain.stream, seq)
    }

    /// Passes over an entry whose topic takes nothing now.
    pub(crate) fn pass(&mut self, topic: TopicId, stream: Stream, seq: Seq) {
        if seq >= self.start && seq >= self.next[index(stream)] {
            self.topics[usize::from(topic.0)].pass(stream, seq);
            self.advance(stream, seq);
        }
    }

    /// The topic takes records again: goes back to the first of its entries that was passed over in each
    /// stream. Returns whether the reading moved.
    pub(crate) fn release(&mut self, topic: TopicId) -> bool {
        let mut moved = false;
        for (next, passed) in self.next.iter_mut().zip(self.topics[usize::from(topic.0)].release()) {
            if let Some(seq) = passed {
                *next = (*next).min(seq);
                moved = true;
            }
        }
        moved
    }

    fn advance(&mut self, stream: Stream, seq: Seq) {
        let place = index(stream);
        self.next[place] = seq.next();
        if !self.spans.is_empty() {
            self.next[place] = match self.run(stream, seq.next()) {
                Some((first, _)) => first,
                None => Seq(u64::MAX),
            };
        }
    }

    /// Notes that a chain confirmed the record that ends with `seq`, at `offset`.
    pub(crate) fn acked(&mut self, chain: ChainId, seq: Seq, offset: i64) -> Ack {
        let topic = self.topics.get_mut(usize::from(chain.target.topic.0));
        topic.map_or(Ack::Unknown, |topic| topic.acked(chain.target.partition, chain.stream, seq, offset))
    }

    /// How many records of a chain are on their way.
    pub(crate) fn in_flight(&self, chain: ChainId) -> usize {
        self.topics[usize::from(chain.target.topic.0)].in_flight(chain.target.partition, chain.stream)
    }

    /// How many records to a partition are on their way.
    pub(crate) fn in_flight_to(&self, target: Target) -> usize {
        let topic = &self.topics[usize::from(target.topic.0)];
        STREAMS.map(|stream| topic.in_flight(target.partition, stream)).iter().sum()
    }

    /// Counts an entry as dealt with that its chain will never hold. Nothing of the chain is in flight.
    pub(crate) fn settle(&mut self, chain: ChainId, seq: Seq) {
        self.topics[usize::from(chain.target.topic.0)].settle(chain.target.partition, chain.stream, seq);
        self.advance(chain.stream, seq);
    }

    /// Takes [`Self::settle`] back: what was to become of the entry did not become durable.
    pub(crate) fn unsettle(&mut self, chain: ChainId, seq: Seq) {
        self.topics[usize::from(chain.target.topic.0)].unsettle(chain.target.partition, chain.stream, seq);
        let next = &mut self.next[index(chain.stream)];
        *next = (*next).min(seq);
    }

    /// Takes in what was found in a partition although nobody had heard of it. Only before anything is sent.
    ///
    /// Returns whether it was news.
    pub(crate) fn found(&mut self, chain: ChainId, seq: Seq, offset: i64) -> bool {
        let topic = self.topics.get_mut(usize::from(chain.target.topic.0));
        topic.is_some_and(|topic| topic.found(chain.target.partition, chain.stream, seq, offset))
    }

    /// A partition was read up to `offset`.
    pub(crate) fn account(&mut self, target: Target, offset: i64) {
        if let Some(topic) = self.topics.get_mut(usize::from(target.topic.0)) {
            topic.account(target.partition, offset);
        }
    }

    /// A partition was made anew and ends at `offset`.
    pub(crate) fn reset_offset(&mut self, target: Target, offset: i64) {
        if let Some(topic) = self.topics.get_mut(usize::from(target.topic.0)) {
            topic.reset_offset(target.partition, offset);
        }
    }

    /// The partitions of `topic` with the last offset that is accounted for, `None` where it is not known.
    pub(crate) fn offsets(&self, topic: TopicId) -> Vec<(u32, Option<i64>)> {
        self.topics.get(usize::from(topic.0)).map(Topic::offsets).unwrap_or_default()
    }

    /// Whether records of the topic may be sent: that is recorded, durably, before the first one is.
    pub(crate) fn is_open(&self, topic: TopicId) -> bool {
        self.topics.get(usize::from(topic.0)).is_some_and(Topic::is_open)
    }

    /// Notes that records of the topic are about to be sent. `ends` are the offsets behind the last record of
    /// each partition, used where none is known yet.
    pub(crate) fn open(&mut self, topic: TopicId, ends: &[i64]) {
        self.topics[usize::from(topic.0)].open(ends);
    }

    /// Notes that nothing of the topic is in flight and nothing of it is in doubt.
    pub(crate) fn close(&mut self, topic: TopicId) -> bool {
        self.topics[usize::from(topic.0)].close()
    }

    /// Whether some partition of the topic has no offset to read from.
    pub(crate) fn wants_ends(&self, topic: TopicId) -> bool {
        self.topics.get(usize::from(topic.0)).is_some_and(Topic::wants_ends)
    }

    /// The first position that is not confirmed.
    pub(crate) fn low(&self) -> Seq {
        let waiting = self.topics.iter().flat_map(|topic| STREAMS.map(|stream| topic.oldest(stream)));
        let next = self.next[0].min(self.next[1]);
        waiting.flatten().fold(next, Seq::min)
    }

    /// The first position whose live entry is not confirmed.
    fn live_low(&self) -> Seq {
        let waiting = self.topics.iter().filter_map(|topic| topic.oldest(Stream::Live));
        waiting.fold(self.next[0], Seq::min)
    }

    /// Live entries up to `head` may have been stored though nobody heard of it, and nobody can say which. They
    /// stay live, or a chain would begin anew above what it holds.
    pub(crate) fn doubt(&mut self, head: Seq) {
        self.sent_live = self.sent_live.max(head);
    }

    /// Everything between the live reading and `end` becomes backlog, and live goes on at `end`. Nothing
    /// changes and `false` is returned if live entries above the reading were sent before, or may have been, if
    /// there is nothing between, or if there are too many spans.
    ///
    /// The state must be durable before anything is sent that it changes.
    pub(crate) fn split(&mut self, end: Seq) -> bool {
        let from = self.next[0];
        let sent_above =
            self.sent_live >= from || self.topics.iter().any(|topic| topic.highest_live() >= from);
        if from >= end || sent_above || !self.spans.push(from, end) {
            return false;
        }
        self.next[0] = end;
        self.next[1] = self.next[1].min(from);
        true
    }

    /// How many positions wait as backlog of a split.
    pub(crate) fn backlog(&self) -> u64 {
        self.spans.count_from(self.next[1])
    }

    /// How many positions below `below` are not confirmed, as far as this session knows.
    pub(crate) fn unconfirmed_below(&self, below: Seq) -> u64 {
        let in_flight: u64 = self.topics.iter().map(|topic| topic.unconfirmed_below(below)).sum();
        let live = self.spans.live_between(self.next[0], below);
        let backlog = self.spans.count_between(self.next[1], below);
        in_flight + live + backlog
    }

    /// Forgets what is in flight, because its producer is gone, and says where to go on.
    ///
    /// What was confirmed early stays unconfirmed: it is sent again and the broker's copy is a duplicate.
    pub(crate) fn restart(&mut self) -> Seq {
        let (low, live_low) = (self.low(), self.live_low());
        let sent = self.topics.iter().map(Topic::highest_live).max();
        self.sent_live = self.sent_live.max(sent.unwrap_or(Seq::ZERO));
        for topic in &mut self.topics {
            topic.restart();
        }
        self.go_to(low, live_low);
        low
    }

    /// What must be stored with [`Self::low`] for a later session.
    pub(crate) fn state(&mut self) -> State {
        let low = self.low();
        self.spans.retire(low);
        State {
            routes: self.routes,
            live_low: self.live_low().max(low),
            spans: self.spans.list(),
            topics: self.topics.iter_mut().filter_map(|topic| topic.save(low)).collect(),
        }
    }
}

/// A stream's place in arrays.
pub(crate) const fn index(stream: Stream) -> usize {
    match stream {
        Stream::Live => 0,
        Stream::Backlog => 1,
    }
}

#[cfg(test)]
mod tests;

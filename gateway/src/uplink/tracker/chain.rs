//! The chains of one topic: per partition and stream, what was sent and what was confirmed.

use std::collections::VecDeque;

use penstock_proto::{Seq, Stream};

use super::state::{SavedChain, SavedTarget, SavedTopic};
use super::{Admit, Partitions, STREAMS, index};

/// What a delivery report meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ack {
    /// The chain's confirmed seq moved.
    Advanced,
    /// Confirmed before an earlier record of its chain; kept until that one is confirmed.
    Early,
    /// Nothing of the kind is in flight.
    Unknown,
}

#[derive(Debug)]
pub(super) struct Topic {
    name: String,
    /// 0 while unknown.
    partitions: u32,
    /// The count that holds up to `until`; 0 when there is none.
    previous: u32,
    until: Seq,
    /// Whether records of it may have been sent of which nobody heard.
    open: bool,
    /// Per stream the first entry that was passed over, and how many were.
    passed: [Option<(Seq, u64)>; 2],
    targets: Vec<TargetState>,
}

#[derive(Debug, Default)]
struct TargetState {
    /// The last offset that is accounted for: no record at or below it is news. `None` when unknown.
    offset: Option<i64>,
    chains: [Chain; 2],
}

#[derive(Debug, Default)]
struct Chain {
    /// Last seq confirmed under the present mapping; all of this chain up to it are.
    acked: Seq,
    /// Last seq confirmed under an earlier mapping: where the chain goes on, never a reason to skip.
    basis: Seq,
    /// Last seq sent in this session, 0 before the first.
    sent: Seq,
    /// Where `acked` was before the last entry that was settled.
    unsettled: Seq,
    /// Records sent and not confirmed, in order.
    pending: VecDeque<Pending>,
}

/// A record: the entries of its chain from `first` to `last`.
#[derive(Debug)]
struct Pending {
    first: Seq,
    last: Seq,
    count: u32,
    acked_at: Option<i64>,
}

// === impl Topic ===

impl Topic {
    pub(super) fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            partitions: 0,
            previous: 0,
            until: Seq::ZERO,
            open: false,
            passed: [None; 2],
            targets: Vec::new(),
        }
    }

    pub(super) fn load(saved: &SavedTopic, rerouted: bool) -> Self {
        let mut topic = Self::new(&saved.name);
        topic.partitions = saved.partitions;
        topic.previous = saved.previous;
        topic.until = saved.until;
        topic.open = saved.open;
        topic.targets.resize_with(saved.partitions as usize, TargetState::default);
        for target in &saved.targets {
            if let Some(state) = topic.targets.get_mut(target.partition as usize) {
                state.offset = target.offset;
                for (chain, saved) in state.chains.iter_mut().zip(target.chains) {
                    (chain.acked, chain.basis) = (saved.acked, saved.basis);
                }
            }
        }
        if rerouted {
            topic.forget_mapping();
            // What is found there is about the earlier mapping.
            topic.open = false;
        }
        topic
    }

    /// What is worth keeping; `low` is the lane's.
    pub(super) fn save(&mut self, low: Seq) -> Option<SavedTopic> {
        if self.partitions == 0 {
            return None;
        }
        if low > self.until {
            (self.previous, self.until) = (0, Seq::ZERO);
        }
        let targets = (0_u32..).zip(&self.targets).filter_map(|(partition, target)| {
            let chains = [0, 1].map(|place: usize| {
                target.chains.get(place).map_or_else(SavedChain::default, |chain| SavedChain {
                    acked: chain.acked,
                    basis: chain.basis,
                })
            });
            let known = target.offset.is_some() || chains != [SavedChain::default(); 2];
            known.then_some(SavedTarget { partition, offset: target.offset, chains })
        });
        Some(SavedTopic {
            name: self.name.clone(),
            partitions: self.partitions,
            previous: self.previous,
            until: self.until,
            open: self.open,
            targets: targets.collect(),
        })
    }

    pub(super) const fn partitions(&self) -> u32 {
        self.partitions
    }

    pub(super) fn set_partitions(&mut self, count: u32, head: Seq, low: Seq) -> Partitions {
        let change = match self.partitions {
            0 => Partitions::First,
            known if known == count => return Partitions::Same,
            known if known > count => {
                if self.chains().any(|chain| !chain.pending.is_empty()) {
                    return Partitions::Busy;
                }
                self.forget_mapping();
                self.targets.truncate(count as usize);
                // The offsets belonged to a topic that is gone.
                self.targets.iter_mut().for_each(|target| target.offset = None);
                self.open = false;
                Partitions::Shrunk
            }
            known => {
                // While an old generation drains nothing of the next one was sent, so the older count stays.
                if self.previous == 0 {
                    self.previous = known;
                }
                self.until = head.max(Seq(low.0.saturating_sub(1)));
                // Nothing of ours is in the new partitions, which are read from their beginning if need be.
                let new = || TargetState { offset: Some(-1), ..TargetState::default() };
                self.targets.resize_with(count as usize, new);
                Partitions::Grown { until: self.until }
            }
        };
        self.partitions = count;
        self.targets.resize_with(count as usize, TargetState::default);
        change
    }

    pub(super) fn partitions_at(&self, seq: Seq) -> Option<u32> {
        let count = if self.previous > 0 && seq <= self.until { self.previous } else { self.partitions };
        (count > 0).then_some(count)
    }

    pub(super) fn admit(&mut self, partition: u32, stream: Stream, seq: Seq) -> Admit {
        if self.is_draining(stream, seq) {
            return Admit::Drain;
        }
        let chain = self.chain_mut(partition, stream);
        if !chain.is_new(seq) {
            return Admit::Skip;
        }
        let prev = chain.prev(seq);
        chain.sent = seq;
        chain.pending.push_back(Pending { first: seq, last: seq, count: 1, acked_at: None });
        Admit::Send { prev }
    }

    pub(super) fn is_new(&self, partition: u32, stream: Stream, seq: Seq) -> bool {
        self.chain(partition, stream).is_none_or(|chain| chain.is_new(seq))
    }

    pub(super) fn extend(&mut self, partition: u32, stream: Stream, seq: Seq) {
        let chain = self.chain_mut(partition, stream);
        chain.sent = seq;
        let last = chain.pending.back_mut().expect("what is extended was admitted and is not confirmed");
        last.last = seq;
        last.count += 1;
    }

    /// Returns the first entry of the record taken back.
    pub(super) fn retract(&mut self, partition: u32, stream: Stream, seq: Seq, prev: Seq) -> Seq {
        let chain = self.chain_mut(partition, stream);
        let record = chain.pending.pop_back().filter(|record| record.last == seq);
        chain.sent = prev;
        record.expect("only the last admission is taken back").first
    }

    pub(super) fn pass(&mut self, stream: Stream, seq: Seq) {
        let passed = &mut self.passed[index(stream)];
        *passed = Some(passed.map_or((seq, 1), |(first, count)| (first.min(seq), count + 1)));
    }

    pub(super) fn release(&mut self) -> [Option<Seq>; 2] {
        std::mem::take(&mut self.passed).map(|passed| passed.map(|(first, _)| first))
    }

    pub(super) fn acked(&mut self, partition: u32, stream: Stream, seq: Seq, offset: i64) -> Ack {
        let Some(target) = self.targets.get_mut(partition as usize) else { return Ack::Unknown };
        let chain = &mut target.chains[index(stream)];
        // Reports come in order, so it is the first one but for what no broker should do.
        let place = match chain.pending.front() {
            Some(first) if first.last == seq => 0,
            _ => match chain.pending.binary_search_by_key(&seq, |pending| pending.last) {
                Ok(place) => place,
                Err(_) => return Ack::Unknown,
            },
        };
        chain.pending[place].acked_at = Some(offset);
        if place > 0 {
            return Ack::Early;
        }
        while let Some(&Pending { last, acked_at: Some(offset), .. }) = chain.pending.front() {
            chain.acked = last;
            // Reports of a partition come in order, so what lies below was reported before.
            target.offset = target.offset.max(Some(offset).filter(|offset| *offset >= 0));
            chain.pending.pop_front();
        }
        Ack::Advanced
    }

    pub(super) fn in_flight(&self, partition: u32, stream: Stream) -> usize {
        self.chain(partition, stream).map_or(0, |chain| chain.pending.len())
    }

    pub(super) fn settle(&mut self, partition: u32, stream: Stream, seq: Seq) {
        let chain = self.chain_mut(partition, stream);
        assert!(chain.pending.is_empty(), "what comes before it is confirmed first");
        chain.unsettled = chain.acked;
        chain.acked = chain.acked.max(seq);
    }

    pub(super) fn unsettle(&mut self, partition: u32, stream: Stream, seq: Seq) {
        let chain = self.chain_mut(partition, stream);
        if chain.acked == seq {
            chain.acked = chain.unsettled;
        }
    }

    pub(super) fn found(&mut self, partition: u32, stream: Stream, seq: Seq, offset: i64) -> bool {
        self.account(partition, offset);
        let Some(target) = self.targets.get_mut(partition as usize) else { return false };
        let chain = &mut target.chains[index(stream)];
        let news = seq > chain.acked;
        chain.acked = chain.acked.max(seq);
        news
    }

    /// Everything up to `offset` was read.
    pub(super) fn account(&mut self, partition: u32, offset: i64) {
        if let Some(target) = self.targets.get_mut(partition as usize) {
            target.offset = target.offset.max(Some(offset));
        }
    }

    pub(super) fn reset_offset(&mut self, partition: u32, offset: i64) {
        if let Some(target) = self.targets.get_mut(partition as usize) {
            target.offset = Some(offset);
        }
    }

    pub(super) fn offsets(&self) -> Vec<(u32, Option<i64>)> {
        (0..).zip(self.targets.iter().map(|target| target.offset)).collect()
    }

    pub(super) const fn is_open(&self) -> bool {
        self.open
    }

    pub(super) fn open(&mut self, ends: &[i64]) {
        self.open = true;
        for (target, end) in self.targets.iter_mut().zip(ends) {
            // The record before the end is the last one that is no news.
            target.offset = target.offset.or(Some(end - 1));
        }
    }

    pub(super) fn close(&mut self) -> bool {
        let quiet = self.open && self.chains().all(|chain| chain.pending.is_empty());
        if quiet {
            self.open = false;
        }
        quiet
    }

    pub(super) fn wants_ends(&self) -> bool {
        self.targets.iter().any(|target| target.offset.is_none())
    }

    /// The first entry of a stream that is on its way or was passed over.
    pub(super) fn oldest(&self, stream: Stream) -> Option<Seq> {
        let place = index(stream);
        let pending = self.targets.iter().filter_map(|target| target.chains[place].pending.front());
        let passed = self.passed[place].map(|(first, _)| first);
        pending.map(|pending| pending.first).chain(passed).min()
    }

    /// The highest live entry that was sent or confirmed.
    pub(super) fn highest_live(&self) -> Seq {
        let live = self.targets.iter().map(|target| &target.chains[index(Stream::Live)]);
        live.map(|chain| chain.acked.max(chain.sent)).max().unwrap_or(Seq::ZERO)
    }

    /// Entries below `below` that are on their way or were passed over; a few too many where the limit
    /// lies among them.
    pub(super) fn unconfirmed_below(&self, below: Seq) -> u64 {
        let pending = self.chains().flat_map(|chain| &chain.pending);
        let open = pending.filter(|pending| pending.first < below && pending.acked_at.is_none());
        let passed = self.passed.iter().flatten().filter(|(first, _)| *first < below);
        open.map(|pending| u64::from(pending.count)).sum::<u64>()
            + passed.map(|(_, count)| count).sum::<u64>()
    }

    pub(super) fn restart(&mut self) {
        self.passed = [None; 2];
        for chain in self.targets.iter_mut().flat_map(|target| &mut target.chains) {
            chain.pending.clear();
            chain.sent = Seq::ZERO;
        }
    }

    /// What was confirmed stops being a reason to skip and stays where chains go on.
    fn forget_mapping(&mut self) {
        for chain in self.targets.iter_mut().flat_map(|target| &mut target.chains) {
            chain.basis = chain.basis.max(chain.acked);
            chain.acked = Seq::ZERO;
        }
        self.previous = 0;
        self.until = Seq::ZERO;
    }

    /// Whether an entry has to wait for those of the old partition count.
    pub(super) fn is_draining(&self, stream: Stream, seq: Seq) -> bool {
        self.previous > 0 && seq > self.until && !self.is_drained(stream)
    }

    /// Whether all entries of a stream that were admitted are confirmed: those of the old partition count
    /// come before those of the new one.
    fn is_drained(&self, stream: Stream) -> bool {
        let place = index(stream);
        // What was passed over below has to go first, too.
        self.passed[place].is_none()
            && self.targets.iter().all(|target| {
                let chain = &target.chains[place];
                chain.pending.front().is_none_or(|pending| pending.first > self.until)
            })
    }

    fn chains(&self) -> impl Iterator<Item = &Chain> {
        self.targets.iter().flat_map(|target| STREAMS.map(|stream| &target.chains[index(stream)]))
    }

    fn chain(&self, partition: u32, stream: Stream) -> Option<&Chain> {
        self.targets.get(partition as usize).map(|target| &target.chains[index(stream)])
    }

    fn chain_mut(&mut self, partition: u32, stream: Stream) -> &mut Chain {
        &mut self.targets[partition as usize].chains[index(stream)]
    }
}

// === impl Chain ===

impl Chain {
    fn is_new(&self, seq: Seq) -> bool {
        seq > self.acked.max(self.sent)
    }

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
}

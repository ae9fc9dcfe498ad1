//! The tracker against a model of the cloud, with random acknowledgements, crashes and replays.

use std::collections::{BTreeMap, VecDeque};

use proptest::prelude::*;

use super::state::StateError;
use super::*;
use crate::uplink::partition::partition;

const TELEMETRY: TopicId = TopicId(0);

fn topics() -> Vec<String> {
    vec!["telemetry".to_owned(), "status".to_owned()]
}

fn chain(partition: u32) -> ChainId {
    chain_of(TELEMETRY, partition, Stream::Live)
}

fn chain_of(topic: TopicId, partition: u32, stream: Stream) -> ChainId {
    ChainId { target: Target { topic, partition }, stream }
}

fn tracker(partitions: u32) -> Tracker {
    let mut tracker = Tracker::new(&topics(), 7, Seq(1), &State::default());
    assert_eq!(tracker.set_partitions(TELEMETRY, partitions, Seq(0)), Ok(Partitions::First));
    tracker
}

fn send(tracker: &mut Tracker, partition: u32, seq: u64) -> u64 {
    match tracker.admit(chain(partition), Seq(seq)) {
        Admit::Send { prev } => prev.0,
        other => panic!("{seq} was not sent but {other:?}"),
    }
}

#[test]
fn low_waits_for_the_slowest_chain() {
    let mut tracker = tracker(2);
    assert_eq!([send(&mut tracker, 0, 1), send(&mut tracker, 1, 2), send(&mut tracker, 0, 3)], [0, 0, 1]);
    assert_eq!(tracker.acked(chain(0), Seq(1), 10), Ack::Advanced);
    assert_eq!(tracker.acked(chain(0), Seq(3), 11), Ack::Advanced);
    assert_eq!(tracker.low(), Seq(2));
    assert_eq!(tracker.acked(chain(1), Seq(2), 5), Ack::Advanced);
    assert_eq!(tracker.low(), Seq(4));
}

#[test]
fn an_early_ack_does_not_move_its_target() {
    let mut tracker = tracker(1);
    send(&mut tracker, 0, 1);
    send(&mut tracker, 0, 2);
    assert_eq!(tracker.acked(chain(0), Seq(2), 1), Ack::Early);
    assert_eq!((tracker.low(), tracker.state().topics[0].targets.len()), (Seq(1), 0));
    assert_eq!(tracker.acked(chain(0), Seq(1), 0), Ack::Advanced);
    assert_eq!((tracker.low(), tracker.state().topics[0].targets[0].chains[0].acked), (Seq(3), Seq(2)));
}

#[test]
fn a_report_about_nothing_in_flight_changes_nothing() {
    let mut tracker = tracker(1);
    assert_eq!(tracker.acked(chain(0), Seq(1), 0), Ack::Unknown);
    assert_eq!(tracker.acked(chain(9), Seq(1), 0), Ack::Unknown);
    assert_eq!(tracker.low(), Seq(1));
}

#[test]
fn replay_skips_what_a_target_has_and_keeps_its_chain() {
    let mut tracker = tracker(2);
    for (partition, seq) in [(0, 1), (1, 2), (0, 3), (0, 5)] {
        send(&mut tracker, partition, seq);
    }
    tracker.acked(chain(0), Seq(1), 0);
    tracker.acked(chain(0), Seq(3), 1);
    assert_eq!(tracker.restart(), Seq(2));
    assert_eq!(tracker.admit(chain(0), Seq(1)), Admit::Skip, "the consumer rewinds further");
    assert_eq!(send(&mut tracker, 1, 2), 0);
    assert_eq!(tracker.admit(chain(0), Seq(3)), Admit::Skip);
    assert_eq!(send(&mut tracker, 0, 5), 3, "the same header as the first time");
}

#[test]
fn what_is_confirmed_in_any_order_is_not_among_the_unconfirmed() {
    let mut tracker = tracker(2);
    for (partition, seq) in [(0, 1), (1, 2), (0, 3), (1, 4), (0, 6)] {
        send(&mut tracker, partition, seq);
    }
    tracker.acked(chain(0), Seq(1), 0);
    tracker.acked(chain(1), Seq(4), 1);
    let check = |below, expected| assert_eq!(tracker.unconfirmed_below(Seq(below)), expected, "{below}");
    check(1, 0);
    check(2, 0);
    check(3, 1);
    check(5, 2);
    check(7, 3);
    // Never sent: 7, 8 and 9.
    check(10, 6);
}

#[test]
fn a_retracted_entry_is_offered_again_with_the_same_header() {
    let mut tracker = tracker(1);
    for (seq, acked) in [(1, false), (2, true), (4, false)] {
        let prev = send(&mut tracker, 0, seq);
        tracker.retract(chain(0), Seq(seq), Seq(prev));
        assert!(tracker.low() <= Seq(seq));
        assert_eq!(send(&mut tracker, 0, seq), prev);
        if acked {
            tracker.acked(chain(0), Seq(1), 0);
            tracker.acked(chain(0), Seq(2), 1);
        }
    }
}

#[test]
fn more_partitions_wait_until_the_old_count_is_drained() {
    let mut tracker = tracker(1);
    send(&mut tracker, 0, 1);
    tracker.restart();
    let grown = tracker.set_partitions(TELEMETRY, 2, Seq(2));
    assert_eq!(grown, Ok(Partitions::Grown { until: Seq(2) }));
    assert_eq!(tracker.partitions_at(TELEMETRY, Seq(2)), Some(1));
    assert_eq!(tracker.partitions_at(TELEMETRY, Seq(3)), Some(2));
    send(&mut tracker, 0, 1);
    send(&mut tracker, 0, 2);
    assert_eq!(tracker.admit(chain(1), Seq(3)), Admit::Drain);
    tracker.acked(chain(0), Seq(1), 0);
    assert_eq!(tracker.admit(chain(1), Seq(3)), Admit::Drain);
    tracker.acked(chain(0), Seq(2), 1);
    assert_eq!(send(&mut tracker, 1, 3), 0);
    assert_eq!(send(&mut tracker, 0, 4), 2, "the chain of a partition goes on across the change");
    assert_eq!(tracker.set_partitions(TELEMETRY, 2, Seq(9)), Ok(Partitions::Same));
}

#[test]
fn other_routes_skip_nothing() {
    let mut old = tracker(1);
    for seq in 1..=3 {
        send(&mut old, 0, seq);
    }
    old.acked(chain(0), Seq(1), 0);
    let mut new = Tracker::new(&topics(), 8, Seq(1), &old.state());
    assert_eq!(send(&mut new, 0, 1), 0, "its own confirmation may be about another topic now");
    assert_eq!(send(&mut new, 0, 2), 1);

    let mut later = Tracker::new(&topics(), 8, Seq(2), &old.state());
    assert_eq!(send(&mut later, 0, 2), 1, "a chain goes on where it can");
}

#[test]
fn a_replay_sends_everything_from_its_position_and_keeps_the_chains() {
    let mut before = tracker(3);
    for (partition, seq) in [(0, 1), (1, 2), (0, 3), (2, 4), (1, 5), (0, 6)] {
        send(&mut before, partition, seq);
        assert_eq!(before.acked(chain(partition), Seq(seq), 0), Ack::Advanced);
    }
    let stored = crate::uplink::replay_state(&before.state().encode(), Seq(5));
    let state = State::decode(&stored).expect("just written");
    let mut again = Tracker::new(&topics(), 7, Seq(5), &state);
    assert_eq!(again.set_partitions(TELEMETRY, 3, Seq(6)), Ok(Partitions::Same));
    assert_eq!(send(&mut again, 1, 5), 0, "confirmed before, and what it followed is not known any more");
    assert_eq!(send(&mut again, 0, 6), 0);
    assert_eq!(send(&mut again, 2, 7), 4, "this partition has nothing to repeat");
    assert_eq!(send(&mut again, 0, 8), 6);
    // Without it, the tracker would take the replay for something done.
    let mut unaware = Tracker::new(&topics(), 7, Seq(5), &before.state());
    assert_eq!(unaware.set_partitions(TELEMETRY, 3, Seq(6)), Ok(Partitions::Same));
    assert_eq!(unaware.admit(chain(1), Seq(5)), Admit::Skip);
    // A chain goes on where it ended even if its partition gets nothing of the replay.
    let stored = crate::uplink::replay_state(&before.state().encode(), Seq(4));
    let state = State::decode(&stored).expect("just written");
    let mut rerouted = Tracker::new(&topics(), 7, Seq(4), &state);
    assert_eq!(rerouted.set_partitions(TELEMETRY, 3, Seq(6)), Ok(Partitions::Same));
    assert_eq!(send(&mut rerouted, 2, 7), 4);
    assert_eq!(crate::uplink::replay_state(b"junk", Seq(1)), Vec::<u8>::new());
}

#[test]
fn a_topic_made_anew_skips_nothing() {
    let mut tracker = tracker(2);
    send(&mut tracker, 1, 1);
    send(&mut tracker, 0, 2);
    tracker.acked(chain(0), Seq(2), 0);
    tracker.restart();
    assert_eq!(tracker.set_partitions(TELEMETRY, 1, Seq(2)), Ok(Partitions::Shrunk));
    assert_eq!(send(&mut tracker, 0, 1), 0);
    assert_eq!(send(&mut tracker, 0, 2), 1);
}

#[test]
fn a_count_does_not_shrink_under_records_in_flight() {
    let mut tracker = tracker(2);
    send(&mut tracker, 1, 1);
    assert_eq!(tracker.set_partitions(TELEMETRY, 1, Seq(1)), Ok(Partitions::Busy));
    assert_eq!((tracker.low(), tracker.partition_count(TELEMETRY)), (Seq(1), 2));
    tracker.acked(chain(1), Seq(1), 0);
    assert_eq!(tracker.set_partitions(TELEMETRY, 1, Seq(1)), Ok(Partitions::Shrunk));
}

#[test]
fn counts_out_of_range_are_refused() {
    let mut tracker = tracker(1);
    assert_eq!(tracker.set_partitions(TELEMETRY, 0, Seq(0)), Err(BadCount(0)));
    assert_eq!(tracker.set_partitions(TELEMETRY, 1025, Seq(0)), Err(BadCount(1025)));
    assert_eq!(tracker.partition_count(TELEMETRY), 1);
}

#[test]
fn topics_no_longer_routed_to_keep_their_place_in_the_state() {
    let mut old = tracker(1);
    send(&mut old, 0, 1);
    old.acked(chain(0), Seq(1), 4);
    let mut other = Tracker::new(&["else".to_owned()], 9, Seq(2), &old.state());
    let mut back = Tracker::new(&topics(), 7, Seq(2), &other.state());
    assert_eq!(back.state().topics[0].targets[0].chains[0].basis, Seq(1));
}

// What the cloud holds, and a gateway that crashes.

#[derive(Debug, Clone)]
enum Step {
    /// Offer the next entries of a stream.
    Feed(u8),
    FeedBacklog(u8),
    /// The broker appends the oldest record in flight of some chain.
    Append(u8),
    /// The gateway hears of the oldest unheard append of some chain.
    Hear(u8),
    /// Progress becomes durable.
    Save,
    /// The producer is rebuilt; what the dead one had in flight may still have been appended.
    Rebuild(u8),
    /// The process dies.
    Crash(u8),
    /// The topic has one more partition when the process comes back.
    Grow,
    /// A topic takes nothing for a while.
    Hold(u8),
    Release(u8),
    /// What waits becomes backlog, up to so many entries ahead.
    Split(u8),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (1u8..6).prop_map(Step::Feed),
        4 => (1u8..6).prop_map(Step::FeedBacklog),
        12 => any::<u8>().prop_map(Step::Append),
        12 => any::<u8>().prop_map(Step::Hear),
        3 => Just(Step::Save),
        1 => any::<u8>().prop_map(Step::Rebuild),
        1 => any::<u8>().prop_map(Step::Crash),
        1 => Just(Step::Grow),
        1 => (0u8..2).prop_map(Step::Hold),
        2 => (0u8..2).prop_map(Step::Release),
        1 => (1u8..20).prop_map(Step::Split),
    ]
}

/// Topic, partition and stream.
type Key = (u16, u32, usize);

struct World {
    entries: Vec<(TopicId, [u8; 2])>,
    partitions: u32,
    tracker: Tracker,
    saved: (Seq, State),
    held: [bool; 2],
    /// The tail is read after an end that leaves doubt.
    reads_tail: bool,
    /// Several entries share a record where that is possible.
    packs: bool,
    /// Sent and not appended, appended and not heard: last seq, prev and entries; per chain, in order.
    in_flight: BTreeMap<Key, VecDeque<(Seq, Seq, Vec<Seq>)>>,
    unheard: BTreeMap<Key, VecDeque<(Seq, i64)>>,
    /// Entries as appended, with their prev.
    logs: BTreeMap<Key, Vec<(Seq, Seq)>>,
    /// Records per partition, for offsets.
    offsets: BTreeMap<(u16, u32), Vec<(usize, Seq)>>,
    duplicates: usize,
}

impl World {
    fn new(entries: Vec<(u16, [u8; 2])>, reads_tail: bool, packs: bool) -> Self {
        let mut world = Self {
            entries: entries.into_iter().map(|(topic, key)| (TopicId(topic % 2), key)).collect(),
            partitions: 2,
            tracker: Tracker::new(&topics(), 7, Seq(1), &State::default()),
            saved: (Seq(1), State::default()),
            held: [false; 2],
            reads_tail,
            packs,
            in_flight: BTreeMap::new(),
            unheard: BTreeMap::new(),
            logs: BTreeMap::new(),
            offsets: BTreeMap::new(),
            duplicates: 0,
        };
        world.start_session();
        world
    }

    fn head(&self) -> Seq {
        Seq(u64::try_from(self.entries.len()).unwrap())
    }

    fn start_session(&mut self) {
        self.held = [false; 2];
        for topic in [TopicId(0), TopicId(1)] {
            self.tracker.set_partitions(topic, self.partitions, self.head()).unwrap();
            if self.reads_tail {
                self.read_tail(topic);
            } else if self.tracker.is_open(topic) {
                self.tracker.doubt(self.head());
            }
            let ends: Vec<i64> = (0..self.partitions).map(|partition| self.end(topic, partition)).collect();
            self.tracker.open(topic, &ends);
        }
        // A grown count, and that records are about to be sent, becomes durable before they are.
        self.save();
    }

    fn end(&self, topic: TopicId, partition: u32) -> i64 {
        self.offsets.get(&(topic.0, partition)).map_or(0, |log| i64::try_from(log.len()).unwrap())
    }

    fn read_tail(&mut self, topic: TopicId) {
        if !self.tracker.is_open(topic) {
            return;
        }
        for (partition, offset) in self.tracker.offsets(topic) {
            let from = usize::try_from(offset.expect("ends were known when it was opened") + 1).unwrap();
            let log = self.offsets.get(&(topic.0, partition)).cloned().unwrap_or_default();
            for (offset, (stream, seq)) in log.iter().enumerate().skip(from) {
                let chain = chain_of(topic, partition, STREAMS[*stream]);
                self.tracker.found(chain, *seq, i64::try_from(offset).unwrap());
            }
        }
    }

    fn save(&mut self) {
        let low = self.tracker.low();
        assert!(low >= self.saved.0, "progress only moves forward");
        for (entry, (topic, _)) in self.entries.iter().enumerate().take(usize::try_from(low.0 - 1).unwrap()) {
            let seq = Seq(u64::try_from(entry + 1).unwrap());
            let landed = self
                .logs
                .iter()
                .any(|(key, log)| key.0 == topic.0 && log.iter().any(|(appended, _)| *appended == seq));
            assert!(landed, "{seq} is below low {low} and nowhere in the cloud");
        }
        let stored = State::decode(&self.tracker.state().encode()).expect("it was encoded here");
        assert_eq!(stored, self.tracker.state());
        self.saved = (low, stored);
    }

    fn feed_some(&mut self, stream: Stream, count: u8) {
        for _ in 0..count {
            if !self.feed(stream) {
                return;
            }
        }
    }

    fn feed(&mut self, stream: Stream) -> bool {
        let Some(position) = self.tracker.position(stream) else { return false };
        let Some((seq, _)) = self.tracker.run(stream, position) else { return false };
        assert_eq!(seq, position, "the position belongs to its stream");
        let Some((topic, key)) = self.entries.get(usize::try_from(seq.0 - 1).unwrap()).copied() else {
            return false;
        };
        if self.held[usize::from(topic.0)] {
            self.tracker.pass(topic, stream, seq);
            return true;
        }
        let count = self.tracker.partitions_at(topic, seq).expect("set at the start");
        let partition = partition(&key, count);
        let chain = chain_of(topic, partition, stream);
        let queue = self.in_flight.entry((topic.0, partition, index(stream))).or_default();
        if self.packs
            && key[0].is_multiple_of(2)
            && self.tracker.is_new(chain, seq)
            && let Some((last, _, entries)) = queue.back_mut()
        {
            self.tracker.extend(chain, seq);
            *last = seq;
            entries.push(seq);
            return true;
        }
        match self.tracker.admit(chain, seq) {
            Admit::Send { prev } => {
                queue.push_back((seq, prev, vec![seq]));
                true
            }
            Admit::Skip => true,
            Admit::Drain => false,
        }
    }

    /// Lets the broker append the oldest record in flight of the `pick`th busy chain.
    fn append(&mut self, pick: u8) -> bool {
        let busy: Vec<Key> = self.in_flight.iter().filter(|(_, q)| !q.is_empty()).map(|(k, _)| *k).collect();
        let Some(key) = busy.get(usize::from(pick) % busy.len().max(1)) else { return false };
        let (last, prev, entries) = self.in_flight.get_mut(key).unwrap().pop_front().unwrap();
        let log = self.logs.entry(*key).or_default();
        let mut prev = prev;
        for seq in entries {
            self.duplicates += usize::from(log.iter().any(|(known, _)| *known == seq));
            log.push((seq, prev));
            prev = seq;
        }
        let records = self.offsets.entry((key.0, key.1)).or_default();
        let offset = i64::try_from(records.len()).unwrap();
        records.push((key.2, last));
        self.unheard.entry(*key).or_default().push_back((last, offset));
        true
    }

    fn hear(&mut self, pick: u8) -> bool {
        // A partition's reports come in the order of its records, whatever their chain.
        let mut first: BTreeMap<(u16, u32), (i64, Key)> = BTreeMap::new();
        for (key, queue) in &self.unheard {
            if let Some((_, offset)) = queue.front() {
                let oldest = first.entry((key.0, key.1)).or_insert((*offset, *key));
                *oldest = (*oldest).min((*offset, *key));
            }
        }
        let busy: Vec<Key> = first.values().map(|(_, key)| *key).collect();
        let Some(key) = busy.get(usize::from(pick) % busy.len().max(1)) else { return false };
        let (seq, offset) = self.unheard.get_mut(key).unwrap().pop_front().unwrap();
        let chain = chain_of(TopicId(key.0), key.1, STREAMS[key.2]);
        assert_eq!(self.tracker.acked(chain, seq, offset), Ack::Advanced);
        true
    }

    /// The producer dies: some of what it had in flight is appended, in order, and nobody hears of it.
    fn lose_producer(&mut self, mut luck: u8) {
        while luck > 100 && self.append(luck) {
            luck -= 25;
        }
        self.in_flight.clear();
        self.unheard.clear();
    }

    fn step(&mut self, step: &Step) {
        match *step {
            Step::Feed(count) => self.feed_some(Stream::Live, count),
            Step::FeedBacklog(count) => self.feed_some(Stream::Backlog, count),
            Step::Append(pick) => drop(self.append(pick)),
            Step::Hear(pick) => drop(self.hear(pick)),
            Step::Save => self.save(),
            Step::Rebuild(luck) => {
                self.lose_producer(luck);
                self.tracker.restart();
                self.start_session();
            }
            Step::Crash(luck) => {
                self.lose_producer(luck);
                self.tracker = Tracker::new(&topics(), 7, self.saved.0, &self.saved.1);
                self.start_session();
            }
            Step::Grow => {
                self.partitions = (self.partitions + 1).min(5);
                self.step(&Step::Crash(200));
            }
            Step::Hold(topic) => self.held[usize::from(topic)] = true,
            Step::Release(topic) => {
                self.held[usize::from(topic)] = false;
                self.tracker.release(TopicId(topic.into()));
            }
            Step::Split(ahead) => {
                let Some(next) = self.tracker.position(Stream::Live) else { return };
                let end = Seq((next.0 + u64::from(ahead)).min(self.head().0 + 1));
                if self.tracker.split(end) {
                    self.save();
                }
            }
        }
    }

    fn finish(&mut self) {
        self.held = [false; 2];
        for topic in [TopicId(0), TopicId(1)] {
            self.tracker.release(topic);
        }
        let mut rounds = 0;
        while self.tracker.low() <= self.head() {
            self.feed_some(Stream::Live, 1);
            self.feed_some(Stream::Backlog, 1);
            self.append(0);
            self.hear(0);
            rounds += 1;
            assert!(rounds < 10_000, "it never comes to an end");
        }
        self.save();
    }

    /// Each partition alone proves that nothing is missing and nothing out of order.
    fn judge(&self) {
        let mut found = vec![false; self.entries.len()];
        for (key, log) in &self.logs {
            let mut seen: BTreeMap<Seq, Seq> = BTreeMap::new();
            for (seq, prev) in log {
                found[usize::try_from(seq.0 - 1).unwrap()] = true;
                let newest = seen.keys().next_back().copied().unwrap_or(Seq::ZERO);
                match seen.get(seq) {
                    Some(first) => assert_eq!(first, prev, "{key:?}: a repeat of {seq} has the same header"),
                    None => assert_eq!(*prev, newest, "{key:?}: the chain breaks at {seq}"),
                }
                seen.insert(*seq, *prev);
            }
        }
        assert!(found.iter().all(|found| *found), "every entry is somewhere: {found:?}");
    }
}

proptest! {
    #[test]
    fn nothing_is_skipped_unconfirmed_and_no_chain_breaks(
        entries in prop::collection::vec((0u16..2, any::<[u8; 2]>()), 1..60),
        steps in prop::collection::vec(step(), 0..200),
        reads_tail: bool,
        packs: bool,
    ) {
        let mut world = World::new(entries, reads_tail, packs);
        for step in &steps {
            world.step(step);
        }
        world.finish();
        world.judge();
        prop_assert!(!reads_tail || world.duplicates == 0, "{} duplicates", world.duplicates);
    }

    #[test]
    fn other_routes_lose_nothing(
        entries in prop::collection::vec((0u16..2, any::<[u8; 2]>()), 1..40),
        steps in prop::collection::vec(step(), 0..60),
        more in prop::collection::vec(step(), 0..60),
    ) {
        let mut world = World::new(entries, false, false);
        let plain = |step: &&Step| !matches!(step, Step::Grow | Step::Split(_) | Step::Hold(_));
        for step in steps.iter().filter(plain) {
            world.step(step);
        }
        world.lose_producer(200);
        // From here on the two kinds of entries go to each other's topic. Only what is new is judged:
        // everything at or above the durable position must arrive in its new topic.
        for (topic, _) in &mut world.entries {
            topic.0 = 1 - topic.0;
        }
        let low = world.saved.0;
        let before = std::mem::take(&mut world.logs);
        world.tracker = Tracker::new(&topics(), 8, low, &world.saved.1);
        world.logs = before.iter().map(|(key, log)| ((1 - key.0, key.1, key.2), log.clone())).collect();
        world.start_session();
        world.logs.retain(|_, log| { log.retain(|(seq, _)| *seq < low); true });
        let mut fresh = World { saved: (low, world.saved.1.clone()), ..world };
        for step in more.iter().filter(|step| matches!(step, Step::Feed(_) | Step::Append(_) | Step::Hear(_))) {
            fresh.step(step);
        }
        fresh.finish();
    }

    #[test]
    fn stored_progress_has_one_spelling_and_junk_is_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        if let Ok(state) = State::decode(&bytes) && bytes.first() == Some(&2) {
            prop_assert_eq!(state.encode(), bytes);
        }
    }
}

#[test]
fn damaged_progress_is_refused() {
    let mut tracker = tracker(3);
    send(&mut tracker, 2, 1);
    tracker.acked(chain(2), Seq(1), 9);
    let good = tracker.state().encode();
    assert_eq!(State::decode(&good), Ok(tracker.state()));
    for length in 1..good.len() {
        assert!(State::decode(&good[..length]).is_err(), "cut at {length}");
    }
    let mut longer = good.clone();
    longer.push(0);
    assert_eq!(State::decode(&longer), Err(StateError::Bad("length")));
    let mut newer = good;
    newer[0] = 3;
    assert_eq!(State::decode(&newer), Err(StateError::Version(3)));
}

//! Random operations with crashes, damage and a full disk, against what must hold whatever happens:
//! what was acknowledged is there, in order, under a position that never changes, or it was said
//! to be gone.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::super::{OnFull, Segment};
use super::memory::Fault;
use super::*;

#[derive(Debug, Clone)]
enum Step {
    /// Appends entries, and waits for them.
    Append(Lane, usize),
    /// Reads up to so many segments of telemetry and confirms so many of them.
    Consume(usize, usize),
    Rewind,
    /// The next write fails.
    Fail(Fault),
    Restart,
    /// The process is killed and what was not synced is gone.
    PowerCut,
    /// One bit of a stored segment of telemetry flips; which one is a share of all there are.
    FlipBit(u8, usize),
    /// The process is killed, and the database gives up the last segments of telemetry although
    /// its log still has them, or has not.
    LoseTail(usize, bool),
}

fn any_step() -> impl Strategy<Value = Step> {
    let lane = prop_oneof![4 => Just(Lane::Telemetry), 1 => Just(Lane::Alerts)];
    let fault = prop_oneof![Just(Fault::Lost), Just(Fault::Kept), Just(Fault::NoSpace)];
    prop_oneof![
        10 => (lane, 1_usize..6).prop_map(|(lane, count)| Step::Append(lane, count)),
        4 => (0_usize..4, 0_usize..4).prop_map(|(read, confirm)| Step::Consume(read, confirm)),
        1 => Just(Step::Rewind),
        1 => fault.prop_map(Step::Fail),
        1 => Just(Step::Restart),
        1 => Just(Step::PowerCut),
        1 => (any::<u8>(), any::<usize>()).prop_map(|(which, bit)| Step::FlipBit(which, bit)),
        1 => (1_usize..4, any::<bool>()).prop_map(|(count, kept)| Step::LoseTail(count, kept)),
    ]
}

/// A quota that a few dozen entries fill.
const QUOTA: u64 = 4000;

struct Model {
    running: Option<Running>,
    consumer: Option<Consumer>,
    drops: bool,
    /// Payloads of telemetry that were acknowledged, in order.
    acked: Vec<String>,
    submitted: usize,
    /// Payloads read by the consumer, by position: a position never changes its entry.
    seen: BTreeMap<u64, String>,
    /// Payloads in segments that were damaged or lost.
    damaged: BTreeSet<String>,
    /// What the outbox itself said, by the id of the event.
    said: BTreeMap<String, serde_json::Value>,
    /// Highest confirmed position so far.
    low: u64,
}

impl Model {
    fn new(drops: bool) -> Self {
        let running = Running::with(|config| Self::configure(config, drops));
        let consumer = Some(running.consumer(Lane::Telemetry));
        let (acked, seen, damaged, said) = Default::default();
        Self { running: Some(running), consumer, drops, acked, submitted: 0, seen, damaged, said, low: 1 }
    }

    fn configure(config: &mut Config, drops: bool) {
        config.tail_cache_bytes = 2000;
        if drops {
            config.on_full = OnFull::DropOldest;
            config.bytes_max = QUOTA;
        }
    }

    fn running(&self) -> &Running {
        self.running.as_ref().expect("it runs between steps")
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Append(lane, count) => self.append(lane, count),
            Step::Consume(read, confirm) => self.consume(read, confirm),
            Step::Rewind => self.consumer.as_mut().expect("there is one").rewind(),
            Step::Fail(fault) => self.running().memory.fail_writes(&[fault]),
            Step::Restart => self.restart(false, |_| ()),
            Step::PowerCut => self.restart(true, |_| ()),
            Step::FlipBit(which, bit) => self.flip_bit(which, bit),
            Step::LoseTail(count, kept) => self.lose_tail(count, kept),
        }
    }

    fn append(&mut self, lane: Lane, count: usize) {
        let payloads: Vec<String> = (0..count).map(|n| (self.submitted + n).to_string()).collect();
        self.submitted += count;
        let payloads: Vec<&str> = payloads.iter().map(String::as_str).collect();
        let entries = encoded(lane, &payloads);
        self.hear();
        let Some(permit) = self.reserve(lane, entries.bytes()) else { return };
        let outbox = &self.running().outbox;
        let done = Arc::default();
        let ticket = outbox.appender().submit(permit, &entries, &done);
        if wait_durable(&done, ticket).is_ok() && lane == Lane::Telemetry {
            self.acked.extend(payloads.into_iter().map(str::to_owned));
        }
    }

    /// Room, as soon as there is some. A consumer that is asked to let entries go answers.
    fn reserve(&self, lane: Lane, bytes: usize) -> Option<super::super::Permit> {
        let outbox = &self.running().outbox;
        let consumer = self.consumer.as_ref().expect("there is one");
        wait_until(outbox, "room", || {
            if let Some(below) = consumer.drop_request() {
                consumer.answer_drop(below, below.0.saturating_sub(consumer.progress().0.0));
            }
            outbox.appender().reserve(lane, 1).is_ok()
        });
        // A fault that waits may hit progress first and refuse the permit just granted; without
        // dropping, the quota may be reached.
        outbox.appender().reserve(lane, bytes).ok()
    }

    fn consume(&mut self, read: usize, confirm: usize) {
        let mut ends = Vec::new();
        for _ in 0..read {
            let Some(segment) = self.next_segment() else { break };
            for (Seq(seq), record) in segment.records() {
                let payload = String::from_utf8(record.payload.to_vec()).expect("digits");
                let before = self.seen.insert(seq, payload.clone());
                assert!(before.is_none_or(|before| before == payload), "position {seq} changed its entry");
            }
            ends.push(segment.last().next());
        }
        if let Some(end) = ends.get(confirm) {
            let consumer = self.consumer.as_mut().expect("there is one");
            consumer.commit(*end, end.0.to_le_bytes().to_vec());
        }
        self.low = self.low.max(self.consumer.as_ref().expect("there is one").progress().0.0);
    }

    /// The next segment; damage in the way becomes a hole soon.
    fn next_segment(&mut self) -> Option<Arc<Segment>> {
        let consumer = self.consumer.as_mut().expect("there is one");
        let deadline = clock::now() + PATIENCE;
        loop {
            match consumer.try_next(1) {
                Ok(next) => return next,
                Err(error) => assert!(clock::now() < deadline, "{error}"),
            }
            let outbox = &self.running.as_ref().expect("it runs").outbox;
            let count = outbox.wait_commit(u64::MAX, Duration::ZERO);
            std::hint::black_box(outbox.wait_commit(count, Duration::from_millis(5)));
        }
    }

    fn flip_bit(&mut self, which: u8, bit: usize) {
        let memory = self.running().memory.clone();
        let stored = memory.stored(Lane::Telemetry);
        let Some((first, bytes)) = stored.get(usize::from(which) % stored.len().max(1)) else { return };
        self.note_damaged(*first, bytes);
        memory.damage(Lane::Telemetry, *first, |mut bytes| {
            let at = bit % (bytes.len() * 8);
            bytes[at / 8] ^= 1 << (at % 8);
            Some(bytes)
        });
    }

    fn lose_tail(&mut self, count: usize, kept: bool) {
        let memory = self.running().memory.clone();
        if !kept {
            for (first, bytes) in memory.stored(Lane::Telemetry).iter().rev().take(count) {
                self.note_damaged(*first, bytes);
            }
        }
        self.restart(false, |memory| {
            memory.keep_for_salvage();
            memory.lose_tail(Lane::Telemetry, count);
            if !kept {
                memory.lose_salvage();
            }
        });
    }

    fn note_damaged(&mut self, first: Seq, bytes: &[u8]) {
        // What was damaged before is noted already.
        let Ok(segment) = Segment::decode_at(Lane::Telemetry, first, bytes) else { return };
        let payloads =
            segment.records().map(|(_, record)| String::from_utf8_lossy(record.payload).into_owned());
        self.damaged.extend(payloads);
    }

    fn restart(&mut self, power_cut: bool, damage: impl FnOnce(&Memory)) {
        self.consumer = None;
        let running = self.running.take().expect("it runs");
        let (directory, memory) = (Arc::clone(&running.directory), running.memory.clone());
        if power_cut {
            memory.die();
        }
        close(&running.outbox);
        memory.revive_after_power_cut_if(power_cut);
        drop(running);
        damage(&memory);
        let drops = self.drops;
        let again = Running::again(directory, memory, |config| Self::configure(config, drops));
        let again = again.expect("it goes on behind whatever is missing");
        let consumer = again.consumer(Lane::Telemetry);
        let (Seq(low), state) = consumer.progress();
        assert!(
            state.is_empty() || low >= self.low_of(state),
            "the state belongs to this position or an earlier one"
        );
        self.low = self.low.max(low);
        self.consumer = Some(consumer);
        self.running = Some(again);
    }

    fn low_of(&self, state: &[u8]) -> u64 {
        let low = u64::from_le_bytes(state.try_into().expect("eight bytes"));
        assert!(low <= self.low, "progress never runs ahead");
        low
    }

    /// Reads and confirms the lanes that are never dropped, or they fill the quota.
    fn hear(&mut self) {
        for lane in [Lane::Alerts, Lane::Status] {
            let mut consumer = self.running.as_ref().expect("it runs").consumer(lane);
            let mut end = consumer.progress().0;
            while let Some(segment) = consumer.try_next(1 << 20).expect("readable") {
                end = segment.last().next();
                for event in segment.records().map(|(_, record)| serde_json::from_slice(record.payload)) {
                    let event: serde_json::Value = event.expect("JSON");
                    self.said.extend(event["id"].as_str().map(|id| (id.to_owned(), event.clone())));
                }
            }
            consumer.commit(end, end.0.to_le_bytes().to_vec());
        }
    }

    /// Positions that the outbox said are gone, and how many entries it said it dropped.
    fn announced(&self) -> (BTreeSet<u64>, usize) {
        let (mut positions, mut dropped) = (BTreeSet::new(), 0);
        let mut add = |range: &serde_json::Value| {
            if range["lane"] == "telemetry" {
                positions.extend(range["first"].as_u64().unwrap()..=range["last"].as_u64().unwrap());
            }
        };
        for event in self.said.values() {
            let data = &event["data"];
            data["ranges"].as_array().into_iter().flatten().for_each(&mut add);
            add(&data["range"]);
            dropped += data["dropped"].as_u64().map_or(0, |dropped| usize::try_from(dropped).unwrap());
        }
        (positions, dropped)
    }

    /// Everything acknowledged is there, in order, or was said to be gone.
    fn finish(mut self) {
        self.running().memory.revive_after_power_cut_if(false);
        self.restart(false, |_| ());
        self.consume(usize::MAX, usize::MAX);
        self.hear();
        let (announced, dropped) = self.announced();
        let next = self.running().outbox.status().lanes[Lane::Telemetry.index()].next.0;
        let silent = (1..next).filter(|seq| !self.seen.contains_key(seq) && !announced.contains(seq));
        assert_eq!(silent.collect::<Vec<_>>(), Vec::<u64>::new(), "positions that went without a word");
        let mut seen = self.seen.values().peekable();
        let mut absent = 0;
        for acked in &self.acked {
            let found = self.seen.values().any(|payload| payload == acked);
            if found {
                assert!(seen.any(|payload| payload == acked), "{acked} is out of order");
            } else if !self.damaged.contains(acked) {
                absent += 1;
            }
        }
        assert!(absent <= dropped, "{absent} acknowledged entries are missing, {dropped} were dropped");
        self.consumer = None;
        let broken = self.running().memory.broken_rules();
        close(&self.running().outbox);
        assert_eq!(broken, Vec::<String>::new());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, max_shrink_iters: 30, ..ProptestConfig::default() })]

    #[test]
    fn nothing_acknowledged_is_lost_or_reordered(
        drops in any::<bool>(),
        steps in prop::collection::vec(any_step(), 1..40),
    ) {
        let mut model = Model::new(drops);
        steps.into_iter().for_each(|step| model.step(step));
        model.finish();
    }
}

//! Random operations with crashes, damage and a full disk, against what must hold whatever happens:
//! what was acknowledged is there, in order, under a position that never changes, or it was said
//! to be gone; and the outputs of a commit are there exactly where its progress is.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::super::{Cursor, Error, OnFull, Segment};
use super::memory::Fault;
use super::*;

#[derive(Debug, Clone)]
enum Step {
    /// Appends entries, and waits for them.
    Append(Lane, usize),
    /// Changes state alone, and waits for it.
    Note(Urgency),
    /// Reads up to so many segments of telemetry and confirms so many of them.
    Consume(usize, usize),
    /// Sends one of the cursors to a share of what there is, and reads up to so many segments.
    Look(usize, u8, usize),
    /// Confirms so many of the entries that were read with an output in lane `status`, and waits
    /// for it or not.
    Conclude(u64, bool),
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
        3 => prop_oneof![Just(Urgency::Relaxed), Just(Urgency::Prompt)].prop_map(Step::Note),
        4 => (0_usize..4, 0_usize..4).prop_map(|(read, confirm)| Step::Consume(read, confirm)),
        3 => (0..CURSORS, any::<u8>(), 0_usize..4).prop_map(|(which, at, read)| Step::Look(which, at, read)),
        4 => (0_u64..6, any::<bool>()).prop_map(|(confirm, wait)| Step::Conclude(confirm, wait)),
        1 => Just(Step::Rewind),
        1 => fault.prop_map(Step::Fail),
        1 => Just(Step::Restart),
        1 => Just(Step::PowerCut),
        1 => (any::<u8>(), any::<usize>()).prop_map(|(which, bit)| Step::FlipBit(which, bit)),
        1 => (1_usize..4, any::<bool>()).prop_map(|(count, kept)| Step::LoseTail(count, kept)),
    ]
}

/// Cursors beside the consumer's own position.
const CURSORS: usize = 2;
/// A quota that a few dozen entries fill.
const QUOTA: u64 = 4000;

struct Model {
    running: Option<Running>,
    consumer: Option<Consumer>,
    cursors: Vec<Cursor>,
    /// Where the commits with outputs of this consumer end.
    done: Arc<Completion>,
    /// Those whose end is not known: ticket, number and position.
    concluding: Vec<(Ticket, usize, u64)>,
    concluded: usize,
    /// Number and position of commits with outputs that were durable.
    durable: BTreeMap<usize, u64>,
    /// Those that were said to have failed.
    failed: BTreeSet<usize>,
    drops: bool,
    /// Payloads of telemetry that were acknowledged, in order.
    acked: Vec<String>,
    submitted: usize,
    /// The first payload of each submission, which is also a key of the state submitted with it.
    marked: BTreeSet<String>,
    /// What state alone was set to last, and what of it no power cut undoes and no death at all.
    noted: [u64; 3],
    /// Payloads read by the consumer, by position: a position never changes its entry.
    seen: BTreeMap<u64, String>,
    /// Payloads in segments that were damaged or lost.
    damaged: BTreeSet<String>,
    /// What the outbox itself said, by the id of the event.
    said: BTreeMap<String, serde_json::Value>,
    /// Positions that this consumer or its cursors handed out.
    handed: BTreeSet<u64>,
    /// Where the outputs of commits stand in lane `status`, by number.
    outputs: BTreeMap<usize, BTreeSet<u64>>,
    /// Highest confirmed position so far.
    low: u64,
}

impl Model {
    fn new(drops: bool) -> Self {
        let running = Running::with(|config| Self::configure(config, drops));
        let (acked, seen, damaged, said, handed, outputs) = Default::default();
        let (concluding, durable, failed) = Default::default();
        let mut model = Self {
            running: Some(running),
            consumer: None,
            cursors: Vec::new(),
            done: Arc::default(),
            concluding,
            concluded: 0,
            durable,
            failed,
            drops,
            acked,
            submitted: 0,
            marked: BTreeSet::new(),
            noted: [0; 3],
            seen,
            damaged,
            said,
            handed,
            outputs,
            low: 1,
        };
        model.begin();
        model
    }

    /// A new consumer and its cursors.
    fn begin(&mut self) {
        let consumer = self.running().consumer(Lane::Telemetry);
        self.cursors = (0..CURSORS).map(|_| consumer.cursor(Seq(1))).collect();
        self.consumer = Some(consumer);
        self.done = Arc::default();
        self.handed.clear();
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
            Step::Note(urgency) => self.note(urgency),
            Step::Consume(read, confirm) => self.consume(read, confirm),
            Step::Look(which, at, read) => self.look(which, at, read),
            Step::Conclude(confirm, wait) => self.conclude(confirm, wait),
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
        let (done, mark) = (Arc::default(), format!("mark {}", payloads[0]));
        let state = changes(&[(&mark, Some(lane.name()))]);
        let ticket = outbox.appender().submit(permit, &entries, &state, &done);
        self.marked.insert(payloads[0].to_owned());
        if wait_durable(&done, ticket).is_ok() && lane == Lane::Telemetry {
            self.acked.extend(payloads.into_iter().map(str::to_owned));
        }
    }

    fn note(&mut self, urgency: Urgency) {
        let [last, synced, written] = &mut self.noted;
        *last += 1;
        let (done, value) = (Arc::default(), last.to_string());
        let appender = self.running.as_ref().expect("it runs").outbox.appender();
        let ticket = appender.submit_state(&changes(&[("note", Some(&value))]), urgency, &done);
        if wait_durable(&done, ticket).is_ok() {
            *written = *last;
            if urgency == Urgency::Prompt {
                *synced = *last;
            }
        }
    }

    /// State is there exactly where the entries are that it was submitted with.
    fn check_state(&mut self, power_cut: bool) {
        let outbox = &self.running.as_ref().expect("it runs").outbox;
        let note = state_of(outbox, "note").first().map_or(0, |(_, value)| value.parse().expect("a number"));
        let [last, synced, written] = self.noted;
        let least = if power_cut { synced } else { written };
        assert!((least..=last).contains(&note), "the state is {note} and not within {least} and {last}");
        self.noted = [last, note, note];
        let marks: BTreeMap<String, String> = state_of(outbox, "mark ")
            .into_iter()
            .map(|(key, lane)| (key.replacen("mark ", "", 1), lane))
            .collect();
        let memory = &self.running.as_ref().expect("it runs").memory;
        let mut stored = BTreeSet::new();
        for lane in [Lane::Telemetry, Lane::Alerts] {
            for (first, bytes) in memory.stored(lane) {
                let Ok(segment) = Segment::decode_at(lane, first, &bytes) else { continue };
                let payloads =
                    segment.records().map(|(_, record)| String::from_utf8_lossy(record.payload).into_owned());
                stored.extend(payloads.filter(|payload| self.marked.contains(payload)));
            }
        }
        let without: Vec<_> = stored.iter().filter(|payload| !marks.contains_key(*payload)).collect();
        assert!(without.is_empty(), "entries without their state: {without:?}");
        // An entry of telemetry that is neither stored nor was read, damaged or dropped was never written.
        let known: BTreeSet<&String> =
            stored.iter().chain(self.seen.values()).chain(&self.damaged).chain(&self.acked).collect();
        let telemetry = marks.iter().filter(|(_, lane)| *lane == Lane::Telemetry.name());
        let alone: Vec<_> = telemetry.filter(|(payload, _)| !known.contains(payload)).collect();
        assert!(alone.is_empty() || self.drops, "state without its entries: {alone:?}");
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
            self.note_seen(&segment);
            ends.push(segment.last().next());
        }
        if let Some(end) = ends.get(confirm) {
            let state = self.state(end.0);
            self.consumer.as_mut().expect("there is one").commit(*end, state);
        }
        self.low = self.low.max(self.consumer.as_ref().expect("there is one").progress().0.0);
    }

    fn note_seen(&mut self, segment: &Segment) {
        for (Seq(seq), record) in segment.records() {
            let payload = String::from_utf8(record.payload.to_vec()).expect("digits");
            let before = self.seen.insert(seq, payload.clone());
            assert!(before.is_none_or(|before| before == payload), "position {seq} changed its entry");
            self.handed.insert(seq);
        }
    }

    /// The next segment; damage in the way becomes a hole soon.
    fn next_segment(&mut self) -> Option<Arc<Segment>> {
        let consumer = self.consumer.as_mut().expect("there is one");
        patiently(&self.running.as_ref().expect("it runs").outbox, || consumer.try_next(1))
    }

    fn look(&mut self, which: usize, at: u8, read: usize) {
        let outbox = self.running().outbox.clone();
        let (low, next) = (self.low, outbox.status().lanes[Lane::Telemetry.index()].next.0);
        let to = low + (next.saturating_sub(low)) * u64::from(at) / 255;
        self.cursors[which].seek(Seq(to));
        for _ in 0..read {
            let cursor = &mut self.cursors[which];
            let Some(segment) = patiently(&outbox, || cursor.try_next(1)) else { break };
            assert!(segment.last() >= Seq(to), "it holds the position or lies behind it");
            self.note_seen(&segment);
        }
    }

    /// What this consumer keeps with a position: that, and its last commit with outputs.
    fn state(&self, low: u64) -> Vec<u8> {
        [low.to_le_bytes(), (self.concluded as u64).to_le_bytes()].concat()
    }

    fn conclude(&mut self, confirm: u64, wait: bool) {
        self.hear();
        self.settle();
        let before = self.concluded;
        let consumer = self.consumer.as_ref().expect("there is one");
        let mut low = consumer.progress().0.0;
        let most = low + confirm;
        while low < most && self.handed.contains(&low) {
            low += 1;
        }
        // A number is never used again.
        let used = self.durable.keys().chain(&self.failed).chain(self.outputs.keys()).max();
        self.concluded = used.copied().unwrap_or(0).max(before) + 1;
        let number = self.concluded;
        let output = format!(r#"{{"conclusion": {number}, "low": {low}}}"#);
        let (outputs, state) = (encoded(Lane::Status, &[&output]), self.state(low));
        let consumer = self.consumer.as_mut().expect("there is one");
        match consumer.commit_with(Seq(low), state, &outputs, &self.done) {
            Ok(ticket) => self.concluding.push((ticket, number, low)),
            Err(_) => {
                self.failed.insert(number);
                self.concluded = before;
                return;
            }
        }
        self.low = self.low.max(consumer.progress().0.0);
        if wait {
            let (ticket, ..) = self.concluding.last().expect("it was just put there");
            assert!(self.done.wait(*ticket, clock::now() + PATIENCE).is_some(), "it comes to an end");
            self.settle();
        }
    }

    /// Looks what became of commits with outputs. After a failure the consumer goes back.
    fn settle(&mut self) {
        let (durable, failed) = (self.done.durable(), self.done.has_failed());
        for (ticket, number, low) in std::mem::take(&mut self.concluding) {
            if ticket <= durable {
                self.durable.insert(number, low);
            } else if failed {
                self.failed.insert(number);
            } else {
                self.concluding.push((ticket, number, low));
            }
        }
        if failed {
            self.done = Arc::default();
            let consumer = self.consumer.as_mut().expect("there is one");
            consumer.rewind();
            self.concluded = number_of(consumer.progress().1);
        }
    }

    /// The outputs of a commit are there once, exactly where its progress is.
    fn check_conclusions(&self, low: u64, state: &[u8]) {
        let last = number_of(state);
        assert!(last == 0 || self.outputs.contains_key(&last), "progress without its output {last}");
        for (number, low) in &self.durable {
            assert!(self.outputs.contains_key(number), "output {number} at {low} is gone");
        }
        for (number, places) in &self.outputs {
            assert_eq!(places.len(), 1, "output {number} is there more than once");
            assert!(!self.failed.contains(number), "output {number} was said to have failed");
            assert!(last >= *number, "output {number} without its progress, which is {low} and {last}");
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
        self.cursors.clear();
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
        self.running = Some(again);
        // What was on its way has come to its end, one way or the other.
        let (durable, failed) = (self.done.durable(), self.done.has_failed());
        for (ticket, number, low) in std::mem::take(&mut self.concluding) {
            if ticket <= durable {
                self.durable.insert(number, low);
            } else {
                assert!(failed, "commit {number} was left without a word");
            }
        }
        self.check_state(power_cut);
        self.begin();
        self.hear();
        let consumer = self.consumer.take().expect("there is one");
        let (Seq(low), state) = consumer.progress();
        assert!(low >= self.low_of(state), "the state belongs to this position or an earlier one");
        self.check_conclusions(low, state);
        self.low = self.low.max(low);
        self.concluded = number_of(state);
        self.consumer = Some(consumer);
    }

    fn low_of(&self, state: &[u8]) -> u64 {
        let low = state.first_chunk().copied().map_or(0, u64::from_le_bytes);
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
                for (Seq(seq), record) in segment.records() {
                    let event: serde_json::Value = serde_json::from_slice(record.payload).expect("JSON");
                    if let Some(number) = event["conclusion"].as_u64().filter(|_| lane == Lane::Status) {
                        self.outputs.entry(usize::try_from(number).unwrap()).or_default().insert(seq);
                    }
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
        self.cursors.clear();
        let broken = self.running().memory.broken_rules();
        close(&self.running().outbox);
        assert_eq!(broken, Vec::<String>::new());
    }
}

/// The number of the last commit with outputs in a consumer's state.
fn number_of(state: &[u8]) -> usize {
    let number = state.last_chunk().copied().map_or(0, u64::from_le_bytes);
    usize::try_from(number).expect("a small number")
}

/// What a reader finds; damage in its way becomes a hole soon.
fn patiently(
    outbox: &Handle,
    mut read: impl FnMut() -> Result<Option<Arc<Segment>>, Error>,
) -> Option<Arc<Segment>> {
    let deadline = clock::now() + PATIENCE;
    loop {
        match read() {
            Ok(next) => return next,
            Err(error) => assert!(clock::now() < deadline, "{error}"),
        }
        let count = outbox.wait_commit(u64::MAX, Duration::ZERO);
        std::hint::black_box(outbox.wait_commit(count, Duration::from_millis(5)));
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

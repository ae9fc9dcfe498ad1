//! Random operations with crashes, against what must hold whatever happens.

use proptest::prelude::*;

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
}

fn any_step() -> impl Strategy<Value = Step> {
    let lane = prop_oneof![4 => Just(Lane::Telemetry), 1 => Just(Lane::Alerts)];
    let fault = prop_oneof![Just(Fault::Lost), Just(Fault::Kept)];
    prop_oneof![
        8 => (lane, 1_usize..6).prop_map(|(lane, count)| Step::Append(lane, count)),
        4 => (0_usize..4, 0_usize..4).prop_map(|(read, confirm)| Step::Consume(read, confirm)),
        1 => Just(Step::Rewind),
        1 => fault.prop_map(Step::Fail),
        1 => Just(Step::Restart),
        1 => Just(Step::PowerCut),
    ]
}

struct Model {
    running: Option<Running>,
    consumer: Option<Consumer>,
    /// Payloads of telemetry that were acknowledged, in order.
    acked: Vec<String>,
    submitted: usize,
    /// Payloads read by the consumer, by position: a position never changes its entry.
    seen: std::collections::BTreeMap<u64, String>,
    /// Highest confirmed position so far.
    low: u64,
}

impl Model {
    fn new() -> Self {
        let running = Running::with(|config| config.tail_cache_bytes = 2000);
        let consumer = Some(running.consumer(Lane::Telemetry));
        let (acked, seen) = Default::default();
        Self { running: Some(running), consumer, acked, submitted: 0, seen, low: 1 }
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
            Step::Restart => self.restart(false),
            Step::PowerCut => self.restart(true),
        }
    }

    fn append(&mut self, lane: Lane, count: usize) {
        let payloads: Vec<String> = (0..count).map(|n| (self.submitted + n).to_string()).collect();
        self.submitted += count;
        let payloads: Vec<&str> = payloads.iter().map(String::as_str).collect();
        let outbox = &self.running().outbox;
        wait_until(outbox, "room", || outbox.appender().reserve(lane, 1).is_ok());
        let entries = encoded(lane, &payloads);
        // A fault that waits may hit progress first and refuse the permit just granted.
        let Ok(permit) = outbox.appender().reserve(lane, entries.bytes()) else { return };
        let done = Arc::default();
        let ticket = outbox.appender().submit(permit, &entries, &done);
        if wait_durable(&done, ticket).is_ok() && lane == Lane::Telemetry {
            self.acked.extend(payloads.into_iter().map(str::to_owned));
        }
    }

    fn consume(&mut self, read: usize, confirm: usize) {
        let consumer = self.consumer.as_mut().expect("there is one");
        let mut ends = Vec::new();
        for _ in 0..read {
            let Some(segment) = consumer.try_next(1).expect("readable") else { break };
            for (Seq(seq), record) in segment.records() {
                let payload = String::from_utf8(record.payload.to_vec()).expect("digits");
                let before = self.seen.insert(seq, payload.clone());
                assert!(before.is_none_or(|before| before == payload), "position {seq} changed its entry");
            }
            ends.push(segment.last().next());
        }
        if let Some(end) = ends.get(confirm) {
            consumer.commit(*end, end.0.to_le_bytes().to_vec());
            self.low = self.low.max(end.0);
        }
    }

    fn restart(&mut self, power_cut: bool) {
        self.consumer = None;
        let running = self.running.take().expect("it runs");
        let (directory, memory) = (Arc::clone(&running.directory), running.memory.clone());
        if power_cut {
            memory.die();
        }
        close(&running.outbox);
        memory.revive_after_power_cut_if(power_cut);
        drop(running);
        let again = Running::again(directory, memory, |config| config.tail_cache_bytes = 2000);
        let again = again.expect("nothing acknowledged is missing");
        let consumer = again.consumer(Lane::Telemetry);
        let (Seq(low), state) = consumer.progress();
        assert!(low <= self.low, "progress never runs ahead");
        assert!(state.is_empty() || state == low.to_le_bytes(), "state and position belong together");
        self.consumer = Some(consumer);
        self.running = Some(again);
    }

    /// Everything acknowledged is there, in order, from the first position not confirmed.
    fn finish(mut self) {
        self.running().memory.revive_after_power_cut_if(false);
        self.restart(false);
        self.consume(usize::MAX, usize::MAX);
        assert!(self.seen.keys().copied().eq(1..=self.seen.len() as u64), "positions are dense");
        let mut seen = self.seen.values();
        for acked in &self.acked {
            assert!(seen.any(|payload| payload == acked), "{acked} is missing or out of order");
        }
        self.consumer = None;
        self.running().close();
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, max_shrink_iters: 200, ..ProptestConfig::default() })]

    #[test]
    fn nothing_acknowledged_is_lost_or_reordered(steps in prop::collection::vec(any_step(), 1..25)) {
        let mut model = Model::new();
        steps.into_iter().for_each(|step| model.step(step));
        model.finish();
    }
}

//! Silence, where the numbers are built again.

use std::sync::Arc;

use penstock_proto::{Epoch, Lane, LogId, Seq};

use super::super::clock::Moment;
use super::super::engine::Engine;
use super::super::lifecycle::{Effects, Lifecycle, Voice};
use super::super::measure::Reader;
use super::super::nouns::Position;
use super::super::rule::{Evaluator, Limits};
use super::site::parse;
use crate::outbox::{Properties, Record};

const SILENT: &str = "[[rule]]\nid = \"silent\"\nkind = \"deadman\"\nexpect_every = \"1s\"\nmissed = 10\n";
const START_MS: u64 = 1_790_000_000_000;
/// Longer than a start waits.
const SILENCE_MS: u64 = 21_000;
const EPOCH: Epoch = Epoch(3);

struct Life {
    engine: Engine,
    effects: Effects,
}

impl Life {
    /// An engine with the numbers of `before` and an empty table; of a gateway that starts without any.
    fn after(before: Option<&Self>) -> Self {
        let rules = parse(SILENT);
        let mut reader = Reader::new(rules.set.metrics());
        let mut evaluator = Evaluator::new(Arc::clone(&rules.set), Limits::default());
        let voice = Voice::of(&"site-7".parse().expect("an id"), "io.penstock");
        let lifecycle = Lifecycle::new(voice, Arc::clone(&rules.policy), Arc::clone(&rules.book));
        let (moment, at) = before.map_or((Moment::default(), Seq(1)), |before| {
            let snapshot = before.engine.snapshot(LogId(7));
            reader.decode(&snapshot.reader).expect("ours");
            evaluator.decode(&snapshot.evaluator).expect("ours");
            (snapshot.moment, snapshot.at)
        });
        let engine = Engine::new((reader, evaluator, lifecycle), moment, (at, at), false).rebuilt();
        Self { engine, effects: Effects::default() }
    }

    fn hear(&mut self, seq: u64, at_ms: u64) {
        let record = Record {
            device: "d1",
            topic: "devices/d1/telemetry",
            received_ms: at_ms,
            qos: 1,
            retain: false,
            clock_synced: true,
            properties: Properties::default(),
            payload: b"{}",
        };
        let position = Position { log: LogId(7), epoch: EPOCH, lane: Lane::Telemetry, seq: Seq(seq) };
        self.engine.replay(position, &record, at_ms, &mut self.effects);
    }

    fn idle(&mut self, at_ms: u64) {
        self.engine.idle(Moment { now_ms: at_ms, epoch: EPOCH }, &mut self.effects);
    }

    /// Events so far.
    fn told(&self) -> usize {
        self.effects.entries.entries(Lane::Alerts).count()
    }
}

#[test]
fn silence_before_a_crash_is_none_where_nobody_was_listened_to() {
    let mut before = Life::after(None);
    before.hear(1, START_MS);
    // From here on devices are not listened to, for long; the log does not say so.
    let mut after = Life::after(Some(&before));
    let now_ms = START_MS + 10 * SILENCE_MS;
    after.idle(now_ms);
    assert_eq!(after.told(), 0);
    after.idle(now_ms + SILENCE_MS);
    assert_eq!(after.told(), 1, "it is silent indeed");
}

#[test]
fn silence_that_was_found_and_never_told_is_told() {
    let mut before = Life::after(None);
    before.hear(1, START_MS);
    before.idle(START_MS + SILENCE_MS);
    assert_eq!(before.told(), 1);
    // The numbers know it, the table does not.
    let mut after = Life::after(Some(&before));
    let now_ms = START_MS + SILENCE_MS + 1;
    after.idle(now_ms);
    assert_eq!(after.told(), 0);
    after.idle(now_ms + SILENCE_MS);
    assert_eq!(after.told(), 1);
    after.idle(now_ms + 2 * SILENCE_MS);
    assert_eq!(after.told(), 1, "once");
}

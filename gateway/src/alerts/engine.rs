//! What one committed segment after the other leads to. No I/O, and no clock but the segments' own.
//!
//! ```text
//! segment ──► Reader ──► samples ──► Evaluator ──► edges ──► Lifecycle ──► Effects
//!             └────── built again from snapshot and log ───┘ └── loaded from its table
//! ```
//!
//! The numbers left of the edges are a function of the log and may be built again by reading it twice; what is right of
//! them is durable with its progress. So edges of entries below [`Engine::told`] are not taken a second time.

use std::collections::HashMap;
use std::sync::Arc;

use penstock_proto::{Lane, Seq};

use super::clock::Moment;
use super::lifecycle::{self, Effects, Lifecycle};
use super::measure::{Reader, Rebirth};
use super::nouns::{Edge, Origin, Position, Sample, Subject};
use super::rule::Evaluator;
use super::rules::Rules;
use super::snapshot::Snapshot;
use crate::outbox::{Record, Segment};

/// All rules, series and alerts, at one position of the log.
#[derive(Debug)]
pub(super) struct Engine {
    reader: Reader,
    evaluator: Evaluator,
    lifecycle: Lifecycle,
    moment: Moment,
    /// The first entry that was not applied.
    position: Seq,
    /// The first entry whose edges were not taken.
    told: Seq,
    /// Of one record, kept for its room.
    samples: Vec<Sample>,
    /// Whether the numbers were built from nothing, so that alerts may be open that they know nothing of.
    doubt: bool,
    /// Whether it was built from what another has left, and has told nothing yet.
    rebuilt: bool,
    counts: Counts,
}

/// What was done, since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Counts {
    pub(super) records: u64,
    pub(super) samples: u64,
    pub(super) raised: u64,
    pub(super) cleared: u64,
    /// Entries that were never looked at.
    pub(super) skipped: u64,
}

impl Engine {
    /// An engine that has seen nothing below `position` and has told what lies below `told`. With `doubt` the numbers come
    /// from no snapshot.
    pub(super) fn new(
        (reader, evaluator, lifecycle): (Reader, Evaluator, Lifecycle),
        moment: Moment,
        (position, told): (Seq, Seq),
        doubt: bool,
    ) -> Self {
        let (samples, counts) = (Vec::new(), Counts::default());
        let rebuilt = false;
        Self { reader, evaluator, lifecycle, moment, position, told, samples, doubt, rebuilt, counts }
    }

    /// The engine of a gateway that may have died. What kept the last one from taking silence for what it seems is not in
    /// the log.
    pub(super) fn rebuilt(self) -> Self {
        Self { rebuilt: true, ..self }
    }

    /// The first entry that was not applied.
    pub(super) const fn position(&self) -> Seq {
        self.position
    }

    /// The first entry whose edges were not taken.
    pub(super) fn told(&self) -> Seq {
        self.told.max(self.position)
    }

    pub(super) const fn moment(&self) -> Moment {
        self.moment
    }

    pub(super) const fn counts(&self) -> Counts {
        self.counts
    }

    pub(super) const fn reader(&self) -> &Reader {
        &self.reader
    }

    /// Sparkplug nodes whose births have to be told again, since the last call.
    pub(super) fn take_rebirths(&mut self) -> Vec<Rebirth> {
        self.reader.take_rebirths()
    }

    pub(super) const fn evaluator(&self) -> &Evaluator {
        &self.evaluator
    }

    pub(super) const fn lifecycle(&self) -> &Lifecycle {
        &self.lifecycle
    }

    /// Applies the records of a segment that were not applied yet. A gap before it is counted.
    pub(super) fn apply(&mut self, segment: &Segment, effects: &mut Effects) {
        let Seq(from) = self.position.max(segment.first());
        self.counts.skipped += from.saturating_sub(self.position.0);
        let end = segment.last().next();
        if end <= Seq(from) {
            return;
        }
        let away = self.moment.advance(segment.committed_ms(), segment.epoch());
        // Between two segments time passed; that is told if anything of this segment is.
        self.tick(away, end > self.told, effects);
        let position =
            |seq| Position { log: segment.log(), epoch: segment.epoch(), lane: Lane::Telemetry, seq };
        for (seq, record) in segment.records_from(Seq(from)) {
            self.record(position(seq), &record, seq >= self.told, effects);
        }
        self.position = end;
    }

    /// Nothing comes in: time alone passes.
    pub(super) fn idle(&mut self, at: Moment, effects: &mut Effects) {
        let away = self.moment.advance(at.now_ms, at.epoch);
        self.tick(away, self.position >= self.told, effects);
    }

    /// Applies one record by itself, as if its segment had been committed at `committed_ms`.
    pub(super) fn replay(
        &mut self,
        position: Position,
        record: &Record<'_>,
        committed_ms: u64,
        effects: &mut Effects,
    ) {
        let away = self.moment.advance(committed_ms, position.epoch);
        self.tick(away, true, effects);
        self.record(position, record, true, effects);
        self.position = self.position.max(position.seq.next());
    }

    /// Other rules than the `old` ones are in force from here on.
    pub(super) fn replace(&mut self, old: &Rules, rules: &Rules, effects: &mut Effects) {
        let now_ms = self.moment.now_ms;
        let Self { reader, evaluator, lifecycle, .. } = self;
        evaluator.replace(Arc::clone(&rules.set), &mut |edge| {
            // Alerts of the others end because of their rules, and the lifecycle says so.
            if old.has_same(edge.subject.rule, rules) {
                lifecycle.take(&edge, now_ms, effects);
            }
        });
        lifecycle.replace(Arc::clone(&rules.policy), Arc::clone(&rules.book), now_ms, effects);
        reader.set_metrics(rules.set.metrics());
    }

    /// Silence until `at_ms` says nothing about devices.
    pub(super) fn hold(&mut self, at_ms: u64) {
        self.evaluator.hold(at_ms.max(self.moment.now_ms));
    }

    /// Goes on at `to` without having looked at what lies before it.
    pub(super) fn skip(&mut self, to: Seq) {
        self.counts.skipped += to.0.saturating_sub(self.position.0);
        self.position = self.position.max(to);
        self.told = self.told.max(to);
        self.evaluator.hold(self.moment.now_ms);
    }

    /// When time alone has something to do next, in Unix milliseconds.
    pub(super) fn next_due_ms(&self) -> Option<u64> {
        [self.evaluator.next_due_ms(), self.lifecycle.next_due_ms()].into_iter().flatten().min()
    }

    /// Completes `effects`: to be called once before they are committed.
    pub(super) fn flush(&mut self, effects: &mut Effects) {
        self.lifecycle.flush(effects);
    }

    /// What it stands at.
    pub(super) fn snapshot(&self, log: penstock_proto::LogId) -> Snapshot {
        let (mut reader, mut evaluator) = (Vec::new(), Vec::new());
        self.reader.encode(&mut reader);
        self.evaluator.encode(&mut evaluator);
        Snapshot { log, at: self.position, moment: self.moment, reader, evaluator }
    }

    fn tick(&mut self, away: bool, take: bool, effects: &mut Effects) {
        let now_ms = self.moment.now_ms;
        if away {
            self.evaluator.hold(now_ms);
        }
        if take && std::mem::take(&mut self.rebuilt) {
            let Self { evaluator, lifecycle, .. } = self;
            evaluator.hold(now_ms);
            evaluator.expect_again(&|subject| lifecycle.holds(subject));
        }
        if take && std::mem::take(&mut self.doubt) {
            self.end_what_is_forgotten(effects);
        }
        let Self { evaluator, lifecycle, counts, .. } = self;
        evaluator.advance(now_ms, &mut |edge| {
            if take {
                counts.take(&edge);
                lifecycle.take(&edge, now_ms, effects);
            }
        });
        if take {
            lifecycle.advance(now_ms, effects);
        }
    }

    /// Ends alerts that the numbers know nothing of, since nothing else would: what still holds is raised anew.
    fn end_what_is_forgotten(&mut self, effects: &mut Effects) {
        let now_ms = self.moment.now_ms;
        let Self { evaluator, lifecycle, .. } = self;
        // The table has names of a bounded length.
        let whole: HashMap<_, _> =
            evaluator.names().filter_map(|whole| Some((lifecycle::shorter_device(whole)?, whole))).collect();
        for (rule, device, metric) in lifecycle.holding() {
            let subject = Subject { rule, device: &device, metric: metric.as_deref() };
            let known = whole.get(&*device).map_or(&*device, |whole| whole);
            if !evaluator.is_raised(&Subject { device: known, ..subject }) {
                lifecycle.take(&Edge::cleared(subject, now_ms), now_ms, effects);
            }
        }
    }

    fn record(&mut self, position: Position, record: &Record<'_>, take: bool, effects: &mut Effects) {
        let Self { reader, evaluator, lifecycle, samples, counts, moment, .. } = self;
        let now_ms = moment.now_ms;
        reader.read(record, now_ms, samples);
        if !take {
            // It was asked for when the entry came.
            drop(reader.take_rebirths());
        }
        counts.records += 1;
        counts.samples += samples.len() as u64;
        let origin = Origin {
            position,
            device: record.device,
            tenant: record.properties.tenant,
            site: record.properties.site,
            class: record.properties.class,
            stream: record.properties.stream,
            traceparent: record.properties.traceparent,
            now_ms,
        };
        evaluator.observe(&origin, samples, &mut |edge| {
            if take {
                counts.take(&edge);
                lifecycle.take(&edge, now_ms, effects);
            }
        });
    }
}

impl Counts {
    fn take(&mut self, edge: &Edge<'_>) {
        match edge.change {
            super::nouns::Change::Raised { .. } => self.raised += 1,
            super::nouns::Change::Cleared => self.cleared += 1,
            super::nouns::Change::Severity { .. } => {}
        }
    }
}

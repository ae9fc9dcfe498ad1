//! Which alerts rules would have raised, and what they would have done, on telemetry that was exported from an outbox.
//!
//! The file has one JSON object per line, as `penstock outbox export --lane telemetry` writes it. The same engine reads it as
//! in a running gateway; its clock is the time at which messages were received.

use std::io::{self, BufRead, Write};
use std::sync::Arc;

use penstock_proto::{Epoch, Lane, LogId, Seq};
use serde::Deserialize;

use super::clock::Moment;
use super::engine::{Counts, Engine};
use super::lifecycle::{Effects, Lifecycle, Voice};
use super::measure::Reader;
use super::nouns::Position;
use super::reaction::is_reaction;
use super::rule::{Evaluator, Limits};
use super::rules::Rules;
use crate::outbox::{Properties, Record};

/// Longest line, in bytes: the largest packet of MQTT in hexadecimal digits, and what goes with it.
const LINE_BYTES_MAX: u64 = 600 << 20;
/// Most series that a replay watches.
const SERIES_MAX: usize = 10_000_000;
/// Most series that rules learn in a replay.
const LEARNED_MAX: usize = 1_000_000;

/// A record as it is exported, as far as rules look at it.
#[derive(Debug, Deserialize)]
struct Line {
    log: String,
    epoch: u32,
    lane: Lane,
    seq: u64,
    device: String,
    topic: String,
    received_ms: u64,
    #[serde(default)]
    clock_synced: bool,
    #[serde(default)]
    qos: u8,
    #[serde(default)]
    retain: bool,
    #[serde(default)]
    properties: Captured,
    payload: Option<String>,
    payload_hex: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
struct Captured {
    tenant: Option<String>,
    site: Option<String>,
    class: Option<String>,
    stream: Option<String>,
    content_type: Option<String>,
    traceparent: Option<String>,
    device_time_ms: Option<u64>,
}

/// Why a replay ended early.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// The file cannot be read, or the result not be written.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// A line is no exported record.
    #[error("line {line}: {problem}")]
    Line {
        /// Counted from 1.
        line: u64,
        /// What is wrong with it.
        problem: String,
    },
}

/// Rules and messages without an outbox: what would be raised.
#[derive(Debug)]
pub struct Trial {
    engine: Engine,
    effects: Effects,
    events: u64,
    reactions: u64,
}

/// What a trial came to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Messages that were looked at.
    pub messages: u64,
    /// Numbers in them that rules wanted.
    pub samples: u64,
    /// How often a condition began to hold.
    pub raised: u64,
    /// How often one ended.
    pub cleared: u64,
    /// Events that would be sent.
    pub events: u64,
    /// What rules would have the gateway do itself.
    pub reactions: u64,
    /// Series that are watched.
    pub series: usize,
    /// Alerts that are open.
    pub open: usize,
}

// === impl Trial ===

impl Trial {
    /// Rules that have seen nothing. `time` is where JSON payloads hold the device's own time.
    #[must_use]
    pub fn new(rules: &Rules, time: Option<&str>) -> Self {
        let reader = Reader::new(rules.set.metrics()).with_time_path(time, rules.set.metrics());
        let evaluator = Evaluator::new(
            Arc::clone(&rules.set),
            Limits {
                series_max: SERIES_MAX,
                learned_max: LEARNED_MAX,
                devices_max: SERIES_MAX,
                ..Limits::default()
            },
        );
        let lifecycle = Lifecycle::new(voice(), Arc::clone(&rules.policy), Arc::clone(&rules.book));
        let start = (Seq::ZERO, Seq::ZERO);
        let engine = Engine::new((reader, evaluator, lifecycle), Moment::default(), start, false);
        Self { engine, effects: Effects::default(), events: 0, reactions: 0 }
    }

    /// Applies a message as if it had been committed at `committed_ms`, in Unix milliseconds.
    pub fn apply(&mut self, (log, epoch, seq): (LogId, Epoch, Seq), record: &Record<'_>, committed_ms: u64) {
        let position = Position { log, epoch, lane: Lane::Telemetry, seq };
        self.engine.replay(position, record, committed_ms, &mut self.effects);
    }

    /// Shows what came up since the last call, as JSON and in its order: events, and what rules would have the gateway do
    /// (`docs/formats/reaction-v1.md`).
    ///
    /// # Errors
    ///
    /// The first one of `show`.
    pub fn take_outcomes<E>(&mut self, mut show: impl FnMut(&[u8]) -> Result<(), E>) -> Result<(), E> {
        for (_, record) in self.effects.entries.entries(Lane::Alerts) {
            show(record.payload)?;
            *(if is_reaction(&record) { &mut self.reactions } else { &mut self.events }) += 1;
        }
        self.engine.flush(&mut self.effects);
        self.effects.clear();
        Ok(())
    }

    /// What came of it so far.
    #[must_use]
    pub fn outcome(&self) -> Outcome {
        let Counts { records: messages, samples, raised, cleared, .. } = self.engine.counts();
        let (series, open) = (self.engine.evaluator().series(), self.engine.lifecycle().open());
        let &Self { events, reactions, .. } = self;
        Outcome { messages, samples, raised, cleared, events, reactions, series, open }
    }
}

/// A trial speaks for no gateway.
fn voice() -> Voice {
    let (gateway, source) = ("trial".into(), "/gateways/trial".into());
    Voice { gateway, source, type_prefix: "io.penstock".into() }
}

/// Feeds the records of `lines` to `rules` and writes each event that would be sent, and each thing that would be done, as
/// a line of JSON to `out`.
///
/// # Errors
///
/// When a line is no record of an export, or something cannot be read or written.
pub fn replay(
    rules: &Rules,
    time: Option<&str>,
    mut lines: impl BufRead,
    out: &mut dyn Write,
) -> Result<Outcome, ReplayError> {
    let mut trial = Trial::new(rules, time);
    let (mut text, mut number) = (String::new(), 0);
    loop {
        text.clear();
        number += 1;
        if io::Read::take(&mut lines, LINE_BYTES_MAX).read_line(&mut text)? == 0 {
            return Ok(trial.outcome());
        }
        let failed = |problem: String| ReplayError::Line { line: number, problem };
        let line: Line = serde_json::from_str(&text).map_err(|error| failed(error.to_string()))?;
        if line.lane == Lane::Telemetry {
            line.apply(&mut trial).map_err(failed)?;
            trial.take_outcomes(|line| {
                out.write_all(line)?;
                out.write_all(b"\n")
            })?;
        }
    }
}

impl Line {
    fn apply(&self, trial: &mut Trial) -> Result<(), String> {
        let log = u64::from_str_radix(&self.log, 16).map_err(|_| "`log` is no number of 16 digits")?;
        let decoded;
        let payload = match (&self.payload, &self.payload_hex) {
            (Some(text), None) => text.as_bytes(),
            (None, Some(digits)) => {
                decoded = unhex(digits).ok_or("`payload_hex` is not in hexadecimal digits")?;
                &decoded
            }
            _ => return Err("one of `payload` and `payload_hex` is due".to_owned()),
        };
        let properties = &self.properties;
        let record = Record {
            device: &self.device,
            topic: &self.topic,
            received_ms: self.received_ms,
            qos: self.qos,
            retain: self.retain,
            clock_synced: self.clock_synced,
            properties: Properties {
                tenant: properties.tenant.as_deref(),
                site: properties.site.as_deref(),
                class: properties.class.as_deref(),
                stream: properties.stream.as_deref(),
                content_type: properties.content_type.as_deref(),
                traceparent: properties.traceparent.as_deref(),
                device_time_ms: properties.device_time_ms,
                ..Properties::default()
            },
            payload,
        };
        trial.apply((LogId(log), Epoch(self.epoch), Seq(self.seq)), &record, self.received_ms);
        Ok(())
    }
}

fn unhex(digits: &str) -> Option<Vec<u8>> {
    let pairs = digits.as_bytes().chunks(2);
    let byte = |pair: &[u8]| {
        let text = std::str::from_utf8(pair).ok().filter(|text| text.len() == 2)?;
        u8::from_str_radix(text, 16).ok()
    };
    pairs.map(byte).collect()
}

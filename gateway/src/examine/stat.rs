//! `stat`: the whole directory at a glance.

use std::fmt;
use std::io::Write;

use clap::Args as ClapArgs;
use penstock_proto::Lane;
use serde::Serialize;

use super::text::{self, row};
use super::time::rfc3339;
use super::{Directory, Error};
use crate::outbox::StateSize;
use crate::outbox::offline::incidents::{self, Incident};
use crate::outbox::offline::{self, DiskUse, HoleReason, Snapshot};
use crate::supervise::{chain, clock};

#[derive(Debug, Clone, ClapArgs)]
pub(super) struct Args {
    #[command(flatten)]
    outbox: Directory,
    /// Print everything as JSON.
    #[arg(long)]
    json: bool,
}

/// Everything found, for `--json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Report {
    directory: String,
    log: String,
    epoch: u32,
    format: Format,
    /// Why the high-water mark cannot be used, if it cannot.
    high_water_problem: Option<String>,
    disk: DiskUse,
    state: StateReport,
    lanes: Vec<LaneReport>,
    consumers: Vec<ConsumerReport>,
    holes: Vec<HoleReport>,
    incidents: Vec<Incident>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct Format {
    written: u16,
    readable_from: u16,
}

/// Sessions, queues and retained messages of the front end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct StateReport {
    keys: u64,
    bytes: u64,
    /// Why it cannot be read, if it cannot.
    problem: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct LaneReport {
    lane: Lane,
    head: u64,
    next: u64,
    backlog_messages: u64,
    backlog_bytes: u64,
    oldest_age_ms: Option<u64>,
    /// Acknowledged positions at the end that are not there.
    short_by: u64,
    problem: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct ConsumerReport {
    consumer: String,
    lane: Lane,
    low: u64,
    lag_messages: u64,
    lag_bytes: u64,
    state_bytes: usize,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct HoleReport {
    lane: Lane,
    first: u64,
    last: u64,
    messages: u64,
    at_ms: u64,
    epoch: u32,
    reason: &'static str,
}

pub(super) fn run(args: &Args, out: &mut dyn Write) -> Result<bool, Error> {
    let snapshot = Snapshot::open(&args.outbox.directory)?;
    let report = Report::new(&snapshot, clock::unix_ms())?;
    if args.json {
        serde_json::to_writer_pretty(&mut *out, &report).map_err(std::io::Error::from)?;
        writeln!(out)?;
    } else {
        write!(out, "{report}")?;
    }
    Ok(true)
}

impl Report {
    pub(super) fn new(snapshot: &Snapshot, now_ms: u64) -> Result<Self, Error> {
        let directory = snapshot.directory();
        let disk = DiskUse::measure(directory).map_err(|source| offline::Error::Io {
            path: directory.to_owned(),
            action: "measure it",
            source,
        })?;
        let (written, readable_from) = snapshot.format();
        let lanes = Lane::ALL.map(|lane| LaneReport::new(snapshot, lane, now_ms));
        Ok(Self {
            directory: directory.display().to_string(),
            log: snapshot.log().to_string(),
            epoch: snapshot.epoch().0,
            format: Format { written, readable_from },
            high_water_problem: snapshot.mark().err().map(str::to_owned),
            disk,
            state: StateReport::new(snapshot),
            lanes: lanes.to_vec(),
            consumers: Lane::ALL.into_iter().flat_map(|lane| consumers(snapshot, lane)).collect(),
            holes: Lane::ALL.into_iter().flat_map(|lane| holes(snapshot, lane)).collect(),
            incidents: incidents::list(directory)?,
        })
    }
}

impl StateReport {
    fn new(snapshot: &Snapshot) -> Self {
        match snapshot.state() {
            Ok(StateSize { keys, bytes }) => Self { keys, bytes, problem: None },
            Err(error) => Self { keys: 0, bytes: 0, problem: Some(chain(&error)) },
        }
    }
}

impl LaneReport {
    fn new(snapshot: &Snapshot, lane: Lane, now_ms: u64) -> Self {
        let view = snapshot.lane(lane);
        let marked = snapshot.mark().ok().and_then(|(.., next)| next.get(lane.index()).copied());
        Self {
            lane,
            head: view.head().0,
            next: view.next.0,
            backlog_messages: view.backlog_messages(),
            backlog_bytes: view.backlog_bytes(),
            oldest_age_ms: snapshot.oldest_ms(lane).map(|ms| now_ms.saturating_sub(ms)),
            short_by: marked.map_or(0, |marked| marked.0.saturating_sub(view.next.0)),
            problem: view.end_unreadable.clone(),
        }
    }
}

fn consumers(snapshot: &Snapshot, lane: Lane) -> Vec<ConsumerReport> {
    let view = snapshot.lane(lane);
    let report = |consumer: &offline::ConsumerView| ConsumerReport {
        consumer: consumer.name.clone(),
        lane,
        low: consumer.low().0,
        lag_messages: consumer.lag_messages(view),
        lag_bytes: consumer.lag_bytes(view),
        state_bytes: consumer.state_bytes(),
    };
    view.consumers.iter().map(report).collect()
}

fn holes(snapshot: &Snapshot, lane: Lane) -> Vec<HoleReport> {
    let report = |hole: &offline::Hole| HoleReport {
        lane,
        first: hole.first.0,
        last: hole.end.0.saturating_sub(1),
        messages: hole.messages(),
        at_ms: hole.at_ms,
        epoch: hole.epoch.0,
        reason: reason(hole.reason),
    };
    snapshot.lane(lane).holes.iter().map(report).collect()
}

pub(super) const fn reason(reason: HoleReason) -> &'static str {
    match reason {
        HoleReason::Missing => "missing",
        HoleReason::Damaged => "damaged",
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Format { written, readable_from } = self.format;
        writeln!(f, "{}: log {}, epoch {}, format {written}", self.directory, self.log, self.epoch)?;
        if readable_from != written {
            writeln!(f, "readable from format {readable_from} on")?;
        }
        let DiskUse { files, log, manifest, quarantine, other } = self.disk;
        let [total, files, log, manifest, quarantine, other] =
            [self.disk.total(), files, log, manifest, quarantine, other].map(text::bytes);
        writeln!(
            f,
            "disk: {total}: files {files}, log {log}, manifest {manifest}, quarantine {quarantine}, other {other}"
        )?;
        match &self.state.problem {
            None => writeln!(f, "state: {} keys, {}", self.state.keys, text::bytes(self.state.bytes))?,
            Some(problem) => writeln!(f, "state: cannot be read: {problem}")?,
        }
        if let Some(problem) = &self.high_water_problem {
            writeln!(f, "the high-water mark cannot be used: {problem}")?;
        }
        writeln!(f)?;
        self.write_lanes(f)?;
        writeln!(f)?;
        self.write_consumers(f)?;
        self.write_losses(f)
    }
}

impl Report {
    fn write_lanes(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rows = vec![row([&"lane", &"head", &"next", &"backlog", &"bytes", &"oldest"])];
        for lane in &self.lanes {
            let oldest = lane.oldest_age_ms.map_or_else(|| "-".to_owned(), text::age);
            let bytes = text::bytes(lane.backlog_bytes);
            rows.push(row([&lane.lane, &lane.head, &lane.next, &lane.backlog_messages, &bytes, &oldest]));
        }
        f.write_str(&text::table(&rows, 1))?;
        for lane in &self.lanes {
            if lane.short_by > 0 {
                let (lane, short) = (lane.lane, lane.short_by);
                writeln!(f, "{lane}: {short} acknowledged positions at the end are missing")?;
            }
            if let Some(problem) = &lane.problem {
                writeln!(f, "{}: the end cannot be read: {problem}", lane.lane)?;
            }
        }
        Ok(())
    }

    fn write_consumers(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.consumers.is_empty() {
            return writeln!(f, "no consumer has stored progress");
        }
        let mut rows = vec![row([&"consumer", &"lane", &"confirmed below", &"lag", &"bytes", &"state"])];
        for consumer in &self.consumers {
            let ConsumerReport { consumer, lane, low, lag_messages, lag_bytes, state_bytes } = consumer;
            let (bytes, state) = (text::bytes(*lag_bytes), text::bytes(*state_bytes as u64));
            rows.push(row([consumer, lane, low, lag_messages, &bytes, &state]));
        }
        f.write_str(&text::table(&rows, 2))
    }

    fn write_losses(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for hole in &self.holes {
            let HoleReport { lane, first, last, messages, at_ms, epoch, reason } = hole;
            let at = rfc3339(*at_ms);
            writeln!(
                f,
                "known hole: {lane} {first} to {last}, {messages} messages, {reason}, found {at} in epoch {epoch}"
            )?;
        }
        for incident in self.incidents.iter().filter(|incident| !incident.acknowledged) {
            writeln!(f, "not acknowledged: {}", super::acknowledge::line(incident))?;
        }
        Ok(())
    }
}

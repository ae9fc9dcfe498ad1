//! `inspect`: the segments of a lane one by one, or their records.

use std::io::Write;

use clap::Args as ClapArgs;
use penstock_proto::{Lane, Seq};

use super::stat::reason;
use super::text::{self, row};
use super::time::rfc3339;
use super::{Directory, Error, parse_lane, parse_seq};
use crate::outbox::offline::{Found, Snapshot, Stored, Walk};
use crate::outbox::{BodyCodec, Record};

/// Bytes of a payload that are shown.
const PAYLOAD_SHOWN: usize = 60;
/// Rows of a table at a time, so that the columns fit and the memory is bounded.
const ROWS: usize = 1000;

#[derive(Debug, Clone, ClapArgs)]
pub(super) struct Args {
    #[command(flatten)]
    outbox: Directory,
    /// The lane.
    #[arg(long, value_parser = parse_lane, default_value = "telemetry")]
    lane: Lane,
    /// The first position to show; the oldest one if not given.
    #[arg(long, value_name = "SEQ", value_parser = parse_seq)]
    from: Option<Seq>,
    /// How many segments to show, or records with --records.
    #[arg(long, default_value_t = 20)]
    count: u64,
    /// Show records instead of segments.
    #[arg(long)]
    records: bool,
}

pub(super) fn run(args: &Args, out: &mut dyn Write, remarks: &mut dyn Write) -> Result<bool, Error> {
    let mut snapshot = Snapshot::open(&args.outbox.directory)?;
    let mut walk = Walk::new(&mut snapshot, args.lane, args.from);
    let (mut well, mut left) = (true, args.count);
    let mut rows = vec![titles(args.records)];
    while left > 0 {
        match walk.step()? {
            None => break,
            Some(Found::Segment(stored)) if args.records => {
                for (seq, record) in stored.segment.records() {
                    if args.from.is_none_or(|from| seq >= from) && left > 0 {
                        rows.push(record_row(seq, &record));
                        left -= 1;
                    }
                }
            }
            Some(Found::Segment(stored)) => {
                if args.from.is_none_or(|from| stored.segment.last() >= from) {
                    rows.push(segment_row(&stored));
                    left -= 1;
                }
            }
            Some(Found::Hole { first, end, hole }) => {
                let (last, at) = (end.0.saturating_sub(1), rfc3339(hole.at_ms));
                writeln!(remarks, "known hole: {first} to {last}, {}, found {at}", reason(hole.reason))?;
            }
            Some(Found::Bad { first, end, reason }) => {
                well = false;
                writeln!(remarks, "problem: {first} to {}: {reason}", end.0.saturating_sub(1))?;
            }
        }
        if rows.len() > ROWS {
            write_rows(&mut rows, args.records, out)?;
        }
    }
    write_rows(&mut rows, args.records, out)?;
    Ok(well)
}

fn titles(records: bool) -> Vec<String> {
    if records {
        row([&"seq", &"received", &"device", &"topic", &"qos", &"bytes", &"payload"])
    } else {
        row([
            &"first",
            &"last",
            &"committed",
            &"epoch",
            &"codec",
            &"records",
            &"bytes",
            &"stored",
            &"bytes before",
        ])
    }
}

fn write_rows(rows: &mut Vec<Vec<String>>, records: bool, out: &mut dyn Write) -> Result<(), Error> {
    // Records are words but for their first column, which is aligned well enough by itself.
    let left = if records { usize::MAX } else { 0 };
    out.write_all(text::table(rows, left).as_bytes())?;
    rows.clear();
    Ok(())
}

fn segment_row(stored: &Stored) -> Vec<String> {
    let segment = &stored.segment;
    let codec = match stored.codec {
        BodyCodec::None => "none",
        BodyCodec::Lz4 => "lz4",
    };
    row([
        &segment.first(),
        &segment.last(),
        &rfc3339(segment.committed_ms()),
        &segment.epoch(),
        &codec,
        &segment.count(),
        &segment.bytes(),
        &stored.stored_bytes,
        &stored.bytes_before(),
    ])
}

fn record_row(seq: Seq, record: &Record<'_>) -> Vec<String> {
    let (device, topic) = (printable(record.device), printable(record.topic));
    let retained = if record.retain { " retained" } else { "" };
    let (qos, bytes) = (format!("{}{retained}", record.qos), record.payload.len());
    let payload = text::beginning(record.payload, PAYLOAD_SHOWN);
    row([&seq, &rfc3339(record.received_ms), &device, &topic, &qos, &bytes, &payload])
}

/// Text of a device without what a terminal would act on.
pub(super) fn printable(text: &str) -> String {
    text.chars().flat_map(|c| if c.is_control() { c.escape_default().collect() } else { vec![c] }).collect()
}

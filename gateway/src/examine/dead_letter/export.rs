//! `export`: the dead letters that wait, with everything that is known about them.

use std::io::{BufWriter, Write};
use std::path::PathBuf;

use clap::Args as ClapArgs;
use penstock_proto::{Lane, Seq, base64};
use serde::Serialize;

use super::super::export::{ExportedProperties, create};
use super::super::time::rfc3339;
use super::{Error, Site, oldest, parse_seq};
use crate::dead_letter::Letter;
use crate::outbox::offline::{Found, Snapshot, Walk};
use crate::outbox::{Properties, Record, Segment, UserProperties};

#[derive(Debug, Clone, ClapArgs)]
pub(super) struct Args {
    /// Write to this new file instead of standard output.
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Only positions in lane dead from this one on; from the oldest letter that waits if not given.
    #[arg(long, value_name = "SEQ", value_parser = parse_seq)]
    from: Option<Seq>,
    /// Only positions up to this one.
    #[arg(long, value_name = "SEQ", value_parser = parse_seq)]
    to: Option<Seq>,
}

/// A letter, as exported.
#[derive(Debug, Serialize)]
struct Exported<'a> {
    log: String,
    /// Its position in lane dead, which `retry` and `discard` take.
    seq: u64,
    /// Who the refused entry was.
    #[serde(skip_serializing_if = "Option::is_none")]
    from: Option<From>,
    #[serde(skip_serializing_if = "Option::is_none")]
    target: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    dead_ms: Option<u64>,
    device: &'a str,
    topic: &'a str,
    received_ms: u64,
    received: String,
    clock_synced: bool,
    qos: u8,
    retain: bool,
    properties: ExportedProperties<'a>,
    payload_base64: String,
    /// Only if it is text.
    #[serde(skip_serializing_if = "Option::is_none")]
    payload: Option<&'a str>,
}

#[derive(Debug, Serialize)]
struct From {
    lane: Lane,
    seq: u64,
    epoch: u32,
}

pub(super) fn run(
    args: &Args,
    site: &Site,
    out: &mut dyn Write,
    remarks: &mut dyn Write,
) -> Result<bool, Error> {
    let mut snapshot = Snapshot::open(&site.outbox.directory)?;
    match &args.output {
        None => export(args, &mut snapshot, &mut BufWriter::new(out), remarks),
        Some(path) => {
            let file = create(&site.outbox.directory, path)?;
            export(args, &mut snapshot, &mut BufWriter::new(file), remarks)
        }
    }
}

fn export(
    args: &Args,
    snapshot: &mut Snapshot,
    out: &mut dyn Write,
    remarks: &mut dyn Write,
) -> Result<bool, Error> {
    let from = args.from.unwrap_or_else(|| oldest(snapshot));
    let to = args.to.unwrap_or(Seq(u64::MAX));
    let mut well = true;
    let mut walk = Walk::new(snapshot, Lane::Dead, Some(from));
    while let Some(found) = walk.step()? {
        let (first, end, word) = match &found {
            Found::Segment(stored) => {
                write_segment(&stored.segment, from..=to, out)?;
                (stored.segment.first(), stored.segment.last().next(), None)
            }
            Found::Hole { first, end, .. } => (*first, *end, Some("known hole".to_owned())),
            Found::Bad { first, end, reason } => (*first, *end, Some(format!("problem: {reason}"))),
        };
        if first > to {
            break;
        }
        if let Some(word) = word {
            writeln!(remarks, "dead {first} to {}: {word}", end.0.saturating_sub(1))?;
        }
        well &= !matches!(found, Found::Bad { .. });
        if end > to {
            break;
        }
    }
    out.flush()?;
    Ok(well)
}

fn write_segment(
    segment: &Segment,
    wanted: std::ops::RangeInclusive<Seq>,
    out: &mut dyn Write,
) -> Result<(), Error> {
    for (seq, record) in segment.records().filter(|(seq, _)| wanted.contains(seq)) {
        let mut user = Vec::new();
        serde_json::to_writer(&mut *out, &exported(segment, seq, &record, &mut user))
            .map_err(std::io::Error::from)?;
        out.write_all(b"\n")?;
    }
    Ok(())
}

fn exported<'a>(segment: &Segment, seq: Seq, record: &Record<'a>, user: &'a mut Vec<u8>) -> Exported<'a> {
    let letter = Letter::read(record);
    let properties = match &letter {
        None => record.properties,
        // Its own come from the refused entry, the others stand beside it.
        Some((_, own)) => {
            own.iter().for_each(|(name, value)| UserProperties::push(user, name, value));
            Properties { user: UserProperties::new(user).unwrap_or_default(), ..record.properties }
        }
    };
    let letter = letter.map(|(letter, _)| letter);
    let mut payload_base64 = Vec::new();
    base64::push(&mut payload_base64, record.payload);
    Exported {
        log: segment.log().to_string(),
        seq: seq.0,
        from: letter.map(|letter| From { lane: letter.lane, seq: letter.seq.0, epoch: letter.epoch.0 }),
        target: letter.map(|letter| letter.target),
        reason: letter.map(|letter| letter.reason),
        dead_ms: letter.map(|letter| letter.dead_ms),
        device: record.device,
        topic: record.topic,
        received_ms: record.received_ms,
        received: rfc3339(record.received_ms),
        clock_synced: record.clock_synced,
        qos: record.qos,
        retain: record.retain,
        properties: ExportedProperties::of(properties),
        payload_base64: String::from_utf8(payload_base64).unwrap_or_default(),
        payload: std::str::from_utf8(record.payload).ok(),
    }
}

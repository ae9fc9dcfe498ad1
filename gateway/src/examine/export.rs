//! `export`: records as one JSON object per line.

use std::fs::{File, OpenOptions};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use clap::Args as ClapArgs;
use penstock_proto::{Lane, Seq};
use serde::Serialize;
use serde::ser::{SerializeSeq as _, Serializer};

use super::text::hex;
use super::time::{self, rfc3339};
use super::{Directory, Error, parse_lane, parse_seq};
use crate::outbox::offline::{Found, Snapshot, Walk};
use crate::outbox::{Properties, Record, Segment, UserProperties};

#[derive(Debug, Clone, ClapArgs)]
pub(super) struct Args {
    #[command(flatten)]
    outbox: Directory,
    /// Write to this new file instead of standard output.
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Only this lane; may be repeated. All lanes if not given.
    #[arg(long, value_parser = parse_lane)]
    lane: Vec<Lane>,
    /// Only this device key; may be repeated.
    #[arg(long)]
    device: Vec<String>,
    /// Only what was received at or after this time (RFC 3339 or Unix milliseconds).
    #[arg(long, value_name = "TIME", value_parser = time::parse)]
    since: Option<u64>,
    /// Only what was received before this time.
    #[arg(long, value_name = "TIME", value_parser = time::parse)]
    until: Option<u64>,
    /// Only positions from this one on.
    #[arg(long, value_name = "SEQ", value_parser = parse_seq)]
    from: Option<Seq>,
    /// Only positions up to this one.
    #[arg(long, value_name = "SEQ", value_parser = parse_seq)]
    to: Option<Seq>,
}

/// A record, as exported.
#[derive(Debug, Serialize)]
struct Exported<'a> {
    log: &'a str,
    epoch: u32,
    lane: Lane,
    seq: u64,
    device: &'a str,
    topic: &'a str,
    received_ms: u64,
    received: String,
    clock_synced: bool,
    qos: u8,
    retain: bool,
    properties: ExportedProperties<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    payload: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    payload_hex: Option<String>,
}

/// The properties of a record, as exported.
#[derive(Debug, Serialize)]
pub(super) struct ExportedProperties<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    tenant: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    site: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    class: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    stream: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    content_type: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    traceparent: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tracestate: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    response_topic: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    correlation_data_hex: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    expiry_seconds: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    device_time_ms: Option<u64>,
    /// Pairs, since a name may come twice and their order is the device's.
    #[serde(skip_serializing_if = "UserProperties::is_empty", serialize_with = "pairs")]
    user: UserProperties<'a>,
}

pub(super) fn run(args: &Args, out: &mut dyn Write, remarks: &mut dyn Write) -> Result<bool, Error> {
    let mut snapshot = Snapshot::open(&args.outbox.directory)?;
    let Some(path) = &args.output else {
        return export(args, &mut snapshot, &mut BufWriter::new(out), remarks);
    };
    let file = create(&args.outbox.directory, path)?;
    export(args, &mut snapshot, &mut BufWriter::new(file), remarks)
}

/// A new file for an export, outside the outbox.
pub(super) fn create(outbox: &Path, path: &Path) -> Result<File, Error> {
    refuse_inside(outbox, path)?;
    let file = OpenOptions::new().write(true).create_new(true).open(path);
    file.map_err(|error| Error::Arguments(format!("{}: {error}", path.display())))
}

fn export(
    args: &Args,
    snapshot: &mut Snapshot,
    out: &mut dyn Write,
    remarks: &mut dyn Write,
) -> Result<bool, Error> {
    let mut well = true;
    for lane in Lane::ALL.into_iter().filter(|lane| args.lane.is_empty() || args.lane.contains(lane)) {
        let mut walk = Walk::new(snapshot, lane, args.from);
        while let Some(found) = walk.step()? {
            let (first, end, word) = match &found {
                Found::Segment(stored) => {
                    write_segment(args, &stored.segment, out)?;
                    (stored.segment.first(), stored.segment.last().next(), None)
                }
                Found::Hole { first, end, .. } => (*first, *end, Some("known hole".to_owned())),
                Found::Bad { first, end, reason } => (*first, *end, Some(format!("problem: {reason}"))),
            };
            if args.to.is_some_and(|to| first > to) {
                break;
            }
            if let Some(word) = word {
                writeln!(remarks, "{lane} {first} to {}: {word}", end.0.saturating_sub(1))?;
            }
            well &= !matches!(found, Found::Bad { .. });
            if args.to.is_some_and(|to| end > to.next()) {
                break;
            }
        }
    }
    out.flush()?;
    Ok(well)
}

fn write_segment(args: &Args, segment: &Segment, out: &mut dyn Write) -> Result<(), Error> {
    let log = segment.log().to_string();
    for (seq, record) in segment.records().filter(|(seq, record)| args.wants(*seq, record)) {
        serde_json::to_writer(&mut *out, &exported(&log, segment, seq, &record))
            .map_err(std::io::Error::from)?;
        out.write_all(b"\n")?;
    }
    Ok(())
}

fn exported<'a>(log: &'a str, segment: &Segment, seq: Seq, record: &Record<'a>) -> Exported<'a> {
    let payload = std::str::from_utf8(record.payload).ok();
    Exported {
        log,
        epoch: segment.epoch().0,
        lane: segment.lane(),
        seq: seq.0,
        device: record.device,
        topic: record.topic,
        received_ms: record.received_ms,
        received: rfc3339(record.received_ms),
        clock_synced: record.clock_synced,
        qos: record.qos,
        retain: record.retain,
        properties: ExportedProperties::of(record.properties),
        payload,
        payload_hex: payload.is_none().then(|| hex(record.payload)),
    }
}

impl<'a> ExportedProperties<'a> {
    pub(super) fn of(properties: Properties<'a>) -> Self {
        let Properties {
            tenant,
            site,
            class,
            stream,
            content_type,
            traceparent,
            tracestate,
            response_topic,
            correlation_data,
            expiry_seconds,
            device_time_ms,
            user,
        } = properties;
        let correlation_data_hex = correlation_data.map(hex);
        Self {
            tenant,
            site,
            class,
            stream,
            content_type,
            traceparent,
            tracestate,
            response_topic,
            correlation_data_hex,
            expiry_seconds,
            device_time_ms,
            user,
        }
    }
}

fn pairs<S: Serializer>(user: &UserProperties<'_>, serializer: S) -> Result<S::Ok, S::Error> {
    let mut list = serializer.serialize_seq(None)?;
    for pair in user.iter() {
        list.serialize_element(&pair)?;
    }
    list.end()
}

impl Args {
    fn wants(&self, seq: Seq, record: &Record<'_>) -> bool {
        self.from.is_none_or(|from| seq >= from)
            && self.to.is_none_or(|to| seq <= to)
            && self.since.is_none_or(|since| record.received_ms >= since)
            && self.until.is_none_or(|until| record.received_ms < until)
            && (self.device.is_empty() || self.device.iter().any(|device| device == record.device))
    }
}

/// Nothing is ever written into the outbox.
fn refuse_inside(outbox: &Path, output: &Path) -> Result<(), Error> {
    let folder = output.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let inside = match (outbox.canonicalize(), folder.canonicalize()) {
        (Ok(outbox), Ok(folder)) => folder.starts_with(outbox),
        _ => false,
    };
    if inside {
        return Err(Error::Arguments(format!("{}: is inside the outbox", output.display())));
    }
    Ok(())
}

//! `list`: the dead letters that wait, one line each.

use std::io::Write;

use clap::Args as ClapArgs;
use penstock_proto::{Lane, Seq};

use super::super::inspect::printable;
use super::super::text::{self, row};
use super::super::time::rfc3339;
use super::{Error, Site, oldest, parse_seq};
use crate::dead_letter::Letter;
use crate::outbox::Record;
use crate::outbox::offline::{Found, Snapshot, Walk};

/// Rows of a table at a time, so that the columns fit and the memory is bounded.
const ROWS: usize = 1000;
/// Columns of words before the last one, which stays ragged.
const LEFT: usize = usize::MAX;

#[derive(Debug, Clone, ClapArgs)]
pub(super) struct Args {
    /// The first position in lane dead to show; the oldest letter that waits if not given.
    #[arg(long, value_name = "SEQ", value_parser = parse_seq)]
    from: Option<Seq>,
    /// How many to show.
    #[arg(long, default_value_t = 100)]
    count: u64,
}

pub(super) fn run(
    args: &Args,
    site: &Site,
    out: &mut dyn Write,
    remarks: &mut dyn Write,
) -> Result<bool, Error> {
    let mut snapshot = Snapshot::open(&site.outbox.directory)?;
    let oldest = oldest(&snapshot);
    let from = args.from.unwrap_or(oldest);
    let waiting = snapshot.lane(Lane::Dead).next.0.saturating_sub(oldest.0);
    let mut walk = Walk::new(&mut snapshot, Lane::Dead, Some(from));
    let (mut well, mut left) = (true, args.count);
    let mut rows =
        vec![row([&"seq", &"refused", &"lane", &"was", &"target", &"device", &"bytes", &"reason"])];
    while left > 0 {
        match walk.step()? {
            None => break,
            Some(Found::Segment(stored)) => {
                for (seq, record) in stored.segment.records().filter(|(seq, _)| *seq >= from) {
                    if left > 0 {
                        rows.push(letter_row(seq, &record));
                        left -= 1;
                    }
                }
            }
            Some(Found::Hole { first, end, .. }) => {
                writeln!(remarks, "known hole: {first} to {}", end.0.saturating_sub(1))?;
            }
            Some(Found::Bad { first, end, reason }) => {
                well = false;
                writeln!(remarks, "problem: {first} to {}: {reason}", end.0.saturating_sub(1))?;
            }
        }
        if rows.len() > ROWS {
            out.write_all(text::table(&rows, LEFT).as_bytes())?;
            rows.clear();
        }
    }
    out.write_all(text::table(&rows, LEFT).as_bytes())?;
    writeln!(out, "{waiting} waiting")?;
    Ok(well)
}

fn letter_row(seq: Seq, record: &Record<'_>) -> Vec<String> {
    let (device, bytes) = (printable(record.device), record.payload.len());
    let Some((letter, _)) = Letter::read(record) else {
        return row([&seq, &"-", &"-", &"-", &"-", &device, &bytes, &"not a dead letter"]);
    };
    let (refused, target, reason) =
        (rfc3339(letter.dead_ms), printable(letter.target), printable(letter.reason));
    row([&seq, &refused, &letter.lane, &letter.seq, &target, &device, &bytes, &reason])
}

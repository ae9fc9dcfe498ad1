//! `verify`: is everything there that should be?

use std::io::{IsTerminal as _, Write, stderr};

use clap::Args as ClapArgs;
use indicatif::{ProgressBar, ProgressStyle};
use penstock_proto::Lane;

use super::stat::reason;
use super::text::{self, row};
use super::time::rfc3339;
use super::{Directory, Error};
use crate::outbox::offline::{Event, LaneTotals, Snapshot, verify};

#[derive(Debug, Clone, ClapArgs)]
pub(super) struct Args {
    #[command(flatten)]
    outbox: Directory,
}

pub(super) fn run(args: &Args, out: &mut dyn Write) -> Result<bool, Error> {
    let mut snapshot = Snapshot::open(&args.outbox.directory)?;
    let bar = bar(Lane::ALL.iter().map(|lane| snapshot.lane(*lane).stored_bytes()).sum());
    let (mut problems, mut written) = (0_u64, Ok(()));
    let totals = verify(&mut snapshot, &mut |event| {
        let line = match event {
            Event::Read(bytes) => return bar.inc(bytes),
            Event::Problem(problem) => {
                problems += 1;
                format!("problem: {problem}")
            }
            Event::Hole { lane, hole } => {
                let (last, at) = (hole.end.0.saturating_sub(1), rfc3339(hole.at_ms));
                let why = reason(hole.reason);
                format!("known hole: {lane} {} to {last}, {why}, found {at}", hole.first)
            }
        };
        if written.is_ok() {
            written = bar.suspend(|| writeln!(out, "{line}"));
        }
    });
    bar.finish_and_clear();
    written?;
    write_totals(&totals?, out)?;
    match problems {
        0 => writeln!(out, "nothing is wrong")?,
        count => writeln!(out, "PROBLEMS: {count}")?,
    }
    Ok(problems == 0)
}

fn write_totals(totals: &[LaneTotals; Lane::COUNT], out: &mut dyn Write) -> Result<(), Error> {
    let mut rows = vec![row([&"lane", &"segments", &"messages", &"bytes", &"stored bytes", &"known gone"])];
    for (lane, totals) in Lane::ALL.into_iter().zip(totals) {
        let LaneTotals { segments, messages, bytes, stored_bytes, in_holes } = totals;
        rows.push(row([&lane, segments, messages, bytes, stored_bytes, in_holes]));
    }
    Ok(out.write_all(text::table(&rows, 1).as_bytes())?)
}

fn bar(bytes: u64) -> ProgressBar {
    if !stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new(bytes);
    if let Ok(style) =
        ProgressStyle::with_template("{bar:30} {bytes}/{total_bytes}  {bytes_per_sec}  {eta} left")
    {
        bar.set_style(style);
    }
    bar
}

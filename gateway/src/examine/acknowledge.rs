//! `acknowledge`: incidents that an operator has seen.

use std::io::Write;

use clap::Args as ClapArgs;

use super::{Directory, Error};
use crate::outbox::offline::incidents::{self, Incident, LostRange};

#[derive(Debug, Clone, ClapArgs)]
pub(super) struct Args {
    #[command(flatten)]
    outbox: Directory,
    /// The incident to acknowledge; without it and without --all, incidents are listed.
    #[arg(conflicts_with = "all")]
    id: Option<String>,
    /// Acknowledge every incident.
    #[arg(long)]
    all: bool,
}

pub(super) fn run(args: &Args, out: &mut dyn Write) -> Result<bool, Error> {
    let directory = &args.outbox.directory;
    let found = incidents::list(directory)?;
    let ids: Vec<&str> = match &args.id {
        Some(id) => vec![id],
        None if args.all => {
            found.iter().filter(|found| !found.acknowledged).map(|found| found.id.as_str()).collect()
        }
        None => {
            list(&found, out)?;
            return Ok(true);
        }
    };
    for id in &ids {
        let new = incidents::acknowledge(directory, id)?;
        writeln!(out, "{id}: {}", if new { "acknowledged" } else { "was acknowledged before" })?;
    }
    if ids.is_empty() {
        writeln!(out, "nothing to acknowledge")?;
    }
    Ok(true)
}

fn list(found: &[Incident], out: &mut dyn Write) -> Result<(), Error> {
    if found.is_empty() {
        writeln!(out, "no incidents")?;
    }
    for incident in found {
        let seen = if incident.acknowledged { "acknowledged" } else { "not acknowledged" };
        writeln!(out, "{} ({seen})", line(incident))?;
    }
    Ok(())
}

/// An incident in one line.
pub(super) fn line(incident: &Incident) -> String {
    let report = match &incident.report {
        Ok(report) => report,
        Err(error) => return format!("{}: the report cannot be read: {error}", incident.id),
    };
    let range = |range: &LostRange| format!("{} {} to {}", range.lane, range.first, range.last);
    let ranges: Vec<String> = report.ranges.iter().map(range).collect();
    let ranges = if ranges.is_empty() { "nothing lost".to_owned() } else { ranges.join(", ") };
    format!("{}: {} at {}: {ranges}", incident.id, report.cause, report.at)
}

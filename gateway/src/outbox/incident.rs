//! Incidents: what is kept and said when entries that were acknowledged are gone.
//!
//! Each incident has a folder `quarantine/<id>/` with a report, `incident.json`, and the evidence:
//! the database's log files as they were found, and segments that cannot be read. An operator who
//! has seen it puts an empty file `acknowledged` beside it; until then it shows in status and
//! metrics. The report is durable before the gap is closed over, so that no crash hides it.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use penstock_proto::{Epoch, Lane, LogId, Seq};
use serde::Serialize;

use super::cloud_event::rfc3339;
use super::directory::{self, Directory};
use super::error::OpenError;
use super::event::Event;
use super::store::{Engine, FileKind};

/// Incidents that keep evidence; later ones keep their report alone, so that a disk that fails
/// again and again does not fill up with it.
const EVIDENCE_SETS_MAX: usize = 4;
/// Incidents that keep a report. A disk that fails everywhere is still announced place by place.
const REPORTS_MAX: usize = 256;
/// Bytes of damaged segments kept per incident.
pub(super) const EVIDENCE_BYTES_MAX: usize = 64 << 20;

/// Ranges that an event lists; the report has them all.
const EVENT_RANGES_MAX: usize = 100;

const REPORT: &str = "incident.json";
const ACKNOWLEDGED: &str = "acknowledged";
/// The extension of a folder that is not complete.
const UNFINISHED: &str = "unfinished";

/// What was found to be wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Cause {
    /// The log ends before the high-water mark.
    ShortLog,
    /// The database does not open with its log.
    UnreadableLog,
    /// A stored segment is damaged.
    DamagedSegment,
    /// A segment is not there.
    MissingSegment,
    /// Nobody can say what should be there.
    NoHighWaterMark,
    /// The state of the front end cannot be read whole.
    DamagedState,
}

/// Positions of one lane, first and last inclusive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Range {
    pub(super) lane: Lane,
    pub(super) first: Seq,
    pub(super) end: Seq,
}

/// Stored bytes that are no segment.
#[derive(Debug)]
pub(super) struct Damaged {
    pub(super) lane: Lane,
    pub(super) first: Seq,
    pub(super) stored: Vec<u8>,
}

/// Everything to be said about one incident.
#[derive(Debug)]
pub(super) struct Incident {
    pub(super) cause: Cause,
    pub(super) log: LogId,
    /// The opening that announces it.
    pub(super) epoch: Epoch,
    pub(super) at_ms: u64,
    /// What is gone.
    pub(super) ranges: Vec<Range>,
    /// What was read from the set-aside log although the database had given it up.
    pub(super) salvaged: Vec<Range>,
    /// Whether `ranges` is known to be all.
    pub(super) proven: bool,
    pub(super) detail: String,
}

#[derive(Serialize)]
struct Report<'a> {
    id: &'a str,
    at: String,
    log: String,
    epoch: u32,
    cause: Cause,
    ranges: Vec<RangeReport>,
    salvaged: Vec<RangeReport>,
    proven: bool,
    detail: &'a str,
}

/// A range as reports and events show it.
#[derive(Debug, Clone, Serialize)]
pub(super) struct RangeReport {
    lane: &'static str,
    first: u64,
    last: u64,
    messages: u64,
}

// === impl Range ===

impl Range {
    pub(super) const fn messages(self) -> u64 {
        self.end.0.saturating_sub(self.first.0)
    }

    pub(super) fn report(self) -> RangeReport {
        RangeReport {
            lane: self.lane.name(),
            first: self.first.0,
            last: self.end.0.saturating_sub(1),
            messages: self.messages(),
        }
    }
}

// === impl Incident ===

impl Incident {
    /// Writes report and evidence durably. Returns the folder.
    pub(super) fn keep(
        &self,
        directory: &Directory,
        engine: &dyn Engine,
        damaged: &[Damaged],
    ) -> Result<PathBuf, OpenError> {
        let quarantine = directory.quarantine();
        directory::create_durably(&quarantine)?;
        remove_unfinished(&quarantine)?;
        let kept = count(&quarantine).total;
        if kept >= REPORTS_MAX {
            return Ok(quarantine);
        }
        let (id, folder) = self.free_folder(&quarantine);
        // Complete or not at all: a report without its evidence would be read as one that had none.
        let unfinished = folder.with_extension(UNFINISHED);
        directory::create_durably(&unfinished)?;
        if kept < EVIDENCE_SETS_MAX {
            keep_logs(directory, engine, &unfinished)?;
            for segment in damaged {
                let path = unfinished.join(format!("{}-{}.segment", segment.lane.name(), segment.first.0));
                write_durably(&path, &segment.stored)?;
            }
        }
        write_durably(&unfinished.join(REPORT), &self.report(&id))?;
        directory::sync_directory(&unfinished)?;
        let rename = fs::rename(&unfinished, &folder);
        rename.map_err(|source| directory::failed(&unfinished, "rename the directory", source))?;
        directory::sync_directory(&quarantine)?;
        Ok(folder)
    }

    /// What is said about it, with the `folder` that [`Self::keep`] made.
    pub(super) fn event(&self, folder: &Path) -> Event {
        tracing::error!(cause = ?self.cause, incident = %folder.display(), detail = self.detail,
            "acknowledged entries are missing; going on behind them in a new epoch");
        let reports =
            |ranges: &[Range]| ranges.iter().take(EVENT_RANGES_MAX).map(|range| range.report()).collect();
        Event::RangeMissing {
            cause: self.cause,
            missing: self.ranges.iter().map(|range| range.messages()).sum(),
            ranges: reports(&self.ranges),
            salvaged: reports(&self.salvaged),
            proven: self.proven,
            incident: folder.display().to_string(),
        }
    }

    fn free_folder(&self, quarantine: &Path) -> (String, PathBuf) {
        let mut id = self.at_ms;
        loop {
            let folder = quarantine.join(id.to_string());
            if !folder.exists() {
                return (id.to_string(), folder);
            }
            id += 1;
        }
    }

    fn report(&self, id: &str) -> Vec<u8> {
        let ranges = |ranges: &[Range]| ranges.iter().map(|range| range.report()).collect();
        let report = Report {
            id,
            at: rfc3339(self.at_ms),
            log: self.log.to_string(),
            epoch: self.epoch.0,
            cause: self.cause,
            ranges: ranges(&self.ranges),
            salvaged: ranges(&self.salvaged),
            proven: self.proven,
            detail: &self.detail,
        };
        let mut text = serde_json::to_vec_pretty(&report).unwrap_or_default();
        text.push(b'\n');
        text
    }
}

/// Removes what a death left of incidents that were never complete: the opening after it makes its own, and
/// links to log files would keep their space for ever.
fn remove_unfinished(quarantine: &Path) -> Result<(), OpenError> {
    let list = || fs::read_dir(quarantine)?.map(|entry| Ok(entry?.path())).collect::<io::Result<Vec<_>>>();
    let folders = list().map_err(|source| directory::failed(quarantine, "list the incidents", source))?;
    folders
        .iter()
        .filter(|folder| folder.extension().is_some_and(|end| end == UNFINISHED))
        .try_for_each(|folder| directory::remove(folder))
}

/// The set-aside log files become evidence.
fn keep_logs(directory: &Directory, engine: &dyn Engine, folder: &Path) -> Result<(), OpenError> {
    for (file, kind) in directory.first_set(engine)? {
        if kind == FileKind::Table {
            continue;
        }
        let copy = folder.join(file.file_name().unwrap_or_default());
        let kept = fs::hard_link(&file, &copy).or_else(|_| directory::copy_durably(&file, &copy));
        kept.map_err(|source| directory::failed(&file, "keep the file as evidence", source))?;
    }
    Ok(())
}

fn write_durably(path: &Path, bytes: &[u8]) -> Result<(), OpenError> {
    let write = || -> io::Result<()> {
        let mut file = File::create(path)?;
        file.write_all(bytes)?;
        file.sync_all()
    };
    write().map_err(|source| directory::failed(path, "write the report", source))
}

/// How many incidents there are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Count {
    pub(super) total: usize,
    /// Not yet acknowledged by an operator.
    pub(super) open: usize,
}

/// Counts the incidents below `quarantine`; a folder that cannot be read has none.
pub(super) fn count(quarantine: &Path) -> Count {
    let mut count = Count::default();
    let Ok(entries) = fs::read_dir(quarantine) else { return count };
    for folder in entries.flatten().map(|entry| entry.path()) {
        if folder.join(REPORT).exists() && folder.extension().is_none() {
            count.total += 1;
            count.open += usize::from(!folder.join(ACKNOWLEDGED).exists());
        }
    }
    count
}

//! The moments at which a crash could leave something half done, by name.
//!
//! A point is a rule for `POWERCUT_KILL` (`docs/power-cut.md`): the process kills itself at a call on a file of
//! its outbox. The table holds what the outbox does today; a test goes through all of it.

/// A moment to die at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Point {
    /// A name for reports.
    pub name: &'static str,
    /// `before|after:OPERATION:PATTERN`, without the number.
    rule: &'static str,
    /// Which of these calls it may be, counted from 1: all of them are sure to come in a short run, and none
    /// before a first start is ready.
    pub numbers: (u64, u64),
    /// What must be going on for it to be reached.
    pub situation: Situation,
    /// What is done and what is not when the process dies.
    pub meaning: &'static str,
}

/// What must be going on for a point to be reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Situation {
    /// The directory is new.
    Creation,
    /// Devices publish.
    Load,
    /// Devices publish so much that memory becomes files: about 20 MB into one lane.
    Flush,
    /// As [`Situation::Flush`], and the cloud confirms, so that files go again.
    Trim,
    /// The gateway opens what a crash under load left.
    Opening,
    /// The gateway opens what a crash under load left, and a byte in the middle of the log has changed.
    Repair,
    /// The outbox is full and lets the oldest messages go (`on_full = "drop-oldest"`), under as much load as
    /// [`Situation::Flush`].
    Dropping,
}

impl Point {
    /// The rule for the call with this number, counted from 1 within a process.
    #[must_use]
    pub fn rule(&self, number: u64) -> String {
        format!("{}:{number}", self.rule)
    }

    /// The points of one situation.
    pub fn of(situation: Situation) -> impl Iterator<Item = &'static Point> {
        POINTS.iter().filter(move |point| point.situation == situation)
    }
}

const fn point(
    situation: Situation,
    name: &'static str,
    rule: &'static str,
    numbers: (u64, u64),
    meaning: &'static str,
) -> Point {
    Point { name, rule, numbers, situation, meaning }
}

/// The first such call.
const ONCE: (u64, u64) = (1, 1);
/// The second such call; a start makes the first.
const SECOND: (u64, u64) = (2, 2);
/// Calls that a start makes a few times and a load many times.
const OFTEN: (u64, u64) = (20, 60);

use Situation::{Creation, Dropping, Flush, Load, Opening, Repair, Trim};

/// Every point.
pub const POINTS: &[Point] = &[
    point(Creation, "before-database-folder", "before:mkdir:database", ONCE, "only the lock file exists"),
    point(Creation, "after-database-folder", "after:mkdir:database", ONCE, "the database's folder is empty"),
    point(
        Creation,
        "before-database-current",
        "before:rename:database/CURRENT",
        ONCE,
        "the database has no beginning yet",
    ),
    point(
        Creation,
        "after-database-current",
        "after:rename:database/CURRENT",
        ONCE,
        "the database exists, its lanes do not",
    ),
    point(
        Creation,
        "before-first-mark",
        "before:rename:high-water",
        ONCE,
        "the database is complete, the mark is not",
    ),
    point(
        Creation,
        "after-first-mark",
        "after:rename:high-water",
        ONCE,
        "the mark has its name, not yet durably",
    ),
    point(
        Load,
        "before-log-sync",
        "before:sync:database/*.log",
        OFTEN,
        "a group is written and not durable; nobody was told",
    ),
    point(
        Load,
        "after-log-sync",
        "after:sync:database/*.log",
        OFTEN,
        "a group is durable; mark and acknowledgements are missing",
    ),
    point(Load, "after-log-write", "after:write:database/*.log", OFTEN, "a part of a group may be written"),
    point(
        Load,
        "before-mark-write",
        "before:write:high-water",
        OFTEN,
        "a group is durable and above the mark",
    ),
    point(
        Load,
        "after-mark-write",
        "after:write:high-water",
        OFTEN,
        "a group is durable and below the mark; acknowledgements are missing",
    ),
    point(
        Load,
        "before-mark-sync",
        "before:sync:high-water",
        ONCE,
        "the mark on the disk is up to a second old",
    ),
    point(Load, "after-mark-sync", "after:sync:high-water", ONCE, "the mark on the disk is new"),
    point(
        Flush,
        "after-log-switch",
        "after:create:database/*.log",
        SECOND,
        "a new log file exists and is empty",
    ),
    point(
        Flush,
        "before-file-sync",
        "before:sync:database/*.sst",
        ONCE,
        "a lane's memory is written to a file that is not durable",
    ),
    point(
        Flush,
        "after-file-sync",
        "after:sync:database/*.sst",
        ONCE,
        "the file is durable and nothing refers to it",
    ),
    point(
        Trim,
        "before-file-removal",
        "before:unlink:database/*.sst",
        ONCE,
        "the trim is durable, its files are still there",
    ),
    point(Trim, "after-file-removal", "after:unlink:database/*.sst", ONCE, "some files of a trim are gone"),
    point(
        Opening,
        "before-aside-folder",
        "before:mkdir:wal-aside",
        ONCE,
        "nothing was changed by the opening",
    ),
    point(
        Opening,
        "after-aside-folder",
        "after:mkdir:wal-aside/*",
        ONCE,
        "the files are about to be set aside",
    ),
    point(Opening, "before-aside-link", "before:link:wal-aside/*", ONCE, "no file is set aside"),
    point(Opening, "after-aside-link", "after:link:wal-aside/*", ONCE, "some files are set aside"),
    point(
        Opening,
        "before-aside-name",
        "before:rename:wal-aside/*",
        ONCE,
        "the set is complete and does not say so",
    ),
    point(Opening, "after-aside-name", "after:rename:wal-aside/*", ONCE, "the set is complete"),
    point(
        Opening,
        "before-current-rename",
        "before:rename:database/CURRENT",
        ONCE,
        "the logs were replayed, the old manifest is in force",
    ),
    point(
        Opening,
        "after-current-rename",
        "after:rename:database/CURRENT",
        ONCE,
        "the logs were replayed, the new manifest is in force",
    ),
    point(
        Opening,
        "before-log-removal",
        "before:unlink:database/*.log",
        ONCE,
        "replayed logs are still there",
    ),
    point(Opening, "after-log-removal", "after:unlink:database/*.log", ONCE, "some replayed logs are gone"),
    point(
        Opening,
        "before-manifest-removal",
        "before:unlink:database/MANIFEST-*",
        ONCE,
        "two manifests exist",
    ),
    point(
        Opening,
        "before-epoch-mark",
        "before:write:high-water",
        ONCE,
        "the new epoch is durable, the mark says the old one",
    ),
    point(
        Opening,
        "after-epoch-mark",
        "after:sync:high-water",
        ONCE,
        "the mark says the new epoch; files are still set aside",
    ),
    point(
        Opening,
        "before-aside-end",
        "before:rename:wal-aside.done",
        ONCE,
        "the opening is done but for what was set aside",
    ),
    point(
        Opening,
        "after-aside-end",
        "after:rename:wal-aside.done",
        ONCE,
        "what was set aside is no longer needed and still there",
    ),
    point(
        Opening,
        "after-aside-removal",
        "after:unlink:wal-aside.done/*",
        ONCE,
        "a part of what was set aside is gone",
    ),
    // First: only a few incidents keep evidence.
    point(Repair, "after-evidence-link", "after:link:quarantine/*", ONCE, "some evidence is kept"),
    point(
        Repair,
        "before-report-sync",
        "before:sync:quarantine/*.json",
        ONCE,
        "the report is written and not durable",
    ),
    point(Repair, "before-salvage", "before:mkdir:salvage", ONCE, "it is known that something is missing"),
    point(Repair, "after-salvage-link", "after:link:salvage/*", ONCE, "a copy for salvage is begun"),
    point(
        Repair,
        "after-salvage-removal",
        "after:unlink:salvage/*",
        ONCE,
        "salvage is done, nothing is announced",
    ),
    point(Repair, "before-quarantine-folder", "before:mkdir:quarantine/*", ONCE, "no incident is kept"),
    point(
        Repair,
        "before-incident-name",
        "before:rename:quarantine/*",
        ONCE,
        "the incident is complete and does not say so",
    ),
    point(
        Repair,
        "after-incident-name",
        "after:rename:quarantine/*",
        ONCE,
        "the incident is announced on disk, the lanes do not know of it",
    ),
    point(
        Repair,
        "before-repaired-mark",
        "before:write:high-water",
        ONCE,
        "the hole is durable, the mark says the old epoch",
    ),
    point(
        Repair,
        "after-repaired-mark",
        "after:sync:high-water",
        ONCE,
        "the repair is done but for what was set aside",
    ),
    point(
        Dropping,
        "before-dropped-catalogue",
        "before:sync:database/MANIFEST-*",
        (6, 6),
        "a drop is durable, its files are still listed",
    ),
    point(
        Dropping,
        "before-dropped-file",
        "before:unlink:database/*.sst",
        ONCE,
        "a drop is durable, its files are no longer listed and still there",
    ),
    point(
        Dropping,
        "after-dropped-file",
        "after:unlink:database/*.sst",
        ONCE,
        "a drop is durable, some of its files are gone",
    ),
    point(
        Dropping,
        "before-dropping-sync",
        "before:sync:database/*.log",
        OFTEN,
        "groups and drops are written and not durable",
    ),
    point(
        Dropping,
        "after-dropping-sync",
        "after:sync:database/*.log",
        OFTEN,
        "groups and drops are durable, nobody was told",
    ),
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn names_and_rules_are_unique_and_whole() {
        let names: BTreeSet<&str> = POINTS.iter().map(|point| point.name).collect();
        assert_eq!(names.len(), POINTS.len());
        let moments: BTreeSet<(&str, Situation)> =
            POINTS.iter().map(|point| (point.rule, point.situation)).collect();
        assert_eq!(moments.len(), POINTS.len(), "the same moment has two names");
        for point in POINTS {
            let parts: Vec<&str> = point.rule.split(':').collect();
            assert!(matches!(parts[..], ["before" | "after", _, _]), "{point:?}");
            assert!(
                point.numbers.0 >= 1 && point.numbers.0 <= point.numbers.1 && !point.meaning.is_empty(),
                "{point:?}"
            );
        }
    }

    #[test]
    fn a_rule_gets_its_number() {
        let point = Point::of(Load).next().unwrap();
        assert_eq!(point.rule(7), "before:sync:database/*.log:7");
    }
}

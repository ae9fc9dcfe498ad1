//! What the outbox measures. Counted per group, not per message.

use metrics::{Counter, Gauge, Histogram};
use penstock_proto::Lane;

use super::error::Refused;
use super::gate::DiskFull;
use super::incident::Range;
use crate::observe::{Kind, Metric, counter, counter_with, counter_with_two, gauge, gauge_with, histogram};

const LANES: &[&str] = &["alerts", "status", "telemetry", "bulk", "dead"];
const DROP_REASONS: &[&str] = &["quota", "space"];
const REASONS: &[&str] = &["full", "quota", "space", "poisoned", "closed"];
const URGENCIES: &[&str] = &["ordinary", "urgent"];
const FAULTS: &[&str] = &["damaged", "missing", "unreadable"];

const fn metric(name: &'static str, kind: Kind, help: &'static str) -> Metric {
    Metric { name, kind, help, labels: &[] }
}

const fn per_lane(name: &'static str, kind: Kind, help: &'static str) -> Metric {
    Metric { name, kind, help, labels: &[("lane", LANES)] }
}

const SECONDS: Kind = Kind::Histogram(&[
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5,
]);

const COMMITS: Metric =
    metric("penstock_outbox_commits_total", Kind::Counter, "Groups made durable, one sync each.");
const GROUP_MESSAGES: Metric = metric(
    "penstock_outbox_group_messages",
    Kind::Histogram(&[1.0, 4.0, 16.0, 64.0, 256.0, 1024.0, 4096.0, 16384.0]),
    "Messages per group.",
);
const QUEUE_WAIT: Metric = metric(
    "penstock_outbox_queue_wait_seconds",
    SECONDS,
    "From the first submission of a group to the start of its commit.",
);
const COMMIT: Metric =
    metric("penstock_outbox_commit_duration_seconds", SECONDS, "Write and sync of a group.");
const QUEUE_BYTES: Metric =
    metric("penstock_outbox_queue_bytes", Kind::Gauge, "Bytes reserved or submitted and not yet durable.");
const BACKLOG_MESSAGES: Metric = per_lane(
    "penstock_outbox_backlog_messages",
    Kind::Gauge,
    "Messages stored and not yet confirmed by every consumer.",
);
const BACKLOG_BYTES: Metric = per_lane(
    "penstock_outbox_backlog_bytes",
    Kind::Gauge,
    "Bytes stored and not yet confirmed by every consumer, uncompressed.",
);
const OLDEST: Metric = per_lane(
    "penstock_outbox_oldest_age_seconds",
    Kind::Gauge,
    "Age of the oldest unconfirmed message; 0 if there is none.",
);
const APPENDED: Metric =
    per_lane("penstock_outbox_appended_messages_total", Kind::Counter, "Messages made durable.");
const APPENDED_BYTES: Metric =
    per_lane("penstock_outbox_appended_bytes_total", Kind::Counter, "Bytes made durable, uncompressed.");
const STORED_BYTES: Metric = per_lane(
    "penstock_outbox_stored_bytes_total",
    Kind::Counter,
    "Bytes made durable, as stored with headers and compression.",
);
const TRIMMED: Metric = per_lane(
    "penstock_outbox_trimmed_messages_total",
    Kind::Counter,
    "Messages deleted after every consumer had confirmed them.",
);
const DROPPED: Metric = Metric {
    name: "penstock_outbox_dropped_messages_total",
    kind: Kind::Counter,
    help: "Messages let go before every consumer had confirmed them, as `on_full = \"drop-oldest\"` says.",
    labels: &[("lane", LANES), ("reason", DROP_REASONS)],
};
const DROPPED_BYTES: Metric = per_lane(
    "penstock_outbox_dropped_bytes_total",
    Kind::Counter,
    "Bytes let go to make room, confirmed or not, uncompressed.",
);
const MISSING: Metric = per_lane(
    "penstock_outbox_missing_messages_total",
    Kind::Counter,
    "Messages that were acknowledged and could not be read any more; each has an incident.",
);
const INCIDENTS: Metric = metric(
    "penstock_outbox_incidents",
    Kind::Gauge,
    "Incidents with missing messages that no operator has acknowledged.",
);
const FAILED: Metric = metric(
    "penstock_outbox_failed_messages_total",
    Kind::Counter,
    "Messages whose commit failed; none of them was acknowledged.",
);
const SIDECAR_ERRORS: Metric = metric(
    "penstock_outbox_sidecar_errors_total",
    Kind::Counter,
    "Failed writes or syncs of the high-water mark.",
);
const POISONED: Metric = metric(
    "penstock_outbox_poisoned_total",
    Kind::Counter,
    "Write errors after which the database was closed and opened again.",
);
const POISONED_NOW: Metric =
    metric("penstock_outbox_poisoned", Kind::Gauge, "1 while nothing is taken in because of a write error.");
const REOPENS: Metric = metric(
    "penstock_outbox_reopens_total",
    Kind::Counter,
    "Attempts to open the database again after a write error.",
);
const REALTIME: Metric = metric(
    "penstock_outbox_committer_realtime",
    Kind::Gauge,
    "1 if the thread that commits got real-time scheduling.",
);
const READS: Metric = metric(
    "penstock_outbox_disk_reads_total",
    Kind::Counter,
    "Reads of stored segments that were no longer in memory.",
);
const REFUSED: Metric = Metric {
    name: "penstock_outbox_refused_total",
    kind: Kind::Counter,
    help: "Reservations refused; the device is not read until there is room.",
    labels: &[("reason", REASONS)],
};

const STATE_CHANGES: Metric = metric(
    "penstock_outbox_state_changes_total",
    Kind::Counter,
    "Keys of the front end's state that were put or deleted: sessions, queues, retained messages.",
);
const STATE_BYTES: Metric = metric(
    "penstock_outbox_state_written_bytes_total",
    Kind::Counter,
    "Bytes of the changes of the front end's state that were written.",
);
const GROUP_BYTES: Metric = metric(
    "penstock_outbox_group_bytes",
    Kind::Histogram(&[256.0, 1024.0, 4096.0, 16384.0, 65536.0, 262_144.0, 1_048_576.0, 4_194_304.0]),
    "Bytes per group, as stored.",
);
const HEAD: Metric = per_lane(
    "penstock_outbox_head_position",
    Kind::Gauge,
    "Where the lane begins: everything below was deleted durably.",
);
const NEXT: Metric =
    per_lane("penstock_outbox_next_position", Kind::Gauge, "The position that the next message gets.");
const TRIMMED_BYTES: Metric = per_lane(
    "penstock_outbox_trimmed_bytes_total",
    Kind::Counter,
    "Bytes deleted after every consumer had confirmed them, uncompressed.",
);
const QUOTA_RATIO: Metric = metric(
    "penstock_outbox_quota_ratio",
    Kind::Gauge,
    "Unconfirmed bytes of all lanes as a share of `bytes_max`.",
);
const DISK_FREE: Metric = metric(
    "penstock_outbox_disk_free_bytes",
    Kind::Gauge,
    "Free space on the disk of the outbox, without what is reserved for root.",
);
const DISK_FULL: Metric = Metric {
    name: "penstock_outbox_disk_full",
    kind: Kind::Gauge,
    help: "1 while messages are refused because too little space is free: `ordinary` is telemetry and bulk, \
           `urgent` is alerts, status and dead letters.",
    labels: &[("lanes", URGENCIES)],
};
const TABLE_BYTES: Metric = per_lane(
    "penstock_outbox_table_bytes",
    Kind::Gauge,
    "Bytes in the database's table files, trimmed ones included until they are deleted.",
);
const TABLE_FILES: Metric =
    per_lane("penstock_outbox_table_files", Kind::Gauge, "The database's table files.");
const LEVEL_ZERO_FILES: Metric = per_lane(
    "penstock_outbox_level_zero_files",
    Kind::Gauge,
    "Table files that were not moved down yet and cannot be deleted below a trim.",
);
const BUFFER_BYTES: Metric = per_lane(
    "penstock_outbox_buffer_bytes",
    Kind::Gauge,
    "Bytes in the database's memory that are in no table file yet.",
);
const LOG_BYTES: Metric = metric(
    "penstock_outbox_log_bytes",
    Kind::Gauge,
    "Bytes of the write-ahead log: the most that an opening after a crash replays.",
);
const DELETED_FILES: Metric = per_lane(
    "penstock_outbox_deleted_files_total",
    Kind::Counter,
    "Table files deleted below a trim without rewriting them.",
);
const CLEANED: Metric = per_lane(
    "penstock_outbox_idle_cleanups_total",
    Kind::Counter,
    "Times a lane that was empty and idle gave its memory and files back.",
);
const FLUSHED_BYTES: Metric =
    metric("penstock_outbox_flushed_bytes_total", Kind::Counter, "Bytes written to table files from memory.");
const COMPACTED_BYTES: Metric = metric(
    "penstock_outbox_compacted_bytes_total",
    Kind::Counter,
    "Bytes written to table files by compaction; files that only move down cost none.",
);
const STALL: Metric = metric(
    "penstock_outbox_write_stall_seconds",
    Kind::Gauge,
    "For how long the database slowed writes down or stopped them since it was opened, to catch up with flushes.",
);
const WRITES_STOPPED: Metric =
    metric("penstock_outbox_writes_stopped", Kind::Gauge, "1 while the database has stopped writes.");
const BACKGROUND_ERRORS: Metric = metric(
    "penstock_outbox_background_errors",
    Kind::Gauge,
    "Failed flushes and compactions since the database was opened.",
);
const RECOVERY: Metric = metric(
    "penstock_outbox_recovery_seconds",
    Kind::Gauge,
    "How long the last opening took, with its checks.",
);
const RECOVERED: Metric = per_lane(
    "penstock_outbox_recovered_messages",
    Kind::Gauge,
    "Unconfirmed messages that the start of the gateway found.",
);
const SCRUBBED: Metric = metric(
    "penstock_outbox_scrubbed_bytes_total",
    Kind::Counter,
    "Stored bytes that were read and checked in the background.",
);
const SCRUBS: Metric = metric(
    "penstock_outbox_scrubs_total",
    Kind::Counter,
    "Times the check in the background came to the end of all lanes.",
);
const SCRUB_FAULTS: Metric = Metric {
    name: "penstock_outbox_scrub_faults_total",
    kind: Kind::Counter,
    help: "What the check in the background found: `damaged` segments, `missing` ones, and stretches of a lane that \
           are `unreadable`. Each place counts once.",
    labels: &[("fault", FAULTS)],
};

pub(crate) const METRICS: &[Metric] = &[
    COMMITS,
    GROUP_MESSAGES,
    QUEUE_WAIT,
    COMMIT,
    QUEUE_BYTES,
    BACKLOG_MESSAGES,
    BACKLOG_BYTES,
    OLDEST,
    APPENDED,
    APPENDED_BYTES,
    STORED_BYTES,
    TRIMMED,
    DROPPED,
    DROPPED_BYTES,
    MISSING,
    INCIDENTS,
    FAILED,
    SIDECAR_ERRORS,
    POISONED,
    POISONED_NOW,
    REOPENS,
    REALTIME,
    READS,
    REFUSED,
    STATE_CHANGES,
    STATE_BYTES,
    GROUP_BYTES,
    HEAD,
    NEXT,
    TRIMMED_BYTES,
    QUOTA_RATIO,
    DISK_FREE,
    DISK_FULL,
    TABLE_BYTES,
    TABLE_FILES,
    LEVEL_ZERO_FILES,
    BUFFER_BYTES,
    LOG_BYTES,
    DELETED_FILES,
    CLEANED,
    FLUSHED_BYTES,
    COMPACTED_BYTES,
    STALL,
    WRITES_STOPPED,
    BACKGROUND_ERRORS,
    RECOVERY,
    RECOVERED,
    SCRUBBED,
    SCRUBS,
    SCRUB_FAULTS,
];

/// Why entries are let go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum DropReason {
    /// The quota is nearly used up.
    Quota,
    /// The disk is nearly full.
    Space,
}

impl DropReason {
    /// Its name in metrics and events.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Quota => "quota",
            Self::Space => "space",
        }
    }
}

/// The handles, made once.
pub(super) struct Metrics {
    pub(super) commits: Counter,
    pub(super) group_messages: Histogram,
    pub(super) queue_wait: Histogram,
    pub(super) commit: Histogram,
    pub(super) queue_bytes: Gauge,
    pub(super) lanes: [LaneMetrics; Lane::COUNT],
    pub(super) incidents: Gauge,
    pub(super) failed: Counter,
    pub(super) sidecar_errors: Counter,
    pub(super) poisoned: Counter,
    pub(super) poisoned_now: Gauge,
    pub(super) reopens: Counter,
    pub(super) realtime: Gauge,
    pub(super) reads: Counter,
    pub(super) state_changes: Counter,
    pub(super) state_bytes: Counter,
    pub(super) group_bytes: Histogram,
    pub(super) quota_ratio: Gauge,
    pub(super) recovery: Gauge,
    pub(super) scrubbed: Counter,
    pub(super) scrubs: Counter,
    pub(super) scrub_damaged: Counter,
    pub(super) scrub_missing: Counter,
    pub(super) scrub_unreadable: Counter,
    pub(super) database: DatabaseMetrics,
    disk_free: Gauge,
    disk_full: [Gauge; 2],
    refused: [Counter; 5],
}

/// What the database says of itself.
pub(super) struct DatabaseMetrics {
    pub(super) log_bytes: Gauge,
    pub(super) flushed_bytes: Counter,
    pub(super) compacted_bytes: Counter,
    pub(super) stall_seconds: Gauge,
    pub(super) writes_stopped: Gauge,
    pub(super) background_errors: Gauge,
}

pub(super) struct LaneMetrics {
    pub(super) backlog_messages: Gauge,
    pub(super) backlog_bytes: Gauge,
    pub(super) oldest: Gauge,
    pub(super) appended: Counter,
    pub(super) appended_bytes: Counter,
    pub(super) stored_bytes: Counter,
    pub(super) trimmed: Counter,
    dropped: [Counter; DROP_REASONS.len()],
    pub(super) dropped_bytes: Counter,
    missing: Counter,
    pub(super) head: Gauge,
    pub(super) next: Gauge,
    pub(super) trimmed_bytes: Counter,
    pub(super) table_bytes: Gauge,
    pub(super) table_files: Gauge,
    pub(super) level_zero_files: Gauge,
    pub(super) buffer_bytes: Gauge,
    pub(super) deleted_files: Counter,
    pub(super) cleaned: Counter,
    pub(super) recovered: Gauge,
}

impl Metrics {
    pub(super) fn new() -> Self {
        Self {
            commits: counter(&COMMITS),
            group_messages: histogram(&GROUP_MESSAGES),
            queue_wait: histogram(&QUEUE_WAIT),
            commit: histogram(&COMMIT),
            queue_bytes: gauge(&QUEUE_BYTES),
            lanes: Lane::ALL.map(LaneMetrics::new),
            incidents: gauge(&INCIDENTS),
            failed: counter(&FAILED),
            sidecar_errors: counter(&SIDECAR_ERRORS),
            poisoned: counter(&POISONED),
            poisoned_now: gauge(&POISONED_NOW),
            reopens: counter(&REOPENS),
            realtime: gauge(&REALTIME),
            reads: counter(&READS),
            state_changes: counter(&STATE_CHANGES),
            state_bytes: counter(&STATE_BYTES),
            group_bytes: histogram(&GROUP_BYTES),
            quota_ratio: gauge(&QUOTA_RATIO),
            recovery: gauge(&RECOVERY),
            scrubbed: counter(&SCRUBBED),
            scrubs: counter(&SCRUBS),
            scrub_damaged: counter_with(&SCRUB_FAULTS, "fault", "damaged"),
            scrub_missing: counter_with(&SCRUB_FAULTS, "fault", "missing"),
            scrub_unreadable: counter_with(&SCRUB_FAULTS, "fault", "unreadable"),
            database: DatabaseMetrics {
                log_bytes: gauge(&LOG_BYTES),
                flushed_bytes: counter(&FLUSHED_BYTES),
                compacted_bytes: counter(&COMPACTED_BYTES),
                stall_seconds: gauge(&STALL),
                writes_stopped: gauge(&WRITES_STOPPED),
                background_errors: gauge(&BACKGROUND_ERRORS),
            },
            disk_free: gauge(&DISK_FREE),
            disk_full: ["ordinary", "urgent"].map(|lanes| gauge_with(&DISK_FULL, "lanes", lanes)),
            refused: ["full", "quota", "space", "poisoned", "closed"]
                .map(|reason| counter_with(&REFUSED, "reason", reason)),
        }
    }

    pub(super) fn lane(&self, lane: Lane) -> &LaneMetrics {
        lane.pick(&self.lanes)
    }

    /// Counts entries that are gone.
    pub(super) fn missing(&self, ranges: &[Range]) {
        for range in ranges {
            self.lane(range.lane).missing.increment(range.messages());
        }
    }

    pub(super) fn refused(&self, reason: Refused) {
        let [full, quota, space, poisoned, closed] = &self.refused;
        let counter = match reason {
            Refused::Full => full,
            Refused::Quota => quota,
            Refused::Space => space,
            Refused::Poisoned => poisoned,
            Refused::Closed => closed,
        };
        counter.increment(1);
    }

    /// What the file system said, and what follows from it.
    pub(super) fn disk_free(&self, free: u64, full: DiskFull) {
        self.disk_free.set(lossy(free));
        for (gauge, full) in self.disk_full.iter().zip([full.ordinary, full.urgent]) {
            gauge.set(if full { 1.0 } else { 0.0 });
        }
    }
}

/// For gauges, which are floating point: exact up to 2^53.
#[expect(clippy::cast_precision_loss, reason = "a gauge of more than 2^53 need not be exact")]
pub(super) const fn lossy(value: u64) -> f64 {
    value as f64
}

impl LaneMetrics {
    pub(super) const fn dropped(&self, reason: DropReason) -> &Counter {
        let [quota, space] = &self.dropped;
        match reason {
            DropReason::Quota => quota,
            DropReason::Space => space,
        }
    }

    fn new(lane: Lane) -> Self {
        let name = lane.name();
        Self {
            backlog_messages: gauge_with(&BACKLOG_MESSAGES, "lane", name),
            backlog_bytes: gauge_with(&BACKLOG_BYTES, "lane", name),
            oldest: gauge_with(&OLDEST, "lane", name),
            appended: counter_with(&APPENDED, "lane", name),
            appended_bytes: counter_with(&APPENDED_BYTES, "lane", name),
            stored_bytes: counter_with(&STORED_BYTES, "lane", name),
            trimmed: counter_with(&TRIMMED, "lane", name),
            dropped: [DropReason::Quota, DropReason::Space]
                .map(|reason| counter_with_two(&DROPPED, [("lane", name), ("reason", reason.name())])),
            dropped_bytes: counter_with(&DROPPED_BYTES, "lane", name),
            missing: counter_with(&MISSING, "lane", name),
            head: gauge_with(&HEAD, "lane", name),
            next: gauge_with(&NEXT, "lane", name),
            trimmed_bytes: counter_with(&TRIMMED_BYTES, "lane", name),
            table_bytes: gauge_with(&TABLE_BYTES, "lane", name),
            table_files: gauge_with(&TABLE_FILES, "lane", name),
            level_zero_files: gauge_with(&LEVEL_ZERO_FILES, "lane", name),
            buffer_bytes: gauge_with(&BUFFER_BYTES, "lane", name),
            deleted_files: counter_with(&DELETED_FILES, "lane", name),
            cleaned: counter_with(&CLEANED, "lane", name),
            recovered: gauge_with(&RECOVERED, "lane", name),
        }
    }
}

impl std::fmt::Debug for Metrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Metrics")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_cover_every_lane() {
        assert!(Lane::ALL.iter().map(|lane| lane.name()).eq(LANES.iter().copied()));
        // Making the handles checks every label against its declaration.
        drop(Metrics::new());
    }
}

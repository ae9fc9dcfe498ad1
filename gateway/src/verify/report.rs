//! What `penstock verify` prints.

use std::fmt;
use std::io;

use penstock_proto::{GatewayId, Lane, LogId};
use serde::Serialize;

use super::chain::Summary;

/// Everything found, for `--json`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Whether every promise was kept: no unexplained gap and nothing reordered.
    pub kept: bool,
    /// Sums over all partitions.
    pub totals: Totals,
    /// Each gateway's lanes over all topics read.
    pub lanes: Vec<LaneReport>,
    /// Each chain: gateway, log, lane, partition and stream.
    pub chains: Vec<ChainReport>,
    /// Each partition read.
    pub partitions: Vec<PartitionReport>,
}

/// Sums over all partitions.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Totals {
    /// Records read.
    pub records: u64,
    /// Entries in them: one each, and those of packs.
    pub entries: u64,
    /// Records that are packs.
    pub packs: u64,
    /// Gaps that no named loss explains. Breaks the promise.
    pub gaps: u64,
    /// Gaps whose missing record lies in a named loss.
    pub explained_gaps: u64,
    /// Entries that loss records name.
    pub lost_by_name: u64,
    /// Entries seen before in their chain. Allowed: they carry the identity of the first one.
    pub duplicates: u64,
    /// Entries that another chain carries as well: sent again in the other stream or to another partition. Allowed.
    pub moved: u64,
    /// First occurrences after a later entry of their chain. Breaks the promise.
    pub reordered: u64,
    /// Records that no gateway sent.
    pub without_header: u64,
    /// Records with a `penstock` header that cannot be read.
    pub bad_header: u64,
    /// Packs that are not what their headers say. Breaks the promise: what was in them cannot be read.
    pub bad_pack: u64,
    /// Old gaps joined for lack of memory; above 0 the number of gaps is a lower bound.
    pub joined_gaps: u64,
}

/// One lane of one log over all topics read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LaneReport {
    /// The gateway.
    pub gateway: String,
    /// Its outbox directory, as 16 hexadecimal digits.
    pub log: String,
    /// The lane.
    pub lane: Lane,
    /// Different entries found.
    pub entries: u64,
    /// Highest seq found.
    pub last: u64,
    /// Entries that loss records name.
    pub lost_by_name: u64,
    /// Entries that more than one chain carries, once for each further one.
    pub moved: u64,
    /// Seqs up to `last` neither found nor named: routed to topics that were not read, or never sent. No
    /// verdict by itself, since no chain of the partitions read claims them.
    pub missing: u64,
    #[serde(skip)]
    lowest: u64,
    #[serde(skip)]
    trimmed: bool,
}

/// One chain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ChainReport {
    /// The gateway.
    pub gateway: String,
    /// Its outbox directory, as 16 hexadecimal digits.
    pub log: String,
    /// The lane.
    pub lane: Lane,
    /// The topic.
    pub topic: String,
    /// The partition.
    pub partition: u32,
    /// `l` for live, `b` for backlog.
    pub stream: char,
    /// The counts.
    #[serde(flatten)]
    pub summary: Summary,
}

/// One partition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PartitionReport {
    /// The topic.
    pub topic: String,
    /// The partition.
    pub partition: u32,
    /// First offset that exists.
    pub low: i64,
    /// One past the last offset read.
    pub high: i64,
    /// Records read.
    pub records: u64,
    /// Entries in them.
    pub entries: u64,
    /// Records that are packs.
    pub packs: u64,
    /// Records that no gateway sent.
    pub without_header: u64,
    /// Records with a `penstock` header that cannot be read.
    pub bad_header: u64,
    /// Packs that are not what their headers say.
    pub bad_pack: u64,
}

// === impl LaneReport ===

impl LaneReport {
    pub(super) fn new(gateway: &GatewayId, log: LogId, lane: Lane) -> Self {
        Self {
            gateway: gateway.to_string(),
            log: log.to_string(),
            lane,
            entries: 0,
            last: 0,
            lost_by_name: 0,
            moved: 0,
            missing: 0,
            lowest: u64::MAX,
            trimmed: false,
        }
    }

    pub(super) fn add(&mut self, chain: &Summary, trimmed: bool) {
        self.entries += chain.records - chain.duplicates;
        self.last = self.last.max(chain.last);
        self.lowest = self.lowest.min(chain.first);
        self.trimmed |= trimmed;
    }

    /// `distinct` is how many different entries there are, if that is known; `entries` then counted each once per
    /// chain.
    pub(super) fn finish(mut self, distinct: Option<u64>, lost_by_name: u64) -> Self {
        let first = if self.trimmed { self.lowest } else { 1 };
        let expected = (self.last + 1).saturating_sub(first);
        if let Some(distinct) = distinct {
            self.moved = self.entries.saturating_sub(distinct);
            self.entries = distinct;
        }
        self.lost_by_name = lost_by_name;
        self.missing = expected.saturating_sub(self.entries).saturating_sub(lost_by_name);
        self
    }
}

// === impl Report ===

impl Report {
    pub(super) fn finish(mut self) -> Self {
        let Totals { gaps, reordered, bad_pack, .. } = self.totals;
        self.kept = gaps == 0 && reordered == 0 && bad_pack == 0;
        self
    }

    /// Writes it as JSON.
    ///
    /// # Errors
    ///
    /// The output's errors.
    pub fn write_json(&self, mut out: impl io::Write) -> io::Result<()> {
        serde_json::to_writer_pretty(&mut out, self)?;
        writeln!(out)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "chains (gateway/log lane topic[partition]/stream):")?;
        for chain in &self.chains {
            let ChainReport { gateway, log, lane, topic, partition, stream, summary } = chain;
            let Summary { records, first, last, gaps, explained, duplicates, reordered } = summary;
            write!(f, "  {gateway}/{log} {lane} {topic}[{partition}]/{stream}: ")?;
            write!(f, "{records} records, seq {first} to {last}, {gaps} gaps, {explained} explained, ")?;
            writeln!(f, "{duplicates} duplicates, {reordered} reordered")?;
        }
        writeln!(f, "lanes:")?;
        for LaneReport { gateway, log, lane, entries, last, lost_by_name, missing, .. } in &self.lanes {
            write!(f, "  {gateway}/{log} {lane}: {entries} entries up to seq {last}, ")?;
            writeln!(f, "{lost_by_name} lost by name, {missing} in none of these topics")?;
        }
        let strange = |read: &&PartitionReport| read.without_header + read.bad_header + read.bad_pack > 0;
        for read in self.partitions.iter().filter(strange) {
            let PartitionReport { topic, partition, without_header, bad_header, bad_pack, .. } = read;
            write!(
                f,
                "{topic}[{partition}]: {without_header} without header, {bad_header} with a bad one, "
            )?;
            writeln!(f, "{bad_pack} bad packs")?;
        }
        let Totals {
            records,
            entries,
            packs,
            moved,
            gaps,
            explained_gaps,
            duplicates,
            reordered,
            joined_gaps,
            ..
        } = self.totals;
        if packs > 0 {
            writeln!(f, "packed: {packs} of the records; {entries} entries in all")?;
        }
        if moved > 0 {
            writeln!(f, "sent again in another stream or partition: {moved} entries")?;
        }
        write!(f, "total: {records} records, {gaps} gaps, {explained_gaps} explained, ")?;
        writeln!(f, "{duplicates} duplicates, {reordered} reordered")?;
        if joined_gaps > 0 {
            writeln!(f, "memory was short: {joined_gaps} old gaps are not counted")?;
        }
        writeln!(f, "{}", if self.kept { "every promise was kept" } else { "A PROMISE WAS BROKEN" })
    }
}

//! Sorts records into chains and adds up what they show. Pure: records in, a report out.

use std::collections::BTreeMap;
use std::str::FromStr;

use penstock_proto::packed::{self, inflate, unpack};
use penstock_proto::{GatewayId, Identity, LOSS_TYPE_SUFFIX, Lane, LogId, Loss, Seq, Stream};
use serde::Deserialize;

use super::chain::{Chain, Ranges};
use super::report::{ChainReport, LaneReport, PartitionReport, Report, Totals};
use super::seen::{Room, Seen};

/// Most chains, so that a topic full of invented names cannot take all memory.
const CHAINS_MAX: usize = 262_144;

/// What a record shows of itself.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Found<'a> {
    /// Its header `penstock`.
    pub(crate) header: Header<'a>,
    /// Its header `penstock-pack`.
    pub(crate) pack: Header<'a>,
    pub(crate) payload: &'a [u8],
}

/// The value of a header of a record.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Header<'a> {
    /// There is none.
    Absent,
    /// Exactly one.
    One(&'a [u8]),
    /// Several, which no gateway writes.
    Several,
}

/// A partition of a topic, with the offsets that were read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PartitionRead {
    pub(crate) topic: String,
    pub(crate) partition: u32,
    /// First offset that exists; above 0 retention removed what was before.
    pub(crate) low: i64,
    /// One past the last offset at the moment the reading began.
    pub(crate) high: i64,
}

/// More different chains than can be judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("more than {CHAINS_MAX} different gateways, logs, lanes and partitions")]
pub(crate) struct TooManyChains;

/// Takes records partition by partition, each in order of offsets.
#[derive(Debug)]
pub(crate) struct Judge {
    partitions: Vec<(PartitionRead, PartitionCounts)>,
    chains: BTreeMap<ChainKey, Chain>,
    losses: BTreeMap<LaneKey, Ranges>,
    /// The entries of each lane, whichever chain carried them.
    seen: BTreeMap<LaneKey, Seen>,
    room: Room,
}

#[derive(Debug, Clone, Copy, Default)]
struct PartitionCounts {
    records: u64,
    entries: u64,
    packs: u64,
    without_header: u64,
    bad_header: u64,
    bad_pack: u64,
}

type LaneKey = (GatewayId, LogId, Lane);

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct ChainKey {
    lane: LaneKey,
    /// Place in the list of partitions.
    partition: usize,
    stream: char,
}

impl Judge {
    pub(crate) fn new(partitions: Vec<PartitionRead>) -> Self {
        let partitions = partitions.into_iter().map(|read| (read, PartitionCounts::default())).collect();
        Self {
            partitions,
            chains: BTreeMap::new(),
            losses: BTreeMap::new(),
            seen: BTreeMap::new(),
            room: Room::default(),
        }
    }

    /// Takes the next record of the partition at this place in the list.
    ///
    /// # Errors
    ///
    /// [`TooManyChains`].
    pub(crate) fn push(&mut self, partition: usize, found: &Found<'_>) -> Result<(), TooManyChains> {
        let Some((read, counts)) = self.partitions.get_mut(partition) else { return Ok(()) };
        counts.records += 1;
        let Some(identity) = found.header.parse::<Identity>() else {
            match found.header {
                Header::Absent => counts.without_header += 1,
                _ => counts.bad_header += 1,
            }
            return Ok(());
        };
        let inflated;
        let entries = match found.pack {
            Header::Absent => Entries::One(found.payload),
            pack => {
                counts.packs += 1;
                let header = pack.parse::<packed::Header>();
                inflated = header.map(|header| (header, inflate(header.compression, found.payload)));
                let unpacked = match &inflated {
                    Some((header, Ok(body))) => unpack(header, &identity, body).ok(),
                    _ => None,
                };
                let Some(entries) = unpacked else {
                    counts.bad_pack += 1;
                    return Ok(());
                };
                Entries::Many(entries)
            }
        };
        counts.entries += entries.count();
        let trimmed = read.low > 0;
        let lane = (identity.gateway.clone(), identity.log, identity.lane);
        let key = ChainKey { lane: lane.clone(), partition, stream: Stream::letter(identity.stream) };
        if self.chains.len() >= CHAINS_MAX && !self.chains.contains_key(&key) {
            return Err(TooManyChains);
        }
        let chain = self.chains.entry(key).or_default();
        let seen = self.seen.entry(lane).or_default();
        entries.each(&identity, |seq, prev, payload| {
            chain.push(seq.0, prev.0, trimmed);
            seen.insert(seq.0, &mut self.room);
            if identity.lane == Lane::Status
                && let Some((key, loss)) = loss(&identity.gateway, payload)
            {
                self.losses.entry(key).or_default().insert(loss.first.0.max(1), loss.last.0);
            }
        });
        Ok(())
    }

    /// Adds everything up.
    pub(crate) fn report(&self) -> Report {
        let mut report = Report::default();
        for (read, counts) in &self.partitions {
            let PartitionCounts { records, entries, packs, without_header, bad_header, bad_pack } = *counts;
            report.totals.records += records;
            report.totals.entries += entries;
            report.totals.packs += packs;
            report.totals.without_header += without_header;
            report.totals.bad_header += bad_header;
            report.totals.bad_pack += bad_pack;
            let PartitionRead { topic, partition, low, high } = read.clone();
            report.partitions.push(PartitionReport {
                topic,
                partition,
                low,
                high,
                records,
                entries,
                packs,
                without_header,
                bad_header,
                bad_pack,
            });
        }
        let mut lanes: BTreeMap<&LaneKey, LaneReport> = BTreeMap::new();
        for (key, chain) in &self.chains {
            let summary = chain.summary(self.losses.get(&key.lane));
            let (read, _) = &self.partitions[key.partition];
            let (gateway, log, lane) = &key.lane;
            report.totals.add(&summary, chain.joined());
            report.chains.push(ChainReport {
                gateway: gateway.to_string(),
                log: log.to_string(),
                lane: *lane,
                topic: read.topic.clone(),
                partition: read.partition,
                stream: key.stream,
                summary,
            });
            let whole = lanes.entry(&key.lane).or_insert_with(|| LaneReport::new(gateway, *log, *lane));
            whole.add(&summary, read.low > 0);
        }
        for key in self.losses.keys() {
            let (gateway, log, lane) = key;
            lanes.entry(key).or_insert_with(|| LaneReport::new(gateway, *log, *lane));
        }
        let finish = |(key, whole): (&LaneKey, LaneReport)| {
            let seen = self.seen.get(key).and_then(Seen::count);
            whole.finish(seen, self.losses.get(key).map_or(0, Ranges::count))
        };
        report.lanes = lanes.into_iter().map(finish).collect();
        report.totals.moved = report.lanes.iter().map(|lane| lane.moved).sum();
        report.totals.lost_by_name = report.lanes.iter().map(|lane| lane.lost_by_name).sum();
        report.finish()
    }
}

// === impl Header ===

impl Header<'_> {
    /// The one value, if there is one and it can be read.
    fn parse<T: FromStr>(&self) -> Option<T> {
        match self {
            Self::One(value) => std::str::from_utf8(value).ok()?.parse().ok(),
            Self::Absent | Self::Several => None,
        }
    }
}

/// What a record carries.
enum Entries<'a> {
    /// One entry: its payload is the value.
    One(&'a [u8]),
    /// A pack.
    Many(Vec<packed::Entry<'a>>),
}

impl Entries<'_> {
    fn count(&self) -> u64 {
        match self {
            Self::One(_) => 1,
            Self::Many(entries) => entries.len() as u64,
        }
    }

    /// Position, predecessor and payload of each, in order.
    fn each(&self, identity: &Identity, mut take: impl FnMut(Seq, Seq, &[u8])) {
        match self {
            Self::One(payload) => take(identity.seq, identity.prev, payload),
            Self::Many(entries) => {
                let mut prev = identity.prev;
                for entry in entries {
                    take(entry.seq, prev, entry.payload.bytes());
                    prev = entry.seq;
                }
            }
        }
    }
}

impl Totals {
    fn add(&mut self, summary: &super::chain::Summary, joined: u64) {
        self.gaps += summary.gaps;
        self.explained_gaps += summary.explained;
        self.duplicates += summary.duplicates;
        self.reordered += summary.reordered;
        self.joined_gaps += joined;
    }
}

/// The named loss that a status event carries, if it is one of this gateway's own.
fn loss(gateway: &GatewayId, payload: &[u8]) -> Option<(LaneKey, Loss)> {
    #[derive(Deserialize)]
    struct Event<'a> {
        #[serde(rename = "type", borrow)]
        kind: std::borrow::Cow<'a, str>,
        #[serde(borrow)]
        source: std::borrow::Cow<'a, str>,
        data: Loss,
    }
    let event: Event<'_> = serde_json::from_slice(payload).ok()?;
    let own = event.source.strip_prefix("/gateways/") == Some(gateway.as_str());
    if !own || !event.kind.ends_with(LOSS_TYPE_SUFFIX) {
        return None;
    }
    let log = u64::from_str_radix(&event.data.log, 16).ok().map(LogId)?;
    let key = (gateway.clone(), log, event.data.lane);
    Some((key, event.data))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: &str = "00000000000000aa";

    fn judge() -> Judge {
        let read =
            |topic: &str, partition, low| PartitionRead { topic: topic.into(), partition, low, high: 9 };
        Judge::new(vec![read("telemetry", 0, 0), read("telemetry", 1, 0), read("old", 0, 40)])
    }

    fn push(judge: &mut Judge, partition: usize, lane: u8, prev: u64, seq: u64) {
        push_as(judge, partition, Some(&format!("site/{LOG}/1/{lane}/{seq}/{prev}/l")), b"{}");
    }

    fn push_as(judge: &mut Judge, partition: usize, header: Option<&str>, payload: &[u8]) {
        let header = header.map_or(Header::Absent, |header| Header::One(header.as_bytes()));
        judge.push(partition, &Found { header, pack: Header::Absent, payload }).unwrap();
    }

    /// A pack of lane telemetry with entries of these positions.
    fn push_pack(judge: &mut Judge, partition: usize, stream: char, prev: u64, seqs: &[u64]) {
        let (first, last) = (seqs.first().unwrap(), seqs.last().unwrap());
        let pack = format!("1/ndjson/none/{first}/{}", seqs.len());
        push_pack_as(judge, partition, &format!("{last}/{prev}/{stream}"), &pack, &lines(seqs, "{}"));
    }

    fn push_pack_as(judge: &mut Judge, partition: usize, identity: &str, pack: &str, body: &[u8]) {
        let header = format!("site/{LOG}/1/2/{identity}");
        let (header, pack) = (Header::One(header.as_bytes()), Header::One(pack.as_bytes()));
        judge.push(partition, &Found { header, pack, payload: body }).unwrap();
    }

    fn lines(seqs: &[u64], payload: &str) -> Vec<u8> {
        let line = |seq: &u64| {
            format!(
                r#"{{"seq":{seq},"device":"d","topic":"t","received":"2026-11-21T05:58:00.000Z","payload":{payload}}}"#
            )
        };
        seqs.iter().flat_map(|seq| (line(seq) + "\n").into_bytes()).collect()
    }

    fn name_loss(judge: &mut Judge, source: &str, kind: &str, first: u64, last: u64, seq: u64) {
        let header = format!("site/{LOG}/1/1/{seq}/{}/l", seq - 1);
        let payload = format!(
            r#"{{"specversion":"1.0","id":"1","source":"{source}","type":"{kind}","data":{{"log":"{LOG}","lane":"telemetry","first":{first},"last":{last},"reason":"quarantine"}}}}"#
        );
        push_as(judge, 1, Some(&header), payload.as_bytes());
    }

    fn check(judge: &Judge, expected: Totals, kept: bool) {
        let report = judge.report();
        assert_eq!(report.totals, expected);
        assert_eq!(report.kept, kept);
    }

    #[test]
    fn a_clean_read_keeps_every_promise() {
        let mut judge = judge();
        for (partition, prev, seq) in [(0, 0, 1), (1, 0, 2), (0, 1, 3), (1, 2, 4)] {
            push(&mut judge, partition, 2, prev, seq);
        }
        check(&judge, Totals { records: 4, entries: 4, ..Totals::default() }, true);
        assert_eq!(judge.report().lanes[0].missing, 0);
    }

    #[test]
    fn a_gap_breaks_the_promise() {
        let mut judge = judge();
        push(&mut judge, 0, 2, 0, 1);
        push(&mut judge, 0, 2, 3, 4);
        check(&judge, Totals { records: 2, entries: 2, gaps: 1, ..Totals::default() }, false);
        assert_eq!(judge.report().lanes[0].missing, 2);
    }

    #[test]
    fn lanes_partitions_and_streams_have_chains_of_their_own() {
        let mut judge = judge();
        push(&mut judge, 0, 2, 0, 1);
        push(&mut judge, 0, 3, 0, 1);
        push(&mut judge, 1, 2, 0, 2);
        let backlog = format!("site/{LOG}/1/2/3/0/b");
        push_as(&mut judge, 0, Some(&backlog), b"");
        check(&judge, Totals { records: 4, entries: 4, ..Totals::default() }, true);
        assert_eq!(judge.report().chains.len(), 4);
    }

    #[test]
    fn a_late_record_breaks_the_promise_and_a_repeat_does_not() {
        let mut judge = judge();
        push(&mut judge, 0, 2, 0, 1);
        push(&mut judge, 0, 2, 0, 1);
        check(&judge, Totals { records: 2, entries: 2, duplicates: 1, ..Totals::default() }, true);
        push(&mut judge, 0, 2, 2, 3);
        push(&mut judge, 0, 2, 1, 2);
        check(
            &judge,
            Totals { records: 4, entries: 4, duplicates: 1, reordered: 1, ..Totals::default() },
            false,
        );
    }

    #[test]
    fn a_named_loss_explains_a_gap_whenever_it_is_read() {
        let mut judge = judge();
        push(&mut judge, 0, 2, 0, 1);
        push(&mut judge, 0, 2, 3, 4);
        name_loss(&mut judge, "/gateways/site", "io.penstock.outbox.loss.v1", 2, 3, 1);
        let totals =
            Totals { records: 3, entries: 3, explained_gaps: 1, lost_by_name: 2, ..Totals::default() };
        check(&judge, totals, true);
        let telemetry = judge.report().lanes.into_iter().find(|lane| lane.lane == Lane::Telemetry).unwrap();
        assert_eq!((telemetry.missing, telemetry.lost_by_name), (0, 2));
    }

    #[test]
    fn a_loss_named_by_somebody_else_explains_nothing() {
        for (source, kind) in [
            ("/gateways/other", "io.penstock.outbox.loss.v1"),
            ("/gateways/site", "io.penstock.device.connected.v1"),
        ] {
            let mut judge = judge();
            push(&mut judge, 0, 2, 0, 1);
            push(&mut judge, 0, 2, 3, 4);
            name_loss(&mut judge, source, kind, 2, 3, 1);
            check(&judge, Totals { records: 3, entries: 3, gaps: 1, ..Totals::default() }, false);
        }
    }

    #[test]
    fn headers_that_are_missing_or_bad_are_counted() {
        let mut judge = judge();
        push_as(&mut judge, 0, None, b"");
        push_as(&mut judge, 0, Some("site/1/2"), b"");
        for header in [Header::One(&[0xff]), Header::Several] {
            judge.push(1, &Found { header, pack: Header::Absent, payload: b"" }).unwrap();
        }
        check(&judge, Totals { records: 4, without_header: 1, bad_header: 3, ..Totals::default() }, true);
        assert_eq!(judge.report().partitions[0].bad_header, 1);
    }

    #[test]
    fn what_retention_removed_is_no_gap() {
        let mut judge = judge();
        push(&mut judge, 2, 2, 70, 71);
        push(&mut judge, 2, 2, 71, 73);
        check(&judge, Totals { records: 2, entries: 2, ..Totals::default() }, true);
        assert_eq!(judge.report().lanes[0].missing, 1, "72 went elsewhere or nowhere; no chain says which");
    }

    #[test]
    fn a_wiped_disk_is_another_log() {
        let mut judge = judge();
        push(&mut judge, 0, 2, 0, 5);
        push_as(&mut judge, 0, Some("site/00000000000000bb/1/2/1/0/l"), b"");
        check(&judge, Totals { records: 2, entries: 2, ..Totals::default() }, true);
        assert_eq!(judge.report().lanes.len(), 2);
    }

    #[test]
    fn the_entries_of_a_pack_are_judged_one_by_one() {
        let mut judge = judge();
        push_pack(&mut judge, 0, 'l', 0, &[1, 3, 4]);
        push_pack(&mut judge, 1, 'l', 0, &[2, 5]);
        push(&mut judge, 0, 2, 4, 6);
        let totals = Totals { records: 3, entries: 6, packs: 2, ..Totals::default() };
        check(&judge, totals, true);
        let report = judge.report();
        assert_eq!((report.lanes[0].entries, report.lanes[0].missing), (6, 0));
        assert_eq!((report.partitions[0].entries, report.partitions[0].packs), (4, 1));
        assert_eq!((report.chains[0].summary.first, report.chains[0].summary.last), (1, 6));
    }

    #[test]
    fn a_gap_between_packs_breaks_the_promise() {
        let mut judge = judge();
        push_pack(&mut judge, 0, 'l', 0, &[1, 3]);
        push_pack(&mut judge, 0, 'l', 4, &[5, 6]);
        check(&judge, Totals { records: 2, entries: 4, packs: 2, gaps: 1, ..Totals::default() }, false);
    }

    #[test]
    fn packs_that_are_cut_anew_are_duplicates_only() {
        let mut judge = judge();
        push_pack(&mut judge, 0, 'l', 0, &[1, 2, 3, 4]);
        push_pack(&mut judge, 0, 'l', 1, &[2, 3]);
        push(&mut judge, 0, 2, 3, 4);
        push_pack(&mut judge, 0, 'l', 3, &[4, 5]);
        let totals = Totals { records: 4, entries: 9, packs: 3, duplicates: 4, ..Totals::default() };
        check(&judge, totals, true);
    }

    #[test]
    fn a_late_pack_is_reordered_entry_by_entry() {
        let mut judge = judge();
        push_pack(&mut judge, 0, 'l', 0, &[1, 2]);
        push_pack(&mut judge, 0, 'l', 4, &[5, 6]);
        push_pack(&mut judge, 0, 'l', 2, &[3, 4]);
        check(&judge, Totals { records: 3, entries: 6, packs: 3, reordered: 2, ..Totals::default() }, false);
    }

    #[test]
    fn a_pack_whose_parts_disagree_is_bad() {
        let body = lines(&[1, 3], "{}");
        for (identity, pack, body) in [
            ("3/0/l", "1/ndjson/none/1/3", &body),
            ("4/0/l", "1/ndjson/none/1/2", &body),
            ("3/0/l", "1/ndjson/none/2/2", &body),
            ("3/1/l", "1/ndjson/none/1/2", &body),
            ("3/0/l", "1/ndjson/gzip/1/2", &body),
            ("3/0/l", "1/protobuf/none/1/2", &body),
            ("3/0/l", "2/ndjson/none/1/2", &body),
            ("3/0/l", "nonsense", &body),
            ("3/0/l", "1/ndjson/none/1/2", &Vec::new()),
        ] {
            let mut judge = judge();
            push_pack_as(&mut judge, 0, identity, pack, body);
            check(&judge, Totals { records: 1, packs: 1, bad_pack: 1, ..Totals::default() }, false);
            assert_eq!(judge.report().partitions[0].bad_pack, 1);
        }
        let mut judge = judge();
        push_pack_as(&mut judge, 0, "3/0/l", "1/ndjson/none/1/2", &body);
        check(&judge, Totals { records: 1, entries: 2, packs: 1, ..Totals::default() }, true);
        let header = format!("site/{LOG}/1/2/3/0/l");
        let found = Found { header: Header::One(header.as_bytes()), pack: Header::Several, payload: &body };
        judge.push(0, &found).unwrap();
        assert_eq!(judge.report().totals.bad_pack, 1);
    }

    #[test]
    fn a_loss_record_counts_in_a_pack_too() {
        let mut judge = judge();
        push(&mut judge, 0, 2, 0, 1);
        push(&mut judge, 0, 2, 3, 4);
        let event = format!(
            r#"{{"type":"io.penstock.outbox.loss.v1","source":"/gateways/site","data":{{"log":"{LOG}","lane":"telemetry","first":2,"last":3,"reason":"dead-letter"}}}}"#
        );
        let header = format!("site/{LOG}/1/1/2/0/l");
        let (header, pack) = (Header::One(header.as_bytes()), Header::One(b"1/ndjson/none/1/2"));
        judge.push(1, &Found { header, pack, payload: &lines(&[1, 2], &event) }).unwrap();
        let totals = Totals {
            records: 3,
            entries: 4,
            packs: 1,
            explained_gaps: 1,
            lost_by_name: 2,
            ..Totals::default()
        };
        check(&judge, totals, true);
    }

    #[test]
    fn live_and_backlog_make_up_one_lane() {
        let mut judge = judge();
        push_pack(&mut judge, 0, 'l', 0, &[1, 2]);
        push_pack(&mut judge, 0, 'l', 2, &[7, 9]);
        push_pack(&mut judge, 0, 'b', 0, &[3, 4]);
        push(&mut judge, 1, 2, 0, 8);
        let mut totals = Totals { records: 4, entries: 7, packs: 3, ..Totals::default() };
        check(&judge, totals, true);
        let lane = |judge: &Judge| {
            let report = judge.report();
            (report.lanes[0].entries, report.lanes[0].missing, report.lanes[0].moved)
        };
        assert_eq!(lane(&judge), (7, 2, 0), "5 and 6 are in none");
        // Live before a crash, backlog after it: the same entries, found twice, and one that was missing.
        push_pack(&mut judge, 0, 'b', 4, &[6, 7, 9]);
        totals = Totals { records: 5, entries: 10, packs: 4, moved: 2, ..totals };
        check(&judge, totals, true);
        assert_eq!(lane(&judge), (8, 1, 2));
    }

    #[test]
    fn a_lost_end_of_the_backlog_shows_as_missing_only() {
        let mut judge = judge();
        push(&mut judge, 0, 2, 0, 1);
        push_as(&mut judge, 0, Some(&format!("site/{LOG}/1/2/2/0/b")), b"");
        push(&mut judge, 0, 2, 1, 4);
        check(&judge, Totals { records: 3, entries: 3, ..Totals::default() }, true);
        assert_eq!(judge.report().lanes[0].missing, 1, "3 was due in the backlog, or in another topic");
    }
}

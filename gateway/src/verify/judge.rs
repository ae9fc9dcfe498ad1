//! Sorts records into chains and adds up what they show. Pure: records in, a report out.

use std::collections::BTreeMap;

use penstock_proto::{GatewayId, Identity, LOSS_TYPE_SUFFIX, Lane, LogId, Loss, Stream};
use serde::Deserialize;

use super::chain::{Chain, Ranges};
use super::report::{ChainReport, LaneReport, PartitionReport, Report, Totals};

/// Most chains, so that a topic full of invented names cannot take all memory.
const CHAINS_MAX: usize = 262_144;

/// The value of the `penstock` header of a record.
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
}

#[derive(Debug, Clone, Copy, Default)]
struct PartitionCounts {
    records: u64,
    without_header: u64,
    bad_header: u64,
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
        Self { partitions, chains: BTreeMap::new(), losses: BTreeMap::new() }
    }

    /// Takes the next record of the partition at this place in the list.
    ///
    /// # Errors
    ///
    /// [`TooManyChains`].
    pub(crate) fn push(
        &mut self,
        partition: usize,
        header: Header<'_>,
        payload: &[u8],
    ) -> Result<(), TooManyChains> {
        let Some((read, counts)) = self.partitions.get_mut(partition) else { return Ok(()) };
        counts.records += 1;
        let identity = match header {
            Header::Absent => {
                counts.without_header += 1;
                return Ok(());
            }
            Header::Several => None,
            Header::One(value) => {
                std::str::from_utf8(value).ok().and_then(|text| text.parse::<Identity>().ok())
            }
        };
        let Some(identity) = identity else {
            counts.bad_header += 1;
            return Ok(());
        };
        let trimmed = read.low > 0;
        let Identity { gateway, log, lane, seq, prev, stream, .. } = identity;
        if lane == Lane::Status
            && let Some((key, loss)) = loss(&gateway, payload)
        {
            self.losses.entry(key).or_default().insert(loss.first.0.max(1), loss.last.0);
        }
        let key = ChainKey { lane: (gateway, log, lane), partition, stream: Stream::letter(stream) };
        if self.chains.len() >= CHAINS_MAX && !self.chains.contains_key(&key) {
            return Err(TooManyChains);
        }
        self.chains.entry(key).or_default().push(seq.0, prev.0, trimmed);
        Ok(())
    }

    /// Adds everything up.
    pub(crate) fn report(&self) -> Report {
        let mut report = Report::default();
        for (read, counts) in &self.partitions {
            report.totals.records += counts.records;
            report.totals.without_header += counts.without_header;
            report.totals.bad_header += counts.bad_header;
            report.partitions.push(PartitionReport {
                topic: read.topic.clone(),
                partition: read.partition,
                low: read.low,
                high: read.high,
                records: counts.records,
                without_header: counts.without_header,
                bad_header: counts.bad_header,
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
        report.lanes = lanes
            .into_iter()
            .map(|(key, whole)| whole.finish(self.losses.get(key).map_or(0, Ranges::count)))
            .collect();
        report.totals.lost_by_name = report.lanes.iter().map(|lane| lane.lost_by_name).sum();
        report.finish()
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
        let header = format!("site/{LOG}/1/{lane}/{seq}/{prev}/l");
        judge.push(partition, Header::One(header.as_bytes()), b"{}").unwrap();
    }

    fn name_loss(judge: &mut Judge, source: &str, kind: &str, first: u64, last: u64, seq: u64) {
        let header = format!("site/{LOG}/1/1/{seq}/{}/l", seq - 1);
        let payload = format!(
            r#"{{"specversion":"1.0","id":"1","source":"{source}","type":"{kind}","data":{{"log":"{LOG}","lane":"telemetry","first":{first},"last":{last},"reason":"quarantine"}}}}"#
        );
        judge.push(1, Header::One(header.as_bytes()), payload.as_bytes()).unwrap();
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
        check(&judge, Totals { records: 4, ..Totals::default() }, true);
        assert_eq!(judge.report().lanes[0].missing, 0);
    }

    #[test]
    fn a_gap_breaks_the_promise() {
        let mut judge = judge();
        push(&mut judge, 0, 2, 0, 1);
        push(&mut judge, 0, 2, 3, 4);
        check(&judge, Totals { records: 2, gaps: 1, ..Totals::default() }, false);
        assert_eq!(judge.report().lanes[0].missing, 2);
    }

    #[test]
    fn lanes_partitions_and_streams_have_chains_of_their_own() {
        let mut judge = judge();
        push(&mut judge, 0, 2, 0, 1);
        push(&mut judge, 0, 3, 0, 1);
        push(&mut judge, 1, 2, 0, 2);
        let backlog = format!("site/{LOG}/1/2/3/0/b");
        judge.push(0, Header::One(backlog.as_bytes()), b"").unwrap();
        check(&judge, Totals { records: 4, ..Totals::default() }, true);
        assert_eq!(judge.report().chains.len(), 4);
    }

    #[test]
    fn a_late_record_breaks_the_promise_and_a_repeat_does_not() {
        let mut judge = judge();
        push(&mut judge, 0, 2, 0, 1);
        push(&mut judge, 0, 2, 0, 1);
        check(&judge, Totals { records: 2, duplicates: 1, ..Totals::default() }, true);
        push(&mut judge, 0, 2, 2, 3);
        push(&mut judge, 0, 2, 1, 2);
        check(&judge, Totals { records: 4, duplicates: 1, reordered: 1, ..Totals::default() }, false);
    }

    #[test]
    fn a_named_loss_explains_a_gap_whenever_it_is_read() {
        let mut judge = judge();
        push(&mut judge, 0, 2, 0, 1);
        push(&mut judge, 0, 2, 3, 4);
        name_loss(&mut judge, "/gateways/site", "io.penstock.outbox.loss.v1", 2, 3, 1);
        let totals = Totals { records: 3, explained_gaps: 1, lost_by_name: 2, ..Totals::default() };
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
            check(&judge, Totals { records: 3, gaps: 1, ..Totals::default() }, false);
        }
    }

    #[test]
    fn headers_that_are_missing_or_bad_are_counted() {
        let mut judge = judge();
        judge.push(0, Header::Absent, b"").unwrap();
        judge.push(0, Header::One(b"site/1/2"), b"").unwrap();
        judge.push(1, Header::One(&[0xff]), b"").unwrap();
        judge.push(1, Header::Several, b"").unwrap();
        check(&judge, Totals { records: 4, without_header: 1, bad_header: 3, ..Totals::default() }, true);
        assert_eq!(judge.report().partitions[0].bad_header, 1);
    }

    #[test]
    fn what_retention_removed_is_no_gap() {
        let mut judge = judge();
        push(&mut judge, 2, 2, 70, 71);
        push(&mut judge, 2, 2, 71, 73);
        check(&judge, Totals { records: 2, ..Totals::default() }, true);
        assert_eq!(judge.report().lanes[0].missing, 1, "72 went elsewhere or nowhere; no chain says which");
    }

    #[test]
    fn a_wiped_disk_is_another_log() {
        let mut judge = judge();
        push(&mut judge, 0, 2, 0, 5);
        judge.push(0, Header::One(b"site/00000000000000bb/1/2/1/0/l"), b"").unwrap();
        check(&judge, Totals { records: 2, ..Totals::default() }, true);
        assert_eq!(judge.report().lanes.len(), 2);
    }
}

//! The tail read against librdkafka's mock cluster: real requests, and whatever lands while it reads.

use std::cell::Cell;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use penstock_proto::{IDENTITY_HEADER, LogId, PACK_HEADER};
use rdkafka::ClientConfig;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::mocking::MockCluster;
use rdkafka::producer::{BaseProducer, BaseRecord, DefaultProducerContext, Producer as _};
use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};

use super::super::{Bounds, Ended, Found, Outcome, Own, Summary, TailError, Want, read};
use crate::supervise::clock;
use crate::uplink::connection::{Connection, Security};
use crate::uplink::reader::{ReadError, Reader, Trouble, ends};

const TOPIC: &str = "telemetry";
const OTHER: &str = "alerts";
const PATIENCE: Duration = Duration::from_secs(30);
const REFUSED: RDKafkaRespErr = RDKafkaRespErr::RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED;

/// Shorter than the real ones, so that tests are short.
const BOUNDS: Bounds = Bounds {
    until_ms: u64::MAX,
    bytes_max: 64 << 20,
    quiet: Duration::from_millis(400),
    longest: Duration::from_secs(20),
};

/// A cluster and somebody who writes to it.
struct Cloud {
    mock: MockCluster<'static, DefaultProducerContext>,
    writer: Writer,
}

struct Writer(BaseProducer);

/// What the callback was shown.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Shown {
    want: usize,
    offset: i64,
    identity: String,
    count: u32,
}

impl Cloud {
    fn start(topics: &[(&str, i32)]) -> Self {
        let mock = MockCluster::new(1).unwrap();
        for (topic, partitions) in topics {
            mock.create_topic(topic, *partitions, 1).unwrap();
        }
        let writer = ClientConfig::new()
            .set("bootstrap.servers", mock.bootstrap_servers())
            .set("linger.ms", "0")
            .create()
            .unwrap();
        Self { mock, writer: Writer(writer) }
    }

    fn connection(&self) -> Connection {
        Connection {
            bootstrap_servers: self.mock.bootstrap_servers(),
            security: Security::Plaintext,
            socket_timeout: Duration::from_secs(5),
        }
    }

    fn write(&self, topic: &str, partition: i32, headers: &[(&str, &str)], bytes: usize) {
        self.writer.write(topic, partition, headers, bytes);
    }

    /// Several records that are stored when the next one written is.
    fn queue(&self, partition: i32, bytes: usize, stamp_ms: i64) {
        self.writer.queue(TOPIC, partition, &[], bytes, stamp_ms);
    }

    fn own(&self, partition: i32, seq: u64) {
        self.write(TOPIC, partition, &[(IDENTITY_HEADER, &own_identity(seq))], 100);
    }

    fn read(&self, wants: &[Want], bounds: &Bounds) -> (Summary, Vec<Shown>) {
        let mut shown = Vec::new();
        let summary = self.read_with(wants, bounds, &|| false, &mut |found| shown.push(Shown::from(found)));
        shown.sort();
        (summary.unwrap(), shown)
    }

    fn read_with(
        &self,
        wants: &[Want],
        bounds: &Bounds,
        stopped: &dyn Fn() -> bool,
        found: &mut dyn FnMut(Found<'_>),
    ) -> Result<Summary, TailError> {
        read(&self.connection(), wants, &own(), bounds, stopped, found)
    }
}

impl Writer {
    /// Stores a record and waits until it is.
    fn write(&self, topic: &str, partition: i32, headers: &[(&str, &str)], bytes: usize) {
        self.queue(topic, partition, headers, bytes, 1_700_000_000_000);
        self.0.flush(PATIENCE).unwrap();
    }

    fn queue(&self, topic: &str, partition: i32, headers: &[(&str, &str)], bytes: usize, stamp_ms: i64) {
        let payload = vec![b'x'; bytes];
        let mut owned = OwnedHeaders::new();
        for (key, value) in headers {
            owned = owned.insert(Header { key, value: Some(*value) });
        }
        let record = BaseRecord::<str, [u8]>::to(topic).partition(partition).key("k").payload(&payload);
        self.0.send(record.headers(owned).timestamp(stamp_ms)).map_err(|(error, _)| error).unwrap();
        self.0.poll(Duration::ZERO);
    }
}

impl From<Found<'_>> for Shown {
    fn from(found: Found<'_>) -> Self {
        let Found { want, offset, identity, count } = found;
        Self { want, offset, identity: identity.to_string(), count }
    }
}

fn own() -> Own {
    Own { gateway: "site-7".parse().unwrap(), log: LogId(0x00c0_ffee_1234_5678) }
}

fn own_identity(seq: u64) -> String {
    let prev = seq - 1;
    format!("site-7/00c0ffee12345678/3/2/{seq}/{prev}/l")
}

fn want(topic: &str, partition: u32, from: i64) -> Want {
    Want { topic: topic.to_owned(), partition, from }
}

fn wants(partitions: u32) -> Vec<Want> {
    (0..partitions).map(|partition| want(TOPIC, partition, 0)).collect()
}

fn outcomes(summary: &Summary) -> Vec<Outcome> {
    summary.parts.iter().map(|part| part.outcome).collect()
}

#[test]
fn records_of_this_gateway_are_shown_and_only_those() {
    let cloud = Cloud::start(&[(TOPIC, 3), (OTHER, 1)]);
    let other_log = "site-7/00000000000000aa/1/2/5/0/l";
    let later_epoch = "site-7/00c0ffee12345678/4/2/12/1/l";
    let packed = "site-7/00c0ffee12345678/3/2/40/30/b";
    cloud.own(0, 1);
    cloud.write(TOPIC, 0, &[], 100);
    cloud.write(TOPIC, 0, &[(IDENTITY_HEADER, "site-77/00c0ffee12345678/3/2/2/1/l")], 100);
    cloud.write(TOPIC, 0, &[("other", "x"), (IDENTITY_HEADER, other_log)], 100);
    cloud.write(TOPIC, 2, &[(IDENTITY_HEADER, later_epoch)], 100);
    cloud.write(TOPIC, 2, &[(IDENTITY_HEADER, "site-7/what is this")], 100);
    cloud.write(TOPIC, 2, &[(IDENTITY_HEADER, packed), (PACK_HEADER, "1/ndjson/none/31/7")], 100);
    cloud.write(TOPIC, 2, &[(IDENTITY_HEADER, packed), (PACK_HEADER, "1/ndjson/none/41/7")], 100);
    cloud.write(OTHER, 0, &[(IDENTITY_HEADER, &own_identity(9))], 100);
    let mut wants = wants(3);
    wants.push(want(OTHER, 0, 0));
    let (summary, shown) = cloud.read(&wants, &BOUNDS);
    let entry =
        |want, offset, identity: &str, count| Shown { want, offset, identity: identity.to_owned(), count };
    let expected = [
        entry(0, 0, &own_identity(1), 1),
        entry(0, 3, other_log, 1),
        entry(2, 0, later_epoch, 1),
        entry(2, 2, packed, 7),
        entry(3, 0, &own_identity(9), 1),
    ];
    assert_eq!(shown, expected);
    assert_eq!((summary.ended, summary.records, summary.own, summary.unreadable), (Ended::Settled, 9, 4, 2));
    assert!(summary.bytes > 900, "{summary:?}");
    assert_eq!(outcomes(&summary), [Outcome::End; 4]);
    let ends: Vec<_> = summary.parts.iter().map(|part| (part.end, part.next)).collect();
    assert_eq!(ends, [(Some(4), 4), (Some(0), 0), (Some(4), 4), (Some(1), 1)]);
}

#[test]
fn reading_begins_at_the_offset_that_is_not_known() {
    let cloud = Cloud::start(&[(TOPIC, 2)]);
    for seq in 1..=5 {
        cloud.own(1, seq);
    }
    let (summary, shown) = cloud.read(&[want(TOPIC, 1, 3), want(TOPIC, 0, 0)], &BOUNDS);
    let offsets: Vec<_> = shown.iter().map(|shown| (shown.want, shown.offset)).collect();
    assert_eq!((offsets, summary.records), (vec![(0, 3), (0, 4)], 2));
}

#[test]
fn a_record_that_lands_while_we_look_is_seen() {
    let cloud = Cloud::start(&[(TOPIC, 3)]);
    cloud.own(0, 1);
    let mut seen = Vec::new();
    let summary = cloud.read_with(&wants(3), &BOUNDS, &|| false, &mut |found| {
        let seq = found.identity.seq.0;
        seen.push(seq);
        if seq < 6 {
            // What the dead process left in the network, in another partition.
            cloud.own(i32::try_from(seq % 3).unwrap(), seq + 1);
        }
    });
    assert_eq!((seen, summary.unwrap().ended), (vec![1, 2, 3, 4, 5, 6], Ended::Settled));
}

#[test]
fn others_who_write_all_the_time_do_not_hold_it_up() {
    let cloud = Cloud::start(&[(TOPIC, 2)]);
    cloud.own(1, 1);
    let done = AtomicBool::new(false);
    let writer = &cloud.writer;
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                let foreign = [(IDENTITY_HEADER, "site-8/00c0ffee12345678/3/2/2/1/l")];
                writer.queue(TOPIC, 0, &[], 100, 1);
                writer.queue(TOPIC, 1, &foreign, 100, 1);
                std::thread::park_timeout(Duration::from_millis(1));
            }
        });
        let (summary, shown) = cloud.read(&wants(2), &BOUNDS);
        done.store(true, Ordering::Relaxed);
        assert_eq!((summary.ended, shown.len()), (Ended::Settled, 1), "{summary:?}");
        assert!(summary.records > 10, "{summary:?}");
    });
}

#[test]
fn a_gateway_that_writes_all_the_time_ends_it_by_time() {
    let cloud = Cloud::start(&[(TOPIC, 1)]);
    cloud.own(0, 1);
    let bounds = Bounds { longest: Duration::from_secs(2), ..BOUNDS };
    let mut seen = 0;
    let began = clock::now();
    let summary = cloud.read_with(&wants(1), &bounds, &|| false, &mut |found| {
        seen += 1;
        cloud.own(0, found.identity.seq.0 + 1);
    });
    let summary = summary.unwrap();
    assert_eq!((summary.ended, summary.own), (Ended::Time, seen));
    assert!(clock::now().duration_since(began) < Duration::from_secs(4));
    assert!(seen > 2);
}

#[test]
fn bytes_end_it() {
    let cloud = Cloud::start(&[(TOPIC, 1)]);
    for _ in 0..40 {
        cloud.queue(0, 10_000, 1);
    }
    cloud.own(0, 1);
    let (summary, shown) = cloud.read(&wants(1), &Bounds { bytes_max: 100_000, ..BOUNDS });
    assert_eq!((summary.ended, outcomes(&summary), shown.len()), (Ended::Bytes, vec![Outcome::Cut], 0));
    assert!((100_000..111_000).contains(&summary.bytes), "{summary:?}");
    assert_eq!((summary.parts[0].end, summary.parts[0].next), (Some(41), 10));
}

#[test]
fn later_records_end_their_partition() {
    let cloud = Cloud::start(&[(TOPIC, 2)]);
    for number in 0..200 {
        cloud.queue(0, 10, if number < 50 { 1000 } else { 2000 });
        cloud.queue(1, 10, 1000);
    }
    cloud.own(0, 1);
    let (summary, shown) = cloud.read(&wants(2), &Bounds { until_ms: 1999, ..BOUNDS });
    assert_eq!((summary.ended, outcomes(&summary)), (Ended::Settled, vec![Outcome::Passed, Outcome::End]));
    assert_eq!((summary.parts[0].next, shown.len()), (82, 0), "32 in a row");
}

#[test]
fn a_stop_ends_it_at_once() {
    let cloud = Cloud::start(&[(TOPIC, 1)]);
    cloud.own(0, 1);
    let stop = AtomicBool::new(false);
    let began = clock::now();
    let bounds = Bounds { quiet: PATIENCE, ..BOUNDS };
    let stopped = || stop.load(Ordering::Relaxed);
    let summary =
        cloud.read_with(&wants(1), &bounds, &stopped, &mut |_| stop.store(true, Ordering::Relaxed)).unwrap();
    assert_eq!((summary.ended, summary.own), (Ended::Stopped, 1));
    assert!(clock::now().duration_since(began) < Duration::from_secs(5));
}

#[test]
fn a_cloud_that_is_away_is_an_error_after_the_longest_time() {
    let cloud = Cloud::start(&[(TOPIC, 1)]);
    cloud.mock.broker_down(1).unwrap();
    let bounds = Bounds { longest: Duration::from_secs(1), ..BOUNDS };
    let began = clock::now();
    let error = cloud.read_with(&wants(1), &bounds, &|| false, &mut |_| ()).unwrap_err();
    assert!(matches!(error, TailError::Unreachable(1, _)), "{error:?}");
    assert!(clock::now().duration_since(began) < Duration::from_secs(6));
    let stopped = cloud.read_with(&wants(1), &BOUNDS, &|| true, &mut |_| ()).unwrap();
    assert_eq!((stopped.ended, outcomes(&stopped)), (Ended::Stopped, vec![Outcome::Cut]));
}

#[test]
fn nothing_wanted_needs_no_cloud() {
    let connection = Connection {
        bootstrap_servers: "127.0.0.1:1".to_owned(),
        security: Security::Plaintext,
        socket_timeout: PATIENCE,
    };
    let summary = read(&connection, &[], &own(), &BOUNDS, &|| false, &mut |_| ()).unwrap();
    assert_eq!((summary.ended, summary.parts.len()), (Ended::Settled, 0));
}

#[test]
fn a_cloud_that_comes_back_is_read() {
    let cloud = Cloud::start(&[(TOPIC, 2)]);
    cloud.own(1, 1);
    cloud.mock.broker_down(1).unwrap();
    let asked = Cell::new(0);
    let stopped = || {
        asked.set(asked.get() + 1);
        if asked.get() == 4 {
            cloud.mock.broker_up(1).unwrap();
        }
        false
    };
    let mut shown = 0;
    let summary = cloud.read_with(&wants(2), &BOUNDS, &stopped, &mut |_| shown += 1).unwrap();
    assert_eq!((summary.ended, shown), (Ended::Settled, 1));
}

#[test]
fn a_refusal_is_told_per_topic_and_others_are_read() {
    let cloud = Cloud::start(&[(TOPIC, 2), (OTHER, 1)]);
    cloud.own(0, 1);
    cloud.write(OTHER, 0, &[(IDENTITY_HEADER, &own_identity(2))], 10);
    let all = [want(TOPIC, 0, 0), want(TOPIC, 1, 0), want(OTHER, 0, 0)];
    // The first answer is for both topics, the second for the first one.
    cloud.mock.request_errors(RDKafkaApiKey::ListOffsets, &[REFUSED, REFUSED]);
    let (summary, shown) = cloud.read(&all, &BOUNDS);
    assert_eq!(outcomes(&summary), [Outcome::Refused, Outcome::Refused, Outcome::End]);
    assert_eq!((summary.ended, shown.len()), (Ended::Settled, 1));
}

#[test]
fn a_refusal_while_fetching_is_one_too() {
    let cloud = Cloud::start(&[(TOPIC, 1), (OTHER, 1)]);
    cloud.own(0, 1);
    cloud.write(OTHER, 0, &[(IDENTITY_HEADER, &own_identity(2))], 10);
    cloud.mock.request_errors(RDKafkaApiKey::Fetch, &[REFUSED]);
    let (summary, shown) = cloud.read(&wants(1), &BOUNDS);
    assert_eq!((outcomes(&summary), shown.len()), (vec![Outcome::Refused], 0));
    // It does not say of which topic, so they are tried one by one.
    cloud.mock.request_errors(RDKafkaApiKey::Fetch, &[REFUSED]);
    let (summary, shown) = cloud.read(&[want(TOPIC, 0, 0), want(OTHER, 0, 0)], &BOUNDS);
    assert_eq!((outcomes(&summary), shown.len()), (vec![Outcome::End; 2], 2));
}

#[test]
fn what_is_not_there_is_told() {
    let cloud = Cloud::start(&[(TOPIC, 2)]);
    cloud.own(0, 1);
    cloud.own(1, 2);
    let all = [want("gone", 0, 0), want(TOPIC, 7, 0), want(TOPIC, 0, 0), want(TOPIC, 1, 9)];
    let (summary, shown) = cloud.read(&all, &BOUNDS);
    let expected = [Outcome::Missing, Outcome::Missing, Outcome::End, Outcome::OutOfRange];
    assert_eq!((outcomes(&summary), summary.ended), (expected.to_vec(), Ended::Settled));
    assert_eq!((summary.parts[3].end, shown.len()), (Some(1), 1));
}

#[test]
fn offsets_that_retention_passed_are_counted() {
    let cloud = Cloud::start(&[(TOPIC, 1)]);
    // The mock keeps 5 MB of a partition.
    for _ in 0..80 {
        cloud.write(TOPIC, 0, &[], 100_000);
    }
    cloud.own(0, 1);
    let (summary, shown) = cloud.read(&wants(1), &BOUNDS);
    let skipped = summary.parts[0].skipped;
    assert!((10..80).contains(&skipped), "{summary:?}");
    assert_eq!((summary.records, shown.len(), outcomes(&summary)), (81 - skipped, 1, vec![Outcome::End]));
}

#[test]
fn many_partitions_over_a_slow_link_take_a_few_round_trips() {
    let cloud = Cloud::start(&[(TOPIC, 256)]);
    cloud.own(200, 1);
    cloud.own(17, 2);
    cloud.mock.broker_round_trip_time(1, Duration::from_millis(50)).unwrap();
    let began = clock::now();
    let (summary, shown) = cloud.read(&wants(256), &BOUNDS);
    let took = clock::now().duration_since(began);
    assert_eq!((summary.ended, shown.len(), summary.records), (Ended::Settled, 2, 2));
    assert!(took < Duration::from_secs(5), "{took:?}");
    let began = clock::now();
    let ends = ends(&cloud.connection(), TOPIC, 256, PATIENCE, &|| false).unwrap();
    let took = clock::now().duration_since(began);
    assert_eq!((ends.len(), ends[17], ends[200], ends.iter().sum::<i64>()), (256, 1, 1, 2));
    assert!(took < Duration::from_secs(4), "{took:?}");
}

#[test]
fn ends_that_cannot_be_had_say_why() {
    let cloud = Cloud::start(&[(TOPIC, 2)]);
    let check = |topic: &str, partitions, timeout, expected: Result<Vec<i64>, Trouble>| {
        let result = ends(&cloud.connection(), topic, partitions, timeout, &|| false);
        assert_eq!(result.map_err(|error| error.trouble()), expected, "{topic}");
    };
    check(TOPIC, 2, PATIENCE, Ok(vec![0, 0]));
    check(TOPIC, 3, PATIENCE, Err(Trouble::Missing));
    check("gone", 1, PATIENCE, Err(Trouble::Missing));
    cloud.mock.request_errors(RDKafkaApiKey::ListOffsets, &[REFUSED]);
    check(TOPIC, 2, PATIENCE, Err(Trouble::Refused));
    cloud.mock.broker_down(1).unwrap();
    check(TOPIC, 2, Duration::from_secs(1), Err(Trouble::Passing));
    let began = clock::now();
    let stopped = ends(&cloud.connection(), TOPIC, 2, PATIENCE, &|| true).unwrap_err();
    assert_eq!(stopped.to_string(), "the ends of telemetry cannot be had: no answer");
    assert!(clock::now().duration_since(began) < Duration::from_secs(5));
}

#[test]
fn reading_from_one_offset_to_another_stops_there() {
    let cloud = Cloud::start(&[(TOPIC, 2)]);
    for seq in 1..=6 {
        cloud.own(1, seq);
    }
    let reader = Reader::new(&cloud.connection()).unwrap();
    let mut parts = reader.parts(TOPIC, PATIENCE).unwrap();
    assert_eq!(parts.iter().map(|part| (part.low, part.high)).collect::<Vec<_>>(), [(0, 0), (0, 6)]);
    (parts[1].low, parts[1].high) = (2, 4);
    let mut seen = Vec::new();
    let mut each = |part, header: &[u8]| seen.push((part, String::from_utf8(header.to_vec()).unwrap()));
    reader
        .read(&parts, IDENTITY_HEADER, PATIENCE, |stored| {
            each(stored.part, stored.header.unwrap());
            Ok::<(), std::io::Error>(())
        })
        .unwrap();
    assert_eq!(seen, [(1, own_identity(3)), (1, own_identity(4))]);
    let missing = reader.parts("gone", PATIENCE).unwrap_err();
    assert_eq!(missing.trouble(), Trouble::Missing, "{missing}");
    parts[1].high = 9;
    let stalled =
        reader.read(&parts, IDENTITY_HEADER, Duration::from_millis(300), |_| Ok::<(), std::io::Error>(()));
    assert!(matches!(stalled, Err(ReadError::Stalled(_, 1))), "{stalled:?}");
}

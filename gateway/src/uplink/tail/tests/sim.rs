//! The tail read against cloud-sim: a broker that was not written by the authors of the client, with faults.

use std::time::Duration;

use penstock_proto::{IDENTITY_HEADER, LogId};
use rdkafka::ClientConfig;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};

use super::super::{Bounds, Ended, Outcome, Own, Summary, Want, read};
use crate::uplink::reader::{Trouble, ends};
use crate::uplink::tests::sim::{PARTITIONS, Sim, TOPIC};

const PATIENCE: Duration = Duration::from_secs(30);
const BOUNDS: Bounds = Bounds {
    until_ms: u64::MAX,
    bytes_max: 64 << 20,
    quiet: Duration::from_millis(300),
    longest: Duration::from_secs(20),
};

fn writer(sim: &Sim) -> BaseProducer {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", sim.connection().bootstrap_servers).set("enable.idempotence", "true");
    config.set("linger.ms", "5").set("reconnect.backoff.max.ms", "200").create().unwrap()
}

/// Reads everything and gives the positions of this gateway found, per partition.
fn read_all(sim: &Sim) -> (Summary, Vec<Vec<u64>>) {
    let want = |partition| Want { topic: TOPIC.to_owned(), partition, from: 0 };
    let wants: Vec<_> = (0..PARTITIONS).map(want).collect();
    let own = Own { gateway: "site-7".parse().unwrap(), log: LogId(7) };
    let mut seqs = vec![Vec::new(); wants.len()];
    let summary = read(&sim.connection(), &wants, &own, &BOUNDS, &|| false, &mut |found| {
        seqs[found.want].push(found.identity.seq.0);
    });
    (summary.unwrap(), seqs)
}

/// Queues a record for the partition that its position names.
fn write(writer: &BaseProducer, gateway: &str, seq: u64, bytes: usize) {
    let identity = format!("{gateway}/0000000000000007/1/2/{seq}/0/l");
    let headers = OwnedHeaders::new().insert(Header { key: IDENTITY_HEADER, value: Some(&identity) });
    let partition = i32::try_from(seq % u64::from(PARTITIONS)).unwrap();
    let payload = vec![b'x'; bytes];
    let record = BaseRecord::<[u8], [u8]>::to(TOPIC).partition(partition).payload(&payload).headers(headers);
    writer.send(record).map_err(|(error, _)| error).unwrap();
}

#[test]
fn everything_of_our_own_is_found_among_the_records_of_others() {
    let sim = Sim::start();
    let writer = writer(&sim);
    for seq in 1..=3000 {
        write(&writer, if seq % 3 == 0 { "site-7" } else { "site-8" }, seq, 2000);
    }
    writer.flush(PATIENCE).unwrap();
    let (summary, seqs) = read_all(&sim);
    for (partition, seqs) in (0..).zip(&seqs) {
        let expected: Vec<u64> = (1..=3000).filter(|seq| seq % 3 == 0 && seq % 4 == partition).collect();
        assert_eq!(*seqs, expected, "partition {partition}");
    }
    assert_eq!((summary.ended, summary.records, summary.own), (Ended::Settled, 3000, 1000));
    assert!(summary.bytes > 6_000_000, "{summary:?}");
    let ends = ends(&sim.connection(), TOPIC, PARTITIONS, PATIENCE, &|| false).unwrap();
    assert_eq!(ends, [750; 4]);
}

#[test]
fn what_was_stored_without_an_answer_is_found_once() {
    let sim = Sim::start();
    sim.control.lose_ack(2).unwrap();
    let writer = writer(&sim);
    for seq in 1..=200 {
        write(&writer, "site-7", seq, 100);
        if seq % 20 == 0 {
            writer.poll(Duration::from_millis(5));
        }
    }
    sim.control.lose_ack(0).unwrap();
    writer.flush(PATIENCE).unwrap();
    let (summary, seqs) = read_all(&sim);
    let mut all: Vec<u64> = seqs.concat();
    all.sort_unstable();
    assert_eq!(all, (1..=200).collect::<Vec<_>>());
    assert_eq!(summary.own, 200);
}

#[test]
fn without_the_right_to_listen_the_read_ends_and_says_so() {
    let sim = Sim::start();
    let writer = writer(&sim);
    write(&writer, "site-7", 1, 100);
    writer.flush(PATIENCE).unwrap();
    sim.control.listen(false).unwrap();
    let (summary, seqs) = read_all(&sim);
    let outcomes: Vec<_> = summary.parts.iter().map(|part| part.outcome).collect();
    assert_eq!(
        (summary.ended, outcomes, seqs.concat().len()),
        (Ended::Settled, vec![Outcome::Refused; 4], 0)
    );
    let refused = ends(&sim.connection(), TOPIC, PARTITIONS, PATIENCE, &|| false).unwrap_err();
    assert_eq!(refused.trouble(), Trouble::Refused);
    sim.control.listen(true).unwrap();
    let (summary, seqs) = read_all(&sim);
    assert_eq!((summary.own, seqs.concat()), (1, vec![1]));
}

//! What decision 0030 rests on: for every error that a broker may answer with, what is stored is a prefix of what was
//! sent, every record gets its report, and a new producer goes on from there without loss, disorder or repeat.
//!
//! One request is on its way when it is refused and more wait in the library: the mock does not check the numbering
//! of records, so it would store what a real broker refuses for following a refused request.

use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr as Error};

use super::*;

/// Records of a batch.
const BATCH: usize = 50;
/// How long a batch waits for company, and an answer is on its way.
const LINGER: Duration = Duration::from_millis(100);
const ROUND_TRIP: Duration = Duration::from_millis(60);
/// After this the second batch has left and is not yet answered.
const BETWEEN: Duration = Duration::from_millis(125);

/// What follows from an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    /// The library sends the batch again by itself.
    Passes,
    /// The library takes it for stored by an earlier attempt, and goes on.
    Stored,
    /// The producer is at its end, and the batch's own records say this.
    Ends(Disposition),
}

use Disposition::{Collateral, Hold, Record, Retry};
use Outcome::{Ends, Passes, Stored};

const TABLE: [(Error, Outcome); 17] = [
    (Error::RD_KAFKA_RESP_ERR_NOT_LEADER_FOR_PARTITION, Passes),
    (Error::RD_KAFKA_RESP_ERR_REQUEST_TIMED_OUT, Passes),
    (Error::RD_KAFKA_RESP_ERR_KAFKA_STORAGE_ERROR, Passes),
    (Error::RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART, Passes),
    (Error::RD_KAFKA_RESP_ERR__TRANSPORT, Passes),
    (Error::RD_KAFKA_RESP_ERR_UNKNOWN_PRODUCER_ID, Passes),
    (Error::RD_KAFKA_RESP_ERR_NOT_ENOUGH_REPLICAS, Passes),
    (Error::RD_KAFKA_RESP_ERR_DUPLICATE_SEQUENCE_NUMBER, Stored),
    (Error::RD_KAFKA_RESP_ERR_POLICY_VIOLATION, Ends(Retry)),
    (Error::RD_KAFKA_RESP_ERR_UNKNOWN, Ends(Retry)),
    (Error::RD_KAFKA_RESP_ERR_THROTTLING_QUOTA_EXCEEDED, Ends(Retry)),
    (Error::RD_KAFKA_RESP_ERR_INVALID_PRODUCER_EPOCH, Ends(Retry)),
    (Error::RD_KAFKA_RESP_ERR_OUT_OF_ORDER_SEQUENCE_NUMBER, Ends(Retry)),
    (Error::RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE, Ends(Record)),
    (Error::RD_KAFKA_RESP_ERR_INVALID_RECORD, Ends(Record)),
    (Error::RD_KAFKA_RESP_ERR_UNSUPPORTED_FOR_MESSAGE_FORMAT, Ends(Record)),
    (Error::RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED, Ends(Hold)),
];

#[test]
fn a_refusal_leaves_a_prefix_and_a_new_producer_goes_on_from_there() {
    // Each row mostly waits.
    std::thread::scope(|scope| {
        let rows = TABLE.map(|(error, outcome)| (error, scope.spawn(move || check(error, outcome))));
        let failed: Vec<_> =
            rows.into_iter().filter_map(|(error, row)| row.join().is_err().then_some(error)).collect();
        assert_eq!(failed, []);
    });
}

fn check(error: Error, expected: Outcome) {
    let cluster = cluster();
    let servers = cluster.bootstrap_servers();
    let producer = Producer::new(&settings(servers.clone(), LINGER)).unwrap();
    send(&producer, 0..BATCH).unwrap();
    assert!(reports(&producer, BATCH).iter().all(|report| report.result.is_ok()), "{error:?}");

    cluster.broker_round_trip_time(1, ROUND_TRIP).unwrap();
    cluster.request_errors(RDKafkaApiKey::Produce, &[error]);
    send(&producer, BATCH..2 * BATCH).unwrap();
    let mut reported = Vec::new();
    producer.poll(BETWEEN, &mut reported);
    let later = send(&producer, 2 * BATCH..3 * BATCH);
    let sent = match later {
        Ok(()) => 3 * BATCH,
        Err(Refused::Fatal(_)) => 2 * BATCH,
        Err(refused) => panic!("{error:?}: {refused:?}"),
    };
    let missing = sent - BATCH - reported.len();
    reported.extend(reports(&producer, missing));
    cluster.broker_round_trip_time(1, Duration::ZERO).unwrap();

    if matches!(expected, Ends(_)) {
        // What the end of a producer throws away is reported in any order.
        reported.sort_by_key(|report| report.slot);
    }
    let slots: Vec<usize> = reported.iter().map(|report| report.slot).collect();
    assert_eq!(slots, (BATCH..sent).collect::<Vec<_>>(), "{error:?}: one report each, in order");
    assert_eq!(producer.fatal().is_some(), matches!(expected, Ends(_)), "{error:?}: {:?}", producer.fatal());
    let (refused, rest) = reported.split_at(BATCH);
    match expected {
        Passes | Stored => {
            assert!(reported.iter().all(|report| report.result.is_ok()), "{error:?}: {:?}", reported[0]);
        }
        Ends(disposition) => {
            let is = |report: &Report, wanted| matches!(&report.result, Err(failure) if failure.disposition == wanted);
            assert!(refused.iter().all(|report| is(report, disposition)), "{error:?}: {:?}", refused[0]);
            // On a slow machine the rest may have caught the refused request.
            let other = rest.iter().find(|report| !is(report, Collateral) && !is(report, disposition));
            assert!(other.is_none(), "{error:?}: {other:?}");
            assert!(matches!(send(&producer, 0..1), Err(Refused::Fatal(_))), "{error:?}");
        }
    }
    drop(producer);

    let found = stored(&servers);
    match expected {
        Passes => assert_eq!(found, (0..3 * BATCH).collect::<Vec<_>>(), "{error:?}"),
        // The mock stored nothing of the second batch when it answered so.
        Stored => assert_eq!(found, (0..BATCH).chain(2 * BATCH..3 * BATCH).collect::<Vec<_>>(), "{error:?}"),
        Ends(_) => {
            assert_eq!(found, (0..BATCH).collect::<Vec<_>>(), "{error:?}: a prefix");
            let producer = Producer::new(&settings(servers.clone(), Duration::ZERO)).unwrap();
            send(&producer, BATCH..3 * BATCH).unwrap();
            reports(&producer, 2 * BATCH);
            assert_eq!(stored(&servers), (0..3 * BATCH).collect::<Vec<_>>(), "{error:?}: replayed");
        }
    }
}

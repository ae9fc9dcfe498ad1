//! The command against a cluster whose records are written by hand.

use std::fs;
use std::path::Path;
use std::time::Duration;

use clap::Parser;
use rdkafka::ClientConfig;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::mocking::MockCluster;
use rdkafka::producer::{BaseProducer, BaseRecord, DefaultProducerContext, Producer as _};

use penstock_proto::PACK_HEADER;

use super::*;

const LOG: &str = "00c0ffee00c0ffee";

#[derive(Debug, Parser)]
struct CommandLine {
    #[command(flatten)]
    args: Args,
}

struct Hub {
    mock: MockCluster<'static, DefaultProducerContext>,
    producer: BaseProducer,
}

impl Hub {
    fn start() -> Self {
        let mock = MockCluster::new(1).unwrap();
        mock.create_topic("telemetry", 2, 1).unwrap();
        mock.create_topic("status", 1, 1).unwrap();
        let producer =
            ClientConfig::new().set("bootstrap.servers", mock.bootstrap_servers()).create().unwrap();
        Self { mock, producer }
    }

    /// Stores records of lane telemetry given as (prev, seq).
    fn store(&self, partition: i32, records: &[(u64, u64)]) {
        for (prev, seq) in records {
            self.store_as("telemetry", partition, Some(&format!("site/{LOG}/1/2/{seq}/{prev}/l")), "{}");
        }
    }

    fn store_as(&self, topic: &str, partition: i32, header: Option<&str>, payload: &str) {
        let headers: Vec<_> = header.into_iter().map(|value| (IDENTITY_HEADER, value)).collect();
        self.store_with(topic, partition, &headers, payload.as_bytes());
    }

    fn store_with(&self, topic: &str, partition: i32, headers: &[(&str, &str)], payload: &[u8]) {
        let mut record = BaseRecord::to(topic).partition(partition).key("device").payload(payload);
        let mut owned = OwnedHeaders::new();
        for (key, value) in headers {
            owned = owned.insert(Header { key, value: Some(*value) });
        }
        if !headers.is_empty() {
            record = record.headers(owned);
        }
        self.producer.send(record).map_err(|(error, _)| error).unwrap();
        self.producer.flush(Duration::from_secs(30)).unwrap();
    }

    /// Stores the sound or the bad ones of the test vectors, and returns how many there are.
    fn store_vectors(&self, partition: i32, bad: bool) -> u64 {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/formats/vectors/packed-v1");
        let index = fs::read(folder.join("index.json")).unwrap();
        let index: Vec<serde_json::Value> = serde_json::from_slice(&index).unwrap();
        let mut count = 0;
        for vector in index.iter().filter(|vector| vector.get("error").is_some() == bad) {
            let text = |name: &str| vector[name].as_str().unwrap();
            let headers = [(IDENTITY_HEADER, text("penstock")), (PACK_HEADER, text("penstock_pack"))];
            self.store_with("telemetry", partition, &headers, &fs::read(folder.join(text("file"))).unwrap());
            count += 1;
        }
        count
    }

    /// Runs the command and returns whether the promise was kept and what was printed.
    fn run(&self, more: &[&str]) -> (bool, String) {
        let servers = self.mock.bootstrap_servers();
        let mut words = vec!["verify", "--bootstrap", &servers];
        words.extend(more);
        let mut out = Vec::new();
        let kept = run(&CommandLine::parse_from(words).args, &mut out).unwrap();
        (kept, String::from_utf8(out).unwrap())
    }
}

#[test]
fn a_clean_hub_is_proven_clean() {
    let hub = Hub::start();
    hub.store(0, &[(0, 1), (1, 3), (3, 4)]);
    hub.store(1, &[(0, 2), (2, 5)]);
    let (kept, text) = hub.run(&["--topic", "telemetry,status"]);
    assert!(kept, "{text}");
    assert!(text.contains("total: 5 records, 0 gaps, 0 explained, 0 duplicates, 0 reordered"), "{text}");
    assert!(text.contains("telemetry[1]/l: 2 records, seq 2 to 5"), "{text}");
    assert!(text.ends_with("every promise was kept\n"), "{text}");
}

#[test]
fn packs_of_every_format_are_opened() {
    let hub = Hub::start();
    let header = "site-7/00c0ffee12345678/3/2/1038/0/l";
    hub.store_as("telemetry", 0, Some(header), "{}");
    let packs = hub.store_vectors(0, false);
    assert!(packs >= 9);
    let (kept, text) = hub.run(&["--topic", "telemetry", "--json"]);
    let report: serde_json::Value = serde_json::from_str(&text).unwrap();
    // All of them hold the same six entries.
    for (name, expected) in [
        ("records", packs + 1),
        ("packs", packs),
        ("entries", 6 * packs + 1),
        ("duplicates", 6 * (packs - 1)),
    ] {
        assert_eq!(report["totals"][name], expected, "{name}: {text}");
    }
    assert!(kept && report["lanes"][0]["entries"] == 7, "{text}");
    let (_, text) = hub.run(&["--topic", "telemetry"]);
    assert!(
        text.contains(&format!("packed: {packs} of the records; {} entries in all", 6 * packs + 1)),
        "{text}"
    );
}

#[test]
fn bad_packs_break_the_promise() {
    let hub = Hub::start();
    let packs = hub.store_vectors(0, true);
    let (kept, text) = hub.run(&["--topic", "telemetry"]);
    let expected = format!("telemetry[0]: 0 without header, 0 with a bad one, {packs} bad packs");
    assert!(!kept && packs > 0 && text.contains(&expected), "{text}");
}

#[test]
fn faults_are_counted_and_break_the_promise() {
    let hub = Hub::start();
    hub.store(0, &[(0, 1), (2, 3), (3, 4), (3, 4)]);
    hub.store(1, &[(0, 5), (7, 9), (5, 7)]);
    hub.store_as("telemetry", 1, None, "from somebody else");
    hub.store_as("telemetry", 1, Some("nonsense"), "{}");
    let (kept, text) = hub.run(&["--topic", "telemetry", "--json"]);
    assert!(!kept);
    let report: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(report["kept"], false);
    let totals = &report["totals"];
    for (name, expected) in [
        ("records", 9),
        ("gaps", 1),
        ("duplicates", 1),
        ("reordered", 1),
        ("without_header", 1),
        ("bad_header", 1),
    ] {
        assert_eq!(totals[name], expected, "{name}: {text}");
    }
    assert_eq!(report["lanes"][0]["missing"], 3, "2, 6 and 8: {text}");
}

#[test]
fn a_loss_record_in_another_topic_explains_a_gap() {
    let hub = Hub::start();
    hub.store(0, &[(0, 1), (2, 3)]);
    assert!(!hub.run(&["--topic", "telemetry,status"]).0);
    let event = format!(
        r#"{{"specversion":"1.0","type":"io.penstock.outbox.loss.v1","source":"/gateways/site","id":"1",
        "data":{{"log":"{LOG}","lane":"telemetry","first":2,"last":2,"reason":"quarantine"}}}}"#
    );
    hub.store_as("status", 0, Some(&format!("site/{LOG}/1/1/1/0/l")), &event);
    let (kept, text) = hub.run(&["--topic", "telemetry,status"]);
    assert!(kept && text.contains("0 gaps, 1 explained"), "{text}");
    assert!(!hub.run(&["--topic", "telemetry"]).0, "the topic with the loss record was not read");
}

#[test]
fn an_empty_topic_is_clean_and_a_missing_one_is_an_error() {
    let hub = Hub::start();
    assert!(hub.run(&["--topic", "status"]).0);
    let servers = hub.mock.bootstrap_servers();
    let words = ["verify", "--bootstrap", &servers, "--topic", "absent"];
    let error = run(&CommandLine::parse_from(words).args, Vec::new()).unwrap_err();
    assert_eq!(error.exit_code(), 1);
    assert!(crate::supervise::chain(&error).contains("absent"), "{error:?}");
}

#[test]
fn arguments_that_do_not_go_together_are_refused() {
    let check = |words: &[&str], expected: &str| {
        let words = ["verify"].iter().chain(words);
        let error = run(&CommandLine::parse_from(words).args, Vec::new()).unwrap_err();
        assert_eq!((error.exit_code(), error.to_string().as_str()), (2, expected));
    };
    check(&["--topic", "a"], "--bootstrap is required");
    check(&["--topic", "a,a", "--bootstrap", "h:1"], "--topic: \"a\" is empty or given twice");
    check(&["--topic", "a", "--security", "sasl-tls"], "--security sasl-tls needs --connection-string-file");
    check(
        &["--topic", "a", "--bootstrap", "h:1", "--connection-string-file", "f"],
        "--connection-string-file needs --security sasl-tls",
    );
    assert!(CommandLine::try_parse_from(["verify"]).is_err(), "no topic");
}

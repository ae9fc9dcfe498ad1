//! The command against a cluster whose records are written by hand.

use std::time::Duration;

use clap::Parser;
use rdkafka::ClientConfig;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::mocking::MockCluster;
use rdkafka::producer::{BaseProducer, BaseRecord, DefaultProducerContext, Producer as _};

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
        let mut record = BaseRecord::to(topic).partition(partition).key("device").payload(payload);
        if let Some(value) = header {
            let header = Header { key: IDENTITY_HEADER, value: Some(value) };
            record = record.headers(OwnedHeaders::new().insert(header));
        }
        self.producer.send(record).map_err(|(error, _)| error).unwrap();
        self.producer.flush(Duration::from_secs(30)).unwrap();
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

//! What the cloud never takes is kept, said, and an operator's to decide.

use std::path::Path;
use std::process::Command;

use penstock::dead_letter::{Origin, entry};
use penstock::outbox::{BodyCodec, Properties, Record, UserProperties};
use penstock_proto::{Epoch, GatewayId, Lane, Seq, base64};
use serde_json::Value;
use testkit::cloud::Cloud;
use testkit::gateway::{Config, Gateway};

use crate::client::Device;
use crate::hub::{self, NOTHING};
use crate::site::Site;

const GATEWAY: &str = "site-7";

/// What `penstock dead-letter` answered.
struct Answer {
    code: Option<i32>,
    said: String,
    remarks: String,
}

/// Runs it with the configuration of the gateway in `folder`.
fn dead_letter(folder: &Path, arguments: &[&str]) -> Answer {
    let config = folder.join("penstock.toml");
    let mut program = Command::new(env!("CARGO_BIN_EXE_penstock"));
    let output = program.arg("dead-letter").args(arguments).arg("--config").arg(config).output();
    let output = output.expect("it runs");
    let text = |bytes| String::from_utf8(bytes).expect("text");
    Answer { code: output.status.code(), said: text(output.stdout), remarks: text(output.stderr) }
}

impl Answer {
    /// What it said, once it is clear that all went well.
    fn well(self) -> String {
        assert_eq!((self.code, self.remarks.as_str()), (Some(0), ""), "{}", self.said);
        self.said
    }
}

fn exported(folder: &Path) -> Vec<Value> {
    let said = dead_letter(folder, &["export"]).well();
    said.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

fn waiting(gateway: &Gateway) -> u64 {
    let status = gateway.admin("/api/v1/status").expect("it answers").expect("with a status");
    let status: Value = serde_json::from_str(&status).expect("JSON");
    status["dead_letter"]["entries"].as_u64().expect("a count")
}

fn admin(gateway: &Gateway) -> String {
    gateway.ready().admin.clone().expect("it has an admin listener")
}

// === with letters that were put there ===

const PAYLOADS: [&[u8]; 4] = [b"text", b"\x00\xff", b"", b"{\"reading\":4}"];

/// A directory with a letter per payload.
fn with_letters(directory: &Path) {
    let site = Site::open(directory, BodyCodec::Lz4, false);
    let gateway: GatewayId = GATEWAY.parse().expect("a gateway id");
    let mut own = Vec::new();
    UserProperties::push(&mut own, "site", "north");
    for (seq, payload) in (11..).zip(PAYLOADS) {
        let origin = Origin {
            gateway: &gateway,
            log: site.outbox.log(),
            epoch: Epoch(1),
            lane: Lane::Telemetry,
            seq: Seq(seq),
            target: "telemetry/3",
            reason: "Broker: Message size too large",
            dead_ms: 1_772_366_400_250,
        };
        let record = Record {
            device: "pump-7",
            topic: "devices/pump-7/telemetry",
            received_ms: 1_772_366_400_000,
            qos: 1,
            retain: false,
            clock_synced: true,
            properties: Properties {
                content_type: Some("application/json"),
                user: UserProperties::new(&own).expect("well formed"),
                ..Properties::default()
            },
            payload,
        };
        let mut scratch = Vec::new();
        site.append(Lane::Dead, [entry(&record, &origin, &mut scratch)]);
    }
    site.close();
}

/// The user properties of the entries of lane telemetry.
fn retried(directory: &Path) -> Vec<(String, Value)> {
    let mut program = Command::new(env!("CARGO_BIN_EXE_penstock"));
    let output = program.args(["outbox", "export", "--lane", "telemetry"]).arg(directory).output();
    let output = output.expect("it runs");
    let text = String::from_utf8(output.stdout).expect("text");
    let entries = text.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
    let shown = |entry: Value| {
        (entry["payload"].as_str().unwrap_or("?").to_owned(), entry["properties"]["user"].clone())
    };
    entries.map(shown).collect()
}

#[test]
fn an_operator_decides_with_and_without_a_gateway() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (folder, directory) = (folder.path(), folder.path().join("outbox"));
    with_letters(&directory);
    let config = Config::default().id(GATEWAY).set("uplink", "enabled = false");
    std::fs::write(folder.join("penstock.toml"), config.to_toml(folder)).expect("written");

    let list = dead_letter(folder, &["list"]).well();
    assert!(list.ends_with("4 waiting\n") && list.lines().count() == 6, "{list}");
    let row = list.lines().nth(1).expect("the first one");
    for part in ["2026-03-01T12:00:00.250Z", "telemetry", " 11 ", "telemetry/3", "pump-7", "too large"] {
        assert!(row.contains(part), "{row} does not show {part}");
    }
    let letters = exported(folder);
    let payload = |letter: &Value| base64::decode(letter["payload_base64"].as_str().expect("text"));
    let payloads: Vec<_> = letters.iter().map(|letter| payload(letter).expect("base64")).collect();
    assert_eq!(payloads, PAYLOADS.map(<[u8]>::to_vec), "byte by byte");
    assert_eq!((&letters[0]["payload"], &letters[1]["payload"]), (&"text".into(), &Value::Null));
    assert_eq!(letters[0]["from"], serde_json::json!({"lane": "telemetry", "seq": 11, "epoch": 1}));
    assert_eq!(letters[0]["properties"]["user"], serde_json::json!([["site", "north"]]), "its own");

    let said = dead_letter(folder, &["retry", "--through", "1"]).well();
    assert_eq!(said, "1 dead letters went back to their lanes; 3 waiting\n");
    let (text, user) = retried(&directory).pop().expect("it is in its lane again");
    let log = letters[0]["log"].as_str().expect("text");
    let from = format!("{GATEWAY}/{log}/1/2/11");
    assert_eq!(
        (text.as_str(), user),
        ("text", serde_json::json!([["site", "north"], ["penstock-retried-from", from]]))
    );

    let mut gateway = Gateway::start(folder, config).expect("the gateway starts");
    assert_eq!(waiting(&gateway), 3);
    let unreachable = dead_letter(folder, &["retry", "--all", "--admin", "127.0.0.1:1"]);
    assert_eq!(unreachable.code, Some(1));
    assert!(unreachable.remarks.contains("a gateway has the outbox open"), "{}", unreachable.remarks);
    let admin = admin(&gateway);
    let said = dead_letter(folder, &["retry", "--through", "2", "--admin", &admin]).well();
    assert_eq!(said, "1 dead letters went back to their lanes; 2 waiting\n");
    let asked = dead_letter(folder, &["discard", "--all", "--admin", &admin]);
    assert_eq!(
        (asked.code, asked.said.as_str()),
        (Some(2), "2 dead letters would be discarded, from position 3\n")
    );
    let said = dead_letter(folder, &["discard", "--through", "3", "--yes", "--admin", &admin]).well();
    assert_eq!(said, "1 dead letters were discarded; 1 waiting\n");
    assert_eq!((waiting(&gateway), retried(&directory).len()), (1, 2));
    gateway.kill().expect("it can be killed");
    gateway.restart().expect("it starts again");
    assert_eq!(waiting(&gateway), 1, "what was said is durable");
    assert_eq!(exported(folder).len(), 1);
    assert_eq!(gateway.stop().expect("it stops").code(), Some(0));
    let said = dead_letter(folder, &["discard", "--all", "--yes"]).well();
    assert_eq!(said, "1 dead letters were discarded; 0 waiting\n");
    assert_eq!(
        dead_letter(folder, &["retry", "--all"]).well(),
        "0 dead letters went back to their lanes; 0 waiting\n"
    );
    assert_eq!(retried(&directory).len(), 2);
}

#[test]
fn arguments_that_cannot_be_meant_are_refused() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let config = Config::default().set("uplink", "enabled = false");
    std::fs::write(folder.path().join("penstock.toml"), config.to_toml(folder.path())).expect("written");
    for arguments in [&["retry"][..], &["discard", "--all", "--through", "3"], &["list", "--from", "x"]] {
        assert_eq!(dead_letter(folder.path(), arguments).code, Some(2), "{arguments:?}");
    }
    for arguments in [&["list"][..], &["export"], &["retry", "--all"], &["discard", "--all", "--yes"]] {
        let answer = dead_letter(folder.path(), arguments);
        assert_eq!(answer.code, Some(2), "{arguments:?}");
        assert!(answer.remarks.contains("no such directory"), "{}", answer.remarks);
    }
    assert!(!folder.path().join("outbox").exists(), "nothing was created");
}

// === end to end ===

/// The cloud of a namespace that takes no more than this at once.
const BATCH_BYTES_MAX: &str = "200000";
const TOO_LARGE: usize = 300_000;

fn small_cloud(folder: &Path) -> Cloud {
    let data = folder.join("cloud");
    std::fs::create_dir_all(&data).expect("a folder for the cloud");
    let topics = [(hub::TOPIC, hub::PARTITIONS)];
    Cloud::start_with(&data, &topics, &["--batch-bytes-max", BATCH_BYTES_MAX]).expect("cloud-sim starts")
}

#[test]
fn what_is_too_large_for_the_cloud_dies_alone_and_can_be_looked_at_and_let_go() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let cloud = small_cloud(folder.path());
    let config = Config::default()
        .id(GATEWAY)
        .uplink(&cloud.ready().kafka, hub::TOPIC)
        .set("mqtt", "packet_bytes_max = \"800KiB\"");
    let mut gateway = Gateway::start(folder.path(), config).expect("the gateway starts");
    let address = gateway.mqtt().to_owned();
    let small = Device::connect(&address, "pump-8").pump(8, 100, |_| ());
    // One device sends what fits, what does not, and what fits again.
    let mut device = Device::connect(&address, "pump-7");
    assert_eq!(device.pump(1, 3, |_| ()), 3);
    let mut device = device.padded(TOO_LARGE);
    assert_eq!(device.pump(1, 4, |_| ()), 4, "it is stored and acknowledged");
    let mut device = device.padded(0);
    assert_eq!(device.pump(1, 6, |_| ()), 6);
    assert_eq!(hub::missing(&cloud, "pump-8", small), NOTHING);
    hub::wait_for("the letter", || (waiting(&gateway) == 1).then_some(()));
    hub::wait_for("what came behind it", || {
        hub::readings(&cloud, "pump-7").keys().copied().eq([1, 2, 3, 5, 6]).then_some(())
    });

    let letters = exported(folder.path());
    let payload = base64::decode(letters[0]["payload_base64"].as_str().expect("text")).expect("base64");
    assert_eq!(payload, format!("{{\"reading\":4{}}}", " ".repeat(TOO_LARGE)).into_bytes(), "byte by byte");
    let list = dead_letter(folder.path(), &["list"]).well();
    assert!(list.contains("pump-7") && list.ends_with("1 waiting\n"), "{list}");
    let (passed, said) = hub::verify(&cloud);
    assert!(passed, "the loss is named: {said}");

    // It is refused again, as a new entry.
    let before = letters[0]["from"]["seq"].as_u64().expect("a position");
    let admin = admin(&gateway);
    let said = dead_letter(folder.path(), &["retry", "--all", "--admin", &admin]).well();
    assert!(said.starts_with("1 dead letters went back"), "{said}");
    let again = hub::wait_for("the letter again", || exported(folder.path()).pop());
    assert!(again["from"]["seq"].as_u64().expect("a position") > before, "{again}");
    let from = &again["properties"]["user"][0];
    let expected = format!("{GATEWAY}/{}/1/2/{before}", letters[0]["log"].as_str().expect("text"));
    assert_eq!(from, &serde_json::json!(["penstock-retried-from", expected]));

    let said = dead_letter(folder.path(), &["discard", "--all", "--yes", "--admin", &admin]).well();
    assert_eq!(said, "1 dead letters were discarded; 0 waiting\n");
    // A reading behind it closes the chain, and the gap is explained.
    assert_eq!(device.pump(1, 7, |_| ()), 7);
    hub::wait_for("the last reading", || hub::readings(&cloud, "pump-7").contains_key(&7).then_some(()));
    let losses = hub::wait_for("three loss records", || {
        let own = hub::records(&cloud).into_iter().filter(|record| record.key == GATEWAY);
        let events = own.map(|record| serde_json::from_str::<Value>(&record.payload).expect("JSON"));
        let losses: Vec<_> = events.filter(|event| event["type"] == "io.penstock.outbox.loss.v1").collect();
        (losses.len() == 3).then_some(losses)
    });
    let reasons: Vec<_> = losses.iter().map(|event| event["data"]["reason"].clone()).collect();
    assert_eq!(reasons, ["dead-letter", "dead-letter", "discarded"]);
    let (passed, said) = hub::verify(&cloud);
    assert!(passed, "{said}");
    assert_eq!(gateway.stop().expect("it stops").code(), Some(0));
}

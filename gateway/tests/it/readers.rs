//! What the gateway wrote is read back by clients we did not write, through the helper that consumers get:
//! kcat, confluent-kafka and aiokafka, each of which must find every message once and nothing missing.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use penstock_proto::{IDENTITY_HEADER, Identity, PACK_HEADER, base64, packed};
use serde_json::{Value, json};
use testkit::cloud::Cloud;
use testkit::gateway::{Config, Gateway};
use testkit::missing;

use crate::client::Device;
use crate::hub;

/// Names an interpreter that has the clients; `cargo xtask test` sets it.
const PYTHON: &str = "PENSTOCK_TEST_PYTHON";
/// Longest run of a reader, in seconds.
const PATIENCE: &str = "120";
const DEVICES: [&str; 3] = ["pump-1", "pump-2", "pump-3"];
/// Readings of each device before and after the gateway was killed.
const READINGS: u16 = 400;
const WINDOW: u16 = 32;
/// What the examples print in front of a payload that is no text.
const BASE64: &str = "base64:";
/// Payloads that are hard to carry, of one more device. As JSON they have no white space around them, which
/// packed records do not keep.
const ODD: [&[u8]; 9] = [
    br#"{"a": [1, 2.50, "x\u00e9"], "b": {}}"#,
    b"plain text, with \"quotes\" and \\",
    "gr\u{f6}\u{df}e \u{20ac} \u{1f600}".as_bytes(),
    b"\x00\xff\xfe,=\n",
    b"",
    b"123456789012345678901234567890.10",
    b"line one\nline two\t.",
    b"[[[1]]]",
    b"NaN",
];

#[test]
fn the_helper_passes_its_own_tests() {
    let Some(python) = python("") else { return };
    let arguments = ["-B", "-m", "unittest", "discover", "-s", "tests"];
    let output = Command::new(python).args(arguments).current_dir(helper()).output().expect("python runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.contains("Ran "), "{said}");
}

/// The other implementation of the format must read what was made beside it, and refuse what it refuses.
#[test]
fn the_vectors_of_the_helper_mean_the_same_here() {
    let text = std::fs::read_to_string(helper().join("tests/vectors.json")).expect("the vectors");
    let vectors: Value = serde_json::from_str(&text).expect("JSON");
    let list = |name: &str| vectors[name].as_array().expect("a list").clone();
    for vector in list("good") {
        assert_eq!(unpacked(&vector), Ok(vector["entries"].clone()), "{}", vector["name"]);
    }
    for vector in list("bad") {
        assert!(unpacked(&vector).is_err(), "{}", vector["name"]);
    }
}

/// The entries of a vector, in the spelling of the file.
fn unpacked(vector: &Value) -> Result<Value, String> {
    let header = |name: &str| vector["headers"][name].as_str().expect("a header");
    let value = base64::decode(vector["value_base64"].as_str().expect("a value")).expect("Base64");
    let identity: Identity = header(IDENTITY_HEADER).parse().map_err(|error| format!("{error}"))?;
    let pack: packed::Header = header(PACK_HEADER).parse().map_err(|error| format!("{error}"))?;
    let body = packed::inflate(pack.compression, &value).map_err(|error| error.to_string())?;
    let entries = packed::unpack(&pack, &identity, &body).map_err(|error| error.to_string())?;
    let mut prev = identity.prev;
    let mut list = Vec::new();
    for (place, entry) in entries.iter().enumerate() {
        let mut payload = Vec::new();
        base64::push(&mut payload, entry.payload.bytes());
        list.push(json!({
            "seq": entry.seq, "prev": prev, "device": entry.device, "topic": entry.topic,
            "received_ms": entry.received_ms, "payload_base64": String::from_utf8(payload).expect("text"),
            // Not read on this side.
            "properties": vector["entries"][place]["properties"],
        }));
        prev = entry.seq;
    }
    Ok(Value::Array(list))
}

#[test]
fn records_per_message_are_read_back_by_every_client() {
    let Some(found) = check(&["format = \"per-message\"", "headers = \"full\""]) else { return };
    assert_eq!(found.records, found.entries);
    assert!(found.topics.contains("devices/odd/telemetry"), "{:?}", found.topics);
}

#[test]
fn packed_records_are_read_back_by_every_client() {
    for (format, compression) in [("ndjson", "none"), ("json-array", "gzip"), ("protobuf", "deflate")] {
        let pack_format = format!("pack_format = {format:?}");
        let pack_compression = format!("pack_compression = {compression:?}");
        let Some(found) = check(&["format = \"packed\"", &pack_format, &pack_compression]) else { return };
        assert!(found.records < found.entries, "{format}: {} records", found.records);
        assert!(found.topics.contains("devices/odd/telemetry"), "{:?}", found.topics);
    }
}

/// What a client found.
struct Found {
    records: u64,
    entries: u64,
    topics: BTreeSet<String>,
}

/// Sends through a gateway with these settings, kills it on the way, and has every client read it back.
/// Returns what the last one found; none if there is no Python.
fn check(settings: &[&str]) -> Option<Found> {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let cloud = hub::start(folder.path());
    let mut config = Config::default().id("readers").uplink(&cloud.ready().kafka, hub::TOPIC);
    for line in settings {
        config = config.set("uplink", line);
    }
    let config = config.set("uplink", "drain_timeout = \"60s\"");
    let mut gateway = Gateway::start(folder.path(), config).expect("the gateway starts");
    let mut acked = BTreeMap::new();
    for device in DEVICES {
        acked.insert(device, vec![Device::connect(gateway.mqtt(), device).pump(WINDOW, READINGS, |_| ())]);
    }
    gateway.restart().expect("it starts again after it was killed");
    for device in DEVICES {
        let again = Device::connect(gateway.mqtt(), device).pump(WINDOW, READINGS, |_| ());
        acked.entry(device).or_default().push(again);
    }
    for payload in ODD {
        publish(gateway.mqtt(), payload);
    }
    assert!(gateway.stop().expect("it stops").success());
    let expected = acked.values().flatten().map(|count| usize::from(*count)).sum::<usize>() + ODD.len();

    let mut last = None;
    for (client, output) in readers(&cloud) {
        let report = report(client, &output);
        for count in ["gaps", "reordered", "bad", "foreign", "joined", "forgotten"] {
            assert_eq!(report[count], 0, "{client}: {report}");
        }
        let (entries, topics) = messages(&output);
        let found: usize = entries.values().map(Vec::len).sum();
        assert_eq!(found, expected, "{client}: {report}");
        for (device, counts) in &acked {
            let readings = counts.iter().flat_map(|count| 1..=*count);
            let sent: Vec<String> = readings.map(|reading| format!("{{\"reading\":{reading}}}")).collect();
            assert!(entries[*device] == sent, "{client}: {device} in order, each once");
        }
        let odd = ODD.map(|payload| {
            // The only one that is no text.
            String::from_utf8(payload.to_vec()).unwrap_or_else(|_| format!("{BASE64}AP/+LD0K"))
        });
        assert_eq!(entries["odd"], odd, "{client}");
        let count = |name: &str| report[name].as_u64().expect("a count");
        last = Some(Found { records: count("records"), entries: count("entries"), topics });
    }
    last
}

/// Publishes one payload at QoS 1 as device `odd`.
fn publish(address: &str, payload: &[u8]) {
    let (host, port) = address.rsplit_once(':').expect("host:port");
    let mut command = Command::new("mosquitto_pub");
    command.args(["-h", host, "-p", port, "-q", "1", "-i", "odd", "-t", "devices/odd/telemetry"]);
    command.arg(if payload.is_empty() { "-n" } else { "-s" });
    let output = fed(&mut command, payload);
    assert!(output.status.success(), "mosquitto_pub: {}", String::from_utf8_lossy(&output.stderr));
}

/// The output of every client that is here: the entries as lines of JSON, and the counts.
fn readers(cloud: &Cloud) -> Vec<(&'static str, Output)> {
    let kafka = cloud.ready().kafka.as_str();
    let mut outputs = Vec::new();
    if let Some(interpreter) = python("") {
        let format = "%t %p %T %K %S %h\\n%k%s\\n";
        let kcat = Command::new("timeout")
            .args([PATIENCE, "kcat", "-C", "-e", "-q", "-b", kafka, "-t", hub::TOPIC, "-f", format])
            .output()
            .expect("kcat is installed (`cargo xtask test` installs it)");
        assert!(kcat.status.success(), "kcat: {}", String::from_utf8_lossy(&kcat.stderr));
        outputs.push(("kcat", fed(&mut example(interpreter, "kcat_reader.py"), &kcat.stdout)));
    }
    if let Some(interpreter) = python("aiokafka, confluent_kafka") {
        for (client, script) in
            [("confluent-kafka", "confluent_kafka_reader.py"), ("aiokafka", "aiokafka_reader.py")]
        {
            let mut command = example(&interpreter, script);
            outputs.push((client, command.args([kafka, hub::TOPIC]).output().expect("python runs")));
        }
    }
    outputs
}

/// One of the examples beside the helper.
fn example(interpreter: impl AsRef<OsStr>, script: &str) -> Command {
    let mut command = Command::new("timeout");
    command.arg(PATIENCE).arg(interpreter).arg("-B").arg(helper().join("examples").join(script));
    command
}

/// Runs a command with this on its standard input.
fn fed(command: &mut Command, input: &[u8]) -> Output {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program is installed (`cargo xtask test` installs it)");
    let mut stdin = child.stdin.take().expect("piped");
    std::thread::scope(|scope| {
        // It may write before it has read everything.
        scope.spawn(move || drop(stdin.write_all(input)));
        child.wait_with_output().expect("it ends")
    })
}

/// The counts, which a reader prints last.
fn report(client: &str, output: &Output) -> Value {
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{client}: {said}");
    let last = said.lines().last().unwrap_or_default();
    serde_json::from_str(last).expect("the counts are a line of JSON")
}

/// The payloads of each device, in the order in which they were read, and the topics they were published to.
fn messages(output: &Output) -> (BTreeMap<String, Vec<String>>, BTreeSet<String>) {
    let mut found: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut topics = BTreeSet::new();
    for line in String::from_utf8_lossy(&output.stdout).lines() {
        let entry: Value = serde_json::from_str(line).expect("a line of JSON");
        let payload = match entry["payload"].as_str() {
            Some(text) => text.to_owned(),
            None => format!("{BASE64}{}", entry["payload_base64"].as_str().expect("a payload")),
        };
        found.entry(entry["device"].as_str().expect("a device").to_owned()).or_default().push(payload);
        topics.extend(entry["mqtt_topic"].as_str().map(str::to_owned));
    }
    (found, topics)
}

/// An interpreter that can import `modules`. Without one says so: the test is skipped then.
fn python(modules: &str) -> Option<PathBuf> {
    let named = std::env::var_os(PYTHON).map(PathBuf::from);
    let interpreter = named.unwrap_or_else(|| PathBuf::from("python3"));
    let import = format!("import {}", if modules.is_empty() { "sys" } else { modules });
    let works = Command::new(&interpreter).args(["-c", &import]).stderr(Stdio::null()).status();
    if works.is_ok_and(|status| status.success()) {
        return Some(interpreter);
    }
    missing::skip(&format!(
        "no Python for `{import}`; set {PYTHON}, or run `cargo xtask test`, which makes one"
    ));
    None
}

/// The folder of the helper.
fn helper() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/consumers")
}

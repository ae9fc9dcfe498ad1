//! The examples of `docs/commands.md`, run as they stand there: a reader who copies them gets what the page says.

use std::cell::Cell;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::json;
use testkit::azure_clients::Library;
use testkit::cloud::service_bus::{Entities, Queue};

use super::{Site, connection};
use crate::clients::agent::Library as Mqtt;
use crate::clients::talker::Talker;

const DEVICE: &str = "press-7";

/// What the page leaves to the reader: the device's work. Each time it says what it is asked to do.
const WORK: &str = r#"
def carry_out(*order):
    print("carries out", *order, flush=True)
    return {"status": "succeeded", "code": 0}
"#;

/// The rest of the program that the example of MQTT 3.1.1 is a part of.
const OLD_DEVICE: (&str, &str) = (
    r#"
import json
import paho.mqtt.client as mqtt
done = {}
"#,
    r#"
client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, client_id="press-7", protocol=mqtt.MQTTv311)
client.on_message = on_message
client.on_connect = lambda client, *_: client.subscribe("devices/press-7/commands/+", qos=1)
client.connect("gateway.local", 1883)
client.loop_forever()
"#,
);

/// An implementation of CRC-32C, bit by bit (RFC 3720, appendix B.4).
const CRC32C: &str = r#"
def crc32c(octets):
    crc = 0xFFFFFFFF
    for octet in octets:
        crc ^= octet
        for _ in range(8):
            crc = (crc >> 1) ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF
"#;

/// The page, its examples in Python, and a folder to run them in.
struct Page {
    text: String,
    folder: tempfile::TempDir,
    /// Programs so far: each has a file of its own, since one may run while the next is written.
    programs: Cell<usize>,
}

impl Page {
    fn open() -> Self {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/commands.md");
        let text = fs::read_to_string(path).expect("the page is there");
        Self { text, folder: tempfile::tempdir().expect("a temporary folder"), programs: Cell::new(0) }
    }

    /// Every example in Python, in the order of the page.
    fn examples(&self) -> Vec<&str> {
        let blocks = self.text.split("```python\n").skip(1);
        blocks.map(|block| block.split_once("```").expect("it ends").0).collect()
    }

    /// The one example that has all of these.
    fn example(&self, marks: &[&str]) -> &str {
        let examples = self.examples();
        let fit = examples.iter().filter(|example| marks.iter().all(|mark| example.contains(mark)));
        let fit: Vec<&str> = fit.copied().collect();
        assert_eq!(fit.len(), 1, "examples with {marks:?}");
        fit.first().expect("there is one")
    }

    fn program(&self, text: &str) -> Command {
        self.programs.set(self.programs.get() + 1);
        let file = self.folder.path().join(format!("example_{}.py", self.programs.get()));
        fs::write(&file, text).expect("written");
        let mut command = Command::new(python());
        command.args(["-B", "-u"]).arg(file).current_dir(self.folder.path());
        command
    }

    fn run(&self, text: &str) -> String {
        let output = self.program(text).stdin(Stdio::null()).output().expect("it runs");
        let Output { status, stdout, stderr } = output;
        assert!(status.success(), "{text}\n{}", String::from_utf8_lossy(&stderr));
        String::from_utf8(stdout).expect("text")
    }

    /// Starts a device at the gateway's address instead of the page's.
    fn device(&self, site: &Site, text: &str) -> Talker {
        let (host, port) = site.gateway.mqtt().rsplit_once(':').expect("host:port");
        let there = format!("{host:?}, {port}");
        assert!(text.contains("\"gateway.local\", 1883"), "{text}");
        let text = text.replace("\"gateway.local\", 1883", &there);
        Talker::start("the page's device", &mut self.program(&text))
    }
}

fn python() -> PathBuf {
    std::env::var_os("PENSTOCK_TEST_PYTHON").map_or_else(|| PathBuf::from("python3"), PathBuf::from)
}

/// The final statuses of the device's commands that the event hub has, once there are so many.
fn finals(site: &Site, many: usize) -> Vec<String> {
    let events = site.events(DEVICE, many);
    let finals = events.iter().filter(|event| event["data"]["final"] == true);
    finals.map(|event| event["data"]["status"].as_str().expect("a word").to_owned()).collect()
}

#[test]
fn the_examples_of_the_page_do_what_it_says() {
    let ready = !Library::installed(&[Library::Python]).is_empty() && Mqtt::installed().contains(&Mqtt::Paho);
    if !ready {
        return;
    }
    let page = Page::open();
    assert_eq!(page.examples().len(), 5, "an example that nothing runs may be wrong");
    let site = Site::start_with(&json!({}), &[], &[("commands.replies", "to = \"replies, desk-*\"")]);
    let replies = Entities::queues([Queue::with_sessions("replies")]);
    site.cloud.control().service_bus().create(&replies).expect("it is made");
    let cloud = format!("CONNECTION_STRING = {:?}\n", connection(&site.cloud));

    // MQTT 5: a command that is answered, and one whose reply is waited for.
    let new_device = page.example(&["protocol=mqtt.MQTTv5"]);
    let mut device = page.device(&site, &format!("{WORK}{new_device}"));
    let sending = page.example(&["penstock-completion", "penstock-deadline"]);
    page.run(&format!("{cloud}{sending}"));
    let asked = device.line("the command").expect("it lives");
    assert_eq!(asked, r#"carries out set-valve b'{"valve": 3, "open": true}'"#);
    assert_eq!(finals(&site, 1), ["succeeded"]);
    let asking = page.example(&["reply_to_session_id"]);
    let said = page.run(&format!("{cloud}{asking}"));
    assert!(said.starts_with("delivered {") && said.contains("'device': 'press-7'"), "{said}");
    assert_eq!(finals(&site, 2), ["succeeded", "delivered"]);
    device.kill();

    // MQTT 3.1.1.
    let old_device = page.example(&["rsplit(\"/\", 1)"]);
    let (before, behind) = OLD_DEVICE;
    let mut device = page.device(&site, &format!("{WORK}{before}{old_device}{behind}"));
    page.run(&format!("{cloud}{sending}"));
    assert_eq!(device.line("the command").expect("it lives"), r#"carries out b'{"valve": 3, "open": true}'"#);
    assert_eq!(finals(&site, 3), ["succeeded", "delivered", "succeeded"]);
}

#[test]
fn the_page_computes_the_shards_of_its_table() {
    if Command::new(python()).arg("--version").output().is_err() {
        return;
    }
    let page = Page::open();
    fs::write(page.folder.path().join("crc32c.py"), CRC32C).expect("written");
    let rows: Vec<[&str; 3]> = page
        .text
        .lines()
        .skip_while(|line| !line.starts_with("| device key | shards | shard |"))
        .skip(2)
        .take_while(|line| line.starts_with('|'))
        .map(|line| {
            let cells: Vec<_> = line.split('|').map(|cell| cell.trim().trim_matches('`')).collect();
            [cells[1], cells[2], cells[3]]
        })
        .collect();
    assert!(rows.len() >= 4, "{rows:?}");
    let example = page.example(&["queue_of"]);
    for [device, shards, shard] in rows {
        let said = page.run(&format!("{example}\nprint(queue_of({device:?}, {shards}))\n"));
        assert_eq!(said.trim(), format!("commands-{shard}"), "{device} in {shards}");
    }
    assert!(page.text.contains("`0xE3069283`"), "the check value of the polynomial");
    let check = page.run("from crc32c import crc32c\nprint(hex(crc32c(b'123456789')))\n");
    assert_eq!(check.trim().to_lowercase(), "0xe3069283");
}

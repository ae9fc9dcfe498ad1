//! Clients that keep a connection and a session: Eclipse Paho for Python and MQTT.js, behind one language.
//!
//! An agent reads orders as lines of JSON (`do`: `connect`, `subscribe`, `unsubscribe`, `publish`, `disconnect`) and
//! writes events (`event`: `connected` with `session`, `subscribed` with `codes`, `published` when the exchange is
//! complete, `message` with all there is to know about it, `closed`, `left`). A lost connection is made anew by the
//! library, in its own way, with the same session.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::{Value, json};
use testkit::missing;

use super::talker::Talker;

/// Names an interpreter that has Paho; `cargo xtask test` sets it.
const PYTHON: &str = "PENSTOCK_TEST_PYTHON";
/// Names the folder with MQTT.js in its `node_modules`; `cargo xtask test` sets it.
const NODE: &str = "PENSTOCK_TEST_NODE";

/// A library we did not write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Library {
    Paho,
    MqttJs,
}

/// One client.
pub(crate) struct Agent {
    talker: Talker,
    /// Events that nobody asked for yet.
    waiting: VecDeque<Value>,
}

impl Library {
    pub(super) const ALL: [Self; 2] = [Self::Paho, Self::MqttJs];

    /// Those that are installed. Whatever is not is named: its part of a test is skipped then.
    pub(crate) fn installed() -> Vec<Self> {
        let (here, not_here): (Vec<_>, Vec<_>) = Self::ALL.into_iter().partition(|library| library.works());
        for library in not_here {
            missing::skip(&format!(
                "{library:?} is not installed; set {PYTHON} and {NODE}, or run `cargo xtask test`, which installs both"
            ));
        }
        here
    }

    fn works(self) -> bool {
        let mut command = match self {
            Self::Paho => {
                let mut command = Command::new(python());
                command.args(["-c", "import paho.mqtt.client as c; c.CallbackAPIVersion"]);
                command
            }
            Self::MqttJs => {
                let Some(folder) = node() else { return false };
                let mut command = Command::new("node");
                command.args(["-e", "require('mqtt')"]).current_dir(folder);
                command
            }
        };
        let status = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status();
        status.is_ok_and(|status| status.success())
    }

    fn command(self) -> Command {
        let here = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/clients");
        let mut command;
        match self {
            Self::Paho => {
                command = Command::new(python());
                command.args(["-B", "-u"]).arg(here.join("paho_agent.py"));
            }
            Self::MqttJs => {
                command = Command::new("node");
                command.arg(here.join("mqttjs_agent.mjs")).arg(node().expect("it works"));
            }
        }
        command
    }
}

fn python() -> PathBuf {
    std::env::var_os(PYTHON).map_or_else(|| PathBuf::from("python3"), PathBuf::from)
}

fn node() -> Option<PathBuf> {
    std::env::var_os(NODE).map(PathBuf::from)
}

impl Agent {
    /// Starts one and connects it; `order` says how, beside host and port.
    pub(crate) fn connect(library: Library, address: &str, order: &Value) -> Self {
        let name = format!("{library:?} {}", order["client"]);
        let mut agent =
            Self { talker: Talker::start(&name, &mut library.command()), waiting: VecDeque::new() };
        let (host, port) = address.rsplit_once(':').expect("host:port");
        let mut order = order.clone();
        order["do"] = json!("connect");
        order["host"] = json!(host);
        order["port"] = json!(port.parse::<u16>().expect("a port"));
        agent.tell(&order);
        agent
    }

    /// Gives it an order.
    pub(crate) fn tell(&mut self, order: &Value) {
        self.talker.tell(&order.to_string());
    }

    /// The next event of this name; others that come before it wait for whoever asks for them.
    pub(crate) fn event(&mut self, name: &str) -> Value {
        if let Some(place) = self.waiting.iter().position(|event| event["event"] == name) {
            return self.waiting.remove(place).expect("it is there");
        }
        loop {
            let line = self.talker.line(name);
            assert!(line.is_some(), "it ended before {name}; it said {:#?}", self.talker.said());
            let event: Value = serde_json::from_str(&line.unwrap_or_default()).expect("events are JSON");
            if event["event"] == name {
                return event;
            }
            self.waiting.push_back(event);
        }
    }

    /// Waits until it is connected; returns whether there was a session.
    pub(crate) fn connected(&mut self) -> bool {
        let event = self.event("connected");
        assert_eq!(event["code"], 0, "{event}");
        event["session"].as_bool().expect("a flag")
    }

    /// Subscribes and waits for the answer, which is returned.
    pub(crate) fn subscribe(&mut self, filter: &str, qos: u8) -> Value {
        self.subscribe_as(&json!({ "filter": filter, "qos": qos }))
    }

    /// As [`Self::subscribe`], with whatever else the order holds.
    pub(super) fn subscribe_as(&mut self, order: &Value) -> Value {
        let mut order = order.clone();
        order["do"] = json!("subscribe");
        self.tell(&order);
        self.event("subscribed")["codes"].clone()
    }

    /// Publishes and waits until the exchange is complete.
    pub(crate) fn publish(&mut self, topic: &str, payload: &str, qos: u8) {
        self.publish_as(&json!({ "topic": topic, "payload": payload, "qos": qos }));
    }

    /// As [`Self::publish`], with whatever else the order holds.
    pub(super) fn publish_as(&mut self, order: &Value) {
        let mut told = order.clone();
        told["do"] = json!("publish");
        self.tell(&told);
        let event = self.event("published");
        assert_eq!(event["payload"], order["payload"], "publishes complete in order: {event}");
        // 0x10: nobody subscribed. That is a success.
        assert!(event["code"] == 0 || event["code"] == 16, "{event}");
    }

    /// The next message.
    pub(crate) fn message(&mut self) -> Value {
        self.event("message")
    }

    /// Payload and QoS of the next messages.
    pub(super) fn messages(&mut self, count: usize) -> Vec<(String, u64)> {
        let pair = |message: Value| {
            let payload = message["payload"].as_str().expect("text").to_owned();
            (payload, message["qos"].as_u64().expect("a number"))
        };
        (0..count).map(|_| pair(self.message())).collect()
    }

    /// Says goodbye and ends.
    pub(crate) fn leave(mut self) {
        self.tell(&json!({ "do": "disconnect" }));
        self.event("left");
    }

    /// Ends without a goodbye.
    pub(super) fn vanish(mut self) {
        self.talker.kill();
    }
}

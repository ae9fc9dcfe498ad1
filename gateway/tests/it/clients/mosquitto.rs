//! mosquitto's command line tools as a test uses them.

use std::collections::VecDeque;
use std::process::Command;

use serde_json::Value;

use super::Site;
use super::talker::Talker;

/// The versions of the protocol, as the tools name them.
pub(super) const VERSIONS: [&str; 2] = ["mqttv311", "mqttv5"];

/// `mosquitto_sub`, subscribed.
pub(crate) struct Subscriber {
    talker: Talker,
    waiting: VecDeque<Value>,
}

/// Prepares one of the tools with address and arguments. It may run for so long.
pub(super) fn tool(name: &str, address: &str, arguments: &[&str]) -> Command {
    let (host, port) = address.rsplit_once(':').expect("host:port");
    // Lines as they come, also into a pipe.
    let mut command = Command::new("stdbuf");
    command.args(["-oL", name, "-h", host, "-p", port]).args(arguments);
    command
}

/// Runs `mosquitto_pub`, which must succeed.
pub(super) fn publish(site: &Site, arguments: &[&str]) {
    done("mosquitto_pub", &mut tool("mosquitto_pub", site.plain(), arguments));
}

/// Runs one of the tools to its end, which must be a success; returns its output.
pub(super) fn done(name: &str, command: &mut Command) -> String {
    let output = command.output().expect("it is installed (`cargo xtask test` installs it)");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let wrong = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{name}: {wrong}{said}");
    said
}

impl Subscriber {
    /// Starts it and waits until all its subscriptions are acknowledged.
    pub(super) fn start(site: &Site, arguments: &[&str]) -> Self {
        Self::start_at(site.plain(), arguments)
    }

    /// As [`Self::start`], at another address.
    pub(crate) fn start_at(address: &str, arguments: &[&str]) -> Self {
        Self::run(tool("mosquitto_sub", address, arguments))
    }

    /// Runs a `mosquitto_sub` that is told where to connect to and what to subscribe to, and waits until all its
    /// subscriptions are acknowledged.
    pub(super) fn run(mut command: Command) -> Self {
        command.args(["-d", "-F", "%j"]);
        let mut subscriber =
            Self { talker: Talker::start("mosquitto_sub", &mut command), waiting: VecDeque::new() };
        let subscribed = subscriber.until("the acknowledgement", |line| line.starts_with("Subscribed (mid"));
        assert!(subscribed, "it ended: {:#?}", subscriber.talker.said());
        subscriber
    }

    /// The next message.
    pub(crate) fn next(&mut self) -> Value {
        if self.waiting.is_empty() {
            self.until("a message", |line| line.starts_with('{'));
        }
        let message = self.waiting.pop_front();
        assert!(message.is_some(), "it ended: {:#?}", self.talker.said());
        message.unwrap_or_default()
    }

    /// The payload of the next message.
    pub(crate) fn payload(&mut self) -> String {
        self.next()["payload"].as_str().unwrap_or_default().to_owned()
    }

    /// The messages up to its own end, which must come.
    pub(super) fn rest(mut self) -> Vec<Value> {
        self.until("its end", |_| false);
        self.waiting.into()
    }

    /// Ends it without a goodbye.
    pub(super) fn kill(mut self) {
        self.talker.kill();
    }

    /// Reads up to a line like that, and returns whether there was one before its end. Messages are kept.
    fn until(&mut self, what: &str, wanted: impl Fn(&str) -> bool) -> bool {
        while let Some(line) = self.talker.line(what) {
            if line.starts_with('{') {
                self.waiting.push_back(serde_json::from_str(&line).expect("a message is JSON"));
            }
            if wanted(&line) {
                return true;
            }
        }
        false
    }
}

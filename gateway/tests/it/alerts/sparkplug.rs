//! A Sparkplug edge node whose messages are missing, and the request that it gets.

use std::time::Duration;

use rumqttc::{Client, Connection, Event, Incoming, MqttOptions, Publish, QoS};
use testkit::gateway::Config;

use super::Site;

const RULES: &str = r#"
[[rule]]
id = "fast"
metric = "Speed"
raise = "> 90"
"#;

const COMMANDS: &str = "spBv1.0/plant/NCMD/line-2";
/// What is sent behind everything else.
const LAST: &str = "local/last";

/// An edge node that subscribes to its commands.
struct EdgeNode {
    client: Client,
    events: Connection,
    heard: Vec<Publish>,
}

/// A gateway that takes the messages of edge nodes, and lets them hear their commands.
fn site(settings: &[(&str, &str)]) -> Site {
    Site::start_as(RULES, |config| {
        let config = ["NBIRTH", "NDATA", "NDEATH"].iter().fold(config, |config: Config, kind| {
            config.topic(&format!("spBv1.0/{{site}}/{kind}/{{device}}"), "telemetry")
        });
        let may = |config: Config, filter| config.rule(&["effect = \"allow\"", filter]);
        let config = may(may(config, "filter = \"spBv1.0/+/NCMD/+\""), "filter = \"local/#\"");
        settings.iter().fold(config, |config, (section, line)| config.set(section, line))
    })
}

impl EdgeNode {
    /// With these subscriptions beside that to what it sends itself.
    fn connect(site: &Site, filters: &[&str]) -> Self {
        let (host, port) = site.gateway.mqtt().rsplit_once(':').expect("host:port");
        let mut options = MqttOptions::new("line-2", host, port.parse().expect("a port"));
        options.set_keep_alive(Duration::from_secs(60));
        let (client, events) = Client::new(options, 100);
        let mut node = Self { client, events, heard: Vec::new() };
        for filter in [LAST].iter().chain(filters) {
            node.client.subscribe(*filter, QoS::AtLeastOnce).expect("queued");
            node.until(|event| matches!(event, Incoming::SubAck(_)));
        }
        node
    }

    /// Publishes at QoS 1, and waits until that is acknowledged.
    fn publish(&mut self, topic: &str, payload: Vec<u8>) {
        self.client.publish(topic, QoS::AtLeastOnce, false, payload).expect("queued");
        self.until(|event| matches!(event, Incoming::PubAck(_)));
    }

    /// Says its birth, with one metric.
    fn birth(&mut self) {
        let metric = [text(1, "Speed"), number(2, 1), number(4, 3), number(10, 50)].concat();
        self.publish("spBv1.0/plant/NBIRTH/line-2", [number(1, 1), sized(2, &metric), number(3, 0)].concat());
    }

    /// Tells a value under its alias.
    fn data(&mut self, seq: u64) {
        let metric = [number(2, 1), number(10, 51)].concat();
        self.publish(
            "spBv1.0/plant/NDATA/line-2",
            [number(1, 1), sized(2, &metric), number(3, seq)].concat(),
        );
    }

    /// All it heard before a message that it now sends to itself.
    fn commands(&mut self) -> Vec<Publish> {
        self.publish(LAST, Vec::new());
        while !self.heard.iter().any(|one| one.topic == LAST) {
            self.until(|event| matches!(event, Incoming::Publish(_)));
        }
        self.heard.retain(|one| one.topic != LAST);
        std::mem::take(&mut self.heard)
    }

    fn until(&mut self, wanted: impl Fn(&Incoming) -> bool) {
        loop {
            let event = self.events.recv_timeout(Duration::from_secs(20)).expect("it comes in time");
            let Event::Incoming(event) = event.expect("a connection") else { continue };
            if let Incoming::Publish(publish) = &event {
                self.heard.push(publish.clone());
            }
            if wanted(&event) {
                return;
            }
        }
    }
}

fn varint(mut value: u64) -> Vec<u8> {
    let mut out = Vec::new();
    while value > 0x7f {
        out.push(u8::try_from(value & 0x7f).expect("seven bits") | 0x80);
        value >>= 7;
    }
    out.push(u8::try_from(value).expect("seven bits"));
    out
}

fn number(field: u64, value: u64) -> Vec<u8> {
    [varint(field << 3), varint(value)].concat()
}

fn sized(field: u64, bytes: &[u8]) -> Vec<u8> {
    [varint(field << 3 | 2), varint(bytes.len() as u64), bytes.to_vec()].concat()
}

fn text(field: u64, text: &str) -> Vec<u8> {
    sized(field, text.as_bytes())
}

/// The request for a rebirth, as protobuf has it, at the time that stands in its front.
fn request(payload: &[u8]) -> (u64, Vec<u8>) {
    let mut at_ms = 0;
    for (place, byte) in payload.iter().skip(1).enumerate() {
        at_ms |= u64::from(byte & 0x7f) << (7 * place);
        if byte & 0x80 == 0 {
            break;
        }
    }
    let boolean = 11;
    let metric =
        [text(1, "Node Control/Rebirth"), number(3, at_ms), number(4, boolean), number(14, 1)].concat();
    (at_ms, [number(1, at_ms), sized(2, &metric)].concat())
}

#[test]
fn a_gap_leads_to_one_request_for_a_rebirth() {
    let site = site(&[]);
    let mut node = EdgeNode::connect(&site, &[COMMANDS]);
    node.birth();
    node.data(1);
    let before_ms = penstock::supervise::clock::unix_ms();
    for seq in [3, 4, 7] {
        node.data(seq);
    }
    site.wait_for_metric("penstock_alerts_sparkplug_requests_total{result=\"sent\"} 1");
    site.wait_for_metric("penstock_alerts_messages_refused_total{reason=\"gap\"} 2");
    let commands = node.commands();
    assert_eq!(commands.len(), 1, "{commands:?}");
    let command = &commands[0];
    assert_eq!((command.topic.as_str(), command.qos, command.retain), (COMMANDS, QoS::AtMostOnce, false));
    let (at_ms, expected) = request(&command.payload);
    assert!((before_ms..=penstock::supervise::clock::unix_ms()).contains(&at_ms), "{at_ms}");
    assert_eq!(*command.payload, expected);
    // After its birth everything is in order again.
    node.birth();
    node.data(1);
    assert_eq!(site.told(), [] as [serde_json::Value; 0]);
    assert_eq!(node.commands().len(), 0);
}

#[test]
fn what_was_asked_for_before_a_crash_is_not_asked_for_again() {
    // So that the log is read again from its beginning.
    let mut site = site(&[("alerts", "snapshot_every = \"1h\"")]);
    let mut node = EdgeNode::connect(&site, &[COMMANDS]);
    node.birth();
    node.data(3);
    assert_eq!(site.told(), [] as [serde_json::Value; 0], "it is behind the gap, and durable");
    site.wait_for_metric("penstock_alerts_sparkplug_requests_total{result=\"sent\"} 1");
    assert_eq!(node.commands().len(), 1);
    drop(node);
    site.gateway.kill().expect("killed");
    site.gateway.restart().expect("it starts again");
    let mut node = EdgeNode::connect(&site, &[COMMANDS]);
    assert_eq!(site.told(), [] as [serde_json::Value; 0], "it is at the end of the log");
    site.wait_for_metric("penstock_alerts_sparkplug_rebirths_total{what=\"wanted\"} 1");
    site.wait_for_metric("penstock_alerts_sparkplug_requests_total{result=\"sent\"} 0");
    assert_eq!(node.commands().len(), 0);
}

#[test]
fn a_node_that_does_not_listen_is_counted() {
    let site = site(&[]);
    let mut node = EdgeNode::connect(&site, &[]);
    node.data(1);
    site.wait_for_metric("penstock_alerts_sparkplug_requests_total{result=\"unheard\"} 1");
}

#[test]
fn nobody_is_asked_where_it_is_turned_off() {
    let site = site(&[("alerts", "sparkplug_rebirth = false")]);
    let mut node = EdgeNode::connect(&site, &[COMMANDS]);
    node.birth();
    node.data(3);
    site.wait_for_metric("penstock_alerts_sparkplug_requests_total{result=\"off\"} 1");
    assert_eq!(node.commands().len(), 0);
}

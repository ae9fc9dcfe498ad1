//! The `[mqtt]` section of a file.

use std::fs;
use std::time::Duration;

use penstock_proto::Lane;

use super::super::{Action, Config, Effect, Limits, Rule};
use crate::config::{ConfigError, Settings};

fn read(mqtt: &str) -> Result<Config, ConfigError> {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("penstock.toml");
    let rest = "[gateway]\nid = \"test\"\n[outbox]\ndirectory = \"outbox\"\n[uplink]\nenabled = false\n";
    fs::write(&file, [rest, mqtt].concat()).expect("written");
    Settings::load(&file, std::iter::empty()).map(|settings| settings.mqtt)
}

const LISTENER: &str = "[[mqtt.listener]]\naddress = \"127.0.0.1:0\"\n";

#[test]
fn a_listener_is_enough_and_lets_nobody_in_by_itself() {
    let config = read(LISTENER).expect("valid");
    assert_eq!(config.limits, Limits::default());
    assert!(!config.access.anonymous && config.access.users_file.is_none());
    let templates: Vec<_> = config.topics.iter().map(|topic| (topic.template.as_str(), topic.lane)).collect();
    let stream = "devices/{device}/telemetry/{stream}";
    assert_eq!(templates, [("devices/{device}/telemetry", Lane::Telemetry), (stream, Lane::Telemetry)]);
}

#[test]
fn bounds_are_read_up_to_their_edges() {
    let check = |keys: &str, change: fn(&mut Limits)| {
        let mut expected = Limits::default();
        change(&mut expected);
        let read = read(&[LISTENER, "[mqtt]\n", keys].concat()).expect(keys);
        assert_eq!(read.limits, expected, "{keys}");
    };
    check("session_expiry_max = \"0s\"\n", |limits| limits.session_expiry_seconds_max = 0);
    check("session_expiry_max = \"8760h\"\n", |limits| limits.session_expiry_seconds_max = 31_536_000);
    check("session_expiry_max = \"1999ms\"\n", |limits| limits.session_expiry_seconds_max = 1);
    check("sys_interval = \"0s\"\n", |limits| limits.sys_interval = Duration::ZERO);
    check("sys_interval = \"1s\"\n", |limits| limits.sys_interval = Duration::from_secs(1));
    check("topic_aliases_max = 0\nretained_max = 0\nretained_bytes_max = \"0B\"\n", |limits| {
        (limits.topic_aliases_max, limits.retained_max, limits.retained_bytes_max) = (0, 0, 0);
    });
    check("queue_messages_max = 60000\noutgoing_inflight_max = 60000\n", |limits| {
        (limits.queue_messages_max, limits.outgoing_inflight_max) = (60_000, 60_000);
    });
    check("queue_bytes_max = \"256KiB\"\nqueues_bytes_max = \"1MiB\"\n", |limits| {
        (limits.queue_bytes_max, limits.queues_bytes_max) = (256 << 10, 1 << 20);
    });
    check("sessions_max = 1\nsubscriptions_max = 4096\n", |limits| {
        (limits.sessions_max, limits.subscriptions_max) = (1, 4096);
    });
}

#[test]
fn a_listener_speaks_websocket_only_if_told() {
    let check = |keys: &str, expected: Option<&str>| {
        let config = read(&[LISTENER, keys].concat()).expect(keys);
        assert_eq!(config.listeners[0].websocket.as_deref(), expected, "{keys}");
    };
    check("", None);
    check("websocket_path = \"/devices\"\n", None);
    check("websocket = true\n", Some("/mqtt"));
    check("websocket = true\nwebsocket_path = \"/site-7/v1.0/~mqtt_\"\n", Some("/site-7/v1.0/~mqtt_"));
    check("websocket = true\nwebsocket_path = \"/\"\n", Some("/"));
}

#[test]
fn topics_name_their_lane() {
    let topic = "[[mqtt.topic]]\ntemplate = \"a/{device}\"\nlane = \"alerts\"\n";
    let config = read(&[LISTENER, topic].concat()).expect("valid");
    assert_eq!((config.topics.len(), config.topics[0].lane), (1, Lane::Alerts));
}

#[test]
fn access_rules_are_read_in_order() {
    let rules = r#"
[[mqtt.access.rule]]
effect = "deny"
action = "subscribe"
filter = "building/{device}/secret"
told = "unspecified"
[[mqtt.access.rule]]
effect = "deny"
filter = "building/#"
told = "not-authorized"
[[mqtt.access.rule]]
effect = "allow"
action = "publish"
filter = "{user}/+"
user = "app-1"
"#;
    let config = read(&[LISTENER, rules].concat()).expect("valid");
    let rule = |effect, action, filter: &str, user: Option<&str>| Rule {
        effect,
        action,
        filter: filter.parse().expect(filter),
        user: user.map(str::to_owned),
    };
    let expected = [
        rule(Effect::DenyUnspecified, Action::Subscribe, "building/{device}/secret", None),
        rule(Effect::Deny, Action::All, "building/#", None),
        rule(Effect::Allow, Action::Publish, "{user}/+", Some("app-1")),
    ];
    assert_eq!(config.access.rules, expected);
}

#[test]
fn what_is_wrong_is_named() {
    let check = |mqtt: &str, words: &[&str]| {
        let error = read(mqtt).expect_err(mqtt).to_string();
        assert!(words.iter().all(|word| error.contains(word)), "{error}");
    };
    check("", &["mqtt.listener.address", "missing"]);
    check(&[LISTENER, "tls = true\n"].concat(), &["mqtt.listener[0].certificate_file", "missing"]);
    check(&[LISTENER, "[mqtt]\npacket_bytes_max = \"1MiB\"\n"].concat(), &["packet_bytes_max", "900KiB"]);
    let limits = |keys: &str| [LISTENER, "[mqtt]\n", keys].concat();
    check(
        &limits("outgoing_inflight_max = 65\nqueue_messages_max = 64\n"),
        &["mqtt.outgoing_inflight_max", "65", "queue_messages_max, 64"],
    );
    check(
        &limits("queue_bytes_max = \"128KiB\"\n"),
        &["mqtt.queue_bytes_max", "128KiB", "at least packet_bytes_max, 256KiB"],
    );
    check(
        &limits("queue_bytes_max = \"2MiB\"\nqueues_bytes_max = \"1MiB\"\n"),
        &["mqtt.queue_bytes_max", "2MiB", "at most queues_bytes_max, 1MiB"],
    );
    check(&limits("sys_interval = \"999ms\"\n"), &["mqtt.sys_interval", "at least 1s"]);
    check(&limits("session_expiry_max = \"8761h\"\n"), &["mqtt.session_expiry_max", "8760h"]);
    check(&limits("queue_messages_max = 60001\n"), &["mqtt.queue_messages_max", "60000"]);
    check(&limits("subscriptions_max = 4097\n"), &["mqtt.subscriptions_max", "4096"]);
    let rule = |keys: &str| [LISTENER, "[[mqtt.access.rule]]\n", keys].concat();
    check(&rule("effect = \"allow\"\n"), &["mqtt.access.rule[0].filter", "missing"]);
    check(&rule("filter = \"a\"\n"), &["mqtt.access.rule[0].effect", "missing"]);
    check(
        &rule("effect = \"allow\"\nfilter = \"a/#/b\"\n"),
        &["mqtt.access.rule[0].filter", "a/#/b", "last"],
    );
    check(&rule("effect = \"allow\"\nfilter = \"{x}\"\n"), &["mqtt.access.rule[0].filter", "{client}"]);
    check(
        &rule("effect = \"allow\"\nfilter = \"a\"\ntold = \"unspecified\"\n"),
        &["mqtt.access.rule[0].told", "allow"],
    );
    let many = "[[mqtt.access.rule]]\neffect = \"allow\"\nfilter = \"a\"\n";
    check(&[LISTENER, &many.repeat(1001)].concat(), &["mqtt.access.rule[1000].filter", "at most 1000 rules"]);
    assert_eq!(read(&[LISTENER, &many.repeat(1000)].concat()).expect("valid").access.rules.len(), 1000);
    for path in ["mqtt", "/mqtt?x=1", "/mq tt", "/mqtt#", "/%6dqtt", "/m\u{fc}"] {
        let text = [LISTENER, &format!("websocket_path = {path:?}\n")].concat();
        check(&text, &["mqtt.listener[0].websocket_path", path]);
    }
    check(
        &[LISTENER, "[[mqtt.topic]]\ntemplate = \"a/b\"\n"].concat(),
        &["mqtt.topic[0].template", "a/b", "{device}"],
    );
}

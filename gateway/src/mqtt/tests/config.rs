//! The `[mqtt]` section of a file.

use std::fs;

use penstock_proto::Lane;

use super::super::{Config, Limits};
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
fn topics_name_their_lane() {
    let topic = "[[mqtt.topic]]\ntemplate = \"a/{device}\"\nlane = \"alerts\"\n";
    let config = read(&[LISTENER, topic].concat()).expect("valid");
    assert_eq!((config.topics.len(), config.topics[0].lane), (1, Lane::Alerts));
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
    check(
        &[LISTENER, "[[mqtt.topic]]\ntemplate = \"a/b\"\n"].concat(),
        &["mqtt.topic[0].template", "a/b", "{device}"],
    );
}

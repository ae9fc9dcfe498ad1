//! A rule that learns, from readings to events, with a death in between.

use std::io::Write;
use std::process::{Command, Stdio};

use super::{Site, alert_ids, outline, text};
use crate::hub;

const RULE: &str = r#"
[[rule]]
id = "unusual"
kind = "learned"
metrics = ["temperature"]
input = { every = "1s" }
warmup = "60s"
cooldown = "30s"
sensitivity = 100
season = "none"
severity = "info"
"#;
/// When the device begins to measure, in Unix milliseconds: it sends what it gathered.
const START_MS: u64 = 1_767_225_600_000;

/// What it measured in each of these seconds: usual values, and in second 200 something else.
fn readings(seconds: std::ops::Range<u64>) -> String {
    let reading = |second: u64| {
        let value = match second * second % 5 {
            _ if second == 200 => 900.0,
            0 => 20.0,
            1 => 20.5,
            _ => 21.5,
        };
        format!("{{\"temperature\":{value},\"taken_ms\":{}}}\n", START_MS + second * 1_000)
    };
    seconds.map(reading).collect()
}

/// Has mosquitto publish one line after the other, and waits until all are acknowledged.
fn publish(site: &Site, lines: &str) {
    let (host, port) = site.gateway.mqtt().rsplit_once(':').expect("host:port");
    let topic = "devices/boiler-7/telemetry";
    let mut publisher = Command::new("mosquitto_pub")
        .args(["-h", host, "-p", port, "-V", "mqttv5", "-q", "1", "-i", "boiler-7", "-t", topic, "-l"])
        .stdin(Stdio::piped())
        .spawn()
        .expect("mosquitto_pub is installed (`cargo xtask test` installs it)");
    publisher.stdin.take().expect("piped").write_all(lines.as_bytes()).expect("written");
    assert!(publisher.wait().expect("it ends").success());
}

#[test]
fn what_was_never_seen_is_told_and_what_is_usual_again_ends_it_across_a_death() {
    let settings = [("alerts", "time = \"taken_ms\""), ("alerts", "snapshot_every = \"1s\"")];
    let mut site = Site::start_with(RULE, &settings);
    publish(&site, &readings(0..210));
    let raised = site.told();
    assert_eq!(outline(&raised), ["raised unusual boiler-7 1"]);
    let event = &raised[0];
    let observed = &event["data"]["observed"];
    assert_eq!(
        (&observed["metric"], &observed["value"]),
        (&"temperature".into(), &900.0.into()),
        "{event:#}"
    );
    let score = observed["score"].as_f64().expect("a score");
    let limit = observed["threshold"].as_f64().expect("a limit");
    assert!(score >= limit && score < 1.0, "{event:#}");
    // The window that was unusual: when it began, and its first message, the 201st of all.
    assert_eq!(text(event, "/data/startedAt"), "2026-01-01T00:03:20Z");
    assert_eq!(event["data"]["origin"]["seq"], 201, "{event:#}");
    site.wait_for_metric("penstock_alerts_learned_series 1");

    hub::wait_for("a snapshot", || {
        let metrics = site.gateway.health("/metrics").ok()??;
        let taken = metrics.lines().find_map(|line| line.strip_prefix("penstock_alerts_snapshots_total "));
        (taken?.parse::<u32>().ok()? > 0).then_some(())
    });
    site.gateway.kill().expect("killed");
    site.gateway.restart().expect("it starts again");
    publish(&site, &readings(210..260));
    let events = site.told();
    assert_eq!(outline(&events), ["raised unusual boiler-7 1", "resolved unusual boiler-7 2"]);
    let ids = alert_ids(&events);
    assert_eq!(ids[0], ids[1]);
    assert_eq!(text(&events[1], "/data/endedAt"), "2026-01-01T00:03:51Z");
    site.wait_for_metric("penstock_alerts_learned_series 1");
}

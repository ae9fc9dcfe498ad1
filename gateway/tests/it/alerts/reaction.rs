//! What rules have the gateway do itself, with and without a cloud.

use super::{Site, outline};
use crate::clients::mosquitto::Subscriber;
use crate::hub;

/// A boiler that gets too hot closes a valve, which is another device, and lights a lamp, which is none.
const RULES: &str = r#"
[[rule]]
id = "hot"
metric = "temperature"
raise = "> 90"
clear = "< 85"
severity = "critical"

[[rule.action]]
name = "close"
mqtt = { topic = "devices/valve-9/commands/{alert}", payload = '{"close":true,"for":"{device}","at":{value}}' }

[[rule.action]]
name = "lamp"
on = ["raised", "resolved"]
mqtt = { topic = "site/lamps/{device}", payload = "{transition}", content_type = "text/plain" }
"#;

/// How the valve connects: its session outlives its connections.
const VALVE: [&str; 11] =
    ["-V", "mqttv5", "-c", "-x", "3600", "-i", "valve-9", "-q", "1", "-t", "devices/valve-9/commands/#"];

#[test]
fn a_device_that_was_away_gets_its_command_although_the_cloud_is_away_and_the_gateway_was_killed() {
    let mut site = Site::start(RULES);
    drop(Subscriber::start_at(site.gateway.mqtt(), &VALVE));
    site.event_grid().away(true).expect("it can go away");
    site.publish("boiler-7", &[r#"{"temperature":95}"#]);
    site.gateway.kill().expect("killed");
    site.gateway.restart().expect("it starts again");
    let command = Subscriber::start_at(site.gateway.mqtt(), &VALVE).next();
    assert_eq!(command["payload"], r#"{"close":true,"for":"boiler-7","at":95.0}"#);
    assert_eq!(command["qos"], 1);
    // What Event Grid is told later has the alert's id, and the same number.
    site.event_grid().away(false).expect("it can come back");
    let events = site.told();
    assert_eq!(outline(&events), ["raised hot boiler-7 1"]);
    let alert = events[0]["data"]["alertId"].as_str().expect("an id");
    let id = format!("{}:close", events[0]["id"].as_str().expect("an id"));
    assert_eq!(command["topic"], format!("devices/valve-9/commands/{alert}"));
    let properties = &command["properties"];
    assert_eq!(properties["correlation-data"], id, "{command:#}");
    assert_eq!(properties["content-type"], "application/json");
    let user = |name: &str| properties["user-properties"][name].clone();
    assert_eq!(user("penstock-reaction-id"), id, "{command:#}");
    assert_eq!(user("penstock-on"), "raised");
}

#[test]
fn who_is_there_gets_what_is_done_in_its_order_and_event_grid_gets_events_only() {
    let site =
        Site::start_as(RULES, |config| config.rule(&["effect = \"allow\"", "filter = \"site/lamps/+\""]));
    let mut lamp = Subscriber::start_at(
        site.gateway.mqtt(),
        &["-V", "mqttv5", "-i", "lamp", "-q", "1", "-t", "site/lamps/+"],
    );
    for reading in [95, 80, 99] {
        site.publish("boiler-7", &[&format!("{{\"temperature\":{reading}}}")]);
    }
    assert_eq!([lamp.payload(), lamp.payload(), lamp.payload()], ["1", "2", "1"]);
    let told = ["raised hot boiler-7 1", "resolved hot boiler-7 2", "raised hot boiler-7 1"];
    assert_eq!(outline(&site.told()), told);
    hub::wait_for("the sink to be even", || {
        let status = site.status();
        let even =
            status["sinks"][0]["backlog_messages"] == 0 && status["reactions"]["backlog_messages"] == 0;
        even.then_some(())
    });
    let status = site.status();
    assert_eq!(status["sinks"][0]["quarantined"], 0);
    assert_eq!(status["reactions"]["published"], 5, "{status:#}");
    site.wait_for_metric("penstock_alerts_reactions_total{kind=\"mqtt\"} 5");
}

//! Commands for the gateway itself: sent with Microsoft's libraries, seen in the event hub and in the metrics.

use serde_json::{Value, json};
use testkit::azure_clients::{Client, Library};

use super::{SENDERS, Site, dead, send};
use crate::clients::agent::Library as Mqtt;
use crate::hub;

const OWN: &str = "gateway/edge-01";

fn tell(sender: &mut Client, id: &str, operation: &str, body: &Value) {
    let message = json!({ "session": OWN, "id": id, "subject": operation, "body": body.to_string() });
    send(sender, &[message]);
}

/// The final event of the command that was sent as the `count`th, and has this id.
fn end(site: &Site, count: usize, id: &str) -> Value {
    let events = site.events(OWN, count);
    let finals: Vec<_> = events.iter().filter(|event| event["data"]["final"] == true).collect();
    assert_eq!(finals.len(), count, "one end each: {events:#?}");
    assert_eq!(finals[count - 1]["data"]["commandId"], id);
    finals[count - 1].clone()
}

fn metric(site: &Site, line: &str) {
    hub::wait_for(line, || {
        let metrics = site.gateway.health("/metrics").ok()??;
        metrics.lines().any(|found| found == line).then_some(())
    });
}

#[test]
fn a_pause_holds_telemetry_through_a_crash_and_then_all_of_it_comes_in_order() {
    let Some(library) = Mqtt::installed().first().copied() else { return };
    for kind in Library::installed(&SENDERS) {
        let mut site = Site::start(&json!({}), &["control = true"]);
        let mut sender = site.sender(kind);
        tell(&mut sender, "a", "stream.pause", &json!({ "event_hub": hub::TOPIC, "for_seconds": 600 }));
        assert_eq!(end(&site, 1, "a")["data"]["status"], "succeeded", "{kind:?}");
        metric(&site, "penstock_uplink_paused_topics 1");

        let mut device = site.device(library, "pump-7");
        for reading in 1..=10 {
            device.publish("devices/pump-7/telemetry", &json!({ "reading": reading }).to_string(), 1);
        }
        drop(device);
        tell(&mut sender, "b", "health", &json!({}));
        let detail = end(&site, 2, "b")["data"]["detail"].clone();
        assert_eq!(detail["outbox"]["lanes"]["telemetry"]["messages"], 10, "{kind:?}: {detail:#}");
        assert_eq!(detail["uplink"]["paused_topics"], 1, "{detail:#}");
        assert_eq!(detail["limits"][0]["event_hub"], hub::TOPIC, "{detail:#}");

        site.gateway.kill().expect("it runs");
        site.gateway.restart().expect("it starts again");
        let mut device = site.device(library, "pump-7");
        for reading in 11..=20 {
            device.publish("devices/pump-7/telemetry", &json!({ "reading": reading }).to_string(), 1);
        }
        tell(&mut sender, "c", "health", &json!({}));
        assert_eq!(end(&site, 3, "c")["data"]["detail"]["uplink"]["paused_topics"], 1);
        assert!(
            hub::readings(&site.cloud, "pump-7").is_empty(),
            "{kind:?}: status flows, telemetry does not"
        );

        tell(&mut sender, "d", "stream.resume", &json!({}));
        assert_eq!(end(&site, 4, "d")["data"]["detail"]["changed"], true);
        assert_eq!(hub::missing(&site.cloud, "pump-7", 20), hub::NOTHING);
        let records = hub::records(&site.cloud).into_iter().filter(|record| record.key == "pump-7");
        let order: Vec<_> = records.map(|record| record.payload).collect();
        let expected: Vec<_> = (1..=20).map(|n| json!({ "reading": n }).to_string()).collect();
        assert_eq!(order, expected, "{kind:?}: once and in order");
        let (passed, report) = hub::verify(&site.cloud);
        assert!(passed, "{kind:?}: {report}");
        metric(&site, "penstock_uplink_paused_topics 0");
        site.wait_for_active(0);
    }
}

#[test]
fn a_cap_is_seen_and_what_is_no_operation_is_dead_lettered() {
    for kind in Library::installed(&SENDERS) {
        let site = Site::start(&json!({}), &["control = true"]);
        let mut sender = site.sender(kind);
        tell(&mut sender, "a", "uplink.cap", &json!({ "bytes_per_second": 200_000, "for_seconds": 7200 }));
        assert_eq!(end(&site, 1, "a")["type"], "io.penstock.command.succeeded.v1");
        metric(&site, "penstock_uplink_cap_bytes_per_second 200000");
        let status = site.gateway.admin("/api/v1/status").expect("it answers").expect("a body");
        let status: Value = serde_json::from_str(&status).expect("JSON");
        assert_eq!(status["commands"]["control"]["limits"][0]["bytes_per_second"], 200_000, "{status:#}");

        tell(&mut sender, "b", "uplink.cap", &json!({ "bytes_per_second": 5, "for_seconds": 7200 }));
        tell(&mut sender, "c", "stream.pause", &json!({ "stream": "vibration", "for_seconds": 60 }));
        tell(&mut sender, "d", "uplink.uncap", &json!({}));
        assert_eq!(end(&site, 4, "d")["data"]["detail"]["changed"], true, "{kind:?}");
        let events = site.events(OWN, 4);
        let of = |id: &str| &events.iter().find(|event| event["data"]["commandId"] == id).expect(id)["data"];
        assert_eq!((&of("b")["status"], &of("b")["reason"]), (&json!("rejected"), &json!("malformed")));
        let error = of("c")["detail"]["error"].as_str().unwrap_or_default();
        assert!(of("c")["status"] == "rejected" && error.contains("shares the event hub"), "{error}");
        metric(&site, "penstock_uplink_cap_bytes_per_second 0");

        let letters = dead(&mut sender, 1);
        let text = letters[0].to_string();
        assert!(text.contains("penstock-malformed") && text.contains("bytes_per_second is 5"), "{text}");
    }
}

//! Commands that ask for an answer, and what the backend reads of it in the event hub.

use serde_json::{Value, json};
use testkit::azure_clients::Library;

use super::{SENDERS, Site, command, send};
use crate::clients::agent::{Agent, Library as Mqtt};
use crate::hub;

/// Reads a command with this payload and answers it, once the cloud knows that the device has it: a library may
/// send an answer before its acknowledgement, and of such a command no event says that it was delivered.
fn answer(device: &mut Agent, site: &Site, payload: &str, answer: &Value) {
    let message = device.message();
    assert_eq!(message["payload"], payload, "{message}");
    hub::wait_for("the command to be delivered", || {
        let events = site.events_now("pump-7");
        let delivered = events.iter().filter(|event| event["data"]["status"] == "delivered").count();
        (delivered.to_string() == payload).then_some(())
    });
    let topic = message["response_topic"].as_str().expect("where to answer").to_owned();
    device.publish(&topic, &answer.to_string(), 1);
}

#[test]
fn the_answer_of_the_device_is_the_final_status() {
    for kind in Library::installed(&SENDERS) {
        for library in Mqtt::installed() {
            let site = Site::start(&json!({}), &["completion = \"answered\""]);
            let mut device = site.device(library, "pump-7");
            let mut sender = site.sender(kind);
            let mut traced = command("pump-7", "b", "2");
            traced["properties"] = json!({ "penstock-origin": "edge-01/4f/1/telemetry/17" });
            send(&mut sender, &[command("pump-7", "a", "1"), traced, command("pump-7", "c", "3")]);
            let answers = [
                json!({ "status": "succeeded", "code": 0, "detail": { "speed": 7 } }),
                json!({ "status": "failed", "code": 17, "detail": "jammed" }),
                json!({ "status": "rejected" }),
            ];
            for (payload, said) in ["1", "2", "3"].into_iter().zip(&answers) {
                answer(&mut device, &site, payload, said);
            }
            site.wait_for_active(0);
            assert_eq!(site.queue().dead, 0, "an answer is no dead letter: {:?}", site.queue());

            let events = site.events("pump-7", 3);
            let data: Vec<&Value> = events.iter().map(|event| &event["data"]).collect();
            let finals: Vec<_> = data.iter().filter(|data| data["final"] == true).collect();
            let statuses: Vec<_> =
                finals.iter().map(|data| (data["commandId"].as_str(), data["status"].as_str())).collect();
            let expected =
                [("a", "succeeded"), ("b", "failed"), ("c", "rejected")].map(|(a, b)| (Some(a), Some(b)));
            assert_eq!(statuses, expected, "{kind:?} {library:?}: in order, one for each");
            assert_eq!((&finals[0]["detail"], &finals[1]["code"]), (&json!({ "speed": 7 }), &json!(17)));
            assert_eq!(finals[1]["origin"], "edge-01/4f/1/telemetry/17", "{}", finals[1]);
            let delivered =
                data.iter().filter(|data| data["status"] == "delivered" && data["final"] == false);
            assert_eq!(delivered.count(), 3, "{kind:?} {library:?}: {events:#?}");
        }
    }
}

#[test]
fn a_device_that_does_not_answer_has_failed() {
    let devices = Mqtt::installed();
    let Some(library) = devices.first().copied() else { return };
    for kind in Library::installed(&SENDERS) {
        let site = Site::start(&json!({}), &["answer_timeout = \"1s\""]);
        let mut device = site.device(library, "pump-7");
        let mut sender = site.sender(kind);
        let mut first = command("pump-7", "a", "1");
        first["properties"] = json!({ "penstock-completion": "answered" });
        send(&mut sender, &[first, command("pump-7", "b", "2")]);
        for payload in ["1", "2"] {
            assert_eq!(device.message()["payload"], payload, "{kind:?}");
        }
        let events = site.events("pump-7", 2);
        let finals: Vec<_> = events
            .iter()
            .map(|event| &event["data"])
            .filter(|data| data["final"] == true)
            .map(|data| (data["commandId"].as_str(), data["status"].as_str(), data["reason"].as_str()))
            .collect();
        let expected = [(Some("a"), Some("failed"), Some("no-answer")), (Some("b"), Some("delivered"), None)];
        assert_eq!(finals, expected, "{kind:?}: {events:#?}");
        site.wait_for_active(0);
    }
}

//! The control API: what it answers, and what it refuses.

use serde_json::json;

use crate::raw::{Batch, Raw};
use crate::sim::Sim;

#[test]
fn topics_show_their_high_watermarks() {
    let sim = Sim::start();
    Raw::connect(sim.running().kafka).produce(Batch::PLAIN).unwrap();
    let expected =
        json!({"partitions": [{"high_watermark": 1, "bytes": 81}, {"high_watermark": 0, "bytes": 0}]});
    assert_eq!(sim.get("/v1/topics"), (200, json!({ "t": expected })));
    assert_eq!(sim.get("/v1/topics/t"), (200, expected));
}

#[test]
fn a_topic_is_created_while_running() {
    let sim = Sim::start();
    let mut client = Raw::connect(sim.running().kafka);
    client.send_produce("new", 0, &Batch::PLAIN.encode());
    assert_eq!(client.receive_stored().unwrap().error, 3);
    let order = r#"{"name": "new", "partitions": 1}"#;
    assert_eq!(sim.post("/v1/topics", order), (200, json!({"created": true})));
    assert_eq!(sim.post("/v1/topics", order), (200, json!({"created": false})));
    client.send_produce("new", 0, &Batch::PLAIN.encode());
    assert_eq!(client.receive_stored().unwrap().error, 0);
}

#[test]
fn orders_that_make_no_sense_are_refused_with_the_reason() {
    let sim = Sim::start();
    for (path, body, reason) in [
        ("/v1/faults/lose-ack", "{", "EOF while parsing"),
        ("/v1/faults/lose-ack", "{}", "missing field `every`"),
        ("/v1/faults/lose-ack", r#"{"every": -1}"#, "invalid value"),
        ("/v1/faults/lose-ack", r#"{"each": 1}"#, "unknown field `each`"),
        ("/v1/faults/cut", r#"{"what": 1}"#, "unknown field `what`"),
        ("/v1/faults/accepting", r#"{"enabled": 1}"#, "invalid type"),
        ("/v1/faults/produce-error", r#"{"code": 0, "times": 1}"#, "code 0 is not an error"),
        (
            "/v1/faults/produce-error",
            r#"{"code": 44, "times": 1, "topic": "x"}"#,
            "topic \"x\" does not exist",
        ),
        ("/v1/faults/quota", r#"{"events": -1}"#, "invalid value"),
        ("/v1/faults/listen", "{}", "missing field `enabled`"),
        ("/v1/faults/authorize", r#"{"topic": "x", "enabled": false}"#, "topic \"x\" does not exist"),
        ("/v1/faults/forget-producers", r#"{"code": 44}"#, "45 or 59"),
        ("/v1/faults/throttle", r#"{"ms": 900000}"#, "too long"),
        ("/v1/topics", r#"{"name": "a/b", "partitions": 1}"#, "not a topic name"),
        ("/v1/topics", r#"{"name": "a", "partitions": 0}"#, "0 partitions are not possible"),
        ("/v1/topics", r#"{"name": "t", "partitions": 1}"#, "cannot shrink"),
    ] {
        let (status, answer) = sim.post(path, body);
        assert_eq!(status, 400, "{path} {body}");
        let error = answer["error"].as_str().unwrap();
        assert!(error.contains(reason), "{path} {body}: {error}");
    }
}

#[test]
fn unknown_paths_and_topics_are_not_found() {
    let sim = Sim::start();
    assert_eq!(sim.get("/v1/topics/nope").0, 404);
    assert_eq!(sim.get("/v2").0, 404);
    assert_eq!(sim.post("/v1/counters", "").0, 405);
}

#[test]
fn a_large_body_is_refused() {
    let sim = Sim::start();
    let agent = ureq::Agent::config_builder().http_status_as_error(false).build().new_agent();
    let url = format!("http://{}/v1/faults/cut", sim.running().control);
    assert_eq!(agent.post(url).send(" ".repeat(20_000)).unwrap().status().as_u16(), 413);
}

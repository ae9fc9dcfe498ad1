//! Faults on order.

use std::time::Duration;

use cloud_sim::eventgrid::EventGrid;
use serde_json::{Value, json};

use super::{Request, accepted, batch, counters, fault, start, start_with};
use crate::sim::Sim;

/// A client that gives up soon.
fn impatient() -> Request {
    Request { timeout: Duration::from_millis(300), ..Request::batch() }
}

fn is_cut(sim: &Sim, id: &str) -> bool {
    Request::batch().try_send(sim, &batch(&[id])).is_none()
}

#[test]
fn the_nth_event_is_refused_from_then_on_so_that_a_batch_can_be_bisected() {
    let sim = start();
    fault(&sim, json!({"fault": "reject-nth", "nth": 3}));
    assert_eq!(Request::batch().events(&sim, &["1"]), 200);
    let answer = Request::batch().send(&sim, &batch(&["2", "3", "4"]));
    assert_eq!((answer.status, answer.error().1), (400, "InputJsonInvalid"));
    assert!(answer.error().2.contains("Event [1]"), "{answer:?}");
    for (ids, status) in
        [(&["2"][..], 200), (&["3", "4"], 400), (&["3"], 400), (&["4"], 200), (&["5", "6"], 200)]
    {
        assert_eq!(Request::batch().events(&sim, ids), status, "{ids:?}");
    }
    fault(&sim, json!({"fault": "reject-ids", "ids": ["7"]}));
    assert_eq!(Request::batch().events(&sim, &["3"]), 200, "another list replaces it");
    assert_eq!(Request::batch().events(&sim, &["7"]), 400);
    assert_eq!(accepted(&sim), ["1", "2", "4", "5", "6", "3"]);
    assert_eq!(counters(&sim)["requests"]["events_refused"], 3 + 2 + 1 + 1);
}

#[test]
fn too_many_requests_say_when_to_come_again_or_do_not() {
    let sim = start();
    fault(&sim, json!({"fault": "status", "status": 429, "requests": 2, "retry_after": 7}));
    for _ in 0..2 {
        let answer = Request::batch().send(&sim, &batch(&["1"]));
        assert_eq!((answer.status, answer.retry_after.as_deref()), (429, Some("7")));
        assert_eq!(answer.error().0, "TooManyRequests");
    }
    fault(&sim, json!({"fault": "status", "status": 429, "requests": 1}));
    let answer = Request::batch().send(&sim, &batch(&["1"]));
    assert_eq!((answer.status, answer.retry_after), (429, None));
    assert_eq!(Request::batch().events(&sim, &["1"]), 200);
}

#[test]
fn a_rate_refuses_with_429_what_is_above_it() {
    let sim = start();
    // Slow enough that nothing comes back while the test runs: a thousandth of an event per millisecond.
    fault(&sim, json!({"fault": "rate", "events_per_second": 3, "retry_after": 60}));
    assert_eq!(Request::batch().events(&sim, &["1", "2", "3"]), 200);
    let answer = Request::batch().send(&sim, &batch(&["4", "5", "6"]));
    assert_eq!((answer.status, answer.retry_after.as_deref()), (429, Some("60")));
    fault(&sim, json!({"fault": "rate", "events_per_second": 0}));
    assert_eq!(Request::batch().events(&sim, &["4", "5", "6"]), 200);
}

#[test]
fn a_request_that_hangs_ends_with_its_client_and_is_not_accepted() {
    let sim = start();
    fault(&sim, json!({"fault": "black-hole", "requests": 1}));
    assert!(impatient().try_send(&sim, &batch(&["1"])).is_none());
    assert_eq!(Request::batch().events(&sim, &["2"]), 200);
    assert_eq!(accepted(&sim), ["2"]);
    assert_eq!(counters(&sim)["requests"]["unanswered"], 1);
}

#[test]
fn a_lost_answer_makes_a_duplicate() {
    let sim = start();
    fault(&sim, json!({"fault": "lose-answers", "requests": 1}));
    assert!(is_cut(&sim, "1"));
    assert_eq!(accepted(&sim), ["1"]);
    assert_eq!(Request::batch().events(&sim, &["1"]), 200);
    assert_eq!(accepted(&sim), ["1", "1"]);
    assert_eq!(counters(&sim)["events"]["duplicates"], 1);
}

#[test]
fn a_refusal_of_what_is_refused_anyway_loses_no_answer() {
    let sim = start();
    fault(&sim, json!({"fault": "lose-answers", "requests": 1}));
    assert_eq!(Request::batch().send(&sim, "[]").status, 400);
    assert!(is_cut(&sim, "1"), "it is kept for one that is accepted");
}

#[test]
fn accepted_and_then_500_makes_a_duplicate_too() {
    let sim = start();
    fault(&sim, json!({"fault": "status", "status": 500, "requests": 1, "accept": true}));
    assert_eq!(Request::batch().events(&sim, &["1"]), 500);
    assert_eq!(Request::batch().events(&sim, &["1"]), 200);
    assert_eq!(accepted(&sim), ["1", "1"]);
}

#[test]
fn a_request_that_is_cut_is_not_accepted() {
    let sim = start();
    fault(&sim, json!({"fault": "cut-requests", "requests": 1}));
    assert!(is_cut(&sim, "1"));
    assert_eq!(Request::batch().events(&sim, &["2"]), 200);
    assert_eq!(accepted(&sim), ["2"]);
}

#[test]
fn a_service_that_is_away_comes_back() {
    let sim = start();
    fault(&sim, json!({"fault": "away", "enabled": true}));
    assert!(is_cut(&sim, "1") && is_cut(&sim, "1"));
    fault(&sim, json!({"fault": "away", "enabled": false}));
    assert_eq!(Request::batch().events(&sim, &["2"]), 200);
    assert_eq!(accepted(&sim), ["2"]);
}

#[test]
fn open_connections_are_cut() {
    let sim = start();
    let http = sim.running().event_grid.as_ref().unwrap().http;
    let agent: ureq::Agent = ureq::Agent::config_builder().http_status_as_error(false).build().into();
    // It keeps its connection.
    let mut answer = agent.get(format!("http://{http}/")).call().unwrap();
    assert_eq!((answer.status().as_u16(), answer.body_mut().read_to_string().is_ok()), (404, true));
    let (_status, answer) = sim.post("/eventgrid/faults", r#"{"fault": "cut-connections"}"#);
    assert_eq!(answer, json!({ "met": 1 }));
    let (_status, answer) = sim.post("/eventgrid/faults", r#"{"fault": "cut-connections"}"#);
    assert_eq!(answer, json!({ "met": 0 }));
}

#[test]
fn answers_are_held_back() {
    let sim = start();
    fault(&sim, json!({"fault": "delay", "ms": 5_000}));
    assert!(impatient().try_send(&sim, &batch(&["1"])).is_none());
    assert_eq!(accepted(&sim), ["1"], "it was accepted before the answer was held back");
    fault(&sim, json!({"fault": "clear"}));
    assert_eq!(Request::batch().events(&sim, &["2"]), 200);
}

#[test]
fn a_handshake_is_slow_on_order() {
    let any = std::net::SocketAddr::from(([127, 0, 0, 1], 0));
    let sim = start_with(|grid| EventGrid { tls: Some(any), ..grid });
    let https = sim.running().event_grid.as_ref().unwrap().https.unwrap();
    let shakes = || {
        use std::io::{Read, Write};
        let mut socket = std::net::TcpStream::connect(https).unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
        // Not TLS at all: refused at once, once somebody looks at it.
        socket.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
        !matches!(socket.read(&mut [0]), Err(error) if error.kind() == std::io::ErrorKind::WouldBlock)
    };
    assert!(shakes());
    fault(&sim, json!({"fault": "slow-tls", "ms": 120_000}));
    assert!(!shakes());
    fault(&sim, json!({"fault": "clear"}));
    assert!(shakes());
}

#[test]
fn faults_are_cleared_together() {
    let sim = start();
    for order in [
        json!({"fault": "status", "status": 503, "requests": 9}),
        json!({"fault": "cut-requests", "requests": 9}),
        json!({"fault": "lose-answers", "requests": 9}),
        json!({"fault": "black-hole", "requests": 9}),
        json!({"fault": "reject-ids", "ids": ["1"]}),
        json!({"fault": "reject-nth", "nth": 1}),
        json!({"fault": "rate", "events_per_second": 1}),
        json!({"fault": "away", "enabled": true}),
        json!({"fault": "clear"}),
    ] {
        fault(&sim, order);
    }
    for _ in 0..3 {
        assert_eq!(Request::batch().events(&sim, &["1"]), 200);
    }
}

#[test]
fn orders_that_make_no_sense_are_refused_with_the_reason() {
    let sim = start();
    let ids: Vec<String> = (0..10_001).map(|id: u32| id.to_string()).collect();
    for (order, says) in [
        (json!({"fault": "none"}), "unknown variant"),
        (json!({"fault": "status", "status": 200, "requests": 1}), "not a refusal"),
        (json!({"fault": "status", "status": 503}), "missing field"),
        (json!({"fault": "delay", "ms": 120_001}), "too long"),
        (json!({"fault": "slow-tls", "ms": 120_001}), "too long"),
        (json!({"fault": "reject-ids", "ids": ids}), "more than 10000"),
        (json!({"fault": "clear", "all": true}), "unknown field"),
        (json!({"fault": "rotate-key", "key": "not Base64!"}), "Base64"),
        (Value::Null, "invalid type"),
    ] {
        let (status, answer) = sim.post("/eventgrid/faults", &order.to_string());
        assert_eq!(status, 400, "{answer}");
        assert!(answer["error"].as_str().unwrap().contains(says), "{answer}, not {says}");
    }
    assert_eq!(Request::batch().events(&sim, &["1"]), 200);
}

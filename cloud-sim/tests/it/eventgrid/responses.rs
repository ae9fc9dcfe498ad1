//! What a publisher is answered, row by row of the service's table.

use serde_json::json;

use super::{Request, SINGLE, accepted, batch, counters, event, fault, start};

#[test]
fn what_is_right_is_accepted_with_200() {
    let sim = start();
    assert_eq!(Request::batch().events(&sim, &["1", "2"]), 200);
    let single = Request { content_type: SINGLE, ..Request::batch() };
    assert_eq!(single.send(&sim, &event("3").to_string()).status, 200);
    let answer = Request::namespace().send(&sim, &batch(&["4"]));
    assert_eq!((answer.status, answer.body), (200, json!({})));
    assert_eq!(accepted(&sim), ["1", "2", "3", "4"]);
    let (_status, page) = sim.get("/eventgrid/events?after=2");
    let entries = page["entries"].as_array().unwrap();
    assert_eq!(entries[0]["event"], event("3"));
    assert_eq!((&entries[0]["topic"], &entries[1]["topic"]), (&json!(null), &json!("alerts")));
    assert_eq!((&entries[0]["number"], &entries[0]["request"]), (&json!(3), &json!(2)));
}

#[test]
fn a_bad_format_is_400_and_nothing_of_the_request_is_accepted() {
    let sim = start();
    let mut bad = event("2");
    bad["time"] = json!("yesterday");
    for (body, says) in [
        (json!([event("1"), bad]).to_string(), "Event [1]: property 'time' is not a time of RFC 3339"),
        (json!([event("1"), 7]).to_string(), "expected an event"),
        (event("1").to_string(), "Token Expected: StartArray, Actual Token Received: StartObject"),
        ("[]".to_owned(), "no events"),
        ("[{".to_owned(), "Unexpected token"),
        (String::new(), "Actual Token Received: None"),
    ] {
        for request in [Request::batch(), Request::namespace()] {
            let answer = request.send(&sim, &body);
            let (code, detail, message) = answer.error();
            assert_eq!((answer.status, code, detail), (400, "BadRequest", "InputJsonInvalid"), "{body}");
            assert!(message.contains(says), "{body}: {message}");
        }
    }
    assert!(accepted(&sim).is_empty());
    assert_eq!(counters(&sim)["requests"]["refused"], json!({ "400": 12 }));
}

#[test]
fn another_content_type_is_refused() {
    let sim = start();
    for kind in ["application/json", "application/cloudevents-batch+json; charset=latin1", "text/plain"] {
        let answer = Request { content_type: kind, ..Request::batch() }.send(&sim, &batch(&["1"]));
        assert_eq!((answer.status, answer.error().1), (400, "InvalidContentType"), "{kind}");
        let answer = Request { content_type: kind, ..Request::namespace() }.send(&sim, &batch(&["1"]));
        assert_eq!((answer.status, answer.error().1), (415, "InvalidContentType"), "{kind}");
    }
    assert!(accepted(&sim).is_empty());
}

#[test]
fn another_place_is_not_there() {
    let sim = start();
    for (path, status, detail) in [
        ("/api/event?api-version=2018-01-01", 404, "NotFound"),
        ("/?api-version=2018-01-01", 404, "NotFound"),
        ("/topics/alerts?api-version=2024-06-01", 404, "NotFound"),
        ("/topics/gone:publish?api-version=2024-06-01", 410, "TopicNotFound"),
        ("/api/events", 400, "MissingApiVersion"),
        ("/api/events?api-version=2024-06-01", 400, "InvalidApiVersion"),
        ("/topics/alerts:publish?api-version=2018-01-01", 400, "InvalidApiVersion"),
    ] {
        let request = if path.starts_with("/topics") { Request::namespace() } else { Request::batch() };
        let answer = Request { path, ..request }.send(&sim, &batch(&["1"]));
        assert_eq!((answer.status, answer.error().1), (status, detail), "{path}");
    }
    let http = sim.running().event_grid.as_ref().unwrap().http;
    let agent: ureq::Agent = ureq::Agent::config_builder().http_status_as_error(false).build().into();
    assert_eq!(agent.get(format!("http://{http}{}", super::TOPIC)).call().unwrap().status(), 405);
    assert!(accepted(&sim).is_empty());
}

#[test]
fn every_status_can_be_had_on_order_and_accepts_nothing() {
    let sim = start();
    for status in [400, 401, 403, 404, 408, 410, 413, 429, 500, 502, 503, 504] {
        fault(&sim, json!({"fault": "status", "status": status, "requests": 1}));
        let answer = Request::batch().send(&sim, &batch(&["1"]));
        assert_eq!((answer.status, answer.error().1), (status, "Ordered"));
        assert_eq!(answer.retry_after, None);
    }
    assert!(accepted(&sim).is_empty());
    assert_eq!(Request::batch().events(&sim, &["1"]), 200);
    assert_eq!(accepted(&sim), ["1"]);
}

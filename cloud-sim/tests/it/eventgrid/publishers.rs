//! Microsoft's own publishers: what they send is accepted, and they understand what they are answered.

use std::net::SocketAddr;
use std::time::{SystemTime, UNIX_EPOCH};

use cloud_sim::OAuth;
use cloud_sim::eventgrid::{EventGrid, KEYS_DEFAULT, Kind};
use serde_json::{Value, json};
use testkit::cloud::event_grid::{Publisher, Refused, judge_entries, judges_are_installed};

use super::{KEY, accepted, event, fault, start, start_with};
use crate::sim::Sim;

#[expect(clippy::disallowed_methods, reason = "signatures end at a time of the wall clock")]
fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

fn endpoint(sim: &Sim) -> String {
    format!("http://{}/api/events", sim.running().event_grid.as_ref().unwrap().http)
}

fn order(sim: &Sim, events: &[Value]) -> Value {
    json!({ "endpoint": endpoint(sim), "key": KEY, "events": events })
}

fn with(mut order: Value, name: &str, value: Value) -> Value {
    order[name] = value;
    order
}

/// An event in which every kind of attribute is used.
fn full(id: &str) -> Value {
    let mut event = event(id);
    event["subject"] = json!("tenants/acme/devices/d\u{e9}v 42");
    event["datacontenttype"] = json!("application/json");
    event["dataschema"] = json!("urn:penstock:schema:alert:1");
    event["traceparent"] = json!("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01");
    event["severitynumber"] = json!(17);
    event["data"] = json!({"value": 106.1, "context": [[null, -1], ["\u{1f600}", true]]});
    event
}

fn publish(publisher: Publisher, orders: &[Value]) -> Vec<Result<(), Refused>> {
    publisher.publish(orders, None).unwrap()
}

#[track_caller]
fn refused(answer: &Result<(), Refused>) -> (Option<u16>, Option<&str>) {
    let refused = answer.as_ref().unwrap_err();
    (refused.status, refused.code.as_deref())
}

#[test]
fn what_they_publish_is_accepted() {
    for publisher in Publisher::installed() {
        let sim = start();
        let many: Vec<Value> = (0..5_000).map(|id| event(&id.to_string())).collect();
        let signed = with(order(&sim, &[full("c")]), "signed_until", json!(now() + 300));
        let orders = [
            order(&sim, &[full("a"), full("b")]),
            signed,
            with(order(&sim, &[full("d")]), "key", json!(KEYS_DEFAULT[1])),
            order(&sim, &many),
        ];
        let answers = publish(publisher, &orders);
        assert!(answers.iter().all(Result::is_ok), "{publisher:?}: {answers:?}");
        assert_eq!(accepted(&sim)[..5], ["a", "b", "c", "d", "0"], "{publisher:?}");
        let first = sim.get("/eventgrid/events?after=0").1["entries"][0]["event"].take();
        for (name, value) in full("a").as_object().unwrap() {
            if name != "time" {
                assert_eq!(&first[name], value, "{publisher:?}: {name}");
            }
        }
        assert_eq!(
            sim.get("/eventgrid/counters").1["requests"]["requests"],
            4,
            "{publisher:?}: nothing twice"
        );
    }
}

#[test]
fn they_understand_what_is_refused() {
    for publisher in Publisher::installed() {
        let sim = start();
        let mut blank = event("1");
        blank["source"] = json!("a b");
        let mut long = event("1");
        long["abcdefghijklmnopqrstu"] = json!("x");
        let many: Vec<Value> = (0..5_001).map(|id| event(&id.to_string())).collect();
        let mut large = event("1");
        large["data"] = json!({ "fill": "x".repeat(1 << 20) });
        let nowhere = endpoint(&sim).replace("/api/events", "/api/nowhere");
        let orders = [
            order(&sim, &[event("1"), blank]),
            order(&sim, &[long]),
            order(&sim, &many),
            order(&sim, &[large]),
            with(order(&sim, &[event("1")]), "key", json!("d3Jvbmc=")),
            with(order(&sim, &[event("1")]), "signed_until", json!(now() - 300)),
            with(order(&sim, &[event("1")]), "endpoint", json!(nowhere)),
        ];
        let answers = publish(publisher, &orders);
        let statuses: Vec<Option<u16>> = answers.iter().map(|answer| refused(answer).0).collect();
        let expected = [400, 400, 413, 413, 401, 401, 404].map(Some);
        assert_eq!(statuses, expected, "{publisher:?}: {answers:?}");
        let first = answers[0].as_ref().unwrap_err();
        assert_eq!(
            (first.code.as_deref(), &first.details[..]),
            (Some("BadRequest"), &["InputJsonInvalid".to_owned()][..]),
            "{publisher:?}"
        );
        assert!(first.text.contains("Event [1]"), "{publisher:?}: {first:?}");
        assert!(accepted(&sim).is_empty(), "{publisher:?}");
    }
}

#[test]
fn they_understand_the_faults() {
    for publisher in Publisher::installed() {
        let sim = start();
        let one = [order(&sim, &[event("1")])];
        for status in [429, 503] {
            fault(&sim, json!({"fault": "status", "status": status, "requests": 1}));
            assert_eq!(
                refused(&publish(publisher, &one)[0]),
                (Some(status), Some(if status == 429 { "TooManyRequests" } else { "ServiceUnavailable" }))
            );
        }
        fault(&sim, json!({"fault": "lose-answers", "requests": 1}));
        assert_eq!(refused(&publish(publisher, &one)[0]).0, None, "{publisher:?}");
        assert_eq!(publish(publisher, &one), [Ok(())]);
        assert_eq!(sim.get("/eventgrid/duplicates").1["duplicates"][0]["times"], 2, "{publisher:?}");
    }
}

#[test]
fn events_of_the_other_schema_are_refused() {
    for publisher in Publisher::installed() {
        let sim = start();
        let event = json!({
            "id": "1", "subject": "s", "eventType": "t", "eventTime": "2026-11-20T21:00:00Z", "dataVersion": "1",
            "data": {"a": 1}
        });
        // JavaScript has to be told, Python looks at the event.
        let order = with(order(&sim, &[event]), "schema", json!("Custom"));
        let answer = publish(publisher, &[order]);
        assert_eq!(refused(&answer[0]), (Some(400), Some("BadRequest")), "{publisher:?}");
        assert_eq!(answer[0].as_ref().unwrap_err().details, ["InvalidContentType"], "{publisher:?}");
    }
}

#[test]
fn a_domain_takes_what_they_publish_for_its_topics() {
    for publisher in Publisher::installed() {
        let sim = start_with(|grid| EventGrid { kind: Kind::Domain, ..grid });
        let mut tenant = event("1");
        tenant["source"] = json!("acme");
        let answers = publish(publisher, &[order(&sim, &[tenant]), order(&sim, &[event("2")])]);
        assert_eq!(answers[0], Ok(()), "{publisher:?}");
        assert_eq!(refused(&answers[1]).0, Some(400), "{publisher:?}");
        assert_eq!(sim.get("/eventgrid/events?after=0").1["entries"][0]["topic"], "acme", "{publisher:?}");
    }
}

/// The library for JavaScript has its namespaces in another package.
#[test]
fn a_namespace_takes_what_python_publishes() {
    if !Publisher::installed().contains(&Publisher::Python) {
        return;
    }
    let sim = start();
    let base = format!("http://{}", sim.running().event_grid.as_ref().unwrap().http);
    let to = |topic: &str, events: &[Value]| json!({ "endpoint": base, "topic": topic, "key": KEY, "events": events });
    let many: Vec<Value> = (0..1_001).map(|id| event(&id.to_string())).collect();
    let orders = [
        to("alerts", &[full("1"), full("2")]),
        to("other", &[event("3")]),
        to("alerts", &many),
        with(to("alerts", &[event("4")]), "key", json!("d3Jvbmc=")),
    ];
    let answers = publish(Publisher::Python, &orders);
    assert_eq!(answers[0], Ok(()));
    let statuses: Vec<Option<u16>> = answers[1..].iter().map(|answer| refused(answer).0).collect();
    assert_eq!(statuses, [410, 403, 401].map(Some), "{answers:?}");
    let entries = sim.get("/eventgrid/events?after=0").1["entries"].take();
    assert_eq!((&entries[0]["topic"], entries.as_array().unwrap().len()), (&json!("alerts"), 2));
}

#[test]
fn with_tls_they_show_tokens_too() {
    for publisher in Publisher::installed() {
        let sim = Sim::start_with(|config| {
            let any = SocketAddr::from(([127, 0, 0, 1], 0));
            let mut config = config.with_event_grid(EventGrid { tls: Some(any), ..EventGrid::new() });
            config.oauth = Some(OAuth::new());
            config
        });
        let running = sim.running();
        let https = running.event_grid.as_ref().unwrap().https.unwrap();
        let endpoint = json!(format!("https://{https}/api/events"));
        let path = "/metadata/identity/oauth2/token?api-version=2018-02-01&resource=https%3A%2F%2Feventgrid.azure.net";
        let url = format!("http://{}{path}", running.tokens.unwrap());
        let mut answer = ureq::get(url).header("Metadata", "true").call().unwrap();
        let token = answer.body_mut().read_json::<Value>().unwrap()["access_token"].take();
        let orders = [
            with(order(&sim, &[full("1")]), "endpoint", endpoint.clone()),
            json!({ "endpoint": endpoint, "token": token, "events": [full("2")] }),
            json!({ "endpoint": endpoint, "token": "made.up", "events": [full("3")] }),
        ];
        let answers = publisher.publish(&orders, running.ca_file.as_deref()).unwrap();
        assert_eq!(answers[..2], [Ok(()), Ok(())], "{publisher:?}");
        assert_eq!(refused(&answers[2]).0, Some(401), "{publisher:?}");
        assert_eq!(accepted(&sim), ["1", "2"], "{publisher:?}");
        // Without the authority nobody talks to it.
        let strangers = publisher.publish(&orders[..1], None).unwrap();
        assert_eq!(refused(&strangers[0]).0, None, "{publisher:?}");
    }
}

#[test]
fn what_they_publish_is_good_for_every_judge() {
    if !judges_are_installed() {
        return;
    }
    let sim = start();
    for publisher in Publisher::installed() {
        let id = format!("{publisher:?}");
        assert_eq!(publish(publisher, &[order(&sim, &[full(&id)])]), [Ok(())]);
    }
    let entries = sim.get("/eventgrid/events?after=0").1["entries"].take();
    let verdict = judge_entries(&serde_json::from_value::<Vec<_>>(entries).unwrap()).unwrap();
    assert!(verdict.is_clean(), "{verdict}");
}

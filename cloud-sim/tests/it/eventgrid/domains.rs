//! Domains: the source of an event names its topic.

use cloud_sim::eventgrid::{EventGrid, Kind};
use serde_json::{Value, json};

use super::{Request, event, start, start_with};

fn from(source: &str) -> Value {
    let mut event = event("1");
    event["source"] = json!(source);
    event
}

#[test]
fn a_domain_takes_a_topic_as_source_and_nothing_else() {
    let sim = start_with(|grid| EventGrid { kind: Kind::Domain, ..grid });
    let id = "/subscriptions/1/resourceGroups/g/providers/Microsoft.EventGrid/domains/d/topics/tenant-7";
    for source in ["acme", id] {
        let answer = Request::batch().send(&sim, &json!([from(source)]).to_string());
        assert_eq!(answer.status, 200, "{source}");
    }
    let entries = sim.get("/eventgrid/events?after=0").1["entries"].take();
    assert_eq!((&entries[0]["topic"], &entries[1]["topic"]), (&json!("acme"), &json!("tenant-7")));
    for source in ["urn:penstock:gw01", "https://acme.example/gw01", "/gateways/gw01", "ab", "a_b_c"] {
        let answer = Request::batch().send(&sim, &json!([from("acme"), from(source)]).to_string());
        assert_eq!((answer.status, answer.error().1), (400, "InputJsonInvalid"), "{source}");
        let words =
            "Required property 'topic' needs to either be a full resource id or should be just the name";
        assert!(answer.error().2.contains(words), "{answer:?}");
    }
    assert_eq!(sim.get("/eventgrid/events?after=2").1["entries"], json!([]));
}

#[test]
fn a_custom_topic_and_a_namespace_take_any_source() {
    let sim = start();
    for request in [Request::batch(), Request::namespace()] {
        for source in ["urn:penstock:gw01", "https://acme.example/gw01", "acme"] {
            assert_eq!(request.send(&sim, &json!([from(source)]).to_string()).status, 200, "{source}");
        }
    }
}

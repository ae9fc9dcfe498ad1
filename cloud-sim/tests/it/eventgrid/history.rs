//! What was accepted: its order, what came twice, and what outlives the process.

use serde_json::{Value, json};

use super::{Request, accepted, batch, counters, event, fault, start};

fn duplicates(sim: &crate::sim::Sim) -> Value {
    sim.get("/eventgrid/duplicates").1["duplicates"].take()
}

#[test]
fn what_comes_twice_is_told_by_source_and_id() {
    let sim = start();
    assert_eq!(Request::batch().events(&sim, &["1", "2", "3"]), 200);
    assert_eq!(Request::batch().events(&sim, &["2", "2"]), 200);
    let mut other_source = event("1");
    other_source["source"] = json!("/gateways/gw02");
    assert_eq!(Request::batch().send(&sim, &json!([other_source]).to_string()).status, 200);
    let mut other_content = event("3");
    other_content["data"]["state"] = json!("resolved");
    assert_eq!(Request::namespace().send(&sim, &json!([other_content]).to_string()).status, 200);
    let expected = json!([
        {"source": "/gateways/gw01", "id": "2", "times": 3, "differs": false},
        {"source": "/gateways/gw01", "id": "3", "times": 2, "differs": true},
    ]);
    assert_eq!(duplicates(&sim), expected);
    let totals = json!({"accepted": 7, "distinct": 4, "duplicates": 3, "conflicting": 1, "large": 0});
    assert_eq!(counters(&sim)["events"], totals);
}

#[test]
fn the_same_event_with_its_members_in_another_order_is_the_same() {
    let sim = start();
    let one = r#"[{"specversion":"1.0","id":"1","source":"/gw","type":"t","data":{"a":1,"b":2}}]"#;
    let other = r#"[{"data":{"b":2,"a":1},"type":"t","source":"/gw","id":"1","specversion":"1.0"}]"#;
    for body in [one, other] {
        assert_eq!(Request::batch().send(&sim, body).status, 200);
    }
    assert_eq!(duplicates(&sim)[0]["differs"], false);
}

#[test]
fn what_was_accepted_is_there_after_a_restart_and_faults_are_not() {
    let mut sim = start();
    assert_eq!(Request::batch().events(&sim, &["1", "2"]), 200);
    fault(&sim, json!({"fault": "status", "status": 503, "requests": 9}));
    sim.restart_with(|config| config.with_event_grid(cloud_sim::eventgrid::EventGrid::new()));
    assert_eq!(accepted(&sim), ["1", "2"]);
    assert_eq!(Request::batch().events(&sim, &["2"]), 200);
    assert_eq!(accepted(&sim), ["1", "2", "2"]);
    assert_eq!(duplicates(&sim)[0]["times"], 2);
    let counters = counters(&sim);
    assert_eq!((&counters["events"]["accepted"], &counters["requests"]["requests"]), (&json!(3), &json!(1)));
}

#[test]
fn a_reader_goes_on_where_it_was() {
    let sim = start();
    let ids: Vec<String> = (1..=1_500).map(|id| id.to_string()).collect();
    let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
    assert_eq!(Request::batch().send(&sim, &batch(&ids)).status, 200);
    let page = |after: u64| sim.get(&format!("/eventgrid/events?after={after}")).1;
    let numbers = |page: &Value| {
        let entries = page["entries"].as_array().unwrap();
        let number = |entry: Option<&Value>| entry.map(|entry| entry["number"].as_u64().unwrap());
        (entries.len(), number(entries.first()), number(entries.last()))
    };
    assert_eq!(numbers(&page(0)), (1_000, Some(1), Some(1_000)));
    assert_eq!(numbers(&page(1_000)), (500, Some(1_001), Some(1_500)));
    assert_eq!(numbers(&page(1_500)), (0, None, None));
    assert_eq!(page(0)["accepted"], 1_500);
    assert_eq!(sim.get("/eventgrid/events?from=1").0, 400);
}

//! Sizes and counts, at the limit and beyond it.

use serde_json::{Value, json};

use super::{Request, SINGLE, accepted, counters, event, start};

const MIB: usize = 1_048_576;

/// An event that has so many bytes.
fn sized(id: &str, bytes: usize) -> String {
    let mut event = event(id);
    event["data"] = json!({ "fill": "" });
    let rest = event.to_string().len();
    event["data"]["fill"] = json!("x".repeat(bytes - rest));
    let text = event.to_string();
    assert_eq!(text.len(), bytes);
    text
}

fn many(count: usize) -> String {
    Value::Array((0..count).map(|id| event(&id.to_string())).collect()).to_string()
}

fn single(namespace: bool) -> Request {
    let request = if namespace { Request::namespace() } else { Request::batch() };
    Request { content_type: SINGLE, ..request }
}

#[test]
fn a_request_and_an_event_have_at_most_a_mebibyte() {
    let sim = start();
    for (namespace, status, detail) in [(false, 413, "RequestEntityTooLarge"), (true, 403, "RequestTooLarge")]
    {
        assert_eq!(single(namespace).send(&sim, &sized("1", MIB)).status, 200);
        let answer = single(namespace).send(&sim, &sized("2", MIB + 1));
        assert_eq!((answer.status, answer.error().1), (status, detail));
        assert!(answer.error().2.contains("1048577 bytes"), "{answer:?}");
        // What is far too large is not even read to its end.
        let answer = single(namespace).try_send(&sim, &" ".repeat(9 * MIB));
        assert!(answer.is_none_or(|answer| answer.status == status && answer.error().1 == detail));
    }
    assert_eq!(accepted(&sim), ["1", "1"]);
}

#[test]
fn the_list_counts_not_only_its_events() {
    let sim = start();
    let two = |bytes| format!("[{},{}]", sized("1", 500_000), sized("2", bytes));
    assert_eq!(Request::batch().send(&sim, &two(MIB - 500_003)).status, 200);
    assert_eq!(Request::batch().send(&sim, &two(MIB - 500_002)).status, 413);
    assert_eq!(accepted(&sim), ["1", "2"]);
}

#[test]
fn a_request_has_at_most_so_many_events() {
    let sim = start();
    for (request, most, status) in [(Request::batch(), 5_000, 413), (Request::namespace(), 1_000, 403)] {
        assert_eq!(request.send(&sim, &many(most)).status, 200);
        let answer = request.send(&sim, &many(most + 1));
        assert_eq!(answer.status, status);
        assert!(answer.error().2.contains(&format!("{} events", most + 1)), "{answer:?}");
    }
    assert_eq!(counters(&sim)["events"]["accepted"], 6_000);
}

#[test]
fn events_above_64_kib_are_counted() {
    let sim = start();
    for (bytes, large) in [(65_536, 0), (65_537, 1), (MIB, 2)] {
        assert_eq!(single(false).send(&sim, &sized(&bytes.to_string(), bytes)).status, 200);
        assert_eq!(counters(&sim)["events"]["large"], large, "{bytes}");
    }
    let batch = format!("[{},{}]", sized("1", 65_536), sized("2", 65_537));
    assert_eq!(Request::batch().send(&sim, &batch).status, 200);
    assert_eq!(counters(&sim)["events"]["large"], 3, "each event of a list is measured");
}

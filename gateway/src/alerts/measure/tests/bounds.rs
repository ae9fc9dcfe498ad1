//! The bounds of what is kept of Sparkplug, each reached.

use super::tahu::{Metric, Payload, Value};
use super::*;

const READ: Reading = Reading::Read(Form::Sparkplug);
const WIDE: Limits = Limits { nodes: 100, metrics: 100, name_bytes: 100, bytes: 100_000 };

fn births(names: &[&str]) -> Vec<Metric> {
    (1..).zip(names).map(|(alias, name)| Metric::born(name, alias, 10, Value::Double(1.0))).collect()
}

fn hear(reader: &mut Reader, topic: &str, seq: u8, metrics: Vec<Metric>, now_ms: u64) -> Reading {
    let payload = Payload::new(seq, metrics).encode();
    take(reader, &message(topic, &payload), now_ms).0
}

#[test]
fn nodes_beyond_the_bound_are_not_read() {
    let mut reader = limited(&["m"], Limits { nodes: 2, ..WIDE });
    let full = Reading::Refused(Refused::NodesFull);
    assert_eq!(hear(&mut reader, "spBv1.0/g/NBIRTH/one", 0, births(&["m"]), 0), READ);
    assert_eq!(hear(&mut reader, "spBv1.0/g/NBIRTH/two", 0, births(&["m"]), 0), READ);
    for topic in ["spBv1.0/g/NBIRTH/three", "spBv1.0/g/NDATA/three", "spBv1.0/g/DBIRTH/three/d"] {
        assert_eq!(hear(&mut reader, topic, 0, births(&["m"]), 0), full);
    }
    assert_eq!(reader.counts().refused(Refused::NodesFull), 3);
    assert_eq!(reader.take_rebirths(), []);
    assert_eq!(hear(&mut reader, "spBv1.0/g/NDATA/two", 1, vec![], 0), READ);
    // One that died makes room, once it may be forgotten; the table is searched once a minute.
    assert_eq!(hear(&mut reader, "spBv1.0/g/NDEATH/two", 0, vec![Metric::default()], 1), READ);
    assert_eq!(hear(&mut reader, "spBv1.0/g/NBIRTH/three", 0, births(&["m"]), 59_999), full);
    assert_eq!(hear(&mut reader, "spBv1.0/g/NBIRTH/three", 0, births(&["m"]), 60_000), READ);
    assert_eq!(hear(&mut reader, "spBv1.0/g/NDATA/two", 1, vec![], 60_000), full);
}

#[test]
fn a_node_that_waits_for_its_birth_is_forgotten_a_minute_after_the_wish() {
    let mut reader = limited(&["m"], Limits { nodes: 1, ..WIDE });
    assert_eq!(
        hear(&mut reader, "spBv1.0/g/NDATA/one", 0, vec![], 100_000),
        Reading::Refused(Refused::Unborn)
    );
    let full = Reading::Refused(Refused::NodesFull);
    assert_eq!(hear(&mut reader, "spBv1.0/g/NBIRTH/two", 0, vec![Metric::default()], 100_001), full);
    assert_eq!(hear(&mut reader, "spBv1.0/g/NBIRTH/two", 0, vec![Metric::default()], 160_001), READ);
}

#[test]
fn a_node_beyond_a_bound_is_not_read_until_it_is_born_smaller() {
    let long = "x".repeat(101);
    let many: Vec<String> = (0..101).map(|number| format!("m{number}")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    let wide: Vec<String> = (0..50).map(|number| format!("{number:090}")).collect();
    let wide: Vec<&str> = wide.iter().map(String::as_str).collect();
    for (limits, names) in
        [(WIDE, vec![long.as_str()]), (WIDE, many), (Limits { bytes: 5_000, ..WIDE }, wide)]
    {
        let mut reader = limited(&["m"], limits);
        let large = Reading::Refused(Refused::NodeTooLarge);
        assert_eq!(hear(&mut reader, "spBv1.0/g/NBIRTH/n", 0, births(&names), 0), large);
        assert_eq!(hear(&mut reader, "spBv1.0/g/NDATA/n", 1, vec![], 0), large);
        assert_eq!(hear(&mut reader, "spBv1.0/g/NBIRTH/n", 0, births(&["m"]), 0), READ);
        assert_eq!(hear(&mut reader, "spBv1.0/g/NDATA/n", 1, vec![], 0), READ);
        assert_eq!(hear(&mut reader, "spBv1.0/g/DBIRTH/n/d", 2, births(&names), 0), large);
        assert_eq!(hear(&mut reader, "spBv1.0/g/DDATA/n/d", 3, vec![], 0), large);
        assert_eq!(hear(&mut reader, "spBv1.0/g/NDATA/n", 3, vec![], 0), large);
        assert_eq!(reader.take_rebirths(), []);
        assert_eq!(reader.counts().refused(Refused::NodeTooLarge), 5);
    }
}

#[test]
fn devices_count_as_metrics_and_the_names_of_topics_are_bounded() {
    let mut reader = limited(&["m"], Limits { metrics: 4, ..WIDE });
    let large = Reading::Refused(Refused::NodeTooLarge);
    assert_eq!(hear(&mut reader, "spBv1.0/g/NBIRTH/n", 0, births(&["m"]), 0), READ);
    assert_eq!(hear(&mut reader, "spBv1.0/g/DBIRTH/n/one", 1, births(&["m"]), 0), READ);
    // The same device again takes the place that it had.
    assert_eq!(hear(&mut reader, "spBv1.0/g/DBIRTH/n/one", 2, births(&["m"]), 0), READ);
    assert_eq!(hear(&mut reader, "spBv1.0/g/DBIRTH/n/two", 3, births(&[]), 0), large);
    let topic = format!("spBv1.0/g/NBIRTH/{}", "n".repeat(99));
    assert_eq!(hear(&mut reader, &topic, 0, births(&["m"]), 0), large);
    let topic = format!("spBv1.0/g/NBIRTH/{}", "n".repeat(98));
    assert_eq!(hear(&mut reader, &topic, 0, births(&["m"]), 0), READ);
    assert_eq!(hear(&mut reader, &topic.replace("NBIRTH", "NDATA"), 1, vec![], 0), READ);
    let device = format!("{}/{}", topic.replace("NBIRTH", "DBIRTH"), "d".repeat(101));
    assert_eq!(hear(&mut reader, &device, 2, births(&[]), 0), large);
}

#[test]
fn what_is_forgotten_makes_room() {
    let limits = Limits { bytes: 3_000, ..WIDE };
    let mut reader = limited(&["m"], limits);
    let names: Vec<String> = (0..15).map(|number| format!("{number:060}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    for round in 0..200 {
        assert_eq!(hear(&mut reader, "spBv1.0/g/NBIRTH/n", 0, births(&["m"]), 0), READ, "{round}");
        assert_eq!(hear(&mut reader, "spBv1.0/g/DBIRTH/n/d", 1, births(&names), 0), READ);
        assert_eq!(hear(&mut reader, "spBv1.0/g/DBIRTH/n/d", 2, births(&names), 0), READ);
        assert_eq!(hear(&mut reader, "spBv1.0/g/DDEATH/n/d", 3, vec![], 0), READ);
        assert_eq!(hear(&mut reader, "spBv1.0/g/NDEATH/n", 3, vec![Metric::default()], 0), READ);
        assert_eq!(hear(&mut reader, "spBv1.0/g/NBIRTH/n", 0, births(&names), 0), READ);
    }
}

#[test]
fn wishes_beyond_the_queue_are_counted_and_made_again() {
    let mut reader = reader(&["m"]);
    let topic = |number: usize| format!("spBv1.0/g/NDATA/n{number}");
    for number in 0..1_002 {
        hear(&mut reader, &topic(number), 0, vec![], 0);
    }
    assert_eq!((reader.counts().rebirths_wanted, reader.counts().rebirths_lost), (1_000, 2));
    assert_eq!(reader.take_rebirths().len(), 1_000);
    hear(&mut reader, &topic(1_001), 1, vec![], 60_000);
    assert_eq!(reader.take_rebirths().len(), 1);
}

#[test]
fn samples_of_a_payload_are_bounded() {
    let mut reader = reader(&["m"]);
    let metric = Metric::named("m", Value::Int(1));
    assert_eq!(hear(&mut reader, "spBv1.0/g/NBIRTH/n", 0, births(&["m"]), 0), READ);
    let most = vec![metric.clone(); SAMPLES_MAX];
    assert_eq!(hear(&mut reader, "spBv1.0/g/NDATA/n", 1, most, 0), READ);
    let more = vec![metric; SAMPLES_MAX + 1];
    let payload = Payload::new(2, more).encode();
    let found = take(&mut reader, &message("spBv1.0/g/NDATA/n", &payload), 0);
    assert_eq!(found, (Reading::Refused(Refused::TooManySamples), vec![]));
    assert_eq!(hear(&mut reader, "spBv1.0/g/NDATA/n", 3, vec![], 0), READ);
}

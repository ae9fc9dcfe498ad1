//! Payloads and what is read of them.

mod bounds;
mod json;
mod sparkplug;
mod state;
pub(super) mod tahu;
mod telemetry;

use super::sparkplug::{Limits, Sparkplug};
use super::*;

/// When the messages of the tests are received, in Unix milliseconds.
pub(super) const RECEIVED_MS: u64 = 1_790_000_000_000;

pub(super) fn names(names: &[&str]) -> Vec<Box<str>> {
    names.iter().map(|name| (*name).into()).collect()
}

pub(super) fn reader(metrics: &[&str]) -> Reader {
    Reader::new(&names(metrics))
}

fn limited(metrics: &[&str], limits: Limits) -> Reader {
    Reader { sparkplug: Sparkplug::with_limits(&names(metrics), limits), ..reader(metrics) }
}

pub(super) fn message<'a>(topic: &'a str, payload: &'a [u8]) -> Message<'a> {
    let times = Times { received_ms: RECEIVED_MS, stamped_ms: None };
    Message { device: "press-7", topic, content_type: None, payload, times }
}

/// The samples of a message as metric, value and time, and what it turned out to be.
fn take(reader: &mut Reader, message: &Message<'_>, now_ms: u64) -> (Reading, Vec<(u16, f64, u64)>) {
    let mut samples = vec![Sample { metric: 9, value: 9.0, at_ms: 9 }];
    let reading = reader.take(message, now_ms, &mut samples);
    (reading, samples.iter().map(|sample| (sample.metric, sample.value, sample.at_ms)).collect())
}

/// As [`take`], with metric and value.
fn values(reader: &mut Reader, topic: &str, payload: &[u8]) -> (Reading, Vec<(u16, f64)>) {
    let (reading, samples) = take(reader, &message(topic, payload), RECEIVED_MS);
    (reading, samples.into_iter().map(|(metric, value, _)| (metric, value)).collect())
}

/// How many records were noted in all.
fn noted(counts: &Counts) -> u64 {
    let read: u64 = Form::ALL.iter().map(|form| counts.read(*form)).sum();
    let untouched: u64 = Untouched::ALL.iter().map(|why| counts.untouched(*why)).sum();
    let refused: u64 = Refused::ALL.iter().map(|why| counts.refused(*why)).sum();
    read + untouched + refused
}

#[test]
fn every_record_is_counted_once_and_every_name_is_its_own() {
    let mut reader = reader(&["a", "temperature"]);
    let payloads: [(&str, Option<&str>, &[u8]); 7] = [
        ("t", None, b"{\"a\":1}"),
        ("t", None, b"{\"a\":"),
        ("t", None, b"\xff"),
        ("t", Some("text/plain"), b"1"),
        ("t", Some("application/protobuf"), b""),
        ("spBv1.0/g/NDATA/n", None, b"\x18\x01"),
        ("spBv1.0/g/NCMD/n", None, b""),
    ];
    for (place, (topic, content_type, payload)) in (1..).zip(payloads) {
        take(&mut reader, &Message { content_type, ..message(topic, payload) }, 0);
        assert_eq!(noted(reader.counts()), place);
    }
    assert_eq!(reader.counts().samples, 1);
    let mut names: Vec<&str> = Untouched::ALL.iter().map(|why| why.name()).collect();
    names.extend(Refused::ALL.iter().map(|why| why.name()));
    names.extend(LeftOut::ALL.iter().map(|why| why.name()));
    names.extend(Form::ALL.iter().map(|form| form.name()));
    let count = names.len();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), count);
}

#[test]
fn what_no_rule_wants_is_not_looked_into() {
    let mut reader = reader(&[]);
    let untouched = Reading::Untouched(Untouched::NothingWanted);
    assert_eq!(values(&mut reader, "t", b"{\"a\":"), (untouched, vec![]));
    let mut pressure = self::reader(&["pressure"]);
    assert_eq!(values(&mut pressure, "t", b"{\"pressure\":2}").1, [(0, 2.0)]);
    let content_type = Some("application/protobuf;messageType=penstock.v1.Reading");
    let broken = Message { content_type, ..message("t", b"\x08") };
    assert_eq!(take(&mut pressure, &broken, 0).0, Reading::Refused(Refused::Protobuf));
    assert_eq!(take(&mut self::reader(&["a"]), &broken, 0).0, untouched);
}

#[test]
fn a_record_is_read_as_it_was_stored() {
    let properties = crate::outbox::Properties {
        content_type: Some("application/vnd.acme+json"),
        device_time_ms: Some(RECEIVED_MS - 7),
        ..crate::outbox::Properties::default()
    };
    let record = Record {
        device: "press-7",
        topic: "devices/press-7/telemetry",
        received_ms: RECEIVED_MS,
        qos: 1,
        retain: false,
        clock_synced: true,
        properties,
        payload: b"{\"a\":1.5}",
    };
    let (mut reader, mut samples) = (reader(&["a"]), Vec::new());
    assert_eq!(reader.read(&record, 0, &mut samples), Reading::Read(Form::Json));
    assert_eq!(samples, [Sample { metric: 0, value: 1.5, at_ms: RECEIVED_MS - 7 }]);
}

#[test]
fn other_metrics_can_be_wanted_later() {
    let metrics = names(&["b", "a"]);
    let mut reader = Reader::new(&metrics).with_time_path(Some("t"), &metrics);
    let payload = br#"{"a":1,"b":2,"t":1789999999}"#;
    let told = RECEIVED_MS - 1_000;
    assert_eq!(take(&mut reader, &message("t", payload), 0).1, [(1, 1.0, told), (0, 2.0, told)]);
    reader.set_metrics(&names(&["a"]));
    assert_eq!(take(&mut reader, &message("t", payload), 0).1, [(0, 1.0, told)]);
    assert_eq!(reader.counts().read(Form::Json), 2);
}

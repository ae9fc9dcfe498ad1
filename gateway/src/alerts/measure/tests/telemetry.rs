//! Penstock's telemetry message, compared with what prost makes of it.

use penstock_proto::wire::{Message as _, v1};
use proptest::prelude::*;

use super::*;

const CONTENT_TYPE: &str = "application/x-protobuf; messageType=\"penstock.v1.Reading\"";
const METRICS: [&str; 4] = ["vibration", "humidity", "temperature", "pressure"];

fn read(payload: &[u8]) -> (Reading, Vec<(u16, f64, u64)>, Counts) {
    let mut reader = reader(&METRICS);
    let message = Message { content_type: Some(CONTENT_TYPE), ..message("t", payload) };
    let (reading, samples) = take(&mut reader, &message, 0);
    (reading, samples, reader.counts().clone())
}

#[test]
fn the_measurements_of_a_reading_are_read() {
    let reading = v1::Reading {
        device: "press-7".to_owned(),
        reading: 41,
        taken_ms: RECEIVED_MS - 3,
        temperature: 21.5,
        pressure: 101.25,
        vibration: -0.5,
        pad: "x".to_owned(),
    };
    let (form, samples, _) = read(&reading.encode_to_vec());
    assert_eq!(form, Reading::Read(Form::Telemetry));
    let at_ms = RECEIVED_MS - 3;
    assert_eq!(samples, [(2, 21.5, at_ms), (3, 101.25, at_ms), (0, -0.5, at_ms)]);
}

#[test]
fn a_field_that_is_not_there_is_zero_and_without_a_time() {
    let reading = v1::Reading { device: "d".to_owned(), ..v1::Reading::default() };
    let (_, samples, counts) = read(&reading.encode_to_vec());
    assert_eq!(samples, [(2, 0.0, RECEIVED_MS), (3, 0.0, RECEIVED_MS), (0, 0.0, RECEIVED_MS)]);
    assert_eq!(counts.times_wrong, 0);
}

#[test]
fn what_is_not_finite_is_left_out_and_a_false_time_counted() {
    let reading = v1::Reading {
        temperature: f64::NAN,
        pressure: f64::NEG_INFINITY,
        vibration: 1.0,
        taken_ms: 5,
        ..v1::Reading::default()
    };
    let (_, samples, counts) = read(&reading.encode_to_vec());
    assert_eq!(samples, [(0, 1.0, RECEIVED_MS)]);
    assert_eq!((counts.left_out(LeftOut::NotFinite), counts.times_wrong), (2, 1));
}

#[test]
fn what_is_no_reading_is_refused() {
    for payload in
        [b"{\"temperature\":1}".as_slice(), b"\x0a\x05pres", b"\x22\x01a", b"\x0a\x01\xff", b"\x18"]
    {
        let (form, samples, counts) = read(payload);
        assert_eq!((form, samples), (Reading::Refused(Refused::Protobuf), vec![]), "{payload:?}");
        assert_eq!(counts.refused(Refused::Protobuf), 1);
    }
    assert_eq!(read(b"").0, Reading::Refused(Refused::Empty));
}

fn reading() -> impl Strategy<Value = v1::Reading> {
    let text = "[a-zé]{0,8}";
    let number = || prop_oneof![any::<f64>(), Just(0.0), -100.0..100.0];
    (
        text,
        any::<u64>(),
        prop_oneof![any::<u64>(), Just(0), Just(RECEIVED_MS)],
        number(),
        number(),
        number(),
        text,
    )
        .prop_map(|(device, reading, taken_ms, temperature, pressure, vibration, pad)| v1::Reading {
            device,
            reading,
            taken_ms,
            temperature,
            pressure,
            vibration,
            pad,
        })
}

/// Whatever prost takes is taken, with the same numbers; what it refuses is refused.
fn agrees_with_prost(bytes: &[u8]) {
    let (form, samples, counts) = read(bytes);
    if bytes.is_empty() {
        assert_eq!(form, Reading::Refused(Refused::Empty));
        return;
    }
    let Ok(reading) = v1::Reading::decode(bytes) else {
        assert_eq!((form, samples), (Reading::Refused(Refused::Protobuf), vec![]));
        return;
    };
    assert_eq!(form, Reading::Read(Form::Telemetry));
    let known = [(2, reading.temperature), (3, reading.pressure), (0, reading.vibration)];
    let finite: Vec<_> = known.into_iter().filter(|(_, value)| value.is_finite()).collect();
    let found: Vec<_> = samples.iter().map(|(metric, value, _)| (*metric, *value)).collect();
    assert_eq!(found, finite);
    assert_eq!(counts.left_out(LeftOut::NotFinite), 3 - finite.len() as u64);
    let can_be = (1_577_836_800_000..=RECEIVED_MS + 600_000).contains(&reading.taken_ms);
    let at_ms = if can_be { reading.taken_ms } else { RECEIVED_MS };
    assert!(samples.iter().all(|sample| sample.2 == at_ms));
    assert_eq!(counts.times_wrong, u64::from(!can_be && reading.taken_ms != 0));
}

proptest! {
    #[test]
    fn readings_are_read_as_prost_reads_them(reading in reading()) {
        agrees_with_prost(&reading.encode_to_vec());
    }

    #[test]
    fn damaged_readings_are_read_as_prost_reads_them(
        reading in reading(),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        more in prop::collection::vec(any::<u8>(), 0..12),
        cut: prop::sample::Index,
    ) {
        let mut bytes = [reading.encode_to_vec(), more].concat();
        for (place, byte) in damage.into_iter().filter(|_| !bytes.is_empty()).collect::<Vec<_>>() {
            let place = place.index(bytes.len());
            bytes[place] = byte;
        }
        agrees_with_prost(&bytes);
        if !bytes.is_empty() {
            agrees_with_prost(&bytes[..cut.index(bytes.len())]);
        }
    }
}

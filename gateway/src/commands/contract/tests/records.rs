use std::collections::BTreeMap;

use proptest::prelude::*;

use super::{ENQUEUED_MS, records};
use crate::commands::contract::{
    Answer, Completion, Ending, Identity, Limits, Outcome, Phase, Record, Records, record_key,
};
use crate::commands::message::Disposition;
use crate::outbox::StateOps;

const DAY_MS: u64 = 24 * 60 * 60 * 1000;
const LIMITS: Limits = Limits { kept_ms: 30 * DAY_MS, count_max: 100_000 };

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn records_are_the_documented_ones() {
    let format = include_str!("../../../../../docs/formats/command-record-v1.md");
    let plain: String = format.split_whitespace().collect();
    for record in records() {
        let bytes = hex(&record.encode());
        assert!(plain.contains(&bytes), "{bytes} of {record:?} is not in the document");
    }
    assert!(plain.contains(&hex(&record_key("press-7"))));
    let states = records();
    let states: Vec<_> = states.iter().filter_map(Record::session_state).collect();
    assert_eq!(states.len(), 4, "what is done");
    for state in states {
        let state = String::from_utf8(state).expect("JSON");
        assert!(format.contains(&state), "{state} is not in the document");
    }
}

#[test]
fn records_round_trip() {
    for record in records() {
        assert_eq!(Record::decode(&record.encode()), Some(record.clone()));
        let state = record.session_state();
        assert_eq!(state.is_some(), matches!(record.phase, Phase::Done(_)));
        if let Some(state) = state {
            assert_eq!(Record::from_session_state(&state), Some(Record { ending: None, ..record }));
        }
    }
}

#[test]
fn what_is_no_record_is_refused() {
    for record in records() {
        let bytes = record.encode();
        for len in 0..bytes.len() {
            assert_eq!(Record::decode(&bytes[..len]), None, "cut at {len}");
        }
        assert_eq!(Record::decode(&[&bytes[..], &[0]].concat()), None, "something behind it");
        assert_eq!(Record::decode(&[&[2], &bytes[1..]].concat()), None, "another version");
        assert_eq!(Record::decode(&[&bytes[..1], &[9], &bytes[2..]].concat()), None, "another phase");
        assert_eq!(Record::decode(&[&bytes[..2], &[0x80], &bytes[3..]].concat()), None, "another flag");
    }
    for state in ["", "{}", "null", r#"{"penstock":2}"#, r#"{"step":7}"#] {
        assert_eq!(Record::from_session_state(state.as_bytes()), None, "{state}");
    }
}

fn any_record() -> impl Strategy<Value = Record> {
    let statuses = vec!["succeeded", "failed", "rejected"];
    let answer = (prop::sample::select(statuses), any::<Option<i64>>(), "\\PC{0,20}").prop_map(
        |(status, code, detail)| {
            let payload = serde_json::json!({ "status": status, "code": code, "detail": detail });
            Answer::read(payload.to_string().as_bytes()).expect("an answer")
        },
    );
    let phase = prop_oneof![
        Just(Phase::Started),
        any::<u64>().prop_map(|deadline_ms| Phase::Delivered { deadline_ms }),
        answer.prop_map(Phase::Answered),
        Just(Phase::Done(Disposition::Complete)),
        ("\\PC{0,20}", "\\PC{0,20}").prop_map(|(reason, description)| {
            Phase::Done(Disposition::DeadLetter { reason, description })
        }),
    ];
    let completion = prop::bool::ANY
        .prop_map(|answered| if answered { Completion::Answered } else { Completion::Delivered });
    let identity = ("\\PC{0,30}", any::<i64>(), any::<u64>(), prop::option::of("\\PC{1,30}")).prop_map(
        |(entity, sequence, enqueued_ms, id)| Identity {
            entity: entity.into(),
            sequence,
            enqueued_ms,
            message_id: id.map(Into::into),
        },
    );
    (identity, completion, phase, any::<u64>(), prop::option::of(any_ending())).prop_map(
        |(identity, completion, phase, at_ms, ending)| {
            let ending = ending.filter(|_| matches!(phase, Phase::Done(_))).map(Box::new);
            Record { identity, completion, phase, at_ms, ending }
        },
    )
}

fn any_ending() -> impl Strategy<Value = Ending> {
    let outcome = prop_oneof![
        Just(Outcome::delivered()),
        Just(Outcome::no_answer()),
        Just(Outcome::expired()),
        any::<u8>().prop_map(Outcome::refused),
        "\\PC{0,20}".prop_map(|why| Outcome::malformed(&why)),
        any::<(u16, u16)>().prop_map(|(bytes, most)| Outcome::too_large(bytes.into(), most.into())),
        any::<(Option<i64>, Option<u32>)>().prop_map(|(code, detail_bytes)| Outcome {
            code,
            detail_bytes,
            detail: detail_bytes.is_none().then(|| "[1]".into()),
            ..Outcome::delivered()
        }),
    ];
    (outcome, any::<bool>()).prop_map(|(outcome, redelivered)| Ending { outcome, redelivered })
}

proptest! {
    #[test]
    fn any_record_round_trips(record in any_record()) {
        prop_assert_eq!(Record::decode(&record.encode()), Some(record.clone()));
        if let Some(state) = record.session_state() {
            prop_assert_eq!(Record::from_session_state(&state), Some(Record { ending: None, ..record }));
        }
    }

    #[test]
    fn records_that_differ_are_stored_differently(one in any_record(), other in any_record()) {
        prop_assert_eq!(one.encode() == other.encode(), one == other);
    }
}

fn at(at_ms: u64) -> Record {
    Record { at_ms, ..records().swap_remove(0) }
}

/// What is deleted and what is written, by device.
fn changes(ops: &StateOps) -> BTreeMap<String, bool> {
    let change = |(key, value): (Vec<u8>, Option<Vec<u8>>)| {
        (String::from_utf8(key[1..].to_vec()).unwrap(), value.is_some())
    };
    ops.changes().into_iter().map(change).collect()
}

#[test]
fn old_records_go_but_for_those_in_use() {
    let mut records = Records::new(LIMITS);
    let now_ms = ENQUEUED_MS + 40 * DAY_MS;
    records.set("old", &at(ENQUEUED_MS));
    records.set("old-and-busy", &at(ENQUEUED_MS));
    records.set("old-and-doubted", &at(ENQUEUED_MS));
    records.doubt("old-and-doubted");
    records.set("young", &at(now_ms - DAY_MS));
    let mut ops = StateOps::default();
    records.prune(86_400_000, |_| false, &mut ops);
    assert!(ops.is_empty(), "a clock that was never set tells no age");
    records.prune(now_ms, |device| device == "old-and-busy", &mut ops);
    assert_eq!(changes(&ops), BTreeMap::from([("old".to_owned(), false)]));
    assert_eq!((records.len(), records.get("old")), (3, None));
}

#[test]
fn a_record_from_before_the_clock_was_set_counts_from_now_on() {
    let mut records = Records::new(LIMITS);
    records.set("early", &at(5_000));
    let mut ops = StateOps::default();
    records.prune(ENQUEUED_MS, |_| false, &mut ops);
    assert_eq!(changes(&ops), BTreeMap::from([("early".to_owned(), true)]));
    assert_eq!(records.get("early"), Some(at(ENQUEUED_MS)));
}

#[test]
fn beyond_the_limit_the_oldest_go_and_every_record_is_looked_at() {
    let mut records = Records::new(Limits { kept_ms: 30 * DAY_MS, count_max: 3000 });
    for n in 0..5000_u64 {
        records.set(&format!("device-{n:05}"), &at(ENQUEUED_MS + n));
    }
    let mut ops = StateOps::default();
    for _ in 0..50 {
        records.prune(ENQUEUED_MS + DAY_MS, |_| false, &mut ops);
    }
    assert_eq!((records.len(), ops.len()), (3000, 2000));
    for n in 0..5000_u64 {
        records.set(&format!("device-{n:05}"), &at(ENQUEUED_MS + n));
    }
    for _ in 0..8 {
        records.prune(ENQUEUED_MS + 40 * DAY_MS, |_| false, &mut ops);
    }
    assert_eq!(records.len(), 0, "a few looks reach all of them");
}

#[test]
fn a_doubt_ends_when_the_store_was_asked() {
    let mut records = Records::new(LIMITS);
    records.set("d", &at(ENQUEUED_MS));
    records.doubt("d");
    assert!(records.is_in_doubt("d") && records.doubts() == [Box::from("d")]);
    let found = Record { phase: Phase::Done(Disposition::Complete), ..at(ENQUEUED_MS) };
    records.resolve("d", Some(&found));
    assert!(!records.is_in_doubt("d") && records.get("d") == Some(found));
    records.resolve("d", None);
    assert_eq!(records.get("d"), None);
}

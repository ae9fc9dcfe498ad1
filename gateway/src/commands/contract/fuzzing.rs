//! What senders, devices, other replicas and the disk say about commands; see [`crate::fuzzing`].

use super::answer::{DETAIL_BYTES_MAX, PAYLOAD_BYTES_MAX};
use super::record::device_of;
use super::{
    Answer, Command, Completion, Defaults, Letter, Record, StatusEvent, Voice, deadline, record_key,
};
use crate::commands::message::{Body, LockToken, Received, Value};
use crate::fuzzing::Decoder;
use crate::outbox::Encoded;

/// The decoders of this stage.
pub(crate) const DECODERS: &[Decoder] = &[
    Decoder { name: "command_record", decode: record, weight: 12 },
    Decoder { name: "command_session_state", decode: session_state, weight: 8 },
    Decoder { name: "command_answer", decode: answer, weight: 12 },
    Decoder { name: "command_deadline", decode: deadline_text, weight: 8 },
    Decoder { name: "command_message", decode: message, weight: 16 },
    Decoder {
        name: "command_dead_letter_mark",
        decode: crate::commands::watcher::decode_for_fuzzing,
        weight: 8,
    },
];

/// A stored record, and a key: what was read is written, and read as the same.
fn record(bytes: &[u8]) {
    if let Some(device) = device_of(bytes) {
        assert_eq!(record_key(device), bytes);
    }
    let Some(record) = Record::decode(bytes) else { return };
    assert_eq!(Record::decode(&record.encode()).as_ref(), Some(&record));
    if let Some(state) = record.session_state() {
        let record = Record { ending: None, ..record };
        assert_eq!(Record::from_session_state(&state), Some(record));
    }
}

/// The state of a session, which anybody who may receive from the queue can write.
fn session_state(bytes: &[u8]) {
    let Some(record) = Record::from_session_state(bytes) else { return };
    let written = record.session_state().expect("what a session says is done");
    assert_eq!(Record::from_session_state(&written).as_ref(), Some(&record));
    assert_eq!(Record::decode(&record.encode()), Some(record));
}

/// The payload of an answer: the detail that is kept is JSON within its bound.
fn answer(bytes: &[u8]) {
    let Ok(answer) = Answer::read(bytes) else { return };
    assert!(bytes.len() <= PAYLOAD_BYTES_MAX);
    if let Some(detail) = &answer.detail {
        assert!(detail.len() <= DETAIL_BYTES_MAX && answer.detail_bytes.is_none());
        let value: serde_json::Value = serde_json::from_str(detail).expect("JSON");
        assert!(!value.is_null());
    }
    // Written down as an answer, it is the same answer.
    let outcome = answer.outcome();
    let code = outcome.code.map_or("null".to_owned(), |code| code.to_string());
    let detail = outcome.detail.as_deref().unwrap_or("null");
    let status = outcome.status.word();
    let again = format!(r#"{{"status":"{status}","code":{code},"detail":{detail}}}"#);
    let again = Answer::read(again.as_bytes()).expect("an answer");
    assert_eq!(Answer { detail_bytes: answer.detail_bytes, ..again }, answer);
}

/// A deadline as text: what is read is a time that can be written.
fn deadline_text(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Some(ms) = deadline::parse(text) {
        assert_eq!(deadline::parse(&crate::outbox::rfc3339(ms)), Some(ms), "{text}");
    }
}

/// The parts of a message in a line each, the properties behind them as `name=value` with a letter for the type.
fn message(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let received = received(&text);
    // The same message in a dead-letter queue.
    let letter = Letter::read(&received, "commands", None);
    let (about, outcome) = (&letter.about, letter.outcome());
    check_event(&StatusEvent { about, outcome: &outcome, is_final: true, redelivered: false, now_ms: 0 });
    let defaults = Defaults { completion: Completion::Answered, tenant: None };
    let command = match Command::read(&received, "commands", &defaults) {
        Ok(command) => command,
        Err(poison) => {
            assert!(!poison.why.is_empty());
            check_event(&StatusEvent {
                about: &poison.about,
                outcome: &super::Outcome::malformed(&poison.why),
                is_final: true,
                redelivered: false,
                now_ms: 1_790_000_000_000,
            });
            return;
        }
    };
    for redelivered in [false, true] {
        command.message(redelivered, 1_790_000_000_000).with(|message| {
            assert!(!message.id.is_empty() && !message.id.contains(['/', '+', '#', '\0']));
            assert!(message.name.is_none_or(|name| !name.contains('\0')));
            let marked = message.user.iter().any(|(name, _)| *name == "redelivered");
            assert_eq!(marked, redelivered, "only the gateway says so");
        });
    }
    let outcome = super::Outcome::delivered();
    let about = &command.about;
    check_event(&StatusEvent { about, outcome: &outcome, is_final: false, redelivered: true, now_ms: 0 });
}

fn check_event(event: &StatusEvent<'_>) {
    let voice = Voice { gateway: "site-7".into(), type_prefix: "io.penstock".into() };
    let mut entries = Encoded::default();
    event.push(&voice, &mut entries);
    assert_eq!(entries.count(), 1);
}

fn received(text: &str) -> Received {
    let mut lines = text.split('\n');
    let mut line = || lines.next().filter(|line| !line.is_empty()).map(str::to_owned);
    let mut received = Received {
        lock: LockToken([0; 16]),
        sequence: 42,
        enqueued_ms: 1_790_000_000_000,
        delivery_count: 0,
        message_id: line(),
        session_id: line(),
        subject: line(),
        content_type: line(),
        correlation_id: line(),
        reply_to: line(),
        reply_to_session_id: None,
        expires_ms: None,
        properties: Vec::new(),
        body: line().map_or(Body::Other("nothing"), Body::Text),
    };
    received.properties = lines.filter_map(property).collect();
    received
}

fn property(line: &str) -> Option<(String, Value)> {
    let (name, value) = line.split_once('=')?;
    let mut rest = value.chars();
    let value = match rest.next()? {
        'i' => Value::Integer(rest.as_str().parse().ok()?),
        'd' => Value::Double(rest.as_str().parse().ok()?),
        't' => Value::Time(rest.as_str().parse().ok()?),
        'b' => Value::Binary(rest.as_str().as_bytes().to_vec()),
        '?' => Value::Bool(rest.as_str() == "true"),
        '!' => Value::Other("map"),
        _ => Value::Text(rest.as_str().to_owned()),
    };
    Some((name.to_owned(), value))
}

/// What cases of a decoder are made of.
#[cfg(test)]
pub(crate) fn fuzzing_seeds(name: &str) -> Vec<Vec<u8>> {
    let texts: &[&str] = match name {
        "command_record" => return super::tests::records().iter().map(Record::encode).collect(),
        "command_session_state" => {
            let mut states: Vec<_> =
                super::tests::records().iter().filter_map(Record::session_state).collect();
            states.push(b"{\"penstock\":2}".to_vec());
            return states;
        }
        "command_answer" => &[
            r#"{"status":"succeeded","code":0,"detail":{"volts":[12.1,12.2]}}"#,
            r#"{"status":"failed","code":-7,"detail":"no power"}"#,
            r#"{"status":"rejected"}"#,
            r#"{"status":"done","code":1.5,"detail":null}"#,
            "[[[[",
        ],
        "command_dead_letter_mark" => {
            return vec![b"\x11\x08commands\x02\x01\0\0\0\0\0\0\0\x6c\x50\xc4\xa0\x01\0\0\x01\x02\x03\x04\x05\x06\x07\x08".to_vec()];
        }
        "command_deadline" => &[
            "2026-11-21T14:30:00Z",
            "2026-11-21T15:30:00.123456789+01:00",
            "9999-12-31T23:59:59.999Z",
            "0000-01-01T00:00:00-23:59",
            "2026-02-30T00:00:00Z",
        ],
        "command_message" => &[
            "c-1\npress-7\nopen\napplication/json\nr-1\nreplies\n{\"valve\":3}\npenstock-completion=xanswered\npenstock-deadline=i30\nunit=xC\nn=i7\nd=d1.5\nraw=bab\non=?true\nat=t5",
            "a/b+#\ndev ice\n\n\n\n\nbody\ntraceparent=x00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01\ntracestate=xa=b\nredelivered=xtrue",
            "\npress-7\n\n\n\n\nx\npenstock-deadline=x2026-11-21T14:30:00Z\npenstock-origin=xsite-7/00c0ffee12345678/3/2/1041\nDiagnostic-Id=x00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "c\n\n\n\n\n\nx\nPenstock-Deadline=x\nm=!",
            "c\npress-7\n\n\n\n\nx\nDeadLetterReason=xTTLExpiredException\nDeadLetterErrorDescription=xtoo late",
        ],
        _ => &[],
    };
    texts.iter().map(|text| text.as_bytes().to_vec()).collect()
}

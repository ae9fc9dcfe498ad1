//! The contract as others see it: messages, events, records.

mod events;
mod messages;
mod records;
mod replies;

use super::{Answer, Completion, Ending, Identity, Outcome, Phase, Record};
use crate::commands::message::{Body, Disposition, LockToken, Received, Value};

pub(super) const ENQUEUED_MS: u64 = 1_790_000_000_000;

/// A message with nothing but what it needs.
pub(super) fn received() -> Received {
    Received {
        lock: LockToken([7; 16]),
        sequence: 42,
        enqueued_ms: ENQUEUED_MS,
        delivery_count: 0,
        message_id: Some("c-1".to_owned()),
        session_id: Some("press-7".to_owned()),
        subject: None,
        content_type: None,
        correlation_id: None,
        reply_to: None,
        reply_to_session_id: None,
        expires_ms: None,
        properties: Vec::new(),
        body: Body::Data(b"{}".to_vec()),
    }
}

pub(super) fn property(name: &str, value: &str) -> (String, Value) {
    (name.to_owned(), Value::Text(value.to_owned()))
}

pub(super) fn answer(payload: &str) -> Answer {
    Answer::read(payload.as_bytes()).expect(payload)
}

/// A record of every kind.
pub(super) fn records() -> Vec<Record> {
    let identity = Identity {
        entity: "commands".into(),
        sequence: 258,
        enqueued_ms: ENQUEUED_MS,
        message_id: Some("c-1".into()),
    };
    let dead_letter =
        Disposition::DeadLetter { reason: "penstock-refused".to_owned(), description: "no".to_owned() };
    let phases = [
        Phase::Started,
        Phase::Delivered { deadline_ms: ENQUEUED_MS + 60_000 },
        Phase::Answered(answer(r#"{"status":"failed","code":-2,"detail":{"a":1}}"#)),
        Phase::Answered(answer(r#"{"status":"succeeded"}"#)),
        Phase::Done(Disposition::Complete),
        Phase::Done(dead_letter),
    ];
    let mut records: Vec<_> = phases
        .into_iter()
        .map(|phase| Record {
            identity: identity.clone(),
            completion: Completion::Answered,
            phase,
            at_ms: ENQUEUED_MS + 5,
            ending: None,
        })
        .collect();
    records.push(Record {
        identity: Identity { sequence: -1, message_id: None, ..identity },
        completion: Completion::Delivered,
        phase: Phase::Started,
        at_ms: 0,
        ending: None,
    });
    let answered = answer(r#"{"status":"failed","code":-2,"detail":{"a":1}}"#).outcome();
    let refused = Outcome::refused(0x87);
    for (outcome, redelivered) in [(answered, false), (refused, true)] {
        let phase = Phase::Done(outcome.disposition());
        let ending = Some(Box::new(Ending { outcome, redelivered }));
        records.push(Record { phase, ending, ..records[0].clone() });
    }
    records
}

//! Single rows of the table of dispositions, and single lives.

use std::sync::Arc;

use penstock_proto::Lane;
use serde_json::Value as Json;

use super::messages::{DEVICE, command, received, timing, voice};
use crate::commands::contract::{Command, Completion, Defaults, Phase, Record};
use crate::commands::execution::{Arrival, Batch, Event, Execution, Heard, Heeding, Now, Step};
use crate::commands::message::{Body, Disposition, LockToken, Received, Value};
use crate::mqtt::NotDelivered;
use crate::outbox::{Encoded, StateOps};

const NOW_MS: u64 = 1_790_000_000_000;
const LOCK: LockToken = LockToken([1; 16]);
const WAIT: Step = Step::Wait { until_ms: None };

/// An execution with everything that it told.
struct Life {
    execution: Execution,
    now_ms: u64,
    /// How far somebody set the wall clock.
    set_ms: i64,
    /// Status, whether final, and reason of each event.
    told: Vec<(String, bool, Option<String>)>,
}

impl Life {
    fn new() -> Self {
        Self { execution: Execution::new(timing()), now_ms: NOW_MS, set_ms: 0, told: Vec::new() }
    }

    /// With a message that came over the link.
    fn of(received: &Received, known: Option<Record>) -> Self {
        let mut life = Self::new();
        life.receive(received, known);
        life
    }

    fn receive(&mut self, received: &Received, known: Option<Record>) {
        let defaults = Defaults { completion: Completion::Delivered, tenant: None };
        let message = Command::read(received, "commands", &defaults).map(Arc::new).map_err(Arc::from);
        self.on(Event::Received { arrival: Arrival { lock: LOCK, message }, known, in_doubt: false });
    }

    fn on(&mut self, event: Event) {
        self.execution.on(event, self.now());
    }

    fn step(&mut self) -> Step {
        self.execution.step(self.now())
    }

    fn now(&self) -> Now {
        Now { unix_ms: self.now_ms.saturating_add_signed(self.set_ms), steady_ms: self.now_ms }
    }

    /// For how long it is to be waited.
    fn waits_ms(&mut self) -> u64 {
        let now = self.now();
        let Step::Wait { until_ms: Some(until_ms) } = self.step() else {
            panic!("there is nothing to wait for")
        };
        until_ms - now.unix_ms
    }

    /// A write that becomes durable.
    fn commit(&mut self) -> Record {
        assert_eq!(self.step(), Step::Commit);
        let record = self.write();
        self.on(Event::Committed(true));
        record
    }

    fn write(&mut self) -> Record {
        let (mut entries, mut state) = (Encoded::default(), StateOps::default());
        let mut batch = Batch { voice: &voice(), entries: &mut entries, state: &mut state };
        assert!(self.execution.commit(&mut batch, self.now_ms));
        self.note(&entries, &state).expect("a record")
    }

    fn note(&mut self, entries: &Encoded, state: &StateOps) -> Option<Record> {
        for (_, payload) in entries.payloads(Lane::Status) {
            let event: Json = serde_json::from_slice(&payload).expect("JSON");
            let data = &event["data"];
            let reason = data["reason"].as_str().map(str::to_owned);
            let status = data["status"].as_str().expect("a status").to_owned();
            self.told.push((status, data["final"].as_bool().expect("final"), reason));
        }
        let change = state.changes().pop()?;
        Record::decode(&change.1.expect("nothing is deleted"))
    }

    fn answer(&mut self, payload: &str, known: Option<&Record>) -> (Heard, Option<Record>) {
        let (mut entries, mut state) = (Encoded::default(), StateOps::default());
        let mut batch = Batch { voice: &voice(), entries: &mut entries, state: &mut state };
        let heeding =
            Heeding { device: DEVICE, id: "c-1", payload: payload.as_bytes(), known, in_doubt: false };
        let heard = self.execution.answer(&heeding, &mut batch, self.now_ms);
        (heard, self.note(&entries, &state))
    }

    /// Up to where the device's session has it.
    fn publish(&mut self) {
        self.commit();
        assert!(matches!(self.step(), Step::Publish { redelivered: false, .. }));
    }

    /// Settles what has come to its end.
    fn check_end(&mut self, status: &str, dead_letter: Option<&str>, reason: Option<&str>) {
        let record = self.commit();
        self.check_settled(&record, dead_letter);
        let expected = (status.to_owned(), true, reason.map(str::to_owned));
        assert_eq!(self.told.last(), Some(&expected));
    }

    fn check_settled(&mut self, record: &Record, dead_letter: Option<&str>) {
        let Step::Settle { lock, disposition, record: settled, .. } = self.step() else {
            panic!("{:?}", self.execution)
        };
        assert_eq!((lock, &settled), (LOCK, record));
        assert_eq!(record.phase, Phase::Done(disposition.clone()));
        let found = match disposition {
            Disposition::Complete => None,
            Disposition::DeadLetter { reason, .. } => Some(reason),
            Disposition::Abandon => panic!("nothing ends so"),
        };
        assert_eq!(found.as_deref(), dead_letter);
        assert_eq!(self.step(), WAIT, "it is said once");
        self.on(Event::Settled);
        assert_eq!(self.step(), Step::Receive);
    }
}

fn delivered() -> Received {
    received(1, Completion::Delivered)
}

fn answered() -> Received {
    received(1, Completion::Answered)
}

#[test]
fn an_acknowledged_command_is_completed() {
    let mut life = Life::of(&delivered(), None);
    life.publish();
    life.on(Event::Acknowledged);
    life.check_end("delivered", None, None);
    assert_eq!(life.told.len(), 1);
}

#[test]
fn an_answered_command_is_told_twice_and_completed() {
    for (status, payload) in [
        ("succeeded", r#"{"status":"succeeded"}"#),
        ("failed", r#"{"status":"failed"}"#),
        ("rejected", r#"{"status":"rejected"}"#),
    ] {
        let mut life = Life::of(&answered(), None);
        life.publish();
        life.on(Event::Acknowledged);
        let record = life.commit();
        assert_eq!(record.phase, Phase::Delivered { deadline_ms: NOW_MS + 60_000 });
        assert_eq!(life.step(), Step::Wait { until_ms: Some(NOW_MS + 60_000) });
        assert_eq!(life.answer("what?", None), (Heard::Malformed, None));
        let (heard, record) = life.answer(payload, None);
        assert_eq!((heard, life.step()), (Heard::Written, WAIT));
        life.on(Event::AnswerCommitted(true));
        life.check_settled(&record.expect("a record"), None);
        let told: Vec<_> =
            life.told.iter().map(|(status, is_final, _)| (status.as_str(), *is_final)).collect();
        assert_eq!(told, [("delivered", false), (status, true)]);
        assert_eq!(life.answer(payload, None), (Heard::Unknown, None));
    }
}

#[test]
fn without_an_answer_it_failed_at_the_deadline() {
    let mut life = Life::of(&answered(), None);
    life.publish();
    life.on(Event::Acknowledged);
    life.commit();
    life.now_ms += 60_000;
    life.check_end("failed", None, Some("no-answer"));
}

#[test]
fn the_senders_deadline_holds_for_the_answer() {
    let mut message = answered();
    message.properties.push(("penstock-deadline".to_owned(), Value::Integer(5)));
    let mut life = Life::of(&message, None);
    life.publish();
    life.on(Event::Acknowledged);
    assert_eq!(life.commit().phase, Phase::Delivered { deadline_ms: NOW_MS + 4000 });
}

#[test]
fn an_answer_may_come_before_the_acknowledgement() {
    let mut life = Life::of(&answered(), None);
    life.publish();
    let (heard, record) = life.answer(r#"{"status":"succeeded"}"#, None);
    assert_eq!(heard, Heard::Written);
    life.on(Event::Acknowledged);
    life.on(Event::AnswerCommitted(true));
    life.check_settled(&record.expect("a record"), None);
    assert_eq!(life.told.len(), 1, "nobody needs to know that it was delivered");
}

#[test]
fn an_answer_nobody_asked_for_is_the_devices_own_affair() {
    let mut life = Life::of(&delivered(), None);
    life.publish();
    assert_eq!(life.answer(r#"{"status":"succeeded"}"#, None), (Heard::Unknown, None));
    // Nor is one an answer before the device can know the command.
    let mut life = Life::of(&answered(), None);
    assert_eq!(life.answer(r#"{"status":"succeeded"}"#, None), (Heard::Unknown, None));
}

#[test]
fn poison_is_dead_lettered_and_never_published() {
    let mut message = delivered();
    message.body = Body::Other("a list");
    Life::of(&message, None).check_end("rejected", Some("penstock-malformed"), Some("malformed"));
}

#[test]
fn what_is_too_late_is_dead_lettered_and_never_published() {
    let mut message = delivered();
    message.expires_ms = Some(NOW_MS);
    Life::of(&message, None).check_end("expired", Some("penstock-expired"), Some("expired"));
    // While the record of the beginning is being written.
    message.expires_ms = Some(NOW_MS + 10);
    let mut life = Life::of(&message, None);
    life.write();
    life.now_ms += 10;
    assert_eq!(life.step(), WAIT);
    life.on(Event::Committed(true));
    life.check_end("expired", Some("penstock-expired"), Some("expired"));
    // In the queue of the session, and with the device silent.
    message.expires_ms = Some(NOW_MS + 1000);
    let mut life = Life::of(&message, None);
    life.publish();
    life.on(Event::ExpiredUnsent);
    life.check_end("expired", Some("penstock-expired"), Some("expired"));
    let mut life = Life::of(&message, None);
    life.publish();
    life.now_ms += 30_000;
    life.check_end("expired", Some("penstock-expired"), Some("expired"));
}

#[test]
fn a_refusal_for_good_is_dead_lettered() {
    for code in [0x80, 0x83, 0x87, 0x90, 0x99] {
        let mut life = Life::of(&delivered(), None);
        life.publish();
        life.on(Event::Refused(code));
        life.check_end("rejected", Some("penstock-refused"), Some("refused"));
    }
}

#[test]
fn what_is_too_large_is_dead_lettered() {
    let mut life = Life::of(&delivered(), None);
    life.publish();
    life.on(Event::NotDelivered(NotDelivered::TooLarge { bytes: 300, most: 256 }));
    life.check_end("rejected", Some("penstock-too-large"), Some("too-large"));
}

#[test]
fn what_the_device_does_not_take_now_is_given_back_after_a_pause() {
    for (count, pause_ms) in [(0, 1000), (1, 2000), (4, 16_000), (5, 30_000), (200, 30_000)] {
        for code in [0x91, 0x97] {
            let mut message = delivered();
            message.delivery_count = count;
            let mut life = Life::of(&message, None);
            life.commit();
            assert!(matches!(life.step(), Step::Publish { redelivered, .. } if redelivered == (count > 0)));
            life.on(Event::Refused(code));
            assert_eq!(life.step(), Step::Wait { until_ms: Some(NOW_MS + pause_ms) });
            life.now_ms += pause_ms;
            assert_eq!((life.step(), life.step()), (Step::Abandon { lock: LOCK }, WAIT));
            life.on(Event::Settled);
            assert_eq!((life.step(), life.told.len()), (Step::Receive, 0));
        }
    }
}

#[test]
fn a_silent_device_gets_its_command_again_but_a_late_acknowledgement_counts() {
    let mut life = Life::of(&delivered(), None);
    life.publish();
    assert_eq!(life.step(), Step::Wait { until_ms: Some(NOW_MS + 30_000) });
    life.now_ms += 30_000;
    assert_eq!(life.step(), Step::Wait { until_ms: Some(NOW_MS + 31_000) });
    life.on(Event::Acknowledged);
    life.check_end("delivered", None, None);
}

#[test]
fn a_wall_clock_that_is_set_changes_nothing_of_how_long_things_may_take() {
    for set_ms in [3_600_000, -3_600_000] {
        let mut life = Life::of(&delivered(), None);
        life.publish();
        life.set_ms = set_ms;
        assert_eq!(life.waits_ms(), 30_000);
        life.now_ms += 29_999;
        assert_eq!(life.waits_ms(), 1);
        life.now_ms += 1;
        assert_eq!(life.waits_ms(), 1000, "it is given back after a pause");
        life.set_ms = -set_ms;
        assert_eq!(life.waits_ms(), 1000);
        life.now_ms += 1000;
        assert_eq!(life.step(), Step::Abandon { lock: LOCK });
        // A session that is full.
        let mut life = Life::of(&delivered(), None);
        life.publish();
        life.on(Event::NotDelivered(NotDelivered::Full));
        life.set_ms = set_ms;
        assert_eq!(life.waits_ms(), 1000);
        life.now_ms += 1000;
        assert!(matches!(life.step(), Step::Publish { .. }));
    }
}

#[test]
fn a_time_to_live_ends_by_the_wall_clock() {
    let mut message = delivered();
    message.expires_ms = Some(NOW_MS + 3_600_000);
    let mut life = Life::of(&message, None);
    life.commit();
    life.set_ms = 3_600_000;
    life.check_end("expired", Some("penstock-expired"), Some("expired"));
}

#[test]
fn a_full_session_is_tried_again() {
    let mut life = Life::of(&delivered(), None);
    life.publish();
    life.on(Event::NotDelivered(NotDelivered::Full));
    assert_eq!(life.step(), Step::Wait { until_ms: Some(NOW_MS + 1000) });
    life.now_ms += 1000;
    assert!(matches!(life.step(), Step::Publish { redelivered: false, .. }));
}

#[test]
fn a_device_that_leaves_ends_the_link_and_nothing_else() {
    let mut life = Life::of(&delivered(), None);
    life.publish();
    life.on(Event::Gone);
    assert_eq!((life.step(), life.told.len()), (Step::Close, 0));
    let started = Record { phase: Phase::Started, ..record(&delivered(), Phase::Started) };
    life.receive(&delivered(), Some(started));
    assert!(matches!(life.step(), Step::Publish { redelivered: true, .. }), "nothing is written again");
}

#[test]
fn the_record_decides_after_a_crash() {
    let known = |phase| Some(record(&answered(), phase));
    let mut life = Life::of(&answered(), known(Phase::Started));
    assert!(matches!(life.step(), Step::Publish { redelivered: true, .. }));

    let mut life = Life::of(&answered(), known(Phase::Delivered { deadline_ms: NOW_MS + 7 }));
    assert_eq!(life.step(), Step::Wait { until_ms: Some(NOW_MS + 7) });
    assert_eq!(life.answer(r#"{"status":"failed"}"#, None).0, Heard::Written);

    let done = record(&answered(), Phase::Done(Disposition::Complete));
    let mut life = Life::of(&answered(), Some(done.clone()));
    life.check_settled(&done, None);
    assert!(life.told.is_empty(), "it was told before");
}

#[test]
fn a_record_of_another_command_says_nothing() {
    let done = record(&answered(), Phase::Done(Disposition::Complete));
    let changes: [fn(&mut Received); 3] = [
        |message| message.sequence += 1,
        |message| message.enqueued_ms += 1,
        |message| message.message_id = Some("c-2".to_owned()),
    ];
    for change in changes {
        let mut message = answered();
        change(&mut message);
        let mut life = Life::of(&message, Some(done.clone()));
        assert_eq!(life.commit().phase, Phase::Started);
        assert!(matches!(life.step(), Step::Publish { redelivered: false, .. }));
    }
}

#[test]
fn an_answer_that_comes_before_its_message_does_is_kept() {
    let known = record(&answered(), Phase::Delivered { deadline_ms: NOW_MS + 7 });
    let mut life = Life::new();
    assert_eq!(life.answer("junk", Some(&known)), (Heard::Malformed, None));
    let (heard, kept) = life.answer(r#"{"status":"succeeded","code":3}"#, Some(&known));
    assert_eq!(heard, Heard::Written);
    let kept = kept.expect("a record");
    // The message comes while that is being written.
    life.receive(&answered(), Some(known));
    assert_eq!(life.step(), WAIT);
    life.on(Event::AnswerCommitted(true));
    life.check_end("succeeded", None, None);
    // The same after a crash.
    Life::of(&answered(), Some(kept.clone())).check_end("succeeded", None, None);
    assert_eq!(Life::new().answer(r#"{"status":"failed"}"#, Some(&kept)), (Heard::Repeated, None));
}

/// The device was told that its first answer is kept, and said something else before the message was there again.
#[test]
fn the_first_answer_counts_also_if_another_comes_before_its_final_event() {
    let (heard, first) = {
        let mut life = Life::new();
        let known = record(&answered(), Phase::Started);
        life.answer(r#"{"status":"succeeded"}"#, Some(&known))
    };
    assert_eq!(heard, Heard::Written);
    let mut life = Life::of(&answered(), first.clone());
    assert_eq!(life.step(), Step::Commit);
    assert_eq!(life.answer(r#"{"status":"failed"}"#, first.as_ref()), (Heard::Repeated, None));
    assert_eq!(life.commit().phase, Phase::Done(Disposition::Complete));
    assert_eq!(life.told, [("succeeded".to_owned(), true, None)]);
}

#[test]
fn what_came_back_after_the_device_left_begins_by_its_record() {
    let mut life = Life::of(&delivered(), None);
    let started = life.commit();
    assert!(matches!(life.step(), Step::Publish { .. }));
    life.on(Event::Gone);
    life.on(Event::LinkLost);
    life.receive(&delivered(), Some(started));
    assert!(matches!(life.step(), Step::Publish { redelivered: true, .. }), "its delivery is gone");
}

#[test]
fn an_execution_is_small() {
    let bytes = size_of::<Execution>();
    println!("{bytes} bytes");
    assert!(bytes <= 832);
}

#[test]
fn nothing_is_decided_after_a_failed_write_until_somebody_looked() {
    let mut life = Life::of(&delivered(), None);
    life.publish();
    life.on(Event::Acknowledged);
    let done = life.write();
    life.on(Event::Committed(false));
    assert_eq!((life.step(), life.execution.wants_look()), (WAIT, true));
    life.on(Event::Looked(Some(done.clone())));
    life.check_settled(&done, None);
    assert_eq!(life.told.len(), 1, "it was there");
}

fn record(received: &Received, phase: Phase) -> Record {
    let command = command(received);
    Record {
        identity: command.about.identity.clone(),
        completion: command.completion,
        phase,
        at_ms: NOW_MS - 1,
        ending: None,
    }
}

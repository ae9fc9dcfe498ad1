use super::*;
use crate::commands::account::{Outcome as Answered, Reply};
use crate::commands::command_id;
use crate::commands::wire::Event;

const DEVICE: &str = "device-000001";

/// A run of one device: its first command is acknowledged, its second answered, its third refused.
struct Run {
    sent: Vec<Sent>,
    account: Account,
    settlements: Vec<Entry>,
    events: Vec<StatusEvent>,
}

fn sent(number: u64) -> Sent {
    let device = DEVICE.to_owned();
    Sent { id: command_id(DEVICE, number), device, number, answer: number == 2, sent_ms: number }
}

fn settled(number: u64, at_ms: u64, event: Event, reason: Option<&str>) -> Entry {
    Entry {
        id: number,
        at_ms,
        session: Some(DEVICE.to_owned()),
        sequence: i64::try_from(number).unwrap(),
        message_id: Some(command_id(DEVICE, number)),
        event,
        delivery_count: 0,
        reason: reason.map(str::to_owned),
    }
}

fn event(number: u64, phase: &str, status: &str, reason: Option<&str>) -> StatusEvent {
    StatusEvent {
        event_id: format!("{}/{number}-1/{phase}", command_id(DEVICE, number)),
        command_id: command_id(DEVICE, number),
        device: DEVICE.to_owned(),
        status: status.to_owned(),
        is_final: phase == "final",
        reason: reason.map(str::to_owned),
    }
}

fn clean() -> Run {
    let mut account = Account::default();
    account.connected(0);
    for number in 1..=3 {
        account.received(command_id(DEVICE, number), number, Some(false), number * 100);
    }
    account.replied(0, Reply::Acked(110));
    account.replied(1, Reply::Acked(210));
    account.answered(1, Answered::Succeeded, 220);
    account.answer_acked(1);
    account.replied(2, Reply::Refused { reason: 0x83, at_ms: 310 });
    Run {
        sent: (1..=3).map(sent).collect(),
        account,
        settlements: vec![
            settled(1, 120, Event::Completed, None),
            settled(2, 230, Event::Completed, None),
            settled(3, 320, Event::DeadLettered, Some("penstock-refused")),
        ],
        events: vec![
            event(1, "final", "delivered", None),
            event(2, "delivered", "delivered", None),
            event(2, "final", "succeeded", None),
            event(3, "final", "rejected", Some("refused")),
        ],
    }
}

fn judged(run: &Run) -> Verdict {
    let accounts = HashMap::from([(DEVICE.to_owned(), run.account.clone())]);
    let Run { sent, settlements, events, .. } = run;
    judge(Evidence { sent, accounts: &accounts, settlements, events }, Conditions::default())
}

/// Checks that a fault moves exactly one of the counters that fail a run, and to 1.
fn check(fault: impl FnOnce(&mut Run), counter: fn(&Counts) -> u64) {
    let mut run = clean();
    fault(&mut run);
    let verdict = judged(&run);
    let Counts { repeated, unmarked, out_of_order, stuck, early, burnt, .. } = verdict.counts;
    let Counts { ambiguous, contradicted, unexpected, .. } = verdict.counts;
    let all =
        repeated + unmarked + out_of_order + stuck + early + burnt + ambiguous + contradicted + unexpected;
    assert_eq!((counter(&verdict.counts), all), (1, 1), "{verdict:?}");
    assert!(!verdict.pass() && verdict.reasons.len() > 1, "{verdict:?}");
}

/// A second connection on which the device gets the first command again, after 1 and before 2.
fn again(run: &mut Run, first: Reply, ended_ms: u64, redelivered: Option<bool>, target: usize) {
    let old = std::mem::take(&mut run.account);
    run.account.connected(0);
    run.account.received(command_id(DEVICE, 1), 1, Some(false), 100);
    run.account.replied(0, first);
    run.account.disconnected(ended_ms);
    run.account.connected(target);
    run.account.received(command_id(DEVICE, 1), 1, redelivered, 115);
    run.account.replied(1, Reply::Acked(116));
    run.account.receipts.extend(old.receipts.into_iter().skip(1).map(|mut receipt| {
        receipt.connection = 1;
        receipt
    }));
}

#[test]
fn a_clean_run_passes() {
    let verdict = judged(&clean());
    assert!(verdict.pass(), "{verdict:?}");
    let counts = Counts { sent: 3, received: 3, completed: 3, dead_lettered: 1, ..Counts::default() };
    assert_eq!(verdict.counts, counts);
}

#[test]
fn a_status_told_twice_is_one_status() {
    let mut run = clean();
    run.events.push(event(1, "final", "delivered", None));
    assert!(judged(&run).pass());
}

#[test]
fn a_command_without_a_final_status_is_stuck() {
    check(|run| drop(run.events.remove(0)), |counts| counts.stuck);
    check(|run| run.events[0].is_final = false, |counts| counts.stuck);
}

#[test]
fn a_command_that_is_not_settled_is_stuck() {
    check(|run| drop(run.settlements.remove(1)), |counts| counts.stuck);
    check(|run| run.settlements[2].event = Event::Released, |counts| counts.stuck);
}

#[test]
fn a_delivery_after_an_acknowledgement_on_the_same_connection_is_repeated() {
    let fault = |run: &mut Run| {
        let mut receipt = run.account.receipts[0].clone();
        (receipt.received_ms, receipt.redelivered) = (115, Some(true));
        run.account.receipts.insert(1, receipt);
    };
    check(fault, |counts| counts.repeated);
}

#[test]
fn a_delivery_long_after_an_acknowledgement_is_repeated_on_any_connection() {
    let fault = |run: &mut Run| {
        again(run, Reply::Acked(110), 5000, Some(true), 0);
        run.account.receipts[1].received_ms = 6000;
        run.account.receipts[1].reply = Reply::Acked(6001);
        for (settlement, at_ms) in run.settlements.iter_mut().zip([6100, 6200, 6300]) {
            settlement.at_ms = at_ms;
        }
    };
    check(fault, |counts| counts.repeated);
}

#[test]
fn another_gateway_cannot_know_what_is_not_settled() {
    let mut run = clean();
    again(&mut run, Reply::Acked(110), 5000, Some(false), 1);
    run.account.receipts[1].received_ms = 6000;
    run.account.receipts[1].reply = Reply::Acked(6001);
    for (settlement, at_ms) in run.settlements.iter_mut().zip([6100, 6200, 6300]) {
        settlement.at_ms = at_ms;
    }
    let verdict = judged(&run);
    assert!(verdict.pass(), "{verdict:?}");
    assert_eq!((verdict.counts.again, verdict.counts.elsewhere), (1, 1));
}

#[test]
fn a_delivery_after_the_settlement_is_repeated() {
    let fault = |run: &mut Run| {
        again(run, Reply::Acked(110), 111, Some(true), 0);
        run.settlements[0].at_ms = 112;
    };
    check(fault, |counts| counts.repeated);
}

#[test]
fn an_acknowledgement_that_went_with_its_connection_may_be_asked_for_again() {
    for first in [Reply::None, Reply::Acked(110)] {
        let mut run = clean();
        again(&mut run, first, 112, Some(true), 0);
        let verdict = judged(&run);
        assert!(verdict.pass(), "{verdict:?}");
        assert_eq!(verdict.counts.again, 1);
    }
}

#[test]
fn a_repeat_without_its_mark_is_unmarked() {
    check(|run| again(run, Reply::None, 112, Some(false), 0), |counts| counts.unmarked);
}

/// Another gateway gets the first command from Service Bus at 114, as a delivery before which so many have failed.
fn handed_on(run: &mut Run, mark: bool, failed: u32) {
    again(run, Reply::None, 112, Some(mark), 1);
    let entry = |at_ms, event, delivery_count| Entry { delivery_count, ..settled(1, at_ms, event, None) };
    let ended = if failed > 0 { Event::LockExpired } else { Event::Returned };
    run.settlements[0].delivery_count = failed;
    run.settlements.splice(
        0..0,
        [entry(90, Event::Delivered, 0), entry(113, ended, failed), entry(114, Event::Delivered, failed)],
    );
}

#[test]
fn another_gateway_marks_what_service_bus_says_has_failed_before() {
    let condition = Conditions { grace_ms: 5 };
    for (mark, failed, unmarked) in [(false, 1, 1), (true, 1, 0), (false, 0, 0), (true, 0, 0)] {
        let mut run = clean();
        handed_on(&mut run, mark, failed);
        let accounts = HashMap::from([(DEVICE.to_owned(), run.account.clone())]);
        let Run { sent, settlements, events, .. } = &run;
        let verdict = judge(Evidence { sent, accounts: &accounts, settlements, events }, condition);
        assert_eq!(verdict.counts.unmarked, unmarked, "{mark} {failed}: {verdict:?}");
        assert_eq!(verdict.pass(), unmarked == 0, "{verdict:?}");
    }
    // It may have the message from the delivery before, and be told of the failure while that is on its way.
    let mut run = clean();
    handed_on(&mut run, false, 1);
    assert!(judged(&run).pass(), "{:?}", judged(&run));
}

#[test]
fn a_mark_is_asked_of_the_same_gateway_and_of_mqtt_5_only() {
    for (mark, target) in [(Some(false), 1), (None, 0)] {
        let mut run = clean();
        again(&mut run, Reply::None, 112, mark, target);
        let verdict = judged(&run);
        assert!(verdict.pass(), "{verdict:?}");
    }
}

#[test]
fn a_command_after_a_later_one_is_out_of_order() {
    check(|run| run.account.receipts.swap(0, 1), |counts| counts.out_of_order);
}

#[test]
fn settlements_in_another_order_are_out_of_order() {
    let fault = |run: &mut Run| {
        run.settlements.swap(0, 1);
        run.settlements[1].at_ms = 240;
    };
    check(fault, |counts| counts.out_of_order);
}

#[test]
fn a_settlement_before_the_acknowledgement_is_early() {
    check(|run| run.settlements[0].at_ms = 109, |counts| counts.early);
    check(|run| run.settlements[2].at_ms = 309, |counts| counts.early);
}

#[test]
fn a_settlement_before_the_answer_is_early() {
    check(|run| run.settlements[1].at_ms = 215, |counts| counts.early);
}

#[test]
fn a_delivery_that_nobody_used_is_burnt() {
    check(|run| run.settlements[0].delivery_count = 1, |counts| counts.burnt);
}

#[test]
fn a_delivery_that_was_given_back_or_ran_out_is_not_burnt() {
    for event in [Event::Abandoned, Event::LockExpired] {
        let mut run = clean();
        run.settlements.insert(0, settled(1, 105, event, None));
        run.settlements[1].delivery_count = 1;
        let verdict = judged(&run);
        assert!(verdict.pass(), "{verdict:?}");
    }
}

#[test]
fn two_final_events_are_ambiguous() {
    let fault = |run: &mut Run| {
        let mut other = run.events[0].clone();
        other.event_id.push_str("-2");
        run.events.push(other);
    };
    check(fault, |counts| counts.ambiguous);
}

#[test]
fn one_event_with_two_meanings_is_contradicted() {
    check(|run| run.events.push(event(1, "final", "failed", None)), |counts| counts.contradicted);
}

#[test]
fn a_status_that_its_device_knows_nothing_of_is_contradicted() {
    check(|run| run.events[2].status = "failed".to_owned(), |counts| counts.contradicted);
    let refused = |run: &mut Run| run.account.receipts[2].reply = Reply::Acked(310);
    check(refused, |counts| counts.contradicted);
    let expired = |run: &mut Run| {
        run.events[3] = event(3, "final", "expired", Some("expired"));
        run.settlements[2].reason = Some("penstock-expired".to_owned());
    };
    check(expired, |counts| counts.contradicted);
}

#[test]
fn a_settlement_that_does_not_fit_the_status_is_contradicted() {
    let completed = |run: &mut Run| {
        run.settlements[2].event = Event::Completed;
        run.settlements[2].reason = None;
    };
    check(completed, |counts| counts.contradicted);
    let reason = |run: &mut Run| run.settlements[2].reason = Some("MaxDeliveryCountExceeded".to_owned());
    check(reason, |counts| counts.contradicted);
    check(|run| run.settlements.push(settled(3, 330, Event::Completed, None)), |counts| counts.contradicted);
}

#[test]
fn no_answer_is_a_final_status_of_what_was_to_be_answered() {
    let mut run = clean();
    run.account.receipts[1].answer = None;
    run.events[2] = event(2, "final", "failed", Some("no-answer"));
    let verdict = judged(&run);
    assert!(verdict.pass(), "{verdict:?}");
    check(|run| run.events[0] = event(1, "final", "failed", Some("no-answer")), |counts| counts.contradicted);
}

#[test]
fn what_was_never_sent_is_unexpected() {
    let receipt = |run: &mut Run| {
        run.account.received("other".to_owned(), 4, Some(false), 400);
    };
    check(receipt, |counts| counts.unexpected);
    check(
        |run| run.events.push(StatusEvent { command_id: "other".to_owned(), ..run.events[0].clone() }),
        |counts| counts.unexpected,
    );
    let settlement = |run: &mut Run| {
        let message_id = Some("other".to_owned());
        run.settlements.push(Entry { message_id, ..settled(9, 400, Event::Completed, None) });
    };
    check(settlement, |counts| counts.unexpected);
}

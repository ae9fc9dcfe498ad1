use serde_json::json;

use super::super::truth::Run;
use super::*;

const RULES: &[Expectation<'_>] = &[
    Expectation {
        kind: Kind::Shift,
        metric: Some("temperature"),
        rules: &["hot", "very-hot"],
        within_ms: 2000,
        within_readings: 10,
        found_percent_min: 100,
    },
    Expectation {
        kind: Kind::Dropout,
        metric: None,
        rules: &["silent"],
        within_ms: 5000,
        within_readings: 0,
        found_percent_min: 50,
    },
    Expectation {
        kind: Kind::ClockJump,
        metric: None,
        rules: &["hot"],
        within_ms: 2000,
        within_readings: 0,
        found_percent_min: 100,
    },
];

const CONDITIONS: Conditions =
    Conditions { slack_ms: 500, after_ms: 1000, resolve_ms: 3000, until_ms: 100_000, false_alerts_max: 0 };

/// A shift of the temperature of `device` from 10 s to 15 s, sent and acknowledged.
fn shift(device: &str) -> Injected {
    Injected {
        fault: 1,
        device: device.to_owned(),
        metric: Some("temperature".to_owned()),
        kind: Kind::Shift,
        magnitude: Some(30.0),
        deviations: Some(60.0),
        first: 101,
        last: 150,
        taken_ms: 10_000,
        begin_ms: 10_000,
        end_ms: Some(15_000),
        period_ms: 100,
        promised: true,
        sent: 50,
        acked: Some(50),
    }
}

fn dropout(device: &str) -> Injected {
    let around =
        Injected { metric: None, kind: Kind::Dropout, magnitude: None, deviations: None, ..shift(device) };
    Injected { last: 102, sent: 2, acked: Some(2), ..around }
}

/// An event about the temperature of `device`.
fn event(word: &str, rule: &str, device: &str, transition: u64, at_ms: u64) -> Value {
    let id = format!("a1-{rule}-{device}");
    let time = |ms: u64| format!("1970-01-01T00:{:02}:{:02}.{:03}Z", ms / 60_000, ms / 1000 % 60, ms % 1000);
    json!({
        "specversion": "1.0", "source": "/gateways/demo", "id": format!("{id}:{transition}"),
        "type": format!("io.penstock.alert.{word}.v1"), "time": time(at_ms), "deviceid": device, "ruleid": rule,
        "data": {
            "alertId": id, "transition": transition, "startedAt": time(at_ms),
            "observed": { "metric": "temperature", "value": 51.5 }
        }
    })
}

/// An alert that was raised and resolved.
fn alert(rule: &str, device: &str, raised_ms: u64, resolved_ms: u64) -> [Value; 2] {
    let mut resolved = event("resolved", rule, device, 2, resolved_ms);
    let raised = event("raised", rule, device, 1, raised_ms);
    resolved["data"]["startedAt"] = raised["data"]["startedAt"].clone();
    [raised, resolved]
}

fn judged(faults: &[Injected], events: &[Value]) -> Verdict {
    let run = Some(Run { seed: 1, devices: 3, start_ms: 0, end_ms: Some(60_000) });
    judge(&Truth { run, faults: faults.to_vec() }, events, RULES, &CONDITIONS)
}

fn seen(verdict: &Verdict, kind: Kind) -> Seen {
    verdict.counts.faults.get(&kind).copied().unwrap_or_default()
}

fn check(faults: &[Injected], events: &[Value], count: impl Fn(&Counts) -> u64, reason: Option<&str>) {
    let verdict = judged(faults, events);
    assert_eq!(count(&verdict.counts), 1, "{verdict:#?}");
    match reason {
        None => assert_eq!(verdict.reasons, [""; 0]),
        Some(reason) => {
            assert!(verdict.reasons.iter().any(|one| one.contains(reason)), "{:#?}", verdict.reasons)
        }
    }
}

#[test]
fn faults_that_were_alerted_about_pass() {
    let [a, b, c] = ["a", "b", "c"].map(shift);
    let events = [
        alert("hot", "a", 10_300, 16_000),
        alert("very-hot", "b", 10_100, 16_000),
        alert("hot", "b", 10_900, 16_000),
        alert("hot", "c", 12_000, 16_000),
    ];
    let verdict = judged(&[a, b, c], events.as_flattened());
    assert_eq!(verdict.reasons, [""; 0]);
    let expected =
        Seen { injected: 3, found: 3, delay_p50_ms: Some(300), delay_max_ms: Some(2000), ..Seen::default() };
    assert_eq!(seen(&verdict, Kind::Shift), expected);
    assert_eq!((verdict.counts.events, verdict.counts.alerts), (8, 4));
}

#[test]
fn a_fault_nobody_alerted_about_is_missed() {
    let missed = |counts: &Counts| counts.faults.get(&Kind::Shift).map_or(0, |seen| seen.missed);
    check(&[shift("a")], &[], missed, Some("0 of 1 faults of kind shift were found by hot, very-hot"));
    check(&[shift("a")], &[], missed, Some("missed: shift of temperature in readings 101 to 150 of a"));
    // Too late, too early, of another rule, device or metric.
    check(&[shift("a")], &alert("hot", "a", 12_001, 16_000), missed, Some("0 of 1"));
    check(&[shift("a")], &alert("hot", "a", 9499, 16_000), missed, Some("0 of 1"));
    check(&[shift("a")], &alert("cold", "a", 10_300, 16_000), missed, Some("0 of 1"));
    check(&[shift("a")], &alert("hot", "b", 10_300, 16_000), missed, Some("0 of 1"));
    let mut other = alert("hot", "a", 10_300, 16_000);
    other.iter_mut().for_each(|event| event["data"]["observed"]["metric"] = json!("pressure"));
    check(&[shift("a")], &other, missed, Some("0 of 1"));
}

#[test]
fn a_slow_device_has_readings_instead_of_seconds() {
    let slow = Injected { period_ms: 1000, end_ms: Some(60_000), ..shift("a") };
    let verdict = judged(&[slow], &alert("hot", "a", 19_900, 61_000));
    assert_eq!(seen(&verdict, Kind::Shift).delay_max_ms, Some(9900));
}

#[test]
fn the_beginning_of_an_alert_counts_and_the_delay_is_to_its_event() {
    let mut held = alert("hot", "a", 13_000, 16_000);
    held.iter_mut().for_each(|event| event["data"]["startedAt"] = json!("1970-01-01T00:00:09.900Z"));
    let verdict = judged(&[shift("a")], &held);
    assert_eq!(seen(&verdict, Kind::Shift).delay_max_ms, Some(3000));
}

#[test]
fn a_reading_that_had_to_wait_was_taken_before() {
    let waited = Injected { taken_ms: 6000, ..shift("a") };
    let verdict = judged(&[waited], &alert("hot", "a", 6100, 16_000));
    assert_eq!((seen(&verdict, Kind::Shift).found, seen(&verdict, Kind::Shift).delay_max_ms), (1, Some(0)));
    assert_eq!(verdict.reasons, [""; 0]);
}

#[test]
fn a_clock_that_is_wrong_does_not_tell_when_an_alert_began() {
    let jump = Injected { kind: Kind::ClockJump, metric: None, magnitude: Some(-3600.0), ..shift("a") };
    let mut wrong = alert("hot", "a", 10_300, 16_000);
    wrong.iter_mut().for_each(|event| event["data"]["startedAt"] = json!("1970-01-01T09:00:00Z"));
    let verdict = judged(&[jump], &wrong);
    assert_eq!(seen(&verdict, Kind::ClockJump).found, 1, "{verdict:#?}");
    assert_eq!(verdict.counts.false_alerts, 0);
}

#[test]
fn what_was_not_acknowledged_cannot_be_missed() {
    let lost = Injected { acked: Some(49), ..shift("a") };
    let unproven = |counts: &Counts| counts.faults.get(&Kind::Shift).map_or(0, |seen| seen.unproven);
    check(&[lost], &[], unproven, None);
}

#[test]
fn a_fault_no_rule_is_for_is_unwatched() {
    let noise = Injected { kind: Kind::Noise, ..shift("a") };
    check(&[noise], &[], |counts| counts.faults.get(&Kind::Noise).map_or(0, |seen| seen.unwatched), None);
    // The table is about the temperature.
    let pressure = Injected { metric: Some("pressure".to_owned()), ..shift("a") };
    check(&[pressure], &[], |counts| counts.faults.get(&Kind::Shift).map_or(0, |seen| seen.unwatched), None);
}

#[test]
fn a_storm_of_the_rule_stands_for_its_alerts() {
    let summarised = |counts: &Counts| counts.faults.get(&Kind::Shift).map_or(0, |seen| seen.summarised);
    let missed = |counts: &Counts| counts.faults.get(&Kind::Shift).map_or(0, |seen| seen.missed);
    let storm = |rule: &str, transition: u64, at_ms: u64, state: &str| {
        let mut storm = event("storm", rule, "a", transition, at_ms);
        storm["deviceid"] = Value::Null;
        storm["data"]["state"] = json!(state);
        storm
    };
    let told = [storm("hot", 1, 9000, "raised")];
    check(&[shift("a")], &told, summarised, None);
    check(&[shift("a")], &told, |counts| counts.storms, None);
    // Of another rule, over before, not yet begun.
    check(&[shift("a")], &[storm("silent", 1, 9000, "raised")], missed, Some("0 of 1"));
    let over = [told.as_slice(), &[storm("hot", 2, 9400, "resolved")]].concat();
    check(&[shift("a")], &over, missed, Some("0 of 1"));
    check(&[shift("a")], &[storm("hot", 1, 12_001, "raised")], missed, Some("0 of 1"));
    let gap = [told.as_slice(), &[storm("hot", 3, 9500, "updated")]].concat();
    check(&[shift("a")], &gap, |counts| counts.gaps, Some("1 transitions never arrived"));
    check(&[shift("a")], &gap, summarised, Some("1 transitions never arrived"));
}

#[test]
fn enough_of_a_kind_have_to_be_found() {
    let three = ["a", "b", "c"].map(dropout);
    let silent = |devices: &[&str]| {
        devices.iter().flat_map(|device| alert("silent", device, 13_000, 16_000)).collect::<Vec<_>>()
    };
    assert_eq!(judged(&three, &silent(&["a", "b"])).reasons, [""; 0]);
    let reasons = judged(&three, &silent(&["a"])).reasons;
    assert!(reasons[0].starts_with("1 of 3 faults of kind dropout were found by silent"), "{reasons:#?}");
}

#[test]
fn an_alert_without_a_fault_is_false() {
    let events = alert("hot", "a", 30_000, 31_000);
    check(&[], &events, |counts| counts.false_alerts, Some("1 alerts are false"));
    check(&[shift("b")], &alert("hot", "b", 16_001, 17_000), |counts| counts.false_alerts, Some("false"));
    // The return to normal is a jump, too, and an alert that nobody expected of this rule is explained all the same.
    let explained = [alert("hot", "a", 10_300, 16_000), alert("rate", "a", 15_900, 17_000)];
    let verdict = judged(&[shift("a")], explained.as_flattened());
    assert_eq!((verdict.counts.false_alerts, verdict.reasons.len()), (0, 0), "{verdict:#?}");
}

#[test]
fn some_false_alerts_may_be_allowed() {
    let truth = Truth::default();
    let allowing = Conditions { false_alerts_max: 1, ..CONDITIONS };
    let events = [alert("hot", "a", 30_000, 31_000), alert("hot", "b", 30_000, 31_000)];
    let [one, _] = &events;
    assert_eq!(judge(&truth, one, RULES, &allowing).reasons, [""; 0]);
    assert_eq!(judge(&truth, events.as_flattened(), RULES, &allowing).counts.false_alerts, 2);
    assert!(!judge(&truth, events.as_flattened(), RULES, &allowing).reasons.is_empty());
}

#[test]
fn devices_that_are_done_are_silent() {
    check(&[], &alert("silent", "a", 60_001, 61_000), |counts| counts.late, None);
    check(&[], &alert("silent", "a", 60_000, 61_000), |counts| counts.false_alerts, Some("false"));
}

#[test]
fn an_alert_that_outlives_its_fault_is_unresolved() {
    let raised = [event("raised", "hot", "a", 1, 10_300)];
    let unresolved = |counts: &Counts| counts.unresolved;
    check(&[shift("a")], &raised, unresolved, Some("1 alerts stayed open"));
    let again = [
        raised.as_slice(),
        &[event("resolved", "hot", "a", 2, 16_000), event("raised", "hot", "a", 3, 17_000)],
    ];
    check(&[shift("a")], &again.concat(), unresolved, Some("unresolved: a1-hot-a of hot about a"));
    // Its fault has not ended, or only just.
    for end_ms in [None, Some(97_001)] {
        let fault = Injected { end_ms, ..shift("a") };
        assert_eq!(judged(&[fault], &raised).counts.unresolved, 0);
    }
}

#[test]
fn the_same_event_again_is_allowed() {
    let [raised, resolved] = alert("hot", "a", 10_300, 16_000);
    check(&[shift("a")], &[raised.clone(), resolved, raised], |counts| counts.duplicated, None);
}

#[test]
fn one_id_with_two_contents_is_a_contradiction() {
    let [raised, resolved] = alert("hot", "a", 10_300, 16_000);
    let mut other = raised.clone();
    other["data"]["observed"]["value"] = json!(52.0);
    let contradicting = |counts: &Counts| counts.contradicting;
    check(
        &[shift("a")],
        &[raised.clone(), other, resolved.clone()],
        contradicting,
        Some("a1-hot-a:1 has two contents"),
    );
    // One alert about two devices, or two ids for one transition.
    let mut other = resolved.clone();
    other["deviceid"] = json!("b");
    check(&[shift("a")], &[raised.clone(), resolved.clone(), other], contradicting, Some("contradict"));
    let mut other = resolved.clone();
    other["id"] = json!("a1-hot-a:02");
    check(&[shift("a")], &[raised, resolved, other], contradicting, Some("does not fit its alert"));
}

#[test]
fn a_transition_that_never_arrived_is_a_gap() {
    let [raised, _] = alert("hot", "a", 10_300, 16_000);
    let resolved = event("resolved", "hot", "a", 3, 16_000);
    check(&[shift("a")], &[resolved, raised], |counts| counts.gaps, Some("1 transitions never arrived"));
    let second = event("resolved", "hot", "a", 2, 10_800);
    check(&[shift("a")], &[second], |counts| counts.gaps, Some("incomplete: a1-hot-a"));
}

#[test]
fn events_that_are_none_by_their_shape_are_counted() {
    let mut wrong = event("raised", "hot", "a", 1, 10_300);
    wrong["time"] = json!("soon");
    check(
        &[],
        &[wrong, json!({ "type": "io.penstock.command.succeeded.v1" })],
        |counts| counts.unreadable,
        Some("1 events"),
    );
}

#[test]
fn counts_are_read_back_as_written() {
    let counts = judged(&[shift("a"), dropout("b")], &alert("hot", "a", 10_300, 16_000)).counts;
    let text = serde_json::to_string(&counts).unwrap();
    assert!(text.contains(r#""shift":{"injected":1,"found":1"#), "{text}");
    assert_eq!(serde_json::from_str::<Counts>(&text).unwrap(), counts);
}

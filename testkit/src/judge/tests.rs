use proptest::prelude::*;

use super::*;
use crate::ledger::DeviceLedger;

/// A record in short: device, reading, seq of its identity, partition.
type Record = (&'static str, u64, u64, i32);

/// One device per QoS, each with three readings sent; QoS 1 and 2 all acknowledged.
/// `again` lists (device, reading) that were published once more.
fn ledger(again: &[(&str, u64)]) -> Ledger {
    let mut ledger = Ledger::default();
    let devices = [("a", Qos::AtLeastOnce), ("b", Qos::ExactlyOnce), ("c", Qos::AtMostOnce)];
    for (device, qos) in devices {
        let mut account = DeviceLedger::new(qos);
        for reading in 1..=3 {
            account.published(reading).unwrap();
            if qos != Qos::AtMostOnce {
                account.acked(reading).unwrap();
            }
        }
        for (_, reading) in again.iter().filter(|(name, _)| *name == device) {
            account.published(*reading).unwrap();
        }
        ledger.insert(device.to_owned(), account).unwrap();
    }
    ledger
}

fn identity(seq: u64, stream: char) -> Identity {
    format!("g/00000000000000aa/1/2/{seq}/0/{stream}").parse().unwrap()
}

fn judge(ledger: &Ledger, records: &[Record]) -> Verdict {
    judge_with(ledger, records, Conditions::default())
}

fn judge_with(ledger: &Ledger, records: &[Record], conditions: Conditions) -> Verdict {
    let mut judge = Judge::new(ledger);
    for (offset, &(device, reading, seq, partition)) in (0..).zip(records) {
        judge.record(Delivered {
            device,
            reading,
            key: device.as_bytes(),
            identity: &identity(seq, 'l'),
            place: Place { topic: 0, partition, offset },
        });
    }
    judge.verdict(conditions)
}

/// Everything delivered once and in order.
const CLEAN: [Record; 9] = [
    ("a", 1, 1, 0),
    ("b", 1, 2, 1),
    ("a", 2, 3, 0),
    ("c", 1, 4, 0),
    ("c", 2, 5, 0),
    ("a", 3, 6, 0),
    ("b", 2, 7, 1),
    ("b", 3, 8, 1),
    ("c", 3, 9, 0),
];

fn clean_but(change: impl FnOnce(&mut Vec<Record>)) -> Vec<Record> {
    let mut records = CLEAN.to_vec();
    change(&mut records);
    records
}

/// Checks that exactly the given counter is not zero, and whether the run passes.
fn check(verdict: &Verdict, field: fn(&Counts) -> u64, expected: u64, pass: bool) {
    let counts = verdict.counts;
    assert_eq!(field(&counts), expected, "{verdict:?}");
    let Counts { lost, duplicated, resent, qos2_repeats, reordered, unexpected, qos0_missing, .. } = counts;
    let sum = lost + duplicated + resent + qos2_repeats + reordered + unexpected + qos0_missing;
    assert_eq!(sum, expected, "only one counter moves: {verdict:?}");
    assert_eq!(verdict.pass(), pass, "{verdict:?}");
}

#[test]
fn a_clean_run_passes() {
    let verdict = judge(&ledger(&[]), &CLEAN);
    assert_eq!(verdict.counts, Counts { records: 9, delivered: 9, ..Counts::default() });
    assert!(verdict.pass());
}

#[test]
fn an_acked_reading_found_nowhere_is_lost() {
    let records = clean_but(|records| records.retain(|record| record.2 != 3));
    let verdict = judge(&ledger(&[]), &records);
    check(&verdict, |counts| counts.lost, 1, false);
    assert!(verdict.reasons.iter().any(|reason| reason == "lost: a reading 2"), "{verdict:?}");
}

#[test]
fn a_missing_qos0_reading_breaks_no_promise() {
    let records = clean_but(|records| records.truncate(8));
    check(&judge(&ledger(&[]), &records), |counts| counts.qos0_missing, 1, true);
}

#[test]
fn the_same_identity_twice_is_duplicated() {
    let records = clean_but(|records| records.push(("a", 2, 3, 0)));
    let ledger = ledger(&[]);
    check(&judge(&ledger, &records), |counts| counts.duplicated, 1, false);
    let allowed = Conditions { allow_duplicated: true, ..Conditions::default() };
    check(&judge_with(&ledger, &records, allowed), |counts| counts.duplicated, 1, true);
}

#[test]
fn a_second_publish_of_a_reading_is_resent() {
    let records = clean_but(|records| records.push(("a", 2, 10, 0)));
    let ledger = ledger(&[("a", 2)]);
    check(&judge(&ledger, &records), |counts| counts.resent, 1, false);
    let reconnected = Conditions { reconnects: 1, ..Conditions::default() };
    check(&judge_with(&ledger, &records, reconnected), |counts| counts.resent, 1, true);
}

#[test]
fn a_second_publish_of_a_qos2_reading_is_a_repeat() {
    let records = clean_but(|records| records.push(("b", 3, 10, 1)));
    let ledger = ledger(&[("b", 3)]);
    check(&judge(&ledger, &records), |counts| counts.qos2_repeats, 1, false);
    let reconnected = Conditions { reconnects: 1, ..Conditions::default() };
    check(&judge_with(&ledger, &records, reconnected), |counts| counts.qos2_repeats, 1, true);
}

#[test]
fn more_identities_than_publishes_are_unexpected() {
    let records = clean_but(|records| records.push(("a", 2, 10, 0)));
    let reconnected = Conditions { reconnects: 1, allow_resent: true, ..Conditions::default() };
    check(&judge_with(&ledger(&[]), &records, reconnected), |counts| counts.unexpected, 1, false);
}

#[test]
fn a_first_occurrence_behind_a_later_reading_is_reordered() {
    let records = clean_but(|records| {
        records.swap(2, 5);
    });
    check(&judge(&ledger(&[]), &records), |counts| counts.reordered, 1, false);
}

#[test]
fn a_device_in_two_partitions_is_reordered() {
    let records = clean_but(|records| {
        if let Some(record) = records.get_mut(5) {
            record.3 = 1;
        }
    });
    check(&judge(&ledger(&[]), &records), |counts| counts.reordered, 1, false);
}

#[test]
fn a_device_may_move_on_once_topics_may_grow() {
    let allowed = Conditions { allow_moved: true, ..Conditions::default() };
    let moved = |reading: u64| {
        clean_but(|records| {
            let record = records.iter_mut().find(|record| (record.0, record.1) == ("a", reading));
            record.unwrap().3 = 1;
        })
    };
    check(&judge_with(&ledger(&[]), &moved(3), allowed), |counts| counts.reordered, 0, true);
    check(&judge_with(&ledger(&[]), &moved(2), allowed), |counts| counts.reordered, 1, false);
}

#[test]
fn a_repeated_old_reading_is_not_reordered() {
    let records = clean_but(|records| records.push(("a", 1, 1, 0)));
    check(&judge(&ledger(&[]), &records), |counts| counts.duplicated, 1, false);
}

#[test]
fn order_is_judged_within_each_stream() {
    let ledger = ledger(&[]);
    let mut judge = Judge::new(&ledger);
    let records = [(3, 'l'), (1, 'b'), (2, 'b')];
    for (offset, (reading, stream)) in (0..).zip(records) {
        judge.record(Delivered {
            device: "a",
            reading,
            key: b"a",
            identity: &identity(reading, stream),
            place: Place { topic: 0, partition: 0, offset },
        });
    }
    assert_eq!(judge.verdict(Conditions::default()).counts.reordered, 0);
}

#[test]
fn readings_never_sent_are_unexpected() {
    let ledger = ledger(&[]);
    let unknown_reading = clean_but(|records| records.push(("a", 4, 10, 0)));
    check(&judge(&ledger, &unknown_reading), |counts| counts.unexpected, 1, false);
    let unknown_device = clean_but(|records| records.push(("x", 1, 10, 0)));
    check(&judge(&ledger, &unknown_device), |counts| counts.unexpected, 1, false);
    let zero = clean_but(|records| records.push(("a", 0, 10, 0)));
    check(&judge(&ledger, &zero), |counts| counts.unexpected, 1, false);
}

#[test]
fn one_identity_for_two_readings_is_unexpected() {
    let ledger = ledger(&[("c", 1)]);
    let records = clean_but(|records| records.push(("c", 1, 9, 0)));
    check(&judge(&ledger, &records), |counts| counts.unexpected, 1, false);
}

#[test]
fn a_wrong_key_and_an_unreadable_record_are_unexpected() {
    let ledger = ledger(&[]);
    let mut judge = Judge::new(&ledger);
    let place = Place { topic: 0, partition: 0, offset: 0 };
    judge.unreadable(place, "no header");
    judge.record(Delivered { device: "a", reading: 1, key: b"b", identity: &identity(1, 'l'), place });
    assert_eq!(judge.verdict(Conditions::default()).counts.unexpected, 2);
}

#[test]
fn readings_without_an_answer_fail_unless_allowed() {
    let mut account = DeviceLedger::new(Qos::AtLeastOnce);
    account.published(1).unwrap();
    let mut ledger = Ledger::default();
    ledger.insert("a".to_owned(), account).unwrap();
    assert!(!judge(&ledger, &[]).pass());
    let allowed = Conditions { allow_unacked: true, ..Conditions::default() };
    assert!(judge_with(&ledger, &[], allowed).pass());
}

#[test]
fn examples_are_bounded() {
    let mut account = DeviceLedger::new(Qos::AtLeastOnce);
    for reading in 1..=1000 {
        account.published(reading).unwrap();
        account.acked(reading).unwrap();
    }
    let mut ledger = Ledger::default();
    ledger.insert("a".to_owned(), account).unwrap();
    let verdict = judge(&ledger, &[]);
    assert_eq!(verdict.counts.lost, 1000);
    assert!(verdict.reasons.len() <= EXAMPLES_MAX + 1, "{}", verdict.reasons.len());
}

proptest! {
    /// Any mixture of whole partitions, cut and doubled at will, is counted consistently.
    #[test]
    fn counts_add_up(picks in prop::collection::vec(0usize..9, 0..40)) {
        let ledger = ledger(&[]);
        let records: Vec<Record> = picks.iter().map(|&pick| CLEAN[pick]).collect();
        let mut distinct = picks.clone();
        distinct.sort_unstable();
        distinct.dedup();
        let Counts { records: judged, delivered, lost, duplicated, qos0_missing, unexpected, .. } =
            judge(&ledger, &records).counts;
        prop_assert_eq!(judged, u64::try_from(picks.len()).unwrap());
        prop_assert_eq!(delivered, u64::try_from(distinct.len()).unwrap());
        prop_assert_eq!(delivered + lost + qos0_missing, 9);
        prop_assert_eq!(delivered + duplicated, judged);
        prop_assert_eq!(unexpected, 0);
    }
}

use proptest::prelude::*;

use super::*;

/// Takes readings until the window is full and hands over what is due; returns the readings.
fn hand_over(device: &mut Device, take: usize) -> Vec<u64> {
    for _ in 0..take {
        device.take(|reading| reading.to_be_bytes().to_vec());
    }
    let mut readings = Vec::new();
    while let Some(publish) = device.next_publish(Instant::now()).unwrap() {
        assert_eq!(publish.payload, publish.reading.to_be_bytes());
        readings.push(publish.reading);
    }
    readings
}

fn device(qos: Qos, window: u16) -> Device {
    let mut device = Device::new(qos, window);
    device.connected(None);
    device
}

#[test]
fn the_window_bounds_what_is_in_flight() {
    let mut device = device(Qos::AtLeastOnce, 3);
    assert_eq!(hand_over(&mut device, 10), [1, 2, 3]);
    for pkid in 1..=3 {
        device.sent(pkid).unwrap();
    }
    // An answer out of order makes no room: the window is counted from the oldest.
    device.puback(2, true, Instant::now()).unwrap();
    assert_eq!(hand_over(&mut device, 10), [0; 0]);
    device.puback(1, true, Instant::now()).unwrap();
    assert_eq!(hand_over(&mut device, 10), [4, 5]);
}

#[test]
fn receive_maximum_narrows_the_window() {
    let mut device = Device::new(Qos::AtLeastOnce, 8);
    device.connected(Some(2));
    assert_eq!(hand_over(&mut device, 5), [1, 2]);
}

#[test]
fn unacked_readings_are_sent_again_before_new_ones() {
    let mut device = device(Qos::AtLeastOnce, 4);
    hand_over(&mut device, 4);
    for pkid in 1..=3 {
        device.sent(pkid).unwrap();
    }
    device.puback(1, true, Instant::now()).unwrap();
    device.disconnected();
    assert_eq!(hand_over(&mut device, 4), [0; 0], "nothing is handed to a dead connection");
    device.connected(None);
    assert_eq!(hand_over(&mut device, 4), [2, 3, 4, 5]);
    let ledger = device.into_ledger();
    assert_eq!([1, 2, 3, 4, 5].map(|reading| ledger.publishes(reading)), [1, 2, 2, 2, 1]);
    assert!(ledger.is_acked(1) && !ledger.is_acked(2));
}

#[test]
fn pubrec_is_the_acknowledgement_of_qos2() {
    let mut device = device(Qos::ExactlyOnce, 2);
    hand_over(&mut device, 2);
    device.sent(1).unwrap();
    device.sent(2).unwrap();
    assert!(matches!(device.pubrec(1, true, Instant::now()), Ok(Answer::Acked(_))));
    assert_eq!(hand_over(&mut device, 1), [0; 0], "the packet id is in use until PUBCOMP");
    device.disconnected();
    device.connected(None);
    assert_eq!(hand_over(&mut device, 0), [2], "an acknowledged reading is not sent again");
    device.sent(1).unwrap();
    device.pubrec(1, true, Instant::now()).unwrap();
    assert_eq!(device.pubcomp(1), Ok(Answer::Completed));
    assert!(device.is_idle());
}

#[test]
fn qos0_readings_are_never_sent_again() {
    let mut device = device(Qos::AtMostOnce, 3);
    assert_eq!(hand_over(&mut device, 3), [1, 2, 3]);
    device.sent(0).unwrap();
    device.disconnected();
    device.connected(None);
    assert_eq!(hand_over(&mut device, 1), [4]);
    assert_eq!(device.into_ledger().sent(), 4);
}

#[test]
fn refused_readings_are_given_up() {
    let mut device = device(Qos::AtLeastOnce, 2);
    hand_over(&mut device, 2);
    device.sent(1).unwrap();
    assert_eq!(device.puback(1, false, Instant::now()), Ok(Answer::Refused));
    device.disconnected();
    device.connected(None);
    assert_eq!(hand_over(&mut device, 0), [2]);
    assert_eq!(device.into_ledger().totals().refused, 1);
}

#[test]
fn answers_out_of_turn_are_faults() {
    let now = Instant::now();
    let mut device = device(Qos::AtLeastOnce, 2);
    assert_eq!(device.sent(1), Err(Fault::NotRequested));
    hand_over(&mut device, 1);
    assert_eq!(device.puback(1, true, now), Err(Fault::Unsolicited(1)), "requested, not sent");
    device.sent(1).unwrap();
    assert_eq!(device.pubrec(1, true, now), Err(Fault::Unsolicited(1)), "PUBREC for QoS 1");
    assert_eq!(device.pubcomp(1), Err(Fault::Unsolicited(1)));
    assert_eq!(device.puback(2, true, now), Err(Fault::Unsolicited(2)));
    device.puback(1, true, now).unwrap();
    assert_eq!(device.puback(1, true, now), Err(Fault::Unsolicited(1)));
}

/// What may happen to a device.
#[derive(Debug, Clone)]
enum Step {
    Take,
    HandOver,
    Sent,
    /// The gateway stores and acknowledges this many of the oldest publishes on the wire.
    Acked(usize),
    /// The gateway stores this many publishes, and the acknowledgements are lost with the connection.
    Lost(usize),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => Just(Step::Take),
        3 => Just(Step::HandOver),
        3 => Just(Step::Sent),
        2 => (0usize..4).prop_map(Step::Acked),
        1 => (0usize..4).prop_map(Step::Lost),
    ]
}

proptest! {
    /// Whatever happens to connections, the first occurrences arrive in order without a gap, and
    /// every acknowledged reading was stored.
    #[test]
    fn first_occurrences_stay_in_order(steps in prop::collection::vec(step(), 0..200), qos2: bool) {
        let qos = if qos2 { Qos::ExactlyOnce } else { Qos::AtLeastOnce };
        let mut device = device(qos, 4);
        let (mut requested, mut wire) = (VecDeque::new(), VecDeque::new());
        let mut stored: Vec<u64> = Vec::new();
        let mut pkid = 0_u16;
        for step in steps {
            match step {
                Step::Take => device.take(|_| Vec::new()),
                Step::HandOver => {
                    while let Some(publish) = device.next_publish(Instant::now()).unwrap() {
                        requested.push_back(publish.reading);
                    }
                }
                Step::Sent => if let Some(reading) = requested.pop_front() {
                    pkid += 1;
                    device.sent(pkid).unwrap();
                    wire.push_back((pkid, reading));
                },
                Step::Acked(count) => for (pkid, reading) in wire.drain(..count.min(wire.len())) {
                    stored.push(reading);
                    if qos2 {
                        device.pubrec(pkid, true, Instant::now()).unwrap();
                        device.pubcomp(pkid).unwrap();
                    } else {
                        device.puback(pkid, true, Instant::now()).unwrap();
                    }
                },
                Step::Lost(count) => {
                    stored.extend(wire.drain(..count.min(wire.len())).map(|(_, reading)| reading));
                    (requested, wire, pkid) = (VecDeque::new(), VecDeque::new(), 0);
                    device.disconnected();
                    device.connected(None);
                }
            }
        }
        let mut highest = 0;
        for &reading in &stored {
            prop_assert!(reading <= highest + 1, "{:?}", stored);
            highest = highest.max(reading);
        }
        let ledger = device.into_ledger();
        for reading in ledger.acked_readings() {
            prop_assert!(stored.contains(&reading));
        }
    }
}

/// Writes what waits: `(packet id, reading, DUP)`, or `(packet id, 0, false)` for PUBREL.
fn sends(device: &mut Device) -> Vec<(u16, u64, bool)> {
    let mut sent = Vec::new();
    while let Some(send) = device.next_send(Instant::now()).unwrap() {
        sent.push(match send {
            Send::Publish { publish, pkid, again } => (pkid, publish.reading, again),
            Send::Release(pkid) => (pkid, 0, false),
        });
    }
    sent
}

fn take(device: &mut Device, count: usize) {
    (0..count).for_each(|_| device.take(|reading| reading.to_be_bytes().to_vec()));
}

#[test]
fn a_session_that_lasts_goes_on_where_it_was_interrupted() {
    let mut device = device(Qos::ExactlyOnce, 8);
    take(&mut device, 3);
    assert_eq!(sends(&mut device), [(1, 1, false), (2, 2, false), (3, 3, false)]);
    device.pubrec(1, true, Instant::now()).unwrap();
    device.release(1).unwrap();
    assert_eq!(sends(&mut device), [(1, 0, false)]);
    device.pubrec(2, true, Instant::now()).unwrap();
    device.interrupted();
    take(&mut device, 1);
    assert_eq!(sends(&mut device), [], "nothing is written without a connection");
    device.connected(None);
    device.resumed(true);
    assert_eq!(sends(&mut device), [(1, 0, false), (2, 0, false), (3, 3, true), (4, 4, false)]);
    for pkid in [1, 2] {
        device.pubcomp(pkid).unwrap();
    }
    device.pubrec(3, true, Instant::now()).unwrap();
    let ledger = device.into_ledger();
    assert_eq!([1, 2, 3, 4].map(|reading| ledger.publishes(reading)), [1; 4], "each is one publish");
    assert_eq!(ledger.totals().acked, 3);
}

#[test]
fn a_session_that_is_gone_is_begun_anew() {
    let mut device = device(Qos::ExactlyOnce, 8);
    take(&mut device, 2);
    sends(&mut device);
    device.pubrec(1, true, Instant::now()).unwrap();
    device.interrupted();
    device.connected(None);
    device.resumed(false);
    assert_eq!(sends(&mut device), [(3, 2, false)]);
    let ledger = device.into_ledger();
    assert_eq!([1, 2].map(|reading| ledger.publishes(reading)), [1, 2]);
}

#[test]
fn at_qos_1_a_repeat_counts_as_a_publish() {
    let mut device = device(Qos::AtLeastOnce, 8);
    take(&mut device, 1);
    sends(&mut device);
    device.interrupted();
    device.connected(None);
    device.resumed(true);
    assert_eq!(sends(&mut device), [(1, 1, true)]);
    assert_eq!(device.into_ledger().publishes(1), 2);
}

#[test]
fn at_qos_0_nothing_has_a_packet_id_and_nothing_is_sent_again() {
    let mut device = device(Qos::AtMostOnce, 8);
    take(&mut device, 2);
    assert_eq!(sends(&mut device), [(0, 1, false), (0, 2, false)]);
    device.interrupted();
    assert!(device.is_idle());
}

#[test]
fn a_packet_id_in_use_is_not_given_out_again() {
    let mut device = device(Qos::AtLeastOnce, 3);
    take(&mut device, 1);
    assert_eq!(sends(&mut device), [(1, 1, false)]);
    // All others were used meanwhile.
    device.pkid = u16::MAX;
    take(&mut device, 1);
    assert_eq!(sends(&mut device), [(2, 2, false)]);
}

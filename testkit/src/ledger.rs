//! What each device sent, and what was acknowledged to it.
//!
//! A device numbers its readings densely from 1 and hands them to the connection in that order.
//! The ledger therefore needs one number for "sent" and a few ranges for "acknowledged": its size
//! follows the number of interruptions, not the number of readings.
//!
//! *Acknowledged* means PUBACK for QoS 1 and PUBREC for QoS 2: both promise that the message is
//! durable. QoS 0 is never acknowledged, only sent.

use std::collections::{BTreeMap, HashMap};

/// How a device publishes, for its whole life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Qos {
    /// QoS 0: no acknowledgement, may be lost.
    AtMostOnce,
    /// QoS 1: acknowledged by PUBACK; sent again after a lost connection.
    AtLeastOnce,
    /// QoS 2: acknowledged by PUBREC; sent again when the session was lost before it.
    ExactlyOnce,
}

/// A set of reading numbers, kept as ranges.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ranges {
    /// First number of a range to its last one; ranges neither overlap nor touch.
    ranges: BTreeMap<u64, u64>,
    count: u64,
}

/// The account of one device.
#[derive(Debug, Clone)]
pub struct DeviceLedger {
    qos: Qos,
    sent: u64,
    acked: Ranges,
    refused: Ranges,
    /// Readings handed to more than one MQTT publish, with the number of publishes beyond the first.
    again: BTreeMap<u64, u32>,
}

/// The accounts of a fleet.
#[derive(Debug, Clone, Default)]
pub struct Ledger {
    devices: Vec<(String, DeviceLedger)>,
    index: HashMap<String, usize>,
}

/// Sums over a fleet, in readings.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Totals {
    /// Readings handed to at least one publish, any QoS.
    pub sent: u64,
    /// Readings acknowledged (QoS 1 and 2).
    pub acked: u64,
    /// Readings of QoS 0 devices among those sent.
    pub qos0_sent: u64,
    /// QoS 1 and 2 readings that the gateway answered with an MQTT 5 error; nothing is promised for them.
    pub refused: u64,
    /// QoS 1 and 2 readings sent and neither acknowledged nor refused.
    pub unacked: u64,
    /// Publishes beyond the first of a reading.
    pub resends: u64,
}

/// An entry that contradicts the account.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum LedgerError {
    /// Readings are handed over in order; this one came too early.
    #[error("reading {reading} was published after {sent} readings")]
    Skipped {
        /// The reading.
        reading: u64,
        /// Readings sent so far.
        sent: u64,
    },
    /// An answer to something never sent.
    #[error("reading {reading} was answered, but only {sent} readings were sent")]
    NeverSent {
        /// The reading.
        reading: u64,
        /// Readings sent so far.
        sent: u64,
    },
    /// Two accounts under one name.
    #[error("a device has two accounts")]
    TwoAccounts,
}

// === impl Ranges ===

impl Ranges {
    /// Adds a number; returns false when it was there already.
    pub fn insert(&mut self, number: u64) -> bool {
        let before = self.ranges.range(..=number).next_back().map(|(&first, &last)| (first, last));
        if before.is_some_and(|(_, last)| last >= number) {
            return false;
        }
        let first = match before {
            Some((first, last)) if last.checked_add(1) == Some(number) => first,
            _ => number,
        };
        let follower = number.checked_add(1).and_then(|next| self.ranges.remove(&next));
        self.ranges.insert(first, follower.unwrap_or(number));
        self.count += 1;
        true
    }

    /// Whether the number is in the set.
    #[must_use]
    pub fn contains(&self, number: u64) -> bool {
        self.ranges.range(..=number).next_back().is_some_and(|(_, &last)| last >= number)
    }

    /// How many numbers are in the set.
    #[must_use]
    pub const fn count(&self) -> u64 {
        self.count
    }

    /// The numbers, in order.
    pub fn iter(&self) -> impl Iterator<Item = u64> + '_ {
        self.ranges.iter().flat_map(|(&first, &last)| first..=last)
    }
}

// === impl DeviceLedger ===

impl DeviceLedger {
    /// An empty account.
    #[must_use]
    pub fn new(qos: Qos) -> Self {
        Self { qos, sent: 0, acked: Ranges::default(), refused: Ranges::default(), again: BTreeMap::new() }
    }

    /// How the device publishes.
    #[must_use]
    pub const fn qos(&self) -> Qos {
        self.qos
    }

    /// Readings handed to at least one publish; these are the readings 1 to `sent`.
    #[must_use]
    pub const fn sent(&self) -> u64 {
        self.sent
    }

    /// Records that a reading was handed to a new MQTT publish.
    ///
    /// # Errors
    /// When a reading before it was never handed over.
    pub fn published(&mut self, reading: u64) -> Result<(), LedgerError> {
        if reading == self.sent + 1 {
            self.sent = reading;
        } else if (1..=self.sent).contains(&reading) {
            *self.again.entry(reading).or_default() += 1;
        } else {
            return Err(LedgerError::Skipped { reading, sent: self.sent });
        }
        Ok(())
    }

    /// Records the acknowledgement of a reading; a second one changes nothing.
    ///
    /// # Errors
    /// When the reading was never sent.
    pub fn acked(&mut self, reading: u64) -> Result<(), LedgerError> {
        self.answered(reading)?;
        self.acked.insert(reading);
        Ok(())
    }

    /// Records that the gateway refused a reading (MQTT 5 reason 0x80 and above).
    ///
    /// # Errors
    /// When the reading was never sent.
    pub fn refused(&mut self, reading: u64) -> Result<(), LedgerError> {
        self.answered(reading)?;
        self.refused.insert(reading);
        Ok(())
    }

    fn answered(&self, reading: u64) -> Result<(), LedgerError> {
        if (1..=self.sent).contains(&reading) {
            Ok(())
        } else {
            Err(LedgerError::NeverSent { reading, sent: self.sent })
        }
    }

    /// Whether the reading was acknowledged.
    #[must_use]
    pub fn is_acked(&self, reading: u64) -> bool {
        self.acked.contains(reading)
    }

    /// The acknowledged readings, in order.
    pub fn acked_readings(&self) -> impl Iterator<Item = u64> + '_ {
        self.acked.iter()
    }

    /// To how many MQTT publishes the reading was handed; 0 when it was never sent.
    #[must_use]
    pub fn publishes(&self, reading: u64) -> u32 {
        if (1..=self.sent).contains(&reading) {
            1 + self.again.get(&reading).copied().unwrap_or_default()
        } else {
            0
        }
    }

    /// The sums of this device.
    #[must_use]
    pub fn totals(&self) -> Totals {
        let qos0 = self.qos == Qos::AtMostOnce;
        let answered = self.acked.count() + self.refused.count();
        Totals {
            sent: self.sent,
            acked: self.acked.count(),
            qos0_sent: if qos0 { self.sent } else { 0 },
            refused: self.refused.count(),
            unacked: if qos0 { 0 } else { self.sent.saturating_sub(answered) },
            resends: self.again.values().copied().map(u64::from).sum(),
        }
    }
}

// === impl Ledger ===

impl Ledger {
    /// Adds the account of a device.
    ///
    /// # Errors
    /// When the device has one already.
    pub fn insert(&mut self, device: String, account: DeviceLedger) -> Result<(), LedgerError> {
        if self.index.contains_key(&device) {
            return Err(LedgerError::TwoAccounts);
        }
        self.index.insert(device.clone(), self.devices.len());
        self.devices.push((device, account));
        Ok(())
    }

    /// How many devices have an account.
    #[must_use]
    pub fn len(&self) -> usize {
        self.devices.len()
    }

    /// Whether there is no account at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.devices.is_empty()
    }

    /// The position of a device's account.
    #[must_use]
    pub fn position(&self, device: &str) -> Option<usize> {
        self.index.get(device).copied()
    }

    /// The accounts, in the order in which they were added.
    #[must_use]
    pub fn devices(&self) -> &[(String, DeviceLedger)] {
        &self.devices
    }

    /// The sums over all devices.
    #[must_use]
    pub fn totals(&self) -> Totals {
        self.devices.iter().fold(Totals::default(), |sum, (_, account)| {
            let one = account.totals();
            Totals {
                sent: sum.sent + one.sent,
                acked: sum.acked + one.acked,
                qos0_sent: sum.qos0_sent + one.qos0_sent,
                refused: sum.refused + one.refused,
                unacked: sum.unacked + one.unacked,
                resends: sum.resends + one.resends,
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn ranges_behave_like_a_set(numbers in prop::collection::vec(1u64..60, 0..120)) {
            let mut ranges = Ranges::default();
            let mut model = BTreeSet::new();
            for number in numbers {
                prop_assert_eq!(ranges.insert(number), model.insert(number));
            }
            prop_assert_eq!(ranges.iter().collect::<Vec<_>>(), model.iter().copied().collect::<Vec<_>>());
            prop_assert_eq!(ranges.count(), u64::try_from(model.len()).unwrap());
            for number in 0..62 {
                prop_assert_eq!(ranges.contains(number), model.contains(&number));
            }
        }
    }

    #[test]
    fn ranges_stay_few_when_acks_come_in_order() {
        let mut ranges = Ranges::default();
        for number in 1..=100_000 {
            assert!(ranges.insert(number));
        }
        assert_eq!(ranges.ranges.len(), 1);
    }

    #[test]
    fn a_resend_is_a_publish_beyond_the_first() {
        let mut account = DeviceLedger::new(Qos::AtLeastOnce);
        for reading in [1, 2, 3, 2, 3, 3] {
            account.published(reading).unwrap();
        }
        assert_eq!([0, 1, 2, 3, 4].map(|reading| account.publishes(reading)), [0, 1, 2, 3, 0]);
        account.acked(1).unwrap();
        account.acked(1).unwrap();
        account.refused(2).unwrap();
        assert_eq!(
            account.totals(),
            Totals { sent: 3, acked: 1, qos0_sent: 0, refused: 1, unacked: 1, resends: 3 }
        );
    }

    #[test]
    fn contradictions_are_errors() {
        let mut account = DeviceLedger::new(Qos::AtLeastOnce);
        assert_eq!(account.published(2), Err(LedgerError::Skipped { reading: 2, sent: 0 }));
        assert_eq!(account.published(0), Err(LedgerError::Skipped { reading: 0, sent: 0 }));
        assert_eq!(account.acked(1), Err(LedgerError::NeverSent { reading: 1, sent: 0 }));
        let mut ledger = Ledger::default();
        ledger.insert("a".to_owned(), account.clone()).unwrap();
        assert_eq!(ledger.insert("a".to_owned(), account), Err(LedgerError::TwoAccounts));
    }

    #[test]
    fn qos0_readings_are_sent_and_never_waited_for() {
        let mut account = DeviceLedger::new(Qos::AtMostOnce);
        account.published(1).unwrap();
        let mut ledger = Ledger::default();
        ledger.insert("a".to_owned(), account).unwrap();
        assert_eq!(ledger.totals(), Totals { sent: 1, qos0_sent: 1, ..Totals::default() });
    }
}

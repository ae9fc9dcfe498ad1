//! What follows from the seed: who the devices are and what each of them does.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};
use testkit::ledger::Qos;

use crate::fault::{self, Episode};
use crate::profile::{Churn, Profile, Storm};

/// Shortest wait before a device connects again.
const BACKOFF_MIN: Duration = Duration::from_millis(100);
/// Longest wait before a device connects again.
const BACKOFF_MAX: Duration = Duration::from_secs(5);

/// One device of the fleet.
#[derive(Debug, Clone, PartialEq)]
pub struct DevicePlan {
    /// Its id, `device-000001` and so on; also its MQTT client id.
    pub id: String,
    /// How it publishes.
    pub qos: Qos,
    /// Whether it speaks MQTT 5.
    pub v5: bool,
    /// Time from the start of the fleet to its first connection.
    pub connect_after: Duration,
    /// Time from its start to its first reading, less than a period.
    pub phase: Duration,
    /// Average time between its readings.
    pub period: Duration,
    /// Whether its session outlives its connections.
    pub lasting: bool,
    /// Whether it changes its connection all the time.
    pub churns: bool,
    /// The seed of everything it decides later.
    pub seed: u64,
    /// What will be wrong with what it says, in the order of the profile.
    pub faults: Vec<Episode>,
}

/// How a device gives its connection up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// It closes the socket without a word.
    Close,
    /// It resets the connection, perhaps in the middle of a packet.
    Reset,
    /// It opens the next connection while this one is still open and unread.
    TakeOver,
}

/// The devices of a fleet.
///
/// The shares of QoS and protocol version are met exactly, whatever the size of the fleet; the rates
/// of the devices differ and sum up to `rate`. The same arguments give the same plan.
#[must_use]
pub fn devices(seed: u64, count: u32, rate: f64, profile: &Profile) -> Vec<DevicePlan> {
    let mut rng = StdRng::seed_from_u64(seed);
    let shares = [
        (Qos::AtMostOnce, profile.qos0_percent),
        (Qos::AtLeastOnce, profile.qos1_percent),
        (Qos::ExactlyOnce, profile.qos2_percent),
    ];
    let qos = deal(&shares, count, &mut rng);
    let v5 = deal(&[(true, profile.v5_percent), (false, 100 - profile.v5_percent.min(100))], count, &mut rng);
    let spread = f64::from(profile.rate_spread_percent) / 100.0;
    let weights: Vec<f64> = (0..count).map(|_| 1.0 + spread * rng.random_range(-1.0..=1.0)).collect();
    let sum: f64 = weights.iter().sum();
    let connect_every = Duration::from_secs(1) / profile.connect_per_second.max(1);
    // Apart from the others, so that a fleet without them stays what it was.
    let mut apart = StdRng::seed_from_u64(!seed);
    let yes_or_no = |percent: u8| [(true, percent), (false, 100 - percent.min(100))];
    let lasting = deal(&yes_or_no(profile.sessions.lasting_percent), count, &mut apart);
    let churns = deal(&yes_or_no(profile.churn.percent), count, &mut apart);
    let kinds = qos.into_iter().zip(v5).zip(lasting.into_iter().zip(churns));
    let devices = (0..count).zip(kinds.zip(weights));
    let mut devices: Vec<DevicePlan> = devices
        .map(|(index, (((qos, v5), (lasting, churns)), weight))| {
            let period = Duration::try_from_secs_f64(sum / (weight * rate)).unwrap_or(Duration::MAX / 2);
            DevicePlan {
                id: format!("device-{:06}", index + 1),
                qos,
                v5,
                connect_after: connect_every * index,
                phase: period.mul_f64(rng.random_range(0.0..1.0)),
                period,
                lasting,
                churns,
                seed: rng.random(),
                faults: Vec::new(),
            }
        })
        .collect();
    fault::assign(&profile.faults, seed, profile.duty, &mut devices);
    devices
}

/// Deals kinds to `count` places so that the shares (in percent, 100 together) are met, in random order.
fn deal<T: Copy>(shares: &[(T, u8)], count: u32, rng: &mut StdRng) -> Vec<T> {
    let mut dealt = Vec::new();
    let mut percent = 0_u64;
    for &(kind, share) in shares {
        percent += u64::from(share);
        // Rounded to the nearest whole device; the last kind ends at the count.
        let until = (u64::from(count) * percent + 50) / 100;
        dealt.resize(usize::try_from(until).unwrap_or(usize::MAX), kind);
    }
    dealt.shuffle(rng);
    dealt
}

/// The decisions of one device while it runs.
#[derive(Debug)]
pub struct Temper {
    rng: StdRng,
    storms: StdRng,
    backoff: Duration,
}

impl Temper {
    /// The decisions that follow from a device's seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let storms = StdRng::seed_from_u64(rng.random());
        Self { rng, storms, backoff: BACKOFF_MIN }
    }

    /// How long to wait before the next attempt to connect; doubles up to five seconds, with jitter.
    pub fn backoff(&mut self) -> Duration {
        let wait = self.backoff.mul_f64(self.rng.random_range(0.5..1.0));
        self.backoff = (self.backoff * 2).min(BACKOFF_MAX);
        wait
    }

    /// The gateway answered: the next wait is short again.
    pub fn settled(&mut self) {
        self.backoff = BACKOFF_MIN;
    }

    /// How long this device keeps its connection, and how it gives it up; `None` without churn.
    pub fn next_change(&mut self, churn: Churn) -> Option<(Duration, Change)> {
        let share = self.storms.random_range(0.2..1.8);
        let change = match self.storms.random_range(0..3) {
            0 => Change::Close,
            1 => Change::Reset,
            _ => Change::TakeOver,
        };
        let kept = Duration::try_from_secs_f64(churn.every_seconds * share).ok()?;
        (!kept.is_zero()).then_some((kept, change))
    }

    /// To which of so many gateways this device connects next.
    pub fn next_place(&mut self, places: usize) -> usize {
        // Nothing is drawn where there is no choice, so that such a fleet stays what it was.
        if places > 1 { self.storms.random_range(0..places) } else { 0 }
    }

    /// When this device drops its connection next, after `from` (both since the start of the fleet).
    ///
    /// `None` without storms. Devices of one storm drop within its first tenth of a second.
    pub fn next_drop(&mut self, from: Duration, storm: Storm) -> Option<Duration> {
        if storm.every_seconds <= 0.0 || storm.percent == 0 {
            return None;
        }
        let mut number = (from.as_secs_f64() / storm.every_seconds).floor();
        loop {
            number += 1.0;
            let jitter = self.storms.random_range(0.0..0.1);
            if self.storms.random_range(0..100) < storm.percent {
                return Duration::try_from_secs_f64(number * storm.every_seconds + jitter).ok();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_fleet() {
        let profile = Profile::default();
        let plan = devices(7, 50, 100.0, &profile);
        assert_eq!(plan, devices(7, 50, 100.0, &profile));
        assert_ne!(plan, devices(8, 50, 100.0, &profile));
    }

    #[test]
    fn shares_and_rate_are_met() {
        let plan = devices(1, 200, 1000.0, &Profile::default());
        let count = |qos| plan.iter().filter(|device| device.qos == qos).count();
        assert_eq!([Qos::AtMostOnce, Qos::AtLeastOnce, Qos::ExactlyOnce].map(count), [20, 160, 20]);
        assert_eq!(plan.iter().filter(|device| device.v5).count(), 100);
        let rate: f64 = plan.iter().map(|device| 1.0 / device.period.as_secs_f64()).sum();
        assert!((rate - 1000.0).abs() < 0.1, "{rate}");
        assert!(plan.iter().all(|device| device.phase < device.period));
        assert_eq!(plan.first().map(|device| device.id.as_str()), Some("device-000001"));
    }

    #[test]
    fn shares_of_sessions_and_churn_are_met_and_change_nothing_else() {
        let mut profile = Profile::default();
        let before = devices(1, 200, 1000.0, &profile);
        profile.sessions.lasting_percent = 70;
        profile.churn = Churn { percent: 10, every_seconds: 3.0 };
        let plan = devices(1, 200, 1000.0, &profile);
        let count = |is: fn(&DevicePlan) -> bool| plan.iter().filter(|device| is(device)).count();
        assert_eq!((count(|device| device.lasting), count(|device| device.churns)), (140, 20));
        let seeds =
            |plan: &[DevicePlan]| plan.iter().map(|device| (device.seed, device.qos)).collect::<Vec<_>>();
        assert_eq!(seeds(&before), seeds(&plan));
    }

    #[test]
    fn connections_are_changed_in_every_way_around_the_average() {
        let churn = Churn { percent: 10, every_seconds: 3.0 };
        let mut temper = Temper::new(5);
        let changes: Vec<_> = (0..300).filter_map(|_| temper.next_change(churn)).collect();
        assert!(changes.iter().all(|(kept, _)| (0.6..5.4).contains(&kept.as_secs_f64())));
        for wanted in [Change::Close, Change::Reset, Change::TakeOver] {
            assert!(changes.iter().filter(|(_, change)| *change == wanted).count() > 60);
        }
        assert_eq!(temper.next_change(Churn::default()), None);
    }

    #[test]
    fn devices_move_between_gateways_where_there_are_several() {
        let mut temper = Temper::new(5);
        let places: Vec<usize> = (0..100).map(|_| temper.next_place(2)).collect();
        assert!((30..70).contains(&places.iter().sum::<usize>()), "{places:?}");
        assert_eq!(Temper::new(5).next_place(1), 0);
    }

    #[test]
    fn a_single_device_gets_a_kind() {
        assert_eq!(devices(1, 1, 1.0, &Profile::default()).len(), 1);
    }

    #[test]
    fn backoff_grows_to_its_limit_and_starts_again() {
        let mut temper = Temper::new(3);
        let waits: Vec<Duration> = (0..10).map(|_| temper.backoff()).collect();
        assert!(waits[0] <= BACKOFF_MIN && waits.iter().all(|wait| *wait <= BACKOFF_MAX), "{waits:?}");
        assert!(waits[9] >= BACKOFF_MAX / 2, "{waits:?}");
        temper.settled();
        assert!(temper.backoff() <= BACKOFF_MIN);
    }

    #[test]
    fn storms_come_at_their_times_with_their_share() {
        let storm = Storm { every_seconds: 10.0, percent: 30 };
        let at = Duration::from_secs(1);
        let first: Vec<f64> = (0..1000)
            .filter_map(|seed| Temper::new(seed).next_drop(at, storm))
            .map(|at| at.as_secs_f64())
            .collect();
        assert!(first.iter().all(|at| at % 10.0 < 0.1 && *at >= 10.0), "{first:?}");
        let share = first.iter().filter(|at| **at < 11.0).count();
        assert!((200..400).contains(&share), "{share}");
        assert_eq!(Temper::new(1).next_drop(at, Storm::default()), None);
    }
}

//! What gets in the way of commands, and when: everything follows from the seed.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};

/// Average time between two troubles; a short drill has each kind once all the same.
const BETWEEN: Duration = Duration::from_secs(3);
/// How many locks are taken away at once.
const LOCKS: usize = 10;
/// How many operations are refused at once.
const BUSY: u32 = 30;

/// What is drilled.
#[derive(Debug, Clone, Copy)]
pub(super) struct Plan {
    pub(super) devices: u32,
    pub(super) commands: u64,
    /// Readings per second meanwhile, if it was said.
    pub(super) rate: Option<u32>,
    pub(super) lasts: Duration,
    pub(super) seed: u64,
}

/// Something that gets in the way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Trouble {
    /// Service Bus cuts every connection.
    Cut,
    /// It detaches every link.
    Detach,
    /// It stops answering on every connection, which stay open.
    Freeze,
    /// It asks for patience, so many times.
    Busy(u32),
    /// The locks of these sessions run out at once, if they are held.
    Locks(Vec<String>),
    /// Settlements are confirmed so many milliseconds late, until the next trouble.
    Slow(u32),
    /// This gateway is killed and comes back.
    Kill(usize),
}

impl Trouble {
    pub(super) const fn name(&self) -> &'static str {
        match self {
            Self::Cut => "connections cut",
            Self::Detach => "links detached",
            Self::Freeze => "connections frozen",
            Self::Busy(_) => "server busy",
            Self::Locks(_) => "locks taken away",
            Self::Slow(_) => "slow settlement",
            Self::Kill(_) => "gateway killed",
        }
    }
}

impl Plan {
    /// The readings per second of the fleet: enough for every device to be heard now and then.
    pub(super) fn rate(&self) -> u32 {
        self.rate.unwrap_or_else(|| (self.devices / 5).max(20))
    }

    pub(super) fn words(&self) -> String {
        let Self { devices, commands, lasts, seed, .. } = self;
        format!(
            "{} s, {commands} commands to {devices} devices of which 10 % change connections, 2 gateways, {} readings/s, seed {seed}",
            lasts.as_secs(),
            self.rate()
        )
    }

    /// The troubles in order, each with its time since the start: each kind once, then again in another order, from
    /// the first tenth to the last but one.
    pub(super) fn troubles(&self) -> Vec<(Duration, Trouble)> {
        let mut rng = StdRng::seed_from_u64(self.seed);
        let kinds = self.kinds(&mut rng).len();
        let wanted = (self.lasts.as_secs() / BETWEEN.as_secs()).max(kinds as u64);
        let wanted = usize::try_from(wanted).unwrap_or(usize::MAX).min(10_000);
        let mut troubles = Vec::new();
        while troubles.len() < wanted {
            let mut kinds = self.kinds(&mut rng);
            kinds.shuffle(&mut rng);
            troubles.extend(kinds);
        }
        troubles.truncate(wanted);
        let part = self.lasts.mul_f64(0.8) / u32::try_from(wanted).unwrap_or(u32::MAX);
        let times = (0..).map(|number: u32| self.lasts.mul_f64(0.1) + part * number);
        let jitter: Vec<f64> = (0..wanted).map(|_| rng.random_range(0.0..0.9)).collect();
        let times = times.zip(jitter).map(|(time, jitter)| time + part.mul_f64(jitter));
        times.zip(troubles).collect()
    }

    fn kinds(&self, rng: &mut StdRng) -> Vec<Trouble> {
        let device = |rng: &mut StdRng| format!("device-{:06}", rng.random_range(1..=self.devices));
        vec![
            Trouble::Cut,
            Trouble::Detach,
            Trouble::Freeze,
            Trouble::Busy(BUSY),
            Trouble::Locks((0..LOCKS).map(|_| device(rng)).collect()),
            Trouble::Slow(200),
            Trouble::Kill(rng.random_range(0..2)),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(seconds: u64, seed: u64) -> Plan {
        Plan { devices: 10, commands: 100, rate: None, lasts: Duration::from_secs(seconds), seed }
    }

    #[test]
    fn every_kind_comes_even_in_a_short_drill() {
        for seed in 0..20 {
            let troubles = plan(10, seed).troubles();
            let mut names: Vec<&str> = troubles.iter().map(|(_, trouble)| trouble.name()).collect();
            names.sort_unstable();
            names.dedup();
            assert_eq!((names.len(), troubles.len()), (7, 7), "seed {seed}: {names:?}");
        }
    }

    #[test]
    fn troubles_come_in_order_within_the_time_and_more_in_a_longer_drill() {
        let troubles = plan(60, 7).troubles();
        assert_eq!(troubles.len(), 20);
        assert!(troubles.is_sorted_by_key(|(at, _)| *at), "{troubles:?}");
        let middle = Duration::from_secs(6)..Duration::from_secs(54);
        assert!(troubles.iter().all(|(at, _)| middle.contains(at)), "{troubles:?}");
        assert_eq!(troubles, plan(60, 7).troubles());
        assert_ne!(troubles, plan(60, 8).troubles());
    }
}

//! When the gateway dies: moments that follow from the seed, spread over the load.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

/// Moments since the start of the load, in order: one at random in each of `kills` equal parts of its middle
/// (from 15 to 90 percent), so that every kill meets traffic.
pub(super) fn moments(kills: u32, seed: u64, load: Duration) -> Vec<Duration> {
    let mut random = StdRng::seed_from_u64(seed);
    let part = 0.75 / f64::from(kills.max(1));
    let moment = |index: u32| {
        let share = 0.15 + part * (f64::from(index) + random.random_range(0.0..1.0));
        load.mul_f64(share)
    };
    (0..kills).map(moment).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOAD: Duration = Duration::from_secs(100);

    #[test]
    fn the_same_seed_kills_at_the_same_moments() {
        assert_eq!(moments(5, 7, LOAD), moments(5, 7, LOAD));
        assert_ne!(moments(5, 7, LOAD), moments(5, 8, LOAD));
    }

    #[test]
    fn kills_come_in_order_and_under_load() {
        for kills in 0..20 {
            let moments = moments(kills, u64::from(kills), LOAD);
            assert_eq!(moments.len(), kills as usize);
            assert!(moments.is_sorted(), "{moments:?}");
            let middle = Duration::from_secs(15)..Duration::from_secs(90);
            assert!(moments.iter().all(|moment| middle.contains(moment)), "{moments:?}");
        }
    }
}

//! The verdict over those who have nothing to do with it: whether telemetry notices that alerts cannot be sent.

use serde::Serialize;

/// What one run showed of telemetry.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Showing {
    /// Messages acknowledged per second.
    pub acked_per_s: f64,
    /// 99 percent of them were within this time, in milliseconds.
    pub ack_p99_ms: f64,
    /// Processor time of the gateway per message, in microseconds.
    pub cpu_us: f64,
}

/// What is tolerated.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Bounds {
    /// Least share of the acknowledged messages per second.
    pub share_min: f64,
    /// Least share that the processor time per message without trouble has of that with it. Where the runs without it
    /// differ by more among themselves, that is the bound: less than the noise is not told.
    pub cpu_share_min: f64,
    /// The 99th percentile may be so many times as long …
    pub p99_factor_max: f64,
    /// … and this much on top, in milliseconds.
    pub p99_more_ms: f64,
}

/// The verdict over one kind of trouble.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Difference {
    /// Medians without the trouble.
    pub well: Showing,
    /// Medians with it.
    pub away: Showing,
    /// Acknowledged messages per second with the trouble, of those without.
    pub acked_share: f64,
    /// Processor time per message without the trouble, of that with it: below 1 if the trouble costs something.
    pub cpu_share: f64,
    /// The least processor time per message without the trouble, of the most.
    pub cpu_noise: f64,
    /// What was promised and not kept, one sentence each.
    pub reasons: Vec<String>,
}

/// Compares runs with a trouble with those without.
#[must_use]
pub fn weigh_bystanders(well: &[Showing], away: &[Showing], bounds: Bounds) -> Difference {
    let figures = || well.iter().map(|showing| showing.cpu_us);
    let cpu_noise = share(figures().fold(f64::MAX, f64::min), figures().fold(0.0, f64::max));
    let (well, away) = (medians(well), medians(away));
    let acked_share = share(away.acked_per_s, well.acked_per_s);
    let cpu_share = share(well.cpu_us, away.cpu_us);
    let mut reasons = Vec::new();
    if acked_share < bounds.share_min {
        reasons.push(format!(
            "{:.0} messages/s were acknowledged, {:.0} without the trouble: a share of {acked_share:.3}",
            away.acked_per_s, well.acked_per_s
        ));
    }
    if cpu_share < bounds.cpu_share_min.min(cpu_noise) {
        reasons.push(format!(
            "a message cost {:.2} us of processor time, {:.2} us without the trouble: a share of {cpu_share:.3}",
            away.cpu_us, well.cpu_us
        ));
    }
    if away.ack_p99_ms > well.ack_p99_ms * bounds.p99_factor_max + bounds.p99_more_ms {
        reasons.push(format!(
            "99 percent were acknowledged within {:.1} ms, {:.1} ms without the trouble",
            away.ack_p99_ms, well.ack_p99_ms
        ));
    }
    Difference { well, away, acked_share, cpu_share, cpu_noise, reasons }
}

fn medians(all: &[Showing]) -> Showing {
    let of = |figure: fn(&Showing) -> f64| median(all.iter().map(figure).collect());
    Showing {
        acked_per_s: of(|showing| showing.acked_per_s),
        ack_p99_ms: of(|showing| showing.ack_p99_ms),
        cpu_us: of(|showing| showing.cpu_us),
    }
}

/// The middle one, or the mean of the two in the middle; 0 of none.
pub fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    let middle = figures.len() / 2;
    let upper = figures.get(middle).copied().unwrap_or_default();
    match middle.checked_sub(1).and_then(|lower| figures.get(lower)) {
        Some(lower) if figures.len().is_multiple_of(2) => f64::midpoint(*lower, upper),
        _ => upper,
    }
}

/// What nothing is a share of is not there: 0, which no bound lets pass.
fn share(part: f64, whole: f64) -> f64 {
    if whole > 0.0 { part / whole } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: Bounds =
        Bounds { share_min: 0.95, cpu_share_min: 0.95, p99_factor_max: 2.0, p99_more_ms: 5.0 };
    const WELL: Showing = Showing { acked_per_s: 1000.0, ack_p99_ms: 4.0, cpu_us: 20.0 };

    fn check(away: Showing, expected: &[&str]) {
        let reasons = weigh_bystanders(&[WELL; 3], &[away; 3], BOUNDS).reasons;
        assert_eq!(reasons.len(), expected.len(), "{reasons:?}");
        for (reason, expected) in reasons.iter().zip(expected) {
            assert!(reason.contains(expected), "{reason}, expected {expected}");
        }
    }

    #[test]
    fn medians_are_in_the_middle() {
        let medians = [vec![3.0, 1.0, 2.0], vec![4.0, 1.0, 2.0, 3.0], vec![7.0], vec![]].map(median);
        assert_eq!(medians, [2.0, 2.5, 7.0, 0.0]);
    }

    #[test]
    fn telemetry_that_notices_nothing_passes() {
        check(WELL, &[]);
        check(Showing { acked_per_s: 951.0, ack_p99_ms: 12.9, cpu_us: 21.0 }, &[]);
    }

    #[test]
    fn telemetry_that_suffers_is_found_out() {
        check(Showing { acked_per_s: 949.0, ..WELL }, &["949 messages/s"]);
        check(Showing { cpu_us: 21.1, ..WELL }, &["21.10 us"]);
        check(Showing { ack_p99_ms: 13.1, ..WELL }, &["13.1 ms"]);
        check(Showing::default(), &["share of 0.000", "share of 0.000"]);
    }

    #[test]
    fn what_is_less_than_the_noise_is_not_told() {
        let cpu = |cpu_us| Showing { cpu_us, ..WELL };
        let noisy = [cpu(18.0), cpu(20.0), cpu(22.5)];
        let weigh = |cpu_us| weigh_bystanders(&noisy, &[cpu(cpu_us); 3], BOUNDS);
        assert_eq!((weigh(24.9).cpu_noise, weigh(24.9).reasons.len()), (0.8, 0));
        assert_eq!(weigh(25.1).reasons.len(), 1);
    }

    #[test]
    fn one_run_that_was_disturbed_decides_nothing() {
        let disturbed = Showing { acked_per_s: 10.0, ack_p99_ms: 900.0, cpu_us: 90.0 };
        let found = weigh_bystanders(&[WELL; 3], &[WELL, disturbed, WELL], BOUNDS);
        assert_eq!((found.reasons.len(), found.acked_share), (0, 1.0));
    }
}

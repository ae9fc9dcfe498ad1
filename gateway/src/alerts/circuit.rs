//! When a sink may try again. No clock and no dice of its own.

use std::time::{Duration, Instant};

/// Pauses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Retry {
    /// The bound of the first.
    pub(super) first: Duration,
    /// The bound of all.
    pub(super) longest: Duration,
    /// Between probes while the circuit is open.
    pub(super) probe_interval: Duration,
}

/// Pauses after failures, and the circuit that opens when trying at once again is pointless.
#[derive(Debug)]
pub(super) struct Circuit {
    retry: Retry,
    /// Not before then.
    due: Option<Instant>,
    /// Failures since the last success.
    failures: u32,
    /// Why everything waits, if it does.
    open: Option<Trouble>,
    /// Whether the credential was renewed since the last success.
    renewed: bool,
    /// Events that were refused for good since the last success.
    refused: u32,
}

/// Why everything waits until somebody changes something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Trouble {
    /// The credential is refused.
    Credential,
    /// There is no such topic, or what answers is not Event Grid.
    Configuration,
    /// Every event is refused, one after the other: it cannot be the events.
    EverythingRefused,
    /// Lane `dead` has no room for what is refused.
    DeadLettersFull,
}

/// So many events refused in a row may be the events' own fault; with more the circuit opens, and one per probe is
/// given up, until another is accepted.
const REFUSED_MAX: u32 = 10;

// === impl Circuit ===

impl Circuit {
    pub(super) const fn new(retry: Retry) -> Self {
        Self { retry, due: None, failures: 0, open: None, renewed: false, refused: 0 }
    }

    /// When the next request may be sent; `None`: now.
    pub(super) const fn due(&self) -> Option<Instant> {
        self.due
    }

    pub(super) const fn trouble(&self) -> Option<Trouble> {
        self.open
    }

    /// Events were accepted.
    pub(super) const fn succeed(&mut self) {
        *self = Self::new(self.retry);
    }

    /// A request is about to be sent.
    pub(super) const fn go(&mut self) {
        self.due = None;
    }

    /// A request failed at `now` and is sent again after `at_least`, if that is said, else after a pause between
    /// nothing and a bound that doubles. `dice` is from 0 to 1.
    pub(super) fn fail(&mut self, now: Instant, at_least: Option<Duration>, dice: f64) {
        let bound = self.retry.first.saturating_mul(1 << self.failures.min(20)).min(self.retry.longest);
        self.failures = self.failures.saturating_add(1);
        self.pause(now, at_least.unwrap_or_else(|| bound.mul_f64(dice)));
    }

    /// Nothing is sent for `pause` from `now` on.
    pub(super) fn pause(&mut self, now: Instant, pause: Duration) {
        self.due = now.checked_add(pause);
    }

    /// The circuit opens at `now`, or stays so: the next request is a probe, after an interval give or take a tenth.
    pub(super) fn open(&mut self, trouble: Trouble, now: Instant, dice: f64) {
        self.open = Some(trouble);
        self.pause(now, self.retry.probe_interval.mul_f64(dice.mul_add(0.2, 0.9)));
    }

    /// Lane `dead` has room.
    pub(super) fn room_again(&mut self) {
        if self.open == Some(Trouble::DeadLettersFull) {
            self.open = None;
        }
    }

    /// Whether the credential may be renewed and tried again at once: once.
    pub(super) const fn may_renew(&mut self) -> bool {
        let may = !self.renewed;
        self.renewed = true;
        may
    }

    /// Whether an event that is refused may be given up now. If not, the circuit is to open.
    pub(super) const fn may_give_up(&self) -> bool {
        self.refused < REFUSED_MAX || self.open.is_some()
    }

    /// An event was given up at `now`. The service answers, so the circuit closes, unless it was one of a long row.
    pub(super) fn gave_up(&mut self, now: Instant, dice: f64) {
        self.refused = self.refused.saturating_add(1);
        if self.refused > REFUSED_MAX {
            self.open(Trouble::EverythingRefused, now, dice);
        } else {
            (self.open, self.failures) = (None, 0);
        }
    }
}

impl Trouble {
    pub(super) const ALL: [Self; 4] =
        [Self::Credential, Self::Configuration, Self::EverythingRefused, Self::DeadLettersFull];

    /// Its word in the metrics and for operators.
    #[must_use]
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Credential => "credential",
            Self::Configuration => "configuration",
            Self::EverythingRefused => "everything-refused",
            Self::DeadLettersFull => "dead-letters-full",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::supervise::clock;

    const RETRY: Retry = Retry {
        first: Duration::from_millis(500),
        longest: Duration::from_secs(60),
        probe_interval: Duration::from_secs(30),
    };

    fn pauses(circuit: &mut Circuit, dice: f64, count: usize) -> Vec<u128> {
        let now = clock::now();
        let pause = |_| {
            circuit.fail(now, None, dice);
            (circuit.due().unwrap() - now).as_millis()
        };
        (0..count).map(pause).collect()
    }

    #[test]
    fn pauses_are_drawn_below_a_bound_that_doubles_and_start_over() {
        let mut circuit = Circuit::new(RETRY);
        let expected = [500, 1_000, 2_000, 4_000, 8_000, 16_000, 32_000, 60_000, 60_000];
        assert_eq!(pauses(&mut circuit, 1.0, 9), expected);
        assert_eq!(pauses(&mut circuit, 0.25, 1), [15_000]);
        assert_eq!(pauses(&mut circuit, 0.0, 1), [0]);
        circuit.succeed();
        assert_eq!(circuit.due(), None);
        assert_eq!(pauses(&mut circuit, 1.0, 1), [500]);
        assert_eq!(pauses(&mut Circuit::new(RETRY), 1.0, 100)[99], 60_000);
    }

    #[test]
    fn what_the_service_asks_for_is_kept_to() {
        let (mut circuit, now) = (Circuit::new(RETRY), clock::now());
        circuit.fail(now, Some(Duration::from_secs(7)), 0.5);
        assert_eq!(circuit.due(), Some(now + Duration::from_secs(7)));
    }

    #[test]
    fn an_open_circuit_lets_a_probe_through_and_a_success_closes_it() {
        let (mut circuit, now) = (Circuit::new(RETRY), clock::now());
        for (dice, expected) in [(0.0, 27_000), (0.5, 30_000), (1.0, 33_000)] {
            circuit.open(Trouble::Configuration, now, dice);
            assert_eq!((circuit.due().unwrap() - now).as_millis(), expected);
        }
        circuit.go();
        assert_eq!((circuit.due(), circuit.trouble()), (None, Some(Trouble::Configuration)));
        circuit.succeed();
        assert_eq!(circuit.trouble(), None);
    }

    #[test]
    fn room_in_lane_dead_ends_that_trouble_only() {
        let (mut circuit, now) = (Circuit::new(RETRY), clock::now());
        for (trouble, expected) in
            [(Trouble::DeadLettersFull, None), (Trouble::Credential, Some(Trouble::Credential))]
        {
            circuit.open(trouble, now, 0.5);
            circuit.room_again();
            assert_eq!(circuit.trouble(), expected);
        }
    }

    #[test]
    fn the_credential_is_renewed_once_per_success() {
        let mut circuit = Circuit::new(RETRY);
        assert!(circuit.may_renew() && !circuit.may_renew());
        circuit.succeed();
        assert!(circuit.may_renew());
    }

    #[test]
    fn many_refused_events_in_a_row_are_not_given_up_at_once() {
        let (mut circuit, now) = (Circuit::new(RETRY), clock::now());
        circuit.open(Trouble::Configuration, now, 0.5);
        for _ in 0..REFUSED_MAX {
            assert!(circuit.may_give_up());
            circuit.gave_up(now, 0.5);
            assert_eq!(circuit.trouble(), None);
        }
        assert!(!circuit.may_give_up());
        circuit.open(Trouble::EverythingRefused, now, 0.5);
        circuit.go();
        assert!(circuit.may_give_up(), "one per probe");
        circuit.gave_up(now, 0.5);
        assert_eq!(circuit.trouble(), Some(Trouble::EverythingRefused));
        assert_eq!(circuit.due(), Some(now + RETRY.probe_interval));
        circuit.succeed();
        assert!(circuit.may_give_up());
    }
}

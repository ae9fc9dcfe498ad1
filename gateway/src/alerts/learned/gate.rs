//! Calm: after an alert a while without, unless things get much worse.

/// A surprise must be so many times the one that raised the alert to raise another in its quiet time.
const WORSE: f32 = 1.5;
/// As if the last alert had been for ever ago.
const LONG_AGO: f32 = -1e9;

/// Whether a score is an alert, given the alerts before.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Gate {
    /// Usual intervals that are still quiet; below zero, how many ago that was.
    pub(super) quiet: f32,
    /// The surprise that raised the last alert. Below zero if that alert came on the heels of another one: whatever it
    /// is about, it stays, and has to be learned.
    pub(super) level: f32,
}

impl Gate {
    /// No alert yet.
    pub const NEW: Self = Self { quiet: LONG_AGO, level: 0.0 };

    /// Takes the next score of a series, `steps` usual intervals after the last one. An alert is followed by `quiet`
    /// intervals in which only a much larger one is an alert.
    pub fn pass(&mut self, quiet: f32, threshold: f32, score: f32, steps: f32) -> bool {
        self.quiet = (self.quiet - steps).max(LONG_AGO);
        if score < threshold {
            return false;
        }
        // The score grows towards 1; what is compared grows without end.
        let level = score / (1.0 - score);
        if self.is_quiet() && level <= self.level.abs() * WORSE {
            return false;
        }
        let again = !self.is_quiet() && self.quiet > -quiet;
        *self = Self { quiet, level: if again { -level } else { level } };
        true
    }

    /// Whether it is in the quiet time after an alert.
    pub(super) fn is_quiet(&self) -> bool {
        self.quiet > 0.0
    }

    /// Whether what raised the last alert is not to be learned yet.
    pub(super) fn holds_learning(&self) -> bool {
        self.is_quiet() && self.level > 0.0
    }
}

impl Default for Gate {
    fn default() -> Self {
        Self::NEW
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_alert_is_followed_by_quiet_that_only_worse_breaks() {
        let mut gate = Gate::NEW;
        let scores = [0.4, 0.5, 0.52, 0.5, 0.5, 0.5, 0.65, 0.66];
        let passed = scores.map(|score| gate.pass(3.0, 0.5, score, 1.0));
        assert_eq!(passed, [false, true, false, false, true, false, true, false]);
    }

    #[test]
    fn quiet_passes_with_time_and_not_with_samples() {
        let mut gate = Gate::NEW;
        assert!(gate.pass(100.0, 0.5, 0.5, 1.0));
        assert!(!gate.pass(100.0, 0.5, 0.5, 99.0));
        assert!(gate.pass(100.0, 0.5, 0.5, 1.0));
    }

    #[test]
    fn what_comes_again_at_once_is_learned() {
        let mut gate = Gate::NEW;
        assert!(gate.pass(10.0, 0.5, 0.6, 1.0) && gate.holds_learning());
        assert!(gate.pass(10.0, 0.5, 0.6, 10.0) && gate.is_quiet() && !gate.holds_learning());
        assert!(gate.pass(10.0, 0.5, 0.6, 21.0) && gate.holds_learning());
    }
}

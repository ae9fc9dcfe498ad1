//! Lanes: the ordered streams of the outbox.

use std::fmt;

use serde::{Deserialize, Serialize};

/// An ordered stream of the outbox with its own numbering, in order of priority.
///
/// Order is kept within a lane and given up between lanes. The number is part of the on-disk and
/// on-wire formats and never changes its meaning.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[repr(u8)]
pub enum Lane {
    /// Alerts; the only lane that does not wait for the commit floor.
    Alerts = 0,
    /// Status events of commands and of the gateway itself.
    Status = 1,
    /// What devices measure.
    Telemetry = 2,
    /// Large or patient uploads.
    Bulk = 3,
    /// Entries that a destination refused for good.
    Dead = 4,
}

impl Lane {
    /// Every lane, highest priority first.
    pub const ALL: [Self; 5] = [Self::Alerts, Self::Status, Self::Telemetry, Self::Bulk, Self::Dead];
    /// How many lanes there are.
    pub const COUNT: usize = Self::ALL.len();

    /// The lane's number, as stored and sent.
    #[must_use]
    pub const fn number(self) -> u8 {
        self as u8
    }

    /// The lane's place in an array with one element per lane.
    #[must_use]
    pub const fn index(self) -> usize {
        self as usize
    }

    /// The lane's element of an array with one per lane.
    pub const fn pick<T>(self, all: &[T; Self::COUNT]) -> &T {
        let [alerts, status, telemetry, bulk, dead] = all;
        match self {
            Self::Alerts => alerts,
            Self::Status => status,
            Self::Telemetry => telemetry,
            Self::Bulk => bulk,
            Self::Dead => dead,
        }
    }

    /// The lane's name, as in configuration, metrics and logs.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Alerts => "alerts",
            Self::Status => "status",
            Self::Telemetry => "telemetry",
            Self::Bulk => "bulk",
            Self::Dead => "dead",
        }
    }
}

impl fmt::Display for Lane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A lane number that no version of the format defines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("unknown lane number {0}, expected 0 to 4")]
pub struct UnknownLane(pub u8);

impl TryFrom<u8> for Lane {
    type Error = UnknownLane;

    fn try_from(number: u8) -> Result<Self, UnknownLane> {
        Self::ALL.get(usize::from(number)).copied().ok_or(UnknownLane(number))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_round_trip_and_unknown_ones_are_refused() {
        for lane in Lane::ALL {
            assert_eq!(Lane::try_from(lane.number()), Ok(lane));
            assert_eq!(lane.index(), usize::from(lane.number()));
        }
        assert_eq!(Lane::try_from(5), Err(UnknownLane(5)));
    }
}

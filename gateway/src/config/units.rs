//! Values with units, as people write them: `"64MiB"`, `"250ms"`.

use std::fmt;
use std::time::Duration;

/// A number of bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ByteSize(pub u64);

const SIZES: [(&str, u64); 5] =
    [("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];
const TIMES: [(&str, u64); 5] =
    [("h", 3_600_000_000), ("min", 60_000_000), ("s", 1_000_000), ("ms", 1_000), ("us", 1)];

impl ByteSize {
    /// One binary kilobyte.
    pub const KIB: u64 = 1 << 10;
    /// One binary megabyte.
    pub const MIB: u64 = 1 << 20;
    /// One binary gigabyte.
    pub const GIB: u64 = 1 << 30;
    /// One binary terabyte.
    pub const TIB: u64 = 1 << 40;

    /// Parses a whole number with one of the units B, KiB, MiB, GiB, TiB.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        scaled(text, &SIZES).map(Self)
    }

    /// The size for use as a length; saturates on machines with smaller addresses.
    #[must_use]
    pub fn as_usize(self) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&spelled(self.0, &SIZES))
    }
}

/// Parses a whole number with one of the units us, ms, s, min, h.
#[must_use]
pub fn parse_duration(text: &str) -> Option<Duration> {
    scaled(text, &TIMES).map(Duration::from_micros)
}

/// Writes a duration with the largest unit that divides it.
#[must_use]
pub fn show_duration(duration: Duration) -> String {
    if duration.is_zero() {
        return "0s".to_owned();
    }
    spelled(u64::try_from(duration.as_micros()).unwrap_or(u64::MAX), &TIMES)
}

fn scaled(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let digits = text.find(|c: char| !c.is_ascii_digit())?;
    let (number, unit) = text.split_at_checked(digits)?;
    let (_, scale) = units.iter().find(|(name, _)| *name == unit.trim_start())?;
    number.parse::<u64>().ok()?.checked_mul(*scale)
}

fn spelled(value: u64, units: &[(&str, u64)]) -> String {
    let fits = units.iter().find(|(_, scale)| value >= *scale && value.is_multiple_of(*scale));
    let (name, scale) = fits.or(units.last()).copied().unwrap_or(("", 1));
    format!("{}{name}", value / scale)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, bytes: Option<u64>) {
        assert_eq!(ByteSize::parse(text).map(|size| size.0), bytes, "{text}");
    }

    #[test]
    fn sizes_need_a_known_unit_and_must_fit() {
        check("64MiB", Some(64 << 20));
        check("1 KiB", Some(1024));
        check("0B", Some(0));
        check("64", None);
        check("64MB", None);
        check("-1B", None);
        check("1.5MiB", None);
        check("", None);
        check("MiB", None);
        check("99999999TiB", None);
    }

    #[test]
    fn durations_parse_and_are_shown_in_their_largest_whole_unit() {
        for text in ["250ms", "10s", "5min", "2h", "1us", "0s"] {
            assert_eq!(parse_duration(text).map(show_duration).as_deref(), Some(text));
        }
        assert_eq!(parse_duration("1500ms").map(show_duration).as_deref(), Some("1500ms"));
        assert_eq!(parse_duration("5 m"), None);
        assert_eq!(ByteSize(64 << 20).to_string(), "64MiB");
        assert_eq!(ByteSize(0).to_string(), "0B");
    }
}

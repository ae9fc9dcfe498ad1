//! When it was measured: the device's word if it can be true, else when the gateway took the message in.

use penstock_proto::text::parse_time_ms;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// How far a device's clock may be ahead of the gateway's, in milliseconds.
pub(super) const AHEAD_MS_MAX: u64 = 10 * 60 * 1000;
/// The start of 2020 in Unix milliseconds: a device that says less has not set its clock.
pub(super) const EARLIEST_MS: u64 = 1_577_836_800_000;
/// Numbers from here on are milliseconds (of March 1973), below it seconds (up to the year 5138).
const MILLISECONDS_FROM: f64 = 1e11;
/// No time that can be true is above it, and it is exact: the year 287,396.
const MILLISECONDS_BELOW: f64 = 9_007_199_254_740_992.0;
/// What stands for a time that could not be read: it cannot be true.
pub(super) const UNREADABLE: u64 = 0;

/// What is known of a message's time besides its payload.
#[derive(Debug, Clone, Copy)]
pub(super) struct Times {
    /// When the gateway took it in, in Unix milliseconds.
    pub(super) received_ms: u64,
    /// The device's time stamp beside the payload, in Unix milliseconds.
    pub(super) stamped_ms: Option<u64>,
}

impl Times {
    /// Whether a device can have measured something then.
    pub(super) const fn can_be(self, at_ms: u64) -> bool {
        at_ms >= EARLIEST_MS && at_ms <= self.received_ms.saturating_add(AHEAD_MS_MAX)
    }

    /// The time of a sample: that in the payload, else the stamp, else when it was received. What cannot be true is
    /// passed over; the number of those is added to `wrong`.
    pub(super) fn settle(self, told_ms: Option<u64>, wrong: &mut u64) -> u64 {
        for at_ms in [told_ms, self.stamped_ms].into_iter().flatten() {
            if self.can_be(at_ms) {
                return at_ms;
            }
            *wrong += 1;
        }
        self.received_ms
    }
}

/// A number as a time in Unix milliseconds: milliseconds if it is large, seconds otherwise.
pub(super) fn from_number(number: f64) -> u64 {
    let ms = if number >= MILLISECONDS_FROM { number } else { (number * 1000.0).round() };
    if !(0.0..MILLISECONDS_BELOW).contains(&ms) {
        return UNREADABLE;
    }
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "neither negative nor beyond 2^53"
    )]
    let ms = ms as u64;
    ms
}

/// RFC 3339 text as Unix milliseconds; what is below a millisecond is dropped.
pub(super) fn from_text(text: &str) -> u64 {
    let with_offset = || {
        let moment = OffsetDateTime::parse(text, &Rfc3339).ok()?;
        u64::try_from(moment.unix_timestamp_nanos().div_euclid(1_000_000)).ok()
    };
    parse_time_ms(text).or_else(with_offset).unwrap_or(UNREADABLE)
}

#[cfg(test)]
mod tests {
    use super::*;

    const RECEIVED_MS: u64 = 1_790_000_000_000;

    fn check(told_ms: Option<u64>, stamped_ms: Option<u64>, expected: (u64, u64)) {
        let times = Times { received_ms: RECEIVED_MS, stamped_ms };
        let mut wrong = 0;
        let at_ms = times.settle(told_ms, &mut wrong);
        assert_eq!((at_ms, wrong), expected, "{told_ms:?} {stamped_ms:?}");
    }

    #[test]
    fn a_time_that_can_be_true_is_believed() {
        check(None, None, (RECEIVED_MS, 0));
        check(Some(RECEIVED_MS - 5), Some(1), (RECEIVED_MS - 5, 0));
        check(None, Some(RECEIVED_MS - 7), (RECEIVED_MS - 7, 0));
        check(Some(EARLIEST_MS), None, (EARLIEST_MS, 0));
        check(Some(RECEIVED_MS + 600_000), None, (RECEIVED_MS + 600_000, 0));
    }

    #[test]
    fn a_time_that_cannot_be_true_is_counted_and_passed_over() {
        check(Some(EARLIEST_MS - 1), None, (RECEIVED_MS, 1));
        check(Some(RECEIVED_MS + 600_001), None, (RECEIVED_MS, 1));
        check(Some(UNREADABLE), Some(RECEIVED_MS - 7), (RECEIVED_MS - 7, 1));
        check(Some(u64::MAX), Some(0), (RECEIVED_MS, 2));
    }

    #[test]
    fn numbers_are_seconds_or_milliseconds_by_their_size() {
        for (number, expected) in [
            (1_790_000_000_123.0, 1_790_000_000_123),
            (1_790_000_000_123.9, 1_790_000_000_123),
            (1_790_000_000.0, 1_790_000_000_000),
            (1_790_000_000.123, 1_790_000_000_123),
            (99_999_999_999.0, 99_999_999_999_000),
            (100_000_000_000.0, 100_000_000_000),
            (0.0, 0),
            (-1.0, UNREADABLE),
            (-1e300, UNREADABLE),
            (1e300, UNREADABLE),
            (9_007_199_254_740_992.0, UNREADABLE),
            (f64::NAN, UNREADABLE),
            (f64::INFINITY, UNREADABLE),
        ] {
            assert_eq!(from_number(number), expected, "{number}");
        }
    }

    #[test]
    fn text_is_a_time_with_its_offset() {
        for (text, expected) in [
            ("2026-09-21T14:13:20Z", RECEIVED_MS),
            ("2026-09-21T14:13:20.5Z", RECEIVED_MS + 500),
            ("2026-09-21T16:13:20.123456+02:00", RECEIVED_MS + 123),
            ("2026-09-21T14:13:20z", RECEIVED_MS),
            ("1969-12-31T23:59:59Z", UNREADABLE),
            ("1969-12-31T23:59:59.9999+00:00", UNREADABLE),
            ("2026-09-21T14:13:20", UNREADABLE),
            ("2026-02-30T14:13:20Z", UNREADABLE),
            ("1790000000000", UNREADABLE),
            ("", UNREADABLE),
        ] {
            assert_eq!(from_text(text), expected, "{text}");
        }
    }
}

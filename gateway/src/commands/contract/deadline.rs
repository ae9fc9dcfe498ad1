//! Deadlines: until when a command is worth delivering, and its answer worth waiting for.

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::commands::message::Value;

/// Longest time after enqueueing, in seconds: a year.
pub(super) const SECONDS_MAX: i64 = 366 * 24 * 60 * 60;
/// What is expected of it.
pub(super) const EXPECTED: &str =
    "RFC 3339 text with an offset, or whole seconds after enqueueing from 1, and at most 31622400 s after it";

/// The deadline in Unix milliseconds; `None` if the value is none. A command that waits for its answer keeps those behind
/// it waiting, so a slip in the year must not keep a device's session for ever.
pub(super) fn read(value: &Value, enqueued_ms: u64) -> Option<u64> {
    let latest_ms = enqueued_ms.saturating_add(SECONDS_MAX.unsigned_abs() * 1000);
    moment(value, enqueued_ms).filter(|deadline_ms| *deadline_ms <= latest_ms)
}

fn moment(value: &Value, enqueued_ms: u64) -> Option<u64> {
    match value {
        Value::Text(text) => parse(text),
        Value::Integer(seconds) => {
            let seconds = u64::try_from(*seconds).ok().filter(|_| (1..=SECONDS_MAX).contains(seconds))?;
            Some(enqueued_ms.saturating_add(seconds * 1000))
        }
        Value::Time(ms) => Some(*ms),
        _ => None,
    }
}

/// The year 10000 begins, in Unix milliseconds: RFC 3339 writes years with four digits.
const WRITABLE_BEFORE_MS: u64 = 253_402_300_800_000;

/// RFC 3339 text, with `Z` or another offset, as Unix milliseconds; what is below a millisecond is dropped. A moment that
/// lies before 1970 or behind 9999 in UTC is none.
pub(crate) fn parse(text: &str) -> Option<u64> {
    let moment = OffsetDateTime::parse(text, &Rfc3339).ok()?;
    let unix_ms = u64::try_from(moment.unix_timestamp_nanos() / 1_000_000).ok()?;
    (moment.unix_timestamp() >= 0 && unix_ms < WRITABLE_BEFORE_MS).then_some(unix_ms)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ENQUEUED_MS: u64 = 1_790_000_000_000;

    fn check(value: Value, expected: Option<u64>) {
        assert_eq!(read(&value, ENQUEUED_MS), expected, "{value:?}");
    }

    #[test]
    fn a_deadline_is_a_time_or_a_number_of_seconds() {
        let text = |text: &str| Value::Text(text.to_owned());
        check(text("2026-09-21T14:13:20Z"), Some(1_790_000_000_000));
        check(text("2026-09-21T16:13:20.5+02:00"), Some(1_790_000_000_500));
        check(text("2026-09-21T14:13:20.123456789Z"), Some(1_790_000_000_123));
        check(Value::Integer(30), Some(ENQUEUED_MS + 30_000));
        check(Value::Integer(SECONDS_MAX), Some(ENQUEUED_MS + 31_622_400_000));
        check(Value::Time(1_790_000_000_007), Some(1_790_000_000_007));
        check(text("2020-01-01T00:00:00Z"), Some(1_577_836_800_000));
    }

    #[test]
    fn what_is_read_can_be_written() {
        assert_eq!(parse("9999-12-31T23:59:59.999Z"), Some(WRITABLE_BEFORE_MS - 1));
        // In UTC it is the first day of the year 10000.
        assert_eq!(parse("9999-12-31T23:59:59.0-23:59"), None);
        assert_eq!(parse("1970-01-01T00:00:00+00:01"), None);
    }

    #[test]
    fn a_deadline_is_a_year_after_enqueueing_at_most_however_it_is_said() {
        let latest_ms = ENQUEUED_MS + 31_622_400_000;
        check(Value::Time(latest_ms), Some(latest_ms));
        check(Value::Time(latest_ms + 1), None);
        check(Value::Time(u64::MAX), None);
        check(Value::Text("2027-09-22T14:13:20Z".to_owned()), Some(latest_ms));
        check(Value::Text("2027-09-22T14:13:20.001Z".to_owned()), None);
        check(Value::Text("9999-12-31T23:59:59Z".to_owned()), None);
    }

    #[test]
    fn what_is_no_deadline_is_refused() {
        let texts = ["", "30", "tomorrow", "2026-09-21", "2026-09-21T14:13:20", "1969-12-31T23:59:59Z", "9"];
        texts.iter().for_each(|text| check(Value::Text((*text).to_owned()), None));
        for seconds in [0, -1, i64::MIN, SECONDS_MAX + 1, i64::MAX] {
            check(Value::Integer(seconds), None);
        }
        check(Value::Double(30.0), None);
        check(Value::Bool(true), None);
        check(Value::Binary(b"30".to_vec()), None);
        check(Value::Other("map"), None);
        assert!(EXPECTED.contains(&SECONDS_MAX.to_string()));
    }
}

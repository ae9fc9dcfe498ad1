//! Points in time as people write them: RFC 3339 in UTC, from and to Unix milliseconds.

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

const NANOSECONDS_PER_MS: i128 = 1_000_000;

/// `unix_ms` as RFC 3339 with milliseconds, in UTC; what no calendar holds is shown as 1970.
pub(super) fn rfc3339(unix_ms: u64) -> String {
    let moment = OffsetDateTime::from_unix_timestamp_nanos(i128::from(unix_ms) * NANOSECONDS_PER_MS);
    let moment = moment.unwrap_or(OffsetDateTime::UNIX_EPOCH);
    let (year, month, day) = moment.to_calendar_date();
    let (hour, minute, second, ms) = moment.to_hms_milli();
    let month = u8::from(month);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{ms:03}Z")
}

/// Reads RFC 3339 with any offset, or Unix milliseconds.
pub(super) fn parse(text: &str) -> Result<u64, String> {
    let expected = || "expected RFC 3339 such as 2026-03-01T12:00:00Z, or Unix milliseconds".to_owned();
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        return text.parse().map_err(|_| expected());
    }
    let moment = OffsetDateTime::parse(text, &Rfc3339).map_err(|_| expected())?;
    let ms = moment.unix_timestamp_nanos().div_euclid(NANOSECONDS_PER_MS);
    u64::try_from(ms).map_err(|_| expected())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn check(text: &str, expected: Option<u64>) {
        assert_eq!(parse(text).ok(), expected, "{text}");
    }

    #[test]
    fn known_times_are_read_and_written() {
        // As GNU date says.
        let known = [
            ("1970-01-01T00:00:00.000Z", 0),
            ("2000-02-29T23:59:59.999Z", 951_868_799_999),
            ("2026-03-01T12:00:00.250Z", 1_772_366_400_250),
            ("2100-03-01T00:00:00.000Z", 4_107_542_400_000),
        ];
        for (text, ms) in known {
            assert_eq!(rfc3339(ms), text);
            check(text, Some(ms));
        }
        check("2026-03-01t13:30:00+01:30", Some(1_772_366_400_000));
        check("2026-03-01T11:00:00.5-01:00", Some(1_772_366_400_500));
        check("1772366400250", Some(1_772_366_400_250));
        assert_eq!(rfc3339(u64::MAX), "1970-01-01T00:00:00.000Z");
    }

    #[test]
    fn anything_else_is_refused() {
        for text in [
            "",
            "yesterday",
            "2026-03-01",
            "2026-03-01T12:00:00",
            "2026-02-29T12:00:00Z",
            "2026-03-01T24:00:00Z",
            "1969-12-31T23:59:59Z",
            "99999999999999999999999",
        ] {
            check(text, None);
        }
    }

    proptest! {
        #[test]
        fn times_round_trip(ms in 0_u64..253_402_300_800_000) {
            prop_assert_eq!(parse(&rfc3339(ms)), Ok(ms));
        }
    }
}

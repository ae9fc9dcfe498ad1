//! Numbers and times as text, written straight into a buffer: nothing here allocates.

#![cfg_attr(not(test), warn(clippy::indexing_slicing))]

/// Last instant that RFC 3339 can spell, `9999-12-31T23:59:59.999Z`, in Unix milliseconds.
pub const TIME_MS_MAX: u64 = 253_402_300_799_999;

/// The two digits of every number below 100.
const PAIRS: [[u8; 2]; 100] = pairs();

/// Writes times of one day after another quickly: the text up to the second is kept.
#[derive(Debug, Clone)]
pub struct TimeText {
    second: u64,
    /// `2026-11-21T05:58:00.` for [`Self::second`].
    text: [u8; 20],
}

/// Appends `value` in decimal.
pub fn push_decimal(out: &mut Vec<u8>, value: u64) {
    let mut digits = [0_u8; 20];
    let mut rest = value;
    let mut start = digits.len();
    for pair in digits.rchunks_exact_mut(2) {
        pair.copy_from_slice(two(rest % 100));
        rest /= 100;
        start -= 2;
        if rest == 0 {
            break;
        }
    }
    let written = digits.get(start..).unwrap_or_default();
    out.extend_from_slice(written.strip_prefix(b"0").filter(|rest| !rest.is_empty()).unwrap_or(written));
}

/// Appends `value` as 16 lower-case hexadecimal digits.
pub fn push_hex(out: &mut Vec<u8>, value: u64) {
    let mut digits = [0_u8; 16];
    for (place, digit) in digits.iter_mut().rev().enumerate() {
        let nibble = (value >> (4 * place)) & 0xf;
        *digit = if nibble < 10 { b'0' } else { b'a' - 10 } + low_byte(nibble);
    }
    out.extend_from_slice(&digits);
}

/// Reads a decimal number in its only spelling: no sign, no leading zero.
#[must_use]
pub fn parse_decimal(text: &str) -> Option<u64> {
    let plain = text.bytes().all(|byte| byte.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    if plain { text.parse().ok() } else { None }
}

/// Reads what [`TimeText::push`] writes, and the same with another number of digits after the second, or
/// none; digits beyond the millisecond are dropped. Times before 1970 are refused.
#[must_use]
pub fn parse_time_ms(text: &str) -> Option<u64> {
    let text = text.strip_suffix('Z')?;
    let (seconds, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let (date, time) = seconds.split_once('T')?;
    let mut date = date.split('-');
    let (year, month, day) = (date.next()?, date.next()?, date.next()?);
    let mut time = time.split(':');
    let (hour, minute, second) = (time.next()?, time.next()?, time.next()?);
    if date.next().is_some() || time.next().is_some() {
        return None;
    }
    let days = days_from_civil(digits(year, 4)?, digits(month, 2)?, digits(day, 2)?)?;
    let (hour, minute, second) = (digits(hour, 2)?, digits(minute, 2)?, digits(second, 2)?);
    if hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    if fraction.is_empty() || fraction.len() > 9 || !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let ms = fraction.bytes().chain(*b"00").take(3).fold(0, |ms, digit| ms * 10 + u64::from(digit - b'0'));
    Some((((days * 24 + hour) * 60 + minute) * 60 + second) * 1000 + ms)
}

// === impl TimeText ===

impl Default for TimeText {
    fn default() -> Self {
        Self { second: 0, text: *b"1970-01-01T00:00:00." }
    }
}

impl TimeText {
    /// Bytes of one time.
    pub const LEN: usize = 24;

    /// Appends Unix milliseconds as RFC 3339 in UTC, `2026-11-21T05:58:00.123Z`. Later ones than
    /// [`TIME_MS_MAX`] are written as that.
    pub fn push(&mut self, out: &mut Vec<u8>, unix_ms: u64) {
        let unix_ms = unix_ms.min(TIME_MS_MAX);
        let (second, ms) = (unix_ms / 1000, unix_ms % 1000);
        if second != self.second {
            self.set(second);
        }
        out.extend_from_slice(&self.text);
        let [tens, ones] = *two(ms % 100);
        out.extend_from_slice(&[b'0' + low_byte(ms / 100), tens, ones, b'Z']);
    }

    fn set(&mut self, second: u64) {
        self.second = second;
        let (days, rest) = (second / 86_400, second % 86_400);
        let (year, month, day) = civil_from_days(days);
        let parts = [year / 100, year % 100, month, day, rest / 3600, rest / 60 % 60, rest % 60];
        for (at, part) in [0, 2, 5, 8, 11, 14, 17].into_iter().zip(parts) {
            if let Some(place) = self.text.get_mut(at..at + 2) {
                place.copy_from_slice(two(part));
            }
        }
    }
}

#[expect(clippy::indexing_slicing, reason = "runs when compiled, where a slip is an error")]
const fn pairs() -> [[u8; 2]; 100] {
    let mut pairs = [[b'0'; 2]; 100];
    let mut tens = 0_u8;
    while tens < 10 {
        let mut ones = 0_u8;
        while ones < 10 {
            pairs[(tens * 10 + ones) as usize] = [b'0' + tens, b'0' + ones];
            ones += 1;
        }
        tens += 1;
    }
    pairs
}

/// The digits of a number below 100.
fn two(value: u64) -> &'static [u8; 2] {
    usize::try_from(value).ok().and_then(|place| PAIRS.get(place)).unwrap_or(b"00")
}

const fn low_byte(value: u64) -> u8 {
    (value & 0xff) as u8
}

fn digits(text: &str, count: usize) -> Option<u64> {
    let plain = text.len() == count && text.bytes().all(|byte| byte.is_ascii_digit());
    if plain { text.parse().ok() } else { None }
}

// The proleptic Gregorian calendar, counted in eras of 400 years that begin on the first of March.

const DAYS_PER_ERA: u64 = 146_097;
/// Days from 0000-03-01 to 1970-01-01.
const EPOCH_DAYS: u64 = 719_468;

fn civil_from_days(days: u64) -> (u64, u64, u64) {
    let days = days + EPOCH_DAYS;
    let (era, day) = (days / DAYS_PER_ERA, days % DAYS_PER_ERA);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day_of_year = day - (365 * year + year / 4 - year / 100);
    let march_month = (5 * day_of_year + 2) / 153;
    let day_of_month = day_of_year - (153 * march_month + 2) / 5 + 1;
    let month = if march_month < 10 { march_month + 3 } else { march_month - 9 };
    (era * 400 + year + u64::from(month <= 2), month, day_of_month)
}

fn days_from_civil(year: u64, month: u64, day: u64) -> Option<u64> {
    if !(1970..=9999).contains(&year) || !(1..=12).contains(&month) || !(1..=31).contains(&day) {
        return None;
    }
    let march_year = year - u64::from(month <= 2);
    let march_month = if month > 2 { month - 3 } else { month + 9 };
    let (era, of_era) = (march_year / 400, march_year % 400);
    let day_of_year = (153 * march_month + 2) / 5 + day - 1;
    let days = era * DAYS_PER_ERA + of_era * 365 + of_era / 4 - of_era / 100 + day_of_year - EPOCH_DAYS;
    // The 30th of February is no day.
    (civil_from_days(days) == (year, month, day)).then_some(days)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn time(unix_ms: u64) -> String {
        let mut out = Vec::new();
        TimeText::default().push(&mut out, unix_ms);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn times_are_rfc_3339() {
        for (unix_ms, expected) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_400_007, "2000-02-29T00:00:00.007Z"),
            (1_700_000_000_123, "2023-11-14T22:13:20.123Z"),
            (1_767_225_599_999, "2025-12-31T23:59:59.999Z"),
            (4_107_542_400_000, "2100-03-01T00:00:00.000Z"),
            (TIME_MS_MAX, "9999-12-31T23:59:59.999Z"),
            (u64::MAX, "9999-12-31T23:59:59.999Z"),
        ] {
            assert_eq!(time(unix_ms), expected);
        }
    }

    #[test]
    fn times_of_other_spellings() {
        for (text, expected) in [
            ("2023-11-14T22:13:20Z", Some(1_700_000_000_000)),
            ("2023-11-14T22:13:20.1Z", Some(1_700_000_000_100)),
            ("2023-11-14T22:13:20.123999Z", Some(1_700_000_000_123)),
            ("2023-11-14T22:13:20.Z", None),
            ("2023-11-14T22:13:20.123", None),
            ("2023-11-14T22:13:20.123+01:00", None),
            ("2023-02-29T00:00:00.000Z", None),
            ("2023-13-01T00:00:00.000Z", None),
            ("2023-12-01T24:00:00.000Z", None),
            ("1969-12-31T23:59:59.999Z", None),
            ("2023-11-14T22:13:+2Z", None),
            ("", None),
        ] {
            assert_eq!(parse_time_ms(text), expected, "{text}");
        }
    }

    proptest! {
        #[test]
        fn times_round_trip(unix_ms in 0..=TIME_MS_MAX, step in 0_u64..100_000) {
            let mut text = TimeText::default();
            for unix_ms in [unix_ms, unix_ms.saturating_add(step).min(TIME_MS_MAX), unix_ms] {
                let mut out = Vec::new();
                text.push(&mut out, unix_ms);
                prop_assert_eq!(out.len(), TimeText::LEN);
                prop_assert_eq!(parse_time_ms(std::str::from_utf8(&out).unwrap()), Some(unix_ms));
            }
        }

        #[test]
        fn numbers_are_spelled_as_the_standard_library_spells_them(value: u64, shift in 0_u32..64) {
            for value in [value >> shift, 0, 9, 10, 99, 100, u64::MAX] {
                let (mut decimal, mut hex) = (Vec::new(), Vec::new());
                push_decimal(&mut decimal, value);
                push_hex(&mut hex, value);
                prop_assert_eq!(String::from_utf8(decimal).unwrap(), value.to_string());
                prop_assert_eq!(String::from_utf8(hex).unwrap(), format!("{value:016x}"));
                prop_assert_eq!(parse_decimal(&value.to_string()), Some(value));
            }
        }

        #[test]
        fn junk_is_no_time_and_no_panic(text in "[0-9TZ:.+-]{0,30}|\\PC{0,30}") {
            if let Some(ms) = parse_time_ms(&text) {
                prop_assert!(ms <= TIME_MS_MAX);
            }
        }
    }
}

//! Times as text: RFC 3339, and the two forms in which Microsoft's libraries write the end of a signature.

/// Seconds since 1970 of a time as RFC 3339 has it, the fraction left out; `None` if it is none.
pub(super) fn rfc3339(text: &str) -> Option<i64> {
    let (date, time) = text.split_once(['T', 't'])?;
    let (clock, offset) = zone(time)?;
    Some(day(date)? * 86_400 + seconds(clock)? - offset?)
}

/// The end of a signature: `2026-11-21 00:00:00+00:00` (Python), also with `T`, or without a zone, which is UTC then;
/// `11/21/2026 12:00:00 AM` (.NET and JavaScript).
pub(super) fn expiry(text: &str) -> Option<i64> {
    if text.contains('/') {
        return american(text);
    }
    let (date, time) = text.split_once(['T', 't', ' '])?;
    let (clock, offset) = zone(time)?;
    Some(day(date)? * 86_400 + seconds(clock)? - offset.unwrap_or(0))
}

fn american(text: &str) -> Option<i64> {
    let (date, time) = text.split_once(' ')?;
    let (clock, half) = time.split_once(' ')?;
    let mut parts = date.split('/').map(|part| number(part, 1, 4));
    let (month, of_month, year) = (parts.next()??, parts.next()??, parts.next()??);
    let mut parts = clock.split(':').map(|part| number(part, 1, 2));
    let (hour, minute, second) = (parts.next()??, parts.next()??, parts.next()??);
    if !(1..=12).contains(&hour) || minute > 59 || second > 59 {
        return None;
    }
    let afternoon = match half {
        "AM" => 0,
        "PM" => 12,
        _ => return None,
    };
    Some(days(year, month, of_month)? * 86_400 + (hour % 12 + afternoon) * 3_600 + minute * 60 + second)
}

/// The clock and the seconds that it is ahead of UTC; none if there is no zone.
fn zone(time: &str) -> Option<(&str, Option<i64>)> {
    if let Some(clock) = time.strip_suffix(['Z', 'z']) {
        return Some((clock, Some(0)));
    }
    let Some(at) = time.find(['+', '-']) else { return Some((time, None)) };
    let (clock, rest) = (time.get(..at)?, time.get(at + 1..)?);
    let (hours, minutes) = rest.split_once(':')?;
    let (hours, minutes) = (number(hours, 2, 2)?, number(minutes, 2, 2)?);
    if hours > 23 || minutes > 59 {
        return None;
    }
    let ahead = hours * 3_600 + minutes * 60;
    Some((clock, Some(if time.contains('-') { -ahead } else { ahead })))
}

/// `hh:mm:ss`, perhaps with a fraction.
fn seconds(clock: &str) -> Option<i64> {
    let (clock, fraction) = match clock.split_once('.') {
        Some((clock, fraction)) => (clock, Some(fraction)),
        None => (clock, None),
    };
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if fraction.is_some_and(|fraction| !digits(fraction)) {
        return None;
    }
    let mut parts = clock.split(':').map(|part| number(part, 2, 2));
    let (hour, minute, second) = (parts.next()??, parts.next()??, parts.next()??);
    // A second may be a leap second.
    (parts.next().is_none() && hour <= 23 && minute <= 59 && second <= 60)
        .then_some(hour * 3_600 + minute * 60 + second)
}

/// `yyyy-mm-dd`.
fn day(date: &str) -> Option<i64> {
    let mut parts = date.split('-');
    let (year, month, of_month) = (parts.next()?, parts.next()?, parts.next()?);
    if parts.next().is_some() {
        return None;
    }
    days(number(year, 4, 4)?, number(month, 2, 2)?, number(of_month, 2, 2)?)
}

fn number(text: &str, least: usize, most: usize) -> Option<i64> {
    let digits = (least..=most).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| text.parse().ok())?
}

/// Days since 1970 in the Gregorian calendar.
fn days(year: i64, month: i64, day: i64) -> Option<i64> {
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let length = match month {
        1 | 3 | 5 | 7 | 8 | 10 | 12 => 31,
        4 | 6 | 9 | 11 => 30,
        2 if leap => 29,
        2 => 28,
        _ => return None,
    };
    if !(1..=length).contains(&day) {
        return None;
    }
    // Years that begin in March have the leap day at their end.
    let year = if month <= 2 { year - 1 } else { year };
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    Some(year * 365 + year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400) + of_year - 719_468)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_strictly() {
        let check = |text, expected| assert_eq!(rfc3339(text), expected, "{text}");
        check("1970-01-01T00:00:00Z", Some(0));
        check("2026-11-21T00:00:00Z", Some(1_795_219_200));
        check("2024-02-29T23:59:60.123456789z", Some(1_709_251_200));
        check("2026-11-21T01:00:00+01:00", Some(1_795_219_200));
        check("2026-11-20T19:00:00.5-05:00", Some(1_795_219_200));
        for wrong in [
            "yesterday",
            "2026-11-21",
            "2026-11-21T00:00:00",
            "2026-02-29T00:00:00Z",
            "2026-13-01T00:00:00Z",
            "2026-11-21 00:00:00Z",
            "2026-11-21T24:00:00Z",
            "2026-11-21T00:00:00.Z",
            "2026-11-21T0:00:00Z",
            "2026-11-21T00:00:00+0100",
            "2026-11-21T00:00:00+25:00",
            "26-11-21T00:00:00Z",
            "",
        ] {
            check(wrong, None);
        }
    }

    #[test]
    fn the_end_of_a_signature_has_two_forms() {
        let check = |text, expected| assert_eq!(expiry(text), expected, "{text}");
        check("2026-11-21 00:00:00+00:00", Some(1_795_219_200));
        check("2026-11-21T00:00:00", Some(1_795_219_200));
        check("11/21/2026 12:00:00 AM", Some(1_795_219_200));
        check("11/21/2026 1:02:03 PM", Some(1_795_219_200 + 13 * 3_600 + 123));
        check("6/5/2020 12:09:03 PM", Some(1_591_358_943));
        check("13/21/2026 1:02:03 PM", None);
        check("11/21/2026 13:02:03 PM", None);
        check("tomorrow", None);
    }
}

//! Windows of time that come again every week: `Mon-Fri 22:00-06:00 Europe/Paris`.
//!
//! A window is what a clock on the wall of that place shows. One that ends at or before the time it begins ends on the
//! next day; the weekday is that of its beginning. Where clocks are put forward over a limit, the limit moves by as much
//! as the clocks do; where a limit comes twice because they are put back, the window begins at the first and ends at the
//! second.

use jiff::civil::{Date, DateTime, Time, Weekday};
use jiff::tz::{TimeZone, TimeZoneDatabase};
use jiff::{Span, Timestamp};

/// A window, on some days of the week, in one time zone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Window {
    /// By weekday, Monday first.
    days: [bool; 7],
    begin: Time,
    /// Exclusive; midnight is the end of the day.
    end: Time,
    zone: TimeZone,
}

const DAYS: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];

impl Window {
    /// Reads one; the zone is UTC if none is given.
    ///
    /// # Errors
    ///
    /// What was expected.
    pub(super) fn parse(text: &str) -> Result<Self, &'static str> {
        const FORM: &str = "days, times and a time zone, as in \"Mon-Fri,Sun 22:00-06:00 Europe/Paris\" or \"daily 00:00-24:00\"";
        let mut words = text.split_ascii_whitespace();
        let (Some(days), Some(times)) = (words.next(), words.next()) else { return Err(FORM) };
        let zone = words.next().unwrap_or("UTC");
        if words.next().is_some() {
            return Err(FORM);
        }
        let (begin, end) = times.split_once('-').ok_or(FORM)?;
        let begin = time(begin).ok_or("a time from 00:00 to 23:59 at the beginning of the window")?;
        let end = if end == "24:00" { Some(Time::midnight()) } else { time(end) };
        let end = end.ok_or("a time from 00:00 to 24:00 at the end of the window")?;
        if begin == end && begin != Time::midnight() {
            return Err("a window that ends at another time than it begins");
        }
        Ok(Self {
            days: self::days(days).ok_or("days such as Mon, Mon-Fri, Sat,Sun or daily")?,
            begin,
            end,
            // The tables of this program, not those of the machine: a replay elsewhere finds the same.
            zone: TimeZoneDatabase::bundled()
                .get(zone)
                .map_err(|_| "a time zone of the IANA database, as Europe/Paris")?,
        })
    }

    /// The windows that begin on the day of this moment, the day before, or the two after, as Unix milliseconds.
    pub(super) fn around(&self, now: Timestamp) -> impl Iterator<Item = (u64, u64)> {
        let today = self.zone.to_datetime(now).date();
        (-1..=2_i64).filter_map(move |days| self.on(today.checked_add(Span::new().days(days)).ok()?))
    }

    /// The window that begins on this day.
    fn on(&self, day: Date) -> Option<(u64, u64)> {
        let place = usize::try_from(day.weekday().to_monday_zero_offset()).ok()?;
        if !*self.days.get(place)? {
            return None;
        }
        let last = if self.end <= self.begin { day.tomorrow().ok()? } else { day };
        let at = |date, time| self.zone.to_ambiguous_timestamp(DateTime::from_parts(date, time));
        let begin = at(day, self.begin).compatible().ok()?;
        let end = at(last, self.end).later().ok()?;
        let ms = |moment: Timestamp| u64::try_from(moment.as_millisecond()).ok();
        Some((ms(begin)?, ms(end)?))
    }
}

fn time(text: &str) -> Option<Time> {
    let (hour, minute) = text.split_once(':')?;
    let number = |text: &str| {
        let digits = text.len() == 2 && text.bytes().all(|byte| byte.is_ascii_digit());
        digits.then(|| text.parse::<i8>().ok()).flatten()
    };
    Time::new(number(hour)?, number(minute)?, 0, 0).ok()
}

fn days(text: &str) -> Option<[bool; 7]> {
    if text.eq_ignore_ascii_case("daily") {
        return Some([true; 7]);
    }
    let mut found = [false; 7];
    for part in text.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (mut day, last) = (weekday(first)?, weekday(last)?);
        loop {
            *found.get_mut(usize::try_from(day.to_monday_zero_offset()).ok()?)? = true;
            if day == last {
                break;
            }
            day = day.next();
        }
    }
    Some(found)
}

fn weekday(text: &str) -> Option<Weekday> {
    let place = DAYS.iter().position(|day| text.eq_ignore_ascii_case(day))?;
    Weekday::from_monday_zero_offset(i8::try_from(place).ok()?).ok()
}

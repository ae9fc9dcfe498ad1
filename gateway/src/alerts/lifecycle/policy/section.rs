//! A table of the rules file, read key by key.

use std::ops::RangeInclusive;
use std::time::Duration;

use toml::{Table, Value};

use super::PolicyError;
use crate::config::{parse_duration, show_duration};

/// A table and where it stands.
#[derive(Debug, Clone, Copy)]
pub(super) struct Section<'a> {
    pub(super) file: &'a str,
    /// `alerting.storm`, `mute[2]`.
    pub(super) path: &'a str,
    pub(super) table: &'a Table,
}

impl<'a> Section<'a> {
    /// # Errors
    ///
    /// On a key that is none of these.
    pub(super) fn only(&self, keys: &[&str]) -> Result<(), PolicyError> {
        let unknown = self.table.iter().find(|(key, _)| !keys.contains(&key.as_str()));
        unknown.map_or(Ok(()), |(key, value)| {
            Err(self.error(key, value, &format!("one of the keys {}", keys.join(", "))))
        })
    }

    pub(super) fn error(&self, key: &str, value: &Value, expected: &str) -> PolicyError {
        let value = match value {
            Value::String(_) | Value::Array(_) | Value::Table(_) => shown(value),
            other => other.to_string(),
        };
        PolicyError {
            file: self.file.to_owned(),
            key: format!("{}.{key}", self.path),
            value,
            expected: expected.to_owned(),
        }
    }

    /// A whole number in `range`.
    pub(super) fn integer(
        &self,
        key: &str,
        default: u64,
        range: RangeInclusive<u64>,
    ) -> Result<u64, PolicyError> {
        let Some(value) = self.table.get(key) else { return Ok(default) };
        let number = value.as_integer().and_then(|number| u64::try_from(number).ok());
        number.filter(|number| range.contains(number)).ok_or_else(|| {
            self.error(key, value, &format!("a whole number from {} to {}", range.start(), range.end()))
        })
    }

    /// A number of events per second, as events per 1000 seconds.
    pub(super) fn events_per_s(&self, key: &str, default: u64) -> Result<u64, PolicyError> {
        const MOST: f64 = 5000.0;
        let Some(value) = self.table.get(key) else { return Ok(default) };
        let expected = || self.error(key, value, "a number from 0.001 to 5000");
        let number = match value {
            Value::Integer(number) => i32::try_from(*number).ok().map(f64::from),
            Value::Float(number) => Some(*number),
            _ => None,
        };
        let number = number.filter(|number| (0.001..=MOST).contains(number)).ok_or_else(expected)?;
        // At most seven digits, which text gets across exactly; there is no other checked way from a float to an integer.
        format!("{:.0}", number * 1000.0).parse().map_err(|_| expected())
    }

    /// A duration in `range`, in milliseconds.
    pub(super) fn duration_ms(
        &self,
        key: &str,
        default: u64,
        range: RangeInclusive<u64>,
    ) -> Result<u64, PolicyError> {
        let Some(value) = self.table.get(key) else { return Ok(default) };
        let duration = value.as_str().and_then(parse_duration);
        let ms = duration.and_then(|duration| u64::try_from(duration.as_millis()).ok());
        ms.filter(|ms| range.contains(ms)).ok_or_else(|| {
            let [least, most] =
                [*range.start(), *range.end()].map(|ms| show_duration(Duration::from_millis(ms)));
            self.error(key, value, &format!("a duration from \"{least}\" to \"{most}\""))
        })
    }

    /// A table inside this one, and its path.
    pub(super) fn table(&self, key: &str) -> Result<Option<(&'a Table, String)>, PolicyError> {
        match self.table.get(key) {
            None => Ok(None),
            Some(Value::Table(table)) => Ok(Some((table, format!("{}.{key}", self.path)))),
            Some(value) => Err(self.error(key, value, "a table")),
        }
    }

    /// One text or a list of texts, at most `count_max` and not none.
    pub(super) fn texts(
        &self,
        key: &str,
        count_max: usize,
    ) -> Result<Option<Vec<(&'a Value, &'a str)>>, PolicyError> {
        let Some(value) = self.table.get(key) else { return Ok(None) };
        let values = match value {
            Value::Array(values) => values.as_slice(),
            one => std::slice::from_ref(one),
        };
        let texts: Option<Vec<_>> = values.iter().map(|value| Some((value, value.as_str()?))).collect();
        let texts = texts.filter(|texts| texts.len() <= count_max);
        texts
            .map(Some)
            .ok_or_else(|| self.error(key, value, &format!("a text, or a list of at most {count_max} texts")))
    }
}

/// A value as text on one line, cut where it gets long.
fn shown(value: &Value) -> String {
    const LENGTH_MAX: usize = 120;
    let text = value.to_string().replace('\n', " ");
    match text.char_indices().nth(LENGTH_MAX) {
        None => text,
        Some((place, _)) => text.get(..place).map(|begin| format!("{begin}…")).unwrap_or_default(),
    }
}

//! Reads tables of a rules file key by key, and says where one is wrong.

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::error::RuleError;

/// A rules file as text, for positions in it.
#[derive(Debug)]
pub(super) struct Source<'a> {
    file: &'a str,
    text: &'a str,
    /// Where each line begins.
    lines: Vec<usize>,
}

impl<'a> Source<'a> {
    pub(super) fn new(file: &'a str, text: &'a str) -> Self {
        let breaks = text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n').map(|(at, _)| at + 1);
        Self { file, text, lines: std::iter::once(0).chain(breaks).collect() }
    }

    /// Line and column of a byte, each from 1.
    pub(super) fn place(&self, at: usize) -> (usize, usize) {
        let line = self.lines.partition_point(|start| *start <= at);
        let start = line.checked_sub(1).and_then(|line| self.lines.get(line)).copied().unwrap_or_default();
        let before = self.text.get(start..at).unwrap_or_default();
        (line.max(1), before.chars().count() + 1)
    }

    pub(super) fn wrong(&self, rule: &str, at: usize, text: String) -> RuleError {
        let (line, column) = self.place(at);
        RuleError { file: self.file.into(), rule: rule.into(), line, column, text: text.into() }
    }
}

/// A table, and whose it is.
#[derive(Debug, Clone)]
pub(super) struct Keys<'a> {
    source: &'a Source<'a>,
    table: &'a DeTable<'a>,
    /// Names the rule in errors.
    rule: &'a str,
    /// Where the table is, or for an inner one its key with a dot.
    prefix: String,
    at: usize,
}

/// A value that a file gives, and where.
#[derive(Debug, Clone, Copy)]
pub(super) struct Given<T> {
    pub(super) value: T,
    pub(super) at: usize,
}

type Read<T> = Result<Option<Given<T>>, RuleError>;

impl<'a> Keys<'a> {
    pub(super) fn new(source: &'a Source<'a>, table: &'a DeTable<'a>, rule: &'a str, at: usize) -> Self {
        Self { source, table, rule, prefix: String::new(), at }
    }

    /// Names the rule in errors.
    pub(super) fn name(&self) -> &'a str {
        self.rule
    }

    pub(super) fn at(&self) -> usize {
        self.at
    }

    pub(super) fn error(&self, at: usize, text: String) -> RuleError {
        self.source.wrong(self.rule, at, text)
    }

    /// The error of a key whose value is outside what it may be.
    pub(super) fn wrong(&self, key: &str, at: usize, given: &str, allowed: &str) -> RuleError {
        self.error(at, format!("{}{key} = {}: expected {allowed}", self.prefix, shortened(given)))
    }

    pub(super) fn missing(&self, key: &str, allowed: &str) -> RuleError {
        self.error(self.at, format!("{}{key} is missing: expected {allowed}", self.prefix))
    }

    /// Refuses keys that are not among these.
    pub(super) fn only(&self, known: &[&[&str]]) -> Result<(), RuleError> {
        for (key, _) in self.table {
            let name = key.get_ref().as_ref();
            if !known.iter().any(|keys| keys.contains(&name)) {
                let near = nearest(name, known.iter().flat_map(|keys| keys.iter().copied()));
                let near = near.map_or(String::new(), |near| format!("; did you mean {near}?"));
                let text = format!("there is no key {}{}{near}", self.prefix, shortened(name));
                return Err(self.error(key.span().start, text));
            }
        }
        Ok(())
    }

    pub(super) fn has(&self, key: &str) -> bool {
        self.table.contains_key(key)
    }

    pub(super) fn names(&self) -> impl Iterator<Item = Given<&'a str>> + use<'a> {
        self.table.iter().map(|(key, _)| Given { value: key.get_ref().as_ref(), at: key.span().start })
    }

    pub(super) fn value(&self, key: &str) -> Option<&'a Spanned<DeValue<'a>>> {
        self.table.get(key)
    }

    pub(super) fn text(&self, key: &str, allowed: &str) -> Read<&'a str> {
        let Some(value) = self.value(key) else { return Ok(None) };
        let at = value.span().start;
        match value.get_ref().as_str() {
            Some(text) => Ok(Some(Given { value: text, at })),
            None => Err(self.wrong(key, at, &spelled(value.get_ref()), allowed)),
        }
    }

    /// A text, or a list of them.
    pub(super) fn texts(&self, key: &str, most: usize, allowed: &str) -> Read<Vec<Given<&'a str>>> {
        let Some(value) = self.value(key) else { return Ok(None) };
        let at = value.span().start;
        let wrong = || self.wrong(key, at, &spelled(value.get_ref()), allowed);
        let value = match value.get_ref() {
            DeValue::String(text) => vec![Given { value: text.as_ref(), at }],
            DeValue::Array(list) if (1..=most).contains(&list.len()) => {
                let text = |item: &'a Spanned<DeValue<'a>>| {
                    let value = item.get_ref().as_str().ok_or_else(wrong)?;
                    Ok(Given { value, at: item.span().start })
                };
                list.iter().map(text).collect::<Result<_, _>>()?
            }
            _ => return Err(wrong()),
        };
        Ok(Some(Given { value, at }))
    }

    /// A time in milliseconds, within bounds.
    pub(super) fn time(&self, key: &str, min_ms: u64, max_ms: u64) -> Read<u64> {
        let allowed = || format!("a time from \"{}\" to \"{}\"", show_time(min_ms), show_time(max_ms));
        let Some(text) = self.text(key, &allowed())? else { return Ok(None) };
        match parse_time(text.value) {
            Some(ms) if (min_ms..=max_ms).contains(&ms) => Ok(Some(Given { value: ms, at: text.at })),
            _ => Err(self.wrong(key, text.at, &format!("\"{}\"", text.value), &allowed())),
        }
    }

    pub(super) fn whole(&self, key: &str, min: u64, max: u64) -> Read<u64> {
        let Some(value) = self.value(key) else { return Ok(None) };
        let at = value.span().start;
        let whole = value.get_ref().as_integer();
        let whole = whole.and_then(|digits| u64::from_str_radix(digits.as_str(), digits.radix()).ok());
        match whole {
            Some(value) if (min..=max).contains(&value) => Ok(Some(Given { value, at })),
            _ => {
                let allowed = format!("a whole number from {min} to {max}");
                Err(self.wrong(key, at, &spelled(value.get_ref()), &allowed))
            }
        }
    }

    pub(super) fn number(&self, key: &str, min: f64, max: f64) -> Read<f64> {
        let Some(value) = self.value(key) else { return Ok(None) };
        let at = value.span().start;
        match number(value.get_ref()) {
            Some(value) if (min..=max).contains(&value) => Ok(Some(Given { value, at })),
            _ => {
                let allowed = format!("a number from {min} to {max:e}");
                Err(self.wrong(key, at, &spelled(value.get_ref()), &allowed))
            }
        }
    }

    pub(super) fn truth(&self, key: &str) -> Read<bool> {
        let Some(value) = self.value(key) else { return Ok(None) };
        let at = value.span().start;
        match value.get_ref().as_bool() {
            Some(value) => Ok(Some(Given { value, at })),
            None => Err(self.wrong(key, at, &spelled(value.get_ref()), "true or false")),
        }
    }

    pub(super) fn table(&self, key: &str, allowed: &str) -> Result<Option<Self>, RuleError> {
        let Some(value) = self.value(key) else { return Ok(None) };
        let at = value.span().start;
        match value.get_ref().as_table() {
            Some(table) => {
                let prefix = format!("{}{key}.", self.prefix);
                Ok(Some(Self { table, prefix, at, ..self.clone() }))
            }
            None => Err(self.wrong(key, at, &spelled(value.get_ref()), allowed)),
        }
    }
}

impl<'a> Keys<'a> {
    /// The tables of a list, at most so many; none if there is no such key.
    pub(super) fn tables(&self, key: &str, most: usize, allowed: &str) -> Result<Vec<Self>, RuleError> {
        let Some(value) = self.value(key) else { return Ok(Vec::new()) };
        let wrong = || self.wrong(key, value.span().start, &spelled(value.get_ref()), allowed);
        let list = value.get_ref().as_array().filter(|list| list.len() <= most).ok_or_else(wrong)?;
        let mut tables = Vec::new();
        for item in list {
            let table = item.get_ref().as_table().ok_or_else(wrong)?;
            let prefix = format!("{}{key}.", self.prefix);
            tables.push(Self { table, prefix, at: item.span().start, ..self.clone() });
        }
        Ok(tables)
    }
}

/// A finite number, whole or not.
pub(super) fn number(value: &DeValue<'_>) -> Option<f64> {
    let number = match value {
        DeValue::Integer(digits) => i64::from_str_radix(digits.as_str(), digits.radix()).ok()? as f64,
        DeValue::Float(digits) => digits.as_str().parse().ok()?,
        _ => return None,
    };
    Some(number).filter(|number: &f64| number.is_finite())
}

/// A value as the file might give it, for errors.
pub(super) fn spelled(value: &DeValue<'_>) -> String {
    match value {
        DeValue::String(text) => format!("\"{text}\""),
        DeValue::Integer(digits) => digits.as_str().to_owned(),
        DeValue::Float(digits) => digits.as_str().to_owned(),
        DeValue::Boolean(truth) => truth.to_string(),
        DeValue::Datetime(time) => time.to_string(),
        DeValue::Array(list) => format!("a list of {}", list.len()),
        DeValue::Table(_) => "a table".to_owned(),
    }
}

/// For a line of text: not too long, and in one line.
fn shortened(text: &str) -> String {
    const MOST: usize = 80;
    let mut chars = text.chars();
    let visible = |c: char| if c.is_control() { '�' } else { c };
    let mut short: String = chars.by_ref().take(MOST).map(visible).collect();
    if chars.next().is_some() {
        short.push('…');
    }
    short
}

/// Units of time, the largest first. `m` and `min` are both minutes.
const TIMES: [(&str, u64); 6] =
    [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("min", 60_000), ("s", 1_000), ("ms", 1)];

/// A whole number with one of the units ms, s, m (or min), h and d, in milliseconds.
pub(super) fn parse_time(text: &str) -> Option<u64> {
    let digits = text.find(|c: char| !c.is_ascii_digit())?;
    let (number, unit) = text.split_at_checked(digits)?;
    let (_, scale) = TIMES.iter().find(|(name, _)| *name == unit.trim_start())?;
    number.parse::<u64>().ok()?.checked_mul(*scale)
}

/// Writes a time with the largest unit that divides it.
pub(super) fn show_time(ms: u64) -> String {
    if ms == 0 {
        return "0s".to_owned();
    }
    let fits = TIMES.iter().find(|(_, scale)| ms.is_multiple_of(*scale));
    let (name, scale) = fits.copied().unwrap_or(("ms", 1));
    format!("{}{name}", ms / scale)
}

/// The known word that was probably meant: one that is part of it or has it as a part, or the one with the fewest
/// differences, if they are few.
pub(super) fn nearest<'k>(word: &str, known: impl Iterator<Item = &'k str>) -> Option<&'k str> {
    let word: Vec<char> = word.chars().take(64).collect();
    let rank = |known: &&'k str| {
        let chars: Vec<char> = known.chars().collect();
        let part = |long: &[char], short: &[char]| {
            short.len() >= 3 && long.windows(short.len()).any(|window| window == short)
        };
        if part(&word, &chars) || part(&chars, &word) { 1 } else { differences(&word, &chars) }
    };
    let best = known.min_by_key(rank)?;
    (rank(&best) <= 1 + best.chars().count() / 4).then_some(best)
}

/// Levenshtein's distance.
fn differences(one: &[char], two: &[char]) -> usize {
    let mut row: Vec<usize> = (0..=two.len()).collect();
    for (i, a) in one.iter().enumerate() {
        let mut next = vec![i + 1];
        for (j, b) in two.iter().enumerate() {
            let change = row.get(j).copied().unwrap_or_default() + usize::from(a != b);
            let drop = row.get(j + 1).copied().unwrap_or_default() + 1;
            let add = next.last().copied().unwrap_or_default() + 1;
            next.push(change.min(drop).min(add));
        }
        row = next;
    }
    row.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_units_and_are_shown_in_their_largest_whole_one() {
        for text in ["250ms", "10s", "5m", "2h", "7d", "0s", "1500ms"] {
            assert_eq!(parse_time(text).map(show_time).as_deref(), Some(text));
        }
        assert_eq!(parse_time("5min"), Some(300_000));
        assert_eq!(parse_time("24h").map(show_time).as_deref(), Some("1d"));
        for text in ["", "5", "s", "1.5s", "-1s", "99999999999999999999d", "1us"] {
            assert_eq!(parse_time(text), None, "{text}");
        }
    }

    #[test]
    fn misspelt_words_find_their_key_and_strange_ones_none() {
        let known = ["class", "tenant", "keep_firing_for", "metric"];
        let near = |word| nearest(word, known.into_iter());
        assert_eq!(near("device_class"), Some("class"));
        assert_eq!(near("tennant"), Some("tenant"));
        assert_eq!(near("keep_fire_for"), Some("keep_firing_for"));
        assert_eq!(near("metrics"), Some("metric"));
        assert_eq!(near("zzz"), None);
    }

    #[test]
    fn places_count_lines_and_characters_from_one() {
        let source = Source::new("f", "a\nbü=1\n");
        assert_eq!(source.place(0), (1, 1));
        assert_eq!(source.place(2), (2, 1));
        assert_eq!(source.place(5), (2, 3));
        assert_eq!(source.place(99), (3, 1));
    }
}

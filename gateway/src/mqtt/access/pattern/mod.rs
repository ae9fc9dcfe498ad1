//! Filters of access rules, and how they compare with topics and filters of clients.
//!
//! A pattern is a topic filter whose levels may also be `{device}`, `{client}` or `{user}`: the
//! asking client's own, as one whole level. Unlike in a client's filter a leading wildcard takes in
//! topics that start with `$`, so that a rule for everything really is one.
//!
//! What a client chose never becomes a wildcard: an id that is empty, that contains `/`, `+` or `#`,
//! or that stands first and starts with `$`, makes the pattern fit nothing.

use std::str::FromStr;

use super::rules::Who;

/// Longest filter of a rule, in bytes.
pub(in crate::mqtt) const BYTES_MAX: usize = 1024;

/// The filter of an access rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern {
    levels: Box<[Level]>,
    /// What everything that it covers begins with; spares most rules a closer look.
    start: Box<str>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Level {
    Text(Box<str>),
    Device,
    Client,
    User,
    /// `+`
    Any,
    /// `#`, last; takes in the level above it as well (section 4.7.1.2).
    Rest,
}

/// Why the filter of a rule is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    /// It is empty or too long.
    #[error("1 to 1024 bytes")]
    Length,
    /// `+` or `#` beside other text, or `#` before the end.
    #[error("+ as a whole level and # as the last one only")]
    Wildcard,
    /// Braces around something unknown, or beside other text.
    #[error("{{device}}, {{client}} and {{user}} as whole levels and no other braces")]
    Capture,
    /// A control character.
    #[error("no control characters")]
    Control,
    /// A shared subscription.
    #[error("the filter without its $share and group")]
    Shared,
}

// === impl Pattern ===

impl FromStr for Pattern {
    type Err = PatternError;

    fn from_str(text: &str) -> Result<Self, PatternError> {
        if text.is_empty() || text.len() > BYTES_MAX {
            return Err(PatternError::Length);
        }
        if text.chars().any(char::is_control) {
            return Err(PatternError::Control);
        }
        let levels: Box<[Level]> = text.split('/').map(Level::parse).collect::<Result<_, _>>()?;
        if levels.first() == Some(&Level::Text("$share".into())) {
            return Err(PatternError::Shared);
        }
        let before_last = levels.split_last().map_or(&[] as &[Level], |(_, before)| before);
        if before_last.contains(&Level::Rest) {
            return Err(PatternError::Wildcard);
        }
        let start = start(&levels).into();
        Ok(Self { levels, start })
    }
}

impl Pattern {
    /// Whether every topic that `filter` matches fits the pattern. A topic name is a filter that
    /// matches itself.
    #[inline]
    pub(super) fn covers(&self, who: Who<'_>, filter: &str) -> bool {
        filter.as_bytes().starts_with(self.start.as_bytes()) && self.covers_levels(who, filter)
    }

    fn covers_levels(&self, who: Who<'_>, filter: &str) -> bool {
        let mut asked = filter.split('/');
        for (place, level) in self.levels.iter().enumerate() {
            match (level, asked.next()) {
                (Level::Rest, _) => return true,
                // At the top `#` matches no less than one level.
                (Level::Any, Some("#")) => return place == 0 && self.levels.get(1) == Some(&Level::Rest),
                (Level::Any, Some(_)) => {}
                (level, Some(asked)) if level.spelled(place, who) == Some(asked) => {}
                (_, _) => return false,
            }
        }
        asked.next().is_none()
    }

    /// Whether some topic fits the pattern and is matched by `filter`.
    pub(super) fn overlaps(&self, who: Who<'_>, filter: &str) -> bool {
        let mut asked = filter.split('/');
        for (place, level) in self.levels.iter().enumerate() {
            match (level, asked.next()) {
                (Level::Rest, _) => return true,
                (_, Some("#")) => {
                    let mut rest = self.levels.iter().enumerate().skip(place);
                    return rest.all(|(place, level)| level.meets_wildcard(place, who));
                }
                (Level::Any, Some(_)) => {}
                (level, Some("+")) if level.meets_wildcard(place, who) => {}
                (level, Some(asked)) if level.spelled(place, who) == Some(asked) => {}
                (_, _) => return false,
            }
        }
        matches!(asked.next(), None | Some("#"))
    }
}

/// The levels that are spelled out at the beginning, up to the slash before the next one. `#` takes in
/// what ends without that slash.
fn start(levels: &[Level]) -> String {
    let mut start = String::new();
    for (place, level) in levels.iter().enumerate() {
        if place > 0 && *level != Level::Rest {
            start.push('/');
        }
        let Level::Text(text) = level else { break };
        start.push_str(text);
    }
    start
}

// === impl Level ===

impl Level {
    fn parse(text: &str) -> Result<Self, PatternError> {
        Ok(match text {
            "{device}" => Self::Device,
            "{client}" => Self::Client,
            "{user}" => Self::User,
            "+" => Self::Any,
            "#" => Self::Rest,
            text if text.contains(['{', '}']) => return Err(PatternError::Capture),
            text if text.contains(['+', '#']) => return Err(PatternError::Wildcard),
            text => Self::Text(text.into()),
        })
    }

    /// The one text that the level stands for, if it is not a wildcard and the client has one.
    #[inline]
    fn spelled<'a>(&'a self, place: usize, who: Who<'a>) -> Option<&'a str> {
        let chosen = match self {
            Self::Text(text) => return Some(text),
            Self::Device => who.device,
            Self::Client => who.client,
            Self::User => who.user?,
            Self::Any | Self::Rest => return None,
        };
        let reserved = place == 0 && chosen.starts_with('$');
        let plain = !chosen.is_empty() && !chosen.contains(['/', '+', '#']);
        (plain && !reserved).then_some(chosen)
    }

    /// Whether some text of the level is matched by a wildcard in a client's filter. A leading one
    /// does not match names that start with `$` ([MQTT-4.7.2-1]).
    fn meets_wildcard(&self, place: usize, who: Who<'_>) -> bool {
        match self {
            Self::Any | Self::Rest => true,
            level => level.spelled(place, who).is_some_and(|text| place > 0 || !text.starts_with('$')),
        }
    }
}

#[cfg(test)]
mod tests;

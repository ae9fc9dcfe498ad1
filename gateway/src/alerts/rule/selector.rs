//! Which devices a rule is about.

use super::error::RuleError;
use super::reading::Keys;

/// Patterns of one property, at most.
const PATTERNS_MAX: usize = 64;
/// Bytes of a pattern, at most.
const PATTERN_BYTES_MAX: usize = 256;

/// What a device and its entry must look like. A property that a rule does not ask for may be anything, or absent.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Selector {
    pub(super) tenant: Patterns,
    pub(super) site: Patterns,
    pub(super) class: Patterns,
    pub(super) device: Patterns,
    pub(super) stream: Patterns,
}

/// One of several texts with `*` for anything. Empty where anything will do.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Patterns(Box<[Pattern]>);

/// What stands between the stars.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Pattern(Box<[Box<str>]>);

impl Selector {
    pub(super) const KEYS: [&str; 5] = ["tenant", "site", "class", "device", "stream"];

    pub(super) fn read(keys: &Keys<'_>) -> Result<Self, RuleError> {
        keys.only(&[&Self::KEYS])?;
        let patterns = |key| Patterns::read(keys, key);
        Ok(Self {
            tenant: patterns("tenant")?,
            site: patterns("site")?,
            class: patterns("class")?,
            device: patterns("device")?,
            stream: patterns("stream")?,
        })
    }

    /// Every property and its patterns, for fingerprints.
    pub(super) fn properties(&self) -> [&Patterns; 5] {
        [&self.tenant, &self.site, &self.class, &self.device, &self.stream]
    }
}

impl Patterns {
    fn read(keys: &Keys<'_>, key: &str) -> Result<Self, RuleError> {
        const ALLOWED: &str = "a text of 1 to 256 bytes with * for anything, or a list of 1 to 64 of them";
        let Some(texts) = keys.texts(key, PATTERNS_MAX, ALLOWED)? else { return Ok(Self::default()) };
        for text in &texts.value {
            if !(1..=PATTERN_BYTES_MAX).contains(&text.value.len()) {
                return Err(keys.wrong(key, text.at, &format!("\"{}\"", text.value), ALLOWED));
            }
        }
        let patterns: Box<[_]> = texts.value.iter().map(|text| Pattern::new(text.value)).collect();
        let anything = patterns.iter().any(Pattern::is_anything);
        Ok(if anything { Self::default() } else { Self(patterns) })
    }

    pub(super) fn is_anything(&self) -> bool {
        self.0.is_empty()
    }

    /// What is absent is matched by no pattern but `*`.
    pub(super) fn matches(&self, text: Option<&str>) -> bool {
        self.is_anything() || text.is_some_and(|text| self.0.iter().any(|pattern| pattern.matches(text)))
    }

    /// The texts themselves, if none has a star.
    pub(super) fn names(&self) -> Option<Vec<String>> {
        let plain = self.0.iter().all(|pattern| pattern.0.len() == 1);
        plain.then(|| self.texts().collect())
    }

    /// The patterns as they were written, runs of stars aside.
    pub(super) fn texts(&self) -> impl Iterator<Item = String> {
        self.0.iter().map(|pattern| pattern.0.join("*"))
    }
}

impl Pattern {
    fn new(text: &str) -> Self {
        let mut parts: Vec<Box<str>> = text.split('*').map(Box::from).collect();
        let last = parts.len() - 1;
        let mut place = 0;
        // Several stars are one: of the parts between them only the ends may be empty.
        parts.retain(|part| {
            place += 1;
            !part.is_empty() || place == 1 || place == last + 1
        });
        Self(parts.into())
    }

    fn is_anything(&self) -> bool {
        self.0.len() > 1 && self.0.iter().all(|part| part.is_empty())
    }

    /// Takes the first place where each part fits, which is enough for stars. At most the product of the lengths.
    fn matches(&self, text: &str) -> bool {
        let [first, middle @ .., last] = &*self.0 else {
            return self.0.first().is_some_and(|only| **only == *text);
        };
        let Some(mut rest) = text.strip_prefix(&**first) else { return false };
        for part in middle {
            let Some((_, after)) = rest.split_once(&**part) else { return false };
            rest = after;
        }
        rest.ends_with(&**last)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(pattern: &str, text: &str, expected: bool) {
        assert_eq!(Pattern::new(pattern).matches(text), expected, "{pattern} {text}");
    }

    #[test]
    fn stars_stand_for_anything() {
        check("press-7", "press-7", true);
        check("press-7", "press-70", false);
        check("press-*", "press-7", true);
        check("press-*", "press-", true);
        check("press-*", "pres", false);
        check("*-7", "press-7", true);
        check("*-7", "press-7x", false);
        check("a*b*c", "aXbYbc", true);
        check("a*b*c", "ac", false);
        check("a*a", "a", false);
        check("a**a", "aa", true);
        check("**", "", true);
        check("*é*", "café!", true);
        check("*ab*ab", "abab", true);
        check("*ab*ab", "ab", false);
    }

    #[test]
    fn what_is_absent_matches_only_what_asks_for_nothing() {
        assert!(Patterns::default().matches(None));
        let patterns = Patterns([Pattern::new("a*")].into());
        assert!(!patterns.matches(None) && patterns.matches(Some("ab")) && !patterns.matches(Some("b")));
        assert!(Pattern::new("***").is_anything() && !Pattern::new("*a").is_anything());
    }
}

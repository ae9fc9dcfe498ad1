//! What a configuration may say: the declaration each stage makes of its section.

use std::net::SocketAddr;
use std::time::Duration;

use super::units::{self, ByteSize};

/// The declaration of a table of the configuration file.
#[derive(Debug, Clone, Copy)]
pub struct Shape {
    /// The table's name within its parent.
    pub name: &'static str,
    /// One or two sentences for operators.
    pub help: &'static str,
    /// Whether it is a `[[list]]` of tables.
    pub repeated: bool,
    /// Its keys.
    pub keys: &'static [Key],
    /// Tables within it.
    pub children: &'static [Self],
}

/// The declaration of one key.
#[derive(Debug, Clone, Copy)]
pub struct Key {
    /// The key.
    pub name: &'static str,
    /// What values it takes.
    pub value: Value,
    /// What holds when it is not given.
    pub default: Preset,
    /// Meaning, and what happens at the edge.
    pub help: &'static str,
}

/// What holds when a key is not given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Preset {
    /// This value, written as in the file.
    Is(&'static str),
    /// The key must be given.
    Required,
    /// Nothing: the key is optional.
    Unset,
}

/// What values a key takes.
#[derive(Debug, Clone, Copy)]
pub enum Value {
    /// Text of 1 to `chars_max` characters.
    Text {
        /// Longest text.
        chars_max: usize,
    },
    /// A whole number.
    Count {
        /// Smallest value.
        min: u64,
        /// Largest value.
        max: u64,
    },
    /// A size with its unit.
    Bytes {
        /// Smallest size, in bytes.
        min: u64,
        /// Largest size, in bytes.
        max: u64,
    },
    /// A time with its unit.
    Time {
        /// Shortest time.
        min: Duration,
        /// Longest time.
        max: Duration,
    },
    /// `true` or `false`.
    Flag,
    /// One of these words.
    Choice(&'static [&'static str]),
    /// A path of a file or folder; relative paths start where the program was started.
    Path,
    /// An IP address with a port; port 0 takes a free one.
    Address,
}

impl Shape {
    /// A table with keys only.
    #[must_use]
    pub const fn table(name: &'static str, help: &'static str, keys: &'static [Key]) -> Self {
        Self { name, help, repeated: false, keys, children: &[] }
    }

    /// A `[[list]]` of tables with keys only.
    #[must_use]
    pub const fn list(name: &'static str, help: &'static str, keys: &'static [Key]) -> Self {
        Self { name, help, repeated: true, keys, children: &[] }
    }

    /// The same with tables inside.
    #[must_use]
    pub const fn with(self, children: &'static [Self]) -> Self {
        Self { children, ..self }
    }
}

impl Value {
    /// The range in words, for errors and the reference.
    #[must_use]
    pub fn range(&self) -> String {
        match self {
            Self::Text { chars_max } => format!("text of 1 to {chars_max} characters"),
            Self::Count { min, max } => format!("a whole number from {min} to {max}"),
            Self::Bytes { min, max } => {
                format!(
                    "a size with a unit (B, KiB, MiB, GiB, TiB) from {} to {}",
                    ByteSize(*min),
                    ByteSize(*max)
                )
            }
            Self::Time { min, max } => format!(
                "a time with a unit (us, ms, s, min, h) from {} to {}",
                units::show_duration(*min),
                units::show_duration(*max)
            ),
            Self::Flag => "true or false".to_owned(),
            Self::Choice(words) => format!("one of {}", quoted(words)),
            Self::Path => "a path".to_owned(),
            Self::Address => "an address such as 127.0.0.1:1883 or [::]:8883".to_owned(),
        }
    }

    /// Whether `text` is a value of this kind within its range.
    #[must_use]
    pub fn accepts(&self, text: &str) -> bool {
        match self {
            Self::Text { chars_max } => (1..=*chars_max).contains(&text.chars().count()),
            Self::Count { min, max } => text.parse().is_ok_and(|n: u64| (*min..=*max).contains(&n)),
            Self::Bytes { min, max } => ByteSize::parse(text).is_some_and(|s| (*min..=*max).contains(&s.0)),
            Self::Time { min, max } => {
                units::parse_duration(text).is_some_and(|d| (*min..=*max).contains(&d))
            }
            Self::Flag => matches!(text, "true" | "false"),
            Self::Choice(words) => words.contains(&text),
            Self::Path => !text.is_empty(),
            Self::Address => text.parse::<SocketAddr>().is_ok(),
        }
    }

    /// Whether the file writes it without quotes.
    pub(super) const fn is_bare(&self) -> bool {
        matches!(self, Self::Count { .. } | Self::Flag)
    }
}

fn quoted(words: &[&str]) -> String {
    words.iter().map(|word| format!("\"{word}\"")).collect::<Vec<_>>().join(", ")
}

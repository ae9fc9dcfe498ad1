//! What can be wrong with a rules file, and with a snapshot.

use std::fmt;

/// The file cannot be read as a rules file at all.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum FileError {
    #[error("{file}: {bytes} bytes are more than a rules file may have, {max}")]
    TooLarge { file: String, bytes: usize, max: usize },
    #[error("{file}:{line}:{column}: {text}")]
    NotToml { file: String, line: usize, column: usize, text: String },
}

/// A part of a rules file that cannot be used, and was left out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RuleError {
    pub(crate) file: Box<str>,
    /// The rule's id in quotes, its number where it has none, or the table that it is about.
    pub(crate) rule: Box<str>,
    /// From 1.
    pub(crate) line: usize,
    /// From 1, in characters.
    pub(crate) column: usize,
    /// What is wrong with which value, and what it may be.
    pub(crate) text: Box<str>,
}

impl fmt::Display for RuleError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { file, rule, line, column, text } = self;
        write!(f, "{file}:{line}:{column}: {rule}: {text}")
    }
}

impl std::error::Error for RuleError {}

/// A snapshot that is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Junk {
    #[error("the snapshot of rules has version {0}, which this program does not know")]
    Version(u8),
    #[error("the snapshot of rules ends early")]
    Short,
    #[error("the snapshot of rules goes on after its end")]
    Long,
    #[error("the snapshot of rules contradicts itself: {0}")]
    Wrong(&'static str),
}

//! Why a configuration was refused; always one line.

/// A refused configuration. Names the file (or environment variable), the key, the value and what is allowed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("{file}: cannot be read: {reason}")]
    Unreadable {
        /// The configuration, or a file it names.
        file: String,
        /// The operating system's word.
        reason: String,
    },
    /// The file is not TOML.
    #[error("{file}:{line}: {reason}")]
    Syntax {
        /// The file.
        file: String,
        /// The line, from 1.
        line: usize,
        /// What is wrong there.
        reason: String,
    },
    /// A key that nothing reads.
    #[error("{file}: unknown key {key} = {value}: expected one of {known}")]
    UnknownKey {
        /// The file or environment variable.
        file: String,
        /// The whole path of the key.
        key: String,
        /// What was given.
        value: String,
        /// The keys that exist there.
        known: String,
    },
    /// A required key that is not there.
    #[error("{file}: {key} is missing: expected {expected}")]
    Missing {
        /// The file.
        file: String,
        /// The whole path of the key.
        key: String,
        /// The range allowed.
        expected: String,
    },
    /// A value of the wrong type or out of range.
    #[error("{file}: {key} = {value}: expected {expected}")]
    Value {
        /// The file or environment variable.
        file: String,
        /// The whole path of the key.
        key: String,
        /// What was given.
        value: String,
        /// The range allowed.
        expected: String,
    },
}

//! A death on order: `POWERCUT_KILL=before|after:OPERATION:PATTERN:N`.

use std::sync::atomic::{AtomicU64, Ordering};

/// What a call does to a file or a directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Operation {
    /// Any call that writes data.
    Write,
    /// `fsync` or `fdatasync`, of a file or a directory.
    Sync,
    /// The name is the new one.
    Rename,
    /// `unlink` or `rmdir`.
    Unlink,
    /// A second name for a file; the name is the new one.
    Link,
    Mkdir,
    /// A change of the length by `truncate`.
    Truncate,
    /// An `open` that makes a file.
    Create,
}

/// Which call the process does not survive.
#[derive(Debug)]
pub(crate) struct Rule {
    /// Before the call has an effect, or after it has had all of it.
    pub(crate) before: bool,
    pub(crate) operation: Operation,
    /// Of the path below the watched directory; `*` stands for any run of bytes.
    pattern: Vec<u8>,
    /// From 1.
    number: u64,
    seen: AtomicU64,
}

impl Operation {
    fn parse(word: &str) -> Option<Operation> {
        Some(match word {
            "write" => Operation::Write,
            "sync" => Operation::Sync,
            "rename" => Operation::Rename,
            "unlink" => Operation::Unlink,
            "link" => Operation::Link,
            "mkdir" => Operation::Mkdir,
            "truncate" => Operation::Truncate,
            "create" => Operation::Create,
            _ => return None,
        })
    }
}

impl Rule {
    /// `None` if the text is no rule.
    pub(crate) fn parse(text: &str) -> Option<Rule> {
        let (when, rest) = text.split_once(':')?;
        let (operation, rest) = rest.split_once(':')?;
        let (pattern, number) = rest.rsplit_once(':')?;
        let before = match when {
            "before" => true,
            "after" => false,
            _ => return None,
        };
        let number: u64 = number.parse().ok().filter(|&number| number > 0)?;
        let (operation, pattern) = (Operation::parse(operation)?, pattern.as_bytes().to_vec());
        Some(Rule { before, operation, pattern, number, seen: AtomicU64::new(0) })
    }

    /// Counts a call of the rule's operation on `path`; true if it is the one.
    pub(crate) fn strikes(&self, path: &[u8]) -> bool {
        like(&self.pattern, path) && self.seen.fetch_add(1, Ordering::Relaxed) + 1 == self.number
    }
}

/// Whether `text` has the shape of `pattern`.
fn like(pattern: &[u8], text: &[u8]) -> bool {
    let (mut pattern, mut text) = (pattern, text);
    // Where the last star stands, and where the text went on behind what it took so far.
    let mut star: Option<(&[u8], &[u8])> = None;
    loop {
        match (pattern.split_first(), text.split_first()) {
            (Some((b'*', rest)), _) => {
                star = Some((rest, text));
                pattern = rest;
            }
            (Some((wanted, pattern_rest)), Some((found, text_rest))) if wanted == found => {
                (pattern, text) = (pattern_rest, text_rest);
            }
            (None, None) => return true,
            _ => {
                // The last star takes one byte more.
                let Some((behind, taken)) = star else { return false };
                let Some((_, taken)) = taken.split_first() else { return false };
                star = Some((behind, taken));
                (pattern, text) = (behind, taken);
            }
        }
    }
}

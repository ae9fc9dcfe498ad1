//! Names of things that are the same after a replay: digests of what they are, and bounded texts.

use std::borrow::Cow;
use std::fmt;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use ring::digest::{Context, SHA256};

/// Half of a SHA-256.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Digest(pub(super) [u8; 16]);

/// The marks that stay as they are in a part of a subject.
const PLAIN: AsciiSet = NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// Bytes of the mark at the end of a text that was cut.
const MARK_BYTES: usize = 17;

// === impl Digest ===

impl Digest {
    /// The digest of these parts, each behind its length as eight bytes, the lowest first: so that no two lists of parts
    /// are the same bytes.
    pub(super) fn of(parts: &[&str]) -> Self {
        let mut context = Context::new(&SHA256);
        for part in parts {
            context.update(&(part.len() as u64).to_le_bytes());
            context.update(part.as_bytes());
        }
        let digest = context.finish();
        let half = digest.as_ref().first_chunk::<16>().copied();
        Self(half.unwrap_or_default())
    }

    /// 32 hexadecimal digits behind `prefix`.
    pub(super) fn text(self, prefix: &str) -> String {
        format!("{prefix}{self:?}")
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", u128::from_be_bytes(self.0))
    }
}

/// The text, or, if it is longer, its beginning, a tilde and 16 hexadecimal digits of the digest of all of it: bounded, and
/// still different for different texts. What was shortened stays as it is; the bound is at least [`MARK_BYTES`].
pub(super) fn shorten(text: &str, bytes_max: usize) -> Cow<'_, str> {
    if text.len() <= bytes_max {
        return Cow::Borrowed(text);
    }
    let digest = Digest::of(&[text]).text("~");
    let (begin, _) = text.split_at(text.floor_char_boundary(bytes_max.saturating_sub(MARK_BYTES)));
    let (mark, _) = digest.split_at(MARK_BYTES.min(digest.len()));
    Cow::Owned(format!("{begin}{mark}"))
}

/// Appends a part of a subject: letters, digits and `-._~` as they are, everything else percent-encoded.
pub(super) fn push_part(out: &mut String, text: &str) {
    out.extend(utf8_percent_encode(text, &PLAIN));
}

/// Whether this is a trace context as W3C writes it, version 00 or later.
pub(super) fn is_traceparent(text: &str) -> bool {
    let hex = |part: &str, digits: usize| {
        part.len() == digits && part.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
    };
    let mut parts = text.split('-');
    let mut next = |digits| parts.next().is_some_and(|part| hex(part, digits));
    text.len() == 55 && next(2) && next(32) && next(16) && next(2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_do_not_run_into_each_other() {
        assert_ne!(Digest::of(&["ab", "c"]), Digest::of(&["a", "bc"]));
        assert_ne!(Digest::of(&["ab"]), Digest::of(&["ab", ""]));
        // SHA-256 of eight bytes for the length 1 and the letter a.
        assert_eq!(Digest::of(&["a"]).text("x-"), "x-ae6121c88ba555f64c3d812123eb799d");
    }

    #[test]
    fn long_texts_are_cut_between_characters_and_stay_different() {
        assert_eq!(shorten("boiler", 6), "boiler");
        let (one, other) = ("ä".repeat(10) + "1", "ä".repeat(10) + "2");
        let (one, other) = (shorten(&one, 20), shorten(&other, 20));
        assert!(one.starts_with("ä~") && one.len() == 2 + MARK_BYTES, "{one}");
        assert_eq!(shorten(&one, 20), one);
        assert_ne!(one, other);
    }

    #[test]
    fn parts_of_subjects_hold_no_slash_and_no_control_character() {
        let mut out = String::new();
        push_part(&mut out, "a/b\n\"\u{ffff}ü-._~");
        assert_eq!(out, "a%2Fb%0A%22%EF%BF%BF%C3%BC-._~");
    }

    #[test]
    fn a_trace_context_has_its_form() {
        assert!(is_traceparent("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"));
        for text in [
            "",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-0",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00_4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e473-600f067aa0ba902b7-01",
        ] {
            assert!(!is_traceparent(text), "{text}");
        }
    }
}

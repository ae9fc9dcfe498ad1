//! The identity of an entry, and the `penstock` header that carries it.
//!
//! Header value, UTF-8: `gateway/log/epoch/lane/seq/prev/stream`, for example
//! `site-7/00c0ffee12345678/3/2/1041/1038/l`. Numbers are decimal, `log` is 16 hexadecimal digits,
//! `stream` is `l` (live) or `b` (backlog). See `docs/formats/record-header-v1.md`.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::Lane;
use crate::text::{push_decimal, push_hex};

/// Position of an entry in its lane. Dense, starts at 1, continues across restarts, never reused.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Seq(pub u64);

/// Counts the starts of one outbox directory; greater at every opening.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Epoch(pub u32);

/// Random identity of one outbox directory, so that a wiped disk never looks like the old log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LogId(pub u64);

/// A gateway's name: 1 to 64 of `A-Z a-z 0-9 . _ -`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GatewayId(Arc<str>);

/// Which of an uplink's two streams carried a record: what just arrived, or what had to wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Stream {
    /// Entries in order of arrival (`l`).
    Live,
    /// Entries caught up beside the live ones (`b`).
    Backlog,
}

/// Who an entry is, and which entry went to the same partition and stream before it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Identity {
    /// The gateway that stored the entry.
    pub gateway: GatewayId,
    /// The outbox directory it was stored in.
    pub log: LogId,
    /// The start of the gateway during which it was appended.
    pub epoch: Epoch,
    /// Its lane.
    pub lane: Lane,
    /// Its position in the lane.
    pub seq: Seq,
    /// Position of the entry sent before it to the same partition and stream; 0 for the first one.
    pub prev: Seq,
    /// The stream it was sent in.
    pub stream: Stream,
}

/// Why a name or a header was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdentityError {
    /// Too few or too many parts.
    #[error("expected 7 parts between slashes, found {0}")]
    Parts(usize),
    /// A part that does not parse.
    #[error("bad {part} {value:?}")]
    Part {
        /// Which part.
        part: &'static str,
        /// What stood there.
        value: String,
    },
    /// `prev` must be smaller than `seq`, and `seq` at least 1.
    #[error("prev {prev} is not below seq {seq}")]
    Order {
        /// The entry's position.
        seq: u64,
        /// The position claimed for the entry before it.
        prev: u64,
    },
}

/// A gateway id outside `[A-Za-z0-9._-]{1,64}`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a gateway id: 1 to 64 of A-Z a-z 0-9 . _ -")]
pub struct NameError(pub String);

// === impl Seq ===

impl Seq {
    /// The position before the first entry.
    pub const ZERO: Self = Self(0);

    /// The position after this one.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl fmt::Display for Seq {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

// === impl Epoch ===

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

// === impl LogId ===

impl fmt::Display for LogId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

// === impl GatewayId ===

impl GatewayId {
    /// Longest name, in characters.
    pub const LENGTH_MAX: usize = 64;

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for GatewayId {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let fits = (1..=Self::LENGTH_MAX).contains(&text.len());
        let plain = text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'));
        if fits && plain { Ok(Self(text.into())) } else { Err(NameError(text.to_owned())) }
    }
}

impl fmt::Display for GatewayId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

// === impl Stream ===

impl Stream {
    /// The letter in the header.
    #[must_use]
    pub const fn letter(self) -> char {
        match self {
            Self::Live => 'l',
            Self::Backlog => 'b',
        }
    }
}

// === impl Identity ===

impl Identity {
    /// Appends the header's value, the same bytes as `Display` gives; made for one call per record.
    pub fn push(&self, out: &mut Vec<u8>) {
        self.push_position(out, b'/');
        out.push(b'/');
        push_decimal(out, self.prev.0);
        out.extend_from_slice(match self.stream {
            Stream::Live => b"/l",
            Stream::Backlog => b"/b",
        });
    }

    /// Appends what names the entry however often it is sent: gateway, log, epoch, lane and seq, with
    /// `separator` between them.
    pub fn push_position(&self, out: &mut Vec<u8>, separator: u8) {
        out.extend_from_slice(self.gateway.as_str().as_bytes());
        out.push(separator);
        push_hex(out, self.log.0);
        out.push(separator);
        push_decimal(out, self.epoch.0.into());
        out.extend_from_slice(&[separator, b'0' + self.lane.number(), separator]);
        push_decimal(out, self.seq.0);
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { gateway, log, epoch, lane, seq, prev, stream } = self;
        write!(f, "{gateway}/{log}/{epoch}/{}/{seq}/{prev}/{}", lane.number(), stream.letter())
    }
}

impl FromStr for Identity {
    type Err = IdentityError;

    fn from_str(text: &str) -> Result<Self, IdentityError> {
        let parts: Vec<&str> = text.split('/').collect();
        let &[gateway, log, epoch, lane, seq, prev, stream] = parts.as_slice() else {
            return Err(IdentityError::Parts(parts.len()));
        };
        let identity = Self {
            gateway: gateway.parse().map_err(|_| bad("gateway", gateway))?,
            log: parse_log(log)?,
            epoch: Epoch(number("epoch", epoch)?),
            lane: Lane::try_from(number::<u8>("lane", lane)?).map_err(|_| bad("lane", lane))?,
            seq: Seq(number("seq", seq)?),
            prev: Seq(number("prev", prev)?),
            stream: match stream {
                "l" => Stream::Live,
                "b" => Stream::Backlog,
                other => return Err(bad("stream", other)),
            },
        };
        if identity.prev >= identity.seq {
            return Err(IdentityError::Order { seq: identity.seq.0, prev: identity.prev.0 });
        }
        Ok(identity)
    }
}

fn parse_log(text: &str) -> Result<LogId, IdentityError> {
    let canonical = text.len() == 16 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    if !canonical {
        return Err(bad("log", text));
    }
    u64::from_str_radix(text, 16).map(LogId).map_err(|_| bad("log", text))
}

/// Parses a decimal number in its only spelling: no sign, no leading zero.
fn number<N: FromStr>(part: &'static str, text: &str) -> Result<N, IdentityError> {
    let canonical = text.bytes().all(|b| b.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    if !canonical {
        return Err(bad(part, text));
    }
    text.parse().map_err(|_| bad(part, text))
}

fn bad(part: &'static str, value: &str) -> IdentityError {
    IdentityError::Part { part, value: value.to_owned() }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn check(header: &str, expected: Result<(), IdentityError>) {
        let parsed = header.parse::<Identity>();
        if let Ok(identity) = &parsed {
            assert_eq!(identity.to_string(), header, "one spelling per identity");
        }
        assert_eq!(parsed.map(drop), expected, "{header}");
    }

    #[test]
    fn headers_have_one_spelling() {
        check("site-7/00c0ffee12345678/3/2/1041/1038/l", Ok(()));
        check("g/0000000000000000/0/0/1/0/b", Ok(()));
        check("g/0000000000000000/0/0/1/0", Err(IdentityError::Parts(6)));
        check("g/0/0/0/1/0/l", Err(bad("log", "0")));
        check("g/00C0FFEE12345678/0/0/1/0/l", Err(bad("log", "00C0FFEE12345678")));
        check("g/0000000000000000/01/0/1/0/l", Err(bad("epoch", "01")));
        check("g/0000000000000000/4294967296/0/1/0/l", Err(bad("epoch", "4294967296")));
        check("g/0000000000000000/0/5/1/0/l", Err(bad("lane", "5")));
        check("g/0000000000000000/0/0/+1/0/l", Err(bad("seq", "+1")));
        check("g/0000000000000000/0/0/1/1/l", Err(IdentityError::Order { seq: 1, prev: 1 }));
        check("g/0000000000000000/0/0/0/0/l", Err(IdentityError::Order { seq: 0, prev: 0 }));
        check("g/0000000000000000/0/0/1/0/x", Err(bad("stream", "x")));
        check("g h/0000000000000000/0/0/1/0/l", Err(bad("gateway", "g h")));
    }

    #[test]
    fn gateway_ids_are_bounded() {
        assert!("a".repeat(64).parse::<GatewayId>().is_ok());
        assert!("a".repeat(65).parse::<GatewayId>().is_err());
        assert!("".parse::<GatewayId>().is_err());
        assert!("a/b".parse::<GatewayId>().is_err());
    }

    proptest! {
        #[test]
        fn identities_round_trip(
            gateway in "[A-Za-z0-9._-]{1,64}", log: u64, epoch: u32, lane in 0u8..5,
            seq in 1u64.., back in 1u64.., live: bool,
        ) {
            let identity = Identity {
                gateway: gateway.parse().expect("the pattern makes valid names"),
                log: LogId(log),
                epoch: Epoch(epoch),
                lane: Lane::try_from(lane).expect("the range makes valid lanes"),
                seq: Seq(seq),
                prev: Seq(seq.saturating_sub(back)),
                stream: if live { Stream::Live } else { Stream::Backlog },
            };
            let mut pushed = Vec::new();
            identity.push(&mut pushed);
            prop_assert_eq!(String::from_utf8(pushed), Ok(identity.to_string()));
            prop_assert_eq!(identity.to_string().parse(), Ok(identity));
        }

        #[test]
        fn junk_never_panics(text in "\\PC{0,80}") {
            drop(text.parse::<Identity>());
        }
    }
}

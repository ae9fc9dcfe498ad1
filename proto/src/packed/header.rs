//! The header `penstock-pack`: `1/<format>/<compression>/<first seq>/<count>`.

use std::fmt;
use std::str::FromStr;

use crate::text::{parse_decimal, push_decimal};
use crate::{Identity, Seq};

/// How the entries are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Format {
    /// One JSON object per line.
    Ndjson,
    /// One JSON array.
    JsonArray,
    /// The message `Packed` of `packed.proto`.
    Protobuf,
}

/// How the value is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Compression {
    /// Not at all.
    None,
    /// As a gzip file.
    Gzip,
    /// As a raw deflate stream.
    Deflate,
}

/// What the header says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Header {
    /// How the entries are written.
    pub format: Format,
    /// How the value is compressed.
    pub compression: Compression,
    /// Position of the first entry; that of the last stands in the identity.
    pub first: Seq,
    /// How many entries there are, at least 1.
    pub count: u32,
}

/// Why a header was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HeaderError {
    /// Too few or too many parts.
    #[error("expected 5 parts between slashes, found {0}")]
    Parts(usize),
    /// Written by a version that this one cannot read.
    #[error("packed records of version {0:?} are not known")]
    Version(String),
    /// A part that does not parse.
    #[error("bad {part} {value:?}")]
    Part {
        /// Which part.
        part: &'static str,
        /// What stood there.
        value: String,
    },
    /// What it says cannot be true of a record with this identity.
    #[error("{count} entries from seq {first} do not fit between prev {prev} and seq {last}")]
    Disagrees {
        /// The first entry's position.
        first: Seq,
        /// The number of entries.
        count: u32,
        /// The position before the first entry.
        prev: Seq,
        /// The last entry's position.
        last: Seq,
    },
}

// === impl Format ===

impl Format {
    /// Every one.
    pub const ALL: [Self; 3] = [Self::Ndjson, Self::JsonArray, Self::Protobuf];

    /// The name, as in the header and in the configuration.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ndjson => "ndjson",
            Self::JsonArray => "json-array",
            Self::Protobuf => "protobuf",
        }
    }
}

// === impl Compression ===

impl Compression {
    /// Every one.
    pub const ALL: [Self; 3] = [Self::None, Self::Gzip, Self::Deflate];

    /// The name, as in the header and in the configuration.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Gzip => "gzip",
            Self::Deflate => "deflate",
        }
    }
}

// === impl Header ===

impl Header {
    const VERSION: &str = "1";

    /// Appends the header's value.
    pub fn push(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(Self::VERSION.as_bytes());
        out.push(b'/');
        out.extend_from_slice(self.format.name().as_bytes());
        out.push(b'/');
        out.extend_from_slice(self.compression.name().as_bytes());
        out.push(b'/');
        push_decimal(out, self.first.0);
        out.push(b'/');
        push_decimal(out, self.count.into());
    }

    /// Whether this can be the header of a record with that identity, judged without its value.
    ///
    /// # Errors
    ///
    /// [`HeaderError::Disagrees`].
    pub fn agrees_with(&self, identity: &Identity) -> Result<(), HeaderError> {
        let Self { first, count, .. } = *self;
        let (prev, last) = (identity.prev, identity.seq);
        let room = last.0.checked_sub(first.0);
        let fits = room.is_some_and(|room| u64::from(count) <= room.saturating_add(1));
        // One entry is its own first and last; more have room between.
        let ends = (count == 1) == (first == last);
        if prev < first && fits && ends {
            Ok(())
        } else {
            Err(HeaderError::Disagrees { first, count, prev, last })
        }
    }
}

impl fmt::Display for Header {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { format, compression, first, count } = self;
        write!(f, "{}/{}/{}/{first}/{count}", Self::VERSION, format.name(), compression.name())
    }
}

impl FromStr for Header {
    type Err = HeaderError;

    fn from_str(text: &str) -> Result<Self, HeaderError> {
        let bad = |part, value: &str| HeaderError::Part { part, value: value.to_owned() };
        let parts: Vec<&str> = text.split('/').collect();
        if let Some(version) = parts.first().filter(|version| **version != Self::VERSION) {
            return Err(HeaderError::Version((*version).to_owned()));
        }
        let &[_, format, compression, first, count] = parts.as_slice() else {
            return Err(HeaderError::Parts(parts.len()));
        };
        let find_format = Format::ALL.into_iter().find(|known| known.name() == format);
        let find_compression = Compression::ALL.into_iter().find(|known| known.name() == compression);
        let count_value = parse_decimal(count).and_then(|count| u32::try_from(count).ok());
        Ok(Self {
            format: find_format.ok_or_else(|| bad("format", format))?,
            compression: find_compression.ok_or_else(|| bad("compression", compression))?,
            first: parse_decimal(first)
                .filter(|first| *first > 0)
                .map(Seq)
                .ok_or_else(|| bad("first seq", first))?,
            count: count_value.filter(|count| *count > 0).ok_or_else(|| bad("count", count))?,
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn headers_have_one_spelling() {
        let check = |text: &str, expected: Result<(), HeaderError>| {
            let parsed = text.parse::<Header>();
            if let Ok(header) = &parsed {
                assert_eq!(header.to_string(), text);
                let mut pushed = Vec::new();
                header.push(&mut pushed);
                assert_eq!(pushed, text.as_bytes());
            }
            assert_eq!(parsed.map(drop), expected, "{text}");
        };
        let bad = |part, value: &str| Err(HeaderError::Part { part, value: value.to_owned() });
        check("1/ndjson/none/1041/12", Ok(()));
        check("1/json-array/gzip/1/4294967295", Ok(()));
        check("1/protobuf/deflate/18446744073709551615/1", Ok(()));
        check("1/ndjson/none/1041", Err(HeaderError::Parts(4)));
        check("2/other/4", Err(HeaderError::Version("2".to_owned())));
        check("", Err(HeaderError::Version(String::new())));
        check("1/csv/none/1/1", bad("format", "csv"));
        check("1/ndjson/zstd/1/1", bad("compression", "zstd"));
        check("1/ndjson/none/0/1", bad("first seq", "0"));
        check("1/ndjson/none/01/1", bad("first seq", "01"));
        check("1/ndjson/none/1/0", bad("count", "0"));
        check("1/ndjson/none/1/4294967296", bad("count", "4294967296"));
    }

    #[test]
    fn a_header_must_fit_its_identity() {
        let check = |header: &str, seq_prev: &str, expected: bool| {
            let identity = format!("g/00000000000000aa/1/2/{seq_prev}/l").parse::<Identity>().unwrap();
            let header = header.parse::<Header>().unwrap();
            assert_eq!(header.agrees_with(&identity).is_ok(), expected, "{header} {identity}");
        };
        check("1/ndjson/none/5/3", "7/4", true);
        check("1/ndjson/none/5/2", "70/0", true);
        check("1/ndjson/none/5/1", "5/4", true);
        check("1/ndjson/none/5/4", "7/4", false);
        check("1/ndjson/none/5/1", "7/4", false);
        check("1/ndjson/none/5/3", "7/5", false);
        check("1/ndjson/none/8/1", "7/4", false);
        check("1/ndjson/none/5/2", "5/4", false);
    }

    proptest! {
        #[test]
        fn junk_never_panics(text in "1/(ndjson|x)/(none|)/[0-9]{0,22}/[0-9]{0,12}|\\PC{0,60}") {
            if let Ok(header) = text.parse::<Header>() {
                prop_assert_eq!(header.to_string(), text);
            }
        }
    }
}

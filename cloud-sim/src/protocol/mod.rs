//! The Kafka wire protocol as far as Event Hubs clients need it: bytes in, typed requests out, typed
//! answers back to bytes. No sockets, no clock, no state; every decoder takes bytes from strangers, so none
//! may panic or allocate more than the frame it was given justifies.
//!
//! Only versions that are really implemented are listed in [`ApiKey::versions`]: a client picks the highest
//! version both sides know, so one version too many hangs it.

pub(crate) mod api_versions;
pub(crate) mod batch;
mod error_code;
pub(crate) mod fetch;
pub(crate) mod init_producer_id;
pub(crate) mod list_offsets;
pub(crate) mod metadata;
mod primitives;
pub(crate) mod produce;
pub(crate) mod sasl;

use std::ops::RangeInclusive;

pub(crate) use self::error_code::ErrorCode;
pub(crate) use self::primitives::{DecodeError, Reader, length_i32, put_string};

/// The requests this broker answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ApiKey {
    Produce,
    Fetch,
    ListOffsets,
    Metadata,
    SaslHandshake,
    ApiVersions,
    InitProducerId,
    SaslAuthenticate,
}

impl ApiKey {
    pub(crate) const ALL: [Self; 8] = [
        Self::Produce,
        Self::Fetch,
        Self::ListOffsets,
        Self::Metadata,
        Self::SaslHandshake,
        Self::ApiVersions,
        Self::InitProducerId,
        Self::SaslAuthenticate,
    ];

    pub(crate) fn from_code(code: i16) -> Option<Self> {
        Self::ALL.into_iter().find(|key| key.code() == code)
    }

    pub(crate) const fn code(self) -> i16 {
        match self {
            Self::Produce => 0,
            Self::Fetch => 1,
            Self::ListOffsets => 2,
            Self::Metadata => 3,
            Self::SaslHandshake => 17,
            Self::ApiVersions => 18,
            Self::InitProducerId => 22,
            Self::SaslAuthenticate => 36,
        }
    }

    /// The versions implemented, all of them and no others.
    pub(crate) const fn versions(self) -> RangeInclusive<i16> {
        match self {
            Self::Produce => 3..=8,
            Self::Fetch => 4..=6,
            Self::ListOffsets => 1..=2,
            Self::Metadata => 0..=5,
            Self::ApiVersions => 0..=3,
            Self::SaslHandshake | Self::InitProducerId | Self::SaslAuthenticate => 0..=1,
        }
    }

    /// The name used in counters.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Produce => "produce",
            Self::Fetch => "fetch",
            Self::ListOffsets => "list_offsets",
            Self::Metadata => "metadata",
            Self::SaslHandshake => "sasl_handshake",
            Self::ApiVersions => "api_versions",
            Self::InitProducerId => "init_producer_id",
            Self::SaslAuthenticate => "sasl_authenticate",
        }
    }

    /// Position in [`ApiKey::ALL`].
    pub(crate) const fn index(self) -> usize {
        match self {
            Self::Produce => 0,
            Self::Fetch => 1,
            Self::ListOffsets => 2,
            Self::Metadata => 3,
            Self::SaslHandshake => 4,
            Self::ApiVersions => 5,
            Self::InitProducerId => 6,
            Self::SaslAuthenticate => 7,
        }
    }
}

/// What stands in front of every request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RequestHeader {
    pub(crate) api: ApiKey,
    pub(crate) version: i16,
    pub(crate) correlation: i32,
    /// Where the body starts in the frame.
    pub(crate) body: usize,
}

impl RequestHeader {
    /// Reads the header of a frame (without its length prefix).
    ///
    /// An unknown request, or a known one in a version that was not offered, is an error: Kafka closes the
    /// connection too. The exception is `ApiVersions`, which must be answered in any version.
    pub(crate) fn decode(frame: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(frame);
        let code = reader.i16()?;
        let version = reader.i16()?;
        let correlation = reader.i32()?;
        let api = ApiKey::from_code(code).ok_or(DecodeError::UnknownApi(code))?;
        let offered = api.versions().contains(&version);
        if !offered && api != ApiKey::ApiVersions {
            return Err(DecodeError::UnofferedVersion { api: api.name(), version });
        }
        reader.nullable_string()?;
        if offered && api == ApiKey::ApiVersions && version >= 3 {
            reader.skip_tags()?;
        }
        Ok(Self { api, version, correlation, body: reader.position() })
    }
}

/// Starts an answer in `output`: room for the length, then the correlation id. Returns what
/// [`finish_response`] needs.
pub(crate) fn start_response(output: &mut Vec<u8>, correlation: i32) -> usize {
    let start = output.len();
    output.extend_from_slice(&[0; 4]);
    output.extend_from_slice(&correlation.to_be_bytes());
    start
}

/// Writes the length of the answer that began at `start`.
pub(crate) fn finish_response(output: &mut [u8], start: usize) {
    let length = length_i32(output.len().saturating_sub(start + 4));
    if let Some(prefix) = output.get_mut(start..start + 4) {
        prefix.copy_from_slice(&length.to_be_bytes());
    }
}

#[cfg(test)]
mod tests {
    use bytes::BufMut;
    use proptest::prelude::{any, proptest};

    use super::{ApiKey, DecodeError, RequestHeader, finish_response, start_response};

    fn header(code: i16, version: i16) -> Vec<u8> {
        let mut bytes = Vec::new();
        bytes.put_i16(code);
        bytes.put_i16(version);
        bytes.put_i32(77);
        bytes.put_i16(2);
        bytes.put_slice(b"me");
        bytes
    }

    #[test]
    fn the_position_in_all_is_the_index() {
        for (position, key) in ApiKey::ALL.into_iter().enumerate() {
            assert_eq!(key.index(), position);
            assert_eq!(ApiKey::from_code(key.code()), Some(key));
        }
    }

    #[test]
    fn header_of_an_offered_version_is_read() {
        let got = RequestHeader::decode(&header(0, 7)).unwrap();
        assert_eq!(got, RequestHeader { api: ApiKey::Produce, version: 7, correlation: 77, body: 12 });
    }

    #[test]
    fn unoffered_versions_and_unknown_requests_are_refused() {
        assert!(matches!(RequestHeader::decode(&header(1, 12)), Err(DecodeError::UnofferedVersion { .. })));
        assert!(matches!(RequestHeader::decode(&header(999, 0)), Err(DecodeError::UnknownApi(999))));
    }

    #[test]
    fn api_versions_is_read_in_any_version() {
        assert_eq!(RequestHeader::decode(&header(18, 9)).unwrap().version, 9);
    }

    #[test]
    fn the_length_prefix_covers_what_follows_it() {
        let mut output = vec![9; 3];
        let start = start_response(&mut output, 5);
        output.extend_from_slice(b"body");
        finish_response(&mut output, start);
        assert_eq!(output, [&[9u8, 9, 9, 0, 0, 0, 8, 0, 0, 0, 5][..], b"body"].concat());
    }

    proptest! {
        #[test]
        fn junk_never_panics_the_header_decoder(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            drop(RequestHeader::decode(&bytes));
        }
    }
}

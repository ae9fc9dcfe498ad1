//! Packed records: many entries of one partition in the value of one Kafka record.
//!
//! The header `penstock-pack` says how the value is written; the header `penstock` names the last entry, and the
//! predecessor of the first. See `docs/formats/packed-v1.md`.
//!
//! ```text
//! headers ─parse─► Header ─agrees with─► Identity      value ─inflate─► body ─unpack─► entries
//! ```

mod body;
mod entry;
mod header;

#[cfg(test)]
mod tests;
#[cfg(test)]
mod vectors;

pub use body::{BODY_BYTES_MAX, UnpackError, inflate, unpack};
pub use entry::{Entry, EntryError, Payload};
pub use header::{Compression, Format, Header, HeaderError};

/// Name of the header that packed records carry besides [`crate::IDENTITY_HEADER`]; its value is a [`Header`].
pub const PACK_HEADER: &str = "penstock-pack";

/// Names of the members of an entry written as JSON.
pub mod member {
    /// Position in the lane, a number.
    pub const SEQ: &str = "seq";
    /// The device key.
    pub const DEVICE: &str = "device";
    /// The topic it was published to.
    pub const TOPIC: &str = "topic";
    /// When the gateway took it in, RFC 3339 in UTC.
    pub const RECEIVED: &str = "received";
    /// The payload, when it is JSON: any value.
    pub const PAYLOAD: &str = "payload";
    /// The payload, when it is other text.
    pub const PAYLOAD_TEXT: &str = "payload_text";
    /// The payload, when it is neither, in Base64.
    pub const PAYLOAD_BASE64: &str = "payload_base64";
}

/// Numbers of the fields of `packed.proto`.
pub mod field {
    /// `Packed.entries`.
    pub const ENTRIES: u32 = 1;
    /// `PackedEntry.seq`.
    pub const SEQ: u32 = 1;
    /// `PackedEntry.device`.
    pub const DEVICE: u32 = 2;
    /// `PackedEntry.topic`.
    pub const TOPIC: u32 = 3;
    /// `PackedEntry.received_ms`.
    pub const RECEIVED_MS: u32 = 4;
    /// `PackedEntry.payload`.
    pub const PAYLOAD: u32 = 5;
    /// `PackedEntry.device_time_ms`.
    pub const DEVICE_TIME_MS: u32 = 6;
    /// `PackedEntry.content_type`.
    pub const CONTENT_TYPE: u32 = 7;
    /// `PackedEntry.tenant`.
    pub const TENANT: u32 = 8;
    /// `PackedEntry.site`.
    pub const SITE: u32 = 9;
    /// `PackedEntry.class`.
    pub const CLASS: u32 = 10;
    /// `PackedEntry.stream`.
    pub const STREAM: u32 = 11;
    /// `PackedEntry.traceparent`.
    pub const TRACEPARENT: u32 = 12;
    /// `PackedEntry.tracestate`.
    pub const TRACESTATE: u32 = 13;
    /// `PackedEntry.user`.
    pub const USER: u32 = 14;
    /// `UserProperty.name`.
    pub const NAME: u32 = 1;
    /// `UserProperty.value`.
    pub const VALUE: u32 = 2;
}

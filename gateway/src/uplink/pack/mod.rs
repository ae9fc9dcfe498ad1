//! Packed records: many entries of one partition in the value of one Kafka record.

/// How the entries of a packed record are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PackFormat {
    /// One JSON object per line.
    Ndjson,
    /// One JSON array.
    JsonArray,
    /// The message `Packed` of `packed.proto`.
    Protobuf,
}

/// How the value of a packed record is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PackCompression {
    /// Not at all.
    None,
    /// As a gzip file.
    Gzip,
    /// As a raw deflate stream.
    Deflate,
}

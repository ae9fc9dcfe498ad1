//! One function per decoder of bytes that this program does not control, to be fed random bytes.
//!
//! It exists in tests and under cargo-fuzz only. Each stage lists its own decoders. A decoder passes if it
//! returns, whatever it makes of the bytes, and if what it says about them holds together: what was decoded
//! is encoded and decoded again, a second opinion agrees. Where a checksum would keep random bytes out, the
//! function also decodes them with the checksum put right.

mod proto;
#[cfg(test)]
mod tests;

/// A decoder.
#[derive(Debug, Clone, Copy)]
pub struct Decoder {
    /// Its name: letters, digits and underlines.
    pub name: &'static str,
    /// Decodes; panics if what it finds does not hold together.
    pub decode: fn(&[u8]),
    /// Its share of the cases of a run, relative to the others: quick ones get more.
    pub weight: u64,
}

/// Every decoder, in the order of the data flow.
pub fn decoders() -> impl Iterator<Item = Decoder> {
    let stages =
        [crate::mqtt::DECODERS, crate::outbox::DECODERS, crate::uplink::DECODERS, crate::commands::DECODERS];
    let rest = [crate::config::DECODERS, proto::DECODERS];
    stages.into_iter().chain(crate::alerts::DECODERS).chain(rest).flatten().copied()
}

/// Gives bytes to the decoder of that name.
///
/// # Panics
///
/// If there is none, or if it panics.
pub fn decode(name: &str, bytes: &[u8]) {
    let decoder = decoders().find(|decoder| decoder.name == name);
    (decoder.expect("a decoder of that name").decode)(bytes);
}

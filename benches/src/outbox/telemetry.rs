//! Payloads as a machine sends them: JSON whose names repeat and whose numbers do not, so that a compressor finds
//! what it would find in the field.

use std::io;

use crate::packets::{Payloads, random};

/// Bytes of each payload.
pub const PAYLOAD_BYTES: usize = 200;

/// Different payloads: several windows of the compressor.
const PAYLOADS: usize = 1 << 14;

/// Distance between the first payloads of two producers, so that their payloads differ at any time.
const STRIDE: usize = 1021;

/// The payloads.
#[derive(Debug)]
pub struct Telemetry(Vec<u8>);

impl Telemetry {
    /// Makes the payloads, always the same.
    ///
    /// # Errors
    /// One of them has another length, which would be a mistake in here.
    pub fn new() -> io::Result<Self> {
        let mut bytes = Vec::with_capacity(PAYLOADS * PAYLOAD_BYTES);
        let mut state = 0x5eed_u64;
        for number in 0..PAYLOADS {
            bytes.extend_from_slice(reading(number, &mut state).as_bytes());
        }
        if bytes.len() != PAYLOADS * PAYLOAD_BYTES {
            return Err(io::Error::other("a reading has another length than it should"));
        }
        Ok(Self(bytes))
    }

    /// Payloads of the same length with few members, one of them a long text: what the load over MQTT sends.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn with_few_members() -> io::Result<Self> {
        let payloads = Payloads::new(PAYLOAD_BYTES)?;
        let bytes = (0..PAYLOADS).flat_map(|number| payloads.get(number)).copied();
        Ok(Self(bytes.collect()))
    }

    /// The first payload of a producer.
    pub const fn first_of(producer: usize) -> usize {
        producer.wrapping_mul(STRIDE)
    }

    /// The payload with this number; numbers beyond the last start again.
    pub fn get(&self, number: usize) -> &[u8] {
        let start = (number % PAYLOADS) * PAYLOAD_BYTES;
        self.0.get(start..start + PAYLOAD_BYTES).unwrap_or_default()
    }
}

fn reading(number: usize, state: &mut u64) -> String {
    let mut below = |limit: u64| random(state) % limit;
    format!(
        r#"{{"seq":{},"at":1790000{:06},"temperature":2{}.{:02},"humidity":4{}.{:02},"pressure":1{:03}.{:02},"vibration":[0.{:04},0.{:04},0.{:04}],"current":1{}.{:03},"voltage":23{}.{},"rpm":14{:02},"state":"running","line":"A17"}}"#,
        1_000_000 + number,
        below(1_000_000),
        below(10),
        below(100),
        below(10),
        below(100),
        below(1000),
        below(100),
        below(10_000),
        below(10_000),
        below(10_000),
        below(10),
        below(1000),
        below(10),
        below(10),
        below(100),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_payload_is_json_of_one_length_and_differs_from_the_next() {
        let payloads = Telemetry::new().unwrap();
        for number in 0..PAYLOADS {
            let payload = payloads.get(number);
            assert_eq!(payload.len(), PAYLOAD_BYTES);
            let value: serde_json::Value = serde_json::from_slice(payload).unwrap();
            assert_eq!(value["seq"], 1_000_000 + number);
        }
        let few = Telemetry::with_few_members().unwrap();
        let value: serde_json::Value = serde_json::from_slice(few.get(7)).unwrap();
        assert_eq!((few.get(7).len(), value.as_object().unwrap().len()), (PAYLOAD_BYTES, 3));
        assert_ne!(payloads.get(0)[20..], payloads.get(1)[20..]);
        assert_eq!(payloads.get(PAYLOADS), payloads.get(0));
    }
}

//! The telemetry payload that the simulated fleet publishes and the judge reads back.

use serde::{Deserialize, Serialize};

use crate::wire::v1;

/// One reading of one device, as JSON.
///
/// The gateway carries payloads untouched; the fleet uses this shape so that every delivered
/// record can be judged by the device's own numbering, independently of the gateway's.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Reading {
    /// The device.
    pub device: String,
    /// The device's own count of its readings per stream, from 1, dense.
    pub reading: u64,
    /// When the device took it, in Unix milliseconds.
    pub taken_ms: u64,
    /// Temperature in degrees Celsius.
    pub temperature: f64,
    /// Pressure in kilopascal.
    pub pressure: f64,
    /// Vibration in millimetres per second.
    pub vibration: f64,
    /// Filler that brings the payload to the size under test.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub pad: String,
}

impl From<Reading> for v1::Reading {
    fn from(reading: Reading) -> Self {
        let Reading { device, reading, taken_ms, temperature, pressure, vibration, pad } = reading;
        Self { device, reading, taken_ms, temperature, pressure, vibration, pad }
    }
}

impl From<v1::Reading> for Reading {
    fn from(reading: v1::Reading) -> Self {
        let v1::Reading { device, reading, taken_ms, temperature, pressure, vibration, pad } = reading;
        Self { device, reading, taken_ms, temperature, pressure, vibration, pad }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::Message as _;

    #[test]
    fn a_reading_is_the_same_in_either_encoding() {
        let reading = Reading {
            device: "press-7".to_owned(),
            reading: 41,
            taken_ms: 1_700_000_000_123,
            temperature: 21.5,
            pressure: 101.25,
            vibration: -0.5,
            pad: "x".to_owned(),
        };
        let bytes = v1::Reading::from(reading.clone()).encode_to_vec();
        assert_eq!(Reading::from(v1::Reading::decode(bytes.as_slice()).unwrap()), reading);
        let json = serde_json::to_vec(&reading).unwrap();
        assert_eq!(serde_json::from_slice::<Reading>(&json).unwrap(), reading);
    }
}

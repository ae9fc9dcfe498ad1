//! The telemetry payload that the simulated fleet publishes and the judge reads back.

use serde::{Deserialize, Serialize};

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

//! Penstock's own telemetry message, `penstock.v1.Reading` of `proto/penstock/v1/telemetry.proto`.

use super::Refused;
use super::counts::{Counts, LeftOut};
use super::times::Times;
use super::wire::{Fields, Malformed};
use crate::alerts::nouns::Sample;

/// The name of the message, as content types spell it.
pub(super) const MESSAGE: &str = "penstock.v1.Reading";

/// Which of its fields are wanted.
#[derive(Debug, Default)]
pub(super) struct Telemetry {
    /// Metrics by field, in the order of [`FIELDS`].
    wanted: [Option<u16>; FIELDS.len()],
}

/// The fields that are measurements, as metrics are called.
const FIELDS: [&str; 3] = ["temperature", "pressure", "vibration"];

impl Telemetry {
    pub(super) fn new(metrics: &[Box<str>]) -> Self {
        let place = |field: &str| {
            let mut named = (0..u16::MAX).zip(metrics).filter(|(_, name)| &***name == field);
            named.next().map(|(metric, _)| metric)
        };
        Self { wanted: FIELDS.map(place) }
    }

    pub(super) fn is_wanted(&self) -> bool {
        self.wanted.iter().any(Option::is_some)
    }

    /// Appends the samples of a message. A field that is not there is 0, as proto3 has it.
    pub(super) fn read(
        &self,
        payload: &[u8],
        times: Times,
        counts: &mut Counts,
        samples: &mut Vec<Sample>,
    ) -> Result<(), Refused> {
        if payload.is_empty() {
            return Err(Refused::Empty);
        }
        let (values, taken_ms) = decode(payload).map_err(|Malformed| Refused::Protobuf)?;
        let told_ms = Some(taken_ms).filter(|taken_ms| *taken_ms != 0);
        let at_ms = times.settle(told_ms, &mut counts.times_wrong);
        for (metric, value) in self.wanted.into_iter().zip(values) {
            match metric {
                Some(metric) if value.is_finite() => samples.push(Sample { metric, value, at_ms }),
                Some(_) => counts.leave_out(LeftOut::NotFinite, 1),
                None => {}
            }
        }
        Ok(())
    }
}

/// The measurements, and when they were taken.
fn decode(payload: &[u8]) -> Result<([f64; FIELDS.len()], u64), Malformed> {
    let (mut temperature, mut pressure, mut vibration, mut taken_ms) = (0.0, 0.0, 0.0, 0);
    let mut fields = Fields::new(payload);
    while let Some((number, value)) = fields.next()? {
        match number {
            // The device's name and the filler are text, or the message is not what it says.
            1 | 7 => {
                value.text()?;
            }
            2 => {
                value.varint()?;
            }
            3 => taken_ms = value.varint()?,
            4 => temperature = value.double()?,
            5 => pressure = value.double()?,
            6 => vibration = value.double()?,
            _ => {}
        }
    }
    Ok(([temperature, pressure, vibration], taken_ms))
}

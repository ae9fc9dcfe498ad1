//! The payload of Sparkplug B (`org.eclipse.tahu.protobuf.Payload`), as far as measurements go.

use crate::alerts::measure::LeftOut;
use crate::alerts::measure::wire::{Fields, Malformed, Value as Wire};

/// `uuid` of a payload that holds a compressed one in its body.
const COMPRESSED: &str = "SPBV1.0_COMPRESSED";

/// A payload without its metrics.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Head {
    /// Unix milliseconds.
    pub(super) timestamp: Option<u64>,
    /// 0 where it is not there, as encoders of proto3 leave it out.
    pub(super) seq: u8,
    pub(super) is_compressed: bool,
    pub(super) metrics: usize,
}

/// One metric. Text borrows from the payload.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Metric<'a> {
    pub(super) name: Option<&'a str>,
    pub(super) alias: Option<u64>,
    /// Unix milliseconds.
    pub(super) timestamp: Option<u64>,
    pub(super) datatype: Option<u32>,
    pub(super) is_historical: bool,
    pub(super) is_null: bool,
    pub(super) value: Value,
}

/// The value of a metric as it was sent; what it means depends on the data type.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) enum Value {
    #[default]
    None,
    Int(u32),
    Long(u64),
    Float(f32),
    Double(f64),
    Boolean(bool),
    /// Text, bytes, data sets, templates, extensions.
    Other,
}

/// Numbers of data types whose integers have a sign.
mod datatype {
    pub(super) const INT8: u32 = 1;
    pub(super) const INT16: u32 = 2;
    pub(super) const INT32: u32 = 3;
    pub(super) const INT64: u32 = 4;
}

/// Reads all of a payload, so that what follows can trust that it is whole.
pub(super) fn check(bytes: &[u8]) -> Result<Head, Malformed> {
    let mut head = Head::default();
    let mut fields = Fields::new(bytes);
    while let Some((number, value)) = fields.next()? {
        match number {
            1 => head.timestamp = Some(value.varint()?),
            2 => {
                Metric::read(value.bytes()?)?;
                head.metrics += 1;
            }
            3 => head.seq = u8::try_from(value.varint()?).map_err(|_| Malformed)?,
            4 => head.is_compressed = value.text()? == COMPRESSED,
            5 => {
                value.bytes()?;
            }
            _ => {}
        }
    }
    Ok(head)
}

/// The metrics of a payload that was checked, in order.
pub(super) fn metrics(bytes: &[u8]) -> impl Iterator<Item = Metric<'_>> {
    let mut fields = Fields::new(bytes);
    std::iter::from_fn(move || {
        loop {
            let (number, value) = fields.next().ok()??;
            if number == 2 {
                return Metric::read(value.bytes().ok()?).ok();
            }
        }
    })
}

impl<'a> Metric<'a> {
    fn read(bytes: &'a [u8]) -> Result<Self, Malformed> {
        let mut metric = Self::default();
        let mut fields = Fields::new(bytes);
        while let Some((number, value)) = fields.next()? {
            match number {
                1 => metric.name = Some(value.text()?).filter(|name| !name.is_empty()),
                2 => metric.alias = Some(value.varint()?),
                3 => metric.timestamp = Some(value.varint()?),
                4 => metric.datatype = Some(value.uint32()?),
                5 => metric.is_historical = value.boolean()?,
                7 => metric.is_null = value.boolean()?,
                6 => {
                    value.boolean()?;
                }
                8 | 9 => {
                    value.bytes()?;
                }
                10..=19 => metric.value = Value::read(number, value)?,
                _ => {}
            }
        }
        Ok(metric)
    }

    /// The value as a number. `born` is the data type that the birth gave, for a metric that does not say it.
    pub(super) fn number(&self, born: u32) -> Result<f64, LeftOut> {
        if self.is_null {
            return Err(LeftOut::Null);
        }
        let number = match self.value {
            Value::Int(value) => integer(u64::from(value), self.datatype.unwrap_or(born)),
            Value::Long(value) => integer(value, self.datatype.unwrap_or(born)),
            Value::Float(value) => f64::from(value),
            Value::Double(value) => value,
            Value::Boolean(value) => f64::from(u8::from(value)),
            Value::None | Value::Other => return Err(LeftOut::NotNumber),
        };
        if number.is_finite() { Ok(number) } else { Err(LeftOut::NotFinite) }
    }

    /// The value as a whole number, as `bdSeq` is sent.
    pub(super) fn whole(&self) -> Option<u64> {
        match self.value {
            Value::Int(value) => Some(u64::from(value)),
            Value::Long(value) => Some(value),
            _ => None,
        }
    }
}

impl Value {
    fn read(number: u32, value: Wire<'_>) -> Result<Self, Malformed> {
        Ok(match number {
            10 => Self::Int(value.uint32()?),
            11 => Self::Long(value.varint()?),
            12 => Self::Float(value.float()?),
            13 => Self::Double(value.double()?),
            14 => Self::Boolean(value.boolean()?),
            15 => {
                value.text()?;
                Self::Other
            }
            _ => {
                value.bytes()?;
                Self::Other
            }
        })
    }
}

/// Integers with a sign arrive as two's complement, of which the lowest bits count. Of a type without one, all do.
fn integer(bits: u64, kind: u32) -> f64 {
    let [a, b, c, d, ..] = bits.to_le_bytes();
    match kind {
        datatype::INT8 => f64::from(i8::from_le_bytes([a])),
        datatype::INT16 => f64::from(i16::from_le_bytes([a, b])),
        datatype::INT32 => f64::from(i32::from_le_bytes([a, b, c, d])),
        datatype::INT64 => bits.cast_signed() as f64,
        _ => bits as f64,
    }
}

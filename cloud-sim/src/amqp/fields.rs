//! Fields of composites, one after the other. Those at the end may be left out, and nulls stand for defaults.

use super::decode::{DecodeError, Reader, descriptor_code};
use super::value::Value;

pub(super) type Fields = std::vec::IntoIter<Value>;

/// A described list: its descriptor and its fields.
pub(super) fn list(reader: &mut Reader<'_>) -> Result<(u64, Fields), DecodeError> {
    let Value::Described(described) = reader.value()? else {
        return Err(DecodeError::Wrong("a performative"));
    };
    let code = descriptor_code(&described.0)?;
    let Value::List(fields) = described.1 else { return Err(DecodeError::Wrong("a performative")) };
    Ok((code, fields.into_iter()))
}

pub(super) fn composite(value: Value, code: u64, name: &'static str) -> Result<Option<Fields>, DecodeError> {
    match value {
        Value::Null => Ok(None),
        Value::Described(described) if descriptor_code(&described.0)? == code => match described.1 {
            Value::List(fields) => Ok(Some(fields.into_iter())),
            _ => Err(DecodeError::Wrong(name)),
        },
        _ => Err(DecodeError::Wrong(name)),
    }
}

pub(super) fn text(fields: &mut Fields, name: &'static str) -> Result<Option<String>, DecodeError> {
    match fields.next() {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text) | Value::Symbol(text)) => Ok(Some(text)),
        Some(_) => Err(DecodeError::Wrong(name)),
    }
}

pub(super) fn number<N: TryFrom<u64>>(
    fields: &mut Fields,
    name: &'static str,
) -> Result<Option<N>, DecodeError> {
    let number = match fields.next() {
        None | Some(Value::Null) => return Ok(None),
        Some(Value::Ulong(number)) => number,
        Some(other) => {
            let number = other.integer().and_then(|number| u64::try_from(number).ok());
            number.ok_or(DecodeError::Wrong(name))?
        }
    };
    N::try_from(number).map(Some).map_err(|_wide| DecodeError::Wrong(name))
}

pub(super) fn required<N: TryFrom<u64>>(fields: &mut Fields, name: &'static str) -> Result<N, DecodeError> {
    number(fields, name)?.ok_or(DecodeError::Missing(name))
}

/// A boolean whose default is false.
pub(super) fn truth(fields: &mut Fields, name: &'static str) -> Result<bool, DecodeError> {
    match fields.next() {
        None | Some(Value::Null) => Ok(false),
        Some(Value::Bool(truth)) => Ok(truth),
        Some(_) => Err(DecodeError::Wrong(name)),
    }
}

pub(super) fn role(fields: &mut Fields) -> Result<bool, DecodeError> {
    match fields.next() {
        Some(Value::Bool(receiver)) => Ok(receiver),
        None | Some(Value::Null) => Err(DecodeError::Missing("role")),
        Some(_) => Err(DecodeError::Wrong("role")),
    }
}

pub(super) fn map(fields: &mut Fields, name: &'static str) -> Result<Vec<(Value, Value)>, DecodeError> {
    match fields.next() {
        None | Some(Value::Null) => Ok(Vec::new()),
        Some(Value::Map(entries)) => Ok(entries),
        Some(_) => Err(DecodeError::Wrong(name)),
    }
}

/// A map behind `count` fields that do not matter here.
pub(super) fn after(
    fields: &mut Fields,
    count: usize,
    name: &'static str,
) -> Result<Vec<(Value, Value)>, DecodeError> {
    map(skipped(fields, count), name)
}

pub(super) fn skipped(fields: &mut Fields, count: usize) -> &mut Fields {
    for _ in 0..count {
        drop(fields.next());
    }
    fields
}

pub(super) fn optional(value: Option<Value>) -> Value {
    value.unwrap_or(Value::Null)
}

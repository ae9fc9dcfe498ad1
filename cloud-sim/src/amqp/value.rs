//! Values of the type system (part 1).

use bytes::Bytes;

/// Any value. Strings and symbols are kept apart, and so are the widths of numbers.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Value {
    Null,
    Bool(bool),
    Ubyte(u8),
    Ushort(u16),
    Uint(u32),
    Ulong(u64),
    Byte(i8),
    Short(i16),
    Int(i32),
    Long(i64),
    Float(f32),
    Double(f64),
    /// The bytes of a decimal of 4, 8 or 16 bytes; they are only passed on.
    Decimal(Bytes),
    Char(char),
    /// Milliseconds since 1970.
    Timestamp(i64),
    /// In the order of RFC 4122.
    Uuid([u8; 16]),
    Binary(Bytes),
    String(String),
    Symbol(String),
    List(Vec<Value>),
    Map(Vec<(Value, Value)>),
    /// Items of one type.
    Array(Vec<Value>),
    Described(Box<(Value, Value)>),
}

impl Value {
    pub(crate) fn string(text: impl Into<String>) -> Self {
        Self::String(text.into())
    }

    pub(crate) fn symbol(text: impl Into<String>) -> Self {
        Self::Symbol(text.into())
    }

    /// A composite: a list with a numeric descriptor.
    pub(crate) fn composite(descriptor: u64, fields: Vec<Self>) -> Self {
        Self::described(descriptor, Self::List(fields))
    }

    pub(crate) fn described(descriptor: u64, value: Self) -> Self {
        Self::Described(Box::new((Self::Ulong(descriptor), value)))
    }

    /// The value itself, or the one that a descriptor was put on.
    pub(crate) fn plain(&self) -> &Self {
        match self {
            Self::Described(described) => described.1.plain(),
            other => other,
        }
    }

    /// The text of a string or symbol.
    pub(crate) fn text(&self) -> Option<&str> {
        match self {
            Self::String(text) | Self::Symbol(text) => Some(text),
            _ => None,
        }
    }

    /// Any integer that fits.
    pub(crate) fn integer(&self) -> Option<i64> {
        match *self {
            Self::Ubyte(number) => Some(number.into()),
            Self::Ushort(number) => Some(number.into()),
            Self::Uint(number) => Some(number.into()),
            Self::Ulong(number) => i64::try_from(number).ok(),
            Self::Byte(number) => Some(number.into()),
            Self::Short(number) => Some(number.into()),
            Self::Int(number) => Some(number.into()),
            Self::Long(number) => Some(number),
            _ => None,
        }
    }

    pub(crate) fn uint(&self) -> Option<u32> {
        self.integer().and_then(|number| u32::try_from(number).ok())
    }

    pub(crate) fn truth(&self) -> Option<bool> {
        match *self {
            Self::Bool(truth) => Some(truth),
            _ => None,
        }
    }

    /// The items of a list or array; a single value counts as one item, as the standard has it for fields
    /// that may be given "multiple" times (part 1, section 1.4).
    pub(crate) fn items(&self) -> &[Self] {
        match self {
            Self::List(items) | Self::Array(items) => items,
            Self::Null => &[],
            single => std::slice::from_ref(single),
        }
    }

    /// The value of a key in a map, where keys are strings or symbols.
    pub(crate) fn entry(&self, key: &str) -> Option<&Self> {
        match self {
            Self::Map(entries) => entry(entries, key),
            _ => None,
        }
    }
}

/// The value of a key, where keys are strings or symbols. Null counts as absent.
pub(crate) fn entry<'a>(entries: &'a [(Value, Value)], key: &str) -> Option<&'a Value> {
    let found = entries.iter().find(|(name, _)| name.text() == Some(key));
    found.map(|(_, value)| value).filter(|value| **value != Value::Null)
}

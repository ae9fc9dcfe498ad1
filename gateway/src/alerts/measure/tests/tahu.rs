//! Writes Sparkplug payloads as the specification's schema has them, for tests.

/// A payload.
#[derive(Debug, Clone, Default)]
pub(crate) struct Payload {
    pub(crate) timestamp: Option<u64>,
    pub(crate) metrics: Vec<Metric>,
    pub(crate) seq: Option<u64>,
    pub(crate) uuid: Option<&'static str>,
    pub(crate) body: Option<Vec<u8>>,
}

#[derive(Debug, Clone, Default)]
pub(crate) struct Metric {
    pub(crate) name: Option<String>,
    pub(crate) alias: Option<u64>,
    pub(crate) timestamp: Option<u64>,
    pub(crate) datatype: Option<u64>,
    pub(crate) is_historical: bool,
    pub(crate) is_null: bool,
    pub(crate) value: Value,
}

/// A value by its field.
#[derive(Debug, Clone, Default)]
pub(crate) enum Value {
    #[default]
    None,
    Int(u32),
    Long(u64),
    Float(f32),
    Double(f64),
    Boolean(bool),
    Text(String),
    Bytes(Vec<u8>),
}

impl Payload {
    pub(crate) fn new(seq: u8, metrics: Vec<Metric>) -> Self {
        Self { seq: Some(seq.into()), metrics, ..Self::default() }
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        put_number(&mut out, 1, self.timestamp);
        for metric in &self.metrics {
            put_bytes(&mut out, 2, &metric.encode());
        }
        put_number(&mut out, 3, self.seq);
        self.uuid.iter().for_each(|uuid| put_bytes(&mut out, 4, uuid.as_bytes()));
        self.body.iter().for_each(|body| put_bytes(&mut out, 5, body));
        out
    }
}

impl Metric {
    /// As births have it.
    pub(crate) fn born(name: &str, alias: u64, datatype: u64, value: Value) -> Self {
        let (name, alias, datatype) = (Some(name.to_owned()), Some(alias), Some(datatype));
        Self { name, alias, datatype, value, ..Self::default() }
    }

    pub(crate) fn named(name: &str, value: Value) -> Self {
        Self { name: Some(name.to_owned()), value, ..Self::default() }
    }

    pub(crate) fn aliased(alias: u64, value: Value) -> Self {
        Self { alias: Some(alias), value, ..Self::default() }
    }

    fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        self.name.iter().for_each(|name| put_bytes(&mut out, 1, name.as_bytes()));
        put_number(&mut out, 2, self.alias);
        put_number(&mut out, 3, self.timestamp);
        put_number(&mut out, 4, self.datatype);
        put_number(&mut out, 5, self.is_historical.then_some(1));
        put_number(&mut out, 7, self.is_null.then_some(1));
        match &self.value {
            Value::None => {}
            Value::Int(value) => put_number(&mut out, 10, Some((*value).into())),
            Value::Long(value) => put_number(&mut out, 11, Some(*value)),
            Value::Float(value) => {
                put_varint(&mut out, 12 << 3 | 5);
                out.extend_from_slice(&value.to_le_bytes());
            }
            Value::Double(value) => {
                put_varint(&mut out, 13 << 3 | 1);
                out.extend_from_slice(&value.to_le_bytes());
            }
            Value::Boolean(value) => put_number(&mut out, 14, Some((*value).into())),
            Value::Text(text) => put_bytes(&mut out, 15, text.as_bytes()),
            Value::Bytes(bytes) => put_bytes(&mut out, 16, bytes),
        }
        out
    }
}

fn put_number(out: &mut Vec<u8>, field: u64, number: Option<u64>) {
    if let Some(number) = number {
        put_varint(out, field << 3);
        put_varint(out, number);
    }
}

fn put_bytes(out: &mut Vec<u8>, field: u64, bytes: &[u8]) {
    put_varint(out, field << 3 | 2);
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    out.push((value & 0x7f) as u8);
}

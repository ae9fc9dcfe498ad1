//! The headers of a Kafka record: the identity always, and what else the configuration asks for.

use penstock_proto::{IDENTITY_HEADER, Identity};

use crate::outbox::Record;

/// Which headers a record carries besides `penstock`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HeaderMode {
    /// None.
    Minimal,
    /// Everything known about the message.
    Full,
    /// The names that consumers of IoT Hub know.
    IotHub,
    /// The CloudEvents binding for Kafka.
    CloudEvents,
}

/// Names and values, in one buffer that is used again for every record.
#[derive(Debug, Default)]
pub(crate) struct Headers {
    bytes: Vec<u8>,
    /// Per header where its name and where its value ends.
    ends: Vec<(usize, usize)>,
}

impl Headers {
    /// Forgets all of them and keeps the buffer.
    pub(crate) fn clear(&mut self) {
        self.bytes.clear();
        self.ends.clear();
    }

    /// Appends one.
    pub(crate) fn push(&mut self, name: &str, value: &[u8]) {
        self.bytes.extend_from_slice(name.as_bytes());
        let name_end = self.bytes.len();
        self.bytes.extend_from_slice(value);
        self.ends.push((name_end, self.bytes.len()));
    }

    /// Name and value of each, in order.
    pub(crate) fn iter(&self) -> impl ExactSizeIterator<Item = (&[u8], &[u8])> {
        let mut start = 0;
        self.ends.iter().map(move |(name_end, end)| {
            let (name, value) = (start..*name_end, *name_end..*end);
            start = *end;
            (self.bytes.get(name).unwrap_or_default(), self.bytes.get(value).unwrap_or_default())
        })
    }

    /// Bytes of all names and values.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes.len()
    }

    /// Replaces the headers by those of one record.
    pub(crate) fn fill(&mut self, _mode: HeaderMode, identity: &Identity, _record: &Record<'_>) {
        use std::io::Write as _;
        self.clear();
        self.bytes.extend_from_slice(IDENTITY_HEADER.as_bytes());
        let name_end = self.bytes.len();
        write!(self.bytes, "{identity}").expect("writing to memory cannot fail");
        self.ends.push((name_end, self.bytes.len()));
    }
}

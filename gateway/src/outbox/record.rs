//! Records: what a device published, as bytes.
//!
//! [`Encoded::push`] writes an [`Entry`] into buffers that a thread uses again and again, so that a
//! message costs no allocation; [`Record`] borrows from a segment. The layout is documented byte by
//! byte in `docs/formats/outbox-v1.md`. Readers skip properties and trailing bytes they do not know.

#![cfg_attr(not(test), warn(clippy::indexing_slicing))]

use penstock_proto::{Lane, Seq};

use super::wire::{Input, put_sized, put_varint, sized_len, varint_len};

/// The record layout this version writes.
const SCHEMA: u8 = 1;

const FLAG_QOS: u8 = 0b0000_0011;
const FLAG_RETAIN: u8 = 0b0000_0100;
const FLAG_CLOCK_SYNCED: u8 = 0b0000_1000;

/// Numbers of the properties; a number once used is never given another meaning.
mod tag {
    pub(super) const CONTENT_TYPE: u8 = 1;
    pub(super) const TRACEPARENT: u8 = 2;
    pub(super) const TRACESTATE: u8 = 3;
    pub(super) const RESPONSE_TOPIC: u8 = 4;
    pub(super) const CORRELATION_DATA: u8 = 5;
    pub(super) const EXPIRY_SECONDS: u8 = 6;
    pub(super) const DEVICE_TIME_MS: u8 = 7;
    pub(super) const USER: u8 = 8;
    pub(super) const TENANT: u8 = 9;
    pub(super) const SITE: u8 = 10;
    pub(super) const CLASS: u8 = 11;
    pub(super) const STREAM: u8 = 12;
}

/// A message on its way into the outbox.
#[derive(Debug, Clone, Copy)]
pub struct Entry<'a> {
    /// The lane it is stored in.
    pub lane: Lane,
    /// The device key: the Kafka key and the unit of ordering.
    pub device: &'a str,
    /// The topic it was published to.
    pub topic: &'a str,
    /// When the gateway took it in, in Unix milliseconds.
    pub received_ms: u64,
    /// The quality of service it came with: 0, 1 or 2.
    pub qos: u8,
    /// Whether it was published as retained.
    pub retain: bool,
    /// Whether the gateway's clock was known to be right when it stamped `received_ms`.
    pub clock_synced: bool,
    /// Everything else that is known about it.
    pub properties: Properties<'a>,
    /// The payload as published.
    pub payload: &'a [u8],
}

/// A stored message, borrowed from its [`super::Segment`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Record<'a> {
    /// The device key.
    pub device: &'a str,
    /// The topic it was published to.
    pub topic: &'a str,
    /// When the gateway took it in, in Unix milliseconds.
    pub received_ms: u64,
    /// The quality of service it came with.
    pub qos: u8,
    /// Whether it was published as retained.
    pub retain: bool,
    /// Whether the gateway's clock was known to be right when it stamped `received_ms`.
    pub clock_synced: bool,
    /// Everything else that is known about it.
    pub properties: Properties<'a>,
    /// The payload as published.
    pub payload: &'a [u8],
}

/// What may be known about a message besides its payload. Absent properties take no space.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Properties<'a> {
    /// The tenant captured from the topic.
    pub tenant: Option<&'a str>,
    /// The site captured from the topic.
    pub site: Option<&'a str>,
    /// The device class captured from the topic.
    pub class: Option<&'a str>,
    /// The stream captured from the topic.
    pub stream: Option<&'a str>,
    /// MQTT 5 content type.
    pub content_type: Option<&'a str>,
    /// W3C trace context, sent as a user property.
    pub traceparent: Option<&'a str>,
    /// W3C trace state, sent as a user property.
    pub tracestate: Option<&'a str>,
    /// MQTT 5 response topic.
    pub response_topic: Option<&'a str>,
    /// MQTT 5 correlation data.
    pub correlation_data: Option<&'a [u8]>,
    /// MQTT 5 message expiry, in seconds after `received_ms`.
    pub expiry_seconds: Option<u32>,
    /// The device's own time stamp, in Unix milliseconds.
    pub device_time_ms: Option<u64>,
    /// The other MQTT 5 user properties, in the order sent.
    pub user: UserProperties<'a>,
}

/// MQTT 5 user properties in the outbox's encoding.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct UserProperties<'a>(&'a [u8]);

/// Why bytes are no record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// Written by a version that this one cannot read.
    #[error("record schema {0} is not known")]
    Schema(u8),
    /// Cut short, or not text where text is due.
    #[error("bad {0}")]
    Field(&'static str),
}

/// Records encoded for one submission; kept per thread and used again after [`Encoded::clear`].
#[derive(Debug, Default)]
pub struct Encoded {
    lanes: [LaneRecords; Lane::COUNT],
    count: u32,
}

/// The records of one lane, one after the other.
#[derive(Debug, Default)]
pub(super) struct LaneRecords {
    pub(super) bytes: Vec<u8>,
    pub(super) count: u32,
}

/// The records of a body, numbered from a first position.
#[derive(Debug, Clone)]
pub struct Records<'a> {
    input: Input<'a>,
    next: Seq,
}

// === impl Encoded ===

impl Encoded {
    /// Appends one entry.
    pub fn push(&mut self, entry: &Entry<'_>) {
        let Some(lane) = self.lanes.get_mut(entry.lane.index()) else { return };
        let properties = entry.properties.encoded_len();
        let fixed = size_of::<u8>() + size_of::<u64>() + size_of::<u8>();
        let length = fixed
            + sized_len(entry.device.len())
            + sized_len(entry.topic.len())
            + sized_len(properties)
            + sized_len(entry.payload.len());
        let out = &mut lane.bytes;
        out.reserve(sized_len(length));
        put_varint(out, length as u64);
        out.push(SCHEMA);
        put_sized(out, entry.device.as_bytes());
        put_sized(out, entry.topic.as_bytes());
        out.extend_from_slice(&entry.received_ms.to_le_bytes());
        out.push(flags(entry));
        put_varint(out, properties as u64);
        entry.properties.encode(out);
        put_sized(out, entry.payload);
        lane.count += 1;
        self.count += 1;
    }

    /// Forgets the entries and keeps the buffers; a buffer that one large entry blew up is let go.
    pub fn clear(&mut self) {
        for lane in &mut self.lanes {
            lane.bytes.clear();
            lane.bytes.shrink_to(Self::KEPT_BYTES_MAX);
            lane.count = 0;
        }
        self.count = 0;
    }

    /// How many entries it holds.
    #[must_use]
    pub const fn count(&self) -> u32 {
        self.count
    }

    /// How many bytes they take; what a submission of them costs.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.lanes.iter().map(|lane| lane.bytes.len()).sum()
    }

    /// How many bytes the entries of each lane take.
    pub(super) fn lane_bytes(&self) -> [usize; Lane::COUNT] {
        self.lanes.each_ref().map(|lane| lane.bytes.len())
    }

    /// Whether it holds none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.count == 0
    }

    pub(super) const fn lanes(&self) -> &[LaneRecords; Lane::COUNT] {
        &self.lanes
    }

    /// The entries of a lane in order, as they will be read, numbered from 1.
    pub(crate) fn entries(&self, lane: Lane) -> Records<'_> {
        Records::new(&lane.pick(&self.lanes).bytes, Seq(1))
    }

    /// Device and payload of every entry of a lane.
    #[cfg(test)]
    pub(crate) fn payloads(&self, lane: Lane) -> Vec<(String, Vec<u8>)> {
        self.entries(lane).map(|(_, record)| (record.device.to_owned(), record.payload.to_vec())).collect()
    }

    /// A thread keeps at most this much per lane between submissions.
    const KEPT_BYTES_MAX: usize = 256 << 10;
}

const fn flags(entry: &Entry<'_>) -> u8 {
    let qos = entry.qos & FLAG_QOS;
    let retain = if entry.retain { FLAG_RETAIN } else { 0 };
    let synced = if entry.clock_synced { FLAG_CLOCK_SYNCED } else { 0 };
    qos | retain | synced
}

// === impl Record ===

impl<'a> Record<'a> {
    /// Decodes what stands after a record's length.
    fn decode(bytes: &'a [u8]) -> Result<Self, RecordError> {
        let mut input = Input::new(bytes);
        match input.u8() {
            Some(SCHEMA) => {}
            Some(other) => return Err(RecordError::Schema(other)),
            None => return Err(RecordError::Field("schema")),
        }
        let device = input.text().ok_or(RecordError::Field("device"))?;
        let topic = input.text().ok_or(RecordError::Field("topic"))?;
        let received_ms = input.u64().ok_or(RecordError::Field("received time"))?;
        let flags = input.u8().ok_or(RecordError::Field("flags"))?;
        let properties =
            input.sized().and_then(Properties::decode).ok_or(RecordError::Field("properties"))?;
        // Extensions follow the payload; this version knows none.
        let payload = input.sized().ok_or(RecordError::Field("payload"))?;
        Ok(Self {
            device,
            topic,
            received_ms,
            qos: flags & FLAG_QOS,
            retain: flags & FLAG_RETAIN != 0,
            clock_synced: flags & FLAG_CLOCK_SYNCED != 0,
            properties,
            payload,
        })
    }
}

// === impl Properties ===

impl<'a> Properties<'a> {
    fn encoded_len(&self) -> usize {
        let texts = self.byte_strings();
        let texts = texts.iter().filter_map(|(_, value)| *value).map(|value| 1 + sized_len(value.len()));
        let expiry = self.expiry_seconds.map_or(0, |_| 1 + sized_len(size_of::<u32>()));
        let device_time = self.device_time_ms.map_or(0, |_| 1 + sized_len(size_of::<u64>()));
        texts.sum::<usize>() + expiry + device_time
    }

    fn encode(&self, out: &mut Vec<u8>) {
        for (tag, value) in self.byte_strings() {
            if let Some(value) = value {
                out.push(tag);
                put_sized(out, value);
            }
        }
        if let Some(seconds) = self.expiry_seconds {
            out.push(tag::EXPIRY_SECONDS);
            put_sized(out, &seconds.to_le_bytes());
        }
        if let Some(time) = self.device_time_ms {
            out.push(tag::DEVICE_TIME_MS);
            put_sized(out, &time.to_le_bytes());
        }
    }

    fn byte_strings(&self) -> [(u8, Option<&'a [u8]>); 10] {
        let user = (!self.user.0.is_empty()).then_some(self.user.0);
        [
            (tag::TENANT, self.tenant.map(str::as_bytes)),
            (tag::SITE, self.site.map(str::as_bytes)),
            (tag::CLASS, self.class.map(str::as_bytes)),
            (tag::STREAM, self.stream.map(str::as_bytes)),
            (tag::CONTENT_TYPE, self.content_type.map(str::as_bytes)),
            (tag::TRACEPARENT, self.traceparent.map(str::as_bytes)),
            (tag::TRACESTATE, self.tracestate.map(str::as_bytes)),
            (tag::RESPONSE_TOPIC, self.response_topic.map(str::as_bytes)),
            (tag::CORRELATION_DATA, self.correlation_data),
            (tag::USER, user),
        ]
    }

    fn decode(bytes: &'a [u8]) -> Option<Self> {
        let mut properties = Self::default();
        let mut input = Input::new(bytes);
        while !input.is_empty() {
            let number = input.u8()?;
            let value = input.sized()?;
            properties.set(number, value)?;
        }
        Some(properties)
    }

    fn set(&mut self, number: u8, value: &'a [u8]) -> Option<()> {
        let text = || std::str::from_utf8(value).ok();
        match number {
            tag::CONTENT_TYPE => self.content_type = Some(text()?),
            tag::TRACEPARENT => self.traceparent = Some(text()?),
            tag::TRACESTATE => self.tracestate = Some(text()?),
            tag::RESPONSE_TOPIC => self.response_topic = Some(text()?),
            tag::CORRELATION_DATA => self.correlation_data = Some(value),
            tag::EXPIRY_SECONDS => self.expiry_seconds = Some(Input::new(value).u32()?),
            tag::DEVICE_TIME_MS => self.device_time_ms = Some(Input::new(value).u64()?),
            tag::USER => self.user = UserProperties::new(value)?,
            tag::TENANT => self.tenant = Some(text()?),
            tag::SITE => self.site = Some(text()?),
            tag::CLASS => self.class = Some(text()?),
            tag::STREAM => self.stream = Some(text()?),
            // Written by a later version; the length says how far to skip.
            _ => {}
        }
        Some(())
    }
}

// === impl UserProperties ===

impl<'a> UserProperties<'a> {
    /// Takes bytes that [`Self::push`] wrote; `None` if they are anything else.
    #[must_use]
    pub fn new(encoded: &'a [u8]) -> Option<Self> {
        let mut input = Input::new(encoded);
        while !input.is_empty() {
            input.text()?;
            input.text()?;
        }
        Some(Self(encoded))
    }

    /// Appends one property to `out`, a buffer that the caller keeps.
    pub fn push(out: &mut Vec<u8>, name: &str, value: &str) {
        put_sized(out, name.as_bytes());
        put_sized(out, value.as_bytes());
    }

    /// Whether there are none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Name and value of each, in the order sent.
    pub fn iter(&self) -> impl Iterator<Item = (&'a str, &'a str)> + use<'a> {
        let mut input = Input::new(self.0);
        std::iter::from_fn(move || Some((input.text()?, input.text()?)))
    }
}

// === impl Records ===

impl<'a> Records<'a> {
    pub(super) const fn new(body: &'a [u8], first: Seq) -> Self {
        Self { input: Input::new(body), next: first }
    }

    /// Counts the records, or says which one is bad; a body from disk goes through this once.
    pub(super) fn check(body: &'a [u8]) -> Result<u32, RecordError> {
        let mut records = Self::new(body, Seq::ZERO);
        let mut count = 0;
        while let Some(record) = records.step() {
            record?;
            count += 1;
        }
        Ok(count)
    }

    /// Passes over so many records.
    pub(super) fn pass(&mut self, count: u64) {
        for _ in 0..count {
            if self.input.sized().is_none() {
                return;
            }
            self.next = self.next.next();
        }
    }

    fn step(&mut self) -> Option<Result<Record<'a>, RecordError>> {
        if self.input.is_empty() {
            return None;
        }
        let record = self.input.sized().ok_or(RecordError::Field("length")).and_then(Record::decode);
        Some(record)
    }
}

impl<'a> Iterator for Records<'a> {
    type Item = (Seq, Record<'a>);

    fn next(&mut self) -> Option<Self::Item> {
        // A body is checked before it becomes a segment, so an error cannot occur here.
        let record = self.step()?.ok()?;
        let seq = self.next;
        self.next = seq.next();
        Some((seq, record))
    }
}

/// Cuts a body between records into parts of at most `bytes_max` and `count_max`; a single record
/// above `bytes_max` is a part of its own. Yields each part with its number of records.
pub(super) fn parts(body: &[u8], bytes_max: usize, count_max: u32) -> impl Iterator<Item = (&[u8], u32)> {
    let mut rest = body;
    std::iter::from_fn(move || {
        let (len, count) = part_len(rest, bytes_max, count_max);
        let (part, after) = rest.split_at_checked(len)?;
        rest = after;
        (count > 0).then_some((part, count))
    })
}

fn part_len(body: &[u8], bytes_max: usize, count_max: u32) -> (usize, u32) {
    let mut input = Input::new(body);
    let (mut len, mut count) = (0, 0);
    while count < count_max && !input.is_empty() {
        let Some(record) = input.sized() else { break };
        let with_record = len + varint_len(record.len() as u64) + record.len();
        if count > 0 && with_record > bytes_max {
            break;
        }
        len = with_record;
        count += 1;
    }
    (len, count)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn entry<'a>(device: &'a str, payload: &'a [u8], properties: Properties<'a>) -> Entry<'a> {
        Entry {
            lane: Lane::Telemetry,
            device,
            topic: "devices/d/telemetry",
            received_ms: 1_700_000_000_123,
            qos: 1,
            retain: true,
            clock_synced: false,
            properties,
            payload,
        }
    }

    fn body(entries: &[Entry<'_>]) -> Vec<u8> {
        let mut encoded = Encoded::default();
        entries.iter().for_each(|entry| encoded.push(entry));
        encoded.lanes()[Lane::Telemetry.index()].bytes.clone()
    }

    fn check(entry: &Entry<'_>) {
        let bytes = body(&[*entry, *entry]);
        assert_eq!(Records::check(&bytes), Ok(2));
        let records: Vec<_> = Records::new(&bytes, Seq(7)).collect();
        let expected = Record {
            device: entry.device,
            topic: entry.topic,
            received_ms: entry.received_ms,
            qos: entry.qos,
            retain: entry.retain,
            clock_synced: entry.clock_synced,
            properties: entry.properties,
            payload: entry.payload,
        };
        assert_eq!(records, [(Seq(7), expected), (Seq(8), expected)]);
        for (passed, left) in [(0, 2), (1, 1), (2, 0), (9, 0)] {
            let mut rest = Records::new(&bytes, Seq(7));
            rest.pass(passed);
            assert_eq!(rest.collect::<Vec<_>>(), records[2 - left..], "{passed}");
        }
    }

    #[test]
    fn clear_keeps_nothing_but_room() {
        let mut encoded = Encoded::default();
        encoded.push(&entry("d", &[0; 100], Properties::default()));
        assert!(encoded.bytes() > 100 && encoded.count() == 1 && !encoded.is_empty());
        encoded.clear();
        assert!(encoded.bytes() == 0 && encoded.count() == 0 && encoded.is_empty());
    }

    #[test]
    fn unknown_properties_and_extensions_are_skipped() {
        let mut inner = vec![SCHEMA];
        put_sized(&mut inner, b"d");
        put_sized(&mut inner, b"t");
        inner.extend_from_slice(&5_u64.to_le_bytes());
        inner.push(0);
        put_sized(&mut inner, &[200, 2, 9, 9, tag::SITE, 1, b's']);
        put_sized(&mut inner, b"p");
        inner.extend_from_slice(b"an extension of a later version");
        let record = Record::decode(&inner).expect("known parts are there");
        assert_eq!((record.properties.site, record.payload), (Some("s"), b"p".as_slice()));
        inner[0] = 9;
        assert_eq!(Record::decode(&inner), Err(RecordError::Schema(9)));
    }

    #[test]
    fn parts_respect_bytes_and_count_and_keep_large_records_whole() {
        let small = entry("d", b"12345678", Properties::default());
        let large = entry("d", &[7; 5000], Properties::default());
        let bytes = body(&[small, small, small, large, small]);
        let one = body(&[small]).len();
        let counts = |bytes_max, count_max| -> Vec<u32> {
            let cut: Vec<_> = parts(&bytes, bytes_max, count_max).collect();
            assert_eq!(cut.iter().flat_map(|(part, _)| part.iter().copied()).collect::<Vec<u8>>(), bytes);
            cut.into_iter().map(|(_, count)| count).collect()
        };
        assert_eq!(counts(usize::MAX, u32::MAX), [5]);
        assert_eq!(counts(2 * one, u32::MAX), [2, 1, 1, 1]);
        assert_eq!(counts(usize::MAX, 2), [2, 2, 1]);
        assert_eq!(counts(1, u32::MAX), [1, 1, 1, 1, 1]);
    }

    fn optional() -> impl Strategy<Value = Option<String>> {
        prop::option::of("\\PC{0,20}")
    }

    proptest! {
        #[test]
        fn records_round_trip(
            device in "\\PC{0,40}",
            payload in prop::collection::vec(any::<u8>(), 0..600),
            texts in prop::array::uniform8(optional()),
            correlation in prop::option::of(prop::collection::vec(any::<u8>(), 0..20)),
            expiry in any::<Option<u32>>(),
            device_time in any::<Option<u64>>(),
            user in prop::collection::vec(("\\PC{0,10}", "\\PC{0,10}"), 0..4),
        ) {
            let mut pairs = Vec::new();
            user.iter().for_each(|(name, value)| UserProperties::push(&mut pairs, name, value));
            let [tenant, site, class, stream, content_type, traceparent, tracestate, response_topic] = &texts;
            let properties = Properties {
                tenant: tenant.as_deref(),
                site: site.as_deref(),
                class: class.as_deref(),
                stream: stream.as_deref(),
                content_type: content_type.as_deref(),
                traceparent: traceparent.as_deref(),
                tracestate: tracestate.as_deref(),
                response_topic: response_topic.as_deref(),
                correlation_data: correlation.as_deref(),
                expiry_seconds: expiry,
                device_time_ms: device_time,
                user: UserProperties::new(&pairs).expect("just written"),
            };
            prop_assert!(properties.user.iter().eq(user.iter().map(|(n, v)| (n.as_str(), v.as_str()))));
            check(&entry(&device, &payload, properties));
        }

        #[test]
        fn junk_is_refused_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            prop_assert!(Record::decode(&bytes).is_err() || bytes.first() == Some(&SCHEMA));
            prop_assert!(Records::check(&bytes).is_ok_and(|count| count == 0) == bytes.is_empty());
            prop_assert!(Records::new(&bytes, Seq(1)).count() <= bytes.len());
            let cut: usize = parts(&bytes, 50, 3).map(|(part, _)| part.len()).sum();
            prop_assert!(cut <= bytes.len());
        }

        #[test]
        fn a_flipped_byte_never_panics(at in 0_usize..60, to: u8) {
            let mut bytes = body(&[entry("device", b"payload", Properties { site: Some("s"), ..Properties::default() })]);
            if let Some(byte) = bytes.get_mut(at) {
                *byte = to;
            }
            prop_assert!(Records::check(&bytes).is_err() || Records::new(&bytes, Seq(1)).count() >= 1);
        }
    }
}

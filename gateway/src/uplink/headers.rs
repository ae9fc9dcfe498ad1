//! The headers of a Kafka record: the identity always, and what else the configuration asks for.
//!
//! Values are UTF-8 text: Event Hubs hands the headers of Kafka records to AMQP readers as bytes. Names and values
//! are documented in `docs/formats/record-headers-v1.md`.

use penstock_proto::text::{TimeText, push_decimal};
use penstock_proto::{IDENTITY_HEADER, Identity, Lane, PACK_HEADER};

use super::pack::Pack;
use crate::outbox::{Properties, Record};

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
pub struct Headers {
    bytes: Vec<u8>,
    /// Per header where its name and where its value ends.
    ends: Vec<(usize, usize)>,
    time: TimeText,
}

/// Stands before the name of a user property that would be taken for a header of ours.
const ESCAPE: &str = "mqtt-";
/// Names that begin so are ours in every mode.
const OWN_PREFIX: &str = "penstock";
/// Names that are ours in every mode but `minimal`, which has no user properties.
const RESERVED: [&str; 5] =
    ["content-type", "content-encoding", "traceparent", "tracestate", "diagnostic-id"];
/// Names that are ours in mode `iothub`, besides all that begin with `iothub-`.
const IOTHUB_RESERVED: [&str; 3] = ["message-id", "correlation-id", "user-id"];
/// Names of CloudEvents attributes that are ours.
const ATTRIBUTES: [&str; 21] = [
    "specversion",
    "id",
    "source",
    "type",
    "subject",
    "time",
    "datacontenttype",
    "dataschema",
    "data",
    "partitionkey",
    "sequence",
    "deviceid",
    "gatewayid",
    "tenant",
    "site",
    "class",
    "stream",
    "topic",
    "receivedtime",
    "traceparent",
    "tracestate",
];
/// Longest name of a CloudEvents attribute that every consumer has to take.
const ATTRIBUTE_NAME_MAX: usize = 20;
/// So many user properties are looked at as CloudEvents attributes; the rest are headers.
const ATTRIBUTES_MAX: usize = 32;
/// The content type of an event that brings its attributes in the payload.
const STRUCTURED: &str = "application/cloudevents";
/// The content type of what rules have the gateway do, which stands in lane alerts and is no alert.
const REACTION: &str = "application/vnd.penstock.reaction.v1+json";

// === impl Headers ===

impl Headers {
    /// Forgets all of them and keeps the buffer.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.ends.clear();
    }

    /// Appends one.
    pub fn push(&mut self, name: &str, value: &[u8]) {
        self.push_with(name, |out, _| out.extend_from_slice(value));
    }

    /// Name and value of each, in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&[u8], &[u8])> {
        let mut start = 0;
        self.ends.iter().map(move |(name_end, end)| {
            let (name, value) = (start..*name_end, *name_end..*end);
            start = *end;
            (self.bytes.get(name).unwrap_or_default(), self.bytes.get(value).unwrap_or_default())
        })
    }

    /// Bytes of all names and values.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes.len()
    }

    /// Replaces the headers by those of one record. Nothing is allocated once the buffer has grown.
    pub fn fill(&mut self, mode: HeaderMode, identity: &Identity, record: &Record<'_>) {
        self.fill_identity(identity);
        match mode {
            HeaderMode::Minimal => {}
            HeaderMode::Full => self.full(record),
            HeaderMode::IotHub => self.iothub(identity, record),
            HeaderMode::CloudEvents => self.cloudevents(identity, record),
        }
    }

    /// Replaces the headers by those of a packed record. `identity` has the seq of its last entry, and as `prev`
    /// that of its first.
    pub fn fill_packed(&mut self, identity: &Identity, pack: &Pack) {
        self.fill_identity(identity);
        self.push_with(PACK_HEADER, |out, _| pack.header().push(out));
    }

    fn fill_identity(&mut self, identity: &Identity) {
        self.clear();
        self.bytes.extend_from_slice(IDENTITY_HEADER.as_bytes());
        identity.push(&mut self.bytes);
        self.ends.push((IDENTITY_HEADER.len(), self.bytes.len()));
    }

    fn push_with(&mut self, name: &str, value: impl FnOnce(&mut Vec<u8>, &mut TimeText)) {
        self.bytes.extend_from_slice(name.as_bytes());
        let name_end = self.bytes.len();
        value(&mut self.bytes, &mut self.time);
        self.ends.push((name_end, self.bytes.len()));
    }

    fn push_text(&mut self, name: &str, value: Option<&str>) {
        if let Some(value) = value {
            self.push(name, value.as_bytes());
        }
    }

    fn push_time(&mut self, name: &str, unix_ms: u64) {
        self.push_with(name, |out, time| time.push(out, unix_ms));
    }

    /// A user property under its own name, or behind [`ESCAPE`] where that is ours.
    fn push_user(&mut self, name: &str, value: &str, is_ours: impl Fn(&str) -> bool) {
        let escape = starts_with(name, ESCAPE) || starts_with(name, OWN_PREFIX) || one_of(name, &RESERVED);
        if escape || is_ours(name) {
            self.bytes.extend_from_slice(ESCAPE.as_bytes());
        }
        self.push(name, value.as_bytes());
    }

    fn push_trace(&mut self, properties: &Properties<'_>) {
        self.push_text("traceparent", properties.traceparent);
        self.push_text("tracestate", properties.tracestate);
        // Azure's clients look for the same text under this name.
        self.push_text("Diagnostic-Id", properties.traceparent);
    }

    fn full(&mut self, record: &Record<'_>) {
        let properties = &record.properties;
        self.push("penstock-device", record.device.as_bytes());
        self.push("penstock-topic", record.topic.as_bytes());
        self.push_time("penstock-received", record.received_ms);
        if let Some(device_time_ms) = properties.device_time_ms {
            self.push_time("penstock-device-time", device_time_ms);
        }
        self.push_text("penstock-tenant", properties.tenant);
        self.push_text("penstock-site", properties.site);
        self.push_text("penstock-class", properties.class);
        self.push_text("penstock-stream", properties.stream);
        self.push_text("content-type", properties.content_type);
        self.push_trace(properties);
        for (name, value) in properties.user.iter() {
            self.push_user(name, value, |_| false);
        }
    }

    fn iothub(&mut self, identity: &Identity, record: &Record<'_>) {
        let properties = &record.properties;
        self.push("iothub-connection-device-id", record.device.as_bytes());
        self.push_time("iothub-enqueuedtime", record.received_ms);
        self.push("iothub-message-source", b"Telemetry");
        if let Some(device_time_ms) = properties.device_time_ms {
            self.push_time("iothub-creation-time-utc", device_time_ms);
        }
        // IoT Hub allows no slash in it.
        self.push_with("message-id", |out, _| identity.push_position(out, b':'));
        let correlation = properties.correlation_data.and_then(|data| std::str::from_utf8(data).ok());
        self.push_text("correlation-id", correlation);
        self.push_text("content-type", properties.content_type);
        if properties.content_type.is_some_and(is_utf_8) {
            self.push("content-encoding", b"utf-8");
        }
        self.push_trace(properties);
        for (name, value) in properties.user.iter() {
            let is_ours = |name: &str| starts_with(name, "iothub-") || one_of(name, &IOTHUB_RESERVED);
            self.push_user(name, value, is_ours);
        }
    }

    fn cloudevents(&mut self, identity: &Identity, record: &Record<'_>) {
        let properties = &record.properties;
        self.push_text("content-type", properties.content_type);
        if properties.content_type.is_some_and(|kind| starts_with(kind, STRUCTURED)) {
            return;
        }
        self.push("ce_specversion", b"1.0");
        self.push_with("ce_id", |out, _| identity.push_position(out, b'/'));
        let gateway = identity.gateway.as_str().as_bytes();
        self.push_with("ce_source", |out, _| {
            out.extend_from_slice(b"/gateways/");
            out.extend_from_slice(gateway);
        });
        let reaction = properties.content_type == Some(REACTION);
        let kind = if reaction { "io.penstock.alert.reaction.v1" } else { event_type(identity.lane) };
        self.push("ce_type", kind.as_bytes());
        self.push_time("ce_time", properties.device_time_ms.unwrap_or(record.received_ms));
        // Attributes may not be empty.
        let device = Some(record.device).filter(|device| !device.is_empty());
        self.push_text("ce_subject", device);
        self.push_text("ce_partitionkey", device);
        self.push_text("ce_deviceid", device);
        self.push("ce_gatewayid", gateway);
        self.push_with("ce_sequence", |out, _| push_sequence(out, identity.seq.0));
        self.push_text("ce_topic", Some(record.topic).filter(|topic| !topic.is_empty()));
        self.push_time("ce_receivedtime", record.received_ms);
        for (name, text) in [
            ("ce_tenant", properties.tenant),
            ("ce_site", properties.site),
            ("ce_class", properties.class),
            ("ce_stream", properties.stream),
            ("ce_traceparent", properties.traceparent),
            ("ce_tracestate", properties.tracestate),
        ] {
            self.push_text(name, text.filter(|text| !text.is_empty()));
        }
        for (place, (name, value)) in properties.user.iter().enumerate() {
            let before = || properties.user.iter().take(place).any(|(other, _)| other == name);
            if place < ATTRIBUTES_MAX && is_attribute(name) && !value.is_empty() && !before() {
                self.bytes.extend_from_slice(b"ce_");
                self.push(name, value.as_bytes());
            } else {
                self.push_user(name, value, |name| starts_with(name, "ce_"));
            }
        }
    }
}

const fn event_type(lane: Lane) -> &'static str {
    match lane {
        Lane::Alerts => "io.penstock.device.alert.v1",
        Lane::Status => "io.penstock.device.status.v1",
        Lane::Telemetry => "io.penstock.device.telemetry.v1",
        Lane::Bulk => "io.penstock.device.bulk.v1",
        Lane::Dead => "io.penstock.device.dead.v1",
    }
}

/// All twenty digits: the sequence extension is compared as text.
fn push_sequence(out: &mut Vec<u8>, seq: u64) {
    let start = out.len();
    push_decimal(out, seq);
    let digits = out.len() - start;
    out.resize(start + 20, b'0');
    if let Some(text) = out.get_mut(start..) {
        text.rotate_right(20 - digits);
    }
}

/// Whether a user property can be a CloudEvents attribute.
fn is_attribute(name: &str) -> bool {
    let letters = name.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9'));
    letters && (1..=ATTRIBUTE_NAME_MAX).contains(&name.len()) && !ATTRIBUTES.contains(&name)
}

/// Whether a content type says that the payload is text in UTF-8: JSON always is.
fn is_utf_8(content_type: &str) -> bool {
    let mut parts = content_type.split(';');
    let kind = parts.next().unwrap_or_default().trim();
    let charset = parts.find_map(|part| {
        let (name, value) = part.split_once('=')?;
        name.trim().eq_ignore_ascii_case("charset").then(|| value.trim().trim_matches('"'))
    });
    match charset {
        Some(charset) => charset.eq_ignore_ascii_case("utf-8"),
        None => kind.eq_ignore_ascii_case("application/json") || ends_with(kind, "+json"),
    }
}

fn starts_with(text: &str, prefix: &str) -> bool {
    text.as_bytes().get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix.as_bytes()))
}

fn ends_with(text: &str, suffix: &str) -> bool {
    let start = text.len().checked_sub(suffix.len());
    let end = start.and_then(|start| text.as_bytes().get(start..));
    end.is_some_and(|end| end.eq_ignore_ascii_case(suffix.as_bytes()))
}

fn one_of(name: &str, names: &[&str]) -> bool {
    names.iter().any(|known| known.eq_ignore_ascii_case(name))
}

#[cfg(test)]
mod tests {
    use penstock_proto::Seq;
    use proptest::prelude::*;

    use super::*;
    use crate::outbox::UserProperties;
    use crate::uplink::{PackCompression, PackFormat};

    const IDENTITY: &str = "site-7/00c0ffee12345678/3/2/1041/1038/l";

    fn user(pairs: &[(&str, &str)]) -> Vec<u8> {
        let mut encoded = Vec::new();
        pairs.iter().for_each(|(name, value)| UserProperties::push(&mut encoded, name, value));
        encoded
    }

    fn record(properties: Properties<'_>) -> Record<'_> {
        Record {
            device: "press-7",
            topic: "devices/press-7/telemetry",
            received_ms: 1_700_000_000_123,
            qos: 1,
            retain: false,
            clock_synced: true,
            properties,
            payload: b"{}",
        }
    }

    fn properties(user: &[u8]) -> Properties<'_> {
        Properties {
            tenant: Some("acme"),
            site: Some("north"),
            content_type: Some("application/json"),
            traceparent: Some("00-11-22-01"),
            tracestate: Some("k=v"),
            correlation_data: Some(b"order 5"),
            device_time_ms: Some(1_699_999_999_000),
            user: UserProperties::new(user).unwrap(),
            ..Properties::default()
        }
    }

    fn text(headers: &Headers) -> Vec<(&str, &str)> {
        let text = |bytes| std::str::from_utf8(bytes).unwrap();
        headers.iter().map(|(name, value)| (text(name), text(value))).collect()
    }

    /// The headers of a record besides the identity.
    fn check(mode: HeaderMode, record: &Record<'_>, expected: &[(&str, &str)]) {
        let mut headers = Headers::default();
        headers.push("left over", b"from the record before");
        headers.fill(mode, &IDENTITY.parse().unwrap(), record);
        let found = text(&headers);
        assert_eq!(found.first(), Some(&("penstock", IDENTITY)));
        assert_eq!(found.get(1..).unwrap(), expected);
        assert_eq!(
            headers.bytes(),
            found.iter().map(|(name, value)| name.len() + value.len()).sum::<usize>()
        );
    }

    #[test]
    fn minimal_is_the_identity_alone() {
        check(HeaderMode::Minimal, &record(properties(&user(&[("unit", "C")]))), &[]);
    }

    #[test]
    fn full_says_everything_known() {
        let user = user(&[("unit", "C"), ("Unit", "K"), ("unit", "F"), ("größe", "")]);
        check(
            HeaderMode::Full,
            &record(properties(&user)),
            &[
                ("penstock-device", "press-7"),
                ("penstock-topic", "devices/press-7/telemetry"),
                ("penstock-received", "2023-11-14T22:13:20.123Z"),
                ("penstock-device-time", "2023-11-14T22:13:19.000Z"),
                ("penstock-tenant", "acme"),
                ("penstock-site", "north"),
                ("content-type", "application/json"),
                ("traceparent", "00-11-22-01"),
                ("tracestate", "k=v"),
                ("Diagnostic-Id", "00-11-22-01"),
                ("unit", "C"),
                ("Unit", "K"),
                ("unit", "F"),
                ("größe", ""),
            ],
        );
    }

    #[test]
    fn iothub_has_the_names_that_its_consumers_know() {
        check(
            HeaderMode::IotHub,
            &record(properties(&user(&[("alert", "true"), ("Message-Id", "5")]))),
            &[
                ("iothub-connection-device-id", "press-7"),
                ("iothub-enqueuedtime", "2023-11-14T22:13:20.123Z"),
                ("iothub-message-source", "Telemetry"),
                ("iothub-creation-time-utc", "2023-11-14T22:13:19.000Z"),
                ("message-id", "site-7:00c0ffee12345678:3:2:1041"),
                ("correlation-id", "order 5"),
                ("content-type", "application/json"),
                ("content-encoding", "utf-8"),
                ("traceparent", "00-11-22-01"),
                ("tracestate", "k=v"),
                ("Diagnostic-Id", "00-11-22-01"),
                ("alert", "true"),
                ("mqtt-Message-Id", "5"),
            ],
        );
    }

    #[test]
    fn the_encoding_is_named_where_the_content_type_tells_it() {
        for (content_type, expected) in [
            ("application/json", true),
            ("Application/JSON ; charset=UTF-8", true),
            ("application/senml+json", true),
            ("text/plain; charset=\"utf-8\"", true),
            ("application/json; charset=utf-16", false),
            ("text/plain", false),
            ("application/octet-stream", false),
            ("", false),
        ] {
            assert_eq!(is_utf_8(content_type), expected, "{content_type}");
        }
    }

    #[test]
    fn cloudevents_is_the_binding_in_binary_mode() {
        let user =
            user(&[("unit", "C"), ("Line", "4"), ("id", "5"), ("unit", "F"), ("blank", ""), ("ce_x", "y")]);
        check(
            HeaderMode::CloudEvents,
            &record(properties(&user)),
            &[
                ("content-type", "application/json"),
                ("ce_specversion", "1.0"),
                ("ce_id", "site-7/00c0ffee12345678/3/2/1041"),
                ("ce_source", "/gateways/site-7"),
                ("ce_type", "io.penstock.device.telemetry.v1"),
                ("ce_time", "2023-11-14T22:13:19.000Z"),
                ("ce_subject", "press-7"),
                ("ce_partitionkey", "press-7"),
                ("ce_deviceid", "press-7"),
                ("ce_gatewayid", "site-7"),
                ("ce_sequence", "00000000000000001041"),
                ("ce_topic", "devices/press-7/telemetry"),
                ("ce_receivedtime", "2023-11-14T22:13:20.123Z"),
                ("ce_tenant", "acme"),
                ("ce_site", "north"),
                ("ce_traceparent", "00-11-22-01"),
                ("ce_tracestate", "k=v"),
                ("ce_unit", "C"),
                ("Line", "4"),
                ("id", "5"),
                ("unit", "F"),
                ("blank", ""),
                ("mqtt-ce_x", "y"),
            ],
        );
    }

    #[test]
    fn an_event_of_the_gateway_itself_is_in_structured_mode() {
        let properties =
            Properties { content_type: Some("application/cloudevents+json"), ..Properties::default() };
        check(
            HeaderMode::CloudEvents,
            &record(properties),
            &[("content-type", "application/cloudevents+json")],
        );
    }

    #[test]
    fn what_rules_do_is_no_alert_of_a_device() {
        let mut headers = Headers::default();
        let properties = Properties { content_type: Some(REACTION), ..Properties::default() };
        headers.fill(HeaderMode::CloudEvents, &IDENTITY.parse().unwrap(), &record(properties));
        let kind = text(&headers).into_iter().find(|(name, _)| *name == "ce_type");
        assert_eq!(kind.map(|(_, kind)| kind.to_string()).as_deref(), Some("io.penstock.alert.reaction.v1"));
    }

    #[test]
    fn what_is_not_known_has_no_header() {
        let plain = Record { device: "", ..record(Properties::default()) };
        let names = |mode| {
            let mut headers = Headers::default();
            headers.fill(mode, &IDENTITY.parse().unwrap(), &plain);
            text(&headers).into_iter().map(|(name, _)| name.to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(
            names(HeaderMode::Full),
            ["penstock", "penstock-device", "penstock-topic", "penstock-received"]
        );
        let missing = ["ce_subject", "ce_partitionkey", "ce_deviceid", "content-type"];
        assert!(names(HeaderMode::CloudEvents).iter().all(|name| !missing.contains(&name.as_str())));
        let binary = Properties { correlation_data: Some(&[0xff]), ..Properties::default() };
        let mut headers = Headers::default();
        headers.fill(HeaderMode::IotHub, &IDENTITY.parse().unwrap(), &record(binary));
        assert!(headers.iter().all(|(name, _)| name != b"correlation-id"));
    }

    #[test]
    fn a_pack_has_both_of_its_headers() {
        let mut pack = Pack::new(PackFormat::Ndjson, PackCompression::Gzip);
        pack.begin(Seq(1039));
        for seq in [1039, 1041] {
            pack.push(Seq(seq), &record(Properties::default()));
        }
        let mut headers = Headers::default();
        headers.fill_packed(&IDENTITY.parse().unwrap(), &pack);
        assert_eq!(text(&headers), [("penstock", IDENTITY), ("penstock-pack", "1/ndjson/gzip/1039/2")]);
    }

    proptest! {
        /// Whatever a device names its properties: no header is taken for one of ours, and none is lost.
        #[test]
        fn user_properties_never_pass_for_ours(
            names in prop::collection::vec(
                "(mqtt-){0,2}(penstock|Penstock-Pack|iothub-x|ce_id|message-id|content-type|id|[a-z]{0,3})", 0..40,
            ),
            mode in prop::sample::select(vec![HeaderMode::Full, HeaderMode::IotHub, HeaderMode::CloudEvents]),
        ) {
            let pairs: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), "user")).collect();
            let (encoded, identity) = (user(&pairs), IDENTITY.parse().unwrap());
            let (mut without, mut with) = (Headers::default(), Headers::default());
            without.fill(mode, &identity, &record(properties(&[])));
            with.fill(mode, &identity, &record(properties(&encoded)));
            let (without, with) = (text(&without), text(&with));
            prop_assert_eq!(&with[..without.len()], &without[..]);
            let added = &with[without.len()..];
            prop_assert_eq!(added.len(), pairs.len());
            for ((name, value), original) in added.iter().zip(&names) {
                prop_assert_eq!(*value, "user");
                prop_assert!(without.iter().all(|(ours, _)| !ours.eq_ignore_ascii_case(name)), "{}", name);
                let back = name.strip_prefix("ce_").or_else(|| name.strip_prefix("mqtt-")).unwrap_or(name);
                prop_assert!(back == original || *name == original);
            }
        }
    }
}

//! What entries of the lane become: CloudEvents in JSON.

#![cfg_attr(not(test), warn(clippy::indexing_slicing))]

use std::borrow::Cow;

use penstock_proto::{GatewayId, Seq};
use serde::Deserialize;
use serde_json::{Map, Value};

use super::super::nouns::Severity;
use super::config::BYTES_MAX;
use crate::alerts::burial::Place;
use crate::outbox::{Attributes, CloudEvent, Record};

/// Makes events of entries.
#[derive(Debug, Clone)]
pub(super) struct Envelope {
    gateway: GatewayId,
    /// The topics of the gateway's own events begin with it.
    own_topic: String,
    /// The type of events that devices published.
    device_type: String,
    source: Source,
}

/// What `source` says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Source {
    /// What the event itself says.
    AsItIs,
    /// This.
    Fixed(String),
    /// The name of the tenant, if it can be the name of a topic.
    PerTenant {
        /// What it is otherwise.
        others: String,
    },
}

/// Why an entry cannot be sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Unusable {
    /// It says that it is a CloudEvent, and is none.
    Malformed(String),
    /// The service takes no event of this many bytes.
    TooLarge(usize),
}

/// The attributes of a CloudEvent that count here.
#[derive(Deserialize)]
struct Head<'a> {
    #[serde(borrow)]
    specversion: Cow<'a, str>,
    #[serde(borrow)]
    id: Cow<'a, str>,
    #[serde(borrow)]
    source: Cow<'a, str>,
    #[serde(borrow, rename = "type")]
    kind: Cow<'a, str>,
    severity: Option<Cow<'a, str>>,
    tenant: Option<Cow<'a, str>>,
}

/// The content type of CloudEvents in JSON.
const CLOUD_EVENT: &str = "application/cloudevents+json";
/// How bytes end that an event without data ends with.
const NO_DATA: &[u8] = b"null}";
/// Largest event: the request is a list of one.
pub(super) const EVENT_BYTES_MAX: usize = BYTES_MAX - 2;

/// Whether a topic of Event Grid can have this name.
pub(super) fn is_topic_name(text: &str) -> bool {
    (3..=50).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
}

// === impl Envelope ===

impl Envelope {
    pub(super) fn new(gateway: &GatewayId, type_prefix: &str, source: Source) -> Self {
        Self {
            gateway: gateway.clone(),
            own_topic: format!("gateways/{gateway}/events"),
            device_type: format!("{type_prefix}.device.alert.v1"),
            source,
        }
    }

    /// Whether it goes before those that are not. What cannot be sent is not critical.
    pub(super) fn is_critical(&self, record: &Record<'_>) -> bool {
        if self.is_own(record) {
            return Head::read(record.payload).is_ok_and(|head| head.severity.as_deref() == Some("critical"));
        }
        let payload = std::str::from_utf8(record.payload).ok();
        payload.is_some_and(|text| device_severity(text) == Severity::Critical)
    }

    /// The event for an entry.
    pub(super) fn event(&self, place: Place, seq: Seq, record: &Record<'_>) -> Result<Vec<u8>, Unusable> {
        let event = if self.is_own(record) { self.own(record)? } else { self.wrapped(place, seq, record) };
        if event.len() > EVENT_BYTES_MAX { Err(Unusable::TooLarge(event.len())) } else { Ok(event) }
    }

    /// Whether the gateway itself wrote it.
    fn is_own(&self, record: &Record<'_>) -> bool {
        let behind = record.topic.strip_prefix(self.own_topic.as_str());
        let below = behind.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
        below && record.properties.content_type == Some(CLOUD_EVENT)
    }

    /// An event of the gateway's own.
    fn own(&self, record: &Record<'_>) -> Result<Vec<u8>, Unusable> {
        let head = Head::read(record.payload).map_err(Unusable::Malformed)?;
        let tenant = head.tenant.as_deref().or(record.properties.tenant);
        match self.source(tenant) {
            None => Ok(record.payload.trim_ascii().to_vec()),
            Some(source) => rewritten(record.payload, source).map_err(Unusable::Malformed),
        }
    }

    /// What a device published, in an event.
    fn wrapped(&self, place: Place, seq: Seq, record: &Record<'_>) -> Vec<u8> {
        let Place { log, epoch, lane } = place;
        let gateway = self.gateway.as_str();
        let id = format!("{gateway}/{log}/{epoch}/{}/{seq}", lane.number());
        let json = std::str::from_utf8(record.payload).ok().filter(|text| is_json(text));
        let severity = json.map_or(Severity::Warning, device_severity);
        let name = (id, self.device_type.clone());
        let attributes = Attributes {
            subject: Some(record.topic),
            device: Some(record.device),
            tenant: record.properties.tenant,
            traceparent: record.properties.traceparent,
            tracestate: record.properties.tracestate,
            ..Attributes::default()
        };
        let event = CloudEvent::new(gateway, name, severity.name(), record.received_ms, ()).with(attributes);
        let event = match self.source(record.properties.tenant) {
            None => event,
            Some(source) => event.with_source(source),
        };
        with_data(event.json(), json, record.payload)
    }

    /// What `source` is set to, if it is.
    fn source<'a>(&'a self, tenant: Option<&'a str>) -> Option<&'a str> {
        match &self.source {
            Source::AsItIs => None,
            Source::Fixed(source) => Some(source),
            Source::PerTenant { others } => Some(tenant.filter(|name| is_topic_name(name)).unwrap_or(others)),
        }
    }
}

impl<'a> Head<'a> {
    /// Reads the attributes of a CloudEvent, or says why it is none.
    fn read(payload: &'a [u8]) -> Result<Self, String> {
        if !is_object(payload) {
            return Err("it is no object".to_owned());
        }
        let head: Self = serde_json::from_slice(payload).map_err(|error| error.to_string())?;
        if head.specversion != "1.0" {
            return Err("specversion is not 1.0".to_owned());
        }
        for (name, text) in [("id", &head.id), ("source", &head.source), ("type", &head.kind)] {
            if text.is_empty() {
                return Err(format!("{name} is empty"));
            }
        }
        Ok(head)
    }
}

/// The same event with another source.
fn rewritten(payload: &[u8], source: &str) -> Result<Vec<u8>, String> {
    let mut event: Map<String, Value> = serde_json::from_slice(payload).map_err(|error| error.to_string())?;
    event.insert("source".to_owned(), Value::from(source));
    serde_json::to_vec(&event).map_err(|error| error.to_string())
}

/// The event, of which `data` is null and stands last, with a payload as data: as it is if it is `json`. Numbers are
/// not read, so that they stay as the device wrote them.
fn with_data(mut event: Vec<u8>, json: Option<&str>, payload: &[u8]) -> Vec<u8> {
    if event.ends_with(NO_DATA) {
        event.truncate(event.len() - NO_DATA.len());
    }
    let (name, data) = match json {
        Some(json) => ("payload", Cow::Borrowed(json.trim())),
        None => {
            use base64::Engine as _;
            let text = base64::engine::general_purpose::STANDARD.encode(payload);
            ("payload_base64", Cow::Owned(format!("\"{text}\"")))
        }
    };
    event.extend_from_slice(format!("{{\"{name}\":{data}}}}}").as_bytes());
    event
}

/// Whether a text is one JSON value that other readers take too.
fn is_json(text: &str) -> bool {
    // Unlike skipping, this refuses numbers and characters that cannot be.
    serde_json::from_str::<Value>(text).is_ok()
}

/// What a device says of how bad it is: a warning unless its JSON has the field.
fn device_severity(text: &str) -> Severity {
    #[derive(Deserialize)]
    struct Payload {
        severity: Option<Severity>,
    }
    let said = if is_object(text.as_bytes()) { serde_json::from_str::<Payload>(text).ok() } else { None };
    let said = said.and_then(|payload| payload.severity);
    said.filter(|_| is_json(text)).unwrap_or(Severity::Warning)
}

/// Whether it begins like an object: a list would be read as one, too.
fn is_object(json: &[u8]) -> bool {
    json.trim_ascii_start().first() == Some(&b'{')
}

#[cfg(test)]
mod tests {
    use penstock_proto::{Epoch, Lane, LogId};
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::outbox::Properties;

    const PLACE: Place = Place { log: LogId(0xfeed), epoch: Epoch(3), lane: Lane::Alerts };

    fn envelope(source: Source) -> Envelope {
        Envelope::new(&"site-7".parse().unwrap(), "io.penstock", source)
    }

    fn published(payload: &[u8]) -> Record<'_> {
        Record {
            device: "pump-7",
            topic: "devices/pump-7/alerts",
            received_ms: 1_700_000_000_123,
            qos: 1,
            retain: false,
            clock_synced: true,
            properties: Properties { tenant: Some("contoso"), ..Properties::default() },
            payload,
        }
    }

    fn own(payload: &[u8]) -> Record<'_> {
        let properties = Properties { content_type: Some(CLOUD_EVENT), ..Properties::default() };
        Record { device: "site-7", topic: "gateways/site-7/events", properties, ..published(payload) }
    }

    fn sent(source: Source, record: &Record<'_>) -> Value {
        let event = envelope(source).event(PLACE, Seq(41), record).unwrap();
        serde_json::from_slice(&event).unwrap()
    }

    const OWN: &str = r#" {"specversion":"1.0","id":"a1-9f:1","source":"/gateways/site-7","type":"io.penstock.alert.raised.v1","tenant":"acme","severity":"critical","data":{"value":106.1}} "#;

    #[test]
    fn what_the_gateway_raised_is_sent_as_it_is() {
        let event = envelope(Source::AsItIs).event(PLACE, Seq(1), &own(OWN.as_bytes())).unwrap();
        assert_eq!(event, OWN.trim().as_bytes());
    }

    #[test]
    fn another_source_is_all_that_changes() {
        let check = |source: Source, record: &Record<'_>, expected: &str| {
            let mut before: Value = serde_json::from_slice(record.payload).unwrap();
            before["source"] = json!(expected);
            assert_eq!(sent(source, record), before);
        };
        let per_tenant = || Source::PerTenant { others: "site".to_owned() };
        check(Source::Fixed("alerts".to_owned()), &own(OWN.as_bytes()), "alerts");
        check(per_tenant(), &own(OWN.as_bytes()), "acme");
        for (tenant, expected) in [("", "site"), ("ab", "site"), ("a/b", "site"), ("a-1", "a-1")] {
            let text = OWN.replace("\"acme\"", &format!("{tenant:?}"));
            check(per_tenant(), &own(text.as_bytes()), expected);
        }
        let nobodys = OWN.replace("tenant", "other");
        check(per_tenant(), &own(nobodys.as_bytes()), "site");
    }

    #[test]
    fn what_a_device_published_is_wrapped() {
        let event = sent(Source::AsItIs, &published(br#" {"temp":106.10,"severity":"critical"} "#));
        let expected = json!({
            "specversion": "1.0", "id": "site-7/000000000000feed/3/0/41", "source": "/gateways/site-7",
            "type": "io.penstock.device.alert.v1", "subject": "devices/pump-7/alerts",
            "time": "2023-11-14T22:13:20.123Z", "datacontenttype": "application/json", "gatewayid": "site-7",
            "deviceid": "pump-7", "tenant": "contoso", "severity": "critical",
            "data": { "payload": { "temp": 106.10, "severity": "critical" } },
        });
        assert_eq!(event, expected);
        let per_tenant = Source::PerTenant { others: "site".to_owned() };
        assert_eq!(sent(per_tenant, &published(b"1"))["source"], "contoso");
    }

    #[test]
    fn a_payload_stays_as_it_was_written() {
        let digits = br#"{"n":0.10000000000000000000000001,"big":123456789012345678901234567890}"#;
        let event = envelope(Source::AsItIs).event(PLACE, Seq(1), &published(digits)).unwrap();
        let text = String::from_utf8(event).unwrap();
        assert!(
            text.ends_with(&format!(r#""data":{{"payload":{}}}}}"#, String::from_utf8_lossy(digits))),
            "{text}"
        );
    }

    #[test]
    fn what_is_no_json_travels_in_base64() {
        let check = |payload: &[u8], expected: Value| {
            assert_eq!(sent(Source::AsItIs, &published(payload))["data"], expected, "{payload:?}");
        };
        check(b"\xff\x00", json!({ "payload_base64": "/wA=" }));
        check(b"", json!({ "payload_base64": "" }));
        check(b"hot", json!({ "payload_base64": "aG90" }));
        check(b"1 2", json!({ "payload_base64": "MSAy" }));
        check(br#""\ud800""#, json!({ "payload_base64": "Ilx1ZDgwMCI=" }));
        check(b"1e999", json!({ "payload_base64": "MWU5OTk=" }));
        check(b" \"hot\"\n", json!({ "payload": "hot" }));
        check(b"null", json!({ "payload": null }));
    }

    #[test]
    fn a_device_says_how_bad_it_is_or_it_is_a_warning() {
        let check = |payload: &str, expected: &str| {
            let record = published(payload.as_bytes());
            assert_eq!(sent(Source::AsItIs, &record)["severity"], expected, "{payload}");
            assert_eq!(envelope(Source::AsItIs).is_critical(&record), expected == "critical", "{payload}");
        };
        check(r#"{"severity":"critical"}"#, "critical");
        check(r#"{"severity":"info","x":[1,{}]}"#, "info");
        check(r#"{"severity":"warning"}"#, "warning");
        for other in [
            "{}",
            r#"{"severity":"CRITICAL"}"#,
            r#"{"severity":2}"#,
            r#"{"severity":["critical"]}"#,
            r#"["critical"]"#,
            r#""critical""#,
            r#"{"severity":"critical""#,
            r#"{"severity":"critical","severity":"critical"}"#,
            r#"{"severity":"critical","x":1e999}"#,
            "critical",
        ] {
            check(other, "warning");
        }
    }

    #[test]
    fn only_the_gateways_own_events_pass_unwrapped() {
        let foreign = |change: &dyn Fn(&mut Record<'_>)| {
            let mut record = own(OWN.as_bytes());
            change(&mut record);
            sent(Source::AsItIs, &record)["type"] == "io.penstock.device.alert.v1"
        };
        assert!(!foreign(&|_| ()));
        assert!(!foreign(&|record| record.topic = "gateways/site-7/events/alerts"));
        assert!(foreign(&|record| record.topic = "gateways/site-7/eventsx"));
        assert!(foreign(&|record| record.topic = "gateways/site-8/events"));
        assert!(foreign(&|record| record.properties.content_type = None));
    }

    #[test]
    fn what_is_no_event_is_named() {
        let check = |from: &str, to: &str, expected: &str| {
            let text = OWN.replace(from, to);
            let refused = envelope(Source::AsItIs).event(PLACE, Seq(1), &own(text.as_bytes()));
            let Err(Unusable::Malformed(reason)) = refused else { panic!("{text}: {refused:?}") };
            assert!(reason.contains(expected), "{reason}");
            assert!(!envelope(Source::AsItIs).is_critical(&own(text.as_bytes())) || from == "none");
        };
        check("1.0", "0.3", "specversion is not 1.0");
        check(r#""id":"a1-9f:1","#, "", "missing field `id`");
        check("a1-9f:1", "", "id is empty");
        check("io.penstock.alert.raised.v1", "", "type is empty");
        check("/gateways/site-7", "", "source is empty");
        check("106.1}}", "106.1}", "EOF");
        check(OWN, r#"["1.0","a","b","c","critical",null]"#, "no object");
        check(OWN, "\u{0}", "no object");
    }

    #[test]
    fn the_largest_event_still_goes_and_one_byte_more_does_not() {
        let bare = sent(Source::AsItIs, &published(b"\"\"")).to_string().len();
        let payload = |bytes: usize| format!("\"{}\"", "x".repeat(bytes - bare));
        let largest = payload(EVENT_BYTES_MAX);
        let event = envelope(Source::AsItIs).event(PLACE, Seq(41), &published(largest.as_bytes())).unwrap();
        assert_eq!(event.len(), EVENT_BYTES_MAX);
        let larger = payload(EVENT_BYTES_MAX + 1);
        let refused = envelope(Source::AsItIs).event(PLACE, Seq(41), &published(larger.as_bytes()));
        assert_eq!(refused, Err(Unusable::TooLarge(EVENT_BYTES_MAX + 1)));
    }

    proptest! {
        #[test]
        fn whatever_a_device_publishes_becomes_an_event(
            payload in prop::collection::vec(any::<u8>(), 0..60),
            topic in ".{1,20}",
            device in ".{1,20}",
        ) {
            let record = Record { topic: &topic, device: &device, ..published(&payload) };
            let event = envelope(Source::AsItIs).event(PLACE, Seq(1), &record).unwrap();
            prop_assert!(Head::read(&event).is_ok());
            let event: Value = serde_json::from_slice(&event).unwrap();
            prop_assert!(event["data"].as_object().is_some_and(|data| data.len() == 1));
        }
    }
}

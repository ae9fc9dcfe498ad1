//! Events that the gateway itself has to tell, as CloudEvents 1.0 in JSON: one shape for all stages.

use penstock_proto::Lane;
use serde::Serialize;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::record::{Encoded, Entry, Properties};
use crate::supervise::clock;

/// An event with its attributes; those that are not known are left out, as are those that an attribute cannot
/// hold: CloudEvents allows neither empty values nor control characters in them.
#[derive(Debug, Serialize)]
pub(crate) struct CloudEvent<'a, T> {
    specversion: &'static str,
    id: String,
    source: String,
    #[serde(rename = "type")]
    kind: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    subject: Option<&'a str>,
    time: String,
    datacontenttype: &'static str,
    gatewayid: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    deviceid: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tenant: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ruleid: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    correlationid: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    traceparent: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tracestate: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sequence: Option<String>,
    severity: &'static str,
    data: T,
    #[serde(skip)]
    now_ms: u64,
}

/// Attributes that only some events have.
#[derive(Debug, Clone, Default)]
pub(crate) struct Attributes<'a> {
    /// Whom it is about.
    pub(crate) subject: Option<&'a str>,
    /// The device key.
    pub(crate) device: Option<&'a str>,
    pub(crate) tenant: Option<&'a str>,
    /// The rule that found it.
    pub(crate) rule: Option<&'a str>,
    /// The request that it answers.
    pub(crate) correlation: Option<&'a str>,
    pub(crate) traceparent: Option<&'a str>,
    pub(crate) tracestate: Option<&'a str>,
    /// Where it stands among others, in the order of text.
    pub(crate) sequence: Option<String>,
}

impl<'a, T: Serialize> CloudEvent<'a, T> {
    /// An event of `gateway`. `id` is the same whenever the same thing is told again.
    pub(crate) fn new(
        gateway: &'a str,
        (id, kind): (String, String),
        severity: &'static str,
        now_ms: u64,
        data: T,
    ) -> Self {
        Self {
            specversion: "1.0",
            id,
            source: format!("/gateways/{gateway}"),
            kind,
            subject: None,
            time: rfc3339(now_ms),
            datacontenttype: "application/json",
            gatewayid: gateway,
            deviceid: None,
            tenant: None,
            ruleid: None,
            correlationid: None,
            traceparent: None,
            tracestate: None,
            sequence: None,
            severity,
            data,
            now_ms,
        }
    }

    /// The event with these attributes too.
    pub(crate) fn with(self, attributes: Attributes<'a>) -> Self {
        let Attributes { subject, device, tenant, rule, correlation, traceparent, tracestate, sequence } =
            attributes;
        Self {
            subject: subject.filter(|text| is_attribute(text)),
            deviceid: device.filter(|text| is_attribute(text)),
            tenant: tenant.filter(|text| is_attribute(text)),
            ruleid: rule.filter(|text| is_attribute(text)),
            correlationid: correlation.filter(|text| is_attribute(text)),
            traceparent: traceparent.filter(|text| is_attribute(text)),
            tracestate: tracestate.filter(|text| is_attribute(text)),
            sequence,
            ..self
        }
    }

    /// The event as if it came from somewhere else.
    pub(crate) fn with_source(self, source: &str) -> Self {
        Self { source: source.to_owned(), ..self }
    }

    /// Its JSON. `data` stands last.
    pub(crate) fn json(&self) -> Vec<u8> {
        // Text and numbers in maps with text keys always become JSON.
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// Appends it to `lane`, under the key of `device`.
    pub(crate) fn push(&self, lane: Lane, device: &str, entries: &mut Encoded) {
        let payload = self.json();
        entries.push(&Entry {
            lane,
            device,
            topic: &format!("gateways/{}/events", self.gatewayid),
            received_ms: self.now_ms,
            qos: 1,
            retain: false,
            clock_synced: clock::plausible(self.now_ms),
            properties: Properties {
                content_type: Some("application/cloudevents+json"),
                ..Properties::default()
            },
            payload: &payload,
        });
    }
}

/// Whether an attribute can hold this text.
fn is_attribute(text: &str) -> bool {
    let noncharacter = |c: char| u32::from(c) & 0xfffe == 0xfffe || ('\u{fdd0}'..='\u{fdef}').contains(&c);
    !text.is_empty() && !text.chars().any(|c| c.is_control() || noncharacter(c))
}

/// A moment as RFC 3339 text with milliseconds, in UTC.
pub(crate) fn rfc3339(unix_ms: u64) -> String {
    let nanoseconds = i128::from(unix_ms) * 1_000_000;
    let moment = OffsetDateTime::from_unix_timestamp_nanos(nanoseconds).ok();
    moment
        .and_then(|moment| moment.format(&Rfc3339).ok())
        .unwrap_or_else(|| "1970-01-01T00:00:00Z".to_owned())
}

//! What the cloud is told: CloudEvents in lane `alerts`. The JSON is documented in `docs/formats/alert-v1.md`.
//!
//! Everything that devices choose is bounded before it comes here; what an attribute of CloudEvents cannot hold is left
//! out of the attributes and stands in the data only.

use std::borrow::Cow;
use std::cmp::Reverse;
use std::collections::HashMap;
use std::fmt::Write as _;

use penstock_proto::{GatewayId, Lane};
use serde::{Serialize, Serializer};

use super::alert::{Alert, Owed, Update};
use super::group::{Group, Storm};
use super::ident::{push_part, shorten};
use super::policy::Facet;
use super::rulebook::RuleFacts;
use crate::alerts::nouns::Severity;
use crate::outbox::{Attributes, CloudEvent, Encoded, rfc3339};

/// In whose name alerts are told.
#[derive(Debug, Clone)]
pub(crate) struct Voice {
    /// The gateway.
    pub(crate) gateway: Box<str>,
    /// The source of every event: `/gateways/site-7`.
    pub(crate) source: Box<str>,
    /// Begins the type of every event: `io.penstock`.
    pub(crate) type_prefix: Box<str>,
}

/// One event about an alert.
#[derive(Debug, Clone, Copy)]
pub(super) struct AlertEvent<'a> {
    pub(super) alert: &'a Alert,
    pub(super) owed: Owed,
    /// None of a rule that is gone.
    pub(super) rule: Option<&'a RuleFacts>,
    pub(super) suppressed: u64,
    pub(super) now_ms: u64,
}

/// One event about a storm.
#[derive(Debug)]
pub(super) struct StormEvent<'a> {
    pub(super) group: &'a Group,
    pub(super) storm: &'a Storm,
    pub(super) state: &'static str,
    pub(super) reason: Option<&'static str>,
    pub(super) open: Open<'a>,
    pub(super) suppressed: u64,
    pub(super) now_ms: u64,
}

/// What is open in a group.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Open<'a> {
    pub(super) by_severity: [u64; 3],
    /// The worst first, then by name.
    pub(super) devices: Vec<Cow<'a, str>>,
}

/// A name and a value.
type Label = (Box<str>, Box<str>);

/// Devices that a storm names.
pub(super) const DEVICES_MAX: usize = 20;
/// Bytes of each of these names.
pub(super) const DEVICE_BYTES_MAX: usize = 128;
const LABELS_MAX: usize = 32;
const LABEL_BYTES_MAX: usize = 4096;
const RUNBOOK_BYTES_MAX: usize = 1024;

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct AlertData<'a> {
    alert_id: &'a str,
    state: &'static str,
    transition: u32,
    rule: Rule<'a>,
    severity: &'static str,
    started_at: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    ended_at: Option<String>,
    observed: Observed<'a>,
    origin: Origin<'a>,
    #[serde(serialize_with = "labels")]
    labels: &'a [Label],
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
    suppressed: u64,
}

#[derive(Serialize)]
struct Rule<'a> {
    id: &'a str,
    version: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    runbook: Option<&'a str>,
}

#[derive(Serialize)]
struct Observed<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    metric: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    threshold: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    score: Option<f64>,
}

#[derive(Serialize)]
struct Origin<'a> {
    gateway: &'a str,
    log: String,
    epoch: u32,
    lane: &'static str,
    seq: u64,
    device: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    stream: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    class: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    site: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tenant: Option<&'a str>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct StormData<'a> {
    alert_id: &'a str,
    state: &'static str,
    transition: u32,
    #[serde(serialize_with = "facets")]
    group: &'a [(Facet, Option<Box<str>>)],
    severity: &'static str,
    started_at: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    ended_at: Option<String>,
    open: u64,
    by_severity: BySeverity,
    raised: u64,
    untracked: u64,
    devices: &'a [Cow<'a, str>],
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
    suppressed: u64,
}

#[derive(Serialize)]
struct BySeverity {
    info: u64,
    warning: u64,
    critical: u64,
}

// === impl Voice ===

impl Voice {
    /// The voice of a gateway that names itself as the source of its events.
    pub(crate) fn of(gateway: &GatewayId, type_prefix: &str) -> Self {
        let source = format!("/gateways/{gateway}").into();
        Self { gateway: gateway.as_str().into(), source, type_prefix: type_prefix.into() }
    }

    fn kind(&self, what: &str) -> String {
        format!("{}.alert.{what}.v1", self.type_prefix)
    }
}

// === impl AlertEvent ===

impl AlertEvent<'_> {
    /// Appends it. Says how many labels it had no room for.
    pub(super) fn push(&self, voice: &Voice, entries: &mut Encoded) -> u64 {
        let Self { alert, owed, rule, .. } = *self;
        let id = alert.id.text("a1-");
        let (labels, cut) = bounded(rule.map_or(&[], |rule| &rule.labels));
        let subject = self.subject();
        let attributes = Attributes {
            subject: Some(&subject),
            device: Some(&alert.device),
            tenant: alert.tenant.as_deref(),
            rule: Some(&alert.rule),
            correlation: Some(&id),
            traceparent: alert.traceparent.as_deref(),
            sequence: Some(format!("{:020}", alert.transition)),
            ..Attributes::default()
        };
        let name = (format!("{id}:{}", alert.transition), voice.kind(owed.name()));
        let data = self.data(voice, &id, labels);
        let event = CloudEvent::new(&voice.gateway, name, alert.severity.name(), self.time_ms(), data);
        event.with_source(&voice.source).with(attributes).push(Lane::Alerts, &alert.device, entries);
        cut
    }

    /// When what is told was so: the time of the edge, or the stage's clock where no edge made it.
    fn time_ms(&self) -> u64 {
        match self.owed {
            Owed::Updated(Update::Repeat | Update::Calm) => self.now_ms,
            _ => self.alert.changed_ms,
        }
    }

    fn subject(&self) -> String {
        let mut subject = String::from("devices/");
        push_part(&mut subject, &self.alert.device);
        if let Some(metric) = &self.alert.metric {
            subject.push_str("/metrics/");
            push_part(&mut subject, metric);
        }
        subject
    }

    fn data<'a>(&'a self, voice: &'a Voice, id: &'a str, labels: &'a [Label]) -> AlertData<'a> {
        let Self { alert, owed, rule, suppressed, .. } = *self;
        let short = |text: &&str| text.len() <= RUNBOOK_BYTES_MAX;
        let runbook = rule.and_then(|rule| rule.runbook.as_deref()).filter(short);
        let (ended, reason) = match owed {
            Owed::Resolved => (Some(rfc3339(alert.changed_ms)), alert.ending.reason()),
            Owed::Updated(update) => (None, Some(update.reason())),
            Owed::Raised | Owed::Flapping => (None, None),
        };
        AlertData {
            alert_id: id,
            state: owed.name(),
            transition: alert.transition,
            rule: Rule { id: &alert.rule, version: alert.version, runbook },
            severity: alert.severity.name(),
            started_at: rfc3339(alert.started_ms),
            ended_at: ended,
            observed: Observed {
                metric: alert.metric.as_deref(),
                value: alert.observed,
                threshold: alert.threshold,
                score: alert.score,
            },
            origin: Origin {
                gateway: &voice.gateway,
                log: alert.episode.log.to_string(),
                epoch: alert.episode.epoch.0,
                lane: alert.episode.lane.name(),
                seq: alert.episode.seq.0,
                device: &alert.device,
                stream: alert.stream.as_deref(),
                class: alert.class.as_deref(),
                site: alert.site.as_deref(),
                tenant: alert.tenant.as_deref(),
            },
            labels,
            reason,
            suppressed,
        }
    }
}

// === impl StormEvent ===

impl StormEvent<'_> {
    /// Appends it, under the name of the gateway.
    pub(super) fn push(&self, voice: &Voice, entries: &mut Encoded) {
        let Self { group, storm, .. } = self;
        let id = storm.id.text("s1-");
        let facet = |wanted| {
            let found = group.facets.iter().find(|(facet, _)| *facet == wanted);
            found.and_then(|(_, value)| value.as_deref())
        };
        let subject = self.subject();
        let attributes = Attributes {
            subject: Some(&subject),
            tenant: facet(Facet::Tenant),
            rule: facet(Facet::Rule),
            correlation: Some(&id),
            sequence: Some(format!("{:020}", storm.transition)),
            ..Attributes::default()
        };
        let name = (format!("{id}:{}", storm.transition), voice.kind("storm"));
        let event = CloudEvent::new(&voice.gateway, name, storm.worst.name(), self.now_ms, self.data(&id));
        event.with_source(&voice.source).with(attributes).push(Lane::Alerts, &voice.gateway, entries);
    }

    fn subject(&self) -> String {
        let mut subject = String::from("groups");
        for (facet, value) in &self.group.facets {
            if let Some(value) = value {
                // Writing to a string does not fail.
                write!(subject, "/{}/", facet.name()).unwrap_or_default();
                push_part(&mut subject, value);
            }
        }
        subject
    }

    fn data<'a>(&'a self, id: &'a str) -> StormData<'a> {
        let Self { group, storm, open, .. } = self;
        let [info, warning, critical] = open.by_severity;
        StormData {
            alert_id: id,
            state: self.state,
            transition: storm.transition,
            group: &group.facets,
            severity: storm.worst.name(),
            started_at: rfc3339(storm.since_ms),
            ended_at: (self.state == "resolved").then(|| rfc3339(self.now_ms)),
            open: info + warning + critical,
            by_severity: BySeverity { info, warning, critical },
            raised: storm.raised,
            untracked: storm.untracked,
            devices: &open.devices,
            reason: self.reason,
            suppressed: self.suppressed,
        }
    }
}

// === impl Open ===

impl<'a> Open<'a> {
    /// Sums up alerts by their severity and device.
    pub(super) fn of(alerts: impl Iterator<Item = (Severity, &'a str)>) -> Self {
        let mut by_severity = [0_u64; 3];
        let mut worst: HashMap<&str, Severity> = HashMap::new();
        for (severity, device) in alerts {
            let [info, warning, critical] = &mut by_severity;
            *(match severity {
                Severity::Info => info,
                Severity::Warning => warning,
                Severity::Critical => critical,
            }) += 1;
            let known = worst.entry(device).or_insert(severity);
            *known = severity.max(*known);
        }
        let mut devices: Vec<_> = worst.into_iter().map(|(device, worst)| (Reverse(worst), device)).collect();
        if devices.len() > DEVICES_MAX {
            devices.select_nth_unstable(DEVICES_MAX);
            devices.truncate(DEVICES_MAX);
        }
        devices.sort_unstable();
        Self {
            by_severity,
            devices: devices.into_iter().map(|(_, device)| shorten(device, DEVICE_BYTES_MAX)).collect(),
        }
    }
}

/// The labels that there is room for, and how many there is none for.
fn bounded(labels: &[Label]) -> (&[Label], u64) {
    let mut bytes = 0_usize;
    let fits = |(name, value): &&Label| {
        bytes = bytes.saturating_add(name.len()).saturating_add(value.len());
        bytes <= LABEL_BYTES_MAX
    };
    let count = labels.iter().take(LABELS_MAX).take_while(fits).count();
    (labels.get(..count).unwrap_or_default(), (labels.len() - count) as u64)
}

fn labels<S: Serializer>(labels: &[Label], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_map(labels.iter().map(|(name, value)| (name, value)))
}

fn facets<S: Serializer>(facets: &[(Facet, Option<Box<str>>)], serializer: S) -> Result<S::Ok, S::Error> {
    let known = facets.iter().filter_map(|(facet, value)| Some((facet.name(), value.as_deref()?)));
    serializer.collect_map(known)
}

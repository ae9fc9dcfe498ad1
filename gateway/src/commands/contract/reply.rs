//! The message that tells whoever sent a command how it ended.
//!
//! It is the final status event as a CloudEvent in binary mode (CloudEvents AMQP Protocol Binding 1.0.2, section 3.1):
//! its data is the body, its attributes are application properties that begin with `cloudEvents:`.

use std::time::Duration;

use ring::digest;
use serde_json::Value as Json;

use super::about::{About, Identity};
use super::ending::Ending;
use super::event::{StatusEvent, Voice};
use super::record::Record;
use crate::commands::message::{Outgoing, Value};

/// What whoever asked for a reply is to be told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Reply {
    to: Box<str>,
    about: About,
    ending: Ending,
    at_ms: u64,
}

/// Stands before the names of attributes, as the binding says.
const PREFIX: &str = "cloudEvents:";

impl Reply {
    /// The reply to a command that is done, if its sender asked for one and the record says how it ended.
    pub(crate) fn new(about: &About, record: &Record) -> Option<Self> {
        let (to, ending) = (about.reply_to.clone()?, record.ending.as_deref()?.clone());
        Some(Self { to, about: about.clone(), ending, at_ms: record.at_ms })
    }

    /// Where the sender wants it, as it said.
    pub(crate) fn to(&self) -> &str {
        &self.to
    }

    /// The session that the sender wants it in.
    pub(crate) fn session(&self) -> Option<&str> {
        self.about.reply_to_session_id.as_deref()
    }

    /// The command id, for the log.
    pub(crate) fn command(&self) -> &str {
        &self.about.id
    }

    /// The message. It has the same id however often it is made.
    pub(crate) fn message(&self, voice: &Voice, time_to_live: Duration) -> Outgoing {
        let Self { about, ending, at_ms, .. } = self;
        let Ending { outcome, redelivered } = ending;
        let event = StatusEvent { about, outcome, is_final: true, redelivered: *redelivered, now_ms: *at_ms };
        let (properties, data) = parts(event.to_value(voice));
        let correlation = about.identity.message_id.as_deref().unwrap_or(&about.id);
        Outgoing {
            message_id: Some(message_id(&about.identity)),
            session_id: self.session().map(ToOwned::to_owned),
            subject: Some(outcome.status.word().to_owned()),
            content_type: Some("application/json".to_owned()),
            correlation_id: Some(correlation.to_owned()),
            time_to_live: Some(time_to_live),
            properties,
            body: data,
            ..Outgoing::default()
        }
    }
}

/// The attributes of an event as properties, and its data.
fn parts(event: Json) -> (Vec<(String, Value)>, Vec<u8>) {
    let Json::Object(mut event) = event else { return (Vec::new(), Vec::new()) };
    let data = event.remove("data").unwrap_or_default();
    // That is the content type.
    event.remove("datacontenttype");
    let mut properties: Vec<_> = event
        .into_iter()
        .filter_map(|(name, value)| match value {
            Json::String(text) => Some((format!("{PREFIX}{name}"), Value::Text(text))),
            _ => None,
        })
        .collect();
    let traced = properties.iter().find(|(name, _)| name.strip_prefix(PREFIX) == Some("traceparent"));
    if let Some((_, parent)) = traced {
        // Where Azure's clients look for it.
        let parent = parent.clone();
        properties.push(("Diagnostic-Id".to_owned(), parent));
    }
    (properties, data.to_string().into_bytes())
}

/// Different for different commands of a namespace, and at most 128 characters, as Service Bus has it.
fn message_id(identity: &Identity) -> String {
    let Identity { entity, sequence, enqueued_ms, message_id } = identity;
    let mut digest = digest::Context::new(&digest::SHA256);
    // Names of entities have no case.
    for part in [entity.to_ascii_lowercase().as_str(), message_id.as_deref().unwrap_or_default()] {
        digest.update(&part.len().to_le_bytes());
        digest.update(part.as_bytes());
    }
    let half = digest.finish().as_ref().first_chunk().copied().map_or(0, u128::from_be_bytes);
    format!("{sequence}-{enqueued_ms}-{half:032x}")
}

//! The link that sends to an entity.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use fe2o3_amqp::session::SessionHandle;
use fe2o3_amqp_types::messaging::{
    ApplicationProperties, Data, Header, Message, Modified, Outcome, Properties, Rejected,
};
use fe2o3_amqp_types::primitives::{Binary, SimpleValue, Symbol, Timestamp};
use tokio::time::timeout;

use super::carrier::end;
use super::entity::Entity;
use super::error::{Cause, LinkError};
use super::pool::Permit;
use crate::commands::message::Value;

/// A link that sends to an entity.
pub(crate) struct Sender {
    sender: fe2o3_amqp::Sender,
    session: SessionHandle<()>,
    entity: Arc<Entity>,
    _permit: Permit,
}

/// A message to send.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Outgoing {
    /// What duplicates are told by.
    pub(crate) message_id: Option<String>,
    /// The session it belongs to; required by entities with sessions.
    pub(crate) session_id: Option<String>,
    /// What it is about.
    pub(crate) subject: Option<String>,
    /// The type of the body.
    pub(crate) content_type: Option<String>,
    /// What it belongs to.
    pub(crate) correlation_id: Option<String>,
    /// The entity that answers go to.
    pub(crate) reply_to: Option<String>,
    /// The session that answers go to.
    pub(crate) reply_to_session_id: Option<String>,
    /// How long it may wait; as the entity says without.
    pub(crate) time_to_live: Option<Duration>,
    /// The application's properties. Values of other types than AMQP has are left out.
    pub(crate) properties: Vec<(String, Value)>,
    /// What it says.
    pub(crate) body: Vec<u8>,
}

const ATTACH_TIMEOUT: Duration = Duration::from_secs(30);
const SEND_TIMEOUT: Duration = Duration::from_secs(30);

/// Attaches a sender.
///
/// # Cancel safety
///
/// Cancelling it ends the AMQP session.
pub(super) async fn attach(mut permit: Permit, address: &str) -> Result<Sender, LinkError> {
    let entity = permit.carrier.entity(address);
    let reliance = entity.authorized().await?;
    let attached = match attach_once(&permit, address).await {
        Err(error) if error.is_unauthorized() => {
            entity.authorized_anew(reliance).await?;
            attach_once(&permit, address).await?
        }
        attached => attached?,
    };
    let (sender, session) = attached;
    permit.attached();
    Ok(Sender { sender, session, entity, _permit: permit })
}

async fn attach_once(
    permit: &Permit,
    address: &str,
) -> Result<(fe2o3_amqp::Sender, SessionHandle<()>), LinkError> {
    let mut session = permit.carrier.begins().begin().await?.session;
    let name = permit.carrier.names().next("sender");
    let attaching = fe2o3_amqp::Sender::builder().name(name).target(address).attach(&mut session);
    let attached = match timeout(ATTACH_TIMEOUT, attaching).await {
        Ok(attached) => attached.map_err(LinkError::from),
        Err(_) => Err(LinkError::TimedOut(Cause::local(format!("{address} did not answer")))),
    };
    match attached {
        Ok(sender) => Ok((sender, session)),
        Err(error) => {
            end(session).await;
            Err(error)
        }
    }
}

// === impl Sender ===

impl fmt::Debug for Sender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sender").field("name", &self.sender.name()).finish_non_exhaustive()
    }
}

impl Sender {
    /// Sends a message and returns when the entity has taken it.
    ///
    /// # Errors
    ///
    /// Why it did not. After [`LinkError::TimedOut`] and [`LinkError::Lost`] it may have taken it all the same.
    ///
    /// # Cancel safety
    ///
    /// Whether the message is sent is not known then.
    pub(crate) async fn send(&mut self, message: Outgoing) -> Result<(), LinkError> {
        let sending = self.sender.send::<Data>(encode(message));
        let sent = match timeout(SEND_TIMEOUT, sending).await {
            Ok(sent) => sent.map_err(LinkError::from).and_then(taken),
            Err(_) => Err(LinkError::TimedOut(Cause::local("the entity did not take the message in time"))),
        };
        if sent.as_ref().is_err_and(LinkError::is_unauthorized) {
            self.entity.unauthorized();
        }
        sent
    }

    /// Ends the link.
    pub(crate) async fn close(self) {
        let Self { sender, session, .. } = self;
        // The service may have ended it meanwhile.
        drop(timeout(SEND_TIMEOUT, sender.close()).await);
        end(session).await;
    }
}

fn taken(outcome: Outcome) -> Result<(), LinkError> {
    match outcome {
        Outcome::Accepted(_) => Ok(()),
        Outcome::Rejected(Rejected { error: Some(error) }) => Err(LinkError::from_remote(&error)),
        Outcome::Rejected(Rejected { error: None }) => {
            Err(LinkError::Other(Cause::local("the entity rejected the message")))
        }
        Outcome::Released(_) | Outcome::Modified(Modified { .. }) => {
            Err(LinkError::Busy(Cause::local("the entity did not take the message")))
        }
    }
}

fn encode(message: Outgoing) -> Message<Data> {
    let mut properties = Properties::new();
    properties.message_id = message.message_id.map(Into::into);
    properties.group_id = message.session_id;
    properties.subject = message.subject;
    properties.content_type = message.content_type.map(Symbol::from);
    properties.correlation_id = message.correlation_id.map(Into::into);
    properties.reply_to = message.reply_to;
    properties.reply_to_group_id = message.reply_to_session_id;
    let ttl = message.time_to_live.map(|life| u32::try_from(life.as_millis()).unwrap_or(u32::MAX));
    let mut application = ApplicationProperties::builder();
    for (name, value) in message.properties {
        if let Some(value) = simple(value) {
            application = application.insert(name, value);
        }
    }
    Message::builder()
        .header(Header { durable: true, ttl, ..Header::default() })
        .properties(properties)
        .application_properties(application.build())
        .data(Binary::from(message.body))
        .build()
}

fn simple(value: Value) -> Option<SimpleValue> {
    match value {
        Value::Text(text) => Some(SimpleValue::String(text)),
        Value::Integer(number) => Some(SimpleValue::Long(number)),
        Value::Bool(value) => Some(SimpleValue::Bool(value)),
        Value::Double(number) => Some(SimpleValue::Double(number.into())),
        Value::Time(unix_ms) => Some(SimpleValue::Timestamp(Timestamp::from_milliseconds(
            i64::try_from(unix_ms).unwrap_or(i64::MAX),
        ))),
        Value::Binary(octets) => Some(SimpleValue::Binary(Binary::from(octets))),
        Value::Other(_) => None,
    }
}

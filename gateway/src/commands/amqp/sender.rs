//! The link that sends to an entity.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
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
use crate::commands::message::{Outgoing, Value};

/// A link that sends to an entity.
pub(crate) struct Sender {
    sender: fe2o3_amqp::Sender,
    session: SessionHandle<()>,
    entity: Arc<Entity>,
    _permit: Permit,
}

/// Whether an entity has taken a message. After [`LinkError::Lost`] it may have done so all the same.
#[must_use = "whether it arrives is not known before"]
pub(crate) struct Taking(Pin<Box<dyn Future<Output = Result<(), LinkError>> + Send>>);

const ATTACH_TIMEOUT: Duration = Duration::from_secs(30);
const CLOSE_TIMEOUT: Duration = Duration::from_secs(3);

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
    /// Sends a message. Whether the entity has taken it, what is returned says in time: others can be sent meanwhile.
    ///
    /// # Errors
    ///
    /// Why it was not sent, or may not have been.
    ///
    /// # Cancel safety
    ///
    /// Whether the message is sent is not known then, and the link is good for nothing any more.
    pub(crate) async fn send(&mut self, message: Outgoing) -> Result<Taking, LinkError> {
        let sending = self.sender.send_batchable::<Data>(encode(message)).await;
        let outcome = sending?;
        let entity = Arc::clone(&self.entity);
        Ok(Taking(Box::pin(async move {
            let sent = outcome.await.map_err(LinkError::from).and_then(taken);
            if sent.as_ref().is_err_and(LinkError::is_unauthorized) {
                entity.unauthorized();
            }
            sent
        })))
    }

    /// Ends the link.
    pub(crate) async fn close(self) {
        let Self { sender, session, .. } = self;
        // The service may have ended it meanwhile.
        drop(timeout(CLOSE_TIMEOUT, sender.close()).await);
        end(session).await;
    }
}

impl Future for Taking {
    type Output = Result<(), LinkError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.0.as_mut().poll(cx)
    }
}

impl fmt::Debug for Taking {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Taking")
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

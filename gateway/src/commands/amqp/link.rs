//! The link that holds a session of an entity.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use fe2o3_amqp::Receiver;
use fe2o3_amqp::link::delivery::DeliveryInfo;
use fe2o3_amqp::link::{CreditMode, RecvError};
use fe2o3_amqp::session::SessionHandle;
use fe2o3_amqp_types::definitions::{self, ErrorCondition, Fields, ReceiverSettleMode, SenderSettleMode};
use fe2o3_amqp_types::messaging::{Accepted, Body, FilterSet, Modified, Source};
use fe2o3_amqp_types::primitives::{OrderedMap, Symbol, Value};
use tokio::time::timeout;

use super::carrier::{Begins, Begun, Names, end};
use super::entity::Entity;
use super::error::{Cause, LinkError};
use super::management;
use super::message::{integer, lock, received, undecodable, unix_ms};
use super::pool::Permit;
use super::settlement::Answers;
use crate::commands::message::{Disposition, LockToken, Received};

/// Which session is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wish<'a> {
    /// The one with this id.
    Session(&'a str),
    /// Any that has messages and belongs to nobody, if one does within this time.
    Next {
        /// How long to wait, from 1 s to an hour.
        wait: Duration,
    },
}

/// A session of an entity, locked for us. It is free again when this is closed or dropped; what is not settled then is
/// delivered again, and that delivery does not count as a failed one.
pub(crate) struct SessionLink {
    receiver: Receiver,
    session: SessionHandle<()>,
    answers: Answers,
    entity: Arc<Entity>,
    name: String,
    locked_until_ms: u64,
    /// One message may come.
    credit: bool,
    /// The message that came and is not settled.
    held: Option<(LockToken, DeliveryInfo)>,
    /// The same message, if nobody took it yet.
    arrived: Option<Received>,
    /// Why nothing comes any more.
    ended: Option<LinkError>,
    // Last, so that the place is free when the link is gone.
    _permit: Permit,
}

/// What attaching gave, or that it was refused.
struct Attached {
    receiver: Receiver,
    session: SessionHandle<()>,
    answers: Answers,
    name: String,
    locked_until_ms: u64,
}

const SESSION_FILTER: &str = "com.microsoft:session-filter";
const TIMEOUT: &str = "com.microsoft:timeout";
const LOCKED_UNTIL: &str = "com.microsoft:locked-until-utc";
const DEAD_LETTER: &str = "com.microsoft:dead-letter";
/// How long the service may take to give or refuse a session by its id.
const SESSION_TIMEOUT: Duration = Duration::from_secs(15);
/// How much longer than it was told to the service may take to answer before the AMQP session is given up.
const GRACE: Duration = Duration::from_secs(15);
/// How long the service may take to answer a settlement.
const SETTLE_TIMEOUT: Duration = Duration::from_secs(15);
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);
/// .NET counts in 100 ns from the year 1.
const TICKS_PER_MS: i64 = 10_000;
const TICKS_TO_1970: i64 = 621_355_968_000_000_000;

/// Asks for a session.
///
/// # Cancel safety
///
/// Cancelling it ends the AMQP session, and with it whatever the service would have given.
pub(super) async fn accept(
    mut permit: Permit,
    address: &str,
    wish: Wish<'_>,
) -> Result<Box<SessionLink>, LinkError> {
    let entity = permit.carrier.entity(address);
    let reliance = entity.authorized().await?;
    let (begins, names) = (permit.carrier.begins(), permit.carrier.names());
    let attached = match attach(begins, names, address, wish).await {
        // The token may have ended early, or the clock of this machine may be wrong.
        Err(error) if error.is_unauthorized() => {
            entity.authorized_anew(reliance).await?;
            attach(begins, names, address, wish).await?
        }
        attached => attached?,
    };
    permit.attached();
    Ok(Box::new(SessionLink {
        receiver: attached.receiver,
        session: attached.session,
        answers: attached.answers,
        entity,
        name: attached.name,
        locked_until_ms: attached.locked_until_ms,
        credit: false,
        held: None,
        arrived: None,
        ended: None,
        _permit: permit,
    }))
}

/// Attaches a link on an AMQP session of its own. The library mixes up handles on a session on which an attach was
/// refused, so such a session ends.
async fn attach(
    begins: &Begins,
    names: &Names,
    address: &str,
    wish: Wish<'_>,
) -> Result<Attached, LinkError> {
    let Begun { mut session, answers } = begins.begin().await?;
    let (wanted, wait) = match wish {
        Wish::Session(id) => (Value::String(id.to_owned()), SESSION_TIMEOUT),
        Wish::Next { wait } => (Value::Null, wait),
    };
    let filter = FilterSet::from_iter([(Symbol::from(SESSION_FILTER), wanted)]);
    let wait_ms = u32::try_from(wait.as_millis()).unwrap_or(u32::MAX);
    let attaching = Receiver::builder()
        .name(names.next("session"))
        .source(Source::builder().address(address).filter(filter).build())
        .sender_settle_mode(SenderSettleMode::Unsettled)
        .receiver_settle_mode(ReceiverSettleMode::Second)
        .credit_mode(CreditMode::Manual)
        .properties(Fields::from_iter([(Symbol::from(TIMEOUT), Value::Uint(wait_ms))]))
        .attach(&mut session);
    let attached = match timeout(wait + GRACE, attaching).await {
        Ok(attached) => attached.map_err(LinkError::from),
        Err(_) => Err(LinkError::TimedOut(Cause::local(format!("{address} did not answer")))),
    };
    let granted = attached.and_then(|receiver| granted(&receiver).map(|granted| (receiver, granted)));
    match granted {
        Ok((receiver, (name, locked_until_ms))) => {
            Ok(Attached { receiver, session, answers, name, locked_until_ms })
        }
        Err(error) => {
            end(session).await;
            Err(error)
        }
    }
}

/// Which session was given, and until when.
fn granted(receiver: &Receiver) -> Result<(String, u64), LinkError> {
    let strange = |what: &str| LinkError::Other(Cause::local(format!("a session was given without {what}")));
    let filter = receiver.source().as_ref().and_then(|source| source.filter.as_ref());
    let name = match filter.and_then(|filter| filter.get(&Symbol::from(SESSION_FILTER))) {
        Some(Value::String(name)) => name.clone(),
        Some(Value::Described(described)) => match &described.value {
            Value::String(name) => name.clone(),
            _ => return Err(strange("an id")),
        },
        _ => return Err(strange("an id")),
    };
    let property = |properties: &Option<Fields>| {
        properties.as_ref().and_then(|properties| properties.get(&Symbol::from(LOCKED_UNTIL)).cloned())
    };
    let locked_until_ms = match receiver.properties(property) {
        Some(Value::Timestamp(time)) => unix_ms(time.milliseconds()),
        Some(ticks) => integer(&ticks).map(ticks_to_unix_ms).ok_or_else(|| strange("the end of its lock"))?,
        None => return Err(strange("the end of its lock")),
    };
    Ok((name, locked_until_ms))
}

fn ticks_to_unix_ms(ticks: i64) -> u64 {
    unix_ms(ticks.saturating_sub(TICKS_TO_1970) / TICKS_PER_MS)
}

// === impl SessionLink ===

impl fmt::Debug for SessionLink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SessionLink")
            .field("name", &self.name)
            .field("locked_until_ms", &self.locked_until_ms)
            .field("held", &self.held.as_ref().map(|(lock, _)| lock))
            .field("ended", &self.ended)
            .finish_non_exhaustive()
    }
}

impl SessionLink {
    /// The session's id.
    #[must_use]
    pub(crate) fn session(&self) -> &str {
        &self.name
    }

    /// When the lock ends unless it is renewed, in Unix milliseconds of the service's clock.
    #[must_use]
    pub(crate) const fn locked_until_ms(&self) -> u64 {
        self.locked_until_ms
    }

    /// The next message of the session. While one is held that is not settled, no other comes, and this is how to learn
    /// that the lock is lost: it waits for the end of the link.
    ///
    /// # Errors
    ///
    /// Why the link ended; the same from then on.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: no message is lost.
    pub(crate) async fn receive(&mut self) -> Result<Received, LinkError> {
        if let Some(received) = self.arrived.take() {
            return Ok(received);
        }
        if self.ended.is_none() && !self.credit && self.held.is_none() {
            if let Err(error) = self.receiver.set_credit(1).await {
                return Err(self.ended(error.into()));
            }
            self.credit = true;
        }
        self.next().await
    }

    /// Waits until the link is no more and says why, without asking for a message. One that was asked for and comes
    /// meanwhile is kept for [`Self::receive`].
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: no message is lost.
    pub(crate) async fn lost(&mut self) -> LinkError {
        loop {
            match self.next().await {
                Ok(received) => self.arrived = Some(received),
                Err(error) => return error,
            }
        }
    }

    async fn next(&mut self) -> Result<Received, LinkError> {
        if let Some(error) = &self.ended {
            return Err(error.clone());
        }
        match self.receiver.recv::<Body<Value>>().await {
            Ok(delivery) => {
                let (info, message) = delivery.into_parts();
                Ok(received(self.hold(info), message))
            }
            Err(RecvError::MessageDecode(error)) => {
                let received = undecodable(&error.info);
                self.hold(error.info);
                Ok(received)
            }
            Err(error) => Err(self.ended(error.into())),
        }
    }

    /// Settles the message that is held, and returns when the service has done it. No other message comes before that:
    /// one that came while nobody knows what became of the one before could come with it again, after a cut.
    ///
    /// # Errors
    ///
    /// [`LinkError::LockLost`] if this message is not held under this lock, or the service says so; otherwise why the link
    /// ended, or that the service did not answer. The message comes again then, unless it was settled all the same.
    ///
    /// # Cancel safety
    ///
    /// Whether the message is settled is not known then.
    pub(crate) async fn settle(
        &mut self,
        lock: LockToken,
        disposition: &Disposition,
    ) -> Result<(), LinkError> {
        if let Some(error) = &self.ended {
            return Err(error.clone());
        }
        let Some((_, info)) = self.held.take_if(|(held, _)| *held == lock) else {
            return Err(LinkError::LockLost(Cause::local("the message is not held under this lock")));
        };
        let answer = self.answers.expect(info.delivery_id());
        let sent = match disposition {
            Disposition::Complete => self.receiver.dispose(info, Accepted {}).await,
            Disposition::Abandon => self.receiver.modify(info, failed()).await,
            Disposition::DeadLetter { reason, description } => {
                self.receiver.reject(info, dead_letter(reason, description)).await
            }
        };
        sent.map_err(|error| self.ended(error.into()))?;
        let answered = async {
            tokio::select! {
                biased;
                Ok(answered) = answer => answered,
                error = self.lost() => Err(error),
            }
        };
        match timeout(SETTLE_TIMEOUT, answered).await {
            Ok(answered) => answered,
            Err(_) => Err(self.ended(LinkError::lost("the service did not answer a settlement"))),
        }
    }

    /// Renews the lock of the session and returns until when it holds, in Unix milliseconds of the service's clock.
    ///
    /// # Errors
    ///
    /// [`LinkError::LockLost`] if there is none any more; otherwise why the service could not be asked.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: the lock may be renewed all the same.
    pub(crate) async fn renew(&mut self) -> Result<u64, LinkError> {
        let link = self.receiver.name();
        let until_ms = management::renew_session_lock(&self.entity.management, &self.name, link).await?;
        self.locked_until_ms = until_ms;
        Ok(until_ms)
    }

    /// What is kept with the session, if anything is.
    ///
    /// # Errors
    ///
    /// As [`Self::renew`].
    ///
    /// # Cancel safety
    ///
    /// Cancel safe.
    pub(crate) async fn state(&mut self) -> Result<Option<Vec<u8>>, LinkError> {
        management::session_state(&self.entity.management, &self.name, self.receiver.name()).await
    }

    /// Keeps something with the session, at most 256 KiB (Standard), or nothing any more.
    ///
    /// # Errors
    ///
    /// As [`Self::renew`].
    ///
    /// # Cancel safety
    ///
    /// Whether it is kept is not known then.
    pub(crate) async fn set_state(&mut self, state: Option<&[u8]>) -> Result<(), LinkError> {
        management::set_session_state(&self.entity.management, &self.name, self.receiver.name(), state).await
    }

    /// Gives the session back and returns when it is free, or when the service does not answer in time.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: the session is given back all the same.
    pub(crate) async fn close(self) {
        let Self { receiver, session, _permit, ended, .. } = self;
        if ended.is_none() {
            // The service may have ended it meanwhile.
            drop(timeout(CLOSE_TIMEOUT, receiver.close()).await);
        }
        end(session).await;
    }

    fn hold(&mut self, info: DeliveryInfo) -> LockToken {
        let lock = lock(info.delivery_tag());
        self.credit = false;
        self.held = Some((lock, info));
        lock
    }

    fn ended(&mut self, error: LinkError) -> LinkError {
        if error.is_unauthorized() {
            self.entity.unauthorized();
        }
        self.ended = Some(error.clone());
        error
    }
}

fn failed() -> Modified {
    Modified { delivery_failed: Some(true), undeliverable_here: None, message_annotations: None }
}

fn dead_letter(reason: &str, description: &str) -> definitions::Error {
    let text = |text: &str| Value::String(text.to_owned());
    let info = [("DeadLetterReason", text(reason)), ("DeadLetterErrorDescription", text(description))];
    let info: Fields =
        info.into_iter().map(|(name, value)| (Symbol::from(name), value)).collect::<OrderedMap<_, _>>();
    definitions::Error::new(ErrorCondition::Custom(Symbol::from(DEAD_LETTER)), None, Some(info))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_of_dotnet_are_milliseconds_since_1970() {
        assert_eq!(ticks_to_unix_ms(TICKS_TO_1970), 0);
        // 2026-11-21T12:00:00Z, by .NET's DateTime.Ticks.
        assert_eq!(ticks_to_unix_ms(639_303_408_000_000_000), 1_794_744_000_000);
        assert_eq!(ticks_to_unix_ms(0), 0);
    }
}

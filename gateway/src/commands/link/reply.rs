//! The reply to whoever sent a command, before its message is settled.

use tokio::time::sleep_until;

use super::cloud::{Cloud, Session as _};
use super::fleet::Fleet;
use super::session::Serving;
use crate::commands::amqp::LinkError;
use crate::commands::contract::Reply;

/// Sends a reply, or gives it up in time; the lock is renewed meanwhile.
pub(super) async fn send<C: Cloud, F: Fleet>(
    link: &mut Serving<'_, C, F>,
    reply: &Reply,
) -> Result<(), LinkError> {
    let sending = link.shared.replies.send(reply);
    tokio::pin!(sending);
    loop {
        let due = link.renewal_due();
        tokio::select! {
            biased;
            () = &mut sending => return Ok(()),
            error = link.session.lost() => return Err(error),
            () = sleep_until(due.into()) => {}
        }
        link.renew().await?;
    }
}

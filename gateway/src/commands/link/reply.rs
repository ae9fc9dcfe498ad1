//! The reply to whoever sent a command, before its message is settled.

use tokio::time::sleep_until;

use super::cloud::{Cloud, Session as _};
use super::control::Order;
use super::fleet::Fleet;
use super::session::Serving;
use crate::commands::amqp::LinkError;
use crate::commands::contract::Reply;

/// Sends a reply, or gives it up in time; the lock is renewed meanwhile. `false`: the gateway stops before that is
/// decided, and the message is to be left, so that it comes again.
pub(super) async fn send<C: Cloud, F: Fleet>(
    link: &mut Serving<'_, C, F>,
    reply: &Reply,
) -> Result<bool, LinkError> {
    let sending = link.shared.replies.send(reply);
    tokio::pin!(sending);
    let mut closing = false;
    loop {
        let due = link.renewal_due();
        tokio::select! {
            biased;
            () = &mut sending => return Ok(true),
            order = link.place.control.closed(), if !closing => {
                if order == Order::Stop {
                    return Ok(false);
                }
                // The device is gone: its command is done all the same.
                closing = true;
                continue;
            }
            error = link.session.lost() => return Err(error),
            () = sleep_until(due.into()) => {}
        }
        link.renew().await?;
    }
}

//! The task of one entity: it has the link, and sends what it is given.

use std::convert::Infallible;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use super::post::{Post, PostLink};
use crate::commands::amqp::LinkError;
use crate::commands::message::Outgoing;

/// A message to send, and whoever waits for it.
#[derive(Debug)]
pub(super) struct Job<T> {
    message: Outgoing,
    begun: oneshot::Sender<Result<T, LinkError>>,
}

/// What a job comes to: whoever gave it waits for the entity by itself, so that others can be sent meanwhile.
pub(super) type Begun<T> = oneshot::Receiver<Result<T, LinkError>>;

/// A link without anything to send is closed then. Service Bus ends it after ten minutes.
const IDLE: Duration = Duration::from_secs(300);
/// Longest wait for handing over one message: an entity that has no room for it so long is asked anew.
const SEND_TIMEOUT: Duration = Duration::from_secs(30);

impl<T> Job<T> {
    pub(super) fn new(message: Outgoing) -> (Self, Begun<T>) {
        let (begun, waits) = oneshot::channel();
        (Self { message, begun }, waits)
    }
}

/// Sends jobs until there is none for a while, or no more can come.
pub(super) async fn run<P: Post>(
    post: P,
    entity: Box<str>,
    mut jobs: mpsc::Receiver<Job<<P::Link as PostLink>::Taking>>,
) -> Result<(), Infallible> {
    let mut link = None;
    while let Ok(Some(Job { message, mut begun })) = timeout(IDLE, jobs.recv()).await {
        if begun.is_closed() {
            // Given up before its turn.
            continue;
        }
        let sent = tokio::select! {
            sent = send(&post, &entity, &mut link, message) => Some(sent),
            () = begun.closed() => None,
        };
        match sent {
            Some(sent) => drop(begun.send(sent)),
            // It was handed over in part, perhaps: the link is good for nothing any more.
            None => link = None,
        }
    }
    if let Some(link) = link {
        link.close().await;
    }
    Ok(())
}

/// Sends a message by the link that is there, or by a new one if there is none or it has been ended.
async fn send<P: Post>(
    post: &P,
    entity: &str,
    link: &mut Option<P::Link>,
    message: Outgoing,
) -> Result<<P::Link as PostLink>::Taking, LinkError> {
    if let Some(mut old) = link.take()
        && let Ok(Ok(taking)) = timeout(SEND_TIMEOUT, old.send(message.clone())).await
    {
        *link = Some(old);
        return Ok(taking);
    }
    let mut new = post.open(entity).await?;
    let taking = new.send(message).await?;
    *link = Some(new);
    Ok(taking)
}

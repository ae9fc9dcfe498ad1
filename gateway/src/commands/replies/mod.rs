//! Replies: one message to the entity that a command names in `reply_to`, when the command has come to its end.
//!
//! ```text
//! link ──Reply──► rules ──► outlet (one task and one link per entity) ──► queue or topic of the same namespace
//!                 │ not allowed        │ at most so long, three tries
//!                 └──────► counted ◄───┘
//! ```
//!
//! **At least once, but never at the price of commands.** A link asks for the reply when the end of its command is durable,
//! and settles the message after it, so that a crash in between sends the reply again, under the same message id. A reply that
//! cannot be sent in time is given up, counted by reason and logged; the message is settled all the same. Where `reply_to` may
//! lead, the configuration says: whoever may send commands has no say in that.
//!
//! | What is bounded | By | At the bound |
//! |---|---|---|
//! | the wait of one link | `timeout` | the reply is given up |
//! | tries | 3 | the same |
//! | entities with a link | 64 | the one that was not used for the longest time makes room |
//! | replies on their way to one outlet | 64, and one per link | the next waits, within its time |
//! | an entity that fails | no try for 1 to 30 s | replies to it are given up at once, so that devices do not wait for it again and again |
//! | an idle link | 5 min; Service Bus ends it after 10 | it is closed, and opened for the next reply |

mod failure;
mod outlet;
mod outlets;
mod post;
mod rules;
#[cfg(test)]
mod tests;

use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::time::timeout_at;

pub(crate) use failure::Failure;
use failure::{Failed, Next, Tried};
use outlets::Outlets;
pub(crate) use post::Post;
#[cfg(test)]
pub(crate) use post::PostLink;
use rules::Rules;
pub(crate) use rules::{Pattern, is_name};
#[cfg(test)]
pub(crate) use tests::reply as reply_for_tests;

use super::config::Config;
use super::contract::{Reply, Voice};
use super::message::Outgoing;
use super::metrics::Metrics;
use crate::supervise::{Supervisor, clock};

/// The section of the configuration, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Settings {
    /// Where replies may go.
    pub(crate) to: Vec<Pattern>,
    /// Longest time for one reply.
    pub(crate) timeout: Duration,
    /// How long a reply may wait for its reader.
    pub(crate) time_to_live: Duration,
}

/// Sends replies for all links.
pub(crate) struct Replies<P: Post> {
    post: P,
    voice: Voice,
    /// `None`: replies are off.
    allowed: Option<(Rules, Settings)>,
    supervisor: Supervisor,
    outlets: Mutex<Outlets<P>>,
}

impl<P: Post> Replies<P> {
    pub(crate) fn new(config: &Config, voice: Voice, post: P, supervisor: &Supervisor) -> Self {
        let allowed = config.replies.clone().map(|settings| {
            let own = config.entities.names().iter().map(|name| (**name).to_owned()).collect();
            (Rules::new(config.connection.host(), settings.to.clone(), own), settings)
        });
        let outlets = Mutex::new(Outlets::default());
        Self { post, voice, allowed, supervisor: supervisor.clone(), outlets }
    }

    /// Sends a reply, or gives it up in time: then that is counted and logged.
    ///
    /// # Cancel safety
    ///
    /// Whether it is sent is not known then, and nothing is counted.
    pub(crate) async fn send(&self, reply: &Reply) {
        let started = clock::now();
        let sent = match &self.allowed {
            None => Err(Failed { failure: Failure::Off, text: String::new() }),
            Some((rules, settings)) => match rules.entity(reply.to(), reply.session()) {
                Ok(entity) => {
                    let message = reply.message(&self.voice, settings.time_to_live);
                    self.deliver(&entity, &message, started + settings.timeout).await
                }
                Err(failure) => Err(Failed { failure, text: failure.sentence().to_owned() }),
            },
        };
        match sent {
            Ok(()) => Metrics::replied(clock::now().saturating_duration_since(started)),
            Err(failed) => self.failed(reply, &failed),
        }
    }

    /// Takes no more replies, and ends the links that send them.
    pub(crate) fn close(&self) {
        self.outlets.lock().close();
    }

    async fn deliver(&self, entity: &str, message: &Outgoing, deadline: Instant) -> Result<(), Failed> {
        for tries in 1.. {
            if let Some(failed) = self.outlets.lock().paused(entity, clock::now()) {
                return Err(failed);
            }
            let trying = self.attempt(entity, message.clone());
            let tried = match timeout_at(deadline.into(), trying).await {
                Ok(Ok(())) => return Ok(()),
                Ok(Err(tried)) => tried,
                Err(_) => Tried::TooLong,
            };
            let now = clock::now();
            let failed = tried.failed();
            match tried.next(tries) {
                Next::Again { after } if now + after < deadline => tokio::time::sleep(after).await,
                Next::Again { after } => {
                    self.outlets.lock().pause(entity, now + after, failed.clone());
                    return Err(failed);
                }
                Next::GiveUp { pause } => {
                    if let Some(pause) = pause {
                        self.outlets.lock().pause(entity, now + pause, failed.clone());
                    }
                    return Err(failed);
                }
            }
        }
        Ok(())
    }

    async fn attempt(&self, entity: &str, message: Outgoing) -> Result<(), Tried> {
        let (job, begun) = outlet::Job::new(message);
        let jobs = self.outlets.lock().jobs(entity, &self.post, &self.supervisor).ok_or(Tried::Gone)?;
        jobs.send(job).await.map_err(|_| Tried::Gone)?;
        let taking = begun.await.map_err(|_| Tried::Gone)?.map_err(Tried::Link)?;
        taking.await.map_err(Tried::Message)
    }

    fn failed(&self, reply: &Reply, failed: &Failed) {
        let Failed { failure, text } = failed;
        Metrics::not_replied(*failure);
        if *failure != Failure::Off && self.outlets.lock().is_news(reply.to(), *failure, clock::now()) {
            // Of another's text at most 512 bytes, with what is not printable escaped.
            let (entity, reason, command_id) = (reply.to(), failure.name(), reply.command());
            tracing::warn!(entity = ?entity, reason, command_id, error = text, "commands: a reply was given up");
        }
    }
}

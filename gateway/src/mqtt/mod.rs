//! Stage 1, devices in: MQTT 3.1.1 and 5 over TCP, TLS and WebSocket.
//!
//! **Enters:** connections of devices and of local applications. **Leaves:** one outbox entry per
//! publish that matches a topic template, and every publish to whoever subscribes to it here.
//! **Promise:** PUBACK (QoS 1) and PUBREC (QoS 2) are written only after everything they stand for is
//! durable, in the order of the publishes ([MQTT-4.6.0-2]): the entry, the retained message, the places
//! in the queues of lasting sessions. A commit that fails closes the connections that waited for it, and
//! acknowledges nothing.
//!
//! One task serves one connection. Per wake-up it reads once, decodes in place from a buffer of its
//! thread, submits everything as one batch and writes everything with one call; between socket and
//! acknowledgement no message costs a task, a channel or an allocation. An idle connection owns no
//! buffer.
//!
//! A session that outlives its connection is kept in the outbox's database: subscriptions, packet ids of
//! QoS 2, queued messages and how far their exchanges are. QoS 2 is once only into the outbox, across
//! reconnects, take-overs and restarts. `docs/formats/mqtt-state-v1.md` has the keys.
//!
//! A topic of a template belongs to its device, and nobody else publishes there. Commands and their answers
//! have topics of their own (`devices`). Every other topic is local: it reaches subscribers if the access
//! rules allow it, and never the cloud.
//!
//! | What is bounded | By | At the bound |
//! |---|---|---|
//! | connections | `connections_max` | CONNACK 0x9F / 3; far above it the socket is closed unheard |
//! | packet | `packet_bytes_max` | 0x95 from the header, closed |
//! | CONNECT | 72 KiB, `connect_timeout` | 0x95; closed |
//! | WebSocket: request, message | 16 KiB, the larger of `packet_bytes_max` and 72 KiB | 431; closed with 1009 |
//! | publishes in flight | `inflight_max` | 5: 0x93, closed; 3.1.1: not read |
//! | bytes not durable | `inflight_bytes_max` | not read |
//! | bytes per second | `bytes_per_second_max` | not read for a moment |
//! | on its way to the disk | the outbox | not read |
//! | not confirmed by the cloud | the outbox's quota, its disk | read up to the first publish without room; `on_full = "refuse"`: 5: 0x97, QoS 0 dropped, counted |
//! | what a client does not take | one write | not read; closed after 30 s |
//! | deliveries waiting | `outgoing_bytes_max` | QoS 0 dropped, counted; QoS 1 and 2 queued |
//! | deliveries on their way | `outgoing_inflight_max`, the client's Receive Maximum | queued |
//! | a session's queue, all queues | `queue_messages_max`, `queue_bytes_max`, `queues_bytes_max` | the new message is dropped, counted |
//! | lasting sessions | `sessions_max` | CONNACK 0x97 / 3 |
//! | how long they last | `session_expiry_max` | cut, and told |
//! | retained messages | `retained_max`, `retained_bytes_max` | not kept, counted; local topics, 5: 0x97 |
//! | topic aliases, each way | `topic_aliases_max` | 0x94 / not used |
//! | subscriptions, filter levels | `subscriptions_max`, `topic_levels_max` | 0x97, 0x8F / 0x80 |
//! | take-overs of one client id in a row | 3 | the next ones wait 1, 2, 4, 8 s |
//! | commands of one session | 16 | not taken |
//! | the gateway's own publishes that are not durable yet | 1,024, 4 MiB | refused, counted |
//! | deliveries of one pass | 4096 | others have their turn |
//! | TLS handshakes, passwords verified at once | 16 per core, 2 | wait; closed at a deadline |
//!
//! Flow: `listener` accepts, `open` leads up to CONNACK (`access`, `registry`, `lifecycle`), `connection`
//! runs the socket, `protocol` turns packets (`codec`) into entries, changes of state and replies,
//! `pace` says how fast, `intake` which find room, `acks` keeps their order. `routing` takes a publish to `retained` and
//! through `router` to each `session`, whose `outgoing` queue feeds its connection; `promise` holds back
//! what is not durable. `keeper` ends sessions and publishes `will`s, `restore` takes up what the store
//! has (`durable`), `sys` is `$SYS`, `publisher` what other stages publish. `devices` knows which devices take commands, hands them over and takes
//! the answers. `websocket` makes a `stream` of messages; `reload` changes users,
//! rules and certificates while devices are connected; `turns` keeps storms of connections from standing
//! in front of established devices. `template` knows topics, `keep_alive` deadlines, `end` the reasons
//! for an end.

mod access;
mod acks;
mod codec;
mod config;
mod connection;
mod devices;
mod durable;
mod end;
mod error;
#[cfg(any(test, fuzzing))]
mod fuzzing;
mod intake;
mod keep_alive;
mod keeper;
mod lifecycle;
mod link;
mod listener;
mod message;
mod metrics;
mod open;
mod outgoing;
mod pace;
mod promise;
mod protocol;
mod publisher;
mod registry;
mod reload;
mod restore;
mod retained;
mod router;
mod routing;
mod session;
mod shared;
mod stream;
mod sys;
mod template;
#[cfg(test)]
mod tests;
mod turns;
mod websocket;
mod will;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

pub use access::{AccessError, Action, Effect, Pattern, PatternError, Rule, hash_password};
pub(crate) use codec::Qos;
pub use config::{Access, Config, Limits, Listener, OnFull, Topic};
pub use devices::{
    Answer, Answers, CommandMessage, CommandTopic, CommandTopicError, Delivery, Devices, Durable, Fate,
    NotDelivered, Taken,
};
pub use error::Error;
#[cfg(any(test, fuzzing))]
pub(crate) use fuzzing::DECODERS;
#[cfg(test)]
pub(crate) use fuzzing::fuzzing_seeds;
pub(crate) use metrics::METRICS;
pub use publisher::Publisher;
pub(crate) use publisher::{Outgoing, PublishError, Published};

use crate::outbox::Appender;
use crate::supervise::{Phase, Supervisor, TaskKind};
use crate::tls::Certificate;
use link::Signal;
use shared::Shared;

/// Length of a tick of the keep-alive clock.
const TICK: Duration = Duration::from_secs(1);

/// The stage, bound to its addresses.
#[derive(Debug)]
pub struct Service {
    shared: Arc<Shared>,
    listeners: Vec<listener::Listener>,
    supervisor: Supervisor,
}

/// A cheap handle to look at the stage.
#[derive(Debug, Clone)]
pub struct Handle {
    shared: Arc<Shared>,
    addresses: Arc<[Address]>,
    /// Those of the listeners with TLS.
    certificates: Arc<[Arc<Certificate>]>,
}

/// An address that devices connect to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Address {
    /// Where it listens; never port 0.
    pub address: SocketAddr,
    /// Whether devices speak TLS there.
    pub tls: bool,
    /// Whether devices speak MQTT over WebSocket there.
    pub websocket: bool,
}

/// What the stage is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Status {
    /// Open connections, those before CONNECT included.
    pub connections: usize,
    /// Clients that are connected.
    pub clients: usize,
}

// === impl Service ===

impl Service {
    /// Binds all listeners; devices can connect and wait from here on.
    ///
    /// # Errors
    ///
    /// When an address, a certificate, the users file or a topic template cannot be used.
    pub fn bind(
        config: &Config,
        appender: Appender,
        supervisor: &Supervisor,
    ) -> Result<(Self, Handle), Error> {
        Self::bind_with_tick(config, appender, supervisor, TICK)
    }

    fn bind_with_tick(
        config: &Config,
        appender: Appender,
        supervisor: &Supervisor,
        tick: Duration,
    ) -> Result<(Self, Handle), Error> {
        let shared = Arc::new(Shared::new(config, appender, tick)?);
        restore::restore(&shared)?;
        let listeners: Vec<_> =
            config.listeners.iter().map(listener::Listener::bind).collect::<Result<_, _>>()?;
        let address = |one: &listener::Listener| Address {
            address: one.address(),
            tls: one.is_tls(),
            websocket: one.is_websocket(),
        };
        let addresses = listeners.iter().map(address).collect();
        let certificates = listeners.iter().filter_map(listener::Listener::certificate).cloned().collect();
        let handle = Handle { shared: Arc::clone(&shared), addresses, certificates };
        Ok((Self { shared, listeners, supervisor: supervisor.clone() }, handle))
    }

    /// Serves devices until the gateway stops: no new connection from [`Phase::StopAccepting`] on; in
    /// [`Phase::FinishPublishes`] connections stop reading, acknowledge what becomes durable within
    /// five seconds and close. Returns when none is left.
    ///
    /// # Errors
    ///
    /// None of its own; a listener that fails stops the gateway through the supervisor.
    ///
    /// # Cancel safety
    ///
    /// Not cancel safe: connections would not be told to finish.
    pub async fn run(self) -> Result<(), Error> {
        let Self { shared, listeners, supervisor } = self;
        let shutdown = supervisor.shutdown();
        for listener in listeners {
            supervisor.spawn(TaskKind::Listener, listener.run(Arc::clone(&shared), supervisor.clone()));
        }
        let (ticking, ends) = (Arc::clone(&shared), shutdown.clone());
        supervisor.spawn(TaskKind::KeepAlive, async move {
            tokio::select! {
                () = ticking.clock.run() => {}
                () = ends.reached(Phase::DrainUplink) => {}
            }
            Ok::<(), Error>(())
        });
        let (keeping, tick, ends) = (Arc::clone(&shared), shared.clock.length(), shutdown.clone());
        supervisor.spawn(TaskKind::Sessions, async move {
            keeper::run(keeping, tick, ends).await;
            Ok::<(), Error>(())
        });
        shutdown.reached(Phase::FinishPublishes).await;
        shared.stop();
        shared.registry.raise_all(Signal::Stop);
        supervisor.idle(TaskKind::Connection).await;
        Ok(())
    }
}

// === impl Handle ===

impl Handle {
    /// The addresses, in the order of the configuration.
    #[must_use]
    pub fn addresses(&self) -> &[Address] {
        &self.addresses
    }

    /// The devices as commands see them.
    #[must_use]
    pub fn devices(&self) -> Devices {
        Devices::new(Arc::clone(&self.shared))
    }

    /// Publishes for the gateway itself.
    pub(crate) fn publisher(&self) -> Publisher {
        Publisher::new(Arc::clone(&self.shared))
    }

    /// What the stage is doing now.
    #[must_use]
    pub fn status(&self) -> Status {
        Status { connections: self.shared.open(), clients: self.shared.registry.connected() }
    }
}

//! The broker and its listeners, from settings to running tasks.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use super::broker::{Broker, Clock};
use super::cbs::SharedKey;
use super::config::ServiceBus;
use super::listener::{Listener, Transport, Wire};
use crate::error::Error;
use crate::tokens::Tokens;

/// Connections of all AMQP listeners together: the service's quota for a namespace.
const CONNECTIONS_MAX: usize = 5_000;

/// Where a running Service Bus side is found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Addresses {
    /// AMQP without TLS.
    pub amqp: SocketAddr,
    /// AMQP with TLS.
    pub amqp_tls: Option<SocketAddr>,
    /// AMQP in WebSocket messages, with TLS.
    pub websocket: Option<SocketAddr>,
    /// What clients of the listener without TLS connect with.
    pub connection_string: String,
}

/// Bound listeners and their broker.
pub(crate) struct Service {
    broker: Broker,
    addresses: Addresses,
    listeners: Vec<Listener>,
}

impl Service {
    /// Makes the entities and binds the listeners. `acceptor` is there when one of them has TLS.
    pub(crate) async fn bind(
        settings: &ServiceBus,
        acceptor: Option<&TlsAcceptor>,
        tokens: Option<Arc<Tokens>>,
        idle: Duration,
    ) -> Result<Self, Error> {
        let broker = Broker::new(&settings.entities, Clock::system())?;
        let key = SharedKey { name: settings.key_name.clone(), key: settings.key.clone() };
        let wire = Arc::new(Wire::new(broker.clone(), key, tokens, idle));
        let permits = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        let bind = async |address, tls: Option<&TlsAcceptor>, websocket| {
            let transport = Transport { tls: tls.cloned(), websocket };
            Listener::bind(address, transport, Arc::clone(&wire), Arc::clone(&permits)).await
        };
        let mut listeners = vec![bind(settings.listener, None, false).await?];
        let amqp = listeners.iter().map(Listener::address).next().unwrap_or(settings.listener);
        let (mut amqp_tls, mut websocket) = (None, None);
        if let Some(address) = settings.tls {
            let listener = bind(address, acceptor, false).await?;
            amqp_tls = Some(listener.address());
            listeners.push(listener);
        }
        if let Some(address) = settings.websocket {
            let listener = bind(address, acceptor, true).await?;
            websocket = Some(listener.address());
            listeners.push(listener);
        }
        let connection_string = settings.connection_string(amqp);
        let addresses = Addresses { amqp, amqp_tls, websocket, connection_string };
        Ok(Self { broker, addresses, listeners })
    }

    pub(crate) fn broker(&self) -> Broker {
        self.broker.clone()
    }

    pub(crate) fn addresses(&self) -> Addresses {
        self.addresses.clone()
    }

    /// Starts the listeners and the broker's timers, until `stop` changes or its sender is gone.
    pub(crate) fn spawn(self, tasks: &mut JoinSet<()>, stop: &watch::Sender<bool>) {
        tasks.spawn(self.broker.run_timers(stop.subscribe()));
        for listener in self.listeners {
            tasks.spawn(listener.run(stop.subscribe()));
        }
    }
}

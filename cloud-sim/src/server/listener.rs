//! Accepts connections and gives each a task.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;

use super::connection::{Connection, End, Session};
use crate::broker::Broker;
use crate::error::Error;
use crate::tokens::Tokens;

/// Time for a TLS handshake.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// Pause when the operating system refuses to accept, so that the loop does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How a listener's connections are protected.
#[derive(Clone)]
pub(crate) struct Security {
    pub(crate) tls: Option<TlsAcceptor>,
    /// The connection string clients must show; `None` lets everyone in.
    pub(crate) key: Option<Arc<str>>,
    /// Who judges the tokens that clients may show instead.
    pub(crate) tokens: Option<Arc<Tokens>>,
}

/// A bound listener.
pub(crate) struct Listener {
    socket: TcpListener,
    address: SocketAddr,
    security: Security,
    broker: Arc<Broker>,
    permits: Arc<Semaphore>,
    /// The host clients are told to connect to; by default the address they reached.
    advertised_host: Option<Arc<str>>,
    idle: Duration,
}

impl Listener {
    /// Binds `address`. `permits` bounds the connections of all listeners together.
    pub(crate) async fn bind(
        address: SocketAddr,
        security: Security,
        broker: Arc<Broker>,
        permits: Arc<Semaphore>,
    ) -> Result<Self, Error> {
        let failed = |source| Error::Bind { address, source };
        let socket = TcpListener::bind(address).await.map_err(failed)?;
        let address = socket.local_addr().map_err(failed)?;
        Ok(Self { socket, address, security, broker, permits, advertised_host: None, idle: Duration::MAX })
    }

    /// Tells clients to connect to `host` instead of the address they reached.
    pub(crate) fn advertise(mut self, host: Option<&str>) -> Self {
        self.advertised_host = host.map(Arc::from);
        self
    }

    /// Closes connections after this long without a request.
    pub(crate) fn close_idle_after(mut self, idle: Duration) -> Self {
        self.idle = idle;
        self
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Accepts until `stop` changes or its sender is gone, then drops what is open.
    pub(crate) async fn run(self, mut stop: watch::Receiver<bool>) {
        let mut connections = JoinSet::new();
        loop {
            tokio::select! {
                accepted = self.socket.accept() => match accepted {
                    Ok((stream, peer)) => self.admit(&mut connections, stream, peer),
                    Err(error) => {
                        tracing::warn!(%error, "connection not accepted");
                        sleep(ACCEPT_PAUSE).await;
                    }
                },
                Some(ended) = connections.join_next() => {
                    if let Err(error) = ended {
                        tracing::error!(%error, "connection task failed");
                    }
                }
                _changed = stop.changed() => break,
            }
        }
        connections.shutdown().await;
    }

    fn admit(&self, connections: &mut JoinSet<()>, stream: TcpStream, peer: SocketAddr) {
        let permit = Arc::clone(&self.permits).try_acquire_owned();
        let (true, Ok(permit)) = (self.broker.faults.accepting(), permit) else {
            self.broker.counters.connections_refused.add(1);
            return;
        };
        let reached = stream.local_addr().unwrap_or(self.address);
        let host =
            self.advertised_host.as_ref().map_or_else(|| reached.ip().to_string(), |host| host.to_string());
        let session = Session {
            broker: Arc::clone(&self.broker),
            host,
            port: reached.port(),
            key: self.security.key.clone(),
            tokens: self.security.tokens.clone(),
            idle: self.idle,
        };
        let tls = self.security.tls.clone();
        self.broker.counters.connections_opened.add(1);
        let open = Open(Arc::clone(&self.broker));
        connections.spawn(async move {
            let end = serve(stream, tls, session).await;
            tracing::debug!(%peer, ?end, "connection ended");
            drop((open, permit));
        });
    }
}

/// Counts the connection as closed, however its task ends.
struct Open(Arc<Broker>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.counters.connections_closed.add(1);
    }
}

/// Serves a connection to its end, or to the next cut.
async fn serve(stream: TcpStream, tls: Option<TlsAcceptor>, session: Session) -> End {
    let broker = Arc::clone(&session.broker);
    let mut cuts = broker.faults.cuts();
    let served = async {
        if let Err(error) = stream.set_nodelay(true) {
            return End::Io(error);
        }
        let Some(tls) = tls else { return Connection::new(stream, session).run().await };
        match timeout(HANDSHAKE, tls.accept(stream)).await {
            Ok(Ok(stream)) => Connection::new(stream, session).run().await,
            Ok(Err(error)) => End::Io(error),
            Err(_elapsed) => End::Idle,
        }
    };
    tokio::select! {
        end = served => end,
        _cut = cuts.changed() => {
            broker.counters.connections_cut.add(1);
            End::Cut
        }
    }
}

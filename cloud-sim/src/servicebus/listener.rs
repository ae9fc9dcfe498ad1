//! Accepts AMQP connections, with TLS or without, and gives each a task.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;

use super::broker::Broker;
use super::cbs::SharedKey;
use super::connection::{self, End};
use super::websocket;
use crate::error::Error;
use crate::tokens::Tokens;

/// Time for a TLS handshake.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// Pause when the operating system refuses to accept, so that the loop does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What all connections share.
#[derive(Debug)]
pub(crate) struct Wire {
    pub(super) broker: Broker,
    /// The key that may do everything.
    pub(super) key: Arc<SharedKey>,
    /// Who judges tokens of the kind `jwt`; `None` takes none.
    pub(super) tokens: Option<Arc<Tokens>>,
    /// Silence of a client after which its connection is closed; the idle-time-out of our open.
    pub(super) idle: Duration,
    /// The number of the next link.
    pub(super) links: AtomicU64,
}

impl Wire {
    pub(crate) fn new(broker: Broker, key: SharedKey, tokens: Option<Arc<Tokens>>, idle: Duration) -> Self {
        Self { broker, key: Arc::new(key), tokens, idle, links: AtomicU64::new(1) }
    }
}

/// What AMQP comes in.
#[derive(Clone)]
pub(crate) struct Transport {
    pub(crate) tls: Option<TlsAcceptor>,
    /// In WebSocket messages at `/$servicebus/websocket`.
    pub(crate) websocket: bool,
}

/// A bound listener.
pub(crate) struct Listener {
    socket: TcpListener,
    address: SocketAddr,
    transport: Transport,
    wire: Arc<Wire>,
    permits: Arc<Semaphore>,
}

impl Listener {
    /// Binds `address`. `permits` bounds the connections of all listeners together.
    pub(crate) async fn bind(
        address: SocketAddr,
        transport: Transport,
        wire: Arc<Wire>,
        permits: Arc<Semaphore>,
    ) -> Result<Self, Error> {
        let failed = |source| Error::Bind { address, source };
        let socket = TcpListener::bind(address).await.map_err(failed)?;
        let address = socket.local_addr().map_err(failed)?;
        Ok(Self { socket, address, transport, wire, permits })
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
                        tracing::warn!(%error, "AMQP connection not accepted");
                        sleep(ACCEPT_PAUSE).await;
                    }
                },
                Some(ended) = connections.join_next() => {
                    if let Err(error) = ended {
                        tracing::error!(%error, "AMQP connection task failed");
                    }
                }
                _changed = stop.changed() => break,
            }
        }
        connections.shutdown().await;
    }

    fn admit(&self, connections: &mut JoinSet<()>, stream: TcpStream, peer: SocketAddr) {
        let Ok(permit) = Arc::clone(&self.permits).try_acquire_owned() else {
            tracing::warn!(%peer, "too many AMQP connections");
            return;
        };
        let (transport, wire) = (self.transport.clone(), Arc::clone(&self.wire));
        connections.spawn(async move {
            let end = serve(stream, transport, wire).await;
            tracing::debug!(%peer, ?end, "AMQP connection ended");
            drop(permit);
        });
    }
}

async fn serve(stream: TcpStream, transport: Transport, wire: Arc<Wire>) -> End {
    if let Err(error) = stream.set_nodelay(true) {
        return End::Io(error);
    }
    let Some(tls) = transport.tls else { return upgraded(stream, transport.websocket, wire).await };
    match timeout(HANDSHAKE, tls.accept(stream)).await {
        Ok(Ok(stream)) => upgraded(stream, transport.websocket, wire).await,
        Ok(Err(error)) => End::Io(error),
        Err(_elapsed) => End::Idle,
    }
}

async fn upgraded<S>(stream: S, websocket: bool, wire: Arc<Wire>) -> End
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    if !websocket {
        return connection::serve(stream, wire).await;
    }
    match timeout(HANDSHAKE, websocket::accept(stream)).await {
        Ok(Ok(stream)) => connection::serve(stream, wire).await,
        Ok(Err(error)) => End::Io(error),
        Err(_elapsed) => End::Idle,
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio_rustls::TlsConnector;
    use tokio_rustls::rustls::crypto::ring;
    use tokio_rustls::rustls::pki_types::pem::PemObject;
    use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
    use tokio_rustls::rustls::{ClientConfig, RootCertStore};

    use super::*;
    use crate::server::Identity;
    use crate::servicebus::broker::Clock;

    fn wire() -> Arc<Wire> {
        let entities = serde_json::from_str(r#"{"queues":[{"name":"q"}]}"#).unwrap();
        let broker = Broker::new(&entities, Clock::system()).unwrap();
        let key = SharedKey { name: "rule".to_owned(), key: "key".to_owned() };
        Arc::new(Wire::new(broker, key, None, Duration::from_secs(60)))
    }

    fn connector(ca_pem: &str) -> TlsConnector {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(ca_pem.as_bytes()).unwrap()).unwrap();
        let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        TlsConnector::from(Arc::new(config))
    }

    async fn greets(mut stream: impl AsyncRead + AsyncWrite + Unpin) {
        stream.write_all(b"AMQP\x03\x01\0\0").await.unwrap();
        stream.flush().await.unwrap();
        let mut greeting = [0; 8];
        stream.read_exact(&mut greeting).await.unwrap();
        assert_eq!(&greeting, b"AMQP\x03\x01\0\0");
    }

    #[tokio::test]
    async fn amqp_comes_with_tls_and_without_and_no_further_than_the_permits() {
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let identity = Identity::generate(None, any.ip()).unwrap();
        let connector = connector(&identity.ca_pem);
        let permits = Arc::new(Semaphore::new(2));
        let bind = async |tls| {
            let transport = Transport { tls, websocket: false };
            Listener::bind(any, transport, wire(), Arc::clone(&permits)).await.unwrap()
        };
        let (plain, secured) = (bind(None).await, bind(Some(identity.acceptor)).await);
        let addresses = [plain.address(), secured.address()];
        let stop = watch::Sender::new(false);
        let mut tasks = JoinSet::new();
        tasks.spawn(plain.run(stop.subscribe()));
        tasks.spawn(secured.run(stop.subscribe()));

        let mut open = TcpStream::connect(addresses[0]).await.unwrap();
        greets(&mut open).await;
        let socket = TcpStream::connect(addresses[1]).await.unwrap();
        let mut tls = connector.connect(ServerName::try_from("localhost").unwrap(), socket).await.unwrap();
        greets(&mut tls).await;
        // Both permits are out.
        let mut third = TcpStream::connect(addresses[0]).await.unwrap();
        assert_eq!(third.read(&mut [0; 8]).await.unwrap_or(0), 0);

        stop.send_replace(true);
        while tasks.join_next().await.is_some() {}
        let mut rest = Vec::new();
        assert!(open.read_to_end(&mut rest).await.is_ok_and(|_| rest.len() < 1_000), "it is closed");
    }
}

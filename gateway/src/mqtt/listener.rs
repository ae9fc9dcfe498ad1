//! Accepting connections on one address.

use std::io;
use std::net::{SocketAddr, TcpListener as StdListener};
use std::sync::Arc;
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::yield_now;
use tokio::time::sleep;

use super::config;
use super::error::Error;
use super::open::{Offer, open};
use super::shared::{Permit, Shared};
use crate::supervise::{Phase, Supervisor, TaskKind};
use crate::tls::Certificate;

/// Connections that the kernel holds until they are accepted; it may hold fewer (`net.core.somaxconn`). Those beyond try
/// again after a second, so a storm should find room.
const BACKLOG: i32 = 4096;
/// Pause after an accept failed for want of descriptors or memory; others have to be closed first.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// Accepts before everybody else gets a turn: in a storm of connections the tasks of new ones would otherwise queue
/// up by the thousand in front of those of established devices.
const ACCEPTS_PER_TURN: u32 = 8;

/// A bound address.
pub(super) struct Listener {
    socket: StdListener,
    address: SocketAddr,
    terms: Offer,
}

impl std::fmt::Debug for Listener {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Listener").field("address", &self.address).field("tls", &self.is_tls()).finish()
    }
}

impl Listener {
    /// Binds the address, so that it is known and connections queue up from here on.
    pub(super) fn bind(config: &config::Listener) -> Result<Self, Error> {
        let tls = match &config.tls {
            Some((certificate, key)) => Some(Arc::new(Certificate::read(certificate, key)?)),
            None => None,
        };
        let refused = |source| Error::Listen { address: config.address, source };
        let socket = listen(config).map_err(refused)?;
        let address = socket.local_addr().map_err(refused)?;
        Ok(Self {
            socket,
            address,
            terms: Offer {
                tls,
                websocket: config.websocket.as_deref().map(Into::into),
                on_full: config.on_full,
            },
        })
    }

    pub(super) const fn address(&self) -> SocketAddr {
        self.address
    }

    pub(super) const fn is_tls(&self) -> bool {
        self.terms.tls.is_some()
    }

    /// Its certificate, if it speaks TLS.
    pub(super) const fn certificate(&self) -> Option<&Arc<Certificate>> {
        self.terms.tls.as_ref()
    }

    pub(super) const fn is_websocket(&self) -> bool {
        self.terms.websocket.is_some()
    }

    /// Accepts until the gateway stops.
    ///
    /// # Cancel safety
    ///
    /// Cancelling it closes the listening socket; connections go on.
    pub(super) async fn run(self, shared: Arc<Shared>, supervisor: Supervisor) -> io::Result<()> {
        let listener = TcpListener::from_std(self.socket)?;
        let shutdown = supervisor.shutdown();
        let stopped = shutdown.reached(Phase::StopAccepting);
        tokio::pin!(stopped);
        let mut accepts = 0_u32;
        loop {
            let accepted = tokio::select! {
                biased;
                () = &mut stopped => return Ok(()),
                accepted = listener.accept() => accepted,
            };
            match accepted {
                Ok((socket, _)) => {
                    start(&shared, &supervisor, socket, self.terms.clone());
                    accepts = accepts.wrapping_add(1);
                    if accepts.is_multiple_of(ACCEPTS_PER_TURN) {
                        yield_now().await;
                    }
                }
                Err(error) => {
                    shared.metrics.accept_errors.increment(1);
                    if is_of_one_connection(&error) {
                        continue;
                    }
                    tracing::warn!(address = %self.address, %error, "cannot accept connections for now");
                    tokio::select! {
                        () = &mut stopped => return Ok(()),
                        () = sleep(ACCEPT_PAUSE) => {}
                    }
                }
            }
        }
    }
}

/// Starts the task of a connection, unless there are too many even to hear it.
fn start(shared: &Arc<Shared>, supervisor: &Supervisor, socket: TcpStream, terms: Offer) {
    let Some(permit) = shared.admit() else {
        shared.metrics.connect("too_many");
        return;
    };
    // Acknowledgements are small and must not wait for each other. A failure shows in the first read.
    drop(socket.set_nodelay(true));
    let future = serve(Arc::clone(shared), supervisor.clone(), permit, socket, terms);
    supervisor.spawn(TaskKind::Connection, future);
}

/// The life of one connection. Everything large is boxed: what an idle connection keeps is a pointer.
async fn serve(
    shared: Arc<Shared>,
    supervisor: Supervisor,
    permit: Permit,
    socket: TcpStream,
    terms: Offer,
) -> Result<(), io::Error> {
    let place = Arc::clone(&shared);
    let opening = Box::pin(async move {
        let shutdown = supervisor.shutdown();
        let place = Arc::clone(&shared);
        tokio::select! {
            opened = place.turns.take(open(shared, permit, socket, terms)) => opened,
            () = shutdown.reached(Phase::FinishPublishes) => None,
        }
    });
    if let Some(mut connection) = opening.await {
        let end = connection.run().await;
        Box::pin(async move { place.turns.take(connection.finish(end)).await }).await;
    }
    Ok(())
}

fn listen(config: &config::Listener) -> io::Result<StdListener> {
    let socket = Socket::new(Domain::for_address(config.address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    // Accepted sockets inherit the sizes, which have to be known before the handshake of TCP.
    if let Some(bytes) = config.receive_buffer {
        socket.set_recv_buffer_size(bytes)?;
    }
    if let Some(bytes) = config.send_buffer {
        socket.set_send_buffer_size(bytes)?;
    }
    socket.bind(&config.address.into())?;
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

/// Whether an accept failed because of the connection it would have returned.
fn is_of_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
            | io::ErrorKind::Interrupted
    )
}

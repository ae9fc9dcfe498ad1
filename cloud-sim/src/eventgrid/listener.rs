//! Accepts HTTP connections, with TLS or without, and lets each be cut from outside.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use axum::extract::connect_info::Connected;
use axum::serve::IncomingStream;
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::server::Shared;
use crate::error::Error;

/// Time for a TLS handshake.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// Pause when the operating system refuses to accept, so that the loop does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Connections that are open and not yet served.
const READY_MAX: usize = 16;

/// Cuts a connection.
#[derive(Debug, Clone, Default)]
pub(super) struct Switch(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    cut: bool,
    waker: Option<Waker>,
}

impl Switch {
    /// Nothing is read or written any more; the connection's task ends.
    pub(super) fn cut(&self) {
        let waker = {
            let mut state = self.0.lock();
            state.cut = true;
            state.waker.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// An error once it is cut; otherwise `cut` wakes whoever asks.
    fn check(&self, context: &Context<'_>) -> io::Result<()> {
        let mut state = self.0.lock();
        if state.cut {
            return Err(io::ErrorKind::ConnectionReset.into());
        }
        if !state.waker.as_ref().is_some_and(|waker| waker.will_wake(context.waker())) {
            state.waker = Some(context.waker().clone());
        }
        Ok(())
    }
}

/// The open connections.
#[derive(Debug, Default)]
pub(super) struct Open(Mutex<Vec<Weak<Mutex<State>>>>);

impl Open {
    fn add(&self) -> Switch {
        let switch = Switch::default();
        let mut open = self.0.lock();
        open.retain(|one| one.strong_count() > 0);
        open.push(Arc::downgrade(&switch.0));
        switch
    }

    /// Cuts all of them; gives how many there were.
    pub(super) fn cut(&self) -> usize {
        let open: Vec<_> = self.0.lock().drain(..).filter_map(|one| one.upgrade()).collect();
        let count = open.len();
        open.into_iter().for_each(|one| Switch(one).cut());
        count
    }
}

enum Stream {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

/// A connection as the HTTP layer sees it.
pub(super) struct Socket {
    stream: Stream,
    switch: Switch,
    _permit: OwnedSemaphorePermit,
}

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.switch.check(context)?;
        match &mut self.stream {
            Stream::Plain(stream) => Pin::new(stream).poll_read(context, buffer),
            Stream::Tls(stream) => Pin::new(stream).poll_read(context, buffer),
        }
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.switch.check(context)?;
        match &mut self.stream {
            Stream::Plain(stream) => Pin::new(stream).poll_write(context, bytes),
            Stream::Tls(stream) => Pin::new(stream).poll_write(context, bytes),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.switch.check(context)?;
        match &mut self.stream {
            Stream::Plain(stream) => Pin::new(stream).poll_flush(context),
            Stream::Tls(stream) => Pin::new(stream).poll_flush(context),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.switch.check(context)?;
        match &mut self.stream {
            Stream::Plain(stream) => Pin::new(stream).poll_shutdown(context),
            Stream::Tls(stream) => Pin::new(stream).poll_shutdown(context),
        }
    }
}

/// The listener that the HTTP layer asks: connections come ready, handshakes go on beside each other.
pub(super) struct Ready {
    sockets: mpsc::Receiver<(Socket, SocketAddr)>,
    address: SocketAddr,
}

impl axum::serve::Listener for Ready {
    type Io = Socket;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        match self.sockets.recv().await {
            Some(ready) => ready,
            // The door is gone with the program.
            None => std::future::pending().await,
        }
    }

    fn local_addr(&self) -> io::Result<Self::Addr> {
        Ok(self.address)
    }
}

impl Connected<IncomingStream<'_, Ready>> for Switch {
    fn connect_info(stream: IncomingStream<'_, Ready>) -> Self {
        stream.io().switch.clone()
    }
}

/// A bound socket.
pub(super) struct Door {
    socket: TcpListener,
    address: SocketAddr,
    tls: Option<TlsAcceptor>,
    shared: Arc<Shared>,
    permits: Arc<Semaphore>,
}

impl Door {
    pub(super) async fn bind(
        address: SocketAddr,
        tls: Option<TlsAcceptor>,
        shared: Arc<Shared>,
        permits: Arc<Semaphore>,
    ) -> Result<Self, Error> {
        let failed = |source| Error::Bind { address, source };
        let socket = TcpListener::bind(address).await.map_err(failed)?;
        let address = socket.local_addr().map_err(failed)?;
        Ok(Self { socket, address, tls, shared, permits })
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Starts to accept, until `stop` changes or its sender is gone.
    pub(super) fn open(self, tasks: &mut JoinSet<()>, stop: watch::Receiver<bool>) -> Ready {
        let (sender, sockets) = mpsc::channel(READY_MAX);
        let address = self.address;
        tasks.spawn(self.accept(sender, stop));
        Ready { sockets, address }
    }

    async fn accept(self, ready: mpsc::Sender<(Socket, SocketAddr)>, mut stop: watch::Receiver<bool>) {
        let mut handshakes = JoinSet::new();
        loop {
            tokio::select! {
                accepted = self.socket.accept() => match accepted {
                    Ok((stream, peer)) => self.admit(&mut handshakes, stream, peer, ready.clone()),
                    Err(error) => {
                        tracing::warn!(%error, "Event Grid connection not accepted");
                        sleep(ACCEPT_PAUSE).await;
                    }
                },
                Some(ended) = handshakes.join_next() => {
                    if let Err(error) = ended {
                        tracing::error!(%error, "Event Grid connection task failed");
                    }
                }
                _changed = stop.changed() => break,
            }
        }
        handshakes.shutdown().await;
        self.shared.open.cut();
    }

    fn admit(
        &self,
        handshakes: &mut JoinSet<()>,
        stream: TcpStream,
        peer: SocketAddr,
        ready: mpsc::Sender<(Socket, SocketAddr)>,
    ) {
        if self.shared.is_away() {
            return;
        }
        let Ok(permit) = Arc::clone(&self.permits).try_acquire_owned() else {
            tracing::warn!(%peer, "too many Event Grid connections");
            return;
        };
        let (tls, shared) = (self.tls.clone(), Arc::clone(&self.shared));
        handshakes.spawn(async move {
            let switch = shared.open.add();
            let Some(stream) = handshake(stream, tls, shared.slow_tls()).await else { return };
            // An error means that nobody serves any more.
            drop(ready.send((Socket { stream, switch, _permit: permit }, peer)).await);
        });
    }
}

async fn handshake(stream: TcpStream, tls: Option<TlsAcceptor>, slow: Duration) -> Option<Stream> {
    stream.set_nodelay(true).ok()?;
    let Some(tls) = tls else { return Some(Stream::Plain(stream)) };
    if !slow.is_zero() {
        sleep(slow).await;
    }
    match timeout(HANDSHAKE, tls.accept(stream)).await {
        Ok(Ok(stream)) => Some(Stream::Tls(Box::new(stream))),
        Ok(Err(error)) => {
            tracing::debug!(%error, "TLS handshake failed");
            None
        }
        Err(_elapsed) => None,
    }
}

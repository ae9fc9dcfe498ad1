//! MQTT over WebSocket (MQTT 5 section 6, RFC 6455): a stream of bytes inside binary messages.
//!
//! The rest of the stage sees an ordinary stream. Packets need not be aligned with messages
//! ([MQTT-6.0.0-2]): what is read is the payload of binary messages, one after the other, and what is
//! written leaves in frames of at most [`FRAME_BYTES_MAX`]. Anything but binary data closes the
//! connection ([MQTT-6.0.0-1]) with code 1003, a message that is too large with 1009, a breach of the
//! protocol with 1002. Pings are answered; they do not count for the keep alive of MQTT.
//!
//! Memory is bounded: one message of a client, and behind what the socket has taken one frame of ours
//! with a pong and a close. Nothing is read ahead of what the connection asks for, so that a client
//! that is not read feels it.

mod upgrade;

use std::io::{self, Read, Write};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::error::ProtocolError;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role, WebSocketConfig, WebSocketContext};
use tokio_tungstenite::tungstenite::{Bytes, Error, Message, Utf8Bytes};

use super::stream::Stream;
pub(super) use upgrade::{NoUpgrade, upgrade};

/// Largest frame that is sent.
const FRAME_BYTES_MAX: usize = 16 << 10;
/// Room behind a frame for a pong and a close, which have at most 125 bytes each.
const CONTROL_BYTES_MAX: usize = 1 << 10;
/// What is read from the socket at once.
const READ_BYTES: usize = 8 << 10;
/// Messages without content that are passed over before other connections get their turn.
const EMPTY_MAX: usize = 32;
/// How long a client may take to answer the close, or to hang up.
const FAREWELL: Duration = Duration::from_secs(2);
/// Bytes of a refused client that are still taken, so that it learns why.
const LAST_BYTES_MAX: usize = 1 << 20;

/// A WebSocket after its upgrade.
#[derive(Debug)]
pub(super) struct WebSocket {
    stream: Stream,
    context: WebSocketContext,
    /// What is left of the message that is being read.
    message: Bytes,
    state: State,
}

/// Whether more may be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Open,
    /// The client closed, or hung up.
    Closed,
    /// The client broke the rules, or the socket failed.
    Failed,
}

/// A stream lent to the protocol for one step: what would wait registers the task's waker.
pub(super) struct Polled<'a, 'b, S> {
    pub(super) stream: &'a mut S,
    pub(super) cx: &'a mut Context<'b>,
}

// === impl WebSocket ===

impl WebSocket {
    /// Speaks WebSocket over a stream whose upgrade is done. `rest` was read behind the upgrade.
    fn new(stream: Stream, rest: Vec<u8>, message_bytes_max: usize) -> Self {
        let config = WebSocketConfig::default()
            .read_buffer_size(READ_BYTES)
            .write_buffer_size(0)
            .max_write_buffer_size(FRAME_BYTES_MAX + CONTROL_BYTES_MAX)
            .max_frame_size(Some(message_bytes_max))
            .max_message_size(Some(message_bytes_max));
        let context = WebSocketContext::from_partially_read(rest, Role::Server, Some(config));
        Self { stream, context, message: Bytes::new(), state: State::Open }
    }

    /// Ready when there is something to read, or never will be again.
    pub(super) fn poll_readable(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        for _ in 0..EMPTY_MAX {
            if !self.message.is_empty() || self.state != State::Open {
                return Poll::Ready(());
            }
            let mut polled = Polled { stream: &mut self.stream, cx };
            match self.context.read(&mut polled) {
                Ok(Message::Binary(message)) => self.message = message,
                // The protocol has queued its answer.
                Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_)) => {}
                Ok(Message::Close(_)) => self.state = State::Closed,
                Ok(Message::Text(_)) => self.fail(cx, CloseCode::Unsupported, "mqtt takes binary messages"),
                Err(error) if would_block(&error) => return Poll::Pending,
                Err(
                    Error::ConnectionClosed
                    | Error::AlreadyClosed
                    | Error::Protocol(ProtocolError::ResetWithoutClosingHandshake),
                ) => self.state = State::Closed,
                Err(Error::Io(_)) => self.state = State::Failed,
                Err(Error::Capacity(_)) => self.fail(cx, CloseCode::Size, "too large"),
                Err(Error::Utf8(_)) => self.fail(cx, CloseCode::Unsupported, "mqtt takes binary messages"),
                Err(_) => self.fail(cx, CloseCode::Protocol, ""),
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Reads no more and says why, as far as the socket takes it.
    fn fail(&mut self, cx: &mut Context<'_>, code: CloseCode, reason: &'static str) {
        self.state = State::Failed;
        let frame = CloseFrame { code, reason: Utf8Bytes::from_static(reason) };
        let mut polled = Polled { stream: &mut self.stream, cx };
        // What could not be written goes out with the shutdown, unless the client is gone already.
        drop(self.context.close(&mut polled, Some(frame)));
    }

    /// The end of the conversation, within [`FAREWELL`]: a client that closed hears the answer to it,
    /// one that did not is given time to answer.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: dropping the stream closes it.
    pub(super) async fn farewell(&mut self) {
        let farewell = async {
            self.shutdown().await?;
            let mut discarded = [0; 1024];
            while self.state == State::Open && self.read(&mut discarded).await.is_ok() {}
            linger(&mut self.stream).await;
            Ok::<_, io::Error>(())
        };
        // The client may be gone, or may not care.
        drop(timeout(FAREWELL, farewell).await);
    }
}

/// Says that nothing more will be sent and takes what the client still sends, until it hangs up: a
/// socket that is closed with unread bytes is reset, and the client might lose what it was told.
async fn linger(stream: &mut Stream) {
    let end = async {
        stream.shutdown().await?;
        let mut taken = 0;
        let mut discarded = [0; 4096];
        while taken < LAST_BYTES_MAX {
            match stream.read(&mut discarded).await? {
                0 => break,
                count => taken += count,
            }
        }
        Ok::<_, io::Error>(())
    };
    drop(timeout(FAREWELL, end).await);
}

impl AsyncRead for WebSocket {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_readable(cx));
        if this.message.is_empty() && this.state == State::Failed {
            return Poll::Ready(Err(io::ErrorKind::InvalidData.into()));
        }
        let count = this.message.len().min(buffer.remaining());
        buffer.put_slice(&this.message.split_to(count));
        if this.message.is_empty() {
            // It may be a small part of a large allocation.
            this.message = Bytes::new();
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for WebSocket {
    /// Takes bytes only when the socket has taken everything before them.
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        ready!(Pin::new(&mut *this).poll_flush(cx))?;
        let (now, _) = bytes.split_at(bytes.len().min(FRAME_BYTES_MAX));
        let mut polled = Polled { stream: &mut this.stream, cx };
        match this.context.write(&mut polled, Message::Binary(Bytes::copy_from_slice(now))) {
            Ok(()) => Poll::Ready(Ok(now.len())),
            // The frame is kept and goes out with the next flush.
            Err(error) if would_block(&error) => Poll::Ready(Ok(now.len())),
            Err(error) => Poll::Ready(Err(io_error(error))),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        match this.context.flush(&mut Polled { stream: &mut this.stream, cx }) {
            Ok(()) | Err(Error::ConnectionClosed | Error::AlreadyClosed) => Poll::Ready(Ok(())),
            Err(error) if would_block(&error) => Poll::Pending,
            Err(error) => Poll::Ready(Err(io_error(error))),
        }
    }

    /// Sends the close of WebSocket. The socket stays open for the client's, see [`WebSocket::farewell`].
    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let frame = CloseFrame { code: CloseCode::Normal, reason: Utf8Bytes::default() };
        match this.context.close(&mut Polled { stream: &mut this.stream, cx }, Some(frame)) {
            Ok(()) | Err(Error::ConnectionClosed | Error::AlreadyClosed) => {
                Pin::new(&mut this.stream).poll_flush(cx)
            }
            Err(error) if would_block(&error) => Poll::Pending,
            Err(error) => Poll::Ready(Err(io_error(error))),
        }
    }
}

fn would_block(error: &Error) -> bool {
    matches!(error, Error::Io(error) if error.kind() == io::ErrorKind::WouldBlock)
}

fn io_error(error: Error) -> io::Error {
    match error {
        Error::Io(error) => error,
        other => io::Error::new(io::ErrorKind::BrokenPipe, other),
    }
}

// === impl Polled ===

impl<S: AsyncRead + Unpin> Read for Polled<'_, '_, S> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let mut buffer = ReadBuf::new(bytes);
        match Pin::new(&mut *self.stream).poll_read(self.cx, &mut buffer) {
            Poll::Ready(result) => result.map(|()| buffer.filled().len()),
            Poll::Pending => Err(io::ErrorKind::WouldBlock.into()),
        }
    }
}

impl<S: AsyncWrite + Unpin> Write for Polled<'_, '_, S> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match Pin::new(&mut *self.stream).poll_write(self.cx, bytes) {
            Poll::Ready(result) => result,
            Poll::Pending => Err(io::ErrorKind::WouldBlock.into()),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match Pin::new(&mut *self.stream).poll_flush(self.cx) {
            Poll::Ready(result) => result,
            Poll::Pending => Err(io::ErrorKind::WouldBlock.into()),
        }
    }
}

#[cfg(test)]
mod tests;

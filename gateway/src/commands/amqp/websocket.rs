//! AMQP over WebSocket (the OASIS binding): a stream of bytes inside binary messages, through which AMQP passes where
//! only port 443 is open.

use std::fmt;
use std::io::{self, Read, Write};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use tokio_tungstenite::tungstenite::error::ProtocolError;
use tokio_tungstenite::tungstenite::handshake::client::generate_key;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig, WebSocketContext};
use tokio_tungstenite::tungstenite::{Bytes, Error, Message};

use super::http::Head;

/// A WebSocket over a stream, after its upgrade.
pub(super) struct WebSocket<S> {
    stream: S,
    context: WebSocketContext,
    /// What is left of the message that is being read.
    message: Bytes,
}

/// A stream lent to the protocol for one step: what would wait registers the task's waker.
struct Polled<'a, 'b, S> {
    stream: &'a mut S,
    cx: &'a mut Context<'b>,
}

/// Where Service Bus listens.
const PATH: &str = "/$servicebus/websocket";
const SUBPROTOCOL: &str = "amqp";
/// Largest frame that is sent.
const FRAME_BYTES_MAX: usize = 64 << 10;
/// Room behind a frame for a pong and a close.
const CONTROL_BYTES_MAX: usize = 1 << 10;
/// Largest message of the service: above the largest frame of AMQP that we allow.
const MESSAGE_BYTES_MAX: usize = 1 << 20;
/// Messages without content that are passed over before others get their turn.
const EMPTY_MAX: usize = 32;

/// Leads a stream through the upgrade. `authority` is the host, with the port if it is not the usual one.
///
/// # Cancel safety
///
/// Cancelling it closes the stream.
pub(super) async fn upgrade<S>(mut stream: S, authority: &str) -> io::Result<WebSocket<S>>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let key = generate_key();
    let request = format!(
        "GET {PATH} HTTP/1.1\r\nHost: {authority}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: {SUBPROTOCOL}\r\nSec-WebSocket-Key: {key}\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await?;
    stream.flush().await?;
    let (head, rest) = Head::read(&mut stream).await?;
    judge(&head, &key).map_err(|text| io::Error::new(io::ErrorKind::InvalidData, text))?;
    let config = WebSocketConfig::default()
        .write_buffer_size(0)
        .max_write_buffer_size(FRAME_BYTES_MAX + CONTROL_BYTES_MAX)
        .max_frame_size(Some(MESSAGE_BYTES_MAX))
        .max_message_size(Some(MESSAGE_BYTES_MAX));
    let context = WebSocketContext::from_partially_read(rest, Role::Client, Some(config));
    Ok(WebSocket { stream, context, message: Bytes::new() })
}

/// Whether the answer is the upgrade that was asked for (RFC 6455 section 4.1).
fn judge(head: &Head, key: &str) -> Result<(), String> {
    if head.status != 101 {
        return Err(format!("the upgrade to WebSocket was answered with {}", head.status));
    }
    let says =
        |name: &str, word: &str| head.header(name).is_some_and(|value| value.eq_ignore_ascii_case(word));
    if !says("upgrade", "websocket") {
        return Err("the answer to the upgrade is not for WebSocket".to_owned());
    }
    if head.header("sec-websocket-accept") != Some(&derive_accept_key(key.as_bytes())) {
        return Err("the answer to the upgrade is for somebody else".to_owned());
    }
    if !says("sec-websocket-protocol", SUBPROTOCOL) {
        return Err("the service does not speak AMQP over WebSocket".to_owned());
    }
    Ok(())
}

// === impl WebSocket ===

impl<S> fmt::Debug for WebSocket<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WebSocket").finish_non_exhaustive()
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for WebSocket<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        for _ in 0..EMPTY_MAX {
            if !this.message.is_empty() {
                let count = this.message.len().min(buffer.remaining());
                buffer.put_slice(&this.message.split_to(count));
                return Poll::Ready(Ok(()));
            }
            match this.context.read(&mut Polled { stream: &mut this.stream, cx }) {
                Ok(Message::Binary(message)) => this.message = message,
                // The protocol has queued its answer.
                Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_)) => {}
                Ok(Message::Text(_)) => return Poll::Ready(Err(io::ErrorKind::InvalidData.into())),
                Ok(Message::Close(_))
                | Err(
                    Error::ConnectionClosed
                    | Error::AlreadyClosed
                    | Error::Protocol(ProtocolError::ResetWithoutClosingHandshake),
                ) => return Poll::Ready(Ok(())),
                Err(error) if would_block(&error) => return Poll::Pending,
                Err(error) => return Poll::Ready(Err(io_error(error))),
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for WebSocket<S> {
    /// Takes bytes only when the stream has taken everything before them.
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

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        match this.context.close(&mut Polled { stream: &mut this.stream, cx }, None) {
            Ok(()) | Err(Error::ConnectionClosed | Error::AlreadyClosed) => {
                Pin::new(&mut this.stream).poll_shutdown(cx)
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
impl<S> WebSocket<S> {
    /// The service's side of a stream whose upgrade is done, for tests.
    pub(super) fn service(stream: S, rest: Vec<u8>) -> Self {
        let context = WebSocketContext::from_partially_read(rest, Role::Server, None);
        Self { stream, context, message: Bytes::new() }
    }
}

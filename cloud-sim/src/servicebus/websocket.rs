//! AMQP over WebSocket: a stream of bytes inside binary messages, at `/$servicebus/websocket`.

use std::io::{self, Read, Write};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_tungstenite::accept_hdr_async;
use tokio_tungstenite::tungstenite::handshake::server::{ErrorResponse, Request, Response};
use tokio_tungstenite::tungstenite::http::{HeaderValue, StatusCode, header};
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig, WebSocketContext};
use tokio_tungstenite::tungstenite::{Bytes, Error, Message};

const PATH: &str = "/$servicebus/websocket";
/// Names of the protocol: the standard's, and the one that Microsoft's clients ask for.
const PROTOCOLS: [&str; 2] = ["amqp", "AMQPWSB10"];
/// Largest message of a client.
const MESSAGE_BYTES_MAX: usize = 1 << 20;
/// Largest message that is sent.
const SENT_BYTES_MAX: usize = 64 * 1024;
/// What is read from the socket at once.
const READ_BYTES: usize = 64 * 1024;

/// A WebSocket after its upgrade.
pub(super) struct WebSocket<S> {
    stream: S,
    context: WebSocketContext,
    /// What is left of the message that is being read.
    message: Bytes,
}

/// Does the upgrade.
///
/// # Errors
/// When the request is for something else, or is none.
pub(super) async fn accept<S: AsyncRead + AsyncWrite + Unpin>(stream: S) -> io::Result<WebSocket<S>> {
    let accepted = accept_hdr_async(stream, check).await.map_err(io_error)?;
    let config = WebSocketConfig::default()
        .read_buffer_size(READ_BYTES)
        .write_buffer_size(0)
        .max_frame_size(Some(MESSAGE_BYTES_MAX))
        .max_message_size(Some(MESSAGE_BYTES_MAX));
    // A client sends nothing before it has our answer, so nothing is lost with the buffers of the handshake.
    let context = WebSocketContext::new(Role::Server, Some(config));
    Ok(WebSocket { stream: accepted.into_inner(), context, message: Bytes::new() })
}

#[expect(clippy::result_large_err, reason = "the library's signature")]
fn check(request: &Request, mut response: Response) -> Result<Response, ErrorResponse> {
    if request.uri().path() != PATH {
        return Err(refused(StatusCode::NOT_FOUND, "only /$servicebus/websocket is here"));
    }
    let asked = request.headers().get_all(header::SEC_WEBSOCKET_PROTOCOL).iter();
    let mut asked = asked.filter_map(|value| value.to_str().ok()).flat_map(|value| value.split(','));
    let known =
        asked.find_map(|name| PROTOCOLS.into_iter().find(|known| known.eq_ignore_ascii_case(name.trim())));
    let Some(known) = known else {
        return Err(refused(StatusCode::BAD_REQUEST, "the subprotocol has to be amqp"));
    };
    response.headers_mut().insert(header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(known));
    Ok(response)
}

fn refused(status: StatusCode, reason: &str) -> ErrorResponse {
    let mut response = ErrorResponse::new(Some(reason.to_owned()));
    *response.status_mut() = status;
    response
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for WebSocket<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        while this.message.is_empty() {
            match this.context.read(&mut Polled { stream: &mut this.stream, cx }) {
                Ok(Message::Binary(message)) => this.message = message,
                // The protocol has queued its answer.
                Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_)) => {}
                Ok(Message::Close(_)) | Err(Error::ConnectionClosed | Error::AlreadyClosed) => {
                    return Poll::Ready(Ok(()));
                }
                Ok(Message::Text(_)) => return Poll::Ready(Err(io::ErrorKind::InvalidData.into())),
                Err(error) if would_block(&error) => return Poll::Pending,
                Err(error) => return Poll::Ready(Err(io_error(error))),
            }
        }
        let count = this.message.len().min(buffer.remaining());
        buffer.put_slice(&this.message.split_to(count));
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for WebSocket<S> {
    /// Takes bytes only when the socket has taken everything before them.
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        ready!(Pin::new(&mut *this).poll_flush(cx))?;
        let (now, _) = bytes.split_at(bytes.len().min(SENT_BYTES_MAX));
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
        flushed(this.context.flush(&mut Polled { stream: &mut this.stream, cx }))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(flushed(this.context.close(&mut Polled { stream: &mut this.stream, cx }, None)))?;
        Pin::new(&mut this.stream).poll_shutdown(cx)
    }
}

fn flushed(result: Result<(), Error>) -> Poll<io::Result<()>> {
    match result {
        Ok(()) | Err(Error::ConnectionClosed | Error::AlreadyClosed) => Poll::Ready(Ok(())),
        Err(error) if would_block(&error) => Poll::Pending,
        Err(error) => Poll::Ready(Err(io_error(error))),
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

/// A stream lent to the protocol for one step: what would wait registers the task's waker.
struct Polled<'a, 'b, S> {
    stream: &'a mut S,
    cx: &'a mut Context<'b>,
}

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
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
    use tokio_tungstenite::client_async;
    use tokio_tungstenite::tungstenite::client::IntoClientRequest;

    use super::*;

    /// Asks for an upgrade. Both ends, or the status that it was refused with.
    async fn upgraded(
        path: &str,
        protocols: Option<&'static str>,
    ) -> Result<(WebSocket<DuplexStream>, WebSocket<DuplexStream>, String), u16> {
        let (ours, theirs) = duplex(1 << 16);
        let mut request = format!("ws://localhost{path}").into_client_request().unwrap();
        if let Some(protocols) = protocols {
            let protocols = HeaderValue::from_static(protocols);
            request.headers_mut().insert(header::SEC_WEBSOCKET_PROTOCOL, protocols);
        }
        let (server, client) = tokio::join!(accept(theirs), client_async(request, ours));
        let (client, response) = match client {
            Ok(client) => client,
            Err(Error::Http(response)) => return Err(response.status().as_u16()),
            Err(error) => panic!("{error}"),
        };
        let chosen = response.headers()[header::SEC_WEBSOCKET_PROTOCOL].to_str().unwrap().to_owned();
        let context = WebSocketContext::new(Role::Client, None);
        let client = WebSocket { stream: client.into_inner(), context, message: Bytes::new() };
        Ok((server.unwrap(), client, chosen))
    }

    #[tokio::test]
    async fn the_upgrade_is_for_one_path_and_one_protocol() {
        for (asked, expected) in [("amqp", "amqp"), ("mqtt, AMQPWSB10", "AMQPWSB10")] {
            let (_server, _client, chosen) = upgraded(PATH, Some(asked)).await.ok().unwrap();
            assert_eq!(chosen, expected);
        }
        assert_eq!(upgraded("/", Some("amqp")).await.err(), Some(404));
        assert_eq!(upgraded(PATH, Some("mqtt")).await.err(), Some(400));
        assert_eq!(upgraded(PATH, None).await.err(), Some(400));
    }

    #[tokio::test]
    async fn bytes_cross_both_ways_and_end_with_a_close() {
        let (mut server, mut client, _chosen) = upgraded(PATH, Some("amqp")).await.ok().unwrap();
        let sent: Vec<u8> = (0..300_000_u32).map(|number| u8::try_from(number % 251).unwrap()).collect();
        for _ in 0..2 {
            let (mut received, expected) = (vec![0; sent.len()], sent.clone());
            let write = async {
                client.write_all(&sent).await.unwrap();
                client.flush().await.unwrap();
            };
            let ((), read) = tokio::join!(write, server.read_exact(&mut received));
            assert!(read.is_ok() && received == expected);
            std::mem::swap(&mut server, &mut client);
        }
        client.shutdown().await.unwrap();
        assert_eq!(server.read(&mut [0; 10]).await.unwrap(), 0);
    }
}

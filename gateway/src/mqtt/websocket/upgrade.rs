//! From HTTP to WebSocket: the request is read, judged and answered.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_tungstenite::tungstenite::error::ProtocolError;
use tokio_tungstenite::tungstenite::handshake::machine::TryParse as _;
use tokio_tungstenite::tungstenite::handshake::server::{Request, Response, create_response, write_response};
use tokio_tungstenite::tungstenite::http::header::{HeaderValue, SEC_WEBSOCKET_PROTOCOL};
use tokio_tungstenite::tungstenite::{Error, http::StatusCode};

use super::{WebSocket, linger};
use crate::mqtt::stream::Stream;

/// Largest request with its headers: browsers send cookies along.
const HEAD_BYTES_MAX: usize = 16 << 10;
/// What a request begins with that may lead to a WebSocket.
const METHOD: &[u8] = b"GET ";
const HEAD_END: &[u8] = b"\r\n\r\n";
/// The subprotocol ([MQTT-6.0.0-3], [MQTT-6.0.0-4]).
const SUBPROTOCOL: &str = "mqtt";

/// The upgrade did not come about; the client has been told, if there was one to tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::mqtt) struct NoUpgrade;

/// Why a request is refused: a status and a sentence.
type Complaint = (StatusCode, &'static str);

/// Leads a stream through the upgrade to WebSocket. `message_bytes_max` bounds frames and messages.
///
/// # Cancel safety
///
/// Cancelling it closes the stream.
pub(in crate::mqtt) async fn upgrade(
    mut stream: Stream,
    path: &str,
    message_bytes_max: usize,
) -> Result<Stream, NoUpgrade> {
    let judged = match read_request(&mut stream).await {
        Ok((request, rest)) => judge(&request, path).map(|response| (response, rest)),
        Err(Some(complaint)) => Err(complaint),
        Err(None) => return Err(NoUpgrade),
    };
    let (response, rest) = match judged {
        Ok(judged) => judged,
        Err(complaint) => {
            // Nothing depends on whether the client hears it.
            drop(stream.write_all(refusal(complaint).as_bytes()).await);
            linger(&mut stream).await;
            return Err(NoUpgrade);
        }
    };
    let mut answer = Vec::new();
    write_response(&mut answer, &response).map_err(|_| NoUpgrade)?;
    stream.write_all(&answer).await.map_err(|_| NoUpgrade)?;
    stream.flush().await.map_err(|_| NoUpgrade)?;
    Ok(Stream::WebSocket(Box::new(WebSocket::new(stream, rest, message_bytes_max))))
}

/// Reads a request, and what came behind it. Nothing is complained about to a client that is gone.
async fn read_request(stream: &mut Stream) -> Result<(Request, Vec<u8>), Option<Complaint>> {
    let mut head = Vec::new();
    loop {
        let seen = head.len().saturating_sub(HEAD_END.len());
        match stream.read_buf(&mut head).await {
            Ok(1..) => {}
            Ok(0) | Err(_) => return Err(None),
        }
        // Anything else shows at once and is not worth waiting for.
        if !head.iter().zip(METHOD).all(|(byte, expected)| byte == expected) {
            return Err(Some((StatusCode::BAD_REQUEST, "a GET request for a WebSocket is expected here")));
        }
        let fresh = head.get(seen..).unwrap_or_default();
        let end = fresh.windows(HEAD_END.len()).position(|end| end == HEAD_END).map(|place| seen + place);
        if end.unwrap_or(head.len()) > HEAD_BYTES_MAX {
            return Err(Some((StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, "the request is too large")));
        }
        if end.is_some() {
            break;
        }
    }
    match Request::try_parse(&head) {
        Ok(Some((bytes, request))) => Ok((request, head.split_off(bytes.min(head.len())))),
        Ok(None) | Err(_) => Err(Some((StatusCode::BAD_REQUEST, "the request cannot be read"))),
    }
}

/// The answer that accepts a request.
fn judge(request: &Request, path: &str) -> Result<Response, Complaint> {
    if request.uri().path() != path {
        return Err((StatusCode::NOT_FOUND, "there is nothing here"));
    }
    let mut response = create_response(request).map_err(|error| match error {
        Error::Protocol(ProtocolError::MissingSecWebSocketKey) => {
            (StatusCode::BAD_REQUEST, "Sec-WebSocket-Key is missing")
        }
        _ => (StatusCode::UPGRADE_REQUIRED, "an upgrade to WebSocket, version 13, is expected here"),
    })?;
    let offers = request.headers().get_all(SEC_WEBSOCKET_PROTOCOL).iter();
    let mut offered = offers.filter_map(|offer| offer.to_str().ok()).flat_map(|offer| offer.split(','));
    if !offered.any(|name| name.trim() == SUBPROTOCOL) {
        return Err((StatusCode::BAD_REQUEST, "the subprotocol mqtt is expected here"));
    }
    response.headers_mut().insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(SUBPROTOCOL));
    Ok(response)
}

fn refusal((status, sentence): Complaint) -> String {
    let mut answer = format!("HTTP/1.1 {status}\r\n");
    if status == StatusCode::UPGRADE_REQUIRED {
        answer.push_str("Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n");
    }
    let length = sentence.len() + 1;
    answer.push_str("Connection: close\r\nContent-Type: text/plain\r\n");
    answer.push_str(&format!("Content-Length: {length}\r\n\r\n"));
    answer.push_str(sentence);
    answer.push('\n');
    answer
}

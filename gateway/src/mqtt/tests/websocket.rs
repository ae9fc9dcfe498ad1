//! MQTT over WebSocket with a client that we did not write, and with bytes that none would send.

use std::future::poll_fn;
use std::task::Poll;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio_tungstenite::client_async;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::handshake::client::Request;
use tokio_tungstenite::tungstenite::http::HeaderValue;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{CloseCode, Data, OpCode};
use tokio_tungstenite::tungstenite::protocol::frame::{Frame, FrameHeader};
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketContext};
use tokio_tungstenite::tungstenite::{Error, Message, Result};

use super::super::websocket::Polled;
use super::super::{Config, Limits};
use super::connect::{tls, tls_config};
use super::gateway::{Gateway, open_config, soon};
use super::wire;

const TOPIC: &str = "devices/d/telemetry";

fn config() -> Config {
    let mut config = open_config();
    config.listeners[0].websocket = Some("/mqtt".to_owned());
    config
}

fn gateway(change: impl FnOnce(&mut Limits)) -> Gateway {
    let mut config = config();
    change(&mut config.limits);
    Gateway::with(&config)
}

/// What a client asks for.
fn request(path: &str, subprotocol: Option<&str>) -> Request {
    let mut request = format!("ws://localhost{path}").into_client_request().expect("a request");
    if let Some(subprotocol) = subprotocol {
        let value = HeaderValue::from_str(subprotocol).expect("a header");
        request.headers_mut().insert("Sec-WebSocket-Protocol", value);
    }
    request
}

/// tungstenite as a client.
struct Peer<S> {
    socket: S,
    context: WebSocketContext,
    /// What came and was not asked for yet.
    buffer: Vec<u8>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Peer<S> {
    async fn new(socket: S) -> Self {
        let (stream, response) =
            soon(client_async(request("/mqtt", Some("mqtt")), socket)).await.expect("an upgrade");
        assert_eq!(response.headers().get("Sec-WebSocket-Protocol").expect("echoed"), "mqtt");
        let context = WebSocketContext::new(Role::Client, None);
        Self { socket: stream.into_inner(), context, buffer: Vec::new() }
    }

    async fn step<T>(
        &mut self,
        mut step: impl FnMut(&mut WebSocketContext, &mut Polled<'_, '_, S>) -> Result<T>,
    ) -> Result<T> {
        soon(poll_fn(|cx| {
            let mut polled = Polled { stream: &mut self.socket, cx };
            match step(&mut self.context, &mut polled) {
                Err(Error::Io(error)) if error.kind() == std::io::ErrorKind::WouldBlock => Poll::Pending,
                done => Poll::Ready(done),
            }
        }))
        .await
    }

    async fn send_message(&mut self, message: Message) {
        let mut message = Some(message);
        let sent = self.step(|context, stream| {
            message.take().map_or(Ok(()), |message| context.write(stream, message))?;
            context.flush(stream)
        });
        sent.await.expect("sent");
    }

    async fn message(&mut self) -> Result<Message> {
        self.step(|context, stream| context.read(stream)).await
    }

    /// Sends packets as one binary message.
    async fn send(&mut self, packets: &[u8]) {
        self.send_message(Message::binary(packets.to_vec())).await;
    }

    /// A part of a message.
    async fn send_part(&mut self, part: &[u8], opcode: Data, last: bool) {
        let frame = Frame::message(part.to_vec(), OpCode::Data(opcode), last);
        self.send_message(Message::Frame(frame)).await;
    }

    /// The next packets, wherever frames begin and end.
    async fn expect(&mut self, packets: &[&[u8]]) {
        for packet in packets {
            while wire::packet_len(&self.buffer).is_none_or(|bytes| self.buffer.len() < bytes) {
                match self.message().await.expect("a message") {
                    Message::Binary(bytes) => self.buffer.extend_from_slice(&bytes),
                    Message::Pong(_) => {}
                    other => panic!("{other:?} instead of {packet:02x?}"),
                }
            }
            let bytes = wire::packet_len(&self.buffer).expect("a packet");
            let got = wire::without_reason_string(self.buffer.drain(..bytes).collect());
            assert_eq!(got, *packet, "got {got:02x?}, expected {packet:02x?}");
        }
    }

    /// Connects as device `d`.
    async fn connect(&mut self, version: u8) {
        self.send(&wire::connect(version, "d")).await;
        match self.message().await.expect("a message") {
            Message::Binary(connack) => assert_eq!((connack[0], connack[3]), (0x20, 0), "{connack:02x?}"),
            other => panic!("{other:?} instead of CONNACK"),
        }
    }

    /// The close of the gateway with its code, and the end of the connection after our answer.
    async fn expect_close(&mut self, code: CloseCode) {
        match self.message().await.expect("a close") {
            Message::Close(Some(frame)) => assert_eq!(frame.code, code, "{frame}"),
            other => panic!("{other:?} instead of a close"),
        }
        self.expect_hang_up().await;
    }

    async fn expect_hang_up(&mut self) {
        let error = self.message().await.expect_err("nothing more");
        assert!(matches!(error, Error::ConnectionClosed), "{error:?}");
        assert_eq!(
            soon(self.socket.read_u8()).await.expect_err("an end").kind(),
            std::io::ErrorKind::UnexpectedEof
        );
    }
}

async fn peer(gateway: &Gateway) -> Peer<TcpStream> {
    Peer::new(gateway.raw().await.socket).await
}

#[tokio::test]
async fn devices_publish_and_hear_over_websocket() {
    let gateway = gateway(|_| {});
    assert!(gateway.handle.addresses()[0].websocket);
    for version in [4, 5] {
        let mut peer = peer(&gateway).await;
        peer.connect(version).await;
        peer.send(&wire::publish(version, 1, 1, TOPIC, b"one")).await;
        peer.expect(&[&wire::puback(1)]).await;
        peer.send(&wire::publish(version, 2, 2, TOPIC, b"two")).await;
        peer.expect(&[&wire::pubrec(2)]).await;
        peer.send(&wire::pubrel(2)).await;
        peer.expect(&[&wire::pubcomp(2)]).await;
        peer.send(&wire::PINGREQ).await;
        peer.expect(&[&wire::PINGRESP]).await;
    }
    assert_eq!(gateway.outbox.payloads(), ["one", "two", "one", "two"]);
}

#[tokio::test]
async fn packets_and_frames_need_not_be_aligned() {
    let gateway = gateway(|_| {});
    let mut peer = peer(&gateway).await;
    // Every byte of CONNECT is a message of its own, with empty ones and pings between.
    for byte in wire::connect(4, "d") {
        peer.send(&[byte]).await;
        peer.send(&[]).await;
        peer.send_message(Message::Ping("?".into())).await;
    }
    peer.expect(&[&[0x20, 2, 0, 0]]).await;
    // Three packets and the front of a fourth in one message.
    let publish = |id| wire::publish(4, 1, id, TOPIC, &id.to_be_bytes());
    let fourth = publish(3);
    let (front, back) = fourth.split_at(9);
    peer.send(&[&publish(1)[..], &publish(2), &wire::PINGREQ, front].concat()).await;
    // Its rest in fragments, with a ping between.
    let (middle, end) = back.split_at(5);
    peer.send_part(middle, Data::Binary, false).await;
    peer.send_message(Message::Ping("!".into())).await;
    peer.send_part(&[], Data::Continue, false).await;
    peer.send_part(end, Data::Continue, true).await;
    let mut got = vec![];
    while got.len() < 14 {
        if let Message::Binary(bytes) = peer.message().await.expect("a message") {
            got.extend_from_slice(&bytes);
        }
    }
    // PINGRESP does not wait for the disk, so its place among the acknowledgements is open.
    for answer in [&wire::puback(1)[..], &wire::puback(2), &wire::puback(3), &wire::PINGRESP] {
        assert!(got.windows(answer.len()).any(|window| window == answer), "{answer:02x?} in {got:02x?}");
    }
    assert_eq!(gateway.outbox.payloads(), ["\0\u{1}", "\0\u{2}", "\0\u{3}"]);
}

#[tokio::test]
async fn a_large_packet_comes_through_whole() {
    let gateway = gateway(|limits| limits.packet_bytes_max = 128 << 10);
    let mut peer = peer(&gateway).await;
    peer.connect(4).await;
    let payload = "x".repeat(127 << 10);
    let publish = wire::publish(4, 1, 1, TOPIC, payload.as_bytes());
    peer.send(&publish).await;
    peer.expect(&[&wire::puback(1)]).await;
    for (place, part) in publish.chunks(1000).enumerate() {
        let opcode = if place == 0 { Data::Binary } else { Data::Continue };
        peer.send_part(part, opcode, (place + 1) * 1000 >= publish.len()).await;
    }
    peer.expect(&[&wire::puback(1)]).await;
    assert_eq!(gateway.outbox.payloads(), [payload.clone(), payload]);
}

#[tokio::test]
async fn websocket_over_tls_is_served() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (mut config, pem) = tls_config(folder.path());
    config.listeners[0].websocket = Some("/mqtt".to_owned());
    let gateway = Gateway::with(&config);
    let mut peer = Box::pin(Peer::new(tls(&gateway, &pem).await)).await;
    peer.connect(5).await;
    peer.send(&wire::publish(5, 1, 7, TOPIC, b"x")).await;
    peer.expect(&[&wire::puback(7)]).await;
    peer.send(&[0xe0, 0]).await;
    peer.expect_close(CloseCode::Normal).await;
    gateway.connections(0).await;
}

#[tokio::test]
async fn pings_are_answered_and_either_side_may_close() {
    let gateway = gateway(|_| {});
    let mut first = peer(&gateway).await;
    first.send_message(Message::Ping("before".into())).await;
    assert_eq!(first.message().await.expect("a pong"), Message::Pong("before".into()));
    first.connect(4).await;
    first.send_message(Message::Ping("after".into())).await;
    assert_eq!(first.message().await.expect("a pong"), Message::Pong("after".into()));
    first.send_message(Message::Close(None)).await;
    assert_eq!(first.message().await.expect("the answer"), Message::Close(None));
    first.expect_hang_up().await;

    let mut second = peer(&gateway).await;
    second.connect(4).await;
    second.send(&[0xe0, 0]).await;
    second.expect_close(CloseCode::Normal).await;

    let mut third = peer(&gateway).await;
    third.connect(5).await;
    let (_, ()) = tokio::join!(gateway.stop(), async {
        third.expect(&[&wire::disconnect(0x8b)]).await;
        third.expect_close(CloseCode::Normal).await;
    });
}

#[tokio::test]
async fn a_refused_connect_is_told_before_the_close() {
    let mut config = config();
    config.access.anonymous = false;
    let gateway = Gateway::with(&config);
    let mut peer = peer(&gateway).await;
    peer.send(&wire::connect(4, "d")).await;
    peer.expect(&[&[0x20, 2, 0, 5]]).await;
    peer.expect_close(CloseCode::Normal).await;
}

#[tokio::test]
async fn what_is_not_binary_or_too_large_closes_with_its_code() {
    let gateway = gateway(|limits| limits.packet_bytes_max = 1024);
    let mut told = peer(&gateway).await;
    told.connect(4).await;
    told.send_message(Message::text("text")).await;
    told.expect_close(CloseCode::Unsupported).await;

    let mut early = peer(&gateway).await;
    early.send_message(Message::text("before CONNECT")).await;
    early.expect_close(CloseCode::Unsupported).await;

    let mut large = peer(&gateway).await;
    large.connect(4).await;
    large.send(&vec![0; (72 << 10) + 1]).await;
    large.expect_close(CloseCode::Size).await;

    let mut endless = peer(&gateway).await;
    endless.connect(4).await;
    endless.send_part(&vec![0; 60 << 10], Data::Binary, false).await;
    endless.send_part(&vec![0; 60 << 10], Data::Continue, false).await;
    endless.expect_close(CloseCode::Size).await;
    gateway.connections(0).await;
    assert_eq!(gateway.handle.status().clients, 0);
}

#[tokio::test]
async fn breaches_of_the_protocol_close_with_1002() {
    let gateway = gateway(|_| {});
    let masked = |first: u8, payload: &[u8]| {
        let length = u8::try_from(payload.len()).unwrap();
        // A mask of zeros changes nothing.
        [&[first, 0x80 | length, 0, 0, 0, 0], payload].concat()
    };
    for (name, bytes) in [
        ("an unmasked frame", vec![0x82, 1, 0x10]),
        ("a reserved bit", masked(0xc2, b"x")),
        ("an unknown opcode", masked(0x83, b"x")),
        ("an unknown control opcode", masked(0x8b, b"")),
        ("a continuation of nothing", masked(0x80, b"x")),
        ("a new message inside another", [masked(0x02, b"x"), masked(0x82, b"x")].concat()),
        ("a ping in fragments", masked(0x09, b"x")),
    ] {
        let mut peer = peer(&gateway).await;
        peer.connect(4).await;
        soon(peer.socket.write_all(&bytes)).await.expect("written");
        match peer.message().await {
            Ok(Message::Close(Some(frame))) => assert_eq!(frame.code, CloseCode::Protocol, "{name}"),
            other => panic!("{other:?} after {name}"),
        }
    }
    gateway.connections(0).await;
    let mut after = peer(&gateway).await;
    after.connect(4).await;
}

/// Sends bytes to the listener and returns what it answers before it hangs up.
async fn answer(gateway: &Gateway, bytes: &[u8]) -> String {
    let mut client = gateway.raw().await;
    client.send(bytes).await;
    let mut answer = Vec::new();
    soon(client.socket.read_to_end(&mut answer)).await.expect("an answer and an end");
    String::from_utf8(answer).expect("text")
}

const UPGRADE: &str = "Host: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";

#[tokio::test]
async fn requests_that_lead_to_no_websocket_are_answered_in_http() {
    let gateway = gateway(|_| {});
    let check = async |request: String, expected: &str| {
        let answer = answer(&gateway, request.as_bytes()).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {expected}")), "{answer} for {request:.200}");
    };
    let mqtt = "Sec-WebSocket-Protocol: mqtt\r\n";
    check(format!("GET /mqtt HTTP/1.1\r\n{UPGRADE}\r\n"), "400 Bad Request").await;
    let offer = "Sec-WebSocket-Protocol: mqttv3.1, amqp\r\n";
    check(format!("GET /mqtt HTTP/1.1\r\n{UPGRADE}{offer}\r\n"), "400 Bad Request").await;
    check(format!("GET / HTTP/1.1\r\n{UPGRADE}{mqtt}\r\n"), "404 Not Found").await;
    check(format!("GET /mqtt/ HTTP/1.1\r\n{UPGRADE}{mqtt}\r\n"), "404 Not Found").await;
    check(
        format!("GET /mqtt HTTP/1.1\r\nHost: x\r\n{mqtt}\r\n"),
        "426 Upgrade Required\r\nUpgrade: websocket",
    )
    .await;
    let old = UPGRADE.replace("13", "8");
    check(format!("GET /mqtt HTTP/1.1\r\n{old}{mqtt}\r\n"), "426 Upgrade Required").await;
    let keyless: String = UPGRADE.split_inclusive("\r\n").filter(|line| !line.contains("Key")).collect();
    check(format!("GET /mqtt HTTP/1.1\r\n{keyless}{mqtt}\r\n"), "400 Bad Request").await;
    check(format!("GET /mqtt HTTP/1.0\r\n{UPGRADE}{mqtt}\r\n"), "400 Bad Request").await;
    check(format!("POST /mqtt HTTP/1.1\r\n{UPGRADE}{mqtt}\r\n"), "400 Bad Request").await;
    check("GET \u{1}\r\n\r\n".to_owned(), "400 Bad Request").await;
    let large = format!("Cookie: {}\r\n", "x".repeat(17 << 10));
    check(format!("GET /mqtt HTTP/1.1\r\n{UPGRADE}{mqtt}{large}\r\n"), "431 Request Header Fields").await;
    let connect = String::from_utf8(wire::connect(4, "d")).expect("text");
    check(connect, "400 Bad Request").await;
    // The request may come in pieces, with others than mqtt on offer and a query behind the path.
    let mut client = gateway.raw().await;
    let offer = "Sec-WebSocket-Protocol: amqp\r\nsec-websocket-protocol: x , mqtt\r\n";
    for byte in format!("GET /mqtt?client=1 HTTP/1.1\r\n{UPGRADE}{offer}\r\n").into_bytes() {
        client.send(&[byte]).await;
    }
    let mut head = [0; 12];
    soon(client.socket.read_exact(&mut head)).await.expect("an answer");
    assert_eq!(&head, b"HTTP/1.1 101");
}

#[tokio::test]
async fn who_takes_too_long_to_ask_is_not_waited_for() {
    let gateway = gateway(|limits| limits.connect_timeout = Duration::from_millis(100));
    for bytes in [&b""[..], b"GET /mqtt HTTP/1.1\r\nHost: x\r\n"] {
        assert_eq!(answer(&gateway, bytes).await, "");
    }
    // The upgrade and CONNECT share the time.
    let mut silent = peer(&gateway).await;
    assert!(silent.message().await.is_err());
    gateway.connections(0).await;
}

#[tokio::test]
async fn the_listener_for_plain_mqtt_does_not_speak_http() {
    let gateway = Gateway::start();
    let mut client = gateway.raw().await;
    client.send(format!("GET /mqtt HTTP/1.1\r\n{UPGRADE}\r\n").as_bytes()).await;
    client.expect_end(&[]).await;
}

#[tokio::test]
async fn a_client_that_takes_nothing_is_not_read_and_then_closed() {
    let mut config = config();
    config.listeners[0].send_buffer = Some(16 << 10);
    let gateway = Gateway::with_tick(&config, Duration::from_millis(10));
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.set_recv_buffer_size(4 << 10).expect("a small buffer");
    let socket = soon(socket.connect(gateway.address())).await.expect("connected");
    let mut peer = Peer::new(socket).await;
    peer.connect(4).await;
    // Every message asks for answers, until neither side takes any more.
    let opcode = OpCode::Data(Data::Binary);
    let header = FrameHeader { opcode, mask: Some([0; 4]), ..FrameHeader::default() };
    let frame = Frame::from_payload(header, wire::PINGREQ.repeat(30_000).into());
    let mut bytes = Vec::new();
    frame.format(&mut bytes).expect("a frame");
    let since = gateway.handle.shared.clock.now();
    // It ends because the gateway closes, which it does only for a client that is stalled.
    soon(async { while peer.socket.write_all(&bytes).await.is_ok() {} }).await;
    assert!(gateway.handle.shared.clock.now() >= since + 30);
    gateway.connections(0).await;
}

//! Chapter 6: MQTT in WebSocket frames, by RFC 6455.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::super::gateway::{Gateway, open_config, soon};
use super::super::wire;
use super::{BOTH, OWN, form};

const TEXT: u8 = 0x1;
const BINARY: u8 = 0x2;
const CLOSE: u8 = 0x8;

/// The example of RFC 6455, section 1.3.
const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

fn gateway() -> Gateway {
    let mut config = open_config();
    config.listeners[0].websocket = Some("/mqtt".to_owned());
    Gateway::with(&config)
}

/// A client that speaks frames.
struct WebSocket {
    socket: TcpStream,
    /// Read and not taken yet.
    bytes: Vec<u8>,
    /// What binary frames held, not taken yet.
    packets: Vec<u8>,
}

impl WebSocket {
    /// Asks for an upgrade with these subprotocols; returns the head of the answer too.
    async fn open(gateway: &Gateway, protocols: &str) -> (Self, String) {
        let mut socket = soon(TcpStream::connect(gateway.address())).await.expect("connected");
        let request = format!(
            "GET /mqtt HTTP/1.1\r\nHost: gateway\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Key: {KEY}\r\nSec-WebSocket-Version: 13\r\n\
             Sec-WebSocket-Protocol: {protocols}\r\n\r\n"
        );
        soon(socket.write_all(request.as_bytes())).await.expect("written");
        let mut bytes = Vec::new();
        let end = loop {
            if let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
                break end + 4;
            }
            assert!(soon(socket.read_buf(&mut bytes)).await.expect("an answer") > 0, "an answer");
        };
        let head = String::from_utf8(bytes.drain(..end).collect()).expect("a head");
        (Self { socket, bytes, packets: Vec::new() }, head)
    }

    async fn mqtt(gateway: &Gateway) -> Self {
        let (client, head) = Self::open(gateway, "mqtt").await;
        assert!(head.starts_with("HTTP/1.1 101"), "{head}");
        client
    }

    /// Sends one frame, masked as a client must.
    async fn send(&mut self, opcode: u8, last: bool, payload: &[u8]) {
        let mask = [0x37, 0xfa, 0x21, 0x3d];
        let mut frame = vec![opcode | if last { 0x80 } else { 0 }];
        match u8::try_from(payload.len()) {
            Ok(length @ ..126) => frame.push(0x80 | length),
            _ => {
                frame.push(0x80 | 126);
                frame.extend(u16::try_from(payload.len()).expect("a short frame").to_be_bytes());
            }
        }
        frame.extend(mask);
        frame.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
        // It may be closed already.
        drop(soon(self.socket.write_all(&frame)).await);
    }

    /// The next frame's opcode, with its payload put to the packets; nothing at the end.
    async fn frame(&mut self) -> Option<u8> {
        loop {
            if let Some((opcode, payload, used)) = frame(&self.bytes) {
                if opcode == BINARY || opcode == 0 {
                    self.packets.extend_from_slice(payload);
                }
                self.bytes.drain(..used);
                return Some(opcode);
            }
            match soon(self.socket.read_buf(&mut self.bytes)).await {
                Ok(1..) => {}
                Ok(0) | Err(_) => return None,
            }
        }
    }

    async fn packet(&mut self, version: u8) -> Vec<u8> {
        loop {
            let length = wire::packet_len(&self.packets).filter(|length| *length <= self.packets.len());
            if let Some(length) = length {
                let packet: Vec<u8> = self.packets.drain(..length).collect();
                form::check(version, &packet);
                return packet;
            }
            let opcode = self.frame().await.expect("a frame");
            assert!([0, BINARY].contains(&opcode), "packets come in binary frames, not {opcode}");
        }
    }

    /// Asserts that the connection ends, with no packet but a last word.
    async fn expect_end(&mut self) {
        while let Some(opcode) = self.frame().await {
            assert!([0, BINARY, CLOSE].contains(&opcode), "{opcode}");
        }
        let words = [&[][..], &[0xe0, 2, 0x81, 0], &[0xe0, 2, 0x82, 0]];
        assert!(words.contains(&&self.packets[..]), "{:02x?}", self.packets);
    }
}

/// The frame at the front: its opcode, its payload and its size.
fn frame(bytes: &[u8]) -> Option<(u8, &[u8], usize)> {
    let (first, second) = (*bytes.first()?, *bytes.get(1)?);
    assert_eq!((first & 0x70, second & 0x80), (0, 0), "no extension, no mask of a server");
    let (length, head) = match second {
        126 => (usize::from(u16::from_be_bytes(bytes.get(2..4)?.try_into().unwrap())), 4),
        127 => panic!("a frame above 64 KiB"),
        length => (length.into(), 2),
    };
    Some((first & 0x0f, bytes.get(head..head + length)?, head + length))
}

// 3.1.1 [MQTT-6.0.0-1]
// 5 [MQTT-6.0.0-1]
#[tokio::test]
async fn only_binary_frames_are_taken() {
    let gateway = gateway();
    for version in BOTH {
        let connect = wire::connect(version, "d");
        let mut client = WebSocket::mqtt(&gateway).await;
        client.send(TEXT, true, &connect).await;
        client.expect_end().await;
        let mut client = WebSocket::mqtt(&gateway).await;
        client.send(BINARY, true, &connect).await;
        assert_eq!(client.packet(version).await[3], 0);
        client.send(TEXT, true, &wire::publish(version, 1, 1, OWN, b"as text")).await;
        client.expect_end().await;
    }
    assert!(gateway.outbox.payloads().is_empty());
}

// 3.1.1 [MQTT-6.0.0-2]
// 5 [MQTT-6.0.0-2]
#[tokio::test]
async fn packets_and_frames_need_not_be_aligned() {
    let gateway = gateway();
    for version in BOTH {
        let mut client = WebSocket::mqtt(&gateway).await;
        // A frame for each byte, an empty one among them.
        for byte in wire::connect(version, "d") {
            client.send(BINARY, true, &[byte]).await;
            client.send(BINARY, true, &[]).await;
        }
        assert_eq!(client.packet(version).await[3], 0);
        // Two packets and a half, then the rest and more, once as one message in fragments.
        let publish = |id| wire::publish(version, 1, id, OWN, &[b'x'; 200]);
        let all = [publish(1), publish(2), publish(3), wire::publish(version, 2, 4, OWN, b"x")].concat();
        let cut = publish(1).len() * 5 / 2;
        client.send(BINARY, true, &all[..cut]).await;
        client.send(BINARY, false, &all[cut..cut + 10]).await;
        client.send(0, false, &[]).await;
        client.send(0, true, &all[cut + 10..]).await;
        for answer in [wire::puback(1), wire::puback(2), wire::puback(3), wire::pubrec(4)] {
            assert_eq!(client.packet(version).await, answer);
        }
        client.send(BINARY, true, &[0xe0, 0]).await;
        client.expect_end().await;
    }
    assert_eq!(gateway.outbox.payloads().len(), 8);
}

// 3.1.1 [MQTT-6.0.0-4]
// 5 [MQTT-6.0.0-4]
#[tokio::test]
async fn the_subprotocol_is_mqtt() {
    let gateway = gateway();
    for offered in ["mqtt", "mqttv3.1, mqtt", "mqtt, chat", "chat"] {
        let (_, head) = WebSocket::open(&gateway, offered).await;
        let header = |name: &str| {
            let lines = head.lines().filter_map(|line| line.split_once(": "));
            let found: Vec<_> = lines.filter(|(own, _)| own.eq_ignore_ascii_case(name)).collect();
            assert!(found.len() <= 1, "{head}");
            found.first().map(|(_, value)| (*value).to_owned())
        };
        if offered == "chat" {
            assert!(!head.starts_with("HTTP/1.1 101"), "{head}");
            continue;
        }
        assert!(head.starts_with("HTTP/1.1 101"), "{head}");
        assert_eq!(header("Sec-WebSocket-Protocol").as_deref(), Some("mqtt"));
        assert_eq!(header("Sec-WebSocket-Accept").as_deref(), Some(ACCEPT));
    }
}

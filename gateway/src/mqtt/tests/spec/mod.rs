//! What the specifications of MQTT 3.1.1 and 5 demand of a server, asked of a gateway in raw bytes.
//!
//! Each test names the statements it holds in a comment; `docs/mqtt-conformance.md` is the list of all,
//! and a test compares the two. Every packet that a client here reads is checked for its form.

mod alias;
mod auth;
mod connack;
mod connect;
mod disconnect;
mod flow;
mod form;
mod headers;
mod house;
mod publish;
mod qos;
mod retained;
mod session;
mod shared;
mod strings;
mod subscribe;
mod topics;
mod unsubscribe;
mod websocket;
mod will;

use tokio::net::TcpStream;

use super::gateway::{Client, Gateway};
use super::wire::{self, Connect};

/// MQTT 3.1.1 and 5, as their CONNECT says it.
const BOTH: [u8; 2] = [4, 5];

/// A topic that client `d` may publish to and subscribe to without any rule.
const OWN: &str = "devices/d/telemetry";

/// Sends CONNECT and returns what came back.
async fn open(gateway: &Gateway, connect: &Connect<'_>) -> (Client<TcpStream>, Vec<u8>) {
    let mut client = gateway.raw().await;
    client.send(&connect.bytes()).await;
    let connack = client.packet().await;
    form::check(connect.version, &connack);
    assert_eq!(connack[0], 0x20, "{connack:02x?}");
    (client, connack)
}

impl Client<TcpStream> {
    /// The next packet, checked for its form.
    async fn next(&mut self, version: u8) -> Vec<u8> {
        let packet = self.packet().await;
        form::check(version, &packet);
        packet
    }

    /// Reads until the gateway closes; returns the one packet it may say before.
    async fn last_words(&mut self, version: u8) -> Option<Vec<u8>> {
        let first = self.packet_or_end().await?;
        form::check(version, &first);
        let second = self.packet_or_end().await;
        assert_eq!(second, None, "after {first:02x?}");
        Some(first)
    }

    /// Asserts that the connection ends, with MQTT 5 after a DISCONNECT for one of these reasons.
    async fn expect_disconnect(&mut self, version: u8, reasons: &[u8]) {
        match self.last_words(version).await {
            None => assert_eq!(version, 4, "MQTT 5 is told why"),
            Some(packet) => {
                assert_eq!((version, packet[0]), (5, 0xe0), "{packet:02x?}");
                assert!(reasons.contains(&packet[2]), "{packet:02x?}, not one of {reasons:02x?}");
            }
        }
    }

    /// Asserts that a CONNECT is not accepted: the connection ends, after a CONNACK that refuses or none.
    async fn expect_refusal(&mut self, version: u8) -> Option<u8> {
        let connack = self.last_words(version).await?;
        assert_eq!((connack[0], connack[2]), (0x20, 0), "{connack:02x?}");
        assert_ne!(connack[3], 0, "{connack:02x?}");
        Some(connack[3])
    }
}

/// `bytes` with its one occurrence of `from` replaced by as many bytes.
fn swapped(bytes: &[u8], from: &[u8], to: &[u8]) -> Vec<u8> {
    assert_eq!(from.len(), to.len());
    let places: Vec<_> = (0..bytes.len()).filter(|place| bytes[*place..].starts_with(from)).collect();
    assert_eq!(places.len(), 1, "{from:02x?} in {bytes:02x?}");
    let mut bytes = bytes.to_vec();
    bytes[places[0]..places[0] + to.len()].copy_from_slice(to);
    bytes
}

/// A PUBLISH of MQTT 5 at QoS 0 to [`OWN`] with these properties.
fn with_properties(properties: &[u8]) -> Vec<u8> {
    wire::publish_with(5, 0, 0, OWN, properties, b"x")
}

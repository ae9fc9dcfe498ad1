//! Clients that talk to each other through a gateway, by topics that belong to no device.

use tokio::net::TcpStream;

use super::super::super::{Action, Config, Effect, Rule};
use super::super::gateway::{Client, Gateway, open_config};
use super::super::wire::{self, Connect, plain};
use super::{form, open};

/// A configuration in which everybody may publish and subscribe everywhere but below `closed/`.
pub(super) fn config() -> Config {
    let mut config = open_config();
    let rule = |effect, filter: &str| {
        let filter = filter.parse().expect("a filter");
        Rule { effect, action: Action::All, filter, user: None }
    };
    config.access.rules = vec![rule(Effect::Deny, "closed/#"), rule(Effect::Allow, "#")];
    config
}

pub(super) fn house() -> Gateway {
    Gateway::with(&config())
}

/// A CONNECT whose session is resumed if there is one, and lasts for an hour at least.
pub(super) fn lasting(version: u8, id: &str) -> Connect<'_> {
    let properties: &[u8] = if version == 5 { &[0x11, 0, 0, 0x0e, 0x10] } else { &[] };
    Connect { flags: 0, properties, ..plain(version, id) }
}

/// A client with a lasting session, and whether there was one.
pub(super) async fn resume(gateway: &Gateway, version: u8, id: &str) -> (Client<TcpStream>, bool) {
    let (client, connack) = open(gateway, &lasting(version, id)).await;
    assert_eq!(connack[3], 0, "{connack:02x?}");
    (client, connack[2] == 1)
}

/// A PUBLISH that a client got.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Heard {
    pub(super) dup: bool,
    pub(super) qos: u8,
    pub(super) retain: bool,
    /// 0 at QoS 0.
    pub(super) id: u16,
    pub(super) topic: String,
    pub(super) properties: Vec<(u8, Vec<u8>)>,
    pub(super) payload: String,
}

impl Heard {
    pub(super) fn read(version: u8, packet: &[u8]) -> Self {
        let (first, body) = form::split(packet);
        assert_eq!(first & 0xf0, 0x30, "not a PUBLISH: {packet:02x?}");
        let mut body = form::Reader(body);
        let qos = first >> 1 & 3;
        Self {
            dup: first & 8 != 0,
            qos,
            retain: first & 1 != 0,
            topic: body.string().to_owned(),
            id: if qos > 0 { body.id() } else { 0 },
            properties: if version == 5 { body.properties() } else { Vec::new() },
            payload: String::from_utf8(body.rest().to_vec()).expect("UTF-8"),
        }
    }

    /// The values of a property, in their order.
    pub(super) fn values(&self, name: u8) -> Vec<&[u8]> {
        self.properties.iter().filter(|(own, _)| *own == name).map(|(_, value)| &value[..]).collect()
    }
}

impl Client<TcpStream> {
    /// Subscribes and returns the code of the answer. Deliveries may come before it, and stay to be read.
    pub(super) async fn subscribe(&mut self, version: u8, filter: &str, options: u8) -> u8 {
        self.send(&wire::subscribe(version, 0x7001, &[(filter, options)])).await;
        let mut earlier = Vec::new();
        let suback = loop {
            let packet = self.next(version).await;
            if packet[0] & 0xf0 != 0x30 {
                break packet;
            }
            earlier.extend(packet);
        };
        self.put_back(earlier);
        assert_eq!((suback[0], &suback[2..4]), (0x90, &[0x70, 0x01][..]), "{suback:02x?}");
        *suback.last().unwrap()
    }

    /// Packets that were read too early.
    fn put_back(&mut self, mut packets: Vec<u8>) {
        packets.append(&mut self.buffer);
        self.buffer = packets;
    }

    /// Subscribes and asserts that the QoS that was asked for is granted.
    pub(super) async fn listen(&mut self, version: u8, filter: &str, options: u8) {
        assert_eq!(self.subscribe(version, filter, options).await, options & 3, "{filter}");
    }

    /// Unsubscribes from a filter that it is subscribed to.
    pub(super) async fn unlisten(&mut self, version: u8, filter: &str) {
        self.send(&wire::unsubscribe(version, 0x7002, &[filter])).await;
        let unsuback = self.next(version).await;
        assert_eq!(unsuback[0], 0xb0, "{unsuback:02x?}");
        assert!(version == 4 || unsuback.ends_with(&[0]), "{unsuback:02x?}");
    }

    /// Publishes, and goes through the exchange of its QoS to the end.
    pub(super) async fn say(&mut self, version: u8, qos: u8, topic: &str, payload: &str) {
        self.say_with(version, qos << 1, topic, &[], payload).await;
    }

    /// The same with header flags and properties.
    pub(super) async fn say_with(
        &mut self,
        version: u8,
        flags: u8,
        topic: &str,
        properties: &[u8],
        payload: &str,
    ) {
        let id = 0x7003;
        self.send(&wire::publish_with(version, flags, id, topic, properties, payload.as_bytes())).await;
        match flags >> 1 & 3 {
            0 => self.expect_silence().await,
            1 => self.expect_accepted(version, 0x40, id).await,
            _ => {
                self.expect_accepted(version, 0x50, id).await;
                self.send(&wire::pubrel(id)).await;
                self.expect(&[&wire::pubcomp(id)]).await;
            }
        }
    }

    /// Asserts an acknowledgement that accepts; with MQTT 5 nobody may be listening.
    async fn expect_accepted(&mut self, version: u8, first: u8, id: u16) {
        let got = self.next(version).await;
        let unheard = version == 5 && got == wire::ack(first, id, 0x10);
        assert!(unheard || got == wire::ack(first, id, 0), "{got:02x?}");
    }

    /// The next packet, which is a PUBLISH; it is not acknowledged.
    pub(super) async fn hear(&mut self, version: u8) -> Heard {
        Heard::read(version, &self.next(version).await)
    }

    /// The next packet, which is a PUBLISH, acknowledged to the end of its exchange.
    pub(super) async fn take(&mut self, version: u8) -> Heard {
        let heard = self.hear(version).await;
        self.acknowledge(&heard).await;
        heard
    }

    /// Goes through the exchange of a delivery to its end. Other packets that come meanwhile stay to be
    /// read.
    pub(super) async fn acknowledge(&mut self, heard: &Heard) {
        match heard.qos {
            0 => {}
            1 => self.send(&wire::puback(heard.id)).await,
            _ => {
                self.send(&wire::pubrec(heard.id)).await;
                let mut others = Vec::new();
                loop {
                    let packet = self.packet().await;
                    if packet == wire::pubrel(heard.id) {
                        break;
                    }
                    others.extend(packet);
                }
                self.put_back(others);
                self.send(&wire::pubcomp(heard.id)).await;
            }
        }
    }

    /// Asserts the payloads of the next deliveries, acknowledged one by one.
    pub(super) async fn expect_payloads(&mut self, version: u8, payloads: &[&str]) {
        for payload in payloads {
            assert_eq!(self.take(version).await.payload, *payload);
        }
    }

    /// Leaves with DISCONNECT, and waits for the end.
    pub(super) async fn leave(mut self) {
        self.send(&[0xe0, 0]).await;
        self.expect_end(&[]).await;
    }
}

/// Loses a connection without DISCONNECT, and waits until the gateway noticed.
pub(super) async fn lose(gateway: &Gateway, client: Client<TcpStream>, left: usize) {
    drop(client);
    gateway.connections(left).await;
}

/// Leaves by DISCONNECT, and waits until the gateway is done with the connection.
pub(super) async fn part(gateway: &Gateway, client: Client<TcpStream>, left: usize) {
    client.leave().await;
    gateway.connections(left).await;
}

/// Lets real time pass: expiry is counted by the clock of the wall.
pub(super) async fn let_pass(time: std::time::Duration) {
    let nothing = tokio::time::timeout(time, std::future::pending::<()>()).await;
    assert!(nothing.is_err());
}

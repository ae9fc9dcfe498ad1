//! A connection that leaves sessions to the device: rumqttc's packets on a socket of our own.
//!
//! rumqttc's client chooses packet ids itself, answers PUBREC by itself and keeps what it has pending
//! to itself, so no device can go on with an exchange on the next connection as it must. Here the
//! device says what is written, under which packet id, and whether with DUP. There is no TLS, since
//! nobody has needed it.

use std::io;
use std::time::Duration;

use bytes::{Buf as _, Bytes, BytesMut};
use rumqttc::mqttbytes::v4;
use rumqttc::v5::mqttbytes::{self as bytes5, v5};
use rumqttc::{ConnectReturnCode, mqttbytes};
use testkit::ledger::Qos;
use tokio::io::Interest;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};

use crate::device::Publish;
use crate::execute::{Incoming, SUBSCRIBE_PKID};
use crate::link::{Signal, Target};

/// Longest time for a connect and CONNACK together.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(20);
/// How long a session lasts after its connection.
const EXPIRY_SECONDS: u32 = 3600;
/// Room for what is read at once.
const READ_BYTES: usize = 2 << 10;

/// A connection after CONNACK.
#[derive(Debug)]
pub(crate) struct Link {
    stream: TcpStream,
    input: BytesMut,
    output: BytesMut,
    version_5: bool,
    packet_bytes_max: usize,
    keep_alive: Duration,
    /// When something was written last.
    written: Instant,
}

/// What CONNACK said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Accepted {
    pub(crate) session_present: bool,
    /// How many publishes an MQTT 5 gateway allows at once.
    pub(crate) receive_max: Option<u16>,
}

/// A packet that says something.
enum Packet {
    Accepted(Accepted),
    Signal(Signal),
    /// The gateway ends the connection, with its reason.
    End(String),
}

impl Link {
    /// Connects to one of the target's places; `lasting`: the session is to outlive the connection, and an earlier
    /// one goes on.
    pub(crate) async fn open(
        target: &Target,
        place: usize,
        id: &str,
        version_5: bool,
        lasting: bool,
    ) -> Result<(Self, Accepted), String> {
        let opened = timeout(CONNECT_TIMEOUT, Self::connect(target, place, id, version_5, lasting)).await;
        opened.map_err(|_| "no CONNACK in time".to_owned())?
    }

    async fn connect(
        target: &Target,
        place: usize,
        id: &str,
        version_5: bool,
        lasting: bool,
    ) -> Result<(Self, Accepted), String> {
        let (host, port) = target.places.get(place).ok_or("there is no such target")?;
        let stream = TcpStream::connect((host.as_str(), *port)).await.map_err(text)?;
        stream.set_nodelay(true).map_err(text)?;
        let mut link = Self {
            stream,
            input: BytesMut::new(),
            output: BytesMut::new(),
            version_5,
            packet_bytes_max: target.packet_bytes_max,
            keep_alive: target.keep_alive,
            written: Instant::now(),
        };
        link.write_connect(target, id, lasting)?;
        match link.packet().await? {
            Packet::Accepted(accepted) => Ok((link, accepted)),
            Packet::Signal(_) => Err("something came before CONNACK".to_owned()),
            Packet::End(reason) => Err(reason),
        }
    }

    /// Works on the connection until something happens.
    ///
    /// # Cancel safety
    /// Cancel safe: what is half written or half read stays in the link.
    pub(crate) async fn next(&mut self) -> Result<Signal, String> {
        match self.packet().await? {
            Packet::Signal(signal) => Ok(signal),
            Packet::Accepted(_) => Err("a second CONNACK".to_owned()),
            Packet::End(reason) => Err(reason),
        }
    }

    /// When a PINGREQ is due if nothing else is written.
    pub(crate) fn ping_due(&self) -> Instant {
        self.written + self.keep_alive / 2
    }

    /// Asks for a PINGRESP, so that the gateway keeps the connection.
    pub(crate) fn ping(&mut self) -> Result<(), String> {
        self.written = Instant::now();
        if self.version_5 {
            v5::PingReq::write(&mut self.output).map_err(text)?;
        } else {
            v4::PingReq.write(&mut self.output).map_err(text)?;
        }
        Ok(())
    }

    /// Writes a PUBLISH, with the next [`Self::next`].
    pub(crate) fn publish(
        &mut self,
        topic: &str,
        publish: Publish,
        pkid: u16,
        dup: bool,
    ) -> Result<(), String> {
        self.written = Instant::now();
        let payload = Bytes::from(publish.payload);
        if self.version_5 {
            let qos = match publish.qos {
                Qos::AtMostOnce => bytes5::QoS::AtMostOnce,
                Qos::AtLeastOnce => bytes5::QoS::AtLeastOnce,
                Qos::ExactlyOnce => bytes5::QoS::ExactlyOnce,
            };
            let mut packet = v5::Publish::new(topic, qos, payload, None);
            (packet.pkid, packet.dup) = (pkid, dup);
            packet.write(&mut self.output).map_err(text)?;
        } else {
            let qos = match publish.qos {
                Qos::AtMostOnce => mqttbytes::QoS::AtMostOnce,
                Qos::AtLeastOnce => mqttbytes::QoS::AtLeastOnce,
                Qos::ExactlyOnce => mqttbytes::QoS::ExactlyOnce,
            };
            let mut packet = v4::Publish::from_bytes(topic, qos, payload);
            (packet.pkid, packet.dup) = (pkid, dup);
            packet.write(&mut self.output).map_err(text)?;
        }
        Ok(())
    }

    /// Writes a PUBREL, with the next [`Self::next`].
    pub(crate) fn release(&mut self, pkid: u16) -> Result<(), String> {
        self.written = Instant::now();
        if self.version_5 {
            v5::PubRel::new(pkid, None).write(&mut self.output).map_err(text)?;
        } else {
            v4::PubRel::new(pkid).write(&mut self.output).map_err(text)?;
        }
        Ok(())
    }

    /// Writes a SUBSCRIBE at QoS 1, with the next [`Self::next`].
    pub(crate) fn subscribe(&mut self, filter: &str) -> Result<(), String> {
        self.written = Instant::now();
        if self.version_5 {
            let filter = v5::Filter::new(filter, bytes5::QoS::AtLeastOnce);
            let mut packet = v5::Subscribe::new(filter, None);
            packet.pkid = SUBSCRIBE_PKID;
            packet.write(&mut self.output).map_err(text)?;
        } else {
            let mut packet = v4::Subscribe::new(filter, mqttbytes::QoS::AtLeastOnce);
            packet.pkid = SUBSCRIBE_PKID;
            packet.write(&mut self.output).map_err(text)?;
        }
        Ok(())
    }

    /// Writes a PUBACK for a command, with the next [`Self::next`]; `refused` is the reason of MQTT 5.
    pub(crate) fn acknowledge(&mut self, pkid: u16, refused: Option<u8>) {
        self.written = Instant::now();
        let [high, low] = pkid.to_be_bytes();
        // By hand, since rumqttc's packet knows some of the reasons only.
        match refused.filter(|_| self.version_5) {
            Some(reason) => self.output.extend_from_slice(&[0x40, 3, high, low, reason]),
            None => self.output.extend_from_slice(&[0x40, 2, high, low]),
        }
    }

    /// Writes a PUBLISH of the answer to a command at QoS 1, with the next [`Self::next`].
    pub(crate) fn answer(
        &mut self,
        topic: &str,
        payload: Vec<u8>,
        correlation: Option<Bytes>,
        pkid: u16,
    ) -> Result<(), String> {
        self.written = Instant::now();
        let payload = Bytes::from(payload);
        if self.version_5 {
            let properties = v5::PublishProperties { correlation_data: correlation, ..Default::default() };
            let mut packet = v5::Publish::new(topic, bytes5::QoS::AtLeastOnce, payload, Some(properties));
            packet.pkid = pkid;
            packet.write(&mut self.output).map_err(text)?;
        } else {
            let mut packet = v4::Publish::from_bytes(topic, mqttbytes::QoS::AtLeastOnce, payload);
            packet.pkid = pkid;
            packet.write(&mut self.output).map_err(text)?;
        }
        Ok(())
    }

    /// Says goodbye and closes, so that the gateway sees no broken connection.
    pub(crate) async fn close(mut self) {
        let written = if self.version_5 {
            v5::Disconnect::new(v5::DisconnectReasonCode::NormalDisconnection).write(&mut self.output).is_ok()
        } else {
            v4::Disconnect.write(&mut self.output).is_ok()
        };
        if !written {
            return;
        }
        let send = async {
            while !self.output.is_empty() {
                self.stream.writable().await?;
                self.write_some()?;
            }
            Ok::<(), io::Error>(())
        };
        // Whoever does not take it sees a broken connection.
        drop(timeout(Duration::from_secs(1), send).await);
    }

    /// Resets the connection; what was to be written is cut in the middle.
    pub(crate) fn reset(mut self) {
        self.output.truncate(self.output.len() / 2);
        if !self.output.is_empty() {
            drop(self.write_some());
        }
        drop(self.stream.set_zero_linger());
    }

    fn write_connect(&mut self, target: &Target, id: &str, lasting: bool) -> Result<(), String> {
        let keep_alive = u16::try_from(target.keep_alive.as_secs()).unwrap_or(u16::MAX);
        let login = target.login(id);
        if self.version_5 {
            let mut properties = v5::ConnectProperties::new();
            properties.session_expiry_interval = lasting.then_some(EXPIRY_SECONDS);
            let connect = v5::Connect {
                keep_alive,
                client_id: id.to_owned(),
                clean_start: !lasting,
                properties: Some(properties),
            };
            let login = login.map(|(username, password)| v5::Login::new(username, password));
            connect.write(&None, &login, &mut self.output).map_err(text)?;
        } else {
            let mut connect = v4::Connect::new(id);
            (connect.keep_alive, connect.clean_session) = (keep_alive, !lasting);
            if let Some((username, password)) = login {
                connect.set_login(username, password);
            }
            connect.write(&mut self.output).map_err(text)?;
        }
        Ok(())
    }

    /// Writes and reads until a packet is complete.
    async fn packet(&mut self) -> Result<Packet, String> {
        loop {
            if let Some(packet) = self.parse()? {
                return Ok(packet);
            }
            let wanted = if self.output.is_empty() {
                Interest::READABLE
            } else {
                Interest::READABLE | Interest::WRITABLE
            };
            let ready = self.stream.ready(wanted).await.map_err(text)?;
            if ready.is_writable() && !self.output.is_empty() {
                self.write_some().map_err(text)?;
            }
            if ready.is_readable() {
                self.read_some()?;
            }
        }
    }

    fn write_some(&mut self) -> io::Result<()> {
        match self.stream.try_write(&self.output) {
            Ok(written) => {
                self.output.advance(written);
                if self.output.is_empty() {
                    // Thousands of devices that are quiet own no buffer.
                    self.output = BytesMut::new();
                }
                Ok(())
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
            Err(error) => Err(error),
        }
    }

    fn read_some(&mut self) -> Result<(), String> {
        let mut room = [0; READ_BYTES];
        match self.stream.try_read(&mut room) {
            Ok(0) => Err("the gateway closed the connection".to_owned()),
            Ok(read) => {
                self.input.extend_from_slice(room.get(..read).unwrap_or_default());
                Ok(())
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
            Err(error) => Err(error.to_string()),
        }
    }

    /// Takes a packet out of what was read.
    fn parse(&mut self) -> Result<Option<Packet>, String> {
        if self.input.is_empty() {
            return Ok(None);
        }
        let packet = if self.version_5 {
            let max = u32::try_from(self.packet_bytes_max).ok();
            match v5::Packet::read(&mut self.input, max) {
                Err(bytes5::Error::InsufficientBytes(_)) => return Ok(None),
                packet => meaning_v5(packet.map_err(text)?),
            }
        } else {
            match v4::Packet::read(&mut self.input, self.packet_bytes_max) {
                Err(mqttbytes::Error::InsufficientBytes(_)) => return Ok(None),
                packet => meaning_v4(packet.map_err(text)?),
            }
        };
        if self.input.is_empty() {
            self.input = BytesMut::new();
        }
        Ok(Some(packet))
    }
}

fn meaning_v4(packet: v4::Packet) -> Packet {
    Packet::Signal(match packet {
        v4::Packet::ConnAck(ack) if ack.code == ConnectReturnCode::Success => {
            return Packet::Accepted(Accepted { session_present: ack.session_present, receive_max: None });
        }
        v4::Packet::ConnAck(ack) => return Packet::End(format!("refused: {:?}", ack.code)),
        v4::Packet::PubAck(ack) => Signal::Acked { pkid: ack.pkid, accepted: true },
        v4::Packet::PubRec(rec) => Signal::Received { pkid: rec.pkid, accepted: true },
        v4::Packet::PubComp(comp) => Signal::Completed(comp.pkid),
        v4::Packet::SubAck(ack) => {
            let refused = |code: &v4::SubscribeReasonCode| *code == v4::SubscribeReasonCode::Failure;
            Signal::Subscribed { accepted: !ack.return_codes.iter().any(refused) }
        }
        v4::Packet::Publish(publish) => Signal::Command(Box::new(Incoming {
            pkid: publish.pkid,
            topic: publish.topic,
            payload: publish.payload,
            redelivered: None,
            response_topic: None,
            correlation: None,
        })),
        _ => Signal::Other,
    })
}

fn meaning_v5(packet: v5::Packet) -> Packet {
    Packet::Signal(match packet {
        v5::Packet::ConnAck(ack) if ack.code == v5::ConnectReturnCode::Success => {
            let receive_max = ack.properties.and_then(|properties| properties.receive_max);
            return Packet::Accepted(Accepted { session_present: ack.session_present, receive_max });
        }
        v5::Packet::ConnAck(ack) => return Packet::End(format!("refused: {:?}", ack.code)),
        v5::Packet::PubAck(ack) => {
            let accepted =
                matches!(ack.reason, v5::PubAckReason::Success | v5::PubAckReason::NoMatchingSubscribers);
            Signal::Acked { pkid: ack.pkid, accepted }
        }
        v5::Packet::PubRec(rec) => {
            let accepted =
                matches!(rec.reason, v5::PubRecReason::Success | v5::PubRecReason::NoMatchingSubscribers);
            Signal::Received { pkid: rec.pkid, accepted }
        }
        v5::Packet::PubComp(comp) => Signal::Completed(comp.pkid),
        v5::Packet::SubAck(ack) => {
            let granted =
                |code: &v5::SubscribeReasonCode| matches!(code, v5::SubscribeReasonCode::Success(_));
            Signal::Subscribed { accepted: ack.return_codes.iter().all(granted) }
        }
        v5::Packet::Publish(publish) => Signal::Command(Box::new(command_v5(publish))),
        v5::Packet::Disconnect(end) => return Packet::End(format!("disconnected: {:?}", end.reason_code)),
        _ => Signal::Other,
    })
}

fn command_v5(publish: v5::Publish) -> Incoming {
    let properties = publish.properties.unwrap_or_default();
    let mut marks = properties.user_properties.iter().filter(|(name, _)| name == "redelivered");
    Incoming {
        pkid: publish.pkid,
        // What is no UTF-8 is no command topic either.
        topic: String::from_utf8_lossy(&publish.topic).into_owned(),
        payload: publish.payload,
        redelivered: Some(marks.any(|(_, value)| value == "true")),
        response_topic: properties.response_topic,
        correlation: properties.correlation_data,
    }
}

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}

//! CONNECT (section 3.1).

use super::malformed::Malformed;
use super::properties::{self, Allowed, Property};
use super::publish::PublishProperties;
use super::reader::Reader;
use super::{Qos, Version, topic};

/// One CONNECT.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Connect<'a> {
    pub(crate) version: Version,
    /// Clean Session of 3.1.1, Clean Start of 5.
    pub(crate) clean: bool,
    /// Seconds; zero for none.
    pub(crate) keep_alive: u16,
    pub(crate) client_id: &'a str,
    pub(crate) will: Option<Will<'a>>,
    pub(crate) user_name: Option<&'a str>,
    pub(crate) password: Option<&'a [u8]>,
    /// Seconds; always zero with 3.1.1.
    pub(crate) session_expiry: u32,
    /// Largest packet the client takes, in bytes.
    pub(crate) packet_bytes_max: Option<u32>,
    /// Most QoS 1 and 2 publishes the client takes before it acknowledges one; never zero.
    pub(crate) receive_max: u16,
    /// Highest topic alias the client takes; zero for none.
    pub(crate) topic_alias_max: u16,
    /// The client asks where responses may be sent.
    pub(crate) request_response: bool,
    /// Whether reason strings and user properties may be sent beside CONNACK, PUBLISH and DISCONNECT.
    pub(crate) request_problem: bool,
    /// The client asks for enhanced authentication of this name.
    pub(crate) authentication_method: Option<&'a str>,
}

/// The will of a CONNECT.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Will<'a> {
    pub(crate) qos: Qos,
    pub(crate) retain: bool,
    /// Seconds from the end of the connection until it is due.
    pub(crate) delay_seconds: u32,
    pub(crate) topic: &'a str,
    pub(crate) payload: &'a [u8],
    pub(crate) properties: PublishProperties<'a>,
}

const FLAG_CLEAN: u8 = 0x02;
const FLAG_WILL: u8 = 0x04;
const FLAG_WILL_RETAIN: u8 = 0x20;
const FLAG_PASSWORD: u8 = 0x40;
const FLAG_USER_NAME: u8 = 0x80;

impl<'a> Connect<'a> {
    /// Decodes the body of a CONNECT.
    pub(crate) fn decode(body: &'a [u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(body);
        let version = read_version(&mut reader)?;
        let flags = reader.u8()?;
        check_flags(flags, version)?;
        let keep_alive = reader.u16()?;
        let mut connect = Self {
            version,
            clean: flags & FLAG_CLEAN != 0,
            keep_alive,
            client_id: "",
            will: None,
            user_name: None,
            password: None,
            session_expiry: 0,
            packet_bytes_max: None,
            receive_max: u16::MAX,
            topic_alias_max: 0,
            request_response: false,
            request_problem: true,
            authentication_method: None,
        };
        if version == Version::V5 {
            connect.read_properties(&mut reader)?;
        }
        connect.client_id = reader.string()?;
        if flags & FLAG_WILL != 0 {
            connect.will = Some(Will::read(&mut reader, flags, version)?);
        }
        if flags & FLAG_USER_NAME != 0 {
            connect.user_name = Some(reader.string()?);
        }
        if flags & FLAG_PASSWORD != 0 {
            connect.password = Some(reader.binary()?);
        }
        reader.end()?;
        Ok(connect)
    }

    fn read_properties(&mut self, reader: &mut Reader<'a>) -> Result<(), Malformed> {
        let mut data = false;
        properties::read(reader, Allowed::CONNECT, |property| match property {
            Property::SessionExpiry(seconds) => self.session_expiry = seconds,
            Property::PacketBytesMax(bytes) => self.packet_bytes_max = Some(bytes),
            Property::ReceiveMaximum(count) => self.receive_max = count,
            Property::TopicAliasMaximum(highest) => self.topic_alias_max = highest,
            Property::RequestResponse(wanted) => self.request_response = wanted,
            Property::RequestProblem(wanted) => self.request_problem = wanted,
            Property::AuthenticationMethod(name) => self.authentication_method = Some(name),
            Property::AuthenticationData(_) => data = true,
            _ => {}
        })?;
        if data && self.authentication_method.is_none() {
            return Err(Malformed::AuthenticationMethod);
        }
        Ok(())
    }
}

impl<'a> Will<'a> {
    fn read(reader: &mut Reader<'a>, flags: u8, version: Version) -> Result<Self, Malformed> {
        let properties = match version {
            Version::V3 => PublishProperties::default(),
            Version::V5 => PublishProperties::read(reader, Allowed::WILL)?,
        };
        let topic = reader.string()?;
        if !topic::is_name(topic) {
            return Err(Malformed::TopicName);
        }
        let payload = reader.binary()?;
        let qos = Qos::from_bits(flags >> 3)?;
        let retain = flags & FLAG_WILL_RETAIN != 0;
        let delay_seconds = properties.will_delay.unwrap_or(0);
        Ok(Self { qos, retain, delay_seconds, topic, payload, properties })
    }
}

/// The version that a CONNECT body asks for, however broken the rest is; the refusal has to be
/// written in that version.
pub(crate) fn version_of(body: &[u8]) -> Result<Version, Malformed> {
    read_version(&mut Reader::new(body))
}

fn read_version(reader: &mut Reader<'_>) -> Result<Version, Malformed> {
    let name = reader.binary()?;
    match (name, reader.u8()?) {
        (b"MQTT", 4) => Ok(Version::V3),
        (b"MQTT", 5) => Ok(Version::V5),
        (b"MQTT" | b"MQIsdp", level) => Err(Malformed::ProtocolLevel(level)),
        _ => Err(Malformed::ProtocolName),
    }
}

fn check_flags(flags: u8, version: Version) -> Result<(), Malformed> {
    let reserved = flags & 1 != 0;
    let will = flags & FLAG_WILL != 0;
    let will_bits_without_will = !will && flags & 0x38 != 0;
    // [MQTT-3.1.2-22] of 3.1.1; MQTT 5 allows a password alone.
    let password_alone = version == Version::V3 && flags & FLAG_PASSWORD != 0 && flags & FLAG_USER_NAME == 0;
    if reserved || will_bits_without_will || password_alone || (will && flags & 0x18 == 0x18) {
        return Err(Malformed::ConnectFlags);
    }
    Ok(())
}

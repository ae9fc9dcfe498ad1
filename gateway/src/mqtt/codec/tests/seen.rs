//! What a packet of a client says, as our decoder and as rumqttc's understand it.
//!
//! Both are brought into one shape, so that they can be compared for equality. A field that one of them
//! does not show is left out of it: the user properties of an acknowledgement, which we check and drop, and
//! the difference between an absent value and its default.

use bytes::BytesMut;
use rumqttc::mqttbytes::v4;
use rumqttc::v5::mqttbytes::v5;

use super::super::{
    Ack, AckKind, Connect, Disconnect, Frame, Malformed, PacketType, Publish, PublishProperties,
    RetainHandling, Split, Subscribe, Unsubscribe, Version, auth, ping, split, version_of,
};
use super::BYTES_MAX;

/// A packet of a client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Seen {
    Connect(Box<SeenConnect>),
    Publish(Box<SeenPublish>),
    /// The packet type, the packet id and the reason code.
    Ack(u8, u16, u8),
    Subscribe {
        id: u16,
        subscription_id: Option<u32>,
        filters: Vec<SeenFilter>,
    },
    Unsubscribe {
        id: u16,
        filters: Vec<String>,
    },
    Ping,
    Disconnect {
        with_will: bool,
        session_expiry: Option<u32>,
    },
    Auth,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct SeenConnect {
    pub(super) five: bool,
    pub(super) clean: bool,
    pub(super) keep_alive: u16,
    pub(super) client_id: String,
    pub(super) will: Option<SeenPublish>,
    pub(super) will_delay: u32,
    pub(super) user: String,
    pub(super) password: Vec<u8>,
    pub(super) session_expiry: u32,
    pub(super) receive_max: u16,
    pub(super) packet_bytes_max: Option<u32>,
    pub(super) topic_alias_max: u16,
    pub(super) request_response: bool,
    pub(super) request_problem: bool,
    pub(super) authentication_method: Option<String>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct SeenPublish {
    pub(super) dup: bool,
    pub(super) qos: u8,
    pub(super) retain: bool,
    pub(super) topic: Vec<u8>,
    pub(super) id: u16,
    pub(super) alias: Option<u16>,
    pub(super) text: bool,
    pub(super) expiry: Option<u32>,
    pub(super) content_type: Option<String>,
    pub(super) response_topic: Option<String>,
    pub(super) correlation: Option<Vec<u8>>,
    pub(super) user: Vec<(String, String)>,
    pub(super) subscription_ids: Vec<usize>,
    pub(super) payload: Vec<u8>,
}

/// The filter, the level, No Local, Retain As Published and Retain Handling.
pub(super) type SeenFilter = (String, u8, bool, bool, u8);

/// Our decoder; nothing if the packet is not whole.
pub(super) fn ours(bytes: &[u8], version: Version) -> Result<Option<Seen>, Malformed> {
    let Split::Frame(frame) = split(bytes, BYTES_MAX)? else { return Ok(None) };
    let Frame { kind, body, .. } = frame;
    let ack =
        |number, kind| Ack::decode(body, kind, version).map(|ack| Seen::Ack(number, ack.id, ack.reason));
    Ok(Some(match kind {
        PacketType::Connect => Seen::Connect(Box::new(connect(&Connect::decode(body)?))),
        PacketType::Publish => Seen::Publish(Box::new(publish(&Publish::decode(&frame, version)?))),
        PacketType::Puback => ack(4, AckKind::Puback)?,
        PacketType::Pubrec => ack(5, AckKind::Pubrec)?,
        PacketType::Pubrel => ack(6, AckKind::Pubrel)?,
        PacketType::Pubcomp => ack(7, AckKind::Pubcomp)?,
        PacketType::Subscribe => {
            let subscribe = Subscribe::decode(body, version)?;
            let filters = subscribe.requests().map(|request| {
                let handling = match request.retain_handling {
                    RetainHandling::Send => 0,
                    RetainHandling::SendIfNew => 1,
                    RetainHandling::Never => 2,
                };
                let (no_local, retain) = (request.no_local, request.retain_as_published);
                (request.filter.to_owned(), request.qos.number(), no_local, retain, handling)
            });
            let (id, subscription_id) = (subscribe.id, subscribe.subscription_id);
            Seen::Subscribe { id, subscription_id, filters: filters.collect() }
        }
        PacketType::Unsubscribe => {
            let unsubscribe = Unsubscribe::decode(body, version)?;
            let filters = unsubscribe.filters().map(str::to_owned).collect();
            Seen::Unsubscribe { id: unsubscribe.id, filters }
        }
        PacketType::Pingreq => ping(body).map(|()| Seen::Ping)?,
        PacketType::Disconnect => {
            let Disconnect { with_will, session_expiry } = Disconnect::decode(body, version)?;
            Seen::Disconnect { with_will, session_expiry }
        }
        PacketType::Auth => auth(body, version).map(|()| Seen::Auth)?,
    }))
}

/// The version of a packet: a CONNECT says itself which one it has, any other has that of its connection.
pub(super) fn version_in(bytes: &[u8], version: Version) -> Version {
    match split(bytes, BYTES_MAX) {
        Ok(Split::Frame(Frame { kind: PacketType::Connect, body, .. })) => {
            version_of(body).unwrap_or(version)
        }
        _ => version,
    }
}

/// rumqttc's decoder; with an error, its name.
pub(super) fn theirs(bytes: &[u8], version: Version) -> Result<Seen, String> {
    let mut stream = BytesMut::from(bytes);
    match version_in(bytes, version) {
        Version::V3 => {
            let packet = v4::Packet::read(&mut stream, BYTES_MAX).map_err(|error| name(&error))?;
            of_v4(packet)
        }
        Version::V5 => {
            let packet = v5::Packet::read(&mut stream, None).map_err(|error| name(&error))?;
            of_v5(packet)
        }
    }
}

/// The variant of an error without what it holds.
fn name(error: &impl std::fmt::Debug) -> String {
    format!("{error:?}").split(['(', ' ']).next().unwrap_or_default().to_owned()
}

fn connect(connect: &Connect<'_>) -> SeenConnect {
    let will = connect.will.as_ref().map(|will| SeenPublish {
        qos: will.qos.number(),
        retain: will.retain,
        topic: will.topic.into(),
        payload: will.payload.into(),
        ..told(&will.properties)
    });
    SeenConnect {
        five: connect.version == Version::V5,
        clean: connect.clean,
        keep_alive: connect.keep_alive,
        client_id: connect.client_id.to_owned(),
        will,
        will_delay: connect.will.as_ref().map_or(0, |will| will.delay_seconds),
        user: connect.user_name.unwrap_or_default().to_owned(),
        password: connect.password.unwrap_or_default().to_vec(),
        session_expiry: connect.session_expiry,
        receive_max: connect.receive_max,
        packet_bytes_max: connect.packet_bytes_max,
        topic_alias_max: connect.topic_alias_max,
        request_response: connect.request_response,
        request_problem: connect.request_problem,
        authentication_method: connect.authentication_method.map(str::to_owned),
    }
}

fn publish(publish: &Publish<'_>) -> SeenPublish {
    SeenPublish {
        dup: publish.dup,
        qos: publish.qos.number(),
        retain: publish.retain,
        topic: publish.topic.into(),
        id: publish.id,
        alias: publish.alias,
        payload: publish.payload.into(),
        ..told(&publish.properties)
    }
}

fn told(properties: &PublishProperties<'_>) -> SeenPublish {
    SeenPublish {
        text: properties.text,
        expiry: properties.expiry_seconds,
        content_type: properties.content_type.map(str::to_owned),
        response_topic: properties.response_topic.map(str::to_owned),
        correlation: properties.correlation_data.map(<[u8]>::to_vec),
        user: properties.user().map(|(name, value)| (name.to_owned(), value.to_owned())).collect(),
        ..SeenPublish::default()
    }
}

/// What one of rumqttc's packets says, if a client may send it.
pub(super) fn of_v4(packet: v4::Packet) -> Result<Seen, String> {
    Ok(match packet {
        v4::Packet::Connect(connect) => {
            let login = connect.login.unwrap_or_else(|| v4::Login::new("", ""));
            Seen::Connect(Box::new(SeenConnect {
                five: connect.protocol == rumqttc::mqttbytes::Protocol::V5,
                clean: connect.clean_session,
                keep_alive: connect.keep_alive,
                client_id: connect.client_id,
                will: connect.last_will.map(|will| SeenPublish {
                    qos: will.qos as u8,
                    retain: will.retain,
                    topic: will.topic.into(),
                    payload: will.message.into(),
                    ..SeenPublish::default()
                }),
                user: login.username,
                password: login.password.into(),
                receive_max: u16::MAX,
                request_problem: true,
                ..SeenConnect::default()
            }))
        }
        v4::Packet::Publish(publish) => Seen::Publish(Box::new(SeenPublish {
            dup: publish.dup,
            qos: publish.qos as u8,
            retain: publish.retain,
            topic: publish.topic.into(),
            id: publish.pkid,
            payload: publish.payload.into(),
            ..SeenPublish::default()
        })),
        v4::Packet::PubAck(ack) => Seen::Ack(4, ack.pkid, 0),
        v4::Packet::PubRec(ack) => Seen::Ack(5, ack.pkid, 0),
        v4::Packet::PubRel(ack) => Seen::Ack(6, ack.pkid, 0),
        v4::Packet::PubComp(ack) => Seen::Ack(7, ack.pkid, 0),
        v4::Packet::Subscribe(subscribe) => Seen::Subscribe {
            id: subscribe.pkid,
            subscription_id: None,
            filters: subscribe
                .filters
                .into_iter()
                .map(|filter| (filter.path, filter.qos as u8, false, false, 0))
                .collect(),
        },
        v4::Packet::Unsubscribe(unsubscribe) => {
            Seen::Unsubscribe { id: unsubscribe.pkid, filters: unsubscribe.topics }
        }
        v4::Packet::PingReq => Seen::Ping,
        v4::Packet::Disconnect => Seen::Disconnect { with_will: false, session_expiry: None },
        other => return Err(format!("of a server: {other:?}")),
    })
}

/// The same of MQTT 5.
pub(super) fn of_v5(packet: v5::Packet) -> Result<Seen, String> {
    Ok(match packet {
        v5::Packet::Connect(connect, will, login) => {
            Seen::Connect(Box::new(connect_v5(connect, will, login)))
        }
        v5::Packet::Publish(publish) => Seen::Publish(Box::new(publish_v5(publish))),
        v5::Packet::PubAck(ack) => Seen::Ack(4, ack.pkid, puback_code(ack.reason)),
        v5::Packet::PubRec(ack) => Seen::Ack(5, ack.pkid, pubrec_code(ack.reason)),
        v5::Packet::PubRel(ack) => {
            let found = ack.reason == v5::PubRelReason::Success;
            Seen::Ack(6, ack.pkid, if found { 0 } else { 0x92 })
        }
        v5::Packet::PubComp(ack) => {
            let found = ack.reason == v5::PubCompReason::Success;
            Seen::Ack(7, ack.pkid, if found { 0 } else { 0x92 })
        }
        v5::Packet::Subscribe(subscribe) => {
            let id = subscribe.properties.and_then(|properties| properties.id);
            let filters = subscribe.filters.into_iter().map(|filter| {
                let handling = match filter.retain_forward_rule {
                    v5::RetainForwardRule::OnEverySubscribe => 0,
                    v5::RetainForwardRule::OnNewSubscribe => 1,
                    v5::RetainForwardRule::Never => 2,
                };
                (filter.path, filter.qos as u8, filter.nolocal, filter.preserve_retain, handling)
            });
            Seen::Subscribe {
                id: subscribe.pkid,
                subscription_id: id.map(|id| u32::try_from(id).unwrap()),
                filters: filters.collect(),
            }
        }
        v5::Packet::Unsubscribe(unsubscribe) => {
            Seen::Unsubscribe { id: unsubscribe.pkid, filters: unsubscribe.filters }
        }
        v5::Packet::PingReq(_) => Seen::Ping,
        v5::Packet::Disconnect(disconnect) => Seen::Disconnect {
            with_will: disconnect.reason_code != v5::DisconnectReasonCode::NormalDisconnection,
            session_expiry: disconnect.properties.and_then(|properties| properties.session_expiry_interval),
        },
        other => return Err(format!("of a server: {other:?}")),
    })
}

fn connect_v5(connect: v5::Connect, will: Option<v5::LastWill>, login: Option<v5::Login>) -> SeenConnect {
    let told = connect.properties.unwrap_or_default();
    let login = login.unwrap_or_else(|| v5::Login::new("", ""));
    let will_properties = will.as_ref().and_then(|will| will.properties.clone());
    SeenConnect {
        five: true,
        clean: connect.clean_start,
        keep_alive: connect.keep_alive,
        client_id: connect.client_id,
        will_delay: will_properties.as_ref().and_then(|told| told.delay_interval).unwrap_or(0),
        will: will.map(|will| will_v5(will, will_properties)),
        user: login.username,
        password: login.password.into(),
        session_expiry: told.session_expiry_interval.unwrap_or(0),
        receive_max: told.receive_maximum.unwrap_or(u16::MAX),
        packet_bytes_max: told.max_packet_size,
        topic_alias_max: told.topic_alias_max.unwrap_or(0),
        request_response: told.request_response_info == Some(1),
        request_problem: told.request_problem_info != Some(0),
        authentication_method: told.authentication_method,
    }
}

fn will_v5(will: v5::LastWill, properties: Option<v5::LastWillProperties>) -> SeenPublish {
    let seen = SeenPublish {
        qos: will.qos as u8,
        retain: will.retain,
        topic: will.topic.into(),
        payload: will.message.into(),
        ..SeenPublish::default()
    };
    let Some(told) = properties else { return seen };
    SeenPublish {
        text: told.payload_format_indicator == Some(1),
        expiry: told.message_expiry_interval,
        content_type: told.content_type,
        response_topic: told.response_topic,
        correlation: told.correlation_data.map(Into::into),
        user: told.user_properties,
        ..seen
    }
}

/// A publish, from a client or to one.
pub(super) fn publish_v5(publish: v5::Publish) -> SeenPublish {
    let told = publish.properties.unwrap_or_default();
    SeenPublish {
        dup: publish.dup,
        qos: publish.qos as u8,
        retain: publish.retain,
        topic: publish.topic.into(),
        id: publish.pkid,
        alias: told.topic_alias,
        text: told.payload_format_indicator == Some(1),
        expiry: told.message_expiry_interval,
        content_type: told.content_type,
        response_topic: told.response_topic,
        correlation: told.correlation_data.map(Into::into),
        user: told.user_properties,
        subscription_ids: told.subscription_identifiers,
        payload: publish.payload.into(),
    }
}

fn puback_code(reason: v5::PubAckReason) -> u8 {
    match reason {
        v5::PubAckReason::Success => 0,
        v5::PubAckReason::NoMatchingSubscribers => 0x10,
        v5::PubAckReason::UnspecifiedError => 0x80,
        v5::PubAckReason::ImplementationSpecificError => 0x83,
        v5::PubAckReason::NotAuthorized => 0x87,
        v5::PubAckReason::TopicNameInvalid => 0x90,
        v5::PubAckReason::PacketIdentifierInUse => 0x91,
        v5::PubAckReason::QuotaExceeded => 0x97,
        v5::PubAckReason::PayloadFormatInvalid => 0x99,
    }
}

fn pubrec_code(reason: v5::PubRecReason) -> u8 {
    match reason {
        v5::PubRecReason::Success => 0,
        v5::PubRecReason::NoMatchingSubscribers => 0x10,
        v5::PubRecReason::UnspecifiedError => 0x80,
        v5::PubRecReason::ImplementationSpecificError => 0x83,
        v5::PubRecReason::NotAuthorized => 0x87,
        v5::PubRecReason::TopicNameInvalid => 0x90,
        v5::PubRecReason::PacketIdentifierInUse => 0x91,
        v5::PubRecReason::QuotaExceeded => 0x97,
        v5::PubRecReason::PayloadFormatInvalid => 0x99,
    }
}

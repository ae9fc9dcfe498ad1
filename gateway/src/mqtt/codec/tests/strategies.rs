//! Random valid packets of clients, in rumqttc's types.

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use rumqttc::QoS;
use rumqttc::mqttbytes::v4;
use rumqttc::v5::mqttbytes::{QoS as QoS5, v5};

type User = Vec<(String, String)>;

pub(super) fn topic() -> impl Strategy<Value = String> {
    "[a-zäß/ $]{1,40}"
}

fn filter() -> impl Strategy<Value = String> {
    "[a-zß]{1,5}(/[+]){0,2}(/[#])?|[+]|#|/|[$]SYS/[+]"
}

pub(super) fn bytes() -> impl Strategy<Value = Vec<u8>> {
    vec(any::<u8>(), 0..300)
}

fn text() -> impl Strategy<Value = String> {
    "[ -~äß€𝄞]{0,20}"
}

pub(super) fn user() -> impl Strategy<Value = User> {
    vec((text(), text()), 0..4)
}

pub(super) fn level() -> impl Strategy<Value = u8> {
    0..3_u8
}

fn qos_v4(level: u8) -> QoS {
    [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce][usize::from(level)]
}

fn qos_v5(level: u8) -> QoS5 {
    [QoS5::AtMostOnce, QoS5::AtLeastOnce, QoS5::ExactlyOnce][usize::from(level)]
}

/// Nothing is lost of a login: rumqttc leaves out what is empty.
fn login() -> impl Strategy<Value = Option<(String, String)>> {
    option::of(("[a-z]{1,9}", "[a-z]{0,9}"))
}

pub(super) fn packet_v4() -> impl Strategy<Value = v4::Packet> {
    let id = 1..=u16::MAX;
    let ack = (id.clone(), 0..4_u8).prop_map(|(id, kind)| match kind {
        0 => v4::Packet::PubAck(v4::PubAck::new(id)),
        1 => v4::Packet::PubRec(v4::PubRec::new(id)),
        2 => v4::Packet::PubRel(v4::PubRel::new(id)),
        _ => v4::Packet::PubComp(v4::PubComp::new(id)),
    });
    let subscribe = (id.clone(), vec((filter(), level()), 1..5)).prop_map(|(id, filters)| {
        let filters = filters.into_iter().map(|(path, level)| v4::SubscribeFilter::new(path, qos_v4(level)));
        let mut subscribe = v4::Subscribe::new_many(filters);
        subscribe.pkid = id;
        v4::Packet::Subscribe(subscribe)
    });
    let unsubscribe = (id, vec(filter(), 1..5))
        .prop_map(|(pkid, topics)| v4::Packet::Unsubscribe(v4::Unsubscribe { pkid, topics }));
    prop_oneof![
        4 => publish_v4().prop_map(v4::Packet::Publish),
        4 => connect_v4().prop_map(v4::Packet::Connect),
        1 => ack,
        2 => subscribe,
        1 => unsubscribe,
        1 => Just(v4::Packet::PingReq),
        1 => Just(v4::Packet::Disconnect),
    ]
}

fn publish_v4() -> impl Strategy<Value = v4::Publish> {
    (topic(), level(), 1..=u16::MAX, any::<bool>(), any::<bool>(), bytes()).prop_map(
        |(topic, level, id, dup, retain, payload)| v4::Publish {
            dup: dup && level != 0,
            qos: qos_v4(level),
            retain,
            topic,
            pkid: if level == 0 { 0 } else { id },
            payload: payload.into(),
        },
    )
}

fn connect_v4() -> impl Strategy<Value = v4::Connect> {
    let will = option::of((topic(), bytes(), level(), any::<bool>()));
    (text(), any::<u16>(), any::<bool>(), login(), will).prop_map(|(id, keep_alive, clean, login, will)| {
        let mut connect = v4::Connect::new(id);
        connect.keep_alive = keep_alive;
        connect.clean_session = clean;
        connect.login = login.map(|(name, password)| v4::Login::new(name, password));
        connect.last_will = will
            .map(|(topic, payload, level, retain)| v4::LastWill::new(topic, payload, qos_v4(level), retain));
        connect
    })
}

pub(super) fn packet_v5() -> impl Strategy<Value = v5::Packet> {
    let unsubscribe =
        (1..=u16::MAX, vec(filter(), 1..5), user()).prop_map(|(pkid, filters, user_properties)| {
            let properties = Some(v5::UnsubscribeProperties { user_properties });
            v5::Packet::Unsubscribe(v5::Unsubscribe { pkid, filters, properties })
        });
    prop_oneof![
        4 => publish_v5().prop_map(v5::Packet::Publish),
        4 => connect_v5(),
        4 => ack_v5(),
        2 => subscribe_v5(),
        1 => unsubscribe,
        1 => Just(v5::Packet::PingReq(v5::PingReq)),
        1 => disconnect_v5(),
    ]
}

pub(super) fn publish_properties() -> impl Strategy<Value = v5::PublishProperties> {
    (
        option::of(0..2_u8),
        any::<Option<u32>>(),
        option::of(1..=u16::MAX),
        option::of("[a-z/]{1,20}"),
        option::of(bytes()),
        user(),
        option::of(text()),
    )
        .prop_map(|(format, expiry, alias, response, correlation, user, content_type)| {
            v5::PublishProperties {
                payload_format_indicator: format,
                message_expiry_interval: expiry,
                topic_alias: alias,
                response_topic: response,
                correlation_data: correlation.map(Into::into),
                user_properties: user,
                subscription_identifiers: Vec::new(),
                content_type,
            }
        })
}

pub(super) fn publish_v5() -> impl Strategy<Value = v5::Publish> {
    let flags = (level(), any::<bool>(), any::<bool>());
    (topic(), any::<bool>(), 1..=u16::MAX, flags, option::of(publish_properties()), bytes()).prop_map(
        |(topic, named, id, (level, dup, retain), properties, payload)| {
            let has_alias = properties.as_ref().is_some_and(|properties| properties.topic_alias.is_some());
            v5::Publish {
                dup: dup && level != 0,
                qos: qos_v5(level),
                retain,
                topic: if named || !has_alias { topic.into() } else { "".into() },
                pkid: if level == 0 { 0 } else { id },
                payload: payload.into(),
                properties,
            }
        },
    )
}

fn connect_v5() -> impl Strategy<Value = v5::Packet> {
    let properties = (
        any::<Option<u32>>(),
        option::of(1..=u16::MAX),
        option::of(1..=u32::MAX),
        any::<Option<u16>>(),
        option::of(0..2_u8),
        option::of(0..2_u8),
        user(),
        option::of((text(), option::of(bytes()))),
    )
        .prop_map(|(expiry, receive, bytes, alias, response, problem, user, authentication)| {
            let (method, data) = authentication.map_or((None, None), |(method, data)| (Some(method), data));
            v5::ConnectProperties {
                session_expiry_interval: expiry,
                receive_maximum: receive,
                max_packet_size: bytes,
                topic_alias_max: alias,
                request_response_info: response,
                request_problem_info: problem,
                user_properties: user,
                authentication_method: method,
                authentication_data: data.map(Into::into),
            }
        });
    let head = (text(), any::<u16>(), any::<bool>(), option::of(properties));
    (head, login(), option::of(will_v5())).prop_map(|((id, keep_alive, clean, properties), login, will)| {
        let connect = v5::Connect { keep_alive, client_id: id, clean_start: clean, properties };
        let login = login.map(|(name, password)| v5::Login::new(name, password));
        v5::Packet::Connect(connect, will, login)
    })
}

fn will_v5() -> impl Strategy<Value = v5::LastWill> {
    let properties = (any::<Option<u32>>(), publish_properties()).prop_map(|(delay_interval, told)| {
        v5::LastWillProperties {
            delay_interval,
            payload_format_indicator: told.payload_format_indicator,
            message_expiry_interval: told.message_expiry_interval,
            content_type: told.content_type,
            response_topic: told.response_topic,
            correlation_data: told.correlation_data,
            user_properties: told.user_properties,
        }
    });
    (topic(), bytes(), level(), any::<bool>(), option::of(properties)).prop_map(
        |(topic, payload, level, retain, properties)| {
            v5::LastWill::new(topic, payload, qos_v5(level), retain, properties)
        },
    )
}

fn ack_v5() -> impl Strategy<Value = v5::Packet> {
    let reasons = [
        (v5::PubAckReason::Success, v5::PubRecReason::Success),
        (v5::PubAckReason::NoMatchingSubscribers, v5::PubRecReason::NoMatchingSubscribers),
        (v5::PubAckReason::UnspecifiedError, v5::PubRecReason::UnspecifiedError),
        (v5::PubAckReason::ImplementationSpecificError, v5::PubRecReason::ImplementationSpecificError),
        (v5::PubAckReason::NotAuthorized, v5::PubRecReason::NotAuthorized),
        (v5::PubAckReason::TopicNameInvalid, v5::PubRecReason::TopicNameInvalid),
        (v5::PubAckReason::PacketIdentifierInUse, v5::PubRecReason::PacketIdentifierInUse),
        (v5::PubAckReason::QuotaExceeded, v5::PubRecReason::QuotaExceeded),
        (v5::PubAckReason::PayloadFormatInvalid, v5::PubRecReason::PayloadFormatInvalid),
    ];
    let told = option::of((option::of(text()), user()));
    (1..=u16::MAX, 0..4_u8, prop::sample::select(reasons.to_vec()), any::<bool>(), told).prop_map(
        |(pkid, kind, (puback, pubrec), found, told)| {
            let (reason_string, user_properties) = told.clone().unwrap_or_default();
            match kind {
                0 => {
                    let properties = told.map(|_| v5::PubAckProperties { reason_string, user_properties });
                    v5::Packet::PubAck(v5::PubAck { pkid, reason: puback, properties })
                }
                1 => {
                    let properties = told.map(|_| v5::PubRecProperties { reason_string, user_properties });
                    v5::Packet::PubRec(v5::PubRec { pkid, reason: pubrec, properties })
                }
                2 => {
                    use v5::PubRelReason::{PacketIdentifierNotFound, Success};
                    let properties = told.map(|_| v5::PubRelProperties { reason_string, user_properties });
                    let reason = if found { Success } else { PacketIdentifierNotFound };
                    v5::Packet::PubRel(v5::PubRel { pkid, reason, properties })
                }
                _ => {
                    use v5::PubCompReason::{PacketIdentifierNotFound, Success};
                    let properties = told.map(|_| v5::PubCompProperties { reason_string, user_properties });
                    let reason = if found { Success } else { PacketIdentifierNotFound };
                    v5::Packet::PubComp(v5::PubComp { pkid, reason, properties })
                }
            }
        },
    )
}

fn subscribe_v5() -> impl Strategy<Value = v5::Packet> {
    use v5::RetainForwardRule::{Never, OnEverySubscribe, OnNewSubscribe};
    let filter = (filter(), level(), any::<bool>(), any::<bool>(), any::<bool>(), 0..3_usize).prop_map(
        |(path, level, shared, no_local, preserve_retain, handling)| v5::Filter {
            path: if shared { format!("$share/group/{path}") } else { path },
            qos: qos_v5(level),
            nolocal: no_local && !shared,
            preserve_retain,
            retain_forward_rule: [OnEverySubscribe, OnNewSubscribe, Never][handling].clone(),
        },
    );
    let properties = option::of((option::of(1..=268_435_455_usize), user()));
    (1..=u16::MAX, vec(filter, 1..5), properties).prop_map(|(pkid, filters, properties)| {
        let properties =
            properties.map(|(id, user_properties)| v5::SubscribeProperties { id, user_properties });
        v5::Packet::Subscribe(v5::Subscribe { pkid, filters, properties })
    })
}

/// With a reason string: without properties rumqttc writes a packet that it does not read, and with empty
/// ones it writes another reason.
fn disconnect_v5() -> impl Strategy<Value = v5::Packet> {
    use v5::DisconnectReasonCode as Code;
    let codes = [
        Code::NormalDisconnection,
        Code::DisconnectWithWillMessage,
        Code::UnspecifiedError,
        Code::ProtocolError,
        Code::AdministrativeAction,
        Code::PayloadFormatInvalid,
    ];
    (prop::sample::select(codes.to_vec()), any::<Option<u32>>(), text(), user()).prop_map(
        |(code, session_expiry_interval, reason, user_properties)| {
            let mut disconnect = v5::Disconnect::new(code);
            disconnect.properties = Some(v5::DisconnectProperties {
                session_expiry_interval,
                reason_string: Some(reason),
                user_properties,
                server_reference: None,
            });
            v5::Packet::Disconnect(disconnect)
        },
    )
}

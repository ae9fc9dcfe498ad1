//! Valid packets of clients, to break.

use bytes::BytesMut;
use rumqttc::mqttbytes::v4;
use rumqttc::v5::mqttbytes::v5;

use super::super::Version;

/// Packets that both decoders read, every type and every property at least once.
pub(super) fn packets(version: Version) -> Vec<Vec<u8>> {
    match version {
        Version::V3 => packets_v3(),
        Version::V5 => packets_v5(),
    }
}

fn packets_v3() -> Vec<Vec<u8>> {
    use rumqttc::QoS;
    let mut connect = v4::Connect::new("device-1");
    let mut publish = v4::Publish::new("a/b", QoS::AtLeastOnce, "21.5");
    publish.pkid = 7;
    let mut subscribe = v4::Subscribe::new("a/+/#", QoS::ExactlyOnce);
    subscribe.add("b".to_owned(), QoS::AtMostOnce).pkid = 9;
    let mut packets = vec![
        v4::Packet::Connect(connect.clone()),
        v4::Packet::Publish(v4::Publish::new("a", QoS::AtMostOnce, "")),
        v4::Packet::Publish(v4::Publish { dup: true, retain: true, ..publish.clone() }),
        v4::Packet::Publish(v4::Publish { qos: QoS::ExactlyOnce, ..publish }),
        v4::Packet::PubAck(v4::PubAck::new(1)),
        v4::Packet::PubRec(v4::PubRec::new(2)),
        v4::Packet::PubRel(v4::PubRel::new(3)),
        v4::Packet::PubComp(v4::PubComp::new(0xffff)),
        v4::Packet::Subscribe(subscribe),
        v4::Packet::Unsubscribe(v4::Unsubscribe { pkid: 8, topics: vec!["a/#".into(), "b".into()] }),
        v4::Packet::PingReq,
        v4::Packet::Disconnect,
    ];
    connect.last_will = Some(v4::LastWill::new("a/gone", "x", QoS::AtLeastOnce, true));
    connect.set_login("user", "secret");
    packets.push(v4::Packet::Connect(connect));
    let write = |packet: v4::Packet| {
        let mut bytes = BytesMut::new();
        packet.write(&mut bytes, usize::MAX).expect("rumqttc writes it");
        bytes.to_vec()
    };
    packets.into_iter().map(write).collect()
}

fn packets_v5() -> Vec<Vec<u8>> {
    use rumqttc::v5::mqttbytes::QoS;
    let user = vec![("name".to_owned(), "value".to_owned()), (String::new(), String::new())];
    let properties = v5::PublishProperties {
        payload_format_indicator: Some(1),
        message_expiry_interval: Some(60),
        topic_alias: Some(3),
        response_topic: Some("answers/1".into()),
        correlation_data: Some("id".into()),
        user_properties: user.clone(),
        subscription_identifiers: Vec::new(),
        content_type: Some("text/plain".into()),
    };
    let mut publish = v5::Publish::new("a/b", QoS::AtLeastOnce, "21.5", Some(properties));
    publish.pkid = 7;
    let filter = v5::Filter {
        nolocal: true,
        preserve_retain: true,
        retain_forward_rule: v5::RetainForwardRule::OnNewSubscribe,
        ..v5::Filter::new("a/+/#", QoS::ExactlyOnce)
    };
    let subscribe = v5::Subscribe {
        pkid: 9,
        filters: vec![filter, v5::Filter::new("$share/g/b", QoS::AtMostOnce)],
        properties: Some(v5::SubscribeProperties { id: Some(300), user_properties: user.clone() }),
    };
    let unsubscribe = v5::Unsubscribe {
        pkid: 8,
        filters: vec!["a/#".into(), "b".into()],
        properties: Some(v5::UnsubscribeProperties { user_properties: user.clone() }),
    };
    let (connect, will) = connect_v5(user.clone());
    let login = v5::Login::new("user", "secret");
    let empty = v5::Publish { topic: "".into(), payload: "".into(), qos: QoS::AtMostOnce, ..publish.clone() };
    let mut packets = vec![
        v5::Packet::Connect(v5::Connect { properties: None, ..connect.clone() }, None, None),
        v5::Packet::Connect(connect, Some(will), Some(login)),
        v5::Packet::Publish(v5::Publish::new("a", QoS::AtMostOnce, "", None)),
        v5::Packet::Publish(empty),
        v5::Packet::Publish(v5::Publish { dup: true, retain: true, ..publish.clone() }),
        v5::Packet::Publish(v5::Publish { qos: QoS::ExactlyOnce, ..publish }),
        v5::Packet::Subscribe(subscribe),
        v5::Packet::Unsubscribe(unsubscribe),
        v5::Packet::PingReq(v5::PingReq),
    ];
    packets.extend(acknowledgements_v5(&user));
    let write = |packet: v5::Packet| {
        let mut bytes = BytesMut::new();
        packet.write(&mut bytes, None).expect("rumqttc writes it");
        bytes.to_vec()
    };
    let auth = [b"\xf0\x08\x18\x06\x15\0\x03abc".to_vec()];
    packets.into_iter().map(write).chain(auth).collect()
}

fn connect_v5(user: Vec<(String, String)>) -> (v5::Connect, v5::LastWill) {
    use rumqttc::v5::mqttbytes::QoS;
    let connect = v5::Connect {
        keep_alive: 30,
        client_id: "device-1".to_owned(),
        clean_start: false,
        properties: Some(v5::ConnectProperties {
            session_expiry_interval: Some(3600),
            receive_maximum: Some(10),
            max_packet_size: Some(65_536),
            topic_alias_max: Some(8),
            request_response_info: Some(1),
            request_problem_info: Some(0),
            user_properties: user.clone(),
            authentication_method: Some("scram".into()),
            authentication_data: Some("first".into()),
        }),
    };
    let properties = v5::LastWillProperties {
        delay_interval: Some(5),
        payload_format_indicator: Some(0),
        message_expiry_interval: Some(60),
        content_type: Some("json".into()),
        response_topic: Some("answers/1".into()),
        correlation_data: Some("id".into()),
        user_properties: user,
    };
    (connect, v5::LastWill::new("a/gone", "x", QoS::ExactlyOnce, true, Some(properties)))
}

fn acknowledgements_v5(user: &[(String, String)]) -> Vec<v5::Packet> {
    let (reason_string, user_properties) = (Some("because".to_owned()), user.to_vec());
    let mut puback = v5::PubAck::new(1, None);
    puback.reason = v5::PubAckReason::QuotaExceeded;
    let told = v5::PubRecProperties { reason_string: reason_string.clone(), user_properties: user.to_vec() };
    let mut pubrel = v5::PubRel::new(4, None);
    pubrel.reason = v5::PubRelReason::PacketIdentifierNotFound;
    let properties = v5::DisconnectProperties {
        session_expiry_interval: Some(9),
        reason_string,
        user_properties,
        server_reference: None,
    };
    let mut disconnect = v5::Disconnect::new(v5::DisconnectReasonCode::DisconnectWithWillMessage);
    disconnect.properties = Some(properties);
    vec![
        v5::Packet::PubAck(v5::PubAck::new(1, None)),
        v5::Packet::PubAck(puback),
        v5::Packet::PubRec(v5::PubRec::new(2, Some(told))),
        v5::Packet::PubRel(pubrel),
        v5::Packet::PubComp(v5::PubComp::new(0xffff, None)),
        v5::Packet::Disconnect(disconnect),
    ]
}

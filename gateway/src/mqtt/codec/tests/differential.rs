//! A second opinion: what rumqttc's codecs write we read alike, and what we write they read alike.

use bytes::BytesMut;
use proptest::prelude::*;
use rumqttc::mqttbytes::v4;
use rumqttc::v5::mqttbytes::v5;

use super::super::{
    Connack, Connect, Delivery, Frame, Publish, Qos, Reason, Split, Subscribe, Unsubscribe, Version, connack,
    disconnect, pingresp, puback, pubcomp, publish_to, pubrec, split, suback, unsuback,
};
use super::BYTES_MAX;

/// A delivery at QoS 0 with nothing else to it.
fn delivery<'a>(topic: &'a str, payload: &'a [u8]) -> Delivery<'a> {
    Delivery {
        topic,
        alias: None,
        dup: false,
        qos: Qos::AtMostOnce,
        retain: false,
        id: 0,
        expiry_seconds: None,
        subscription_ids: &[],
        properties: &[],
        payload,
    }
}

fn frame(bytes: &[u8]) -> Frame<'_> {
    match split(bytes, BYTES_MAX) {
        Ok(Split::Frame(frame)) if frame.bytes == bytes.len() => frame,
        other => panic!("{other:?} of {bytes:02x?}"),
    }
}

fn qos_v4(qos: Qos) -> rumqttc::QoS {
    [rumqttc::QoS::AtMostOnce, rumqttc::QoS::AtLeastOnce, rumqttc::QoS::ExactlyOnce]
        [usize::from(qos.number())]
}

fn qos_v5(qos: Qos) -> rumqttc::v5::mqttbytes::QoS {
    use rumqttc::v5::mqttbytes::QoS;
    [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce][usize::from(qos.number())]
}

fn qos() -> impl Strategy<Value = Qos> {
    prop_oneof![Just(Qos::AtMostOnce), Just(Qos::AtLeastOnce), Just(Qos::ExactlyOnce)]
}

const TOPIC: &str = "[a-zäß/ ]{1,40}";

fn read_v4(bytes: &[u8]) -> v4::Packet {
    v4::Packet::read(&mut BytesMut::from(bytes), BYTES_MAX).expect("rumqttc reads it")
}

fn read_v5(bytes: &[u8]) -> v5::Packet {
    v5::Packet::read(&mut BytesMut::from(bytes), None).expect("rumqttc reads it")
}

proptest! {
    #[test]
    fn publishes_of_3_1_1(topic in TOPIC, qos in qos(), id in 1_u16.., retain: bool, payload in prop::collection::vec(any::<u8>(), 0..300)) {
        let mut theirs = v4::Publish::new(topic.clone(), qos_v4(qos), payload.clone());
        theirs.pkid = id;
        theirs.retain = retain;
        theirs.dup = qos != Qos::AtMostOnce;
        let mut bytes = BytesMut::new();
        theirs.write(&mut bytes).expect("rumqttc writes it");
        let ours = Publish::decode(&frame(&bytes), Version::V3).expect("we read it");
        prop_assert_eq!((ours.topic, ours.payload, ours.retain, ours.dup), (&*topic, &*payload, retain, theirs.dup));
        prop_assert_eq!((ours.qos, ours.id), (qos, if qos == Qos::AtMostOnce { 0 } else { id }));

        let mut out = Vec::new();
        let delivery = Delivery { retain, ..delivery(&topic, &payload) };
        prop_assert!(publish_to(&mut out, Version::V3, &delivery, BYTES_MAX));
        let v4::Packet::Publish(theirs) = read_v4(&out) else { panic!("a publish") };
        prop_assert_eq!((&*theirs.topic, &*theirs.payload, theirs.retain), (&*topic, &*payload, retain));
        prop_assert!(!publish_to(&mut Vec::new(), Version::V3, &delivery, out.len() - 1));
    }

    #[test]
    fn publishes_of_5(
        topic in TOPIC, qos in qos(), id in 1_u16.., payload in prop::collection::vec(any::<u8>(), 0..300),
        expiry: Option<u32>, text: bool, content_type in prop::option::of("[a-z/]{0,20}"),
        response in prop::option::of("[a-z/]{1,20}"), correlation in prop::option::of(prop::collection::vec(any::<u8>(), 0..20)),
        user in prop::collection::vec(("[a-z]{0,9}", "[a-z]{0,9}"), 0..4),
    ) {
        let properties = v5::PublishProperties {
            payload_format_indicator: text.then_some(1),
            message_expiry_interval: expiry,
            topic_alias: None,
            response_topic: response.clone(),
            correlation_data: correlation.clone().map(Into::into),
            user_properties: user.clone(),
            subscription_identifiers: Vec::new(),
            content_type: content_type.clone(),
        };
        let mut theirs = v5::Publish::new(topic.clone(), qos_v5(qos), payload.clone(), Some(properties));
        theirs.pkid = id;
        let mut bytes = BytesMut::new();
        theirs.write(&mut bytes).expect("rumqttc writes it");
        let ours = Publish::decode(&frame(&bytes), Version::V5).expect("we read it");
        prop_assert_eq!((ours.topic, ours.payload, ours.qos), (&*topic, &*payload, qos));
        let told = ours.properties;
        prop_assert_eq!((told.expiry_seconds, told.text), (expiry, text));
        prop_assert_eq!((told.content_type, told.response_topic), (content_type.as_deref(), response.as_deref()));
        prop_assert_eq!(told.correlation_data, correlation.as_deref());
        prop_assert!(told.user().eq(user.iter().map(|(name, value)| (name.as_str(), value.as_str()))));

        let mut out = Vec::new();
        let mut forwarded = Vec::new();
        told.forward(&mut forwarded);
        let delivery = Delivery { expiry_seconds: expiry, properties: &forwarded, ..delivery(&topic, &payload) };
        prop_assert!(publish_to(&mut out, Version::V5, &delivery, BYTES_MAX));
        let v5::Packet::Publish(back) = read_v5(&out) else { panic!("a publish") };
        prop_assert_eq!((&back.topic, &back.payload), (&theirs.topic, &theirs.payload));
        if !ours.properties.block.is_empty() {
            prop_assert_eq!(back.properties, theirs.properties);
        }
    }

    #[test]
    fn connects(id in "[a-z0-9]{0,30}", keep_alive in 5_u16.., clean: bool, login: bool, will: bool, qos in qos(), payload in prop::collection::vec(any::<u8>(), 0..100)) {
        let mut theirs = v4::Connect::new(id.clone());
        theirs.keep_alive = keep_alive;
        theirs.clean_session = clean;
        theirs.login = login.then(|| v4::Login::new("user", "secret"));
        theirs.last_will = will.then(|| v4::LastWill::new("a/b", payload.clone(), qos_v4(qos), true));
        let mut bytes = BytesMut::new();
        theirs.write(&mut bytes).expect("rumqttc writes it");
        let bytes = bytes.to_vec();
        let ours = Connect::decode(frame(&bytes).body).expect("we read it");
        prop_assert_eq!((ours.version, ours.client_id, ours.keep_alive, ours.clean), (Version::V3, &*id, keep_alive, clean));
        prop_assert_eq!((ours.user_name, ours.password), if login { (Some("user"), Some(&b"secret"[..])) } else { (None, None) });
        let ours = ours.will.map(|will| (will.topic, will.payload, will.qos, will.retain));
        prop_assert_eq!(ours, will.then_some(("a/b", &*payload, qos, true)));

        let theirs = v5::Connect {
            keep_alive,
            client_id: id.clone(),
            clean_start: clean,
            properties: Some(v5::ConnectProperties {
                session_expiry_interval: Some(7),
                receive_maximum: Some(3),
                max_packet_size: Some(1000),
                user_properties: vec![("a".to_owned(), "b".to_owned())],
                ..v5::ConnectProperties::new()
            }),
        };
        let last_will = will.then(|| v5::LastWill::new("a/b", payload.clone(), qos_v5(qos), false, None));
        let user = login.then(|| v5::Login::new("user", "secret"));
        let mut bytes = BytesMut::new();
        v5::Packet::Connect(theirs, last_will, user).write(&mut bytes, None).expect("rumqttc writes it");
        let ours = Connect::decode(frame(&bytes).body).expect("we read it");
        prop_assert_eq!((ours.version, ours.client_id, ours.keep_alive, ours.clean), (Version::V5, &*id, keep_alive, clean));
        prop_assert_eq!((ours.session_expiry, ours.packet_bytes_max), (7, Some(1000)));
        prop_assert_eq!(ours.will.map(|will| (will.topic, will.payload, will.qos)), will.then_some(("a/b", &*payload, qos)));
        prop_assert_eq!(ours.user_name, login.then_some("user"));
    }

    #[test]
    fn subscriptions(filters in prop::collection::vec("[a-z]{1,5}(/[+])?(/[#])?", 1..5), qos in qos(), id in 1_u16..) {
        let mut theirs = v4::Subscribe::new_many(filters.iter().map(|path| v4::SubscribeFilter::new(path.clone(), qos_v4(qos))));
        theirs.pkid = id;
        let mut bytes = BytesMut::new();
        theirs.write(&mut bytes).expect("rumqttc writes it");
        let ours = Subscribe::decode(frame(&bytes).body, Version::V3).expect("we read it");
        prop_assert_eq!(ours.id, id);
        prop_assert!(ours.requests().map(|request| request.filter).eq(filters.iter().map(String::as_str)));

        let theirs = v5::Subscribe {
            pkid: id,
            filters: filters.iter().map(|path| v5::Filter { nolocal: true, ..v5::Filter::new(path.clone(), qos_v5(qos)) }).collect(),
            properties: Some(v5::SubscribeProperties { id: Some(5), user_properties: Vec::new() }),
        };
        let mut bytes = BytesMut::new();
        theirs.write(&mut bytes).expect("rumqttc writes it");
        let ours = Subscribe::decode(frame(&bytes).body, Version::V5).expect("we read it");
        prop_assert!(ours.subscription_id == Some(5) && ours.requests().all(|request| request.no_local && !request.retain_as_published));
        prop_assert!(ours.requests().map(|request| request.filter).eq(filters.iter().map(String::as_str)));

        let mut bytes = BytesMut::new();
        let theirs = v4::Unsubscribe { pkid: id, topics: filters.clone() };
        theirs.write(&mut bytes).expect("rumqttc writes it");
        let ours = Unsubscribe::decode(frame(&bytes).body, Version::V3).expect("we read it");
        prop_assert!(ours.id == id && ours.filters().eq(filters.iter().map(String::as_str)));
    }

    #[test]
    fn acknowledgements(id in 1_u16..) {
        let check = |write: &dyn Fn(&mut Vec<u8>), expected: v4::Packet| {
            let mut out = Vec::new();
            write(&mut out);
            assert_eq!(read_v4(&out), expected);
        };
        check(&|out| puback(out, id, Reason::Success), v4::Packet::PubAck(v4::PubAck::new(id)));
        check(&|out| pubrec(out, id, Reason::Success), v4::Packet::PubRec(v4::PubRec::new(id)));
        check(&|out| pubcomp(out, id, Reason::Success), v4::Packet::PubComp(v4::PubComp::new(id)));
        check(&|out| unsuback(out, Version::V3, id, &[0, 0]), v4::Packet::UnsubAck(v4::UnsubAck::new(id)));
        check(&pingresp, v4::Packet::PingResp);

        let mut out = Vec::new();
        puback(&mut out, id, Reason::NotAuthorized);
        let v5::Packet::PubAck(ack) = read_v5(&out) else { panic!("a puback") };
        prop_assert_eq!((ack.pkid, ack.reason), (id, v5::PubAckReason::NotAuthorized));
        out.clear();
        pubcomp(&mut out, id, Reason::PacketIdNotFound);
        let v5::Packet::PubComp(ack) = read_v5(&out) else { panic!("a pubcomp") };
        prop_assert_eq!((ack.pkid, ack.reason), (id, v5::PubCompReason::PacketIdentifierNotFound));
        out.clear();
        suback(&mut out, Version::V5, id, &[0, 0x87, 0x97]);
        let v5::Packet::SubAck(ack) = read_v5(&out) else { panic!("a suback") };
        prop_assert_eq!((ack.pkid, ack.return_codes.len()), (id, 3));
        out.clear();
        suback(&mut out, Version::V3, id, &[0, 0x80]);
        let v4::Packet::SubAck(ack) = read_v4(&out) else { panic!("a suback") };
        prop_assert_eq!(ack.return_codes, [v4::SubscribeReasonCode::Success(rumqttc::QoS::AtMostOnce), v4::SubscribeReasonCode::Failure]);
    }
}

#[test]
fn connack_and_disconnect() {
    let told = Connack {
        session_present: true,
        assigned_client_id: Some("auto-1"),
        server_keep_alive: Some(1200),
        session_expiry: Some(0),
        receive_max: 128,
        packet_bytes_max: 4096,
        topic_alias_max: 16,
        response_information: Some("answers/here"),
    };
    let mut out = Vec::new();
    connack(&mut out, Version::V5, &told);
    let v5::Packet::ConnAck(ack) = read_v5(&out) else { panic!("a connack") };
    let properties = ack.properties.expect("properties");
    assert!(ack.session_present && ack.code == v5::ConnectReturnCode::Success);
    assert_eq!(properties.assigned_client_identifier.as_deref(), Some("auto-1"));
    assert_eq!((properties.server_keep_alive, properties.receive_max), (Some(1200), Some(128)));
    assert_eq!((properties.session_expiry_interval, properties.max_packet_size), (Some(0), Some(4096)));
    assert_eq!(properties.topic_alias_max, Some(16));
    assert_eq!(properties.response_information.as_deref(), Some("answers/here"));

    out.clear();
    Reason::BadUserNameOrPassword.refuse_connect(&mut out, Version::V3, None);
    let expected = v4::ConnAck::new(rumqttc::ConnectReturnCode::BadUserNamePassword, false);
    assert_eq!(read_v4(&out), v4::Packet::ConnAck(expected));
    out.clear();
    disconnect(&mut out, Version::V5, Reason::SessionTakenOver, Some("elsewhere"));
    let v5::Packet::Disconnect(told) = read_v5(&out) else { panic!("a disconnect") };
    assert_eq!(told.properties.and_then(|told| told.reason_string).as_deref(), Some("elsewhere"));
    assert_eq!(told.reason_code, v5::DisconnectReasonCode::SessionTakenOver);
    out.clear();
    disconnect(&mut out, Version::V3, Reason::SessionTakenOver, Some("elsewhere"));
    assert!(out.is_empty());
}

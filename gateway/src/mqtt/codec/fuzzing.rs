//! The decoders on bytes of any kind; see [`crate::fuzzing`].

use super::deliver::publish_bytes;
use super::properties::{self, Allowed};
use super::reader::Reader;
use super::topic::{is_filter, is_name, shared};
use super::{
    Ack, AckKind, Connect, Delivery, Disconnect, Frame, Malformed, PacketType, Publish, PublishProperties,
    Reason, Split, Subscribe, Unsubscribe, Version, auth, encode, filter_matches, ping, puback, pubcomp,
    publish_to, publish_topic, pubrec, pubrel, split, version_of,
};

/// Largest packet that is taken.
const BYTES_MAX: usize = 1 << 20;

/// A stream of packets, and the same bytes as one packet whose length is right.
pub(in crate::mqtt) fn packets(version: Version, bytes: &[u8]) {
    let mut rest = bytes;
    while let Ok(split) = split(rest, BYTES_MAX) {
        match split {
            Split::Frame(frame) => {
                assert!((2..=rest.len()).contains(&frame.bytes) && frame.body.len() < frame.bytes);
                let judged = packet(&frame, version);
                assert_eq!(judged, packet(&frame, version), "the same bytes are judged alike");
                rest = rest.get(frame.bytes..).unwrap_or_default();
            }
            Split::Incomplete { bytes } => {
                assert!(bytes.is_none_or(|bytes| bytes > rest.len() && bytes <= BYTES_MAX));
                break;
            }
        }
    }
    let Some((first, body)) = bytes.split_first() else { return };
    let mut fitted = Vec::new();
    encode::header(&mut fitted, *first, body.len());
    fitted.extend_from_slice(body);
    if let Ok(Split::Frame(frame)) = split(&fitted, BYTES_MAX) {
        assert_eq!((frame.body, frame.bytes), (body, fitted.len()));
        let _judged = packet(&frame, version);
    }
}

fn packet(frame: &Frame<'_>, version: Version) -> Result<(), Malformed> {
    let Frame { kind, body, .. } = *frame;
    match kind {
        PacketType::Connect => connect(body),
        PacketType::Publish => publish(frame, version),
        PacketType::Puback => acknowledged(body, AckKind::Puback, version),
        PacketType::Pubrec => acknowledged(body, AckKind::Pubrec, version),
        PacketType::Pubrel => acknowledged(body, AckKind::Pubrel, version),
        PacketType::Pubcomp => acknowledged(body, AckKind::Pubcomp, version),
        PacketType::Subscribe => {
            let subscribe = Subscribe::decode(body, version)?;
            let mut bytes = 0;
            for request in subscribe.requests() {
                assert!(is_filter(request.filter));
                assert!(version == Version::V3 || !matches!(shared(request.filter), Some(Err(_))));
                assert!(version == Version::V5 || !(request.no_local || request.retain_as_published));
                bytes += 3 + request.filter.len();
            }
            assert!(bytes > 0 && bytes <= body.len() && subscribe.id != 0);
            assert!(subscribe.subscription_id != Some(0));
            Ok(())
        }
        PacketType::Unsubscribe => {
            let unsubscribe = Unsubscribe::decode(body, version)?;
            let bytes: usize = unsubscribe.filters().map(|filter| 2 + filter.len()).sum();
            assert!(bytes > 0 && bytes <= body.len() && unsubscribe.id != 0);
            assert!(unsubscribe.filters().all(is_filter));
            Ok(())
        }
        PacketType::Pingreq => ping(body),
        PacketType::Disconnect => Disconnect::decode(body, version).map(drop),
        PacketType::Auth => auth(body, version),
    }
}

/// A CONNECT's body.
pub(in crate::mqtt) fn connect(body: &[u8]) -> Result<(), Malformed> {
    let version = version_of(body);
    let connect = Connect::decode(body)?;
    assert_eq!(version, Ok(connect.version));
    assert!(connect.receive_max != 0 && connect.packet_bytes_max != Some(0));
    if let Some(will) = &connect.will {
        assert!(is_name(will.topic));
        let mut forwarded = Vec::new();
        will.properties.forward(&mut forwarded);
        check_forwarded(&will.properties, &forwarded);
        assert_eq!(PublishProperties::of_will(will.properties.block), will.properties);
    }
    Ok(())
}

/// A publish goes out again as it came in.
fn publish(frame: &Frame<'_>, version: Version) -> Result<(), Malformed> {
    let publish = Publish::decode(frame, version)?;
    let Publish { dup, qos, retain, topic, id, alias, properties, payload } = publish;
    assert!(is_name(topic) || (topic.is_empty() && alias.is_some_and(|alias| alias != 0)));
    let mut forwarded = Vec::new();
    properties.forward(&mut forwarded);
    check_forwarded(&properties, &forwarded);
    let expiry_seconds = properties.expiry_seconds;
    let delivery = Delivery {
        topic,
        alias,
        dup,
        qos,
        retain,
        id,
        expiry_seconds,
        subscription_ids: &[],
        properties: &forwarded,
        payload,
    };
    let mut out = Vec::new();
    assert!(publish_to(&mut out, version, &delivery, usize::MAX));
    assert_eq!(out.len(), publish_bytes(version, &delivery));
    assert_eq!(publish_topic(&out), Some(topic));
    let Ok(Split::Frame(again)) = split(&out, usize::MAX) else { return Err(Malformed::Unexpected) };
    let again = Publish::decode(&again, version).expect("what we write can be read");
    assert!(again.properties.user().eq(properties.user()));
    // The block is another where something was of one hop only; what it says is the same.
    let block = again.properties.block;
    let properties = PublishProperties { block, ..properties };
    assert_eq!(again, Publish { properties, ..publish });
    Ok(())
}

/// What goes to subscribers says what the publish said, and is forwarded as it is.
fn check_forwarded(properties: &PublishProperties<'_>, forwarded: &[u8]) {
    assert!(forwarded.len() <= properties.block.len());
    let read = PublishProperties::of_will(forwarded);
    assert!(read.expiry_seconds.is_none() && read.user().eq(properties.user()));
    assert_eq!(read.response_topic, properties.response_topic);
    assert_eq!((read.text, read.content_type), (properties.text, properties.content_type));
    assert_eq!(read.correlation_data, properties.correlation_data);
    let mut again = Vec::new();
    read.forward(&mut again);
    assert_eq!(again, forwarded);
}

fn acknowledged(body: &[u8], kind: AckKind, version: Version) -> Result<(), Malformed> {
    let Ack { id, reason } = Ack::decode(body, kind, version)?;
    assert!(id != 0 && (version == Version::V5 || reason == 0));
    let write = match kind {
        AckKind::Puback => puback,
        AckKind::Pubrec => pubrec,
        AckKind::Pubrel => pubrel,
        AckKind::Pubcomp => pubcomp,
    };
    let mut out = Vec::new();
    write(&mut out, id, Reason::Success);
    let again = out.get(2..).map(|body| Ack::decode(body, kind, version));
    assert_eq!(again, Some(Ok(Ack { id, reason: 0 })));
    Ok(())
}

/// A property block in every packet that has one.
pub(in crate::mqtt) fn property_blocks(block: &[u8]) {
    for allowed in [
        Allowed::CONNECT,
        Allowed::WILL,
        Allowed::PUBLISH,
        Allowed::ACK,
        Allowed::SUBSCRIBE,
        Allowed::UNSUBSCRIBE,
        Allowed::DISCONNECT,
        Allowed::AUTH,
    ] {
        let mut count = 0;
        let judged = properties::each(Reader::new(block), allowed, &mut |_| count += 1);
        assert!(count <= block.len());
        // With its length in front.
        let mut sized = Vec::new();
        encode::varint(&mut sized, block.len());
        sized.extend_from_slice(block);
        let read = properties::read(&mut Reader::new(&sized), allowed, |_| {});
        assert_eq!(read, judged.map(|()| block));
        let _judged = properties::read(&mut Reader::new(block), allowed, |_| {});
        assert!(properties::user_properties(block).count() <= block.len());
    }
    let mut out = Vec::new();
    properties::forward(block, &mut out);
    assert!(out.len() <= block.len());
}

/// A filter and a name, with a line break between them.
pub(in crate::mqtt) fn topics(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let (filter, name) = text.split_once('\n').unwrap_or((text, text));
    if let Some(Ok((group, filter))) = shared(filter) {
        assert!(is_name(group) && is_filter(filter) && !group.contains('/'));
    }
    if !is_name(name) || !is_filter(filter) {
        return;
    }
    assert!(is_filter(name) && filter_matches(name, name), "a name is a filter that matches itself");
    let levels = |text| str::split(text, '/').collect::<Vec<_>>();
    let own = name.starts_with('$') && filter.starts_with(['+', '#']);
    let expected = !own && matches_slowly(&levels(filter), &levels(name));
    assert_eq!(filter_matches(filter, name), expected, "{filter} {name}");
}

/// Section 4.7 word by word.
fn matches_slowly(filter: &[&str], name: &[&str]) -> bool {
    match (filter, name) {
        (["#"], _) | ([], []) => true,
        ([one, filter @ ..], [other, name @ ..]) => {
            (*one == "+" || one == other) && matches_slowly(filter, name)
        }
        _ => false,
    }
}

/// Whether these are a filter and a name.
pub(in crate::mqtt) fn is_valid(filter: &str, name: &str) -> bool {
    is_filter(filter) && is_name(name)
}

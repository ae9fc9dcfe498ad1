//! An entry as a JSON object on one line.

use penstock_proto::packed::member;
use penstock_proto::text::{TimeText, push_decimal};
use penstock_proto::{Seq, base64, json};

use crate::outbox::{Properties, Record, UserProperties};

/// Up to so many user properties with different names are members of one object; more are a list.
const USER_MEMBERS_MAX: usize = 32;
/// Below this an entry's length is estimated, not counted.
const ESTIMATED_MAX: usize = 4096;

/// Appends an entry.
pub(super) fn push(out: &mut Vec<u8>, seq: Seq, record: &Record<'_>, time: &mut TimeText) {
    out.extend_from_slice(b"{\"seq\":");
    push_decimal(out, seq.0);
    out.extend_from_slice(b",\"device\":\"");
    json::push_escaped(out, record.device);
    out.extend_from_slice(b"\",\"topic\":\"");
    json::push_escaped(out, record.topic);
    out.extend_from_slice(b"\",\"received\":\"");
    time.push(out, record.received_ms);
    out.push(b'"');
    if !is_bare(&record.properties) {
        push_properties(out, &record.properties, time);
    }
    push_payload(out, record.payload);
    out.push(b'}');
}

/// How many bytes [`push`] appends at most.
pub(super) fn len_max(record: &Record<'_>) -> usize {
    let properties = &record.properties;
    // A character takes six bytes at most, and a payload in Base64 less than twice its length.
    let estimate = FIXED_MAX + 6 * (record.device.len() + record.topic.len()) + 2 * record.payload.len() + 4;
    if estimate <= ESTIMATED_MAX && *properties == Properties::default() {
        return estimate;
    }
    let texts = texts(properties).into_iter().filter_map(|(_, text)| text);
    let texts = [record.device, record.topic].into_iter().chain(texts);
    let user = || properties.user.iter().flat_map(|(name, value)| [name, value]);
    let around = FIXED_MAX + user().count() * USER_AROUND;
    let bytes = texts.clone().chain(user()).map(str::len).sum::<usize>();
    let estimate = around + 6 * bytes + 2 * record.payload.len() + 4;
    if estimate <= ESTIMATED_MAX {
        return estimate;
    }
    around + texts.chain(user()).map(escaped_len).sum::<usize>() + payload_len_max(record.payload)
}

/// All names, punctuation, the seq, and both times.
const FIXED_MAX: usize = 400;
/// What stands around the name or the value of a user property.
const USER_AROUND: usize = 12;

fn escaped_len(text: &str) -> usize {
    let extra = |byte: u8| match byte {
        b'"' | b'\\' => 1,
        0..0x20 => 5,
        _ => 0,
    };
    text.len() + text.bytes().map(extra).sum::<usize>()
}

fn payload_len_max(payload: &[u8]) -> usize {
    let escapes = payload.iter().filter(|byte| matches!(byte, b'"' | b'\\' | 0..0x20)).count();
    (payload.len() + escapes).max(base64::encoded_len(payload.len()))
}

/// Whether [`push_properties`] has nothing to write; most devices send none.
const fn is_bare(properties: &Properties<'_>) -> bool {
    let Properties {
        content_type,
        tenant,
        site,
        class,
        stream,
        traceparent,
        tracestate,
        device_time_ms,
        user,
        ..
    } = properties;
    let captured = tenant.is_none() & site.is_none() & class.is_none() & stream.is_none();
    let traced = traceparent.is_none() & tracestate.is_none();
    captured & traced & content_type.is_none() & device_time_ms.is_none() & user.is_empty()
}

const fn texts<'a>(properties: &Properties<'a>) -> [(&'static str, Option<&'a str>); 7] {
    [
        (",\"content_type\":\"", properties.content_type),
        (",\"tenant\":\"", properties.tenant),
        (",\"site\":\"", properties.site),
        (",\"class\":\"", properties.class),
        (",\"stream\":\"", properties.stream),
        (",\"traceparent\":\"", properties.traceparent),
        (",\"tracestate\":\"", properties.tracestate),
    ]
}

fn push_properties(out: &mut Vec<u8>, properties: &Properties<'_>, time: &mut TimeText) {
    if let Some(device_time_ms) = properties.device_time_ms {
        out.extend_from_slice(b",\"device_time\":\"");
        time.push(out, device_time_ms);
        out.push(b'"');
    }
    for (begin, text) in texts(properties) {
        if let Some(text) = text {
            out.extend_from_slice(begin.as_bytes());
            json::push_escaped(out, text);
            out.push(b'"');
        }
    }
    if !properties.user.is_empty() {
        push_user(out, properties.user);
    }
}

/// Members of one object are what consumers read most easily; names that come twice would be lost there.
fn push_user(out: &mut Vec<u8>, user: UserProperties<'_>) {
    let few = user.iter().nth(USER_MEMBERS_MAX).is_none();
    let repeats =
        |(place, (name, _)): (usize, (&str, &str))| user.iter().take(place).any(|(other, _)| other == name);
    let as_members = few && !user.iter().enumerate().any(repeats);
    out.extend_from_slice(if as_members { b",\"user\":{" } else { b",\"user_list\":[" });
    for (place, (name, value)) in user.iter().enumerate() {
        if place > 0 {
            out.push(b',');
        }
        out.extend_from_slice(if as_members { b"\"" } else { b"{\"name\":\"" });
        json::push_escaped(out, name);
        out.extend_from_slice(if as_members { b"\":\"" } else { b"\",\"value\":\"" });
        json::push_escaped(out, value);
        out.extend_from_slice(if as_members { b"\"" } else { b"\"}" });
    }
    out.push(if as_members { b'}' } else { b']' });
}

fn push_payload(out: &mut Vec<u8>, payload: &[u8]) {
    let text = std::str::from_utf8(payload).ok();
    if let Some(found) = text.and_then(json::scan_whole) {
        push_name(out, member::PAYLOAD);
        let value = payload.get(found.start..found.end).unwrap_or_default();
        let start = out.len();
        out.extend_from_slice(value);
        if found.has_breaks {
            // Inside a string they cannot stand unescaped.
            let copied = out.get_mut(start..).unwrap_or_default().iter_mut();
            copied.filter(|byte| matches!(byte, b'\n' | b'\r')).for_each(|byte| *byte = b' ');
        }
    } else if let Some(text) = text.filter(|text| is_plain_text(text)) {
        push_name(out, member::PAYLOAD_TEXT);
        out.push(b'"');
        json::push_escaped(out, text);
        out.push(b'"');
    } else {
        push_name(out, member::PAYLOAD_BASE64);
        out.push(b'"');
        base64::push(out, payload);
        out.push(b'"');
    }
}

fn push_name(out: &mut Vec<u8>, name: &str) {
    out.extend_from_slice(b",\"");
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b"\":");
}

/// Text as people write it: no control characters but those that lay it out.
fn is_plain_text(text: &str) -> bool {
    text.bytes().all(|byte| byte >= 0x20 || matches!(byte, b'\t' | b'\n' | b'\r' | 8 | 12))
}

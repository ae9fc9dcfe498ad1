//! Whatever we accept, rumqttc accepts alike; whatever we alone refuse, it is known to be lax about.
//!
//! The cases are valid packets with random changes. A difference that is not listed fails the test: here
//! what rumqttc cannot read, in the table of broken packets what it should not. Each has a packet that
//! shows it, so that neither list can grow, or grow old, in silence. `PENSTOCK_FUZZ_CASES` sets how many
//! cases there are, `PENSTOCK_FUZZ_SEED` which.

use std::collections::{BTreeMap, BTreeSet};

use testkit::fuzz::{Random, minimise, mutate, setting};

use super::super::encode::varint;
use super::Version;
use super::cases::{Rumqttc, cases, packet};
use super::corpus::packets;
use super::seen::{Seen, ours, theirs, version_in};

/// A kind of difference: the version, the packet type, and what was made of the packet.
type Difference = (String, u8, String);

/// What the two decoders make of the same bytes, if they do not agree and it is not their defect.
fn difference(bytes: &[u8], version: Version) -> Option<Difference> {
    let found = match (ours(bytes, version), theirs(bytes, version)) {
        (Ok(None), Err(error)) if error == "InsufficientBytes" => return None,
        (Ok(Some(ours)), Err(error)) if defect(&ours, bytes, &error) => return None,
        (Ok(Some(ours)), Ok(theirs)) if ours == theirs => return None,
        (Err(_), Err(_)) => return None,
        (Err(malformed), Ok(_)) => format!("lax: {malformed:?}"),
        (ours, theirs) => format!("{ours:?}, theirs {theirs:?}"),
    };
    Some((format!("{:?}", version_in(bytes, version)), bytes[0] >> 4, found))
}

/// Packets that follow the specification and that rumqttc does not read.
fn defect(ours: &Seen, bytes: &[u8], error: &str) -> bool {
    match (ours, error) {
        // Passwords are binary data; it takes them for text.
        (Seen::Connect(connect), "TopicNotUtf8") => std::str::from_utf8(&connect.password).is_err(),
        // The reason code and the property length of a DISCONNECT may be left out; it waits for them.
        (Seen::Disconnect { .. }, "PayloadRequired") => bytes[1] == 0,
        (Seen::Disconnect { .. }, "InsufficientBytes") => bytes[1] == 1,
        // It has no AUTH.
        (Seen::Auth, "InvalidPacketType") => true,
        _ => false,
    }
}

#[test]
fn what_rumqttc_cannot_read_it_still_cannot() {
    for (version, first, body, error) in [
        (Version::V3, 0x10, &b"\0\x04MQTT\x04\xc2\0\0\0\x01d\0\x01u\0\x01\xff"[..], "TopicNotUtf8"),
        (Version::V5, 0x10, b"\0\x04MQTT\x05\xc2\0\0\0\0\x01d\0\x01u\0\x01\xff", "TopicNotUtf8"),
        (Version::V5, 0xe0, b"", "PayloadRequired"),
        (Version::V5, 0xe0, b"\x04", "InsufficientBytes"),
        (Version::V5, 0xf0, b"\x18\x04\x15\0\x01m", "InvalidPacketType"),
    ] {
        let bytes = packet(first, body);
        assert!(matches!(ours(&bytes, version), Ok(Some(_))), "{}", bytes.escape_ascii());
        assert_eq!(theirs(&bytes, version), Err(error.to_owned()), "{}", bytes.escape_ascii());
    }
}

/// Found by a run of 100 million: it was looked for among the packets of the other version.
#[test]
fn a_connect_of_5_is_one_on_a_connection_of_3_1_1_too() {
    let bytes = packet(0x10, b"\0\x04MQTT\x05\x02\0\0\x01\x22\0\0\0\x01d");
    let found = difference(&bytes, Version::V3);
    assert_eq!(found, Some(("V5".to_owned(), 1, "lax: Truncated".to_owned())));
}

#[test]
fn what_we_accept_rumqttc_accepts_alike_but_for_what_is_listed() {
    let (seed, count) = (setting("SEED", rand::random()), setting("CASES", 60_000));
    println!("PENSTOCK_FUZZ_SEED={seed}");
    let lax = cases().into_iter().filter(|case| case.rumqttc == Rumqttc::Accepts);
    let listed: BTreeSet<Difference> =
        lax.map(|case| difference(&case.bytes, case.version).expect("it is lax about it")).collect();
    let mut random = Random::new(seed);
    let mut unlisted = BTreeMap::new();
    for version in [Version::V3, Version::V5] {
        let broken = cases().into_iter().filter(|case| case.version == version);
        let corpus: Vec<Vec<u8>> =
            packets(version).into_iter().chain(broken.map(|case| case.bytes)).collect();
        for _ in 0..count / 2 {
            let mut bytes = random.pick(&corpus).expect("a corpus").clone();
            let other = random.pick(&corpus).expect("a corpus");
            mutate(&mut random, &mut bytes, other);
            if random.below(4) != 0 {
                bytes = fitted(&bytes);
            }
            if let Some(found) = difference(&bytes, version).filter(|found| !listed.contains(found)) {
                unlisted.entry(found).or_insert((version, bytes));
            }
        }
    }
    for (found, (version, bytes)) in &unlisted {
        let small =
            minimise(bytes, &mut |bytes| difference(&fitted(bytes), *version).as_ref() == Some(found));
        println!("{found:?}: {}", fitted(&small).escape_ascii());
    }
    assert!(unlisted.is_empty(), "{} differences are not listed", unlisted.len());
}

/// The bytes with the remaining length made what it is, so that the body meets the decoders whatever
/// happened to it.
fn fitted(bytes: &[u8]) -> Vec<u8> {
    let mut fitted = vec![bytes.first().copied().unwrap_or(0x30)];
    let body = bytes.get(2..).unwrap_or_default();
    varint(&mut fitted, body.len());
    fitted.extend(body);
    fitted
}

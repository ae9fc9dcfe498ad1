//! Section 3.1: who may connect, and how.

use std::collections::BTreeSet;

use super::super::super::hash_password;
use super::super::gateway::{Gateway, open_config};
use super::super::wire::{self, Connect, plain};
use super::{BOTH, OWN, form, open};

/// Sends bytes that must not be taken as a CONNECT; returns the code of the CONNACK, if one came.
async fn refused(gateway: &Gateway, version: u8, bytes: &[u8]) -> Option<u8> {
    let mut client = gateway.raw().await;
    client.send(bytes).await;
    let code = client.expect_refusal(version).await;
    assert!(version == 5 || code.is_none_or(|code| code <= 5), "{code:?}");
    code
}

/// Will topic and message, with their properties.
fn will(version: u8, topic: &str, payload: &[u8]) -> Vec<u8> {
    let none: &[u8] = if version == 5 { &[0] } else { &[] };
    [none, &wire::string(topic), &wire::binary(payload)].concat()
}

// 3.1.1 [MQTT-3.1.0-1]
// 5 [MQTT-3.1.0-1], [MQTT-3.14.0-1]
#[tokio::test]
async fn the_first_packet_must_be_connect() {
    let gateway = Gateway::start();
    for version in BOTH {
        for packet in [
            wire::publish(version, 1, 1, OWN, b"x"),
            wire::publish(version, 0, 0, OWN, b"x"),
            wire::subscribe(version, 1, &[(OWN, 0)]),
            wire::pubrel(1),
            wire::PINGREQ.to_vec(),
            vec![0xe0, 0],
            vec![0xf0, 0],
        ] {
            let mut client = gateway.raw().await;
            client.send(&[packet, wire::connect(version, "d")].concat()).await;
            // Not even DISCONNECT: that needs a CONNACK before it.
            client.expect_end(&[]).await;
        }
    }
    assert!(gateway.outbox.payloads().is_empty());
}

// 3.1.1 [MQTT-3.1.0-2]
// 5 [MQTT-3.1.0-2]
#[tokio::test]
async fn a_second_connect_ends_the_connection() {
    let gateway = Gateway::start();
    for version in BOTH {
        for id in ["d", "e"] {
            let mut client = gateway.client(version, "d").await;
            client.send(&wire::connect(version, id)).await;
            client.expect_disconnect(version, &[0x82]).await;
        }
    }
}

// 3.1.1 [MQTT-3.1.2-1]
// 5 [MQTT-3.1.2-1]
#[tokio::test]
async fn a_wrong_protocol_name_ends_the_connection() {
    let gateway = Gateway::start();
    for version in BOTH {
        for name in ["MQTX", "mqtt", "MQT", "MQTTT", "", "HTTP"] {
            let rest = [&[version, 2, 0, 60][..], if version == 5 { &[0] } else { &[] }, &wire::string("d")];
            let body = [wire::string(name), rest.concat()].concat();
            refused(&gateway, version, &wire::packet(0x10, &body)).await;
        }
    }
}

// 3.1.1 [MQTT-3.1.2-2]
// 5 [MQTT-3.1.2-2]
#[tokio::test]
async fn an_unknown_protocol_level_is_answered_and_ends_the_connection() {
    let gateway = Gateway::start();
    for level in [0, 1, 2, 3, 6, 7, 0x84, 255] {
        let mut connect = wire::connect(4, "d");
        connect[8] = level;
        let mut client = gateway.raw().await;
        client.send(&connect).await;
        let answer = client.packet_or_end().await.expect("an answer");
        // In the form of 3.1.1 or of 5: the level says which one the client understands, or neither.
        let v3: &[u8] = &[0x20, 2, 0, 1];
        assert!(answer == v3 || (level > 5 && answer == [0x20, 3, 0, 0x84, 0]), "{level}: {answer:02x?}");
        client.expect_end(&[]).await;
    }
}

// 3.1.1 [MQTT-3.1.2-3]
// 5 [MQTT-3.1.2-3]
#[tokio::test]
async fn a_reserved_connect_flag_ends_the_connection() {
    let gateway = Gateway::start();
    for version in BOTH {
        for flags in [0x01, 0x03] {
            refused(&gateway, version, &Connect { flags, ..plain(version, "d") }.bytes()).await;
        }
    }
}

// 3.1.1 [MQTT-3.1.2-11], [MQTT-3.1.2-13], [MQTT-3.1.2-15]
// 5 [MQTT-3.1.2-11], [MQTT-3.1.2-13]
#[tokio::test]
async fn will_flags_without_a_will_end_the_connection() {
    let gateway = Gateway::start();
    for version in BOTH {
        for will in [0x08, 0x10, 0x18, 0x20, 0x28, 0x38] {
            let connect = Connect { flags: 0x02 | will, ..plain(version, "d") };
            refused(&gateway, version, &connect.bytes()).await;
        }
    }
}

// 3.1.1 [MQTT-3.1.2-14]
// 5 [MQTT-3.1.2-12]
#[tokio::test]
async fn a_will_at_qos_3_ends_the_connection() {
    let gateway = Gateway::start();
    for version in BOTH {
        for retain in [0, 0x20] {
            let rest = will(version, OWN, b"x");
            let connect = Connect { flags: 0x06 | 0x18 | retain, rest, ..plain(version, "d") };
            refused(&gateway, version, &connect.bytes()).await;
        }
    }
    assert!(gateway.outbox.payloads().is_empty());
}

// 3.1.1 [MQTT-3.1.2-9], [MQTT-3.1.2-19], [MQTT-3.1.2-21], [MQTT-3.1.3-3]
// 5 [MQTT-3.1.2-9], [MQTT-3.1.2-17], [MQTT-3.1.2-19], [MQTT-3.1.3-3]
#[tokio::test]
async fn fields_that_flags_promise_must_be_there() {
    let gateway = Gateway::start();
    for version in BOTH {
        let will = will(version, OWN, b"x");
        let no_payload = will[..will.len() - 3].to_vec();
        for (flags, rest) in [
            (0x06, Vec::new()),
            (0x06, no_payload),
            (0x82, Vec::new()),
            (0x86, will.clone()),
            (0xc2, wire::string("user")),
            (0xc6, [will.clone(), wire::string("user")].concat()),
        ] {
            refused(&gateway, version, &Connect { flags, rest, ..plain(version, "d") }.bytes()).await;
        }
        // Not even a client id.
        let none: &[u8] = if version == 5 { &[0] } else { &[] };
        let body = [&wire::string("MQTT")[..], &[version, 2, 0, 60], none].concat();
        refused(&gateway, version, &wire::packet(0x10, &body)).await;
    }
}

// 3.1.1 [MQTT-3.1.2-11], [MQTT-3.1.2-18], [MQTT-3.1.2-20]
// 5 [MQTT-3.1.2-16], [MQTT-3.1.2-18]
#[tokio::test]
async fn fields_that_flags_deny_must_not_be_there() {
    let gateway = Gateway::start();
    for version in BOTH {
        let will = will(version, OWN, b"x");
        for (flags, rest) in [
            (0x02, will.clone()),
            (0x02, wire::string("user")),
            (0x82, [wire::string("user"), wire::string("password")].concat()),
            (0x06, [will, wire::string("user")].concat()),
            (0x02, vec![0]),
        ] {
            refused(&gateway, version, &Connect { flags, rest, ..plain(version, "d") }.bytes()).await;
        }
    }
}

// 3.1.1 [MQTT-3.1.2-22]
#[tokio::test]
async fn a_password_without_a_user_name_is_for_mqtt_5() {
    let gateway = Gateway::start();
    let connect = |version| Connect { flags: 0x42, rest: wire::string("password"), ..plain(version, "d") };
    assert_eq!(refused(&gateway, 4, &connect(4).bytes()).await, None);
    // Whether it opens a door is another question; it is no error of form.
    let (_, connack) = open(&gateway, &connect(5)).await;
    assert!([0, 0x86, 0x87].contains(&connack[3]), "{connack:02x?}");
}

// 3.1.1 [MQTT-3.1.3-1]
// 5 [MQTT-3.1.3-1]
#[tokio::test]
async fn fields_come_in_their_order() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("users");
    let hash = hash_password(b"second").expect("hashed");
    std::fs::write(&file, format!("first:{hash}\n")).expect("written");
    for version in BOTH {
        let mut config = open_config();
        config.access.anonymous = false;
        config.access.users_file = Some(file.clone());
        let gateway = Gateway::with(&config);
        let (user, password) = (wire::string("first"), wire::string("second"));
        let will = will(version, OWN, b"will");
        let rest = [&will[..], &user, &password].concat();
        let (client, connack) = open(&gateway, &Connect { flags: 0xc6, rest, ..plain(version, "d") }).await;
        assert_eq!(connack[3], 0, "each field is what it is by its place");
        drop(client);
        assert_eq!(gateway.outbox.stored(1).await, ["will"]);
        let rest = [&will[..], &password, &user].concat();
        let connect = Connect { flags: 0xc6, rest, ..plain(version, "d") };
        let denied = refused(&gateway, version, &connect.bytes()).await;
        assert_eq!(denied, Some(if version == 5 { 0x86 } else { 4 }));
    }
}

// 3.1.1 [MQTT-3.1.3-5]
// 5 [MQTT-3.1.3-5]
#[tokio::test]
async fn client_ids_of_letters_and_digits_are_taken() {
    let gateway = Gateway::start();
    let all = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";
    for version in BOTH {
        let parts = (1..=23).map(|length| (0, length)).chain([(23, 23), (39, 23)]);
        for (from, length) in parts {
            let id: String = all.chars().skip(from).take(length).collect();
            let (mut client, connack) = open(&gateway, &plain(version, &id)).await;
            assert_eq!(connack[3], 0, "{id}");
            client.expect_silence().await;
        }
    }
}

// 3.1.1 [MQTT-3.1.3-6]
// 5 [MQTT-3.1.3-6], [MQTT-3.1.3-7], [MQTT-3.2.2-16]
#[tokio::test]
async fn an_empty_client_id_gets_one_that_nobody_has() {
    let gateway = Gateway::start();
    let mut clients = Vec::new();
    let mut ids = BTreeSet::new();
    for version in [4, 5, 4, 5, 5] {
        let (client, connack) = open(&gateway, &plain(version, "")).await;
        assert_eq!(connack[3], 0);
        if version == 5 {
            let told = form::told(&connack);
            let id = told.iter().find(|(name, _)| *name == 0x12).expect("an assigned client id");
            ids.insert(String::from_utf8(id.1[2..].to_vec()).expect("UTF-8"));
        }
        clients.push((version, client));
    }
    assert_eq!(ids.len(), 3, "{ids:?}");
    // None of them took the place of another.
    for (_, client) in &mut clients {
        client.expect_silence().await;
    }
    // An id that was given is one like any other: it can be taken over by its name.
    for id in &ids {
        let (mut client, connack) = open(&gateway, &plain(5, id)).await;
        assert_eq!(connack[3], 0);
        assert!(form::told(&connack).iter().all(|(name, _)| *name != 0x12));
        client.expect_silence().await;
    }
    for (version, client) in &mut clients {
        if *version == 5 {
            client.expect_disconnect(5, &[0x8e]).await;
        } else {
            client.expect_silence().await;
        }
    }
}

// 3.1.1 [MQTT-3.1.3-7], [MQTT-3.1.3-8]
#[tokio::test]
async fn an_empty_client_id_of_3_1_1_needs_a_clean_session() {
    let gateway = Gateway::start();
    let code = refused(&gateway, 4, &Connect { flags: 0, ..plain(4, "") }.bytes()).await;
    assert_eq!(code, Some(2));
}

// 3.1.1 [MQTT-3.1.3-9]
// 5 [MQTT-3.1.3-8]
#[tokio::test]
async fn a_client_id_that_is_not_taken_is_answered() {
    let gateway = Gateway::start();
    for (version, expected) in [(4, 2), (5, 0x85)] {
        for id in ["a/b", "+", "#", &"x".repeat(2000)] {
            assert_eq!(refused(&gateway, version, &wire::connect(version, id)).await, Some(expected));
        }
    }
}

// 3.1.1 [MQTT-3.1.4-1], [MQTT-3.2.2-6]
// 5 [MQTT-3.1.4-1]
#[tokio::test]
async fn a_connect_out_of_form_ends_the_connection() {
    let gateway = Gateway::start();
    for version in BOTH {
        let good = wire::connect(version, "d");
        let mut cut = good.clone();
        // Its length ends inside of the client id.
        cut[1] -= 1;
        cut.pop();
        let mut long = good.clone();
        long[1] += 1;
        long.push(0);
        for bytes in [cut, long, wire::packet(0x10, &[]), wire::packet(0x10, &wire::string("MQTT"))] {
            let code = refused(&gateway, version, &bytes).await;
            assert!(version == 5 || code.is_none(), "3.1.1 has no code for it: {code:?}");
        }
    }
    // Properties that are repeated, of another packet, out of range or unknown.
    for properties in [
        &[0x21, 0, 1, 0x21, 0, 1][..],
        &[0x11, 0, 0, 0, 1, 0x11, 0, 0, 0, 1],
        &[0x01, 1],
        &[0x21, 0, 0],
        &[0x27, 0, 0, 0, 0],
        &[0x19, 2],
        &[0x17, 2],
        &[0x16, 0, 1, b'x'],
        &[0x7f, 0],
    ] {
        let code = refused(&gateway, 5, &Connect { properties, ..plain(5, "d") }.bytes()).await;
        assert!(code.is_none_or(|code| [0x81, 0x82].contains(&code)), "{properties:02x?}: {code:02x?}");
    }
}

// 3.1.1 [MQTT-3.1.4-2]
// 5 [MQTT-3.1.4-3]
#[tokio::test]
async fn a_new_connection_of_a_client_ends_the_older_one() {
    let gateway = Gateway::start();
    for older in BOTH {
        for newer in BOTH {
            let mut first = gateway.client(older, "d").await;
            let mut second = gateway.client(newer, "d").await;
            first.expect_disconnect(older, &[0x8e]).await;
            second.expect_silence().await;
            second.send(&[0xe0, 0]).await;
            second.expect_end(&[]).await;
        }
    }
}

// 3.1.1 [MQTT-3.1.4-5]
// 5 [MQTT-3.1.4-6]
#[tokio::test]
async fn nothing_after_a_refused_connect_is_taken() {
    let gateway = Gateway::start();
    for version in BOTH {
        let connect = Connect { flags: 0x03, ..plain(version, "d") }.bytes();
        let identifier = wire::connect(version, "a/b");
        for connect in [connect, identifier] {
            let publish = wire::publish(version, 1, 1, OWN, b"x");
            refused(&gateway, version, &[connect, publish, wire::PINGREQ.to_vec()].concat()).await;
        }
    }
    gateway.connections(0).await;
    // What came before this one is stored before it, or never.
    let mut client = gateway.client(5, "d").await;
    client.send(&wire::publish(5, 1, 1, OWN, b"last")).await;
    client.expect(&[&wire::puback(1)]).await;
    assert_eq!(gateway.outbox.payloads(), ["last"]);
}

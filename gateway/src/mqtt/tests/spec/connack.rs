//! Section 3.2: what the gateway says to a CONNECT.

use super::super::super::hash_password;
use super::super::gateway::{Gateway, open_config};
use super::super::wire::{self, Connect, plain};
use super::house::{house, lasting};
use super::{BOTH, OWN, form, open};

// 3.1.1 [MQTT-3.1.4-4], [MQTT-3.2.0-1]
// 5 [MQTT-3.1.4-5], [MQTT-3.2.0-1], [MQTT-3.2.0-2]
#[tokio::test]
async fn connack_comes_first_and_once() {
    let gateway = Gateway::start();
    for version in BOTH {
        let mut client = gateway.raw().await;
        let publish = wire::publish(version, 1, 1, OWN, b"x");
        let subscribe = wire::subscribe(version, 2, &[(OWN, 0)]);
        let early = [wire::connect(version, "d"), wire::PINGREQ.to_vec(), publish, subscribe];
        client.send(&early.concat()).await;
        let mut kinds = Vec::new();
        for _ in 0..4 {
            kinds.push(client.next(version).await);
        }
        assert_eq!((kinds[0][0], kinds[0][3]), (0x20, 0), "{kinds:02x?}");
        assert!(kinds[1..].iter().all(|packet| packet[0] != 0x20), "{kinds:02x?}");
        client.expect_silence().await;
    }
}

// 3.1.1 [MQTT-3.2.2-4], [MQTT-3.2.2-5]
// 5 [MQTT-3.2.2-6], [MQTT-3.2.2-7], [MQTT-3.2.2-8], [MQTT-3.14.0-1], [MQTT-4.13.2-1]
#[tokio::test]
async fn a_refusal_shows_no_session_and_ends_the_connection() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("users");
    let hash = hash_password(b"right").expect("hashed");
    std::fs::write(&file, format!("anna:{hash}\n")).expect("written");
    let mut config = open_config();
    config.access.anonymous = false;
    config.access.users_file = Some(file);
    let gateway = Gateway::with(&config);
    for version in BOTH {
        let properties: &[u8] = if version == 5 { &[0x11, 0, 0, 1, 0] } else { &[] };
        let connect = |password: &str| {
            let rest = [wire::string("anna"), wire::string(password)].concat();
            // The session is to be resumed, and lasts.
            Connect { flags: 0xc0, rest, properties, ..plain(version, "d") }
        };
        let (mut client, connack) = open(&gateway, &connect("right")).await;
        assert_eq!(connack[3], 0);
        client.send(&[0xe0, 0]).await;
        client.expect_end(&[]).await;
        let mut client = gateway.raw().await;
        client.send(&[connect("wrong").bytes(), wire::PINGREQ.to_vec()].concat()).await;
        let refused: &[u8] = if version == 5 { &[0x20, 3, 0, 0x86, 0] } else { &[0x20, 2, 0, 4] };
        client.expect_end(&[refused]).await;
        let mut client = gateway.raw().await;
        client.send(&Connect { properties, ..plain(version, "d") }.bytes()).await;
        let refused: &[u8] = if version == 5 { &[0x20, 3, 0, 0x87, 0] } else { &[0x20, 2, 0, 5] };
        client.expect_end(&[refused]).await;
    }
}

// 5 [MQTT-3.1.2-28]
#[tokio::test]
async fn response_information_is_not_given_unasked() {
    let gateway = Gateway::start();
    for properties in [&[][..], &[0x19, 0]] {
        let (_, connack) = open(&gateway, &Connect { properties, ..plain(5, "d") }).await;
        assert!(form::told(&connack).iter().all(|(name, _)| *name != 0x1a), "{connack:02x?}");
    }
}

// 3.1.1 [MQTT-3.1.2-4], [MQTT-3.2.2-1], [MQTT-3.2.2-2], [MQTT-3.2.2-3]
// 5 [MQTT-3.1.2-6], [MQTT-3.2.2-1], [MQTT-3.2.2-2], [MQTT-3.2.2-3]
#[tokio::test]
async fn session_present_tells_whether_there_was_a_session() {
    // Whether each connection starts clean, and whether it is told of a session. With 3.1.1 a clean session
    // ends with its connection; with MQTT 5 all of these last.
    let v3 = [(false, 0), (false, 1), (true, 0), (false, 0), (false, 1), (true, 0), (true, 0), (false, 0)];
    let v5 = [(false, 0), (false, 1), (true, 0), (false, 1), (false, 1), (true, 0), (true, 0), (false, 1)];
    for (version, connections) in [(4, v3), (5, v5)] {
        let gateway = Gateway::start();
        for (clean, present) in connections {
            let flags = if clean { 0x02 } else { 0x00 };
            let (client, connack) = open(&gateway, &Connect { flags, ..lasting(version, "d") }).await;
            assert_eq!((connack[2], connack[3]), (present, 0), "{version}, clean {clean}");
            client.leave().await;
            gateway.connections(0).await;
        }
    }
}

// 5 [MQTT-3.2.2-9], [MQTT-3.2.2-13]
#[tokio::test]
async fn every_qos_and_retain_are_offered() {
    let gateway = house();
    let (mut client, connack) = open(&gateway, &plain(5, "d")).await;
    // No maximum QoS, and none of what may be unavailable is: retain, wildcards, subscription identifiers
    // and shared subscriptions.
    let told = form::told(&connack);
    assert!(told.iter().all(|(name, _)| *name != 0x24), "{connack:02x?}");
    for name in [0x25, 0x28, 0x29, 0x2a] {
        assert!(told.iter().all(|told| *told != (name, vec![0])), "{name:02x} is not offered");
    }
    for qos in 0..3 {
        client.listen(5, "house/+", qos).await;
        client.listen(5, "$share/group/house/+", qos).await;
    }
    for will in [0x06, 0x0e, 0x16, 0x26, 0x2e, 0x36] {
        let rest = [&[0][..], &wire::string("house/will"), &wire::binary(b"gone")].concat();
        let (client, connack) = open(&gateway, &Connect { flags: will, rest, ..plain(5, "will") }).await;
        assert_eq!(connack[3], 0, "a will with {will:02x}");
        client.leave().await;
    }
}

// 5 [MQTT-3.1.2-24], [MQTT-3.1.2-25], [MQTT-3.2.2-19], [MQTT-3.2.2-20], [MQTT-3.14.2-3], [MQTT-3.14.2-4]
#[tokio::test]
async fn packets_keep_to_the_maximum_of_the_client() {
    let gateway = house();
    let filters =
        ["house/1", "house/2", "house/3", "house/4", "house/5", "house/6"].map(|filter| (filter, 0));
    for size in [1, 2, 3, 4, 5, 6, 8, 10, 12, 16, 20, 24, 28, 32, 40, 48, 64] {
        let properties = [0x27, 0, 0, 0, size];
        for (id, end) in [("", &[0xe0, 0][..]), ("d", &[0xe0, 0]), ("d", &[0xc1, 0])] {
            let mut client = gateway.raw().await;
            client.send(&Connect { properties: &properties, ..plain(5, id) }.bytes()).await;
            client.send(&wire::subscribe(5, 1, &filters)).await;
            client.send(&wire::publish(5, 1, 1, "closed/door", b"refused")).await;
            client.send(&[&wire::PINGREQ, end].concat()).await;
            while let Some(packet) = client.packet_or_end().await {
                form::check(5, &packet);
                assert!(packet.len() <= size.into(), "{size}: {packet:02x?}");
            }
        }
    }
    // What does not fit is left out, and does not stand in the way of the next.
    let mut publisher = gateway.client(5, "publisher").await;
    let properties = [0x11, 0, 0, 0x0e, 0x10, 0x21, 0, 1, 0x27, 0, 0, 0, 100];
    let narrow = || Connect { flags: 0, properties: &properties, ..plain(5, "narrow") };
    let (mut client, _) = open(&gateway, &narrow()).await;
    client.listen(5, "house/+", 2).await;
    let large = "x".repeat(100);
    let exact = "x".repeat(100 - 2 - 2 - "house/door".len() - 2 - 1);
    for qos in 0..3 {
        publisher.say(5, qos, "house/door", &large).await;
    }
    publisher.say(5, 1, "house/door", &exact).await;
    client.expect_payloads(5, &[&exact]).await;
    client.expect_silence().await;
    publisher.say(5, 1, "house/door", &format!("{exact}x")).await;
    client.leave().await;
    publisher.say(5, 2, "house/door", &large).await;
    publisher.say(5, 1, "house/door", "small").await;
    let (mut client, connack) = open(&gateway, &narrow()).await;
    assert_eq!(connack[2], 1);
    client.expect_payloads(5, &["small"]).await;
    client.expect_silence().await;
}

//! Section 3.2: what the gateway says to a CONNECT.

use super::super::super::hash_password;
use super::super::gateway::{Gateway, open_config};
use super::super::wire::{self, Connect, plain};
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

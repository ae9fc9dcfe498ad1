//! CONNECT: who is let in, what CONNACK says, and every refusal in both versions.

use std::fs;
use std::path::Path;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::{TlsConnector, rustls};

use super::super::codec::Version;
use super::super::{Access, Config, hash_password};
use super::gateway::{Client, Gateway, open_config, soon};
use super::wire::{self, Connect, plain};

const REFUSED_V3: [u8; 3] = [0x20, 2, 0];
const REFUSED_V5: [u8; 3] = [0x20, 3, 0];

fn refused(version: Version, code: u8) -> Vec<u8> {
    match version {
        Version::V3 => [&REFUSED_V3[..], &[code]].concat(),
        Version::V5 => [&REFUSED_V5[..], &[code, 0]].concat(),
    }
}

async fn check(gateway: &Gateway, connect: &[u8], answer: &[u8]) {
    let mut client = gateway.raw().await;
    client.send(connect).await;
    let answers: &[&[u8]] = if answer.is_empty() { &[] } else { &[answer] };
    client.expect_end(answers).await;
}

#[tokio::test]
async fn connack_tells_what_is_and_is_not_offered() {
    let gateway = Gateway::start();
    let mut client = gateway.raw().await;
    client.send(&Connect { keep_alive: 0, properties: &[0x11, 0, 0, 0, 9], ..plain(5, "") }.bytes()).await;
    let connack = client.packet().await;
    let (head, properties) = connack.split_at(5);
    assert_eq!(
        head,
        [0x20, u8::try_from(connack.len() - 2).unwrap(), 0, 0, u8::try_from(properties.len()).unwrap()]
    );
    let has = |property: &[u8]| properties.windows(property.len()).any(|window| window == property);
    assert!(!has(&[0x11, 0, 0, 0, 9]), "the session expiry is granted as asked for");
    assert!(has(&[0x21, 0, 128]), "receive maximum");
    assert!(has(&[0x27, 0, 4, 0, 0]), "maximum packet size");
    // Nothing is taken back: retained messages, wildcards, subscription identifiers, shared subscriptions.
    assert!(![0x25, 0x28, 0x29, 0x2a].iter().any(|property| has(&[*property, 0])));
    assert!(has(&[0x13, 0x04, 0xb0]), "server keep alive 1200");
    assert!(has(&[0x12, 0, 21]) && has(b"auto-"), "assigned client id");

    let mut client = gateway.raw().await;
    client.send(&wire::connect(4, "")).await;
    client.expect(&[&[0x20, 2, 0, 0]]).await;
}

#[tokio::test]
async fn client_ids_follow_the_rules() {
    let gateway = Gateway::start();
    check(&gateway, &Connect { flags: 0, ..plain(4, "") }.bytes(), &refused(Version::V3, 2)).await;
    for bad in ["a/b", "a+", "#", "100%", "\u{1}", &"x".repeat(129)] {
        check(&gateway, &wire::connect(4, bad), &refused(Version::V3, 2)).await;
        check(&gateway, &wire::connect(5, bad), &refused(Version::V5, 0x85)).await;
    }
    // An empty id without clean start is fine with MQTT 5.
    let mut client = gateway.raw().await;
    client.send(&Connect { flags: 0, ..plain(5, "") }.bytes()).await;
    assert_eq!(client.packet().await[3], 0);
}

#[tokio::test]
async fn unknown_protocols_and_malformed_connects_are_answered_as_their_version_can() {
    let gateway = Gateway::start();
    let level = |level: u8| {
        let mut bytes = wire::connect(4, "d");
        bytes[8] = level;
        bytes
    };
    check(&gateway, &level(3), &refused(Version::V3, 1)).await;
    check(&gateway, &level(6), &refused(Version::V5, 0x84)).await;
    let mut old = b"\x10\x11\x00\x06MQIsdp\x03\x02\x00\x3c\x00\x03abc".to_vec();
    check(&gateway, &old, &refused(Version::V3, 1)).await;
    old[4] = b'X';
    check(&gateway, &old, &[]).await;
    // A reserved flag, a repeated property, a property of another packet.
    check(&gateway, &Connect { flags: 0x03, ..plain(4, "d") }.bytes(), &[]).await;
    check(&gateway, &Connect { flags: 0x03, ..plain(5, "d") }.bytes(), &refused(Version::V5, 0x81)).await;
    let twice = [0x22, 0, 1, 0x22, 0, 1];
    check(&gateway, &Connect { properties: &twice, ..plain(5, "d") }.bytes(), &refused(Version::V5, 0x82))
        .await;
    let foreign = [0x01, 1];
    check(&gateway, &Connect { properties: &foreign, ..plain(5, "d") }.bytes(), &refused(Version::V5, 0x81))
        .await;
    // Anything but CONNECT, and a CONNECT that no client needs.
    for bytes in [&wire::PINGREQ[..], b"GET / HTTP/1.1\r\n", &[0x16, 3, 1], &[0x10, 0xff, 0xff, 0xff, 0x7f]] {
        check(&gateway, bytes, &[]).await;
    }
    assert_eq!(gateway.handle.status().clients, 0);
}

#[tokio::test]
async fn enhanced_authentication_is_refused() {
    let gateway = Gateway::start();
    let method = [&[0x15][..], &wire::string("SCRAM")].concat();
    let connect = Connect { properties: &method, ..plain(5, "d") };
    check(&gateway, &connect.bytes(), &refused(Version::V5, 0x8c)).await;
}

fn with_user<'a>(version: u8, id: &'a str, user: &str, password: &str) -> Connect<'a> {
    let rest = [wire::string(user), wire::string(password)].concat();
    Connect { flags: 0xc2, rest, ..plain(version, id) }
}

#[tokio::test]
async fn users_need_the_right_password_and_may_be_bound_to_a_device() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("users");
    let hash = hash_password(b"secret").expect("hashed");
    fs::write(&file, format!("anna:{hash}\npump:{hash}:device=pump-7\n")).expect("written");
    let mut config = open_config();
    config.access = Access { anonymous: false, users_file: Some(file), rules: Vec::new() };
    let gateway = Gateway::with(&config);
    for (version, wrong, anonymous) in [
        (4, refused(Version::V3, 4), refused(Version::V3, 5)),
        (5, refused(Version::V5, 0x86), refused(Version::V5, 0x87)),
    ] {
        check(&gateway, &with_user(version, "d", "anna", "wrong").bytes(), &wrong).await;
        check(&gateway, &with_user(version, "d", "nobody", "secret").bytes(), &wrong).await;
        check(&gateway, &wire::connect(version, "d"), &anonymous).await;
    }
    let mut client = gateway.raw().await;
    client.send(&with_user(4, "any name/at all", "pump", "secret").bytes()).await;
    client.expect(&[&[0x20, 2, 0, 0]]).await;
    client.send(&wire::publish(4, 1, 1, "devices/pump-7/telemetry", b"bound")).await;
    client.expect(&[&wire::puback(1)]).await;
    client.send(&wire::publish(4, 1, 2, "devices/d/telemetry", b"foreign")).await;
    client.expect_end(&[]).await;
    assert_eq!(gateway.outbox.payloads(), ["bound"]);
}

/// A CONNECT with a will.
fn with_will<'a>(version: u8, id: &'a str, flags: u8, topic: &str, payload: &[u8]) -> Connect<'a> {
    let properties: &[u8] = if version == 5 { &[5, 0x18, 0, 0, 0, 9] } else { &[] };
    let rest = [properties, &wire::string(topic), &wire::binary(payload)].concat();
    Connect { flags: 0x06 | flags, rest, ..plain(version, id) }
}

#[tokio::test]
async fn a_will_is_stored_when_the_connection_is_lost_and_not_after_disconnect() {
    for version in [4, 5] {
        let gateway = Gateway::start();
        let topic = "devices/d/telemetry/will";
        let connect = with_will(version, "d", 0x08, topic, b"gone").bytes();
        let farewells: [&[u8]; 3] = [&[0xe0, 0], &[], &[0xe0, 1, 0x04]];
        for (farewell, wills) in farewells.into_iter().zip([0, 1, 2]) {
            let mut client = gateway.raw().await;
            client.send(&connect).await;
            assert_eq!(client.packet().await[3], 0);
            client.send(farewell).await;
            drop(client);
            gateway.connections(0).await;
            let stored = gateway.outbox.stored(wills).await;
            assert_eq!(stored, vec!["gone"; wills], "version {version}, {farewell:02x?}");
        }
    }
}

#[tokio::test]
async fn a_will_that_cannot_be_honoured_is_refused() {
    let gateway = Gateway::start();
    check(&gateway, &with_will(5, "d", 0, "elsewhere", b"x").bytes(), &refused(Version::V5, 0x87)).await;
    check(&gateway, &with_will(4, "d", 0, "devices/e/telemetry", b"x").bytes(), &refused(Version::V3, 5))
        .await;
    check(&gateway, &with_will(5, "d", 0, "a/+", b"x").bytes(), &refused(Version::V5, 0x81)).await;
}

#[tokio::test]
async fn publishes_may_follow_connect_at_once() {
    let gateway = Gateway::start();
    let mut client = gateway.raw().await;
    let publish = wire::publish(4, 1, 1, "devices/d/telemetry", b"early");
    client.send(&[wire::connect(4, "d"), publish].concat()).await;
    client.expect(&[&[0x20, 2, 0, 0], &wire::puback(1)]).await;
}

#[tokio::test]
async fn tls_clients_are_served_and_a_broken_handshake_hurts_nobody() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (config, pem) = tls_config(folder.path());
    let gateway = Gateway::with(&config);
    assert!(gateway.handle.addresses()[0].tls);

    let mut junk = gateway.raw().await;
    junk.send(&wire::connect(4, "d")).await;
    drop(junk.packet_or_end().await);

    let mut client = Client::new(tls(&gateway, &pem).await);
    client.send(&wire::connect(5, "d")).await;
    assert_eq!(client.packet().await[3], 0);
    let large = wire::publish(5, 1, 1, "devices/d/telemetry", &[b'x'; 200_000]);
    client.send(&[large, wire::publish(5, 1, 2, "devices/d/telemetry", b"y")].concat()).await;
    client.expect(&[&wire::puback(1), &wire::puback(2)]).await;
    client.expect_silence().await;
    client.send(&[0xe0, 0]).await;
    client.expect_end(&[]).await;
    gateway.connections(0).await;
}

/// More clients than may shake hands at once stop in the middle of it, or say nothing at all.
#[tokio::test]
async fn handshakes_that_do_not_end_are_cut_off_and_give_their_places_back() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (config, pem) = tls_config(folder.path());
    let mut patient = config.clone();
    patient.limits.handshake_timeout = Duration::from_secs(60);
    let patient = Gateway::with(&patient);
    let mut hurried = config;
    hurried.limits.handshake_timeout = Duration::from_millis(500);
    let hurried = Gateway::with(&hurried);
    // The header of a record of 512 bytes with a ClientHello, and nothing of it.
    let front = [22, 3, 1, 2, 0, 1];

    let places = patient.handle.shared.handshakes.available_permits();
    let mut stopped = Vec::new();
    for gateway in [&patient, &hurried] {
        for _ in 0..places + 8 {
            let mut client = gateway.raw().await;
            client.send(&front).await;
            stopped.push(client);
        }
        stopped.push(gateway.raw().await);
    }
    let taken = async {
        while patient.handle.shared.handshakes.available_permits() > 0 {
            tokio::task::yield_now().await;
        }
    };
    soon(taken).await;
    let late = async {
        let mut client = Client::new(tls(&patient, &pem).await);
        client.send(&wire::connect(5, "d")).await;
        client.packet().await
    };
    let late = tokio::time::timeout(Duration::from_millis(100), late).await;
    assert!(late.is_err(), "every place is taken until a deadline");

    for mut client in stopped.drain(places + 9..) {
        client.expect_end(&[]).await;
    }
    hurried.connections(0).await;
    assert_eq!(hurried.handle.shared.handshakes.available_permits(), places);
    let mut client = Client::new(tls(&hurried, &pem).await);
    client.send(&wire::connect(5, "d")).await;
    assert_eq!(client.packet().await[3], 0);
}

/// A configuration whose listener speaks TLS, and its certificate.
pub(super) fn tls_config(folder: &Path) -> (Config, String) {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
    let (certificate, key) = (folder.join("cert.pem"), folder.join("key.pem"));
    fs::write(&certificate, made.cert.pem()).expect("written");
    fs::write(&key, made.signing_key.serialize_pem()).expect("written");
    let mut config = open_config();
    config.listeners[0].tls = Some((certificate, key));
    (config, made.cert.pem())
}

pub(super) async fn tls(gateway: &Gateway, certificate: &str) -> impl AsyncRead + AsyncWrite + Unpin + use<> {
    let mut roots = rustls::RootCertStore::empty();
    let der = rustls::pki_types::CertificateDer::from_pem_slice(certificate.as_bytes()).expect("PEM");
    roots.add(der).expect("a root");
    let config = rustls::ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    let connector = TlsConnector::from(std::sync::Arc::new(config));
    let name = ServerName::try_from("localhost").expect("a name");
    soon(connector.connect(name, gateway.raw().await.socket)).await.expect("a handshake")
}

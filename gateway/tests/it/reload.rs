//! SIGHUP: users, access rules and certificates change under a running gateway.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use penstock::mqtt::hash_password;
use penstock::supervise::clock;
use testkit::gateway::{Config, Gateway};
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{self, ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use crate::real_clients::self_signed;

const DEADLINE: Duration = Duration::from_secs(20);
const RULE: &str = "\n[[mqtt.access.rule]]\neffect = \"allow\"\naction = \"subscribe\"\nfilter = \"devices/#\"\nuser = \"app-1\"\n";

#[test]
fn a_hangup_puts_users_rules_and_certificates_in_force_that_can_be_used() {
    let [folder, elsewhere] = [(); 2].map(|()| tempfile::tempdir().expect("a temporary folder"));
    let (certificate, key) = self_signed(folder.path());
    let users = folder.path().join("users");
    write_users(&users, &[("app-1", "old")]);
    let config = Config::default()
        .tls(&certificate, &key)
        .set("uplink", "enabled = false")
        .set("mqtt.access", &format!("users_file = {:?}", users.to_string_lossy()));
    let mut gateway = Gateway::start(folder.path(), config).expect("the gateway starts");
    let mut before = connect(plain(&gateway), "app-1", "old").expect("it may connect");
    assert_eq!(subscribe(&mut before), 0x80, "no rule allows it");
    let old = fs::read(&certificate).expect("a certificate");
    connect(tls(&gateway, &old).expect("a handshake"), "app-1", "old").expect("it may connect");

    // Nothing can be used: everything stays.
    let file = folder.path().join("penstock.toml");
    let settings = fs::read_to_string(&file).expect("the configuration");
    fs::write(&file, format!("{settings}{RULE}unknown = true\n")).expect("written");
    fs::write(&users, "junk\n").expect("written");
    fs::write(&certificate, "junk").expect("written");
    gateway.process().signal("HUP").expect("it can be signalled");
    for what in ["rules", "users", "certificate"] {
        wait_for(&gateway, &format!("penstock_mqtt_reloads_refused_total{{what=\"{what}\"}} 1"));
    }
    assert_eq!(subscribe(&mut before), 0x80);
    connect(tls(&gateway, &old).expect("a handshake"), "app-1", "old").expect("it may connect");

    // Everything can.
    fs::write(&file, format!("{settings}{RULE}")).expect("written");
    write_users(&users, &[("app-1", "new")]);
    let (new_certificate, new_key) = self_signed(elsewhere.path());
    fs::copy(new_key, &key).expect("copied");
    fs::copy(new_certificate, &certificate).expect("copied");
    gateway.process().signal("HUP").expect("it can be signalled");
    for what in ["rules", "users", "certificate"] {
        wait_for(&gateway, &format!("penstock_mqtt_reloads_total{{what=\"{what}\"}} 1"));
    }
    assert_eq!(subscribe(&mut before), 0, "who was connected stays and has the new rules");
    assert!(connect(plain(&gateway), "app-1", "old").is_none(), "the old password is gone");
    let new = fs::read(&certificate).expect("a certificate");
    assert!(tls(&gateway, &old).is_err(), "the old certificate is gone");
    let mut after =
        connect(tls(&gateway, &new).expect("a handshake"), "app-1", "new").expect("it may connect");
    assert_eq!(subscribe(&mut after), 0);
    assert_eq!(gateway.stop().expect("it stops in time").code(), Some(0));
}

fn write_users(file: &Path, users: &[(&str, &str)]) {
    let line = |(name, password): &(&str, &str)| {
        format!("{name}:{}\n", hash_password(password.as_bytes()).expect("hashed"))
    };
    fs::write(file, users.iter().map(line).collect::<String>()).expect("written");
}

/// Waits until the metrics say so.
fn wait_for(gateway: &Gateway, line: &str) {
    let deadline = clock::now() + DEADLINE;
    loop {
        let metrics = gateway.health("/metrics").expect("it answers").expect("metrics");
        if metrics.lines().any(|said| said == line) {
            return;
        }
        assert!(clock::now() < deadline, "{line} is not among\n{metrics}");
    }
}

fn plain(gateway: &Gateway) -> TcpStream {
    open(gateway.mqtt())
}

/// A connection to the listener with TLS for somebody who trusts only this certificate.
fn tls(gateway: &Gateway, trusted: &[u8]) -> std::io::Result<StreamOwned<ClientConnection, TcpStream>> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(trusted).expect("PEM")).expect("a root");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let config = config.expect("versions").with_root_certificates(roots).with_no_client_auth();
    let name = ServerName::try_from("localhost").expect("a name");
    let connection = ClientConnection::new(Arc::new(config), name).expect("a connection");
    let mut stream = StreamOwned::new(connection, open(gateway.mqtt_tls().expect("asked for")));
    while stream.conn.is_handshaking() {
        stream.conn.complete_io(&mut stream.sock)?;
    }
    Ok(stream)
}

fn open(address: &str) -> TcpStream {
    let stream = TcpStream::connect(address).expect("the gateway listens");
    stream.set_read_timeout(Some(DEADLINE)).expect("a timeout can be set");
    stream
}

fn string(text: &str) -> Vec<u8> {
    [&u16::try_from(text.len()).expect("short").to_be_bytes(), text.as_bytes()].concat()
}

fn packet(first: u8, body: &[u8]) -> Vec<u8> {
    [&[first, u8::try_from(body.len()).expect("short")], body].concat()
}

/// Connects with a client id of its own; nothing if the password is refused.
fn connect<S: Read + Write>(mut stream: S, user: &str, password: &str) -> Option<S> {
    let mut body = vec![0, 4, b'M', b'Q', b'T', b'T', 4, 0b1100_0010, 0, 60];
    body.extend([string(""), string(user), string(password)].concat());
    stream.write_all(&packet(0x10, &body)).expect("CONNECT is taken");
    let mut answer = [0; 4];
    stream.read_exact(&mut answer).expect("CONNACK comes");
    assert!(answer == [0x20, 2, 0, 0] || answer == [0x20, 2, 0, 4], "{answer:02x?}");
    (answer[3] == 0).then_some(stream)
}

/// Subscribes to what every device says; returns the answer.
fn subscribe<S: Read + Write>(stream: &mut S) -> u8 {
    let body = [&[0, 1][..], &string("devices/#"), &[0]].concat();
    stream.write_all(&packet(0x82, &body)).expect("SUBSCRIBE is taken");
    let mut answer = [0; 5];
    stream.read_exact(&mut answer).expect("SUBACK comes");
    assert_eq!(answer[..4], [0x90, 3, 0, 1]);
    answer[4]
}

//! Ways to a service.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::sync::atomic::Ordering;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use super::front::{Front, accept, read_head};
use crate::azure::ConnectionString;
use crate::commands::amqp::config::{Connection, Proxy, SignIn, Transport};
use crate::commands::amqp::dial::{Dialer, Stream};
use crate::commands::amqp::websocket;
use crate::tls;

fn plain(service: SocketAddr) -> Connection {
    let text = format!(
        "Endpoint=sb://{service};SharedAccessKeyName=a;SharedAccessKey=b;UseDevelopmentEmulator=true;"
    );
    Connection::new(SignIn::Key(ConnectionString::parse(&text).unwrap()))
}

fn proxy(front: &Front) -> Proxy {
    Proxy::parse(&format!("http://{}", front.address)).unwrap()
}

async fn echoes(mut stream: Stream) {
    let sent: Vec<u8> = (0..200_000_u32).map(|place| place.to_le_bytes()[0]).collect();
    let mut seen = vec![0; sent.len()];
    let (mut reader, mut writer) = tokio::io::split(&mut stream);
    let (wrote, read) = tokio::join!(
        async {
            writer.write_all(&sent).await?;
            writer.flush().await
        },
        reader.read_exact(&mut seen)
    );
    wrote.unwrap();
    read.unwrap();
    assert!(seen == sent);
}

#[tokio::test]
async fn streams_pass_through_a_proxy_and_inside_websocket() {
    let echo = Front::echo().await;
    let web = Front::websocket(echo.address).await;
    let open = Front::proxy(None).await;
    echoes(Dialer::new(&plain(echo.address)).unwrap().dial().await.unwrap()).await;
    let through = Connection { proxy: Some(proxy(&open)), ..plain(echo.address) };
    echoes(Dialer::new(&through).unwrap().dial().await.unwrap()).await;
    let inside = Connection { transport: Transport::WebSocket, ..plain(web.address) };
    echoes(Dialer::new(&inside).unwrap().dial().await.unwrap()).await;
    let both = Connection { proxy: Some(proxy(&open)), ..inside };
    echoes(Dialer::new(&both).unwrap().dial().await.unwrap()).await;
    let passed = [&echo, &web, &open].map(|front| front.passed.load(Ordering::SeqCst));
    assert_eq!(passed, [4, 2, 2]);
}

#[tokio::test]
async fn a_proxy_that_asks_gets_the_credentials_and_its_refusal_is_told() {
    let echo = Front::echo().await;
    let strict = Front::proxy(Some("gateway:s3cret:")).await;
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "gateway:s3cret:\n").unwrap();
    let with = |credentials_file| Connection {
        proxy: Some(Proxy { credentials_file, ..proxy(&strict) }),
        ..plain(echo.address)
    };
    let dialer = Dialer::new(&with(Some(file.path().to_owned()))).unwrap();
    echoes(dialer.dial().await.unwrap()).await;
    std::fs::write(file.path(), "gateway:old").unwrap();
    assert_eq!(dialer.dial().await.unwrap_err().to_string(), "the proxy answered 407");
    let error = Dialer::new(&with(None)).unwrap().dial().await.unwrap_err();
    assert_eq!(error.to_string(), "the proxy answered 407");
    std::fs::write(file.path(), "s3cret").unwrap();
    let error = dialer.dial().await.unwrap_err().to_string();
    assert!(error.ends_with("not one line with NAME:PASSWORD") && !error.contains("s3cret"), "{error}");
    assert_eq!(strict.passed.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn tls_trusts_the_authority_that_is_named_and_no_other() {
    let folder = tempfile::tempdir().unwrap();
    let make = |name: &str| {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let (certificate, key) =
            (folder.path().join(format!("{name}.pem")), folder.path().join(format!("{name}.key")));
        std::fs::write(&certificate, made.cert.pem()).unwrap();
        std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
        (certificate, key)
    };
    let (certificate, key) = make("service");
    let (other, _) = make("other");
    let acceptor = TlsAcceptor::from(tls::Certificate::read(&certificate, &key).unwrap().current());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let text = "Endpoint=sb://localhost/;SharedAccessKeyName=a;SharedAccessKey=b";
    let sign_in = SignIn::Key(ConnectionString::parse(text).unwrap());
    let trusting = |ca_file| {
        let connection =
            Connection { port: Some(port), ca_file: Some(ca_file), ..Connection::new(sign_in.clone()) };
        Dialer::new(&connection).unwrap()
    };
    let serve = async || {
        let (stream, _) = listener.accept().await.unwrap();
        let mut stream = acceptor.accept(stream).await?;
        let mut bytes = [0; 4];
        stream.read_exact(&mut bytes).await?;
        stream.write_all(&bytes).await?;
        stream.flush().await?;
        Ok::<_, std::io::Error>(stream)
    };
    let (trusted, distrusted) = (trusting(certificate), trusting(other));
    let (served, asked) = tokio::join!(serve(), async {
        let mut stream = trusted.dial().await.unwrap();
        stream.write_all(b"AMQP").await.unwrap();
        stream.flush().await.unwrap();
        let mut bytes = [0; 4];
        stream.read_exact(&mut bytes).await.unwrap();
        bytes
    });
    assert_eq!((served.is_ok(), &asked), (true, b"AMQP"));
    let (served, asked) = tokio::join!(serve(), distrusted.dial());
    assert!(served.is_err());
    assert_eq!(asked.unwrap_err().kind(), ErrorKind::InvalidData);
}

#[tokio::test]
async fn an_upgrade_that_is_not_for_us_is_refused() {
    async fn check(answer: &str, expected: &str) {
        let (client, mut service) = duplex(4096);
        let (upgraded, ()) = tokio::join!(websocket::upgrade(client, "localhost"), async {
            read_head(&mut service).await;
            service.write_all(answer.as_bytes()).await.unwrap();
        });
        assert_eq!(upgraded.unwrap_err().to_string(), expected);
    }
    check("HTTP/1.1 404 Nobody\r\n\r\n", "the upgrade to WebSocket was answered with 404").await;
    check("HTTP/1.1 101 Yes\r\n\r\n", "the answer to the upgrade is not for WebSocket").await;
    let stranger = "HTTP/1.1 101 Yes\r\nUpgrade: WebSocket\r\nSec-WebSocket-Accept: x\r\n\r\n";
    check(stranger, "the answer to the upgrade is for somebody else").await;
}

#[tokio::test]
async fn the_end_of_a_websocket_is_the_end_of_the_stream() {
    let (client, service) = duplex(1 << 16);
    let (client, service) = tokio::join!(websocket::upgrade(client, "localhost"), accept(service));
    let (mut client, mut service) = (client.unwrap(), service);
    service.write_all(b"last words").await.unwrap();
    service.shutdown().await.unwrap();
    let mut seen = Vec::new();
    client.read_to_end(&mut seen).await.unwrap();
    assert_eq!(seen, b"last words");
}

#[test]
fn a_host_without_a_name_for_tls_is_found_at_the_start() {
    let text = "Endpoint=sb://-/;SharedAccessKeyName=a;SharedAccessKey=b";
    let connection = Connection::new(SignIn::Key(ConnectionString::parse(text).unwrap()));
    let file = tempfile::NamedTempFile::new().unwrap();
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    std::fs::write(file.path(), made.cert.pem()).unwrap();
    let connection = Connection { ca_file: Some(file.path().to_owned()), ..connection };
    assert_eq!(Dialer::new(&connection).unwrap_err().to_string(), "- is not a host's name");
}

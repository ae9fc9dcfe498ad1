//! What may stand in front of a service: a proxy and a server of WebSocket, as small as they can be.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use crate::commands::amqp::websocket::WebSocket;
use crate::supervise::{Supervisor, TaskKind};

/// Something that listens and passes on.
pub(super) struct Front {
    pub(super) address: SocketAddr,
    /// Connections that were passed on.
    pub(super) passed: Arc<AtomicUsize>,
}

impl Front {
    /// A proxy that lets those through who show these credentials, `NAME:PASSWORD`, if any are asked for.
    pub(super) async fn proxy(credentials: Option<&str>) -> Self {
        let wanted = credentials.map(|credentials| format!("Basic {}", BASE64.encode(credentials)));
        Self::listen(move |mut client, passed| {
            let wanted = wanted.clone();
            async move {
                let (head, rest) = read_head(&mut client).await;
                assert!(rest.is_empty(), "nothing may be said before the tunnel is there");
                let target = head.strip_prefix("CONNECT ").unwrap().split(' ').next().unwrap().to_owned();
                if header(&head, "proxy-authorization") != wanted {
                    client.write_all(b"HTTP/1.1 407 Who are you?\r\n\r\n").await.unwrap();
                    return;
                }
                passed.fetch_add(1, Ordering::SeqCst);
                client.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n").await.unwrap();
                let mut service = TcpStream::connect(target).await.unwrap();
                drop(copy_bidirectional(&mut client, &mut service).await);
            }
        })
        .await
    }

    /// A server of WebSocket that passes on what is inside to `service`.
    pub(super) async fn websocket(service: SocketAddr) -> Self {
        Self::listen(move |client, passed| async move {
            let mut client = accept(client).await;
            passed.fetch_add(1, Ordering::SeqCst);
            let mut service = TcpStream::connect(service).await.unwrap();
            service.set_nodelay(true).unwrap();
            drop(copy_bidirectional(&mut client, &mut service).await);
        })
        .await
    }

    /// Something that sends back what it gets.
    pub(super) async fn echo() -> Self {
        Self::listen(|mut client, passed| async move {
            passed.fetch_add(1, Ordering::SeqCst);
            let (mut reader, mut writer) = client.split();
            drop(tokio::io::copy(&mut reader, &mut writer).await);
        })
        .await
    }

    async fn listen<F>(serve: impl Fn(TcpStream, Arc<AtomicUsize>) -> F + Send + 'static) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let passed = Arc::new(AtomicUsize::new(0));
        let supervisor = Supervisor::new();
        let count = Arc::clone(&passed);
        supervisor.clone().spawn(TaskKind::Listener, async move {
            loop {
                let (client, _) = listener.accept().await?;
                client.set_nodelay(true)?;
                let serving = serve(client, Arc::clone(&count));
                supervisor.spawn(TaskKind::Connection, async move {
                    serving.await;
                    Ok::<(), std::io::Error>(())
                });
            }
            #[expect(unreachable_code, reason = "it gives the task the type of its result")]
            Ok::<(), std::io::Error>(())
        });
        Self { address, passed }
    }
}

/// The service's side of the upgrade, as RFC 6455 section 4.2 has it.
pub(super) async fn accept<S: AsyncRead + AsyncWrite + Unpin>(mut stream: S) -> WebSocket<S> {
    let (head, rest) = read_head(&mut stream).await;
    assert!(head.starts_with("GET /$servicebus/websocket HTTP/1.1\r\n"), "{head}");
    assert_eq!(header(&head, "upgrade").as_deref(), Some("websocket"));
    assert_eq!(header(&head, "sec-websocket-version").as_deref(), Some("13"));
    assert_eq!(header(&head, "sec-websocket-protocol").as_deref(), Some("amqp"));
    let key = derive_accept_key(header(&head, "sec-websocket-key").unwrap().as_bytes());
    let answer = format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: {key}\r\nSec-WebSocket-Protocol: amqp\r\n\r\n"
    );
    stream.write_all(answer.as_bytes()).await.unwrap();
    WebSocket::service(stream, rest)
}

pub(super) async fn read_head(stream: &mut (impl AsyncRead + Unpin)) -> (String, Vec<u8>) {
    let mut bytes = Vec::new();
    loop {
        assert_ne!(stream.read_buf(&mut bytes).await.unwrap(), 0, "the client hung up");
        if let Some(place) = bytes.windows(4).position(|end| end == b"\r\n\r\n") {
            let rest = bytes.split_off(place + 4);
            return (String::from_utf8(bytes).unwrap(), rest);
        }
    }
}

fn header(head: &str, name: &str) -> Option<String> {
    let lines = head.lines().filter_map(|line| line.split_once(": "));
    lines.into_iter().find(|(given, _)| given.eq_ignore_ascii_case(name)).map(|(_, value)| value.to_owned())
}

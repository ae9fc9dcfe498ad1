//! A bound stage on a loopback port, an outbox behind it, and raw clients.

use std::future::Future;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::super::{Access, Config, Handle, Limits, Listener, OnFull, Service, Topic};
use super::outbox::{Outbox, Setup};
use super::wire;
use crate::supervise::{Phase, Supervisor, TaskKind};

/// How long anything may take before a test fails.
pub(super) const DEADLINE: Duration = Duration::from_secs(20);

/// Waits for an event, but not for ever.
pub(super) async fn soon<F: Future>(event: F) -> F::Output {
    timeout(DEADLINE, event).await.expect("it happens before the deadline")
}

/// The stage under test.
pub(super) struct Gateway {
    pub(super) outbox: Outbox,
    pub(super) handle: Handle,
    pub(super) supervisor: Supervisor,
}

/// A configuration with one plain listener on a free port that lets everybody in.
pub(super) fn open_config() -> Config {
    Config {
        limits: Limits::default(),
        listeners: vec![Listener {
            address: SocketAddr::from(([127, 0, 0, 1], 0)),
            tls: None,
            websocket: None,
            receive_buffer: None,
            send_buffer: None,
            on_full: OnFull::default(),
        }],
        access: Access { anonymous: true, ..Access::default() },
        topics: Topic::defaults(),
        commands: None,
    }
}

impl Gateway {
    pub(super) fn start() -> Self {
        Self::with(&open_config())
    }

    pub(super) fn with_limits(change: impl FnOnce(&mut Limits)) -> Self {
        let mut config = open_config();
        change(&mut config.limits);
        Self::with(&config)
    }

    pub(super) fn with(config: &Config) -> Self {
        Self::with_tick(config, Duration::from_secs(1))
    }

    pub(super) fn with_tick(config: &Config, tick: Duration) -> Self {
        Self::with_outbox(config, tick, Setup::default())
    }

    pub(super) fn with_outbox(config: &Config, tick: Duration, setup: Setup) -> Self {
        crate::tls::install_provider();
        let supervisor = Supervisor::new();
        let outbox = Outbox::open(setup, &supervisor);
        let appender = outbox.handle().appender();
        let (service, handle) =
            Service::bind_with_tick(config, appender, &supervisor, tick).expect("the stage starts");
        supervisor.spawn(TaskKind::Mqtt, service.run());
        Self { outbox, handle, supervisor }
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.handle.addresses()[0].address
    }

    /// A connection without a CONNECT.
    pub(super) async fn raw(&self) -> Client<TcpStream> {
        Client::new(soon(TcpStream::connect(self.address())).await.expect("connected"))
    }

    /// A connected client.
    pub(super) async fn client(&self, version: u8, id: &str) -> Client<TcpStream> {
        let mut client = self.raw().await;
        client.send(&wire::connect(version, id)).await;
        let connack = client.packet().await;
        assert_eq!((connack[0], connack[2], connack[3]), (0x20, 0, 0), "{connack:02x?}");
        client
    }

    /// Waits until so many connections are open.
    pub(super) async fn connections(&self, count: usize) {
        soon(async {
            while self.handle.status().connections != count {
                tokio::task::yield_now().await;
            }
        })
        .await;
    }

    /// Waits until the keep-alive clock has ticked so often.
    pub(super) async fn ticks(&self, count: u32) {
        let clock = &self.handle.shared.clock;
        let end = clock.now() + count;
        soon(async {
            while clock.now() < end {
                tokio::task::yield_now().await;
            }
        })
        .await;
    }

    pub(super) async fn stop(&self) {
        self.supervisor.enter(Phase::FinishPublishes);
        soon(self.supervisor.idle(TaskKind::Connection)).await;
    }
}

/// A client that speaks bytes.
pub(super) struct Client<S> {
    pub(super) socket: S,
    /// Read and not taken yet.
    pub(super) buffer: Vec<u8>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Client<S> {
    pub(super) const fn new(socket: S) -> Self {
        Self { socket, buffer: Vec::new() }
    }

    pub(super) async fn send(&mut self, bytes: &[u8]) {
        soon(self.socket.write_all(bytes)).await.expect("written");
    }

    /// The next packet, or nothing if the connection ends first.
    pub(super) async fn packet_or_end(&mut self) -> Option<Vec<u8>> {
        loop {
            if let Some(bytes) = wire::packet_len(&self.buffer).filter(|bytes| self.buffer.len() >= *bytes) {
                return Some(self.buffer.drain(..bytes).collect());
            }
            match soon(self.socket.read_buf(&mut self.buffer)).await {
                Ok(1..) => {}
                Ok(0) | Err(_) => return None,
            }
        }
    }

    pub(super) async fn packet(&mut self) -> Vec<u8> {
        self.packet_or_end().await.expect("a packet before the end")
    }

    /// Asserts the next packets.
    pub(super) async fn expect(&mut self, packets: &[&[u8]]) {
        for packet in packets {
            let got = wire::without_reason_string(self.packet().await);
            assert_eq!(got, *packet, "got {got:02x?}, expected {packet:02x?}");
        }
    }

    /// Asserts that a PINGREQ is answered before anything else: everything sent earlier was taken, and
    /// nothing was answered.
    pub(super) async fn expect_silence(&mut self) {
        self.send(&wire::PINGREQ).await;
        self.expect(&[&wire::PINGRESP]).await;
    }

    /// Asserts that the connection ends, with these packets before.
    pub(super) async fn expect_end(&mut self, packets: &[&[u8]]) {
        self.expect(packets).await;
        let more = self.packet_or_end().await;
        assert_eq!(more, None, "{more:02x?}");
    }
}

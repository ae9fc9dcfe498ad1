//! From an accepted socket to a connection: TLS handshake, CONNECT, access, take-over, CONNACK.
//!
//! This happens once per connection and its future is boxed, so that it costs an established
//! connection nothing.

use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;

use super::access::Denied;
use super::codec::{
    Connack, Connect, Frame, Malformed, PacketType, Split, Version, connack, split, version_of,
};
use super::config::OnFull;
use super::connection::Connection;
use super::end::Refusal;
use super::registry::Signal;
use super::session::Session;
use super::shared::{Permit, Seat, Shared};
use super::stream::Stream;
use super::template::{Verdict, is_device};
use crate::tls;

/// Largest CONNECT: its fields have 16-bit lengths, and a client that is not known yet gets no more.
const CONNECT_BYTES_MAX: usize = 72 << 10;
/// How long a take-over waits for what the old connection submitted.
const TAKE_OVER_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a password may wait to be verified.
const ACCESS_TIMEOUT: Duration = Duration::from_secs(30);
/// How long CONNACK may take to be written.
const CONNACK_TIMEOUT: Duration = Duration::from_secs(5);

/// What a listener says about its connections.
#[derive(Clone)]
pub(super) struct Terms {
    pub(super) tls: Option<TlsAcceptor>,
    pub(super) on_full: OnFull,
}

/// A CONNECT that was read, and what came after it.
struct Hello {
    buffer: Vec<u8>,
    /// Where the body of CONNECT lies in `buffer`, and where the packet ends.
    body: std::ops::Range<usize>,
    end: usize,
}

/// Leads an accepted socket up to CONNACK.
///
/// # Cancel safety
///
/// Cancelling it closes the connection.
pub(super) async fn open(
    shared: Arc<Shared>,
    permit: Permit,
    socket: TcpStream,
    terms: Terms,
) -> Option<Box<Connection>> {
    match try_open(&shared, permit, socket, terms).await {
        Ok(connection) => {
            shared.metrics.connect("accepted");
            Some(connection)
        }
        Err(refusal) => {
            tracing::debug!(reason = %refusal, "connection refused");
            shared.metrics.connect(refusal.name());
            None
        }
    }
}

async fn try_open(
    shared: &Arc<Shared>,
    permit: Permit,
    socket: TcpStream,
    terms: Terms,
) -> Result<Box<Connection>, Refusal> {
    let mut stream = match terms.tls {
        None => Stream::Plain(socket),
        Some(acceptor) => handshake(shared, &acceptor, socket).await?,
    };
    let hello = match timeout(shared.limits.connect_timeout, Hello::read(&mut stream)).await {
        Ok(Ok(hello)) => hello,
        Ok(Err((refusal, version))) => return Err(refuse(&mut stream, version, refusal).await),
        Err(_) => return Err(Refusal::Timeout),
    };
    let body = hello.buffer.get(hello.body.clone()).unwrap_or_default();
    let connect = match Connect::decode(body) {
        Ok(connect) => connect,
        Err(malformed) => {
            shared.metrics.malformed.increment(1);
            return Err(refuse(&mut stream, answer_version(body), malformed.into()).await);
        }
    };
    let version = connect.version;
    let rest = hello.buffer.get(hello.end..).unwrap_or_default();
    match enter(shared, &permit, &connect).await {
        Ok(entered) => entered.accept(stream, permit, &connect, rest, terms.on_full).await,
        Err(refusal) => Err(refuse(&mut stream, Some(version), refusal).await),
    }
}

async fn handshake(shared: &Shared, acceptor: &TlsAcceptor, socket: TcpStream) -> Result<Stream, Refusal> {
    let shake = async {
        // Who says nothing holds no slot.
        socket.readable().await.map_err(|_| Refusal::Handshake)?;
        let slot = shared.handshakes.acquire().await.map_err(|_| Refusal::Handshake)?;
        let mut stream = acceptor.accept(socket).await.map_err(|_| Refusal::Handshake)?;
        drop(slot);
        stream.get_mut().1.set_buffer_limit(Some(tls::BUFFER_BYTES_MAX));
        Ok(Stream::Tls(Box::new(stream)))
    };
    timeout(shared.limits.handshake_timeout, shake).await.unwrap_or(Err(Refusal::Handshake))
}

impl Hello {
    /// Reads until CONNECT is there. With a refusal comes the version to answer in, if it is known.
    async fn read(stream: &mut Stream) -> Result<Self, (Refusal, Option<Version>)> {
        let mut buffer = Vec::new();
        loop {
            match split(&buffer, CONNECT_BYTES_MAX) {
                Ok(Split::Frame(Frame { kind: PacketType::Connect, body, bytes, .. })) => {
                    let body = bytes - body.len()..bytes;
                    return Ok(Self { body, end: bytes, buffer });
                }
                Ok(Split::Frame(_)) => return Err((Malformed::NotConnect.into(), None)),
                Ok(Split::Incomplete { .. }) => {}
                Err(malformed) => return Err((malformed.into(), None)),
            }
            // Anything but CONNECT shows in the first byte, and is not worth waiting for.
            if buffer.first().is_some_and(|first| first >> 4 != 1) {
                return Err((Malformed::NotConnect.into(), None));
            }
            match stream.read_buf(&mut buffer).await {
                Ok(1..) => {}
                Ok(0) | Err(_) => return Err((Refusal::Closed, None)),
            }
        }
    }
}

/// The version to answer a malformed CONNECT in. 3.1.1 answers only an unknown level, with code 1;
/// a level above 5 is answered as MQTT 5 says.
fn answer_version(body: &[u8]) -> Option<Version> {
    match version_of(body) {
        Ok(Version::V5) | Err(Malformed::ProtocolLevel(6..)) => Some(Version::V5),
        Err(Malformed::ProtocolLevel(_)) => Some(Version::V3),
        Ok(Version::V3) | Err(_) => None,
    }
}

/// Sends the CONNACK of a refusal, as far as there is one, and closes.
async fn refuse(stream: &mut Stream, version: Option<Version>, refusal: Refusal) -> Refusal {
    if let (Some(version), Some(reason)) = (version, refusal.reason()) {
        let mut out = Vec::new();
        reason.refuse_connect(&mut out, version, None);
        let farewell = async {
            stream.write_all(&out).await?;
            stream.shutdown().await
        };
        // The client may be gone; it is refused either way.
        drop(timeout(CONNACK_TIMEOUT, farewell).await);
    }
    refusal
}

/// A client that may connect and has its place in the registry.
struct Entered {
    seat: Seat,
    assigned: bool,
}

/// Decides on a CONNECT, enters the client and waits for a connection that it replaces.
async fn enter(shared: &Arc<Shared>, permit: &Permit, connect: &Connect<'_>) -> Result<Entered, Refusal> {
    if connect.authentication_method.is_some() {
        return Err(Refusal::AuthenticationMethod);
    }
    let assigned = connect.client_id.is_empty();
    if assigned && connect.version == Version::V3 && !connect.clean {
        return Err(Refusal::ClientId);
    }
    let checked = shared.access.check(connect.user_name, connect.password);
    let granted = timeout(ACCESS_TIMEOUT, checked).await.map_err(|_| Refusal::TooMany)?;
    let granted = granted.map_err(|denied| match denied {
        Denied::Anonymous => Refusal::Anonymous,
        Denied::Credentials => Refusal::Credentials,
    })?;
    let invented = if assigned { format!("auto-{:016x}", rand::random::<u64>()) } else { String::new() };
    let client = if assigned { &invented } else { connect.client_id };
    let device = granted.device.as_deref().unwrap_or(client);
    if !is_device(device) {
        return Err(Refusal::ClientId);
    }
    check_will(shared, connect, device)?;
    // A device that lost its connection may come back, however full it is.
    if permit.above_max() && !shared.registry.contains(client) {
        return Err(Refusal::TooMany);
    }
    let packet_bytes_max = connect.packet_bytes_max.and_then(|bytes| usize::try_from(bytes).ok());
    let (link, older) =
        shared.registry.enter(client, device, connect.version, packet_bytes_max.unwrap_or(usize::MAX));
    let seat = Seat::new(Arc::clone(shared), link);
    if let Some(older) = older {
        // Whatever it submitted is in order before ours, durable or not.
        drop(timeout(TAKE_OVER_TIMEOUT, older.gone()).await);
    }
    if shared.is_stopping() {
        return Err(Refusal::Stopping);
    }
    if seat.link().is_raised(Signal::TakenOver) {
        return Err(Refusal::TakenOver);
    }
    Ok(Entered { seat, assigned })
}

fn check_will(shared: &Shared, connect: &Connect<'_>, device: &str) -> Result<(), Refusal> {
    match &connect.will {
        None => Ok(()),
        Some(will) if will.retain && connect.version == Version::V5 => Err(Refusal::RetainedWill),
        Some(will) => match shared.templates.verdict(will.topic, device) {
            Verdict::Own(_) => Ok(()),
            Verdict::Foreign | Verdict::Unknown => Err(Refusal::WillTopic),
        },
    }
}

impl Entered {
    /// Sends the CONNACK that accepts and hands everything to the connection.
    async fn accept(
        self,
        mut stream: Stream,
        permit: Permit,
        connect: &Connect<'_>,
        rest: &[u8],
        on_full: OnFull,
    ) -> Result<Box<Connection>, Refusal> {
        let (shared, link) = (self.seat.shared(), self.seat.link());
        let limits = &shared.limits;
        let longest = limits.keep_alive_seconds_max;
        let overruled = connect.keep_alive == 0 || connect.keep_alive > longest;
        let told = Connack {
            session_present: false,
            assigned_client_id: self.assigned.then(|| link.client()),
            server_keep_alive: overruled.then_some(longest),
            session_expiry: (connect.session_expiry != 0).then_some(0),
            receive_max: limits.inflight_max,
            packet_bytes_max: u32::try_from(limits.packet_bytes_max).unwrap_or(u32::MAX),
            topic_alias_max: 0,
            response_information: None,
        };
        let mut out = Vec::new();
        connack(&mut out, connect.version, &told);
        match timeout(CONNACK_TIMEOUT, stream.write_all(&out)).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) | Err(_) => return Err(Refusal::Closed),
        }
        let keep_alive = if overruled { longest } else { connect.keep_alive };
        let will = connect.will.as_ref();
        let session = Session::new(connect.version, connect.session_expiry == 0, will, on_full);
        tracing::debug!(client_id = link.client(), device_id = link.device().id(), "connected");
        Ok(Box::new(Connection::new(self.seat, permit, stream, session, keep_alive, rest)))
    }
}

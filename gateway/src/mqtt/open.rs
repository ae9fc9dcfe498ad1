//! From an accepted socket to a connection: TLS handshake, CONNECT, access, take-over, CONNACK.
//!
//! This happens once per connection and its future is boxed, so that it costs an established
//! connection nothing.

use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;

use super::access::Denied;
use super::codec::{
    Connack, Connect, Frame, Malformed, PacketType, Split, Version, connack, split, version_of,
};
use super::config::OnFull;
use super::connection::{Connection, linger};
use super::end::Refusal;
use super::keeper::received_of;
use super::lifecycle::{Opened, Wanted};
use super::link::Signal;
use super::outgoing;
use super::protocol::{EXPLAINED_BYTES, Protocol, Terms};
use super::registry::{Claim, Foreign};
use super::session::Client;
use super::shared::{Claimed, Permit, Seat, Shared};
use super::stream::Stream;
use super::template::{Verdict, is_device};
use super::websocket::{NoUpgrade, upgrade};
use super::will::Will;
use crate::tls::{self, Certificate};

/// Largest CONNECT: its fields have 16-bit lengths, and a client that is not known yet gets no more.
const CONNECT_BYTES_MAX: usize = 72 << 10;
/// How long a take-over waits for what the old connection submitted.
const TAKE_OVER_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a password may wait to be verified.
const ACCESS_TIMEOUT: Duration = Duration::from_secs(30);
/// The largest packet for a client that did not tell its limit yet: no sentence is said to it.
const UNTOLD_BYTES: usize = EXPLAINED_BYTES - 1;
/// How long CONNACK may take to be written.
const CONNACK_TIMEOUT: Duration = Duration::from_secs(5);

/// What a listener says about its connections.
#[derive(Clone)]
pub(super) struct Offer {
    pub(super) tls: Option<Arc<Certificate>>,
    /// The path of its WebSocket, if it speaks that.
    pub(super) websocket: Option<Arc<str>>,
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
    terms: Offer,
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
    terms: Offer,
) -> Result<Box<Connection>, Refusal> {
    let stream = match &terms.tls {
        None => Stream::Plain(socket),
        Some(certificate) => handshake(shared, certificate, socket).await?,
    };
    let arrival = arrive(shared, stream, terms.websocket.as_deref());
    let arrived = timeout(shared.limits.connect_timeout, arrival).await;
    let (mut stream, hello) = arrived.unwrap_or(Err(Refusal::Timeout))?;
    let hello = match hello {
        Ok(hello) => hello,
        Err((refusal, version)) => return Err(refuse(&mut stream, version, refusal, UNTOLD_BYTES).await),
    };
    let body = hello.buffer.get(hello.body.clone()).unwrap_or_default();
    let connect = match Connect::decode(body) {
        Ok(connect) => connect,
        Err(malformed) => {
            shared.metrics.malformed.increment(1);
            return Err(refuse(&mut stream, answer_version(body), malformed.into(), UNTOLD_BYTES).await);
        }
    };
    let version = connect.version;
    let rest = hello.buffer.get(hello.end..).unwrap_or_default();
    match enter(shared, &permit, &connect).await {
        Ok(entered) => entered.accept(stream, permit, &connect, rest, terms.on_full).await,
        Err(refusal) => Err(refuse(&mut stream, Some(version), refusal, packet_bytes_max(&connect)).await),
    }
}

/// What was read as CONNECT; with a refusal comes the version to answer in, if it is known.
type Heard = Result<Hello, (Refusal, Option<Version>)>;

/// Leads to the end of CONNECT, through the upgrade to WebSocket if the listener speaks that.
async fn arrive(shared: &Shared, stream: Stream, path: Option<&str>) -> Result<(Stream, Heard), Refusal> {
    let mut stream = match path {
        None => stream,
        Some(path) => {
            let message_bytes_max = shared.limits.packet_bytes_max.max(CONNECT_BYTES_MAX);
            upgrade(stream, path, message_bytes_max).await.map_err(|NoUpgrade| Refusal::Upgrade)?
        }
    };
    let heard = Hello::read(&mut stream).await;
    Ok((stream, heard))
}

async fn handshake(shared: &Shared, certificate: &Certificate, socket: TcpStream) -> Result<Stream, Refusal> {
    let shake = async {
        // Who says nothing holds no slot.
        socket.readable().await.map_err(|_| Refusal::Handshake)?;
        let slot = shared.handshakes.acquire().await.map_err(|_| Refusal::Handshake)?;
        let acceptor = TlsAcceptor::from(certificate.current());
        let mut stream = acceptor.accept(socket).await.map_err(|_| Refusal::Handshake)?;
        drop(slot);
        stream.get_mut().1.set_buffer_limit(Some(tls::BUFFER_BYTES_MAX));
        Ok(Stream::Tls(Box::new(stream)))
    };
    timeout(shared.limits.handshake_timeout, shake).await.unwrap_or(Err(Refusal::Handshake))
}

impl Hello {
    /// Reads until CONNECT is there.
    async fn read(stream: &mut Stream) -> Heard {
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

/// Sends the CONNACK of a refusal, as far as there is one and the client takes packets of its size, and
/// closes.
async fn refuse(
    stream: &mut Stream,
    version: Option<Version>,
    refusal: Refusal,
    packet_bytes_max: usize,
) -> Refusal {
    if let (Some(version), Some(reason)) = (version, refusal.reason()) {
        let mut out = Vec::new();
        let text = (packet_bytes_max >= EXPLAINED_BYTES).then(|| refusal.to_string());
        reason.refuse_connect(&mut out, version, text.as_deref());
        if out.len() > packet_bytes_max {
            out.clear();
        }
        let farewell = async {
            stream.write_all(&out).await?;
            stream.shutdown().await
        };
        // The client may be gone; it is refused either way.
        if let Ok(Ok(())) = timeout(CONNACK_TIMEOUT, farewell).await {
            linger(stream).await;
        }
    }
    stream.farewell().await;
    refusal
}

/// A client that may connect and has its session.
struct Entered {
    seat: Seat,
    /// The session was there before.
    present: bool,
    assigned: bool,
    expiry_seconds: u32,
    received: Vec<u16>,
}

/// Decides on a CONNECT, claims the client id, waits for a connection that had it, and gives the client
/// its session.
async fn enter(shared: &Arc<Shared>, permit: &Permit, connect: &Connect<'_>) -> Result<Entered, Refusal> {
    if connect.authentication_method.is_some() {
        return Err(Refusal::AuthenticationMethod);
    }
    let assigned = connect.client_id.is_empty();
    if assigned && connect.version == Version::V3 && !connect.clean {
        return Err(Refusal::ClientId);
    }
    let client = identify(shared, connect).await?;
    check_will(shared, connect, &client)?;
    // A device that lost its connection may come back, however full it is.
    if permit.above_max() && !shared.registry.contains(&client.id) {
        return Err(Refusal::TooMany);
    }
    let claimed = claim(shared, &client).await?;
    let id = Arc::clone(claimed.link().client());
    let known = match shared.registry.session(&id) {
        Some(session) => {
            let received = received_of(shared, &session).await;
            Some((session, received))
        }
        None => None,
    };
    let expiry_seconds = expiry_seconds(shared, connect);
    let wanted = Wanted {
        client: Client { id, ..client },
        clean: connect.clean,
        expiry_seconds,
        terms: terms(shared, connect),
        will: connect.will.as_ref().map(|will| Box::new(Will::new(will))),
    };
    let opened = shared.open_session(claimed.link(), wanted, known).map_err(|_| Refusal::Sessions)?;
    let Opened { session, present, received } = opened;
    Ok(Entered { seat: Seat::new(claimed, session), present, assigned, expiry_seconds, received })
}

/// Who the client is.
async fn identify(shared: &Shared, connect: &Connect<'_>) -> Result<Client, Refusal> {
    let checked = shared.access.check(connect.user_name, connect.password);
    let granted = timeout(ACCESS_TIMEOUT, checked).await.map_err(|_| Refusal::TooMany)?;
    let granted = granted.map_err(|denied| match denied {
        Denied::Anonymous => Refusal::Anonymous,
        Denied::Credentials => Refusal::Credentials,
    })?;
    let id: Arc<str> = match connect.client_id {
        "" => format!("auto-{:016x}", rand::random::<u64>()).into(),
        id => id.into(),
    };
    let device = match granted.device {
        Some(device) if *device != *id => Arc::from(device),
        _ => Arc::clone(&id),
    };
    if !is_device(&device) {
        return Err(Refusal::ClientId);
    }
    Ok(Client { id, device, user: granted.user.map(Arc::from) })
}

/// Claims the client id; a connection that had it has gone when this returns.
async fn claim(shared: &Arc<Shared>, client: &Client) -> Result<Claimed, Refusal> {
    let pause = shared.registry.pause_ticks(&client.id, shared.clock.now());
    if pause > 0 {
        shared.metrics.take_overs_delayed.increment(1);
        sleep(shared.clock.length() * pause).await;
    }
    let claim = shared.registry.claim(&client.id, client.user.as_ref(), shared.clock.now());
    let Claim { link, older } = claim.map_err(|Foreign| Refusal::ForeignClientId)?;
    let claimed = Claimed::new(Arc::clone(shared), link);
    if let Some(older) = older {
        shared.metrics.take_overs.increment(1);
        // What it submitted is durable, or failed, before the session is ours.
        if timeout(TAKE_OVER_TIMEOUT, older.gone()).await.is_err() {
            return Err(Refusal::Busy);
        }
    }
    if shared.is_stopping() {
        return Err(Refusal::Stopping);
    }
    if claimed.link().is_raised(Signal::TakenOver) {
        return Err(Refusal::TakenOver);
    }
    Ok(claimed)
}

/// Seconds that the session outlives the connection: what the client asks for, and with 3.1.1, which
/// has no word for it, as long as allowed.
fn expiry_seconds(shared: &Shared, connect: &Connect<'_>) -> u32 {
    let longest = shared.limits.session_expiry_seconds_max;
    match connect.version {
        Version::V5 => connect.session_expiry.min(longest),
        Version::V3 if connect.clean => 0,
        Version::V3 => longest,
    }
}

/// What the client can take.
fn terms(shared: &Shared, connect: &Connect<'_>) -> outgoing::Terms {
    outgoing::Terms {
        version: connect.version,
        window: usize::from(connect.receive_max).min(usize::from(shared.limits.outgoing_inflight_max)),
        packet_bytes_max: packet_bytes_max(connect),
        aliases_max: connect.topic_alias_max.min(shared.limits.topic_aliases_max),
    }
}

fn check_will(shared: &Shared, connect: &Connect<'_>, client: &Client) -> Result<(), Refusal> {
    let Some(will) = &connect.will else { return Ok(()) };
    match shared.templates.verdict(will.topic, &client.device) {
        Verdict::Own(_) => Ok(()),
        // An answer is given once, by who lives.
        Verdict::Foreign | Verdict::Answer(_) => Err(Refusal::WillTopic),
        Verdict::Unknown => {
            shared.access.rules().may_publish(client.who(), will.topic).map_err(|_| Refusal::WillTopic)
        }
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
        let Self { mut seat, present, assigned, expiry_seconds, received } = self;
        let limits = &seat.shared().limits;
        let longest = limits.keep_alive_seconds_max;
        let overruled = connect.keep_alive == 0 || connect.keep_alive > longest;
        let told = Connack {
            session_present: present,
            assigned_client_id: assigned.then(|| &**seat.link().client()),
            server_keep_alive: overruled.then_some(longest),
            session_expiry: (connect.session_expiry != expiry_seconds).then_some(expiry_seconds),
            receive_max: limits.inflight_max,
            packet_bytes_max: u32::try_from(limits.packet_bytes_max).unwrap_or(u32::MAX),
            topic_alias_max: limits.topic_aliases_max,
            response_information: None,
        };
        let mut out = Vec::new();
        connack(&mut out, connect.version, &told);
        let bytes_max = packet_bytes_max(connect);
        if out.len() > bytes_max {
            // It was never accepted: its session stays as it was, and its will is nobody's.
            drop(seat.session().take_will());
            seat.give_back(Some(received));
            return Err(refuse(&mut stream, Some(connect.version), Refusal::PacketBytes, bytes_max).await);
        }
        match timeout(CONNACK_TIMEOUT, stream.write_all(&out)).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) | Err(_) => return Err(Refusal::Closed),
        }
        let keep_alive = if overruled { longest } else { connect.keep_alive };
        let session = seat.session();
        tracing::debug!(
            client_id = &**session.client(),
            device_id = &**session.device(),
            present,
            "connected"
        );
        let terms = Terms {
            version: connect.version,
            on_full,
            expiry_seconds,
            received,
            packet_bytes_max: bytes_max,
        };
        Ok(Box::new(Connection::new(seat, permit, stream, Protocol::new(terms), keep_alive, rest)))
    }
}

/// The largest packet that the client takes.
fn packet_bytes_max(connect: &Connect<'_>) -> usize {
    connect.packet_bytes_max.map_or(usize::MAX, |bytes| usize::try_from(bytes).unwrap_or(usize::MAX))
}

//! The state of a connection, without its socket: bytes in, bytes out, what the broker says, and the time.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use tokio::time::Instant;

use super::session::Session;
use super::shared::{Delayed, Fault, Shared};
use crate::amqp::{
    Begin, Close, DecodeError, EMPTY_FRAME, End as SessionEnd, ErrorInfo, Frame, FrameKind, Open,
    PROTOCOL_AMQP, PROTOCOL_SASL, Performative, Sasl, Value, next_frame, outcome,
};
use crate::servicebus::broker::{ConnectionId, Notice, Refusal};
use crate::servicebus::link::LinkEnd;
use crate::servicebus::listener::Wire;

/// Largest frame, in both directions.
pub(super) const FRAME_BYTES_MAX: usize = 65_536;
/// The least that a client must take (part 2, section 4.1).
const FRAME_BYTES_MIN: u32 = 512;
/// The largest channel number.
const CHANNEL_MAX: u16 = 4_999;
/// Output above which no more messages are put into it.
pub(super) const OUTPUT_HIGH: usize = 256 * 1024;
/// Time to sign in and open.
const OPENING: Duration = Duration::from_secs(20);
/// Time for a client to answer our close.
const CLOSING: Duration = Duration::from_secs(2);

/// Why a connection ended.
#[derive(Debug)]
pub(crate) enum End {
    /// The client closed it.
    Client,
    /// We closed it with an error, and the client agreed or said nothing.
    Closed,
    /// The broker or its control API cut it.
    Cut,
    /// The client said or took nothing for too long.
    Idle,
    /// The client could not sign in.
    Unauthorised,
    /// What came before the connection was open made no sense.
    #[expect(dead_code, reason = "printed in the log")]
    Malformed(DecodeError),
    /// Not a protocol that is spoken here.
    Protocol,
    /// The socket failed.
    #[expect(dead_code, reason = "printed in the log")]
    Io(std::io::Error),
}

impl From<std::io::Error> for End {
    fn from(error: std::io::Error) -> Self {
        Self::Io(error)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// The client says which protocol it speaks.
    Greeting,
    Sasl,
    /// It has signed in and says so again.
    SecondGreeting,
    Opening,
    Open,
    /// Our close is out; theirs is awaited, and all else is ignored.
    Closing,
}

/// One connection.
#[derive(Debug)]
pub(super) struct Machine {
    pub(super) shared: Shared,
    sessions: HashMap<u16, Session>,
    stage: Stage,
    /// When the stage has to be over, for those that have to.
    stage_end: Option<Instant>,
    /// We give up after this long without a byte from the client.
    idle: Duration,
    /// The client gives up after twice as long without a frame from us.
    heartbeat: Option<Duration>,
    heard: Instant,
    spoke: Instant,
    /// The broker wants it to look like a host that is gone.
    pub(super) frozen: bool,
}

impl Machine {
    pub(super) fn new(wire: Arc<Wire>, connection: ConnectionId, now: Instant) -> Self {
        let idle = wire.idle;
        Self {
            shared: Shared::new(wire, connection),
            sessions: HashMap::new(),
            stage: Stage::Greeting,
            stage_end: Some(now + OPENING),
            idle,
            heartbeat: None,
            heard: now,
            spoke: now,
            frozen: false,
        }
    }

    // === bytes in ===

    /// Takes all frames that are there in full.
    pub(super) fn take(&mut self, input: &mut BytesMut, now: Instant) -> Result<(), End> {
        self.heard = now;
        loop {
            if matches!(self.stage, Stage::Greeting | Stage::SecondGreeting) {
                let Some(greeting) = input.first_chunk::<8>().copied() else { return Ok(()) };
                drop(input.split_to(greeting.len()));
                self.greet(greeting)?;
                continue;
            }
            match next_frame(input, FRAME_BYTES_MAX) {
                Ok(None) => return Ok(()),
                Ok(Some(frame)) => self.on_frame(&frame, now)?,
                Err(error) => {
                    // There is no way to tell where the next frame starts.
                    self.broken("amqp:connection:framing-error", error, now)?;
                    input.clear();
                    return Ok(());
                }
            }
        }
    }

    fn greet(&mut self, greeting: [u8; 8]) -> Result<(), End> {
        match (self.stage, greeting) {
            (Stage::Greeting, PROTOCOL_SASL) => {
                self.shared.output.extend_from_slice(&PROTOCOL_SASL);
                let names = ["MSSBCBS", "PLAIN", "ANONYMOUS", "EXTERNAL"];
                Sasl::Mechanisms(names.map(str::to_owned).to_vec()).encode(&mut self.shared.output);
                self.stage = Stage::Sasl;
                Ok(())
            }
            (Stage::SecondGreeting, PROTOCOL_AMQP) => {
                self.shared.output.extend_from_slice(&PROTOCOL_AMQP);
                self.stage = Stage::Opening;
                Ok(())
            }
            // What would be spoken instead, then the end (part 2, section 2.2).
            (stage, _) => {
                let ours = if stage == Stage::Greeting { PROTOCOL_SASL } else { PROTOCOL_AMQP };
                self.shared.output.extend_from_slice(&ours);
                Err(End::Protocol)
            }
        }
    }

    fn on_frame(&mut self, frame: &Frame, now: Instant) -> Result<(), End> {
        let sasl = self.stage == Stage::Sasl;
        if sasl != (frame.kind == FrameKind::Sasl) {
            return self.broken(
                "amqp:connection:framing-error",
                DecodeError::FrameKind(u8::from(!sasl)),
                now,
            );
        }
        if sasl {
            return self.on_sasl(frame);
        }
        if frame.body.is_empty() {
            return Ok(());
        }
        let (performative, payload) = match Performative::decode(&frame.body) {
            Ok(decoded) => decoded,
            Err(error) => return self.broken("amqp:decode-error", error, now),
        };
        match (self.stage, performative) {
            (Stage::Closing, Performative::Close(_)) => Err(End::Closed),
            (Stage::Closing, _) => Ok(()),
            (Stage::Opening, Performative::Open(open)) => {
                self.on_open(&open, now);
                Ok(())
            }
            (Stage::Open, Performative::Close(_)) => {
                self.shared.send(0, &Performative::Close(Close { error: None }));
                Err(End::Client)
            }
            (Stage::Open, Performative::Open(_)) | (Stage::Opening, _) => {
                self.close(ErrorInfo::new("amqp:not-allowed", "open comes first, and once"), now);
                Ok(())
            }
            (_, performative) => {
                let done = self.dispatch(frame.channel, performative, &payload);
                self.resolve(frame.channel, done, now);
                Ok(())
            }
        }
    }

    fn on_sasl(&mut self, frame: &Frame) -> Result<(), End> {
        let Sasl::Init { mechanism, response } = Sasl::decode(&frame.body).map_err(End::Malformed)? else {
            return Err(End::Protocol);
        };
        let taken = match mechanism.as_str() {
            // Who comes so shows tokens on `$cbs`.
            "ANONYMOUS" | "MSSBCBS" => true,
            "PLAIN" => self.shared.claims.plain(&response.unwrap_or_default()),
            // No client certificates are asked for, so there is nothing external to go by.
            _ => false,
        };
        let code = if taken { outcome::OK } else { outcome::AUTH };
        Sasl::Outcome(code).encode(&mut self.shared.output);
        if taken {
            self.stage = Stage::SecondGreeting;
            Ok(())
        } else {
            Err(End::Unauthorised)
        }
    }

    fn on_open(&mut self, open: &Open, now: Instant) {
        let theirs = open.frame_bytes_max.max(FRAME_BYTES_MIN);
        self.shared.frame_bytes_max = usize::try_from(theirs).unwrap_or(usize::MAX).min(FRAME_BYTES_MAX);
        // Twice as often as needed (part 2, section 2.4.5).
        self.heartbeat =
            open.idle_ms.filter(|ms| *ms > 0).map(|ms| Duration::from_millis(u64::from(ms.max(2) / 2)));
        self.stage = Stage::Open;
        self.stage_end = None;
        let idle_ms = u32::try_from(self.idle.as_millis()).unwrap_or(u32::MAX);
        let answer = Open {
            container: "cloud-sim".to_owned(),
            hostname: None,
            frame_bytes_max: u32::try_from(FRAME_BYTES_MAX).unwrap_or(u32::MAX),
            channel_max: CHANNEL_MAX.min(open.channel_max),
            idle_ms: Some(idle_ms),
            properties: vec![(Value::symbol("product"), Value::string("cloud-sim"))],
        };
        self.shared.send(0, &Performative::Open(answer));
        self.spoke = now;
    }

    /// Gives a performative to the session it is for.
    fn dispatch(
        &mut self,
        channel: u16,
        performative: Performative,
        payload: &bytes::Bytes,
    ) -> Result<(), Fault> {
        if let Performative::Begin(begin) = &performative {
            return self.on_begin(channel, begin);
        }
        let Some(session) = self.sessions.get_mut(&channel) else {
            let error = ErrorInfo::new("amqp:not-allowed", format!("no session on channel {channel}"));
            return Err(Fault::Connection(error));
        };
        if let Performative::End(_) = performative {
            if !session.ending {
                session.close(&mut self.shared);
                self.shared.send(channel, &Performative::End(SessionEnd { error: None }));
            }
            self.sessions.remove(&channel);
            return Ok(());
        }
        if session.ending {
            return Ok(());
        }
        let shared = &mut self.shared;
        match performative {
            Performative::Attach(attach) => session.on_attach(shared, *attach),
            Performative::Flow(flow) => session.on_flow(shared, &flow),
            Performative::Transfer(transfer) => session.on_transfer(shared, &transfer, payload),
            Performative::Disposition(disposition) => session.on_disposition(shared, disposition),
            Performative::Detach(detach) => session.on_detach(shared, &detach),
            Performative::Open(_)
            | Performative::Begin(_)
            | Performative::End(_)
            | Performative::Close(_) => Ok(()),
        }
    }

    fn on_begin(&mut self, channel: u16, begin: &Begin) -> Result<(), Fault> {
        if channel > CHANNEL_MAX || self.sessions.contains_key(&channel) {
            let text = format!("channel {channel} is in use or above channel-max");
            return Err(Fault::Connection(ErrorInfo::new("amqp:connection:framing-error", text)));
        }
        let session = Session::new(channel, begin);
        session.begin(&mut self.shared);
        self.sessions.insert(channel, session);
        Ok(())
    }

    fn resolve(&mut self, channel: u16, done: Result<(), Fault>, now: Instant) {
        match done {
            Ok(()) => {}
            Err(Fault::Connection(error)) => self.close(error, now),
            Err(Fault::Session(error)) => {
                tracing::debug!(channel, ?error, "session ended");
                if let Some(session) = self.sessions.get_mut(&channel) {
                    session.close(&mut self.shared);
                    session.ending = true;
                }
                self.shared.send(channel, &Performative::End(SessionEnd { error: Some(error) }));
            }
        }
    }

    /// What came cannot be read. Before the connection is open there is nobody to tell.
    fn broken(&mut self, condition: &str, error: DecodeError, now: Instant) -> Result<(), End> {
        if self.stage != Stage::Open {
            return Err(End::Malformed(error));
        }
        self.close(ErrorInfo::new(condition, error.to_string()), now);
        Ok(())
    }

    fn close(&mut self, error: ErrorInfo, now: Instant) {
        tracing::debug!(?error, "connection closed");
        for session in self.sessions.values_mut() {
            session.close(&mut self.shared);
        }
        self.sessions.clear();
        self.shared.send(0, &Performative::Close(Close { error: Some(error) }));
        self.stage = Stage::Closing;
        self.stage_end = Some(now + CLOSING);
    }

    // === the broker ===

    pub(super) fn notice(&mut self, notice: Notice, now: Instant) -> Result<(), End> {
        match notice {
            Notice::Disconnect { error: None } => return Err(End::Cut),
            Notice::Disconnect { error: Some(refusal) } if self.stage == Stage::Open => {
                self.close(refusal.into(), now);
            }
            Notice::Disconnect { error: Some(_) } => return Err(End::Cut),
            Notice::Freeze => self.frozen = true,
            Notice::Granted { link, session, locked_until_ms } => {
                if let Some((found, handle)) = routed(&mut self.sessions, &self.shared, link) {
                    found.granted(&mut self.shared, handle, session, locked_until_ms);
                }
            }
            Notice::Refused { link, error } => {
                if let Some((found, handle)) = routed(&mut self.sessions, &self.shared, link) {
                    found.refused(&mut self.shared, handle, error);
                }
            }
            Notice::Detach { link, error } => {
                if let Some((found, handle)) = routed(&mut self.sessions, &self.shared, link) {
                    found.detach(&mut self.shared, handle, error.into());
                }
            }
            Notice::Ready { link } => {
                let Some((found, handle)) = routed(&mut self.sessions, &self.shared, link) else {
                    return Ok(());
                };
                let channel = found.channel;
                let Some(LinkEnd::Out(out)) = found.links.get_mut(&handle).map(|link| &mut link.end) else {
                    return Ok(());
                };
                if !out.queued {
                    out.queued = true;
                    self.shared.ready.push_back((channel, handle));
                }
            }
        }
        Ok(())
    }

    /// Puts messages into the output until it is full or there are none. True when there may be more.
    pub(super) fn pump(&mut self) -> bool {
        while self.shared.output.len() < OUTPUT_HIGH {
            let Some((channel, handle)) = self.shared.ready.pop_front() else { return false };
            if let Some(session) = self.sessions.get_mut(&channel) {
                session.pump(&mut self.shared, handle);
            }
        }
        !self.shared.ready.is_empty()
    }

    // === time ===

    /// When [`Self::tick`] has to be called next.
    pub(super) fn deadline(&self) -> Instant {
        let heartbeat = self.heartbeat.map(|interval| self.spoke + interval);
        let rest = [heartbeat, self.stage_end, self.shared.claims.next_end(), self.shared.next_due()];
        rest.into_iter().flatten().fold(self.heard + self.idle, Instant::min)
    }

    pub(super) fn tick(&mut self, now: Instant) -> Result<(), End> {
        if self.stage_end.is_some_and(|end| end <= now) {
            return Err(if self.stage == Stage::Closing { End::Closed } else { End::Idle });
        }
        if self.heard + self.idle <= now {
            if self.stage != Stage::Open {
                return Err(End::Idle);
            }
            let text = "The connection was inactive for longer than the idle-time-out.";
            self.close(ErrorInfo::new("amqp:resource-limit-exceeded", text), now);
            self.heard = now;
        }
        if self.heartbeat.is_some_and(|interval| self.spoke + interval <= now) {
            self.shared.output.extend_from_slice(&EMPTY_FRAME);
            self.spoke = now;
        }
        if self.shared.claims.next_end().is_some_and(|end| end <= now) {
            self.shared.claims.expire(now);
            self.detach_unauthorised(now);
        }
        while let Some(delayed) = self.shared.due(now) {
            self.resume(delayed, now);
        }
        Ok(())
    }

    /// Something was written: the next sign of life is not due before an interval from now.
    pub(super) fn wrote(&mut self, now: Instant) {
        self.spoke = now;
    }

    fn resume(&mut self, delayed: Delayed, now: Instant) {
        let (Delayed::Attach { channel, .. } | Delayed::Disposition { channel, .. }) = delayed;
        let Some(session) = self.sessions.get_mut(&channel).filter(|session| !session.ending) else { return };
        let done = match delayed {
            Delayed::Attach { handle, link, .. } => {
                session.resume_attach(&mut self.shared, handle, link);
                Ok(())
            }
            Delayed::Disposition { disposition, .. } => session.settle(&mut self.shared, &disposition),
        };
        self.resolve(channel, done, now);
    }

    /// Detaches what no token allows any more.
    fn detach_unauthorised(&mut self, now: Instant) {
        for session in self.sessions.values_mut() {
            let claims = &self.shared.claims;
            let denied = session.links.iter().filter(|(_, link)| {
                !link.closing && link.node.path().is_some_and(|path| !claims.allow(&path, now))
            });
            let denied: Vec<u32> = denied.map(|(handle, _)| *handle).collect();
            for handle in denied {
                let error =
                    ErrorInfo::new(Refusal::UNAUTHORIZED, "Unauthorized access. The token has expired.");
                session.detach(&mut self.shared, handle, error);
            }
        }
    }
}

/// The session and handle of a receiver that the broker names.
fn routed<'a>(
    sessions: &'a mut HashMap<u16, Session>,
    shared: &Shared,
    link: crate::servicebus::broker::LinkId,
) -> Option<(&'a mut Session, u32)> {
    let (channel, handle) = *shared.routes.get(&link)?;
    Some((sessions.get_mut(&channel)?, handle))
}

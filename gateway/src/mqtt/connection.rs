//! One connection after CONNACK: the loop between its socket and the outbox.
//!
//! Everything happens in [`Connection::poll`], which uses the buffers of its thread and keeps none: an
//! idle connection owns neither a read nor a write buffer. One pass releases what became durable,
//! reads the socket once, submits what the read held as one batch and writes everything there is to
//! send with one call. What could not be finished stays behind: the front of a packet, or bytes the
//! socket did not take.
//!
//! The socket is not read while the outbox has no room, while too much of this connection is not
//! durable, while the client does not take what is sent to it, or for a moment when it sends faster than
//! it may. The keep alive rests meanwhile.
//!
//! When it is the outbox's quota that is used up, which may last, the socket is read in small pieces up
//! to the first publish that finds no room: what stands before it is served. Where the listener
//! refuses such publishes, reading goes on behind them.

use std::cell::RefCell;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use penstock_proto::Lane;
use tokio::io::{AsyncRead as _, AsyncWrite as _, ReadBuf};
use tokio::time::{sleep, timeout};

use super::codec::{Version, disconnect};
use super::end::End;
use super::intake::{Intake, Shortage};
use super::link::{Link, Signal};
use super::outgoing::Loss;
use super::pace::Pace;
use super::promise::Promises;
use super::protocol::{Batch, PEEK_BYTES, Place, Protocol, Rest, Taken, entry_bytes_max, write};
use super::shared::{Permit, Seat};
use super::stream::Stream;
use crate::outbox::{CommitFailed, Completion, Permit as Room, Refused, Ticket, Urgency};
use crate::supervise::clock;

/// Size of the read buffer of a thread.
const READ_BYTES: usize = 64 << 10;
/// Bytes of entries reserved before a read, unless a larger packet is on its way.
const RESERVE_BYTES: usize = 256 << 10;
/// A connection that was served so recently lets others run before it takes more deliveries.
const JUST_SERVED: Duration = Duration::from_millis(1);
/// Passes before other connections get their turn.
const PASSES_MAX: usize = 8;
/// Ticks that a closing connection waits for its acknowledgements.
const CLOSING_TICKS: u32 = 5;
/// Ticks that a client may refuse to take what is sent to it.
const STALLED_TICKS: u32 = 30;
/// How long a client that is told why the connection ends may take to hear it.
const LINGER_TIME: Duration = Duration::from_secs(2);
/// Bytes that such a client may still send.
const LINGER_BYTES: usize = 1 << 20;

/// One accepted connection.
pub(super) struct Connection {
    seat: Seat,
    /// Counted out when dropped.
    _permit: Permit,
    stream: Stream,
    protocol: Protocol,
    done: Arc<Completion>,
    durable: Ticket,
    /// What lasting sessions get when it is durable.
    promises: Promises,
    /// What was read and not taken: usually nothing, else the front of a packet.
    tail: Vec<u8>,
    /// Size of the packet that `tail` is the front of, or 0 if it is not known.
    need: usize,
    /// `tail` may hold whole packets that a limit held back.
    held: bool,
    /// What the socket did not take, from `sent` on.
    unsent: Vec<u8>,
    sent: usize,
    /// TLS holds bytes that the socket did not take.
    unflushed: bool,
    keep_alive_ticks: u32,
    /// The link holds packets to deliver.
    deliveries: bool,
    /// When deliveries were last raised and taken, and whether others were let run first since.
    served: Option<Instant>,
    gave_way: bool,
    watch: Watch,
    pace: Pace,
    wait: Option<Waiting>,
    /// Another connection has the client id: this one reads once more and closes.
    overtaken: bool,
    closing: Option<End>,
    /// The wait for acknowledgements is over, whatever is missing.
    expired: bool,
}

/// What has to happen before the socket is read again.
struct Waiting {
    why: Why,
    end: Pin<Box<dyn Future<Output = ()> + Send>>,
}

/// Why a socket is not read.
#[derive(Debug, Clone, Copy)]
enum Why {
    /// The outbox has had no room since then.
    Room(Instant),
    /// The client sends faster than it may.
    Pace,
}

/// Which deadline runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Watch {
    /// The keep alive.
    Reading,
    /// None: we do not read, so that the client cannot be heard.
    Withheld,
    /// The one for a client that does not take what is sent.
    Stalled,
    /// The one for closing.
    Closing,
}

/// Whether a pass found something to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Pass {
    Progress,
    Idle,
}

/// The buffers of a thread.
struct Scratch {
    read: Box<[u8]>,
    batch: Batch,
}

thread_local! {
    static SCRATCH: RefCell<Scratch> =
        RefCell::new(Scratch { read: vec![0; READ_BYTES].into(), batch: Batch::default() });
}

// === impl Connection ===

impl Connection {
    pub(super) fn new(
        seat: Seat,
        permit: Permit,
        stream: Stream,
        protocol: Protocol,
        keep_alive_seconds: u16,
        rest: &[u8],
    ) -> Self {
        let ticks = u32::from(keep_alive_seconds) * 3 / 2;
        let pace = Pace::new(seat.shared().limits.bytes_per_second_max, clock::now());
        let clock = &seat.shared().clock;
        seat.link().set_deadline(clock.after(ticks));
        clock.watch(seat.link());
        Self {
            seat,
            _permit: permit,
            stream,
            protocol,
            done: Arc::new(Completion::new()),
            durable: Ticket::default(),
            promises: Promises::default(),
            tail: rest.to_vec(),
            need: 0,
            held: !rest.is_empty(),
            unsent: Vec::new(),
            sent: 0,
            unflushed: false,
            keep_alive_ticks: ticks,
            deliveries: true,
            served: None,
            gave_way: false,
            watch: Watch::Reading,
            pace,
            wait: None,
            overtaken: false,
            closing: None,
            expired: false,
        }
    }

    /// Serves the connection until it ends.
    ///
    /// # Cancel safety
    ///
    /// Cancelling it closes the connection; what was submitted stays submitted.
    pub(super) async fn run(&mut self) -> End {
        poll_fn(|cx| SCRATCH.with_borrow_mut(|scratch| self.poll(cx, scratch))).await
    }

    fn poll(&mut self, cx: &mut Context<'_>, scratch: &mut Scratch) -> Poll<End> {
        self.seat.link().register(cx.waker());
        if self.gives_way(cx) {
            return Poll::Pending;
        }
        scratch.batch.clear();
        let result = self.heed_signals().map_or_else(|| self.passes(cx, scratch), Poll::Ready);
        self.submit(&mut scratch.batch, None);
        self.seat.shared().metrics.add(&mut scratch.batch.tally);
        result
    }

    /// Whether those run first that can run already. The runtime runs next whom a publish wakes: a subscriber of many
    /// publishers would send each message by itself while the others wait to be read. One that was served a moment
    /// ago therefore goes to the end of the queue, once.
    fn gives_way(&mut self, cx: &Context<'_>) -> bool {
        if !self.seat.link().is_raised(Signal::Delivery) {
            return false;
        }
        let now = clock::now();
        let just_served = self.served.is_some_and(|served| now.duration_since(served) < JUST_SERVED);
        self.gave_way = just_served && !self.gave_way;
        if self.gave_way {
            cx.waker().wake_by_ref();
        } else {
            self.served = Some(now);
        }
        self.gave_way
    }

    fn passes(&mut self, cx: &mut Context<'_>, scratch: &mut Scratch) -> Poll<End> {
        for _ in 0..PASSES_MAX {
            match self.pass(cx, scratch) {
                Ok(Pass::Progress) => {}
                Ok(Pass::Idle) => return Poll::Pending,
                Err(end) => return Poll::Ready(end),
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    fn pass(&mut self, cx: &mut Context<'_>, scratch: &mut Scratch) -> Result<Pass, End> {
        if self.poll_send_rest(cx)?.is_pending() {
            if self.closing.is_none() {
                self.set_watch(Watch::Stalled);
            }
            return Ok(Pass::Idle);
        }
        scratch.batch.out.clear();
        let released = self.release(cx, &mut scratch.batch);
        if released.is_err() {
            self.close(End::CommitFailed);
            self.expired = true;
        }
        let mut pass = Pass::Idle;
        if self.closing.is_none() {
            match self.take_in(cx, scratch) {
                Ok(taken) => pass = taken,
                // Nothing is owed to a client that is gone or says goodbye.
                Err(end @ (End::Lost | End::Client | End::ClientWithWill)) => return Err(end),
                Err(end) => {
                    self.close(end);
                    pass = Pass::Progress;
                }
            }
            if self.overtaken {
                // What the client had sent before it connected again was read, once.
                self.close(End::TakenOver);
                pass = Pass::Progress;
            }
        }
        let ends = self.closing.filter(|_| self.expired || self.protocol.acks.is_empty());
        if let Some((end, reason)) = ends.and_then(|end| Some((end, end.reason()?))) {
            let text = self.protocol.explains().then(|| end.to_string());
            disconnect(&mut scratch.batch.out, self.protocol.version(), reason, text.as_deref());
        }
        if !scratch.batch.out.is_empty() {
            scratch.batch.tally.sent_bytes += u64::try_from(scratch.batch.out.len()).unwrap_or(0);
            self.send(cx, &scratch.batch.out)?;
        }
        self.deliveries |= scratch.batch.deliveries;
        scratch.batch.deliveries = false;
        if !self.unsent.is_empty() || self.deliveries {
            // The next pass finds the socket full and minds its deadline.
            pass = Pass::Progress;
        }
        ends.map_or(Ok(pass), Err)
    }

    /// Looks at what happened outside. Returns the end if the connection is over at once.
    fn heed_signals(&mut self) -> Option<End> {
        let signals = self.seat.link().take_signals();
        if signals == 0 {
            return None;
        }
        let raised = |signal: Signal| signals & signal as u8 != 0;
        if raised(Signal::Delivery) {
            // Taken when the socket takes more.
            self.deliveries = true;
        }
        self.overtaken |= raised(Signal::TakenOver);
        if raised(Signal::Stop) {
            self.close(End::Stopping);
        }
        let due = self.seat.shared().clock.now() >= self.seat.link().deadline();
        if raised(Signal::Deadline) && due {
            match self.watch {
                Watch::Reading => self.close(End::KeepAlive),
                Watch::Stalled => return Some(End::Stalled),
                // Nor does the end wait for a client that takes nothing.
                Watch::Closing if self.unflushed || !self.unsent.is_empty() => return self.closing,
                Watch::Closing => self.expired = true,
                Watch::Withheld => {}
            }
        }
        None
    }

    /// Stops reading; the connection ends when nothing is owed any more.
    fn close(&mut self, end: End) {
        if self.closing.is_none() {
            if matches!(end, End::Malformed(_)) {
                self.seat.shared().metrics.malformed.increment(1);
            }
            self.closing = Some(end);
            self.tail = Vec::new();
            self.wait = None;
            self.set_watch(Watch::Closing);
        }
    }

    /// Collects acknowledgements that became due, and deliveries.
    fn release(&mut self, cx: &mut Context<'_>, batch: &mut Batch) -> Result<(), CommitFailed> {
        if self.deliveries {
            self.take_deliveries(batch);
        }
        if self.protocol.acks.is_empty() {
            return Ok(());
        }
        if self.durable < Ticket(self.protocol.acks.last())
            && let Poll::Ready(durable) = self.done.poll_durable(self.durable, cx)
        {
            self.durable = durable?;
        }
        let durable = self.durable.0;
        self.protocol.acks.release(durable, |reply, id, packet| write(reply, id, packet, batch));
        self.promises.keep(durable);
        Ok(())
    }

    /// Collects deliveries, about as much as the socket may take at once.
    fn take_deliveries(&mut self, batch: &mut Batch) {
        let shared = self.seat.shared();
        let (bounds, now_ms) = (shared.bounds(), shared.now_ms());
        let session = self.seat.session();
        let (more, losses) = session.take_packets(&mut batch.out, bounds, now_ms, &mut batch.relaxed);
        self.deliveries = more;
        batch.tally.lose(Loss::Full, losses.full);
        batch.tally.lose(Loss::TooLarge, losses.too_large);
        batch.tally.lose(Loss::Expired, losses.expired);
    }

    /// Reads once and takes what came, if there is room for it.
    fn take_in(&mut self, cx: &mut Context<'_>, scratch: &mut Scratch) -> Result<Pass, End> {
        self.mind_pace();
        if !self.protocol.has_room(self.seat.shared(), 0) || self.poll_wait(cx).is_pending() {
            self.set_watch(Watch::Withheld);
            return Ok(Pass::Idle);
        }
        if !self.held && self.stream.poll_readable(cx).is_pending() {
            self.set_watch(Watch::Reading);
            return Ok(Pass::Idle);
        }
        let Some(mut intake) = self.intake()? else { return Ok(Pass::Progress) };
        let Scratch { read, batch } = scratch;
        let mut count = 0;
        if !self.held {
            let bytes = if intake.withholds() { self.peek_bytes() } else { read.len() };
            let mut buffer = ReadBuf::new(read.get_mut(..bytes).unwrap_or_default());
            match Pin::new(&mut self.stream).poll_read(cx, &mut buffer) {
                Poll::Pending => {
                    self.set_watch(Watch::Reading);
                    return Ok(Pass::Idle);
                }
                Poll::Ready(Err(_)) => return Err(End::Lost),
                Poll::Ready(Ok(())) => count = buffer.filled().len(),
            }
            if count == 0 {
                return Err(End::Lost);
            }
            self.pace.spend(count);
            batch.tally.received_bytes += u64::try_from(count).unwrap_or(0);
        }
        self.watch = Watch::Reading;
        self.seat.link().set_deadline(self.seat.shared().clock.after(self.keep_alive_ticks));
        let rest = self.take(batch, &mut intake, read.get(..count).unwrap_or_default());
        self.submit(batch, intake.into_room());
        match rest {
            Rest::End(end) => return Err(end),
            Rest::Held { lane, .. } => self.wait_for_room(lane),
            Rest::Incomplete(_) | Rest::Full(_) => {}
        }
        Ok(Pass::Progress)
    }

    /// How much to read while publishes are withheld: many connections may be for long, and each keeps
    /// what it read.
    fn peek_bytes(&self) -> usize {
        self.need.saturating_sub(self.tail.len()).clamp(PEEK_BYTES, READ_BYTES)
    }

    /// Takes what was read, behind what an earlier read left.
    fn take(&mut self, batch: &mut Batch, intake: &mut Intake, read: &[u8]) -> Rest {
        let place = Place { shared: self.seat.shared(), session: self.seat.session() };
        if self.tail.is_empty() {
            let Taken { used, rest } = self.protocol.take(place, batch, intake, read);
            self.tail.extend_from_slice(read.get(used..).unwrap_or_default());
            self.note(rest);
            return rest;
        }
        self.tail.extend_from_slice(read);
        if self.tail.len() < self.need && !intake.withholds() {
            let rest = Rest::Incomplete(Some(self.need));
            self.note(rest);
            return rest;
        }
        let Taken { used, rest } = self.protocol.take(place, batch, intake, &self.tail);
        self.tail.drain(..used);
        // A large packet leaves a large buffer behind.
        if self.tail.capacity() > 2 * self.tail.len() + 64 {
            self.tail.shrink_to_fit();
        }
        self.note(rest);
        rest
    }

    fn note(&mut self, rest: Rest) {
        self.held = matches!(rest, Rest::Full(_) | Rest::Held { .. });
        self.need = match rest {
            Rest::Incomplete(Some(bytes)) | Rest::Full(bytes) | Rest::Held { bytes, .. } => bytes,
            Rest::Incomplete(None) | Rest::End(_) => 0,
        };
    }

    /// Submits what the batch holds as one.
    fn submit(&mut self, batch: &mut Batch, room: Option<Room>) {
        let shared = self.seat.shared();
        if !batch.relaxed.is_empty() {
            shared.submit_relaxed(&batch.relaxed);
            batch.relaxed.clear();
        }
        if !batch.owes() {
            return;
        }
        debug_assert!(room.is_some() || batch.encoded.is_empty(), "entries are encoded where there is room");
        let bytes = batch.bytes();
        let (state, done) = (&batch.state, &self.done);
        let ticket = match room {
            Some(room) => shared.appender.submit(room, &batch.encoded, state, done),
            None => shared.appender.submit_state(state, Urgency::Prompt, done),
        };
        self.protocol.acks.submitted(ticket.0, bytes);
        batch.encoded.clear();
        batch.state.clear();
        for (session, order) in batch.promised.drain(..) {
            self.promises.push(ticket.0, session, order);
        }
        for waits in batch.answered.drain(..) {
            self.promises.push_answer(ticket.0, waits);
        }
    }

    /// Reserves room in the outbox; none means that the wait for it has begun.
    fn intake(&mut self) -> Result<Option<Intake>, End> {
        let shared = self.seat.shared();
        let bytes = RESERVE_BYTES.max(entry_bytes_max(self.need));
        let refused = match shared.appender.reserve(shared.lane, bytes) {
            Ok(room) => return Ok(Some(Intake::Open(room))),
            Err(Refused::Closed) => return Err(End::Stopping),
            Err(refused) => refused,
        };
        if let Some(shortage) = Shortage::of(refused) {
            let refuses = self.protocol.refuses();
            return Ok(Some(Intake::Short { shortage, refuses, room: None }));
        }
        self.wait_for_room(shared.lane);
        Ok(None)
    }

    fn wait_for_room(&mut self, lane: Lane) {
        let appender = self.seat.shared().appender.clone();
        let end = Box::pin(async move { appender.room(lane).await });
        self.wait = Some(Waiting { why: Why::Room(clock::now()), end });
    }

    /// Begins to wait if the client has sent faster than it may.
    fn mind_pace(&mut self) {
        let shared = self.seat.shared();
        if self.wait.is_none()
            && let Some(time) = self.pace.wait(shared.limits.bytes_per_second_max, clock::now)
        {
            shared.metrics.paced.increment(1);
            self.wait = Some(Waiting { why: Why::Pace, end: Box::pin(sleep(time)) });
        }
    }

    fn poll_wait(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(waiting) = &mut self.wait else { return Poll::Ready(()) };
        if waiting.end.as_mut().poll(cx).is_pending() {
            return Poll::Pending;
        }
        if let Why::Room(since) = waiting.why {
            let withheld = clock::now().saturating_duration_since(since);
            self.seat.shared().metrics.withheld.record(withheld.as_secs_f64());
        }
        self.wait = None;
        Poll::Ready(())
    }

    /// Sends with one write; what the socket does not take is kept for later.
    fn send(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Result<(), End> {
        let mut sent = 0;
        while let Some(rest) = bytes.get(sent..).filter(|rest| !rest.is_empty()) {
            match Pin::new(&mut self.stream).poll_write(cx, rest) {
                Poll::Ready(Ok(count)) if count > 0 => sent += count,
                Poll::Ready(_) => return Err(End::Lost),
                Poll::Pending => {
                    self.unsent.extend_from_slice(rest);
                    self.sent = 0;
                    break;
                }
            }
        }
        self.unflushed = true;
        self.poll_flush(cx).map(drop)
    }

    /// Sends what was left; ready when nothing is.
    fn poll_send_rest(&mut self, cx: &mut Context<'_>) -> Result<Poll<()>, End> {
        while let Some(rest) = self.unsent.get(self.sent..).filter(|rest| !rest.is_empty()) {
            match Pin::new(&mut self.stream).poll_write(cx, rest) {
                Poll::Ready(Ok(count)) if count > 0 => self.sent += count,
                Poll::Ready(_) => return Err(End::Lost),
                Poll::Pending => return Ok(Poll::Pending),
            }
        }
        if !self.unsent.is_empty() {
            self.unsent = Vec::new();
            self.sent = 0;
        }
        self.poll_flush(cx)
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Result<Poll<()>, End> {
        if !self.unflushed {
            return Ok(Poll::Ready(()));
        }
        match Pin::new(&mut self.stream).poll_flush(cx) {
            Poll::Ready(Ok(())) => {
                self.unflushed = false;
                Ok(Poll::Ready(()))
            }
            Poll::Ready(Err(_)) => Err(End::Lost),
            Poll::Pending => Ok(Poll::Pending),
        }
    }

    fn set_watch(&mut self, watch: Watch) {
        if self.watch == watch {
            return;
        }
        self.watch = watch;
        let clock = &self.seat.shared().clock;
        self.seat.link().set_deadline(match watch {
            Watch::Reading => clock.after(self.keep_alive_ticks),
            Watch::Withheld => Link::NEVER,
            Watch::Stalled => clock.after(STALLED_TICKS),
            Watch::Closing => clock.after(CLOSING_TICKS),
        });
    }

    /// What remains to do after the end: a socket that is closed without a reset, and a session that is
    /// given back only when it is known what became of all that was submitted for it.
    pub(super) async fn finish(mut self: Box<Self>, end: End) {
        let shared = Arc::clone(self.seat.shared());
        tracing::debug!(client_id = &**self.seat.link().client(), reason = %end, "disconnected");
        shared.metrics.disconnect(end.name());
        // As far as that goes at once; a failure shows that the client is gone.
        poll_fn(|cx| {
            drop(Pin::new(&mut self.stream).poll_shutdown(cx));
            Poll::Ready(())
        })
        .await;
        let settled = self.settle().await;
        let received = settled.is_ok().then(|| self.protocol.take_received());
        self.seat.give_back(received);
        let Self { seat, mut stream, protocol, promises, .. } = *self;
        drop(promises);
        drop(seat);
        if protocol.version() == Version::V5 && end.reason().is_some() && end != End::Stopping {
            linger(&mut stream).await;
        }
        // The client's place is free before the last words of a WebSocket.
        stream.farewell().await;
    }

    /// Waits until what lasting sessions rest on is durable.
    async fn settle(&mut self) -> Result<(), CommitFailed> {
        if !self.protocol.is_lasting() && self.promises.is_empty() {
            return Ok(());
        }
        while self.durable < Ticket(self.protocol.acks.last()) {
            let (done, durable) = (&self.done, self.durable);
            self.durable = poll_fn(|cx| done.poll_durable(durable, cx)).await?;
            self.promises.keep(self.durable.0);
        }
        Ok(())
    }
}

/// Reads what a client still sends until it has heard why the connection ends: closing a socket with
/// unread bytes resets it, and the client would lose the DISCONNECT.
pub(super) async fn linger(stream: &mut Stream) {
    let mut bytes = 0;
    let read = poll_fn(|cx| {
        SCRATCH.with_borrow_mut(|Scratch { read, .. }| {
            while bytes < LINGER_BYTES {
                let mut buffer = ReadBuf::new(read);
                match Pin::new(&mut *stream).poll_read(cx, &mut buffer) {
                    Poll::Ready(Ok(())) if !buffer.filled().is_empty() => bytes += buffer.filled().len(),
                    Poll::Ready(_) => return Poll::Ready(()),
                    Poll::Pending => return Poll::Pending,
                }
            }
            Poll::Ready(())
        })
    });
    // Whoever has not closed by then does not listen.
    drop(timeout(LINGER_TIME, read).await);
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connection")
            .field("client", self.seat.link().client())
            .field("watch", &self.watch)
            .field("closing", &self.closing)
            .finish_non_exhaustive()
    }
}

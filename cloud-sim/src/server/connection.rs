//! One connection: frames in, answers out.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::{Instant, sleep_until, timeout, timeout_at};

use super::sasl::Gate;
use super::{answer, fetch, produce};
use crate::broker::Broker;
use crate::protocol::{ApiKey, DecodeError, RequestHeader, finish_response, start_response};
use crate::tokens::Tokens;

/// Largest request Event Hubs takes, in bytes after the length prefix. A larger one closes the connection,
/// without an answer: that is how Event Hubs behaves.
pub(crate) const REQUEST_BYTES_MAX: usize = 1_046_528;
/// Largest request before authentication.
const REQUEST_BYTES_MAX_UNKNOWN: usize = 64 * 1024;
/// Room made before each read from the socket.
const READ_BYTES: usize = 64 * 1024;
/// Answers are written once this many bytes wait, or nothing is left to answer.
const FLUSH_BYTES: usize = 256 * 1024;
/// Buffers above this are given back after use.
const KEPT_BYTES: usize = 2 * 1024 * 1024;
/// Answers held back at a time; while there are as many, nothing more is read from the client.
const HELD_MAX: usize = 64;
/// Time for a client to take an answer.
const WRITE: Duration = Duration::from_secs(30);

/// What a connection knows from its listener.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) broker: Arc<Broker>,
    /// Where the client is told to find this broker.
    pub(crate) host: String,
    pub(crate) port: u16,
    pub(crate) key: Option<Arc<str>>,
    pub(crate) tokens: Option<Arc<Tokens>>,
    /// Silence after which the connection is closed.
    pub(crate) idle: Duration,
}

/// Why a connection ended.
#[derive(Debug)]
pub(crate) enum End {
    /// The client closed it.
    Client,
    /// The control API cut it.
    Cut,
    /// The answer was to be lost.
    AckLost,
    /// The client said nothing, or took nothing, for too long.
    Idle,
    /// The frame is longer than allowed.
    #[expect(dead_code, reason = "printed in the log")]
    Oversized(i32),
    /// The request cannot be read.
    #[expect(dead_code, reason = "printed in the log")]
    Malformed(DecodeError),
    /// The client may not do this before it shows the right key.
    Unauthorised,
    /// The client's token ended, and it showed no new one.
    Expired,
    /// The socket failed.
    #[expect(dead_code, reason = "printed in the log")]
    Io(io::Error),
}

impl From<DecodeError> for End {
    fn from(error: DecodeError) -> Self {
        Self::Malformed(error)
    }
}

impl From<io::Error> for End {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// One client.
#[derive(Debug)]
pub(crate) struct Connection<S> {
    stream: S,
    session: Session,
    gate: Gate,
    input: BytesMut,
    output: Vec<u8>,
    /// Answers that are not due yet, in order. Whatever is answered after them waits behind them.
    held: VecDeque<Held>,
}

/// An answer that is held back.
#[derive(Debug)]
struct Held {
    due: Instant,
    bytes: Vec<u8>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Connection<S> {
    pub(crate) fn new(stream: S, session: Session) -> Self {
        let gate = Gate::new(session.key.clone(), session.tokens.clone());
        Self { stream, session, gate, input: BytesMut::new(), output: Vec::new(), held: VecDeque::new() }
    }

    /// Serves the client until one side ends it.
    ///
    /// # Cancel safety
    /// A dropped future loses answers, never half of an append.
    pub(crate) async fn run(mut self) -> End {
        let end = match self.serve().await {
            Ok(()) => End::Client,
            Err(end) => end,
        };
        let counters = &self.session.broker.counters;
        match end {
            End::Malformed(_) => counters.malformed_requests.add(1),
            End::Oversized(_) => counters.oversized_requests.add(1),
            End::Unauthorised => counters.authentication_failures.add(1),
            End::Expired => counters.sessions_expired.add(1),
            End::Idle => counters.connections_idle_closed.add(1),
            End::Client | End::Cut | End::AckLost | End::Io(_) => {}
        }
        // Answers that were finished before the end still go out, for instance why a key was refused.
        if matches!(end, End::AckLost | End::Malformed(_) | End::Unauthorised) {
            match self.flush().await {
                Ok(()) | Err(_) => {}
            }
        }
        end
    }

    async fn serve(&mut self) -> Result<(), End> {
        loop {
            while self.held.len() < HELD_MAX
                && let Some(frame) = self.take_frame()?
            {
                self.answer(frame).await?;
                if self.output.len() >= FLUSH_BYTES {
                    self.flush().await?;
                }
            }
            self.flush().await?;
            if !self.proceed().await? {
                return Ok(());
            }
        }
    }

    /// The next whole frame that was read, without its length.
    fn take_frame(&mut self) -> Result<Option<BytesMut>, End> {
        let Some(prefix) = self.input.first_chunk::<4>() else { return Ok(None) };
        let announced = i32::from_be_bytes(*prefix);
        let allowed = if self.gate.is_open() { REQUEST_BYTES_MAX } else { REQUEST_BYTES_MAX_UNKNOWN };
        let length = match usize::try_from(announced) {
            Ok(length) if length <= allowed => length,
            _ => return Err(End::Oversized(announced)),
        };
        if self.input.len() < 4 + length {
            self.input.reserve(4 + length - self.input.len());
            return Ok(None);
        }
        self.input.advance(4);
        Ok(Some(self.input.split_to(length)))
    }

    /// Reads more, or moves the next held answers to the output once they are due. False when the client
    /// closed the connection.
    async fn proceed(&mut self) -> Result<bool, End> {
        if self.input.capacity() - self.input.len() < READ_BYTES {
            self.input.reserve(READ_BYTES);
        }
        let Some(due) = self.held.front().map(|held| held.due) else { return self.fill().await };
        let reads = self.held.len() < HELD_MAX;
        tokio::select! {
            read = self.stream.read_buf(&mut self.input), if reads => return Ok(read? > 0),
            () = sleep_until(due) => {}
        }
        let now = Instant::now();
        while let Some(held) = self.held.pop_front_if(|held| held.due <= now) {
            self.output.extend_from_slice(&held.bytes);
        }
        Ok(true)
    }

    /// Waits until every held answer is due, and moves it to the output.
    async fn release(&mut self) -> Result<(), End> {
        while let Some(held) = self.held.pop_front() {
            self.flush().await?;
            sleep_until(held.due).await;
            self.output.extend_from_slice(&held.bytes);
        }
        Ok(())
    }

    /// Reads more. False when the client closed the connection.
    async fn fill(&mut self) -> Result<bool, End> {
        let read = timeout(self.session.idle, self.stream.read_buf(&mut self.input));
        let read = match self.gate.until() {
            None => read.await,
            Some(until) => timeout_at(until, read).await.map_err(|_elapsed| End::Expired)?,
        };
        match read {
            Ok(read) => Ok(read? > 0),
            Err(_elapsed) => Err(End::Idle),
        }
    }

    async fn flush(&mut self) -> Result<(), End> {
        if self.output.is_empty() {
            return Ok(());
        }
        let write = async {
            self.stream.write_all(&self.output).await?;
            self.stream.flush().await
        };
        let written = timeout(WRITE, write).await;
        self.output.clear();
        self.output.shrink_to(KEPT_BYTES);
        match written {
            Ok(result) => Ok(result?),
            Err(_elapsed) => Err(End::Idle),
        }
    }

    async fn answer(&mut self, mut frame: BytesMut) -> Result<(), End> {
        if self.gate.expects_bare_token() {
            return self.gate.bare_token(&frame, &self.session.broker.counters, &mut self.output);
        }
        let header = RequestHeader::decode(&frame)?;
        self.session.broker.counters.request(header.api);
        self.gate.admit(header.api)?;
        if header.api != ApiKey::Produce {
            self.release().await?;
        }
        match header.api {
            ApiKey::Produce => self.produce(header, &mut frame).await,
            ApiKey::Fetch => self.fetch(header, &frame).await,
            ApiKey::SaslHandshake | ApiKey::SaslAuthenticate => {
                let start = start_response(&mut self.output, header.correlation);
                let outcome =
                    self.gate.answer(&mut self.output, &self.session.broker.counters, header, &frame);
                finish_response(&mut self.output, start);
                outcome
            }
            ApiKey::ApiVersions | ApiKey::Metadata | ApiKey::ListOffsets | ApiKey::InitProducerId => {
                let start = start_response(&mut self.output, header.correlation);
                let outcome = answer::encode(&mut self.output, &self.session, header, &frame);
                finish_response(&mut self.output, start);
                outcome.inspect_err(|_unreadable| self.output.truncate(start)).map_err(End::from)
            }
        }
    }

    async fn produce(&mut self, header: RequestHeader, frame: &mut [u8]) -> Result<(), End> {
        let start = start_response(&mut self.output, header.correlation);
        let produced = produce::store(&mut self.output, &self.session.broker, header, frame);
        let produced = produced.inspect_err(|_unreadable| self.output.truncate(start))?;
        if produced.silent || produced.lost {
            self.output.truncate(start);
        } else {
            finish_response(&mut self.output, start);
        }
        if produced.lost {
            self.release().await?;
            self.session.broker.counters.acks_lost.add(1);
            return Err(End::AckLost);
        }
        let wait = !produced.throttle.is_zero() || !self.held.is_empty();
        if wait && self.output.len() > start {
            // Event Hubs holds back the answer and says in it for how long. What the client sent ahead is
            // taken meanwhile, and paid for in its turn.
            let due = Instant::now() + produced.throttle;
            let due = self.held.back().map_or(due, |last| last.due.max(due));
            self.held.push_back(Held { due, bytes: self.output.split_off(start) });
        }
        Ok(())
    }

    async fn fetch(&mut self, header: RequestHeader, frame: &[u8]) -> Result<(), End> {
        let broker = Arc::clone(&self.session.broker);
        let fetch = fetch::Fetch::decode(&broker, header, frame)?;
        // It may wait; earlier answers must not wait with it.
        self.flush().await?;
        fetch.answer(&mut self.output).await;
        Ok(())
    }
}

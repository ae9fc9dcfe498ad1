//! One connection: a task that reads, lets the state machine work, and writes.
//!
//! Reading and writing go on side by side, so that neither end waits for the other with both directions full;
//! but nothing more is read while much waits to be written. What the machine puts out in one round is
//! written at once. Bounds: bytes of a frame, sessions, links, credit, deliveries not settled, messages that are
//! unfinished, answers that wait.

mod attach;
mod machine;
mod session;
mod shared;
#[cfg(test)]
mod tests;
mod transfer;

use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, split};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, sleep_until, timeout};

pub(super) use self::machine::End;
use self::machine::{Machine, OUTPUT_HIGH};
use super::broker::{Broker, ConnectionId, Notice};
use super::listener::Wire;

/// Room for notices of the broker: four per link.
const NOTICES_MAX: usize = 4 * shared::LINKS_MAX;
/// Room made before each read from the socket.
const READ_BYTES: usize = 64 * 1024;
/// Buffers above this are given back after use.
const KEPT_BYTES: usize = 512 * 1024;
/// Time for a client to take some of what is written.
const WRITE: Duration = Duration::from_secs(30);
/// Notices dealt with in one round.
const NOTICES_ROUND: usize = 256;

/// Frees what the connection holds at the broker, however its task ends.
struct Registered {
    broker: Broker,
    id: ConnectionId,
}

impl Drop for Registered {
    fn drop(&mut self) {
        self.broker.disconnect(self.id);
    }
}

/// Serves a client to the end of the connection, or until all tokens are revoked.
pub(super) async fn serve<S: AsyncRead + AsyncWrite>(stream: S, wire: Arc<Wire>) -> End {
    let Some(mut revocations) = wire.tokens.as_ref().map(|tokens| tokens.revocations()) else {
        return converse(stream, wire).await;
    };
    tokio::select! {
        end = converse(stream, wire) => end,
        _changed = revocations.changed() => End::Cut,
    }
}

async fn converse<S: AsyncRead + AsyncWrite>(stream: S, wire: Arc<Wire>) -> End {
    let (sender, mut notices) = mpsc::channel(NOTICES_MAX);
    let registered = Registered { id: wire.broker.connect(sender), broker: wire.broker.clone() };
    let idle = wire.idle;
    let mut machine = Machine::new(wire, registered.id, Instant::now());
    let (mut reader, mut writer) = split(stream);
    let end = run(&mut machine, &mut reader, &mut writer, &mut notices).await;
    if machine.frozen {
        // As if the wire were cut: the socket stays, nothing moves, and the broker hears of it when a real one would.
        sleep(idle).await;
    } else if !matches!(end, End::Cut | End::Io(_)) {
        let farewell = async {
            writer.write_all(&machine.shared.output).await?;
            writer.shutdown().await
        };
        if let Ok(Err(error)) = timeout(WRITE, farewell).await {
            tracing::trace!(%error, "farewell not sent");
        }
    }
    drop(registered);
    end
}

async fn run(
    machine: &mut Machine,
    reader: &mut (impl AsyncRead + Unpin),
    writer: &mut (impl AsyncWrite + Unpin),
    notices: &mut mpsc::Receiver<Notice>,
) -> End {
    let mut input = BytesMut::new();
    let mut output = Output::default();
    loop {
        let more = machine.pump();
        let now = Instant::now();
        if output.take(machine, now) {
            machine.wrote(now);
        }
        if input.capacity() - input.len() < READ_BYTES {
            input.reserve(READ_BYTES);
        }
        let writing = !output.is_empty();
        let reading = machine.shared.output.len() + output.left() < OUTPUT_HIGH * 2;
        let deadline = machine.deadline();
        let done = tokio::select! {
            written = output.write(writer), if writing => written.map_err(End::from),
            read = reader.read_buf(&mut input), if reading => match read {
                Ok(0) => Err(End::Client),
                Ok(_) => machine.take(&mut input, Instant::now()),
                Err(error) => Err(error.into()),
            },
            notice = notices.recv() => noticed(machine, notice, notices),
            () = sleep_until(deadline) => machine.tick(Instant::now()),
            () = ready_if(more && !writing) => Ok(()),
        };
        if let Err(end) = done {
            output.give_back(machine);
            return end;
        }
        if machine.frozen {
            return End::Cut;
        }
    }
}

/// Deals with a notice and those that wait behind it.
fn noticed(
    machine: &mut Machine,
    first: Option<Notice>,
    notices: &mut mpsc::Receiver<Notice>,
) -> Result<(), End> {
    // The broker has dropped its end: it takes the connection for gone.
    let Some(first) = first else { return Err(End::Cut) };
    let now = Instant::now();
    machine.notice(first, now)?;
    for _ in 0..NOTICES_ROUND {
        let Ok(next) = notices.try_recv() else { break };
        machine.notice(next, now)?;
    }
    Ok(())
}

async fn ready_if(ready: bool) {
    if !ready {
        pending::<()>().await;
    }
}

/// Bytes on their way into the socket.
#[derive(Debug, Default)]
struct Output {
    bytes: Vec<u8>,
    sent: usize,
    /// Written, but perhaps still in a buffer of TLS.
    unflushed: bool,
    /// When the socket has to have taken some.
    stalled_at: Option<Instant>,
}

impl Output {
    fn is_empty(&self) -> bool {
        self.left() == 0 && !self.unflushed
    }

    fn left(&self) -> usize {
        self.bytes.len() - self.sent
    }

    /// Takes over what the machine has put out, once the last lot is gone. True if there was something.
    fn take(&mut self, machine: &mut Machine, now: Instant) -> bool {
        if !self.is_empty() || machine.shared.output.is_empty() {
            return false;
        }
        self.bytes.clear();
        self.bytes.shrink_to(KEPT_BYTES);
        std::mem::swap(&mut self.bytes, &mut machine.shared.output);
        (self.sent, self.unflushed, self.stalled_at) = (0, true, Some(now + WRITE));
        true
    }

    /// Puts what was not written before what the machine has put out since.
    fn give_back(&mut self, machine: &mut Machine) {
        let mut rest = self.bytes.split_off(self.sent);
        rest.append(&mut machine.shared.output);
        machine.shared.output = rest;
    }

    /// Writes some. Cancel safe.
    async fn write(&mut self, writer: &mut (impl AsyncWrite + Unpin)) -> std::io::Result<()> {
        let until = self.stalled_at.unwrap_or_else(|| Instant::now() + WRITE);
        let left = self.bytes.get(self.sent..).unwrap_or_default();
        let write = async {
            if left.is_empty() {
                writer.flush().await.map(|()| None)
            } else {
                writer.write(left).await.map(Some)
            }
        };
        match tokio::time::timeout_at(until, write).await {
            Err(_elapsed) => Err(std::io::ErrorKind::TimedOut.into()),
            Ok(Err(error)) => Err(error),
            Ok(Ok(Some(0))) => Err(std::io::ErrorKind::WriteZero.into()),
            Ok(Ok(Some(count))) => {
                self.sent += count;
                self.stalled_at = Some(Instant::now() + WRITE);
                Ok(())
            }
            Ok(Ok(None)) => {
                self.unflushed = false;
                Ok(())
            }
        }
    }
}

//! What the service made of settlements.
//!
//! A receiver that settles second (AMQP 1.0 section 2.6.12) says what is to become of a delivery, and the service answers
//! with a settled disposition: the same outcome if it was applied, `rejected` with an error if not. The library takes
//! that answer and tells nobody. So the incoming frames are read along ([`Listener`]), and whoever settles waits for the
//! answer to its own delivery ([`Answers`]).

use std::collections::HashMap;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use fe2o3_amqp_types::definitions::{ErrorCondition, Role};
use fe2o3_amqp_types::messaging::{DeliveryState, Rejected};
use fe2o3_amqp_types::performatives::Disposition;
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::oneshot;

use super::error::LinkError;

/// The answers on one connection, by session.
#[derive(Debug, Clone, Default)]
pub(super) struct Settlements(Arc<Mutex<Channels>>);

/// The answers on one session. One settlement at a time waits for its own.
#[derive(Debug, Clone, Default)]
pub(super) struct Answers(Arc<Mutex<Option<Waiting>>>);

/// A stream whose incoming frames are read along.
#[derive(Debug)]
pub(super) struct Listener<S> {
    stream: S,
    frames: Frames,
    settlements: Settlements,
}

#[derive(Debug, Default)]
struct Channels {
    /// Sessions by the channel that the service sends on.
    open: HashMap<u16, Answers>,
    /// The session that began last, until somebody takes it.
    newest: Option<Answers>,
}

#[derive(Debug)]
struct Waiting {
    delivery_id: u32,
    told: oneshot::Sender<Result<(), LinkError>>,
}

/// Cuts a stream of octets into frames (AMQP 1.0 section 2.3.1) and keeps those that are small enough to be of interest.
#[derive(Debug, Default)]
struct Frames {
    /// The frame that is not complete yet.
    partial: Vec<u8>,
    /// Octets of a large frame that are still to come.
    skip: usize,
    /// What came is no AMQP; the library says so to whom it concerns.
    lost: bool,
}

/// Size, offset of the body, type and channel.
const HEAD_BYTES: usize = 8;
/// Larger frames hold messages: a disposition with the longest error text is far smaller.
const FRAME_BYTES_MAX: usize = 8 << 10;
/// What a connection begins with in place of a frame, and again after SASL: `AMQP`, a protocol id and a version.
const PROTOCOL: &[u8] = b"AMQP";
/// Type of frames of AMQP itself; those of SASL are others.
const AMQP_FRAME: u8 = 0;
const BEGIN: u64 = 0x11;
const DISPOSITION: u64 = 0x15;
const END: u64 = 0x17;
/// The condition of a dead-lettered message, that it was asked for with.
const DEAD_LETTER: &str = "com.microsoft:dead-letter";

// === impl Settlements ===

impl Settlements {
    /// The answers on the session that began just now. Sessions begin one after the other ([`super::carrier::run`]), so
    /// that the newest is the caller's.
    pub(super) fn begun(&self) -> Answers {
        self.0.lock().newest.take().unwrap_or_default()
    }

    fn heard(&self, channel: u16, body: &[u8]) {
        match descriptor(body) {
            Some(BEGIN) => {
                let answers = Answers::default();
                let mut channels = self.0.lock();
                channels.open.insert(channel, answers.clone());
                channels.newest = Some(answers);
            }
            Some(END) => drop(self.0.lock().open.remove(&channel)),
            Some(DISPOSITION) => {
                let Ok(disposition) = serde_amqp::from_slice::<Disposition>(body) else { return };
                let answers = self.0.lock().open.get(&channel).cloned();
                if let Some(answers) = answers {
                    answers.heard(disposition);
                }
            }
            _ => {}
        }
    }
}

// === impl Answers ===

impl Answers {
    /// Waits for the answer about a delivery; to be called before it is settled. It fails when the session is over.
    pub(super) fn expect(&self, delivery_id: u32) -> oneshot::Receiver<Result<(), LinkError>> {
        let (told, answer) = oneshot::channel();
        *self.0.lock() = Some(Waiting { delivery_id, told });
        answer
    }

    fn heard(&self, disposition: Disposition) {
        // What we send ourselves and what is not settled yet say nothing about the service.
        if disposition.role != Role::Sender || !disposition.settled {
            return;
        }
        let (first, last) = (disposition.first, disposition.last.unwrap_or(disposition.first));
        // Delivery ids are serial numbers (section 2.8.10), which wrap around.
        let is_meant =
            |waiting: &mut Waiting| waiting.delivery_id.wrapping_sub(first) <= last.wrapping_sub(first);
        let waiting = self.0.lock().take_if(is_meant);
        if let Some(Waiting { told, .. }) = waiting {
            // Whoever does not wait any more does not mind.
            drop(told.send(applied(disposition.state)));
        }
    }
}

/// Whether an outcome was applied. A dead letter is a rejection itself; one that failed names another error.
fn applied(state: Option<DeliveryState>) -> Result<(), LinkError> {
    match state {
        Some(DeliveryState::Rejected(Rejected { error: Some(error) })) => match &error.condition {
            ErrorCondition::Custom(condition) if condition.as_str() == DEAD_LETTER => Ok(()),
            _ => Err(LinkError::from_remote(&error)),
        },
        _ => Ok(()),
    }
}

/// What a performative is: `0x00`, then its code as a small or a whole `ulong` (sections 1.6.10 and 2.7).
fn descriptor(body: &[u8]) -> Option<u64> {
    match body {
        [0x00, 0x53, code, ..] => Some(u64::from(*code)),
        [0x00, 0x80, rest @ ..] => rest.first_chunk().map(|code| u64::from_be_bytes(*code)),
        _ => None,
    }
}

// === impl Frames ===

impl Frames {
    /// Takes what came and calls `heard` with the channel and the body of each frame of AMQP that is complete.
    fn read(&mut self, mut came: &[u8], mut heard: impl FnMut(u16, &[u8])) {
        while !came.is_empty() && !self.lost {
            let skipped = self.skip.min(came.len());
            self.skip -= skipped;
            came = came.get(skipped..).unwrap_or_default();
            if self.partial.is_empty() {
                let taken = self.take(came, &mut heard);
                came = came.get(taken..).unwrap_or_default();
                if taken == 0 {
                    self.partial.extend_from_slice(came);
                    return;
                }
            } else {
                let missing = missing(&self.partial).min(came.len());
                let (more, rest) = came.split_at(missing);
                came = rest;
                let mut partial = std::mem::take(&mut self.partial);
                partial.extend_from_slice(more);
                if self.take(&partial, &mut heard) == 0 {
                    self.partial = partial;
                }
            }
        }
    }

    /// Takes the frame that `octets` begin with and returns how many of them it took: none if they are not all there.
    fn take(&mut self, octets: &[u8], heard: &mut impl FnMut(u16, &[u8])) -> usize {
        let Some(head) = octets.first_chunk::<HEAD_BYTES>() else { return 0 };
        if head.starts_with(PROTOCOL) {
            return HEAD_BYTES;
        }
        let size = size(head);
        if size < HEAD_BYTES {
            self.lost = true;
            return octets.len();
        }
        if size > FRAME_BYTES_MAX {
            let taken = size.min(octets.len());
            self.skip = size - taken;
            return taken;
        }
        let Some(frame) = octets.get(..size) else { return 0 };
        let [.., offset, kind, channel_high, channel_low] = *head;
        // The offset counts words of four octets.
        if let (AMQP_FRAME, Some(body)) = (kind, frame.get(usize::from(offset) * 4..)) {
            heard(u16::from_be_bytes([channel_high, channel_low]), body);
        }
        size
    }
}

/// How many octets the frame that begins like this still needs, as far as that is known.
fn missing(partial: &[u8]) -> usize {
    partial.first_chunk().map_or(HEAD_BYTES, size).saturating_sub(partial.len())
}

fn size(head: &[u8; HEAD_BYTES]) -> usize {
    let [a, b, c, d, ..] = *head;
    usize::try_from(u32::from_be_bytes([a, b, c, d])).unwrap_or(usize::MAX)
}

// === impl Listener ===

impl<S> Listener<S> {
    pub(super) fn new(stream: S, settlements: Settlements) -> Self {
        Self { stream, frames: Frames::default(), settlements }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Listener<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buffer.filled().len();
        let read = Pin::new(&mut this.stream).poll_read(cx, buffer);
        let came = buffer.filled().get(before..).unwrap_or_default();
        this.frames.read(came, |channel, body| this.settlements.heard(channel, body));
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Listener<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write(cx, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use fe2o3_amqp_types::definitions;
    use fe2o3_amqp_types::messaging::{Accepted, Modified};
    use fe2o3_amqp_types::performatives::{Begin, End};
    use fe2o3_amqp_types::primitives::Symbol;
    use rand::rngs::StdRng;
    use rand::{RngExt, SeedableRng};

    use super::*;

    fn frame(channel: u16, body: &[u8]) -> Vec<u8> {
        let size = u32::try_from(HEAD_BYTES + body.len()).unwrap();
        [&size.to_be_bytes()[..], &[2, AMQP_FRAME], &channel.to_be_bytes(), body].concat()
    }

    fn begin(channel: u16) -> Vec<u8> {
        let begin = Begin {
            remote_channel: Some(7),
            next_outgoing_id: 0,
            incoming_window: 5000,
            outgoing_window: 5000,
            handle_max: Default::default(),
            offered_capabilities: None,
            desired_capabilities: None,
            properties: None,
        };
        frame(channel, &serde_amqp::to_vec(&begin).unwrap())
    }

    fn disposition(channel: u16, ids: (u32, Option<u32>), settled: bool, state: DeliveryState) -> Vec<u8> {
        let (first, last) = ids;
        let role = Role::Sender;
        let disposition = Disposition { role, first, last, settled, state: Some(state), batchable: false };
        frame(channel, &serde_amqp::to_vec(&disposition).unwrap())
    }

    fn rejected(condition: &str) -> DeliveryState {
        let condition = ErrorCondition::Custom(Symbol::from(condition));
        let error = Some(definitions::Error::new(condition, Some("because".to_owned()), None));
        DeliveryState::Rejected(Rejected { error })
    }

    const ACCEPTED: DeliveryState = DeliveryState::Accepted(Accepted {});

    /// What comes in pieces of `piece` octets.
    fn hear(settlements: &Settlements, octets: &[u8], piece: usize) {
        let mut frames = Frames::default();
        for piece in octets.chunks(piece) {
            frames.read(piece, |channel, body| settlements.heard(channel, body));
        }
    }

    #[test]
    fn an_answer_reaches_its_delivery_however_the_stream_is_cut() {
        let large = frame(3, &vec![0xaa; FRAME_BYTES_MAX]);
        let before =
            [b"AMQP\x03\x01\x00\x00".to_vec(), b"AMQP\x00\x01\x00\x00".to_vec(), begin(3), large.clone()];
        let after = [frame(0, &[]), large, disposition(3, (41, None), true, ACCEPTED)].concat();
        for piece in (1..40).chain([1000, 10_000, 100_000]) {
            let settlements = Settlements::default();
            hear(&settlements, &before.concat(), piece);
            let answers = settlements.begun();
            let mut other = answers.clone().expect(40);
            hear(&settlements, &after, piece);
            assert!(other.try_recv().is_err(), "another delivery, in pieces of {piece}");
            let mut own = answers.expect(41);
            hear(&settlements, &after, piece);
            assert_eq!(own.try_recv().unwrap(), Ok(()), "in pieces of {piece}");
        }
    }

    #[test]
    fn only_what_the_service_settled_counts() {
        let check = |channel, ids, settled, state, expected: Option<Result<(), &str>>| {
            let settlements = Settlements::default();
            hear(&settlements, &begin(5), 64);
            let mut answer = settlements.begun().expect(9);
            hear(&settlements, &disposition(channel, ids, settled, state), 64);
            let told = answer.try_recv().ok();
            let told = told.map(|told| told.map_err(|error| error.cause().condition.clone()));
            assert_eq!(told, expected.map(|expected| expected.map_err(str::to_owned)));
        };
        let abandoned = DeliveryState::Modified(Modified {
            delivery_failed: Some(true),
            undeliverable_here: None,
            message_annotations: None,
        });
        check(5, (9, None), true, ACCEPTED, Some(Ok(())));
        check(5, (9, None), true, abandoned, Some(Ok(())));
        check(5, (8, Some(10)), true, ACCEPTED, Some(Ok(())));
        check(5, (u32::MAX, Some(20)), true, ACCEPTED, Some(Ok(())));
        check(5, (9, None), true, DeliveryState::Rejected(Rejected { error: None }), Some(Ok(())));
        check(5, (9, None), true, rejected(DEAD_LETTER), Some(Ok(())));
        let lost = "com.microsoft:message-lock-lost";
        check(5, (9, None), true, rejected(lost), Some(Err(lost)));
        check(5, (9, None), false, ACCEPTED, None);
        check(5, (10, None), true, ACCEPTED, None);
        check(5, (10, Some(8)), true, ACCEPTED, None);
        check(4, (9, None), true, ACCEPTED, None);
    }

    #[test]
    fn a_channel_that_is_used_again_belongs_to_the_new_session() {
        let settlements = Settlements::default();
        hear(&settlements, &begin(1), 64);
        let mut old = settlements.begun().expect(0);
        hear(&settlements, &frame(1, &serde_amqp::to_vec(&End { error: None }).unwrap()), 64);
        assert!(settlements.0.lock().open.is_empty());
        hear(&settlements, &begin(1), 64);
        let mut new = settlements.begun().expect(0);
        hear(&settlements, &disposition(1, (0, None), true, ACCEPTED), 64);
        assert!(old.try_recv().is_err());
        assert_eq!(new.try_recv().unwrap(), Ok(()));
    }

    #[test]
    fn junk_is_heard_by_nobody_and_keeps_nothing() {
        let seed: u64 = rand::random();
        println!("seed {seed}");
        let mut random = StdRng::seed_from_u64(seed);
        for _ in 0..2000 {
            let mut junk = vec![0; 300];
            random.fill(&mut junk[..]);
            // Mostly small frames, so that what follows the head is read.
            junk[..3].fill(0);
            let mut frames = Frames::default();
            let settlements = Settlements::default();
            for piece in junk.chunks(7) {
                frames.read(piece, |channel, body| settlements.heard(channel, body));
            }
            assert!(frames.partial.len() <= FRAME_BYTES_MAX, "{junk:02x?}");
        }
    }
}

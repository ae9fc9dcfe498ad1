//! R1, what the outbox is held against: a plain append log that does the least a durable log must do.
//!
//! One file that grows, one committer, group commit by swap, a commit as soon as the one before has ended:
//! one `write` and one `fdatasync` per group. The same fields as the outbox stores, a record behind 16 bytes of
//! header, a group behind 16 more with its CRC-32C. No index, no compression, nothing to read it back.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::thread::JoinHandle;

use anyhow::{Result, bail};

use super::log::{Log, Message};
use crate::realtime;

/// Bytes in front of a group: length u32, CRC-32C u32, number of its first record u64.
const GROUP_HEADER: usize = 16;

/// The log. Closed by [`Plain::close`].
#[derive(Debug)]
pub struct Plain {
    shared: Arc<Shared>,
    committer: JoinHandle<io::Result<()>>,
}

#[derive(Debug)]
struct Shared {
    front: Mutex<Front>,
    signal: Condvar,
    commits: AtomicU64,
    realtime: AtomicBool,
}

#[derive(Debug, Default)]
struct Front {
    group: Group,
    closed: bool,
}

/// Everything submitted since the last swap, behind room for the header.
#[derive(Debug)]
struct Group {
    bytes: Vec<u8>,
    records: u32,
    waiting: Vec<(Arc<Done>, u64)>,
}

/// Encoded messages of one submission.
#[derive(Debug, Default)]
pub struct Records {
    bytes: Vec<u8>,
    count: u32,
}

/// Tells one producer how far its submissions are durable.
#[derive(Debug, Default)]
pub struct Done(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    issued: u64,
    durable: u64,
    failed: bool,
    waker: Option<Waker>,
}

// === impl Plain ===

impl Plain {
    /// Creates the log as `path`.
    ///
    /// # Errors
    /// The file or the thread cannot be made.
    pub fn create(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new().create_new(true).append(true).open(path)?;
        file.sync_all()?;
        let shared = Arc::new(Shared {
            front: Mutex::default(),
            signal: Condvar::new(),
            commits: AtomicU64::new(0),
            realtime: AtomicBool::new(false),
        });
        let committer = {
            let shared = Arc::clone(&shared);
            std::thread::Builder::new().name("plain-committer".to_owned()).spawn(move || {
                shared.realtime.store(realtime::ask(), Ordering::Release);
                let result = shared.commit_all(file);
                shared.fail();
                result
            })?
        };
        Ok(Self { shared, committer })
    }

    /// Whether its committer got real-time scheduling.
    pub fn realtime(&self) -> bool {
        self.shared.realtime.load(Ordering::Acquire)
    }

    /// Commits what was submitted and ends the committer.
    ///
    /// # Errors
    /// A write or a sync failed.
    pub fn close(self) -> Result<()> {
        self.shared.lock().closed = true;
        self.shared.signal.notify_one();
        match self.committer.join() {
            Ok(result) => Ok(result?),
            Err(_) => bail!("the plain log's committer panicked"),
        }
    }
}

impl Log for Plain {
    type Records = Records;
    type Done = Done;

    fn clear(records: &mut Records) {
        records.bytes.clear();
        records.count = 0;
    }

    fn push(records: &mut Records, message: &Message<'_>) {
        let Message { device, topic, received_ms, payload, .. } = message;
        // What the generator sends is short; a length that does not fit would be caught by no reader.
        let short = |length: usize| u16::try_from(length).unwrap_or(u16::MAX);
        let long = u32::try_from(payload.len()).unwrap_or(u32::MAX);
        let out = &mut records.bytes;
        out.extend_from_slice(&long.to_le_bytes());
        out.extend_from_slice(&short(device.len()).to_le_bytes());
        out.extend_from_slice(&short(topic.len()).to_le_bytes());
        out.extend_from_slice(&received_ms.to_le_bytes());
        out.extend_from_slice(device.as_bytes());
        out.extend_from_slice(topic.as_bytes());
        out.extend_from_slice(payload);
        records.count += 1;
    }

    async fn submit(&self, records: &Records, done: &Arc<Done>) -> Result<u64> {
        let mut front = self.shared.lock();
        if front.closed {
            bail!("the plain log is closed");
        }
        let number = done.issue();
        let idle = front.group.records == 0;
        front.group.bytes.extend_from_slice(&records.bytes);
        front.group.records += records.count;
        front.group.waiting.push((Arc::clone(done), number));
        drop(front);
        if idle {
            self.shared.signal.notify_one();
        }
        Ok(number)
    }

    fn poll_durable(done: &Done, seen: u64, cx: &mut Context<'_>) -> Poll<Result<u64>> {
        let mut state = done.lock();
        if state.failed {
            return Poll::Ready(Err(anyhow::anyhow!("the plain log cannot write")));
        }
        // As in the outbox: woken for the rest, too, when only a part is durable.
        if state.durable < state.issued || state.durable <= seen {
            state.waker = Some(cx.waker().clone());
        }
        if state.durable > seen { Poll::Ready(Ok(state.durable)) } else { Poll::Pending }
    }

    fn commits(&self) -> u64 {
        self.shared.commits.load(Ordering::Relaxed)
    }
}

// === impl Shared ===

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Front> {
        self.front.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn commit_all(&self, mut file: File) -> io::Result<()> {
        let (mut group, mut next) = (Group::default(), 1_u64);
        while self.swap(&mut group) {
            group.seal(next)?;
            next += u64::from(group.records);
            file.write_all(&group.bytes)?;
            file.sync_data()?;
            self.commits.fetch_add(1, Ordering::Relaxed);
            for (done, number) in group.waiting.drain(..) {
                done.complete(number);
            }
            group.clear();
        }
        Ok(())
    }

    /// Waits for a group and takes it; `false` when closed and nothing is left.
    fn swap(&self, spare: &mut Group) -> bool {
        let mut front = self.lock();
        while front.group.records == 0 {
            if front.closed {
                return false;
            }
            front = self.signal.wait(front).unwrap_or_else(PoisonError::into_inner);
        }
        std::mem::swap(&mut front.group, spare);
        true
    }

    /// Takes nothing in any more; whoever waits is told.
    fn fail(&self) {
        let mut front = self.lock();
        front.closed = true;
        for (done, _) in front.group.waiting.drain(..) {
            done.fail();
        }
    }
}

// === impl Group ===

impl Default for Group {
    fn default() -> Self {
        Self { bytes: vec![0; GROUP_HEADER], records: 0, waiting: Vec::new() }
    }
}

impl Group {
    fn seal(&mut self, first: u64) -> io::Result<()> {
        let (header, body) = self.bytes.split_at_mut(GROUP_HEADER);
        let length = u32::try_from(body.len()).map_err(io::Error::other)?;
        let fields = [length.to_le_bytes(), crc32c::crc32c(body).to_le_bytes()].concat();
        let (start, rest) = header.split_at_mut(8);
        start.copy_from_slice(&fields);
        rest.copy_from_slice(&first.to_le_bytes());
        Ok(())
    }

    fn clear(&mut self) {
        self.bytes.truncate(GROUP_HEADER);
        self.records = 0;
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // The committer ends in the middle of a group only if it cannot write it.
        self.waiting.drain(..).for_each(|(done, _)| done.fail());
    }
}

// === impl Done ===

impl Done {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn issue(&self) -> u64 {
        let mut state = self.lock();
        state.issued += 1;
        state.issued
    }

    fn complete(&self, number: u64) {
        let mut state = self.lock();
        state.durable = state.durable.max(number);
        let waker = state.waker.take();
        drop(state);
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    fn fail(&self) {
        let mut state = self.lock();
        state.failed = true;
        let waker = state.waker.take();
        drop(state);
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use penstock_proto::Lane;

    use super::*;

    fn records(count: u32) -> Records {
        let mut records = Records::default();
        let message =
            Message { lane: Lane::Telemetry, device: "d", topic: "to", received_ms: 7, payload: b"pay" };
        (0..count).for_each(|_| Plain::push(&mut records, &message));
        records
    }

    #[tokio::test]
    async fn what_is_durable_is_in_the_file_with_its_checksum() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let log = Plain::create(&path).unwrap();
        let done = Arc::new(Done::default());
        assert_eq!(log.submit(&records(3), &done).await.unwrap(), 1);
        assert_eq!(poll_fn(|cx| Plain::poll_durable(&done, 0, cx)).await.unwrap(), 1);
        let bytes = std::fs::read(&path).unwrap();
        assert_eq!(bytes.len(), GROUP_HEADER + 3 * (16 + 1 + 2 + 3));
        let (header, body) = bytes.split_at(GROUP_HEADER);
        assert_eq!(header[..4], u32::try_from(body.len()).unwrap().to_le_bytes());
        assert_eq!(header[4..8], crc32c::crc32c(body).to_le_bytes());
        assert_eq!(header[8..], 1_u64.to_le_bytes());
        assert_eq!(log.commits(), 1);
        log.close().unwrap();
    }

    #[tokio::test]
    async fn a_log_that_cannot_write_says_so() {
        // Appending to it fails for want of space, whoever asks.
        let log = Plain::create(Path::new("/dev/full"));
        assert!(log.is_err(), "create_new on something that exists");
        let folder = tempfile::tempdir().unwrap();
        let log = Plain::create(&folder.path().join("log")).unwrap();
        log.shared.fail();
        let done = Arc::new(Done::default());
        assert!(log.submit(&records(1), &done).await.is_err());
        done.fail();
        assert!(poll_fn(|cx| Plain::poll_durable(&done, 0, cx)).await.is_err());
    }
}

//! Opening: from files to a known state, or a refusal that says what is wrong.
//!
//! The order matters. Log files are set aside before the database opens, since an opening that
//! succeeds deletes them. Then the format guard, the identity, each lane's end (the last segments
//! are read and checked), and the comparison with the high-water mark. Only then a new epoch is
//! written and what was set aside is let go. Starting with acknowledged entries missing is refused.

use std::ops::ControlFlow;

use penstock_proto::{Epoch, Lane, LogId, Seq};

use super::directory::Directory;
use super::error::{OpenError, StoreError};
use super::keys::{self, Format, Head, MetaKey, Progress};
use super::segment::{Header, Segment};
use super::sidecar::{Mark, Sidecar, SidecarError};
use super::store::{Change, Engine, Store};

/// How many segments at the end of a lane an opening reads and checks.
const CHECKED_SEGMENTS: usize = 64;

/// A consumer that holds trim on a lane.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConsumerId {
    /// Its name; part of a stored key.
    pub name: String,
    /// The lane it reads.
    pub lane: Lane,
}

/// An open store and what is known of it.
#[derive(Debug)]
pub(super) struct Recovered {
    pub(super) store: Box<dyn Store>,
    pub(super) sidecar: Sidecar,
    pub(super) log: LogId,
    pub(super) epoch: Epoch,
    pub(super) lanes: [LaneEnds; Lane::COUNT],
    /// In the order of the consumers given.
    pub(super) progress: Vec<Progress>,
}

/// Where a lane begins and ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct LaneEnds {
    pub(super) head: Head,
    /// The position that the next entry gets.
    pub(super) next: Seq,
    /// Bytes of all bodies ever appended.
    pub(super) bytes: u64,
}

/// Who a log is and how often it was opened.
struct Identity {
    log: LogId,
    epoch: Epoch,
}

/// Opens the store in `directory`. `published` are the next positions that this process has shown
/// to consumers already, if it opens the store again.
pub(super) fn open(
    directory: &Directory,
    engine: &dyn Engine,
    consumers: &[ConsumerId],
    published: Option<&[Seq; Lane::COUNT]>,
) -> Result<Recovered, OpenError> {
    let marked = read_mark(directory)?;
    let database = directory.database();
    if let Some((_, Mark { log, .. })) = marked
        && !engine.exists(&database)
    {
        return Err(OpenError::NoDatabase { directory: directory.root().to_owned(), log, database });
    }
    directory.set_logs_aside(engine)?;
    directory.create_database()?;
    // Creation ends with the mark, so without one there may be a database that is half created.
    let create = marked.is_none();
    let store = engine.open(&database, create).map_err(|source| refused(directory, source))?;
    let opening = Opening { directory, store: store.as_ref() };
    opening.check_format()?;
    let lanes = opening.lanes(consumers)?;
    let identity = opening.identity(marked.as_ref().map(|(_, mark)| mark), &lanes)?;
    let mark = marked.as_ref().map(|(_, mark)| mark);
    opening.check_nothing_missing(&lanes, mark, published)?;
    let progress = opening.progress(consumers, &lanes)?;
    let epoch = opening.begin_epoch(&identity, mark)?;
    let mark = Mark { log: identity.log, epoch, next: lanes.map(|lane| lane.next) };
    let sidecar = write_mark(directory, marked.map(|(sidecar, _)| sidecar), &mark)?;
    directory.drop_logs_aside()?;
    Ok(Recovered { store, sidecar, log: identity.log, epoch, lanes, progress })
}

struct Opening<'a> {
    directory: &'a Directory,
    store: &'a dyn Store,
}

impl Opening<'_> {
    fn check_format(&self) -> Result<(), OpenError> {
        let Some(value) = self.meta(&MetaKey::Format)? else { return Ok(()) };
        let Format { writer_version, min_reader_version } =
            Format::decode(&value).ok_or_else(|| self.bad_meta("format"))?;
        let ours = keys::FORMAT.writer_version;
        if min_reader_version > ours {
            return Err(OpenError::Newer {
                directory: self.directory.root().to_owned(),
                written: writer_version,
                needed: min_reader_version,
                ours,
            });
        }
        Ok(())
    }

    /// Who the log is; a log that was never used gets its identity here.
    fn identity(&self, mark: Option<&Mark>, lanes: &[LaneEnds; Lane::COUNT]) -> Result<Identity, OpenError> {
        let used = lanes.iter().any(|lane| lane.next > FIRST);
        let Some(mark) = mark else {
            return if used { Err(self.no_mark()) } else { self.found_or_new() };
        };
        let Some(identity) = self.stored_identity()? else { return Err(self.bad_meta("identity")) };
        if identity.log != mark.log {
            return Err(OpenError::OtherLog {
                directory: self.directory.root().to_owned(),
                mark: mark.log,
                database: identity.log,
            });
        }
        Ok(identity)
    }

    fn found_or_new(&self) -> Result<Identity, OpenError> {
        if let Some(identity) = self.stored_identity()? {
            return Ok(identity);
        }
        let identity = Identity { log: LogId(rand::random()), epoch: Epoch(0) };
        let changes = [
            Change::Meta { key: MetaKey::Format, value: keys::FORMAT.encode() },
            Change::Meta { key: MetaKey::Log, value: keys::encode_log(identity.log) },
        ];
        self.store.write(&changes, true).map_err(|source| refused(self.directory, source))?;
        Ok(identity)
    }

    fn stored_identity(&self) -> Result<Option<Identity>, OpenError> {
        if self.meta(&MetaKey::Format)?.is_none() {
            return Ok(None);
        }
        let log = self.meta(&MetaKey::Log)?.and_then(|value| keys::decode_log(&value));
        let log = log.ok_or_else(|| self.bad_meta("log id"))?;
        let epoch = match self.meta(&MetaKey::Epoch)? {
            None => Epoch(0),
            Some(value) => keys::decode_epoch(&value).ok_or_else(|| self.bad_meta("epoch"))?,
        };
        Ok(Some(Identity { log, epoch }))
    }

    fn begin_epoch(&self, identity: &Identity, mark: Option<&Mark>) -> Result<Epoch, OpenError> {
        let last = identity.epoch.max(mark.map_or(Epoch(0), |mark| mark.epoch));
        let epoch = Epoch(last.0.saturating_add(1));
        let change = Change::Meta { key: MetaKey::Epoch, value: keys::encode_epoch(epoch) };
        self.store.write(&[change], true).map_err(|source| refused(self.directory, source))?;
        Ok(epoch)
    }

    fn lanes(&self, consumers: &[ConsumerId]) -> Result<[LaneEnds; Lane::COUNT], OpenError> {
        let mut ends = [LaneEnds::EMPTY; Lane::COUNT];
        for (lane, ends) in Lane::ALL.into_iter().zip(&mut ends) {
            *ends = self.lane(lane)?;
        }
        for ConsumerId { name, lane } in consumers {
            let progress = self.stored_progress(*lane, name)?;
            if let (Some(progress), Some(ends)) = (progress, ends.get_mut(lane.index())) {
                ends.next = ends.next.max(progress.low);
                ends.bytes = ends.bytes.max(progress.bytes_before);
            }
        }
        Ok(ends)
    }

    fn lane(&self, lane: Lane) -> Result<LaneEnds, OpenError> {
        let head = match self.meta(&MetaKey::Head(lane))? {
            None => LaneEnds::EMPTY.head,
            Some(value) => Head::decode(&value).ok_or_else(|| self.bad_meta("lane head"))?,
        };
        let last = self.check_end(lane, head.first)?;
        let (end, bytes) = last.map_or((FIRST, 0), |header| (header.end(), header.bytes_after()));
        Ok(LaneEnds { head, next: end.max(head.first), bytes: bytes.max(head.bytes_before) })
    }

    /// Reads the last segments of a lane, checks each and that none is missing between them.
    fn check_end(&self, lane: Lane, head: Seq) -> Result<Option<Header>, OpenError> {
        let mut last: Option<Header> = None;
        let mut later: Option<Header> = None;
        let mut left = CHECKED_SEGMENTS;
        let mut problem = None;
        let scanned = self.store.scan_back(lane, Seq(u64::MAX), &mut |first, stored| {
            if first < head || left == 0 {
                return ControlFlow::Break(());
            }
            left -= 1;
            match self.check_segment(lane, first, stored, later.as_ref()) {
                Ok(header) => {
                    last.get_or_insert(header);
                    later = Some(header);
                    ControlFlow::Continue(())
                }
                Err(error) => {
                    problem = Some(error);
                    ControlFlow::Break(())
                }
            }
        });
        scanned.map_err(|source| refused(self.directory, source))?;
        problem.map_or(Ok(last), Err)
    }

    fn check_segment(
        &self,
        lane: Lane,
        first: Seq,
        stored: &[u8],
        later: Option<&Header>,
    ) -> Result<Header, OpenError> {
        let directory = self.directory.root().to_owned();
        let segment = Segment::decode_at(lane, first, stored).map_err(|reason| OpenError::Damaged {
            directory: directory.clone(),
            lane,
            first,
            reason,
        })?;
        let aside = self.directory.aside();
        match later {
            Some(later) if later.first != segment.end() => {
                Err(OpenError::Gap { directory, lane, from: segment.end(), to: later.first, aside })
            }
            _ => Ok(*segment.header()),
        }
    }

    fn check_nothing_missing(
        &self,
        lanes: &[LaneEnds; Lane::COUNT],
        mark: Option<&Mark>,
        published: Option<&[Seq; Lane::COUNT]>,
    ) -> Result<(), OpenError> {
        for (lane, ends) in Lane::ALL.into_iter().zip(lanes) {
            let known = [mark.map(|mark| &mark.next), published];
            let known = known.into_iter().flatten().filter_map(|next| next.get(lane.index()));
            let expected = known.copied().max().unwrap_or(FIRST);
            if ends.next < expected {
                let (directory, aside) = (self.directory.root().to_owned(), self.directory.aside());
                return Err(OpenError::Missing { directory, lane, expected, found: ends.next, aside });
            }
        }
        Ok(())
    }

    /// Where each consumer goes on. A new one starts at the oldest entry there is.
    fn progress(
        &self,
        consumers: &[ConsumerId],
        lanes: &[LaneEnds; Lane::COUNT],
    ) -> Result<Vec<Progress>, OpenError> {
        let mut all = Vec::with_capacity(consumers.len());
        for ConsumerId { name, lane } in consumers {
            let Some(ends) = lanes.get(lane.index()) else { continue };
            let head = ends.head;
            let start = Progress {
                low: head.first,
                floor: head.first,
                bytes_before: head.bytes_before,
                state: Vec::new(),
            };
            let progress = self.stored_progress(*lane, name)?.unwrap_or_else(|| start.clone());
            if progress.floor < head.first {
                // It was not in the configuration for a while, and what it had not read was trimmed.
                tracing::warn!(consumer = name, %lane, low = progress.low.0, head = head.first.0,
                    "consumer was away too long and goes on at the oldest entry");
                all.push(Progress { state: progress.state, ..start });
            } else {
                all.push(progress);
            }
        }
        Ok(all)
    }

    fn stored_progress(&self, lane: Lane, consumer: &str) -> Result<Option<Progress>, OpenError> {
        let value = self.meta(&MetaKey::Progress(lane, consumer.to_owned()))?;
        let decode =
            |value: Vec<u8>| Progress::decode(&value).ok_or_else(|| self.bad_meta("consumer progress"));
        value.map(decode).transpose()
    }

    fn meta(&self, key: &MetaKey) -> Result<Option<Vec<u8>>, OpenError> {
        self.store.meta(key).map_err(|source| refused(self.directory, source))
    }

    fn bad_meta(&self, what: &'static str) -> OpenError {
        OpenError::BadMeta { directory: self.directory.root().to_owned(), what }
    }

    fn no_mark(&self) -> OpenError {
        let (directory, file) = (self.directory.root().to_owned(), self.directory.high_water());
        OpenError::NoHighWaterMark { directory, file }
    }
}

/// The first position of a lane.
const FIRST: Seq = Seq(1);

impl LaneEnds {
    const EMPTY: Self = Self { head: Head { first: FIRST, bytes_before: 0 }, next: FIRST, bytes: 0 };
}

fn read_mark(directory: &Directory) -> Result<Option<(Sidecar, Mark)>, OpenError> {
    match Sidecar::open(&directory.high_water()) {
        Ok(found) => Ok(Some(found)),
        Err(SidecarError::Missing) => Ok(None),
        Err(other) => Err(OpenError::BadHighWaterMark {
            directory: directory.root().to_owned(),
            file: directory.high_water(),
            reason: other.to_string(),
        }),
    }
}

/// Writes the mark of the new epoch and makes it durable before anything is appended.
fn write_mark(directory: &Directory, sidecar: Option<Sidecar>, mark: &Mark) -> Result<Sidecar, OpenError> {
    let path = directory.high_water();
    let written = match sidecar {
        None => Sidecar::create(&path, mark),
        Some(mut sidecar) => sidecar.write(mark).and_then(|()| sidecar.file().sync_data()).map(|()| sidecar),
    };
    let action = "write the high-water mark";
    let sidecar = written.map_err(|source| OpenError::Io { path, action, source })?;
    directory.sync()?;
    Ok(sidecar)
}

fn refused(directory: &Directory, source: StoreError) -> OpenError {
    OpenError::Store { directory: directory.root().to_owned(), source }
}

//! Opening: from files to a known state, or a refusal that says what is wrong.
//!
//! The order matters. The database's files are set aside before it opens, since an opening that
//! succeeds deletes its log. Then the format guard, the identity, each lane's end (the last segments
//! are read and checked), and the comparison with the high-water mark. Only then a new epoch is
//! written and what was set aside is let go.
//!
//! Starting in silence with acknowledged entries missing is impossible. What happens instead is the
//! operator's choice, `on_missing_range`: `refuse` says what is missing and changes nothing;
//! `quarantine` reads from the set-aside log what can still be read, keeps the evidence, announces
//! the rest as a hole, and goes on behind it in a new epoch ([`mod@repair`]).

mod opening;
mod repair;
mod state;

use penstock_proto::{Epoch, Lane, LogId, Seq};

use super::config::{Config, OnMissingRange};
use super::directory::Directory;
use super::error::{OpenError, StoreError, StoreErrorKind};
use super::incident::{Cause, Range};
use super::keys::{Head, Hole, MetaKey, Progress};
use super::sidecar::{Mark, Sidecar, SidecarError};
use super::store::{Change, Engine, Open, Store};
use crate::supervise::chain;
use opening::{Begun, Opening};
pub(super) use repair::examine;
use repair::{Repaired, repair};
use state::mend;

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
    pub(super) holes: Vec<LaneHole>,
    /// What this opening found to be gone.
    pub(super) missing: Vec<Range>,
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

/// A hole and where it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct LaneHole {
    pub(super) lane: Lane,
    pub(super) first: Seq,
    pub(super) hole: Hole,
}

/// What to open.
#[derive(Debug, Clone, Copy)]
pub(super) struct Request<'a> {
    pub(super) directory: &'a Directory,
    pub(super) engine: &'a dyn Engine,
    pub(super) config: &'a Config,
    pub(super) consumers: &'a [ConsumerId],
    /// The next positions that this process has shown to consumers already, if it opens the store
    /// again.
    pub(super) published: Option<&'a [Seq; Lane::COUNT]>,
}

/// Who a log is and how often it was opened.
#[derive(Debug, Clone, Copy)]
struct Identity {
    log: LogId,
    epoch: Epoch,
}

/// What the sidecar says.
#[derive(Debug)]
enum Known {
    Mark(Sidecar, Mark),
    Missing,
    Damaged(String),
}

/// The first position of a lane.
const FIRST: Seq = Seq(1);

/// Opens the store in a directory.
pub(super) fn open(request: Request<'_>) -> Result<Recovered, OpenError> {
    let Request { directory, engine, consumers, .. } = request;
    let known = Known::read(directory)?;
    let database = directory.database();
    if let Known::Mark(_, Mark { log, .. }) = &known
        && !engine.exists(&database)
    {
        return Err(OpenError::NoDatabase { directory: directory.root().to_owned(), log: *log, database });
    }
    directory.set_aside(engine, request.published.is_some())?;
    directory.create_database()?;
    let (store, unreadable) = open_store(&request, &known)?;
    // Refuses what is not ours before anything is changed.
    drop(Opening::new(&request, store.as_ref(), &known)?);
    let (store, lost_state) = mend(&request, store)?;
    let mut opening = Opening::new(&request, store.as_ref(), &known)?;
    let (lanes, mut repaired) = match (opening.survey(consumers), unreadable) {
        (Ok(lanes), None) if !opening.is_behind_its_mark()? => (lanes, Repaired::default()),
        // No position is missed, and still the log was lost or its syncs were not kept.
        (Ok(_), None) if request.quarantines() => repair(&mut opening, consumers, Cause::ShortLog)?,
        (Ok(_), None) => return Err(opening.bad_meta("epoch")),
        (Ok(_), Some(cause)) => repair(&mut opening, consumers, cause)?,
        (Err(error), unreadable) => match unreadable.or_else(|| cause_of(&error)) {
            Some(cause) if request.quarantines() => {
                tracing::error!(error = chain(&error), "reading what can still be read");
                repair(&mut opening, consumers, cause)?
            }
            _ => return Err(error),
        },
    };
    repaired.lost_state = lost_state;
    let progress = opening.progress(consumers, &lanes)?;
    let begun = opening.begin(lanes, &repaired, consumers)?;
    drop(opening);
    let sidecar = write_mark(directory, known.into_sidecar(), &begun.mark)?;
    directory.drop_aside()?;
    let Begun { mark, lanes, holes } = begun;
    let missing = repaired.findings.ranges();
    Ok(Recovered { store, sidecar, log: mark.log, epoch: mark.epoch, lanes, progress, holes, missing })
}

/// Opens the database; if it took a salvage, also says so.
fn open_store(request: &Request<'_>, known: &Known) -> Result<(Box<dyn Store>, Option<Cause>), OpenError> {
    let Request { directory, engine, .. } = request;
    let database = directory.database();
    // Creation ends with the mark, so without one there may be a database that is half created.
    let how = if known.mark().is_some() { Open::Existing } else { Open::Create };
    let refusal = match engine.open(&database, how) {
        Ok(store) => return Ok((store, None)),
        Err(refusal) => refusal,
    };
    if refusal.kind != StoreErrorKind::Corruption || !engine.exists(&database) {
        return Err(refused(directory, refusal));
    }
    // With several lanes a power cut can leave a log that looks inconsistent and is whole.
    if let Ok(store) = engine.open(&database, Open::Complete) {
        tracing::info!(%refusal, "the log is complete although the database took it for inconsistent");
        return Ok((store, None));
    }
    if !request.quarantines() {
        return Err(refused(directory, refusal));
    }
    tracing::error!(%refusal, "the database does not open; reading what can still be read");
    drop(engine.open(&database, Open::Salvage).map_err(|source| refused(directory, source))?);
    let store = engine.open(&database, Open::Existing).map_err(|source| refused(directory, source))?;
    Ok((store, Some(Cause::UnreadableLog)))
}

/// What is wrong, if going on without the missing entries is possible.
const fn cause_of(error: &OpenError) -> Option<Cause> {
    match error {
        OpenError::Missing { .. } => Some(Cause::ShortLog),
        OpenError::Gap { .. } => Some(Cause::MissingSegment),
        OpenError::Damaged { .. }
        | OpenError::Store { source: StoreError { kind: StoreErrorKind::Corruption, .. }, .. } => {
            Some(Cause::DamagedSegment)
        }
        OpenError::NoHighWaterMark { .. } | OpenError::BadHighWaterMark { .. } => {
            Some(Cause::NoHighWaterMark)
        }
        _ => None,
    }
}

// === impl Request ===

impl Request<'_> {
    fn quarantines(&self) -> bool {
        self.config.on_missing_range == OnMissingRange::Quarantine
    }
}

// === impl LaneEnds ===

impl LaneEnds {
    const EMPTY: Self = Self { head: Head { first: FIRST, bytes_before: 0 }, next: FIRST, bytes: 0 };

    fn is_used(&self) -> bool {
        self.next > FIRST
    }
}

// === impl Known ===

impl Known {
    fn read(directory: &Directory) -> Result<Self, OpenError> {
        match Sidecar::open(&directory.high_water()) {
            Ok((sidecar, mark)) => Ok(Self::Mark(sidecar, mark)),
            Err(SidecarError::Missing) => Ok(Self::Missing),
            Err(SidecarError::Invalid) => Ok(Self::Damaged(SidecarError::Invalid.to_string())),
            Err(SidecarError::Io(source)) => {
                let (path, action) = (directory.high_water(), "read the high-water mark");
                Err(OpenError::Io { path, action, source })
            }
        }
    }

    const fn mark(&self) -> Option<&Mark> {
        match self {
            Self::Mark(_, mark) => Some(mark),
            Self::Missing | Self::Damaged(_) => None,
        }
    }

    fn into_sidecar(self) -> Option<Sidecar> {
        match self {
            Self::Mark(sidecar, _) => Some(sidecar),
            Self::Missing | Self::Damaged(_) => None,
        }
    }
}

/// The first position at or above `seq` that is in no hole of `lane`.
pub(super) fn pass_holes(holes: &[LaneHole], lane: Lane, seq: Seq) -> Seq {
    let mut seq = seq;
    while let Some(found) = holes.iter().find(|hole| hole.contains(lane, seq)) {
        seq = found.hole.end;
    }
    seq
}

impl LaneHole {
    pub(super) fn contains(&self, lane: Lane, seq: Seq) -> bool {
        self.lane == lane && self.first <= seq && seq < self.hole.end
    }

    /// Whether nobody needs to know of it once its lane begins at `head`.
    pub(super) fn is_behind(&self, lane: Lane, head: Head) -> bool {
        self.lane == lane && self.hole.end <= head.first
    }

    pub(super) fn forget<'a>(&self) -> Change<'a> {
        Change::Forget { key: MetaKey::Hole(self.lane, self.first) }
    }

    pub(super) fn change<'a>(&self) -> Change<'a> {
        Change::Meta { key: MetaKey::Hole(self.lane, self.first), value: self.hole.encode() }
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

//! The checks of an opening, and the one synced write that ends it.

use std::ops::ControlFlow;

use penstock_proto::{Epoch, Lane, LogId, Seq};

use super::repair::Repaired;
use super::{ConsumerId, FIRST, Identity, Known, LaneEnds, LaneHole, Request, pass_holes, refused};
use crate::outbox::error::OpenError;
use crate::outbox::event::{Event, Speaker};
use crate::outbox::keys::{self, Format, Head, Hole, MetaKey, Progress};
use crate::outbox::segment::{Header, Segment};
use crate::outbox::sidecar::Mark;
use crate::outbox::store::{Change, Store};
use crate::supervise::clock;

/// How many segments at the end of a lane an opening reads and checks.
const CHECKED_SEGMENTS: usize = 64;

/// A store that is open and not yet trusted.
pub(super) struct Opening<'a> {
    pub(super) request: &'a Request<'a>,
    pub(super) store: &'a dyn Store,
    pub(super) known: &'a Known,
    pub(super) holes: Vec<LaneHole>,
}

/// What the new epoch begins with.
pub(super) struct Begun {
    pub(super) mark: Mark,
    pub(super) lanes: [LaneEnds; Lane::COUNT],
    pub(super) holes: Vec<LaneHole>,
}

impl<'a> Opening<'a> {
    pub(super) fn new(
        request: &'a Request<'a>,
        store: &'a dyn Store,
        known: &'a Known,
    ) -> Result<Self, OpenError> {
        let mut opening = Self { request, store, known, holes: Vec::new() };
        opening.check_format()?;
        if let (Some(mark), Some(identity)) = (known.mark(), opening.stored_identity()?)
            && identity.log != mark.log
        {
            let (mark, database) = (mark.log, identity.log);
            return Err(OpenError::OtherLog { directory: opening.root(), mark, database });
        }
        opening.holes = opening.stored_holes()?;
        Ok(opening)
    }

    fn stored_format(&self) -> Result<Option<Format>, OpenError> {
        let Some(value) = self.meta(&MetaKey::Format)? else { return Ok(None) };
        Format::decode(&value).map(Some).ok_or_else(|| self.bad_meta("format"))
    }

    fn check_format(&self) -> Result<(), OpenError> {
        let Some(Format { writer_version, min_reader_version }) = self.stored_format()? else {
            return Ok(());
        };
        let ours = keys::FORMAT.writer_version;
        if min_reader_version > ours {
            return Err(OpenError::Newer {
                directory: self.root(),
                written: writer_version,
                needed: min_reader_version,
                ours,
            });
        }
        Ok(())
    }

    pub(super) fn stored_holes(&self) -> Result<Vec<LaneHole>, OpenError> {
        let metas = self.store.metas().map_err(|source| refused(self.request.directory, source))?;
        let mut holes = Vec::new();
        for (key, value) in metas {
            let MetaKey::Hole(lane, first) = key else { continue };
            let hole = Hole::decode(&value).ok_or_else(|| self.bad_meta("hole"))?;
            holes.push(LaneHole { lane, first, hole });
        }
        Ok(holes)
    }

    // --- where the lanes end ---

    /// Where each lane begins and ends, if nothing that was acknowledged is missing as far as the
    /// last segments, the high-water mark and this process can tell.
    pub(super) fn survey(&self, consumers: &[ConsumerId]) -> Result<[LaneEnds; Lane::COUNT], OpenError> {
        let mut ends = [LaneEnds::EMPTY; Lane::COUNT];
        for (lane, ends) in Lane::ALL.into_iter().zip(&mut ends) {
            *ends = self.lane(lane)?;
        }
        self.raise_to_progress(&mut ends, consumers)?;
        if self.known.mark().is_none() && ends.iter().any(LaneEnds::is_used) {
            return Err(self.no_mark());
        }
        for (lane, ends) in Lane::ALL.into_iter().zip(&ends) {
            let (expected, found) = (self.expected(lane), ends.next);
            if found < expected {
                let (directory, aside) = (self.root(), self.request.directory.aside());
                return Err(OpenError::Missing { directory, lane, expected, found, aside });
            }
        }
        Ok(ends)
    }

    /// Whether the database does not know of the epoch that its mark names. The mark is written after the epoch
    /// was synced, so then a synced write is gone, and with it perhaps entries above the mark.
    pub(super) fn is_behind_its_mark(&self) -> Result<bool, OpenError> {
        let stored = self.stored_identity()?.map_or(Epoch(0), |identity| identity.epoch);
        Ok(self.known.mark().is_some_and(|mark| stored < mark.epoch))
    }

    /// The least next position of a lane that its mark and this process allow.
    pub(super) fn expected(&self, lane: Lane) -> Seq {
        let known = [self.known.mark().map(|mark| &mark.next), self.request.published];
        let known = known.into_iter().flatten().filter_map(|next| next.get(lane.index()));
        known.copied().max().unwrap_or(FIRST)
    }

    /// A lane ends at the earliest where its consumers are.
    pub(super) fn raise_to_progress(
        &self,
        ends: &mut [LaneEnds; Lane::COUNT],
        consumers: &[ConsumerId],
    ) -> Result<(), OpenError> {
        for ConsumerId { name, lane } in consumers {
            let progress = self.stored_progress(*lane, name)?;
            if let (Some(progress), Some(ends)) = (progress, ends.get_mut(lane.index())) {
                ends.next = ends.next.max(progress.low);
                ends.bytes = ends.bytes.max(progress.bytes_before);
            }
        }
        Ok(())
    }

    pub(super) fn head(&self, lane: Lane) -> Result<Head, OpenError> {
        match self.meta(&MetaKey::Head(lane))? {
            None => Ok(LaneEnds::EMPTY.head),
            Some(value) => Head::decode(&value).ok_or_else(|| self.bad_meta("lane head")),
        }
    }

    fn lane(&self, lane: Lane) -> Result<LaneEnds, OpenError> {
        let head = self.head(lane)?;
        let last = self.check_end(lane, head.first)?;
        let (end, bytes) = last.map_or((FIRST, 0), |header| (header.end(), header.bytes_after()));
        let next = pass_holes(&self.holes, lane, end.max(head.first));
        Ok(LaneEnds { head, next, bytes: bytes.max(head.bytes_before) })
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
            if self.holes.iter().any(|hole| hole.contains(lane, first)) {
                return ControlFlow::Continue(());
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
        scanned.map_err(|source| refused(self.request.directory, source))?;
        problem.map_or(Ok(last), Err)
    }

    fn check_segment(
        &self,
        lane: Lane,
        first: Seq,
        stored: &[u8],
        later: Option<&Header>,
    ) -> Result<Header, OpenError> {
        let directory = self.root();
        let segment = Segment::decode_at(lane, first, stored).map_err(|reason| OpenError::Damaged {
            directory: directory.clone(),
            lane,
            first,
            reason,
        })?;
        let (from, aside) = (pass_holes(&self.holes, lane, segment.end()), self.request.directory.aside());
        match later {
            Some(later) if later.first != from => {
                Err(OpenError::Gap { directory, lane, from, to: later.first, aside })
            }
            _ => Ok(*segment.header()),
        }
    }

    // --- who the log is ---

    /// Who the log is; a log that was never used gets its identity here.
    fn identity(&self) -> Result<Identity, OpenError> {
        if let Some(identity) = self.stored_identity()? {
            return Ok(identity);
        }
        let identity = match self.known.mark() {
            None => Identity { log: LogId(rand::random()), epoch: Epoch(0) },
            // The log was lost before any of it reached a table.
            Some(mark) if self.request.quarantines() => Identity { log: mark.log, epoch: mark.epoch },
            Some(_) => return Err(self.bad_meta("identity")),
        };
        self.write(&[
            Change::Meta { key: MetaKey::Format, value: keys::FORMAT.encode() },
            Change::Meta { key: MetaKey::Log, value: keys::encode_log(identity.log) },
        ])?;
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

    // --- the consumers ---

    /// Where each consumer goes on. A new one starts at the oldest entry there is.
    pub(super) fn progress(
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
                // Its lane was trimmed without it: it was not in the configuration for a while, or
                // entries were let go to make room.
                tracing::warn!(consumer = name, %lane, low = progress.low.0, head = head.first.0,
                    "the consumer goes on at the oldest entry there is");
                all.push(Progress { low: progress.low.max(start.low), state: progress.state, ..start });
            } else {
                all.push(progress);
            }
        }
        Ok(all)
    }

    pub(super) fn stored_progress(&self, lane: Lane, consumer: &str) -> Result<Option<Progress>, OpenError> {
        let value = self.meta(&MetaKey::Progress(lane, consumer.to_owned()))?;
        let decode =
            |value: Vec<u8>| Progress::decode(&value).ok_or_else(|| self.bad_meta("consumer progress"));
        value.map(decode).transpose()
    }

    /// Consumers that have progress and are no longer wanted.
    fn removed(
        &self,
        consumers: &[ConsumerId],
        lanes: &[LaneEnds; Lane::COUNT],
    ) -> Result<Vec<(MetaKey, Event)>, OpenError> {
        let metas = self.store.metas().map_err(|source| refused(self.request.directory, source))?;
        let mut removed = Vec::new();
        for (key, value) in metas {
            let MetaKey::Progress(lane, name) = &key else { continue };
            if consumers.iter().any(|consumer| consumer.lane == *lane && consumer.name == *name) {
                continue;
            }
            let low = Progress::decode(&value).map_or(Seq::ZERO, |progress| progress.low);
            let next = lanes.get(lane.index()).map_or(low, |ends| ends.next);
            let backlog = next.0.saturating_sub(low.0);
            tracing::warn!(consumer = name, %lane, low = low.0, backlog,
                "the consumer is no longer configured; its progress is deleted");
            let event =
                Event::ConsumerRemoved { consumer: name.clone(), lane: lane.name(), low: low.0, backlog };
            removed.push((key, event));
        }
        Ok(removed)
    }

    // --- the new epoch ---

    /// Begins a new epoch: what was found goes to the quarantine, and then the epoch, the holes and
    /// what is said about them become durable in one write.
    pub(super) fn begin(
        &self,
        lanes: [LaneEnds; Lane::COUNT],
        repaired: &Repaired,
        consumers: &[ConsumerId],
    ) -> Result<Begun, OpenError> {
        let Identity { log, epoch: last } = self.identity()?;
        let last = last.max(self.known.mark().map_or(Epoch(0), |mark| mark.epoch));
        let epoch = Epoch(last.0.saturating_add(1));
        let now_ms = clock::unix_ms();
        let (forgotten, mut events): (Vec<_>, Vec<_>) = self.removed(consumers, &lanes)?.into_iter().unzip();
        if let Some(incident) = repaired.incident(log, epoch, now_ms) {
            let Request { directory, engine, .. } = self.request;
            let folder = incident.keep(directory, *engine, &repaired.findings.damaged)?;
            events.push(incident.event(&folder));
        }
        let found = repaired.findings.holes(epoch, now_ms);
        let mut lanes = lanes;
        let speaker = Speaker { gateway: &self.request.config.gateway, log, epoch, now_ms };
        let segments = Event::segments(&events, speaker, &mut lanes);

        let mut changes = vec![Change::Meta { key: MetaKey::Epoch, value: keys::encode_epoch(epoch) }];
        if self.stored_format()?.is_some_and(|format| format.writer_version < keys::FORMAT.writer_version) {
            // An upgrade; what is new in the database was created with its opening.
            changes.push(Change::Meta { key: MetaKey::Format, value: keys::FORMAT.encode() });
        }
        changes.extend(forgotten.into_iter().map(|key| Change::Forget { key }));
        let (passed, mut holes): (Vec<_>, Vec<_>) = self
            .holes
            .iter()
            .copied()
            .partition(|hole| hole.is_behind(hole.lane, hole.lane.pick(&lanes).head));
        changes.extend(passed.iter().map(|hole| hole.forget()));
        changes.extend(found.iter().map(|hole| hole.change()));
        changes.extend(self.raised_heads(&lanes)?);
        changes.extend(segments.iter().map(Change::segment));
        self.write(&changes)?;
        holes.extend(found);
        Ok(Begun { mark: Mark { log, epoch, next: lanes.map(|lane| lane.next) }, lanes, holes })
    }

    /// Trims up to the heads that a repair has moved.
    fn raised_heads<'c>(&self, lanes: &[LaneEnds; Lane::COUNT]) -> Result<Vec<Change<'c>>, OpenError> {
        let mut changes = Vec::new();
        for (lane, ends) in Lane::ALL.into_iter().zip(lanes) {
            if self.head(lane)?.first < ends.head.first {
                changes.push(Change::Trim { lane, below: ends.head.first });
                changes.push(Change::Meta { key: MetaKey::Head(lane), value: ends.head.encode() });
            }
        }
        Ok(changes)
    }

    // --- the store ---

    fn write(&self, changes: &[Change<'_>]) -> Result<(), OpenError> {
        self.store.write(changes, true).map_err(|source| refused(self.request.directory, source))
    }

    fn meta(&self, key: &MetaKey) -> Result<Option<Vec<u8>>, OpenError> {
        self.store.meta(key).map_err(|source| refused(self.request.directory, source))
    }

    fn root(&self) -> std::path::PathBuf {
        self.request.directory.root().to_owned()
    }

    pub(super) fn bad_meta(&self, what: &'static str) -> OpenError {
        OpenError::BadMeta { directory: self.root(), what }
    }

    fn no_mark(&self) -> OpenError {
        let (directory, file) = (self.root(), self.request.directory.high_water());
        match self.known {
            Known::Damaged(reason) => OpenError::BadHighWaterMark { directory, file, reason: reason.clone() },
            Known::Missing | Known::Mark(..) => OpenError::NoHighWaterMark { directory, file },
        }
    }
}

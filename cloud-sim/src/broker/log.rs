//! One partition: an append-only file of record batches, its sparse index and its producers.
//!
//! Batches lie in the file exactly as they travel, so that a produced batch is written from the frame it
//! came in and a fetch reads file bytes straight into the answer. Appends are ordered by a mutex that is
//! held while the file is written; reads take it only to learn where the log ends.
//!
//! Nothing is synced: a kill of this process loses nothing, a power cut may. On open the whole file is
//! checked; a half-written last batch is cut off, and anything else wrong is an error.

use std::fs::{File, OpenOptions};
use std::io::{self, BufReader, Read};
use std::ops::ControlFlow;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use parking_lot::Mutex;

use super::index::Index;
use super::producers::{Producers, Verdict};
use crate::error::Error;
use crate::protocol::ErrorCode;
use crate::protocol::batch::{BatchHeader, HEADER_BYTES, assign_offset, checksum_fits};

/// Bytes read at once while walking over batch headers.
const WALK_BYTES: usize = 64 * 1024;
/// No batch is larger than this; a longer one in a file means the file is damaged.
const STORED_BATCH_BYTES_MAX: usize = 16 * 1024 * 1024;

/// A partition of a topic.
#[derive(Debug)]
pub(crate) struct Partition {
    file: File,
    path: PathBuf,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Bytes of whole batches in the file.
    end: u64,
    next_offset: i64,
    index: Index,
    producers: Producers,
}

/// What became of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Appended {
    pub(crate) offset: i64,
    /// It had been appended before, so nothing was written.
    pub(crate) repeat: bool,
}

impl Partition {
    /// Opens or creates the file at `path` and checks all of it.
    pub(super) fn open(path: &Path) -> Result<Self, Error> {
        let failed = |source| Error::Data { path: path.to_owned(), source };
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)
            .map_err(failed)?;
        let length = file.metadata().map_err(failed)?.len();
        let state = scan(&file, length, path)?;
        if state.end < length {
            tracing::warn!(path = %path.display(), bytes = length - state.end, "half-written batch cut off");
            file.set_len(state.end).map_err(failed)?;
        }
        Ok(Self { file, path: path.to_owned(), state: Mutex::new(state) })
    }

    /// Appends a checked batch, or recognises it as a repeat. Writes the offset into `batch`.
    ///
    /// # Errors
    /// The sequence rules of [`Producers::judge`], or a storage error; nothing is kept in either case.
    pub(crate) fn append(&self, batch: &mut [u8], mut header: BatchHeader) -> Result<Appended, ErrorCode> {
        let mut state = self.state.lock();
        if let Verdict::Repeat(offset) = state.producers.judge(&header)? {
            return Ok(Appended { offset, repeat: true });
        }
        header.base_offset = state.next_offset;
        assign_offset(batch, header.base_offset);
        if let Err(error) = self.file.write_all_at(batch, state.end) {
            tracing::error!(path = %self.path.display(), %error, "batch not written");
            // The next append writes over what this one may have left, unless it is shorter.
            if let Err(error) = self.file.set_len(state.end) {
                tracing::error!(path = %self.path.display(), %error, "half-written batch not cut off");
            }
            return Err(ErrorCode::KAFKA_STORAGE_ERROR);
        }
        state.note(&header);
        Ok(Appended { offset: header.base_offset, repeat: false })
    }

    /// Does as if a batch were appended, and forgets it: what no broker may do, for tests that must notice.
    ///
    /// # Errors
    /// The sequence rules of [`Producers::judge`].
    pub(crate) fn swallow(&self, mut header: BatchHeader) -> Result<i64, ErrorCode> {
        let mut state = self.state.lock();
        if let Verdict::Repeat(offset) = state.producers.judge(&header)? {
            return Ok(offset);
        }
        header.base_offset = state.next_offset;
        state.producers.appended(&header);
        Ok(header.base_offset)
    }

    /// The offset the next record will get.
    pub(crate) fn high_watermark(&self) -> i64 {
        self.state.lock().next_offset
    }

    /// Bytes of the log.
    pub(crate) fn bytes(&self) -> u64 {
        self.state.lock().end
    }

    /// Forgets every producer; one that goes on gets `unknown`. Returns how many were forgotten.
    pub(crate) fn forget_producers(&self, unknown: ErrorCode) -> usize {
        self.state.lock().producers.forget_all(unknown)
    }

    /// Appends whole batches to `output`, from the one that holds `offset` on, at most `bytes_max` of them;
    /// with `at_least_one` a first batch larger than that comes all the same. Returns the high watermark.
    ///
    /// # Errors
    /// `OFFSET_OUT_OF_RANGE`, or a storage error; `output` is as before then.
    pub(crate) fn read(
        &self,
        output: &mut Vec<u8>,
        offset: i64,
        bytes_max: usize,
        at_least_one: bool,
    ) -> Result<i64, ErrorCode> {
        let (high, end, start) = {
            let state = self.state.lock();
            (state.next_offset, state.end, state.index.before_offset(offset))
        };
        if offset < 0 || offset > high {
            return Err(ErrorCode::OFFSET_OUT_OF_RANGE);
        }
        if offset == high {
            return Ok(high);
        }
        let before = output.len();
        match self.read_batches(output, (start, end), offset, bytes_max, at_least_one) {
            Ok(()) => Ok(high),
            Err(error) => {
                tracing::error!(path = %self.path.display(), %error, "log not read");
                output.truncate(before);
                Err(ErrorCode::KAFKA_STORAGE_ERROR)
            }
        }
    }

    fn read_batches(
        &self,
        output: &mut Vec<u8>,
        (start, end): (u64, u64),
        offset: i64,
        bytes_max: usize,
        at_least_one: bool,
    ) -> io::Result<()> {
        let mut first = None;
        self.walk(start, end, |header, position| {
            if header.last_offset() < offset {
                return ControlFlow::Continue(());
            }
            first = Some((position, header.bytes));
            ControlFlow::Break(())
        })?;
        let Some((position, first_bytes)) = first else { return Ok(()) };
        if first_bytes > bytes_max && !at_least_one {
            return Ok(());
        }
        let available = usize::try_from(end - position).unwrap_or(usize::MAX);
        let before = output.len();
        output.resize(before + available.min(bytes_max.max(first_bytes)), 0);
        let read = output.get_mut(before..).unwrap_or_default();
        self.file.read_exact_at(read, position)?;
        let whole = whole_batches(read);
        output.truncate(before + whole);
        Ok(())
    }

    /// The first offset of the first batch whose largest timestamp is at least `timestamp`, and that
    /// timestamp. Event time is kept per batch here, so the offset may lie a few records early.
    pub(crate) fn offset_at_time(&self, timestamp: i64) -> Result<Option<(i64, i64)>, ErrorCode> {
        let (end, start) = {
            let state = self.state.lock();
            (state.end, state.index.before_time(timestamp))
        };
        let mut found = None;
        let walked = self.walk(start, end, |header, _position| {
            if header.max_timestamp < timestamp {
                return ControlFlow::Continue(());
            }
            found = Some((header.base_offset, header.max_timestamp));
            ControlFlow::Break(())
        });
        match walked {
            Ok(()) => Ok(found),
            Err(error) => {
                tracing::error!(path = %self.path.display(), %error, "log not read");
                Err(ErrorCode::KAFKA_STORAGE_ERROR)
            }
        }
    }

    /// Visits batch headers from `start` to `end` of the file until `visit` breaks.
    fn walk(
        &self,
        start: u64,
        end: u64,
        mut visit: impl FnMut(&BatchHeader, u64) -> ControlFlow<()>,
    ) -> io::Result<()> {
        let mut window = Vec::new();
        let mut window_at = start;
        let mut position = start;
        while position < end {
            let inside = usize::try_from(position - window_at).unwrap_or(usize::MAX);
            if window.len() < inside.saturating_add(HEADER_BYTES) {
                let bytes = usize::try_from(end - position).unwrap_or(usize::MAX).min(WALK_BYTES);
                window.resize(bytes, 0);
                self.file.read_exact_at(&mut window, position)?;
                window_at = position;
            }
            let inside = usize::try_from(position - window_at).unwrap_or(usize::MAX);
            let header = BatchHeader::decode(window.get(inside..).unwrap_or_default())
                .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
            if visit(&header, position).is_break() {
                return Ok(());
            }
            position += u64::try_from(header.bytes).unwrap_or(u64::MAX);
        }
        Ok(())
    }
}

impl State {
    /// Takes note of a batch that lies at the end of the log.
    fn note(&mut self, header: &BatchHeader) {
        self.index.note(header.base_offset, self.end, header.max_timestamp);
        self.producers.appended(header);
        self.end += u64::try_from(header.bytes).unwrap_or(u64::MAX);
        self.next_offset = header.last_offset() + 1;
    }
}

/// Bytes of the whole batches at the start of `bytes`.
fn whole_batches(bytes: &[u8]) -> usize {
    let mut end = 0;
    while let Ok(header) = BatchHeader::decode(bytes.get(end..).unwrap_or_default()) {
        if end + header.bytes > bytes.len() {
            break;
        }
        end += header.bytes;
    }
    end
}

/// Reads a log from its start, checks every batch, and rebuilds what is known about it.
fn scan(file: &File, length: u64, path: &Path) -> Result<State, Error> {
    let failed = |source| Error::Data { path: path.to_owned(), source };
    let mut reader = BufReader::with_capacity(1024 * 1024, file);
    let mut state = State::default();
    let mut batch = Vec::new();
    loop {
        let left = usize::try_from(length - state.end).unwrap_or(usize::MAX);
        if left < HEADER_BYTES {
            return Ok(state);
        }
        batch.resize(HEADER_BYTES, 0);
        reader.read_exact(&mut batch).map_err(failed)?;
        let corrupt = |reason| Error::Corrupt { path: path.to_owned(), position: state.end, reason };
        let header = BatchHeader::decode(&batch).map_err(|_undecodable| corrupt("no batch header"))?;
        if header.bytes > STORED_BATCH_BYTES_MAX {
            return Err(corrupt("impossible batch length"));
        }
        if header.bytes > left {
            return Ok(state);
        }
        batch.resize(header.bytes, 0);
        reader.read_exact(batch.get_mut(HEADER_BYTES..).unwrap_or_default()).map_err(failed)?;
        if !checksum_fits(&batch) {
            return Err(corrupt("checksum does not fit"));
        }
        if header.base_offset != state.next_offset || header.last_offset_delta < 0 {
            return Err(corrupt("offset does not follow the one before"));
        }
        state.note(&header);
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use proptest::prelude::{ProptestConfig, prop_assert_eq, proptest};
    use tempfile::TempDir;

    use super::{Appended, Partition, whole_batches};
    use crate::error::Error;
    use crate::protocol::ErrorCode;
    use crate::protocol::batch::tests::Sample;
    use crate::protocol::batch::{BatchHeader, check};

    fn append(log: &Partition, sample: Sample) -> Result<Appended, ErrorCode> {
        let mut bytes = sample.encode();
        let header = check(&bytes, usize::MAX).unwrap();
        log.append(&mut bytes, header)
    }

    fn records(records: i32) -> Sample {
        Sample { records, ..Sample::default() }
    }

    fn first_read(log: &Partition, offset: i64, bytes_max: usize) -> (i64, usize) {
        let mut output = Vec::new();
        log.read(&mut output, offset, bytes_max, true).unwrap();
        (BatchHeader::decode(&output).unwrap().base_offset, output.len())
    }

    fn log_in(directory: &Path) -> Result<Partition, Error> {
        Partition::open(&directory.join("0.log"))
    }

    #[test]
    fn offsets_count_records() {
        let directory = TempDir::new().unwrap();
        let log = log_in(directory.path()).unwrap();
        assert_eq!(append(&log, records(3)).unwrap().offset, 0);
        assert_eq!(append(&log, records(2)).unwrap().offset, 3);
        assert_eq!(log.high_watermark(), 5);
    }

    #[test]
    fn a_read_starts_with_the_batch_that_holds_the_offset() {
        let directory = TempDir::new().unwrap();
        let log = log_in(directory.path()).unwrap();
        for _ in 0..3 {
            append(&log, records(4)).unwrap();
        }
        assert_eq!(first_read(&log, 5, 1_000), (4, 162));
        assert_eq!(first_read(&log, 5, 100), (4, 81), "only whole batches");
        assert_eq!(first_read(&log, 5, 1), (4, 81), "the first one always");
        let mut output = Vec::new();
        assert_eq!(log.read(&mut output, 5, 1, false), Ok(12));
        assert_eq!(log.read(&mut output, 12, 1_000, true), Ok(12));
        assert!(output.is_empty());
    }

    #[test]
    fn offsets_outside_the_log_are_refused() {
        let directory = TempDir::new().unwrap();
        let log = log_in(directory.path()).unwrap();
        for offset in [-1, 1] {
            let refused = log.read(&mut Vec::new(), offset, 10, true);
            assert_eq!(refused, Err(ErrorCode::OFFSET_OUT_OF_RANGE));
        }
    }

    #[test]
    fn times_find_the_first_batch_not_before() {
        let directory = TempDir::new().unwrap();
        let log = log_in(directory.path()).unwrap();
        for timestamp in [100, 200, 300] {
            append(&log, Sample { timestamp, ..Sample::default() }).unwrap();
        }
        assert_eq!(log.offset_at_time(150), Ok(Some((1, 200))));
        assert_eq!(log.offset_at_time(0), Ok(Some((0, 100))));
        assert_eq!(log.offset_at_time(301), Ok(None));
    }

    #[test]
    fn a_reopened_log_still_recognises_repeats() {
        let directory = TempDir::new().unwrap();
        let sample = Sample { producer: (5, 0, 0), records: 2, ..Sample::default() };
        append(&log_in(directory.path()).unwrap(), sample).unwrap();
        let log = log_in(directory.path()).unwrap();
        assert_eq!(append(&log, sample), Ok(Appended { offset: 0, repeat: true }));
        assert_eq!(log.high_watermark(), 2);
    }

    #[test]
    fn a_half_written_batch_is_cut_off() {
        let directory = TempDir::new().unwrap();
        let log = log_in(directory.path()).unwrap();
        append(&log, records(1)).unwrap();
        append(&log, records(1)).unwrap();
        drop(log);
        let path = directory.path().join("0.log");
        let bytes = fs::read(&path).unwrap();
        for cut in [1, 40, 80] {
            fs::write(&path, &bytes[..bytes.len() - cut]).unwrap();
            assert_eq!(log_in(directory.path()).unwrap().high_watermark(), 1, "cut by {cut}");
            assert_eq!(fs::metadata(&path).unwrap().len(), 81);
        }
    }

    #[test]
    fn a_damaged_log_is_refused() {
        let directory = TempDir::new().unwrap();
        let log = log_in(directory.path()).unwrap();
        append(&log, records(1)).unwrap();
        append(&log, records(1)).unwrap();
        drop(log);
        let path = directory.path().join("0.log");
        let mut bytes = fs::read(&path).unwrap();
        bytes[70] ^= 1;
        fs::write(&path, &bytes).unwrap();
        assert!(matches!(log_in(directory.path()), Err(Error::Corrupt { position: 0, .. })));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        /// Reading on from where the last read ended gives every batch once, for every limit.
        #[test]
        fn consecutive_reads_give_the_whole_log(
            bodies in proptest::collection::vec((1i32..20, 0usize..60_000), 1..40),
            bytes_max in 1usize..300_000,
        ) {
            let directory = TempDir::new().unwrap();
            let log = log_in(directory.path()).unwrap();
            for (records, body) in bodies {
                append(&log, Sample { records, body, ..Sample::default() }).unwrap();
            }
            let mut offset = 0;
            let mut read = 0;
            while offset < log.high_watermark() {
                let mut output = Vec::new();
                log.read(&mut output, offset, bytes_max, true).unwrap();
                prop_assert_eq!(whole_batches(&output), output.len());
                let mut at = 0;
                while at < output.len() {
                    let header = BatchHeader::decode(&output[at..]).unwrap();
                    prop_assert_eq!(header.base_offset, offset);
                    offset = header.last_offset() + 1;
                    at += header.bytes;
                }
                read += at;
            }
            prop_assert_eq!(u64::try_from(read).unwrap(), log.bytes());
        }
    }
}

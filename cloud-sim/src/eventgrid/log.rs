//! What was accepted, in a file: one line of JSON per event, written before the answer. The end of a killed process
//! leaves whole lines and at most one part of a line, which is cut off at the next start. Nothing is synced: the log
//! survives the process, not the machine.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::request::Event;
use crate::error::Error;

/// Most entries of a page.
pub(super) const PAGE_MAX: usize = 1_000;
/// Most events of the log.
const ENTRIES_MAX: u64 = 2_000_000;
/// Events above this size are counted: the service bills them in parts, and intermediaries need not forward them.
const LARGE_BYTES: usize = 64 * 1024;
const FILE: &str = "eventgrid.jsonl";

/// An event that was accepted.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Entry {
    /// 1, 2, 3 and so on.
    pub(super) number: u64,
    /// Unix time in milliseconds.
    pub(super) at_ms: u64,
    /// The number of the request that it came with, since the start.
    pub(super) request: u64,
    /// The topic of the namespace or of the domain.
    pub(super) topic: Option<String>,
    pub(super) event: Value,
}

/// How often an event came, by source and id.
#[derive(Debug, Clone, Copy)]
struct Seen {
    times: u64,
    content: u64,
    /// Whether it came with other content under the same id.
    differs: bool,
}

/// An event that came more than once.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(super) struct Duplicate {
    source: String,
    id: String,
    times: u64,
    /// Whether it was not the same event each time.
    differs: bool,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub(super) struct Totals {
    /// Events that were accepted, duplicates included.
    pub(super) accepted: u64,
    /// Different pairs of source and id.
    pub(super) distinct: u64,
    /// Events beyond the first of their source and id.
    pub(super) duplicates: u64,
    /// Pairs of source and id that came with different content.
    pub(super) conflicting: u64,
    /// Events above 64 KiB.
    pub(super) large: u64,
}

#[derive(Debug)]
pub(super) struct Log {
    path: PathBuf,
    file: File,
    /// Where each entry starts; one more than entries: the end.
    starts: Vec<u64>,
    seen: HashMap<(String, String), Seen>,
    totals: Totals,
    entries_max: u64,
}

impl Log {
    /// Opens the log below `data` and reads it.
    pub(super) fn open(data: &Path) -> Result<Self, Error> {
        let path = data.join(FILE);
        let failed = |source| Error::Data { path: path.clone(), source };
        let file = OpenOptions::new().read(true).append(true).create(true).open(&path).map_err(failed)?;
        let mut log = Self {
            path: path.clone(),
            file,
            starts: vec![0],
            seen: HashMap::new(),
            totals: Totals::default(),
            entries_max: ENTRIES_MAX,
        };
        log.recover().map_err(failed)?;
        Ok(log)
    }

    fn recover(&mut self) -> io::Result<()> {
        let mut lines = BufReader::new(File::open(&self.path)?);
        let (mut at, mut line) = (0, Vec::new());
        loop {
            line.clear();
            let length = lines.read_until(b'\n', &mut line)?;
            if line.last() != Some(&b'\n') {
                return self.file.set_len(at);
            }
            let entry: Entry = serde_json::from_slice(&line)?;
            at += u64::try_from(length).unwrap_or(u64::MAX);
            self.starts.push(at);
            let bytes = serde_json::to_vec(&entry.event)?.len();
            self.count(&entry.event, bytes);
        }
    }

    fn count(&mut self, event: &Value, bytes: usize) {
        let text = |name: &str| event[name].as_str().unwrap_or_default().to_owned();
        let mut content = DefaultHasher::new();
        event.to_string().hash(&mut content);
        let content = content.finish();
        let key = (text("source"), text("id"));
        let seen = self.seen.entry(key).or_insert(Seen { times: 0, content, differs: false });
        seen.times += 1;
        let totals = &mut self.totals;
        totals.accepted += 1;
        totals.large += u64::from(bytes > LARGE_BYTES);
        if seen.times == 1 {
            totals.distinct += 1;
        } else {
            totals.duplicates += 1;
        }
        if seen.content != content && !seen.differs {
            seen.differs = true;
            totals.conflicting += 1;
        }
    }

    /// Writes the events of a request down, all of them or none; an error of the kind `StorageFull` if they are too many.
    pub(super) fn append(&mut self, request: u64, at_ms: u64, events: Vec<Event>) -> io::Result<()> {
        let count = u64::try_from(events.len()).unwrap_or(u64::MAX);
        if self.totals.accepted.saturating_add(count) > self.entries_max {
            return Err(io::Error::new(io::ErrorKind::StorageFull, "the log of accepted events is full"));
        }
        let mut lines = Vec::new();
        let mut starts = Vec::with_capacity(events.len());
        let end = self.end();
        let mut kept = Vec::with_capacity(events.len());
        for (number, Event { topic, event, bytes, .. }) in (self.totals.accepted + 1..).zip(events) {
            let entry = Entry { number, at_ms, request, topic, event };
            serde_json::to_writer(&mut lines, &entry)?;
            lines.push(b'\n');
            starts.push(end + u64::try_from(lines.len()).unwrap_or(u64::MAX));
            kept.push((entry.event, bytes));
        }
        if let Err(error) = self.file.write_all(&lines) {
            // What is half written would be read as accepted.
            self.file.set_len(end)?;
            return Err(error);
        }
        self.starts.extend(starts);
        kept.iter().for_each(|(event, bytes)| self.count(event, *bytes));
        Ok(())
    }

    fn end(&self) -> u64 {
        self.starts.last().copied().unwrap_or(0)
    }

    /// Entries with a number above `after`, at most a page.
    pub(super) fn page(&self, after: u64) -> io::Result<Vec<Entry>> {
        let from = usize::try_from(after).unwrap_or(usize::MAX).min(self.starts.len() - 1);
        let to = from.saturating_add(PAGE_MAX).min(self.starts.len() - 1);
        let at = |index: usize| self.starts.get(index).copied().unwrap_or_default();
        let length = usize::try_from(at(to) - at(from)).map_err(io::Error::other)?;
        let mut bytes = vec![0; length];
        self.file.read_exact_at(&mut bytes, at(from))?;
        let lines = bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
        lines.map(|line| serde_json::from_slice(line).map_err(io::Error::from)).collect()
    }

    pub(super) fn totals(&self) -> Totals {
        self.totals
    }

    /// What came more than once, in the order of sources and ids; at most `most`.
    pub(super) fn duplicates(&self, most: usize) -> Vec<Duplicate> {
        let mut all: Vec<Duplicate> = self
            .seen
            .iter()
            .filter(|(_, seen)| seen.times > 1)
            .map(|((source, id), seen)| Duplicate {
                source: source.clone(),
                id: id.clone(),
                times: seen.times,
                differs: seen.differs,
            })
            .collect();
        all.sort_by(|one, other| (&one.source, &one.id).cmp(&(&other.source, &other.id)));
        all.truncate(most);
        all
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn event(id: &str, data: u64) -> Event {
        let event = json!({"specversion": "1.0", "id": id, "source": "/gw", "type": "t", "data": data});
        Event { topic: None, source: "/gw".to_owned(), id: id.to_owned(), event, bytes: 100 }
    }

    fn ids(entries: &[Entry]) -> Vec<(u64, &str)> {
        entries.iter().map(|entry| (entry.number, entry.event["id"].as_str().unwrap())).collect()
    }

    #[test]
    fn accepted_events_are_numbered_and_outlive_the_process() {
        let folder = tempfile::tempdir().unwrap();
        let mut log = Log::open(folder.path()).unwrap();
        log.append(1, 5, vec![event("a", 1), event("b", 1)]).unwrap();
        log.append(2, 6, vec![event("a", 1), event("b", 2)]).unwrap();
        let check = |log: &Log| {
            assert_eq!(ids(&log.page(0).unwrap()), [(1, "a"), (2, "b"), (3, "a"), (4, "b")]);
            assert_eq!(ids(&log.page(3).unwrap()), [(4, "b")]);
            assert_eq!(log.page(4).unwrap(), []);
            assert_eq!(log.page(u64::MAX).unwrap(), []);
            let totals = Totals { accepted: 4, distinct: 2, duplicates: 2, conflicting: 1, large: 0 };
            assert_eq!(log.totals(), totals);
            let duplicates = log.duplicates(10);
            assert_eq!(
                duplicates.iter().map(|one| (&*one.id, one.times, one.differs)).collect::<Vec<_>>(),
                [("a", 2, false), ("b", 2, true)]
            );
        };
        check(&log);
        drop(log);
        // A process that was killed in the middle of a line.
        let path = folder.path().join(FILE);
        let mut bytes = std::fs::read(&path).unwrap();
        let whole = bytes.len();
        bytes.extend_from_slice(b"{\"number\":5,\"at_ms\":7,");
        std::fs::write(&path, &bytes).unwrap();
        let mut log = Log::open(folder.path()).unwrap();
        check(&log);
        assert_eq!(std::fs::metadata(&path).unwrap().len(), u64::try_from(whole).unwrap());
        log.append(1, 8, vec![event("c", 1)]).unwrap();
        assert_eq!(ids(&log.page(4).unwrap()), [(5, "c")]);
    }

    #[test]
    fn a_full_log_takes_nothing_more() {
        let folder = tempfile::tempdir().unwrap();
        let mut log = Log::open(folder.path()).unwrap();
        assert_eq!(log.entries_max, ENTRIES_MAX);
        log.entries_max = 3;
        log.append(1, 5, vec![event("a", 1), event("b", 1)]).unwrap();
        let error = log.append(2, 5, vec![event("c", 1), event("d", 1)]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
        log.append(3, 5, vec![event("c", 1)]).unwrap();
        assert_eq!(ids(&log.page(0).unwrap()), [(1, "a"), (2, "b"), (3, "c")]);
    }

    #[test]
    fn a_page_is_bounded() {
        let folder = tempfile::tempdir().unwrap();
        let mut log = Log::open(folder.path()).unwrap();
        let events = (0..PAGE_MAX + 1).map(|id| event(&id.to_string(), 0)).collect();
        log.append(1, 5, events).unwrap();
        assert_eq!(log.page(0).unwrap().len(), PAGE_MAX);
        assert_eq!(log.page(u64::try_from(PAGE_MAX).unwrap()).unwrap().len(), 1);
    }
}

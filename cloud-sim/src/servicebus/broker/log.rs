//! What happened to which message: a bounded ring whose entries are numbered, so that a reader notices a gap.

use std::collections::VecDeque;
use std::sync::Arc;

use serde::{Serialize, Serializer};

use super::message::LinkId;

/// Entries that are kept.
const ENTRIES_MAX: usize = 100_000;
/// Entries of one answer.
const ANSWER_MAX: usize = 10_000;

/// What happened to a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Event {
    /// Given to a link, locked.
    Delivered,
    Completed,
    Abandoned,
    /// Unlocked by the client.
    Released,
    Deferred,
    /// By the client or by the broker; `reason` says why.
    DeadLettered,
    /// Its time to live was over, and it is gone.
    Expired,
    /// Back because its lock expired; counts as a failed delivery.
    LockExpired,
    /// Back because its link or connection ended.
    Returned,
}

/// One entry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Entry {
    /// 1, 2, 3 and so on.
    pub(crate) id: u64,
    /// Unix time in milliseconds.
    pub(crate) at_ms: u64,
    pub(crate) event: Event,
    #[serde(serialize_with = "as_text")]
    pub(crate) entity: Arc<str>,
    /// Who held it; `None` for what the broker did on its own, or what came through `$management`.
    pub(crate) link: Option<LinkId>,
    pub(crate) session: Option<String>,
    pub(crate) sequence: i64,
    pub(crate) message_id: Option<String>,
    /// After the event.
    pub(crate) delivery_count: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) reason: Option<String>,
}

fn as_text<S: Serializer>(text: &Arc<str>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(text)
}

/// Some entries.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Page {
    /// The oldest entry that is still kept, or the one that comes next if there is none.
    pub(crate) first: u64,
    /// What the next entry will be numbered.
    pub(crate) next: u64,
    pub(crate) entries: Vec<Entry>,
}

/// The ring.
#[derive(Debug, Default)]
pub(super) struct Log {
    entries: VecDeque<Entry>,
    written: u64,
}

impl Log {
    /// Adds an entry and numbers it.
    pub(super) fn push(&mut self, mut entry: Entry) {
        self.written += 1;
        entry.id = self.written;
        if self.entries.len() == ENTRIES_MAX {
            self.entries.pop_front();
        }
        self.entries.push_back(entry);
    }

    /// Entries with a number above `after`, a bounded number of them.
    pub(super) fn after(&self, after: u64) -> Page {
        let first = self.entries.front().map_or(self.written + 1, |entry| entry.id);
        let skip = usize::try_from(after.saturating_add(1).saturating_sub(first)).unwrap_or(usize::MAX);
        let entries = self.entries.iter().skip(skip).take(ANSWER_MAX).cloned().collect();
        Page { first, next: self.written + 1, entries }
    }
}

#[cfg(test)]
mod tests {
    use super::{ENTRIES_MAX, Entry, Event, Log};

    fn entry() -> Entry {
        Entry {
            id: 0,
            at_ms: 0,
            event: Event::Completed,
            entity: "q".into(),
            link: None,
            session: None,
            sequence: 1,
            message_id: None,
            delivery_count: 0,
            reason: None,
        }
    }

    #[test]
    fn a_reader_that_was_too_slow_notices_the_gap() {
        let mut log = Log::default();
        assert_eq!((log.after(0).first, log.after(0).next), (1, 1));
        for _ in 0..ENTRIES_MAX + 5 {
            log.push(entry());
        }
        let page = log.after(2);
        assert_eq!((page.first, page.entries[0].id), (6, 6), "3 to 5 are gone");
        let page = log.after(page.next - 2);
        let ids: Vec<u64> = page.entries.iter().map(|entry| entry.id).collect();
        assert_eq!(ids, [page.next - 1]);
        assert!(log.after(u64::MAX - 1).entries.is_empty());
    }
}

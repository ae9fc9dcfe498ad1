//! Which letters of one dead-letter queue were told of: a machine without I/O and without a clock.
//!
//! A *look* goes through the whole queue page by page, from the lowest sequence number to the end, and then begins
//! again: a letter keeps the number it had as a message, so that an old one can appear below newer ones at any time, and
//! no mark to go on from would be right. What was told of is remembered for as long as the letter is there. It is
//! forgotten when it was missing in several whole looks, so that a page on which it was left out makes no repeat.

use std::collections::{BTreeMap, BTreeSet};

use super::mark::Mark;

/// What is known of one dead-letter queue.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    /// Letters that were told of, and the number of the look that saw them last.
    told: BTreeMap<Mark, u64>,
    /// How many whole looks there were.
    looks: u64,
    /// Where the next page begins.
    from: i64,
    /// A page of this look did not say where the next one begins.
    lost: bool,
    /// What this look found so far.
    found: Found,
    sizes: PageSize,
}

/// What a look found.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Found {
    /// Letters that were told of, now or before.
    pub(super) told: u64,
    /// Letters that a gateway gave up, which has told so.
    pub(super) own: u64,
    /// Letters whose command is still in hand here.
    pub(super) open: u64,
    /// Letters not told of for want of room to remember them.
    pub(super) held: u64,
    /// Messages that are not AMQP.
    pub(super) unreadable: u64,
}

/// A letter of a page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) mark: Mark,
    pub(super) sequence: i64,
    /// A gateway gave it up, and has told so.
    pub(super) own: bool,
}

/// What follows from a page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Turn {
    /// These letters, by their place in the page, are new. Then the next page is due.
    Page(Vec<usize>),
    /// The look is over.
    Over {
        /// Whether it saw the whole queue.
        whole: bool,
        /// What it found.
        found: Found,
        /// What is forgotten, and to be deleted.
        gone: Vec<Mark>,
    },
}

/// How many messages a page has, by how large they were.
#[derive(Debug)]
struct PageSize(u32);

/// In so many whole looks one after the other a letter is missing before it is forgotten.
const ABSENT_LOOKS: u64 = 3;
/// Fewest and most messages of a page.
const PAGE: (u32, u32) = (8, 100);
/// A page with more bytes than this is followed by a smaller one.
const PAGE_BYTES: usize = 4 << 20;

// === impl Ledger ===

impl Ledger {
    /// With what the store says was told of.
    pub(super) fn new(told: impl IntoIterator<Item = Mark>) -> Self {
        Self { told: told.into_iter().map(|mark| (mark, 0)).collect(), ..Self::default() }
    }

    /// How many letters it remembers.
    pub(super) fn len(&self) -> usize {
        self.told.len()
    }

    /// Which page is due: from which sequence number, and at most how many messages.
    pub(super) const fn due(&self) -> (i64, u32) {
        (self.from, self.sizes.0)
    }

    /// Takes the page that was due. `unreadable` messages and `bytes` of bodies were on it too.
    pub(super) fn page(&mut self, page: &[Seen], unreadable: u64, bytes: usize) -> Turn {
        self.sizes.learn(bytes);
        self.found.unreadable += unreadable;
        let last = page.iter().map(|seen| seen.sequence).max();
        let next = last.filter(|last| *last >= self.from).and_then(|last| last.checked_add(1));
        let mut new = Vec::new();
        let mut once = BTreeSet::new();
        for (place, seen) in page.iter().enumerate() {
            if !once.insert(seen.mark) {
                continue;
            }
            if seen.own {
                self.found.own += 1;
            } else if let Some(look) = self.told.get_mut(&seen.mark) {
                *look = self.looks + 1;
                self.found.told += 1;
            } else {
                new.push(place);
            }
        }
        match next {
            Some(next) => self.from = next,
            // Nothing more is there; or what is there says no number to go on from.
            None if new.is_empty() => return self.over(page.is_empty() && unreadable == 0),
            None => (self.from, self.lost) = (i64::MAX, true),
        }
        Turn::Page(new)
    }

    /// It was told of, or need not be, and that is durable.
    pub(super) fn told(&mut self, mark: Mark) {
        self.told.insert(mark, self.looks + 1);
        self.found.told += 1;
    }

    /// It was not told of, since its command is still in hand here.
    pub(super) const fn open(&mut self) {
        self.found.open += 1;
    }

    /// It was not told of, for want of room.
    pub(super) const fn held(&mut self) {
        self.found.held += 1;
    }

    fn over(&mut self, to_the_end: bool) -> Turn {
        self.from = 0;
        let whole = to_the_end && !std::mem::take(&mut self.lost);
        self.looks += u64::from(whole);
        let oldest = self.looks.checked_sub(ABSENT_LOOKS).filter(|_| whole);
        let gone = self.told.extract_if(.., |_, look| oldest.is_some_and(|oldest| *look <= oldest));
        let gone = gone.map(|(mark, _)| mark).collect();
        Turn::Over { whole, found: std::mem::take(&mut self.found), gone }
    }
}

// === impl Found ===

impl Found {
    pub(super) const fn add(&mut self, other: &Self) {
        self.told += other.told;
        self.own += other.own;
        self.open += other.open;
        self.held += other.held;
        self.unreadable += other.unreadable;
    }
}

// === impl PageSize ===

impl Default for PageSize {
    fn default() -> Self {
        Self(PAGE.0)
    }
}

impl PageSize {
    fn learn(&mut self, bytes: usize) {
        let (least, most) = PAGE;
        if bytes > PAGE_BYTES {
            self.0 = (self.0 / 2).max(least);
        } else if bytes < PAGE_BYTES / 4 {
            self.0 = (self.0 * 2).min(most);
        }
    }
}

//! Mutes: alerts that are recorded and not sent, at certain times.

use jiff::Timestamp;

use super::window::Window;

/// Alerts of some kind are not sent at some times. Always, if neither windows nor limits are given.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Mute {
    pub(super) tenant: Vec<Pattern>,
    pub(super) site: Vec<Pattern>,
    pub(super) class: Vec<Pattern>,
    pub(super) device: Vec<Pattern>,
    pub(super) rule: Vec<Pattern>,
    /// In one of them, if there are any.
    pub(super) windows: Vec<Window>,
    /// Not before, in Unix milliseconds.
    pub(super) from_ms: Option<u64>,
    /// Before this, in Unix milliseconds.
    pub(super) until_ms: Option<u64>,
}

/// A text, or the beginning of one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Pattern {
    Exactly(Box<str>),
    Begins(Box<str>),
}

/// What a mute looks at.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Matched<'a> {
    pub(crate) tenant: Option<&'a str>,
    pub(crate) site: Option<&'a str>,
    pub(crate) class: Option<&'a str>,
    pub(crate) device: &'a str,
    pub(crate) rule: &'a str,
}

/// Which mutes of a policy are in force, looked up as rarely as can be.
#[derive(Debug, Default)]
pub(crate) struct Mutes(Vec<State>);

#[derive(Debug, Clone, Copy, Default)]
struct State {
    active: bool,
    /// Until when that is so at least.
    until_ms: u64,
}

/// A mute is looked at again after this time at the latest, in milliseconds.
const LOOK_MS: u64 = 6 * 3_600_000;

// === impl Pattern ===

impl Pattern {
    pub(super) fn new(text: &str) -> Self {
        match text.strip_suffix('*') {
            Some(begin) => Self::Begins(begin.into()),
            None => Self::Exactly(text.into()),
        }
    }

    fn matches(&self, text: &str) -> bool {
        match self {
            Self::Exactly(whole) => **whole == *text,
            Self::Begins(begin) => text.starts_with(&**begin),
        }
    }
}

// === impl Mute ===

impl Mute {
    fn matches(&self, what: Matched<'_>) -> bool {
        let one_of = |patterns: &[Pattern], text: Option<&str>| {
            let found = |text: &str| patterns.iter().any(|pattern| pattern.matches(text));
            patterns.is_empty() || text.is_some_and(found)
        };
        one_of(&self.rule, Some(what.rule))
            && one_of(&self.tenant, what.tenant)
            && one_of(&self.site, what.site)
            && one_of(&self.class, what.class)
            && one_of(&self.device, Some(what.device))
    }

    /// Whether it is in force, and until when nothing changes in that.
    fn at(&self, now_ms: u64) -> State {
        let mut until_ms = now_ms.saturating_add(LOOK_MS);
        let mut passes = |limit: u64| {
            if limit > now_ms {
                until_ms = until_ms.min(limit);
            }
            limit <= now_ms
        };
        let begun = self.from_ms.is_none_or(&mut passes);
        let ended = self.until_ms.is_some_and(&mut passes);
        let moment = i64::try_from(now_ms).ok().and_then(|ms| Timestamp::from_millisecond(ms).ok());
        let mut inside = self.windows.is_empty();
        for window in self.windows.iter().filter(|_| begun && !ended) {
            for (begin, end) in moment.into_iter().flat_map(|now| window.around(now)) {
                inside |= passes(begin) & !passes(end);
            }
        }
        State { active: begun && !ended && inside, until_ms }
    }
}

// === impl Mutes ===

impl Mutes {
    /// Whether one of these mutes is about this alert and in force.
    pub(crate) fn cover(&mut self, mutes: &[Mute], what: Matched<'_>, now_ms: u64) -> bool {
        self.look(mutes, now_ms);
        mutes.iter().zip(&self.0).any(|(mute, state)| state.active && mute.matches(what))
    }

    /// When the first of those in force may end.
    pub(crate) fn end_ms(&mut self, mutes: &[Mute], now_ms: u64) -> u64 {
        self.look(mutes, now_ms);
        let active = self.0.iter().filter(|state| state.active);
        active.map(|state| state.until_ms).min().unwrap_or(u64::MAX)
    }

    fn look(&mut self, mutes: &[Mute], now_ms: u64) {
        self.0.resize(mutes.len(), State::default());
        for (mute, state) in mutes.iter().zip(&mut self.0) {
            if state.until_ms <= now_ms {
                *state = mute.at(now_ms);
            }
        }
    }
}

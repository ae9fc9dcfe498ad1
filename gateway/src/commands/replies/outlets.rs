//! The outlets of all entities: at most so many, and which of them are left alone for now.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;

use super::failure::{Failed, Failure};
use super::outlet::{self, Job};
use super::post::{Post, PostLink};
use crate::supervise::{Supervisor, TaskKind};

/// Where jobs of an entity go.
pub(super) type Jobs<P> = mpsc::Sender<Job<<<P as Post>::Link as PostLink>::Taking>>;

/// Outlets by entity.
pub(super) struct Outlets<P: Post> {
    of: HashMap<Box<str>, Outlet<P>>,
    /// Counts uses, to tell which is the oldest.
    uses: u64,
    /// Nothing is sent any more.
    closed: bool,
    /// What was logged last, and when.
    logged: HashMap<&'static str, Logged>,
}

struct Outlet<P: Post> {
    jobs: Option<Jobs<P>>,
    used: u64,
    /// Left alone until then, because of this.
    paused: Option<(Instant, Failed)>,
}

struct Logged {
    entity: String,
    at: Instant,
}

/// Most entities that are known at once.
pub(super) const ENTITIES_MAX: usize = 64;
/// Most jobs that wait for their turn.
const JOBS_MAX: usize = 64;
/// The same trouble is logged again after this long.
const LOG_INTERVAL: Duration = Duration::from_secs(60);
/// Another entity's trouble of the same kind is logged after this long: their names are others' texts.
const LOG_INTERVAL_OTHER: Duration = Duration::from_secs(5);

impl<P: Post> Default for Outlets<P> {
    fn default() -> Self {
        Self { of: HashMap::new(), uses: 0, closed: false, logged: HashMap::new() }
    }
}

impl<P: Post> Outlets<P> {
    /// Where jobs for `entity` go; starts its task if there is none. `None` after the end.
    pub(super) fn jobs(&mut self, entity: &str, post: &P, supervisor: &Supervisor) -> Option<Jobs<P>> {
        if self.closed {
            return None;
        }
        let outlet = self.outlet(entity);
        if let Some(jobs) = outlet.jobs.as_ref().filter(|jobs| !jobs.is_closed()) {
            return Some(jobs.clone());
        }
        let (jobs, waiting) = mpsc::channel(JOBS_MAX);
        outlet.jobs = Some(jobs.clone());
        supervisor.spawn(TaskKind::CommandLink, outlet::run(post.clone(), entity.into(), waiting));
        Some(jobs)
    }

    /// Why nothing is sent to `entity` now, if that is so.
    pub(super) fn paused(&self, entity: &str, now: Instant) -> Option<Failed> {
        let (until, failed) = self.of.get(entity)?.paused.as_ref()?;
        (*until > now).then(|| failed.clone())
    }

    /// Nothing is sent to `entity` until then.
    pub(super) fn pause(&mut self, entity: &str, until: Instant, why: Failed) {
        self.outlet(entity).paused = Some((until, why));
    }

    /// Whether to log this.
    pub(super) fn is_news(&mut self, entity: &str, failure: Failure, now: Instant) -> bool {
        let interval = match self.logged.get(failure.name()) {
            None => Duration::ZERO,
            Some(logged) if logged.entity == entity => LOG_INTERVAL,
            Some(_) => LOG_INTERVAL_OTHER,
        };
        let last = self.logged.get(failure.name()).map(|logged| logged.at);
        let news = last.is_none_or(|at| now.saturating_duration_since(at) >= interval);
        if news {
            self.logged.insert(failure.name(), Logged { entity: entity.to_owned(), at: now });
        }
        news
    }

    /// Ends every outlet: what is given already is still sent.
    pub(super) fn close(&mut self) {
        self.closed = true;
        self.of.clear();
    }

    /// How many entities are known.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.of.len()
    }

    fn outlet(&mut self, entity: &str) -> &mut Outlet<P> {
        self.uses += 1;
        let used = self.uses;
        if !self.of.contains_key(entity) && self.of.len() >= ENTITIES_MAX {
            let oldest = self.of.iter().min_by_key(|(_, outlet)| outlet.used).map(|(name, _)| name.clone());
            oldest.and_then(|oldest| self.of.remove(&oldest));
        }
        let fresh = || Outlet { jobs: None, used, paused: None };
        let outlet = self.of.entry(entity.into()).or_insert_with(fresh);
        outlet.used = used;
        outlet
    }
}

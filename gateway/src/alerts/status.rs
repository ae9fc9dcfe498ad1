//! The stage as others see it while it runs.

use std::sync::Arc;

use parking_lot::Mutex;
use penstock_proto::Seq;

use super::metrics;
use super::publish;
use super::rules::{Rules, RulesError};
use super::{event_grid, service_bus};
use crate::supervise;

/// A view of the alerts for operators, and the way to give them other rules. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Handle {
    status: Arc<Mutex<Status>>,
    wanted: Arc<Mutex<Option<Rules>>>,
    sinks: Arc<[event_grid::Handle]>,
    posts: Arc<[service_bus::Handle]>,
    reactions: Option<publish::Handle>,
}

/// The alerts at one moment; at most about a second old while the gateway runs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Status {
    /// Rules in force.
    pub rules: usize,
    /// What is wrong with the rules that are not, one line each.
    pub rule_errors: Vec<String>,
    /// Series that are watched.
    pub series: usize,
    /// Alerts that are open.
    pub open: usize,
    /// Telemetry messages not looked at yet.
    pub lag_messages: u64,
    /// Telemetry messages that nobody looked at, since the start.
    pub skipped: u64,
    /// The first telemetry message that was not looked at.
    pub position: Seq,
    /// Whether what came of those before it is durable too.
    pub settled: bool,
}

/// Most errors of rules that the status lists.
const ERRORS_MAX: usize = 20;

impl Handle {
    pub(super) fn new(
        rules: &Rules,
        sinks: Vec<event_grid::Handle>,
        posts: Vec<service_bus::Handle>,
        reactions: Option<publish::Handle>,
    ) -> Self {
        let (sinks, posts) = (sinks.into(), posts.into());
        let handle = Self { status: Arc::default(), wanted: Arc::default(), sinks, posts, reactions };
        handle.note_rules(rules);
        handle
    }

    /// The alerts now.
    #[must_use]
    pub fn status(&self) -> Status {
        self.status.lock().clone()
    }

    /// Where alerts are sent, and how that goes.
    #[must_use]
    pub(crate) fn sinks(&self) -> Vec<event_grid::Status> {
        self.sinks.iter().map(event_grid::Handle::status).collect()
    }

    /// Where commands of rules are sent, and how that goes.
    #[must_use]
    pub(crate) fn posts(&self) -> Vec<service_bus::Status> {
        self.posts.iter().map(service_bus::Handle::status).collect()
    }

    /// How reactions are published; none if they are not.
    #[must_use]
    pub(crate) fn reactions(&self) -> Option<publish::Status> {
        self.reactions.as_ref().map(publish::Handle::status)
    }

    /// Puts other rules in force, soon; an error changes nothing and is logged. What has been seen is kept for rules that
    /// mean the same as before.
    pub fn reload(&self, rules: Result<Rules, RulesError>) {
        match rules {
            Ok(rules) => *self.wanted.lock() = Some(rules),
            Err(error) => {
                metrics::refused();
                tracing::warn!(error = supervise::chain(&error), "the rules cannot be used; the old stay");
            }
        }
    }

    pub(super) fn take_wanted(&self) -> Option<Rules> {
        self.wanted.lock().take()
    }

    pub(super) fn note_rules(&self, rules: &Rules) {
        let mut status = self.status.lock();
        status.rules = rules.len();
        status.rule_errors = rules.errors().take(ERRORS_MAX).collect();
    }

    pub(super) fn note(&self, change: impl FnOnce(&mut Status)) {
        change(&mut self.status.lock());
    }
}

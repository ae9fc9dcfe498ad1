//! What the lifecycle knows of the rules: by their place, as edges name them, and by their id, as its table does.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::ident::shorten;
use crate::alerts::reaction::Action;

/// Longest id of a rule that events and rows hold whole, in bytes.
const ID_BYTES_MAX: usize = 256;

/// What alerts say about their rule, and what silences it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct RuleFacts {
    pub(crate) id: Box<str>,
    pub(crate) version: u64,
    /// The fingerprint of what decides whether it holds: an open alert of a rule that means something else now is over.
    pub(crate) meaning: u64,
    pub(crate) runbook: Option<Box<str>>,
    pub(crate) labels: Vec<(Box<str>, Box<str>)>,
    /// Ids of rules: while one of them is open for the same device, or for the gateway, alerts of this rule are not sent.
    pub(crate) inhibited_by: Vec<Box<str>>,
    /// What the gateway does itself.
    pub(crate) actions: Arc<[Action]>,
}

/// All rules, in their places.
#[derive(Debug, Clone, Default)]
pub(crate) struct Rulebook {
    rules: Vec<RuleFacts>,
    places: HashMap<Box<str>, usize>,
    inhibiting: HashSet<Box<str>>,
}

impl Rulebook {
    /// The rules in their places, as edges name them.
    pub(crate) fn new(mut rules: Vec<RuleFacts>) -> Self {
        for rule in &mut rules {
            for id in std::iter::once(&mut rule.id).chain(&mut rule.inhibited_by) {
                if id.len() > ID_BYTES_MAX {
                    *id = shorten(id, ID_BYTES_MAX).into();
                }
            }
        }
        let places = rules.iter().enumerate().map(|(place, rule)| (rule.id.clone(), place)).collect();
        let inhibiting = rules.iter().flat_map(|rule| rule.inhibited_by.iter().cloned()).collect();
        Self { rules, places, inhibiting }
    }

    pub(super) fn at(&self, place: u16) -> Option<&RuleFacts> {
        self.rules.get(usize::from(place))
    }

    pub(super) fn find(&self, id: &str) -> Option<&RuleFacts> {
        self.rules.get(*self.places.get(id)?)
    }

    pub(super) fn place(&self, id: &str) -> Option<u16> {
        u16::try_from(*self.places.get(id)?).ok()
    }

    /// Whether alerts of this rule silence others.
    pub(super) fn inhibits(&self, id: &str) -> bool {
        self.inhibiting.contains(id)
    }
}

//! Alerts that wait for a token, in the order in which they go out.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::ident::Digest;

/// Those that wait: critical ones in one line, the others in one for each tenant, oldest first.
#[derive(Debug, Default)]
pub(super) struct Held {
    critical: BTreeSet<(u64, Digest)>,
    tenants: BTreeMap<Option<Arc<str>>, BTreeSet<(u64, Digest)>>,
    /// In all lines of tenants.
    plain: usize,
}

impl Held {
    pub(super) fn insert(&mut self, critical: bool, tenant: Option<&Arc<str>>, place: (u64, Digest)) {
        if critical {
            self.critical.insert(place);
        } else if self.tenants.entry(tenant.cloned()).or_default().insert(place) {
            self.plain += 1;
        }
    }

    pub(super) fn remove(&mut self, critical: bool, tenant: Option<&Arc<str>>, place: (u64, Digest)) {
        if critical {
            self.critical.remove(&place);
            return;
        }
        let tenant = tenant.cloned();
        let Some(line) = self.tenants.get_mut(&tenant) else { return };
        if line.remove(&place) {
            self.plain -= 1;
        }
        if line.is_empty() {
            self.tenants.remove(&tenant);
        }
    }

    /// Whether nobody waits in the line that such an alert would join.
    pub(super) fn is_free(&self, critical: bool, tenant: Option<&Arc<str>>) -> bool {
        if critical { self.critical.is_empty() } else { !self.tenants.contains_key(&tenant.cloned()) }
    }

    pub(super) fn first_critical(&self) -> Option<Digest> {
        self.critical.first().map(|(_, subject)| *subject)
    }

    /// The tenants that have alerts waiting, and their oldest.
    pub(super) fn firsts(&self) -> impl Iterator<Item = (Option<&Arc<str>>, (u64, Digest))> {
        let first = |(tenant, line): (_, &BTreeSet<_>)| Some((Option::as_ref(tenant), *line.first()?));
        self.tenants.iter().filter_map(first)
    }

    /// How many wait that are not critical.
    pub(super) const fn plain(&self) -> usize {
        self.plain
    }

    pub(super) fn len(&self) -> usize {
        self.plain + self.critical.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.plain == 0 && self.critical.is_empty()
    }
}

//! Which sessions a publish goes to: a copy-on-write trie of topic filters.
//!
//! Publishers look at a snapshot without a lock; a subscription copies the nodes on its way from the
//! root and puts a new root in place. What is copied does not grow with the devices beside it (see
//! [`sorted`]), nor does what a publish walks through. A generation counts the changes: a connection
//! that found nobody for a topic remembers that with the generation, and asks again only when it has
//! changed.
//!
//! Filters and names are valid (`codec::topic`). Wildcards in the first level do not match names that
//! begin with `$` ([MQTT-4.7.2-1]).

mod sorted;
#[cfg(test)]
mod tests;

use std::hash::{BuildHasher as _, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use arc_swap::ArcSwap;
use parking_lot::Mutex;

use self::sorted::Sorted;

/// How a subscription wants its deliveries.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Options {
    /// The subscription identifier; 0 if there is none.
    pub(super) id: u32,
    /// Most that a delivery's quality of service may be.
    pub(super) qos: u8,
    /// What the session itself publishes is left out.
    pub(super) no_local: bool,
    /// Deliveries keep the retain flag of the publish.
    pub(super) retain_as_published: bool,
    /// Access rules are asked for every delivery.
    pub(super) guarded: bool,
}

/// The subscriptions of all sessions; `S` is a session.
#[derive(Debug)]
pub(super) struct Router<S> {
    root: ArcSwap<Node<S>>,
    generation: AtomicU64,
    writer: Mutex<()>,
    hasher: RandomState,
}

/// A subscription that a publish matches.
#[derive(Debug)]
pub(super) struct Match<S> {
    /// The session's number.
    pub(super) number: u64,
    pub(super) session: Arc<S>,
    pub(super) options: Options,
}

/// What a connection remembers about topics that nobody subscribes to.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Quiet {
    /// Generation and keyed hash of a topic, the newest first.
    known: [(u64, u64); 2],
}

#[derive(Debug)]
struct Node<S> {
    /// Subscriptions that end in this level.
    here: Option<Arc<Subscribers<S>>>,
    /// Subscriptions that end in `#` below it.
    below: Option<Arc<Subscribers<S>>>,
    /// What follows `+`.
    any: Option<Arc<Node<S>>>,
    levels: Sorted<Arc<str>, Arc<Node<S>>>,
}

#[derive(Debug)]
struct Subscribers<S> {
    each: Sorted<u64, (Arc<S>, Options)>,
    groups: Sorted<Arc<str>, Arc<Group<S>>>,
}

/// The subscribers of a shared subscription, each publish going to one of them.
#[derive(Debug)]
struct Group<S> {
    members: Sorted<u64, (Arc<S>, Options)>,
    /// Counts the publishes, for taking turns.
    turn: Arc<AtomicUsize>,
}

// === impl Router ===

impl<S> Router<S> {
    pub(super) fn new() -> Self {
        Self {
            root: ArcSwap::from_pointee(Node::default()),
            generation: AtomicU64::new(1),
            writer: Mutex::new(()),
            hasher: RandomState::new(),
        }
    }

    /// Subscribes a session, in a group if the subscription is shared; the same again replaces the
    /// options. Publishes that begin afterwards see it. Returns whether it is new.
    pub(super) fn subscribe(
        &self,
        (group, filter): (Option<&str>, &str),
        (number, session): (u64, &Arc<S>),
        options: Options,
    ) -> bool {
        self.change(filter, &mut |subscribers| {
            let value = (Arc::clone(session), options);
            let Some(group) = group else { return subscribers.each.insert(number, value) };
            let mut shared =
                subscribers.groups.get(group).map_or_else(Group::default, |group| (**group).clone());
            let new = shared.members.insert(number, value);
            subscribers.groups.insert(group.into(), Arc::new(shared));
            new
        })
    }

    /// Ends a subscription; false if there was none.
    pub(super) fn unsubscribe(&self, (group, filter): (Option<&str>, &str), number: u64) -> bool {
        self.change(filter, &mut |subscribers| {
            let Some(group) = group else { return subscribers.each.remove(&number).is_some() };
            let Some(known) = subscribers.groups.get(group) else { return false };
            let mut shared = (**known).clone();
            let found = shared.members.remove(&number).is_some();
            if shared.members.is_empty() {
                subscribers.groups.remove(group);
            } else {
                subscribers.groups.insert(group.into(), Arc::new(shared));
            }
            found
        })
    }

    fn change(&self, filter: &str, change: &mut dyn FnMut(&mut Subscribers<S>) -> bool) -> bool {
        let _one = self.writer.lock();
        let root = self.root.load_full();
        let mut result = false;
        let new = root.changed(Some(filter), &mut |subscribers| result = change(subscribers));
        self.root.store(new.unwrap_or_default());
        // After the tree: who sees the new number sees the new tree.
        self.generation.fetch_add(1, Ordering::Release);
        result
    }

    /// Whether `topic` is known to have no subscriber.
    #[inline]
    pub(super) fn is_quiet(&self, quiet: &mut Quiet, topic: &str) -> bool {
        let generation = self.generation.load(Ordering::Acquire);
        if generation == 1 {
            return true;
        }
        let entry = (generation, self.hasher.hash_one(topic));
        if quiet.known.contains(&entry) {
            return true;
        }
        let found = self.root.load().is_matched(topic);
        if !found {
            quiet.known = [entry, quiet.known[0]];
        }
        !found
    }

    /// Appends what `topic` matches to `found`, of each group one: the next in turn that `prefer`
    /// says yes to, else the next in turn. A session is in it once per matching subscription, sorted
    /// by number.
    pub(super) fn matches(&self, topic: &str, prefer: impl Fn(&S) -> bool, found: &mut Vec<Match<S>>) {
        let before = found.len();
        let mut sources = 0;
        self.root.load().visit(Some(topic), topic.starts_with('$'), &mut |subscribers| {
            sources += 1 + subscribers.groups.iter().count();
            let matched = |(number, (session, options)): &(u64, (Arc<S>, Options))| Match {
                number: *number,
                session: Arc::clone(session),
                options: *options,
            };
            found.extend(subscribers.each.iter().map(matched));
            let chosen = subscribers.groups.iter().filter_map(|(_, group)| group.next(&prefer));
            found.extend(chosen.map(matched));
            true
        });
        if sources > 1 {
            found.get_mut(before..).unwrap_or_default().sort_by_key(|one| one.number);
        }
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.root.load().is_empty()
    }
}

// === impl Node ===

impl<S> Default for Node<S> {
    fn default() -> Self {
        Self { here: None, below: None, any: None, levels: Sorted::default() }
    }
}

impl<S> Clone for Node<S> {
    fn clone(&self) -> Self {
        let Self { here, below, any, levels } = self;
        Self { here: here.clone(), below: below.clone(), any: any.clone(), levels: levels.clone() }
    }
}

impl<S> Node<S> {
    fn is_empty(&self) -> bool {
        self.here.is_none() && self.below.is_none() && self.any.is_none() && self.levels.is_empty()
    }

    /// A copy with the subscribers of `filter` changed; `None` if nothing is left in it.
    fn changed(
        &self,
        filter: Option<&str>,
        change: &mut dyn FnMut(&mut Subscribers<S>),
    ) -> Option<Arc<Self>> {
        let mut node = self.clone();
        match filter.map(split_level) {
            None => change_subscribers(&mut node.here, change),
            Some(("#", None)) => change_subscribers(&mut node.below, change),
            Some(("+", rest)) => {
                let next = node.any.take().unwrap_or_default();
                node.any = next.changed(rest, change);
            }
            Some((level, rest)) => {
                let next = node.levels.get(level).cloned();
                match next.unwrap_or_default().changed(rest, change) {
                    Some(next) => drop(node.levels.insert(level.into(), next)),
                    None => drop(node.levels.remove(level)),
                }
            }
        }
        (!node.is_empty()).then(|| Arc::new(node))
    }

    /// Shows `see` the subscribers that the levels left in `topic` match, until it says no. In the
    /// first level of a name with `$`, wildcards match nothing.
    fn visit(
        &self,
        topic: Option<&str>,
        literal_only: bool,
        see: &mut dyn FnMut(&Subscribers<S>) -> bool,
    ) -> bool {
        if let Some(below) = self.below.as_ref().filter(|_| !literal_only)
            && !see(below)
        {
            return false;
        }
        let Some((level, rest)) = topic.map(split_level) else {
            return self.here.as_ref().is_none_or(|here| see(here));
        };
        if let Some(any) = self.any.as_ref().filter(|_| !literal_only)
            && !any.visit(rest, false, see)
        {
            return false;
        }
        self.levels.get(level).is_none_or(|next| next.visit(rest, false, see))
    }

    fn is_matched(&self, topic: &str) -> bool {
        !self.visit(Some(topic), topic.starts_with('$'), &mut |_| false)
    }
}

fn split_level(text: &str) -> (&str, Option<&str>) {
    text.split_once('/').map_or((text, None), |(level, rest)| (level, Some(rest)))
}

fn change_subscribers<S>(
    place: &mut Option<Arc<Subscribers<S>>>,
    change: &mut dyn FnMut(&mut Subscribers<S>),
) {
    let mut subscribers = place.as_deref().map_or_else(Subscribers::default, Subscribers::clone);
    change(&mut subscribers);
    let empty = subscribers.each.is_empty() && subscribers.groups.is_empty();
    *place = (!empty).then(|| Arc::new(subscribers));
}

// === impl Subscribers ===

impl<S> Default for Subscribers<S> {
    fn default() -> Self {
        Self { each: Sorted::default(), groups: Sorted::default() }
    }
}

impl<S> Clone for Subscribers<S> {
    fn clone(&self) -> Self {
        Self { each: self.each.clone(), groups: self.groups.clone() }
    }
}

// === impl Group ===

impl<S> Default for Group<S> {
    fn default() -> Self {
        Self { members: Sorted::default(), turn: Arc::default() }
    }
}

impl<S> Clone for Group<S> {
    fn clone(&self) -> Self {
        Self { members: self.members.clone(), turn: Arc::clone(&self.turn) }
    }
}

impl<S> Group<S> {
    /// Whose turn it is.
    fn next(&self, prefer: impl Fn(&S) -> bool) -> Option<&(u64, (Arc<S>, Options))> {
        let count = self.members.iter().count();
        let first = self.turn.fetch_add(1, Ordering::Relaxed).checked_rem(count)?;
        let around = || self.members.iter().skip(first).chain(self.members.iter().take(first));
        around().find(|(_, (session, _))| prefer(session)).or_else(|| around().next())
    }
}

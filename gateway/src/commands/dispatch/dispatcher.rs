//! The state machine: events in, actions out.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::bucket::Bucket;
use super::entity::Entity;
use super::pause::Dice;
use super::{Action, Counts, Ended, EntityNo, Limits, LinkNo, Refusal, Verdict};

/// Decides who gets a link.
#[derive(Debug)]
pub(crate) struct Dispatcher {
    limits: Limits,
    entities: Vec<Entity>,
    devices: HashMap<Arc<str>, Device>,
    /// Where the search for the next accept begins, so that no entity is served last for ever.
    turn: usize,
    accepts: Bucket,
    /// How often a session may be found in vain.
    vain: Bucket,
    dice: Dice,
    /// Grows with every change of state: the order in which devices wait.
    mark: u64,
    links: u64,
    pub(super) due: VecDeque<Action>,
}

#[derive(Debug)]
struct Device {
    entity: EntityNo,
    present: bool,
    state: State,
    mark: u64,
    /// When the state was entered, or the link worked last.
    since: Instant,
    /// When the link that it has, or had last, began.
    began: Instant,
    failures: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Ready,
    Passive,
    Pausing { until: Instant },
    Accepting { link: LinkNo },
    Linked { link: LinkNo },
    Closing { link: LinkNo, evicted: bool },
}

const LOCKED_FIRST: Duration = Duration::from_millis(100);
const LOCKED_LONGEST: Duration = Duration::from_secs(2);
const DOWN_FIRST: Duration = Duration::from_millis(200);
const DOWN_LONGEST: Duration = Duration::from_secs(30);
/// Longest pause while an entity is missing or refuses us: somebody has to mend that.
const FORBIDDEN_LONGEST: Duration = Duration::from_secs(60);
/// Azure asks for ten seconds when it is busy.
const BUSY_LEAST: Duration = Duration::from_secs(10);
const BUSY_LONGEST: Duration = Duration::from_secs(300);
/// How far links that broke together are spread when they are opened again.
const LOST_SPREAD: Duration = Duration::from_secs(2);
/// A link that lived this long starts anew with its pauses.
const SETTLED_AFTER: Duration = Duration::from_secs(10);
/// How long a session closed in vain should not come again.
const COOLING: Duration = Duration::from_secs(5);
/// Sessions found in vain per second, of all entities together.
const VAIN_PER_SECOND: u32 = 10;
/// When discovery is at its bound, a passive device that waited this long takes the place of a link that was idle as
/// long.
const TURN_AFTER: Duration = Duration::from_secs(60);

impl Dispatcher {
    /// Nobody is present yet. `seed` decides the jitter.
    pub(crate) fn new(limits: Limits, entities: usize, seed: u64, now: Instant) -> Self {
        Self {
            limits,
            entities: (0..entities).map(|_| Entity::default()).collect(),
            devices: HashMap::new(),
            turn: 0,
            accepts: Bucket::new(limits.accepts_per_second, now),
            vain: Bucket::new(VAIN_PER_SECOND, now),
            dice: Dice::new(seed),
            mark: 0,
            links: 0,
            due: VecDeque::new(),
        }
    }

    /// `device`, whose commands are in `entity`, is connected and wants commands.
    pub(crate) fn present(&mut self, device: &Arc<str>, entity: EntityNo, now: Instant) {
        if entity.0 >= self.entities.len() {
            return;
        }
        if let Some(known) = self.devices.get_mut(device) {
            known.present = true;
            return;
        }
        let state = State::Ready;
        let fresh = Device { entity, present: true, state, mark: 0, since: now, began: now, failures: 0 };
        self.devices.insert(Arc::clone(device), fresh);
        self.enter(device, State::Ready, now);
        let parked = self.entities[entity.0].discovery.unpark(device);
        if let Some(parked) = parked {
            self.serve(device, parked.link, now);
            self.due.push_back(Action::Serve { link: parked.link });
        }
    }

    /// `device` is gone, or does not want commands any more.
    pub(crate) fn absent(&mut self, device: &str, now: Instant) {
        let Some((name, known)) = self.devices.get_key_value(device) else { return };
        let (name, state) = (Arc::clone(name), known.state);
        match state {
            State::Ready | State::Passive | State::Pausing { .. } => self.remove(&name),
            State::Accepting { link } | State::Linked { link } => {
                self.due.push_back(Action::Close { link });
                self.enter(&name, State::Closing { link, evicted: false }, now);
                self.set_present(&name, false);
            }
            State::Closing { link, evicted } => {
                if evicted {
                    // It was to end in peace; now there is nobody to wait for.
                    self.due.push_back(Action::Close { link });
                }
                self.set_present(&name, false);
            }
        }
    }

    /// The session of the link's device is ours.
    pub(crate) fn accepted(&mut self, device: &str, link: LinkNo, now: Instant) {
        let Some((name, known)) = self.devices.get_key_value(device) else { return };
        let (name, known) = (Arc::clone(name), (known.state, known.entity));
        self.entities[known.1.0].open();
        if known.0 == (State::Accepting { link }) {
            self.enter(&name, State::Linked { link }, now);
        }
    }

    /// The session of the link's device was not to be had; the link is over.
    pub(crate) fn refused(&mut self, device: &str, link: LinkNo, refusal: Refusal, now: Instant) {
        let Some(name) = self.holder(device, link) else { return };
        let Some(known) = self.devices.get_mut(&name) else { return };
        known.failures = known.failures.saturating_add(1);
        let (entity, failures, present) = (known.entity, known.failures, known.present);
        self.judge(entity, link, refusal, now);
        if !present {
            self.remove(&name);
            return;
        }
        let pause = match refusal {
            Refusal::Locked => self.dice.pause(failures, LOCKED_FIRST, LOCKED_LONGEST),
            Refusal::TimedOut | Refusal::Other => self.dice.pause(failures, DOWN_FIRST, DOWN_LONGEST),
            // The entity's own pause rules; all come back in their order behind the one that tries.
            Refusal::Busy(_) | Refusal::Quota | Refusal::Lost | Refusal::Forbidden => Duration::ZERO,
        };
        self.enter(&name, State::Pausing { until: now + pause }, now);
    }

    /// The link worked for its device: it is now the one that was idle the shortest. That it works says nothing about how
    /// it ends: what comes over it may be what it fails of each time.
    pub(crate) fn touched(&mut self, device: &str, link: LinkNo, now: Instant) {
        let Some((name, known)) = self.devices.get_key_value(device) else { return };
        if known.state != (State::Linked { link }) {
            return;
        }
        let name = Arc::clone(name);
        self.enter(&name, State::Linked { link }, now);
    }

    /// The link is over, whoever ended it.
    pub(crate) fn ended(&mut self, device: &str, link: LinkNo, why: Ended, now: Instant) {
        let Some(name) = self.holder(device, link) else {
            self.unpark(device, link);
            return;
        };
        let Some(known) = self.devices.get_mut(&name) else { return };
        let was_linked = matches!(known.state, State::Linked { .. });
        if was_linked && now.saturating_duration_since(known.began) >= SETTLED_AFTER {
            known.failures = 0;
        }
        let entity = &mut self.entities[known.entity.0];
        entity.forget_try(link);
        if !known.present {
            self.remove(&name);
            return;
        }
        let evicted = matches!(known.state, State::Closing { evicted: true, .. });
        if why == Ended::Closed {
            let next = if evicted { State::Passive } else { State::Ready };
            self.enter(&name, next, now);
            return;
        }
        known.failures = known.failures.saturating_add(1);
        let failures = known.failures;
        let pause = match why {
            Ended::Lost | Ended::Detached => {
                self.dice.between(Duration::ZERO, LOST_SPREAD)
                    + if failures > 1 {
                        self.dice.pause(failures, DOWN_FIRST, DOWN_LONGEST)
                    } else {
                        Duration::ZERO
                    }
            }
            Ended::LockLost => self.dice.pause(failures, LOCKED_FIRST, DOWN_LONGEST),
            Ended::Failed | Ended::Closed => self.dice.pause(failures, DOWN_FIRST, DOWN_LONGEST),
        };
        self.enter(&name, State::Pausing { until: now + pause }, now);
    }

    /// A receiver that waited for any session got that of `session`.
    pub(crate) fn found(
        &mut self,
        entity: EntityNo,
        link: LinkNo,
        session: &Arc<str>,
        now: Instant,
    ) -> Verdict {
        let Some(place) = self.entities.get_mut(entity.0) else { return Verdict::Close };
        place.discovery.asking.remove(&link);
        place.open();
        let state =
            self.devices.get(session).filter(|device| device.entity == entity).map(|device| device.state);
        match state {
            Some(State::Ready | State::Passive | State::Pausing { .. }) => {
                self.serve(session, link, now);
                return Verdict::Serve;
            }
            // Its own link comes, or goes just now; whichever it is, it takes the session next.
            Some(_) => {
                let until = self.vain.reserve(now).max(now + Duration::from_secs(1));
                place.discovery.resting.insert((until, link));
                return Verdict::Close;
            }
            None => {}
        }
        let known = place.discovery.parked.contains_key(session);
        if !place.passive.is_empty() && !known && place.discovery.parked.len() < self.limits.parked_max {
            place.discovery.park(Arc::clone(session), link, now + self.limits.park_time);
            return Verdict::Park;
        }
        let rest = self.vain.reserve(now);
        let until = place.discovery.cooling_until(session, now).unwrap_or(rest).max(rest);
        place.discovery.resting.insert((until, link));
        place.discovery.cool(Arc::clone(session), now, COOLING);
        Verdict::Close
    }

    /// A receiver that waited for any session has none: the time is up (`None`), or it was refused.
    pub(crate) fn found_none(
        &mut self,
        entity: EntityNo,
        link: LinkNo,
        refusal: Option<Refusal>,
        now: Instant,
    ) {
        let Some(place) = self.entities.get_mut(entity.0) else { return };
        place.discovery.asking.remove(&link);
        match refusal {
            None | Some(Refusal::TimedOut) => place.open(),
            Some(refusal) => {
                let rest = self.dice.pause(1, Duration::from_secs(1), DOWN_LONGEST);
                place.discovery.resting.insert((now + rest, link));
                self.judge(entity, link, refusal, now);
            }
        }
    }

    /// What is to be done now, one by one until there is nothing.
    pub(crate) fn next(&mut self, now: Instant) -> Option<Action> {
        if let Some(action) = self.due.pop_front() {
            return Some(action);
        }
        let count = self.entities.len();
        for step in 0..count {
            let entity = EntityNo((self.turn + step) % count);
            self.keep_time(entity, now);
            if let Some(action) = self.due.pop_front().or_else(|| self.accept(entity, now)) {
                self.turn = (entity.0 + 1) % count;
                return Some(action);
            }
        }
        None
    }

    /// When to call [`Self::next`] again if nothing happens before.
    pub(crate) fn wake_at(&self, now: Instant) -> Option<Instant> {
        if !self.due.is_empty() {
            return Some(now);
        }
        self.entities.iter().filter_map(|entity| self.entity_wakes(entity, now)).min()
    }

    /// How many devices and links there are in an entity.
    pub(crate) fn counts(&self, entity: EntityNo) -> Counts {
        self.entities.get(entity.0).map(Entity::counts).unwrap_or_default()
    }

    /// For how much longer nothing is accepted in an entity; `None` if that is not so.
    pub(crate) fn down_for(&self, entity: EntityNo, now: Instant) -> Option<Duration> {
        let down = self.entities.get(entity.0)?.down?;
        Some(down.until.saturating_duration_since(now))
    }

    /// The link that `device` has and keeps.
    #[cfg(test)]
    pub(super) fn holds(&self, device: &str) -> Option<LinkNo> {
        match self.devices.get(device)?.state {
            State::Linked { link } => Some(link),
            _ => None,
        }
    }

    /// What a refusal says about the whole entity.
    fn judge(&mut self, entity: EntityNo, link: LinkNo, refusal: Refusal, now: Instant) {
        let Self { entities, dice, .. } = self;
        let Some(place) = entities.get_mut(entity.0) else { return };
        match refusal {
            Refusal::Locked => place.open(),
            // It says nothing about others; but who tried has to let the next one try.
            Refusal::TimedOut | Refusal::Other => place.forget_try(link),
            Refusal::Busy(asked) => place.shut(link, |failures| {
                let least = asked.clamp(BUSY_LEAST, BUSY_LONGEST);
                now + least + dice.pause(failures, least / 4, BUSY_LONGEST)
            }),
            Refusal::Quota => {
                place.shut(link, |failures| now + BUSY_LEAST + dice.pause(failures, BUSY_LEAST, BUSY_LONGEST))
            }
            Refusal::Lost => {
                place.shut(link, |failures| now + dice.pause(failures, DOWN_FIRST, DOWN_LONGEST))
            }
            Refusal::Forbidden => {
                place.shut(link, |failures| now + dice.pause(failures, BUSY_LEAST / 2, FORBIDDEN_LONGEST));
            }
        }
    }

    /// Moves on what waited for a time only.
    fn keep_time(&mut self, entity: EntityNo, now: Instant) {
        loop {
            let place = &mut self.entities[entity.0];
            let due = place.pausing.first_key_value().filter(|((until, _), _)| *until <= now);
            let Some(device) = due.map(|(_, device)| Arc::clone(device)) else { break };
            self.enter(&device, State::Ready, now);
        }
        let place = &mut self.entities[entity.0];
        place.discovery.wake(now);
        while let Some((session, link)) = place.discovery.expired(now) {
            place.discovery.cool(session, now, COOLING);
            self.due.push_back(Action::Close { link });
        }
        self.make_room(entity, now);
    }

    /// Ends links beyond the budget, and gives a place to who waited too long for discovery.
    fn make_room(&mut self, entity: EntityNo, now: Instant) {
        loop {
            let place = &self.entities[entity.0];
            let staying = place.linked.len() + place.accepting;
            let Some(idlest) = place.linked.first_key_value().map(|(_, device)| Arc::clone(device)) else {
                return;
            };
            let waited = |device: &Arc<str>| {
                self.devices
                    .get(device)
                    .is_some_and(|known| now.saturating_duration_since(known.since) >= TURN_AFTER)
            };
            let saturated = place.discovery.is_resting(self.limits.receivers);
            // One at a time: the place is free when the link has ended.
            let turn = saturated
                && place.down.is_none()
                && place.closing == 0
                && staying >= self.limits.links_max
                && place.passive.first_key_value().is_some_and(|(_, first)| waited(first))
                && waited(&idlest);
            if staying <= self.limits.links_max && !turn {
                return;
            }
            let Some(State::Linked { link }) = self.devices.get(&idlest).map(|known| known.state) else {
                return;
            };
            self.due.push_back(Action::Finish { link });
            self.enter(&idlest, State::Closing { link, evicted: true }, now);
        }
    }

    /// The next accept or receiver in an entity, if there is one and it may be now.
    fn accept(&mut self, entity: EntityNo, now: Instant) -> Option<Action> {
        let place = &self.entities[entity.0];
        if !place.is_open(now) {
            return None;
        }
        if place.links() < self.limits.links_max {
            let waiting = place.ready.first_key_value().or_else(|| place.passive.first_key_value());
            if let Some(device) = waiting.map(|(_, device)| Arc::clone(device)) {
                if !self.accepts.take(now) {
                    return None;
                }
                let link = self.number();
                self.entities[entity.0].note_try(link);
                self.enter(&device, State::Accepting { link }, now);
                return Some(Action::Accept { device, entity, link });
            }
        } else {
            while let Some(device) =
                self.entities[entity.0].ready.first_key_value().map(|(_, name)| Arc::clone(name))
            {
                self.enter(&device, State::Passive, now);
            }
        }
        let place = &self.entities[entity.0];
        let wanted = !place.passive.is_empty() && place.discovery.receivers() < self.limits.receivers;
        if !wanted || !self.accepts.take(now) {
            return None;
        }
        let link = self.number();
        let place = &mut self.entities[entity.0];
        place.note_try(link);
        place.discovery.asking.insert(link);
        Some(Action::Discover { entity, link })
    }

    fn entity_wakes(&self, place: &Entity, now: Instant) -> Option<Instant> {
        let room = place.links() < self.limits.links_max;
        let waits = !place.ready.is_empty() || (!place.passive.is_empty() && room);
        let discovers = !place.passive.is_empty() && place.discovery.receivers() < self.limits.receivers;
        let accept = (waits || discovers).then(|| match place.down {
            None => Some(self.accepts.ready_at(now)),
            Some(down) if down.probe.is_some() => None,
            Some(down) => Some(self.accepts.ready_at(now).max(down.until)),
        });
        let since =
            |device: Option<&Arc<str>>| device.and_then(|name| self.devices.get(name)).map(|d| d.since);
        let turn = since(place.passive.values().next()).zip(since(place.linked.values().next()));
        let saturated = place.discovery.is_resting(self.limits.receivers);
        let calm = place.down.is_none() && saturated && place.closing == 0;
        let turn = turn.filter(|_| calm && !room);
        [
            accept.flatten(),
            place.pausing.keys().next().map(|(until, _)| *until),
            place.discovery.resting.first().map(|(until, _)| *until),
            place.discovery.expiries.first().map(|(until, _, _)| *until),
            turn.map(|(one, other)| one.max(other) + TURN_AFTER),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// `device` has the link `link`, which was found or held.
    fn serve(&mut self, device: &Arc<str>, link: LinkNo, now: Instant) {
        self.enter(device, State::Linked { link }, now);
    }

    /// The device's own name for it, if `link` is its present link.
    fn holder(&self, device: &str, link: LinkNo) -> Option<Arc<str>> {
        let (name, known) = self.devices.get_key_value(device)?;
        let own = match known.state {
            State::Accepting { link } | State::Linked { link } | State::Closing { link, .. } => Some(link),
            State::Ready | State::Passive | State::Pausing { .. } => None,
        };
        (own == Some(link)).then(|| Arc::clone(name))
    }

    fn unpark(&mut self, session: &str, link: LinkNo) {
        for place in &mut self.entities {
            if place.discovery.parked.get(session).is_some_and(|parked| parked.link == link) {
                place.discovery.unpark(session);
            }
        }
    }

    fn set_present(&mut self, device: &Arc<str>, present: bool) {
        if let Some(known) = self.devices.get_mut(device) {
            known.present = present;
        }
    }

    fn number(&mut self) -> LinkNo {
        self.links += 1;
        LinkNo(self.links)
    }

    fn remove(&mut self, device: &Arc<str>) {
        if let Some(known) = self.devices.remove(device) {
            leave(&mut self.entities[known.entity.0], &known);
        }
    }

    /// Moves a device from its state into another, behind all that are there.
    fn enter(&mut self, device: &Arc<str>, state: State, now: Instant) {
        let Some(known) = self.devices.get_mut(device) else { return };
        let place = &mut self.entities[known.entity.0];
        leave(place, known);
        self.mark += 1;
        if matches!(state, State::Linked { .. }) && !matches!(known.state, State::Linked { .. }) {
            known.began = now;
        }
        (known.state, known.mark, known.since) = (state, self.mark, now);
        let name = Arc::clone(device);
        match state {
            State::Ready => drop(place.ready.insert(known.mark, name)),
            State::Passive => drop(place.passive.insert(known.mark, name)),
            State::Pausing { until } => drop(place.pausing.insert((until, known.mark), name)),
            State::Linked { .. } => drop(place.linked.insert(known.mark, name)),
            State::Accepting { .. } => place.accepting += 1,
            State::Closing { .. } => place.closing += 1,
        }
    }
}

/// Takes a device out of the books of its state.
fn leave(place: &mut Entity, known: &Device) {
    match known.state {
        State::Ready => drop(place.ready.remove(&known.mark)),
        State::Passive => drop(place.passive.remove(&known.mark)),
        State::Pausing { until } => drop(place.pausing.remove(&(until, known.mark))),
        State::Linked { .. } => drop(place.linked.remove(&known.mark)),
        State::Accepting { .. } => place.accepting -= 1,
        State::Closing { .. } => place.closing -= 1,
    }
}

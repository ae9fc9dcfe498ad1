//! Faults on order.

use serde::Deserialize;

use super::links::{not_found, session_lock_lost};
use super::message::{LinkId, Notice, Refusal};
use super::state::{Hold, State, Timer, Unlock};

/// Receive requests that an entity takes, by default: the service's quota.
const RECEIVES_MAX_DEFAULT: usize = 5_000;
/// The service detaches links that were idle for this long, in milliseconds.
const IDLE_DETACH_MS_DEFAULT: u64 = 600_000;
/// Longest delay that can be ordered, in milliseconds.
const DELAY_MS_MAX: u64 = 120_000;

/// Faults in force.
#[derive(Debug)]
pub(super) struct Faults {
    /// Operations that are still to be refused.
    pub(super) busy: u64,
    pub(super) attach_delay_ms: u64,
    pub(super) disposition_delay_ms: u64,
    pub(super) receives_max: usize,
    pub(super) idle_detach_ms: u64,
    pub(super) token_life_max_ms: Option<u64>,
}

/// An order.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(tag = "fault", rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) enum Fault {
    /// Cuts every connection.
    CutConnections {},
    /// Leaves every connection half-open: nothing is read or written any more.
    FreezeConnections {},
    /// Detaches every receiver with this condition; those that wait for a session are refused with it.
    DetachAll { condition: String },
    /// The lock of a session expires now. It must be held.
    ExpireLock { entity: String, session: String },
    /// The next operations are refused with `server-busy`: sends, attaches, requests to `$management`.
    Busy { operations: u64 },
    /// Attaches are held back.
    DelayAttach { ms: u64 },
    /// Dispositions are held back.
    DelayDisposition { ms: u64 },
    /// Receive requests that an entity takes at a time.
    ReceivesMax { receives: usize },
    /// Idleness after which a receiver is detached.
    IdleDetach { ms: u64 },
    /// The longest life of a token; without `ms`, what the token says.
    TokenLifeMax { ms: Option<u64> },
}

impl Default for Faults {
    fn default() -> Self {
        Self {
            busy: 0,
            attach_delay_ms: 0,
            disposition_delay_ms: 0,
            receives_max: RECEIVES_MAX_DEFAULT,
            idle_detach_ms: IDLE_DETACH_MS_DEFAULT,
            token_life_max_ms: None,
        }
    }
}

impl State {
    /// Called once per operation; an error when it is one of those that are to be refused.
    pub(super) fn busy(&mut self) -> Result<(), Refusal> {
        let Some(left) = self.faults.busy.checked_sub(1) else { return Ok(()) };
        self.faults.busy = left;
        Err(Refusal::new(
            Refusal::SERVER_BUSY,
            "The request was terminated because the entity is being throttled. Error code : 50009. Please wait 10 seconds and try again.",
        ))
    }

    /// Carries out an order. Gives how many connections, links or sessions it met.
    pub(super) fn order(&mut self, fault: Fault, now: u64) -> Result<usize, Refusal> {
        match fault {
            Fault::CutConnections {} => Ok(self.cut()),
            Fault::FreezeConnections {} => Ok(self.freeze()),
            Fault::DetachAll { condition } => self.detach_all(&condition, now),
            Fault::ExpireLock { entity, session } => {
                let queue_id = self.resolve(&entity)?;
                let queue = self.queues.get(&queue_id).ok_or_else(not_found)?;
                let found = queue.sessions.get(session.as_str());
                let holder = found.and_then(|session| session.holder).ok_or_else(session_lock_lost)?;
                self.expire_session_lock(holder, now);
                Ok(1)
            }
            Fault::Busy { operations } => self.set(0, |faults| faults.busy = operations),
            Fault::DelayAttach { ms } => self.set(ms, |faults| faults.attach_delay_ms = ms),
            Fault::DelayDisposition { ms } => self.set(ms, |faults| faults.disposition_delay_ms = ms),
            Fault::ReceivesMax { receives } => self.set(0, |faults| faults.receives_max = receives),
            Fault::IdleDetach { ms } => {
                self.faults.idle_detach_ms = ms.max(1);
                self.rearm_idle(now);
                Ok(0)
            }
            Fault::TokenLifeMax { ms } => self.set(0, |faults| faults.token_life_max_ms = ms),
        }
    }

    fn set(&mut self, delay_ms: u64, change: impl FnOnce(&mut Faults)) -> Result<usize, Refusal> {
        if delay_ms > DELAY_MS_MAX {
            let text = format!("{delay_ms} ms is too long: 0 to {DELAY_MS_MAX}");
            return Err(Refusal::new(Refusal::ARGUMENT, text));
        }
        change(&mut self.faults);
        Ok(0)
    }

    fn cut(&mut self) -> usize {
        let all: Vec<u64> = self.connections.keys().copied().collect();
        for connection in &all {
            self.tell(*connection, Notice::Disconnect { error: None });
        }
        all.len()
    }

    /// Locks stay with frozen connections until they expire. What they were told to fetch goes to others.
    fn freeze(&mut self) -> usize {
        let all: Vec<u64> = self.connections.keys().copied().collect();
        for connection in &all {
            self.tell(*connection, Notice::Freeze);
            let Some(found) = self.connections.get_mut(connection) else { continue };
            found.frozen = true;
            let links: Vec<LinkId> = found.links.iter().copied().collect();
            for link in links {
                self.pass(link);
            }
        }
        all.len()
    }

    fn detach_all(&mut self, condition: &str, now: u64) -> Result<usize, Refusal> {
        let known = [
            Refusal::DETACH_FORCED,
            Refusal::SERVER_BUSY,
            Refusal::UNAUTHORIZED,
            Refusal::NOT_FOUND,
            Refusal::INTERNAL,
            Refusal::ENTITY_DISABLED,
            Refusal::QUOTA,
            Refusal::TIMEOUT,
            Refusal::SESSION_LOCK_LOST,
        ];
        let Some(condition) = known.into_iter().find(|known| *known == condition) else {
            let text = format!("condition {condition:?} is not one of {}", known.join(", "));
            return Err(Refusal::new(Refusal::ARGUMENT, text));
        };
        let error = Refusal::new(condition, "Detached by an order to cloud-sim.");
        let all = self.links.iter().filter(|(_id, link)| !matches!(link.hold, Hold::Lost { .. }));
        let all: Vec<LinkId> = all.map(|(id, _link)| *id).collect();
        for link in &all {
            self.lose(*link, Unlock::LinkEnd, error.clone(), now);
        }
        Ok(all.len())
    }

    /// After another idle time: looks at every link that is watched when that is over.
    fn rearm_idle(&mut self, now: u64) {
        let idle_ms = self.faults.idle_detach_ms;
        for (id, link) in &mut self.links {
            if let Some(check_ms) = link.idle_check_ms.as_mut() {
                self.timers.remove(&(*check_ms, Timer::Idle(*id)));
                *check_ms = link.used_ms.saturating_add(idle_ms).max(now);
                self.timers.insert((*check_ms, Timer::Idle(*id)));
            }
        }
    }
}

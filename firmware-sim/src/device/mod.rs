//! A device as a state machine: readings in, publishes out, answers in. No I/O and no clock.
//!
//! The window is one queue in the order of the readings:
//!
//! ```text
//! front                                                          back
//! | done | flying, received, flying … | requested … | due … |
//! ```
//!
//! A flight leaves the queue only at the front, so the newest in flight is never further than the
//! window ahead of the oldest; packet ids of rumqttc, which count up to twice the window, can then
//! never collide. When the connection is lost every flight without an acknowledgement becomes due
//! again **in its place**, so the device sends all of them in order before anything new: that is what
//! keeps first occurrences in order. Nothing is left to the client's own memory of a session.
//!
//! A session that lasts keeps its exchanges: [`Device::interrupted`] instead of
//! [`Device::disconnected`], and [`Device::resumed`] with the next connection. What was on its way is sent
//! again under its own packet id, with DUP, and PUBREL where PUBREC had come. A QoS 2 reading sent again
//! that way is still the same publish, so the account does not count it: stored twice it would be
//! unexpected. At QoS 1 it counts, since there nobody promises once only.
//!
//! A reading that an MQTT 5 gateway refuses (reason 0x80 and above) is given up: sending it later
//! would put it behind its successors.

use std::collections::VecDeque;
use std::time::Duration;

use testkit::ledger::{DeviceLedger, LedgerError, Qos};
use tokio::time::Instant;

/// The highest packet id of a reading; those above are for what else a device sends.
pub const PKID_MAX: u16 = 0x7fff;

/// A device with its window and its account.
#[derive(Debug)]
pub struct Device {
    window_max: usize,
    /// What the gateway allows on this connection.
    allowed: usize,
    connected: bool,
    window: VecDeque<Flight>,
    taken: u64,
    /// The packet id given out last by [`Device::next_send`].
    pkid: u16,
    ledger: DeviceLedger,
}

/// A packet to write now, for a connection that leaves packet ids to the device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Send {
    /// PUBLISH under this packet id (0 for QoS 0), with DUP if it is sent `again`.
    Publish {
        /// What to publish.
        publish: Publish,
        /// Its packet id.
        pkid: u16,
        /// Whether it was sent under this id before.
        again: bool,
    },
    /// PUBREL.
    Release(u16),
}

/// A publish to hand to the connection now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Publish {
    /// The number of the reading.
    pub reading: u64,
    /// Its payload.
    pub payload: Vec<u8>,
    /// How to publish it.
    pub qos: Qos,
}

/// What an answer meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// The reading is durable; the time since it was handed over.
    Acked(Duration),
    /// The gateway refused it.
    Refused,
    /// The end of a QoS 2 exchange; nothing new.
    Completed,
}

/// An answer that fits no publish; the connection is to be dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// Nothing waits for this packet id in this state.
    #[error("packet id {0} was answered out of turn")]
    Unsolicited(u16),
    /// The client reported a publish that was not asked for.
    #[error("the client sent a publish that was not requested")]
    NotRequested,
    /// The account does not allow it.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
}

#[derive(Debug)]
struct Flight {
    reading: u64,
    payload: Vec<u8>,
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// To be handed to a connection, for the first time or again.
    Due,
    /// Handed over; the client has not given it a packet id yet.
    Requested(Instant),
    /// On the wire.
    Flying(u16, Instant),
    /// QoS 2: PUBREC came, PUBCOMP is outstanding.
    Received(u16),
    /// QoS 2: PUBREC came and PUBREL is to be sent, for the first time or again.
    Releasing(u16),
    /// Was on the wire of an earlier connection of this session.
    Interrupted(u16),
    /// Answered, behind an older one that is not.
    Done,
}

impl Device {
    /// A device that keeps at most `window` readings in flight.
    #[must_use]
    pub fn new(qos: Qos, window: u16) -> Self {
        Self {
            window_max: usize::from(window),
            allowed: 0,
            connected: false,
            window: VecDeque::new(),
            taken: 0,
            pkid: 0,
            ledger: DeviceLedger::new(qos),
        }
    }

    /// Whether another reading fits into the window.
    #[must_use]
    pub fn has_room(&self) -> bool {
        self.window.len() < self.window_max
    }

    /// Whether nothing is outstanding.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.window.is_empty()
    }

    /// Takes a new reading; `payload` makes its payload from its number. Does nothing without room.
    pub fn take(&mut self, payload: impl FnOnce(u64) -> Vec<u8>) {
        if self.has_room() {
            self.taken += 1;
            let reading = self.taken;
            self.window.push_back(Flight { reading, payload: payload(reading), state: State::Due });
        }
    }

    /// A new connection is up; MQTT 5 gateways say how many publishes they allow at once.
    pub fn connected(&mut self, receive_max: Option<u16>) {
        self.connected = true;
        self.allowed = receive_max.map_or(self.window_max, |max| self.window_max.min(usize::from(max)));
    }

    /// The connection and its session are gone.
    pub fn disconnected(&mut self) {
        self.connected = false;
        let qos0 = self.ledger.qos() == Qos::AtMostOnce;
        self.window.retain_mut(|flight| match flight.state {
            State::Due => true,
            // PUBREC was an acknowledgement; the rest of the exchange died with the session.
            State::Received(_) | State::Releasing(_) | State::Done => false,
            State::Requested(_) | State::Flying(..) | State::Interrupted(_) if qos0 => false,
            State::Requested(_) | State::Flying(..) | State::Interrupted(_) => {
                flight.state = State::Due;
                true
            }
        });
    }

    /// The connection is gone and its session may last.
    pub fn interrupted(&mut self) {
        self.connected = false;
        for flight in &mut self.window {
            flight.state = match flight.state {
                State::Flying(pkid, _) => State::Interrupted(pkid),
                State::Received(pkid) => State::Releasing(pkid),
                state => state,
            };
        }
    }

    /// A new connection is up, after [`Device::connected`]; `present`: its session is the one that was interrupted.
    pub fn resumed(&mut self, present: bool) {
        if !present {
            self.disconnected();
            self.connected = true;
            self.shorten();
        }
    }

    /// The next packet to write, for a connection that leaves packet ids to the device.
    ///
    /// # Errors
    /// Never in practice: readings leave the window in order.
    pub fn next_send(&mut self, now: Instant) -> Result<Option<Send>, Fault> {
        let open = if self.connected { self.allowed } else { 0 };
        let waits = |flight: &Flight| {
            matches!(flight.state, State::Due | State::Interrupted(_) | State::Releasing(_))
        };
        let Some(place) = self.window.iter().take(open).position(waits) else { return Ok(None) };
        let qos = self.ledger.qos();
        let fresh = if qos == Qos::AtMostOnce { 0 } else { self.fresh_pkid() };
        let Some(flight) = self.window.get_mut(place) else { return Ok(None) };
        let (pkid, again) = match flight.state {
            State::Releasing(pkid) => {
                flight.state = State::Received(pkid);
                return Ok(Some(Send::Release(pkid)));
            }
            State::Interrupted(pkid) => (pkid, true),
            _ => (fresh, false),
        };
        if !again || qos != Qos::ExactlyOnce {
            self.ledger.published(flight.reading)?;
        }
        flight.state = if pkid == 0 { State::Done } else { State::Flying(pkid, now) };
        let publish = Publish { reading: flight.reading, payload: flight.payload.clone(), qos };
        if !again && pkid != 0 {
            self.pkid = pkid;
        }
        self.shorten();
        Ok(Some(Send::Publish { publish, pkid, again }))
    }

    /// The next packet id that no exchange uses.
    fn fresh_pkid(&self) -> u16 {
        let used = |pkid: u16| {
            self.window.iter().any(|flight| match flight.state {
                State::Flying(id, _)
                | State::Received(id)
                | State::Releasing(id)
                | State::Interrupted(id) => id == pkid,
                State::Due | State::Requested(_) | State::Done => false,
            })
        };
        let mut pkid = self.pkid;
        loop {
            pkid = if pkid >= PKID_MAX { 1 } else { pkid + 1 };
            if !used(pkid) {
                return pkid;
            }
        }
    }

    /// QoS 2: PUBREC is to be answered; the next [`Device::next_send`] gives PUBREL.
    ///
    /// # Errors
    /// When no PUBREC came for this packet id.
    pub fn release(&mut self, pkid: u16) -> Result<(), Fault> {
        let flight = self.window.iter_mut().find(|flight| flight.state == State::Received(pkid));
        flight.ok_or(Fault::Unsolicited(pkid))?.state = State::Releasing(pkid);
        Ok(())
    }

    /// The next publish to hand over, oldest first; `None` when the window is full or nothing is due.
    ///
    /// # Errors
    /// Never in practice: readings leave the window in order.
    pub fn next_publish(&mut self, now: Instant) -> Result<Option<Publish>, Fault> {
        if !self.connected {
            return Ok(None);
        }
        let qos = self.ledger.qos();
        let due = self.window.iter_mut().take(self.allowed).find(|flight| flight.state == State::Due);
        let Some(flight) = due else { return Ok(None) };
        self.ledger.published(flight.reading)?;
        flight.state = State::Requested(now);
        Ok(Some(Publish { reading: flight.reading, payload: flight.payload.clone(), qos }))
    }

    /// The client wrote the oldest requested publish, under this packet id (0 for QoS 0).
    ///
    /// # Errors
    /// When nothing was requested.
    pub fn sent(&mut self, pkid: u16) -> Result<(), Fault> {
        let mut flights = self.window.iter_mut();
        let requested = flights.find_map(|flight| match flight.state {
            State::Requested(since) => Some((flight, since)),
            _ => None,
        });
        let (flight, since) = requested.ok_or(Fault::NotRequested)?;
        let qos0 = self.ledger.qos() == Qos::AtMostOnce;
        flight.state = if qos0 { State::Done } else { State::Flying(pkid, since) };
        self.shorten();
        Ok(())
    }

    /// PUBACK.
    ///
    /// # Errors
    /// When no QoS 1 publish with this packet id is in flight.
    pub fn puback(&mut self, pkid: u16, accepted: bool, now: Instant) -> Result<Answer, Fault> {
        if self.ledger.qos() != Qos::AtLeastOnce {
            return Err(Fault::Unsolicited(pkid));
        }
        self.answered(pkid, accepted, State::Done, now)
    }

    /// PUBREC.
    ///
    /// # Errors
    /// When no QoS 2 publish with this packet id is in flight.
    pub fn pubrec(&mut self, pkid: u16, accepted: bool, now: Instant) -> Result<Answer, Fault> {
        if self.ledger.qos() != Qos::ExactlyOnce {
            return Err(Fault::Unsolicited(pkid));
        }
        // A refusal ends the exchange.
        let state = if accepted { State::Received(pkid) } else { State::Done };
        self.answered(pkid, accepted, state, now)
    }

    /// PUBCOMP.
    ///
    /// # Errors
    /// When no PUBREC came for this packet id.
    pub fn pubcomp(&mut self, pkid: u16) -> Result<Answer, Fault> {
        let flight = self.window.iter_mut().find(|flight| flight.state == State::Received(pkid));
        flight.ok_or(Fault::Unsolicited(pkid))?.state = State::Done;
        self.shorten();
        Ok(Answer::Completed)
    }

    /// The account, when the device's work is done.
    #[must_use]
    pub fn into_ledger(self) -> DeviceLedger {
        self.ledger
    }

    fn answered(&mut self, pkid: u16, accepted: bool, state: State, now: Instant) -> Result<Answer, Fault> {
        let mut flights = self.window.iter_mut();
        let flying = flights.find_map(|flight| match flight.state {
            State::Flying(id, since) if id == pkid => Some((flight, since)),
            _ => None,
        });
        let (flight, since) = flying.ok_or(Fault::Unsolicited(pkid))?;
        flight.state = state;
        let reading = flight.reading;
        self.shorten();
        if accepted {
            self.ledger.acked(reading)?;
            Ok(Answer::Acked(now.saturating_duration_since(since)))
        } else {
            self.ledger.refused(reading)?;
            Ok(Answer::Refused)
        }
    }

    fn shorten(&mut self) {
        while self.window.front().is_some_and(|flight| flight.state == State::Done) {
            self.window.pop_front();
        }
    }
}

#[cfg(test)]
mod tests;

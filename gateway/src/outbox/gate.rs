//! The gate: how much may be taken in, decided before a socket is read.
//!
//! Three bounds hold: bytes on their way to the disk, the quota of bytes that no consumer has
//! confirmed, and the space on the disk. What is refused is not read, so pressure runs back to the
//! device. All bounds reopen only some way from the limit, so that connections do not flutter
//! around it.

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering};

use penstock_proto::Lane;
use tokio::sync::Notify;

use super::error::Refused;

/// Lanes other than `alerts` and `status` leave this share of the quota to those two.
const RESERVE_PERCENT: u64 = 5;

#[derive(Debug)]
pub(super) struct Gate {
    queue_bytes: AtomicUsize,
    queue_bytes_max: usize,
    /// The largest reservation refused for want of room in the queue since there was room for it.
    wanted: AtomicUsize,
    backlog_bytes: AtomicU64,
    quotas: [Quota; 2],
    state: AtomicU8,
    /// How many wait in [`Self::room`].
    waiting: AtomicUsize,
    room: Notify,
}

/// One limit on the backlog.
#[derive(Debug)]
struct Quota {
    bytes_max: u64,
    /// Shut when the limit was reached, until the backlog is at most `reopen_at`.
    shut: AtomicBool,
    reopen_at: u64,
    /// The disk is too full for these lanes.
    disk_full: AtomicBool,
}

/// For which lanes the disk is too full.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct DiskFull {
    /// For telemetry and bulk.
    pub(super) ordinary: bool,
    /// For alerts, status and dead letters.
    pub(super) urgent: bool,
}

/// Whether the outbox can take anything at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum State {
    Open = 0,
    Poisoned = 1,
    Closed = 2,
}

impl Gate {
    pub(super) fn new(queue_bytes_max: usize, bytes_max: u64) -> Self {
        let ordinary = bytes_max - bytes_max / 100 * RESERVE_PERCENT;
        Self {
            queue_bytes: AtomicUsize::new(0),
            queue_bytes_max,
            wanted: AtomicUsize::new(0),
            backlog_bytes: AtomicU64::new(0),
            quotas: [bytes_max, ordinary].map(Quota::new),
            state: AtomicU8::new(State::Open as u8),
            waiting: AtomicUsize::new(0),
            room: Notify::new(),
        }
    }

    /// Counts `bytes` in, or says why not.
    pub(super) fn reserve(&self, lane: Lane, bytes: usize) -> Result<(), Refused> {
        match self.state() {
            State::Open => {}
            State::Poisoned => return Err(Refused::Poisoned),
            State::Closed => return Err(Refused::Closed),
        }
        let quota = self.quota(lane);
        if quota.disk_full.load(Ordering::Relaxed) {
            return Err(Refused::Space);
        }
        if quota.shut.load(Ordering::Relaxed) {
            return Err(Refused::Quota);
        }
        let queued = self.queue_bytes.fetch_add(bytes, Ordering::AcqRel);
        let with_queue = self.backlog_bytes().saturating_add(queued as u64).saturating_add(bytes as u64);
        // What is larger than the whole bound passes when nothing else is there, or it never would.
        let refused = if queued > 0 && queued.saturating_add(bytes) > self.queue_bytes_max {
            self.wanted.fetch_max(bytes, Ordering::AcqRel);
            Refused::Full
        } else if with_queue > quota.bytes_max {
            quota.shut.store(true, Ordering::Relaxed);
            Refused::Quota
        } else {
            return Ok(());
        };
        // Without a look at the quota: it was just shut for this.
        self.count_out(bytes);
        Err(refused)
    }

    /// Counts the outputs of a consumer in, or says why not: bytes per lane.
    ///
    /// They go where others do not get. Lane `dead` gets what another lane gives, so the quota does
    /// not bound it; whoever moves entries there does. Alerts and status may use as much again as
    /// their reserve, since a consumer that cannot say what it did cannot move on, and then nothing
    /// would be given back. The queue takes twice as much as from devices. What goes to another
    /// lane is like any entry there.
    pub(super) fn admit(&self, outputs: [usize; Lane::COUNT]) -> Result<(), Refused> {
        match self.state() {
            State::Open => {}
            State::Poisoned => return Err(Refused::Poisoned),
            State::Closed => return Err(Refused::Closed),
        }
        let bytes: usize = outputs.iter().sum();
        if bytes == 0 {
            return Ok(());
        }
        let of = |lane: Lane| *lane.pick(&outputs);
        let urgent = of(Lane::Alerts) + of(Lane::Status);
        let ordinary = of(Lane::Telemetry) + of(Lane::Bulk);
        let [all, others] = &self.quotas;
        let disk_full = |quota: &Quota| quota.disk_full.load(Ordering::Relaxed);
        if disk_full(all) || (ordinary > 0 && disk_full(others)) {
            return Err(Refused::Space);
        }
        let queued = self.queue_bytes.fetch_add(bytes, Ordering::AcqRel);
        let used = self.backlog_bytes().saturating_add(queued as u64);
        let urgent_max = all.bytes_max + all.bytes_max / 100 * RESERVE_PERCENT;
        let over = |more: usize, max: u64| more > 0 && used.saturating_add(more as u64) > max;
        let refused = if queued > 0 && queued.saturating_add(bytes) / 2 > self.queue_bytes_max {
            Refused::Full
        } else if over(ordinary, others.bytes_max) || over(urgent, urgent_max) {
            Refused::Quota
        } else {
            return Ok(());
        };
        self.count_out(bytes);
        Err(refused)
    }

    /// Replaces a reservation by what was really taken in.
    pub(super) fn settle(&self, reserved: usize, used: usize) {
        if used > reserved {
            self.queue_bytes.fetch_add(used - reserved, Ordering::AcqRel);
        } else if used < reserved {
            self.release(reserved - used);
        }
    }

    /// Counts `bytes` out: durable, failed, or reserved and not used.
    pub(super) fn release(&self, bytes: usize) {
        self.count_out(bytes);
        // Reservations that nobody used may have shut a quota, and then no commit would reopen it.
        if self.quotas.iter().any(|quota| quota.shut.load(Ordering::Relaxed)) {
            self.reopen(self.backlog_bytes().saturating_add(self.queue_bytes() as u64));
        }
    }

    fn count_out(&self, bytes: usize) {
        let before = self.queue_bytes.fetch_sub(bytes, Ordering::AcqRel);
        debug_assert!(before >= bytes, "released more than was reserved");
        self.wake_if_room();
    }

    /// Notes how much no consumer has confirmed; reopens quotas.
    pub(super) fn set_backlog(&self, bytes: u64) {
        self.backlog_bytes.store(bytes, Ordering::Release);
        self.reopen(bytes);
    }

    /// Reopens the quotas that `used` bytes leave room in.
    fn reopen(&self, used: u64) {
        let mut reopened = false;
        for quota in &self.quotas {
            if used <= quota.reopen_at && quota.shut.load(Ordering::Relaxed) {
                quota.shut.store(false, Ordering::Release);
                reopened = true;
            }
        }
        if reopened {
            self.wake_if_room();
        }
    }

    /// Notes whether there is room on the disk.
    pub(super) fn set_disk_full(&self, full: DiskFull) {
        let mut reopened = false;
        for (quota, full) in self.quotas.iter().zip([full.urgent, full.ordinary]) {
            reopened |= quota.disk_full.swap(full, Ordering::AcqRel) && !full;
        }
        if reopened {
            self.wake_if_room();
        }
    }

    /// Why nothing of `lane` is taken in for some time, if so. A full queue is over in a moment and
    /// does not count.
    pub(super) fn refusing(&self, lane: Lane) -> Option<Refused> {
        let quota = self.quota(lane);
        match self.state() {
            State::Poisoned => Some(Refused::Poisoned),
            State::Closed => Some(Refused::Closed),
            State::Open if quota.disk_full.load(Ordering::Acquire) => Some(Refused::Space),
            State::Open => quota.shut.load(Ordering::Acquire).then_some(Refused::Quota),
        }
    }

    /// Changes the state; closing is for good.
    pub(super) fn set_state(&self, state: State) {
        self.state.fetch_max(state as u8, Ordering::AcqRel);
        if state == State::Open {
            let poisoned = State::Poisoned as u8;
            // An error means that it is open already, or closed.
            self.state.compare_exchange(poisoned, state as u8, Ordering::AcqRel, Ordering::Relaxed).ok();
        }
        self.room.notify_waiters();
    }

    /// Whether `lane` is refused because the disk is nearly full.
    pub(super) fn is_disk_full(&self, lane: Lane) -> bool {
        self.quota(lane).disk_full.load(Ordering::Acquire)
    }

    pub(super) fn state(&self) -> State {
        match self.state.load(Ordering::Acquire) {
            0 => State::Open,
            1 => State::Poisoned,
            _ => State::Closed,
        }
    }

    pub(super) fn queue_bytes(&self) -> usize {
        self.queue_bytes.load(Ordering::Acquire)
    }

    pub(super) fn backlog_bytes(&self) -> u64 {
        self.backlog_bytes.load(Ordering::Acquire)
    }

    /// Waits until [`Self::reserve`] may succeed, or will never again.
    pub(super) async fn room(&self, lane: Lane) {
        let _counted = Counted::new(&self.waiting);
        loop {
            let changed = self.room.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            if self.has_room(lane) {
                return;
            }
            changed.await;
        }
    }

    fn has_room(&self, lane: Lane) -> bool {
        match self.state() {
            State::Open => self.refusing(lane).is_none() && self.queue_has_room(),
            State::Poisoned => false,
            State::Closed => true,
        }
    }

    fn queue_has_room(&self) -> bool {
        let queued = self.queue_bytes.load(Ordering::SeqCst);
        let with_wanted = queued.saturating_add(self.wanted.load(Ordering::SeqCst));
        queued == 0 || (queued <= self.queue_bytes_max / 4 * 3 && with_wanted <= self.queue_bytes_max)
    }

    fn wake_if_room(&self) {
        if self.waiting.load(Ordering::SeqCst) > 0 && self.queue_has_room() {
            self.wanted.store(0, Ordering::Release);
            self.room.notify_waiters();
        }
    }

    const fn quota(&self, lane: Lane) -> &Quota {
        let [all, ordinary] = &self.quotas;
        match lane {
            Lane::Alerts | Lane::Status => all,
            Lane::Telemetry | Lane::Bulk | Lane::Dead => ordinary,
        }
    }
}

impl Quota {
    fn new(bytes_max: u64) -> Self {
        let reopen_at = bytes_max - bytes_max / 20;
        Self { bytes_max, shut: AtomicBool::new(false), reopen_at, disk_full: AtomicBool::new(false) }
    }
}

/// Counts a waiter for as long as it waits, however it ends.
struct Counted<'a>(&'a AtomicUsize);

impl<'a> Counted<'a> {
    fn new(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::SeqCst);
        Self(count)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use std::future::Future;
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    use super::*;

    fn has_room_after(gate: &Gate, lane: Lane, change: impl FnOnce(&Gate)) -> bool {
        let mut room = pin!(gate.room(lane));
        let mut cx = Context::from_waker(Waker::noop());
        assert_eq!(room.as_mut().poll(&mut cx), Poll::Pending);
        change(gate);
        room.as_mut().poll(&mut cx).is_ready()
    }

    #[test]
    fn the_queue_is_bounded_and_reopens_below_the_limit() {
        let gate = Gate::new(1000, 1 << 30);
        assert_eq!(gate.reserve(Lane::Telemetry, 5000), Ok(()), "alone it passes");
        assert_eq!(gate.reserve(Lane::Telemetry, 1), Err(Refused::Full));
        gate.settle(5000, 900);
        assert_eq!(gate.reserve(Lane::Telemetry, 101), Err(Refused::Full));
        assert_eq!(gate.reserve(Lane::Telemetry, 100), Ok(()));
        assert_eq!(gate.queue_bytes(), 1000);
        assert!(!has_room_after(&gate, Lane::Telemetry, |gate| gate.release(249)));
        assert!(has_room_after(&gate, Lane::Telemetry, |gate| gate.release(1)));
        gate.settle(0, 50);
        assert_eq!(gate.queue_bytes(), 800, "what exceeds its reservation is counted too");
    }

    #[test]
    fn the_quota_keeps_a_reserve_for_alerts_and_status() {
        let gate = Gate::new(1 << 20, 100_000);
        gate.set_backlog(94_000);
        assert_eq!(gate.reserve(Lane::Telemetry, 1001), Err(Refused::Quota));
        assert_eq!(gate.reserve(Lane::Telemetry, 1), Err(Refused::Quota), "shut until it reopens");
        assert_eq!(gate.reserve(Lane::Status, 6000), Ok(()));
        assert_eq!(gate.reserve(Lane::Alerts, 1), Err(Refused::Quota));
        gate.release(6000);
        assert!(!has_room_after(&gate, Lane::Bulk, |gate| gate.set_backlog(90_251)));
        assert!(has_room_after(&gate, Lane::Bulk, |gate| gate.set_backlog(90_250)));
        assert_eq!(gate.reserve(Lane::Telemetry, 1), Ok(()));
    }

    #[test]
    fn a_full_disk_refuses_lanes_and_wakes_who_waits_when_there_is_room() {
        let gate = Gate::new(1000, 100_000);
        let full = |ordinary, urgent| DiskFull { ordinary, urgent };
        let check = |lane, expected: Option<Refused>| {
            assert_eq!(gate.refusing(lane), expected, "{lane}");
            assert_eq!(gate.reserve(lane, 0), expected.map_or(Ok(()), Err), "{lane}");
        };
        gate.set_disk_full(full(true, false));
        for lane in [Lane::Telemetry, Lane::Bulk, Lane::Dead] {
            check(lane, Some(Refused::Space));
        }
        check(Lane::Alerts, None);
        check(Lane::Status, None);
        gate.set_disk_full(full(true, true));
        Lane::ALL.iter().for_each(|lane| check(*lane, Some(Refused::Space)));
        assert!(!has_room_after(&gate, Lane::Bulk, |gate| gate.set_disk_full(full(true, false))));
        assert!(has_room_after(&gate, Lane::Bulk, |gate| gate.set_disk_full(full(false, false))));
        gate.set_disk_full(full(true, true));
        assert!(has_room_after(&gate, Lane::Alerts, |gate| gate.set_disk_full(full(true, false))));
        gate.set_state(State::Poisoned);
        assert_eq!(gate.reserve(Lane::Bulk, 1), Err(Refused::Poisoned), "the worse reason first");
    }

    #[test]
    fn outputs_pass_where_devices_do_not() {
        let gate = Gate::new(1000, 100_000);
        let check = |lane: Lane, bytes, expected: Result<(), Refused>| {
            let mut outputs = [0; Lane::COUNT];
            outputs[lane.index()] = bytes;
            assert_eq!(gate.admit(outputs), expected, "{lane} {bytes}");
            if expected.is_ok() {
                gate.release(bytes);
            }
        };
        gate.set_backlog(94_000);
        check(Lane::Telemetry, 1000, Ok(()));
        check(Lane::Telemetry, 1001, Err(Refused::Quota));
        gate.set_backlog(104_000);
        assert_eq!(gate.reserve(Lane::Status, 1), Err(Refused::Quota));
        check(Lane::Status, 1000, Ok(()));
        check(Lane::Status, 1001, Err(Refused::Quota));
        check(Lane::Alerts, 1001, Err(Refused::Quota));
        check(Lane::Bulk, 1, Err(Refused::Quota));
        check(Lane::Dead, 1_000_000, Ok(()));
        gate.set_backlog(0);
        gate.reserve(Lane::Telemetry, 1000).unwrap();
        check(Lane::Dead, 1001, Ok(()));
        check(Lane::Dead, 1002, Err(Refused::Full));
        gate.release(1000);
        gate.set_disk_full(DiskFull { ordinary: true, urgent: false });
        check(Lane::Dead, 1, Ok(()));
        check(Lane::Telemetry, 1, Err(Refused::Space));
        gate.set_disk_full(DiskFull { ordinary: true, urgent: true });
        check(Lane::Dead, 1, Err(Refused::Space));
        check(Lane::Dead, 0, Ok(()));
        gate.set_state(State::Poisoned);
        check(Lane::Dead, 0, Err(Refused::Poisoned));
        assert_eq!(gate.queue_bytes(), 0);
    }

    #[test]
    fn states_are_reported_and_end_waiting() {
        let gate = Gate::new(1000, 100_000);
        gate.set_state(State::Poisoned);
        assert_eq!(gate.reserve(Lane::Alerts, 1), Err(Refused::Poisoned));
        assert!(has_room_after(&gate, Lane::Alerts, |gate| gate.set_state(State::Open)));
        gate.set_state(State::Poisoned);
        assert!(has_room_after(&gate, Lane::Alerts, |gate| gate.set_state(State::Closed)));
        gate.set_state(State::Open);
        assert_eq!(gate.reserve(Lane::Alerts, 1), Err(Refused::Closed), "closing is for good");
    }

    #[test]
    fn reservations_that_nobody_used_do_not_shut_a_quota_for_good() {
        let gate = Gate::new(1 << 20, 100_000);
        for _ in 0..9 {
            gate.reserve(Lane::Telemetry, 10_000).unwrap();
        }
        assert_eq!(gate.reserve(Lane::Telemetry, 10_000), Err(Refused::Quota));
        gate.release(0);
        assert_eq!(gate.reserve(Lane::Telemetry, 1), Ok(()), "90,000 is where it reopens");
        assert_eq!(gate.reserve(Lane::Telemetry, 10_000), Err(Refused::Quota));
        assert_eq!(
            gate.reserve(Lane::Telemetry, 1),
            Err(Refused::Quota),
            "its own refusal does not reopen it"
        );
        assert!(has_room_after(&gate, Lane::Telemetry, |gate| gate.release(10_000)), "nothing was committed");
    }

    #[test]
    fn waiting_is_cancel_safe() {
        let gate = Gate::new(1000, 100_000);
        gate.reserve(Lane::Bulk, 1000).unwrap();
        let mut cx = Context::from_waker(Waker::noop());
        {
            let mut room = pin!(gate.room(Lane::Bulk));
            assert!(room.as_mut().poll(&mut cx).is_pending());
        }
        assert_eq!(gate.waiting.load(Ordering::SeqCst), 0);
    }
}

//! Pacing against a clock and a service that are numbers.

use std::collections::VecDeque;

use proptest::prelude::*;

use super::adaptive::{FLOOR, FORGET, REACTION};
use super::bucket::BURST;
use super::*;
use crate::supervise::clock;

const SECOND: Duration = Duration::from_secs(1);
const MB: u64 = 1_000_000;

fn units(throughput_units: u32) -> Limits {
    Limits { throughput_units, backlog_bytes_per_second: 0 }
}

fn rates(bytes_per_second: u64, records_per_second: u64) -> Rates {
    Rates { bytes_per_second, records_per_second }
}

#[test]
fn without_limits_everything_goes() {
    let now = clock::now();
    let mut pace = Pace::new(Limits::default(), now);
    assert!((0..100_000).all(|_| pace.admit(now, Kind::Backlog, 1000, 1_000_000)));
    pace.observe(now, 0, 0, Duration::ZERO);
    assert_eq!((pace.limit(), pace.next(now)), (None, None));
}

#[test]
fn a_unit_is_a_million_bytes_and_a_thousand_records() {
    let now = clock::now();
    let count = |bytes: usize| {
        let mut pace = Pace::new(units(2), now);
        let sent = |pace: &mut Pace, at| (0..).take_while(|_| pace.admit(at, Kind::Live, 1, bytes)).count();
        let burst = sent(&mut pace, now);
        let second: usize = (1..=100).map(|tick| sent(&mut pace, now + tick * SECOND / 100)).sum();
        (burst, second)
    };
    assert_eq!(count(10), (500, 2000), "records decide");
    assert_eq!(count(10_000), (50, 200), "bytes decide");
}

#[test]
fn the_rate_of_the_backlog_leaves_live_records_alone() {
    let now = clock::now();
    let mut pace = Pace::new(Limits { throughput_units: 0, backlog_bytes_per_second: 1000 }, now);
    assert!(pace.admit(now, Kind::Backlog, 1, 250));
    assert!(!pace.admit(now, Kind::Backlog, 1, 100));
    assert!(pace.admit(now, Kind::Live, 1, 1_000_000));
    assert_eq!(pace.next(now).map(|wait| wait.as_millis()), Some(100));
    assert!(pace.admit(now + SECOND / 9, Kind::Backlog, 1, 100));
    assert_eq!((pace.next(now), pace.limit()), (None, None));
}

#[test]
fn a_cap_holds_what_is_under_it_and_nothing_else() {
    let start = clock::now();
    let mut pace = Pace::new(Limits::default(), start);
    assert!(pace.admit_capped(start, 1_000_000), "there is none");
    pace.set_cap(start, Some(1000));
    let sent = (0..=4000).filter(|ms| pace.admit_capped(start + Duration::from_millis(*ms), 50)).count();
    assert!((80..=86).contains(&sent), "{sent} of 50 bytes in four seconds");
    let now = start + 4 * SECOND;
    assert!(pace.admit(now, Kind::Live, 1, 1_000_000), "what is not under the cap goes");
    assert!(!pace.admit_capped(now, 200) && pace.next(now).is_some_and(|wait| wait > Duration::ZERO));
    pace.settle_capped(200, 0);
    assert!(pace.admit_capped(now, 200), "what did not go after all makes room");
    assert_eq!(pace.next(now), None);
    assert!(!pace.admit_capped(now, 200));
    pace.set_cap(now, None);
    assert!(pace.admit_capped(now, 1_000_000));
    assert_eq!(pace.next(now), None, "and nobody waits for it");
}

#[test]
fn a_record_larger_than_the_burst_goes_and_is_paid_off() {
    let start = clock::now();
    let mut pace = Pace::new(Limits { throughput_units: 1, backlog_bytes_per_second: 1000 }, start);
    assert!(pace.admit(start, Kind::Backlog, 1, 100_000));
    assert!(!pace.admit(start, Kind::Backlog, 1, 1));
    let wait = pace.next(start).unwrap();
    assert!((99..=101).contains(&wait.as_secs()), "{wait:?}");
    assert!(!pace.admit(start + wait - SECOND, Kind::Backlog, 1, 1));
    assert!(pace.admit(start + wait, Kind::Backlog, 1, 1));
}

#[test]
fn nobody_is_woken_for_a_record_that_is_not_asked_for_again() {
    let now = clock::now();
    let mut pace = Pace::new(units(1), now);
    while pace.admit(now, Kind::Live, 1, 1000) {}
    assert_eq!(pace.next(now + SECOND), Some(Duration::ZERO));
    assert_eq!(pace.next(now + SECOND * 2), None);
}

#[test]
fn a_clock_that_stands_still_gives_nothing_twice() {
    let now = clock::now();
    let mut pace = Pace::new(units(1), now);
    while pace.admit(now, Kind::Live, 1, 1000) {}
    pace.observe(now, 0, 0, SECOND);
    pace.violated(now);
    assert!(!pace.admit(now, Kind::Live, 1, 1000));
    assert!(!pace.admit(now - SECOND, Kind::Live, 1, 1000), "nor does one that goes back");
}

// === the limit that follows the service ===

/// Pace and clock, one second at a time.
struct Seconds {
    now: Instant,
    pace: Pace,
}

impl Seconds {
    fn new(limits: Limits) -> Self {
        let now = clock::now();
        let mut seconds = Self { now, pace: Pace::new(limits, now) };
        seconds.pace.observe(now, 0, 0, Duration::ZERO);
        seconds
    }

    /// A second in which so much was confirmed, the service announced `throttle`, and the limit held something
    /// back if there was one.
    fn pass(&mut self, confirmed: Rates, throttle: Duration) -> Option<Rates> {
        self.now += SECOND;
        while self.pace.shared.is_some() && self.pace.admit(self.now, Kind::Live, 1, 1000) {}
        let Rates { bytes_per_second, records_per_second } = confirmed;
        self.pace.observe(self.now, bytes_per_second, records_per_second, throttle);
        self.pace.limit()
    }
}

#[test]
fn the_limit_begins_at_what_is_confirmed_and_goes_down_with_the_delay() {
    let confirmed = rates(10 * MB, 10_000);
    let first = |throttle| Seconds::new(Limits::default()).pass(confirmed, throttle);
    assert_eq!(first(Duration::from_millis(4)), None, "the service's accounts wobble");
    assert_eq!(first(Duration::from_millis(100)), Some(rates(9_700_000, 9_700)));
    assert_eq!(first(SECOND), Some(rates(8_600_000, 8_600)), "most of what is confirmed may go");
    assert_eq!(first(SECOND * 30), Some(rates(7 * MB, 7_000)), "the service has enough to do");
}

#[test]
fn a_silence_lowers_the_limit_step_by_step_to_the_floor() {
    let mut seconds = Seconds::new(Limits::default());
    seconds.pass(rates(10 * MB, 10_000), Duration::ZERO);
    let nothing = rates(0, 0);
    let mut before = seconds.pass(nothing, SECOND * 5).unwrap();
    for second in 0..60 {
        let limit = seconds.pass(nothing, SECOND * 5).unwrap();
        assert!(limit.bytes_per_second >= before.bytes_per_second * 69 / 100, "second {second}: {limit:?}");
        assert!(limit.bytes_per_second >= FLOOR.bytes_per_second);
        before = limit;
    }
    assert_eq!(before, FLOOR);
}

#[test]
fn a_violation_halves_the_limit_once_for_all_records_of_a_batch() {
    let mut seconds = Seconds::new(units(4));
    seconds.pass(rates(4 * MB, 4000), Duration::ZERO);
    for _ in 0..1000 {
        seconds.pace.violated(seconds.now);
    }
    assert_eq!(seconds.pace.limit(), Some(rates(2 * MB, 2000)));
    seconds.pace.violated(seconds.now + REACTION);
    assert_eq!(seconds.pace.limit(), Some(rates(MB, 1000)));
    assert!(seconds.pace.adaptive.limit().is_some());
}

#[test]
fn a_violation_before_anything_was_confirmed_leaves_half_a_unit() {
    let mut seconds = Seconds::new(Limits::default());
    seconds.pace.violated(seconds.now);
    assert_eq!(seconds.pace.limit(), Some(rates(MB / 2, 500)));
}

#[test]
fn a_violation_while_little_is_sent_leaves_half_a_unit_and_is_soon_over() {
    let mut seconds = Seconds::new(Limits::default());
    seconds.pass(rates(1000, 1), Duration::ZERO);
    seconds.pace.violated(seconds.now);
    assert_eq!(seconds.pace.limit(), Some(rates(MB / 2, 500)));
    for _ in 0..12 {
        seconds.pass(rates(MB / 2, 500), Duration::ZERO);
    }
    assert!(seconds.pace.limit().unwrap().records_per_second >= 1000);
}

#[test]
fn the_limit_grows_only_while_it_holds_something_back() {
    let mut seconds = Seconds::new(Limits::default());
    seconds.pass(rates(10 * MB, 10_000), SECOND);
    let low = seconds.pace.limit().unwrap();
    for _ in 0..10 {
        seconds.now += SECOND;
        seconds.pace.observe(seconds.now, 1000, 1, Duration::ZERO);
    }
    assert_eq!(seconds.pace.limit(), Some(low), "nothing was learned");
    let mut grown = low;
    for _ in 0..10 {
        let limit = seconds.pass(grown, Duration::ZERO).unwrap();
        assert_eq!(
            limit.bytes_per_second,
            grown.bytes_per_second + limit_step(grown),
            "a twentieth per second"
        );
        grown = limit;
    }
}

fn limit_step(now: Rates) -> u64 {
    now.bytes_per_second.max(10 * MB) / 20
}

#[test]
fn a_time_without_a_session_does_not_count_as_silence() {
    let mut seconds = Seconds::new(Limits::default());
    seconds.pass(rates(10 * MB, 10_000), Duration::ZERO);
    seconds.now += SECOND * 60;
    seconds.pace.observe(seconds.now, 0, 0, SECOND * 30);
    assert_eq!(seconds.pace.limit(), Some(rates(7 * MB, 7000)));
}

#[test]
fn the_limit_is_forgotten_after_five_minutes_without_throttling() {
    let mut seconds = Seconds::new(units(8));
    seconds.pass(rates(4 * MB, 4000), SECOND);
    assert!(seconds.pace.adaptive.limit().is_some());
    for _ in 0..FORGET.as_secs() {
        seconds.pass(rates(8 * MB, 8000), Duration::ZERO);
    }
    assert_eq!(
        (seconds.pace.adaptive.limit().is_some(), seconds.pace.limit()),
        (false, Some(rates(8 * MB, 8000)))
    );
}

#[test]
fn the_limit_never_passes_the_throughput_units() {
    let mut seconds = Seconds::new(units(1));
    seconds.pass(rates(MB, 1000), SECOND);
    for _ in 0..200 {
        let limit = seconds.pass(rates(MB, 1000), Duration::ZERO).unwrap();
        assert!(limit.bytes_per_second <= MB && limit.records_per_second <= 1000, "{limit:?}");
    }
}

// === against a service with a quota ===

/// Delays what goes beyond its quota, and refuses what would wait longer than a minute.
struct Service {
    quota: u64,
    /// Work that is accepted and not done, in seconds of the quota.
    behind: Duration,
    /// When each comes, and the delay that it announces.
    answers: VecDeque<(Instant, Duration)>,
    refused: u64,
}

/// The mean of the delays announced in two seconds, as the client's statistics tell it afterwards.
#[derive(Default)]
struct Statistics {
    sum: Duration,
    count: u32,
    mean: Duration,
}

impl Statistics {
    fn heard(&mut self, delay: Duration) {
        if !delay.is_zero() {
            self.sum += delay;
            self.count += 1;
        }
    }

    fn renew(&mut self) {
        *self = Self { mean: self.sum.checked_div(self.count).unwrap_or_default(), ..Self::default() };
    }
}

const TICK: Duration = Duration::from_millis(50);
const RECORD: u64 = 1000;
const IN_FLIGHT_MAX: u64 = 64 << 20;
const REQUEST_TIMEOUT: Duration = Duration::from_secs(60);

/// What was confirmed in bytes, how many refusals there were, and the longest delay of each minute.
#[derive(Debug, Default, PartialEq, Eq)]
struct Ran {
    confirmed: u64,
    refused: u64,
    delays: Vec<Duration>,
}

/// Sends as much as the pace and the window allow for `minutes`, with a quota that a function of the second gives.
fn run(limits: Limits, minutes: u32, quota: impl Fn(u64) -> u64) -> Ran {
    let start = clock::now();
    let mut pace = Pace::new(limits, start);
    let mut service =
        Service { quota: quota(0), behind: Duration::ZERO, answers: VecDeque::new(), refused: 0 };
    let (mut ran, mut in_flight, mut confirmed, mut statistics) =
        (Ran::default(), 0, 0, Statistics::default());
    let mut paused = start;
    for tick in 0..minutes * 1200 {
        let now = start + TICK * tick;
        service.quota = quota(u64::from(tick / 20));
        service.behind = service.behind.saturating_sub(TICK);
        while now >= paused && in_flight + RECORD <= IN_FLIGHT_MAX && pace.admit(now, Kind::Live, 1, 1000) {
            if service.take(now) {
                in_flight += RECORD;
            } else {
                // The producer is built anew.
                pace.violated(now);
                paused = now + SECOND;
            }
        }
        while let Some((at, delay)) = service.answers.front().copied()
            && at <= now
        {
            service.answers.pop_front();
            statistics.heard(delay);
            in_flight -= RECORD;
            confirmed += RECORD;
        }
        if tick % 40 == 39 {
            statistics.renew();
        }
        if tick % 20 == 19 {
            pace.observe(now, confirmed, confirmed / RECORD, statistics.mean);
            ran.confirmed += confirmed;
            confirmed = 0;
        }
        let minute = usize::try_from(tick / 1200).unwrap();
        ran.delays.resize(minute + 1, Duration::ZERO);
        ran.delays[minute] = ran.delays[minute].max(service.behind);
    }
    ran.refused = service.refused;
    ran
}

impl Service {
    fn take(&mut self, now: Instant) -> bool {
        if self.behind > REQUEST_TIMEOUT {
            self.refused += 1;
            return false;
        }
        self.behind += SECOND * u32::try_from(RECORD).unwrap() / u32::try_from(self.quota).unwrap();
        self.answers.push_back((now + TICK + self.behind, self.behind.saturating_sub(SECOND)));
        true
    }
}

#[test]
fn a_quota_nobody_named_is_found_and_used() {
    let ran = run(Limits::default(), 10, |_| 2 * MB);
    let share = ran.confirmed * 100 / (600 * 2 * MB);
    assert!(share >= 85, "{share} % of the quota: {ran:?}");
    assert!(ran.delays[2..].iter().all(|delay| *delay < SECOND * 3), "{ran:?}");
}

#[test]
fn units_that_are_named_are_kept_without_any_delay() {
    let ran = run(units(2), 2, |_| 2 * MB);
    let share = ran.confirmed * 100 / (120 * 2 * MB);
    assert!(share >= 97 && ran.refused == 0, "{share} %: {ran:?}");
    assert!(ran.delays.iter().all(|delay| *delay < SECOND), "{ran:?}");
}

#[test]
fn a_quota_that_is_cut_is_followed_and_full_speed_comes_back() {
    let cut = |second: u64| if (60..240).contains(&second) { MB / 4 } else { 4 * MB };
    let ran = run(units(4), 8, cut);
    let possible = (480 - 180) * 4 * MB + 180 * MB / 4;
    let share = ran.confirmed * 100 / possible;
    assert!(share >= 75, "{share} %: {ran:?}");
    assert!(ran.refused < 20, "{ran:?}");
    let ran_longer = run(units(4), 9, cut);
    let last = (ran_longer.confirmed - ran.confirmed) * 100 / (60 * 4 * MB);
    assert!(last >= 97, "{last} % in the last minute");
}

#[test]
fn the_same_calls_give_the_same_answers() {
    let quota = |second: u64| if second.is_multiple_of(90) { MB } else { 3 * MB };
    assert_eq!(run(Limits::default(), 3, quota), run(Limits::default(), 3, quota));
}

// === any calls ===

#[derive(Debug, Clone, Copy)]
struct Offer {
    wait_us: u32,
    backlog: bool,
    records: u32,
    bytes: usize,
}

fn offers() -> impl Strategy<Value = Vec<Offer>> {
    let offer = (0u32..200_000, any::<bool>(), 1u32..50, 1usize..60_000);
    let offer =
        offer.prop_map(|(wait_us, backlog, records, bytes)| Offer { wait_us, backlog, records, bytes });
    prop::collection::vec(offer, 1..150)
}

/// Bytes or records sent at a time.
type Sent = Vec<(Instant, u64)>;

/// In no window more than the rate allows, the burst, and what the largest one passes the burst by.
fn check_windows(what: &str, sent: &Sent, rate: u64) {
    let burst = rate * u64::try_from(BURST.as_millis()).unwrap() / 1000;
    let largest = sent.iter().map(|(_, count)| *count).max().unwrap_or(0);
    for (first, (from, _)) in sent.iter().enumerate() {
        let mut sum = 0;
        for (until, count) in &sent[first..] {
            sum += u128::from(*count);
            let allowed = u128::from(rate) * (*until - *from).as_nanos() / 1_000_000_000;
            let over = u128::from(burst.max(largest)) + 1;
            assert!(
                sum <= allowed + over,
                "{what}: {sum} in {:?}, {allowed} allowed and {over}",
                *until - *from
            );
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn no_window_carries_more_than_its_limits(offers in offers(), units in 1u32..4, rate in 10_000u64..500_000) {
        let mut now = clock::now();
        let mut pace = Pace::new(Limits { throughput_units: units, backlog_bytes_per_second: rate }, now);
        let (mut bytes, mut records, mut backlog) = (Sent::new(), Sent::new(), Sent::new());
        for offer in &offers {
            now += Duration::from_micros(offer.wait_us.into());
            let kind = if offer.backlog { Kind::Backlog } else { Kind::Live };
            while pace.admit(now, kind, offer.records, offer.bytes) {
                bytes.push((now, to_u64(offer.bytes)));
                records.push((now, offer.records.into()));
                if offer.backlog {
                    backlog.push((now, to_u64(offer.bytes)));
                }
            }
        }
        check_windows("bytes", &bytes, u64::from(units) * MB);
        check_windows("records", &records, u64::from(units) * 1000);
        check_windows("backlog", &backlog, rate);
    }

    #[test]
    fn whatever_is_refused_goes_after_the_wait_that_is_named(
        offers in offers(),
        units in 0u32..3,
        rate in 0u64..100_000,
        throttle_ms in 0u64..3000,
    ) {
        let mut now = clock::now();
        let mut pace = Pace::new(Limits { throughput_units: units, backlog_bytes_per_second: rate }, now);
        for (number, offer) in offers.iter().enumerate() {
            let kind = if offer.backlog { Kind::Backlog } else { Kind::Live };
            if number % 7 == 3 {
                pace.observe(now, 100_000, 100, Duration::from_millis(throttle_ms));
            }
            let mut waits = 0;
            while !pace.admit(now, kind, offer.records, offer.bytes) {
                now += pace.next(now).expect("what was refused has a wait");
                waits += 1;
                prop_assert!(waits <= 1, "a wait that is too short");
            }
            prop_assert_eq!(pace.next(now), None);
            now += Duration::from_micros(offer.wait_us.into());
        }
    }

    #[test]
    fn the_limit_stays_between_the_floor_and_the_units(
        seconds in prop::collection::vec((0u64..20 * MB, 0u64..2000, 0u64..3000, any::<bool>()), 1..200),
        named in 1u32..10,
    ) {
        let mut now = clock::now();
        let mut pace = Pace::new(units(named), now);
        for (bytes, records, throttle_ms, violated) in seconds {
            now += SECOND;
            while pace.admit(now, Kind::Live, 1, 10_000) {}
            // Half of the seconds are calm.
            pace.observe(now, bytes, records, Duration::from_millis(throttle_ms.saturating_sub(1500)));
            if violated && throttle_ms > 2900 {
                pace.violated(now);
            }
            let limit = pace.limit().expect("units are named");
            prop_assert!(limit.bytes_per_second >= FLOOR.bytes_per_second);
            prop_assert!(limit.records_per_second >= FLOOR.records_per_second);
            prop_assert!(limit.min(Rates::units(named)) == limit);
        }
    }
}

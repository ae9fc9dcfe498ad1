//! Time, gaps, numbers that hardly are, and what a snapshot keeps.

use super::super::exam::{Noise, Random};
use super::super::{Detector, Refused, Series, Settings, Tuning};

const START_MS: u64 = 1_700_000_000_000;
const MINUTE_MS: u64 = 60_000;

fn detector(settings: Settings) -> Detector {
    Detector::new(Tuning::SHIPPED, settings)
}

fn settings() -> Settings {
    Settings { threshold: 0.6, warm_up_ms: 0, ..Settings::every_ms(60_000) }
}

/// A series that has seen `count` minutes of noise about 20.
fn learned(detector: &Detector, count: u32) -> (Series, u64) {
    let mut series = Series::NEW;
    let mut at_ms = START_MS;
    for value in Noise::Gaussian.values(1, count, 60_000) {
        at_ms += MINUTE_MS;
        detector.observe(&mut series, at_ms, value).unwrap();
    }
    (series, at_ms)
}

#[test]
fn what_is_no_number_or_late_changes_nothing() {
    let detector = detector(settings());
    let (mut series, at_ms) = learned(&detector, 500);
    let before = series.clone();
    let mut check = |at_ms: u64, value: f64, expected: Refused| {
        assert_eq!(detector.observe(&mut series, at_ms, value), Err(expected));
        assert_eq!(series, before);
    };
    check(at_ms + MINUTE_MS, f64::NAN, Refused::NotANumber);
    check(at_ms + MINUTE_MS, f64::NEG_INFINITY, Refused::NotANumber);
    check(at_ms, 20.0, Refused::Late);
    check(at_ms - 50 * MINUTE_MS, 20.0, Refused::Late);
}

#[test]
fn a_clock_that_was_set_back_is_followed() {
    let detector = detector(settings());
    let (mut series, at_ms) = learned(&detector, 500);
    let back_ms = at_ms - 7200 * MINUTE_MS;
    assert_eq!(detector.observe(&mut series, back_ms, 20.0), Err(Refused::Late));
    assert!(detector.observe(&mut series, back_ms + MINUTE_MS, 20.0).is_ok());
}

#[test]
fn the_first_value_after_a_gap_is_not_judged() {
    let detector = detector(settings());
    let (mut series, at_ms) = learned(&detector, 5000);
    let mut other = series.clone();
    let after = detector.observe(&mut series, at_ms + 25 * MINUTE_MS, 200.0).unwrap();
    assert_eq!((after.score, after.alert), (0.0, false));
    assert!(detector.observe(&mut other, at_ms + MINUTE_MS, 200.0).unwrap().alert);
}

/// The same second-long average, whether a measurement is missing or not.
#[test]
fn a_missing_measurement_moves_averages_as_far_as_two() {
    let detector = detector(settings());
    let (mut one, at_ms) = learned(&detector, 5000);
    let mut two = one.clone();
    let level = 25.0;
    detector.observe(&mut one, at_ms + 2 * MINUTE_MS, level).unwrap();
    detector.observe(&mut two, at_ms + MINUTE_MS, level).unwrap();
    detector.observe(&mut two, at_ms + 2 * MINUTE_MS, level).unwrap();
    let (one, two) = (one.numbers, two.numbers);
    assert!((one.mid - two.mid).abs() < 1e-3 && (one.long - two.long).abs() < 1e-4, "{one:?} {two:?}");
}

#[test]
fn a_new_series_raises_nothing_until_it_is_warm() {
    let warm_up_ms = 2 * 86_400_000;
    let detector = detector(Settings { warm_up_ms, ..settings() });
    for (minutes, expected) in [(2 * 1440 - 10, false), (2 * 1440 + 10, true)] {
        let (mut series, at_ms) = learned(&detector, minutes);
        let observed = detector.observe(&mut series, at_ms + MINUTE_MS, 100.0).unwrap();
        assert_eq!(observed.alert, expected, "{minutes}");
        assert!(observed.score > 0.6);
    }
}

#[test]
fn the_cooldown_is_a_time() {
    let detector = detector(Settings { cooldown_ms: Some(2 * 3_600_000), ..settings() });
    let (mut series, at_ms) = learned(&detector, 5000);
    assert!(detector.observe(&mut series, at_ms + MINUTE_MS, 100.0).unwrap().alert);
    assert!(series.is_quiet());
    let mut quiet = 0;
    let mut now_ms = at_ms + MINUTE_MS;
    while series.is_quiet() {
        now_ms += MINUTE_MS;
        detector.observe(&mut series, now_ms, 20.0).unwrap();
        quiet += 1;
    }
    assert_eq!(quiet, 120);
}

/// A level that stays is told twice at most, and then it is the new normal.
#[test]
fn what_fires_is_not_learned_unless_it_stays() {
    let detector = detector(Settings { learn_while_firing: false, ..settings() });
    let (mut series, mut at_ms) = learned(&detector, 5000);
    let before = series.numbers.long;
    let mut alerts = 0;
    for (at, value) in (0_u32..).zip(Noise::Gaussian.values(2, 3000, 60_000)) {
        at_ms += MINUTE_MS;
        alerts += u32::from(detector.observe(&mut series, at_ms, value + 30.0).unwrap().alert);
        if at == 50 {
            assert_eq!((alerts, series.numbers.long), (1, before));
        }
    }
    assert!((2..=6).contains(&alerts), "{alerts}");
    assert!((series.numbers.long - before).abs() > 1.0, "{series:?}");
}

/// Whatever comes, in whatever rhythm: scores stay between 0 and 1, and the state can be written and read.
#[test]
fn extreme_numbers_and_times_leave_a_state_that_holds() {
    for seed in 0..200 {
        println!("seed {seed}");
        let mut random = Random(seed);
        let season = random.bits().is_multiple_of(2);
        let every_ms = if random.bits().is_multiple_of(2) { 0 } else { 1000 };
        let detector = detector(Settings { season, every_ms, ..settings() });
        let (mut series, mut at_ms) = (Series::NEW, START_MS);
        for _ in 0..400 {
            at_ms = at_ms.saturating_add(1 << (random.bits() % 40));
            let exponent = i32::try_from(random.bits() % 600).unwrap() - 290;
            let value = match random.bits() % 4 {
                0 => random.normal() * 10_f64.powi(exponent),
                1 => f64::MAX * random.normal().signum(),
                2 => f64::MIN_POSITIVE * random.normal(),
                _ => 20.0 + random.normal(),
            };
            let Ok(observed) = detector.observe(&mut series, at_ms, value) else { continue };
            assert!((0.0..1.0).contains(&observed.score), "{observed:?}");
            let mut bytes = Vec::new();
            series.encode(&mut bytes);
            let decoded = Series::decode(&mut bytes.as_slice());
            assert_eq!(decoded.as_ref(), Ok(&series), "{value}");
        }
    }
}

#[test]
fn a_series_goes_on_from_its_snapshot_as_if_nothing_had_been() {
    let detector = detector(settings());
    let (mut series, mut at_ms) = learned(&detector, 5000);
    let mut bytes = Vec::new();
    series.encode(&mut bytes);
    assert_eq!(bytes.len(), Series::ENCODED_BYTES);
    bytes.push(7);
    let mut rest = bytes.as_slice();
    let mut restored = Series::decode(&mut rest).unwrap();
    assert_eq!(rest, [7]);
    for value in Noise::Gaussian.values(3, 500, 60_000) {
        at_ms += MINUTE_MS;
        let observed = detector.observe(&mut series, at_ms, value);
        assert_eq!(detector.observe(&mut restored, at_ms, value), observed);
    }
    assert_eq!(restored, series);
}

#[test]
fn junk_is_no_series() {
    let (series, _) = learned(&detector(settings()), 100);
    let mut good = Vec::new();
    series.encode(&mut good);
    let refused = |change: fn(&mut Vec<u8>), expected: &str| {
        let mut bytes = good.clone();
        change(&mut bytes);
        let error = Series::decode(&mut bytes.as_slice()).unwrap_err();
        assert_eq!(error.to_string(), expected);
    };
    refused(|bytes| bytes[0] = 9, "version 9 of a learned series is not known");
    refused(|bytes| bytes.truncate(458), "a learned series is cut off");
    refused(|bytes| bytes.clear(), "a learned series is cut off");
    refused(|bytes| bytes[17..21].fill(0xFF), "a number of a learned series is impossible");
    refused(|bytes| bytes[1..9].fill(0xFF), "the base of a learned series is impossible");
    refused(|bytes| bytes[185] ^= 0x80, "a tail of a learned series is impossible");
}

/// A counter that runs far from where it began is told apart as finely as there.
#[test]
fn digits_are_not_lost_far_from_the_first_value() {
    let detector = detector(Settings { season: false, ..settings() });
    let mut series = Series::NEW;
    for (at, value) in (0_u64..).zip(Noise::Gaussian.values(4, 5000, 60_000)) {
        let far = if at == 0 { 0.0 } else { 3e8 + 100.0 * value };
        detector.observe(&mut series, START_MS + at * MINUTE_MS, far).unwrap();
    }
    assert!((series.base - 3e8).abs() < 1e7, "{}", series.base);
}

/// Numbers of another unit give the same scores, but for the last digits.
#[test]
fn units_do_not_matter() {
    let detector = detector(settings());
    for unit in [1e-9, 1e3, 1e12] {
        let (mut one, mut other) = (Series::NEW, Series::NEW);
        for (at, value) in (0_u64..).zip(Noise::Daily.values(5, 3000, 60_000)) {
            let at_ms = START_MS + at * MINUTE_MS;
            let score = detector.observe(&mut one, at_ms, value).unwrap().score;
            let scaled = detector.observe(&mut other, at_ms, value * unit).unwrap().score;
            assert!((score - scaled).abs() < 0.08, "{unit}, {at}: {score}, {scaled}");
        }
    }
}

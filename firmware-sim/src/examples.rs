//! The rules and the faults that are shipped as examples, held against what devices with them say.

use std::time::Duration;

use penstock_proto::Reading;
use testkit::alerts::Kind;

use crate::instruments::Instruments;
use crate::plan::{self, DevicePlan};
use crate::profile::Profile;

const RULES: &str = include_str!("../../deploy/rules/faults.toml");
const PROFILE: &str = include_str!("../profiles/faults.toml");
const DEVICES: u32 = 200;

fn profile() -> Profile {
    let profile: Profile = toml::from_str(PROFILE).unwrap();
    profile.check().unwrap();
    profile
}

/// The number of a limit such as `"> 40"` in the rule with this id.
fn limit(rule: &str, key: &str) -> f64 {
    let rules: toml::Table = RULES.parse().unwrap();
    let rules = rules["rule"].as_array().unwrap();
    let rule = rules.iter().find(|one| one["id"].as_str() == Some(rule)).unwrap();
    match &rule[key] {
        toml::Value::String(text) => text.split(' ').nth(1).unwrap().parse().unwrap(),
        toml::Value::Float(number) => *number,
        other => panic!("{other}"),
    }
}

/// What the devices say in 30 seconds, at so many readings per second of each on average.
fn fleet(profile: &Profile, rate: f64) -> Vec<(DevicePlan, Vec<Reading>)> {
    let devices = plan::devices(11, DEVICES, rate * f64::from(DEVICES), profile);
    let said = devices.into_iter().map(|device| {
        let mut instruments = Instruments::new(&device, profile.signal);
        let end = Duration::from_secs(30).saturating_sub(device.connect_after + device.phase);
        let mut readings = Vec::new();
        for slot in (0..).map_while(|slot| device.period.checked_mul(slot).filter(|after| *after < end)) {
            if !instruments.is_silent() {
                let taken_ms = u64::try_from(slot.as_millis()).unwrap();
                let reading = u64::try_from(readings.len()).unwrap() + 1;
                let payload = instruments.payload(reading, taken_ms, 150);
                readings.push(serde_json::from_slice(&payload).unwrap());
            }
        }
        (device, readings)
    });
    said.collect()
}

/// The steepest rise between readings that are at least a second apart, per second.
fn rise(readings: &[Reading]) -> f64 {
    let (mut steepest, mut base): (f64, Option<&Reading>) = (0.0, None);
    for reading in readings {
        let Some(before) = base else {
            base = Some(reading);
            continue;
        };
        let passed = reading.taken_ms - before.taken_ms;
        if passed >= 1000 {
            let passed = f64::from(u32::try_from(passed).unwrap()) / 1000.0;
            steepest = steepest.max((reading.pressure - before.pressure) / passed);
            base = Some(reading);
        }
    }
    steepest
}

/// The most readings in a row that do not leave the first one's vibration, and the longest silence in milliseconds.
fn stillness(readings: &[Reading]) -> (usize, u64) {
    let epsilon = limit("vibration-stuck", "epsilon");
    let (mut most, mut still) = (1, 1);
    let mut anchor = readings[0].vibration;
    for reading in &readings[1..] {
        still = if (reading.vibration - anchor).abs() > epsilon { 1 } else { still + 1 };
        if still == 1 {
            anchor = reading.vibration;
        }
        most = most.max(still);
    }
    let silences = readings.windows(2).map(|pair| pair[1].taken_ms - pair[0].taken_ms);
    (most, silences.max().unwrap())
}

/// The most readings in a row above the limit of the temperature.
fn hot(readings: &[Reading]) -> usize {
    let raise = limit("overtemp", "raise");
    let runs = readings.split(|reading| reading.temperature <= raise);
    runs.map(<[Reading]>::len).max().unwrap_or_default()
}

#[test]
fn a_device_without_faults_stays_clear_of_the_rules() {
    let profile = Profile { faults: Vec::new(), ..profile() };
    for rate in [3.0, 10.0, 30.0] {
        for (device, readings) in fleet(&profile, rate) {
            let clear = limit("overtemp", "clear");
            assert!(readings.iter().all(|reading| reading.temperature < clear - 5.0), "{device:?}");
            assert!(rise(&readings) < limit("pressure-jump", "raise") / 2.0, "{device:?}");
            let (still, silent_ms) = stillness(&readings);
            assert!(still < 5 && silent_ms < 1000, "{device:?}: {still}, {silent_ms} ms");
        }
    }
}

#[test]
fn every_fault_breaks_the_rule_that_is_for_it() {
    let profile = profile();
    let mut seen = vec![0; profile.faults.len()];
    for (device, readings) in fleet(&profile, 10.0) {
        let [episode] = device.faults.as_slice() else {
            assert!(device.faults.is_empty(), "no device has two: {device:?}");
            continue;
        };
        let (still, silent_ms) = stillness(&readings);
        let metric = episode.metric.map(crate::signal::Metric::name);
        let broken = match (episode.kind, metric) {
            (Kind::Shift | Kind::Drift | Kind::Spike | Kind::Gain, Some("temperature")) => {
                hot(&readings) >= 3
            }
            (Kind::Shift, Some("pressure")) => rise(&readings) > 2.0 * limit("pressure-jump", "raise"),
            (Kind::Stuck, Some("vibration")) => still > 50,
            (Kind::Dropout, None) => silent_ms > 10_000,
            (Kind::Noise, Some("vibration")) => still < 5,
            other => panic!("{other:?}"),
        };
        assert!(broken, "{device:?}");
        seen[usize::try_from(episode.number).unwrap() - 1] += 1;
    }
    assert_eq!(seen, vec![4; 8]);
}

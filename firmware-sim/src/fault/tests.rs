use super::*;
use crate::plan;
use crate::profile::Profile;

fn fault(text: &str) -> Fault {
    let profile: Profile = toml::from_str(&format!("[[fault]]\n{text}")).unwrap();
    profile.check().unwrap();
    profile.faults[0].clone()
}

fn check(text: &str, expected: Option<&str>) {
    let lines = text.replace(", ", "\n");
    let profile =
        toml::from_str::<Profile>(&format!("[[fault]]\n{lines}")).map_err(|error| error.to_string());
    let error = profile.and_then(|profile| profile.check().map_err(|error| error.to_string())).err();
    match (error, expected) {
        (None, None) => {}
        (Some(error), Some(expected)) => assert!(error.contains(expected), "{text}: {error}"),
        (error, expected) => panic!("{text}: {error:?} instead of {expected:?}"),
    }
}

#[test]
fn a_fault_says_what_its_kind_needs_and_nothing_else() {
    let shift = "kind = 'shift', metric = 'pressure', start_reading = 9, length_seconds = 2.5";
    check(&format!("{shift}, deviations = 6"), None);
    check(&format!("{shift}, absolute = -6.5, seed = 7, percent = 100, spread_seconds = 0.5"), None);
    check(shift, Some("fault 1 (shift): needs deviations or absolute"));
    check(&format!("{shift}, absolute = 1, deviations = 1"), Some("not both"));
    check(
        &format!("{shift}, absolute = 0"),
        Some("absolute is 0, allowed is -1000000000 to 1000000000 but not 0"),
    );
    check(&format!("{shift}, absolute = nan"), Some("absolute is NaN"));
    check(&format!("{shift}, absolute = 1, factor = 2"), Some("takes no factor"));
    check(&format!("{shift}, absolute = 1, percent = 101"), Some("percent is 101"));
    check(
        &format!("{shift}, absolute = 1, start_seconds = 1"),
        Some("takes its start in readings or in seconds"),
    );
    check(&format!("{shift}, absolute = 1, spread_seconds = -1"), Some("spread_seconds is -1"));
    check(&format!("{shift}, absolute = 1, often = true"), Some("unknown field"));
    check("kind = 'spike', metric = 'pressure', deviations = 9, start_seconds = 1", None);
    check("kind = 'spike', deviations = 9, start_seconds = 1", Some("needs a metric"));
    check("kind = 'spike', metric = 'light', deviations = 9, start_seconds = 1", Some("unknown variant"));
    check("kind = 'noise', metric = 'vibration', start_seconds = 1, length_seconds = 1", None);
    check(
        "kind = 'noise', metric = 'vibration', factor = 1, start_seconds = 1, length_seconds = 1",
        Some("not 1"),
    );
    check("kind = 'gain', metric = 'vibration', start_seconds = 1, length_seconds = 1", Some("needs factor"));
    check("kind = 'gain', metric = 'vibration', factor = 0, start_seconds = 1, length_seconds = 1", None);
    check(
        "kind = 'stuck', metric = 'vibration', start_seconds = 1",
        Some("needs length_readings or length_seconds"),
    );
    check(
        "kind = 'stuck', metric = 'vibration', length_readings = 5",
        Some("needs start_reading or start_seconds"),
    );
    check(
        "kind = 'stuck', metric = 'vibration', start_reading = 0, length_readings = 5",
        Some("start_reading is 0"),
    );
    check("kind = 'dropout', start_reading = 5, length_seconds = 3e6", Some("length_seconds is 3000000"));
    check(
        "kind = 'dropout', metric = 'pressure', start_reading = 5, length_seconds = 3",
        Some("takes no metric"),
    );
    check("kind = 'clock-jump', start_reading = 5, length_seconds = 3", Some("needs jump_seconds"));
    check("kind = 'clock-jump', jump_seconds = -3600, start_reading = 5, length_seconds = 3", None);
    check("kind = 'melted', start_reading = 5", Some("unknown variant"));
}

#[test]
fn faults_are_many_but_not_without_end() {
    let one = "[[fault]]\nkind = 'dropout'\nstart_reading = 5\nlength_readings = 5\n";
    let read = |count| toml::from_str::<Profile>(&one.repeat(count)).unwrap().check();
    assert!(read(FAULTS_MAX).is_ok());
    assert_eq!(
        read(FAULTS_MAX + 1).unwrap_err().to_string(),
        "fault is given 65 times, allowed is 64 times at most"
    );
}

fn plan(faults: &[Fault], seed: u64) -> Vec<DevicePlan> {
    plan::devices(seed, 200, 2000.0, &Profile { faults: faults.to_vec(), ..Profile::default() })
}

#[test]
fn the_same_seed_gives_the_same_faults() {
    let shift = fault(
        "kind = 'shift'\nmetric = 'pressure'\nabsolute = 1\nstart_seconds = 5\nspread_seconds = 3\nlength_readings = 4",
    );
    let faults =
        |faults: &[Fault], seed| plan(faults, seed).into_iter().map(|plan| plan.faults).collect::<Vec<_>>();
    let one = std::slice::from_ref(&shift);
    assert_eq!(faults(one, 1), faults(one, 1));
    assert_ne!(faults(one, 1), faults(one, 2));
    // Two do not fall on the same devices as long as there are others.
    let twice = faults(&[shift.clone(), shift.clone()], 1);
    assert!(twice.iter().all(|faults| faults.len() < 2), "{twice:?}");
    let most = Fault { percent: 60, ..shift.clone() };
    let twice = faults(&[most.clone(), most], 1);
    assert_eq!(twice.iter().filter(|faults| faults.len() == 2).count(), 40);
    assert!(twice.iter().all(|faults| !faults.is_empty()));
    // A seed of its own makes it the same for every fleet.
    let own = Fault {
        seed: Some(7),
        start_seconds: None,
        start_reading: Some(3),
        spread_readings: Some(90),
        spread_seconds: None,
        ..shift
    };
    assert_eq!(faults(std::slice::from_ref(&own), 1), faults(&[own], 2));
}

#[test]
fn the_share_of_devices_is_met_and_a_fault_changes_nothing_else() {
    let shift = fault(
        "kind = 'shift'\nmetric = 'pressure'\ndeviations = 4\npercent = 15\nstart_reading = 9\nlength_readings = 4",
    );
    let with = plan(&[shift], 1);
    let concerned: Vec<&Episode> = with.iter().flat_map(|plan| &plan.faults).collect();
    assert_eq!(concerned.len(), 30);
    assert!(concerned.iter().all(|episode| (episode.first, episode.last()) == (9, 12)));
    assert!(concerned.iter().all(|episode| (episode.size - 0.8).abs() < 1e-9));
    let mut without = with.clone();
    without.iter_mut().for_each(|plan| plan.faults.clear());
    assert_eq!(without, plan(&[], 1));
}

#[test]
fn times_are_turned_into_readings_of_each_device() {
    let silence =
        fault("kind = 'dropout'\npercent = 100\nstart_seconds = 5\nspread_seconds = 2\nlength_seconds = 3");
    for plan in plan(&[silence], 1) {
        let episode = plan.faults[0];
        // The reading after the one that is the last before the silence.
        let at = |reading: u64| {
            (plan.connect_after + plan.phase + plan.period * u32::try_from(reading - 1).unwrap())
                .as_secs_f64()
        };
        let (first, period) = (at(episode.first + 1), plan.period.as_secs_f64());
        assert!((5.0..7.0 + period).contains(&first), "{first} {plan:?}");
        let length = period * f64::from(u32::try_from(episode.readings).unwrap());
        assert!((length - 3.0).abs() <= period / 2.0 + 1e-9, "{length} {period}");
        assert_eq!(episode.last(), episode.first + 1);
    }
}

#[test]
fn late_beginnings_are_spread_over_the_readings_asked_for() {
    let stuck = fault(
        "kind = 'stuck'\nmetric = 'vibration'\npercent = 100\nstart_reading = 11\nspread_readings = 10\nlength_readings = 5",
    );
    let mut firsts: Vec<u64> = plan(&[stuck], 1).iter().map(|plan| plan.faults[0].first).collect();
    firsts.sort_unstable();
    firsts.dedup();
    assert_eq!(firsts, (11..=20).collect::<Vec<_>>());
}

#[test]
fn a_device_says_something_before_it_is_silent() {
    let silence = fault("kind = 'dropout'\npercent = 100\nstart_reading = 1\nlength_readings = 5");
    assert!(plan(&[silence], 1).iter().all(|plan| plan.faults[0].first == 1));
}

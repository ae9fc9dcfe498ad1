//! The gateway dies at every named moment at which a crash could leave something half done, and comes back on
//! what is there. `testkit::drill::points` is the table; `cargo xtask drill crash` draws from it at random.

use std::collections::BTreeSet;
use std::time::Duration;

use testkit::drill::points::{Point, Situation};
use testkit::drill::stage::{Birth, Death, Load, Stage};
use testkit::gateway::{Config, Gateway};
use testkit::powercut::{Mode, PowerCut};

use crate::client::Device;

/// Longest wait for a point under load.
const WITHIN: Duration = Duration::from_secs(8);
/// How often a point is tried: an opening after a short life may have nothing left to do at it.
const TRIES: usize = 3;

#[test]
fn a_death_while_the_outbox_is_created_leaves_what_opens() {
    for point in Point::of(Situation::Creation) {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let [home, twin] = ["home", "twin"].map(|name| folder.path().join(name));
        for place in [&home, &twin] {
            std::fs::create_dir(place).expect("a folder");
        }
        let cut = PowerCut::prepare(&home.join("outbox"), &twin.join("outbox"), Mode::Strict);
        let cut = cut.expect("a twin").killed(&point.rule(point.numbers.0));
        let config = || Config::default().set("uplink", "enabled = false");
        let died = Gateway::start(&home, config().environment(cut.environment()));
        assert!(
            died.as_ref().is_err_and(|error| error.is_killed()),
            "{} was not reached: {died:?}",
            point.name
        );

        // The process alone died; then, that the power was cut.
        for place in [&home, &twin] {
            let mut gateway = Gateway::start(place, config())
                .unwrap_or_else(|error| panic!("{}, {}: {error}", point.name, place.display()));
            assert_eq!(Device::connect(gateway.mqtt(), "pump-7").pump(8, 50, |_| ()), 50);
            assert!(gateway.stop().expect("it stops").success(), "{}", point.name);
        }
    }
}

#[test]
fn nothing_acknowledged_is_lost_by_a_death_under_load_or_while_opening() {
    let load = Load { seed: 1, devices: 30, rate: 1000, payload_bytes: 300, give_up_after: WITHIN };
    let points = Point::of(Situation::Load).chain(Point::of(Situation::Opening));
    die_at_each(points.collect(), load, Config::default());
}

#[test]
fn nothing_acknowledged_is_lost_by_a_death_while_files_are_written_or_removed() {
    let load = Load { seed: 2, devices: 30, rate: 2000, payload_bytes: 8000, give_up_after: WITHIN };
    let points = Point::of(Situation::Flush).chain(Point::of(Situation::Trim));
    die_at_each(points.collect(), load, Config::default().set("outbox", "body_codec = \"none\""));
}

/// One fleet, one directory, a death at each of the points in turn; then everything acknowledged arrives.
fn die_at_each(points: Vec<&Point>, load: Load, config: Config) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let home = folder.path().join("home");
    let cut = PowerCut::prepare(&home.join("outbox"), &folder.path().join("twin"), Mode::Strict);
    let cut = cut.expect("a twin");
    let config = config.environment(cut.environment());
    let mut stage = Stage::set(folder.path(), &home, config, load).expect("everything starts");
    let mut missed = BTreeSet::new();
    for point in points {
        let armed = cut.clone().killed(&point.rule(point.numbers.0));
        let reached = (0..TRIES).any(|_| {
            stage.gateway().kill().expect("it can be killed");
            let born = stage.next_life(&home, armed.environment());
            match born.map_err(|error| format!("before {}: {error}", point.name)).expect("it comes back") {
                Birth::Stillborn => true,
                Birth::Ready => {
                    let within = if point.situation == Situation::Opening { SHORT } else { WITHIN };
                    stage.end_life(within).expect("it dies in order") == Death::AtPoint
                }
            }
        });
        if !reached {
            missed.insert(point.name);
        }
    }
    assert_eq!(stage.next_life(&home, []).expect("it opens what is left"), Birth::Ready);
    let outcome = stage.judge(SHORT).expect("the fleet judges");
    assert_eq!(outcome.broken(), [""; 0]);
    assert_eq!(missed, BTreeSet::new(), "never reached");
}

/// A life that is only to leave something behind.
const SHORT: Duration = Duration::from_millis(400);

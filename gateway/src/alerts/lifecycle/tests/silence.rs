//! Mutes and inhibition: recorded, not sent, and sent when the silence ends.

use super::*;

const MUTE: &str = r#"
[[mute]]
match = { site = "par*", rule = ["boiler", "pressure"] }
windows = "Sat 12:30-13:00"
"#;

#[test]
fn a_muted_alert_is_told_when_the_mute_ends_if_it_is_open() {
    let mut world = World::new(MUTE);
    world.pass(30 * MINUTE);
    world.raise(BOILER, "dev-1", Severity::Warning);
    world.raise(BOILER, "dev-2", Severity::Critical);
    world.raise(SILENT, "dev-3", Severity::Warning);
    world.severity(BOILER, "dev-1", Severity::Critical);
    world.clear(BOILER, "dev-2");
    world.restart();
    world.pass(30 * MINUTE - 1);
    world.check(&["raised silent dev-3 warning :1"]);
    world.pass(1);
    world.check(&["raised boiler dev-1 critical :1"]);
    assert_eq!(world.counts.muted, 2);
}

#[test]
fn the_end_of_an_alert_that_was_told_is_told_through_a_mute() {
    let mut world = World::new(MUTE);
    world.raise(BOILER, "dev-1", Severity::Warning);
    world.raise(BOILER, "dev-2", Severity::Warning);
    world.pass(45 * MINUTE);
    world.told.clear();
    world.severity(BOILER, "dev-1", Severity::Critical);
    world.severity(BOILER, "dev-2", Severity::Critical);
    world.check(&[]);
    world.clear(BOILER, "dev-1");
    world.check(&["resolved boiler dev-1 critical :2"]);
    world.pass(15 * MINUTE);
    world.check(&["updated boiler dev-2 critical :2 severity"]);
}

#[test]
fn a_mute_for_one_time_ends_for_ever() {
    let mut world = World::new(
        "[[mute]]\nmatch = { device = \"dev-1\" }\nfrom = 2026-11-21T13:10:00+01:00\nuntil = \"2026-11-21T12:20:00Z\"",
    );
    for minutes in [0, 10, 5, 5] {
        world.pass(minutes * MINUTE);
        world.raise(BOILER, "dev-1", Severity::Warning);
        world.clear(BOILER, "dev-1");
    }
    assert_eq!((world.counts.told_raised, world.counts.muted), (2, 2));
}

/// Clocks in Paris go from 02:00 to 03:00 on 29 March 2026, and from 03:00 back to 02:00 on 25 October.
#[test]
fn a_window_follows_the_clock_on_the_wall() {
    let windows =
        "[[mute]]\nwindows = [\"Sun 02:00-04:00 Europe/Paris\", \"Fri-Sat 23:30-00:30 Europe/Paris\"]";
    let policy = policy(windows);
    let check = |around: u64, expected: &[(i64, i64)]| {
        // Every minute of two days, as seen by the mute: minutes from the first one.
        let mut mutes = super::super::policy::Mutes::default();
        let rules =
            super::super::policy::Matched { tenant: None, site: None, class: None, device: "d", rule: "r" };
        let begin = around - 24 * HOUR;
        let muted = (0..48 * 60).filter(|minute| mutes.cover(&policy.mutes, rules, begin + minute * MINUTE));
        let mut found: Vec<(i64, i64)> = Vec::new();
        for minute in muted.map(|minute| i64::try_from(minute).expect("small") - 24 * 60) {
            match found.last_mut() {
                Some((_, end)) if *end == minute => *end += 1,
                _ => found.push((minute, minute + 1)),
            }
        }
        assert_eq!(found, expected);
    };
    // Minutes from midnight UTC. Paris is one hour ahead in winter, two in summer.
    check(1_774_742_400_000, &[(-90, -30), (60, 120)]);
    check(1_792_886_400_000, &[(-150, -90), (0, 180)]);
    check(NOON + 12 * HOUR, &[(-90, -30), (60, 180)]);
}

#[test]
fn an_inhibited_alert_is_told_when_the_other_ends() {
    let mut world = World::new("");
    world.raise(SILENT, "dev-1", Severity::Warning);
    world.raise(BOILER, "dev-1", Severity::Critical);
    world.raise(BOILER, "dev-2", Severity::Warning);
    world.check(&["raised silent dev-1 warning :1", "raised boiler dev-2 warning :1"]);
    world.restart();
    world.clear(SILENT, "dev-1");
    world.check(&["resolved silent dev-1 warning :2", "raised boiler dev-1 critical :1"]);
    assert_eq!(world.counts.inhibited, 1);
}

#[test]
fn an_alert_of_the_gateway_inhibits_those_of_all_devices() {
    let mut world = World::new("");
    world.raise(BOILER, "dev-0", Severity::Warning);
    world.raise(UPLINK, "site-7", Severity::Critical);
    world.raise(SILENT, "dev-1", Severity::Warning);
    world.raise(BOILER, "dev-1", Severity::Warning);
    world.raise(BOILER, "dev-2", Severity::Warning);
    world.raise(PRESSURE, "dev-1", Severity::Warning);
    world.clear(BOILER, "dev-2");
    world.clear(BOILER, "dev-0");
    world.check(&[
        "raised boiler dev-0 warning :1",
        "raised uplink site-7 critical :1",
        "raised pressure dev-1 warning :1",
        "resolved boiler dev-0 warning :2",
    ]);
    world.clear(UPLINK, "site-7");
    // The boiler's alert is now inhibited by the silence of its device.
    world.check(&["resolved uplink site-7 critical :2", "raised silent dev-1 warning :1"]);
    world.clear(SILENT, "dev-1");
    world.check(&["resolved silent dev-1 warning :2", "raised boiler dev-1 warning :1"]);
}

#[test]
fn a_rule_that_goes_releases_what_it_inhibited() {
    let mut world = World::new("");
    world.raise(SILENT, "dev-1", Severity::Warning);
    world.raise(BOILER, "dev-1", Severity::Warning);
    world.told.clear();
    let rules = rules().into_iter().filter(|rule| &*rule.id != "silent").collect();
    world.replace("", rules);
    world.check(&["resolved silent dev-1 warning :2 rule-removed", "raised boiler dev-1 warning :1"]);
}

#[test]
fn a_mute_that_is_taken_out_of_the_file_ends() {
    let mut world = World::new("[[mute]]\nmatch = { tenant = \"acme\" }");
    world.raise(BOILER, "dev-1", Severity::Warning);
    world.check(&[]);
    world.replace("", rules());
    world.pass(0);
    world.check(&["raised boiler dev-1 warning :1"]);
}

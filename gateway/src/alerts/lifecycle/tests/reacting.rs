//! What is done about alerts: at once, whatever holds their events back, and once.

use super::super::reacting::MOMENT_BYTES_MAX;
use super::*;
use crate::alerts::reaction::{Action, Form, Occasion, Plan, Target, Template};

/// `raised dev-1 :1:stop`.
fn line(done: &Done) -> String {
    format!("{} {} :{}:{}", done.on, done.device, done.transition, done.action)
}

fn action(name: &str, on: &[Occasion], topic: &str, payload: &str) -> Action {
    let template = |text: &str| Template::parse(text).expect("a template");
    Action {
        name: name.into(),
        on: on.into(),
        expires_after_ms: 10 * MINUTE,
        plan: Plan::Mqtt {
            topic: template(topic),
            payload: template(payload),
            qos: 1,
            retain: false,
            content_type: "application/json".into(),
        },
    }
}

/// The rules, and something to do for `boiler` and `silent`.
pub(super) fn reacting() -> Vec<RuleFacts> {
    let topic = "devices/{device}/commands/{alert}";
    let stop =
        action("stop", &[Occasion::Raised], topic, r#"{"stop":true,"value":{value},"who":"{device}"}"#);
    let both = [Occasion::Raised, Occasion::Resolved];
    let lamp = action("lamp", &both, "lamps/{device}", r#"{"on":"{transition}"}"#);
    let mut rules = rules();
    rules[usize::from(BOILER)].actions = Arc::from([stop, lamp.clone()]);
    rules[usize::from(SILENT)].actions = Arc::from([lamp]);
    rules
}

fn world(text: &str) -> World {
    let mut world = World::new(text);
    world.replace(text, reacting());
    world
}

impl World {
    /// What was to be done since the last look.
    #[track_caller]
    fn check_done(&mut self, expected: &[&str]) {
        let done: Vec<_> = std::mem::take(&mut self.done).iter().map(line).collect();
        assert_eq!(done, expected);
    }
}

#[test]
fn what_is_raised_and_resolved_is_acted_upon_under_the_number_of_its_event() {
    let mut world = world("[alerting]\nrepeat_interval = \"1h\"");
    world.raise(BOILER, "dev-1", Severity::Warning);
    world.check_done(&["raised dev-1 :1:stop", "raised dev-1 :1:lamp"]);
    world.severity(BOILER, "dev-1", Severity::Critical);
    world.pass(HOUR);
    world.restart();
    world.check_done(&[]);
    world.clear(BOILER, "dev-1");
    world.check_done(&["resolved dev-1 :4:lamp"]);
    world.check(&[
        "raised boiler dev-1 warning :1",
        "updated boiler dev-1 critical :2 severity",
        "updated boiler dev-1 critical :3 repeat",
        "resolved boiler dev-1 critical :4",
    ]);
    assert_eq!(world.counts.reactions_mqtt, 3);
}

#[test]
fn a_reaction_waits_for_no_storm_and_no_token() {
    let mut world = world(
        "[alerting]\nstorm = { when_open_in_group = 3 }\nmax_rate = { events_per_s = 0.001, burst = 2 }",
    );
    for n in 0..6 {
        world.raise(BOILER, &format!("dev-{n}"), Severity::Warning);
    }
    world.raise(SILENT, "dev-9", Severity::Warning);
    world.check(&["raised boiler dev-0 warning :1", "raised boiler dev-1 warning :1"]);
    assert_eq!(world.done.len(), 13, "{:?}", world.done);
    assert!(world.done.iter().all(|done| done.transition == 1));
    world.done.clear();
    world.restart();
    // Never told, and a storm or nobody speaks for it.
    world.clear(BOILER, "dev-5");
    world.clear(SILENT, "dev-9");
    world.check_done(&["resolved dev-5 :2:lamp", "resolved dev-9 :2:lamp"]);
    // Told; the end waits for a token.
    world.clear(BOILER, "dev-0");
    world.check(&[]);
    world.check_done(&["resolved dev-0 :2:lamp"]);
    world.pass(HOUR);
    assert!(
        world.told.iter().map(super::line).any(|line| line.starts_with("resolved boiler dev-0 warning :2"))
    );
    world.check_done(&[]);
}

#[test]
fn what_is_raised_again_before_its_end_is_told_is_acted_upon_again_under_another_number() {
    let mut world = world("[alerting]\nmax_rate = { events_per_s = 0.001, burst = 1 }");
    world.raise(BOILER, "dev-1", Severity::Warning);
    world.clear(BOILER, "dev-1");
    world.restart();
    world.raise(BOILER, "dev-1", Severity::Warning);
    world.check_done(&[
        "raised dev-1 :1:stop",
        "raised dev-1 :1:lamp",
        "resolved dev-1 :2:lamp",
        "raised dev-1 :3:stop",
        "raised dev-1 :3:lamp",
    ]);
    world.clear(BOILER, "dev-1");
    world.check_done(&["resolved dev-1 :4:lamp"]);
    world.pass(HOUR);
    world.check(&["raised boiler dev-1 warning :1", "resolved boiler dev-1 warning :4"]);
}

#[test]
fn nothing_is_done_about_what_is_muted_and_what_is_open_afterwards_is_done_then() {
    let mute = "[[mute]]\nmatch = { site = \"paris\" }\nwindows = \"Sat 12:30-13:00\"";
    let mut world = world(mute);
    world.raise(BOILER, "before", Severity::Warning);
    world.done.clear();
    world.pass(30 * MINUTE);
    for device in ["open", "over"] {
        world.raise(BOILER, device, Severity::Warning);
    }
    world.severity(BOILER, "open", Severity::Critical);
    world.restart();
    world.clear(BOILER, "over");
    world.clear(BOILER, "before");
    world.check_done(&[]);
    // Each action once, and the end of what was done.
    assert_eq!(world.counts.reactions_muted, 2 * 2 + 1);
    world.pass(30 * MINUTE);
    world.check_done(&["raised open :1:stop", "raised open :1:lamp"]);
    world.clear(BOILER, "open");
    world.check_done(&["resolved open :2:lamp"]);
}

#[test]
fn nothing_is_done_about_what_another_alert_inhibits() {
    let mut world = world("");
    world.raise(UPLINK, "site-7", Severity::Critical);
    world.raise(BOILER, "dev-1", Severity::Critical);
    world.raise(BOILER, "dev-2", Severity::Critical);
    world.clear(BOILER, "dev-1");
    world.check_done(&[]);
    assert_eq!(world.counts.reactions_inhibited, 4);
    world.clear(UPLINK, "site-7");
    world.check_done(&["raised dev-2 :1:stop", "raised dev-2 :1:lamp"]);
}

#[test]
fn an_alert_that_flaps_is_open_all_the_time() {
    let mut world = world("[alerting]\nflapping = { max_transitions = 3, window = \"1min\" }");
    for _ in 0..5 {
        world.raise(SILENT, "dev-1", Severity::Warning);
        world.clear(SILENT, "dev-1");
    }
    // The fourth change is one too many: from there on it is one alert, and open.
    world.check_done(&["raised dev-1 :1:lamp", "resolved dev-1 :2:lamp", "raised dev-1 :1:lamp"]);
    world.told.clear();
    world.pass(MINUTE);
    world.check_done(&["resolved dev-1 :3:lamp"]);
    world.check(&["resolved silent dev-1 warning :3"]);
}

#[test]
fn editing_rules_moves_no_machine() {
    let mut world = world("");
    world.raise(BOILER, "dev-1", Severity::Warning);
    world.raise(SILENT, "dev-2", Severity::Warning);
    world.raise(PRESSURE, "dev-3", Severity::Warning);
    world.done.clear();
    let mut rules = reacting();
    rules[usize::from(BOILER)].meaning += 1;
    rules[usize::from(PRESSURE)].actions = Arc::clone(&rules[usize::from(SILENT)].actions);
    world.replace("", rules);
    world.restart();
    world.pass(MINUTE);
    // The boiler's ended with its old meaning, and what another rule does now it has not missed.
    world.check_done(&[]);
    assert_eq!(world.counts.reactions_rule, 1);
    world.clear(SILENT, "dev-2");
    world.clear(PRESSURE, "dev-3");
    world.check_done(&["resolved dev-2 :2:lamp", "resolved dev-3 :2:lamp"]);
}

#[test]
fn alerts_that_there_is_no_room_to_track_are_acted_upon_when_they_are_raised() {
    let mut world = world("[alerting]\nmax_open_alerts = 2");
    for n in 0..4 {
        world.raise(SILENT, &format!("dev-{n}"), Severity::Warning);
    }
    world.clear(SILENT, "dev-3");
    world.check_done(&[
        "raised dev-0 :1:lamp",
        "raised dev-1 :1:lamp",
        "raised dev-2 :1:lamp",
        "raised dev-3 :1:lamp",
    ]);
    assert_eq!(world.counts.untracked, 2);
}

#[test]
fn hostile_names_of_devices_are_values_and_nothing_more() {
    let mut world = world("");
    let rule = Action::clone(&reacting()[usize::from(BOILER)].actions[0]);
    for (device, fits) in [
        ("dev\"},\"stop\":false,\"x\":{\"", true),
        ("dev\\\u{2028}ü{alert}", true),
        ("$SYS", true),
        ("a/b", false),
        ("+", false),
        ("a#", false),
        ("a\0", false),
        ("a\n", false),
        ("", false),
        (&"x".repeat(508), true),
        (&"x".repeat(509), false),
        (&"x".repeat(600), false),
    ] {
        let mut out = Effects::default();
        let mut rules = rules();
        rules[usize::from(BOILER)].actions = Arc::from([rule.clone()]);
        world.replace("", rules);
        let (change, now) = (world.raised(Severity::Warning), world.now);
        let subject = Subject { rule: BOILER, device, metric: Some("temp_c") };
        let edge = Edge { change, observed: Some(106.5), ..Edge::cleared(subject, now) };
        world.lifecycle.take(&edge, now, &mut out);
        let records = out.entries.entries(Lane::Alerts).map(|(_, record)| record);
        let reactions: Vec<_> =
            records.filter_map(|record| Reaction::of(&record).map(|it| it.is_ok())).collect();
        assert_eq!(reactions, if fits { vec![true] } else { vec![] }, "{device:?}");
        assert_eq!(out.counts.reactions_unusable, u64::from(!fits), "{device:?}");
        assert_eq!(out.complaints.len(), usize::from(!fits));
        for (_, record) in out.entries.entries(Lane::Alerts) {
            let Some(Ok(Reaction { target: Target::Mqtt { topic, payload, .. }, .. })) =
                Reaction::of(&record)
            else {
                continue;
            };
            assert_eq!(topic.split('/').count(), 4, "{topic}");
            let payload: Value = serde_json::from_str(&payload).expect("JSON");
            assert_eq!(payload, serde_json::json!({ "stop": true, "value": 106.5, "who": device }));
        }
    }
}

#[test]
fn a_rule_complains_once_until_there_are_other_rules() {
    let mut world = world("");
    for device in ["a/1", "a/2"] {
        world.raise(BOILER, device, Severity::Warning);
    }
    assert_eq!(world.counts.reactions_unusable, 4);
    let found = std::mem::take(&mut world.complaints);
    let all: Vec<_> = found.iter().map(|it| (&*it.rule, &*it.action, &*it.device)).collect();
    assert_eq!(all, [("boiler", "stop", "a/1")]);
    world.replace("", reacting());
    world.raise(BOILER, "a/3", Severity::Warning);
    assert_eq!(world.complaints.len(), 1);
}

#[test]
fn what_is_decided_at_one_moment_has_a_bound() {
    let mut world = world("");
    let large = action("large", &[Occasion::Raised], "x", &format!("\"{}\"", "y".repeat(16_000)));
    let mut rules = rules();
    rules[usize::from(SILENT)].actions = std::iter::repeat_n(large, 8).collect();
    world.replace("[alerting]\nmax_open_alerts = 200000", rules);
    let mut out = Effects::default();
    let now = world.now;
    for n in 0..70 {
        let device = format!("dev-{n}");
        let change = world.raised(Severity::Warning);
        let edge =
            Edge { change, ..Edge::cleared(Subject { rule: SILENT, device: &device, metric: None }, now) };
        world.lifecycle.take(&edge, now, &mut out);
    }
    let made = out.counts.reactions_mqtt;
    assert_eq!(made + out.counts.reactions_crowded, 70 * 8);
    assert!(out.counts.reactions_crowded > 0 && out.entries.bytes() < MOMENT_BYTES_MAX + (1 << 20));
    assert_eq!(out.complaints.len(), 1);
    // A moment later there is room again.
    let change = world.raised(Severity::Warning);
    let edge =
        Edge { change, ..Edge::cleared(Subject { rule: SILENT, device: "late", metric: None }, now + 1) };
    world.lifecycle.take(&edge, now + 1, &mut out);
    assert_eq!(out.counts.reactions_mqtt, made + 8);
}

#[test]
fn places_are_filled_in_and_nothing_else_is() {
    let check = |template: &str, form: Form, expected: &str| {
        let values = crate::alerts::reaction::Values {
            device: "d\"{rule}",
            tenant: None,
            rule: "r",
            value: Some(-0.5),
            alert: "a1-0",
            transition: 7,
            ..crate::alerts::reaction::Values::default()
        };
        let parsed = Template::parse(template).expect("a template");
        assert_eq!(parsed.payload(&values, form).as_deref(), Ok(expected));
    };
    check(r#"{"a":{"b":{value}},"c":{}}"#, Form::Json, r#"{"a":{"b":-0.5},"c":{}}"#);
    check(r#"["{device}",{threshold},"{tenant}"]"#, Form::Json, r#"["d\"{rule}",null,""]"#);
    check(
        "{device} {threshold}|{alert}:{transition} {{rule}} { rule }",
        Form::Plain,
        "d\"{rule} |a1-0:7 {r} { rule }",
    );
    check("{", Form::Plain, "{");
    check("a{rule", Form::Plain, "a{rule");
    assert!(Template::parse("{\"a\":{colour}}").is_err());
}

/// An alert that an earlier version opened is not new to this one.
#[test]
fn a_row_of_version_1_is_open_and_acted_upon() {
    let mut world = world("");
    world.raise(PRESSURE, "dev-1", Severity::Warning);
    world.told.clear();
    for (key, value) in &mut world.rows {
        if key[1] == 1 {
            value.truncate(value.len() - 4);
            value[0] = 1;
            // Behind version, id, four numbers, position, three numbers and the count of events.
            value[1 + 16 + 32 + 21 + 24 + 4] &= 7;
        }
    }
    let mut rules = reacting();
    rules[usize::from(PRESSURE)].actions = Arc::clone(&rules[usize::from(SILENT)].actions);
    world.rules = Arc::new(Rulebook::new(rules));
    world.restart();
    world.pass(MINUTE);
    world.check_done(&[]);
    world.clear(PRESSURE, "dev-1");
    world.check_done(&["resolved dev-1 :2:lamp"]);
    world.check(&["resolved pressure dev-1 warning :2"]);
}

//! A lifecycle that is loaded from its rows goes on exactly as the one before would have done; and whatever comes, in the
//! end the cloud knows what is open.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::super::alert::{Gate, Told};
use super::reacting::reacting;
use super::*;

const TIGHT: &str = r#"
[alerting]
group_by = ["tenant", "severity"]
group_wait = "2s"
group_interval = "10s"
repeat_interval = "40s"
max_open_alerts = 12
held_max = 3
max_rate = { events_per_s = 0.7, burst = 4 }
tenant_rate = { events_per_s = 0.4, burst = 3 }
flapping = { max_transitions = 4, window = "15s" }
storm = { when_open_in_group = 5 }
[[mute]]
match = { device = "dev-1*" }
windows = ["daily 12:01-12:03"]
[[mute]]
match = { rule = "pressure" }
from = 2026-11-21T12:00:30Z
until = 2026-11-21T12:01:30Z
"#;

#[derive(Debug, Clone)]
enum Step {
    Raise { rule: u16, device: u8, severity: u8 },
    Severity { rule: u16, device: u8, severity: u8 },
    Clear { rule: u16, device: u8 },
    Pass(u64),
    Jump(u64),
    Replace(bool),
}

fn step() -> impl Strategy<Value = Step> {
    let (rule, device, severity) = (0_u16..4, 0_u8..7, 0_u8..3);
    prop_oneof![
        8 => (rule.clone(), device.clone(), severity.clone())
            .prop_map(|(rule, device, severity)| Step::Raise { rule, device, severity }),
        2 => (rule.clone(), device.clone(), severity)
            .prop_map(|(rule, device, severity)| Step::Severity { rule, device, severity }),
        5 => (rule, device).prop_map(|(rule, device)| Step::Clear { rule, device }),
        6 => (0_u64..6000).prop_map(Step::Pass),
        1 => (0_u64..60_000).prop_map(Step::Jump),
        1 => any::<bool>().prop_map(Step::Replace),
    ]
}

fn apply(world: &mut World, step: &Step) {
    let name = |device: u8| if device == 0 { "site-7".to_owned() } else { format!("dev-{device}") };
    let tenant = |device: u8| ["acme", "other"].get(usize::from(device % 3)).copied();
    match *step {
        Step::Raise { rule, device, severity } => {
            world.tenant = tenant(device);
            world.raise(rule, &name(device), Severity::ALL[usize::from(severity)]);
        }
        Step::Severity { rule, device, severity } => {
            world.severity(rule, &name(device), Severity::ALL[usize::from(severity)]);
        }
        Step::Clear { rule, device } => world.clear(rule, &name(device)),
        Step::Pass(ms) => world.pass(ms),
        Step::Jump(ms) => world.now += ms,
        Step::Replace(tight) => {
            let text = if tight { TIGHT.to_owned() } else { TIGHT.replace("\"severity\"", "\"rule\"") };
            world.replace(&text, reacting());
        }
    }
}

/// What a consumer makes of what it is told: the alerts it believes to be open, and the storms.
#[derive(Default)]
struct Consumer {
    open: BTreeSet<String>,
    storms: BTreeSet<String>,
    last: BTreeMap<String, u64>,
    /// What was done, by alert and number.
    done: BTreeMap<(String, u64), String>,
    ids: BTreeSet<(String, u64, String)>,
    /// Whether what was done about an alert is not undone.
    on: BTreeMap<String, bool>,
}

impl Consumer {
    fn take(&mut self, event: &Value) {
        let id = event["correlationid"].as_str().expect("an id").to_owned();
        let transition = event["data"]["transition"].as_u64().expect("a number");
        let last = self.last.insert(id.clone(), transition).unwrap_or_default();
        // A gap says that an end was done and never told, because it was not the end.
        let skipped = (last + 1..transition).all(|number| self.done.contains_key(&(id.clone(), number)));
        assert!(transition > last && skipped, "numbers do not come twice, nor without a reason: {event}");
        let state = event["data"]["state"].as_str().unwrap_or_default();
        if let Some(on) = self.done.get(&(id.clone(), transition)) {
            assert_eq!(on == "resolved", state == "resolved", "one number, one meaning: {event}");
        }
        let list = if id.starts_with("s1-") { &mut self.storms } else { &mut self.open };
        match event["data"]["state"].as_str() {
            Some("resolved") => assert!(list.remove(&id), "an end without a beginning: {event}"),
            Some("raised") => assert!(list.insert(id), "raised twice: {event}"),
            Some("updated") => assert!(list.contains(&id), "an update of nothing: {event}"),
            Some("flapping") => drop(list.insert(id)),
            other => panic!("{other:?}"),
        }
    }
}

impl Consumer {
    /// Takes what was to be done: under one number one thing, and no end without a beginning.
    fn carry_out(&mut self, reaction: &Done) {
        let id = (reaction.alert.clone(), reaction.transition, reaction.action.clone());
        assert!(self.ids.insert(id), "twice: {reaction:?}");
        let known = self.done.insert((reaction.alert.clone(), reaction.transition), reaction.on.to_owned());
        assert!(known.is_none_or(|on| on == reaction.on), "another meaning: {reaction:?}");
        let raised = reaction.on == "raised";
        if reaction.action == "lamp" {
            let before = self.on.insert(reaction.alert.clone(), raised).unwrap_or_default();
            assert!(before || raised, "the end of what was not done: {reaction:?}");
        }
    }
}

/// What was told and done after each step, and the table then.
type Course = Vec<(Vec<Value>, Vec<Done>, BTreeMap<Vec<u8>, Vec<u8>>)>;

fn run(steps: &[Step], restarts: &dyn Fn(usize) -> bool) -> (Course, World) {
    let mut world = World::new(TIGHT);
    world.replace(TIGHT, reacting());
    let mut told = Vec::new();
    let mut consumer = Consumer::default();
    for (place, step) in steps.iter().enumerate() {
        if restarts(place) {
            world.restart();
        }
        apply(&mut world, step);
        take(&mut world, &mut consumer, &mut told);
    }
    // The mutes end, everything that waits is told, and nothing else changes.
    world.pass(20 * MINUTE);
    take(&mut world, &mut consumer, &mut told);
    check_coverage(&world, &consumer);
    (told, world)
}

fn take(world: &mut World, consumer: &mut Consumer, told: &mut Course) {
    let (events, done) = (std::mem::take(&mut world.told), std::mem::take(&mut world.done));
    done.iter().for_each(|reaction| consumer.carry_out(reaction));
    events.iter().for_each(|event| consumer.take(event));
    told.push((events, done, world.rows.clone()));
}

fn check_coverage(world: &World, consumer: &Consumer) {
    let lifecycle = &world.lifecycle;
    assert_eq!((lifecycle.held(), lifecycle.muted.len()), (0, 0));
    let mut told = BTreeSet::new();
    for alert in lifecycle.alerts.values() {
        match alert.gate {
            Gate::Clear => assert_ne!(alert.told, Told::Nothing),
            Gate::Storm => {
                let storm = lifecycle.groups[&alert.group].storm.as_ref().expect("a storm");
                assert!(storm.transition > 0 && consumer.storms.contains(&storm.id.text("s1-")));
            }
            Gate::Inhibited => assert!(lifecycle.is_inhibited(alert)),
            Gate::Muted | Gate::Held => panic!("{alert:?}"),
        }
        let lamp = matches!(&*alert.rule, "boiler" | "silent");
        if lamp {
            let on = consumer.on.get(&alert.id.text("a1-")).copied().unwrap_or_default();
            assert!(on || (alert.gate == Gate::Inhibited && !alert.acted_open), "{alert:?}");
        }
        if alert.told != Told::Nothing {
            told.insert(alert.id.text("a1-"));
        }
        assert!(alert.is_open());
    }
    assert_eq!(told, consumer.open, "the cloud knows what is open");
    let storms = lifecycle.groups.values().filter_map(|group| group.storm.as_ref());
    assert_eq!(storms.map(|storm| storm.id.text("s1-")).collect::<BTreeSet<_>>(), consumer.storms);
    let members: usize = lifecycle.groups.values().map(|group| group.members.len()).sum();
    assert_eq!(members, lifecycle.alerts.values().filter(|alert| alert.is_member()).count());
    assert_eq!(lifecycle.alerts.len(), world.rows.keys().filter(|key| key[1] == 1).count());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]
    #[test]
    fn after_a_crash_everything_goes_on_as_if_there_had_been_none(
        steps in prop::collection::vec(step(), 1..80),
        cut in 0_usize..80,
    ) {
        let (expected, undisturbed) = run(&steps, &|_| false);
        let restarts: [&dyn Fn(usize) -> bool; 3] = [&|place| place == cut, &|_| true, &|place| place % 7 == 3];
        for restart in restarts {
            let (told, world) = run(&steps, restart);
            for (place, (found, wanted)) in told.iter().zip(&expected).enumerate() {
                prop_assert_eq!(&found.0, &wanted.0, "told in step {}", place);
                prop_assert_eq!(&found.1, &wanted.1, "done in step {}", place);
                prop_assert_eq!(&found.2, &wanted.2, "the table after step {}", place);
            }
            prop_assert_eq!(world.counts, undisturbed.counts);
        }
    }
}

//! The verdict over a moment in which very many devices are in trouble at once: what has to be told singly was, one event
//! spoke for the rest of each group, and no more came than may.
//!
//! What is expected follows from the breaches alone, which whoever made the devices breach knows. An event counts when it
//! arrives first; how far the cloud bunches what comes is covered by [`Terms::slack_ms`].

use std::collections::{BTreeMap, BTreeSet, HashMap};

use serde::Serialize;
use serde_json::Value;

use super::arrival::{Arrival, First, Sorted, percentile};
use super::bucket::Cap;
use super::event::Subject;

/// A device went over the limit of a rule. Each does so once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Breach<'a> {
    /// Which device.
    pub device: &'a str,
    /// Of which rule; the rules are the groups.
    pub rule: &'a str,
    /// Whether the rule is a critical one.
    pub critical: bool,
    /// When the device said so, in Unix milliseconds.
    pub at_ms: u64,
}

/// What is asked of the gateway.
#[derive(Debug, Clone, Copy)]
pub struct Terms {
    /// That many alerts of a group are a storm.
    pub storm_at: u64,
    /// The storm is told within this time after they are there.
    pub storm_within_ms: u64,
    /// It is told anew no sooner than this after it was told.
    pub anew_ms: u64,
    /// The cap on critical events.
    pub critical: Cap,
    /// The cap on all others.
    pub others: Cap,
    /// The cap on those among them that are about single alerts.
    pub singles: Cap,
    /// How much later than it was told an event may arrive.
    pub slack_ms: u64,
    /// How long a critical alert may wait beyond what its cap makes it wait.
    pub critical_wait_ms: u64,
}

/// What was found about one group.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Group {
    /// Devices that breached its rule.
    pub breaches: u64,
    /// Alerts that were told singly.
    pub singles: u64,
    /// Different storms.
    pub storms: u64,
    /// Events about them.
    pub storm_events: u64,
    /// From when there were enough alerts to the first of these, in milliseconds.
    pub storm_after_ms: Option<u64>,
    /// How many alerts the storm speaks for, as it told last.
    pub told: u64,
}

/// The verdict.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Found {
    /// Devices that breached a rule.
    pub breaches: u64,
    /// From the first breach to the last, in milliseconds.
    pub within_ms: u64,
    /// Those of critical rules.
    pub criticals: u64,
    /// Those among them of which a critical alert arrived.
    pub delivered: u64,
    /// By rule.
    pub groups: BTreeMap<String, Group>,
    /// From the breach to the arrival of its critical alert, in milliseconds: half of them, 99 percent, all.
    pub wait_p50_ms: Option<u64>,
    /// See above.
    pub wait_p99_ms: Option<u64>,
    /// See above.
    pub wait_max_ms: Option<u64>,
    /// The longest wait beyond what the cap makes one wait.
    pub beyond_cap_ms: u64,
    /// Events over a cap, by cap.
    pub over: BTreeMap<&'static str, u64>,
    /// Events that arrived once more.
    pub repeated: u64,
    /// What was promised and not kept, one sentence each.
    pub reasons: Vec<String>,
}

/// Holds what arrived, in the order in which it came, against the breaches.
#[must_use]
pub fn weigh_storm(breaches: &[Breach<'_>], arrivals: &[Arrival<'_>], terms: &Terms) -> Found {
    let sorted = Sorted::new(arrivals);
    let mut found = Found { reasons: sorted.broken(), repeated: sorted.repeated, ..Found::default() };
    found.breaches = count(breaches.len());
    let times = || breaches.iter().map(|breach| breach.at_ms);
    found.within_ms = times().max().unwrap_or_default() - times().min().unwrap_or_default();
    let raised = found.raised(breaches, &sorted.firsts);
    found.waits(breaches, &raised, terms);
    found.storms(breaches, &sorted.firsts, &raised, terms);
    found.caps(&sorted.firsts, terms);
    found
}

/// When the alert of a device and rule was raised.
type Raised<'a> = HashMap<(&'a str, &'a str), u64>;

// === impl Found ===

impl Found {
    fn broken(&mut self, count: u64, what: &str) {
        if count > 0 {
            self.reasons.push(format!("{count} {what}"));
        }
    }

    /// Looks for the alert of each breach, and for alerts of no breach.
    fn raised<'a>(&mut self, breaches: &[Breach<'_>], firsts: &[First<'a>]) -> Raised<'a> {
        let severities: HashMap<_, _> =
            breaches.iter().map(|breach| ((breach.device, breach.rule), breach.critical)).collect();
        let mut raised = Raised::new();
        let (mut twice, mut unexpected, mut other) = (0, 0, 0);
        for first in firsts.iter().filter(|first| first.is_raised()) {
            let Subject::Alert { device, rule } = first.event.subject else { continue };
            match severities.get(&(device, rule)) {
                None => unexpected += 1,
                Some(critical) if *critical != first.is_critical() => other += 1,
                Some(_) => twice += u64::from(raised.insert((device, rule), first.at_ms).is_some()),
            }
        }
        self.broken(twice, "alerts were raised twice");
        self.broken(unexpected, "alerts are about devices that breached nothing");
        self.broken(other, "alerts have another severity than their rule");
        raised
    }

    /// Whether every critical alert arrived, and when.
    fn waits(&mut self, breaches: &[Breach<'_>], raised: &Raised<'_>, terms: &Terms) {
        let critical = || breaches.iter().filter(|breach| breach.critical);
        self.criticals = count(critical().count());
        let arrived = |breach: &Breach<'_>| raised.get(&(breach.device, breach.rule)).copied();
        let mut waits: Vec<u64> =
            critical().filter_map(|breach| Some(arrived(breach)?.saturating_sub(breach.at_ms))).collect();
        waits.sort_unstable();
        self.delivered = count(waits.len());
        [self.wait_p50_ms, self.wait_p99_ms, self.wait_max_ms] =
            [50, 99, 100].map(|percent| percentile(&waits, percent));
        self.broken(self.criticals - self.delivered, "critical alerts never arrived");
        let mut wanted: Vec<u64> = critical().map(|breach| breach.at_ms).collect();
        let mut arrivals: Vec<u64> = critical().filter_map(arrived).collect();
        wanted.sort_unstable();
        arrivals.sort_unstable();
        let ready = terms.critical.ready_ms(wanted);
        let beyond = arrivals.iter().zip(ready).map(|(at, ready)| at.saturating_sub(ready));
        self.beyond_cap_ms = beyond.max().unwrap_or_default();
        if self.beyond_cap_ms > terms.critical_wait_ms {
            self.reasons.push(format!(
                "a critical alert waited {} ms longer than its cap made it, allowed are {} ms",
                self.beyond_cap_ms, terms.critical_wait_ms
            ));
        }
    }

    /// Whether one event spoke for each group that was large enough, and told of all of it.
    fn storms(&mut self, breaches: &[Breach<'_>], firsts: &[First<'_>], raised: &Raised<'_>, terms: &Terms) {
        let rules: BTreeMap<&str, bool> =
            breaches.iter().map(|breach| (breach.rule, breach.critical)).collect();
        for (rule, critical) in rules {
            let mut times: Vec<u64> =
                breaches.iter().filter(|breach| breach.rule == rule).map(|breach| breach.at_ms).collect();
            times.sort_unstable();
            let singles = count(raised.keys().filter(|(_, other)| *other == rule).count());
            let about = |first: &&First<'_>| first.event.subject == Subject::Storm { rule: Some(rule) };
            let events: Vec<_> = firsts.iter().filter(about).collect();
            let names: BTreeSet<_> = events.iter().map(|first| first.event.alert).collect();
            let place = usize::try_from(terms.storm_at).unwrap_or(usize::MAX).saturating_sub(1);
            let begun_ms = times.get(place).copied();
            let first_ms = events.first().map(|first| first.at_ms);
            let group = Group {
                breaches: count(times.len()),
                singles,
                storms: count(names.len()),
                storm_events: count(events.len()),
                storm_after_ms: first_ms.zip(begun_ms).map(|(first, begun)| first.saturating_sub(begun)),
                told: events.iter().filter_map(|first| told(first.value)).max().unwrap_or_default(),
            };
            self.reasons.extend(group.broken(rule, critical, terms));
            self.reasons.extend(pace(rule, &events, terms));
            self.groups.insert(rule.to_owned(), group);
        }
        let known = |first: &&First<'_>| match first.event.subject {
            Subject::Storm { rule } => rule.is_none_or(|rule| !self.groups.contains_key(rule)),
            Subject::Alert { .. } => false,
        };
        let others = count(firsts.iter().filter(known).count());
        self.broken(others, "events about storms are about no group");
    }

    /// Whether more came than may.
    fn caps(&mut self, firsts: &[First<'_>], terms: &Terms) {
        let times = |wanted: &dyn Fn(&First<'_>) -> bool| {
            let times = firsts.iter().filter(|first| wanted(first)).map(|first| first.at_ms);
            times.collect::<Vec<_>>()
        };
        let storm = |first: &First<'_>| matches!(first.event.subject, Subject::Storm { .. });
        let caps = [
            ("critical", terms.critical, times(&|first| first.is_critical() && !storm(first))),
            ("others", terms.others, times(&|first| !first.is_critical() || storm(first))),
            ("singles", terms.singles, times(&|first| !first.is_critical() && !storm(first))),
        ];
        for (name, cap, times) in caps {
            let over = cap.over(times, terms.slack_ms);
            self.broken(over, &format!("events came over the cap of {name}"));
            self.over.insert(name, over);
        }
    }
}

// === impl Group ===

impl Group {
    fn broken(&self, rule: &str, critical: bool, terms: &Terms) -> Vec<String> {
        let mut reasons = Vec::new();
        let is_storm = self.breaches >= terms.storm_at;
        if self.storms != u64::from(is_storm) {
            reasons.push(format!(
                "{} storms were told of the {} alerts of {rule}, expected is {}",
                self.storms,
                self.breaches,
                u64::from(is_storm)
            ));
        }
        if let Some(after) = self.storm_after_ms.filter(|after| *after > terms.storm_within_ms) {
            reasons.push(format!(
                "the storm of {rule} was told after {after} ms, allowed are {} ms",
                terms.storm_within_ms
            ));
        }
        if is_storm && self.storms > 0 && self.told != self.breaches {
            reasons.push(format!(
                "the storm of {rule} told of {} alerts, {} devices breached the rule",
                self.told, self.breaches
            ));
        }
        // Before it began, and what was still open when it was over.
        let most = terms.storm_at.saturating_sub(1).saturating_mul(2);
        if is_storm && !critical && self.singles > most {
            reasons.push(format!("{} alerts of {rule} were told singly beside its storm", self.singles));
        }
        if !is_storm && self.singles < self.breaches {
            reasons.push(format!("{} of {} alerts of {rule} were told", self.singles, self.breaches));
        }
        reasons
    }
}

/// Whether a storm is told anew too soon, or never said to be over.
fn pace(rule: &str, events: &[&First<'_>], terms: &Terms) -> Vec<String> {
    let times = events.iter().zip(events.iter().skip(1));
    // From when it was so: that the one before arrived late makes this one no earlier.
    let gaps =
        times.map(|(before, after)| after.at_ms.saturating_sub(before.at_ms.min(before.event.time_ms)));
    let soon = gaps.filter(|gap| gap.saturating_add(terms.slack_ms) < terms.anew_ms).count();
    let mut reasons = Vec::new();
    if soon > 0 {
        reasons.push(format!(
            "the storm of {rule} was told anew {soon} times within less than {} ms",
            terms.anew_ms
        ));
    }
    if events.last().is_some_and(|last| !last.event.is_over) {
        reasons.push(format!("the storm of {rule} was not said to be over"));
    }
    reasons
}

/// How many alerts a storm says that it speaks for.
fn told(event: &Value) -> Option<u64> {
    event.pointer("/data/raised").and_then(Value::as_u64)
}

fn count(count: usize) -> u64 {
    u64::try_from(count).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const TERMS: Terms = Terms {
        storm_at: 3,
        storm_within_ms: 5000,
        anew_ms: 10_000,
        critical: Cap { events_per_s: 10, burst: 4 },
        others: Cap { events_per_s: 5, burst: 10 },
        singles: Cap { events_per_s: 2, burst: 5 },
        slack_ms: 0,
        critical_wait_ms: 1000,
    };

    /// Five devices of a critical rule and five of another, all at 1000 ms.
    fn breaches() -> Vec<Breach<'static>> {
        let of = |rule, critical| move |device| Breach { device, rule, critical, at_ms: 1000 };
        let criticals = ["c1", "c2", "c3", "c4", "c5"].map(of("press", true));
        let others = ["w1", "w2", "w3", "w4", "w5"].map(of("hot", false));
        [criticals, others].concat()
    }

    fn raised(device: &str, rule: &str, severity: &str) -> Value {
        json!({
            "source": "/g", "id": format!("a1-{device}:1"), "type": "t.alert.raised.v1", "severity": severity,
            "deviceid": device, "ruleid": rule, "time": "1970-01-01T00:00:01Z",
            "data": { "alertId": format!("a1-{device}"), "transition": 1, "state": "raised" }
        })
    }

    fn storm(name: &str, rule: &str, transition: u64, state: &str, raised: u64) -> Value {
        let second = if transition == 1 { 3 } else { 13 };
        json!({
            "source": "/g", "id": format!("s1-{name}:{transition}"), "type": "t.alert.storm.v1",
            "severity": "warning", "ruleid": rule, "time": format!("1970-01-01T00:00:{second:02}Z"),
            "data": { "alertId": format!("s1-{name}"), "transition": transition, "state": state, "raised": raised }
        })
    }

    /// What a gateway does that keeps its promises.
    fn told() -> Vec<(u64, Value)> {
        let mut told: Vec<_> =
            ["c1", "c2", "c3", "c4"].map(|device| (1010, raised(device, "press", "critical"))).into();
        told.extend(["w1", "w2"].map(|device| (1020, raised(device, "hot", "warning"))));
        told.push((1110, raised("c5", "press", "critical")));
        told.extend([(3000, storm("p", "press", 1, "raised", 5)), (3000, storm("h", "hot", 1, "raised", 5))]);
        told.extend([
            (13_000, storm("p", "press", 2, "resolved", 5)),
            (13_000, storm("h", "hot", 2, "resolved", 5)),
        ]);
        told
    }

    fn found(told: &[(u64, Value)], terms: &Terms) -> Found {
        let arrivals: Vec<_> = told.iter().map(|(at_ms, event)| Arrival { at_ms: *at_ms, event }).collect();
        weigh_storm(&breaches(), &arrivals, terms)
    }

    /// Changes what was told, and expects one reason that has these words.
    fn check(change: impl FnOnce(&mut Vec<(u64, Value)>), expected: &str) {
        let mut told = told();
        change(&mut told);
        told.sort_by_key(|(at_ms, _)| *at_ms);
        let reasons = found(&told, &TERMS).reasons;
        assert!(reasons.len() == 1 && reasons.iter().all(|one| one.contains(expected)), "{reasons:?}");
    }

    #[test]
    fn a_gateway_that_keeps_its_promises_passes() {
        let found = found(&told(), &TERMS);
        assert_eq!(found.reasons, [""; 0]);
        assert_eq!((found.breaches, found.criticals, found.delivered, found.within_ms), (10, 5, 5, 0));
        assert_eq!((found.wait_p50_ms, found.wait_max_ms, found.beyond_cap_ms), (Some(10), Some(110), 10));
        let hot = &found.groups["hot"];
        assert_eq!((hot.singles, hot.storms, hot.storm_events, hot.storm_after_ms), (2, 1, 2, Some(2000)));
        assert_eq!(found.over.values().sum::<u64>(), 0);
    }

    #[test]
    fn a_critical_alert_that_is_withheld_is_found_out() {
        check(|told| drop(told.remove(0)), "1 critical alerts never arrived");
    }

    #[test]
    fn a_critical_alert_that_waits_behind_others_is_found_out() {
        check(|told| told[6].0 = 2200, "waited 1100 ms longer");
        let patient = Terms { critical: Cap { events_per_s: 1, burst: 4 }, ..TERMS };
        let mut late = told();
        late[6].0 = 2200;
        assert_eq!(found(&late, &patient).reasons, [""; 0], "its cap made it wait");
    }

    #[test]
    fn a_group_has_one_storm() {
        check(|told| told.push((23_000, storm("x", "hot", 1, "resolved", 5))), "2 storms were told");
        check(|told| told.retain(|(_, event)| event["data"]["alertId"] != "s1-h"), "0 storms were told");
        check(|told| told.push((9000, storm("x", "cold", 1, "resolved", 5))), "about no group");
    }

    #[test]
    fn a_storm_is_told_in_time_and_not_too_often() {
        let at = |name: &'static str, state: &'static str, at_ms: u64| {
            move |told: &mut Vec<(u64, Value)>| {
                let found = told
                    .iter_mut()
                    .find(|(_, event)| event["data"]["alertId"] == name && event["data"]["state"] == state);
                found.unwrap().0 = at_ms;
            }
        };
        check(
            |told| {
                at("s1-h", "raised", 6001)(told);
                at("s1-h", "resolved", 20_000)(told);
            },
            "told after 5001 ms",
        );
        check(at("s1-h", "resolved", 12_999), "told anew 1 times");
        let mut late = told();
        at("s1-h", "raised", 5000)(&mut late);
        late.sort_by_key(|(at_ms, _)| *at_ms);
        assert_eq!(found(&late, &TERMS).reasons, [""; 0], "the first one was late, the second in time");
        check(|told| drop(told.pop()), "was not said to be over");
    }

    #[test]
    fn a_storm_tells_how_many_there_are() {
        let fewer = |told: &mut Vec<(u64, Value)>| {
            let of_hot = told.iter_mut().filter(|(_, event)| event["data"]["alertId"] == "s1-h");
            of_hot.for_each(|(_, event)| event["data"]["raised"] = json!(4));
        };
        check(fewer, "told of 4 alerts, 5 devices");
    }

    #[test]
    fn what_a_storm_speaks_for_is_not_told_singly() {
        check(
            |told| {
                let more = ["w3", "w4", "w5"].map(|device| (4000, raised(device, "hot", "warning")));
                told.extend(more);
            },
            "5 alerts of hot were told singly",
        );
    }

    #[test]
    fn a_small_group_is_told_singly() {
        let terms = Terms { storm_at: 6, ..TERMS };
        let told: Vec<_> = told().into_iter().filter(|(at_ms, _)| *at_ms < 3000).collect();
        let reasons = found(&told, &terms).reasons;
        assert_eq!(reasons, ["2 of 5 alerts of hot were told"]);
    }

    #[test]
    fn an_event_over_a_cap_is_found_out() {
        check(|told| told[6].0 = 1050, "1 events came over the cap of critical");
        let terms = Terms { singles: Cap { events_per_s: 1, burst: 1 }, ..TERMS };
        assert_eq!(found(&told(), &terms).reasons, ["1 events came over the cap of singles"]);
        let terms = Terms { others: Cap { events_per_s: 1, burst: 1 }, ..TERMS };
        let over = found(&told(), &terms).over;
        assert_eq!((over["others"], over["critical"]), (3, 0));
    }

    #[test]
    fn alerts_that_nobody_caused_are_found_out() {
        check(|told| told.push((9000, raised("w9", "hot", "warning"))), "breached nothing");
        check(
            |told| {
                let mut again = raised("w1", "hot", "warning");
                (again["id"], again["data"]["alertId"]) = (json!("a1-x:1"), json!("a1-x"));
                told.push((9000, again));
            },
            "raised twice",
        );
        check(|told| told.push((9000, raised("w4", "hot", "critical"))), "another severity");
    }
}

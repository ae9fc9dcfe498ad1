//! One test or more for each kind of rule.

use super::{Bench, Limits, check, origin, shorts};
use crate::alerts::nouns::{Change, Origin, Severity};

const THRESHOLD: &str = "metric = \"x\"\nraise = \"> 90\"\nclear = \"< 85\"\n";

#[test]
fn a_threshold_raises_past_its_limit_and_clears_below_the_other() {
    check(
        THRESHOLD,
        &[80.0, 90.0, 91.0, 95.0, 86.0, 85.0, 84.9, 91.0],
        &["raised warning @3000 #3", "cleared @7000", "raised warning @8000 #8"],
    );
    check(
        "metric = \"x\"\nraise = \"<= 5\"",
        &[6.0, 5.0, 5.1],
        &["raised warning @2000 #2", "cleared @3000"],
    );
    check(
        "metric = \"x\"\nraise = \"== true\"",
        &[0.0, 1.0, 0.0],
        &["raised warning @2000 #2", "cleared @3000"],
    );
}

#[test]
fn a_condition_must_hold_for_as_long_and_as_often_as_the_rule_says() {
    let rule = format!("{THRESHOLD}for = \"2s\"");
    check(&rule, &[91.0, 92.0, 93.0], &["raised warning @3000 #1"]);
    // Between the limits it is not raised, so the time begins anew.
    check(&rule, &[91.0, 92.0, 88.0, 91.0, 91.0], &[]);
    check(&rule, &[91.0, 88.0, 91.0, 91.0, 91.0], &["raised warning @5000 #3"]);
    let rule = format!("{THRESHOLD}min_samples = 3");
    check(&rule, &[91.0, 91.0, 91.0], &["raised warning @3000 #1"]);
}

#[test]
fn an_alert_is_kept_until_its_end_has_lasted() {
    let rule = format!("{THRESHOLD}keep_firing_for = \"2s\"");
    let values = [91.0, 80.0, 80.0, 86.0, 80.0, 80.0, 80.0];
    check(&rule, &values, &["raised warning @1000 #1", "cleared @7000"]);
}

#[test]
fn severities_go_up_at_once_and_down_past_their_own_limit() {
    let rule = format!("{THRESHOLD}critical = {{ raise = \"> 105\", clear = \"< 100\" }}");
    check(
        &rule,
        &[91.0, 106.0, 101.0, 99.0, 106.0, 80.0],
        &["raised warning @1000 #1", "critical @2000", "warning @4000", "critical @5000", "cleared @6000"],
    );
    check(&rule, &[106.0, 92.0], &["raised critical @1000 #1", "warning @2000"]);
    let rule = format!("{THRESHOLD}for = \"1s\"\ncritical = {{ raise = \"> 105\", for = \"0s\" }}");
    check(&rule, &[91.0, 106.0], &["raised critical @2000 #1"]);
    check(&rule, &[106.0, 106.0], &["raised critical @1000 #1"]);
    let rule =
        "kind = \"threshold\"\nmetric = \"x\"\ninfo = { raise = \"> 1\" }\ncritical = { raise = \"> 2\" }";
    check(rule, &[1.5, 2.5, 0.0], &["raised info @1000 #1", "critical @2000", "cleared @3000"]);
}

#[test]
fn what_still_waits_when_an_alert_ends_begins_an_episode_of_its_own() {
    // Info holds below 10, warning above 5: the one ends while the other waits.
    let rule =
        "severity = \"info\"\nmetric = \"x\"\nraise = \"< 10\"\nwarning = { raise = \"> 5\", for = \"3s\" }";
    check(
        rule,
        &[7.0, 12.0, 12.0, 12.0],
        &["raised info @1000 #1", "cleared @2000", "raised warning @4000 #2"],
    );
}

#[test]
fn late_samples_are_ignored_and_counted() {
    let mut bench = Bench::new(&format!("[[rule]]\nid = \"r\"\n{THRESHOLD}"));
    assert!(bench.device("d", &[("x", 1.0, 5_000)]).is_empty());
    assert!(bench.device("d", &[("x", 99.0, 4_999)]).is_empty());
    assert_eq!(bench.evaluator.counts().late, 1);
    // Two in one millisecond are no rarity.
    assert_eq!(bench.device("d", &[("x", 99.0, 5_000)]).len(), 1);
    assert_eq!(bench.evaluator.counts().late, 1);
    // Another device has its own time.
    assert_eq!(bench.device("e", &[("x", 99.0, 1)]).len(), 1);
}

#[test]
fn edges_say_what_was_seen_and_whose() {
    let mut bench = Bench::new(&format!("[[rule]]\nid = \"r\"\nversion = 3\n{THRESHOLD}"));
    let from = Origin { traceparent: Some("00-aa"), now_ms: 9, ..origin("d") };
    let rules = std::sync::Arc::clone(&bench.rules);
    let sample = crate::alerts::nouns::Sample { metric: 0, value: 91.5, at_ms: 7 };
    let mut count = 0;
    bench.evaluator.observe(&from, &[sample], &mut |edge| {
        count += 1;
        assert_eq!((edge.tenant, edge.site, edge.class), (Some("acme"), Some("site-7"), Some("boiler")));
        assert_eq!((edge.stream, edge.traceparent), (Some("main"), Some("00-aa")));
        assert_eq!((edge.observed, edge.at_ms, edge.subject.metric), (Some(91.5), 7, Some("x")));
        assert_eq!(rules.rule(edge.subject.rule).version, 3);
        let Change::Raised { severity, threshold, score, started_ms, .. } = edge.change else {
            panic!("{edge:?}")
        };
        assert_eq!((severity, threshold, score, started_ms), (Severity::Warning, Some(90.0), None, 7));
    });
    assert_eq!(count, 1);
}

#[test]
fn a_rate_is_over_the_times_of_the_samples() {
    let rule = "kind = \"rate\"\nmetric = \"x\"\nraise = \"> 60 per minute\"";
    check(rule, &[0.0, 1.0, 3.0, 4.0], &["raised warning @3000 #3", "cleared @4000"]);
    check(
        "kind = \"rate\"\nmetric = \"x\"\nraise = \"< -1 per s\"",
        &[9.0, 5.0],
        &["raised warning @2000 #2"],
    );
    // Two samples a millisecond apart say nothing about a rate; what they add up to does.
    let mut bench = Bench::new(&format!("[[rule]]\nid = \"r\"\n{rule}\nover = \"2s\""));
    for (value, at_ms) in [(0.0, 1_000), (500.0, 1_001), (1.0, 2_999), (2.0, 3_000)] {
        assert_eq!(shorts(&bench.device("d", &[("x", value, at_ms)])), [""; 0], "{at_ms}");
    }
    let edges = bench.device("d", &[("x", 12.0, 5_000)]);
    assert_eq!(shorts(&edges), ["raised warning @5000 #5"]);
    assert_eq!(edges[0].observed, Some(300.0));
}

#[test]
fn a_rate_over_a_gap_is_small() {
    let rule = "[[rule]]\nid = \"r\"\nkind = \"rate\"\nmetric = \"x\"\nraise = \"> 1 per hour\"";
    let mut bench = Bench::new(rule);
    bench.device("d", &[("x", 0.0, 1_000)]);
    assert!(bench.device("d", &[("x", 5.0, 1_000 + 10 * 3_600_000)]).is_empty());
}

#[test]
fn a_value_is_stuck_when_it_has_not_left_its_first_one_for_long_enough() {
    let rule = "kind = \"stuck\"\nmetric = \"x\"\nepsilon = 0.5\nfor = \"3s\"";
    check(rule, &[1.0, 9.0, 9.5, 8.6, 9.4, 9.0, 20.0, 20.0], &["raised warning @5000 #2", "cleared @7000"]);
    // A slow drift leaves the first value at some point.
    check(rule, &[0.0, 0.3, 0.6, 0.9, 1.2, 1.5, 1.8], &[]);
    let rule = format!("{rule}\nmin_samples = 6");
    check(&rule, &[1.0; 7], &["raised warning @6000 #1"]);
}

#[test]
fn a_value_is_stuck_only_while_it_should_move() {
    let text =
        "[[rule]]\nid = \"r\"\nkind = \"stuck\"\nmetric = \"flow\"\nfor = \"2s\"\nwhen = \"running == true\"";
    let mut bench = Bench::new(text);
    let mut seen = Vec::new();
    for (second, running) in (1..).zip([0.0, 0.0, 0.0, 1.0, 1.0, 1.0, 0.0]) {
        // Both in one entry: the metric that the other looks at comes first.
        let at_ms = second * 1_000;
        seen.extend(bench.device("d", &[("running", running, at_ms), ("flow", 0.0, at_ms)]));
    }
    assert_eq!(shorts(&seen), ["raised warning @6000 #4", "cleared @7000"]);
    // Nothing is known of the other device's pump.
    for second in 1..9 {
        assert!(bench.device("e", &[("flow", 0.0, second * 1_000)]).is_empty());
    }
}

#[test]
fn a_drift_is_a_recent_level_that_leaves_the_long_one() {
    let head = "[[rule]]\nid = \"r\"\nkind = \"drift\"\nmetric = \"x\"\nfast = \"1m\"\nslow = \"1h\"\n";
    for (raise, step, raised) in [
        ("> 4 deviations", 10.0, true),
        ("> 4 deviations", 0.5, false),
        ("> 5", 10.0, true),
        ("> 5", 4.0, false),
    ] {
        let mut bench = Bench::new(&format!("{head}raise = \"{raise}\""));
        let mut seen = Vec::new();
        // Noise of one unit for two hours, then another level.
        for second in 1..=8_000_u64 {
            let noise = if second * 2_654_435_761 % 4_294_967_296 < 2_147_483_648 { 1.0 } else { -1.0 };
            let level = if second > 7_200 { step } else { 0.0 };
            let edges = bench.device("d", &[("x", 100.0 + level + noise, second * 1_000)]);
            assert!(edges.is_empty() || second > 7_200, "{raise} {step}: {edges:?}");
            seen.extend(edges);
        }
        assert_eq!(!seen.is_empty(), raised, "{raise} {step}: {seen:?}");
    }
}

#[test]
fn a_drift_is_not_seen_before_the_warm_up_and_not_in_what_never_moves() {
    let head = "[[rule]]\nid = \"r\"\nkind = \"drift\"\nmetric = \"x\"\nfast = \"1s\"\nslow = \"10s\"\n";
    let mut bench = Bench::new(&format!("{head}raise = \"> 4 deviations\"\nwarmup = \"1m\""));
    for second in 1..=60_u64 {
        let value = if second > 30 { 50.0 } else { 0.0 };
        assert!(bench.device("d", &[("x", value, second * 1_000)]).is_empty(), "{second}");
    }
    for second in 1..=200_u64 {
        assert!(bench.device("e", &[("x", 0.1, second * 1_000)]).is_empty(), "{second}");
    }
}

#[test]
fn an_expression_is_over_last_values_that_are_fresh() {
    let text = "[[rule]]\nid = \"r\"\nkind = \"expr\"\nmax_staleness = \"5s\"\n\
        expr = \"p < 1.2 && vib > 4.0 && rpm > 500\"\nmetrics = { p = \"motor.pressure\" }";
    let mut bench = Bench::new(text);
    assert_eq!(bench.rules.metrics().len(), 3);
    let mut at = |metric, value, second: u64| shorts(&bench.device("d", &[(metric, value, second * 1_000)]));
    assert!(at("motor.pressure", 1.0, 1).is_empty());
    assert!(at("vib", 5.0, 2).is_empty());
    assert_eq!(at("rpm", 501.0, 3), ["raised warning @3000 #3"]);
    assert_eq!(at("rpm", 500.0, 4), ["cleared @4000"]);
    assert_eq!(at("rpm", 600.0, 5), ["raised warning @5000 #5"]);
    // The pressure is of second 1.
    assert_eq!(at("rpm", 600.0, 7), ["cleared @7000"]);
    assert!(at("other", 600.0, 8).is_empty());
    assert_eq!(at("motor.pressure", 0.1, 7), ["raised warning @7000 #8"]);
}

#[test]
fn an_expression_sees_all_samples_of_one_time_at_once() {
    let text = "[[rule]]\nid = \"r\"\nkind = \"expr\"\nexpr = \"a > b\"";
    let mut bench = Bench::new(text);
    assert!(bench.device("d", &[("a", 1.0, 1_000), ("b", 2.0, 1_000)]).is_empty());
    // After the first of them alone it would hold.
    assert!(bench.device("d", &[("a", 11.0, 2_000), ("b", 12.0, 2_000)]).is_empty());
    // Of several times in one entry each is seen.
    let samples = [("a", 5.0, 3_000), ("b", 4.0, 3_000), ("a", 5.0, 4_000), ("b", 6.0, 4_000)];
    assert_eq!(shorts(&bench.device("d", &samples)), ["raised warning @3000 #3", "cleared @4000"]);
}

#[test]
fn what_cannot_be_decided_does_not_hold_and_is_counted() {
    let mut bench = Bench::new("[[rule]]\nid = \"r\"\nkind = \"expr\"\nexpr = \"!(a / b > 1)\"");
    assert!(bench.device("d", &[("a", 0.0, 1_000), ("b", 0.0, 1_000)]).is_empty());
    assert_eq!(bench.evaluator.counts().undecided, 1);
    assert_eq!(bench.device("d", &[("b", 1.0, 2_000)]).len(), 1);
    assert_eq!(shorts(&bench.device("d", &[("b", 0.0, 3_000)])), ["cleared @3000"]);
}

#[test]
fn rules_apply_to_what_their_match_selects() {
    let rule = |selector: &str| {
        format!("[[rule]]\nid = \"r\"\nmetric = \"x\"\nraise = \"> 0\"\nmatch = {{ {selector} }}\n")
    };
    for (selector, applies) in [
        ("tenant = \"acme\"", true),
        ("tenant = \"acm\"", false),
        ("site = \"site-*\", class = [\"pump\", \"boil*\"]", true),
        ("device = \"d-1\"", true),
        ("device = [\"d-2\", \"d-3\"]", false),
        ("device = \"*-1\"", true),
        ("device = \"x*\"", false),
        ("stream = \"main\"", true),
        ("stream = [\"aux*\", \"m*\"], device = \"d*\"", true),
        ("stream = \"aux\"", false),
        ("tenant = \"*\"", true),
    ] {
        let mut bench = Bench::new(&rule(selector));
        assert_eq!(bench.device("d-1", &[("x", 1.0, 1_000)]).len(), usize::from(applies), "{selector}");
        assert_eq!(
            bench.evaluator.series(),
            usize::from(selector.starts_with("stream") || applies),
            "{selector}"
        );
    }
}

#[test]
fn a_rule_of_one_stream_does_not_see_another() {
    let text = "[[rule]]\nid = \"r\"\nmetric = \"x\"\nraise = \"> 0\"\nmatch = { stream = \"a\" }\n\
        [[rule]]\nid = \"s\"\nmetric = \"x\"\nraise = \"> 0\"";
    let mut bench = Bench::new(text);
    let mut at = |stream, second: u64| {
        let from = Origin { stream: Some(stream), now_ms: second * 1_000, ..origin("d") };
        let edges = bench.entry(from, &[("x", 1.0, second * 1_000)]);
        edges.iter().map(|edge| edge.rule.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(at("b", 1), ["s"]);
    assert_eq!(at("a", 2), ["r"]);
    assert_eq!(at("a", 3), [""; 0]);
}

const TWO_CLASSES: &str = "[[rule]]\nid = \"r\"\nmetric = \"x\"\nraise = \"> 0\"\nmatch = { class = \"boiler\" }\n\
    [[rule]]\nid = \"s\"\nmetric = \"x\"\nraise = \"> 0\"\nfor = \"2s\"";

#[test]
fn a_device_can_speak_under_several_classes() {
    let mut bench = Bench::new(TWO_CLASSES);
    assert_eq!(shorts(&bench.device("d", &[("x", 1.0, 1_000)])), ["raised warning @1000 #1"]);
    let pump = Origin { class: Some("pump"), ..origin("d") };
    // What is about boilers alone does not see it, and stays as it is.
    assert!(bench.entry(Origin { now_ms: 2_000, ..pump }, &[("x", -1.0, 2_000)]).is_empty());
    let edges = bench.entry(Origin { now_ms: 3_000, ..pump }, &[("x", 1.0, 3_000)]);
    assert!(edges.is_empty());
    // What is about both sees all.
    let edges = bench.device("d", &[("x", 1.0, 5_000)]);
    assert_eq!((&*edges[0].rule, &*shorts(&edges)[0]), ("s", "raised warning @5000 #3"));
    let edges = bench.device("d", &[("x", 0.0, 6_000)]);
    assert_eq!(edges.iter().map(|edge| &*edge.rule).collect::<Vec<_>>(), ["r", "s"]);
}

#[test]
fn a_class_that_is_not_seen_for_a_day_is_left_and_so_are_its_rules() {
    const DAY: u64 = 86_400_000;
    let mut bench = Bench::new(TWO_CLASSES);
    assert_eq!(bench.device("d", &[("x", 1.0, 1_000)]).len(), 1);
    let pump = Origin { class: Some("pump"), ..origin("d") };
    assert!(bench.entry(Origin { now_ms: DAY + 1_000, ..pump }, &[]).is_empty());
    let edges = bench.entry(Origin { now_ms: DAY + 1_001, ..pump }, &[]);
    assert_eq!((&*edges[0].rule, edges[0].short()), ("r", format!("cleared @{}", DAY + 1_001)));
    assert_eq!(bench.evaluator.series(), 1);
    // What applies to both goes on.
    let edges = bench.entry(Origin { now_ms: DAY + 2_000, ..pump }, &[("x", 1.0, DAY)]);
    assert_eq!(shorts(&edges), [format!("raised warning @{DAY} #1")]);
}

#[test]
fn a_device_with_too_many_classes_forgets_the_one_that_was_not_seen_for_longest() {
    let mut bench = Bench::new(TWO_CLASSES);
    assert_eq!(bench.device("d", &[("x", 1.0, 1_000)]).len(), 1);
    for (number, class) in ["a", "b", "c", "d", "e", "f", "g", "h"].into_iter().enumerate() {
        let edges = bench.entry(Origin { class: Some(class), now_ms: 2_000, ..origin("d") }, &[]);
        assert_eq!(edges.len(), usize::from(number == 7), "{class}");
    }
}

#[test]
fn beyond_the_bounds_nothing_new_is_evaluated() {
    let text = "[[rule]]\nid = \"r\"\nmetric = \"x\"\nraise = \"> 0\"\n[[rule]]\nid = \"s\"\nmetric = \"y\"\nraise = \"> 0\"";
    let mut bench = Bench::limited(text, Limits { series_max: 3, devices_max: 2, ..Limits::default() });
    assert_eq!(bench.device("a", &[("x", 1.0, 1_000), ("y", 1.0, 1_000)]).len(), 2);
    assert_eq!(bench.device("b", &[("x", 1.0, 1_000), ("y", 1.0, 1_000)]).len(), 1);
    assert_eq!(bench.device("c", &[("x", 1.0, 1_000)]).len(), 0);
    let counts = *bench.evaluator.counts();
    assert_eq!((counts.series_refused, counts.devices_refused), (1, 1));
    assert_eq!((bench.evaluator.series(), bench.evaluator.devices()), (3, 2));
    // What was there before goes on.
    assert_eq!(shorts(&bench.device("a", &[("x", 0.0, 2_000)])), ["cleared @2000"]);
}

#[test]
fn huge_and_tiny_values_do_not_overflow() {
    let values = [f64::MAX, f64::MIN, f64::MAX, f64::MIN_POSITIVE, 5e-324, -5e-324, f64::MIN, 0.0];
    for kind in [
        "rate\"\nraise = \"> 1 per hour",
        "drift\"\nraise = \"> 1 deviations\"\nfast = \"1s\"\nslow = \"2s\"\nwarmup = \"0s",
        "drift\"\nraise = \"> 1\"\nfast = \"1s\"\nslow = \"2s\"\nwarmup = \"0s",
        "stuck\"\nfor = \"1s",
        "threshold\"\nraise = \"> 1",
    ] {
        let mut bench = Bench::new(&format!("[[rule]]\nid = \"r\"\nmetric = \"x\"\nkind = \"{kind}\""));
        for (second, value) in (1..).zip(values.iter().cycle().take(80)) {
            for edge in bench.device("d", &[("x", *value, second * 1_000)]) {
                assert!(edge.observed.is_none_or(f64::is_finite), "{kind} {edge:?}");
            }
        }
        assert_eq!(bench.device("d", &[("x", 1.0, u64::MAX)]).len() / 2, 0, "{kind}");
    }
}

#[test]
fn replaced_rules_keep_the_state_of_those_that_mean_the_same() {
    let rule = |id: &str, raise: &str, more: &str| {
        format!("[[rule]]\nid = \"{id}\"\nmetric = \"{id}\"\nraise = \"{raise}\"\n{more}\n")
    };
    let mut bench =
        Bench::new(&(rule("a", "> 1", "") + &rule("b", "> 1", "") + &rule("c", "> 1", "for = \"5s\"")));
    let two = |at_ms| [("a", 2.0, at_ms), ("b", 2.0, at_ms), ("c", 2.0, at_ms)];
    assert_eq!(bench.device("d", &two(1_000)).len(), 2);
    // Another order, another label, another limit, one more.
    let text = rule("c", "> 1", "for = \"5s\"")
        + &rule("b", "> 1.5", "")
        + &rule("a", "> 1", "labels = { team = \"x\" }")
        + &rule("0", "> 1", "");
    let edges = bench.replace(&text);
    assert_eq!(
        edges.iter().map(|edge| (&*edge.rule, edge.short())).collect::<Vec<_>>(),
        [("b", "cleared @1000".to_owned())]
    );
    let edges = bench.device("d", &two(6_000));
    let shown: Vec<_> = edges.iter().map(|edge| (&*edge.rule, edge.short())).collect();
    assert_eq!(
        shown,
        [("b", "raised warning @6000 #2".to_owned()), ("c", "raised warning @6000 #1".to_owned())]
    );
    let edges = bench.replace("");
    assert_eq!(edges.len(), 3);
    assert_eq!(bench.evaluator.series(), 0);
    assert!(bench.device("d", &two(7_000)).is_empty());
}

//! What is read from a file, and what is said of what cannot be.

use super::super::file::{FILE_BYTES_MAX, RULES_MAX};
use super::super::{FileError, RuleSet};
use super::{check as check_edges, rules};
use crate::alerts::nouns::Severity;
use crate::alerts::reaction::Queues;

/// Expects one error, as it is shown, and that a good rule beside the bad one is read.
fn check(rule: &str, expected: &str) {
    let text = format!("[[rule]]\nid = \"good\"\nmetric = \"x\"\nraise = \"> 0\"\n\n[[rule]]\n{rule}\n");
    let parsed = RuleSet::parse(&text, "rules.toml").expect("TOML");
    let errors: Vec<String> = parsed.errors.iter().map(ToString::to_string).collect();
    assert_eq!(errors, [expected], "{text}");
    assert_eq!((parsed.rules.len(), parsed.rules.find("good")), (1, Some(0)));
}

#[test]
fn a_rule_with_a_mistake_is_left_out_and_its_place_is_named() {
    check(
        "metric = \"x\"",
        "rules.toml:6:1: rule number 2: id is missing: expected 1 to 64 of A-Z a-z 0-9 . _ -",
    );
    check(
        "id = \"a b\"\nraise = \"> 1\"",
        "rules.toml:7:6: rule \"a b\": id = \"a b\": expected 1 to 64 of A-Z a-z 0-9 . _ -",
    );
    check(
        "id = \"r\"\nmetric = \"x\"\nraise = \"a\\nb\"",
        "rules.toml:9:9: rule \"r\": raise = \"a�b\": expected a comparison such as \"> 90\"",
    );
    check(
        "id = \"good\"\nmetric = \"x\"\nraise = \"> 1\"",
        "rules.toml:7:6: rule \"good\": id = \"good\": expected an id that no rule above has",
    );
    check(
        "id = \"r\"\nmetric = \"x\"\nraise = \"above 90\"",
        "rules.toml:9:9: rule \"r\": raise = \"above 90\": expected a comparison such as \"> 90\"",
    );
    check(
        "id = \"r\"\nmetric = \"x\"\nraise = \"> 90\"\nclear = \"< 95\"",
        "rules.toml:10:9: rule \"r\": clear = < 95: expected what never holds together with raise",
    );
    check(
        "id = \"r\"\nmetric = \"x\"\nraise = \"> 90\"\nfor = \"10\"",
        "rules.toml:10:7: rule \"r\": for = \"10\": expected a time from \"0s\" to \"30d\"",
    );
    check(
        "id = \"r\"\nmetric = \"x\"\nraise = \"> 90\"\nmin_samples = 0",
        "rules.toml:10:15: rule \"r\": min_samples = 0: expected a whole number from 1 to 1000000",
    );
    check(
        "id = \"r\"\nmetric = \"x\"\nrise = \"> 90\"\nkind = \"threshold\"",
        "rules.toml:9:1: rule \"r\": there is no key rise; did you mean raise?",
    );
    check(
        "id = \"r\"\nmetric = \"x\"\nraise = \"> 90\"\nmatch = { device_class = \"b\" }",
        "rules.toml:10:11: rule \"r\": there is no key match.device_class; did you mean class?",
    );
    check(
        "id = \"r\"\nmetric = \"x\"\nraise = \"> 90\"\nactions = [\"mail\"]",
        "rules.toml:10:1: rule \"r\": there is no key actions; did you mean action?",
    );
    check(
        "id = \"r\"\nmetric = \"x\"\nraise = \"> 90\"\nwarning = { raise = \"> 95\" }",
        "rules.toml:10:11: rule \"r\": warning is the rule's own severity: its limits are raise and clear",
    );
    check(
        "id = \"r\"\nkind = \"magic\"",
        "rules.toml:8:8: rule \"r\": kind = \"magic\": expected one of \"threshold\", \"rate\", \"stuck\", \"drift\", \
         \"deadman\", \"expr\", \"learned\"",
    );
}

/// Holds the one error of a rule against a part of what it should say.
fn check_mistake(rule: &str, part: &str) {
    let text =
        format!("[[rule]]\nid = \"good\"\nmetric = \"x\"\nraise = \"> 0\"\n[[rule]]\nid = \"r\"\n{rule}\n");
    let parsed = RuleSet::parse(&text, "f").expect("TOML");
    let [error] = parsed.errors.as_slice() else { panic!("{rule}: {:?}", parsed.errors) };
    assert!(error.text.contains(part), "{rule}: {error}");
    assert_eq!((&*error.rule, parsed.rules.len()), ("rule \"r\"", 1));
    assert!(error.line >= 5 && error.column >= 1);
}

#[test]
fn mistakes_of_each_kind_are_found() {
    for (rule, part) in [
        ("kind = \"rate\"\nmetric = \"x\"\nraise = \"> 5\"", "per minute"),
        (
            "kind = \"rate\"\nmetric = \"x\"\nraise = \"> 5 per s\"\nclear = \"< 3 per h\"",
            "the unit that the other limits",
        ),
        ("kind = \"rate\"\nmetric = \"x\"\nraise = \"> 5 per s\"\nover = \"2h\"", "over = \"2h\""),
        ("kind = \"stuck\"\nmetric = \"x\"", "for is missing"),
        ("kind = \"stuck\"\nmetric = \"x\"\nfor = \"1m\"\nepsilon = -1", "epsilon = -1"),
        ("kind = \"stuck\"\nmetric = \"x\"\nfor = \"1m\"\nwhen = \"running\"", "when = \"running\""),
        ("kind = \"stuck\"\nmetric = \"x\"\nfor = \"1m\"\nraise = \"> 1\"", "no key raise"),
        ("kind = \"drift\"\nmetric = \"x\"\nraise = \"> 5\"\nfast = \"1h\"\nslow = \"1h\"", "at least twice"),
        ("kind = \"drift\"\nmetric = \"x\"\nraise = \"> 5 per s\"", "deviations"),
        ("kind = \"deadman\"", "expect_every is missing"),
        ("kind = \"deadman\"\nexpect_every = \"10s\"\nmissed = 0", "missed = 0"),
        ("kind = \"deadman\"\nexpect_every = \"10s\"\nfor = \"1s\"", "no key for"),
        ("kind = \"expr\"", "expr is missing"),
        ("kind = \"expr\"\nexpr = \"a +\"", "expr: "),
        ("kind = \"expr\"\nexpr = \"a + b\"", "a number, not true or false"),
        ("kind = \"expr\"\nexpr = \"a == true\"", "compared with true or false"),
        ("kind = \"expr\"\nexpr = \"motor.p > 1\"", "needs another"),
        ("kind = \"expr\"\nexpr = \"[1, 2].exists(x, x > a)\"", "expr: "),
        ("kind = \"expr\"\nexpr = \"size('a') > a\"", "no size here"),
        ("kind = \"expr\"\nexpr = \"1 > 2\"", "about no metric"),
        ("kind = \"expr\"\nexpr = \"a > 2\"\nmetrics = { b = \"x.y\" }", "does not use b"),
        ("kind = \"expr\"\nexpr = \"a % 2 == 0\"", "no % here"),
        ("metric = \"x\"\nraise = \"> 1\"\nlabels = { \"a b\" = \"c\" }", "names of labels"),
        ("metric = \"x\"\nraise = \"> 1\"\nlabels = { a = 1 }", "labels.a = 1"),
        ("metric = \"x\"\nraise = \"> 1\"\nresolve = \"never\"", "resolve = \"never\""),
        ("metric = \"x\"\nraise = \"> 1\"\nversion = 0", "version = 0"),
        (
            "metric = \"x\"\nraise = \"> 1\"\ninhibited_by = \"god\"",
            "another rule of this file; did you mean good?",
        ),
        ("metric = \"x\"\nraise = \"> 1\"\nmatch = { site = [] }", "match.site = a list of 0"),
        ("metric = \"\"\nraise = \"> 1\"", "metric = \"\""),
        ("metric = 5\nraise = \"> 1\"", "metric = 5"),
        ("metric = \"x\"\nclear = \"< 1\"\ncritical = { raise = \"> 2\" }", "raise is missing"),
    ] {
        check_mistake(rule, part);
    }
}

#[test]
fn mistakes_of_learned_rules_are_found() {
    for (rule, part) in [
        ("kind = \"learned\"", "metrics is missing"),
        ("kind = \"learned\"\nmetrics = [\"x\", \"x\"]", "each name once"),
        ("kind = \"learned\"\nmetric = \"x\"", "a list of them, metrics"),
        (
            "kind = \"learned\"\nmetrics = \"x\"\nfor = \"1m\"",
            "no key for here: a learned rule judges whole windows",
        ),
        ("kind = \"learned\"\nmetrics = \"x\"\nkeep_firing_for = \"1m\"", "stays for cooldown"),
        ("kind = \"learned\"\nmetrics = \"x\"\nraise = \"> 1\"", "finds its limits itself"),
        ("kind = \"learned\"\nmetrics = \"x\"\ncritical = { raise = \"> 1\" }", "one severity"),
        (
            "kind = \"learned\"\nmetrics = \"x\"\nseason = \"hour_of_week\"",
            "one of \"none\", \"hour_of_day\"",
        ),
        ("kind = \"learned\"\nmetrics = \"x\"\ninput = { every = \"500ms\" }", "input.every = \"500ms\""),
        (
            "kind = \"learned\"\nmetrics = \"x\"\nbudget = \"1 per series per 1h\"",
            "from one in 7h to one in 43d, which is what windows of 1m can keep",
        ),
        (
            "kind = \"learned\"\nmetrics = \"x\"\nbudget = \"1 per series per 7d\"\ninput = { every = \"1s\" }",
            "to one in 17h",
        ),
        (
            "kind = \"learned\"\nmetrics = \"x\"\nbudget = \"1 per series per 7d\"\nsensitivity = 5",
            "either it or budget",
        ),
        ("kind = \"learned\"\nmetrics = \"x\"\nbudget = \"many\"", "1 per series per 7d"),
        ("kind = \"learned\"\nmetrics = \"x\"\nsensitivity = 101", "from 1 to 100"),
        ("kind = \"learned\"\nmetrics = \"x\"\ninput = { aggregate = \"sum\" }", "input.aggregate = \"sum\""),
    ] {
        check_mistake(rule, part);
    }
}

#[test]
fn mistakes_in_actions_are_found_where_they_are() {
    const FINE: &str = "name = \"stop\"\nmqtt = { topic = \"a/{device}\", payload = '{\"v\":{value}}' }";
    let check = |action: &str, expected: &str| {
        let text = format!(
            "[[rule]]\nid = \"r\"\nmetric = \"x\"\nraise = \"> 0\"\n[[rule.action]]\n{FINE}\n[[rule.action]]\n{action}\n"
        );
        let queues = Queues::Only(vec!["site-commands".into()]);
        let parsed = RuleSet::parse_for(&text, "f", &queues).expect("TOML");
        let [error] = parsed.errors.as_slice() else { panic!("{action}: {:?}", parsed.errors) };
        assert!(error.to_string().starts_with(expected), "{action}: {error}");
        assert_eq!(parsed.rules.len(), 0);
    };
    let mqtt = |inner: &str| format!("name = \"n\"\nmqtt = {{ {inner} }}");
    let bus = |inner: &str| format!("name = \"n\"\nservice_bus = {{ {inner} }}");
    check("", "f:8:1: rule \"r\": action.name is missing");
    check("name = \"stop\"", "f:9:8: rule \"r\": action.name = \"stop\": expected 1 to 32 of a-z 0-9 -");
    check("name = \"Stop\"", "f:9:8: rule \"r\": action.name = \"Stop\"");
    check(&format!("name = \"{}\"", "n".repeat(33)), "f:9:8: ");
    check("name = \"n\"", "f:8:1: rule \"r\": action.mqtt is missing");
    check("name = \"n\"\nmail = 1", "f:10:1: rule \"r\": there is no key action.mail");
    check(
        "name = \"n\"\non = \"cleared\"",
        "f:10:6: rule \"r\": action.on = \"cleared\": expected \"raised\"",
    );
    check("name = \"n\"\non = [\"raised\", \"raised\"]", "f:10:17: ");
    check("name = \"n\"\nexpires_after = \"8d\"", "f:10:17: rule \"r\": action.expires_after = \"8d\"");
    check(&mqtt("payload = '1'"), "f:10:8: rule \"r\": action.mqtt.topic is missing");
    check(&mqtt("topic = 'a'"), "f:10:8: rule \"r\": action.mqtt.payload is missing");
    check(
        &mqtt("topic = 'a/{colour}', payload = '1'"),
        "f:10:18: rule \"r\": action.mqtt.topic = \"…{colour}…\": expected places {device} {tenant}",
    );
    for topic in ["a/+", "#", "a//b", "", "$SYS/a"] {
        check(
            &mqtt(&format!("topic = '{topic}', payload = '1'")),
            "f:10:18: rule \"r\": action.mqtt.topic = ",
        );
    }
    check(&mqtt("topic = 'a', payload = '1', qos = 3"), "f:10:44: rule \"r\": action.mqtt.qos = 3");
    check(&mqtt("topic = 'a', payload = '1', retain = 1"), "f:10:47: rule \"r\": action.mqtt.retain = 1");
    check(&mqtt("topic = 'a', payload = '1', content_type = ''"), "f:10:53: ");
    for payload in ["stop", "{\"d\":{device}}", "{\"d\":\"{device}}"] {
        check(
            &mqtt(&format!("topic = 'a', payload = '{payload}'")),
            "f:10:33: rule \"r\": action.mqtt.payload = ",
        );
    }
    check(&mqtt(&format!("topic = 'a', payload = '\"{}\"'", "x".repeat(16 << 10))), "f:10:33: ");
    check(
        &bus("queue = 'other', payload = '1'"),
        "f:10:25: rule \"r\": action.service_bus.queue = \"other\": expected a queue that the configuration names: site-commands",
    );
    check(
        &bus("queue = 'site-commands', payload = '1', topic = 'a'"),
        "f:10:57: rule \"r\": there is no key action.service_bus.topic",
    );
    check(&bus("queue = 'site-commands', payload = '1', subject = ''"), "f:10:67: ");
    let both = format!(
        "{}\nservice_bus = {{ queue = 'site-commands', payload = '1' }}",
        mqtt("topic = 'a', payload = '1'")
    );
    check(&both, "f:11:15: rule \"r\": rule \"r\" has mqtt and service_bus");
}

#[test]
fn a_rule_has_at_most_8_actions_and_they_are_no_part_of_what_it_means() {
    let rules = |count: usize| {
        let mut text = "[[rule]]\nid = \"r\"\nmetric = \"x\"\nraise = \"> 0\"\n".to_owned();
        for number in 0..count {
            text += &format!(
                "[[rule.action]]\nname = \"n{number}\"\non = [\"raised\", \"resolved\"]\nmqtt = {{ topic = \"a\", payload = \"1\" }}\n"
            );
        }
        RuleSet::parse(&text, "f").expect("TOML")
    };
    let (none, eight, nine) = (rules(0), rules(8), rules(9));
    assert_eq!((none.errors.len(), eight.errors.len(), nine.errors.len()), (0, 0, 1));
    assert_eq!(none.rules.rule(0).fingerprint, eight.rules.rule(0).fingerprint);
    assert_eq!(eight.rules.rule(0).actions.len(), 8);
}

#[test]
fn bounds_of_texts_and_lists_are_kept() {
    let base = "[[rule]]\nid = \"r\"\nmetric = \"x\"\nraise = \"> 1\"\n";
    let errors = |more: &str| RuleSet::parse(&format!("{base}{more}"), "f").expect("TOML").errors.len();
    let labels = |count: usize| {
        let labels: Vec<String> = (0..count).map(|label| format!("l{label} = \"v\"")).collect();
        format!("labels = {{ {} }}", labels.join(", "))
    };
    assert_eq!((errors(&labels(16)), errors(&labels(17))), (0, 1));
    let label = |bytes: usize| format!("labels = {{ a = \"{}\" }}", "v".repeat(bytes));
    assert_eq!((errors(&label(256)), errors(&label(257))), (0, 1));
    let runbook = |bytes: usize| format!("runbook = \"{}\"", "v".repeat(bytes));
    assert_eq!((errors(&runbook(1_024)), errors(&runbook(1_025))), (0, 1));
    let site = |bytes: usize| format!("match = {{ site = \"{}\" }}", "v".repeat(bytes));
    assert_eq!((errors(&site(256)), errors(&site(257))), (0, 1));
    let sites = |count: usize| format!("match = {{ site = [{}] }}", vec!["\"a\""; count].join(", "));
    assert_eq!((errors(&sites(64)), errors(&sites(65))), (0, 1));
    let id = |bytes: usize| {
        let text = format!("[[rule]]\nid = \"{}\"\nmetric = \"x\"\nraise = \"> 1\"\n", "i".repeat(bytes));
        RuleSet::parse(&text, "f").expect("TOML").errors.len()
    };
    assert_eq!((id(64), id(65)), (0, 1));
    let expression = |text: String| {
        let text = format!("[[rule]]\nid = \"r\"\nkind = \"expr\"\nexpr = \"{text}\"\n");
        RuleSet::parse(&text, "f").expect("TOML").errors.len()
    };
    let sum = |count: usize| format!("{} > 1", vec!["a"; count].join(" + "));
    assert_eq!((expression(sum(20)), expression(sum(60)), expression(sum(300))), (0, 1, 1));
    let names = |count: usize| {
        let names: Vec<String> = (0..count).map(|name| format!("a{name} > 1")).collect();
        names.join(" || ")
    };
    assert_eq!((expression(names(16)), expression(names(17))), (0, 1));
    for deep in ["(", "!", "-", "a ? b : ", "[", "a && (", "\\u00e9"] {
        assert_eq!(expression(deep.repeat(1_000 / deep.len())), 1, "{deep}");
    }
}

#[test]
fn a_file_has_a_bound_for_rules_and_bytes() {
    let mut text = String::new();
    for rule in 0..=RULES_MAX {
        text += &format!("[[rule]]\nid = \"r{rule}\"\nmetric = \"m{rule}\"\nraise = \"> 1\"\n");
    }
    let parsed = RuleSet::parse(&text, "f").expect("TOML");
    assert_eq!((parsed.rules.len(), parsed.errors.len()), (RULES_MAX, 1));
    assert_eq!(parsed.rules.metrics().len(), RULES_MAX);
    assert!(parsed.rules.metrics().is_sorted());
    let large = " ".repeat(FILE_BYTES_MAX + 1);
    assert!(matches!(RuleSet::parse(&large, "f"), Err(FileError::TooLarge { .. })));
    assert!(RuleSet::parse(&" ".repeat(FILE_BYTES_MAX), "f").is_ok());
}

#[test]
fn what_is_not_toml_is_said_with_its_place() {
    let error = RuleSet::parse("[defaults]\nfor = = 3\n", "f").expect_err("no TOML");
    assert!(error.to_string().starts_with("f:2:"), "{error}");
}

#[test]
fn other_tables_are_handed_on_and_unknown_ones_reported() {
    let text = "[alerting]\ngroup_wait = \"5s\"\n[[mute]]\nmode = \"a\"\n[[mute]]\nmode = \"b\"\n[rules]\n";
    let parsed = RuleSet::parse(text, "f").expect("TOML");
    assert_eq!(parsed.alerting.expect("a table")["group_wait"].as_str(), Some("5s"));
    assert_eq!(parsed.mutes.len(), 2);
    let errors: Vec<String> = parsed.errors.iter().map(ToString::to_string).collect();
    assert_eq!(errors, ["f:7:2: the file: there is no table rules; did you mean rule?"]);
    let parsed = RuleSet::parse("rule = 3\nmute = [1]\nalerting = []\n", "f").expect("TOML");
    assert_eq!((parsed.errors.len(), parsed.mutes.len(), parsed.alerting), (3, 0, None));
}

#[test]
fn defaults_hold_for_rules_that_do_not_say_otherwise() {
    let head =
        "[defaults]\nseverity = \"critical\"\nfor = \"1s\"\nkeep_firing_for = \"1s\"\nmin_samples = 2\n";
    let text = format!(
        "{head}[[rule]]\nid = \"a\"\nmetric = \"x\"\nraise = \"> 0\"\n\
         [[rule]]\nid = \"b\"\nmetric = \"x\"\nraise = \"> 0\"\nfor = \"0s\"\nmin_samples = 1\nseverity = \"info\"\n"
    );
    let rules = rules(&text);
    assert_eq!((rules.rule(0).severity, rules.rule(1).severity), (Severity::Critical, Severity::Info));
    let parsed = RuleSet::parse(&text.replace("\"1s\"", "\"1x\""), "f").expect("TOML");
    let errors: Vec<String> = parsed.errors.iter().map(ToString::to_string).collect();
    // Both defaults, and the rules that need one of them.
    assert_eq!(errors.len(), 4, "{errors:?}");
    assert!(errors[0].starts_with("f:3:7: [defaults]: for = \"1x\""), "{errors:?}");
    assert!(errors[2].ends_with("rule \"a\": for is that of [defaults], which is wrong there"), "{errors:?}");
    assert_eq!(parsed.rules.len(), 0);
}

#[test]
fn rules_are_inhibited_by_rules_whatever_their_order() {
    let text = "[[rule]]\nid = \"a\"\nmetric = \"x\"\nraise = \"> 0\"\ninhibited_by = [\"b\", \"bad\"]\n\
        [[rule]]\nid = \"bad\"\nmetric = \"x\"\n\
        [[rule]]\nid = \"b\"\nmetric = \"x\"\nraise = \"> 0\"\ninhibited_by = \"a\"\n";
    let parsed = RuleSet::parse(text, "f").expect("TOML");
    // What cannot be used inhibits nothing; its own error says so.
    assert_eq!(parsed.errors.len(), 1);
    let inhibitors = |id| parsed.rules.rule(parsed.rules.find(id).expect("a rule")).inhibited_by.to_vec();
    assert_eq!((inhibitors("a"), inhibitors("b")), (vec![1], vec![0]));
}

#[test]
fn versions_are_given_or_follow_from_the_meaning() {
    let version = |more: &str| {
        rules(&format!("[[rule]]\nid = \"r\"\nmetric = \"x\"\nraise = \"> 1\"\n{more}")).rule(0).version
    };
    assert_eq!(version("version = 7"), 7);
    let plain = version("");
    assert!(plain < 1 << 53);
    for same in [
        "labels = { a = \"b\" }",
        "runbook = \"x\"",
        "kind = \"threshold\"",
        "severity = \"warning\"",
        "clear = \"<= 1.0\"",
        "for = \"0s\"",
        "match = { tenant = \"*\" }",
        "resolve = \"auto\"",
    ] {
        assert_eq!(version(same), plain, "{same}");
    }
    for other in [
        "severity = \"info\"",
        "clear = \"< 1\"",
        "for = \"1s\"",
        "match = { tenant = \"a*\" }",
        "min_samples = 2",
        "keep_firing_for = \"1s\"",
        "critical = { raise = \"> 2\" }",
    ] {
        assert_ne!(version(other), plain, "{other}");
    }
    // A number of its own is a meaning of its own, whatever it is.
    assert_ne!(version("version = 7"), plain);
}

#[test]
fn labels_are_sorted_and_durations_have_many_units() {
    let rules = rules(
        "[[rule]]\nid = \"r\"\nmetric = \"x\"\nraise = \"> 1\"\nlabels = { b = \"1\", a = \"2\" }\nrunbook = \"y\"",
    );
    let labels = &rules.rule(0).labels;
    assert_eq!(
        labels.iter().map(|(name, value)| (&**name, &**value)).collect::<Vec<_>>(),
        [("a", "2"), ("b", "1")]
    );
    assert_eq!(rules.rule(0).runbook.as_deref(), Some("y"));
    for time in ["1000ms", "1s", "1 s"] {
        check_edges(
            &format!("metric = \"x\"\nraise = \"> 0\"\nfor = \"{time}\""),
            &[1.0, 1.0],
            &["raised warning @2000 #1"],
        );
    }
}

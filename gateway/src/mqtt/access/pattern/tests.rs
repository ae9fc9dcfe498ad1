//! Patterns against single cases, and against the truth: sets of topics.

use proptest::prelude::*;

use super::*;
use crate::mqtt::codec::filter_matches;

const WHO: Who<'_> = Who { user: Some("u1"), client: "c1", device: "d1" };

fn pattern(text: &str) -> Pattern {
    text.parse().expect(text)
}

#[test]
fn patterns_cover_what_lies_within_them() {
    let check =
        |rule, filter, expected| assert_eq!(pattern(rule).covers(WHO, filter), expected, "{rule} {filter}");
    for (rule, filter) in [
        ("#", "a"),
        ("#", "#"),
        ("#", "+/a"),
        ("#", "$SYS/#"),
        ("#", "/"),
        ("+/#", "#"),
        ("+/#", "a"),
        ("a/#", "a"),
        ("a/#", "a/#"),
        ("a/#", "a/b/+/c/#"),
        ("a/+", "a/+"),
        ("a/+", "a/b"),
        ("a/+", "a/"),
        ("a/+/#", "a/b"),
        ("a/+/#", "a/+/+"),
        ("+", "$x"),
        ("+/b", "+/b"),
        ("$SYS/#", "$SYS/a/+"),
        ("devices/{device}/#", "devices/d1/#"),
        ("{client}/{user}/{device}", "c1/u1/d1"),
        ("/a", "/a"),
    ] {
        check(rule, filter, true);
    }
    for (rule, filter) in [
        ("a", "b"),
        ("a", "a/b"),
        ("a/b", "a"),
        ("a", "a/#"),
        ("a", "+"),
        ("+", "#"),
        ("+", "a/b"),
        ("a/+", "a"),
        ("a/+", "a/#"),
        ("a/+", "a/+/b"),
        ("a/+/#", "a/#"),
        ("a/+/#", "a"),
        ("+/+/#", "#"),
        ("a/#", "#"),
        ("a/#", "+/b"),
        ("a/#", "ab"),
        ("devices/{device}/#", "devices/+/#"),
        ("devices/{device}/#", "devices/d2/#"),
        ("devices/{device}/#", "devices/#"),
        ("/a", "a"),
    ] {
        check(rule, filter, false);
    }
}

#[test]
fn patterns_overlap_where_some_topic_fits_both() {
    let check =
        |rule, filter, expected| assert_eq!(pattern(rule).overlaps(WHO, filter), expected, "{rule} {filter}");
    for (rule, filter) in [
        ("a", "#"),
        ("a", "a/#"),
        ("a/#", "a"),
        ("a/+", "+/b"),
        ("+/b/#", "a/#"),
        ("#", "$SYS/a"),
        ("devices/{device}/#", "devices/+/x"),
        ("devices/{device}", "#"),
        ("+/x", "#"),
        ("a/$x", "a/+"),
    ] {
        check(rule, filter, true);
    }
    for (rule, filter) in [
        ("a", "b"),
        ("a", "a/+"),
        ("a/b", "a"),
        ("$SYS/#", "#"),
        ("$SYS/#", "+/a"),
        ("a/b/#", "+"),
        ("devices/{device}/#", "devices/d2/#"),
        ("a/+/c", "a/b/d"),
    ] {
        check(rule, filter, false);
    }
}

#[test]
fn ids_that_clients_choose_never_become_wildcards_or_several_levels() {
    let check = |rule, who, filter| {
        assert!(!pattern(rule).covers(who, filter), "{rule} covers {filter} for {who:?}");
        assert!(!pattern(rule).overlaps(who, filter), "{rule} overlaps {filter} for {who:?}");
    };
    let named = |client| Who { user: Some(client), client, device: "d1" };
    for rule in ["x/{client}", "x/{user}/#", "x/{client}/+"] {
        for (client, filter) in
            [("+", "x/+"), ("#", "x/#"), ("", "x/"), ("a/b", "x/a/b"), ("+", "x/#"), ("", "x/+")]
        {
            check(rule, named(client), filter);
        }
    }
    check("{client}/#", named("$SYS"), "$SYS/#");
    check("{client}/#", named("$SYS"), "#");
    assert!(pattern("x/{client}").covers(named("$SYS"), "x/$SYS"), "not first, so nothing special");
    let anonymous = Who { user: None, ..WHO };
    for filter in ["u/u1", "u/", "u/+", "#"] {
        check("u/{user}", anonymous, filter);
    }
}

#[test]
fn bad_patterns_are_refused() {
    let check = |text: &str, error| assert_eq!(text.parse::<Pattern>(), Err(error), "{text}");
    check("", PatternError::Length);
    check(&"x".repeat(BYTES_MAX + 1), PatternError::Length);
    assert!("x".repeat(BYTES_MAX).parse::<Pattern>().is_ok());
    for text in ["a+", "+a/b", "#/a", "a/#/b", "a#", "a/##", "++"] {
        check(text, PatternError::Wildcard);
    }
    for text in ["{tenant}/a", "a/{device}x", "{", "a/}", "{{device}}"] {
        check(text, PatternError::Capture);
    }
    check("a\0", PatternError::Control);
    check("a\nb", PatternError::Control);
    check("$share/group/a", PatternError::Shared);
}

/// Every text of one to `levels_max` levels out of `alphabet`, without the empty one.
fn spelled(alphabet: &[&str], levels_max: usize) -> Vec<String> {
    let mut all: Vec<String> = Vec::new();
    let mut last: Vec<String> = alphabet.iter().map(|&level| level.to_owned()).collect();
    for _ in 0..levels_max {
        let longer = last.iter().flat_map(|head| alphabet.iter().map(move |level| format!("{head}/{level}")));
        let longer = longer.collect();
        all.append(&mut std::mem::replace(&mut last, longer));
    }
    all.retain(|text| !text.is_empty());
    all
}

/// Every filter of up to `levels_max` levels out of `alphabet`, with and without `#` behind it.
fn filters(alphabet: &[&str], levels_max: usize) -> Vec<String> {
    let plain = spelled(alphabet, levels_max);
    let with_rest = plain.iter().map(|filter| format!("{filter}/#"));
    let all = plain.iter().cloned().chain(with_rest).chain(["#".to_owned()]);
    all.filter(|filter| filter.parse::<Pattern>().is_ok()).collect()
}

/// Whether a name fits a pattern, told by the rule of section 4.7: below a common level nothing is
/// special about `$`.
fn fits(pattern: &str, name: &str) -> bool {
    let own = pattern.replace("{device}", WHO.device);
    filter_matches(&format!("top/{own}"), &format!("top/{name}"))
}

/// Over names of up to four levels, among them levels that no filter names, covering is inclusion of
/// the sets of names and overlapping is that they meet.
#[test]
fn covering_and_overlapping_agree_with_sets_of_topics() {
    let names = spelled(&["a", "d1", "fresh", "$x", ""], 4);
    let set =
        |matches: &dyn Fn(&str) -> bool| -> Vec<bool> { names.iter().map(|name| matches(name)).collect() };
    let rules = filters(&["a", "+", "{device}", "$x", ""], 3);
    let asked = filters(&["a", "+", "d1", "$x", ""], 3);
    let rules: Vec<_> =
        rules.iter().map(|rule| (rule, pattern(rule), set(&|name| fits(rule, name)))).collect();
    let asked: Vec<_> = asked.iter().map(|ask| (ask, set(&|name| filter_matches(ask, name)))).collect();
    let (mut covered, mut met) = (0, 0);
    for (rule, pattern, fitting) in &rules {
        for (ask, matched) in &asked {
            let pairs = || fitting.iter().zip(matched);
            let covers = pairs().all(|(fits, matches)| *fits || !matches);
            let overlaps = pairs().any(|(fits, matches)| *fits && *matches);
            assert_eq!(pattern.covers(WHO, ask), covers, "{rule} covers {ask}");
            assert_eq!(pattern.overlaps(WHO, ask), overlaps, "{rule} overlaps {ask}");
            covered += usize::from(covers);
            met += usize::from(overlaps);
        }
    }
    assert!(covered > 1000 && met > covered, "{covered} {met}");
}

/// Levels out of which random filters are made; names take those without wildcards.
fn levels(wild: bool) -> impl Strategy<Value = Vec<String>> {
    let level = prop_oneof![
        6 => "[ab]".prop_map(String::from),
        2 => Just(if wild { "+" } else { "c" }.to_owned()),
        1 => Just("$a".to_owned()),
        1 => Just(String::new()),
    ];
    prop::collection::vec(level, 1..7)
}

fn filter() -> impl Strategy<Value = String> {
    let with_rest = (levels(true), any::<bool>());
    with_rest.prop_map(|(mut levels, rest)| {
        if rest {
            levels.push("#".to_owned());
        }
        levels.join("/")
    })
}

proptest! {
    #[test]
    fn a_topic_within_a_covered_filter_fits_the_rule(rule in filter(), ask in filter(), name in levels(false)) {
        let name = name.join("/");
        prop_assume!(!rule.is_empty() && !ask.is_empty() && !name.is_empty());
        let rule = pattern(&rule);
        let (fits, matches) = (rule.covers(WHO, &name), filter_matches(&ask, &name));
        prop_assert!(!(rule.covers(WHO, &ask) && matches) || fits);
        prop_assert!(!(fits && matches) || rule.overlaps(WHO, &ask));
        prop_assert!(!rule.covers(WHO, &ask) || rule.overlaps(WHO, &ask));
    }

    #[test]
    fn any_text_is_a_pattern_or_an_error_and_compares_with_any_other(rule in ".{0,40}", ask in ".{0,40}") {
        if let Ok(rule) = rule.parse::<Pattern>() {
            let _ = (rule.covers(WHO, &ask), rule.overlaps(WHO, &ask));
        }
    }
}

use super::*;
use crate::mqtt::codec::filter_matches;

const OPTIONS: Options =
    Options { id: 0, qos: 1, no_local: false, retain_as_published: false, guarded: false };

fn numbers(router: &Router<u64>, topic: &str) -> Vec<u64> {
    let mut found = Vec::new();
    router.matches(topic, |_| true, &mut found);
    assert!(found.iter().all(|one| one.number == *one.session));
    found.iter().map(|one| one.number).collect()
}

fn subscribe(router: &Router<u64>, filter: &str, number: u64) -> bool {
    router.subscribe((None, filter), (number, &Arc::new(number)), OPTIONS)
}

#[test]
fn filters_find_their_sessions_and_leave_nothing_behind() {
    let router = Router::new();
    assert!(subscribe(&router, "devices/+/telemetry", 1));
    assert!(subscribe(&router, "devices/#", 2));
    assert!(subscribe(&router, "#", 3));
    assert!(subscribe(&router, "devices/d1", 4));
    assert!(!subscribe(&router, "devices/d1", 4), "it replaces the one that is there");
    assert_eq!(numbers(&router, "devices/d1/telemetry"), [1, 2, 3]);
    assert_eq!(numbers(&router, "devices"), [2, 3]);
    assert_eq!(numbers(&router, "devices/d1"), [2, 3, 4]);
    assert_eq!(numbers(&router, "$SYS/x"), [] as [u64; 0]);
    assert_eq!(numbers(&router, "/devices/d1"), [3]);
    for (filter, number) in [("devices/+/telemetry", 1), ("devices/#", 2), ("#", 3), ("devices/d1", 4)] {
        assert!(router.unsubscribe((None, filter), number), "{filter}");
        assert!(!router.unsubscribe((None, filter), number), "{filter}");
    }
    assert!(router.is_empty());
}

#[test]
fn a_group_takes_turns_and_prefers_who_is_there() {
    let router = Router::new();
    for number in 1..=3_u64 {
        router.subscribe((Some("g"), "a/+"), (number, &Arc::new(number)), OPTIONS);
    }
    router.subscribe((Some("h"), "a/+"), (9, &Arc::new(9)), OPTIONS);
    let mut seen = Vec::new();
    for _ in 0..6 {
        let found = numbers(&router, "a/b");
        assert_eq!(found.len(), 2, "one of each group");
        assert_eq!(found.last(), Some(&9));
        seen.extend(found.first().copied());
    }
    seen.sort_unstable();
    assert_eq!(seen, [1, 1, 2, 2, 3, 3]);
    let mut found = Vec::new();
    for _ in 0..4 {
        router.matches("a/b", |session| *session == 2, &mut found);
    }
    assert_eq!(found.iter().filter(|one| one.number == 2).count(), 4);
    for number in 1..=3 {
        assert!(router.unsubscribe((Some("g"), "a/+"), number));
    }
    assert!(router.unsubscribe((Some("h"), "a/+"), 9));
    assert!(router.is_empty());
}

#[test]
fn silence_is_remembered_until_somebody_subscribes() {
    let router = Router::new();
    let mut quiet = Quiet::default();
    assert!(router.is_quiet(&mut quiet, "a/b"));
    subscribe(&router, "x", 1);
    assert!(router.is_quiet(&mut quiet, "a/b") && router.is_quiet(&mut quiet, "a/c"));
    assert!(router.is_quiet(&mut quiet, "a/b"), "two topics are remembered");
    assert!(!router.is_quiet(&mut quiet, "x"));
    subscribe(&router, "a/+", 2);
    assert!(!router.is_quiet(&mut quiet, "a/b"));
    router.unsubscribe((None, "a/+"), 2);
    assert!(router.is_quiet(&mut quiet, "a/b"));
}

/// Levels from a small alphabet, so that filters and names meet.
fn text(levels: &[u8], wild: bool) -> String {
    let words: &[&str] = if wild { &["a", "b", "", "$x", "+"] } else { &["a", "b", "", "$x"] };
    let mut levels: Vec<_> = levels
        .iter()
        .map(|level| words.get(usize::from(*level) % words.len()).copied().unwrap_or("a"))
        .collect();
    if wild && levels.len() > 3 {
        levels.truncate(3);
        levels.push("#");
    }
    levels.join("/")
}

proptest::proptest! {
    #[test]
    fn it_agrees_with_matching_each_filter(
        filters in proptest::collection::vec(proptest::collection::vec(0_u8..20, 1..5), 0..40),
        names in proptest::collection::vec(proptest::collection::vec(0_u8..20, 1..5), 1..20),
        removed in proptest::collection::vec(0_usize..40, 0..20),
    ) {
        let router = Router::new();
        let mut subscribed: Vec<_> = filters.iter().map(|levels| text(levels, true)).collect();
        subscribed.retain(|filter| !filter.is_empty());
        for (number, filter) in (0..).zip(&subscribed) {
            subscribe(&router, filter, number);
        }
        let gone = |number: u64| usize::try_from(number).is_ok_and(|number| removed.contains(&number));
        for (number, filter) in (0..).zip(&subscribed) {
            if gone(number) {
                proptest::prop_assert!(router.unsubscribe((None, filter), number));
            }
        }
        for name in names.iter().map(|levels| text(levels, false)).filter(|name| !name.is_empty()) {
            let expected: Vec<u64> = (0..)
                .zip(&subscribed)
                .filter(|(number, filter)| !gone(*number) && filter_matches(filter, &name))
                .map(|(number, _)| number)
                .collect();
            proptest::prop_assert_eq!(numbers(&router, &name), expected.clone());
            let quiet = router.is_quiet(&mut Quiet::default(), &name);
            proptest::prop_assert_eq!(quiet, expected.is_empty());
        }
    }
}

//! The table's rows: what they look like, and what junk in them does.

use proptest::prelude::*;

use super::super::Junk;
use super::super::row::{Names, Row, RowKey};
use super::*;

/// A world with something of everything.
fn full() -> World {
    let mut world = World::new(
        "[alerting]\nstorm = { when_open_in_group = 4 }\nmax_rate = { events_per_s = 0.001, burst = 5 }\nflapping = { max_transitions = 2 }\n[[mute]]\nmatch = { device = \"quiet\" }",
    );
    for n in 0..6 {
        world.raise(PRESSURE, &format!("dev-{n}"), Severity::Warning);
    }
    world.raise(SILENT, "dev-1", Severity::Critical);
    world.raise(BOILER, "dev-1", Severity::Info);
    world.raise(BOILER, "quiet", Severity::Info);
    world.raise(BOILER, "closed", Severity::Critical);
    world.clear(BOILER, "closed");
    for _ in 0..3 {
        world.raise(BOILER, "flapping", Severity::Critical);
        world.clear(BOILER, "flapping");
    }
    world.raise(BOILER, "dev-2", Severity::Info);
    world.raise(BOILER, "dev-3", Severity::Info);
    world.raise(BOILER, "dev-4", Severity::Info);
    world
}

pub(in super::super) fn row_seeds() -> Vec<Vec<u8>> {
    let seed = |(key, value): (Vec<u8>, Vec<u8>)| {
        let length = u8::try_from(key.len()).expect("short");
        [&[length], key.as_slice(), value.as_slice()].concat()
    };
    full().rows.into_iter().map(seed).collect()
}

#[test]
fn rows_are_read_as_they_were_written() {
    let world = full();
    let kinds: std::collections::BTreeSet<_> = world.rows.keys().map(|key| key[1]).collect();
    assert_eq!(kinds.into_iter().collect::<Vec<_>>(), [1, 2, 3, 4, 5]);
    let mut names = Names::default();
    for (key, value) in &world.rows {
        let known = RowKey::decode(key).expect("a key");
        assert_eq!(&known.encode(), key);
        let row = Row::decode(known, value, &mut names).expect("a row");
        // Every byte matters: without the last one, or with one more, it is junk.
        assert_eq!(Row::decode(known, &value[..value.len() - 1], &mut names), None);
        assert_eq!(Row::decode(known, &[value.as_slice(), &[0]].concat(), &mut names), None);
        let mut later = value.clone();
        later[0] = 3;
        assert_eq!(Row::decode(known, &later, &mut names), None, "a version that is not known");
        if let Row::Alert(alert) = row {
            let subject = super::super::ident::Digest(key[2..].try_into().expect("16 bytes"));
            let known = &world.lifecycle.alerts[&subject];
            let alert = super::super::alert::Alert { group: known.group, ..*alert };
            assert_eq!(&alert, &**known);
        }
    }
}

#[test]
fn junk_is_counted_and_deleted_and_the_rest_goes_on() {
    let mut world = full();
    let good = world.rows.clone();
    let cut: Vec<_> =
        good.iter().map(|(key, value)| (key.clone(), value[..value.len() / 2].to_vec())).collect();
    world.rows.extend(cut.iter().map(|(key, value)| ([key.as_slice(), &[7]].concat(), value.clone())));
    world.rows.insert(vec![19], vec![]);
    world.rows.insert(vec![19, 9, 9], vec![1, 2, 3]);
    let (policy, rules) = (Arc::clone(&world.policy), Arc::clone(&world.rules));
    world.lifecycle = Lifecycle::new(voice(), policy, rules);
    let mut junk = 0;
    for (key, value) in &world.rows {
        match world.lifecycle.load(key, value) {
            Ok(()) => assert!(good.contains_key(key)),
            Err(error) => {
                assert_eq!(error, Junk::Key);
                junk += 1;
            }
        }
    }
    world.told.clear();
    world.pass(0);
    assert_eq!((world.counts.junk_rows, junk), (good.len() as u64 + 2, good.len() + 2));
    assert_eq!(world.rows, good, "and deleted");
    world.check(&[]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]
    #[test]
    fn rows_with_any_bytes_changed_never_make_it_panic(
        row in any::<prop::sample::Index>(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
    ) {
        static SEEDS: std::sync::LazyLock<Vec<Vec<u8>>> = std::sync::LazyLock::new(row_seeds);
        let mut bytes = row.get(&SEEDS[..]).clone();
        for (place, byte) in changes {
            *place.get_mut(&mut bytes[..]) = byte;
        }
        for decoder in super::super::DECODERS {
            (decoder.decode)(&bytes);
        }
    }
}

/// The rows of the document, made anew.
#[test]
fn the_document_shows_rows_as_they_are() {
    let format = include_str!("../../../../../docs/formats/alert-table-v1.md");
    let mut world = World::new("");
    world.raise(BOILER, "dev 1/ü", Severity::Critical);
    world.raise(PRESSURE, "dev-2", Severity::Info);
    world.clear(PRESSURE, "dev-2");
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    assert_eq!(world.rows.len(), 5, "one of each kind");
    let line =
        |(key, value): (&Vec<u8>, &Vec<u8>)| format!("| {} | `{}` | `{}` |", key[1], hex(key), hex(value));
    let missing: Vec<_> =
        world.rows.iter().map(line).filter(|line| !format.contains(line.as_str())).collect();
    assert!(missing.is_empty(), "{}", missing.join("\n"));
}

#[test]
fn times_from_the_future_do_not_silence_for_ever() {
    let mut world = full();
    world.now -= 1000 * HOUR;
    world.restart();
    world.told.clear();
    world.pass(2 * HOUR);
    // Calm, storms and tokens come back within their time, seen from now.
    assert!(!world.told.is_empty());
    assert!(world.lifecycle.alerts.values().all(|alert| !alert.flapping && alert.told_ms <= world.now));
}

#[test]
fn more_alerts_than_any_policy_allows_are_not_loaded() {
    let world = full();
    let (key, value) = world.rows.iter().find(|(key, _)| key[1] == 1).expect("an alert");
    let mut lifecycle = Lifecycle::new(voice(), Arc::clone(&world.policy), Arc::clone(&world.rules));
    lifecycle.load(key, value).expect("a row");
    assert_eq!(lifecycle.load(key, value), Err(Junk::TooMany), "the same again");
}

//! What the section takes, what it refuses, and what it says about a namespace's limits.

use std::path::Path;
use std::time::Duration;

use super::Config;
use crate::config::{Settings, Shape, Value};

const KEY: &str =
    "Endpoint=sb://contoso.servicebus.windows.net/;SharedAccessKeyName=listen;SharedAccessKey=bm90LWEta2V5";

/// The settings of a file whose commands are `commands`, with a connection string at hand.
fn load(folder: &Path, commands: &str) -> Result<Settings, String> {
    let key = folder.join("service-bus.connection");
    std::fs::write(&key, KEY).expect("written");
    let file = folder.join("penstock.toml");
    let commands = commands.replace("KEY", &key.display().to_string());
    let text = format!(
        "[gateway]\nid = \"site-7\"\n[outbox]\ndirectory = \"o\"\n[uplink]\nenabled = false\n\
         [[mqtt.listener]]\naddress = \"127.0.0.1:0\"\n{commands}"
    );
    std::fs::write(&file, text).expect("written");
    Settings::load(&file, std::iter::empty()).map_err(|error| error.to_string())
}

const CONNECTION: &str = "[commands.connection]\nconnection_string_file = \"KEY\"\n";

fn accepted(keys: &str) -> Settings {
    let folder = tempfile::tempdir().expect("a temporary folder");
    load(folder.path(), &format!("[commands]\n{keys}\n{CONNECTION}")).expect(keys)
}

fn refused(keys: &str, expected: &str) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let error = load(folder.path(), &format!("[commands]\n{keys}\n{CONNECTION}")).expect_err(keys);
    assert!(error.contains(expected), "{keys}: {error}");
}

#[test]
fn without_the_section_there_are_no_commands() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let settings = load(folder.path(), "").expect("accepted");
    assert!(settings.commands.is_none() && settings.mqtt.commands.is_none());
    assert!(!settings.effective.contains("commands"));
}

#[test]
fn the_section_needs_a_way_to_sign_in() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let error = load(folder.path(), "[commands]\n").expect_err("refused");
    assert!(error.contains("commands.connection.connection_string_file is missing"), "{error}");
    let namespace = "[commands.connection]\nnamespace = \"contoso\"\n";
    let error = load(folder.path(), namespace).expect_err("refused");
    assert!(error.contains("azure.credential") && error.contains("commands.connection.namespace"), "{error}");
    let both = format!("{CONNECTION}namespace = \"contoso\"\n");
    let error = load(folder.path(), &both).expect_err("refused");
    assert!(error.contains("nothing with connection_string_file"), "{error}");
    let entra = format!("{namespace}[azure]\ncredential = \"managed-identity\"\n");
    let commands = load(folder.path(), &entra).expect("accepted").commands.expect("given");
    assert_eq!(
        commands.tokens().map(|tokens| tokens.audience().host()),
        Some("contoso.servicebus.windows.net")
    );
}

#[test]
fn the_front_end_is_told_the_topic_of_commands() {
    let settings = accepted("topic = \"plants/{device}/do/{name}/{command_id}\"");
    let topic = settings.mqtt.commands.map(|topic| topic.to_string());
    assert_eq!(topic.as_deref(), Some("plants/{device}/do/{name}/{command_id}"));
    refused("topic = \"commands/{device}\"", "{command_id}");
}

#[test]
fn entities_come_of_the_template_the_groups_and_the_shards() {
    let groups = "entity = \"c-{site}-{shard}\"\nshards = 2\nsite = \"oslo\"\n[[commands.group]]\ndevices = \"pump-*\"\nsite = \"bergen\"";
    let commands = accepted(groups).commands.expect("given");
    let names: Vec<_> = commands.entities.names().iter().map(ToString::to_string).collect();
    assert_eq!(names, ["c-bergen-0", "c-bergen-1", "c-oslo-0", "c-oslo-1"]);
    refused("shards = 2", "{shard}");
    refused("entity = \"c-{site}\"", "commands.site");
    refused("entity = \"c-{site}\"\nsite = \"a/b\"", "1 to 64 of A-Z a-z 0-9 . _ -");
    refused("[[commands.group]]\ndevices = \"*pump*\"", "one * at most");
}

#[test]
fn replicas_hold_the_sessions_of_others_for_two_seconds_at_most() {
    let park_time = |keys| accepted(keys).commands.expect("given").limits.park_time.as_secs();
    assert_eq!((park_time(""), park_time("replicas = true")), (30, 2));
}

#[test]
fn dead_letters_are_watched_only_where_it_is_said() {
    let watched = |keys| accepted(keys).commands.expect("given").dead_letters;
    assert_eq!(watched(""), None);
    let settings = watched("[commands.dead_letters]").expect("watched");
    assert_eq!((settings.interval.as_secs(), settings.remembered_max), (30, 100_000));
    refused("[commands.dead_letters]\ninterval = \"100ms\"", "commands.dead_letters.interval");
    refused("[commands.dead_letters]\nremembered_max = 5", "commands.dead_letters.remembered_max");
}

#[test]
fn what_is_asked_of_the_namespace_is_said_beside_the_settings() {
    let check = |keys: &str, devices: usize, lines: &[&str]| {
        let advice = accepted(keys).commands.expect("given").advice(devices);
        assert_eq!(advice.len(), lines.len(), "{advice:#?}");
        for (said, expected) in advice.iter().zip(lines) {
            assert!(said.contains(expected), "{said}");
        }
    };
    check(
        "",
        1000,
        &["at most 1000 links to 1 entities on 1 connections, 1000 receivers at one entity, 33.3 renewals"],
    );
    check(
        "",
        10_000,
        &["4000 links to 1 entities on 5 connections, 4264 receivers", "6000 of 10000 devices"],
    );
    check(
        "links_max = 5000",
        10_000,
        &["5000 links", "5264 receivers at one entity are more than the 5000", "5000 of 10000 devices"],
    );
    check(
        "entity = \"c-{shard}\"\nshards = 10",
        20_000,
        &["20000 links to 10 entities on 23 connections", "more than half of the 1000 operations"],
    );
    check(
        "entity = \"c-{shard}\"\nshards = 10",
        40_000,
        &["40000 links to 10 entities", "more than the 1000 operations per second of the Standard tier"],
    );
    let said = accepted("").effective;
    assert!(
        said.contains("\n[commands.connection]\n") && said.contains("\n# commands: at most 4000 links"),
        "{said}"
    );
    assert!(said.parse::<toml::Table>().is_ok(), "what is said beside them is a comment");
}

#[test]
fn replies_go_where_the_section_says_and_nowhere_without_it() {
    let replies = |keys: &str| accepted(keys).commands.expect("given").replies;
    assert_eq!(replies(""), None);
    let settings = replies("[commands.replies]\nto = \"replies, Desk-*\"").expect("given");
    let may = |name: &str| settings.to.iter().any(|pattern| pattern.matches(name));
    assert!(may("replies") && may("desk-7") && !may("others"));
    assert_eq!((settings.timeout.as_secs(), settings.time_to_live.as_secs()), (10, 3600));
    refused("[commands.replies]", "commands.replies.to is missing");
    refused("[commands.replies]\nto = \"a, *b*\"", "one * at most");
    refused("[commands.replies]\nto = \"a,,b\"", "names of queues or topics");
    refused(
        "[commands.replies]\nto = \"sb://contoso.servicebus.windows.net/a\"",
        "names of queues or topics",
    );
    refused("[commands.replies]\nto = \"Commands\"", "commands do not come from");
    refused("[commands.replies]\nto = \"a\"\ntimeout = \"2min\"", "from 1s to 1min");
    let many = vec!["a"; 65].join(",");
    refused(&format!("[commands.replies]\nto = \"{many}\""), "at most 64 names");
}

/// Values at the edges of what a key takes, as they stand in the file, and the nearest ones that it does not take. The
/// longest texts are not among the first: most have a form of their own.
fn edges(value: &Value) -> (Vec<String>, Vec<String>) {
    let below = |least: u64| least.checked_sub(1);
    match value {
        Value::Count { min, max } => {
            let outside = below(*min).into_iter().chain([max + 1]);
            (vec![min.to_string(), max.to_string()], outside.map(|count| count.to_string()).collect())
        }
        Value::Bytes { min, max } => {
            let text = |bytes: u64| format!("\"{bytes}B\"");
            (vec![text(*min), text(*max)], below(*min).into_iter().chain([max + 1]).map(text).collect())
        }
        Value::Time { min, max } => {
            let text = |time: Duration| format!("\"{}us\"", time.as_micros());
            let one = Duration::from_micros(1);
            (vec![text(*min), text(*max)], vec![text(*min - one), text(*max + one)])
        }
        Value::Text { chars_max } => {
            (vec![], vec!["\"\"".to_owned(), format!("\"{}\"", "a".repeat(chars_max + 1))])
        }
        Value::Choice(words) => {
            let quoted = |word: &&str| format!("\"{word}\"");
            (words.iter().map(quoted).collect(), vec!["\"neither\"".to_owned()])
        }
        Value::Flag => (vec!["true".to_owned(), "false".to_owned()], vec!["\"maybe\"".to_owned()]),
        Value::Path | Value::Address => (vec![], vec![]),
    }
}

/// What else has to stand in the file for a key to be taken, by table.
const COMPANY: [(&str, &str, &str); 5] = [
    ("", "entity", "\"c-{shard}\""),
    ("", "shards", "2"),
    ("connection", "connection_string_file", "\"KEY\""),
    ("replies", "to", "\"a\""),
    ("group", "devices", "\"pump-*\""),
];

/// A file that sets one key of one table.
fn setting(shape: &Shape, table: &str, key: &str, value: &str) -> Result<Settings, String> {
    let mut text = String::new();
    let tables =
        [("", false)].into_iter().chain(shape.children.iter().map(|child| (child.name, child.repeated)));
    for (name, repeated) in tables.filter(|(name, _)| ["", "connection", table].contains(name)) {
        let head = [shape.name, name].join(".");
        let head = head.trim_end_matches('.');
        text.push_str(&if repeated { format!("[[{head}]]\n") } else { format!("[{head}]\n") });
        for (_, other, value) in
            COMPANY.iter().filter(|(of, other, _)| *of == name && (name, *other) != (table, key))
        {
            text.push_str(&format!("{other} = {value}\n"));
        }
        if name == table {
            text.push_str(&format!("{key} = {value}\n"));
        }
    }
    let folder = tempfile::tempdir().expect("a temporary folder");
    load(folder.path(), &text)
}

#[test]
fn every_key_takes_what_is_within_its_bounds_and_nothing_else() {
    let shape = &Config::SHAPE;
    let tables =
        [("", shape.keys)].into_iter().chain(shape.children.iter().map(|child| (child.name, child.keys)));
    let mut checked = 0;
    for (table, key) in tables.flat_map(|(table, keys)| keys.iter().map(move |key| (table, key))) {
        let path = ["commands", table, key.name].join(".").replace("..", ".");
        let path = if table == "group" { path.replace("group", "group[0]") } else { path };
        let (inside, outside) = edges(&key.value);
        for value in inside {
            let set = setting(shape, table, key.name, &value);
            assert!(set.is_ok(), "{path} = {value}: {}", set.err().unwrap_or_default());
            checked += 1;
        }
        for value in outside {
            let error = setting(shape, table, key.name, &value).err();
            let error = error.unwrap_or_else(|| panic!("{path} = {value} was taken"));
            assert!(error.contains(&path) && error.contains(&key.value.range()), "{path} = {value}: {error}");
            checked += 1;
        }
    }
    assert!(checked > 80, "{checked}");
}

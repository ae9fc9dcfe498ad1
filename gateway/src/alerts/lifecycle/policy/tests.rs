use toml::{Table, Value};

use super::*;

fn read(text: &str) -> Result<Policy, PolicyError> {
    let file: Table = text.parse().expect("TOML");
    let mutes = file.get("mute").and_then(Value::as_array).cloned().unwrap_or_default();
    let mutes: Vec<_> = mutes.iter().filter_map(|mute| mute.as_table().cloned()).collect();
    Policy::read(file.get("alerting").and_then(Value::as_table), &mutes, "rules.toml")
}

#[track_caller]
fn refused(text: &str, error: &str) {
    assert_eq!(read(text).map_err(|error| error.to_string()), Err(format!("rules.toml: {error}")));
}

#[test]
fn what_is_not_said_has_its_default() {
    let policy = read("").expect("a policy");
    assert_eq!(policy, read("[alerting]\nstorm = {}\nflapping = {}\nmax_rate = {}").expect("a policy"));
    let said = read(
        r#"
        [alerting]
        group_by = ["rule", "tenant"]
        group_wait = "2s"
        group_interval = "1min"
        repeat_interval = "4h"
        max_open_alerts = 200000
        held_max = 10000
        max_rate = { events_per_s = 50, burst = 500 }
        tenant_rate = { events_per_s = 20.0, burst = 200 }
        flapping = { max_transitions = 10, window = "10min" }
        storm = { when_open_in_group = 50 }
        "#,
    );
    assert_eq!(said, Ok(policy));
}

#[test]
fn limits_are_limits() {
    let check = |key: &str, value: &str, good: bool| {
        let found = read(&format!("[alerting]\n{key} = {value}"));
        assert_eq!(found.is_ok(), good, "{key} = {value}: {found:?}");
    };
    for (key, least, below) in [
        ("group_interval", "\"1s\"", "\"999ms\""),
        ("repeat_interval", "\"1s\"", "\"999ms\""),
        ("max_open_alerts", "1", "0"),
        ("held_max", "1", "0"),
        ("max_rate", "{ events_per_s = 0.001 }", "{ events_per_s = 0.0009 }"),
        ("tenant_rate", "{ burst = 1 }", "{ burst = 0 }"),
        ("flapping", "{ window = \"1s\" }", "{ window = \"0s\" }"),
        ("flapping", "{ max_transitions = 0 }", "{ max_transitions = -1 }"),
        ("storm", "{ when_open_in_group = 2 }", "{ when_open_in_group = 1 }"),
    ] {
        check(key, least, true);
        check(key, below, false);
    }
    for (key, most, above) in [
        ("group_wait", "\"5min\"", "\"301s\""),
        ("group_interval", "\"24h\"", "\"25h\""),
        ("repeat_interval", "\"720h\"", "\"721h\""),
        ("max_open_alerts", "1000000", "1000001"),
        ("held_max", "1000000", "1000001"),
        ("max_rate", "{ events_per_s = 5000.0 }", "{ events_per_s = 5001 }"),
        ("tenant_rate", "{ burst = 1000000 }", "{ burst = 1000001 }"),
        ("flapping", "{ max_transitions = 100 }", "{ max_transitions = 101 }"),
        ("group_by", "[\"severity\", \"rule\", \"class\", \"site\", \"tenant\"]", "[\"rule\", \"rule\"]"),
    ] {
        check(key, most, true);
        check(key, above, false);
    }
    for rate in ["nan", "inf", "-1", "\"5\""] {
        check("max_rate", &format!("{{ events_per_s = {rate} }}"), false);
    }
}

#[test]
fn errors_name_file_key_value_and_range() {
    refused(
        "[alerting]\ngroup_intervall = \"1s\"",
        "alerting.group_intervall = \"1s\": expected one of the keys group_by, group_wait, group_interval, \
         repeat_interval, max_open_alerts, held_max, max_rate, tenant_rate, flapping, storm",
    );
    refused(
        "[alerting]\ngroup_wait = 5",
        "alerting.group_wait = 5: expected a duration from \"0s\" to \"5min\"",
    );
    refused(
        "[alerting]\nmax_rate = { events_per_s = 0 }",
        "alerting.max_rate.events_per_s = 0: expected a number from 0.001 to 5000",
    );
    refused(
        "[alerting]\nmax_rate = { bursts = 0 }",
        "alerting.max_rate.bursts = 0: expected one of the keys events_per_s, burst",
    );
    refused("[alerting]\nstorm = 3", "alerting.storm = 3: expected a table");
    refused(
        "[alerting]\ngroup_by = [\"tenant\", \"device\"]",
        "alerting.group_by = \"device\": expected each of tenant, site, class, rule and severity at most once",
    );
    refused(
        "[[mute]]\nfrom = 2026-11-21T02:00:00Z\n[[mute]]\nmatch = { devise = \"a\" }",
        "mute[2].match.devise = \"a\": expected one of the keys tenant, site, class, device, rule",
    );
    refused("[[mute]]\nmode = \"drop\"\nmatch = {}", "mute[1].mode = \"drop\": expected \"record-only\"");
    refused(
        "[[mute]]\nname = \"all\"",
        "mute[1].match = { name = \"all\" }: expected a mute that says what or when: match, windows, from or until",
    );
    refused("[[mute]]\nmatch = { rule = [] }", "mute[1].match.rule = []: expected at least one text");
    refused(
        "[[mute]]\nfrom = 2026-11-21T02:00:00",
        "mute[1].from = 2026-11-21T02:00:00: expected a moment such as 2026-11-21T02:00:00+01:00",
    );
    refused(
        "[[mute]]\nfrom = 2026-11-21T02:00:00Z\nuntil = \"2026-11-21T03:00:00+01:00\"",
        "mute[1].until = \"2026-11-21T03:00:00+01:00\": expected a moment after `from`",
    );
    let many = "[[mute]]\nmatch = { rule = \"a\" }\n".repeat(1001);
    refused(&many, "mute = 1001 tables: expected at most 1000");
}

#[test]
fn windows_are_read_or_refused() {
    let window = |text: &str| read(&format!("[[mute]]\nwindows = [\"{text}\"]"));
    for text in [
        "Sun 02:00-04:00 Europe/Paris",
        "mon-fri,SUN 22:00-06:00",
        "daily 00:00-24:00 America/New_York",
        "Sat-Mon 00:00-00:00 UTC",
    ] {
        assert!(window(text).is_ok(), "{text}");
    }
    for (text, expected) in [
        ("", "days, times and a time zone"),
        ("Sun", "days, times and a time zone"),
        ("Sun 02:00-04:00 Europe/Paris now", "days, times and a time zone"),
        ("Sun 02:00", "days, times and a time zone"),
        ("Son 02:00-04:00", "days such as Mon"),
        ("Mon- 02:00-04:00", "days such as Mon"),
        ("Sun 24:00-04:00", "a time from 00:00 to 23:59 at the beginning"),
        ("Sun 2:00-04:00", "a time from 00:00 to 23:59 at the beginning"),
        ("Sun 02:00-04:60", "a time from 00:00 to 24:00 at the end"),
        ("Sun 02:00-02:00", "a window that ends at another time than it begins"),
        ("Sun 02:00-04:00 Europe/Parys", "a time zone of the IANA database"),
    ] {
        let error = window(text).expect_err(text);
        assert!(error.expected.starts_with(expected), "{text}: {error}");
        assert_eq!((error.key.as_str(), error.value), ("mute[1].windows", format!("\"{text}\"")));
    }
}

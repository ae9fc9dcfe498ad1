//! The commands on a directory of the repository, which nothing may change.

use std::path::{Path, PathBuf};

use clap::Parser;
use serde_json::Value;

use super::*;

#[derive(Debug, Parser)]
struct Program {
    #[command(flatten)]
    args: Args,
}

fn fixture() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/outbox-v1/outbox")
}

/// Runs a command on the fixture: what it said, and whether all was well.
fn said(command: &str, more: &[&str]) -> Result<(String, bool), Error> {
    let directory = fixture().display().to_string();
    let arguments = ["penstock", command, &directory].into_iter().chain(more.iter().copied());
    let program = Program::try_parse_from(arguments).expect("it parses");
    let (mut out, mut remarks) = (Vec::new(), Vec::new());
    let well = run(&program.args, &mut out, &mut remarks)?;
    assert_eq!(remarks, b"");
    Ok((String::from_utf8(out).expect("text"), well))
}

fn well(command: &str, more: &[&str]) -> String {
    let (said, well) = said(command, more).expect("it can be done");
    assert!(well, "{said}");
    said
}

fn refused(command: &str, more: &[&str]) -> String {
    let error = said(command, more).expect_err("refused");
    assert_eq!(error.exit_code(), 2, "{error}");
    error.to_string()
}

fn check_exported(more: &[&str], expected: &[u64]) {
    let lines = well("export", more);
    let seq = |line: &str| serde_json::from_str::<Value>(line).expect("JSON")["seq"].as_u64();
    let found: Vec<u64> = lines.lines().filter_map(seq).collect();
    assert_eq!(found, expected, "{more:?}");
}

#[test]
fn exports_are_filtered() {
    let telemetry = |more: &[&'static str]| [["--lane", "telemetry"].as_slice(), more].concat();
    check_exported(&telemetry(&["--from", "30", "--to", "33"]), &[30, 31, 32, 33]);
    check_exported(&telemetry(&["--from", "20", "--to", "28", "--device", "pump-0-ü"]), &[21, 24, 27]);
    check_exported(&telemetry(&["--since", "2026-03-01T12:00:34Z"]), &[34, 35, 36]);
    check_exported(
        &telemetry(&["--since", "1772366434000", "--until", "2026-03-01T13:00:36+01:00"]),
        &[34, 35],
    );
    check_exported(&["--lane", "status", "--lane", "bulk"], &[1, 2, 1]);
    check_exported(&["--device", "nobody"], &[]);
}

#[test]
fn an_exported_record_has_everything_that_is_known() {
    let line = well("export", &["--lane", "telemetry", "--from", "14", "--to", "14"]);
    let expected = serde_json::json!({
        "log": "7a18082647555eb2", "epoch": 1, "lane": "telemetry", "seq": 14,
        "device": "pump-2-ü", "topic": "devices/pump-2-ü/telemetry",
        "received_ms": 1_772_366_414_000_u64, "received": "2026-03-01T12:00:14.000Z",
        "clock_synced": false, "qos": 2, "retain": false,
        "properties": {
            "tenant": "tenant-1", "site": "site-7", "class": "pump", "stream": "fast",
            "content_type": "application/json",
            "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "tracestate": "vendor=1",
            "response_topic": "answers/here", "correlation_data_hex": "0100ff", "expiry_seconds": 3600,
            "device_time_ms": 1_700_000_000_014_u64, "user": [["unit", "°C"], ["unit", "14"]],
        },
        "payload": "",
    });
    assert_eq!(serde_json::from_str::<Value>(&line).expect("JSON"), expected);
    let line = well("export", &["--lane", "telemetry", "--from", "13", "--to", "13"]);
    let value: Value = serde_json::from_str(&line).expect("JSON");
    assert_eq!((&value["payload_hex"], &value["payload"]), (&Value::from("fffe0d00"), &Value::Null));
}

#[test]
fn an_export_writes_a_new_file_outside_the_outbox() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("records").display().to_string();
    assert_eq!(well("export", &["--output", &file]), "");
    assert_eq!(std::fs::read_to_string(&file).expect("written").lines().count(), 3 + 2 + 24 + 1);
    assert!(refused("export", &["--output", &file]).contains("exists"), "nothing is overwritten");
    let inside = fixture().join("database/records").display().to_string();
    assert!(refused("export", &["--output", &inside]).contains("is inside the outbox"));
}

#[test]
fn segments_and_records_are_listed() {
    let segments = well("inspect", &[]);
    let words: Vec<Vec<&str>> = segments.lines().map(|line| line.split_whitespace().collect()).collect();
    let columns = |row: usize| (words[row][0], words[row][1], words[row][4], words[row][5], words[row][8]);
    assert_eq!(columns(1), ("13", "24", "lz4", "12", "3065"));
    assert_eq!(columns(3), ("28", "36", "none", "9", "6646"));
    assert_eq!(words.len(), 4);
    let from = well("inspect", &["--from", "26", "--count", "1"]);
    assert!(from.contains("\n   25    27  "), "the segment that holds it: {from}");
    let records = well("inspect", &["--records", "--from", "23", "--count", "2"]);
    let records: Vec<&str> = records.lines().collect();
    assert_eq!(
        records[1],
        r"23   2026-03-01T12:00:23.000Z  pump-2-ü  devices/pump-2-ü/telemetry  2           4      \xff\xfe\x17\x00"
    );
    assert!(records[2].contains("0 retained  0"), "{records:?}");
    assert_eq!(records.len(), 3);
}

#[test]
fn the_directory_is_shown_at_a_glance() {
    let text = well("stat", &[]);
    assert!(text.contains("log 7a18082647555eb2, epoch 2, format 1\n"), "{text}");
    assert!(text.contains("\ntelemetry    13    37       22  5.6 KiB"), "{text}");
    assert!(text.contains("\nuplink    telemetry               15   22  5.6 KiB   23 B\n"), "{text}");
    assert!(text.contains("\nstate: 0 keys, 0 B\n"), "{text}");
    let value: Value = serde_json::from_str(&well("stat", &["--json"])).expect("JSON");
    assert_eq!(value["lanes"][2]["backlog_messages"], 22);
    assert_eq!(value["consumers"][0]["consumer"], "uplink");
    assert_eq!((&value["incidents"], &value["holes"]), (&Value::from([(); 0]), &Value::from([(); 0])));
}

#[test]
fn the_state_of_the_front_end_is_counted() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/outbox-v2/outbox");
    let arguments = ["penstock", "stat", &directory.display().to_string()].map(str::to_owned);
    let program = Program::try_parse_from(arguments).expect("it parses");
    let mut out = Vec::new();
    assert!(run(&program.args, &mut out, &mut Vec::new()).expect("it can be done"));
    let text = String::from_utf8(out).expect("text");
    assert!(text.contains("epoch 2, format 2\n") && text.contains("\nstate: 3 keys, 41 B\n"), "{text}");
}

#[test]
fn a_verification_says_what_it_read() {
    let text = well("verify", &[]);
    assert!(text.contains("telemetry         3        24   5795          3838           0\n"), "{text}");
    assert!(text.ends_with("\nnothing is wrong\n"), "{text}");
}

#[test]
fn wrong_arguments_are_refused_with_what_is_expected() {
    let check = |arguments: &[&str], expected: &str| {
        let arguments = ["penstock"].into_iter().chain(arguments.iter().copied());
        let error = Program::try_parse_from(arguments).expect_err("refused").to_string();
        assert!(error.contains(expected), "{error}");
    };
    check(&["inspect", ".", "--lane", "fast"], "expected one of alerts, status, telemetry, bulk, dead");
    check(&["inspect", ".", "--from", "-1"], "unexpected argument");
    check(&["export", ".", "--from", "x"], "expected a position");
    check(&["export", ".", "--since", "noon"], "expected RFC 3339 such as");
    check(&["replay", ".", "--consumer", "uplink", "--lane", "telemetry"], "--to");
    check(&["replay", ".", "--consumer", "uplink", "--lane", "telemetry", "--to", "newest"], "or `oldest`");
    check(&["acknowledge", ".", "17", "--all"], "cannot be used with");
}

#[test]
fn losses_and_incidents_are_part_of_the_glance() {
    use crate::outbox::offline::incidents::{Incident, LostRange, Report};
    let lost = LostRange { lane: "telemetry".to_owned(), first: 5, last: 9, messages: 5 };
    let report = Report {
        at: "2026-03-01T12:00:00Z".to_owned(),
        cause: "short-log".to_owned(),
        ranges: vec![lost],
        ..Report::default()
    };
    let found = Incident { id: "900".to_owned(), acknowledged: false, report: Ok(report) };
    assert_eq!(acknowledge::line(&found), "900: short-log at 2026-03-01T12:00:00Z: telemetry 5 to 9");
    let unreadable = Incident { report: Err("cut short".to_owned()), ..found };
    assert_eq!(acknowledge::line(&unreadable), "900: the report cannot be read: cut short");
}

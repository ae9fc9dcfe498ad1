//! `penstock rules`: what somebody who writes rules is told before a gateway goes by them.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::process::Command;

use serde_json::Value;

use super::{HOT, Site, outline, text};
use crate::hub;

/// Exit code, results and remarks of `penstock`.
fn penstock(arguments: &[&OsStr]) -> (Option<i32>, String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_penstock")).args(arguments).output().expect("it runs");
    let text = |bytes| String::from_utf8(bytes).expect("text");
    (output.status.code(), text(output.stdout), text(output.stderr))
}

/// The same for `penstock rules`, with files that hold these texts.
fn rules(command: &str, texts: &[&str]) -> (Option<i32>, String, String) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let files: Vec<_> =
        (0..texts.len()).map(|place| folder.path().join(format!("file-{place}.toml"))).collect();
    for (file, text) in files.iter().zip(texts) {
        fs::write(file, text).expect("written");
    }
    let files = files.iter().map(|file| file.as_os_str());
    let arguments: Vec<&OsStr> = ["rules".as_ref(), command.as_ref()].into_iter().chain(files).collect();
    penstock(&arguments)
}

#[test]
fn a_mistake_is_named_with_its_place_and_the_other_rules_are_counted() {
    assert_eq!(rules("check", &[HOT]), (Some(0), "1 rules over 1 metrics\n".to_owned(), String::new()));
    let wrong = format!("{HOT}\n[[rule]]\nid = \"cold\"\nmetric = \"temperature\"\nraise = \"< much\"\n");
    let (code, said, remarks) = rules("check", &[&wrong]);
    assert_eq!(code, Some(2), "{said}{remarks}");
    let (line, rest) = said.split_once('\n').expect("two lines");
    for part in ["file-0.toml:12", "cold", "raise"] {
        assert!(line.contains(part), "{part} in {line}");
    }
    assert_eq!(rest, "1 rules over 1 metrics\n");
    let (code, _, remarks) = rules("check", &["[[rule]\n"]);
    assert_eq!((code, remarks.lines().count()), (Some(2), 1), "{remarks}");
    let missing = penstock(&["rules", "check", "/nowhere/rules.toml"].map(OsStr::new));
    assert_eq!(missing.0, Some(2));
    assert!(missing.2.contains("/nowhere/rules.toml"), "{}", missing.2);
}

#[test]
fn a_queue_that_the_configuration_does_not_name_is_a_mistake() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let write = |name: &str, text: &str| {
        let file = folder.path().join(name);
        fs::write(&file, text).expect("written");
        file
    };
    let action =
        "\n[[rule.action]]\nname = \"send\"\nservice_bus = { queue = \"repairs\", payload = \"1\" }\n";
    let rules = write("rules.toml", &format!("{HOT}{action}"));
    let connection =
        "Endpoint=sb://contoso.servicebus.windows.net/;SharedAccessKeyName=edge;SharedAccessKey=a2V5";
    let connection = write("service-bus.connection", connection);
    let check = |queue: &str| {
        let text = format!(
            "[gateway]\nid = \"edge-01\"\n[outbox]\ndirectory = \"/x\"\n[[mqtt.listener]]\naddress = \"127.0.0.1:1883\"\n[uplink]\nenabled = false\n[commands]\n[commands.connection]\nconnection_string_file = {connection:?}\n[alerts]\nrules_file = {rules:?}\ndirectory = \"/x\"\n[[alerts.service_bus]]\nentity = \"{queue}\"\n"
        );
        let config = write("penstock.toml", &text);
        let arguments = [OsStr::new("rules"), OsStr::new("check"), rules.as_os_str()];
        penstock(&[&arguments[..], &[OsStr::new("--config"), config.as_os_str()]].concat())
    };
    let (code, said, remarks) = check("repairs");
    assert_eq!(code, Some(0), "{said}{remarks}");
    let (code, said, remarks) = check("others");
    assert_eq!(code, Some(2), "{said}{remarks}");
    let named = "a queue that the configuration names: others";
    assert!(said.contains("rules.toml:") && said.contains(named), "{said}{remarks}");
    fs::write(folder.path().join("penstock.toml"), "[gateway]\n").expect("written");
    let config = folder.path().join("penstock.toml");
    let arguments = ["rules", "check"].map(OsStr::new).into_iter().chain([rules.as_os_str()]);
    let arguments: Vec<&OsStr> = arguments.chain([OsStr::new("--config"), config.as_os_str()]).collect();
    let (code, _, remarks) = penstock(&arguments);
    assert_eq!((code, remarks.contains("penstock.toml")), (Some(2), true), "{remarks}");
}

#[test]
fn tests_of_rules_pass_and_fail_by_exit_code() {
    let test = |at: &str| {
        format!(
            "[[test]]\nname = \"a hot boiler\"\n\n[[test.series]]\ndevice = \"boiler-7\"\nmetric = \"temperature\"\nevery = \"1s\"\nvalues = \"80 95\"\n\n[[test.expect]]\nat = \"{at}\"\nalerts = [{{ rule = \"hot\", device = \"boiler-7\" }}]\n"
        )
    };
    let (code, said, remarks) = rules("test", &[HOT, &test("1s")]);
    assert_eq!(code, Some(0), "{said}{remarks}");
    let (code, said, remarks) = rules("test", &[HOT, &test("0s")]);
    assert_eq!(code, Some(1), "{said}{remarks}");
    assert!(said.contains("a hot boiler"), "{said}");
}

#[test]
fn a_replay_of_what_a_gateway_took_finds_what_it_told_and_did() {
    let rules = format!(
        "{HOT}\n[[rule.action]]\nname = \"lamp\"\non = [\"raised\", \"resolved\"]\nmqtt = {{ topic = \"site/lamps/{{device}}\", payload = \"{{transition}}\" }}\n"
    );
    // What was delivered is no longer in the outbox: nothing listens where telemetry is to go.
    let mut site = Site::start_as(&rules, |config| config.uplink("127.0.0.1:1", hub::TOPIC));
    for reading in [95, 80, 99] {
        site.publish("boiler-7", &[&format!("{{\"temperature\":{reading}}}")]);
    }
    let told = site.told();
    assert_eq!(told.len(), 3, "{:?}", outline(&told));
    assert!(site.gateway.stop().expect("it stops").success());

    let (outbox, export) = (site.folder.path().join("outbox"), site.folder.path().join("messages.jsonl"));
    let lane = ["--lane", "telemetry", "--output"].map(OsStr::new);
    let arguments = ["outbox", "export"].map(OsStr::new).into_iter().chain([outbox.as_os_str()]).chain(lane);
    let arguments: Vec<&OsStr> = arguments.chain([export.as_os_str()]).collect();
    let (code, _, remarks) = penstock(&arguments);
    assert_eq!(code, Some(0), "{remarks}");
    let (files, replay) = ([site.rules.as_os_str(), export.as_os_str()], ["rules", "replay"].map(OsStr::new));
    let (code, said, remarks) = penstock(&[replay, files].concat());
    assert_eq!(code, Some(0), "{remarks}");
    assert!(remarks.contains("4 events, 3 reactions, 2 open at the end"), "{remarks}");

    let lines: Vec<Value> = said.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let (events, reactions): (Vec<Value>, Vec<Value>) =
        lines.into_iter().partition(|line| line.get("specversion").is_some());
    let ids = |events: &[Value]| -> BTreeSet<String> {
        events.iter().map(|event| text(event, "/id").to_owned()).collect()
    };
    let about_rule = |event: &Value| event["ruleid"] == "hot";
    let found: Vec<Value> = events.into_iter().filter(about_rule).collect();
    assert_eq!((outline(&found), ids(&found)), (outline(&told), ids(&told)));
    let done: Vec<&str> = reactions.iter().map(|reaction| text(reaction, "/target/mqtt/payload")).collect();
    assert_eq!(done, ["1", "2", "1"], "{reactions:#?}");

    // What is no export is named with its line.
    fs::write(&export, "{}\n").expect("written");
    let (code, _, remarks) = penstock(&[replay, files].concat());
    assert_eq!((code, remarks.contains("line 1")), (Some(2), true), "{remarks}");
}

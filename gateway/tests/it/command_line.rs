//! Exit codes and the one line that goes with them.

use std::fs;
use std::process::Command;

/// Runs `penstock check-config` on a file with this text; returns exit code, standard output and error.
fn check_config(text: &str) -> (Option<i32>, String, String) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("penstock.toml");
    fs::write(&file, text).expect("written");
    let output = Command::new(env!("CARGO_BIN_EXE_penstock")).arg("check-config").arg(&file).output();
    let output = output.expect("it runs");
    let text = |bytes| String::from_utf8(bytes).expect("text");
    (output.status.code(), text(output.stdout), text(output.stderr))
}

const GOOD: &str = r#"
[gateway]
id = "edge-01"
[outbox]
directory = "/var/lib/penstock/outbox"
[[mqtt.listener]]
address = "127.0.0.1:0"
[mqtt.access]
anonymous = "allow"
[[mqtt.topic]]
template = "devices/{device}/telemetry"
lane = "telemetry"
[uplink]
bootstrap_servers = "127.0.0.1:9092"
security = "plaintext"
topic = "telemetry"
"#;

#[test]
fn what_is_in_force_can_be_fed_back() {
    let (code, effective, complaint) = check_config(GOOD);
    assert_eq!((code, complaint.as_str()), (Some(0), ""));
    assert!(effective.contains("commit_floor = \"1ms\""), "defaults are shown: {effective}");
    assert_eq!(check_config(&effective), (Some(0), effective.clone(), String::new()));
}

#[test]
fn a_wrong_configuration_ends_with_2_and_one_line() {
    let cases = [
        (GOOD.replace("id =", "name ="), "unknown key gateway.name = \"edge-01\": expected one of id"),
        (GOOD.replace("edge-01", "edge 01"), "gateway.id = \"edge 01\": expected 1 to 64 of"),
        (
            GOOD.replace("[outbox]", "[outbox]\nbytes_max = \"8GB\""),
            "outbox.bytes_max = \"8GB\": expected a size with a unit",
        ),
        (GOOD.replace("[gateway]", "[gateway"), "penstock.toml:2: "),
        (GOOD.replace("{device}", "{gadget}"), "mqtt.topic[0].template = \"devices/{gadget}/telemetry\""),
    ];
    for (text, expected) in cases {
        let (code, said, complaint) = check_config(&text);
        assert_eq!((code, said.as_str()), (Some(2), ""), "{complaint}");
        assert!(complaint.contains(expected), "{complaint} does not contain {expected}");
        assert_eq!(complaint.lines().count(), 1, "{complaint}");
        assert!(complaint.contains("penstock.toml"), "{complaint}");
    }
}

#[test]
fn an_unreadable_file_ends_with_2_and_is_named() {
    let output =
        Command::new(env!("CARGO_BIN_EXE_penstock")).args(["run", "--config", "/nowhere/p.toml"]).output();
    let output = output.expect("it runs");
    assert_eq!(output.status.code(), Some(2));
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(complaint.starts_with("penstock: /nowhere/p.toml: cannot be read: "), "{complaint}");
}

//! The program: its ready line, its signals, its refusals.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use serde_json::Value;
use tempfile::TempDir;

use crate::raw::{Batch, Raw};

/// A running program that is killed if a test ends early.
struct Program(Child);

impl Drop for Program {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

fn command(data: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_cloud-sim"));
    command.args(["run", "--topic", "t:1", "--data"]).arg(data).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn start(data: &Path) -> (Program, Value) {
    started(command(data).spawn().unwrap())
}

/// Waits for the ready line.
fn started(mut child: Child) -> (Program, Value) {
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    (Program(child), serde_json::from_str(&line).unwrap())
}

#[test]
fn sigterm_and_sigint_end_it_cleanly_and_kill_loses_nothing() {
    let data = TempDir::new().unwrap();
    for (round, signal) in [(0, "-TERM"), (1, "-INT"), (2, "-KILL"), (3, "-TERM")] {
        let (mut program, ready) = start(data.path());
        assert_eq!(ready["ready"], true);
        assert_eq!(ready["kafka_tls"], Value::Null);
        let mut client = Raw::connect(ready["kafka"].as_str().unwrap().parse().unwrap());
        assert_eq!(client.produce(Batch::PLAIN).unwrap().offset, round);
        let id = program.0.id().to_string();
        assert!(Command::new("kill").args([signal, &id]).status().unwrap().success());
        assert_eq!(program.0.wait().unwrap().success(), signal != "-KILL", "{signal}");
    }
}

#[test]
fn the_tier_can_be_chosen_on_the_command_line() {
    let data = TempDir::new().unwrap();
    let mut command = command(data.path());
    command.args(["--event-rate", "10", "--byte-rate", "1000000", "--policy-violation-ms", "1500"]);
    command.args(["--gzip", "refuse", "--idle-ms", "1000"]);
    let (_program, ready) = started(command.spawn().unwrap());
    let mut client = Raw::connect(ready["kafka"].as_str().unwrap().parse().unwrap());
    assert_eq!(client.produce(Batch { codec: 1, ..Batch::PLAIN }).map(|stored| stored.error), Some(43));
    assert_eq!(client.produce(Batch { records: 50, ..Batch::PLAIN }).map(|stored| stored.error), Some(44));
    let delayed = client.produce(Batch { records: 12, ..Batch::PLAIN }).unwrap();
    // The batch with gzip came in too, so it was paid for; what passed meanwhile is taken off.
    assert_eq!(delayed.error, 0);
    assert!((200..=300).contains(&delayed.throttle_ms), "{} ms", delayed.throttle_ms);
    assert_eq!(client.receive(), None, "closed when it says nothing");
}

#[test]
fn one_process_owns_a_directory() {
    let data = TempDir::new().unwrap();
    let (_program, _ready) = start(data.path());
    let second = command(data.path()).output().unwrap();
    assert!(!second.status.success());
    let error = String::from_utf8(second.stderr).unwrap();
    assert!(error.contains("in use by another cloud-sim"), "{error}");
}

#[test]
fn bad_arguments_are_named() {
    let data = TempDir::new().unwrap();
    let refused = command(data.path()).args(["--topic", "t:0"]).output().unwrap();
    assert_eq!(refused.status.code(), Some(2));
    let error = String::from_utf8(refused.stderr).unwrap();
    assert!(error.contains("0 partitions are not possible"), "{error}");
}

#[test]
fn token_endpoints_are_named_when_asked_for() {
    let data = TempDir::new().unwrap();
    let (program, ready) = start(data.path());
    assert_eq!(ready["tokens"], Value::Null);
    drop(program);
    let secret = data.path().join("secret");
    std::fs::write(&secret, "s3cr~t\n").unwrap();
    let child = command(data.path())
        .args(["--kafka-tls", "127.0.0.1:0", "--oauth", "--token-seconds", "7", "--oauth-secret-file"])
        .arg(&secret)
        .spawn()
        .unwrap();
    let (program, ready) = started(child);
    let url = format!(
        "http://{}/{}/oauth2/v2.0/token",
        ready["tokens"].as_str().unwrap(),
        cloud_sim::OAuth::TENANT
    );
    let form = format!(
        "grant_type=client_credentials&client_id={}&scope=https%3A%2F%2F{}%2F.default&client_secret=s3cr~t",
        cloud_sim::OAuth::CLIENT_ID,
        cloud_sim::OAuth::AUDIENCE
    );
    let mut answer = ureq::post(url).content_type("application/x-www-form-urlencoded").send(form).unwrap();
    let answer: Value = answer.body_mut().read_json().unwrap();
    assert_eq!(answer["expires_in"], 7, "{answer}");

    let alone = command(data.path()).arg("--oauth").output().unwrap();
    assert_eq!(alone.status.code(), Some(2), "nobody there takes tokens");
    drop(program);
    let beside = command(data.path()).args(["--oauth", "--eventgrid", "127.0.0.1:0"]).spawn().unwrap();
    let (_program, ready) = started(beside);
    assert!(ready["tokens"].is_string() && ready["kafka_tls"].is_null(), "{ready}");
}

#[test]
fn the_addresses_of_service_bus_are_named_when_asked_for() {
    let data = TempDir::new().unwrap();
    let (program, ready) = start(data.path());
    assert_eq!(ready["servicebus"], Value::Null);
    drop(program);
    let config = data.path().join("servicebus.json");
    std::fs::write(&config, r#"{"queues":[{"name":"commands","sessions":true}]}"#).unwrap();
    let mut arguments = command(data.path());
    arguments.args(["--servicebus", "127.0.0.1:0", "--servicebus-tls", "127.0.0.1:0", "--servicebus-config"]);
    let (_program, ready) = started(arguments.arg(&config).spawn().unwrap());
    let address = ready["servicebus"].as_str().unwrap();
    let expected = format!(
        "Endpoint=sb://{address};SharedAccessKeyName=RootManageSharedAccessKey;SharedAccessKey=SAS_KEY_VALUE;UseDevelopmentEmulator=true;"
    );
    assert_eq!(ready["servicebus_connection_string"], expected);
    assert!(ready["servicebus_tls"].is_string() && ready["ca_file"].is_string(), "{ready}");
    assert_eq!(ready["servicebus_websocket"], Value::Null);
    let mut stream = std::net::TcpStream::connect(address).unwrap();
    std::io::Write::write_all(&mut stream, b"AMQP\x03\x01\0\0").unwrap();
    let mut greeting = [0; 8];
    std::io::Read::read_exact(&mut stream, &mut greeting).unwrap();
    assert_eq!(&greeting, b"AMQP\x03\x01\0\0");

    std::fs::write(&config, r#"{"queues":[{"name":"a","lock_seconds":0}]}"#).unwrap();
    let mut arguments = command(&data.path().join("other"));
    arguments.args(["--servicebus", "127.0.0.1:0", "--servicebus-config"]);
    let refused = arguments.arg(&config).output().unwrap();
    let error = String::from_utf8(refused.stderr).unwrap();
    assert!(!refused.status.success() && error.contains("lock_seconds"), "{error}");
}

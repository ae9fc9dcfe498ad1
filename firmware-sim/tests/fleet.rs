//! The fleet against a small MQTT endpoint that stores, acknowledges, and now and then cuts a connection.

#![expect(clippy::unwrap_used, reason = "a helper of a test fails the test")]

use std::collections::{HashMap, HashSet};
use std::io::{self, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

use clap::Parser;
use firmware_sim::cli::{Arguments, Command};
use firmware_sim::{Cancel, run};
use penstock_proto::Reading;
use testkit::alerts::{Kind, Truth};
use testkit::report::{Outcome, Report};

/// What the endpoint stored, per device in order of arrival.
type Stored = Arc<Mutex<HashMap<String, Vec<u64>>>>;

/// What the endpoint keeps of each client from one connection to the next.
type Sessions = Arc<Mutex<HashMap<Vec<u8>, Session>>>;

#[derive(Debug, Default)]
struct Session {
    /// Counts the connections: an older one is not served any more.
    connection: u64,
    /// QoS 2 packet ids that are not released.
    received: HashSet<[u8; 2]>,
}

/// How the endpoint misbehaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    Nothing,
    /// Each connection is cut at its n-th publish: stored, but not acknowledged.
    CutAt(u64),
    /// It answers nothing but CONNECT.
    Mute,
    /// None, and sessions last.
    Remembers,
}

fn endpoint(fault: Fault) -> (SocketAddr, Stored) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (stored, sessions) = (Stored::default(), Sessions::default());
    let shared = Arc::clone(&stored);
    let serve = move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let (stored, sessions) = (Arc::clone(&shared), Arc::clone(&sessions));
            // A connection that ends with an error is one that was cut.
            let connection = move || drop(serve(stream, fault, &stored, &sessions));
            drop(thread::Builder::new().spawn(connection).unwrap());
        }
    };
    drop(thread::Builder::new().spawn(serve).unwrap());
    (address, stored)
}

fn serve(stream: TcpStream, fault: Fault, stored: &Stored, sessions: &Sessions) -> io::Result<()> {
    let mut writer = stream.try_clone()?;
    let mut reader = BufReader::new(stream);
    let (mut version, mut publishes) = (4, 0);
    let (mut client, mut connection) = (Vec::new(), 0);
    loop {
        let (kind, body) = packet(&mut reader)?;
        let mut sessions = sessions.lock().unwrap();
        if kind >> 4 == 1 {
            version = body[6];
            client = client_of(&body, version);
            let clean = body[7] & 2 != 0 || fault != Fault::Remembers;
            let session = sessions.entry(client.clone()).or_default();
            let present = u8::from(!clean && session.connection > 0);
            session.connection += 1;
            connection = session.connection;
            if clean {
                session.received.clear();
            }
            let connack = [0x20, 3, present, 0, 0];
            let length = if version == 5 { 3 } else { 2 };
            writer.write_all(&[&[0x20, length], &connack[2..2 + usize::from(length)]].concat())?;
            continue;
        }
        let session = sessions.get_mut(&client).filter(|session| session.connection == connection);
        let Some(session) = session else { return Ok(()) };
        match kind >> 4 {
            3 => {
                let (qos, pkid, reading) = read(kind, &body, version);
                if qos != 2 || session.received.insert(pkid) {
                    stored.lock().unwrap().entry(reading.device).or_default().push(reading.reading);
                }
                publishes += 1;
                match fault {
                    Fault::CutAt(limit) if publishes == limit => return Ok(()),
                    Fault::Mute => continue,
                    Fault::CutAt(_) | Fault::Nothing | Fault::Remembers => {}
                }
                match qos {
                    1 => writer.write_all(&[0x40, 2, pkid[0], pkid[1]])?,
                    2 => writer.write_all(&[0x50, 2, pkid[0], pkid[1]])?,
                    _ => {}
                }
            }
            6 => {
                session.received.remove(&[body[0], body[1]]);
                writer.write_all(&[0x70, 2, body[0], body[1]])?;
            }
            12 => writer.write_all(&[0xd0, 0])?,
            _ => return Ok(()),
        }
    }
}

fn packet(reader: &mut impl Read) -> io::Result<(u8, Vec<u8>)> {
    let mut byte = [0];
    reader.read_exact(&mut byte)?;
    let kind = byte[0];
    let (mut length, mut shift) = (0_usize, 0);
    loop {
        reader.read_exact(&mut byte)?;
        length |= usize::from(byte[0] & 0x7f) << shift;
        shift += 7;
        if byte[0] & 0x80 == 0 {
            break;
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    Ok((kind, body))
}

/// The client id in a CONNECT.
fn client_of(body: &[u8], version: u8) -> Vec<u8> {
    // Properties of the fleet are shorter than 128 bytes.
    let at = if version == 5 { 11 + usize::from(body[10]) } else { 10 };
    let length = usize::from(u16::from_be_bytes([body[at], body[at + 1]]));
    body[at + 2..at + 2 + length].to_vec()
}

fn read(kind: u8, body: &[u8], version: u8) -> (u8, [u8; 2], Reading) {
    let qos = (kind >> 1) & 3;
    let topic_end = 2 + usize::from(u16::from_be_bytes([body[0], body[1]]));
    let topic = String::from_utf8(body[2..topic_end].to_vec()).unwrap();
    let mut at = topic_end;
    let mut pkid = [0; 2];
    if qos > 0 {
        pkid.copy_from_slice(&body[at..at + 2]);
        at += 2;
    }
    if version == 5 {
        assert_eq!(body[at], 0, "the fleet sends no properties");
        at += 1;
    }
    let reading: Reading = serde_json::from_slice(&body[at..]).unwrap();
    assert_eq!(topic, format!("devices/{}/telemetry", reading.device));
    (qos, pkid, reading)
}

fn run_fleet(address: SocketAddr, arguments: &str) -> Report {
    let line = format!("firmware-sim run --target mqtt://{address} --progress none --seed 1 {arguments}");
    let Command::Run(arguments) = Arguments::try_parse_from(line.split_whitespace()).unwrap().command;
    run(&arguments, &Cancel::by_hand()).unwrap()
}

/// Checks that first occurrences of every device arrived in order and without a gap.
fn check_order(stored: &Stored) -> u64 {
    let mut count = 0;
    for (device, readings) in stored.lock().unwrap().iter() {
        let mut highest = 0;
        for &reading in readings {
            assert!(reading <= highest + 1, "{device}: {reading} after {highest} in {readings:?}");
            highest = highest.max(reading);
        }
        count += highest;
    }
    count
}

#[test]
fn every_reading_is_acknowledged_and_counted() {
    let (address, stored) = endpoint(Fault::Nothing);
    let report = run_fleet(address, "--devices 20 --rate 2000 --seconds 1");
    assert_eq!(report.verdict, Outcome::Pass, "{report:?}");
    assert_eq!((report.unacked, report.reconnects), (0, 0), "{report:?}");
    assert!(report.sent > 200 && report.qos0_sent > 0, "{report:?}");
    assert_eq!(report.acked + report.qos0_sent, report.sent, "{report:?}");
    assert_eq!(check_order(&stored), report.sent);
}

#[test]
fn cut_connections_cost_no_reading_and_no_order() {
    let (address, stored) = endpoint(Fault::CutAt(25));
    // No QoS 0: what is on its way at a cut is gone, and the gap is allowed.
    let report = run_fleet(address, "--devices 10 --rate 1000 --seconds 1 --qos1 60 --qos2 40");
    assert_eq!(report.verdict, Outcome::Pass, "{report:?}");
    assert!(report.reconnects >= 10, "{report:?}");
    assert_eq!((report.unacked, report.acked), (0, report.sent), "{report:?}");
    assert_eq!(check_order(&stored), report.sent);
    let all: usize = stored.lock().unwrap().values().map(Vec::len).sum();
    assert!(u64::try_from(all).unwrap() > report.sent, "cut publishes were sent again");
}

#[test]
fn storms_drop_connections_and_the_fleet_recovers() {
    let directory = tempfile::tempdir().unwrap();
    let profile = directory.path().join("profile.toml");
    std::fs::write(
        &profile,
        "qos0_percent = 0\nqos1_percent = 90\n[storm]\nevery_seconds = 1\npercent = 100\n",
    )
    .unwrap();
    let (address, stored) = endpoint(Fault::Nothing);
    let arguments = format!("--devices 5 --rate 500 --seconds 2 --profile {}", profile.display());
    let report = run_fleet(address, &arguments);
    assert_eq!(report.verdict, Outcome::Pass, "{report:?}");
    assert!(report.reconnects >= 5, "{report:?}");
    assert_eq!(check_order(&stored), report.sent);
}

/// A fleet of which every device lasts and changes its connection all the time.
fn run_churn(address: SocketAddr, more: &str) -> Report {
    let directory = tempfile::tempdir().unwrap();
    let profile = directory.path().join("profile.toml");
    let text =
        format!("[sessions]\nlasting_percent = 100\n{more}[churn]\npercent = 100\nevery_seconds = 0.15\n");
    std::fs::write(&profile, text).unwrap();
    let shares = "--qos0 0 --qos1 0 --qos2 100";
    let profile = profile.display();
    run_fleet(address, &format!("--devices 30 --rate 6000 --seconds 2 {shares} --profile {profile}"))
}

fn repeats(stored: &Stored) -> usize {
    let stored = stored.lock().unwrap();
    stored.values().map(|readings| readings.len() - readings.iter().collect::<HashSet<_>>().len()).sum()
}

#[test]
fn sessions_that_last_go_on_across_every_change_of_connection() {
    let (address, stored) = endpoint(Fault::Remembers);
    let report = run_churn(address, "");
    assert_eq!(report.verdict, Outcome::Pass, "{report:?}");
    assert!(report.reconnects > 100 && report.takeovers > 30, "{report:?}");
    assert_eq!((report.sessions_resumed, report.sessions_lost), (report.reconnects, 0));
    assert_eq!((report.unacked, report.acked), (0, report.sent), "{report:?}");
    assert_eq!(check_order(&stored), report.sent);
    assert_eq!(repeats(&stored), 0, "QoS 2 is once only");
}

#[test]
fn an_endpoint_that_forgets_sessions_fails_the_run() {
    // Whatever else happens, a publish of each connection is stored and not acknowledged.
    let (address, stored) = endpoint(Fault::CutAt(10));
    let report = run_churn(address, "trusting = true\n");
    assert_eq!(report.verdict, Outcome::Fail, "{report:?}");
    assert_eq!((report.sessions_resumed, report.sessions_lost), (0, report.reconnects));
    assert!(repeats(&stored) > 0, "what is sent again is stored again");
}

#[test]
fn faults_are_written_down_as_they_are_sent() {
    const FAULTS: &str = "[[fault]]\nkind = 'shift'\nmetric = 'temperature'\nabsolute = 9\npercent = 50\n\
        start_reading = 10\nlength_readings = 5\n\
        [[fault]]\nkind = 'dropout'\npercent = 50\nstart_reading = 20\nlength_seconds = 0.3\n";
    // With each of the two clients.
    for more in ["", "[churn]\npercent = 100\nevery_seconds = 20\n"] {
        let directory = tempfile::tempdir().unwrap();
        let (profile, truth) = (directory.path().join("profile.toml"), directory.path().join("truth.jsonl"));
        std::fs::write(&profile, format!("{FAULTS}{more}")).unwrap();
        let (address, stored) = endpoint(Fault::Nothing);
        let files = format!("--profile {} --truth {}", profile.display(), truth.display());
        let report = run_fleet(address, &format!("--devices 10 --rate 1000 --seconds 1 --qos1 100 {files}"));
        assert_eq!(report.verdict, Outcome::Pass, "{report:?}");
        assert_eq!(check_order(&stored), report.sent, "a silence leaves no gap");
        let truth = Truth::read(&truth).unwrap();
        let run = truth.run.unwrap();
        assert_eq!((run.seed, run.devices, run.end_ms), (1, 10, Some(run.start_ms + 1000)));
        assert_eq!(truth.faults.len(), 10, "{truth:?}");
        for fault in &truth.faults {
            assert!(fault.is_proven(), "{fault:?}");
            assert!(fault.begin_ms >= fault.taken_ms && fault.taken_ms >= run.start_ms, "{fault:?}");
            let lasted_ms = fault.end_ms.unwrap() - fault.begin_ms;
            assert!(fault.kind == Kind::Shift || lasted_ms >= 200, "{fault:?}");
        }
    }
}

#[test]
fn faults_that_cannot_be_written_down_fail_the_run() {
    let (address, _stored) = endpoint(Fault::Nothing);
    let report = run_fleet(address, "--devices 2 --rate 100 --seconds 0.3 --truth /dev/full");
    assert!(report.reasons.iter().any(|reason| reason.contains("could not be written down")), "{report:?}");
}

#[test]
fn an_endpoint_that_never_answers_fails_the_run() {
    let (address, _stored) = endpoint(Fault::Mute);
    let report = run_fleet(address, "--devices 2 --rate 100 --seconds 0.3 --drain-wait 100ms --qos1 100");
    assert_eq!(report.verdict, Outcome::Fail, "{report:?}");
    assert_eq!((report.acked, report.unacked), (0, report.sent), "{report:?}");
}

#[test]
fn a_target_that_is_away_fails_the_run() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let report = run_fleet(address, "--devices 2 --rate 100 --seconds 0.3 --drain-wait 100ms");
    assert_eq!(report.verdict, Outcome::Fail);
    assert!(report.reasons.iter().any(|reason| reason.contains("2 devices never connected")), "{report:?}");
}

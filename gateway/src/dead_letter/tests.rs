//! Letters on a real outbox: made, read, sent again, let go.

use std::sync::Arc;
use std::time::Duration;

use penstock_proto::{Epoch, GatewayId, LOSS_TYPE_SUFFIX, Lane, LogId, Loss, Seq};
use serde_json::Value;
use tempfile::TempDir;

use super::*;
use crate::outbox::{self, Completion, Encoded, Entry, Properties, Record, StateOps, UserProperties};
use crate::supervise::{Supervisor, clock};

const PATIENCE: Duration = Duration::from_secs(20);

fn gateway() -> GatewayId {
    "site-7".parse().expect("a gateway id")
}

fn user(pairs: &[(&str, &str)]) -> Vec<u8> {
    let mut user = Vec::new();
    pairs.iter().for_each(|(name, value)| UserProperties::push(&mut user, name, value));
    user
}

/// What a device published, with these user properties.
fn published<'a>(user: &'a [u8], payload: &'a [u8]) -> Record<'a> {
    let properties = Properties {
        tenant: Some("contoso"),
        content_type: Some("application/octet-stream"),
        correlation_data: Some(&[0, 0xff]),
        user: UserProperties::new(user).expect("well formed"),
        ..Properties::default()
    };
    Record {
        device: "pump-7",
        topic: "devices/pump-7/telemetry",
        received_ms: 1_700_000_000_000,
        qos: 1,
        retain: true,
        clock_synced: false,
        properties,
        payload,
    }
}

fn origin(gateway: &GatewayId, seq: u64) -> Origin<'_> {
    Origin {
        gateway,
        log: LogId(0xfeed),
        epoch: Epoch(3),
        lane: Lane::Telemetry,
        seq: Seq(seq),
        target: "telemetry/2",
        reason: "Broker: Message size too large",
        dead_ms: 1_700_000_000_500,
    }
}

/// Payload and user properties of an entry.
type Shown = (Vec<u8>, Vec<(String, String)>);

/// An outbox at work, the handle under test, and a reader for each lane that it writes to.
struct Site {
    _directory: TempDir,
    _supervisor: Supervisor,
    outbox: outbox::Handle,
    letters: Handle,
}

impl Site {
    fn new() -> Self {
        let directory = tempfile::tempdir().expect("a temporary folder");
        let config = outbox::Config { realtime: false, ..outbox::Config::new(directory.path()) };
        let reader = |lane| ConsumerId { name: "reader".to_owned(), lane };
        let consumers = [consumer(), reader(Lane::Status), reader(Lane::Telemetry)];
        let supervisor = Supervisor::new();
        let (_, outbox) = outbox::Service::open(config, &consumers, &supervisor).expect("it opens");
        let letters = Handle::open(gateway(), &outbox).expect("its consumer is there and free");
        Self { _directory: directory, _supervisor: supervisor, outbox, letters }
    }

    fn append(&self, entries: &Encoded) {
        let done = Arc::new(Completion::new());
        let permit = self.outbox.appender().reserve(Lane::Dead, entries.bytes()).expect("room");
        let ticket = self.outbox.appender().submit(permit, entries, &StateOps::default(), &done);
        assert_eq!(done.wait(ticket, clock::now() + PATIENCE), Some(Ok(())));
    }

    /// Puts letters with these payloads into lane dead, each in a segment of its own.
    fn bury(&self, payloads: &[&[u8]]) {
        for (seq, payload) in (1..).zip(payloads) {
            let (mut outputs, gateway) = (Encoded::default(), gateway());
            bury(&published(&[], payload), &origin(&gateway, seq), &mut outputs);
            self.append(&outputs);
        }
    }

    /// The payloads of a lane, and the user properties.
    fn read(&self, lane: Lane) -> Vec<Shown> {
        let mut consumer = self.outbox.consumer("reader", lane).expect("it is configured and free");
        let mut all = Vec::new();
        while let Some(segment) = consumer.try_next(1 << 20).expect("readable") {
            for (_, record) in segment.records() {
                let owned = |(name, value): (&str, &str)| (name.to_owned(), value.to_owned());
                all.push((record.payload.to_vec(), record.properties.user.iter().map(owned).collect()));
            }
        }
        all
    }

    fn events(&self, suffix: &str) -> Vec<Value> {
        let events = self.read(Lane::Status).into_iter();
        let events = events.map(|(payload, _)| serde_json::from_slice::<Value>(&payload).expect("JSON"));
        events.filter(|event| event["type"].as_str().is_some_and(|kind| kind.ends_with(suffix))).collect()
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        assert!(self.outbox.close(clock::now() + PATIENCE));
    }
}

fn without_user<'a>(record: &Record<'a>) -> Record<'a> {
    Record { properties: Properties { user: UserProperties::default(), ..record.properties }, ..*record }
}

/// The record that comes out when `entry` goes in.
fn stored(entry: &Entry<'_>, see: impl FnOnce(&Record<'_>)) {
    let Entry { device, topic, received_ms, qos, retain, clock_synced, properties, payload, .. } = *entry;
    see(&Record { device, topic, received_ms, qos, retain, clock_synced, properties, payload });
}

#[test]
fn a_letter_is_the_entry_as_it_was_and_where_it_belongs() {
    let own = user(&[("site", "north"), ("penstock-lane", "alerts"), ("site", "south")]);
    let record = published(&own, b"\x00payload\xff");
    let (gateway, mut scratch) = (gateway(), Vec::new());
    let letter = entry(&record, &origin(&gateway, 41), &mut scratch);
    assert_eq!(letter.lane, Lane::Dead);
    stored(&letter, |stored| {
        assert_eq!(without_user(stored), without_user(&record));
        let (letter, user) = Letter::read(stored).expect("a letter");
        let expected = Letter {
            lane: Lane::Telemetry,
            seq: Seq(41),
            epoch: Epoch(3),
            target: "telemetry/2",
            reason: "Broker: Message size too large",
            dead_ms: 1_700_000_000_500,
        };
        assert_eq!(letter, expected, "whatever a device calls its properties");
        assert_eq!(user, record.properties.user.iter().collect::<Vec<_>>());
    });
}

#[test]
fn what_is_no_letter_is_not_taken_for_one() {
    let check = |pairs: &[(&str, &str)], expected: bool| {
        let user = user(pairs);
        assert_eq!(Letter::read(&published(&user, b"")).is_some(), expected, "{pairs:?}");
    };
    let all = [
        ("penstock-lane", "bulk"),
        ("penstock-seq", "7"),
        ("penstock-epoch", "1"),
        ("penstock-target", "t/0"),
        ("penstock-reason", ""),
        ("penstock-dead-ms", "0"),
    ];
    check(&all, true);
    check(&all[1..], false);
    check(&[], false);
    check(&[&all[..], &[("more", "x")]].concat(), false);
    for (place, value) in [(0, "dead"), (0, "no lane"), (1, "-1"), (2, "x"), (5, "")] {
        let mut other = all;
        other[place].1 = value;
        check(&other, false);
    }
}

#[test]
fn a_long_reason_is_cut_between_characters() {
    let (gateway, mut scratch) = (gateway(), Vec::new());
    let reason = "ü".repeat(600);
    let origin = Origin { reason: &format!("x{reason}"), ..origin(&gateway, 1) };
    let letter = entry(&published(&[], b""), &origin, &mut scratch);
    stored(&letter, |stored| {
        let (letter, _) = Letter::read(stored).expect("a letter");
        assert_eq!(letter.reason.len(), 1023);
    });
}

#[test]
fn a_refused_entry_is_reported_and_its_loss_is_named() {
    let site = Site::new();
    site.bury(&[b"too large"]);
    let [event] = &site.events(".uplink.dead-letter.v1")[..] else { panic!("one event") };
    assert_eq!(event["type"], "io.penstock.uplink.dead-letter.v1");
    assert_eq!((&event["source"], &event["deviceid"]), (&"/gateways/site-7".into(), &"pump-7".into()));
    assert_eq!(event["id"], "site-7/000000000000feed/3/2/1/dead-letter");
    assert_eq!((&event["tenant"], &event["time"]), (&"contoso".into(), &"2023-11-14T22:13:20.5Z".into()));
    assert_eq!(
        (&event["data"]["target"], &event["data"]["payload_bytes"]),
        (&"telemetry/2".into(), &9.into())
    );
    let [event] = &site.events(LOSS_TYPE_SUFFIX)[..] else { panic!("one loss record") };
    let loss: Loss = serde_json::from_value(event["data"].clone()).expect("a loss");
    let reason = "dead-letter".to_owned();
    let log = "000000000000feed".to_owned();
    assert_eq!(loss, Loss { log, lane: Lane::Telemetry, first: Seq(1), last: Seq(1), reason });
}

#[test]
fn retried_letters_go_back_as_new_entries_that_say_who_they_were() {
    let site = Site::new();
    site.bury(&[b"a", b"b", b"c"]);
    assert_eq!(site.letters.status().entries, 3);
    assert_eq!(site.letters.retry(Through::Seq(Seq(2))).unwrap(), Outcome { entries: 2 });
    assert_eq!(site.letters.status().entries, 1);
    let from = |log: LogId, seq| ("penstock-retried-from".to_owned(), format!("site-7/{log}/3/2/{seq}"));
    let log = site.outbox.log();
    assert_eq!(
        site.read(Lane::Telemetry),
        [(b"a".to_vec(), vec![from(log, 1)]), (b"b".to_vec(), vec![from(log, 2)])]
    );
    assert_eq!(site.letters.retry(Through::Seq(Seq(2))).unwrap(), Outcome::default(), "once");
    assert_eq!(site.letters.retry(Through::All).unwrap(), Outcome { entries: 1 });
    assert_eq!(site.letters.status(), Status { entries: 0, bytes: 0, oldest_ms: None });
    assert_eq!(site.read(Lane::Telemetry).len(), 3);
}

#[test]
fn what_dies_again_names_the_last_of_its_lives_only() {
    let gateway = gateway();
    let own = user(&[("k", "v"), ("penstock-retried-from", "site-7/000000000000feed/1/2/5")]);
    let record = published(&own, b"x");
    let (mut scratch, mut revived) = (Vec::new(), Vec::new());
    stored(&entry(&record, &origin(&gateway, 9), &mut scratch), |stored| {
        let (letter, user) = Letter::read(stored).expect("a letter");
        let entry = letter.revived(stored, &user, (&gateway, LogId(0xfeed)), &mut revived);
        let user: Vec<_> = entry.properties.user.iter().collect();
        assert_eq!(user, [("k", "v"), ("penstock-retried-from", "site-7/000000000000feed/3/2/9")]);
        assert_eq!((entry.lane, entry.payload, entry.retain), (Lane::Telemetry, b"x".as_slice(), true));
    });
}

#[test]
fn many_large_letters_go_back_in_several_batches() {
    let site = Site::new();
    let large = vec![7; 400_000];
    let payloads = [large.as_slice(); 7];
    let mut all = Encoded::default();
    let gateway = gateway();
    for (seq, payload) in (1..).zip(payloads) {
        let mut scratch = Vec::new();
        all.push(&entry(&published(&[], payload), &origin(&gateway, seq), &mut scratch));
    }
    site.append(&all);
    assert_eq!(site.letters.retry(Through::All).unwrap(), Outcome { entries: 7 });
    let back = site.read(Lane::Telemetry);
    assert!(back.len() == 7 && back.iter().all(|(payload, _)| *payload == large));
}

#[test]
fn discarded_letters_are_gone_and_named() {
    let site = Site::new();
    site.bury(&[b"a", b"b", b"c"]);
    assert_eq!(site.letters.discard(Through::Seq(Seq(2))).unwrap(), Outcome { entries: 2 });
    assert_eq!(site.letters.discard(Through::Seq(Seq(1))).unwrap(), Outcome::default());
    assert_eq!(site.letters.retry(Through::All).unwrap(), Outcome { entries: 1 });
    assert_eq!(site.read(Lane::Telemetry).len(), 1, "what was discarded does not come back");
    let losses = site.events(LOSS_TYPE_SUFFIX);
    let loss: Loss = serde_json::from_value(losses[3]["data"].clone()).expect("a loss");
    assert_eq!((loss.lane, loss.first, loss.last), (Lane::Dead, Seq(1), Seq(2)));
    assert_eq!((loss.reason.as_str(), losses.len()), ("discarded", 4));
}

#[test]
fn a_retry_stops_at_what_is_no_letter_and_a_discard_passes_it() {
    let site = Site::new();
    site.bury(&[b"a"]);
    let mut foreign = Encoded::default();
    foreign.push(&Entry {
        lane: Lane::Dead,
        device: "d",
        topic: "t",
        received_ms: 1,
        qos: 0,
        retain: false,
        clock_synced: true,
        properties: Properties::default(),
        payload: b"?",
    });
    site.append(&foreign);
    site.bury(&[b"c"]);
    let error = site.letters.retry(Through::All).unwrap_err();
    assert!(matches!(error.reason, Reason::NoLetter(Seq(2))), "{error:?}");
    assert_eq!(error.done, Outcome { entries: 1 });
    assert_eq!(site.letters.status().entries, 2);
    assert_eq!(site.letters.discard(Through::Seq(Seq(2))).unwrap(), Outcome { entries: 1 });
    assert_eq!(site.letters.retry(Through::All).unwrap(), Outcome { entries: 1 });
    assert_eq!(site.read(Lane::Telemetry).len(), 2);
}

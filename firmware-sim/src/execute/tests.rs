use testkit::commands::command_id;

use super::*;

const DEVICE: &str = "device-000001";
const MS: Duration = Duration::from_millis(1);

/// A device on its first connection, and the moment of that.
fn executor(profile: Commands) -> (Executor, Instant) {
    let mut executor = Executor::new(DEVICE, 7, true, profile);
    executor.connected(0);
    (executor, Instant::now())
}

fn command(pkid: u16, number: u64, answer: bool) -> Incoming {
    let body = Body { device: DEVICE.to_owned(), number, answer };
    Incoming {
        pkid,
        topic: format!("devices/{DEVICE}/commands/{DEVICE}%2F{number}"),
        payload: serde_json::to_vec(&body).unwrap().into(),
        redelivered: Some(false),
        response_topic: None,
        correlation: Some(Bytes::from_static(b"c")),
    }
}

/// Everything that is due, as words.
fn acts(executor: &mut Executor, now: Instant) -> Vec<String> {
    let mut acts = Vec::new();
    while let Some(act) = executor.next(now, 50) {
        acts.push(match act {
            Act::Acknowledge { pkid, refused } => format!("ack {pkid} {refused:?}"),
            Act::Answer { pkid, topic, payload, .. } => {
                format!("answer {pkid:#x} {topic} {}", String::from_utf8(payload).unwrap())
            }
            Act::Crash => "crash".to_owned(),
        });
    }
    acts
}

#[test]
fn a_command_is_acknowledged_after_its_latency_and_then_answered() {
    let (mut executor, now) = executor(Commands { latency_ms: 10, answer_ms: 10, ..Commands::default() });
    executor.received(command(3, 1, true), now, 40).unwrap();
    assert_eq!(acts(&mut executor, now + 4 * MS), [""; 0]);
    assert!(executor.due().is_some_and(|due| due >= now + 5 * MS && due < now + 15 * MS));
    assert_eq!(acts(&mut executor, now + 15 * MS), ["ack 3 None"]);
    let answer = format!(
        "answer 0x8000 devices/{DEVICE}/commands/{DEVICE}%2F1/status {{\"code\":1,\"status\":\"succeeded\"}}"
    );
    assert_eq!(acts(&mut executor, now + 31 * MS), [answer]);
    assert!(!executor.is_idle() && executor.due().is_none());
    executor.answer_acked(0x8000);
    assert!(executor.is_idle());
    let account = executor.into_account();
    let receipt = &account.receipts[0];
    assert_eq!((receipt.id.as_str(), receipt.number), (command_id(DEVICE, 1).as_str(), 1));
    assert_eq!((receipt.received_ms, receipt.reply), (40, Reply::Acked(50)));
    assert!(receipt.answer.is_some_and(|answer| answer.acked && answer.outcome == Outcome::Succeeded));
}

#[test]
fn acknowledgements_leave_in_the_order_in_which_commands_came() {
    let (mut executor, now) = executor(Commands { latency_ms: 1000, ..Commands::default() });
    for number in 1..=20 {
        executor.received(command(u16::try_from(number).unwrap(), number, false), now, 0).unwrap();
    }
    let expected: Vec<String> = (1..=20).map(|pkid| format!("ack {pkid} None")).collect();
    assert_eq!(acts(&mut executor, now + 2000 * MS), expected);
}

#[test]
fn only_mqtt_5_devices_refuse_and_they_do_not_answer() {
    let profile = Commands { refuse_percent: 100, refuse_reason: 0x99, ..Commands::default() };
    for (version_5, expected) in [(true, "ack 1 Some(153)"), (false, "ack 1 None")] {
        let mut executor = Executor::new(DEVICE, 7, version_5, profile);
        let now = Instant::now();
        executor.connected(0);
        executor.received(command(1, 1, version_5), now, 0).unwrap();
        assert_eq!(acts(&mut executor, now), [expected]);
        assert_eq!(executor.into_account().totals().refused, u64::from(version_5));
    }
}

#[test]
fn answers_say_what_the_profile_says() {
    let answers = |profile| {
        let (mut executor, now) = executor(profile);
        executor.received(command(1, 1, true), now, 0).unwrap();
        acts(&mut executor, now).join(" ")
    };
    let none = Commands::default();
    assert!(answers(Commands { fail_percent: 100, ..none }).contains("failed"));
    assert!(answers(Commands { reject_percent: 100, ..none }).contains("rejected"));
    assert_eq!(answers(Commands { silent_percent: 100, ..none }), "ack 1 None");
}

#[test]
fn a_device_crashes_once_per_command_and_its_acknowledgement_dies_with_the_connection() {
    let (mut executor, now) = executor(Commands { crash_percent: 100, ..Commands::default() });
    executor.received(command(1, 1, false), now, 0).unwrap();
    assert_eq!(acts(&mut executor, now), ["crash"]);
    executor.disconnected(60);
    executor.connected(1);
    executor.received(command(1, 1, false), now, 70).unwrap();
    assert_eq!(acts(&mut executor, now), ["ack 1 None"]);
    let account = executor.into_account();
    assert_eq!(account.receipts[0].reply, Reply::None);
    assert_eq!((account.connections[0].ended_ms, account.connections[1].target), (Some(60), 1));
}

#[test]
fn an_answer_outlives_its_connection_and_what_waited_does_not() {
    let (mut executor, now) = executor(Commands::default());
    executor.received(command(1, 1, true), now, 0).unwrap();
    assert_eq!(acts(&mut executor, now).len(), 2);
    executor.received(command(2, 2, false), now, 0).unwrap();
    executor.disconnected(60);
    executor.connected(0);
    let again = acts(&mut executor, now);
    assert!(again.len() == 1 && again[0].starts_with("answer 0x8001"), "{again:?}");
    executor.answer_acked(0x8000);
    assert!(!executor.is_idle(), "an acknowledgement of another connection is none");
}

#[test]
fn a_command_that_comes_again_is_answered_again_unless_its_answer_is_still_to_leave() {
    let (mut executor, now) = executor(Commands { answer_ms: 100, ..Commands::default() });
    executor.received(command(1, 1, true), now, 0).unwrap();
    assert_eq!(acts(&mut executor, now), ["ack 1 None"]);
    executor.received(command(2, 1, true), now, 0).unwrap();
    let later = now + 200 * MS;
    assert_eq!(acts(&mut executor, later).len(), 2, "one acknowledgement and one answer");
    executor.answer_acked(0x8000);
    executor.received(command(3, 1, true), later, 0).unwrap();
    assert_eq!(acts(&mut executor, later), ["ack 3 None"]);
    assert_eq!(acts(&mut executor, later + 200 * MS).len(), 1, "it is answered again");
}

#[test]
fn the_same_seed_does_the_same_with_a_command() {
    let profile = Commands { latency_ms: 500, refuse_percent: 50, fail_percent: 50, ..Commands::default() };
    let tempers = |seed| -> Vec<Temper> {
        let executor = Executor::new(DEVICE, seed, true, profile);
        (1..50).map(|number| executor.temper(number)).collect()
    };
    assert_eq!(tempers(1), tempers(1));
    assert_ne!(tempers(1), tempers(2));
    let refusals = tempers(1).iter().filter(|temper| temper.refuses).count();
    assert!((10..40).contains(&refusals), "{refusals}");
}

#[test]
fn what_is_no_command_of_this_device_is_said() {
    let (mut executor, now) = executor(Commands::default());
    let mut check = |command: Incoming, expected: &str| {
        let error = executor.received(command, now, 0).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    };
    check(
        Incoming { topic: "devices/other/commands/x".to_owned(), ..command(1, 1, false) },
        "no command topic",
    );
    check(
        Incoming { topic: format!("devices/{DEVICE}/commands/x/y"), ..command(1, 1, false) },
        "no command topic",
    );
    check(Incoming { payload: Bytes::from_static(b"x"), ..command(1, 1, false) }, "no command of this fleet");
    check(command(0, 1, false), "QoS 0");
}

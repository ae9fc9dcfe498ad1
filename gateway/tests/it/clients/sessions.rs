//! Sessions that outlive connections and gateways, with clients that keep theirs as their libraries do.

use serde_json::{Value, json};

use super::Site;
use super::agent::{Agent, Library};

/// Messages that wait for a client that is away.
const MISSED: usize = 60;

/// How a client with a lasting session connects.
fn lasting(client: &str, version: u8) -> Value {
    json!({ "client": client, "version": version, "clean": false, "expiry": 3600 })
}

/// What waits for a client: payloads and qualities.
fn missed() -> Vec<(String, u64)> {
    (0..MISSED).map(|number| (format!("message {number}"), if number % 2 == 0 { 1 } else { 2 })).collect()
}

/// Fails unless this is [`missed`], each once and in order within its quality: libraries show a message of QoS 2 only
/// when its exchange is complete.
fn check_missed(arrived: &[(String, u64)], case: &str) {
    let at = |list: &[(String, u64)], wanted| -> Vec<String> {
        list.iter().filter(|(_, qos)| *qos == wanted).map(|(payload, _)| payload.clone()).collect()
    };
    for qos in [1, 2] {
        assert_eq!(at(arrived, qos), at(&missed(), qos), "{case}, QoS {qos}");
    }
}

#[test]
fn a_session_and_what_waits_in_it_outlive_kill_9_of_the_gateway() {
    for library in Library::installed() {
        for version in [4, 5] {
            let mut site = Site::start();
            let mut subscriber = Agent::connect(library, site.plain(), &lasting("logger", version));
            assert!(!subscriber.connected(), "{library:?}: a new session");
            assert_eq!(subscriber.subscribe("hall/#", 2), json!([2]));
            subscriber.leave();

            let mut publisher = Agent::connect(library, site.plain(), &lasting("sensor", version));
            publisher.connected();
            for (payload, qos) in missed() {
                publisher.publish("hall/1", &payload, u8::try_from(qos).expect("0 to 2"));
            }
            drop(publisher);
            site.kill_and_restart();

            let mut subscriber = Agent::connect(library, site.plain(), &lasting("logger", version));
            assert!(subscriber.connected(), "{library:?}, version {version}: the session is there");
            check_missed(&subscriber.messages(MISSED), &format!("{library:?}, version {version}"));
            // Without a subscription anew, and with nothing between.
            let mut publisher = Agent::connect(library, site.plain(), &lasting("sensor", version));
            assert!(publisher.connected());
            publisher.publish("hall/2", "sentinel", 1);
            assert_eq!(subscriber.message()["payload"], "sentinel", "{library:?}, version {version}");
            subscriber.leave();
            publisher.leave();
        }
    }
}

#[test]
fn a_client_that_lost_the_gateway_comes_back_to_its_session_by_itself() {
    for library in Library::installed() {
        for version in [4, 5] {
            let mut site = Site::start();
            let mut subscriber = Agent::connect(library, site.plain(), &lasting("logger", version));
            subscriber.connected();
            subscriber.subscribe("hall/#", 2);
            site.kill_and_restart();
            assert!(subscriber.connected(), "{library:?}, version {version}: the session is there");
            let mut publisher = Agent::connect(library, site.plain(), &lasting("sensor", version));
            publisher.connected();
            for (payload, qos) in missed() {
                publisher.publish("hall/1", &payload, u8::try_from(qos).expect("0 to 2"));
            }
            check_missed(&subscriber.messages(MISSED), &format!("{library:?}, version {version}"));
        }
    }
}

#[test]
fn a_clean_start_ends_the_session() {
    for library in Library::installed() {
        for version in [4, 5] {
            let site = Site::start();
            let mut subscriber = Agent::connect(library, site.plain(), &lasting("logger", version));
            subscriber.connected();
            subscriber.subscribe("hall/#", 1);
            subscriber.leave();
            let clean = json!({ "client": "logger", "version": version, "clean": true });
            let mut subscriber = Agent::connect(library, site.plain(), &clean);
            assert!(!subscriber.connected(), "{library:?}, version {version}");
            subscriber.publish("hall/1", "nobody", 1);
            subscriber.subscribe("hall/#", 1);
            subscriber.publish("hall/1", "sentinel", 1);
            assert_eq!(subscriber.message()["payload"], "sentinel", "{library:?}, version {version}");
            subscriber.leave();
            let mut subscriber = Agent::connect(library, site.plain(), &lasting("logger", version));
            assert!(!subscriber.connected(), "{library:?}, version {version}: a clean session does not last");
        }
    }
}

#[test]
fn a_session_ends_when_its_time_is_over() {
    for library in Library::installed() {
        let site = Site::start();
        let order =
            |expiry: u32| json!({ "client": "brief", "version": 5, "clean": false, "expiry": expiry });
        let mut agent = Agent::connect(library, site.plain(), &order(0));
        assert!(!agent.connected());
        agent.subscribe("hall/#", 1);
        agent.leave();
        let mut agent = Agent::connect(library, site.plain(), &order(600));
        assert!(!agent.connected(), "{library:?}: no expiry interval ends it with the connection");
        agent.subscribe("hall/#", 1);
        agent.leave();
        let mut agent = Agent::connect(library, site.plain(), &order(600));
        assert!(agent.connected(), "{library:?}");
    }
}

/// Both ends keep their half of every exchange over a lost connection, so that nothing comes twice or not at all.
#[test]
fn at_quality_2_everything_arrives_once_while_the_gateway_dies_again_and_again() {
    const MESSAGES: usize = 300;
    for library in Library::installed() {
        for version in [4, 5] {
            let mut site = Site::start();
            let mut subscriber = Agent::connect(library, site.plain(), &lasting("logger", version));
            subscriber.connected();
            subscriber.subscribe("hall/#", 2);
            let mut publisher = Agent::connect(library, site.plain(), &lasting("sensor", version));
            publisher.connected();
            let payload = |number: usize| format!("message {number}");
            for number in 0..MESSAGES {
                publisher.tell(
                    &json!({ "do": "publish", "topic": "hall/1", "payload": payload(number), "qos": 2 }),
                );
            }
            for completed in 1..=MESSAGES {
                publisher.event("published");
                if [40, 120, 200].contains(&completed) {
                    site.kill_and_restart();
                }
            }
            let mut arrived: Vec<String> =
                subscriber.messages(MESSAGES).into_iter().map(|(payload, _)| payload).collect();
            publisher.publish("hall/2", "end", 2);
            assert_eq!(
                subscriber.message()["payload"],
                "end",
                "{library:?}, version {version}: nothing twice"
            );
            arrived.sort();
            let mut expected: Vec<String> = (0..MESSAGES).map(payload).collect();
            expected.sort();
            assert_eq!(arrived, expected, "{library:?}, version {version}");
        }
    }
}

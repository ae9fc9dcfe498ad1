//! Wills: published when a client vanishes, not when it leaves, and after their delay.

use serde_json::json;

use super::Site;
use super::agent::{Agent, Library};
use super::mosquitto::{Subscriber, VERSIONS, publish};

#[test]
fn the_will_of_a_client_that_vanishes_is_published_and_may_be_retained() {
    let site = Site::start();
    for version in VERSIONS {
        let topic = format!("wills/{version}");
        let will = ["--will-topic", &topic, "--will-payload", "gone", "--will-qos", "2", "--will-retain"];
        let with_will = [&["-V", version, "-q", "1", "-t", "orders"], &will[..]].concat();
        let mut watcher = Subscriber::start(&site, &["-V", version, "-q", "2", "-t", &topic]);

        // One that leaves with a goodbye has no will any more.
        let polite = Subscriber::start(&site, &[&with_will[..], &["-C", "1"]].concat());
        publish(&site, &["-q", "1", "-t", "orders", "-m", "leave"]);
        assert_eq!(polite.rest().len(), 1);
        publish(&site, &["-q", "1", "-t", &topic, "-m", "sentinel"]);
        assert_eq!(watcher.payload(), "sentinel", "{version}");

        Subscriber::start(&site, &with_will).kill();
        let message = watcher.next();
        assert_eq!((&message["payload"], &message["qos"]), (&json!("gone"), &json!(2)), "{version}");
        assert_eq!(message["retain"], 0, "to whom is subscribed already");
        let late = ["-V", version, "-q", "2", "-t", &topic, "--retained-only", "-C", "1"];
        let late = Subscriber::start(&site, &late).rest();
        assert_eq!((&late[0]["payload"], &late[0]["retain"]), (&json!("gone"), &json!(1)), "{version}");
    }
}

#[test]
fn properties_of_a_will_arrive_with_it() {
    let site = Site::start();
    let mut watcher = Subscriber::start(&site, &["-V", "mqttv5", "-q", "1", "-t", "wills/#"]);
    let mut arguments =
        vec!["-V", "mqttv5", "-t", "orders", "--will-topic", "wills/1", "--will-payload", "gone"];
    for (name, value) in [("content-type", "text/plain"), ("response-topic", "replies/1")] {
        arguments.extend(["-D", "will", name, value]);
    }
    arguments.extend(["-D", "will", "user-property", "site", "north"]);
    Subscriber::start(&site, &arguments).kill();
    let message = watcher.next();
    let properties = &message["properties"];
    assert_eq!(properties["content-type"], "text/plain", "{message}");
    assert_eq!(properties["response-topic"], "replies/1", "{message}");
    assert_eq!(properties["user-properties"], json!({ "site": "north" }), "{message}");
}

#[test]
fn a_delayed_will_comes_later_and_not_at_all_for_a_client_that_returns() {
    for library in Library::installed() {
        let site = Site::start();
        let mut watcher = Subscriber::start(&site, &["-V", "mqttv5", "-q", "1", "-t", "wills/#"]);
        let connect = |client: &str, delay: u32| {
            let will = json!({
                "topic": format!("wills/{client}"), "payload": client, "qos": 1, "retain": false, "delay": delay,
            });
            let order =
                json!({ "client": client, "version": 5, "clean": false, "expiry": 600, "will": will });
            let mut agent = Agent::connect(library, site.plain(), &order);
            (agent.connected(), agent)
        };
        let (_, returning) = connect("returning", 1);
        let (_, staying_away) = connect("staying-away", 2);
        returning.vanish();
        let (session, _returned) = connect("returning", 1);
        assert!(session, "{library:?}: it has its session back");
        staying_away.vanish();
        publish(&site, &["-q", "1", "-t", "wills/sentinel", "-m", "sentinel"]);
        assert_eq!(watcher.payload(), "sentinel", "{library:?}: before the delay is over");
        // The other will would have been due a second earlier.
        assert_eq!(watcher.payload(), "staying-away", "{library:?}");
    }
}

#[test]
fn a_will_waits_no_longer_than_the_session_of_its_client() {
    for library in Library::installed() {
        let site = Site::start();
        let mut watcher = Subscriber::start(&site, &["-V", "mqttv5", "-q", "1", "-t", "wills/#"]);
        let will = json!({ "topic": "wills/1", "payload": "gone", "qos": 1, "retain": false, "delay": 3600 });
        let order = json!({ "client": "short", "version": 5, "clean": true, "expiry": 1, "will": will });
        let mut agent = Agent::connect(library, site.plain(), &order);
        agent.connected();
        agent.vanish();
        assert_eq!(watcher.payload(), "gone", "{library:?}");
    }
}

#[test]
fn a_delayed_will_survives_the_death_of_the_gateway() {
    for library in Library::installed() {
        let mut site = Site::start();
        let will = json!({ "topic": "wills/1", "payload": "gone", "qos": 1, "retain": true, "delay": 2 });
        let order = json!({ "client": "unlucky", "version": 5, "clean": false, "expiry": 600, "will": will });
        let mut agent = Agent::connect(library, site.plain(), &order);
        agent.connected();
        agent.vanish();
        // Once it noticed, and made something durable after that, it has the will in its store.
        site.wait_until_nobody_is_connected();
        publish(&site, &["-q", "1", "-r", "-t", "other", "-m", "1"]);
        site.kill_and_restart();
        let mut watcher = Subscriber::start(&site, &["-V", "mqttv5", "-q", "1", "-t", "wills/#"]);
        assert_eq!(watcher.payload(), "gone", "{library:?}");
    }
}

//! Every option of mosquitto's tools that stands for something in MQTT.

use std::collections::BTreeMap;

use serde_json::json;

use super::Site;
use super::mosquitto::{Subscriber, VERSIONS, done, publish, tool};
use super::talker::Talker;

/// Publishes what must be the next message of whoever subscribed to `topic`.
fn sentinel(site: &Site, topic: &str) {
    publish(site, &["-q", "1", "-t", topic, "-m", "sentinel"]);
}

#[test]
fn messages_arrive_at_the_lower_quality_of_publish_and_subscription() {
    let site = Site::start();
    let authority = site.authority().display().to_string();
    let places: [(&str, &[&str]); 2] = [(site.plain(), &[]), (site.tls(), &["--cafile", &authority])];
    for (address, secured) in places {
        for version in VERSIONS {
            for granted in ["0", "1", "2"] {
                let arguments =
                    [&["-V", version, "-q", granted, "-t", "hall/+/temperature"], secured].concat();
                let mut subscriber = Subscriber::start_at(address, &arguments);
                for sent in ["0", "1", "2"] {
                    let arguments = ["-V", version, "-q", sent, "-t", "hall/7/temperature", "-m", sent];
                    let mut command = tool("mosquitto_pub", address, &[&arguments, secured].concat());
                    done("mosquitto_pub", &mut command);
                    let message = subscriber.next();
                    let lower = sent.min(granted).parse::<u8>().expect("a number");
                    assert_eq!(message["payload"], sent, "{version} at {granted}");
                    assert_eq!(message["qos"], lower, "{version}: {sent} at {granted}");
                    assert_eq!(message["topic"], "hall/7/temperature");
                    assert_eq!(message["retain"], 0);
                }
            }
        }
    }
}

#[test]
fn a_retained_message_is_kept_until_it_is_removed() {
    for version in VERSIONS {
        let site = Site::start();
        for (topic, payload) in
            [("hall/1/setpoint", "20"), ("hall/1/setpoint", "21"), ("hall/2/setpoint", "22")]
        {
            publish(&site, &["-V", version, "-q", "1", "-r", "-t", topic, "-m", payload]);
        }
        let retained = ["-V", version, "-q", "1", "-t", "hall/#", "--retained-only", "-C", "2"];
        let found = Subscriber::start(&site, &retained).rest();
        let found: BTreeMap<_, _> =
            found.iter().map(|message| (message["topic"].as_str(), &message["payload"])).collect();
        assert_eq!(found.len(), 2, "{found:?}");
        assert_eq!(
            (found[&Some("hall/1/setpoint")], found[&Some("hall/2/setpoint")]),
            (&json!("21"), &json!("22"))
        );

        // To whom is subscribed already it is a message like any other.
        let mut live = Subscriber::start(&site, &["-V", version, "-q", "1", "-R", "-t", "hall/#"]);
        publish(&site, &["-V", version, "-q", "1", "-r", "-t", "hall/3/setpoint", "-m", "23"]);
        let message = live.next();
        assert_eq!((&message["payload"], &message["retain"]), (&json!("23"), &json!(0)));

        // An empty one that is not retained removes nothing; one that is, does.
        publish(&site, &["-V", version, "-q", "1", "-t", "hall/1/setpoint", "-n"]);
        publish(&site, &["-V", version, "-q", "1", "-r", "-t", "hall/3/setpoint", "-n"]);
        let mut remover =
            Subscriber::start(&site, &["-V", version, "-q", "1", "-t", "hall/#", "--remove-retained"]);
        let mut seen = [remover.payload(), remover.payload()];
        seen.sort();
        assert_eq!(seen, ["21", "22"]);
        // The publishes that remove come back to it, as it is subscribed.
        assert_eq!([remover.payload(), remover.payload()], ["", ""]);
        let mut late = Subscriber::start(&site, &["-V", version, "-q", "1", "-t", "hall/#"]);
        sentinel(&site, "hall/1/setpoint");
        assert_eq!(late.payload(), "sentinel", "nothing is retained any more");
    }
}

#[test]
fn the_retain_flag_is_shown_as_published_to_whoever_asks_for_it() {
    let site = Site::start();
    let arguments = ["-V", "mqttv5", "-q", "1", "-t", "hall/setpoint", "--retain-as-published"];
    let mut subscriber = Subscriber::start(&site, &arguments);
    publish(&site, &["-V", "mqttv5", "-q", "1", "-r", "-t", "hall/setpoint", "-m", "kept"]);
    publish(&site, &["-V", "mqttv5", "-q", "1", "-t", "hall/setpoint", "-m", "passing"]);
    for (payload, retain) in [("kept", 1), ("passing", 0)] {
        let message = subscriber.next();
        assert_eq!((&message["payload"], &message["retain"]), (&json!(payload), &json!(retain)));
    }
}

#[test]
fn a_session_keeps_what_its_client_missed() {
    for (version, expiry) in [("mqttv311", None), ("mqttv5", Some("3600"))] {
        let site = Site::start();
        let mut session = vec!["-V", version, "-c", "-i", "logger", "-q", "2", "-t", "hall/#"];
        session.extend(expiry.iter().flat_map(|expiry| ["-x", expiry]));
        let with = |more: &[&'static str]| [&session[..], more].concat();
        assert_eq!(Subscriber::start(&site, &with(&["-E"])).rest(), Vec::<serde_json::Value>::new());
        for (qos, payload) in [("1", "first"), ("2", "second"), ("1", "third")] {
            publish(&site, &["-V", version, "-q", qos, "-t", "hall/1", "-m", payload]);
        }
        let missed = Subscriber::start(&site, &with(&["-C", "3"])).rest();
        let at = |qos: u8| -> Vec<&str> {
            let chosen = missed.iter().filter(|message| message["qos"] == qos);
            chosen.filter_map(|message| message["payload"].as_str()).collect()
        };
        // In order within a quality: the tool shows a QoS 2 message once its exchange is complete.
        assert_eq!((at(1), at(2)), (vec!["first", "third"], vec!["second"]), "{version}");

        // Without a subscription nothing is kept; a clean start ends the session.
        let gone = ["-V", version, "-c", "-i", "logger", "-q", "2", "-U", "hall/#", "-t", "yard/#", "-E"];
        Subscriber::start(&site, &gone).rest();
        publish(&site, &["-V", version, "-q", "1", "-t", "hall/1", "-m", "unsubscribed"]);
        publish(&site, &["-V", version, "-q", "1", "-t", "yard/1", "-m", "subscribed"]);
        let mut again = Subscriber::start(&site, &session);
        assert_eq!(again.payload(), "subscribed", "{version}");
        again.kill();
        Subscriber::start(&site, &["-V", version, "-i", "logger", "-q", "2", "-t", "hall/#", "-E"]).rest();
        publish(&site, &["-V", version, "-q", "1", "-t", "hall/1", "-m", "nobody"]);
        let mut fresh = Subscriber::start(&site, &session);
        sentinel(&site, "hall/1");
        assert_eq!(fresh.payload(), "sentinel", "{version}");
    }
}

#[test]
fn properties_of_a_publish_arrive_as_they_were_sent() {
    let site = Site::start();
    let arguments =
        ["-V", "mqttv5", "-q", "1", "-t", "hall/#", "-D", "subscribe", "subscription-identifier", "77"];
    let mut subscriber = Subscriber::start(&site, &arguments);
    let mut arguments = vec!["-V", "mqttv5", "-q", "2", "-t", "hall/1", "-m", "{}"];
    for (name, value) in [
        ("content-type", "application/json"),
        ("response-topic", "replies/7"),
        ("correlation-data", "order-1"),
        ("message-expiry-interval", "600"),
        ("payload-format-indicator", "1"),
    ] {
        arguments.extend(["-D", "publish", name, value]);
    }
    arguments.extend(["-D", "publish", "user-property", "site", "north"]);
    publish(&site, &arguments);
    let message = subscriber.next();
    let properties = &message["properties"];
    assert_eq!(properties["content-type"], "application/json", "{message}");
    assert_eq!(properties["response-topic"], "replies/7", "{message}");
    assert_eq!(properties["correlation-data"], "order-1", "{message}");
    assert_eq!(properties["payload-format-indicator"], 1, "{message}");
    assert_eq!(properties["user-properties"], json!({ "site": "north" }), "{message}");
    assert_eq!(properties["subscription-identifier"], 77, "{message}");
    let expiry = properties["message-expiry-interval"].as_u64().expect("what is left of it");
    assert!((1..=600).contains(&expiry), "{message}");
}

#[test]
fn an_alias_stands_for_the_topic_of_a_publish() {
    let site = Site::start();
    let mut subscriber = Subscriber::start(&site, &["-V", "mqttv5", "-q", "1", "-t", "hall/#"]);
    // From the second publish on the tool sends the alias alone.
    let publishes = ["-V", "mqttv5", "-q", "1", "-t", "hall/1/temperature", "-m", "20", "--repeat", "3"];
    publish(&site, &[&publishes[..], &["-D", "publish", "topic-alias", "1"]].concat());
    for _ in 0..3 {
        let message = subscriber.next();
        assert_eq!((&message["topic"], &message["payload"]), (&json!("hall/1/temperature"), &json!("20")));
    }
}

#[test]
fn a_client_gets_no_packet_larger_than_it_takes() {
    let site = Site::start();
    let arguments =
        ["-V", "mqttv5", "-q", "1", "-t", "hall/1", "-D", "connect", "maximum-packet-size", "100"];
    let mut subscriber = Subscriber::start(&site, &arguments);
    publish(&site, &["-V", "mqttv5", "-q", "1", "-t", "hall/1", "-m", &"x".repeat(200)]);
    sentinel(&site, "hall/1");
    assert_eq!(subscriber.payload(), "sentinel");
}

#[test]
fn a_small_window_delays_and_loses_nothing() {
    let site = Site::start();
    // At QoS 2 this tool counts wrongly and leaves.
    let session = ["-V", "mqttv5", "-c", "-i", "slow", "-x", "3600", "-q", "1", "-t", "hall/#"];
    let session = [&session[..], &["-D", "connect", "receive-maximum", "2"]].concat();
    Subscriber::start(&site, &[&session[..], &["-E"]].concat()).rest();
    let mut publisher = Talker::start(
        "mosquitto_pub",
        &mut tool("mosquitto_pub", site.plain(), &["-q", "2", "-t", "hall/1", "-l"]),
    );
    let sent: Vec<String> = (0..30).map(|number| number.to_string()).collect();
    sent.iter().for_each(|line| publisher.tell(line));
    let mut subscriber = Subscriber::start(&site, &session);
    let arrived: Vec<String> = (0..30).map(|_| subscriber.payload()).collect();
    assert_eq!(arrived, sent);
}

#[test]
fn a_shared_subscription_gives_each_message_to_one_of_its_clients() {
    let site = Site::start();
    let arguments = ["-V", "mqttv5", "-q", "1", "-t", "$share/workers/jobs/#", "-t", "end"];
    let mut workers = [Subscriber::start(&site, &arguments), Subscriber::start(&site, &arguments)];
    let mut everything = Subscriber::start(&site, &["-V", "mqttv5", "-q", "1", "-t", "jobs/#", "-t", "end"]);
    let jobs: Vec<String> = (0..30).map(|number| format!("jobs/{number}")).collect();
    for job in &jobs {
        publish(&site, &["-q", "1", "-t", job, "-m", job]);
    }
    publish(&site, &["-q", "1", "-t", "end", "-m", "end"]);
    let mut taken = Vec::new();
    for worker in &mut workers {
        let own: Vec<String> =
            std::iter::from_fn(|| Some(worker.payload()).filter(|payload| payload != "end")).collect();
        assert!(!own.is_empty(), "the work is shared");
        taken.extend(own);
    }
    let mut expected = jobs.clone();
    taken.sort();
    expected.sort();
    assert_eq!(taken, expected, "each once");
    let seen: Vec<String> = (0..30).map(|_| everything.payload()).collect();
    assert_eq!(seen, jobs, "another subscription of the same topics gets all");
}

#[test]
fn the_gateway_tells_about_itself_below_sys_and_nowhere_else() {
    let site = Site::start();
    for version in VERSIONS {
        let mut all = Subscriber::start(&site, &["-V", version, "-q", "1", "-t", "#"]);
        let mut itself = Subscriber::start(&site, &["-V", version, "-q", "0", "-t", "$SYS/#"]);
        for _ in 0..5 {
            let message = itself.next();
            let topic = message["topic"].as_str().expect("a topic");
            assert!(topic.starts_with("$SYS/"), "{message}");
            assert!(message["payload"].as_str().is_some_and(|value| !value.is_empty()), "{message}");
        }
        sentinel(&site, "hall/1");
        assert_eq!(all.payload(), "sentinel", "a leading wildcard does not match $SYS");
    }
}

#[test]
fn a_request_gets_its_response() {
    let site = Site::start();
    let mut service = Subscriber::start(&site, &["-V", "mqttv5", "-q", "1", "-t", "service/echo"]);
    let arguments = ["-V", "mqttv5", "-q", "1", "-t", "service/echo", "-e", "replies/7", "-m", "ping"];
    let arguments = [&arguments[..], &["-D", "publish", "correlation-data", "42"]].concat();
    let mut requester = Talker::start("mosquitto_rr", &mut tool("mosquitto_rr", site.plain(), &arguments));
    let request = service.next();
    let properties = &request["properties"];
    assert_eq!((&request["payload"], &properties["response-topic"]), (&json!("ping"), &json!("replies/7")));
    let correlation = properties["correlation-data"].as_str().expect("sent with the request");
    assert_eq!(correlation, "42");
    let answer = ["-V", "mqttv5", "-q", "1", "-t", "replies/7", "-m", "pong"];
    publish(&site, &[&answer[..], &["-D", "publish", "correlation-data", correlation]].concat());
    assert_eq!(requester.line("the response").as_deref(), Some("pong"));
}

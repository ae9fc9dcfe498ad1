//! Section 4.7: topic names and filters.

use super::super::gateway::Gateway;
use super::super::wire;
use super::BOTH;
use super::house::house;

/// Asserts which of `topics` a subscription to `filter` hears.
async fn check(gateway: &Gateway, version: u8, filter: &str, topics: &[(&str, bool)]) {
    let mut client = gateway.client(version, "listener").await;
    client.listen(version, filter, 1).await;
    client.listen(version, "mark", 0).await;
    let mut publisher = gateway.client(version, "publisher").await;
    for (topic, matches) in topics {
        publisher.say(version, 1, topic, "x").await;
        publisher.say(version, 1, "mark", "mark").await;
        if *matches {
            let heard = client.take(version).await;
            assert_eq!((&*heard.topic, &*heard.payload), (*topic, "x"), "{filter}");
        }
        let heard = client.take(version).await;
        assert_eq!(heard.payload, "mark", "{filter} heard {}", heard.topic);
    }
}

// 3.1.1 [MQTT-3.3.2-3], [MQTT-4.5.0-1], [MQTT-4.7.1-3]
// 5 [MQTT-3.3.2-3], [MQTT-4.5.0-1], [MQTT-4.7.1-2]
#[tokio::test]
async fn filters_match_as_the_rules_say() {
    for version in BOTH {
        let gateway = house();
        let check = async |filter, topics: &[(&str, bool)]| check(&gateway, version, filter, topics).await;
        check("a/b", &[("a/b", true), ("a", false), ("a/b/c", false), ("a/bb", false)]).await;
        check("a/b/#", &[("a/b", true), ("a/b/", true), ("a/b/c", true), ("a/b/c/d", true), ("a/bc", false)])
            .await;
        check("a/+", &[("a/b", true), ("a/", true), ("a", false), ("a/b/c", false), ("b/b", false)]).await;
        check("+/b", &[("a/b", true), ("/b", true), ("b", false), ("a/a/b", false)]).await;
        check("a/+/c", &[("a/b/c", true), ("a//c", true), ("a/c", false), ("a/b/b/c", false)]).await;
        check("+/+", &[("/finance", true), ("a/b", true), ("finance", false), ("a/b/c", false)]).await;
        check("/+", &[("/finance", true), ("finance", false), ("a/finance", false)]).await;
        check("+", &[("finance", true), ("/finance", false), ("finance/", false)]).await;
        check("a/+/#", &[("a/b", true), ("a/", true), ("a/b/c", true), ("a", false)]).await;
    }
}

// 3.1.1 [MQTT-4.7.1-2], [MQTT-4.7.1-3]
// 5 [MQTT-4.7.1-1], [MQTT-4.7.1-2]
#[tokio::test]
async fn wildcards_stand_for_whole_levels() {
    for version in BOTH {
        for filter in ["a#", "a/b#", "#/a", "a/#/b", "a/##", "#/", "a+", "+a", "a/+b", "a/b+/c", "++", "a/+#"]
        {
            let gateway = house();
            let mut client = gateway.client(version, "d").await;
            client.send(&wire::subscribe(version, 1, &[(filter, 0)])).await;
            // Refused by its answer, or by the end of the connection.
            let answer = client.packet_or_end().await;
            let refused = answer.as_ref().is_none_or(|answer| match (version, answer[0]) {
                (4, 0x90) => answer[4] == 0x80,
                (5, 0x90) => answer[5] == 0x8f,
                (5, 0xe0) => [0x81, 0x82, 0x8f].contains(&answer[2]),
                _ => false,
            });
            assert!(refused, "{filter}: {answer:02x?}");
        }
    }
}

// 3.1.1 [MQTT-4.7.2-1]
// 5 [MQTT-4.7.2-1]
#[tokio::test]
async fn leading_wildcards_do_not_see_dollar_topics() {
    for version in BOTH {
        let gateway = house();
        let check = async |filter, topics: &[(&str, bool)]| check(&gateway, version, filter, topics).await;
        let dollar = [("$house/door", false), ("$house", false), ("$", false)];
        for filter in ["#", "+/door", "+", "+/#"] {
            let topics: Vec<_> = dollar.into_iter().filter(|_| filter != "#").collect();
            check(filter, &topics).await;
        }
        check("$house/#", &[("$house/door", true), ("$house", true), ("house/door", false)]).await;
        check("$house/+", &[("$house/door", true), ("$house", false)]).await;
        // `#` alone hears the mark too; what matters is that it hears nothing else.
        let mut client = gateway.client(version, "all").await;
        client.listen(version, "#", 1).await;
        let mut publisher = gateway.client(version, "publisher").await;
        for (topic, _) in dollar {
            publisher.say(version, 1, topic, "x").await;
        }
        publisher.say(version, 1, "mark", "mark").await;
        assert_eq!(client.take(version).await.topic, "mark");
    }
}

// 3.1.1 [MQTT-4.7.3-1]
// 5 [MQTT-4.7.3-1]
#[tokio::test]
async fn names_and_filters_are_not_empty() {
    for version in BOTH {
        let gateway = house();
        for packet in [wire::publish(version, 1, 1, "", b"x"), wire::unsubscribe(version, 1, &[""])] {
            let mut client = gateway.client(version, "d").await;
            client.send(&packet).await;
            client.expect_disconnect(version, &[0x81, 0x82, 0x8f, 0x90]).await;
        }
        let mut client = gateway.client(version, "d").await;
        client.send(&wire::subscribe(version, 1, &[("", 0)])).await;
        client.expect_disconnect(version, &[0x81, 0x82, 0x8f]).await;
        // A separator alone is a name, and levels may be empty.
        check(&gateway, version, "/", &[("/", true), ("//", false)]).await;
        check(&gateway, version, "a//b", &[("a//b", true), ("a/b", false)]).await;
    }
}

// 3.1.1 [MQTT-4.7.3-4]
// 5 [MQTT-4.7.3-4]
#[tokio::test]
async fn nothing_is_normalized() {
    for version in BOTH {
        let gateway = house();
        let check = async |filter, topics: &[(&str, bool)]| check(&gateway, version, filter, topics).await;
        check("House/Door", &[("House/Door", true), ("house/door", false), ("HOUSE/DOOR", false)]).await;
        // One character, or a letter and a combining mark.
        check("house/\u{e9}", &[("house/\u{e9}", true), ("house/e\u{301}", false), ("house/e", false)]).await;
        check("house /door", &[("house /door", true), ("house/door", false), ("house/ door", false)]).await;
        check("/house", &[("/house", true), ("house", false), ("/house/", false)]).await;
        check("a/%62", &[("a/%62", true), ("a/b", false)]).await;
        check("a/../b", &[("a/../b", true), ("b", false)]).await;
        check("a/\u{10ffff}/*", &[("a/\u{10ffff}/*", true), ("a/\u{fffd}/*", false), ("a/b/c", false)]).await;
    }
}

//! Section 3.3.2.3.4: topic aliases in both directions.

use std::collections::BTreeMap;

use super::super::wire::{self, Connect, plain};
use super::house::{house, lasting, lose};
use super::{OWN, form, open};

/// An alias as a property.
fn alias(number: u16) -> Vec<u8> {
    [&[0x23][..], &number.to_be_bytes()].concat()
}

/// The topic alias maximum that the gateway tells.
fn maximum(connack: &[u8]) -> u16 {
    let told = form::told(connack);
    let value = told.iter().find(|(name, _)| *name == 0x22).map(|(_, value)| [value[0], value[1]]);
    value.map_or(0, u16::from_be_bytes)
}

// 5 [MQTT-3.2.2-17], [MQTT-3.2.2-18], [MQTT-3.3.2-8], [MQTT-3.3.2-9]
#[tokio::test]
async fn an_alias_out_of_range_ends_the_connection() {
    let gateway = house();
    let (_, connack) = open(&gateway, &plain(5, "d")).await;
    let most = maximum(&connack);
    assert!(most > 0, "aliases are offered");
    for number in [0, most + 1, u16::MAX] {
        for qos in 0..3 {
            let mut client = gateway.client(5, "d").await;
            client.send(&wire::publish_with(5, qos << 1, 1, OWN, &alias(number), b"x")).await;
            client.expect_disconnect(5, &[0x94]).await;
        }
    }
    // One that names no topic yet, and no topic without an alias.
    for properties in [&alias(1)[..], &[]] {
        let mut client = gateway.client(5, "d").await;
        client.send(&wire::publish_with(5, 2, 1, "", properties, b"x")).await;
        client.expect_disconnect(5, &[0x82, 0x90, 0x94]).await;
    }
    assert!(gateway.outbox.payloads().is_empty());
}

// 5 [MQTT-3.3.2-12]
#[tokio::test]
async fn every_alias_up_to_the_maximum_is_taken() {
    let gateway = house();
    let (mut client, connack) = open(&gateway, &plain(5, "d")).await;
    let most = maximum(&connack);
    let mut listener = gateway.client(5, "listener").await;
    listener.listen(5, "house/+", 1).await;
    for number in 1..=most {
        client.say_with(5, 0x02, &format!("house/{number}"), &alias(number), "named").await;
        assert_eq!(listener.take(5).await.topic, format!("house/{number}"));
    }
    for number in (1..=most).rev() {
        client.say_with(5, 0x02, "", &alias(number), "by its alias").await;
        let heard = listener.take(5).await;
        assert_eq!((heard.topic, &*heard.payload), (format!("house/{number}"), "by its alias"));
    }
    // An alias may be given to another topic.
    client.say_with(5, 0x00, "house/new", &alias(1), "named").await;
    client.say_with(5, 0x04, "", &alias(1), "by its alias").await;
    for payload in ["named", "by its alias"] {
        let heard = listener.take(5).await;
        assert_eq!((&*heard.topic, &*heard.payload), ("house/new", payload));
    }
}

// 5 [MQTT-3.3.2-7]
#[tokio::test]
async fn an_alias_does_not_outlive_its_connection() {
    let gateway = house();
    let properties = [0x11, 0, 0, 0x0e, 0x10, 0x22, 0, 9];
    let connect = || Connect { properties: &properties, ..lasting(5, "d") };
    let mut publisher = gateway.client(5, "publisher").await;
    let (mut client, _) = open(&gateway, &connect()).await;
    client.listen(5, "house/+", 1).await;
    client.say_with(5, 0x02, OWN, &alias(1), "named").await;
    for _ in 0..3 {
        publisher.say(5, 1, "house/door", "x").await;
        client.take(5).await;
    }
    lose(&gateway, client, 1).await;
    let (mut client, connack) = open(&gateway, &connect()).await;
    assert_eq!(connack[2], 1, "the session is the same");
    publisher.say(5, 1, "house/door", "x").await;
    assert_eq!(client.take(5).await.topic, "house/door", "and is told the topic again");
    client.send(&wire::publish_with(5, 2, 1, "", &alias(1), b"x")).await;
    client.expect_disconnect(5, &[0x82, 0x94]).await;
    assert_eq!(gateway.outbox.payloads(), ["named"]);
}

// 5 [MQTT-3.1.2-27]
#[tokio::test]
async fn a_client_that_asks_for_no_aliases_gets_none() {
    let gateway = house();
    let mut publisher = gateway.client(5, "publisher").await;
    for properties in [&[][..], &[0x22, 0, 0]] {
        let (mut client, _) = open(&gateway, &Connect { properties, ..plain(5, "d") }).await;
        client.listen(5, "house/+", 0).await;
        for _ in 0..4 {
            publisher.say(5, 1, "house/door", "x").await;
            let heard = client.take(5).await;
            assert_eq!((&*heard.topic, heard.values(0x23).len()), ("house/door", 0));
        }
    }
}

// 5 [MQTT-3.1.2-26], [MQTT-3.3.2-8], [MQTT-3.3.2-11]
#[tokio::test]
async fn aliases_to_a_client_keep_to_its_maximum() {
    let gateway = house();
    let mut publisher = gateway.client(5, "publisher").await;
    for most in [1, 2, 3_u16] {
        let properties = [0x22, 0, u8::try_from(most).unwrap()];
        let (mut client, _) = open(&gateway, &Connect { properties: &properties, ..plain(5, "d") }).await;
        client.listen(5, "house/+", 1).await;
        let mut known = BTreeMap::new();
        let mut used = 0;
        for round in 0..40_u32 {
            // Some topics come again soon, others late.
            let topic = format!("house/{}", [0, 0, 1, 2, 0, 3, 4, 1][usize::try_from(round % 8).unwrap()]);
            publisher.say(5, 1, &topic, "x").await;
            let heard = client.take(5).await;
            let number = heard.values(0x23).first().map(|value| u16::from_be_bytes([value[0], value[1]]));
            assert!(number.is_none_or(|number| (1..=most).contains(&number)), "{number:?} above {most}");
            let named = match number {
                Some(number) if heard.topic.is_empty() => {
                    used += 1;
                    known.get(&number).cloned()
                }
                Some(number) => {
                    known.insert(number, heard.topic.clone());
                    Some(heard.topic)
                }
                None => Some(heard.topic),
            };
            assert_eq!(named.as_deref(), Some(&*topic));
        }
        assert!(used > 0, "some topics were left out");
    }
}

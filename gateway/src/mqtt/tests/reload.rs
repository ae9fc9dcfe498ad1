//! Users, rules and certificates change while devices are connected.

use std::convert::Infallible;
use std::fs;
use std::io;

use super::super::{Access, Action, Effect, Rule, hash_password};
use super::connect::{tls, tls_config};
use super::gateway::{Client, Gateway, open_config, soon};
use super::wire::{self, Connect, plain};

const NO_RULES: Result<&[Rule], Infallible> = Ok(&[]);

#[tokio::test]
async fn new_handshakes_show_the_new_certificate_and_a_bad_one_changes_nothing() {
    let [first, second] = [(); 2].map(|()| tempfile::tempdir().expect("a temporary folder"));
    let (config, old) = tls_config(first.path());
    let (other, new) = tls_config(second.path());
    let gateway = Gateway::with(&config);
    let mut before = Client::new(Box::pin(tls(&gateway, &old)).await);
    before.send(&wire::connect(4, "before")).await;
    before.expect(&[&[0x20, 2, 0, 0]]).await;

    let files = |config: &super::super::Config| config.listeners[0].tls.clone().expect("TLS");
    let ((certificate, key), (new_certificate, new_key)) = (files(&config), files(&other));
    // The certificate alone does not fit the key that is there.
    fs::copy(&new_certificate, &certificate).expect("copied");
    assert!(!gateway.handle.reload(NO_RULES));
    Client::new(Box::pin(tls(&gateway, &old)).await).send(&wire::connect(4, "between")).await;
    fs::remove_file(&key).expect("removed");
    assert!(!gateway.handle.reload(NO_RULES));
    Client::new(Box::pin(tls(&gateway, &old)).await).send(&wire::connect(4, "between")).await;

    fs::copy(&new_key, &key).expect("copied");
    assert!(gateway.handle.reload(NO_RULES));
    let mut after = Client::new(Box::pin(tls(&gateway, &new)).await);
    after.send(&wire::connect(4, "after")).await;
    after.expect(&[&[0x20, 2, 0, 0]]).await;
    before.expect_silence().await;
}

fn with_password<'a>(id: &'a str, user: &str, password: &str) -> Connect<'a> {
    let rest = [wire::string(user), wire::string(password)].concat();
    Connect { flags: 0xc2, rest, ..plain(4, id) }
}

#[tokio::test]
async fn users_change_without_hurting_who_is_connected() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("users");
    let hash = |password: &[u8]| hash_password(password).expect("hashed");
    fs::write(&file, format!("anna:{}\n", hash(b"old"))).expect("written");
    let mut config = open_config();
    config.access = Access { anonymous: false, users_file: Some(file.clone()), rules: Vec::new() };
    let gateway = Gateway::with(&config);
    let check = async |user: &str, password: &str, code: u8| {
        let mut client = gateway.raw().await;
        client.send(&with_password(user, user, password).bytes()).await;
        client.expect(&[&[0x20, 2, 0, code]]).await;
        client
    };
    let mut before = check("anna", "old", 0).await;
    fs::write(&file, "no line of a users file\n").expect("written");
    assert!(!gateway.handle.reload(NO_RULES));
    before.expect_silence().await;
    fs::write(&file, format!("bert:{}\n", hash(b"new"))).expect("written");
    assert!(gateway.handle.reload(NO_RULES));
    before.expect_silence().await;
    drop(check("bert", "new", 0).await);
    drop(check("anna", "old", 4).await);
}

#[tokio::test]
async fn rules_change_and_stay_where_they_cannot_be_read() {
    let gateway = Gateway::start();
    let mut client = gateway.client(4, "c").await;
    let mut subscribe = async |id: u16, code: u8| {
        soon(client.send(&wire::subscribe(4, id, &[("news/#", 0)]))).await;
        let [high, low] = id.to_be_bytes();
        client.expect(&[&[0x90, 3, high, low, code]]).await;
    };
    subscribe(1, 0x80).await;
    let filter = "news/#".parse().expect("a filter");
    let rules = [Rule { effect: Effect::Allow, action: Action::All, filter, user: None }];
    assert!(gateway.handle.reload(Ok::<_, Infallible>(&rules)));
    subscribe(2, 0).await;
    assert!(!gateway.handle.reload(Err(io::Error::other("no such file"))));
    subscribe(3, 0).await;
    assert!(gateway.handle.reload(NO_RULES));
    subscribe(4, 0x80).await;
}

#[tokio::test]
async fn rules_that_came_later_bind_subscriptions_that_are_there() {
    let rule = |effect, filter: &str| Rule {
        effect,
        action: Action::All,
        filter: filter.parse().expect(filter),
        user: None,
    };
    let everything = rule(Effect::Allow, "#");
    let mut config = open_config();
    config.access.rules = vec![everything.clone()];
    let gateway = Gateway::with(&config);
    let mut app = gateway.client(4, "app").await;
    app.send(&wire::subscribe(4, 1, &[("news/#", 0), ("devices/#", 0)])).await;
    app.expect(&[&[0x90, 4, 0, 1, 0, 0]]).await;
    let mut writer = gateway.client(4, "d").await;
    let (sport, politics, telemetry) = ("news/sport", "news/politics", "devices/d/telemetry");
    let mut publish = async |topics: &[&str]| {
        for topic in topics {
            writer.send(&wire::publish(4, 0, 0, topic, b"x")).await;
        }
        writer.expect_silence().await;
    };
    publish(&[sport, politics]).await;
    let received = |topic| wire::publish(4, 0, 0, topic, b"x");
    app.expect(&[&received(sport), &received(politics)]).await;
    let rules = [rule(Effect::Deny, "news/sport"), rule(Effect::Deny, "devices/#"), everything.clone()];
    assert!(gateway.handle.reload(Ok::<_, Infallible>(&rules)));
    publish(&[sport, telemetry, politics]).await;
    app.expect(&[&received(politics)]).await;
    assert!(gateway.handle.reload(Ok::<_, Infallible>(&[everything])));
    publish(&[sport]).await;
    app.expect(&[&received(sport)]).await;
}

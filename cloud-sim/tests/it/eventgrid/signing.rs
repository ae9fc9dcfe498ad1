//! Who may publish: two keys and their rotation, signatures, tokens.

use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use cloud_sim::OAuth;
use cloud_sim::eventgrid::{EventGrid, KEYS_DEFAULT};
use ring::hmac;
use serde_json::{Value, json};

use super::{KEY, Request, TOPIC, accepted, batch, fault, start};
use crate::sim::Sim;

const OTHER_KEY: &str = "YW5vdGhlciBrZXkgb2YgYSB0b3BpYywgMzIgYnl0ZXM=";

#[expect(clippy::disallowed_methods, reason = "signatures end at a time of the wall clock")]
fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

fn escaped(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    text.bytes()
        .map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") })
        .collect()
}

/// The end of a signature as .NET and JavaScript write it.
fn american(seconds: u64) -> String {
    let (days, rest) = (seconds / 86_400, seconds % 86_400);
    // Days since 0000-03-01, in eras of 400 years.
    let days = days + 719_468;
    let (era, of_era) = (days / 146_097, days % 146_097);
    let year = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = era * 400 + year + u64::from(month <= 2);
    let (hour, minute, second) = (rest / 3_600, rest / 60 % 60, rest % 60);
    let half = if hour < 12 { "AM" } else { "PM" };
    let hour = if hour % 12 == 0 { 12 } else { hour % 12 };
    format!("{month}/{day}/{year} {hour}:{minute:02}:{second:02} {half}")
}

fn signature(sim: &Sim, key: &str, path: &str, end: u64) -> String {
    let http = sim.running().event_grid.as_ref().unwrap().http;
    let resource = escaped(&format!("http://{http}{path}?apiVersion=2018-01-01"));
    let unsigned = format!("r={resource}&e={}", escaped(&american(end)));
    let key = hmac::Key::new(hmac::HMAC_SHA256, &STANDARD.decode(key).unwrap());
    let signature = STANDARD.encode(hmac::sign(&key, unsigned.as_bytes()));
    format!("{unsigned}&s={}", escaped(&signature))
}

/// The statuses of a request with each of these keys.
fn with_keys(sim: &Sim, keys: [&str; 3]) -> [u16; 3] {
    keys.map(|key| Request::with_proof("aeg-sas-key", key).events(sim, &["1"]))
}

#[test]
fn either_of_two_keys_opens_until_it_is_replaced() {
    let sim = start();
    let [first, second] = KEYS_DEFAULT;
    assert_eq!(with_keys(&sim, [first, second, OTHER_KEY]), [200, 200, 401]);
    fault(&sim, json!({"fault": "rotate-key", "key": OTHER_KEY}));
    assert_eq!(with_keys(&sim, [first, second, OTHER_KEY]), [401, 200, 200]);
    fault(&sim, json!({"fault": "clear"}));
    assert_eq!(with_keys(&sim, [first, second, OTHER_KEY]), [401, 200, 200], "keys stay");
    let answer = Request::with_proof("aeg-sas-key", first).send(&sim, &batch(&["1"]));
    assert_eq!((answer.error().0, answer.error().1), ("Unauthorized", "Unauthorized"));
}

#[test]
fn exactly_one_proof_is_shown_and_not_in_the_address() {
    let sim = start();
    let none = Request { proof: Vec::new(), ..Request::batch() };
    assert_eq!(none.events(&sim, &["1"]), 401);
    let mut two = Request::batch();
    two.proof.push(("authorization", "Bearer x".to_owned()));
    assert_eq!(two.events(&sim, &["1"]), 401);
    let path = "/api/events?api-version=2018-01-01&aeg-sas-key=Y2xvdWQ";
    assert_eq!(Request { path, ..none }.events(&sim, &["1"]), 401);
    assert!(accepted(&sim).is_empty());
}

#[test]
fn a_signature_opens_the_place_that_it_is_for_until_its_end() {
    let sim = start();
    let minute = now() + 60;
    let check = |signature: String, status: u16, says: &str| {
        for (name, value) in [
            ("aeg-sas-token", signature.clone()),
            ("authorization", format!("SharedAccessSignature {signature}")),
        ] {
            let answer = Request::with_proof(name, value).send(&sim, &batch(&["1"]));
            assert_eq!(answer.status, status, "{name}: {answer:?}");
            assert!(status == 200 || answer.error().2.contains(says), "{answer:?}, not {says}");
        }
    };
    for key in KEYS_DEFAULT {
        check(signature(&sim, key, "/api/events", minute), 200, "");
    }
    check(signature(&sim, OTHER_KEY, "/api/events", minute), 401, "signature of the token is not right");
    check(signature(&sim, KEY, "/api/events", now() - 1), 401, "expired");
    check(signature(&sim, KEY, "/api/other", minute), 401, "another resource");
    let forged = signature(&sim, KEY, "/api/events", minute).replace("127.0.0.1", "127.0.0.2");
    check(forged, 401, "signature of the token is not right");
    let signed = signature(&sim, KEY, "/api/events", minute);
    fault(&sim, json!({"fault": "rotate-key", "key": OTHER_KEY}));
    check(signed, 401, "signature of the token is not right");
}

fn start_with_tokens(local_auth: bool) -> Sim {
    Sim::start_with(|config| {
        let grid = EventGrid { local_auth, namespace_topics: vec!["alerts".to_owned()], ..EventGrid::new() };
        let mut config = config.with_event_grid(grid);
        config.oauth = Some(OAuth::new());
        config
    })
}

fn token(sim: &Sim, resource: &str) -> String {
    let address = sim.running().tokens.unwrap();
    let url = format!(
        "http://{address}/metadata/identity/oauth2/token?api-version=2018-02-01&resource={}",
        escaped(resource)
    );
    let mut answer = ureq::get(url).header("Metadata", "true").call().unwrap();
    let answer: Value = answer.body_mut().read_json().unwrap();
    format!("Bearer {}", answer["access_token"].as_str().unwrap())
}

#[test]
fn a_token_for_event_grid_opens_until_a_new_one_is_needed() {
    for local_auth in [true, false] {
        let sim = start_with_tokens(local_auth);
        let grid = token(&sim, "https://eventgrid.azure.net");
        assert_eq!(Request::with_proof("authorization", &grid).events(&sim, &["1"]), 200);
        let namespace = Request { path: super::NAMESPACE, ..Request::with_proof("authorization", &grid) };
        assert_eq!(namespace.events(&sim, &["2"]), 200);
        let bus = token(&sim, "https://servicebus.azure.net");
        let refused = Request::with_proof("authorization", bus).send(&sim, &batch(&["3"]));
        assert_eq!(refused.status, 401);
        assert!(refused.error().2.contains("another audience"), "{refused:?}");
        // 401 until the token is got anew.
        sim.order("/v1/faults/tokens", r#"{"expire": true}"#);
        for _ in 0..2 {
            let answer = Request::with_proof("authorization", &grid).send(&sim, &batch(&["3"]));
            assert_eq!(answer.status, 401);
            assert!(answer.error().2.contains("revoked"), "{answer:?}");
        }
        let status = if local_auth { 200 } else { 401 };
        assert_eq!(Request::batch().events(&sim, &["4"]), status, "keys are taken or not");
    }
}

#[test]
fn a_new_token_opens_again() {
    let sim = start_with_tokens(true);
    sim.order("/v1/faults/tokens", r#"{"expire": true}"#);
    // A token of the same millisecond counts as revoked.
    let opens = || {
        let proof = token(&sim, "https://eventgrid.azure.net");
        Request { path: TOPIC, ..Request::with_proof("authorization", proof) }.events(&sim, &["1"]) == 200
    };
    assert!((0..100).any(|_| opens()));
}

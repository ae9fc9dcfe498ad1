//! Tokens: who gets one, what it opens, and when that ends.

use std::error::Error;
use std::time::Duration;

use bytes::{Buf, BufMut};
use cloud_sim::OAuth;
use rdkafka::ClientContext;
use rdkafka::client::OAuthToken;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::DeliveryResult;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer, ProducerContext};
use serde_json::Value;

use crate::clients::client;
use crate::raw::Raw;
use crate::sim::{PATIENCE, Sim, deadline, passed};

const SECRET: &str = "s3cr t&=";
const HOUR: Duration = Duration::from_secs(3600);

/// Metadata of all topics.
const METADATA: i16 = 3;

fn sim(life: Duration) -> Sim {
    Sim::start_with(|config| {
        let assertion = config.data.join("assertion");
        std::fs::write(&assertion, "a.b.c\n").unwrap();
        let secret = Some(SECRET.to_owned());
        config.with_oauth(OAuth { secret, assertion_file: Some(assertion), life, ..OAuth::new() })
    })
}

/// The same on the listener without TLS, for bytes of our own.
fn open_sim(life: Duration) -> Sim {
    Sim::start_with(|mut config| {
        config.plain_requires_sasl = true;
        config.oauth = Some(OAuth { life, ..OAuth::new() });
        config
    })
}

fn metadata_path() -> String {
    let resource = format!("https%3A%2F%2F{}", OAuth::AUDIENCE);
    format!("/metadata/identity/oauth2/token?api-version=2018-02-01&resource={resource}")
}

fn tenant_path() -> String {
    format!("/{}/oauth2/v2.0/token", OAuth::TENANT)
}

fn form(proof: &str) -> String {
    format!(
        "grant_type=client_credentials&client_id={}&scope=https%3A%2F%2F{}%2F.default{proof}",
        OAuth::CLIENT_ID,
        OAuth::AUDIENCE
    )
}

fn answered(answer: Result<ureq::http::Response<ureq::Body>, ureq::Error>) -> (u16, Value) {
    let mut answer = answer.unwrap();
    (answer.status().as_u16(), answer.body_mut().read_json().unwrap())
}

fn agent() -> ureq::Agent {
    ureq::Agent::config_builder().http_status_as_error(false).timeout_global(Some(PATIENCE)).build().into()
}

fn url(sim: &Sim, path: &str) -> String {
    format!("http://{}{path}", sim.running().tokens.unwrap())
}

fn get(sim: &Sim, path: &str, header: Option<&str>) -> (u16, Value) {
    let asking = agent().get(url(sim, path));
    answered(header.into_iter().fold(asking, |asking, value| asking.header("Metadata", value)).call())
}

fn post(sim: &Sim, path: &str, form: &str) -> (u16, Value) {
    answered(agent().post(url(sim, path)).content_type("application/x-www-form-urlencoded").send(form))
}

fn token(sim: &Sim) -> String {
    let (status, answer) = get(sim, &metadata_path(), Some("true"));
    assert_eq!(status, 200, "{answer}");
    answer["access_token"].as_str().unwrap().to_owned()
}

fn message(token: &str) -> Vec<u8> {
    format!("n,,\u{1}auth=Bearer {token}\u{1}\u{1}").into_bytes()
}

/// Shows a token: the error, and for how many milliseconds the session holds.
fn sign_in(client: &mut Raw, token: &str) -> (i16, i64) {
    client.send(17, 1, b"\x00\x0bOAUTHBEARER");
    let answer = client.receive().unwrap();
    assert_eq!(answer[..2], [0, 0], "the handshake is refused: {answer:?}");
    let message = message(token);
    let mut body = Vec::new();
    body.put_i32(i32::try_from(message.len()).unwrap());
    body.put_slice(&message);
    client.send(36, 1, &body);
    let answer = client.receive().unwrap();
    let mut fields = &answer[..];
    let error = fields.get_i16();
    let mut end = &answer[answer.len() - 8..];
    (error, end.get_i64())
}

fn is_in(client: &mut Raw) -> bool {
    client.send(METADATA, 0, &[0; 4]);
    client.receive().is_some()
}

#[test]
fn endpoints_give_tokens_for_the_right_parameters_only() {
    let sim = sim(HOUR);
    let (status, answer) = get(&sim, &metadata_path(), Some("true"));
    assert_eq!((status, answer["expires_in"].as_str()), (200, Some("3600")), "{answer}");
    let (status, answer) = post(&sim, &tenant_path(), &form("&client_secret=s3cr+t%26%3D"));
    assert_eq!((status, answer["expires_in"].as_u64()), (200, Some(3600)), "{answer}");
    let proof = "&client_assertion_type=urn%3Aietf%3Aparams%3Aoauth%3Aclient-assertion-type%3Ajwt-bearer\
                 &client_assertion=a.b.c";
    assert_eq!(post(&sim, &tenant_path(), &form(proof)).0, 200);
    assert_eq!((sim.counter("tokens_issued"), sim.counter("tokens_refused")), (3, 0));

    let metadata = metadata_path();
    for (path, header) in [
        (metadata.clone(), None),
        (metadata.clone(), Some("false")),
        (metadata.replace("2018-02-01", "2017-12-01"), Some("true")),
        (metadata.replace("cloud-sim", "other"), Some("true")),
        (format!("{metadata}&client_id=other"), Some("true")),
        (format!("{metadata}&colour=red"), Some("true")),
    ] {
        assert_eq!(get(&sim, &path, header).0, 400, "{path} {header:?}");
    }
    let secret = form("&client_secret=s3cr+t%26%3D");
    let tenant = tenant_path();
    for (path, form, expected) in [
        (tenant.replace("1111", "3333"), secret.clone(), "AADSTS90002"),
        (tenant.clone(), secret.replace("client_credentials", "password"), "AADSTS70003"),
        (tenant.clone(), secret.replace("2222", "4444"), "AADSTS700016"),
        (tenant.clone(), secret.replace("%2F.default", ""), "AADSTS70011"),
        (tenant.clone(), secret.replace("s3cr", "S3cr"), "AADSTS7000215"),
        (tenant.clone(), form(proof).replace("a.b.c", "a.b.d"), "AADSTS700213"),
        (tenant.clone(), form(proof).replace("jwt-bearer", "saml2-bearer"), "AADSTS900144"),
        (tenant.clone(), format!("{secret}{proof}"), "AADSTS7000218"),
        (tenant.clone(), form(""), "AADSTS7000218"),
    ] {
        let (status, answer) = post(&sim, &path, &form);
        assert!(matches!(status, 400 | 401), "{form}: {answer}");
        assert!(answer["error_description"].as_str().unwrap().starts_with(expected), "{form}: {answer}");
    }
    assert_eq!(sim.counter("tokens_issued"), 3);
}

#[test]
fn a_token_for_service_bus_does_not_open_event_hubs() {
    let sim = open_sim(HOUR);
    // Some clients put a slash behind the resource.
    let path = metadata_path().replace(OAuth::AUDIENCE, "servicebus.azure.net%2F");
    let (status, answer) = get(&sim, &path, Some("true"));
    assert_eq!(
        (status, answer["resource"].as_str()),
        (200, Some("https://servicebus.azure.net")),
        "{answer}"
    );
    let mut client = Raw::connect(sim.running().kafka);
    assert_eq!(sign_in(&mut client, answer["access_token"].as_str().unwrap()).0, 58);
}

#[test]
fn requests_for_tokens_fail_on_order() {
    let sim = sim(HOUR);
    sim.order("/v1/faults/tokens", "{\"fail\": 2}");
    let seen = || get(&sim, &metadata_path(), Some("true")).0;
    assert_eq!([seen(), seen(), seen()], [503, 503, 200]);
    assert_eq!(sim.post("/v1/faults/tokens", "{\"fial\": 2}").0, 400);
    let without = Sim::start();
    assert_eq!(without.post("/v1/faults/tokens", "{\"fail\": 2}").0, 404);
}

#[test]
fn a_session_ends_with_its_token_unless_a_new_one_is_shown_on_it() {
    let life = Duration::from_secs(2);
    let sim = open_sim(life);
    let life_ms = i64::try_from(life.as_millis()).unwrap();
    let address = sim.running().kafka;
    let mut left = Raw::connect(address);
    let mut kept = Raw::connect(address);
    let first = token(&sim);
    assert_eq!(sign_in(&mut left, &first).0, 0);
    let (error, session_ms) = sign_in(&mut kept, &first);
    assert!(error == 0 && session_ms > life_ms / 2 && session_ms <= life_ms, "{error} {session_ms}");
    assert!(is_in(&mut left) && is_in(&mut kept));

    // The first token's session ends while the second connection shows newer ones in between.
    let mut shown = 0;
    while sim.counter("sessions_expired") == 0 {
        assert_eq!(sign_in(&mut kept, &token(&sim)).0, 0);
        shown += 1;
        assert!(is_in(&mut kept), "after {shown} tokens");
    }
    assert_eq!(left.receive(), None, "closed without a request");
    assert!(is_in(&mut kept));
    assert_eq!(sim.counter("reauthentications"), shown);
    assert_eq!(sign_in(&mut Raw::connect(address), &first), (58, 0), "it has expired");
    assert_eq!(sim.counter("authentication_failures"), 1);
}

#[test]
fn only_own_tokens_for_this_namespace_are_taken() {
    let mut sim = open_sim(HOUR);
    let good = token(&sim);
    let address = sim.running().kafka;
    assert_eq!(sign_in(&mut Raw::connect(address), &good).0, 0);
    assert_eq!(sign_in(&mut Raw::connect(address), "sim.7b7d.00000000").0, 58);
    assert!(!is_in(&mut Raw::connect(address)), "without any");

    let restart = |sim: &mut Sim, audience: &str| {
        let audience = audience.to_owned();
        sim.restart_with(|mut config| {
            config.plain_requires_sasl = true;
            config.oauth = Some(OAuth { audience, ..OAuth::new() });
            config
        });
    };
    restart(&mut sim, OAuth::AUDIENCE);
    let address = sim.running().kafka;
    assert_eq!(sign_in(&mut Raw::connect(address), &good).0, 0, "tokens outlive a restart");
    sim.order("/v1/faults/tokens", "{\"expire\": true}");
    assert_eq!(sign_in(&mut Raw::connect(address), &good).0, 58, "revoked");
    restart(&mut sim, "other.servicebus.windows.net");
    assert_eq!(sign_in(&mut Raw::connect(sim.running().kafka), &good).0, 58, "another audience");
}

/// A context that fetches a token whenever it is asked for one.
struct Bearer {
    url: String,
    errors: std::sync::Mutex<Vec<RDKafkaErrorCode>>,
    delivered: std::sync::atomic::AtomicUsize,
}

impl ClientContext for Bearer {
    const ENABLE_REFRESH_OAUTH_TOKEN: bool = true;

    fn generate_oauth_token(&self, _: Option<&str>) -> Result<OAuthToken, Box<dyn Error>> {
        let (_status, answer) = answered(agent().get(&self.url).header("Metadata", "true").call());
        let text = |name: &str| answer[name].as_str().unwrap_or_default().to_owned();
        let lifetime_ms = text("expires_on").parse::<i64>()? * 1000;
        Ok(OAuthToken { token: text("access_token"), principal_name: "test".into(), lifetime_ms })
    }

    fn error(&self, error: KafkaError, _reason: &str) {
        self.errors.lock().unwrap().extend(error.rdkafka_error_code());
    }
}

impl ProducerContext for Bearer {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        assert!(result.is_ok());
        self.delivered.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    }
}

#[test]
fn librdkafka_signs_in_with_tokens_and_shows_new_ones_on_the_same_connection() {
    let sim = sim(Duration::from_secs(5));
    let address = sim.running().kafka_tls.unwrap().to_string();
    let mut config = client(
        &address,
        &[
            ("security.protocol", "sasl_ssl"),
            ("sasl.mechanism", "OAUTHBEARER"),
            ("ssl.ca.pem", sim.running().ca_pem.as_deref().unwrap()),
            ("enable.idempotence", "true"),
        ],
    );
    let context = Bearer {
        url: url(&sim, &metadata_path()),
        errors: std::sync::Mutex::default(),
        delivered: std::sync::atomic::AtomicUsize::new(0),
    };
    let producer: BaseProducer<Bearer> = config.set("linger.ms", "1").create_with_context(context).unwrap();
    let deadline = deadline();
    let mut sent = 0;
    while sim.counter("reauthentications") < 2 {
        assert!(!passed(deadline), "only {} tokens", sim.counter("tokens_issued"));
        producer.send(BaseRecord::<(), str>::to("t").payload("x")).map_err(|(error, _)| error).unwrap();
        sent += 1;
        producer.poll(Duration::from_millis(5));
    }
    producer.flush(PATIENCE).unwrap();
    assert_eq!(producer.context().delivered.load(std::sync::atomic::Ordering::Relaxed), sent);
    assert_eq!(sim.counter("records_appended"), u64::try_from(sent).unwrap());
}

//! A request to publish, judged: path, version, content type, sizes, events. All or nothing.

use axum::http::{HeaderMap, StatusCode, Uri, header};
use serde_json::{Value, json};

use super::config::Kind;
use super::event::{self, Members};
use super::refusal::Refusal;

/// Largest body, and largest event.
pub(super) const BYTES_MAX: usize = 1_048_576;
/// Most events of a request to a custom topic or a domain.
const EVENTS_MAX: usize = 5_000;
/// Most events of a request to a namespace topic.
const NAMESPACE_EVENTS_MAX: usize = 1_000;
/// Versions of the interface of custom topics and domains.
const VERSIONS: [&str; 1] = ["2018-01-01"];
/// Versions of the interface of namespaces.
const NAMESPACE_VERSIONS: [&str; 2] = ["2023-11-01", "2024-06-01"];
const SINGLE: &str = "application/cloudevents+json";
const BATCH: &str = "application/cloudevents-batch+json";

/// Where a request knocks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Door {
    /// `/api/events`.
    Events,
    /// `/topics/NAME:publish`.
    Namespace(String),
}

/// An event that is to be accepted.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Event {
    /// The topic: of the namespace, or of the domain; none on a custom topic.
    pub(super) topic: Option<String>,
    pub(super) source: String,
    pub(super) id: String,
    pub(super) event: Value,
    /// Its size as it came.
    pub(super) bytes: usize,
}

impl Door {
    /// What a path leads to.
    pub(super) fn find(uri: &Uri, topics: &[String]) -> Result<Self, Refusal> {
        let path = uri.path();
        if path.eq_ignore_ascii_case("/api/events") {
            return Ok(Self::Events);
        }
        let topic = path.strip_prefix("/topics/").and_then(|rest| rest.strip_suffix(":publish"));
        let not_found =
            || Refusal::new(StatusCode::NOT_FOUND, "NotFound", "The requested resource was not found.");
        let topic = topic.filter(|topic| !topic.is_empty() && !topic.contains('/')).ok_or_else(not_found)?;
        if topics.is_empty() {
            return Err(not_found());
        }
        match topics.iter().find(|known| known.eq_ignore_ascii_case(topic)) {
            Some(known) => Ok(Self::Namespace(known.clone())),
            None => Err(Refusal::new(
                StatusCode::GONE,
                "TopicNotFound",
                format!("Topic '{topic}' was not found."),
            )),
        }
    }

    /// Whether the version of the interface is one that is known.
    pub(super) fn check_version(&self, uri: &Uri) -> Result<(), Refusal> {
        let fields = uri.query().unwrap_or_default().split('&').filter_map(|field| field.split_once('='));
        let mut versions = fields.filter(|(name, _)| *name == "api-version").map(|(_, version)| version);
        let known: &[&str] = if *self == Self::Events { &VERSIONS } else { &NAMESPACE_VERSIONS };
        match (versions.next(), versions.next()) {
            (Some(version), None) if known.contains(&version) => Ok(()),
            (Some(version), None) => {
                let message =
                    format!("The api-version '{version}' is not supported; supported: {}.", known.join(", "));
                Err(Refusal::new(StatusCode::BAD_REQUEST, "InvalidApiVersion", message))
            }
            _ => Err(Refusal::new(
                StatusCode::BAD_REQUEST,
                "MissingApiVersion",
                "The api-version query parameter is required.",
            )),
        }
    }

    fn events_max(&self) -> usize {
        if *self == Self::Events { EVENTS_MAX } else { NAMESPACE_EVENTS_MAX }
    }

    /// What a request gets that is too large: another status in a namespace.
    pub(super) fn too_large(&self, what: &str) -> Refusal {
        let (status, detail) = match self {
            Self::Events => (StatusCode::PAYLOAD_TOO_LARGE, "RequestEntityTooLarge"),
            Self::Namespace(_) => (StatusCode::FORBIDDEN, "RequestTooLarge"),
        };
        Refusal::new(status, detail, format!("The maximum size has been exceeded: {what}."))
    }

    /// Reads the events of a request.
    pub(super) fn read(&self, kind: Kind, headers: &HeaderMap, body: &[u8]) -> Result<Vec<Event>, Refusal> {
        if body.len() > BYTES_MAX {
            return Err(self.too_large(&format!("{} bytes, {BYTES_MAX} are possible", body.len())));
        }
        let events = match content_type(headers).as_deref() {
            Some(BATCH) => batch(body)?,
            Some(SINGLE) => vec![(single(body)?, body.len())],
            Some(_) if matches!(self, Self::Namespace(_)) && headers.contains_key("ce-specversion") => {
                vec![(binary(headers, body)?, body.len())]
            }
            other => return Err(self.content_type_refused(other)),
        };
        if events.len() > self.events_max() {
            return Err(self.too_large(&format!(
                "{} events, {} are possible",
                events.len(),
                self.events_max()
            )));
        }
        let numbered = events.into_iter().enumerate();
        numbered.map(|(index, (event, bytes))| self.accept(kind, index, event, bytes)).collect()
    }

    fn content_type_refused(&self, said: Option<&str>) -> Refusal {
        let said = said.unwrap_or("none, or another charset than utf-8");
        let message = format!(
            "This resource is configured for 'CloudEventV10' schema and requires '{SINGLE}; charset=utf-8' or \
             '{BATCH}; charset=utf-8' as content type. Received: {said}."
        );
        let status = match self {
            Self::Events => StatusCode::BAD_REQUEST,
            Self::Namespace(_) => StatusCode::UNSUPPORTED_MEDIA_TYPE,
        };
        Refusal::new(status, "InvalidContentType", message)
    }

    fn accept(&self, kind: Kind, index: usize, event: Members, bytes: usize) -> Result<Event, Refusal> {
        event::check(&event).map_err(|reason| {
            Refusal::input(format!(
                "This resource is configured for 'CloudEventV10' schema. Event [{index}]: {reason}."
            ))
        })?;
        let text = |name| event.text(name).unwrap_or_default().to_owned();
        let (source, id) = (text("source"), text("id"));
        let topic = match (self, kind) {
            (Self::Namespace(topic), _) => Some(topic.clone()),
            (Self::Events, Kind::Topic) => None,
            (Self::Events, Kind::Domain) => Some(domain_topic(&source).ok_or_else(|| {
                Refusal::input(
                    "Required property 'topic' needs to either be a full resource id or should be just the name of \
                     the domain topic.",
                )
            })?),
        };
        Ok(Event { topic, source, id, event: event.into_value(), bytes })
    }
}

/// The topic of a domain that a source names: its name, or its resource id.
fn domain_topic(source: &str) -> Option<String> {
    let name = match source.strip_prefix('/') {
        None => source,
        Some(id) => {
            let parts: Vec<&str> = id.split('/').collect();
            let [
                "subscriptions",
                _,
                "resourceGroups",
                _,
                "providers",
                "Microsoft.EventGrid",
                "domains",
                _,
                "topics",
                name,
            ] = parts[..]
            else {
                return None;
            };
            name
        }
    };
    let possible = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
    ((3..=128).contains(&name.len()) && name.bytes().all(possible)).then(|| name.to_owned())
}

/// The media type in lower case; none if there is none or it has another charset than UTF-8.
fn content_type(headers: &HeaderMap) -> Option<String> {
    let text = headers.get(header::CONTENT_TYPE)?.to_str().ok()?.to_ascii_lowercase();
    let mut parts = text.split(';').map(str::trim);
    let kind = parts.next()?.to_owned();
    let utf8 = |part: &str| matches!(part, "charset=utf-8" | "charset=\"utf-8\"");
    parts.all(utf8).then_some(kind)
}

/// A list of events, each with its size in compact JSON.
fn batch(body: &[u8]) -> Result<Vec<(Members, usize)>, Refusal> {
    let events: Vec<Members> =
        serde_json::from_slice(body).map_err(|error| malformed("StartArray", body, &error))?;
    if events.is_empty() {
        return Err(Refusal::input("The JSON received has no events."));
    }
    let sized = |event: Members| {
        let bytes = serde_json::to_vec(&event.clone().into_value()).map_or(0, |bytes| bytes.len());
        (event, bytes)
    };
    Ok(events.into_iter().map(sized).collect())
}

fn single(body: &[u8]) -> Result<Members, Refusal> {
    serde_json::from_slice(body).map_err(|error| malformed("StartObject", body, &error))
}

fn malformed(expected: &str, body: &[u8], error: &serde_json::Error) -> Refusal {
    let first = body.iter().find(|byte| !byte.is_ascii_whitespace());
    let actual = match first {
        Some(b'{') => "StartObject",
        Some(b'[') => "StartArray",
        _ => "None",
    };
    if actual == expected {
        return Refusal::input(format!("Unexpected token when reading JSON: {error}."));
    }
    Refusal::input(format!(
        "This resource is configured to receive event in 'CloudEventV10' schema. The JSON received does not conform \
         to the expected schema. Token Expected: {expected}, Actual Token Received: {actual}."
    ))
}

/// An event whose attributes are headers.
fn binary(headers: &HeaderMap, body: &[u8]) -> Result<Members, Refusal> {
    let mut members = Vec::new();
    for (name, value) in headers {
        let Some(name) = name.as_str().strip_prefix("ce-") else { continue };
        let text = value.to_str().ok().and_then(crate::servicebus::unescape);
        let text = text.ok_or_else(|| Refusal::input(format!("The header ce-{name} cannot be read.")))?;
        members.push((name.to_owned(), Value::String(text)));
    }
    let kind = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    members.push(("datacontenttype".to_owned(), json!(kind)));
    if !body.is_empty() {
        let data = serde_json::from_slice(body).map_err(|error| {
            Refusal::input(format!("Data that is not JSON is not taken in headers here: {error}."))
        })?;
        members.push(("data".to_owned(), data));
    }
    Ok(Members(members))
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    fn headers(kind: &'static str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
        headers
    }

    fn event(id: usize) -> Value {
        json!({"specversion": "1.0", "id": id.to_string(), "source": "gw01", "type": "t", "data": {}})
    }

    fn namespace() -> Door {
        Door::Namespace("alerts".to_owned())
    }

    fn check(door: &Door, kind: &'static str, body: &Value, expected: Result<usize, (u16, &str)>) {
        let read = door.read(Kind::Topic, &headers(kind), body.to_string().as_bytes());
        let said =
            read.map(|events| events.len()).map_err(|refusal| (refusal.status.as_u16(), refusal.message));
        match (&said, expected) {
            (Ok(said), Ok(expected)) if *said == expected => {}
            (Err((status, said)), Err((expected, part))) if *status == expected && said.contains(part) => {}
            _ => panic!("{kind}: {said:?}, not {expected:?}"),
        }
    }

    #[test]
    fn the_content_type_says_whether_it_is_one_or_many() {
        let many = json!([event(1), event(2)]);
        for door in [Door::Events, namespace()] {
            check(&door, "application/cloudevents-batch+json; charset=utf-8", &many, Ok(2));
            check(&door, "application/cloudevents-batch+json", &many, Ok(2));
            check(&door, "application/cloudevents+json; charset=utf-8", &event(1), Ok(1));
            check(&door, "application/cloudevents+json", &many, Err((400, "Token Expected: StartObject")));
            check(
                &door,
                "application/cloudevents-batch+json",
                &event(1),
                Err((400, "Token Received: StartObject")),
            );
            check(&door, "application/cloudevents-batch+json", &json!([]), Err((400, "no events")));
            check(&door, "application/cloudevents-batch+json", &json!([1]), Err((400, "Unexpected token")));
        }
        let latin = "application/cloudevents+json; charset=latin1";
        check(&Door::Events, latin, &event(1), Err((400, "CloudEventV10")));
        check(&Door::Events, "application/json", &many, Err((400, "application/json")));
        check(&namespace(), "application/json", &many, Err((415, "application/json")));
    }

    #[test]
    fn sizes_and_counts_have_bounds() {
        let many = |count| Value::Array((0..count).map(event).collect());
        let kind = "application/cloudevents-batch+json";
        check(&Door::Events, kind, &many(5_000), Ok(5_000));
        check(&Door::Events, kind, &many(5_001), Err((413, "5001 events")));
        check(&namespace(), kind, &many(1_000), Ok(1_000));
        check(&namespace(), kind, &many(1_001), Err((403, "1001 events")));
        let sized = |bytes: usize| {
            let mut large = event(1);
            large["data"] = json!("");
            let rest = large.to_string().len();
            large["data"] = json!("x".repeat(bytes - rest));
            large
        };
        check(&Door::Events, "application/cloudevents+json", &sized(BYTES_MAX), Ok(1));
        check(
            &Door::Events,
            "application/cloudevents+json",
            &sized(BYTES_MAX + 1),
            Err((413, "1048577 bytes")),
        );
        check(
            &namespace(),
            "application/cloudevents+json",
            &sized(BYTES_MAX + 1),
            Err((403, "1048577 bytes")),
        );
    }

    #[test]
    fn one_bad_event_refuses_all_and_is_numbered() {
        let mut bad = event(2);
        bad["id"] = json!("");
        let body = json!([event(1), bad]);
        check(
            &Door::Events,
            "application/cloudevents-batch+json",
            &body,
            Err((400, "Event [1]: property 'id' is empty")),
        );
    }

    #[test]
    fn a_source_names_the_topic_of_a_domain() {
        let id = "/subscriptions/1/resourceGroups/g/providers/Microsoft.EventGrid/domains/d/topics/acme";
        for (source, expected) in [
            ("acme", Some("acme")),
            (id, Some("acme")),
            ("https://acme.example/gw", None),
            ("urn:acme", None),
            ("/gateways/gw01", None),
            ("ab", None),
        ] {
            assert_eq!(domain_topic(source).as_deref(), expected, "{source}");
        }
        let mut absolute = event(1);
        absolute["source"] = json!("urn:gw");
        let body = absolute.to_string();
        let read = |kind| Door::Events.read(kind, &headers("application/cloudevents+json"), body.as_bytes());
        assert_eq!(read(Kind::Topic).unwrap()[0].topic, None);
        let refused = read(Kind::Domain).unwrap_err();
        assert!(refused.status == 400 && refused.message.contains("full resource id"), "{refused:?}");
    }

    #[test]
    fn a_namespace_takes_an_event_in_headers() {
        let mut all = headers("application/json");
        for (name, value) in
            [("ce-specversion", "1.0"), ("ce-id", "7"), ("ce-source", "/gw%2001"), ("ce-type", "t")]
        {
            all.insert(name, HeaderValue::from_static(value));
        }
        let refused = namespace().read(Kind::Topic, &all, b"{}").unwrap_err();
        assert!(refused.message.contains("URI reference"), "{refused:?}");
        all.insert("ce-source", HeaderValue::from_static("/gw01"));
        let read = namespace().read(Kind::Topic, &all, br#"{"a":1}"#).unwrap();
        assert_eq!((read[0].id.as_str(), &read[0].event["data"]), ("7", &json!({"a": 1})));
        assert_eq!(Door::Events.read(Kind::Topic, &all, b"{}").unwrap_err().status, 400);
    }

    #[test]
    fn paths_and_versions_are_those_of_the_service() {
        let topics = ["alerts".to_owned()];
        let find = |path: &str| {
            Door::find(&path.parse().unwrap(), &topics).map_err(|refusal| refusal.status.as_u16())
        };
        assert_eq!(find("/api/events"), Ok(Door::Events));
        assert_eq!(find("/topics/alerts:publish"), Ok(namespace()));
        assert_eq!(find("/topics/other:publish"), Err(410));
        assert_eq!(find("/topics/alerts"), Err(404));
        assert_eq!(find("/api/event"), Err(404));
        let version = |door: &Door, query: &str| {
            let uri: Uri = format!("/x{query}").parse().unwrap();
            door.check_version(&uri).map_err(|refusal| refusal.detail)
        };
        assert_eq!(version(&Door::Events, "?api-version=2018-01-01"), Ok(()));
        assert_eq!(version(&Door::Events, "?api-version=2024-06-01"), Err("InvalidApiVersion"));
        assert_eq!(version(&Door::Events, ""), Err("MissingApiVersion"));
        assert_eq!(version(&namespace(), "?api-version=2023-11-01"), Ok(()));
        assert_eq!(version(&namespace(), "?api-version=2024-06-01"), Ok(()));
        assert_eq!(version(&namespace(), "?api-version=2018-01-01"), Err("InvalidApiVersion"));
    }
}

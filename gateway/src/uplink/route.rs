//! Which topic an entry goes to.
//!
//! Routes are tried in the order of the file; the first one whose fields all match decides, and the
//! default topic takes the rest. The tracker's memory is about one mapping of entries to topics, so the
//! whole table has a fingerprint: with another one nothing is skipped on replay.

use penstock_proto::Lane;

use super::tracker::{TOPIC_LENGTH_MAX, TOPICS_MAX, TopicId};

/// Most `[[uplink.route]]` tables; the default topic is one more.
pub(crate) const ROUTES_MAX: usize = TOPICS_MAX - 1;

/// One `[[uplink.route]]`: every field that is given must match.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Route {
    /// The lane.
    pub lane: Option<Lane>,
    /// What the topic template captured as `{stream}`.
    pub stream: Option<String>,
    /// The device's class.
    pub class: Option<String>,
    /// The tenant.
    pub tenant: Option<String>,
    /// Where matching entries go.
    pub topic: String,
}

/// What routes look at in an entry.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Traits<'a> {
    pub(crate) lane: Lane,
    pub(crate) stream: Option<&'a str>,
    pub(crate) class: Option<&'a str>,
    pub(crate) tenant: Option<&'a str>,
}

/// The table of routes with its topics numbered.
#[derive(Debug, Clone)]
pub(crate) struct Routes {
    routes: Vec<(Route, TopicId)>,
    /// Each topic once; the default topic is the first.
    topics: Vec<String>,
    fingerprint: u64,
}

impl Routes {
    /// Routes beyond [`ROUTES_MAX`] are refused by the configuration.
    pub(crate) fn new(default: &str, routes: &[Route]) -> Self {
        let mut topics = vec![default.to_owned()];
        let mut numbered = Vec::with_capacity(routes.len());
        for route in routes.iter().take(ROUTES_MAX) {
            let place = topics.iter().position(|topic| *topic == route.topic).unwrap_or_else(|| {
                topics.push(route.topic.clone());
                topics.len() - 1
            });
            let topic = TopicId(u16::try_from(place).unwrap_or(0));
            numbered.push((route.clone(), topic));
        }
        let fingerprint = fingerprint(default, &numbered);
        Self { routes: numbered, topics, fingerprint }
    }

    /// The topic of an entry.
    pub(crate) fn topic(&self, traits: Traits<'_>) -> TopicId {
        let matching = self.routes.iter().find(|(route, _)| route.matches(traits));
        matching.map_or(TopicId(0), |(_, topic)| *topic)
    }

    /// Every topic, in the order of their numbers.
    pub(crate) fn topics(&self) -> &[String] {
        &self.topics
    }

    /// The routes with the numbers of their topics, in the order of the file.
    pub(super) fn routes(&self) -> &[(Route, TopicId)] {
        &self.routes
    }

    pub(crate) fn name(&self, topic: TopicId) -> &str {
        self.topics.get(usize::from(topic.0)).map_or("", String::as_str)
    }

    /// A number that differs when the mapping of entries to topics may differ.
    pub(crate) const fn fingerprint(&self) -> u64 {
        self.fingerprint
    }
}

impl Route {
    fn matches(&self, traits: Traits<'_>) -> bool {
        let same = |wanted: &Option<String>, given: Option<&str>| {
            wanted.as_deref().is_none_or(|wanted| given == Some(wanted))
        };
        self.lane.is_none_or(|lane| lane == traits.lane)
            && same(&self.stream, traits.stream)
            && same(&self.class, traits.class)
            && same(&self.tenant, traits.tenant)
    }
}

/// Whether Kafka takes this as the name of a topic.
pub(crate) fn is_topic_name(name: &str) -> bool {
    let plain = name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'));
    plain && (1..=TOPIC_LENGTH_MAX).contains(&name.len()) && name != "." && name != ".."
}

/// FNV-1a over every field in order, each with its length, so that no two tables read the same.
fn fingerprint(default: &str, routes: &[(Route, TopicId)]) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    let mut feed = |field: Option<&str>| {
        let text = field.unwrap_or_default();
        let length = u64::try_from(text.len()).unwrap_or(u64::MAX);
        let head = [u8::from(field.is_some())];
        for byte in head.iter().chain(&length.to_le_bytes()).chain(text.as_bytes()) {
            hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    };
    feed(Some(default));
    for (Route { lane, stream, class, tenant, topic }, _) in routes {
        feed(lane.map(Lane::name));
        feed(stream.as_deref());
        feed(class.as_deref());
        feed(tenant.as_deref());
        feed(Some(topic));
    }
    hash
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route(topic: &str) -> Route {
        Route { topic: topic.to_owned(), ..Route::default() }
    }

    fn table() -> Routes {
        let routes = [
            Route { lane: Some(Lane::Alerts), ..route("alerts") },
            Route { stream: Some("vibration".into()), class: Some("pump".into()), ..route("pumps") },
            Route { tenant: Some("acme".into()), ..route("acme") },
            Route { tenant: Some("acme".into()), class: Some("fan".into()), ..route("never") },
        ];
        Routes::new("telemetry", &routes)
    }

    fn check(lane: Lane, stream: &str, class: &str, tenant: &str, expected: &str) {
        let given = |text: &'static str| Some(text).filter(|text| !text.is_empty());
        let leak = |text: &str| given(String::leak(text.to_owned()));
        let traits = Traits { lane, stream: leak(stream), class: leak(class), tenant: leak(tenant) };
        let table = table();
        assert_eq!(table.name(table.topic(traits)), expected, "{traits:?}");
    }

    #[test]
    fn the_first_route_whose_fields_all_match_decides() {
        check(Lane::Alerts, "vibration", "pump", "acme", "alerts");
        check(Lane::Telemetry, "vibration", "pump", "acme", "pumps");
        check(Lane::Telemetry, "vibration", "fan", "acme", "acme");
        check(Lane::Telemetry, "", "pump", "", "telemetry");
        check(Lane::Bulk, "", "", "", "telemetry");
    }

    #[test]
    fn topics_are_numbered_once_and_the_default_is_the_first() {
        let twice = Routes::new("a", &[route("b"), route("a"), route("b")]);
        assert_eq!(twice.topics(), ["a", "b"]);
    }

    #[test]
    fn any_change_changes_the_fingerprint() {
        let tables = [
            Routes::new("a", &[]),
            Routes::new("b", &[]),
            Routes::new("a", &[route("b")]),
            Routes::new("a", &[Route { class: Some("x".into()), ..route("b") }]),
            Routes::new("a", &[Route { tenant: Some("x".into()), ..route("b") }]),
            Routes::new("a", &[route("b"), route("c")]),
            Routes::new("a", &[route("c"), route("b")]),
        ];
        for (place, table) in tables.iter().enumerate() {
            for other in &tables[place + 1..] {
                assert_ne!(table.fingerprint(), other.fingerprint(), "{table:?} {other:?}");
            }
        }
        assert_eq!(table().fingerprint(), table().fingerprint());
    }

    #[test]
    fn topic_names_follow_kafka() {
        assert!(is_topic_name("telemetry-1.a_B"));
        for bad in ["", ".", "..", "a b", "a/b", "ä"] {
            assert!(!is_topic_name(bad), "{bad:?}");
        }
        assert!(is_topic_name(&"a".repeat(249)) && !is_topic_name(&"a".repeat(250)));
    }
}

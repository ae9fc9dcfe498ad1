//! Where events are published to, and how it is reached.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use reqwest::{Certificate, Url};

use super::Kind;

/// Where events are published to.
#[derive(Debug, Clone)]
pub(in crate::alerts::event_grid) struct Endpoint {
    /// With the path and the version of the interface.
    pub(in crate::alerts::event_grid) url: Url,
    pub(in crate::alerts::event_grid) kind: Kind,
    /// Until the answer is there.
    pub(in crate::alerts::event_grid) timeout: Duration,
    /// Certificates to trust instead of the system's.
    pub(in crate::alerts::event_grid) ca_file: Option<PathBuf>,
    pub(in crate::alerts::event_grid) proxy: Option<Proxy>,
}

/// An HTTP proxy. `Debug` shows neither name nor password.
#[derive(Clone, PartialEq, Eq)]
pub(in crate::alerts::event_grid) struct Proxy {
    /// `http://HOST:PORT`.
    pub(in crate::alerts::event_grid) address: String,
    /// Name and password.
    pub(in crate::alerts::event_grid) credentials: Option<(String, String)>,
}

const VERSION: &str = "2018-01-01";
const NAMESPACE_VERSION: &str = "2023-11-01";
const EVENTS_PATH: &str = "/api/events";

// === impl Endpoint ===

impl Endpoint {
    /// The address that a configured one stands for, or what is expected instead.
    pub(in crate::alerts::event_grid) fn url_of(
        text: &str,
        kind: Kind,
        topic: Option<&str>,
    ) -> Result<Url, &'static str> {
        const EXPECTED: &str = "https://HOST, with or without /api/events, or http:// with a loopback host";
        const EXPECTED_NAMESPACE: &str = "https://HOST, or http:// with a loopback host";
        let namespace = kind == Kind::Namespace;
        let expected = if namespace { EXPECTED_NAMESPACE } else { EXPECTED };
        let mut url = Url::parse(text).map_err(|_| expected)?;
        let secure = url.scheme() == "https" || (url.scheme() == "http" && is_loopback(&url));
        let path = url.path().trim_end_matches('/');
        let known = path.is_empty() || (!namespace && path == EVENTS_PATH);
        let bare = url.query().is_none() && url.fragment().is_none();
        let nobody = url.username().is_empty() && url.password().is_none();
        if !(secure && known && bare && nobody && url.has_host()) {
            return Err(expected);
        }
        let (path, version) = match topic {
            Some(topic) => (format!("/topics/{topic}:publish"), NAMESPACE_VERSION),
            None => (EVENTS_PATH.to_owned(), VERSION),
        };
        url.set_path(&path);
        url.set_query(Some(&format!("api-version={version}")));
        Ok(url)
    }

    /// What signatures are made for.
    pub(in crate::alerts::event_grid) fn resource(&self) -> String {
        let mut url = self.url.clone();
        url.set_query(None);
        let version = if self.kind == Kind::Namespace { NAMESPACE_VERSION } else { VERSION };
        format!("{url}?apiVersion={version}")
    }

    /// Whether it is on this machine, where no proxy leads to.
    pub(in crate::alerts::event_grid) fn is_loopback(&self) -> bool {
        is_loopback(&self.url)
    }

    /// For logs and letters.
    pub(in crate::alerts::event_grid) fn host(&self) -> &str {
        self.url.host_str().unwrap_or_default()
    }

    /// What is wrong with a file of certificates.
    pub(super) fn check_authorities(file: &Path) -> Result<(), String> {
        Self::authorities(file).map(drop)
    }

    /// The certificates of a file, or what is wrong with it.
    pub(in crate::alerts::event_grid) fn authorities(file: &Path) -> Result<Vec<Certificate>, String> {
        let pem = fs::read(file).map_err(|error| format!("it cannot be read: {error}"))?;
        let found = Certificate::from_pem_bundle(&pem).unwrap_or_default();
        if found.is_empty() { Err("it holds no PEM certificate".to_owned()) } else { Ok(found) }
    }
}

fn is_loopback(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default();
    host == "localhost" || host.starts_with("127.") || host == "[::1]"
}

// === impl Proxy ===

impl Proxy {
    /// One given as `http://HOST:PORT`; `None` if the text is anything else.
    pub(super) fn parse(text: &str, credentials: Option<(String, String)>) -> Option<Self> {
        let place = text.strip_prefix("http://")?.trim_end_matches('/');
        let (host, port) = place.rsplit_once(':')?;
        let plain = host.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-'));
        let port = port.parse::<u16>().ok().filter(|port| *port != 0)?;
        (plain && !host.is_empty()).then(|| Self { address: format!("http://{host}:{port}"), credentials })
    }
}

impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Proxy").field("address", &self.address).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, kind: Kind, expected: Option<&str>) {
        let topic = (kind == Kind::Namespace).then_some("alerts");
        let url = Endpoint::url_of(text, kind, topic).map(String::from);
        assert_eq!(url.as_deref().ok(), expected, "{text}");
    }

    #[test]
    fn an_address_gets_path_and_version() {
        let events = "https://t.westeurope-1.eventgrid.azure.net/api/events?api-version=2018-01-01";
        for text in ["", "/", "/api/events", "/api/events/"] {
            check(&format!("https://t.westeurope-1.eventgrid.azure.net{text}"), Kind::Topic, Some(events));
            check(&format!("https://t.westeurope-1.eventgrid.azure.net{text}"), Kind::Domain, Some(events));
        }
        check(
            "https://ns.westeurope-1.eventgrid.azure.net",
            Kind::Namespace,
            Some("https://ns.westeurope-1.eventgrid.azure.net/topics/alerts:publish?api-version=2023-11-01"),
        );
        let local = "http://127.0.0.1:8080/api/events?api-version=2018-01-01";
        check("http://127.0.0.1:8080", Kind::Topic, Some(local));
    }

    #[test]
    fn other_addresses_are_refused() {
        for text in [
            "t.eventgrid.azure.net",
            "http://t.eventgrid.azure.net",
            "ftp://t.eventgrid.azure.net",
            "https://t.eventgrid.azure.net/api/event",
            "https://t.eventgrid.azure.net/?aeg-sas-key=a2V5",
            "https://t.eventgrid.azure.net/#x",
            "https://key@t.eventgrid.azure.net",
            "https://",
        ] {
            check(text, Kind::Topic, None);
        }
        check("https://ns.eventgrid.azure.net/api/events", Kind::Namespace, None);
    }

    #[test]
    fn signatures_are_for_the_address_and_its_version() {
        let endpoint = |text: &str, kind, topic| Endpoint {
            url: Endpoint::url_of(text, kind, topic).unwrap(),
            kind,
            timeout: Duration::from_secs(1),
            ca_file: None,
            proxy: None,
        };
        assert_eq!(
            endpoint("https://t.example", Kind::Topic, None).resource(),
            "https://t.example/api/events?apiVersion=2018-01-01"
        );
        assert_eq!(
            endpoint("https://n.example", Kind::Namespace, Some("a-b")).resource(),
            "https://n.example/topics/a-b:publish?apiVersion=2023-11-01"
        );
    }

    #[test]
    fn a_proxy_is_a_place_and_shows_no_password() {
        let proxy = Proxy::parse("http://proxy.site:3128/", Some(("me".into(), "s3cret".into()))).unwrap();
        assert_eq!(proxy.address, "http://proxy.site:3128");
        assert!(!format!("{proxy:?}").contains("s3cret"));
        for text in ["proxy:3128", "https://proxy:3128", "http://proxy", "http://a@proxy:1", "http://:1"] {
            assert_eq!(Proxy::parse(text, None), None, "{text}");
        }
    }
}

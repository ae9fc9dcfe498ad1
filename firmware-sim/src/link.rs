//! A connection: the only file that names rumqttc.
//!
//! What is known about rumqttc 0.25 and how it is dealt with:
//! - It has no completion per publish: the client reports each publish it wrote with its packet id,
//!   in the order of our requests, and each answer with its packet id.
//! - After a lost session its own list of pending messages can block for ever (its issues 1014 and
//!   1056). A link is therefore used for one session only and dropped at the first error.
//! - Packet ids run from 1 to the configured in-flight count; it is set to twice our window, and the
//!   window counts from the oldest, so that they never collide.
//! - Answers that were read together with the end of a connection stay in its state: [`Events::rest`].
//! - A poll must not be cancelled, since a request may be half written; [`crate::runner`] keeps it pinned.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rumqttc::tokio_rustls::rustls::crypto::{CryptoProvider, ring};
use rumqttc::tokio_rustls::rustls::pki_types::CertificateDer;
use rumqttc::tokio_rustls::rustls::pki_types::pem::PemObject;
use rumqttc::tokio_rustls::rustls::{ClientConfig, RootCertStore};
use rumqttc::v5::mqttbytes::v5::{PubAckReason, PubRecReason};
use rumqttc::{NetworkOptions, TlsConfiguration, Transport, mqttbytes, v5};
use testkit::ledger::Qos;

use crate::device::Publish;
use crate::execute::Incoming;

/// Longest time for a TCP connect, a TLS handshake and CONNACK together, in seconds.
const CONNECT_SECONDS: u64 = 20;
/// Room for topic and properties beside the payload, in bytes.
const PACKET_OVERHEAD: usize = 1024;

/// Where and how devices connect.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    /// Host and port of each gateway that devices may connect to; at least one.
    pub(crate) places: Vec<(String, u16)>,
    tls: Option<Arc<ClientConfig>>,
    username_prefix: Option<String>,
    password: String,
    pub(crate) keep_alive: Duration,
    window: u16,
    pub(crate) packet_bytes_max: usize,
}

/// What the fleet and its profile say about every connection.
#[derive(Debug, Clone, Default)]
pub(crate) struct Access {
    pub(crate) username_prefix: Option<String>,
    pub(crate) password: String,
    pub(crate) keep_alive: Duration,
    pub(crate) window: u16,
    pub(crate) payload_bytes: usize,
}

/// Why a target cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TargetError {
    #[error("target {0:?} is not mqtt://HOST:PORT or mqtts://HOST:PORT, more after commas")]
    Address(String),
    #[error("{path}: {source}")]
    Ca { path: String, source: io::Error },
}

/// What happened on a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Signal {
    /// CONNACK; how many publishes an MQTT 5 gateway allows at once.
    Connected { receive_max: Option<u16> },
    /// The next requested publish was written, under this packet id.
    Sent(u16),
    /// PUBACK.
    Acked { pkid: u16, accepted: bool },
    /// PUBREC.
    Received { pkid: u16, accepted: bool },
    /// PUBCOMP.
    Completed(u16),
    /// SUBACK.
    Subscribed { accepted: bool },
    /// PUBLISH.
    Command(Box<Incoming>),
    /// Our DISCONNECT was written.
    Disconnected,
    /// Nothing a device cares about.
    Other,
}

/// The side of a connection that takes requests.
#[derive(Debug)]
pub(crate) enum Client {
    V4(rumqttc::AsyncClient),
    V5(v5::AsyncClient),
}

/// The side of a connection that does the work.
pub(crate) enum Events {
    V4(Box<rumqttc::EventLoop>),
    V5(Box<v5::EventLoop>),
}

// === impl Target ===

impl Target {
    /// Parses an address, or several, and loads what TLS needs.
    pub(crate) fn new(address: &str, ca_file: Option<&Path>, access: Access) -> Result<Self, TargetError> {
        let wrong = || TargetError::Address(address.to_owned());
        let parsed: Option<Vec<(String, u16, bool)>> = address.split(',').map(parse).collect();
        let parsed = parsed.ok_or_else(wrong)?;
        let tls = parsed.iter().any(|(_, _, tls)| *tls);
        if !parsed.iter().all(|(_, _, other)| *other == tls) {
            return Err(wrong());
        }
        let places = parsed.into_iter().map(|(host, port, _)| (host, port)).collect();
        let tls = if tls { Some(Arc::new(tls_config(ca_file)?)) } else { None };
        let Access { username_prefix, password, keep_alive, window, payload_bytes } = access;
        let packet_bytes_max = payload_bytes + PACKET_OVERHEAD;
        Ok(Self { places, tls, username_prefix, password, keep_alive, window, packet_bytes_max })
    }

    /// Whether it is reached by TLS.
    pub(crate) const fn is_secured(&self) -> bool {
        self.tls.is_some()
    }

    /// As whom a device logs in, and its password, if it does.
    pub(crate) fn login(&self, id: &str) -> Option<(String, &str)> {
        let prefix = self.username_prefix.as_ref()?;
        Some((format!("{prefix}{id}"), self.password.as_str()))
    }

    /// A new session for a device with the first place. Nothing is sent before the first [`Events::next`].
    pub(crate) fn open(&self, id: &str, version_5: bool) -> (Client, Events) {
        let (host, port) = self.places.first().map_or(("", 0), |(host, port)| (host.as_str(), *port));
        let mut network = NetworkOptions::new();
        network.set_tcp_nodelay(true);
        network.set_connection_timeout(CONNECT_SECONDS);
        let transport = match &self.tls {
            Some(config) => Transport::Tls(TlsConfiguration::Rustls(Arc::clone(config))),
            None => Transport::Tcp,
        };
        let username = self.username_prefix.as_ref().map(|prefix| format!("{prefix}{id}"));
        let inflight = self.window.saturating_mul(2);
        let requests = usize::from(self.window) + 2;
        if version_5 {
            let mut options = v5::MqttOptions::new(id, host, port);
            options.set_transport(transport).set_keep_alive(self.keep_alive).set_clean_start(true);
            options.set_outgoing_inflight_upper_limit(inflight);
            options.set_connection_timeout(CONNECT_SECONDS).set_network_options(network);
            if let Some(username) = username {
                options.set_credentials(username, self.password.as_str());
            }
            let (client, events) = v5::AsyncClient::new(options, requests);
            return (Client::V5(client), Events::V5(Box::new(events)));
        }
        let mut options = rumqttc::MqttOptions::new(id, host, port);
        options.set_transport(transport).set_keep_alive(self.keep_alive).set_clean_session(true);
        options.set_inflight(inflight).set_max_packet_size(self.packet_bytes_max, self.packet_bytes_max);
        if let Some(username) = username {
            options.set_credentials(username, self.password.as_str());
        }
        let (client, mut events) = rumqttc::AsyncClient::new(options, requests);
        events.set_network_options(network);
        (Client::V4(client), Events::V4(Box::new(events)))
    }
}

fn parse(address: &str) -> Option<(String, u16, bool)> {
    let (scheme, rest) = address.split_once("://")?;
    let tls = match scheme {
        "mqtt" => false,
        "mqtts" => true,
        _ => return None,
    };
    let (host, port) = rest.trim_end_matches('/').rsplit_once(':')?;
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let port = port.parse().ok().filter(|&port| port > 0)?;
    (!host.is_empty() && !host.contains('/')).then(|| (host.to_owned(), port, tls))
}

fn tls_config(ca_file: Option<&Path>) -> Result<ClientConfig, TargetError> {
    // It may be installed already; either way ring is the provider.
    drop(CryptoProvider::install_default(ring::default_provider()));
    let Some(path) = ca_file else {
        return match TlsConfiguration::default() {
            TlsConfiguration::Rustls(config) => Ok(Arc::unwrap_or_clone(config)),
            TlsConfiguration::Simple { .. } => Err(no_authority("the system".to_owned(), "no certificates")),
        };
    };
    let failed = |source| TargetError::Ca { path: path.display().to_string(), source };
    let mut roots = RootCertStore::empty();
    let certificates =
        CertificateDer::pem_file_iter(path).map_err(|error| failed(io::Error::other(error)))?;
    for certificate in certificates {
        let certificate = certificate.map_err(|error| failed(io::Error::other(error)))?;
        roots.add(certificate).map_err(|error| failed(io::Error::other(error)))?;
    }
    if roots.is_empty() {
        return Err(no_authority(path.display().to_string(), "it holds no certificate"));
    }
    Ok(ClientConfig::builder().with_root_certificates(roots).with_no_client_auth())
}

fn no_authority(path: String, why: &str) -> TargetError {
    TargetError::Ca { path, source: io::Error::new(io::ErrorKind::InvalidData, why) }
}

// === impl Client ===

impl Client {
    /// Asks for a publish; false when the connection is gone.
    pub(crate) fn publish(&self, topic: &str, publish: Publish) -> bool {
        match self {
            Self::V4(client) => {
                let qos = match publish.qos {
                    Qos::AtMostOnce => mqttbytes::QoS::AtMostOnce,
                    Qos::AtLeastOnce => mqttbytes::QoS::AtLeastOnce,
                    Qos::ExactlyOnce => mqttbytes::QoS::ExactlyOnce,
                };
                client.try_publish(topic, qos, false, publish.payload).is_ok()
            }
            Self::V5(client) => {
                let qos = match publish.qos {
                    Qos::AtMostOnce => v5::mqttbytes::QoS::AtMostOnce,
                    Qos::AtLeastOnce => v5::mqttbytes::QoS::AtLeastOnce,
                    Qos::ExactlyOnce => v5::mqttbytes::QoS::ExactlyOnce,
                };
                client.try_publish(topic, qos, false, publish.payload).is_ok()
            }
        }
    }

    /// Asks for a polite end; false when the connection is gone.
    pub(crate) fn disconnect(&self) -> bool {
        match self {
            Self::V4(client) => client.try_disconnect().is_ok(),
            Self::V5(client) => client.try_disconnect().is_ok(),
        }
    }
}

// === impl Events ===

impl std::fmt::Debug for Events {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Events")
    }
}

impl Events {
    /// Works on the connection until something happens. The first call connects.
    ///
    /// # Cancel safety
    /// None: a request may be half written. Keep the future until it is ready or drop the link.
    ///
    /// # Errors
    /// The connection is over, with the reason as text.
    pub(crate) async fn next(&mut self) -> Result<Signal, String> {
        match self {
            Self::V4(events) => events.poll().await.map(signal_v4).map_err(|error| error.to_string()),
            Self::V5(events) => events.poll().await.map(signal_v5).map_err(|error| error.to_string()),
        }
    }

    /// After an error: what had happened before it and was not reported yet.
    pub(crate) fn rest(&mut self) -> Vec<Signal> {
        match self {
            Self::V4(events) => events.state.events.drain(..).map(signal_v4).collect(),
            Self::V5(events) => events.state.events.drain(..).map(signal_v5).collect(),
        }
    }
}

fn signal_v4(event: rumqttc::Event) -> Signal {
    use rumqttc::{Event, Outgoing, Packet};
    match event {
        Event::Incoming(Packet::ConnAck(_)) => Signal::Connected { receive_max: None },
        Event::Incoming(Packet::PubAck(ack)) => Signal::Acked { pkid: ack.pkid, accepted: true },
        Event::Incoming(Packet::PubRec(rec)) => Signal::Received { pkid: rec.pkid, accepted: true },
        Event::Incoming(Packet::PubComp(comp)) => Signal::Completed(comp.pkid),
        Event::Outgoing(Outgoing::Publish(pkid)) => Signal::Sent(pkid),
        Event::Outgoing(Outgoing::Disconnect) => Signal::Disconnected,
        Event::Incoming(_) | Event::Outgoing(_) => Signal::Other,
    }
}

fn signal_v5(event: v5::Event) -> Signal {
    use rumqttc::Outgoing;
    use v5::Event;
    use v5::mqttbytes::v5::Packet;
    match event {
        Event::Incoming(Packet::ConnAck(ack)) => {
            let receive_max = ack.properties.and_then(|properties| properties.receive_max);
            Signal::Connected { receive_max }
        }
        Event::Incoming(Packet::PubAck(ack)) => {
            let accepted = matches!(ack.reason, PubAckReason::Success | PubAckReason::NoMatchingSubscribers);
            Signal::Acked { pkid: ack.pkid, accepted }
        }
        Event::Incoming(Packet::PubRec(rec)) => {
            let accepted = matches!(rec.reason, PubRecReason::Success | PubRecReason::NoMatchingSubscribers);
            Signal::Received { pkid: rec.pkid, accepted }
        }
        Event::Incoming(Packet::PubComp(comp)) => Signal::Completed(comp.pkid),
        Event::Outgoing(Outgoing::Publish(pkid)) => Signal::Sent(pkid),
        Event::Outgoing(Outgoing::Disconnect) => Signal::Disconnected,
        Event::Incoming(_) | Event::Outgoing(_) => Signal::Other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(address: &str, expected: Option<(&str, u16, bool)>) {
        let expected = expected.map(|(host, port, tls)| (host.to_owned(), port, tls));
        assert_eq!(parse(address), expected, "{address}");
    }

    #[test]
    fn targets_name_scheme_host_and_port() {
        check("mqtt://127.0.0.1:1883", Some(("127.0.0.1", 1883, false)));
        check("mqtts://gateway.local:8883/", Some(("gateway.local", 8883, true)));
        check("mqtt://[::1]:1883", Some(("::1", 1883, false)));
        check("http://127.0.0.1:1883", None);
        check("mqtt://127.0.0.1", None);
        check("mqtt://:1883", None);
        check("mqtt://host:0", None);
        check("mqtt://host:70000", None);
    }

    #[test]
    fn several_targets_are_secured_alike() {
        let places =
            |address| Target::new(address, None, Access::default()).map(|target| target.places.len());
        assert!(matches!(places("mqtt://a:1,mqtt://b:2"), Ok(2)));
        assert!(places("mqtt://a:1,mqtts://b:2").is_err() && places("mqtt://a:1,").is_err());
    }

    #[test]
    fn a_ca_file_without_certificates_is_refused() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let error = Target::new("mqtts://localhost:8883", Some(file.path()), Access::default());
        assert!(matches!(error, Err(TargetError::Ca { .. })), "{error:?}");
    }
}

//! rumqttd as a gateway would embed it: the broker on one port of the loopback address, and a local link that
//! consumes what devices publish. It exists to be measured beside the gateway; nothing else starts it.
//!
//! ```text
//! rumqttd-peer <port> [filter]     without a filter there is no local link
//! ```

use std::collections::HashMap;
use std::env;
use std::error::Error;
use std::net::{Ipv4Addr, SocketAddr};
use std::thread;

use rumqttd::local::{LinkRx, LinkTx};
use rumqttd::{Broker, Config, ConnectionSettings, Notification, RouterConfig, ServerSettings};

/// Connections it takes: more than the benchmarks make.
const CONNECTIONS_MAX: usize = 20_010;

/// Its log in memory, per filter: four segments, so that memory stays bounded however much is published.
const SEGMENT_BYTES: usize = 16 * 1024 * 1024;
const SEGMENTS: usize = 4;

/// Packets that one subscriber is given at once, as in its sample configuration.
const OUTGOING_PACKETS: u64 = 200;

/// Largest payload: more than the benchmarks send.
const PAYLOAD_BYTES_MAX: usize = 300 * 1024;

/// Packets of one connection that wait for the router.
const INCOMING_PACKETS: usize = 200;

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = env::args().skip(1);
    let port = arguments.next().ok_or("usage: rumqttd-peer <port> [filter]")?.parse()?;
    let mut broker = Broker::new(config(SocketAddr::from((Ipv4Addr::LOCALHOST, port))));
    if let Some(filter) = arguments.next() {
        let (link, messages) = broker.link("gateway")?;
        thread::Builder::new().name("link".to_owned()).spawn(move || consume(link, messages, filter))?;
    }
    broker.start()?;
    Ok(())
}

/// Takes every message that matches, as a gateway that stores them would before it stores anything.
fn consume(mut link: LinkTx, mut messages: LinkRx, filter: String) {
    if let Err(error) = link.subscribe(filter) {
        eprintln!("the local link cannot subscribe: {error}");
        return;
    }
    let (mut count, mut bytes) = (0_u64, 0_usize);
    loop {
        match messages.recv() {
            Ok(Some(Notification::Forward(forward))) => {
                count += 1;
                bytes += std::hint::black_box(&forward.publish.payload).len();
            }
            // The router stops filling the link's buffer until it hears that there is room again.
            Ok(Some(Notification::Unschedule)) => drop(messages.ready()),
            Ok(_) => {}
            Err(error) => {
                eprintln!("the local link ended after {count} messages of {bytes} bytes: {error}");
                return;
            }
        }
    }
}

fn config(listen: SocketAddr) -> Config {
    let connections = ConnectionSettings {
        connection_timeout_ms: 60_000,
        max_payload_size: PAYLOAD_BYTES_MAX,
        max_inflight_count: INCOMING_PACKETS,
        auth: None,
        external_auth: None,
        dynamic_filters: true,
    };
    let server = ServerSettings {
        name: "devices".to_owned(),
        listen,
        tls: None,
        next_connection_delay_ms: 0,
        connections,
    };
    let router = RouterConfig {
        max_connections: CONNECTIONS_MAX,
        max_outgoing_packet_count: OUTGOING_PACKETS,
        max_segment_size: SEGMENT_BYTES,
        max_segment_count: SEGMENTS,
        ..RouterConfig::default()
    };
    Config { router, v4: Some(HashMap::from([("devices".to_owned(), server)])), ..Config::default() }
}

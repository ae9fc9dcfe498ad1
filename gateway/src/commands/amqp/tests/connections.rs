//! Connections: their ends, their bounds, their tokens.

use std::sync::atomic::Ordering;
use std::time::Duration;

use cloud_sim::OAuth;
use serde_json::json;
use tokio::time::timeout;

use super::front::Front;
use super::sim::{QUEUE, Sim, accept, receive, soon};
use crate::azure::{self, Audience, ManagedIdentity, TokenHandle, TokenSource};
use crate::commands::Handle;
use crate::commands::amqp::config::{Connection, Proxy, SignIn, Transport};
use crate::commands::amqp::{LinkError, Namespace, SessionLink, Wish};
use crate::commands::message::Disposition;
use crate::supervise::clock;

/// Accepts a session as soon as there are a connection and a token.
async fn accept_again(namespace: &Namespace, session: &str) -> Box<SessionLink> {
    soon(async {
        loop {
            match namespace.accept(QUEUE, Wish::Session(session)).await {
                Ok(link) => return link,
                // Asking before the pause is over costs nothing and lengthens nothing.
                Err(LinkError::Lost(_) | LinkError::Locked(_)) => tokio::task::yield_now().await,
                Err(error) => panic!("{error}"),
            }
        }
    })
    .await
}

#[tokio::test]
async fn a_cut_connection_ends_its_links_and_the_next_accept_opens_another() {
    let sim = Sim::start().await;
    let namespace = sim.namespace();
    sim.send("device-1", "one").await;
    let mut first = accept(&namespace, "device-1").await.unwrap();
    let mut second = accept(&namespace, "device-2").await.unwrap();
    let one = receive(&mut first).await.unwrap();
    sim.fault(json!({ "fault": "cut-connections" })).await;
    let error = soon(first.lost()).await;
    assert!(matches!(error, LinkError::Lost(_)), "{error}");
    let error = receive(&mut second).await.unwrap_err();
    assert!(matches!(error, LinkError::Lost(_)), "{error}");
    assert!(soon(first.settle(one.lock, &Disposition::Complete)).await.is_err());
    soon(first.close()).await;
    drop(second);
    let mut link = accept_again(&namespace, "device-1").await;
    let one = receive(&mut link).await.unwrap();
    assert_eq!(one.delivery_count, 0, "what a cut gives back is no failed delivery");
    let status = namespace.status();
    assert_eq!((status.connections, status.links, &status.last_error), (1, 1, &None));
    let view = namespace.view();
    assert_eq!(view.status(), Some(status));
    soon(link.close()).await;
    drop(namespace);
    assert_eq!(view.status(), None, "who looks on keeps nothing open");
}

#[tokio::test]
async fn operators_see_why_there_is_no_connection() {
    let sim = Sim::start().await;
    let namespace = sim.namespace();
    let handle = Handle::default();
    handle.connections(namespace.view());
    let link = accept(&namespace, "device-1").await.unwrap();
    let seen = handle.status().connection;
    assert_eq!((seen.open, seen.links, seen.last_error), (1, 1, None));
    sim.fault(json!({ "fault": "cut-connections" })).await;
    soon(async {
        while handle.status().connection.last_error.is_none() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert_eq!(handle.status().connection.open, 0);
    drop(link);
}

#[tokio::test]
async fn a_connection_on_which_nothing_comes_any_more_is_given_up() {
    let sim = Sim::start().await;
    let namespace =
        sim.namespace_by(&Connection { idle_timeout: Duration::from_secs(2), ..sim.connection() });
    // A machine that stands still for two seconds loses a connection that is well.
    let mut link = accept_again(&namespace, "device-1").await;
    sim.fault(json!({ "fault": "freeze-connections" })).await;
    let error = receive(&mut link).await.unwrap_err();
    assert!(matches!(error, LinkError::Lost(_)), "{error}");
    drop(link);
    drop(accept_again(&namespace, "device-2").await);
}

#[tokio::test]
async fn a_token_that_ends_early_ends_the_links_and_another_is_put() {
    let sim = Sim::start().await;
    sim.fault(json!({ "fault": "token-life-max", "ms": 2_000 })).await;
    let namespace = sim.namespace();
    for _ in 0..2 {
        let mut link = accept_again(&namespace, "device-1").await;
        let error = receive(&mut link).await.unwrap_err();
        assert!(matches!(error, LinkError::Refused(_)), "{error}");
        soon(link.close()).await;
    }
    assert_eq!(namespace.status().connections, 1, "the connection itself stays");
}

#[tokio::test]
async fn a_link_outlives_tokens_of_entra_that_are_renewed() {
    const LIFE: Duration = Duration::from_secs(6);
    const TURNS: usize = 6;
    crate::tls::install_provider();
    let oauth = OAuth { life: LIFE, ..OAuth::new() };
    let sim = Sim::start_for(60.0, Some(oauth), |bus| bus.tls = Some(([127, 0, 0, 1], 0).into())).await;
    let tokens = TokenHandle::new(Audience::namespace(OAuth::AUDIENCE));
    let connection = Connection {
        port: sim.tls.map(|address| address.port()),
        ca_file: sim.ca_file.clone(),
        ..Connection::new(SignIn::Entra { host: "localhost".into() })
    };
    let namespace = Namespace::new(&connection, Some(tokens.clone()), &sim.supervisor).unwrap();
    let error = accept(&namespace, "device-1").await.unwrap_err();
    assert!(matches!(error, LinkError::Lost(_)), "there is no token yet: {error}");

    let endpoint = format!("http://{}", sim.tokens.unwrap());
    let source = TokenSource::ManagedIdentity(ManagedIdentity { endpoint, client_id: None });
    azure::start(&source, &tokens, &sim.supervisor);
    // Without a new token no link lives that long. With one a link may end if this machine stands still when its token
    // was to be put again: then the next one shows it.
    for turn in 0..TURNS {
        let session = format!("device-{turn}");
        let mut link = accept_again(&namespace, &session).await;
        if let Ok(error) = timeout(LIFE + Duration::from_secs(1), link.lost()).await {
            println!("turn {turn}: {error}");
            continue;
        }
        sim.send(&session, "one").await;
        assert_eq!(receive(&mut link).await.unwrap().message_id.as_deref(), Some("one"));
        assert!(tokens.status().fetched > 1);
        return;
    }
    panic!("no link outlived its first token");
}

#[tokio::test]
async fn a_wrong_key_is_refused_and_says_so() {
    let sim = Sim::start().await;
    let wrong = sim.connection_string().replace("SharedAccessKey=", "SharedAccessKey=x");
    let namespace = sim.namespace_by(&sim.connection_by(&wrong));
    let error = accept(&namespace, "device-1").await.unwrap_err();
    assert!(matches!(error, LinkError::Refused(_)), "{error}");
}

#[tokio::test]
async fn nobody_at_the_address_is_told_and_tried_again_with_pauses() {
    let sim = Sim::start().await;
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let nobody = sim.connection_string().replace(&sim.service.to_string(), &free.to_string());
    let namespace = sim.namespace_by(&sim.connection_by(&nobody));
    let error = accept(&namespace, "device-1").await.unwrap_err();
    assert!(matches!(error, LinkError::Lost(_)), "{error}");
    assert_eq!(error.retry_after(), None, "it was tried");
    // The pauses double, so that one of the next tries falls into one.
    let error = soon(async {
        loop {
            let error = accept(&namespace, "device-1").await.unwrap_err();
            if error.retry_after().is_some() {
                return error;
            }
        }
    })
    .await;
    assert!(error.to_string().contains("cannot be reached"), "{error}");
}

#[tokio::test]
async fn all_connections_close_when_the_last_link_and_the_namespace_are_gone() {
    let sim = Sim::start().await;
    let namespace = sim.namespace();
    let link = accept(&namespace, "device-1").await.unwrap();
    drop(namespace);
    drop(link);
    soon(sim.supervisor.idle(crate::supervise::TaskKind::CommandLink)).await;
}

#[tokio::test]
async fn many_links_at_once_are_spread_over_connections() {
    const LINKS: usize = 200;
    let check = async |parallel_connections: usize| {
        let sim = Sim::start().await;
        let namespace = sim.namespace_by(&Connection { parallel_connections, ..sim.connection() });
        let mut tasks = tokio::task::JoinSet::new();
        for place in 0..LINKS {
            let namespace = namespace.clone();
            tasks.spawn(async move { accept(&namespace, &format!("device-{place}")).await.unwrap() });
        }
        let links = soon(tasks.join_all()).await;
        let status = namespace.status();
        assert_eq!((status.connections, status.links), (parallel_connections, LINKS));
        // Nobody waits any more: there is room on what is open.
        let more = accept(&namespace, "one-more").await.unwrap();
        assert_eq!(namespace.status().connections, parallel_connections);
        drop((links, more));
    };
    check(1).await;
    check(3).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_links_share_a_connection_and_one_more_opens_another() {
    const LINKS: usize = 1_000;
    /// Accepts at a time: what each may take is bounded, and the machine may be slow.
    const AT_ONCE: usize = 40;
    let sim = Sim::start().await;
    let namespace = sim.namespace();
    let since = clock::now();
    let mut tasks = tokio::task::JoinSet::new();
    for first in 0..AT_ONCE {
        let namespace = namespace.clone();
        tasks.spawn(async move {
            let mut links = Vec::new();
            for place in (first..LINKS).step_by(AT_ONCE) {
                links.push(accept(&namespace, &format!("device-{place}")).await.unwrap());
            }
            links
        });
    }
    let links: Vec<_> = tasks.join_all().await.into_iter().flatten().collect();
    let took = clock::now() - since;
    println!("{LINKS} links attached in {took:?}: {:.0}/s", f64::from(1_000) / took.as_secs_f64());
    let status = namespace.status();
    assert_eq!((status.connections, status.links), (1, LINKS));
    let mut more = accept(&namespace, "one-more").await.unwrap();
    assert_eq!(namespace.status().connections, 2);
    sim.send("one-more", "one").await;
    assert_eq!(receive(&mut more).await.unwrap().message_id.as_deref(), Some("one"));
    let mut tasks = tokio::task::JoinSet::new();
    for link in links {
        tasks.spawn(link.close());
    }
    soon(tasks.join_all()).await;
    assert_eq!(namespace.status().links, 1);
}

#[tokio::test]
async fn commands_come_inside_websocket_through_a_proxy() {
    let sim = Sim::start().await;
    let web = Front::websocket(sim.service).await;
    let proxy = Front::proxy(Some("gateway:secret")).await;
    let credentials = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(credentials.path(), "gateway:secret").unwrap();
    let inside = sim.connection_string().replace(&sim.service.to_string(), &web.address.to_string());
    let through = Proxy::parse(&format!("http://{}", proxy.address)).unwrap();
    let namespace = sim.namespace_by(&Connection {
        transport: Transport::WebSocket,
        proxy: Some(Proxy { credentials_file: Some(credentials.path().to_owned()), ..through }),
        ..sim.connection_by(&inside)
    });
    sim.send("device-1", "one").await;
    let mut link = accept(&namespace, "device-1").await.unwrap();
    let one = receive(&mut link).await.unwrap();
    soon(link.settle(one.lock, &Disposition::Complete)).await.unwrap();
    assert_eq!([&web, &proxy].map(|front| front.passed.load(Ordering::SeqCst)), [1, 1]);
}

#[tokio::test]
async fn commands_come_over_tls_with_and_without_websocket() {
    let free = Some(([127, 0, 0, 1], 0).into());
    let sim = Sim::start_with(60.0, |bus| (bus.tls, bus.websocket) = (free, free)).await;
    let secured = sim.connection_string().replace(&sim.service.to_string(), "localhost");
    let secured = sim.connection_by(&secured.replace("UseDevelopmentEmulator=true;", ""));
    for (transport, address) in [(Transport::Tcp, sim.tls), (Transport::WebSocket, sim.websocket)] {
        let namespace = sim.namespace_by(&Connection {
            transport,
            port: address.map(|address| address.port()),
            ca_file: sim.ca_file.clone(),
            ..secured.clone()
        });
        sim.send("device-1", "one").await;
        let mut link = accept(&namespace, "device-1").await.unwrap();
        let one = receive(&mut link).await.unwrap();
        assert_eq!(one.message_id.as_deref(), Some("one"));
        soon(link.settle(one.lock, &Disposition::Complete)).await.unwrap();
        soon(link.close()).await;
    }
}

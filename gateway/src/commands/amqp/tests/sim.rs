//! cloud-sim's Service Bus in this process, with its faults.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use cloud_sim::OAuth;
use cloud_sim::servicebus::{Entities, QueueSpec, ServiceBus};
use serde_json::{Value as Json, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::azure::ConnectionString;
use crate::commands::amqp::config::{Connection, SignIn};
use crate::commands::amqp::http::Head;
use crate::commands::amqp::{LinkError, Namespace, SessionLink, Wish};
use crate::commands::message::Received;
use crate::supervise::{Supervisor, clock};

/// The queue that is there.
pub(in crate::commands) const QUEUE: &str = "commands";
/// Longer than anything takes here.
const PATIENCE: Duration = Duration::from_secs(30);

/// A namespace with one queue with sessions.
pub(in crate::commands) struct Sim {
    pub(in crate::commands) service: SocketAddr,
    pub(in crate::commands) tls: Option<SocketAddr>,
    pub(in crate::commands) websocket: Option<SocketAddr>,
    pub(in crate::commands) tokens: Option<SocketAddr>,
    pub(in crate::commands) ca_file: Option<PathBuf>,
    pub(in crate::commands) supervisor: Supervisor,
    connection_string: String,
    control: SocketAddr,
    _running: cloud_sim::Running,
    _folder: tempfile::TempDir,
}

impl Sim {
    /// Locks last a minute.
    pub(in crate::commands) async fn start() -> Self {
        Self::start_with(60.0, |_| ()).await
    }

    pub(in crate::commands) async fn start_with(
        lock_seconds: f64,
        change: impl FnOnce(&mut ServiceBus),
    ) -> Self {
        Self::start_for(lock_seconds, None, change).await
    }

    /// With somebody who gives tokens.
    pub(in crate::commands) async fn start_for(
        lock_seconds: f64,
        oauth: Option<OAuth>,
        change: impl FnOnce(&mut ServiceBus),
    ) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let queue = QueueSpec { lock_seconds, ..QueueSpec::with_sessions(QUEUE) };
        let mut bus = ServiceBus::new(Entities::queues([queue, QueueSpec::new("plain")]));
        change(&mut bus);
        let mut config = cloud_sim::Config::new(folder.path());
        config.service_bus = Some(bus);
        config.oauth = oauth;
        let running = cloud_sim::start(config).await.unwrap();
        let addresses = running.service_bus.clone().unwrap();
        Self {
            service: addresses.amqp,
            tls: addresses.amqp_tls,
            websocket: addresses.websocket,
            tokens: running.tokens,
            ca_file: running.ca_file.clone(),
            supervisor: Supervisor::new(),
            connection_string: addresses.connection_string,
            control: running.control,
            _running: running,
            _folder: folder,
        }
    }

    pub(in crate::commands) fn connection(&self) -> Connection {
        self.connection_by(&self.connection_string)
    }

    pub(in crate::commands) fn connection_by(&self, connection_string: &str) -> Connection {
        Connection::new(SignIn::Key(ConnectionString::parse(connection_string).unwrap()))
    }

    pub(in crate::commands) fn connection_string(&self) -> &str {
        &self.connection_string
    }

    pub(in crate::commands) fn namespace(&self) -> Namespace {
        self.namespace_by(&self.connection())
    }

    pub(in crate::commands) fn namespace_by(&self, connection: &Connection) -> Namespace {
        Namespace::new(connection, None, &self.supervisor).unwrap()
    }

    /// Sends a message with this text to a session of the queue.
    pub(in crate::commands) async fn send(&self, session: &str, text: &str) {
        let messages = json!([{ "session_id": session, "message_id": text, "body": text }]);
        self.ask("POST", &format!("/servicebus/entities/{QUEUE}/messages"), &messages).await;
    }

    pub(in crate::commands) async fn fault(&self, fault: Json) {
        self.ask("POST", "/servicebus/faults", &fault).await;
    }

    /// The queue as the service sees it.
    pub(in crate::commands) async fn view(&self) -> Json {
        self.view_of(QUEUE).await
    }

    pub(super) async fn view_of(&self, entity: &str) -> Json {
        self.ask("GET", &format!("/servicebus/entities/{entity}"), &Json::Null).await
    }

    /// Messages in the dead-letter queue.
    pub(in crate::commands) async fn dead(&self) -> Json {
        self.ask("GET", &format!("/servicebus/entities/{QUEUE}/dead"), &Json::Null).await
    }

    /// Waits until the queue looks like this.
    pub(in crate::commands) async fn until(&self, what: &str, looks: impl Fn(&Json) -> bool) {
        let since = clock::now();
        loop {
            let seen = self.view().await;
            if looks(&seen) {
                return;
            }
            assert!(clock::now() - since < PATIENCE, "{what}: {seen}");
        }
    }

    pub(in crate::commands) async fn ask(&self, method: &str, path: &str, body: &Json) -> Json {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let mut stream = TcpStream::connect(self.control).await.unwrap();
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: sim\r\nConnection: close\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\n\r\n{body}",
            body.len()
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        let (head, mut answer) = Head::read(&mut stream).await.unwrap();
        stream.read_to_end(&mut answer).await.unwrap();
        let answer = String::from_utf8(answer).unwrap();
        assert_eq!(head.status, 200, "{method} {path}: {answer}");
        serde_json::from_str(&answer).unwrap()
    }
}

/// What must happen soon.
pub(in crate::commands) async fn soon<T>(what: impl Future<Output = T>) -> T {
    timeout(PATIENCE, what).await.expect("it takes too long")
}

pub(in crate::commands) async fn accept(
    namespace: &Namespace,
    session: &str,
) -> Result<Box<SessionLink>, LinkError> {
    soon(namespace.accept(QUEUE, Wish::Session(session))).await
}

pub(in crate::commands) async fn receive(link: &mut SessionLink) -> Result<Received, LinkError> {
    soon(link.receive()).await
}

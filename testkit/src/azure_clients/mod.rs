//! Clients of Service Bus that were not written here: Microsoft's libraries for Python and JavaScript, behind one
//! language.
//!
//! A [`Client`] is a process that gets orders as lines of JSON and gives each one line of answer, `{"ok": ..}` or
//! `{"error": ..}`. Orders have a `do` and name receivers by a word of the caller's (`receiver`). An `entity` is a queue
//! or a topic to send to, a queue or `topic/subscription` to receive from.
//!
//! | `do` | besides | the answer has |
//! |---|---|---|
//! | `send` | `entity`, `messages`, `batch` | `batches` |
//! | `schedule` | `entity`, `messages`, `in_ms` | `sequences` |
//! | `cancel` | `entity`, `sequences` | |
//! | `accept` | `receiver`, `entity`, `session` (none: the next), `renew_ms`, `mode` | `session`, `locked_until_ms` |
//! | `open` | `receiver`, `entity`, `dead`, `mode` | |
//! | `receive` | `receiver`, `max`, `wait_ms` | `messages` |
//! | `deferred` | `receiver`, `sequences` | `messages` |
//! | `peek` | `receiver`, `max`, `from` | `messages` |
//! | `settle` | `receiver`, `sequence`, `how` (`complete`, `abandon`, `defer`, `dead_letter`), `reason`, `description` | |
//! | `renew` | `receiver`, `sequence` (none: the session's lock) | `locked_until_ms` |
//! | `state`, `set_state` | `receiver`, `state` in Base64 | `state` |
//! | `workers` | `entity`, `count`, `max` | `visits` of sessions, each with `session` and `bodies` |
//! | `close` | `receiver` | |

use std::io::{self, BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};

use crate::missing;

/// Names an interpreter that has the library; `cargo xtask test` sets it.
pub(crate) const PYTHON: &str = "PENSTOCK_TEST_PYTHON";
/// Names the folder with the library in its `node_modules`; `cargo xtask test` sets it.
pub(crate) const NODE: &str = "PENSTOCK_TEST_NODE";
/// Most lines that wait to be read.
const LINES_MAX: usize = 1_000;
/// Longest wait for an answer.
const PATIENCE: Duration = Duration::from_secs(120);
/// How long the libraries wait for a session and for an answer of the service, unless said otherwise.
const TIMEOUT: Duration = Duration::from_secs(20);

/// A library we did not write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Library {
    /// `azure.servicebus`, which blocks.
    Python,
    /// `azure.servicebus.aio`.
    Asyncio,
    /// `@azure/service-bus`.
    JavaScript,
}

/// What the libraries call a refusal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Code {
    /// Another receiver has the session.
    SessionCannotBeLocked,
    /// There was no session, or no answer, in time.
    Timeout,
    /// The lock of the session is over.
    SessionLockLost,
    /// The lock of the message is over.
    MessageLockLost,
    /// There is no such queue, topic or subscription.
    EntityNotFound,
    /// There is no such message.
    MessageNotFound,
    /// The key or the token does not open it.
    Unauthorized,
    /// The service has too much to do.
    Busy,
}

/// An order that was not carried out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// The class of the exception in Python, the code of the error in JavaScript.
    pub code: String,
    /// The condition in AMQP's words, where the library tells it.
    pub condition: Option<String>,
    /// What the library says.
    pub text: String,
}

/// How to reach a namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Namespace {
    /// The connection string.
    pub connection: String,
    /// `sb://host:port`, where it is not what the connection string says. Python takes it with WebSockets only.
    pub address: Option<String>,
    /// Whether AMQP goes through a WebSocket.
    pub websocket: bool,
    /// The certificate authority of the service, PEM.
    pub authority: Option<PathBuf>,
}

/// One client; it is killed when this is dropped.
#[derive(Debug)]
pub struct Client {
    library: Library,
    child: Child,
    stdin: Option<ChildStdin>,
    lines: Receiver<String>,
}

// === impl Library ===

impl Library {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Python, Self::Asyncio, Self::JavaScript];

    /// Those of `wanted` that are installed. Whatever is not is named: its part of a test is skipped then.
    ///
    /// # Panics
    /// Under continuous integration, when one of them is not.
    #[must_use]
    pub fn installed(wanted: &[Self]) -> Vec<Self> {
        let (here, not_here): (Vec<_>, Vec<_>) = wanted.iter().partition(|library| library.works());
        for library in not_here {
            missing::skip(&format!(
                "{library:?} has no client of Service Bus; set {PYTHON} and {NODE}, or run `cargo xtask test`, which installs both"
            ));
        }
        here
    }

    fn works(self) -> bool {
        match self {
            Self::Python | Self::Asyncio => python_has("aiohttp, azure.servicebus.aio"),
            Self::JavaScript => node_has("@azure/service-bus"),
        }
    }

    fn command(self) -> Command {
        let here = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/azure_clients");
        let mut command;
        match self {
            Self::Python | Self::Asyncio => {
                command = Command::new(python());
                let flavour = if self == Self::Python { "sync" } else { "asyncio" };
                command.args(["-B", "-u"]).arg(here.join("azure_agent.py")).arg(flavour);
            }
            Self::JavaScript => {
                command = Command::new("node");
                command
                    .arg("--no-deprecation")
                    .arg(here.join("azure_agent.mjs"))
                    .arg(node().unwrap_or_default());
            }
        }
        command
    }
}

/// The interpreter.
pub(crate) fn python() -> PathBuf {
    std::env::var_os(PYTHON).map_or_else(|| PathBuf::from("python3"), PathBuf::from)
}

/// The folder that has libraries in its `node_modules`.
pub(crate) fn node() -> Option<PathBuf> {
    std::env::var_os(NODE).map(PathBuf::from)
}

/// Whether these modules can be imported, which have a comma between them.
pub(crate) fn python_has(modules: &str) -> bool {
    let mut command = Command::new(python());
    command.args(["-c", &format!("import {modules}")]);
    succeeds(command)
}

/// Whether that package is installed.
pub(crate) fn node_has(package: &str) -> bool {
    let Some(folder) = node() else { return false };
    let mut command = Command::new("node");
    command.args(["-e", &format!("require.resolve('{package}')")]).current_dir(folder);
    succeeds(command)
}

fn succeeds(mut command: Command) -> bool {
    let status = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status();
    status.is_ok_and(|status| status.success())
}

// === impl Code ===

impl Code {
    /// What `library` calls it.
    #[must_use]
    pub fn name(self, library: Library) -> &'static str {
        let (python, javascript) = match self {
            Self::SessionCannotBeLocked => ("SessionCannotBeLockedError", "SessionCannotBeLocked"),
            Self::Timeout => ("OperationTimeoutError", "ServiceTimeout"),
            Self::SessionLockLost => ("SessionLockLostError", "SessionLockLost"),
            Self::MessageLockLost => ("MessageLockLostError", "MessageLockLost"),
            Self::EntityNotFound => ("MessagingEntityNotFoundError", "MessagingEntityNotFound"),
            Self::MessageNotFound => ("MessageNotFoundError", "MessageNotFound"),
            Self::Unauthorized => ("ServiceBusAuthenticationError", "UnauthorizedAccess"),
            Self::Busy => ("ServiceBusServerBusyError", "ServiceBusy"),
        };
        if library == Library::JavaScript { javascript } else { python }
    }
}

// === impl Namespace ===

impl Namespace {
    /// One that its connection string says everything about.
    #[must_use]
    pub fn new(connection: &str) -> Self {
        Self { connection: connection.to_owned(), address: None, websocket: false, authority: None }
    }
}

// === impl Client ===

impl Client {
    /// Starts one for a namespace. It connects with the first order that needs it.
    ///
    /// # Errors
    /// When the library is not installed.
    ///
    /// # Panics
    /// When the process does not answer.
    pub fn start(library: Library, namespace: &Namespace) -> io::Result<Self> {
        Self::start_patient(library, namespace, TIMEOUT)
    }

    /// As [`Self::start`], with another time that the library waits for a session and for answers of the service.
    ///
    /// # Errors
    /// When the library is not installed.
    ///
    /// # Panics
    /// When the process does not answer.
    pub fn start_patient(library: Library, namespace: &Namespace, timeout: Duration) -> io::Result<Self> {
        let mut command = library.command();
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        if let Some(authority) = &namespace.authority {
            command.env("NODE_EXTRA_CA_CERTS", authority);
        }
        let mut child = command.spawn()?;
        let (sender, lines) = sync_channel(LINES_MAX);
        let stdin = child.stdin.take();
        if let Some(stdout) = child.stdout.take() {
            let reader = thread::Builder::new().name(format!("{library:?} stdout"));
            reader.spawn(move || {
                for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                    if sender.send(line).is_err() {
                        return;
                    }
                }
            })?;
        }
        let mut client = Self { library, child, stdin, lines };
        client.ok(json!({
            "do": "connect",
            "connection": namespace.connection,
            "address": namespace.address,
            "websocket": namespace.websocket,
            "authority": namespace.authority,
            "timeout_ms": timeout.as_millis(),
        }));
        Ok(client)
    }

    /// The library it stands on.
    #[must_use]
    pub fn library(&self) -> Library {
        self.library
    }

    /// Gives an order and does not wait for the answer.
    ///
    /// # Panics
    /// When the process does not listen.
    pub fn tell(&mut self, order: &Value) {
        let told = self.stdin.as_mut().map(|stdin| writeln!(stdin, "{order}").and_then(|()| stdin.flush()));
        assert!(matches!(told, Some(Ok(()))), "{:?} does not listen to {order}: {told:?}", self.library);
    }

    /// The next answer.
    ///
    /// # Errors
    /// When the order was refused.
    ///
    /// # Panics
    /// When none comes; `what` says what was waited for.
    pub fn answer(&mut self, what: &str) -> Result<Value, Refused> {
        let line = self.lines.recv_timeout(PATIENCE);
        let late = line == Err(RecvTimeoutError::Timeout);
        assert!(!late, "{:?} waited in vain for the answer to {what}", self.library);
        assert!(line.is_ok(), "{:?} ended before the answer to {what}", self.library);
        let mut answer: Value = serde_json::from_str(&line.unwrap_or_default()).unwrap_or_default();
        if !answer["ok"].is_null() {
            return Ok(answer["ok"].take());
        }
        let text = |name: &str| answer["error"][name].as_str().map(str::to_owned);
        let code = text("code");
        assert!(code.is_some(), "{:?} answers {what} with {answer}", self.library);
        let code = code.unwrap_or_default();
        Err(Refused { code, condition: text("condition"), text: text("text").unwrap_or_default() })
    }

    /// Gives an order and waits for its answer.
    ///
    /// # Errors
    /// When it was refused.
    ///
    /// # Panics
    /// When the process does not answer.
    pub fn ask(&mut self, order: &Value) -> Result<Value, Refused> {
        self.tell(order);
        self.answer(&order.to_string())
    }

    /// Gives an order that must be carried out.
    ///
    /// # Panics
    /// When it is refused.
    pub fn ok(&mut self, order: Value) -> Value {
        let answer = self.ask(&order);
        assert!(answer.is_ok(), "{:?} on {order}: {answer:?}", self.library);
        answer.unwrap_or_default()
    }

    /// Gives an order that must be refused like that.
    ///
    /// # Panics
    /// When it is carried out, or refused otherwise.
    pub fn refused(&mut self, code: Code, order: Value) {
        let answer = self.ask(&order);
        let said = answer.as_ref().err().map(|refused| refused.code.as_str());
        assert_eq!(said, Some(code.name(self.library)), "{:?} on {order}: {answer:?}", self.library);
    }

    /// Receives up to `max` messages, waiting for the first.
    ///
    /// # Panics
    /// When that fails.
    pub fn receive(&mut self, receiver: &str, max: usize, wait: Duration) -> Vec<Value> {
        let wait_ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
        let mut answer =
            self.ok(json!({ "do": "receive", "receiver": receiver, "max": max, "wait_ms": wait_ms }));
        match answer["messages"].take() {
            Value::Array(messages) => messages,
            _ => Vec::new(),
        }
    }

    /// Settles a message.
    ///
    /// # Panics
    /// When that fails.
    pub fn settle(&mut self, receiver: &str, message: &Value, how: &str) {
        self.ok(json!({ "do": "settle", "receiver": receiver, "sequence": message["sequence"], "how": how }));
    }

    /// Ends it without a goodbye, as if its machine died: the system closes its connections.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn kill(mut self) -> io::Result<()> {
        self.child.kill().and_then(|()| self.child.wait()).map(drop)
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        // An error here means that it has ended already.
        drop((self.child.kill(), self.child.wait()));
    }
}

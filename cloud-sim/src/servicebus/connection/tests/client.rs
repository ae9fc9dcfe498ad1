//! A client that does what a test says, frame by frame.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::{Bytes, BytesMut};
use ring::hmac;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::amqp::{
    Attach, Begin, Detach, Disposition, Flow, Frame, FrameKind, Open, Performative, Sasl, Sections,
    SettleMode, State, Terminus, Transfer, Value, begin_frame, finish_frame, next_frame,
};
use crate::servicebus::broker::{Broker, Clock, Fault};
use crate::servicebus::cbs::SharedKey;
use crate::servicebus::connection::serve;
use crate::servicebus::listener::Wire;
use crate::tokens::{Tokens, unix_ms};

pub(super) const KEY_NAME: &str = "rule";
pub(super) const KEY: &str = "c2VjcmV0";
/// More than any step takes.
const PATIENCE: Duration = Duration::from_secs(10);
/// What is not there after this long does not come.
const SILENCE: Duration = Duration::from_millis(100);

const ENTITIES: &str =
    r#"{"queues":[{"name":"q","sessions":true},{"name":"plain"},{"name":"short","lock_seconds":0.2}]}"#;

pub(super) struct Server {
    broker: Broker,
    wire: Arc<Wire>,
    _stop: watch::Sender<bool>,
    _timers: JoinSet<()>,
}

impl Server {
    pub(super) fn start() -> Self {
        Self::with_idle(Duration::from_secs(240))
    }

    pub(super) fn with_idle(idle: Duration) -> Self {
        Self::with(idle, None)
    }

    pub(super) fn with_tokens(tokens: &Arc<Tokens>) -> Self {
        Self::with(Duration::from_secs(240), Some(Arc::clone(tokens)))
    }

    fn with(idle: Duration, tokens: Option<Arc<Tokens>>) -> Self {
        let entities = serde_json::from_str(ENTITIES).unwrap();
        let broker = Broker::new(&entities, Clock::system()).unwrap();
        let stop = watch::Sender::new(false);
        let mut timers = JoinSet::new();
        timers.spawn(broker.clone().run_timers(stop.subscribe()));
        let key = SharedKey { name: KEY_NAME.to_owned(), key: KEY.to_owned() };
        let wire = Arc::new(Wire::new(broker.clone(), key, tokens, idle));
        Self { broker, wire, _stop: stop, _timers: timers }
    }

    pub(super) fn order(&self, fault: Fault) {
        self.broker.order(fault).unwrap();
    }

    pub(super) fn connect(&self) -> Client {
        let (ours, theirs) = duplex(64 * 1024);
        let mut tasks = JoinSet::new();
        tasks.spawn(serve(theirs, Arc::clone(&self.wire)));
        Client { stream: ours, input: BytesMut::new(), requests: 0, window: 0, _tasks: tasks }
    }

    /// Signed in without a token, and with a session on channel 0.
    pub(super) async fn anonymous(&self) -> Client {
        let mut client = self.connect();
        client.greet().await;
        assert_eq!(client.sign_in("ANONYMOUS", None).await, Sasl::Outcome(0));
        client.open(65_536, 5_000, None).await;
        client
    }

    /// Signed in with the key, and with a session on channel 0.
    pub(super) async fn signed_in(&self) -> Client {
        self.opened(65_536, 5_000).await
    }

    pub(super) async fn opened(&self, frame_bytes_max: u32, window: u32) -> Client {
        let mut client = self.connect();
        client.greet().await;
        let response = format!("\0{KEY_NAME}\0{KEY}");
        assert_eq!(client.sign_in("PLAIN", Some(&response)).await, Sasl::Outcome(0));
        client.open(frame_bytes_max, window, None).await;
        client
    }

    pub(super) async fn idle_after(&self, idle_ms: u32) -> Client {
        let mut client = self.connect();
        client.greet().await;
        client.sign_in("ANONYMOUS", None).await;
        client.open(65_536, 5_000, Some(idle_ms)).await;
        client
    }
}

pub(super) struct Client {
    stream: DuplexStream,
    input: BytesMut,
    requests: u32,
    /// Of the session, in frames.
    window: u32,
    _tasks: JoinSet<crate::servicebus::connection::End>,
}

impl Client {
    pub(super) async fn write(&mut self, bytes: &[u8]) {
        timeout(PATIENCE, self.stream.write_all(bytes)).await.expect("it is read").unwrap();
    }

    async fn fill(&mut self) -> bool {
        let read = self.stream.read_buf(&mut self.input);
        timeout(PATIENCE, read).await.expect("an answer").unwrap() > 0
    }

    pub(super) async fn read_exact(&mut self, count: usize) -> Vec<u8> {
        while self.input.len() < count {
            assert!(self.fill().await, "the connection ended");
        }
        self.input.split_to(count).to_vec()
    }

    /// Whether the server hangs up, without another word.
    pub(super) async fn ended(&mut self) -> bool {
        self.input.is_empty() && !self.fill().await
    }

    /// Whether nothing comes.
    pub(super) async fn silent(&mut self) -> bool {
        if !self.input.is_empty() {
            return false;
        }
        let read = self.stream.read_buf(&mut self.input);
        timeout(SILENCE, read).await.is_err()
    }

    pub(super) fn discard(&mut self) {
        self.input.clear();
    }

    async fn raw(&mut self) -> Frame {
        loop {
            if let Some(frame) = next_frame(&mut self.input, 65_536).unwrap() {
                return frame;
            }
            assert!(self.fill().await, "the connection ended");
        }
    }

    // === SASL ===

    pub(super) async fn greet(&mut self) -> Sasl {
        self.write(b"AMQP\x03\x01\0\0").await;
        assert_eq!(self.read_exact(8).await, b"AMQP\x03\x01\0\0");
        Sasl::decode(&self.raw().await.body).unwrap()
    }

    pub(super) async fn sign_in(&mut self, mechanism: &str, response: Option<&str>) -> Sasl {
        let response = response.map(|text| Bytes::copy_from_slice(text.as_bytes()));
        let mut output = Vec::new();
        Sasl::Init { mechanism: mechanism.to_owned(), response }.encode(&mut output);
        self.write(&output).await;
        Sasl::decode(&self.raw().await.body).unwrap()
    }

    async fn open(&mut self, frame_bytes_max: u32, window: u32, idle_ms: Option<u32>) {
        self.write(b"AMQP\0\x01\0\0").await;
        assert_eq!(self.read_exact(8).await, b"AMQP\0\x01\0\0");
        let open = Open {
            container: "test".to_owned(),
            hostname: None,
            frame_bytes_max,
            channel_max: 100,
            idle_ms,
            properties: Vec::new(),
        };
        self.send(0, &Performative::Open(open)).await;
        let Performative::Open(open) = self.next().await else { panic!("not an open") };
        assert_eq!((open.frame_bytes_max, open.channel_max), (65_536, 100));
        self.window = window;
        let begin = Begin {
            remote_channel: None,
            next_outgoing_id: 0,
            incoming_window: window,
            outgoing_window: 5_000,
            handle_max: 100,
        };
        self.send(0, &Performative::Begin(begin)).await;
        let Performative::Begin(begin) = self.next().await else { panic!("not a begin") };
        assert_eq!(begin.remote_channel, Some(0));
    }

    // === performatives ===

    pub(super) async fn send(&mut self, channel: u16, performative: &Performative) {
        let mut output = Vec::new();
        performative.encode(&mut output, channel, &[]);
        self.write(&output).await;
    }

    pub(super) async fn send_transfer(&mut self, transfer: &Transfer, payload: &[u8]) {
        let mut output = Vec::new();
        let start = begin_frame(&mut output, FrameKind::Amqp, 0);
        Performative::Transfer(transfer.clone()).value().encode(&mut output);
        output.extend_from_slice(payload);
        finish_frame(&mut output, start);
        self.write(&output).await;
    }

    /// The next frame; `None` if it is a sign of life.
    pub(super) async fn frame(&mut self) -> Option<(Performative, Bytes)> {
        let frame = self.raw().await;
        assert_eq!(frame.kind, FrameKind::Amqp);
        (!frame.body.is_empty()).then(|| Performative::decode(&frame.body).unwrap())
    }

    pub(super) async fn next_with_payload(&mut self) -> (Performative, Bytes) {
        loop {
            if let Some(found) = self.frame().await {
                return found;
            }
        }
    }

    pub(super) async fn next(&mut self) -> Performative {
        self.next_with_payload().await.0
    }

    pub(super) async fn attach(&mut self) -> Attach {
        match self.next().await {
            Performative::Attach(attach) => *attach,
            other => panic!("not an attach: {other:?}"),
        }
    }

    pub(super) async fn detach(&mut self) -> Detach {
        match self.next().await {
            Performative::Detach(detach) => detach,
            other => panic!("not a detach: {other:?}"),
        }
    }

    pub(super) async fn flow(&mut self) -> Flow {
        match self.next().await {
            Performative::Flow(flow) => flow,
            other => panic!("not a flow: {other:?}"),
        }
    }

    /// The next message, which has to be in one frame.
    pub(super) async fn transfer(&mut self) -> (Transfer, Bytes) {
        match self.next_with_payload().await {
            (Performative::Transfer(transfer), payload) => {
                assert!(!transfer.more);
                (transfer, payload)
            }
            other => panic!("not a transfer: {other:?}"),
        }
    }

    // === links ===

    pub(super) async fn sender(&mut self, handle: u32, address: &str) {
        self.send(0, &Performative::Attach(Box::new(attach_sender(handle, address)))).await;
        assert!(self.attach().await.target.is_some());
        assert_eq!(self.flow().await.handle, Some(handle));
    }

    /// Gives credit, counted from the delivery count `at`.
    pub(super) async fn credit(&mut self, handle: u32, at: u32, credit: u32, drain: bool) {
        let flow = self.flow_with(None, Some((handle, at, credit, drain)));
        self.send(0, &flow).await;
    }

    /// Opens the session's window again, after `frames` transfers.
    pub(super) async fn window(&mut self, frames: u32, window: u32) {
        let flow = self.flow_with(Some((frames, window)), None);
        self.send(0, &flow).await;
    }

    fn flow_with(&self, window: Option<(u32, u32)>, link: Option<(u32, u32, u32, bool)>) -> Performative {
        let (next_incoming_id, incoming_window) = window.unwrap_or((0, self.window));
        Performative::Flow(Flow {
            next_incoming_id: Some(next_incoming_id),
            incoming_window,
            next_outgoing_id: 0,
            outgoing_window: 5_000,
            handle: link.map(|(handle, ..)| handle),
            delivery_count: link.map(|(_, at, ..)| at),
            credit: link.map(|(_, _, credit, _)| credit),
            available: None,
            drain: link.is_some_and(|(.., drain)| drain),
            echo: false,
        })
    }

    /// Sends a message in frames of 400 bytes and waits for its outcome.
    pub(super) async fn publish(&mut self, handle: u32, id: u32, format: u32, payload: &[u8]) -> State {
        let mut parts = payload.chunks(400).peekable();
        let mut first = true;
        while let Some(part) = parts.next() {
            let transfer = Transfer {
                handle,
                delivery_id: first.then_some(id),
                tag: first.then(|| Bytes::copy_from_slice(&id.to_be_bytes())),
                format: first.then_some(format),
                settled: first.then_some(false),
                more: parts.peek().is_some(),
                state: None,
                aborted: false,
            };
            self.send_transfer(&transfer, part).await;
            first = false;
        }
        match self.next().await {
            Performative::Disposition(Disposition {
                receiver: true, first, settled: true, state, ..
            }) => {
                assert_eq!(first, id);
                state.unwrap()
            }
            other => panic!("not the outcome: {other:?}"),
        }
    }

    pub(super) async fn settle(&mut self, id: u32, state: State) {
        let state = Some(state);
        let disposition = Disposition { receiver: true, first: id, last: None, settled: false, state };
        self.send(0, &Performative::Disposition(disposition)).await;
    }

    // === requests ===

    pub(super) async fn open_cbs(&mut self) {
        self.open_requests("$cbs").await;
    }

    /// Links for requests to a node (90) and for its answers (91).
    pub(super) async fn open_requests(&mut self, node: &str) {
        let mut receiver = attach_receiver(91, node, Vec::new());
        receiver.target = Some(Terminus::target("answers"));
        self.send(0, &Performative::Attach(Box::new(receiver))).await;
        assert!(self.attach().await.source.is_some());
        self.sender(90, node).await;
        self.credit(91, 0, 100, false).await;
    }

    pub(super) async fn put_token(&mut self, audience: &str, token: &str) -> i64 {
        self.put_token_of("servicebus.windows.net:sastoken", audience, token).await
    }

    pub(super) async fn put_token_of(&mut self, kind: &str, audience: &str, token: &str) -> i64 {
        let properties = [("operation", "put-token"), ("type", kind), ("name", audience)];
        let answer = self.exchange(&properties, &Value::string(token)).await;
        let answer = Sections::decode(&answer).unwrap();
        answer.application_property("status-code").and_then(Value::integer).unwrap()
    }

    /// A request to `$management`: its status and body.
    pub(super) async fn request(&mut self, operation: &str, body: Value) -> (i64, Value) {
        let answer = self.exchange(&[("operation", operation)], &body).await;
        let answer = Sections::decode(&answer).unwrap();
        let status = answer.application_property("statusCode").and_then(Value::integer).unwrap();
        (status, answer.body_value().unwrap())
    }

    async fn exchange(&mut self, application: &[(&str, &str)], body: &Value) -> Bytes {
        self.requests += 1;
        let id = Value::Uuid([u8::try_from(self.requests).unwrap(); 16]);
        let mut properties = vec![Value::Null; 13];
        properties[0] = id.clone();
        properties[4] = Value::string("answers");
        let mut payload = Vec::new();
        Value::composite(0x73, properties).encode(&mut payload);
        let application = application.iter();
        let application =
            application.map(|(name, text)| (Value::string(*name), Value::string(*text))).collect();
        Value::described(0x74, Value::Map(application)).encode(&mut payload);
        Value::described(0x77, body.clone()).encode(&mut payload);
        assert_eq!(self.publish(90, 1_000 + self.requests, 0, &payload).await, State::Accepted);
        let (transfer, answer) = self.transfer().await;
        assert_eq!((transfer.handle, transfer.settled), (91, Some(true)));
        assert_eq!(Sections::decode(&answer).unwrap().properties.correlation_id, Some(id));
        answer
    }
}

pub(super) fn attach_sender(handle: u32, address: &str) -> Attach {
    Attach {
        name: format!("sender-{handle}"),
        handle,
        receiver: false,
        sender_settles: SettleMode(0),
        receiver_settles: SettleMode::FIRST,
        source: Some(Terminus::source("client", Vec::new())),
        target: Some(Terminus::target(address)),
        initial_delivery_count: Some(0),
        message_bytes_max: None,
        properties: Vec::new(),
    }
}

pub(super) fn attach_receiver(handle: u32, address: &str, filter: Vec<(Value, Value)>) -> Attach {
    Attach {
        name: format!("receiver-{handle}"),
        handle,
        receiver: true,
        sender_settles: SettleMode(0),
        receiver_settles: SettleMode(1),
        source: Some(Terminus::source(address, filter)),
        target: Some(Terminus::target("client")),
        initial_delivery_count: None,
        message_bytes_max: None,
        properties: Vec::new(),
    }
}

pub(super) fn text_message(session: &str, id: &str) -> Vec<u8> {
    message(Some(session), id, b"text")
}

pub(super) fn message(session: Option<&str>, id: &str, body: &[u8]) -> Vec<u8> {
    let mut properties = vec![Value::Null; 13];
    properties[0] = Value::string(id);
    properties[10] = session.map_or(Value::Null, Value::string);
    let mut output = Vec::new();
    Value::composite(0x73, properties).encode(&mut output);
    let kind = vec![(Value::string("kind"), Value::string("test"))];
    Value::described(0x74, Value::Map(kind)).encode(&mut output);
    Value::described(0x75, Value::Binary(Bytes::copy_from_slice(body))).encode(&mut output);
    output
}

/// A shared access signature as clients make it.
pub(super) fn sas(resource: &str, name: &str, key: &str, life_seconds: i64) -> String {
    let escape = |text: &str| {
        text.bytes()
            .map(|byte| match byte {
                b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' => char::from(byte).to_string(),
                other => format!("%{other:02x}"),
            })
            .collect::<String>()
    };
    let resource = escape(resource);
    let expiry = i64::try_from(unix_ms() / 1_000).unwrap() + life_seconds;
    let key = hmac::Key::new(hmac::HMAC_SHA256, key.as_bytes());
    let signature = hmac::sign(&key, format!("{resource}\n{expiry}").as_bytes());
    let signature = escape(&STANDARD.encode(signature));
    format!("SharedAccessSignature sr={resource}&sig={signature}&se={expiry}&skn={name}")
}

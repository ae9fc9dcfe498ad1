//! Requests and answers over AMQP: a link to a node, one back, and numbers that bring them together. `$cbs` and
//! `$management` are asked like this.

use std::convert::Infallible;
use std::fmt;
use std::time::Duration;

use fe2o3_amqp::link::{CreditMode, RecvError};
use fe2o3_amqp::session::SessionHandle;
use fe2o3_amqp::{Receiver, Sendable, Sender};
use fe2o3_amqp_types::messaging::{
    AmqpValue as AmqpValueSection, ApplicationProperties, Body, MESSAGE_FORMAT, Message, MessageId,
    Properties, Target,
};
use fe2o3_amqp_types::primitives::{SimpleValue, Value};
use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use super::carrier::{Begins, Names, end};
use super::correlation::Correlation;
use super::error::{Cause, LinkError};
use super::message::integer;
use super::tasks::Tasks;

/// What a node is asked.
#[derive(Debug)]
pub(super) struct Request {
    /// What it shall do.
    pub(super) operation: &'static str,
    /// What else it needs to know beside the body.
    pub(super) properties: Vec<(&'static str, SimpleValue)>,
    /// With what.
    pub(super) body: Value,
}

/// What a node answered: that it did what was asked.
#[derive(Debug)]
pub(super) struct Response {
    /// A status of HTTP, from 200 to 299.
    pub(super) status: i64,
    /// What came of it.
    pub(super) body: Value,
}

/// A node that answers requests, with any number of them in flight. The links open with the first request, and again
/// when a request finds them gone: Service Bus ends links that are not used.
pub(super) struct Exchange {
    address: String,
    begins: Begins,
    names: Names,
    tasks: Tasks,
    current: Mutex<Option<mpsc::Sender<Call>>>,
}

struct Call {
    request: Request,
    caller: Caller,
}

type Caller = oneshot::Sender<Answer>;

enum Answer {
    Response(Response),
    Failed(LinkError),
    /// It never left.
    Unsent(Request, LinkError),
}

/// The two links of an exchange.
struct Links {
    session: SessionHandle<()>,
    sender: Sender,
    receiver: Receiver,
    reply_to: String,
}

/// Requests that wait for their turn to be sent.
const QUEUE: usize = 1024;
/// Answers that may be on their way at once.
const CREDIT: u32 = 1000;
const OPEN_TIMEOUT: Duration = Duration::from_secs(15);

// === impl Exchange ===

impl fmt::Debug for Exchange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Exchange").field("address", &self.address).finish_non_exhaustive()
    }
}

impl Exchange {
    pub(super) fn new(address: String, begins: Begins, names: Names, tasks: Tasks) -> Self {
        Self { address, begins, names, tasks, current: Mutex::default() }
    }

    /// Asks and waits for the answer, at most for `limit`.
    ///
    /// # Cancel safety
    ///
    /// Whether the request was carried out is not known then; its answer disturbs nobody.
    pub(super) async fn call(&self, request: Request, limit: Duration) -> Result<Response, LinkError> {
        let operation = request.operation;
        let asking = async {
            match self.attempt(request).await {
                // The links were gone before it left, so it is asked once more over new ones.
                Answer::Unsent(request, _) => self.attempt(request).await,
                answered => answered,
            }
        };
        match timeout(limit, asking).await {
            Ok(Answer::Response(response)) => Ok(response),
            Ok(Answer::Failed(error) | Answer::Unsent(_, error)) => Err(error),
            Err(_) => Err(LinkError::TimedOut(Cause::local(format!(
                "{} did not answer {operation} within {limit:?}",
                self.address
            )))),
        }
    }

    async fn attempt(&self, request: Request) -> Answer {
        let (caller, answer) = oneshot::channel();
        if let Err(unsent) = self.calls().send(Call { request, caller }).await {
            return Answer::Unsent(unsent.0.request, LinkError::lost("the links ended"));
        }
        answer.await.unwrap_or_else(|_| Answer::Failed(LinkError::lost("the links ended")))
    }

    /// Where calls go: to the links that are open, or to new ones.
    fn calls(&self) -> mpsc::Sender<Call> {
        let mut current = self.current.lock();
        if let Some(calls) = current.as_ref().filter(|calls| !calls.is_closed()) {
            return calls.clone();
        }
        let (calls, queue) = mpsc::channel(QUEUE);
        let running = run(self.address.clone(), self.begins.clone(), self.names.clone(), queue);
        self.tasks.spawn(running);
        current.insert(calls).clone()
    }
}

/// Serves calls until nobody can call any more, or the links end.
async fn run(
    address: String,
    begins: Begins,
    names: Names,
    mut calls: mpsc::Receiver<Call>,
) -> Result<(), Infallible> {
    let opened = match timeout(OPEN_TIMEOUT, Links::open(&address, &begins, &names)).await {
        Ok(opened) => opened,
        Err(_) => Err(LinkError::TimedOut(Cause::local(format!("the links to {address} did not open")))),
    };
    // What is left must not keep the connection open.
    drop(begins);
    match opened {
        Ok(links) => links.serve(&address, &mut calls).await,
        Err(error) => {
            calls.close();
            while let Some(call) = calls.recv().await {
                answer(call.caller, Answer::Failed(error.clone()));
            }
        }
    }
    Ok(())
}

/// A caller that went away does not mind.
fn answer(caller: Caller, answer: Answer) {
    drop(caller.send(answer));
}

// === impl Links ===

impl Links {
    async fn open(address: &str, begins: &Begins, names: &Names) -> Result<Self, LinkError> {
        let mut session = begins.begin().await?.session;
        let reply_to = names.next("reply");
        let receiver = Receiver::builder()
            .name(names.next("answers"))
            .source(address)
            .target(Target::from(reply_to.clone()))
            .credit_mode(CreditMode::Auto(CREDIT))
            .auto_accept(true)
            .attach(&mut session)
            .await?;
        let sender =
            Sender::builder().name(names.next("requests")).target(address).attach(&mut session).await?;
        Ok(Self { session, sender, receiver, reply_to })
    }

    async fn serve(self, address: &str, calls: &mut mpsc::Receiver<Call>) {
        let Self { session, mut sender, mut receiver, reply_to } = self;
        let waiting = Mutex::new(Correlation::default());
        let ended = tokio::select! {
            ended = send(&mut sender, &reply_to, calls, &waiting) => ended,
            error = receive(&mut receiver, &waiting) => Some(error),
        };
        calls.close();
        if let Some(error) = &ended {
            tracing::debug!(address, %error, "the links of an exchange ended");
        }
        let error = ended.unwrap_or_else(|| LinkError::lost("the connection ended"));
        for caller in waiting.lock().drain() {
            answer(caller, Answer::Failed(error.clone()));
        }
        while let Some(call) = calls.recv().await {
            answer(call.caller, Answer::Unsent(call.request, error.clone()));
        }
        drop((sender, receiver));
        end(session).await;
    }
}

/// Sends requests as they come; `None` when nobody can call any more.
async fn send(
    sender: &mut Sender,
    reply_to: &str,
    calls: &mut mpsc::Receiver<Call>,
    waiting: &Mutex<Correlation<Caller>>,
) -> Option<LinkError> {
    loop {
        let call = tokio::select! {
            call = calls.recv() => call?,
            error = sender.on_detach() => return Some(error.into()),
        };
        let Call { request, caller } = call;
        let issued = waiting.lock().issue(caller, |caller| !caller.is_closed());
        match issued {
            Err(caller) => {
                let cause = Cause::local("too many requests wait for answers");
                answer(caller, Answer::Failed(LinkError::Busy(cause)));
            }
            Ok(number) => {
                let message = encode(request, number, reply_to);
                // It is settled as it goes: there is nothing to wait for.
                let message = Sendable { message, message_format: MESSAGE_FORMAT, settled: Some(true) };
                if let Err(error) = sender.send_batchable::<AmqpValueSection<Value>>(message).await {
                    return Some(error.into());
                }
            }
        }
    }
}

async fn receive(receiver: &mut Receiver, waiting: &Mutex<Correlation<Caller>>) -> LinkError {
    loop {
        match receiver.recv::<Body<Value>>().await {
            Ok(delivery) => {
                let Some((number, decoded)) = decode(delivery.into_message()) else { continue };
                let caller = waiting.lock().answer(number);
                if let Some(caller) = caller {
                    let decoded = decoded.map_or_else(Answer::Failed, Answer::Response);
                    answer(caller, decoded);
                }
            }
            // Whoever waits for it times out.
            Err(RecvError::MessageDecode(error)) => tracing::debug!(%error, "an answer cannot be decoded"),
            Err(error) => return error.into(),
        }
    }
}

fn encode(request: Request, number: u64, reply_to: &str) -> Message<AmqpValueSection<Value>> {
    let mut application = ApplicationProperties::builder()
        .insert("operation", SimpleValue::String(request.operation.to_owned()));
    for (name, value) in request.properties {
        application = application.insert(name, value);
    }
    let properties =
        Properties::builder().message_id(number.to_string()).reply_to(reply_to.to_owned()).build();
    Message::builder()
        .properties(properties)
        .application_properties(application.build())
        .value(request.body)
        .build()
}

/// The number of the request and what the node did. `$cbs` and `$management` write the status in different ways.
fn decode(message: Message<Body<Value>>) -> Option<(u64, Result<Response, LinkError>)> {
    let number = match message.properties?.correlation_id? {
        MessageId::String(text) => text.parse().ok()?,
        MessageId::Ulong(number) => number,
        _ => return None,
    };
    let application = message.application_properties.map(|properties| properties.0).unwrap_or_default();
    let named = |names: [&str; 2]| names.into_iter().find_map(|name| application.get(name).cloned());
    let text = |value| match value {
        Some(SimpleValue::String(text)) => Some(text),
        Some(SimpleValue::Symbol(symbol)) => Some(symbol.into_inner()),
        _ => None,
    };
    let status = named(["statusCode", "status-code"]).and_then(|status| integer(&Value::from(status)))?;
    let answered = if (200..300).contains(&status) {
        let body = match message.body {
            Body::Value(AmqpValueSection(body)) => body,
            _ => Value::Null,
        };
        Ok(Response { status, body })
    } else {
        let description = text(named(["statusDescription", "status-description"])).unwrap_or_default();
        let condition = text(named(["errorCondition", "error-condition"]));
        Err(LinkError::from_status(status, condition.as_deref(), &description))
    };
    Some((number, answered))
}

#[cfg(test)]
mod tests {
    use fe2o3_amqp_types::primitives::Symbol;

    use super::*;

    fn response(
        id: MessageId,
        properties: &[(&str, SimpleValue)],
        body: Body<Value>,
    ) -> Message<Body<Value>> {
        let mut application = ApplicationProperties::builder();
        for (name, value) in properties {
            application = application.insert(*name, value.clone());
        }
        Message::builder()
            .properties(Properties::builder().correlation_id(id).build())
            .application_properties(application.build())
            .body(body)
            .build()
    }

    #[test]
    fn both_ways_of_writing_a_status_are_read() {
        let check = |name: &str, status: SimpleValue| {
            let message = response(MessageId::String("7".into()), &[(name, status)], Body::Empty);
            let (number, answered) = decode(message).unwrap();
            assert_eq!((number, answered.unwrap().status), (7, 202));
        };
        check("status-code", SimpleValue::Int(202));
        check("statusCode", SimpleValue::Int(202));
        check("statusCode", SimpleValue::Uint(202));
    }

    #[test]
    fn a_refusal_without_a_body_is_told_by_its_condition() {
        let properties = [
            ("statusCode", SimpleValue::Int(410)),
            ("statusDescription", SimpleValue::String("gone".into())),
            ("errorCondition", SimpleValue::Symbol(Symbol::from("com.microsoft:session-lock-lost"))),
        ];
        let body = Body::Value(AmqpValueSection(Value::Null));
        let (number, answered) = decode(response(MessageId::Ulong(3), &properties, body)).unwrap();
        assert_eq!(number, 3);
        let error = answered.unwrap_err();
        assert!(matches!(error, LinkError::LockLost(_)), "{error}");
        assert_eq!(error.to_string(), "the lock is lost: gone (com.microsoft:session-lock-lost)");
    }

    #[test]
    fn an_answer_to_nobody_is_none() {
        let status = [("statusCode", SimpleValue::Int(200))];
        assert!(decode(response(MessageId::String("x".into()), &status, Body::Empty)).is_none());
        assert!(decode(Message::builder().body(Body::Empty).build()).is_none());
        assert!(decode(response(MessageId::Ulong(1), &[], Body::Empty)).is_none());
    }
}

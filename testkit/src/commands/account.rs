//! What one device knows of its commands: what came, on which connection, and what it did with each.

/// The account of one device.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Account {
    /// Its connections, in the order in which it opened them.
    pub connections: Vec<Connection>,
    /// Every delivery of a command, in the order in which they came.
    pub receipts: Vec<Receipt>,
}

/// A connection on which commands could come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Connection {
    /// Which gateway it led to: its place in the list of targets.
    pub target: usize,
    /// When it ended, in Unix milliseconds; `None` while it is open.
    pub ended_ms: Option<u64>,
}

/// One delivery of a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Receipt {
    /// The place of its connection in [`Account::connections`].
    pub connection: usize,
    /// The command id, from the topic.
    pub id: String,
    /// The number in its body.
    pub number: u64,
    /// Whether it was marked as delivered before (MQTT 5: user property `redelivered`); `None` where it cannot
    /// be marked.
    pub redelivered: Option<bool>,
    /// When it came, in Unix milliseconds.
    pub received_ms: u64,
    /// What became of it.
    pub reply: Reply,
    /// The answer the device gave about it, if it gave one.
    pub answer: Option<Answer>,
}

/// How a device replied to a PUBLISH with a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reply {
    /// Not at all: its connection went before, or the run ended.
    None,
    /// PUBACK with success, written at this time (Unix milliseconds).
    Acked(u64),
    /// PUBACK with this reason, written at this time (Unix milliseconds).
    Refused {
        /// The MQTT 5 reason code, 0x80 or above.
        reason: u8,
        /// When.
        at_ms: u64,
    },
}

/// What a device says about a command that it took.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Answer {
    /// Its word.
    pub outcome: Outcome,
    /// When it was first written, in Unix milliseconds.
    pub sent_ms: u64,
    /// Whether it was acknowledged, which means that it is durable.
    pub acked: bool,
}

/// The word of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It was done.
    Succeeded,
    /// It could not be done.
    Failed,
    /// The device did not want to.
    Rejected,
}

/// Sums over accounts, in commands unless said otherwise.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Totals {
    /// Deliveries.
    pub received: u64,
    /// Deliveries acknowledged with success.
    pub acked: u64,
    /// Deliveries refused.
    pub refused: u64,
    /// Answers given.
    pub answered: u64,
}

impl Outcome {
    /// The word on the wire.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Rejected => "rejected",
        }
    }
}

impl Reply {
    /// When it was written, in Unix milliseconds.
    #[must_use]
    pub const fn at_ms(self) -> Option<u64> {
        match self {
            Self::None => None,
            Self::Acked(at_ms) | Self::Refused { at_ms, .. } => Some(at_ms),
        }
    }
}

impl Account {
    /// Notes a new connection to the gateway with this place in the list of targets.
    pub fn connected(&mut self, target: usize) {
        self.connections.push(Connection { target, ended_ms: None });
    }

    /// Notes the end of the connection.
    pub fn disconnected(&mut self, at_ms: u64) {
        if let Some(connection) = self.connections.last_mut() {
            connection.ended_ms.get_or_insert(at_ms);
        }
    }

    /// Notes a delivery on the present connection; returns its place in [`Account::receipts`].
    pub fn received(&mut self, id: String, number: u64, redelivered: Option<bool>, at_ms: u64) -> usize {
        self.receipts.push(Receipt {
            connection: self.connections.len().saturating_sub(1),
            id,
            number,
            redelivered,
            received_ms: at_ms,
            reply: Reply::None,
            answer: None,
        });
        self.receipts.len() - 1
    }

    /// Notes what was replied to a delivery.
    pub fn replied(&mut self, receipt: usize, reply: Reply) {
        if let Some(receipt) = self.receipts.get_mut(receipt) {
            receipt.reply = reply;
        }
    }

    /// Notes that an answer was written; a second writing of the same changes nothing.
    pub fn answered(&mut self, receipt: usize, outcome: Outcome, at_ms: u64) {
        if let Some(receipt) = self.receipts.get_mut(receipt) {
            receipt.answer.get_or_insert(Answer { outcome, sent_ms: at_ms, acked: false });
        }
    }

    /// Notes that an answer was acknowledged.
    pub fn answer_acked(&mut self, receipt: usize) {
        if let Some(answer) = self.receipts.get_mut(receipt).and_then(|receipt| receipt.answer.as_mut()) {
            answer.acked = true;
        }
    }

    /// The sums of this account.
    #[must_use]
    pub fn totals(&self) -> Totals {
        let count =
            |is: fn(&Receipt) -> bool| self.receipts.iter().filter(|receipt| is(receipt)).count() as u64;
        Totals {
            received: self.receipts.len() as u64,
            acked: count(|receipt| matches!(receipt.reply, Reply::Acked(_))),
            refused: count(|receipt| matches!(receipt.reply, Reply::Refused { .. })),
            answered: count(|receipt| receipt.answer.is_some()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_account_tells_connections_and_replies_apart() {
        let mut account = Account::default();
        account.connected(0);
        let first = account.received("a".to_owned(), 1, Some(false), 10);
        account.disconnected(20);
        account.disconnected(30);
        account.connected(1);
        let again = account.received("a".to_owned(), 1, Some(true), 40);
        account.replied(again, Reply::Acked(50));
        account.answered(again, Outcome::Failed, 60);
        account.answered(again, Outcome::Succeeded, 70);
        account.answer_acked(again);
        let refused = account.received("b".to_owned(), 2, None, 80);
        account.replied(refused, Reply::Refused { reason: 0x83, at_ms: 90 });
        assert_eq!(account.connections[0], Connection { target: 0, ended_ms: Some(20) });
        assert_eq!((account.receipts[first].connection, account.receipts[first].reply), (0, Reply::None));
        let answer = Answer { outcome: Outcome::Failed, sent_ms: 60, acked: true };
        assert_eq!(account.receipts[again].answer, Some(answer));
        assert_eq!(account.receipts[again].reply.at_ms(), Some(50));
        assert_eq!(account.totals(), Totals { received: 3, acked: 1, refused: 1, answered: 1 });
    }
}

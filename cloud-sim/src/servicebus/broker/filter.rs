//! Correlation filters: which messages of a topic a subscription gets.

use serde_json::Value;

use super::message::{Message, Simple};
use crate::servicebus::config::Filter;

/// A filter, ready to be asked.
#[derive(Debug, Clone)]
pub(super) struct Matcher {
    filter: Filter,
}

impl Matcher {
    /// `None` matches everything.
    pub(super) fn new(filter: Option<&Filter>) -> Self {
        Self { filter: filter.cloned().unwrap_or_default() }
    }

    pub(super) fn matches(&self, message: &Message) -> bool {
        let Filter { correlation_id, message_id, session_id, subject, to, reply_to, properties } =
            &self.filter;
        let texts = [
            (correlation_id, &message.correlation_id),
            (message_id, &message.message_id),
            (session_id, &message.session_id),
            (subject, &message.subject),
            (to, &message.to),
            (reply_to, &message.reply_to),
        ];
        texts.iter().all(|(wanted, has)| wanted.is_none() || *wanted == *has)
            && properties.iter().all(|(name, wanted)| {
                message.application.iter().any(|(has, value)| has == name && equal(wanted, value))
            })
    }
}

fn equal(wanted: &Value, value: &Simple) -> bool {
    match value {
        Simple::Text(text) => wanted.as_str() == Some(text),
        Simple::Long(number) => wanted.as_i64() == Some(*number),
        Simple::Bool(value) => wanted.as_bool() == Some(*value),
        Simple::Double(number) => wanted.as_f64() == Some(*number),
        Simple::Other => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{Filter, Matcher, Message, Simple};

    fn check(filter: serde_json::Value, expected: bool) {
        let message = Message {
            subject: Some("cmd".to_owned()),
            session_id: Some("d-1".to_owned()),
            application: vec![
                ("site".to_owned(), Simple::Text("a".to_owned())),
                ("tier".to_owned(), Simple::Long(3)),
                ("on".to_owned(), Simple::Bool(true)),
            ],
            ..Message::default()
        };
        let parsed: Filter = serde_json::from_value(filter.clone()).unwrap();
        assert_eq!(Matcher::new(Some(&parsed)).matches(&message), expected, "{filter}");
        assert!(Matcher::new(None).matches(&message));
    }

    #[test]
    fn everything_that_a_filter_names_must_be_equal() {
        check(json!({}), true);
        check(json!({ "subject": "cmd" }), true);
        check(json!({ "subject": "CMD" }), false);
        check(json!({ "subject": "cmd", "session_id": "d-1" }), true);
        check(json!({ "subject": "cmd", "session_id": "d-2" }), false);
        check(json!({ "correlation_id": "x" }), false);
        check(json!({ "properties": { "site": "a", "tier": 3, "on": true } }), true);
        check(json!({ "properties": { "site": "a", "tier": 4 } }), false);
        check(json!({ "properties": { "tier": "3" } }), false);
        check(json!({ "properties": { "other": "a" } }), false);
    }
}

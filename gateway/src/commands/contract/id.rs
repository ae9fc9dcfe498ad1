//! Command ids: a message id as one level of a topic.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

/// Longest command id, in bytes: the longest message id of Service Bus, 128 characters of ASCII, with every one
/// escaped.
pub(super) const BYTES_MAX: usize = 384;

/// What is escaped: everything but the unreserved characters of RFC 3986, section 2.3. So an id is never a wildcard,
/// never splits a level and is spelled in one way, which `urllib.parse.quote(id, safe="")` finds too.
const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// The command id of a message.
pub(super) fn level(message_id: Option<&str>, sequence: i64) -> String {
    match message_id.filter(|id| !id.is_empty()) {
        Some(id) => utf8_percent_encode(id, ESCAPED).to_string(),
        None => sequence.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use percent_encoding::percent_decode_str;
    use proptest::prelude::*;

    use super::*;

    fn check(message_id: Option<&str>, expected: &str) {
        assert_eq!(level(message_id, 42), expected, "{message_id:?}");
    }

    #[test]
    fn an_id_is_one_level_of_a_topic() {
        check(Some("c-1"), "c-1");
        check(Some("a/b+c#"), "a%2Fb%2Bc%23");
        check(Some("100%"), "100%25");
        check(Some("$SYS"), "%24SYS");
        check(Some("öffnen 1"), "%C3%B6ffnen%201");
        check(Some("A.b_c~d-9"), "A.b_c~d-9");
        check(Some("\0"), "%00");
        check(None, "42");
        check(Some(""), "42");
    }

    proptest! {
        #[test]
        fn ids_are_spelled_in_one_way_that_can_be_read_back(one in "\\PC{1,20}|[\\x00-\\x7f]{1,20}", other in "\\PC{1,20}") {
            let (id, other_id) = (level(Some(&one), 1), level(Some(&other), 1));
            prop_assert!(id.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._~%".contains(&byte)));
            prop_assert_eq!(percent_decode_str(&id).decode_utf8().unwrap(), one.as_str());
            prop_assert_eq!(id == other_id, one == other);
        }
    }
}

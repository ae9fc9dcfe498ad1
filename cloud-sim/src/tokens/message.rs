//! The first message of an OAUTHBEARER client (RFC 7628, 3.1).

/// What separates the fields.
const SEPARATOR: char = '\u{1}';

/// The bearer token of a message; `None` if it has another form.
pub(super) fn token(message: &[u8]) -> Option<&str> {
    let text = std::str::from_utf8(message).ok()?;
    let (header, fields) = text.split_once(SEPARATOR)?;
    // GS2: no channel binding, and perhaps the identity to act as.
    let authorize_as = header.strip_prefix("n,")?.strip_suffix(',')?;
    if !authorize_as.is_empty() && !authorize_as.starts_with("a=") {
        return None;
    }
    // Every field is ended by a separator, and one more ends the message.
    let fields = fields.strip_suffix(SEPARATOR)?.strip_suffix(SEPARATOR)?;
    let mut found = None;
    for field in fields.split(SEPARATOR) {
        let (name, value) = field.split_once('=')?;
        if name.is_empty() || !name.bytes().all(|byte| byte.is_ascii_alphabetic()) {
            return None;
        }
        if name == "auth" && found.replace(value.strip_prefix("Bearer ")?).is_some() {
            return None;
        }
    }
    found.filter(|token| !token.is_empty())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{any, proptest};

    use super::token;

    fn check(message: &str, expected: Option<&str>) {
        assert_eq!(token(message.as_bytes()), expected, "{message:?}");
    }

    #[test]
    fn a_message_has_a_header_and_fields() {
        check("n,,\u{1}auth=Bearer t\u{1}\u{1}", Some("t"));
        check("n,a=me,\u{1}host=h\u{1}auth=Bearer t\u{1}port=1\u{1}\u{1}", Some("t"));
        check("n,,\u{1}auth=Bearer t\u{1}", None);
        check("n,,\u{1}auth=Basic t\u{1}\u{1}", None);
        check("n,,\u{1}auth=Bearer t\u{1}auth=Bearer u\u{1}\u{1}", None);
        check("n,,\u{1}auth=Bearer \u{1}\u{1}", None);
        check("n,,\u{1}host=h\u{1}\u{1}", None);
        check("y,,\u{1}auth=Bearer t\u{1}\u{1}", None);
        check("", None);
    }

    proptest! {
        #[test]
        fn junk_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            token(&bytes);
        }
    }
}

//! W3C trace context, as far as it is looked at to pass it on. A bad one never harms its command: it is left out.

/// Longest tracestate that is passed on: what every vendor has to take (Trace Context, section 3.3.1.5).
const STATE_BYTES_MAX: usize = 512;

/// Whether a text is a traceparent: version, trace id, parent id and flags in lower-case hexadecimal, ids not zero.
pub(super) fn is_parent(text: &str) -> bool {
    let mut fields = text.split('-');
    let field = |text: Option<&str>, digits: usize, zero: bool| {
        text.is_some_and(|text| {
            let hex = text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
            hex && text.len() == digits && (zero || text.bytes().any(|byte| byte != b'0'))
        })
    };
    let version = fields.next();
    let known = field(version, 2, true) && version != Some("ff");
    known
        && field(fields.next(), 32, false)
        && field(fields.next(), 16, false)
        && field(fields.next(), 2, true)
        && fields.next().is_none()
}

/// Whether a text can go along as tracestate.
pub(super) fn is_state(text: &str) -> bool {
    (1..=STATE_BYTES_MAX).contains(&text.len()) && text.bytes().all(|byte| matches!(byte, 0x20..=0x7e))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_parent_has_its_four_fields() {
        let check = |text: &str, expected: bool| assert_eq!(is_parent(text), expected, "{text}");
        check("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", true);
        check("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00", true);
        check("00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01", false);
        check("ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", false);
        check("00-00000000000000000000000000000000-00f067aa0ba902b7-01", false);
        check("00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01", false);
        check("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7", false);
        check("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-x", false);
        check("", false);
        assert!(
            is_state("vendor=1,other=2") && !is_state("") && !is_state("a\n") && !is_state(&"a".repeat(513))
        );
    }
}

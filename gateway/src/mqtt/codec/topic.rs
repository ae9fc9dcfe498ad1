//! Topic names and filters (section 4.7).

use super::malformed::Malformed;
use super::reader::Reader;

/// Whether `name` is a topic name: not empty and without wildcards or NUL.
pub(crate) fn is_name(name: &str) -> bool {
    !name.is_empty() && !name.bytes().any(|byte| matches!(byte, 0 | b'+' | b'#'))
}

/// Reads a topic name; an empty one passes, since MQTT 5 allows it beside a topic alias.
#[inline]
pub(super) fn read_name<'a>(reader: &mut Reader<'a>) -> Result<&'a str, Malformed> {
    let bytes = reader.binary()?;
    if bytes.iter().any(|byte| matches!(byte, b'+' | b'#')) {
        return Err(Malformed::TopicName);
    }
    if bytes.contains(&0) {
        return Err(Malformed::Utf8);
    }
    std::str::from_utf8(bytes).map_err(|_| Malformed::Utf8)
}

/// Whether `filter` follows the rules: not empty, `#` alone in the last level, `+` alone in any.
pub(super) fn is_filter(filter: &str) -> bool {
    let mut levels = filter.split('/').peekable();
    while let Some(level) = levels.next() {
        let wild = level.bytes().any(|byte| matches!(byte, b'+' | b'#'));
        let allowed = !wild || level == "+" || (level == "#" && levels.peek().is_none());
        if !allowed {
            return false;
        }
    }
    !filter.is_empty()
}

/// The group and the filter of a shared subscription, or nothing if `filter` does not begin with
/// `$share/` (section 4.8.2).
///
/// # Errors
///
/// A group that is empty or holds a wildcard, and a filter that is missing or breaks the rules.
pub(crate) fn shared(filter: &str) -> Option<Result<(&str, &str), Malformed>> {
    let (group, filter) = filter.strip_prefix("$share/")?.split_once('/').unwrap_or_default();
    let valid = is_name(group) && is_filter(filter);
    Some(if valid { Ok((group, filter)) } else { Err(Malformed::TopicFilter) })
}

/// Whether a topic name matches a filter. Both are valid. A leading wildcard does not match a name
/// that starts with `$` ([MQTT-4.7.2-1]).
pub(crate) fn filter_matches(filter: &str, name: &str) -> bool {
    if name.starts_with('$') && filter.starts_with(['+', '#']) {
        return false;
    }
    let mut names = name.split('/');
    for level in filter.split('/') {
        match (level, names.next()) {
            ("#", _) => return true,
            ("+", Some(_)) => {}
            (literal, Some(level)) if literal == level => {}
            _ => return false,
        }
    }
    names.next().is_none()
}

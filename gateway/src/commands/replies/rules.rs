//! Where a reply may go.

use super::Failure;

/// What `reply_to` may say.
#[derive(Debug, Clone)]
pub(super) struct Rules {
    /// The namespace's host.
    host: String,
    to: Vec<Pattern>,
    /// Where commands come from: a reply there would be one.
    own: Vec<String>,
}

/// A name of entities; one `*` in it stands for any text. Names have no case.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Pattern(String);

/// A text that is no such name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct NotAName;

/// Longest name of a queue or topic, in characters ("Service Bus quotas").
const NAME_CHARS_MAX: usize = 260;
/// Longest session id, in characters (the same page).
const SESSION_CHARS_MAX: usize = 128;
/// A text of this length may have been cut.
const TEXT_BYTES_MAX: usize = 512;
/// How addresses with a host begin.
const SCHEMES: [&str; 4] = ["sb", "amqp", "amqps", "https"];

impl Rules {
    pub(super) fn new(host: &str, to: Vec<Pattern>, own: Vec<String>) -> Self {
        // A subscription is sent to through its topic.
        let own = own.iter().map(|name| name.split('/').next().unwrap_or(name).to_owned()).collect();
        Self { host: host.to_owned(), to, own }
    }

    /// The entity that `reply_to` means, if a reply may go there.
    pub(super) fn entity(&self, reply_to: &str, session: Option<&str>) -> Result<String, Failure> {
        let path = match reply_to.split_once("://") {
            None => reply_to,
            Some((scheme, rest)) => {
                if !SCHEMES.iter().any(|known| known.eq_ignore_ascii_case(scheme)) {
                    return Err(Failure::Malformed);
                }
                let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
                let host = authority.split_once(':').map_or(authority, |(host, _)| host);
                if !host.eq_ignore_ascii_case(&self.host) {
                    return Err(Failure::Foreign);
                }
                path
            }
        };
        let name = path.strip_prefix('/').unwrap_or(path);
        let name = name.strip_suffix('/').unwrap_or(name);
        let long_session = session.is_some_and(|session| {
            session.len() >= TEXT_BYTES_MAX || session.chars().count() > SESSION_CHARS_MAX
        });
        if !is_name(name) || long_session {
            return Err(Failure::Malformed);
        }
        let own = self.own.iter().any(|own| own.eq_ignore_ascii_case(name));
        if own || !self.to.iter().any(|pattern| pattern.matches(name)) {
            return Err(Failure::NotAllowed);
        }
        Ok(name.to_ascii_lowercase())
    }
}

/// What a queue or topic may be called, with slashes inside. No `$`: what belongs to the service is no place for replies.
pub(crate) fn is_name(name: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-' | '~');
    name.len() <= NAME_CHARS_MAX && name.split('/').all(|part| !part.is_empty() && part.chars().all(plain))
}

// === impl Pattern ===

impl Pattern {
    /// Whether this name is one of them.
    pub(crate) fn matches(&self, name: &str) -> bool {
        let name = name.to_ascii_lowercase();
        match self.0.split_once('*') {
            None => name == self.0,
            Some((before, after)) => {
                name.len() >= before.len() + after.len() && name.starts_with(before) && name.ends_with(after)
            }
        }
    }
}

impl std::str::FromStr for Pattern {
    type Err = NotAName;

    fn from_str(text: &str) -> Result<Self, NotAName> {
        if text.matches('*').count() > 1 || !is_name(&text.replace('*', "x")) {
            return Err(NotAName);
        }
        Ok(Self(text.to_ascii_lowercase()))
    }
}

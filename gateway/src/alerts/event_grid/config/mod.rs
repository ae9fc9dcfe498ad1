//! One `[[alerts.event_grid]]` table.

mod endpoint;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};
use std::time::Duration;

use penstock_proto::Lane;

use super::credential::{self, SignIn};
use super::envelope::{Source, is_topic_name};
use crate::alerts::circuit::Retry;
use crate::azure::{Audience, Cloud, TokenHandle};
use crate::config::{self, ByteSize, CA_FILE, ConfigError, Key, Preset, Section, Shape, Value};
use crate::outbox::ConsumerId;

pub(super) use endpoint::{Endpoint, Proxy};

const NAME: Key = Key {
    name: "name",
    value: Value::Text { chars_max: 32 },
    default: Preset::Unset,
    help: "What this destination is called, of `a-z 0-9 -`; needed where there are several. Under another name it begins anew, with what comes from then on.",
};
const ENDPOINT: Key = Key {
    name: "endpoint",
    value: Value::Text { chars_max: 512 },
    default: Preset::Required,
    help: "Where it is published to: `https://HOST` as the portal shows it, with or without `/api/events`. `http://` only with a loopback host, for test doubles.",
};
const KIND: Key = Key {
    name: "kind",
    value: Value::Choice(Kind::NAMES),
    default: Preset::Is("topic"),
    help: "What is there: a custom `topic`, a `domain`, or a topic of a `namespace`. It has to take CloudEvents 1.0.",
};
const TOPIC: Key = Key {
    name: "topic",
    value: Value::Text { chars_max: 50 },
    default: Preset::Unset,
    help: "The topic of the namespace; required with `kind = \"namespace\"`, nothing otherwise.",
};
const AUTH: Key = Key {
    name: "auth",
    value: Value::Choice(&["key", "sas", "entra"]),
    default: Preset::Is("key"),
    help: "How it signs in: with the access `key` itself, with signatures (`sas`) made from it, or with tokens of Microsoft Entra for the identity in `[azure]`, which needs the role EventGrid Data Sender.",
};
const KEY_FILE: Key = Key {
    name: "key_file",
    value: Value::Path,
    default: Preset::Unset,
    help: "File with an access key (Base64, one line); required unless `auth = \"entra\"`. Read again when it is refused.",
};
const SECOND_KEY_FILE: Key = Key {
    name: "second_key_file",
    value: Value::Path,
    default: Preset::Unset,
    help: "File with the other access key, which is tried when the first is refused, so that keys can be renewed without a gap.",
};
const SAS_LIFETIME: Key = Key {
    name: "sas_lifetime",
    value: Value::Time { min: Duration::from_secs(60), max: Duration::from_secs(24 * 3600) },
    default: Preset::Is("1h"),
    help: "How long a signature lives; it is made anew after half of that.",
};
const SOURCE: Key = Key {
    name: "source",
    value: Value::Text { chars_max: 256 },
    default: Preset::Unset,
    help: "What `source` of every event is set to; left out, it stays `/gateways/GATEWAY`. A domain needs it, since there it names the domain's topic (3 to 50 of `A-Z a-z 0-9 -`): a fixed one, or `{tenant}` for a topic per tenant.",
};
const SOURCE_WITHOUT_TENANT: Key = Key {
    name: "source_without_tenant",
    value: Value::Text { chars_max: 256 },
    default: Preset::Unset,
    help: "What it is set to for events of no tenant, or of one whose name cannot be that of a topic; required with `source = \"{tenant}\"`, nothing otherwise.",
};
const BATCH_EVENTS_MAX: Key = Key {
    name: "batch_events_max",
    value: Value::Count { min: 1, max: 5000 },
    default: Preset::Is("500"),
    help: "Most events of a request; at most 1,000 in a namespace.",
};
const BATCH_BYTES_MAX: Key = Key {
    name: "batch_bytes_max",
    value: Value::Bytes { min: 1 << 10, max: BYTES_MAX as u64 },
    default: Preset::Is("512KiB"),
    help: "Most bytes of a request; a larger event goes alone, up to the service's 1 MiB.",
};
const TIMEOUT: Key = Key {
    name: "timeout",
    value: Value::Time { min: Duration::from_millis(100), max: Duration::from_secs(120) },
    default: Preset::Is("10s"),
    help: "How long a request may take until its answer is there. After that it is sent again, and the events may come twice.",
};
const PROXY: Key = config::proxy(
    "An HTTP proxy, as `http://HOST:PORT`. Left out, the variables `HTTPS_PROXY` and `NO_PROXY` count.",
);
const PROXY_CREDENTIALS_FILE: Key = config::proxy_credentials_file(
    "File with one line, `NAME:PASSWORD`, for a proxy that asks for them. Read at the start.",
);
const RETRY_FIRST: Key = Key {
    name: "retry_first",
    value: Value::Time { min: Duration::from_millis(1), max: Duration::from_secs(60) },
    default: Preset::Is("500ms"),
    help: "The bound of the first pause after a failure; it doubles with each further one. Pauses are drawn at random below it.",
};
const RETRY_LONGEST: Key = Key {
    name: "retry_longest",
    value: Value::Time { min: Duration::from_millis(10), max: Duration::from_secs(600) },
    default: Preset::Is("1min"),
    help: "What that bound grows to; not below `retry_first`.",
};
const PROBE_INTERVAL: Key = Key {
    name: "probe_interval",
    value: Value::Time { min: Duration::from_millis(10), max: Duration::from_secs(3600) },
    default: Preset::Is("1min"),
    help: "How often it is tried again, give or take a tenth, when the service will not take anything until somebody changes something: the key, the address, the topic.",
};
const DEAD_LETTER_BYTES_MAX: Key = Key {
    name: "dead_letter_bytes_max",
    value: Value::Bytes { min: 0, max: ByteSize::TIB },
    default: Preset::Is("64MiB"),
    help: "Most bytes of lane `dead`, others' letters included, up to which events are put there that the service never takes; never more than a quarter of `outbox.bytes_max`. Beyond it everything waits instead: nothing is dropped.",
};

/// Largest request and largest event of the service, in bytes.
pub(super) const BYTES_MAX: usize = 1 << 20;
/// Most events of a request in a namespace.
const NAMESPACE_EVENTS_MAX: usize = 1000;
/// What `source` says for a topic per tenant.
const PER_TENANT: &str = "{tenant}";

/// One `[[alerts.event_grid]]` table.
#[derive(Debug, Clone)]
pub(crate) struct Config {
    /// Tells several apart.
    pub(super) name: Option<String>,
    pub(super) endpoint: Endpoint,
    pub(super) sign_in: SignIn,
    pub(super) source: Source,
    /// What the types of events begin with.
    pub(super) type_prefix: String,
    pub(super) batch: BatchBounds,
    pub(super) retry: Retry,
    /// Most bytes of lane dead.
    pub(super) dead_letter_bytes_max: u64,
}

/// What is published to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// A custom topic.
    Topic,
    /// A domain: `source` names its topic.
    Domain,
    /// A topic of a namespace.
    Namespace,
}

/// Bounds of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct BatchBounds {
    pub(super) events: usize,
    /// Of the body; one event alone may have [`BYTES_MAX`].
    pub(super) bytes: usize,
}

/// The consumer that the outbox must be opened with.
pub(crate) fn consumer(config: &Config) -> ConsumerId {
    let name = match &config.name {
        None => "event-grid".to_owned(),
        Some(name) => format!("event-grid-{name}"),
    };
    ConsumerId { name, lane: Lane::Alerts }
}

// === impl Kind ===

impl Kind {
    const NAMES: &[&str] = &["topic", "domain", "namespace"];

    fn named(name: &str) -> Self {
        match name {
            "domain" => Self::Domain,
            "namespace" => Self::Namespace,
            _ => Self::Topic,
        }
    }
}

// === impl Config ===

impl Config {
    pub(crate) const SHAPE: Shape = Shape::list(
        "event_grid",
        "A destination for alerts in Azure Event Grid. Everything in lane `alerts` is sent there: what the gateway raises and what devices publish there.",
        &[
            NAME,
            ENDPOINT,
            KIND,
            TOPIC,
            AUTH,
            KEY_FILE,
            SECOND_KEY_FILE,
            SAS_LIFETIME,
            SOURCE,
            SOURCE_WITHOUT_TENANT,
            BATCH_EVENTS_MAX,
            BATCH_BYTES_MAX,
            TIMEOUT,
            CA_FILE,
            PROXY,
            PROXY_CREDENTIALS_FILE,
            RETRY_FIRST,
            RETRY_LONGEST,
            PROBE_INTERVAL,
            DEAD_LETTER_BYTES_MAX,
        ],
    );

    /// Reads one table. `type_prefix` is what the types of the stage's events begin with.
    ///
    /// # Errors
    ///
    /// Names the key, what it was given and what it takes.
    pub(crate) fn read(section: &mut Section, cloud: Cloud, type_prefix: &str) -> Result<Self, ConfigError> {
        let name = read_name(section)?;
        let kind = Kind::named(&section.choice(&KIND)?);
        let endpoint = read_endpoint(section, kind)?;
        Ok(Self {
            name,
            endpoint,
            sign_in: read_sign_in(section, cloud)?,
            source: read_source(section, kind)?,
            type_prefix: type_prefix.to_owned(),
            batch: read_batch(section, kind)?,
            retry: read_retry(section)?,
            dead_letter_bytes_max: section.bytes(&DEAD_LETTER_BYTES_MAX)?.0,
        })
    }

    /// The name that tells it from others, if it has one.
    pub(crate) fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    /// The tokens to sign in with, if it is done with tokens.
    pub(crate) const fn tokens(&self) -> Option<&TokenHandle> {
        match &self.sign_in {
            SignIn::Entra(tokens) => Some(tokens),
            SignIn::Key(_) | SignIn::Sas { .. } => None,
        }
    }

    /// The error for a name that two of the tables have, or for several of which one has none.
    pub(crate) fn same_name(section: &Section, name: Option<&str>) -> ConfigError {
        match name {
            None => section.missing(&NAME),
            Some(name) => section.refuse(&NAME, name, "a name that no other has"),
        }
    }
}

fn read_name(section: &mut Section) -> Result<Option<String>, ConfigError> {
    let name = section.text_if_set(&NAME)?;
    let plain = |name: &str| name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
    match name {
        Some(name) if !plain(&name) => Err(section.refuse(&NAME, &name, "a name of a-z 0-9 -")),
        name => Ok(name),
    }
}

fn read_endpoint(section: &mut Section, kind: Kind) -> Result<Endpoint, ConfigError> {
    let text = section.text(&ENDPOINT)?;
    let topic = section.text_if_set(&TOPIC)?;
    match (kind, &topic) {
        (Kind::Namespace, None) => return Err(section.missing(&TOPIC)),
        (Kind::Namespace, Some(topic)) if !is_topic_name(topic) => {
            return Err(section.refuse(&TOPIC, topic, "3 to 50 of A-Z a-z 0-9 -"));
        }
        (Kind::Topic | Kind::Domain, Some(topic)) => {
            return Err(section.refuse(&TOPIC, topic, "nothing unless kind is \"namespace\""));
        }
        _ => {}
    }
    let url = Endpoint::url_of(&text, kind, topic.as_deref());
    let url = url.map_err(|expected| section.refuse(&ENDPOINT, &text, expected))?;
    let proxy = match section.proxy(&PROXY, &PROXY_CREDENTIALS_FILE)? {
        None => None,
        Some((text, None)) => Some(read_proxy(section, &text, None)?),
        Some((text, Some(file))) => {
            let line = secret_line(section, &PROXY_CREDENTIALS_FILE, &file)?;
            let credentials = line.split_once(':').map(|(name, word)| (name.to_owned(), word.to_owned()));
            let credentials = credentials.ok_or_else(|| {
                section.refuse(
                    &PROXY_CREDENTIALS_FILE,
                    &file.display().to_string(),
                    "a file with NAME:PASSWORD",
                )
            })?;
            Some(read_proxy(section, &text, Some(credentials))?)
        }
    };
    let ca_file = section.path_if_set(&CA_FILE)?;
    if let Some(file) = &ca_file {
        Endpoint::check_authorities(file).map_err(|reason| {
            section.refuse(
                &CA_FILE,
                &file.display().to_string(),
                &format!("a file with certificates ({reason})"),
            )
        })?;
    }
    Ok(Endpoint { url, kind, timeout: section.time(&TIMEOUT)?, ca_file, proxy })
}

fn read_proxy(
    section: &Section,
    text: &str,
    credentials: Option<(String, String)>,
) -> Result<Proxy, ConfigError> {
    Proxy::parse(text, credentials).ok_or_else(|| section.refuse(&PROXY, text, "http://HOST:PORT"))
}

fn read_sign_in(section: &mut Section, cloud: Cloud) -> Result<SignIn, ConfigError> {
    let auth = section.choice(&AUTH)?;
    let first = section.path_if_set(&KEY_FILE)?;
    let second = section.path_if_set(&SECOND_KEY_FILE)?;
    let lifetime = section.time(&SAS_LIFETIME)?;
    if auth == "entra" {
        for (key, file) in [(&KEY_FILE, &first), (&SECOND_KEY_FILE, &second)] {
            if let Some(file) = file {
                let file = file.display().to_string();
                return Err(section.refuse(key, &file, "nothing with auth = \"entra\""));
            }
        }
        return Ok(SignIn::Entra(TokenHandle::new(Audience::event_grid(cloud))));
    }
    let first = first.ok_or_else(|| section.missing(&KEY_FILE))?;
    check_key(section, &KEY_FILE, &first)?;
    if let Some(second) = &second {
        check_key(section, &SECOND_KEY_FILE, second)?;
    }
    let files: Vec<PathBuf> = [Some(first), second].into_iter().flatten().collect();
    Ok(if auth == "sas" { SignIn::Sas { files, lifetime } } else { SignIn::Key(files) })
}

fn check_key(section: &Section, key: &Key, file: &Path) -> Result<(), ConfigError> {
    credential::check_key_file(file).map(drop).map_err(|reason| {
        let expected = format!("a file with an access key in Base64 (it {reason})");
        section.refuse(key, &file.display().to_string(), &expected)
    })
}

fn secret_line(section: &Section, key: &Key, file: &Path) -> Result<String, ConfigError> {
    crate::azure::check_secret_file(file).map_err(|reason| {
        section.refuse(key, &file.display().to_string(), &format!("a file with one line (it {reason})"))
    })
}

fn read_source(section: &mut Section, kind: Kind) -> Result<Source, ConfigError> {
    let source = section.text_if_set(&SOURCE)?;
    let others = section.text_if_set(&SOURCE_WITHOUT_TENANT)?;
    let domain = kind == Kind::Domain;
    let checked = |key: &Key, text: String| {
        if domain && !is_topic_name(&text) {
            let expected = "the name of a domain topic, 3 to 50 of A-Z a-z 0-9 -, or \"{tenant}\"";
            return Err(section.refuse(key, &text, expected));
        }
        if text.contains(|c: char| c.is_control() || c.is_whitespace() || "<>\"{}|\\^`".contains(c)) {
            return Err(section.refuse(key, &text, "a URI reference, or \"{tenant}\""));
        }
        Ok(text)
    };
    match (source, others) {
        (Some(source), others) if source == PER_TENANT => {
            let others = others.ok_or_else(|| section.missing(&SOURCE_WITHOUT_TENANT))?;
            Ok(Source::PerTenant { others: checked(&SOURCE_WITHOUT_TENANT, others)? })
        }
        (_, Some(others)) => {
            let expected = "nothing unless source is \"{tenant}\"";
            Err(section.refuse(&SOURCE_WITHOUT_TENANT, &others, expected))
        }
        (Some(source), None) => Ok(Source::Fixed(checked(&SOURCE, source)?)),
        (None, None) if domain => Err(section.missing(&SOURCE)),
        (None, None) => Ok(Source::AsItIs),
    }
}

fn read_batch(section: &mut Section, kind: Kind) -> Result<BatchBounds, ConfigError> {
    let events = section.length(&BATCH_EVENTS_MAX)?;
    if kind == Kind::Namespace && events > NAMESPACE_EVENTS_MAX {
        let expected = format!("at most {NAMESPACE_EVENTS_MAX}, since kind is \"namespace\"");
        return Err(section.refuse(&BATCH_EVENTS_MAX, &events.to_string(), &expected));
    }
    Ok(BatchBounds { events, bytes: section.bytes(&BATCH_BYTES_MAX)?.as_usize() })
}

fn read_retry(section: &mut Section) -> Result<Retry, ConfigError> {
    let (first, longest) = (section.time(&RETRY_FIRST)?, section.time(&RETRY_LONGEST)?);
    if longest < first {
        let value = config::show_duration(longest);
        return Err(section.refuse(&RETRY_LONGEST, &value, "at least retry_first"));
    }
    Ok(Retry { first, longest, probe_interval: section.time(&PROBE_INTERVAL)? })
}

//! Connection strings:
//! `Endpoint=sb://…;SharedAccessKeyName=…;SharedAccessKey=…[;EntityPath=…][;UseDevelopmentEmulator=true]`.

use std::fmt;
use std::path::Path;

/// Largest file that is read for a connection string.
const FILE_BYTES_MAX: u64 = 4096;

/// A checked connection string. It is a secret: `Debug` shows the host only.
#[derive(Clone, PartialEq, Eq)]
pub struct ConnectionString {
    text: String,
    host: String,
    port: Option<u16>,
    key_name: String,
    key: String,
    entity: Option<String>,
    development: bool,
}

/// Why a connection string was refused. Never shows the string.
#[derive(Debug, thiserror::Error)]
pub enum ConnectionStringError {
    /// The file cannot be read.
    #[error("{path}: cannot be read")]
    Unreadable {
        /// The file.
        path: String,
        /// Why.
        source: std::io::Error,
    },
    /// Larger than any connection string.
    #[error("a connection string has at most {FILE_BYTES_MAX} bytes")]
    TooLong,
    /// A part without `=`, or more than one line.
    #[error("not a connection string: expected Name=Value parts between semicolons on one line")]
    Shape,
    /// A part that must be there.
    #[error("the connection string has no {0}")]
    Missing(&'static str),
    /// The endpoint is not `sb://HOST/`.
    #[error("the endpoint of the connection string is not sb://HOST/")]
    Endpoint,
    /// `UseDevelopmentEmulator` is neither `true` nor `false`.
    #[error("UseDevelopmentEmulator of the connection string is neither true nor false")]
    Development,
}

impl ConnectionString {
    /// Reads and checks a file that holds one connection string; white space around it is ignored.
    ///
    /// # Errors
    ///
    /// When the file cannot be read or holds something else.
    pub fn read(path: &Path) -> Result<Self, ConnectionStringError> {
        let unreadable =
            |source| ConnectionStringError::Unreadable { path: path.display().to_string(), source };
        if std::fs::metadata(path).map_err(unreadable)?.len() > FILE_BYTES_MAX {
            return Err(ConnectionStringError::TooLong);
        }
        Self::parse(&std::fs::read_to_string(path).map_err(unreadable)?)
    }

    /// Checks a connection string; white space around it is ignored.
    ///
    /// # Errors
    ///
    /// When a part is missing or malformed.
    pub fn parse(text: &str) -> Result<Self, ConnectionStringError> {
        let text = text.trim();
        if text.contains(['\n', '\r', '\0']) {
            return Err(ConnectionStringError::Shape);
        }
        let (mut endpoint, mut name, mut key, mut entity) = (None, None, None, None);
        let mut development = false;
        for part in text.split(';').filter(|part| !part.is_empty()) {
            let (field, value) = part.split_once('=').ok_or(ConnectionStringError::Shape)?;
            match field.trim().to_ascii_lowercase().as_str() {
                "endpoint" => endpoint = Some(value.trim()),
                "sharedaccesskeyname" => name = Some(value),
                "sharedaccesskey" => key = Some(value),
                "entitypath" => entity = Some(value.trim().to_owned()),
                "usedevelopmentemulator" => {
                    let value = value.trim().parse();
                    development = value.map_err(|_| ConnectionStringError::Development)?;
                }
                // Others exist (`TransportType`) and mean nothing here.
                _ => {}
            }
        }
        let given = |value: Option<&str>, part| {
            let value = value.map(str::trim).filter(|value| !value.is_empty());
            value.map(str::to_owned).ok_or(ConnectionStringError::Missing(part))
        };
        let endpoint = endpoint.ok_or(ConnectionStringError::Missing("Endpoint"))?;
        let key_name = given(name, "SharedAccessKeyName")?;
        let key = given(key, "SharedAccessKey")?;
        let (host, port) = host(endpoint)?;
        Ok(Self { text: text.to_owned(), host, port, key_name, key, entity, development })
    }

    /// The host of the endpoint, without a port.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The port of the endpoint, if it names one.
    #[must_use]
    pub const fn port(&self) -> Option<u16> {
        self.port
    }

    /// Whether it is for an emulator on a developer's machine, which does without TLS
    /// (`UseDevelopmentEmulator=true`).
    #[must_use]
    pub const fn is_development(&self) -> bool {
        self.development
    }

    /// The name of the key.
    pub(crate) fn key_name(&self) -> &str {
        &self.key_name
    }

    /// The key itself.
    pub(crate) fn key(&self) -> &str {
        &self.key
    }

    /// The event hub or queue it is limited to, if it is.
    #[must_use]
    pub fn entity(&self) -> Option<&str> {
        self.entity.as_deref()
    }

    /// The whole string, as the password of Event Hubs' Kafka endpoint.
    pub(crate) fn secret(&self) -> &str {
        &self.text
    }
}

impl fmt::Debug for ConnectionString {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConnectionString").field("host", &self.host).finish_non_exhaustive()
    }
}

fn host(endpoint: &str) -> Result<(String, Option<u16>), ConnectionStringError> {
    let host = endpoint.strip_prefix("sb://").ok_or(ConnectionStringError::Endpoint)?;
    let host = host.trim_end_matches('/');
    let (host, port) = match host.rsplit_once(':') {
        None => (host, None),
        Some((host, port)) => (host, Some(port.parse().map_err(|_| ConnectionStringError::Endpoint)?)),
    };
    let plain = host.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-'));
    if plain && !host.is_empty() { Ok((host.to_owned(), port)) } else { Err(ConnectionStringError::Endpoint) }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    const GOOD: &str =
        "Endpoint=sb://site.servicebus.windows.net/;SharedAccessKeyName=send;SharedAccessKey=c2VjcmV0PT0=";

    fn check(text: &str, expected: Result<(&str, Option<&str>), &str>) {
        let parsed = ConnectionString::parse(text).map_err(|error| error.to_string());
        let seen = parsed.as_ref().map(|c| (c.host(), c.entity())).map_err(String::as_str);
        assert_eq!(seen, expected, "{text}");
    }

    #[test]
    fn strings_from_the_portal_are_understood() {
        check(GOOD, Ok(("site.servicebus.windows.net", None)));
        check(&format!("  {GOOD};EntityPath=hub\n"), Ok(("site.servicebus.windows.net", Some("hub"))));
        check(
            "Endpoint=sb://localhost:5671;SharedAccessKeyName=a;SharedAccessKey=b=;UseDevelopmentEmulator=true;",
            Ok(("localhost", None)),
        );
    }

    #[test]
    fn keys_port_and_development_are_told_apart() {
        let text = "Endpoint=sb://localhost:5671;SharedAccessKeyName= a ;SharedAccessKey=b=;";
        let check = |tail: &str, expected: Option<bool>| {
            let parsed = ConnectionString::parse(&format!("{text}{tail}"));
            assert_eq!(parsed.as_ref().ok().map(ConnectionString::is_development), expected, "{tail}");
        };
        check("", Some(false));
        check("UseDevelopmentEmulator=true;", Some(true));
        check("UseDevelopmentEmulator=false", Some(false));
        check("UseDevelopmentEmulator=yes", None);
        let parsed = ConnectionString::parse(text).unwrap();
        assert_eq!((parsed.port(), parsed.key_name(), parsed.key()), (Some(5671), "a", "b="));
        let parsed = ConnectionString::parse(GOOD).unwrap();
        assert_eq!((parsed.port(), parsed.key_name(), parsed.key()), (None, "send", "c2VjcmV0PT0="));
        let parsed = ConnectionString::parse("Endpoint=sb://a:b/;SharedAccessKeyName=a;SharedAccessKey=b");
        assert!(matches!(parsed, Err(ConnectionStringError::Endpoint)));
    }

    #[test]
    fn what_is_missing_is_named() {
        check("SharedAccessKeyName=a;SharedAccessKey=b", Err("the connection string has no Endpoint"));
        check("Endpoint=sb://a/;SharedAccessKey=b", Err("the connection string has no SharedAccessKeyName"));
        check(
            "Endpoint=sb://a/;SharedAccessKeyName=b;SharedAccessKey=",
            Err("the connection string has no SharedAccessKey"),
        );
        check(
            "Endpoint=https://a/;SharedAccessKeyName=b;SharedAccessKey=c",
            Err("the endpoint of the connection string is not sb://HOST/"),
        );
        check(
            "hello",
            Err("not a connection string: expected Name=Value parts between semicolons on one line"),
        );
        check(
            &format!("{GOOD}\n{GOOD}"),
            Err("not a connection string: expected Name=Value parts between semicolons on one line"),
        );
    }

    #[test]
    fn the_secret_is_not_shown() {
        let shown = format!("{:?}", ConnectionString::parse(GOOD).unwrap());
        assert!(shown.contains("site.servicebus.windows.net") && !shown.contains("c2VjcmV0"), "{shown}");
        let broken = ConnectionString::parse("Endpoint=sb://a/;SharedAccessKey=c2VjcmV0").unwrap_err();
        assert!(!format!("{broken} {broken:?}").contains("c2VjcmV0"));
    }

    #[test]
    fn files_are_bounded() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(GOOD.as_bytes()).unwrap();
        assert_eq!(ConnectionString::read(file.path()).unwrap().secret(), GOOD);
        file.write_all(&[b'x'; 5000]).unwrap();
        assert!(matches!(ConnectionString::read(file.path()), Err(ConnectionStringError::TooLong)));
        let missing = ConnectionString::read(Path::new("/nonexistent/key"));
        assert!(matches!(missing, Err(ConnectionStringError::Unreadable { .. })));
    }
}

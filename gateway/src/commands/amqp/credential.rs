//! By what right a connection uses an entity.

use std::fmt;
use std::time::Duration;

use super::config::{Connection, SignIn};
use super::dial::SetUpError;
use super::error::LinkError;
use super::sas;
use crate::azure::{ConnectionString, TokenHandle};
use crate::supervise::clock;

/// What tokens are made from.
pub(super) enum Credential {
    /// A key of the namespace.
    Key(ConnectionString),
    /// Microsoft Entra.
    Entra(TokenHandle),
}

/// A token for one entity. It is a secret.
pub(super) struct Token {
    /// What `$cbs` calls its type.
    pub(super) kind: &'static str,
    /// The secret itself.
    pub(super) secret: String,
    /// How long it lives from now; above zero.
    pub(super) life: Duration,
}

/// How long the signatures live that we make.
const SIGNATURE_LIFE: Duration = Duration::from_secs(3600);

// === impl Credential ===

impl Credential {
    pub(super) fn new(connection: &Connection, tokens: Option<TokenHandle>) -> Result<Self, SetUpError> {
        match &connection.sign_in {
            SignIn::Key(connection_string) => Ok(Self::Key(connection_string.clone())),
            SignIn::Entra { .. } => tokens.map(Self::Entra).ok_or(SetUpError::NoTokens),
        }
    }

    /// A token for `audience`, which is the address of an entity with its host.
    pub(super) fn token(&self, audience: &str) -> Result<Token, LinkError> {
        match self {
            Self::Key(key) => {
                let expiry_s = clock::unix_ms() / 1000 + SIGNATURE_LIFE.as_secs();
                let secret = sas::sign(audience, key.key_name(), key.key(), expiry_s);
                Ok(Token { kind: "servicebus.windows.net:sastoken", secret, life: SIGNATURE_LIFE })
            }
            Self::Entra(tokens) => {
                let bearer = tokens.bearer().map_err(|error| LinkError::lost(error.to_string()))?;
                Ok(Token { kind: "jwt", secret: bearer.token, life: bearer.life })
            }
        }
    }

    /// The service refused a token that lives.
    pub(super) fn refused(&self) {
        if let Self::Entra(tokens) = self {
            tokens.refused();
        }
    }
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Key(_) => "Key",
            Self::Entra(_) => "Entra",
        })
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Token").field("kind", &self.kind).field("life", &self.life).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::azure::Audience;

    #[test]
    fn a_key_makes_a_signature_for_an_hour_and_nothing_shows_it() {
        let text =
            "Endpoint=sb://a.servicebus.windows.net/;SharedAccessKeyName=gateway;SharedAccessKey=c2VjcmV0";
        let connection = Connection::new(SignIn::Key(ConnectionString::parse(text).unwrap()));
        let credential = Credential::new(&connection, None).unwrap();
        let token = credential.token("sb://a.servicebus.windows.net/commands").unwrap();
        assert_eq!((token.kind, token.life), ("servicebus.windows.net:sastoken", Duration::from_secs(3600)));
        let expected = "SharedAccessSignature sr=sb%3A%2F%2Fa.servicebus.windows.net%2Fcommands&sig=";
        assert!(
            token.secret.starts_with(expected) && token.secret.ends_with("&skn=gateway"),
            "{}",
            token.secret
        );
        let expiry: u64 =
            token.secret.split("&se=").nth(1).unwrap().split('&').next().unwrap().parse().unwrap();
        let in_an_hour = clock::unix_ms() / 1000 + 3600;
        assert!((in_an_hour - 5..=in_an_hour).contains(&expiry), "{expiry}");
        assert_eq!(format!("{credential:?} {token:?}").matches("Signature").count(), 0);
    }

    #[test]
    fn entra_needs_a_source_and_gives_what_it_has() {
        let host = "a.servicebus.windows.net";
        let connection = Connection::new(SignIn::Entra { host: host.into() });
        assert!(matches!(Credential::new(&connection, None), Err(SetUpError::NoTokens)));
        let tokens = TokenHandle::new(Audience::namespace(host));
        let credential = Credential::new(&connection, Some(tokens.clone())).unwrap();
        let error = credential.token("sb://a/q").unwrap_err();
        assert!(matches!(error, LinkError::Lost(_)), "it may come: {error}");
        tokens.put("first.jwt", Duration::from_secs(600));
        let token = credential.token("sb://a/q").unwrap();
        assert_eq!((token.kind, token.secret.as_str()), ("jwt", "first.jwt"));
        assert!(token.life <= Duration::from_secs(600) && token.life > Duration::from_secs(590));
    }
}

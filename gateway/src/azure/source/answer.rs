//! What a token endpoint answers.

use std::time::{Duration, Instant};

use serde::Deserialize;

use super::{FetchError, Token};

/// An answer as it came.
pub(super) struct Answer<'a> {
    /// Who gave it, for people.
    pub(super) host: &'a str,
    pub(super) status: u16,
    pub(super) retry_after: Option<&'a str>,
    pub(super) body: &'a [u8],
    /// When the request was sent; the token's life is counted from there.
    pub(super) asked: Instant,
    /// The wall clock when the answer came.
    pub(super) unix_seconds: u64,
}

#[derive(Deserialize)]
struct Granted {
    access_token: String,
    expires_in: Option<Seconds>,
    expires_on: Option<Seconds>,
}

/// The metadata service writes numbers as text.
#[derive(Deserialize)]
#[serde(untagged)]
enum Seconds {
    Number(u64),
    Text(String),
}

#[derive(Deserialize)]
struct Refusal {
    error: Option<String>,
    error_description: Option<String>,
}

/// Longest life that is believed.
const LIFE_MAX: Duration = Duration::from_secs(7 * 86_400);
/// Longest reason that is shown, in characters.
const REASON_MAX: usize = 300;

impl Answer<'_> {
    pub(super) fn token(&self) -> Result<Token, FetchError> {
        if self.status != 200 {
            return Err(self.refusal());
        }
        let wrong = |reason| FetchError::Answer { host: self.host.to_owned(), reason };
        let granted: Granted =
            serde_json::from_slice(self.body).map_err(|_| wrong("not JSON with access_token"))?;
        let left = granted.expires_in.and_then(Seconds::get);
        let end =
            || granted.expires_on.and_then(Seconds::get).map(|end| end.saturating_sub(self.unix_seconds));
        let life = left.or_else(end).ok_or_else(|| wrong("neither expires_in nor expires_on"))?;
        if life == 0 {
            return Err(wrong("it has expired already"));
        }
        let expires = self.asked + Duration::from_secs(life).min(LIFE_MAX);
        Token::new(granted.access_token, expires).ok_or_else(|| wrong("characters that no token has"))
    }

    fn refusal(&self) -> FetchError {
        let (host, status, reason) = (self.host.to_owned(), self.status, self.reason());
        // 404 and 410: a machine that was just started, or whose metadata service is being replaced.
        if matches!(status, 404 | 408 | 410 | 429) || status >= 500 {
            let retry_after = self.retry_after.and_then(|text| text.trim().parse().ok());
            return FetchError::Busy {
                host,
                status,
                reason,
                retry_after: retry_after.map(Duration::from_secs),
            };
        }
        FetchError::Refused { host, status, reason }
    }

    /// The endpoint's own words in one line.
    fn reason(&self) -> String {
        let refusal =
            serde_json::from_slice(self.body).unwrap_or(Refusal { error: None, error_description: None });
        let text = match (refusal.error, refusal.error_description) {
            (Some(error), Some(description)) => format!("{error}: {description}"),
            (Some(text), None) | (None, Some(text)) => text,
            (None, None) => return "without a reason".to_owned(),
        };
        let words = text.split(|c: char| c.is_whitespace() || c.is_control()).filter(|word| !word.is_empty());
        let line = words.collect::<Vec<_>>().join(" ");
        let short: String = line.chars().take(REASON_MAX).collect();
        if short.len() < line.len() { format!("{short}…") } else { short }
    }
}

impl Seconds {
    fn get(self) -> Option<u64> {
        match self {
            Self::Number(seconds) => Some(seconds),
            Self::Text(text) => text.trim().parse().ok(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::supervise::clock;

    const NOW: u64 = 1_800_000_000;

    fn answer<'a>(status: u16, body: &'a str, asked: Instant) -> Answer<'a> {
        Answer {
            host: "login.example",
            status,
            retry_after: None,
            body: body.as_bytes(),
            asked,
            unix_seconds: NOW,
        }
    }

    fn check(status: u16, body: &str, expected: Result<(&str, u64), &str>) {
        let asked = clock::now();
        let seen = answer(status, body, asked).token();
        let seen = seen.map(|token| (token.secret().to_owned(), token.life(asked).as_secs()));
        let seen = seen.map_err(|error| error.to_string());
        assert_eq!(
            seen,
            expected.map(|(secret, life)| (secret.to_owned(), life)).map_err(str::to_owned),
            "{body}"
        );
    }

    #[test]
    fn tokens_of_tenants_and_of_the_metadata_service_are_understood() {
        check(
            200,
            r#"{"token_type":"Bearer","expires_in":3599,"access_token":"a.b.c"}"#,
            Ok(("a.b.c", 3599)),
        );
        let text = r#"{"access_token":"x","expires_in":"86400","expires_on":"1","resource":"r"}"#;
        check(200, text, Ok(("x", 86_400)));
        check(200, r#"{"access_token":"x","expires_on":"1800000060"}"#, Ok(("x", 60)));
        check(200, r#"{"access_token":"x","expires_in":99999999999}"#, Ok(("x", 7 * 86_400)));
    }

    #[test]
    fn what_is_no_token_is_said() {
        let wrong = |reason: &str| format!("the answer of login.example holds no token: {reason}");
        check(200, "<html>", Err(&wrong("not JSON with access_token")));
        check(200, r#"{"access_token":"x"}"#, Err(&wrong("neither expires_in nor expires_on")));
        check(200, r#"{"access_token":"x","expires_in":0}"#, Err(&wrong("it has expired already")));
        check(200, r#"{"access_token":"x","expires_on":"5"}"#, Err(&wrong("it has expired already")));
        check(200, r#"{"access_token":"a b","expires_in":5}"#, Err(&wrong("characters that no token has")));
        check(200, r#"{"access_token":"","expires_in":5}"#, Err(&wrong("characters that no token has")));
    }

    #[test]
    fn a_refusal_is_shown_in_one_short_line() {
        let body =
            r#"{"error":"invalid_client","error_description":"AADSTS7000215: Invalid client\r\nsecret."}"#;
        check(
            401,
            body,
            Err("login.example answered 401: invalid_client: AADSTS7000215: Invalid client secret."),
        );
        check(302, "", Err("login.example answered 302: without a reason"));
        let long = format!(r#"{{"error":"{}"}}"#, "é".repeat(1000));
        let error = answer(400, &long, clock::now()).token().unwrap_err().to_string();
        assert_eq!(error.chars().count(), "login.example answered 400: ".len() + REASON_MAX + 1);
    }

    #[test]
    fn a_busy_endpoint_says_when_to_come_again() {
        let disposed = |status, retry_after| {
            let error = Answer { retry_after, ..answer(status, "{}", clock::now()) }.token().unwrap_err();
            (error.outcome(), error.retry_after().map(|pause| pause.as_secs()))
        };
        assert_eq!(disposed(429, Some("17")), ("busy", Some(17)));
        assert_eq!(disposed(503, Some("Fri, 31 Dec 1999 23:59:59 GMT")), ("busy", None));
        assert_eq!(disposed(410, None), ("busy", None));
        assert_eq!(disposed(404, None), ("busy", None));
        assert_eq!(disposed(400, Some("17")), ("refused", None));
    }
}

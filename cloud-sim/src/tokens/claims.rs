//! What a token says, as text: the claims as JSON in hexadecimal, a dot, a checksum.

use serde::{Deserialize, Serialize};

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Claims {
    #[serde(rename = "aud")]
    pub(super) audience: String,
    #[serde(rename = "appid")]
    pub(super) client_id: String,
    pub(super) issued_ms: u64,
    pub(super) expires_ms: u64,
}

/// Longest token that is read.
const LENGTH_MAX: usize = 4096;

impl Claims {
    pub(super) fn sign(&self, key: u64) -> String {
        let json = serde_json::to_vec(self).unwrap_or_default();
        let text: String = json.iter().map(|byte| format!("{byte:02x}")).collect();
        format!("sim.{text}.{:08x}", checksum(&json, key))
    }

    /// What an own token says.
    pub(super) fn verify(token: &str, key: u64) -> Option<Self> {
        if token.len() > LENGTH_MAX {
            return None;
        }
        let (text, sum) = token.strip_prefix("sim.")?.split_once('.')?;
        let pair = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
        let json: Vec<u8> = text.as_bytes().chunks(2).map(pair).collect::<Option<_>>()?;
        let sound = u32::from_str_radix(sum, 16).ok()? == checksum(&json, key);
        if sound { serde_json::from_slice(&json).ok() } else { None }
    }
}

fn checksum(json: &[u8], key: u64) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&key.to_be_bytes()), json)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::proptest;

    use super::Claims;

    fn claims() -> Claims {
        Claims { audience: "https://a".into(), client_id: "b".into(), issued_ms: 1, expires_ms: u64::MAX }
    }

    #[test]
    fn own_tokens_are_read_and_others_are_not() {
        let token = claims().sign(7);
        assert_eq!(Claims::verify(&token, 7), Some(claims()));
        assert_eq!(Claims::verify(&token, 8), None);
        let bent = token.replacen("61", "62", 1);
        assert_ne!(bent, token);
        assert_eq!(Claims::verify(&bent, 7), None);
    }

    proptest! {
        #[test]
        fn junk_never_panics(text in "(sim\\.)?[0-9a-fé.]{0,40}") {
            assert_eq!(Claims::verify(&text, 7), None);
        }
    }
}

//! `ApiVersions`: what the client may ask for.

use bytes::BufMut;

use super::{ApiKey, ErrorCode, length_i32};

/// Writes the answer to a request of `version`.
///
/// Versions up to 3 are answered in kind; the header of the answer stays version 0 even for the flexible
/// version 3, because a client cannot yet know what the broker speaks. A version beyond is answered in
/// version 0 with `UNSUPPORTED_VERSION` and the list, from which the client picks again.
pub(crate) fn encode(output: &mut Vec<u8>, version: i16) {
    if version == 3 {
        encode_flexible(output);
        return;
    }
    let known = ApiKey::ApiVersions.versions().contains(&version);
    let error = if known { ErrorCode::NONE } else { ErrorCode::UNSUPPORTED_VERSION };
    output.put_i16(error.0);
    output.put_i32(length_i32(ApiKey::ALL.len()));
    for key in ApiKey::ALL {
        put_range(output, key);
    }
    if known && version >= 1 {
        output.put_i32(0);
    }
}

fn encode_flexible(output: &mut Vec<u8>) {
    const { assert!(ApiKey::ALL.len() < 127, "the count fits one byte of a varint") };
    const COUNT_PLUS_ONE: u8 = 9;
    const { assert!(ApiKey::ALL.len() + 1 == 9, "keep COUNT_PLUS_ONE in step") };
    output.put_i16(ErrorCode::NONE.0);
    output.put_u8(COUNT_PLUS_ONE);
    for key in ApiKey::ALL {
        put_range(output, key);
        output.put_u8(0);
    }
    output.put_i32(0);
    output.put_u8(0);
}

fn put_range(output: &mut Vec<u8>, key: ApiKey) {
    output.put_i16(key.code());
    output.put_i16(*key.versions().start());
    output.put_i16(*key.versions().end());
}

#[cfg(test)]
mod tests {
    use super::encode;

    #[test]
    fn sizes_follow_the_version() {
        for (version, expected) in [(0, 6 + 8 * 6), (1, 10 + 8 * 6), (2, 10 + 8 * 6), (3, 8 + 8 * 7)] {
            let mut output = Vec::new();
            encode(&mut output, version);
            assert_eq!(output.len(), expected, "version {version}");
        }
    }

    #[test]
    fn a_newer_version_gets_the_list_in_version_zero() {
        let mut output = Vec::new();
        encode(&mut output, 4);
        assert_eq!(output[..2], [0, 35]);
        assert_eq!(output.len(), 6 + 8 * 6);
    }
}

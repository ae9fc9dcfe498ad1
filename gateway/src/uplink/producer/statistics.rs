//! What the uplink wants to know from librdkafka's statistics: whether the service throttles.

use std::collections::HashMap;

use serde::Deserialize;

/// The part of the statistics that is read; the rest, some kilobytes for each topic, is passed over.
#[derive(Deserialize)]
struct Statistics {
    #[serde(default)]
    brokers: HashMap<String, Broker>,
}

#[derive(Deserialize)]
struct Broker {
    #[serde(default)]
    throttle: Throttle,
}

/// Over the answers of the last interval that were held back.
#[derive(Default, Deserialize)]
struct Throttle {
    /// Their mean in milliseconds.
    #[serde(default)]
    avg: i64,
}

/// The mean throttle time of the last interval in milliseconds, of the broker with the longest one; 0 if no answer
/// was held back, or the statistics cannot be read.
pub(super) fn throttle_ms(statistics: &[u8]) -> u64 {
    match serde_json::from_slice::<Statistics>(statistics) {
        Ok(Statistics { brokers }) => {
            let times = brokers.values().map(|broker| broker.throttle.avg.try_into().unwrap_or(0));
            times.max().unwrap_or(0)
        }
        Err(error) => {
            tracing::debug!(%error, "the client library's statistics cannot be read");
            0
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(statistics: &str, expected: u64) {
        assert_eq!(throttle_ms(statistics.as_bytes()), expected, "{statistics}");
    }

    #[test]
    fn the_longest_mean_of_a_broker_counts() {
        let broker = |avg: i64| format!(r#"{{"tx":7,"throttle":{{"min":1,"max":900,"avg":{avg},"cnt":3}}}}"#);
        check(
            &format!(r#"{{"name":"x","brokers":{{"a":{},"b":{}}},"topics":{{}}}}"#, broker(200), broker(70)),
            200,
        );
        check(&format!(r#"{{"brokers":{{"a":{}}}}}"#, broker(-1)), 0);
    }

    #[test]
    fn what_is_not_there_is_no_throttling() {
        check(r#"{"name":"x"}"#, 0);
        check(r#"{"brokers":{"a":{}}}"#, 0);
        check("not JSON", 0);
    }
}

//! The request to an edge node to tell its births again: an NCMD with `Node Control/Rebirth` (Sparkplug 3.0, sections
//! 4.5, 5.9 and 6.4.27).

use super::topic::NAMESPACE;
use crate::alerts::measure::Rebirth;

/// The metric's name; edge nodes give it no alias.
const REBIRTH: &str = "Node Control/Rebirth";
/// The data type Boolean.
const BOOLEAN: u64 = 11;

/// How a field is written: as a varint, or as its length and its bytes.
const VARINT: u32 = 0;
const SIZED: u32 = 2;

impl Rebirth {
    /// Where the edge node listens.
    pub(crate) fn topic(&self) -> String {
        [NAMESPACE, &self.group, "NCMD", &self.edge_node].join("/")
    }

    /// What it is told at `now_ms`, in Unix milliseconds. Requests have no sequence number.
    pub(crate) fn payload(now_ms: u64) -> Vec<u8> {
        let mut metric = Vec::new();
        sized(&mut metric, 1, REBIRTH.as_bytes());
        number(&mut metric, 3, now_ms);
        number(&mut metric, 4, BOOLEAN);
        number(&mut metric, 14, u64::from(true));
        let mut payload = Vec::new();
        number(&mut payload, 1, now_ms);
        sized(&mut payload, 2, &metric);
        payload
    }
}

fn number(out: &mut Vec<u8>, field: u32, value: u64) {
    varint(out, u64::from(field << 3 | VARINT));
    varint(out, value);
}

fn sized(out: &mut Vec<u8>, field: u32, bytes: &[u8]) {
    varint(out, u64::from(field << 3 | SIZED));
    varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

fn varint(out: &mut Vec<u8>, mut value: u64) {
    loop {
        let [low, ..] = value.to_le_bytes();
        value >>= 7;
        if value == 0 {
            return out.push(low & 0x7f);
        }
        out.push(low | 0x80);
    }
}

#[cfg(test)]
mod tests {
    use super::super::payload::{Metric, Value, check, metrics};
    use super::*;

    #[test]
    fn it_is_what_the_specification_asks_for() {
        let wish =
            Rebirth { group: "plant 1".into(), edge_node: "line-2".into(), device: "plant/line-2".into() };
        assert_eq!(wish.topic(), "spBv1.0/plant 1/NCMD/line-2");
        let payload = Rebirth::payload(1_772_366_400_123);
        let head = check(&payload).expect("a payload");
        assert_eq!((head.timestamp, head.metrics, head.is_compressed), (Some(1_772_366_400_123), 1, false));
        let told: Vec<_> = metrics(&payload).collect();
        let expected = Metric {
            name: Some("Node Control/Rebirth"),
            timestamp: Some(1_772_366_400_123),
            datatype: Some(11),
            value: Value::Boolean(true),
            ..Metric::default()
        };
        assert_eq!(told, [expected]);
    }

    #[test]
    fn its_bytes_are_those_of_other_encoders() {
        // protoc --encode=org.eclipse.tahu.protobuf.Payload, with timestamps of 300.
        let bytes = b"\x08\xac\x02\x12\x1d\x0a\x14Node Control/Rebirth\x18\xac\x02\x20\x0b\x70\x01";
        assert_eq!(Rebirth::payload(300), bytes);
    }
}

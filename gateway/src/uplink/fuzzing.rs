//! What the uplink finds of its progress; see [`crate::fuzzing`].

use super::tracker::State;
use crate::fuzzing::Decoder;

/// The decoders of this stage.
pub(crate) const DECODERS: &[Decoder] = &[Decoder { name: "uplink_progress", decode: progress, weight: 12 }];

/// The stored state of the tracker: what was read is written, and read as the same.
fn progress(bytes: &[u8]) {
    let Ok(state) = State::decode(bytes) else { return };
    let written = state.encode();
    assert_eq!(State::decode(&written).as_ref(), Ok(&state));
    let mut older = state;
    older.forget_from(penstock_proto::Seq(2));
    assert!(State::decode(&older.encode()).is_ok());
}

/// What cases of a decoder are made of.
#[cfg(test)]
pub(crate) fn fuzzing_seeds(name: &str) -> Vec<Vec<u8>> {
    if name != "uplink_progress" {
        return Vec::new();
    }
    let mut now = vec![2];
    now.extend_from_slice(&7_u64.to_le_bytes());
    now.extend_from_slice(&5_u64.to_le_bytes());
    now.push(2);
    for place in [3_u64, 5, 8, 9] {
        now.extend_from_slice(&place.to_le_bytes());
    }
    let mut before = vec![1];
    before.extend_from_slice(&7_u64.to_le_bytes());
    for (version, state) in [(1, &mut before), (2, &mut now)] {
        state.extend_from_slice(b"\x01\x09telemetry");
        for partitions in [4_u32, 2] {
            state.extend_from_slice(&partitions.to_le_bytes());
        }
        state.extend_from_slice(&6_u64.to_le_bytes());
        if version == 2 {
            state.push(1);
        }
        state.extend_from_slice(&2_u32.to_le_bytes());
        for partition in [0_u32, 3] {
            state.extend_from_slice(&partition.to_le_bytes());
            for number in if version == 1 { vec![4_u64, 9, 2] } else { vec![9, 4, 2, 1, 0] } {
                state.extend_from_slice(&number.to_le_bytes());
            }
        }
    }
    assert!(State::decode(&now).is_ok() && State::decode(&before).is_ok());
    vec![now, before]
}

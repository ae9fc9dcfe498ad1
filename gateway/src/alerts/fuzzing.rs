//! Every decoder of the stage, for random cases.

use super::{event_grid, learned, lifecycle, mark, measure, reaction, rule, snapshot};
use crate::fuzzing::Decoder;

/// By parts, in the order of the data flow.
pub(crate) const DECODERS: [&[Decoder]; 7] = [
    measure::fuzzing::DECODERS,
    rule::DECODERS,
    learned::DECODERS,
    OWN,
    lifecycle::DECODERS,
    reaction::DECODERS,
    event_grid::DECODERS,
];

const OWN: &[Decoder] = &[
    Decoder { name: "alerts_mark", decode: mark::decode_for_fuzzing, weight: 2 },
    Decoder { name: "alerts_snapshot", decode: snapshot::decode_for_fuzzing, weight: 4 },
];

#[cfg(test)]
pub(crate) fn fuzzing_seeds(name: &str) -> Vec<Vec<u8>> {
    let own = match name {
        "alerts_mark" => vec![vec![1; 29]],
        "alerts_snapshot" => vec![vec![0; 60]],
        _ => Vec::new(),
    };
    let parts = [
        measure::fuzzing::fuzzing_seeds,
        rule::fuzzing_seeds,
        learned::fuzzing_seeds,
        lifecycle::fuzzing_seeds,
        reaction::fuzzing_seeds,
        event_grid::fuzzing_seeds,
    ];
    parts.iter().flat_map(|seeds| seeds(name)).chain(own).collect()
}

//! The state of a series as bytes; see [`crate::fuzzing`].

use super::{Detector, Series, Settings, Tuning};
use crate::fuzzing::Decoder;

/// The decoders of this folder.
pub(crate) const DECODERS: &[Decoder] = &[Decoder { name: "alerts_learned", decode: series, weight: 8 }];

/// What is decoded is encoded to the same bytes, and the detector goes on from it.
fn series(bytes: &[u8]) {
    let mut rest = bytes;
    let Ok(mut series) = Series::decode(&mut rest) else { return };
    let taken = bytes.len() - rest.len();
    let mut encoded = Vec::new();
    series.encode(&mut encoded);
    assert_eq!(taken, Series::ENCODED_BYTES);
    // Bits that mean the same number, such as those of zero below zero, are kept.
    assert_eq!(Some(encoded.as_slice()), bytes.get(..taken));
    let settings = Settings { warm_up_ms: 0, ..Settings::every_ms(60_000) };
    let detector = Detector::new(Tuning::SHIPPED, settings);
    let next_ms = series.last_ms.saturating_add(60_000);
    if let Ok(observed) = detector.observe(&mut series, next_ms, 1.0) {
        assert!((0.0..=1.0).contains(&observed.score), "{observed:?}");
    }
}

/// What cases of a decoder are made of.
#[cfg(test)]
pub(crate) fn fuzzing_seeds(name: &str) -> Vec<Vec<u8>> {
    if name != "alerts_learned" {
        return Vec::new();
    }
    let detector = Detector::new(Tuning::SHIPPED, Settings::every_ms(60_000));
    let encoded = [0_u16, 1, 100, 5000].map(|count| {
        let mut series = Series::NEW;
        for at in 0..count {
            let value = f64::from(at % 17) + f64::from(at / 1000);
            detector.observe(&mut series, 1_000_000 + u64::from(at) * 60_000, value).expect("in order");
        }
        let mut encoded = Vec::new();
        series.encode(&mut encoded);
        encoded
    });
    encoded.to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_seed_is_valid() {
        for seed in fuzzing_seeds("alerts_learned") {
            assert!(Series::decode(&mut seed.as_slice()).is_ok());
            series(&seed);
        }
    }
}

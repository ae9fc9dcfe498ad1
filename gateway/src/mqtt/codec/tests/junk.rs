//! Junk is refused or incomplete, and never a panic.

use proptest::prelude::*;

use super::super::topic::{filter_matches, is_filter, is_name};
use super::{BYTES_MAX, Split, Version, decode, split};

proptest! {
    #[test]
    fn junk_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        for version in [Version::V3, Version::V5] {
            let _judged = decode(&bytes, version);
        }
    }

    /// A valid header makes it past the first check, so that the bodies meet junk too.
    #[test]
    fn junk_bodies_never_panic(first in any::<u8>(), body in prop::collection::vec(any::<u8>(), 0..120)) {
        let length = u8::try_from(body.len()).unwrap();
        let bytes = [&[first, length][..], &body].concat();
        for version in [Version::V3, Version::V5] {
            if let Ok(Some(taken)) = decode(&bytes, version) {
                prop_assert_eq!(taken, bytes.len());
            }
        }
    }

    /// A packet is the same packet however much of it is there, until it is whole.
    #[test]
    fn a_cut_packet_is_incomplete_and_says_its_size(body in prop::collection::vec(any::<u8>(), 0..300), cut: prop::sample::Index) {
        let mut bytes = vec![0x30];
        let (low, high) = (u8::try_from(body.len() & 0x7f).unwrap(), u8::try_from(body.len() >> 7).unwrap());
        if high == 0 { bytes.push(low) } else { bytes.extend([low | 0x80, high]) }
        let header = bytes.len();
        bytes.extend(&body);
        let cut = cut.index(bytes.len());
        let expected = (cut >= header).then_some(bytes.len());
        prop_assert_eq!(split(&bytes[..cut], BYTES_MAX), Ok(Split::Incomplete { bytes: expected }));
    }

    #[test]
    fn a_filter_of_plus_signs_matches_every_name_of_its_depth(levels in prop::collection::vec("[a-z]{0,3}", 1..6)) {
        let name = levels.join("/");
        let filter = vec!["+"; levels.len()].join("/");
        prop_assume!(!name.is_empty());
        prop_assert!(is_name(&name) && is_filter(&filter) && is_filter(&name));
        prop_assert!(filter_matches(&filter, &name) && filter_matches(&name, &name) && filter_matches("#", &name));
        let (deeper, below) = (format!("{filter}/+"), format!("{filter}/#"));
        prop_assert!(!filter_matches(&deeper, &name) && filter_matches(&below, &name));
    }
}

//! Which partition a device's records go to: Kafka's own hash of the key.
//!
//! The partition is chosen here and sent explicitly. A client library that picks it would need the
//! topic's metadata at the moment of sending and could change its mind with it; the tracker needs the
//! partition of an entry to be a function of its key and of a partition count that it has stored.
//! The hash is the one of the Java client (`murmur2`), so that other producers of the same hub which
//! use the default partitioner put the same key into the same partition.

/// Partition of `key` in a topic with `partitions` partitions.
///
/// A count of 0 gives partition 0: no topic has fewer than one partition.
pub(crate) fn partition(key: &[u8], partitions: u32) -> u32 {
    (murmur2(key) & 0x7fff_ffff) % partitions.max(1)
}

/// MurmurHash2, 32 bits, with Kafka's seed.
fn murmur2(data: &[u8]) -> u32 {
    const SEED: u32 = 0x9747_b28c;
    const M: u32 = 0x5bd1_e995;
    const R: u32 = 24;

    // Kafka hashes the low 32 bits of the length; keys are far shorter than that.
    let length = u32::try_from(data.len()).unwrap_or(u32::MAX);
    let mut hash = SEED ^ length;
    let (words, tail) = data.as_chunks::<4>();
    for word in words {
        let mut k = u32::from_le_bytes(*word).wrapping_mul(M);
        k ^= k >> R;
        hash = hash.wrapping_mul(M) ^ k.wrapping_mul(M);
    }
    if !tail.is_empty() {
        for (index, byte) in tail.iter().enumerate() {
            hash ^= u32::from(*byte) << (8 * index);
        }
        hash = hash.wrapping_mul(M);
    }
    hash ^= hash >> 13;
    hash = hash.wrapping_mul(M);
    hash ^ (hash >> 15)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn check(key: &str, expected: i32) {
        assert_eq!(murmur2(key.as_bytes()).cast_signed(), expected, "{key}");
    }

    /// The vectors of the Java client's own test (`UtilsTest.testMurmur2`).
    #[test]
    fn hash_equals_the_java_client() {
        check("21", -973_932_308);
        check("foobar", -790_332_482);
        check("a-little-bit-long-string", -985_981_536);
        check("a-little-bit-longer-string", -1_486_304_829);
        check("lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58_897_971);
        check("abc", 479_470_107);
    }

    #[test]
    fn negative_hashes_lose_their_sign_bit() {
        let positive = u32::try_from(-973_932_308_i32 & 0x7fff_ffff).unwrap();
        assert_eq!(partition(b"21", 7), positive % 7);
    }

    proptest! {
        #[test]
        fn partitions_are_in_range(key: Vec<u8>, partitions in 0u32..2048) {
            prop_assert!(partition(&key, partitions) < partitions.max(1));
        }
    }
}

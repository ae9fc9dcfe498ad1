//! Which of several queues holds the commands of a device: a contract with senders.

/// The shard of a device: CRC-32C (Castagnoli) of its key's UTF-8, modulo the number of shards.
pub(crate) fn shard(device: &str, shards: u32) -> u32 {
    crc32c::crc32c(device.as_bytes()) % shards.max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The numbers that `docs/commands.md` gives senders to check their own code with.
    #[test]
    fn shards_are_those_that_the_guide_tells() {
        let guide = include_str!("../../../../docs/commands.md");
        assert_eq!(crc32c::crc32c(b"123456789"), 0xe306_9283, "the check value of CRC-32C");
        for (device, shards) in [("press-7", 4), ("press-7", 16), ("site/7", 16), ("größe", 16)] {
            let row = format!("| `{device}` | {shards} | {} |", shard(device, shards));
            assert!(guide.contains(&row), "{row}");
        }
        assert_eq!((shard("press-7", 1), shard("press-7", 0)), (0, 0));
    }

    #[test]
    fn devices_spread_over_all_shards() {
        let mut counts = [0_usize; 8];
        for device in 0..8000 {
            counts[shard(&format!("device-{device}"), 8) as usize] += 1;
        }
        assert!(counts.iter().all(|count| (900..1100).contains(count)), "{counts:?}");
    }
}

//! What an idle connection costs: resident memory before and after many devices connect and say nothing.

use std::fs;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde::Serialize;

use crate::clock::now;
use crate::load;

/// Descriptors kept free for everything but the idle connections, on either side.
const SPARE_DESCRIPTORS: u32 = 500;

/// How often resident memory is looked at until it rests.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// Longest wait for resident memory to rest.
const REST_WITHIN: Duration = Duration::from_secs(10);

/// Memory is at rest when it moved less than this between two looks.
const REST_BYTES: u64 = 64 * 1024;

/// Memory of a server without and with idle connections.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Idle {
    /// How many connections there were.
    pub connections: u32,
    /// Resident memory before, in bytes.
    pub rss_before: u64,
    /// Resident memory with all of them connected, in bytes.
    pub rss_after: u64,
}

impl Idle {
    /// Resident bytes per connection.
    pub fn bytes_per_connection(&self) -> u64 {
        self.rss_after.saturating_sub(self.rss_before) / u64::from(self.connections.max(1))
    }
}

/// Connects `connections` devices, waits until the server's memory rests, and compares. `rss` tells the server's
/// resident memory.
///
/// # Errors
/// A device is refused, or the memory cannot be read.
pub async fn measure(address: SocketAddr, connections: u32, rss: impl Fn() -> Result<u64>) -> Result<Idle> {
    let rss_before = at_rest(&rss).await?;
    let streams = load::connect_all(address, connections).await?;
    let rss_after = at_rest(&rss).await?;
    drop(streams);
    Ok(Idle { connections, rss_before, rss_after })
}

/// Waits until two looks in a row see the same memory; the last value when it never rests.
async fn at_rest(rss: &impl Fn() -> Result<u64>) -> Result<u64> {
    let deadline = now() + REST_WITHIN;
    let mut last = rss()?;
    while now() < deadline {
        tokio::time::sleep(LOOK_EVERY).await;
        let next = rss()?;
        if next.abs_diff(last) < REST_BYTES {
            return Ok(next);
        }
        last = next;
    }
    Ok(last)
}

/// As many of the wanted connections as this process may open descriptors for. The server inherits the limit.
///
/// # Errors
/// The limit cannot be read or leaves no room.
pub fn possible(wanted: u32) -> Result<u32> {
    let limits =
        fs::read_to_string("/proc/self/limits").context("the limits of this process cannot be read")?;
    let soft = soft_limit(&limits).context("the limit of open files is not understood")?;
    match soft.saturating_sub(SPARE_DESCRIPTORS) {
        0 => bail!("a limit of {soft} open files leaves no room for connections; raise it with `ulimit -n`"),
        room => Ok(wanted.min(room)),
    }
}

fn soft_limit(limits: &str) -> Option<u32> {
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    match line.split_whitespace().next()? {
        "unlimited" => Some(u32::MAX),
        number => number.parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_soft_limit_is_the_first_column() {
        let limits = "Limit                     Soft Limit           Hard Limit           Units\n\
                      Max open files            1024                 20000                files\n";
        assert_eq!(soft_limit(limits), Some(1024));
        assert_eq!(soft_limit("Max open files  unlimited  unlimited  files\n"), Some(u32::MAX));
        assert_eq!(soft_limit("Max processes  1  1  processes\n"), None);
    }

    #[test]
    fn memory_is_divided_among_the_connections() {
        let idle = Idle { connections: 1000, rss_before: 10_000_000, rss_after: 12_500_000 };
        assert_eq!(idle.bytes_per_connection(), 2500);
        let shrunk = Idle { connections: 10, rss_before: 2, rss_after: 1 };
        assert_eq!(shrunk.bytes_per_connection(), 0);
    }
}

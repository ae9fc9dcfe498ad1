//! Ports for programs under test that are started again on the port they had.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::atomic::{AtomicU16, Ordering};

/// Ports below the range from which systems take those of outgoing connections and of listeners on port 0: one of
/// these could sit on the port of a program that was killed, and keep it from coming back.
pub(crate) const RANGE: (u16, u16) = (20_000, 32_000);

/// So many different ports of this machine that nobody listens on at this moment, and that this process is not
/// handed again; `None` if there are not enough.
#[must_use]
pub fn free<const N: usize>() -> Option<[SocketAddr; N]> {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let (low, high) = RANGE;
    let span = high - low;
    // Tests run beside each other, as threads and as processes: each process begins to look somewhere else.
    let start = u16::try_from(std::process::id().wrapping_mul(97) % u32::from(span)).unwrap_or(0);
    let addresses = (0..span).map(|_| {
        let place = (u32::from(start) + u32::from(NEXT.fetch_add(1, Ordering::Relaxed))) % u32::from(span);
        SocketAddr::from((Ipv4Addr::LOCALHOST, low + u16::try_from(place).unwrap_or(0)))
    });
    let free = addresses.filter(|address| TcpListener::bind(address).is_ok());
    free.take(N).collect::<Vec<_>>().try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_differ_and_lie_below_those_of_outgoing_connections() {
        let (one, two) = (free::<3>().unwrap(), free::<3>().unwrap());
        let mut ports: Vec<u16> = one.iter().chain(&two).map(SocketAddr::port).collect();
        assert!(ports.iter().all(|port| (RANGE.0..RANGE.1).contains(port)), "{ports:?}");
        ports.sort_unstable();
        ports.dedup();
        assert_eq!(ports.len(), 6, "{one:?} {two:?}");
    }

    #[test]
    fn a_port_that_is_taken_is_passed_over() {
        let [taken] = free().unwrap();
        let _listener = TcpListener::bind(taken).unwrap();
        let others: Vec<SocketAddr> = (0..20).filter_map(|_| free::<1>()).flatten().collect();
        assert!(others.len() == 20 && !others.contains(&taken), "{taken} {others:?}");
    }
}

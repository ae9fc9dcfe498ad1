//! The load generator and the comparisons behind `docs/performance.md`.
//!
//! The generator ([`load`]) speaks raw MQTT 3.1.1 bytes in a closed loop: every connection keeps a fixed window
//! of QoS 1 publishes in flight and sends the next ones when acknowledgements arrive. It shares the machine with
//! the server it drives, so rates and latencies carry its own cost; the server's processor time per acknowledged
//! message, and ratios taken within one run, are the figures to trust.
//!
//! ```text
//! cell       how many connections, how wide a window
//! packets    the bytes of CONNECT and PUBLISH
//! load       connections, warm-up, measurement
//! idle       what a connection that says nothing costs
//! probe      append + fdatasync in the same folder, to see what the disk did meanwhile
//! servers    the gateway and the peer broker as child processes
//! machine    where the figures were taken
//! ingest     the comparison with a broker that stores nothing
//! end_to_end the same load with the uplink on
//! uplink     a full outbox on its way to the cloud
//! drain      the same while devices publish
//! memory     what an outage adds to it
//! threads    processor time by thread
//! report     medians, bars, Markdown and JSON
//! outbox     the outbox alone, beside a plain append log
//! ```

pub mod cell;
pub mod clock;
pub mod drain;
pub mod end_to_end;
pub mod idle;
pub mod ingest;
pub mod load;
pub mod machine;
pub mod memory;
pub mod outbox;
pub mod packets;
pub mod probe;
pub mod report;
pub mod servers;
pub mod stats;
pub mod threads;
pub mod uplink;

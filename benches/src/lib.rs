//! The load generator and the comparisons behind `docs/performance.md`.
//!
//! The generator ([`load`]) speaks raw MQTT bytes in a closed loop: every connection keeps a fixed window of QoS 1
//! publishes in flight and sends the next ones when acknowledgements arrive. It shares the machine with the server it
//! drives, so rates and latencies carry its own cost; the server's processor time per acknowledged message, and ratios
//! taken within one run, are the figures to trust. It is the same for every server.
//!
//! ```text
//! cell       how many connections, how wide a window
//! packets    the bytes of CONNECT and PUBLISH
//! frames     what comes back, decoded just enough
//! devices    connecting, many at a time
//! load       connections, warm-up, measurement
//! steady     devices at a steady rate, on a thread of their own
//! realtime   the priority of such a thread
//! tls        the certificate and the clients of a storm with TLS
//! peer       the servers, by name
//! servers    the gateway and the peer brokers as child processes
//! machine    where the figures were taken
//! probe      append + fdatasync in the same folder, to see what the disk did meanwhile
//! ingest     the comparison with brokers that store nothing
//! offered    how long an acknowledgement takes at a low rate
//! idle       what a connection that says nothing costs
//! fanout     what it costs to bring a message to its subscribers
//! storm      what others notice when ten thousand devices reconnect
//! fairness   what many notice when one publishes all it can
//! commands   thousands of sessions of Service Bus: links, latency, renewals
//! end_to_end the load of ingest with the uplink on
//! uplink     a full outbox on its way to the cloud
//! drain      the same while devices publish
//! memory     what an outage adds to it
//! threads    processor time by thread
//! stats      medians and percentiles
//! bars       limits that figures are held against
//! report     the table of ingest
//! detect     what rules cost
//! nab        the learned detector on the Numenta Anomaly Benchmark
//! outbox     the outbox alone, beside a plain append log
//! ```

pub mod bars;
pub mod cell;
pub mod clock;
pub mod commands;
pub mod detect;
pub mod devices;
pub mod drain;
pub mod end_to_end;
pub mod fairness;
pub mod fanout;
pub mod frames;
pub mod idle;
pub mod ingest;
pub mod load;
pub mod machine;
pub mod memory;
pub mod nab;
pub mod offered;
pub mod outbox;
pub mod packets;
pub mod peer;
pub mod probe;
pub mod realtime;
pub mod report;
pub mod servers;
pub mod stats;
pub mod steady;
pub mod storm;
pub mod threads;
pub mod tls;
pub mod uplink;

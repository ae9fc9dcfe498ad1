//! One device's link: a task that accepts the session, receives one command at a time, has it delivered and settles it.
//!
//! ```text
//!            Control (what to do)          Reports (what happened)
//! driver ──────────────► task ──────────────────────► driver
//!                        │ ▲
//!     Service Bus ◄──────┘ └───── device, outbox, answers (through the device's execution)
//! ```
//!
//! While nothing is in hand the task waits for a message; while one is, it waits for what becomes of it, and for the end
//! of the link, which is how a lost lock shows. The lock is renewed on time in either case. What is in hand when the link
//! ends is not settled: Service Bus delivers it again without counting it as a failure, and it finds the execution
//! that is in flight, or the record of it.
//!
//! | What is bounded | By | At the bound |
//! |---|---|---|
//! | messages in hand | one per link | the next one waits in Service Bus |
//! | their memory | `memory_bytes_max` | the message is left, and its session accepted again |
//! | commands on their way | `in_flight_max` | the message waits in hand, its lock held |
//! | reports | a few per link | |

mod cloud;
mod control;
mod fleet;
mod hand;
mod renewal;
mod reply;
mod session;
mod shared;
mod task;

#[cfg(test)]
mod tests;

pub(crate) use cloud::Cloud;
pub(crate) use control::{Control, News, Order, Report};
pub(crate) use fleet::Fleet;
pub(crate) use shared::Shared;
pub(crate) use task::{Place, accept, discover};

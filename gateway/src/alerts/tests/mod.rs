//! The stage on an outbox in memory: what is told, what is durable, and what is left after a death at any moment.

mod crashes;
mod silence;
mod site;
mod stage;

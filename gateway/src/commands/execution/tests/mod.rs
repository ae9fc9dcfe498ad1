//! The machine against a world of its own: Service Bus, the disk, the process, the device and the clock, in every order
//! that a small world can take, and in many that a larger one can.

mod cases;
mod explore;
mod messages;
mod table;
mod world;

//! The tail read: its rules on numbers, then against librdkafka's mock cluster and against cloud-sim.

mod cloud;
mod rules;
mod sim;

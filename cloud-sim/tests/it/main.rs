//! Promises of cloud-sim, checked from outside: with librdkafka, with kcat, and with bytes of our own.

// `cfg(test)` tells clippy that the helpers are tests too.
#[cfg(test)]
mod authorization;
#[cfg(test)]
mod clients;
#[cfg(test)]
mod control;
#[cfg(test)]
mod eventgrid;
#[cfg(test)]
mod faults;
#[cfg(test)]
mod limits;
#[cfg(test)]
mod program;
#[cfg(test)]
mod quota;
#[cfg(test)]
mod raw;
#[cfg(test)]
mod security;
#[cfg(test)]
mod servicebus;
#[cfg(test)]
mod sim;
#[cfg(test)]
mod tokens;

//! Topic aliases towards one client: the first topics of a connection get one each.

use std::collections::HashMap;

/// Most aliases per connection, whatever the client offers.
const ALIASES_MAX: u16 = 64;

/// The aliases of one connection (MQTT 5, section 3.3.2.3.4).
#[derive(Debug, Default)]
pub(super) struct Aliases {
    topics: HashMap<Box<str>, u16>,
    last: u16,
}

impl Aliases {
    /// The alias of `topic` and whether it is new; none if all that the client understands are taken.
    pub(super) fn of(&mut self, topic: &str, most: u16) -> (Option<u16>, bool) {
        if let Some(alias) = self.topics.get(topic) {
            return (Some(*alias), false);
        }
        if self.last >= most.min(ALIASES_MAX) {
            return (None, false);
        }
        self.last += 1;
        self.topics.insert(topic.into(), self.last);
        (Some(self.last), true)
    }

    /// The newest alias was not told to the client.
    pub(super) fn forget(&mut self, topic: &str) {
        if self.topics.remove(topic) == Some(self.last) {
            self.last -= 1;
        }
    }
}

//! What can change while the gateway runs: users, access rules, certificates.
//!
//! Each part is taken or kept by itself: a file that cannot be used leaves its part as it was. What is
//! there stays: connections go on, also those of users that are no more. Subscriptions stay too, but
//! from then on the rules are asked about each delivery.

use std::error::Error;

use super::{Handle, Rule};
use crate::supervise;

/// What is read again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(usize)]
pub(super) enum Part {
    Rules,
    Users,
    Certificate,
}

impl Part {
    /// Every value of the label `what`.
    pub(super) const NAMES: [&str; 3] = ["rules", "users", "certificate"];

    const fn name(self) -> &'static str {
        Self::NAMES[self as usize]
    }
}

impl Handle {
    /// Puts other access rules in force and reads the users file and the certificates again, where
    /// they were at the start. `rules` is an error if they could not be read. Returns whether all of
    /// it is in force; what is not is logged and counted, and stays as it was. Blocks on the disk.
    pub fn reload(&self, rules: Result<&[Rule], impl Error + 'static>) -> bool {
        let access = &self.shared.access;
        let mut all = self.note(Part::Rules, rules.map(|rules| access.set_rules(rules)));
        if access.has_users_file() {
            all &= self.note(Part::Users, access.reload_users());
        }
        for certificate in &*self.certificates {
            all &= self.note(Part::Certificate, certificate.reload());
        }
        all
    }

    fn note(&self, part: Part, result: Result<(), impl Error + 'static>) -> bool {
        self.shared.metrics.reload(part, result.is_ok());
        let what = part.name();
        match &result {
            Ok(()) => tracing::info!(what, "read again"),
            Err(error) => {
                tracing::warn!(what, error = supervise::chain(error), "cannot be used; the old stays")
            }
        }
        result.is_ok()
    }
}

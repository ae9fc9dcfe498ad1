//! What a test needs and does not find: programs and libraries that we did not write.

use std::io::{self, Write};

/// Set by continuous integration, as every service for it does.
const CI: &str = "CI";

/// A part of a test is left out, because something is not installed; `what` says what is not tested, and what to do about
/// it. It goes to the terminal past whatever keeps the output of tests that pass.
///
/// # Panics
/// Under continuous integration, where everything has to be installed: a test that looks at nothing passes there for ever.
pub fn skip(what: &str) {
    assert!(
        !is_ci(std::env::var(CI).ok().as_deref()),
        "{what}; under continuous integration nothing is skipped"
    );
    // Without a terminal there is nobody to tell.
    let _told = writeln!(io::stderr(), "skipped: {what}");
}

fn is_ci(value: Option<&str>) -> bool {
    !matches!(value, None | Some("" | "0" | "false"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn continuous_integration_is_known_by_its_variable() {
        for (value, expected) in [
            (None, false),
            (Some(""), false),
            (Some("0"), false),
            (Some("false"), false),
            (Some("true"), true),
            (Some("1"), true),
        ] {
            assert_eq!(is_ci(value), expected, "{value:?}");
        }
    }
}

//! State of the front end that cannot be read whole.
//!
//! A bad block in it must not keep the gateway down: it would fail the front end's start, and sooner
//! or later a compaction, and with that every write. So the state is read once at each opening, and
//! what can be read from both ends is kept, in a family of its own that takes the place of the
//! damaged one in one step. What lay between is gone, and said to be.

use std::fmt::Write as _;
use std::ops::ControlFlow;

use super::{Request, refused};
use crate::outbox::error::{OpenError, StoreErrorKind};
use crate::outbox::state::StateOps;
use crate::outbox::store::{Open, Store};

/// What was lost of the state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct LostState {
    /// Keys that could be read.
    kept: usize,
    /// The last key before what is gone, and the first one behind it.
    after: Option<Vec<u8>>,
    before: Option<Vec<u8>>,
}

/// Bytes of a key that a report shows.
const KEY_BYTES_MAX: usize = 32;

/// Reads all state; if a part of it cannot be read, replaces it by the rest and opens the store again.
pub(super) fn mend(
    request: &Request<'_>,
    store: Box<dyn Store>,
) -> Result<(Box<dyn Store>, Option<LostState>), OpenError> {
    let Request { directory, engine, .. } = request;
    let error = match store.scan_state(&[], &mut |_, _| ControlFlow::Continue(())) {
        Ok(()) => return Ok((store, None)),
        Err(error) => error,
    };
    if error.kind != StoreErrorKind::Corruption || !request.quarantines() {
        return Err(refused(directory, error));
    }
    tracing::error!(%error, "the state of sessions cannot be read whole; keeping what can be read");
    let (content, lost) = readable(store.as_ref());
    drop(store);
    let database = directory.database();
    engine.replace_state(&database, &content).map_err(|source| refused(directory, source))?;
    let store = engine.open(&database, Open::Existing).map_err(|source| refused(directory, source))?;
    Ok((store, Some(lost)))
}

/// What can be read from the beginning and from the end.
fn readable(store: &dyn Store) -> (StateOps, LostState) {
    let mut content = StateOps::default();
    let (mut after, mut before): (Option<Vec<u8>>, Option<Vec<u8>>) = (None, None);
    // Both end with an error, which is what this is about.
    drop(store.scan_state(&[], &mut |key, value| {
        content.put(key, value);
        after = Some(key.to_vec());
        ControlFlow::Continue(())
    }));
    drop(store.scan_state_back(&mut |key, value| {
        if after.as_deref().is_some_and(|after| key <= after) {
            return ControlFlow::Break(());
        }
        content.put(key, value);
        before = Some(key.to_vec());
        ControlFlow::Continue(())
    }));
    let kept = content.len();
    (content, LostState { kept, after, before })
}

impl LostState {
    /// A sentence for the report.
    pub(super) fn detail(&self) -> String {
        let name = |key: &Option<Vec<u8>>, none: &str| key.as_deref().map_or_else(|| none.to_owned(), hex);
        let (after, before) = (name(&self.after, "the beginning"), name(&self.before, "the end"));
        format!(
            "the state of sessions could not be read whole: {} keys were kept, what lay between {after} and {before} is gone",
            self.kept
        )
    }
}

fn hex(key: &[u8]) -> String {
    let mut text = String::from("key ");
    for byte in key.iter().take(KEY_BYTES_MAX) {
        // Writing to a string does not fail.
        write!(text, "{byte:02x}").ok();
    }
    text
}

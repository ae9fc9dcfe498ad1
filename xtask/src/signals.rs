//! Ctrl-C and SIGTERM: the first one asks the running command to stop, so that its guards end the children and
//! remove the temporary folders; a second one ends the tool at once.
//!
//! Children stay in the tool's process group, so a terminal's Ctrl-C reaches them as well.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// How long a wait goes on before it looks for an interruption again.
const LOOK: Duration = Duration::from_millis(100);

extern "C" fn note(_signal: libc::c_int) {
    INTERRUPTED.store(true, Ordering::Relaxed);
}

/// Installs the handler, to be called once at start.
#[expect(unsafe_code, reason = "sigaction is the only way to hear of a signal; the handler stores one flag")]
pub(crate) fn install() -> Result<()> {
    for signal in [libc::SIGINT, libc::SIGTERM] {
        // SAFETY: a zeroed sigaction is valid (empty mask, no flags); the handler only stores to an atomic,
        // which is async-signal-safe; the pointers live for the call.
        let status = unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            action.sa_sigaction = note as extern "C" fn(libc::c_int) as libc::sighandler_t;
            action.sa_flags = libc::SA_RESETHAND | libc::SA_RESTART;
            libc::sigaction(signal, &raw const action, std::ptr::null_mut())
        };
        if status != 0 {
            bail!("the signal handler cannot be installed: {}", std::io::Error::last_os_error());
        }
    }
    Ok(())
}

/// Whether the user asked the tool to stop.
pub(crate) fn interrupted() -> bool {
    INTERRUPTED.load(Ordering::Relaxed)
}

/// Fails when the user asked the tool to stop.
pub(crate) fn check() -> Result<()> {
    if interrupted() {
        bail!("interrupted");
    }
    Ok(())
}

/// The time now, for measuring what a step took.
#[expect(clippy::disallowed_methods, reason = "the gateway's clock is not for tools; this is the tool's one")]
pub(crate) fn now() -> Instant {
    Instant::now()
}

/// Waits up to `limit` for something to arrive; `None` when the time is over or the sender is gone. Comes back
/// early with an error when the tool is interrupted.
pub(crate) fn receive<T>(receiver: &Receiver<T>, limit: Duration) -> Result<Option<T>> {
    let end = now() + limit;
    loop {
        check()?;
        let left = end.saturating_duration_since(now());
        match receiver.recv_timeout(left.min(LOOK)) {
            Ok(item) => return Ok(Some(item)),
            Err(RecvTimeoutError::Disconnected) => return Ok(None),
            Err(RecvTimeoutError::Timeout) if left <= LOOK => return Ok(None),
            Err(RecvTimeoutError::Timeout) => {}
        }
    }
}

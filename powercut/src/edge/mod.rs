//! The edge to libc: the only code of this crate that is allowed to be unsafe.
//!
//! `interpose` defines the symbols that the dynamic linker finds before glibc's own; each hands its
//! arguments to a safe method of [`crate::shim::Shim`] together with a closure that makes the real call.
//! `raw` wraps the system calls that the shim makes for itself. `trap` catches a few calls that pass the symbols by. Both use `libc::syscall` and never a libc
//! function that is interposed, so that the shim cannot call itself.
#![expect(unsafe_code, reason = "a preloaded library is made of exported symbols and raw system calls")]

mod interpose;
pub(crate) mod raw;
pub(crate) mod trap;

//! Catches the calls that ask for space, however they are made.
//!
//! A program that makes system calls itself (Rust's `rustix` in its default set-up) passes the symbols of this
//! library by. For the few calls on which a pretended disk depends (`statfs`, `fstatfs`, `fallocate`) a seccomp
//! filter therefore raises SIGSYS in the calling thread, and the handler answers in the kernel's place. The
//! signal comes at the call and nowhere else, so the handler may do what a function may do.

use std::ffi::{CStr, c_char, c_int, c_long, c_void};
use std::mem::MaybeUninit;
use std::os::fd::AsRawFd;

use super::raw::{self, Errno, Outcome, PASS, last_error, outcome};
use crate::shim;
use crate::space::BLOCK;

/// `AUDIT_ARCH_X86_64`, and where the kernel keeps a call in the registers.
#[cfg(target_arch = "x86_64")]
mod machine {
    pub(super) const ARCHITECTURE: u32 = 0xC000_003E;
    const ACCUMULATOR: usize = libc::REG_RAX as usize;
    const ARGUMENTS: [usize; 4] =
        [libc::REG_RDI as usize, libc::REG_RSI as usize, libc::REG_RDX as usize, libc::REG_R10 as usize];

    pub(super) fn number(context: &libc::ucontext_t) -> i64 {
        context.uc_mcontext.gregs[ACCUMULATOR]
    }

    pub(super) fn arguments(context: &libc::ucontext_t) -> [i64; 4] {
        ARGUMENTS.map(|register| context.uc_mcontext.gregs[register])
    }

    pub(super) fn answer(context: &mut libc::ucontext_t, value: i64) {
        context.uc_mcontext.gregs[ACCUMULATOR] = value;
    }
}

/// `AUDIT_ARCH_AARCH64`, and where the kernel keeps a call in the registers.
#[cfg(target_arch = "aarch64")]
mod machine {
    pub(super) const ARCHITECTURE: u32 = 0xC000_00B7;

    pub(super) fn number(context: &libc::ucontext_t) -> i64 {
        context.uc_mcontext.regs[8].cast_signed()
    }

    pub(super) fn arguments(context: &libc::ucontext_t) -> [i64; 4] {
        [0, 1, 2, 3].map(|register: usize| context.uc_mcontext.regs[register].cast_signed())
    }

    pub(super) fn answer(context: &mut libc::ucontext_t, value: i64) {
        context.uc_mcontext.regs[0] = value.cast_unsigned();
    }
}

/// Installs handler and filter for this process. To be called before there is a second thread.
pub(crate) fn install() -> Result<(), Errno> {
    // SAFETY: a zeroed sigaction is valid (empty mask, no flags); the handler has the signature that SA_SIGINFO
    // asks for and reads only what the kernel hands to it.
    let status = unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = caught as extern "C" fn(c_int, *mut c_void, *mut c_void) as libc::sighandler_t;
        action.sa_flags = libc::SA_SIGINFO | libc::SA_NODEFER;
        libc::sigaction(libc::SIGSYS, &raw const action, std::ptr::null_mut())
    };
    if status != 0 {
        return Err(last_error());
    }
    let mut program = filter();
    let length = u16::try_from(program.len()).expect("a short program");
    let program = libc::sock_fprog { len: length, filter: program.as_mut_ptr() };
    let one: c_long = 1;
    let zero: c_long = 0;
    // SAFETY: no pointers.
    outcome(unsafe {
        libc::syscall(libc::SYS_prctl, c_long::from(libc::PR_SET_NO_NEW_PRIVS), one, zero, zero, zero)
    })?;
    // SAFETY: the program lives until the call returns; the kernel copies it.
    outcome(unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            c_long::from(libc::SECCOMP_SET_MODE_FILTER),
            zero,
            &raw const program,
        )
    })?;
    Ok(())
}

/// Lets everything through but the three calls, and those too if they are our own.
fn filter() -> [libc::sock_filter; 10] {
    const LOAD: u32 = libc::BPF_LD | libc::BPF_W | libc::BPF_ABS;
    const IS: u32 = libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K;
    const RETURN: u32 = libc::BPF_RET | libc::BPF_K;
    // Offsets in struct seccomp_data: nr, arch, the low half of the sixth argument.
    const NUMBER: u32 = 0;
    const ARCHITECTURE: u32 = 4;
    const SIXTH: u32 = 16 + 5 * 8;
    let step = |code: u32, k: u32, jt: u8, jf: u8| libc::sock_filter {
        code: u16::try_from(code).expect("codes have 16 bits"),
        jt,
        jf,
        k,
    };
    let call = |number: c_long| u32::try_from(number).expect("numbers of calls are small");
    [
        step(LOAD, ARCHITECTURE, 0, 0),
        step(IS, machine::ARCHITECTURE, 0, 6),
        step(LOAD, NUMBER, 0, 0),
        step(IS, call(libc::SYS_statfs), 2, 0),
        step(IS, call(libc::SYS_fstatfs), 1, 0),
        step(IS, call(libc::SYS_fallocate), 0, 2),
        step(LOAD, SIXTH, 0, 0),
        step(IS, PASS, 0, 1),
        step(RETURN, libc::SECCOMP_RET_ALLOW, 0, 0),
        step(RETURN, libc::SECCOMP_RET_TRAP, 0, 0),
    ]
}

extern "C" fn caught(_signal: c_int, _about: *mut c_void, context: *mut c_void) {
    // SAFETY: with SA_SIGINFO the third argument is the context of the interrupted call, ours alone.
    let Some(context) = (unsafe { context.cast::<libc::ucontext_t>().as_mut() }) else { return };
    let arguments = machine::arguments(context);
    // SAFETY: the arguments are those of the system call with this number.
    let outcome = unsafe { answer(machine::number(context), arguments) };
    let value = match outcome {
        Ok(count) => i64::try_from(count).unwrap_or(i64::MAX),
        Err(Errno(number)) => -i64::from(number),
    };
    machine::answer(context, value);
}

/// # Safety
/// `arguments` are those of the system call `number`.
unsafe fn answer(number: i64, arguments: [i64; 4]) -> Outcome {
    let [first, second, third, fourth] = arguments;
    let descriptor = |value: i64| c_int::try_from(value).map_err(|_| Errno(libc::EBADF));
    match number {
        libc::SYS_statfs => {
            let path = first as *const c_char;
            if path.is_null() {
                return Err(Errno(libc::EFAULT));
            }
            // SAFETY: a path argument of `statfs`.
            let path = unsafe { CStr::from_ptr(path) };
            let fd = raw::open(libc::AT_FDCWD, path, libc::O_PATH, 0)?;
            // SAFETY: the second argument of `statfs` is room for the answer.
            unsafe { space_of(fd.as_raw_fd(), second as *mut libc::statfs) }
        }
        // SAFETY: as above.
        libc::SYS_fstatfs => unsafe { space_of(descriptor(first)?, second as *mut libc::statfs) },
        libc::SYS_fallocate => {
            let mode = c_int::try_from(second).map_err(|_| Errno(libc::EINVAL))?;
            super::interpose::allocated(descriptor(first)?, mode, third, fourth)
        }
        _ => Err(Errno(libc::ENOSYS)),
    }
}

/// # Safety
/// `to` is null or room for the answer.
unsafe fn space_of(fd: c_int, to: *mut libc::statfs) -> Outcome {
    let mut about = MaybeUninit::<libc::statfs>::zeroed();
    let zero: c_long = 0;
    let pass = c_long::from(PASS);
    // SAFETY: the buffer has the size the kernel writes.
    outcome(unsafe {
        libc::syscall(libc::SYS_fstatfs, c_long::from(fd), about.as_mut_ptr(), zero, zero, zero, pass)
    })?;
    // SAFETY: zeroed above, which is a valid `statfs`, and filled by the kernel.
    let mut about = unsafe { about.assume_init() };
    if let Some((size, free)) = shim::get().and_then(|shim| shim.blocks(fd)) {
        about.f_bsize = BLOCK as _;
        about.f_frsize = BLOCK as _;
        about.f_blocks = size;
        about.f_bfree = free;
        about.f_bavail = free;
    }
    if to.is_null() {
        return Err(Errno(libc::EFAULT));
    }
    // SAFETY: not null, so room for the answer.
    unsafe { to.write(about) };
    Ok(0)
}

//! Entry as a C program's, for an executable as small and quick as can be: Rust's own start brings a guard for stacks of threads we do not have,
//! and with it the half of a static C library that reads /proc/self/maps to place it.

use std::ffi::{CStr, OsStr, OsString, c_char, c_int};
use std::os::unix::ffi::OsStrExt;

/// The `main` of an executable without Rust's (`#![no_main]`): `$program` gets the words behind its own name and returns the exit code.
#[macro_export]
macro_rules! entry {
    ($program:path) => {
        #[unsafe(no_mangle)]
        extern "C" fn main(count: ::std::ffi::c_int, words: *const *const ::std::ffi::c_char) -> ::std::ffi::c_int {
            // SAFETY: the C library's start calls this, once, and gives what it says.
            unsafe { $crate::enter(count, words, $program) }
        }
    };
}

/// Runs `program` with the words behind its own name, and ends with its code. Does what Rust's start would: the first three descriptors are
/// open, so that no file of ours gets their numbers, and a write to a closed pipe fails.
///
/// # Safety
/// To be called once, by the C library's start, with what it gives to `main`.
pub unsafe fn enter(count: c_int, words: *const *const c_char, program: fn(Vec<OsString>) -> u8) -> ! {
    let count = usize::try_from(count).unwrap_or(0);
    let word = |at: usize| {
        // SAFETY: the caller's promise: `count` pointers to NUL-terminated words that live as long as the process.
        let text = unsafe { CStr::from_ptr(*words.add(at)) };
        OsStr::from_bytes(text.to_bytes()).to_owned()
    };
    let words = (1..count).map(word).collect();
    open_standard();
    // SAFETY: ignoring a signal involves no pointer.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_IGN) };
    std::process::exit(i32::from(program(words))) // writes out what is printed and not yet written
}

fn open_standard() {
    let mut fds = [0, 1, 2].map(|fd| libc::pollfd { fd, events: 0, revents: 0 });
    // SAFETY: three structures, which the call writes `revents` of.
    while unsafe { libc::poll(fds.as_mut_ptr(), 3, 0) } == -1 {
        if nix::errno::Errno::last() != nix::errno::Errno::EINTR {
            exit_for_want_of_descriptors()
        }
    }
    for fd in fds.iter().filter(|fd| fd.revents & libc::POLLNVAL != 0) {
        // SAFETY: a constant path; the descriptor, the lowest that is free, stays open for good.
        if unsafe { libc::open(c"/dev/null".as_ptr(), libc::O_RDWR) } != fd.fd {
            exit_for_want_of_descriptors()
        }
    }
}

/// As Rust's own start does.
fn exit_for_want_of_descriptors() -> ! {
    std::process::abort()
}

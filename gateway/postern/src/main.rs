//! The binary: an allocator and a call.

use std::process::ExitCode;

/// The C library's allocator costs a gateway a tenth of its throughput on many cores.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    refuse_huge_pages();
    refuse_dumps();
    postern::cli::main()
}

/// The allocator asks for huge pages, of which each thread then fills one by a tenth: half of what
/// an idle gateway takes, and no request is faster for it.
#[expect(unsafe_code, reason = "the standard library has no such call")]
fn refuse_huge_pages() {
    // SAFETY: `prctl` with PR_SET_THP_DISABLE takes numbers alone and touches no memory of ours. A
    // kernel that does not know it says so, which changes nothing.
    unsafe { libc::prctl(libc::PR_SET_THP_DISABLE, 1, 0, 0, 0) };
}

/// A core dump would hold every private key, in a place that nobody has thought of. Debuggers of
/// root still can look.
#[expect(unsafe_code, reason = "the standard library has no such call")]
fn refuse_dumps() {
    // SAFETY: `prctl` with PR_SET_DUMPABLE takes numbers alone and touches no memory of ours.
    unsafe { libc::prctl(libc::PR_SET_DUMPABLE, 0, 0, 0, 0) };
}

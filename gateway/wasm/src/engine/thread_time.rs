//! The processor time of a thread.
//!
//! Guests are held to it, and not to what a clock on the wall says: when other processes want the
//! processor as well, the guest has not run for as long as it seems.

use std::time::Duration;

/// Of the calling thread, since it began. A system call: for the ends of epochs, not for each call.
#[expect(unsafe_code, reason = "the standard library has no such clock")]
pub(crate) fn thread_time() -> Duration {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: the pointer is to a local that outlives the call, and the kernel writes one `timespec`
    // there or nothing. The clock exists in every Linux that is supported, so the call does not
    // fail; if it did, the time would be zero, which no guest gains from: it is then ended by its
    // wall time.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) };
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    let nanos = u32::try_from(time.tv_nsec).unwrap_or(0);
    Duration::new(seconds, nanos)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_grows_with_work_and_not_with_sleep() {
        let start = thread_time();
        std::thread::park_timeout(Duration::from_millis(50));
        let slept = thread_time() - start;
        assert!(slept < Duration::from_millis(25), "{slept:?}");
        while thread_time() - start < Duration::from_millis(20) {
            std::hint::spin_loop();
        }
    }
}

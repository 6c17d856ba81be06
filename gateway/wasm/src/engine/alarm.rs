//! A timer of a worker's own, which ends a guest's turn in time.
//!
//! The thread that advances the epoch is one thread among others: while guests burn every processor,
//! the kernel lets it in at its own next tick, which may be 4 ms away, and a turn of a quarter of a
//! millisecond takes as long. A timer that interrupts the burning thread itself is on time whatever
//! else wants to run, and its signal handler advances the epoch there.
//!
//! It is set for the turns of guests that burn, for calls that begin while others do, and for a call
//! that has met the end of an epoch, which may be about to: a few hundred times a second at most while
//! guests behave. Where the system has no timer left, the thread alone has to do.

use std::cell::Cell;
use std::cell::RefCell;
use std::mem::MaybeUninit;
use std::ptr;
use std::sync::OnceLock;
use std::time::Duration;

use wasmtime::Engine;

/// Ignored by processes that do not ask for it, so that one which arrives too late does no harm; and
/// no kernel sends it to who has not asked for urgent data of a socket.
const SIGNAL: libc::c_int = libc::SIGURG;

thread_local! {
    /// What the handler advances; null while this thread has no timer. It has no destructor and is
    /// there before the handler is, so that reading it in the handler allocates nothing.
    static ADVANCED: Cell<*const Engine> = const { Cell::new(ptr::null()) };
    static ALARM: RefCell<Option<Alarm>> = const { RefCell::new(None) };
}

/// The timer of one thread.
struct Alarm {
    /// Of the engine whose epoch it advances. In a place of its own: the handler knows where.
    engine: Box<Engine>,
    /// `None` if there was none to be had.
    timer: Option<libc::timer_t>,
}

/// Advances the epoch after so long, on this thread; what was set before is forgotten.
pub(crate) fn set(engine: &Engine, after: Duration) {
    // A thread that is ending needs none.
    let _ = ALARM.try_with(|alarm| {
        let mut alarm = alarm.borrow_mut();
        let is_there = alarm
            .as_ref()
            .is_some_and(|alarm| Engine::same(&alarm.engine, engine));
        if !is_there {
            // The one before goes first: it clears what the handler reads.
            *alarm = None;
            *alarm = Some(Alarm::new(engine));
        }
        if let Some(alarm) = &*alarm {
            alarm.arm(after);
        }
    });
}

impl Alarm {
    fn new(engine: &Engine) -> Self {
        let engine = Box::new(engine.clone());
        let timer = is_handled().then(create).flatten();
        if timer.is_some() {
            ADVANCED.set(&raw const *engine);
        }
        Self { engine, timer }
    }

    #[expect(unsafe_code, reason = "the standard library has no timers")]
    fn arm(&self, after: Duration) {
        let Some(timer) = self.timer else { return };
        let zero = libc::timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        let time = libc::itimerspec {
            it_interval: zero,
            it_value: libc::timespec {
                tv_sec: 0,
                // Less than a second, as all turns are, and not 0, which would mean never.
                tv_nsec: after.subsec_nanos().max(1).into(),
            },
        };
        // SAFETY: the timer was made by `create` and is deleted only when `self` is dropped. The
        // pointer is to a local that outlives the call; the old time is not asked for. It can fail
        // for a malformed time alone, and then no signal comes.
        unsafe { libc::timer_settime(timer, 0, &raw const time, ptr::null_mut()) };
    }
}

impl Drop for Alarm {
    #[expect(unsafe_code, reason = "the standard library has no timers")]
    fn drop(&mut self) {
        // Before the engine goes: a signal that is on its way finds nothing to advance.
        ADVANCED.set(ptr::null());
        if let Some(timer) = self.timer {
            // SAFETY: made by `create`, and deleted here and nowhere else.
            unsafe { libc::timer_delete(timer) };
        }
    }
}

/// A timer that signals the calling thread.
#[expect(unsafe_code, reason = "the standard library has no timers")]
fn create() -> Option<libc::timer_t> {
    let mut event = MaybeUninit::<libc::sigevent>::zeroed();
    let mut timer: libc::timer_t = ptr::null_mut();
    // SAFETY: a `sigevent` is plain data for which zeroes are valid. Both pointers are to locals that
    // outlive the call, which writes the timer if it returns 0 and nothing otherwise. The thread that
    // is named is the one that calls, so it exists.
    let result = unsafe {
        let event = event.assume_init_mut();
        event.sigev_notify = libc::SIGEV_THREAD_ID;
        event.sigev_signo = SIGNAL;
        event.sigev_notify_thread_id = libc::gettid();
        libc::timer_create(libc::CLOCK_MONOTONIC, event, &raw mut timer)
    };
    (result == 0).then_some(timer)
}

/// Sees to it that the signal is handled, once in the life of the process.
#[expect(unsafe_code, reason = "the standard library has no signals")]
fn is_handled() -> bool {
    static HANDLED: OnceLock<bool> = OnceLock::new();
    *HANDLED.get_or_init(|| {
        let mut action = MaybeUninit::<libc::sigaction>::zeroed();
        // SAFETY: a `sigaction` is plain data for which zeroes are valid: no flags, no signal blocked
        // meanwhile. The handler has the type that is wanted of one without SA_SIGINFO, lives as long
        // as the process, and does what handlers may: it reads a thread-local that has neither
        // initializer nor destructor, and adds to an atomic. SA_RESTART: a system call that it
        // interrupts goes on. SA_ONSTACK: it needs no room on the stack of a guest.
        let result = unsafe {
            let action = action.assume_init_mut();
            action.sa_sigaction = advance as extern "C" fn(libc::c_int) as libc::sighandler_t;
            action.sa_flags = libc::SA_RESTART | libc::SA_ONSTACK;
            libc::sigaction(SIGNAL, action, ptr::null_mut())
        };
        result == 0
    })
}

#[expect(unsafe_code, reason = "a pointer is all that a handler can be given")]
extern "C" fn advance(_: libc::c_int) {
    let engine = ADVANCED.get();
    // SAFETY: not null, it is to the engine of this thread's `Alarm`, whose drop sets it to null
    // first; handlers run on this thread, so not while it is being dropped. Advancing an epoch is an
    // atomic addition, which the engine documents as allowed in a signal handler.
    if let Some(engine) = unsafe { engine.as_ref() } {
        engine.increment_epoch();
    }
}

#[cfg(test)]
mod tests {
    use wasmtime::Config;
    use wasmtime::Instance;
    use wasmtime::Module;
    use wasmtime::Store;

    use super::*;
    use crate::engine::thread_time::thread_time;

    const AFTER: Duration = Duration::from_millis(20);

    fn engine() -> Engine {
        let mut config = Config::new();
        config.epoch_interruption(true);
        Engine::new(&config).unwrap()
    }

    /// How long a guest that never ends runs until its epoch is over.
    fn endless(engine: &Engine) -> Duration {
        let code = wat::parse_str("(module (func (export \"run\") (loop br 0)))").unwrap();
        let module = Module::new(engine, code).unwrap();
        let mut store = Store::new(engine, ());
        let instance = Instance::new(&mut store, &module, &[]).unwrap();
        let run = instance
            .get_typed_func::<(), ()>(&mut store, "run")
            .unwrap();
        store.set_epoch_deadline(1);
        let start = thread_time();
        set(engine, AFTER);
        run.call(&mut store, ()).unwrap_err();
        thread_time() - start
    }

    #[test]
    fn a_guest_is_interrupted_and_no_other_thread_has_to_run_for_it() {
        let engine = engine();
        for _ in 0..3 {
            let ran = endless(&engine);
            assert!(ran < 2 * AFTER, "{ran:?}");
        }
    }

    #[test]
    fn each_engine_of_a_thread_gets_its_own() {
        let (a, b) = (engine(), engine());
        for engine in [&a, &b, &a] {
            endless(engine);
        }
        drop((a, b));
        ALARM.with(|alarm| *alarm.borrow_mut() = None);
        assert!(ADVANCED.get().is_null());
    }
}

//! Giving an address over to the process that follows.
//!
//! Sockets that share an address by `SO_REUSEPORT` form a group, in the order in which they began
//! to listen, and the kernel picks one of them by hash for each connection. Closing one resets the
//! connections that are queued for it or whose handshake has begun there, so the successor cannot
//! simply listen beside the old process and wait until that is gone. A process that leaves instead
//! gives the group a small program that picks among the sockets behind its own. What the kernel
//! does when that pick does not exist, because nobody follows, is pick by hash again: a process
//! that ends alone goes on accepting until it closes.

use std::io;
use std::net::TcpListener;
use std::os::fd::AsRawFd as _;

/// From the filter machine's ancillary data; see linux/filter.h.
const ANCILLARY: u32 = -0x1000_i32 as u32;
const RANDOM: u32 = 56;

/// Which of the sockets behind its own a leaving process sends new connections to.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Successor {
    /// Any of as many as it has itself, evenly. Should the successor have fewer, some connections
    /// still come here.
    Any,
    /// The first. Always there if there is a successor at all, even while the sockets before it
    /// are being closed: the last ones then move into their places.
    First,
}

/// Leaves new connections on this socket's address to the process that follows. `own` is how many
/// sockets of the group are this process's.
pub fn leave_to(successor: Successor, socket: &TcpListener, own: usize) -> io::Result<()> {
    let own = u32::try_from(own.max(1)).unwrap_or(u32::MAX);
    let program: &mut [libc::sock_filter] = match successor {
        Successor::Any => &mut [
            statement(
                libc::BPF_LD | libc::BPF_W | libc::BPF_ABS,
                ANCILLARY + RANDOM,
            ),
            statement(libc::BPF_ALU | libc::BPF_MOD | libc::BPF_K, own),
            statement(libc::BPF_ALU | libc::BPF_ADD | libc::BPF_K, own),
            statement(libc::BPF_RET | libc::BPF_A, 0),
        ],
        Successor::First => &mut [statement(libc::BPF_RET | libc::BPF_K, own)],
    };
    attach(socket, program)
}

fn statement(code: u32, k: u32) -> libc::sock_filter {
    libc::sock_filter {
        // Operation codes of the filter machine are 16 bits.
        code: code as u16,
        jt: 0,
        jf: 0,
        k,
    }
}

fn attach(socket: &TcpListener, program: &mut [libc::sock_filter]) -> io::Result<()> {
    let program = libc::sock_fprog {
        len: program.len() as u16,
        filter: program.as_mut_ptr(),
    };
    #[expect(unsafe_code, reason = "no library offers this socket option")]
    // SAFETY: the descriptor is open for as long as `socket` is borrowed. The option's value is a
    // `sock_fprog`, whose size is given and whose `filter` points to `len` statements that live
    // until the end of this function; the kernel copies both and only reads them.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_ATTACH_REUSEPORT_CBPF,
            (&raw const program).cast(),
            size_of_val(&program) as libc::socklen_t,
        )
    };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;
    use std::net::TcpStream;

    use super::*;
    use crate::listener::listen;

    /// As many sockets as a gateway with this many workers has.
    fn gateway(addr: SocketAddr, workers: usize) -> Vec<TcpListener> {
        let mut bound = addr;
        let mut sockets = Vec::new();
        for _ in 0..workers {
            let socket = listen(bound).unwrap();
            bound = socket.local_addr().unwrap();
            sockets.push(socket);
        }
        sockets
    }

    fn accepted(sockets: &[TcpListener]) -> Vec<usize> {
        let count = |socket: &TcpListener| std::iter::from_fn(|| socket.accept().ok()).count();
        sockets.iter().map(count).collect()
    }

    fn connect(addr: SocketAddr, count: usize) {
        for _ in 0..count {
            TcpStream::connect(addr).unwrap();
        }
    }

    #[test]
    fn a_process_that_ends_alone_still_accepts() {
        let sockets = gateway("127.0.0.1:0".parse().unwrap(), 2);
        let addr = sockets[0].local_addr().unwrap();
        for successor in [Successor::Any, Successor::First] {
            leave_to(successor, &sockets[0], 2).unwrap();
            connect(addr, 20);
            assert_eq!(
                accepted(&sockets).iter().sum::<usize>(),
                20,
                "{successor:?}"
            );
        }
    }

    #[test]
    fn the_successor_gets_every_connection_generation_after_generation() {
        let mut old = gateway("127.0.0.1:0".parse().unwrap(), 2);
        let addr = old[0].local_addr().unwrap();
        for generation in 0..4 {
            // What the generation before attached stays with the group, and must not hurt.
            let new = gateway(addr, 2);
            for socket in &old {
                leave_to(Successor::Any, socket, 2).unwrap();
            }
            connect(addr, 60);
            assert_eq!(accepted(&old), [0, 0], "generation {generation}");
            let shares = accepted(&new);
            assert_eq!(shares.iter().sum::<usize>(), 60, "generation {generation}");
            assert!(shares.iter().all(|&share| share > 5), "even: {shares:?}");

            for socket in &old {
                leave_to(Successor::First, socket, 2).unwrap();
            }
            while let Some(socket) = old.pop() {
                connect(addr, 5);
                assert_eq!(accepted(&old).iter().sum::<usize>(), 0);
                drop(socket);
            }
            connect(addr, 5);
            assert_eq!(accepted(&new).iter().sum::<usize>(), 15);
            old = new;
        }
    }
}

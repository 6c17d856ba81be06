//! The streams of an HTTP/2 connection, each a task that may not stand still.

use std::rc::Rc;
use std::task::Poll;

use hyper::rt::Executor;

use super::Connection;
use super::watch::Stall;
use crate::clock::Clock;

/// Runs the streams of one connection on its worker, and ends those whose client takes nothing.
#[derive(Clone)]
pub(super) struct Streams {
    pub(super) connection: Rc<Connection>,
    pub(super) clock: Clock,
}

impl<F> Executor<F> for Streams
where
    F: Future<Output = ()> + 'static,
{
    fn execute(&self, future: F) {
        let connection = Rc::clone(&self.connection);
        let limit = connection.listener.spec.timeouts.write_idle;
        let stall = Rc::new(Stall::new(&self.clock, limit));
        // A future that is captured and then pinned has two places in its task; a request is large.
        let mut future = Box::pin(future);
        // Ends with its connection, which drops the stream that it serves, or when it stalls.
        tokio::task::spawn_local(async move {
            let mut is_first = true;
            std::future::poll_fn(|cx| {
                if std::mem::take(&mut is_first) {
                    connection.stall.set(Some(Rc::clone(&stall)));
                }
                let polled = future.as_mut().poll(cx);
                connection.stall.take();
                if polled.is_pending() && stall.poll_due(cx).is_ready() {
                    connection.watch.stalled();
                    // Dropping the stream resets it.
                    return Poll::Ready(());
                }
                polled
            })
            .await;
        });
    }
}

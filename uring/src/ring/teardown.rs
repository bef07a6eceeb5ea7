//! The end of a ring.

use std::rc::Rc;
use std::time::Duration;

use super::{BUFFER_GROUP, Ring, clock};
use crate::driver::{Conn, Driver};
use crate::ops::{Op, Token};
use crate::queue::Wait;

/// How long dropping a ring waits for operations, and for zero-copy notifications.
const DROP_WAIT: Duration = Duration::from_secs(2);
const DROP_WAIT_NOTIFICATIONS: Duration = Duration::from_millis(200);

impl Drop for Ring {
    /// Ends and drains every operation before any memory is freed. What does not end in time is
    /// leaked, never freed.
    fn drop(&mut self) {
        self.ending = true;
        let open: Vec<Conn> = self.links.live().collect();
        for conn in open {
            self.close(conn);
        }
        self.shut_doors();
        self.cancel(Token::new(Op::WakeRead, 0, 0).pack());
        let started = clock();
        let mut events = Vec::new();
        loop {
            let busy = self.outstanding() > 0;
            let limit = match busy {
                true => DROP_WAIT,
                false if self.holds.live() > 0 => DROP_WAIT_NOTIFICATIONS,
                false => break,
            };
            let waited = Duration::from_nanos(clock() - started);
            let Some(left) = limit.checked_sub(waited).filter(|left| !left.is_zero()) else {
                break;
            };
            if self.queue.enter(Wait::AtMost(left)).is_err() {
                break;
            }
            if self.reap(0, &mut events).is_err() {
                break;
            }
            events.clear();
        }
        // Cancels and wakes without a completion may still sit in the queue.
        let _ = self.queue.enter(Wait::No);
        self.holds.leak();
        self.opens.leak();
        self.slabs.release(&self.queue);
        let _ = self.queue.submitter().unregister_buf_ring(BUFFER_GROUP);
        if self.links.ops() > 0 {
            self.links.leak();
            std::mem::forget(Rc::clone(&self.buffers));
        }
        if !self.wake_armed {
            // SAFETY: made by `Box::leak` in `new`; no read into it is in flight.
            drop(unsafe { Box::from_raw(self.wake_count.as_ptr()) });
        }
    }
}

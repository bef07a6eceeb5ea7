//! Waking: by a message from ring to ring, or by an eventfd.

use io_uring::{opcode, squeue, types};

use super::Ring;
use crate::driver::Event;
use crate::ops::{Op, Token};
use crate::wake::Waker;

impl Ring {
    /// Waits on our eventfd, for threads that have no ring.
    pub(super) fn arm_wake(&mut self) {
        if self.ending || self.wake_armed {
            return;
        }
        let (fd, to) = (types::Fd(self.waker.event()), self.wake_count.as_ptr().cast());
        let token = Token::new(Op::WakeRead, 0, 0).pack();
        let entry = opcode::Read::new(fd, to, 8).build().user_data(token);
        // SAFETY: the eventfd lives as long as `waker`; the counter is freed in `drop` only when
        // no read is in flight.
        unsafe { self.queue.push(&entry) };
        self.wake_armed = true;
    }

    pub(super) fn woken(&mut self, events: &mut Vec<Event>) {
        self.waker.noticed();
        events.push(Event::Woken);
    }

    pub(super) fn wake_target(&mut self, target: &Waker) {
        if !target.claim() {
            return;
        }
        if target.same(&self.waker) {
            self.waker.noticed();
            self.ready.push(Event::Woken);
            return;
        }
        if !self.ring_messages {
            target.ring_bell();
            return;
        }
        let known = self.targets.iter().position(|other| other.same(target));
        let index = known.unwrap_or_else(|| {
            self.targets.push(target.clone());
            self.targets.len() - 1
        });
        let theirs = Token::new(Op::Wake, 0, 0).pack();
        let entry = opcode::MsgRingData::new(types::Fd(target.ring()), 0, theirs, None)
            .build()
            .flags(squeue::Flags::SKIP_SUCCESS)
            .user_data(Token::new(Op::WakeFailed, index as u32, 0).pack());
        // SAFETY: `targets` keeps the waker, and with it the duplicate of the target's ring, for
        // as long as this ring lives.
        unsafe { self.queue.push(&entry) };
    }
}

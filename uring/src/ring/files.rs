//! Opening files: `openat2`, then `statx`, both by the ring's workers where they would wait.

use std::os::fd::{FromRawFd, OwnedFd};

use super::Ring;
use crate::driver::{Errno, Event, Open, Opening};
use crate::ops::{Op, Token};

impl Ring {
    pub(super) fn begin_open(&mut self, what: Open) -> Opening {
        let opening = self.opens.insert(what);
        self.push_open(opening);
        opening
    }

    fn push_open(&mut self, opening: Opening) {
        let Some(open) = self.opens.get_mut(opening) else { return };
        let entry = open.open().user_data(token(Op::Open, opening));
        // SAFETY: the table keeps path, flags and the root's descriptor until the completion; the
        // box does not move with the table.
        unsafe { self.queue.push(&entry) };
    }

    pub(super) fn complete_open(&mut self, token: Token, result: i32, events: &mut Vec<Event>) {
        let opening = Opening { slot: token.slot, generation: token.generation };
        let Some(open) = self.opens.get_mut(opening) else {
            if token.op == Op::Open && result >= 0 {
                // SAFETY: the kernel has just made this descriptor, and nobody else knows it.
                drop(unsafe { OwnedFd::from_raw_fd(result) });
            }
            self.stats.stale_completions += 1;
            return;
        };
        let retries = matches!(-result, libc::EAGAIN | libc::EINTR);
        let result = match token.op {
            _ if retries && open.tries_again() && !self.ending => {
                return match token.op {
                    Op::Open => self.push_open(opening),
                    _ => self.push_stat(opening, None),
                };
            }
            _ if result < 0 => Err(Errno(-result)),
            Op::Open => {
                // SAFETY: the kernel has just made this descriptor, and nobody else knows it.
                let file = unsafe { OwnedFd::from_raw_fd(result) };
                return self.push_stat(opening, Some(file));
            }
            _ => open.finish().ok_or(Errno(libc::EBADF)),
        };
        self.opens.remove(opening);
        events.push(Event::Opened { opening, result });
    }

    fn push_stat(&mut self, opening: Opening, file: Option<OwnedFd>) {
        let Some(open) = self.opens.get_mut(opening) else { return };
        let Some(entry) = open.stat(file) else { return };
        let entry = entry.user_data(token(Op::Stat, opening));
        // SAFETY: the table keeps the file and the place for the answer until the completion; the
        // empty path is static.
        unsafe { self.queue.push(&entry) };
    }
}

fn token(op: Op, opening: Opening) -> u64 {
    Token::new(op, opening.slot, opening.generation).pack()
}

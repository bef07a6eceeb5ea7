//! Receiving: what the owner wants against what is armed.
//!
//! The kernel ends a multishot receive for reasons of its own (no buffer, a full completion
//! queue), so it is armed again whenever its last completion is neither an end nor wanted.

use io_uring::{cqueue, opcode, types};

use super::{BUFFER_GROUP, Ring};
use crate::driver::{Conn, Ended, Errno, Event};
use crate::links::Mode;

/// Most bytes thrown away by one operation; more than a socket ever holds.
const DISCARD_MAX: u32 = 1 << 24;
/// IORING_RECVSEND_POLL_FIRST: the socket was just emptied, do not try before it has data.
const POLL_FIRST: u16 = 1;

impl Ring {
    pub(super) fn want(&mut self, conn: Conn, mode: Option<Mode>) {
        let Some(link) = self.links.open(conn) else { return };
        let receive = &mut link.receive;
        receive.want = mode;
        if receive.ended {
            return;
        }
        match receive.armed {
            None => self.arm_receive(conn, false),
            Some(armed) if mode != Some(armed) && !receive.cancelling => {
                receive.cancelling = true;
                self.cancel(conn.token(armed.op()));
            }
            // Armed as wanted; or being cancelled, and then armed again by its completion.
            Some(_) => {}
        }
    }

    fn arm_receive(&mut self, conn: Conn, emptied: bool) {
        let Some(link) = self.links.open(conn) else { return };
        let Some(mode) = link.receive.want else { return };
        debug_assert!(link.receive.armed.is_none() && !link.receive.ended);
        let fd = types::Fd(link.raw_fd());
        let entry = match mode {
            Mode::Deliver if self.buffers.available() == 0 => {
                self.starved.push(conn);
                return;
            }
            Mode::Deliver => opcode::RecvMulti::new(fd, BUFFER_GROUP).build(),
            Mode::Discard => {
                let poll_first = if emptied { POLL_FIRST } else { 0 };
                opcode::Recv::new(fd, std::ptr::null_mut(), DISCARD_MAX)
                    .flags(libc::MSG_TRUNC)
                    .ioprio(poll_first)
                    .build()
            }
        };
        link.receive.armed = Some(mode);
        link.ops += 1;
        // SAFETY: the link keeps the descriptor until `ops` is zero; the buffer ring's memory
        // outlives the ring; a truncating receive writes nothing.
        unsafe { self.queue.push(&entry.user_data(conn.token(mode.op()))) };
    }

    /// Arms connections that found no buffer. Those that fail again come back here.
    pub(super) fn feed_starved(&mut self) {
        for conn in std::mem::take(&mut self.starved) {
            let idle =
                |link: &mut crate::links::Link| link.receive.armed.is_none() && !link.receive.ended;
            if self.links.open(conn).is_some_and(idle) {
                self.arm_receive(conn, false);
            }
        }
    }

    pub(super) fn complete_receive(
        &mut self,
        conn: Conn,
        mode: Mode,
        result: i32,
        flags: u32,
        events: &mut Vec<Event>,
    ) {
        // Taken first: whatever becomes of the bytes, the guard gives the buffer back.
        let data = cqueue::buffer_select(flags).and_then(|id| {
            let len = u32::try_from(result).unwrap_or(0);
            self.buffers.take(id, len, cqueue::buffer_more(flags))
        });
        let Some(link) = self.links.get_mut(conn) else {
            self.stats.stale_completions += 1;
            return;
        };
        let last = !cqueue::more(flags);
        if last {
            link.ops -= 1;
            link.receive.armed = None;
            link.receive.cancelling = false;
        }
        if link.closing {
            self.finish_if_idle(conn, events);
            return;
        }
        let ended = match -result {
            0 if last => Some(Ended::Eof),
            libc::ENOBUFS => {
                self.stats.receive_no_buffers += 1;
                None
            }
            libc::ECANCELED | libc::EINTR | libc::EAGAIN => None,
            errno if errno > 0 => Some(Ended::Error(Errno(errno))),
            _ => None,
        };
        if result > 0 {
            match (mode, data) {
                (Mode::Deliver, Some(data)) => events.push(Event::Received { conn, data }),
                _ => events.push(Event::Discarded { conn, bytes: result as u32 }),
            }
        }
        if last && link.leaving {
            // Who takes the socket over finds its end or its error by itself.
            self.leave_if_idle(conn).into_iter().for_each(|event| {
                self.links.reported(conn);
                events.push(event);
            });
        } else if let Some(ended) = ended {
            link.receive.ended = true;
            events.push(Event::ReceiveEnded { conn, ended });
        } else if last {
            self.arm_receive(conn, result > 0);
        }
    }
}

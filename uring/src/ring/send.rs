//! Sending: by copy, without copy, from a file.

use std::mem;

use io_uring::{cqueue, opcode, squeue, types};

use super::{Ring, file_op};
use crate::driver::{Conn, Errno, Event, Payload, SendMode};
use crate::hold::{Hold, Message};
use crate::links::Sending;
use crate::ops::{Op, Token};
use crate::splice::{FileSend, Next};

/// IORING_RECVSEND_FIXED_BUF: the memory is a registered buffer.
const FIXED_BUFFER: u16 = 1 << 2;
/// IORING_SEND_ZC_REPORT_USAGE: the notification tells whether the kernel copied.
const REPORT_USAGE: u16 = 1 << 3;
/// IORING_NOTIF_USAGE_ZC_COPIED, in the result of a notification.
const COPIED: u32 = 1 << 31;

impl Ring {
    pub(super) fn issue_send(&mut self, conn: Conn, payload: Payload, mode: SendMode) {
        let Some(link) = self.links.open(conn) else {
            self.pool.recycle(payload, None);
            return;
        };
        assert!(matches!(link.send, Sending::Idle), "one send at a time on {conn:?}");
        link.ops += 1;
        self.stats.sends += 1;
        match payload {
            Payload::File { file, offset, len } => {
                let mut file = Box::new(FileSend::new(file, offset, len));
                let next = file.read(&mut self.pipes);
                let mut ready = mem::take(&mut self.ready);
                self.drive_file(conn, file, next, &mut ready);
                self.ready = ready;
            }
            payload if mode == SendMode::ZeroCopy && !link.copy_only => {
                match self.slabs.route(&self.queue, &payload) {
                    Some(buffer) => self.issue_zero_copy(conn, payload, buffer),
                    None => self.issue_copy(conn, payload),
                }
            }
            payload => self.issue_copy(conn, payload),
        }
    }

    fn issue_copy(&mut self, conn: Conn, payload: Payload) {
        let Some(link) = self.links.get_mut(conn) else { return };
        let fd = types::Fd(link.raw_fd());
        let mut message = None;
        let entry = match &payload {
            Payload::Range(range) => send(fd, range.block.bytes(range.start, range.end)),
            Payload::Bytes(bytes) => send(fd, bytes),
            Payload::Gather(gather) => {
                let message = message.insert(self.pool.take_message());
                message.describe(gather);
                let flags = libc::MSG_NOSIGNAL as u32;
                opcode::SendMsg::new(fd, message.header()).flags(flags).build()
            }
            Payload::File { .. } => unreachable!("files are spliced"),
        };
        link.send = Sending::Copy { payload, message };
        // SAFETY: the link keeps payload, message and descriptor until the completion.
        unsafe { self.queue.push(&entry.user_data(conn.token(Op::Send))) };
    }

    pub(super) fn complete_send(&mut self, conn: Conn, result: i32, events: &mut Vec<Event>) {
        let Some(link) = self.links.get_mut(conn) else {
            self.stats.stale_completions += 1;
            return;
        };
        let Sending::Copy { payload, message } = mem::replace(&mut link.send, Sending::Idle) else {
            unreachable!("the completion of a copying send finds it")
        };
        link.ops -= 1;
        let given = length(&payload, message.as_deref());
        self.pool.recycle(payload, message);
        self.report_sent(conn, result, given, events);
    }

    fn report_sent(&mut self, conn: Conn, result: i32, given: u32, events: &mut Vec<Event>) {
        if self.links.open(conn).is_none() {
            self.finish_if_idle(conn, events);
            return;
        }
        let result = if result < 0 { Err(Errno(-result)) } else { Ok(result as u32) };
        if result.is_ok_and(|taken| taken < given) {
            self.stats.sends_short += 1;
        }
        events.push(Event::Sent { conn, result });
    }

    /// `buffer`: the registered buffer all the bytes lie in.
    fn issue_zero_copy(&mut self, conn: Conn, payload: Payload, buffer: Option<u16>) {
        let Some(link) = self.links.get_mut(conn) else { return };
        let fd = types::Fd(link.raw_fd());
        let mut message = None;
        let entry = match &payload {
            Payload::Range(range) => {
                let bytes = range.block.bytes(range.start, range.end);
                opcode::SendZc::new(fd, bytes.as_ptr(), bytes.len() as u32)
                    .buf_index(buffer)
                    .flags(libc::MSG_NOSIGNAL)
                    .zc_flags(REPORT_USAGE)
                    .build()
            }
            Payload::Gather(gather) => {
                let message = message.insert(self.pool.take_message());
                message.describe(gather);
                let fixed = if buffer.is_some() { FIXED_BUFFER } else { 0 };
                let entry = opcode::SendMsgZc::new(fd, message.header())
                    .flags(libc::MSG_NOSIGNAL as u32)
                    .ioprio(REPORT_USAGE | fixed)
                    .build();
                with_buffer(entry, buffer.unwrap_or(0))
            }
            Payload::Bytes(_) | Payload::File { .. } => unreachable!("these are copied"),
        };
        let len = length(&payload, message.as_deref());
        let hold = Hold { conn, payload, message, len, fixed: buffer.is_some() };
        let (index, generation) = match self.holds.insert(hold) {
            Ok(place) => place,
            Err(hold) => {
                self.pool.recycle_message(hold.message);
                return self.issue_copy(conn, hold.payload);
            }
        };
        link.send = Sending::ZeroCopy { hold: index, generation };
        self.stats.sends_zero_copy += 1;
        let token = Token::new(Op::SendZeroCopy, index, generation).pack();
        // SAFETY: the hold keeps payload and message until the notification, the link keeps the
        // descriptor until the result; moving the hold into the table moved neither the block's
        // memory nor the boxed gather and message.
        unsafe { self.queue.push(&entry.user_data(token)) };
    }

    pub(super) fn complete_zero_copy(
        &mut self,
        token: Token,
        result: i32,
        flags: u32,
        events: &mut Vec<Event>,
    ) {
        let Some(hold) = self.holds.find(token.slot, token.generation) else {
            self.stats.stale_completions += 1;
            return;
        };
        let (conn, given, fixed) = (hold.conn, hold.len, hold.fixed);
        if cqueue::notif(flags) {
            let copied = result as u32 & COPIED != 0;
            self.stats.zero_copy_copied += u64::from(copied);
            self.unnotified = self.unnotified.saturating_sub(1);
            self.release(token.slot);
            // The connection may be gone since; then there is nobody to tell.
            if let Some(link) = self.links.get_mut(conn) {
                link.notifications -= 1;
                if !link.closing {
                    events.push(Event::Released { conn, copied });
                }
            }
            return;
        }
        let notified = cqueue::more(flags);
        let Some(link) = self.links.get_mut(conn) else {
            unreachable!("a connection outlives the result of its sends")
        };
        link.ops -= 1;
        link.send = Sending::Idle;
        link.notifications += u32::from(notified);
        self.unnotified += u32::from(notified);
        if !link.closing && matches!(-result, libc::ENOMEM | libc::ENOBUFS | libc::EOPNOTSUPP) {
            // The same bytes again, by copy. The hold stays: its notification is still to come.
            link.ops += 1;
            if -result == libc::ENOMEM && !fixed {
                self.slabs.loose_failed();
            } else {
                link.copy_only = true;
            }
            let payload = hold.payload.clone();
            if !notified {
                self.release(token.slot);
                events.push(Event::Released { conn, copied: true });
            }
            return self.issue_copy(conn, payload);
        }
        let open = !link.closing;
        if !notified {
            self.release(token.slot);
        }
        self.report_sent(conn, result, given, events);
        if open && !notified {
            events.push(Event::Released { conn, copied: false });
        }
    }

    fn release(&mut self, hold: u32) {
        let hold = self.holds.remove(hold);
        self.pool.recycle(hold.payload, hold.message);
    }

    fn drive_file(&mut self, conn: Conn, file: Box<FileSend>, next: Next, events: &mut Vec<Event>) {
        let Some(link) = self.links.get_mut(conn) else { return };
        match next {
            Next::Submit(entry) => {
                let op = file_op(file.stage);
                link.send = Sending::File(file);
                // SAFETY: the link keeps the file, the pipe and the socket until the completion.
                unsafe { self.queue.push(&entry.user_data(conn.token(op))) };
            }
            Next::Done(result) => {
                link.ops -= 1;
                let (result, given) = match result {
                    Ok(taken) => (taken as i32, file.given()),
                    Err(errno) => (-errno, 0),
                };
                self.report_sent(conn, result, given, events);
            }
        }
    }

    pub(super) fn complete_file(&mut self, conn: Conn, result: i32, events: &mut Vec<Event>) {
        let Some(link) = self.links.get_mut(conn) else {
            self.stats.stale_completions += 1;
            return;
        };
        let Sending::File(mut file) = mem::replace(&mut link.send, Sending::Idle) else {
            unreachable!("the completion of a file send finds it")
        };
        let next = file.complete(result, link.raw_fd(), &mut self.pipes);
        self.drive_file(conn, file, next, events);
    }
}

fn send(fd: types::Fd, bytes: &[u8]) -> squeue::Entry {
    // No MSG_WAITALL: a short count comes back as soon as the socket is full, and the owner
    // decides what to do with the rest.
    let len = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
    opcode::Send::new(fd, bytes.as_ptr(), len).flags(libc::MSG_NOSIGNAL).build()
}

fn length(payload: &Payload, message: Option<&Message>) -> u32 {
    match payload {
        Payload::Range(range) => range.end - range.start,
        Payload::Bytes(bytes) => u32::try_from(bytes.len()).unwrap_or(u32::MAX),
        Payload::Gather(_) => message.map_or(0, Message::len),
        Payload::File { len, .. } => *len,
    }
}

/// Names the registered buffer of a vectored send, for which the crate has no setter.
fn with_buffer(mut entry: squeue::Entry, index: u16) -> squeue::Entry {
    /// Offset of `buf_index` in `struct io_uring_sqe`.
    const BUFFER_INDEX: usize = 40;
    const _: () = assert!(size_of::<squeue::Entry>() == 64);
    // SAFETY: `Entry` is repr(C) around the 64-byte sqe of the kernel's interface, whose field
    // `buf_index` is a u16 at this offset; all bit patterns are valid.
    unsafe { (&raw mut entry).cast::<u8>().add(BUFFER_INDEX).cast::<u16>().write(index) };
    entry
}

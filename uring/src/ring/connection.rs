//! A connection's beginning, when it is ours to make, and its end: terminate, join,
//! close; or join and hand over.

use std::io;
use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::time::Duration;

use io_uring::{opcode, types};

use super::Ring;
use crate::driver::{Conn, ConnectOptions, Driver, Errno, Event};
use crate::links::{Mode, Sending};
use crate::net;
use crate::ops::Op;

/// How long unacknowledged zero-copy data may keep its memory after the close.
const UNACKNOWLEDGED_MAX: Duration = Duration::from_secs(10);

impl Ring {
    pub(super) fn dial(&mut self, addr: SocketAddr, options: &ConnectOptions) -> io::Result<Conn> {
        let fd = net::dial(addr, options)?;
        let number = types::Fd(fd.as_raw_fd());
        let Some(conn) = self.links.insert(fd) else {
            return Err(io::Error::from_raw_os_error(libc::EMFILE));
        };
        let Some(link) = self.links.get_mut(conn) else {
            return Err(io::Error::from_raw_os_error(libc::EBADF));
        };
        let address = link.connect.insert(Box::new(addr.into()));
        let entry = opcode::Connect::new(number, address.as_ptr().cast(), address.len())
            .build()
            .user_data(conn.token(Op::Connect));
        link.ops += 1;
        // SAFETY: descriptor and boxed address are kept by the link until the completion.
        unsafe { self.queue.push(&entry) };
        Ok(conn)
    }

    pub(super) fn complete_connect(&mut self, conn: Conn, result: i32, events: &mut Vec<Event>) {
        let Some(link) = self.links.get_mut(conn) else {
            self.stats.stale_completions += 1;
            return;
        };
        link.ops -= 1;
        link.connect = None;
        if link.closing {
            self.finish_if_idle(conn, events);
        } else {
            let result = if result < 0 { Err(Errno(-result)) } else { Ok(()) };
            events.push(Event::Connected { conn, result });
        }
    }

    pub(super) fn close_conn(&mut self, conn: Conn) {
        let Some(link) = self.links.open(conn) else { return };
        link.closing = true;
        link.receive.want = None;
        net::shut_down(link.fd());
        if link.ops == 0 {
            self.close_descriptor(conn);
            self.ready.push(Event::Closed { conn });
            return;
        }
        // Most operations end by the shutdown; the cancels are for those that do not.
        let armed = link.receive.armed.map(Mode::op);
        let connecting = link.connect.is_some().then_some(Op::Connect);
        for op in armed.into_iter().chain(connecting) {
            self.cancel(conn.token(op));
        }
        self.cancel_send(conn);
    }

    /// The last step of a close, once nothing is in flight.
    pub(super) fn finish_if_idle(&mut self, conn: Conn, events: &mut Vec<Event>) {
        let Some(link) = self.links.get(conn) else { return };
        if !link.closing || link.ops > 0 {
            return;
        }
        self.close_descriptor(conn);
        self.links.reported(conn);
        events.push(Event::Closed { conn });
    }

    pub(super) fn hand_over_conn(&mut self, conn: Conn) {
        let Some(link) = self.links.open(conn) else { return };
        assert!(
            matches!(link.send, Sending::Idle),
            "bug of the owner: {conn:?} has a send in flight"
        );
        link.leaving = true;
        self.want(conn, None);
        let left = self.leave_if_idle(conn);
        self.ready.extend(left);
    }

    /// The last step of handing a connection over, once nothing is in flight.
    pub(super) fn leave_if_idle(&mut self, conn: Conn) -> Option<Event> {
        let link = self.links.open(conn)?;
        if !link.leaving || link.ops > 0 {
            return None;
        }
        Some(Event::HandedOver { conn, socket: self.links.remove(conn) })
    }

    fn close_descriptor(&mut self, conn: Conn) {
        let waiting = self.links.get(conn).is_some_and(|link| link.notifications > 0);
        let fd = self.links.remove(conn);
        if waiting {
            // A peer that is gone must not keep blocks for the many minutes TCP would try.
            net::bound_unacknowledged(&fd, UNACKNOWLEDGED_MAX);
        }
        drop(fd);
    }
}

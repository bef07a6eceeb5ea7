//! One simulated TCP connection: two ends, each with a send buffer and a receive window.
//!
//! ```text
//! unsent -> flying (latency) -> inbox of the other end -> its owner
//! \______ unacked: fills the send buffer until the other end's kernel has the bytes _____/
//! ```
//! This file holds the bytes and the counters; [`super::world`] decides when they move.

use std::cell::{Ref, RefCell};
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::rc::Rc;

use bytes::Bytes;

use crate::driver::{Conn, Listener, Payload, Range};

/// Who reads and writes an end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Owner {
    /// A client of the test.
    Peer(u32),
    /// A connection of a driver.
    Conn(u32, Conn),
    /// In the accept queue of a driver's listener.
    Queued(u32, Listener),
    /// A connection whose descriptor is closed; the network may still refer to its memory.
    Orphan(u32),
    /// The descriptor is closed, or nobody has answered yet.
    Nobody,
}

/// The way of a FIN.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fin {
    /// More bytes may be written.
    Open,
    /// To be sent after the last byte.
    Wanted,
    /// On its way or there.
    Sent,
}

/// The memory of one zero-copy send, until the kernel lets go of it.
pub(super) struct Hold {
    payload: RefCell<Option<Payload>>,
}

impl Hold {
    pub(super) fn new(payload: Payload) -> Rc<Hold> {
        Rc::new(Hold { payload: RefCell::new(Some(payload)) })
    }

    /// What is held; nothing once released.
    pub(super) fn payload(&self) -> Ref<'_, Option<Payload>> {
        self.payload.borrow()
    }

    /// Lets go. What was held is returned so that a gather can go back to its pool.
    pub(super) fn release(&self) -> Option<Payload> {
        self.payload.borrow_mut().take()
    }
}

/// Bytes on their way.
pub(super) enum Segment {
    /// The kernel's own copy.
    Copied(Bytes),
    /// Memory of the sender, read only when it is delivered.
    Held(Held),
}

/// A range of the sender's memory that the network refers to.
pub(super) struct Held {
    /// Number of the zero-copy send it belongs to.
    pub(super) notice: u64,
    /// Keeps the range's block.
    hold: Rc<Hold>,
    start: *const u8,
    len: usize,
}

impl Held {
    /// The bytes `start..end` of a block of `hold`'s payload.
    pub(super) fn new(notice: u64, hold: Rc<Hold>, range: &Range) -> Held {
        let bytes = range.block.bytes(range.start, range.end);
        Held { notice, hold, start: bytes.as_ptr(), len: bytes.len() }
    }

    fn split_to(&mut self, at: usize) -> Held {
        assert!(at <= self.len);
        let head = Held { hold: self.hold.clone(), len: at, ..*self };
        self.start = self.start.wrapping_add(at);
        self.len -= at;
        head
    }

    /// Appends what the memory holds now, which is what the network sends.
    fn read(&self, into: &mut Vec<u8>) {
        // SAFETY: the range lay within a block's published bytes (`Held::new`). Those are never
        // written again while the block is referenced, and the hold references it until the last
        // byte is acknowledged; segments are read before that. Only the planted bug
        // `planted_release_early` drops the reference sooner. Then the range is still mapped and
        // readable, because the world keeps the arena (`SimWorld::lend_arena`) and arenas keep
        // their address space; a writer of this thread may have overwritten it, which is the
        // point, and no reference to the bytes outlives this call.
        into.extend_from_slice(unsafe { std::slice::from_raw_parts(self.start, self.len) });
    }
}

impl Segment {
    pub(super) fn len(&self) -> usize {
        match self {
            Segment::Copied(bytes) => bytes.len(),
            Segment::Held(held) => held.len,
        }
    }

    pub(super) fn notice(&self) -> Option<u64> {
        match self {
            Segment::Copied(_) => None,
            Segment::Held(held) => Some(held.notice),
        }
    }

    fn split_to(&mut self, at: usize) -> Segment {
        match self {
            Segment::Copied(bytes) => Segment::Copied(bytes.split_to(at)),
            Segment::Held(held) => Segment::Held(held.split_to(at)),
        }
    }
}

/// One end of a connection, as its kernel sees it.
pub(super) struct End {
    pub(super) owner: Owner,
    pub(super) addr: SocketAddr,
    /// The handshake is done as far as this end knows.
    pub(super) up: bool,
    /// When the last thing on its way to this end arrives; keeps the direction in order.
    pub(super) latest: u64,
    unsent: VecDeque<Segment>,
    flying: VecDeque<Segment>,
    flying_bytes: usize,
    unacked: VecDeque<(Option<u64>, usize)>,
    /// Bytes in the send buffer: unsent, flying and not yet acknowledged.
    pub(super) held: usize,
    pub(super) fin: Fin,
    /// Arrived and not taken.
    pub(super) inbox: VecDeque<u8>,
    /// The other end's FIN has arrived.
    pub(super) eof: bool,
    /// The connection is reset; nothing moves any more.
    pub(super) broken: bool,
    /// The error the next operation reports, once.
    pub(super) error: Option<i32>,
    /// The descriptor is closed.
    pub(super) closed: bool,
}

impl End {
    pub(super) fn new(owner: Owner, addr: SocketAddr) -> End {
        End {
            owner,
            addr,
            up: false,
            latest: 0,
            unsent: VecDeque::new(),
            flying: VecDeque::new(),
            flying_bytes: 0,
            unacked: VecDeque::new(),
            held: 0,
            fin: Fin::Open,
            inbox: VecDeque::new(),
            eof: false,
            broken: false,
            error: None,
            closed: false,
        }
    }

    /// Puts bytes into the send buffer.
    pub(super) fn push(&mut self, segment: Segment) {
        self.held += segment.len();
        self.unsent.push_back(segment);
    }

    pub(super) fn flying_bytes(&self) -> usize {
        self.flying_bytes
    }

    pub(super) fn all_sent(&self) -> bool {
        self.unsent.is_empty()
    }

    /// Moves up to `max` bytes onto the wire and returns how many.
    pub(super) fn fly(&mut self, max: usize) -> usize {
        let mut moved = 0;
        while moved < max
            && let Some(segment) = self.unsent.front_mut()
        {
            let len = segment.len().min(max - moved);
            let part = if len == segment.len() {
                self.unsent.pop_front().expect("front was there")
            } else {
                segment.split_to(len)
            };
            self.flying.push_back(part);
            moved += len;
        }
        self.flying_bytes += moved;
        moved
    }

    /// Takes up to `max` bytes off the wire; here held memory is read.
    pub(super) fn land(&mut self, max: usize) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(max);
        while bytes.len() < max
            && let Some(segment) = self.flying.front_mut()
        {
            let len = segment.len().min(max - bytes.len());
            let part = if len == segment.len() {
                self.flying.pop_front().expect("front was there")
            } else {
                segment.split_to(len)
            };
            match &part {
                Segment::Copied(copied) => bytes.extend_from_slice(copied),
                Segment::Held(held) => held.read(&mut bytes),
            }
            self.unacked.push_back((part.notice(), len));
        }
        self.flying_bytes -= bytes.len();
        bytes
    }

    /// The other kernel has that many more bytes: returns the zero-copy sends they belonged to.
    pub(super) fn acknowledge(&mut self, mut bytes: usize) -> Vec<(u64, usize)> {
        let mut notices = Vec::new();
        while bytes > 0
            && let Some((notice, len)) = self.unacked.front_mut()
        {
            let part = bytes.min(*len);
            if let Some(notice) = *notice {
                notices.push((notice, part));
            }
            *len -= part;
            if *len == 0 {
                self.unacked.pop_front();
            }
            self.held -= part;
            bytes -= part;
        }
        notices
    }

    /// Throws away everything not acknowledged: returns the zero-copy sends it belonged to.
    pub(super) fn abandon(&mut self) -> Vec<(u64, usize)> {
        let waiting = self.unsent.drain(..).chain(self.flying.drain(..));
        let mut notices: Vec<(u64, usize)> = waiting
            .filter_map(|segment| segment.notice().map(|notice| (notice, segment.len())))
            .collect();
        notices.extend(
            self.unacked.drain(..).filter_map(|(notice, len)| notice.map(|notice| (notice, len))),
        );
        self.flying_bytes = 0;
        self.held = 0;
        notices
    }
}

/// A connection: end 0 is the one that connected.
pub(super) struct Link {
    pub(super) ends: [End; 2],
}

impl Link {
    /// The end on that side, then the other one.
    pub(super) fn pair(&mut self, side: usize) -> (&mut End, &mut End) {
        let [first, second] = &mut self.ends;
        if side == 0 { (first, second) } else { (second, first) }
    }

    /// Both descriptors are closed and nothing is on its way.
    pub(super) fn is_over(&self) -> bool {
        self.ends.iter().all(|end| {
            end.closed && (end.broken || (end.unsent.is_empty() && end.fin == Fin::Sent))
        }) && self.ends.iter().all(|end| end.flying.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_keep_their_order_through_uneven_cuts() {
        let mut end = End::new(Owner::Nobody, "127.0.0.1:1".parse().unwrap());
        for part in [&b"abc"[..], b"defgh", b"i"] {
            end.push(Segment::Copied(Bytes::from_static(part)));
        }
        assert_eq!((end.fly(4), end.fly(100), end.fly(100)), (4, 5, 0));
        assert_eq!(end.flying_bytes(), 9);
        let mut got = end.land(2);
        got.extend(end.land(5));
        got.extend(end.land(100));
        assert_eq!(got, b"abcdefghi");
        assert_eq!(end.held, 9, "the buffer is free only when acknowledged");
        assert!(end.acknowledge(4).is_empty());
        assert_eq!(end.held, 5);
        end.abandon();
        assert_eq!((end.held, end.flying_bytes()), (0, 0));
    }
}

//! Memory the kernel may still read, owned by type until it lets go.
//!
//! An ordinary send is held in its connection (one at a time). A zero-copy send outlives its
//! result, and several of one connection may wait for their notification, so those are held in a
//! table of their own. Neither allocates in the steady state.

use crate::driver::{Conn, Gather, Payload, Piece};
use crate::ops::SLOTS_MAX;

/// What `sendmsg` needs beside the bytes. Boxed, because the header points into the table.
pub(crate) struct Message {
    header: libc::msghdr,
    iovecs: Vec<libc::iovec>,
    len: u32,
}

impl Message {
    fn new() -> Box<Message> {
        // SAFETY: msghdr is plain data for which all zeroes (null pointers, zero lengths) is the
        // empty header.
        let header = unsafe { std::mem::zeroed() };
        Box::new(Message { header, iovecs: Vec::new(), len: 0 })
    }

    /// Describes the gather's pieces. The gather must be kept, unchanged, as long as the kernel
    /// uses this.
    ///
    /// # Panics
    /// When there are too many pieces or one of them is out of range.
    pub(crate) fn describe(&mut self, gather: &Gather) {
        let count = gather.pieces.len();
        assert!(count <= Gather::PIECES_MAX, "{count} pieces in a gather");
        self.iovecs.clear();
        let mut total = 0;
        for piece in &gather.pieces {
            let bytes = match piece {
                Piece::Head(range) => &gather.head[range.start as usize..range.end as usize],
                Piece::Block(range) => range.block.bytes(range.start, range.end),
            };
            total += bytes.len();
            let iov_base = bytes.as_ptr().cast_mut().cast();
            self.iovecs.push(libc::iovec { iov_base, iov_len: bytes.len() });
        }
        self.len = u32::try_from(total).expect("a gather is below 4 GiB");
        self.header.msg_iov = self.iovecs.as_mut_ptr();
        self.header.msg_iovlen = count as _;
    }

    pub(crate) fn header(&self) -> *const libc::msghdr {
        &raw const self.header
    }

    /// Bytes described.
    pub(crate) fn len(&self) -> u32 {
        self.len
    }
}

/// Spare parts of sends, so that a send allocates nothing once the shard is warm.
#[derive(Default)]
#[allow(clippy::vec_box, reason = "the boxes are what is reused: the kernel knows their addresses")]
pub(crate) struct Pool {
    gathers: Vec<Box<Gather>>,
    messages: Vec<Box<Message>>,
}

/// Spare gathers and messages kept; more are freed.
const SPARES_MAX: usize = 512;
/// A gather whose head grew beyond this is freed rather than kept.
const HEAD_KEPT_MAX: usize = 16 << 10;

impl Pool {
    pub(crate) fn take_gather(&mut self) -> Box<Gather> {
        self.gathers.pop().unwrap_or_default()
    }

    pub(crate) fn take_message(&mut self) -> Box<Message> {
        self.messages.pop().unwrap_or_else(Message::new)
    }

    pub(crate) fn recycle_message(&mut self, message: Option<Box<Message>>) {
        if let Some(message) = message
            && self.messages.len() < SPARES_MAX
        {
            self.messages.push(message);
        }
    }

    /// Lets go of what a finished send held.
    pub(crate) fn recycle(&mut self, payload: Payload, message: Option<Box<Message>>) {
        self.recycle_message(message);
        if let Payload::Gather(mut gather) = payload {
            // Clearing drops the references to blocks now, not when the gather is used again.
            gather.clear();
            if self.gathers.len() < SPARES_MAX && gather.head.capacity() <= HEAD_KEPT_MAX {
                self.gathers.push(gather);
            }
        }
    }
}

/// One zero-copy send.
pub(crate) struct Hold {
    pub(crate) conn: Conn,
    pub(crate) payload: Payload,
    pub(crate) message: Option<Box<Message>>,
    /// Bytes the send was given.
    pub(crate) len: u32,
    /// Sent from a registered buffer.
    pub(crate) fixed: bool,
}

struct Place {
    /// Counts the uses of the place, so that a completion of an earlier use is recognized.
    generation: u32,
    hold: Option<Hold>,
}

/// All zero-copy sends the kernel has not let go of.
#[derive(Default)]
pub(crate) struct Holds {
    places: Vec<Place>,
    free: Vec<u32>,
    live: usize,
}

impl Holds {
    /// Index and generation of the new hold, or the hold back when the table is full.
    pub(crate) fn insert(&mut self, hold: Hold) -> Result<(u32, u32), Hold> {
        let index = match self.free.pop() {
            Some(index) => index,
            None if self.places.len() >= SLOTS_MAX => return Err(hold),
            None => {
                self.places.push(Place { generation: 0, hold: None });
                self.places.len() as u32 - 1
            }
        };
        let place = &mut self.places[index as usize];
        place.hold = Some(hold);
        self.live += 1;
        Ok((index, place.generation))
    }

    pub(crate) fn find(&self, index: u32, generation: u32) -> Option<&Hold> {
        let place = self.places.get(index as usize)?;
        place.hold.as_ref().filter(|_| place.generation == generation)
    }

    /// Ends a hold: the kernel has let go.
    pub(crate) fn remove(&mut self, index: u32) -> Hold {
        let place = &mut self.places[index as usize];
        let hold = place.hold.take().expect("a hold ends once");
        place.generation = place.generation.wrapping_add(1);
        self.free.push(index);
        self.live -= 1;
        hold
    }

    pub(crate) fn live(&self) -> usize {
        self.live
    }

    /// Gives up on the notifications: the memory is never freed and so never rewritten.
    pub(crate) fn leak(&mut self) {
        for place in &mut self.places {
            std::mem::forget(place.hold.take());
        }
        self.live = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Arena, ArenaOptions, Range};
    use std::rc::Rc;

    fn range(bytes: &[u8]) -> Range {
        let arena = Arena::new(ArenaOptions { limit: 1, huge_pages: false }).expect("memory");
        let mut writer = arena.writer(bytes.len()).expect("room");
        writer.push(bytes);
        writer.publish();
        Range { block: Rc::new(writer.block().clone()), start: 0, end: bytes.len() as u32 }
    }

    #[test]
    fn message_describes_pieces_in_order() {
        let mut gather = Gather::default();
        gather.head.extend_from_slice(b"head");
        gather.pieces = vec![Piece::Head(1..3), Piece::Block(range(b"body")), Piece::Head(0..1)];
        let mut message = Message::new();
        message.describe(&gather);
        assert_eq!(message.len(), 7);
        // SAFETY: the iovecs were just made from live slices of `gather`.
        let bytes: Vec<u8> = unsafe {
            message
                .iovecs
                .iter()
                .flat_map(|v| std::slice::from_raw_parts(v.iov_base.cast::<u8>(), v.iov_len))
                .copied()
                .collect()
        };
        assert_eq!(bytes, b"eabodyh");
    }

    #[test]
    fn recycled_gather_is_empty_and_lets_its_blocks_go() {
        let mut pool = Pool::default();
        let mut gather = pool.take_gather();
        let body = range(b"x");
        gather.head.push(1);
        gather.pieces.push(Piece::Block(body.clone()));
        let message = pool.take_message();
        pool.recycle(Payload::Gather(gather), Some(message));
        assert_eq!(Rc::strong_count(&body.block), 1);
        let gather = pool.take_gather();
        assert!(gather.head.is_empty() && gather.pieces.is_empty());
        assert!(gather.head.capacity() > 0);
    }

    #[test]
    fn late_completion_does_not_find_the_next_hold() {
        let conn = Conn { slot: 0, generation: 0 };
        let hold = || Hold {
            conn,
            payload: Payload::Range(range(b"a")),
            message: None,
            len: 1,
            fixed: false,
        };
        let mut holds = Holds::default();
        let Ok((index, generation)) = holds.insert(hold()) else { panic!("room") };
        assert!(holds.find(index, generation).is_some());
        holds.remove(index);
        assert!(holds.find(index, generation).is_none());
        let Ok((again, next)) = holds.insert(hold()) else { panic!("room") };
        assert_eq!(again, index);
        assert!(holds.find(index, generation).is_none());
        assert!(holds.find(index, next).is_some());
        assert_eq!(holds.live(), 1);
    }
}

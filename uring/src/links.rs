//! The table of connections of one driver.

use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use socket2::SockAddr;

use crate::driver::{Conn, Payload};
use crate::hold::Message;
use crate::ops::{Op, SLOTS_MAX, Token};
use crate::splice::FileSend;

/// One connection as the driver sees it.
pub(crate) struct Link {
    generation: u32,
    /// None: the slot is free.
    fd: Option<OwnedFd>,
    /// Operations whose last completion has not come, zero-copy notifications not counted.
    pub(crate) ops: u16,
    /// Zero-copy notifications that have not come.
    pub(crate) notifications: u32,
    /// `close` was called: no event but `Closed` any more.
    pub(crate) closing: bool,
    /// `hand_over` was called: the socket goes to the owner once nothing is in flight.
    pub(crate) leaving: bool,
    /// Zero-copy does not work on this socket.
    pub(crate) copy_only: bool,
    pub(crate) receive: Receive,
    pub(crate) send: Sending,
    /// The address of a connect in flight.
    pub(crate) connect: Option<Box<SockAddr>>,
}

/// What the owner wants received, and what is armed.
#[derive(Default)]
pub(crate) struct Receive {
    pub(crate) want: Option<Mode>,
    pub(crate) armed: Option<Mode>,
    /// A cancel of what is armed is on its way.
    pub(crate) cancelling: bool,
    /// The end was reported; nothing is armed again.
    pub(crate) ended: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Into buffers of the ring.
    Deliver,
    /// Thrown away by the kernel.
    Discard,
}

impl Mode {
    pub(crate) fn op(self) -> Op {
        match self {
            Mode::Deliver => Op::Receive,
            Mode::Discard => Op::Discard,
        }
    }
}

/// The send in flight. Owns what the kernel reads.
pub(crate) enum Sending {
    Idle,
    Copy {
        payload: Payload,
        message: Option<Box<Message>>,
    },
    /// Held in the table of holds under this index.
    ZeroCopy {
        hold: u32,
        generation: u32,
    },
    File(Box<FileSend>),
}

impl Link {
    pub(crate) fn fd(&self) -> &OwnedFd {
        self.fd.as_ref().expect("only live connections are looked up")
    }

    pub(crate) fn raw_fd(&self) -> RawFd {
        self.fd().as_raw_fd()
    }
}

/// All connections. Slots are reused one turn after their `Closed` was reported, so that an owner
/// working through a list of events never sees a slot taken by two connections.
#[derive(Default)]
pub(crate) struct Links {
    links: Vec<Link>,
    free: Vec<u32>,
    resting: Vec<u32>,
}

impl Links {
    /// None (and the socket closed) when the table is full.
    pub(crate) fn insert(&mut self, fd: OwnedFd) -> Option<Conn> {
        let slot = match self.free.pop() {
            Some(slot) => slot,
            None if self.links.len() >= SLOTS_MAX => return None,
            None => {
                self.links.push(Link::vacant());
                self.links.len() as u32 - 1
            }
        };
        let link = &mut self.links[slot as usize];
        link.fd = Some(fd);
        Some(Conn { slot, generation: link.generation })
    }

    /// The connection, unless it is gone.
    pub(crate) fn get(&self, conn: Conn) -> Option<&Link> {
        let link = self.links.get(conn.slot as usize)?;
        (link.generation == conn.generation && link.fd.is_some()).then_some(link)
    }

    pub(crate) fn get_mut(&mut self, conn: Conn) -> Option<&mut Link> {
        let link = self.links.get_mut(conn.slot as usize)?;
        (link.generation == conn.generation && link.fd.is_some()).then_some(link)
    }

    /// The connection, unless its owner has closed it.
    pub(crate) fn open(&mut self, conn: Conn) -> Option<&mut Link> {
        self.get_mut(conn).filter(|link| !link.closing)
    }

    /// Takes the descriptor out and ends this use of the slot. The slot rests until
    /// [`Links::reported`] and then until [`Links::turn`].
    pub(crate) fn remove(&mut self, conn: Conn) -> OwnedFd {
        let link = &mut self.links[conn.slot as usize];
        debug_assert!(link.ops == 0 && link.generation == conn.generation);
        let fd = link.fd.take().expect("a connection is removed once");
        let generation = link.generation.wrapping_add(1);
        *link = Link { generation, ..Link::vacant() };
        fd
    }

    /// The slot's `Closed` was handed to the owner.
    pub(crate) fn reported(&mut self, conn: Conn) {
        self.resting.push(conn.slot);
    }

    /// A new turn begins: slots reported in the last one may be used again.
    pub(crate) fn turn(&mut self) {
        self.free.append(&mut self.resting);
    }

    /// All connections that are not gone.
    pub(crate) fn live(&self) -> impl Iterator<Item = Conn> + '_ {
        let live = self.links.iter().enumerate().filter(|(_, link)| link.fd.is_some());
        live.map(|(slot, link)| Conn { slot: slot as u32, generation: link.generation })
    }

    /// Operations in flight on all connections.
    pub(crate) fn ops(&self) -> usize {
        self.links.iter().map(|link| usize::from(link.ops)).sum()
    }

    /// Gives up on what is in flight: memory and descriptors are never freed.
    pub(crate) fn leak(&mut self) {
        std::mem::take(&mut self.links)
            .into_iter()
            .filter(|link| link.ops > 0)
            .for_each(std::mem::forget);
    }
}

impl Link {
    fn vacant() -> Link {
        Link {
            generation: 0,
            fd: None,
            ops: 0,
            notifications: 0,
            closing: false,
            leaving: false,
            copy_only: false,
            receive: Receive::default(),
            send: Sending::Idle,
            connect: None,
        }
    }
}

impl Conn {
    pub(crate) fn token(self, op: Op) -> u64 {
        Token::new(op, self.slot, self.generation).pack()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn socket() -> OwnedFd {
        std::fs::File::open("/dev/null").expect("always there").into()
    }

    #[test]
    fn generation_tells_uses_of_a_slot_apart() {
        let mut links = Links::default();
        let first = links.insert(socket()).expect("room");
        drop(links.remove(first));
        assert!(links.get(first).is_none());
        links.reported(first);
        let other = links.insert(socket()).expect("room");
        assert_ne!(other.slot, first.slot, "the slot rests for a turn");
        links.turn();
        let second = links.insert(socket()).expect("room");
        assert_eq!(second.slot, first.slot);
        assert_ne!(second, first);
        assert!(links.get(first).is_none() && links.get(second).is_some());
        assert_eq!(links.live().count(), 2);
    }

    #[test]
    fn idle_connection_is_small() {
        assert!(size_of::<Link>() <= 80, "{} bytes", size_of::<Link>());
    }
}

//! A driver behind which there is nothing: every send is taken whole at once. What a turn of a
//! shard costs on it is what the shard itself costs.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;

use uring::{
    Conn, ConnectOptions, Driver, DriverStats, Event, Gather, ListenOptions, Listener, Payload,
    Piece, SendMode, Wake,
};

/// A driver of connections that exist on paper only.
#[derive(Debug, Default)]
pub struct NullDriver {
    /// The clock, ns; moved by the owner.
    pub time: u64,
    /// What the next turn reports, beside sends that are done.
    pub pending: Vec<Event>,
    /// Heap bytes sent to connections of which the owner wants to know.
    pub captured: HashMap<Conn, Vec<u8>>,
    /// Sends so far.
    pub sends: u64,
    /// Bytes in them.
    pub bytes: u64,
    sending: Vec<(Conn, u32)>,
    busy: Vec<bool>,
    #[allow(clippy::vec_box, reason = "the interface hands out boxes")]
    spare: Vec<Box<Gather>>,
}

/// Wakes nobody.
#[derive(Clone, Debug)]
pub struct NullWaker;

impl Wake for NullWaker {
    fn wake(&self) {}
}

fn length(payload: &Payload) -> u32 {
    match payload {
        Payload::Range(range) => range.end - range.start,
        Payload::Bytes(bytes) => bytes.len() as u32,
        Payload::File { len, .. } => *len,
        Payload::Gather(gather) => {
            let len = |piece: &Piece| match piece {
                Piece::Head(range) => range.end - range.start,
                Piece::Block(range) => range.end - range.start,
            };
            gather.pieces.iter().map(len).sum()
        }
    }
}

impl Driver for NullDriver {
    type Waker = NullWaker;

    fn now(&self) -> u64 {
        self.time
    }

    fn now_exact(&self) -> u64 {
        self.time
    }

    fn waker(&self) -> NullWaker {
        NullWaker
    }

    fn wake(&mut self, _: &NullWaker) {}

    fn listen(&mut self, _: SocketAddr, _: &ListenOptions) -> io::Result<Listener> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn listen_on(&mut self, _: OwnedFd) -> io::Result<Listener> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn stop_listening(&mut self, _: Listener) {}

    fn connect(&mut self, _: SocketAddr, _: &ConnectOptions) -> io::Result<Conn> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn receive(&mut self, _: Conn) {}

    fn receive_discard(&mut self, _: Conn) {}

    fn receive_pause(&mut self, _: Conn) {}

    fn send(&mut self, conn: Conn, payload: Payload, _: SendMode) {
        if self.busy.len() <= conn.index() {
            self.busy.resize(conn.index() + 1, false);
        }
        assert!(!std::mem::replace(&mut self.busy[conn.index()], true), "one send at a time");
        let len = length(&payload);
        self.sends += 1;
        self.bytes += u64::from(len);
        self.sending.push((conn, len));
        match payload {
            Payload::Bytes(bytes) => {
                if let Some(captured) = self.captured.get_mut(&conn) {
                    captured.extend_from_slice(&bytes);
                }
            }
            Payload::Gather(mut gather) => {
                gather.clear();
                self.spare.push(gather);
            }
            _ => {}
        }
    }

    fn send_in_flight(&self, conn: Conn) -> bool {
        self.busy.get(conn.index()).copied().unwrap_or(false)
    }

    fn cancel_send(&mut self, _: Conn) {}

    fn take_gather(&mut self) -> Box<Gather> {
        self.spare.pop().unwrap_or_default()
    }

    fn close(&mut self, conn: Conn) {
        self.pending.push(Event::Closed { conn });
    }

    fn turn(&mut self, _: Option<u64>, events: &mut Vec<Event>) -> io::Result<()> {
        events.append(&mut self.pending);
        for (conn, bytes) in self.sending.drain(..) {
            self.busy[conn.index()] = false;
            events.push(Event::Sent { conn, result: Ok(bytes) });
        }
        Ok(())
    }

    fn stats(&self) -> DriverStats {
        DriverStats { sends: self.sends, ..DriverStats::default() }
    }
}

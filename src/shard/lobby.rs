//! The lobby: what connections that neither publish nor play yet want, in the order it came.
//!
//! When thousands join within a second, their handshakes, requests and first GOPs are more work
//! than a shard gets done between two messages of a stream. So newcomers wait here while the
//! events of publishers and players are handled and what they lead to is sent; then as many of
//! them are let in as one turn can afford. First come, first served: nobody starves, and while
//! the shard has time to spare everybody is let in within the turn.

use std::collections::VecDeque;
use std::net::SocketAddr;

use uring::{Conn, Ended, Listener, Received};

use crate::limits::LOBBY_BYTES_MAX;

/// What a turn spends on newcomers, in units of about 10 microseconds, sends included.
const TURN_COST: u32 = 100;
/// More places than that are given back when nobody waits any more.
const PLACES_KEPT: usize = 256;

/// One thing a newcomer wants.
#[derive(Debug)]
pub enum Wanted {
    /// To be accepted.
    Accepted {
        /// Where it knocked.
        listener: Listener,
        /// The connection.
        conn: Conn,
        /// Its address.
        peer: SocketAddr,
        /// Ours.
        local: SocketAddr,
    },
    /// To be heard.
    Received {
        /// The connection.
        conn: Conn,
        /// What it says.
        data: Received,
    },
    /// To leave.
    Ended {
        /// The connection.
        conn: Conn,
        /// How it ended.
        ended: Ended,
    },
    /// The kept GOP, after it has joined and been greeted.
    Begin {
        /// The connection.
        conn: Conn,
    },
}

impl Wanted {
    fn conn(&self) -> Conn {
        match self {
            Wanted::Accepted { conn, .. }
            | Wanted::Received { conn, .. }
            | Wanted::Ended { conn, .. }
            | Wanted::Begin { conn } => *conn,
        }
    }

    fn bytes(&self) -> usize {
        if let Wanted::Received { data, .. } = self { data.len() } else { 0 }
    }

    fn cost(&self) -> u32 {
        match self {
            Wanted::Ended { .. } => 1,
            Wanted::Accepted { .. } | Wanted::Received { .. } => 2,
            // Everything since the newest keyframe.
            Wanted::Begin { .. } => 10,
        }
    }
}

/// Newcomers, first come first served.
#[derive(Debug, Default)]
pub struct Lobby {
    queue: VecDeque<Wanted>,
    /// By connection index: what it has in the queue.
    places: Vec<u32>,
    /// Bytes of what was received and waits.
    bytes: usize,
    /// So many at the front hold no receive buffers.
    settled: usize,
    /// What may still be spent in this turn.
    budget: u32,
    /// Somebody had to wait for a later turn.
    was_full: bool,
}

impl Lobby {
    /// True when something of the connection waits, so that what comes next of it has to wait,
    /// too, whatever the connection has become.
    pub fn holds(&self, conn: Conn) -> bool {
        self.places.get(conn.index()).is_some_and(|&n| n > 0)
    }

    /// True when nobody waits.
    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// Lets something wait.
    pub fn put(&mut self, wanted: Wanted) {
        let index = wanted.conn().index();
        if self.places.len() <= index {
            self.places.resize(index + 1, 0);
        }
        self.places[index] += 1;
        self.bytes += wanted.bytes();
        self.queue.push_back(wanted);
    }

    /// Begins a turn's share.
    pub fn open(&mut self) {
        self.budget = TURN_COST;
    }

    /// The next to be let in, if the turn can afford it. A turn spends more only while more bytes
    /// wait than may.
    pub fn admit(&mut self) -> Option<Wanted> {
        if self.budget == 0 && self.bytes <= LOBBY_BYTES_MAX {
            return None;
        }
        let wanted = self.queue.pop_front()?;
        self.budget = self.budget.saturating_sub(wanted.cost());
        self.bytes -= wanted.bytes();
        self.settled = self.settled.saturating_sub(1);
        self.places[wanted.conn().index()] -= 1;
        Some(wanted)
    }

    /// Ends a turn's share. What waits on moves to memory of its own, because publishers and
    /// players need the receive buffers.
    pub fn close(&mut self) {
        if self.queue.is_empty() {
            if self.queue.capacity() > PLACES_KEPT {
                self.queue = VecDeque::new();
            }
            return;
        }
        self.was_full = true;
        for wanted in self.queue.range_mut(self.settled..) {
            if let Wanted::Received { data, .. } = wanted {
                *data = Received::owned(data.to_vec());
            }
        }
        self.settled = self.queue.len();
    }

    /// True when somebody had to wait for a later turn since the last call.
    pub fn take_was_full(&mut self) -> bool {
        std::mem::take(&mut self.was_full)
    }
}

#[cfg(test)]
mod tests {
    use uring::Event;
    use uring::sim::accepted;

    use super::*;

    fn conns(count: usize) -> Vec<Conn> {
        let conn = |event| match event {
            Event::Accepted { conn, .. } => conn,
            other => panic!("{other:?}"),
        };
        accepted(&[count]).1.into_iter().map(conn).collect()
    }

    fn said(conn: Conn, bytes: &[u8]) -> Wanted {
        Wanted::Received { conn, data: Received::owned(bytes.to_vec()) }
    }

    /// One turn: who is let in.
    fn turn(lobby: &mut Lobby) -> Vec<Wanted> {
        lobby.open();
        let in_now = std::iter::from_fn(|| lobby.admit()).collect();
        lobby.close();
        in_now
    }

    #[test]
    fn nobody_waits_while_there_is_time() {
        let mut lobby = Lobby::default();
        for conn in conns(10) {
            lobby.put(said(conn, b"C0"));
        }
        assert_eq!(turn(&mut lobby).len(), 10);
        assert!(lobby.is_empty() && !lobby.take_was_full());
    }

    #[test]
    fn a_turn_has_an_end_and_everybody_gets_in_in_order() {
        let conns = conns(1_000);
        let mut lobby = Lobby::default();
        for conn in &conns {
            lobby.put(said(*conn, &conn.index().to_le_bytes()));
        }
        let mut order = Vec::new();
        while !lobby.is_empty() {
            let in_now = turn(&mut lobby);
            assert_eq!(in_now.len(), (TURN_COST / 2) as usize);
            // Whoever comes meanwhile, however often, comes behind those who wait.
            lobby.put(Wanted::Begin { conn: conns[0] });
            for wanted in in_now {
                match wanted {
                    Wanted::Received { conn, data } => {
                        assert_eq!(data[..], conn.index().to_le_bytes());
                        order.push(conn);
                    }
                    other => panic!("{other:?} overtook"),
                }
            }
            if order.len() == conns.len() {
                break;
            }
        }
        assert_eq!(order, conns);
        assert!(lobby.take_was_full());
        assert!(!lobby.take_was_full());
    }

    #[test]
    fn first_gops_count_for_more_than_words() {
        let conns = conns(200);
        let mut lobby = Lobby::default();
        for conn in &conns {
            lobby.put(Wanted::Begin { conn: *conn });
        }
        assert_eq!(turn(&mut lobby).len(), (TURN_COST / 10) as usize);
    }

    #[test]
    fn a_connection_does_not_overtake_itself() {
        let conns = conns(2);
        let mut lobby = Lobby::default();
        lobby.put(said(conns[0], b"play"));
        assert!(lobby.holds(conns[0]) && !lobby.holds(conns[1]));
        lobby.put(Wanted::Ended { conn: conns[0], ended: Ended::Eof });
        lobby.open();
        assert!(matches!(lobby.admit(), Some(Wanted::Received { .. })));
        assert!(lobby.holds(conns[0]));
        assert!(matches!(lobby.admit(), Some(Wanted::Ended { .. })));
        assert!(!lobby.holds(conns[0]));
    }

    #[test]
    fn too_many_waiting_bytes_are_worked_off_at_once() {
        let conns = conns(1);
        let mut lobby = Lobby::default();
        for _ in 0..400 {
            lobby.put(said(conns[0], &[0; 64 << 10]));
        }
        assert!(lobby.bytes > LOBBY_BYTES_MAX);
        assert!(turn(&mut lobby).len() > (TURN_COST / 2) as usize);
        assert!(lobby.bytes <= LOBBY_BYTES_MAX);
        while !lobby.is_empty() {
            turn(&mut lobby);
        }
        assert_eq!(lobby.bytes, 0);
    }
}

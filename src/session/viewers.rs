//! Viewers: players without a connection of their own, who come again and again with the id that
//! their playlist or manifest gave them (`hls_ctx`, `dash_ctx`).
//!
//! A viewer's requests may come over any connection to any shard, so the table is shared; it is
//! looked at once per request. A viewer that does not come any more has left.

use std::collections::HashMap;
use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::net::SocketAddr;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::SessionId;
use super::admission::{Desk, Stay};
use crate::hub::{ClientKind, NewClient, Reason, Urls};
use crate::limits;
use crate::remux::{Client, Clients, Stream};

/// One viewer.
#[derive(Debug)]
pub struct Viewer {
    /// Its record.
    pub client: Arc<Client>,
    /// When it last came, ns.
    seen: AtomicU64,
    /// It has left when it does not come for this long, ns.
    timeout: u64,
    /// It has come back with its id for a manifest.
    returned: AtomicBool,
    stay: Mutex<Option<Box<Stay>>>,
}

impl Viewer {
    /// It has come.
    pub fn touch(&self, now: u64) {
        self.seen.fetch_max(now, Relaxed);
    }

    /// It has come back with the id that a manifest gave it.
    pub fn note_return(&self) {
        self.returned.store(true, Relaxed);
    }

    /// True when it has.
    pub fn has_returned(&self) -> bool {
        self.returned.load(Relaxed)
    }
}

/// Who a viewer is that begins.
#[derive(Debug)]
pub struct NewViewer {
    /// Its id.
    pub id: SessionId,
    /// Its address.
    pub peer: SocketAddr,
    /// By which protocol.
    pub kind: ClientKind,
    /// What it plays.
    pub stream: Arc<Stream>,
    /// What it said of itself.
    pub urls: Urls,
    /// Why it may.
    pub stay: Option<Box<Stay>>,
    /// It has left when it does not come for this long, ms.
    pub timeout_ms: u64,
}

/// What is known of an id.
#[derive(Debug)]
pub enum Lookup {
    /// It watches.
    Here(Arc<Viewer>),
    /// An operator has sent it away.
    Kicked,
    /// Nothing: it never was, or has left.
    Unknown,
}

/// Some of the viewers, by id.
type Table = Mutex<HashMap<SessionId, Arc<Viewer>>>;

/// All viewers of the process.
#[derive(Debug)]
pub struct Viewers {
    tables: Box<[Table]>,
    count: AtomicUsize,
    /// Until when an id is refused, ns.
    kicked: Mutex<HashMap<SessionId, u64>>,
    /// The table that is looked through next.
    next: AtomicUsize,
    /// What ids that follow from something are made with.
    keys: RandomState,
}

/// Tables, so that shards seldom wait for each other, and few viewers are looked at in one tick.
const TABLES: usize = 16;

impl Default for Viewers {
    fn default() -> Self {
        Viewers {
            tables: (0..TABLES).map(|_| Mutex::default()).collect(),
            count: AtomicUsize::new(0),
            kicked: Mutex::default(),
            next: AtomicUsize::new(0),
            keys: RandomState::new(),
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Each change under these locks is one call that leaves a whole table.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Viewers {
    /// An id that nobody has and nobody guesses.
    pub fn new_id(&self) -> SessionId {
        // The standard library's keys are random; ids are as hard to tell as they are.
        let bits = RandomState::new().build_hasher().finish();
        SessionId::from_bits(bits ^ bits >> 40)
    }

    /// The id that follows from this, which nobody else guesses.
    pub fn id_of(&self, what: impl std::hash::Hash) -> SessionId {
        let bits = self.keys.hash_one(what);
        SessionId::from_bits(bits ^ bits >> 40)
    }

    /// Who has this id.
    pub fn find(&self, id: SessionId, now: u64) -> Lookup {
        if let Some(viewer) = lock(self.table(id)).get(&id) {
            viewer.touch(now);
            return Lookup::Here(viewer.clone());
        }
        match lock(&self.kicked).get(&id) {
            Some(until) if *until > now => Lookup::Kicked,
            _ => Lookup::Unknown,
        }
    }

    /// A viewer begins, at `now` (ns) and `wall_ms`.
    ///
    /// # Errors
    /// There are too many; what it holds comes back.
    pub fn join(
        &self,
        clients: &Clients,
        desk: &Desk,
        new: NewViewer,
        (now, wall_ms): (u64, i64),
    ) -> Result<Arc<Viewer>, Option<Box<Stay>>> {
        let NewViewer { id, peer, kind, stream, urls, stay, timeout_ms } = new;
        let mut table = lock(self.table(id));
        // Two requests with the same id that had been forgotten.
        if let Some(there) = table.get(&id) {
            if let Some(stay) = stay {
                stay.end(desk);
            }
            return Ok(there.clone());
        }
        if self.count.fetch_add(1, Relaxed) >= limits::HLS_VIEWERS_MAX {
            self.count.fetch_sub(1, Relaxed);
            return Err(stay);
        }
        stream.count_viewer(true);
        let new = NewClient {
            id,
            peer,
            kind,
            stream,
            urls,
            opened_ms: wall_ms,
            bytes_in: 0,
            bytes_out: 0,
        };
        let client = clients.join_viewer(new, wall_ms);
        let timeout = timeout_ms * 1_000_000;
        let (seen, returned) = (AtomicU64::new(now), AtomicBool::new(false));
        let viewer = Viewer { client, seen, timeout, returned, stay: Mutex::new(stay) };
        let viewer = Arc::new(viewer);
        table.insert(id, viewer.clone());
        Ok(viewer)
    }

    /// Ends a viewer by an operator's wish, at `now` (ns); its id is refused for a while.
    pub fn kick(&self, id: SessionId, clients: &Clients, desk: &Desk, (now, wall_ms): (u64, i64)) {
        let viewer = lock(self.table(id)).remove(&id);
        let mut kicked = lock(&self.kicked);
        kicked.retain(|_, until| *until > now);
        if kicked.len() >= limits::HLS_KICKED_MAX
            && let Some(oldest) = kicked.iter().min_by_key(|(_, until)| **until)
        {
            let oldest = *oldest.0;
            kicked.remove(&oldest);
        }
        kicked.insert(id, now + limits::HLS_KICKED_MS * 1_000_000);
        drop(kicked);
        if let Some(viewer) = viewer {
            self.end(&viewer, Reason::Kicked, clients, desk, wall_ms);
        }
    }

    /// Ends those of some who have not come for too long, or all of everybody. Gives the streams
    /// that they have watched.
    pub fn expire(
        &self,
        all: bool,
        clients: &Clients,
        desk: &Desk,
        (now, wall_ms): (u64, i64),
    ) -> Vec<Arc<Stream>> {
        let mut ended = Vec::new();
        let turn = self.next.fetch_add(1, Relaxed);
        let turns = if all { 0..TABLES } else { turn % TABLES..turn % TABLES + 1 };
        for table in turns {
            lock(&self.tables[table]).retain(|_, viewer| {
                let stays = !all && now.saturating_sub(viewer.seen.load(Relaxed)) < viewer.timeout;
                if !stays {
                    ended.push(viewer.clone());
                }
                stays
            });
        }
        let reason = if all { Reason::Shutdown } else { Reason::PeerClosed };
        for viewer in &ended {
            self.end(viewer, reason, clients, desk, wall_ms);
        }
        ended.into_iter().map(|viewer| viewer.client.stream.clone()).collect()
    }

    /// Viewers now.
    pub fn len(&self) -> usize {
        self.count.load(Relaxed)
    }

    /// True when there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn end(&self, viewer: &Viewer, reason: Reason, clients: &Clients, desk: &Desk, wall_ms: i64) {
        self.count.fetch_sub(1, Relaxed);
        clients.leave(&viewer.client, reason, wall_ms);
        viewer.client.stream.count_viewer(false);
        if let Some(stay) = lock(&viewer.stay).take() {
            stay.end(desk);
        }
    }

    fn table(&self, id: SessionId) -> &Table {
        let first = id.as_str().as_bytes()[0];
        &self.tables[usize::from(first) % TABLES]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::media::name::StreamName;
    use crate::remux::Registry;

    const SECOND: u64 = 1_000_000_000;

    #[test]
    fn viewers_come_leave_and_are_sent_away() {
        let (viewers, clients, desk) = (Viewers::default(), Clients::new(2), Desk::default());
        let registry = Registry::default();
        let stream = registry.open(&StreamName::new("v", "live", "s").unwrap()).unwrap();
        let join = |id, now| {
            let new = NewViewer {
                id,
                peer: "127.0.0.1:5".parse().unwrap(),
                kind: ClientKind::HlsPlay,
                stream: stream.clone(),
                urls: Urls::default(),
                stay: None,
                timeout_ms: 10_000,
            };
            viewers.join(&clients, &desk, new, (now, 5)).map_err(drop).unwrap()
        };
        let ids = [viewers.new_id(), viewers.new_id(), viewers.new_id()];
        assert!(ids[0] != ids[1] && ids[1] != ids[2]);
        assert!(matches!(viewers.find(ids[0], 0), Lookup::Unknown));
        for id in ids {
            join(id, 0);
            join(id, 0);
        }
        assert_eq!((viewers.len(), clients.len(), stream.players()), (3, 3, 3));
        assert_eq!(clients.page(0, 10).len(), 3);
        viewers.kick(ids[2], &clients, &desk, (0, 5));
        assert!(matches!(viewers.find(ids[2], SECOND), Lookup::Kicked));
        assert!(matches!(viewers.find(ids[2], 400 * SECOND), Lookup::Unknown));
        let Lookup::Here(viewer) = viewers.find(ids[0], 8 * SECOND) else { panic!("gone") };
        viewer.client.count_bytes_out(7);
        assert_eq!(viewer.client.bytes_out(), 7);
        let mut left = 0;
        for _ in 0..TABLES {
            left += viewers.expire(false, &clients, &desk, (11 * SECOND, 5)).len();
        }
        assert_eq!((left, viewers.len(), clients.len(), stream.players()), (1, 1, 1, 1));
        viewers.expire(true, &clients, &desk, (11 * SECOND, 5));
        assert!(viewers.is_empty() && clients.is_empty() && stream.players() == 0);
        join(ids[1], 12 * SECOND);
        assert_eq!(clients.page(0, 10).len(), 1);
    }
}

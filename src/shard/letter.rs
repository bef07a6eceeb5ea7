//! Letters: the closed list of what one thread tells a shard.
//!
//! A letter is a hint: the truth is in the shared structures (streams, feeds). A mailbox that is
//! full therefore loses nothing: the shard is told that it missed something and looks at all it
//! follows and publishes.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering::AcqRel};
use std::sync::{Arc, OnceLock};

use crossbeam::queue::ArrayQueue;
use uring::{Conn, Wake};

use crate::hub::{SessionId, StreamId};
use crate::limits;

/// What a shard can be told.
#[derive(Debug, Clone, PartialEq)]
pub enum Letter {
    /// A stream this shard follows has new messages, a new feed, or has ended.
    Touched(StreamId),
    /// Players wait for a format of a stream this shard publishes.
    Wanted(StreamId),
    /// The segments of a stream have changed that sessions here wait for.
    Segments(StreamId),
    /// The verdict about a session that waits is there; with a full mailbox its tick finds it.
    Decided(Conn),
    /// Close connections, by an operator's wish.
    Kick(Kick),
    /// The configuration has been exchanged.
    Reloaded,
    /// Accept no more connections; end when the last one is gone.
    Drain,
    /// Close everything and end.
    Stop,
}

/// Which connections an operator wants closed.
#[derive(Debug, Clone, PartialEq)]
pub enum Kick {
    /// The one of a session.
    Session {
        /// Index of its connection.
        index: usize,
        /// Its id: the connection may be another's by now.
        id: SessionId,
    },
    /// None: a viewer of HLS is sent away. For the first shard.
    Viewer {
        /// Its id.
        id: SessionId,
    },
    /// Those that publish or play a stream.
    Stream {
        /// The stream.
        stream: StreamId,
        /// Its publisher.
        publishers: bool,
        /// Its players.
        players: bool,
    },
}

/// As the log says it.
impl fmt::Display for Kick {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Kick::Session { id, .. } => write!(f, "session {id}"),
            Kick::Viewer { id } => write!(f, "viewer {id}"),
            Kick::Stream { stream, publishers: true, players: true } => {
                write!(f, "all of stream {}", stream.0)
            }
            Kick::Stream { stream, publishers: true, .. } => {
                write!(f, "the publisher of stream {}", stream.0)
            }
            Kick::Stream { stream, .. } => write!(f, "the players of stream {}", stream.0),
        }
    }
}

/// Where one shard gets its letters.
#[derive(Debug)]
pub struct Mailbox<W> {
    letters: ArrayQueue<Letter>,
    missed: AtomicBool,
    waker: OnceLock<W>,
}

impl<W> Default for Mailbox<W> {
    fn default() -> Self {
        Mailbox {
            letters: ArrayQueue::new(limits::LETTERS_MAX),
            missed: AtomicBool::new(false),
            waker: OnceLock::new(),
        }
    }
}

impl<W: Wake> Mailbox<W> {
    /// Puts a letter in. False when it did not fit; the shard will look at everything.
    pub fn put(&self, letter: Letter) -> bool {
        if self.letters.push(letter).is_ok() {
            return true;
        }
        self.missed.store(true, std::sync::atomic::Ordering::Release);
        false
    }

    /// The next letter.
    pub fn take(&self) -> Option<Letter> {
        self.letters.pop()
    }

    /// True once after letters did not fit.
    pub fn take_missed(&self) -> bool {
        self.missed.swap(false, AcqRel)
    }

    /// Says how the shard is woken; once, when its driver exists.
    pub fn set_waker(&self, waker: W) {
        let _ = self.waker.set(waker);
    }

    /// How the shard is woken.
    pub fn waker(&self) -> Option<&W> {
        self.waker.get()
    }
}

/// All mailboxes, by shard.
#[derive(Debug, Clone)]
pub struct Post<W> {
    boxes: Arc<[Mailbox<W>]>,
}

impl<W: Wake> Post<W> {
    /// Mailboxes for that many shards.
    pub fn new(shards: usize) -> Post<W> {
        Post { boxes: (0..shards).map(|_| Mailbox::default()).collect() }
    }

    /// Number of shards.
    pub fn shards(&self) -> usize {
        self.boxes.len()
    }

    /// The mailbox of a shard.
    pub fn mailbox(&self, shard: usize) -> &Mailbox<W> {
        &self.boxes[shard]
    }

    /// Tells one shard, from a thread that has no ring. False when the letter did not fit.
    pub fn tell(&self, shard: usize, letter: Letter) -> bool {
        let mailbox = &self.boxes[shard];
        let fits = mailbox.put(letter);
        if let Some(waker) = mailbox.waker() {
            waker.wake();
        }
        fits
    }

    /// Tells every shard, from a thread that has no ring.
    pub fn tell_all(&self, letter: &Letter) {
        for mailbox in self.boxes.iter() {
            mailbox.put(letter.clone());
            if let Some(waker) = mailbox.waker() {
                waker.wake();
            }
        }
    }
}

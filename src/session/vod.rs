//! Recordings that are played from another place than their beginning: what has to be sent before
//! the bytes of the file is found by the control thread, because it has to read the file for it.

use std::os::fd::OwnedFd;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use uring::Conn;

/// Where to begin.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum From {
    /// An FLV file at a tag, by its place.
    FlvByte(u64),
    /// An MP4 file at the keyframe at or before a time, ms.
    Mp4Ms(u64),
}

/// What is sent in place of the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Sent first.
    pub head: Bytes,
    /// Then so many bytes of the file from there.
    pub file: (u64, u64),
}

/// Why a file is not played from there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// There is nothing to begin with.
    #[error("no tag begins there")]
    Place,
    /// The file is not what its name says, or of a form that is not known here.
    #[error("the file cannot be played from another place: {0}")]
    File(&'static str),
    /// Too much was made for players and is not sent yet.
    #[error("too many are being played from another place")]
    Full,
    /// The disk fails or is slow.
    #[error("the file cannot be read")]
    Disk,
}

/// One player's wish.
#[derive(Debug)]
pub struct Ask {
    /// The file.
    pub file: Arc<OwnedFd>,
    /// Bytes in it.
    pub len: u64,
    /// Where to begin.
    pub from: From,
    /// Where the session is.
    pub shard: usize,
    /// Its connection there.
    pub conn: Conn,
    answer: OnceLock<Result<Plan, Fault>>,
}

impl Ask {
    /// A wish of a session.
    pub fn new(
        (file, len): (Arc<OwnedFd>, u64),
        from: From,
        (shard, conn): (usize, Conn),
    ) -> Arc<Ask> {
        Arc::new(Ask { file, len, from, shard, conn, answer: OnceLock::new() })
    }

    /// Says what is sent; only the first word counts.
    pub fn set(&self, answer: Result<Plan, Fault>) {
        let _ = self.answer.set(answer);
    }

    /// What is sent, once that is known.
    pub fn answer(&self) -> Option<&Result<Plan, Fault>> {
        self.answer.get()
    }
}

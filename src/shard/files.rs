//! Opening files for sessions: first the folder, then the file below it, both by the ring. Who asks
//! for what is on its way already waits for the same answer.

use std::collections::HashMap;
use std::ffi::CString;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use uring::{Conn, Driver, Errno, Open, Opened, Opening};

use super::Shard;
use crate::session::files::{Files, NoFile, Place};

/// The files of one shard.
#[derive(Default)]
pub(super) struct FileTable {
    /// What sessions may see.
    pub known: Files,
    /// What is on its way, by what the driver calls it.
    openings: HashMap<Opening, What>,
    /// Files on their way, their folders' included, and who waits for each.
    waiting: HashMap<String, Vec<Conn>>,
    /// Files whose folder is on its way.
    behind: HashMap<PathBuf, Vec<Place>>,
}

/// What is being opened.
enum What {
    Root(PathBuf),
    /// A file, by its key.
    File(String),
}

impl<D: Driver> Shard<D> {
    /// Opens a file for a session. How many may wait was looked at before it asked.
    pub(super) fn open_file(&mut self, conn: Conn, place: Place) {
        let key = place.key();
        if let Some(conns) = self.files.waiting.get_mut(&key) {
            return conns.push(conn);
        }
        self.files.waiting.insert(key, vec![conn]);
        self.files.known.waiting = self.files.waiting.len();
        if let Some(places) = self.files.behind.get_mut(&place.root) {
            return places.push(place);
        }
        match self.files.known.root(&place.root, self.driver.now()) {
            Some(root) => self.open_below(root, place),
            None => {
                let path = place.root.clone();
                self.files.behind.insert(path.clone(), vec![place]);
                // A configuration with a NUL in it names no folder.
                let Ok(name) = CString::new(path.clone().into_os_string().into_vec()) else {
                    return self.root_opened(path, Err(Errno(NO_ENTRY)));
                };
                let opening = self.driver.open_file(Open::Root(name));
                self.files.openings.insert(opening, What::Root(path));
            }
        }
    }

    fn open_below(&mut self, root: Arc<std::os::fd::OwnedFd>, place: Place) {
        let key = place.key();
        // Paths are checked before, so this is not to be.
        let Ok(path) = CString::new(place.path) else {
            return self.file_opened(key, Err(Errno(NO_ENTRY)));
        };
        let opening = self.driver.open_file(Open::Below(root, path));
        self.files.openings.insert(opening, What::File(key));
    }

    /// The driver has opened something, or could not.
    pub(super) fn opened(&mut self, opening: Opening, result: Result<Opened, Errno>) {
        match self.files.openings.remove(&opening) {
            Some(What::Root(path)) => self.root_opened(path, result),
            Some(What::File(key)) => self.file_opened(key, result),
            None => {}
        }
    }

    fn root_opened(&mut self, path: PathBuf, result: Result<Opened, Errno>) {
        let now = self.driver.now();
        let places = self.files.behind.remove(&path).unwrap_or_default();
        match result {
            Ok(root) => {
                let root = Arc::new(root.file);
                self.files.known.note_root(path, Some(root.clone()), now);
                for place in places {
                    self.open_below(root.clone(), place);
                }
            }
            Err(errno) => {
                if NoFile::from_errno(errno) == NoFile::Missing {
                    self.files.known.note_root(path, None, now);
                }
                for place in places {
                    self.file_opened(place.key(), Err(errno));
                }
            }
        }
    }

    fn file_opened(&mut self, key: String, result: Result<Opened, Errno>) {
        let conns = self.files.waiting.remove(&key).unwrap_or_default();
        self.files.known.waiting = self.files.waiting.len();
        let now = self.driver.now();
        let result = result.map(|opened| self.files.known.note_file(key, opened, now));
        let result = result.map_err(NoFile::from_errno);
        for conn in conns {
            self.with_session(conn, |session, env| session.file_opened(env, result.clone()));
        }
    }

    /// Lets go of files that nobody asked for lately.
    pub(super) fn expire_files(&mut self, now: u64) {
        self.files.known.expire(now);
        let files = &self.files.known;
        self.counters.files_open.store(files.open() as u64, Relaxed);
        self.counters.files_waiting.store(files.waiting as u64, Relaxed);
        self.counters.files_opened.store(files.opened, Relaxed);
    }
}

/// There is no such file.
const NO_ENTRY: i32 = rustix::io::Errno::NOENT.raw_os_error();

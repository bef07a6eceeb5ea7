//! Files that are served: which are open, and what is known of folders.
//!
//! A shard opens files by its ring, so nothing here waits. What was asked for a moment ago stays
//! open, so that a segment that many players load is looked up once.

use std::cell::Cell;
use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;

use uring::{Errno, FileKind, Opened};

use crate::limits;

/// Where a file is looked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The configured folder.
    pub root: PathBuf,
    /// The path below it.
    pub path: String,
}

impl Place {
    /// What it is known under.
    pub fn key(&self) -> String {
        // No path has a NUL.
        format!("{}\0{}", self.root.display(), self.path)
    }
}

/// An open file, as it was when it was opened.
#[derive(Debug)]
pub struct OpenFile {
    /// Its descriptor. The control thread may have it, too.
    pub file: Arc<OwnedFd>,
    /// What it is.
    pub kind: FileKind,
    /// Bytes in it.
    pub len: u64,
    /// When its content was last changed, seconds since 1970.
    pub modified: i64,
    /// Its entity tag, with quotes: another content has another one, unless somebody sets the time.
    pub etag: String,
    _counted: Counted,
}

/// One more open file, until it is dropped.
#[derive(Debug)]
struct Counted(Rc<Cell<usize>>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

/// Why there is no file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoFile {
    /// It is not there, or leads out of its folder, or may not be read.
    Missing,
    /// There is no descriptor for it.
    Full,
    /// The disk fails.
    Failed(Errno),
}

impl NoFile {
    /// What an errno means.
    pub fn from_errno(errno: Errno) -> NoFile {
        use rustix::io::Errno as E;
        match E::from_raw_os_error(errno.0) {
            E::MFILE | E::NFILE | E::NOMEM | E::NOBUFS => NoFile::Full,
            E::IO | E::STALE | E::TIMEDOUT | E::NXIO | E::UCLEAN => NoFile::Failed(errno),
            // That a file is there and may not be read is nobody's business.
            _ => NoFile::Missing,
        }
    }
}

/// What is known of a file.
#[derive(Debug)]
pub enum Known {
    /// It is open.
    Open(Rc<OpenFile>),
    /// There is none.
    Missing,
    /// Too many are open or wait.
    Full,
    /// It has to be opened.
    Unknown,
}

/// A folder that files are looked for in.
#[derive(Debug)]
enum Root {
    Open(Arc<OwnedFd>),
    Missing,
}

/// The files of one shard.
#[derive(Debug, Default)]
pub struct Files {
    /// Files that were asked for a moment ago, and until when they are kept, ns.
    recent: HashMap<String, (Rc<OpenFile>, u64)>,
    roots: HashMap<PathBuf, (Root, u64)>,
    open: Rc<Cell<usize>>,
    /// Files on their way, kept by the shard.
    pub waiting: usize,
    /// Files opened so far.
    pub opened: u64,
}

impl Files {
    /// What is known of a file at `now` (ns).
    pub fn find(&self, place: &Place, now: u64) -> Known {
        if let Some((_, until)) = self.roots.get(&place.root).filter(|(r, _)| r.is_missing())
            && *until > now
        {
            return Known::Missing;
        }
        if let Some((file, until)) = self.recent.get(&place.key())
            && *until > now
        {
            return Known::Open(file.clone());
        }
        // Those that nobody reads are let go when the next one comes.
        let idle = || self.recent.values().filter(|(file, _)| Rc::strong_count(file) == 1).count();
        let most = limits::FILES_OPEN_MAX;
        let full = self.open.get() >= most && self.open.get() - idle() >= most;
        match full || self.waiting >= limits::FILES_WAITING_MAX {
            true => Known::Full,
            false => Known::Unknown,
        }
    }

    /// The folder, if it was opened a moment ago.
    pub fn root(&self, path: &Path, now: u64) -> Option<Arc<OwnedFd>> {
        match self.roots.get(path)? {
            (Root::Open(folder), until) if *until > now => Some(folder.clone()),
            _ => None,
        }
    }

    /// Notes a folder that was opened, or is not there.
    pub fn note_root(&mut self, path: PathBuf, folder: Option<Arc<OwnedFd>>, now: u64) {
        let until = now + limits::FILE_ROOT_KEPT_MS * 1_000_000;
        let root = folder.map_or(Root::Missing, Root::Open);
        self.roots.insert(path, (root, until));
    }

    /// Notes a file that was opened; it is kept for a moment.
    pub fn note_file(&mut self, key: String, opened: Opened, now: u64) -> Rc<OpenFile> {
        let Opened { file, kind, len, inode, modified: (modified, nanos) } = opened;
        self.open.set(self.open.get() + 1);
        self.opened += 1;
        let etag = format!("\"{inode:x}-{len:x}-{modified:x}.{nanos:x}\"");
        let _counted = Counted(self.open.clone());
        let file = Arc::new(file);
        let file = Rc::new(OpenFile { file, kind, len, modified, etag, _counted });
        if self.open.get() >= limits::FILES_OPEN_MAX {
            self.recent.retain(|_, (file, _)| Rc::strong_count(file) > 1);
        }
        self.recent.insert(key, (file.clone(), now + limits::FILE_KEPT_MS * 1_000_000));
        file
    }

    /// Lets go of what was not asked for lately.
    pub fn expire(&mut self, now: u64) {
        self.recent.retain(|_, (_, until)| *until > now);
        self.roots.retain(|_, (_, until)| *until > now);
    }

    /// Files that are open.
    pub fn open(&self) -> usize {
        self.open.get()
    }
}

impl Root {
    fn is_missing(&self) -> bool {
        matches!(self, Root::Missing)
    }
}

/// The path below its folder of a file that a request names, or `None` if no file has such a name:
/// nothing hidden, nothing half written, no empty names. A path that ends with a slash is that of
/// the folder's `index.html`.
pub fn below(rest: &str) -> Option<String> {
    let path = rest.strip_prefix('/')?;
    let mut path = path.to_owned();
    if path.is_empty() || path.ends_with('/') {
        path.push_str("index.html");
    }
    let fits = |name: &str| {
        let hidden = name.starts_with('.') || name.ends_with(".tmp");
        let odd = name.contains(['\\', '\0']);
        !name.is_empty() && name.len() <= limits::FILE_NAME_BYTES_MAX && !hidden && !odd
    };
    (path.len() <= limits::DISK_PATH_BYTES_MAX && path.split('/').all(fits)).then_some(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn opened() -> Opened {
        let file = std::fs::File::open("/dev/null").unwrap().into();
        Opened { file, kind: FileKind::Regular, len: 5, inode: 7, modified: (9, 1) }
    }

    #[test]
    fn names_that_no_file_has() {
        assert_eq!(below("/a/b.flv").as_deref(), Some("a/b.flv"));
        assert_eq!(below("/").as_deref(), Some("index.html"));
        assert_eq!(below("/a/").as_deref(), Some("a/index.html"));
        let long = format!("/{}", "a".repeat(256));
        let deep = "/a".repeat(2_000);
        for bad in ["", "a", "//", "/a//b", "/.git/config", "/a/.x", "/a.tmp", "/../a", "/a\\b"] {
            assert_eq!(below(bad), None, "{bad}");
        }
        assert!(below(&long).is_none() && below(&deep).is_none());
    }

    #[test]
    fn files_are_kept_for_a_moment_and_counted() {
        let mut files = Files::default();
        let place = Place { root: "/r".into(), path: "a".into() };
        assert!(matches!(files.find(&place, 1), Known::Unknown));
        let file = files.note_file(place.key(), opened(), 1);
        assert_eq!((file.etag.as_str(), files.open()), ("\"7-5-9.1\"", 1));
        assert!(matches!(files.find(&place, 2), Known::Open(_)));
        let later = 2 + limits::FILE_KEPT_MS * 1_000_000;
        assert!(matches!(files.find(&place, later), Known::Unknown));
        files.expire(later);
        assert_eq!(files.open(), 1, "somebody reads it");
        drop(file);
        assert_eq!(files.open(), 0);
        files.note_root("/r".into(), None, later);
        assert!(matches!(files.find(&place, later), Known::Missing));
        assert!(matches!(files.find(&place, 4 * later), Known::Unknown));
    }

    #[test]
    fn so_many_and_no_more() {
        let mut files = Files::default();
        let place = |number: usize| Place { root: "/r".into(), path: number.to_string() };
        let kept: Vec<_> = (0..limits::FILES_OPEN_MAX)
            .map(|number| files.note_file(place(number).key(), opened(), 1))
            .collect();
        assert!(matches!(files.find(&place(99_999), 1), Known::Full));
        drop(kept);
        assert!(matches!(files.find(&place(99_999), 1), Known::Unknown));
        files.note_file(place(99_999).key(), opened(), 1);
        assert!(files.open() <= 2, "{}", files.open());
        files.waiting = limits::FILES_WAITING_MAX;
        assert!(matches!(files.find(&place(88_888), 1), Known::Full));
    }
}

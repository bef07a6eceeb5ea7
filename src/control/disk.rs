//! Files of the control thread: recordings, and whatever else a stream leaves on disk.
//!
//! What may take long never runs on the thread itself. Bytes are written through its ring; opening,
//! renaming and removing are done by a few helper threads, because the ring of `tokio-uring` does
//! not know the call that keeps a path below its root.
//!
//! - **Paths.** Whatever follows a stream's name is opened below a configured root with `openat2`
//!   and RESOLVE_BENEATH: neither `..` nor a symbolic link leads out.
//! - **Names.** A file is written as `NAME.tmp` and gets its name when it is whole, so who sees the
//!   name sees the whole file. A name that is taken is not taken away: the next free one of
//!   `NAME-1.EXT`, `NAME-2.EXT`, ... is used. The same goes for what a crash has left as `.tmp`.
//! - **Durability.** A file is given to the disk (fsync) before it gets its name, and so is the
//!   folder after it. What is being written is left to the kernel: a killed process loses nothing
//!   of it, a lost machine what the kernel has not written yet (half a minute, as a rule).
//! - **Bounds.** Bytes on their way to disks are bounded over all files; who has more waits, for at
//!   most [`limits::DISK_WAIT_MS`], and is told that the disk is slow.

use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use bytes::{Buf as _, Bytes};
use rustix::fs::{AtFlags, Mode, OFlags, RenameFlags, ResolveFlags};
use rustix::io::Errno;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_uring::fs::File;

use crate::limits;

/// Why a file cannot be written or read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DiskFault {
    /// The disk, or the part of it that this user may have, is full.
    #[error("the disk is full")]
    Full,
    /// The disk fails, or may not be written.
    #[error("{0}")]
    Failed(Arc<str>),
    /// The disk takes too long.
    #[error("the disk takes longer than {} ms", limits::DISK_WAIT_MS)]
    Slow,
    /// The path is no path below its root.
    #[error("the path leads out of its root, or is none")]
    Outside,
    /// There is no such file.
    #[error("there is no such file")]
    Missing,
}

impl From<io::Error> for DiskFault {
    fn from(error: io::Error) -> DiskFault {
        match error.raw_os_error().map(Errno::from_raw_os_error) {
            Some(Errno::NOSPC | Errno::DQUOT | Errno::FBIG) => DiskFault::Full,
            Some(Errno::XDEV | Errno::LOOP | Errno::NAMETOOLONG | Errno::INVAL) => {
                DiskFault::Outside
            }
            Some(Errno::NOENT | Errno::NOTDIR) => DiskFault::Missing,
            _ => DiskFault::Failed(error.to_string().into()),
        }
    }
}

impl From<Errno> for DiskFault {
    fn from(errno: Errno) -> DiskFault {
        io::Error::from(errno).into()
    }
}

/// What is known of the disks, for metrics.
#[derive(Debug, Default)]
pub struct DiskStats {
    /// Bytes on their way.
    pub waiting_bytes: AtomicU64,
    /// Bytes written.
    pub written_bytes: AtomicU64,
    /// Files that got their names.
    pub files: AtomicU64,
    /// Calls that found the disk full.
    pub full: AtomicU64,
    /// Calls that failed otherwise.
    pub failed: AtomicU64,
    /// Calls that took longer than they should.
    pub slow: AtomicU64,
}

impl DiskStats {
    fn note<T>(&self, began: Instant, result: &Result<T, DiskFault>) {
        if began.elapsed() > Duration::from_millis(limits::DISK_SLOW_MS) {
            self.slow.fetch_add(1, Relaxed);
        }
        match result {
            Err(DiskFault::Full) => self.full.fetch_add(1, Relaxed),
            Err(DiskFault::Failed(_)) => self.failed.fetch_add(1, Relaxed),
            Err(DiskFault::Slow) => self.slow.fetch_add(1, Relaxed),
            Ok(_) | Err(DiskFault::Missing | DiskFault::Outside) => 0,
        };
    }
}

/// The disks, as the control thread uses them.
#[derive(Debug)]
pub struct Disk {
    /// What is known of them.
    pub stats: Arc<DiskStats>,
    /// Room for bytes on their way, in units of [`UNIT`].
    room: Arc<Semaphore>,
    /// Helper threads that may be busy at a time.
    helpers: Arc<Semaphore>,
}

/// What the room for bytes is counted in.
const UNIT: usize = 4 << 10;

/// A configured folder, below which files are.
#[derive(Clone, Debug)]
pub struct Root {
    folder: Arc<OwnedFd>,
    path: Arc<Path>,
}

impl Root {
    /// Its path, as configured.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// A file that is being written.
#[derive(Debug)]
pub struct NewFile {
    disk: Rc<Disk>,
    file: File,
    folder: Arc<OwnedFd>,
    /// Path of the folder below the root, with a slash behind it unless it is the root.
    below: String,
    /// What it is to be called; `None` when it has its name already.
    wanted: Option<String>,
    /// What it is called now.
    name: String,
    len: u64,
}

impl Disk {
    /// The disks.
    pub fn new(stats: Arc<DiskStats>) -> Rc<Disk> {
        Rc::new(Disk {
            stats,
            room: Arc::new(Semaphore::new(limits::DISK_BYTES_WAITING_MAX / UNIT)),
            helpers: Arc::new(Semaphore::new(limits::DISK_HELPERS_MAX)),
        })
    }

    /// Opens a configured folder, which is made where it is missing.
    ///
    /// # Errors
    /// It cannot be made or opened.
    pub async fn root(&self, path: &Path) -> Result<Root, DiskFault> {
        let path: Arc<Path> = path.into();
        let wanted = path.clone();
        let folder = self.help(move || open_root(&wanted)).await?;
        Ok(Root { folder: Arc::new(folder), path })
    }

    /// Begins a file at a path below a root; its folders are made where they are missing.
    ///
    /// # Errors
    /// It cannot be made.
    pub async fn create(self: &Rc<Self>, root: &Root, path: &str) -> Result<NewFile, DiskFault> {
        let (below, wanted) = split(path)?;
        let (root, folder) = (root.folder.clone(), below.clone());
        let name = wanted.clone();
        let made = self.help(move || {
            let folder = make_folders(&root, &folder)?;
            let flags = OFlags::CREATE | OFlags::EXCL | OFlags::RDWR;
            for name in free_names(&name).map(|name| format!("{name}.tmp")) {
                match open_beneath(&folder, &name, flags) {
                    Err(DiskFault::Failed(_)) if exists(&folder, &name) => {}
                    Err(why) => return Err(why),
                    Ok(file) => return Ok((folder, file, name)),
                }
            }
            Err(DiskFault::Failed("too many files of that name are there".into()))
        });
        let (folder, file, name) = made.await?;
        Ok(self.file(folder, file, below, Some(wanted), name, 0))
    }

    /// Opens a file to go on at its end, or makes it. It is written under its own name.
    ///
    /// # Errors
    /// It cannot be opened or made.
    pub async fn append(self: &Rc<Self>, root: &Root, path: &str) -> Result<NewFile, DiskFault> {
        let (below, name) = split(path)?;
        let (root, folder) = (root.folder.clone(), below.clone());
        let wanted = name.clone();
        let made = self.help(move || {
            let folder = make_folders(&root, &folder)?;
            let file = open_beneath(&folder, &wanted, OFlags::CREATE | OFlags::RDWR)?;
            let len = rustix::fs::fstat(&file)?.st_size as u64;
            Ok((folder, file, len))
        });
        let (folder, file, len) = made.await?;
        Ok(self.file(folder, file, below, None, name, len))
    }

    /// Removes a file below a root. One that is not there is as good.
    ///
    /// # Errors
    /// It cannot be removed.
    pub async fn remove(&self, root: &Root, path: &str) -> Result<(), DiskFault> {
        let (below, name) = split(path)?;
        let root = root.folder.clone();
        let removed = self.help(move || {
            let folder = open_folder(&root, &below)?;
            Ok(rustix::fs::unlinkat(&folder, &name, AtFlags::empty())?)
        });
        match removed.await {
            Err(DiskFault::Missing) => Ok(()),
            other => other,
        }
    }

    /// Opens a file below a root to read it.
    ///
    /// # Errors
    /// It is not there, or cannot be read.
    pub async fn open(&self, root: &Root, path: &str) -> Result<OwnedFd, DiskFault> {
        let (root, path) = (root.folder.clone(), check(path)?.to_owned());
        self.help(move || open_beneath(&root, &path, OFlags::RDONLY)).await
    }

    /// Does something that may take long on a helper thread. Who waits for longer than
    /// [`limits::DISK_WAIT_MS`] is told so; it may be done later nevertheless.
    ///
    /// # Errors
    /// As `work` says, or it took too long.
    pub async fn help<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, DiskFault> + Send + 'static,
    ) -> Result<T, DiskFault> {
        let began = Instant::now();
        let limit = Duration::from_millis(limits::DISK_WAIT_MS);
        let helpers = self.helpers.clone();
        let done = async move {
            let Ok(helper) = helpers.acquire_owned().await else { return Err(DiskFault::Slow) };
            let work = tokio::task::spawn_blocking(move || {
                let result = work();
                drop(helper);
                result
            });
            work.await.unwrap_or_else(|_| Err(DiskFault::Failed("a helper thread failed".into())))
        };
        let result = tokio::time::timeout(limit, done).await.unwrap_or(Err(DiskFault::Slow));
        self.stats.note(began, &result);
        result
    }

    fn file(
        self: &Rc<Self>,
        folder: OwnedFd,
        file: OwnedFd,
        below: String,
        wanted: Option<String>,
        name: String,
        len: u64,
    ) -> NewFile {
        NewFile {
            disk: self.clone(),
            file: File::from_std(file.into()),
            folder: Arc::new(folder),
            below,
            wanted,
            name,
            len,
        }
    }

    /// Room for that many bytes on their way.
    async fn room(&self, bytes: usize) -> Result<Waiting, DiskFault> {
        let units = bytes.div_ceil(UNIT).min(limits::DISK_BYTES_WAITING_MAX / UNIT);
        let taken = self.room.clone().acquire_many_owned(units as u32);
        let limit = Duration::from_millis(limits::DISK_WAIT_MS);
        match tokio::time::timeout(limit, taken).await {
            Ok(Ok(permit)) => {
                self.stats.waiting_bytes.fetch_add(bytes as u64, Relaxed);
                Ok(Waiting { _permit: permit, stats: self.stats.clone(), bytes: bytes as u64 })
            }
            _ => Err(DiskFault::Slow),
        }
    }
}

/// Bytes on their way.
struct Waiting {
    _permit: OwnedSemaphorePermit,
    stats: Arc<DiskStats>,
    bytes: u64,
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.stats.waiting_bytes.fetch_sub(self.bytes, Relaxed);
    }
}

impl NewFile {
    /// Bytes in it.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// True while there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Its path below the root, as it is called now.
    pub fn path(&self) -> String {
        format!("{}{}", self.below, self.name)
    }

    /// Writes pieces at its end, in their order.
    ///
    /// # Errors
    /// Not all could be written; [`NewFile::len`] says how far it got.
    pub async fn append(&mut self, mut pieces: Vec<Bytes>) -> Result<(), DiskFault> {
        pieces.retain(|piece| !piece.is_empty());
        let total: usize = pieces.iter().map(Bytes::len).sum();
        let began = Instant::now();
        let result = match self.disk.room(total).await {
            Ok(_waiting) => self.write_all(pieces).await,
            Err(why) => Err(why),
        };
        self.disk.stats.note(began, &result);
        result
    }

    async fn write_all(&mut self, mut pieces: Vec<Bytes>) -> Result<(), DiskFault> {
        while !pieces.is_empty() {
            let rest = pieces.split_off(pieces.len().min(PIECES_MAX));
            let mut some = pieces;
            while !some.is_empty() {
                let (result, back) = self.file.writev_at(some, self.len).await;
                some = back;
                let mut taken = match result {
                    Ok(0) => return Err(DiskFault::Failed("nothing was written".into())),
                    Ok(taken) => taken,
                    Err(why) if why.kind() == io::ErrorKind::Interrupted => continue,
                    Err(why) => return Err(why.into()),
                };
                self.len += taken as u64;
                self.disk.stats.written_bytes.fetch_add(taken as u64, Relaxed);
                let whole = some.iter().take_while(|piece| {
                    let fits = piece.len() <= taken;
                    taken -= if fits { piece.len() } else { 0 };
                    fits
                });
                let whole = whole.count();
                some.drain(..whole);
                if let Some(first) = some.first_mut() {
                    first.advance(taken);
                }
            }
            pieces = rest;
        }
        Ok(())
    }

    /// Writes over bytes that are there already.
    ///
    /// # Errors
    /// They could not be written.
    pub async fn patch(&mut self, mut at: u64, bytes: impl Into<Bytes>) -> Result<(), DiskFault> {
        let mut bytes: Bytes = bytes.into();
        while !bytes.is_empty() {
            let (result, back) = self.file.writev_at(vec![bytes], at).await;
            bytes = back.into_iter().next().unwrap_or_default();
            match result {
                Ok(0) => return Err(DiskFault::Failed("nothing was written".into())),
                Ok(taken) => {
                    bytes.advance(taken);
                    at += taken as u64;
                }
                Err(why) if why.kind() == io::ErrorKind::Interrupted => {}
                Err(why) => return Err(why.into()),
            }
        }
        Ok(())
    }

    /// Reads `len` bytes at `at`; fewer at its end.
    ///
    /// # Errors
    /// They could not be read.
    pub async fn read(&self, at: u64, len: usize) -> Result<Vec<u8>, DiskFault> {
        let mut out = Vec::new();
        while out.len() < len {
            let want = len - out.len();
            let (result, buffer) = self
                .file
                .read_at(Vec::with_capacity(want.min(READ_BYTES)), at + out.len() as u64)
                .await;
            match result? {
                0 => break,
                read => out.extend_from_slice(&buffer[..read]),
            }
        }
        Ok(out)
    }

    /// Cuts it off.
    ///
    /// # Errors
    /// It could not be cut.
    pub async fn truncate(&mut self, len: u64) -> Result<(), DiskFault> {
        self.work(move |file| Ok(file.set_len(len)?)).await
    }

    /// Has something done with the file that may take long, on a helper thread.
    ///
    /// # Errors
    /// As `work` says, or it took too long.
    pub async fn work<T: Send + 'static>(
        &mut self,
        work: impl FnOnce(std::fs::File) -> Result<T, DiskFault> + Send + 'static,
    ) -> Result<T, DiskFault> {
        // By its name: the ring's file does not give its descriptor away.
        let (folder, name) = (self.folder.clone(), self.name.clone());
        let done = self.disk.help(move || {
            let file = std::fs::File::from(open_beneath(&folder, &name, OFlags::RDWR)?);
            let done = work(file.try_clone()?)?;
            Ok((done, file.metadata()?.len()))
        });
        let (done, len) = done.await?;
        self.len = len;
        Ok(done)
    }

    /// Gives it to the disk, and then its name. Returns its path below the root.
    ///
    /// # Errors
    /// Its bytes may not be on the disk; it keeps the name it has.
    pub async fn finish(self) -> Result<String, DiskFault> {
        let began = Instant::now();
        let result = async {
            self.file.sync_all().await?;
            let NewFile { disk, file, folder, below, wanted, name, .. } = self;
            file.close().await?;
            let name = disk.help(move || give_name(&folder, name, wanted.as_deref())).await?;
            disk.stats.files.fetch_add(1, Relaxed);
            Ok((disk, format!("{below}{name}")))
        };
        match result.await {
            Ok((disk, path)) => {
                disk.stats.note::<()>(began, &Ok(()));
                Ok(path)
            }
            Err(why) => Err(why),
        }
    }

    /// Gives it its name now, in the place of a file that has it; the disk may have the bytes
    /// later.
    ///
    /// # Errors
    /// It keeps the name it has.
    pub async fn replace(self) -> Result<(), DiskFault> {
        let NewFile { disk, file, folder, wanted, name, .. } = self;
        file.close().await?;
        let Some(wanted) = wanted else { return Ok(()) };
        let renamed = move || Ok(rustix::fs::renameat(&folder, &name, &folder, &wanted)?);
        disk.help(renamed).await?;
        disk.stats.files.fetch_add(1, Relaxed);
        Ok(())
    }

    /// Removes it, unless it had been there before.
    ///
    /// # Errors
    /// It could not be removed.
    pub async fn discard(self) -> Result<(), DiskFault> {
        let NewFile { disk, folder, wanted, name, .. } = self;
        if wanted.is_none() {
            return Ok(());
        }
        disk.help(move || Ok(rustix::fs::unlinkat(&folder, &name, AtFlags::empty())?)).await
    }
}

/// Most pieces of one write; the kernel's limit is 1024.
const PIECES_MAX: usize = 1000;
/// Bytes asked for in one read.
const READ_BYTES: usize = 1 << 20;
/// Names that are tried when one is taken.
const NAMES_MAX: u32 = 1000;

/// A path of plain parts, or nothing.
fn check(path: &str) -> Result<&str, DiskFault> {
    let plain = |part: &str| !matches!(part, "" | "." | "..") && !part.contains('\0');
    let good = path.len() <= limits::DISK_PATH_BYTES_MAX && path.split('/').all(plain);
    good.then_some(path).ok_or(DiskFault::Outside)
}

/// Folder, with a slash behind it if there is one, and name.
fn split(path: &str) -> Result<(String, String), DiskFault> {
    let path = check(path)?;
    let (folder, name) = path.split_at(path.rfind('/').map_or(0, |slash| slash + 1));
    Ok((folder.to_owned(), name.to_owned()))
}

/// `a.mp4`, `a-1.mp4`, `a-2.mp4` and so on.
fn free_names(name: &str) -> impl Iterator<Item = String> {
    let (stem, end) = name.split_at(name.rfind('.').filter(|dot| *dot > 0).unwrap_or(name.len()));
    let (stem, end) = (stem.to_owned(), end.to_owned());
    let first = std::iter::once(name.to_owned());
    first.chain((1..NAMES_MAX).map(move |number| format!("{stem}-{number}{end}")))
}

fn open_root(path: &Path) -> Result<OwnedFd, DiskFault> {
    let path: PathBuf = match path.as_os_str().is_empty() {
        true => OsString::from(".").into(),
        false => path.into(),
    };
    std::fs::create_dir_all(&path)?;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok(rustix::fs::open(&path, flags, Mode::empty())?)
}

/// Opens a path below a folder; nothing leads out of it.
pub(super) fn open_beneath(
    folder: impl AsFd,
    path: &str,
    flags: OFlags,
) -> Result<OwnedFd, DiskFault> {
    let mode = if flags.contains(OFlags::CREATE) { Mode::from(0o644) } else { Mode::empty() };
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
    let mut tries = 0;
    loop {
        // Without waiting: a pipe that somebody has put there would hold up the thread.
        let flags = flags | OFlags::CLOEXEC | OFlags::NONBLOCK;
        match rustix::fs::openat2(&folder, path, flags, mode, resolve) {
            Ok(file) => return Ok(file),
            // Something was renamed meanwhile, so the kernel could not be sure.
            Err(Errno::AGAIN) if tries < 10 => tries += 1,
            Err(errno) => return Err(errno.into()),
        }
    }
}

/// A folder below a root; `below` ends in a slash, or is empty.
fn open_folder(root: &OwnedFd, below: &str) -> Result<OwnedFd, DiskFault> {
    let path = below.strip_suffix('/').unwrap_or(".");
    open_beneath(root, path, OFlags::RDONLY | OFlags::DIRECTORY)
}

fn make_folders(root: &OwnedFd, below: &str) -> Result<OwnedFd, DiskFault> {
    match open_folder(root, below) {
        Err(DiskFault::Missing) => {}
        other => return other,
    }
    let mut parent = open_folder(root, "")?;
    for (end, _) in below.match_indices('/') {
        let path = &below[..=end];
        parent = match open_folder(root, path) {
            Err(DiskFault::Missing) => {
                let name = path[..end].rsplit('/').next().unwrap_or_default();
                match rustix::fs::mkdirat(&parent, name, Mode::from(0o755)) {
                    // Somebody else was faster.
                    Ok(()) | Err(Errno::EXIST) => {}
                    Err(errno) => return Err(errno.into()),
                }
                open_folder(root, path)?
            }
            other => other?,
        };
    }
    Ok(parent)
}

fn exists(folder: &OwnedFd, name: &str) -> bool {
    rustix::fs::statat(folder, name, AtFlags::SYMLINK_NOFOLLOW).is_ok()
}

fn give_name(folder: &OwnedFd, name: String, wanted: Option<&str>) -> Result<String, DiskFault> {
    let mut now = name;
    if let Some(wanted) = wanted {
        let mut taken = true;
        for free in free_names(wanted) {
            match rustix::fs::renameat_with(folder, &now, folder, &free, RenameFlags::NOREPLACE) {
                Err(Errno::EXIST) => continue,
                Err(errno) => return Err(errno.into()),
                Ok(()) => {
                    (now, taken) = (free, false);
                    break;
                }
            }
        }
        if taken {
            return Err(DiskFault::Failed("too many files of that name are there".into()));
        }
    }
    rustix::fs::fsync(folder)?;
    Ok(now)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A folder that is gone at the end.
    pub struct Scratch(pub PathBuf);

    impl Scratch {
        fn new(name: &str) -> Scratch {
            let name = format!("ringcast-disk-{}-{name}", std::process::id());
            let path = std::env::temp_dir().join(name);
            let _ = std::fs::remove_dir_all(&path);
            std::fs::create_dir_all(&path).unwrap();
            Scratch(path)
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    fn names(folder: &Path) -> Vec<String> {
        let entries = std::fs::read_dir(folder).unwrap();
        let mut names: Vec<String> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn a_file_gets_its_name_when_it_is_whole() {
        let scratch = Scratch::new("name");
        tokio_uring::start(async {
            let disk = Disk::new(Arc::default());
            let root = disk.root(&scratch.0.join("made")).await.unwrap();
            let folder = scratch.0.join("made/live/a");
            for expected in ["x.flv", "x-1.flv"] {
                let mut file = disk.create(&root, "live/a/x.flv").await.unwrap();
                let many = (0..3000u32).map(|n| Bytes::copy_from_slice(&n.to_be_bytes())).collect();
                file.append(many).await.unwrap();
                file.append(vec![Bytes::new(), Bytes::from_static(b"end")]).await.unwrap();
                file.patch(4, &b"PATCHED!"[..]).await.unwrap();
                assert_eq!(file.len(), 12_003);
                assert!(names(&folder).contains(&format!("{expected}.tmp")) || expected != "x.flv");
                assert_eq!(file.read(12_000, 99).await.unwrap(), b"end");
                assert_eq!(file.finish().await.unwrap(), format!("live/a/{expected}"));
                let bytes = std::fs::read(folder.join(expected)).unwrap();
                assert_eq!(bytes[..16], *b"\0\0\0\0PATCHED!\0\0\0\x03");
                assert_eq!(bytes.len(), 12_003);
            }
            // Two at a time do not meet.
            let mut one = disk.create(&root, "y.flv").await.unwrap();
            let mut two = disk.create(&root, "y.flv").await.unwrap();
            one.append(vec![Bytes::from_static(b"one")]).await.unwrap();
            two.append(vec![Bytes::from_static(b"two, cut")]).await.unwrap();
            two.truncate(3).await.unwrap();
            assert_eq!(two.finish().await.unwrap(), "y.flv");
            assert_eq!(one.finish().await.unwrap(), "y-1.flv");
            assert_eq!(std::fs::read(scratch.0.join("made/y.flv")).unwrap(), b"two");
            disk.create(&root, "z").await.unwrap().discard().await.unwrap();
            let mut more = disk.append(&root, "y.flv").await.unwrap();
            assert_eq!(more.len(), 3);
            more.append(vec![Bytes::from_static(b", more")]).await.unwrap();
            assert_eq!(more.finish().await.unwrap(), "y.flv");
            assert_eq!(std::fs::read(scratch.0.join("made/y.flv")).unwrap(), b"two, more");
            disk.remove(&root, "y-1.flv").await.unwrap();
            disk.remove(&root, "y-1.flv").await.unwrap();
            assert_eq!(names(&scratch.0.join("made")), ["live", "y.flv"]);
            assert_eq!(disk.stats.files.load(Relaxed), 5);
            assert_eq!(disk.stats.waiting_bytes.load(Relaxed), 0);
        });
    }

    #[test]
    fn no_path_leads_out() {
        let scratch = Scratch::new("out");
        let inside = scratch.0.join("root/in");
        std::fs::create_dir_all(&inside).unwrap();
        std::fs::write(scratch.0.join("secret"), b"secret").unwrap();
        for (link, to) in [("up", "../.."), ("abs", "/etc"), ("near", "in")] {
            std::os::unix::fs::symlink(to, scratch.0.join("root").join(link)).unwrap();
        }
        tokio_uring::start(async {
            let disk = Disk::new(Arc::default());
            let root = disk.root(&scratch.0.join("root")).await.unwrap();
            let long = "x".repeat(5_000);
            for path in [
                "../secret",
                "in/../../secret",
                "/etc/passwd",
                "",
                "a//b",
                "./a",
                "a/.",
                "a\0b",
                "up/secret",
                "abs/passwd",
                "up/x/y",
                &long,
            ] {
                assert!(disk.open(&root, path).await.is_err(), "{path:?}");
                let made = disk.create(&root, path).await;
                assert_eq!(made.err(), Some(DiskFault::Outside), "{path:?}");
                assert_eq!(disk.append(&root, path).await.err(), Some(DiskFault::Outside));
            }
            assert_eq!(disk.open(&root, "in/none").await.err(), Some(DiskFault::Missing));
            // Links that stay inside are the operator's business.
            disk.create(&root, "near/a").await.unwrap().finish().await.unwrap();
            assert_eq!(names(&inside), ["a"]);
            assert_eq!(names(&scratch.0), ["root", "secret"]);
        });
    }

    #[test]
    fn faults_have_names() {
        let fault = |errno: Errno| DiskFault::from(errno);
        assert_eq!(fault(Errno::NOSPC), DiskFault::Full);
        assert_eq!(fault(Errno::DQUOT), DiskFault::Full);
        assert!(matches!(fault(Errno::IO), DiskFault::Failed(_)));
        assert!(matches!(fault(Errno::ROFS), DiskFault::Failed(_)));
        assert_eq!(fault(Errno::XDEV), DiskFault::Outside);
        let stats = DiskStats::default();
        stats.note::<()>(Instant::now(), &Err(DiskFault::Full));
        let before = Instant::now() - Duration::from_millis(limits::DISK_SLOW_MS + 1);
        stats.note(before, &Ok(()));
        assert_eq!((stats.full.load(Relaxed), stats.slow.load(Relaxed)), (1, 1));
    }
}

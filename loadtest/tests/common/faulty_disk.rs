//! A small disk in memory that fails when it is told to: EIO, read-only as after an error of the
//! file system, a sync that takes two seconds. It is a FUSE file system of this process, so what
//! writes to it notices no difference to a device that behaves so.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU8, AtomicU32, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread;
use std::time::{Duration, SystemTime};

use fuser::{
    BackgroundSession, Config, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags,
    Generation, INodeNo, LockOwner, MountOption, OpenFlags, RenameFlags, ReplyAttr, ReplyCreate,
    ReplyData, ReplyDirectory, ReplyEmpty, ReplyEntry, ReplyOpen, ReplyWrite, Request, TimeOrNow,
    WriteFlags,
};

/// What the disk does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Fault {
    /// What it should.
    None,
    /// Writing and syncing fail.
    Io,
    /// Nothing may be changed.
    ReadOnly,
    /// A sync takes two seconds, in which nothing else is done.
    SlowSync,
}

/// A mounted disk. It is gone when this is dropped.
pub struct FaultyDisk {
    state: Arc<State>,
    path: PathBuf,
    session: Option<BackgroundSession>,
}

#[derive(Default)]
struct State {
    fault: AtomicU8,
    /// Writes and syncs that failed, or were slow.
    faults: AtomicU32,
    files: Mutex<Files>,
}

#[derive(Default)]
struct Files {
    names: BTreeMap<OsString, u64>,
    data: BTreeMap<u64, Vec<u8>>,
}

impl FaultyDisk {
    /// Mounts one. `None`, said loudly: this machine does not let this process mount. In CI that
    /// fails the test, unless the kernel has no FUSE at all.
    pub fn mount(path: &Path) -> Option<FaultyDisk> {
        std::fs::create_dir_all(path).expect("a folder");
        let state = Arc::new(State::default());
        let mut config = Config::default();
        config.mount_options = vec![MountOption::FSName("faulty".into())];
        match fuser::spawn_mount(Faulty(state.clone()), path, &config) {
            Ok(session) => {
                let path = path.to_owned();
                Some(FaultyDisk { state, path, session: Some(session) })
            }
            Err(why)
                if std::env::var_os("RINGCAST_CI").is_none()
                    || !Path::new("/dev/fuse").exists() =>
            {
                eprintln!("SKIPPED, nothing was tested: no FUSE file system can be mounted: {why}");
                None
            }
            Err(why) => panic!("no FUSE file system can be mounted, which takes root: {why}"),
        }
    }

    /// Lets it fail from now on, or not any more.
    pub fn set(&self, fault: Fault) {
        self.state.fault.store(fault as u8, Relaxed);
    }

    /// How often somebody has met a fault.
    pub fn faults(&self) -> u32 {
        self.state.faults.load(Relaxed)
    }

    /// Copies what is on it elsewhere, where it stays.
    pub fn copy_to(&self, folder: &Path) -> Vec<PathBuf> {
        let files = self.state.files();
        let copy = |(name, node): (&OsString, &u64)| {
            let path = folder.join(name);
            std::fs::write(&path, &files.data[node]).expect("a copy");
            path
        };
        files.names.iter().map(copy).collect()
    }
}

impl Drop for FaultyDisk {
    fn drop(&mut self) {
        self.set(Fault::None);
        // Lazily: who still has a file of it open would keep it mounted.
        let _ = Command::new("umount").arg("-l").arg(&self.path).status();
        drop(self.session.take());
    }
}

impl State {
    fn files(&self) -> MutexGuard<'_, Files> {
        self.files.lock().expect("lock")
    }

    fn is(&self, fault: Fault) -> bool {
        let is = self.fault.load(Relaxed) == fault as u8;
        self.faults.fetch_add(u32::from(is), Relaxed);
        is
    }

    /// Whether something may be changed.
    fn may_change(&self) -> Result<(), Errno> {
        if self.is(Fault::ReadOnly) { Err(Errno::EROFS) } else { Ok(()) }
    }

    fn may_write(&self) -> Result<(), Errno> {
        self.may_change()?;
        if self.is(Fault::Io) { Err(Errno::EIO) } else { Ok(()) }
    }
}

struct Faulty(Arc<State>);

/// What the kernel may believe without asking again.
const TTL: Duration = Duration::ZERO;
const ROOT: u64 = 1;

fn attributes(node: u64, len: usize) -> FileAttr {
    let now = SystemTime::now();
    let (kind, perm, nlink) = match node {
        ROOT => (FileType::Directory, 0o755, 2),
        _ => (FileType::RegularFile, 0o644, 1),
    };
    FileAttr {
        ino: INodeNo(node),
        size: len as u64,
        blocks: len.div_ceil(512) as u64,
        atime: now,
        mtime: now,
        ctime: now,
        crtime: now,
        kind,
        perm,
        nlink,
        uid: 0,
        gid: 0,
        rdev: 0,
        blksize: 4096,
        flags: 0,
    }
}

impl Files {
    fn attributes(&self, node: u64) -> Result<FileAttr, Errno> {
        if node == ROOT {
            return Ok(attributes(ROOT, 0));
        }
        self.data.get(&node).map(|data| attributes(node, data.len())).ok_or(Errno::ENOENT)
    }
}

impl Filesystem for Faulty {
    fn lookup(&self, _: &Request, _: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let files = self.0.files();
        let node = files.names.get(name).copied().ok_or(Errno::ENOENT);
        match node.and_then(|node| files.attributes(node)) {
            Ok(found) => reply.entry(&TTL, &found, Generation(0)),
            Err(why) => reply.error(why),
        }
    }

    fn getattr(&self, _: &Request, node: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        match self.0.files().attributes(node.0) {
            Ok(found) => reply.attr(&TTL, &found),
            Err(why) => reply.error(why),
        }
    }

    fn setattr(
        &self,
        _: &Request,
        node: INodeNo,
        _: Option<u32>,
        _: Option<u32>,
        _: Option<u32>,
        size: Option<u64>,
        _: Option<TimeOrNow>,
        _: Option<TimeOrNow>,
        _: Option<SystemTime>,
        _: Option<FileHandle>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<fuser::BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        if let Err(why) = self.0.may_change() {
            return reply.error(why);
        }
        let mut files = self.0.files();
        if let (Some(size), Some(data)) = (size, files.data.get_mut(&node.0)) {
            data.resize(size as usize, 0);
        }
        match files.attributes(node.0) {
            Ok(found) => reply.attr(&TTL, &found),
            Err(why) => reply.error(why),
        }
    }

    fn create(
        &self,
        _: &Request,
        _: INodeNo,
        name: &OsStr,
        _: u32,
        _: u32,
        _: i32,
        reply: ReplyCreate,
    ) {
        if let Err(why) = self.0.may_change() {
            return reply.error(why);
        }
        let mut files = self.0.files();
        let node = files.data.last_key_value().map_or(ROOT, |(last, _)| *last) + 1;
        files.names.insert(name.to_owned(), node);
        files.data.insert(node, Vec::new());
        let found = attributes(node, 0);
        reply.created(&TTL, &found, Generation(0), FileHandle(0), FopenFlags::empty());
    }

    fn unlink(&self, _: &Request, _: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        if let Err(why) = self.0.may_change() {
            return reply.error(why);
        }
        // Its bytes stay for who has it open.
        match self.0.files().names.remove(name) {
            Some(_) => reply.ok(),
            None => reply.error(Errno::ENOENT),
        }
    }

    fn rename(
        &self,
        _: &Request,
        _: INodeNo,
        name: &OsStr,
        _: INodeNo,
        to: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        if let Err(why) = self.0.may_change() {
            return reply.error(why);
        }
        let mut files = self.0.files();
        if flags.contains(RenameFlags::RENAME_NOREPLACE) && files.names.contains_key(to) {
            return reply.error(Errno::EEXIST);
        }
        match files.names.remove(name) {
            Some(node) => {
                files.names.insert(to.to_owned(), node);
                reply.ok();
            }
            None => reply.error(Errno::ENOENT),
        }
    }

    fn open(&self, _: &Request, node: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        match self.0.files().attributes(node.0) {
            Ok(_) => reply.opened(FileHandle(0), FopenFlags::empty()),
            Err(why) => reply.error(why),
        }
    }

    fn read(
        &self,
        _: &Request,
        node: INodeNo,
        _: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let files = self.0.files();
        let data = files.data.get(&node.0).map_or(&[][..], |data| data);
        let begin = data.len().min(offset as usize);
        let end = data.len().min(begin + size as usize);
        reply.data(&data[begin..end]);
    }

    fn write(
        &self,
        _: &Request,
        node: INodeNo,
        _: FileHandle,
        offset: u64,
        bytes: &[u8],
        _: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        if let Err(why) = self.0.may_write() {
            return reply.error(why);
        }
        let mut files = self.0.files();
        let Some(data) = files.data.get_mut(&node.0) else { return reply.error(Errno::ENOENT) };
        let end = offset as usize + bytes.len();
        data.resize(data.len().max(end), 0);
        data[offset as usize..end].copy_from_slice(bytes);
        reply.written(bytes.len() as u32);
    }

    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        reply.ok();
    }

    fn fsync(&self, _: &Request, _: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        if self.0.is(Fault::SlowSync) {
            // There is one thread, so all else waits, too.
            thread::sleep(Duration::from_secs(2));
        }
        match self.0.may_write() {
            Ok(()) => reply.ok(),
            Err(why) => reply.error(why),
        }
    }

    fn fsyncdir(&self, _: &Request, _: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        match self.0.may_write() {
            Ok(()) => reply.ok(),
            Err(why) => reply.error(why),
        }
    }

    fn readdir(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        offset: u64,
        mut reply: ReplyDirectory,
    ) {
        let files = self.0.files();
        for (index, (name, node)) in files.names.iter().enumerate().skip(offset as usize) {
            let full = reply.add(INodeNo(*node), index as u64 + 1, FileType::RegularFile, name);
            if full {
                break;
            }
        }
        reply.ok();
    }
}

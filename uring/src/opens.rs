//! Files that are being opened: the path and the answer, which the kernel reads and writes.

use std::ffi::CString;
use std::os::fd::{AsRawFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::Arc;

use io_uring::{opcode, squeue, types};

use crate::driver::{FileKind, Open, Opened, Opening};

/// Times an opening is tried again that the kernel could not tell from one that leads out (a folder
/// was renamed meanwhile).
const TRIES: u8 = 4;

/// One file on its way.
pub(crate) struct OpenFile {
    root: Option<Arc<OwnedFd>>,
    path: CString,
    how: types::OpenHow,
    tries: u8,
    /// Open, but not known yet.
    file: Option<OwnedFd>,
    answer: Answer,
}

/// Where the kernel writes what a file is.
struct Answer(NonNull<libc::statx>);

impl Answer {
    fn new() -> Answer {
        // SAFETY: all bit patterns are valid, zeroes included.
        let empty: libc::statx = unsafe { std::mem::zeroed() };
        Answer(NonNull::from(Box::leak(Box::new(empty))))
    }

    fn read(&self) -> libc::statx {
        // SAFETY: made by `new`, freed by `drop` only; no operation that writes is in flight when
        // its completion is handled.
        unsafe { self.0.as_ptr().read() }
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        // SAFETY: made by `Box::leak` in `new`, and dropped once.
        drop(unsafe { Box::from_raw(self.0.as_ptr()) });
    }
}

impl OpenFile {
    fn new(what: Open) -> OpenFile {
        let always = libc::O_CLOEXEC as u64;
        let (root, path, how) = match what {
            Open::Root(path) => {
                let flags = (libc::O_PATH | libc::O_DIRECTORY) as u64;
                (None, path, types::OpenHow::new().flags(flags | always))
            }
            Open::Below(root, path) => {
                let flags = (libc::O_RDONLY | libc::O_NOCTTY | libc::O_NONBLOCK) as u64;
                let resolve = libc::RESOLVE_BENEATH | libc::RESOLVE_NO_MAGICLINKS;
                let how = types::OpenHow::new().flags(flags | always).resolve(resolve);
                (Some(root), path, how)
            }
        };
        OpenFile { root, path, how, tries: 0, file: None, answer: Answer::new() }
    }

    /// The operation that opens it. It names memory of this box and the root's descriptor.
    pub(crate) fn open(&self) -> squeue::Entry {
        let root = self.root.as_ref().map_or(libc::AT_FDCWD, |root| root.as_raw_fd());
        opcode::OpenAt2::new(types::Fd(root), self.path.as_ptr(), &self.how).build()
    }

    /// It is open (a file), or was asked for before (`None`): the operation that asks what it is.
    /// It names memory of this box and the file's descriptor, which this box owns from here on.
    pub(crate) fn stat(&mut self, file: Option<OwnedFd>) -> Option<squeue::Entry> {
        self.file = file.or(self.file.take());
        let fd = types::Fd(self.file.as_ref()?.as_raw_fd());
        // Asked with an empty path, which means the descriptor itself.
        let entry = opcode::Statx::new(fd, c"".as_ptr(), self.answer.0.as_ptr().cast())
            .flags(libc::AT_EMPTY_PATH)
            .mask(libc::STATX_BASIC_STATS);
        Some(entry.build())
    }

    /// Whether it is worth another try.
    pub(crate) fn tries_again(&mut self) -> bool {
        self.tries += 1;
        self.tries < TRIES
    }

    /// What was opened, once the kernel has said what it is.
    pub(crate) fn finish(&mut self) -> Option<Opened> {
        let stat = self.answer.read();
        let kind = match u32::from(stat.stx_mode) & libc::S_IFMT {
            libc::S_IFREG => FileKind::Regular,
            libc::S_IFDIR => FileKind::Folder,
            _ => FileKind::Other,
        };
        Some(Opened {
            file: self.file.take()?,
            kind,
            len: stat.stx_size,
            inode: stat.stx_ino,
            modified: (stat.stx_mtime.tv_sec, stat.stx_mtime.tv_nsec),
        })
    }
}

#[derive(Default)]
struct Slot {
    generation: u32,
    open: Option<Box<OpenFile>>,
}

/// All files on their way.
#[derive(Default)]
pub(crate) struct Opens {
    slots: Vec<Slot>,
    free: Vec<u32>,
    live: usize,
}

impl Opens {
    /// Takes one in.
    pub(crate) fn insert(&mut self, what: Open) -> Opening {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot::default());
            self.slots.len() as u32 - 1
        });
        let entry = &mut self.slots[slot as usize];
        entry.open = Some(Box::new(OpenFile::new(what)));
        self.live += 1;
        Opening { slot, generation: entry.generation }
    }

    pub(crate) fn get_mut(&mut self, opening: Opening) -> Option<&mut OpenFile> {
        let entry = self.slots.get_mut(opening.slot as usize)?;
        entry.open.as_deref_mut().filter(|_| entry.generation == opening.generation)
    }

    /// Takes one out. Nothing of it may be with the kernel.
    pub(crate) fn remove(&mut self, opening: Opening) {
        let Some(entry) = self.slots.get_mut(opening.slot as usize) else { return };
        if entry.generation == opening.generation && entry.open.take().is_some() {
            entry.generation = entry.generation.wrapping_add(1);
            self.free.push(opening.slot);
            self.live -= 1;
        }
    }

    /// How many there are; each has one operation in flight.
    pub(crate) fn live(&self) -> usize {
        self.live
    }

    /// Gives up on what is in flight: its memory is never freed.
    pub(crate) fn leak(&mut self) {
        for slot in std::mem::take(&mut self.slots) {
            std::mem::forget(slot.open);
        }
        *self = Opens::default();
    }
}

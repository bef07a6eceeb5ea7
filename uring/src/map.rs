//! Anonymous mappings: address space first, pages only where they are touched.

use std::io;
use std::ptr::NonNull;

/// A private anonymous mapping, unmapped on drop. It is not inherited by `fork`: pages the kernel
/// has pinned must not become copy-on-write.
#[derive(Debug)]
pub(crate) struct Mapping {
    start: NonNull<u8>,
    len: usize,
}

// SAFETY: a mapping is plain memory owned by this value; nothing about it belongs to a thread.
unsafe impl Send for Mapping {}
// SAFETY: the type itself gives out only addresses; who may touch the bytes is decided by the
// owners (`Arena`, `BufferRing`), which state their own argument.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Reserves `len` bytes of address space that cannot be touched yet.
    pub(crate) fn reserve(len: usize) -> io::Result<Mapping> {
        Mapping::map(len, libc::PROT_NONE, libc::MAP_NORESERVE)
    }

    /// Maps `len` bytes of zeroed memory; pages come on first touch.
    pub(crate) fn zeroed(len: usize) -> io::Result<Mapping> {
        Mapping::map(len, libc::PROT_READ | libc::PROT_WRITE, 0)
    }

    fn map(len: usize, protection: i32, flags: i32) -> io::Result<Mapping> {
        let flags = flags | libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        // SAFETY: a new mapping at an address of the kernel's choice touches no existing memory.
        let start = unsafe { libc::mmap(std::ptr::null_mut(), len, protection, flags, -1, 0) };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let start = NonNull::new(start.cast()).expect("mmap returned an address");
        let mapping = Mapping { start, len };
        // Transparent huge pages would make resident memory grow by 2 MiB per touched byte; a
        // kernel without them answers EINVAL, which is as good.
        let _ = advise(start, len, libc::MADV_NOHUGEPAGE);
        advise(start, len, libc::MADV_DONTFORK)?;
        Ok(mapping)
    }

    pub(crate) fn start(&self) -> NonNull<u8> {
        self.start
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: start and len are those of the mapping made in `map` (parts of it may have been
        // replaced in place since); the owner drops it only when no pointer into it is left.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.len) };
    }
}

/// Makes a reserved range readable and writable.
pub(crate) fn commit(start: NonNull<u8>, len: usize) -> io::Result<()> {
    let protection = libc::PROT_READ | libc::PROT_WRITE;
    // SAFETY: only widens the rights of memory the caller owns; no reference becomes invalid.
    match unsafe { libc::mprotect(start.as_ptr().cast(), len, protection) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Puts one huge page in place of the reserved range of the same size.
///
/// The page is mapped elsewhere and then moved, because a failed `MAP_FIXED` could leave a hole
/// in the reservation for another thread's mmap to fall into.
pub(crate) fn commit_huge(start: NonNull<u8>, len: usize) -> io::Result<()> {
    let protection = libc::PROT_READ | libc::PROT_WRITE;
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_HUGETLB | libc::MAP_HUGE_2MB;
    // SAFETY: a new mapping at an address of the kernel's choice touches no existing memory.
    let page = unsafe { libc::mmap(std::ptr::null_mut(), len, protection, flags, -1, 0) };
    if page == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    let moving = libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED;
    let target: *mut libc::c_void = start.as_ptr().cast();
    // SAFETY: the source was mapped above with this length; the target is a reserved range the
    // caller owns and nobody has a pointer into yet.
    let moved = unsafe { libc::mremap(page, len, len, moving, target) };
    if moved == libc::MAP_FAILED {
        let error = io::Error::last_os_error();
        // SAFETY: the mapping made above, which nobody else knows. An old kernel (before 5.16)
        // refuses to move huge pages before it touches the target.
        unsafe { libc::munmap(page, len) };
        return Err(error);
    }
    advise(start, len, libc::MADV_DONTFORK)
}

/// Gives the pages of a range back to the system; it reads as zeroes afterwards.
pub(crate) fn decommit(start: NonNull<u8>, len: usize) -> io::Result<()> {
    advise(start, len, libc::MADV_DONTNEED)
}

fn advise(start: NonNull<u8>, len: usize, advice: i32) -> io::Result<()> {
    // SAFETY: the advices used here (NOHUGEPAGE, DONTFORK, DONTNEED) leave the mapping in place;
    // DONTNEED discards contents, which `decommit` documents.
    match unsafe { libc::madvise(start.as_ptr().cast(), len, advice) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

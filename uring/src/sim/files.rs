//! Files of the simulated kernel are real ones: only the time they take is made up.

use rustix::fs::{CWD, FileType, Mode, OFlags, ResolveFlags, fstat, openat2};

use crate::driver::{Errno, FileKind, Open, Opened};

/// Opens what the kernel would open.
pub(super) fn open(what: &Open) -> Result<Opened, Errno> {
    let errno = |errno: rustix::io::Errno| Errno(errno.raw_os_error());
    let flags = OFlags::CLOEXEC;
    let file = match what {
        Open::Root(path) => {
            let flags = flags | OFlags::PATH | OFlags::DIRECTORY;
            openat2(CWD, path.as_c_str(), flags, Mode::empty(), ResolveFlags::empty())
        }
        Open::Below(root, path) => {
            let flags = flags | OFlags::RDONLY | OFlags::NOCTTY | OFlags::NONBLOCK;
            let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
            openat2(root, path.as_c_str(), flags, Mode::empty(), resolve)
        }
    };
    let file = file.map_err(errno)?;
    let stat = fstat(&file).map_err(errno)?;
    let kind = match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => FileKind::Regular,
        FileType::Directory => FileKind::Folder,
        _ => FileKind::Other,
    };
    Ok(Opened {
        file,
        kind,
        len: stat.st_size as u64,
        inode: stat.st_ino,
        modified: (stat.st_mtime, stat.st_mtime_nsec as u32),
    })
}

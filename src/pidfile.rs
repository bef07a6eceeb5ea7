//! The pid file: one running server per file, and the way to find its process id.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};

/// A pid file, locked for as long as this value lives and removed with it.
#[derive(Debug)]
pub struct PidFile {
    path: PathBuf,
    // The lock belongs to the open file.
    _file: File,
}

/// Why a pid file cannot be had. Both are the operator's to mend.
#[derive(Debug, thiserror::Error)]
pub enum PidFileError {
    /// Another server holds it.
    #[error(
        "another server ({}) holds the pid file {}; stop it, or give this one a `pid` of its own",
        .pid.as_ref().map_or("pid unknown".into(), |pid| format!("pid {pid}")),
        .path.display()
    )]
    Held {
        /// The file.
        path: PathBuf,
        /// The other's process id, when the file tells.
        pid: Option<u32>,
    },
    /// The file cannot be written.
    #[error("cannot write the pid file {}: {why}; change `pid` or its directory", .path.display())]
    Unusable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        why: io::Error,
    },
}

/// Takes the pid file at `path` and writes this process's id into it. The lock ends with the
/// process however it ends, so a file left behind by a crash is in nobody's way.
///
/// # Errors
/// When another process holds it, or when it cannot be written.
pub fn acquire(path: &Path) -> Result<PidFile, PidFileError> {
    let unusable = |why| PidFileError::Unusable { path: path.into(), why };
    make_folder(path);
    loop {
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o644)
            .open(path)
            .map_err(unusable)?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => {
                let mut text = String::new();
                // Only the wording of the refusal depends on it.
                let _ = (&mut file).take(32).read_to_string(&mut text);
                let pid = text.trim().parse().ok();
                return Err(PidFileError::Held { path: path.into(), pid });
            }
            Err(errno) => return Err(unusable(errno.into())),
        }
        // Its last holder may have removed the file between our open and our lock; a lock on
        // such a file keeps nobody out.
        let ours = file.metadata().map_err(unusable)?;
        match fs::metadata(path) {
            Ok(there) if (there.dev(), there.ino()) == (ours.dev(), ours.ino()) => {}
            _ => continue,
        }
        file.set_len(0).map_err(unusable)?;
        file.rewind().map_err(unusable)?;
        writeln!(file, "{}", std::process::id()).map_err(unusable)?;
        // Absolute, so that it is found again when the working directory changes.
        let path = path.canonicalize().map_err(unusable)?;
        return Ok(PidFile { path, _file: file });
    }
}

/// Makes the folder of a file below the working directory, such as SRS's `./objs`. Elsewhere a
/// missing folder is rather a mistake in the path. Whether it is there now shows when it is used.
fn make_folder(file: &Path) {
    if let (true, Some(folder)) = (file.is_relative(), file.parent()) {
        let _ = fs::create_dir_all(folder);
    }
}

impl Drop for PidFile {
    fn drop(&mut self) {
        // A file that stays is harmless: nobody holds its lock.
        let _ = fs::remove_file(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn temp(name: &str) -> PathBuf {
        std::env::temp_dir().join(format!("ringcast-pid-{}-{name}", std::process::id()))
    }

    #[test]
    fn the_second_is_refused_and_told_who_holds_it() {
        let path = temp("held");
        fs::write(&path, "99999999 left by a crash\n").unwrap();
        let first = acquire(&path).unwrap();
        let pid = std::process::id();
        assert_eq!(fs::read_to_string(&path).unwrap(), format!("{pid}\n"));
        let text = acquire(&path).unwrap_err().to_string();
        assert!(text.starts_with(&format!("another server (pid {pid}) holds")), "{text}");
        drop(first);
        assert!(!path.exists());
        drop(acquire(&path).unwrap());
    }

    #[test]
    fn an_unusable_place_is_explained() {
        let path = Path::new("/nonexistent/ringcast.pid");
        let text = acquire(path).unwrap_err().to_string();
        assert!(text.contains("cannot write the pid file /nonexistent"), "{text}");
    }

    #[test]
    fn one_of_many_gets_it() {
        let path = temp("race");
        let barrier = std::sync::Barrier::new(8);
        let got: Vec<_> = std::thread::scope(|scope| {
            let run = || {
                barrier.wait();
                let held = acquire(&path);
                barrier.wait();
                held.is_ok()
            };
            let all: Vec<_> = (0..8).map(|_| scope.spawn(run)).collect();
            all.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert_eq!(got.iter().filter(|ok| **ok).count(), 1);
    }
}

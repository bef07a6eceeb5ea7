//! What is looked at every second: whether the shards live, the parent process, the
//! configuration's files.

use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use rustix::process::{Pid, getppid};

use super::serve::Handle;
use crate::systemd;

/// Time between two looks.
const BEAT: Duration = Duration::from_secs(1);

/// The second hand, and what the service manager is told by it.
#[derive(Debug)]
pub struct Pulse {
    /// When the next look is due.
    pub next: Instant,
    parent: Option<Pid>,
    watchdog: Option<Duration>,
    told: Instant,
    /// By shard: how often it had turned at the last look at which it had turned.
    turns: Vec<u64>,
}

impl Pulse {
    /// Begins now.
    pub fn new() -> Pulse {
        let watchdog = systemd::watchdog();
        let next = Instant::now() + watchdog.map_or(BEAT, |watchdog| watchdog.min(BEAT));
        Pulse { next, parent: getppid(), watchdog, told: Instant::now(), turns: Vec::new() }
    }

    /// Tells the service manager, where it asks for it, that every shard has turned since it was
    /// told last. A shard turns some times a second even when nothing happens; when one does not,
    /// the manager is left to end the process.
    pub fn beat(&mut self, handle: &Handle) {
        let Some(watchdog) = self.watchdog else {
            self.next = Instant::now() + BEAT;
            return;
        };
        self.next = Instant::now() + watchdog.min(BEAT);
        let turns: Vec<u64> = handle.counters.iter().map(|c| c.turns.load(Relaxed)).collect();
        let all_alive = turns.len() != self.turns.len()
            || turns.iter().zip(&self.turns).all(|(now, before)| now != before);
        if all_alive && self.told.elapsed() >= watchdog.min(BEAT) / 2 {
            systemd::notify(systemd::State::Alive);
            self.told = Instant::now();
            self.turns = turns;
        }
    }

    /// True when the process has another parent than at start.
    pub fn parent_is_gone(&self) -> bool {
        getppid() != self.parent
    }
}

impl Default for Pulse {
    fn default() -> Pulse {
        Pulse::new()
    }
}

/// Finds out that files have changed and have come to rest.
#[derive(Debug, Default)]
pub struct FileWatch {
    /// What the files looked like when they were last read.
    known: Option<Vec<Look>>,
    /// What they looked like a moment ago.
    last: Option<Vec<Look>>,
}

/// A file as `stat` shows it; `None` when it cannot be found. Through links, so that the atomic
/// exchange of a mounted directory is seen.
type Look = Option<(u64, u64, i64, i64)>;

impl FileWatch {
    /// True once after a change, as soon as two looks in a row are the same.
    pub fn changed(&mut self, files: &[PathBuf]) -> bool {
        let look = |path: &PathBuf| {
            let seen = std::fs::metadata(path).ok()?;
            Some((seen.ino(), seen.len(), seen.mtime(), seen.mtime_nsec()))
        };
        let now: Vec<Look> = files.iter().map(look).collect();
        let at_rest = self.last.as_ref() == Some(&now);
        self.last = Some(now.clone());
        match &self.known {
            // The first look is what was read at start.
            None => {
                self.known = Some(now);
                false
            }
            Some(known) if *known != now && at_rest => {
                self.known = Some(now);
                true
            }
            Some(_) => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_is_seen_once_when_it_is_complete() {
        let path = std::env::temp_dir().join(format!("ringcast-watch-{}", std::process::id()));
        let files = [path.clone()];
        std::fs::write(&path, "a").unwrap();
        let mut watch = FileWatch::default();
        assert!(!watch.changed(&files) && !watch.changed(&files));
        std::fs::write(&path, "bb").unwrap();
        assert!(!watch.changed(&files), "it may still be written");
        std::fs::write(&path, "ccc").unwrap();
        assert!(!watch.changed(&files));
        assert!(watch.changed(&files));
        assert!(!watch.changed(&files));
        // Editors and mounts exchange the file.
        let other = path.with_extension("new");
        std::fs::write(&other, "ccc").unwrap();
        std::fs::rename(&other, &path).unwrap();
        assert!(!watch.changed(&files) && watch.changed(&files));
        std::fs::remove_file(&path).unwrap();
        assert!(!watch.changed(&files) && watch.changed(&files));
    }
}

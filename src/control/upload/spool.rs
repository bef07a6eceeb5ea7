//! What waits to be uploaded: a list of files on disk, the oldest first.
//!
//! The list is made from what is on disk and can be made from it again, so a restart loses nothing
//! and a list that is full loses nothing: what does not fit waits on disk until there is room.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::limits;

/// What kind of file it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// A recording that is whole.
    Recording,
    /// A segment of HLS, or its initialisation segment.
    Segment,
    /// A playlist of HLS. It goes after the segments of its stream.
    Playlist,
}

/// A file that waits.
#[derive(Clone, Debug)]
pub struct File {
    /// What it is.
    pub kind: Kind,
    /// The stream, where a playlist waits for segments; empty when it is not known any more.
    pub stream: Arc<str>,
    /// The configured folder that it is below.
    pub root: Arc<Path>,
    /// Its path below that.
    pub path: Arc<str>,
    /// Bytes, as far as known.
    pub bytes: u64,
    /// When it was written, ms since 1970.
    pub written_ms: i64,
    /// It was found on disk: perhaps the store has it already.
    pub found: bool,
    /// Nobody else needs it any more: it is removed when it is uploaded.
    pub remove: bool,
}

#[derive(Debug)]
struct Entry {
    file: File,
    tries: u32,
    not_before: Option<Instant>,
    in_flight: bool,
    /// It was written again while it was uploaded.
    again: bool,
}

type Place = (i64, u64);
type Name = (Arc<Path>, Arc<str>);

/// The list of one vhost.
#[derive(Debug, Default)]
pub struct Spool {
    entries: BTreeMap<Place, Entry>,
    places: HashMap<Name, Place>,
    next: u64,
    /// Files were left out for want of room; the disk has to be looked at again.
    pub overflowed: bool,
    bytes: u64,
    /// Segments that wait, by their streams.
    segments: HashMap<Arc<str>, usize>,
    /// Bytes of segments that are on disk for the upload only.
    held: u64,
    in_flight: usize,
    failures: u32,
    not_before: Option<Instant>,
}

/// How one attempt went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is uploaded, or is not there any more.
    Done,
    /// A playlist that names what has come meanwhile: that goes first.
    Later,
    /// The store could not be had, or did not take it: it is tried again.
    Failed,
    /// The file cannot be read, or does not fit: it is not tried again before a restart.
    Unusable,
}

impl Spool {
    /// How many files wait, with those in flight.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// True when nothing waits.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Bytes of them.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Files that are being uploaded.
    pub fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// True while the store does not take anything.
    pub fn is_failing(&self) -> bool {
        self.failures > 0
    }

    /// When the oldest one was written, ms since 1970.
    pub fn oldest_ms(&self) -> Option<i64> {
        self.entries.keys().next().map(|(written_ms, _)| *written_ms)
    }

    /// Adds a file, or notes that it was written again. False when there is no room.
    pub fn add(&mut self, file: File) -> bool {
        let name = (file.root.clone(), file.path.clone());
        if let Some(place) = self.places.get(&name) {
            if let Some(entry) = self.entries.get_mut(place) {
                if file.found {
                    return true;
                }
                entry.again |= entry.in_flight;
                entry.file.found = false;
                // Who writes it needs it.
                if std::mem::take(&mut entry.file.remove) {
                    self.held -= entry.file.bytes;
                }
                self.bytes = self.bytes - entry.file.bytes + file.bytes;
                entry.file.bytes = file.bytes;
            }
            return true;
        }
        if self.entries.len() >= limits::UPLOADS_WAITING_MAX {
            self.overflowed = true;
            return false;
        }
        self.bytes += file.bytes;
        self.held += if file.remove { file.bytes } else { 0 };
        if file.kind == Kind::Segment {
            *self.segments.entry(file.stream.clone()).or_default() += 1;
        }
        let place = (file.written_ms, self.next);
        self.next += 1;
        self.places.insert(name, place);
        let (tries, not_before, in_flight, again) = Default::default();
        self.entries.insert(place, Entry { file, tries, not_before, in_flight, again });
        true
    }

    /// True when there is room and the disk should be looked at.
    pub fn wants_scan(&mut self) -> bool {
        let room = self.entries.len() <= limits::UPLOADS_WAITING_MAX / 2;
        room && std::mem::take(&mut self.overflowed)
    }

    /// The file that is to be uploaded now, which is in flight then.
    pub fn take(&mut self, now: Instant) -> Option<File> {
        let later = |at: Option<Instant>| at.is_some_and(|at| at > now);
        // While the store does not answer, one file asks for all.
        let most = if self.failures > 0 { 1 } else { limits::UPLOADS_AT_A_TIME };
        if self.in_flight >= most || later(self.not_before) {
            return None;
        }
        let ready = |entry: &Entry| {
            !entry.in_flight && !later(entry.not_before) && !self.has_to_wait(&entry.file)
        };
        let all = self.entries.iter().filter(|(_, entry)| ready(entry));
        // The oldest; but one that is always refused is in nobody's way.
        let place = *all.min_by_key(|(_, entry)| entry.tries)?.0;
        let entry = self.entries.get_mut(&place)?;
        entry.in_flight = true;
        self.in_flight += 1;
        Some(entry.file.clone())
    }

    /// True for a playlist while segments of its stream wait: none names what is not there.
    pub fn has_to_wait(&self, file: &File) -> bool {
        file.kind == Kind::Playlist && self.segments.contains_key(&file.stream)
    }

    /// Says how it went. Returns the file if it is to be removed from the disk.
    pub fn done(&mut self, root: &Path, path: &str, how: Outcome, now: Instant) -> Option<File> {
        let place = self.place(root, path)?;
        let entry = self.entries.get_mut(&place)?;
        entry.in_flight = false;
        self.in_flight -= 1;
        match how {
            Outcome::Failed => {
                self.failures = self.failures.saturating_add(1);
                entry.tries = entry.tries.saturating_add(1);
                entry.not_before = Some(now + backoff(entry.tries));
                self.not_before = Some(now + backoff(self.failures));
                return None;
            }
            Outcome::Done => (self.failures, self.not_before) = (0, None),
            Outcome::Later => return None,
            Outcome::Unusable => {}
        }
        if how == Outcome::Done && std::mem::take(&mut entry.again) {
            (entry.tries, entry.not_before) = (0, None);
            return None;
        }
        let file = self.forget(place)?;
        (how == Outcome::Done && file.remove).then_some(file)
    }

    /// The time until the next attempt, if one is waited for.
    pub fn pause(&self, now: Instant) -> Option<Duration> {
        self.not_before.map(|at| at.saturating_duration_since(now))
    }

    /// Nobody else needs a file any more. True: it is removed when it is uploaded. False: it does
    /// not wait, so it may go now.
    pub fn hold(&mut self, root: &Path, path: &str) -> bool {
        let Some(place) = self.place(root, path) else { return false };
        let Some(entry) = self.entries.get_mut(&place) else { return false };
        if !entry.file.remove {
            entry.file.remove = true;
            self.held += entry.file.bytes;
        }
        true
    }

    /// A file is or will be gone from the disk. True when it has waited.
    pub fn drop_file(&mut self, root: &Path, path: &str) -> bool {
        let place = self.place(root, path);
        // One in flight ends by itself, and is forgotten then.
        let waits = |place: &Place| self.entries.get(place).is_some_and(|entry| !entry.in_flight);
        place.filter(waits).and_then(|place| self.forget(place)).is_some()
    }

    /// The oldest file that is on disk for the upload only, when such files take more than `most`
    /// bytes. It is forgotten; 0 means no limit.
    pub fn give_up(&mut self, most: u64) -> Option<File> {
        if most == 0 || self.held <= most {
            return None;
        }
        let held = |entry: &Entry| entry.file.remove && !entry.in_flight;
        let place = self.entries.iter().find(|(_, entry)| held(entry)).map(|(place, _)| *place)?;
        self.forget(place)
    }

    fn place(&self, root: &Path, path: &str) -> Option<Place> {
        self.places.get(&(root.into(), path.into())).copied()
    }

    fn forget(&mut self, place: Place) -> Option<File> {
        let Entry { file, .. } = self.entries.remove(&place)?;
        self.places.remove(&(file.root.clone(), file.path.clone()));
        if file.kind == Kind::Segment
            && let Some(count) = self.segments.get_mut(&file.stream)
        {
            *count -= 1;
            if *count == 0 {
                self.segments.remove(&file.stream);
            }
        }
        self.bytes -= file.bytes;
        self.held -= if file.remove { file.bytes } else { 0 };
        Some(file)
    }
}

/// Time until the next attempt after so many that failed.
fn backoff(failures: u32) -> Duration {
    let ms = limits::UPLOAD_RETRY_MS << failures.saturating_sub(1).min(16);
    Duration::from_millis(ms.min(limits::UPLOAD_RETRY_MS_MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(kind: Kind, path: &str, written_ms: i64) -> File {
        let (root, path, stream) = (Path::new("/r").into(), path.into(), path[..1].into());
        File { kind, stream, root, path, bytes: 10, written_ms, found: false, remove: false }
    }

    fn recording(path: &str, written_ms: i64) -> File {
        file(Kind::Recording, path, written_ms)
    }

    fn names(spool: &mut Spool, now: Instant) -> Vec<String> {
        std::iter::from_fn(|| spool.take(now)).map(|file| file.path.to_string()).collect()
    }

    const ROOT: &str = "/r";

    #[test]
    fn the_oldest_goes_first_and_only_so_many_at_a_time() {
        let (mut spool, now) = (Spool::default(), Instant::now());
        for n in (0..6).rev() {
            assert!(spool.add(recording(&n.to_string(), n)));
        }
        assert!(spool.add(recording("3", 3)), "it is there already");
        assert_eq!((spool.len(), spool.bytes(), spool.oldest_ms()), (6, 60, Some(0)));
        assert_eq!(names(&mut spool, now), ["0", "1", "2", "3"]);
        assert_eq!(spool.done(Path::new(ROOT), "1", Outcome::Done, now).map(|f| f.path), None);
        assert_eq!(names(&mut spool, now), ["4"]);
        assert_eq!((spool.len(), spool.in_flight(), spool.bytes()), (5, 4, 50));
    }

    #[test]
    fn failures_wait_longer_and_longer_and_one_asks_for_all() {
        let (mut spool, mut now) = (Spool::default(), Instant::now());
        for n in 0..6 {
            spool.add(recording(&n.to_string(), n));
        }
        assert_eq!(names(&mut spool, now).len(), 4);
        for n in ["0", "1", "2", "3"] {
            spool.done(Path::new(ROOT), n, Outcome::Failed, now);
        }
        assert!(spool.is_failing() && spool.take(now).is_none());
        let mut pauses = Vec::new();
        for _ in 0..9 {
            let pause = spool.pause(now).unwrap();
            pauses.push(pause.as_millis() as u64);
            now += pause;
            let asks = names(&mut spool, now);
            assert_eq!(asks.len(), 1, "{asks:?}");
            spool.done(Path::new(ROOT), &asks[0], Outcome::Failed, now);
        }
        assert!(pauses.is_sorted() && pauses.last() == Some(&limits::UPLOAD_RETRY_MS_MAX));
        now += Duration::from_millis(2 * limits::UPLOAD_RETRY_MS_MAX);
        let first = names(&mut spool, now).remove(0);
        spool.done(Path::new(ROOT), &first, Outcome::Done, now);
        assert!(!spool.is_failing() && spool.pause(now).is_none());
        assert_eq!(names(&mut spool, now).len(), 4);
    }

    #[test]
    fn a_file_that_is_always_refused_is_in_nobodys_way() {
        let (mut spool, mut now) = (Spool::default(), Instant::now());
        spool.add(recording("bad", 0));
        spool.add(recording("good", 1));
        assert_eq!(names(&mut spool, now), ["bad", "good"]);
        spool.done(Path::new(ROOT), "bad", Outcome::Failed, now);
        spool.done(Path::new(ROOT), "good", Outcome::Failed, now);
        now += Duration::from_secs(3600);
        assert_eq!(names(&mut spool, now), ["bad"]);
        spool.done(Path::new(ROOT), "bad", Outcome::Failed, now);
        now += spool.pause(now).unwrap();
        assert_eq!(names(&mut spool, now), ["good"]);
        spool.done(Path::new(ROOT), "good", Outcome::Done, now);
        assert!(!spool.is_failing());
        spool.done(Path::new(ROOT), "good", Outcome::Done, now);
        now += Duration::from_secs(3600);
        assert_eq!(names(&mut spool, now), ["bad"]);
        spool.done(Path::new(ROOT), "bad", Outcome::Unusable, now);
        assert!(spool.is_empty());
    }

    #[test]
    fn playlists_go_after_segments_and_again_when_they_changed() {
        let (mut spool, now) = (Spool::default(), Instant::now());
        spool.add(file(Kind::Playlist, "a.m3u8", 1));
        spool.add(file(Kind::Segment, "a-2.ts", 2));
        spool.add(file(Kind::Playlist, "b.m3u8", 3));
        assert_eq!(names(&mut spool, now), ["a-2.ts", "b.m3u8"], "of another stream");
        spool.done(Path::new(ROOT), "b.m3u8", Outcome::Done, now);
        spool.done(Path::new(ROOT), "a-2.ts", Outcome::Done, now);
        assert_eq!(names(&mut spool, now), ["a.m3u8"]);
        spool.done(Path::new(ROOT), "a.m3u8", Outcome::Later, now);
        assert_eq!(names(&mut spool, now), ["a.m3u8"]);
        spool.add(file(Kind::Playlist, "a.m3u8", 5));
        assert!(spool.take(now).is_none());
        spool.done(Path::new(ROOT), "a.m3u8", Outcome::Done, now);
        assert_eq!(names(&mut spool, now), ["a.m3u8"]);
        spool.done(Path::new(ROOT), "a.m3u8", Outcome::Done, now);
        assert!(spool.is_empty() && spool.bytes() == 0);
    }

    #[test]
    fn what_is_held_is_removed_later_and_bounded() {
        let (mut spool, now) = (Spool::default(), Instant::now());
        for n in 0..4 {
            spool.add(file(Kind::Segment, &n.to_string(), n));
        }
        let root = Path::new(ROOT);
        assert!(!spool.hold(root, "x"));
        for n in ["0", "1", "2"] {
            assert!(spool.hold(root, n) && spool.hold(root, n));
        }
        assert!(spool.give_up(30).is_none() && spool.give_up(0).is_none());
        assert_eq!(spool.give_up(25).map(|file| file.path.to_string()), Some("0".into()));
        assert!(spool.give_up(25).is_none());
        assert_eq!(names(&mut spool, now), ["1", "2", "3"]);
        assert!(spool.give_up(1).is_none(), "all are in flight");
        assert!(!spool.drop_file(root, "1"));
        let removed = spool.done(root, "1", Outcome::Done, now);
        assert_eq!(removed.map(|file| file.path.to_string()), Some("1".into()));
        assert!(spool.done(root, "3", Outcome::Done, now).is_none(), "nobody let it go");
        spool.done(root, "2", Outcome::Failed, now);
        assert!(spool.drop_file(root, "2") && !spool.drop_file(root, "2"));
        assert_eq!((spool.len(), spool.bytes()), (0, 0));
    }

    #[test]
    fn what_does_not_fit_waits_on_disk() {
        let (mut spool, now) = (Spool::default(), Instant::now());
        let most = limits::UPLOADS_WAITING_MAX;
        for n in 0..most {
            assert!(spool.add(recording(&n.to_string(), n as i64)));
        }
        assert!(!spool.add(recording("more", 0)));
        assert!(spool.overflowed && !spool.wants_scan());
        let mut left = most;
        while left > most / 2 {
            let file = spool.take(now).unwrap();
            spool.done(Path::new(ROOT), &file.path, Outcome::Done, now);
            left -= 1;
        }
        assert!(spool.wants_scan() && !spool.wants_scan());
    }
}

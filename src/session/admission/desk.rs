//! The desk: where shards leave notes for the control thread about clients it decides on.

use std::fmt;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use crossbeam::queue::{ArrayQueue, SegQueue};
use uring::Conn;

use super::Visitor;
use crate::config::Action;
use crate::hub::Reason;
use crate::hub::segments::Segment;
use crate::limits::{HOOK_CASES_MAX, SEGMENT_FILES_WAITING, SEGMENT_NOTES_WAITING, VOD_ASKS_MAX};
use crate::media::name::StreamName;
use crate::remux::{Client, Stream};
use crate::session::SessionId;
use crate::session::vod::Ask;

/// A segment that is to be on disk: as what, whose, and which.
pub type FileToWrite = (SegmentFile, Arc<Stream>, Arc<Segment>);

/// As what a segment is written to disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SegmentFile {
    /// A segment of HLS.
    Hls,
    /// Segments of its tracks, for DASH.
    Dash,
}

/// What was decided about a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It may.
    Granted,
    /// It may not.
    Refused {
        /// What to count.
        reason: Reason,
        /// What to log.
        detail: Box<str>,
    },
}

/// One client's wish to publish or play, for as long as somebody has to be told about it.
#[derive(Debug)]
pub struct Case {
    /// The session.
    pub id: SessionId,
    /// Its address, for hooks.
    pub ip: IpAddr,
    /// What it wants.
    pub action: Action,
    /// The stream.
    pub name: StreamName,
    /// Parameters of the stream, with their question mark.
    pub param: Box<str>,
    /// The URL of the app.
    pub tc_url: Box<str>,
    /// The page it says it is on.
    pub page_url: Box<str>,
    /// True when hooks are told of the connection, too.
    pub connects: bool,
    /// A token that has to be a good JWT.
    pub jwt: Option<Box<str>>,
    /// Where the session is.
    pub shard: usize,
    /// Its connection there.
    pub conn: Conn,
    verdict: OnceLock<Verdict>,
    left: AtomicBool,
    _permit: Permit,
}

impl Case {
    pub(super) fn new(
        permit: Permit,
        visitor: &Visitor<'_>,
        action: Action,
        ip: IpAddr,
        jwt: Option<Box<str>>,
        (shard, conn): (usize, Conn),
    ) -> Case {
        Case {
            id: visitor.id,
            ip,
            action,
            name: visitor.name.clone(),
            param: visitor.urls.param().into(),
            tc_url: visitor.urls.tc_url().into(),
            page_url: visitor.urls.page_url().into(),
            connects: visitor.connects,
            jwt,
            shard,
            conn,
            verdict: OnceLock::new(),
            left: AtomicBool::new(false),
            _permit: permit,
        }
    }

    /// Says what was decided; only the first word counts.
    pub fn decide(&self, verdict: Verdict) {
        let _ = self.verdict.set(verdict);
    }

    /// What was decided.
    pub fn verdict(&self) -> Option<&Verdict> {
        self.verdict.get()
    }

    /// Notes that the client does not want it any more.
    pub(super) fn leave(&self) {
        self.left.store(true, Ordering::Release);
    }

    /// True when the client does not want it any more.
    pub fn has_left(&self) -> bool {
        self.left.load(Ordering::Acquire)
    }
}

/// What the control thread is told. The notes about one session come in their order.
#[derive(Debug)]
pub enum Note {
    /// Somebody waits for a verdict.
    Asked(Arc<Case>),
    /// It is over, or the client left before it was decided.
    Ended(Arc<Case>),
    /// The connection is gone.
    Closed {
        /// The last case of the connection.
        case: Arc<Case>,
        /// Bytes received on it.
        bytes_in: u64,
        /// Bytes sent on it.
        bytes_out: u64,
    },
}

impl Note {
    /// The case it is about.
    pub fn case(&self) -> &Arc<Case> {
        match self {
            Note::Asked(case) | Note::Ended(case) | Note::Closed { case, .. } => case,
        }
    }
}

/// Notes on their way, and how many cases there are. A case has at most three notes, so the number
/// of cases bounds the queue.
#[derive(Default)]
pub struct Desk {
    notes: SegQueue<Note>,
    cases: Arc<AtomicUsize>,
    /// The control thread has been woken and has not looked yet.
    woken: AtomicBool,
    /// Segments that hooks are to be told of.
    segments: SegmentNotes,
    /// Segments that are to be written to disk.
    files: SegmentFiles,
    /// Recordings that are to be played from another place than their beginning.
    vod: VodAsks,
    waker: OnceLock<Box<dyn Fn() + Send + Sync>>,
}

/// The same for recordings.
struct VodAsks(ArrayQueue<Arc<Ask>>);

impl Default for VodAsks {
    fn default() -> Self {
        VodAsks(ArrayQueue::new(VOD_ASKS_MAX))
    }
}

/// A bounded queue.
struct SegmentNotes(ArrayQueue<(Arc<Client>, Arc<Segment>)>);

impl Default for SegmentNotes {
    fn default() -> Self {
        SegmentNotes(ArrayQueue::new(SEGMENT_NOTES_WAITING))
    }
}

/// The same for disks.
struct SegmentFiles(ArrayQueue<FileToWrite>);

impl Default for SegmentFiles {
    fn default() -> Self {
        SegmentFiles(ArrayQueue::new(SEGMENT_FILES_WAITING))
    }
}

/// The right to have a case open.
#[derive(Debug)]
pub(super) struct Permit(Arc<AtomicUsize>);

impl Drop for Permit {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Desk {
    /// Opens a case; `None` when there are [`HOOK_CASES_MAX`].
    pub(super) fn open(&self, make: impl FnOnce(Permit) -> Case) -> Option<Arc<Case>> {
        if self.cases.fetch_add(1, Ordering::Relaxed) >= HOOK_CASES_MAX {
            self.cases.fetch_sub(1, Ordering::Relaxed);
            return None;
        }
        Some(Arc::new(make(Permit(self.cases.clone()))))
    }

    /// Leaves a note.
    pub fn put(&self, note: Note) {
        self.notes.push(note);
        self.wake();
    }

    fn wake(&self) {
        // Once per look of the control thread: waking is a system call.
        if !self.woken.swap(true, Ordering::AcqRel)
            && let Some(wake) = self.waker.get()
        {
            wake();
        }
    }

    /// Leaves a note that a publisher's segment is complete. False when too many wait.
    pub fn tell_of_segment(&self, publisher: Arc<Client>, segment: Arc<Segment>) -> bool {
        let fits = self.segments.0.push((publisher, segment)).is_ok();
        self.wake();
        fits
    }

    /// Leaves a note that a segment is to be written to disk. False when too many wait.
    pub fn write_segment(&self, file: FileToWrite) -> bool {
        let fits = self.files.0.push(file).is_ok();
        self.wake();
        fits
    }

    /// Leaves a note that somebody waits to play a recording. False when too many wait.
    pub fn ask_vod(&self, ask: Arc<Ask>) -> bool {
        let fits = self.vod.0.push(ask).is_ok();
        self.wake();
        fits
    }

    /// The next who waits to play a recording.
    pub fn take_vod(&self) -> Option<Arc<Ask>> {
        self.vod.0.pop()
    }

    /// The next segment that is to be written, and its stream.
    pub fn take_file(&self) -> Option<FileToWrite> {
        self.files.0.pop()
    }

    /// The next complete segment, and its publisher.
    pub fn take_segment(&self) -> Option<(Arc<Client>, Arc<Segment>)> {
        self.segments.0.pop()
    }

    /// The next note.
    pub fn take(&self) -> Option<Note> {
        self.notes.pop()
    }

    /// True when there is no note.
    pub fn is_empty(&self) -> bool {
        self.notes.is_empty()
    }

    /// Says that the control thread is about to look: notes that come from now on wake it again.
    pub fn look(&self) {
        self.woken.store(false, Ordering::SeqCst);
    }

    /// How the control thread is woken; said once.
    pub fn set_waker(&self, waker: impl Fn() + Send + Sync + 'static) {
        let _ = self.waker.set(Box::new(waker));
        // Somebody may have left a note before there was anybody to wake.
        if self.woken.load(Ordering::Acquire)
            && let Some(wake) = self.waker.get()
        {
            wake();
        }
    }

    /// Cases that are open: clients that hooks know of, and ends that are not delivered yet.
    pub fn cases(&self) -> usize {
        self.cases.load(Ordering::Relaxed)
    }
}

impl fmt::Debug for Desk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Desk").field("cases", &self.cases()).finish_non_exhaustive()
    }
}

#[cfg(test)]
impl Desk {
    /// Leaves room for so many more cases.
    pub(in crate::session) fn leave_room_for(&self, cases: usize) {
        self.cases.store(HOOK_CASES_MAX - cases, Ordering::Relaxed);
    }
}

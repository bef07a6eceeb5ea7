//! Upload of recordings and segments to a store that speaks S3 (`vhost.upload`).
//!
//! Everything is on disk and whole before it is uploaded, so the disk is the queue: what waits is a
//! list made from it (`spool`, `scan`), and what the store does not take stays where it is and is
//! tried again. The work has a thread of its own, behind the shards and behind the rest of the
//! control side: encryption and hashing of large files would hold up the API.

mod scan;
mod spool;
mod store;

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, UNIX_EPOCH};

use rustix::fs::{AtFlags, Mode, OFlags};
use serde_json::{Value, json};
use tokio::sync::{Notify, mpsc};

use super::disk::{DiskFault, open_beneath};
use super::hooks::grumble::Grumble;
use super::wall_ms;
use crate::config::{Config, Current, Upload, Vhost};
use crate::hub::{Counters, Reason};
use crate::limits;
use scan::Wanted;
use spool::{Outcome, Spool};
use store::{Store, UploadError};

pub use spool::{File, Kind};

/// What is uploaded, what waits, and what becomes of it; shared by who writes files, the thread
/// that uploads, and who looks.
#[derive(Debug, Default)]
pub struct Uploads {
    vhosts: Mutex<BTreeMap<String, State>>,
    news: Notify,
    stop: AtomicBool,
}

/// What is known of one vhost.
#[derive(Debug, Default)]
struct State {
    spool: Spool,
    /// It cannot work as configured.
    refused: bool,
    /// What was last wrong; empty when nothing is.
    detail: String,
    files: u64,
    bytes: u64,
    failed: u64,
    given_up: u64,
}

/// What becomes of the uploads of a vhost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Summary {
    /// The vhost.
    pub vhost: String,
    /// "idle", "uploading", "failing" or "refused".
    pub state: &'static str,
    /// Files that wait, with those that are being uploaded.
    pub waiting: u64,
    /// Bytes of them.
    pub waiting_bytes: u64,
    /// When the oldest of them was written, ms since 1970.
    pub oldest_ms: Option<i64>,
    /// Time until the next attempt, ms, while attempts fail.
    pub retry_ms: Option<u64>,
    /// Files uploaded since the start.
    pub files: u64,
    /// Bytes of them.
    pub bytes: u64,
    /// Attempts that failed since the start.
    pub failed: u64,
    /// Files that are not uploaded any more.
    pub given_up: u64,
    /// What is wrong; empty when nothing is.
    pub detail: String,
}

impl Summary {
    /// True while nothing is uploaded although something should be.
    pub fn is_failure(&self) -> bool {
        matches!(self.state, "failing" | "refused")
    }

    /// As the API tells it.
    pub fn json(&self, now_ms: i64) -> Value {
        let detail = Some(&self.detail).filter(|detail| !detail.is_empty());
        json!({
            "vhost": self.vhost,
            "state": self.state,
            "waiting": self.waiting,
            "waiting_bytes": self.waiting_bytes,
            "oldest_ms": self.oldest_ms.map(|at| (now_ms - at).max(0)),
            "retry_ms": self.retry_ms,
            "files": self.files,
            "bytes": self.bytes,
            "failed": self.failed,
            "given_up": self.given_up,
            "detail": detail,
        })
    }
}

impl Uploads {
    /// A file is whole on disk. It is uploaded if the vhost wants that.
    pub fn note(&self, vhost: &str, upload: &Upload, new: NewFile<'_>) {
        let wanted = match new.kind {
            Kind::Recording => upload.recordings,
            Kind::Segment | Kind::Playlist => upload.segments,
        };
        if !upload.enabled || !wanted {
            return;
        }
        let file = File {
            kind: new.kind,
            stream: new.stream.into(),
            root: new.root.into(),
            path: new.path.into(),
            bytes: new.bytes,
            written_ms: wall_ms(),
            found: false,
            remove: false,
        };
        // What does not fit is found on disk later.
        self.vhosts().entry(vhost.to_owned()).or_default().spool.add(file);
        self.news.notify_one();
    }

    /// Nobody else needs a file any more. True: it waits for its upload and is removed after it.
    pub fn hold(&self, vhost: &str, root: &Path, path: &str) -> bool {
        self.vhosts().get_mut(vhost).is_some_and(|state| state.spool.hold(root, path))
    }

    /// A file is removed from the disk. True when it had still waited.
    pub fn removed(&self, vhost: &str, root: &Path, path: &str) -> bool {
        let mut vhosts = self.vhosts();
        let Some(state) = vhosts.get_mut(vhost) else { return false };
        let waited = state.spool.drop_file(root, path);
        state.given_up += u64::from(waited);
        waited
    }

    /// How it stands, by vhosts.
    pub fn summaries(&self) -> Vec<Summary> {
        let now = Instant::now();
        let vhosts = self.vhosts();
        let summary = |(vhost, state): (&String, &State)| {
            let spool = &state.spool;
            Summary {
                vhost: vhost.clone(),
                state: match () {
                    () if state.refused => "refused",
                    () if spool.is_failing() => "failing",
                    () if spool.is_empty() => "idle",
                    () => "uploading",
                },
                waiting: spool.len() as u64,
                waiting_bytes: spool.bytes(),
                oldest_ms: spool.oldest_ms(),
                retry_ms: spool.pause(now).map(|pause| pause.as_millis() as u64),
                files: state.files,
                bytes: state.bytes,
                failed: state.failed,
                given_up: state.given_up,
                detail: state.detail.clone(),
            }
        };
        vhosts.iter().map(summary).collect()
    }

    fn vhosts(&self) -> MutexGuard<'_, BTreeMap<String, State>> {
        // A panic while it is held leaves at worst a file to the next look at the disk.
        self.vhosts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// No more uploads are begun.
    pub fn stop(&self) {
        self.stop.store(true, Relaxed);
        self.news.notify_one();
    }
}

/// A file that is whole.
#[derive(Debug)]
pub struct NewFile<'a> {
    /// What it is.
    pub kind: Kind,
    /// The stream it is of.
    pub stream: &'a str,
    /// The configured folder it is below.
    pub root: &'a Path,
    /// Its path below that.
    pub path: &'a str,
    /// Bytes.
    pub bytes: u64,
}

/// Starts the thread. It ends after [`Uploads::stop`].
///
/// # Errors
/// There is no thread to be had.
pub fn start(
    uploads: Arc<Uploads>,
    config: Arc<Current>,
    counters: Arc<Counters>,
) -> io::Result<JoinHandle<()>> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(2 * limits::UPLOADS_AT_A_TIME)
        .build()?;
    std::thread::Builder::new().name("uploads".into()).spawn(move || {
        let _ = rustix::process::nice(NICE);
        let (done, ended) = mpsc::channel(limits::UPLOAD_ANSWERS_WAITING);
        let started_ms = wall_ms();
        let (grumble, lanes) = Default::default();
        let mut uploader = Uploader { uploads, counters, grumble, lanes, done, started_ms };
        runtime.block_on(uploader.run(&config, ended));
        // A disk that hangs does not hang the end of the server.
        runtime.shutdown_timeout(Duration::from_millis(100));
    })
}

/// How much later than the shards this thread gets its turn on a busy machine.
const NICE: i32 = 10;
/// Time between two looks at what waits.
const LOOK: Duration = Duration::from_millis(500);
/// Time between two looks at the disk, where marks tell what is uploaded.
const SCAN: Duration = Duration::from_secs(600);

struct Uploader {
    uploads: Arc<Uploads>,
    counters: Arc<Counters>,
    grumble: Grumble,
    lanes: HashMap<String, Lane>,
    done: mpsc::Sender<Done>,
    started_ms: i64,
}

/// What the thread itself keeps of a vhost.
struct Lane {
    vhost: Vhost,
    wanted: Arc<Wanted>,
    store: Result<Store, Instant>,
    /// When the disk was last looked at.
    scanned: Option<Instant>,
    scanning: bool,
    /// The disk keeps no marks: it is looked at once only.
    markless: bool,
}

/// Something has ended.
enum Done {
    Scanned { vhost: String, files: Vec<File>, more: bool },
    Uploaded { vhost: String, file: File, result: Result<Taken, UploadError> },
}

/// What became of a file.
enum Taken {
    /// It is uploaded; how many bytes, and whether its disk keeps marks.
    Yes { bytes: u64, marked: bool },
    /// The store has had it already.
    Before,
    /// It is not there any more.
    Gone,
    /// It is a playlist that segments go before.
    Later,
}

impl Uploader {
    async fn run(&mut self, current: &Current, mut ended: mpsc::Receiver<Done>) {
        while !self.uploads.stop.load(Relaxed) {
            self.look(&current.load());
            let uploads = self.uploads.clone();
            tokio::select! {
                done = ended.recv() => self.settle(done),
                () = uploads.news.notified() => {}
                () = tokio::time::sleep(LOOK) => {}
            }
            while let Ok(done) = ended.try_recv() {
                self.settle(Some(done));
            }
        }
        let until = Instant::now() + Duration::from_millis(limits::UPLOAD_STOP_MS);
        let uploads = self.uploads.clone();
        let in_flight = || uploads.vhosts().values().any(|s| s.spool.in_flight() > 0);
        while in_flight() {
            let left = until.saturating_duration_since(Instant::now());
            match tokio::time::timeout(left, ended.recv()).await {
                Ok(done) => self.settle(done),
                Err(_) => return,
            }
        }
    }

    /// Begins what can be begun.
    fn look(&mut self, config: &Config) {
        let mut seen = Vec::new();
        for (name, vhost) in config.all_vhosts().filter(|(_, vhost)| vhost.upload.enabled) {
            seen.push(name);
            let same = |lane: &Lane| {
                let old = &lane.vhost;
                (&old.upload, &old.dvr, &old.hls, &old.dash)
                    == (&vhost.upload, &vhost.dvr, &vhost.hls, &vhost.dash)
            };
            if !self.lanes.get(name).is_some_and(same) {
                let lane = self.open(name, vhost);
                self.lanes.insert(name.to_owned(), lane);
            }
            self.work(name);
        }
        self.lanes.retain(|name, _| seen.contains(&name.as_str()));
        // What is not wanted any more stays on disk.
        self.uploads.vhosts().retain(|name, _| seen.contains(&name.as_str()));
    }

    fn open(&self, name: &str, vhost: &Vhost) -> Lane {
        Lane {
            store: self.access(name, &vhost.upload),
            wanted: Arc::new(Wanted::new(name, vhost)),
            vhost: vhost.clone(),
            scanned: None,
            scanning: false,
            markless: false,
        }
    }

    fn access(&self, name: &str, upload: &Upload) -> Result<Store, Instant> {
        let opened = Store::open(upload);
        let mut vhosts = self.uploads.vhosts();
        let state = vhosts.entry(name.to_owned()).or_default();
        state.refused = opened.is_err();
        match opened {
            Ok(store) => Ok(store),
            Err(why) => {
                state.detail = why.to_string();
                self.complain(name, &why.to_string());
                Err(Instant::now())
            }
        }
    }

    fn complain(&self, vhost: &str, why: &str) {
        self.counters.count(Reason::UploadFailed);
        self.grumble.say(vhost, |more| {
            let reason = Reason::UploadFailed.name();
            tracing::warn!(reason, vhost, more, "files wait on disk for their upload: {why}");
        });
    }

    fn work(&mut self, name: &str) {
        let Some(lane) = self.lanes.get(name) else { return };
        let retry = Duration::from_millis(limits::UPLOAD_RETRY_MS_MAX);
        let store = match &lane.store {
            Ok(store) => store.clone(),
            Err(at) if at.elapsed() < retry => return,
            // The file with the access key may be there by now.
            Err(_) => {
                let store = self.access(name, &lane.vhost.upload.clone());
                if let Some(lane) = self.lanes.get_mut(name) {
                    lane.store = store;
                }
                return;
            }
        };
        let (wanted, upload) = (lane.wanted.clone(), lane.vhost.upload.clone());
        self.scan(name);
        loop {
            let mut vhosts = self.uploads.vhosts();
            let state = vhosts.entry(name.to_owned()).or_default();
            if let Some(file) = state.spool.give_up(upload.held_bytes) {
                state.given_up += 1;
                drop(vhosts);
                self.give_up(name, &file, "segments that wait take more than upload.held_bytes");
                tokio::task::spawn_blocking(move || remove(&file));
                continue;
            }
            let Some(file) = state.spool.take(Instant::now()) else { return };
            drop(vhosts);
            let job = Job {
                store: store.clone(),
                wanted: wanted.clone(),
                key: format!("{}{}", scan::prefix(&upload, name), file.path),
                uploads: self.uploads.clone(),
                vhost: name.to_owned(),
                delete: upload.delete_after_upload && file.kind == Kind::Recording,
                file,
            };
            let done = self.done.clone();
            tokio::spawn(async move {
                let result = job.run().await;
                let Job { vhost, file, .. } = job;
                // Who has gone needs no answer.
                let _ = done.send(Done::Uploaded { vhost, file, result }).await;
            });
        }
    }

    /// Has the disk looked at, if it is time.
    fn scan(&mut self, name: &str) {
        let Some(lane) = self.lanes.get_mut(name) else { return };
        let again = self.uploads.vhosts().get_mut(name).is_some_and(|s| s.spool.wants_scan());
        let old = |at: Instant| at.elapsed() > SCAN && !lane.markless;
        if lane.scanning || !(again || lane.scanned.is_none_or(old)) {
            return;
        }
        (lane.scanning, lane.scanned) = (true, Some(Instant::now()));
        let (wanted, done, vhost) = (lane.wanted.clone(), self.done.clone(), name.to_owned());
        let started_ms = self.started_ms;
        tokio::task::spawn_blocking(move || {
            let (files, more) = scan::scan(&wanted, started_ms);
            let _ = done.blocking_send(Done::Scanned { vhost, files, more });
        });
    }

    fn settle(&mut self, done: Option<Done>) {
        match done {
            Some(Done::Scanned { vhost, files, more }) => {
                let Some(lane) = self.lanes.get_mut(&vhost) else { return };
                lane.scanning = false;
                let mut vhosts = self.uploads.vhosts();
                let spool = &mut vhosts.entry(vhost.clone()).or_default().spool;
                let count = files.len();
                let fit = files.into_iter().all(|file| spool.add(file));
                spool.overflowed |= more || !fit;
                drop(vhosts);
                if count > 0 {
                    tracing::info!(vhost, files = count, "found on disk, to be uploaded");
                }
            }
            Some(Done::Uploaded { vhost, file, result }) => self.uploaded(&vhost, &file, result),
            None => {}
        }
    }

    fn uploaded(&mut self, vhost: &str, file: &File, result: Result<Taken, UploadError>) {
        let outcome = match &result {
            Ok(Taken::Later) => Outcome::Later,
            Ok(_) => Outcome::Done,
            Err(UploadError::Unreadable(_) | UploadError::TooLarge(_)) => Outcome::Unusable,
            Err(_) => Outcome::Failed,
        };
        let mut vhosts = self.uploads.vhosts();
        let Some(state) = vhosts.get_mut(vhost) else { return };
        let was_failing = state.spool.is_failing();
        let removable = state.spool.done(&file.root, &file.path, outcome, Instant::now());
        match &result {
            Ok(Taken::Yes { bytes, .. }) => {
                state.files += 1;
                state.bytes += bytes;
            }
            Ok(_) => {}
            Err(_) if outcome == Outcome::Failed => state.failed += 1,
            Err(_) => state.given_up += 1,
        }
        if let Err(why) = &result {
            state.detail = format!("{}: {why}", file.path);
        } else if outcome == Outcome::Done {
            state.detail.clear();
        }
        drop(vhosts);
        if let Some(file) = removable {
            tokio::task::spawn_blocking(move || remove(&file));
        }
        match result {
            Ok(taken) => {
                if was_failing && outcome == Outcome::Done {
                    tracing::info!(vhost, "uploads go on");
                }
                if let (Taken::Yes { bytes, marked }, Some(lane)) =
                    (taken, self.lanes.get_mut(vhost))
                {
                    lane.markless |= !marked;
                    tracing::debug!(vhost, file = %file.path, bytes, "uploaded");
                }
            }
            Err(why) if outcome == Outcome::Unusable => {
                self.give_up(vhost, file, &why.to_string());
            }
            Err(why) => {
                self.complain(vhost, &format!("{}: {why}", file.path));
                // Perhaps there is another access key by now.
                if let (UploadError::Denied(_), Some(lane)) = (why, self.lanes.get_mut(vhost))
                    && let Ok(store) = Store::open(&lane.vhost.upload)
                {
                    lane.store = Ok(store);
                }
            }
        }
    }

    fn give_up(&self, vhost: &str, file: &File, why: &str) {
        self.counters.count(Reason::UploadGivenUp);
        let reason = Reason::UploadGivenUp.name();
        tracing::warn!(reason, vhost, file = %file.path, "it is not uploaded: {why}");
    }
}

/// One file on its way.
struct Job {
    store: Store,
    wanted: Arc<Wanted>,
    key: String,
    uploads: Arc<Uploads>,
    vhost: String,
    delete: bool,
    file: File,
}

impl Job {
    async fn run(&self) -> Result<Taken, UploadError> {
        let file = self.file.clone();
        let opened = tokio::task::spawn_blocking(move || open(&file)).await;
        let disk_file = match opened.unwrap_or_else(|why| Err(io::Error::other(why).into())) {
            Ok(file) => Arc::new(file),
            Err(DiskFault::Missing) => return Ok(Taken::Gone),
            Err(why) => return Err(UploadError::Unreadable(io::Error::other(why))),
        };
        let about = disk_file.metadata().map_err(UploadError::Unreadable)?;
        let len = about.len();
        let key = object_store::path::Path::from(self.key.as_str());
        let written = about.modified().unwrap_or(UNIX_EPOCH);
        let before = self.file.found && self.store.has(&key, len, written).await;
        if !before {
            // Looked at after the file was opened: what it names was noted before it was written.
            if self.uploads.has_to_wait(&self.vhost, &self.file) {
                return Ok(Taken::Later);
            }
            self.store.put(&key, disk_file.clone(), len).await?;
        }
        let (wanted, delete, file) = (self.wanted.clone(), self.delete, self.file.clone());
        let finished = tokio::task::spawn_blocking(move || {
            // What was written to meanwhile has no mark, and stays.
            let now = disk_file.metadata().ok();
            let same = now.is_some_and(|now| {
                (now.len(), now.modified().ok()) == (about.len(), about.modified().ok())
            });
            if same && delete {
                remove(&file);
                return true;
            }
            !same || scan::mark(&disk_file, &about, &wanted.to)
        });
        let marked = finished.await.unwrap_or(true);
        Ok(if before { Taken::Before } else { Taken::Yes { bytes: len, marked } })
    }
}

impl Uploads {
    fn has_to_wait(&self, vhost: &str, file: &File) -> bool {
        self.vhosts().get(vhost).is_some_and(|state| state.spool.has_to_wait(file))
    }
}

fn folder(root: &Path) -> Result<OwnedFd, DiskFault> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok(rustix::fs::open(root, flags, Mode::empty())?)
}

fn open(file: &File) -> Result<std::fs::File, DiskFault> {
    let opened = open_beneath(folder(&file.root)?, &file.path, OFlags::RDONLY)?;
    Ok(opened.into())
}

/// Removes a file below its root; whether it could is of no consequence here.
fn remove(file: &File) {
    let (below, name) = file.path.rsplit_once('/').unwrap_or((".", &file.path));
    let flags = OFlags::RDONLY | OFlags::DIRECTORY;
    let parent = folder(&file.root).and_then(|root| open_beneath(root, below, flags));
    if let Ok(parent) = parent {
        let _ = rustix::fs::unlinkat(parent, name, AtFlags::empty());
    }
}

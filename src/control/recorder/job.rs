//! One stream's recording: follows its feed, writes files, and bears what disks do.

use std::cell::Cell;
use std::path::Path;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use tokio::sync::Semaphore;

use super::follow::{Follower, Message, Pieces};
use super::packing::{Headers, Packing, Plan, Put, earliest, newest_init};
use super::path::Template;
use super::{Parts, recover};
use crate::config::{Dvr, DvrPlan, TimeJitter};
use crate::control::disk::{DiskFault, NewFile, Root};
use crate::control::hooks::body::Happening;
use crate::control::upload::{self, Kind};
use crate::control::wall_ms;
use crate::hub::{Flags, Format, Join, Reason, Recording, RecordingState};
use crate::limits;
use crate::remux::Stream;

/// A recording that runs.
pub(super) struct Job {
    pub parts: Rc<Parts>,
    pub stream: Arc<Stream>,
    pub recording: Arc<Recording>,
    pub dvr: Dvr,
    pub template: Template,
    pub about: Happening,
    pub stop: Rc<Cell<bool>>,
    pub closing: Arc<Semaphore>,
    pub root: Option<Root>,
    pub headers: Headers,
    pub open: Option<Open>,
    /// Messages that a file is to be begun with.
    pub pending: Vec<Message>,
    /// Nothing is written before a keyframe has come.
    pub wait: bool,
    /// What newcomers were told where it went on after a gap.
    pub rejoined: Option<Arc<Join>>,
    /// Pictures are missing up to the next keyframe.
    pub lost: bool,
    /// Part of the backlog of all recordings that is this one's, bytes.
    pub backlog: u64,
}

/// A file that is being written.
pub(super) struct Open {
    file: NewFile,
    packing: Packing,
    /// Stream time of its first message, ms.
    began: i64,
    /// Up to here all of it is there.
    good: u64,
    has_video: bool,
    has_key: bool,
    /// So many messages that come first are older than the file's description of the tracks.
    old: usize,
}

const LOOK: Duration = Duration::from_millis(limits::RECORD_LOOK_MS);

impl Job {
    /// Records until the feed ends or it is told to stop.
    pub(super) async fn run(mut self) {
        if let Some(mut follower) = self.join().await {
            self.record(&mut follower).await;
            drop(follower);
            self.close_file().await;
        }
        self.set_backlog(0);
        // Whoever looks at the stream next finds no recording any more.
        let same = |now: Arc<Recording>| Arc::ptr_eq(&now, &self.recording);
        if self.stream.recording().is_some_and(same) {
            self.stream.set_recording(None);
        }
        // All files are whole then, or have failed.
        let _ = self.closing.acquire_many(limits::RECORD_CLOSING_MAX as u32).await;
    }

    /// Waits for the stream's feed. `None`: there will be none.
    async fn join(&mut self) -> Option<Follower> {
        let format = self.template.format();
        let mut absent = 0;
        while !self.stop.get() {
            match self.stream.feed(format) {
                Some(feed) if feed.refused() => {
                    let why = format!("its codecs have no place in {}", format.name());
                    self.refuse(&why);
                    self.stream.want(format);
                }
                Some(feed) if feed.ended() => return None,
                Some(feed) => {
                    if let Some((follower, entrance)) = Follower::new(&feed) {
                        let join = &entrance.join;
                        self.headers.learn(format, &join.prologue, join.messages_at);
                        self.wait = !follower.is_at_beginning();
                        return Some(follower);
                    }
                }
                None => {
                    self.stream.want(format);
                    match self.stream.home() {
                        Some(home) => (self.parts.ask_for_feed)(home, self.stream.id),
                        None => absent += 1,
                    }
                    if absent > 20 {
                        return None;
                    }
                }
            }
            tokio::time::sleep(LOOK).await;
        }
        None
    }

    async fn record(&mut self, follower: &mut Follower) {
        loop {
            // Before the last look, so that nothing can come after it.
            let over = self.stop.get() || follower.feed().ended();
            // SRS: a file for each publish. What a publisher that comes back sends is in another.
            let left = self.dvr.dvr_plan != DvrPlan::Append && !self.stream.is_published();
            follower.refresh();
            if let Err(why) = self.write_what_is_there(follower, over || left).await {
                self.fail(&why).await;
                if over {
                    return;
                }
                self.wait_for_disk(follower).await;
                continue;
            }
            if over {
                return;
            }
            if left {
                self.close_file().await;
                self.wait = true;
            }
            self.look_at_backlog(follower);
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Writes until nothing is left that could be written.
    async fn write_what_is_there(
        &mut self,
        follower: &mut Follower,
        over: bool,
    ) -> Result<(), DiskFault> {
        loop {
            self.go_on_after_gap().await;
            if self.open.is_none() {
                while !self.can_begin() {
                    match self.next(follower) {
                        Some(message) => self.keep(message),
                        None => break,
                    }
                }
                if self.pending.is_empty() || !(over || self.can_begin()) {
                    return Ok(());
                }
                self.begin(follower).await?;
                continue;
            }
            let (mut pieces, mut cut) = (Pieces::default(), None);
            while pieces.len() < limits::RECORD_WRITE_BYTES {
                let Some(message) = self.next(follower) else { break };
                if self.is_due(&message) || !self.put(&message, &mut pieces) {
                    cut = Some(message);
                    break;
                }
            }
            let idle = pieces.len() == 0 && cut.is_none();
            self.write(follower, pieces).await?;
            if let Some(message) = cut {
                self.close_file().await;
                self.keep(message);
            }
            if idle {
                return Ok(());
            }
        }
    }

    /// After a gap the stream may have other headers, for which another file has to be begun.
    async fn go_on_after_gap(&mut self) {
        if std::mem::take(&mut self.lost) {
            self.wait = true;
            if let Some(open) = &mut self.open {
                open.has_key = false;
            }
        }
        let Some(join) = self.rejoined.take() else { return };
        let format = self.template.format();
        let mut now = Headers::default();
        now.learn(format, &join.prologue, join.messages_at);
        if self.headers.differ(format, &now) {
            self.close_file().await;
        }
        if self.open.is_none() {
            self.headers = now;
        }
    }

    fn next(&mut self, follower: &mut Follower) -> Option<Message> {
        match follower.next() {
            Ok(message) => message,
            Err(_gone) => {
                self.skip(follower, "its blocks were gone");
                None
            }
        }
    }

    /// Holds a message for the beginning of a file.
    fn keep(&mut self, message: Message) {
        let flags = message.flags;
        let header = !message.is_frame();
        let key = flags.has(Flags::KEYFRAME);
        if self.wait && !key && !header {
            let video = self.stream.tracks().is_some_and(|tracks| tracks.video_track.is_some());
            if video {
                return;
            }
        }
        // No decoder can begin with such a picture.
        let orphan = flags.has(Flags::VIDEO) && !key && !header;
        let keyed = self.pending.iter().any(|message| message.flags.has(Flags::KEYFRAME));
        if orphan && !keyed && (self.wait || self.dvr.dvr_wait_keyframe) {
            return;
        }
        self.wait &= !key;
        self.pending.push(message);
    }

    /// True when enough of a file's beginning is there to know its earliest time.
    fn can_begin(&self) -> bool {
        let mut frames = self.pending.iter().filter(|message| message.is_frame());
        let (first, last) = (frames.clone().next(), frames.next_back());
        let span = first.zip(last).map_or(0, |(first, last)| last.time - first.time);
        span >= limits::RECORD_BEGIN_MS
    }

    async fn begin(&mut self, follower: &mut Follower) -> Result<(), DiskFault> {
        let disk = self.parts.disk.clone();
        let root = match &self.root {
            Some(root) => root.clone(),
            None => self.root.insert(disk.root(self.template.root()).await?).clone(),
        };
        let path = self.template.fill(&self.stream.name, wall_ms());
        let plan = Plan {
            format: self.template.format(),
            rebased: self.dvr.time_jitter != TimeJitter::Off,
            whole: !self.dvr.fragmented,
            duration_ms: (self.dvr.dvr_plan == DvrPlan::Segment)
                .then_some(self.dvr.dvr_duration.as_millis() as i64),
        };
        let appends = self.dvr.dvr_plan == DvrPlan::Append;
        let opening = async {
            match appends {
                true => disk.append(&root, &path).await,
                false => disk.create(&root, &path).await,
            }
        };
        let mut file = self.patiently(follower, opening).await?;
        let mut pieces = Pieces::default();
        let first = std::mem::take(&mut self.pending);
        let packing = match file.is_empty() {
            true => Packing::begin(plan, &self.headers, &first, &mut pieces),
            false => self.go_on(&mut file, plan.format, &first, &mut pieces).await?,
        };
        let Some(packing) = packing else {
            let _ = file.discard().await;
            self.refuse("it cannot be packed so");
            return Ok(());
        };
        if let Some(about) = self.parts.about(&self.stream) {
            self.about = about;
        }
        let began = earliest(&first);
        self.recording.set_file(&root.path().join(file.path()).to_string_lossy());
        tracing::info!(stream = %self.stream.name, file = %file.path(), "recording");
        let good = file.len();
        let (has_video, has_key) = (false, false);
        let old = newest_init(&first).unwrap_or(0);
        self.open = Some(Open { file, packing, began, good, has_video, has_key, old });
        let mut rest = first.into_iter();
        let mut left = None;
        for message in rest.by_ref() {
            if !self.put(&message, &mut pieces) {
                left = Some(message);
                break;
            }
        }
        self.write(follower, pieces).await?;
        if let Some(message) = left {
            self.close_file().await;
            self.pending = std::iter::once(message).chain(rest).collect();
        }
        Ok(())
    }

    /// Finds the place in a file that is there already.
    async fn go_on(
        &self,
        file: &mut NewFile,
        format: Format,
        first: &[Message],
        pieces: &mut Pieces,
    ) -> Result<Option<Packing>, DiskFault> {
        let failed = |why: recover::RecoverError| DiskFault::Failed(why.to_string().into());
        if format == Format::Ts {
            file.truncate(file.len() / 188 * 188).await?;
            return Ok(Packing::begin(
                Plan { format, rebased: false, whole: false, duration_ms: None },
                &self.headers,
                first,
                pieces,
            ));
        }
        let found = file.work(move |file| {
            let (found, len) = recover::scan_flv(&file).map_err(failed)?;
            file.set_len(len)?;
            Ok(found)
        });
        Ok(Some(Packing::go_on(found.await?, &self.headers, first, pieces)))
    }

    /// True when another file is to be begun with this message.
    fn is_due(&self, message: &Message) -> bool {
        let Some(open) = self.open.as_ref().filter(|_| self.dvr.dvr_plan == DvrPlan::Segment)
        else {
            return false;
        };
        let flags = message.flags;
        // Without pictures a file may begin with any frame; in MPEG-TS it needs tables before it.
        let begins = !open.has_video && (open.packing.is_self_contained(flags));
        let is_key = flags.has(Flags::KEYFRAME | Flags::VIDEO) || begins;
        message.is_frame()
            && (is_key || !self.dvr.dvr_wait_keyframe)
            && message.time - open.began >= self.dvr.dvr_duration.as_millis() as i64
    }

    /// Adds a message to the open file. False when it has to be in another.
    fn put(&mut self, message: &Message, pieces: &mut Pieces) -> bool {
        let Some(open) = &mut self.open else { return true };
        let flags = message.flags;
        let old = open.old > 0;
        open.old = open.old.saturating_sub(1);
        if flags.has(Flags::VIDEO) && !flags.has(Flags::SEQUENCE_HEADER) {
            let key = flags.has(Flags::KEYFRAME);
            if !key && !open.has_key && self.dvr.dvr_wait_keyframe {
                return true;
            }
            open.has_video = true;
            open.has_key |= key;
        }
        open.packing.put(&mut self.headers, message, old, open.good, pieces) == Put::Done
    }

    /// Waits for the disk, and looks after what comes meanwhile.
    async fn patiently<T>(&mut self, follower: &mut Follower, work: impl Future<Output = T>) -> T {
        let began = Instant::now();
        let mut work = pin!(work);
        loop {
            tokio::select! {
                biased;
                done = &mut work => return done,
                () = tokio::time::sleep(LOOK) => {
                    follower.refresh();
                    self.look_at_backlog(follower);
                    if began.elapsed() > Duration::from_millis(limits::DISK_SLOW_MS) {
                        self.recording.set_state(RecordingState::Slow);
                    }
                }
            }
        }
    }

    /// Writes pieces at the end of the open file; meanwhile what comes is looked after.
    async fn write(&mut self, follower: &mut Follower, pieces: Pieces) -> Result<(), DiskFault> {
        let Some(mut open) = self.open.take() else { return Ok(()) };
        if pieces.len() == 0 {
            self.open = Some(open);
            return Ok(());
        }
        let bytes = pieces.len() as u64;
        let result = self.patiently(follower, open.file.append(pieces.into_bytes())).await;
        if result.is_ok() {
            open.good = open.file.len();
            self.recording.bytes.fetch_add(bytes, Relaxed);
            let before = self.recording.state();
            if self.recording.set_state(RecordingState::Writing) && before.is_failure() {
                tracing::info!(stream = %self.stream.name, "recording goes on");
            }
        }
        self.open = Some(open);
        result
    }

    /// Goes on at the newest keyframe when there is too much to write.
    fn look_at_backlog(&mut self, follower: &mut Follower) {
        let (bytes, ms) = follower.backlog();
        self.set_backlog(bytes);
        let memory = self.parts.media_memory;
        let too_much = |bytes: u64, all: u64| {
            bytes > memory / limits::RECORD_BACKLOG_PART
                || (all > memory / limits::RECORD_BACKLOGS_PART && bytes > 0)
        };
        if too_much(bytes, self.parts.backlog.get()) || ms > limits::RECORD_LAG_MS_MAX {
            self.skip(follower, "the disk is slower than the stream");
            if too_much(self.backlog, self.parts.backlog.get()) {
                // There is no keyframe to go on at: the next one that comes is it.
                follower.drop_all();
                self.set_backlog(0);
                self.lost = true;
                self.recording.gaps.fetch_add(1, Relaxed);
                self.parts.counters.count(Reason::RecordSkipped);
            }
        }
    }

    fn skip(&mut self, follower: &mut Follower, why: &str) {
        let (_, before) = follower.backlog();
        let Some(entrance) = follower.skip() else { return follower.drop_all() };
        follower.refresh();
        let (bytes, after) = follower.backlog();
        self.set_backlog(bytes);
        if after >= before {
            return;
        }
        let lost_ms = (before - after) as u64;
        self.rejoined = Some(entrance.join);
        self.recording.gaps.fetch_add(1, Relaxed);
        self.recording.lost_ms.fetch_add(lost_ms, Relaxed);
        self.parts.counters.count(Reason::RecordSkipped);
        self.parts.grumble.say(self.stream.name.key(), |more| {
            let reason = Reason::RecordSkipped.name();
            tracing::warn!(reason, stream = %self.stream.name, lost_ms, more,
                "a recording has a gap: {why}");
        });
    }

    fn set_backlog(&mut self, bytes: u64) {
        let all = &self.parts.backlog;
        all.set(all.get() + bytes - self.backlog);
        self.backlog = bytes;
    }

    fn refuse(&self, why: &str) {
        self.recording.set_detail(why);
        if self.recording.set_state(RecordingState::Refused) {
            self.parts.counters.count(Reason::RecordRefused);
            tracing::warn!(reason = Reason::RecordRefused.name(), stream = %self.stream.name,
                "not recorded: {why}");
        }
    }

    /// The disk does not take it: closes what there is, as far as that is possible.
    async fn fail(&mut self, why: &DiskFault) {
        let (state, reason) = match why {
            DiskFault::Full => (RecordingState::Full, Reason::RecordDiskFull),
            _ => (RecordingState::Failing, Reason::RecordDiskFailed),
        };
        self.recording.set_detail(&why.to_string());
        self.parts.counters.count(reason);
        self.pending.clear();
        self.wait = true;
        if self.recording.set_state(state) {
            tracing::warn!(reason = reason.name(), stream = %self.stream.name,
                file = self.recording.file(), "recording stops until the disk takes it: {why}");
        }
        let Some(mut open) = self.open.take() else { return };
        self.recording.set_file("");
        if open.good == 0 {
            // Best effort: an empty file is no harm.
            let _ = open.file.discard().await;
            return;
        }
        // What was meant to be written is in the packing's tables but not in the file: it is made
        // whole from what is there.
        let good = open.good;
        let done = open.file.work(move |file| {
            file.set_len(good)?;
            if recover::make_whole(&file).is_err() {
                // No room for the index of an MP4 file: it can be played without.
                file.set_len(good)?;
            }
            Ok(())
        });
        match done.await {
            Ok(()) => self.closer().give_name(open.file).await,
            Err(why) => self.closer().left_behind(&open.file.path(), &why),
        }
    }

    /// Waits until the disk takes something again, or until it is over.
    async fn wait_for_disk(&mut self, follower: &mut Follower) {
        self.recording.gaps.fetch_add(1, Relaxed);
        let began = Instant::now();
        let mut pause = limits::RECORD_RETRY_MS;
        loop {
            let until = Instant::now() + Duration::from_millis(pause);
            while Instant::now() < until {
                follower.drop_all();
                if self.stop.get() || follower.feed().ended() {
                    return;
                }
                tokio::time::sleep(LOOK).await;
            }
            self.set_backlog(0);
            if self.probe().await {
                break;
            }
            pause = (pause * 2).min(limits::RECORD_RETRY_MS_MAX);
        }
        let lost_ms = began.elapsed().as_millis() as u64;
        self.recording.lost_ms.fetch_add(lost_ms, Relaxed);
        if let Some(entrance) = follower.skip() {
            let join = &entrance.join;
            self.headers.learn(self.template.format(), &join.prologue, join.messages_at);
        }
    }

    /// True when the disk takes a file of some size.
    async fn probe(&mut self) -> bool {
        let disk = self.parts.disk.clone();
        let tried = async {
            let root = disk.root(self.template.root()).await?;
            let mut file = disk.create(&root, PROBE).await?;
            let written = file.append(vec![vec![0; PROBE_BYTES].into()]).await;
            let _ = file.discard().await;
            written
        };
        tried.await.is_ok()
    }

    /// Finishes the open file, beside what is written next.
    async fn close_file(&mut self) {
        let Some(mut open) = self.open.take() else { return };
        self.recording.set_file("");
        let permit = self.closing.clone().acquire_owned().await;
        let closer = self.closer();
        tokio_uring::spawn(async move {
            let (tail, patches) = open.packing.finish(open.file.len());
            let whole = open.file.len();
            let result = async {
                if !tail.is_empty() && open.file.append(vec![tail.into()]).await.is_err() {
                    // It can be played without.
                    return open.file.truncate(whole).await;
                }
                for (at, bytes) in patches {
                    open.file.patch(at, bytes).await?;
                }
                Ok(())
            };
            match result.await {
                Ok(()) => closer.give_name(open.file).await,
                Err(why) => closer.left_behind(&open.file.path(), &why),
            }
            drop(permit);
        });
    }

    fn closer(&self) -> Closer {
        Closer {
            parts: self.parts.clone(),
            stream: self.stream.clone(),
            recording: self.recording.clone(),
            about: self.about.clone(),
            root: self.template.root().to_string_lossy().into_owned(),
        }
    }
}

/// A file by which is seen whether the disk takes something, and its bytes.
const PROBE: &str = ".ringcast-probe";
const PROBE_BYTES: usize = 256 << 10;

/// Finishes a file.
struct Closer {
    parts: Rc<Parts>,
    stream: Arc<Stream>,
    recording: Arc<Recording>,
    about: Happening,
    root: String,
}

impl Closer {
    async fn give_name(&self, file: NewFile) {
        let (path, bytes) = (file.path(), file.len());
        match file.finish().await {
            Ok(path) => {
                self.recording.files.fetch_add(1, Relaxed);
                self.parts.retention_due.set(true);
                tracing::info!(stream = %self.stream.name, file = %path, "recorded");
                self.upload(&path, bytes);
                self.tell(&path);
            }
            Err(why) => self.left_behind(&path, &why),
        }
    }

    fn left_behind(&self, path: &str, why: &DiskFault) {
        let reason = match why {
            DiskFault::Full => Reason::RecordDiskFull,
            _ => Reason::RecordDiskFailed,
        };
        self.recording.set_detail(&why.to_string());
        self.parts.counters.count(reason);
        tracing::warn!(reason = reason.name(), stream = %self.stream.name, file = path,
            "a recording stays as it is; see `ringcast recover`: {why}");
    }

    fn upload(&self, path: &str, bytes: u64) {
        let (config, name) = ((self.parts.config)(), &self.stream.name);
        let (stream, root) = (name.url(), Path::new(&self.root));
        let new = upload::NewFile { kind: Kind::Recording, stream, root, path, bytes };
        self.parts.uploads.note(name.vhost(), &config.vhost(name.vhost()).upload, new);
    }

    /// on_dvr.
    fn tell(&self, path: &str) {
        let config = (self.parts.config)();
        let hooks = config.vhost(self.stream.name.vhost()).http_hooks.clone();
        if !hooks.enabled || hooks.on_dvr.is_empty() {
            return;
        }
        let cwd = std::env::current_dir().unwrap_or_default();
        let file = Path::new(&self.root).join(path);
        let json = self.about.dvr(&cwd.to_string_lossy(), &file.to_string_lossy());
        let teller = self.parts.hooks.clone();
        let Ok(permit) = self.parts.telling.clone().try_acquire_owned() else {
            return self.parts.counters.count(Reason::HookGivenUp);
        };
        tokio_uring::spawn(async move {
            teller.announce("on_dvr", &hooks.on_dvr, &json, &hooks).await;
            drop(permit);
        });
    }
}

//! Playlists and segments of HLS on disk (`hls.hls_path`), for other servers to serve or keep.
//!
//! Live players are served from memory and do not notice what happens here. The segments of a
//! stream are written in their order, those of several streams side by side; what a disk does not
//! take in time is left out and counted. A playlist on disk names what is on disk only.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::Notify;

use super::disk::{Disk, DiskFault, Root};
use super::hooks::grumble::Grumble;
use crate::config::{Config, Vhost};
use crate::hub::segments::{Piece, Segment};
use crate::hub::{Counters, Reason};
use crate::media::name::StreamName;
use crate::proto::hls::{Template, Values};
use crate::remux::{Stream, playlist};
use crate::session::admission::Desk;

/// What is needed of the server.
pub struct Parts {
    /// The configuration in force.
    pub config: Box<dyn Fn() -> Arc<Config>>,
    /// Where segments come from.
    pub desk: Arc<Desk>,
    /// What the control thread counts.
    pub counters: Arc<Counters>,
    /// The disks.
    pub disk: Rc<Disk>,
    /// Woken when there are segments.
    pub news: Arc<Notify>,
}

/// Segments on disk.
pub struct SegmentFiles {
    parts: Parts,
    grumble: Grumble,
    lanes: Vec<Rc<Lane>>,
    roots: RefCell<HashMap<PathBuf, Root>>,
}

/// Streams whose files are written one after the other.
#[derive(Default)]
struct Lane {
    waiting: RefCell<VecDeque<(Arc<Stream>, Arc<Segment>)>>,
    news: Notify,
    written: RefCell<HashMap<StreamName, Written>>,
}

/// What is on disk of a stream.
struct Written {
    stream: Weak<Stream>,
    root: Root,
    playlist: String,
    /// Names of segments and of their keys, by number.
    segments: BTreeMap<u64, (String, Option<String>)>,
    /// Where keys are.
    keys: Root,
    inits: Vec<String>,
}

impl Written {
    fn has_key(&self, name: &str) -> bool {
        self.segments.values().any(|(_, key)| key.as_deref() == Some(name))
    }
}

/// A range of a block, for the disk.
struct Shared(Piece);

impl AsRef<[u8]> for Shared {
    fn as_ref(&self) -> &[u8] {
        self.0.block.bytes(self.0.start, self.0.end)
    }
}

/// Lanes.
const LANES: usize = 8;
/// Segments that wait in one lane; with more they are left out.
const LANE_MAX: usize = 16;
/// Time between two looks for streams whose files are to go.
const LOOK: Duration = Duration::from_secs(2);

impl SegmentFiles {
    /// Nothing is written yet.
    pub fn new(parts: Parts) -> Rc<SegmentFiles> {
        let lanes = (0..LANES).map(|_| Rc::default()).collect();
        let (grumble, roots) = Default::default();
        Rc::new(SegmentFiles { parts, grumble, lanes, roots })
    }

    /// Works for as long as the control thread runs.
    pub async fn run(self: Rc<Self>) {
        for lane in &self.lanes {
            tokio_uring::spawn(self.clone().work(lane.clone()));
        }
        loop {
            self.parts.news.notified().await;
            while let Some((stream, segment)) = self.parts.desk.take_file() {
                let lane = &self.lanes[stream.id.0 as usize % LANES];
                let mut waiting = lane.waiting.borrow_mut();
                if waiting.len() >= LANE_MAX {
                    self.parts.counters.count(Reason::SegmentNotWritten);
                    continue;
                }
                waiting.push_back((stream, segment));
                lane.news.notify_one();
            }
        }
    }

    async fn work(self: Rc<Self>, lane: Rc<Lane>) {
        loop {
            let next = lane.waiting.borrow_mut().pop_front();
            match next {
                Some((stream, segment)) => {
                    if let Err(why) = self.write(&lane, &stream, &segment).await {
                        self.complain(&stream.name, &why);
                    }
                }
                None => {
                    let _ = tokio::time::timeout(LOOK, lane.news.notified()).await;
                    self.dispose(&lane).await;
                }
            }
        }
    }

    fn complain(&self, name: &StreamName, why: &DiskFault) {
        self.parts.counters.count(Reason::SegmentNotWritten);
        self.grumble.say("disk", |more| {
            let reason = Reason::SegmentNotWritten.name();
            tracing::warn!(reason, stream = %name, more, "a segment is not on disk: {why}");
        });
    }

    async fn root(&self, path: PathBuf) -> Result<Root, DiskFault> {
        if let Some(root) = self.roots.borrow().get(&path) {
            return Ok(root.clone());
        }
        let root = self.parts.disk.root(&path).await?;
        self.roots.borrow_mut().insert(path, root.clone());
        Ok(root)
    }

    async fn write(
        &self,
        lane: &Lane,
        stream: &Arc<Stream>,
        segment: &Segment,
    ) -> Result<(), DiskFault> {
        let config = (self.parts.config)();
        let vhost = config.vhost(stream.name.vhost());
        let Some(path) = root_of(vhost, &stream.name) else { return Ok(()) };
        let root = self.root(path).await?;
        let key_path = &vhost.hls.hls_key_file_path;
        let keys = match key_path.as_os_str().is_empty() {
            true => root.clone(),
            false => self.root(key_path.clone()).await?,
        };
        let known = lane.written.borrow_mut().remove(&stream.name);
        let mut written =
            known.filter(|known| known.root.path() == root.path()).unwrap_or_else(|| {
                let playlist = playlist_of(vhost, &stream.name);
                let stream = Arc::downgrade(stream);
                let (segments, inits) = Default::default();
                Written { stream, root, playlist, segments, keys, inits }
            });
        written.stream = Arc::downgrade(stream);
        let result = self.write_files(vhost, stream, segment, &mut written).await;
        // What is on disk has to go some day, also if not all of it is.
        lane.written.borrow_mut().insert(stream.name.clone(), written);
        result
    }

    async fn write_files(
        &self,
        vhost: &Vhost,
        stream: &Stream,
        segment: &Segment,
        written: &mut Written,
    ) -> Result<(), DiskFault> {
        // Numbers that begin anew are those of another playlist. Its files go before the new ones
        // come, which may have their names.
        if written.segments.last_key_value().is_some_and(|(last, _)| *last >= segment.number) {
            self.remove_where(vhost, written, |_| true).await?;
            written.inits.clear();
        }
        if let Some(init) = &segment.init
            && !written.inits.contains(&init.name)
        {
            self.put(&written.root, &init.name, vec![init.bytes.clone()]).await?;
            written.inits.push(init.name.clone());
        }
        let key = segment.key.as_ref();
        if let Some(key) = key.filter(|key| !written.has_key(&key.name)) {
            let bytes = Bytes::copy_from_slice(&key.bytes);
            self.put(&written.keys, &key.name, vec![bytes]).await?;
        }
        let pieces = segment.pieces.iter().map(|piece| Bytes::from_owner(Shared(piece.clone())));
        self.put(&written.root, &segment.name, pieces.collect()).await?;
        let names = (segment.name.clone(), key.map(|key| key.name.clone()));
        written.segments.insert(segment.number, names);
        let Some(list) = stream.segments().map(|segments| segments.list()) else { return Ok(()) };
        let mut first = segment.number;
        while first > 0 && written.segments.contains_key(&(first - 1)) {
            first -= 1;
        }
        let text = playlist::plain(&list, first..=segment.number);
        self.put(&written.root, &written.playlist, vec![Bytes::from(text)]).await?;
        let oldest = list.segments.front().map_or(0, |first| first.number);
        self.remove_where(vhost, written, |number| number < oldest).await
    }

    /// Writes a file as a whole, in the place of one that has its name.
    async fn put(&self, root: &Root, name: &str, bytes: Vec<Bytes>) -> Result<(), DiskFault> {
        let mut file = self.parts.disk.create(root, name).await?;
        match file.append(bytes).await {
            Ok(()) => file.replace().await,
            Err(why) => {
                // What is there of it is of no use; that it cannot be removed has been counted.
                let _ = file.discard().await;
                Err(why)
            }
        }
    }

    async fn remove_where(
        &self,
        vhost: &Vhost,
        written: &mut Written,
        goes: impl Fn(u64) -> bool,
    ) -> Result<(), DiskFault> {
        let numbers: Vec<u64> = written.segments.keys().copied().filter(|n| goes(*n)).collect();
        for number in numbers {
            let Some((name, key)) = written.segments.remove(&number) else { continue };
            if !vhost.hls.hls_cleanup {
                continue;
            }
            if !written.segments.values().any(|(other, _)| *other == name) {
                self.parts.disk.remove(&written.root, &name).await?;
            }
            if let Some(key) = key.filter(|key| !written.has_key(key)) {
                self.parts.disk.remove(&written.keys, &key).await?;
            }
        }
        Ok(())
    }

    /// Removes the files of streams whose segments are let go.
    async fn dispose(&self, lane: &Lane) {
        let gone = |written: &Written| {
            written.stream.upgrade().is_none_or(|stream| stream.segments().is_none())
        };
        let names: Vec<StreamName> = {
            let written = lane.written.borrow();
            written.iter().filter(|(_, w)| gone(w)).map(|(name, _)| name.clone()).collect()
        };
        for name in names {
            let Some(written) = lane.written.borrow_mut().remove(&name) else { continue };
            let config = (self.parts.config)();
            let hls = &config.vhost(name.vhost()).hls;
            if !hls.hls_cleanup || hls.hls_dispose.is_zero() {
                continue;
            }
            let Written { root, playlist, segments, inits, keys, .. } = written;
            // The playlist first: it must not name what is not there.
            let of_root = [&playlist].into_iter().chain(segments.values().map(|(name, _)| name));
            let of_root = of_root.chain(&inits).map(|file| (&root, file));
            let of_keys = segments.values().filter_map(|(_, key)| Some((&keys, key.as_ref()?)));
            for (root, file) in of_root.chain(of_keys) {
                if let Err(why) = self.parts.disk.remove(root, file).await {
                    self.complain(&name, &why);
                }
            }
        }
    }
}

/// The folder that a vhost's segments are written to.
pub(super) fn root_of(vhost: &Vhost, name: &StreamName) -> Option<PathBuf> {
    let path = &vhost.hls.hls_path;
    if path.as_os_str().is_empty() {
        return None;
    }
    match path.to_str() {
        Some(text) => Some(Path::new(&text.replace("[vhost]", name.vhost())).to_owned()),
        None => Some(path.clone()),
    }
}

/// What a stream's playlist is called.
pub(super) fn playlist_of(vhost: &Vhost, name: &StreamName) -> String {
    let values =
        Values { vhost: name.vhost(), app: name.app(), stream: name.stream(), ..Values::default() };
    let template = Template::parse(&vhost.hls.hls_m3u8_file);
    template.map_or_else(|_| String::new(), |template| template.fill(&values))
}

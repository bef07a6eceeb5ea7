//! Playlists and segments of HLS (`hls.hls_path`), manifests and segments of DASH
//! (`dash.dash_path`) on disk, for other servers to serve or keep.
//!
//! Live players are served from memory and do not notice what happens here. The segments of a
//! stream are written in their order, those of several streams side by side; what a disk does not
//! take in time is left out and counted. A playlist on disk names what is on disk only.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::Notify;

use super::disk::{Disk, DiskFault, Root};
use super::hooks::grumble::Grumble;
use super::upload::{Kind, NewFile, Uploads};
use crate::config::{Config, Vhost};
use crate::hub::segments::{Piece, Segment, bytes_of};
use crate::hub::{Counters, Reason};
use crate::media::name::StreamName;
use crate::proto::hls::{Template, Values};
use crate::remux::segmenter::MANIFEST_SUFFIX;
use crate::remux::tracks::TRACKS;
use crate::remux::{Stream, manifest, playlist};
use crate::session::admission::{Desk, FileToWrite, SegmentFile};

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
    /// Who takes files elsewhere.
    pub uploads: Arc<Uploads>,
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
    waiting: RefCell<VecDeque<FileToWrite>>,
    news: Notify,
    written: RefCell<HashMap<(SegmentFile, StreamName), Written>>,
}

/// What is on disk of a stream.
struct Written {
    stream: Weak<Stream>,
    root: Root,
    /// The playlist or the manifest.
    playlist: String,
    /// Names of segments and of their keys, by number.
    segments: BTreeMap<u64, (Vec<String>, Option<String>)>,
    /// Where keys are.
    keys: Root,
    inits: Vec<String>,
}

impl Written {
    /// The first of the segments before this one of which none is missing.
    fn first_up_to(&self, number: u64) -> u64 {
        let mut first = number;
        while first > 0 && self.segments.contains_key(&(first - 1)) {
            first -= 1;
        }
        first
    }

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
            while let Some(file) = self.parts.desk.take_file() {
                let (_, stream, _) = &file;
                let lane = &self.lanes[stream.id.0 as usize % LANES];
                let mut waiting = lane.waiting.borrow_mut();
                if waiting.len() >= LANE_MAX {
                    self.parts.counters.count(Reason::SegmentNotWritten);
                    continue;
                }
                waiting.push_back(file);
                lane.news.notify_one();
            }
        }
    }

    async fn work(self: Rc<Self>, lane: Rc<Lane>) {
        loop {
            let next = lane.waiting.borrow_mut().pop_front();
            match next {
                Some((kind, stream, segment)) => {
                    if let Err(why) = self.write(&lane, kind, &stream, &segment).await {
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
        kind: SegmentFile,
        stream: &Arc<Stream>,
        segment: &Segment,
    ) -> Result<(), DiskFault> {
        let config = (self.parts.config)();
        let vhost = config.vhost(stream.name.vhost());
        let path = match kind {
            SegmentFile::Hls => vhost.hls.folder(stream.name.vhost()),
            SegmentFile::Dash => vhost.dash.folder(stream.name.vhost()),
        };
        let Some(path) = path else { return Ok(()) };
        let root = self.root(path).await?;
        let key_path = &vhost.hls.hls_key_file_path;
        let keys = match key_path.as_os_str().is_empty() {
            true => root.clone(),
            false => self.root(key_path.clone()).await?,
        };
        let place = (kind, stream.name.clone());
        let known = lane.written.borrow_mut().remove(&place);
        let mut written =
            known.filter(|known| known.root.path() == root.path()).unwrap_or_else(|| {
                let playlist = match kind {
                    SegmentFile::Hls => playlist_of(vhost, &stream.name),
                    SegmentFile::Dash => name_of(&vhost.dash.dash_mpd_file, &stream.name),
                };
                let stream = Arc::downgrade(stream);
                let (segments, inits) = Default::default();
                Written { stream, root, playlist, segments, keys, inits }
            });
        written.stream = Arc::downgrade(stream);
        let result = match kind {
            SegmentFile::Hls => self.write_files(vhost, stream, segment, &mut written).await,
            SegmentFile::Dash => self.write_tracks(vhost, stream, segment, &mut written).await,
        };
        // What is on disk has to go some day, also if not all of it is.
        lane.written.borrow_mut().insert(place, written);
        result
    }

    async fn write_files(
        &self,
        vhost: &Vhost,
        stream: &Stream,
        segment: &Segment,
        written: &mut Written,
    ) -> Result<(), DiskFault> {
        let (cleanup, name) = (vhost.hls.hls_cleanup, &stream.name);
        self.begin_anew(cleanup, name, segment, written).await?;
        if let Some(init) = &segment.init
            && !written.inits.contains(&init.name)
        {
            self.put(&written.root, &init.name, vec![init.bytes.clone()]).await?;
            let bytes = init.bytes.len() as u64;
            self.upload(vhost, stream, Kind::Segment, written, &init.name, bytes);
            written.inits.push(init.name.clone());
        }
        let key = segment.key.as_ref();
        if let Some(key) = key.filter(|key| !written.has_key(&key.name)) {
            let bytes = Bytes::copy_from_slice(&key.bytes);
            self.put(&written.keys, &key.name, vec![bytes]).await?;
        }
        let pieces = segment.pieces.iter().map(|piece| Bytes::from_owner(Shared(piece.clone())));
        self.put(&written.root, &segment.name, pieces.collect()).await?;
        let bytes = bytes_of(&segment.pieces);
        self.upload(vhost, stream, Kind::Segment, written, &segment.name, bytes);
        let names = (vec![segment.name.clone()], key.map(|key| key.name.clone()));
        written.segments.insert(segment.number, names);
        let Some(list) = stream.segments().map(|segments| segments.list()) else { return Ok(()) };
        let first = written.first_up_to(segment.number);
        let text = playlist::plain(&list, first..=segment.number);
        let bytes = text.len() as u64;
        self.put(&written.root, &written.playlist, vec![Bytes::from(text)]).await?;
        self.upload(vhost, stream, Kind::Playlist, written, &written.playlist, bytes);
        let oldest = list.segments.front().map_or(0, |first| first.number);
        self.remove_where(cleanup, name, written, |number| number < oldest).await
    }

    fn upload(
        &self,
        vhost: &Vhost,
        stream: &Stream,
        kind: Kind,
        written: &Written,
        path: &str,
        bytes: u64,
    ) {
        let (root, name) = (written.root.path(), &stream.name);
        let new = NewFile { kind, stream: name.url(), root, path, bytes };
        self.parts.uploads.note(name.vhost(), &vhost.upload, new);
    }

    /// Removes a file, unless it waits for its upload: then it goes after that.
    async fn let_go(&self, name: &StreamName, root: &Root, path: &str) -> Result<(), DiskFault> {
        match self.parts.uploads.hold(name.vhost(), root.path(), path) {
            true => Ok(()),
            false => self.parts.disk.remove(root, path).await,
        }
    }

    /// Numbers that begin anew are those of another playlist. Its files go before the new ones
    /// come, which may have their names.
    async fn begin_anew(
        &self,
        cleanup: bool,
        name: &StreamName,
        segment: &Segment,
        written: &mut Written,
    ) -> Result<(), DiskFault> {
        if written.segments.last_key_value().is_some_and(|(last, _)| *last >= segment.number) {
            self.remove_where(cleanup, name, written, |_| true).await?;
            written.inits.clear();
        }
        Ok(())
    }

    /// The same for DASH: the segments of the tracks, and a manifest.
    async fn write_tracks(
        &self,
        vhost: &Vhost,
        stream: &Stream,
        segment: &Segment,
        written: &mut Written,
    ) -> Result<(), DiskFault> {
        let cleanup = vhost.dash.dash_cleanup;
        self.begin_anew(cleanup, &stream.name, segment, written).await?;
        let inits = segment.period.iter().flat_map(|period| period.tracks.iter().flatten());
        for init in inits {
            if !written.inits.contains(&init.name) {
                self.put(&written.root, &init.name, vec![init.bytes.clone()]).await?;
                let bytes = init.bytes.len() as u64;
                self.upload(vhost, stream, Kind::Segment, written, &init.name, bytes);
                written.inits.push(init.name.clone());
            }
        }
        let folder = written.playlist.strip_suffix(MANIFEST_SUFFIX).unwrap_or_default().to_owned();
        let mut names = Vec::new();
        for (name, track) in TRACKS.into_iter().zip(&segment.tracks) {
            let Some(track) = track else { continue };
            let name = format!("{folder}/{name}-{}.m4s", track.number);
            let bytes = bytes_of(&track.pieces);
            let pieces = track.pieces.iter().map(|piece| Bytes::from_owner(Shared(piece.clone())));
            self.put(&written.root, &name, pieces.collect()).await?;
            self.upload(vhost, stream, Kind::Segment, written, &name, bytes);
            names.push(name);
        }
        written.segments.insert(segment.number, (names, None));
        let Some(list) = stream.dash().map(|segments| segments.list()) else { return Ok(()) };
        let Some(terms) = &list.dash else { return Ok(()) };
        let first = written.first_up_to(segment.number);
        let text = manifest::plain(&list, terms, first..=segment.number);
        let bytes = text.len() as u64;
        self.put(&written.root, &written.playlist, vec![Bytes::from(text)]).await?;
        self.upload(vhost, stream, Kind::Playlist, written, &written.playlist, bytes);
        let oldest = list.segments.front().map_or(0, |first| first.number);
        self.remove_where(cleanup, &stream.name, written, |number| number < oldest).await
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
        cleanup: bool,
        name: &StreamName,
        written: &mut Written,
        goes: impl Fn(u64) -> bool,
    ) -> Result<(), DiskFault> {
        let numbers: Vec<u64> = written.segments.keys().copied().filter(|n| goes(*n)).collect();
        for number in numbers {
            let Some((files, key)) = written.segments.remove(&number) else { continue };
            if !cleanup {
                continue;
            }
            for file in files {
                if !written.segments.values().any(|(others, _)| others.contains(&file)) {
                    self.let_go(name, &written.root, &file).await?;
                }
            }
            if let Some(key) = key.filter(|key| !written.has_key(key)) {
                self.parts.disk.remove(&written.keys, &key).await?;
            }
        }
        Ok(())
    }

    /// Removes the files of streams whose segments are let go.
    async fn dispose(&self, lane: &Lane) {
        let gone = |kind: SegmentFile, written: &Written| {
            written.stream.upgrade().is_none_or(|stream| match kind {
                SegmentFile::Hls => stream.segments().is_none(),
                SegmentFile::Dash => stream.dash().is_none(),
            })
        };
        let places: Vec<(SegmentFile, StreamName)> = {
            let written = lane.written.borrow();
            let all = written.iter().filter(|((kind, _), w)| gone(*kind, w));
            all.map(|(place, _)| place.clone()).collect()
        };
        for place in places {
            let Some(written) = lane.written.borrow_mut().remove(&place) else { continue };
            let (kind, name) = place;
            let config = (self.parts.config)();
            let vhost = config.vhost(name.vhost());
            let (cleanup, dispose) = match kind {
                SegmentFile::Hls => (vhost.hls.hls_cleanup, vhost.hls.hls_dispose),
                SegmentFile::Dash => (vhost.dash.dash_cleanup, vhost.dash.dash_dispose),
            };
            if !cleanup || dispose.is_zero() {
                continue;
            }
            let Written { root, playlist, segments, inits, keys, .. } = written;
            // The playlist first: it must not name what is not there.
            let names = segments.values().flat_map(|(names, _)| names);
            let of_root = [&playlist].into_iter().chain(names);
            let of_root = of_root.chain(&inits).map(|file| (&root, file));
            let of_keys = segments.values().filter_map(|(_, key)| Some((&keys, key.as_ref()?)));
            for (root, file) in of_root.chain(of_keys) {
                if let Err(why) = self.let_go(&name, root, file).await {
                    self.complain(&name, &why);
                }
            }
        }
    }
}

/// What a stream's playlist is called.
pub(super) fn playlist_of(vhost: &Vhost, name: &StreamName) -> String {
    name_of(&vhost.hls.hls_m3u8_file, name)
}

fn name_of(template: &str, name: &StreamName) -> String {
    let template = Template::parse(template);
    template.map_or_else(|_| String::new(), |template| template.fill(&Values::of(name)))
}

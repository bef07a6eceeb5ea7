//! A stream's feed as segments: the writer's side of [`Segments`].
//!
//! The writer says before each message whether something ends there ([`Segmenter::before`]), and
//! after it that it is in the feed. Segments are ranges of that feed.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use uring::Arena;

use super::cipher::{self, KeyOptions};
use super::mux::{Muxer, Shown};
use super::tracks::Tracks;
use crate::hub::segments::{
    DashTerms, Init, Key, OpenSegment, Part, Piece, Segment, bytes_of, pieces,
};
use crate::hub::{Container, FeedWriter, Position, SegmentList, SegmentMemory, Segments};
use crate::limits;
use crate::media::name::StreamName;
use crate::proto::hls::{Cut, Cutter, Frame, Rules, Template, Values};
use crate::proto::http::url;

/// What a stream's segments are like.
#[derive(Clone, Debug)]
pub struct SegmentOptions {
    /// Where to cut.
    pub rules: Rules,
    /// How much a playlist has, ms.
    pub window_ms: i64,
    /// Fragmented MP4 instead of MPEG-TS.
    pub fmp4: bool,
    /// Names of segments, of MPEG-TS and of MP4.
    pub names: [Template; 2],
    /// Name of the initialisation segment.
    pub init_name: Template,
    /// Name of the playlist, which addresses are relative to.
    pub playlist_name: Template,
    /// What goes before addresses.
    pub prefix: String,
    /// Segments are encrypted.
    pub keys: Option<KeyOptions>,
    /// Numbers go on when the stream is published again after its end.
    pub recover: bool,
    /// They are for players of HLS.
    pub hls: bool,
    /// They are for players of DASH.
    pub dash: Option<DashOptions>,
}

/// How segments are to be had by DASH.
#[derive(Clone, Debug)]
pub struct DashOptions {
    /// How much a manifest has, ms.
    pub window_ms: i64,
    /// When players look for a new one, ms.
    pub update_ms: i64,
    /// Name of the manifest.
    pub name: Template,
}

impl SegmentOptions {
    /// What segments begin to be packed in.
    pub fn container(&self) -> Container {
        if self.fmp4 { Container::Fmp4 } else { Container::Ts }
    }
}

/// Makes the segments of one stream.
#[derive(Debug)]
pub struct Segmenter {
    options: SegmentOptions,
    container: Container,
    stream: StreamName,
    shared: Arc<Segments>,
    memory: Arc<SegmentMemory>,
    arena: Arena,
    cutter: Cutter,
    /// Tracks are known: segments may begin.
    ready: bool,
    /// What comes does not fit what there is.
    broken: bool,
    next: u64,
    open: Option<Open>,
    init: Option<Arc<Init>>,
    /// The newest key, and how many segments have it.
    key: Option<(Arc<Key>, u64)>,
    /// How many initialisation segments there were.
    inits: u64,
    /// As in the list, which is made from these.
    segments: VecDeque<Arc<Segment>>,
    unlisted: usize,
    discontinuities: u64,
    /// Segments that were completed since this was last asked.
    closed: Vec<Arc<Segment>>,
    /// Fewer segments are kept than asked for, for want of memory.
    short: bool,
    /// The same for each track, where that is asked for.
    tracks: Option<Tracks>,
    /// When the newest frame came, ms since 1970.
    wall_ms: i64,
}

/// The segment that is being written.
#[derive(Debug)]
struct Open {
    start: Position,
    part_start: Position,
    wall_ms: i64,
    discontinuity: bool,
    independent: bool,
    part_independent: bool,
    parts: Vec<Arc<Part>>,
}

impl Segmenter {
    /// Goes on where the segments of a former publisher end, if the options say so and players know
    /// the same container; else begins anew.
    pub fn new(
        options: SegmentOptions,
        stream: StreamName,
        shared: Arc<Segments>,
        (memory, arena): (Arc<SegmentMemory>, Arena),
    ) -> Segmenter {
        let container = options.container();
        let mut segmenter = Segmenter {
            cutter: Cutter::new(options.rules),
            options,
            container,
            stream,
            shared,
            memory,
            arena,
            ready: false,
            broken: false,
            next: 0,
            open: None,
            init: None,
            key: None,
            inits: 0,
            segments: VecDeque::new(),
            unlisted: 0,
            discontinuities: 0,
            closed: Vec::new(),
            short: false,
            tracks: None,
            wall_ms: 0,
        };
        let mut list = segmenter.shared.list();
        if segmenter.options.recover && list.has_begun() {
            segmenter.wall_ms = list.wall_ms;
            segmenter.next = list.next_number();
            segmenter.broken = true;
            segmenter.segments = list.segments.clone();
            segmenter.unlisted = list.unlisted;
            segmenter.discontinuities = list.discontinuities;
            segmenter.inits = 1 + list.segments.len() as u64 + list.next_number();
            segmenter.cutter.keep_targets(list.target_s, list.part_target_ms);
        } else {
            segmenter.shared.publish(SegmentList::empty(container));
            list = segmenter.shared.list();
        }
        let terms = segmenter.options.dash.as_ref().map(|dash| {
            let name = dash.name.fill(&segmenter.values(0, 0, 0));
            let folder = name.strip_suffix(MANIFEST_SUFFIX).unwrap_or(&name).to_owned();
            DashTerms { window_ms: dash.window_ms, update_ms: dash.update_ms, folder }
        });
        segmenter.tracks = terms.map(|terms| Tracks::new(terms, &list));
        segmenter.shared.keep();
        segmenter
    }

    /// What segments are packed in.
    pub fn container(&self) -> Container {
        self.container
    }

    /// They are for players of HLS.
    pub fn is_for_hls(&self) -> bool {
        self.options.hls
    }

    /// They are not any more.
    pub fn end_hls(&mut self) {
        self.options.hls = false;
    }

    /// The tracks are known.
    pub fn is_ready(&self) -> bool {
        self.ready
    }

    /// They are for players of DASH.
    pub fn is_for_dash(&self) -> bool {
        self.tracks.is_some()
    }

    /// The oldest block of the feed that is needed still.
    pub fn needs_from(&self) -> u64 {
        self.open.as_ref().map_or(u64::MAX, |open| open.start.block)
    }

    /// The stream cannot be had in MPEG-TS: goes on with MP4. False if that is what it does.
    pub fn fall_back(&mut self) -> bool {
        // What was to be encrypted is not served in the clear.
        if self.container == Container::Fmp4 || self.options.keys.is_some() {
            return false;
        }
        self.container = Container::Fmp4;
        self.init = None;
        self.open = None;
        self.publish(None);
        true
    }

    /// The tracks are known.
    pub fn set_ready(&mut self) {
        self.ready = true;
    }

    /// The tracks are others from here on.
    pub fn tracks_changed(&mut self, writer: Option<&FeedWriter>, muxer: Option<&Muxer>) {
        self.interrupt(writer, muxer);
        self.cutter.forget_tracks();
    }

    /// The publisher leaves, or another comes: what there is ends here, and what follows is not its
    /// continuation.
    pub fn interrupt(&mut self, writer: Option<&FeedWriter>, muxer: Option<&Muxer>) {
        if let (Some(writer), Some(muxer)) = (writer, muxer)
            && self.open.is_some()
        {
            let end_ms = self.cutter.end_ms();
            self.end_segment(writer, end_ms, None);
            self.publish(Some(muxer));
        }
        self.broken |= !self.segments.is_empty();
    }

    /// True while a segment is being written.
    pub fn is_open(&self) -> bool {
        self.open.is_some()
    }

    /// What ends before this frame.
    pub fn before(&self, frame: &Frame) -> Cut {
        if self.open.is_none() { Cut::Nothing } else { self.cutter.before(frame) }
    }

    /// A frame is about to be appended to the feed by this writer: ends what ends before it.
    /// `shown`: when it is, in MP4.
    pub fn cut(&mut self, cut: Cut, frame: &Frame, writer: &FeedWriter, shown: Option<Shown>) {
        match cut {
            Cut::Nothing => {}
            Cut::Part => self.end_part(writer, frame.time_ms),
            Cut::Segment => self.end_segment(writer, frame.time_ms, shown),
        }
    }

    /// A frame was appended, behind `before`. `init_len` bytes in front of it belong to no segment.
    pub fn took(
        &mut self,
        cut: Cut,
        frame: &Frame,
        before: Position,
        init_len: usize,
        (writer, muxer): (&FeedWriter, &mut Muxer),
    ) {
        self.wall_ms = self.wall_ms.max(frame.wall_ms);
        // Without pictures any frame is a place to start; with them, the first has to be one.
        let starts = frame.keyframe || !muxer.has_video();
        if self.open.is_none() && !(self.ready && (starts || cut == Cut::Segment)) {
            return;
        }
        let independent = starts;
        let begins = self.open.is_none();
        let mut from = before;
        if begins {
            self.note_init(muxer);
            // Variants of one stream count alike, whenever they began.
            if self.options.rules.align && self.segments.is_empty() {
                let cell = frame.grid_ms.div_euclid(self.options.rules.fragment_ms.max(1));
                self.next = cell.max(0).unsigned_abs();
            }
            let end = writer.position();
            // What is in front of the frame was written with it, at the end of the same block.
            let start = match init_len {
                0 => before,
                len if end.block == before.block => {
                    Position { offset: before.offset + len as u32, ..before }
                }
                len => Position { block: before.block + 1, offset: len as u32 },
            };
            from = start;
            let discontinuity = std::mem::take(&mut self.broken);
            if let Some(tracks) = &mut self.tracks {
                tracks.begin(discontinuity, frame.wall_ms, muxer);
            }
            self.open = Some(Open {
                start,
                part_start: start,
                wall_ms: frame.wall_ms,
                discontinuity,
                independent,
                part_independent: independent,
                parts: Vec::new(),
            });
        } else if let Some(open) = &mut self.open {
            open.part_independent |= cut == Cut::Part && independent;
        }
        if let (Some(tracks), Some(shown)) = (&mut self.tracks, muxer.shown()) {
            tracks.note(shown, from, writer.position());
        }
        self.cutter.take(frame);
        // Players who get parts want to know at once which one comes next.
        if cut != Cut::Nothing || (begins && self.cutter.part_target_ms().is_some()) {
            self.publish(Some(muxer));
        }
    }

    /// Segments that were completed since this was last asked.
    pub fn take_closed(&mut self) -> Vec<Arc<Segment>> {
        std::mem::take(&mut self.closed)
    }

    /// True once when fewer segments are kept than asked for, for want of memory.
    pub fn take_short(&mut self) -> bool {
        std::mem::take(&mut self.short)
    }

    fn note_init(&mut self, muxer: &mut Muxer) {
        let Some(bytes) = muxer.tell_init().filter(|_| self.container == Container::Fmp4) else {
            self.init = None;
            return;
        };
        if self.init.as_ref().is_some_and(|init| init.bytes == bytes) {
            return;
        }
        let name = self.options.init_name.fill(&self.values(0, 0, 0));
        let name = match self.inits {
            0 => name,
            count => numbered(&name, "-", count),
        };
        self.inits += 1;
        // Another description of the same stream: decoders have to begin anew.
        self.broken |= self.init.is_some();
        let uri = self.uri(&name);
        self.init = Some(Arc::new(Init { name, uri, bytes: Bytes::from(bytes) }));
    }

    fn end_part(&mut self, writer: &FeedWriter, time_ms: i64) {
        let Some(blocks) = writer.recorded() else { return };
        let number = self.next;
        let Some(open) = &mut self.open else { return };
        let duration_ms = self.cutter.end_part(time_ms);
        let end = writer.position();
        let pieces = pieces(blocks, open.part_start, end);
        open.part_start = end;
        let independent = std::mem::take(&mut open.part_independent);
        if pieces.is_empty() {
            return;
        }
        let index = open.parts.len() as u64;
        let wall_ms = open.wall_ms;
        let name = self.part_name(number, wall_ms, index);
        let uri = self.uri(&name);
        let part = Arc::new(Part { name, uri, duration_ms, independent, pieces });
        if let Some(open) = &mut self.open {
            open.parts.push(part);
        }
    }

    fn end_segment(&mut self, writer: &FeedWriter, time_ms: i64, next: Option<Shown>) {
        if self.options.rules.part_ms > 0 {
            self.end_part(writer, time_ms);
        }
        let Some(open) = self.open.take() else { return };
        let end = writer.position();
        let pieces = writer.recorded().map(|blocks| pieces(blocks, open.start, end));
        let mut pieces = pieces.unwrap_or_default();
        let start_ms = self.cutter.start_ms().unwrap_or(time_ms);
        // SRS: what is shorter than this is no segment. It would settle the target, too.
        if time_ms - start_ms < limits::SEGMENT_MS_MIN || bytes_of(&pieces) == 0 {
            // Parts of it that players were told of stay in a segment, however short.
            if open.parts.len() <= 1 || self.cutter.target_s().is_none() {
                self.cutter.drop_segment();
                self.broken |= open.discontinuity;
                if let Some(tracks) = &mut self.tracks {
                    tracks.drop_open();
                }
                return;
            }
        }
        let mut duration_ms = self.cutter.end_segment(time_ms);
        if !open.parts.is_empty() {
            duration_ms = open.parts.iter().map(|part| part.duration_ms).sum();
        }
        let number = self.next;
        if self.options.keys.is_some() {
            match self.sealed(&pieces) {
                Some(sealed) => pieces = sealed,
                // A segment that cannot be encrypted is left out.
                None => {
                    (self.broken, self.short) = (true, true);
                    return;
                }
            }
        }
        self.next += 1;
        let name = self.segment_name(number, open.wall_ms, duration_ms);
        let uri = self.uri(&name);
        let mut segment = Segment::new(number, name, pieces);
        segment.uri = uri;
        segment.start_ms = start_ms;
        segment.duration_ms = duration_ms;
        segment.wall_ms = open.wall_ms;
        segment.discontinuity = open.discontinuity;
        segment.independent = open.independent;
        segment.init.clone_from(&self.init);
        segment.key = self.key.as_ref().map(|(key, _)| key.clone());
        segment.parts = open.parts;
        if let (Some(tracks), Some(blocks)) = (&mut self.tracks, writer.recorded()) {
            (segment.tracks, segment.period) = tracks.end(blocks, next);
        }
        let segment = Arc::new(segment);
        segment.count_in(&self.memory);
        self.segments.push_back(segment.clone());
        if self.closed.len() < CLOSED_MAX {
            self.closed.push(segment);
        }
        self.let_go();
    }

    /// Encrypts what is to be the next segment; `None` if that cannot be done.
    fn sealed(&mut self, pieces: &[Piece]) -> Option<Vec<Piece>> {
        let options = self.options.keys.as_ref()?;
        if self.key.as_ref().is_none_or(|(_, used)| *used >= options.segments) {
            let name = options.name.fill(&self.values(self.next, 0, 0));
            let uri = match options.url.as_str() {
                "" => self.uri(&name),
                url => format!("{url}{}", url::encode_path(&name)),
            };
            let (bytes, iv) = (cipher::random()?, cipher::random()?);
            self.key = Some((Arc::new(Key { name, uri, bytes, iv }), 0));
        }
        let (key, used) = self.key.as_mut()?;
        *used += 1;
        cipher::encrypt(&key.bytes, &key.iv, pieces, &self.arena).ok()
    }

    /// Takes old segments out of the playlist, and lets go of those that nobody can be loading.
    fn let_go(&mut self) {
        let target_ms = self.cutter.target_s().unwrap_or(0) as i64 * 1_000;
        let listed = |segments: &VecDeque<Arc<Segment>>, unlisted| -> i64 {
            segments.iter().skip(unlisted).map(|segment| segment.duration_ms).sum()
        };
        let mut total_ms = listed(&self.segments, self.unlisted);
        let mut window_ms = self.options.window_ms;
        loop {
            // RFC 8216 6.2.2: a playlist keeps three target durations.
            let least_ms = 3 * target_ms;
            while total_ms > window_ms
                && let Some(first) = self.segments.get(self.unlisted)
                && total_ms - first.duration_ms >= least_ms
                && self.segments.len() - self.unlisted > 1
            {
                total_ms -= first.duration_ms;
                self.discontinuities += u64::from(first.discontinuity);
                self.unlisted += 1;
            }
            // RFC 8216 6.2.2: what has left the playlist can be had for as long as it was in it.
            let end_ms = self.segments.back().map_or(0, |last| last.start_ms + last.duration_ms);
            let dash_ms = self.options.dash.as_ref().map_or(0, |dash| dash.window_ms);
            let keep_ms = match self.memory.is_over() {
                true => 0,
                // ISO 23009-1 5.3.9.5.3: what a manifest had can be had for that long once more.
                false => (total_ms + window_ms).max(dash_ms),
            };
            while self.unlisted > 0
                && self.segments.front().is_some_and(|first| {
                    let age_ms = end_ms - first.start_ms;
                    !(0..=keep_ms + 2 * first.duration_ms).contains(&age_ms)
                })
            {
                self.segments.pop_front();
                self.unlisted -= 1;
            }
            // Still too much: the playlist gets shorter, down to what it has to have.
            if window_ms == 0 || !self.memory.is_over() {
                return;
            }
            self.short = true;
            window_ms = 0;
        }
    }

    fn publish(&mut self, muxer: Option<&Muxer>) {
        let before = self.shared.list();
        let part_target_ms = self.cutter.part_target_ms();
        let open = self.open.as_ref().filter(|_| part_target_ms.is_some()).map(|open| {
            let index = open.parts.len() as u64;
            let hint = self.part_name(self.next, open.wall_ms, index);
            OpenSegment {
                number: self.next,
                wall_ms: open.wall_ms,
                discontinuity: open.discontinuity,
                init: self.init.clone(),
                parts: open.parts.clone(),
                hint_uri: self.uri(&hint),
                hint,
            }
        });
        let mut content = muxer.map_or_else(|| before.content.clone(), Muxer::content);
        content.fps = content.fps.or(self.cutter.frames_per_second());
        self.shared.publish(SegmentList {
            container: self.container,
            target_s: self.cutter.target_s().unwrap_or(0),
            part_target_ms,
            segments: self.segments.clone(),
            unlisted: self.unlisted,
            discontinuities: self.discontinuities,
            open,
            content,
            dash: self.tracks.as_ref().map(Tracks::terms),
            wall_ms: self.wall_ms,
            texts: Default::default(),
            manifests: Default::default(),
            squeezed: Default::default(),
        });
    }

    /// The address of a name in playlists.
    fn uri(&self, name: &str) -> String {
        let playlist = self.options.playlist_name.fill(&self.values(0, 0, 0));
        let folder = playlist.rsplit_once('/').map_or("", |(folder, _)| folder);
        let relative = name.strip_prefix(folder).and_then(|rest| rest.strip_prefix('/'));
        let path = match relative {
            Some(relative) => url::encode_path(relative),
            None => format!("/{}", url::encode_path(name)),
        };
        format!("{}{path}", self.options.prefix)
    }

    fn values(&self, number: u64, wall_ms: i64, duration_ms: i64) -> Values<'_> {
        let rules = &self.options.rules;
        let timestamp = match rules.floor {
            true => wall_ms.div_euclid(rules.fragment_ms.max(1)),
            false => wall_ms,
        };
        Values {
            vhost: self.stream.vhost(),
            app: self.stream.app(),
            stream: self.stream.stream(),
            seq: number,
            duration_ms: duration_ms.unsigned_abs(),
            timestamp: timestamp.unsigned_abs(),
            wall_ms,
        }
    }

    fn segment_name(&self, number: u64, wall_ms: i64, duration_ms: i64) -> String {
        let template = &self.options.names[usize::from(self.container == Container::Fmp4)];
        template.fill(&self.values(number, wall_ms, duration_ms))
    }

    fn part_name(&self, number: u64, wall_ms: i64, index: u64) -> String {
        numbered(&self.segment_name(number, wall_ms, 0), ".", index)
    }
}

/// Segments that may wait to be asked for; more are not reported.
const CLOSED_MAX: usize = 64;

/// How the names of manifests end.
pub const MANIFEST_SUFFIX: &str = ".mpd";

/// A name with a number before its extension: `s-7.ts` and 3 make `s-7.3.ts`.
fn numbered(name: &str, mark: &str, number: u64) -> String {
    match name.rsplit_once('.').filter(|(_, suffix)| !suffix.contains('/')) {
        Some((stem, suffix)) => format!("{stem}{mark}{number}.{suffix}"),
        None => format!("{name}{mark}{number}"),
    }
}

/// The name without that number, and the number.
pub fn without_number<'n>(name: &'n str, mark: &str) -> Option<(String, &'n str)> {
    let (stem, suffix) = name.rsplit_once('.').filter(|(_, suffix)| !suffix.contains('/'))?;
    let (stem, number) = stem.rsplit_once(mark)?;
    let digits = !number.is_empty() && number.bytes().all(|digit| digit.is_ascii_digit());
    digits.then(|| (format!("{stem}.{suffix}"), number))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::hub::Format;
    use crate::hub::feed::GopLimits;
    use crate::media::Kind;
    use crate::proto::hls::check::{Checker, Playlist};
    use crate::remux::playlist;
    use crate::remux::{HttpOptions, Live, LiveOptions, Outcome, Registry, Stream};
    use uring::{Arena, ArenaOptions};

    const AVC: &[u8] =
        b"\x17\0\0\0\0\x01\x42\xc0\x1e\xff\xe1\0\x0a\x67\x42\xc0\x1e\xda\x02\x80\xbf\
        \xe5\x40\x01\0\x04\x68\xce\x3c\x80";
    const AAC: &[u8] = &[0xaf, 0, 0x12, 0x10];

    /// A stream whose frames carry their number, with a clock of its own.
    struct Rig {
        live: Live,
        stream: Arc<Stream>,
        registry: Registry,
        options: SegmentOptions,
        arena: Arena,
        /// The publisher's clock, ms.
        now: u32,
        /// How much later pictures are shown than decoded, ms.
        composition: u8,
    }

    fn options(part_ms: i64, fmp4: bool) -> SegmentOptions {
        let template = |text: &str| Template::parse(text).unwrap();
        SegmentOptions {
            rules: Rules {
                fragment_ms: 2_000,
                td_ratio: 1.0,
                aof_ratio: 2.1,
                wait_keyframe: true,
                floor: false,
                align: false,
                part_ms,
            },
            window_ms: 10_000,
            fmp4,
            names: [template("[app]/[stream]-[seq].ts"), template("[app]/[stream]-[seq].m4s")],
            init_name: template("[app]/[stream]/init.mp4"),
            playlist_name: template("[app]/[stream].m3u8"),
            prefix: String::new(),
            keys: None,
            recover: true,
            hls: true,
            dash: None,
        }
    }

    impl Rig {
        fn new(options: SegmentOptions) -> Rig {
            let arena = ArenaOptions { limit: 256 << 20, huge_pages: false };
            let arena = Arena::new(arena).unwrap();
            let registry = Registry::default();
            let name = StreamName::new("v", "live", "s").unwrap();
            let stream = registry.open(&name).unwrap();
            let shared = Arc::new(Segments::new(options.container()));
            stream.set_segments(Some(shared));
            let live = Rig::live(&arena, &registry, &stream, &options);
            Rig { live, stream, registry, options, arena, now: 5_000, composition: 0 }
        }

        fn live(
            arena: &Arena,
            registry: &Registry,
            stream: &Arc<Stream>,
            options: &SegmentOptions,
        ) -> Live {
            let gop = GopLimits { enabled: false, messages: 100, bytes: 1 << 30 };
            let http = HttpOptions::default();
            let live_options =
                LiveOptions { chunk_size: 60_000, gop, reduce_sequence_header: false, http };
            let mut live = Live::new(live_options, arena.clone());
            let shared = stream.segments().unwrap();
            let memory = (registry.segments.clone(), arena.clone());
            live.add_segmenter(Segmenter::new(
                options.clone(),
                stream.name.clone(),
                shared,
                memory,
            ));
            live.want_kept(stream);
            live.open_wanted(stream);
            live
        }

        fn headers(&mut self) {
            for (kind, payload) in [(Kind::Video, AVC), (Kind::Audio, AAC)] {
                self.live.write(kind, self.now, payload).unwrap();
            }
        }

        /// 40 ms: a picture, a keyframe every `gop` of them, and audio.
        fn frame(&mut self, index: u32, gop: u32) {
            let key = index.is_multiple_of(gop);
            let nal = if key { 0x65 } else { 0x41 };
            let kind = if key { 0x17 } else { 0x27 };
            let mut picture = vec![kind, 1, 0, 0, self.composition, 0, 0, 0, 9, nal];
            picture.extend_from_slice(&index.to_be_bytes());
            picture.extend_from_slice(&[0x11; 4]);
            self.live.note_wall_clock(1_800_000_000_000 + i64::from(self.now));
            let written = self.live.write(Kind::Video, self.now, &picture).unwrap();
            assert!(matches!(written, Outcome::Written { .. }));
            for half in [0, 20] {
                self.live.write(Kind::Audio, self.now + half, &[0xaf, 1, 7, 7]).unwrap();
            }
            self.now += 40;
        }

        fn list(&self) -> Arc<SegmentList> {
            self.stream.segments().unwrap().list()
        }
    }

    fn bytes(pieces: &[crate::hub::segments::Piece]) -> Vec<u8> {
        pieces.iter().flat_map(|p| p.block.bytes(p.start, p.end).to_vec()).collect()
    }

    #[test]
    fn segments_are_what_the_feed_has() {
        for fmp4 in [false, true] {
            let mut rig = Rig::new(options(0, fmp4));
            rig.headers();
            (0..500).for_each(|index| rig.frame(index, 25));
            let list = rig.list();
            // 20 s: nine whole segments, of which five are in the window of 10 s.
            assert_eq!((list.segments.len(), list.listed().count()), (9, 5));
            assert_eq!(list.target_s, 2);
            for segment in &list.segments {
                assert_eq!(segment.duration_ms, 2_000);
                assert!(segment.independent && !segment.discontinuity);
                let bytes = bytes(&segment.pieces);
                assert_eq!(bytes.len() as u64, segment.bytes);
                let numbers: Vec<u32> = bytes
                    .windows(9)
                    .filter(|w| matches!(w[0], 0x65 | 0x41) && w[5..] == [0x11; 4])
                    .map(|w| u32::from_be_bytes([w[1], w[2], w[3], w[4]]))
                    .collect();
                let first = segment.number as u32 * 50;
                assert_eq!(numbers, (first..first + 50).collect::<Vec<_>>(), "fmp4 {fmp4}");
                match fmp4 {
                    // Tables in front.
                    false => assert_eq!(bytes[..3], [0x47, 0x40, 0]),
                    true => assert_eq!(bytes[4..8], *b"prft"),
                }
            }
            let init = list.segments[0].init.clone();
            assert_eq!(init.map(|init| init.bytes[4..8].to_vec()), fmp4.then(|| b"ftyp".to_vec()));
            assert_eq!(list.content.codecs, "avc1.42c01e,mp4a.40.2");
            // What left the playlist goes some time after it.
            (500..2_000).for_each(|index| rig.frame(index, 25));
            let list = rig.list();
            assert_eq!(list.listed().next().unwrap().number, 34);
            assert!((5..20).contains(&list.unlisted), "{}", list.unlisted);
            assert!(list.segment("live/s-38.ts", Some(38)).is_some() || fmp4);
            let feed = rig.stream.feed(if fmp4 { Format::Fmp4 } else { Format::Ts }).unwrap();
            assert!(feed.end() - feed.first() < 40, "the feed itself keeps what it always keeps");
        }
    }

    #[test]
    fn other_tracks_and_another_publisher_are_a_discontinuity() {
        let mut rig = Rig::new(options(0, true));
        rig.headers();
        (0..110).for_each(|index| rig.frame(index, 25));
        // Another audio rate in the middle of a segment.
        rig.live.write(Kind::Audio, rig.now, &[0xaf, 0, 0x11, 0x90]).unwrap();
        (110..260).for_each(|index| rig.frame(index, 25));
        let list = rig.list();
        let marks: Vec<bool> = list.segments.iter().map(|s| s.discontinuity).collect();
        assert_eq!(marks[..4], [false, false, false, true]);
        let inits: Vec<_> =
            list.segments.iter().map(|s| s.init.clone().unwrap().name.clone()).collect();
        assert_eq!(inits[2..4], ["live/s/init.mp4", "live/s/init-1.mp4"]);
        assert_eq!(list.segments[2].duration_ms, 400);
        // The publisher drops and comes back; then it ends, and another one begins.
        rig.live.end_segments();
        let before = rig.list().next_number();
        rig.live.park(1_000_000_000);
        rig.live.resume(2_000_000_000);
        rig.headers();
        (0..60).for_each(|index| rig.frame(index, 25));
        let list = rig.list();
        let first = list.segments.iter().find(|s| s.number == before).unwrap();
        assert!(first.discontinuity);
        rig.live.end_segments();
        let before = rig.list().next_number();
        rig.live = Rig::live(&rig.arena, &rig.registry, &rig.stream, &rig.options);
        assert!(rig.list().has_begun(), "the playlist stays");
        rig.headers();
        (0..60).for_each(|index| rig.frame(index, 25));
        let list = rig.list();
        let first = list.segments.iter().find(|s| s.number == before).unwrap();
        assert!(first.discontinuity && list.target_s == 2);
    }

    #[test]
    fn parts_are_pieces_of_segments() {
        let mut rig = Rig::new(options(200, true));
        rig.headers();
        let mut seen: BTreeMap<String, Vec<u8>> = BTreeMap::new();
        for index in 0..400 {
            rig.frame(index, 25);
            let list = rig.list();
            let Some(open) = &list.open else { continue };
            assert_eq!(open.hint, format!("live/s-{}.{}.m4s", open.number, open.parts.len()));
            for part in &open.parts {
                let bytes = bytes(&part.pieces);
                assert_eq!(*seen.entry(part.name.clone()).or_insert(bytes.clone()), bytes);
                assert!(part.duration_ms <= list.part_target_ms.unwrap());
            }
        }
        let list = rig.list();
        for segment in list.segments.iter().skip(1) {
            assert_eq!(segment.parts.len(), 10);
            let joined: Vec<u8> = segment.parts.iter().flat_map(|p| bytes(&p.pieces)).collect();
            assert_eq!(joined, bytes(&segment.pieces));
            assert!(segment.parts[0].independent && !segment.parts[1].independent);
            assert!(list.part(&segment.parts[3].name).is_some());
        }
        assert!(seen.len() > 60);
        assert!(list.has(list.next_number(), Some(0)) && !list.has(list.next_number() + 1, None));
    }

    /// Ten minutes with a publisher that comes back in the middle and GOPs of many lengths, looked
    /// at as players do: all of the playlist, and what is new of it.
    #[test]
    fn playlists_keep_the_rules_for_ten_minutes() {
        for (part_ms, fmp4, gops) in [
            (0, false, &[50][..]),
            (0, true, &[50, 13, 77, 250, 30]),
            (200, true, &[25]),
            (330, true, &[50, 25, 75]),
            (200, false, &[60]),
        ] {
            let mut rig = Rig::new(SegmentOptions { window_ms: 30_000, ..options(part_ms, fmp4) });
            rig.headers();
            let (mut checker, mut loads, mut skips) = (Checker::default(), 0, 0);
            let mut published = true;
            let mut frames = 0;
            for turn in 0..15_000u32 {
                if turn == 7_000 {
                    rig.live.end_segments();
                    rig.live.park(1_000_000_000);
                    published = false;
                } else if turn == 7_100 {
                    rig.live.resume(5_000_000_000);
                    rig.headers();
                    (published, frames) = (true, 0);
                }
                if published {
                    let gop = gops[(turn / 500) as usize % gops.len()];
                    rig.frame(frames, gop);
                    frames += 1;
                }
                let now = f64::from(turn) * 0.04;
                let list = rig.list();
                if turn % 5 != 0 || !list.has_begun() {
                    continue;
                }
                let text = |skip| String::from_utf8(playlist::text(&list, skip, "?w")).unwrap();
                let whole = text(false);
                // Somebody who is back for two seconds cannot have much yet.
                let goes_on = published && !(7_100..7_200).contains(&turn);
                let case = format!("parts of {part_ms} ms, {gops:?}, at {now} s");
                let read = checker.load(now, goes_on, &whole);
                let read = read.unwrap_or_else(|why| panic!("{case}: {why} in\n{whole}"));
                loads += 1;
                if part_ms > 0 {
                    let delta = Playlist::parse(&text(true)).unwrap();
                    let skipped = delta.skipped as usize;
                    assert_eq!(read.segments[skipped..].len(), delta.segments.len(), "{case}");
                    assert_eq!((read.open.number, &read.hint), (delta.open.number, &delta.hint));
                    skips += skipped;
                    assert!(read.hint.is_some() || !published, "{case}");
                }
            }
            assert!(loads > 2_900);
            let all = checker.segments();
            // Nothing is missing between the first and the last.
            assert_eq!(all.len() as u64, all.last_key_value().unwrap().0 + 1);
            assert_eq!(all.values().filter(|segment| segment.discontinuity).count(), 1);
            let seconds: f64 = all.values().map(|segment| segment.duration).sum();
            assert!((590.0..600.5).contains(&seconds), "{seconds} s");
            assert_eq!(skips > 0, part_ms > 0);
        }
    }

    /// The tracks that the fragments of some bytes are of.
    fn fragments(bytes: &[u8]) -> Vec<u8> {
        let (mut at, mut out) = (0, Vec::new());
        while at < bytes.len() {
            let size = u32::from_be_bytes(*bytes[at..].first_chunk().unwrap()) as usize;
            match &bytes[at + 4..at + 8] {
                // moof(mfhd traf(tfhd: its head, flags, the track)).
                b"moof" => out.push(bytes[at + 8 + 16 + 8 + 15]),
                b"mdat" | b"prft" => {}
                other => panic!("{other:?} at {at}"),
            }
            at += size;
        }
        assert_eq!(at, bytes.len());
        out
    }

    /// Ten minutes with a publisher that comes back, and tracks that change: what segments have of
    /// each track is that and nothing else, and manifests keep the rules.
    #[test]
    fn tracks_are_segments_of_their_own() {
        for (part_ms, gops) in [(0, &[50][..]), (200, &[50, 13, 77, 250, 30])] {
            let name = Template::parse("[app]/[stream].mpd").unwrap();
            let dash = Some(DashOptions { window_ms: 12_000, update_ms: 5_000, name });
            let mut rig = Rig::new(SegmentOptions { dash, ..options(part_ms, true) });
            rig.headers();
            let mut checker = crate::proto::dash::check::Checker::default();
            let mut frames = 0;
            for turn in 0..15_000u32 {
                if turn == 7_000 {
                    rig.live.end_segments();
                    rig.live.park(1_000_000_000);
                    rig.live.resume(1_040_000_000);
                    rig.headers();
                    frames = 0;
                } else if turn == 9_000 {
                    rig.live.write(Kind::Audio, rig.now, &[0xaf, 0, 0x11, 0x90]).unwrap();
                }
                rig.frame(frames, gops[(turn / 500) as usize % gops.len()]);
                frames += 1;
                let list = rig.list();
                if turn % 10 != 0 || !list.has_begun() {
                    continue;
                }
                let text = super::super::manifest::text(&list, true, "s.mpd", "?w");
                let text = String::from_utf8(text).unwrap();
                let wall_ms = 1_800_000_000_000 + i64::from(rig.now);
                let read = checker.load(wall_ms, &text);
                let read = read.unwrap_or_else(|why| panic!("{why} in\n{text}"));
                assert!(read.periods.len() <= 3 && read.update.unwrap() <= 5.0);
                let Some(newest) = read.newest("video") else { continue };
                let uri = &newest.segments.last().unwrap().uri;
                assert_eq!(
                    *uri,
                    format!("s/video-{}.m4s?w", newest.segments.last().unwrap().number)
                );
            }
            let periods: std::collections::BTreeSet<&str> =
                checker.segments().keys().map(|(period, ..)| period.as_str()).collect();
            assert_eq!(periods.len(), 3);
            let list = rig.list();
            assert!(list.track_init("live/s/video-init.mp4").is_some());
            for segment in &list.segments {
                let mut both = 0;
                for (track, own) in segment.tracks.iter().enumerate() {
                    let own = own.as_ref().unwrap();
                    let (there, found) = list.track(track, own.number).unwrap();
                    assert_eq!((there.number, found.bytes), (segment.number, own.bytes));
                    let tracks = fragments(&bytes(&own.pieces));
                    assert!(tracks.iter().all(|id| usize::from(*id) == track + 1), "{tracks:?}");
                    both += own.bytes;
                }
                assert_eq!(both, segment.bytes);
            }
        }
    }

    /// ffmpeg that loops a file with B-frames: at the seam pictures are decoded later and shown in
    /// time.
    #[test]
    fn no_segment_of_a_track_reaches_into_the_next() {
        let name = Template::parse("[app]/[stream].mpd").unwrap();
        let dash = Some(DashOptions { window_ms: 12_000, update_ms: 5_000, name });
        let mut rig = Rig::new(SegmentOptions { dash, ..options(0, true) });
        rig.headers();
        let mut checker = crate::proto::dash::check::Checker::default();
        for index in 0..1_000u32 {
            (rig.composition, rig.now) = match index % 200 {
                0 => (80, rig.now),
                100 => (59, rig.now + 21),
                _ => (rig.composition, rig.now),
            };
            rig.frame(index, 50);
            let list = rig.list();
            if index % 50 == 0 && list.has_begun() {
                let text = super::super::manifest::text(&list, true, "s.mpd", "?w");
                let text = String::from_utf8(text).unwrap();
                let read = checker.load(1_800_000_000_000 + i64::from(rig.now), &text);
                read.unwrap_or_else(|why| panic!("{why} in\n{text}"));
            }
        }
        let segments = checker.segments();
        let video = segments.iter().filter(|((_, track, _), _)| track == "video");
        let lengths: Vec<i64> = video.map(|(_, (_, length))| *length).collect();
        assert!(lengths.len() > 10 && lengths.contains(&180_000), "{lengths:?}");
    }

    #[test]
    fn memory_has_a_limit() {
        let mut rig = Rig::new(options(0, false));
        rig.registry.segments.set_limit(200_000);
        rig.headers();
        (0..1_000).for_each(|index| rig.frame(index, 25));
        let list = rig.list();
        // Three target durations are kept in any case.
        assert_eq!((list.listed().count(), list.unlisted), (3, 0));
        assert!(rig.live.segmenters()[0].take_short());
        rig.registry.segments.set_limit(u64::MAX);
        (1_000..1_600).for_each(|index| rig.frame(index, 25));
        assert_eq!(rig.list().listed().count(), 5);
        let used = rig.registry.segments.used();
        assert!(used > 0);
        rig.stream.set_segments(None);
        drop((list, rig.live));
        assert_eq!(rig.registry.segments.used(), 0);
    }

    #[test]
    fn names_have_numbers() {
        assert_eq!(numbered("a.b/s-7.ts", ".", 3), "a.b/s-7.3.ts");
        assert_eq!(numbered("a.b/s", "-", 3), "a.b/s-3");
        assert_eq!(without_number("a/s-7.3.ts", "."), Some(("a/s-7.ts".into(), "3")));
        assert_eq!(without_number("a/init-12.mp4", "-"), Some(("a/init.mp4".into(), "12")));
        assert_eq!(without_number("a/s-7.ts", "."), None);
    }
}

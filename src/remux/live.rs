//! What a publisher sends, written into the feeds of its stream.
//!
//! [`Live`] is the one writer of a stream. It belongs to the publisher's session; when that ends
//! it is kept by the stream for the hold, and the next publisher goes on with it, so that players
//! see one log with one timeline across reconnects.

use bytes::Bytes;
use uring::Arena;

use super::mux::Muxed;
use super::packed::{HttpOptions, Packed, Writers};
use super::segmenter::Segmenter;
use super::{Stream, flv, rtmp, wrap};
use crate::hub::feed::GopLimits;
use crate::hub::stream::Tracks;
use crate::hub::{Container, FeedWriter, Flags, Format, Reason};
use crate::limits;
use crate::media::Kind;
use crate::media::tag::{self, Picked, TagError, TagKind, TrackPicker};
use crate::media::time::Timeline;
use crate::media::track::{AudioTrack, VideoTrack};
use crate::proto::ts::Unfit;

/// What a stream's writer is told by the configuration.
#[derive(Clone, Debug)]
pub struct LiveOptions {
    /// Outgoing RTMP chunk size of the vhost, bytes.
    pub chunk_size: u32,
    /// How much of the past is kept for newcomers.
    pub gop: GopLimits,
    /// A repeated, identical sequence header is not sent again.
    pub reduce_sequence_header: bool,
    /// What HTTP players get.
    pub http: HttpOptions,
}

/// What became of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is in the feeds.
    Written {
        /// A keyframe.
        keyframe: bool,
        /// The publisher's clock jumped before it.
        discontinuity: bool,
    },
    /// It is not, and the stream goes on.
    Dropped(Reason),
}

/// The stream cannot be carried.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Refused(pub TagError);

/// The writer of one stream.
#[derive(Debug)]
pub struct Live {
    options: LiveOptions,
    arena: Arena,
    timeline: Timeline,
    /// onMetaData as players get it.
    metadata: Option<Vec<u8>>,
    audio_header: Option<Vec<u8>>,
    video_header: Option<Vec<u8>>,
    /// Tracks seen, and tracks the metadata speaks of.
    seen: TrackSet,
    declared: TrackSet,
    pickers: [TrackPicker; 2],
    writers: Writers,
    /// Containers that are not made of messages.
    packed: Packed,
    /// Containers in which the stream was asked for in vain, since this was last asked.
    refusals: Vec<(Container, Unfit)>,
    /// The beginning of the first audio frame of a codec without sequence header.
    audio_sample: Option<Vec<u8>>,
    /// When what is written now has come, ms since 1970; 0: not known.
    wall_ms: i64,
    /// A sequence header (audio, video) had to be dropped: it goes before the next frame.
    headers_due: [bool; 2],
    /// A message had to be dropped: pictures wait for the next keyframe.
    need_keyframe: bool,
    /// Stream time of the first frame, ms.
    first_time: Option<i64>,
    /// The FLV header's flags are final: all tracks were seen, or waited for long enough.
    settled: bool,
    video_track: Option<VideoTrack>,
    audio_track: Option<AudioTrack>,
    tracks_changed: bool,
    noted: Noted,
    /// Goes up whenever metadata or a sequence header changes.
    headers: u32,
    /// When the last publisher left, ns.
    left_at: u64,
    /// Looks in a row at which a format had no follower.
    unused: [u32; Format::COUNT],
}

/// What tells whether players will have trouble with a stream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Noted {
    /// Pictures whose presentation time differs from their decoding time: B-frames.
    pub reordered: u64,
    /// Stream time between the last two keyframes, ms; 0 before there are two.
    pub gop_ms: i64,
    /// Stream time of the last keyframe, ms.
    pub keyframe_ms: Option<i64>,
    /// Stream time of the last picture, ms.
    pub video_ms: i64,
    /// Stream time of the last audio frame, ms.
    pub audio_ms: i64,
    /// Timestamps that lay before the one before them, of the same track.
    pub backward: u64,
    /// The last timestamp of audio and of video, as received.
    wire: [Option<u32>; 2],
}

impl Noted {
    fn frame(&mut self, flags: Flags, wire_time: u32, time: i64) {
        let video = flags.has(Flags::VIDEO);
        let before = self.wire[usize::from(video)].replace(wire_time);
        self.backward +=
            u64::from(before.is_some_and(|before| wire_time.wrapping_sub(before) > u32::MAX / 2));
        if !video {
            self.audio_ms = time;
            return;
        }
        self.video_ms = time;
        if flags.has(Flags::KEYFRAME)
            && let Some(before) = self.keyframe_ms.replace(time)
        {
            self.gop_ms = time - before;
        }
    }
}

/// Audio and video, yes or no.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct TrackSet {
    audio: bool,
    video: bool,
}

impl Live {
    /// A writer with an open RTMP feed, which is also the GOP cache.
    pub fn new(options: LiveOptions, arena: Arena) -> Live {
        let packed = Packed::new(options.http);
        let mut live = Live {
            options,
            packed,
            refusals: Vec::new(),
            audio_sample: None,
            wall_ms: 0,
            arena,
            timeline: Timeline::new(),
            metadata: None,
            audio_header: None,
            video_header: None,
            seen: TrackSet::default(),
            declared: TrackSet::default(),
            pickers: Default::default(),
            writers: Default::default(),
            headers_due: [false; 2],
            need_keyframe: false,
            first_time: None,
            settled: false,
            video_track: None,
            audio_track: None,
            tracks_changed: false,
            noted: Noted::default(),
            headers: 0,
            left_at: 0,
            unused: [0; Format::COUNT],
        };
        live.writers[Format::Rtmp.index()] = Some(live.new_writer(Format::Rtmp));
        live
    }

    /// The stream is to be had in segments from its beginning on.
    pub fn add_segmenter(&mut self, segmenter: Segmenter) {
        self.packed.add_segmenter(segmenter);
    }

    /// Make the segments, if there are any.
    pub fn segmenters(&mut self) -> &mut [Segmenter] {
        self.packed.segmenters()
    }

    /// True once when a container is to be opened that segments need.
    pub fn take_fell_back(&mut self) -> bool {
        self.packed.take_fell_back()
    }

    /// Units that are missing in segments of HLS since this was last asked.
    pub fn take_missing(&mut self) -> u64 {
        self.packed.take_missing()
    }

    /// Ends HLS of the stream.
    pub fn end_hls(&mut self) {
        self.packed.end_hls();
    }

    /// The publisher leaves: the segment that is being written ends.
    pub fn end_segments(&mut self) {
        self.packed.interrupt_segments(&mut self.writers, false);
    }

    /// The publisher left at `now` (ns).
    pub fn park(&mut self, now: u64) {
        self.left_at = now;
    }

    /// When the last publisher left, ns.
    pub fn left_at(&self) -> u64 {
        self.left_at
    }

    /// Another publisher takes over at `now` (ns). Pictures wait for its first keyframe, because
    /// those it sends before refer to pictures nobody has.
    pub fn resume(&mut self, now: u64) {
        self.timeline.reconnect(now.saturating_sub(self.left_at) / 1_000_000);
        self.pickers = Default::default();
        self.noted.wire = [None; 2];
        self.need_keyframe = self.seen.video;
    }

    /// Takes over what may change while a stream is published; the chunk size may not.
    pub fn set_options(&mut self, gop: GopLimits, reduce_sequence_header: bool) {
        self.options.gop = gop;
        self.options.reduce_sequence_header = reduce_sequence_header;
        for writer in self.writers.iter_mut().flatten() {
            writer.set_gop(gop);
        }
    }

    /// Puts the feeds of this writer into their places in the stream.
    pub fn attach(&self, stream: &Stream) {
        for format in Format::ALL {
            let writer = self.writers[format.index()].as_ref();
            stream.set_feed(format, writer.map(|w| w.feed().clone()));
        }
    }

    /// Takes the feeds out of the stream: newcomers wait for the next publisher.
    pub fn detach(&self, stream: &Stream) {
        for writer in self.writers.iter().flatten() {
            stream.clear_feed(writer.feed());
        }
    }

    /// Opens what is wanted and not open yet, filled with the GOP that is kept.
    /// True when something was opened.
    pub fn open_wanted(&mut self, stream: &Stream) -> bool {
        let mut opened = false;
        for format in stream.wanted() {
            if self.writers[format.index()].is_some() {
                continue;
            }
            if !self.packed.has_refused(format.container()) {
                let writer = self.backfilled(format);
                stream.set_feed(format, Some(writer.feed().clone()));
                self.writers[format.index()] = Some(writer);
                opened = true;
            } else if stream.feed(format).is_none() {
                // Another framing was sent away before; who asks for this one is told as well.
                let writer = self.new_writer(format);
                stream.set_feed(format, Some(writer.feed().clone()));
                writer.refuse();
                opened = true;
            }
        }
        if opened {
            self.refuse_unfit();
        }
        opened
    }

    /// Asks for the formats that are kept whether or not somebody plays them.
    pub fn want_kept(&self, stream: &Stream) {
        for container in Container::OVER_HTTP {
            if self.options.http.keeps(container) {
                container.formats().iter().for_each(|format| stream.want(*format));
            }
            if self.packed.segments(container) {
                stream.want(container.formats()[0]);
            }
        }
    }

    /// Says when what is written from now on has come, ms since 1970.
    pub fn note_wall_clock(&mut self, wall_ms: i64) {
        self.wall_ms = wall_ms;
    }

    /// Containers in which the stream was asked for in vain, since this was last asked.
    pub fn take_refusals(&mut self) -> Vec<(Container, Unfit)> {
        std::mem::take(&mut self.refusals)
    }

    /// Frames that were left out of a container, since this was last asked.
    pub fn take_skipped(&mut self) -> u64 {
        self.packed.take_skipped()
    }

    /// Once the tracks are known: ends the feeds that have no place for one of them.
    fn refuse_unfit(&mut self) {
        if self.settled {
            self.refusals.extend(self.packed.refuse_unfit(&mut self.writers));
        }
    }

    /// Closes formats that nobody follows; the RTMP feed stays.
    pub fn close_unfollowed(&mut self, stream: &Stream) {
        for format in Format::ALL {
            if format == Format::Rtmp {
                continue;
            }
            let container = format.container();
            let Some(writer) = &self.writers[format.index()] else {
                // Players were sent away by this feed; with other tracks they need not be.
                let feed = stream.feed(format).filter(|feed| feed.refused());
                if let Some(feed) = feed.filter(|_| !self.packed.has_refused(container)) {
                    stream.clear_feed(&feed);
                }
                continue;
            };
            let cut = self.packed.segments(container) && format == container.formats()[0];
            if cut || self.options.http.keeps(container) {
                continue;
            }
            let unused = &mut self.unused[format.index()];
            *unused = if writer.feed().is_followed() { 0 } else { *unused + 1 };
            // Who leaves often comes back at once; opening costs a copy of the GOP.
            if *unused > limits::FEED_UNUSED_TICKS && writer.feed().close_if_unfollowed() {
                stream.unwant(format);
                stream.clear_feed(writer.feed());
                self.writers[format.index()] = None;
                let siblings = container.formats();
                if siblings.iter().all(|format| self.writers[format.index()].is_none()) {
                    self.packed.close(container);
                }
            }
        }
    }

    /// What is in the stream, when that has changed since the last call.
    pub fn tracks_if_changed(&mut self) -> Option<Tracks> {
        std::mem::take(&mut self.tracks_changed).then(|| Tracks {
            video: self.video_track.as_ref().map(ToString::to_string),
            audio: self.audio_track.as_ref().map(ToString::to_string),
            video_track: self.video_track.clone(),
            audio_track: self.audio_track.clone(),
        })
    }

    /// What was noted so far.
    pub fn noted(&self) -> &Noted {
        &self.noted
    }

    /// onMetaData, rewritten for players.
    pub fn write_metadata(&mut self, wire_time: u32, payload: Vec<u8>, declared: (bool, bool)) {
        let time = self.timeline.map_header(wire_time);
        self.declared = TrackSet { audio: declared.0, video: declared.1 };
        let first = self.metadata.is_none();
        self.headers += u32::from(self.metadata.as_ref() != Some(&payload));
        self.metadata = Some(payload);
        // Told before it is appended, as all headers: see `Mirror::entrance`.
        self.refresh_joins(time);
        if first || !self.options.reduce_sequence_header {
            let payload = self.metadata.take().unwrap_or_default();
            // Metadata is a courtesy: when there is no memory for it, players do without.
            let _ = self.append_all(Flags::DATA, time, &payload);
            self.metadata = Some(payload);
        }
    }

    /// An audio or video message.
    ///
    /// # Errors
    /// The codec is not one this server carries: the publish is to be ended.
    pub fn write(
        &mut self,
        kind: Kind,
        wire_time: u32,
        payload: &[u8],
    ) -> Result<Outcome, Refused> {
        let video = kind == Kind::Video;
        let picked = match self.pickers[usize::from(video)].pick(payload, video) {
            Ok(picked) => picked,
            Err(error) => return refuse_or_drop(error),
        };
        let owned;
        let payload = match picked {
            Picked::AsIs => payload,
            Picked::Track(single) => {
                owned = single;
                &owned[..]
            }
            Picked::Other => return Ok(Outcome::Dropped(Reason::MessageDroppedTrack)),
        };
        if video {
            self.write_video(wire_time, payload)
        } else {
            self.write_audio(wire_time, payload)
        }
    }

    fn write_video(&mut self, wire_time: u32, payload: &[u8]) -> Result<Outcome, Refused> {
        let tag = match tag::video(payload) {
            Ok(tag) => tag,
            Err(error) => return refuse_or_drop(error),
        };
        // For people only: what cannot be read of a track never stops it.
        let known = self.video_track.is_some();
        let track = self.video_track.get_or_insert_with(|| VideoTrack::new(tag.codec));
        self.tracks_changed |= track.learn(&tag, payload).unwrap_or(false) || !known;
        match tag.kind {
            TagKind::SequenceHeader => {
                let same = self.video_header.as_deref() == Some(payload);
                let before = self.video_header.replace(payload.to_vec());
                self.seen.video = true;
                Ok(self.write_header(Flags::VIDEO, wire_time, payload, before.is_some(), same))
            }
            TagKind::Frame => {
                self.seen.video = true;
                if self.need_keyframe && !tag.keyframe {
                    return Ok(Outcome::Dropped(Reason::MessageDroppedUntilKeyframe));
                }
                self.need_keyframe = false;
                self.noted.reordered += u64::from(tag.composition_ms != 0);
                let flags =
                    if tag.keyframe { Flags::VIDEO | Flags::KEYFRAME } else { Flags::VIDEO };
                Ok(self.write_frame(flags, wire_time, payload, tag.keyframe))
            }
            TagKind::SequenceEnd | TagKind::Metadata | TagKind::Command => {
                let time = self.timeline.map_header(wire_time);
                Ok(self.append_or_drop(Flags::VIDEO, time, payload))
            }
        }
    }

    fn write_audio(&mut self, wire_time: u32, payload: &[u8]) -> Result<Outcome, Refused> {
        let tag = match tag::audio(payload) {
            Ok(tag) => tag,
            Err(error) => return refuse_or_drop(error),
        };
        let first = !self.seen.audio;
        self.seen.audio = true;
        let known = self.audio_track.is_some();
        let track = self.audio_track.get_or_insert_with(|| AudioTrack::new(tag.codec));
        self.tracks_changed |= track.learn(&tag, payload).unwrap_or(false) || !known;
        match tag.kind {
            TagKind::SequenceHeader => {
                let same = self.audio_header.as_deref() == Some(payload);
                let before = self.audio_header.replace(payload.to_vec());
                self.audio_sample = None;
                Ok(self.write_header(Flags::AUDIO, wire_time, payload, before.is_some(), same))
            }
            TagKind::Frame => {
                if !tag.codec.has_sequence_header() && self.audio_sample.is_none() {
                    self.audio_sample = Some(payload[..payload.len().min(SAMPLE_BYTES)].to_vec());
                }
                Ok(self.write_frame(Flags::AUDIO, wire_time, payload, first))
            }
            TagKind::SequenceEnd | TagKind::Metadata | TagKind::Command => {
                let time = self.timeline.map_header(wire_time);
                Ok(self.append_or_drop(Flags::AUDIO, time, payload))
            }
        }
    }

    /// A sequence header: kept for newcomers, sent to players. One that differs from the one
    /// before ends the GOP that is kept, since newcomers could not decode it with the new one.
    fn write_header(
        &mut self,
        track: Flags,
        wire_time: u32,
        payload: &[u8],
        known: bool,
        same: bool,
    ) -> Outcome {
        let time = self.timeline.map_header(wire_time);
        if same && self.options.reduce_sequence_header {
            return Outcome::Written { keyframe: false, discontinuity: false };
        }
        self.headers += u32::from(!same);
        if !same {
            self.packed.tracks_changed();
            self.packed.interrupt_segments(&mut self.writers, true);
            self.packed.learn(track.kind(), payload);
        }
        if known && !same && self.first_time.is_some() {
            for writer in self.writers.iter_mut().flatten() {
                writer.restart_gop_here(time);
            }
        }
        // Newcomers are told of a header before it is appended. The other way round, one that joins
        // at the live end between the two would be past the header and not have it in its prologue.
        self.refresh_joins(time);
        let outcome = self.append_or_drop(track | Flags::SEQUENCE_HEADER, time, payload);
        self.headers_due[track_index(track)] = matches!(outcome, Outcome::Dropped(_));
        if !same {
            // Where all is known before the first frame, nothing of it has to be left out.
            self.settled |= self.all_tracks_seen();
            self.refuse_unfit();
        }
        outcome
    }

    /// A sequence header that was dropped for want of memory goes before the next frame of its
    /// track, which cannot be decoded without it. False when there is still no memory.
    fn append_header_due(&mut self, track: Flags, time: i64) -> bool {
        let index = track_index(track);
        if !self.headers_due[index] {
            return true;
        }
        let header = if index == 1 { &mut self.video_header } else { &mut self.audio_header };
        let Some(payload) = header.take() else { return true };
        let done = self.append_all(track | Flags::SEQUENCE_HEADER, time, &payload).is_ok();
        let header = if index == 1 { &mut self.video_header } else { &mut self.audio_header };
        *header = Some(payload);
        self.headers_due[index] = !done;
        done
    }

    fn write_frame(&mut self, flags: Flags, wire_time: u32, payload: &[u8], join: bool) -> Outcome {
        let mapped = self.timeline.map(wire_time);
        self.packed.note_wire_time(wire_time.into());
        self.noted.frame(flags, wire_time, mapped.dts);
        let join = join || self.first_time.is_none();
        let first = *self.first_time.get_or_insert(mapped.dts);
        let track = if flags.has(Flags::VIDEO) { Flags::VIDEO } else { Flags::AUDIO };
        if self.settled || self.all_tracks_seen() {
            self.packed.segmenters().iter_mut().for_each(Segmenter::set_ready);
        }
        let outcome = if self.append_header_due(track, mapped.dts) {
            self.append_or_drop(flags, mapped.dts, payload)
        } else {
            self.dropped(flags, mapped.dts)
        };
        let Outcome::Written { keyframe, .. } = outcome else { return outcome };
        let waited = mapped.dts - first >= TRACKS_WAIT_MS;
        let settles = !self.settled && (waited || self.all_tracks_seen());
        self.settled |= settles;
        if settles {
            self.refuse_unfit();
        }
        let due = self.packed.take_joins_due();
        // The join moves with each keyframe; beside that only once, when the tracks are known.
        if join || settles {
            self.refresh_joins(mapped.dts);
        } else {
            // Without pictures, there are other places to start.
            for format in due.flat_map(Container::formats) {
                self.refresh_join(*format, mapped.dts);
            }
        }
        Outcome::Written { keyframe, discontinuity: mapped.discontinuity }
    }

    fn append_or_drop(&mut self, flags: Flags, time: i64, payload: &[u8]) -> Outcome {
        if self.append_all(flags, time, payload).is_ok() {
            let keyframe = flags.has(Flags::KEYFRAME);
            return Outcome::Written { keyframe, discontinuity: false };
        }
        self.dropped(flags, time)
    }

    fn dropped(&mut self, flags: Flags, time: i64) -> Outcome {
        // Over the media memory: the GOP that is kept goes first, then pictures until the next
        // keyframe. Players keep what they have.
        for writer in self.writers.iter_mut().flatten() {
            writer.forget_gop();
        }
        self.need_keyframe |= flags.has(Flags::VIDEO);
        self.refresh_joins(time);
        Outcome::Dropped(Reason::MessageDroppedMemory)
    }

    fn append_all(
        &mut self,
        flags: Flags,
        time: i64,
        payload: &[u8],
    ) -> Result<(), uring::ArenaFull> {
        let wall_ms = self.wall_ms;
        let mut result = self.packed.append(&mut self.writers, flags, time, payload, wall_ms);
        for format in Format::VERBATIM {
            if format != Format::Rtmp && !self.options.http.passes(flags) {
                continue;
            }
            if let Some(writer) = self.writers[format.index()].as_mut() {
                let chunk_size = self.options.chunk_size;
                // One format without memory must not keep the message from the others.
                result = result.and(append(format, writer, chunk_size, flags, time, payload));
            }
        }
        result
    }

    /// Tells newcomers of every open format how to start.
    fn refresh_joins(&mut self, time: i64) {
        for format in Format::ALL {
            self.refresh_join(format, time);
        }
    }

    fn refresh_join(&mut self, format: Format, time: i64) {
        if let Some(writer) = self.writers[format.index()].take() {
            self.writers[format.index()] = Some(self.with_join(writer, time));
        }
    }

    fn with_join(&mut self, mut writer: FeedWriter, time: i64) -> FeedWriter {
        let format = writer.feed().format();
        // Before the first frame nobody knows where the stream's clock stands. Who came early
        // waits, so that its headers and, where it has a time base of its own, its first frame
        // are at the right time.
        if self.first_time.is_none() {
            return writer;
        }
        // The FLV header says which tracks follow and cannot be taken back: while that is not
        // known, FLV players wait (SRS: `guess_has_av`).
        let container = format.container();
        let http = &self.options.http;
        let told = self.settled || (container == Container::Flv && !http.guess);
        if container != Container::Rtmp && !told {
            return writer;
        }
        if !container.is_verbatim() {
            let needs_video = self.seen.video && (http.guess || http.has_video);
            let ready = self
                .packed
                .muxer(container)
                .is_some_and(|muxer| muxer.has_tracks() && (muxer.knows_video() || !needs_video));
            if !ready {
                return writer;
            }
        }
        // Nothing a newcomer gets first may be later than what it gets next.
        let time = writer.start_time().unwrap_or(time);
        let (prologue, messages_at) = self.prologue(format, time);
        writer.set_join(prologue, messages_at, time, self.headers);
        writer
    }

    /// True when both tracks, or all that the metadata speaks of, have been seen.
    fn all_tracks_seen(&self) -> bool {
        let both = self.seen.audio && self.seen.video;
        both || (self.seen == self.declared && self.declared != TrackSet::default())
    }

    /// Metadata, audio header, video header, in the order SRS sends them.
    fn prologue(&mut self, format: Format, time: i64) -> (Bytes, usize) {
        let mut out = Vec::new();
        if let Some(muxer) = self.packed.muxer(format.container()) {
            let bytes = muxer.prologue();
            if let Some(framing) = wrap::framing(format) {
                wrap::write(&mut out, framing, &bytes);
            }
            return (Bytes::from(out), 0);
        }
        let framing = flv::framing(format);
        let http = &self.options.http;
        if let Some(framing) = framing {
            let (audio, video) = match http.guess {
                true => (self.seen.audio, self.seen.video),
                false => (http.has_audio, http.has_video),
            };
            flv::write_file_header(&mut out, framing, audio, video);
        }
        let messages_at = out.len();
        let audio = Flags::AUDIO | Flags::SEQUENCE_HEADER;
        let video = Flags::VIDEO | Flags::SEQUENCE_HEADER;
        for (flags, payload) in [
            (Flags::DATA, &self.metadata),
            (audio, &self.audio_header),
            (video, &self.video_header),
        ] {
            let Some(payload) = payload else { continue };
            match framing {
                Some(_) if !http.passes(flags) => {}
                Some(framing) => flv::write(&mut out, framing, flags, time, payload),
                None => rtmp::write(&mut out, self.options.chunk_size, flags, time, payload),
            }
        }
        (Bytes::from(out), messages_at)
    }

    fn new_writer(&self, format: Format) -> FeedWriter {
        let gop = match self.options.http.keeps(format.container()) {
            true => GopLimits { enabled: true, messages: u32::MAX, bytes: KEPT_AUDIO_BYTES_MAX },
            false => self.options.gop,
        };
        FeedWriter::new(format, self.arena.clone(), gop)
    }

    /// A feed of another format that begins with the GOP the RTMP feed keeps.
    fn backfilled(&mut self, format: Format) -> FeedWriter {
        let mut writer = self.new_writer(format);
        if !format.container().is_verbatim() {
            return self.packed_backfilled(format, writer);
        }
        let http = self.options.http;
        let chunk_size = self.options.chunk_size;
        let mut time = self.timeline.last().unwrap_or(0);
        writer.set_time(time);
        if let Some(source) = &self.writers[Format::Rtmp.index()]
            && let Some(start) = source.start()
        {
            let mut first = None;
            let filled =
                rtmp::for_each_message(source.feed(), start, chunk_size, |flags, at, bytes| {
                    first.get_or_insert(at);
                    if format != Format::Rtmp && !http.passes(flags) {
                        return Ok(());
                    }
                    append(format, &mut writer, chunk_size, flags, at, bytes)
                });
            match filled {
                Ok(()) => time = first.unwrap_or(time),
                // Half a GOP is no start; newcomers begin live.
                Err(_) => writer.forget_gop(),
            }
        }
        self.with_join(writer, time)
    }

    /// The same for a container that is made of units: from another framing of it that is open, or
    /// by packing the GOP.
    fn packed_backfilled(&mut self, format: Format, mut writer: FeedWriter) -> FeedWriter {
        let container = format.container();
        let mut time = self.timeline.last().unwrap_or(0);
        writer.set_time(time);
        let Some(framing) = wrap::framing(format) else { return writer };
        let mut first = None;
        let filled = if self.packed.muxer(container).is_some() {
            let sibling = container.formats().iter().find_map(|sibling| {
                let writer = self.writers[sibling.index()].as_ref()?;
                Some((writer.feed(), writer.start()?, wrap::framing(*sibling)?))
            });
            sibling.map_or(Ok(()), |(feed, start, theirs)| {
                rtmp::for_each_framed(feed, start, |flags, at, bytes| {
                    first.get_or_insert(at);
                    wrap::append(&mut writer, framing, flags, at, wrap::unwrap(theirs, bytes))
                })
            })
        } else {
            let source = self.writers[Format::Rtmp.index()].as_ref();
            let source = source.and_then(|source| Some((source.feed(), source.start()?)));
            let muxer = self.packed.open(container);
            for (kind, payload) in [
                (Kind::Audio, &self.audio_header),
                (Kind::Audio, &self.audio_sample),
                (Kind::Video, &self.video_header),
            ] {
                if let Some(payload) = payload {
                    muxer.learn(kind, payload);
                }
            }
            source.map_or(Ok(()), |(feed, start)| {
                let chunk_size = self.options.chunk_size;
                rtmp::for_each_message(feed, start, chunk_size, |flags, at, payload| {
                    first.get_or_insert(at);
                    let kind = flags.kind();
                    if kind == Kind::Data {
                        return Ok(());
                    }
                    match muxer.message(kind, at, payload, 0) {
                        Muxed::Bytes(flags) => {
                            wrap::append(&mut writer, framing, flags, at, muxer.bytes())
                        }
                        Muxed::Nothing | Muxed::Skipped => Ok(()),
                    }
                })
            })
        };
        match filled {
            Ok(()) => time = first.unwrap_or(time),
            Err(_) => writer.forget_gop(),
        }
        self.with_join(writer, time)
    }
}

/// Bytes of a first audio frame that are enough to know what it is.
const SAMPLE_BYTES: usize = 64;
/// Most bytes of the past that are kept of plain audio (`fast_cache`).
const KEPT_AUDIO_BYTES_MAX: u64 = 64 << 20;

/// Place of a track in tables: audio, video.
fn track_index(track: Flags) -> usize {
    usize::from(track.has(Flags::VIDEO))
}

/// How long FLV players wait to learn whether a second track comes, in stream time.
const TRACKS_WAIT_MS: i64 = 500;

fn append(
    format: Format,
    writer: &mut FeedWriter,
    chunk_size: u32,
    flags: Flags,
    time: i64,
    payload: &[u8],
) -> Result<(), uring::ArenaFull> {
    match flv::framing(format) {
        Some(framing) => flv::append(writer, framing, flags, time, payload),
        None => rtmp::append(writer, chunk_size, flags, time, payload),
    }
}

/// A codec that is not carried ends the publish; a message that cannot be read is dropped.
fn refuse_or_drop(error: TagError) -> Result<Outcome, Refused> {
    match error {
        TagError::Unsupported(_) => Err(Refused(error)),
        TagError::Malformed(_) | TagError::OverLimit(_) => {
            Ok(Outcome::Dropped(Reason::MessageDroppedMalformed))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hub::{Mirror, Position};
    use crate::media::name::StreamName;
    use std::sync::Arc;
    use uring::ArenaOptions;

    const AVC_HEADER: &[u8] = &[0x17, 0, 0, 0, 0, 1, 0x64, 0, 0x1f];
    const AVC_HEADER_2: &[u8] = &[0x17, 0, 0, 0, 0, 1, 0x42, 0, 0x1e];
    const AAC_HEADER: &[u8] = &[0xaf, 0, 0x12, 0x10];
    const KEY: &[u8] = &[0x17, 1, 0, 0, 0, 1, 2, 3];
    const INTER: &[u8] = &[0x27, 1, 0, 0, 0, 4, 5];
    const AUDIO: &[u8] = &[0xaf, 1, 9, 9, 9];

    struct Rig {
        live: Live,
        stream: Arc<Stream>,
    }

    fn rig(media_memory: usize) -> Rig {
        let arena = Arena::new(ArenaOptions { limit: media_memory, huge_pages: false }).unwrap();
        let gop = GopLimits { enabled: true, messages: 100, bytes: 1 << 30 };
        let options = LiveOptions {
            chunk_size: 60_000,
            gop,
            reduce_sequence_header: false,
            http: HttpOptions::default(),
        };
        let live = Live::new(options, arena);
        let name = StreamName::new("v", "live", "s").unwrap();
        let stream = super::super::Registry::default().open(&name).unwrap();
        live.attach(&stream);
        Rig { live, stream }
    }

    impl Rig {
        fn video(&mut self, time: u32, payload: &[u8]) -> Outcome {
            self.live.write(Kind::Video, time, payload).unwrap()
        }

        fn audio(&mut self, time: u32, payload: &[u8]) -> Outcome {
            self.live.write(Kind::Audio, time, payload).unwrap()
        }

        /// Times and flags of what a newcomer gets from the log.
        fn after_join(&self, format: Format) -> Vec<(i64, Flags)> {
            let feed = self.stream.feed(format).expect("open");
            let join = feed.join().expect("joinable");
            let mirror = Mirror::new(feed);
            let start = join.start.unwrap_or_else(|| mirror.live_end());
            let end = mirror.end();
            let mut out = Vec::new();
            for number in start.block..=end.block {
                let Some(block) = mirror.block(number) else { continue };
                for entry in block.entries() {
                    if (Position { block: number, offset: entry.offset }) >= start {
                        out.push((entry.time, Flags(entry.flags)));
                    }
                }
            }
            out
        }
    }

    #[test]
    fn a_newcomer_starts_at_the_last_keyframe() {
        let mut rig = rig(16 << 20);
        rig.video(0, AVC_HEADER);
        rig.audio(0, AAC_HEADER);
        for i in 0..10u32 {
            rig.video(i * 40, if i % 5 == 0 { KEY } else { INTER });
            rig.audio(i * 40 + 5, AUDIO);
        }
        let seen = rig.after_join(Format::Rtmp);
        assert_eq!(seen.first(), Some(&(200, Flags::VIDEO | Flags::KEYFRAME)));
        assert_eq!(seen.len(), 10);
        // A format that is opened later begins with the same GOP.
        rig.stream.want(Format::Flv);
        assert!(rig.live.open_wanted(&rig.stream));
        assert_eq!(rig.after_join(Format::Flv), seen);
        let join = rig.stream.feed(Format::Flv).unwrap().join().unwrap();
        assert_eq!(join.prologue[..5], *b"FLV\x01\x05");
        assert_eq!(join.time, 200);
    }

    #[test]
    fn a_changed_sequence_header_starts_anew() {
        let mut rig = rig(16 << 20);
        rig.video(0, AVC_HEADER);
        rig.video(0, KEY);
        rig.video(40, AVC_HEADER);
        assert_eq!(rig.after_join(Format::Rtmp)[0].1, Flags::VIDEO | Flags::KEYFRAME);
        rig.video(80, AVC_HEADER_2);
        assert_eq!(rig.after_join(Format::Rtmp)[0].1, Flags::VIDEO | Flags::SEQUENCE_HEADER);
        rig.video(120, KEY);
        assert_eq!(rig.after_join(Format::Rtmp)[0], (120, Flags::VIDEO | Flags::KEYFRAME));
    }

    #[test]
    fn a_header_is_told_to_newcomers_before_it_is_in_the_log() {
        let mut rig = rig(16 << 20);
        rig.live.write_metadata(0, b"meta one".to_vec(), (false, true));
        rig.video(0, AVC_HEADER);
        rig.video(0, KEY);
        let told = Arc::new(std::sync::Mutex::new(Vec::new()));
        let tell = Arc::clone(&told);
        let writer = rig.live.writers[Format::Rtmp.index()].as_mut().unwrap();
        writer.before_append = Some(Box::new(move |feed| {
            tell.lock().unwrap().push(feed.join().unwrap().prologue.clone());
        }));
        rig.live.write_metadata(40, b"meta two".to_vec(), (false, true));
        rig.video(80, AVC_HEADER_2);
        rig.audio(80, AAC_HEADER);
        rig.video(120, KEY);
        let told = told.lock().unwrap();
        let has = |at: usize, header: &[u8]| told[at].windows(header.len()).any(|w| w == header);
        assert_eq!(told.len(), 4);
        assert!(has(0, b"meta two") && !has(0, AVC_HEADER_2));
        assert!(has(1, AVC_HEADER_2) && !has(1, AAC_HEADER));
        assert!(has(2, AAC_HEADER));
    }

    #[test]
    fn a_gop_over_its_limit_is_let_go() {
        let mut rig = rig(16 << 20);
        rig.video(0, AVC_HEADER);
        rig.video(0, KEY);
        for i in 1..300u32 {
            rig.video(i * 40, INTER);
        }
        let join = rig.stream.feed(Format::Rtmp).unwrap().join().unwrap();
        assert_eq!(join.start, None);
        assert!(rig.live.arena.stats().blocks <= 3, "{:?}", rig.live.arena.stats());
    }

    #[test]
    fn another_publisher_waits_for_its_keyframe_and_time_goes_on() {
        let mut rig = rig(16 << 20);
        rig.video(0, AVC_HEADER);
        for i in 0..50u32 {
            rig.video(i * 40, if i % 25 == 0 { KEY } else { INTER });
        }
        rig.live.park(1_000_000_000);
        rig.live.resume(3_000_000_000);
        rig.video(0, AVC_HEADER_2);
        assert_eq!(rig.video(0, INTER), Outcome::Dropped(Reason::MessageDroppedUntilKeyframe));
        rig.audio(10, AUDIO);
        rig.video(40, KEY);
        let seen = rig.after_join(Format::Rtmp);
        assert!(seen.windows(2).all(|w| w[0].0 <= w[1].0), "{seen:?}");
        assert!(seen[0].0 >= 49 * 40 + 2_000, "{seen:?}");
    }

    #[test]
    fn without_memory_messages_are_dropped_until_a_keyframe_fits() {
        let mut rig = rig(2 << 20);
        rig.video(0, AVC_HEADER);
        rig.video(0, KEY);
        let mut big = KEY.to_vec();
        big.resize(3 << 20, 7);
        assert_eq!(rig.video(40, &big), Outcome::Dropped(Reason::MessageDroppedMemory));
        let dropped = Outcome::Dropped(Reason::MessageDroppedUntilKeyframe);
        assert_eq!(rig.video(80, INTER), dropped);
        assert!(matches!(rig.video(120, KEY), Outcome::Written { keyframe: true, .. }));
    }

    #[test]
    fn flv_players_wait_until_the_tracks_are_known() {
        let mut rig = rig(16 << 20);
        rig.stream.want(Format::FlvChunked);
        rig.live.open_wanted(&rig.stream);
        let joinable = |rig: &Rig| rig.stream.feed(Format::FlvChunked).unwrap().join().is_some();
        rig.audio(0, AAC_HEADER);
        rig.audio(0, AUDIO);
        assert!(!joinable(&rig));
        // Nothing says that there is video: after half a second it is an audio stream.
        rig.audio(600, AUDIO);
        assert!(joinable(&rig));
        let join = rig.stream.feed(Format::FlvChunked).unwrap().join().unwrap();
        assert_eq!(join.prologue[..8], *b"d\r\nFLV\x01\x04");
    }

    const AVC_WHOLE: &[u8] =
        b"\x17\0\0\0\0\x01\x42\xc0\x1e\xff\xe1\0\x0a\x67\x42\xc0\x1e\xda\x02\x80\
        \xbf\xe5\x40\x01\0\x04\x68\xce\x3c\x80";
    const KEY_WHOLE: &[u8] = &[0x17, 1, 0, 0, 0, 0, 0, 0, 2, 0x65, 1];
    const INTER_WHOLE: &[u8] = &[0x27, 1, 0, 0, 0, 0, 0, 0, 2, 0x41, 1];

    /// Half a second of pictures and sound with keyframes every 200 ms.
    fn play_half_a_second(rig: &mut Rig) {
        rig.video(0, AVC_WHOLE);
        rig.audio(0, AAC_HEADER);
        for i in 0..13u32 {
            rig.video(i * 40, if i % 5 == 0 { KEY_WHOLE } else { INTER_WHOLE });
            rig.audio(i * 40 + 5, AUDIO);
        }
    }

    #[test]
    fn packed_formats_begin_with_the_kept_gop_in_every_framing() {
        let mut rig = rig(16 << 20);
        play_half_a_second(&mut rig);
        for container in [Container::Ts, Container::Fmp4] {
            for format in container.formats() {
                rig.stream.want(*format);
                assert!(rig.live.open_wanted(&rig.stream), "{format:?}");
                let seen = rig.after_join(*format);
                assert_eq!(seen[0], (400, Flags::VIDEO | Flags::KEYFRAME), "{format:?}");
                assert_eq!(seen.len(), 6, "{format:?}");
                let join = rig.stream.feed(*format).unwrap().join().unwrap();
                // MPEG-TS has its tables where players start.
                assert_eq!(join.prologue.is_empty(), container == Container::Ts, "{format:?}");
                assert_eq!(join.time, 400, "{format:?}");
            }
        }
        // What is written from here on goes into all of them.
        rig.video(600, KEY_WHOLE);
        for format in Container::Ts.formats() {
            assert_eq!(rig.after_join(*format), [(600, Flags::VIDEO | Flags::KEYFRAME)]);
        }
    }

    #[test]
    fn what_has_no_place_is_refused_until_the_tracks_change() {
        let mut rig = rig(16 << 20);
        rig.stream.want(Format::Mp3);
        rig.stream.want(Format::Aac);
        rig.live.open_wanted(&rig.stream);
        play_half_a_second(&mut rig);
        assert!(rig.stream.feed(Format::Mp3).unwrap().refused());
        assert!(rig.stream.feed(Format::Mp3).unwrap().ended());
        assert!(!rig.stream.feed(Format::Aac).unwrap().refused());
        rig.stream.want(Format::Mp3Chunked);
        assert!(rig.live.open_wanted(&rig.stream));
        assert!(rig.stream.feed(Format::Mp3Chunked).unwrap().refused());
        assert!(!rig.live.open_wanted(&rig.stream), "once is enough");
        // Nobody followed it, so there is nothing to report.
        assert!(rig.live.take_refusals().is_empty());
        rig.audio(700, &[0xaf, 0, 0x11, 0x90]);
        rig.live.close_unfollowed(&rig.stream);
        assert!(rig.stream.feed(Format::Mp3).is_none());
        assert!(rig.stream.feed(Format::Mp3Chunked).is_none());
    }

    #[test]
    fn the_past_of_plain_audio_is_kept_as_configured() {
        let mut rig = rig(16 << 20);
        rig.live.options.http.fast_cache_ms = 1_000;
        rig.live.packed = Packed::new(rig.live.options.http);
        rig.live.want_kept(&rig.stream);
        rig.live.open_wanted(&rig.stream);
        rig.audio(0, AAC_HEADER);
        for i in 0..200u32 {
            rig.audio(i * 23, AUDIO);
        }
        let seen = rig.after_join(Format::AacChunked);
        let kept = seen.last().unwrap().0 - seen[0].0;
        assert!((1_000..=1_250).contains(&kept), "{kept} ms");
        for _ in 0..10 {
            rig.live.close_unfollowed(&rig.stream);
        }
        assert!(rig.stream.feed(Format::AacChunked).is_some());
        // MP3 it is not.
        assert!(rig.stream.feed(Format::Mp3).unwrap().refused());
    }

    #[test]
    fn tracks_that_are_switched_off_are_not_sent() {
        let mut rig = rig(16 << 20);
        let http = HttpOptions { guess: false, has_audio: false, ..HttpOptions::default() };
        rig.live.options.http = http;
        rig.live.packed = Packed::new(http);
        for format in [Format::Flv, Format::Ts] {
            rig.stream.want(format);
        }
        rig.live.open_wanted(&rig.stream);
        play_half_a_second(&mut rig);
        for format in [Format::Flv, Format::Ts] {
            let seen = rig.after_join(format);
            assert!(seen.iter().all(|(_, flags)| flags.has(Flags::VIDEO)), "{format:?}");
        }
        let join = rig.stream.feed(Format::Flv).unwrap().join().unwrap();
        assert_eq!(join.prologue[..5], *b"FLV\x01\x01");
        assert!(rig.after_join(Format::Rtmp).iter().any(|(_, flags)| flags.has(Flags::AUDIO)));
    }

    #[test]
    fn codecs_that_are_not_carried_end_the_publish() {
        let mut rig = rig(16 << 20);
        let refused = rig.live.write(Kind::Video, 0, &[0x22, 0, 0]).unwrap_err();
        assert_eq!(refused.to_string(), "Sorenson H.263 video is not supported");
        assert_eq!(rig.video(0, &[]), Outcome::Dropped(Reason::MessageDroppedMalformed));
    }

    #[test]
    fn what_players_will_have_trouble_with_is_noted() {
        let mut noted = Noted::default();
        let (video, audio) = (Flags::VIDEO, Flags::AUDIO);
        noted.frame(video | Flags::KEYFRAME, 1_000, 1_000);
        noted.frame(audio, 990, 1_000);
        noted.frame(video, 1_040, 1_040);
        assert_eq!((noted.gop_ms, noted.keyframe_ms, noted.backward), (0, Some(1_000), 0));
        // Each track has its own order; a wrap is no step back.
        noted.frame(audio, 980, 1_040);
        noted.frame(video | Flags::KEYFRAME, 3_000, 3_000);
        assert_eq!((noted.gop_ms, noted.video_ms, noted.backward), (2_000, 3_000, 1));
        noted.frame(video, u32::MAX, 3_001);
        noted.frame(video, 5, 3_007);
        assert_eq!((noted.audio_ms, noted.backward), (1_040, 2));
    }
}

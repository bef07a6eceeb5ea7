//! The feeds of a stream whose containers are made of units: one muxer for each container that is
//! followed, and its bytes in every framing that is followed.

use std::collections::VecDeque;

use uring::ArenaFull;

use super::mux::{Muxed, Muxer, Wanted};
use super::segmenter::Segmenter;
use super::wrap;
use crate::hub::{Container, FeedWriter, Flags, Format, Position};
use crate::media::Kind;
use crate::proto::hls::{Cut, Frame};
use crate::proto::ts::Unfit;

/// Which tracks HTTP players are told of and get (SRS: `http_remux`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HttpOptions {
    /// There is audio, if it is not to be found out.
    pub has_audio: bool,
    /// There are pictures, if it is not to be found out.
    pub has_video: bool,
    /// Find out from the first messages which tracks there are.
    pub guess: bool,
    /// Leave out what players are told there is not.
    pub drop_unmatched: bool,
    /// How much of the past players of plain audio get at once, ms.
    pub fast_cache_ms: i64,
    /// Audio has the publisher's times (SRS: `hls_dts_directly`); else samples are counted.
    pub dts_directly: bool,
}

impl Default for HttpOptions {
    fn default() -> HttpOptions {
        HttpOptions {
            has_audio: true,
            has_video: true,
            guess: true,
            drop_unmatched: true,
            fast_cache_ms: 0,
            dts_directly: true,
        }
    }
}

impl HttpOptions {
    /// True when FLV players get messages of this kind.
    pub fn passes(&self, flags: Flags) -> bool {
        let unwanted = (flags.has(Flags::AUDIO) && !self.has_audio)
            || (flags.has(Flags::VIDEO) && !self.has_video);
        self.guess || !self.drop_unmatched || !unwanted
    }

    /// True when the past of plain audio is kept whether or not somebody plays it.
    pub fn keeps(&self, container: Container) -> bool {
        self.fast_cache_ms > 0 && is_audio(container)
    }

    fn wanted(&self) -> Wanted {
        Wanted { audio: self.guess || self.has_audio, video: self.guess || self.has_video }
    }
}

/// The writers of a stream, by format.
pub type Writers = [Option<FeedWriter>; Format::COUNT];

/// Containers of units, and their muxers.
#[derive(Debug)]
pub struct Packed {
    options: HttpOptions,
    muxers: [Option<Box<Muxer>>; Container::COUNT],
    /// Containers in which the stream cannot be had, and why.
    refused: [Option<Unfit>; Container::COUNT],
    /// The past that is kept of plain audio: places and their times, ms.
    windows: [VecDeque<(Position, i64)>; Format::COUNT],
    /// Containers whose newcomers have to be told of another start, one bit each.
    joins_due: u32,
    /// Units left out since this was last asked.
    skipped: u64,
    /// Where the stream is to be had in segments: one or two of different kinds.
    segmenters: Vec<Segmenter>,
    /// The segments are packed in another container from now on, which has to be opened.
    fell_back: bool,
    /// Units that are missing in segments of HLS since this was last asked.
    missing: u64,
    /// The publisher's timestamp of what is written, ms.
    wire_ms: i64,
}

impl Packed {
    /// Nothing is followed yet.
    pub fn new(options: HttpOptions) -> Packed {
        Packed {
            options,
            muxers: Default::default(),
            refused: [None; Container::COUNT],
            windows: Default::default(),
            joins_due: 0,
            skipped: 0,
            segmenters: Vec::new(),
            fell_back: false,
            missing: 0,
            wire_ms: 0,
        }
    }

    /// The stream is to be had in segments.
    pub fn add_segmenter(&mut self, segmenter: Segmenter) {
        self.segmenters.push(segmenter);
    }

    /// Make the segments, if there are any.
    pub fn segmenters(&mut self) -> &mut [Segmenter] {
        &mut self.segmenters
    }

    /// True for a container that segments are packed in: it is open whoever plays.
    pub fn segments(&self, container: Container) -> bool {
        self.segmenters.iter().any(|segmenter| segmenter.container() == container)
    }

    /// True once when a container is to be opened for segments.
    pub fn take_fell_back(&mut self) -> bool {
        std::mem::take(&mut self.fell_back)
    }

    /// Says which timestamp the publisher gave what is written from now on, ms.
    pub fn note_wire_time(&mut self, wire_ms: i64) {
        self.wire_ms = wire_ms;
    }

    /// Units that are missing in segments of HLS since this was last asked.
    pub fn take_missing(&mut self) -> u64 {
        std::mem::take(&mut self.missing)
    }

    /// Ends HLS of the stream.
    pub fn end_hls(&mut self) {
        self.segmenters.retain_mut(|segmenter| {
            segmenter.end_hls();
            segmenter.is_for_dash()
        });
    }

    /// What segments have ends here; what follows is not its continuation.
    pub fn interrupt_segments(&mut self, writers: &mut Writers, tracks_changed: bool) {
        for segmenter in &mut self.segmenters {
            let container = segmenter.container();
            let writer = writers[plain(container).index()].as_ref();
            let muxer = self.muxers[container.index()].as_deref();
            match tracks_changed {
                true => segmenter.tracks_changed(writer, muxer),
                false => segmenter.interrupt(writer, muxer),
            }
        }
        for container in [Container::Ts, Container::Fmp4] {
            if let Some(writer) = &mut writers[plain(container).index()] {
                forget(&self.segmenters, container, writer);
            }
        }
    }

    /// The muxer of a container, if one of its formats is followed.
    pub fn muxer(&mut self, container: Container) -> Option<&mut Muxer> {
        self.muxers[container.index()].as_deref_mut()
    }

    /// Begins to pack for a container.
    pub fn open(&mut self, container: Container) -> &mut Muxer {
        let wanted = self.options.wanted();
        let mut muxer = Box::new(Muxer::new(container, wanted));
        if !self.options.dts_directly {
            muxer.count_samples();
        }
        self.muxers[container.index()].insert(muxer)
    }

    /// Ends to pack for a container.
    pub fn close(&mut self, container: Container) {
        self.muxers[container.index()] = None;
    }

    /// Tells the muxers of a header that is about to be appended.
    pub fn learn(&mut self, kind: Kind, payload: &[u8]) {
        self.muxers.iter_mut().flatten().for_each(|muxer| muxer.learn(kind, payload));
    }

    /// True when the stream cannot be had in this container.
    pub fn has_refused(&self, container: Container) -> bool {
        self.refused[container.index()].is_some()
    }

    /// The tracks are others now: what could not be had perhaps can.
    pub fn tracks_changed(&mut self) {
        self.refused = [None; Container::COUNT];
        self.windows.iter_mut().for_each(VecDeque::clear);
    }

    /// Ends the feeds in which the stream cannot be had. Gives what was asked for in vain.
    pub fn refuse_unfit(&mut self, writers: &mut Writers) -> Vec<(Container, Unfit)> {
        let mut told = Vec::new();
        for container in Container::OVER_HTTP {
            let muxer = &mut self.muxers[container.index()];
            let Some(unfit) = muxer.as_ref().and_then(|muxer| muxer.refuses()) else { continue };
            *muxer = None;
            self.refused[container.index()] = Some(unfit);
            for segmenter in &mut self.segmenters {
                if segmenter.container() == container {
                    self.fell_back |= segmenter.fall_back();
                }
            }
            let mut asked = false;
            for format in container.formats() {
                if let Some(writer) = writers[format.index()].take() {
                    asked |= writer.feed().is_followed();
                    writer.refuse();
                }
            }
            if asked {
                told.push((container, unfit));
            }
        }
        told
    }

    /// Packs a message for all that is followed.
    ///
    /// # Errors
    /// The media memory is used up; the message is missing in some feed.
    pub fn append(
        &mut self,
        writers: &mut Writers,
        flags: Flags,
        time: i64,
        payload: &[u8],
        wall_ms: i64,
    ) -> Result<(), ArenaFull> {
        let mut result = Ok(());
        let kind = flags.kind();
        if kind == Kind::Data {
            return Ok(());
        }
        for container in Container::OVER_HTTP {
            let Some(muxer) = self.muxers[container.index()].as_deref_mut() else { continue };
            let keyframe = kind == Kind::Video && flags.has(Flags::KEYFRAME);
            let (video, grid_ms) = (kind == Kind::Video, self.wire_ms);
            let frame = Frame { time_ms: time, video, keyframe, wall_ms, grid_ms };
            let is_frame = !flags.has(Flags::SEQUENCE_HEADER);
            let is_cut = |segmenter: &Segmenter| is_frame && segmenter.container() == container;
            let mut cuts = [Cut::Nothing; SEGMENTERS_MAX];
            // What begins a segment has to begin with tables, the first one, too.
            let mut may_begin = false;
            for (cut, segmenter) in cuts.iter_mut().zip(&self.segmenters) {
                if is_cut(segmenter) {
                    *cut = segmenter.before(&frame);
                    may_begin |= !segmenter.is_open();
                }
            }
            if may_begin || cuts.contains(&Cut::Segment) {
                muxer.start_here();
            }
            let flags = match muxer.message(kind, time, payload, wall_ms) {
                Muxed::Nothing => continue,
                Muxed::Skipped => {
                    self.skipped += 1;
                    // What comes before the tracks are known is no part of any segment.
                    let of_hls = |s: &Segmenter| is_cut(s) && s.is_for_hls() && s.is_ready();
                    self.missing += u64::from(self.segmenters.iter().any(of_hls));
                    continue;
                }
                Muxed::Bytes(flags) => flags,
            };
            // Another description in the middle: what follows needs a segment of its own.
            for (cut, segmenter) in cuts.iter_mut().zip(&self.segmenters) {
                if segmenter.is_open() && muxer.init_len() > 0 {
                    *cut = Cut::Segment;
                }
            }
            if flags.has(Flags::KEYFRAME) {
                self.joins_due |= 1 << container.index();
            }
            for &format in container.formats() {
                let Some(writer) = writers[format.index()].as_mut() else { continue };
                let Some(framing) = wrap::framing(format) else { continue };
                if format == plain(container) && self.segmenters.iter().any(is_cut) {
                    writer.record();
                    let all = || cuts.iter().copied();
                    for (segmenter, cut) in self.segmenters.iter_mut().zip(all()) {
                        if is_cut(segmenter) {
                            segmenter.cut(cut, &frame, writer, muxer.shown());
                        }
                    }
                    let before = writer.position();
                    let done = wrap::append(writer, framing, flags, time, muxer.bytes());
                    for (segmenter, cut) in self.segmenters.iter_mut().zip(all()) {
                        if done.is_ok() && is_cut(segmenter) {
                            let init_len = muxer.init_len();
                            segmenter.took(cut, &frame, before, init_len, (writer, muxer));
                        }
                    }
                    forget(&self.segmenters, container, writer);
                    result = result.and(done);
                    continue;
                }
                let done = if self.options.keeps(container) {
                    let window = &mut self.windows[format.index()];
                    let moved = &mut self.joins_due;
                    wrap::append(writer, framing, flags | Flags::KEYFRAME, time, muxer.bytes()).map(
                        |()| {
                            if keep(window, writer, time, self.options.fast_cache_ms) {
                                *moved |= 1 << container.index();
                            }
                        },
                    )
                } else {
                    wrap::append(writer, framing, flags, time, muxer.bytes())
                };
                // One format without memory must not keep the message from the others.
                result = result.and(done);
            }
        }
        result
    }

    /// Containers whose newcomers have to be told of another start, since this was last asked.
    pub fn take_joins_due(&mut self) -> impl Iterator<Item = Container> + use<> {
        let due = std::mem::take(&mut self.joins_due);
        Container::OVER_HTTP.into_iter().filter(move |c| due & 1 << c.index() != 0)
    }

    /// Units left out since this was last asked.
    pub fn take_skipped(&mut self) -> u64 {
        std::mem::take(&mut self.skipped)
    }
}

/// Most segmenters of a stream: one for HLS, one for DASH.
const SEGMENTERS_MAX: usize = 2;

/// Lets go of the blocks of a container that no open segment has.
fn forget(segmenters: &[Segmenter], container: Container, writer: &mut FeedWriter) {
    let of_it = segmenters.iter().filter(|segmenter| segmenter.container() == container);
    writer.forget_before(of_it.map(Segmenter::needs_from).min().unwrap_or(u64::MAX));
}

/// The format of a container with nothing around it: what segments are ranges of.
fn plain(container: Container) -> Format {
    container.formats()[0]
}

/// True for containers of plain audio, which have no place to start but any.
fn is_audio(container: Container) -> bool {
    matches!(container, Container::Aac | Container::Mp3)
}

/// Notes the message just written, and lets newcomers begin where the kept past begins. True when
/// that has moved.
fn keep(
    window: &mut VecDeque<(Position, i64)>,
    writer: &mut FeedWriter,
    time: i64,
    keep_ms: i64,
) -> bool {
    let Some(at) = writer.start() else { return false };
    let mut moved = false;
    if window.back().is_none_or(|(_, last)| time - last >= WINDOW_STEP_MS) {
        window.push_back((at, time));
        moved = true;
    }
    while window.get(1).is_some_and(|(_, second)| *second <= time - keep_ms) {
        window.pop_front();
    }
    if let Some(&(start, time)) = window.front() {
        writer.start_at(start, time);
    }
    moved
}

/// The kept past begins at one of places this far apart, ms.
const WINDOW_STEP_MS: i64 = 200;

//! The tracks of a stream's segments, each by itself: what DASH players load.
//!
//! Every fragment of the MP4 feed is one unit of one track. So what a segment has of a track is a
//! list of ranges of the blocks that the segment holds already: nothing is packed or kept twice.

use std::collections::VecDeque;
use std::sync::Arc;

use uring::Block;

use super::mux::{Muxer, Shown};
use crate::hub::Position;
use crate::hub::segments::{
    DashTerms, Period, SegmentList, TrackInit, TrackSegment, bytes_of, pieces,
};
use crate::media::unit::{TICKS_HZ, TICKS_PER_MS};
use crate::proto::http::url;

/// The names of the tracks.
pub const TRACKS: [&str; 2] = ["video", "audio"];

/// Makes the segments of each track.
#[derive(Debug)]
pub struct Tracks {
    terms: Arc<DashTerms>,
    /// The numbers that come next.
    next: [u64; 2],
    /// How often a track was described in another way.
    inits: u64,
    period: Option<Arc<Period>>,
    /// When the newest segment ends, ms since 1970, by the Period's times.
    end_ms: i64,
    /// The next segment begins a Period: when, and with which descriptions.
    begins: Option<(i64, [Option<Arc<TrackInit>>; 2])>,
    open: [Option<Open>; 2],
}

/// What the open segment has of a track.
#[derive(Debug)]
struct Open {
    runs: Vec<(Position, Position)>,
    /// When the first unit is decoded, and when it is shown.
    first: (i64, i64),
    /// When the first and the last of it is shown.
    start: i64,
    end: i64,
    /// How long one picture or audio frame is.
    step: i64,
}

impl Tracks {
    /// Goes on where a list ends.
    pub fn new(terms: DashTerms, list: &SegmentList) -> Tracks {
        let newest = |track: usize| {
            list.segments.iter().rev().find_map(|segment| segment.tracks[track].as_ref())
        };
        let next = [0, 1].map(|track| newest(track).map_or(0, |track| track.number + 1));
        let period = list.segments.iter().rev().find_map(|segment| segment.period.clone());
        let mut tracks = Tracks {
            terms: Arc::new(terms),
            next,
            // More than there can have been.
            inits: next[0].max(next[1]),
            period,
            end_ms: 0,
            begins: None,
            open: [None, None],
        };
        let last = list.segments.back();
        let ends = last.iter().flat_map(|segment| segment.tracks.iter().enumerate());
        let ends = ends.filter_map(|(track, segment)| {
            let segment = segment.as_ref()?;
            Some((track, segment.start + segment.duration))
        });
        tracks.note_end(&ends.collect::<Vec<_>>());
        tracks
    }

    /// What manifests say.
    pub fn terms(&self) -> Arc<DashTerms> {
        self.terms.clone()
    }

    /// A segment begins at this time of day; with `anew` its times and descriptions do not go on.
    pub fn begin(&mut self, anew: bool, wall_ms: i64, muxer: &Muxer) {
        self.open = [None, None];
        if self.period.is_some() && !anew {
            return;
        }
        let inits = [0, 1].map(|track| {
            let known = self.period.as_ref().and_then(|period| period.tracks[track].clone());
            let init = muxer.track_init(track == 0)?;
            if let Some(known) = known.filter(|known| known.bytes == init.bytes) {
                return Some(known);
            }
            let number = match self.inits {
                0 => String::new(),
                count => format!("-{count}"),
            };
            let file = format!("{}-init{number}.mp4", TRACKS[track]);
            let name = format!("{}/{file}", self.terms.folder);
            let uri = format!("{}/{file}", self.terms.base());
            Some(Arc::new(TrackInit { name, uri, ..init }))
        });
        self.begins = Some((wall_ms, inits));
    }

    /// A fragment of the open segment lies here.
    pub fn note(&mut self, shown: Shown, from: Position, to: Position) {
        let Shown { video, dts, start, end } = shown;
        let track = &mut self.open[usize::from(!video)];
        let new = || Open { runs: Vec::new(), first: (dts, start), start, end, step: 0 };
        let open = track.get_or_insert_with(new);
        open.start = open.start.min(start);
        open.end = open.end.max(end);
        open.step = end - start;
        match open.runs.last_mut() {
            Some((_, last)) if *last == from => *last = to,
            _ => open.runs.push((from, to)),
        }
    }

    /// The open segment is none after all.
    pub fn drop_open(&mut self) {
        self.open = [None, None];
    }

    /// The open segment ends, before the fragment `next` where there is one.
    pub fn end(
        &mut self,
        blocks: &VecDeque<(u64, Block)>,
        next: Option<Shown>,
    ) -> ([Option<TrackSegment>; 2], Option<Arc<Period>>) {
        let [video, audio] = std::mem::take(&mut self.open);
        if let Some((wall_ms, inits)) = self.begins.take() {
            let begin = |track: usize, open: &Option<Open>| {
                Some(ticks(open.as_ref()?.start, inits[track].as_ref()?.timescale))
            };
            let offset = begin(0, &video).into_iter().chain(begin(1, &audio)).min();
            self.inits += 1;
            self.period = Some(Arc::new(Period {
                number: self.period.as_ref().map_or(0, |period| period.number + 1),
                // A Period ends where the next one begins, and it has to be whole.
                wall_ms: wall_ms.max(self.end_ms),
                offset: offset.unwrap_or(0),
                tracks: inits,
            }));
        }
        let (mut out, mut ends) = ([None, None], Vec::new());
        for (track, open) in [video, audio].into_iter().enumerate() {
            let Some(open) = open else { continue };
            let next = next.filter(|next| next.video && track == 0);
            let end = next.and_then(|next| open.ends_before(next)).unwrap_or(open.end);
            ends.push((track, end));
            let runs = open.runs.iter();
            let pieces: Vec<_> = runs.flat_map(|(from, to)| pieces(blocks, *from, *to)).collect();
            let number = self.next[track];
            self.next[track] += 1;
            let (duration, bytes) = ((end - open.start).max(1), bytes_of(&pieces));
            out[track] = Some(TrackSegment { number, start: open.start, duration, pieces, bytes });
        }
        self.note_end(&ends);
        (out, self.period.clone())
    }

    fn note_end(&mut self, ends: &[(usize, i64)]) {
        let Some(period) = &self.period else { return };
        for (track, end) in ends {
            if let Some(init) = &period.tracks[*track] {
                let end_ms = (ticks(*end, init.timescale) - period.offset) / TICKS_PER_MS;
                self.end_ms = self.end_ms.max(period.wall_ms + end_ms);
            }
        }
    }
}

impl Open {
    /// When the next segment begins, with the picture `next`: only that tells how long the last
    /// picture of this one is. `None` where it does not follow.
    fn ends_before(&self, next: Shown) -> Option<i64> {
        let (dts, start) = self.first;
        // Pictures that come behind a keyframe and are shown before it will be there again.
        let leads = start - self.start;
        let begins = match leads {
            // The keyframe's own time, and not one reckoned from when it is decoded: a publisher
            // that loops a file changes the distance. No segment may reach into the next one.
            0 => next.start,
            _ => next.dts + self.start - dts,
        };
        let overlaps = leads == 0 && begins > self.start && begins < self.end;
        (overlaps || (begins - self.end).abs() <= self.step).then_some(begins)
    }
}

/// A time of a track in 1/90000 s.
fn ticks(time: i64, timescale: u32) -> i64 {
    time * TICKS_HZ / i64::from(timescale.max(1))
}

impl DashTerms {
    /// The folder as the manifest beside it addresses it.
    pub fn base(&self) -> String {
        let name = self.folder.rsplit_once('/').map_or(self.folder.as_str(), |(_, name)| name);
        url::percent_encode(name)
    }
}

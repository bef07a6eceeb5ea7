//! What there is of a stream's segments, as a manifest of DASH.

use std::ops::RangeInclusive;
use std::sync::Arc;

use super::squeeze;
use super::tracks::TRACKS;
use crate::hub::SegmentList;
use crate::hub::segments::{DashTerms, Period as Stretch, Segment, TrackInit};
use crate::proto::dash::{Mpd, Period, Representation, mpd};

/// The manifest for a player that finds it again at `location` and whose own word is `word`; who
/// asks first writes it for all. `goes_on`: more comes, or may come.
pub fn text(list: &SegmentList, goes_on: bool, location: &str, word: &str) -> Vec<u8> {
    let text = list.manifests[usize::from(!goes_on)].get_or_init(|| {
        let terms = list.dash.clone().unwrap_or_else(|| {
            Arc::new(DashTerms { window_ms: 0, update_ms: 0, folder: String::new() })
        });
        manifest(list, &terms, goes_on).write()
    });
    mpd::join(text, location, word)
}

/// A text that [`text`] gave to the viewer `id`, in gzip; `None` where it is to be sent as it is.
pub fn gzip(
    list: &SegmentList,
    goes_on: bool,
    text: &[u8],
    (id, location, word): (&str, &str, &str),
) -> Option<Vec<u8>> {
    let place = usize::from(!goes_on);
    let (at, word) = (squeeze::shape(id, location), squeeze::shape(id, word));
    let shape = format!("{at}\n{word}");
    let squeezed = list.squeezed[2 + place].get_or_init(|| {
        let marked = list.manifests[place].get()?;
        squeeze::squeeze(shape.clone(), &|own| {
            let (at, word) = (squeeze::filled(&at, own), squeeze::filled(&word, own));
            (mpd::join(marked, &at, &word), mpd::first_end(marked, &at, &word))
        })
    });
    squeeze::gzip(squeezed.as_ref().filter(|squeezed| squeezed.shape == shape)?, text)
}

/// The manifest of these segments alone, without words: for files.
pub fn plain(list: &SegmentList, terms: &DashTerms, numbers: RangeInclusive<u64>) -> Vec<u8> {
    let mut list_there = SegmentList::empty(list.container);
    let there = list.segments.iter().filter(|segment| numbers.contains(&segment.number));
    list_there.segments = there.cloned().collect();
    (list_there.target_s, list_there.wall_ms) = (list.target_s, list.wall_ms);
    list_there.content = list.content.clone();
    mpd::join(&manifest(&list_there, terms, true).write(), "", "")
}

/// The segments of a manifest: as many as the window takes, and three in any case.
pub fn listed(list: &SegmentList, window_ms: i64) -> impl Iterator<Item = &Arc<Segment>> {
    let mut total_ms = 0;
    let mut count = 0;
    for segment in list.segments.iter().rev() {
        if count >= LEAST && total_ms + segment.duration_ms > window_ms {
            break;
        }
        total_ms += segment.duration_ms;
        count += 1;
    }
    list.segments.iter().skip(list.segments.len() - count)
}

/// Segments that every manifest has, if there are as many.
const LEAST: usize = 3;

fn manifest(list: &SegmentList, terms: &DashTerms, goes_on: bool) -> Mpd {
    let target_ms = list.target_s as i64 * 1_000;
    let longest = listed(list, terms.window_ms).map(|segment| segment.duration_ms).max();
    // Never less than it was: players reckon with it.
    let segment_ms = longest.unwrap_or(0).max(target_ms);
    let base = terms.base();
    // Those of a track are a little longer or shorter than the cut: frames do not end together.
    let of_tracks = listed(list, terms.window_ms).filter_map(|segment| {
        let period = segment.period.as_ref()?;
        let tracks = segment.tracks.iter().zip(&period.tracks);
        let each = tracks.filter_map(|(part, init)| {
            let timescale = i64::from(init.as_ref()?.timescale.max(1));
            Some((part.as_ref()?.duration * 1_000 + timescale - 1) / timescale)
        });
        each.max()
    });
    let longest_ms = of_tracks.max().unwrap_or(0).max(segment_ms);
    Mpd {
        // The end is news, too.
        publish_ms: list.wall_ms + i64::from(!goes_on),
        // Looking later than there is something new would be late.
        update_ms: goes_on.then_some(terms.update_ms.min(segment_ms).max(UPDATE_MS_MIN)),
        delay_ms: 3 * segment_ms,
        depth_ms: terms.window_ms.max(LEAST as i64 * segment_ms),
        segment_ms: longest_ms,
        clock: format!("{base}/{CLOCK}"),
        periods: periods(list, terms.window_ms, &base),
    }
}

/// Players do not look more often than that, ms.
const UPDATE_MS_MIN: i64 = 500;
/// Where the time of day is to be had, beside the segments.
pub const CLOCK: &str = "time";

fn periods(list: &SegmentList, window_ms: i64, base: &str) -> Vec<Period> {
    let mut out: Vec<Period> = Vec::new();
    for segment in listed(list, window_ms) {
        let Some(stretch) = &segment.period else { continue };
        if out.last().is_none_or(|last| last.id != stretch.number) {
            let (id, start_ms) = (stretch.number, stretch.wall_ms);
            out.push(Period { id, start_ms, ..Period::default() });
        }
        let Some(period) = out.last_mut() else { continue };
        for (track, name) in TRACKS.into_iter().enumerate() {
            let (Some(init), Some(part)) = (&stretch.tracks[track], &segment.tracks[track]) else {
                continue;
            };
            // Players have no use for what they cannot name.
            if init.codecs.is_empty() {
                continue;
            }
            let all = if track == 0 { &mut period.video } else { &mut period.audio };
            if all.is_empty() {
                let mut one = representation(stretch, init, track, name, base);
                one.first = part.number;
                if track == 0 {
                    one.fps = init.fps.or(list.content.fps);
                }
                all.push(one);
            }
            if let Some(one) = all.last_mut() {
                let ticks = part.duration.max(1).unsigned_abs();
                let bits = part.bytes * 8 * u64::from(init.timescale) / ticks;
                one.bandwidth = one.bandwidth.max(bits);
                one.independent &= track == 1 || segment.independent;
                one.timeline.push((part.start, part.duration));
            }
        }
    }
    out.retain(|period| !period.video.is_empty() || !period.audio.is_empty());
    out
}

fn representation(
    stretch: &Stretch,
    init: &TrackInit,
    track: usize,
    name: &str,
    base: &str,
) -> Representation {
    let timescale = i64::from(init.timescale);
    Representation {
        id: name.into(),
        bandwidth: 0,
        codecs: init.codecs.clone(),
        size: init.size,
        fps: None,
        audio: init.audio.filter(|_| track == 1),
        timescale: init.timescale,
        // Rounded down, so that nothing begins before its Period.
        offset: (stretch.offset * timescale).div_euclid(crate::media::unit::TICKS_HZ),
        independent: true,
        init: init.uri.clone(),
        media: format!("{base}/{name}-$Number$.m4s"),
        first: 0,
        timeline: Vec::new(),
    }
}

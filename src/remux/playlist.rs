//! What there is of a stream's segments, as a playlist.

use std::ops::RangeInclusive;
use std::sync::Arc;

use super::squeeze;
use crate::hub::SegmentList;
use crate::hub::segments::Part;
use crate::proto::hls::{Media, PartLine, SegmentLine, Text};

/// The playlist with a viewer's own word; who asks first writes it for all.
pub fn text(list: &SegmentList, skip: bool, word: &str) -> Vec<u8> {
    let text = list.texts[usize::from(skip)].get_or_init(|| {
        let mut media = media(list);
        if skip {
            media.skipped = media.can_skip();
        }
        media.write().into_parts()
    });
    Text::join(text, word)
}

/// A text that [`text`] gave to the viewer `id`, in gzip; `None` where it is to be sent as it is.
pub fn gzip(
    list: &SegmentList,
    skip: bool,
    text: &[u8],
    (id, word): (&str, &str),
) -> Option<Vec<u8>> {
    let shape = squeeze::shape(id, word);
    let squeezed = list.squeezed[usize::from(skip)].get_or_init(|| {
        let marked = list.texts[usize::from(skip)].get()?;
        squeeze::squeeze(shape.clone(), &|own| {
            let word = squeeze::filled(&shape, own);
            let first = marked.1.first().filter(|_| !word.is_empty());
            let prefix = first.map_or(0, |first| *first as usize + word.len());
            (Text::join(marked, &word), prefix)
        })
    });
    squeeze::gzip(squeezed.as_ref().filter(|squeezed| squeezed.shape == shape)?, text)
}

/// The playlist of these segments alone, without parts and words.
pub fn plain(list: &SegmentList, numbers: RangeInclusive<u64>) -> Vec<u8> {
    let mut media = media(list);
    let before = list.listed().take_while(|segment| segment.number < *numbers.start()).count();
    let count = list.listed().filter(|segment| numbers.contains(&segment.number)).count();
    let gone = list.listed().take(before).filter(|segment| segment.discontinuity).count();
    media.discontinuities += gone as u64;
    media.first = list.listed().nth(before).map_or(*numbers.end(), |first| first.number);
    media.segments = media.segments.into_iter().skip(before).take(count).collect();
    media.segments.iter_mut().for_each(|segment| segment.parts.clear());
    (media.part_target_ms, media.open, media.hint) = (None, None, None);
    Text::join(&media.write().into_parts(), "")
}

fn part_line(part: &Arc<Part>) -> PartLine<'_> {
    let Part { uri, duration_ms, independent, .. } = &**part;
    PartLine { uri, duration_ms: *duration_ms, independent: *independent }
}

fn media(list: &SegmentList) -> Media<'_> {
    // Players are told of parts as long as they are near the end: for three target durations.
    let near_ms = 3_000 * list.target_s as i64;
    let open_ms: i64 = list.open.iter().flat_map(|open| &open.parts).map(|p| p.duration_ms).sum();
    let total_ms: i64 = list.listed().map(|segment| segment.duration_ms).sum();
    let mut from_end_ms = total_ms + open_ms;
    let mut segments = Vec::new();
    for segment in list.listed() {
        from_end_ms -= segment.duration_ms;
        let parts = match list.part_target_ms {
            Some(_) if from_end_ms < near_ms => segment.parts.iter().map(part_line).collect(),
            _ => Vec::new(),
        };
        segments.push(SegmentLine {
            uri: &segment.uri,
            duration_ms: segment.duration_ms,
            discontinuity: segment.discontinuity,
            wall_ms: segment.wall_ms,
            init: segment.init.as_ref().map(|init| init.uri.as_str()),
            key: segment.key.as_ref().map(|key| (key.uri.as_str(), &key.iv)),
            parts,
        });
    }
    let open = list.open.as_ref().filter(|open| !open.parts.is_empty());
    Media {
        target_s: list.target_s,
        part_target_ms: list.part_target_ms,
        first: list.listed().next().map_or(0, |first| first.number),
        discontinuities: list.discontinuities,
        independent: list.listed().all(|segment| segment.independent),
        segments,
        open: open.map(|open| SegmentLine {
            uri: "",
            duration_ms: 0,
            discontinuity: open.discontinuity,
            wall_ms: open.wall_ms,
            init: open.init.as_ref().map(|init| init.uri.as_str()),
            key: None,
            parts: open.parts.iter().map(part_line).collect(),
        }),
        hint: list.open.as_ref().map(|open| open.hint_uri.as_str()),
        skipped: 0,
    }
}

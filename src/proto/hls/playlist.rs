//! The text of playlists.
//!
//! What differs by player is one word behind each address: the text is written once, with the
//! places of that word ([`Text`]).

use std::fmt::Write as _;

use crate::date;

/// A playlist with the places where a player's own word goes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Text {
    text: String,
    marks: Vec<u32>,
}

impl Text {
    /// The playlist with this word behind every address; empty for none.
    #[cfg(test)]
    fn with(&self, word: &str) -> Vec<u8> {
        Text::join(&self.clone().into_parts(), word)
    }

    /// Its text and the places.
    pub fn into_parts(self) -> (String, Vec<u32>) {
        (self.text, self.marks)
    }

    /// The text with `word` in its places, for parts that [`Text::into_parts`] gave.
    pub fn join((text, marks): &(String, Vec<u32>), word: &str) -> Vec<u8> {
        let mut out = Vec::with_capacity(text.len() + marks.len() * word.len());
        let mut from = 0;
        for mark in marks.iter().map(|mark| *mark as usize).filter(|_| !word.is_empty()) {
            out.extend_from_slice(&text.as_bytes()[from..mark]);
            out.extend_from_slice(word.as_bytes());
            from = mark;
        }
        out.extend_from_slice(&text.as_bytes()[from..]);
        out
    }

    fn address(&mut self, uri: &str) {
        self.text.push_str(uri);
        self.marks.push(self.text.len() as u32);
    }

    fn line(&mut self, line: std::fmt::Arguments<'_>) {
        // Writing to a text cannot fail.
        let _ = self.text.write_fmt(line);
        self.text.push('\n');
    }
}

/// One segment of a playlist.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SegmentLine<'a> {
    /// Its address.
    pub uri: &'a str,
    /// How long it is, ms.
    pub duration_ms: i64,
    /// What comes before it does not fit it.
    pub discontinuity: bool,
    /// When it began, ms since 1970; 0: not known.
    pub wall_ms: i64,
    /// The address of what it has to be read with (MP4).
    pub init: Option<&'a str>,
    /// The address of the key it is encrypted with (AES-128), and the initialisation vector.
    pub key: Option<(&'a str, &'a [u8; 16])>,
    /// Its parts, as long as players are told of them.
    pub parts: Vec<PartLine<'a>>,
}

/// One part of a segment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PartLine<'a> {
    /// Its address.
    pub uri: &'a str,
    /// How long it is, ms.
    pub duration_ms: i64,
    /// Decoding can start in it.
    pub independent: bool,
}

/// What a media playlist says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Media<'a> {
    /// The target duration, s.
    pub target_s: u64,
    /// The longest part, ms, if there are parts.
    pub part_target_ms: Option<i64>,
    /// Number of the first segment.
    pub first: u64,
    /// Discontinuities before the first segment.
    pub discontinuities: u64,
    /// Every segment begins where decoding can.
    pub independent: bool,
    /// The complete segments.
    pub segments: Vec<SegmentLine<'a>>,
    /// The segment that is not complete, if it has a part: its address means nothing yet.
    pub open: Option<SegmentLine<'a>>,
    /// The address of the part that comes next.
    pub hint: Option<&'a str>,
    /// How many of the oldest segments are left out, because the player has them.
    pub skipped: usize,
}

impl Media<'_> {
    /// How many segments a player may have left out: those further from the end than
    /// `CAN-SKIP-UNTIL`. 0 where playlists are not long enough.
    pub fn can_skip(&self) -> usize {
        let until_ms = (6 * self.target_s * 1_000) as i64;
        let mut left_ms: i64 =
            self.open.iter().flat_map(|open| &open.parts).map(|p| p.duration_ms).sum();
        let near = self.segments.iter().rev().take_while(|segment| {
            let is_near = left_ms < until_ms;
            left_ms += segment.duration_ms;
            is_near
        });
        self.segments.len() - near.count()
    }

    /// The text.
    pub fn write(&self) -> Text {
        let mut out = Text::default();
        let mp4 = self.segments.iter().chain(&self.open).any(|segment| segment.init.is_some());
        // Skipping came with 9, MP4 with 7; the rest is in 3, which is SRS's.
        let version = if self.part_target_ms.is_some() { 9 } else { [3, 7][usize::from(mp4)] };
        out.line(format_args!("#EXTM3U\n#EXT-X-VERSION:{version}"));
        out.line(format_args!("#EXT-X-TARGETDURATION:{}", self.target_s));
        if let Some(part_ms) = self.part_target_ms {
            let until = 6 * self.target_s;
            let (hold, part_hold) = (3 * self.target_s, Seconds(part_ms * 3));
            out.line(format_args!(
                "#EXT-X-SERVER-CONTROL:CAN-BLOCK-RELOAD=YES,CAN-SKIP-UNTIL={until}.0,\
                 HOLD-BACK={hold}.0,PART-HOLD-BACK={part_hold}"
            ));
            out.line(format_args!("#EXT-X-PART-INF:PART-TARGET={}", Seconds(part_ms)));
        }
        out.line(format_args!("#EXT-X-MEDIA-SEQUENCE:{}", self.first));
        if self.discontinuities > 0 {
            out.line(format_args!("#EXT-X-DISCONTINUITY-SEQUENCE:{}", self.discontinuities));
        }
        if self.independent {
            out.line(format_args!("#EXT-X-INDEPENDENT-SEGMENTS"));
        }
        if self.skipped > 0 {
            out.line(format_args!("#EXT-X-SKIP:SKIPPED-SEGMENTS={}", self.skipped));
        }
        // Who skips knows the initialisation segment of what it skips.
        let mut init = self.skipped.checked_sub(1).and_then(|last| self.segments[last].init);
        let mut key = None;
        for segment in &self.segments[self.skipped..] {
            segment.write_head(&mut out, &mut init);
            segment.write_key(&mut out, &mut key);
            segment.write_parts(&mut out);
            out.line(format_args!("#EXTINF:{}, no desc", Seconds(segment.duration_ms)));
            out.address(segment.uri);
            out.text.push('\n');
        }
        if let Some(open) = &self.open {
            open.write_head(&mut out, &mut init);
            open.write_parts(&mut out);
        }
        if let Some(hint) = self.hint {
            out.text.push_str("#EXT-X-PRELOAD-HINT:TYPE=PART,URI=\"");
            out.address(hint);
            out.text.push_str("\"\n");
        }
        out
    }
}

impl<'a> SegmentLine<'a> {
    fn write_head(&self, out: &mut Text, init: &mut Option<&'a str>) {
        if self.discontinuity {
            out.line(format_args!("#EXT-X-DISCONTINUITY"));
        }
        if let Some(own) = self.init.filter(|own| self.discontinuity || *init != Some(own)) {
            *init = Some(own);
            out.text.push_str("#EXT-X-MAP:URI=\"");
            out.address(own);
            out.text.push_str("\"\n");
        }
        if self.wall_ms > 0 {
            let date = date::text(self.wall_ms, 'T');
            out.line(format_args!("#EXT-X-PROGRAM-DATE-TIME:{date}Z"));
        }
    }

    /// A key holds until the next one; an unencrypted segment behind others needs to say so.
    fn write_key(&self, out: &mut Text, key: &mut Option<(&'a str, &'a [u8; 16])>) {
        if self.key == *key {
            return;
        }
        *key = self.key;
        let Some((uri, iv)) = self.key else {
            return out.line(format_args!("#EXT-X-KEY:METHOD=NONE"));
        };
        out.text.push_str("#EXT-X-KEY:METHOD=AES-128,URI=\"");
        out.address(uri);
        out.line(format_args!("\",IV=0x{:032x}", u128::from_be_bytes(*iv)));
    }

    fn write_parts(&self, out: &mut Text) {
        for part in &self.parts {
            let _ = write!(out.text, "#EXT-X-PART:DURATION={},URI=\"", Seconds(part.duration_ms));
            out.address(part.uri);
            out.line(format_args!("\"{}", if part.independent { ",INDEPENDENT=YES" } else { "" }));
        }
    }
}

/// Milliseconds, written as seconds.
struct Seconds(i64);

impl std::fmt::Display for Seconds {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{:03}", self.0 / 1_000, self.0 % 1_000)
    }
}

/// What a master playlist says of a variant.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Master<'a> {
    /// The address of the media playlist.
    pub uri: &'a str,
    /// Bits a second of the largest segment, and of all.
    pub bandwidth: [u64; 2],
    /// Codecs as RFC 6381 has them, if all are known.
    pub codecs: Option<&'a str>,
    /// Pixels across and down.
    pub size: Option<(u32, u32)>,
    /// Pictures a second.
    pub fps: Option<f64>,
    /// Every segment begins where decoding can.
    pub independent: bool,
}

impl Master<'_> {
    /// The text: players begin with the first.
    pub fn write(variants: &[Master<'_>]) -> String {
        let mut out = "#EXTM3U\n#EXT-X-VERSION:6\n".to_owned();
        if variants.iter().all(|variant| variant.independent) {
            out += "#EXT-X-INDEPENDENT-SEGMENTS\n";
        }
        variants.iter().for_each(|variant| variant.write_to(&mut out));
        out
    }

    fn write_to(&self, out: &mut String) {
        let [peak, average] = self.bandwidth.map(|bits| bits.max(1));
        let _ = write!(out, "#EXT-X-STREAM-INF:BANDWIDTH={peak},AVERAGE-BANDWIDTH={average}");
        if let Some(codecs) = self.codecs.filter(|codecs| !codecs.is_empty()) {
            let _ = write!(out, ",CODECS=\"{codecs}\"");
        }
        if let Some((width, height)) = self.size.filter(|size| size.0 > 0 && size.1 > 0) {
            let _ = write!(out, ",RESOLUTION={width}x{height}");
        }
        if let Some(fps) = self.fps {
            let _ = write!(out, ",FRAME-RATE={fps:.3}");
        }
        let _ = write!(out, "\n{}\n", self.uri);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn segment(uri: &str) -> SegmentLine<'_> {
        SegmentLine { uri, duration_ms: 4_000, ..SegmentLine::default() }
    }

    #[test]
    fn a_plain_playlist() {
        let second = SegmentLine { discontinuity: true, duration_ms: 3_960, ..segment("s-8.ts") };
        let media = Media {
            target_s: 4,
            first: 7,
            discontinuities: 2,
            segments: vec![segment("s-7.ts"), second],
            ..Media::default()
        };
        let text = media.write();
        let expected = "#EXTM3U\n#EXT-X-VERSION:3\n#EXT-X-TARGETDURATION:4\n\
            #EXT-X-MEDIA-SEQUENCE:7\n#EXT-X-DISCONTINUITY-SEQUENCE:2\n#EXTINF:4.000, no desc\n\
            s-7.ts\n#EXT-X-DISCONTINUITY\n#EXTINF:3.960, no desc\ns-8.ts\n";
        assert_eq!(String::from_utf8(text.with("")).unwrap(), expected);
        let own = String::from_utf8(text.with("?hls_ctx=x")).unwrap();
        assert_eq!(own, expected.replace(".ts\n", ".ts?hls_ctx=x\n"));
    }

    #[test]
    fn parts_maps_and_skipping() {
        let uris: Vec<String> = (0..40).map(|n| format!("s-{n}.m4s")).collect();
        let line = |uri: &'static str| PartLine { uri, duration_ms: 200, independent: true };
        let mut media = Media {
            target_s: 2,
            part_target_ms: Some(212),
            segments: uris
                .iter()
                .map(|uri| SegmentLine {
                    init: Some("init.mp4"),
                    duration_ms: 2_000,
                    ..segment(uri)
                })
                .collect(),
            open: Some(SegmentLine {
                init: Some("init.mp4"),
                wall_ms: 1_795_374_245_678,
                parts: vec![line("p0.m4s"), PartLine { independent: false, ..line("p1.m4s") }],
                ..SegmentLine::default()
            }),
            hint: Some("p2.m4s"),
            ..Media::default()
        };
        // 12 s from the end, of which 0.4 s are parts: six segments are not enough.
        assert_eq!(media.can_skip(), 34);
        media.skipped = media.can_skip();
        let text = String::from_utf8(media.write().with("?a")).unwrap();
        assert!(text.contains("CAN-SKIP-UNTIL=12.0,HOLD-BACK=6.0,PART-HOLD-BACK=0.636\n"));
        assert!(text.contains("#EXT-X-SKIP:SKIPPED-SEGMENTS=34\n#EXTINF:2.000, no desc\ns-34."));
        assert!(!text.contains("EXT-X-MAP"), "{text}");
        assert!(
            text.ends_with(
                "#EXT-X-PROGRAM-DATE-TIME:2026-11-22T19:04:05.678Z\n\
             #EXT-X-PART:DURATION=0.200,URI=\"p0.m4s?a\",INDEPENDENT=YES\n\
             #EXT-X-PART:DURATION=0.200,URI=\"p1.m4s?a\"\n\
             #EXT-X-PRELOAD-HINT:TYPE=PART,URI=\"p2.m4s?a\"\n"
            ),
            "{text}"
        );
        media.skipped = 0;
        let text = String::from_utf8(media.write().with("")).unwrap();
        assert_eq!(text.matches("EXT-X-MAP:URI=\"init.mp4\"").count(), 1);
    }

    #[test]
    fn masters() {
        let master = Master {
            uri: "/live/s.m3u8?hls_ctx=x",
            bandwidth: [2_000_000, 0],
            codecs: Some("avc1.64001f,mp4a.40.2"),
            size: Some((1280, 720)),
            fps: Some(30_000.0 / 1_001.0),
            independent: false,
        };
        assert_eq!(
            Master::write(&[master]),
            "#EXTM3U\n#EXT-X-VERSION:6\n#EXT-X-STREAM-INF:\
            BANDWIDTH=2000000,AVERAGE-BANDWIDTH=1,CODECS=\"avc1.64001f,mp4a.40.2\",\
            RESOLUTION=1280x720,FRAME-RATE=29.970\n/live/s.m3u8?hls_ctx=x\n"
        );
    }
}

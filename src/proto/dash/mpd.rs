//! The text of manifests for live streams.
//!
//! Times of day are counted from 1970 on: `availabilityStartTime` is the epoch and a Period begins
//! as many seconds after it as its first frame came. So a manifest says the same whoever writes it
//! and whenever: after a restart of the server, and for variants that began at different times.
//!
//! What differs by player is where it finds the manifest again, and one word behind each address:
//! the text is written once, with the places of both ([`join`]).

use std::fmt::Write as _;

use crate::date;

/// What a manifest says. Times are in milliseconds.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Mpd {
    /// When it was written, ms since 1970.
    pub publish_ms: i64,
    /// When players look again; `None` when nothing more comes.
    pub update_ms: Option<i64>,
    /// How far behind the end players begin.
    pub delay_ms: i64,
    /// How far back players may go.
    pub depth_ms: i64,
    /// The longest segment.
    pub segment_ms: i64,
    /// Where the time of day is to be had.
    pub clock: String,
    /// The stretches, oldest first.
    pub periods: Vec<Period>,
}

/// A stretch whose times belong together.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Period {
    /// Its number.
    pub id: u64,
    /// When it began, ms since 1970.
    pub start_ms: i64,
    /// Pictures, all of the same, best first.
    pub video: Vec<Representation>,
    /// Audio, all of the same, best first.
    pub audio: Vec<Representation>,
}

/// One encoding of a track.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Representation {
    /// Its name.
    pub id: String,
    /// Bits a second of its largest segment.
    pub bandwidth: u64,
    /// Its codec as RFC 6381 has it.
    pub codecs: String,
    /// Pixels across and down.
    pub size: Option<(u32, u32)>,
    /// Pictures a second.
    pub fps: Option<f64>,
    /// Samples a second and channels.
    pub audio: Option<(u32, u8)>,
    /// Ticks a second.
    pub timescale: u32,
    /// Media time at the begin of the Period, ticks.
    pub offset: i64,
    /// Every segment begins where decoding can.
    pub independent: bool,
    /// Address of the initialisation segment.
    pub init: String,
    /// Address of segments with `$Number$` in it.
    pub media: String,
    /// Number of the first segment.
    pub first: u64,
    /// Begin and length of each segment, ticks.
    pub timeline: Vec<(i64, i64)>,
}

/// A text and the places where each player has something of its own: the first one is that of
/// the address of the manifest, behind the others its word goes.
pub type Marked = (String, Vec<u32>);

/// The manifest of a player: `location` is where it is found again, `word` goes behind addresses.
/// Both may be empty.
pub fn join((text, marks): &Marked, location: &str, word: &str) -> Vec<u8> {
    let (location, word) = (escaped(location), escaped(word));
    let mut out = Vec::with_capacity(text.len() + location.len() + marks.len() * word.len() + 32);
    let mut from = 0;
    for (index, mark) in marks.iter().map(|mark| *mark as usize).enumerate() {
        out.extend_from_slice(&text.as_bytes()[from..mark]);
        from = mark;
        if index > 0 {
            out.extend_from_slice(word.as_bytes());
        } else if !location.is_empty() {
            out.extend_from_slice(b"  <Location>");
            out.extend_from_slice(location.as_bytes());
            out.extend_from_slice(b"</Location>\n");
        }
    }
    out.extend_from_slice(&text.as_bytes()[from..]);
    out
}

/// Where the first word ends in what [`join`] gives.
pub fn first_end((_, marks): &Marked, location: &str, word: &str) -> usize {
    let element = match escaped(location).len() {
        0 => 0,
        len => len + "  <Location></Location>\n".len(),
    };
    marks.get(1).map_or(0, |mark| *mark as usize + element + escaped(word).len())
}

/// A text as an attribute of XML has it.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            c => out.push(c),
        }
    }
    out
}

/// Milliseconds, as a duration of XML.
struct Seconds(i64);

impl std::fmt::Display for Seconds {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let ms = self.0.max(0);
        match ms % 1_000 {
            0 => write!(f, "PT{}S", ms / 1_000),
            rest => write!(f, "PT{}.{rest:03}S", ms / 1_000),
        }
    }
}

/// A time of day, as XML and clocks for players have it.
pub fn time_of_day(wall_ms: i64) -> String {
    format!("{}Z", date::text(wall_ms, 'T'))
}

/// A frame rate as a whole number, or as a fraction of whole numbers.
fn rate(fps: f64) -> String {
    let (whole, ntsc) = (fps.round(), (fps * 1.001).round());
    if (fps - whole).abs() < 0.000_5 {
        format!("{whole}")
    } else if (fps - ntsc / 1.001).abs() < 0.002 {
        format!("{}/1001", ntsc * 1_000.0)
    } else {
        format!("{}/1000", (fps * 1_000.0).round())
    }
}

impl Mpd {
    /// The text.
    pub fn write(&self) -> Marked {
        let mut out = Out::default();
        let kind = if self.update_ms.is_some() { "dynamic" } else { "static" };
        out.text.push_str("<?xml version=\"1.0\" encoding=\"utf-8\"?>\n");
        out.add(format_args!(
            "<MPD xmlns=\"urn:mpeg:dash:schema:mpd:2011\" \
             profiles=\"urn:mpeg:dash:profile:isoff-live:2011\" type=\"{kind}\" \
             availabilityStartTime=\"1970-01-01T00:00:00Z\" publishTime=\"{}\"",
            time_of_day(self.publish_ms)
        ));
        let segment = Seconds(self.segment_ms);
        out.add(format_args!(" minBufferTime=\"{segment}\" maxSegmentDuration=\"{segment}\""));
        match self.update_ms {
            Some(update_ms) => out.add(format_args!(
                " minimumUpdatePeriod=\"{}\" timeShiftBufferDepth=\"{}\" \
                 suggestedPresentationDelay=\"{}\">\n",
                Seconds(update_ms),
                Seconds(self.depth_ms),
                Seconds(self.delay_ms)
            )),
            None => out.add(format_args!(
                " mediaPresentationDuration=\"{}\">\n",
                Seconds(self.periods.last().map_or(0, Period::end_ms))
            )),
        }
        out.mark();
        for period in &self.periods {
            let (id, start) = (period.id, Seconds(period.start_ms));
            out.add(format_args!("  <Period id=\"{id}\" start=\"{start}\">\n"));
            for (id, kind, representations) in
                [(1, "video", &period.video), (2, "audio", &period.audio)]
            {
                write_set(&mut out, id, kind, representations);
            }
            out.text.push_str("  </Period>\n");
        }
        // Players ask for it once or twice: the manifest itself can be the same for all of them.
        out.add(format_args!(
            "  <UTCTiming schemeIdUri=\"urn:mpeg:dash:utc:http-iso:2014\" value=\"{}\"/>\n</MPD>\n",
            escaped(&self.clock)
        ));
        (out.text, out.marks)
    }
}

impl Period {
    /// When the last segment ends, ms since 1970.
    pub fn end_ms(&self) -> i64 {
        let ends = self.video.iter().chain(&self.audio).filter_map(|one| {
            let (start, duration) = one.timeline.last()?;
            Some((start + duration - one.offset) * 1_000 / i64::from(one.timescale.max(1)))
        });
        self.start_ms + ends.max().unwrap_or(0)
    }
}

#[derive(Default)]
struct Out {
    text: String,
    marks: Vec<u32>,
}

impl Out {
    fn add(&mut self, text: std::fmt::Arguments<'_>) {
        // Writing to a text cannot fail.
        let _ = self.text.write_fmt(text);
    }

    fn mark(&mut self) {
        self.marks.push(self.text.len() as u32);
    }
}

fn write_set(out: &mut Out, id: u32, kind: &str, representations: &[Representation]) {
    if representations.is_empty() {
        return;
    }
    out.add(format_args!(
        "    <AdaptationSet id=\"{id}\" contentType=\"{kind}\" mimeType=\"{kind}/mp4\" \
         segmentAlignment=\"true\""
    ));
    if representations.iter().all(|one| one.independent) {
        out.text.push_str(" startWithSAP=\"1\"");
    }
    out.text.push_str(">\n");
    for one in representations {
        one.write(out);
    }
    out.text.push_str("    </AdaptationSet>\n");
}

impl Representation {
    fn write(&self, out: &mut Out) {
        out.add(format_args!(
            "      <Representation id=\"{}\" bandwidth=\"{}\" codecs=\"{}\"",
            escaped(&self.id),
            self.bandwidth.max(1),
            escaped(&self.codecs)
        ));
        if let Some((width, height)) = self.size.filter(|size| size.0 > 0 && size.1 > 0) {
            out.add(format_args!(" width=\"{width}\" height=\"{height}\""));
        }
        if let Some(fps) = self.fps.filter(|fps| *fps > 0.0) {
            out.add(format_args!(" frameRate=\"{}\"", rate(fps)));
        }
        match self.audio {
            Some((rate_hz, channels)) => {
                out.add(format_args!(" audioSamplingRate=\"{rate_hz}\">\n"));
                if channels > 0 {
                    out.add(format_args!(
                        "        <AudioChannelConfiguration schemeIdUri=\"urn:mpeg:dash:23003:3:\
                         audio_channel_configuration:2011\" value=\"{channels}\"/>\n"
                    ));
                }
            }
            None => out.text.push_str(">\n"),
        }
        out.add(format_args!(
            "        <SegmentTemplate timescale=\"{}\" presentationTimeOffset=\"{}\" \
             startNumber=\"{}\" initialization=\"{}",
            self.timescale,
            self.offset.max(0),
            self.first,
            escaped(&self.init)
        ));
        out.mark();
        out.add(format_args!("\" media=\"{}", escaped(&self.media)));
        out.mark();
        out.text.push_str("\">\n          <SegmentTimeline>\n");
        let mut rest = &self.timeline[..];
        let mut expected = None;
        while let [(start, duration), ..] = rest {
            let follows =
                |at: usize| rest.get(at) == Some(&(start + duration * at as i64, *duration));
            let count = (1..).take_while(|at| follows(*at)).count();
            out.text.push_str("            <S");
            if expected != Some(*start) {
                out.add(format_args!(" t=\"{start}\""));
            }
            out.add(format_args!(" d=\"{duration}\""));
            if count > 0 {
                out.add(format_args!(" r=\"{count}\""));
            }
            out.text.push_str("/>\n");
            expected = Some(start + duration * (count as i64 + 1));
            rest = &rest[count + 1..];
        }
        out.text.push_str(
            "          </SegmentTimeline>\n        </SegmentTemplate>\n      </Representation>\n",
        );
    }
}

#[cfg(test)]
mod tests {
    use super::super::check::Manifest;
    use super::*;

    fn video() -> Representation {
        Representation {
            id: "video".into(),
            bandwidth: 1_000_000,
            codecs: "avc1.64001f".into(),
            size: Some((1280, 720)),
            fps: Some(30_000.0 / 1_001.0),
            audio: None,
            timescale: 90_000,
            offset: 450_000,
            independent: true,
            init: "s/video-init.mp4".into(),
            media: "s/video-$Number$.m4s".into(),
            first: 7,
            timeline: vec![(450_000, 180_000), (630_000, 180_000), (810_000, 90), (990_000, 9)],
        }
    }

    #[test]
    fn a_live_manifest_and_the_same_at_its_end() {
        let audio = Representation {
            id: "audio".into(),
            codecs: "mp4a.40.2".into(),
            size: None,
            fps: None,
            audio: Some((48_000, 2)),
            timescale: 48_000,
            offset: 240_000,
            timeline: vec![(240_000, 96_256)],
            ..video()
        };
        let (video, audio) = (vec![video()], vec![audio]);
        let period = Period { id: 3, start_ms: 1_795_374_245_678, video, audio };
        let mut mpd = Mpd {
            publish_ms: 1_795_374_250_000,
            update_ms: Some(2_000),
            delay_ms: 6_000,
            depth_ms: 20_500,
            segment_ms: 2_000,
            clock: "s/time".into(),
            periods: vec![period],
        };
        let text = String::from_utf8(join(&mpd.write(), "s.mpd?a=1&b=2", "?w=\"x")).unwrap();
        for expected in [
            "type=\"dynamic\" availabilityStartTime=\"1970-01-01T00:00:00Z\" \
             publishTime=\"2026-11-22T19:04:10.000Z\"",
            "minimumUpdatePeriod=\"PT2S\" timeShiftBufferDepth=\"PT20.500S\"",
            "  <Location>s.mpd?a=1&amp;b=2</Location>\n",
            "<Period id=\"3\" start=\"PT1795374245.678S\">",
            "width=\"1280\" height=\"720\" frameRate=\"30000/1001\">",
            "media=\"s/video-$Number$.m4s?w=&quot;x\">",
            "<S t=\"450000\" d=\"180000\" r=\"1\"/>\n            <S d=\"90\"/>\n            \
             <S t=\"990000\" d=\"9\"/>",
            "codecs=\"mp4a.40.2\" audioSamplingRate=\"48000\">",
            "value=\"s/time\"",
        ] {
            assert!(text.contains(expected), "{expected} in\n{text}");
        }
        let read = Manifest::parse(&text).unwrap();
        assert_eq!(read.location.as_deref(), Some("s.mpd?a=1&b=2"));
        let first = &read.periods[0].representations[0];
        let numbers: Vec<u64> = first.segments.iter().map(|segment| segment.number).collect();
        assert_eq!(numbers, [7, 8, 9, 10]);
        assert_eq!(first.segments[2].start, 810_000);
        mpd.update_ms = None;
        let text = String::from_utf8(join(&mpd.write(), "", "")).unwrap();
        assert!(text.contains("type=\"static\"") && !text.contains("minimumUpdatePeriod"));
        // Six seconds of pictures and a little, behind the start.
        assert!(text.contains("mediaPresentationDuration=\"PT1795374251.678S\""), "{text}");
        assert!(!text.contains("Location"));
    }

    #[test]
    fn frame_rates() {
        for (fps, text) in [
            (25.0, "25"),
            (29.97, "30000/1001"),
            (59.940, "60000/1001"),
            (23.976, "24000/1001"),
            (12.5, "12500/1000"),
            (30.000_1, "30"),
        ] {
            assert_eq!(rate(fps), text);
        }
    }
}

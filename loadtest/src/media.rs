//! What publishers send: a generated stream or a looped FLV file, as a schedule of messages.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
pub use ringcast::media::Kind;

use crate::record::{self, Record};

/// True for a video payload at which a decoder can start: frame type 1, and not a sequence header.
/// Knows the classic layout and enhanced RTMP's (high bit set; ModEx is not used by publishers).
pub fn is_keyframe(payload: &[u8]) -> bool {
    let Some(&first) = payload.first() else { return false };
    if first & 0x80 != 0 {
        return (first >> 4) & 7 == 1 && first & 0x0f != 0;
    }
    first >> 4 == 1 && (!matches!(first & 0x0f, 7 | 12) || payload.get(1) == Some(&1))
}

/// True for decoder configuration, which servers may repeat to each player.
pub fn is_sequence_header(kind: Kind, payload: &[u8]) -> bool {
    let Some(&first) = payload.first() else { return false };
    match kind {
        Kind::Video if first & 0x80 != 0 => first & 0x0f == 0,
        Kind::Video => matches!(first & 0x0f, 7 | 12) && payload.get(1) == Some(&0),
        Kind::Audio if first >> 4 == 9 => first & 0x0f == 0,
        Kind::Audio => first >> 4 == 10 && payload.get(1) == Some(&0),
        Kind::Data => false,
    }
}

/// True for the message that says that no more pictures follow.
fn is_end_of_sequence(kind: Kind, payload: &[u8]) -> bool {
    let Some(&first) = payload.first() else { return false };
    kind == Kind::Video
        && if first & 0x80 != 0 {
            first & 0x0f == 2
        } else {
            matches!(first & 0x0f, 7 | 12) && payload.get(1) == Some(&2)
        }
}

/// Settings of a generated stream.
#[derive(Clone, Debug, PartialEq)]
pub struct GenerateOptions {
    /// Video bitrate, kbit/s (audio comes on top, about 100 kbit/s).
    pub kbps: f64,
    /// Video frames per second.
    pub fps: f64,
    /// Keyframe distance, seconds.
    pub gop: f64,
    /// With audio: 43 messages per second of 200 to 400 bytes, as AAC at 44.1 kHz would be.
    pub audio: bool,
    /// First timestamp, milliseconds.
    pub first_timestamp: u32,
}

impl Default for GenerateOptions {
    fn default() -> Self {
        GenerateOptions { kbps: 600.0, fps: 30.0, gop: 2.0, audio: true, first_timestamp: 0 }
    }
}

/// One message of a schedule, before its payload is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Item {
    /// When to send, nanoseconds after the publisher started.
    pub due: u64,
    /// Timestamp, milliseconds (wraps as RTMP's does).
    pub timestamp: u32,
    /// Audio, video or data.
    pub kind: Kind,
    /// True when players can start here.
    pub keyframe: bool,
    place: Place,
}

/// Where an item's payload comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Generated { seq: u32, len: u32 },
    Tag { index: u32 },
}

/// What all publishers of a group share.
#[derive(Clone, Debug)]
pub enum Source {
    /// A generated stream with records.
    Generated(Arc<Generated>),
    /// A file, looped.
    File(Arc<FlvFile>),
}

impl Source {
    /// Messages to send before anything else: metadata and sequence headers.
    pub fn headers(&self) -> &[(Kind, Bytes)] {
        match self {
            Source::Generated(g) => &g.headers,
            Source::File(f) => &f.headers,
        }
    }
}

/// One publisher's walk through its source.
#[derive(Clone, Debug)]
pub struct Script {
    source: Source,
    stream: u32,
    epoch: u32,
    seq: u32,
    video: u64,
    audio: u64,
    index: u64,
    base_timestamp: u32,
}

impl Script {
    /// A script from the start of the source. `stream` and `epoch` go into records;
    /// `base_timestamp` (milliseconds) is added to every timestamp.
    pub fn new(source: &Source, stream: u32, epoch: u32, base_timestamp: u32) -> Script {
        let source = source.clone();
        Script { source, stream, epoch, seq: 0, video: 0, audio: 0, index: 0, base_timestamp }
    }

    /// The next message. Never ends.
    pub fn next_item(&mut self) -> Item {
        match &self.source {
            Source::Generated(g) => {
                let (options, seq) = (&g.options, self.seq);
                let video_due = g.video_due(self.video);
                let audio_due = g.audio_due(self.audio);
                self.seq = self.seq.wrapping_add(1);
                let base = self.base_timestamp.wrapping_add(options.first_timestamp);
                let item = |kind, due: u64, len, keyframe| Item {
                    due,
                    timestamp: base.wrapping_add((due / 1_000_000) as u32),
                    kind,
                    keyframe,
                    place: Place::Generated { seq, len },
                };
                if options.audio && audio_due < video_due {
                    let len = g.audio_sizes[self.audio as usize % g.audio_sizes.len()];
                    self.audio += 1;
                    item(Kind::Audio, audio_due, len, false)
                } else {
                    let in_gop = self.video as usize % g.video_sizes.len();
                    self.video += 1;
                    item(Kind::Video, video_due, g.video_sizes[in_gop], in_gop == 0)
                }
            }
            Source::File(f) => {
                let n = f.tags.len() as u64;
                let (round, index) = (self.index / n, self.index % n);
                self.index += 1;
                let tag = &f.tags[index as usize];
                let ms = round * u64::from(f.loop_ms) + u64::from(tag.timestamp);
                Item {
                    due: ms * 1_000_000,
                    timestamp: self.base_timestamp.wrapping_add(ms as u32),
                    kind: tag.kind,
                    keyframe: tag.kind == Kind::Video && is_keyframe(&tag.payload),
                    place: Place::Tag { index: index as u32 },
                }
            }
        }
    }

    /// Makes the payload of an item in `out` (cleared first), stamped with the send time `now`.
    pub fn payload(&self, item: &Item, now: u64, out: &mut Vec<u8>) {
        out.clear();
        match (&self.source, item.place) {
            (Source::Generated(g), Place::Generated { seq, len }) => {
                let record = Record {
                    stream: self.stream,
                    epoch: self.epoch,
                    seq,
                    timestamp: item.timestamp,
                    keyframe: item.keyframe,
                    kind: item.kind,
                    sent: now,
                };
                g.payload(&record, len as usize, out);
            }
            (Source::File(f), Place::Tag { index }) => {
                out.extend_from_slice(&f.tags[index as usize].payload);
            }
            _ => unreachable!("an item belongs to the script that made it"),
        }
    }
}

/// A stream that is made, not read: sizes and times of a camera, bytes of no meaning.
#[derive(Debug)]
pub struct Generated {
    options: GenerateOptions,
    headers: Vec<(Kind, Bytes)>,
    /// Payload sizes of one GOP's frames.
    video_sizes: Vec<u32>,
    audio_sizes: Vec<u32>,
    /// Pseudo-random bytes that payloads are cut from.
    filler: Vec<u8>,
}

/// Codec header, NAL unit length, NAL unit type and two bytes of slice header.
const VIDEO_HEAD: usize = 12;
const AUDIO_HEAD: usize = 2;
/// Audio starts a little after video, so that a stream opens with a keyframe.
const AUDIO_DELAY_NS: u64 = 5_000_000;

impl Generated {
    /// Prepares a stream. The schedule is that of the floor measurement: at 1,000 kbit/s and
    /// 30 fps a keyframe of 40 KiB and other frames of 3.0 to 3.6 KiB; other rates scale it.
    pub fn new(options: GenerateOptions) -> Generated {
        let scale = options.kbps / 1000.0 * 30.0 / options.fps;
        let frames = (options.gop * options.fps).round().max(1.0) as usize;
        let mut random = Lcg(12345);
        let video_sizes: Vec<u32> = (0..frames)
            .map(|f| {
                let base = if f == 0 { 40 * 1024 } else { random.range(3072, 3686) };
                ((f64::from(base) * scale) as u32).max((VIDEO_HEAD + record::LEN) as u32)
            })
            .collect();
        let audio_sizes = (0..86).map(|_| random.range(200, 400)).collect();
        let longest = video_sizes.iter().copied().max().unwrap_or(0).max(400) as usize;
        let mut filler = vec![0u8; longest + FILLER_SPREAD];
        for word in filler.chunks_mut(4) {
            word.copy_from_slice(&random.next().to_le_bytes()[..word.len()]);
        }
        let mut headers = vec![(Kind::Data, metadata(&options))];
        headers.push((Kind::Video, Bytes::from_static(AVC_SEQUENCE_HEADER)));
        if options.audio {
            headers.push((Kind::Audio, Bytes::from_static(AAC_SEQUENCE_HEADER)));
        }
        Generated { options, headers, video_sizes, audio_sizes, filler }
    }

    fn video_due(&self, frame: u64) -> u64 {
        (frame as f64 * 1e9 / self.options.fps) as u64
    }

    fn audio_due(&self, frame: u64) -> u64 {
        // AAC: 1,024 samples a frame.
        frame * 1024 * 1_000_000_000 / 44_100 + AUDIO_DELAY_NS
    }

    fn payload(&self, record: &Record, len: usize, out: &mut Vec<u8>) {
        // Each stream and message starts elsewhere in the filler, so that bytes of one that end
        // up in another are seen.
        let mixed =
            (record.stream.wrapping_mul(0x9e37_79b1) ^ record.seq).wrapping_mul(2_654_435_761);
        let from = (mixed >> 16) as usize % FILLER_SPREAD;
        out.extend_from_slice(&self.filler[from..from + len]);
        let at = match record.kind {
            Kind::Video => {
                let nal_len = (len - 9) as u32;
                let (first, slice) = if record.keyframe {
                    (0x17, [0x65, 0x88, 0x84])
                } else {
                    (0x27, [0x41, 0x9a, 0x21])
                };
                out[..5].copy_from_slice(&[first, 1, 0, 0, 0]);
                out[5..9].copy_from_slice(&nal_len.to_be_bytes());
                out[9..12].copy_from_slice(&slice);
                VIDEO_HEAD
            }
            _ => {
                out[..2].copy_from_slice(&[0xaf, 1]);
                AUDIO_HEAD
            }
        };
        record.write(out, at);
    }
}

const FILLER_SPREAD: usize = 32 * 1024;

/// The generator of the floor measurement, so that sizes are the same there and here.
struct Lcg(u32);

impl Lcg {
    fn next(&mut self) -> u32 {
        self.0 = self.0.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        self.0
    }

    fn range(&mut self, lo: u32, hi: u32) -> u32 {
        lo + (self.next() >> 8) % (hi - lo)
    }
}

/// AVCDecoderConfigurationRecord of a 640x360 baseline stream at level 3.0, in an FLV video tag.
const AVC_SEQUENCE_HEADER: &[u8] = &[
    0x17, 0, 0, 0, 0, // AVC, sequence header, composition time 0
    1, 0x42, 0xc0, 0x1e, 0xff, 0xe1, 0, 10, // one SPS of 10 bytes, 4-byte NAL unit lengths
    0x67, 0x42, 0xc0, 0x1e, 0xda, 0x02, 0x80, 0xbf, 0xe5, 0x40, //
    1, 0, 4, 0x68, 0xce, 0x3c, 0x80, // one PPS of 4 bytes
];

/// AudioSpecificConfig: AAC-LC, 44.1 kHz, stereo.
const AAC_SEQUENCE_HEADER: &[u8] = &[0xaf, 0, 0x12, 0x10];

/// An onMetaData message as encoders send it (AMF0: a string, then an ECMA array).
fn metadata(options: &GenerateOptions) -> Bytes {
    let mut numbers = vec![
        ("width", 640.0),
        ("height", 360.0),
        ("framerate", options.fps),
        ("videocodecid", 7.0),
        ("videodatarate", options.kbps),
    ];
    if options.audio {
        numbers.push(("audiocodecid", 10.0));
        numbers.push(("audiosamplerate", 44_100.0));
    }
    let mut out = Vec::new();
    let name = |out: &mut Vec<u8>, s: &str| {
        out.extend_from_slice(&(s.len() as u16).to_be_bytes());
        out.extend_from_slice(s.as_bytes());
    };
    out.push(2);
    name(&mut out, "onMetaData");
    out.push(8);
    out.extend_from_slice(&(numbers.len() as u32).to_be_bytes());
    for (key, value) in numbers {
        name(&mut out, key);
        out.push(0);
        out.extend_from_slice(&f64::to_be_bytes(value));
    }
    out.extend_from_slice(&[0, 0, 9]);
    Bytes::from(out)
}

/// One tag of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tag {
    /// Kind.
    pub kind: Kind,
    /// Milliseconds, starting at zero in the file.
    pub timestamp: u32,
    /// Tag body.
    pub payload: Bytes,
}

/// An FLV file in memory, ready to be looped.
#[derive(Debug)]
pub struct FlvFile {
    /// Metadata and sequence headers before the first frame.
    headers: Vec<(Kind, Bytes)>,
    /// Everything else, timestamps starting at zero.
    pub tags: Vec<Tag>,
    /// What one round adds to the timestamps: the last timestamp plus one frame's distance.
    pub loop_ms: u32,
}

/// Why a file cannot be published.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// It cannot be read.
    #[error("cannot read {0}: {1}")]
    Read(String, std::io::Error),
    /// It is not FLV, or damaged.
    #[error("{0} is not an FLV file that can be read: {1}")]
    Malformed(String, &'static str),
}

impl FlvFile {
    /// Metadata and sequence headers before the first frame.
    pub fn headers(&self) -> &[(Kind, Bytes)] {
        &self.headers
    }

    /// Reads a whole file into memory.
    pub fn open(path: &Path) -> Result<FlvFile, FileError> {
        let name = path.display().to_string();
        let bytes = std::fs::read(path).map_err(|e| FileError::Read(name.clone(), e))?;
        FlvFile::parse(Bytes::from(bytes)).map_err(|why| FileError::Malformed(name, why))
    }

    /// Splits FLV bytes into tags. A torn last tag, as a recording that was cut leaves it, is left
    /// out.
    pub fn parse(bytes: Bytes) -> Result<FlvFile, &'static str> {
        // FLV E.2: "FLV", version, flags, header length.
        if bytes.len() < 13 || &bytes[..3] != b"FLV" {
            return Err("no FLV header");
        }
        let header = u32::from_be_bytes(bytes[5..9].try_into().expect("4 bytes")) as usize;
        let mut at = header.checked_add(4).ok_or("header length")?;
        let (mut headers, mut tags): (Vec<(Kind, Bytes)>, Vec<Tag>) = (Vec::new(), Vec::new());
        let mut first = None;
        while let Some(head) = bytes.get(at..at + 11) {
            let len = usize::from(head[1]) << 16 | usize::from(head[2]) << 8 | usize::from(head[3]);
            let timestamp = u32::from_be_bytes([head[7], head[4], head[5], head[6]]);
            let body = at + 11;
            if body + len > bytes.len() {
                break;
            }
            let payload = bytes.slice(body..body + len);
            at = body + len + 4;
            let Some(kind) = Kind::from_type(head[0] & 0x1f) else { continue };
            if is_end_of_sequence(kind, &payload) {
                // The loop goes on, and recorders give it a timestamp before the last audio's.
                continue;
            }
            let is_header = kind == Kind::Data || is_sequence_header(kind, &payload);
            if tags.is_empty() && is_header {
                headers.push((kind, payload));
                continue;
            }
            let base = *first.get_or_insert(timestamp);
            tags.push(Tag { kind, timestamp: timestamp.saturating_sub(base), payload });
        }
        let (Some(last), n) = (tags.iter().map(|t| t.timestamp).max(), tags.len() as u32) else {
            return Err("no audio or video tags");
        };
        let loop_ms = last + (last / n.max(1)).clamp(1, 40);
        Ok(FlvFile { headers, tags, loop_ms })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::Found;

    fn generated(kbps: f64) -> Source {
        Source::Generated(Arc::new(Generated::new(GenerateOptions {
            kbps,
            ..GenerateOptions::default()
        })))
    }

    #[test]
    fn ten_seconds_have_the_rate_and_messages_asked_for() {
        let mut script = Script::new(&generated(1000.0), 1, 1, 0);
        let (mut out, mut bytes, mut video, mut audio, mut keys) = (Vec::new(), 0, 0, 0, 0);
        let mut last = 0;
        loop {
            let item = script.next_item();
            if item.due >= 10_000_000_000 {
                break;
            }
            assert!(item.timestamp >= last, "timestamps never go back");
            last = item.timestamp;
            script.payload(&item, 5, &mut out);
            let Found::Good(record) = Record::find(&out) else { panic!("no record") };
            assert_eq!((record.seq, record.keyframe), (video + audio, item.keyframe));
            assert_eq!((record.timestamp, record.kind), (item.timestamp, item.kind));
            match item.kind {
                Kind::Video => {
                    assert_eq!(is_keyframe(&out), item.keyframe);
                    (video, bytes) = (video + 1, bytes + out.len());
                    keys += u32::from(item.keyframe);
                }
                _ => audio += 1,
            }
        }
        assert_eq!((video, keys), (300, 5));
        assert!((425..=431).contains(&audio), "{audio}");
        let kbps = bytes as f64 * 8.0 / 10_000.0;
        assert!((900.0..1100.0).contains(&kbps), "{kbps}");
    }

    #[test]
    fn a_looped_file_goes_on_in_time() {
        let mut flv = b"FLV\x01\x05\0\0\0\x09\0\0\0\0".to_vec();
        let mut tag = |kind: u8, ts: u8, body: &[u8]| {
            flv.extend_from_slice(&[kind, 0, 0, body.len() as u8, 0, 0, ts, 0, 0, 0, 0]);
            flv.extend_from_slice(body);
            flv.extend_from_slice(&(11 + body.len() as u32).to_be_bytes());
        };
        tag(9, 10, AVC_SEQUENCE_HEADER);
        tag(9, 10, &[0x17, 1, 0, 0, 0, 1]);
        tag(8, 20, &[0xaf, 1, 2]);
        tag(9, 50, &[0x27, 1, 0, 0, 0, 3]);
        tag(9, 40, &[0x17, 2, 0, 0, 0]);
        flv.extend_from_slice(&[9, 0, 0, 99]); // torn
        let file = Source::File(Arc::new(FlvFile::parse(flv.into()).unwrap()));
        assert_eq!(file.headers().len(), 1);
        let mut script = Script::new(&file, 0, 0, 1000);
        let items: Vec<_> = (0..6).map(|_| script.next_item()).collect();
        let times: Vec<_> = items.iter().map(|i| i.timestamp).collect();
        assert_eq!(times, [1000, 1010, 1040, 1053, 1063, 1093]);
        assert!(items[3].keyframe && !items[5].keyframe);
        let mut out = Vec::new();
        script.payload(&items[4], 0, &mut out);
        assert_eq!(out, [0xaf, 1, 2]);
    }

    #[test]
    fn headers_and_keyframes_are_told_apart() {
        assert!(is_sequence_header(Kind::Video, AVC_SEQUENCE_HEADER));
        assert!(!is_keyframe(AVC_SEQUENCE_HEADER));
        assert!(is_sequence_header(Kind::Audio, AAC_SEQUENCE_HEADER));
        assert!(is_sequence_header(Kind::Video, b"\x90hvc1"));
        assert!(is_keyframe(b"\x91hvc1\0\0\0") && !is_keyframe(b"\xa1hvc1\0\0\0"));
        assert!(is_sequence_header(Kind::Audio, b"\x90Opus") && !is_keyframe(b""));
    }
}

//! Audio and video tag bodies as RTMP messages and FLV tags carry them: which codec, what kind of
//! packet, where the codec's own bytes are.
//!
//! Reads the legacy headers (FLV 10.1 E.4.2.1 and E.4.3.1, with the widespread codec ids 12 for
//! H.265 and 13 for AV1) and enhanced RTMP v1 and v2 (FourCC, ModEx, multitrack). It does not read
//! the codec's bytes; `track` does that for sequence headers.
//!
//! ```text
//! video, legacy     [frame type:4][codec id:4] [packet type:8 cts:24] data
//! video, enhanced   [1][frame type:3][packet type:4] {ModEx} [multitrack] FourCC [cts:24] data
//! audio, legacy     [codec id:4][rate:2][size:1][channels:1] [AAC packet type:8] data
//! audio, enhanced   [9:4][packet type:4] {ModEx} [multitrack] FourCC data
//! ```

use std::ops::Range;

pub use super::codec::{AudioCodec, Foreign, VideoCodec};
use crate::limits::{MODEX_CHAIN_MAX, TRACKS_PER_MESSAGE_MAX};

/// What a tag is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TagKind {
    /// The decoder configuration: must reach every player before the frames that follow it.
    SequenceHeader,
    /// A coded picture or audio frame.
    Frame,
    /// The codec's bytes end here; the track may start again with a new sequence header.
    SequenceEnd,
    /// Facts about the track that a decoder can do without: colour information, channel layout.
    Metadata,
    /// A command to the player (info frame: seek start, seek end), without media.
    Command,
}

/// A video tag body, read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VideoTag {
    /// The codec; for a multitrack message that of the default track.
    pub codec: VideoCodec,
    /// What the tag is for.
    pub kind: TagKind,
    /// Whether the frame type says keyframe. True for most sequence headers as well, so ask `kind`
    /// too.
    pub keyframe: bool,
    /// pts minus dts in milliseconds; 0 where the header has none.
    pub composition_ms: i32,
    /// Nanoseconds to add to the timestamp, by ModEx; below 1,000,000 in a correct stream.
    pub nano_offset: u32,
    /// Whether the header is enhanced RTMP.
    pub enhanced: bool,
    /// The codec's bytes within the payload; for a multitrack message those of the default track.
    pub data: Range<usize>,
    /// The track that was read, if this is a multitrack message.
    pub track: Option<u8>,
}

/// The sound format that a legacy audio header states. For AAC it says nothing about the audio.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LegacySound {
    /// Samples per second.
    pub rate_hz: u32,
    /// Bits per sample, 8 or 16.
    pub sample_bits: u8,
    /// Channels, 1 or 2.
    pub channels: u8,
}

/// An audio tag body, read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AudioTag {
    /// The codec; for a multitrack message that of the default track.
    pub codec: AudioCodec,
    /// What the tag is for.
    pub kind: TagKind,
    /// Nanoseconds to add to the timestamp, by ModEx; below 1,000,000 in a correct stream.
    pub nano_offset: u32,
    /// Whether the header is enhanced RTMP.
    pub enhanced: bool,
    /// The codec's bytes within the payload; for a multitrack message those of the default track.
    pub data: Range<usize>,
    /// The track that was read, if this is a multitrack message.
    pub track: Option<u8>,
    /// What the legacy header says about the sound; `None` when enhanced.
    pub legacy: Option<LegacySound>,
}

/// Why a tag body could not be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TagError {
    /// The bytes do not form a tag.
    #[error("malformed tag: {0}")]
    Malformed(&'static str),
    /// The tag is fine, the server does not carry what is in it.
    #[error("{0} is not supported")]
    Unsupported(Foreign),
    /// More of something than the server looks at.
    #[error("too many {0} in one message")]
    OverLimit(&'static str),
}

/// Reads a video tag body: the payload of an RTMP message of type 9 or an FLV video tag.
pub fn video(payload: &[u8]) -> Result<VideoTag, TagError> {
    let mut at = Reader { bytes: payload, at: 0 };
    let first = at.u8()?;
    let frame_type = (first >> 4) & 7;
    let keyframe = matches!(frame_type, FRAME_KEY | FRAME_GENERATED_KEY);
    if first & 0x80 == 0 {
        return legacy_video(at, first, frame_type, keyframe);
    }
    if !(1..=5).contains(&frame_type) {
        return Err(TagError::Malformed("frame type"));
    }
    let ex = ExHeader::read(&mut at, first & 0x0f, true, frame_type == FRAME_COMMAND)?;
    let mut tag = VideoTag {
        codec: VideoCodec::H264,
        kind: TagKind::Command,
        keyframe: false,
        composition_ms: 0,
        nano_offset: ex.nano_offset,
        enhanced: true,
        data: at.at..payload.len(),
        track: None,
    };
    if ex.command {
        // The header of a command ends before its FourCC, so the codec stays the placeholder.
        return Ok(tag);
    }
    let body = ex.body(&mut at)?;
    tag.codec = VideoCodec::from_fourcc(body.fourcc).map_err(TagError::Unsupported)?;
    tag.keyframe = keyframe;
    tag.track = body.track;
    tag.data = body.data;
    tag.kind = match ex.packet_type {
        0 | 5 => TagKind::SequenceHeader,
        1 | 3 => TagKind::Frame,
        2 => TagKind::SequenceEnd,
        4 => TagKind::Metadata,
        other => return Err(TagError::Unsupported(Foreign::PacketType(other))),
    };
    if ex.packet_type == 1 && tag.codec.has_composition_time() {
        let mut inner = Reader { bytes: &payload[..tag.data.end], at: tag.data.start };
        tag.composition_ms = inner.i24()?;
        tag.data.start = inner.at;
    }
    Ok(tag)
}

/// Reads an audio tag body: the payload of an RTMP message of type 8 or an FLV audio tag.
pub fn audio(payload: &[u8]) -> Result<AudioTag, TagError> {
    let mut at = Reader { bytes: payload, at: 0 };
    let first = at.u8()?;
    if first >> 4 != SOUND_FORMAT_EX {
        return legacy_audio(at, first);
    }
    let ex = ExHeader::read(&mut at, first & 0x0f, false, false)?;
    let body = ex.body(&mut at)?;
    let kind = match ex.packet_type {
        0 => TagKind::SequenceHeader,
        1 => TagKind::Frame,
        2 => TagKind::SequenceEnd,
        4 => TagKind::Metadata,
        other => return Err(TagError::Unsupported(Foreign::PacketType(other))),
    };
    Ok(AudioTag {
        codec: AudioCodec::from_fourcc(body.fourcc).map_err(TagError::Unsupported)?,
        kind,
        nano_offset: ex.nano_offset,
        enhanced: true,
        data: body.data,
        track: body.track,
        legacy: None,
    })
}

/// The default track of a multitrack message as an ordinary single-track enhanced tag.
///
/// The default track is the one with id 0; a message of several tracks without id 0 gives its
/// first. `None`: the message is not multitrack, or it carries one track alone and that is not
/// track 0. A publisher that never sends track 0 needs the memory of [`TrackPicker`].
pub fn default_track(payload: &[u8], video: bool) -> Result<Option<Vec<u8>>, TagError> {
    match split(payload, video)? {
        Some((head, body)) if body.track == Some(0) || body.several => {
            Ok(Some(single(payload, head, &body)))
        }
        _ => Ok(None),
    }
}

/// What [`TrackPicker::pick`] makes of a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Picked {
    /// Not a multitrack message: pass it on as it is.
    AsIs,
    /// The default track out of a multitrack message, as an ordinary enhanced tag.
    Track(Vec<u8>),
    /// The message carries another track only: nothing to play.
    Other,
}

/// Remembers which track of a stream is the default one. One for audio, one for video.
///
/// A message without track id and track 0 always win. Until one of them is seen, the first track
/// that the publisher sends alone is taken, so that a stream that begins with track 1 plays too.
#[derive(Debug, Clone, Default)]
pub struct TrackPicker {
    chosen: Option<u8>,
}

impl TrackPicker {
    /// Picks the default track out of a message. Messages must come in the publisher's order.
    pub fn pick(&mut self, payload: &[u8], video: bool) -> Result<Picked, TagError> {
        let Some((head, body)) = split(payload, video)? else {
            self.chosen = Some(0);
            return Ok(Picked::AsIs);
        };
        let track = body.track.unwrap_or(0);
        if track == 0 || self.chosen.is_none() {
            self.chosen = Some(track);
        }
        if self.chosen == Some(track) {
            Ok(Picked::Track(single(payload, head, &body)))
        } else {
            Ok(Picked::Other)
        }
    }
}

/// Finds the default track's body; `None` when the message is not multitrack.
fn split(payload: &[u8], video: bool) -> Result<Option<(u8, Body)>, TagError> {
    let mut at = Reader { bytes: payload, at: 0 };
    let first = at.u8()?;
    let (enhanced, command) = if video {
        (first & 0x80 != 0, (first >> 4) & 7 == FRAME_COMMAND)
    } else {
        (first >> 4 == SOUND_FORMAT_EX, false)
    };
    if !enhanced {
        return Ok(None);
    }
    let ex = ExHeader::read(&mut at, first & 0x0f, video, command)?;
    if ex.multitrack.is_none() {
        return Ok(None);
    }
    let body = ex.body(&mut at)?;
    Ok(Some(((first & 0xf0) | ex.packet_type, body)))
}

fn single(payload: &[u8], head: u8, body: &Body) -> Vec<u8> {
    let mut out = Vec::with_capacity(5 + body.data.len());
    out.push(head);
    out.extend_from_slice(&body.fourcc);
    out.extend_from_slice(&payload[body.data.clone()]);
    out
}

fn legacy_video(
    mut at: Reader<'_>,
    first: u8,
    frame_type: u8,
    keyframe: bool,
) -> Result<VideoTag, TagError> {
    let codec = match first & 0x0f {
        7 => VideoCodec::H264,
        12 => VideoCodec::H265,
        13 => VideoCodec::Av1,
        id => return Err(TagError::Unsupported(Foreign::VideoId(id))),
    };
    let mut tag = VideoTag {
        codec,
        kind: TagKind::Command,
        keyframe,
        composition_ms: 0,
        nano_offset: 0,
        enhanced: false,
        data: at.at..at.bytes.len(),
        track: None,
    };
    match frame_type {
        FRAME_COMMAND => return Ok(tag),
        1..=4 => {}
        _ => return Err(TagError::Malformed("frame type")),
    }
    tag.kind = match at.u8()? {
        0 => TagKind::SequenceHeader,
        1 => TagKind::Frame,
        2 => TagKind::SequenceEnd,
        _ => return Err(TagError::Malformed("packet type")),
    };
    let composition_ms = at.i24()?;
    if tag.kind == TagKind::Frame {
        // FLV E.4.3.1: it is 0 in every other packet, whatever is written there.
        tag.composition_ms = composition_ms;
    }
    tag.data.start = at.at;
    Ok(tag)
}

fn legacy_audio(mut at: Reader<'_>, first: u8) -> Result<AudioTag, TagError> {
    let id = first >> 4;
    let codec = match id {
        2 | 14 => AudioCodec::Mp3,
        7 => AudioCodec::G711A,
        8 => AudioCodec::G711U,
        10 => AudioCodec::Aac,
        _ => return Err(TagError::Unsupported(Foreign::AudioId(id))),
    };
    let rate_hz = match (id, (first >> 2) & 3) {
        (7 | 8 | 14, _) => 8_000,
        (_, 0) => 5_512,
        (_, 1) => 11_025,
        (_, 2) => 22_050,
        _ => 44_100,
    };
    let kind = if codec == AudioCodec::Aac {
        match at.u8()? {
            0 => TagKind::SequenceHeader,
            1 => TagKind::Frame,
            _ => return Err(TagError::Malformed("AAC packet type")),
        }
    } else {
        TagKind::Frame
    };
    Ok(AudioTag {
        codec,
        kind,
        nano_offset: 0,
        enhanced: false,
        data: at.at..at.bytes.len(),
        track: None,
        legacy: Some(LegacySound {
            rate_hz,
            sample_bits: if first & 2 == 0 { 8 } else { 16 },
            channels: 1 + (first & 1),
        }),
    })
}

/// The enhanced header up to the FourCC.
struct ExHeader {
    /// The packet type that holds after ModEx and multitrack are unwrapped.
    packet_type: u8,
    nano_offset: u32,
    multitrack: Option<Layout>,
    /// A command tag: there is no FourCC and no media.
    command: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Layout {
    OneTrack,
    ManyTracks,
    ManyCodecs,
}

/// The codec's bytes of one track.
struct Body {
    fourcc: [u8; 4],
    data: Range<usize>,
    track: Option<u8>,
    /// The message could carry more tracks than this one.
    several: bool,
}

impl ExHeader {
    fn read(
        at: &mut Reader<'_>,
        packet_type: u8,
        video: bool,
        command_frame: bool,
    ) -> Result<ExHeader, TagError> {
        let (multitrack_type, modex_type) = if video { (6, 7) } else { (5, 7) };
        let mut head = ExHeader { packet_type, nano_offset: 0, multitrack: None, command: false };
        let mut chain = 0;
        while head.packet_type == modex_type {
            chain += 1;
            if chain > MODEX_CHAIN_MAX {
                return Err(TagError::OverLimit("ModEx prefixes"));
            }
            let mut size = usize::from(at.u8()?) + 1;
            if size == 256 {
                size = usize::from(at.u16()?) + 1;
            }
            let data = at.take(size)?;
            let types = at.u8()?;
            // Type 0 is the nanosecond offset; the others are reserved and skipped by their size.
            if let (0, [a, b, c, ..]) = (types >> 4, data) {
                head.nano_offset = u32::from_be_bytes([0, *a, *b, *c]);
            }
            head.packet_type = types & 0x0f;
        }
        // Video metadata may ride on a command frame, every other command frame has no body.
        if command_frame && head.packet_type != 4 {
            at.u8()?;
            head.command = true;
            return Ok(head);
        }
        if head.packet_type == multitrack_type {
            let types = at.u8()?;
            head.multitrack = Some(match types >> 4 {
                0 => Layout::OneTrack,
                1 => Layout::ManyTracks,
                2 => Layout::ManyCodecs,
                _ => return Err(TagError::Malformed("multitrack type")),
            });
            head.packet_type = types & 0x0f;
            if head.packet_type == multitrack_type || head.packet_type == modex_type {
                return Err(TagError::Malformed("multitrack in multitrack"));
            }
        }
        Ok(head)
    }

    /// Reads FourCC and tracks, and gives the body of track 0 or else of the first track.
    fn body(&self, at: &mut Reader<'_>) -> Result<Body, TagError> {
        let Some(layout) = self.multitrack else {
            let fourcc = at.fourcc()?;
            let data = at.at..at.bytes.len();
            return Ok(Body { fourcc, data, track: None, several: false });
        };
        let shared = if layout == Layout::ManyCodecs { None } else { Some(at.fourcc()?) };
        if layout == Layout::OneTrack {
            let track = Some(at.u8()?);
            let fourcc = shared.unwrap_or_default();
            return Ok(Body { fourcc, data: at.at..at.bytes.len(), track, several: false });
        }
        let mut found: Option<Body> = None;
        let mut tracks = 0;
        while at.at < at.bytes.len() || tracks == 0 {
            tracks += 1;
            if tracks > TRACKS_PER_MESSAGE_MAX {
                return Err(TagError::OverLimit("tracks"));
            }
            let fourcc = match shared {
                Some(fourcc) => fourcc,
                None => at.fourcc()?,
            };
            let track = at.u8()?;
            let size = at.u24()? as usize;
            let start = at.at;
            at.take(size)?;
            // Track 0 counts once: a second one in the same message does not replace it.
            let better = match &found {
                None => true,
                Some(body) => track == 0 && body.track != Some(0),
            };
            if better {
                let data = start..at.at;
                found = Some(Body { fourcc, data, track: Some(track), several: true });
            }
        }
        found.ok_or(TagError::Malformed("no track"))
    }
}

/// A place in the payload. Every read checks the end first.
struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], TagError> {
        let end = self.at.checked_add(count).ok_or(TRUNCATED)?;
        let out = self.bytes.get(self.at..end).ok_or(TRUNCATED)?;
        self.at = end;
        Ok(out)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], TagError> {
        self.take(N)?.try_into().map_err(|_| TRUNCATED)
    }

    fn u8(&mut self) -> Result<u8, TagError> {
        Ok(self.array::<1>()?[0])
    }

    fn u16(&mut self) -> Result<u16, TagError> {
        Ok(u16::from_be_bytes(self.array()?))
    }

    fn u24(&mut self) -> Result<u32, TagError> {
        let [a, b, c] = self.array()?;
        Ok(u32::from_be_bytes([0, a, b, c]))
    }

    fn i24(&mut self) -> Result<i32, TagError> {
        let [a, b, c] = self.array()?;
        // The shift back down carries the sign of the 24-bit value along.
        Ok(i32::from_be_bytes([a, b, c, 0]) >> 8)
    }

    fn fourcc(&mut self) -> Result<[u8; 4], TagError> {
        self.array()
    }
}

const FRAME_KEY: u8 = 1;
const FRAME_GENERATED_KEY: u8 = 4;
const FRAME_COMMAND: u8 = 5;
const SOUND_FORMAT_EX: u8 = 9;
const TRUNCATED: TagError = TagError::Malformed("truncated");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn legacy_h264() {
        let header = video(&[0x17, 0, 0, 0, 0, 1, 100]).unwrap();
        assert_eq!((header.codec, header.kind), (VideoCodec::H264, TagKind::SequenceHeader));
        assert!(header.keyframe && !header.enhanced);
        assert_eq!(header.data, 5..7);
        let frame = video(&[0x27, 1, 0xff, 0xff, 0xd8, 9]).unwrap();
        assert_eq!((frame.kind, frame.composition_ms), (TagKind::Frame, -40));
        assert!(!frame.keyframe);
        assert_eq!(video(&[0x17, 2, 0, 0, 0]).unwrap().kind, TagKind::SequenceEnd);
        assert_eq!(video(&[0x57, 0]).unwrap().kind, TagKind::Command);
        assert_eq!(video(&[0x1c, 1, 0, 0, 80]).unwrap().codec, VideoCodec::H265);
        assert_eq!(video(&[0x17, 3, 0, 0, 0]), Err(TagError::Malformed("packet type")));
        assert_eq!(video(&[0x07, 1, 0, 0, 0]), Err(TagError::Malformed("frame type")));
        for end in 0..5 {
            assert_eq!(video(&[0x17, 1, 0, 0, 0][..end]), Err(TRUNCATED), "{end}");
        }
    }

    #[test]
    fn legacy_audio_kinds() {
        let header = audio(&[0xaf, 0, 0x12, 0x10]).unwrap();
        assert_eq!((header.codec, header.kind), (AudioCodec::Aac, TagKind::SequenceHeader));
        assert_eq!(header.data, 2..4);
        assert_eq!(audio(&[0xaf, 1]).unwrap().data, 2..2);
        let mp3 = audio(&[0x2e, 0xff]).unwrap();
        assert_eq!((mp3.codec, mp3.kind, mp3.data), (AudioCodec::Mp3, TagKind::Frame, 1..2));
        let legacy = mp3.legacy.unwrap();
        assert_eq!((legacy.rate_hz, legacy.sample_bits, legacy.channels), (44_100, 16, 1));
        assert_eq!(audio(&[0xaf]), Err(TRUNCATED));
        assert_eq!(audio(&[0xaf, 2]), Err(TagError::Malformed("AAC packet type")));
        assert_eq!(audio(&[]), Err(TRUNCATED));
    }

    #[test]
    fn foreign_codecs_are_named() {
        let names = [
            (video(&[0x22, 0]).map(drop), "Sorenson H.263 video is not supported"),
            (video(&[0x14, 0]).map(drop), "VP6 video is not supported"),
            (video(b"\x90vvc1").map(drop), "codec 'vvc1' is not supported"),
            (video(b"\x90\0\xff\r\n").map(drop), "codec '\\x00\\xff\\r\\n' is not supported"),
            (video(b"\x99hvc1").map(drop), "packet type 9 is not supported"),
            (audio(&[0xb2, 0]).map(drop), "Speex audio is not supported"),
            (audio(&[0x52, 0]).map(drop), "Nellymoser audio is not supported"),
            (audio(b"\x90wave").map(drop), "codec 'wave' is not supported"),
        ];
        for (result, name) in names {
            let error = result.unwrap_err();
            assert!(matches!(error, TagError::Unsupported(_)));
            assert_eq!(error.to_string(), name);
        }
    }

    #[test]
    fn enhanced_v1() {
        let header = video(b"\x90hvc1\x01").unwrap();
        assert_eq!((header.codec, header.kind), (VideoCodec::H265, TagKind::SequenceHeader));
        assert!(header.enhanced && header.keyframe);
        assert_eq!(header.data, 5..6);
        let frame = video(b"\xa1hvc1\x00\x00\x50xy").unwrap();
        assert_eq!((frame.kind, frame.composition_ms, frame.data), (TagKind::Frame, 80, 8..10));
        let frame = video(b"\xa3hvc1xy").unwrap();
        assert_eq!((frame.kind, frame.composition_ms, frame.data), (TagKind::Frame, 0, 5..7));
        // AV1 and VP9 have no composition time.
        assert_eq!(video(b"\x91av01xy").unwrap().data, 5..7);
        assert_eq!(video(b"\x91vp09xy").unwrap().codec, VideoCodec::Vp9);
        assert_eq!(video(b"\x92hvc1").unwrap().kind, TagKind::SequenceEnd);
        assert_eq!(video(b"\x94hvc1\x02").unwrap().kind, TagKind::Metadata);
        assert_eq!(video(b"\x95av01\x02").unwrap().kind, TagKind::SequenceHeader);
        assert_eq!(video(b"\xd1\x00").unwrap().kind, TagKind::Command);
        assert_eq!(video(b"\x91hvc1\x00\x00"), Err(TRUNCATED));
        assert_eq!(video(b"\x91hv"), Err(TRUNCATED));
        assert_eq!(video(b"\x81hvc1"), Err(TagError::Malformed("frame type")));
    }

    #[test]
    fn enhanced_audio() {
        let header = audio(b"\x90OpusOpusHead").unwrap();
        assert_eq!((header.codec, header.kind), (AudioCodec::Opus, TagKind::SequenceHeader));
        assert_eq!(header.data, 5..13);
        for (fourcc, codec) in [
            (b"\x91mp4a", AudioCodec::Aac),
            (b"\x91.mp3", AudioCodec::Mp3),
            (b"\x91fLaC", AudioCodec::Flac),
            (b"\x91ac-3", AudioCodec::Ac3),
            (b"\x91ec-3", AudioCodec::Eac3),
        ] {
            assert_eq!(audio(fourcc).unwrap().codec, codec);
            assert_eq!(codec.fourcc().as_ref(), fourcc[1..].first_chunk());
        }
        assert_eq!(audio(b"\x94Opus\x01").unwrap().kind, TagKind::Metadata);
        assert_eq!(audio(b"\x92Opus").unwrap().kind, TagKind::SequenceEnd);
    }

    #[test]
    fn modex_carries_nanoseconds() {
        // ModEx, 3 bytes, type 0, then packet type 1.
        let tag = video(b"\x97\x02\x00\x01\x00\x01hvc1\x00\x00\x05x").unwrap();
        assert_eq!((tag.nano_offset, tag.composition_ms, tag.data), (256, 5, 13..14));
        let tag = audio(b"\x97\x02\x00\x00\x09\x01Opusx").unwrap();
        assert_eq!((tag.nano_offset, tag.data), (9, 10..11));
        // A reserved type is skipped by its size, here in the long form of 257 bytes.
        let mut long = vec![0x97, 0xff, 0x01, 0x00];
        long.extend([0xaa; 257]);
        long.extend(b"\x13hvc1x");
        assert_eq!(video(&long).unwrap().kind, TagKind::Frame);
        assert_eq!(video(&long[..200]), Err(TRUNCATED));
    }

    #[test]
    fn modex_chains_end() {
        let chain = |length: usize| {
            let mut payload = vec![0x97];
            for _ in 1..length {
                payload.extend([0, 0, 0x07]);
            }
            payload.extend([0, 0, 0x01]);
            payload.extend(b"av01x");
            payload
        };
        assert!(video(&chain(MODEX_CHAIN_MAX)).is_ok());
        let over = video(&chain(MODEX_CHAIN_MAX + 1));
        assert_eq!(over, Err(TagError::OverLimit("ModEx prefixes")));
    }

    fn many(tracks: &[(u8, &[u8])]) -> Vec<u8> {
        let mut payload = b"\x96\x11hvc1".to_vec();
        for (id, body) in tracks {
            payload.extend([*id, 0, 0, body.len() as u8]);
            payload.extend_from_slice(body);
        }
        payload
    }

    #[test]
    fn multitrack_gives_track_zero() {
        let payload = many(&[(1, b"\0\0\x01one"), (0, b"\0\0\x02zero"), (2, b"")]);
        let tag = video(&payload).unwrap();
        assert_eq!((tag.track, tag.composition_ms, tag.kind), (Some(0), 2, TagKind::Frame));
        assert_eq!(&payload[tag.data], b"zero");
        let plain = default_track(&payload, true).unwrap().unwrap();
        assert_eq!(plain, b"\x91hvc1\0\0\x02zero");
        assert_eq!(video(&plain).unwrap().track, None);
        // Without track 0 the first one is taken.
        let payload = many(&[(5, b"\0\0\x01five"), (3, b"\0\0\0three")]);
        assert_eq!(default_track(&payload, true).unwrap().unwrap(), b"\x91hvc1\0\0\x01five");
    }

    #[test]
    fn multitrack_one_and_many_codecs() {
        let one = b"\x96\x00avc1\x00\x01\x64";
        let plain = default_track(one, true).unwrap().unwrap();
        assert_eq!(plain, b"\x90avc1\x01\x64");
        assert_eq!(video(one).unwrap().kind, TagKind::SequenceHeader);
        assert_eq!(default_track(b"\x96\x00avc1\x01\x01\x64", true), Ok(None));
        let codecs = b"\x95\x21ac-3\x01\x00\x00\x02abOpus\x00\x00\x00\x01c";
        let tag = audio(codecs).unwrap();
        assert_eq!((tag.codec, tag.track), (AudioCodec::Opus, Some(0)));
        assert_eq!(default_track(codecs, false).unwrap().unwrap(), b"\x91Opusc");
        assert_eq!(default_track(b"\x91hvc1\0\0\0", true), Ok(None));
        assert_eq!(default_track(&[0x17, 1, 0, 0, 0], true), Ok(None));
        assert_eq!(default_track(&[], true), Err(TRUNCATED));
    }

    #[test]
    fn multitrack_is_bounded() {
        let tracks: Vec<(u8, &[u8])> = (0..=255u8).map(|id| (id, b"\0\0\0".as_slice())).collect();
        assert_eq!(video(&many(&tracks)), Err(TagError::OverLimit("tracks")));
        assert!(video(&many(&tracks[..TRACKS_PER_MESSAGE_MAX])).is_ok());
        let whole = many(&[(1, b"\0\0\x01one"), (0, b"\0\0\x02zero")]);
        for end in 0..whole.len() {
            // Cut at a border between tracks, the message is a whole one of fewer tracks.
            assert_eq!(video(&whole[..end]).is_ok(), end == 16, "{end}");
        }
        assert_eq!(video(b"\x96\x31hvc1"), Err(TagError::Malformed("multitrack type")));
        let nested = Err(TagError::Malformed("multitrack in multitrack"));
        assert_eq!(video(b"\x96\x16hvc1"), nested);
        assert_eq!(video(b"\x96\x17hvc1"), nested);
    }

    #[test]
    fn picker_settles_on_a_track() {
        let one = b"\x96\x01avc1\x01\0\0\0one";
        let zero = b"\x96\x01avc1\x00\0\0\0zero";
        let mut picker = TrackPicker::default();
        let plain = |body: &[u8]| Picked::Track([b"\x91avc1\0\0\0", body].concat());
        assert_eq!(picker.pick(one, true), Ok(plain(b"one")));
        assert_eq!(picker.pick(zero, true), Ok(plain(b"zero")));
        assert_eq!(picker.pick(one, true), Ok(Picked::Other));
        // What carries no track id is the default track.
        let mut picker = TrackPicker::default();
        assert_eq!(picker.pick(&[0x17, 1, 0, 0, 0], true), Ok(Picked::AsIs));
        assert_eq!(picker.pick(one, true), Ok(Picked::Other));
    }

    proptest::proptest! {
        #[test]
        fn any_payload_is_survived(mut payload: Vec<u8>, first: u8) {
            payload.insert(0, first | 0x80);
            for is_video in [true, false] {
                if !is_video {
                    payload[0] = 0x90 | first & 0x0f;
                }
                let data = if is_video {
                    video(&payload).map(|tag| tag.data)
                } else {
                    audio(&payload).map(|tag| tag.data)
                };
                if let Ok(data) = data {
                    proptest::prop_assert!(payload.get(data).is_some());
                }
                if let Ok(Some(single)) = default_track(&payload, is_video) {
                    proptest::prop_assert!(single.len() <= payload.len());
                    proptest::prop_assert_eq!(default_track(&single, is_video), Ok(None));
                }
            }
        }
    }
}

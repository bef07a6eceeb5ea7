//! What a track is made of, in words: for logs, the API and metadata.
//!
//! Learned from sequence headers, and from the first frames of codecs that have none. What cannot
//! be read stays unknown; it is never a reason to stop passing media through.

use std::fmt;

use super::bits::CodecError;
use super::tag::{AudioCodec, AudioTag, TagKind, VideoCodec, VideoTag};
use super::{aac, ac3, av1, h264, h265, mp3, opus, vp9};
use crate::limits::PICTURE_SIDE_MAX;

/// A codec level such as 3.1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Level {
    /// The number before the point.
    pub major: u8,
    /// The number behind it.
    pub minor: u8,
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

/// A frame rate in thousandths of a frame per second.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Fps(pub u32);

impl Fps {
    /// `scale` ticks a second, `units` ticks a frame. `None` for rates that no camera has, which
    /// headers state when they mean a time base.
    pub fn from_ticks(scale: u64, units: u64) -> Option<Fps> {
        const FPS_MAX: u64 = 1_000;
        if units == 0 || scale == 0 {
            return None;
        }
        let milli = scale.checked_mul(1_000)?.checked_add(units / 2)? / units;
        (1..=FPS_MAX * 1_000).contains(&milli).then_some(Fps(milli as u32))
    }

    /// Frames per second.
    pub fn value(self) -> f64 {
        f64::from(self.0) / 1_000.0
    }
}

impl fmt::Display for Fps {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_multiple_of(1_000) {
            write!(f, "{}fps", self.0 / 1_000)
        } else {
            write!(f, "{:.2}fps", self.value())
        }
    }
}

/// A video track. Shows as `H264 High@3.1 1280x720 30fps`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VideoTrack {
    /// The codec.
    pub codec: VideoCodec,
    /// The profile's name; empty if unknown.
    pub profile: &'static str,
    /// The level, if known.
    pub level: Option<Level>,
    /// Pixels across and down, if known.
    pub size: Option<(u32, u32)>,
    /// The frame rate, if the sequence header states one.
    pub fps: Option<Fps>,
}

impl VideoTrack {
    /// A track of which only the codec is known.
    pub fn new(codec: VideoCodec) -> VideoTrack {
        VideoTrack { codec, profile: "", level: None, size: None, fps: None }
    }

    /// Takes in what a tag of the track says; `payload` is the body that the tag was read from.
    /// Gives whether that changed anything. A new codec starts from nothing. On an error the track
    /// keeps what is known so far.
    pub fn learn(&mut self, tag: &VideoTag, payload: &[u8]) -> Result<bool, CodecError> {
        let looks = match tag.kind {
            TagKind::SequenceHeader => true,
            TagKind::Frame => {
                let repeats = match tag.codec {
                    VideoCodec::Vp8 | VideoCodec::Vp9 => true,
                    VideoCodec::Av1 => self.size.is_none(),
                    VideoCodec::H264 | VideoCodec::H265 => false,
                };
                tag.keyframe && repeats
            }
            TagKind::SequenceEnd | TagKind::Metadata | TagKind::Command => false,
        };
        if !looks {
            return Ok(false);
        }
        let before = self.clone();
        if self.codec != tag.codec {
            *self = VideoTrack::new(tag.codec);
        }
        let data = payload.get(tag.data.clone()).unwrap_or_default();
        if tag.kind == TagKind::SequenceHeader {
            self.sequence_header(data)?;
        } else {
            let size = match tag.codec {
                VideoCodec::Vp8 => vp9::vp8_size(data)?,
                VideoCodec::Av1 => {
                    let sequence = av1::sequence(data)?;
                    self.fps = sequence.fps;
                    Some((sequence.width, sequence.height))
                }
                _ => vp9::vp9_size(data)?,
            };
            self.size = size.or(self.size);
        }
        Ok(*self != before)
    }

    fn sequence_header(&mut self, data: &[u8]) -> Result<(), CodecError> {
        match self.codec {
            VideoCodec::H264 => {
                let config = h264::config(data)?;
                self.profile = h264::profile_name(config.profile, config.constraints);
                self.level = h264::level(config.level);
                let sps = h264::sps(config.sps.first().ok_or(CodecError::Truncated)?)?;
                self.size = Some((sps.width, sps.height));
                self.fps = sps.fps;
            }
            VideoCodec::H265 => {
                let config = h265::config(data)?;
                self.profile = h265::profile_name(config.profile);
                self.level = h265::level(config.level);
                self.fps = config.fps;
                let sps = h265::sps(config.sps().ok_or(CodecError::Truncated)?)?;
                self.size = Some((sps.width, sps.height));
                self.fps = sps.more.fps.or(self.fps);
            }
            VideoCodec::Av1 => {
                let (profile, level, obus) = av1::config(data)?;
                self.profile = av1::profile_name(profile);
                self.level = av1::level(level);
                // The record may come without a sequence header; keyframes repeat it anyway.
                if !obus.is_empty() {
                    let sequence = av1::sequence(obus)?;
                    self.size = Some((sequence.width, sequence.height));
                    self.fps = sequence.fps;
                }
            }
            VideoCodec::Vp9 => {
                let config = vp9::config(data)?;
                self.profile = vp9::profile_name(config.profile);
                self.level = vp9::level(config.level);
            }
            // Its record says nothing that a keyframe does not.
            VideoCodec::Vp8 => {}
        }
        Ok(())
    }
}

impl fmt::Display for VideoTrack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.codec)?;
        match (self.profile, self.level) {
            ("", None) => {}
            ("", Some(level)) => write!(f, " @{level}")?,
            (profile, None) => write!(f, " {profile}")?,
            (profile, Some(level)) => write!(f, " {profile}@{level}")?,
        }
        if let Some((width, height)) = self.size {
            write!(f, " {width}x{height}")?;
        }
        if let Some(fps) = self.fps {
            write!(f, " {fps}")?;
        }
        Ok(())
    }
}

/// An audio track. Shows as `AAC LC 48000Hz stereo`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AudioTrack {
    /// The codec.
    pub codec: AudioCodec,
    /// The profile's name; empty if unknown or if the codec has none.
    pub profile: &'static str,
    /// Samples per second of the output, if known.
    pub rate_hz: Option<u32>,
    /// Channels, if known.
    pub channels: Option<u8>,
}

impl AudioTrack {
    /// A track of which only the codec is known.
    pub fn new(codec: AudioCodec) -> AudioTrack {
        AudioTrack { codec, profile: "", rate_hz: None, channels: None }
    }

    /// Takes in what a tag of the track says; `payload` is the body that the tag was read from.
    /// Gives whether that changed anything. A new codec starts from nothing. On an error the track
    /// keeps what is known so far. Frames are looked at only while something is missing.
    pub fn learn(&mut self, tag: &AudioTag, payload: &[u8]) -> Result<bool, CodecError> {
        let same = self.codec == tag.codec;
        let looks = match tag.kind {
            TagKind::SequenceHeader => tag.codec.has_sequence_header(),
            TagKind::Frame if tag.codec.has_sequence_header() => false,
            TagKind::Frame => !same || self.rate_hz.is_none(),
            TagKind::SequenceEnd | TagKind::Metadata | TagKind::Command => false,
        };
        if !looks {
            return Ok(false);
        }
        let before = self.clone();
        if !same {
            *self = AudioTrack::new(tag.codec);
        }
        let data = payload.get(tag.data.clone()).unwrap_or_default();
        let (rate_hz, channels) = match tag.codec {
            AudioCodec::Aac => {
                let config = aac::config(data)?;
                self.profile = config.profile_name();
                (config.rate_hz, config.channels)
            }
            AudioCodec::Mp3 => {
                let header = mp3::header(data)?;
                (header.rate_hz, header.channels)
            }
            AudioCodec::Opus => (48_000, opus::opus_head(data)?.channels),
            AudioCodec::Flac => {
                let info = opus::flac_info(data)?;
                (info.rate_hz, info.channels)
            }
            AudioCodec::Ac3 | AudioCodec::Eac3 => {
                let frame = ac3::frame(data)?;
                (frame.rate_hz, frame.channels)
            }
            AudioCodec::G711A | AudioCodec::G711U => {
                (8_000, tag.legacy.map_or(1, |legacy| legacy.channels))
            }
        };
        self.rate_hz = Some(rate_hz);
        self.channels = (channels > 0).then_some(channels);
        Ok(*self != before)
    }
}

impl fmt::Display for AudioTrack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.codec)?;
        if !self.profile.is_empty() {
            write!(f, " {}", self.profile)?;
        }
        if let Some(rate_hz) = self.rate_hz {
            write!(f, " {rate_hz}Hz")?;
        }
        match self.channels {
            None => Ok(()),
            Some(1) => f.write_str(" mono"),
            Some(2) => f.write_str(" stereo"),
            Some(6) => f.write_str(" 5.1"),
            Some(8) => f.write_str(" 7.1"),
            Some(count) => write!(f, " {count} channels"),
        }
    }
}

/// A picture side that headers state, checked: 1 to `PICTURE_SIDE_MAX` pixels.
pub(super) fn side(pixels: u64, what: &'static str) -> Result<u32, CodecError> {
    match u32::try_from(pixels) {
        Ok(0) => Err(CodecError::Malformed(what)),
        Ok(pixels) if pixels <= PICTURE_SIDE_MAX => Ok(pixels),
        _ => Err(CodecError::OverLimit(what)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::media::{tag, unhex};

    fn learn_video(payload: &[u8]) -> String {
        let tag = tag::video(payload).unwrap();
        let mut track = VideoTrack::new(tag.codec);
        assert_eq!(track.learn(&tag, payload), Ok(true));
        assert_eq!(track.learn(&tag, payload), Ok(false));
        track.to_string()
    }

    #[test]
    fn video_in_words() {
        let record = "0164001fffe100196764001facd940a02ff9701100000303e90000ea600f183196
            01000668ebe3cb22c0fdf8f800";
        let legacy = unhex(&format!("1700000000{record}"));
        assert_eq!(learn_video(&legacy), "H264 High@3.1 640x360 29.97fps");
        let enhanced = [b"\x90avc1", unhex(record).as_slice()].concat();
        assert_eq!(learn_video(&enhanced), "H264 High@3.1 640x360 29.97fps");
        let av1 = [b"\x90av01".as_slice(), &unhex("81010c000a0b0000000cc4ff6700be0010")].concat();
        assert_eq!(learn_video(&av1), "AV1 Main@2.1 640x360");
    }

    #[test]
    fn vp9_learns_its_size_from_the_keyframe() {
        let header = [b"\x90vp09".as_slice(), &unhex("0115870202000000")].concat();
        let frame = [b"\x91vp09".as_slice(), &unhex("a2498342e027f016760638241c184a10")].concat();
        let mut track = VideoTrack::new(VideoCodec::H264);
        for (payload, expected) in
            [(&header, "VP9 Profile 1@2.1"), (&frame, "VP9 Profile 1@2.1 640x360")]
        {
            assert_eq!(track.learn(&tag::video(payload).unwrap(), payload), Ok(true));
            assert_eq!(track.to_string(), expected);
        }
    }

    #[test]
    fn audio_in_words() {
        let cases: [(&[u8], &str); 6] = [
            (&[0xaf, 0, 0x11, 0x90], "AAC LC 48000Hz stereo"),
            (&[0x2f, 0xff, 0xfb, 0x90, 0x64], "MP3 44100Hz stereo"),
            (b"\x90OpusOpusHead\x01\x01\0\0\0\0\0\0\0\0\0", "Opus 48000Hz mono"),
            (b"\x91ac-3\x0b\x77\x01\x02\x1e\x40\xe1\0", "AC-3 48000Hz 5.1"),
            (&[0x72, 1, 2], "G.711 A-law 8000Hz mono"),
            (b"\x90mp4a\x12\x10", "AAC LC 44100Hz stereo"),
        ];
        for (payload, expected) in cases {
            let tag = tag::audio(payload).unwrap();
            let mut track = AudioTrack::new(tag.codec);
            assert_eq!(track.learn(&tag, payload), Ok(true), "{expected}");
            assert_eq!(track.to_string(), expected);
            assert_eq!(track.learn(&tag, payload), Ok(false), "{expected}");
        }
    }

    #[test]
    fn a_broken_header_leaves_what_is_known() {
        let good = [0xaf, 0, 0x11, 0x90];
        let mut track = AudioTrack::new(AudioCodec::Aac);
        track.learn(&tag::audio(&good).unwrap(), &good).unwrap();
        let bad = [0xaf, 0, 0x17];
        assert!(track.learn(&tag::audio(&bad).unwrap(), &bad).is_err());
        assert_eq!(track.to_string(), "AAC LC 48000Hz stereo");
        assert_eq!(VideoTrack::new(VideoCodec::H265).to_string(), "H265");
    }

    #[test]
    fn frame_rates() {
        assert_eq!(Fps::from_ticks(30_000, 1_001).unwrap().to_string(), "29.97fps");
        assert_eq!(Fps::from_ticks(60, 2).unwrap().to_string(), "30fps");
        assert_eq!(Fps::from_ticks(90_000, 1), None);
        assert_eq!(Fps::from_ticks(0, 1), None);
        assert_eq!(Fps::from_ticks(1, 0), None);
        assert_eq!(Fps::from_ticks(u64::MAX, 1), None);
    }

    proptest::proptest! {
        #[test]
        fn any_header_is_survived(data: Vec<u8>, codec in 0usize..5) {
            let codecs = [*b"avc1", *b"hvc1", *b"av01", *b"vp09", *b"vp08"];
            for first in [0x90, 0x91] {
                let payload = [&[first], codecs[codec].as_slice(), &data].concat();
                if let Ok(tag) = tag::video(&payload) {
                    let _ = VideoTrack::new(tag.codec).learn(&tag, &payload);
                }
            }
            let codecs = [*b"mp4a", *b"Opus", *b"fLaC", *b"ac-3", *b".mp3"];
            for first in [0x90, 0x91] {
                let payload = [&[first], codecs[codec].as_slice(), &data].concat();
                if let Ok(tag) = tag::audio(&payload) {
                    let _ = AudioTrack::new(tag.codec).learn(&tag, &payload);
                }
            }
            let _ = h264::sps(&[&[0x67], data.as_slice()].concat());
            let _ = h265::sps(&[&[0x42, 1], data.as_slice()].concat());
            let _ = aac::adts(&data);
        }
    }
}

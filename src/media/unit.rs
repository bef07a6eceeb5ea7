//! Access units: what a muxer takes, whatever the publisher's protocol was.
//!
//! A message of the hub (a tag with a time in milliseconds) is read once into a [`Unit`], whose
//! times are in ticks of 1/90000 s: a millisecond is exactly 90 of them. Audio is placed by
//! [`AudioClock`], which counts samples, because milliseconds are too coarse to lay frames end to
//! end. What the tracks are is in [`VideoConfig`] and [`AudioConfig`].

use super::ac3;
use super::bits::CodecError;
use super::codec::{AudioCodec, VideoCodec};
use super::colour::Colour;
use super::opus::{FlacInfo, OpusHead};
use super::tag::{self, TagError, TagKind};
use super::track::Fps;
use super::{Kind, aac, av1, h264, h265, mp3, opus, vp9};

/// Ticks in a second.
pub const TICKS_HZ: i64 = 90_000;
/// Ticks in a millisecond.
pub const TICKS_PER_MS: i64 = 90;

/// One coded picture or audio frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unit<'a> {
    /// Decoding time, ticks.
    pub dts: i64,
    /// Presentation time, ticks.
    pub pts: i64,
    /// Decoding can start here.
    pub keyframe: bool,
    /// The codec's bytes, framed as FLV and MP4 have them.
    pub data: &'a [u8],
}

/// A message, read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Content<'a> {
    /// A decoder configuration.
    VideoHeader(VideoCodec, &'a [u8]),
    /// A picture.
    Video(VideoCodec, Unit<'a>),
    /// A decoder configuration.
    AudioHeader(AudioCodec, &'a [u8]),
    /// An audio frame.
    Audio(AudioCodec, Unit<'a>),
    /// Nothing that is decoded.
    Other,
}

/// Reads a message of the hub; `time_ms` is its place on the stream's timeline.
///
/// # Errors
/// The payload is no tag of its kind.
pub fn read(kind: Kind, time_ms: i64, payload: &[u8]) -> Result<Content<'_>, TagError> {
    match kind {
        Kind::Video => {
            let tag = tag::video(payload)?;
            let data = payload.get(tag.data.clone()).unwrap_or_default();
            let dts = ticks(time_ms, tag.nano_offset);
            let pts = dts + i64::from(tag.composition_ms) * TICKS_PER_MS;
            Ok(match tag.kind {
                TagKind::SequenceHeader => Content::VideoHeader(tag.codec, data),
                TagKind::Frame if !data.is_empty() => {
                    Content::Video(tag.codec, Unit { dts, pts, keyframe: tag.keyframe, data })
                }
                _ => Content::Other,
            })
        }
        Kind::Audio => {
            let tag = tag::audio(payload)?;
            let data = payload.get(tag.data.clone()).unwrap_or_default();
            let dts = ticks(time_ms, tag.nano_offset);
            Ok(match tag.kind {
                TagKind::SequenceHeader => Content::AudioHeader(tag.codec, data),
                TagKind::Frame if !data.is_empty() => {
                    Content::Audio(tag.codec, Unit { dts, pts: dts, keyframe: true, data })
                }
                _ => Content::Other,
            })
        }
        Kind::Data => Ok(Content::Other),
    }
}

/// Milliseconds and a ModEx nanosecond offset in ticks; an offset of a millisecond or more is none.
fn ticks(ms: i64, nano_offset: u32) -> i64 {
    const NANOS_PER_MS: u32 = 1_000_000;
    let nanos = if nano_offset < NANOS_PER_MS { i64::from(nano_offset) } else { 0 };
    ms * TICKS_PER_MS + nanos * TICKS_PER_MS / i64::from(NANOS_PER_MS)
}

/// What a muxer has to know of a video track.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VideoConfig {
    /// The codec.
    pub codec: VideoCodec,
    /// The decoder configuration record, as the codec's box in MP4 holds it.
    pub record: Vec<u8>,
    /// Bytes of the length before each NAL unit (H.264 and H.265).
    pub length_size: u8,
    /// The parameter sets as an Annex B byte stream (H.264 and H.265).
    pub parameter_sets: Vec<u8>,
    /// Pixels across and down, if the record tells.
    pub size: Option<(u32, u32)>,
    /// Frames per second, if the record tells.
    pub fps: Option<Fps>,
    /// The colours, if the record tells.
    pub colour: Option<Colour>,
    /// Bits of a sample, if the record tells.
    pub bit_depth: Option<u8>,
    /// Chroma format: 0 is none, 1 is 4:2:0, 2 is 4:2:2, 3 is 4:4:4.
    pub chroma: Option<u8>,
    /// How many pictures may come before one that is shown earlier, if the record tells.
    pub reorder: Option<u8>,
}

impl VideoConfig {
    /// A track of which no record was sent. `None` for codecs that cannot do without.
    pub fn without_record(codec: VideoCodec) -> Option<VideoConfig> {
        let mut config = VideoConfig::empty(codec);
        match codec {
            VideoCodec::H264 | VideoCodec::H265 | VideoCodec::Av1 => return None,
            // Profile 0, level unknown, 8 bits 4:2:0, colours unspecified.
            VideoCodec::Vp8 | VideoCodec::Vp9 => {
                config.record = vec![0, 0, 0x82, 2, 2, 2, 0, 0];
            }
        }
        Some(config)
    }

    /// Reads the content of a sequence header.
    ///
    /// # Errors
    /// The record itself is broken; what cannot be read of the parameter sets in it stays unknown.
    pub fn read(codec: VideoCodec, data: &[u8]) -> Result<VideoConfig, CodecError> {
        let mut config = VideoConfig::empty(codec);
        config.record = data.to_vec();
        match codec {
            VideoCodec::H264 => {
                let record = h264::config(data)?;
                config.length_size = record.length_size;
                let first = record.sps.first().ok_or(CodecError::Malformed("no SPS"))?;
                if let Ok(sps) = h264::sps(first) {
                    config.size = Some((sps.width, sps.height));
                    config.fps = sps.fps;
                    config.colour = sps.colour;
                    config.bit_depth = Some(sps.bit_depth);
                    config.chroma = Some(sps.chroma);
                    config.reorder = sps.reorder;
                }
                config.add_sets(record.sps.iter().chain(&record.pps).copied());
            }
            VideoCodec::H265 => {
                let record = h265::config(data)?;
                config.length_size = record.length_size;
                config.fps = record.fps;
                if let Some(sps) = record.sps().and_then(|sps| h265::sps(sps).ok()) {
                    config.size = Some((sps.width, sps.height));
                    config.fps = sps.more.fps.or(config.fps);
                    config.colour = sps.more.colour;
                    config.bit_depth = sps.more.bit_depth;
                    config.chroma = Some(sps.chroma);
                    config.reorder = sps.more.reorder;
                }
                config.add_sets(record.sets.iter().copied());
            }
            VideoCodec::Av1 => {
                let (_, _, obus) = av1::config(data)?;
                // Pictures are coded in the order in which they are shown.
                config.reorder = Some(0);
                if let Ok(sequence) = av1::sequence(obus) {
                    config.size = Some((sequence.width, sequence.height));
                    config.fps = sequence.fps;
                    config.colour = sequence.format.map(|format| format.colour);
                    config.bit_depth = sequence.format.map(|format| format.bit_depth);
                    config.chroma = sequence.format.map(|format| format.chroma);
                }
            }
            VideoCodec::Vp9 | VideoCodec::Vp8 => {
                let record = vp9::config(data)?;
                config.record = record.record.to_vec();
                config.colour = Some(record.colour);
                config.bit_depth = Some(record.bit_depth);
                config.chroma = Some(record.chroma);
                config.reorder = Some(0);
            }
        }
        Ok(config)
    }

    fn empty(codec: VideoCodec) -> VideoConfig {
        VideoConfig {
            codec,
            record: Vec::new(),
            length_size: 4,
            parameter_sets: Vec::new(),
            size: None,
            fps: None,
            colour: None,
            bit_depth: None,
            chroma: None,
            reorder: None,
        }
    }

    fn add_sets<'a>(&mut self, sets: impl Iterator<Item = &'a [u8]>) {
        for set in sets {
            self.parameter_sets.extend_from_slice(&[0, 0, 0, 1]);
            self.parameter_sets.extend_from_slice(set);
        }
    }
}

/// What a muxer has to know of an audio track.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AudioConfig {
    /// The codec.
    pub codec: AudioCodec,
    /// Samples per second of the output.
    pub rate_hz: u32,
    /// Channels of the output; 0 if not known.
    pub channels: u8,
    /// What only this codec has.
    pub detail: AudioDetail,
}

/// The part of an audio track's description that differs by codec.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AudioDetail {
    /// AAC: the AudioSpecificConfig, read and as it is.
    Aac(aac::Config, Vec<u8>),
    /// MPEG audio: the first frame header.
    Mp3(mp3::Header),
    /// Opus: the identification header.
    Opus(OpusHead),
    /// FLAC: the STREAMINFO block.
    Flac(FlacInfo),
    /// AC-3 and E-AC-3: the start of the first frame.
    Ac3(ac3::Frame),
    /// G.711: there is nothing more to say.
    G711,
}

impl AudioConfig {
    /// Reads the content of a sequence header.
    ///
    /// # Errors
    /// It is broken, or the codec has none.
    pub fn read(codec: AudioCodec, data: &[u8]) -> Result<AudioConfig, CodecError> {
        let (rate_hz, channels, detail) = match codec {
            AudioCodec::Aac => {
                let config = aac::config(data)?;
                (config.rate_hz, config.channels, AudioDetail::Aac(config, data.to_vec()))
            }
            AudioCodec::Opus => {
                let head = opus::opus_head(data)?;
                (48_000, head.channels, AudioDetail::Opus(head))
            }
            AudioCodec::Flac => {
                let info = opus::flac_info(data)?;
                (info.rate_hz, info.channels, AudioDetail::Flac(info))
            }
            _ => return Err(CodecError::Malformed("sequence header")),
        };
        Ok(AudioConfig { codec, rate_hz, channels, detail })
    }

    /// Learns from a frame what a codec without sequence header is. `None` where that needs one.
    ///
    /// # Errors
    /// The frame does not begin as one of its codec does.
    pub fn of_frame(codec: AudioCodec, data: &[u8]) -> Result<Option<AudioConfig>, CodecError> {
        let (rate_hz, channels, detail) = match codec {
            AudioCodec::Mp3 => {
                let header = mp3::header(data)?;
                (header.rate_hz, header.channels, AudioDetail::Mp3(header))
            }
            AudioCodec::Ac3 | AudioCodec::Eac3 => {
                let frame = ac3::frame(data)?;
                (frame.rate_hz, frame.channels, AudioDetail::Ac3(frame))
            }
            AudioCodec::G711A | AudioCodec::G711U => (8_000, 1, AudioDetail::G711),
            AudioCodec::Aac | AudioCodec::Opus | AudioCodec::Flac => return Ok(None),
        };
        Ok(Some(AudioConfig { codec, rate_hz, channels, detail }))
    }

    /// Samples per channel in a frame, by its own header where it has one.
    pub fn samples(&self, frame: &[u8]) -> u32 {
        match &self.detail {
            AudioDetail::Aac(config, _) => config.frame_samples(),
            AudioDetail::Mp3(header) => {
                mp3::header(frame).map_or(header.samples, |header| header.samples)
            }
            AudioDetail::Opus(_) => opus::opus_samples(frame).unwrap_or(OPUS_SAMPLES),
            AudioDetail::Flac(_) => opus::flac_samples(frame).unwrap_or(FLAC_SAMPLES),
            AudioDetail::Ac3(first) => ac3::frame(frame).map_or(first.samples, |f| f.samples),
            AudioDetail::G711 => frame.len() as u32 / u32::from(self.channels.max(1)),
        }
    }
}

/// 20 ms, what nearly all encoders choose.
const OPUS_SAMPLES: u32 = 960;
/// The usual block.
const FLAC_SAMPLES: u32 = 4096;

/// Lays audio frames end to end.
///
/// Publishers round times to milliseconds, and a frame seldom lasts a whole number of them. So the
/// clock counts samples from the first frame on, and follows the stated time only where the two are
/// apart by more than a frame: there something is missing or doubled.
#[derive(Debug, Clone, Default)]
pub struct AudioClock {
    rate_hz: u32,
    /// Where the next frame is expected, in samples since time 0.
    next: Option<i64>,
    /// Where the last frame was put.
    last: i64,
    /// Stated times are followed only where they are apart from it by more than a second.
    counts: bool,
}

impl AudioClock {
    /// A clock that counts samples for as long as stated times are within a second of it.
    pub fn counting() -> AudioClock {
        AudioClock { counts: true, ..AudioClock::default() }
    }

    /// Where a frame that is stated to begin at `dts` (ticks) lies, in samples since time 0. Always
    /// behind the frame before it.
    pub fn place(&mut self, rate_hz: u32, dts: i64, samples: u32) -> i64 {
        let rate_hz = rate_hz.max(1);
        if rate_hz != self.rate_hz {
            *self = AudioClock { rate_hz, next: None, last: i64::MIN, counts: self.counts };
        }
        let stated = (dts * i64::from(rate_hz) + TICKS_HZ / 2).div_euclid(TICKS_HZ);
        let tolerance = match self.counts {
            true => i64::from(rate_hz),
            false => i64::from(samples).max(i64::from(rate_hz) / TOLERANCE_PER_SECOND),
        };
        let at = match self.next {
            // A frame of no samples takes no time, and yet no two may be at the same one.
            Some(next) if (next - stated).abs() <= tolerance => {
                next.max(self.last.saturating_add(1))
            }
            Some(_) => stated.max(self.last.saturating_add(1)),
            None => stated,
        };
        self.last = at;
        self.next = Some(at + i64::from(samples));
        at
    }

    /// A number of samples in ticks, rounded.
    pub fn ticks(rate_hz: u32, samples: i64) -> i64 {
        let rate_hz = i64::from(rate_hz.max(1));
        (samples * TICKS_HZ + rate_hz / 2).div_euclid(rate_hz)
    }
}

/// The clock bears with 20 ms where frames are shorter than that.
const TOLERANCE_PER_SECOND: i64 = 50;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::media::unhex;

    #[test]
    fn messages_become_units() {
        // H.264, composition time 80 ms.
        let frame = [0x27, 1, 0, 0, 80, 9, 9];
        let unit = Unit { dts: 90_000, pts: 97_200, keyframe: false, data: &[9, 9] };
        let video = |payload| read(Kind::Video, 1_000, payload);
        assert_eq!(video(&frame), Ok(Content::Video(VideoCodec::H264, unit)));
        // Half a millisecond more, by ModEx.
        let exact = b"\x97\x02\x07\xa1\x20\x01av01\x0a\x00";
        let Ok(Content::Video(VideoCodec::Av1, unit)) = video(exact) else { panic!("no AV1") };
        assert_eq!((unit.dts, unit.data), (90_045, &[10, 0][..]));
        assert_eq!(video(&[0x17, 1, 0, 0, 0]), Ok(Content::Other));
        assert_eq!(video(&[0x17, 2, 0, 0, 0]), Ok(Content::Other));
        let audio = read(Kind::Audio, 2, &[0xaf, 0, 0x12, 0x10]);
        assert_eq!(audio, Ok(Content::AudioHeader(AudioCodec::Aac, &[0x12, 0x10])));
    }

    #[test]
    fn video_configurations() {
        let record = unhex(
            "0164001fffe100196764001facd940a02ff9701100000303e90000ea600f18319601000668ebe3cb22c0\
             fdf8f800",
        );
        let config = VideoConfig::read(VideoCodec::H264, &record).unwrap();
        assert_eq!((config.size, config.reorder), (Some((640, 360)), Some(2)));
        assert_eq!(config.parameter_sets[..5], [0, 0, 0, 1, 0x67]);
        assert_eq!(config.parameter_sets[25 + 4..][..5], [0, 0, 0, 1, 0x68]);
        let vp9 = VideoConfig::read(VideoCodec::Vp9, &unhex("010000000115870202000000")).unwrap();
        assert_eq!((vp9.record.len(), vp9.chroma), (8, Some(3)));
        assert!(VideoConfig::without_record(VideoCodec::H264).is_none());
        assert!(VideoConfig::without_record(VideoCodec::Vp8).is_some());
        assert!(VideoConfig::read(VideoCodec::H264, &[1, 66, 0, 30, 0xff, 0xe0, 0]).is_err());
    }

    #[test]
    fn audio_configurations() {
        let aac = AudioConfig::read(AudioCodec::Aac, &[0x13, 0x10, 0x56, 0xe5, 0x98]).unwrap();
        assert_eq!((aac.rate_hz, aac.channels, aac.samples(&[])), (48_000, 2, 2048));
        let mp3 = AudioConfig::of_frame(AudioCodec::Mp3, &[0xff, 0xfb, 0x90, 0x64]).unwrap();
        assert_eq!(mp3.map(|mp3| mp3.samples(&[])), Some(1152));
        assert_eq!(AudioConfig::of_frame(AudioCodec::Opus, &[1]), Ok(None));
        assert!(AudioConfig::read(AudioCodec::Mp3, &[0xff, 0xfb, 0x90, 0x64]).is_err());
    }

    #[test]
    fn rounded_times_are_laid_end_to_end() {
        let mut clock = AudioClock::default();
        for frame in 0..10_000i64 {
            let ms = frame * 1024 * 1000 / 44_100;
            let at = clock.place(44_100, ms * TICKS_PER_MS, 1024);
            assert_eq!(at, frame * 1024);
        }
        assert_eq!(AudioClock::ticks(44_100, 1024), 2090);
    }

    #[test]
    fn gaps_are_kept_and_time_never_goes_back() {
        let mut clock = AudioClock::default();
        assert_eq!(clock.place(48_000, 0, 1024), 0);
        assert_eq!(clock.place(48_000, 500 * TICKS_PER_MS, 1024), 24_000);
        assert_eq!(clock.place(48_000, 521 * TICKS_PER_MS, 1024), 25_024);
        // A doubled frame, and a clock that stands still.
        assert_eq!(clock.place(48_000, 500 * TICKS_PER_MS, 1024), 25_025);
        let mut last = 25_025;
        for _ in 0..100 {
            let at = clock.place(48_000, 500 * TICKS_PER_MS, 1024);
            assert!(at > last);
            last = at;
        }
        let next = clock.place(48_000, 501 * TICKS_PER_MS, 0);
        assert!(clock.place(48_000, 501 * TICKS_PER_MS, 0) > next, "a frame of no samples");
        // Another rate is another track.
        assert_eq!(clock.place(44_100, 90_000, 1024), 44_100);
    }
}

//! The codecs that pass through the server, by the numbers and FourCCs that name them in tags, and
//! names for those that do not.

use std::fmt;

/// A video codec that passes through the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum VideoCodec {
    /// H.264, legacy id 7 or FourCC `avc1`.
    H264,
    /// H.265, legacy id 12 or FourCC `hvc1`.
    H265,
    /// AV1, legacy id 13 or FourCC `av01`.
    Av1,
    /// VP8, FourCC `vp08`.
    Vp8,
    /// VP9, FourCC `vp09`.
    Vp9,
}

impl VideoCodec {
    /// All of them.
    pub const ALL: [VideoCodec; 5] =
        [VideoCodec::H264, VideoCodec::H265, VideoCodec::Av1, VideoCodec::Vp8, VideoCodec::Vp9];

    /// The enhanced RTMP FourCC.
    pub fn fourcc(self) -> [u8; 4] {
        match self {
            VideoCodec::H264 => *b"avc1",
            VideoCodec::H265 => *b"hvc1",
            VideoCodec::Av1 => *b"av01",
            VideoCodec::Vp8 => *b"vp08",
            VideoCodec::Vp9 => *b"vp09",
        }
    }

    /// The name that logs and the API show.
    pub fn name(self) -> &'static str {
        match self {
            VideoCodec::H264 => "H264",
            VideoCodec::H265 => "H265",
            VideoCodec::Av1 => "AV1",
            VideoCodec::Vp8 => "VP8",
            VideoCodec::Vp9 => "VP9",
        }
    }

    pub(super) fn from_fourcc(fourcc: [u8; 4]) -> Result<VideoCodec, Foreign> {
        match &fourcc {
            b"avc1" => Ok(VideoCodec::H264),
            b"hvc1" => Ok(VideoCodec::H265),
            b"av01" => Ok(VideoCodec::Av1),
            b"vp08" => Ok(VideoCodec::Vp8),
            b"vp09" => Ok(VideoCodec::Vp9),
            _ => Err(Foreign::FourCc(fourcc)),
        }
    }

    /// Whether coded frames of this codec carry a composition time in the enhanced header.
    pub(super) fn has_composition_time(self) -> bool {
        matches!(self, VideoCodec::H264 | VideoCodec::H265)
    }
}

impl fmt::Display for VideoCodec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// An audio codec that passes through the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum AudioCodec {
    /// AAC, legacy id 10 or FourCC `mp4a`.
    Aac,
    /// MP3, legacy ids 2 and 14 or FourCC `.mp3`.
    Mp3,
    /// Opus, FourCC `Opus`.
    Opus,
    /// FLAC, FourCC `fLaC`.
    Flac,
    /// AC-3, FourCC `ac-3`.
    Ac3,
    /// Enhanced AC-3, FourCC `ec-3`.
    Eac3,
    /// G.711 A-law, legacy id 7.
    G711A,
    /// G.711 mu-law, legacy id 8.
    G711U,
}

impl AudioCodec {
    /// All of them.
    pub const ALL: [AudioCodec; 8] = [
        AudioCodec::Aac,
        AudioCodec::Mp3,
        AudioCodec::Opus,
        AudioCodec::Flac,
        AudioCodec::Ac3,
        AudioCodec::Eac3,
        AudioCodec::G711A,
        AudioCodec::G711U,
    ];

    /// The enhanced RTMP FourCC; G.711 has none.
    pub fn fourcc(self) -> Option<[u8; 4]> {
        match self {
            AudioCodec::Aac => Some(*b"mp4a"),
            AudioCodec::Mp3 => Some(*b".mp3"),
            AudioCodec::Opus => Some(*b"Opus"),
            AudioCodec::Flac => Some(*b"fLaC"),
            AudioCodec::Ac3 => Some(*b"ac-3"),
            AudioCodec::Eac3 => Some(*b"ec-3"),
            AudioCodec::G711A | AudioCodec::G711U => None,
        }
    }

    /// The name that logs and the API show.
    pub fn name(self) -> &'static str {
        match self {
            AudioCodec::Aac => "AAC",
            AudioCodec::Mp3 => "MP3",
            AudioCodec::Opus => "Opus",
            AudioCodec::Flac => "FLAC",
            AudioCodec::Ac3 => "AC-3",
            AudioCodec::Eac3 => "E-AC-3",
            AudioCodec::G711A => "G.711 A-law",
            AudioCodec::G711U => "G.711 mu-law",
        }
    }

    /// Whether players need a sequence header before the first frame can be decoded.
    pub fn has_sequence_header(self) -> bool {
        matches!(self, AudioCodec::Aac | AudioCodec::Opus | AudioCodec::Flac)
    }

    pub(super) fn from_fourcc(fourcc: [u8; 4]) -> Result<AudioCodec, Foreign> {
        match &fourcc {
            b"mp4a" => Ok(AudioCodec::Aac),
            b".mp3" => Ok(AudioCodec::Mp3),
            b"Opus" => Ok(AudioCodec::Opus),
            b"fLaC" => Ok(AudioCodec::Flac),
            b"ac-3" => Ok(AudioCodec::Ac3),
            b"ec-3" => Ok(AudioCodec::Eac3),
            _ => Err(Foreign::FourCc(fourcc)),
        }
    }
}

impl fmt::Display for AudioCodec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A codec or packet that the server does not take, by the name that goes into the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Foreign {
    /// A legacy video codec id.
    VideoId(u8),
    /// A legacy audio codec id.
    AudioId(u8),
    /// An enhanced RTMP FourCC.
    FourCc([u8; 4]),
    /// A packet type that enhanced RTMP v2 leaves reserved.
    PacketType(u8),
}

impl fmt::Display for Foreign {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Foreign::VideoId(id) => match id {
                1 => f.write_str("JPEG video"),
                2 => f.write_str("Sorenson H.263 video"),
                3 => f.write_str("Screen video"),
                4 => f.write_str("VP6 video"),
                5 => f.write_str("VP6 video with alpha"),
                6 => f.write_str("Screen video 2"),
                _ => write!(f, "video codec id {id}"),
            },
            Foreign::AudioId(id) => match id {
                0 | 3 => f.write_str("PCM audio"),
                1 => f.write_str("ADPCM audio"),
                4..=6 => f.write_str("Nellymoser audio"),
                11 => f.write_str("Speex audio"),
                15 => f.write_str("device-specific audio"),
                _ => write!(f, "audio codec id {id}"),
            },
            Foreign::FourCc(fourcc) => write!(f, "codec '{}'", fourcc.escape_ascii()),
            Foreign::PacketType(id) => write!(f, "packet type {id}"),
        }
    }
}

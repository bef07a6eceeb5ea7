//! What transport streams and program streams have in common (ISO 13818-1): what is found in them,
//! PES packets, and the audio frames and pictures inside.

pub mod frames;
pub mod pes;

use crate::media::codec::{AudioCodec, VideoCodec};

/// What a track carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Carries {
    /// Pictures, as an Annex B byte stream.
    Video(VideoCodec),
    /// Audio frames: AAC with its ADTS header, Opus without its control header.
    Audio(AudioCodec),
    /// Something else, by its stream type (ISO 13818-1 table 2-34).
    Other(u8),
}

/// A track of the program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Track {
    /// What its packets are known by: the PID, in a program stream the stream id.
    pub id: u16,
    /// What it carries.
    pub carries: Carries,
    /// Channels of Opus, which nothing but the table says; 0 when it does not.
    pub channels: u8,
}

/// A picture or an audio frame; of other tracks, what one PES packet carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unit<'a> {
    /// Place of its track among those of the last [`Event::Tracks`].
    pub track: usize,
    /// Presentation time, ticks; no rollover. Without one: that of the unit before is all there is.
    pub pts: Option<i64>,
    /// Decoding time, ticks.
    pub dts: Option<i64>,
    /// Decoding can start here.
    pub keyframe: bool,
    /// Its bytes.
    pub data: &'a [u8],
    /// Place in the input behind the last packet that carries a part of it.
    pub end: u64,
}

/// What is found.
#[derive(Debug, PartialEq, Eq)]
pub enum Event<'a> {
    /// The program has these tracks from here on. Units of before are told before.
    Tracks(&'a [Track]),
    /// A unit.
    Unit(Unit<'a>),
    /// Something was wrong, and left out.
    Damage(Damage),
}

/// What was wrong with the input.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, thiserror::Error)]
pub enum Damage {
    /// Malformed: no packet begins where one should; these bytes were passed over.
    #[error("lost sync")]
    Sync,
    /// Malformed: a packet says that it is broken, or its fields do not fit into it.
    #[error("a broken packet")]
    Packet,
    /// The sender or the line lost packets: the unit that misses them is left out.
    #[error("lost packets")]
    Gap,
    /// Malformed: a table is broken, or tells of packets that carry something else.
    #[error("a broken table")]
    Table,
    /// Malformed: a unit's head is broken, or the unit is shorter than it says.
    #[error("a broken unit")]
    Unit,
    /// The clock jumped, and nothing announced it.
    #[error("the clock jumped")]
    Clock,
    /// Unsupported: encrypted packets.
    #[error("encrypted packets")]
    Encrypted,
    /// Over a limit: tracks, tables, or bytes of a unit; what is too much is left out.
    #[error("more than is taken")]
    Limit,
}

impl Damage {
    /// All of them, in their order.
    pub const ALL: [Damage; 8] = [
        Damage::Sync,
        Damage::Packet,
        Damage::Gap,
        Damage::Table,
        Damage::Unit,
        Damage::Clock,
        Damage::Encrypted,
        Damage::Limit,
    ];
}

/// What a stream type and its descriptors stand for, and channels of Opus.
pub fn carries(kind: u8, descriptors: &[u8]) -> (Carries, u8) {
    use Carries::{Audio, Other, Video};
    let (mut name, mut channels) = (None, 0);
    let mut rest = descriptors;
    while let [tag, len, ref more @ ..] = *rest {
        let Some((content, next)) = more.split_at_checked(usize::from(len)) else { break };
        match (tag, content) {
            (5, [a, b, c, d, ..]) => name = Some([*a, *b, *c, *d]),
            (0x7f, [0x80, code, ..]) => channels = *code,
            // Descriptors of DVB for AC-3 and E-AC-3.
            (0x6a, _) => name = name.or(Some(*b"AC-3")),
            (0x7a, _) => name = name.or(Some(*b"EAC3")),
            _ => {}
        }
        rest = next;
    }
    let carries = match (kind, name.as_ref()) {
        (0x1b, _) => Video(VideoCodec::H264),
        (0x24, _) | (0x06, Some(b"HEVC")) => Video(VideoCodec::H265),
        (0x0f, _) => Audio(AudioCodec::Aac),
        (0x03 | 0x04, _) => Audio(AudioCodec::Mp3),
        (0x81, _) | (0x06, Some(b"AC-3")) => Audio(AudioCodec::Ac3),
        (0x87, _) | (0x06, Some(b"EAC3")) => Audio(AudioCodec::Eac3),
        (0x06, Some(b"Opus")) => Audio(AudioCodec::Opus),
        (kind, _) => Other(kind),
    };
    (carries, channels)
}

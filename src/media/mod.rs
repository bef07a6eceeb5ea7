//! What flows through the server, independent of any protocol: names, tags, codecs, time.
//!
//! Everything here is pure: bytes in, facts out. The facts are for logs, the API and metadata;
//! media is passed through as it came, and a header that this module cannot read never stops a
//! stream.

pub mod aac;
pub mod ac3;
pub mod av1;
pub mod bits;
pub mod codec;
mod codec_string;
pub mod colour;
pub mod h264;
pub mod h265;
pub mod mp3;
pub mod nal;
pub mod name;
pub mod opus;
mod parameter_sets;
mod record;
pub mod tag;
pub mod time;
pub mod track;
pub mod unit;
pub mod vp9;

/// What a media message carries. The numbers are shared by RTMP message types and FLV tag types.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Kind {
    /// An audio message, type 8.
    Audio = 8,
    /// A video message, type 9.
    Video = 9,
    /// An AMF0 data message (metadata among others), type 18.
    Data = 18,
}

impl Kind {
    /// The kind with this RTMP message type or FLV tag type, if it is a media type.
    pub fn from_type(id: u8) -> Option<Kind> {
        match id {
            8 => Some(Kind::Audio),
            9 => Some(Kind::Video),
            18 => Some(Kind::Data),
            _ => None,
        }
    }

    /// The RTMP message type and FLV tag type of this kind.
    pub fn type_id(self) -> u8 {
        self as u8
    }
}

/// Bytes from hex digits, for test vectors.
#[cfg(test)]
pub(crate) fn unhex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> =
        text.chars().filter_map(|c| c.to_digit(16)).map(|digit| digit as u8).collect();
    digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect()
}

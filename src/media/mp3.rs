//! MP3: the frame header (ISO 11172-3 2.4.1.3, and 13818-3 for the lower rates).

use super::bits::CodecError;

/// What a frame header says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// Samples per second.
    pub rate_hz: u32,
    /// Channels, 1 or 2.
    pub channels: u8,
    /// The layer, 1 to 3.
    pub layer: u8,
}

/// Reads the header at the start of a frame.
pub fn header(data: &[u8]) -> Result<Header, CodecError> {
    let [first, second, third, fourth, ..] = *data else { return Err(CodecError::Truncated) };
    if first != 0xff || second & 0xe0 != 0xe0 {
        return Err(CodecError::Malformed("MPEG audio sync word"));
    }
    let shift = match second >> 3 & 3 {
        3 => 0,
        2 => 1,
        0 => 2,
        _ => return Err(CodecError::Malformed("MPEG audio version")),
    };
    let layer = match second >> 1 & 3 {
        0 => return Err(CodecError::Malformed("MPEG audio layer")),
        code => 4 - code,
    };
    let rate_hz = match third >> 2 & 3 {
        0 => 44_100,
        1 => 48_000,
        2 => 32_000,
        _ => return Err(CodecError::Malformed("sampling frequency")),
    } >> shift;
    Ok(Header { rate_hz, channels: if fourth >> 6 == 3 { 1 } else { 2 }, layer })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers() {
        let one = header(&[0xff, 0xfb, 0x90, 0x64]).unwrap();
        assert_eq!(one, Header { rate_hz: 44_100, channels: 2, layer: 3 });
        let two = header(&[0xff, 0xf3, 0x84, 0xc4]).unwrap();
        assert_eq!(two, Header { rate_hz: 24_000, channels: 1, layer: 3 });
        assert!(header(&[0xff, 0xe3, 0x9c, 0xc4]).is_err());
        assert!(header(&[0x49, 0x44, 0x33, 0x03]).is_err());
        assert_eq!(header(&[0xff]), Err(CodecError::Truncated));
    }
}

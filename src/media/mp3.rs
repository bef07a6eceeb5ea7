//! MPEG audio: the frame header (ISO 11172-3 2.4.1.3, and 13818-3 for the lower rates).

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
    /// MPEG-1; otherwise one of the lower rates.
    pub mpeg1: bool,
    /// Samples in the frame, per channel.
    pub samples: u32,
    /// Bytes of the frame with its header; `None` for the free format, which does not tell.
    pub frame_bytes: Option<usize>,
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
    let mpeg1 = shift == 0;
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
    let samples = match (layer, mpeg1) {
        (1, _) => 384,
        (3, false) => 576,
        _ => 1152,
    };
    let index = usize::from(third >> 4);
    let frame_bytes = match index {
        0 => None,
        15 => return Err(CodecError::Malformed("bit rate")),
        _ => {
            let row = match (mpeg1, layer) {
                (true, 1) => 0,
                (true, 2) => 1,
                (true, _) => 2,
                (false, 1) => 3,
                (false, _) => 4,
            };
            let rate = u32::from(KBPS[row][index - 1]) * 1000;
            let padding = u32::from(third >> 1 & 1);
            // Layer 1 counts in slots of four bytes.
            let bytes = match layer {
                1 => (12 * rate / rate_hz + padding) * 4,
                _ => samples / 8 * rate / rate_hz + padding,
            };
            Some(bytes as usize)
        }
    };
    let channels = if fourth >> 6 == 3 { 1 } else { 2 };
    Ok(Header { rate_hz, channels, layer, mpeg1, samples, frame_bytes })
}

/// Kilobits per second by index 1 to 14: MPEG-1 layers 1 to 3, then MPEG-2 layer 1, and 2 and 3.
const KBPS: [[u16; 14]; 5] = [
    [32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448],
    [32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384],
    [32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320],
    [32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256],
    [8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160],
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers() {
        let one = header(&[0xff, 0xfb, 0x90, 0x64]).unwrap();
        assert_eq!((one.rate_hz, one.channels, one.layer, one.mpeg1), (44_100, 2, 3, true));
        assert_eq!((one.samples, one.frame_bytes), (1152, Some(417)));
        let two = header(&[0xff, 0xf3, 0x84, 0xc4]).unwrap();
        assert_eq!((two.rate_hz, two.channels, two.layer, two.mpeg1), (24_000, 1, 3, false));
        assert_eq!((two.samples, two.frame_bytes), (576, Some(192)));
        assert_eq!(header(&[0xff, 0xfb, 0x00, 0x64]).unwrap().frame_bytes, None);
        assert!(header(&[0xff, 0xfb, 0xf0, 0x64]).is_err());
        assert!(header(&[0xff, 0xe3, 0x9c, 0xc4]).is_err());
        assert!(header(&[0x49, 0x44, 0x33, 0x03]).is_err());
        assert_eq!(header(&[0xff]), Err(CodecError::Truncated));
    }
}

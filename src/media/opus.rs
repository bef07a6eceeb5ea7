//! Opus and FLAC: their identification headers, as enhanced RTMP carries them.

use super::bits::{Bits, CodecError};

/// What an Opus identification header says. The output always has 48,000 samples a second.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OpusHead {
    /// Channels, 1 to 255.
    pub channels: u8,
    /// Samples (of 48,000 a second) that a decoder throws away at the start.
    pub pre_skip: u16,
}

/// Reads an Opus identification header (RFC 7845 5.1).
pub fn opus_head(data: &[u8]) -> Result<OpusHead, CodecError> {
    let data = data.strip_prefix(b"OpusHead").ok_or(CodecError::Malformed("OpusHead"))?;
    let [version, channels, skip0, skip1, _, _, _, _, _, _, _, ..] = *data else {
        return Err(CodecError::Truncated);
    };
    // RFC 7845: the upper half of the version is the incompatible part.
    if version >> 4 != 0 || channels == 0 {
        return Err(CodecError::Malformed("OpusHead"));
    }
    Ok(OpusHead { channels, pre_skip: u16::from_le_bytes([skip0, skip1]) })
}

/// What a FLAC STREAMINFO block says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FlacInfo {
    /// Samples per second.
    pub rate_hz: u32,
    /// Channels, 1 to 8.
    pub channels: u8,
    /// Bits per sample, 4 to 32.
    pub sample_bits: u8,
}

/// Reads a FLAC STREAMINFO block (RFC 9639 8.2): bare, behind its block header, or behind `fLaC`
/// too.
pub fn flac_info(data: &[u8]) -> Result<FlacInfo, CodecError> {
    let data = data.strip_prefix(b"fLaC").unwrap_or(data);
    let info = match data {
        [0 | 0x80, 0, 0, 34, info @ ..] => info,
        _ => data,
    };
    let mut bits = Bits::new(info);
    bits.skip(16 + 16 + 24 + 24)?;
    let rate_hz = bits.bits(20)?;
    if rate_hz == 0 || rate_hz > 655_350 {
        return Err(CodecError::Malformed("sampling frequency"));
    }
    let (channels, sample_bits) = (bits.bits(3)? as u8 + 1, bits.bits(5)? as u8 + 1);
    Ok(FlacInfo { rate_hz, channels, sample_bits })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn opus() {
        let head = b"OpusHead\x01\x02\x38\x01\x80\xbb\0\0\0\0\0";
        assert_eq!(opus_head(head), Ok(OpusHead { channels: 2, pre_skip: 312 }));
        assert_eq!(opus_head(&head[..18]), Err(CodecError::Truncated));
        assert!(opus_head(b"OpusTags").is_err());
    }

    #[test]
    fn flac() {
        let mut info = vec![0x12, 0, 0x12, 0, 0, 0, 0, 0, 0, 0];
        // 48,000 (20 bits), 2 channels (3 bits), 16 bits (5 bits).
        info.extend([0x0b, 0xb8, 0x02, 0xf0]);
        info.extend([0; 20]);
        let expected = FlacInfo { rate_hz: 48_000, channels: 2, sample_bits: 16 };
        assert_eq!(flac_info(&info), Ok(expected));
        let framed = [b"fLaC\x80\0\0\x22", info.as_slice()].concat();
        assert_eq!(flac_info(&framed), Ok(expected));
        assert_eq!(flac_info(&info[..12]), Err(CodecError::Truncated));
    }
}

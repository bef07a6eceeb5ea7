//! Opus and FLAC: their identification headers, as enhanced RTMP carries them.

use super::bits::{Bits, CodecError};

/// What an Opus identification header says. The output always has 48,000 samples a second.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OpusHead {
    /// Channels, 1 to 255.
    pub channels: u8,
    /// Samples (of 48,000 a second) that a decoder throws away at the start.
    pub pre_skip: u16,
    /// Samples per second of what was encoded, for people; 0 is unknown.
    pub input_rate_hz: u32,
    /// To be added to the volume, in 1/256 decibel.
    pub gain: i16,
    /// Channel mapping family: 0 is mono or stereo, 1 is surround.
    pub family: u8,
    /// Streams, coupled streams and the channel mapping table of families above 0.
    pub mapping: [u8; MAPPING_MAX],
    /// Bytes of `mapping` that are there.
    pub mapping_len: usize,
}

/// Streams, coupled streams and a table for eight channels; larger layouts are not described.
pub const MAPPING_MAX: usize = 2 + 8;

/// Reads an Opus identification header (RFC 7845 5.1).
pub fn opus_head(data: &[u8]) -> Result<OpusHead, CodecError> {
    let data = data.strip_prefix(b"OpusHead").ok_or(CodecError::Malformed("OpusHead"))?;
    let [version, channels, s0, s1, r0, r1, r2, r3, g0, g1, family, rest @ ..] = data else {
        return Err(CodecError::Truncated);
    };
    let (version, channels, family) = (*version, *channels, *family);
    // RFC 7845: the upper half of the version is the incompatible part.
    if version >> 4 != 0 || channels == 0 {
        return Err(CodecError::Malformed("OpusHead"));
    }
    let mut mapping = [0; MAPPING_MAX];
    let mut mapping_len = 0;
    if family == 0 {
        if channels > 2 {
            return Err(CodecError::Malformed("OpusHead channels"));
        }
    } else {
        mapping_len = 2 + usize::from(channels);
        let table = rest.get(..mapping_len).ok_or(CodecError::Truncated)?;
        let place = mapping.get_mut(..mapping_len).ok_or(CodecError::OverLimit("channels"))?;
        place.copy_from_slice(table);
    }
    Ok(OpusHead {
        channels,
        pre_skip: u16::from_le_bytes([*s0, *s1]),
        input_rate_hz: u32::from_le_bytes([*r0, *r1, *r2, *r3]),
        gain: i16::from_le_bytes([*g0, *g1]),
        family,
        mapping,
        mapping_len,
    })
}

/// Samples (of 48,000 a second) in a packet (RFC 6716 3.1 and 3.2).
pub fn opus_samples(packet: &[u8]) -> Result<u32, CodecError> {
    let toc = *packet.first().ok_or(CodecError::Truncated)?;
    let frame = match toc >> 3 {
        config @ 0..=11 => [480, 960, 1920, 2880][usize::from(config & 3)],
        config @ 12..=15 => [480, 960][usize::from(config & 1)],
        config => [120, 240, 480, 960][usize::from(config & 3)],
    };
    let frames = match toc & 3 {
        0 => 1,
        1 | 2 => 2,
        _ => u32::from(packet.get(1).ok_or(CodecError::Truncated)? & 0x3f),
    };
    const SAMPLES_MAX: u32 = 5760;
    match frames * frame {
        0 => Err(CodecError::Malformed("Opus packet")),
        samples if samples <= SAMPLES_MAX => Ok(samples),
        _ => Err(CodecError::Malformed("Opus packet")),
    }
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
    /// The STREAMINFO block without its block header.
    pub block: [u8; STREAMINFO_BYTES],
}

/// Bytes of a STREAMINFO block.
pub const STREAMINFO_BYTES: usize = 34;

/// Reads a FLAC STREAMINFO block (RFC 9639 8.2): bare, behind its block header, or behind `fLaC`
/// too.
pub fn flac_info(data: &[u8]) -> Result<FlacInfo, CodecError> {
    let data = data.strip_prefix(b"fLaC").unwrap_or(data);
    let info = match data {
        [0 | 0x80, 0, 0, 34, info @ ..] => info,
        _ => data,
    };
    let block = *info.first_chunk().ok_or(CodecError::Truncated)?;
    let mut bits = Bits::new(&block);
    bits.skip(16 + 16 + 24 + 24)?;
    let rate_hz = bits.bits(20)?;
    if rate_hz == 0 || rate_hz > 655_350 {
        return Err(CodecError::Malformed("sampling frequency"));
    }
    let (channels, sample_bits) = (bits.bits(3)? as u8 + 1, bits.bits(5)? as u8 + 1);
    if sample_bits < 4 {
        return Err(CodecError::Malformed("sample size"));
    }
    Ok(FlacInfo { rate_hz, channels, sample_bits, block })
}

/// Samples per channel in a FLAC frame (RFC 9639 9.1.1).
pub fn flac_samples(frame: &[u8]) -> Result<u32, CodecError> {
    let [first, second, third, _, number, ..] = *frame else { return Err(CodecError::Truncated) };
    if first != 0xff || second & 0xfe != 0xf8 {
        return Err(CodecError::Malformed("FLAC sync code"));
    }
    // Behind the frame or sample number, which is coded as UTF-8 codes letters.
    let number_len = match number.leading_ones() {
        0 => 1,
        ones @ 2..=7 => ones as usize,
        _ => return Err(CodecError::Malformed("FLAC frame number")),
    };
    let behind = frame.get(4 + number_len..).unwrap_or_default();
    match third >> 4 {
        0 => Err(CodecError::Malformed("FLAC block size")),
        1 => Ok(192),
        code @ 2..=5 => Ok(576 << (code - 2)),
        6 => Ok(u32::from(*behind.first().ok_or(CodecError::Truncated)?) + 1),
        7 => {
            let bytes = behind.first_chunk::<2>().ok_or(CodecError::Truncated)?;
            Ok(u32::from(u16::from_be_bytes(*bytes)) + 1)
        }
        code => Ok(256 << (code - 8)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn opus() {
        let head = b"OpusHead\x01\x02\x38\x01\x80\xbb\0\0\0\0\0";
        let stereo = opus_head(head).unwrap();
        assert_eq!((stereo.channels, stereo.pre_skip, stereo.family), (2, 312, 0));
        assert_eq!((stereo.input_rate_hz, stereo.gain, stereo.mapping_len), (48_000, 0, 0));
        let mut surround = b"OpusHead\x01\x06\x38\x01\x80\xbb\0\0\x01\xff\x01".to_vec();
        surround.extend([4, 2, 0, 4, 1, 2, 3, 5]);
        let six = opus_head(&surround).unwrap();
        assert_eq!((six.channels, six.gain, six.mapping_len), (6, -255, 8));
        assert_eq!(six.mapping[..8], [4, 2, 0, 4, 1, 2, 3, 5]);
        assert_eq!(opus_head(&surround[..26]), Err(CodecError::Truncated));
        assert_eq!(opus_head(&head[..18]), Err(CodecError::Truncated));
        assert!(opus_head(b"OpusTags").is_err());
    }

    #[test]
    fn samples_of_packets() {
        // CELT 20 ms, SILK 60 ms, hybrid 10 ms twice, CELT 2.5 ms six times.
        for (packet, samples) in
            [(&[0xfc][..], 960), (&[0x18], 2880), (&[0x61], 960), (&[0xe3, 6], 720)]
        {
            assert_eq!(opus_samples(packet), Ok(samples), "{packet:?}");
        }
        assert!(opus_samples(&[0xe3, 0]).is_err() && opus_samples(&[0x1b, 3]).is_err());
        assert_eq!(opus_samples(&[0xe3]), Err(CodecError::Truncated));
        for (frame, samples) in [
            (&[0xff, 0xf8, 0xc9, 0x18, 0, 0][..], 4096),
            (&[0xff, 0xf8, 0x29, 0x18, 0, 0], 576),
            (&[0xff, 0xf8, 0x69, 0x18, 0xc2, 0x80, 0x0f], 16),
            (&[0xff, 0xf8, 0x79, 0x18, 0, 0x11, 0xff], 0x1200),
        ] {
            assert_eq!(flac_samples(frame), Ok(samples), "{frame:?}");
        }
        assert!(flac_samples(&[0xff, 0xf8, 0x09, 0x18, 0, 0]).is_err());
        assert_eq!(flac_samples(&[0xff, 0xf8, 0x79, 0x18, 0, 1]), Err(CodecError::Truncated));
    }

    #[test]
    fn flac() {
        let mut info = vec![0x12, 0, 0x12, 0, 0, 0, 0, 0, 0, 0];
        // 48,000 (20 bits), 2 channels (3 bits), 16 bits (5 bits).
        info.extend([0x0b, 0xb8, 0x02, 0xf0]);
        info.extend([0; 20]);
        let block = *info.first_chunk().unwrap();
        let expected = FlacInfo { rate_hz: 48_000, channels: 2, sample_bits: 16, block };
        assert_eq!(flac_info(&info), Ok(expected));
        let framed = [b"fLaC\x80\0\0\x22", info.as_slice()].concat();
        assert_eq!(flac_info(&framed), Ok(expected));
        assert_eq!(flac_info(&info[..12]), Err(CodecError::Truncated));
    }
}

//! AC-3 and E-AC-3: the start of a frame (ETSI TS 102 366 4.4 and E.1.3). Neither has a sequence
//! header.

use super::bits::{Bits, CodecError};

/// What the start of a frame says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frame {
    /// Samples per second.
    pub rate_hz: u32,
    /// Channels, the low-frequency one included.
    pub channels: u8,
    /// Samples in the frame, per channel.
    pub samples: u32,
    /// Bytes of the frame.
    pub bytes: usize,
    /// Sampling frequency code: 0 is 48 kHz, 1 is 44.1 kHz, 2 is 32 kHz, 3 is half of one of them.
    pub rate_code: u8,
    /// Bit stream identification; above 10 it is E-AC-3.
    pub bsid: u8,
    /// Bit stream mode: what kind of service it is.
    pub bsmod: u8,
    /// Audio coding mode: which channels there are.
    pub acmod: u8,
    /// The low-frequency channel is there.
    pub lfe: bool,
    /// Bit rate code of AC-3 (half of the frame size code); 0 in E-AC-3.
    pub bit_rate_code: u8,
}

impl Frame {
    /// Kilobits per second, rounded.
    pub fn kbps(&self) -> u32 {
        (self.bytes as u64 * 8 * u64::from(self.rate_hz) / u64::from(self.samples) / 1000) as u32
    }
}

/// Reads the start of a frame of either kind.
pub fn frame(data: &[u8]) -> Result<Frame, CodecError> {
    let mut bits = Bits::new(data);
    if bits.bits(16)? != 0x0b77 {
        return Err(CodecError::Malformed("AC-3 sync word"));
    }
    // The stream identifier stands at the same place in both.
    match data.get(5).ok_or(CodecError::Truncated)? >> 3 {
        0..=10 => plain(bits),
        11..=16 => enhanced(bits),
        _ => Err(CodecError::Malformed("AC-3 stream identifier")),
    }
}

fn plain(mut bits: Bits<'_>) -> Result<Frame, CodecError> {
    bits.skip(16)?;
    let rate_code = bits.bits(2)? as u8;
    let rate_hz = rate(rate_code)?;
    let size_code = bits.bits(6)?;
    let kbps = *KBPS.get(size_code as usize / 2).ok_or(CodecError::Malformed("frame size"))?;
    // In words of two bytes; at 44.1 kHz every other frame is one longer.
    let words = match rate_code {
        0 => kbps * 2,
        1 => kbps * 320 / 147 + (size_code & 1),
        _ => kbps * 3,
    };
    let (bsid, bsmod) = (bits.bits(5)? as u8, bits.bits(3)? as u8);
    let acmod = bits.bits(3)? as u8;
    // The mix levels are there for layouts with a centre, with surrounds, and for stereo.
    let levels = [acmod & 1 == 1 && acmod != 1, acmod & 4 != 0, acmod == 2];
    for _ in levels.into_iter().filter(|present| *present) {
        bits.skip(2)?;
    }
    let lfe = bits.bit()?;
    Ok(Frame {
        rate_hz,
        channels: channels(acmod, lfe),
        samples: 6 * BLOCK_SAMPLES,
        bytes: 2 * words as usize,
        rate_code,
        bsid,
        bsmod,
        acmod,
        lfe,
        bit_rate_code: (size_code / 2) as u8,
    })
}

fn enhanced(mut bits: Bits<'_>) -> Result<Frame, CodecError> {
    const DEPENDENT: u32 = 1;
    // What extends another frame is no frame of its own.
    if bits.bits(2)? == DEPENDENT {
        return Err(CodecError::Malformed("E-AC-3 stream type"));
    }
    bits.skip(3)?;
    let words = bits.bits(11)? + 1;
    let rate_code = bits.bits(2)? as u8;
    let (rate_hz, blocks) = if rate_code == 3 {
        (rate(bits.bits(2)? as u8)? / 2, 6)
    } else {
        (rate(rate_code)?, [1, 2, 3, 6][bits.bits(2)? as usize & 3])
    };
    let acmod = bits.bits(3)? as u8;
    let lfe = bits.bit()?;
    let bsid = bits.bits(5)? as u8;
    Ok(Frame {
        rate_hz,
        channels: channels(acmod, lfe),
        samples: blocks * BLOCK_SAMPLES,
        bytes: 2 * words as usize,
        rate_code,
        bsid,
        bsmod: 0,
        acmod,
        lfe,
        bit_rate_code: 0,
    })
}

fn channels(acmod: u8, lfe: bool) -> u8 {
    [2, 1, 2, 3, 3, 4, 4, 5][usize::from(acmod & 7)] + u8::from(lfe)
}

fn rate(code: u8) -> Result<u32, CodecError> {
    match code {
        0 => Ok(48_000),
        1 => Ok(44_100),
        2 => Ok(32_000),
        _ => Err(CodecError::Malformed("sampling frequency")),
    }
}

const BLOCK_SAMPLES: u32 = 256;
/// Kilobits per second by half the frame size code (table 4.13).
const KBPS: [u32; 19] =
    [32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384, 448, 512, 576, 640];

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(data: &[u8]) -> (u32, u8, u32, usize) {
        let frame = frame(data).unwrap();
        (frame.rate_hz, frame.channels, frame.samples, frame.bytes)
    }

    #[test]
    fn frames() {
        // AC-3: 48 kHz, bsid 8, 3/2 with LFE: mode 111, centre and surround levels, LFE 1.
        assert_eq!(facts(&[0x0b, 0x77, 1, 2, 0x1e, 0x40, 0xe1, 0]), (48_000, 6, 1536, 1792));
        // AC-3: 44.1 kHz stereo: mode 010, Dolby surround 00, LFE 0.
        assert_eq!(facts(&[0x0b, 0x77, 1, 2, 0x55, 0x40, 0x40, 0]), (44_100, 2, 1536, 836));
        // E-AC-3: 48 kHz, 6 blocks, stereo, bsid 16.
        assert_eq!(facts(&[0x0b, 0x77, 0, 0xff, 0x34, 0x87]), (48_000, 2, 1536, 512));
        let frame = super::frame(&[0x0b, 0x77, 1, 2, 0x1e, 0x40, 0xe1, 0]).unwrap();
        assert_eq!((frame.bsid, frame.acmod, frame.lfe, frame.kbps()), (8, 7, true, 448));
        assert_eq!(super::frame(&[0x0b, 0x77]), Err(CodecError::Truncated));
        assert!(super::frame(&[0x0b, 0x78, 0, 0, 0, 0, 0, 0]).is_err());
        assert!(super::frame(&[0x0b, 0x77, 1, 2, 0x26, 0x40, 0xe1, 0]).is_err());
    }
}

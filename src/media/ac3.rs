//! AC-3 and E-AC-3: the start of a frame (ETSI TS 102 366 4.4 and E.1.3). Neither has a sequence
//! header.

use super::bits::{Bits, CodecError};

/// Samples per second and channels (with the low-frequency channel) of a frame, of either kind.
pub fn frame(data: &[u8]) -> Result<(u32, u8), CodecError> {
    let mut bits = Bits::new(data);
    if bits.bits(16)? != 0x0b77 {
        return Err(CodecError::Malformed("AC-3 sync word"));
    }
    // The stream identifier stands at the same place in both.
    let bsid = data.get(5).ok_or(CodecError::Truncated)? >> 3;
    let (rate_hz, mode) = if bsid <= 10 {
        bits.skip(16)?;
        let rate_hz = rate(bits.bits(2)?)?;
        bits.skip(6 + 5 + 3)?;
        let mode = bits.bits(3)?;
        // The mix levels are there for layouts with a centre, with surrounds, and for stereo.
        let levels = [mode & 1 == 1 && mode != 1, mode & 4 != 0, mode == 2];
        for _ in levels.into_iter().filter(|present| *present) {
            bits.skip(2)?;
        }
        (rate_hz, mode)
    } else if bsid <= 16 {
        bits.skip(2 + 3 + 11)?;
        let rate_hz = match bits.bits(2)? {
            3 => rate(bits.bits(2)?)? / 2,
            code => {
                bits.skip(2)?;
                rate(code)?
            }
        };
        (rate_hz, bits.bits(3)?)
    } else {
        return Err(CodecError::Malformed("AC-3 stream identifier"));
    };
    let lfe = bits.bits(1)? as u8;
    let channels = [2, 1, 2, 3, 3, 4, 4, 5][mode as usize & 7];
    Ok((rate_hz, channels + lfe))
}

fn rate(code: u32) -> Result<u32, CodecError> {
    match code {
        0 => Ok(48_000),
        1 => Ok(44_100),
        2 => Ok(32_000),
        _ => Err(CodecError::Malformed("sampling frequency")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames() {
        // AC-3: 48 kHz, bsid 8, 3/2 with LFE: mode 111, centre and surround levels, LFE 1.
        assert_eq!(frame(&[0x0b, 0x77, 1, 2, 0x1e, 0x40, 0xe1, 0]), Ok((48_000, 6)));
        // AC-3: 44.1 kHz stereo: mode 010, Dolby surround 00, LFE 0.
        assert_eq!(frame(&[0x0b, 0x77, 1, 2, 0x40, 0x40, 0x40, 0]), Ok((44_100, 2)));
        // E-AC-3: 48 kHz, 6 blocks, stereo, bsid 16.
        assert_eq!(frame(&[0x0b, 0x77, 0, 0xff, 0x34, 0x87]), Ok((48_000, 2)));
        assert_eq!(frame(&[0x0b, 0x77]), Err(CodecError::Truncated));
        assert!(frame(&[0x0b, 0x78, 0, 0, 0, 0, 0, 0]).is_err());
    }
}

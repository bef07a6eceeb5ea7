//! Reads bits, most significant first, with the Exp-Golomb codes of H.264 and H.265.

/// Why a codec header could not be read. Media is passed through all the same; only the facts for
/// logs and metadata are missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CodecError {
    /// The header ends before what it announces.
    #[error("truncated")]
    Truncated,
    /// A value that the codec's specification does not allow.
    #[error("malformed {0}")]
    Malformed(&'static str),
    /// A value that is allowed but larger than the server believes.
    #[error("{0} over the limit")]
    OverLimit(&'static str),
}

/// A place in a slice, counted in bits.
#[derive(Debug, Clone)]
pub struct Bits<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Bits<'a> {
    /// At the first bit of `bytes`.
    pub fn new(bytes: &'a [u8]) -> Bits<'a> {
        Bits { bytes, at: 0 }
    }

    /// How many bits are left.
    pub fn left(&self) -> usize {
        self.bytes.len().saturating_mul(8) - self.at
    }

    /// The next bit.
    pub fn bit(&mut self) -> Result<bool, CodecError> {
        let byte = self.bytes.get(self.at / 8).ok_or(CodecError::Truncated)?;
        let bit = byte >> (7 - self.at % 8) & 1;
        self.at += 1;
        Ok(bit == 1)
    }

    /// The next `count` bits as a number; `count` is at most 32.
    pub fn bits(&mut self, count: u32) -> Result<u32, CodecError> {
        debug_assert!(count <= 32);
        if self.left() < count as usize {
            return Err(CodecError::Truncated);
        }
        let mut value = 0u64;
        let mut missing = count as usize;
        while missing > 0 {
            let in_byte = 8 - self.at % 8;
            let take = in_byte.min(missing);
            let byte = u64::from(self.bytes[self.at / 8]);
            value = value << take | (byte >> (in_byte - take) & ((1 << take) - 1));
            self.at += take;
            missing -= take;
        }
        Ok(value as u32)
    }

    /// Passes over `count` bits.
    pub fn skip(&mut self, count: usize) -> Result<(), CodecError> {
        if self.left() < count {
            return Err(CodecError::Truncated);
        }
        self.at += count;
        Ok(())
    }

    /// Passes over what is left of a byte that was begun.
    pub fn align(&mut self) {
        self.at = self.at.next_multiple_of(8);
    }

    /// ue(v), H.264 9.1: at most 32 leading zeros, so that the value fits.
    pub fn ue(&mut self) -> Result<u32, CodecError> {
        let mut zeros = 0;
        while !self.bit()? {
            zeros += 1;
            if zeros > 32 {
                return Err(CodecError::Malformed("Exp-Golomb code"));
            }
        }
        let value = (1u64 << zeros) - 1 + u64::from(self.bits(zeros)?);
        u32::try_from(value).map_err(|_| CodecError::Malformed("Exp-Golomb code"))
    }

    /// ue(v) of at most `max`; a larger value makes `what` malformed.
    pub fn ue_max(&mut self, max: u32, what: &'static str) -> Result<u32, CodecError> {
        let value = self.ue()?;
        if value > max { Err(CodecError::Malformed(what)) } else { Ok(value) }
    }

    /// se(v), H.264 9.1.1.
    pub fn se(&mut self) -> Result<i32, CodecError> {
        let code = i64::from(self.ue()?);
        let value = if code & 1 == 1 { (code + 1) / 2 } else { -(code / 2) };
        i32::try_from(value).map_err(|_| CodecError::Malformed("Exp-Golomb code"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_across_bytes() {
        let mut bits = Bits::new(&[0b1010_0101, 0xff, 0x00, 0x81]);
        assert_eq!(bits.bits(3), Ok(0b101));
        assert_eq!(bits.bits(9), Ok(0b0_0101_1111));
        assert_eq!(bits.bits(0), Ok(0));
        assert_eq!(bits.left(), 20);
        assert_eq!(bits.bits(21), Err(CodecError::Truncated));
        assert_eq!(bits.bits(20), Ok(0xf0081));
        assert_eq!(bits.bit(), Err(CodecError::Truncated));
        assert_eq!(Bits::new(&[0xde, 0xad, 0xbe, 0xef]).bits(32), Ok(0xdead_beef));
    }

    #[test]
    fn exp_golomb_codes() {
        // 1 | 010 | 011 | 00100 | 00101
        let bytes = [0b1010_0110, 0b0100_0010, 0b1000_0000];
        let mut bits = Bits::new(&bytes);
        let codes: Vec<u32> = (0..5).map(|_| bits.ue().unwrap()).collect();
        assert_eq!(codes, [0, 1, 2, 3, 4]);
        let mut bits = Bits::new(&bytes);
        let codes: Vec<i32> = (0..5).map(|_| bits.se().unwrap()).collect();
        assert_eq!(codes, [0, 1, -1, 2, -2]);
    }

    #[test]
    fn exp_golomb_is_bounded() {
        // 32 zeros, a one, 32 bits: the largest code there is does not fit, the one before does.
        let mut largest = vec![0u8; 4];
        largest.extend([0x80, 0, 0, 0, 0]);
        assert_eq!(Bits::new(&largest).ue(), Ok(u32::MAX));
        largest[8] = 0x80;
        assert_eq!(Bits::new(&largest).ue(), Err(CodecError::Malformed("Exp-Golomb code")));
        assert_eq!(Bits::new(&[0; 64]).ue(), Err(CodecError::Malformed("Exp-Golomb code")));
        assert_eq!(Bits::new(&[0; 2]).ue(), Err(CodecError::Truncated));
    }
}

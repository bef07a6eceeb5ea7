//! What the numbers of a picture mean as colours, in the code points that all codecs share
//! (ITU-T H.273).

use super::bits::{Bits, CodecError};

/// Colour description of a video track.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Colour {
    /// Colour primaries: 1 is BT.709, 9 is BT.2020.
    pub primaries: u8,
    /// Transfer characteristics: 1 is BT.709, 16 is PQ, 18 is HLG.
    pub transfer: u8,
    /// Matrix coefficients: 1 is BT.709, 9 is BT.2020.
    pub matrix: u8,
    /// Samples use all values, not only those of broadcast video.
    pub full_range: bool,
}

impl Colour {
    /// Nothing is stated.
    pub const UNSPECIFIED: Colour =
        Colour { primaries: 2, transfer: 2, matrix: 2, full_range: false };

    /// True for light beyond what a display of the old kind shows: PQ or HLG.
    pub fn is_high_dynamic_range(self) -> bool {
        matches!(self.transfer, 16 | 18)
    }

    /// Three code points in the order in which every codec writes them.
    pub(super) fn read(bits: &mut Bits<'_>, full_range: bool) -> Result<Colour, CodecError> {
        let (primaries, transfer) = (bits.bits(8)? as u8, bits.bits(8)? as u8);
        Ok(Colour { primaries, transfer, matrix: bits.bits(8)? as u8, full_range })
    }
}

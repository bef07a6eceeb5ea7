//! NAL units of H.264 and H.265: finding them, and taking the emulation prevention out.

use memchr::memmem;

use super::bits::CodecError;
use crate::limits::PARAMETER_SET_BYTES_MAX;

/// The payload of a parameter set without its emulation prevention bytes (H.264 7.4.1). Stops at
/// `PARAMETER_SET_BYTES_MAX`: no real parameter set is that long.
pub fn rbsp(nal: &[u8]) -> Vec<u8> {
    let nal = &nal[..nal.len().min(PARAMETER_SET_BYTES_MAX)];
    let mut out = Vec::with_capacity(nal.len());
    let mut zeros = 0;
    for &byte in nal {
        if zeros >= 2 && byte == 3 {
            zeros = 0;
            continue;
        }
        zeros = if byte == 0 { zeros + 1 } else { 0 };
        out.push(byte);
    }
    out
}

/// The NAL units of an Annex B byte stream, without start codes and trailing zeros. Bytes before
/// the first start code are left out.
pub fn annex_b(data: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut starts = memmem::find_iter(data, START_CODE).map(|at| at + START_CODE.len());
    let mut next = starts.next();
    std::iter::from_fn(move || {
        let from = next?;
        next = starts.next();
        let end = next.map_or(data.len(), |next| next - START_CODE.len());
        let nal = &data[from..end.max(from)];
        let zeros = nal.iter().rev().take_while(|byte| **byte == 0).count();
        Some(&nal[..nal.len() - zeros])
    })
    .filter(|nal| !nal.is_empty())
}

/// The NAL units of a frame as FLV and MP4 carry it, each behind its length in `size` bytes (1 to
/// 4). Ends at the first length that points behind the data, which it reports.
pub fn length_prefixed(data: &[u8], size: u8) -> impl Iterator<Item = Result<&[u8], CodecError>> {
    let size = usize::from(size.clamp(1, 4));
    let mut rest = data;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let split = rest.split_at_checked(size).and_then(|(length, behind)| {
            let length = length.iter().fold(0, |sum, byte| sum << 8 | usize::from(*byte));
            behind.split_at_checked(length)
        });
        let Some((nal, behind)) = split else {
            rest = &[];
            return Some(Err(CodecError::Truncated));
        };
        rest = behind;
        Some(Ok(nal))
    })
}

const START_CODE: &[u8] = &[0, 0, 1];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn emulation_prevention_goes() {
        assert_eq!(rbsp(&[1, 0, 0, 3, 1, 0, 0, 0, 3, 0, 0, 3]), [1, 0, 0, 1, 0, 0, 0, 0, 0]);
        assert_eq!(rbsp(&[0, 3, 0, 0, 2]), [0, 3, 0, 0, 2]);
        assert_eq!(rbsp(&vec![7; 10_000]).len(), PARAMETER_SET_BYTES_MAX);
    }

    #[test]
    fn annex_b_units() {
        let data = [9, 0, 0, 1, 0x67, 1, 0, 0, 0, 1, 0x68, 2, 0, 0, 1, 0, 0, 1, 0x65, 3, 0];
        let units: Vec<&[u8]> = annex_b(&data).collect();
        assert_eq!(units, [&[0x67, 1][..], &[0x68, 2], &[0x65, 3]]);
        assert_eq!(annex_b(&[1, 2, 3]).count(), 0);
        assert_eq!(annex_b(&[0, 0, 1]).count(), 0);
    }

    #[test]
    fn length_prefixed_units() {
        let data = [0, 2, 1, 2, 0, 0, 0, 1, 3, 0, 9, 1];
        let units: Vec<_> = length_prefixed(&data, 2).collect();
        assert_eq!(units, [Ok(&[1, 2][..]), Ok(&[][..]), Ok(&[3][..]), Err(CodecError::Truncated)]);
        assert_eq!(length_prefixed(&[0xff, 0xff, 0xff, 0xff], 4).count(), 1);
    }
}

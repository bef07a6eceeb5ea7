//! Fragments: a unit of one track with its time.

use super::{boxed, full, put32, put64};

/// One unit as a fragment of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fragment<'a> {
    /// Counts fragments of the stream.
    pub sequence: u32,
    /// The track.
    pub track: u32,
    /// Decoding time in the track's timescale.
    pub dts: u64,
    /// How long it lasts. The next fragment has its own time, so an estimate does.
    pub duration: u32,
    /// How much later it is shown than decoded; may be negative.
    pub composition: i32,
    /// Decoding can start here.
    pub keyframe: bool,
    /// The unit.
    pub data: &'a [u8],
}

/// Appends a fragment.
pub fn write_fragment(out: &mut Vec<u8>, fragment: &Fragment<'_>) {
    const DEFAULT_BASE_IS_MOOF: u32 = 0x02_0000;
    const DATA_OFFSET: u32 = 0x1;
    const DURATION_SIZE_FLAGS: u32 = 0x700;
    const COMPOSITION: u32 = 0x800;
    // Depends on none, others may depend on it; or depends on others and is no place to start.
    let flags = if fragment.keyframe { 0x0200_0000 } else { 0x0101_0000 };
    let start = out.len();
    let mut offset_at = 0;
    boxed(out, b"moof", |out| {
        full(out, b"mfhd", 0, 0, |out| put32(out, fragment.sequence));
        boxed(out, b"traf", |out| {
            full(out, b"tfhd", 0, DEFAULT_BASE_IS_MOOF, |out| put32(out, fragment.track));
            full(out, b"tfdt", 1, 0, |out| put64(out, fragment.dts));
            let composed = if fragment.composition == 0 { 0 } else { COMPOSITION };
            let present = DATA_OFFSET | DURATION_SIZE_FLAGS | composed;
            full(out, b"trun", 1, present, |out| {
                put32(out, 1);
                offset_at = out.len();
                put32(out, 0);
                put32(out, fragment.duration);
                put32(out, fragment.data.len() as u32);
                put32(out, flags);
                if composed != 0 {
                    put32(out, fragment.composition.cast_unsigned());
                }
            });
        });
    });
    // The data begins behind the head of the mdat.
    let offset = (out.len() - start + 8) as u32;
    out[offset_at..offset_at + 4].copy_from_slice(&offset.to_be_bytes());
    boxed(out, b"mdat", |out| out.extend_from_slice(fragment.data));
}

/// Appends a producer reference time: at `wall_ms` (milliseconds since 1970) the unit with
/// decoding time `dts` of `track` came in. Players learn from it how late they are.
pub fn write_reference_time(out: &mut Vec<u8>, track: u32, wall_ms: i64, dts: u64) {
    // Wall clock and media keep a constant distance, nothing more is promised (8.16.5).
    const CONSISTENT: u32 = 24;
    const SECONDS_1900_TO_1970: u64 = 2_208_988_800;
    let ms = wall_ms.max(0) as u64;
    let seconds = ms / 1000 + SECONDS_1900_TO_1970;
    let fraction = ((ms % 1000) << 32) / 1000;
    full(out, b"prft", 1, CONSISTENT, |out| {
        put32(out, track);
        put64(out, seconds << 32 | fraction);
        put64(out, dts);
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fragment_points_at_its_data() {
        for composition in [0, -3_600, 7_200] {
            let fragment = Fragment {
                sequence: 7,
                track: 1,
                dts: 1 << 40,
                duration: 3_600,
                composition,
                keyframe: composition == 0,
                data: b"unit",
            };
            let mut out = b"before".to_vec();
            write_fragment(&mut out, &fragment);
            let out = &out[6..];
            let moof = u32::from_be_bytes(*out.first_chunk().unwrap()) as usize;
            assert_eq!(out[moof..], *b"\0\0\0\x0cmdatunit");
            assert_eq!(out[4..8], *b"moof");
            assert_eq!(moof, if composition == 0 { 100 } else { 104 });
            // trun: its head, the count, then the offset.
            let trun = &out[moof - if composition == 0 { 32 } else { 36 }..];
            assert_eq!(trun[4..8], *b"trun");
            assert_eq!(trun[16..20], (moof as u32 + 8).to_be_bytes());
            assert_eq!(trun[20..24], 3_600u32.to_be_bytes());
            assert_eq!(trun[28], if composition == 0 { 2 } else { 1 });
            if composition != 0 {
                assert_eq!(trun[32..36], composition.to_be_bytes());
            }
        }
    }

    #[test]
    fn reference_times_count_from_1900() {
        let mut out = Vec::new();
        write_reference_time(&mut out, 1, 1_500, 9);
        assert_eq!(out[..16], *b"\0\0\0\x20prft\x01\0\0\x18\0\0\0\x01");
        assert_eq!(out[16..20], (2_208_988_800u32 + 1).to_be_bytes());
        assert_eq!(out[20..24], [0x80, 0, 0, 0]);
        assert_eq!(out[24..], 9u64.to_be_bytes());
    }
}

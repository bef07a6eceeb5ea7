//! H.264: the decoder configuration record (ISO 14496-15 5.3.3.1) and the SPS (H.264 7.3.2.1).

use super::bits::{Bits, CodecError};
use super::colour::Colour;
use super::nal::rbsp;
use super::parameter_sets::{self, crop, read_sets, vui_head};
use super::track::{Fps, Level, side};

/// An AVCDecoderConfigurationRecord.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config<'a> {
    /// profile_idc.
    pub profile: u8,
    /// The constraint flags.
    pub constraints: u8,
    /// level_idc.
    pub level: u8,
    /// Bytes of the length before each NAL unit: 1, 2 or 4.
    pub length_size: u8,
    /// The sequence parameter sets, as NAL units.
    pub sps: Vec<&'a [u8]>,
    /// The picture parameter sets, as NAL units.
    pub pps: Vec<&'a [u8]>,
}

/// Reads an AVCDecoderConfigurationRecord.
pub fn config(data: &[u8]) -> Result<Config<'_>, CodecError> {
    let [version, profile, constraints, level, length_size, rest @ ..] = data else {
        return Err(CodecError::Truncated);
    };
    if *version != 1 {
        return Err(CodecError::Malformed("avcC version"));
    }
    let length_size = parameter_sets::length_size(*length_size)?;
    let (mut sps, mut pps) = (Vec::new(), Vec::new());
    let (&sps_count, rest) = rest.split_first().ok_or(CodecError::Truncated)?;
    let rest = read_sets(rest, u16::from(sps_count & 0x1f), &mut sps)?;
    let (&pps_count, rest) = rest.split_first().ok_or(CodecError::Truncated)?;
    read_sets(rest, u16::from(pps_count), &mut pps)?;
    let (profile, constraints, level) = (*profile, *constraints, *level);
    Ok(Config { profile, constraints, level, length_size, sps, pps })
}

/// What the server wants to know of a sequence parameter set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sps {
    /// profile_idc.
    pub profile: u8,
    /// The constraint flags.
    pub constraints: u8,
    /// level_idc.
    pub level: u8,
    /// Pixels across, after cropping.
    pub width: u32,
    /// Pixels down, after cropping.
    pub height: u32,
    /// The frame rate, if the VUI states one.
    pub fps: Option<Fps>,
    /// Chroma format: 0 is none, 1 is 4:2:0, 2 is 4:2:2, 3 is 4:4:4.
    pub chroma: u8,
    /// Bits of a luma sample.
    pub bit_depth: u8,
    /// The colours, if the VUI states them.
    pub colour: Option<Colour>,
    /// How many pictures may come before one that is shown earlier, if stated or implied.
    pub reorder: Option<u8>,
}

/// What the VUI says.
#[derive(Default)]
struct Vui {
    fps: Option<Fps>,
    colour: Option<Colour>,
    reorder: Option<u8>,
}

/// Reads a sequence parameter set: a NAL unit with its header byte.
pub fn sps(nal: &[u8]) -> Result<Sps, CodecError> {
    let (header, payload) = nal.split_first().ok_or(CodecError::Truncated)?;
    if header & 0x1f != NAL_SPS {
        return Err(CodecError::Malformed("SPS type"));
    }
    let payload = rbsp(payload);
    let mut bits = Bits::new(&payload);
    let profile = bits.bits(8)? as u8;
    let constraints = bits.bits(8)? as u8;
    let level = bits.bits(8)? as u8;
    bits.ue_max(31, "SPS id")?;
    let mut chroma_format = 1;
    let mut chroma = 1;
    let mut bit_depth = 8;
    if HIGH_PROFILES.contains(&profile) {
        chroma_format = bits.ue_max(3, "chroma format")?;
        chroma = chroma_format as u8;
        let lists = if chroma_format == 3 { 12 } else { 8 };
        if chroma_format == 3 && bits.bit()? {
            // Separate colour planes are each coded like luma.
            chroma_format = 0;
        }
        bit_depth = bits.ue_max(6, "bit depth")? as u8 + 8;
        bits.ue_max(6, "bit depth")?;
        bits.bit()?;
        if bits.bit()? {
            for list in 0..lists {
                if bits.bit()? {
                    skip_scaling_list(&mut bits, if list < 6 { 16 } else { 64 })?;
                }
            }
        }
    }
    bits.ue_max(12, "frame number size")?;
    let order_type = bits.ue_max(2, "picture order type")?;
    match order_type {
        0 => {
            bits.ue_max(12, "picture order size")?;
        }
        1 => {
            bits.bit()?;
            bits.se()?;
            bits.se()?;
            for _ in 0..bits.ue_max(255, "picture order cycle")? {
                bits.se()?;
            }
        }
        _ => {}
    }
    bits.ue()?;
    bits.bit()?;
    let width = bits.ue_max(MACROBLOCKS_MAX, "picture width")? + 1;
    let height = bits.ue_max(MACROBLOCKS_MAX, "picture height")? + 1;
    let fields = if bits.bit()? {
        1
    } else {
        bits.bit()?;
        2
    };
    bits.bit()?;
    let coded = (u64::from(width) * 16, u64::from(height) * 16 * fields);
    let (width, height) = crop(&mut bits, coded, chroma_format, fields)?;
    let mut vui = Vui::default();
    if bits.bit()? {
        // A broken VUI costs what stands behind the break only.
        let _ = read_vui(&mut bits, &mut vui);
    }
    // H.264 8.2.1.3: with this type the order of decoding is that of showing.
    let reorder = if order_type == 2 || profile == BASELINE { Some(0) } else { vui.reorder };
    Ok(Sps {
        profile,
        constraints,
        level,
        width: side(width, "picture width")?,
        height: side(height, "picture height")?,
        fps: vui.fps,
        chroma,
        bit_depth,
        colour: vui.colour,
        reorder,
    })
}

fn skip_scaling_list(bits: &mut Bits<'_>, size: usize) -> Result<(), CodecError> {
    let (mut last, mut next) = (8, 8);
    for _ in 0..size {
        if next != 0 {
            next = (last + i64::from(bits.se()?)).rem_euclid(256);
        }
        if next != 0 {
            last = next;
        }
    }
    Ok(())
}

/// H.264 E.1.1.
fn read_vui(bits: &mut Bits<'_>, vui: &mut Vui) -> Result<(), CodecError> {
    vui.colour = vui_head(bits)?;
    if bits.bit()? {
        let (units, scale) = (bits.bits(32)?, bits.bits(32)?);
        // A tick is a field here, so a frame takes two of them.
        vui.fps = Fps::from_ticks(u64::from(scale), u64::from(units) * 2);
        bits.bit()?;
    }
    let mut buffered = false;
    for _ in 0..2 {
        if bits.bit()? {
            skip_hrd(bits)?;
            buffered = true;
        }
    }
    if buffered {
        bits.bit()?;
    }
    bits.bit()?;
    if bits.bit()? {
        bits.bit()?;
        for _ in 0..4 {
            bits.ue()?;
        }
        vui.reorder = Some(bits.ue_max(16, "reorder depth")? as u8);
    }
    Ok(())
}

/// H.264 E.1.2.
fn skip_hrd(bits: &mut Bits<'_>) -> Result<(), CodecError> {
    let buffers = bits.ue_max(31, "buffers")?;
    bits.skip(8)?;
    for _ in 0..=buffers {
        bits.ue()?;
        bits.ue()?;
        bits.bit()?;
    }
    bits.skip(20)
}

/// The name of a profile.
pub fn profile_name(profile: u8, constraints: u8) -> &'static str {
    match profile {
        66 if constraints & 0x40 != 0 => "Constrained Baseline",
        66 => "Baseline",
        77 => "Main",
        88 => "Extended",
        100 => "High",
        110 => "High 10",
        122 => "High 4:2:2",
        244 => "High 4:4:4",
        44 => "CAVLC 4:4:4",
        118 => "Multiview High",
        128 => "Stereo High",
        _ => "",
    }
}

/// A level_idc as a level; 0 has none.
pub fn level(level: u8) -> Option<Level> {
    (level > 0).then_some(Level { major: level / 10, minor: level % 10 })
}

/// Whether a NAL unit of this header byte is a slice of a picture that decoding can start at.
pub fn is_keyframe_unit(header: u8) -> bool {
    header & 0x1f == NAL_IDR
}

const BASELINE: u8 = 66;
const NAL_IDR: u8 = 5;
const NAL_SPS: u8 = 7;
/// Profiles whose SPS has the chroma fields (H.264 7.3.2.1.1).
const HIGH_PROFILES: [u8; 13] = [100, 110, 122, 244, 44, 83, 86, 118, 128, 138, 139, 134, 135];
/// More macroblocks than a side may have pixels: keeps the sums small before the real check.
const MACROBLOCKS_MAX: u32 = 16_384;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::media::unhex;

    #[test]
    fn high_with_cropping_and_frame_rate() {
        let record = unhex(
            "0164001fffe100196764001facd940a02ff9701100000303e90000ea600f18319601000668ebe3cb22c0\
             fdf8f800",
        );
        let config = config(&record).unwrap();
        assert_eq!((config.profile, config.level, config.length_size), (100, 31, 4));
        assert_eq!((config.sps.len(), config.pps.len()), (1, 1));
        assert_eq!(config.pps[0], unhex("68ebe3cb22c0"));
        let sps = sps(config.sps[0]).unwrap();
        assert_eq!((sps.width, sps.height), (640, 360));
        assert_eq!(sps.fps, Some(Fps(29_970)));
        assert_eq!((sps.chroma, sps.bit_depth, sps.reorder), (1, 8, Some(2)));
        assert_eq!(profile_name(sps.profile, sps.constraints), "High");
        for end in 0..record.len() - 4 {
            assert!(super::config(&record[..end]).is_err(), "{end}");
        }
    }

    #[test]
    fn interlaced_main() {
        let sps = sps(&unhex("674d4020eca02805df97011000000300100000030321f162d960")).unwrap();
        assert_eq!((sps.width, sps.height, sps.fps), (1280, 720, Some(Fps(25_000))));
        assert_eq!(profile_name(sps.profile, sps.constraints), "Main");
    }

    #[test]
    fn high_444_without_subsampling() {
        let sps = sps(&unhex("67f4000c919b282833f1b80880000003008000000f078a14cb")).unwrap();
        assert_eq!((sps.width, sps.height, sps.fps), (320, 180, Some(Fps(15_000))));
        assert_eq!(profile_name(sps.profile, sps.constraints), "High 4:4:4");
    }

    #[test]
    fn a_cut_vui_costs_the_frame_rate_only() {
        let whole = unhex("6764001facd940a02ff9701100000303e90000ea600f183196");
        let cut = sps(&whole[..13]).unwrap();
        assert_eq!((cut.width, cut.height, cut.fps), (640, 360, None));
        assert_eq!(sps(&whole[..6]), Err(CodecError::Truncated));
    }

    #[test]
    fn absurd_sizes_are_refused() {
        // Baseline 66, level 10, then: id 0, frame number 0, order type 2, 0 references, no gaps,
        // and a width of 16,384 macroblocks.
        let mut bits = String::from("010000100000000000001010");
        bits += "1"; // SPS id
        bits += "1"; // frame number size
        bits += "011"; // order type 2
        bits += "1"; // references
        bits += "0"; // gaps
        bits += "00000000000000100000000000000"; // width: 16,383, as 14 zeros and 15 bits
        bits += "1"; // height
        bits += "1"; // frames only
        bits += "1000000000";
        let mut nal = vec![0x67];
        for byte in bits.as_bytes().chunks_exact(8) {
            nal.push(byte.iter().fold(0, |sum, bit| sum << 1 | (bit - b'0')));
        }
        assert_eq!(sps(&nal), Err(CodecError::OverLimit("picture width")));
    }
}

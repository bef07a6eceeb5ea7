//! What a muxer has to know of a track, from the byte streams of MPEG: decoder configuration
//! records are made from parameter sets and frame heads (ISO 14496-15 5.3.3.1 and 8.3.3.1).

use super::bits::CodecError;
use super::codec::{AudioCodec, VideoCodec};
use super::unit::{AudioConfig, VideoConfig};
use super::{aac, h264, h265, nal};
use crate::limits::PARAMETER_SETS_MAX;

/// NAL unit types of parameter sets, in the order of a record.
const AVC_SETS: [u8; 2] = [7, 8];
const HEVC_SETS: [u8; 3] = [32, 33, 34];

impl VideoConfig {
    /// Learns from a picture in an Annex B byte stream. `None`: a parameter set is not in it.
    ///
    /// # Errors
    /// A parameter set is broken or too long, or the codec has no such form.
    pub fn of_picture(
        codec: VideoCodec,
        picture: &[u8],
    ) -> Result<Option<VideoConfig>, CodecError> {
        let kinds: &[u8] = match codec {
            VideoCodec::H264 => &AVC_SETS,
            VideoCodec::H265 => &HEVC_SETS,
            _ => return Err(CodecError::Malformed("no byte stream of this codec")),
        };
        let mut sets: Vec<Vec<&[u8]>> = vec![Vec::new(); kinds.len()];
        for unit in nal::annex_b(picture) {
            let Some(kind) = kinds.iter().position(|kind| nal_type(codec, unit) == Some(*kind))
            else {
                continue;
            };
            if u16::try_from(unit.len()).is_err() {
                return Err(CodecError::OverLimit("parameter set"));
            }
            if !sets[kind].contains(&unit) && sets[kind].len() < SETS_OF_A_KIND_MAX {
                sets[kind].push(unit);
            }
        }
        if sets.iter().any(Vec::is_empty) {
            return Ok(None);
        }
        let record = match codec {
            VideoCodec::H264 => avc(&sets[0], &sets[1])?,
            _ => hevc(&sets)?,
        };
        VideoConfig::read(codec, &record).map(Some)
    }

    /// Appends a picture of an Annex B byte stream in the form that this configuration is of: a
    /// length before each NAL unit, and none of the parameter sets that the record has.
    pub fn put_picture(&self, out: &mut Vec<u8>, picture: &[u8]) {
        let kinds: &[u8] = if self.codec == VideoCodec::H264 { &AVC_SETS } else { &HEVC_SETS };
        for unit in nal::annex_b(picture) {
            let is_set = nal_type(self.codec, unit).is_some_and(|kind| kinds.contains(&kind));
            if is_set && nal::annex_b(&self.parameter_sets).any(|set| set == unit) {
                continue;
            }
            let len = (unit.len() as u32).to_be_bytes();
            out.extend_from_slice(&len[4 - usize::from(self.length_size.clamp(1, 4))..]);
            out.extend_from_slice(unit);
        }
    }
}

impl AudioConfig {
    /// Learns from a frame of AAC with its ADTS head; tells how long the head is, too.
    ///
    /// # Errors
    /// The head is broken, or the channels are in the stream itself, which other forms have no
    /// place for.
    pub fn of_adts(frame: &[u8]) -> Result<(AudioConfig, usize), CodecError> {
        const CHECKSUM_BYTES: usize = 2;
        let (config, _) = aac::adts(frame)?;
        let specific = config.specific().ok_or(CodecError::Malformed("channels of AAC"))?;
        let has_checksum = frame.get(1).is_some_and(|byte| byte & 1 == 0);
        let head = aac::ADTS_BYTES + if has_checksum { CHECKSUM_BYTES } else { 0 };
        Ok((AudioConfig::read(AudioCodec::Aac, &specific)?, head))
    }
}

/// What the count in an avcC has bits for.
const SETS_OF_A_KIND_MAX: usize = 31;
const _: () = assert!(SETS_OF_A_KIND_MAX * 2 <= PARAMETER_SETS_MAX);

fn nal_type(codec: VideoCodec, unit: &[u8]) -> Option<u8> {
    let first = unit.first()?;
    Some(if codec == VideoCodec::H264 { first & 0x1f } else { first >> 1 & 0x3f })
}

fn put_sets(out: &mut Vec<u8>, sets: &[&[u8]]) {
    for set in sets {
        out.extend_from_slice(&(set.len() as u16).to_be_bytes());
        out.extend_from_slice(set);
    }
}

/// An AVCDecoderConfigurationRecord with lengths of four bytes.
fn avc(sps: &[&[u8]], pps: &[&[u8]]) -> Result<Vec<u8>, CodecError> {
    /// Profiles whose records tell the form of samples.
    const TELLING: [u8; 4] = [100, 110, 122, 144];
    let first = sps.first().copied().unwrap_or_default();
    let [_, profile, constraints, level, ..] = *first else { return Err(CodecError::Truncated) };
    let mut out = vec![1, profile, constraints, level, 0xff, 0xe0 | sps.len() as u8];
    put_sets(&mut out, sps);
    out.push(pps.len() as u8);
    put_sets(&mut out, pps);
    if TELLING.contains(&profile)
        && let Ok(sps) = h264::sps(first)
    {
        let depth = 0xf8 | (sps.bit_depth - 8);
        out.extend_from_slice(&[0xfc | sps.chroma, depth, depth, 0]);
    }
    Ok(out)
}

/// An HEVCDecoderConfigurationRecord with lengths of four bytes.
fn hevc(sets: &[Vec<&[u8]>]) -> Result<Vec<u8>, CodecError> {
    /// Profile, tier, level and what they are compatible with.
    const LEVEL_BYTES: usize = 12;
    let first = sets.get(1).and_then(|sps| sps.first()).copied().unwrap_or_default();
    let payload = nal::rbsp(first.get(2..).ok_or(CodecError::Truncated)?);
    let layers = *payload.first().ok_or(CodecError::Truncated)?;
    let level = payload.get(1..1 + LEVEL_BYTES).ok_or(CodecError::Truncated)?;
    let sps = h265::sps(first)?;
    let depth = 0xf8 | sps.more.bit_depth.unwrap_or(8).saturating_sub(8) & 7;
    let mut out = [&[1][..], level].concat();
    // Nothing of segments, parallelism and frame rates.
    out.extend_from_slice(&[0xf0, 0, 0xfc, 0xfc | sps.chroma, depth, depth, 0, 0]);
    // Temporal layers, whether they are nested, and lengths of four bytes.
    out.push(((layers >> 1 & 7) + 1) << 3 | (layers & 1) << 2 | 3);
    out.push(sets.len() as u8);
    for (kind, sets) in HEVC_SETS.iter().zip(sets) {
        // All there are, unless they change.
        out.push(0x80 | kind);
        out.extend_from_slice(&(sets.len() as u16).to_be_bytes());
        put_sets(&mut out, sets);
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::media::unhex;

    #[test]
    fn records_come_back_from_what_they_hold() {
        // Records that encoders wrote, with what they hold as a byte stream.
        let main = "014d401effe1000a674d401ee8805017fcb001000468eb8f20";
        let high = "0164001fffe100196764001facd940a02ff9701100000303e90000ea600f18319601000668eb\
             e3cb22c0fdf8f800";
        for record in [main, high] {
            let config = VideoConfig::read(VideoCodec::H264, &unhex(record)).unwrap();
            let sets = &config.parameter_sets;
            let picture = [sets, &[0, 0, 1, 0x65, 0x88, 1, 2][..], &sets[..]].concat();
            let again = VideoConfig::of_picture(VideoCodec::H264, &picture).unwrap().unwrap();
            assert_eq!(again, config);
            let mut out = Vec::new();
            again.put_picture(&mut out, &picture);
            assert_eq!(out, [0, 0, 0, 4, 0x65, 0x88, 1, 2]);
            // Another set than the record's stays.
            out.clear();
            again.put_picture(&mut out, &[0, 0, 1, 0x67, 9, 9, 0, 0, 1, 0x41, 5]);
            assert_eq!(out, [0, 0, 0, 3, 0x67, 9, 9, 0, 0, 0, 2, 0x41, 5]);
        }
        let missing = VideoConfig::of_picture(VideoCodec::H264, &[0, 0, 1, 0x67, 1, 2, 3, 4]);
        assert_eq!(missing, Ok(None));
        let broken = VideoConfig::of_picture(VideoCodec::H264, &[0, 0, 1, 0x67, 0, 0, 1, 0x68, 1]);
        assert!(broken.is_err());
        let broken = [0, 0, 1, 0x40, 1, 0, 0, 1, 0x42, 1, 9, 0, 0, 1, 0x44, 1];
        assert!(VideoConfig::of_picture(VideoCodec::H265, &broken).is_err());
    }

    #[test]
    fn frames_of_aac_tell_their_configuration() {
        let frame = [0xff, 0xf1, 0x50, 0x80, 0x01, 0x7f, 0xfc, 1, 2, 3, 4];
        let (config, head) = AudioConfig::of_adts(&frame).unwrap();
        assert_eq!((config.rate_hz, config.channels, head), (44_100, 2, 7));
        assert_eq!(config, AudioConfig::read(AudioCodec::Aac, &[0x12, 0x10]).unwrap());
        let with_checksum = [0xff, 0xf0, 0x50, 0x80, 0x01, 0x7f, 0xfc, 1, 2, 3, 4];
        assert_eq!(AudioConfig::of_adts(&with_checksum).unwrap().1, 9);
        let no_channels = [0xff, 0xf1, 0x50, 0x00, 0x01, 0x7f, 0xfc, 1, 2, 3, 4];
        assert!(AudioConfig::of_adts(&no_channels).is_err());
    }
}

//! AAC: AudioSpecificConfig (ISO 14496-3 1.6.2.1) and the ADTS header (1.A.2.2).

use super::bits::{Bits, CodecError};

/// What an AudioSpecificConfig or an ADTS header says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Config {
    /// The audio object type of the core: 2 is LC.
    pub object_type: u8,
    /// Samples per second of the core.
    pub core_rate_hz: u32,
    /// Samples per second of the output: twice the core's with SBR.
    pub rate_hz: u32,
    /// Channels; 0 if the configuration does not tell.
    pub channels: u8,
    /// Spectral band replication is signalled (HE-AAC).
    pub sbr: bool,
    /// Parametric stereo is signalled (HE-AAC v2): one coded channel, two played.
    pub ps: bool,
    /// channelConfiguration of the core; 0: a program config element tells.
    pub layout: u8,
    /// Samples of the core in a frame, per channel.
    pub core_samples: u16,
}

impl Config {
    /// Samples of the output in a frame, per channel.
    pub fn frame_samples(&self) -> u32 {
        let twice = self.rate_hz == 2 * self.core_rate_hz;
        u32::from(self.core_samples) << u32::from(twice)
    }

    /// The ADTS header (ISO 14496-3 1.A.2.2) of a raw frame of `len` bytes, as players of MPEG-TS
    /// and plain AAC want it before each frame. Spectral band replication and parametric stereo are
    /// not told: decoders find them in the frame, as ADTS has it. `None` for what ADTS cannot say:
    /// other object types than the first four, rates or layouts of one's own, long frames.
    pub fn adts_header(&self, len: usize) -> Option<[u8; ADTS_BYTES]> {
        let profile = self.object_type.checked_sub(1).filter(|profile| *profile < 4)?;
        let index = RATES_HZ.iter().position(|rate| *rate == self.core_rate_hz)? as u8;
        let layout = match (self.layout, self.channels) {
            (layout @ 1..=7, _) => layout,
            (0, channels @ 1..=6) => channels,
            (0, 8) => 7,
            _ => return None,
        };
        let len = u32::try_from(len + ADTS_BYTES).ok().filter(|len| *len < 1 << 13)?;
        let [_, _, l1, l0] = (len << 5).to_be_bytes();
        Some([
            0xff,
            0xf1,
            profile << 6 | index << 2 | layout >> 2,
            layout << 6 | (len >> 11) as u8,
            l1,
            l0 | 0x1f,
            0xfc,
        ])
    }

    /// The AudioSpecificConfig of what an ADTS header says. `None` where the channels are told in
    /// the stream itself.
    pub fn specific(&self) -> Option<[u8; 2]> {
        let index = RATES_HZ.iter().position(|rate| *rate == self.core_rate_hz)? as u8;
        let layout = Some(self.layout).filter(|layout| (1..=7).contains(layout))?;
        Some([self.object_type << 3 | index >> 1, (index & 1) << 7 | layout << 3])
    }

    /// The name of the profile.
    pub fn profile_name(&self) -> &'static str {
        match self.object_type {
            _ if self.ps => "HE v2",
            _ if self.sbr => "HE",
            1 => "Main",
            2 => "LC",
            3 => "SSR",
            4 => "LTP",
            23 => "LD",
            39 => "ELD",
            42 => "xHE",
            _ => "",
        }
    }
}

/// Reads an AudioSpecificConfig: the content of an AAC sequence header.
pub fn config(data: &[u8]) -> Result<Config, CodecError> {
    let mut bits = Bits::new(data);
    let mut object_type = object_type(&mut bits)?;
    let core_rate_hz = rate(&mut bits)?;
    let layout = bits.bits(4)?;
    let mut config = Config {
        object_type,
        core_rate_hz,
        rate_hz: core_rate_hz,
        channels: channels(layout),
        sbr: object_type == TYPE_SBR || object_type == TYPE_PS,
        ps: object_type == TYPE_PS,
        layout: layout as u8,
        core_samples: 1024,
    };
    if config.sbr {
        config.rate_hz = rate(&mut bits)?;
        object_type = self::object_type(&mut bits)?;
        config.object_type = object_type;
    }
    // What follows is optional for us: a truncated tail leaves the facts above standing.
    let _ = tail(&mut bits, layout, &mut config);
    if config.ps {
        config.channels = 2;
    }
    Ok(config)
}

/// GASpecificConfig (4.4.1) for the channels of a free layout, and the extension behind it, by
/// which SBR is signalled so that old decoders do not see it.
fn tail(bits: &mut Bits<'_>, layout: u32, config: &mut Config) -> Result<(), CodecError> {
    if !matches!(config.object_type, 1..=4 | 6 | 7 | 17 | 19..=23) {
        return Ok(());
    }
    let short = bits.bit()?;
    config.core_samples = match (config.object_type, short) {
        (23, false) => 512,
        (23, true) => 480,
        (_, false) => 1024,
        (_, true) => 960,
    };
    if bits.bit()? {
        bits.skip(14)?;
    }
    let extension = bits.bit()?;
    if layout == 0 {
        config.channels = program_channels(bits)?;
    }
    if matches!(config.object_type, 6 | 20) {
        bits.skip(3)?;
    }
    if extension {
        match config.object_type {
            22 => bits.skip(16)?,
            17 | 19 | 20 | 23 => bits.skip(3)?,
            _ => {}
        }
        bits.bit()?;
    }
    if matches!(config.object_type, 17 | 19..=23) && bits.bits(2)? >= 2 {
        return Ok(());
    }
    const SYNC_SBR: u32 = 0x2b7;
    const SYNC_PS: u32 = 0x548;
    if config.sbr || bits.left() < 16 || bits.bits(11)? != SYNC_SBR {
        return Ok(());
    }
    if object_type(bits)? == TYPE_SBR && bits.bit()? {
        config.rate_hz = rate(bits)?;
        config.sbr = true;
        if bits.left() >= 12 && bits.bits(11)? == SYNC_PS {
            config.ps = bits.bit()?;
        }
    }
    Ok(())
}

/// program_config_element (4.4.1.1), as far as the channels.
fn program_channels(bits: &mut Bits<'_>) -> Result<u8, CodecError> {
    bits.skip(4 + 2 + 4)?;
    let (front, side, back) = (bits.bits(4)?, bits.bits(4)?, bits.bits(4)?);
    let lfe = bits.bits(2)?;
    let (data, coupling) = (bits.bits(3)?, bits.bits(4)?);
    for size in [4, 4, 3] {
        if bits.bit()? {
            bits.skip(size)?;
        }
    }
    let mut channels = lfe;
    for _ in 0..front + side + back {
        channels += 1 + bits.bits(1)?;
        bits.skip(4)?;
    }
    bits.skip(4 * (lfe + data) as usize + 5 * coupling as usize)?;
    bits.align();
    let comment = bits.bits(8)? as usize;
    bits.skip(8 * comment)?;
    Ok(channels as u8)
}

/// Reads an ADTS header: the configuration and the length of the frame with its header.
pub fn adts(data: &[u8]) -> Result<(Config, usize), CodecError> {
    let mut bits = Bits::new(data);
    if bits.bits(12)? != 0xfff {
        return Err(CodecError::Malformed("ADTS sync word"));
    }
    bits.skip(4)?;
    let object_type = bits.bits(2)? as u8 + 1;
    let index = bits.bits(4)? as usize;
    let rate_hz = *RATES_HZ.get(index).ok_or(CodecError::Malformed("sampling frequency"))?;
    bits.bit()?;
    let layout = bits.bits(3)?;
    let channels = channels(layout);
    bits.skip(4)?;
    let length = bits.bits(13)? as usize;
    if length < 7 {
        return Err(CodecError::Malformed("ADTS frame length"));
    }
    bits.skip(13)?;
    let config = Config {
        object_type,
        core_rate_hz: rate_hz,
        rate_hz,
        channels,
        sbr: false,
        ps: false,
        layout: layout as u8,
        core_samples: 1024,
    };
    Ok((config, length))
}

fn object_type(bits: &mut Bits<'_>) -> Result<u8, CodecError> {
    match bits.bits(5)? {
        0 => Err(CodecError::Malformed("audio object type")),
        31 => Ok(32 + bits.bits(6)? as u8),
        plain => Ok(plain as u8),
    }
}

fn rate(bits: &mut Bits<'_>) -> Result<u32, CodecError> {
    let rate_hz = match bits.bits(4)? {
        15 => bits.bits(24)?,
        index => RATES_HZ.get(index as usize).copied().unwrap_or(0),
    };
    if (1_000..=192_000).contains(&rate_hz) {
        Ok(rate_hz)
    } else {
        Err(CodecError::Malformed("sampling frequency"))
    }
}

/// ISO 14496-3 table 1.19.
fn channels(layout: u32) -> u8 {
    match layout {
        1..=6 => layout as u8,
        7 | 12 | 14 => 8,
        11 => 7,
        13 => 24,
        _ => 0,
    }
}

/// Bytes of an ADTS header without checksum.
pub const ADTS_BYTES: usize = 7;
const TYPE_SBR: u8 = 5;
const TYPE_PS: u8 = 29;
const RATES_HZ: [u32; 13] = [
    96_000, 88_200, 64_000, 48_000, 44_100, 32_000, 24_000, 22_050, 16_000, 12_000, 11_025, 8_000,
    7_350,
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_lc() {
        let config = config(&[0x12, 0x10]).unwrap();
        assert_eq!((config.object_type, config.rate_hz, config.channels), (2, 44_100, 2));
        assert_eq!(config.profile_name(), "LC");
        // The same, with the five bytes that encoders add to say "no SBR".
        let config = super::config(&[0x11, 0x90, 0x56, 0xe5, 0x00]).unwrap();
        assert_eq!((config.rate_hz, config.channels, config.sbr), (48_000, 2, false));
    }

    #[test]
    fn he_aac_both_ways() {
        // Backward compatible: 24 kHz LC, extension says SBR at 48 kHz.
        let config = config(&[0x13, 0x10, 0x56, 0xe5, 0x98]).unwrap();
        assert_eq!((config.core_rate_hz, config.rate_hz), (24_000, 48_000));
        assert_eq!(config.profile_name(), "HE");
        assert_eq!(config.frame_samples(), 2048);
        // Hierarchical: object type 29, 24 kHz, mono, 48 kHz, LC.
        let config = super::config(&[0xeb, 0x09, 0x88, 0x00]).unwrap();
        assert_eq!((config.core_rate_hz, config.rate_hz, config.channels), (24_000, 48_000, 2));
        assert_eq!(config.profile_name(), "HE v2");
    }

    #[test]
    fn broken_ones() {
        assert_eq!(config(&[]), Err(CodecError::Truncated));
        assert_eq!(config(&[0x12]), Err(CodecError::Truncated));
        assert_eq!(config(&[0x16, 0x90]), Err(CodecError::Malformed("sampling frequency")));
        assert_eq!(config(&[0x00, 0x10]), Err(CodecError::Malformed("audio object type")));
    }

    #[test]
    fn adts_headers_say_what_the_configuration_says() {
        // Stereo LC, 5.1 LC, HE-AAC, HE-AAC v2: the core is what ADTS tells of.
        for (record, rate_hz, channels) in [
            (&[0x12, 0x10][..], 44_100, 2),
            (&[0x11, 0xb0], 48_000, 6),
            (&[0x13, 0x10, 0x56, 0xe5, 0x98], 24_000, 2),
            (&[0xeb, 0x09, 0x88, 0x00], 24_000, 1),
        ] {
            let header = config(record).unwrap().adts_header(1000).unwrap();
            let (read, len) = adts(&header).unwrap();
            assert_eq!((read.object_type, read.rate_hz, read.channels), (2, rate_hz, channels));
            assert_eq!(len, 1007);
        }
        let config = config(&[0x12, 0x10]).unwrap();
        assert_eq!(config.frame_samples(), 1024);
        assert_eq!(config.adts_header(8185), None);
        // A rate that is in no table, and ELD.
        assert_eq!(super::config(&[0x17, 0x80, 0x2b, 0xf2, 0x10]).unwrap().adts_header(9), None);
        assert_eq!(super::config(&[0xf8, 0xe8, 0x50, 0x00]).unwrap().adts_header(9), None);
    }

    #[test]
    fn adts_header() {
        let (config, length) = adts(&[0xff, 0xf1, 0x50, 0x80, 0x02, 0x1f, 0xfc, 0x21]).unwrap();
        assert_eq!((config.object_type, config.rate_hz, config.channels), (2, 44_100, 2));
        assert_eq!(length, 16);
        assert!(adts(&[0xff, 0xf1, 0x50, 0x80, 0x00, 0x1f, 0xfc]).is_err());
    }
}

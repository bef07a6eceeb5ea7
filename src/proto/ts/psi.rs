//! The two tables a transport stream of one program needs: which program there is (PAT), and which
//! tracks it has (PMT). ISO 13818-1 2.4.4.

use super::{PAYLOAD_BYTES, Unfit};
use crate::media::codec::{AudioCodec, VideoCodec};
use crate::media::unit::{AudioConfig, AudioDetail, VideoConfig};
use crate::proto::mpeg::{Track, carries};

/// The packets of the program association table.
pub(super) const PID_PAT: u16 = 0;
/// The packets of the program map table.
pub const PID_PMT: u16 = 0x1000;
/// The packets of the picture track.
pub const PID_VIDEO: u16 = 0x100;
/// The packets of the audio track.
pub const PID_AUDIO: u16 = 0x101;

const TABLE_PAT: u8 = 0;
const TABLE_PMT: u8 = 2;
const PROGRAM: u16 = 1;
const TRANSPORT_STREAM: u16 = 1;

/// The payload of a PAT packet: a pointer field, the section, stuffing.
pub(super) fn pat() -> Vec<u8> {
    let mut body = PROGRAM.to_be_bytes().to_vec();
    body.extend_from_slice(&(0xe000 | PID_PMT).to_be_bytes());
    section(TABLE_PAT, TRANSPORT_STREAM, 0, &body)
}

/// The payload of a PMT packet.
///
/// # Errors
/// A track's codec cannot be carried.
pub(super) fn pmt(
    version: u8,
    video: Option<&VideoConfig>,
    audio: Option<&AudioConfig>,
) -> Result<Vec<u8>, Unfit> {
    let clock = if video.is_some() { PID_VIDEO } else { PID_AUDIO };
    let mut body = (0xe000 | clock).to_be_bytes().to_vec();
    body.extend_from_slice(&0xf000u16.to_be_bytes());
    let mut track = |stream_type: u8, pid: u16, descriptors: &[u8]| {
        body.push(stream_type);
        body.extend_from_slice(&(0xe000 | pid).to_be_bytes());
        body.extend_from_slice(&(0xf000 | descriptors.len() as u16).to_be_bytes());
        body.extend_from_slice(descriptors);
    };
    if let Some(video) = video {
        match video.codec {
            VideoCodec::H264 => track(0x1b, PID_VIDEO, &[]),
            VideoCodec::H265 => track(0x24, PID_VIDEO, &registration(b"HEVC")),
            codec => return Err(Unfit::Video(codec)),
        }
    }
    if let Some(audio) = audio {
        let unfit = Unfit::Audio(audio.codec);
        match (&audio.detail, audio.codec) {
            // What ADTS cannot say, this cannot carry: LATM is read by few players.
            (AudioDetail::Aac(config, _), _) => {
                config.adts_header(0).ok_or(unfit)?;
                track(0x0f, PID_AUDIO, &[]);
            }
            (AudioDetail::Mp3(header), _) => {
                track(if header.mpeg1 { 3 } else { 4 }, PID_AUDIO, &[]);
            }
            (AudioDetail::Ac3(_), AudioCodec::Eac3) => {
                track(0x87, PID_AUDIO, &registration(b"EAC3"));
            }
            (AudioDetail::Ac3(_), _) => track(0x81, PID_AUDIO, &registration(b"AC-3")),
            (AudioDetail::Opus(head), _) => {
                // The code is the number of channels, in the order of Vorbis.
                let code = match (head.family, head.channels) {
                    (0 | 1, channels @ 1..=8) => channels,
                    _ => return Err(unfit),
                };
                let mut descriptors = registration(b"Opus").to_vec();
                descriptors.extend_from_slice(&[0x7f, 2, 0x80, code]);
                track(0x06, PID_AUDIO, &descriptors);
            }
            (AudioDetail::Flac(_) | AudioDetail::G711, _) => return Err(unfit),
        }
    }
    Ok(section(TABLE_PMT, PROGRAM, version, &body))
}

fn registration(name: &[u8; 4]) -> [u8; 6] {
    let [a, b, c, d] = *name;
    [5, 4, a, b, c, d]
}

/// A pointer field and a section in long form that is current and the only one of its table.
pub(super) fn section(table: u8, id: u16, version: u8, body: &[u8]) -> Vec<u8> {
    let len = 5 + body.len() as u16 + 4;
    let mut out = vec![0, table];
    out.extend_from_slice(&(0xb000 | len).to_be_bytes());
    out.extend_from_slice(&id.to_be_bytes());
    out.extend_from_slice(&[0xc1 | (version & 31) << 1, 0, 0]);
    out.extend_from_slice(body);
    let check = crc32(&out[1..]);
    out.extend_from_slice(&check.to_be_bytes());
    // 2.4.4: behind a section its packet is stuffed with this, not with an adaptation field.
    out.resize(out.len().max(PAYLOAD_BYTES), 0xff);
    out
}

/// A section in the making, from the packets that carry it.
#[derive(Debug, Default)]
pub(super) struct Section {
    bytes: Vec<u8>,
    open: bool,
}

/// A section is not what it should be.
#[derive(Debug)]
pub(super) struct Broken;

impl Section {
    /// Takes the payload of a packet. `Some` when a section is whole, and whether it is right and
    /// of a form that is read: current, and of PAT or PMT.
    pub fn push(&mut self, payload: &[u8], start: bool) -> Option<Result<(), Broken>> {
        let mut payload = payload;
        if start {
            let (pointer, rest) = payload.split_first()?;
            let Some(rest) = rest.get(usize::from(*pointer)..) else {
                self.open = false;
                return Some(Err(Broken));
            };
            self.bytes.clear();
            (self.open, payload) = (true, rest);
        }
        if !self.open {
            return None;
        }
        // By what comes, and no more than a section can have (2.4.4.5).
        let room = SECTION_BYTES_MAX.saturating_sub(self.bytes.len());
        self.bytes.extend_from_slice(&payload[..payload.len().min(room)]);
        let [table, high, low, ..] = *self.bytes else { return None };
        let len = 3 + usize::from(u16::from_be_bytes([high & 0x0f, low]));
        if len > SECTION_BYTES_MAX || high & 0x80 == 0 {
            self.open = false;
            return Some(Err(Broken));
        }
        if self.bytes.len() < len {
            return None;
        }
        self.open = false;
        self.bytes.truncate(len);
        let known = matches!(table, TABLE_PAT | TABLE_PMT);
        let right = known && len >= SECTION_HEAD + 4 && crc32(&self.bytes) == 0;
        // What is not in force yet, or a part of a longer table, is waited for.
        let current = self.bytes.get(5).is_some_and(|flags| flags & 1 == 1);
        match (right, current) {
            (true, true) => Some(Ok(())),
            (true, false) => None,
            (false, _) => Some(Err(Broken)),
        }
    }

    /// What is between the head and the checksum of the last section that was whole.
    pub fn body(&self) -> &[u8] {
        let end = self.bytes.len().saturating_sub(4);
        self.bytes.get(SECTION_HEAD..end).unwrap_or_default()
    }
}

/// Bytes of a section of PAT and PMT, and of its head.
const SECTION_BYTES_MAX: usize = 1024;
const SECTION_HEAD: usize = 8;

/// The packets of the first program's map.
pub(super) fn first_program(body: &[u8]) -> Option<u16> {
    body.chunks_exact(4).find_map(|entry| {
        let [n1, n0, p1, p0] = *entry else { return None };
        // Program 0 is the network's.
        ((n1, n0) != (0, 0)).then(|| u16::from_be_bytes([p1 & 0x1f, p0]))
    })
}

/// The packets of the clock, and the tracks. `None`: a length does not fit.
pub(super) fn read_pmt(body: &[u8]) -> Option<(u16, Vec<Track>)> {
    let [c1, c0, l1, l0, ref rest @ ..] = *body else { return None };
    let clock = u16::from_be_bytes([c1 & 0x1f, c0]);
    let mut rest = rest.get(usize::from(u16::from_be_bytes([l1 & 0x0f, l0]))..)?;
    let mut tracks = Vec::new();
    while let [kind, p1, p0, l1, l0, ref more @ ..] = *rest {
        let len = usize::from(u16::from_be_bytes([l1 & 0x0f, l0]));
        let (descriptors, next) = more.split_at_checked(len)?;
        let (carries, channels) = carries(kind, descriptors);
        tracks.push(Track { id: u16::from_be_bytes([p1 & 0x1f, p0]), carries, channels });
        rest = next;
    }
    rest.is_empty().then_some((clock, tracks))
}

/// The checksum of annex A: polynomial 0x04c11db7, most significant bit first.
fn crc32(data: &[u8]) -> u32 {
    let mut crc = u32::MAX;
    for byte in data {
        crc ^= u32::from(*byte) << 24;
        for _ in 0..8 {
            crc = crc << 1 ^ if crc >> 31 == 1 { 0x04c1_1db7 } else { 0 };
        }
    }
    crc
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_of_a_section_with_its_checksum_is_zero() {
        assert_eq!(crc32(b"123456789"), 0x0376_e6e7);
        let pat = pat();
        assert_eq!((pat.len(), pat[3]), (PAYLOAD_BYTES, 13));
        assert_eq!(crc32(&pat[1..4 + 13]), 0);
    }

    #[test]
    fn tables_name_the_tracks() {
        let video = VideoConfig::without_record(VideoCodec::Vp9).unwrap();
        assert_eq!(pmt(0, Some(&video), None), Err(Unfit::Video(VideoCodec::Vp9)));
        let video = VideoConfig { codec: VideoCodec::H264, ..video };
        let audio = AudioConfig::read(AudioCodec::Aac, &[0x12, 0x10]).unwrap();
        let table = pmt(3, Some(&video), Some(&audio)).unwrap();
        assert_eq!(table[6], 0xc1 | 3 << 1);
        assert_eq!(table[9..11], [0xe1, 0x00]);
        assert_eq!(table[13..18], [0x1b, 0xe1, 0x00, 0xf0, 0]);
        assert_eq!(table[18..23], [0x0f, 0xe1, 0x01, 0xf0, 0]);
        let opus = b"OpusHead\x01\x02\x38\x01\x80\xbb\x00\x00\x00\x00\x00";
        let opus = AudioConfig::read(AudioCodec::Opus, opus).unwrap();
        let table = pmt(0, None, Some(&opus)).unwrap();
        assert_eq!(table[9..11], [0xe1, 0x01]);
        assert_eq!(table[18..28], *b"\x05\x04Opus\x7f\x02\x80\x02");
    }
}

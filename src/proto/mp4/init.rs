//! The initialisation segment: which tracks there are and what a decoder needs for each.

use super::{boxed, full, put16, put32, put64};
use crate::media::ac3;
use crate::media::codec::{AudioCodec, VideoCodec};
use crate::media::colour::Colour;
use crate::media::opus::OpusHead;
use crate::media::unit::{AudioConfig, AudioDetail, VideoConfig};

/// The picture track.
pub const TRACK_VIDEO: u32 = 1;
/// The audio track. Its timescale is its sample rate.
pub const TRACK_AUDIO: u32 = 2;
/// Ticks per second of the picture track.
pub const VIDEO_TIMESCALE: u32 = 90_000;

/// A picture track with the size that is known of it by now.
type Video<'a> = (&'a VideoConfig, (u32, u32));

/// Appends `ftyp` and `moov`.
pub fn write_init(out: &mut Vec<u8>, video: Option<Video<'_>>, audio: Option<&AudioConfig>) {
    boxed(out, b"ftyp", |out| {
        out.extend_from_slice(b"iso6\0\0\0\x01iso6cmfcmp41");
    });
    boxed(out, b"moov", |out| {
        full(out, b"mvhd", 0, 0, |out| {
            // Created, modified: not told. Timescale; the duration is that of the fragments.
            [0, 0, 1000, 0].into_iter().for_each(|value| put32(out, value));
            put32(out, 0x0001_0000);
            put16(out, 0x0100);
            out.extend_from_slice(&[0; 10]);
            matrix(out);
            out.extend_from_slice(&[0; 24]);
            put32(out, TRACK_AUDIO + 1);
        });
        if let Some((config, size)) = video {
            track(out, TRACK_VIDEO, VIDEO_TIMESCALE, Some(size), |out| {
                video_entry(out, config, size);
            });
        }
        if let Some(config) = audio {
            track(out, TRACK_AUDIO, config.rate_hz, None, |out| audio_entry(out, config));
        }
        boxed(out, b"mvex", |out| {
            let tracks = [video.map(|_| TRACK_VIDEO), audio.map(|_| TRACK_AUDIO)];
            for id in tracks.into_iter().flatten() {
                full(out, b"trex", 0, 0, |out| {
                    [id, 1, 0, 0, 0].into_iter().for_each(|value| put32(out, value));
                });
            }
        });
    });
}

fn matrix(out: &mut Vec<u8>) {
    let unity = [0x0001_0000, 0, 0, 0, 0x0001_0000, 0, 0, 0, 0x4000_0000];
    unity.into_iter().for_each(|value| put32(out, value));
}

/// A `trak`. `size`: it shows pictures of this size.
fn track(
    out: &mut Vec<u8>,
    id: u32,
    timescale: u32,
    size: Option<(u32, u32)>,
    entry: impl FnOnce(&mut Vec<u8>),
) {
    const ENABLED_IN_MOVIE: u32 = 3;
    boxed(out, b"trak", |out| {
        full(out, b"tkhd", 0, ENABLED_IN_MOVIE, |out| {
            [0, 0, id, 0, 0, 0, 0].into_iter().for_each(|value| put32(out, value));
            put32(out, 0);
            put16(out, if size.is_some() { 0 } else { 0x0100 });
            put16(out, 0);
            matrix(out);
            // 16.16 fixed point.
            let (width, height) = size.unwrap_or_default();
            put32(out, width << 16);
            put32(out, height << 16);
        });
        // No edit list: the times of a live stream are those of presentation already, also for
        // codecs whose decoders have to be run in.
        boxed(out, b"mdia", |out| {
            full(out, b"mdhd", 0, 0, |out| {
                [0, 0, timescale, 0].into_iter().for_each(|value| put32(out, value));
                // "und", five bits a letter.
                put16(out, 0x55c4);
                put16(out, 0);
            });
            full(out, b"hdlr", 0, 0, |out| {
                put32(out, 0);
                out.extend_from_slice(if size.is_some() { b"vide" } else { b"soun" });
                out.extend_from_slice(&[0; 12]);
                out.push(0);
            });
            boxed(out, b"minf", |out| {
                if size.is_some() {
                    full(out, b"vmhd", 0, 1, |out| put64(out, 0));
                } else {
                    full(out, b"smhd", 0, 0, |out| put32(out, 0));
                }
                boxed(out, b"dinf", |out| {
                    full(out, b"dref", 0, 0, |out| {
                        put32(out, 1);
                        // The data is in this file.
                        full(out, b"url ", 0, 1, |_| {});
                    });
                });
                boxed(out, b"stbl", |out| {
                    full(out, b"stsd", 0, 0, |out| {
                        put32(out, 1);
                        entry(out);
                    });
                    for name in [b"stts", b"stsc", b"stco"] {
                        full(out, name, 0, 0, |out| put32(out, 0));
                    }
                    full(out, b"stsz", 0, 0, |out| put64(out, 0));
                });
            });
        });
    });
}

fn video_entry(out: &mut Vec<u8>, config: &VideoConfig, (width, height): (u32, u32)) {
    let (name, record): (&[u8; 4], &[u8; 4]) = match config.codec {
        VideoCodec::H264 => (b"avc1", b"avcC"),
        VideoCodec::H265 => (b"hvc1", b"hvcC"),
        VideoCodec::Av1 => (b"av01", b"av1C"),
        VideoCodec::Vp9 => (b"vp09", b"vpcC"),
        VideoCodec::Vp8 => (b"vp08", b"vpcC"),
    };
    boxed(out, name, |out| {
        entry_head(out);
        out.extend_from_slice(&[0; 16]);
        put16(out, width.min(0xffff) as u16);
        put16(out, height.min(0xffff) as u16);
        // 72 dots per inch both ways, one frame per sample.
        put32(out, 0x0048_0000);
        put32(out, 0x0048_0000);
        put32(out, 0);
        put16(out, 1);
        out.extend_from_slice(&[0; 32]);
        put16(out, 0x0018);
        put16(out, 0xffff);
        match config.codec {
            VideoCodec::Vp8 | VideoCodec::Vp9 => {
                full(out, record, 1, 0, |out| out.extend_from_slice(&config.record));
            }
            _ => boxed(out, record, |out| out.extend_from_slice(&config.record)),
        }
        if let Some(colour) = config.colour.filter(|colour| *colour != Colour::UNSPECIFIED) {
            boxed(out, b"colr", |out| {
                out.extend_from_slice(b"nclx");
                put16(out, u16::from(colour.primaries));
                put16(out, u16::from(colour.transfer));
                put16(out, u16::from(colour.matrix));
                out.push(u8::from(colour.full_range) << 7);
            });
        }
        boxed(out, b"pasp", |out| put64(out, 1 << 32 | 1));
    });
}

fn audio_entry(out: &mut Vec<u8>, config: &AudioConfig) {
    let (name, bits) = match (&config.detail, config.codec) {
        (AudioDetail::Aac(..) | AudioDetail::Mp3(_), _) => (b"mp4a", 16),
        (AudioDetail::Opus(_), _) => (b"Opus", 16),
        (AudioDetail::Flac(info), _) => (b"fLaC", u16::from(info.sample_bits)),
        (AudioDetail::Ac3(_), AudioCodec::Eac3) => (b"ec-3", 16),
        (AudioDetail::Ac3(_), _) => (b"ac-3", 16),
        (AudioDetail::G711, AudioCodec::G711A) => (b"alaw", 16),
        (AudioDetail::G711, _) => (b"ulaw", 16),
    };
    boxed(out, name, |out| {
        entry_head(out);
        put64(out, 0);
        put16(out, u16::from(config.channels));
        put16(out, bits);
        put32(out, 0);
        // 16.16 fixed point has no room for more; then the codec's own box tells.
        put32(out, u32::from(u16::try_from(config.rate_hz).unwrap_or_default()) << 16);
        match &config.detail {
            AudioDetail::Aac(_, record) => elementary(out, OBJECT_MPEG4, record),
            AudioDetail::Mp3(header) if header.mpeg1 => elementary(out, OBJECT_MPEG1, &[]),
            AudioDetail::Mp3(_) => elementary(out, OBJECT_MPEG2, &[]),
            AudioDetail::Opus(head) => opus(out, head),
            AudioDetail::Flac(info) => full(out, b"dfLa", 0, 0, |out| {
                // One metadata block, the last: STREAMINFO.
                out.extend_from_slice(&[0x80, 0, 0, info.block.len() as u8]);
                out.extend_from_slice(&info.block);
            }),
            AudioDetail::Ac3(frame) if config.codec == AudioCodec::Eac3 => eac3(out, frame),
            AudioDetail::Ac3(frame) => ac3(out, frame),
            AudioDetail::G711 => {}
        }
    });
}

/// The start of every sample entry: reserved bytes and the one data reference.
fn entry_head(out: &mut Vec<u8>) {
    out.extend_from_slice(&[0, 0, 0, 0, 0, 0, 0, 1]);
}

/// Object types (ISO 14496-1 7.2.6.6): MPEG-4 audio, MPEG-2 audio, MPEG-1 audio.
const OBJECT_MPEG4: u8 = 0x40;
const OBJECT_MPEG2: u8 = 0x69;
const OBJECT_MPEG1: u8 = 0x6b;

/// An `esds`: descriptors within descriptors (ISO 14496-1 7.2.6).
fn elementary(out: &mut Vec<u8>, object_type: u8, specific: &[u8]) {
    const ES: u8 = 3;
    const DECODER: u8 = 4;
    const SPECIFIC: u8 = 5;
    const SYNC: u8 = 6;
    // A descriptor's head: its tag and its length in four bytes of seven bits.
    const HEAD: usize = 5;
    let head = |out: &mut Vec<u8>, tag: u8, len: usize| {
        out.push(tag);
        for shift in [21, 14, 7, 0] {
            let more = if shift > 0 { 0x80 } else { 0 };
            out.push((len >> shift & 0x7f) as u8 | more);
        }
    };
    let specific_len = if specific.is_empty() { 0 } else { HEAD + specific.len() };
    let decoder_len = 13 + specific_len;
    full(out, b"esds", 0, 0, |out| {
        head(out, ES, 3 + HEAD + decoder_len + HEAD + 1);
        // The id is 0 in files, and there are no options.
        out.extend_from_slice(&[0, 0, 0]);
        head(out, DECODER, decoder_len);
        // An audio stream; buffer and bit rates are not told.
        out.extend_from_slice(&[object_type, 0x15, 0, 0, 0]);
        put64(out, 0);
        if !specific.is_empty() {
            head(out, SPECIFIC, specific.len());
            out.extend_from_slice(specific);
        }
        head(out, SYNC, 1);
        out.push(2);
    });
}

/// A `dOps` (Opus in ISOBMFF 4.3.2): what the identification header says, the other way round.
fn opus(out: &mut Vec<u8>, head: &OpusHead) {
    boxed(out, b"dOps", |out| {
        out.extend_from_slice(&[0, head.channels]);
        put16(out, head.pre_skip);
        put32(out, head.input_rate_hz);
        out.extend_from_slice(&head.gain.to_be_bytes());
        out.push(head.family);
        out.extend_from_slice(&head.mapping[..head.mapping_len]);
    });
}

/// A `dac3` (ETSI TS 102 366 F.4).
fn ac3(out: &mut Vec<u8>, frame: &ac3::Frame) {
    let bits = u32::from(frame.rate_code & 3) << 22
        | u32::from(frame.bsid & 31) << 17
        | u32::from(frame.bsmod & 7) << 14
        | u32::from(frame.acmod & 7) << 11
        | u32::from(frame.lfe) << 10
        | u32::from(frame.bit_rate_code & 31) << 5;
    boxed(out, b"dac3", |out| out.extend_from_slice(&bits.to_be_bytes()[1..]));
}

/// A `dec3` (ETSI TS 102 366 F.6) of one independent substream.
fn eac3(out: &mut Vec<u8>, frame: &ac3::Frame) {
    boxed(out, b"dec3", |out| {
        put16(out, (frame.kbps().min(0x1fff) as u16) << 3);
        let bits = u32::from(frame.rate_code & 3) << 22
            | u32::from(frame.bsid & 31) << 17
            | u32::from(frame.bsmod & 7) << 12
            | u32::from(frame.acmod & 7) << 9
            | u32::from(frame.lfe) << 8;
        out.extend_from_slice(&bits.to_be_bytes()[1..]);
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::media::unhex;

    /// Paths of all boxes, and that every size fits.
    fn paths(bytes: &[u8], prefix: &str, found: &mut Vec<String>) {
        let mut rest = bytes;
        while !rest.is_empty() {
            let len = u32::from_be_bytes(*rest.first_chunk().expect("a size")) as usize;
            let name = std::str::from_utf8(&rest[4..8]).expect("a name");
            let path = format!("{prefix}/{name}");
            let body = &rest[8..len];
            let inner = match name {
                "moov" | "trak" | "mdia" | "minf" | "stbl" | "dinf" | "mvex" => Some(body),
                "stsd" | "dref" => Some(&body[8..]),
                "avc1" | "hvc1" | "av01" | "vp09" => Some(&body[78..]),
                "mp4a" | "Opus" | "fLaC" | "ac-3" | "ec-3" => Some(&body[28..]),
                _ => None,
            };
            found.push(path.clone());
            if let Some(inner) = inner {
                paths(inner, &path, found);
            }
            rest = &rest[len..];
        }
    }

    fn init(video: Option<&VideoConfig>, audio: Option<&AudioConfig>) -> (Vec<u8>, Vec<String>) {
        let mut out = Vec::new();
        write_init(&mut out, video.map(|video| (video, (640, 360))), audio);
        let mut found = Vec::new();
        paths(&out, "", &mut found);
        (out, found)
    }

    fn has(found: &[String], name: &str) -> bool {
        found.iter().any(|path| path.ends_with(name))
    }

    fn content<'a>(bytes: &'a [u8], name: &[u8]) -> &'a [u8] {
        let at = bytes.windows(name.len()).position(|window| window == name).expect("the box");
        let len = u32::from_be_bytes(*bytes[at - 4..].first_chunk().unwrap()) as usize;
        &bytes[at + 4..at - 4 + len]
    }

    #[test]
    fn pictures_and_sound() {
        let record = unhex("014d401effe1000a674d401ee8805017fcb001000468eb8f20");
        let video = VideoConfig::read(VideoCodec::H264, &record).unwrap();
        let audio = AudioConfig::read(AudioCodec::Aac, &[0x11, 0x90]).unwrap();
        let (bytes, found) = init(Some(&video), Some(&audio));
        assert!(has(&found, "/moov/trak/mdia/minf/stbl/stsd/avc1/avcC"));
        assert!(has(&found, "/moov/trak/mdia/minf/stbl/stsd/mp4a/esds"));
        assert_eq!(found.iter().filter(|path| path.ends_with("/trex")).count(), 2);
        assert_eq!(content(&bytes, b"avcC"), record);
        assert_eq!(content(&bytes, b"tkhd").len(), 84);
        assert!(content(&bytes, b"tkhd").ends_with(&[2, 128, 0, 0, 1, 104, 0, 0]));
        let descriptors = unhex(
            "00000000 0380808022 000000 0480808014 40 15000000 0000000000000000 0580808002 1190
             0680808001 02",
        );
        assert_eq!(content(&bytes, b"esds"), descriptors);
    }

    #[test]
    fn every_codec_has_its_box() {
        let video = |codec, record: &str| VideoConfig::read(codec, &unhex(record)).unwrap();
        let av1 = video(VideoCodec::Av1, "81010c000a0b0000000cc4ff6700be0010");
        assert!(has(&init(Some(&av1), None).1, "/av01/av1C"));
        let vp9 = video(VideoCodec::Vp9, "010000000015820101010000");
        let (bytes, found) = init(Some(&vp9), None);
        assert!(has(&found, "/vp09/vpcC") && has(&found, "/vp09/colr"));
        assert_eq!(content(&bytes, b"vpcC"), unhex("01000000 0015820101010000"));
        assert_eq!(content(&bytes, b"colr"), *b"nclx\0\x01\0\x01\0\x01\0");

        let opus = b"OpusHead\x01\x02\x38\x01\x80\xbb\x00\x00\x00\x00\x00";
        let opus = AudioConfig::read(AudioCodec::Opus, opus).unwrap();
        let (bytes, _) = init(None, Some(&opus));
        assert_eq!(content(&bytes, b"dOps"), unhex("00 02 0138 0000bb80 0000 00"));
        let mut info = vec![0x10, 0, 0x10, 0, 0, 0, 0, 0, 0, 0, 0x0a, 0xc4, 0x42, 0xf0];
        info.extend([0; 20]);
        let flac = AudioConfig::read(AudioCodec::Flac, &info).unwrap();
        let (bytes, _) = init(None, Some(&flac));
        assert_eq!(content(&bytes, b"dfLa")[4..], [&[0x80, 0, 0, 34][..], &info].concat());
        // 48 kHz, bsid 8, 3/2 with LFE, 448 kbit/s.
        let frame = [0x0b, 0x77, 1, 2, 0x1e, 0x40, 0xe1, 0];
        let ac3 = AudioConfig::of_frame(AudioCodec::Ac3, &frame).unwrap().unwrap();
        let (bytes, _) = init(None, Some(&ac3));
        assert_eq!(content(&bytes, b"dac3"), unhex("103de0"));
        let frame = [0x0b, 0x77, 0, 0xff, 0x34, 0x87];
        let eac3 = AudioConfig::of_frame(AudioCodec::Eac3, &frame).unwrap().unwrap();
        let (bytes, found) = init(None, Some(&eac3));
        assert!(has(&found, "/ec-3/dec3"));
        assert_eq!(content(&bytes, b"dec3"), unhex("0400 200400"));
        let mp3 = AudioConfig::of_frame(AudioCodec::Mp3, &[0xff, 0xf3, 0x84, 0xc4]);
        let (bytes, _) = init(None, mp3.unwrap().as_ref());
        assert_eq!(content(&bytes, b"esds")[17], 0x69);
    }
}

//! What a stream carries that no map tells of, from how it begins.

use memchr::memmem;

use crate::media::codec::{AudioCodec, VideoCodec};
use crate::proto::mpeg::{Carries, frames};

/// Stream types of ISO 13818-1 table 2-34.
const MPEG2_VIDEO: u8 = 0x02;
const MPEG4_VIDEO: u8 = 0x10;

/// What these first bytes of a stream are. `None`: they do not tell yet.
pub(super) fn guess(is_video: bool, data: &[u8]) -> Option<Carries> {
    if is_video {
        return memmem::find_iter(data, &[0, 0, 1]).find_map(|at| video(data.get(at + 3..at + 5)?));
    }
    (0..data.len()).find_map(|at| audio(data, at)).map(Carries::Audio)
}

/// By a start code that only one of them has.
fn video(head: &[u8]) -> Option<Carries> {
    let [b0, b1] = *head else { return None };
    match (b0, b1) {
        // A sequence header.
        (0xb3, _) => Some(Carries::Other(MPEG2_VIDEO)),
        (0xb0, _) => Some(Carries::Other(MPEG4_VIDEO)),
        // VPS, SPS, PPS, delimiter, IDR and CRA: what they would be in H.264 is not used, or may
        // not be referred to as these say.
        (0x40 | 0x42 | 0x44 | 0x46 | 0x26 | 0x28 | 0x2a, 0x01) => {
            Some(Carries::Video(VideoCodec::H265))
        }
        // A delimiter, and an SPS, which is always referred to.
        (0x09, _) | (0x27 | 0x47 | 0x67, _) => Some(Carries::Video(VideoCodec::H264)),
        _ => None,
    }
}

/// By a frame that begins here, where the next one begins behind it or the data ends.
fn audio(data: &[u8], at: usize) -> Option<AudioCodec> {
    // AAC's head is none of MPEG audio, whose layer it says to be 0.
    [AudioCodec::Mp3, AudioCodec::Aac].into_iter().find(|codec| {
        let next = |at: usize| data.get(at..).and_then(|data| frames::frame_bytes(*codec, data));
        let Some(len) = next(at) else { return false };
        let alone = at == 0 && len == data.len();
        alone || next(at + len).is_some()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn by_what_only_one_has() {
        let video = |head: &[u8]| guess(true, &[&[7, 0, 0, 1][..], head, &[9; 9]].concat());
        assert_eq!(video(&[0x67, 0x42]), Some(Carries::Video(VideoCodec::H264)));
        assert_eq!(video(&[0x09, 0xf0]), Some(Carries::Video(VideoCodec::H264)));
        assert_eq!(video(&[0x40, 0x01]), Some(Carries::Video(VideoCodec::H265)));
        assert_eq!(video(&[0xb3, 0x14]), Some(Carries::Other(2)));
        assert_eq!(video(&[0xb0, 0x14]), Some(Carries::Other(0x10)));
        // A slice of either, and of MPEG-2.
        for head in [[0x41, 0x9a], [0x02, 0x01], [0x01, 0x22]] {
            assert_eq!(video(&head), None);
        }
        assert_eq!(guess(true, &[0, 0, 1, 0x67]), None);
        let adts = [0xff, 0xf1, 0x50, 0x80, 0x01, 0x7f, 0xfc, 1, 2, 3, 4];
        let mp3 = [&[0xff, 0xfb, 0x90, 0x64][..], &[0; 413]].concat();
        let audio = |data: &[u8]| guess(false, data);
        assert_eq!(audio(&adts), Some(Carries::Audio(AudioCodec::Aac)));
        assert_eq!(
            audio(&[&[5, 6], &adts[..], &adts].concat()),
            Some(Carries::Audio(AudioCodec::Aac))
        );
        assert_eq!(audio(&mp3), Some(Carries::Audio(AudioCodec::Mp3)));
        assert_eq!(audio(&[&mp3[9..], &mp3, &mp3].concat()), Some(Carries::Audio(AudioCodec::Mp3)));
        for data in [&[0xd5; 400][..], &[0xff; 400], &[], &adts[..9], &mp3[..200]] {
            assert_eq!(audio(data), None);
        }
    }
}

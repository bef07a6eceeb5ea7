//! What is in the payload of a PES packet: audio frames, and whether pictures are keyframes.

use crate::limits;
use crate::media::codec::{AudioCodec, VideoCodec};
use crate::media::unit::TICKS_HZ;
use crate::media::{aac, h264, h265, mp3, nal, opus};

/// True when decoding can start at this picture.
pub fn is_keyframe(codec: VideoCodec, data: &[u8]) -> bool {
    nal::annex_b(data).filter_map(|nal| nal.first()).any(|first| match codec {
        VideoCodec::H264 => h264::is_keyframe_unit(*first),
        VideoCodec::H265 => h265::is_keyframe_unit(*first),
        _ => false,
    })
}

/// What one frame is: the bytes before it, its own, how long it is heard in ticks.
struct Frame {
    skip: usize,
    len: usize,
    ticks: i64,
}

/// Tells the frames of a payload, which may begin and end inside of one: `rest` is what was left of
/// the payload before. Times count on from the payload's. False: something was no frame, and was
/// passed over.
pub fn split(
    codec: AudioCodec,
    rest: &mut Vec<u8>,
    rest_pts: &mut Option<i64>,
    data: &[u8],
    pts: Option<i64>,
    tell: &mut dyn FnMut(Option<i64>, &[u8]),
) -> bool {
    let read: fn(&[u8]) -> Option<Frame> = match codec {
        AudioCodec::Aac => adts_frame,
        AudioCodec::Mp3 => mp3_frame,
        AudioCodec::Opus => opus_frame,
        // Others are passed on as they came.
        _ => {
            tell(pts, data);
            return true;
        }
    };
    let (mut good, mut lost, mut here) = (true, false, false);
    let carried = rest.len();
    let mut now = *rest_pts;
    rest.extend_from_slice(data);
    let mut at = 0;
    while at < rest.len() {
        match read(&rest[at..]) {
            Some(frame) if frame.skip + frame.len <= rest.len() - at => {
                // 2.4.3.7: the time is that of the first frame that begins in this payload.
                if at >= carried && !std::mem::replace(&mut here, true) {
                    now = pts.or(now);
                }
                let begin = at + frame.skip;
                tell(now, &rest[begin..begin + frame.len]);
                at = begin + frame.len;
                now = now.map(|now| now + frame.ticks);
                lost = false;
            }
            // It goes on in the next payload. Frames have a greatest length, so this has.
            Some(_) if rest.len() - at < limits::PES_AUDIO_FRAME_MAX => break,
            None if rest.len() - at < HEAD_BYTES && codec != AudioCodec::Opus => break,
            _ => {
                good &= lost;
                lost = true;
                at += 1;
            }
        }
    }
    // A frame that begins here and ends elsewhere has this payload's time.
    *rest_pts = if at >= carried && !here { pts.or(now) } else { now };
    rest.drain(..at.min(rest.len()));
    if codec == AudioCodec::Opus && !rest.is_empty() {
        // Its packets do not go on elsewhere.
        rest.clear();
        return false;
    }
    good
}

/// Bytes of the frame of AAC or MP3 that begins here. `None`: none does.
pub fn frame_bytes(codec: AudioCodec, data: &[u8]) -> Option<usize> {
    let frame = match codec {
        AudioCodec::Aac => adts_frame(data)?,
        AudioCodec::Mp3 => mp3_frame(data)?,
        _ => return None,
    };
    Some(frame.len)
}

/// Bytes after which a head that cannot be read is none.
const HEAD_BYTES: usize = 7;

fn adts_frame(data: &[u8]) -> Option<Frame> {
    let (config, len) = aac::adts(data).ok()?;
    let ticks = 1024 * TICKS_HZ / i64::from(config.core_rate_hz.max(1));
    Some(Frame { skip: 0, len, ticks })
}

fn mp3_frame(data: &[u8]) -> Option<Frame> {
    let header = mp3::header(data).ok()?;
    let ticks = i64::from(header.samples) * TICKS_HZ / i64::from(header.rate_hz.max(1));
    Some(Frame { skip: 0, len: header.frame_bytes.filter(|len| *len >= 4)?, ticks })
}

/// A control header: a prefix of 11 bits, which fields follow, the length in steps of 255.
fn opus_frame(data: &[u8]) -> Option<Frame> {
    let [0x7f, flags, ref rest @ ..] = *data else { return None };
    if flags & 0xe0 != 0xe0 {
        return None;
    }
    let (mut skip, mut len) = (2, 0);
    for byte in rest {
        skip += 1;
        len += usize::from(*byte);
        if *byte != 255 {
            break;
        }
        if len > limits::PES_AUDIO_FRAME_MAX {
            return None;
        }
    }
    // Trimming at the start, at the end, and an extension with its length.
    skip += if flags & 0x10 != 0 { 2 } else { 0 } + if flags & 0x08 != 0 { 2 } else { 0 };
    if flags & 0x04 != 0 {
        skip += 1 + usize::from(*data.get(skip)?);
    }
    let samples = data.get(skip..).and_then(|packet| opus::opus_samples(packet).ok());
    let ticks = i64::from(samples.unwrap_or(960)) * TICKS_HZ / 48_000;
    Some(Frame { skip, len, ticks })
}

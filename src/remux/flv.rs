//! Messages as FLV tags (FLV 10.1, annex E.4), framed for the transport that carries them.

use uring::ArenaFull;

use crate::hub::{Container, FeedWriter, Flags, Format};
use crate::proto::flv::{self, Framing};

use super::rtmp::wire_time;
use super::wrap;

/// The framing of a format; `None` for formats that are not FLV.
pub fn framing(format: Format) -> Option<Framing> {
    (format.container() == Container::Flv).then(|| wrap::framing(format)).flatten()
}

/// Appends a message to a feed as one framed tag.
///
/// # Errors
/// The media memory is used up.
pub fn append(
    writer: &mut FeedWriter,
    framing: Framing,
    flags: Flags,
    time: i64,
    payload: &[u8],
) -> Result<(), ArenaFull> {
    let mut head = [0; HEAD_MAX];
    let head_len = head_of(framing, flags, time, payload.len(), &mut head);
    let size = flv::previous_tag_size(payload.len() as u32);
    writer.append(&[&head[..head_len], payload, &size, framing.suffix()], flags, time)
}

/// Writes a message to a buffer, in the same form.
pub fn write(out: &mut Vec<u8>, framing: Framing, flags: Flags, time: i64, payload: &[u8]) {
    let mut head = [0; HEAD_MAX];
    let head_len = head_of(framing, flags, time, payload.len(), &mut head);
    out.extend_from_slice(&head[..head_len]);
    out.extend_from_slice(payload);
    out.extend_from_slice(&flv::previous_tag_size(payload.len() as u32));
    out.extend_from_slice(framing.suffix());
}

/// Writes the FLV file header, framed.
pub fn write_file_header(out: &mut Vec<u8>, framing: Framing, audio: bool, video: bool) {
    let header = flv::file_header(audio, video);
    let mut head = [0; FRAME_MAX];
    let head_len = flv::framing_head(framing, header.len(), &mut head);
    out.extend_from_slice(&head[..head_len]);
    out.extend_from_slice(&header);
    out.extend_from_slice(framing.suffix());
}

/// Length of the framing before a tag with that many payload bytes.
pub fn framing_len(framing: Framing, payload: usize) -> usize {
    flv::framing_head(framing, TAG_HEAD + payload + TAG_TAIL, &mut [0; FRAME_MAX])
}

/// Bytes of a tag's head and of the size behind it.
pub const TAG_HEAD: usize = 11;
/// Bytes of PreviousTagSize.
pub const TAG_TAIL: usize = 4;
const FRAME_MAX: usize = flv::FRAMING_HEAD_BYTES_MAX;
const HEAD_MAX: usize = FRAME_MAX + TAG_HEAD;

fn head_of(
    framing: Framing,
    flags: Flags,
    time: i64,
    payload: usize,
    out: &mut [u8; HEAD_MAX],
) -> usize {
    let mut frame = [0; FRAME_MAX];
    let frame_len = flv::framing_head(framing, TAG_HEAD + payload + TAG_TAIL, &mut frame);
    out[..frame_len].copy_from_slice(&frame[..frame_len]);
    let tag = flv::tag_head(flags.kind(), wire_time(flags, time), payload as u32);
    out[frame_len..frame_len + TAG_HEAD].copy_from_slice(&tag);
    frame_len + TAG_HEAD
}

//! Messages as an RTMP chunk stream that any player can enter at any message (RTMP 5.3).
//!
//! Every message opens with a type-0 chunk, so no header refers to one before it. The chunk size
//! is the one announced to all players of the vhost.

use uring::ArenaFull;

use crate::hub::{Feed, FeedWriter, Flags, Position};
use crate::proto::rtmp::chunk;

/// Chunk stream of data messages, audio and video, as SRS uses them.
const CSID_DATA: u8 = 4;
const CSID_VIDEO: u8 = 6;
const CSID_AUDIO: u8 = 7;
/// RTMP 7.1: AMF0 data, audio, video.
const TYPE_DATA: u8 = 18;
const TYPE_AUDIO: u8 = 8;
const TYPE_VIDEO: u8 = 9;
/// The one message stream id this server hands out.
pub const MESSAGE_STREAM_ID: u32 = 1;

/// Chunk stream id and message type of a message.
pub fn ids(flags: Flags) -> (u8, u8) {
    if flags.has(Flags::VIDEO) {
        (CSID_VIDEO, TYPE_VIDEO)
    } else if flags.has(Flags::AUDIO) {
        (CSID_AUDIO, TYPE_AUDIO)
    } else {
        (CSID_DATA, TYPE_DATA)
    }
}

/// The timestamp on the wire: 31 bits, as SRS and FLV have it, so that it rolls over once in 24
/// days instead of turning negative in players that read it as signed.
///
/// Data messages are at 0, wherever they come, as in SRS: FFmpeg takes metadata at any other time
/// for a packet of a subtitle track.
pub fn wire_time(flags: Flags, time: i64) -> u32 {
    if flags.has(Flags::DATA) { 0 } else { (time & 0x7fff_ffff) as u32 }
}

/// Appends a message to a feed.
///
/// # Errors
/// The media memory is used up.
pub fn append(
    writer: &mut FeedWriter,
    chunk_size: u32,
    flags: Flags,
    time: i64,
    payload: &[u8],
) -> Result<(), ArenaFull> {
    let (csid, type_id) = ids(flags);
    let wire = wire_time(flags, time);
    let head = chunk::message_head(csid, type_id, wire, payload.len() as u32, MESSAGE_STREAM_ID);
    let size = chunk_size as usize;
    if payload.len() <= size {
        return writer.append(&[head.as_ref(), payload], flags, time);
    }
    // Only messages above the chunk size (60000 bytes by default) come here: a few keyframes.
    let (next, next_len) = chunk::continuation_head(csid, wire);
    let mut parts: Vec<&[u8]> = Vec::with_capacity(2 * payload.len().div_ceil(size));
    for (index, piece) in payload.chunks(size).enumerate() {
        parts.push(if index == 0 { head.as_ref() } else { &next[..next_len] });
        parts.push(piece);
    }
    writer.append(&parts, flags, time)
}

/// Writes a message to a buffer, in the same form.
pub fn write(out: &mut Vec<u8>, chunk_size: u32, flags: Flags, time: i64, payload: &[u8]) {
    let (csid, type_id) = ids(flags);
    let wire = wire_time(flags, time);
    chunk::write_message(out, chunk_size, csid, type_id, wire, MESSAGE_STREAM_ID, payload);
}

/// Calls `each` with flags, time and payload of every message of an RTMP feed from `start` on;
/// how a second format is back-filled.
///
/// # Errors
/// Whatever `each` returns; the walk ends there.
pub fn for_each_message<E>(
    feed: &Feed,
    start: Position,
    chunk_size: u32,
    mut each: impl FnMut(Flags, i64, &[u8]) -> Result<(), E>,
) -> Result<(), E> {
    let mut payload = Vec::new();
    for_each_framed(feed, start, |flags, time, framed| {
        unframe(framed, chunk_size, &mut payload);
        each(flags, time, &payload)
    })
}

/// The same for a feed of any format, with messages as they are in it.
///
/// # Errors
/// Whatever `each` returns; the walk ends there.
pub fn for_each_framed<E>(
    feed: &Feed,
    start: Position,
    mut each: impl FnMut(Flags, i64, &[u8]) -> Result<(), E>,
) -> Result<(), E> {
    let mut framed = Vec::new();
    let mut open: Option<(Flags, i64)> = None;
    let mut first_entry = true;
    for number in start.block..feed.end() {
        let Some(block) = feed.block(number) else { continue };
        let len = block.len();
        let count = block.entry_count();
        let mut index = 0;
        if first_entry {
            index = block.first_entry_at_or_after(start.offset).unwrap_or(count);
            first_entry = false;
        }
        // What comes before the first entry continues a message of the block before.
        if open.is_some() {
            let stop = if count > 0 { block.entry(0).offset } else { len };
            framed.extend_from_slice(block.bytes(0, stop));
        }
        while index < count {
            if let Some((flags, time)) = open.take() {
                each(flags, time, &framed)?;
                framed.clear();
            }
            let entry = block.entry(index);
            index += 1;
            let flags = Flags(entry.flags);
            if flags.has(Flags::BOUNDARY) {
                continue;
            }
            let stop = if index < count { block.entry(index).offset } else { len };
            let bytes = block.bytes(entry.offset, stop);
            if flags.has(Flags::SPANS) {
                framed.extend_from_slice(bytes);
                open = Some((Flags(flags.0 & !Flags::SPANS.0), entry.time));
            } else {
                each(flags, entry.time, bytes)?;
            }
        }
    }
    Ok(())
}

/// Takes the chunk headers out of a message this module wrote.
fn unframe(framed: &[u8], chunk_size: u32, payload: &mut Vec<u8>) {
    payload.clear();
    let extended = framed.get(1..4) == Some(&[0xff, 0xff, 0xff]);
    let mut rest = framed.get(if extended { 16 } else { 12 }..).unwrap_or_default();
    loop {
        let take = rest.len().min(chunk_size as usize);
        payload.extend_from_slice(&rest[..take]);
        rest = &rest[take..];
        if rest.is_empty() {
            return;
        }
        rest = rest.get(if extended { 5 } else { 1 }..).unwrap_or_default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hub::Format;
    use crate::hub::feed::GopLimits;
    use uring::{Arena, ArenaOptions};

    fn writer(bytes: usize) -> FeedWriter {
        let arena = Arena::new(ArenaOptions { limit: bytes, huge_pages: false }).unwrap();
        let gop = GopLimits { enabled: true, messages: 1000, bytes: 64 << 20 };
        FeedWriter::new(Format::Rtmp, arena, gop)
    }

    fn payload(seed: usize, len: usize) -> Vec<u8> {
        (0..len).map(|i| (i * 31 + seed * 7) as u8).collect()
    }

    #[test]
    fn messages_come_back_as_they_went_in() {
        let mut feed = writer(64 << 20);
        let lens =
            [1, 100, 59_999, 60_000, 60_001, 200_000, 5, 3_000_000, 10, 1_048_000, 1_048_576];
        for time_base in [0i64, 0x00ff_fff0, 0x7fff_ffff] {
            let start = feed.position();
            for (i, &len) in lens.iter().enumerate() {
                let flags = if i == 0 { Flags::VIDEO | Flags::KEYFRAME } else { Flags::AUDIO };
                append(&mut feed, 60_000, flags, time_base + i as i64, &payload(i, len)).unwrap();
            }
            let mut seen = 0;
            let from = feed.start().unwrap();
            assert!(from >= start);
            for_each_message(feed.feed(), from, 60_000, |flags, time, bytes| {
                assert_eq!(time, time_base + seen as i64);
                assert_eq!(flags.has(Flags::VIDEO), seen == 0);
                assert_eq!(bytes, payload(seen, lens[seen]), "message {seen}");
                seen += 1;
                Ok::<(), ()>(())
            })
            .unwrap();
            assert_eq!(seen, lens.len());
        }
    }
}

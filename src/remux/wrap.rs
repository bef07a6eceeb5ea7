//! What goes around a run of bytes on its way: nothing, an HTTP chunk, or a WebSocket frame.

use uring::ArenaFull;

use crate::hub::{Container, FeedWriter, Flags, Format};
use crate::proto::flv::{self, Framing};

/// The framing of a format; `None` for RTMP, which has its own.
pub fn framing(format: Format) -> Option<Framing> {
    use Format::*;
    match format {
        Rtmp => None,
        Flv | Ts | Fmp4 | Aac | Mp3 => Some(Framing::Plain),
        FlvChunked | TsChunked | Fmp4Chunked | AacChunked | Mp3Chunked => Some(Framing::Chunked),
        FlvWebSocket | TsWebSocket | Fmp4WebSocket | AacWebSocket | Mp3WebSocket => {
            Some(Framing::WebSocket)
        }
    }
}

/// The format that has a container in a framing; RTMP has one only.
pub fn format(container: Container, framing: Framing) -> Format {
    let formats = container.formats();
    let found = formats.iter().copied().find(|format| self::framing(*format) == Some(framing));
    found.unwrap_or(Format::Rtmp)
}

/// Appends a run of bytes to a feed as one framed message.
///
/// # Errors
/// The media memory is used up.
pub fn append(
    writer: &mut FeedWriter,
    framing: Framing,
    flags: Flags,
    time: i64,
    bytes: &[u8],
) -> Result<(), ArenaFull> {
    let mut head = [0; flv::FRAMING_HEAD_BYTES_MAX];
    let len = flv::framing_head(framing, bytes.len(), &mut head);
    writer.append(&[&head[..len], bytes, framing.suffix()], flags, time)
}

/// Writes a run of bytes to a buffer, in the same form. Nothing is written for no bytes.
pub fn write(out: &mut Vec<u8>, framing: Framing, bytes: &[u8]) {
    if bytes.is_empty() {
        return;
    }
    let mut head = [0; flv::FRAMING_HEAD_BYTES_MAX];
    let len = flv::framing_head(framing, bytes.len(), &mut head);
    out.extend_from_slice(&head[..len]);
    out.extend_from_slice(bytes);
    out.extend_from_slice(framing.suffix());
}

/// Takes the framing off a message this module wrote.
pub fn unwrap(framing: Framing, framed: &[u8]) -> &[u8] {
    let head = head_len(framing, framed).unwrap_or(framed.len());
    let end = framed.len().saturating_sub(framing.suffix().len());
    framed.get(head..end).unwrap_or_default()
}

/// Length of the framing in front of what begins `bytes`.
pub fn head_len(framing: Framing, bytes: &[u8]) -> Option<usize> {
    match framing {
        Framing::Plain => (!bytes.is_empty()).then_some(0),
        // The size in hexadecimal and a line end.
        Framing::Chunked => memchr::memchr(b'\n', &bytes[..bytes.len().min(20)]).map(|at| at + 1),
        // RFC 6455 5.2: two bytes, and the length again in two or eight when it is long.
        Framing::WebSocket => match bytes.get(1)? & 0x7f {
            126 => Some(4),
            127 => Some(10),
            _ => Some(2),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrapped_comes_out_again() {
        for framing in [Framing::Plain, Framing::Chunked, Framing::WebSocket] {
            for len in [1, 10, 125, 126, 70_000] {
                let bytes: Vec<u8> = (0..len).map(|n| n as u8).collect();
                let mut out = Vec::new();
                write(&mut out, framing, &bytes);
                assert_eq!(unwrap(framing, &out), bytes, "{framing:?} {len}");
            }
            let mut out = Vec::new();
            write(&mut out, framing, &[]);
            assert!(out.is_empty(), "an empty chunk would end the body");
        }
    }

    #[test]
    fn formats_of_a_container_differ_in_framing_only() {
        for format in Format::ALL {
            let siblings = format.container().formats();
            assert!(siblings.contains(&format));
            let same = siblings.iter().filter(|other| framing(**other) == framing(format));
            assert_eq!(same.count(), 1);
        }
    }
}

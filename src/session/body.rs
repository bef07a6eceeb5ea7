//! A body that is sent from where it lies, behind a reply's head: blocks of a stream, files.

use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use bytes::{Buf as _, Bytes};
use uring::Range;

use super::files::OpenFile;
use super::viewers::Viewer;
use crate::hub::segments::Piece;
use crate::remux::Stream;

/// A piece of a body.
#[derive(Clone, Debug)]
pub enum Part {
    /// Of a block.
    Block(Range),
    /// Bytes made for this body.
    Bytes(Bytes),
    /// So many bytes of a file from an offset.
    File(Rc<OpenFile>, u64, u64),
}

impl Part {
    /// Bytes in it.
    pub fn len(&self) -> u64 {
        match self {
            Part::Block(range) => u64::from(range.end - range.start),
            Part::Bytes(bytes) => bytes.len() as u64,
            Part::File(_, _, len) => *len,
        }
    }

    /// True when there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Leaves out the first bytes; at most as many as there are.
    fn skip(&mut self, bytes: u64) {
        match self {
            // Blocks and bytes are shorter than 4 GiB.
            Part::Block(range) => range.start += bytes as u32,
            Part::Bytes(all) => all.advance(bytes as usize),
            Part::File(_, offset, len) => (*offset, *len) = (*offset + bytes, *len - bytes),
        }
    }

    /// Leaves out what is behind so many bytes.
    fn truncate(&mut self, bytes: u64) {
        match self {
            Part::Block(range) => {
                let most = u32::try_from(bytes).unwrap_or(u32::MAX);
                range.end = range.end.min(range.start.saturating_add(most));
            }
            Part::Bytes(all) => all.truncate(usize::try_from(bytes).unwrap_or(usize::MAX)),
            Part::File(_, _, len) => *len = (*len).min(bytes),
        }
    }
}

/// What is left of a body.
#[derive(Debug)]
pub struct Body {
    parts: VecDeque<Part>,
    /// Whose it is, where it is a stream's.
    stream: Option<Arc<Stream>>,
    viewer: Option<Arc<Viewer>>,
}

impl Body {
    /// `len` bytes of these ranges, without the first `skip`. What is sent of them counts for the
    /// stream and the viewer.
    pub fn new(
        pieces: &[Piece],
        range: (u64, u64),
        stream: Arc<Stream>,
        viewer: Option<Arc<Viewer>>,
    ) -> Body {
        let block = |piece: &Piece| {
            let block = Rc::new(piece.block.clone());
            Part::Block(Range { block, start: piece.start, end: piece.end })
        };
        Body::of(pieces.iter().map(block), range, Some(stream), viewer)
    }

    /// The same of parts of any kind.
    pub fn of(
        all: impl IntoIterator<Item = Part>,
        (skip, len): (u64, u64),
        stream: Option<Arc<Stream>>,
        viewer: Option<Arc<Viewer>>,
    ) -> Body {
        let mut parts = VecDeque::new();
        let (mut skip, mut left) = (skip, len);
        for mut part in all {
            let bytes = part.len();
            if skip >= bytes {
                skip -= bytes;
                continue;
            }
            part.skip(skip);
            part.truncate(left);
            if part.is_empty() {
                break;
            }
            (skip, left) = (0, left - part.len());
            parts.push_back(part);
        }
        Body { parts, stream, viewer }
    }

    /// The blocks that are to be sent next, in one send: at most `pieces` ranges and `limit` bytes.
    pub fn fronts(&self, pieces: usize, limit: u32) -> Vec<Range> {
        let mut out = Vec::with_capacity(pieces.min(self.parts.len()));
        let mut left = limit;
        for part in self.parts.iter().take(pieces) {
            let Part::Block(range) = part else { break };
            let mut range = range.clone();
            range.end = range.end.min(range.start.saturating_add(left));
            left -= range.end - range.start;
            out.push(range);
            if left == 0 {
                break;
            }
        }
        out
    }

    /// What is to be sent next, at most `limit` bytes.
    pub fn front(&self, limit: u32) -> Option<Part> {
        let mut part = self.parts.front()?.clone();
        part.truncate(u64::from(limit));
        Some(part)
    }

    /// True when a file is what is sent now.
    pub fn is_file(&self) -> bool {
        matches!(self.parts.front(), Some(Part::File(..)))
    }

    /// So many bytes were sent.
    pub fn sent(&mut self, bytes: u32) {
        if let Some(stream) = &self.stream {
            stream.stats.bytes_sent.fetch_add(u64::from(bytes), Relaxed);
        }
        if let Some(viewer) = &self.viewer {
            viewer.client.count_bytes_out(u64::from(bytes));
        }
        let mut bytes = u64::from(bytes);
        while let Some(part) = self.parts.front_mut() {
            let len = part.len();
            if bytes < len {
                part.skip(bytes);
                return;
            }
            bytes -= len;
            self.parts.pop_front();
        }
    }

    /// True when nothing is left.
    pub fn is_empty(&self) -> bool {
        self.parts.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::media::name::StreamName;
    use crate::remux::Registry;
    use uring::{Arena, ArenaOptions};

    #[test]
    fn a_part_of_several_blocks() {
        let arena = Arena::new(ArenaOptions { limit: 4 << 20, huge_pages: false }).unwrap();
        let pieces: Vec<Piece> = [&b"xabc"[..], b"def", b"ghi"]
            .into_iter()
            .map(|bytes| {
                let mut writer = arena.writer(16 << 10).unwrap();
                writer.push(bytes);
                writer.publish();
                let start = u32::from(bytes[0] == b'x');
                Piece { block: writer.block().clone(), start, end: bytes.len() as u32 }
            })
            .collect();
        let registry = Registry::default();
        let stream = registry.open(&StreamName::new("v", "live", "s").unwrap()).unwrap();
        for (range, expected) in [((0, 9), "abcdefghi"), ((2, 5), "cdefg"), ((3, 3), "def")] {
            let mut body = Body::new(&pieces, range, stream.clone(), None);
            let mut got = Vec::new();
            while !body.is_empty() {
                let ranges = body.fronts(2, 5);
                assert!((1..=2).contains(&ranges.len()));
                for range in &ranges {
                    got.extend_from_slice(range.block.bytes(range.start, range.end));
                }
                let bytes = ranges.iter().map(|range| range.end - range.start).sum();
                assert!((1..=5).contains(&bytes));
                body.sent(bytes);
            }
            assert!(body.is_empty());
            assert_eq!(String::from_utf8(got).unwrap(), expected);
        }
        assert_eq!(stream.stats.bytes_sent.load(Relaxed), 17);
    }

    #[test]
    fn a_part_of_bytes_and_a_large_file() {
        let mut files = crate::session::files::Files::default();
        let file = std::fs::File::open("/dev/null").unwrap().into();
        let (kind, len) = (uring::FileKind::Regular, 5 << 30);
        let opened = uring::Opened { file, kind, len, inode: 1, modified: (0, 0) };
        let file = files.note_file("a".into(), opened, 0);
        let parts = || [Part::Bytes(Bytes::from_static(b"head")), Part::File(file.clone(), 7, len)];
        let mut body = Body::of(parts(), (2, 4), None, None);
        assert!(matches!(body.front(9), Some(Part::Bytes(bytes)) if bytes == "ad"));
        body.sent(3);
        assert!(body.is_file());
        assert!(matches!(body.front(9), Some(Part::File(_, 8, 1))));
        body.sent(1);
        assert!(body.is_empty());
        let body = Body::of(parts(), (4 + (5 << 30) - 3, u64::MAX), None, None);
        assert!(matches!(body.front(9), Some(Part::File(_, at, 3)) if at == (5 << 30) + 4));
    }
}

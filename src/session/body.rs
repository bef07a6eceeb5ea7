//! A body that is sent from the blocks it lies in, behind a reply's head.

use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use uring::Range;

use super::viewers::Viewer;
use crate::hub::mirror;
use crate::hub::segments::Piece;
use crate::remux::Stream;

/// What is left of a body.
#[derive(Debug)]
pub struct Body {
    ranges: VecDeque<Range>,
    stream: Arc<Stream>,
    viewer: Option<Arc<Viewer>>,
}

impl Body {
    /// `len` bytes of these ranges, without the first `skip`. What is sent of them counts for the
    /// stream and the viewer.
    pub fn new(
        pieces: &[Piece],
        (skip, len): (u64, u64),
        stream: Arc<Stream>,
        viewer: Option<Arc<Viewer>>,
    ) -> Body {
        let mut ranges = VecDeque::new();
        let (mut skip, mut left) = (skip, len);
        for piece in pieces {
            let bytes = u64::from(piece.end - piece.start);
            if skip >= bytes {
                skip -= bytes;
                continue;
            }
            let take = (bytes - skip).min(left);
            if take == 0 {
                break;
            }
            // Both are less than the length of a block.
            let start = piece.start + skip as u32;
            let block = Rc::new(piece.block.clone());
            ranges.push_back(Range { block, start, end: start + take as u32 });
            (skip, left) = (0, left - take);
        }
        Body { ranges, stream, viewer }
    }

    /// What is to be sent next in one send: at most `pieces` ranges and `limit` bytes.
    pub fn fronts(&self, pieces: usize, limit: u32) -> Vec<Range> {
        let mut out = Vec::with_capacity(pieces.min(self.ranges.len()));
        let mut left = limit;
        for range in self.ranges.iter().take(pieces) {
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

    /// So many bytes were sent.
    pub fn sent(&mut self, bytes: u32) {
        self.stream.stats.bytes_sent.fetch_add(u64::from(bytes), Relaxed);
        if let Some(viewer) = &self.viewer {
            viewer.client.count_bytes_out(u64::from(bytes));
        }
        mirror::advance(&mut self.ranges, bytes);
    }

    /// True when nothing is left.
    pub fn is_empty(&self) -> bool {
        self.ranges.is_empty()
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
}

//! A publisher's messages through the stream's writer into all formats, and back out of them.

use ringcast::hub::feed::GopLimits;
use ringcast::hub::mirror::Next;
use ringcast::hub::{Feed, Flags, Format, Mirror, Position};
use ringcast::media::Kind;
use ringcast::media::name::StreamName;
use ringcast::proto::flv::{TagReader, file_header};
use ringcast::proto::http::{ChunkedDecoder, Piece as Chunk};
use ringcast::proto::rtmp::chunk::{Joiner, Payload};
use ringcast::proto::ws;
use ringcast::remux::{HttpOptions, Live, LiveOptions, Outcome, Registry, rebase, rtmp};
use uring::{Arena, ArenaOptions, Gather, Piece};

use super::byte;

/// Type id, wire time, body.
type Message = (u8, u32, Vec<u8>);

thread_local! {
    /// Taking address space for each input would take most of the time.
    static ARENA: Arena = Arena::new(ArenaOptions { limit: 64 << 20, huge_pages: false })
        .expect("address space");
}

/// Messages: what it is, a step in time, a length, the bytes.
pub fn live(data: &[u8]) {
    let arena = ARENA.with(Clone::clone);
    run(data, &arena);
    assert_eq!(arena.stats().blocks, 0, "every block is given back");
}

fn run(data: &[u8], arena: &Arena) {
    let mut data = data;
    let options = byte(&mut data);
    let chunk_size = [128, 4096, 60_000, 1 << 20][usize::from(options & 3)];
    let registry = Registry::default();
    let name = StreamName::new("v", "live", "fuzz").expect("a name");
    let stream = registry.open(&name).expect("a stream");
    let gop = GopLimits { enabled: options & 4 == 0, messages: 60, bytes: 4 << 20 };
    let reduce_sequence_header = options & 8 != 0;
    let http = HttpOptions { fast_cache_ms: i64::from(options & 16) * 100, ..Default::default() };
    let options = LiveOptions { chunk_size, gop, reduce_sequence_header, http };
    let mut live = Live::new(options, arena.clone());
    live.attach(&stream);
    let feed = stream.feed(Format::Rtmp).expect("always open");
    let mut readers = vec![Reader::new(feed)];
    let mut wire_time = 0_u32;
    let mut written = 0;
    let mut budget = 3 << 20;
    while !data.is_empty() && budget > 0 {
        let what = byte(&mut data);
        let (step, len) = (byte(&mut data), usize::from(byte(&mut data)));
        let (bytes, rest) = data.split_at(len.min(data.len()));
        data = rest;
        wire_time = match what >> 6 {
            0 | 1 => wire_time.wrapping_add(u32::from(step)),
            2 => wire_time.wrapping_add(u32::from(step) << 8),
            _ => u32::from(step) << 24,
        };
        match what & 15 {
            0 => {
                for format in Format::ALL {
                    stream.want(format);
                }
                live.open_wanted(&stream);
                for format in &Format::VERBATIM[readers.len()..] {
                    readers.extend(stream.feed(*format).map(Reader::new));
                }
            }
            1 => live.resume(u64::from(step) * 1_000_000_000),
            2 if !bytes.is_empty() => {
                live.write_metadata(wire_time, bytes.to_vec(), (step & 1 != 0, step & 2 != 0));
            }
            action => {
                let mut payload = bytes.to_vec();
                if what & 0x30 == 0x30 {
                    // Larger than the largest block, with bytes that look like chunk headers.
                    let size = 1_000_000 + usize::from(step) * 1000;
                    let mut fill = (0..).map(|n: u32| (n.wrapping_mul(197) >> 3) as u8);
                    payload.extend(fill.by_ref().take(size));
                }
                budget -= payload.len().min(budget);
                let kind = if action & 1 == 0 { Kind::Video } else { Kind::Audio };
                match live.write(kind, wire_time, &payload) {
                    Ok(Outcome::Written { .. }) => written += 1,
                    Ok(Outcome::Dropped(_)) => {}
                    Err(refused) => {
                        let _ = refused.to_string();
                        break;
                    }
                }
            }
        }
        let _ = live.tracks_if_changed();
        readers.iter_mut().for_each(|reader| reader.mirror.refresh());
    }
    let all = readers[0].messages(chunk_size);
    assert!(all.iter().filter(|message| message.0 != 18).count() <= written);
    check_walk(&readers[0], chunk_size, &all);
    for reader in &readers {
        let messages = reader.messages(chunk_size);
        let offset = all.len().checked_sub(messages.len()).expect("no more than in the RTMP feed");
        assert!(all[offset..] == messages[..], "{:?} differs", reader.format());
        check_rebased(reader, chunk_size, &messages);
    }
}

/// A feed and all of its blocks from the first one on.
struct Reader {
    mirror: Mirror,
    start: Position,
}

impl Reader {
    fn new(feed: std::sync::Arc<Feed>) -> Reader {
        let start = Position { block: feed.first(), offset: 0 };
        Reader { mirror: Mirror::new(feed), start }
    }

    fn format(&self) -> Format {
        self.mirror.feed().format()
    }

    fn bytes(&self) -> Vec<u8> {
        let mut out = Vec::new();
        let mut at = self.start;
        let limit = 100_000;
        loop {
            let ranges = match self.mirror.next(at, limit) {
                Next::AtEnd => return out,
                Next::One(range) => vec![range],
                Next::Two(first, second) => vec![first, second],
                Next::Gone => panic!("the mirror keeps everything"),
            };
            let mut sent = 0;
            for range in ranges {
                out.extend_from_slice(range.block.bytes(range.start, range.end));
                sent += range.end - range.start;
            }
            assert!(sent > 0 && sent <= limit);
            at = self.mirror.advance(at, sent);
        }
    }

    fn messages(&self, chunk_size: u32) -> Vec<Message> {
        decode(self.format(), chunk_size, &self.bytes())
    }
}

fn decode(format: Format, chunk_size: u32, bytes: &[u8]) -> Vec<Message> {
    match format {
        Format::Rtmp => {
            let mut joiner = Joiner::new();
            joiner.set_chunk_size(chunk_size);
            let mut input = bytes;
            let mut out = Vec::new();
            while let Some(joined) = joiner.next(&mut input).expect("chunks of our own") {
                let body = match joined.payload {
                    Payload::Borrowed(bytes) => bytes,
                    Payload::Assembled => joiner.assembled(),
                };
                out.push((joined.type_id, joined.timestamp, body.to_vec()));
            }
            assert!(input.is_empty());
            out
        }
        Format::Flv => tags(bytes),
        Format::FlvChunked => {
            let mut decoder = ChunkedDecoder::new();
            let mut input = bytes;
            let mut body = Vec::new();
            while let Chunk::Data(bytes) = decoder.decode(&mut input).expect("chunks of our own") {
                body.extend_from_slice(bytes);
            }
            tags(&body)
        }
        Format::FlvWebSocket => {
            let mut reader = ws::Reader::new(ws::From::Server, 32 << 20);
            let mut input = bytes;
            let mut out = Vec::new();
            while let Some(event) = reader.poll(&mut input).expect("frames of our own") {
                let ws::Event::Message { text: false, data } = event else {
                    panic!("binary messages only");
                };
                let one = tags(data);
                assert_eq!(one.len(), 1, "one tag in each message");
                out.extend(one);
            }
            out
        }
        other => panic!("{other:?} has no messages"),
    }
}

fn tags(bytes: &[u8]) -> Vec<Message> {
    let mut reader = TagReader::new();
    let mut header = &file_header(true, true)[..];
    assert_eq!(reader.poll(&mut header), Ok(None));
    let mut input = bytes;
    let mut out = Vec::new();
    while let Some(tag) = reader.poll(&mut input).expect("tags of our own") {
        out.push((tag.kind.type_id(), tag.timestamp, tag.body.to_vec()));
    }
    assert!(reader.at_boundary());
    out
}

/// What back-filling sees is what players get.
fn check_walk(reader: &Reader, chunk_size: u32, all: &[Message]) {
    let mut walked = Vec::new();
    let feed = reader.mirror.feed();
    // The feed itself may have let the oldest blocks go.
    let start = Position { block: feed.first(), offset: 0 };
    let result: Result<(), ()> =
        rtmp::for_each_message(feed, start, chunk_size, |flags, time, payload| {
            walked.push((rtmp::ids(flags).1, rtmp::wire_time(flags, time), payload.to_vec()));
            assert!(!flags.has(Flags::SPANS));
            Ok(())
        });
    assert!(result.is_ok());
    let offset = all.len().checked_sub(walked.len()).expect("no more than there is");
    assert!(all[offset..] == walked[..], "the walk differs");
}

/// A player with a time base of its own gets the same messages, however much each send takes.
fn check_rebased(reader: &Reader, chunk_size: u32, messages: &[Message]) {
    if messages.is_empty() {
        return;
    }
    let mut state = rebase::State::default();
    let base = reader.mirror.time_at(reader.start);
    state.begin(base);
    let mut at = reader.start;
    let mut out = Vec::new();
    let mut gather = Gather::default();
    let mut turns = 0_u32;
    loop {
        gather.clear();
        if !state.gather(&reader.mirror, at, reader.format(), chunk_size, &mut gather) {
            break;
        }
        assert!(gather.pieces.len() <= Gather::PIECES_MAX);
        let mut bytes = Vec::new();
        for piece in &gather.pieces {
            match piece {
                Piece::Head(range) => {
                    bytes.extend_from_slice(&gather.head[range.start as usize..range.end as usize]);
                }
                Piece::Block(range) => {
                    bytes.extend_from_slice(range.block.bytes(range.start, range.end));
                }
            }
        }
        turns += 1;
        // Some sends are short.
        let sent = match turns % 3 {
            0 => bytes.len(),
            1 => bytes.len() - bytes.len() / 3,
            _ => bytes.len().min(70_001),
        };
        out.extend_from_slice(&bytes[..sent]);
        at = state.sent(&reader.mirror, at, sent as u32);
    }
    let rebased = decode(reader.format(), chunk_size, &out);
    assert_eq!(rebased.len(), messages.len());
    let mut time = 0;
    for (own, shared) in rebased.iter().zip(messages) {
        assert!(own.0 == shared.0 && own.2 == shared.2);
        // Data messages are at time 0 wherever they come.
        if own.0 != 18 {
            assert!(own.1 >= time, "{} after {time}", own.1);
            time = own.1;
        }
    }
}

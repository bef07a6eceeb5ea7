//! HTTP, WebSocket and FLV.

use ringcast::limits::{HTTP_HEAD_BYTES_MAX, WS_PLAYER_MESSAGE_BYTES_MAX};
use ringcast::proto::flv::TagReader;
use ringcast::proto::http::{self, ChunkedDecoder, Piece};
use ringcast::proto::ws;

use super::{byte, pieces};

/// FLV files and HTTP-FLV bodies.
pub fn flv(data: &[u8]) {
    let mut data = data;
    let seed = byte(&mut data);
    assert_eq!(read_flv(0, data), read_flv(seed | 1, data));
}

fn read_flv(seed: u8, data: &[u8]) -> Vec<String> {
    let mut reader = TagReader::with_limit(1 << 20);
    let mut seen = Vec::new();
    for piece in pieces(seed, data) {
        let mut input = piece;
        loop {
            match reader.poll(&mut input) {
                Ok(Some(tag)) => seen.push(format!("{tag:?}")),
                Ok(None) => break,
                Err(error) => {
                    seen.push(error.to_string());
                    return seen;
                }
            }
        }
        assert!(input.is_empty());
    }
    seen.push(format!("{:?}", reader.flags()));
    seen
}

/// Request heads, and what is done with them.
pub fn request(data: &[u8]) {
    let whole = http::parse_request(data);
    let Ok(Some((request, used))) = &whole else {
        if let Err(error) = whole {
            assert!(!http::response::error(error, 0).is_empty());
        } else {
            assert!(data.len() <= HTTP_HEAD_BYTES_MAX, "a head without end goes over the limit");
        }
        return;
    };
    assert!(*used <= data.len() && *used <= HTTP_HEAD_BYTES_MAX);
    // What follows the head does not change it, and nothing is complete before its end.
    let alone = http::parse_request(&data[..*used]).expect("the same head");
    let (alone, alone_used) = alone.expect("a complete head");
    assert_eq!(format!("{request:?}"), format!("{alone:?}"));
    assert_eq!(*used, alone_used);
    assert!(!matches!(http::parse_request(&data[..*used - 1]), Ok(Some(_))));
    let _ = (request.keep_alive(), request.has_body(), request.param("vhost"));
    if request.wants_websocket()
        && let Err(error) = ws::accept(request)
    {
        assert!(!error.response(0).is_empty());
    }
    let head = http::ResponseHead::new(200).cors(request).finish();
    let ends = head.windows(4).filter(|four| four == b"\r\n\r\n").count();
    assert_eq!(ends, 1, "nothing of a request splits a response");
}

/// Response heads, as edges and load testers read them.
pub fn response(data: &[u8]) {
    if let Ok(Some((response, used))) = http::parse_response(data) {
        assert!(used <= data.len());
        let _ = ws::client_accepted(&response, [7; 16]);
    }
}

/// Chunked bodies.
pub fn chunked(data: &[u8]) {
    let mut data = data;
    let seed = byte(&mut data);
    assert_eq!(read_chunked(0, data), read_chunked(seed | 1, data));
}

fn read_chunked(seed: u8, data: &[u8]) -> (Vec<u8>, String) {
    let mut decoder = ChunkedDecoder::new();
    let mut body = Vec::new();
    let mut consumed = 0;
    for piece in pieces(seed, data) {
        let mut input = piece;
        loop {
            match decoder.decode(&mut input) {
                Ok(Piece::Data(bytes)) => {
                    assert!(!bytes.is_empty());
                    body.extend_from_slice(bytes);
                }
                Ok(Piece::More) => break,
                Ok(Piece::End) => {
                    return (body, format!("end after {}", consumed + piece.len() - input.len()));
                }
                Err(error) => return (body, format!("{error:?}")),
            }
        }
        assert!(input.is_empty());
        consumed += piece.len();
    }
    (body, format!("{} chunks", decoder.chunks()))
}

/// WebSocket frames of either side.
pub fn websocket(data: &[u8]) {
    let mut data = data;
    let (side, seed) = (byte(&mut data), byte(&mut data));
    let from = if side & 1 == 0 { ws::From::Client } else { ws::From::Server };
    assert_eq!(read_frames(from, 0, data), read_frames(from, seed | 1, data));
}

fn read_frames(from: ws::From, seed: u8, data: &[u8]) -> Vec<String> {
    let mut reader = ws::Reader::new(from, WS_PLAYER_MESSAGE_BYTES_MAX);
    let mut seen = Vec::new();
    for piece in pieces(seed, data) {
        let mut input = piece;
        loop {
            match reader.poll(&mut input) {
                Ok(Some(event)) => {
                    if let ws::Event::Message { data, .. } = &event {
                        assert!(data.len() <= WS_PLAYER_MESSAGE_BYTES_MAX);
                    }
                    if let ws::Event::Ping(payload) = &event {
                        assert!(ws::pong_frame(payload).len() <= 2 + 125);
                    }
                    seen.push(format!("{event:?}"));
                }
                Ok(None) => break,
                Err(error) => {
                    seen.push(error.to_string());
                    assert!(ws::close_frame(error.close_code(), "").len() <= 127);
                    return seen;
                }
            }
        }
        assert!(input.is_empty());
    }
    seen
}

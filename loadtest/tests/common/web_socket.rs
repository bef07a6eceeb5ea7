//! What a player over a WebSocket gets.

use std::io::{Read, Write};

use ringcast::proto::http::parse_response;
use ringcast::proto::ws;

/// What it gets until it is told that this is all.
///
/// # Panics
/// If the server refuses, breaks the rules or does not say that it was all.
pub fn body(stream: &mut (impl Read + Write), path: &str) -> Vec<u8> {
    stream.write_all(&ws::client_request("x", path, [7; 16])).expect("send");
    let mut reader = ws::Reader::new(ws::From::Server, 32 << 20);
    let (mut head, mut body, mut open) = (Vec::new(), Vec::new(), false);
    let mut buffer = vec![0; 64 << 10];
    loop {
        let read = stream.read(&mut buffer).expect("an answer that ends");
        assert!(read > 0, "{path}: the connection ended without a close frame");
        head.extend_from_slice(&buffer[..read]);
        if !open {
            let Some((response, len)) = parse_response(&head).expect("a head") else { continue };
            assert_eq!(response.status, 101, "{path}");
            head.drain(..len);
            open = true;
        }
        let bytes = std::mem::take(&mut head);
        let mut input = &bytes[..];
        while let Some(event) = reader.poll(&mut input).expect("frames") {
            match event {
                ws::Event::Message { data, .. } => body.extend_from_slice(data),
                ws::Event::Close { code, .. } => {
                    assert_eq!(code, Some(1001), "{path}");
                    return body;
                }
                _ => {}
            }
        }
    }
}

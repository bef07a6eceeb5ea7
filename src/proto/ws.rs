//! WebSocket (RFC 6455): the handshake, frames in both directions, both roles.
//!
//! Players send next to nothing: pings, pongs, a close. The server reads their frames strictly,
//! answers control frames and ignores messages. What the server sends are whole binary frames whose
//! heads are part of the feed, so only [`server_head`] matters on the per-frame path. No extension
//! is negotiated.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha1::{Digest as _, Sha1};

use super::http::{HttpError, Method, Request, Response, ResponseHead};

/// Bytes of the longest payload of a control frame.
pub const CONTROL_BYTES_MAX: usize = 125;

/// The value of `Sec-WebSocket-Accept` for a `Sec-WebSocket-Key` (RFC 6455 4.2.2).
pub fn accept_key(key: &str) -> String {
    let mut hash = Sha1::new();
    hash.update(key.as_bytes());
    hash.update(b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11");
    STANDARD.encode(hash.finalize())
}

/// Checks an upgrade request and gives the 101 head that answers it. The CORS headers are left out:
/// browsers do not ask for them here.
pub fn accept(request: &Request) -> Result<Vec<u8>, UpgradeError> {
    if request.method != Method::Get
        || request.minor_version < 1
        || !request.header_has("upgrade", "websocket")
        || !request.header_has("connection", "upgrade")
    {
        return Err(UpgradeError::NotAnUpgrade);
    }
    if request.header("sec-websocket-version").map(str::trim) != Some("13") {
        return Err(UpgradeError::Version);
    }
    let key = request.header("sec-websocket-key").map(str::trim).unwrap_or_default();
    // 16 random bytes. Their padding bits are not checked by everybody, so only the shape counts.
    let keys = request.headers.all("sec-websocket-key").count();
    let base64 = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'+' || byte == b'/';
    if keys != 1 || key.len() != 24 || !key.ends_with("==") || !key[..22].bytes().all(base64) {
        return Err(UpgradeError::Key);
    }
    Ok(ResponseHead::new(101)
        .header("Upgrade", "websocket")
        .header("Connection", "Upgrade")
        .header("Sec-WebSocket-Accept", &accept_key(key))
        .finish())
}

/// Why an upgrade request is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum UpgradeError {
    /// A method, version or header that an upgrade needs is missing.
    #[error("not a WebSocket upgrade")]
    NotAnUpgrade,
    /// A WebSocket version other than 13.
    #[error("WebSocket version is not 13")]
    Version,
    /// No key, several, or one that is not 16 bytes in base64.
    #[error("malformed Sec-WebSocket-Key")]
    Key,
}

impl UpgradeError {
    /// The whole answer, at `wall_ms` since 1970.
    pub fn response(self, wall_ms: i64) -> Vec<u8> {
        match self {
            // RFC 6455 4.4: say which version would do.
            UpgradeError::Version => ResponseHead::new(426)
                .header("Sec-WebSocket-Version", "13")
                .header("Connection", "close")
                .date(wall_ms)
                .body(b"426 Upgrade Required\n"),
            UpgradeError::NotAnUpgrade | UpgradeError::Key => {
                super::http::response::plain(400, wall_ms)
            }
        }
    }
}

/// What a frame is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Opcode {
    /// A further part of a message.
    Continuation = 0,
    /// Text, or its first part.
    Text = 1,
    /// Bytes, or their first part.
    Binary = 2,
    /// The end of the connection, with an optional code and reason.
    Close = 8,
    /// To be answered with a pong of the same payload.
    Ping = 9,
    /// The answer to a ping, or a sign of life.
    Pong = 10,
}

/// Writes the head of a whole, unmasked frame, and returns how many bytes of `out` it took (2, 4 or
/// 10).
pub fn server_head(opcode: Opcode, len: u64, out: &mut [u8; 16]) -> usize {
    out[0] = 0x80 | opcode as u8;
    match len {
        0..=125 => {
            out[1] = len as u8;
            2
        }
        126..=0xffff => {
            out[1] = 126;
            out[2..4].copy_from_slice(&(len as u16).to_be_bytes());
            4
        }
        _ => {
            out[1] = 127;
            out[2..10].copy_from_slice(&len.to_be_bytes());
            10
        }
    }
}

/// A whole, unmasked frame.
pub fn server_frame(opcode: Opcode, payload: &[u8]) -> Vec<u8> {
    let mut head = [0; 16];
    let count = server_head(opcode, payload.len() as u64, &mut head);
    [&head[..count], payload].concat()
}

/// The server's answer to a ping. A payload beyond 125 bytes cannot come from [`Reader`] and is
/// cut.
pub fn pong_frame(payload: &[u8]) -> Vec<u8> {
    server_frame(Opcode::Pong, &payload[..payload.len().min(CONTROL_BYTES_MAX)])
}

/// The server's close frame. The reason is cut to fit, at a character's border.
pub fn close_frame(code: u16, reason: &str) -> Vec<u8> {
    server_frame(Opcode::Close, &close_payload(code, reason))
}

/// Appends a whole, masked frame: the client's half.
pub fn client_frame(opcode: Opcode, payload: &[u8], mask: [u8; 4], out: &mut Vec<u8>) {
    let mut head = [0; 16];
    let count = server_head(opcode, payload.len() as u64, &mut head);
    head[1] |= 0x80;
    out.extend_from_slice(&head[..count]);
    out.extend_from_slice(&mask);
    out.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
}

/// The payload of a close frame with this code and reason.
pub fn close_payload(code: u16, reason: &str) -> Vec<u8> {
    let mut end = reason.len().min(CONTROL_BYTES_MAX - 2);
    while !reason.is_char_boundary(end) {
        end -= 1;
    }
    [&code.to_be_bytes(), &reason.as_bytes()[..end]].concat()
}

/// The client's request for an upgrade. `target` is path and query as they stand in the request
/// line, `nonce` 16 random bytes. The values must not come from a peer: they are written as they
/// are.
pub fn client_request(host: &str, target: &str, nonce: [u8; 16]) -> Vec<u8> {
    let key = STANDARD.encode(nonce);
    format!(
        "GET {target} HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n"
    )
    .into_bytes()
}

/// Whether a response accepts the upgrade that [`client_request`] asked for with this nonce.
pub fn client_accepted(response: &Response, nonce: [u8; 16]) -> Result<(), HttpError> {
    let expected = accept_key(&STANDARD.encode(nonce));
    if response.status != 101 {
        return Err(HttpError::Malformed("no upgrade to WebSocket"));
    }
    if response.header("sec-websocket-accept") != Some(expected.as_str()) {
        return Err(HttpError::Malformed("Sec-WebSocket-Accept"));
    }
    Ok(())
}

/// Whose frames a [`Reader`] reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum From {
    /// A client's, which must be masked.
    Client,
    /// A server's, which must not be masked.
    Server,
}

/// What arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event<'a> {
    /// A whole message, put together from its parts.
    Message {
        /// Text (checked to be UTF-8) rather than bytes.
        text: bool,
        /// The message.
        data: &'a [u8],
    },
    /// A ping: answer with a pong of this payload.
    Ping(&'a [u8]),
    /// A pong.
    Pong(&'a [u8]),
    /// The peer closes: answer with a close frame, then end. Nothing is read after it.
    Close {
        /// The code it gave, if it gave one.
        code: Option<u16>,
        /// The reason it gave; may be empty.
        reason: &'a str,
    },
}

/// Why frames could not be read. All of them end the connection, with [`WsError::close_code`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WsError {
    /// The peer broke the protocol.
    Protocol(&'static str),
    /// Text that is not UTF-8.
    NotUtf8,
    /// A message over the limit.
    TooBig,
}

impl WsError {
    /// The code for the close frame (RFC 6455 7.4.1).
    pub fn close_code(self) -> u16 {
        match self {
            WsError::Protocol(_) => 1002,
            WsError::NotUtf8 => 1007,
            WsError::TooBig => 1009,
        }
    }
}

impl fmt::Display for WsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            WsError::Protocol(what) => write!(f, "WebSocket protocol: {what}"),
            WsError::NotUtf8 => f.write_str("WebSocket text is not UTF-8"),
            WsError::TooBig => f.write_str("WebSocket message is over the limit"),
        }
    }
}

impl std::error::Error for WsError {}

/// Reads frames piece by piece. Keeps at most one message and one control frame.
#[derive(Debug, Clone)]
pub struct Reader {
    from: From,
    message_bytes_max: usize,
    state: State,
    /// The head of the frame being read.
    head: [u8; 14],
    head_len: usize,
    /// The payload of the message being put together.
    message: Vec<u8>,
    /// The kind of that message; `None` between messages.
    open: Option<Opcode>,
    control: [u8; CONTROL_BYTES_MAX],
    control_len: usize,
    /// `message` was handed out and goes with the next call.
    done: bool,
}

#[derive(Debug, Clone, Copy)]
enum State {
    Head,
    Payload { frame: Frame, left: u64 },
    Closed,
    Failed(WsError),
}

#[derive(Debug, Clone, Copy)]
struct Frame {
    opcode: Opcode,
    fin: bool,
    mask: [u8; 4],
    len: u64,
}

impl Reader {
    /// A reader behind the handshake, for messages of up to `message_bytes_max` bytes.
    pub fn new(from: From, message_bytes_max: usize) -> Reader {
        Reader {
            from,
            message_bytes_max,
            state: State::Head,
            head: [0; 14],
            head_len: 0,
            message: Vec::new(),
            open: None,
            control: [0; CONTROL_BYTES_MAX],
            control_len: 0,
            done: false,
        }
    }

    /// Takes bytes off the front of `input` and gives the next event, or `None` when all of `input`
    /// is taken. After a close everything is taken and nothing comes; after an error every further
    /// call gives it again.
    pub fn poll<'a>(&'a mut self, input: &mut &[u8]) -> Result<Option<Event<'a>>, WsError> {
        if self.done {
            self.done = false;
            self.message.clear();
        }
        let frame = match self.read(input) {
            Ok(Some(frame)) => frame,
            Ok(None) => return Ok(None),
            Err(error) => return Err(self.fail(error)),
        };
        match self.check(frame) {
            Ok(()) => Ok(Some(self.event(frame.opcode))),
            Err(error) => Err(self.fail(error)),
        }
    }

    fn fail(&mut self, error: WsError) -> WsError {
        self.message = Vec::new();
        self.state = State::Failed(error);
        error
    }

    /// Reads until a message or a control frame is complete.
    fn read(&mut self, input: &mut &[u8]) -> Result<Option<Frame>, WsError> {
        loop {
            match self.state {
                State::Closed => {
                    *input = &[];
                    return Ok(None);
                }
                State::Failed(error) => return Err(error),
                State::Head => {
                    let Some(frame) = self.read_head(input)? else { return Ok(None) };
                    self.state = State::Payload { frame, left: frame.len };
                }
                State::Payload { frame, left } => {
                    let left = self.read_payload(frame, left, input);
                    if left > 0 {
                        self.state = State::Payload { frame, left };
                        return Ok(None);
                    }
                    self.state = State::Head;
                    if frame.is_control() || frame.fin {
                        return Ok(Some(frame));
                    }
                }
            }
        }
    }

    /// Gathers and checks a frame head.
    fn read_head(&mut self, input: &mut &[u8]) -> Result<Option<Frame>, WsError> {
        loop {
            let want = if self.head_len < 2 {
                2
            } else {
                self.check_start()?;
                let length = match self.head[1] & 0x7f {
                    126 => 2,
                    127 => 8,
                    _ => 0,
                };
                2 + length + if self.head[1] & 0x80 != 0 { 4 } else { 0 }
            };
            if self.head_len == want {
                break;
            }
            let count = (want - self.head_len).min(input.len());
            if count == 0 {
                return Ok(None);
            }
            self.head[self.head_len..self.head_len + count].copy_from_slice(&input[..count]);
            self.head_len += count;
            *input = &input[count..];
        }
        let head = &self.head[..self.head_len];
        let masked = head[1] & 0x80 != 0;
        let (length, mask) = head[2..].split_at(head.len() - 2 - if masked { 4 } else { 0 });
        let extended = length.iter().fold(0, |value: u64, byte| value << 8 | u64::from(*byte));
        // RFC 6455 5.2: the shortest form must be used, the top bit must be 0.
        let len = match (length.len(), extended) {
            (0, _) => u64::from(head[1] & 0x7f),
            (2, 126..) => extended,
            (8, 0x1_0000..=0x7fff_ffff_ffff_ffff) => extended,
            _ => return Err(WsError::Protocol("frame length")),
        };
        let frame = Frame {
            opcode: opcode(head[0] & 0x0f)?,
            fin: head[0] & 0x80 != 0,
            mask: mask.try_into().unwrap_or([0; 4]),
            len,
        };
        self.head_len = 0;
        if frame.is_control() {
            self.control_len = 0;
            return Ok(Some(frame));
        }
        if frame.opcode == Opcode::Continuation {
            if self.open.is_none() {
                return Err(WsError::Protocol("continuation of nothing"));
            }
        } else if self.open.replace(frame.opcode).is_some() {
            return Err(WsError::Protocol("message within a message"));
        }
        // Refused by its head alone: nothing is kept for a length that is only declared.
        if len > (self.message_bytes_max.saturating_sub(self.message.len())) as u64 {
            return Err(WsError::TooBig);
        }
        Ok(Some(frame))
    }

    /// Checks what the first two bytes of a head can tell.
    fn check_start(&self) -> Result<(), WsError> {
        let [first, second, ..] = self.head;
        if first & 0x70 != 0 {
            return Err(WsError::Protocol("reserved bits"));
        }
        if opcode(first & 0x0f)? as u8 >= 8 && (first & 0x80 == 0 || second & 0x7f > 125) {
            return Err(WsError::Protocol("long or fragmented control frame"));
        }
        if (second & 0x80 != 0) != (self.from == From::Client) {
            return Err(WsError::Protocol("masking"));
        }
        Ok(())
    }

    /// Takes what there is of a frame's payload; gives what is still missing.
    fn read_payload(&mut self, frame: Frame, left: u64, input: &mut &[u8]) -> u64 {
        let count = usize::try_from(left).unwrap_or(usize::MAX).min(input.len());
        let (data, rest) = input.split_at(count);
        *input = rest;
        let target = if frame.is_control() {
            let from = self.control_len;
            self.control_len += count;
            let target = &mut self.control[from..from + count];
            target.copy_from_slice(data);
            target
        } else {
            let from = self.message.len();
            self.message.extend_from_slice(data);
            &mut self.message[from..]
        };
        if self.from == From::Client {
            // The mask runs on over the pieces in which the payload arrives.
            let phase = ((frame.len - left) % 4) as usize;
            let mask = frame.mask.iter().cycle().skip(phase);
            target.iter_mut().zip(mask).for_each(|(byte, mask)| *byte ^= mask);
        }
        left - count as u64
    }

    /// Checks the payload of what is complete, and moves on behind it.
    fn check(&mut self, frame: Frame) -> Result<(), WsError> {
        match frame.opcode {
            Opcode::Close => {
                let payload = &self.control[..self.control_len];
                if let [_] = payload {
                    return Err(WsError::Protocol("close frame of one byte"));
                }
                if let [high, low, reason @ ..] = payload {
                    // RFC 6455 7.4: 1004 to 1006 and 1015 never travel, the rest is unassigned.
                    match u16::from_be_bytes([*high, *low]) {
                        1000..=1003 | 1007..=1014 | 3000..=4999 => {}
                        _ => return Err(WsError::Protocol("close code")),
                    }
                    std::str::from_utf8(reason).map_err(|_| WsError::NotUtf8)?;
                }
                self.state = State::Closed;
            }
            Opcode::Ping | Opcode::Pong => {}
            Opcode::Text | Opcode::Binary | Opcode::Continuation => {
                if self.open == Some(Opcode::Text) && std::str::from_utf8(&self.message).is_err() {
                    return Err(WsError::NotUtf8);
                }
            }
        }
        Ok(())
    }

    fn event(&mut self, opcode: Opcode) -> Event<'_> {
        let control = &self.control[..self.control_len];
        match opcode {
            Opcode::Ping => Event::Ping(control),
            Opcode::Pong => Event::Pong(control),
            Opcode::Close => match control {
                [high, low, reason @ ..] => Event::Close {
                    code: Some(u16::from_be_bytes([*high, *low])),
                    reason: std::str::from_utf8(reason).unwrap_or_default(),
                },
                _ => Event::Close { code: None, reason: "" },
            },
            Opcode::Text | Opcode::Binary | Opcode::Continuation => {
                self.done = true;
                Event::Message { text: self.open.take() == Some(Opcode::Text), data: &self.message }
            }
        }
    }
}

impl Frame {
    fn is_control(&self) -> bool {
        self.opcode as u8 >= 8
    }
}

fn opcode(bits: u8) -> Result<Opcode, WsError> {
    match bits {
        0 => Ok(Opcode::Continuation),
        1 => Ok(Opcode::Text),
        2 => Ok(Opcode::Binary),
        8 => Ok(Opcode::Close),
        9 => Ok(Opcode::Ping),
        10 => Ok(Opcode::Pong),
        _ => Err(WsError::Protocol("opcode")),
    }
}

#[cfg(test)]
mod tests {
    use super::super::http::{parse_request, parse_response};
    use super::*;

    const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

    /// An event, owned.
    #[derive(Debug, Clone, PartialEq, Eq)]
    enum Seen {
        Message(bool, Vec<u8>),
        Ping(Vec<u8>),
        Pong(Vec<u8>),
        Close(Option<u16>, String),
    }

    fn read(from: From, input: &[u8], piece: usize) -> (Vec<Seen>, Result<(), WsError>) {
        let mut reader = Reader::new(from, 1_000);
        let mut seen = Vec::new();
        for mut piece in input.chunks(piece) {
            loop {
                seen.push(match reader.poll(&mut piece) {
                    Ok(None) => break,
                    Ok(Some(Event::Message { text, data })) => Seen::Message(text, data.to_vec()),
                    Ok(Some(Event::Ping(data))) => Seen::Ping(data.to_vec()),
                    Ok(Some(Event::Pong(data))) => Seen::Pong(data.to_vec()),
                    Ok(Some(Event::Close { code, reason })) => Seen::Close(code, reason.to_owned()),
                    Err(error) => {
                        assert_eq!(reader.poll(&mut [0u8].as_slice()), Err(error));
                        return (seen, Err(error));
                    }
                });
            }
            assert!(piece.is_empty());
        }
        (seen, Ok(()))
    }

    /// A masked frame with any first byte.
    fn masked(first: u8, payload: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        client_frame(Opcode::Text, payload, MASK, &mut out);
        out[0] = first;
        out
    }

    fn error_of(input: &[u8]) -> u16 {
        let codes = [1, input.len().max(1)].map(|piece| {
            read(From::Client, input, piece).1.map_or_else(WsError::close_code, |()| 0)
        });
        assert_eq!(codes[0], codes[1]);
        codes[0]
    }

    #[test]
    fn the_handshake_of_the_rfc() {
        assert_eq!(accept_key("dGhlIHNhbXBsZSBub25jZQ=="), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }

    #[test]
    fn both_halves_of_the_handshake_agree() {
        let nonce = *b"sixteen bytes ok";
        let bytes = client_request("a.b:8080", "/live/s.flv?x=y", nonce);
        let request = parse_request(&bytes).unwrap().unwrap().0;
        assert!(request.wants_websocket());
        assert_eq!(request.path, "/live/s.flv");
        let answer = accept(&request).unwrap();
        let response = parse_response(&answer).unwrap().unwrap().0;
        assert_eq!(client_accepted(&response, nonce), Ok(()));
        assert!(client_accepted(&response, [0; 16]).is_err());
    }

    #[test]
    fn bad_upgrades() {
        let good = "GET / HTTP/1.1\r\nHost: a\r\nUpgrade: WebSocket\r\nConnection: keep-alive, \
            Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\
            \r\n";
        let with = |from: &str, to: &str| {
            let text = good.replacen(from, to, 1);
            accept(&parse_request(text.as_bytes()).unwrap().unwrap().0).map(drop)
        };
        assert_eq!(with("", ""), Ok(()));
        assert_eq!(with("GET", "POST"), Err(UpgradeError::NotAnUpgrade));
        assert_eq!(with("1.1", "1.0"), Err(UpgradeError::NotAnUpgrade));
        assert_eq!(with(", Upgrade", ""), Err(UpgradeError::NotAnUpgrade));
        assert_eq!(with("WebSocket\r", "h2c\r"), Err(UpgradeError::NotAnUpgrade));
        assert_eq!(with("13", "8"), Err(UpgradeError::Version));
        assert_eq!(with("YzA==", "Yw=="), Ok(()), "no such text, so nothing changes");
        assert_eq!(with("ZQ==", "ZQ="), Err(UpgradeError::Key));
        assert_eq!(with("dGhl", "dG l"), Err(UpgradeError::Key));
        let twice = "Sec-WebSocket-Key: x\r\nSec-WebSocket-Key";
        assert_eq!(with("Sec-WebSocket-Key", twice), Err(UpgradeError::Key));
        let response = UpgradeError::Version.response(0);
        let response = parse_response(&response).unwrap().unwrap().0;
        assert_eq!(response.status, 426);
        assert_eq!(response.header("sec-websocket-version"), Some("13"));
        let response = UpgradeError::Key.response(0);
        assert_eq!(parse_response(&response).unwrap().unwrap().0.status, 400);
    }

    #[test]
    fn frames_of_the_rfc() {
        // RFC 6455 5.7.
        let hello = [0x81, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58];
        assert_eq!(
            read(From::Client, &hello, 3),
            (vec![Seen::Message(true, b"Hello".to_vec())], Ok(()))
        );
        let parts = [0x01, 0x03, 0x48, 0x65, 0x6c, 0x80, 0x02, 0x6c, 0x6f];
        assert_eq!(
            read(From::Server, &parts, 1),
            (vec![Seen::Message(true, b"Hello".to_vec())], Ok(()))
        );
        assert_eq!(server_frame(Opcode::Ping, b"Hello"), b"\x89\x05Hello");
        assert_eq!(pong_frame(b"Hello"), b"\x8a\x05Hello");
        assert_eq!(server_frame(Opcode::Binary, &[0; 256])[..4], [0x82, 0x7e, 1, 0]);
        assert_eq!(
            server_frame(Opcode::Binary, &[0; 65_536])[..10],
            [0x82, 0x7f, 0, 0, 0, 0, 0, 1, 0, 0]
        );
    }

    #[test]
    fn control_frames_between_parts() {
        let input = [
            masked(0x02, b"abc"),
            masked(0x89, b"p"),
            masked(0x00, b""),
            masked(0x8a, b""),
            masked(0x80, b"de"),
            masked(0x88, &close_payload(1000, "bye")),
            b"ignored".to_vec(),
        ]
        .concat();
        let expected = vec![
            Seen::Ping(b"p".to_vec()),
            Seen::Pong(vec![]),
            Seen::Message(false, b"abcde".to_vec()),
            Seen::Close(Some(1000), "bye".to_owned()),
        ];
        for piece in 1..=input.len() {
            assert_eq!(read(From::Client, &input, piece), (expected.clone(), Ok(())), "{piece}");
        }
    }

    #[test]
    fn protocol_errors_are_1002() {
        for first in [0xc1, 0xa1, 0x91, 0x83, 0x87, 0x8b, 0x8f, 0x09, 0x08, 0x80, 0x00] {
            assert_eq!(error_of(&masked(first, b"x")), 1002, "{first:x}");
        }
        // Unmasked, and a text within a text.
        assert_eq!(error_of(b"\x81\x01x"), 1002);
        assert_eq!(error_of(&[masked(0x01, b"a"), masked(0x81, b"b")].concat()), 1002);
        // Control frames of 126 bytes, lengths not in their shortest form, and the sign bit.
        assert_eq!(error_of(&masked(0x89, &[0; 126])), 1002);
        assert_eq!(error_of(&masked(0x89, &[0; 125])), 0);
        assert_eq!(error_of(&[0x82, 0xfe, 0, 125, 0, 0, 0, 0]), 1002);
        assert_eq!(error_of(&[0x82, 0xff, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0, 0, 0, 0]), 1002);
        assert_eq!(error_of(&[0x82, 0xff, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]), 1002);
        // A server that masks is as wrong as a client that does not.
        assert!(read(From::Server, &masked(0x81, b"x"), 1).1.is_err());
    }

    #[test]
    fn close_codes() {
        let close = |payload: &[u8]| error_of(&masked(0x88, payload));
        assert_eq!(close(&[]), 0);
        assert_eq!(close(&[3]), 1002);
        for code in [1000, 1001, 1003, 1007, 1014, 3000, 4999] {
            assert_eq!(close(&close_payload(code, "ok")), 0, "{code}");
        }
        for code in [0, 999, 1004, 1005, 1006, 1015, 1016, 2000, 2999, 5000, 65_535] {
            assert_eq!(close(&close_payload(code, "")), 1002, "{code}");
        }
        assert_eq!(close(&[3, 0xe8, 0xff]), 1007);
        let long = "é".repeat(100);
        assert_eq!(close(&close_payload(1000, &long)), 0);
        assert_eq!(close_frame(1000, &long).len(), 2 + 2 + 122);
        assert_eq!(close_frame(1001, "gone"), b"\x88\x06\x03\xe9gone");
    }

    #[test]
    fn text_is_utf8() {
        assert_eq!(error_of(&masked(0x81, b"\xce\xba\xff")), 1007);
        assert_eq!(error_of(&masked(0x82, b"\xff")), 0);
        // A character may be split between parts.
        assert_eq!(error_of(&[masked(0x01, b"\xce"), masked(0x80, b"\xba")].concat()), 0);
        assert_eq!(error_of(&[masked(0x01, b"\xce"), masked(0x80, b"x")].concat()), 1007);
    }

    #[test]
    fn sizes_are_bounded() {
        // 1 GB declared: refused by the head alone, nothing kept.
        assert_eq!(error_of(&[0x82, 0xff, 0, 0, 0, 0, 0x40, 0, 0, 0, 1, 2, 3, 4]), 1009);
        assert_eq!(error_of(&masked(0x82, &[0; 1_001])), 1009);
        assert_eq!(error_of(&masked(0x82, &[0; 1_000])), 0);
        // Parts count together.
        assert_eq!(error_of(&[masked(0x02, &[0; 600]), masked(0x80, &[0; 401])].concat()), 1009);
        assert_eq!(error_of(&[masked(0x02, &[0; 600]), masked(0x80, &[0; 400])].concat()), 0);
    }

    proptest::proptest! {
        #[test]
        fn messages_come_back(messages: Vec<Vec<u8>>, mask: [u8; 4], piece in 1usize..40) {
            let mut input = Vec::new();
            for message in &messages {
                client_frame(Opcode::Binary, message, mask, &mut input);
            }
            let expected: Vec<Seen> =
                messages.into_iter().map(|message| Seen::Message(false, message)).collect();
            proptest::prop_assert_eq!(read(From::Client, &input, piece), (expected, Ok(())));
        }

        #[test]
        fn any_bytes_in_any_pieces(bytes: Vec<u8>, piece in 1usize..20) {
            for from in [From::Client, From::Server] {
                let whole = read(from, &bytes, bytes.len().max(1));
                proptest::prop_assert_eq!(whole, read(from, &bytes, piece));
            }
        }
    }
}

//! The client's end of each protocol, without sockets: bytes in, steps out.
//!
//! To add a protocol (WHEP, SRT): one variant here and one in [`Scheme`].

use ringcast::proto::flv::TagReader;
use ringcast::proto::http::{ChunkedDecoder, Piece, parse_response};
use ringcast::proto::rtmp::client::{Client, ClientOptions, Event, HandshakeKind, Role};
use ringcast::proto::rtmp::server::PublishKind;
use ringcast::proto::ws;

use crate::hls::{Habits, Viewer};
use crate::media::Kind;
use crate::target::{Scheme, Target};

/// What came out of received bytes.
#[derive(Debug)]
pub enum Step<'a> {
    /// The server accepted: media follows (players), or may be sent (publishers).
    Started,
    /// A message.
    Message {
        /// Audio, video or data.
        kind: Kind,
        /// Milliseconds, as received.
        timestamp: u32,
        /// Its body.
        payload: &'a [u8],
    },
}

/// What to do with the rest of the input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flow {
    /// Parse it.
    Continue,
    /// Leave it.
    Stop,
}

/// Why the peer cannot go on. The server's doing in every case.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// The server said no.
    #[error("refused: {0}")]
    Refused(String),
    /// The server broke the protocol.
    #[error("protocol: {0}")]
    Protocol(String),
    /// The server ended the stream in good order.
    #[error("ended by the server")]
    Ended,
}

/// One peer's protocol state.
#[derive(Debug)]
pub enum Player {
    /// RTMP, playing or publishing.
    Rtmp(Box<Client>),
    /// HTTP-FLV: close-delimited, chunked or of stated length.
    HttpFlv(Box<HttpFlv>),
    /// WebSocket-FLV.
    WsFlv(Box<WsFlv>),
    /// HLS, which has no messages: what it gets and when it asks is [`Viewer`]'s.
    Hls(Box<Viewer>),
}

impl Player {
    /// A player that just connected; what it says first is in [`Player::output`]. `seed` makes
    /// nonces differ between clients.
    pub fn play(target: &Target, seed: u64) -> Player {
        match target.scheme {
            Scheme::Rtmp => Player::Rtmp(rtmp(target, Role::Play, seed)),
            Scheme::HttpFlv => Player::HttpFlv(Box::new(HttpFlv::new(target))),
            Scheme::WsFlv => Player::WsFlv(Box::new(WsFlv::new(target, seed))),
            Scheme::Hls => {
                let habits = Habits { parts: true, hints: true, deltas: true, verify: false };
                Player::view(target, habits, crate::clock::now())
            }
        }
    }

    /// A viewer of HLS that just connected.
    pub fn view(target: &Target, habits: Habits, now: u64) -> Player {
        Player::Hls(Box::new(Viewer::new(target, habits, now)))
    }

    /// A publisher that just connected (RTMP whatever the scheme says: plans are checked before).
    pub fn publish(target: &Target, seed: u64) -> Player {
        Player::Rtmp(rtmp(target, Role::Publish, seed))
    }

    /// Bytes to send; the caller takes them.
    pub fn output(&mut self) -> &mut Vec<u8> {
        match self {
            Player::Rtmp(client) => client.output(),
            Player::HttpFlv(p) => &mut p.output,
            Player::WsFlv(p) => &mut p.output,
            Player::Hls(viewer) => viewer.output(),
        }
    }

    /// Takes received bytes. Returns how many were left because `on` said stop.
    pub fn input(
        &mut self,
        data: &[u8],
        on: &mut dyn FnMut(Step<'_>) -> Flow,
    ) -> Result<usize, Failure> {
        match self {
            Player::Rtmp(client) => rtmp_input(client, data, on),
            Player::HttpFlv(p) => p.input(data, on),
            Player::WsFlv(p) => p.input(data, on),
            Player::Hls(_) => {
                Err(Failure::Refused("a playlist is played by many viewers only".to_owned()))
            }
        }
    }

    /// Appends a message to the output. Publishers only, after [`Step::Started`].
    pub fn write_message(&mut self, kind: Kind, timestamp: u32, payload: &[u8]) {
        let Player::Rtmp(client) = self else { return };
        match kind {
            Kind::Audio | Kind::Video => client.write_message(kind, timestamp, payload),
            Kind::Data => client.write_metadata(timestamp, payload),
        }
    }
}

fn rtmp(target: &Target, role: Role, seed: u64) -> Box<Client> {
    Box::new(Client::new(ClientOptions {
        tc_url: target.tc_url(),
        app: target.app().to_owned(),
        stream: target.stream().to_owned(),
        role,
        chunk_size: 60_000,
        flash_ver: "LNX 9,0,124,2".to_owned(),
        page_url: None,
        // Simple: the digests of the complex one would be the tester's CPU, not the server's media.
        handshake: HandshakeKind::Simple,
        publish_sequence: PublishKind::Fmle,
        seed,
    }))
}

fn rtmp_input(
    client: &mut Client,
    mut data: &[u8],
    on: &mut dyn FnMut(Step<'_>) -> Flow,
) -> Result<usize, Failure> {
    loop {
        let mut rest = data;
        let event = client.poll(&mut rest).map_err(|e| Failure::Protocol(e.to_string()))?;
        let flow = match event {
            None => return Ok(0),
            Some(Event::Publishing | Event::Playing) => on(Step::Started),
            Some(Event::Message(m)) => {
                on(Step::Message { kind: m.kind, timestamp: m.timestamp, payload: m.payload })
            }
            Some(Event::Metadata { timestamp, payload }) => {
                on(Step::Message { kind: Kind::Data, timestamp, payload })
            }
            // The stream's publisher left; RTMP players keep waiting for the next one.
            Some(Event::StreamEof | Event::Status { .. }) => Flow::Continue,
            Some(Event::Redirect { url }) => {
                return Err(Failure::Refused(format!("redirect to {url}")));
            }
            Some(Event::Refused { code, description }) => {
                return Err(Failure::Refused(format!("{code} {description}").trim().to_owned()));
            }
        };
        let left = rest.len();
        data = &data[data.len() - left..];
        if flow == Flow::Stop {
            return Ok(left);
        }
    }
}

/// Longest response head that is waited for.
const HEAD_BYTES_MAX: usize = 16 * 1024;

/// An HTTP-FLV player.
#[derive(Debug)]
pub struct HttpFlv {
    output: Vec<u8>,
    head: Vec<u8>,
    body: Body,
    tags: TagReader,
}

/// How the response's body is delimited.
#[derive(Debug)]
enum Body {
    /// The head is not complete.
    Head,
    /// By the connection's end.
    Close,
    /// By a stated length.
    Length(u64),
    /// By chunks.
    Chunked(ChunkedDecoder),
}

impl HttpFlv {
    fn new(target: &Target) -> HttpFlv {
        let output = format!(
            "GET {} HTTP/1.1\r\nHost: {}\r\nUser-Agent: loadtest\r\nAccept: */*\r\n\r\n",
            target.path, target.authority
        );
        HttpFlv {
            output: output.into_bytes(),
            head: Vec::new(),
            body: Body::Head,
            tags: TagReader::new(),
        }
    }

    fn input(
        &mut self,
        mut data: &[u8],
        on: &mut dyn FnMut(Step<'_>) -> Flow,
    ) -> Result<usize, Failure> {
        if matches!(self.body, Body::Head) {
            let Some(response) = read_head(&mut self.head, &mut data, 200)? else {
                return Ok(0);
            };
            self.body = match response.content_length {
                _ if response.chunked => Body::Chunked(ChunkedDecoder::new()),
                Some(length) => Body::Length(length),
                None => Body::Close,
            };
            if on(Step::Started) == Flow::Stop {
                return Ok(data.len());
            }
        }
        match &mut self.body {
            Body::Head => unreachable!("the head was read above"),
            Body::Close => flv_input(&mut self.tags, data, on),
            Body::Length(left) => {
                let take = data.len().min(usize::try_from(*left).unwrap_or(usize::MAX));
                *left -= take as u64;
                flv_input(&mut self.tags, &data[..take], on)?;
                if *left == 0 { Err(Failure::Ended) } else { Ok(0) }
            }
            Body::Chunked(decoder) => loop {
                match decoder.decode(&mut data).map_err(|e| Failure::Protocol(e.to_string()))? {
                    Piece::Data(piece) => {
                        flv_input(&mut self.tags, piece, on)?;
                    }
                    Piece::More => return Ok(0),
                    Piece::End => return Err(Failure::Ended),
                }
            },
        }
    }
}

/// A WebSocket-FLV player.
#[derive(Debug)]
pub struct WsFlv {
    output: Vec<u8>,
    head: Vec<u8>,
    nonce: [u8; 16],
    reader: Option<ws::Reader>,
    tags: TagReader,
}

impl WsFlv {
    fn new(target: &Target, seed: u64) -> WsFlv {
        let mut nonce = [0u8; 16];
        nonce[..8].copy_from_slice(&seed.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes());
        nonce[8..].copy_from_slice(&seed.to_le_bytes());
        WsFlv {
            output: ws::client_request(&target.authority, &target.path, nonce),
            head: Vec::new(),
            nonce,
            reader: None,
            tags: TagReader::new(),
        }
    }

    fn input(
        &mut self,
        mut data: &[u8],
        on: &mut dyn FnMut(Step<'_>) -> Flow,
    ) -> Result<usize, Failure> {
        let protocol = |e: &dyn std::fmt::Display| Failure::Protocol(e.to_string());
        if self.reader.is_none() {
            let Some(response) = read_head(&mut self.head, &mut data, 101)? else {
                return Ok(0);
            };
            ws::client_accepted(&response, self.nonce).map_err(|e| protocol(&e))?;
            self.reader = Some(ws::Reader::new(ws::From::Server, WS_MESSAGE_BYTES_MAX));
            if on(Step::Started) == Flow::Stop {
                return Ok(data.len());
            }
        }
        let Some(reader) = &mut self.reader else { return Ok(0) };
        while let Some(event) = reader.poll(&mut data).map_err(|e| protocol(&e))? {
            match event {
                ws::Event::Message { text: false, data } => {
                    flv_input(&mut self.tags, data, on)?;
                }
                ws::Event::Message { text: true, .. } => {
                    return Err(Failure::Protocol("a text message".to_owned()));
                }
                ws::Event::Ping(payload) => {
                    let (mask, pong) = ([1, 2, 3, 4], ws::Opcode::Pong);
                    ws::client_frame(pong, payload, mask, &mut self.output);
                }
                ws::Event::Pong(_) => {}
                ws::Event::Close { .. } => return Err(Failure::Ended),
            }
        }
        Ok(0)
    }
}

/// An FLV tag of the largest size, with its head and size field, and room to spare.
const WS_MESSAGE_BYTES_MAX: usize = (16 << 20) + 1024;

/// Collects a response head, which has to have the given status. Leaves in `data` what lies behind.
fn read_head(
    head: &mut Vec<u8>,
    data: &mut &[u8],
    status: u16,
) -> Result<Option<ringcast::proto::http::Response>, Failure> {
    head.extend_from_slice(data);
    match parse_response(head).map_err(|e| Failure::Protocol(e.to_string()))? {
        Some((response, used)) => {
            *data = &data[data.len() - (head.len() - used)..];
            *head = Vec::new();
            match response.status == status {
                true => Ok(Some(response)),
                false => Err(Failure::Refused(format!("HTTP status {}", response.status))),
            }
        }
        None if head.len() > HEAD_BYTES_MAX => {
            Err(Failure::Protocol("endless response head".to_owned()))
        }
        None => Ok(None),
    }
}

fn flv_input(
    tags: &mut TagReader,
    mut data: &[u8],
    on: &mut dyn FnMut(Step<'_>) -> Flow,
) -> Result<usize, Failure> {
    while let Some(tag) = tags.poll(&mut data).map_err(|e| Failure::Protocol(e.to_string()))? {
        let step = Step::Message { kind: tag.kind, timestamp: tag.timestamp, payload: tag.body };
        if on(step) == Flow::Stop {
            return Ok(data.len());
        }
    }
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use ringcast::proto::flv;

    fn flv_bytes(n: u32) -> Vec<u8> {
        let mut out = flv::file_header(true, true).to_vec();
        for i in 0..n {
            let body = vec![i as u8; 100 + i as usize * 37];
            flv::write_tag(&mut out, Kind::Video, i * 40, &body);
        }
        out
    }

    /// Feeds bytes in pieces of `step` and lists what came out.
    fn feed(
        player: &mut Player,
        bytes: &[u8],
        step: usize,
    ) -> (Vec<(u32, usize)>, Option<Failure>) {
        let mut seen = Vec::new();
        for piece in bytes.chunks(step) {
            let result = player.input(piece, &mut |step| {
                if let Step::Message { timestamp, payload, .. } = step {
                    seen.push((timestamp, payload.len()));
                }
                Flow::Continue
            });
            if let Err(failure) = result {
                return (seen, Some(failure));
            }
        }
        (seen, None)
    }

    fn expected(n: u32) -> Vec<(u32, usize)> {
        (0..n).map(|i| (i * 40, 100 + i as usize * 37)).collect()
    }

    #[test]
    fn http_bodies_of_every_framing_are_read() {
        let target = Target::parse("http://h/live/s.flv").unwrap();
        let flv = flv_bytes(20);
        let mut close = b"HTTP/1.0 200 OK\r\nConnection: close\r\n\r\n".to_vec();
        close.extend_from_slice(&flv);
        let mut chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
        for piece in flv.chunks(777) {
            chunked.extend_from_slice(format!("{:x}\r\n", piece.len()).as_bytes());
            chunked.extend_from_slice(piece);
            chunked.extend_from_slice(b"\r\n");
        }
        for step in [1, 7, 1500, 1 << 20] {
            for bytes in [&close, &chunked] {
                let (seen, failure) = feed(&mut Player::play(&target, 1), bytes, step);
                assert_eq!((seen, failure), (expected(20), None), "in pieces of {step}");
            }
        }
        chunked.extend_from_slice(b"0\r\n\r\n");
        let (_, failure) = feed(&mut Player::play(&target, 1), &chunked, 999);
        assert_eq!(failure, Some(Failure::Ended));
        let (_, failure) =
            feed(&mut Player::play(&target, 1), b"HTTP/1.1 404 Not Found\r\n\r\n", 9);
        assert_eq!(failure, Some(Failure::Refused("HTTP status 404".into())));
    }

    #[test]
    fn a_websocket_stream_is_read_and_pings_are_answered() {
        let target = Target::parse("ws://h/live/s.flv").unwrap();
        let mut player = Player::play(&target, 5);
        let request = String::from_utf8(std::mem::take(player.output())).unwrap();
        let key = request.lines().find_map(|l| l.strip_prefix("Sec-WebSocket-Key: ")).unwrap();
        let mut bytes = format!(
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Accept: {}\r\n\r\n",
            ws::accept_key(key)
        )
        .into_bytes();
        for piece in flv_bytes(20).chunks(777) {
            bytes.extend(ws::server_frame(ws::Opcode::Binary, piece));
        }
        bytes.extend(ws::server_frame(ws::Opcode::Ping, b"hello"));
        let (seen, failure) = feed(&mut player, &bytes, 100);
        assert_eq!((seen, failure), (expected(20), None));
        assert_eq!(player.output().len(), 2 + 4 + 5);
        let (_, failure) = feed(&mut player, &ws::close_frame(1000, "bye"), 100);
        assert_eq!(failure, Some(Failure::Ended));
    }

    #[test]
    fn parsing_stops_where_the_caller_says() {
        let target = Target::parse("http://h/live/s.flv").unwrap();
        let mut bytes = b"HTTP/1.0 200 OK\r\n\r\n".to_vec();
        bytes.extend_from_slice(&[0xff; 500]);
        let left = Player::play(&target, 1).input(&bytes, &mut |_| Flow::Stop);
        assert_eq!(left, Ok(500));
    }
}

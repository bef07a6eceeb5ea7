//! Small blocking clients for tests: one socket, one thread, time limits everywhere.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::path::Path;
use std::time::{Duration, Instant};

use sha2::{Digest, Sha256};

use crate::media::{FlvFile, Kind, is_keyframe, is_sequence_header};
use crate::player::{Failure, Flow, Player, Step};
use crate::target::{Scheme, Target, TargetError};

/// Why a client stopped.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The URL is unusable.
    #[error(transparent)]
    Target(#[from] TargetError),
    /// The socket failed.
    #[error("socket: {0}")]
    Io(#[from] io::Error),
    /// The server refused, ended the stream or broke the protocol.
    #[error(transparent)]
    Failure(#[from] Failure),
    /// The server closed the connection.
    #[error("closed by the server")]
    Closed,
    /// Nothing (more) came within the time limit.
    #[error("nothing came within {0:?}")]
    Timeout(Duration),
    /// The file is unusable.
    #[error(transparent)]
    File(#[from] crate::media::FileError),
}

/// A received message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Received {
    /// Audio, video or data.
    pub kind: Kind,
    /// Milliseconds, as received.
    pub timestamp: u32,
    /// The body.
    pub payload: Vec<u8>,
}

impl Received {
    /// SHA-256 of the body.
    pub fn sha256(&self) -> [u8; 32] {
        sha256(&self.payload)
    }

    /// True for a video message that a decoder can start at.
    pub fn is_keyframe(&self) -> bool {
        self.kind == Kind::Video && is_keyframe(&self.payload)
    }

    /// True for audio and video messages that are not sequence headers.
    pub fn is_frame(&self) -> bool {
        self.kind != Kind::Data && !is_sequence_header(self.kind, &self.payload)
    }
}

/// SHA-256 of bytes.
pub fn sha256(bytes: &[u8]) -> [u8; 32] {
    Sha256::digest(bytes).into()
}

/// How long connecting, the handshake and waiting for a message may take by default.
pub const TIMEOUT: Duration = Duration::from_secs(10);

/// The socket and protocol of both roles.
#[derive(Debug)]
struct Peer {
    socket: TcpStream,
    player: Player,
    started: bool,
    received: VecDeque<Received>,
}

impl Peer {
    fn connect(
        target: &Target,
        source: Option<IpAddr>,
        player: Player,
    ) -> Result<Peer, ClientError> {
        let socket = connect(target.resolve()?, source)?;
        socket.set_nodelay(true)?;
        let mut peer = Peer { socket, player, started: false, received: VecDeque::new() };
        peer.flush()?;
        let until = Instant::now() + TIMEOUT;
        while !peer.started {
            peer.read(until, TIMEOUT)?;
        }
        Ok(peer)
    }

    fn flush(&mut self) -> Result<(), ClientError> {
        let output = std::mem::take(self.player.output());
        self.socket.set_write_timeout(Some(TIMEOUT))?;
        self.socket.write_all(&output)?;
        Ok(())
    }

    /// Reads once.
    fn read(&mut self, until: Instant, limit: Duration) -> Result<(), ClientError> {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(ClientError::Timeout(limit));
        }
        self.socket.set_read_timeout(Some(left))?;
        let mut buffer = [0u8; 64 * 1024];
        let n = match self.socket.read(&mut buffer) {
            Ok(0) => return Err(ClientError::Closed),
            Ok(n) => n,
            Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                return Err(ClientError::Timeout(limit));
            }
            Err(e) if e.kind() == io::ErrorKind::Interrupted => return Ok(()),
            Err(e) => return Err(e.into()),
        };
        let (started, received) = (&mut self.started, &mut self.received);
        self.player.input(&buffer[..n], &mut |step| {
            match step {
                Step::Started => *started = true,
                Step::Message { kind, timestamp, payload } => {
                    received.push_back(Received { kind, timestamp, payload: payload.to_vec() });
                }
            }
            Flow::Continue
        })?;
        self.flush()
    }
}

fn connect(address: SocketAddr, source: Option<IpAddr>) -> io::Result<TcpStream> {
    let Some(source) = source else { return TcpStream::connect_timeout(&address, TIMEOUT) };
    use rustix::net::{AddressFamily, SocketType, bind, connect, socket};
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let fd = socket(family, SocketType::STREAM, None)?;
    bind(&fd, &SocketAddr::new(source, 0))?;
    connect(&fd, &address)?;
    Ok(TcpStream::from(fd))
}

/// A player over any supported scheme.
#[derive(Debug)]
pub struct BlockingPlayer {
    peer: Peer,
}

/// A player of `rtmp://` URLs.
pub type RtmpPlayer = BlockingPlayer;
/// A player of `http://` URLs.
pub type FlvPlayer = BlockingPlayer;
/// A player of `ws://` URLs.
pub type WsFlvPlayer = BlockingPlayer;

impl BlockingPlayer {
    /// Connects and waits until the server has accepted to play.
    pub fn connect(url: &str) -> Result<BlockingPlayer, ClientError> {
        BlockingPlayer::connect_from(url, None)
    }

    /// The same from a local address.
    pub fn connect_from(url: &str, source: Option<IpAddr>) -> Result<BlockingPlayer, ClientError> {
        let target = Target::parse(url)?;
        let player = Player::play(&target, seed());
        Ok(BlockingPlayer { peer: Peer::connect(&target, source, player)? })
    }

    /// The next message; waits up to [`TIMEOUT`].
    pub fn next_message(&mut self) -> Result<Received, ClientError> {
        self.next_message_within(TIMEOUT)
    }

    /// The next message; waits up to `limit`.
    pub fn next_message_within(&mut self, limit: Duration) -> Result<Received, ClientError> {
        let until = Instant::now() + limit;
        loop {
            if let Some(message) = self.peer.received.pop_front() {
                return Ok(message);
            }
            self.peer.read(until, limit)?;
        }
    }

    /// The next `n` messages that are audio or video frames (no sequence headers, no metadata).
    pub fn frames(&mut self, n: usize) -> Result<Vec<Received>, ClientError> {
        let mut frames = Vec::with_capacity(n);
        while frames.len() < n {
            let message = self.next_message()?;
            if message.is_frame() {
                frames.push(message);
            }
        }
        Ok(frames)
    }

    /// Everything that comes within `span`, or until the server closes.
    pub fn collect_for(&mut self, span: Duration) -> Result<Vec<Received>, ClientError> {
        let until = Instant::now() + span;
        let mut all = Vec::new();
        loop {
            match self.next_message_within(until.saturating_duration_since(Instant::now())) {
                Ok(message) => all.push(message),
                Err(ClientError::Timeout(_) | ClientError::Closed) => return Ok(all),
                Err(ClientError::Failure(Failure::Ended)) => return Ok(all),
                Err(e) => return Err(e),
            }
        }
    }

    /// The socket, for tests that want to disturb it.
    pub fn socket(&self) -> &TcpStream {
        &self.peer.socket
    }
}

/// A publisher over RTMP.
#[derive(Debug)]
pub struct RtmpPublisher {
    peer: Peer,
}

impl RtmpPublisher {
    /// Connects and waits until the server has accepted to publish.
    pub fn connect(url: &str) -> Result<RtmpPublisher, ClientError> {
        let target = Target::parse(url)?;
        if target.scheme != Scheme::Rtmp {
            return Err(TargetError::Scheme {
                url: url.to_owned(),
                scheme: target.scheme.name().to_owned(),
            }
            .into());
        }
        let player = Player::publish(&target, seed());
        Ok(RtmpPublisher { peer: Peer::connect(&target, None, player)? })
    }

    /// Connects, and returns the messages of a file in order, ready for [`RtmpPublisher::send`].
    pub fn from_flv(url: &str, file: &Path) -> Result<(RtmpPublisher, Vec<Received>), ClientError> {
        let messages = flv_messages(file)?;
        Ok((RtmpPublisher::connect(url)?, messages))
    }

    /// Sends a message; waits while the server does not read.
    pub fn send(&mut self, kind: Kind, timestamp: u32, payload: &[u8]) -> Result<(), ClientError> {
        self.peer.player.write_message(kind, timestamp, payload);
        self.peer.flush()
    }

    /// Sends messages in real time (by their timestamps, the first at once) for as long as there
    /// are any. `speed` 2 sends twice as fast.
    pub fn send_paced(&mut self, messages: &[Received], speed: f64) -> Result<(), ClientError> {
        let start = Instant::now();
        let first = messages.first().map_or(0, |m| m.timestamp);
        for message in messages {
            let ms = message.timestamp.wrapping_sub(first);
            let due = start + Duration::from_secs_f64(f64::from(ms) / 1000.0 / speed);
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
            self.send(message.kind, message.timestamp, &message.payload)?;
        }
        Ok(())
    }

    /// The socket, for tests that want to disturb it.
    pub fn socket(&self) -> &TcpStream {
        &self.peer.socket
    }
}

/// The messages of a file: metadata and sequence headers at time zero, then all tags.
pub fn flv_messages(file: &Path) -> Result<Vec<Received>, ClientError> {
    let file = FlvFile::open(file)?;
    let headers = file.headers().iter();
    let headers =
        headers.map(|(kind, p)| Received { kind: *kind, timestamp: 0, payload: p.to_vec() });
    let tags = file.tags.iter().map(|t| Received {
        kind: t.kind,
        timestamp: t.timestamp,
        payload: t.payload.to_vec(),
    });
    Ok(headers.chain(tags).collect())
}

fn seed() -> u64 {
    crate::clock::now()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    #[test]
    fn a_player_reads_messages_and_sees_the_end() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let server = std::thread::spawn(move || {
            let (mut socket, peer) = listener.accept().unwrap();
            let mut request = [0u8; 1024];
            let _ = socket.read(&mut request).unwrap();
            let mut out = b"HTTP/1.0 200 OK\r\n\r\n".to_vec();
            out.extend_from_slice(&ringcast::proto::flv::file_header(true, true));
            for i in 0..5u32 {
                let body = [0xaf, 1, i as u8];
                ringcast::proto::flv::write_tag(&mut out, Kind::Audio, i * 23, &body);
            }
            socket.write_all(&out).unwrap();
            peer.ip()
        });
        let url = format!("http://127.0.0.1:{port}/live/s.flv");
        let source = "127.0.0.9".parse().unwrap();
        let mut player = FlvPlayer::connect_from(&url, Some(source)).unwrap();
        let frames = player.frames(5).unwrap();
        assert_eq!(frames[4].payload, [0xaf, 1, 4]);
        assert_eq!(frames[4].sha256(), sha256(&[0xaf, 1, 4]));
        assert_eq!(frames[4].timestamp, 92);
        assert!(matches!(player.next_message(), Err(ClientError::Closed)));
        assert_eq!(server.join().unwrap(), source);
    }
}

//! `ringcast demo`: publishes the built-in test stream to this very server, by RTMP as anybody
//! else would.

use std::io::{self, Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use crate::config::{Config, ListenAddr};
use crate::fault::Fault;
use crate::media::Kind;
use crate::proto::flv::TagReader;
use crate::proto::rtmp::client::{Client, ClientOptions, Event, HandshakeKind, Role};
use crate::proto::rtmp::server::PublishKind;

/// The stream's name.
pub const STREAM: &str = "live/demo";

/// Made by `ci/make-demo-clip.sh` from ffmpeg's own test sources.
static CLIP: &[u8] = include_bytes!("../demo/clip.flv");

/// Chunk size towards the server, bytes: no picture of the clip is larger.
const CHUNK_SIZE: u32 = 60_000;

/// One message of the clip.
struct Tag {
    kind: Kind,
    timestamp: u32,
    body: Vec<u8>,
    /// Sequence headers and metadata are sent once.
    once: bool,
}

/// The clip and how long it lasts.
struct Clip {
    tags: Vec<Tag>,
    loop_ms: u32,
}

/// The URLs the demo can be played at, as lines for people.
pub fn urls(config: &Config) -> String {
    let mut out = String::new();
    let host = |listen: &ListenAddr, standard: u16| {
        let addr = reachable(listen);
        if addr.port() == standard { addr.ip().to_string() } else { addr.to_string() }
    };
    if let Some(listen) = config.listen.first() {
        out.push_str(&format!("  RTMP       rtmp://{}/{STREAM}\n", host(listen, 1935)));
    }
    if let (true, Some(listen)) = (config.http_server.enabled, config.http_server.listen.first()) {
        let http = host(listen, 80);
        out.push_str(&format!("  HTTP-FLV   http://{http}/{STREAM}.flv\n"));
        out.push_str(&format!("  WebSocket  ws://{http}/{STREAM}.flv\n"));
        out.push_str(&format!("  Browser    http://{http}/?stream={STREAM}&autoplay=1\n"));
    }
    out
}

/// Publishes for ever; connects again when the connection is lost.
pub fn publish(config: &Config) {
    let Some(listen) = config.listen.first() else { return };
    let addr = reachable(listen);
    let clip = match Clip::read() {
        Ok(clip) => clip,
        Err(error) => {
            return tracing::error!(
                reason = Fault::PartFailed.name(),
                "the built-in clip cannot be read: {error}"
            );
        }
    };
    loop {
        if let Err(error) = publish_once(addr, &clip) {
            tracing::warn!(
                reason = Fault::PartFailed.name(),
                "demo publisher: {error}; trying again in a second"
            );
        }
        std::thread::sleep(Duration::from_secs(1));
    }
}

fn publish_once(addr: SocketAddr, clip: &Clip) -> io::Result<()> {
    let mut socket = TcpStream::connect_timeout(&addr, Duration::from_secs(5))?;
    socket.set_nodelay(true)?;
    socket.set_read_timeout(Some(Duration::from_secs(10)))?;
    let (app, name) = STREAM.split_once('/').unwrap_or((STREAM, ""));
    let mut client = Client::new(ClientOptions {
        tc_url: format!("rtmp://{addr}/{app}"),
        app: app.to_string(),
        stream: name.to_string(),
        role: Role::Publish,
        chunk_size: CHUNK_SIZE,
        flash_ver: format!("FMLE/3.0 (compatible; {})", crate::version::SERVER),
        page_url: None,
        handshake: HandshakeKind::Simple,
        publish_sequence: PublishKind::Fmle,
        seed: 0,
    });
    let mut buffer = [0; 16 << 10];
    loop {
        let output = std::mem::take(client.output());
        socket.write_all(&output)?;
        let len = socket.read(&mut buffer)?;
        if len == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if is_publishing(&mut client, &buffer[..len])? {
            break;
        }
    }
    let began = Instant::now();
    let mut base = 0u32;
    for tag in clip.tags.iter().filter(|t| t.once) {
        client.write_message(tag.kind, 0, &tag.body);
    }
    loop {
        for tag in clip.tags.iter().filter(|t| !t.once) {
            let timestamp = base.wrapping_add(tag.timestamp);
            let due = began + Duration::from_millis(u64::from(timestamp));
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
            client.write_message(tag.kind, timestamp, &tag.body);
            socket.write_all(client.output())?;
            client.output().clear();
        }
        base = base.wrapping_add(clip.loop_ms);
        drain(&mut socket, &mut client, &mut buffer)?;
    }
}

/// Feeds the client; true when the server lets it publish.
fn is_publishing(client: &mut Client, mut input: &[u8]) -> io::Result<bool> {
    let invalid = |error: &dyn std::fmt::Display| io::Error::other(error.to_string());
    while let Some(event) = client.poll(&mut input).map_err(|e| invalid(&e))? {
        match event {
            Event::Publishing => return Ok(true),
            Event::Refused { .. } => return Err(invalid(&"the server refused the publish")),
            _ => {}
        }
    }
    Ok(false)
}

/// Takes what the server says (acknowledgements), without waiting.
fn drain(socket: &mut TcpStream, client: &mut Client, buffer: &mut [u8]) -> io::Result<()> {
    socket.set_nonblocking(true)?;
    let outcome = loop {
        match socket.read(buffer) {
            Ok(0) => break Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(len) => {
                if let Err(error) = is_publishing(client, &buffer[..len]) {
                    break Err(error);
                }
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => break Ok(()),
            Err(error) => break Err(error),
        }
    };
    socket.set_nonblocking(false)?;
    outcome
}

impl Clip {
    fn read() -> Result<Clip, crate::proto::flv::Error> {
        let mut reader = TagReader::new();
        let mut input = CLIP;
        let mut tags = Vec::new();
        let mut video: Vec<u32> = Vec::new();
        while let Some(tag) = reader.poll(&mut input)? {
            let kind = tag.kind;
            // FLV E.4.2 and E.4.3: a second byte of 0 is the sequence header of AAC and AVC.
            let once = kind == Kind::Data || tag.body.get(1) == Some(&0);
            if kind == Kind::Video && !once {
                video.push(tag.timestamp);
            }
            tags.push(Tag { kind, timestamp: tag.timestamp, body: tag.body.to_vec(), once });
        }
        // The clip lasts one frame longer than its last frame's time.
        let first = video.first().copied().unwrap_or(0);
        let last = video.last().copied().unwrap_or(0);
        let frames = video.len().max(2) as u32;
        let frame_ms = (last - first) / (frames - 1);
        Ok(Clip { tags, loop_ms: last - first + frame_ms })
    }
}

/// An address by which this machine reaches a listener of its own.
pub(super) fn reachable(listen: &ListenAddr) -> SocketAddr {
    match *listen {
        ListenAddr::Port(port) => SocketAddr::from((Ipv4Addr::LOCALHOST, port)),
        ListenAddr::Addr(addr) => match addr.ip() {
            IpAddr::V4(ip) if ip.is_unspecified() => (Ipv4Addr::LOCALHOST, addr.port()).into(),
            IpAddr::V6(ip) if ip.is_unspecified() => (Ipv6Addr::LOCALHOST, addr.port()).into(),
            _ => addr,
        },
    }
}

//! A simulated publisher: an RTMP client that publishes a stream again and again.

use std::net::SocketAddr;

use uring::sim::{Peer, Random, SimWorld};

use super::media::{self, AudioKind, Ledger, VideoKind};
use super::server::RTMP;
use crate::media::Kind;
use crate::proto::rtmp::client::{Client, ClientOptions, Event, HandshakeKind, Role};
use crate::proto::rtmp::server::PublishKind;

const MS: u64 = 1_000_000;

/// How a publisher's stay ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// unpublish; the next stay is on the same connection.
    Unpublish,
    /// unpublish, then close.
    UnpublishAndClose,
    Close,
    Reset,
    /// Sends no more and keeps the connection; the server has to notice.
    Silence,
}

/// One stay of a publisher.
#[derive(Clone, Debug)]
pub struct Stay {
    /// Pause before it, ms.
    pub after_ms: u64,
    /// Length, ms.
    pub for_ms: u64,
    pub video: Option<VideoKind>,
    pub audio: Option<AudioKind>,
    pub fps: u64,
    /// Frames from keyframe to keyframe.
    pub gop: u64,
    /// Bytes of a keyframe and of another frame.
    pub sizes: (usize, usize),
    /// Every so many keyframes one has this many bytes.
    pub large: Option<(u64, usize)>,
    /// First timestamp.
    pub wire: u32,
    /// Every so many frames the headers change.
    pub change_headers: Option<u64>,
    /// Every so many frames the headers are repeated.
    pub repeat_headers: Option<u64>,
    /// Frames come in bursts of that many milliseconds.
    pub burst_ms: u64,
    pub chunk_size: u32,
    pub ending: Ending,
    pub metadata: bool,
}

#[derive(Debug, PartialEq, Eq)]
enum State {
    /// Until then, ns.
    Waiting(u64),
    Starting {
        since: u64,
    },
    Live {
        epoch: usize,
        began: u64,
    },
    Done,
}

pub struct Publisher {
    pub stream: usize,
    name: String,
    stays: Vec<Stay>,
    next: usize,
    state: State,
    conn: Option<(Peer, Client)>,
    /// Silent connections, kept open.
    silent: Vec<Peer>,
    video_frames: u64,
    audio_frames: u64,
    sent_frames: u64,
    /// Of its headers.
    version: u32,
    pub log: bool,
}

/// Versions are unique over all publishers of a run.
pub type Versions = u32;

impl Publisher {
    pub fn new(stream: usize, name: String, stays: Vec<Stay>) -> Publisher {
        let first = stays.first().map_or(0, |stay| stay.after_ms);
        Publisher {
            stream,
            name,
            stays,
            next: 0,
            state: State::Waiting(first * MS),
            conn: None,
            silent: Vec::new(),
            video_frames: 0,
            audio_frames: 0,
            sent_frames: 0,
            version: 0,
            log: false,
        }
    }

    pub fn close(&mut self) {
        if let Some((peer, _)) = self.conn.take() {
            peer.close();
        }
        for peer in self.silent.drain(..) {
            peer.close();
        }
        self.state = State::Done;
    }

    /// Does what is due. `stream` is the server's view of its stream: id, messages, resumptions.
    pub fn act(
        &mut self,
        world: &SimWorld,
        random: &mut Random,
        ledger: &mut Ledger,
        versions: &mut Versions,
        stream: impl Fn() -> Option<(u64, u64, u64)>,
    ) {
        let now = world.now();
        match self.state {
            State::Done => return,
            State::Waiting(until) if now < until => {
                self.drain();
                return;
            }
            State::Waiting(_) => self.begin(world, random),
            State::Starting { .. } | State::Live { .. } => {}
        }
        let Some((peer, client)) = &mut self.conn else { return };
        let bytes = peer.read();
        let mut input = &bytes[..];
        let mut started = false;
        let mut failed = None;
        loop {
            match client.poll(&mut input) {
                Ok(Some(Event::Publishing)) => started = true,
                Ok(Some(Event::Refused { code, .. })) => failed = Some(code),
                Ok(Some(_)) => {}
                Ok(None) => break,
                Err(error) => panic!("publisher of {}: {error}", self.name),
            }
        }
        let output = std::mem::take(client.output());
        peer.write(output);
        if started {
            let (id, count, resumed) = stream().expect("it is published");
            ledger.accept(id, count, now);
            if let Some(before) = ledger.epochs.len().checked_sub(1) {
                ledger.epochs[before].over = true;
            }
            let epoch = ledger.begin(id, count, resumed);
            if self.log {
                let log = ledger.epochs[epoch].log;
                eprintln!("{now:>12} {}: epoch {epoch} of log {log}", self.name);
            }
            self.state = State::Live { epoch, began: now };
            (self.video_frames, self.audio_frames, self.sent_frames) = (0, 0, 0);
            self.write_headers(ledger, versions, true, true);
        }
        let ended = self.conn.as_ref().is_some_and(|(peer, _)| peer.ended().is_some());
        if ended || failed.is_some() {
            // Refused because another one publishes, or the network broke the connection.
            let was_live = matches!(self.state, State::Live { .. });
            if let Some((peer, _)) = self.conn.take() {
                peer.close();
            }
            if was_live {
                self.stay_is_over(now);
            } else {
                self.state = State::Waiting(now + (100 + random.below(300)) * MS);
            }
            return;
        }
        match self.state {
            State::Live { began, .. } => {
                self.write_frames(now - began, ledger, versions);
                if now - began >= self.stays[self.next].for_ms * MS {
                    self.end(now);
                }
            }
            State::Starting { since } if now - since > 12_000 * MS => {
                panic!("{}: no answer to publish within 12 s", self.name)
            }
            _ => {}
        }
    }

    /// Replies to a connection between two stays.
    fn drain(&mut self) {
        if let Some((peer, client)) = &mut self.conn {
            let bytes = peer.read();
            let mut input = &bytes[..];
            while client.poll(&mut input).expect("good replies").is_some() {}
            if peer.ended().is_some() {
                peer.close();
                self.conn = None;
            }
        }
    }

    fn begin(&mut self, world: &SimWorld, random: &mut Random) {
        let now = world.now();
        self.state = State::Starting { since: now };
        if let Some((peer, client)) = &mut self.conn
            && peer.ended().is_none()
        {
            client.reopen(&self.name);
            let output = std::mem::take(client.output());
            peer.write(output);
            return;
        }
        let stay = &self.stays[self.next];
        let sequences = [PublishKind::Fmle, PublishKind::Flash, PublishKind::Haivision];
        let mut client = Client::new(ClientOptions {
            tc_url: "rtmp://127.0.0.1/live".into(),
            app: "live".into(),
            stream: self.name.clone(),
            role: Role::Publish,
            chunk_size: stay.chunk_size,
            flash_ver: "sim".into(),
            page_url: None,
            handshake: if random.below(2) == 0 {
                HandshakeKind::Simple
            } else {
                HandshakeKind::Complex
            },
            publish_sequence: sequences[random.below(3) as usize],
            seed: random.bits(),
        });
        let peer = world.connect(SocketAddr::from(RTMP));
        let output = std::mem::take(client.output());
        peer.write(output);
        self.conn = Some((peer, client));
    }

    fn end(&mut self, now: u64) {
        let ending = self.stays[self.next].ending;
        if self.log {
            eprintln!("{now:>12} {}: ends by {ending:?}", self.name);
        }
        if let Some((peer, mut client)) = self.conn.take() {
            match ending {
                Ending::Unpublish | Ending::UnpublishAndClose => {
                    client.unpublish();
                    let output = std::mem::take(client.output());
                    peer.write(output);
                    if ending == Ending::Unpublish {
                        self.conn = Some((peer, client));
                    } else {
                        peer.half_close();
                        self.silent.push(peer);
                    }
                }
                Ending::Close => {
                    peer.half_close();
                    self.silent.push(peer);
                }
                Ending::Reset => peer.reset(),
                Ending::Silence => self.silent.push(peer),
            }
        }
        self.stay_is_over(now);
    }

    fn stay_is_over(&mut self, now: u64) {
        self.next += 1;
        self.state = match self.stays.get(self.next) {
            Some(stay) => State::Waiting(now + stay.after_ms * MS),
            None => State::Done,
        };
    }

    fn write_headers(
        &mut self,
        ledger: &mut Ledger,
        versions: &mut Versions,
        fresh: bool,
        change: bool,
    ) {
        let stay = &self.stays[self.next];
        let Some((peer, client)) = &mut self.conn else { return };
        let wire = stay.wire.wrapping_add(clock(self.video_frames, stay.fps) as u32);
        if fresh && stay.metadata {
            let payload = media::metadata(stay.video.is_some(), stay.audio.is_some(), *versions);
            client.write_metadata(wire, &payload);
            let output = std::mem::take(client.output());
            peer.write(output);
        }
        if fresh || change {
            *versions += 1;
            self.version = *versions;
        }
        let version = self.version;
        let (peer, client) = (peer.clone(), client);
        if let Some(kind) = stay.video {
            let payload = media::video_header(kind, version);
            ledger.header(Kind::Video, wire, &payload, version);
            client.write_message(Kind::Video, wire, &payload);
        }
        if stay.audio == Some(AudioKind::Aac) {
            let payload = media::audio_header(version);
            ledger.header(Kind::Audio, wire, &payload, version);
            client.write_message(Kind::Audio, wire, &payload);
        }
        let output = std::mem::take(client.output());
        peer.write(output);
    }

    /// Writes the frames that are due after that time of the stay, ns.
    fn write_frames(&mut self, elapsed: u64, ledger: &mut Ledger, versions: &mut Versions) {
        let stay = self.stays[self.next].clone();
        let upto = elapsed / MS / stay.burst_ms.max(1) * stay.burst_ms.max(1);
        loop {
            let video = stay.video.map(|_| clock(self.video_frames, stay.fps));
            // Audio frames have a rhythm of their own.
            let audio = stay.audio.map(|_| 7 + self.audio_frames * 1024 * 1000 / 11_025);
            let (is_video, at) = match (video, audio) {
                (Some(v), Some(a)) if a < v => (false, a),
                (Some(v), _) => (true, v),
                (None, Some(a)) => (false, a),
                (None, None) => return,
            };
            if at > upto {
                return;
            }
            self.sent_frames += 1;
            let gop_starts = is_video && self.video_frames.is_multiple_of(stay.gop);
            let due = |every: Option<u64>| every.is_some_and(|n| self.sent_frames > n);
            if gop_starts && due(stay.change_headers) {
                self.sent_frames = 0;
                self.write_headers(ledger, versions, false, true);
            } else if due(stay.repeat_headers) {
                self.sent_frames = 0;
                self.write_headers(ledger, versions, false, false);
            }
            self.write_frame(&stay, is_video, at, ledger);
        }
    }

    fn write_frame(&mut self, stay: &Stay, is_video: bool, at: u64, ledger: &mut Ledger) {
        let index = ledger.sent.len();
        let wire = stay.wire.wrapping_add(at as u32);
        let (kind, payload, keyframe) = if is_video {
            let keyframe = self.video_frames.is_multiple_of(stay.gop);
            let number = self.video_frames / stay.gop;
            let len = match stay.large {
                Some((every, len)) if keyframe && number % every == every - 1 => len,
                _ if keyframe => stay.sizes.0,
                _ => stay.sizes.1 / 2 + (self.video_frames * 37) as usize % stay.sizes.1.max(1),
            };
            // B-frames: composition times that jump about.
            let cts = [40u8, 120, 80, 0][(self.video_frames % 4) as usize];
            let head = match (stay.video, keyframe) {
                (Some(VideoKind::Hevc), true) => [&b"\x91hvc1"[..], &[0, 0, cts]].concat(),
                (Some(VideoKind::Hevc), false) => [&b"\xa1hvc1"[..], &[0, 0, cts]].concat(),
                (_, true) => vec![0x17, 1, 0, 0, cts],
                (_, false) => vec![0x27, 1, 0, 0, cts],
            };
            self.video_frames += 1;
            (Kind::Video, media::frame(&head, self.stream, index, len), keyframe)
        } else {
            let head: &[u8] =
                if stay.audio == Some(AudioKind::Aac) { &[0xaf, 1] } else { &[0x2f, 0xff] };
            let len = 40 + (self.audio_frames * 13) as usize % 200;
            self.audio_frames += 1;
            (Kind::Audio, media::frame(head, self.stream, index, len), false)
        };
        ledger.frame(kind, wire, &payload, keyframe);
        if let Some((peer, client)) = &mut self.conn {
            client.write_message(kind, wire, &payload);
            let output = std::mem::take(client.output());
            peer.write(output);
        }
    }
}

/// Time of a frame in its stay, ms.
fn clock(frame: u64, fps: u64) -> u64 {
    frame * 1000 / fps
}

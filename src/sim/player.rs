//! A simulated player of any format, and what it checks of everything it receives.

use std::net::SocketAddr;

use uring::Ended;
use uring::sim::{Peer, Random, SimWorld};

use super::media::{Ledger, Link};
use super::server::{HTTP, RTMP};
use crate::hub::Format;
use crate::media::Kind;
use crate::proto::flv::TagReader;
use crate::proto::http::{ChunkedDecoder, Piece, parse_response};
use crate::proto::rtmp::client::{self, Client, ClientOptions, HandshakeKind, Role};
use crate::proto::rtmp::server::PublishKind;
use crate::proto::ws;

const MS: u64 = 1_000_000;

/// How a player behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manner {
    /// Reads all there is at once.
    Healthy,
    /// Reads for a while, then not for a while, ms.
    Slow { on_ms: u64, off_ms: u64 },
    /// Stops reading at a time of its stay, for so long, ms; again after the same time.
    Stalls { at_ms: u64, for_ms: u64 },
    /// RTMP: pauses at a time of its stay, for so long, ms; again after the same time.
    Pauses { at_ms: u64, for_ms: u64 },
    /// RTMP: closeStream and play again on the same connection, every so often, ms.
    Replays { every_ms: u64 },
}

/// How a player leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leaving {
    Close,
    Reset,
    HalfClose,
}

/// A player's script.
#[derive(Clone, Debug)]
pub struct Script {
    pub format: Format,
    pub manner: Manner,
    pub join_ms: u64,
    /// Comes again with a new connection after staying for so long, ms.
    pub stay_ms: Option<u64>,
    pub leaving: Leaving,
}

/// What all players of a run have to expect.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    /// The network is fast enough for every stream: who reads sees every message.
    pub ample: bool,
    /// The network may break connections.
    pub resets: bool,
    /// Connections may be turned away.
    pub refusals: bool,
    /// How fast a message is at a healthy player.
    pub link: Link,
    /// Every player has its own time base.
    pub rebased: bool,
    /// `queue_length`, ms.
    pub queue_ms: i64,
    /// Media memory may be used up: messages may be missing for everybody.
    pub memory_short: bool,
    /// Players begin at a keyframe and go on at one.
    pub keyframe_starts: bool,
}

enum Wire {
    Rtmp(Box<Client>),
    Http { head: Vec<u8>, nonce: Option<[u8; 16]> },
    Chunked(ChunkedDecoder, TagReader),
    Plain(TagReader),
    WebSocket(Box<ws::Reader>, TagReader),
}

/// A message that arrived.
struct Arrived {
    kind: Kind,
    time: u32,
    payload: Vec<u8>,
}

/// What has been seen since the stream was joined.
#[derive(Debug, Default)]
struct Seen {
    last: Option<usize>,
    /// Versions of the headers received last (audio, video).
    headers: [Option<u32>; 2],
    /// Stream time of the last message, unrolled, ms.
    time: Option<i64>,
    /// A message went back in time; right only if the log it belongs to is a new one.
    back: Option<String>,
    /// Own time base: the epoch it holds for, and the distance.
    base: Option<(usize, i64)>,
    /// When the first frame came, ns.
    first_at: u64,
    /// The first frame of the log, and its time as it came, ms.
    first: Option<(usize, i64)>,
    /// A picture came already since joining or since the last gap.
    picture: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Away {
        until: u64,
    },
    /// Connected at.
    Here {
        since: u64,
    },
    Done,
}

pub struct Player {
    pub id: usize,
    pub script: Script,
    pub stream: usize,
    name: String,
    /// Its timestamps are its own.
    rebased: bool,
    state: State,
    conn: Option<(Peer, Wire)>,
    seen: Seen,
    started: bool,
    reading: bool,
    paused: bool,
    turned_at: u64,
    /// The body has ended in good order.
    complete: bool,
    /// Gaps seen.
    pub gaps: u64,
    pub frames: u64,
    pub ends: u64,
    /// Longest delay of a frame, ns.
    pub delay: u64,
    pub log: bool,
}

fn millis(ns: u64) -> f64 {
    ns as f64 / MS as f64
}

impl Player {
    pub fn new(id: usize, stream: usize, name: String, script: Script, rebased: bool) -> Player {
        let until = script.join_ms * MS;
        Player {
            id,
            script,
            stream,
            name,
            rebased,
            state: State::Away { until },
            conn: None,
            seen: Seen::default(),
            started: false,
            reading: true,
            paused: false,
            turned_at: 0,
            complete: false,
            gaps: 0,
            frames: 0,
            ends: 0,
            delay: 0,
            log: false,
        }
    }

    /// True when it reads all the time and stays.
    pub fn is_healthy(&self) -> bool {
        self.script.manner == Manner::Healthy
    }

    pub fn last(&self) -> Option<usize> {
        self.seen.last
    }

    /// True when it is connected and has been seen to play since.
    pub fn is_playing(&self) -> bool {
        self.conn.is_some() && self.started
    }

    pub fn close(&mut self) {
        if let Some((peer, _)) = self.conn.take() {
            peer.close();
        }
        self.state = State::Done;
    }

    /// Reads on, whatever its manner, until it is closed.
    pub fn settle(&mut self) {
        self.script.manner = match self.script.manner {
            Manner::Healthy => Manner::Healthy,
            // Not to be judged as healthy: what it missed it missed.
            _ => Manner::Slow { on_ms: u64::MAX, off_ms: 0 },
        };
        self.script.stay_ms = None;
        if self.paused {
            self.pause(false);
        }
        if let Some((peer, _)) = &self.conn {
            peer.set_reading(true);
        }
        self.reading = true;
    }

    fn fail(&self, what: &str) -> ! {
        panic!(
            "player {} ({}, {:?}) of {}: {what}\nseen: {:?}",
            self.id,
            self.script.format.name(),
            self.script.manner,
            self.name,
            self.seen
        )
    }

    /// Does what is due.
    pub fn act(
        &mut self,
        world: &SimWorld,
        random: &mut Random,
        ledger: &mut Ledger,
        rules: &Rules,
    ) {
        let now = world.now();
        match self.state {
            State::Done => return,
            State::Away { until } if now < until => return,
            State::Away { .. } => self.connect(world, random),
            State::Here { .. } => {}
        }
        self.read(now, ledger, rules);
        let State::Here { since } = self.state else { return };
        if self.script.stay_ms.is_some_and(|ms| now - since >= ms * MS) {
            self.leave(now, random);
            return;
        }
        self.behave(now, since);
    }

    fn connect(&mut self, world: &SimWorld, random: &mut Random) {
        let now = world.now();
        self.state = State::Here { since: now };
        self.turned_at = now;
        self.seen = Seen::default();
        self.started = false;
        self.complete = false;
        self.reading = true;
        self.paused = false;
        let path = format!("/live/{}.flv", self.name);
        let mut nonce = None;
        let (target, request, wire) = match self.script.format {
            Format::Rtmp => {
                let mut client = Client::new(ClientOptions {
                    tc_url: "rtmp://127.0.0.1/live".into(),
                    app: "live".into(),
                    stream: self.name.clone(),
                    role: Role::Play,
                    chunk_size: 4096,
                    flash_ver: "sim".into(),
                    page_url: None,
                    handshake: HandshakeKind::Simple,
                    publish_sequence: PublishKind::Fmle,
                    seed: random.bits(),
                });
                let request = std::mem::take(client.output());
                (RTMP, request, Wire::Rtmp(Box::new(client)))
            }
            format => {
                let request = match format {
                    Format::Flv => format!("GET {path} HTTP/1.0\r\n\r\n").into_bytes(),
                    Format::FlvChunked => {
                        format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n").into_bytes()
                    }
                    _ => {
                        let mut bytes = [0; 16];
                        bytes[..8].copy_from_slice(&random.bits().to_le_bytes());
                        nonce = Some(bytes);
                        ws::client_request("x", &path, bytes)
                    }
                };
                (HTTP, request, Wire::Http { head: Vec::new(), nonce })
            }
        };
        let peer = world.connect(SocketAddr::from(target));
        if self.log {
            eprintln!("{now:>12} player {} connects as peer {}", self.id, peer.id());
        }
        peer.write(request);
        self.conn = Some((peer, wire));
    }

    fn leave(&mut self, now: u64, random: &mut Random) {
        if self.log {
            eprintln!("{now:>12} player {} leaves by {:?}", self.id, self.script.leaving);
        }
        if let Some((peer, _)) = self.conn.take() {
            match self.script.leaving {
                Leaving::Close => peer.close(),
                Leaving::Reset => peer.reset(),
                Leaving::HalfClose => {
                    peer.half_close();
                    // Its window stays open, so that what is on the way is taken.
                    peer.set_reading(true);
                }
            }
        }
        let formats = Format::VERBATIM;
        if !matches!(self.script.manner, Manner::Pauses { .. } | Manner::Replays { .. }) {
            self.script.format = formats[random.below(4) as usize];
        }
        self.state = State::Away { until: now + random.within(1, 1500) * MS };
    }

    fn pause(&mut self, paused: bool) {
        if let Some((peer, Wire::Rtmp(client))) = &mut self.conn
            && client.is_running()
        {
            self.paused = paused;
            client.pause(paused, 0.0);
            peer.write(std::mem::take(client.output()));
        }
    }

    fn behave(&mut self, now: u64, since: u64) {
        let Some((peer, wire)) = &mut self.conn else { return };
        let stayed = (now - since) / MS;
        match self.script.manner {
            Manner::Healthy => {}
            Manner::Slow { on_ms, off_ms } => {
                let period = on_ms.saturating_add(off_ms);
                let reading = stayed % period < on_ms;
                if reading != self.reading {
                    peer.set_reading(reading);
                    self.reading = reading;
                }
            }
            Manner::Stalls { at_ms, for_ms } => {
                let reading = stayed % (at_ms + for_ms) < at_ms;
                if reading != self.reading {
                    if self.log {
                        eprintln!("{now:>12} player {} reads: {reading}", self.id);
                    }
                    peer.set_reading(reading);
                    self.reading = reading;
                }
            }
            Manner::Pauses { at_ms, for_ms } => {
                let paused = stayed % (at_ms + for_ms) >= at_ms;
                if paused != self.paused {
                    if self.log {
                        eprintln!("{now:>12} player {} paused: {paused}", self.id);
                    }
                    self.pause(paused);
                }
            }
            Manner::Replays { every_ms } => {
                if let Wire::Rtmp(client) = wire
                    && now - self.turned_at >= every_ms * MS
                    && client.is_running()
                {
                    self.turned_at = now;
                    client.close_stream();
                    // Three ways: wait for nothing, all in one write; or with a pause.
                    client.reopen(&self.name);
                    peer.write(std::mem::take(client.output()));
                    self.seen = Seen::default();
                    self.started = false;
                    if self.log {
                        eprintln!("{now:>12} player {} plays again", self.id);
                    }
                }
            }
        }
    }

    fn read(&mut self, now: u64, ledger: &mut Ledger, rules: &Rules) {
        let Some((peer, _)) = &self.conn else { return };
        let bytes = peer.read();
        let ended = peer.ended();
        let arrived = match self.parse(&bytes) {
            Ok(arrived) => arrived,
            Err(what) => self.fail(&what),
        };
        for message in arrived {
            self.message(now, &message, ledger, rules);
        }
        if let Some(ended) = ended {
            self.ended(now, ended, ledger, rules);
        }
    }

    /// Takes the framing off. Every error in here is the server's.
    fn parse(&mut self, bytes: &[u8]) -> Result<Vec<Arrived>, String> {
        let mut arrived = Vec::new();
        let Some((peer, wire)) = &mut self.conn else { return Ok(arrived) };
        let mut owned;
        let mut input = bytes;
        if let Wire::Http { head, nonce } = wire {
            head.extend_from_slice(bytes);
            let parsed = parse_response(head).map_err(|e| format!("{e:?} in {head:?}"))?;
            let Some((response, len)) = parsed else { return Ok(arrived) };
            owned = std::mem::take(head);
            owned.drain(..len);
            input = &owned;
            let wanted = if nonce.is_some() { 101 } else { 200 };
            if response.status != wanted {
                return Err(format!("status {}", response.status));
            }
            if let Some(nonce) = nonce {
                ws::client_accepted(&response, *nonce).map_err(|e| format!("{e:?}"))?;
            }
            *wire = match self.script.format {
                Format::FlvWebSocket => Wire::WebSocket(
                    Box::new(ws::Reader::new(ws::From::Server, 32 << 20)),
                    TagReader::new(),
                ),
                _ if response.chunked => Wire::Chunked(ChunkedDecoder::new(), TagReader::new()),
                _ => Wire::Plain(TagReader::new()),
            };
        }
        let mut flv = |tags: &mut TagReader, mut data: &[u8]| -> Result<(), String> {
            while let Some(tag) = tags.poll(&mut data).map_err(|e| e.to_string())? {
                let kind = tag.kind;
                arrived.push(Arrived { kind, time: tag.timestamp, payload: tag.body.to_vec() });
            }
            Ok(())
        };
        match wire {
            Wire::Http { .. } => {}
            Wire::Plain(tags) => flv(tags, input)?,
            Wire::Chunked(decoder, tags) => loop {
                match decoder.decode(&mut input).map_err(|e| format!("{e:?}"))? {
                    Piece::Data(data) => flv(tags, data)?,
                    Piece::More => break,
                    Piece::End => {
                        if !input.is_empty() || !tags.at_boundary() {
                            return Err(format!("{} bytes behind the end", input.len()));
                        }
                        self.complete = true;
                        break;
                    }
                }
            },
            Wire::WebSocket(reader, tags) => {
                while let Some(event) = reader.poll(&mut input).map_err(|e| e.to_string())? {
                    match event {
                        ws::Event::Message { text: false, data } => flv(tags, data)?,
                        ws::Event::Close { code: Some(1001), .. } => {
                            if !tags.at_boundary() {
                                return Err("closed inside a tag".into());
                            }
                            self.complete = true;
                        }
                        other => return Err(format!("{other:?}")),
                    }
                }
            }
            Wire::Rtmp(client) => loop {
                match client.poll(&mut input).map_err(|e| e.to_string())? {
                    None => break,
                    Some(client::Event::Message(message)) => arrived.push(Arrived {
                        kind: message.kind,
                        time: message.timestamp,
                        payload: message.payload.to_vec(),
                    }),
                    Some(client::Event::Metadata { timestamp, payload }) => arrived.push(Arrived {
                        kind: Kind::Data,
                        time: timestamp,
                        payload: payload.to_vec(),
                    }),
                    Some(client::Event::Refused { code, .. }) => {
                        return Err(format!("refused: {code}"));
                    }
                    Some(_) => {}
                }
            },
        }
        if let Wire::Rtmp(client) = wire {
            let output = std::mem::take(client.output());
            peer.write(output);
        }
        if let Wire::Plain(tags) = wire {
            self.complete = tags.at_boundary();
        }
        Ok(arrived)
    }

    fn message(&mut self, now: u64, message: &Arrived, ledger: &mut Ledger, rules: &Rules) {
        // Metadata of a prologue is at 0, wherever a player joins.
        if message.kind == Kind::Data {
            return;
        }
        // 31 bits roll over; the nearest reading is meant.
        let time = match self.seen.time {
            None => i64::from(message.time & 0x7fff_ffff),
            Some(last) => last + ((i64::from(message.time) - last) << 33 >> 33),
        };
        if let Some(last) = self.seen.time
            && time < last
        {
            let what = format!("{:?} goes back from {last} to {time} ms", message.kind);
            self.seen.back.get_or_insert(what);
        }
        self.seen.time = Some(time);
        if self.log {
            let (id, kind, len) = (self.id, message.kind, message.payload.len());
            eprintln!("{now:>12} player {id} gets {kind:?} at {} of {len} bytes", message.time);
        }
        let track = usize::from(message.kind == Kind::Video);
        if let Some(version) = ledger.version(message.kind, &message.payload) {
            self.seen.headers[track] = Some(version);
            // Headers of a log that ended before its first frame say nothing of the next one.
            if self.seen.last.is_none() {
                self.seen.back = None;
            }
            return;
        }
        let index = match ledger.find(self.stream, message.kind, &message.payload) {
            Ok(index) => index,
            Err(what) => self.fail(&what),
        };
        self.frame(now, index, time, ledger, rules);
    }

    fn frame(&mut self, now: u64, index: usize, time: i64, ledger: &mut Ledger, rules: &Rules) {
        self.started = true;
        self.frames += 1;
        let sent = ledger.sent[index].clone();
        let log = ledger.log_of(index);
        let before = self.seen.last.filter(|&last| ledger.log_of(last) == log);
        // What was missed of the log before, when this is the first frame of another one.
        if let Some(last) = self.seen.last
            && before.is_none()
        {
            self.check_seen_to_end(last, ledger, rules);
            self.seen.picture = false;
            self.seen.back = None;
        }
        if let Some(what) = self.seen.back.take() {
            self.fail(&what);
        }
        let mut gap = false;
        if before.is_none() {
            self.seen.first = Some((index, time));
        }
        if let Some(last) = before {
            if index <= last {
                self.fail(&format!("frame {index} comes after frame {last}"));
            }
            let missing = ledger.missing(last, index);
            if missing > 0 {
                gap = true;
                self.gaps += 1;
                self.seen.picture = false;
                let excused = self.joined_in_a_long_gop(last, time, ledger, rules);
                if self.is_healthy() && rules.ample && !rules.memory_short && !excused {
                    let near = ledger.around(index);
                    self.fail(&format!("{missing} frames missing before frame {index}\n{near}"));
                }
                if self.log {
                    eprintln!("{now:>12} player {} misses {missing} before {index}", self.id);
                }
            }
        }
        let epoch = &ledger.epochs[sent.epoch];
        let video = sent.kind == Kind::Video;
        if video && !self.seen.picture && !sent.keyframe && rules.keyframe_starts {
            let how = if gap { "a gap" } else { "joining" };
            let near = ledger.around(index);
            self.fail(&format!("frame {index} after {how} is no keyframe\n{near}"));
        }
        self.seen.picture |= video;
        let track = usize::from(video);
        if sent.needs[track].is_some() && self.seen.headers[track] != sent.needs[track] {
            self.fail(&format!(
                "frame {index} needs header {:?} and has {:?}",
                sent.needs[track], self.seen.headers[track]
            ));
        }
        self.check_time(index, time, &sent, epoch.shift, ledger);
        if self.seen.last.is_none() {
            self.seen.first_at = now;
        }
        let accepted = sent.accepted_at.unwrap_or(now);
        // What was there when it joined came as fast as the network is.
        if before.is_some() && accepted > self.seen.first_at + 1_000 * MS {
            let delay = now - accepted;
            if self.is_healthy() {
                self.delay = self.delay.max(delay);
                if rules.ample && now > sent.due_at {
                    let due = sent.due_at.saturating_sub(accepted);
                    let took = format!("{:.1} and not {:.1} ms", millis(delay), millis(due));
                    self.fail(&format!("frame {index} took {took}"));
                }
            }
        }
        self.seen.last = Some(index);
    }

    /// Who joins a GOP that is longer than `queue_length` begins further behind than that. When
    /// the next keyframe comes before it has read the GOP, it goes on there, fast as it is.
    fn joined_in_a_long_gop(&self, last: usize, time: i64, ledger: &Ledger, rules: &Rules) -> bool {
        self.seen.first.is_some_and(|(first, joined)| {
            let one_gop = !ledger.sent[first + 1..=last].iter().any(|sent| sent.keyframe);
            one_gop && time - joined > rules.queue_ms
        })
    }

    /// The stream's timeline is the same for all; a player's own is a fixed distance from it.
    fn check_time(
        &mut self,
        index: usize,
        time: i64,
        sent: &super::media::Sent,
        shift: Option<i64>,
        ledger: &mut Ledger,
    ) {
        let mask = 0x7fff_ffff;
        if self.rebased {
            let distance = time - sent.time;
            match self.seen.base {
                Some((epoch, base)) if epoch == sent.epoch => {
                    if base != distance {
                        self.fail(&format!("frame {index}: own time moved {base} -> {distance}"));
                    }
                }
                _ => self.seen.base = Some((sent.epoch, distance)),
            }
            return;
        }
        match shift {
            Some(shift) => {
                if (time - sent.time - shift) & mask != 0 {
                    let wanted = (sent.time + shift) & mask;
                    self.fail(&format!("frame {index} is at {time} ms, not {wanted}"));
                }
            }
            None => ledger.epochs[sent.epoch].shift = Some(time - sent.time),
        }
    }

    /// A healthy player has seen every frame of a log when it is over.
    fn check_seen_to_end(&self, last: usize, ledger: &Ledger, rules: &Rules) {
        if !self.is_healthy() || !rules.ample || rules.memory_short {
            return;
        }
        let log = ledger.log_of(last);
        let end = (last + 1..ledger.sent.len())
            .filter(|&i| ledger.sent[i].is_for_players() && ledger.log_of(i) == log)
            .count();
        if end > 0 {
            self.fail(&format!("{end} frames missing at the end of log {log} (after {last})"));
        }
    }

    fn ended(&mut self, now: u64, ended: Ended, ledger: &Ledger, rules: &Rules) {
        if self.log {
            eprintln!("{now:>12} player {} ended: {ended:?}", self.id);
        }
        self.ends += 1;
        let excused = (rules.resets && ended != Ended::Eof)
            || (rules.refusals && self.seen.last.is_none())
            || !self.is_healthy()
            || !rules.ample;
        if !excused {
            if self.script.format == Format::Rtmp || ended != Ended::Eof {
                self.fail(&format!("the server closed it: {ended:?}"));
            }
            if !self.complete {
                self.fail("the body has no proper end");
            }
            // Without a frame it joined at the live end of a stream that ended just then.
            if let Some(last) = self.seen.last {
                self.check_seen_to_end(last, ledger, rules);
            }
        }
        if let Some((peer, _)) = self.conn.take() {
            peer.close();
        }
        self.state = State::Away { until: now + 700 * MS };
    }
}

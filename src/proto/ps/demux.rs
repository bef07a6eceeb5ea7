//! Program stream packets to access units, from bytes that may be anything.
//!
//! [`Demux`] is given bytes in pieces of any length and tells what it finds, as the one for
//! transport streams does. It bears with what live cameras send: no map, clocks that jump, packets
//! without a length, pictures in many packets. Nothing in the input makes it fail for good or
//! hold more than its limits: what is broken costs what is broken.

use memchr::memmem;

use super::guess::guess;
use super::pictures::{Pictures, Stamp};
use crate::limits;
use crate::media::codec::{AudioCodec, VideoCodec};
use crate::media::unit::TICKS_HZ;
use crate::proto::mpeg::pes::{self, Times};
use crate::proto::mpeg::{Carries, Damage, Event, Track, Unit, carries, frames};

/// Reads a program stream.
#[derive(Debug, Default)]
pub struct Demux {
    /// Bytes that are not a packet yet, and their place in the input.
    kept: Vec<u8>,
    at: u64,
    state: State,
    /// Bytes were passed over and that was not told yet.
    lost: bool,
    clock: Times,
    /// Times of any track, by which others are placed.
    times: Times,
    /// The last map.
    map: Vec<Track>,
    tracks: Vec<Track>,
    streams: Vec<Stream>,
    /// Changes of the map since the last unit.
    changes: u32,
}

/// What comes next in the input.
#[derive(Debug)]
enum State {
    /// A pack, looked for since this place.
    Lost(u64),
    /// A start code of this layer.
    Packets,
    /// More of a packet that does not say how long it is.
    Open(Vec<u8>),
}

impl Default for State {
    fn default() -> State {
        State::Lost(0)
    }
}

/// What is known of the packets of one stream id.
#[derive(Debug, Default)]
struct Stream {
    id: u8,
    /// Place among the tracks, once it is known what it carries.
    track: Option<usize>,
    pictures: Pictures,
    /// Audio: bytes of a frame that goes on in the next PES packet, and the time of its beginning.
    rest: Vec<u8>,
    rest_pts: Option<i64>,
    /// Payloads from which the codec is to be guessed, one behind the other, and the end of each.
    gathered: Vec<u8>,
    stamps: Vec<(usize, Stamp)>,
    /// Bytes of the longest packet and of the last one.
    longest: usize,
    last: usize,
}

/// Where a packet ends, or why that is not known.
enum Found {
    /// It is so long.
    Packet(usize),
    /// More bytes have to come.
    More,
    /// There is none.
    None,
}

/// Clock steps of more than this are jumps, ticks. 2.7.1 wants one each 700 ms, and cameras of one
/// picture a second send one with each.
const CLOCK_STEP_MAX: i64 = 2 * TICKS_HZ;
/// Bytes that are looked at in one go.
const PUSH_BYTES: usize = 64 << 10;
const START_CODE: &[u8] = &[0, 0, 1];
const CODE_END: u8 = 0xb9;
const CODE_PACK: u8 = 0xba;
const CODE_SYSTEM: u8 = 0xbb;
const CODE_MAP: u8 = 0xbc;

impl Demux {
    /// Nothing is known yet.
    pub fn new() -> Demux {
        Demux::default()
    }

    /// The tracks of the program.
    pub fn tracks(&self) -> &[Track] {
        &self.tracks
    }

    /// Takes the next bytes of the input.
    pub fn push(&mut self, bytes: &[u8], tell: &mut dyn FnMut(Event<'_>)) {
        // In pieces, so that nothing grows with what is pushed at once.
        for piece in bytes.chunks(PUSH_BYTES) {
            let mut kept = std::mem::take(&mut self.kept);
            kept.extend_from_slice(piece);
            let done = self.packets(&kept, false, tell);
            kept.drain(..done);
            self.kept = kept;
        }
    }

    /// Bytes are missing here, as whoever carried them knows: what was begun is left out, and a
    /// pack looked for.
    pub fn gap(&mut self, tell: &mut dyn FnMut(Event<'_>)) {
        self.at += self.kept.len() as u64;
        self.kept.clear();
        self.state = State::Lost(self.at);
        self.interrupt();
        tell(Event::Damage(Damage::Gap));
    }

    /// The input ends here. The last picture is told if its last packet shows that it is the last
    /// one; what is not known to be whole is not told.
    pub fn finish(&mut self, tell: &mut dyn FnMut(Event<'_>)) {
        let kept = std::mem::take(&mut self.kept);
        self.packets(&kept, true, tell);
        if std::mem::take(&mut self.lost) {
            tell(Event::Damage(Damage::Sync));
        }
        for stream in 0..self.streams.len() {
            // Packets are filled before another is begun. The one that was not is the last.
            let whole = self.streams[stream].last < self.streams[stream].longest;
            if !whole && self.streams[stream].pictures.is_open() {
                tell(Event::Damage(Damage::Unit));
                self.streams[stream].pictures.interrupt();
            }
            self.end(stream, tell);
        }
    }

    /// Goes through what is there. Returns how many bytes are done with.
    fn packets(&mut self, bytes: &[u8], last: bool, tell: &mut dyn FnMut(Event<'_>)) -> usize {
        let mut done = 0;
        loop {
            let rest = &bytes[done..];
            if rest.is_empty() {
                return done;
            }
            let (step, waits) = match &mut self.state {
                State::Lost(since) => {
                    let since = *since;
                    self.look_for_sync(rest, since, last, tell)
                }
                State::Packets => self.packet(rest, last, tell),
                State::Open(_) => self.open_packet(rest, last, tell),
            };
            done += step;
            self.at += step as u64;
            if waits {
                return done;
            }
        }
    }

    /// Bytes that are done with, and whether more have to come before anything else is.
    fn look_for_sync(
        &mut self,
        rest: &[u8],
        since: u64,
        last: bool,
        tell: &mut dyn FnMut(Event<'_>),
    ) -> (usize, bool) {
        // The first byte behind the start code of a pack tells more.
        const LOOK: usize = 5;
        let mut found = None;
        for code in memmem::find_iter(rest, START_CODE) {
            let Some(&[_, _, _, kind, next]) = rest.get(code..code + LOOK) else { break };
            let far = self.at + code as u64 - since > limits::PS_RESYNC_BYTES_MAX;
            let is_pack = kind == CODE_PACK && is_pack(next);
            if is_pack || far && (matches!(kind, CODE_SYSTEM | CODE_MAP) || is_stream(kind)) {
                found = Some(code);
                break;
            }
        }
        let step = match found {
            Some(code) => code,
            None if last => rest.len(),
            None => rest.len().saturating_sub(LOOK - 1),
        };
        self.lost |= step > 0;
        if found.is_some() {
            self.state = State::Packets;
            if std::mem::take(&mut self.lost) {
                tell(Event::Damage(Damage::Sync));
            }
        }
        (step, found.is_none())
    }

    /// No packet begins so many bytes from here. Everything that was begun may miss bytes.
    fn lose_sync(&mut self, bytes: usize) {
        self.lost = true;
        self.state = State::Lost(self.at + bytes as u64);
        self.interrupt();
    }

    /// One of pack header, system header, map, packet; zeros before it.
    fn packet(
        &mut self,
        rest: &[u8],
        last: bool,
        tell: &mut dyn FnMut(Event<'_>),
    ) -> (usize, bool) {
        let zeros = rest.iter().take_while(|byte| **byte == 0).count();
        if zeros == rest.len() {
            return (if last { zeros } else { zeros.saturating_sub(2) }, true);
        }
        if zeros > 2 {
            return (zeros - 2, false);
        }
        let Some(&[_, _, _, code]) = rest.get(..4) else {
            if last {
                self.lose_sync(0);
            }
            return (0, !last);
        };
        if !rest.starts_with(START_CODE) || code < CODE_END {
            self.lose_sync(0);
            return (0, false);
        }
        let found = match code {
            CODE_END => Found::Packet(4),
            CODE_PACK => pack_bytes(rest),
            _ => match rest.get(4..6) {
                Some(&[0, 0]) if is_stream(code) => {
                    self.state = State::Open(rest[..6].to_vec());
                    return (6, false);
                }
                // What comes behind it shows that it is as long as it says.
                Some(&[high, low]) => {
                    let len = 6 + usize::from(u16::from_be_bytes([high, low]));
                    match rest.get(len..len + 4) {
                        Some(&[0, 0, 0, _]) => Found::Packet(len),
                        Some(&[0, 0, 1, next]) if next >= CODE_END => Found::Packet(len),
                        Some(_) => Found::None,
                        None if last && rest.len() >= len => Found::Packet(len),
                        None => Found::More,
                    }
                }
                _ => Found::More,
            },
        };
        match found {
            Found::More if !last => (0, true),
            Found::More | Found::None => {
                let damage = if is_stream(code) { Damage::Unit } else { Damage::Packet };
                tell(Event::Damage(damage));
                // Whatever it says, it may be short, with the next pack inside.
                self.lose_sync(1);
                (1, false)
            }
            Found::Packet(len) => {
                let end = self.at + len as u64;
                self.take(code, &rest[..len], end, tell);
                (len, false)
            }
        }
    }

    /// More of a packet without a length: it ends where another begins.
    fn open_packet(
        &mut self,
        rest: &[u8],
        last: bool,
        tell: &mut dyn FnMut(Event<'_>),
    ) -> (usize, bool) {
        let State::Open(packet) = &mut self.state else { return (0, false) };
        let is_end = |code: &usize| rest.get(code + 3).is_some_and(|kind| *kind >= CODE_END);
        let end = memmem::find_iter(rest, START_CODE).find(is_end);
        let there = match end {
            Some(end) => end,
            None if last => rest.len(),
            // A start code may have begun.
            None => rest.len().saturating_sub(3),
        };
        let room = limits::PS_UNIT_BYTES_MAX - packet.len();
        if there > room {
            tell(Event::Damage(Damage::Limit));
            self.lose_sync(room);
            return (room, false);
        }
        packet.extend_from_slice(&rest[..there]);
        if end.is_none() && !last {
            return (there, true);
        }
        let packet = std::mem::take(packet);
        self.state = State::Packets;
        let place = self.at + there as u64;
        self.take(packet[3], &packet, place, tell);
        if end.is_none()
            && let Some(stream) = self.streams.iter_mut().find(|stream| stream.id == packet[3])
        {
            // Nothing shows that it ends where the input does.
            stream.last = usize::MAX;
        }
        (there, false)
    }

    /// Takes what is whole.
    fn take(&mut self, code: u8, packet: &[u8], end: u64, tell: &mut dyn FnMut(Event<'_>)) {
        match code {
            CODE_END => {
                for stream in 0..self.streams.len() {
                    self.end(stream, tell);
                }
                self.clock = Times::default();
            }
            CODE_PACK => match pack_clock(packet) {
                Some(clock) if self.clock.jump(clock, CLOCK_STEP_MAX) => {
                    tell(Event::Damage(Damage::Clock));
                }
                Some(_) => {}
                None => tell(Event::Damage(Damage::Packet)),
            },
            CODE_MAP if packet.len() > 6 + limits::PS_MAP_BYTES_MAX => {
                tell(Event::Damage(Damage::Limit));
            }
            CODE_MAP => self.take_map(packet, tell),
            // System headers, private streams, padding and what else there is say nothing of units.
            code if is_stream(code) => self.take_pes(code, packet, end, tell),
            _ => {}
        }
    }

    /// Looks at a map. Tracks that were known keep their places.
    fn take_map(&mut self, packet: &[u8], tell: &mut dyn FnMut(Event<'_>)) {
        let Some(map) = read_map(packet) else { return tell(Event::Damage(Damage::Table)) };
        let twice = |index: usize| map[..index].iter().any(|track| track.id == map[index].id);
        if (0..map.len()).any(twice) {
            return tell(Event::Damage(Damage::Table));
        }
        if map == self.map {
            return;
        }
        self.changes += 1;
        if self.changes > limits::PS_MAP_CHANGES_MAX {
            self.changes = limits::PS_MAP_CHANGES_MAX;
            return tell(Event::Damage(Damage::Limit));
        }
        let mut changed = false;
        for track in &map {
            let Some(stream) = self.stream(track.id as u8) else {
                tell(Event::Damage(Damage::Limit));
                continue;
            };
            match self.streams[stream].track {
                Some(place) if self.tracks[place] == *track => continue,
                Some(place) => {
                    self.end(stream, tell);
                    self.tracks[place] = *track;
                }
                None => {
                    self.streams[stream].track = Some(self.tracks.len());
                    self.tracks.push(*track);
                }
            }
            changed = true;
        }
        self.map = map;
        if changed {
            tell(Event::Tracks(&self.tracks));
        }
        for stream in 0..self.streams.len() {
            self.take_gathered(stream, tell);
        }
    }

    /// What is known of a stream id; `None`: there are too many.
    fn stream(&mut self, id: u8) -> Option<usize> {
        let known = self.streams.iter().position(|stream| stream.id == id);
        if known.is_none() && self.streams.len() < limits::PS_TRACKS_MAX {
            self.streams.push(Stream { id, ..Stream::default() });
            return Some(self.streams.len() - 1);
        }
        known
    }

    fn take_pes(&mut self, id: u8, packet: &[u8], end: u64, tell: &mut dyn FnMut(Event<'_>)) {
        let Some(index) = self.stream(id) else { return tell(Event::Damage(Damage::Limit)) };
        let stream = &mut self.streams[index];
        stream.last = packet.len();
        stream.longest = stream.longest.max(packet.len());
        let head = match packet.get(6) {
            Some(mark) if mark & 0xc0 == 0x80 => pes::read_head(packet),
            _ => pes::read_head_mpeg1(packet),
        };
        let damage = match &head {
            Some(head) if head.scrambled => Some(Damage::Encrypted),
            Some(_) => None,
            None => Some(Damage::Unit),
        };
        if let Some(damage) = damage {
            stream.interrupt();
            return tell(Event::Damage(damage));
        }
        let Some(head) = head else { return };
        let pts = head.pts.map(|pts| self.times.place(pts));
        let dts = head.dts.map(|dts| self.times.place(dts)).or(pts);
        let Some(data) = packet.get(head.len..).filter(|data| !data.is_empty()) else { return };
        let stamp = Stamp { pts, dts, end };
        match self.streams[index].track {
            Some(track) => self.payload(index, track, data, stamp, tell),
            None => self.gather(index, data, stamp, tell),
        }
    }

    /// Keeps what may tell the codec of a stream that no map tells of.
    fn gather(&mut self, index: usize, data: &[u8], stamp: Stamp, tell: &mut dyn FnMut(Event<'_>)) {
        let stream = &mut self.streams[index];
        stream.gathered.extend_from_slice(data);
        stream.stamps.push((stream.gathered.len(), stamp));
        let is_video = stream.id >= 0xe0;
        if let Some(carries) = guess(is_video, &stream.gathered) {
            stream.track = Some(self.tracks.len());
            self.tracks.push(Track { id: u16::from(stream.id), carries, channels: 0 });
            tell(Event::Tracks(&self.tracks));
            return self.take_gathered(index, tell);
        }
        if stream.gathered.len() > limits::PS_GUESS_BYTES_MAX
            || stream.stamps.len() >= limits::PS_GUESS_PACKETS_MAX
        {
            stream.gathered.clear();
            stream.stamps.clear();
            tell(Event::Damage(Damage::Limit));
        }
    }

    /// What was gathered is taken, now that it is known what it is.
    fn take_gathered(&mut self, index: usize, tell: &mut dyn FnMut(Event<'_>)) {
        let stream = &mut self.streams[index];
        let Some(track) = stream.track else { return };
        let gathered = std::mem::take(&mut stream.gathered);
        let mut begin = 0;
        for (end, stamp) in std::mem::take(&mut stream.stamps) {
            self.payload(index, track, &gathered[begin..end], stamp, tell);
            begin = end;
        }
    }

    fn payload(
        &mut self,
        index: usize,
        track: usize,
        data: &[u8],
        stamp: Stamp,
        tell: &mut dyn FnMut(Event<'_>),
    ) {
        self.changes = 0;
        let stream = &mut self.streams[index];
        let damage = match self.tracks[track].carries {
            Carries::Video(codec) => {
                let taken = stream.pictures.push(codec, data, stamp, &mut |stamp, data| {
                    tell(Event::Unit(picture(track, codec, stamp, data)));
                });
                taken.is_err().then_some(Damage::Limit)
            }
            Carries::Audio(codec) => {
                let end = stamp.end;
                let mut tell_frame = |pts, data: &[u8]| {
                    let (dts, keyframe) = (pts, true);
                    tell(Event::Unit(Unit { track, pts, dts, keyframe, data, end }));
                };
                let (rest, rest_pts) = (&mut stream.rest, &mut stream.rest_pts);
                let pts = stamp.pts;
                let good = frames::split(codec, rest, rest_pts, data, pts, &mut tell_frame);
                (!good).then_some(Damage::Unit)
            }
            Carries::Other(_) => {
                let Stamp { pts, dts, end } = stamp;
                tell(Event::Unit(Unit { track, pts, dts, keyframe: false, data, end }));
                None
            }
        };
        if let Some(damage) = damage {
            tell(Event::Damage(damage));
        }
    }

    /// A stream ends, or goes on as another: its open picture is told.
    fn end(&mut self, index: usize, tell: &mut dyn FnMut(Event<'_>)) {
        let stream = &mut self.streams[index];
        if !stream.gathered.is_empty() {
            tell(Event::Damage(Damage::Unit));
        }
        if let Some(track) = stream.track
            && let Carries::Video(codec) = self.tracks[track].carries
        {
            stream.pictures.finish(&mut |stamp, data| {
                tell(Event::Unit(picture(track, codec, stamp, data)));
            });
        }
        stream.interrupt();
    }

    fn interrupt(&mut self) {
        self.streams.iter_mut().for_each(Stream::interrupt);
    }
}

impl Stream {
    /// Bytes are missing: what was begun is left out.
    fn interrupt(&mut self) {
        self.pictures.interrupt();
        self.rest.clear();
        self.rest_pts = None;
        self.gathered.clear();
        self.stamps.clear();
    }
}

fn picture(track: usize, codec: VideoCodec, stamp: Stamp, data: &[u8]) -> Unit<'_> {
    let Stamp { pts, dts, end } = stamp;
    Unit { track, pts, dts, keyframe: frames::is_keyframe(codec, data), data, end }
}

/// Stream ids of audio and video (table 2-22). Private streams are none that a player knows.
fn is_stream(code: u8) -> bool {
    matches!(code, 0xc0..=0xef)
}

/// True when a pack header of either form goes on with this byte.
fn is_pack(next: u8) -> bool {
    next & 0xc4 == 0x44 || next & 0xf1 == 0x21
}

fn pack_bytes(rest: &[u8]) -> Found {
    const MPEG1_BYTES: usize = 12;
    const MPEG2_BYTES: usize = 14;
    let len = match rest.get(4) {
        None => return Found::More,
        Some(next) if next >> 6 == 1 => match rest.get(MPEG2_BYTES - 1) {
            Some(stuffing) => MPEG2_BYTES + usize::from(stuffing & 7),
            None => return Found::More,
        },
        Some(next) if next >> 4 == 2 => MPEG1_BYTES,
        Some(_) => return Found::None,
    };
    if rest.len() < len { Found::More } else { Found::Packet(len) }
}

/// The clock of a pack header, in ticks. `None`: a marker bit is missing.
fn pack_clock(pack: &[u8]) -> Option<u64> {
    let bytes: [u8; 6] = pack.get(4..10)?.try_into().ok()?;
    let [b0, b1, b2, b3, b4, b5] = bytes.map(u64::from);
    if b0 >> 6 == 1 {
        let high = (b0 >> 3 & 7) << 30 | (b0 & 3) << 28;
        let clock = high | b1 << 20 | (b2 >> 3) << 15 | (b2 & 3) << 13 | b3 << 5 | b4 >> 3;
        (b0 & b2 & b4 & 4 != 0 && b5 & 1 != 0).then_some(clock)
    } else {
        let clock = (b0 >> 1 & 7) << 30 | b1 << 22 | (b2 >> 1) << 15 | b3 << 7 | b4 >> 1;
        (b0 & b2 & b4 & 1 != 0).then_some(clock)
    }
}

/// The streams of a map that carry something (2.5.4). `None`: a length does not fit. Checksum
/// and the bit that says whether it is in force are not looked at: cameras write anything there.
fn read_map(packet: &[u8]) -> Option<Vec<Track>> {
    let number = |high: u8, low: u8| usize::from(u16::from_be_bytes([high, low]));
    let [_, _, l1, l0, ref rest @ ..] = *packet.get(6..)? else { return None };
    let [l1, l0, ref rest @ ..] = *rest.get(number(l1, l0)..)? else { return None };
    let mut rest = rest.get(..number(l1, l0))?;
    let mut tracks = Vec::new();
    while let [kind, id, l1, l0, ref more @ ..] = *rest {
        let (descriptors, next) = more.split_at_checked(number(l1, l0))?;
        let (carries, channels) = match kind {
            // Not of the standard; all cameras agree on them.
            0x90 => (Carries::Audio(AudioCodec::G711A), 0),
            0x91 => (Carries::Audio(AudioCodec::G711U), 0),
            kind => carries(kind, descriptors),
        };
        if is_stream(id) {
            tracks.push(Track { id: u16::from(id), carries, channels });
        }
        rest = next;
    }
    rest.is_empty().then_some(tracks)
}

#[cfg(test)]
#[path = "demux_tests.rs"]
mod tests;

//! Transport stream packets to access units, from bytes that may be anything.
//!
//! [`Demux`] is given bytes in pieces of any length and tells what it finds: the tracks of the
//! first program, units with their times, and what was damaged. Nothing in the input makes it fail
//! for good or hold more than its limits: what is broken costs what is broken.

use super::frames;
use super::psi::{self, PID_PAT, Section};
use super::{PACKET_BYTES, SYNC, TIME_MASK};
use crate::limits;
use crate::media::codec::{AudioCodec, VideoCodec};
use crate::media::unit::TICKS_HZ;

/// What a track carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Carries {
    /// Pictures, as an Annex B byte stream.
    Video(VideoCodec),
    /// Audio frames: AAC with its ADTS header, Opus without its control header.
    Audio(AudioCodec),
    /// Something else, by its stream type (ISO 13818-1 table 2-34).
    Other(u8),
}

/// A track of the program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Track {
    /// The packets that carry it.
    pub pid: u16,
    /// What it carries.
    pub carries: Carries,
    /// Channels of Opus, which nothing but the table says; 0 when it does not.
    pub channels: u8,
}

/// A picture or an audio frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unit<'a> {
    /// Place of its track among those of the last [`Event::Tracks`].
    pub track: usize,
    /// Presentation time, ticks; no rollover. Without one: that of the unit before is all there is.
    pub pts: Option<i64>,
    /// Decoding time, ticks.
    pub dts: Option<i64>,
    /// Decoding can start here.
    pub keyframe: bool,
    /// Its bytes.
    pub data: &'a [u8],
    /// Place in the input behind the last packet that carries a part of it.
    pub end: u64,
}

/// What is found.
#[derive(Debug, PartialEq, Eq)]
pub enum Event<'a> {
    /// The program has these tracks from here on. Units of before are told before.
    Tracks(&'a [Track]),
    /// A unit.
    Unit(Unit<'a>),
    /// Something was wrong, and left out.
    Damage(Damage),
}

/// What was wrong with the input.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, thiserror::Error)]
pub enum Damage {
    /// Malformed: no packet begins where one should; these bytes were passed over.
    #[error("lost sync")]
    Sync,
    /// Malformed: a packet says that it is broken, or its fields do not fit into it.
    #[error("a broken packet")]
    Packet,
    /// The sender or the line lost packets: the unit that misses them is left out.
    #[error("lost packets")]
    Gap,
    /// Malformed: a table is broken, or tells of packets that carry something else.
    #[error("a broken table")]
    Table,
    /// Malformed: a unit's head is broken, or the unit is shorter than it says.
    #[error("a broken unit")]
    Unit,
    /// The clock jumped, and nothing announced it.
    #[error("the clock jumped")]
    Clock,
    /// Unsupported: encrypted packets.
    #[error("encrypted packets")]
    Encrypted,
    /// Over a limit: tracks, tables, or bytes of a unit; what is too much is left out.
    #[error("more than is taken")]
    Limit,
}

impl Damage {
    /// All of them, in their order.
    pub const ALL: [Damage; 8] = [
        Damage::Sync,
        Damage::Packet,
        Damage::Gap,
        Damage::Table,
        Damage::Unit,
        Damage::Clock,
        Damage::Encrypted,
        Damage::Limit,
    ];
}

/// Reads a transport stream.
#[derive(Debug, Default)]
pub struct Demux {
    /// Bytes that are not a packet yet, and their place in the input.
    kept: Vec<u8>,
    at: u64,
    locked: bool,
    /// Bytes were passed over and that was not told yet.
    lost: bool,
    pat: Section,
    pmt: Section,
    pmt_pid: Option<u16>,
    clock_pid: u16,
    clock: Option<i64>,
    tracks: Vec<Track>,
    states: Vec<State>,
    /// The last time of any track, by which others are placed.
    time: Option<i64>,
    /// Changes of the tables since the last unit.
    changes: u32,
}

/// What is known of a track's packets.
#[derive(Debug, Default)]
struct State {
    counter: Option<u8>,
    open: Option<Pes>,
    /// Audio: bytes of a frame that goes on in the next PES packet, and the time of its beginning.
    rest: Vec<u8>,
    rest_pts: Option<i64>,
}

/// A PES packet in the making.
#[derive(Debug)]
struct Pes {
    data: Vec<u8>,
    /// Bytes of it, if it says.
    len: Option<usize>,
    random_access: bool,
    end: u64,
    /// Its last packet was filled up, which only the last one is.
    stuffed: bool,
}

/// A packet, taken apart.
struct Packet<'a> {
    pid: u16,
    start: bool,
    counter: u8,
    field: &'a [u8],
    payload: Option<&'a [u8]>,
}

/// Clock steps of more than this are jumps, ticks (2.7.2 wants one each 100 ms).
const CLOCK_STEP_MAX: i64 = TICKS_HZ;
const PID_NULL: u16 = 0x1fff;
/// Packets that have to begin where they should before that is believed.
const SYNC_PACKETS: usize = 3;

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
        let mut rest = bytes;
        // In pieces, so that nothing grows with what is pushed at once.
        while !rest.is_empty() {
            let (piece, more) = rest.split_at(rest.len().min(PUSH_BYTES));
            rest = more;
            let mut kept = std::mem::take(&mut self.kept);
            kept.extend_from_slice(piece);
            let done = self.packets(&kept, false, tell);
            kept.drain(..done);
            self.kept = kept;
        }
    }

    /// The input ends here. Pictures whose length nobody says are told if their last packet shows
    /// that it is the last one; what is not known to be whole is not told.
    pub fn finish(&mut self, tell: &mut dyn FnMut(Event<'_>)) {
        let kept = std::mem::take(&mut self.kept);
        let done = self.packets(&kept, true, tell);
        if done < kept.len() || std::mem::take(&mut self.lost) {
            tell(Event::Damage(Damage::Sync));
        }
        for track in 0..self.states.len() {
            match self.states[track].open.take() {
                Some(pes) if pes.len.is_none() && !pes.stuffed => {
                    tell(Event::Damage(Damage::Unit));
                }
                Some(pes) => self.unit(track, pes, tell),
                None => {}
            }
        }
    }

    /// Goes through whole packets. Returns how many bytes are done with.
    fn packets(&mut self, bytes: &[u8], last: bool, tell: &mut dyn FnMut(Event<'_>)) -> usize {
        let mut done = 0;
        loop {
            let rest = &bytes[done..];
            if self.locked && rest.first().is_some_and(|byte| *byte != SYNC) {
                self.locked = false;
            }
            if !self.locked {
                let passed = match find(rest, last) {
                    Some(at) => {
                        self.locked = true;
                        at
                    }
                    // The end may be the beginning of a packet.
                    None if last => rest.len(),
                    None => rest.len().saturating_sub(SYNC_PACKETS * PACKET_BYTES),
                };
                self.lost |= passed > 0;
                done += passed;
                self.at += passed as u64;
                if !self.locked {
                    return done;
                }
                if std::mem::take(&mut self.lost) {
                    tell(Event::Damage(Damage::Sync));
                }
                continue;
            }
            let Some(packet) = rest.get(..PACKET_BYTES) else { return done };
            done += PACKET_BYTES;
            self.at += PACKET_BYTES as u64;
            match take_apart(packet) {
                Ok(packet) => self.packet(&packet, tell),
                Err(damage) => tell(Event::Damage(damage)),
            }
        }
    }

    fn packet(&mut self, packet: &Packet<'_>, tell: &mut dyn FnMut(Event<'_>)) {
        // Discontinuity of the clock and of the counters, announced (2.4.3.5).
        let announced = packet.field.first().is_some_and(|flags| flags & 0x80 != 0);
        if packet.pid == self.clock_pid {
            self.look_at_clock(packet.field, announced, tell);
        }
        let Some(payload) = packet.payload else { return };
        if packet.pid == PID_PAT {
            match self.pat.push(payload, packet.start) {
                Some(Ok(())) => self.programs(tell),
                Some(Err(_)) => tell(Event::Damage(Damage::Table)),
                None => {}
            }
        } else if Some(packet.pid) == self.pmt_pid {
            match self.pmt.push(payload, packet.start) {
                Some(Ok(())) => self.program(tell),
                Some(Err(_)) => tell(Event::Damage(Damage::Table)),
                None => {}
            }
        } else if let Some(track) = self.tracks.iter().position(|track| track.pid == packet.pid) {
            self.payload(track, packet, payload, announced, tell);
        }
        // What no table names is nobody's, and leaves nothing behind, however many there are.
    }

    fn look_at_clock(&mut self, field: &[u8], announced: bool, tell: &mut dyn FnMut(Event<'_>)) {
        let [flags, b0, b1, b2, b3, b4, _, ..] = *field else { return };
        if flags & 0x10 == 0 {
            return;
        }
        let base = u64::from(u32::from_be_bytes([b0, b1, b2, b3])) << 1 | u64::from(b4 >> 7);
        let now = unwrapped(base, self.clock);
        let step = self.clock.map_or(0, |before| now - before);
        if !(0..=CLOCK_STEP_MAX).contains(&step) && !announced {
            tell(Event::Damage(Damage::Clock));
        }
        self.clock = Some(now);
    }

    /// Looks at the program association table.
    fn programs(&mut self, tell: &mut dyn FnMut(Event<'_>)) {
        let pid = psi::first_program(self.pat.body());
        match pid {
            Some(PID_PAT | PID_NULL) | None => tell(Event::Damage(Damage::Table)),
            Some(pid) if self.pmt_pid != Some(pid) && self.may_change(tell) => {
                self.pmt_pid = Some(pid);
                self.pmt = Section::default();
            }
            Some(_) => {}
        }
    }

    /// Looks at the program map table.
    fn program(&mut self, tell: &mut dyn FnMut(Event<'_>)) {
        let Some((clock_pid, mut found)) = psi::read_pmt(self.pmt.body()) else {
            return tell(Event::Damage(Damage::Table));
        };
        if found.len() > limits::TS_TRACKS_MAX {
            found.truncate(limits::TS_TRACKS_MAX);
            tell(Event::Damage(Damage::Limit));
        }
        let reserved = |pid| pid == PID_PAT || pid == PID_NULL || Some(pid) == self.pmt_pid;
        let twice = |index: usize| found[..index].iter().any(|t| t.pid == found[index].pid);
        if (0..found.len()).any(|index| reserved(found[index].pid) || twice(index)) {
            return tell(Event::Damage(Damage::Table));
        }
        self.clock_pid = clock_pid;
        if found == self.tracks || !self.may_change(tell) {
            return;
        }
        for track in 0..self.states.len() {
            self.end(track, tell);
        }
        self.states = found.iter().map(|_| State::default()).collect();
        self.tracks = found;
        self.clock = None;
        tell(Event::Tracks(&self.tracks));
    }

    /// Tables that change again and again without a unit between them are not followed.
    fn may_change(&mut self, tell: &mut dyn FnMut(Event<'_>)) -> bool {
        self.changes += 1;
        let may = self.changes <= limits::TS_TABLE_CHANGES_MAX;
        if !may {
            self.changes = limits::TS_TABLE_CHANGES_MAX;
            tell(Event::Damage(Damage::Limit));
        }
        may
    }

    fn payload(
        &mut self,
        track: usize,
        packet: &Packet<'_>,
        payload: &[u8],
        announced: bool,
        tell: &mut dyn FnMut(Event<'_>),
    ) {
        let state = &mut self.states[track];
        let before = state.counter.replace(packet.counter);
        match before {
            // A packet may be sent twice (2.4.3.3).
            Some(before) if before == packet.counter && !announced => return,
            Some(before) if (before + 1) & 15 != packet.counter && !announced => {
                // A picture whose last packet was there is not the one that misses some.
                match state.open.take() {
                    Some(pes) if pes.stuffed && pes.len.is_none() => self.unit(track, pes, tell),
                    _ => state.rest.clear(),
                }
                tell(Event::Damage(Damage::Gap));
            }
            _ => {}
        }
        let random_access = packet.field.first().is_some_and(|flags| flags & 0x40 != 0);
        if packet.start {
            self.end(track, tell);
            self.states[track].open = Some(Pes {
                data: Vec::new(),
                len: None,
                random_access,
                end: self.at,
                stuffed: false,
            });
        }
        let state = &mut self.states[track];
        // Without a beginning nobody knows what it is.
        let Some(pes) = &mut state.open else { return };
        if pes.data.len() + payload.len() > limits::TS_UNIT_BYTES_MAX {
            state.open = None;
            return tell(Event::Damage(Damage::Limit));
        }
        pes.data.extend_from_slice(payload);
        pes.end = self.at;
        pes.stuffed = is_stuffed(packet.field, payload);
        if pes.len.is_none()
            && let [_, _, _, _, high, low, ..] = *pes.data
            && (high, low) != (0, 0)
        {
            pes.len = Some(6 + usize::from(u16::from_be_bytes([high, low])));
        }
        if pes.len.is_some_and(|len| pes.data.len() >= len) {
            self.end(track, tell);
        }
    }

    /// The open PES packet of a track ends.
    fn end(&mut self, track: usize, tell: &mut dyn FnMut(Event<'_>)) {
        if let Some(pes) = self.states[track].open.take() {
            self.unit(track, pes, tell);
        }
    }

    fn unit(&mut self, track: usize, mut pes: Pes, tell: &mut dyn FnMut(Event<'_>)) {
        let short = pes.len.is_some_and(|len| pes.data.len() < len);
        let head = if short { None } else { read_head(&pes.data) };
        let Some((pts, dts, head_len)) = head else {
            self.states[track].rest.clear();
            return tell(Event::Damage(Damage::Unit));
        };
        pes.data.truncate(pes.len.unwrap_or(usize::MAX));
        let pts = pts.map(|pts| self.place(pts));
        let dts = dts.map(|dts| self.place(dts)).or(pts);
        let end = pes.end;
        let Some(data) = pes.data.get(head_len..).filter(|data| !data.is_empty()) else { return };
        self.changes = 0;
        match self.tracks[track].carries {
            Carries::Audio(codec) => {
                let state = &mut self.states[track];
                let mut tell_frame = |pts, data: &[u8]| {
                    let (dts, keyframe) = (pts, true);
                    tell(Event::Unit(Unit { track, pts, dts, keyframe, data, end }));
                };
                let (rest, rest_pts) = (&mut state.rest, &mut state.rest_pts);
                if !frames::split(codec, rest, rest_pts, data, pts, &mut tell_frame) {
                    tell(Event::Damage(Damage::Unit));
                }
            }
            Carries::Video(codec) => {
                let keyframe = pes.random_access || frames::is_keyframe(codec, data);
                tell(Event::Unit(Unit { track, pts, dts, keyframe, data, end }));
            }
            Carries::Other(_) => {
                let keyframe = pes.random_access;
                tell(Event::Unit(Unit { track, pts, dts, keyframe, data, end }));
            }
        }
    }

    /// The time nearest to the last one that ends in these 33 bits.
    fn place(&mut self, bits: u64) -> i64 {
        let now = unwrapped(bits, self.time);
        self.time = Some(now);
        now
    }
}

/// Bytes that are looked at in one go.
const PUSH_BYTES: usize = 64 << 10;

/// Where packets begin: several of them in a row, as far as there are bytes.
fn find(bytes: &[u8], last: bool) -> Option<usize> {
    let fits = |at: &usize| {
        (0..SYNC_PACKETS).all(|n| match bytes.get(at + n * PACKET_BYTES) {
            Some(byte) => *byte == SYNC,
            None => last && n > 0,
        })
    };
    memchr::memchr_iter(SYNC, bytes).find(fits)
}

fn take_apart(bytes: &[u8]) -> Result<Packet<'_>, Damage> {
    let [_, b1, b2, b3, ref rest @ ..] = *bytes else { return Err(Damage::Packet) };
    // The line says that it is broken.
    if b1 & 0x80 != 0 {
        return Err(Damage::Packet);
    }
    let pid = u16::from_be_bytes([b1 & 0x1f, b2]);
    if b3 & 0xc0 != 0 && pid != PID_NULL {
        return Err(Damage::Encrypted);
    }
    let (has_field, has_payload) = (b3 & 0x20 != 0, b3 & 0x10 != 0);
    let (field, payload) = match has_field {
        true => {
            let (len, rest) = rest.split_first().ok_or(Damage::Packet)?;
            rest.split_at_checked(usize::from(*len)).ok_or(Damage::Packet)?
        }
        false => (&[][..], rest),
    };
    if has_payload && payload.is_empty() && has_field {
        return Err(Damage::Packet);
    }
    let payload = has_payload.then_some(payload);
    Ok(Packet { pid, start: b1 & 0x40 != 0, counter: b3 & 15, field, payload })
}

/// True when there are bytes in a packet only to fill it.
fn is_stuffed(field: &[u8], payload: &[u8]) -> bool {
    // A field that is only its own length.
    let Some(flags) = field.first() else { return payload.len() == PACKET_BYTES - 5 };
    // Two clocks, a countdown, private bytes and an extension (2.4.3.4).
    let mut content = 1;
    for (flag, bytes) in [(0x10, 6), (0x08, 6), (0x04, 1)] {
        content += if flags & flag != 0 { bytes } else { 0 };
    }
    for flag in [0x02, 0x01] {
        if flags & flag != 0 {
            content += 1 + field.get(content).map_or(0, |len| usize::from(*len));
        }
    }
    field.len() > content || *flags == 0
}

type Head = (Option<u64>, Option<u64>, usize);

/// Times and length of a PES header (2.4.3.6). `None`: it is broken.
fn read_head(data: &[u8]) -> Option<Head> {
    let [0, 0, 1, stream, _, _, ref rest @ ..] = *data else { return None };
    // Padding and maps have no header of this form, and nothing that is played.
    if matches!(stream, 0xbc | 0xbe | 0xbf | 0xf0..=0xf2 | 0xf8 | 0xff) {
        return None;
    }
    let [mark, flags, len, ref fields @ ..] = *rest else { return None };
    let fields = fields.get(..usize::from(len)).filter(|_| mark & 0xc0 == 0x80)?;
    let (pts, dts) = match flags >> 6 {
        0 => (None, None),
        2 => (Some(time(fields)?), None),
        3 => (Some(time(fields)?), Some(time(fields.get(5..)?)?)),
        _ => return None,
    };
    Some((pts, dts, 9 + usize::from(len)))
}

/// 33 bits with marker bits between them.
fn time(bytes: &[u8]) -> Option<u64> {
    let [b0, b1, b2, b3, b4, ..] = *bytes else { return None };
    if b0 & b2 & b4 & 1 == 0 {
        return None;
    }
    let parts = [u64::from(b0 >> 1 & 7) << 30, u64::from(b1) << 22, u64::from(b2 >> 1) << 15];
    Some(parts.iter().sum::<u64>() | u64::from(b3) << 7 | u64::from(b4 >> 1))
}

/// The value nearest to `near` of those that end in these 33 bits.
fn unwrapped(bits: u64, near: Option<i64>) -> i64 {
    let Some(near) = near else { return bits as i64 };
    let step = bits.wrapping_sub(near as u64) & TIME_MASK;
    let step =
        if step > TIME_MASK / 2 { step as i64 - (TIME_MASK as i64 + 1) } else { step as i64 };
    near.saturating_add(step)
}

#[cfg(test)]
#[path = "demux_tests.rs"]
mod tests;

//! Transport stream packets to access units, from bytes that may be anything.
//!
//! [`Demux`] is given bytes in pieces of any length and tells what it finds: the tracks of the
//! first program, units with their times, and what was damaged. Nothing in the input makes it fail
//! for good or hold more than its limits: what is broken costs what is broken.

use super::psi::{self, PID_PAT, Section};
use super::{PACKET_BYTES, SYNC};
use crate::limits;
use crate::media::unit::TICKS_HZ;
use crate::proto::mpeg::pes::{self, Times};
use crate::proto::mpeg::{Carries, Damage, Event, Track, Unit, frames};

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
    clock: Times,
    tracks: Vec<Track>,
    states: Vec<State>,
    /// Times of any track, by which others are placed.
    times: Times,
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
        } else if let Some(track) = self.tracks.iter().position(|track| track.id == packet.pid) {
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
        if self.clock.jump(base, CLOCK_STEP_MAX) && !announced {
            tell(Event::Damage(Damage::Clock));
        }
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
        let twice = |index: usize| found[..index].iter().any(|t| t.id == found[index].id);
        if (0..found.len()).any(|index| reserved(found[index].id) || twice(index)) {
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
        self.clock = Times::default();
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
        let head = if short { None } else { pes::read_head(&pes.data) };
        let Some(head) = head else {
            self.states[track].rest.clear();
            return tell(Event::Damage(Damage::Unit));
        };
        pes.data.truncate(pes.len.unwrap_or(usize::MAX));
        let pts = head.pts.map(|pts| self.times.place(pts));
        let dts = head.dts.map(|dts| self.times.place(dts)).or(pts);
        let end = pes.end;
        let Some(data) = pes.data.get(head.len..).filter(|data| !data.is_empty()) else { return };
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

#[cfg(test)]
#[path = "demux_tests.rs"]
mod tests;

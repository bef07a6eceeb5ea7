//! A reader of transport streams that holds them to ISO 13818-1, written apart from the server's
//! own packing and unpacking.

use std::collections::BTreeMap;

const PACKET_BYTES: usize = 188;
/// 2.7.2: the clock comes at least this often, ticks of 90 kHz.
const CLOCK_GAP_MAX: u64 = 9_000;
/// So do the tables, as broadcasters have it (ETSI TR 101 290 1.3 and 1.5 allow 500 ms).
const TABLE_GAP_MAX: u64 = 9_000;
const TIME_BITS: u32 = 33;

/// What was found in a stream that keeps the rules.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// Stream types by packet identifier.
    pub tracks: BTreeMap<u16, u8>,
    /// PES packets by packet identifier.
    pub units: BTreeMap<u16, usize>,
    /// Units that decoding can start at.
    pub starts: usize,
    /// Longest distance of two clocks, ticks.
    pub clock_gap: u64,
    /// Longest distance of two PATs, ticks.
    pub table_gap: u64,
    /// The clock has begun again from 0.
    pub rolled_over: bool,
}

#[derive(Default)]
struct Reader {
    facts: Facts,
    counters: BTreeMap<u16, u8>,
    pmt_pid: Option<u16>,
    clock_pid: Option<u16>,
    clock: Option<u64>,
    /// Tables that came since the last unit began.
    tables: [bool; 2],
    /// Tables that came since the last clock.
    fresh: [bool; 2],
    told_at: Option<u64>,
    decoded: BTreeMap<u16, u64>,
}

/// Reads a whole stream, which has to begin with its tables.
///
/// # Errors
/// The rule that is broken, and at which packet.
pub fn check(bytes: &[u8]) -> Result<Facts, String> {
    let mut reader = Reader::default();
    if bytes.is_empty() || !bytes.len().is_multiple_of(PACKET_BYTES) {
        return Err(format!("{} bytes are no whole packets", bytes.len()));
    }
    for (index, packet) in bytes.chunks(PACKET_BYTES).enumerate() {
        reader.packet(packet).map_err(|why| format!("packet {index}: {why}"))?;
    }
    Ok(reader.facts)
}

/// How much later `b` is than `a`, which may have rolled over; negative when it is earlier.
fn later(a: u64, b: u64) -> i64 {
    let half = 1i64 << (TIME_BITS - 1);
    let apart = (b as i64 - a as i64) & ((1 << TIME_BITS) - 1);
    if apart >= half { apart - 2 * half } else { apart }
}

impl Reader {
    fn packet(&mut self, packet: &[u8]) -> Result<(), String> {
        let pid = u16::from_be_bytes([packet[1] & 0x1f, packet[2]]);
        let (begins, counter) = (packet[1] & 0x40 != 0, packet[3] & 15);
        let (has_field, has_payload) = (packet[3] & 0x20 != 0, packet[3] & 0x10 != 0);
        if packet[0] != 0x47 || packet[1] & 0x80 != 0 || packet[3] & 0xc0 != 0 {
            return Err(format!("a bad head: {:02x?}", &packet[..4]));
        }
        if let Some(last) = self.counters.insert(pid, counter) {
            let wanted = (last + u8::from(has_payload)) & 15;
            if counter != wanted {
                return Err(format!("pid {pid:#x} counts {counter}, not {wanted}"));
            }
        }
        let mut rest = &packet[4..];
        let mut random_access = false;
        if has_field {
            let len = usize::from(rest[0]);
            let field = rest.get(1..1 + len).ok_or("the adaptation field is too long")?;
            rest = &rest[1 + len..];
            if let Some(flags) = field.first() {
                random_access = flags & 0x40 != 0;
                if flags & 0x10 != 0 {
                    let base = field[1..5].iter().fold(0, |sum, b| sum << 8 | u64::from(*b));
                    self.clock(pid, base << 1 | u64::from(field[5] >> 7))?;
                }
            }
        }
        if has_payload == rest.is_empty() {
            return Err("payload announced and missing, or the other way round".into());
        }
        if !begins {
            return Ok(());
        }
        match pid {
            0 => self.pat(rest),
            pid if Some(pid) == self.pmt_pid => self.pmt(rest),
            pid if self.facts.tracks.contains_key(&pid) => self.unit(pid, rest, random_access),
            pid => Err(format!("pid {pid:#x} is in no table")),
        }
    }

    fn clock(&mut self, pid: u16, clock: u64) -> Result<(), String> {
        if self.clock_pid != Some(pid) {
            return Err(format!("a clock in pid {pid:#x}, not in {:?}", self.clock_pid));
        }
        if let Some(last) = self.clock.replace(clock) {
            let gap = u64::try_from(later(last, clock)).map_err(|_| "the clock goes back")?;
            if gap > CLOCK_GAP_MAX {
                return Err(format!("no clock for {} ms", gap / 90));
            }
            self.facts.clock_gap = self.facts.clock_gap.max(gap);
            self.facts.rolled_over |= clock < last;
        }
        let told = self.fresh.iter().all(|fresh| *fresh);
        let gap = self.told_at.map_or(0, |at| later(at, clock) as u64);
        if gap > TABLE_GAP_MAX {
            return Err(format!("no tables for {} ms", gap / 90));
        }
        self.facts.table_gap = self.facts.table_gap.max(gap);
        if told {
            self.told_at = Some(clock);
            self.fresh = [false; 2];
        }
        Ok(())
    }

    fn pat(&mut self, payload: &[u8]) -> Result<(), String> {
        let body = section(payload, 0)?;
        self.pmt_pid = Some(u16::from_be_bytes([body[2] & 0x1f, body[3]]));
        self.tables[0] = true;
        self.fresh[0] = true;
        Ok(())
    }

    fn pmt(&mut self, payload: &[u8]) -> Result<(), String> {
        let body = section(payload, 2)?;
        self.clock_pid = Some(u16::from_be_bytes([body[0] & 0x1f, body[1]]));
        let skip = 4 + usize::from(u16::from_be_bytes([body[2] & 0x0f, body[3]]));
        let mut rest = body.get(skip..).ok_or("the program's descriptors are too long")?;
        self.facts.tracks.clear();
        while let [kind, p0, p1, l0, l1, behind @ ..] = rest {
            self.facts.tracks.insert(u16::from_be_bytes([p0 & 0x1f, *p1]), *kind);
            let len = usize::from(u16::from_be_bytes([l0 & 0x0f, *l1]));
            rest = behind.get(len..).ok_or("a track's descriptors are too long")?;
        }
        self.tables[1] = true;
        self.fresh[1] = true;
        Ok(())
    }

    fn unit(&mut self, pid: u16, pes: &[u8], random_access: bool) -> Result<(), String> {
        let told = std::mem::take(&mut self.tables) == [true; 2];
        let stream_type = self.facts.tracks[&pid];
        let is_video = matches!(stream_type, 0x1b | 0x24);
        if pes[..3] != [0, 0, 1] {
            return Err("a unit without PES header".into());
        }
        let both = match pes[7] >> 6 {
            2 => false,
            3 => true,
            _ => return Err("a unit without time".into()),
        };
        let pts = time(&pes[9..14], if both { 3 } else { 2 })?;
        let dts = if both { time(&pes[14..19], 1)? } else { pts };
        if later(dts, pts) < 0 {
            return Err(format!("shown at {pts}, before it is decoded at {dts}"));
        }
        let clock = self.clock.ok_or("a unit before any clock")?;
        if later(clock, dts) < 0 {
            return Err(format!("decoded at {dts}, which the clock has passed: {clock}"));
        }
        if let Some(last) = self.decoded.insert(pid, dts)
            && later(last, dts) <= 0
        {
            return Err(format!("pid {pid:#x}: decoding times {last}, {dts}"));
        }
        if is_video {
            let payload = pes.get(9 + usize::from(pes[8])..).ok_or("a PES header too long")?;
            let delimiter: &[u8] = if stream_type == 0x1b { &[9] } else { &[0x46, 1] };
            if !payload.starts_with(&[&[0, 0, 0, 1], delimiter].concat()) {
                return Err("a picture without access unit delimiter".into());
            }
            if random_access {
                self.facts.starts += 1;
                if !told {
                    return Err("a keyframe without tables before it".into());
                }
            }
        }
        *self.facts.units.entry(pid).or_default() += 1;
        Ok(())
    }
}

/// The body of a section that fills its packet, without head and checksum.
fn section(payload: &[u8], table: u8) -> Result<&[u8], String> {
    let start = 1 + usize::from(payload[0]);
    let section = payload.get(start..).ok_or("a pointer behind the packet")?;
    let len = 3 + usize::from(u16::from_be_bytes([section[1] & 0x0f, section[2]]));
    let section = section.get(..len).filter(|_| len > 12).ok_or("a section of bad length")?;
    if section[0] != table || section[1] & 0x80 == 0 || section[5] & 1 == 0 {
        return Err(format!("a bad section: {:02x?}", &section[..8]));
    }
    let mut sum = u32::MAX;
    for bit in section.iter().flat_map(|byte| (0..8).rev().map(move |n| byte >> n & 1)) {
        let high = sum >> 31 ^ u32::from(bit);
        sum = sum << 1 ^ if high == 1 { 0x04c1_1db7 } else { 0 };
    }
    if sum != 0 {
        return Err("a section whose checksum is wrong".into());
    }
    Ok(&section[8..len - 4])
}

fn time(bytes: &[u8], prefix: u8) -> Result<u64, String> {
    let b: Vec<u64> = bytes.iter().map(|byte| u64::from(*byte)).collect();
    if bytes[0] >> 4 != prefix || b[0] & b[2] & b[4] & 1 == 0 {
        return Err(format!("a bad time: {bytes:02x?}"));
    }
    Ok((b[0] >> 1 & 7) << 30 | b[1] << 22 | (b[2] >> 1) << 15 | b[3] << 7 | b[4] >> 1)
}

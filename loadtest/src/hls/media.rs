//! Frames out of segments and parts, so that the records in them can be checked: MPEG-TS and
//! fragmented MP4, as far as a generated stream needs it.

use crate::media::Kind;
use crate::record::{self, MAGIC};

/// What is wrong with the container; the server's fault.
pub type Fault = &'static str;

/// Shows every frame of a whole segment or part, as the payload its publisher sent where it has a
/// record, with the kind that the record says; else as it lies there.
///
/// # Errors
/// The first fault of the container; frames before it were shown.
pub fn frames(bytes: &[u8], on: &mut dyn FnMut(Kind, &[u8])) -> Result<(), Fault> {
    match bytes.first() {
        None => Err("an empty segment"),
        Some(0x47) => ts(bytes, on),
        Some(_) => mp4(bytes, on),
    }
}

/// How NAL units are told apart.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Units {
    StartCodes,
    Lengths,
}

/// A record lies this near the begin of a frame, behind parameter sets.
const SEARCH_MAX: usize = 512;
/// Offsets in a record and in the NAL unit around it.
const FLAGS_AT: usize = 24;
const SLICE_HEAD: usize = 3;

fn show(frame: &[u8], units: Units, scratch: &mut Vec<u8>, on: &mut dyn FnMut(Kind, &[u8])) {
    let near = &frame[..frame.len().min(SEARCH_MAX)];
    let Some(at) = memchr::memmem::find(near, &MAGIC).filter(|at| at + record::LEN <= frame.len())
    else {
        return on(Kind::Data, frame);
    };
    let (keyframe, kind) = (frame[at + FLAGS_AT] & 1 != 0, frame[at + FLAGS_AT + 1]);
    scratch.clear();
    if kind != Kind::Video as u8 || at < SLICE_HEAD {
        scratch.extend_from_slice(&[0xaf, 1]);
        scratch.extend_from_slice(frame);
        return on(Kind::Audio, scratch);
    }
    // The slice is the last NAL unit of its frame; the publisher states its length in front.
    let unit = &frame[at - SLICE_HEAD..];
    scratch.extend_from_slice(&[if keyframe { 0x17 } else { 0x27 }, 1, 0, 0, 0]);
    match units {
        Units::StartCodes => scratch.extend_from_slice(&(unit.len() as u32).to_be_bytes()),
        Units::Lengths => {
            let length = &frame[(at - SLICE_HEAD).saturating_sub(4)..at - SLICE_HEAD];
            scratch.extend_from_slice(length);
        }
    }
    scratch.extend_from_slice(unit);
    on(Kind::Video, scratch);
}

const PACKET: usize = 188;

/// A track of MPEG-TS.
struct Track {
    pid: u16,
    counter: u8,
    /// The PES packet so far.
    pes: Vec<u8>,
}

fn ts(bytes: &[u8], on: &mut dyn FnMut(Kind, &[u8])) -> Result<(), Fault> {
    if !bytes.len().is_multiple_of(PACKET) {
        return Err("a segment is no whole number of TS packets");
    }
    let mut tracks: Vec<Track> = Vec::new();
    let mut scratch = Vec::new();
    for packet in bytes.chunks_exact(PACKET) {
        if packet[0] != 0x47 {
            return Err("a TS packet without a sync byte");
        }
        let pid = u16::from(packet[1] & 0x1f) << 8 | u16::from(packet[2]);
        let (starts, control) = (packet[1] & 0x40 != 0, packet[3] >> 4 & 3);
        if pid == 0x1fff || control & 1 == 0 {
            continue;
        }
        let counter = packet[3] & 0x0f;
        let index = match tracks.iter().position(|track| track.pid == pid) {
            Some(index) if tracks[index].counter == counter => index,
            Some(_) => return Err("a TS packet is missing or repeated"),
            None => {
                tracks.push(Track { pid, counter, pes: Vec::new() });
                tracks.len() - 1
            }
        };
        let track = &mut tracks[index];
        track.counter = (counter + 1) & 0x0f;
        let start = if control & 2 != 0 { 5 + usize::from(packet[4]) } else { 4 };
        let payload = packet.get(start..).ok_or("an adaptation field longer than its packet")?;
        if starts {
            pes(&track.pes, &mut scratch, on)?;
            track.pes.clear();
        }
        track.pes.extend_from_slice(payload);
    }
    tracks.iter().try_for_each(|track| pes(&track.pes, &mut scratch, on))
}

/// A whole PES packet; tables and other things are passed over.
fn pes(bytes: &[u8], scratch: &mut Vec<u8>, on: &mut dyn FnMut(Kind, &[u8])) -> Result<(), Fault> {
    let [0, 0, 1, id, _, _, _, _, head, ..] = bytes else { return Ok(()) };
    let data = bytes.get(9 + usize::from(*head)..).ok_or("a PES head longer than its packet")?;
    match id {
        0xe0..=0xef => show(data, Units::StartCodes, scratch, on),
        0xc0..=0xdf => {
            let mut rest = data;
            while let [0xff, flags, _, a, b, c, _, ..] = rest
                && flags & 0xf6 == 0xf0
            {
                let len = usize::from(a & 3) << 11 | usize::from(*b) << 3 | usize::from(c >> 5);
                let head = if flags & 1 == 0 { 9 } else { 7 };
                let frame = rest.get(head..len).ok_or("an ADTS frame that is cut off")?;
                show(frame, Units::StartCodes, scratch, on);
                rest = &rest[len..];
            }
        }
        _ => {}
    }
    Ok(())
}

/// A box: its name, where it begins, its content.
type Boxed<'a> = (&'a [u8], usize, &'a [u8]);

/// Boxes one behind the other.
fn boxes<'a>(bytes: &'a [u8]) -> Result<Vec<Boxed<'a>>, Fault> {
    let (mut found, mut at) = (Vec::new(), 0);
    while at < bytes.len() {
        let rest = &bytes[at..];
        let len = u32_at(rest, 0)? as usize;
        let content = rest.get(8..len).ok_or("a box longer than what it lies in")?;
        found.push((&rest[4..8], at, content));
        at += len;
    }
    Ok(found)
}

fn u32_at(bytes: &[u8], at: usize) -> Result<u32, Fault> {
    let four = bytes.get(at..at + 4).ok_or("a box that is too short")?;
    Ok(u32::from_be_bytes(four.try_into().expect("four bytes")))
}

fn mp4(bytes: &[u8], on: &mut dyn FnMut(Kind, &[u8])) -> Result<(), Fault> {
    let mut samples: Vec<(usize, usize)> = Vec::new();
    let mut sequence = None;
    for (name, start, moof) in boxes(bytes)? {
        if name != b"moof" {
            continue;
        }
        for (name, _, content) in boxes(moof)? {
            if name == b"mfhd" {
                let number = u32_at(content, 4)?;
                if sequence.replace(number).is_some_and(|last| number <= last) {
                    return Err("fragments out of sequence");
                }
            } else if name == b"traf" {
                traf(content, start, &mut samples)?;
            }
        }
    }
    let mut scratch = Vec::new();
    for (start, len) in samples {
        let sample = bytes.get(start..start + len).ok_or("a sample that is not there")?;
        show(sample, Units::Lengths, &mut scratch, on);
    }
    Ok(())
}

/// Where the samples of a track fragment are.
fn traf(content: &[u8], moof: usize, samples: &mut Vec<(usize, usize)>) -> Result<(), Fault> {
    let mut default_size = 0;
    for (name, _, content) in boxes(content)? {
        let flags = u32_at(content, 0)?;
        let sum = |fields: &[(u32, usize)]| -> usize {
            fields.iter().filter(|(flag, _)| flags & flag != 0).map(|(_, len)| len).sum()
        };
        if name == b"tfhd" && flags & 0x10 != 0 {
            default_size = u32_at(content, 8 + sum(&[(0x1, 8), (0x2, 4), (0x8, 4)]))?;
        }
        if name != b"trun" {
            continue;
        }
        let offset = if flags & 0x1 != 0 { u32_at(content, 8)? as usize } else { 0 };
        let (mut place, mut at) = (moof + offset, 8 + sum(&[(0x1, 4), (0x4, 4)]));
        let step = sum(&[(0x100, 4), (0x200, 4), (0x400, 4), (0x800, 4)]);
        for _ in 0..u32_at(content, 4)? {
            let size = match flags & 0x200 {
                0 => default_size,
                _ => u32_at(content, at + sum(&[(0x100, 4)]))?,
            };
            // As many as there are, whatever is declared.
            if samples.len() >= SAMPLES_MAX {
                return Err("more samples than a segment has");
            }
            samples.push((place, size as usize));
            (place, at) = (place + size as usize, at + step);
        }
    }
    Ok(())
}

/// Nobody has so many frames in a segment.
const SAMPLES_MAX: usize = 1 << 20;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::media::{GenerateOptions, Generated, Script, Source};
    use crate::record::{Found, Record};
    use ringcast::proto::mp4;
    use std::sync::Arc;

    /// Frames of a generated stream as they lie in containers: kind, keyframe, payload.
    fn published(n: usize) -> Vec<(Kind, bool, Vec<u8>)> {
        let source = Source::Generated(Arc::new(Generated::new(GenerateOptions::default())));
        let mut script = Script::new(&source, 3, 9, 0);
        let mut frames = Vec::new();
        for _ in 0..n {
            let (item, mut payload) = (script.next_item(), Vec::new());
            script.payload(&item, 77, &mut payload);
            frames.push((item.kind, item.keyframe, payload));
        }
        frames
    }

    fn records(bytes: &[u8]) -> (Vec<(Kind, u32)>, Result<(), Fault>) {
        let mut seen = Vec::new();
        let outcome = frames(bytes, &mut |kind, payload| match Record::find(payload) {
            Found::Good(record) => {
                assert_eq!((record.kind, record.stream, record.sent), (kind, 3, 77));
                seen.push((kind, record.seq));
            }
            other => panic!("{other:?}"),
        });
        (seen, outcome)
    }

    #[test]
    fn frames_come_out_of_mp4_fragments() {
        let frames = published(60);
        let (mut bytes, mut expected) = (Vec::new(), Vec::new());
        for (i, (kind, keyframe, payload)) in frames.iter().enumerate() {
            let head = if *kind == Kind::Video { 5 } else { 2 };
            let fragment = mp4::Fragment {
                sequence: i as u32 + 1,
                track: 1,
                dts: i as u64,
                duration: 1,
                composition: 0,
                keyframe: *keyframe,
                data: &payload[head..],
            };
            mp4::write_fragment(&mut bytes, &fragment);
            expected.push((*kind, i as u32));
        }
        assert_eq!(records(&bytes), (expected, Ok(())));
        let cut = bytes.len() - 10;
        assert_eq!(records(&bytes[..cut]).1, Err("a box longer than what it lies in"));
        let twice = [&bytes[..], &bytes[..]].concat();
        assert_eq!(records(&twice).1, Err("fragments out of sequence"));
    }

    /// TS packets of one PES packet.
    fn packets(out: &mut Vec<u8>, pid: u8, counter: &mut u8, pes: &[u8]) {
        for (i, piece) in pes.chunks(184).enumerate() {
            let stuffing = 184 - piece.len();
            let control = if stuffing > 0 { 0x30 } else { 0x10 };
            out.extend_from_slice(&[0x47, if i == 0 { 0x41 } else { 1 }, pid, control | *counter]);
            *counter = (*counter + 1) & 0x0f;
            if stuffing > 0 {
                out.push(stuffing as u8 - 1);
                let field = [&[0u8][..], &[0xff; 184]].concat();
                out.extend_from_slice(&field[..stuffing - 1]);
            }
            out.extend_from_slice(piece);
        }
    }

    #[test]
    fn frames_come_out_of_ts_packets_and_gaps_are_seen() {
        let (mut bytes, mut counters) = (Vec::new(), [0u8; 2]);
        let mut expected = [Vec::new(), Vec::new()];
        for (i, (kind, _, payload)) in published(60).iter().enumerate() {
            let pes_head = |id| [0, 0, 1, id, 0, 0, 0x80, 0, 0];
            if *kind == Kind::Video {
                let mut pes = pes_head(0xe0).to_vec();
                pes.extend_from_slice(&[0, 0, 0, 1, 9, 0xf0, 0, 0, 0, 1]);
                pes.extend_from_slice(&payload[9..]);
                packets(&mut bytes, 1, &mut counters[0], &pes);
                expected[0].push((*kind, i as u32));
            } else {
                let len = payload.len() - 2 + 7;
                let mut pes = pes_head(0xc0).to_vec();
                let adts = [0xff, 0xf1, 0x50, 0x80 | (len >> 11) as u8, (len >> 3) as u8];
                pes.extend_from_slice(&adts);
                pes.extend_from_slice(&[(len << 5) as u8 | 0x1f, 0xfc]);
                pes.extend_from_slice(&payload[2..]);
                packets(&mut bytes, 2, &mut counters[1], &pes);
                expected[1].push((*kind, i as u32));
            }
        }
        let (mut seen, outcome) = records(&bytes);
        outcome.unwrap();
        let mut all = expected.concat();
        all.sort_by_key(|(_, seq)| *seq);
        seen.sort_by_key(|(_, seq)| *seq);
        assert_eq!(seen, all);
        bytes.drain(PACKET..2 * PACKET);
        assert_eq!(frames(&bytes, &mut |_, _| {}), Err("a TS packet is missing or repeated"));
        assert!(frames(&bytes[1..], &mut |_, _| {}).is_err());
    }
}

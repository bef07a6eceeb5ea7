//! What comes out is what went in, and what is broken costs what is broken (row 36 of the tests
//! against bad input: tables that loop, units without a length, lost sync, jumping clocks, all
//! packet identifiers there are).

use std::collections::BTreeMap;

use super::*;
use crate::media::codec::{AudioCodec, VideoCodec};
use crate::media::unhex;
use crate::media::unit::{AudioConfig, Unit as MediaUnit, VideoConfig};
use crate::proto::ts::{Mux, PCR_LEAD, PID_AUDIO, PID_PMT, PID_VIDEO};

type Found = (usize, Option<i64>, Option<i64>, bool, Vec<u8>);

/// Everything that a reader is told.
#[derive(Debug, Default)]
struct Told {
    tracks: Vec<Vec<Track>>,
    units: Vec<Found>,
    ends: Vec<u64>,
    damage: BTreeMap<Damage, u32>,
}

impl Told {
    fn take(&mut self, event: Event<'_>) {
        match event {
            Event::Tracks(tracks) => self.tracks.push(tracks.to_vec()),
            Event::Unit(u) => {
                self.units.push((u.track, u.pts, u.dts, u.keyframe, u.data.to_vec()));
                self.ends.push(u.end);
            }
            Event::Damage(damage) => *self.damage.entry(damage).or_default() += 1,
        }
    }

    fn of(&self, damage: Damage) -> u32 {
        self.damage.get(&damage).copied().unwrap_or(0)
    }

    fn pictures(&self) -> Vec<&Found> {
        self.units.iter().filter(|unit| unit.0 == 0).collect()
    }
}

fn read_in(bytes: &[u8], step: usize) -> Told {
    let (mut demux, mut told) = (Demux::new(), Told::default());
    for piece in bytes.chunks(step) {
        demux.push(piece, &mut |event| told.take(event));
    }
    demux.finish(&mut |event| told.take(event));
    told
}

fn read(bytes: &[u8]) -> Told {
    read_in(bytes, 1_000)
}

fn avc() -> VideoConfig {
    let record = unhex("014d401effe1000a674d401ee8805017fcb001000468eb8f20");
    VideoConfig::read(VideoCodec::H264, &record).unwrap()
}

fn aac() -> AudioConfig {
    AudioConfig::read(AudioCodec::Aac, &[0x12, 0x10]).unwrap()
}

/// So many pictures of 40 ms and the audio beside them. Every tenth is a keyframe.
fn stream(pictures: i64) -> Vec<u8> {
    let (video, audio) = (avc(), aac());
    let mut mux = Mux::new(Some(&video), Some(&audio)).unwrap();
    let mut out = Vec::new();
    for n in 0..pictures {
        let ms = 1_000 + n * 40;
        let kind = if n % 10 == 0 { 0x65 } else { 0x41 };
        let mut nal = vec![kind, n as u8];
        nal.resize(300 + 37 * (n as usize % 17), n as u8 | 0x80);
        let data = [&(nal.len() as u32).to_be_bytes()[..], &nal].concat();
        let unit =
            MediaUnit { dts: ms * 90, pts: (ms + 80) * 90, keyframe: n % 10 == 0, data: &data };
        mux.video(&mut out, &video, &unit).unwrap();
        let unit = MediaUnit { dts: ms * 90, pts: ms * 90, keyframe: true, data: &[n as u8; 200] };
        mux.audio(&mut out, &audio, &unit, ms * 90).unwrap();
    }
    out
}

/// Packets of a PID with a payload each; the first begins something.
fn packets(pid: u16, counter: &mut u8, payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    super::super::packets(&mut out, pid, counter, payload, Default::default());
    out
}

#[test]
fn what_comes_out_is_what_went_in() {
    let bytes = stream(50);
    for step in [1, 187, 188, 189, 5_000, 1 << 20] {
        let told = read_in(&bytes, step);
        assert!(told.damage.is_empty(), "{step}: {:?}", told.damage);
        let track = |id, carries| Track { id, carries, channels: 0 };
        let expected = vec![
            track(PID_VIDEO, Carries::Video(VideoCodec::H264)),
            track(PID_AUDIO, Carries::Audio(AudioCodec::Aac)),
        ];
        assert_eq!(told.tracks, [expected]);
        let pictures = told.pictures();
        assert_eq!((pictures.len(), told.units.len()), (50, 100));
        for (n, (_, pts, dts, keyframe, data)) in pictures.into_iter().enumerate() {
            let dts_here = (1_000 + n as i64 * 40) * 90 + PCR_LEAD;
            assert_eq!((*pts, *dts), (Some(dts_here + 80 * 90), Some(dts_here)));
            assert_eq!(*keyframe, n % 10 == 0);
            let kind = if n % 10 == 0 { 0x65 } else { 0x41 };
            let mut end = vec![0, 0, 0, 1, kind, n as u8];
            end.resize(6 + 298 + 37 * (n % 17), n as u8 | 0x80);
            assert!(data.ends_with(&end), "picture {n}");
        }
        assert_eq!(told.ends.iter().max(), Some(&(bytes.len() as u64)));
    }
}

#[test]
fn pictures_at_the_end_are_told_if_they_are_whole() {
    let bytes = stream(20);
    let whole = read(&bytes).units.len();
    // Without any of its packets at the end, fewer and fewer units, and never a part of one.
    let all: Vec<Found> = read(&bytes).units;
    for cut in 1..40 {
        let told = read(&bytes[..bytes.len() - cut * PACKET_BYTES]);
        assert!(told.units.len() < whole && told.units.iter().all(|unit| all.contains(unit)));
    }
    let told = read(&bytes[..bytes.len() - 7]);
    assert!(told.units.iter().all(|unit| all.contains(unit)) && told.of(Damage::Sync) == 1);
}

#[test]
fn lost_sync_costs_two_packets_at_most() {
    let bytes = stream(60);
    let packets = bytes.len() / PACKET_BYTES;
    let whole = read(&bytes).units;
    for (at, garbage) in [(0, 1), (0, 500), (5, 3), (40, 188), (41, 187), (80, 1_000), (90, 47)] {
        let mut broken = bytes.clone();
        // Bytes that look like the beginnings of packets among them.
        let noise = (0..garbage).map(|n| if n % 5 == 0 { 0x47 } else { n as u8 });
        broken.splice(at * PACKET_BYTES + 17..at * PACKET_BYTES + 17, noise);
        let told = read(&broken);
        assert_eq!(told.of(Damage::Sync), 1, "{at} {garbage}: {:?}", told.damage);
        // The packet that was cut in two and, at worst, the one behind it are lost: a unit of each
        // track. Without the first table, all is lost until it comes again after 100 ms.
        let lost: Vec<_> = whole.iter().filter(|unit| !told.units.contains(unit)).collect();
        let most = if at == 0 { 6 } else { 2 };
        let about: Vec<_> = lost.iter().map(|unit| (unit.0, unit.2, unit.4.len())).collect();
        assert!(lost.len() <= most, "{at} {garbage} of {packets}: {about:?} {:?}", told.damage);
    }
    // A byte too few.
    let mut broken = bytes.clone();
    broken.remove(50 * PACKET_BYTES + 9);
    let told = read(&broken);
    let lost = whole.iter().filter(|unit| !told.units.contains(unit)).count();
    assert!(lost <= 2, "{lost}: {:?}", told.damage);
    // Nothing but noise, for ever.
    let noise: Vec<u8> =
        (0..2_000_000u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let mut demux = Demux::new();
    demux.push(&noise, &mut |event| assert!(!matches!(event, Event::Unit(_))));
    assert!(demux.kept.capacity() <= 4 * PUSH_BYTES);
}

#[test]
fn lost_and_doubled_packets() {
    let bytes = stream(40);
    let whole = read(&bytes).units;
    for lost in [20, 33, 60] {
        let mut broken = bytes.clone();
        broken.drain(lost * PACKET_BYTES..(lost + 1) * PACKET_BYTES);
        let told = read(&broken);
        assert!(told.units.len() >= whole.len() - 2, "{:?}", told.damage);
        assert!(told.units.iter().all(|unit| whole.contains(unit)), "no half unit");
    }
    let twice: Vec<u8> =
        bytes.chunks(PACKET_BYTES).flat_map(|packet| [packet, packet].concat()).collect();
    let told = read(&twice);
    assert_eq!(told.units, whole);
    assert_eq!(told.of(Damage::Gap), 0);
}

#[test]
fn units_without_a_length_have_a_greatest_one() {
    let head = [0, 0, 1, 0xe0, 0, 0, 0x80, 0, 0];
    let mut bytes = stream(2);
    let mut counter =
        (bytes.chunks(PACKET_BYTES).filter(|p| p[1] & 0x1f == 1 && p[2] == 0).count() & 15) as u8;
    let endless = [&head[..], &vec![7; limits::TS_UNIT_BYTES_MAX + 1_000]].concat();
    bytes.extend(packets(PID_VIDEO, &mut counter, &endless));
    bytes.extend(packets(PID_VIDEO, &mut counter, &[&head[..], &[1, 2, 3]].concat()));
    let told = read(&bytes);
    assert_eq!((told.of(Damage::Limit), told.of(Damage::Unit)), (1, 0), "{:?}", told.damage);
    let last = told.units.last().unwrap();
    assert_eq!((last.1, last.4.as_slice()), (None, &[1, 2, 3][..]));
    assert_eq!(told.pictures().len(), 3);
}

#[test]
fn broken_heads_cost_their_unit() {
    let mut bytes = stream(1);
    let whole = read(&bytes).units.len();
    let mut counter = 0;
    for chunk in bytes.chunks(PACKET_BYTES) {
        if u16::from_be_bytes([chunk[1] & 0x1f, chunk[2]]) == PID_VIDEO && chunk[3] & 0x10 != 0 {
            counter = (chunk[3] + 1) & 15;
        }
    }
    for bad in [
        &[1, 2, 3][..],
        &[0, 0, 1, 0xe0, 0, 0, 0x00, 0, 0, 1, 2],
        &[0, 0, 1, 0xe0, 0, 0, 0x80, 0x40, 5, 0x21, 0, 1, 0, 1, 9],
        &[0, 0, 1, 0xe0, 0, 0, 0x80, 0x80, 5, 0x20, 0, 0, 0, 0, 9],
        &[0, 0, 1, 0xe0, 0, 0, 0x80, 0xc0, 5, 0x31, 0, 1, 0, 1, 9],
        &[0, 0, 1, 0xe0, 0, 0, 0x80, 0x80, 200, 0x21, 0, 1, 0, 1, 9],
        &[0, 0, 1, 0xbe, 0, 0, 1, 2, 3, 4, 5, 6],
        // It says 200 bytes, and the next begins before they came.
        &[0, 0, 1, 0xe0, 0, 200, 0x80, 0, 0, 9],
    ] {
        bytes.extend(packets(PID_VIDEO, &mut counter, bad));
    }
    bytes.extend(packets(
        PID_VIDEO,
        &mut counter,
        &[0, 0, 1, 0xe0, 0, 0, 0x80, 0, 0, 0, 0, 1, 0x65],
    ));
    let told = read(&bytes);
    assert_eq!(told.of(Damage::Unit), 8, "{:?}", told.damage);
    assert_eq!(told.units.len(), whole + 1);
    let last = told.units.last().unwrap();
    assert_eq!((last.3, last.4.as_slice()), (true, &[0, 0, 1, 0x65][..]));
}

/// A table with a right checksum.
fn section(table: u8, version: u8, body: &[u8]) -> Vec<u8> {
    psi::section(table, 1, version, body)
}

fn entry(kind: u8, pid: u16, descriptors: &[u8]) -> Vec<u8> {
    let [p1, p0] = pid.to_be_bytes();
    [&[kind, 0xe0 | p1, p0, 0xf0, descriptors.len() as u8][..], descriptors].concat()
}

fn pmt_of(entries: &[Vec<u8>]) -> Vec<u8> {
    let mut body = vec![0xe1, 0, 0xf0, 0];
    entries.iter().for_each(|entry| body.extend_from_slice(entry));
    body
}

#[test]
fn tables_that_loop_or_lie() {
    let (mut pat, mut pmt) = (0, 0);
    let good = [&stream(3)[..]].concat();
    let before = read(&good);
    let mut bytes = good.clone();
    let to = |pid: u16| [0, 1, 0xe0 | (pid >> 8) as u8, pid as u8];
    // The map in the table's own packets, in those that carry nothing; no program; a bad checksum.
    for body in [&to(0)[..], &to(PID_NULL), &[], &[0, 0, 0xe0, 0x10]] {
        bytes.extend(packets(PID_PAT, &mut pat, &section(0, 1, body)));
    }
    let mut wrong = section(0, 1, &to(0x30));
    wrong[9] ^= 1;
    bytes.extend(packets(PID_PAT, &mut pat, &wrong));
    // Tracks in the packets of tables, two in one, lengths that lead out, a section too long.
    let long = [&pmt_of(&[])[..2], &[0xf3, 0xff]].concat();
    for body in [
        pmt_of(&[entry(0x1b, PID_PMT, &[])]),
        pmt_of(&[entry(0x1b, PID_PAT, &[])]),
        pmt_of(&[entry(0x1b, PID_NULL, &[])]),
        pmt_of(&[entry(0x1b, 0x100, &[]), entry(0x0f, 0x100, &[])]),
        pmt_of(&[vec![0x1b, 0xe1, 0, 0xf0, 9, 1]]),
        pmt_of(&[vec![0x1b, 0xe1]]),
        long,
        vec![],
    ] {
        bytes.extend(packets(PID_PMT, &mut pmt, &section(2, 1, &body)));
    }
    bytes.extend(packets(PID_PMT, &mut pmt, &[0, 2, 0xbf, 0xff, 0, 1, 0xc1, 0, 0]));
    // A pointer that leads out of the packet.
    bytes.extend(packets(PID_PMT, &mut pmt, &[200, 2, 0xb0, 5]));
    let told = read(&bytes);
    assert_eq!(told.of(Damage::Table), 15, "{:?}", told.damage);
    assert_eq!((told.tracks, told.units), (before.tracks, before.units), "nothing has changed");

    // Two maps in turn for ever: they are followed for a while, and what is good is found again.
    let mut bytes = Vec::new();
    bytes.extend(packets(PID_PAT, &mut pat, &section(0, 0, &to(PID_PMT))));
    for n in 0..5_000u16 {
        let body = pmt_of(&[entry(0x1b, 0x200 + n % 2, &[])]);
        bytes.extend(packets(PID_PMT, &mut pmt, &section(2, n as u8 & 31, &body)));
    }
    let told = read(&bytes);
    assert!(told.tracks.len() <= limits::TS_TABLE_CHANGES_MAX as usize);
    assert!(told.of(Damage::Limit) >= 1_900, "{:?}", told.damage);
}

#[test]
fn tables_in_pieces_and_tracks_of_every_kind() {
    let (mut pat, mut pmt) = (0, 0);
    let mut bytes = packets(PID_PAT, &mut pat, &section(0, 0, &[0, 0, 0xe0, 9, 0, 7, 0xe0, 0x20]));
    let opus = [5, 4, b'O', b'p', b'u', b's', 0x7f, 2, 0x80, 2];
    let long = [&[0x52, 100][..], &[0; 100]].concat();
    let list = [
        entry(0x1b, 0x101, &long),
        entry(0x24, 0x102, &long),
        entry(0x0f, 0x103, &[]),
        entry(0x03, 0x104, &[]),
        entry(0x06, 0x105, &opus),
        entry(0x06, 0x106, &[0x6a, 1, 0]),
        entry(0x81, 0x107, &[]),
        entry(0x15, 0x108, &[9, 200]),
    ];
    bytes.extend(packets(0x20, &mut pmt, &section(2, 0, &pmt_of(&list))));
    let told = read(&bytes);
    use Carries::{Audio, Other, Video};
    let carries: Vec<Carries> = told.tracks[0].iter().map(|track| track.carries).collect();
    assert_eq!(
        carries,
        [
            Video(VideoCodec::H264),
            Video(VideoCodec::H265),
            Audio(AudioCodec::Aac),
            Audio(AudioCodec::Mp3),
            Audio(AudioCodec::Opus),
            Audio(AudioCodec::Ac3),
            Audio(AudioCodec::Ac3),
            Other(0x15),
        ]
    );
    assert_eq!(told.tracks[0][4].channels, 2);
    assert!(told.damage.is_empty(), "{:?}", told.damage);
    // More tracks than are taken.
    let many: Vec<Vec<u8>> = (0..100).map(|n| entry(0x0f, 0x200 + n, &[])).collect();
    bytes.extend(packets(0x20, &mut pmt, &section(2, 1, &pmt_of(&many))));
    let told = read(&bytes);
    assert_eq!(told.tracks[1].len(), limits::TS_TRACKS_MAX);
    assert_eq!(told.of(Damage::Limit), 1);
}

#[test]
fn all_identifiers_at_once_leave_nothing_behind() {
    let bytes = stream(30);
    let whole = read(&bytes);
    let mut mixed = Vec::new();
    let mut others = (1..PID_NULL).filter(|pid| ![PID_PMT, PID_VIDEO, PID_AUDIO].contains(pid));
    for packet in bytes.chunks(PACKET_BYTES) {
        mixed.extend_from_slice(packet);
        for pid in others.by_ref().take(200) {
            let [p1, p0] = pid.to_be_bytes();
            mixed.extend_from_slice(&[SYNC, 0x40 | p1, p0, 0x10, 0, 0, 1, 0xe0]);
            mixed.resize(mixed.len() + PACKET_BYTES - 8, 0x47);
        }
    }
    assert!(others.next().is_none(), "all of them were there");
    let mut demux = Demux::new();
    let mut told = Told::default();
    demux.push(&mixed, &mut |event| told.take(event));
    demux.finish(&mut |event| told.take(event));
    assert_eq!((told.units, told.damage.len()), (whole.units, 0));
    assert_eq!(demux.states.len(), 2);
}

#[test]
fn clocks_that_jump_and_packets_that_are_broken() {
    let bytes = stream(40);
    let whole = read(&bytes);
    let mut broken = bytes.clone();
    let clocks: Vec<usize> = (0..bytes.len())
        .step_by(PACKET_BYTES)
        .filter(|at| bytes[at + 3] & 0x20 != 0 && bytes[at + 4] > 6 && bytes[at + 5] & 0x10 != 0)
        .collect();
    broken[clocks[5] + 6] ^= 0x40;
    let told = read(&broken);
    assert_eq!((told.of(Damage::Clock), told.units.len()), (2, whole.units.len()));
    assert_eq!(told.units, whole.units, "times of units are their own");
    // Announced, it is none.
    broken[clocks[5] + 5] |= 0x80;
    broken[clocks[6] + 5] |= 0x80;
    assert_eq!(read(&broken).of(Damage::Clock), 0);
    // The line's own flag, encryption, an adaptation field that is too long.
    for (at, set, damage) in
        [(1, 0x80, Damage::Packet), (3, 0x80, Damage::Encrypted), (4, 0xff, Damage::Packet)]
    {
        let mut broken = bytes.clone();
        broken[clocks[7] + at] |= set;
        let told = read(&broken);
        assert_eq!(told.of(damage), 1, "{:?}", told.damage);
        assert!(told.units.len() + 2 >= whole.units.len());
    }
}

#[test]
fn times_roll_over() {
    let config = avc();
    let mut mux = Mux::new(Some(&config), None).unwrap();
    let mut out = Vec::new();
    let wrap_ms = (1i64 << 33) / 90;
    for ms in [wrap_ms - 300, wrap_ms - 110, wrap_ms - 70, wrap_ms + 10] {
        let data = [0, 0, 0, 1, 0x41];
        let unit = MediaUnit { dts: ms * 90, pts: ms * 90, keyframe: false, data: &data };
        mux.video(&mut out, &config, &unit).unwrap();
    }
    let times: Vec<i64> = read(&out).units.iter().filter_map(|unit| unit.2).collect();
    assert_eq!(times.len(), 4);
    let steps: Vec<i64> = times.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert_eq!(steps, [190 * 90, 40 * 90, 80 * 90]);
}

#[test]
fn audio_frames_are_told_one_by_one() {
    let config = aac();
    let frame = |n: u8, len: usize| {
        let AudioConfig { detail: crate::media::unit::AudioDetail::Aac(aac, _), .. } = &config
        else {
            panic!("AAC")
        };
        [&aac.adts_header(len).unwrap()[..], &vec![n; len]].concat()
    };
    let all: Vec<Vec<u8>> = (0..9).map(|n| frame(n, 100 + usize::from(n))).collect();
    let stream = all.concat();
    type Timed = (Option<i64>, Vec<u8>);
    // Frames of pieces, one after the other; false where something was none.
    fn split(
        codec: AudioCodec,
        pieces: &[&[u8]],
        pts: &mut dyn FnMut() -> Option<i64>,
    ) -> (Vec<Timed>, bool) {
        let (mut rest, mut rest_pts, mut found, mut good) = (Vec::new(), None, Vec::new(), true);
        for piece in pieces {
            let mut tell = |pts: Option<i64>, data: &[u8]| found.push((pts, data.to_vec()));
            good &= frames::split(codec, &mut rest, &mut rest_pts, piece, pts(), &mut tell);
        }
        assert!(rest.is_empty());
        (found, good)
    }
    // Cut anywhere, also inside of a head.
    let pieces: Vec<&[u8]> = stream.chunks(155).collect();
    let mut pts = 0;
    let (found, good) = split(AudioCodec::Aac, &pieces, &mut || {
        pts += 3_000;
        Some(pts)
    });
    let data: Vec<Vec<u8>> = found.iter().map(|(_, data)| data.clone()).collect();
    assert!(good && data == all);
    assert!(found.windows(2).all(|pair| pair[0].0 < pair[1].0), "{found:?}");
    // What is no frame is passed over.
    let broken = [&all[0][..], &[1, 2, 3], &all[1][..]].concat();
    let (found, good) = split(AudioCodec::Aac, &[&broken], &mut || Some(0));
    let step = 1024 * 90_000 / 44_100;
    assert!(!good);
    assert_eq!(found, [(Some(0), all[0].clone()), (Some(step), all[1].clone())]);
    // Opus: two packets in one payload, one of them with trimming.
    let opus = [0x7f, 0xe0, 3, 0xfc, 1, 2, 0x7f, 0xf0, 2, 0, 5, 0xfc, 7];
    let (found, good) = split(AudioCodec::Opus, &[&opus], &mut || Some(900));
    assert!(good);
    assert_eq!(found, [(Some(900), vec![0xfc, 1, 2]), (Some(900 + 1_800), vec![0xfc, 7])]);
    let (found, good) = split(AudioCodec::Opus, &[&opus[..5]], &mut || None);
    assert!(!good && found.is_empty());
}

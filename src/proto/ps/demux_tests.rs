//! What comes out is what went in, and what is broken costs what is broken (row 36 of the tests
//! against bad input, for program streams: maps that loop, packets without a length, lost sync,
//! jumping clocks, all stream ids there are).

use std::collections::BTreeMap;

use super::*;
use crate::media::unhex;

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

    fn of_track(&self, track: usize) -> Vec<&Found> {
        self.units.iter().filter(|unit| unit.0 == track).collect()
    }

    fn carries(&self) -> Vec<Carries> {
        self.tracks.last().into_iter().flatten().map(|track| track.carries).collect()
    }
}

fn read_in(bytes: &[u8], pieces: impl Fn(usize) -> usize) -> Told {
    let (mut demux, mut told) = (Demux::new(), Told::default());
    let (mut rest, mut count) = (bytes, 0);
    while !rest.is_empty() {
        let (piece, more) = rest.split_at(pieces(count).clamp(1, rest.len()));
        demux.push(piece, &mut |event| told.take(event));
        (rest, count) = (more, count + 1);
    }
    demux.finish(&mut |event| told.take(event));
    told
}

fn read(bytes: &[u8]) -> Told {
    read_in(bytes, |_| 1_000)
}

const H264: Carries = Carries::Video(VideoCodec::H264);
const AAC: Carries = Carries::Audio(AudioCodec::Aac);

/// A pack header with this clock, ticks.
fn pack(clock: u64) -> Vec<u8> {
    let mut out = vec![0, 0, 1, 0xba];
    out.push(0x44 | (clock >> 27) as u8 & 0x38 | (clock >> 28) as u8 & 3);
    out.push((clock >> 20) as u8);
    out.push((clock >> 12) as u8 & 0xf8 | 4 | (clock >> 13) as u8 & 3);
    out.push((clock >> 5) as u8);
    out.push((clock << 3) as u8 | 4);
    // A rate, and two bytes of stuffing.
    out.extend_from_slice(&[1, 0, 0, 3, 0xfa, 0xff, 0xff]);
    out
}

fn time(prefix: u8, ticks: u64) -> [u8; 5] {
    [
        prefix << 4 | (ticks >> 29) as u8 & 0x0e | 1,
        (ticks >> 22) as u8,
        (ticks >> 14) as u8 | 1,
        (ticks >> 7) as u8,
        (ticks << 1) as u8 | 1,
    ]
}

/// A packet; its length is not told if it is too long for that.
fn pes(id: u8, pts: Option<u64>, dts: Option<u64>, payload: &[u8]) -> Vec<u8> {
    let mut fields = Vec::new();
    if let Some(pts) = pts {
        fields.extend(time(if dts.is_some() { 3 } else { 2 }, pts));
    }
    fields.extend(dts.iter().flat_map(|dts| time(1, *dts)));
    let flags = u8::from(pts.is_some()) << 7 | u8::from(dts.is_some()) << 6;
    let len = u16::try_from(3 + fields.len() + payload.len()).unwrap_or(0);
    let [high, low] = len.to_be_bytes();
    let head = [0, 0, 1, id, high, low, 0x80, flags, fields.len() as u8];
    [&head[..], &fields, payload].concat()
}

fn map(entries: &[(u8, u8)]) -> Vec<u8> {
    let mut streams = Vec::new();
    for (kind, id) in entries {
        // With a descriptor that says nothing.
        streams.extend_from_slice(&[*kind, *id, 0, 4, 0x2a, 2, 0, 0]);
    }
    let body = [&[0xe0, 0xff, 0, 0, 0, streams.len() as u8][..], &streams, &[1, 2, 3, 4]].concat();
    [&[0, 0, 1, 0xbc, 0, body.len() as u8][..], &body].concat()
}

fn system_header() -> Vec<u8> {
    unhex("000001bb000c80 1e ff fe e1 7f e0 e0 80 c0 c0 20")
}

const SETS: &[u8] = &[0, 0, 0, 1, 0x67, 0x42, 0, 30, 0, 0, 0, 1, 0x68, 0xce, 1];

/// A picture of this number, of some length.
fn picture(n: u64, len: usize) -> Vec<u8> {
    let key = n.is_multiple_of(10);
    let mut out = if key { SETS.to_vec() } else { Vec::new() };
    out.extend_from_slice(&[0, 0, 0, 1, if key { 0x65 } else { 0x41 }, 0x88, n as u8]);
    out.resize(out.len() + len, n as u8 | 0x80);
    out
}

/// A frame of AAC with its head.
fn adts(n: u8, len: usize) -> Vec<u8> {
    let len = len + 7;
    let mut out = vec![0xff, 0xf1, 0x50, 0x80 | (len >> 11) as u8, (len >> 3) as u8];
    out.extend_from_slice(&[(len << 5) as u8 | 0x1f, 0xfc]);
    out.resize(len, n);
    out
}

/// As cameras send it: each picture in a pack of its own, in packets of 1500 bytes at most, with an
/// audio frame behind it. Every tenth pack has a map.
fn camera(pictures: u64, with_map: bool) -> Vec<u8> {
    let mut out = Vec::new();
    for n in 0..pictures {
        let at = 90_000 + n * 3_600;
        out.extend(pack(at));
        if n % 10 == 0 {
            out.extend(system_header());
            if with_map {
                out.extend(map(&[(0x1b, 0xe0), (0x0f, 0xc0)]));
            }
        }
        let data = picture(n, 300 + 370 * (n as usize % 17));
        for part in data.chunks(1_500) {
            out.extend(pes(0xe0, Some(at + 7_200), Some(at), part));
        }
        // What only a maker knows, and padding.
        out.extend(pes(0xbd, None, None, &[0x47; 30]));
        out.extend(pes(0xc0, Some(at), None, &adts(n as u8, 200)));
        out.extend_from_slice(&[0, 0, 1, 0xbe, 0, 3, 0xff, 0xff, 0xff]);
    }
    out
}

/// What is to be found in that.
fn expected(pictures: u64) -> Vec<Found> {
    let mut all = Vec::new();
    for n in 0..pictures {
        let at = (90_000 + n * 3_600) as i64;
        let data = picture(n, 300 + 370 * (n as usize % 17));
        all.push((0, Some(at + 7_200), Some(at), n.is_multiple_of(10), data));
    }
    for n in 0..pictures {
        let at = Some((90_000 + n * 3_600) as i64);
        all.push((1, at, at, true, adts(n as u8, 200)));
    }
    all
}

fn sorted(mut units: Vec<Found>) -> Vec<Found> {
    units.sort_by_key(|unit| (unit.0, unit.2));
    units
}

#[test]
fn what_comes_out_is_what_went_in() {
    let bytes = camera(50, true);
    for step in [1, 3, 187, 1_499, 5_000, 1 << 20] {
        let told = read_in(&bytes, |_| step);
        assert!(told.damage.is_empty(), "{step}: {:?}", told.damage);
        assert_eq!((told.carries(), told.tracks.len()), (vec![H264, AAC], 1));
        assert_eq!(told.tracks[0][0].id, 0xe0);
        assert!(sorted(told.units) == expected(50), "{step}");
        assert!(told.ends.iter().max().is_some_and(|end| bytes.len() as u64 - end < 50));
    }
    // Without a map it is the same, told of one after the other.
    let told = read(&camera(50, false));
    assert!(told.damage.is_empty(), "{:?}", told.damage);
    assert_eq!((told.carries(), told.tracks.len()), (vec![H264, AAC], 2));
    assert!(sorted(told.units) == expected(50));
}

#[test]
fn as_ffmpeg_lays_it_out() {
    // Packets are filled, whatever begins or ends in them, as MPEG-1 and MPEG-2 have them.
    for mpeg1 in [false, true] {
        let (mut stream, mut begins) = (Vec::new(), Vec::new());
        for n in 0..40u64 {
            begins.push((stream.len(), n));
            stream.extend(picture(n, 500 + 100 * (n as usize % 7)));
        }
        let mut bytes = Vec::new();
        for (index, part) in stream.chunks(2_000).enumerate() {
            let inside = index * 2_000..(index + 1) * 2_000;
            let first = begins.iter().find(|(at, _)| inside.contains(at)).map(|(_, n)| n * 3_600);
            if mpeg1 {
                let clock = time(2, index as u64 * 5_000);
                bytes.extend([&[0, 0, 1, 0xba][..], &clock, &[0x80, 0, 1]].concat());
                let mut head = vec![0xff, 0x60, 0x20];
                match first {
                    Some(at) => head.extend([time(3, at + 3_600), time(1, at)].concat()),
                    None => head.push(0x0f),
                }
                let len = (head.len() + part.len()) as u16;
                let start = [0, 0, 1, 0xe2];
                bytes.extend([&start[..], &len.to_be_bytes(), &head, part].concat());
            } else {
                bytes.extend(pack(index as u64 * 5_000));
                bytes.extend(pes(0xe2, first.map(|at| at + 3_600), first, part));
            }
        }
        let told = read(&bytes);
        assert!(told.damage.is_empty(), "{:?}", told.damage);
        assert_eq!((told.carries(), told.units.len()), (vec![H264], 40));
        let mut packet = usize::MAX;
        for ((at, n), unit) in begins.iter().zip(&told.units) {
            // Only the first that begins in a packet has times.
            let time = (std::mem::replace(&mut packet, at / 2_000) != at / 2_000)
                .then_some(*n as i64 * 3_600);
            let data = picture(*n, 500 + 100 * (*n as usize % 7));
            assert_eq!((unit.2, unit.1), (time, time.map(|time| time + 3_600)), "{n}");
            assert!(unit.4 == data && unit.3 == n.is_multiple_of(10));
        }
    }
}

#[test]
fn packets_of_any_length_make_a_picture() {
    // 200 KiB: in packets of 64 KiB of one time, in packets of which only the first says it, and in
    // one that does not tell its length.
    let key = picture(0, 200 << 10);
    let sharing: Vec<u8> =
        key.chunks(65_000).flat_map(|part| pes(0xe0, Some(900), None, part)).collect();
    let mut first = true;
    let once: Vec<u8> = key
        .chunks(60_000)
        .flat_map(|part| pes(0xe0, std::mem::replace(&mut first, false).then_some(900), None, part))
        .collect();
    let endless = pes(0xe0, Some(900), None, &key);
    assert_eq!(endless[4..6], [0, 0]);
    for packets in [sharing, once, endless] {
        let next = pes(0xe0, Some(4_500), None, &picture(1, 30));
        let end = [0, 0, 1, 0xb9];
        let bytes = [&pack(0)[..], &packets, &pack(3_600), &next, &end].concat();
        for step in [1_000, 7, 70_000] {
            let told = read_in(&bytes, |_| step);
            assert!(told.damage.is_empty(), "{:?}", told.damage);
            let times: Vec<_> = told.units.iter().map(|unit| unit.1).collect();
            assert_eq!(times, [Some(900), Some(4_500)]);
            assert!(told.units[0].4 == key && told.units[1].4 == picture(1, 30));
        }
    }
}

#[test]
fn what_is_cut_off_is_not_told() {
    let bytes = camera(20, true);
    let all = expected(20);
    let mut least = usize::MAX;
    for cut in (1..6_000).step_by(13) {
        let told = read(&bytes[..bytes.len() - cut]);
        assert!(told.units.iter().all(|unit| all.contains(unit)), "{cut}");
        if cut < 1_300 {
            least = least.min(told.units.len());
        }
    }
    // The last picture, the frame beside it, and the one before it that they would have ended.
    assert!(least >= all.len() - 3, "{least}");
    // An end code says that nothing is missing.
    let one = [&pack(0)[..], &pes(0xe0, Some(0), None, &picture(0, 9))].concat();
    let told = read(&one);
    assert_eq!((told.units.len(), told.of(Damage::Unit)), (0, 1));
    let told = read(&[&one[..], &[0, 0, 1, 0xb9]].concat());
    assert_eq!((told.units.len(), told.damage.len()), (1, 0));
}

#[test]
fn any_slicing_gives_the_same() {
    for seed in 0..200u64 {
        // Damaged at some places, differently by seed.
        let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let mut random = move |below: u64| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state % below
        };
        let mut bytes = camera(12, seed % 3 > 0);
        if seed % 5 == 0 {
            bytes.splice(4_000..4_000, pes(0xe0, None, None, &picture(3, 70_000)));
        }
        for _ in 0..seed % 8 {
            let at = random(bytes.len() as u64) as usize;
            let until = (at + random(400) as usize).min(bytes.len());
            match random(4) {
                0 => drop(bytes.drain(at..until)),
                1 => drop(bytes.splice(at..at, vec![random(256) as u8; until - at])),
                2 => bytes[at] = random(256) as u8,
                _ => drop(bytes.splice(at..at, pack(random(1 << 33)))),
            }
        }
        let whole = read_in(&bytes, |_| usize::MAX);
        let sizes: Vec<usize> = (0..50).map(|_| 1 << random(12)).collect();
        let cut = read_in(&bytes, |count| sizes[count % 50]);
        assert_eq!((whole.tracks, whole.damage, whole.ends), (cut.tracks, cut.damage, cut.ends));
        assert!(whole.units == cut.units, "{seed}");
    }
}

#[test]
fn lost_sync_costs_the_pictures_around_it() {
    let bytes = camera(60, true);
    let all = expected(60);
    let packs: Vec<usize> = memmem::find_iter(&bytes, &[0, 0, 1, 0xba]).collect();
    for (place, garbage) in [(1, 1), (20, 500), (21, 3), (33, 188), (40, 70_000)] {
        let mut broken = bytes.clone();
        // Inside of a packet, with start codes of pictures and of nothing among it.
        let noise = (0..garbage).map(|n| [0, 0, 1, 0x65, 0x88, n as u8][n % 6]);
        broken.splice(packs[place] + 300..packs[place] + 300, noise);
        let told = read(&broken);
        assert_eq!(told.of(Damage::Sync), 1, "{place} {garbage}: {:?}", told.damage);
        let lost = all.iter().filter(|unit| !told.units.contains(unit)).count();
        assert!(lost <= 3, "{place} {garbage}: {lost} {:?}", told.damage);
        let made_up = told.units.iter().filter(|unit| !all.contains(unit)).count();
        assert_eq!(made_up, 0, "{place} {garbage}");
    }
    // Bytes too few: the packet says it is longer than it is, and the next pack is found in it.
    for (place, missing) in [(7, 1), (18, 200), (22, 20)] {
        let mut broken = bytes.clone();
        broken.drain(packs[place] + 100..packs[place] + 100 + missing);
        let told = read(&broken);
        let lost = all.iter().filter(|unit| !told.units.contains(unit)).count();
        assert!(lost <= 3 && told.of(Damage::Sync) == 1, "{place}: {lost} {:?}", told.damage);
        assert!(told.units.iter().all(|unit| all.contains(unit)), "{place}: a unit with a hole");
    }
    // It begins in the middle.
    let told = read(&bytes[packs[3] + 40..]);
    assert_eq!((told.of(Damage::Sync), told.damage.len()), (1, 1));
    // Audio is known first, so the tracks have other places.
    assert_eq!(told.carries(), [AAC, H264]);
    let known = |unit: &Found| {
        all.iter().any(|one| (one.0, one.1, &one.4) == (1 - unit.0, unit.1, &unit.4))
    };
    assert!(told.units.iter().all(known));
    assert!(told.units.len() >= all.len() - 10);
    // Whoever carried it knows that something is missing.
    let (mut demux, mut told) = (Demux::new(), Told::default());
    demux.push(&bytes[..packs[20] + 700], &mut |event| told.take(event));
    demux.gap(&mut |event| told.take(event));
    demux.push(&bytes[packs[20] + 900..], &mut |event| told.take(event));
    demux.finish(&mut |event| told.take(event));
    assert_eq!(told.of(Damage::Gap), 1);
    assert!(told.units.iter().all(|unit| all.contains(unit)) && told.units.len() >= 117);
}

#[test]
fn without_packs_packets_will_do_after_a_while() {
    let mut bytes = Vec::new();
    for n in 0..400 {
        bytes.extend(pes(0xe0, Some(n * 3_600), None, &picture(n, 1_000)));
    }
    let told = read(&bytes);
    assert_eq!(told.of(Damage::Sync), 1);
    let first = limits::PS_RESYNC_BYTES_MAX as usize / 1_030;
    assert!((395 - first - 12..400 - first).contains(&told.units.len()), "{}", told.units.len());
    // Nothing but noise, for ever.
    let noise: Vec<u8> =
        (0..2_000_000u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8 & 0x81).collect();
    let mut demux = Demux::new();
    demux.push(&noise, &mut |event| assert!(!matches!(event, Event::Unit(_))));
    assert!(demux.kept.capacity() <= 4 * PUSH_BYTES);
}

#[test]
fn what_is_without_end_has_a_limit() {
    // A packet without a length, a picture in packets that have one, and far too many of those.
    let endless = |payload: &[u8]| [&[0, 0, 1, 0xe0, 0, 0, 0x80, 0, 0][..], payload].concat();
    let start = [&pack(0)[..], &map(&[(0x1b, 0xe0)])].concat();
    let next = [
        &pack(3_600)[..],
        &pes(0xe0, Some(3_600), None, &picture(0, 50)),
        &pes(0xe0, Some(7_200), None, &picture(1, 50)),
        &[0, 0, 1, 0xb9],
    ]
    .concat();
    let long: Vec<u8> = (0..limits::PS_UNIT_BYTES_MAX / 60_000 + 2)
        .flat_map(|_| pes(0xe0, None, None, &[7; 60_000]))
        .collect();
    let many: Vec<u8> = (0..limits::PS_PACKETS_PER_UNIT_MAX + 2)
        .flat_map(|_| pes(0xe0, None, None, &[7]))
        .collect();
    let one = pes(0xe0, Some(0), None, &picture(0, 50));
    for (middle, sync) in [
        (endless(&vec![7; limits::PS_UNIT_BYTES_MAX + 1_000]), 1),
        ([&one[..], &long].concat(), 0),
        ([&one[..], &many].concat(), 0),
    ] {
        let bytes = [&start[..], &middle, &next].concat();
        let told = read_in(&bytes, |_| 50_000);
        assert_eq!((told.of(Damage::Limit), told.of(Damage::Sync)), (1, sync), "{:?}", told.damage);
        let times: Vec<_> = told.units.iter().map(|unit| unit.1).collect();
        assert_eq!(times, [Some(3_600), Some(7_200)]);
    }
}

#[test]
fn maps_that_loop_or_lie() {
    let good = camera(3, true);
    let before = read(&good);
    let mut bytes = good.clone();
    let raw =
        |body: &[u8]| [&[0, 0, 1, 0xbc][..], &(body.len() as u16).to_be_bytes(), body].concat();
    for body in [
        &[][..],
        &[0xe0, 0xff, 0],
        // Lengths that lead out: of descriptors, of streams, of a stream's descriptors.
        &[0xe0, 0xff, 0xff, 0xff, 0, 0, 1, 2, 3, 4],
        &[0xe0, 0xff, 0, 0, 0, 90, 0x1b, 0xe0, 0, 0, 1, 2, 3, 4],
        &[0xe0, 0xff, 0, 0, 0, 4, 0x1b, 0xe0, 0, 9, 1, 2, 3, 4],
        &[0xe0, 0xff, 0, 0, 0, 3, 0x1b, 0xe0, 0, 1, 2, 3, 4],
        // Two in one.
        &[0xe0, 0xff, 0, 0, 0, 8, 0x1b, 0xe0, 0, 0, 0x24, 0xe0, 0, 0, 1, 2, 3, 4],
    ] {
        bytes.extend(raw(body));
    }
    bytes.extend(raw(&[0xe0; 1_100]));
    let told = read(&bytes);
    assert_eq!((told.of(Damage::Table), told.of(Damage::Limit)), (7, 1), "{:?}", told.damage);
    assert_eq!(told.tracks, before.tracks);
    assert_eq!(told.of_track(1).len(), 3);
    // Two maps in turn for ever.
    let mut bytes = pack(0);
    for n in 0..5_000 {
        bytes.extend(map(&[(if n % 2 == 0 { 0x1b } else { 0x24 }, 0xe0)]));
    }
    let told = read(&bytes);
    assert!(told.tracks.len() <= limits::PS_MAP_CHANGES_MAX as usize);
    assert!(told.of(Damage::Limit) >= 1_900, "{:?}", told.damage);
    // A map that says something else than before: what was open is told before that.
    let mut bytes = camera(3, true);
    let hevc = [0, 0, 0, 1, 0x40, 1, 2, 0, 0, 1, 0x26, 1, 0xaf, 9];
    bytes.extend([pack(104_400), map(&[(0x24, 0xe0), (0x90, 0xc0)])].concat());
    bytes.extend(pes(0xe0, Some(104_400), None, &hevc));
    bytes.extend(pes(0xc0, Some(104_400), None, &[0xd5; 160]));
    bytes.extend([0, 0, 1, 0xb9]);
    let told = read(&bytes);
    assert!(told.damage.is_empty(), "{:?}", told.damage);
    let hevc_and_g711 = [Carries::Video(VideoCodec::H265), Carries::Audio(AudioCodec::G711A)];
    assert_eq!((told.carries(), told.units.len()), (hevc_and_g711.to_vec(), 8));
    assert_eq!(told.of_track(0)[3], &(0, Some(104_400), Some(104_400), true, hevc.to_vec()));
    assert_eq!(told.of_track(1)[3].4, [0xd5; 160]);
}

#[test]
fn streams_of_every_kind() {
    use Carries::{Audio, Other, Video};
    let kinds = [
        (0x1b, Video(VideoCodec::H264)),
        (0x24, Video(VideoCodec::H265)),
        (0x0f, AAC),
        (0x03, Audio(AudioCodec::Mp3)),
        (0x04, Audio(AudioCodec::Mp3)),
        (0x90, Audio(AudioCodec::G711A)),
        (0x91, Audio(AudioCodec::G711U)),
        // SVAC pictures, G.722.1, G.723.1, G.729, SVAC audio: told as they are.
        (0x80, Other(0x80)),
        (0x92, Other(0x92)),
        (0x93, Other(0x93)),
        (0x99, Other(0x99)),
        (0x9b, Other(0x9b)),
    ];
    let entries: Vec<(u8, u8)> =
        kinds.iter().zip(0xc0..).map(|((kind, _), id)| (*kind, id)).collect();
    let mut bytes = [pack(0), map(&entries), pes(0xc8, Some(5), None, &[1, 2])].concat();
    let told = read(&bytes);
    assert_eq!(told.carries(), kinds.map(|(_, carries)| carries));
    assert_eq!(told.units, [(8, Some(5), Some(5), false, vec![1, 2])]);
    // All stream ids at once: those of audio and video up to the limit, the others leave nothing.
    for id in 0xbd..=0xff {
        bytes.extend([&[0, 0, 1, id, 0, 5, 0x80, 0, 0, 1, 2][..]].concat());
    }
    let mut demux = Demux::new();
    let mut told = Told::default();
    demux.push(&bytes, &mut |event| told.take(event));
    assert_eq!(demux.streams.len(), limits::PS_TRACKS_MAX);
    assert_eq!(told.of(Damage::Limit), 48 - limits::PS_TRACKS_MAX as u32, "{:?}", told.damage);
    assert_eq!(told.damage.len(), 1, "{:?}", told.damage);
}

#[test]
fn what_no_map_tells_of_is_guessed_within_limits() {
    let hevc = [0, 0, 0, 1, 0x40, 1, 2, 0, 0, 1, 0x26, 1, 0xaf, 9];
    let mp3 = [&[0xff, 0xfb, 0x90, 0x64][..], &[0; 413]].concat();
    let mut bytes = pack(0);
    // G.711, which nothing tells apart: left out, and told.
    for n in 0..200 {
        bytes.extend(pes(0xc1, Some(n * 1_800), None, &[0xd5; 160]));
    }
    // Slices before there is a parameter set.
    bytes.extend(pes(0xe1, Some(3_600), None, &[0, 0, 1, 2, 1, 0xd0, 6]));
    bytes.extend(pes(0xe1, Some(7_200), None, &hevc));
    bytes.extend(pes(0xc2, Some(7_200), None, &mp3[..300]));
    bytes.extend(pes(0xc2, None, None, &[&mp3[300..], &mp3[..]].concat()));
    bytes.extend(pes(0xe3, Some(9), None, &[0, 0, 1, 0xb3, 0x14, 0, 0xf0]));
    bytes.extend([0, 0, 1, 0xb9]);
    let told = read(&bytes);
    assert_eq!(told.damage, BTreeMap::from([(Damage::Unit, 1), (Damage::Limit, 3)]));
    let expected =
        [Carries::Video(VideoCodec::H265), Carries::Audio(AudioCodec::Mp3), Carries::Other(2)];
    assert_eq!(told.carries(), expected);
    let units: Vec<_> = told.units.iter().map(|unit| (unit.0, unit.1, unit.4.len())).collect();
    let (first, second) = ((1, Some(7_200), 417), (1, Some(7_200 + 1152 * 90_000 / 44_100), 417));
    assert_eq!(units, [(0, Some(3_600), 7), first, second, (2, Some(9), 7), (0, Some(7_200), 14)]);
}

#[test]
fn clocks_that_jump_and_heads_that_are_broken() {
    let bytes = camera(40, true);
    let whole = read(&bytes);
    let packs: Vec<usize> = memmem::find_iter(&bytes, &[0, 0, 1, 0xba]).collect();
    let mut broken = bytes.clone();
    broken.splice(packs[5]..packs[5] + 10, pack(1 << 32)[..10].iter().copied());
    let told = read(&broken);
    assert_eq!((told.of(Damage::Clock), told.damage.len()), (2, 1));
    assert_eq!(told.units, whole.units, "times of units are their own");
    // Clocks of MPEG-1, and the end between two programs.
    assert_eq!(pack_clock(&pack(0x1_2345_6789)), Some(0x1_2345_6789));
    let old = [&[0, 0, 1, 0xba][..], &time(2, 0x1_2345_6789), &[0x80, 0, 1]].concat();
    assert_eq!(pack_clock(&old), Some(0x1_2345_6789));
    let two = [&bytes[..], &[0, 0, 1, 0xb9], &bytes].concat();
    let told = read(&two);
    assert!(told.damage.is_empty() && told.units.len() == 2 * whole.units.len());
    // A marker bit; a pack that is none; a head without its marker, and an encrypted payload.
    let picture = packs[7] + 16;
    assert_eq!(bytes[picture..picture + 4], [0, 0, 1, 0xe0]);
    for (at, byte, damage, lost) in [
        (packs[7] + 9, 0, Damage::Packet, 0),
        (packs[7] + 4, 0xff, Damage::Packet, 3),
        (picture + 9, 0x30, Damage::Unit, 2),
        (picture + 6, 0xb0, Damage::Encrypted, 2),
    ] {
        let mut broken = bytes.clone();
        broken[at] = byte;
        let told = read(&broken);
        assert_eq!(told.of(damage), 1, "{damage}: {:?}", told.damage);
        assert!(told.units.len() + lost >= whole.units.len(), "{damage}: {}", told.units.len());
        assert!(told.units.iter().all(|unit| whole.units.contains(unit)), "{damage}");
    }
}

#[test]
fn times_roll_over() {
    let wrap = 1u64 << 33;
    let mut bytes = Vec::new();
    for at in [wrap - 7_200, wrap - 3_600, wrap, wrap + 3_600] {
        bytes.extend(pack(at % wrap));
        bytes.extend(pes(0xe0, Some(at % wrap), None, &picture(at / 3_600, 40)));
    }
    bytes.extend([0, 0, 1, 0xb9]);
    let told = read(&[&pack(wrap - 9_000)[..], &map(&[(0x1b, 0xe0)]), &bytes].concat());
    assert!(told.damage.is_empty(), "{:?}", told.damage);
    let times: Vec<i64> = told.units.iter().filter_map(|unit| unit.2).collect();
    assert_eq!(times, [-7_200, -3_600, 0, 3_600].map(|step| wrap as i64 + step));
}

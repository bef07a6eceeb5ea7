//! MP4 files: fragments with a time base of their own and, once a file is whole, one `moov` for
//! all.
//!
//! ```text
//! while it is written:  ftyp  free  moov(mvex)  moof mdat  moof mdat ...
//! when it is whole:     ftyp  mdat[ moov        moof mdat  moof mdat ... ]  moov
//! ```
//! What is written is a fragmented file at any moment, so one whose writing was cut off plays up to
//! its last fragment. At the end a `moov` that names every sample goes behind it, and sixteen bytes
//! in its beginning turn all that lies between into media data.

use super::{boxed, full, put16, put32, put64};
use crate::limits;

/// The bytes are not what this module writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("malformed MP4: {0}")]
pub struct Malformed(pub &'static str);

/// The head of a box.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// Its name.
    pub name: [u8; 4],
    /// Bytes of the head.
    pub head: u64,
    /// Bytes of the whole box.
    pub len: u64,
}

/// The head of the box that begins `bytes`; `None` when there are too few of them.
///
/// # Errors
/// The box would be shorter than its head.
pub fn head(bytes: &[u8]) -> Result<Option<Head>, Malformed> {
    let Some(first) = bytes.first_chunk::<8>() else { return Ok(None) };
    let [s0, s1, s2, s3, name @ ..] = *first;
    let short = u64::from(u32::from_be_bytes([s0, s1, s2, s3]));
    let (head, len) = match short {
        1 => match bytes.get(8..16).and_then(|long| long.first_chunk::<8>()) {
            Some(long) => (16, u64::from_be_bytes(*long)),
            None => return Ok(None),
        },
        _ => (8, short),
    };
    if len < head {
        return Err(Malformed("a box is shorter than its head"));
    }
    Ok(Some(Head { name, head, len }))
}

/// The boxes in a body.
pub(super) struct Boxes<'a>(pub(super) &'a [u8]);

impl<'a> Iterator for Boxes<'a> {
    type Item = ([u8; 4], &'a [u8], &'a [u8]);

    /// Name, body and whole.
    fn next(&mut self) -> Option<Self::Item> {
        let found = head(self.0).ok().flatten()?;
        let whole = self.0.get(..usize::try_from(found.len).ok()?)?;
        self.0 = &self.0[whole.len()..];
        Some((found.name, &whole[found.head as usize..], whole))
    }
}

pub(super) fn find<'a>(body: &'a [u8], path: &[&[u8; 4]]) -> Option<&'a [u8]> {
    let (first, rest) = path.split_first()?;
    let (_, inner, _) = Boxes(body).find(|(name, ..)| name == *first)?;
    if rest.is_empty() { Some(inner) } else { find(inner, rest) }
}

pub(super) fn number32(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|four| u32::from_be_bytes(*four))
}

pub(super) fn number64(bytes: &[u8], at: usize) -> Option<u64> {
    bytes.get(at..)?.first_chunk().map(|eight| u64::from_be_bytes(*eight))
}

/// What begins a message of a feed of fragments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Item {
    /// An initialisation segment of so many bytes.
    Init(usize),
    /// A fragment.
    Fragment(Sample),
}

/// The one sample of a fragment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sample {
    /// The track.
    pub track: u32,
    /// Decoding time in the track's timescale.
    pub dts: u64,
    /// How long it lasts.
    pub duration: u32,
    /// How much later it is shown.
    pub composition: i32,
    /// Decoding can start here.
    pub keyframe: bool,
    /// Its bytes.
    pub size: u32,
    /// Where its `moof` begins: what is before it (a reference time) does not belong into a file.
    moof_at: usize,
    /// Where its time is stated, and where its data begins.
    time_at: usize,
    data_at: usize,
}

impl Sample {
    /// Bytes before its data, in a message.
    pub fn data_at(&self) -> usize {
        self.data_at
    }

    /// Bytes before its data, in a file.
    pub fn head_len(&self) -> usize {
        self.data_at - self.moof_at
    }

    /// Its head as it goes into a file, with another time. `bytes` begin as the message does.
    pub fn head_with_time(&self, bytes: &[u8], dts: u64) -> Vec<u8> {
        let mut out = bytes.get(self.moof_at..self.data_at).unwrap_or_default().to_vec();
        if let Some(time) = out.get_mut(self.time_at - self.moof_at..).and_then(|t| t.get_mut(..8))
        {
            time.copy_from_slice(&dts.to_be_bytes());
        }
        out
    }
}

/// Reads the beginning of a message, as `write_fragment` and `write_init` write it. `bytes` have to
/// reach up to the sample's data.
///
/// # Errors
/// It is neither.
pub fn read(bytes: &[u8]) -> Result<Item, Malformed> {
    let mut at = 0;
    loop {
        let rest = bytes.get(at..).unwrap_or_default();
        let Some(found) = head(rest)? else { return Err(Malformed("no fragment")) };
        let len = usize::try_from(found.len).map_err(|_| Malformed("a box is too long"))?;
        match &found.name {
            b"ftyp" => {
                let moov = head(rest.get(len..).unwrap_or_default())?;
                let moov = moov.filter(|moov| &moov.name == b"moov");
                let moov = moov.ok_or(Malformed("no moov behind the ftyp"))?;
                return Ok(Item::Init(at + len + moov.len as usize));
            }
            b"moof" => return sample(bytes, at, len).map(Item::Fragment),
            _ => at += len,
        }
    }
}

fn sample(bytes: &[u8], moof_at: usize, len: usize) -> Result<Sample, Malformed> {
    const KEYFRAME_NOT: u32 = 0x1_0000;
    let wrong = Malformed("a fragment of another form");
    let moof = bytes.get(moof_at..moof_at + len).ok_or(wrong)?;
    let body = moof.get(8..).ok_or(wrong)?;
    let traf = find(body, &[b"traf"]).ok_or(wrong)?;
    let tfdt = find(traf, &[b"tfdt"]).ok_or(wrong)?;
    let trun = find(traf, &[b"trun"]).ok_or(wrong)?;
    let track = find(traf, &[b"tfhd"]).and_then(|tfhd| number32(tfhd, 4)).ok_or(wrong)?;
    let field = |at| number32(trun, at).ok_or(wrong);
    if tfdt.first() != Some(&1) || field(4)? != 1 || field(0)? & 0x701 != 0x701 {
        return Err(wrong);
    }
    let composed = field(0)? & 0x800 != 0;
    let time_at = moof_at + (tfdt.as_ptr() as usize - moof.as_ptr() as usize) + 4;
    let mdat = head(bytes.get(moof_at + len..).unwrap_or_default())?;
    let mdat = mdat.filter(|mdat| &mdat.name == b"mdat").ok_or(wrong)?;
    let size = field(16)?;
    if mdat.len != mdat.head + u64::from(size) {
        return Err(wrong);
    }
    Ok(Sample {
        track,
        dts: number64(tfdt, 4).ok_or(wrong)?,
        duration: field(12)?,
        composition: if composed { field(24)?.cast_signed() } else { 0 },
        keyframe: field(20)? & KEYFRAME_NOT == 0,
        size,
        moof_at,
        time_at,
        data_at: moof_at + len + mdat.head as usize,
    })
}

/// Bytes of the file to be overwritten, and where.
pub type Patch = (u64, Vec<u8>);

/// What is written of a file so far.
#[derive(Debug)]
pub struct Mp4File {
    /// The `moov` of the initialisation segment.
    moov: Vec<u8>,
    tracks: Vec<Table>,
    /// Where the sixteen bytes are that are overwritten at the end; `None`: it stays fragmented.
    hole: Option<u64>,
    /// Stream time of the file's beginning, 1/90000 s.
    base: i64,
    samples: usize,
}

/// The samples of one track.
#[derive(Debug, Default)]
struct Table {
    id: u32,
    timescale: u32,
    first_dts: Option<u64>,
    last_dts: u64,
    last_duration: u32,
    sizes: Vec<u32>,
    places: Vec<u64>,
    /// Counts and time to the next sample.
    times: Vec<(u32, u32)>,
    compositions: Vec<(u32, i32)>,
    /// Numbers of samples that decoding can start at, from 1.
    sync: Vec<u32>,
}

/// Bytes of the hole: the head of a box with a long size.
const HOLE_BYTES: u32 = 16;
/// Ticks of a whole file's clock.
const MOVIE_HZ: u64 = 90_000;

impl Mp4File {
    /// Begins a file at a stream time (1/90000 s) with an initialisation segment. Writes what comes
    /// before the fragments. `whole`: it will get a `moov` for all at its end.
    ///
    /// # Errors
    /// `init` is no initialisation segment.
    pub fn begin(
        out: &mut Vec<u8>,
        init: &[u8],
        base: i64,
        whole: bool,
    ) -> Result<Mp4File, Malformed> {
        let Item::Init(len) = read(init)? else { return Err(Malformed("no ftyp")) };
        let init = init.get(..len).ok_or(Malformed("a moov that is cut off"))?;
        let ftyp = head(init)?.ok_or(Malformed("no ftyp"))?.len as usize;
        let (ftyp, moov) = init.split_at(ftyp);
        out.extend_from_slice(ftyp);
        let hole = whole.then_some(out.len() as u64);
        if whole {
            put32(out, HOLE_BYTES);
            out.extend_from_slice(b"free");
            put64(out, 0);
        }
        out.extend_from_slice(moov);
        Mp4File::with(moov, hole, base)
    }

    /// A file whose `moov` and hole (if it has one) are there already.
    ///
    /// # Errors
    /// It is no `moov` of this server.
    pub fn with(moov: &[u8], hole: Option<u64>, base: i64) -> Result<Mp4File, Malformed> {
        let wrong = Malformed("a moov of another form");
        let body = moov.get(8..).ok_or(wrong)?;
        let mut tracks = Vec::new();
        for (_, trak, _) in Boxes(body).filter(|(name, ..)| name == b"trak") {
            let id = find(trak, &[b"tkhd"]).and_then(|tkhd| number32(tkhd, 12)).ok_or(wrong)?;
            let mdhd = find(trak, &[b"mdia", b"mdhd"]).ok_or(wrong)?;
            let timescale = number32(mdhd, 12).filter(|hz| *hz > 0).ok_or(wrong)?;
            tracks.push(Table { id, timescale, ..Table::default() });
        }
        if tracks.is_empty() {
            return Err(wrong);
        }
        Ok(Mp4File { moov: moov.to_vec(), tracks, hole, base, samples: 0 })
    }

    /// True when the file was begun with this initialisation segment.
    pub fn begins_with(&self, init: &[u8]) -> bool {
        init.ends_with(&self.moov)
    }

    /// True when no more samples can be remembered: another file has to be begun.
    pub fn is_full(&self) -> bool {
        self.hole.is_some() && self.samples >= limits::RECORD_MP4_SAMPLES_MAX
    }

    /// True when there are pictures in it.
    pub fn has_video(&self) -> bool {
        self.tracks.iter().any(|track| track.id == super::TRACK_VIDEO)
    }

    /// The time that a sample has in the file.
    pub fn time_of(&self, sample: &Sample) -> u64 {
        let hz =
            self.tracks.iter().find(|track| track.id == sample.track).map_or(1, |t| t.timescale);
        let base = i128::from(self.base) * i128::from(hz) / i128::from(MOVIE_HZ);
        (i128::from(sample.dts) - base).clamp(0, i128::from(u64::MAX)) as u64
    }

    /// Where a sample is in stream time, 1/90000 s.
    pub fn ticks_of(&self, sample: &Sample) -> i64 {
        let hz =
            self.tracks.iter().find(|track| track.id == sample.track).map_or(1, |t| t.timescale);
        (u128::from(sample.dts) * u128::from(MOVIE_HZ) / u128::from(hz)) as i64
    }

    /// Takes the file's beginning for this stream time, 1/90000 s; before the first sample.
    pub fn set_base(&mut self, base: i64) {
        self.base = base;
    }

    /// Notes a sample with its time in the file, whose data begins at `place`.
    pub fn note(&mut self, sample: &Sample, dts: u64, place: u64) {
        if self.hole.is_none() {
            return;
        }
        let Some(track) = self.tracks.iter_mut().find(|track| track.id == sample.track) else {
            return;
        };
        self.samples += 1;
        if track.first_dts.is_none() {
            track.first_dts = Some(dts);
        } else {
            let step = u32::try_from(dts.saturating_sub(track.last_dts)).unwrap_or(u32::MAX);
            run(&mut track.times, step);
        }
        track.last_dts = dts;
        track.last_duration = sample.duration;
        track.sizes.push(sample.size);
        track.places.push(place);
        run(&mut track.compositions, sample.composition);
        if sample.keyframe {
            track.sync.push(track.sizes.len() as u32);
        }
    }

    /// What goes behind a file of `len` bytes that is whole, and what is written over its beginning
    /// after that; nothing when it stays fragmented or has no sample.
    pub fn finish(&self, len: u64) -> Option<(Vec<u8>, Patch)> {
        let hole = self.hole.filter(|_| self.samples > 0)?;
        let mut moov = Vec::with_capacity(self.samples * 13 + 4096);
        self.write_moov(&mut moov);
        let mut patch = 1u32.to_be_bytes().to_vec();
        patch.extend_from_slice(b"mdat");
        put64(&mut patch, len - hole);
        Some((moov, (hole, patch)))
    }

    fn write_moov(&self, out: &mut Vec<u8>) {
        let body = self.moov.get(8..).unwrap_or_default();
        let used: Vec<&Table> = self.tracks.iter().filter(|t| !t.sizes.is_empty()).collect();
        // What is shown or heard first is so at the file's beginning.
        let begin = used.iter().map(|t| t.shown_at()).min().unwrap_or(0);
        let duration = used.iter().map(|t| t.shown_at() - begin + t.lasts()).max().unwrap_or(0);
        boxed(out, b"moov", |out| {
            full(out, b"mvhd", 1, 0, |out| {
                [0, 0].into_iter().for_each(|value| put64(out, value));
                put32(out, MOVIE_HZ as u32);
                put64(out, duration);
                // Rate, volume, matrix and the next track's number are as they were.
                out.extend_from_slice(
                    find(body, &[b"mvhd"]).and_then(|b| b.get(20..)).unwrap_or(&[]),
                );
            });
            for (_, trak, _) in Boxes(body).filter(|(name, ..)| name == b"trak") {
                let id = find(trak, &[b"tkhd"]).and_then(|tkhd| number32(tkhd, 12));
                if let Some(track) = used.iter().find(|track| Some(track.id) == id) {
                    boxed(out, b"trak", |out| track.write(out, trak, begin));
                }
            }
        });
    }
}

fn run<T: PartialEq>(runs: &mut Vec<(u32, T)>, value: T) {
    match runs.last_mut() {
        Some((count, last)) if *last == value => *count += 1,
        _ => runs.push((1, value)),
    }
}

impl Table {
    fn movie_ticks(&self, ticks: u64) -> u64 {
        (u128::from(ticks) * u128::from(MOVIE_HZ) / u128::from(self.timescale.max(1))) as u64
    }

    /// How much later than decoded its first sample is shown, in its own timescale.
    fn lead(&self) -> u64 {
        self.compositions.first().map_or(0, |(_, composition)| (*composition).max(0) as u64)
    }

    /// When its first sample is shown.
    fn shown_at(&self) -> u64 {
        self.movie_ticks(self.first_dts.unwrap_or(0) + self.lead())
    }

    /// How long it lasts, in its own timescale.
    fn ticks(&self) -> u64 {
        self.last_dts - self.first_dts.unwrap_or(0) + u64::from(self.last_duration)
    }

    fn lasts(&self) -> u64 {
        self.movie_ticks(self.ticks())
    }

    fn write(&self, out: &mut Vec<u8>, trak: &[u8], begin: u64) {
        let delay = self.shown_at() - begin;
        let tkhd = find(trak, &[b"tkhd"]).unwrap_or_default();
        const ENABLED_IN_MOVIE: u32 = 3;
        full(out, b"tkhd", 1, ENABLED_IN_MOVIE, |out| {
            [0, 0].into_iter().for_each(|value| put64(out, value));
            put32(out, self.id);
            put32(out, 0);
            put64(out, delay + self.lasts());
            out.extend_from_slice(tkhd.get(24..).unwrap_or_default());
        });
        // Nothing for a while, then all of it from the first sample shown.
        let nothing = Some((delay, u64::MAX)).filter(|_| delay > 0);
        let edits: Vec<(u64, u64)> =
            nothing.into_iter().chain([(self.lasts(), self.lead())]).collect();
        if delay > 0 || self.lead() > 0 {
            boxed(out, b"edts", |out| {
                full(out, b"elst", 1, 0, |out| {
                    put32(out, edits.len() as u32);
                    for (lasts, from) in &edits {
                        put64(out, *lasts);
                        put64(out, *from);
                        put32(out, 0x0001_0000);
                    }
                });
            });
        }
        let mdia = find(trak, &[b"mdia"]).unwrap_or_default();
        boxed(out, b"mdia", |out| {
            full(out, b"mdhd", 1, 0, |out| {
                [0, 0].into_iter().for_each(|value| put64(out, value));
                put32(out, self.timescale);
                put64(out, self.ticks());
                put16(out, 0x55c4);
                put16(out, 0);
            });
            copy(out, mdia, b"hdlr");
            let minf = find(mdia, &[b"minf"]).unwrap_or_default();
            boxed(out, b"minf", |out| {
                [b"vmhd", b"smhd", b"dinf"].into_iter().for_each(|name| copy(out, minf, name));
                boxed(out, b"stbl", |out| self.write_tables(out, minf));
            });
        });
    }

    fn write_tables(&self, out: &mut Vec<u8>, minf: &[u8]) {
        copy(out, find(minf, &[b"stbl"]).unwrap_or_default(), b"stsd");
        let mut times = self.times.clone();
        run(&mut times, self.last_duration);
        full(out, b"stts", 0, 0, |out| {
            put32(out, times.len() as u32);
            times.iter().for_each(|(count, step)| {
                put32(out, *count);
                put32(out, *step);
            });
        });
        if self.compositions.iter().any(|(_, composition)| *composition != 0) {
            full(out, b"ctts", 1, 0, |out| {
                put32(out, self.compositions.len() as u32);
                self.compositions.iter().for_each(|(count, composition)| {
                    put32(out, *count);
                    put32(out, composition.cast_unsigned());
                });
            });
        }
        if self.sync.len() < self.sizes.len() {
            full(out, b"stss", 0, 0, |out| {
                put32(out, self.sync.len() as u32);
                self.sync.iter().for_each(|number| put32(out, *number));
            });
        }
        // Between any two samples there is the head of a fragment, so each is a chunk.
        full(out, b"stsc", 0, 0, |out| {
            [1, 1, 1, 1].into_iter().for_each(|value| put32(out, value));
        });
        full(out, b"stsz", 0, 0, |out| {
            put32(out, 0);
            put32(out, self.sizes.len() as u32);
            self.sizes.iter().for_each(|size| put32(out, *size));
        });
        full(out, b"co64", 0, 0, |out| {
            put32(out, self.places.len() as u32);
            self.places.iter().for_each(|place| put64(out, *place));
        });
    }
}

/// Copies a box out of a body.
fn copy(out: &mut Vec<u8>, body: &[u8], name: &[u8; 4]) {
    if let Some((_, _, whole)) = Boxes(body).find(|(found, ..)| found == name) {
        out.extend_from_slice(whole);
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Fragment, write_fragment, write_init, write_reference_time};
    use super::*;
    use crate::media::codec::{AudioCodec, VideoCodec};
    use crate::media::unit::{AudioConfig, VideoConfig};

    fn init() -> Vec<u8> {
        let audio = AudioConfig::read(AudioCodec::Aac, &[0x12, 0x10]).unwrap();
        let mut out = Vec::new();
        write_init(&mut out, None, Some(&audio));
        out
    }

    fn message(dts: u64, data: &[u8], told: bool) -> Vec<u8> {
        let mut out = Vec::new();
        if told {
            write_reference_time(&mut out, 2, 5, dts);
        }
        let (sequence, track, duration) = (1, 2, 1024);
        let (composition, keyframe) = (0, true);
        let fragment = Fragment { sequence, track, dts, duration, composition, keyframe, data };
        write_fragment(&mut out, &fragment);
        out
    }

    #[test]
    fn messages_are_read_and_get_other_times() {
        let Ok(Item::Init(len)) = read(&init()) else { panic!("an initialisation segment") };
        assert_eq!(len, init().len());
        for told in [false, true] {
            let bytes = message(7_000, b"unit", told);
            let Ok(Item::Fragment(sample)) = read(&bytes) else { panic!("a fragment") };
            assert_eq!((sample.dts, sample.duration, sample.size), (7_000, 1024, 4));
            assert!(sample.keyframe && sample.track == 2);
            assert_eq!(bytes[sample.data_at()..], *b"unit");
            let mut moved = sample.head_with_time(&bytes, 9);
            assert_eq!(moved.len(), sample.head_len());
            moved.extend_from_slice(b"unit");
            assert_eq!(moved, message(9, b"unit", false));
        }
        let negative = {
            let mut out = Vec::new();
            let fragment = Fragment {
                sequence: 1,
                track: 1,
                dts: 5,
                duration: 9,
                composition: -7,
                keyframe: false,
                data: b"x",
            };
            write_fragment(&mut out, &fragment);
            out
        };
        let Ok(Item::Fragment(sample)) = read(&negative) else { panic!("a fragment") };
        assert_eq!((sample.composition, sample.keyframe), (-7, false));
    }

    #[test]
    fn what_is_no_fragment_is_refused() {
        let good = message(1, b"unit", true);
        for len in 0..good.len() - 4 {
            assert!(read(&good[..len]).is_err(), "{len}");
        }
        assert!(head(&[0, 0, 0, 3, b'm', b'o', b'o', b'f']).is_err());
        assert!(Mp4File::with(b"\0\0\0\x08moov", None, 0).is_err());
        let mut seed = 1u32;
        for _ in 0..20_000 {
            let mut bad = good.clone();
            for _ in 0..3 {
                seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                let at = (seed >> 8) as usize % bad.len();
                bad[at] = seed as u8;
            }
            // Anything but a panic.
            if let Ok(Item::Fragment(sample)) = read(&bad) {
                let _ = sample.head_with_time(&bad, 5);
            }
        }
    }

    #[test]
    fn a_whole_file_names_every_sample() {
        let mut bytes = Vec::new();
        let mut file = Mp4File::begin(&mut bytes, &init(), 90_000, true).unwrap();
        assert!(file.begins_with(&init()) && !file.begins_with(b"other"));
        let mut units = Vec::new();
        for n in 0..5u64 {
            let unit = vec![n as u8; 10 + n as usize];
            let message = message(44_100 + 441 + n * 1024, &unit, n == 0);
            let Ok(Item::Fragment(sample)) = read(&message) else { panic!("a fragment") };
            let dts = file.time_of(&sample);
            assert_eq!(dts, 441 + n * 1024);
            bytes.extend_from_slice(&sample.head_with_time(&message, dts));
            file.note(&sample, dts, bytes.len() as u64);
            bytes.extend_from_slice(&message[sample.data_at()..]);
            units.push(unit);
        }
        let (moov, (at, patch)) = file.finish(bytes.len() as u64).expect("a moov");
        let end = bytes.len();
        bytes.extend_from_slice(&moov);
        bytes[at as usize..at as usize + patch.len()].copy_from_slice(&patch);
        let top: Vec<_> = Boxes(&bytes).map(|(name, _, whole)| (name, whole.len())).collect();
        assert_eq!(top.len(), 3);
        assert_eq!((&top[0].0, &top[1].0, top[2]), (b"ftyp", b"mdat", (*b"moov", moov.len())));
        assert_eq!(top[0].1 + top[1].1, end);
        let path: [&[u8; 4]; 3] = [b"mdia", b"minf", b"stbl"];
        let stbl = find(find(&moov[8..], &[b"trak"]).unwrap(), &path).unwrap();
        let places = find(stbl, &[b"co64"]).unwrap();
        for (n, unit) in units.iter().enumerate() {
            let place = number64(places, 8 + n * 8).unwrap() as usize;
            assert_eq!(bytes[place..place + unit.len()], unit[..]);
        }
        assert_eq!(find(stbl, &[b"stts"]).unwrap()[4..], [0, 0, 0, 1, 0, 0, 0, 5, 0, 0, 4, 0]);
        assert!(find(stbl, &[b"stss"]).is_none(), "all are places to start");
        assert!(find(find(&moov[8..], &[b"trak"]).unwrap(), &[b"edts"]).is_none(), "alone");
        let fragmented = Mp4File::begin(&mut Vec::new(), &init(), 0, false).unwrap();
        assert!(fragmented.finish(100).is_none());
    }

    #[test]
    fn what_is_shown_first_is_so_at_the_beginning() {
        let record = crate::media::unhex("014d401effe1000a674d401ee8805017fcb001000468eb8f20");
        let video = VideoConfig::read(VideoCodec::H264, &record).unwrap();
        let audio = AudioConfig::read(AudioCodec::Aac, &[0x12, 0x10]).unwrap();
        let mut init = Vec::new();
        write_init(&mut init, Some((&video, (640, 360))), Some(&audio));
        let mut bytes = Vec::new();
        let mut file = Mp4File::begin(&mut bytes, &init, 0, true).unwrap();
        // Pictures are decoded from 0 on and shown from 80 ms on; sound begins at 100 ms.
        for (track, dts, composition, duration) in
            [(1, 0, 7_200, 3_600), (1, 3_600, 0, 3_600), (2, 4_410, 0, 1_024)]
        {
            let (sequence, keyframe, data) = (1, dts == 0, &b"unit"[..]);
            let fragment = Fragment { sequence, track, dts, duration, composition, keyframe, data };
            let mut message = Vec::new();
            write_fragment(&mut message, &fragment);
            let Ok(Item::Fragment(sample)) = read(&message) else { panic!("a fragment") };
            file.note(&sample, dts, bytes.len() as u64);
            bytes.extend_from_slice(&message);
        }
        let (moov, _) = file.finish(bytes.len() as u64).expect("a moov");
        let traks: Vec<&[u8]> =
            Boxes(&moov[8..]).filter(|(name, ..)| name == b"trak").map(|(_, b, _)| b).collect();
        let edits = |trak| {
            let list = find(trak, &[b"edts", b"elst"]).unwrap();
            let count = number32(list, 4).unwrap() as usize;
            let number = |at| number64(list, at).unwrap();
            let edit = |n| (number(8 + n * 20), number(16 + n * 20));
            (0..count).map(edit).collect::<Vec<_>>()
        };
        assert_eq!(edits(traks[0]), [(7_200, 7_200)]);
        assert_eq!(edits(traks[1]), [(1_800, u64::MAX), (2_089, 0)]);
        let mvhd = find(&moov[8..], &[b"mvhd"]).unwrap();
        assert_eq!(number64(mvhd, 24), Some(7_200), "80 ms");
    }
}

//! Playing an MP4 file from a time: a `moov` that begins with the keyframe at or before it.
//!
//! ```text
//! the file:   ftyp  moov  mdat[ ....................... ]      (in any order)
//! what goes:  ftyp  moov' mdat[            ............ ]      from the first sample that is left
//! ```
//! Tables are cut, not taken apart, so this costs no more memory than the `moov` has. Pictures
//! begin with the keyframe; what sounds when it is shown is found by time, and edit lists say the
//! rest, so that sound and pictures stay together to the sample.

use super::file::{Boxes, Malformed, find, number32, number64};
use super::{boxed, full, put32, put64};

/// What is sent in place of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Start {
    /// Sent first.
    pub head: Vec<u8>,
    /// First byte of the file that follows, and how many.
    pub file: (u64, u64),
}

/// Longest time of a track, ticks: no file is older than the universe.
const TICKS_MAX: u64 = 1 << 62;
/// Latest time that can be asked for, ms.
const MS_MAX: u64 = 1_000_000_000_000;
/// Bytes of the head of the `mdat` that is sent.
const MDAT_HEAD: u64 = 16;

/// Boxes with something for every sample that is of no use for playing; they would be wrong.
const DROPPED: [&[u8; 4]; 8] =
    [b"sdtp", b"sbgp", b"stdp", b"padb", b"subs", b"saiz", b"saio", b"stps"];

/// Runs of samples: (count, value).
#[derive(Clone, Copy, Debug)]
struct Runs<'a>(&'a [u8]);

impl Runs<'_> {
    fn iter(self) -> impl Iterator<Item = (u64, u32)> {
        let (entries, _) = self.0.as_chunks::<8>();
        entries.iter().map(|entry| {
            let [count, value] = [0, 4].map(|at| number32(entry, at).unwrap_or_default());
            (u64::from(count), value)
        })
    }

    /// The runs without the first samples.
    fn without(self, skip: u64) -> impl Iterator<Item = (u64, u32)> {
        let mut skip = skip;
        self.iter().filter_map(move |(count, value)| {
            let dropped = skip.min(count);
            skip -= dropped;
            (count > dropped).then_some((count - dropped, value))
        })
    }
}

/// Where chunks begin.
#[derive(Clone, Copy, Debug)]
enum Places<'a> {
    Short(&'a [u8]),
    Long(&'a [u8]),
}

impl Places<'_> {
    fn len(self) -> u64 {
        match self {
            Places::Short(bytes) => bytes.len() as u64 / 4,
            Places::Long(bytes) => bytes.len() as u64 / 8,
        }
    }

    fn get(self, chunk: u64) -> Option<u64> {
        let chunk = usize::try_from(chunk).ok()?;
        match self {
            Places::Short(bytes) => number32(bytes, chunk.checked_mul(4)?).map(u64::from),
            Places::Long(bytes) => number64(bytes, chunk.checked_mul(8)?),
        }
    }
}

/// One track of the file.
#[derive(Debug)]
struct Track<'a> {
    is_video: bool,
    timescale: u64,
    /// Durations.
    times: Runs<'a>,
    /// How much later samples are shown.
    compositions: Option<Runs<'a>>,
    /// Numbers of samples that decoding can start at, from 1.
    sync: Option<&'a [u8]>,
    /// First chunk (from 1), samples in each, description.
    chunks: &'a [u8],
    /// The size of all samples, or a table of them.
    size: u32,
    sizes: &'a [u8],
    samples: u64,
    places: Places<'a>,
    /// Ticks of the movie's clock before it begins, and the place in its own time where it does.
    empty: u64,
    media_time: i64,
}

/// A table with its number of entries at `at`, of so many bytes each, behind it.
fn table(body: &[u8], at: usize, entry: usize) -> Option<&[u8]> {
    let count = number32(body, at)? as usize;
    body.get(at + 4..)?.get(..count.checked_mul(entry)?)
}

impl<'a> Track<'a> {
    fn read(trak: &'a [u8]) -> Option<Track<'a>> {
        let mdia = find(trak, &[b"mdia"])?;
        let mdhd = find(mdia, &[b"mdhd"])?;
        let timescale = number32(mdhd, if mdhd.first()? == &1 { 20 } else { 12 })?;
        let handler = find(mdia, &[b"hdlr"]).and_then(|hdlr| number32(hdlr, 8));
        let stbl = find(mdia, &[b"minf", b"stbl"])?;
        let stsz = find(stbl, &[b"stsz"])?;
        let (size, samples) = (number32(stsz, 4)?, number32(stsz, 8)?);
        let sizes = if size == 0 { table(stsz, 8, 4)? } else { &[] };
        let places = match (find(stbl, &[b"stco"]), find(stbl, &[b"co64"])) {
            (Some(stco), _) => Places::Short(table(stco, 4, 4)?),
            (None, Some(co64)) => Places::Long(table(co64, 4, 8)?),
            (None, None) => return None,
        };
        let optional = |name: &[u8; 4], entry| match find(stbl, &[name]) {
            Some(body) => table(body, 4, entry).map(Some),
            None => Some(None),
        };
        let (empty, media_time) = find(trak, &[b"edts", b"elst"]).map_or((0, 0), edits);
        let track = Track {
            is_video: handler == Some(u32::from_be_bytes(*b"vide")),
            timescale: u64::from(timescale),
            times: Runs(table(find(stbl, &[b"stts"])?, 4, 8)?),
            compositions: optional(b"ctts", 8)?.map(Runs),
            sync: optional(b"stss", 4)?,
            chunks: table(find(stbl, &[b"stsc"])?, 4, 12)?,
            size,
            sizes,
            samples: u64::from(samples),
            places,
            empty,
            media_time,
        };
        let timed: u64 = track.times.iter().map(|(count, _)| count).sum();
        (timescale > 0 && timed == track.samples).then_some(track)
    }

    /// Bytes of samples from one number to another (from 0, the second one is not counted).
    fn bytes(&self, from: u64, to: u64) -> Option<u64> {
        if self.size > 0 {
            return (to - from).checked_mul(u64::from(self.size));
        }
        let range = usize::try_from(from).ok()?.checked_mul(4)?..usize::try_from(to).ok()? * 4;
        let (sizes, _) = self.sizes.get(range)?.as_chunks::<4>();
        Some(sizes.iter().map(|size| u64::from(u32::from_be_bytes(*size))).sum())
    }

    /// How long its samples last together.
    fn duration(&self) -> u64 {
        self.times.iter().fold(0, |sum, (count, each)| sum.saturating_add(count * u64::from(each)))
    }

    /// When samples are decoded and how much later they are shown, for rising numbers.
    fn clock(&self) -> Clock<'a> {
        Clock { times: Cursor::new(self.times), compositions: self.compositions.map(Cursor::new) }
    }

    /// The last sample that is shown at or before a time and that decoding can start at: its
    /// number, its time of decoding, how much later it is shown. The first one if there is none.
    fn sample_at(&self, time: i64) -> Option<(u64, u64, i64)> {
        let mut best = None;
        let mut clock = self.clock();
        if let Some(sync) = self.sync {
            let mut last = 0;
            for number in sync.as_chunks::<4>().0.iter().map(|n| u64::from(u32::from_be_bytes(*n)))
            {
                // They rise by definition.
                let sample = number.checked_sub(1).filter(|_| number > last)?;
                last = number;
                let (decoded, later) = clock.at(sample)?;
                if best.is_some() && decoded.cast_signed() + later > time {
                    break;
                }
                best = Some((sample, decoded, later));
            }
            return best;
        }
        let (mut number, mut decoded) = (0, 0u64);
        for (count, each) in self.times.iter() {
            let left = time.saturating_sub(decoded.cast_signed());
            let steps = match u64::try_from(left) {
                Ok(left) if each > 0 => (left / u64::from(each)).min(count.checked_sub(1)?),
                Ok(_) => count.checked_sub(1)?,
                Err(_) => break,
            };
            if decoded >= TICKS_MAX {
                return None;
            }
            best = Some((number + steps, decoded + steps * u64::from(each), 0));
            number += count;
            decoded = decoded.checked_add(count.checked_mul(u64::from(each))?)?;
        }
        match best {
            None => (self.samples > 0).then_some((0, 0, 0)),
            Some((number, ..)) => {
                let (decoded, later) = clock.at(number)?;
                Some((number, decoded, later))
            }
        }
    }
}

/// The movie time before the first edit that is not empty, and the place where that begins.
fn edits(elst: &[u8]) -> (u64, i64) {
    let long = elst.first() == Some(&1);
    let entry = if long { 20 } else { 12 };
    let mut empty = 0u64;
    for edit in table(elst, 4, entry).unwrap_or_default().chunks_exact(entry) {
        let (lasts, from) = match long {
            true => (number64(edit, 0), number64(edit, 8).map(u64::cast_signed)),
            false => (
                number32(edit, 0).map(u64::from),
                number32(edit, 4).map(|from| i64::from(from.cast_signed())),
            ),
        };
        match from {
            Some(-1) => empty = empty.saturating_add(lasts.unwrap_or_default()),
            Some(from) => return (empty, from.max(0)),
            None => break,
        }
    }
    (empty, 0)
}

/// A place in runs that only goes forward.
struct Cursor<'a> {
    runs: &'a [[u8; 8]],
    /// The first sample of the run, and the sum of all before it.
    first: u64,
    sum: u64,
}

impl<'a> Cursor<'a> {
    fn new(runs: Runs<'a>) -> Cursor<'a> {
        Cursor { runs: runs.0.as_chunks::<8>().0, first: 0, sum: 0 }
    }

    /// The value of a sample, and the sum of the values of all before it.
    fn at(&mut self, sample: u64) -> Option<(u32, u64)> {
        loop {
            let (run, rest) = self.runs.split_first()?;
            let (count, value) = (u64::from(number32(run, 0)?), number32(run, 4)?);
            let into = sample.checked_sub(self.first)?;
            if into < count {
                return Some((value, self.sum.checked_add(into * u64::from(value))?));
            }
            self.first += count;
            self.sum = self.sum.checked_add(count * u64::from(value))?;
            self.runs = rest;
        }
    }
}

struct Clock<'a> {
    times: Cursor<'a>,
    compositions: Option<Cursor<'a>>,
}

impl Clock<'_> {
    fn at(&mut self, sample: u64) -> Option<(u64, i64)> {
        let (_, decoded) = self.times.at(sample)?;
        let later = match &mut self.compositions {
            // What ctts does not name is shown when it is decoded.
            Some(cursor) => cursor.at(sample).map_or(0, |(value, _)| value.cast_signed()),
            None => 0,
        };
        (decoded < TICKS_MAX).then_some((decoded, i64::from(later)))
    }
}

/// What is left of a track.
struct Cut<'t, 'a> {
    track: &'t Track<'a>,
    /// The first sample, and the chunk that it is in.
    sample: u64,
    chunk: u64,
    /// Where it is in the file.
    place: u64,
    /// Chunks: first one (from 1), samples, description.
    chunks: Vec<(u32, u32, u32)>,
    /// Ticks that are left.
    lasts: u64,
    /// Ticks of its own clock before it begins, and the place in its time where it does.
    empty: u64,
    media_time: u64,
}

impl<'t, 'a> Cut<'t, 'a> {
    /// From a sample on. `target` is the place in its old time that is the beginning now.
    fn new(track: &'t Track<'a>, (sample, decoded): (u64, u64), target: i64) -> Option<Self> {
        let from = target.saturating_sub(decoded.cast_signed());
        let lasts = track.duration().saturating_sub(decoded);
        let mut cut = Cut {
            track,
            sample,
            chunk: track.places.len(),
            place: u64::MAX,
            chunks: Vec::new(),
            lasts,
            empty: if from < 0 { from.unsigned_abs() } else { 0 },
            media_time: u64::try_from(from).unwrap_or(0),
        };
        if cut.media_time >= lasts {
            // It has ended before.
            (cut.sample, cut.lasts, cut.media_time, cut.empty) = (track.samples, 0, 0, 0);
            return Some(cut);
        }
        cut.find_chunk()?;
        Some(cut)
    }

    fn find_chunk(&mut self) -> Option<()> {
        let (runs, _) = self.track.chunks.as_chunks::<12>();
        let run = |at: usize| -> Option<[u32; 3]> {
            let run = runs.get(at)?;
            Some([number32(run, 0)?, number32(run, 4)?, number32(run, 8)?])
        };
        let end = self.track.places.len() + 1;
        let mut before = 0u64;
        for at in 0..runs.len() {
            let [first, each, description] = run(at).filter(|[first, ..]| *first > 0)?;
            let next = run(at + 1).map_or(end, |next| u64::from(next[0]));
            let count = next.checked_sub(u64::from(first)).filter(|n| *n > 0 && next <= end)?;
            let samples = count.checked_mul(u64::from(each))?;
            let into = self.sample - before;
            if into >= samples {
                before += samples;
                continue;
            }
            let (chunks, skipped) = (into / u64::from(each), into % u64::from(each));
            self.chunk = u64::from(first) - 1 + chunks;
            self.chunks.push((1, each - skipped as u32, description));
            if skipped > 0 && chunks + 1 < count {
                self.chunks.push((2, each, description));
            }
            for later in at + 1..runs.len() {
                let [first, each, description] = run(later)?;
                let first = u64::from(first).checked_sub(self.chunk)?;
                self.chunks.push((u32::try_from(first).ok()?, each, description));
            }
            let skipped = self.track.bytes(self.sample - skipped, self.sample)?;
            self.place = self.track.places.get(self.chunk)?.checked_add(skipped)?;
            return Some(());
        }
        None
    }

    /// Places of the chunks that are left.
    fn places(&self) -> impl Iterator<Item = u64> + '_ {
        let rest = self.chunk.saturating_add(1)..self.track.places.len();
        let first = (self.place != u64::MAX).then_some(self.place);
        first.into_iter().chain(rest.filter_map(|chunk| self.track.places.get(chunk)))
    }

    /// Where its last chunk ends.
    fn end(&self) -> Option<u64> {
        let Some(&(_, each, _)) = self.chunks.last() else { return Some(0) };
        let samples = u64::from(each).min(self.track.samples - self.sample);
        let bytes = self.track.bytes(self.track.samples - samples, self.track.samples)?;
        self.places().last()?.checked_add(bytes)
    }

    /// How long it is in another clock.
    fn lasts_in(&self, timescale: u64) -> u64 {
        // Pictures that are shown later than decoded are there for as much longer.
        let left_out = if self.track.compositions.is_some() { 0 } else { self.media_time };
        let ticks = u128::from(self.lasts - left_out) * u128::from(timescale);
        u64::try_from(ticks / u128::from(self.track.timescale)).unwrap_or(u64::MAX)
    }

    fn empty_in(&self, timescale: u64) -> u64 {
        let ticks = u128::from(self.empty) * u128::from(timescale);
        u64::try_from(ticks / u128::from(self.track.timescale)).unwrap_or(u64::MAX)
    }
}

/// What is sent of a file of `len` bytes to play it from a time, ms. `ftyp` and `moov` are whole
/// boxes of it.
///
/// # Errors
/// The `moov` is not whole, is that of a fragmented file, or has tables that contradict each other.
pub fn start(ftyp: &[u8], moov: &[u8], len: u64, ms: u64) -> Result<Start, Malformed> {
    let wrong = Malformed("its moov has another form");
    let body = moov.get(8..).ok_or(wrong)?;
    let mvhd = find(body, &[b"mvhd"]).ok_or(wrong)?;
    let scale_at = if mvhd.first() == Some(&1) { 20 } else { 12 };
    let movie = number32(mvhd, scale_at).filter(|hz| *hz > 0).map(u64::from).ok_or(wrong)?;
    let traks = || Boxes(body).filter(|(name, ..)| name == b"trak").map(|(_, inner, _)| inner);
    let tracks: Vec<Track<'_>> = traks().map(Track::read).collect::<Option<_>>().ok_or(wrong)?;
    let guide = tracks.iter().find(|track| track.is_video && track.samples > 0);
    let guide = guide.or_else(|| tracks.iter().find(|track| track.samples > 0)).ok_or(wrong)?;
    // The place of a time of the movie in a track, and back; the latter in 1/(scale * movie) s.
    let scaled = |value: u128, of: u64| i64::try_from(value / u128::from(of)).map_err(|_| wrong);
    let of_movie = scaled(u128::from(ms.min(MS_MAX)) * u128::from(guide.timescale), 1_000)?;
    let empty = scaled(u128::from(guide.empty) * u128::from(guide.timescale), movie)?;
    let place = of_movie.saturating_sub(empty).saturating_add(guide.media_time);
    let (sample, decoded, later) = guide.sample_at(place).ok_or(wrong)?;
    let shown = decoded.cast_signed() + later;
    let shown = shown.saturating_sub(guide.media_time).saturating_add(empty);
    let mut cuts = Vec::new();
    for track in &tracks {
        let cut = match std::ptr::eq(track, guide) {
            true => Cut::new(track, (sample, decoded), decoded.cast_signed() + later),
            false => {
                let shown = i128::from(shown) * i128::from(track.timescale);
                let shown = shown / i128::from(guide.timescale);
                let empty = i128::from(track.empty) * i128::from(track.timescale);
                let target = shown - empty / i128::from(movie) + i128::from(track.media_time);
                let target = i64::try_from(target).map_err(|_| wrong)?;
                match track.sample_at(target) {
                    Some((sample, decoded, _)) => Cut::new(track, (sample, decoded), target),
                    None => Cut::new(track, (0, 0), 0),
                }
            }
        };
        cuts.push(cut.ok_or(wrong)?);
    }
    let from = cuts.iter().flat_map(Cut::places).min().ok_or(wrong)?;
    let ends = cuts.iter().map(Cut::end).collect::<Option<Vec<u64>>>().ok_or(wrong)?;
    let to = ends.into_iter().max().unwrap_or_default();
    if from >= to || to > len || cuts.iter().flat_map(Cut::places).any(|place| place > to) {
        return Err(Malformed("it is shorter than its moov says"));
    }
    let bytes = to - from;
    let long = bytes + ftyp.len() as u64 + 2 * moov.len() as u64 > u64::from(u32::MAX) / 2;
    let write = |base: u64| -> Vec<u8> {
        let places = NewPlaces { from, base, long };
        let mut out = ftyp.to_vec();
        write_moov(&mut out, body, &cuts, movie, &places);
        put32(&mut out, 1);
        out.extend_from_slice(b"mdat");
        put64(&mut out, MDAT_HEAD + bytes);
        out
    };
    // Its length does not depend on the places in it.
    let base = write(0).len() as u64;
    Ok(Start { head: write(base), file: (from, bytes) })
}

/// Where the bytes of the file are in what is sent.
struct NewPlaces {
    from: u64,
    base: u64,
    long: bool,
}

fn write_moov(out: &mut Vec<u8>, body: &[u8], cuts: &[Cut<'_, '_>], movie: u64, to: &NewPlaces) {
    let mut cuts = cuts.iter();
    let longest = |cut: &Cut<'_, '_>| cut.lasts_in(movie).saturating_add(cut.empty_in(movie));
    let lasts = cuts.clone().map(longest).max().unwrap_or_default();
    boxed(out, b"moov", |out| {
        for (name, inner, whole) in Boxes(body) {
            match &name {
                b"mvhd" => with_duration(out, whole, [24, 32], lasts),
                b"trak" => {
                    let Some(cut) = cuts.next() else { continue };
                    boxed(out, b"trak", |out| write_trak(out, inner, cut, movie, to));
                }
                _ => out.extend_from_slice(whole),
            }
        }
    });
}

fn write_trak(out: &mut Vec<u8>, trak: &[u8], cut: &Cut<'_, '_>, movie: u64, to: &NewPlaces) {
    for (name, inner, whole) in Boxes(trak) {
        match &name {
            b"tkhd" => {
                let lasts = cut.lasts_in(movie).saturating_add(cut.empty_in(movie));
                with_duration(out, whole, [28, 36], lasts);
                boxed(out, b"edts", |out| write_edits(out, cut, movie));
            }
            b"edts" => {}
            b"mdia" => boxed(out, b"mdia", |out| {
                for (name, inner, whole) in Boxes(inner) {
                    match &name {
                        b"mdhd" => with_duration(out, whole, [24, 32], cut.lasts),
                        b"minf" => boxed(out, b"minf", |out| write_minf(out, inner, cut, to)),
                        _ => out.extend_from_slice(whole),
                    }
                }
            }),
            _ => out.extend_from_slice(whole),
        }
    }
}

fn write_minf(out: &mut Vec<u8>, minf: &[u8], cut: &Cut<'_, '_>, to: &NewPlaces) {
    for (name, inner, whole) in Boxes(minf) {
        match &name {
            b"stbl" => boxed(out, b"stbl", |out| {
                for (name, inner, whole) in Boxes(inner) {
                    write_table(out, (&name, inner, whole), cut, to);
                }
            }),
            _ => out.extend_from_slice(whole),
        }
    }
}

fn write_edits(out: &mut Vec<u8>, cut: &Cut<'_, '_>, movie: u64) {
    let empty = cut.empty_in(movie);
    full(out, b"elst", 1, 0, |out| {
        put32(out, 1 + u32::from(empty > 0));
        if empty > 0 {
            put64(out, empty);
            put64(out, u64::MAX);
            put32(out, 1 << 16);
        }
        put64(out, cut.lasts_in(movie));
        put64(out, cut.media_time);
        put32(out, 1 << 16);
    });
}

/// A box with another duration, which is at one of two places by its version.
fn with_duration(out: &mut Vec<u8>, whole: &[u8], [short, long]: [usize; 2], lasts: u64) {
    let start = out.len();
    out.extend_from_slice(whole);
    let copy = &mut out[start..];
    if copy.get(8) == Some(&1) {
        if let Some(place) = copy.get_mut(long..long + 8) {
            place.copy_from_slice(&lasts.to_be_bytes());
        }
    } else if let Some(place) = copy.get_mut(short..short + 4) {
        let lasts = u32::try_from(lasts).unwrap_or(u32::MAX);
        place.copy_from_slice(&lasts.to_be_bytes());
    }
}

fn write_table(
    out: &mut Vec<u8>,
    (name, inner, whole): (&[u8; 4], &[u8], &[u8]),
    cut: &Cut<'_, '_>,
    to: &NewPlaces,
) {
    let track = cut.track;
    let version = inner.first().copied().unwrap_or_default();
    let list = |out: &mut Vec<u8>, entries: &mut dyn Iterator<Item = [u32; 2]>, wide: usize| {
        full(out, name, version, 0, |out| {
            let at = out.len();
            put32(out, 0);
            let mut count = 0u32;
            for entry in entries {
                entry[..wide].iter().for_each(|value| put32(out, *value));
                count += 1;
            }
            out[at..at + 4].copy_from_slice(&count.to_be_bytes());
        });
    };
    // Counts are those of the file, which had room for them.
    let pair = |(count, value): (u64, u32)| [count as u32, value];
    match name {
        b"stts" => list(out, &mut track.times.without(cut.sample).map(pair), 2),
        b"ctts" => {
            if let Some(runs) = track.compositions {
                list(out, &mut runs.without(cut.sample).map(pair), 2);
            }
        }
        b"stss" => {
            let (numbers, _) = track.sync.unwrap_or_default().as_chunks::<4>();
            let left = numbers.iter().filter_map(|number| {
                let number = u64::from(u32::from_be_bytes(*number)).checked_sub(cut.sample)?;
                (number > 0).then_some([number as u32, 0])
            });
            list(out, &mut { left }, 1);
        }
        b"stsz" => full(out, b"stsz", 0, 0, |out| {
            put32(out, track.size);
            put32(out, (track.samples - cut.sample) as u32);
            let skipped = (cut.sample * 4) as usize;
            out.extend_from_slice(track.sizes.get(skipped..).unwrap_or_default());
        }),
        b"stsc" => full(out, b"stsc", 0, 0, |out| {
            put32(out, cut.chunks.len() as u32);
            for (first, samples, description) in &cut.chunks {
                [first, samples, description].into_iter().for_each(|value| put32(out, *value));
            }
        }),
        b"stco" | b"co64" => {
            let places = cut.places().map(|place| place - to.from + to.base);
            let count = cut.places().count() as u32;
            let name = if to.long { b"co64" } else { b"stco" };
            full(out, name, 0, 0, |out| {
                put32(out, count);
                for place in places {
                    match to.long {
                        true => put64(out, place),
                        false => put32(out, place as u32),
                    }
                }
            });
        }
        _ if DROPPED.contains(&name) => {}
        _ => out.extend_from_slice(whole),
    }
}

/// What fragments are begun with: the track that decides, and its clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Guide {
    track: u32,
    timescale: u64,
    /// Flags of its samples unless a fragment says otherwise.
    flags: u32,
}

/// The track that decides where to begin in a fragmented file, or `None` if the file is not one.
pub fn guide(moov: &[u8]) -> Option<Guide> {
    let body = moov.get(8..)?;
    let mvex = find(body, &[b"mvex"])?;
    let mut best: Option<(bool, Guide)> = None;
    for (_, trak, _) in Boxes(body).filter(|(name, ..)| name == b"trak") {
        let tkhd = find(trak, &[b"tkhd"])?;
        let track = number32(tkhd, if tkhd.first()? == &1 { 20 } else { 12 })?;
        let mdhd = find(trak, &[b"mdia", b"mdhd"])?;
        let timescale = number32(mdhd, if mdhd.first()? == &1 { 20 } else { 12 })?;
        let handler = find(trak, &[b"mdia", b"hdlr"]).and_then(|hdlr| number32(hdlr, 8));
        let is_video = handler == Some(u32::from_be_bytes(*b"vide"));
        let of_it = |trex: &&[u8]| number32(trex, 4) == Some(track);
        let mut trexs = Boxes(mvex).filter(|(name, ..)| name == b"trex").map(|(_, inner, _)| inner);
        let flags = trexs.find(of_it).and_then(|trex| number32(trex, 20)).unwrap_or_default();
        let timescale = u64::from(timescale);
        if timescale > 0 && best.is_none_or(|(video, _)| is_video && !video) {
            best = Some((is_video, Guide { track, timescale, flags }));
        }
    }
    best.map(|(_, guide)| guide)
}

/// When the first sample of a fragment is decoded, ms, and whether decoding can start at it. `None`
/// if it has none of the track that decides.
pub fn fragment(moof: &[u8], guide: Guide) -> Option<(u64, bool)> {
    const NOT_SYNC: u32 = 0x1_0000;
    for (_, traf, _) in Boxes(moof.get(8..)?).filter(|(name, ..)| name == b"traf") {
        let tfhd = find(traf, &[b"tfhd"])?;
        if number32(tfhd, 4)? != guide.track {
            continue;
        }
        let tfdt = find(traf, &[b"tfdt"])?;
        let time = match tfdt.first()? {
            1 => number64(tfdt, 4)?,
            _ => u64::from(number32(tfdt, 4)?),
        };
        // Optional fields, in their order: base, description, duration, size, flags.
        let has = number32(tfhd, 0)?;
        let before = [(0x1, 8), (0x2, 4), (0x8, 4), (0x10, 4)];
        let before: usize = before.iter().filter(|(bit, _)| has & bit != 0).map(|(_, n)| n).sum();
        let flags = if has & 0x20 != 0 { number32(tfhd, 8 + before)? } else { guide.flags };
        let trun = find(traf, &[b"trun"])?;
        let has = number32(trun, 0)?;
        let at = 8 + if has & 1 != 0 { 4 } else { 0 };
        let of_sample: usize = [0x100, 0x200].iter().filter(|bit| has & *bit != 0).count() * 4;
        let flags = match () {
            () if has & 4 != 0 => number32(trun, at)?,
            () if has & 0x400 != 0 => number32(trun, at + of_sample)?,
            () => flags,
        };
        let ms = u128::from(time) * 1000 / u128::from(guide.timescale);
        return Some((u64::try_from(ms).ok()?, flags & NOT_SYNC == 0));
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::mp4::put16;

    /// A track: samples of these sizes, times and compositions, of which those numbers (from 1) are
    /// keyframes, so many to a chunk.
    struct Plan<'a> {
        video: bool,
        timescale: u32,
        times: &'a [(u32, u32)],
        compositions: &'a [(u32, u32)],
        sync: &'a [u32],
        sizes: &'a [u32],
        chunks: &'a [(u32, u32, u32)],
        places: Vec<u32>,
        media_time: u32,
    }

    fn trak(out: &mut Vec<u8>, plan: &Plan<'_>) {
        let pairs = |out: &mut Vec<u8>, name: &[u8; 4], pairs: &[(u32, u32)]| {
            full(out, name, 0, 0, |out| {
                put32(out, pairs.len() as u32);
                pairs.iter().for_each(|(a, b)| {
                    put32(out, *a);
                    put32(out, *b);
                });
            });
        };
        let list = |out: &mut Vec<u8>, values: &[u32]| {
            put32(out, values.len() as u32);
            values.iter().for_each(|value| put32(out, *value));
        };
        boxed(out, b"trak", |out| {
            full(out, b"tkhd", 0, 3, |out| out.extend_from_slice(&[0; 80]));
            boxed(out, b"edts", |out| {
                full(out, b"elst", 0, 0, |out| {
                    list(out, &[]);
                    let at = out.len() - 4;
                    out[at..].copy_from_slice(&1u32.to_be_bytes());
                    put32(out, 9_000);
                    put32(out, plan.media_time);
                    put16(out, 1);
                    put16(out, 0);
                });
            });
            boxed(out, b"mdia", |out| {
                full(out, b"mdhd", 0, 0, |out| {
                    [0, 0, plan.timescale, 77, 0].iter().for_each(|v| put32(out, *v));
                });
                full(out, b"hdlr", 0, 0, |out| {
                    put32(out, 0);
                    out.extend_from_slice(if plan.video { b"vide" } else { b"soun" });
                });
                boxed(out, b"minf", |out| {
                    boxed(out, b"stbl", |out| {
                        full(out, b"stsd", 0, 0, |out| put32(out, 0));
                        pairs(out, b"stts", plan.times);
                        if !plan.compositions.is_empty() {
                            pairs(out, b"ctts", plan.compositions);
                        }
                        if plan.video {
                            full(out, b"stss", 0, 0, |out| list(out, plan.sync));
                        }
                        full(out, b"stsz", 0, 0, |out| {
                            put32(out, 0);
                            list(out, plan.sizes);
                        });
                        full(out, b"stsc", 0, 0, |out| {
                            put32(out, plan.chunks.len() as u32);
                            for (first, samples, description) in plan.chunks {
                                [first, samples, description].iter().for_each(|v| put32(out, **v));
                            }
                        });
                        full(out, b"stco", 0, 0, |out| list(out, &plan.places));
                    });
                });
            });
        });
    }

    /// A file of eight pictures (a second each, keyframes 1 and 5) in chunks of three and of two,
    /// and sixteen sounds (half a second each) in chunks of five.
    fn moov() -> Vec<u8> {
        let mut out = Vec::new();
        let video = Plan {
            video: true,
            timescale: 1_000,
            times: &[(8, 1_000)],
            compositions: &[(4, 2_000), (1, 500), (3, 1_500)],
            sync: &[1, 5],
            sizes: &[10, 11, 12, 13, 14, 15, 16, 17],
            // Chunks of 3, 3, 2.
            chunks: &[(1, 3, 1), (3, 2, 1)],
            places: vec![1_000, 2_000, 3_000],
            media_time: 0,
        };
        let audio = Plan {
            video: false,
            timescale: 48_000,
            times: &[(16, 24_000)],
            compositions: &[],
            sync: &[],
            sizes: &[5; 16],
            chunks: &[(1, 5, 1), (4, 1, 1)],
            places: vec![1_500, 2_500, 3_500, 3_600],
            media_time: 1_000,
        };
        boxed(&mut out, b"moov", |out| {
            full(out, b"mvhd", 0, 0, |out| {
                [0, 0, 1_000, 8_000].iter().for_each(|v| put32(out, *v));
            });
            trak(out, &video);
            trak(out, &audio);
            boxed(out, b"udta", |_| {});
        });
        out
    }

    /// Places of chunks, durations, samples, and where it begins.
    type Seen = (Vec<u64>, Vec<(u64, u32)>, u64, i64);

    fn tracks(head: &[u8]) -> Vec<Seen> {
        let body = find(head, &[b"moov"]).expect("a moov");
        let traks = Boxes(body).filter(|(name, ..)| name == b"trak");
        let read = |(_, trak, _)| {
            let track = Track::read(trak).expect("a good track");
            let cut = Cut::new(&track, (0, 0), 0).expect("good chunks");
            let places = cut.places().collect();
            (places, track.times.iter().collect(), track.samples, track.media_time)
        };
        traks.map(read).collect()
    }

    #[test]
    fn the_whole_file_from_the_first_keyframe() {
        let ftyp = b"\0\0\0\x08ftyp";
        for ms in [0, 1, 3_999] {
            let start = start(ftyp, &moov(), 10_000, ms).unwrap();
            assert_eq!(start.file, (1_000, 2_605), "{ms}");
            let base = start.head.len() as u64;
            let all = tracks(&start.head);
            assert_eq!(all[0].0, [base, base + 1_000, base + 2_000]);
            assert_eq!((all[0].2, all[0].3), (8, 2_000), "shown at once");
            // The picture is shown 2 s into the file: so much sound is left out, 1000 ticks and two
            // seconds into it, which is in the fifth sample.
            assert_eq!((all[1].2, all[1].3), (12, 1_000));
            assert_eq!(all[1].0[0], base + 500 + 20);
        }
    }

    #[test]
    fn from_the_midst() {
        let start = start(b"\0\0\0\x08ftyp", &moov(), 10_000, 5_000).unwrap();
        // The fifth picture is the second one of the second chunk, and is shown at 4.5 s.
        let all = tracks(&start.head);
        let base = start.head.len() as u64;
        assert_eq!(all[0].1, [(4, 1_000)]);
        assert_eq!((all[0].2, all[0].3), (4, 500));
        // 4.5 s and 1000 ticks are in the tenth sound, the last one of the second chunk.
        assert_eq!(all[1].1, [(7, 24_000)]);
        assert_eq!(all[1].3, 1_000);
        assert_eq!(start.file, (2_013, 3_605 - 2_013));
        assert_eq!(all[0].0, [base, base + 3_000 - 2_013]);
        assert_eq!(all[1].0, [2_520, 3_500, 3_600].map(|place| base + place - 2_013));
        let body = find(&start.head, &[b"moov"]).unwrap();
        let mvhd = find(body, &[b"mvhd"]).unwrap();
        assert_eq!(number32(mvhd, 16), Some(4_000));
        let (name, ..) = Boxes(body).last().unwrap();
        assert_eq!(&name, b"udta");
        // Far behind the end it is the last keyframe.
        let late = super::start(b"\0\0\0\x08ftyp", &moov(), 10_000, 900_000).unwrap();
        assert_eq!(late, start);
    }

    #[test]
    fn files_that_are_cut_off_or_lie() {
        let whole = moov();
        assert!(start(b"", &whole, 3_604, 0).is_err());
        assert!(start(b"", &whole, 3_605, 0).is_ok());
        for len in 0..whole.len() {
            let _ = start(b"", &whole[..len], 10_000, 5_000);
        }
        for at in 0..whole.len() {
            for value in [0, 1, 0x7f, 0xff] {
                let mut bad = whole.clone();
                bad[at] = value;
                let _ = start(b"", &bad, 10_000, 5_000);
                let _ = guide(&bad);
            }
        }
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_survived(bytes: Vec<u8>, ms: u64) {
            let _ = start(&[], &bytes, 10_000, ms);
            let _ = guide(&bytes);
            let guide = Guide { track: 1, timescale: 1, flags: 0 };
            let _ = fragment(&bytes, guide);
        }
    }
}

//! `ringcast recover` of program streams: what they hold, in an MP4 file beside them.
//!
//! This server writes none, they come from cameras and from other programs. So the file itself
//! stays as it is, and its pictures and audio frames are put into another one as they are. It is
//! read twice: for what it holds, and for that itself, because the head of an MP4 file says what is
//! in it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use rustix::fs::{CWD, RenameFlags};

use super::recover::{Held, RecoverError, Recovered, read_through, words};
use crate::limits;
use crate::media::codec::{AudioCodec, VideoCodec};
use crate::media::nal;
use crate::media::unit::{AudioClock, AudioConfig, TICKS_HZ, VideoConfig};
use crate::proto::mp4::file::{self as mp4, Item, Mp4File};
use crate::proto::mp4::{Fragment, TRACK_AUDIO, TRACK_VIDEO, write_fragment, write_init};
use crate::proto::mpeg::{Carries, Event, Track, Unit};
use crate::proto::ps::Demux;

/// A step of times that is larger is no pause but another clock, ticks: what follows goes on where
/// the stream was before.
const STEP_MAX: i64 = 10 * TICKS_HZ;

/// Makes an MP4 file of a program stream, `NAME.mp4` beside `NAME.mpg` or `NAME.mpg.tmp`.
///
/// # Errors
/// It cannot be read, nothing in it has a place in MP4, or the file cannot be written or is there.
pub(super) fn recover(path: &Path, file: &File) -> Result<Recovered, RecoverError> {
    let name = match path.extension().is_some_and(|end| end == "tmp") {
        true => path.with_extension(""),
        false => path.to_owned(),
    };
    let wanted = name.with_extension("mp4");
    if wanted.try_exists()? {
        return Err(RecoverError::Taken(wanted));
    }
    let (held, chosen) = look_through(file)?;
    let unfinished = name.with_extension("mp4.tmp");
    let made = (|| {
        let output = OpenOptions::new().write(true).create_new(true).open(&unfinished)?;
        let len = write(file, &output, &chosen)?;
        output.sync_all()?;
        let renamed =
            rustix::fs::renameat_with(CWD, &unfinished, CWD, &wanted, RenameFlags::NOREPLACE);
        match renamed {
            Ok(()) => Ok(len),
            Err(rustix::io::Errno::EXIST) => Err(RecoverError::Taken(wanted.clone())),
            Err(errno) => Err(io::Error::from(errno).into()),
        }
    })();
    match made {
        Ok(len) => {
            let holds = held.to_string() + &chosen.left_out(&held);
            Ok(Recovered { path: wanted, len, cut: 0, holds, from: Some(path.to_owned()) })
        }
        Err(why) => {
            // What was there before is not ours.
            if !matches!(&why, RecoverError::Io(why) if why.kind() == io::ErrorKind::AlreadyExists)
            {
                let _ = std::fs::remove_file(&unfinished);
            }
            Err(why)
        }
    }
}

/// The tracks that have a place in the file: by their places in the stream, the first of each kind
/// of which everything is known.
#[derive(Debug, Default)]
struct Chosen {
    video: Option<(usize, VideoConfig)>,
    audio: Option<(usize, AudioConfig)>,
    /// The earliest time of their beginnings, ticks.
    base: Option<i64>,
    /// Pictures before the first one that decoding can start at.
    before: u64,
    /// What the pictures from that one on say of their times.
    pictures: Vec<Stated>,
}

/// What a picture says of its times, ticks.
#[derive(Debug, Clone, Copy)]
struct Stated {
    pts: Option<i64>,
    dts: Option<i64>,
    /// Others may need it.
    is_referred_to: bool,
}

impl Chosen {
    fn look_at(&mut self, tracks: &[Track], unit: &Unit<'_>) {
        let Some(track) = tracks.get(unit.track) else { return };
        let begins = match track.carries {
            Carries::Video(codec) if self.video.is_none() => {
                let config = VideoConfig::of_picture(codec, unit.data).ok().flatten();
                self.video = config.filter(|_| unit.keyframe).map(|config| (unit.track, config));
                self.before += u64::from(self.video.is_none());
                self.video.is_some()
            }
            Carries::Audio(codec) if self.audio.is_none() => {
                let config = match codec {
                    AudioCodec::Aac => {
                        AudioConfig::of_adts(unit.data).ok().map(|(config, _)| config)
                    }
                    AudioCodec::Mp3 | AudioCodec::G711A | AudioCodec::G711U => {
                        AudioConfig::of_frame(codec, unit.data).ok().flatten()
                    }
                    _ => None,
                };
                self.audio = config.map(|config| (unit.track, config));
                self.audio.is_some()
            }
            _ => false,
        };
        if begins && let Some(time) = unit.dts {
            self.base = Some(self.base.map_or(time, |base| base.min(time)));
        }
        if let Some((place, config)) = &self.video
            && *place == unit.track
            && track.carries == Carries::Video(config.codec)
            && self.pictures.len() < limits::RECORD_MP4_SAMPLES_MAX
        {
            let is_referred_to = is_referred_to(config.codec, unit.data);
            self.pictures.push(Stated { pts: unit.pts, dts: unit.dts, is_referred_to });
        }
    }

    /// What is not in the file, in words.
    fn left_out(&self, held: &Held) -> String {
        let mut text = String::new();
        let places = [self.video.as_ref().map(|v| v.0), self.audio.as_ref().map(|a| a.0)];
        for (place, (carries, units)) in held.tracks.iter().enumerate() {
            if *units > 0 && !places.contains(&Some(place)) {
                let _ = write!(text, "; left out: {}", words(*carries, *units));
            }
        }
        if self.video.is_some() && self.before > 0 {
            let _ = write!(text, "; left out: {} pictures before the first keyframe", self.before);
        }
        text
    }
}

fn look_through(file: &File) -> Result<(Held, Chosen), RecoverError> {
    let (mut held, mut chosen, mut demux) = (Held::default(), Chosen::default(), Demux::new());
    let mut tracks: Vec<Track> = Vec::new();
    let mut tell = |event: Event<'_>| {
        match &event {
            Event::Tracks(now) => tracks = now.to_vec(),
            Event::Unit(unit) => chosen.look_at(&tracks, unit),
            Event::Damage(_) => {}
        }
        held.take(&event);
    };
    read_through(file, |bytes| demux.push(bytes, &mut tell))?;
    demux.finish(&mut tell);
    if chosen.video.is_none() && chosen.audio.is_none() {
        let what = if held.tracks.is_empty() {
            "it holds nothing that is known".into()
        } else {
            held.to_string()
        };
        return Err(RecoverError::Unsupported(what));
    }
    Ok((held, chosen))
}

/// Writes the file. Returns how long it is.
fn write(input: &File, output: &File, chosen: &Chosen) -> Result<u64, RecoverError> {
    let (video, audio) = (chosen.video.as_ref(), chosen.audio.as_ref());
    let (mut init, mut head) = (Vec::new(), Vec::new());
    let pictures = video.map(|(_, config)| (config, config.size.unwrap_or_default()));
    write_init(&mut init, pictures, audio.map(|(_, config)| config));
    let foreign = |_| RecoverError::Foreign("its boxes are of another form");
    let file = Mp4File::begin(&mut head, &init, 0, true).map_err(foreign)?;
    let mut writer = Writer {
        chosen,
        out: BufWriter::with_capacity(1 << 20, output),
        len: 0,
        file,
        sequence: 0,
        times: Times { base: chosen.base.unwrap_or(0), last: None },
        pictures: Pictures { compositions: compositions(&chosen.pictures), ..Pictures::default() },
        clock: AudioClock::counting(),
        heard: 0,
        fragment: Vec::new(),
        picture: Vec::new(),
    };
    writer.put(&head)?;
    let (mut demux, mut tracks, mut failed) = (Demux::new(), Vec::new(), None);
    let mut tell = |event: Event<'_>| match event {
        Event::Tracks(now) => tracks = now.to_vec(),
        Event::Unit(unit) if failed.is_none() => failed = writer.unit(&tracks, &unit).err(),
        Event::Unit(_) | Event::Damage(_) => {}
    };
    read_through(input, |bytes| demux.push(bytes, &mut tell))?;
    demux.finish(&mut tell);
    match failed {
        Some(why) => Err(why.into()),
        None => Ok(writer.finish(output)?),
    }
}

/// Puts the times of a stream into a row that begins at 0.
struct Times {
    base: i64,
    last: Option<i64>,
}

impl Times {
    fn place(&mut self, time: i64) -> i64 {
        let mut at = time - self.base;
        if let Some(last) = self.last.filter(|last| (at - last).abs() > STEP_MAX) {
            (self.base, at) = (time - last, last);
        }
        self.last = Some(at);
        at
    }
}

/// The picture track as written so far.
#[derive(Default)]
struct Pictures {
    begun: bool,
    dts: Option<i64>,
    /// From the picture before the last one to that, ticks.
    step: i64,
    /// The last one had a time of its own.
    timed: bool,
    /// How many there are.
    count: usize,
    /// By number, how much later than decoded those are shown that do not say it, ticks.
    compositions: BTreeMap<usize, i64>,
}

struct Writer<'a> {
    chosen: &'a Chosen,
    out: BufWriter<&'a File>,
    len: u64,
    file: Mp4File,
    sequence: u32,
    times: Times,
    pictures: Pictures,
    clock: AudioClock,
    /// Where the audio frame is expected that does not say its time, ticks.
    heard: i64,
    fragment: Vec<u8>,
    picture: Vec<u8>,
}

impl Writer<'_> {
    fn unit(&mut self, tracks: &[Track], unit: &Unit<'_>) -> io::Result<()> {
        let carries = tracks.get(unit.track).map(|track| track.carries);
        let chosen = self.chosen;
        match (carries, &chosen.video, &chosen.audio) {
            (Some(Carries::Video(codec)), Some((place, config)), _)
                if *place == unit.track && codec == config.codec =>
            {
                self.picture(config, unit)
            }
            (Some(Carries::Audio(codec)), _, Some((place, config)))
                if *place == unit.track && codec == config.codec =>
            {
                self.sound(config, unit)
            }
            _ => Ok(()),
        }
    }

    fn picture(&mut self, config: &VideoConfig, unit: &Unit<'_>) -> io::Result<()> {
        if !self.pictures.begun {
            let complete = VideoConfig::of_picture(config.codec, unit.data);
            if !unit.keyframe || !matches!(complete, Ok(Some(_))) {
                return Ok(());
            }
            let fps = config.fps.map(|fps| TICKS_HZ * 1000 / i64::from(fps.0.max(1)));
            self.pictures.step = fps.unwrap_or(TICKS_HZ / 25);
            self.pictures.begun = true;
        }
        let last = self.pictures.dts;
        let stated = unit.dts.map(|dts| self.times.place(dts));
        let expected = last.map_or(0, |last| last + self.pictures.step);
        let mut dts = stated.unwrap_or(expected).max(0);
        if let Some(last) = last {
            dts = dts.max(last + 1);
            // What is between two of which one says no time is no step.
            if stated.is_some() && self.pictures.timed {
                self.pictures.step = dts - last;
            }
        }
        let composition = match (unit.pts, unit.dts) {
            (Some(pts), Some(dts)) => (pts - dts).clamp(-STEP_MAX, STEP_MAX),
            _ => self.pictures.compositions.get(&self.pictures.count).copied().unwrap_or(0),
        };
        self.pictures.count += 1;
        (self.pictures.dts, self.pictures.timed) = (Some(dts), stated.is_some());
        let mut data = std::mem::take(&mut self.picture);
        data.clear();
        config.put_picture(&mut data, unit.data);
        let fragment = Fragment {
            sequence: 0,
            track: TRACK_VIDEO,
            dts: dts as u64,
            duration: self.pictures.step.clamp(1, TICKS_HZ) as u32,
            composition: composition as i32,
            keyframe: unit.keyframe,
            data: &data,
        };
        let done = self.sample(fragment);
        self.picture = data;
        done
    }

    fn sound(&mut self, config: &AudioConfig, unit: &Unit<'_>) -> io::Result<()> {
        let data = match config.codec {
            AudioCodec::Aac => {
                let head = AudioConfig::of_adts(unit.data).map_or(0, |(_, head)| head);
                unit.data.get(head..).unwrap_or_default()
            }
            _ => unit.data,
        };
        let samples = config.samples(data);
        if data.is_empty() || samples == 0 {
            return Ok(());
        }
        let dts = unit.dts.map_or(self.heard, |dts| self.times.place(dts));
        let at = self.clock.place(config.rate_hz, dts.max(0), samples);
        self.heard = AudioClock::ticks(config.rate_hz, at + i64::from(samples));
        self.sample(Fragment {
            sequence: 0,
            track: TRACK_AUDIO,
            dts: at.max(0) as u64,
            duration: samples,
            composition: 0,
            keyframe: true,
            data,
        })
    }

    fn sample(&mut self, fragment: Fragment<'_>) -> io::Result<()> {
        self.sequence = self.sequence.wrapping_add(1);
        let mut bytes = std::mem::take(&mut self.fragment);
        bytes.clear();
        write_fragment(&mut bytes, &Fragment { sequence: self.sequence, ..fragment });
        // With more samples than are remembered it stays fragmented.
        if !self.file.is_full()
            && let Ok(Item::Fragment(sample)) = mp4::read(&bytes)
        {
            self.file.note(&sample, sample.dts, self.len + sample.data_at() as u64);
        }
        let done = self.put(&bytes);
        self.fragment = bytes;
        done
    }

    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.len += bytes.len() as u64;
        self.out.write_all(bytes)
    }

    /// Writes the index, and then what turns it over.
    fn finish(mut self, output: &File) -> io::Result<u64> {
        let index = self.file.finish(self.len).filter(|_| !self.file.is_full());
        let Some((moov, (place, patch))) = index else {
            self.out.flush()?;
            return Ok(self.len);
        };
        self.put(&moov)?;
        self.out.flush()?;
        output.sync_all()?;
        output.write_all_at(&patch, place)?;
        Ok(self.len)
    }
}

/// How much later than decoded the pictures are shown that do not say it, by number, ticks:
/// pictures come at equal steps, so each is shown in a step in which no other one is. First those
/// are placed that no other one needs: they are shown when they are decoded. Then the others, in
/// their order.
fn compositions(pictures: &[Stated]) -> BTreeMap<usize, i64> {
    let mut found = BTreeMap::new();
    if pictures.iter().all(|picture| picture.pts.is_some()) {
        return found;
    }
    let pairs = pictures.windows(2).filter_map(|pair| Some(pair[1].dts? - pair[0].dts?));
    let mut steps: Vec<i64> = pairs.filter(|step| (1..STEP_MAX).contains(step)).collect();
    steps.sort_unstable();
    let step = steps.get(steps.len() / 2).copied().unwrap_or(TICKS_HZ / 25);
    let mut taken: BTreeSet<i64> = pictures.iter().filter_map(|picture| picture.pts).collect();
    let first = taken.first().copied().unwrap_or(0);
    for is_referred_to in [false, true] {
        let mut dts = 0;
        for (number, picture) in pictures.iter().enumerate() {
            dts = picture.dts.unwrap_or(dts + step);
            if picture.pts.is_some() || picture.is_referred_to != is_referred_to {
                continue;
            }
            let is_free = |at: &i64| taken.range(at - step / 2..=at + step / 2).next().is_none();
            let mut slots = (0..SLOTS).map(|slot| dts + slot * step).filter(|at| *at >= first);
            let at = slots.find(is_free).unwrap_or(dts);
            taken.insert(at);
            found.insert(number, at - dts);
        }
    }
    found
}

/// How many steps later than decoded a picture may be shown: what H.264 and H.265 allow for.
const SLOTS: i64 = 17;

/// True when other pictures may need this one.
fn is_referred_to(codec: VideoCodec, picture: &[u8]) -> bool {
    !nal::annex_b(picture).filter_map(|nal| nal.first()).any(|first| match codec {
        VideoCodec::H264 => first & 0x1f == 1 && first >> 5 & 3 == 0,
        // Those of even numbers are needed by none of their own temporal layer.
        VideoCodec::H265 => matches!(first >> 1 & 0x3f, 0 | 2 | 4 | 6 | 8 | 10 | 12 | 14),
        _ => false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::recorder::recover::recover;
    use std::path::PathBuf;

    const PACK: &[u8] = &[0, 0, 1, 0xba, 0x44, 0, 4, 0, 4, 1, 0, 0, 3, 0xf8];
    /// A map: G.711 A-law.
    const MAP: &[u8] =
        &[0, 0, 1, 0xbc, 0, 14, 0xe0, 0xff, 0, 0, 0, 4, 0x90, 0xc0, 0, 0, 1, 2, 3, 4];

    fn scratch(name: &str) -> PathBuf {
        let name = format!("ringcast-to-mp4-{}-{name}", std::process::id());
        std::env::temp_dir().join(name)
    }

    /// A packet of this time, ms.
    fn pes(id: u8, ms: u32, payload: &[u8]) -> Vec<u8> {
        let t = ms * 90;
        let len = payload.len() as u8 + 8;
        let head = [0, 0, 1, id, 0, len, 0x80, 0x80, 5];
        let time = [0x21, (t >> 22) as u8, (t >> 14) as u8 | 1, (t >> 7) as u8, (t << 1) as u8 | 1];
        [&head[..], &time, payload].concat()
    }

    #[test]
    fn sound_alone_from_another_clock_on() {
        let path = scratch("a.ps.tmp");
        let mut bytes = [PACK, MAP].concat();
        for n in 0..50u32 {
            // After a second the camera begins anew.
            let ms = if n < 25 { 100_000 + n * 20 } else { (n - 25) * 20 };
            bytes.extend(pes(0xc0, ms, &[n as u8; 160]));
            bytes.extend(pes(0xc1, ms, &[0xd5; 20]));
        }
        std::fs::write(&path, &bytes).unwrap();
        let done = recover(&path).unwrap();
        assert_eq!((&done.path, done.from.as_ref()), (&scratch("a.mp4"), Some(&path)));
        assert!(done.holds.contains("50 frames of G.711 A-law"), "{}", done.holds);
        let made = std::fs::read(&done.path).unwrap();
        assert_eq!(made.len() as u64, done.len);
        let places: Vec<usize> = (0..50)
            .map(|n| made.windows(160).position(|bytes| bytes == [n as u8; 160]).expect("a frame"))
            .collect();
        assert!(places.is_sorted());
        // The whole lasts a second: 8000 samples, in the clock of the file.
        let mvhd = made.windows(4).rposition(|name| name == b"mvhd").unwrap();
        let number = |at: usize| u32::from_be_bytes(*made[at..].first_chunk().unwrap());
        assert_eq!((number(mvhd + 24), number(mvhd + 28), number(mvhd + 32)), (90_000, 0, 90_000));
        // What is there is not written over, and the stream is as it was.
        assert!(matches!(recover(&path), Err(RecoverError::Taken(taken)) if taken == done.path));
        assert_eq!(std::fs::read(&path).unwrap(), bytes);
        std::fs::remove_file(done.path).unwrap();
        std::fs::remove_file(path).unwrap();
    }

    #[test]
    fn pictures_without_times_are_shown_in_the_steps_that_are_left() {
        // As x265 orders them: I, P, B to which another one refers, that one; two of five steps.
        let order = [2, 5, 4, 3, 8, 7, 6, 11, 10, 9, 14, 13, 12];
        let referred = |number: usize| number == 0 || !number.is_multiple_of(3);
        let stated = |missing: &[usize]| -> Vec<Stated> {
            let pictures = order.iter().enumerate().map(|(number, shown)| {
                let says = !missing.contains(&number);
                Stated {
                    pts: says.then_some(9_000 + shown * 3_600),
                    dts: says.then_some(9_000 + number as i64 * 3_600),
                    is_referred_to: referred(number),
                }
            });
            pictures.collect()
        };
        assert!(compositions(&stated(&[])).is_empty());
        for missing in [&[3, 4][..], &[1], &[3, 4, 6, 7, 9], &[6, 8, 12], &[3, 4, 7, 10]] {
            let expected = missing.iter().map(|n| (*n, (order[*n] - *n as i64) * 3_600)).collect();
            assert_eq!(compositions(&stated(missing)), expected, "{missing:?}");
        }
    }

    #[test]
    fn what_has_no_place_is_told() {
        let path = scratch("b.ps");
        for (bytes, words) in [
            (pes(0xe0, 0, &[0, 0, 1, 0xb3, 0x14, 0, 0xf0]), "1 units of stream type 0x2"),
            (pes(0xc0, 0, &[0xd5; 20]), "it holds nothing that is known"),
        ] {
            let bytes = [PACK, &bytes].concat();
            std::fs::write(&path, &bytes).unwrap();
            let why = recover(&path).unwrap_err().to_string();
            assert!(why.contains(words), "{why}");
            assert_eq!(std::fs::read(&path).unwrap(), bytes);
            assert!(!scratch("b.mp4").exists() && !scratch("b.mp4.tmp").exists());
        }
        std::fs::remove_file(path).unwrap();
    }
}

//! `ringcast recover`: makes recordings whole whose writing was cut off.
//!
//! Nothing is guessed: what is not whole at the end is cut off, and what belongs to a whole file
//! (duration and index of FLV, the `moov` of MP4) is made from what is there. Program streams,
//! which are not of this server, become MP4 files (`to_mp4`).

use std::collections::BTreeMap;
use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, BufRead as _, BufReader, Read, Seek, SeekFrom};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, RenameFlags};

use super::to_mp4;
use crate::media::Kind;
use crate::media::unit::TICKS_PER_MS;
use crate::proto::flv::{FILE_HEADER_BYTES, TAG_HEAD_BYTES};
use crate::proto::flv_file::{self, FlvFile, TAG_FRAME_BYTES};
use crate::proto::mp4::file::{self as mp4, Item, Mp4File};
use crate::proto::mpeg::{Carries, Damage, Event};
use crate::proto::ps;
use crate::proto::ts::demux::Demux;

/// Why a file cannot be made whole.
#[derive(Debug, thiserror::Error)]
pub enum RecoverError {
    /// It cannot be read or written.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// It is nothing that this server has written.
    #[error("this is no recording of ringcast: {0}")]
    Foreign(&'static str),
    /// There is nothing in a program stream that MP4 has a place for.
    #[error("this program stream has no pictures of H.264 or H.265, and no AAC, MP3 or G.711: {0}")]
    Unsupported(String),
    /// The file that would be made is there.
    #[error("{0} is there already")]
    Taken(PathBuf),
}

/// What was done.
#[derive(Debug, PartialEq, Eq)]
pub struct Recovered {
    /// What the file is called now.
    pub path: PathBuf,
    /// Bytes of it.
    pub len: u64,
    /// Bytes at the end that were no whole frame and are gone.
    pub cut: u64,
    /// What a transport stream or program stream holds, in words; empty for other files.
    pub holds: String,
    /// The program stream that it was made of, which is as it was.
    pub from: Option<PathBuf>,
}

/// Makes a file whole. `NAME.tmp` is called `NAME` then, unless that is taken. Of a program stream
/// `NAME.mpg`, `NAME.mp4` is made.
///
/// # Errors
/// It cannot be made whole; nothing was changed if it is not a recording.
pub fn recover(path: &Path) -> Result<Recovered, RecoverError> {
    let mut begin = [0; 4];
    let foreign = File::open(path)?;
    let read = foreign.read_at(&mut begin, 0)?;
    if ps::is_program_stream(&begin[..read]) {
        return to_mp4::recover(path, &foreign);
    }
    let file = OpenOptions::new().read(true).write(true).open(path)?;
    let before = file.metadata()?.len();
    let len = make_whole(&file)?;
    file.sync_all()?;
    let mut magic = [0];
    let is_ts = file.read_at(&mut magic, 0)? == 1 && magic == [0x47];
    let holds = if is_ts { scan_ts(&file)?.to_string() } else { String::new() };
    let mut now = path.to_owned();
    let name = path.file_name().and_then(|name| name.to_str());
    if let Some(name) = name.and_then(|name| name.strip_suffix(".tmp")) {
        let wanted = path.with_file_name(name);
        match rustix::fs::renameat_with(CWD, path, CWD, &wanted, RenameFlags::NOREPLACE) {
            Ok(()) => now = wanted,
            Err(rustix::io::Errno::EXIST) => {}
            Err(errno) => return Err(io::Error::from(errno).into()),
        }
    }
    Ok(Recovered { path: now, len, cut: before.saturating_sub(len), holds, from: None })
}

/// Makes an open file whole. Returns how long it is then.
///
/// # Errors
/// As [`recover`].
pub fn make_whole(file: &File) -> Result<u64, RecoverError> {
    let mut magic = [0; 8];
    let read = file.read_at(&mut magic, 0)?;
    match &magic[..read] {
        [b'F', b'L', b'V', ..] => recover_flv(file),
        [_, _, _, _, b'f', b't', b'y', b'p'] => recover_mp4(file),
        [0x47, ..] => recover_ts(file),
        _ => Err(RecoverError::Foreign("it begins like nothing that is known")),
    }
}

/// What is found in an FLV file: how long it is up to its last whole tag.
pub fn scan_flv(file: &File) -> Result<(FlvFile, u64), RecoverError> {
    let end = file.metadata()?.len();
    let mut head = vec![0; FILE_HEADER_BYTES + TAG_HEAD_BYTES];
    file.read_exact_at(&mut head, 0)?;
    let (_, _, len) = flv_file::tag_head(&head[FILE_HEADER_BYTES..])
        .ok_or(RecoverError::Foreign("its first tag is none"))?;
    head.resize(head.len() + len as usize, 0);
    file.read_exact_at(&mut head, 0)?;
    let mut found = FlvFile::resume(&head)
        .ok_or(RecoverError::Foreign("its metadata has no room for an index"))?;
    let mut at = (head.len() + TAG_FRAME_BYTES - TAG_HEAD_BYTES) as u64;
    let mut reader = BufReader::with_capacity(64 << 10, file);
    reader.seek(SeekFrom::Start(at))?;
    loop {
        // The head, and what says of pictures whether they are keyframes.
        let mut start = [0; TAG_HEAD_BYTES + 1];
        let tag = match reader.read_exact(&mut start) {
            Ok(()) => flv_file::tag_head(&start),
            Err(why) if why.kind() == io::ErrorKind::UnexpectedEof => None,
            Err(why) => return Err(why.into()),
        };
        let Some((kind, ms, len)) = tag.filter(|(_, _, len)| *len > 0) else { break };
        let next = at + u64::from(len) + TAG_FRAME_BYTES as u64;
        if next > end {
            break;
        }
        reader.seek_relative((next - at) as i64 - start.len() as i64 - 4)?;
        let mut size = [0; 4];
        reader.read_exact(&mut size)?;
        if u32::from_be_bytes(size) != len + TAG_HEAD_BYTES as u32 {
            break;
        }
        // FLV E.4.3.1: the frame type, in enhanced RTMP without the bit above it.
        let keyframe = kind == Kind::Video && start[TAG_HEAD_BYTES] >> 4 & 7 == 1;
        found.note(kind, ms, keyframe, at);
        at = next;
    }
    Ok((found, at))
}

fn recover_flv(file: &File) -> Result<u64, RecoverError> {
    let (found, len) = scan_flv(file)?;
    file.set_len(len)?;
    for (at, bytes) in found.finish(len) {
        file.write_all_at(&bytes, at)?;
    }
    Ok(len)
}

/// Cuts a file off behind its last whole unit.
fn recover_ts(file: &File) -> Result<u64, RecoverError> {
    let held = scan_ts(file)?;
    file.set_len(held.end)?;
    Ok(held.end)
}

/// What a transport stream or program stream holds.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Held {
    /// Place behind the last whole unit.
    pub end: u64,
    /// Its tracks, with the number of their units.
    pub tracks: Vec<(Carries, u64)>,
    /// From the first unit to the last, ms.
    pub duration_ms: u64,
    /// What was damaged, and how often.
    pub damage: BTreeMap<Damage, u64>,
    /// The earliest and the latest time, ticks.
    span: Option<(i64, i64)>,
}

impl fmt::Display for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (carries, units) in &self.tracks {
            write!(f, "{}, ", words(*carries, *units))?;
        }
        write!(f, "{:.3} s", self.duration_ms as f64 / 1000.0)?;
        for (damage, times) in &self.damage {
            write!(f, "; {damage}: {times}")?;
        }
        Ok(())
    }
}

/// So many units of a track.
pub(super) fn words(carries: Carries, units: u64) -> String {
    match carries {
        Carries::Video(codec) => format!("{units} pictures of {codec}"),
        Carries::Audio(codec) => format!("{units} frames of {codec}"),
        Carries::Other(kind) => format!("{units} units of stream type {kind:#x}"),
    }
}

impl Held {
    /// Takes in what is found.
    pub(super) fn take(&mut self, event: &Event<'_>) {
        match event {
            Event::Tracks(tracks) => {
                // What it had before counts, too.
                for track in tracks.iter().skip(self.tracks.len()) {
                    self.tracks.push((track.carries, 0));
                }
                for (known, track) in self.tracks.iter_mut().zip(*tracks) {
                    known.0 = track.carries;
                }
            }
            Event::Unit(unit) => {
                self.end = self.end.max(unit.end);
                if let Some((_, units)) = self.tracks.get_mut(unit.track) {
                    *units += 1;
                }
                if let Some(time) = unit.dts {
                    let (first, last) = self.span.unwrap_or((time, time));
                    let (first, last) = (first.min(time), last.max(time));
                    self.span = Some((first, last));
                    self.duration_ms = ((last - first) / TICKS_PER_MS) as u64;
                }
            }
            Event::Damage(damage) => *self.damage.entry(*damage).or_default() += 1,
        }
    }
}

/// Gives all bytes of a file, from its beginning to its end.
pub(super) fn read_through(file: &File, mut give: impl FnMut(&[u8])) -> io::Result<()> {
    let mut reader = BufReader::with_capacity(1 << 20, file);
    reader.seek(SeekFrom::Start(0))?;
    loop {
        let bytes = reader.fill_buf()?;
        if bytes.is_empty() {
            return Ok(());
        }
        give(bytes);
        let read = bytes.len();
        reader.consume(read);
    }
}

/// Reads a transport stream from its beginning to its end.
///
/// # Errors
/// It cannot be read, or nothing whole is in it.
pub fn scan_ts(file: &File) -> Result<Held, RecoverError> {
    let (mut held, mut demux) = (Held::default(), Demux::new());
    read_through(file, |bytes| demux.push(bytes, &mut |event| held.take(&event)))?;
    demux.finish(&mut |event| held.take(&event));
    match held.end {
        0 => Err(RecoverError::Foreign("no whole picture or audio frame is in it")),
        _ => Ok(held),
    }
}

/// Bytes of a fragment's head that are looked at; those of this server have about a hundred.
const HEAD_BYTES: usize = 256;

fn recover_mp4(file: &File) -> Result<u64, RecoverError> {
    let end = file.metadata()?.len();
    let read = |at: u64, len: usize| -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; len.min(end.saturating_sub(at) as usize)];
        file.read_exact_at(&mut bytes, at)?;
        Ok(bytes)
    };
    let foreign = |_| RecoverError::Foreign("its boxes are of another form");
    let head_at = |at: u64| -> Result<Option<mp4::Head>, RecoverError> {
        mp4::head(&read(at, 16)?).map_err(foreign)
    };
    let mut at = head_at(0)?.map_or(0, |ftyp| ftyp.len);
    let mut hole = None;
    // A whole file has its fragments inside of one box; there the closing was cut off at its end.
    if let Some(first) = head_at(at)?.filter(|b| &b.name == b"free" || &b.name == b"mdat") {
        if first.name == *b"mdat" && first.head != 16 {
            return Err(RecoverError::Foreign("it has no hole for a long head"));
        }
        hole = Some(at);
        at += 16;
    }
    let moov = head_at(at)?.filter(|moov| &moov.name == b"moov" && moov.len < 1 << 20);
    let moov = moov.ok_or(RecoverError::Foreign("it has no moov in its beginning"))?;
    let bytes = read(at, moov.len as usize)?;
    let mut found = Mp4File::with(&bytes, hole, 0).map_err(foreign)?;
    at += moov.len;
    loop {
        let bytes = read(at, HEAD_BYTES)?;
        let Ok(Item::Fragment(sample)) = mp4::read(&bytes) else { break };
        let next = at + sample.data_at() as u64 + u64::from(sample.size);
        if next > end {
            break;
        }
        found.note(&sample, sample.dts, at + sample.data_at() as u64);
        at = next;
    }
    file.set_len(at)?;
    let Some((moov, (place, patch))) = found.finish(at) else { return Ok(at) };
    file.write_all_at(&moov, at)?;
    // What turns it over comes when everything else is on the disk.
    file.sync_all()?;
    file.write_all_at(&patch, place)?;
    Ok(at + moov.len() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::media::codec::VideoCodec;
    use crate::media::unit::{Unit, VideoConfig};
    use crate::proto::flv;
    use crate::proto::ts::Mux;

    fn scratch(name: &str) -> PathBuf {
        let name = format!("ringcast-recover-{}-{name}", std::process::id());
        std::env::temp_dir().join(name)
    }

    #[test]
    fn flv_that_was_cut_off_is_made_whole() {
        let mut bytes = Vec::new();
        let mut file = FlvFile::begin(&mut bytes, None, 10, 0);
        for n in 0..5u32 {
            let body = [if n % 2 == 0 { 0x17 } else { 0x27 }, 1, 2, 3];
            bytes.extend_from_slice(&file.tag(Kind::Video, i64::from(n) * 40, 4, false, 0));
            bytes.extend_from_slice(&body);
            bytes.extend_from_slice(&flv::previous_tag_size(4));
        }
        let whole = bytes.len() as u64;
        bytes.extend_from_slice(&file.tag(Kind::Video, 200, 4, false, 0));
        bytes.extend_from_slice(&[0x27, 1]);
        let path = scratch("a.flv.tmp");
        std::fs::write(&path, &bytes).unwrap();
        let done = recover(&path).unwrap();
        let holds = String::new();
        let path = scratch("a.flv");
        assert_eq!(done, Recovered { path, len: whole, cut: 13, holds, from: None });
        let found = std::fs::read(&done.path).unwrap();
        let (mut again, len) = scan_flv(&File::open(&done.path).unwrap()).unwrap();
        assert_eq!((len, again.last_ms()), (whole, 160));
        assert_eq!(again.finish(whole)[1].1, found[24..24 + again.finish(whole)[1].1.len()]);
        again.continue_at(0);
        assert_eq!(recover(&done.path).unwrap().cut, 0);
        std::fs::remove_file(&done.path).unwrap();
    }

    #[test]
    fn what_is_foreign_stays_as_it_is() {
        let path = scratch("x.tmp");
        for bytes in [&b"hello, world"[..], b"", b"\0\0\0\x10ftypisom\0\0\0\0", b"FLV\x01\x05"] {
            std::fs::write(&path, bytes).unwrap();
            assert!(recover(&path).is_err(), "{bytes:?}");
            assert_eq!(std::fs::read(&path).unwrap(), bytes);
        }
        std::fs::write(&path, [0x47; 400]).unwrap();
        assert!(recover(&path).is_err());
        assert_eq!(std::fs::read(&path).unwrap(), [0x47; 400]);
        std::fs::remove_file(&path).unwrap();
    }

    #[test]
    fn a_transport_stream_is_cut_behind_its_last_whole_unit() {
        let record = crate::media::unhex("014d401effe1000a674d401ee8805017fcb001000468eb8f20");
        let video = VideoConfig::read(VideoCodec::H264, &record).unwrap();
        let mut mux = Mux::new(Some(&video), None).unwrap();
        let (mut bytes, mut ends) = (Vec::new(), Vec::new());
        for n in 0..30i64 {
            let data = [&[0, 0, 2, 1][..], &[0x41; 513]].concat();
            let unit = Unit { dts: n * 3600, pts: n * 3600, keyframe: n == 0, data: &data };
            mux.video(&mut bytes, &video, &unit).unwrap();
            ends.push(bytes.len() as u64);
        }
        let path = scratch("a.ts.tmp");
        let recovered = |bytes: &[u8]| {
            std::fs::write(&path, bytes).unwrap();
            let done = recover(&path).unwrap();
            std::fs::remove_file(&done.path).unwrap();
            (done.len, done.holds)
        };
        assert_eq!(recovered(&bytes), (ends[29], "30 pictures of H264, 1.160 s".into()));
        // In a packet, and between two of one picture.
        let holds = "29 pictures of H264, 1.120 s";
        for cut in [7, 188, 400] {
            assert_eq!(recovered(&bytes[..bytes.len() - cut]), (ends[28], holds.into()), "{cut}");
        }
        // Damage in the middle, in a picture with no tables before it, stays and is told.
        let len_of = |n: usize| ends[n] - ends[n - 1];
        let least = (10..20).map(len_of).min();
        let plain = (10..20).find(|n| Some(len_of(*n)) == least).unwrap();
        bytes[ends[plain - 1] as usize + 188] = 0;
        let (len, holds) = recovered(&bytes);
        assert_eq!(len, ends[29]);
        assert!(holds.contains("29 pictures") && holds.contains("lost sync: 1"), "{holds}");
    }
}

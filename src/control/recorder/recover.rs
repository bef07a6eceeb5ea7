//! `ringcast recover`: makes recordings whole whose writing was cut off.
//!
//! Nothing is guessed: what is not whole at the end is cut off, and what belongs to a whole file
//! (duration and index of FLV, the `moov` of MP4) is made from what is there.

use std::fs::{File, OpenOptions};
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, RenameFlags};

use crate::media::Kind;
use crate::proto::flv::{FILE_HEADER_BYTES, TAG_HEAD_BYTES};
use crate::proto::flv_file::{self, FlvFile, TAG_FRAME_BYTES};
use crate::proto::mp4::file::{self as mp4, Item, Mp4File};

/// Why a file cannot be made whole.
#[derive(Debug, thiserror::Error)]
pub enum RecoverError {
    /// It cannot be read or written.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// It is nothing that this server has written.
    #[error("this is no recording of ringcast: {0}")]
    Foreign(&'static str),
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
}

/// Makes a file whole. `NAME.tmp` is called `NAME` then, unless that is taken.
///
/// # Errors
/// It cannot be made whole; nothing was changed if it is not a recording.
pub fn recover(path: &Path) -> Result<Recovered, RecoverError> {
    let file = OpenOptions::new().read(true).write(true).open(path)?;
    let before = file.metadata()?.len();
    let len = make_whole(&file)?;
    file.sync_all()?;
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
    Ok(Recovered { path: now, len, cut: before.saturating_sub(len) })
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
        [0x47, ..] => recover_ts(file, file.metadata()?.len()),
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

/// A file that ends inside of a packet ends inside of a picture or an audio frame, too: it is cut
/// off where that begins.
fn recover_ts(file: &File, len: u64) -> Result<u64, RecoverError> {
    let mut end = len / 188 * 188;
    let mut at = if end == len { 0 } else { end };
    let mut packet = [0; 188];
    while at > 0 {
        at -= 188;
        file.read_exact_at(&mut packet, at)?;
        if begins_unit(&packet) {
            end = at;
            break;
        }
    }
    file.set_len(end)?;
    Ok(end)
}

/// True for the first packet of a PES (ISO 13818-1 2.4.3.2, 2.4.3.6).
fn begins_unit(packet: &[u8; 188]) -> bool {
    let adapted = packet[3] & 0x20 != 0;
    let payload = 4 + if adapted { 1 + usize::from(packet[4]) } else { 0 };
    let start = packet.get(payload..).unwrap_or_default();
    packet[0] == 0x47 && packet[1] & 0x40 != 0 && start.starts_with(&[0, 0, 1])
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
    use crate::proto::flv;

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
        assert_eq!(done, Recovered { path: scratch("a.flv"), len: whole, cut: 13 });
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
        let done = recover(&path).unwrap();
        assert_eq!((done.len, done.cut), (376, 24));
        std::fs::remove_file(&done.path).unwrap();
    }
}

//! Recordings that are played from another place than their beginning: reads what is needed of the
//! file to say what comes first (`session::vod`). A file that is none costs the one who asked.

use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use bytes::Bytes;
use rustix::io::Errno;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

use super::disk::{Disk, DiskFault};
use crate::limits;
use crate::proto::{flv, flv_file, mp4};
use crate::session::admission::Desk;
use crate::session::vod::{Ask, Fault, From, Plan};

/// What is needed of the server.
pub struct Parts {
    /// Where players ask.
    pub desk: Arc<Desk>,
    /// The disks.
    pub disk: Rc<Disk>,
    /// Tells a shard that the question of a connection is answered.
    pub tell_shard: Box<dyn Fn(usize, uring::Conn)>,
    /// Woken when somebody has asked.
    pub news: Arc<Notify>,
}

/// Bytes that were made for a player. They are counted until they are sent, or nobody wants them.
struct Head {
    bytes: Bytes,
    held: Arc<AtomicUsize>,
}

impl Head {
    /// `None` when there is no room for them.
    fn new(bytes: Bytes, held: &Arc<AtomicUsize>) -> Option<Head> {
        let before = held.fetch_add(bytes.len(), Relaxed);
        let head = Head { bytes, held: held.clone() };
        (before + head.bytes.len() <= limits::VOD_HEADS_BYTES_MAX).then_some(head)
    }
}

impl AsRef<[u8]> for Head {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Head {
    fn drop(&mut self) {
        self.held.fetch_sub(self.bytes.len(), Relaxed);
    }
}

/// Answers for as long as the control thread runs.
pub async fn run(parts: Parts) {
    let parts = Rc::new(parts);
    let working = Arc::new(Semaphore::new(limits::VOD_WORKING_MAX));
    let held = Arc::new(AtomicUsize::new(0));
    loop {
        parts.news.notified().await;
        loop {
            // It is never closed.
            let Ok(permit) = working.clone().acquire_owned().await else { return };
            let Some(ask) = parts.desk.take_vod() else { break };
            tokio_uring::spawn(answer(parts.clone(), ask, held.clone(), permit));
        }
    }
}

async fn answer(
    parts: Rc<Parts>,
    ask: Arc<Ask>,
    held: Arc<AtomicUsize>,
    permit: OwnedSemaphorePermit,
) {
    let asked = ask.clone();
    // What the helper finds out is no fault of the disk.
    let found = parts.disk.help(move || match plan(&asked) {
        Err(Fault::Disk) => Err(DiskFault::Failed("a recording cannot be read".into())),
        found => Ok(found),
    });
    let found = found.await.unwrap_or(Err(Fault::Disk)).and_then(|plan| {
        let head = Head::new(plan.head, &held).ok_or(Fault::Full)?;
        Ok(Plan { head: Bytes::from_owner(head), file: plan.file })
    });
    ask.set(found);
    drop(permit);
    (parts.tell_shard)(ask.shard, ask.conn);
}

fn plan(ask: &Ask) -> Result<Plan, Fault> {
    let file = Reader { file: &ask.file, len: ask.len };
    match ask.from {
        From::FlvByte(place) => flv_from(&file, place),
        From::Mp4Ms(ms) => mp4_from(&file, ms),
    }
}

struct Reader<'a> {
    file: &'a OwnedFd,
    len: u64,
}

impl Reader<'_> {
    /// So many bytes, or as many as there are.
    fn read(&self, offset: u64, len: usize) -> Result<Vec<u8>, Fault> {
        let len = self.len.saturating_sub(offset).min(len as u64) as usize;
        let (mut bytes, mut got) = (vec![0; len], 0);
        while got < len {
            match rustix::io::pread(self.file, &mut bytes[got..], offset + got as u64) {
                Ok(0) => break,
                Ok(more) => got += more,
                Err(Errno::INTR) => {}
                Err(_) => return Err(Fault::Disk),
            }
        }
        bytes.truncate(got);
        Ok(bytes)
    }

    fn array<const N: usize>(&self, offset: u64) -> Result<Option<[u8; N]>, Fault> {
        Ok(self.read(offset, N)?.first_chunk().copied())
    }
}

fn flv_from(file: &Reader<'_>, place: u64) -> Result<Plan, Fault> {
    let whole = Plan { head: Bytes::new(), file: (0, file.len) };
    if place <= flv::FILE_HEADER_BYTES as u64 {
        return Ok(whole);
    }
    let around = file.array::<{ flv_file::TAG_FRAME_BYTES }>(place - 4)?.ok_or(Fault::Place)?;
    let [s0, s1, s2, s3, ..] = around;
    let size = u64::from(u32::from_be_bytes([s0, s1, s2, s3]));
    let before = (place - 4).checked_sub(size).ok_or(Fault::Place)?;
    let before = file.array(before)?.ok_or(Fault::Place)?;
    if !flv_file::is_tag(&around, &before) {
        return Err(Fault::Place);
    }
    let most = limits::VOD_FLV_HEAD_BYTES_MAX as u64;
    let head = file.read(0, place.min(most) as usize)?;
    let head = flv_file::lead_in(&head).map_err(|_| Fault::File("no FLV"))?;
    Ok(Plan { head: head.into(), file: (place, file.len - place) })
}

/// Bytes that are read of a fragment at first: most are no longer, with the head of their data.
const FRAGMENT_BYTES: usize = 1_024;
/// Bytes of a fragment's index; more is no fragment.
const MOOF_BYTES_MAX: u64 = 1 << 20;
/// Bytes of an `ftyp`.
const FTYP_BYTES_MAX: u64 = 4 << 10;

fn mp4_from(file: &Reader<'_>, ms: u64) -> Result<Plan, Fault> {
    let wrong = Fault::File("no MP4");
    let mut ftyp = Vec::new();
    let mut at = 0;
    for _ in 0..limits::VOD_BOXES_MAX {
        let head = file.read(at, 16)?;
        let found = box_head(&head, file.len - at.min(file.len)).ok_or(wrong)?;
        match &found.name {
            b"ftyp" if found.len <= FTYP_BYTES_MAX => ftyp = file.read(at, found.len as usize)?,
            b"moov" if found.len > limits::VOD_MOOV_BYTES_MAX as u64 => {
                return Err(Fault::File("its index is too long"));
            }
            b"moov" => {
                let moov = file.read(at, found.len as usize)?;
                if let Some(guide) = mp4::start::guide(&moov) {
                    return fragments_from(file, [&ftyp, &moov], at + found.len, (guide, ms));
                }
                // A long head is not one of this format's.
                if found.head != 8 {
                    return Err(wrong);
                }
                let start = mp4::start::start(&ftyp, &moov, file.len, ms);
                let start = start.map_err(|why| Fault::File(why.0))?;
                return Ok(Plan { head: start.head.into(), file: start.file });
            }
            _ => {}
        }
        at = at.checked_add(found.len).ok_or(wrong)?;
    }
    Err(wrong)
}

/// The head of a box; one that states no length reaches to the end.
fn box_head(bytes: &[u8], left: u64) -> Option<mp4::file::Head> {
    if let Some([0, 0, 0, 0, name @ ..]) = bytes.first_chunk::<8>() {
        return Some(mp4::file::Head { name: *name, head: 8, len: left });
    }
    mp4::file::head(bytes).ok().flatten()
}

/// A fragmented file from the last fragment at or before a time that begins with a keyframe.
fn fragments_from(
    file: &Reader<'_>,
    head: [&[u8]; 2],
    behind: u64,
    (guide, ms): (mp4::start::Guide, u64),
) -> Result<Plan, Fault> {
    let began = Instant::now();
    let limit = Duration::from_millis(limits::FILE_OPEN_MS_MAX * 3 / 4);
    let (mut at, mut begin, mut best) = (behind, behind, None);
    for number in 0..limits::VOD_BOXES_MAX {
        if number % 4_096 == 0 && began.elapsed() > limit {
            return Err(Fault::Disk);
        }
        let bytes = file.read(at, FRAGMENT_BYTES)?;
        // What is cut off at the end is being written, or was when the server ended.
        let Some(found) = box_head(&bytes, file.len - at.min(file.len)) else { break };
        if &found.name == b"moof" && found.len <= MOOF_BYTES_MAX {
            let long;
            let moof = match bytes.get(..found.len as usize) {
                Some(moof) => moof,
                None => {
                    long = file.read(at, found.len as usize)?;
                    &long
                }
            };
            if let Some((time, true)) = mp4::start::fragment(moof, guide) {
                if time > ms && best.is_some() {
                    break;
                }
                best = Some(begin);
            }
        }
        let Some(next) = at.checked_add(found.len).filter(|next| *next < file.len) else { break };
        at = next;
        if &found.name == b"mdat" {
            begin = at;
        }
    }
    let from = best.ok_or(Fault::File("nothing can be begun with"))?;
    Ok(Plan { head: head.concat().into(), file: (from, file.len - from) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::media::Kind;
    use std::io::Write as _;

    fn file(bytes: &[u8]) -> (OwnedFd, u64) {
        let name = format!("ringcast-vod-{}-{}", std::process::id(), bytes.len());
        let path = std::env::temp_dir().join(name);
        std::fs::File::create(&path).and_then(|mut f| f.write_all(bytes)).unwrap();
        let file = std::fs::File::open(&path).unwrap();
        std::fs::remove_file(path).unwrap();
        (file.into(), bytes.len() as u64)
    }

    #[test]
    fn what_is_held_is_bounded() {
        let held = Arc::default();
        let half = || Bytes::from(vec![0; limits::VOD_HEADS_BYTES_MAX / 2]);
        let one = Head::new(half(), &held).unwrap();
        let two = Bytes::from_owner(Head::new(half(), &held).unwrap());
        assert!(Head::new(Bytes::from_static(b"x"), &held).is_none());
        let part = two.slice(3..5);
        drop((one, two));
        assert_eq!(held.load(Relaxed), limits::VOD_HEADS_BYTES_MAX / 2);
        drop(part);
        assert_eq!(held.load(Relaxed), 0);
    }

    #[test]
    fn places_in_flv_files() {
        let mut all = flv::file_header(true, true).to_vec();
        flv::write_tag(&mut all, Kind::Video, 0, b"\x17\0\0\0\0config");
        flv::write_tag(&mut all, Kind::Video, 0, b"\x17\x01\0\0\0one");
        let lead = all.len() - 8 - 15;
        let second = all.len() as u64;
        flv::write_tag(&mut all, Kind::Video, 40, b"\x17\x01\0\0\0two");
        let (fd, len) = file(&all);
        let reader = Reader { file: &fd, len };
        let plan = flv_from(&reader, second).unwrap();
        assert_eq!(plan.head, all[..lead]);
        assert_eq!(plan.file, (second, len - second));
        assert_eq!(flv_from(&reader, 13).unwrap().file, (0, len));
        for place in [14, second - 1, second + 1, len - 1, len, len + 1, u64::MAX] {
            assert_eq!(flv_from(&reader, place), Err(Fault::Place), "{place}");
        }
        assert!(mp4_from(&reader, 5).is_err());
        let (fd, len) = file(b"\0\0\0\x08ftyp\0\0\0\0mdat");
        assert!(mp4_from(&Reader { file: &fd, len }, 5).is_err());
    }
}

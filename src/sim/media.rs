//! What simulated publishers send, and the ledger that says what players may see of it.

use std::collections::HashMap;

use crate::media::Kind;
use crate::media::time::Timeline;
use crate::proto::amf0::put;

/// Where the record lies in a frame's payload, behind every codec's own header.
const RECORD_AT: usize = 16;
const RECORD_MAGIC: [u8; 4] = *b"FRM!";
/// Smallest frame: its head and its record.
pub const FRAME_MIN: usize = RECORD_AT + 10;

/// Which codecs a publisher's life has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VideoKind {
    Avc,
    /// Enhanced RTMP.
    Hevc,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AudioKind {
    Aac,
    /// Has no sequence header.
    Mp3,
}

/// A video sequence header; `version` makes it differ from others.
pub fn video_header(kind: VideoKind, version: u32) -> Vec<u8> {
    let mut out = match kind {
        VideoKind::Avc => vec![0x17, 0, 0, 0, 0, 1, 0x42, 0xc0, 0x1e, 0xff, 0xe1, 0, 4],
        VideoKind::Hevc => b"\x90hvc1\x01\x01\x60\x00\x00\x00".to_vec(),
    };
    out.extend_from_slice(b"VERS");
    out.extend_from_slice(&version.to_be_bytes());
    out
}

/// An AAC sequence header.
pub fn audio_header(version: u32) -> Vec<u8> {
    let mut out = vec![0xaf, 0, 0x12, 0x10];
    out.extend_from_slice(b"VERS");
    out.extend_from_slice(&version.to_be_bytes());
    out
}

/// onMetaData that speaks of these tracks.
pub fn metadata(video: bool, audio: bool, round: u32) -> Vec<u8> {
    let mut out = Vec::new();
    put::string(&mut out, "onMetaData");
    put::ecma_array(&mut out, 3);
    put::key(&mut out, "round");
    put::number(&mut out, f64::from(round));
    for (there, key, id) in [(video, "videocodecid", 7.0), (audio, "audiocodecid", 10.0)] {
        if there {
            put::key(&mut out, key);
            put::number(&mut out, id);
        }
    }
    put::end(&mut out);
    out
}

/// A frame of `len` bytes that says which one it is.
pub fn frame(head: &[u8], stream: usize, index: usize, len: usize) -> Vec<u8> {
    let len = len.max(FRAME_MIN);
    let mut out = Vec::with_capacity(len);
    let mut word = (index as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ (stream as u64) << 40;
    while out.len() < len {
        word ^= word << 13;
        word ^= word >> 7;
        word ^= word << 17;
        out.extend_from_slice(&word.to_le_bytes());
    }
    out.truncate(len);
    out[..head.len()].copy_from_slice(head);
    out[RECORD_AT..RECORD_AT + 4].copy_from_slice(&RECORD_MAGIC);
    out[RECORD_AT + 4..RECORD_AT + 6].copy_from_slice(&(stream as u16).to_be_bytes());
    out[RECORD_AT + 6..RECORD_AT + 10].copy_from_slice(&(index as u32).to_be_bytes());
    out
}

/// Stream and index of a frame.
fn record(payload: &[u8]) -> Option<(usize, usize)> {
    let record = payload.get(RECORD_AT..RECORD_AT + 10)?;
    if record[..4] != RECORD_MAGIC {
        return None;
    }
    let stream = u16::from_be_bytes([record[4], record[5]]);
    let index = u32::from_be_bytes([record[6], record[7], record[8], record[9]]);
    Some((usize::from(stream), index as usize))
}

/// Distinguishes payloads; not against an adversary.
pub fn hash(bytes: &[u8]) -> u64 {
    let mut hash = bytes.len() as u64 ^ 0xcbf2_9ce4_8422_2325;
    for chunk in bytes.chunks(8) {
        let mut word = [0; 8];
        word[..chunk.len()].copy_from_slice(chunk);
        hash = (hash ^ u64::from_le_bytes(word)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        hash ^= hash >> 29;
    }
    hash
}

/// A message as it was published.
#[derive(Clone, Debug)]
pub struct Sent {
    pub epoch: usize,
    pub kind: Kind,
    pub keyframe: bool,
    /// A sequence header.
    pub header: bool,
    /// The server does not pass it on: it came before the first keyframe of a publisher that
    /// took a stream over.
    pub dropped: bool,
    /// On the epoch's own timeline, ms.
    pub time: i64,
    pub hash: u64,
    /// Versions of the headers (audio, video) a decoder needs for it.
    pub needs: [Option<u32>; 2],
    /// When the server had read it, ns.
    pub accepted_at: Option<u64>,
    /// When a healthy player has it at the latest, ns.
    pub due_at: u64,
    /// Bytes of its payload.
    pub len: usize,
}

/// One publisher's stay.
#[derive(Clone, Debug)]
pub struct Epoch {
    /// Which log of the stream it wrote: a hold that was not over goes on with the same one.
    pub log: u32,
    pub has_video: bool,
    /// From its timeline to the stream's, once somebody has seen it, ms.
    pub shift: Option<i64>,
    /// It has come to an end.
    pub over: bool,
    first: usize,
    /// Index in the ledger of the first message of the server's stream object's count 0.
    counted_from: u64,
    stream_id: u64,
    timeline: Timeline,
    until_keyframe: bool,
    codec_headers: [bool; 2],
}

/// All that was published to one stream.
#[derive(Debug)]
pub struct Ledger {
    pub sent: Vec<Sent>,
    pub epochs: Vec<Epoch>,
    /// Header payloads by hash: their version.
    versions: HashMap<u64, (Kind, u32)>,
    /// Latest headers in the log (audio, video), and whether it has had video.
    headers: [Option<u32>; 2],
    seen_video: bool,
    resumed_before: u64,
    link: Link,
    /// When a healthy player has everything accepted so far at the latest, ns.
    all_due_at: u64,
}

/// What the way from the server to a healthy player is good for: a message is there `delay` ns
/// after the server had it, and its bytes and those before it take their time on top of that.
#[derive(Clone, Copy, Debug)]
pub struct Link {
    /// Longest time from a message's arrival at the server to its first byte at a player, ns.
    pub delay: u64,
    /// Bytes per second.
    pub rate: u64,
}

impl Ledger {
    pub fn new(link: Link) -> Ledger {
        Ledger {
            sent: Vec::new(),
            epochs: Vec::new(),
            versions: HashMap::new(),
            headers: [None; 2],
            seen_video: false,
            resumed_before: 0,
            link,
            all_due_at: 0,
        }
    }

    /// A publisher was told that it publishes. `count` and `resumed` are the server's.
    pub fn begin(&mut self, stream_id: u64, count: u64, resumed: u64) -> usize {
        let again = self.epochs.last().is_some_and(|e| e.stream_id == stream_id);
        let before = if again { self.resumed_before } else { 0 };
        let resumes = resumed > before;
        self.resumed_before = resumed;
        let log = match self.epochs.last_mut() {
            Some(last) => {
                last.over = true;
                if resumes { last.log } else { last.log + 1 }
            }
            None => 0,
        };
        if !resumes {
            self.headers = [None; 2];
            self.seen_video = false;
        }
        self.epochs.push(Epoch {
            log,
            has_video: false,
            shift: (!resumes).then_some(0),
            over: false,
            first: self.sent.len(),
            counted_from: count,
            stream_id,
            timeline: Timeline::new(),
            until_keyframe: resumes && self.seen_video,
            codec_headers: [false; 2],
        });
        self.epochs.len() - 1
    }

    /// Notes a header that is written now.
    pub fn header(&mut self, kind: Kind, wire: u32, payload: &[u8], version: u32) {
        let track = usize::from(kind == Kind::Video);
        self.headers[track] = Some(version);
        self.versions.insert(hash(payload), (kind, version));
        let epoch = self.epochs.last_mut().expect("an epoch has begun");
        epoch.codec_headers[track] = true;
        if track == 1 {
            self.seen_video = true;
            epoch.has_video = true;
        }
        let time = epoch.timeline.map_header(wire);
        self.sent.push(Sent {
            epoch: self.epochs.len() - 1,
            kind,
            keyframe: false,
            header: true,
            dropped: false,
            time,
            hash: hash(payload),
            needs: [None; 2],
            accepted_at: None,
            due_at: 0,
            len: payload.len(),
        });
    }

    /// Notes a frame that is written now; its index was the number of messages before it.
    pub fn frame(&mut self, kind: Kind, wire: u32, payload: &[u8], keyframe: bool) {
        let number = self.epochs.len() - 1;
        let epoch = self.epochs.last_mut().expect("an epoch has begun");
        let video = kind == Kind::Video;
        epoch.has_video |= video;
        self.seen_video |= video;
        let dropped = video && epoch.until_keyframe && !keyframe;
        if video && !dropped {
            epoch.until_keyframe = false;
        }
        let time = if dropped { 0 } else { epoch.timeline.map(wire).dts };
        let mut needs = [None; 2];
        let track = usize::from(video);
        if epoch.codec_headers[track] {
            needs[track] = self.headers[track];
        }
        self.sent.push(Sent {
            epoch: number,
            kind,
            keyframe,
            header: false,
            dropped,
            time,
            hash: hash(payload),
            needs,
            accepted_at: None,
            due_at: 0,
            len: payload.len(),
        });
    }

    /// Takes over how many messages of the stream the server has read.
    pub fn accept(&mut self, stream_id: u64, count: u64, now: u64) {
        let Some(epoch) = self.epochs.last() else { return };
        if epoch.stream_id != stream_id {
            return;
        }
        let first = epoch.first;
        let upto = first + count.saturating_sub(epoch.counted_from) as usize;
        let upto = upto.min(self.sent.len());
        let new = self.sent[first..upto].iter().rposition(|sent| sent.accepted_at.is_some());
        let new = first + new.map_or(0, |last| last + 1);
        for sent in &mut self.sent[new..upto.max(new)] {
            sent.accepted_at = Some(now);
            let transfer = sent.len as u64 * 1_000_000_000 / self.link.rate;
            self.all_due_at = self.all_due_at.max(now + self.link.delay) + transfer;
            sent.due_at = self.all_due_at;
        }
    }

    /// The last frame that players have to have seen at that time, ns. A log may have ended before
    /// players were done with the one before; then it does not count.
    pub fn last_frame(&self, now: u64) -> Option<usize> {
        let there = |s: &Sent| s.is_for_players() && s.due_at < now;
        let last = self.sent.iter().rposition(there)?;
        let log = self.log_of(last);
        let of_log = |s: &&Sent| self.epochs[s.epoch].log == log;
        let first_at = self.sent.iter().find(of_log)?.accepted_at?;
        (self.sent[last].accepted_at? > first_at + 2_000_000_000).then_some(last)
    }

    /// Frames of the same log strictly between two that players have to see.
    pub fn missing(&self, after: usize, before: usize) -> usize {
        let log = self.epochs[self.sent[before].epoch].log;
        self.sent[after + 1..before]
            .iter()
            .filter(|s| s.is_for_players() && self.epochs[s.epoch].log == log)
            .count()
    }

    /// What was published around a message, for people.
    pub fn around(&self, index: usize) -> String {
        let range = index.saturating_sub(12)..(index + 4).min(self.sent.len());
        let lines = range.map(|at| {
            let s = &self.sent[at];
            let name = match (s.header, s.keyframe, s.kind) {
                (true, ..) => "header",
                (_, true, _) => "keyframe",
                (.., Kind::Video) => "picture",
                _ => "sound",
            };
            let accepted = s.accepted_at.map(|ns| ns / 1_000_000);
            let (epoch, len, dropped) = (s.epoch, s.len, s.dropped);
            format!("{at}: epoch {epoch} {name} {:?} {len} bytes, {accepted:?} {dropped}", s.kind)
        });
        lines.collect::<Vec<_>>().join("\n")
    }

    pub fn log_of(&self, index: usize) -> u32 {
        self.epochs[self.sent[index].epoch].log
    }

    /// Version of a header payload.
    pub fn version(&self, kind: Kind, payload: &[u8]) -> Option<u32> {
        let (known, version) = self.versions.get(&hash(payload))?;
        (*known == kind).then_some(*version)
    }

    /// The frame a payload is, its bytes compared.
    pub fn find(&self, stream: usize, kind: Kind, payload: &[u8]) -> Result<usize, String> {
        let Some((of, index)) = record(payload) else {
            let head = &payload[..payload.len().min(24)];
            return Err(format!("{kind:?} of {} bytes is no frame: {head:02x?}", payload.len()));
        };
        if of != stream {
            return Err(format!("a frame of stream {of} on stream {stream}"));
        }
        let Some(sent) = self.sent.get(index) else {
            return Err(format!("frame {index} was never published"));
        };
        if sent.hash != hash(payload) || sent.kind != kind || sent.len != payload.len() {
            return Err(format!("frame {index} was altered ({kind:?}, {} bytes)", payload.len()));
        }
        if !sent.is_for_players() {
            return Err(format!("frame {index} is not for players: {sent:?}"));
        }
        Ok(index)
    }
}

impl Sent {
    pub fn is_for_players(&self) -> bool {
        !self.header && !self.dropped && self.accepted_at.is_some()
    }
}

//! FLV files: tags with a time base of their own, behind metadata that says how long the file is
//! and where its keyframes are.
//!
//! ```text
//! header | onMetaData { ..., duration, filesize, keyframes, spacer } | sequence headers | tags ...
//! ```
//! Duration and index are known at the end only, so room is left for them: `spacer` is as long as
//! what is not used of it. An index that is full is thinned out, which makes seeking coarser and
//! nothing else. A file whose writing was cut off plays up to its last whole tag.

use super::amf0::{Reader, put};
use super::flv::{self, FILE_HEADER_BYTES, TAG_HEAD_BYTES, TAG_TAIL_BYTES};
use super::rtmp::metadata::ON_METADATA;
use crate::limits;
use crate::media::Kind;
use crate::media::tag::{self, TagKind};

/// What is written of a file so far.
#[derive(Debug)]
pub struct FlvFile {
    /// Properties of the publisher's metadata, keys and values.
    properties: Vec<u8>,
    /// How many they are.
    count: u32,
    /// Bytes of the metadata tag's body, index and spacer included.
    room: usize,
    index: Index,
    /// Stream time of the file's beginning, ms.
    base_ms: i64,
    /// Time of the newest tag in the file, ms.
    last_ms: u32,
    audio: bool,
    video: bool,
}

/// Bytes of the file to be overwritten, and where.
pub type Patch = (u64, Vec<u8>);

/// Keyframes: time in ms and place.
#[derive(Debug)]
struct Index {
    entries: Vec<(u32, u64)>,
    most: usize,
    /// Every how many keyframes one is taken.
    step: u32,
    /// Keyframes left out since the last one.
    left_out: u32,
}

impl Index {
    fn add(&mut self, ms: u32, at: u64) {
        self.left_out += 1;
        if self.left_out < self.step && !self.entries.is_empty() {
            return;
        }
        self.left_out = 0;
        if self.entries.len() == self.most {
            let mut number = 0;
            self.entries.retain(|_| {
                number += 1;
                number % 2 == 1
            });
            self.step *= 2;
        }
        self.entries.push((ms, at));
    }
}

/// Properties that only the file itself can state.
const OWN: [&[u8]; 8] = [
    b"duration",
    b"filesize",
    b"lasttimestamp",
    b"lastkeyframetimestamp",
    b"hasKeyframes",
    b"keyframes",
    b"spacer",
    b"spacer_end",
];

impl FlvFile {
    /// Begins a file at a stream time, ms. `metadata` is a message that begins with its name; room
    /// is left for `index` keyframes. Writes what comes before the sequence headers.
    pub fn begin(out: &mut Vec<u8>, metadata: Option<&[u8]>, index: usize, base_ms: i64) -> Self {
        let (properties, count) = metadata.map(properties).unwrap_or_default();
        let most = index.clamp(2, limits::RECORD_INDEX_MAX);
        let mut file = FlvFile {
            properties,
            count,
            room: 0,
            index: Index { entries: Vec::new(), most, step: 1, left_out: 0 },
            base_ms,
            last_ms: 0,
            audio: false,
            video: false,
        };
        file.room = file.metadata(0, true).len() + most * INDEX_ENTRY_BYTES + SPACER_BYTES;
        out.extend_from_slice(&flv::file_header(true, true));
        flv::write_tag(out, Kind::Data, 0, &file.filled(0));
        file
    }

    /// Goes on with a file that was begun like that, behind its last tag. `head` are its bytes up
    /// to the end of the metadata tag.
    pub fn resume(head: &[u8]) -> Option<FlvFile> {
        let body = metadata_body(head)?;
        let (properties, count) = properties(body);
        let mut file = FlvFile {
            properties,
            count,
            room: body.len(),
            index: Index { entries: Vec::new(), most: 0, step: 1, left_out: 0 },
            base_ms: 0,
            last_ms: 0,
            audio: false,
            video: false,
        };
        let free = file.room.checked_sub(file.metadata(0, true).len() + SPACER_BYTES)?;
        file.index.most = (free / INDEX_ENTRY_BYTES).min(limits::RECORD_INDEX_MAX);
        (file.index.most >= 2).then_some(file)
    }

    /// The time base is such that stream time `at_ms` is right behind what there is.
    pub fn continue_at(&mut self, at_ms: i64) {
        self.base_ms = at_ms - i64::from(self.last_ms) - 1;
    }

    /// Time of the newest tag in the file, ms.
    pub fn last_ms(&self) -> u32 {
        self.last_ms
    }

    /// The head of a tag at a stream time, ms, whose body has `len` bytes, for place `at` of the
    /// file.
    pub fn tag(
        &mut self,
        kind: Kind,
        time_ms: i64,
        len: u32,
        keyframe: bool,
        at: u64,
    ) -> [u8; TAG_HEAD_BYTES] {
        let ms = u32::try_from((time_ms - self.base_ms).max(0)).unwrap_or(u32::MAX);
        self.note(kind, ms, keyframe, at);
        flv::tag_head(kind, ms, len)
    }

    /// Notes a tag that is there: its time in the file, and where it begins.
    pub fn note(&mut self, kind: Kind, ms: u32, keyframe: bool, at: u64) {
        self.last_ms = self.last_ms.max(ms);
        match kind {
            Kind::Audio => self.audio = true,
            Kind::Video => self.video = true,
            Kind::Data => {}
        }
        if keyframe {
            self.index.add(ms, at);
        }
    }

    /// What is to be written over the beginning of a file of `len` bytes that is whole.
    pub fn finish(&self, len: u64) -> Vec<Patch> {
        let header = flv::file_header(self.audio, self.video).to_vec();
        vec![(0, header), ((FILE_HEADER_BYTES + TAG_HEAD_BYTES) as u64, self.filled(len))]
    }

    /// The metadata with a spacer that makes it as long as its room: numbers and a short text,
    /// because some readers take no long texts.
    fn filled(&self, len: u64) -> Vec<u8> {
        // Readers warn of an index without entries: audio alone has none.
        let mut body = self.metadata(len, !self.index.entries.is_empty());
        let end = body.split_off(body.len() - OBJECT_END_BYTES);
        let free = self.room.saturating_sub(body.len() + SPACER_BYTES + OBJECT_END_BYTES);
        let (numbers, blanks) = (free / NUMBER_BYTES, free % NUMBER_BYTES);
        put::key(&mut body, "spacer");
        put::strict_array(&mut body, numbers as u32);
        (0..numbers).for_each(|_| put::number(&mut body, 0.0));
        put::key(&mut body, "spacer_end");
        put::string(&mut body, &" ".repeat(blanks));
        body.extend_from_slice(&end);
        body
    }

    fn metadata(&self, len: u64, with_index: bool) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.room.max(self.properties.len() + 256));
        put::string(&mut out, ON_METADATA);
        put::ecma_array(&mut out, self.count + OWN.len() as u32 - u32::from(!with_index));
        out.extend_from_slice(&self.properties);
        let seconds = |ms: u32| f64::from(ms) / 1000.0;
        let keyframes = &self.index.entries;
        for (key, number) in [
            ("duration", seconds(self.last_ms)),
            ("filesize", len as f64),
            ("lasttimestamp", seconds(self.last_ms)),
            ("lastkeyframetimestamp", keyframes.last().map_or(0.0, |(ms, _)| seconds(*ms))),
        ] {
            put::key(&mut out, key);
            put::number(&mut out, number);
        }
        put::key(&mut out, "hasKeyframes");
        put::boolean(&mut out, !keyframes.is_empty());
        if with_index {
            put::key(&mut out, "keyframes");
            put::object(&mut out);
            put::key(&mut out, "filepositions");
            put::strict_array(&mut out, keyframes.len() as u32);
            keyframes.iter().for_each(|(_, at)| put::number(&mut out, *at as f64));
            put::key(&mut out, "times");
            put::strict_array(&mut out, keyframes.len() as u32);
            keyframes.iter().for_each(|(ms, _)| put::number(&mut out, seconds(*ms)));
            put::end(&mut out);
        }
        put::end(&mut out);
        out
    }
}

/// Bytes of a number.
const NUMBER_BYTES: usize = 9;
/// Bytes of an index entry: two numbers.
const INDEX_ENTRY_BYTES: usize = 2 * NUMBER_BYTES;
/// Bytes of an empty spacer: keys and lengths of its two parts.
const SPACER_BYTES: usize = (2 + 6 + 5) + (2 + 10 + 3);
/// Bytes of the mark behind an object.
const OBJECT_END_BYTES: usize = 3;

/// The properties of metadata that are not the file's own, and how many they are.
fn properties(metadata: &[u8]) -> (Vec<u8>, u32) {
    let (mut out, mut count) = (Vec::new(), 0);
    let mut reader = Reader::new(metadata);
    if reader.raw_string().is_err() || reader.open_object().is_err() {
        return (out, count);
    }
    while let Ok(Some(key)) = reader.property_key() {
        let Ok(value) = reader.skip() else { break };
        if !OWN.contains(&key) && out.len() + value.len() <= limits::RTMP_DATA_MAX as usize {
            put::raw_key(&mut out, key);
            out.extend_from_slice(value);
            count += 1;
        }
    }
    (out, count)
}

/// The body of the metadata tag at the beginning of a file; `None` when there is none.
pub fn metadata_body(head: &[u8]) -> Option<&[u8]> {
    let tag = head.get(FILE_HEADER_BYTES..)?;
    let (kind, _, len) = tag_head(tag)?;
    let body = tag.get(TAG_HEAD_BYTES..TAG_HEAD_BYTES + len as usize)?;
    (head.starts_with(b"FLV") && kind == Kind::Data).then_some(body)
}

/// Kind, time in ms and length of the body of the tag that begins here.
pub fn tag_head(bytes: &[u8]) -> Option<(Kind, u32, u32)> {
    let head: &[u8; TAG_HEAD_BYTES] = bytes.first_chunk()?;
    let kind = [Kind::Audio, Kind::Video, Kind::Data]
        .into_iter()
        .find(|kind| kind.type_id() == head[0])?;
    let len = u32::from_be_bytes([0, head[1], head[2], head[3]]);
    Some((kind, u32::from_be_bytes([head[7], head[4], head[5], head[6]]), len))
}

/// What a player needs before a tag from the midst of a file: file header, metadata and the newest
/// sequence headers of `head`, which is the beginning of the file, at most up to that tag. Their
/// time is zero.
///
/// # Errors
/// The file is no FLV.
pub fn lead_in(head: &[u8]) -> Result<Vec<u8>, flv::Error> {
    let mut reader = flv::TagReader::new();
    let mut input = head;
    let (mut metadata, mut video, mut audio) = (None, None, None);
    while let Some(tag) = reader.poll(&mut input)? {
        let place = match tag.kind {
            Kind::Data if metadata.is_none() => &mut metadata,
            Kind::Video if is_header(tag::video(tag.body).map(|tag| tag.kind)) => &mut video,
            Kind::Audio if is_header(tag::audio(tag.body).map(|tag| tag.kind)) => &mut audio,
            _ => continue,
        };
        *place = Some((tag.kind, tag.body.to_vec()));
    }
    let (has_audio, has_video) = reader.flags().ok_or(flv::Error::Malformed("no FLV signature"))?;
    let mut out = flv::file_header(has_audio, has_video).to_vec();
    for (kind, body) in [metadata, video, audio].into_iter().flatten() {
        flv::write_tag(&mut out, kind, 0, &body);
    }
    Ok(out)
}

fn is_header(kind: Result<TagKind, tag::TagError>) -> bool {
    matches!(kind, Ok(TagKind::SequenceHeader))
}

/// True when a tag begins behind these fifteen bytes' first four: they state the size of the tag
/// before, `before` bytes of which (its head) are at the place that they lead to.
pub fn is_tag(bytes: &[u8; TAG_FRAME_BYTES], before: &[u8; TAG_HEAD_BYTES]) -> bool {
    let [s0, s1, s2, s3, head @ ..] = bytes;
    let size = u32::from_be_bytes([*s0, *s1, *s2, *s3]);
    let fits = |(_, _, len): (Kind, u32, u32)| len + TAG_HEAD_BYTES as u32 == size;
    tag_head(head).is_some() && tag_head(before).is_some_and(fits)
}

/// Bytes of a tag beside its body.
pub const TAG_FRAME_BYTES: usize = TAG_HEAD_BYTES + TAG_TAIL_BYTES;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::amf0::{Object, Value};

    fn metadata() -> Vec<u8> {
        let mut out = Vec::new();
        put::string(&mut out, ON_METADATA);
        let object = vec![
            ("width".to_owned(), Value::Number(1280.0)),
            ("duration".to_owned(), Value::Number(7.0)),
            ("encoder".to_owned(), Value::String("x".into())),
        ];
        Value::Object(Object(object)).put(&mut out);
        out
    }

    fn read(file: &[u8]) -> Object {
        let body = metadata_body(file).expect("a metadata tag");
        let mut reader = Reader::new(body);
        assert_eq!(reader.string().unwrap(), ON_METADATA);
        let value = reader.value().unwrap();
        assert!(reader.is_empty());
        value.as_object().unwrap().clone()
    }

    /// Writes keyframes a second apart, with index room for so many.
    fn file(keyframes: u32, room: usize) -> (Vec<u8>, FlvFile) {
        let mut bytes = Vec::new();
        let mut file = FlvFile::begin(&mut bytes, Some(&metadata()), room, 5_000);
        for n in 0..keyframes {
            let at = bytes.len() as u64;
            let head = file.tag(Kind::Video, 5_000 + i64::from(n) * 1000, 3, true, at);
            bytes.extend_from_slice(&head);
            bytes.extend_from_slice(b"\x17\x01x");
            bytes.extend_from_slice(&flv::previous_tag_size(3));
        }
        for (at, patch) in file.finish(bytes.len() as u64) {
            bytes[at as usize..at as usize + patch.len()].copy_from_slice(&patch);
        }
        (bytes, file)
    }

    #[test]
    fn metadata_tells_duration_size_and_keyframes() {
        for (keyframes, room) in [(0, 10), (1, 10), (10, 10), (11, 10), (5_000, 300)] {
            let (bytes, _) = file(keyframes, room);
            let found = read(&bytes);
            assert_eq!(found.number("width"), Some(1280.0));
            assert_eq!(found.text("encoder"), Some("x"));
            assert_eq!(found.number("filesize"), Some(bytes.len() as f64));
            let last = f64::from(keyframes.saturating_sub(1));
            assert_eq!(found.number("duration"), Some(last), "once, and the file's own");
            // ffmpeg takes an index without entries for a broken one.
            let index = found.get("keyframes").and_then(Value::as_object);
            assert_eq!(index.is_some(), keyframes > 0);
            let Some(index) = index else { continue };
            let list = |key: &str| match index.get(key) {
                Some(Value::StrictArray(values)) => {
                    values.iter().map(|v| v.as_number().unwrap()).collect::<Vec<_>>()
                }
                other => panic!("{key}: {other:?}"),
            };
            let (times, places) = (list("times"), list("filepositions"));
            assert_eq!(times.len(), places.len());
            assert!(times.len() <= room && times.len() >= room.min(keyframes as usize) / 2);
            for (time, at) in times.iter().zip(&places) {
                let (kind, ms, len) = tag_head(&bytes[*at as usize..]).unwrap();
                assert_eq!((kind, f64::from(ms) / 1000.0, len), (Kind::Video, *time, 3));
            }
            // Evenly spread.
            let steps: Vec<f64> = times.windows(2).map(|w| w[1] - w[0]).collect();
            let most = steps.iter().copied().fold(0.0, f64::max);
            assert!(steps.iter().all(|step| *step >= most / 2.0), "{steps:?}");
        }
    }

    #[test]
    fn a_file_can_be_gone_on_with() {
        let (bytes, file) = file(7, 20);
        let mut again = FlvFile::resume(&bytes).expect("metadata with room");
        assert_eq!(again.room, file.room);
        again.note(Kind::Video, 6_000, true, 777);
        again.continue_at(1_000_000);
        let head = again.tag(Kind::Audio, 1_000_020, 1, false, 800);
        assert_eq!(tag_head(&head), Some((Kind::Audio, 6_021, 1)));
        let patches = again.finish(1234);
        assert_eq!(patches[0].1[..5], *b"FLV\x01\x05");
        assert_eq!(patches[1].1.len(), again.room);
        assert!(FlvFile::resume(b"FLV").is_none());
        assert!(FlvFile::resume(&flv::file_header(true, true)).is_none());
    }

    #[test]
    fn what_comes_before_the_base_is_at_zero() {
        let mut out = Vec::new();
        let mut file = FlvFile::begin(&mut out, None, 5, 100);
        let head = file.tag(Kind::Audio, 90, 1, false, 0);
        assert_eq!(tag_head(&head), Some((Kind::Audio, 0, 1)));
    }

    #[test]
    fn what_comes_before_a_tag_in_the_midst() {
        let mut all = flv::file_header(true, true).to_vec();
        let tags: [(Kind, u32, &[u8]); 6] = [
            (Kind::Data, 0, b"\x02\x00\x0aonMetaData\x08\0\0\0\0\0\0\x09"),
            (Kind::Video, 5, b"\x17\0\0\0\0config"),
            (Kind::Audio, 6, b"\xaf\0\x12\x10"),
            (Kind::Video, 40, b"\x17\x01\0\0\0frame"),
            (Kind::Audio, 46, b"\xaf\x01frame"),
            (Kind::Video, 80, b"\x27\x01\0\0\0frame"),
        ];
        let mut places = Vec::new();
        for (kind, ms, body) in tags {
            places.push(all.len());
            flv::write_tag(&mut all, kind, ms, body);
        }
        let out = lead_in(&all[..places[4]]).unwrap();
        let mut expected = flv::file_header(true, true).to_vec();
        for (kind, _, body) in &tags[..3] {
            flv::write_tag(&mut expected, *kind, 0, body);
        }
        assert_eq!(out, expected);
        // Cut off in the midst of a tag is as good as before it.
        assert_eq!(lead_in(&all[..places[4] - 3]).unwrap(), expected);
        assert!(lead_in(b"").is_err() && lead_in(b"ftyp").is_err());
        assert!(lead_in(&all[20..]).is_err());
        let at = |place: usize| -> bool {
            let bytes = all[place - 4..].first_chunk().unwrap();
            let size = u32::from_be_bytes(*all[place - 4..].first_chunk().unwrap()) as usize;
            let Some(before) = (place - 4).checked_sub(size) else { return false };
            is_tag(bytes, all[before..].first_chunk().unwrap())
        };
        for place in 20..all.len() - 20 {
            assert_eq!(at(place), places.contains(&place), "{place}");
        }
    }
}

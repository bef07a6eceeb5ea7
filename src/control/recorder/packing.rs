//! What a recording is packed in: what goes before, around and behind the messages of a feed.

use crate::hub::{Flags, Format};
use crate::limits;
use crate::media::Kind;
use crate::proto::flv_file::{self, FlvFile, TAG_FRAME_BYTES};
use crate::proto::mp4::file::{self as mp4, Item, Mp4File};
use crate::proto::rtmp::metadata::ON_METADATA;

use super::follow::{Message, Pieces};

/// What a newcomer to a stream needs first: sequence headers and metadata (FLV), or the
/// initialisation segment (MP4). Kept up to date with what has been written.
#[derive(Clone, Debug, Default)]
pub struct Headers {
    metadata: Option<Vec<u8>>,
    audio: Option<Vec<u8>>,
    video: Option<Vec<u8>>,
    /// What a feed that is packed begins with.
    prologue: Vec<u8>,
}

impl Headers {
    /// Takes in what a feed tells newcomers.
    pub fn learn(&mut self, format: Format, prologue: &[u8], messages_at: usize) {
        if format != Format::Flv {
            self.prologue = prologue.to_vec();
            return;
        }
        let mut rest = prologue.get(messages_at..).unwrap_or_default();
        while let Some((kind, _, len)) = flv_file::tag_head(rest) {
            let Some(body) = rest.get(11..11 + len as usize) else { break };
            *self.slot(kind) = Some(body.to_vec());
            rest = rest.get(len as usize + TAG_FRAME_BYTES..).unwrap_or_default();
        }
    }

    /// True when a file with these headers cannot go on with messages that need the others.
    pub fn differ(&self, format: Format, others: &Headers) -> bool {
        match format {
            Format::Flv => self.audio != others.audio || self.video != others.video,
            Format::Fmp4 => self.prologue != others.prologue,
            // Its tables are in the stream.
            _ => false,
        }
    }

    fn slot(&mut self, kind: Kind) -> &mut Option<Vec<u8>> {
        match kind {
            Kind::Audio => &mut self.audio,
            Kind::Video => &mut self.video,
            Kind::Data => &mut self.metadata,
        }
    }
}

/// How a file is to be begun.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// The format.
    pub format: Format,
    /// Times begin at 0.
    pub rebased: bool,
    /// MP4: one index for all at the end.
    pub whole: bool,
    /// Length that files are meant to have, ms, where they have one.
    pub duration_ms: Option<i64>,
}

/// A file as its format sees it.
#[derive(Debug)]
pub enum Packing {
    /// FLV.
    Flv(Box<FlvFile>),
    /// MPEG-TS.
    Ts,
    /// MP4.
    Mp4(Box<Mp4File>),
}

/// Stream time of the earliest frame, ms. Headers may be much older.
pub fn earliest(messages: &[Message]) -> i64 {
    let frames = messages.iter().filter(|message| message.is_frame());
    let time = frames.map(|message| message.time).min();
    time.or(messages.first().map(|message| message.time)).unwrap_or(0)
}

/// What became of a message.
#[derive(Debug, PartialEq, Eq)]
pub enum Put {
    /// It was added, or nothing of it has to be.
    Done,
    /// It does not belong into this file: another one has to be begun.
    Cut,
}

impl Packing {
    /// Begins a file whose first messages are these. `None`: the stream cannot be packed so.
    pub fn begin(
        plan: Plan,
        headers: &Headers,
        first: &[Message],
        pieces: &mut Pieces,
    ) -> Option<Packing> {
        let base = earliest(first);
        let mut head = Vec::new();
        let packing = match plan.format {
            Format::Fmp4 => {
                let init = newest_init(first).and_then(|at| init_in(first.get(at)?));
                let init = init.unwrap_or(&headers.prologue);
                let mut file = Mp4File::begin(&mut head, init, 0, plan.whole).ok()?;
                if plan.rebased {
                    let times = first.iter().filter_map(sample_of);
                    let ticks = times.map(|(_, sample)| file.ticks_of(&sample));
                    file.set_base(ticks.min().unwrap_or(base * 90));
                }
                Packing::Mp4(Box::new(file))
            }
            // Its tables are in the stream, where a file may begin.
            Format::Ts => Packing::Ts,
            _ => {
                let keyframes = plan.duration_ms.map_or(limits::RECORD_INDEX_MAX, |ms| {
                    (ms / 1000 * 2 + 16).clamp(16, limits::RECORD_INDEX_MAX as i64) as usize
                });
                let base = if plan.rebased { base } else { 0 };
                let metadata = headers.metadata.as_deref();
                let mut file = FlvFile::begin(&mut head, metadata, keyframes, base);
                write_headers(&mut file, headers, &mut head, base);
                Packing::Flv(Box::new(file))
            }
        };
        pieces.own(&head);
        Some(packing)
    }

    /// Goes on with an FLV file, after its newest tag, with this message.
    pub fn go_on(
        mut file: FlvFile,
        headers: &Headers,
        first: &[Message],
        pieces: &mut Pieces,
    ) -> Packing {
        let base = earliest(first);
        file.continue_at(base);
        let mut head = Vec::new();
        write_headers(&mut file, headers, &mut head, base);
        pieces.own(&head);
        Packing::Flv(Box::new(file))
    }

    /// Adds a message; `at` is where the file ends without what `pieces` has. What an `old` message
    /// says of the tracks is out of date.
    pub fn put(
        &mut self,
        headers: &mut Headers,
        message: &Message,
        old: bool,
        at: u64,
        pieces: &mut Pieces,
    ) -> Put {
        let place = at + pieces.len() as u64;
        match self {
            Packing::Ts => pieces.shared(message, 0),
            Packing::Flv(file) => {
                let body_len = message.len.saturating_sub(TAG_FRAME_BYTES);
                let kind = message.flags.kind();
                // A header or metadata fits into a block, so all of it is at hand.
                let keeps = kind == Kind::Data || message.flags.has(Flags::SEQUENCE_HEADER);
                if keeps {
                    let Some(body) = message.head().get(11..11 + body_len) else {
                        return Put::Done;
                    };
                    let other = kind == Kind::Data && !is_metadata(body);
                    let slot = headers.slot(kind);
                    // The file's beginning has it already.
                    if !other && slot.as_deref() == Some(body) {
                        return Put::Done;
                    }
                    if !other {
                        *slot = Some(body.to_vec());
                    }
                }
                let keyframe = message.flags.has(Flags::KEYFRAME);
                let head = file.tag(kind, message.time, body_len as u32, keyframe, place);
                // With the stream's own time it is the tag as it lies in the feed.
                if message.head().starts_with(&head) {
                    pieces.shared(message, 0);
                } else {
                    pieces.own(&head);
                    pieces.shared(message, head.len());
                }
            }
            Packing::Mp4(file) => {
                if let Some(init) = init_in(message).filter(|_| !old) {
                    if !file.begins_with(init) {
                        return Put::Cut;
                    }
                    headers.prologue = init.to_vec();
                }
                let may_begin = message.flags.has(Flags::KEYFRAME) || !file.has_video();
                if file.is_full() && may_begin {
                    return Put::Cut;
                }
                let Some((skip, sample)) = sample_of(message) else { return Put::Done };
                let dts = file.time_of(&sample);
                let head = sample.head_with_time(&message.head()[skip..], dts);
                file.note(&sample, dts, place + head.len() as u64);
                pieces.own(&head);
                pieces.shared(message, skip + sample.data_at());
            }
        }
        Put::Done
    }

    /// True when a file without pictures may begin with a frame of these flags.
    pub fn is_self_contained(&self, flags: Flags) -> bool {
        !matches!(self, Packing::Ts) || flags.has(Flags::KEYFRAME)
    }

    /// What goes behind a file of that many bytes, and then what is written over its beginning.
    pub fn finish(&self, len: u64) -> (Vec<u8>, Vec<flv_file::Patch>) {
        match self {
            Packing::Ts => Default::default(),
            Packing::Flv(file) => (Vec::new(), file.finish(len)),
            Packing::Mp4(file) => match file.finish(len) {
                Some((tail, patch)) => (tail, vec![patch]),
                None => Default::default(),
            },
        }
    }
}

fn is_metadata(body: &[u8]) -> bool {
    body.get(3..).is_some_and(|name| name.starts_with(ON_METADATA.as_bytes()))
}

fn write_headers(file: &mut FlvFile, headers: &Headers, out: &mut Vec<u8>, base: i64) {
    for (kind, body) in [(Kind::Audio, &headers.audio), (Kind::Video, &headers.video)] {
        let Some(body) = body else { continue };
        let at = out.len() as u64;
        out.extend_from_slice(&file.tag(kind, base, body.len() as u32, false, at));
        out.extend_from_slice(body);
        out.extend_from_slice(&crate::proto::flv::previous_tag_size(body.len() as u32));
    }
}

/// The initialisation segment in front of a message.
fn init_in(message: &Message) -> Option<&[u8]> {
    match mp4::read(message.head()) {
        Ok(Item::Init(len)) => message.head().get(..len),
        _ => None,
    }
}

/// Place of the message whose initialisation segment a file of these messages has to begin with.
/// Usually the first has it; codecs that tell their size in pictures only have another one in front
/// of the first picture, with audio frames before it.
pub fn newest_init(first: &[Message]) -> Option<usize> {
    let is_picture = |message: &Message| message.is_frame() && message.flags.has(Flags::VIDEO);
    let picture = first.iter().position(is_picture);
    let has_init = |at: &usize| first.get(*at).and_then(init_in).is_some();
    picture.filter(has_init).or(Some(0).filter(has_init))
}

/// The sample of a message, and how many bytes of others are in front of it.
fn sample_of(message: &Message) -> Option<(usize, mp4::Sample)> {
    let skip = init_in(message).map_or(0, <[u8]>::len);
    match mp4::read(message.head().get(skip..)?) {
        Ok(Item::Fragment(sample)) => Some((skip, sample)),
        _ => None,
    }
}

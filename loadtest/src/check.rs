//! What a correct player must see. One [`Checker`] per verified player, fed with every message.
//!
//! A *skip* is what a server may do to a player that cannot keep up: messages are missing and play
//! goes on at a keyframe. Everything else that differs from what was published is an *error*: a gap
//! inside a GOP, a repeated or reordered message, altered bytes, a timestamp that goes back.

use std::collections::HashMap;
use std::sync::Arc;

use serde::Serialize;

use crate::media::{FlvFile, Kind, is_keyframe, is_sequence_header};
use crate::record::{Found, Record, hash};

/// What one or many verified players saw.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// Audio, video and data messages.
    pub messages: u64,
    /// Their payload bytes.
    pub bytes: u64,
    /// Messages whose content was checked: by their record, or against the reference file.
    pub checked: u64,
    /// Times messages were missing and play went on at a keyframe.
    pub skips: u64,
    /// How many messages were missing at skips.
    pub skipped_messages: u64,
    /// Times a new life of the publisher was seen in mid-play.
    pub republished: u64,
    /// First video message was not a keyframe (allowed: the server has no GOP cache).
    pub joined_mid_gop: u64,
    /// Error: messages missing and play went on inside a GOP.
    pub gaps: u64,
    /// Error: a message came again or too late.
    pub reordered: u64,
    /// Error: the payload differs from what was published.
    pub altered: u64,
    /// Error: a message of another stream.
    pub foreign: u64,
    /// Error: a timestamp before its predecessor's.
    pub timestamp_back: u64,
    /// Error: the distance to the publisher's timestamps changed in mid-play.
    pub timestamp_shifted: u64,
    /// Error: media without a record in a generated stream.
    pub unmarked: u64,
    /// Error: a playlist or a segment is not as its specification wants it (HLS).
    pub rules_broken: u64,
}

impl Counts {
    /// Sum of everything a server must never do.
    pub fn errors(&self) -> u64 {
        self.gaps
            + self.reordered
            + self.altered
            + self.foreign
            + self.timestamp_back
            + self.timestamp_shifted
            + self.unmarked
            + self.rules_broken
    }

    /// Adds another player's counts.
    pub fn add(&mut self, o: &Counts) {
        self.messages += o.messages;
        self.bytes += o.bytes;
        self.checked += o.checked;
        self.skips += o.skips;
        self.skipped_messages += o.skipped_messages;
        self.republished += o.republished;
        self.joined_mid_gop += o.joined_mid_gop;
        self.gaps += o.gaps;
        self.reordered += o.reordered;
        self.altered += o.altered;
        self.foreign += o.foreign;
        self.timestamp_back += o.timestamp_back;
        self.timestamp_shifted += o.timestamp_shifted;
        self.unmarked += o.unmarked;
        self.rules_broken += o.rules_broken;
    }
}

/// What the checker knows of the content.
#[derive(Clone, Debug)]
pub enum Content {
    /// Nobody said: messages with records are checked by them, others only for their timestamps.
    Unknown,
    /// A generated stream of this number: every frame has a record of it.
    Generated {
        /// The stream's number; `None` when any will do.
        stream: Option<u32>,
    },
    /// A file, published in a loop.
    File(Arc<Reference>),
}

/// The order of a file's messages by their hashes.
#[derive(Debug)]
pub struct Reference {
    order: Vec<(u64, bool)>,
    places: HashMap<u64, Vec<u32>>,
}

impl Reference {
    /// Indexes a file.
    pub fn new(file: &FlvFile) -> Reference {
        let mut order = Vec::new();
        let mut places: HashMap<u64, Vec<u32>> = HashMap::new();
        for tag in file.tags.iter().filter(|t| compared(t.kind, &t.payload)) {
            let key = hash(tag.kind as u64, &tag.payload);
            places.entry(key).or_default().push(order.len() as u32);
            order.push((key, tag.kind == Kind::Video && is_keyframe(&tag.payload)));
        }
        Reference { order, places }
    }

    /// Messages to pass over to get from the one expected at `at` to one with this hash.
    fn distance(&self, at: u32, key: u64) -> Option<u32> {
        let n = self.order.len() as u32;
        let places = self.places.get(&key)?;
        places.iter().map(|&p| (p + n - at) % n).min()
    }
}

/// Servers may rewrite metadata and repeat sequence headers: only frames are compared.
fn compared(kind: Kind, payload: &[u8]) -> bool {
    kind != Kind::Data && !is_sequence_header(kind, payload)
}

/// The state of one verified player.
#[derive(Clone, Debug)]
pub struct Checker {
    content: Content,
    counts: Counts,
    last_timestamp: Option<u32>,
    /// Where the stream is: of records, epoch, next number and timestamp distance.
    position: Option<Position>,
    /// Of a file: place of the message expected next.
    next_in_file: Option<u32>,
    video_seen: bool,
    /// No video message came before this one.
    joining: bool,
}

#[derive(Clone, Copy, Debug)]
struct Position {
    stream: u32,
    epoch: u32,
    next: u32,
    shift: u32,
}

impl Checker {
    /// A checker for a player that just connected.
    pub fn new(content: Content) -> Checker {
        Checker {
            content,
            counts: Counts::default(),
            last_timestamp: None,
            position: None,
            next_in_file: None,
            video_seen: false,
            joining: true,
        }
    }

    /// What was seen so far.
    pub fn counts(&self) -> &Counts {
        &self.counts
    }

    /// Checks one message. Returns the record when it had one that is sound, so that the caller
    /// can measure the latency.
    pub fn message(&mut self, kind: Kind, timestamp: u32, payload: &[u8]) -> Option<Record> {
        self.counts.messages += 1;
        self.counts.bytes += payload.len() as u64;
        if !compared(kind, payload) {
            // Sequence headers and metadata are sent to newcomers with the time of the stream's
            // start or of the first frame: their timestamps are no promise.
            return None;
        }
        if self.last_timestamp.is_some_and(|last| (timestamp.wrapping_sub(last) as i32) < 0) {
            self.counts.timestamp_back += 1;
        }
        self.last_timestamp = Some(timestamp);
        self.joining = !self.video_seen;
        if kind == Kind::Video && !self.video_seen {
            self.video_seen = true;
            self.counts.joined_mid_gop += u64::from(!is_keyframe(payload));
        }
        if let Content::File(reference) = &self.content {
            let reference = reference.clone();
            self.in_file(&reference, kind, payload);
            return None;
        }
        self.by_record(Record::find(payload), kind, timestamp)
    }

    /// Checks a frame that came in a segment, by its record alone: containers tell times in their
    /// own way.
    pub fn frame(&mut self, found: Found) -> Option<Record> {
        self.counts.messages += 1;
        let Found::Good(record) = found else { return self.by_record(found, Kind::Data, 0) };
        self.joining = !self.video_seen;
        if record.kind == Kind::Video && !self.video_seen {
            self.video_seen = true;
            self.counts.joined_mid_gop += u64::from(!record.keyframe);
        }
        self.by_record(found, record.kind, record.timestamp)
    }

    /// A playlist or a container breaks a rule.
    pub fn rule_broken(&mut self) {
        self.counts.rules_broken += 1;
    }

    fn by_record(&mut self, found: Found, kind: Kind, timestamp: u32) -> Option<Record> {
        match found {
            Found::Good(record) => {
                self.counts.checked += 1;
                self.in_order(&record, kind, timestamp);
                Some(record)
            }
            Found::Altered(_) => {
                self.counts.altered += 1;
                None
            }
            Found::None => {
                let expected = matches!(self.content, Content::Generated { .. });
                self.counts.unmarked += u64::from(expected);
                None
            }
        }
    }

    fn in_order(&mut self, record: &Record, kind: Kind, timestamp: u32) {
        if let Content::Generated { stream: Some(stream) } = self.content
            && stream != record.stream
        {
            self.counts.foreign += 1;
            return;
        }
        if kind != record.kind {
            self.counts.altered += 1;
        }
        let shift = timestamp.wrapping_sub(record.timestamp);
        let here = Position {
            stream: record.stream,
            epoch: record.epoch,
            next: record.seq.wrapping_add(1),
            shift,
        };
        let Some(was) = self.position.replace(here) else { return };
        if was.stream != record.stream {
            self.counts.foreign += 1;
            self.position = Some(was);
            return;
        }
        let missing = if was.epoch == record.epoch {
            if was.shift != shift {
                self.counts.timestamp_shifted += 1;
            }
            record.seq.wrapping_sub(was.next) as i32
        } else {
            self.counts.republished += 1;
            record.seq as i32
        };
        match missing {
            0 => {}
            // Servers without a GOP cache may send audio at once and video from a keyframe on.
            1.. if self.joining => {}
            1.. if record.keyframe => {
                self.counts.skips += 1;
                self.counts.skipped_messages += missing as u64;
            }
            1.. => self.counts.gaps += 1,
            _ => {
                self.counts.reordered += 1;
                self.position = Some(was);
            }
        }
    }

    fn in_file(&mut self, reference: &Reference, kind: Kind, payload: &[u8]) {
        let key = hash(kind as u64, payload);
        let distance = reference.distance(self.next_in_file.unwrap_or(0), key);
        let Some(distance) = distance else {
            self.counts.altered += 1;
            return;
        };
        self.counts.checked += 1;
        let n = reference.order.len() as u32;
        let place = (self.next_in_file.unwrap_or(0) + distance) % n;
        if self.next_in_file.is_some() && distance != 0 && !self.joining {
            if reference.order[place as usize].1 {
                self.counts.skips += 1;
                self.counts.skipped_messages += u64::from(distance);
            } else if distance > n / 2 {
                self.counts.reordered += 1;
                return;
            } else {
                self.counts.gaps += 1;
            }
        }
        self.next_in_file = Some((place + 1) % n);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::media::{GenerateOptions, Generated, Item, Script, Source};

    struct Stream {
        script: Script,
        out: Vec<u8>,
    }

    fn stream(number: u32, epoch: u32) -> Stream {
        let options = GenerateOptions { gop: 0.5, ..GenerateOptions::default() };
        let source = Source::Generated(Arc::new(Generated::new(options)));
        Stream { script: Script::new(&source, number, epoch, 0), out: Vec::new() }
    }

    impl Stream {
        fn next(&mut self) -> (Item, Vec<u8>) {
            let item = self.script.next_item();
            self.script.payload(&item, 1, &mut self.out);
            (item, self.out.clone())
        }

        fn feed(&mut self, checker: &mut Checker, n: usize, shift: u32) {
            for _ in 0..n {
                let (item, payload) = self.next();
                checker.message(item.kind, item.timestamp.wrapping_add(shift), &payload);
            }
        }

        fn skip_to(&mut self, keyframe: bool) -> (Item, Vec<u8>) {
            loop {
                let (item, payload) = self.next();
                if item.keyframe == keyframe && item.kind == Kind::Video {
                    return (item, payload);
                }
            }
        }
    }

    fn checker() -> Checker {
        Checker::new(Content::Generated { stream: Some(4) })
    }

    #[test]
    fn a_whole_stream_is_faultless_even_across_the_wrap() {
        let mut checker = checker();
        stream(4, 1).feed(&mut checker, 2000, u32::MAX - 5000);
        assert_eq!((checker.counts().errors(), checker.counts().skips), (0, 0));
        assert_eq!((checker.counts().checked, checker.counts().joined_mid_gop), (2000, 0));
    }

    #[test]
    fn a_gap_at_a_keyframe_is_a_skip_and_elsewhere_an_error() {
        let (mut checker, mut s) = (checker(), stream(4, 1));
        s.feed(&mut checker, 10, 0);
        let (item, payload) = s.skip_to(true);
        checker.message(item.kind, item.timestamp, &payload);
        assert_eq!((checker.counts().skips, checker.counts().errors()), (1, 0));
        assert!(checker.counts().skipped_messages > 10);
        s.skip_to(false);
        let (item, payload) = s.skip_to(false);
        checker.message(item.kind, item.timestamp, &payload);
        assert_eq!((checker.counts().gaps, checker.counts().errors()), (1, 1));
    }

    #[test]
    fn audio_alone_before_the_first_video_is_a_join_in_mid_gop() {
        let (mut checker, mut s) = (checker(), stream(4, 1));
        for wanted in [Kind::Audio, Kind::Audio, Kind::Audio, Kind::Video] {
            let (item, payload) =
                std::iter::repeat_with(|| s.next()).find(|(i, _)| i.kind == wanted).unwrap();
            checker.message(item.kind, item.timestamp, &payload);
        }
        assert_eq!((checker.counts().errors(), checker.counts().skips), (0, 0));
        s.next();
        s.feed(&mut checker, 1, 0);
        assert_eq!(checker.counts().gaps, 1);
    }

    #[test]
    fn repeats_altered_bytes_and_strangers_are_errors() {
        let (mut checker, mut s) = (checker(), stream(4, 1));
        s.feed(&mut checker, 10, 0);
        let (item, mut payload) = s.next();
        checker.message(item.kind, item.timestamp, &payload);
        checker.message(item.kind, item.timestamp, &payload);
        assert_eq!((checker.counts().reordered, checker.counts().errors()), (1, 1));
        *payload.last_mut().unwrap() ^= 1;
        checker.message(item.kind, item.timestamp, &payload);
        assert_eq!((checker.counts().altered, checker.counts().errors()), (1, 2));
        let (item, payload) = stream(5, 1).next();
        checker.message(item.kind, 60_000, &payload);
        assert_eq!((checker.counts().foreign, checker.counts().errors()), (1, 3));
        checker.message(Kind::Video, 60_000, &[0x27, 1, 0, 0, 0]);
        assert_eq!(checker.counts().unmarked, 1);
    }

    #[test]
    fn time_must_not_go_back_or_shift() {
        let (mut checker, mut s) = (checker(), stream(4, 1));
        s.feed(&mut checker, 100, 50);
        s.feed(&mut checker, 100, 60);
        assert_eq!((checker.counts().timestamp_shifted, checker.counts().timestamp_back), (1, 0));
        s.feed(&mut checker, 1, 0);
        assert_eq!((checker.counts().timestamp_shifted, checker.counts().timestamp_back), (2, 1));
    }

    #[test]
    fn a_republished_stream_starts_anew_and_time_goes_on() {
        let mut checker = checker();
        stream(4, 1).feed(&mut checker, 101, 0);
        stream(4, 2).feed(&mut checker, 100, 5000);
        assert_eq!((checker.counts().republished, checker.counts().errors()), (1, 0));
        stream(4, 3).feed(&mut checker, 1, 0);
        assert_eq!((checker.counts().republished, checker.counts().timestamp_back), (2, 1));
    }

    #[test]
    fn a_file_is_compared_by_its_messages() {
        let payload = |i: u8, key: bool| vec![if key { 0x17 } else { 0x27 }, 1, 0, 0, 0, i];
        let mut flv = b"FLV\x01\x01\0\0\0\x09\0\0\0\0".to_vec();
        for i in 0..12u8 {
            flv.extend_from_slice(&[9, 0, 0, 6, 0, 0, i * 10, 0, 0, 0, 0]);
            flv.extend_from_slice(&payload(i, i.is_multiple_of(4)));
            flv.extend_from_slice(&17u32.to_be_bytes());
        }
        let file = FlvFile::parse(flv.into()).unwrap();
        let mut checker = Checker::new(Content::File(Arc::new(Reference::new(&file))));
        let mut time = 0;
        let mut feed = |checker: &mut Checker, i: u8| {
            time += 10;
            checker.message(Kind::Video, time, &payload(i, i.is_multiple_of(4)));
        };
        for i in [4, 5, 6, 7, 8, 9, 10, 11, 0, 1] {
            feed(&mut checker, i);
        }
        assert_eq!((checker.counts().errors(), checker.counts().checked), (0, 10));
        feed(&mut checker, 4); // 2 and 3 are missing, 4 is a keyframe
        assert_eq!((checker.counts().skips, checker.counts().skipped_messages), (1, 2));
        feed(&mut checker, 7); // 5 and 6 are missing
        feed(&mut checker, 7); // again
        feed(&mut checker, 99); // never published
        let c = checker.counts();
        assert_eq!((c.gaps, c.reordered, c.altered), (1, 1, 1));
    }
}

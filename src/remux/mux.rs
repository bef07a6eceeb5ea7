//! A stream as units of its tracks in a container: MPEG-TS, fragmented MP4, or audio alone.
//!
//! One [`Muxer`] serves all formats of a container, whatever goes around its bytes.

use crate::hub::segments;
use crate::hub::{Container, Flags};
use crate::media::bits::CodecError;
use crate::media::codec::{AudioCodec, VideoCodec};
use crate::media::unit::{
    self, AudioClock, AudioConfig, AudioDetail, Content, TICKS_HZ, Unit, VideoConfig,
};
use crate::media::{Kind, av1, vp9};
use crate::proto::mp4::{self, Fragment};
use crate::proto::ts::{self, Unfit};

/// Which tracks are wanted in a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// The audio track.
    pub audio: bool,
    /// The picture track.
    pub video: bool,
}

/// What became of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Muxed {
    /// Nothing is to be written.
    Nothing,
    /// [`Muxer::bytes`] are to be written as one message with these flags.
    Bytes(Flags),
    /// The message's unit does not have the form its codec prescribes, and was left out.
    Skipped,
}

/// When a fragment is shown, in ticks of its track.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shown {
    /// A picture; else audio.
    pub video: bool,
    /// Its decoding time.
    pub dts: i64,
    /// Its begin.
    pub start: i64,
    /// Its end, as far as that is known now.
    pub end: i64,
}

/// Packs one stream.
#[derive(Debug)]
pub struct Muxer {
    container: Container,
    wanted: Wanted,
    video: Option<VideoConfig>,
    /// Pixels across and down, from the configuration or a keyframe.
    size: (u32, u32),
    audio: Option<AudioConfig>,
    clock: AudioClock,
    ts: Option<ts::Mux>,
    fragments: Fragments,
    /// Players have been told of the tracks: changes go into the log (MP4).
    begun: bool,
    /// The newest tracks are in the log, or nobody has to be told.
    told: bool,
    bytes: Vec<u8>,
    /// How many of `bytes` are an initialisation segment (MP4).
    init_len: usize,
}

/// The numbers of fragments grow by this, so that none follows another without a gap. VLC 3 goes on
/// counting time by itself where numbers do follow each other, for a track whose first fragment it
/// has not seen yet, too: the audio of a stream that is half an hour old was half an hour late.
const SEQUENCE_STEP: u32 = 2;

/// Where fragmented MP4 stands.
#[derive(Debug, Default)]
struct Fragments {
    sequence: u32,
    /// Decoding time of the last picture and how long the one before it lasted, ticks.
    last_video: Option<i64>,
    video_ticks: u32,
    /// When the wall clock was told last, ticks.
    told_at: Option<i64>,
    /// The last one.
    shown: Option<Shown>,
    /// Where players of audio alone were last told to start, ticks.
    start_at: Option<i64>,
}

impl Muxer {
    /// An empty stream.
    pub fn new(container: Container, wanted: Wanted) -> Muxer {
        let audio_alone = matches!(container, Container::Aac | Container::Mp3);
        Muxer {
            container,
            wanted: Wanted { video: wanted.video && !audio_alone, ..wanted },
            video: None,
            size: (0, 0),
            audio: None,
            clock: AudioClock::default(),
            ts: None,
            fragments: Fragments::default(),
            begun: false,
            told: true,
            bytes: Vec::new(),
            init_len: 0,
        }
    }

    /// Audio is placed by counting samples, whatever small steps the publisher's times make.
    pub fn count_samples(&mut self) {
        self.clock = AudioClock::counting();
    }

    /// Takes in what a header, or a frame of a codec without one, tells of its track, and nothing
    /// else of it: newcomers are told before the message itself is in the log.
    pub fn learn(&mut self, kind: Kind, payload: &[u8]) {
        let mut scratch = Muxer::new(self.container, self.wanted);
        scratch.message(kind, 0, payload, 0);
        if scratch.video.is_some() && scratch.video != self.video {
            self.size = scratch.size;
            self.video = scratch.video;
            self.tracks_changed();
        }
        if scratch.audio.is_some() && scratch.audio != self.audio {
            self.audio = scratch.audio;
            self.tracks_changed();
        }
    }

    /// What the last message became.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// When the fragment in the last message is shown (MP4).
    pub fn shown(&self) -> Option<Shown> {
        self.fragments.shown
    }

    /// What a track is alone (MP4), with nothing to be called by.
    pub fn track_init(&self, video: bool) -> Option<segments::TrackInit> {
        let mut bytes = Vec::new();
        let (codecs, timescale, size, audio) = if video {
            let config = self.video.as_ref()?;
            mp4::write_init(&mut bytes, Some((config, self.size)), None);
            let size = Some(self.size).filter(|size| *size != (0, 0));
            (config.codec_string(), mp4::VIDEO_TIMESCALE, size, None)
        } else {
            let config = self.audio.as_ref()?;
            mp4::write_init(&mut bytes, None, Some(config));
            let audio = Some((config.rate_hz, config.channels));
            (config.codec_string(), config.rate_hz, None, audio)
        };
        Some(segments::TrackInit {
            name: String::new(),
            uri: String::new(),
            bytes: bytes.into(),
            codecs: codecs.unwrap_or_default(),
            timescale,
            size,
            fps: self.video.as_ref().and_then(|video| video.fps).map(|fps| fps.value()),
            audio,
        })
    }

    /// How many bytes in front of them are an initialisation segment (MP4).
    pub fn init_len(&self) -> usize {
        self.init_len
    }

    /// The initialisation segment (MP4), as of the last message. Another one is told of in the log
    /// from now on.
    pub fn tell_init(&mut self) -> Option<Vec<u8>> {
        let mut out = Vec::new();
        if self.container == Container::Fmp4 {
            self.write_init(&mut out);
            (self.begun, self.told) = (true, true);
        }
        Some(out).filter(|out| !out.is_empty())
    }

    /// What comes next is where somebody starts: MPEG-TS has its tables there.
    pub fn start_here(&mut self) {
        if let Some(ts) = &mut self.ts {
            ts.want_tables();
        }
    }

    /// Codecs, size and rate of the pictures.
    pub fn content(&self) -> segments::Content {
        let video = self.video.as_ref();
        let names = [
            video.map(VideoConfig::codec_string),
            self.audio.as_ref().map(AudioConfig::codec_string),
        ];
        // One codec without name makes a list that leaves it out wrong.
        let names: Option<Vec<String>> = names.into_iter().flatten().collect();
        let size = Some(self.size).filter(|size| *size != (0, 0) && video.is_some());
        segments::Content {
            codecs: names.unwrap_or_default().join(","),
            size,
            fps: video.and_then(|video| video.fps).map(|fps| fps.value()),
        }
    }

    /// Why the stream cannot be had in this container, now that its tracks are known.
    pub fn refuses(&self) -> Option<Unfit> {
        match self.container {
            Container::Rtmp | Container::Flv | Container::Fmp4 => None,
            Container::Ts => ts::Mux::new(self.video.as_ref(), self.audio.as_ref()).err(),
            Container::Aac => match &self.audio {
                None => Some(Unfit::NoAudio),
                Some(AudioConfig { detail: AudioDetail::Aac(config, _), .. })
                    if config.adts_header(0).is_some() =>
                {
                    None
                }
                Some(audio) => Some(Unfit::Audio(audio.codec)),
            },
            Container::Mp3 => match &self.audio {
                None => Some(Unfit::NoAudio),
                Some(AudioConfig { detail: AudioDetail::Mp3(_), .. }) => None,
                Some(audio) => Some(Unfit::Audio(audio.codec)),
            },
        }
    }

    /// True when a player can be told what is in the stream.
    pub fn has_tracks(&self) -> bool {
        self.video.is_some() || self.audio.is_some()
    }

    /// True when the picture track is described, or not wanted.
    pub fn knows_video(&self) -> bool {
        self.video.is_some() || !self.wanted.video
    }

    /// True when there are pictures.
    pub fn has_video(&self) -> bool {
        self.video.is_some()
    }

    /// What players get before the first message, from now on.
    pub fn prologue(&mut self) -> Vec<u8> {
        let mut out = Vec::new();
        match self.container {
            Container::Fmp4 => self.write_init(&mut out),
            // Where players start there are tables. Others before them would not be counted so that
            // the stream's continue them, and a player may start later than it was told.
            Container::Ts | Container::Rtmp | Container::Flv | Container::Aac | Container::Mp3 => {}
        }
        if !self.begun {
            self.begun = true;
            self.told = true;
        }
        out
    }

    /// Takes a message of the hub: `time` is its stream time, ms; `wall_ms` the time of day at
    /// which it came, ms since 1970, 0 if that is not known.
    pub fn message(&mut self, kind: Kind, time: i64, payload: &[u8], wall_ms: i64) -> Muxed {
        self.bytes.clear();
        self.init_len = 0;
        self.fragments.shown = None;
        let result = match unit::read(kind, time, payload) {
            Ok(Content::VideoHeader(codec, data)) if self.wanted.video => {
                self.video_header(codec, data)
            }
            Ok(Content::Video(codec, unit)) if self.wanted.video => {
                self.video(codec, &unit, wall_ms)
            }
            Ok(Content::AudioHeader(codec, data)) if self.wanted.audio => {
                self.audio_header(codec, data)
            }
            Ok(Content::Audio(codec, unit)) if self.wanted.audio => {
                self.audio(codec, &unit, wall_ms)
            }
            // What cannot be read at all was dropped before it came here.
            Ok(_) | Err(_) => return Muxed::Nothing,
        };
        match result {
            Ok(_) if self.bytes.is_empty() => Muxed::Nothing,
            Ok(flags) => Muxed::Bytes(flags),
            Err(_) => {
                self.bytes.clear();
                Muxed::Skipped
            }
        }
    }

    fn video_header(&mut self, codec: VideoCodec, data: &[u8]) -> Result<Flags, CodecError> {
        let config = VideoConfig::read(codec, data)?;
        if self.video.as_ref() != Some(&config) {
            self.size = config.size.unwrap_or_default();
            self.video = Some(config);
            self.tracks_changed();
        }
        self.tell();
        Ok(Flags::VIDEO | Flags::SEQUENCE_HEADER)
    }

    fn audio_header(&mut self, codec: AudioCodec, data: &[u8]) -> Result<Flags, CodecError> {
        let config = AudioConfig::read(codec, data)?;
        if self.audio.as_ref() != Some(&config) {
            self.audio = Some(config);
            self.tracks_changed();
        }
        self.tell();
        Ok(Flags::AUDIO | Flags::SEQUENCE_HEADER)
    }

    /// The tracks are others: MPEG-TS says so in its tables, MP4 by another initialisation segment.
    fn tracks_changed(&mut self) {
        if self.container == Container::Ts {
            let (video, audio) = (self.video.as_ref(), self.audio.as_ref());
            // What has no place in it was refused, or will be before a player comes.
            match &mut self.ts {
                Some(ts) => _ = ts.set_tracks(video, audio),
                None => self.ts = ts::Mux::new(video, audio).ok(),
            }
        }
        self.told = false;
    }

    /// Another initialisation segment, for those who have one already.
    fn tell(&mut self) {
        if self.container == Container::Fmp4 && self.begun && !self.told {
            self.told = true;
            let mut bytes = std::mem::take(&mut self.bytes);
            self.write_init(&mut bytes);
            self.init_len = bytes.len();
            self.bytes = bytes;
        }
    }

    fn write_init(&self, out: &mut Vec<u8>) {
        if self.has_tracks() {
            let video = self.video.as_ref().map(|video| (video, self.size));
            mp4::write_init(out, video, self.audio.as_ref());
        }
    }

    fn video(
        &mut self,
        codec: VideoCodec,
        unit: &Unit<'_>,
        wall_ms: i64,
    ) -> Result<Flags, CodecError> {
        if self.video.as_ref().is_none_or(|video| video.codec != codec) {
            let Some(config) = VideoConfig::without_record(codec) else {
                return Err(CodecError::Malformed("no sequence header"));
            };
            self.video = Some(config);
            self.size = (0, 0);
            self.tracks_changed();
        }
        if unit.keyframe {
            self.look_at_keyframe(codec, unit.data);
        }
        self.tell();
        let Some(config) = &self.video else { return Ok(Flags::VIDEO) };
        let mut flags = Flags::VIDEO;
        match self.container {
            Container::Ts => {
                if let Some(ts) = &mut self.ts
                    && ts.video(&mut self.bytes, config, unit)?
                {
                    flags = flags | Flags::KEYFRAME;
                }
            }
            Container::Fmp4 => {
                if unit.keyframe {
                    flags = flags | Flags::KEYFRAME;
                }
                let fps = config.fps.map(|fps| TICKS_HZ * 1000 / i64::from(fps.0));
                self.fragments.video(&mut self.bytes, unit, fps, wall_ms);
            }
            _ => {}
        }
        Ok(flags)
    }

    /// The picture size of codecs whose record does not tell it.
    fn look_at_keyframe(&mut self, codec: VideoCodec, data: &[u8]) {
        let size = match codec {
            VideoCodec::Vp8 => vp9::vp8_size(data).ok().flatten(),
            VideoCodec::Vp9 => vp9::vp9_size(data).ok().flatten(),
            VideoCodec::Av1 if self.size == (0, 0) => {
                av1::sequence(data).ok().map(|sequence| (sequence.width, sequence.height))
            }
            _ => None,
        };
        if let Some(size) = size
            && size != self.size
        {
            self.size = size;
            self.tracks_changed();
        }
    }

    fn audio(
        &mut self,
        codec: AudioCodec,
        unit: &Unit<'_>,
        wall_ms: i64,
    ) -> Result<Flags, CodecError> {
        if let Some(config) = AudioConfig::of_frame(codec, unit.data)? {
            let same = self.audio.as_ref().is_some_and(|audio| {
                let said = |audio: &AudioConfig| (audio.codec, audio.rate_hz, audio.channels);
                said(audio) == said(&config)
            });
            if !same {
                self.audio = Some(config);
                self.tracks_changed();
            }
        }
        self.tell();
        let Some(config) = self.audio.as_ref().filter(|audio| audio.codec == codec) else {
            return Err(CodecError::Malformed("no sequence header"));
        };
        let samples = config.samples(unit.data);
        let at = self.clock.place(config.rate_hz, unit.dts, samples);
        let mut flags = Flags::AUDIO;
        match self.container {
            Container::Ts => {
                let pts = AudioClock::ticks(config.rate_hz, at);
                if let Some(ts) = &mut self.ts
                    && ts.audio(&mut self.bytes, config, unit, pts)?
                {
                    flags = flags | Flags::KEYFRAME;
                }
            }
            Container::Fmp4 => {
                let alone = self.video.is_none();
                // Any frame of audio alone is a place to start. Newcomers are told of some.
                let last = self.fragments.start_at.filter(|_| alone);
                if alone && last.is_none_or(|at| !(0..START_TICKS).contains(&(unit.dts - at))) {
                    self.fragments.start_at = Some(unit.dts);
                    flags = flags | Flags::KEYFRAME;
                }
                let wall_ms = Some(wall_ms).filter(|wall_ms| alone && *wall_ms > 0);
                self.fragments.audio(&mut self.bytes, unit, (at, samples), wall_ms);
            }
            Container::Aac => {
                if let AudioDetail::Aac(aac, _) = &config.detail {
                    let header = aac.adts_header(unit.data.len());
                    let header = header.ok_or(CodecError::OverLimit("AAC frame"))?;
                    self.bytes.extend_from_slice(&header);
                    self.bytes.extend_from_slice(unit.data);
                }
            }
            Container::Mp3 => self.bytes.extend_from_slice(unit.data),
            Container::Rtmp | Container::Flv => {}
        }
        Ok(flags)
    }
}

impl Fragments {
    fn video(&mut self, out: &mut Vec<u8>, unit: &Unit<'_>, fps_ticks: Option<i64>, wall_ms: i64) {
        let dts = self.last_video.map_or(unit.dts, |last| unit.dts.max(last + 1));
        // How long a picture lasts shows with the next one. Until then it is expected to last as
        // long as the one before it; the next says its own time.
        if let Some(last) = self.last_video {
            self.video_ticks = (dts - last).min(TICKS_HZ) as u32;
        } else {
            self.video_ticks = fps_ticks.unwrap_or(TICKS_HZ / 25).clamp(1, TICKS_HZ) as u32;
        }
        self.last_video = Some(dts);
        if unit.keyframe && wall_ms > 0 {
            mp4::write_reference_time(out, mp4::TRACK_VIDEO, wall_ms, dts.max(0) as u64);
        }
        let data = match unit.data {
            // AV1-ISOBMFF 2.4: a sample has no temporal delimiter.
            [0x12, 0x00, rest @ ..] => rest,
            data => data,
        };
        let composition = (unit.pts - dts).clamp(-COMPOSITION_TICKS_MAX, COMPOSITION_TICKS_MAX);
        self.sequence = self.sequence.wrapping_add(SEQUENCE_STEP);
        let fragment = Fragment {
            sequence: self.sequence,
            track: mp4::TRACK_VIDEO,
            dts: dts.max(0) as u64,
            duration: self.video_ticks,
            composition: composition as i32,
            keyframe: unit.keyframe,
            data,
        };
        mp4::write_fragment(out, &fragment);
        let (dts, duration) = (dts.max(0), i64::from(self.video_ticks));
        let start = dts + composition;
        self.shown = Some(Shown { video: true, dts, start, end: start + duration });
    }

    fn audio(
        &mut self,
        out: &mut Vec<u8>,
        unit: &Unit<'_>,
        (at, samples): (i64, u32),
        wall_ms: Option<i64>,
    ) {
        let due = self.told_at.is_none_or(|at| !(0..TICKS_HZ).contains(&(unit.dts - at)));
        if let Some(wall_ms) = wall_ms.filter(|_| due) {
            self.told_at = Some(unit.dts);
            mp4::write_reference_time(out, mp4::TRACK_AUDIO, wall_ms, at.max(0) as u64);
        }
        self.sequence = self.sequence.wrapping_add(SEQUENCE_STEP);
        let fragment = Fragment {
            sequence: self.sequence,
            track: mp4::TRACK_AUDIO,
            dts: at.max(0) as u64,
            duration: samples,
            composition: 0,
            keyframe: true,
            data: unit.data,
        };
        mp4::write_fragment(out, &fragment);
        let start = at.max(0);
        let end = start + i64::from(samples);
        self.shown = Some(Shown { video: false, dts: start, start, end });
    }
}

/// Players of audio alone start at one of places this far apart, ticks.
const START_TICKS: i64 = TICKS_HZ / 10;
/// A picture shown more than this before or after its turn has a time that says nothing.
const COMPOSITION_TICKS_MAX: i64 = 10 * TICKS_HZ;

#[cfg(test)]
mod tests {
    use super::*;

    const BOTH: Wanted = Wanted { audio: true, video: true };
    const AVC: &[u8] =
        b"\x17\0\0\0\0\x01\x42\xc0\x1e\xff\xe1\0\x0a\x67\x42\xc0\x1e\xda\x02\x80\xbf\xe5\
        \x40\x01\0\x04\x68\xce\x3c\x80";
    const AAC: &[u8] = &[0xaf, 0, 0x12, 0x10];
    const KEY: &[u8] = &[0x17, 1, 0, 0, 0, 0, 0, 0, 2, 0x65, 1];
    const INTER: &[u8] = &[0x27, 1, 0, 0, 40, 0, 0, 0, 2, 0x41, 1];
    const SOUND: &[u8] = &[0xaf, 1, 7, 7, 7];

    fn muxer(container: Container) -> Muxer {
        let mut muxer = Muxer::new(container, BOTH);
        assert_eq!(muxer.message(Kind::Video, 0, AVC, 0), Muxed::Nothing);
        assert_eq!(muxer.message(Kind::Audio, 0, AAC, 0), Muxed::Nothing);
        assert!(muxer.has_tracks());
        muxer
    }

    #[test]
    fn pictures_and_sound_in_every_container() {
        let (video, key) = (Flags::VIDEO, Flags::VIDEO | Flags::KEYFRAME);
        for (container, expected) in [
            (Container::Ts, [Muxed::Bytes(key), Muxed::Bytes(Flags::AUDIO), Muxed::Bytes(video)]),
            (Container::Fmp4, [Muxed::Bytes(key), Muxed::Bytes(Flags::AUDIO), Muxed::Bytes(video)]),
            (Container::Aac, [Muxed::Nothing, Muxed::Bytes(Flags::AUDIO), Muxed::Nothing]),
        ] {
            let mut muxer = muxer(container);
            assert_eq!(muxer.refuses(), None);
            let got = [
                muxer.message(Kind::Video, 0, KEY, 5_000),
                muxer.message(Kind::Audio, 10, SOUND, 5_010),
                muxer.message(Kind::Video, 40, INTER, 5_040),
            ];
            assert_eq!(got, expected, "{container:?}");
        }
        assert_eq!(muxer(Container::Mp3).refuses(), Some(Unfit::Audio(AudioCodec::Aac)));
        let mut silent = Muxer::new(Container::Aac, BOTH);
        silent.message(Kind::Video, 0, AVC, 0);
        assert_eq!(silent.refuses(), Some(Unfit::NoAudio));
    }

    #[test]
    fn plain_aac_is_adts() {
        let mut muxer = muxer(Container::Aac);
        muxer.message(Kind::Audio, 0, SOUND, 0);
        assert_eq!(muxer.bytes(), [0xff, 0xf1, 0x50, 0x80, 0x01, 0x5f, 0xfc, 7, 7, 7]);
        assert!(muxer.prologue().is_empty());
    }

    #[test]
    fn mp4_tells_of_the_wall_clock_and_of_other_tracks() {
        let mut muxer = muxer(Container::Fmp4);
        assert_eq!(muxer.prologue()[4..8], *b"ftyp");
        muxer.message(Kind::Video, 0, KEY, 5_000);
        assert_eq!(muxer.bytes()[4..8], *b"prft");
        muxer.message(Kind::Video, 40, INTER, 5_040);
        assert_eq!(muxer.bytes()[4..8], *b"moof");
        let header = Muxed::Bytes(Flags::AUDIO | Flags::SEQUENCE_HEADER);
        assert_eq!(muxer.message(Kind::Audio, 40, AAC, 0), Muxed::Nothing);
        assert_eq!(muxer.message(Kind::Audio, 40, &[0xaf, 0, 0x11, 0x90], 0), header);
        assert_eq!(muxer.bytes()[4..8], *b"ftyp");
    }

    #[test]
    fn the_numbers_of_fragments_grow_and_leave_gaps() {
        let mut muxer = muxer(Container::Fmp4);
        let mut numbers = Vec::new();
        for (kind, time, payload) in
            [(Kind::Video, 0, KEY), (Kind::Audio, 0, SOUND), (Kind::Video, 40, INTER)]
        {
            muxer.message(kind, time, payload, 5_000);
            let bytes = muxer.bytes();
            let at = bytes.windows(4).position(|name| name == b"mfhd").unwrap() + 8;
            numbers.push(u32::from_be_bytes(bytes[at..at + 4].try_into().unwrap()));
        }
        assert!(numbers.windows(2).all(|pair| pair[1] > pair[0] + 1), "{numbers:?}");
    }

    #[test]
    fn what_is_not_wanted_or_not_whole_is_left_out() {
        let mut muxer = Muxer::new(Container::Ts, Wanted { audio: false, video: true });
        muxer.message(Kind::Video, 0, AVC, 0);
        assert_eq!(muxer.message(Kind::Audio, 0, SOUND, 0), Muxed::Nothing);
        let broken = [0x27, 1, 0, 0, 0, 0, 0, 0, 99, 1];
        assert_eq!(muxer.message(Kind::Video, 0, &broken, 0), Muxed::Skipped);
        assert!(muxer.bytes().is_empty());
        // Frames before any sequence header.
        let mut early = Muxer::new(Container::Fmp4, BOTH);
        assert_eq!(early.message(Kind::Video, 0, KEY, 0), Muxed::Skipped);
        assert_eq!(early.message(Kind::Audio, 0, SOUND, 0), Muxed::Skipped);
    }

    #[test]
    fn codecs_without_header_describe_themselves() {
        let mut muxer = Muxer::new(Container::Fmp4, BOTH);
        let frame = [0x2f, 0xff, 0xfb, 0x90, 0x64, 1, 2];
        let begins = Muxed::Bytes(Flags::AUDIO | Flags::KEYFRAME);
        assert_eq!(muxer.message(Kind::Audio, 0, &frame, 0), begins);
        assert_eq!(muxer.message(Kind::Audio, 26, &frame, 0), Muxed::Bytes(Flags::AUDIO));
        assert_eq!(muxer.message(Kind::Audio, 130, &frame, 0), begins);
        assert!(muxer.prologue().windows(4).any(|name| name == b"esds"));
        // VP9 says its size in keyframes only; who plays already gets another description.
        let frame =
            [b"\x91vp09".as_slice(), &crate::media::unhex("a2498342e027f016760638241c184a10")];
        let frame = frame.concat();
        let Muxed::Bytes(flags) = muxer.message(Kind::Video, 10, &frame, 0) else { panic!("no") };
        assert!(flags.has(Flags::KEYFRAME));
        assert_eq!(muxer.bytes()[4..8], *b"ftyp");
        assert_eq!(muxer.size, (640, 360));
    }

    proptest::proptest! {
        #[test]
        fn any_message_is_survived(messages: Vec<(bool, u16, Vec<u8>)>) {
            for container in Container::OVER_HTTP {
                let mut muxer = Muxer::new(container, BOTH);
                muxer.message(Kind::Video, 0, AVC, 0);
                muxer.message(Kind::Audio, 0, AAC, 0);
                for (video, time, payload) in &messages {
                    let kind = if *video { Kind::Video } else { Kind::Audio };
                    let head = if *video { KEY } else { SOUND };
                    for payload in [payload.clone(), [&head[..5], payload].concat()] {
                        muxer.message(kind, i64::from(*time), &payload, 1);
                        let _ = (muxer.refuses(), muxer.prologue());
                    }
                }
            }
        }
    }
}

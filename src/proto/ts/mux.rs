//! Access units as transport stream packets.

use super::psi::{PID_AUDIO, PID_PAT, PID_PMT, PID_VIDEO, pat, pmt};
use super::{First, Unfit, clock_packet, packets};
use crate::media::bits::CodecError;
use crate::media::codec::VideoCodec;
use crate::media::nal;
use crate::media::unit::{AudioConfig, AudioDetail, TICKS_PER_MS, Unit, VideoConfig};
use crate::proto::mpeg::pes::TIME_MASK;

/// How far decoding times are ahead of the stream's clock, ticks. The clock says when bytes arrive;
/// a decoder needs a unit whole, and units of the other track come in between.
pub const PCR_LEAD: i64 = 100 * TICKS_PER_MS;

/// Neither the tables nor the clock (2.7.2) stay away for longer, ticks.
const TOLD_TICKS_MAX: i64 = 100 * TICKS_PER_MS;
/// Where units are further apart, what lies between is told of in such steps, ticks.
const BRIDGE_TICKS: i64 = 80 * TICKS_PER_MS;
/// A longer silence is a hole in the stream, which no player waits through, ticks.
const SILENCE_TICKS_MAX: i64 = 2_000 * TICKS_PER_MS;
/// A picture more than this late is no picture of this track; its time says nothing.
const REORDER_TICKS_MAX: i64 = 10_000 * TICKS_PER_MS;

/// Writes one stream as a program of at most one picture track and one audio track.
#[derive(Debug, Clone)]
pub struct Mux {
    /// Payloads of the packets of PAT and PMT.
    pat: Vec<u8>,
    pmt: Vec<u8>,
    version: u8,
    has_video: bool,
    counters: Counters,
    /// When the tables and the clock were written last, ticks.
    tables_at: Option<i64>,
    clock_at: Option<i64>,
    /// The next unit needs them whenever that was.
    wanted: bool,
    /// When the last unit was decoded, and the longest step between two since the tables, ticks.
    unit_at: Option<i64>,
    step: i64,
    /// The last decoding time of the picture track, ticks.
    video_dts: Option<i64>,
    /// The PES packet in the making.
    pes: Vec<u8>,
}

/// Next continuity counters.
#[derive(Debug, Clone, Copy, Default)]
struct Counters {
    pat: u8,
    pmt: u8,
    video: u8,
    audio: u8,
}

impl Mux {
    /// A stream of these tracks, of which there has to be one.
    ///
    /// # Errors
    /// A codec that has no place in a transport stream.
    pub fn new(video: Option<&VideoConfig>, audio: Option<&AudioConfig>) -> Result<Mux, Unfit> {
        Ok(Mux {
            pat: pat(),
            pmt: pmt(0, video, audio)?,
            version: 0,
            has_video: video.is_some(),
            counters: Counters::default(),
            tables_at: None,
            clock_at: None,
            wanted: true,
            unit_at: None,
            step: 0,
            video_dts: None,
            pes: Vec::new(),
        })
    }

    /// The tracks have changed: the tables are written again before the next unit, where players
    /// may start.
    ///
    /// # Errors
    /// A codec that has no place in a transport stream; the tables stay as they are.
    pub fn set_tracks(
        &mut self,
        video: Option<&VideoConfig>,
        audio: Option<&AudioConfig>,
    ) -> Result<(), Unfit> {
        if pmt(self.version, video, audio)? != self.pmt {
            self.version = (self.version + 1) & 31;
            self.pmt = pmt(self.version, video, audio)?;
            self.has_video = video.is_some();
        }
        self.wanted = true;
        Ok(())
    }

    /// The tables are written before the next unit.
    pub fn want_tables(&mut self) {
        self.wanted = true;
    }

    /// Appends a picture. True when a player can start at it.
    ///
    /// # Errors
    /// The picture's bytes are broken; nothing was appended.
    pub fn video(
        &mut self,
        out: &mut Vec<u8>,
        config: &VideoConfig,
        unit: &Unit<'_>,
    ) -> Result<bool, CodecError> {
        let dts = self.video_dts.map_or(unit.dts, |last| unit.dts.max(last + 1));
        let pts = unit.pts.clamp(dts, dts + REORDER_TICKS_MAX);
        self.pes.clear();
        pes_head(&mut self.pes, STREAM_VIDEO, pts, Some(dts));
        if let Err(error) = byte_stream(&mut self.pes, config, unit) {
            self.pes.clear();
            return Err(error);
        }
        self.video_dts = Some(dts);
        let clock = self.clock(unit.dts);
        let begins = self.tables_if_due(out, clock, unit.keyframe);
        let tells = begins || self.clock_at != Some(clock);
        let first = First { clock: tells.then_some(clock), random_access: unit.keyframe };
        self.clock_at = Some(clock);
        packets(out, PID_VIDEO, &mut self.counters.video, &self.pes, first);
        Ok(unit.keyframe && begins)
    }

    /// Appends an audio frame that is heard at `pts` (ticks). True when a player can start at it.
    ///
    /// # Errors
    /// The frame cannot be framed as its codec has it here; nothing was appended.
    pub fn audio(
        &mut self,
        out: &mut Vec<u8>,
        config: &AudioConfig,
        unit: &Unit<'_>,
        pts: i64,
    ) -> Result<bool, CodecError> {
        let data = unit.data;
        self.pes.clear();
        let private = matches!(config.detail, AudioDetail::Opus(_) | AudioDetail::Ac3(_));
        let stream = if private { STREAM_PRIVATE } else { STREAM_AUDIO };
        pes_head(&mut self.pes, stream, pts, None);
        match &config.detail {
            AudioDetail::Aac(aac, _) => {
                let header = aac.adts_header(data.len());
                let header = header.ok_or(CodecError::OverLimit("AAC frame"))?;
                self.pes.extend_from_slice(&header);
            }
            AudioDetail::Opus(_) => opus_control(&mut self.pes, data.len()),
            _ => {}
        }
        self.pes.extend_from_slice(data);
        let len = self.pes.len() - PES_LENGTH_END;
        let len = u16::try_from(len).map_err(|_| CodecError::OverLimit("audio frame"))?;
        self.pes[PES_LENGTH_END - 2..PES_LENGTH_END].copy_from_slice(&len.to_be_bytes());

        let clock = self.clock(unit.dts);
        let begins = self.tables_if_due(out, clock, false);
        let mut first = First::default();
        if begins || self.is_due(self.clock_at, clock) {
            self.clock_at = Some(clock);
            if self.has_video {
                clock_packet(out, PID_VIDEO, self.counters.video, clock);
            } else {
                first = First { clock: Some(clock), random_access: true };
            }
        }
        packets(out, PID_AUDIO, &mut self.counters.audio, &self.pes, first);
        // With pictures, players start at those.
        Ok(begins && !self.has_video)
    }

    /// What the stream's clock says where a unit of this decoding time comes. It does not go back
    /// where the tracks come one a little behind the other.
    fn clock(&self, dts: i64) -> i64 {
        match self.clock_at {
            Some(at) if (0..SILENCE_TICKS_MAX).contains(&(at - dts)) => at,
            _ => dts,
        }
    }

    /// True when what was told at `told` has to be told with this unit, because the next one may
    /// come too late for it.
    fn is_due(&self, told: Option<i64>, clock: i64) -> bool {
        told.is_none_or(|told| !(0..=TOLD_TICKS_MAX - self.step).contains(&(clock - told)))
    }

    /// Writes the tables when it is time, or because a keyframe follows. True when what was
    /// appended begins with them.
    fn tables_if_due(&mut self, out: &mut Vec<u8>, clock: i64, keyframe: bool) -> bool {
        let bridged = self.bridge(out, clock);
        let step = self.unit_at.replace(clock).map_or(0, |last| clock - last);
        self.step = self.step.max(step).clamp(0, TOLD_TICKS_MAX);
        if keyframe || self.wanted || self.is_due(self.tables_at, clock) {
            self.write_tables(out, clock);
            self.wanted = false;
            return true;
        }
        bridged
    }

    fn write_tables(&mut self, out: &mut Vec<u8>, clock: i64) {
        self.tables_at = Some(clock);
        self.step = 0;
        packets(out, PID_PAT, &mut self.counters.pat, &self.pat, First::default());
        packets(out, PID_PMT, &mut self.counters.pmt, &self.pmt, First::default());
    }

    /// Where nothing was to be sent for a while, clock and tables of that while. True when there
    /// was something to write.
    fn bridge(&mut self, out: &mut Vec<u8>, clock: i64) -> bool {
        let Some(mut at) = self.clock_at.filter(|at| clock - at <= SILENCE_TICKS_MAX) else {
            return false;
        };
        let (pid, counter) = match self.has_video {
            true => (PID_VIDEO, self.counters.video),
            false => (PID_AUDIO, self.counters.audio),
        };
        let before = out.len();
        while clock - at > TOLD_TICKS_MAX {
            at += BRIDGE_TICKS;
            self.write_tables(out, at);
            clock_packet(out, pid, counter, at);
            self.clock_at = Some(at);
        }
        out.len() > before
    }
}

const STREAM_VIDEO: u8 = 0xe0;
const STREAM_AUDIO: u8 = 0xc0;
const STREAM_PRIVATE: u8 = 0xbd;
/// Where the bytes that the PES length counts begin.
const PES_LENGTH_END: usize = 6;

/// A PES header with length 0, which is right for pictures (2.4.3.7).
fn pes_head(out: &mut Vec<u8>, stream: u8, pts: i64, dts: Option<i64>) {
    let dts = dts.filter(|dts| *dts != pts);
    let (flags, len) = if dts.is_some() { (0xc0, 10) } else { (0x80, 5) };
    // The payload begins with a unit ("aligned").
    out.extend_from_slice(&[0, 0, 1, stream, 0, 0, 0x84, flags, len]);
    time(out, if dts.is_some() { 3 } else { 2 }, pts);
    if let Some(dts) = dts {
        time(out, 1, dts);
    }
}

/// A PTS or DTS: 33 bits with marker bits between them.
fn time(out: &mut Vec<u8>, prefix: u8, ticks: i64) {
    let time = (ticks + PCR_LEAD) as u64 & TIME_MASK;
    out.extend_from_slice(&[
        prefix << 4 | (time >> 29) as u8 & 0x0e | 1,
        (time >> 22) as u8,
        (time >> 14) as u8 | 1,
        (time >> 7) as u8,
        (time << 1) as u8 | 1,
    ]);
}

/// The control header before an Opus packet: a prefix of 11 bits, no trimming, and the length.
fn opus_control(out: &mut Vec<u8>, len: usize) {
    out.extend_from_slice(&[0x7f, 0xe0]);
    out.resize(out.len() + len / 255, 0xff);
    out.push((len % 255) as u8);
}

/// A picture of H.264 or H.265 as an Annex B byte stream: access unit delimiter, parameter sets
/// before a keyframe that has none, then the picture's own units.
fn byte_stream(out: &mut Vec<u8>, config: &VideoConfig, unit: &Unit<'_>) -> Result<(), CodecError> {
    let is_h264 = config.codec == VideoCodec::H264;
    let kind = |nal: &[u8]| -> Option<u8> {
        nal.first().map(|first| if is_h264 { first & 0x1f } else { first >> 1 & 0x3f })
    };
    let (delimiter, sps): (&[u8], u8) =
        if is_h264 { (&[9, 0xf0], 7) } else { (&[0x46, 1, 0x50], 33) };
    let delimiter_kind = kind(delimiter);
    out.extend_from_slice(START_CODE);
    out.extend_from_slice(delimiter);
    let units = || nal::length_prefixed(unit.data, config.length_size);
    if unit.keyframe && !units().flatten().any(|nal| kind(nal) == Some(sps)) {
        out.extend_from_slice(&config.parameter_sets);
    }
    for nal in units() {
        let nal = nal?;
        if nal.is_empty() || kind(nal) == delimiter_kind {
            continue;
        }
        out.extend_from_slice(START_CODE);
        out.extend_from_slice(nal);
    }
    Ok(())
}

const START_CODE: &[u8] = &[0, 0, 0, 1];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::media::codec::AudioCodec;
    use crate::media::unhex;
    use crate::proto::ts::PACKET_BYTES;

    fn avc() -> VideoConfig {
        let record = unhex("014d401effe1000a674d401ee8805017fcb001000468eb8f20");
        VideoConfig::read(VideoCodec::H264, &record).unwrap()
    }

    fn aac() -> AudioConfig {
        AudioConfig::read(AudioCodec::Aac, &[0x12, 0x10]).unwrap()
    }

    /// What a demultiplexer sees of one track.
    #[derive(Debug, Default)]
    struct Track {
        counter: Option<u8>,
        /// Whole PES packets.
        pes: Vec<Vec<u8>>,
        clocks: Vec<u64>,
        starts: Vec<bool>,
    }

    /// Takes packets apart and checks what holds for all of them.
    fn demux(bytes: &[u8], pid: u16) -> Track {
        let mut track = Track::default();
        for packet in bytes.chunks(PACKET_BYTES) {
            assert_eq!((packet.len(), packet[0]), (PACKET_BYTES, 0x47));
            if u16::from_be_bytes([packet[1] & 0x1f, packet[2]]) != pid {
                continue;
            }
            let has_payload = packet[3] & 0x10 != 0;
            if let Some(last) = track.counter.replace(packet[3] & 15) {
                let step = u8::from(has_payload);
                assert_eq!(packet[3] & 15, (last + step) & 15, "continuity of {pid:#x}");
            }
            let mut rest = &packet[4..];
            if packet[3] & 0x20 != 0 {
                let field = &rest[1..1 + usize::from(rest[0])];
                rest = &rest[1 + field.len()..];
                if field.first().is_some_and(|flags| flags & 0x10 != 0) {
                    let base = field[1..5].iter().fold(0, |sum, b| sum << 8 | u64::from(*b));
                    track.clocks.push(base << 1 | u64::from(field[5] >> 7));
                }
                if packet[1] & 0x40 != 0 {
                    track.starts.push(field.first().is_some_and(|flags| flags & 0x40 != 0));
                }
            }
            if packet[1] & 0x40 != 0 {
                track.pes.push(Vec::new());
            }
            if has_payload {
                track.pes.last_mut().expect("a start").extend_from_slice(rest);
            }
        }
        track
    }

    fn read_time(bytes: &[u8]) -> u64 {
        let b: Vec<u64> = bytes.iter().map(|b| u64::from(*b)).collect();
        (b[0] >> 1 & 7) << 30 | b[1] << 22 | (b[2] >> 1) << 15 | b[3] << 7 | b[4] >> 1
    }

    fn picture(ms: i64, cts: i64, keyframe: bool, data: &[u8]) -> Unit<'_> {
        Unit { dts: ms * 90, pts: (ms + cts) * 90, keyframe, data }
    }

    #[test]
    fn pictures_with_tables_parameter_sets_and_times() {
        let config = avc();
        let mut mux = Mux::new(Some(&config), None).unwrap();
        let mut out = Vec::new();
        let key = [0, 0, 0, 2, 9, 0xf0, 0, 0, 0, 3, 0x65, 1, 2];
        assert_eq!(mux.video(&mut out, &config, &picture(1000, 80, true, &key)), Ok(true));
        let inter = [&[0, 0, 2, 0, 0x41][..], &[7; 0x1ff]].concat();
        assert_eq!(mux.video(&mut out, &config, &picture(1040, 0, false, &inter)), Ok(false));
        let pat = demux(&out, PID_PAT);
        assert_eq!(pat.pes.len(), 1);
        let video = demux(&out, PID_VIDEO);
        assert_eq!(video.clocks, [90_000, 93_600]);
        assert_eq!(video.starts, [true, false]);
        let sets = &config.parameter_sets;
        let expected = [
            &[0, 0, 1, 0xe0, 0, 0, 0x84, 0xc0, 10][..],
            &video.pes[0][9..19],
            &[0, 0, 0, 1, 9, 0xf0],
            sets,
            &[0, 0, 0, 1, 0x65, 1, 2],
        ]
        .concat();
        assert_eq!(video.pes[0], expected);
        assert_eq!(read_time(&video.pes[0][9..14]), 97_200 + PCR_LEAD as u64);
        assert_eq!(read_time(&video.pes[0][14..19]), 90_000 + PCR_LEAD as u64);
        assert_eq!(video.pes[1][7..9], [0x80, 5]);
        assert!(video.pes[1].ends_with(&[7; 0x1ff]));
        // One whose lengths lie leaves no trace, and the counters stand.
        let before = out.len();
        assert!(mux.video(&mut out, &config, &picture(1080, 0, false, &[0, 0, 9, 9, 1])).is_err());
        assert_eq!(out.len(), before);
        mux.video(&mut out, &config, &picture(1120, 0, false, &inter)).unwrap();
        assert_eq!(demux(&out, PID_VIDEO).pes.len(), 3);
        assert_eq!(demux(&out, PID_PAT).pes.len(), 2);
    }

    #[test]
    fn tables_and_clock_come_every_tenth_of_a_second() {
        for with_video in [false, true] {
            let (video, audio) = (avc(), aac());
            let mut mux = Mux::new(with_video.then_some(&video), Some(&audio)).unwrap();
            let mut out = Vec::new();
            let mut starts = 0;
            for frame in 0..100i64 {
                let ms = frame * 1024 * 1000 / 44_100;
                let unit = Unit { dts: ms * 90, pts: ms * 90, keyframe: true, data: &[5; 300] };
                let start = mux.audio(&mut out, &audio, &unit, ms * 90).unwrap();
                starts += u32::from(start);
            }
            let tables = demux(&out, PID_PMT);
            assert!((24..=26).contains(&tables.pes.len()), "{}", tables.pes.len());
            assert_eq!(starts > 0, !with_video);
            let clock = demux(&out, if with_video { PID_VIDEO } else { PID_AUDIO });
            assert!(clock.clocks.windows(2).all(|pair| pair[1] - pair[0] <= 9_000));
            assert!(clock.clocks.len() > 20);
            let frames = demux(&out, PID_AUDIO);
            assert_eq!(frames.pes.len(), 100);
            let pes = &frames.pes[99];
            assert_eq!(usize::from(u16::from_be_bytes([pes[4], pes[5]])), pes.len() - 6);
            assert_eq!(pes[14..16], [0xff, 0xf1]);
        }
    }

    #[test]
    fn seldom_units_leave_no_silence() {
        let config = avc();
        for with_audio in [false, true] {
            let audio = aac();
            let mut mux = Mux::new(Some(&config), with_audio.then_some(&audio)).unwrap();
            let mut out = Vec::new();
            for n in 0..20i64 {
                let unit = picture(n * 333, 0, n % 5 == 0, &[0, 0, 0, 1, 0x65]);
                let from = out.len();
                assert_eq!(mux.video(&mut out, &config, &unit), Ok(n % 5 == 0));
                assert_eq!(out[from + 1..from + 3], [0x40, 0], "begins with the tables");
                if with_audio {
                    // A little behind the pictures.
                    let ms = (n * 333 - 40).max(0);
                    let unit = Unit { dts: ms * 90, pts: ms * 90, keyframe: true, data: &[5; 30] };
                    mux.audio(&mut out, &audio, &unit, ms * 90).unwrap();
                }
            }
            let video = demux(&out, PID_VIDEO);
            assert_eq!(video.pes.len(), 20);
            assert!(video.clocks.windows(2).all(|two| (1..=9_000).contains(&(two[1] - two[0]))));
            assert!(demux(&out, PID_PAT).pes.len() >= 63);
        }
        // A hole is left as it is.
        let mut mux = Mux::new(Some(&config), None).unwrap();
        let mut out = Vec::new();
        for ms in [0, 90_000] {
            mux.video(&mut out, &config, &picture(ms, 0, true, &[0, 0, 0, 1, 0x65])).unwrap();
        }
        assert_eq!(out.len(), 6 * PACKET_BYTES);
    }

    #[test]
    fn times_roll_over_and_never_stand_still() {
        let config = avc();
        let mut mux = Mux::new(Some(&config), None).unwrap();
        let mut out = Vec::new();
        let wrap_ms = (1i64 << 33) / 90;
        for ms in [wrap_ms - 150, wrap_ms - 110, wrap_ms - 110, wrap_ms + 10] {
            mux.video(&mut out, &config, &picture(ms, 0, false, &[0, 0, 0, 1, 0x41])).unwrap();
        }
        let video = demux(&out, PID_VIDEO);
        let times: Vec<u64> = video.pes.iter().map(|pes| read_time(&pes[9..14])).collect();
        assert_eq!(times[2], times[1] + 1);
        assert!(times[1] > 1 << 32 && times[3] < 1 << 16, "{times:?}");
        assert!(video.clocks[2] > 1 << 32 && video.clocks[3] < 1 << 16);
    }

    #[test]
    fn a_second_track_shows_in_the_tables() {
        let (video, audio) = (avc(), aac());
        let mut mux = Mux::new(Some(&video), None).unwrap();
        let mut out = Vec::new();
        mux.video(&mut out, &video, &picture(0, 0, true, &[0, 0, 0, 1, 0x65])).unwrap();
        mux.set_tracks(Some(&video), Some(&audio)).unwrap();
        mux.set_tracks(Some(&video), Some(&audio)).unwrap();
        let unit = Unit { dts: 900, pts: 900, keyframe: true, data: &[5; 30] };
        mux.audio(&mut out, &audio, &unit, 900).unwrap();
        let tables = demux(&out, PID_PMT).pes;
        assert_eq!(tables.len(), 2);
        assert_eq!((tables[0][6], tables[1][6]), (0xc1, 0xc3));
        // What cannot be carried changes nothing.
        let flac = AudioConfig { detail: AudioDetail::G711, codec: AudioCodec::G711A, ..audio };
        let refused = mux.set_tracks(Some(&video), Some(&flac));
        assert_eq!(refused, Err(Unfit::Audio(AudioCodec::G711A)));
    }

    #[test]
    fn opus_packets_have_their_control_header() {
        let mut out = Vec::new();
        for (len, control) in [
            (10, &[0x7f, 0xe0, 10][..]),
            (255, &[0x7f, 0xe0, 255, 0]),
            (600, &[0x7f, 0xe0, 255, 255, 90]),
        ] {
            out.clear();
            opus_control(&mut out, len);
            assert_eq!(out, control);
        }
    }

    #[test]
    fn h265_has_its_own_delimiter() {
        let mut config = avc();
        config.codec = VideoCodec::H265;
        config.parameter_sets = vec![0, 0, 0, 1, 0x42, 1, 9];
        let data = [0, 0, 0, 3, 0x46, 1, 0x50, 0, 0, 0, 3, 0x26, 1, 7];
        let mut out = Vec::new();
        byte_stream(&mut out, &config, &picture(0, 0, true, &data)).unwrap();
        let expected = "00000001460150 00000001420109 00000001260107";
        assert_eq!(out, unhex(expected));
        // In-band sets are not doubled.
        let data = [0, 0, 0, 3, 0x42, 1, 8, 0, 0, 0, 3, 0x26, 1, 7];
        out.clear();
        byte_stream(&mut out, &config, &picture(0, 0, true, &data)).unwrap();
        assert_eq!(out, unhex("00000001460150 00000001420108 00000001260107"));
    }
}

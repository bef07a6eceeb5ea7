//! Where segments and parts end. Pure: frames' times in, cuts out.
//!
//! SRS's rules: a segment ends before a keyframe once it is `fragment * td_ratio` long, and before
//! an audio frame once it is `fragment * aof_ratio` long. RFC 8216 adds one that SRS does not keep:
//! no segment is longer than the target duration, which never changes. It is settled when the first
//! segment is complete; after that a segment ends earlier where it would become too long.

/// How segments are cut.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rules {
    /// How long segments should be, ms.
    pub fragment_ms: i64,
    /// Pictures cut from this many fragments on.
    pub td_ratio: f64,
    /// Audio cuts from this many fragments on.
    pub aof_ratio: f64,
    /// Pictures other than keyframes do not cut.
    pub wait_keyframe: bool,
    /// Cut where the wall clock passes a multiple of the fragment.
    pub floor: bool,
    /// Cut where the publisher's timestamps pass a multiple of the fragment.
    pub align: bool,
    /// How long parts should be, ms; 0: there are none.
    pub part_ms: i64,
}

/// A frame, as far as it matters here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame {
    /// Stream time, ms.
    pub time_ms: i64,
    /// A picture; else audio.
    pub video: bool,
    /// A segment may begin here.
    pub keyframe: bool,
    /// The time of day it came, ms since 1970.
    pub wall_ms: i64,
    /// The publisher's own timestamp, ms.
    pub grid_ms: i64,
}

/// What ends before a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// Nothing.
    Nothing,
    /// The part.
    Part,
    /// The segment, and with it the part.
    Segment,
}

/// Decides.
#[derive(Clone, Debug)]
pub struct Cutter {
    rules: Rules,
    open: Option<Open>,
    /// The target duration, s, once it is settled.
    target_s: Option<u64>,
    /// The longest part there may be, ms, once it is settled.
    part_target_ms: Option<i64>,
    /// The longest part so far, ms.
    part_longest_ms: i64,
    video: Track,
    audio: Track,
    /// The last keyframe, and the time from the one before to it, ms.
    keyframe_ms: Option<i64>,
    gop_ms: i64,
}

/// The segment that is open.
#[derive(Clone, Copy, Debug)]
struct Open {
    start_ms: i64,
    part_start_ms: i64,
    /// Which fragment of the wall clock, or of the publisher's, it began in.
    floor: i64,
}

/// How far apart a track's frames are.
#[derive(Clone, Copy, Debug, Default)]
struct Track {
    last_ms: Option<i64>,
    /// Sum and number of the steps.
    sum_ms: i64,
    count: i64,
}

impl Track {
    fn note(&mut self, time_ms: i64) {
        if let Some(last) = self.last_ms.replace(time_ms)
            && (1..STEP_MS_MAX).contains(&(time_ms - last))
        {
            self.sum_ms += time_ms - last;
            self.count += 1;
        }
    }

    /// The usual step, ms.
    fn step_ms(&self) -> i64 {
        if self.count == 0 { STEP_MS_USUAL } else { (self.sum_ms / self.count).max(1) }
    }
}

/// A longer step is a gap.
const STEP_MS_MAX: i64 = 1_000;
/// A step when none is known.
const STEP_MS_USUAL: i64 = 40;
/// No shorter segment is cut (SRS: twice its shortest segment).
const SEGMENT_MS_MIN: i64 = 200;
/// How much longer than the target a segment may be: it is rounded (RFC 8216 4.3.3.1).
const TARGET_SLACK_MS: i64 = 400;

impl Cutter {
    /// Nothing is open.
    pub fn new(rules: Rules) -> Cutter {
        Cutter {
            rules,
            open: None,
            target_s: None,
            part_target_ms: None,
            part_longest_ms: 0,
            video: Track::default(),
            audio: Track::default(),
            keyframe_ms: None,
            gop_ms: 0,
        }
    }

    /// Goes on with what playlists of the same stream have said already: it must not change.
    pub fn keep_targets(&mut self, target_s: u64, part_target_ms: Option<i64>) {
        self.target_s = Some(target_s);
        self.part_target_ms = part_target_ms.filter(|_| self.rules.part_ms > 0);
    }

    /// The target duration, s, once the first segment is complete.
    pub fn target_s(&self) -> Option<u64> {
        self.target_s
    }

    /// The part target, ms, if there are parts, once the first segment is complete.
    pub fn part_target_ms(&self) -> Option<i64> {
        self.part_target_ms
    }

    /// When the open segment began, ms of stream time.
    pub fn start_ms(&self) -> Option<i64> {
        self.open.map(|open| open.start_ms)
    }

    /// True when pictures have been seen since the tracks became what they are.
    pub fn has_video(&self) -> bool {
        self.video.last_ms.is_some()
    }

    /// Pictures a second, as they come; `None` while that is not known.
    pub fn frames_per_second(&self) -> Option<f64> {
        let Track { sum_ms, count, .. } = self.video;
        (count >= 10 && sum_ms > 0).then(|| count as f64 * 1_000.0 / sum_ms as f64)
    }

    /// The tracks are others from here on.
    pub fn forget_tracks(&mut self) {
        (self.video, self.audio) = Default::default();
        (self.keyframe_ms, self.gop_ms) = (None, 0);
    }

    /// What ends before this frame. Nothing is changed.
    pub fn before(&self, frame: &Frame) -> Cut {
        let Some(open) = &self.open else { return Cut::Nothing };
        let length_ms = frame.time_ms - open.start_ms;
        let fragments = |ratio: f64| (self.rules.fragment_ms as f64 * ratio) as i64;
        if length_ms >= SEGMENT_MS_MIN {
            let step_ms = if frame.video { self.video.step_ms() } else { self.audio.step_ms() };
            let due = match self.rules.floor || self.rules.align {
                true => self.floor(frame) != open.floor,
                false => length_ms >= fragments(self.rules.td_ratio),
            };
            let limit_ms = match self.target_s {
                Some(target_s) => target_s as i64 * 1_000 + TARGET_SLACK_MS,
                None => fragments(self.rules.aof_ratio.max(self.rules.td_ratio) * 2.0),
            };
            let fits = |more_ms: i64| length_ms + more_ms <= limit_ms;
            let leads = frame.keyframe || (frame.video && !self.rules.wait_keyframe);
            // A later keyframe would be too late.
            let since = self.keyframe_ms.map_or(0, |before| frame.time_ms - before);
            let gop_ms = self.gop_ms.max(since);
            let last_chance = self.target_s.is_some() && frame.keyframe && !fits(gop_ms);
            let forced = !frame.video && length_ms >= fragments(self.rules.aof_ratio);
            // With pictures, theirs is the time that counts; audio may be ahead of them a little.
            let decides = frame.video || !self.has_video();
            if (frame.video && due && leads) || last_chance || forced || (decides && !fits(step_ms))
            {
                return Cut::Segment;
            }
        }
        if self.rules.part_ms > 0 && frame.video == self.has_video() && self.part_is_full(frame) {
            return Cut::Part;
        }
        Cut::Nothing
    }

    fn part_is_full(&self, frame: &Frame) -> bool {
        let Some(open) = &self.open else { return false };
        let length_ms = frame.time_ms - open.part_start_ms;
        let step_ms = self.part_track().step_ms();
        // The number of frames that is nearest to the wish, so that parts are equally long.
        let over = self.part_target_ms.is_some_and(|target| length_ms + step_ms > target);
        length_ms > 0 && (length_ms + step_ms / 2 >= self.usual_part_ms() || over)
    }

    fn part_track(&self) -> &Track {
        if self.has_video() { &self.video } else { &self.audio }
    }

    fn usual_part_ms(&self) -> i64 {
        let step_ms = self.part_track().step_ms();
        step_ms * ((self.rules.part_ms + step_ms / 2) / step_ms).max(1)
    }

    /// The frame was taken up. A segment begins with it if none is open.
    pub fn take(&mut self, frame: &Frame) {
        let track = if frame.video { &mut self.video } else { &mut self.audio };
        track.note(frame.time_ms);
        if frame.video
            && frame.keyframe
            && let Some(before) = self.keyframe_ms.replace(frame.time_ms)
        {
            self.gop_ms = (frame.time_ms - before).max(0);
        }
        if self.open.is_none() {
            let (start_ms, floor) = (frame.time_ms, self.floor(frame));
            self.open = Some(Open { start_ms, part_start_ms: start_ms, floor });
        }
    }

    /// The part ends at this time; how long it is, ms.
    pub fn end_part(&mut self, time_ms: i64) -> i64 {
        let Some(open) = &mut self.open else { return 0 };
        let length_ms = (time_ms - open.part_start_ms).max(0);
        open.part_start_ms = time_ms.max(open.part_start_ms);
        // A gap between two frames is no part that could be announced.
        let length_ms = self.part_target_ms.map_or(length_ms, |target| length_ms.min(target));
        self.part_longest_ms = self.part_longest_ms.max(length_ms);
        length_ms
    }

    /// The segment ends at this time; how long it is, ms. The first one settles the targets.
    pub fn end_segment(&mut self, time_ms: i64) -> i64 {
        let Some(open) = self.open.take() else { return 0 };
        let length_ms = (time_ms - open.start_ms).max(0);
        let mut fragment_ms = (self.rules.fragment_ms as f64 * self.rules.td_ratio) as i64;
        // The first segment may begin anywhere in its multiple, and keyframes need not be at the
        // begin of one: then later segments are longer than the first by up to a GOP.
        let gop_ms = self.gop_ms.max(self.keyframe_ms.map_or(0, |last| time_ms - last));
        let fits = gop_ms > 0 && self.rules.fragment_ms % gop_ms == 0;
        if self.rules.align && !fits {
            fragment_ms = self.rules.fragment_ms + gop_ms;
        }
        let target_s = *self.target_s.get_or_insert_with(|| {
            let longest_ms = length_ms.max(fragment_ms).max(1);
            (longest_ms as u64).div_ceil(1_000)
        });
        if self.rules.part_ms > 0 && self.part_target_ms.is_none() {
            // A little more than parts are: publishers round to milliseconds.
            let usual_ms = self.usual_part_ms();
            self.part_target_ms = Some((usual_ms + usual_ms / 20 + 2).max(self.part_longest_ms));
        }
        // A gap in the stream does not make the segment longer.
        length_ms.min(target_s as i64 * 1_000 + TARGET_SLACK_MS)
    }

    /// The open segment is none after all.
    pub fn drop_segment(&mut self) {
        self.open = None;
    }

    /// Nothing comes after what there is; where the open segment ends, ms.
    pub fn end_ms(&self) -> i64 {
        let track = self.part_track();
        let last = track.last_ms.map(|last| last + track.step_ms());
        last.or(self.open.map(|open| open.start_ms)).unwrap_or(0)
    }

    fn floor(&self, frame: &Frame) -> i64 {
        let time_ms = if self.rules.align { frame.grid_ms } else { frame.wall_ms };
        time_ms.div_euclid(self.rules.fragment_ms.max(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULES: Rules = Rules {
        fragment_ms: 10_000,
        td_ratio: 1.0,
        aof_ratio: 2.1,
        wait_keyframe: true,
        floor: false,
        align: false,
        part_ms: 0,
    };

    /// Lengths of segments, ms, of `seconds` of pictures every 40 ms, with the keyframes that `key`
    /// tells by time, and audio every 20 ms if `audio`.
    fn segments(
        rules: Rules,
        seconds: i64,
        video: bool,
        audio: bool,
        key: fn(i64) -> bool,
    ) -> (Vec<i64>, Cutter) {
        let mut cutter = Cutter::new(rules);
        let mut out = Vec::new();
        for time_ms in (0..seconds * 1_000).step_by(20) {
            let wall_ms = 1_000_000_003_000 + time_ms;
            let mut frames = Vec::new();
            if video && time_ms % 40 == 0 {
                frames.push(Frame {
                    time_ms,
                    video: true,
                    keyframe: key(time_ms),
                    wall_ms,
                    grid_ms: time_ms,
                });
            }
            if audio {
                frames.push(Frame {
                    time_ms,
                    video: false,
                    keyframe: !video,
                    wall_ms,
                    grid_ms: time_ms,
                });
            }
            for frame in frames {
                match cutter.before(&frame) {
                    Cut::Segment => out.push(cutter.end_segment(frame.time_ms)),
                    Cut::Part => _ = cutter.end_part(frame.time_ms),
                    Cut::Nothing => {}
                }
                cutter.take(&frame);
            }
        }
        (out, cutter)
    }

    #[test]
    fn keyframes_cut_and_nothing_is_longer_than_the_target() {
        let (lengths, cutter) = segments(RULES, 60, true, true, |t| t % 2_000 == 0);
        assert_eq!(lengths, [10_000; 5]);
        assert_eq!(cutter.target_s(), Some(10));
        // GOPs of 4 s: the first segment settles the target.
        let (lengths, cutter) = segments(RULES, 60, true, true, |t| t % 4_000 == 0);
        assert_eq!((lengths, cutter.target_s()), (vec![12_000; 4], Some(12)));
        // Longer GOPs later: cut at the keyframe before, or where the target is reached.
        let key = |t: i64| if t < 21_000 { t % 2_000 == 0 } else { t % 6_000 == 0 };
        let (lengths, _) = segments(RULES, 80, true, true, key);
        assert_eq!(lengths[..5], [10_000, 10_000, 10_000, 6_000, 6_000]);
        let key = |t: i64| if t < 21_000 { t % 2_000 == 0 } else { t % 12_000 == 0 };
        let (lengths, _) = segments(RULES, 80, true, true, key);
        assert_eq!(lengths[..5], [10_000, 10_000, 10_400, 5_600, 10_400]);
        assert!(lengths.iter().all(|length| *length <= 10_400));
    }

    /// Variants of one stream are cut at the same times, whenever they begin.
    #[test]
    fn aligned_cuts() {
        let rules = Rules { fragment_ms: 2_000, align: true, ..RULES };
        for (gop_ms, target_s) in [(1_000, 2), (2_000, 2), (1_480, 4), (3_000, 5)] {
            let mut all = Vec::new();
            for begin_ms in [0, 9 * gop_ms, 20 * gop_ms] {
                let (mut cutter, mut cuts) = (Cutter::new(rules), Vec::new());
                for grid_ms in (begin_ms..120_000).step_by(40) {
                    let time_ms = grid_ms - begin_ms;
                    let keyframe = grid_ms % gop_ms == 0;
                    let frame = Frame { time_ms, video: true, keyframe, wall_ms: 0, grid_ms };
                    if cutter.before(&frame) == Cut::Segment {
                        cutter.end_segment(time_ms);
                        cuts.push(grid_ms);
                    }
                    cutter.take(&frame);
                }
                assert!(cutter.target_s().unwrap() <= target_s, "{gop_ms} ms");
                cuts.retain(|cut| *cut > 70_000);
                all.push(cuts);
            }
            assert!(all[0].len() > 15 && all[0] == all[1] && all[1] == all[2], "{gop_ms}: {all:?}");
        }
    }

    #[test]
    fn audio_cuts_where_no_keyframe_comes() {
        let (lengths, cutter) = segments(RULES, 70, true, true, |t| t == 0);
        assert_eq!((lengths, cutter.target_s()), (vec![21_000; 3], Some(21)));
        let (lengths, _) = segments(RULES, 70, false, true, |_| false);
        assert_eq!(lengths, [21_000; 3]);
        // Without audio the limit of the first segment is the last resort.
        let (lengths, _) = segments(RULES, 100, true, false, |t| t == 0);
        assert_eq!(lengths.len(), 2);
        let rules = Rules { wait_keyframe: false, ..RULES };
        let (lengths, _) = segments(rules, 45, true, true, |t| t == 0);
        assert_eq!(lengths, [10_000; 4]);
    }

    #[test]
    fn ratios_and_the_wall_clock() {
        let rules = Rules { td_ratio: 1.5, ..RULES };
        let (lengths, _) = segments(rules, 60, true, true, |t| t % 2_000 == 0);
        assert_eq!(lengths, [16_000; 3]);
        // The wall clock begins 3 s into a fragment.
        let rules = Rules { floor: true, ..RULES };
        let (lengths, cutter) = segments(rules, 50, true, true, |t| t % 1_000 == 0);
        assert_eq!(
            (lengths, cutter.target_s()),
            (vec![7_000, 10_000, 10_000, 10_000, 10_000], Some(10))
        );
    }

    #[test]
    fn parts_are_equally_long() {
        for (step_ms, wish_ms, expected) in
            [(40, 200, 200), (33, 200, 198), (42, 200, 210), (80, 200, 240), (40, 500, 520)]
        {
            let rules = Rules { part_ms: wish_ms, fragment_ms: 2_000, ..RULES };
            let mut cutter = Cutter::new(rules);
            let mut parts = Vec::new();
            for index in 0..400 {
                let time_ms = index * step_ms;
                let keyframe = index % 50 == 0;
                let frame =
                    Frame { time_ms, video: true, keyframe, wall_ms: time_ms, grid_ms: time_ms };
                match cutter.before(&frame) {
                    Cut::Part => parts.push(cutter.end_part(time_ms)),
                    Cut::Segment => {
                        parts.push(-cutter.end_part(time_ms));
                        cutter.end_segment(time_ms);
                    }
                    Cut::Nothing => {}
                }
                cutter.take(&frame);
            }
            let target = cutter.part_target_ms().expect("settled");
            // Who does not end a segment (those are negative here) has the full length.
            let full = parts.iter().skip(3).filter(|part| **part > 0);
            assert!(full.clone().count() > 10);
            for part in full {
                assert!(*part <= target && *part * 100 >= target * 85, "{part} of {target}");
                assert_eq!(*part, expected, "steps of {step_ms}");
            }
        }
    }

    #[test]
    fn a_gap_is_no_long_segment() {
        let (_, mut cutter) = segments(RULES, 25, true, true, |t| t % 2_000 == 0);
        let frame = Frame { time_ms: 34_000, video: true, keyframe: false, wall_ms: 0, grid_ms: 0 };
        assert_eq!(cutter.before(&frame), Cut::Segment);
        assert_eq!(cutter.end_segment(34_000), 10_400);
        assert_eq!(cutter.start_ms(), None);
    }
}

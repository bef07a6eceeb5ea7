//! The timeline of a stream: the publisher's wire timestamps become one monotonic clock in
//! milliseconds that all players of the stream share.
//!
//! The rule, in the order in which it is applied to each frame:
//!
//! 1. The first frame of a stream keeps its own timestamp. From then on the output equals the input
//!    for as long as the publisher behaves, whatever the distance from zero.
//! 2. A wire timestamp is read as the value nearest to the frame before it, modulo 2^32, or modulo
//!    2^31 for publishers that keep 31 bits. The output does not wrap; its low 32 (31) bits are
//!    what the publisher sent.
//! 3. A step forward of up to 10 s is a gap and is kept. A step back of up to 1 s is audio and
//!    video interleaved out of order: the frame is given the last output's time, the frames after
//!    it keep their own. So the output never goes back, and it recovers by itself.
//! 4. Any other step is a discontinuity: the frame comes 10 ms after the last output, and the
//!    frames that follow keep their distance to it. The base before it is remembered, because audio
//!    and video seldom jump in the same message: stragglers of the old base are still placed by it.
//! 5. A publisher that comes back ([`Timeline::reconnect`]) goes on after the last output.
//!
//! Sequence headers and metadata often carry timestamp 0 in the middle of a stream, so they do not
//! drive the clock: [`Timeline::map_header`] places them on it.

use crate::limits::{TIMELINE_BACK_MS_MAX, TIMELINE_FORWARD_MS_MAX, TIMELINE_STEP_MS};

/// A frame's place on the timeline of its stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mapped {
    /// Decoding time in milliseconds, never less than that of the frame before.
    pub dts: i64,
    /// The publisher's clock jumped or started again between the frame before and this one.
    pub discontinuity: bool,
}

/// Maps the timestamps of one stream. Lives as long as the stream does, over all its publishers.
#[derive(Debug, Clone, Default)]
pub struct Timeline {
    /// The last output; `None` until the first frame.
    last: Option<i64>,
    /// The base in use, then the one before it.
    bases: [Option<Base>; 2],
    /// The publisher came back: milliseconds to leave between the last output and its first frame.
    resume_ms: Option<i64>,
}

/// One run of the publisher's clock: a wire timestamp and where it lies on the timeline.
#[derive(Debug, Clone, Copy)]
struct Base {
    wire: u32,
    dts: i64,
}

impl Timeline {
    /// A timeline without a first frame.
    pub fn new() -> Timeline {
        Timeline::default()
    }

    /// Places the next frame. `wire` is its timestamp as received, in milliseconds.
    pub fn map(&mut self, wire: u32) -> Mapped {
        let Some(last) = self.last else {
            let dts = i64::from(wire);
            self.anchor(wire, dts, None);
            return Mapped { dts, discontinuity: false };
        };
        if let Some(gap) = self.resume_ms.take() {
            let dts = last.saturating_add(gap);
            self.anchor(wire, dts, None);
            return Mapped { dts, discontinuity: true };
        }
        for index in 0..self.bases.len() {
            let Some(dts) = self.bases[index].and_then(|base| base.place(wire, last)) else {
                continue;
            };
            // The base follows the frame even where the output is held back, or a run of
            // small steps back would pin the clock instead of adding up to a discontinuity.
            self.bases[index] = Some(Base { wire, dts });
            self.bases[..=index].rotate_right(1);
            let dts = dts.max(last);
            self.last = Some(dts);
            return Mapped { dts, discontinuity: false };
        }
        let dts = last.saturating_add(TIMELINE_STEP_MS);
        self.anchor(wire, dts, self.bases[0]);
        Mapped { dts, discontinuity: true }
    }

    /// Where a sequence header or metadata message with this wire timestamp belongs, in
    /// milliseconds: at its own time if that lies up to 1 s ahead of the last frame, otherwise with
    /// the last frame. 0 before the first frame. It never causes a discontinuity.
    pub fn map_header(&mut self, wire: u32) -> i64 {
        let Some(last) = self.last else { return 0 };
        if self.resume_ms.is_some() {
            return last;
        }
        let placed = self.bases[0].and_then(|base| base.place(wire, last));
        match placed {
            Some(dts) if (last..=last + TIMELINE_BACK_MS_MAX).contains(&dts) => {
                self.last = Some(dts);
                dts
            }
            _ => last,
        }
    }

    /// The next frame comes from a publisher that is new or has come back, `elapsed_ms` after the
    /// last frame of the one before. Its first frame follows the last output by that much, by
    /// at least one step. Without a frame before, nothing changes.
    pub fn reconnect(&mut self, elapsed_ms: u64) {
        if self.last.is_some() {
            let elapsed = i64::try_from(elapsed_ms).unwrap_or(i64::MAX).min(RESUME_MS_MAX);
            self.resume_ms = Some(elapsed.max(TIMELINE_STEP_MS));
        }
    }

    /// The last output in milliseconds; `None` before the first frame.
    pub fn last(&self) -> Option<i64> {
        self.last
    }

    /// Starts a new run of the clock: `wire` lies at `dts` from now on.
    fn anchor(&mut self, wire: u32, dts: i64, before: Option<Base>) {
        self.bases = [Some(Base { wire, dts }), before];
        self.last = Some(dts);
    }
}

impl Base {
    /// Where `wire` lies by this base; `None` if that is too far from the last output.
    fn place(self, wire: u32, last: i64) -> Option<i64> {
        let step32 = i64::from(wire.wrapping_sub(self.wire).cast_signed());
        // A difference of 31 bits, its sign extended.
        let step31 = i64::from((wire.wrapping_sub(self.wire) << 1).cast_signed() >> 1);
        [step32, step31].into_iter().map(|step| self.dts + step).find(|dts| {
            (last - TIMELINE_BACK_MS_MAX..=last + TIMELINE_FORWARD_MS_MAX).contains(dts)
        })
    }
}

/// A gap longer than a day says nothing to a player any more.
const RESUME_MS_MAX: i64 = 24 * 60 * 60 * 1000;

#[cfg(test)]
mod tests {
    use super::*;

    fn run(timeline: &mut Timeline, wire: &[u32]) -> Vec<(i64, bool)> {
        wire.iter()
            .map(|wire| timeline.map(*wire))
            .map(|mapped| (mapped.dts, mapped.discontinuity))
            .collect()
    }

    fn times(wire: &[u32]) -> Vec<i64> {
        run(&mut Timeline::new(), wire).into_iter().map(|(dts, _)| dts).collect()
    }

    #[test]
    fn a_good_publisher_keeps_its_timestamps() {
        for first in [0, 5_000, 0x7fff_0000, 0xffff_0000] {
            let mut timeline = Timeline::new();
            let mut wire = first;
            for step in [0, 23, 10, 0, 33, 900, 9_999, 10_000, 1] {
                wire += step;
                let mapped = timeline.map(wire);
                assert_eq!(mapped, Mapped { dts: i64::from(wire), discontinuity: false });
            }
        }
    }

    #[test]
    fn wraps_at_32_and_at_31_bits() {
        assert_eq!(
            times(&[0xffff_ffe0, 0xffff_fff5, 0x0a, 0xffff_ffff, 0x20]),
            [0xffff_ffe0, 0xffff_fff5, 0x1_0000_000a, 0x1_0000_000a, 0x1_0000_0020]
        );
        assert_eq!(
            times(&[0x7fff_ffe0, 0x7fff_fff5, 0x0a, 0x7fff_ffff, 0x20]),
            [0x7fff_ffe0, 0x7fff_fff5, 0x8000_000a, 0x8000_000a, 0x8000_0020]
        );
        // A publisher of 32 bits passes 2^31 without noticing.
        assert_eq!(
            times(&[0x7fff_fff5, 0x8000_000a, 0x8000_0020]),
            [0x7fff_fff5, 0x8000_000a, 0x8000_0020]
        );
    }

    #[test]
    fn wraps_again_and_again() {
        let mut timeline = Timeline::new();
        timeline.map(0);
        let mut clock = 0i64;
        for _ in 0..3 * ((1i64 << 31) / 10_000) {
            clock += 10_000;
            let wire = (clock & 0x7fff_ffff) as u32;
            assert_eq!(timeline.map(wire), Mapped { dts: clock, discontinuity: false });
        }
        assert!(clock > 3 * ((1 << 31) - 10_000));
    }

    #[test]
    fn interleaving_recovers_by_itself() {
        // Audio arrives up to a second late between video frames.
        assert_eq!(
            times(&[1_000, 1_040, 1_010, 1_080, 900, 1_120]),
            [1_000, 1_040, 1_040, 1_080, 1_080, 1_120]
        );
    }

    #[test]
    fn jumps_become_one_step() {
        let day = 24 * 3_600_000;
        let mut timeline = Timeline::new();
        assert_eq!(
            run(&mut timeline, &[1_000, 1_000 + day, 1_033 + day]),
            [(1_000, false), (1_010, true), (1_043, false)]
        );
        // An hour back, and from there on.
        assert_eq!(
            run(&mut timeline, &[1_066 + day - 3_600_000, 1_100 + day - 3_600_000]),
            [(1_053, true), (1_087, false)]
        );
        // A start from 0 in the middle, as when a publisher loops a file.
        assert_eq!(run(&mut timeline, &[0, 33]), [(1_097, true), (1_130, false)]);
    }

    #[test]
    fn gaps_up_to_ten_seconds_are_kept() {
        assert_eq!(
            run(&mut Timeline::new(), &[0, 10_000, 20_001]),
            [(0, false), (10_000, false), (10_010, true)]
        );
    }

    #[test]
    fn all_zero_stands_still() {
        assert_eq!(run(&mut Timeline::new(), &[0, 0, 0]), [(0, false); 3]);
    }

    #[test]
    fn tracks_that_do_not_jump_together() {
        // Video jumps a day ahead, audio follows three messages later.
        let day = 24 * 3_600_000;
        assert_eq!(
            run(&mut Timeline::new(), &[990, 1_000, day, 1_023, day + 33, day + 20, day + 66]),
            [
                (990, false),
                (1_000, false),
                (1_010, true),
                (1_023, false),
                (1_043, false),
                (1_043, false),
                (1_076, false)
            ]
        );
        // Audio and video with clocks an hour apart go side by side for good.
        let mut timeline = Timeline::new();
        let hour = 3_600_000;
        assert_eq!(timeline.map(0).dts, 0);
        assert!(timeline.map(hour).discontinuity);
        for step in 1..1_000u32 {
            let video = timeline.map(step * 33);
            assert_eq!(video, Mapped { dts: i64::from(step * 33), discontinuity: false });
            let audio = timeline.map(hour + step * 33);
            assert_eq!(audio, Mapped { dts: i64::from(step * 33) + 10, discontinuity: false });
        }
    }

    #[test]
    fn small_steps_back_add_up_to_a_discontinuity() {
        let wire: Vec<u32> = (0..100).map(|step| 1_000_000 - step * 300).collect();
        let mapped = run(&mut Timeline::new(), &wire);
        assert!(mapped.is_sorted_by_key(|(dts, _)| *dts));
        assert!(mapped.iter().filter(|(_, jump)| *jump).count() > 10);
        assert_eq!(mapped[4], (1_000_010, true));
    }

    #[test]
    fn reconnect_goes_on_after_the_last_output() {
        let mut timeline = Timeline::new();
        timeline.reconnect(500);
        assert_eq!(run(&mut timeline, &[70_000, 70_033]), [(70_000, false), (70_033, false)]);
        timeline.reconnect(3_000);
        // The header of the new publisher comes before its first frame.
        assert_eq!(timeline.map_header(0), 70_033);
        assert_eq!(run(&mut timeline, &[0, 33]), [(73_033, true), (73_066, false)]);
        timeline.reconnect(0);
        assert_eq!(run(&mut timeline, &[33, 66]), [(73_076, true), (73_109, false)]);
        // The old publisher's clock is forgotten: its next value is a jump like any other.
        timeline.reconnect(u64::MAX);
        assert_eq!(timeline.map(5).dts, 73_109 + RESUME_MS_MAX);
    }

    #[test]
    fn headers_follow_the_clock_without_driving_it() {
        let mut timeline = Timeline::new();
        assert_eq!(timeline.map_header(77), 0);
        timeline.map(5_000);
        assert_eq!(timeline.map_header(0), 5_000);
        assert_eq!(timeline.map_header(5_033), 5_033);
        assert_eq!(timeline.map(5_033), Mapped { dts: 5_033, discontinuity: false });
        assert_eq!(timeline.map_header(u32::MAX), 5_033);
        assert_eq!(timeline.map(5_066), Mapped { dts: 5_066, discontinuity: false });
    }

    proptest::proptest! {
        #[test]
        fn never_goes_back(steps in proptest::collection::vec((0u8..8, 0u32..=u32::MAX), 0..200)) {
            let mut timeline = Timeline::new();
            let (mut wire, mut last) = (0u32, i64::MIN);
            for (kind, value) in steps {
                let dts = match kind {
                    0 => { wire = value; timeline.map(wire).dts }
                    1 => timeline.map_header(value),
                    2 => { timeline.reconnect(u64::from(value)); continue }
                    3 => { wire = wire.wrapping_sub(value % 2_000); timeline.map(wire).dts }
                    _ => { wire = wire.wrapping_add(value % 100); timeline.map(wire).dts }
                };
                proptest::prop_assert!(dts >= last);
                last = dts;
            }
        }
    }
}

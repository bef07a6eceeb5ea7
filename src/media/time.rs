//! The timeline of a stream: the publisher's wire timestamps become one monotonic clock in
//! milliseconds that all players of the stream share.
//!
//! The rule, in the order in which it is applied to each frame:
//!
//! 1. The first frame of a stream keeps its own timestamp. From then on the output equals the input
//!    for as long as the publisher behaves, whatever the distance from zero.
//! 2. A wire timestamp is read as the value nearest to the frame before it, modulo 2^32, or modulo
//!    2^31 for publishers that keep 31 bits. The output does not wrap; its low 32 (31) bits are what
//!    the publisher sent.
//! 3. A step forward of up to 10 s is a gap and is kept. A step back of up to 1 s is audio and video
//!    interleaved out of order: the frame is given the last output's time, the frames after it
//!    keep their own. So the output never goes back, and it recovers by itself.
//! 4. Any other step is a discontinuity: the frame comes 10 ms after the last output, and the frames
//!    that follow keep their distance to it. The base before it is remembered, because audio and
//!    video seldom jump in the same message: stragglers of the old base are still placed by it.
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

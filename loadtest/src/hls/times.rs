//! What is counted of viewers, and when each part was there for the first of them.

use std::collections::{BTreeMap, VecDeque};

use hdrhistogram::Histogram;

use crate::stats::{record, times};

/// What viewers of a group saw beside what all players see.
#[derive(Clone, Debug)]
pub struct HlsStats {
    /// Requests sent, by what they are for.
    pub playlists: u64,
    /// Whole segments.
    pub segments: u64,
    /// Parts.
    pub parts: u64,
    /// Initialisation segments.
    pub inits: u64,
    /// Bytes of playlists' bodies.
    pub playlist_bytes: u64,
    /// Bytes of the bodies of segments and parts.
    pub media_bytes: u64,
    /// Playlists that left out what the viewer knew.
    pub deltas: u64,
    /// Answers other than 200, by status.
    pub refused: BTreeMap<u16, u64>,
    /// Segments that had left the playlist before they were asked for.
    pub missed: u64,
    /// Segments and parts that came after their turn to be played.
    pub late: u64,
    /// Times a server closed a connection that could have served longer.
    pub reconnects: u64,
    /// Request to answer of playlists that are not held back.
    pub playlist: Histogram<u64>,
    /// The publisher's sending of the message that ends a part to the answer that names the part.
    pub reload: Histogram<u64>,
    /// The first viewer's answer that names a part to the others'.
    pub reload_after_first: Histogram<u64>,
    /// Request to last byte of segments.
    pub segment: Histogram<u64>,
    /// Request, or the answer before it on the connection, to last byte of parts.
    pub part: Histogram<u64>,
}

impl Default for HlsStats {
    fn default() -> Self {
        HlsStats {
            playlists: 0,
            segments: 0,
            parts: 0,
            inits: 0,
            playlist_bytes: 0,
            media_bytes: 0,
            deltas: 0,
            refused: BTreeMap::new(),
            missed: 0,
            late: 0,
            reconnects: 0,
            playlist: times(),
            reload: times(),
            reload_after_first: times(),
            segment: times(),
            part: times(),
        }
    }
}

impl HlsStats {
    /// Adds another worker's part.
    pub fn merge(&mut self, o: &HlsStats) {
        self.playlists += o.playlists;
        self.segments += o.segments;
        self.parts += o.parts;
        self.inits += o.inits;
        self.playlist_bytes += o.playlist_bytes;
        self.media_bytes += o.media_bytes;
        self.deltas += o.deltas;
        for (status, n) in &o.refused {
            *self.refused.entry(*status).or_default() += n;
        }
        self.missed += o.missed;
        self.late += o.late;
        self.reconnects += o.reconnects;
        let same = "histograms of equal bounds can be added";
        self.playlist.add(&o.playlist).expect(same);
        self.reload.add(&o.reload).expect(same);
        self.reload_after_first.add(&o.reload_after_first).expect(same);
        self.segment.add(&o.segment).expect(same);
        self.part.add(&o.part).expect(same);
    }

    /// From here on times count.
    pub fn forget_times(&mut self) {
        let times = [
            &mut self.playlist,
            &mut self.reload,
            &mut self.reload_after_first,
            &mut self.segment,
            &mut self.part,
        ];
        times.into_iter().for_each(Histogram::reset);
    }

    /// All requests.
    pub fn requests(&self) -> u64 {
        self.playlists + self.segments + self.parts + self.inits
    }
}

/// Answers to held requests for one stream's playlist, as one worker's viewers got them, until it
/// is known when the part they name was complete.
///
/// A part ends when its publisher sends the first message that is not in it. A viewer that reads
/// the media finds that time in the part behind it.
#[derive(Debug, Default)]
pub struct PartTimes {
    parts: VecDeque<PartTime>,
}

#[derive(Debug)]
struct PartTime {
    place: (u64, u64),
    first: u64,
    /// Answers that wait for the time of the end.
    answers: Vec<u64>,
    ended: Option<u64>,
}

/// So many parts are waited for; what was never ended counts for the distance to the first only.
const PARTS_MAX: usize = 32;

impl PartTimes {
    /// A held request for this part was answered.
    pub fn answered(&mut self, place: (u64, u64), now: u64, stats: &mut HlsStats) {
        let at = match self.parts.binary_search_by_key(&place, |part| part.place) {
            Ok(at) => at,
            // Longer ago than is kept.
            Err(0) if self.parts.len() >= PARTS_MAX => return,
            Err(at) => {
                let part = PartTime { place, first: now, answers: Vec::new(), ended: None };
                self.parts.insert(at, part);
                let over = self.parts.len() > PARTS_MAX;
                if over {
                    self.parts.pop_front();
                }
                at - usize::from(over)
            }
        };
        let part = &mut self.parts[at];
        record(&mut stats.reload_after_first, now.saturating_sub(part.first));
        match part.ended {
            Some(ended) => record(&mut stats.reload, now.saturating_sub(ended)),
            None => part.answers.push(now),
        }
    }

    /// The first message of this part was sent at that time: the part before it was complete.
    pub fn began(&mut self, place: (u64, u64), sent: u64, stats: &mut HlsStats) {
        let behind = self.parts.partition_point(|part| part.place < place);
        let Some(part) = behind.checked_sub(1).and_then(|at| self.parts.get_mut(at)) else {
            return;
        };
        // Something between the two that nobody here was answered.
        let follows = match place {
            (number, 0) => part.place.0 + 1 == number,
            (number, index) => part.place == (number, index - 1),
        };
        if !follows || part.ended.is_some() {
            return;
        }
        part.ended = Some(sent);
        for answer in std::mem::take(&mut part.answers) {
            record(&mut stats.reload, answer.saturating_sub(sent));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_count_from_the_end_of_their_part() {
        let (mut times, mut stats) = (PartTimes::default(), HlsStats::default());
        times.answered((7, 3), 10_000_000, &mut stats);
        times.answered((7, 3), 13_000_000, &mut stats);
        times.answered((7, 4), 210_000_000, &mut stats);
        assert_eq!((stats.reload_after_first.len(), stats.reload.len()), (3, 0));
        // Histograms keep three digits.
        let ms = |h: &Histogram<u64>| (h.len(), (h.max() as f64 / 1_000.0).round());
        assert_eq!(ms(&stats.reload_after_first), (3, 3.0));
        times.began((7, 4), 8_000_000, &mut stats);
        assert_eq!(ms(&stats.reload), (2, 5.0));
        // Later answers for the same part, and a segment's last part.
        times.answered((7, 3), 14_000_000, &mut stats);
        assert_eq!(ms(&stats.reload), (3, 6.0));
        times.began((8, 0), 200_000_000, &mut stats);
        assert_eq!(ms(&stats.reload), (4, 10.0));
        // Not the next one.
        times.answered((8, 1), 300_000_000, &mut stats);
        times.began((9, 3), 301_000_000, &mut stats);
        assert_eq!(stats.reload.len(), 4);
        for index in 2..100 {
            times.answered((8, index), 0, &mut stats);
        }
        assert_eq!(times.parts.len(), PARTS_MAX);
    }
}

//! HTTP Live Streaming (RFC 8216 and its second edition): where to cut a stream, what playlists
//! say of it, how files are named, and a checker of what playlists have to keep to.
//!
//! A *segment* is what a playlist line stands for; a *part* is a piece of a segment that players
//! may have before the segment is complete. Segments are counted by their media sequence number.

pub mod check;
pub mod cutter;
pub mod playlist;
pub mod template;

pub use cutter::{Cut, Cutter, Frame, Rules};
pub use playlist::{Master, Media, PartLine, SegmentLine, Text};
pub use template::{Found, Template, Values};

/// Year, month, day, hour, minute, second and millisecond (UTC) of a time in ms since 1970.
pub fn civil(wall_ms: i64) -> [u32; 7] {
    let (days, ms) = (wall_ms.div_euclid(86_400_000), wall_ms.rem_euclid(86_400_000));
    // Days since 0000-03-01, in eras of 400 years; years begin in March so that leap days are last.
    let days = days + 719_468;
    let (era, day) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = year + era * 400 + i64::from(month <= 2);
    let parts = [year, month, day, ms / 3_600_000, ms / 60_000 % 60, ms / 1_000 % 60, ms % 1_000];
    parts.map(|part| part as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates() {
        assert_eq!(civil(0), [1970, 1, 1, 0, 0, 0, 0]);
        assert_eq!(civil(951_868_799_999), [2000, 2, 29, 23, 59, 59, 999]);
        assert_eq!(civil(951_868_800_000), [2000, 3, 1, 0, 0, 0, 0]);
        assert_eq!(civil(1_795_374_245_678), [2026, 11, 22, 19, 4, 5, 678]);
    }
}

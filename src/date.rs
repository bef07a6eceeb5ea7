//! The calendar: wall-clock times as dates (UTC, Gregorian), and the words that stand for their
//! parts in templates of file names. The words are those of SRS.

/// Words of year, month, day, hour, minute, second and millisecond, in the order of [`parts`].
pub const WORDS: [&str; 7] = ["2006", "01", "02", "15", "04", "05", "999"];

/// Digits of each part.
const DIGITS: [usize; 7] = [4, 2, 2, 2, 2, 2, 3];

/// Days from 0000-03-01 to 1970-01-01.
const EPOCH_DAYS: i64 = 719_468;

/// Days of 400 years.
const CYCLE: i64 = 146_097;

/// Year, month, day, hour, minute, second and millisecond of a time in ms since 1970.
pub fn parts(wall_ms: i64) -> [u32; 7] {
    let (days, ms) = (wall_ms.div_euclid(86_400_000), wall_ms.rem_euclid(86_400_000));
    // Years begin in March here, so that the leap day is a year's last; 400 of them always have as
    // many days.
    let since = days + EPOCH_DAYS;
    let (cycle, day) = (since.div_euclid(CYCLE), since.rem_euclid(CYCLE));
    let year = (day - day / 1_460 + day / 36_524 - day / (CYCLE - 1)) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    // Months from March on have 31 and 30 days in turns, five of them 153.
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let (month, later) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    let year = cycle * 400 + year + later;
    let parts = [year, month, day, ms / 3_600_000, ms / 60_000 % 60, ms / 1_000 % 60, ms % 1_000];
    parts.map(|part| part as u32)
}

/// Days from 1970-01-01 to a date.
pub fn days(year: i64, month: i64, day: i64) -> i64 {
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let leaps = year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400);
    365 * year + leaps + (153 * month + 2) / 5 + day - 1 - EPOCH_DAYS
}

/// What stands for each of [`WORDS`].
pub fn words(wall_ms: i64) -> [String; 7] {
    let parts = parts(wall_ms);
    std::array::from_fn(|index| format!("{:0width$}", parts[index], width = DIGITS[index]))
}

/// Digits of what stands for a word, if it is one of [`WORDS`].
pub fn digits(word: &str) -> Option<usize> {
    WORDS.iter().position(|known| *known == word).map(|index| DIGITS[index])
}

/// Date and time to the millisecond with a character between them: `2006-01-02T15:04:05.999`.
pub fn text(wall_ms: i64, between: char) -> String {
    let [year, month, day, hour, minute, second, ms] = parts(wall_ms);
    format!("{year:04}-{month:02}-{day:02}{between}{hour:02}:{minute:02}:{second:02}.{ms:03}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_those_of_the_calendar() {
        for (at, want) in [
            (0, [1970, 1, 1]),
            (59, [1970, 3, 1]),
            (11_016, [2000, 2, 29]),
            (11_017, [2000, 3, 1]),
            (19_782, [2024, 2, 29]),
            (20_454, [2026, 1, 1]),
            (47_540, [2100, 2, 28]),
            (47_541, [2100, 3, 1]),
            (-1, [1969, 12, 31]),
        ] {
            let parts = parts(at * 86_400_000);
            assert_eq!(parts[..3], want, "{at}");
            let [year, month, day] = want.map(i64::from);
            assert_eq!(days(year, month, day), at);
        }
        assert_eq!(parts(951_868_799_999), [2000, 2, 29, 23, 59, 59, 999]);
        assert_eq!(words(1_700_000_000_023), ["2023", "11", "14", "22", "13", "20", "023"]);
        assert_eq!(text(1_795_374_245_078, 'T'), "2026-11-22T19:04:05.078");
        assert_eq!((digits("2006"), digits("01"), digits("seq")), (Some(4), Some(2), None));
    }
}

//! Dates as HTTP writes them (RFC 9110 5.6.7): `Sun, 06 Nov 1994 08:49:37 GMT`.

use crate::date;

const DAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
const MONTHS: [&str; 12] =
    ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
/// Seconds of a day.
const DAY: i64 = 86_400;
/// The first and the last second that four digits of a year can say.
const RANGE: (i64, i64) = (-62_135_596_800, 253_402_300_799);

/// Seconds since 1970 as a date. What is outside of the years 1 to 9999 is written as their ends.
pub fn write(seconds: i64) -> String {
    let seconds = seconds.clamp(RANGE.0, RANGE.1);
    let [year, month, day, hour, minute, second, _] = date::parts(seconds * 1_000);
    let weekday = DAYS[seconds.div_euclid(DAY).rem_euclid(7) as usize];
    let month = MONTHS[(month as usize + 11) % 12];
    format!("{weekday}, {day:02} {month} {year:04} {hour:02}:{minute:02}:{second:02} GMT")
}

/// Seconds since 1970 of a date in that form; the two old forms are no dates here, as RFC 9110
/// allows a condition with an unreadable date to be ignored.
pub fn read(text: &str) -> Option<i64> {
    let (_, rest) = text.trim().split_once(", ")?;
    let mut words = rest.split(' ');
    let number = |word: &str| match word.bytes().all(|c| c.is_ascii_digit()) {
        true => word.parse::<i64>().ok(),
        false => None,
    };
    let day = number(words.next()?)?;
    let name = words.next()?;
    let month = MONTHS.iter().position(|month| *month == name)?;
    let year = number(words.next()?)?;
    let mut time = words.next()?.split(':');
    let mut part = || number(time.next()?);
    let (hour, minute, second) = (part()?, part()?, part()?);
    let fits = (1..=31).contains(&day) && year <= 9999 && hour < 24 && minute < 60 && second <= 60;
    if !fits || words.next() != Some("GMT") || words.next().is_some() {
        return None;
    }
    Some(date::days(year, month as i64 + 1, day) * DAY + hour * 3600 + minute * 60 + second)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_those_of_others() {
        for (seconds, text) in [
            (784_111_777, "Sun, 06 Nov 1994 08:49:37 GMT"),
            (0, "Thu, 01 Jan 1970 00:00:00 GMT"),
            (951_782_400, "Tue, 29 Feb 2000 00:00:00 GMT"),
            (951_868_800, "Wed, 01 Mar 2000 00:00:00 GMT"),
            (1_709_251_199, "Thu, 29 Feb 2024 23:59:59 GMT"),
            (4_107_542_400, "Mon, 01 Mar 2100 00:00:00 GMT"),
            (-1, "Wed, 31 Dec 1969 23:59:59 GMT"),
            (253_402_300_799, "Fri, 31 Dec 9999 23:59:59 GMT"),
        ] {
            assert_eq!(write(seconds), text);
            assert_eq!(read(text), Some(seconds), "{text}");
        }
        for bad in ["", "Sunday, 06-Nov-94 08:49:37 GMT", "Sun, 06 Nov 1994 08:49:37", "x, y"] {
            assert_eq!(read(bad), None, "{bad}");
        }
        for bad in ["Sun, 06 Nov 1994 24:49:37 GMT", "Sun, -6 Nov 1994 08:49:37 GMT"] {
            assert_eq!(read(bad), None, "{bad}");
        }
    }

    proptest::proptest! {
        #[test]
        fn what_is_written_is_read(seconds in -62_135_596_800i64..253_402_300_799) {
            proptest::prop_assert_eq!(read(&write(seconds)), Some(seconds));
        }

        #[test]
        fn any_text_is_survived(text in ".{0,40}") {
            let _ = read(&text);
        }
    }
}

//! Numbers as text, in few columns.

/// A rate in kbit/s.
pub(super) fn rate(kbps: f64) -> String {
    match kbps {
        k if k >= 1e6 => format!("{} Gbit/s", digits(k / 1e6)),
        k if k >= 1e3 => format!("{} Mbit/s", digits(k / 1e3)),
        k => format!("{k:.0} kbit/s"),
    }
}

/// A size in bytes.
pub(super) fn size(bytes: u64) -> String {
    let mut value = bytes as f64;
    let mut units = ["B", "KiB", "MiB", "GiB", "TiB"].into_iter().peekable();
    while value >= 1024.0 && units.len() > 1 {
        value /= 1024.0;
        units.next();
    }
    match units.next() {
        Some("B") | None => format!("{bytes} B"),
        Some(unit) => format!("{} {unit}", digits(value)),
    }
}

/// A time in seconds.
pub(super) fn span(seconds: u64) -> String {
    let (days, hours) = (seconds / 86_400, seconds / 3_600 % 24);
    let (minutes, rest) = (seconds / 60 % 60, seconds % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{rest}s"),
        (0, 0, _) => format!("{minutes}m {rest:02}s"),
        (0, _, _) => format!("{hours}h {minutes:02}m"),
        _ => format!("{days}d {hours:02}h"),
    }
}

/// A distance in stream time, ms.
pub(super) fn lag(ms: u64) -> String {
    if ms < 1_000 { format!("{ms} ms") } else { format!("{:.1} s", ms as f64 / 1000.0) }
}

/// A text of a peer's choice, for a terminal: what could move the cursor or hide is left out.
pub(super) fn harmless(text: &str) -> String {
    let invisible = |c: char| {
        matches!(u32::from(c), 0x200B..=0x200F | 0x2028..=0x202E
        | 0x2060..=0x206F | 0xFEFF)
    };
    text.chars().filter(|&c| !c.is_control() && !invisible(c)).collect()
}

fn digits(value: f64) -> String {
    match value {
        v if v >= 100.0 => format!("{v:.0}"),
        v if v >= 10.0 => format!("{v:.1}"),
        v => format!("{v:.2}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers() {
        assert_eq!(rate(999.4), "999 kbit/s");
        assert_eq!(rate(1_360.0), "1.36 Mbit/s");
        assert_eq!(rate(123_456_789.0), "123 Gbit/s");
        assert_eq!(
            (size(17), size(2_048), size(1 << 30)),
            ("17 B".into(), "2.00 KiB".into(), "1.00 GiB".into())
        );
        assert_eq!(size(u64::MAX), "16777216 TiB");
        let spans = [5, 65, 3_700, 90_000].map(span);
        assert_eq!(spans, ["5s", "1m 05s", "1h 01m", "1d 01h"]);
        assert_eq!((lag(999), lag(1_250)), ("999 ms".into(), "1.2 s".into()));
    }

    #[test]
    fn what_peers_choose_moves_no_cursor() {
        assert_eq!(harmless("a\u{1b}[2Jb\r\nc\u{202e}d\u{9b}e"), "a[2Jbcde");
        assert_eq!(harmless("東京 ü"), "東京 ü");
    }
}

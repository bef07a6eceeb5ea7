//! PES packets: their heads, and the 33-bit times in those (ISO 13818-1 2.4.3.6; ISO 11172-1 for
//! the form that MPEG-1 has).
//!
//! ```text
//! PES     [00 00 01][stream][length:16][10 flags][flags][header length][PTS]{DTS} payload
//! MPEG-1  [00 00 01][stream][length:16]{ff ...}{01 buffer}[0010 PTS | 0011 PTS DTS | 0f] payload
//! ```

/// What a PES packet says before its payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// Presentation time, 33 bits.
    pub pts: Option<u64>,
    /// Decoding time, 33 bits.
    pub dts: Option<u64>,
    /// The payload is encrypted.
    pub scrambled: bool,
    /// Bytes of the packet before its payload.
    pub len: usize,
}

/// Stream ids whose packets have no header of this form, and nothing that is played: padding, maps,
/// private stream 2, control messages and directories.
pub fn is_bare(stream: u8) -> bool {
    matches!(stream, 0xbc | 0xbe | 0xbf | 0xf0..=0xf2 | 0xf8 | 0xff)
}

/// Reads the head of a packet. `None`: it is broken.
pub fn read_head(data: &[u8]) -> Option<Head> {
    let [0, 0, 1, stream, _, _, ref rest @ ..] = *data else { return None };
    if is_bare(stream) {
        return None;
    }
    let [mark, flags, len, ref fields @ ..] = *rest else { return None };
    let fields = fields.get(..usize::from(len)).filter(|_| mark & 0xc0 == 0x80)?;
    let (pts, dts) = match flags >> 6 {
        0 => (None, None),
        2 => (Some(time(fields)?), None),
        3 => (Some(time(fields)?), Some(time(fields.get(5..)?)?)),
        _ => return None,
    };
    Some(Head { pts, dts, scrambled: mark & 0x30 != 0, len: 9 + usize::from(len) })
}

/// Reads the head of a packet as MPEG-1 has it. `None`: it is broken.
pub fn read_head_mpeg1(data: &[u8]) -> Option<Head> {
    const STUFFING_MAX: usize = 16;
    let [0, 0, 1, stream, _, _, ref rest @ ..] = *data else { return None };
    if is_bare(stream) {
        return None;
    }
    let stuffing = rest.iter().take_while(|byte| **byte == 0xff).count();
    let mut len = 6 + stuffing;
    if stuffing > STUFFING_MAX {
        return None;
    }
    if data.get(len)? & 0xc0 == 0x40 {
        len += 2;
    }
    let fields = data.get(len..)?;
    let (pts, dts, more) = match fields.first()? >> 4 {
        2 => (Some(time(fields)?), None, 5),
        3 => (Some(time(fields)?), Some(time(fields.get(5..)?)?), 10),
        0 if fields[0] == 0x0f => (None, None, 1),
        _ => return None,
    };
    Some(Head { pts, dts, scrambled: false, len: len + more })
}

/// 33 bits with marker bits between them.
fn time(bytes: &[u8]) -> Option<u64> {
    let [b0, b1, b2, b3, b4, ..] = *bytes else { return None };
    if b0 & b2 & b4 & 1 == 0 {
        return None;
    }
    let parts = [u64::from(b0 >> 1 & 7) << 30, u64::from(b1) << 22, u64::from(b2 >> 1) << 15];
    Some(parts.iter().sum::<u64>() | u64::from(b3) << 7 | u64::from(b4 >> 1))
}

/// Times have 33 bits and roll over once in 26 hours.
pub const TIME_MASK: u64 = (1 << 33) - 1;

/// Times of 33 bits in a row, without their rollover.
#[derive(Debug, Clone, Copy, Default)]
pub struct Times {
    last: Option<i64>,
}

impl Times {
    /// The time nearest to the last one that ends in these 33 bits.
    pub fn place(&mut self, bits: u64) -> i64 {
        let now = unwrapped(bits, self.last);
        self.last = Some(now);
        now
    }

    /// Takes the next reading of a clock. True when it went back, or on by more than `step_max`.
    pub fn jump(&mut self, bits: u64, step_max: i64) -> bool {
        let before = self.last;
        let now = self.place(bits);
        before.is_some_and(|before| !(0..=step_max).contains(&(now - before)))
    }
}

/// The value nearest to `near` of those that end in these 33 bits.
fn unwrapped(bits: u64, near: Option<i64>) -> i64 {
    let Some(near) = near else { return bits as i64 };
    let step = bits.wrapping_sub(near as u64) & TIME_MASK;
    let step =
        if step > TIME_MASK / 2 { step as i64 - (TIME_MASK as i64 + 1) } else { step as i64 };
    near.saturating_add(step)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::media::unhex;

    #[test]
    fn heads_of_both_forms() {
        let read = |hex: &str| read_head(&unhex(hex));
        let head = |pts, dts, len| Some(Head { pts, dts, scrambled: false, len });
        assert_eq!(read("000001e0000080000009"), head(None, None, 9));
        assert_eq!(read("000001e0000084800521000100018765"), head(Some(0), None, 14));
        let both = "000001e0000080c00a31000300011000010001";
        assert_eq!(read(both), None, "DTS without its marker bit");
        let both = "000001e0000080c00a31000300011100010001";
        assert_eq!(read(both), head(Some(1 << 15), Some(0), 19));
        assert!(read("000001e00000b0000009").is_some_and(|head| head.scrambled));
        for broken in ["000001e0", "000001e000000f", "000001e0000080c005", "000001be0000800000"] {
            assert_eq!(read(broken), None, "{broken}");
        }
        let read = |hex: &str| read_head_mpeg1(&unhex(hex));
        assert_eq!(read("000001e000000f07"), head(None, None, 7));
        assert_eq!(read("000001e00000ffff60e621000300010905"), head(Some(1 << 15), None, 15));
        assert_eq!(read("000001e0000031000300011100010001"), head(Some(1 << 15), Some(0), 16));
        let stuffed = format!("000001e00000{}0f", "ff".repeat(17));
        for broken in [&stuffed, "000001e00000ffff", "000001e0000080000009", "000001e0000021000100"]
        {
            assert_eq!(read(broken), None, "{broken}");
        }
    }

    #[test]
    fn times_roll_over() {
        assert_eq!(unwrapped(5, Some(1 << 33)), (1 << 33) + 5);
        assert_eq!(unwrapped(TIME_MASK, Some(0)), -1);
        assert_eq!(unwrapped(7, None), 7);
        let mut clock = Times::default();
        let jumps = [TIME_MASK, 4, 104, 205, 204].map(|bits| clock.jump(bits, 100));
        assert_eq!(jumps, [false, false, false, true, true]);
        assert_eq!(clock.place(0), 1 << 33);
    }
}

//! Pictures in a byte stream of H.264 or H.265 that comes in packets (ITU-T H.264 7.4.1.2.3, H.265
//! 7.4.2.4.4).

use std::collections::VecDeque;

use memchr::memmem;

use crate::limits;
use crate::media::codec::VideoCodec;

/// What a packet says of the first picture that begins in it, and where in the input it ends.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Stamp {
    /// Presentation time, ticks.
    pub pts: Option<i64>,
    /// Decoding time, ticks.
    pub dts: Option<i64>,
    /// Place in the input behind it.
    pub end: u64,
}

/// A picture is longer than is taken; it was left out.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct TooLong;

/// Puts pictures together.
#[derive(Debug, Default)]
pub(super) struct Pictures {
    /// Bytes from the beginning of the open picture on, or ones in which a beginning is looked for.
    bytes: Vec<u8>,
    /// Place of the first of them in the stream.
    base: u64,
    /// The packets that they came in.
    packets: VecDeque<Packet>,
    /// How many of them were searched for start codes.
    searched: usize,
    /// What is known of the open picture.
    open: Option<Open>,
}

#[derive(Debug, Clone, Copy)]
struct Packet {
    /// Place of its first byte in the stream.
    at: u64,
    stamp: Stamp,
    /// A picture has taken its times.
    taken: bool,
}

#[derive(Debug, Clone, Copy)]
struct Open {
    has_slice: bool,
    pts: Option<i64>,
    dts: Option<i64>,
}

/// What a NAL unit says of the picture that it belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    /// It stands before a picture's slices.
    Before,
    /// A slice that is the first one.
    First,
    /// Another slice.
    Slice,
    /// Nothing.
    Other,
}

/// Bytes of a NAL unit that are looked at: its head, and the slice's first bit.
const HEAD_BYTES: usize = 3;
const START_CODE: &[u8] = &[0, 0, 1];

impl Pictures {
    /// Takes the payload of a packet; tells the pictures that end in it.
    ///
    /// # Errors
    /// The open picture is too long, or in too many packets. The next one is looked for.
    pub fn push(
        &mut self,
        codec: VideoCodec,
        payload: &[u8],
        stamp: Stamp,
        tell: &mut dyn FnMut(Stamp, &[u8]),
    ) -> Result<(), TooLong> {
        let at = self.base + self.bytes.len() as u64;
        self.packets.push_back(Packet { at, stamp, taken: false });
        self.bytes.extend_from_slice(payload);
        // Where the open picture begins.
        let mut begin = 0;
        while let Some(code) = memmem::find(&self.bytes[self.searched..], START_CODE) {
            let code = self.searched + code;
            let Some(head) = self.bytes.get(code + 3..code + 3 + HEAD_BYTES) else {
                self.searched = code;
                break;
            };
            self.searched = code + 3;
            // The zero before it is a part of it.
            let long = code > begin && self.bytes[code - 1] == 0;
            let first = code - usize::from(long);
            let part = part(codec, head);
            if self.is_boundary(part, first) {
                self.tell_until(begin, first, tell);
                begin = first;
                let (pts, dts) = self.take_times(first);
                self.open = Some(Open { has_slice: false, pts, dts });
            }
            if let Some(open) = &mut self.open
                && matches!(part, Part::First | Part::Slice)
            {
                open.has_slice = true;
            }
        }
        // A start code may begin in the last two bytes.
        let waits = self.bytes[self.searched..].starts_with(START_CODE);
        if !waits {
            self.searched = self.searched.max(self.bytes.len().saturating_sub(2));
        }
        if self.open.is_none() {
            begin = self.searched.saturating_sub(1);
        }
        self.forget(begin);
        let packets = self.packets.len() > limits::PS_PACKETS_PER_UNIT_MAX;
        if packets || self.bytes.len() > limits::PS_UNIT_BYTES_MAX {
            self.interrupt();
            return Err(TooLong);
        }
        Ok(())
    }

    /// Tells the open picture, if there is one: nothing more of it comes.
    pub fn finish(&mut self, tell: &mut dyn FnMut(Stamp, &[u8])) {
        self.tell_until(0, self.bytes.len(), tell);
        self.interrupt();
    }

    /// Something is missing here: the open picture is left out, and the next one looked for.
    pub fn interrupt(&mut self) {
        self.base += self.bytes.len() as u64;
        self.bytes.clear();
        self.packets.clear();
        self.searched = 0;
        self.open = None;
    }

    /// True when the slices of a picture are there, of which more may come.
    pub fn is_open(&self) -> bool {
        self.open.is_some_and(|open| open.has_slice)
    }

    /// True when a NAL unit whose first byte is `first` begins a picture.
    fn is_boundary(&self, part: Part, first: usize) -> bool {
        let Some(open) = self.open else { return matches!(part, Part::Before | Part::First) };
        open.has_slice
            && match part {
                Part::Before | Part::First => true,
                // The first slice was lost, and a packet of another time begins here.
                Part::Slice => self.packet_at(first).is_some_and(|index| {
                    let packet = &self.packets[index];
                    let other = packet.stamp.pts.is_some() && packet.stamp.pts != open.pts;
                    packet.at == self.base + first as u64 && other && open.pts.is_some()
                }),
                Part::Other => false,
            }
    }

    /// The packet that this byte came in.
    fn packet_at(&self, byte: usize) -> Option<usize> {
        let at = self.base + byte as u64;
        self.packets.partition_point(|packet| packet.at <= at).checked_sub(1)
    }

    /// 2.4.3.7: a packet's times are those of the first picture that begins in it.
    fn take_times(&mut self, first: usize) -> (Option<i64>, Option<i64>) {
        let Some(index) = self.packet_at(first) else { return (None, None) };
        let packet = &mut self.packets[index];
        match std::mem::replace(&mut packet.taken, true) {
            true => (None, None),
            false => (packet.stamp.pts, packet.stamp.dts),
        }
    }

    fn tell_until(&self, begin: usize, end: usize, tell: &mut dyn FnMut(Stamp, &[u8])) {
        let Some(open) = self.open.filter(|open| open.has_slice) else { return };
        let last = end.checked_sub(1).and_then(|last| self.packet_at(last));
        let place = last.map_or(0, |index| self.packets[index].stamp.end);
        let stamp = Stamp { pts: open.pts, dts: open.dts, end: place };
        tell(stamp, &self.bytes[begin..end]);
    }

    /// Forgets the first bytes, and packets of which no others are left.
    fn forget(&mut self, bytes: usize) {
        self.bytes.drain(..bytes);
        self.searched -= bytes;
        self.base += bytes as u64;
        let before = self.packet_at(0).unwrap_or(0);
        self.packets.drain(..before);
    }
}

fn part(codec: VideoCodec, head: &[u8]) -> Part {
    let [b0, b1, b2] = *head else { return Part::Other };
    let slice = |is_first: bool| if is_first { Part::First } else { Part::Slice };
    match codec {
        // The first macroblock's number is 0, which is one bit.
        VideoCodec::H264 => match b0 & 0x1f {
            1 | 2 | 5 => slice(b1 & 0x80 != 0),
            6..=9 => Part::Before,
            _ => Part::Other,
        },
        VideoCodec::H265 => match b0 >> 1 & 0x3f {
            // Further layers belong to the picture of the base layer.
            _ if b0 & 1 != 0 || b1 >> 3 != 0 => Part::Other,
            0..=31 => slice(b2 & 0x80 != 0),
            32..=35 | 39 | 41..=44 | 48..=55 => Part::Before,
            _ => Part::Other,
        },
        _ => Part::Other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Told = Vec<(Option<i64>, Option<i64>, u64, Vec<u8>)>;

    const AUD: &[u8] = &[0, 0, 0, 1, 9, 0xf0];
    const SPS: &[u8] = &[0, 0, 0, 1, 0x67, 1, 2, 3];
    const IDR: &[u8] = &[0, 0, 1, 0x65, 0x80, 7, 7];
    const IDR_2: &[u8] = &[0, 0, 1, 0x65, 0x40, 8, 8];
    const P: &[u8] = &[0, 0, 0, 1, 0x41, 0x9a, 4, 4];

    fn run(codec: VideoCodec, packets: &[(Option<i64>, &[u8])]) -> Told {
        let (mut pictures, mut told) = (Pictures::default(), Told::new());
        let mut take = |stamp: Stamp, data: &[u8]| {
            told.push((stamp.pts, stamp.dts, stamp.end, data.to_vec()));
        };
        let mut end = 0;
        for (pts, payload) in packets {
            end += 100;
            let stamp = Stamp { pts: *pts, dts: pts.map(|pts| pts - 1), end };
            pictures.push(codec, payload, stamp, &mut take).unwrap();
        }
        pictures.finish(&mut take);
        told
    }

    fn picture(pts: Option<i64>, end: u64, parts: &[&[u8]]) -> Told {
        vec![(pts, pts.map(|pts| pts - 1), end, parts.concat())]
    }

    #[test]
    fn one_picture_in_many_packets_and_many_in_one() {
        // A camera: a packet for each NAL unit, all of one time.
        let t = Some(900);
        let packets = [(t, AUD), (t, SPS), (t, IDR), (t, IDR_2), (Some(4_500), P)];
        let expected =
            [picture(t, 400, &[AUD, SPS, IDR, IDR_2]), picture(Some(4_500), 500, &[P])].concat();
        assert_eq!(run(VideoCodec::H264, &packets), expected);
        // The rest of it in packets that say no time.
        let packets = [(t, SPS), (None, IDR), (None, &[5; 300]), (Some(4_500), P)];
        let expected =
            [picture(t, 300, &[SPS, IDR, &[5; 300]]), picture(Some(4_500), 400, &[P])].concat();
        assert_eq!(run(VideoCodec::H264, &packets), expected);
        // Three in one packet: its time is that of the first.
        let all = [SPS, IDR, P, P].concat();
        let expected =
            [picture(t, 100, &[SPS, IDR]), picture(None, 100, &[P]), picture(None, 100, &[P])];
        assert_eq!(run(VideoCodec::H264, &[(t, &all)]), expected.concat());
    }

    #[test]
    fn packets_may_end_anywhere() {
        let all = [SPS, IDR, P, AUD, P, P].concat();
        let whole: Vec<Vec<u8>> =
            run(VideoCodec::H264, &[(None, &all)]).into_iter().map(|told| told.3).collect();
        assert_eq!(whole, [[SPS, IDR].concat(), P.to_vec(), [AUD, P].concat(), P.to_vec()]);
        for step in 1..all.len() {
            let packets: Vec<_> =
                all.chunks(step).enumerate().map(|(n, piece)| (Some(n as i64), piece)).collect();
            let told = run(VideoCodec::H264, &packets);
            let data: Vec<Vec<u8>> = told.iter().map(|told| told.3.clone()).collect();
            assert_eq!(data, whole, "{step}");
            // Each has the time of the packet that it begins in, if it is the first there.
            let (mut at, mut last) = (0, None);
            for picture in told {
                let packet = Some((at / step) as i64);
                assert_eq!(picture.0, packet.filter(|_| packet != last), "{step}");
                at += picture.3.len();
                assert_eq!(picture.2, ((at - 1) / step) as u64 * 100 + 100);
                last = packet;
            }
        }
    }

    #[test]
    fn nothing_is_told_of_what_has_no_beginning() {
        let packets = [(Some(1), &[3, 4, 0, 0, 1][..]), (None, &[0x41, 0x10, 9]), (Some(2), P)];
        assert_eq!(run(VideoCodec::H264, &packets), picture(Some(2), 300, &[P]));
        assert_eq!(run(VideoCodec::H264, &[(Some(1), SPS)]), []);
        // A second slice, in a packet of another time: its picture's first one is lost.
        let packets = [(Some(1), IDR), (Some(9), IDR_2), (Some(9), IDR_2)];
        let expected =
            [picture(Some(1), 100, &[IDR]), picture(Some(9), 300, &[IDR_2, IDR_2])].concat();
        assert_eq!(run(VideoCodec::H264, &packets), expected);
    }

    #[test]
    fn h265() {
        let vps: &[u8] = &[0, 0, 0, 1, 0x40, 1, 9];
        let idr: &[u8] = &[0, 0, 1, 0x26, 1, 0xaf, 5];
        let more: &[u8] = &[0, 0, 1, 0x26, 1, 0x20, 5];
        let suffix: &[u8] = &[0, 0, 1, 0x50, 1, 0x84, 5];
        let trail: &[u8] = &[0, 0, 1, 2, 1, 0xd0, 6];
        let packets = [(Some(5), &[vps, idr, more, suffix, trail].concat()[..])];
        let expected =
            [picture(Some(5), 100, &[vps, idr, more, suffix]), picture(None, 100, &[trail])];
        assert_eq!(run(VideoCodec::H265, &packets), expected.concat());
    }

    #[test]
    fn what_is_too_long_is_left_out() {
        let mut pictures = Pictures::default();
        let mut told = 0;
        let stamp = Stamp::default();
        let mut push =
            |bytes: &[u8]| pictures.push(VideoCodec::H264, bytes, stamp, &mut |_, _| told += 1);
        push(IDR).unwrap();
        let mut pushed = 0;
        while push(&[7; 60_000]).is_ok() {
            pushed += 60_000;
            assert!(pushed <= limits::PS_UNIT_BYTES_MAX);
        }
        push(&[7; 60_000]).unwrap();
        push(P).unwrap();
        let more = (0..limits::PS_PACKETS_PER_UNIT_MAX).filter(|_| push(&[7]).is_err()).count();
        assert_eq!(more, 1);
        push(P).unwrap();
        push(P).unwrap();
        assert_eq!(told, 1);
    }
}

//! A publisher's messages into containers that are made of units, and what must hold for any of
//! their bytes.

use ringcast::hub::{Container, Flags};
use ringcast::media::{Kind, aac};
use ringcast::proto::ts::PACKET_BYTES;
use ringcast::remux::mux::{Muxed, Muxer, Wanted};

use super::byte;

/// Messages: what it is, a step in time, a length, the bytes.
pub fn mux(data: &[u8]) {
    let mut data = data;
    let options = byte(&mut data);
    let wanted = Wanted { audio: options & 1 == 0, video: options & 2 == 0 };
    let mut muxers: Vec<_> = Container::OVER_HTTP
        .into_iter()
        .filter(|container| !container.is_verbatim())
        .map(|container| (container, Muxer::new(container, wanted), Counters::default()))
        .collect();
    let mut time = i64::from(options) << 24;
    while !data.is_empty() {
        let what = byte(&mut data);
        let (step, len) = (byte(&mut data), usize::from(byte(&mut data)));
        let (payload, rest) = data.split_at(len.min(data.len()));
        data = rest;
        time += i64::from(step);
        let kind = if what & 1 == 0 { Kind::Video } else { Kind::Audio };
        for (container, muxer, counters) in &mut muxers {
            match what >> 1 & 3 {
                0 => muxer.learn(kind, payload),
                1 => check(*container, &muxer.prologue(), &mut Counters::default()),
                _ => {}
            }
            let _ = muxer.refuses().map(|unfit| unfit.to_string());
            match muxer.message(kind, time, payload, i64::from(what >> 7) * 1_000_000) {
                Muxed::Bytes(flags) => {
                    assert!(!muxer.bytes().is_empty());
                    assert!(flags.has(Flags::VIDEO) != flags.has(Flags::AUDIO));
                    // Framing costs a little per packet or fragment, never a multiple.
                    let most = 3 * payload.len() + 16 * 1024;
                    assert!(muxer.bytes().len() <= most, "{} bytes", muxer.bytes().len());
                    check(*container, muxer.bytes(), counters);
                }
                Muxed::Nothing | Muxed::Skipped => assert!(muxer.bytes().is_empty()),
            }
        }
    }
}

/// The continuity counters seen last, by packet identifier.
type Counters = std::collections::HashMap<u16, u8>;

fn check(container: Container, bytes: &[u8], counters: &mut Counters) {
    match container {
        Container::Ts => {
            assert_eq!(bytes.len() % PACKET_BYTES, 0);
            for packet in bytes.chunks(PACKET_BYTES) {
                assert_eq!(packet[0], 0x47);
                let pid = u16::from_be_bytes([packet[1] & 0x1f, packet[2]]);
                let (payload, counter) = (packet[3] >> 4 & 1, packet[3] & 15);
                if let Some(last) = counters.insert(pid, counter) {
                    assert_eq!(counter, (last + payload) & 15, "continuity of {pid:#x}");
                }
            }
        }
        Container::Fmp4 => {
            let mut rest = bytes;
            while !rest.is_empty() {
                let len = u32::from_be_bytes(*rest.first_chunk().expect("a size")) as usize;
                assert!(len >= 8 && len <= rest.len(), "a box of {len} bytes");
                rest = &rest[len..];
            }
        }
        Container::Aac if !bytes.is_empty() => {
            let (_, len) = aac::adts(bytes).expect("a header of our own");
            assert_eq!(len, bytes.len());
        }
        _ => {}
    }
}

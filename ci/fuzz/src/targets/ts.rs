//! A transport stream that may be anything, and what must hold for what is found in it.

use ringcast::limits;
use ringcast::proto::mpeg::{Carries, Event};
use ringcast::proto::ts::demux::Demux;

use super::{byte, pieces};

/// What was told, in short, and how many bytes of it came from the input.
type Told = (Vec<(usize, Option<i64>, usize, u64)>, Vec<String>, Vec<usize>);

/// A seed for the pieces, then packets; `0x47` is put where packets begin if the first bit says so,
/// because inputs seldom have it where it belongs.
pub fn demux(data: &[u8]) {
    let mut data = data;
    let seed = byte(&mut data);
    let mut input = data.to_vec();
    if seed & 1 == 1 {
        input.iter_mut().step_by(188).for_each(|byte| *byte = 0x47);
    }
    let whole = read(0, &input);
    let cut = read(seed.max(1), &input);
    // It makes no difference how the bytes are cut on their way.
    assert_eq!(whole, cut);
}

fn read(seed: u8, input: &[u8]) -> Told {
    let mut demux = Demux::new();
    let (mut units, mut damage, mut tracks) = (Vec::new(), Vec::new(), Vec::new());
    let (mut carries, mut bytes) = (Vec::new(), 0);
    let mut tell = |event: Event<'_>| match event {
        Event::Tracks(found) => {
            assert!(found.len() <= limits::TS_TRACKS_MAX);
            carries = found.iter().map(|track| track.carries).collect::<Vec<_>>();
            tracks.push(found.len());
        }
        Event::Unit(unit) => {
            assert!(unit.end <= input.len() as u64 && !carries.is_empty());
            let is_opus = matches!(carries.get(unit.track), Some(Carries::Audio(_)));
            assert!(is_opus || !unit.data.is_empty());
            bytes += unit.data.len();
            units.push((unit.track, unit.pts, unit.data.len(), unit.end));
        }
        Event::Damage(what) => damage.push(what.to_string()),
    };
    for piece in pieces(seed, input) {
        demux.push(piece, &mut tell);
    }
    demux.finish(&mut tell);
    // Nothing is made up.
    assert!(bytes <= input.len(), "{bytes} bytes of {}", input.len());
    (units, damage, tracks)
}

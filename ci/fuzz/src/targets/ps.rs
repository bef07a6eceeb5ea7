//! A program stream that may be anything, and what must hold for what is found in it.

use ringcast::limits;
use ringcast::proto::mpeg::{Carries, Damage, Event, Track};
use ringcast::proto::ps::Demux;

use super::{byte, pieces};

/// What was told, in short.
type Told = (Vec<(usize, Option<i64>, bool, usize, u64)>, Vec<Damage>, Vec<usize>);

/// A seed for the pieces, then the stream. If the seed is odd, what is left of start codes is put
/// right, because inputs seldom have them where they belong.
pub fn demux(data: &[u8]) {
    let mut data = data;
    let seed = byte(&mut data);
    let mut input = data.to_vec();
    if seed & 1 == 1 {
        for at in 2..input.len() {
            if input[at] >= 0xb9 && input[at - 1] == 1 {
                input[at - 2] = 0;
                if at > 2 {
                    input[at - 3] = 0;
                }
            }
        }
    }
    let whole = read(0, &input);
    let cut = read(seed.max(1), &input);
    // It makes no difference how the bytes are cut on their way.
    assert_eq!(whole, cut);
}

fn read(seed: u8, input: &[u8]) -> Told {
    let mut demux = Demux::new();
    let (mut units, mut damage, mut counts) = (Vec::new(), Vec::new(), Vec::new());
    let (mut tracks, mut bytes): (Vec<Track>, usize) = (Vec::new(), 0);
    let mut tell = |event: Event<'_>| match event {
        Event::Tracks(found) => {
            assert!(found.len() <= limits::PS_TRACKS_MAX && found.len() >= tracks.len());
            tracks = found.to_vec();
            counts.push(found.len());
        }
        Event::Unit(unit) => {
            assert!(unit.end <= input.len() as u64);
            let carries = tracks.get(unit.track).map(|track| track.carries);
            let is_audio = matches!(carries, Some(Carries::Audio(_)));
            assert!(carries.is_some() && (is_audio || !unit.data.is_empty()));
            bytes += unit.data.len();
            units.push((unit.track, unit.pts, unit.keyframe, unit.data.len(), unit.end));
        }
        Event::Damage(what) => damage.push(what),
    };
    for piece in pieces(seed, input) {
        demux.push(piece, &mut tell);
    }
    demux.finish(&mut tell);
    // Nothing is made up.
    assert!(bytes <= input.len(), "{bytes} bytes of {}", input.len());
    (units, damage, counts)
}

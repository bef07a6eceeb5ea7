//! What a path means by the names that manifests give: `app/s.mpd` is the manifest of a stream,
//! and what belongs to it lies below `app/s/`.

use std::borrow::Cow;

use super::manifest::CLOCK;
use super::segmenter::{MANIFEST_SUFFIX, without_number};
use super::tracks::TRACKS;

/// What of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DashFile {
    /// The manifest.
    Manifest,
    /// A segment of a track, by the places of the track among [`TRACKS`] and of the segment.
    Segment(usize, u64),
    /// An initialisation segment.
    Init,
    /// The time of day.
    Clock,
}

/// The path of the manifest that a path belongs to, and what it names beside it.
pub fn read(path: &str) -> Option<(Cow<'_, str>, DashFile)> {
    if path.ends_with(MANIFEST_SUFFIX) {
        return Some((path.into(), DashFile::Manifest));
    }
    let (folder, file) = path.rsplit_once('/')?;
    Some((format!("{folder}{MANIFEST_SUFFIX}").into(), file_of(file)?))
}

fn file_of(name: &str) -> Option<DashFile> {
    if name == CLOCK {
        return Some(DashFile::Clock);
    }
    let (stem, suffix) = name.rsplit_once('.')?;
    if suffix == "mp4" {
        let plain = without_number(name, "-").map_or(name.to_owned(), |(plain, _)| plain);
        let known = TRACKS.iter().any(|track| plain == format!("{track}-init.mp4"));
        return known.then_some(DashFile::Init);
    }
    let (track, number) = stem.split_once('-').filter(|_| suffix == "m4s")?;
    let track = TRACKS.iter().position(|name| *name == track)?;
    let number = number.parse().ok().filter(|_| number.bytes().all(|b| b.is_ascii_digit()))?;
    Some(DashFile::Segment(track, number))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths() {
        assert_eq!(read("live/s.mpd"), Some(("live/s.mpd".into(), DashFile::Manifest)));
        for (name, file) in [
            ("video-init.mp4", Some(DashFile::Init)),
            ("audio-init-12.mp4", Some(DashFile::Init)),
            ("init.mp4", None),
            ("video-7.m4s", Some(DashFile::Segment(0, 7))),
            ("audio-0.m4s", Some(DashFile::Segment(1, 0))),
            ("audio-+1.m4s", None),
            ("audio-99999999999999999999.m4s", None),
            ("text-0.m4s", None),
            ("video-7.ts", None),
            ("time", Some(DashFile::Clock)),
        ] {
            let path = format!("live/s/{name}");
            assert_eq!(read(&path), file.map(|file| ("live/s.mpd".into(), file)), "{name}");
            assert_eq!(read(name), None);
        }
    }
}

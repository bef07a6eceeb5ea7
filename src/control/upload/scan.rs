//! What on disk is to be uploaded, and what has been.
//!
//! A file that is uploaded gets a mark (an extended attribute with its length, its time and where
//! it is), which goes with it when it is moved or removed. Where the disk has no such attributes,
//! the store is asked whether it has the file.

use std::collections::BinaryHeap;
use std::fs::{File as DiskFile, Metadata};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{XattrFlags, fgetxattr, fsetxattr, getxattr};
use rustix::io::Errno;

use super::spool::{File, Kind};
use crate::config::{Upload, Vhost};
use crate::control::recorder::path::Template as Recordings;
use crate::limits;
use crate::proto::hls::Template;
use crate::remux::dash_path::{self, DashFile};

/// The attribute.
const MARK: &str = "user.ringcast.uploaded";

/// What is uploaded of a vhost, by the names of files.
#[derive(Debug)]
pub struct Wanted {
    recordings: Option<Recordings>,
    segments: Vec<Segments>,
    /// Where it goes, as it stands in marks.
    pub to: String,
}

/// Segments in one folder.
#[derive(Debug)]
struct Segments {
    root: PathBuf,
    names: Names,
    /// Those of before the server began go when they are uploaded.
    cleanup: bool,
}

/// What is a name of a playlist or of a segment.
#[derive(Debug)]
enum Names {
    /// What fits one of these.
    Hls(Vec<(Template, Kind)>),
    /// A manifest that fits this, and what belongs to it.
    Dash(Template),
}

impl Wanted {
    /// What the configuration says.
    pub fn new(name: &str, vhost: &Vhost) -> Wanted {
        let Vhost { upload, hls, dash, .. } = vhost;
        let hls_names = || {
            let all = [
                (&hls.hls_m3u8_file, Kind::Playlist),
                (&hls.hls_ts_file, Kind::Segment),
                (&hls.hls_fmp4_file, Kind::Segment),
                (&hls.hls_init_file, Kind::Segment),
            ];
            let all = all.into_iter();
            all.filter_map(|(t, kind)| Some((Template::parse(t).ok()?, kind))).collect()
        };
        let of_hls = hls.folder(name).map(|root| {
            let (names, cleanup) = (Names::Hls(hls_names()), hls.hls_cleanup);
            Segments { root, names, cleanup }
        });
        let of_dash = dash.folder(name).and_then(|root| {
            let names = Names::Dash(Template::parse(&dash.dash_mpd_file).ok()?);
            Some(Segments { root, names, cleanup: dash.dash_cleanup })
        });
        let segments = of_hls.into_iter().chain(of_dash).filter(|_| upload.segments);
        Wanted {
            recordings: upload.recordings.then(|| Recordings::new(&vhost.dvr.dvr_path)),
            segments: segments.collect(),
            to: format!("{}/{}/{}", upload.endpoint, upload.bucket, prefix(upload, name)),
        }
    }
}

impl Names {
    fn kind_of(&self, path: &str) -> Option<Kind> {
        let templates = match self {
            Names::Hls(templates) => templates,
            Names::Dash(template) => {
                let (manifest, file) = dash_path::read(path)?;
                let kind = match file {
                    DashFile::Manifest => Kind::Playlist,
                    DashFile::Segment(..) | DashFile::Init => Kind::Segment,
                    DashFile::Clock => return None,
                };
                return template.find(&manifest, &mut |_| true).then_some(kind);
            }
        };
        let fits = |path: &str| {
            templates.iter().find(|(t, _)| t.find(path, &mut |_| true)).map(|(_, kind)| *kind)
        };
        // A second initialisation segment has got a number.
        let plain = || {
            let (stem, end) = path.rsplit_once('.')?;
            let (stem, number) = stem.rsplit_once('-')?;
            number.bytes().all(|c| c.is_ascii_digit()).then(|| format!("{stem}.{end}"))
        };
        fits(path).or_else(|| fits(&plain()?))
    }
}

/// What goes before the paths of files, with a slash at its end unless it is empty.
pub fn prefix(upload: &Upload, vhost: &str) -> String {
    let prefix = upload.prefix.trim_matches('/').replace("[vhost]", vhost);
    if prefix.is_empty() { prefix } else { format!("{prefix}/") }
}

/// All files that are to be uploaded and have no mark, the oldest first and no more than are
/// listed. True with them: there are more. Segments of before `started_ms` are nobody's any more
/// and go when they are uploaded, if the configuration says so.
pub fn scan(wanted: &Wanted, started_ms: i64) -> (Vec<File>, bool) {
    let mut found = BinaryHeap::new();
    let mut more = false;
    let mut look = |root: &Path, cleanup: bool, kind_of: &dyn Fn(&str) -> Option<Kind>| {
        walk(root, &mut |path, about| {
            let Some(kind) = kind_of(&path).filter(|_| !has_mark(root, &path, about, &wanted.to))
            else {
                return;
            };
            let root = Arc::<Path>::from(root);
            found.push((written_ms(about), path, kind, about.len(), root, cleanup));
            if found.len() > limits::UPLOADS_WAITING_MAX {
                // The newest waits.
                found.pop();
                more = true;
            }
        });
    };
    if let Some(template) = &wanted.recordings
        && template.has_time()
    {
        look(template.root(), false, &|path| template.matches(path).then_some(Kind::Recording));
    }
    for Segments { root, names, cleanup } in &wanted.segments {
        look(root, *cleanup, &|path| names.kind_of(path));
    }
    let found = found.into_sorted_vec().into_iter();
    let files = found.map(|(written_ms, path, kind, bytes, root, cleanup)| {
        let remove = cleanup && written_ms < started_ms;
        let (stream, path) = ("".into(), path.into());
        File { kind, stream, root, path, bytes, written_ms, found: true, remove }
    });
    (files.collect(), more)
}

/// When a file was written, ms since 1970.
pub fn written_ms(about: &Metadata) -> i64 {
    about.mtime() * 1_000 + about.mtime_nsec() / 1_000_000
}

/// Goes through the plain files below a folder. Links are not followed.
fn walk(root: &Path, each: &mut dyn FnMut(String, &Metadata)) {
    let mut seen = 0;
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        let Ok(entries) = std::fs::read_dir(&folder) else { continue };
        for entry in entries.flatten() {
            seen += 1;
            if seen > limits::UPLOAD_SCAN_FILES_MAX {
                return;
            }
            let Ok(about) = entry.metadata() else { continue };
            let path = entry.path();
            if about.is_dir() {
                folders.push(path);
            } else if about.is_file()
                && let Some(below) = path.strip_prefix(root).ok().and_then(Path::to_str)
            {
                each(below.to_owned(), &about);
            }
        }
    }
}

fn mark_of(about: &Metadata, to: &str) -> String {
    format!("{} {}.{:09} {to}", about.len(), about.mtime(), about.mtime_nsec())
}

fn has_mark(root: &Path, path: &str, about: &Metadata, to: &str) -> bool {
    let mut mark = [0; 1024];
    let read = getxattr(root.join(path), MARK, &mut mark);
    read.is_ok_and(|len| mark[..len] == *mark_of(about, to).as_bytes())
}

/// Notes on a file that it is uploaded. False when its disk knows no such notes.
pub fn mark(file: &DiskFile, about: &Metadata, to: &str) -> bool {
    let mark = mark_of(about, to);
    let set = fsetxattr(file, MARK, mark.as_bytes(), XattrFlags::empty());
    !matches!(set, Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::PERM))
        && fgetxattr(file, MARK, &mut [0; 1024]).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_no_mark_is_found_the_oldest_first() {
        let folder = std::env::temp_dir().join(format!("ringcast-scan-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&folder);
        std::fs::create_dir_all(folder.join("hls/live/s")).unwrap();
        let mut vhost = Vhost::default();
        vhost.dvr.dvr_path = format!("{}/rec/[app]/[stream].[timestamp].flv", folder.display());
        vhost.hls.hls_path = folder.join("hls");
        vhost.dash.dash_path = folder.join("[vhost]");
        std::fs::create_dir_all(folder.join("a.com/live/s")).unwrap();
        vhost.upload.bucket = "b".into();
        vhost.upload.segments = true;
        vhost.upload.prefix = "/x/[vhost]/".into();
        std::fs::create_dir_all(folder.join("rec/live")).unwrap();
        let written = [
            "rec/live/s.1700000000002.flv",
            "rec/live/s.1700000000001.flv",
            "rec/live/s.1700000000003.flv.tmp",
            "rec/index.html",
            "hls/live/s.m3u8",
            "hls/live/s-7.ts",
            "hls/live/s-7.key",
            "hls/live/s/init-1.mp4",
            "hls/live/s-8.m4s",
            "a.com/live/s/video-init.mp4",
            "a.com/live/s/audio-7.m4s",
            "a.com/live/s/time",
            "a.com/live/s.mpd",
        ];
        for (age, name) in written.iter().enumerate() {
            let file = DiskFile::create(folder.join(name)).unwrap();
            let at = std::time::UNIX_EPOCH + std::time::Duration::from_secs(1_000 + age as u64);
            file.set_modified(at).unwrap();
        }
        let wanted = Wanted::new("a.com", &vhost);
        assert_eq!(wanted.to, "/b/x/a.com/");
        let names = |wanted: &Wanted| -> Vec<String> {
            let (files, more) = scan(wanted, 1_008_000);
            assert!(!more && files.iter().all(|file| file.found));
            assert!(
                files
                    .iter()
                    .all(|f| f.remove == (f.kind != Kind::Recording && f.written_ms < 1_008_000))
            );
            files.iter().map(|file| file.path.to_string()).collect()
        };
        let all = [
            "live/s.1700000000002.flv",
            "live/s.1700000000001.flv",
            "live/s.m3u8",
            "live/s-7.ts",
            "live/s/init-1.mp4",
            "live/s-8.m4s",
            "live/s/video-init.mp4",
            "live/s/audio-7.m4s",
            "live/s.mpd",
        ];
        assert_eq!(names(&wanted), all);
        let file = DiskFile::open(folder.join(written[0])).unwrap();
        if mark(&file, &file.metadata().unwrap(), &wanted.to) {
            assert_eq!(names(&wanted), all[1..]);
            // Elsewhere it is not, and what was written to since is not what was uploaded.
            let elsewhere = Vhost {
                upload: Upload { bucket: "c".into(), ..vhost.upload.clone() },
                ..vhost.clone()
            };
            assert_eq!(names(&Wanted::new("a.com", &elsewhere)), all);
            std::fs::write(folder.join(written[0]), b"more").unwrap();
            assert_eq!(names(&wanted).len(), all.len());
        }
        vhost.upload.segments = false;
        assert_eq!(names(&Wanted::new("a.com", &vhost)).len(), 2);
        std::fs::remove_dir_all(&folder).unwrap();
    }
}

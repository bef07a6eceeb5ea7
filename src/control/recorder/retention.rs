//! Which recordings are removed: those that are too old, and the oldest when they take too much.
//!
//! What a recording is says `dvr_path`: a file whose path the template can give. Everything else
//! below the same folder (pages, files of others, what is being written) is left alone.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use super::Parts;
use super::path::Template;
use crate::config::{Config, Dvr};
use crate::hub::Reason;
use crate::limits;

/// A recording.
#[derive(Debug)]
struct Found {
    path: String,
    modified: SystemTime,
    bytes: u64,
}

/// Looks at all vhosts with limits.
pub(super) async fn clean(parts: &Parts, config: &Config) {
    for (name, vhost) in config.all_vhosts() {
        let dvr = &vhost.dvr;
        let template = Template::new(&dvr.dvr_path);
        let limited = dvr.keep_hours > 0 || dvr.keep_bytes > 0;
        if !dvr.enabled || !limited || !template.has_time() {
            continue;
        }
        let (looks, folder) = (template.clone(), template.root().clone());
        let found = parts.disk.help(move || Ok(find(&looks, &folder))).await;
        let Ok(found) = found else { continue };
        let doomed = doomed(found, dvr, SystemTime::now());
        if doomed.is_empty() {
            continue;
        }
        let Ok(root) = parts.disk.root(template.root()).await else { continue };
        for path in doomed {
            if parts.uploads.removed(name, template.root(), &path) {
                parts.counters.count(Reason::UploadGivenUp);
                let reason = Reason::UploadGivenUp.name();
                tracing::warn!(reason, file = path, "it had to go before it was uploaded");
            }
            match parts.disk.remove(&root, &path).await {
                Ok(()) => {
                    parts.counters.count(Reason::RecordRemoved);
                    tracing::info!(file = path, "an old recording is removed");
                }
                Err(why) => parts.grumble.say(&path, |more| {
                    let reason = Reason::RecordDiskFailed.name();
                    tracing::warn!(reason, file = path, more, "it cannot be removed: {why}");
                }),
            }
        }
    }
}

/// All recordings below a folder. Links are not followed.
fn find(template: &Template, root: &Path) -> Vec<Found> {
    let mut found = Vec::new();
    let mut seen = 0;
    let mut folders: Vec<PathBuf> = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        let Ok(entries) = std::fs::read_dir(&folder) else { continue };
        for entry in entries.flatten() {
            seen += 1;
            if seen > limits::RECORD_RETENTION_FILES_MAX {
                return found;
            }
            let path = entry.path();
            let Ok(about) = entry.metadata() else { continue };
            if about.is_dir() {
                folders.push(path);
                continue;
            }
            let below = path.strip_prefix(root).ok().and_then(Path::to_str);
            let ours = below.filter(|below| about.is_file() && template.matches(below));
            if let (Some(path), Ok(modified)) = (ours, about.modified()) {
                found.push(Found { path: path.to_owned(), modified, bytes: about.len() });
            }
        }
    }
    found
}

/// Those that are to be removed, the oldest first.
fn doomed(mut found: Vec<Found>, dvr: &Dvr, now: SystemTime) -> Vec<String> {
    found.sort_by_key(|file| file.modified);
    let mut bytes: u64 = found.iter().map(|file| file.bytes).sum();
    let oldest = Duration::from_secs(u64::from(dvr.keep_hours) * 3600);
    let is_doomed = |file: &Found| {
        let age = now.duration_since(file.modified).unwrap_or_default();
        let too_old = dvr.keep_hours > 0 && age > oldest;
        let too_much = dvr.keep_bytes > 0 && bytes > dvr.keep_bytes;
        if too_old || too_much {
            bytes -= file.bytes;
        }
        too_old || too_much
    };
    let mut is_doomed = is_doomed;
    found.into_iter().filter(|file| is_doomed(file)).map(|file| file.path).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_go_first() {
        let now = SystemTime::now();
        let hour = Duration::from_secs(3600);
        let all = || -> Vec<Found> {
            [3, 30, 1, 20]
                .into_iter()
                .map(|age| Found { path: age.to_string(), modified: now - hour * age, bytes: 10 })
                .collect()
        };
        let with = |keep_hours, keep_bytes| {
            doomed(all(), &Dvr { keep_hours, keep_bytes, ..Dvr::default() }, now)
        };
        assert!(with(0, 0).is_empty() && with(30, 40).is_empty());
        assert_eq!(with(25, 0), ["30"]);
        assert_eq!(with(2, 0), ["30", "20", "3"]);
        assert_eq!(with(0, 25), ["30", "20"]);
        assert_eq!(with(25, 15), ["30", "20", "3"]);
    }

    #[test]
    fn other_files_are_left_alone() {
        let root = std::env::temp_dir().join(format!("ringcast-retention-{}", std::process::id()));
        std::fs::create_dir_all(root.join("live")).unwrap();
        for name in ["index.html", "live/s.1700000000000.flv", "live/s.1700000000000.flv.tmp"] {
            std::fs::write(root.join(name), b"x").unwrap();
        }
        let template = Template::new(&format!("{}/[app]/[stream].[timestamp].flv", root.display()));
        let found = find(&template, &root);
        let paths: Vec<&str> = found.iter().map(|file| file.path.as_str()).collect();
        assert_eq!(paths, ["live/s.1700000000000.flv"]);
        std::fs::remove_dir_all(&root).unwrap();
    }
}

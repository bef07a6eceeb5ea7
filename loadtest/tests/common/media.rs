//! Media made with ffmpeg's own sources, once, into cargo's folder for test files.
//!
//! Keyframes are a second apart, so that a test sees several of them in a short time.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::time::Duration;

use super::process::Process;

/// What the end-to-end tests publish.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Media {
    /// H.264 with B-frames, AAC 44.1 kHz stereo.
    AvcBFramesAac,
    /// H.264 without B-frames, AAC 48 kHz mono.
    AvcAac,
    /// AAC alone.
    AacOnly,
    /// H.264 alone, with B-frames.
    AvcOnly,
    /// H.264 and MP3.
    AvcMp3,
    /// H.265 with B-frames and AAC, in Matroska: Debian's ffmpeg cannot write it to FLV.
    HevcAac,
}

/// Seconds that each medium lasts.
pub const SECONDS: u32 = 6;

const VIDEO: &str = "testsrc2=size=640x360:rate=25";
const AVC: &[&str] = &[
    "-c:v",
    "libx264",
    "-preset",
    "veryfast",
    "-pix_fmt",
    "yuv420p",
    "-g",
    "25",
    "-keyint_min",
    "25",
    "-sc_threshold",
    "0",
    "-b:v",
    "600k",
];

impl Media {
    fn file_name(self) -> &'static str {
        match self {
            Media::AvcBFramesAac => "avc-b-aac.flv",
            Media::AvcAac => "avc-aac.flv",
            Media::AacOnly => "aac.flv",
            Media::AvcOnly => "avc-b.flv",
            Media::AvcMp3 => "avc-mp3.flv",
            Media::HevcAac => "hevc-aac.mkv",
        }
    }

    fn arguments(self) -> Vec<&'static str> {
        let aac = ["-c:a", "aac", "-b:a", "96k"];
        let tone = "sine=frequency=440:sample_rate=44100";
        let mut all = Vec::new();
        if self != Media::AacOnly {
            all.extend(["-f", "lavfi", "-i", VIDEO]);
        }
        match self {
            Media::AvcOnly => {}
            Media::AvcAac => all.extend(["-f", "lavfi", "-i", "sine=sample_rate=48000"]),
            _ => all.extend(["-f", "lavfi", "-i", tone]),
        }
        match self {
            Media::AacOnly => {}
            Media::HevcAac => all.extend([
                "-c:v",
                "libx265",
                "-preset",
                "ultrafast",
                "-x265-params",
                "keyint=25:min-keyint=25:scenecut=0:bframes=2:open-gop=0:log-level=error",
            ]),
            _ => {
                all.extend(AVC);
                all.extend(["-bf", if self == Media::AvcAac { "0" } else { "2" }]);
            }
        }
        match self {
            Media::AvcOnly => {}
            Media::AvcMp3 => all.extend(["-c:a", "libmp3lame", "-b:a", "96k"]),
            Media::AvcAac => all.extend(aac),
            _ => all.extend(aac.into_iter().chain(["-ac", "2"])),
        }
        all.extend(["-t", "6"]);
        all
    }

    /// The file; made at the first call.
    pub fn file(self) -> PathBuf {
        static MAKING: Mutex<()> = Mutex::new(());
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(self.file_name());
        // A test that failed while it held the lock left no half file behind, so go on.
        let _one_at_a_time = MAKING.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        if path.exists() {
            return path;
        }
        // Test programs may run side by side: each makes its own copy and moves it into place.
        let suffix = path.extension().expect("a suffix").to_string_lossy();
        let half = path.with_extension(format!("{}.{suffix}", std::process::id()));
        let mut command = ffmpeg();
        command.args(self.arguments()).args(["-fflags", "+bitexact"]).arg(&half);
        Process::start("ffmpeg", &mut command)
            .finish(Duration::from_secs(60))
            .expect_success("ffmpeg makes a test medium");
        std::fs::rename(&half, &path).expect("rename in the folder for test files");
        path
    }
}

/// An ffmpeg command that writes errors only and overwrites files.
pub fn ffmpeg() -> Command {
    let mut command = Command::new("ffmpeg");
    command.args(["-hide_banner", "-loglevel", "error", "-nostdin", "-y"]);
    command
}

/// Publishes a file in real time, as it is, with its own timestamps.
pub fn publish(file: &Path, url: &str) -> Process {
    let mut command = ffmpeg();
    command.args(["-re", "-copyts", "-i"]).arg(file).args(["-c", "copy", "-f", "flv"]).arg(url);
    Process::start("ffmpeg (publisher)", &mut command)
}

/// The file as a publisher sends it: `publish` remuxes, and may order packets of equal time anew.
pub fn as_published(file: &Path) -> PathBuf {
    let path = file.with_extension(format!("{}.published.flv", std::process::id()));
    let mut command = ffmpeg();
    command.arg("-copyts").arg("-i").arg(file).args(["-c", "copy", "-f", "flv"]).arg(&path);
    Process::start("ffmpeg", &mut command)
        .finish(Duration::from_secs(30))
        .expect_success("ffmpeg remuxes a test medium");
    path
}

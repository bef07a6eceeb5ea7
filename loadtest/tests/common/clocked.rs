//! Media whose pictures say which one they are, published without end by the wall clock: what is
//! seen somewhere says when it was sent.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use loadtest::client::{Received, RtmpPublisher};
use loadtest::media::Kind;

use super::media::ffmpeg;
use super::process::Process;
use super::units::Source;

/// Pictures until they begin anew; a power of two, and 64 times as long as audio and video both
/// have whole frames in (0.32 s), so that the end goes on with the beginning.
const PICTURES: u32 = 512;
/// Milliseconds from one to the next.
const STEP_MS: u32 = 40;
/// AAC frames of 1,024 samples at 48 kHz in that time.
const AAC_FRAMES: usize = 960;
/// Milliseconds until everything begins anew.
const ROUND_MS: u32 = PICTURES * STEP_MS;

/// Bits of the number, each a square of 32 pixels at the top, the lowest first; behind them one
/// that is always lit.
const BITS: u32 = 9;

/// A script for the page's first video: the number of its picture, or null when that is no such
/// picture.
pub const NUMBER: &str = "(() => {
    const video = document.querySelector('video');
    const canvas = window.ownCanvas ??= Object.assign(document.createElement('canvas'),
      { width: 320, height: 180 });
    const context = canvas.getContext('2d', { willReadFrequently: true });
    context.drawImage(video, 0, 0, 320, 180);
    const row = context.getImageData(0, 16, 320, 1).data;
    let number = 0;
    for (let bit = 0; bit < 9; bit += 1) {
      if (row[(bit * 32 + 16) * 4] > 128) number += 2 ** bit;
    }
    return row[(9 * 32 + 16) * 4] > 128 ? number : null;
  })()";

/// The codecs of a medium.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Clocked {
    /// H.264 and AAC.
    H264,
    /// AV1 and AAC.
    Av1,
}

impl Clocked {
    /// The medium, made at the first call; a keyframe each second.
    pub fn source(self) -> Source {
        static MAKING: Mutex<()> = Mutex::new(());
        let (name, codec): (_, &[&str]) = match self {
            Clocked::H264 => ("clocked-h264", &["libx264", "-preset", "veryfast", "-bf", "0"]),
            // mpegts.js stumbles on keyframes of other encoders.
            Clocked::Av1 => {
                let live = ["libaom-av1", "-usage", "realtime", "-cpu-used", "8"];
                ("clocked-av1", &[&live[..], &["-lag-in-frames", "0", "-b:v", "300k"]].concat())
            }
        };
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}.mp4"));
        // A test that failed while it held the lock left no half file behind, so go on.
        let _one_at_a_time = MAKING.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        if !path.exists() {
            let half = path.with_extension(format!("{}.mp4", std::process::id()));
            let mut filter =
                "drawbox=0:0:320:32:black:fill,drawbox=288:0:32:32:white:fill".to_owned();
            for bit in 0..BITS {
                let (at, of) = (bit * 32, 1 << bit);
                let lit = format!("mod(floor(n/{of})\\,2)");
                filter += &format!(",drawbox={at}:0:32:32:white:fill:enable='{lit}'");
            }
            let mut command = ffmpeg();
            command.args(["-f", "lavfi", "-i", "testsrc2=size=320x180:rate=25"]);
            command.args(["-f", "lavfi", "-i", "sine=frequency=440:sample_rate=48000"]);
            command.args(["-vf", &filter, "-c:v"]).args(codec);
            command.args(["-g", "25", "-keyint_min", "25", "-sc_threshold", "0"]);
            command.args(["-pix_fmt", "yuv420p", "-c:a", "aac", "-b:a", "64k", "-t", "21"]);
            command.arg(&half);
            let made = Process::start("ffmpeg", &mut command).finish(Duration::from_secs(90));
            made.expect_success("ffmpeg makes a test medium");
            std::fs::rename(&half, &path).expect("rename in the folder for test files");
        }
        Source::open(path)
    }

    /// Publishes it to a URL until it is dropped.
    pub fn publish(self, url: &str) -> Publishing {
        let (headers, frames) = self.source().messages();
        let of = |kind: Kind, count: usize| {
            let found: Vec<_> =
                frames.iter().filter(|f| f.kind == kind).take(count).cloned().collect();
            assert_eq!(found.len(), count, "{self:?} has {} {kind:?} frames", found.len());
            found
        };
        let mut round = of(Kind::Video, PICTURES as usize);
        let first = round[0].timestamp;
        let mut audio = of(Kind::Audio, AAC_FRAMES);
        let shift = audio[0].timestamp;
        audio.iter_mut().for_each(|frame| frame.timestamp = frame.timestamp - shift + first);
        round.extend(audio);
        round.sort_by_key(|frame| frame.timestamp);
        let mut publisher = RtmpPublisher::connect(url).expect("publish");
        let ended = Arc::new(AtomicBool::new(false));
        let (start, wall) = (Instant::now(), SystemTime::now());
        let started_ms = wall.duration_since(UNIX_EPOCH).expect("after 1970").as_millis() as u64;
        let stop = ended.clone();
        let thread = thread::spawn(move || {
            for header in headers {
                publisher.send(header.kind, first, &header.payload).expect("send");
            }
            for turn in 0.. {
                for Received { kind, timestamp, payload } in &round {
                    let ms = timestamp - first + turn * ROUND_MS;
                    let due = start + Duration::from_millis(u64::from(ms));
                    thread::sleep(due.saturating_duration_since(Instant::now()));
                    if stop.load(Ordering::Relaxed) {
                        return;
                    }
                    publisher.send(*kind, ms + first, payload).expect("send");
                }
            }
        });
        Publishing { ended, thread: Some(thread), started_ms }
    }
}

/// A publisher at work.
pub struct Publishing {
    ended: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
    started_ms: u64,
}

impl Publishing {
    /// How long before `now_ms` (since 1970) the picture of that number was sent, ms. Right for
    /// what is less late than a whole round, 20 s.
    pub fn age_ms(&self, number: u32, now_ms: u64) -> u32 {
        let since_start = now_ms.saturating_sub(self.started_ms);
        let place = (since_start % u64::from(ROUND_MS)) as u32;
        (place + ROUND_MS - number * STEP_MS) % ROUND_MS
    }
}

impl Drop for Publishing {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

//! Viewers of HLS segments: ringcast against nginx, which serves the very files that ringcast
//! writes.

use std::thread::sleep;
use std::time::Duration;

use clap::Args;
use serde_json::{Value, json};

use bench::process::Scratch;
use bench::quantity::{median, range};
use bench::server::{self, Error};
use bench::tester::Place;
use bench::viewers::{self, Audience, Turn};

/// Who watches what.
#[derive(Args, Debug)]
pub struct Options {
    /// A few viewers for a few seconds: that it runs, not what it says.
    #[arg(long)]
    quick: bool,
    /// Viewers.
    #[arg(long, default_value_t = 2_000)]
    viewers: u32,
    /// Video bitrate, kbit/s.
    #[arg(long, default_value_t = 600.0)]
    kbps: f64,
    /// Length of a segment, and distance of keyframes, seconds.
    #[arg(long, default_value_t = 2)]
    fragment: u32,
    /// Rounds; in each, both servers take their turn.
    #[arg(long, default_value_t = 3)]
    rounds: u32,
    /// Measured seconds of each turn.
    #[arg(long, default_value_t = 10.0)]
    seconds: f64,
    /// Segments are fragmented MP4, not MPEG-TS.
    #[arg(long)]
    mp4: bool,
    /// Further settings of ringcast.
    #[arg(long)]
    set: Vec<String>,
}

/// Lets both serve the same viewers in turns.
pub fn run(options: &Options) -> Result<Value, Error> {
    let head = super::head("hls");
    let scratch = Scratch::new().map_err(Error::during("a folder for files"))?;
    let place = Place::default();
    let folder = scratch.file("segments");
    let (fragment, rounds, audience) = plan(options);
    let mut set = vec![
        format!("vhost.hls.hls_fragment={fragment}"),
        format!("vhost.hls.hls_window={}", 5 * fragment),
        format!("vhost.hls.hls_path={}", folder.display()),
        format!("vhost.hls.hls_use_fmp4={}", options.mp4),
    ];
    set.extend(options.set.iter().cloned());
    let stream = (options.kbps, f64::from(fragment));
    let cut = viewers::cut(&set, stream, &place, &scratch)?;
    let nginx = server::start_files(&folder, "0", &scratch)?;
    let files = format!("{}/live/s.m3u8", nginx.play_url);
    // A playlist of some segments is there.
    sleep(Duration::from_secs(u64::from(4 * fragment) + 1));
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for round in 1..=rounds {
        for turn in 0..2 {
            let mine = (round + turn) % 2 == 1;
            let (name, url) = if mine { ("ringcast", &cut.playlist) } else { ("nginx", &files) };
            let pids = match mine {
                true => vec![cut.server.pid],
                // While nginx serves, ringcast receives, cuts and writes: its fixed cost.
                false => vec![nginx.pid, cut.server.pid],
            };
            let turn =
                viewers::watch(&pids, url, &audience, &[], &place, &scratch, &mut || Ok(()))?;
            eprintln!(
                "round {round}  {name:<9} {:6.1} us/viewer  {:5.1} %  playlist p99 {:.1} ms, \
                 segment p99 {:.1} ms  {:.0} Mbit/s  {:.1} MB{}",
                turn.us_per_viewer,
                turn.cpu_percent[0],
                turn.number("/playlist_ms/p99"),
                turn.number("/segment_ms/p99"),
                turn.seen.mbps,
                turn.resident_mb.last().copied().unwrap_or(0.0),
                remarks(&turn, audience.viewers),
            );
            if mine { &mut ours } else { &mut theirs }.push(turn);
        }
    }
    Ok(super::with(head, outcome(options, &audience, fragment, &ours, &theirs)))
}

fn plan(options: &Options) -> (u32, u32, Audience) {
    let all = Audience {
        viewers: options.viewers,
        ramp: 1_000,
        verify: "2%",
        settle: f64::from(2 * options.fragment),
        seconds: options.seconds,
    };
    match options.quick {
        true => {
            let few =
                Audience { viewers: options.viewers.min(30), settle: 1.0, seconds: 3.0, ..all };
            (1, 1, Audience { verify: "all", ..few })
        }
        false => (options.fragment, options.rounds, all),
    }
}

/// What makes a turn's figures doubtful.
pub fn remarks(turn: &Turn, viewers: u32) -> String {
    let mut out = String::new();
    let (missed, late) = (turn.number("/missed"), turn.number("/late"));
    if missed + late > 0.0 {
        out += &format!("  [{missed} missed, {late} late]");
    }
    if turn.seen.faults + turn.seen.skips > 0 {
        out += &format!("  [{} faults, {} skips]", turn.seen.faults, turn.seen.skips);
    }
    if turn.seen.playing < u64::from(viewers) {
        out += &format!("  [{} of {viewers} played]", turn.seen.playing);
    }
    if turn.cpu_percent.first().is_some_and(|percent| *percent > 95.0) {
        out += "  [server saturated]";
    }
    if turn.seen.tester_percent > 90.0 {
        out += "  [tester saturated]";
    }
    out
}

fn outcome(
    options: &Options,
    audience: &Audience,
    fragment: u32,
    ours: &[Turn],
    theirs: &[Turn],
) -> Value {
    let viewers = f64::from(audience.viewers.max(1));
    let each = |turns: &[Turn]| turns.iter().map(|turn| turn.us_per_viewer).collect::<Vec<f64>>();
    // Receiving, cutting and writing, which nginx does not do.
    let fixed: Vec<f64> = theirs.iter().map(|turn| turn.cpu_percent[1] * 1e4 / viewers).collect();
    let pairs = || ours.iter().zip(theirs);
    let ratios: Vec<f64> = pairs().map(|(m, t)| m.us_per_viewer / t.us_per_viewer).collect();
    let serving: Vec<f64> = pairs()
        .zip(&fixed)
        .map(|((m, t), fixed)| (m.us_per_viewer - fixed) / t.us_per_viewer)
        .collect();
    println!(
        "{} viewers of {fragment} s segments, {} kbit/s: ringcast {:.1} us/viewer, of which {:.1} \
         are receiving, cutting and writing; nginx {:.1}",
        audience.viewers,
        options.kbps,
        median(&each(ours)),
        median(&fixed),
        median(&each(theirs)),
    );
    let [low, high] = range(&ratios);
    let [low_serving, high_serving] = range(&serving);
    println!(
        "ringcast / nginx, CPU per viewer: {:.2} ({low:.2} - {high:.2}); serving alone: {:.2} \
         ({low_serving:.2} - {high_serving:.2})",
        median(&ratios),
        median(&serving)
    );
    json!({
        "viewers": audience.viewers,
        "kbps": options.kbps,
        "fragment_s": fragment,
        "seconds": audience.seconds,
        "us_per_viewer": {"ringcast": median(&each(ours)), "nginx": median(&each(theirs)),
                          "ringcast_fixed": median(&fixed)},
        "ratio": {"median": median(&ratios), "range": range(&ratios)},
        "ratio_serving": {"median": median(&serving), "range": range(&serving)},
        "ringcast": ours,
        "nginx": theirs,
    })
}

//! Viewers of Low-Latency HLS: what they cost, how long held playlists take, and whether memory is
//! the same all the time.

use std::thread::sleep;
use std::time::Duration;

use clap::Args;
use serde_json::{Value, json};

use bench::process::Scratch;
use bench::server::Error;
use bench::tester::Place;
use bench::viewers::{self, Audience, Turn};

/// Who watches what.
#[derive(Args, Debug)]
pub struct Options {
    /// A few viewers for a few seconds: that it runs, not what it says.
    #[arg(long)]
    quick: bool,
    /// Viewers.
    #[arg(long, default_value_t = 5_000)]
    viewers: u32,
    /// How many come in a second.
    #[arg(long, default_value_t = 500)]
    ramp: u32,
    /// Video bitrate, kbit/s.
    #[arg(long, default_value_t = 600.0)]
    kbps: f64,
    /// Length of a part, seconds.
    #[arg(long, default_value_t = 0.2)]
    part: f64,
    /// Measured seconds.
    #[arg(long, default_value_t = 30.0)]
    seconds: f64,
    /// Viewers ask for a part when a playlist names it, not when it is hinted at.
    #[arg(long)]
    no_hints: bool,
    /// Viewers ask for whole playlists.
    #[arg(long)]
    no_deltas: bool,
    /// Samples the server by perf for so many seconds of the measurement, and prints what it does.
    #[arg(long, value_name = "SECONDS")]
    profile: Option<u32>,
    /// Further settings of ringcast.
    #[arg(long)]
    set: Vec<String>,
}

/// Lets them watch.
pub fn run(options: &Options) -> Result<Value, Error> {
    let head = super::head("ll-hls");
    let scratch = Scratch::new().map_err(Error::during("a folder for logs"))?;
    let place = Place::default();
    let all = Audience {
        viewers: options.viewers,
        ramp: options.ramp,
        verify: "0.5%",
        settle: 3.0,
        seconds: options.seconds,
    };
    let audience = match options.quick {
        true => Audience {
            viewers: options.viewers.min(50),
            verify: "all",
            settle: 1.0,
            seconds: 3.0,
            ..all
        },
        false => all,
    };
    let mut set = vec![
        "vhost.hls.hls_use_fmp4=true".to_owned(),
        "vhost.hls.hls_fragment=1".to_owned(),
        "vhost.hls.hls_window=12".to_owned(),
        format!("vhost.hls.hls_part={}", options.part),
    ];
    set.extend(options.set.iter().cloned());
    let cut = viewers::cut(&set, (options.kbps, 1.0), &place, &scratch)?;
    // Some segments are there: parts are told of from the second on.
    sleep(Duration::from_secs(if options.quick { 4 } else { 13 }));
    let (hints, deltas) =
        (format!("--hints={}", !options.no_hints), format!("--deltas={}", !options.no_deltas));
    let mut found = Value::Null;
    let pid = cut.server.pid;
    let mut meanwhile = || {
        if let Some(seconds) = options.profile {
            found = super::profile::sample(pid, seconds, 45, &scratch)?;
        }
        Ok(())
    };
    let more = [hints.as_str(), deltas.as_str()];
    let turn =
        viewers::watch(&[pid], &cut.playlist, &audience, &more, &place, &scratch, &mut meanwhile)?;
    let report = outcome(options, &audience, &turn);
    let report = super::with(report, json!({"profile": found, "turn": turn}));
    Ok(super::with(head, report))
}

fn outcome(options: &Options, audience: &Audience, turn: &Turn) -> Value {
    let ms = |name: &str| {
        let at = |quantile: &str| turn.number(&format!("/{name}/{quantile}"));
        format!("p50 {:.1}, p99 {:.1}, most {:.1} ms", at("p50"), at("p99"), at("max"))
    };
    let viewers = f64::from(audience.viewers.max(1));
    // In steady state: one playlist and one part for each part of the stream.
    let requests = 2.0 / options.part * viewers;
    let us_per_request = turn.cpu_percent[0] * 1e4 / requests;
    let whole = |name: &str| turn.number(&format!("/{name}"));
    let (playlist_bytes, media_bytes) = (whole("playlist_bytes"), whole("media_bytes"));
    let answers = whole("playlists").max(1.0);
    let kbps = turn.seen.mbps * 1_000.0 / viewers;
    println!(
        "{} viewers of parts of {} s, {} kbit/s: {:.1} % of a core ({:.1} user), {:.1} us a viewer \
         and second, {us_per_request:.1} us a request{}",
        audience.viewers,
        options.part,
        options.kbps,
        turn.cpu_percent[0],
        turn.user_percent,
        turn.us_per_viewer,
        super::hls::remarks(turn, audience.viewers)
    );
    println!("held playlists, from the part's end:  {}", ms("reload_ms"));
    println!("held playlists, after the first one:  {}", ms("reload_after_first_ms"));
    println!("parts: {}; publisher to viewer: {}", ms("part_ms"), ms("latency_ms"));
    println!(
        "a viewer gets {kbps:.0} kbit/s of media and {:.0} bytes a playlist (over all, {:.2} of \
         the media)",
        playlist_bytes / answers,
        playlist_bytes / media_bytes.max(1.0)
    );
    let window = &turn.resident_mb[turn.before.min(turn.resident_mb.len())..];
    let (first, last) = (window.first().copied(), window.last().copied());
    println!(
        "resident: {:.1} MB before, {:.1} MB when all had come, {:.1} MB at the end, grown by \
         {:.1} MB; tester {:.0} % of a core",
        turn.resident_mb[0],
        first.unwrap_or(0.0),
        last.unwrap_or(0.0),
        turn.grown_mb(),
        turn.seen.tester_percent
    );
    json!({
        "viewers": audience.viewers,
        "kbps": options.kbps,
        "part_s": options.part,
        "hints": !options.no_hints,
        "deltas": !options.no_deltas,
        "seconds": audience.seconds,
        "cpu_percent": turn.cpu_percent[0],
        "us_per_viewer": turn.us_per_viewer,
        "us_per_request": us_per_request,
        "media_kbps_per_viewer": kbps,
        "bytes_per_playlist": playlist_bytes / answers,
        "grown_mb": turn.grown_mb(),
        "hls": turn.hls,
    })
}

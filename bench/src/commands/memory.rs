//! Resident memory: what an additional player costs, and what many cost together.

use std::thread::sleep;
use std::time::Duration;

use clap::Args;
use serde_json::{Value, json};

use bench::process::{self, Scratch};
use bench::schedule::{Case, Window};
use bench::server::{self, Error, Kind, Setup};
use bench::tester::{self, Place};

/// How many players.
#[derive(Args, Debug)]
pub struct Options {
    /// Players at the first look.
    #[arg(long, default_value_t = 2_000)]
    base: u32,
    /// Players at the second.
    #[arg(long, default_value_t = 10_000)]
    players: u32,
    /// Video bitrate, kbit/s.
    #[arg(long, default_value_t = 600.0)]
    kbps: f64,
}

/// Looks at a server's memory with few players and with many.
pub fn run(options: &Options) -> Result<Value, Error> {
    let head = super::head("memory");
    let scratch = Scratch::new().map_err(Error::during("a folder for logs"))?;
    let case = Case::rtmp(options.players, options.kbps, Window::Adaptive);
    let place = Place::default();
    let slab_before = process::kernel_slab();
    let server = server::start(&Kind::Ringcast, &case, &Setup::default(), &scratch)?;
    let empty = process::resident(server.pid);
    let _publisher = tester::publish(&place, &server.publish_url, 1, &case, &scratch)?;
    sleep(Duration::from_secs(3));
    let mut looks = vec![look(0, server.pid)];
    let more = options.players.saturating_sub(options.base);
    let (wait, end) = (f64::from(options.base) / 1000.0 + 4.0, f64::from(more) / 1000.0 + 5.0);
    let first = (options.base, 1_000, "none");
    let first =
        tester::play("play-1", &place, &server.play_url, first, wait + end + 2.0, &scratch)?;
    sleep(Duration::from_secs_f64(wait));
    looks.push(look(options.base, server.pid));
    let second = (more, 1_000, "none");
    let second = tester::play("play-2", &place, &server.play_url, second, end + 1.5, &scratch)?;
    sleep(Duration::from_secs_f64(end));
    looks.push(look(options.players, server.pid));
    let slab = process::kernel_slab().saturating_sub(slab_before);
    let seen = [first.seen(wait - 2.0, wait + end)?, second.seen(end - 2.0, end)?];
    let number = |look: &Value, key: &str| look[key].as_f64().unwrap_or(0.0);
    let grown = number(&looks[2], "anonymous_bytes") - number(&looks[1], "anonymous_bytes");
    let per_player = grown / f64::from(more.max(1));
    let rss_mb = number(&looks[2], "resident_bytes") / 1048576.0;
    println!("resident per additional player: {per_player:.0} bytes (anonymous memory)");
    println!("resident with {} players: {rss_mb:.1} MB", options.players);
    println!(
        "kernel memory with them, both ends: {:.0} bytes of slab per player, {:.1} MB in buffers",
        slab as f64 / f64::from(options.players),
        number(&looks[2], "socket_buffer_bytes") / 1048576.0
    );
    Ok(super::with(
        head,
        json!({
            "kbps": options.kbps,
            "resident_empty_bytes": empty,
            "looks": looks,
            "bytes_per_additional_player": per_player,
            "resident_mb": rss_mb,
            "kernel_slab_bytes_per_player_both_ends": slab as f64 / f64::from(options.players),
            "seen": seen,
        }),
    ))
}

fn look(players: u32, pid: u32) -> Value {
    json!({
        "players": players,
        "resident_bytes": process::resident(pid),
        "anonymous_bytes": process::resident_anonymous(pid),
        "socket_buffer_bytes": process::socket_buffers(),
    })
}

//! The list of live streams that the index page shows.

use std::fmt::Write as _;
use std::sync::atomic::Ordering::Relaxed;

use crate::limits;
use crate::remux::Registry;

/// Live streams as JSON:
/// `{"rtmp_port","now_ms","streams":[{"vhost","app","name","players","video","audio","kbps"}]}`.
/// `now_ms` is the server's time of day: the player page says by it how late a picture is.
/// `kbps` is the average since publishing began, as text of a number.
pub fn streams_json(streams: &Registry, wall_ms: i64, rtmp_port: u16) -> String {
    let mut out = format!("{{\"rtmp_port\":{rtmp_port},\"now_ms\":{wall_ms},\"streams\":[");
    let mut first = true;
    for stream in streams.list(limits::LISTING_MAX) {
        if !stream.is_published() {
            continue;
        }
        if !first {
            out.push(',');
        }
        first = false;
        let tracks = stream.tracks();
        let video = tracks.as_ref().and_then(|t| t.video.clone()).unwrap_or_default();
        let audio = tracks.as_ref().and_then(|t| t.audio.clone()).unwrap_or_default();
        let ms = (wall_ms - stream.stats.published_since_ms.load(Relaxed)).max(1);
        let kbps = stream.stats.bytes.load(Relaxed) as i64 * 8 / ms;
        out.push_str("{\"vhost\":");
        string(&mut out, stream.name.vhost());
        out.push_str(",\"app\":");
        string(&mut out, stream.name.app());
        out.push_str(",\"name\":");
        string(&mut out, stream.name.stream());
        let _ = write!(out, ",\"players\":{},\"video\":", stream.players());
        string(&mut out, &video);
        out.push_str(",\"audio\":");
        string(&mut out, &audio);
        let _ = write!(out, ",\"kbps\":{kbps}}}");
    }
    out.push_str("]}\n");
    out
}

/// A JSON string (RFC 8259 7).
fn string(out: &mut String, text: &str) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            c if c < ' ' => {
                let _ = write!(out, "\\u{:04x}", c as u32);
            }
            c => out.push(c),
        }
    }
    out.push('"');
}

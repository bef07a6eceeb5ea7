//! What is fuzzed: one function per parser, from bytes to nothing. A target fails by panicking,
//! and beside not panicking each of them states what must hold for any input, above all that it
//! makes no difference how the bytes are cut on their way.
//!
//! The same functions replay the corpora in `loadtest/tests/fuzz_corpora.rs`, so they use nothing
//! but the crates of this repository.

mod codecs;
mod http;
mod live;
mod mux;
mod ps;
pub mod rtmp;
mod session;
mod text;
mod ts;

/// A target.
pub type Run = fn(&[u8]);

/// Every target by name; each has its folder in `corpus/`.
pub const ALL: &[(&str, Run)] = &[
    ("rtmp_joiner", rtmp::joiner),
    ("rtmp_server", rtmp::server),
    ("rtmp_client", rtmp::client),
    ("amf0", rtmp::amf0),
    ("metadata", rtmp::metadata),
    ("names", text::names),
    ("config", text::config),
    ("srs_config", text::srs_config),
    ("flv", http::flv),
    ("http_request", http::request),
    ("http_response", http::response),
    ("http_chunked", http::chunked),
    ("websocket", http::websocket),
    ("tags", codecs::tags),
    ("codecs", codecs::codecs),
    ("timeline", codecs::timeline),
    ("mux", mux::mux),
    ("ts_demux", ts::demux),
    ("ps_demux", ps::demux),
    ("live", live::live),
    ("session", session::session),
];

/// The target of this name.
pub fn find(name: &str) -> Option<Run> {
    ALL.iter().find(|(each, _)| *each == name).map(|(_, run)| *run)
}

/// Cuts bytes into pieces; the sizes follow from `seed`. Seed 0 cuts nothing.
pub fn pieces(seed: u8, data: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = data;
    let mut state = u32::from(seed);
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let len = match seed {
            0 => rest.len(),
            1 => 1,
            _ => {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                // Mostly short pieces: headers are short.
                let bits = (state >> 24) % 10;
                1 + ((state >> 8) as usize & ((1 << bits) - 1))
            }
        };
        let (piece, after) = rest.split_at(len.min(rest.len()));
        rest = after;
        Some(piece)
    })
}

/// Takes a byte off the front; 0 when there is none.
pub fn byte(data: &mut &[u8]) -> u8 {
    let Some((&first, rest)) = data.split_first() else { return 0 };
    *data = rest;
    first
}

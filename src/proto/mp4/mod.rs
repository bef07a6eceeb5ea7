//! Fragmented MP4 (ISO 14496-12, CMAF 23000-19): one initialisation segment, then fragments.
//!
//! ```text
//! ftyp moov(mvhd trak... mvex)  |  {prft} moof(mfhd traf(tfhd tfdt trun)) mdat  | ...
//! ```
//! Each fragment is one unit of one track and says its own time, so a player that has the
//! initialisation segment may start at any fragment.

pub mod file;
mod fragment;
mod init;
pub mod start;

pub use fragment::{Fragment, write_fragment, write_reference_time};
pub use init::{TRACK_AUDIO, TRACK_VIDEO, VIDEO_TIMESCALE, write_init};

/// Appends a box: its size, its name, and what `body` writes.
fn boxed(out: &mut Vec<u8>, name: &[u8; 4], body: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(name);
    body(out);
    // Boxes written here are far below 4 GiB: an RTMP message has at most 16 MiB.
    let len = (out.len() - start) as u32;
    out[start..start + 4].copy_from_slice(&len.to_be_bytes());
}

/// Appends a box that begins with a version and 24 bits of flags.
fn full(
    out: &mut Vec<u8>,
    name: &[u8; 4],
    version: u8,
    flags: u32,
    body: impl FnOnce(&mut Vec<u8>),
) {
    boxed(out, name, |out| {
        put32(out, u32::from(version) << 24 | flags & 0xff_ffff);
        body(out);
    });
}

fn put16(out: &mut Vec<u8>, value: u16) {
    out.extend_from_slice(&value.to_be_bytes());
}

fn put32(out: &mut Vec<u8>, value: u32) {
    out.extend_from_slice(&value.to_be_bytes());
}

fn put64(out: &mut Vec<u8>, value: u64) {
    out.extend_from_slice(&value.to_be_bytes());
}

//! MPEG program streams (ISO 13818-1 2.5, and ISO 11172-1 where MPEG-1 has another form), as files
//! and as cameras send them.
//!
//! ```text
//! stream   {pack header {system header} {map} packet packet ...} ... {end code}
//! pack     [00 00 01 ba][01 clock:46][rate:24][5 reserved, stuffing:3]{ff ...}     MPEG-2
//!          [00 00 01 ba][0010 clock:36][rate:24]                                   MPEG-1
//! map      [00 00 01 bc][length:16][version:16]{descriptors}{type, id, descriptors}[checksum]
//! packet   [00 00 01][id][length:16] ...                                           see PES
//! ```
//! The packets carry byte streams: where a picture begins and ends is told by the pictures alone
//! (`pictures`), not by the packets, and a packet's time is that of the first picture that
//! begins in it.

pub mod demux;
mod guess;
mod pictures;

pub use demux::Demux;

/// True when a file that begins with these bytes is one.
pub fn is_program_stream(begin: &[u8]) -> bool {
    matches!(begin, [0, 0, 1, 0xba..=0xef, ..])
}

//! HTTP Live Streaming (RFC 8216 and its second edition): where to cut a stream, what playlists
//! say of it, how files are named, and a checker of what playlists have to keep to.
//!
//! A *segment* is what a playlist line stands for; a *part* is a piece of a segment that players
//! may have before the segment is complete. Segments are counted by their media sequence number.

pub mod check;
pub mod cutter;
pub mod playlist;
pub mod template;

pub use cutter::{Cut, Cutter, Frame, Rules};
pub use playlist::{Master, Media, PartLine, SegmentLine, Text};
pub use template::{Found, Template, Values};

//! The hub: who publishes, who plays, and the logs between them.
//!
//! A *stream* is what one publisher sends; a *feed* is one encoding of it, an append-only log of
//! blocks in the arena; a player is a *cursor* (a [`Position`]) in a feed. One publisher writes,
//! players on any shard read, and nothing on the way takes a lock.
//!
//! The hub knows no protocol and no socket: what the bytes of a feed mean is decided in
//! `remux`, who receives them in `shard`.

pub mod clients;
pub mod feed;
pub mod mirror;
pub mod recording;
pub mod registry;
pub mod segments;
pub mod stats;
pub mod stream;

pub use clients::{
    Client, ClientChange, ClientEvent, ClientKind, Clients, NewClient, Place, SessionId, Urls,
};
pub use feed::{Container, Feed, FeedWriter, Flags, Format, Join, Position};
pub use mirror::{Entrance, Held, Mirror, Next};
pub use recording::{Recording, RecordingState};
pub use registry::Registry;
pub use segments::{SegmentList, SegmentMemory, Segments};
pub use stats::{Counters, Reason};
pub use stream::{Busy, Stream, StreamId};

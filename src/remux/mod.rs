//! Conversions of one encoding into another, without decoding: what a publisher sends becomes the
//! feeds players follow.

pub mod cipher;
pub mod dash_path;
pub mod flv;
pub mod live;
pub mod manifest;
pub mod mux;
pub mod packed;
pub mod playlist;
pub mod rebase;
pub mod rtmp;
pub mod segmenter;
pub mod squeeze;
pub mod tracks;
pub mod wrap;

pub use live::{Live, LiveOptions, Noted, Outcome, Refused};
pub use packed::HttpOptions;
pub use segmenter::{DashOptions, SegmentOptions};

/// A stream as this server has it: written by [`Live`].
pub type Stream = crate::hub::Stream<Box<Live>>;
/// The table of streams.
pub type Registry = crate::hub::Registry<Box<Live>>;
/// A client as this server has it.
pub type Client = crate::hub::Client<Box<Live>>;
/// The table of clients.
pub type Clients = crate::hub::Clients<Box<Live>>;

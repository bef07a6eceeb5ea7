//! Protocol state machines that know no socket, clock, thread or stream.
//!
//! Each of them keeps one contract: bytes and, where it matters, the time go in; bytes and events
//! come out. Randomness, addresses and limits are arguments. A caller hands over what it received,
//! acts on the events and sends what `output` holds. Hence the same code serves the server, edge
//! pull, the load tester and simulations on virtual time, and a test needs nothing but slices.
//!
//! Input is hostile until proven otherwise: an error says whose fault it is, closes only the
//! connection it came from, and nothing grows by a size that a peer merely declared.

pub mod amf0;
pub mod dash;
pub mod flv;
pub mod flv_file;
pub mod hls;
pub mod http;
pub mod mp4;
pub mod mpeg;
pub mod ps;
pub mod rtmp;
pub mod ts;
pub mod ws;

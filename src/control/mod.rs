//! The control thread: signals, counters, the demo's publisher; later the HTTP API, callbacks and
//! everything else that may wait. It runs on tokio-uring and is never on the way of a frame.

pub mod api;
pub mod client;
pub mod demo;
pub mod heartbeat;
pub mod hooks;
pub mod listen;
pub mod load;
pub mod net;
pub mod pulse;
pub mod reload;
pub mod serve;
pub mod summary;

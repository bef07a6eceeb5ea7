//! A load tester for RTMP, HTTP-FLV and HLS servers.
//!
//! [`run`] starts the groups of a [`Plan`] and returns a [`Report`]. Most players only drain what
//! they get, so that the server is the bottleneck; a share of them parses and checks everything
//! (see [`check`]). Generated streams carry a record in each message ([`record`]) with its number,
//! hash and send time, so that order, content and added latency can be checked at the other end
//! without agreement on anything but the machine's clock.
//!
//! [`client`] has small blocking clients for tests.

#![forbid(unsafe_code)]

pub mod ask;
pub mod check;
pub mod client;
pub mod clock;
pub mod hls;
pub mod html;
pub mod job;
pub mod media;
pub mod plan;
pub mod player;
pub mod record;
pub mod report;
mod run;
pub mod sample;
pub mod stats;
pub mod table;
pub mod target;
pub mod worker;

pub use plan::Plan;
pub use report::Report;
pub use run::{RunError, run};

//! The io_uring core of ringcast: rings, registered memory, typed operations, a simulator.

pub mod arena;
pub mod block;
mod clock;
pub mod driver;
mod hold;
mod inherit;
mod links;
mod map;
mod net;
mod opens;
mod ops;
pub mod probe;
mod queue;
mod recv;
mod registration;
pub mod ring;
pub mod sim;
mod splice;
mod wake;

pub use arena::{Arena, ArenaFull, ArenaOptions, ArenaStats};
pub use block::{BLOCK_SIZES, Block, BlockWriter, Entry};
pub use clock::clock_is_synchronised;
pub use driver::*;
pub use inherit::take_inherited;
pub use net::listen;
pub use probe::{Probe, Unavailable, probe};
pub use recv::Received;
pub use registration::{Registration, ZeroCopy};
pub use ring::{Ring, RingOptions};
pub use wake::Waker;

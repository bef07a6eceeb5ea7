//! The io_uring core of ringcast: rings, registered memory, typed operations, a simulator.

pub mod arena;
pub mod block;
pub mod driver;
mod map;
mod recv;

pub use arena::{Arena, ArenaFull, ArenaOptions, ArenaStats};
pub use block::{BLOCK_SIZES, Block, BlockWriter, Entry};
pub use driver::*;
pub use recv::Received;

//! The io_uring core of ringcast: rings, registered memory, typed operations, a simulator.

pub mod block;
pub mod driver;

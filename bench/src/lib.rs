//! Benches of ringcast's parts, the floor program, and the comparison of whole servers.
//!
//! Everything that compares states a ratio inside one run: figures of different runs or machines
//! say nothing about each other. See this folder's README for the numbers and how to repeat them.

#![forbid(unsafe_code)]

pub mod cost;
pub mod network;
pub mod null;
pub mod page;
pub mod process;
pub mod quantity;
pub mod schedule;
pub mod server;
pub mod sink;
pub mod tester;
pub mod viewers;
pub mod walk;

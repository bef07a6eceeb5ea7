#![doc = include_str!("README.md")]
#![forbid(unsafe_code)]

pub mod cli;
pub mod config;
pub mod control;
pub mod daemon;
pub mod doctor;
pub mod errors;
pub mod fault;
pub mod hub;
pub mod limits;
pub mod log;
pub mod media;
pub mod page;
pub mod pidfile;
pub mod privileges;
pub mod proto;
pub mod remux;
pub mod session;
pub mod shard;
pub mod systemd;
pub mod top;
pub mod version;

#[cfg(test)]
mod sim;
#[cfg(test)]
mod tidy;

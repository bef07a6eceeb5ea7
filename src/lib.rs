#![doc = include_str!("README.md")]
#![forbid(unsafe_code)]

#[cfg(feature = "server")]
pub mod cli;
pub mod config;
#[cfg(feature = "server")]
pub mod control;
#[cfg(feature = "server")]
pub mod daemon;
pub mod date;
#[cfg(feature = "server")]
pub mod doctor;
#[cfg(feature = "server")]
pub mod errors;
pub mod fault;
pub mod hub;
pub mod limits;
pub mod log;
pub mod media;
pub mod page;
#[cfg(feature = "server")]
pub mod pidfile;
#[cfg(feature = "server")]
pub mod privileges;
pub mod proto;
pub mod remux;
pub mod session;
pub mod shard;
pub mod systemd;
#[cfg(feature = "server")]
pub mod top;
pub mod version;

#[cfg(test)]
mod sim;
#[cfg(test)]
mod tidy;

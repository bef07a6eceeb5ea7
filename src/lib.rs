//! ringcast
#![forbid(unsafe_code)]

pub mod cli;
pub mod config;
pub mod daemon;
pub mod doctor;
pub mod limits;
pub mod log;
pub mod media;
pub mod page;
pub mod pidfile;
pub mod proto;

#[cfg(test)]
mod tidy;

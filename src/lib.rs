//! ringcast
#![forbid(unsafe_code)]

pub mod config;
pub mod limits;
pub mod media;
pub mod page;
pub mod proto;

#[cfg(test)]
mod tidy;

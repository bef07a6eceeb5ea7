//! ringcast

pub mod config;
pub mod limits;

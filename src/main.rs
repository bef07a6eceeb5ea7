//! The `ringcast` command.
#![forbid(unsafe_code)]

fn main() {}

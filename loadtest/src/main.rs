//! (skeleton of this crate)
#![forbid(unsafe_code)]
fn main() {}

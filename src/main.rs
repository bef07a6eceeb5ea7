//! ringcast
fn main() {}

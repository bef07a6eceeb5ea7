//! Files of one test program.

use std::path::{Path, PathBuf};

/// Where a file or folder of that name is of no other process.
pub fn path(name: &str) -> PathBuf {
    let name = format!("{}-{name}", std::process::id());
    Path::new(env!("CARGO_TARGET_TMPDIR")).join(name)
}

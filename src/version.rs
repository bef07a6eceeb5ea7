//! Name and version, as peers see them.

/// Version of this build.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// What `Server` headers and metadata say.
pub const SERVER: &str = concat!("ringcast/", env!("CARGO_PKG_VERSION"));

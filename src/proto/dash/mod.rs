//! MPEG-DASH (ISO 23009-1): what manifests say, and a checker of what they have to keep to.
//!
//! A *segment* here is of one track; a *Period* is a stretch of a stream whose media times and
//! descriptions belong together. The text is written here because the one crate for manifests
//! (dash-mpd) is a model of the whole schema on top of serde and an XML library: it cannot mark the
//! places where each viewer has its own word, and the data plane has no use for the rest of it.

pub mod check;
pub mod mpd;

pub use mpd::{Mpd, Period, Representation};

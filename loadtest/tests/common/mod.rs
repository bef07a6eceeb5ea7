//! What the end-to-end tests share: the real server, ffmpeg and ffprobe, media, a browser.
//!
//! Every server listens on a loopback address of its own, so tests run side by side without
//! choosing ports. Every child process has a deadline and dies with the value that owns it.

// Each test program uses a part of this.
#![allow(dead_code)]

pub mod admission;
pub mod browser;
pub mod certificate;
pub mod clocked;
pub mod faulty_disk;
pub mod hook_server;
pub mod http;
pub mod media;
pub mod packets;
pub mod process;
pub mod scratch;
pub mod server;
pub mod store;
pub mod ts;
pub mod units;
pub mod venv;
pub mod wait;
pub mod web_socket;

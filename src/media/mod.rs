//! What flows through the server, independent of any protocol: names, messages, codecs, time.

pub mod name;

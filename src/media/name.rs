//! The one grammar of stream names, shared by all protocols.

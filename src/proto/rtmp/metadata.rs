//! Metadata on its way from a publisher to players.

use super::error::{Error, Malformed};
use crate::proto::amf0::{self, Reader, put};

/// The name that metadata goes by.
pub const ON_METADATA: &str = "onMetaData";
/// What publishers put before it to have it stored for players that come later.
pub const SET_DATA_FRAME: &str = "@setDataFrame";

/// Rewrites metadata for players: without `duration`, which a live stream has not, and with the
/// `server` and `server_version` that send it.
///
/// `payload` begins at the AMF0 string `onMetaData`. All other properties are copied byte by byte,
/// so nothing that this server does not understand is lost. The result is always an object.
///
/// # Errors
/// [`Malformed::Metadata`] when the payload is not a name and an object or ECMA array.
pub fn rewrite(payload: &[u8], server: &str, version: &str) -> Result<Vec<u8>, Error> {
    rewrite_amf(payload, server, version).map_err(|error| Malformed::Metadata(error).into())
}

fn rewrite_amf(payload: &[u8], server: &str, version: &str) -> Result<Vec<u8>, amf0::Error> {
    let mut reader = Reader::new(payload);
    reader.raw_string()?;
    let mut out = Vec::with_capacity(payload.len() + 64 + server.len() + version.len());
    put::string(&mut out, ON_METADATA);
    put::object(&mut out);
    reader.open_object()?;
    while let Some(key) = reader.property_key()? {
        let value = reader.skip()?;
        if !matches!(key, b"duration" | b"server" | b"server_version") {
            put::raw_key(&mut out, key);
            out.extend_from_slice(value);
        }
    }
    put::key(&mut out, "server");
    put::string(&mut out, server);
    put::key(&mut out, "server_version");
    put::string(&mut out, version);
    put::end(&mut out);
    Ok(out)
}

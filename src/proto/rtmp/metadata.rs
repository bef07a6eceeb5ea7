//! Metadata on its way from a publisher to players.

use super::command::amf0_of;
use super::error::{Error, Malformed};
use crate::proto::amf0::{self, Reader, put};

/// The name that metadata goes by.
pub const ON_METADATA: &str = "onMetaData";
/// What publishers put before it to have it stored for players that come later.
pub const SET_DATA_FRAME: &str = "@setDataFrame";

/// Where metadata begins in a data message, when it is that: at its name, with or without the
/// request to store it. Other data messages, and the four bytes that FFmpeg sends for a timecode
/// track, are nothing that players get.
pub(super) fn find(type_id: u8, payload: &[u8]) -> Option<usize> {
    let amf0 = amf0_of(type_id, payload);
    let mut reader = Reader::new(amf0);
    let mut start = payload.len() - amf0.len();
    let mut name = reader.raw_string().ok()?;
    if name == SET_DATA_FRAME.as_bytes() {
        start = payload.len() - reader.rest().len();
        name = reader.raw_string().ok()?;
    }
    (name == ON_METADATA.as_bytes()).then_some(start)
}

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
        // An object that the publisher did not end would swallow what is put behind it.
        if reader.is_empty() && !is_ended(value) {
            break;
        }
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

/// True when the value stops where it does by itself, and not because the bytes stop: reading
/// it goes no further when an end of object follows.
fn is_ended(value: &[u8]) -> bool {
    let mut followed = value.to_vec();
    put::end(&mut followed);
    Reader::new(&followed).skip().is_ok_and(|read| read.len() == value.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::amf0::{Object, Value};

    fn encode(values: &[Value]) -> Vec<u8> {
        let mut out = Vec::new();
        values.iter().for_each(|value| value.put(&mut out));
        out
    }

    #[test]
    fn an_object_without_its_end_does_not_swallow_what_follows() {
        let mut metadata = Vec::new();
        put::string(&mut metadata, ON_METADATA);
        put::object(&mut metadata);
        put::key(&mut metadata, "width");
        put::number(&mut metadata, 1280.0);
        put::key(&mut metadata, "cut");
        put::object(&mut metadata);
        put::key(&mut metadata, "a");
        put::number(&mut metadata, 1.0);
        let rewritten = rewrite(&metadata, "s", "1").unwrap();
        let expected = properties(&[
            ("width", Value::Number(1280.0)),
            ("server", Value::String("s".into())),
            ("server_version", Value::String("1".into())),
        ]);
        let expected = [Value::String(ON_METADATA.into()), Value::Object(expected)];
        assert_eq!(rewritten, encode(&expected));
        assert_eq!(rewrite(&rewritten, "s", "1").unwrap(), rewritten);
    }

    fn properties(properties: &[(&str, Value)]) -> Object {
        Object(properties.iter().map(|(key, value)| ((*key).into(), value.clone())).collect())
    }

    #[test]
    fn duration_goes_and_the_server_comes() {
        let nested = properties(&[("duration", Value::Number(1.0))]);
        let before = properties(&[
            ("duration", Value::Number(60.0)),
            ("width", Value::Number(1280.0)),
            ("server", Value::String("other".into())),
            ("times", Value::StrictArray(vec![Value::Number(0.0), Value::Object(nested.clone())])),
            ("server_version", Value::Number(1.0)),
            ("stereo", Value::Boolean(true)),
        ]);
        let after = properties(&[
            ("width", Value::Number(1280.0)),
            ("times", Value::StrictArray(vec![Value::Number(0.0), Value::Object(nested)])),
            ("stereo", Value::Boolean(true)),
            ("server", Value::String("ringcast/1.0".into())),
            ("server_version", Value::String("1.0".into())),
        ]);
        let name = || Value::String(ON_METADATA.into());
        let expected = encode(&[name(), Value::Object(after)]);
        for value in [Value::Object(before.clone()), Value::EcmaArray(before)] {
            let rewritten = rewrite(&encode(&[name(), value]), "ringcast/1.0", "1.0");
            assert_eq!(rewritten.as_ref(), Ok(&expected));
        }
    }

    #[test]
    fn properties_are_kept_to_the_byte() {
        // A key and a text that are not UTF-8, and an array without its end.
        let payload = b"\x02\0\x0aonMetaData\x08\0\0\0\x09\0\x02\xff\xfe\x02\0\x02\xb0\xa1";
        let rewritten = rewrite(payload, "s", "v").unwrap();
        let expected = b"\x02\0\x0aonMetaData\x03\0\x02\xff\xfe\x02\0\x02\xb0\xa1\
            \0\x06server\x02\0\x01s\0\x0eserver_version\x02\0\x01v\0\0\x09";
        assert_eq!(rewritten, expected);
    }

    #[test]
    fn what_is_no_metadata_is_an_error() {
        for payload in [
            &b""[..],
            b"\x02\0\x0aonMetaData",
            b"\x02\0\x0aonMetaData\x05",
            b"\x02\0\x0aonMetaData\x03\0\x01a",
            b"\x02\0\x0aonMetaData\x03\0\x01a\x07\0\0",
        ] {
            let error = rewrite(payload, "s", "v").unwrap_err();
            assert_eq!(error.reason(), "malformed_metadata");
        }
    }
}

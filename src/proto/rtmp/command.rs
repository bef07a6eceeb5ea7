//! Commands: what the two ends ask of and answer each other, in AMF0.
//!
//! Decoding takes what the ends act on and passes over the rest. A command that is shorter than it
//! should be is taken for what it has, since clients in use leave out what they deem empty.

use super::error::{Error, Limit, Malformed, Misbehaved};
use super::message::type_id;
use super::server::{Connect, Enhanced, PlayRequest};
use crate::limits::RTMP_STRING_MAX;
use crate::proto::amf0::{self, Object, Reader, marker, put};

/// A command that a client sends.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Call {
    /// The transaction; results carry the same number. 0 wants no result.
    pub(super) tid: f64,
    pub(super) kind: CallKind,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum CallKind {
    Connect(Box<Connect>),
    CreateStream,
    ReleaseStream(String),
    FcPublish(String),
    FcUnpublish,
    Publish(String),
    Play(PlayRequest),
    Pause(bool),
    CloseStream,
    DeleteStream,
    Other,
}

/// What a server answers or tells.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Answer {
    /// `_result`: transaction and the value that came with it, as a number where it is one.
    Result { tid: f64, number: Option<f64> },
    /// `_error`.
    Error { tid: f64, info: Info },
    /// `onStatus`.
    Status(Info),
    /// Anything else.
    Other,
}

/// The information object of an answer.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct Info {
    pub(super) level: String,
    pub(super) code: String,
    pub(super) description: String,
    /// Where to go instead.
    pub(super) redirect: Option<String>,
}

/// The AMF0 part of a command: AMF3 commands put one byte before it (SRS: whatever it is).
pub(super) fn amf0_of(type_id: u8, payload: &[u8]) -> &[u8] {
    match (type_id, payload) {
        (type_id::COMMAND_AMF3, [_, amf0 @ ..]) => amf0,
        (type_id::DATA_AMF3, [0, amf0 @ ..]) if amf0.first() == Some(&marker::STRING) => amf0,
        _ => payload,
    }
}

/// Reads a client's command.
pub(super) fn decode_call(payload: &[u8]) -> Result<Call, Error> {
    let mut reader = Reader::new(payload);
    let name = reader.raw_string().map_err(Malformed::Command)?;
    let tid = if reader.is_empty() { 0.0 } else { reader.number().map_err(Malformed::Command)? };
    let kind = match name {
        b"connect" => CallKind::Connect(Box::new(decode_connect(&mut reader)?)),
        b"createStream" => CallKind::CreateStream,
        b"releaseStream" => CallKind::ReleaseStream(stream_argument(&mut reader)?),
        b"FCPublish" => CallKind::FcPublish(stream_argument(&mut reader)?),
        b"FCUnpublish" => CallKind::FcUnpublish,
        b"publish" => CallKind::Publish(stream_argument(&mut reader)?),
        b"play" => CallKind::Play(decode_play(&mut reader)?),
        b"pause" => {
            skip(&mut reader)?;
            CallKind::Pause(reader.boolean().map_err(Malformed::Command)?)
        }
        b"closeStream" => CallKind::CloseStream,
        b"deleteStream" => CallKind::DeleteStream,
        _ => CallKind::Other,
    };
    Ok(Call { tid, kind })
}

fn decode_connect(reader: &mut Reader<'_>) -> Result<Connect, Error> {
    let mut object = match reader.peek() {
        Some(marker::OBJECT | marker::ECMA_ARRAY | marker::TYPED_OBJECT) => {
            take_object(reader).map_err(Malformed::Command)?
        }
        _ => return Err(Misbehaved::NoTcUrl.into()),
    };
    // Only an object is of use as the argument, and a broken one is as good as none.
    let args = match reader.peek() {
        Some(marker::OBJECT) => take_object(reader).ok(),
        _ => None,
    };
    let enhanced = decode_enhanced(&object);
    let mut text = |key: &str| match take_text(&mut object, key) {
        Some(text) if text.len() > RTMP_STRING_MAX => Err(Limit::String(text.len())),
        text => Ok(text),
    };
    Ok(Connect {
        tc_url: text("tcUrl")?.ok_or(Misbehaved::NoTcUrl)?,
        page_url: text("pageUrl")?,
        swf_url: text("swfUrl")?,
        flash_ver: text("flashVer")?,
        object_encoding: object.number("objectEncoding").unwrap_or(0.0),
        args,
        enhanced,
    })
}

/// Properties of another type than they should have count as not there.
fn decode_enhanced(object: &Object) -> Enhanced {
    let is_map = |key| object.get(key).is_some_and(|value| value.as_object().is_some());
    Enhanced {
        fourcc_list: matches!(object.get("fourCcList"), Some(amf0::Value::StrictArray(_))),
        info_maps: is_map("videoFourCcInfoMap") || is_map("audioFourCcInfoMap"),
        caps_ex: object.number("capsEx").map(|flags| flags as u32),
    }
}

fn decode_play(reader: &mut Reader<'_>) -> Result<PlayRequest, Error> {
    let stream = stream_argument(reader)?;
    let mut number = || match reader.peek() {
        Some(marker::NUMBER) => reader.number().map(Some),
        Some(_) => reader.skip().map(|_| None),
        None => Ok(None),
    };
    let start = number().map_err(Malformed::Command)?.unwrap_or(-2.0);
    let duration = number().map_err(Malformed::Command)?;
    let reset = match reader.peek() {
        Some(marker::NUMBER) => reader.number().map_err(Malformed::Command)? != 0.0,
        Some(marker::BOOLEAN) => reader.boolean().map_err(Malformed::Command)?,
        _ => true,
    };
    let duration_ms = duration.filter(|&ms| ms > 0.0);
    Ok(PlayRequest { stream, start, duration_ms, reset })
}

/// The stream name after the command object; empty when there is none.
fn stream_argument(reader: &mut Reader<'_>) -> Result<String, Error> {
    skip(reader)?;
    match reader.peek() {
        Some(marker::STRING | marker::LONG_STRING) => {
            let name = reader.string().map_err(Malformed::Command)?;
            if name.len() > RTMP_STRING_MAX {
                return Err(Limit::String(name.len()).into());
            }
            Ok(name.into_owned())
        }
        Some(_) => skip(reader).map(|()| String::new()),
        None => Ok(String::new()),
    }
}

fn skip(reader: &mut Reader<'_>) -> Result<(), Error> {
    if !reader.is_empty() {
        reader.skip().map_err(Malformed::Command)?;
    }
    Ok(())
}

fn take_object(reader: &mut Reader<'_>) -> Result<Object, amf0::Error> {
    match reader.value()? {
        amf0::Value::Object(object) | amf0::Value::EcmaArray(object) => Ok(object),
        _ => Err(amf0::Error::UnexpectedType(marker::OBJECT)),
    }
}

fn take_text(object: &mut Object, key: &str) -> Option<String> {
    let (_, value) = object.0.iter_mut().find(|(name, _)| name == key)?;
    match std::mem::replace(value, amf0::Value::Null) {
        amf0::Value::String(text) => Some(text),
        _ => None,
    }
}

/// Reads a server's answer.
pub(super) fn decode_answer(payload: &[u8]) -> Result<Answer, Error> {
    let mut reader = Reader::new(payload);
    let name = reader.raw_string().map_err(Malformed::Command)?;
    if !matches!(name, b"_result" | b"_error" | b"onStatus") {
        return Ok(Answer::Other);
    }
    let tid = reader.number().map_err(Malformed::Command)?;
    skip(&mut reader)?;
    Ok(match name {
        b"_result" => {
            let number = match reader.peek() {
                Some(marker::NUMBER) => Some(reader.number().map_err(Malformed::Command)?),
                _ => None,
            };
            Answer::Result { tid, number }
        }
        b"_error" => Answer::Error { tid, info: decode_info(&mut reader)? },
        _ => Answer::Status(decode_info(&mut reader)?),
    })
}

fn decode_info(reader: &mut Reader<'_>) -> Result<Info, Error> {
    let mut object = match reader.peek() {
        Some(marker::OBJECT | marker::ECMA_ARRAY | marker::TYPED_OBJECT) => {
            take_object(reader).map_err(Malformed::Command)?
        }
        _ => return Ok(Info::default()),
    };
    let redirect = object.get("ex").and_then(amf0::Value::as_object).and_then(|ex| {
        let url = ex.text("redirect2").filter(|url| !url.is_empty());
        url.or_else(|| ex.text("redirect")).map(str::to_owned)
    });
    Ok(Info {
        level: take_text(&mut object, "level").unwrap_or_default(),
        code: take_text(&mut object, "code").unwrap_or_default(),
        description: take_text(&mut object, "description").unwrap_or_default(),
        redirect,
    })
}

/// A command being written: name, transaction, command object, arguments.
#[derive(Debug)]
pub(super) struct Builder(Vec<u8>);

impl Builder {
    /// Begins with the name and the transaction.
    pub(super) fn new(name: &str, tid: f64) -> Builder {
        let mut bytes = Vec::with_capacity(256);
        put::string(&mut bytes, name);
        put::number(&mut bytes, tid);
        Builder(bytes)
    }

    pub(super) fn null(mut self) -> Builder {
        put::null(&mut self.0);
        self
    }

    pub(super) fn undefined(mut self) -> Builder {
        put::undefined(&mut self.0);
        self
    }

    pub(super) fn number(mut self, number: f64) -> Builder {
        put::number(&mut self.0, number);
        self
    }

    pub(super) fn boolean(mut self, boolean: bool) -> Builder {
        put::boolean(&mut self.0, boolean);
        self
    }

    pub(super) fn text(mut self, text: &str) -> Builder {
        put::string(&mut self.0, text);
        self
    }

    /// An object of strings.
    pub(super) fn texts(mut self, properties: &[(&str, &str)]) -> Builder {
        put::object(&mut self.0);
        for (key, text) in properties {
            put::key(&mut self.0, key);
            put::string(&mut self.0, text);
        }
        put::end(&mut self.0);
        self
    }

    /// Encoded values as they stand.
    pub(super) fn raw(mut self, values: &[u8]) -> Builder {
        self.0.extend_from_slice(values);
        self
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.0
    }
}

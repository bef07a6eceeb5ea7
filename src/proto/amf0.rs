//! AMF0, the value encoding of RTMP commands and FLV metadata.
//!
//! [`Reader`] walks encoded values without owning anything; [`Value`] is the owned form for the few
//! places that keep one; [`put`] writes. Depth and number of values are bounded by
//! [`crate::limits`], and no length or count of the input is believed before its bytes are there.
//!
//! Tolerated, because encoders in use do it: an array or object that ends with the input instead of
//! an end marker, counts of ECMA arrays that are wrong, text that is not UTF-8 (each bad sequence
//! becomes U+FFFD). Not spoken: references, and the switch to AMF3 inside of AMF0.

use std::borrow::Cow;

use crate::limits::{AMF_DEPTH_MAX, AMF_ELEMENTS_MAX};

/// Why bytes are not the AMF0 that was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// A value is longer than the bytes at hand.
    #[error("AMF0 value is cut short")]
    Truncated,
    /// Another type than the one that had to come; the marker found.
    #[error("AMF0 value of an unexpected type, marker {0:#04x}")]
    UnexpectedType(u8),
    /// A marker that AMF0 does not have, or one not spoken here.
    #[error("AMF0 marker {0:#04x} is not supported")]
    UnsupportedMarker(u8),
    /// Nested deeper than [`AMF_DEPTH_MAX`].
    #[error("AMF0 values nested deeper than {AMF_DEPTH_MAX}")]
    TooDeep,
    /// More values than [`AMF_ELEMENTS_MAX`].
    #[error("more than {AMF_ELEMENTS_MAX} AMF0 values")]
    TooMany,
}

/// Type markers (AMF0 2.1).
pub mod marker {
    /// Eight bytes of IEEE 754.
    pub const NUMBER: u8 = 0x00;
    /// One byte.
    pub const BOOLEAN: u8 = 0x01;
    /// Text with a 16-bit length.
    pub const STRING: u8 = 0x02;
    /// Properties up to an end marker.
    pub const OBJECT: u8 = 0x03;
    /// Nothing.
    pub const NULL: u8 = 0x05;
    /// Not even nothing.
    pub const UNDEFINED: u8 = 0x06;
    /// A 16-bit index of an earlier object.
    pub const REFERENCE: u8 = 0x07;
    /// A count that is only a hint, then as an object.
    pub const ECMA_ARRAY: u8 = 0x08;
    /// Ends an object, after an empty key.
    pub const OBJECT_END: u8 = 0x09;
    /// A count, then values.
    pub const STRICT_ARRAY: u8 = 0x0A;
    /// Milliseconds since 1970 and a time zone.
    pub const DATE: u8 = 0x0B;
    /// Text with a 32-bit length.
    pub const LONG_STRING: u8 = 0x0C;
    /// A value that could not be encoded.
    pub const UNSUPPORTED: u8 = 0x0D;
    /// As a long string.
    pub const XML: u8 = 0x0F;
    /// A class name, then as an object.
    pub const TYPED_OBJECT: u8 = 0x10;
    /// The next value is AMF3.
    pub const AMF3: u8 = 0x11;
}

/// A decoded value.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// Any number.
    Number(f64),
    /// True or false.
    Boolean(bool),
    /// A string, long string or XML document.
    String(String),
    /// An object, also a typed one (its class name is dropped).
    Object(Object),
    /// Null.
    Null,
    /// Undefined, also a value its sender could not encode.
    Undefined,
    /// An object by another name.
    EcmaArray(Object),
    /// Values in order.
    StrictArray(Vec<Value>),
    /// Milliseconds since 1970 and the time zone in minutes.
    Date(f64, i16),
}

/// Properties in the order they came; a key may occur twice, then the first one counts.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Object(pub Vec<(String, Value)>);

impl Object {
    /// The value of the first property with this key.
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.0.iter().find(|(name, _)| name == key).map(|(_, value)| value)
    }

    /// The text of a string property.
    pub fn text(&self, key: &str) -> Option<&str> {
        self.get(key).and_then(Value::as_text)
    }

    /// The number of a numeric property.
    pub fn number(&self, key: &str) -> Option<f64> {
        self.get(key).and_then(Value::as_number)
    }
}

impl Value {
    /// The text of a string.
    pub fn as_text(&self) -> Option<&str> {
        match self {
            Value::String(text) => Some(text),
            _ => None,
        }
    }

    /// The number.
    pub fn as_number(&self) -> Option<f64> {
        match self {
            Value::Number(number) => Some(*number),
            _ => None,
        }
    }

    /// The properties of an object or ECMA array.
    pub fn as_object(&self) -> Option<&Object> {
        match self {
            Value::Object(object) | Value::EcmaArray(object) => Some(object),
            _ => None,
        }
    }

    /// Appends the encoded value.
    pub fn put(&self, out: &mut Vec<u8>) {
        match self {
            Value::Number(number) => put::number(out, *number),
            Value::Boolean(boolean) => put::boolean(out, *boolean),
            Value::String(text) => put::string(out, text),
            Value::Object(object) => {
                put::object(out);
                object.put_properties(out);
            }
            Value::Null => put::null(out),
            Value::Undefined => put::undefined(out),
            Value::EcmaArray(object) => {
                put::ecma_array(out, object.0.len() as u32);
                object.put_properties(out);
            }
            Value::StrictArray(values) => {
                put::strict_array(out, values.len() as u32);
                for value in values {
                    value.put(out);
                }
            }
            Value::Date(ms, zone) => {
                out.push(marker::DATE);
                out.extend_from_slice(&ms.to_be_bytes());
                out.extend_from_slice(&zone.to_be_bytes());
            }
        }
    }
}

impl Object {
    fn put_properties(&self, out: &mut Vec<u8>) {
        for (key, value) in &self.0 {
            put::key(out, key);
            value.put(out);
        }
        put::end(out);
    }
}

/// Writing, value by value.
pub mod put {
    use super::marker;

    /// Appends a number.
    pub fn number(out: &mut Vec<u8>, number: f64) {
        out.push(marker::NUMBER);
        out.extend_from_slice(&number.to_be_bytes());
    }

    /// Appends a boolean.
    pub fn boolean(out: &mut Vec<u8>, boolean: bool) {
        out.extend_from_slice(&[marker::BOOLEAN, u8::from(boolean)]);
    }

    /// Appends a string, as a long string where a short one cannot hold it.
    pub fn string(out: &mut Vec<u8>, text: &str) {
        match u16::try_from(text.len()) {
            Ok(len) => {
                out.push(marker::STRING);
                out.extend_from_slice(&len.to_be_bytes());
            }
            Err(_) => {
                out.push(marker::LONG_STRING);
                out.extend_from_slice(&(text.len() as u32).to_be_bytes());
            }
        }
        out.extend_from_slice(text.as_bytes());
    }

    /// Appends null.
    pub fn null(out: &mut Vec<u8>) {
        out.push(marker::NULL);
    }

    /// Appends undefined.
    pub fn undefined(out: &mut Vec<u8>) {
        out.push(marker::UNDEFINED);
    }

    /// Opens an object: keys and values follow, then [`end`].
    pub fn object(out: &mut Vec<u8>) {
        out.push(marker::OBJECT);
    }

    /// Opens an ECMA array: as an object, with a count that readers take as a hint.
    pub fn ecma_array(out: &mut Vec<u8>, count: u32) {
        out.push(marker::ECMA_ARRAY);
        out.extend_from_slice(&count.to_be_bytes());
    }

    /// Opens a strict array: so many values follow, and no [`end`].
    pub fn strict_array(out: &mut Vec<u8>, count: u32) {
        out.push(marker::STRICT_ARRAY);
        out.extend_from_slice(&count.to_be_bytes());
    }

    /// Appends the key of a property; its value follows. Bytes after the 65,535th are left out.
    pub fn key(out: &mut Vec<u8>, key: &str) {
        raw_key(out, key.as_bytes());
    }

    /// As [`key`], for a key that was read and need not be UTF-8.
    pub fn raw_key(out: &mut Vec<u8>, key: &[u8]) {
        let len = key.len().min(usize::from(u16::MAX));
        out.extend_from_slice(&(len as u16).to_be_bytes());
        out.extend_from_slice(&key[..len]);
    }

    /// Closes an object or ECMA array.
    pub fn end(out: &mut Vec<u8>) {
        out.extend_from_slice(&[0, 0, marker::OBJECT_END]);
    }
}

/// Walks over encoded values.
#[derive(Debug, Clone)]
pub struct Reader<'a> {
    rest: &'a [u8],
    elements_left: u32,
}

impl<'a> Reader<'a> {
    /// Starts at the first byte of a value. The bound on values counts for the whole walk.
    pub fn new(bytes: &'a [u8]) -> Reader<'a> {
        Reader { rest: bytes, elements_left: AMF_ELEMENTS_MAX }
    }

    /// What has not been read yet.
    pub fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// Whether everything has been read.
    pub fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// The marker of the next value, which stays unread.
    pub fn peek(&self) -> Option<u8> {
        self.rest.first().copied()
    }

    /// Reads a string or long string as it stands.
    pub fn raw_string(&mut self) -> Result<&'a [u8], Error> {
        match self.marker()? {
            marker::STRING => self.short(),
            marker::LONG_STRING => self.long(),
            other => Err(Error::UnexpectedType(other)),
        }
    }

    /// Reads a string or long string as text.
    pub fn string(&mut self) -> Result<Cow<'a, str>, Error> {
        self.raw_string().map(String::from_utf8_lossy)
    }

    /// Reads a number.
    pub fn number(&mut self) -> Result<f64, Error> {
        match self.marker()? {
            marker::NUMBER => self.f64(),
            other => Err(Error::UnexpectedType(other)),
        }
    }

    /// Reads a boolean.
    pub fn boolean(&mut self) -> Result<bool, Error> {
        match self.marker()? {
            marker::BOOLEAN => Ok(self.take(1)?[0] != 0),
            other => Err(Error::UnexpectedType(other)),
        }
    }

    /// Reads any value into its owned form.
    pub fn value(&mut self) -> Result<Value, Error> {
        self.value_at(0)
    }

    /// Passes over a value and returns its bytes, marker included.
    pub fn skip(&mut self) -> Result<&'a [u8], Error> {
        let before = self.rest;
        self.skip_at(0)?;
        Ok(&before[..before.len() - self.rest.len()])
    }

    /// Reads the opening of an object, typed object or ECMA array; read properties with
    /// [`Reader::property_key`] and the value reads until it says none.
    pub fn open_object(&mut self) -> Result<(), Error> {
        match self.marker()? {
            marker::OBJECT => Ok(()),
            marker::ECMA_ARRAY => self.take(4).map(drop),
            marker::TYPED_OBJECT => self.short().map(drop),
            other => Err(Error::UnexpectedType(other)),
        }
    }

    /// The key of the next property, or none at the end of the object, which is then read.
    pub fn property_key(&mut self) -> Result<Option<&'a [u8]>, Error> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        let key = self.short()?;
        if key.is_empty() && self.peek() == Some(marker::OBJECT_END) {
            self.take(1)?;
            return Ok(None);
        }
        Ok(Some(key))
    }

    fn value_at(&mut self, depth: u32) -> Result<Value, Error> {
        let value = match self.marker()? {
            marker::NUMBER => Value::Number(self.f64()?),
            marker::BOOLEAN => Value::Boolean(self.take(1)?[0] != 0),
            marker::STRING => Value::String(String::from_utf8_lossy(self.short()?).into_owned()),
            marker::LONG_STRING | marker::XML => {
                Value::String(String::from_utf8_lossy(self.long()?).into_owned())
            }
            marker::OBJECT => Value::Object(self.properties_at(depth)?),
            marker::TYPED_OBJECT => {
                self.short()?;
                Value::Object(self.properties_at(depth)?)
            }
            marker::ECMA_ARRAY => {
                self.take(4)?;
                Value::EcmaArray(self.properties_at(depth)?)
            }
            marker::STRICT_ARRAY => {
                let depth = deeper(depth)?;
                let count = self.u32()?;
                // The count is only believed value by value: the vector grows with what is read.
                let mut values = Vec::new();
                for _ in 0..count {
                    values.push(self.value_at(depth)?);
                }
                Value::StrictArray(values)
            }
            marker::NULL => Value::Null,
            marker::UNDEFINED | marker::UNSUPPORTED => Value::Undefined,
            marker::DATE => {
                let ms = self.f64()?;
                let zone = self.take(2)?;
                Value::Date(ms, i16::from_be_bytes([zone[0], zone[1]]))
            }
            other => return Err(Error::UnsupportedMarker(other)),
        };
        Ok(value)
    }

    fn properties_at(&mut self, depth: u32) -> Result<Object, Error> {
        let depth = deeper(depth)?;
        let mut object = Object::default();
        while let Some(key) = self.property_key()? {
            let key = String::from_utf8_lossy(key).into_owned();
            object.0.push((key, self.value_at(depth)?));
        }
        Ok(object)
    }

    fn skip_at(&mut self, depth: u32) -> Result<(), Error> {
        match self.marker()? {
            marker::NUMBER => self.take(8).map(drop),
            marker::BOOLEAN => self.take(1).map(drop),
            marker::STRING => self.short().map(drop),
            marker::LONG_STRING | marker::XML => self.long().map(drop),
            marker::OBJECT => self.skip_properties_at(depth),
            marker::TYPED_OBJECT => {
                self.short()?;
                self.skip_properties_at(depth)
            }
            marker::ECMA_ARRAY => {
                self.take(4)?;
                self.skip_properties_at(depth)
            }
            marker::STRICT_ARRAY => {
                let depth = deeper(depth)?;
                let count = self.u32()?;
                for _ in 0..count {
                    self.skip_at(depth)?;
                }
                Ok(())
            }
            marker::NULL | marker::UNDEFINED | marker::UNSUPPORTED => Ok(()),
            marker::DATE => self.take(10).map(drop),
            other => Err(Error::UnsupportedMarker(other)),
        }
    }

    fn skip_properties_at(&mut self, depth: u32) -> Result<(), Error> {
        let depth = deeper(depth)?;
        while self.property_key()?.is_some() {
            self.skip_at(depth)?;
        }
        Ok(())
    }

    fn marker(&mut self) -> Result<u8, Error> {
        self.elements_left = self.elements_left.checked_sub(1).ok_or(Error::TooMany)?;
        Ok(self.take(1)?[0])
    }

    fn short(&mut self) -> Result<&'a [u8], Error> {
        let len = self.take(2)?;
        self.take(usize::from(u16::from_be_bytes([len[0], len[1]])))
    }

    fn long(&mut self) -> Result<&'a [u8], Error> {
        let len = self.u32()?;
        self.take(len as usize)
    }

    fn f64(&mut self) -> Result<f64, Error> {
        let bytes = self.rest.first_chunk::<8>().ok_or(Error::Truncated)?;
        self.rest = &self.rest[8..];
        Ok(f64::from_be_bytes(*bytes))
    }

    fn u32(&mut self) -> Result<u32, Error> {
        let bytes = self.rest.first_chunk::<4>().ok_or(Error::Truncated)?;
        self.rest = &self.rest[4..];
        Ok(u32::from_be_bytes(*bytes))
    }

    fn take(&mut self, len: usize) -> Result<&'a [u8], Error> {
        let (taken, rest) = self.rest.split_at_checked(len).ok_or(Error::Truncated)?;
        self.rest = rest;
        Ok(taken)
    }
}

fn deeper(depth: u32) -> Result<u32, Error> {
    if depth < AMF_DEPTH_MAX { Ok(depth + 1) } else { Err(Error::TooDeep) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn decode(bytes: &[u8]) -> Result<Value, Error> {
        let mut reader = Reader::new(bytes);
        let value = reader.value()?;
        assert!(reader.is_empty());
        let mut skipped = Reader::new(bytes);
        assert_eq!(skipped.skip(), Ok(bytes), "skipping reads as far as decoding");
        Ok(value)
    }

    #[test]
    fn every_type() {
        let object = Object(vec![("a".into(), Value::Boolean(true))]);
        for (bytes, value) in [
            (&b"\0\x40\x59\0\0\0\0\0\0"[..], Value::Number(100.0)),
            (b"\x01\x01", Value::Boolean(true)),
            (b"\x02\0\x02hi", Value::String("hi".into())),
            (b"\x03\0\x01a\x01\x01\0\0\x09", Value::Object(object.clone())),
            (b"\x05", Value::Null),
            (b"\x06", Value::Undefined),
            (b"\x0d", Value::Undefined),
            (b"\x08\0\0\0\x01\0\x01a\x01\x01\0\0\x09", Value::EcmaArray(object.clone())),
            (b"\x0a\0\0\0\x02\x05\x06", Value::StrictArray(vec![Value::Null, Value::Undefined])),
            (b"\x0b\x3f\xf0\0\0\0\0\0\0\xff\xc4", Value::Date(1.0, -60)),
            (b"\x0c\0\0\0\x02hi", Value::String("hi".into())),
            (b"\x0f\0\0\0\x03<x>", Value::String("<x>".into())),
            (b"\x10\0\x01C\0\x01a\x01\x01\0\0\x09", Value::Object(object)),
        ] {
            assert_eq!(decode(bytes), Ok(value));
            for cut in 0..bytes.len() {
                // An object may end with the input between two properties.
                let cut_value = Reader::new(&bytes[..cut]).value();
                let closed = matches!(cut_value, Ok(Value::Object(_) | Value::EcmaArray(_)));
                assert!(closed || cut_value == Err(Error::Truncated), "{bytes:?} cut at {cut}");
            }
        }
    }

    #[test]
    fn encoders_that_miscount_or_leave_out_the_end() {
        let object = Object(vec![("a".into(), Value::Null)]);
        assert_eq!(
            decode(b"\x08\xff\xff\xff\xff\0\x01a\x05\0\0\x09"),
            Ok(Value::EcmaArray(object.clone()))
        );
        assert_eq!(decode(b"\x08\0\0\0\0\0\x01a\x05"), Ok(Value::EcmaArray(object)));
    }

    #[test]
    fn text_that_is_not_utf_8() {
        assert_eq!(decode(b"\x02\0\x03a\xc0\xaf"), Ok(Value::String("a\u{fffd}\u{fffd}".into())));
        assert_eq!(Reader::new(b"\x02\0\x01\xff").raw_string(), Ok(&b"\xff"[..]));
    }

    #[test]
    fn what_is_not_spoken() {
        for marker in [0x04, 0x07, 0x09, 0x0E, 0x11, 0xFF] {
            let bytes = [marker, 0, 0, 0, 0];
            assert_eq!(Reader::new(&bytes).value(), Err(Error::UnsupportedMarker(marker)));
            assert_eq!(Reader::new(&bytes).skip(), Err(Error::UnsupportedMarker(marker)));
        }
        assert_eq!(Reader::new(b"\x05").number(), Err(Error::UnexpectedType(5)));
        assert_eq!(Reader::new(b"\x05").string(), Err(Error::UnexpectedType(5)));
    }

    #[test]
    fn depth_and_number_are_bounded() {
        let nest = |levels: u32, opening: &[u8]| {
            let mut bytes = opening.repeat(levels as usize);
            bytes.push(marker::NULL);
            bytes
        };
        for opening in [&b"\x03\0\x01a"[..], b"\x08\0\0\0\x01\0\x01a", b"\x0a\0\0\0\x01"] {
            assert!(Reader::new(&nest(AMF_DEPTH_MAX, opening)).value().is_ok());
            for levels in [AMF_DEPTH_MAX + 1, 10_000] {
                let bytes = nest(levels, opening);
                assert_eq!(Reader::new(&bytes).value(), Err(Error::TooDeep));
                assert_eq!(Reader::new(&bytes).skip(), Err(Error::TooDeep));
            }
        }
        let mut bytes = b"\x0a\xff\xff\xff\xff".to_vec();
        bytes.resize(70_000, marker::NULL);
        assert_eq!(Reader::new(&bytes).value(), Err(Error::TooMany));
        assert_eq!(Reader::new(&bytes).skip(), Err(Error::TooMany));
    }

    #[test]
    fn long_texts_become_long_strings() {
        for len in [65_535, 65_536, 100_000] {
            let value = Value::String("x".repeat(len));
            let mut bytes = Vec::new();
            value.put(&mut bytes);
            assert_eq!(decode(&bytes), Ok(value));
        }
    }

    fn values() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            any::<f64>().prop_filter("NaN is not itself", |n| !n.is_nan()).prop_map(Value::Number),
            any::<bool>().prop_map(Value::Boolean),
            ".{0,8}".prop_map(Value::String),
            Just(Value::Null),
            Just(Value::Undefined),
            (-1e15..1e15, any::<i16>()).prop_map(|(ms, zone)| Value::Date(ms, zone)),
        ];
        leaf.prop_recursive(6, 64, 6, |inner| {
            let object = prop::collection::vec((".{0,4}", inner.clone()), 0..6).prop_map(Object);
            prop_oneof![
                object.clone().prop_map(Value::Object),
                object.prop_map(Value::EcmaArray),
                prop::collection::vec(inner, 0..6).prop_map(Value::StrictArray),
            ]
        })
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(value in values()) {
            let mut bytes = Vec::new();
            value.put(&mut bytes);
            prop_assert_eq!(decode(&bytes), Ok(value));
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let decoded = Reader::new(&bytes).value().is_ok();
            prop_assert_eq!(Reader::new(&bytes).skip().is_ok(), decoded);
        }
    }
}

//! Chunked bodies (RFC 9112 7.1), read without copying.

use super::HttpError;
use crate::limits::{HTTP_CHUNK_BYTES_MAX, HTTP_CHUNK_LINE_BYTES_MAX, HTTP_TRAILER_BYTES_MAX};

/// What [`ChunkedDecoder::decode`] found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Piece<'a> {
    /// Bytes of the body, in order; a chunk may come in several pieces.
    Data(&'a [u8]),
    /// All input is taken; the body goes on.
    More,
    /// The body is complete. What is left in the input belongs to the next message.
    End,
}

/// Takes the chunk framing off a body. Holds no body bytes.
#[derive(Debug, Clone)]
pub struct ChunkedDecoder {
    state: State,
    chunks: u64,
}

#[derive(Debug, Clone, Copy)]
enum State {
    /// In a size line: the value so far, whether a digit was seen, bytes of the line.
    Size {
        value: u64,
        digits: bool,
        bytes: usize,
    },
    /// Behind the size: an extension, skipped.
    Extension {
        value: u64,
        bytes: usize,
    },
    /// The line feed behind a size line.
    SizeLf {
        value: u64,
    },
    Data {
        left: u64,
    },
    DataCr,
    DataLf,
    /// In the trailer: bytes of this line, bytes of all.
    Trailer {
        line: usize,
        total: usize,
    },
    TrailerLf {
        line: usize,
        total: usize,
    },
    End,
    Failed(HttpError),
}

const START: State = State::Size { value: 0, digits: false, bytes: 0 };

impl Default for ChunkedDecoder {
    fn default() -> Self {
        ChunkedDecoder::new()
    }
}

impl ChunkedDecoder {
    /// A decoder at the start of a body.
    pub fn new() -> ChunkedDecoder {
        ChunkedDecoder { state: START, chunks: 0 }
    }

    /// How many chunks with data have begun.
    pub fn chunks(&self) -> u64 {
        self.chunks
    }

    /// Takes bytes off the front of `input` and gives the next piece of the body. Call it until it
    /// says `More` or `End`. After an error every further call gives it again.
    pub fn decode<'a>(&mut self, input: &mut &'a [u8]) -> Result<Piece<'a>, HttpError> {
        loop {
            match self.state {
                State::End => return Ok(Piece::End),
                State::Failed(error) => return Err(error),
                State::Data { left } if !input.is_empty() => {
                    let count = usize::try_from(left).unwrap_or(usize::MAX).min(input.len());
                    let (data, rest) = input.split_at(count);
                    *input = rest;
                    let left = left - count as u64;
                    self.state = if left == 0 { State::DataCr } else { State::Data { left } };
                    return Ok(Piece::Data(data));
                }
                _ => {}
            }
            let [byte, rest @ ..] = *input else { return Ok(Piece::More) };
            *input = rest;
            match self.step(*byte) {
                Ok(state) => self.state = state,
                Err(error) => {
                    self.state = State::Failed(error);
                    return Err(error);
                }
            }
        }
    }

    /// One byte of framing.
    fn step(&mut self, byte: u8) -> Result<State, HttpError> {
        match self.state {
            State::Size { value, digits, bytes } => {
                if bytes >= HTTP_CHUNK_LINE_BYTES_MAX {
                    return Err(HttpError::Malformed("chunk size line too long"));
                }
                if let Some(digit) = char::from(byte).to_digit(16) {
                    // The value is within its limit before each digit, so this cannot overflow.
                    let value = value << 4 | u64::from(digit);
                    if value > HTTP_CHUNK_BYTES_MAX {
                        return Err(HttpError::BodyTooLong);
                    }
                    return Ok(State::Size { value, digits: true, bytes: bytes + 1 });
                }
                match byte {
                    b'\r' if digits => Ok(State::SizeLf { value }),
                    b';' if digits => Ok(State::Extension { value, bytes: bytes + 1 }),
                    _ => Err(HttpError::Malformed("chunk size")),
                }
            }
            State::Extension { value, bytes } => match byte {
                _ if bytes >= HTTP_CHUNK_LINE_BYTES_MAX => {
                    Err(HttpError::Malformed("chunk size line too long"))
                }
                b'\r' => Ok(State::SizeLf { value }),
                b'\n' | 0 => Err(HttpError::Malformed("chunk extension")),
                _ => Ok(State::Extension { value, bytes: bytes + 1 }),
            },
            State::SizeLf { value } => match (byte, value) {
                (b'\n', 0) => Ok(State::Trailer { line: 0, total: 0 }),
                (b'\n', left) => {
                    self.chunks += 1;
                    Ok(State::Data { left })
                }
                _ => Err(HttpError::Malformed("chunk size line end")),
            },
            State::DataCr if byte == b'\r' => Ok(State::DataLf),
            State::DataLf if byte == b'\n' => Ok(START),
            State::DataCr | State::DataLf => Err(HttpError::Malformed("chunk end")),
            State::Trailer { line, total } => match byte {
                _ if total >= HTTP_TRAILER_BYTES_MAX => Err(HttpError::HeadTooLarge),
                b'\r' => Ok(State::TrailerLf { line, total: total + 1 }),
                b'\n' | 0 => Err(HttpError::Malformed("trailer")),
                _ => Ok(State::Trailer { line: line + 1, total: total + 1 }),
            },
            State::TrailerLf { line, total } => match (byte, line) {
                (b'\n', 0) => Ok(State::End),
                (b'\n', _) => Ok(State::Trailer { line: 0, total: total + 1 }),
                _ => Err(HttpError::Malformed("trailer")),
            },
            // `decode` takes these itself; here they stay what they are.
            state @ (State::Data { .. } | State::End | State::Failed(_)) => Ok(state),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Feeds `input` in pieces; gives the body, whether it ended, and what was left over.
    fn decode(input: &[u8], piece: usize) -> Result<(Vec<u8>, bool, Vec<u8>), HttpError> {
        let mut decoder = ChunkedDecoder::new();
        let (mut body, mut left, mut ended) = (Vec::new(), Vec::new(), false);
        for mut piece in input.chunks(piece) {
            loop {
                match decoder.decode(&mut piece)? {
                    Piece::Data(data) => {
                        assert!(!data.is_empty());
                        body.extend_from_slice(data);
                    }
                    Piece::More => {
                        assert!(piece.is_empty());
                        break;
                    }
                    Piece::End => {
                        ended = true;
                        left.extend_from_slice(piece);
                        break;
                    }
                }
            }
        }
        Ok((body, ended, left))
    }

    #[test]
    fn whole_bodies_in_any_pieces() {
        let input =
            b"5\r\nhello\r\n00A;name=\"v\"\r\n, streams!\r\n0\r\nTrailer: x\r\nY: z\r\n\r\nrest";
        for piece in 1..=input.len() {
            let (body, ended, left) = decode(input, piece).unwrap();
            assert_eq!((body.as_slice(), ended), (b"hello, streams!".as_slice(), true));
            assert_eq!(left, b"rest");
        }
        let (body, ended, _) = decode(b"3\r\nabc\r\n", 3).unwrap();
        assert_eq!((body.as_slice(), ended), (b"abc".as_slice(), false));
    }

    #[test]
    fn framing_is_strict() {
        for bad in [
            b"\r\n".as_slice(),
            b"g\r\n",
            b"-1\r\n",
            b"+1\r\n",
            b"0x1\r\n",
            b" 1\r\n",
            b"1 \r\n",
            b"1\n",
            b"1\rx",
            b";x\r\n",
            b"1;x\n",
            b"1\r\nab",
            b"1\r\na\n",
            b"1\r\na\rx",
            b"0\r\n\n",
            b"0\r\nX: y\n",
            b"0\r\n\rx",
        ] {
            for piece in [1, bad.len()] {
                assert_eq!(decode(bad, piece).unwrap_err().status(), 400, "{bad:?}");
            }
        }
    }

    #[test]
    fn sizes_are_bounded() {
        assert_eq!(decode(b"fffffffffffffffff\r\n", 9), Err(HttpError::BodyTooLong));
        assert_eq!(decode(b"2000001\r\n", 9), Err(HttpError::BodyTooLong));
        assert!(decode(b"2000000\r\n", 9).is_ok());
        let zeros = vec![b'0'; HTTP_CHUNK_LINE_BYTES_MAX + 1];
        assert_eq!(decode(&zeros, 7).unwrap_err().status(), 400);
        let mut extension = b"1;".to_vec();
        extension.extend(vec![b'x'; HTTP_CHUNK_LINE_BYTES_MAX]);
        assert_eq!(decode(&extension, 7).unwrap_err().status(), 400);
        let mut trailer = b"0\r\n".to_vec();
        trailer.extend(b"x: y\r\n".repeat(HTTP_TRAILER_BYTES_MAX));
        assert_eq!(decode(&trailer, 99), Err(HttpError::HeadTooLarge));
    }

    #[test]
    fn an_error_stays() {
        let mut decoder = ChunkedDecoder::new();
        let error = decoder.decode(&mut b"x".as_slice()).unwrap_err();
        assert_eq!(decoder.decode(&mut b"1\r\na\r\n".as_slice()), Err(error));
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_in_any_pieces(
            text in "[0-9a-fx;\r\n]{0,60}",
            bytes: Vec<u8>,
            piece in 1usize..20,
        ) {
            for input in [text.as_bytes(), &bytes] {
                let whole = decode(input, input.len().max(1));
                let pieces = decode(input, piece);
                proptest::prop_assert_eq!(whole, pieces);
            }
        }

        #[test]
        fn chunks_come_back(chunks: Vec<Vec<u8>>, piece in 1usize..20) {
            let mut input = Vec::new();
            for chunk in chunks.iter().filter(|chunk| !chunk.is_empty()) {
                input.extend(format!("{:x}\r\n", chunk.len()).bytes());
                input.extend_from_slice(chunk);
                input.extend(b"\r\n");
            }
            input.extend(b"0\r\n\r\n");
            let (body, ended, left) = decode(&input, piece).unwrap();
            proptest::prop_assert_eq!((body, ended, left), (chunks.concat(), true, Vec::new()));
        }
    }
}

//! Requests to the API, small enough to need no HTTP library.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::Value;

/// An answer.
#[derive(Debug)]
pub struct Answer {
    /// The status.
    pub status: u16,
    /// Header fields, names in lower case.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Vec<u8>,
}

impl Answer {
    /// The first header field of a name.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8(self.body.clone()).expect("a body of text")
    }

    /// The body as JSON.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("{error}: {:?}", String::from_utf8_lossy(&self.body)))
    }
}

/// A request with these header lines; reads the answer until the connection ends.
pub fn request(addr: SocketAddr, method: &str, path: &str, headers: &[&str]) -> Answer {
    let headers: String = headers.iter().map(|line| format!("{line}\r\n")).collect();
    let text =
        format!("{method} {path} HTTP/1.1\r\nHost: {addr}\r\nConnection: close\r\n{headers}\r\n");
    parse(&raw(addr, text.as_bytes()))
}

/// The JSON of a GET that has to succeed.
pub fn get(addr: SocketAddr, path: &str) -> Value {
    let answer = request(addr, "GET", path, &[]);
    assert_eq!(answer.status, 200, "{path}");
    assert_eq!(answer.header("content-type"), Some("application/json"), "{path}");
    answer.json()
}

/// Sends bytes and reads until the connection ends.
pub fn raw(addr: SocketAddr, bytes: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(addr).expect("connect");
    stream.set_read_timeout(Some(Duration::from_secs(20))).expect("timeout");
    stream.write_all(bytes).expect("send");
    let mut answer = Vec::new();
    // A server that refuses may reset while bytes of ours are unread.
    let _ = stream.read_to_end(&mut answer);
    answer
}

/// Takes an answer apart.
pub fn parse(bytes: &[u8]) -> Answer {
    let end = bytes.windows(4).position(|four| four == b"\r\n\r\n");
    let end = end.unwrap_or_else(|| panic!("no head in {:?}", String::from_utf8_lossy(bytes)));
    let head = String::from_utf8(bytes[..end].to_vec()).expect("a head of text");
    let mut lines = head.lines();
    let status = lines.next().and_then(|line| line.split(' ').nth(1)?.parse().ok());
    let fields = lines.filter_map(|line| line.split_once(':'));
    let headers = fields.map(|(k, v)| (k.to_ascii_lowercase(), v.trim().to_owned())).collect();
    Answer { status: status.expect("a status"), headers, body: bytes[end + 4..].to_vec() }
}

/// What `gzip` makes of it.
pub fn unpacked(bytes: &[u8]) -> Vec<u8> {
    let mut command = Command::new("gzip");
    let mut child = command
        .arg("-dc")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("gzip is installed");
    child.stdin.take().expect("its input").write_all(bytes).expect("it reads");
    let output = child.wait_with_output().expect("it ends");
    assert!(output.status.success(), "not gzip");
    output.stdout
}

/// Checks that an object has exactly these members with these types, as in `id:s clients:i`:
/// s text, i integer, f number, b boolean, o object, a list; behind a `?` null is fine as well.
pub fn check_shape(what: &str, value: &Value, shape: &str) {
    let object = value.as_object().unwrap_or_else(|| panic!("{what} is no object: {value}"));
    let mut expected = Vec::new();
    for member in shape.split_whitespace() {
        let (name, kind) = member.split_once(':').expect("name:type");
        expected.push(name);
        let found = object.get(name).unwrap_or_else(|| panic!("{what} has no {name}: {value}"));
        let fits = |kind: &str| match kind {
            "s" => found.is_string(),
            "i" => found.is_i64() || found.is_u64(),
            "f" => found.is_number(),
            "b" => found.is_boolean(),
            "o" => found.is_object(),
            "a" => found.is_array(),
            _ => panic!("no type {kind}"),
        };
        let fine = match kind.strip_prefix('?') {
            Some(kind) => found.is_null() || fits(kind),
            None => fits(kind),
        };
        assert!(fine, "{what}.{name} is {found}, which is not {kind}");
    }
    let more: Vec<_> = object.keys().filter(|key| !expected.contains(&key.as_str())).collect();
    assert!(more.is_empty(), "{what} has {more:?}, which the contract does not");
}

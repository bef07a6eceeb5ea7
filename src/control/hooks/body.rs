//! The JSON that hooks get: SRS's fields in SRS's order.

use serde_json::Value;

use crate::config::{Action, Vhost};
use crate::control::segments;
use crate::hub::segments::Segment;
use crate::media::name::{DEFAULT_VHOST, StreamName};
use crate::remux::Client;
use crate::session::admission::Case;
use crate::version;

/// A hook.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hook {
    /// A client with a role has connected.
    Connect,
    /// Its connection is gone; bytes received and sent.
    Close(u64, u64),
    /// It wants to publish.
    Publish,
    /// It has stopped to publish.
    Unpublish,
    /// It wants to play.
    Play,
    /// It has stopped to play.
    Stop,
}

impl Hook {
    /// Its name, which is that of its setting and of `action` in its body.
    pub fn name(self) -> &'static str {
        match self {
            Hook::Connect => "on_connect",
            Hook::Close(..) => "on_close",
            Hook::Publish => "on_publish",
            Hook::Unpublish => "on_unpublish",
            Hook::Play => "on_play",
            Hook::Stop => "on_stop",
        }
    }

    /// What asks about an action.
    pub fn asking(action: Action) -> Hook {
        match action {
            Action::Publish => Hook::Publish,
            Action::Play => Hook::Play,
        }
    }

    /// What tells of its end.
    pub fn ending(action: Action) -> Hook {
        match action {
            Action::Publish => Hook::Unpublish,
            Action::Play => Hook::Stop,
        }
    }

    /// The body of the request. `stream` is the id of the stream where there is one.
    pub fn body(self, case: &Case, stream: Option<&str>) -> String {
        let mut object = Object::default();
        object.text("server_id", version::server_id());
        object.text("service_id", version::service_id());
        object.text("action", self.name());
        object.text("client_id", case.id.as_str());
        object.text("ip", &case.ip.to_canonical().to_string());
        object.text("vhost", case.name.vhost());
        object.text("app", case.name.app());
        let name = stream_part(&case.name);
        match self {
            Hook::Connect => {
                object.text("stream", name);
                object.text("param", &case.param);
                object.text("tcUrl", &case.tc_url);
                object.text("pageUrl", &case.page_url);
            }
            Hook::Close(received, sent) => {
                object.number("send_bytes", sent);
                object.number("recv_bytes", received);
            }
            Hook::Publish | Hook::Unpublish | Hook::Stop => {
                object.text("tcUrl", &case.tc_url);
                object.text("stream", name);
                object.text("param", &case.param);
                object.stream(&case.name, stream);
            }
            Hook::Play => {
                object.text("stream", name);
                object.text("tcUrl", &case.tc_url);
                object.text("param", &case.param);
                object.text("pageUrl", &case.page_url);
                object.stream(&case.name, stream);
            }
        }
        object.finish()
    }
}

/// Something that has happened to a stream, for hooks that are told of it.
#[derive(Clone, Debug)]
pub struct Happening {
    /// Id of the publisher's session.
    pub client_id: String,
    /// Its address.
    pub ip: String,
    /// The stream.
    pub name: StreamName,
    /// The URL of the app, as the publisher wrote it.
    pub tc_url: String,
    /// Parameters of the stream, with their question mark.
    pub param: String,
}

impl Happening {
    /// The body of on_dvr: a file is finished.
    pub fn dvr(&self, cwd: &str, file: &str) -> String {
        let mut object = Object::default();
        object.text("server_id", version::server_id());
        object.text("service_id", version::service_id());
        object.text("action", "on_dvr");
        object.text("client_id", &self.client_id);
        object.text("ip", &self.ip);
        object.text("vhost", self.name.vhost());
        object.text("app", self.name.app());
        object.text("tcUrl", &self.tc_url);
        object.text("stream", stream_part(&self.name));
        object.text("param", &self.param);
        object.text("cwd", cwd);
        object.text("file", file);
        object.stream(&self.name, Some(&version::id_of(self.name.key())));
        object.finish()
    }
}

/// The body of on_hls. Files are those below `hls_path`, or what they would be called there.
pub fn segment(client: &Client, segment: &Segment, vhost: &Vhost, stream: &str) -> String {
    let name = &client.stream.name;
    let playlist = segments::playlist_of(vhost, name);
    let root = vhost.hls.folder(name.vhost()).unwrap_or_default();
    let below = |file: &str| root.join(file).to_string_lossy().into_owned();
    let cwd = std::env::current_dir().unwrap_or_default();
    let mut object = Object::default();
    object.text("server_id", version::server_id());
    object.text("service_id", version::service_id());
    object.text("action", "on_hls");
    object.text("client_id", client.id.as_str());
    object.text("ip", &client.ip().to_string());
    object.text("vhost", name.vhost());
    object.text("app", name.app());
    object.text("tcUrl", client.urls.tc_url());
    object.text("stream", stream_part(name));
    object.text("param", client.urls.param());
    object.field("duration", &Value::from(segment.duration_ms as f64 / 1_000.0));
    object.text("cwd", &cwd.to_string_lossy());
    object.text("file", &below(&segment.name));
    object.text("url", &segment.uri);
    object.text("m3u8", &below(&playlist));
    object.text("m3u8_url", &playlist);
    object.number("seq_no", segment.number);
    object.stream(name, Some(stream));
    object.finish()
}

/// The stream without extension, which is what it is known by.
fn stream_part(name: &StreamName) -> &str {
    let at = name.vhost().len() + 1 + name.app().len() + 1;
    &name.key()[at..]
}

/// A JSON object whose fields keep their order.
#[derive(Default)]
struct Object(String);

impl Object {
    fn field(&mut self, name: &str, value: &Value) {
        self.0.push(if self.0.is_empty() { '{' } else { ',' });
        self.0.push_str(&Value::from(name).to_string());
        self.0.push(':');
        self.0.push_str(&value.to_string());
    }

    fn text(&mut self, name: &str, value: &str) {
        self.field(name, &Value::from(value));
    }

    fn number(&mut self, name: &str, value: u64) {
        self.field(name, &Value::from(value));
    }

    fn stream(&mut self, name: &StreamName, id: Option<&str>) {
        let key = name.key();
        let url = match name.vhost() {
            DEFAULT_VHOST => &key[DEFAULT_VHOST.len()..],
            _ => key,
        };
        self.text("stream_url", url);
        if let Some(id) = id {
            self.text("stream_id", id);
        }
    }

    fn finish(mut self) -> String {
        self.0.push('}');
        self.0
    }
}

/// True when an answer lets a client in: status 200 or 201, and the body `0` or an object with the
/// integer `code` 0.
pub fn accepts(status: u16, body: &[u8]) -> bool {
    if !matches!(status, 200 | 201) {
        return false;
    }
    if body == b"0" {
        return true;
    }
    let value: Value = match serde_json::from_slice(body) {
        Ok(value) => value,
        Err(_) => return false,
    };
    value.as_object().and_then(|object| object.get("code")).and_then(Value::as_i64) == Some(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_lets_a_client_in() {
        for good in [&b"0"[..], b"{\"code\":0}", b" {\"code\": 0, \"data\": null}\n"] {
            assert!(accepts(200, good) && accepts(201, good), "{good:?}");
            for status in [100, 202, 204, 301, 400, 404, 500] {
                assert!(!accepts(status, good), "{status}");
            }
        }
        for bad in [
            &b""[..],
            b"1",
            b"00",
            b"0\n",
            b" 0",
            b"ok",
            b"true",
            b"null",
            b"[0]",
            b"{}",
            b"{\"code\":1}",
            b"{\"code\":\"0\"}",
            b"{\"code\":0.0}",
            b"{\"code\":null}",
            b"{\"code\":false}",
            b"{\"code\":0",
            b"{\"Code\":0}",
        ] {
            assert!(!accepts(200, bad), "{}", String::from_utf8_lossy(bad));
        }
    }

    #[test]
    fn fields_keep_their_order_and_are_escaped() {
        let mut object = Object::default();
        object.text("z", "a\"b\\c\n\u{1}é");
        object.number("a", u64::MAX);
        let text = object.finish();
        assert_eq!(text, "{\"z\":\"a\\\"b\\\\c\\n\\u0001é\",\"a\":18446744073709551615}");
    }
}

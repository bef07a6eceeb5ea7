//! Answers: SRS's envelopes and codes, JSONP, CORS.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use hyper::header::{HeaderName, HeaderValue};
use hyper::{HeaderMap, Method, Response, StatusCode};
use serde::Serialize;
use serde_json::Value;

use super::events::Follower;
use super::stats::{ApiStats, Refusal};
use crate::version;

/// SRS's number of a failure that the API reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Code {
    /// The raw API does not do that.
    RawNotAllowed = 1060,
    /// The raw API is off.
    RawDisabled = 1061,
    /// The exporter is off.
    ExporterDisabled = 1090,
    /// No vhost has that id.
    VhostNotFound = 2014,
    /// No stream has that id.
    StreamNotFound = 2048,
    /// No client has that id.
    ClientNotFound = 2049,
    /// A parameter is not what it should be.
    HttpDataInvalid = 3008,
    /// The name of the JSONP callback is none.
    HttpJsonp = 4058,
}

/// An answer.
#[derive(Debug)]
pub struct Reply {
    status: StatusCode,
    headers: HeaderMap,
    body: Vec<u8>,
    events: Option<Follower>,
}

impl Reply {
    /// A JSON document.
    pub(super) fn json(body: Vec<u8>) -> Reply {
        let reply = Reply::empty(200);
        Reply { body, ..reply.header("content-type", "application/json") }
    }

    /// Text for people.
    pub(super) fn text(status: u16, text: &str) -> Reply {
        let reply = Reply::empty(status).header("content-type", "text/plain; charset=utf-8");
        Reply { body: text.as_bytes().to_vec(), ..reply }
    }

    /// A file.
    pub(super) fn file(content_type: &str, body: &[u8]) -> Reply {
        let reply = Reply::empty(200).header("content-type", content_type);
        Reply { body: body.to_vec(), ..reply }
    }

    /// Nothing but a status.
    pub(super) fn empty(status: u16) -> Reply {
        let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        Reply { status, headers: HeaderMap::new(), body: Vec::new(), events: None }
    }

    /// SRS's envelope of success with these members.
    pub(super) fn success(members: &[(&str, Value)]) -> Reply {
        let mut body = envelope();
        for (name, value) in members {
            add_member(&mut body, name, value);
        }
        body.push(b'}');
        Reply::json(body)
    }

    /// The same with one member.
    pub(super) fn one(name: &str, value: &impl Serialize) -> Reply {
        let mut body = envelope();
        add_member(&mut body, name, value);
        body.push(b'}');
        Reply::json(body)
    }

    /// The same with a list.
    pub(super) fn list(name: &str, values: &[impl Serialize]) -> Reply {
        Reply::one(name, &values)
    }

    /// Code 0 and these members, without the rest of the envelope, as some of SRS's routes do.
    pub(super) fn bare(members: &[(&str, Value)]) -> Reply {
        let mut body = b"{\"code\":0".to_vec();
        for (name, value) in members {
            add_member(&mut body, name, value);
        }
        body.push(b'}');
        Reply::json(body)
    }

    /// SRS: a failure is status 200 and a code.
    pub(super) fn failure(code: Code) -> Reply {
        Reply::code(code as i32)
    }

    /// The same with any code.
    pub(super) fn code(code: i32) -> Reply {
        Reply::json(format!("{{\"code\":{code}}}").into_bytes())
    }

    /// To another path.
    pub(super) fn redirect(status: u16, to: &str) -> Reply {
        Reply::empty(status).header("location", to)
    }

    /// 405.
    pub(super) fn not_allowed(methods: &[&Method]) -> Reply {
        let names: Vec<_> = methods.iter().map(|method| method.as_str()).collect();
        let allow = format!("{}, HEAD, OPTIONS", names.join(", "));
        Reply::text(405, "405 Method Not Allowed\n").header("allow", &allow)
    }

    /// 401.
    pub(super) fn unauthorized(challenges: &[&str]) -> Reply {
        let mut reply = Reply::text(401, "401 Unauthorized\n");
        for challenge in challenges {
            if let Ok(value) = HeaderValue::from_str(challenge) {
                reply.headers.append("www-authenticate", value);
            }
        }
        reply
    }

    /// A stream of events that ends with the connection.
    pub(super) fn events(follower: Follower) -> Reply {
        let reply = Reply::empty(200)
            .header("content-type", "text/event-stream")
            .header("cache-control", "no-store")
            .header("x-accel-buffering", "no");
        Reply { events: Some(follower), ..reply }
    }

    /// With one more header field; one with a value that no header can have is left out.
    pub(super) fn header(mut self, name: &'static str, value: &str) -> Reply {
        if let Ok(value) = HeaderValue::from_str(value) {
            self.headers.insert(HeaderName::from_static(name), value);
        }
        self
    }

    /// With the header fields that let pages of other sites read it, if one asks.
    pub(super) fn cors(self, request: &HeaderMap) -> Reply {
        if !request.contains_key("origin") {
            return self;
        }
        self.header("access-control-allow-origin", "*")
            .header("access-control-allow-methods", "*")
            .header("access-control-allow-headers", "*")
            .header("access-control-expose-headers", "*")
            .header("access-control-allow-credentials", "false")
            // SRS: so.
            .header("access-control-request-private-network", "true")
    }

    /// As a call of `callback`, which [`is_callback`] has allowed.
    pub(super) fn wrapped(mut self, callback: &str) -> Reply {
        let json = self.headers.get("content-type").is_some_and(|t| t == "application/json");
        if json {
            let mut body = format!("{callback}(").into_bytes();
            body.append(&mut self.body);
            body.push(b')');
            self.body = body;
            self = self.header("content-type", "text/javascript");
        }
        self
    }

    /// The status.
    pub fn status(&self) -> u16 {
        self.status.as_u16()
    }

    /// The body, as far as it is at hand.
    pub fn body(&self) -> &[u8] {
        &self.body
    }

    /// As HTTP.
    pub fn into_http(self, stats: &Arc<ApiStats>) -> Response<ReplyBody> {
        let body = match self.events {
            Some(follower) => ReplyBody::Events(follower),
            None => match stats.admit(self.body) {
                Some(body) => ReplyBody::Whole(Some(body)),
                None => {
                    stats.refuse(Refusal::Answers);
                    let text = "503 too many long answers are not taken; try again\n";
                    return Reply::text(503, text).into_http(stats);
                }
            },
        };
        let mut response = Response::new(body);
        *response.status_mut() = self.status;
        *response.headers_mut() = self.headers;
        let headers = response.headers_mut();
        headers.insert("server", HeaderValue::from_static(version::SERVER));
        headers.insert("x-content-type-options", HeaderValue::from_static("nosniff"));
        headers.entry("cache-control").or_insert(HeaderValue::from_static("no-store"));
        response
    }
}

fn envelope() -> Vec<u8> {
    let (server, service) = (version::server_id(), version::service_id());
    // The ids are of letters, digits and hyphens only; an id of the configuration is checked.
    format!(
        "{{\"code\":0,\"server\":\"{server}\",\"service\":\"{service}\",\"pid\":\"{}\"",
        std::process::id()
    )
    .into_bytes()
}

fn add_member(body: &mut Vec<u8>, name: &str, value: &impl Serialize) {
    body.extend_from_slice(b",\"");
    body.extend_from_slice(name.as_bytes());
    body.extend_from_slice(b"\":");
    let start = body.len();
    if serde_json::to_writer(&mut *body, value).is_err() {
        // Only maps whose keys are no strings fail, and there are none; half a value must not go
        // out all the same.
        body.truncate(start);
        body.extend_from_slice(b"null");
    }
}

/// SRS: letters, digits, `.`, `_` and `-`. Ours: and not endless.
pub(super) fn is_callback(name: &str) -> bool {
    (1..=CALLBACK_BYTES_MAX).contains(&name.len())
        && name.bytes().all(|c| c.is_ascii_alphanumeric() || matches!(c, b'.' | b'_' | b'-'))
}

/// Longest name of a JSONP callback, bytes.
const CALLBACK_BYTES_MAX: usize = 128;

/// The body of an answer.
#[derive(Debug)]
pub enum ReplyBody {
    /// At hand.
    Whole(Option<Bytes>),
    /// As it comes.
    Events(Follower),
}

impl Body for ReplyBody {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        match self.get_mut() {
            ReplyBody::Whole(body) => {
                let body = body.take().filter(|body| !body.is_empty());
                Poll::Ready(body.map(|body| Ok(Frame::data(body))))
            }
            ReplyBody::Events(follower) => {
                follower.poll_text(context).map(|text| Some(Ok(Frame::data(text))))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, ReplyBody::Whole(body) if body.as_ref().is_none_or(Bytes::is_empty))
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            ReplyBody::Whole(body) => {
                SizeHint::with_exact(body.as_ref().map_or(0, |body| body.len() as u64))
            }
            ReplyBody::Events(_) => SizeHint::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn envelopes() {
        let reply = Reply::success(&[("data", json!({"ok": true})), ("x", json!([1]))]);
        let value: Value = serde_json::from_slice(reply.body()).unwrap();
        assert_eq!(value["code"], 0);
        assert_eq!(value["pid"], std::process::id().to_string());
        assert!(value["server"].as_str().unwrap().starts_with("vid-"));
        assert_eq!(value["service"].as_str().unwrap().len(), 8);
        assert_eq!((&value["data"]["ok"], &value["x"][0]), (&json!(true), &json!(1)));
        assert_eq!(Reply::failure(Code::StreamNotFound).body(), b"{\"code\":2048}");
        assert_eq!(Reply::bare(&[("a", json!(1))]).body(), b"{\"code\":0,\"a\":1}");
    }

    #[test]
    fn callbacks() {
        for good in ["jQuery123_456", "a.b-c", "_"] {
            assert!(is_callback(good), "{good}");
        }
        let long = "a".repeat(129);
        for bad in ["", "a(b)", "alert;", "a b", "<script>", "a\u{2028}", "ä", &long] {
            assert!(!is_callback(bad), "{bad}");
        }
        let reply = Reply::code(100).wrapped("cb");
        assert_eq!(reply.body(), b"cb({\"code\":100})");
        assert_eq!(reply.headers["content-type"], "text/javascript");
        assert_eq!(Reply::text(404, "x").wrapped("cb").body(), b"x");
    }
}

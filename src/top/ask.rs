//! Asks the API.

use std::sync::mpsc::{Receiver, Sender};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderValue};
use reqwest::{Client, Method, StatusCode, Url, redirect};
use serde_json::{Map, Value};

use super::model::{self, Snapshot};
use super::{TopError, TopOptions};
use crate::limits::TOP_ANSWER_BYTES_MAX;

/// Longest time for one request.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Streams that are looked at.
const STREAMS: usize = 2_000;
/// Clients that are looked at.
const CLIENTS: usize = 500;

/// What the screen wants to be asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Wish {
    /// Look now, and look for clients, too: of a stream, or all.
    Look {
        /// Whether clients are looked at.
        clients: bool,
        /// Only those of this stream.
        stream: Option<String>,
    },
    /// Disconnect: a path below `/api/v1/`, and what is said when it is done.
    Kick {
        /// Such as `clients/abcdefgh`.
        path: String,
        /// Who that is.
        who: String,
    },
}

/// What comes back.
#[derive(Debug)]
pub(super) enum News {
    Seen(Box<Snapshot>),
    Kicked(String),
    Failed(TopError),
}

/// Asks once.
pub(super) fn once(options: &TopOptions) -> Result<Snapshot, TopError> {
    let asker = Asker::new(options)?;
    runtime()?.block_on(asker.look(true, None))
}

/// Asks again and again until the screen is gone.
pub(super) fn serve(
    options: &TopOptions,
    wishes: &Receiver<Wish>,
    news: &Sender<News>,
) -> Result<(), TopError> {
    let asker = Asker::new(options)?;
    let runtime = runtime()?;
    let (mut clients, mut stream) = (false, None);
    loop {
        let seen = runtime.block_on(asker.look(clients, stream.as_deref()));
        let seen = seen.map_or_else(News::Failed, |seen| News::Seen(Box::new(seen)));
        if news.send(seen).is_err() {
            return Ok(());
        }
        match wishes.recv_timeout(options.interval()) {
            Ok(Wish::Look { clients: wanted, stream: of }) => (clients, stream) = (wanted, of),
            Ok(Wish::Kick { path, who }) => {
                let done = runtime.block_on(asker.ask(Method::DELETE, &path));
                let _ = news.send(match done {
                    Ok(_) => News::Kicked(who),
                    Err(error) => News::Failed(error),
                });
            }
            Err(std::sync::mpsc::RecvTimeoutError::Timeout) => {}
            Err(std::sync::mpsc::RecvTimeoutError::Disconnected) => return Ok(()),
        }
    }
}

fn runtime() -> Result<tokio::runtime::Runtime, TopError> {
    Ok(tokio::runtime::Builder::new_current_thread().enable_all().build()?)
}

struct Asker {
    http: Client,
    base: Url,
}

impl Asker {
    fn new(options: &TopOptions) -> Result<Asker, TopError> {
        let bad = |why: &dyn std::fmt::Display| TopError::Url(options.url.clone(), why.to_string());
        let text = match options.url.contains("://") {
            true => options.url.clone(),
            false => format!("http://{}", options.url),
        };
        let mut base = Url::parse(&text).map_err(|why| bad(&why))?;
        if !matches!(base.scheme(), "http" | "https") {
            return Err(bad(&"only http and https are understood"));
        }
        let path = base.path().trim_end_matches('/').trim_end_matches("/api/v1").to_owned();
        base.set_path(&format!("{path}/api/v1/"));
        let mut headers = HeaderMap::new();
        let credentials = match (&options.user, &options.token) {
            (Some(user), _) => {
                let pair = format!("{user}:{}", options.password.as_deref().unwrap_or_default());
                Some(format!("Basic {}", BASE64_STANDARD.encode(pair)))
            }
            (None, Some(token)) => Some(format!("Bearer {token}")),
            (None, None) => None,
        };
        if let Some(text) = credentials {
            let mut value = HeaderValue::from_str(&text)
                .map_err(|_| bad(&"the token has characters that cannot be sent"))?;
            value.set_sensitive(true);
            headers.insert(AUTHORIZATION, value);
        }
        let http = Client::builder()
            .default_headers(headers)
            .timeout(TIMEOUT)
            // An operator's own server is asked directly, and nowhere else.
            .no_proxy()
            .redirect(redirect::Policy::none())
            .tls_danger_accept_invalid_certs(options.insecure)
            .build()
            .map_err(|why| bad(&why))?;
        Ok(Asker { http, base })
    }

    fn url(&self) -> String {
        self.base.as_str().trim_end_matches("/api/v1/").to_owned()
    }

    /// Looks at everything.
    async fn look(&self, clients: bool, stream: Option<&str>) -> Result<Snapshot, TopError> {
        let mut raw = Map::new();
        let get = |path: String| async move { self.ask(Method::GET, &path).await };
        let mut summaries = get("summaries".into()).await?;
        raw.insert("summaries".into(), summaries.remove("data").unwrap_or_default());
        let mut streams = get(format!("streams/?count={STREAMS}")).await?;
        raw.insert("streams".into(), streams.remove("streams").unwrap_or_default());
        // SRS has neither of these.
        for name in ["shards", "alerts"] {
            if let Some(list) = get(name.into()).await.ok().and_then(|mut all| all.remove(name)) {
                raw.insert(name.into(), list);
            }
        }
        if clients {
            let of = stream.map(|id| format!("&stream={id}")).unwrap_or_default();
            let mut clients = get(format!("clients/?count={CLIENTS}{of}")).await?;
            raw.insert("clients".into(), clients.remove("clients").unwrap_or_default());
        }
        Ok(Snapshot {
            url: self.url(),
            at: Instant::now(),
            summaries: model::member(&raw, "summaries"),
            streams: model::list(&raw, "streams"),
            clients: model::list(&raw, "clients"),
            shards: model::list(&raw, "shards"),
            alerts: model::list(&raw, "alerts"),
            raw,
        })
    }

    async fn ask(&self, method: Method, path: &str) -> Result<Map<String, Value>, TopError> {
        let not_there =
            |why: &reqwest::Error| TopError::NotThere { url: self.url(), why: root_cause(why) };
        let other = |why: String| TopError::NotTheApi { url: self.url(), why };
        let url = self.base.join(path).map_err(|why| other(why.to_string()))?;
        let mut response =
            self.http.request(method, url).send().await.map_err(|why| not_there(&why))?;
        match response.status() {
            StatusCode::OK => {}
            StatusCode::UNAUTHORIZED => return Err(TopError::Unauthorized(self.url())),
            status => return Err(other(format!("it says {status}"))),
        }
        let mut body = Vec::new();
        while let Some(bytes) = response.chunk().await.map_err(|why| not_there(&why))? {
            if body.len() + bytes.len() > TOP_ANSWER_BYTES_MAX {
                return Err(other(format!("more than {TOP_ANSWER_BYTES_MAX} bytes")));
            }
            body.extend_from_slice(&bytes);
        }
        let answer: Map<String, Value> =
            serde_json::from_slice(&body).map_err(|_| other("it does not answer JSON".into()))?;
        match answer.get("code").and_then(Value::as_i64) {
            Some(0) => Ok(answer),
            Some(2048) => Err(TopError::Refused("that stream is gone".into())),
            Some(2049) => Err(TopError::Refused("that client is gone".into())),
            Some(code) => Err(TopError::Refused(format!("the API answers with code {code}"))),
            None => Err(other("an answer without a code".into())),
        }
    }
}

/// The innermost reason, which is the one that tells what to do.
fn root_cause(error: &dyn std::error::Error) -> String {
    let mut error = error;
    while let Some(inner) = error.source() {
        error = inner;
    }
    error.to_string()
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::TcpListener;

    use super::*;

    fn options(url: &str) -> TopOptions {
        TopOptions {
            url: url.into(),
            user: None,
            password: None,
            token: Some("secret".into()),
            insecure: false,
            interval: 1,
            once: true,
            json: false,
        }
    }

    /// Answers each request by its path, one per connection, until it is asked no more.
    fn server(answers: &'static [(&'static str, &'static str)]) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let (mut head, mut byte) = (Vec::new(), [0]);
                while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).unwrap() == 1 {
                    head.push(byte[0]);
                }
                let head = String::from_utf8(head).unwrap();
                assert!(head.to_lowercase().contains("authorization: bearer secret"), "{head}");
                let path = head.split(' ').nth(1).unwrap();
                let found = answers.iter().find(|(part, _)| path.contains(part));
                let (status, body) = found.map_or(("404 Not Found", ""), |f| ("200 OK", f.1));
                let length = body.len();
                let _ = write!(
                    stream,
                    "HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n\
                     {body}"
                );
            }
        });
        url
    }

    #[test]
    fn what_is_missing_is_left_out() {
        // As SRS answers: no shards, no alerts, nothing of `ringcast`.
        let url = server(&[
            ("/api/v1/summaries", r#"{"code":0,"data":{"self":{"version":"7.0.1","pid":3}}}"#),
            (
                "/api/v1/streams/?count=",
                r#"{"code":0,"streams":[{"id":"vid-1","url":"/live/a","clients":3,"publish":
                {"active":true},"video":null,"kbps":{"recv_30s":5,"send_30s":10}},{"id":7}]}"#,
            ),
            ("/api/v1/clients/", r#"{"code":0,"clients":[{"id":"x","ip":"::1"}]}"#),
        ]);
        let seen = once(&options(&url)).unwrap();
        assert_eq!((seen.summaries.own.version.as_str(), seen.summaries.own.pid), ("7.0.1", 3));
        assert_eq!(seen.streams.len(), 1, "one is broken");
        assert_eq!((seen.streams[0].players(), seen.kbps()), (2, [10.0, 5.0]));
        assert_eq!((seen.clients(), seen.bytes()), ([2, 1], None));
        assert_eq!(seen.clients[0].address(), "::1");
        assert_eq!(seen.url, url);
    }

    #[test]
    fn failures_say_what_to_do_in_one_line() {
        let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let error = once(&options(&format!("http://{free}"))).unwrap_err().to_string();
        assert!(error.contains("no server answers at http://127.0.0.1"), "{error}");
        assert!(error.contains("is it running") && !error.contains('\n'), "{error}");
        for bad in ["ftp://h", "http://", "http://h:99999"] {
            assert!(matches!(once(&options(bad)), Err(TopError::Url(..))), "{bad}");
        }
        let url = server(&[("/api/v1/summaries", "<html>")]);
        assert!(matches!(once(&options(&url)), Err(TopError::NotTheApi { .. })));
        let url = server(&[("/api/v1/summaries", r#"{"code":1061}"#)]);
        assert!(matches!(once(&options(&url)), Err(TopError::Refused(_))));
        let url = server(&[]);
        let error = once(&options(&url)).unwrap_err().to_string();
        assert!(error.contains("404"), "{error}");
    }

    #[test]
    fn urls_as_people_write_them() {
        for (given, base) in [
            ("127.0.0.1:1985", "http://127.0.0.1:1985/api/v1/"),
            ("https://h/", "https://h/api/v1/"),
            ("http://h:1985/api/v1/", "http://h:1985/api/v1/"),
            ("http://h/live-server", "http://h/live-server/api/v1/"),
        ] {
            assert_eq!(Asker::new(&options(given)).unwrap().base.as_str(), base);
        }
    }
}

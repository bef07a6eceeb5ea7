//! The HTTP client of the control thread: bounded time, bounded answers, no redirects.

use std::cell::OnceCell;
use std::error::Error as _;
use std::net::IpAddr;
use std::time::Duration;

use reqwest::{Client, ClientBuilder, Url, redirect};

use super::net;
use crate::version;

/// Connections that may be kept open to one server for the next call, and for how long.
const IDLE_CONNECTIONS: usize = 16;
/// Shorter than what servers keep connections for, so that a call seldom meets one that just ended.
const IDLE_TIME: Duration = Duration::from_secs(2);

/// What came back.
#[derive(Debug)]
pub struct Answer {
    /// HTTP status.
    pub status: u16,
    /// The body.
    pub body: Vec<u8>,
    /// Where a redirect would have led.
    pub location: Option<String>,
}

/// Why nothing (usable) came back.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// The URL cannot be used.
    #[error("not a URL that can be called: {0}")]
    Url(String),
    /// The target is one that is never called.
    #[error(transparent)]
    Forbidden(#[from] net::Forbidden),
    /// No answer in time.
    #[error("no answer within {0:?}")]
    Timeout(Duration),
    /// The answer is longer than allowed.
    #[error("an answer of more than {0} bytes")]
    TooLong(usize),
    /// No connection, or it broke.
    #[error("{0}")]
    Failed(String),
}

/// A client. The parts with TLS are made when they are first needed.
#[derive(Default)]
pub struct HttpClient {
    /// Checks certificates.
    strict: OnceCell<Client>,
    /// Plain HTTP, and HTTPS whose certificates are not looked at.
    lenient: OnceCell<Client>,
}

/// What to send.
pub struct Call<'a> {
    /// Where to.
    pub url: &'a str,
    /// JSON to post; `None` is a GET.
    pub json: Option<String>,
    /// For everything together.
    pub timeout: Duration,
    /// Most bytes of the answer's body.
    pub answer_max: usize,
    /// Check the certificate of an HTTPS server.
    pub tls_verify: bool,
}

impl HttpClient {
    /// Makes one call.
    ///
    /// # Errors
    /// There is no answer that could be used.
    pub async fn call(&self, call: Call<'_>) -> Result<Answer, CallError> {
        let timeout = call.timeout;
        match tokio::time::timeout(timeout, self.exchange(call)).await {
            Ok(result) => result,
            Err(_) => Err(CallError::Timeout(timeout)),
        }
    }

    async fn exchange(&self, call: Call<'_>) -> Result<Answer, CallError> {
        let url = Url::parse(call.url).map_err(|why| CallError::Url(why.to_string()))?;
        // Addresses in a URL are not resolved, so the resolver does not see them. The parser has
        // brought all ways of writing them (0x7f.1, 2130706433) into one.
        let host = url.host_str().ok_or_else(|| CallError::Url("it has no host".into()))?;
        if let Ok(addr) = host.trim_matches(['[', ']']).parse::<IpAddr>() {
            net::check(addr)?;
        }
        let client = self.of(url.scheme() == "https" && call.tls_verify)?;
        // A kept connection may end just when it is used. Once more, then, over a new one.
        let mut again = true;
        let mut response = loop {
            let request = match &call.json {
                Some(json) => client
                    .post(url.clone())
                    .header("Content-Type", "application/json")
                    .body(json.clone()),
                None => client.get(url.clone()),
            };
            match request.send().await {
                Ok(response) => break response,
                Err(why) if again && !why.is_connect() && !why.is_timeout() => again = false,
                Err(why) => return Err(failed(&why)),
            }
        };
        let location = response.headers().get("location");
        let location = location.map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned());
        let status = response.status().as_u16();
        let mut body = Vec::new();
        // By what arrives, not by what is declared; what is too long is not read to its end.
        while let Some(bytes) = response.chunk().await.map_err(|why| failed(&why))? {
            if body.len() + bytes.len() > call.answer_max {
                return Err(CallError::TooLong(call.answer_max));
            }
            body.extend_from_slice(&bytes);
        }
        Ok(Answer { status, body, location })
    }

    fn of(&self, strict: bool) -> Result<Client, CallError> {
        let cell = if strict { &self.strict } else { &self.lenient };
        if let Some(client) = cell.get() {
            return Ok(client.clone());
        }
        let client = builder().tls_danger_accept_invalid_certs(!strict).build().map_err(|why| {
            CallError::Failed(format!(
                "HTTPS cannot be used: {}; the package ca-certificates may be missing",
                chain(&why)
            ))
        })?;
        Ok(cell.get_or_init(|| client).clone())
    }
}

fn builder() -> ClientBuilder {
    Client::builder()
        .user_agent(version::SERVER)
        .redirect(redirect::Policy::none())
        // Proxies from the environment would be a way around the rule of targets.
        .no_proxy()
        .referer(false)
        .http1_only()
        .dns_resolver(net::Resolver)
        .pool_max_idle_per_host(IDLE_CONNECTIONS)
        .pool_idle_timeout(IDLE_TIME)
}

fn failed(why: &reqwest::Error) -> CallError {
    let mut source = why.source();
    while let Some(error) = source {
        if let Some(forbidden) = error.downcast_ref::<net::Forbidden>() {
            return CallError::Forbidden(*forbidden);
        }
        source = error.source();
    }
    let mut text = chain(why);
    if text.contains("certificate") {
        text.push_str(
            " (SSL_CERT_FILE names a file with certificates to trust; http_hooks.tls_verify = \
             false does without the check)",
        );
    }
    CallError::Failed(text)
}

/// An error with its causes. Without the URL, which may hold a secret.
fn chain(why: &reqwest::Error) -> String {
    let mut text = String::new();
    let mut source = why.source();
    while let Some(error) = source {
        if !text.is_empty() {
            text.push_str(": ");
        }
        text.push_str(&error.to_string());
        source = error.source();
    }
    if text.is_empty() { "the request failed".into() } else { text }
}

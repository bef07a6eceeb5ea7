//! The object store: access, one file to it, and what it says when it does not take one.

use std::error::Error as _;
use std::fs::File;
use std::net::IpAddr;
use std::os::unix::fs::FileExt as _;
use std::path::Path as FilePath;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use object_store::aws::{AmazonS3, AmazonS3Builder};
use object_store::client::{HttpClient, HttpConnector};
use object_store::path::Path;
use object_store::{
    Attribute, Attributes, BackoffConfig, ClientOptions, MultipartUpload as _, ObjectStore as _,
    ObjectStoreExt as _, PutMultipartOptions, PutOptions, PutPayload, RetryConfig,
};
use reqwest::{Client, Url, redirect};

use crate::config::Upload;
use crate::control::net;
use crate::limits;
use crate::version;

/// Why a file is not uploaded.
#[derive(Debug, thiserror::Error)]
pub enum UploadError {
    /// The store cannot be used as configured, or must not be called.
    #[error("{0}")]
    Refused(String),
    /// The store does not know the access key, or does not let it do this.
    #[error("{0}")]
    Denied(String),
    /// The store could not be had, or did not take it.
    #[error("{0}")]
    Store(String),
    /// The file cannot be read.
    #[error("it cannot be read: {0}")]
    Unreadable(std::io::Error),
    /// S3 takes no more than so many parts.
    #[error("{0} bytes are more than can be uploaded")]
    TooLarge(u64),
}

/// A store that can be used.
#[derive(Clone, Debug)]
pub struct Store(Arc<AmazonS3>);

/// Makes requests by this server's rules instead of the library's own.
#[derive(Debug)]
struct Connector(Client);

impl HttpConnector for Connector {
    fn connect(&self, _: &ClientOptions) -> object_store::Result<HttpClient> {
        Ok(HttpClient::new(self.0.clone()))
    }
}

/// An access key.
struct Credentials {
    id: String,
    secret: String,
    token: Option<String>,
}

impl Store {
    /// Access to the store that is configured. Nothing is called yet.
    ///
    /// # Errors
    /// It cannot be used so. The text holds no secret.
    pub fn open(upload: &Upload) -> Result<Store, UploadError> {
        let refused = |why: String| UploadError::Refused(why);
        let credentials = credentials(&upload.credentials_file).map_err(refused)?;
        let mut builder = AmazonS3Builder::new()
            .with_bucket_name(&upload.bucket)
            .with_region(&upload.region)
            .with_access_key_id(credentials.id)
            .with_secret_access_key(credentials.secret)
            .with_virtual_hosted_style_request(upload.virtual_hosted)
            .with_retry(RetryConfig {
                backoff: BackoffConfig::default(),
                // What fails longer is told and tried again later.
                max_retries: 2,
                retry_timeout: upload.timeout,
            })
            .with_http_connector(Connector(client(upload)?));
        if let Some(token) = credentials.token {
            builder = builder.with_token(token);
        }
        if !upload.endpoint.is_empty() {
            let url = Url::parse(&upload.endpoint).map_err(|why| refused(why.to_string()))?;
            // Addresses in a URL are not resolved, so the resolver does not see them.
            let host = url.host_str().unwrap_or_default();
            if let Ok(addr) = host.trim_matches(['[', ']']).parse::<IpAddr>() {
                net::check(addr).map_err(|why| refused(why.to_string()))?;
            }
            let plain = url.scheme() == "http";
            builder = builder.with_endpoint(upload.endpoint.trim_end_matches('/'));
            builder = builder.with_allow_http(plain);
        }
        let store = builder.build().map_err(|why| UploadError::Refused(brief(&why)))?;
        Ok(Store(Arc::new(store)))
    }

    /// True when an object of this name and length is there, not older than the file.
    pub async fn has(&self, key: &Path, len: u64, written: SystemTime) -> bool {
        // Who may not look is taken to say no: then it is uploaded once more.
        let Ok(meta) = self.0.head(key).await else { return false };
        meta.size == len && SystemTime::from(meta.last_modified) + CLOCK_SLACK >= written
    }

    /// Uploads a file: in one request, or in parts of which one is in memory at a time.
    ///
    /// # Errors
    /// It is not in the store.
    pub async fn put(&self, key: &Path, file: Arc<File>, len: u64) -> Result<(), UploadError> {
        let part = part_bytes(len).ok_or(UploadError::TooLarge(len))?;
        let kind = content_type(key.as_ref());
        let attributes = Attributes::from_iter([(Attribute::ContentType, kind)]);
        if len <= part {
            let bytes = read(&file, 0, len).await?;
            let options = PutOptions::from(attributes);
            let sent = self.0.put_opts(key, PutPayload::from(bytes), options).await;
            return sent.map(drop).map_err(|why| told(&why));
        }
        let options = PutMultipartOptions::from(attributes);
        let begun = self.0.put_multipart_opts(key, options).await;
        let mut upload = begun.map_err(|why| told(&why))?;
        let sent = async {
            let mut at = 0;
            while at < len {
                let bytes = read(&file, at, part.min(len - at)).await?;
                at += bytes.len() as u64;
                upload.put_part(PutPayload::from(bytes)).await.map_err(|why| told(&why))?;
            }
            upload.complete().await.map(drop).map_err(|why| told(&why))
        };
        let sent = sent.await;
        if sent.is_err() {
            // The parts that are there would be paid for. A store that is gone keeps them.
            let _ = upload.abort().await;
        }
        sent
    }
}

/// By how much the clocks of store and server may differ.
const CLOCK_SLACK: Duration = Duration::from_secs(2);
/// Longest time to make a connection.
const CONNECT_TIME: Duration = Duration::from_secs(10);

fn client(upload: &Upload) -> Result<Client, UploadError> {
    let client = Client::builder()
        .user_agent(version::SERVER)
        .redirect(redirect::Policy::none())
        // Proxies from the environment would be a way around the rule of targets.
        .no_proxy()
        .referer(false)
        .http1_only()
        .dns_resolver(net::Resolver)
        .connect_timeout(CONNECT_TIME.min(upload.timeout))
        .timeout(upload.timeout)
        .tls_danger_accept_invalid_certs(!upload.tls_verify)
        .build();
    client.map_err(|why| {
        let why = why.source().map_or_else(|| why.to_string(), ToString::to_string);
        let hint = "the package ca-certificates may be missing";
        UploadError::Refused(format!("HTTPS cannot be used: {why}; {hint}"))
    })
}

fn credentials(file: &FilePath) -> Result<Credentials, String> {
    let text = match file.as_os_str().is_empty() {
        true => None,
        false => Some(
            std::fs::read_to_string(file)
                .map_err(|why| format!("upload.credentials_file cannot be read: {why}"))?,
        ),
    };
    let get = |name: &str| {
        let value = match &text {
            Some(text) => value_of(text, name),
            None => std::env::var(name.to_uppercase()).ok(),
        };
        value.filter(|value| !value.is_empty())
    };
    let missing = |name: &str| match file.as_os_str().is_empty() {
        true => {
            let name = name.to_uppercase();
            format!("there is no access key: set upload.credentials_file, or {name}")
        }
        false => format!("upload.credentials_file has no line with {name} = ..."),
    };
    let (id, secret) = ("aws_access_key_id", "aws_secret_access_key");
    Ok(Credentials {
        id: get(id).ok_or_else(|| missing(id))?,
        secret: get(secret).ok_or_else(|| missing(secret))?,
        token: get("aws_session_token"),
    })
}

/// The value of a line `name = value`.
fn value_of(text: &str, name: &str) -> Option<String> {
    let mut pairs = text.lines().filter_map(|line| line.split_once('='));
    let (_, value) = pairs.find(|(key, _)| key.trim() == name)?;
    Some(value.trim().to_owned())
}

/// How many bytes a part has; `None` when there would be too many parts.
fn part_bytes(len: u64) -> Option<u64> {
    let least = len.div_ceil(limits::UPLOAD_PARTS_MAX).next_multiple_of(1 << 20);
    let part = least.max(limits::UPLOAD_PART_BYTES);
    (part <= limits::UPLOAD_PART_BYTES_MAX).then_some(part)
}

async fn read(file: &Arc<File>, at: u64, len: u64) -> Result<Vec<u8>, UploadError> {
    let file = file.clone();
    let read = tokio::task::spawn_blocking(move || {
        let mut bytes = vec![0; len as usize];
        file.read_exact_at(&mut bytes, at).map(|()| bytes)
    });
    let failed = |_| UploadError::Unreadable(std::io::Error::other("a helper thread failed"));
    read.await.map_err(failed)?.map_err(UploadError::Unreadable)
}

fn content_type(name: &str) -> &'static str {
    match name.rsplit_once('.').map_or("", |(_, end)| end) {
        "mp4" | "m4s" => "video/mp4",
        "ts" => "video/mp2t",
        "flv" => "video/x-flv",
        "m3u8" => "application/vnd.apple.mpegurl",
        _ => "application/octet-stream",
    }
}

fn told(why: &object_store::Error) -> UploadError {
    use object_store::Error::{PermissionDenied, Unauthenticated};
    let text = brief(why);
    match why {
        PermissionDenied { .. } | Unauthenticated { .. } => UploadError::Denied(text),
        _ => UploadError::Store(text),
    }
}

/// What the store said, without what may hold a part of the access key: the body of an answer has
/// its id and what was signed.
fn brief(why: &object_store::Error) -> String {
    let whole = why.to_string();
    if let Some(code) = between(&whole, "<Code>", "</Code>") {
        return format!("the store says {code}");
    }
    let mut last: Option<&(dyn std::error::Error + 'static)> = why.source();
    let mut text = String::new();
    while let Some(error) = last {
        if let Some(forbidden) = error.downcast_ref::<net::Forbidden>() {
            return forbidden.to_string();
        }
        text = error.to_string();
        last = error.source();
    }
    let text = if text.is_empty() { whole } else { text };
    let text = text.split(['<', '\n']).next().unwrap_or_default().trim();
    let end = text.char_indices().nth(TEXT_CHARS_MAX).map_or(text.len(), |(at, _)| at);
    text[..end].trim_end_matches([':', ' ']).to_owned()
}

/// Longest text of an error.
const TEXT_CHARS_MAX: usize = 200;

fn between<'t>(text: &'t str, begin: &str, end: &str) -> Option<&'t str> {
    let (_, rest) = text.split_once(begin)?;
    let (inside, _) = rest.split_once(end)?;
    let plain = inside.len() < 64 && inside.bytes().all(|c| c.is_ascii_alphanumeric());
    plain.then_some(inside)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_bounded() {
        assert_eq!(part_bytes(0), Some(8 << 20));
        assert_eq!(part_bytes((8 << 20) * 10_000), Some(8 << 20));
        assert_eq!(part_bytes((8 << 20) * 10_000 + 1), Some(9 << 20));
        assert_eq!(part_bytes((128 << 20) * 10_000), Some(128 << 20));
        assert_eq!(part_bytes((128 << 20) * 10_000 + 1), None);
    }

    #[test]
    fn what_is_said_has_no_secret() {
        let error = |text: &str| object_store::Error::Generic {
            store: "S3",
            source: text.to_owned().into(),
        };
        let answer = "status 403: <Error><Code>SignatureDoesNotMatch</Code><AWSAccessKeyId>AKID\
                      </AWSAccessKeyId></Error>";
        assert_eq!(brief(&error(answer)), "the store says SignatureDoesNotMatch");
        assert_eq!(brief(&error("status 500: <html>AKID</html>")), "status 500");
        assert_eq!(brief(&error("<Code>a b</Code>")), "");
        assert_eq!(brief(&error(&"x".repeat(999))).len(), TEXT_CHARS_MAX);
    }

    #[test]
    fn keys_come_from_a_file_and_targets_are_checked() {
        let path = std::env::temp_dir().join(format!("ringcast-keys-{}", std::process::id()));
        let with = |text: &str, endpoint: &str| {
            std::fs::write(&path, text).unwrap();
            let upload = Upload {
                credentials_file: path.clone(),
                endpoint: endpoint.into(),
                bucket: "b".into(),
                ..Upload::default()
            };
            Store::open(&upload).map(drop).map_err(|why| why.to_string())
        };
        let good = "[default]\naws_access_key_id = AKID\naws_secret_access_key=top secret\n";
        assert_eq!(with(good, ""), Ok(()));
        assert_eq!(with(good, "http://127.0.0.1:9000"), Ok(()));
        for bad in ["http://169.254.169.254/", "https://[::ffff:169.254.169.254]", "http://0x0/"] {
            let why = with(good, bad).unwrap_err();
            assert!(why.contains("never called") && !why.contains("secret"), "{why}");
        }
        let why = with("aws_access_key_id = AKID\n", "").unwrap_err();
        assert!(why.contains("aws_secret_access_key") && !why.contains("AKID"), "{why}");
        std::fs::remove_file(&path).unwrap();
    }
}

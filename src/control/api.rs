//! The HTTP API's port: which server answers here. What the API knows of streams and clients
//! comes with the control plane; until then an unknown route says so instead of guessing.

use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;

use crate::config::Current;
use crate::version;

/// Serves the API on a listener that is bound already. Ends with the control thread.
pub async fn serve(listener: std::net::TcpListener, config: Arc<Current>) {
    let addr = listener.local_addr().ok();
    let listener = match tokio::net::TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(why) => return tracing::error!(?addr, "the HTTP API cannot be served: {why}"),
    };
    if let Err(why) = axum::serve(listener, router(config)).await {
        tracing::error!(?addr, "the HTTP API ended: {why}");
    }
}

fn router(config: Arc<Current>) -> Router {
    Router::new()
        .route("/", get(|| async { json(ROOT) }))
        .route("/api/", get(|| async { json(API) }))
        .route("/api/v1/", get(|| async { json(API_V1) }))
        .route("/api/v1/versions", get(|| async { json(&version::versions_json()) }))
        .fallback(not_found)
        .layer(middleware::from_fn_with_state(config, authorize))
}

const ROOT: &str = "{\"code\":0,\"urls\":{\"api\":\"the api root\"}}\n";
const API: &str = "{\"code\":0,\"urls\":{\"v1\":\"the api version 1.0\"}}\n";
const API_V1: &str =
    "{\"code\":0,\"urls\":{\"versions\":\"the version of ringcast\"},\"tests\":{}}\n";

fn json(body: &str) -> Response {
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static("application/json")),
        (header::SERVER, HeaderValue::from_static(version::SERVER)),
        (header::CONNECTION, HeaderValue::from_static("close")),
        (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
    ];
    (headers, body.to_string()).into_response()
}

async fn not_found() -> Response {
    (StatusCode::NOT_FOUND, "404 this version of ringcast does not have that route\n")
        .into_response()
}

/// HTTP Basic authentication of everything below `/api/`, as in SRS.
async fn authorize(State(config): State<Arc<Current>>, request: Request, next: Next) -> Response {
    let config = config.load();
    let auth = &config.http_api.auth;
    let protected = auth.enabled && request.uri().path().contains("/api/");
    if protected {
        let given = request.headers().get(header::AUTHORIZATION);
        let given = given.and_then(|value| value.to_str().ok()?.strip_prefix("Basic "));
        let given = given.and_then(|text| BASE64_STANDARD.decode(text.trim()).ok());
        let wanted = format!("{}:{}", auth.username, auth.password);
        if !given.is_some_and(|given| equal(&given, wanted.as_bytes())) {
            let ask = [(header::WWW_AUTHENTICATE, HeaderValue::from_static("Basic"))];
            return (StatusCode::UNAUTHORIZED, ask, "401 unauthorized\n").into_response();
        }
    }
    next.run(request).await
}

/// Compares without telling by its time where the difference is.
fn equal(a: &[u8], b: &[u8]) -> bool {
    let differing = a.iter().zip(b).fold(0, |differing, (a, b)| differing | (a ^ b));
    a.len() == b.len() && differing == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comparing_secrets() {
        assert!(equal(b"admin:admin", b"admin:admin"));
        assert!(!equal(b"admin:admim", b"admin:admin"));
        assert!(!equal(b"admin:admi", b"admin:admin"));
        assert!(!equal(b"", b"x"));
    }
}

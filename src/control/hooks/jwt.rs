//! JWTs: what they have to say, and the keys they are checked with.
//!
//! A JWT is good when its signature is, when it has not expired, and when its claim `publish` or
//! `play` names the stream: a text or a list of texts such as `live/one`, `live/*` or `*`. A claim
//! `vhost`, if it is there, has to be the stream's. The algorithm has to fit the key: a shared
//! secret never checks what claims to be signed by a private key, nor the other way round.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::time::{Duration, Instant};

use jsonwebtoken::jwk::{JwkSet, PublicKeyUse};
use jsonwebtoken::{Algorithm, AlgorithmFamily, DecodingKey, Validation, decode, decode_header};
use serde_json::Value;

use super::super::client::{Call, HttpClient};
use crate::config::{Action, Token};
use crate::fault::Fault;
use crate::hub::Reason;
use crate::limits::{JWKS_BYTES_MAX, JWKS_FETCH_MS_MIN, JWKS_KEYS_MAX, JWT_BYTES_MAX};
use crate::media::name::StreamName;

/// Seconds that clocks may differ by.
const LEEWAY: u64 = 5;
/// Longest fetch of a key set.
const FETCH: Duration = Duration::from_secs(10);
/// Key sets that are kept; their URLs come from the configuration, so there are few.
const SETS_MAX: usize = 1_000;

/// Key sets by URL.
pub struct Keys {
    client: Rc<HttpClient>,
    sets: RefCell<HashMap<String, Rc<Set>>>,
}

#[derive(Default)]
struct Set {
    keys: RefCell<Vec<Key>>,
    /// When it was last fetched well, and last asked for. Held while it is fetched, so that one
    /// fetch serves all who wait.
    times: tokio::sync::Mutex<Times>,
    is_there: std::cell::Cell<bool>,
}

#[derive(Default, Clone, Copy)]
struct Times {
    fetched: Option<Instant>,
    tried: Option<Instant>,
}

struct Key {
    id: Option<String>,
    algorithm: Option<String>,
    key: DecodingKey,
}

impl Keys {
    /// No keys yet.
    pub fn new(client: Rc<HttpClient>) -> Keys {
        Keys { client, sets: RefCell::default() }
    }

    /// Sees whether a JWT lets its bearer do this.
    ///
    /// # Errors
    /// What to count and what to say.
    pub async fn check(
        &self,
        token: &Token,
        action: Action,
        name: &StreamName,
        jwt: &str,
    ) -> Result<(), (Reason, String)> {
        let refused = |why: &dyn std::fmt::Display| (Reason::TokenRefused, format!("JWT: {why}"));
        if jwt.len() > JWT_BYTES_MAX {
            return Err(refused(&"it is too long"));
        }
        let header = decode_header(jwt).map_err(|why| refused(&why))?;
        let validation = validation(token, header.alg);
        let claims = if header.alg.family() == AlgorithmFamily::Hmac {
            if token.jwt_secret.is_empty() {
                return Err(refused(&"no shared secret is configured"));
            }
            let key = DecodingKey::from_secret(token.jwt_secret.as_bytes());
            decode::<Value>(jwt, &key, &validation).map_err(|why| refused(&why))?.claims
        } else {
            if token.jwks_url.is_empty() {
                return Err(refused(&"no key set is configured"));
            }
            let set = self.set(token, header.kid.as_deref()).await;
            if !set.is_there.get() {
                return Err((Reason::TokenKeysMissing, "the key set cannot be fetched".into()));
            }
            let keys = set.keys.borrow();
            let fitting = keys.iter().filter(|key| {
                (header.kid.is_none() || key.id.is_none() || key.id == header.kid)
                    && key.key.family() == header.alg.family()
                    && key.algorithm.as_ref().is_none_or(|a| *a == format!("{:?}", header.alg))
            });
            let mut why = refused(&"no key of the set fits it");
            let mut claims = None;
            for key in fitting {
                match decode::<Value>(jwt, &key.key, &validation) {
                    Ok(data) => claims = Some(data.claims),
                    Err(error) => why = refused(&error),
                }
                if claims.is_some() {
                    break;
                }
            }
            claims.ok_or(why)?
        };
        permits(&claims, action, name).map_err(|why| refused(&why))
    }

    /// The key set, fetched when it is missing, old, or lacks the key that is asked for.
    async fn set(&self, token: &Token, kid: Option<&str>) -> Rc<Set> {
        let set = {
            let mut sets = self.sets.borrow_mut();
            if sets.len() > SETS_MAX {
                sets.clear();
            }
            sets.entry(token.jwks_url.clone()).or_default().clone()
        };
        let mut times = set.times.lock().await;
        let is_old = times.fetched.is_none_or(|at| at.elapsed() >= token.jwks_refresh);
        let lacks = kid
            .is_some_and(|kid| !set.keys.borrow().iter().any(|key| key.id.as_deref() == Some(kid)));
        let pause = Duration::from_millis(JWKS_FETCH_MS_MIN);
        if (!is_old && !lacks) || times.tried.is_some_and(|at| at.elapsed() < pause) {
            drop(times);
            return set;
        }
        times.tried = Some(Instant::now());
        match self.fetch(&token.jwks_url).await {
            Ok(keys) => {
                tracing::info!(
                    url = super::without_query(&token.jwks_url),
                    keys = keys.len(),
                    "key set fetched"
                );
                *set.keys.borrow_mut() = keys;
                set.is_there.set(true);
                times.fetched = Some(Instant::now());
            }
            // Keys that are there stay good.
            Err(why) => tracing::warn!(
                reason = Fault::CallFailed.name(),
                url = super::without_query(&token.jwks_url),
                "the key set cannot be fetched: {why}"
            ),
        }
        drop(times);
        set
    }

    async fn fetch(&self, url: &str) -> Result<Vec<Key>, String> {
        let call =
            Call { url, json: None, timeout: FETCH, answer_max: JWKS_BYTES_MAX, tls_verify: true };
        let answer = self.client.call(call).await.map_err(|why| why.to_string())?;
        if answer.status != 200 {
            return Err(format!("status {}", answer.status));
        }
        read_set(&answer.body)
    }
}

fn read_set(body: &[u8]) -> Result<Vec<Key>, String> {
    // Key by key, so that one of a kind unknown here does not cost the others.
    let value: Value = serde_json::from_slice(body).map_err(|why| why.to_string())?;
    let list = value.get("keys").and_then(Value::as_array).ok_or("it has no \"keys\"")?;
    let mut keys = Vec::new();
    for jwk in list.iter().take(JWKS_KEYS_MAX) {
        let one = serde_json::json!({ "keys": [jwk] });
        let Ok(set) = serde_json::from_value::<JwkSet>(one) else { continue };
        let Some(jwk) = set.keys.first() else { continue };
        if jwk.common.public_key_use == Some(PublicKeyUse::Encryption) {
            continue;
        }
        let Ok(key) = DecodingKey::from_jwk(jwk) else { continue };
        // A shared secret in a key set is not shared with its readers only.
        if key.family() == AlgorithmFamily::Hmac {
            continue;
        }
        let algorithm = jwk.common.key_algorithm.map(|algorithm| algorithm.to_string());
        keys.push(Key { id: jwk.common.key_id.clone(), algorithm, key });
    }
    Ok(keys)
}

fn validation(token: &Token, algorithm: Algorithm) -> Validation {
    let mut validation = Validation::new(algorithm);
    validation.leeway = LEEWAY;
    validation.validate_nbf = true;
    let mut required = vec!["exp"];
    if !token.jwt_issuer.is_empty() {
        validation.set_issuer(&[&token.jwt_issuer]);
        required.push("iss");
    }
    if !token.jwt_audience.is_empty() {
        validation.set_audience(&[&token.jwt_audience]);
        required.push("aud");
    }
    validation.set_required_spec_claims(&required);
    validation
}

/// What the claims allow.
fn permits(claims: &Value, action: Action, name: &StreamName) -> Result<(), &'static str> {
    match claims.get("vhost") {
        None => {}
        Some(vhost) if vhost.as_str() == Some(name.vhost()) => {}
        Some(_) => return Err("it is for another vhost"),
    }
    let path = &name.key()[name.vhost().len() + 1..];
    let matches = |pattern: &str| match pattern.strip_suffix('*') {
        Some(front) => path.starts_with(front),
        None => pattern == path,
    };
    let found = match claims.get(action.name()) {
        Some(Value::String(one)) => matches(one),
        Some(Value::Array(list)) => list.iter().filter_map(Value::as_str).any(matches),
        _ => return Err("it does not say which streams it is for"),
    };
    if found { Ok(()) } else { Err("it is for other streams") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use jsonwebtoken::{EncodingKey, Header, encode};
    use serde_json::json;

    const SECRET: &str = "0123456789abcdef0123456789abcdef";

    fn name() -> StreamName {
        StreamName::new("v.com", "live", "one.flv").unwrap()
    }

    fn token() -> Token {
        Token { jwt_secret: SECRET.into(), ..Token::default() }
    }

    fn jwt(claims: &Value, secret: &str) -> String {
        let key = EncodingKey::from_secret(secret.as_bytes());
        encode(&Header::new(Algorithm::HS256), claims, &key).unwrap()
    }

    fn now() -> u64 {
        jsonwebtoken::get_current_timestamp()
    }

    fn check(token: &Token, jwt: &str) -> Result<(), (Reason, String)> {
        let keys = Keys::new(Rc::default());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(keys.check(token, Action::Play, &name(), jwt))
    }

    #[test]
    fn claims_name_streams() {
        let may = |claims: Value| permits(&claims, Action::Play, &name()).is_ok();
        for good in [json!("live/one"), json!("*"), json!("live/*"), json!(["x", "live/on*"])] {
            assert!(may(json!({ "play": good })), "{good}");
        }
        for bad in [
            json!("live"),
            json!("live/one.flv"),
            json!(""),
            json!(true),
            json!(["a", 1]),
            json!([]),
            json!("other/*"),
            json!("*/one"),
        ] {
            assert!(!may(json!({ "play": bad })), "{bad}");
        }
        assert!(!may(json!({ "publish": "*" })), "that is another permission");
        assert!(may(json!({ "play": "*", "vhost": "v.com" })));
        assert!(!may(json!({ "play": "*", "vhost": "w.com" })));
    }

    #[test]
    fn tokens_with_a_shared_secret() {
        let good = json!({ "exp": now() + 60, "play": "live/*" });
        assert_eq!(check(&token(), &jwt(&good, SECRET)), Ok(()));
        let refused = |token: &Token, claims: &Value, secret: &str| {
            matches!(check(token, &jwt(claims, secret)), Err((Reason::TokenRefused, _)))
        };
        assert!(refused(&token(), &good, "another secret of thirty-two byte"));
        let without = |change: &dyn Fn(&mut Value)| {
            let mut claims = good.clone();
            change(&mut claims);
            claims
        };
        let old = without(&|c| c["exp"] = json!(now() - 60));
        assert!(refused(&token(), &old, SECRET), "expired");
        let endless = without(&|c| _ = c.as_object_mut().unwrap().remove("exp"));
        assert!(refused(&token(), &endless, SECRET), "without an end");
        let early = without(&|c| c["nbf"] = json!(now() + 60));
        assert!(refused(&token(), &early, SECRET), "not yet");
        let strict = Token { jwt_issuer: "me".into(), jwt_audience: "us".into(), ..token() };
        assert!(refused(&strict, &good, SECRET));
        let named = without(&|c| {
            c["iss"] = json!("me");
            c["aud"] = json!(["us", "them"]);
        });
        assert_eq!(check(&strict, &jwt(&named, SECRET)), Ok(()));
        assert!(refused(&token(), &named, SECRET), "for an audience that is not configured");
    }

    #[test]
    fn tricks_with_the_algorithm_are_refused() {
        let claims = json!({ "exp": now() + 60, "play": "*" });
        let good = jwt(&claims, SECRET);
        let body = good.split('.').nth(1).unwrap();
        // {"alg":"none"} and an empty signature.
        for none in [format!("eyJhbGciOiJub25lIn0.{body}."), format!("e30.{body}.x")] {
            assert!(check(&token(), &none).is_err(), "{none}");
        }
        // Signed with a secret where only a key set is configured.
        let set = Token {
            jwt_secret: String::new(),
            jwks_url: "http://127.0.0.1:1/".into(),
            ..Token::default()
        };
        assert!(matches!(check(&set, &good), Err((Reason::TokenRefused, _))));
        // {"alg":"RS256"}: the key set cannot be fetched, and nothing else is tried.
        let rsa = format!("eyJhbGciOiJSUzI1NiJ9.{body}.AAAA");
        assert!(matches!(check(&set, &rsa), Err((Reason::TokenKeysMissing, _))));
        let long = format!("{good}{}", "A".repeat(JWT_BYTES_MAX));
        assert!(check(&token(), &long).is_err());
        assert!(check(&token(), "a.b.c").is_err());
    }

    #[test]
    fn key_sets_are_read_key_by_key() {
        let body = json!({ "keys": [
            { "kty": "OKP", "crv": "Ed25519", "kid": "a", "use": "sig", "alg": "EdDSA",
              "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo" },
            { "kty": "new", "kid": "b" },
            { "kty": "oct", "kid": "c", "k": "c2VjcmV0" },
            { "kty": "OKP", "crv": "Ed25519", "kid": "d", "use": "enc",
              "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo" },
        ] });
        let keys = read_set(body.to_string().as_bytes()).unwrap();
        let ids: Vec<_> = keys.iter().map(|key| key.id.as_deref().unwrap()).collect();
        assert_eq!(ids, ["a"]);
        assert_eq!(keys[0].algorithm.as_deref(), Some("EdDSA"));
        assert!(read_set(b"[]").is_err() && read_set(b"").is_err());
    }
}

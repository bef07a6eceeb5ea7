//! Tokens in the parameters of a stream: static keys and signed URLs are checked here, by the
//! shard; a JWT goes to the control thread, which has the keys.
//!
//! A signed URL says until when it is good: `?expires=1767225600&sign=HEX`, where HEX is the
//! HMAC-SHA256 of `publish:app/stream:1767225600` (or `play:...`) under one of the secrets.

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use crate::config::{Action, Token};
use crate::media::name::StreamName;
use crate::proto::http::url::parse_query;

/// What the parameters are worth.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Checked {
    /// The vhost asks for no token, or a good one is there.
    Passed,
    /// This may be a JWT; the control thread knows.
    Jwt(Box<str>),
    /// Why not.
    Refused(&'static str),
}

/// Checks the token of a client. `param` are the parameters as written, with or without the
/// question mark; `bearer` is what an HTTP client gave as `Authorization: Bearer`.
pub(super) fn check(
    token: &Token,
    action: Action,
    name: &StreamName,
    param: &str,
    bearer: Option<&str>,
    wall_ms: i64,
) -> Checked {
    let needed = match action {
        Action::Publish => token.publish,
        Action::Play => token.play,
    };
    if !needed {
        return Checked::Passed;
    }
    let Ok(params) = parse_query(param.trim_start_matches(['?', '#'])) else {
        return Checked::Refused("its parameters cannot be read");
    };
    let of = |key: &str| params.get(key).filter(|value| !value.is_empty());
    if let (Some(sign), false) = (of("sign"), token.sign_secrets.is_empty()) {
        return match signed(token, action, name, sign, of("expires"), wall_ms) {
            Ok(()) => Checked::Passed,
            Err(why) => Checked::Refused(why),
        };
    }
    let Some(given) = of("token").or(bearer) else {
        return Checked::Refused("it brings no token");
    };
    // All of them are compared, so that the time does not tell which one was close.
    let found = token.keys.iter().fold(false, |found, key| found | equal(key, given));
    if found {
        return Checked::Passed;
    }
    let may_be_jwt = given.bytes().filter(|b| *b == b'.').count() == 2;
    if may_be_jwt && token.has_jwt() {
        return Checked::Jwt(given.into());
    }
    Checked::Refused("its token is not a good one")
}

fn signed(
    token: &Token,
    action: Action,
    name: &StreamName,
    sign: &str,
    expires: Option<&str>,
    wall_ms: i64,
) -> Result<(), &'static str> {
    let expires = expires.ok_or("its signed URL does not say when it expires")?;
    // Digits only: what was signed is this text, and a number can be written in many ways.
    let until = Some(expires)
        .filter(|text| text.len() <= 12 && text.bytes().all(|b| b.is_ascii_digit()))
        .and_then(|text| text.parse::<i64>().ok())
        .ok_or("its signed URL has an expiry that is no time")?;
    let sign = unhex(sign).ok_or("its signature is not one")?;
    let good = token.sign_secrets.iter().fold(false, |good, secret| {
        good | mac(secret, action, name, expires).verify_slice(&sign).is_ok()
    });
    if !good {
        return Err("its signature is not a good one");
    }
    if until.saturating_mul(1000) < wall_ms {
        return Err("its signed URL has expired");
    }
    Ok(())
}

fn mac(secret: &str, action: Action, name: &StreamName, expires: &str) -> Hmac<Sha256> {
    // HMAC takes keys of every length.
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).expect("any key length");
    // The key without the vhost: each vhost has secrets of its own.
    let path = &name.key()[name.vhost().len() + 1..];
    for part in [action.name(), ":", path, ":", expires] {
        mac.update(part.as_bytes());
    }
    mac
}

/// The signature of a stream's URL, as hexadecimal digits.
pub fn sign(secret: &str, action: Action, name: &StreamName, expires: &str) -> String {
    let bytes = mac(secret, action, name, expires).finalize().into_bytes();
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Option<[u8; 32]> {
    let digits = text.as_bytes();
    let mut out = [0; 32];
    if digits.len() != 64 {
        return None;
    }
    for (byte, pair) in out.iter_mut().zip(digits.chunks_exact(2)) {
        let digit = |c: u8| char::from(c).to_digit(16);
        *byte = (digit(pair[0])? << 4 | digit(pair[1])?) as u8;
    }
    Some(out)
}

/// Compares without telling by its time where the difference is.
fn equal(a: &str, b: &str) -> bool {
    let differing = a.bytes().zip(b.bytes()).fold(0, |differing, (a, b)| differing | (a ^ b));
    a.len() == b.len() && differing == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW_MS: i64 = 1_700_000_000_000;

    fn name(stream: &str) -> StreamName {
        StreamName::new("v.com", "live", stream).unwrap()
    }

    fn token() -> Token {
        Token {
            publish: true,
            play: true,
            keys: vec!["first-key".into(), "second-key".into()],
            sign_secrets: vec!["old-secret".into(), "new-secret".into()],
            ..Token::default()
        }
    }

    fn passes(token: &Token, action: Action, stream: &str, param: &str) -> bool {
        check(token, action, &name(stream), param, None, NOW_MS) == Checked::Passed
    }

    #[test]
    fn static_keys() {
        let mut token = token();
        assert!(passes(&token, Action::Publish, "a", "?token=first-key"));
        assert!(passes(&token, Action::Play, "a", "?x=y&token=second-key"));
        for bad in [
            "",
            "?token=",
            "?token=first",
            "?token=first-key2",
            "?tokenx=first-key",
            "?TOKEN=first-key",
            "?token=wrong&token=first-key",
        ] {
            assert!(!passes(&token, Action::Publish, "a", bad), "{bad}");
        }
        let bearer = check(&token, Action::Play, &name("a"), "", Some("first-key"), NOW_MS);
        assert_eq!(bearer, Checked::Passed);
        token.play = false;
        assert!(passes(&token, Action::Play, "a", ""), "not asked for");
        assert!(!passes(&token, Action::Publish, "a", ""));
        token.keys.clear();
        assert!(!passes(&token, Action::Publish, "a", "?token="), "no key is no key");
    }

    #[test]
    fn signed_urls() {
        let token = token();
        let until = "1700000060";
        let signed = |secret: &str, action, stream: &str, until: &str| {
            let sign = sign(secret, action, &name(stream), until);
            format!("?expires={until}&sign={sign}")
        };
        let good = signed("new-secret", Action::Publish, "a", until);
        assert!(passes(&token, Action::Publish, "a", &good));
        assert!(passes(&token, Action::Publish, "a.flv", &good), "the same stream");
        assert!(
            passes(
                &token,
                Action::Publish,
                "a",
                &good.to_uppercase().replace("EXPIRES", "expires").replace("SIGN", "sign")
            ),
            "digits of either case"
        );
        assert!(passes(&token, Action::Play, "a", &signed("old-secret", Action::Play, "a", until)));
        assert!(!passes(&token, Action::Play, "a", &good), "for another action");
        assert!(!passes(&token, Action::Publish, "b", &good), "for another stream");
        assert!(!passes(&token, Action::Publish, "a", &good.replace(until, "1800000000")));
        assert!(!passes(&token, Action::Publish, "a", &good.replace("expires", "x")));
        assert!(!passes(&token, Action::Publish, "a", &good[..good.len() - 2]));
        let other = signed("guessed", Action::Publish, "a", until);
        assert!(!passes(&token, Action::Publish, "a", &other));
        let over = signed("new-secret", Action::Publish, "a", "1699999999");
        assert!(!passes(&token, Action::Publish, "a", &over), "expired");
        let on_time = signed("new-secret", Action::Publish, "a", "1700000000");
        assert!(passes(&token, Action::Publish, "a", &on_time), "good until then");
        for odd in ["+1700000060", "1700000060 ", "0x7fffffff", "9999999999999999999999"] {
            let param = signed("new-secret", Action::Publish, "a", odd);
            assert!(!passes(&token, Action::Publish, "a", &param), "{odd}");
        }
        // What a shell makes: printf 'play:live/a:1700000060' | openssl dgst -sha256 -hmac k
        let hex = sign("k", Action::Play, &name("a"), "1700000060");
        assert_eq!(hex, "69d6c87d7372fdfb9eaa0a0fa92a6886fbde9d09b61bfb28c9c6f20f491a681e");
    }

    #[test]
    fn what_looks_like_a_jwt_is_passed_on() {
        let mut token = token();
        let given =
            |token: &Token, param| check(token, Action::Play, &name("a"), param, None, NOW_MS);
        assert!(matches!(given(&token, "?token=a.b.c"), Checked::Refused(_)), "not configured");
        token.jwt_secret = "0123456789abcdef0123456789abcdef".into();
        assert_eq!(given(&token, "?token=a.b.c"), Checked::Jwt("a.b.c".into()));
        assert!(matches!(given(&token, "?token=a.b"), Checked::Refused(_)));
        assert!(matches!(given(&token, ""), Checked::Refused(_)));
    }
}

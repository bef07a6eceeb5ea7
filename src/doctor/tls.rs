//! Certificates and keys: there, readable, a pair, and for how long.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::{Duration, SystemTime};

use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;

use super::{Finding, Status};
use crate::config::Config;
use crate::control::tls::{File, Identity};
use crate::date;

/// Time before its end from which a certificate is worth a line.
const SOON: Duration = Duration::from_secs(14 * 86_400);

/// A finding for each pair of files that HTTPS is to be served with.
pub(super) fn files(config: &Config, now: SystemTime) -> Vec<Finding> {
    let (own, api) = (&config.http_server.https, &config.http_api.https);
    let names = [
        ["http_server.https.cert", "http_server.https.key"],
        ["http_api.https.cert", "http_api.https.key"],
    ];
    let directory = &config.work_dir;
    [
        (config.serves_https(), &own.cert, &own.key, names[0]),
        (config.serves_api_https() && !config.shares_https_port(), &api.cert, &api.key, names[1]),
    ]
    .into_iter()
    .filter(|(wanted, ..)| *wanted)
    .map(|(_, cert, key, [cert_name, key_name])| {
        let (cert, key) = (directory.join(cert), directory.join(key));
        pair((&cert, cert_name), (&key, key_name), now)
    })
    .collect()
}

fn pair(cert: (&Path, &'static str), key: (&Path, &'static str), now: SystemTime) -> Finding {
    let check = "tls";
    let bad = |status, found: String, meaning: &str, fix: String| {
        Finding::bad(check, status, found, meaning, fix)
    };
    let files = (File::new(cert.0, cert.1), File::new(key.0, key.1));
    if let Err(why) = Identity::load(files.0, files.1) {
        return bad(
            Status::Fail,
            why.to_string(),
            "the server does not start with these files",
            format!("name PEM files that belong together in {} and {}", cert.1, key.1),
        );
    }
    let found = format!("{} and {} are a pair", cert.0.display(), key.0.display());
    let der = CertificateDer::from_pem_file(cert.0).ok();
    let Some((begins, ends)) = der.and_then(|der| validity(&der)) else {
        return bad(
            Status::Warn,
            format!("{found}; how long the certificate holds cannot be read"),
            "clients may refuse it",
            format!("openssl x509 -in {} -noout -dates shows more", cert.0.display()),
        );
    };
    let now = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs() as i64;
    let days = (ends - now).div_euclid(86_400);
    let renew = "renew it, then send the server SIGHUP".to_string();
    if now < begins {
        let fix = "set the clock, or wait".into();
        bad(Status::Fail, format!("{found}, but not yet valid"), "clients refuse it", fix)
    } else if days < 0 {
        bad(Status::Fail, format!("{found}, but over"), "clients refuse it", renew)
    } else if days < SOON.as_secs() as i64 / 86_400 {
        bad(Status::Warn, format!("{found}, for {days} days more"), "clients refuse it then", renew)
    } else if fs::metadata(key.0).is_ok_and(|key| key.permissions().mode() & 0o007 != 0) {
        let fix = format!("chmod o-rwx {}", key.0.display());
        bad(Status::Warn, found, "everybody on this machine can read the key", fix)
    } else {
        Finding::ok(check, format!("{found}, for {days} days"))
    }
}

/// From when to when a certificate holds, seconds since 1970 (RFC 5280, 4.1). Whoever loaded it has
/// looked at its form; this only finds the two times.
fn validity(der: &[u8]) -> Option<(i64, i64)> {
    let (_, certificate, _) = element(der)?;
    let (_, body, _) = element(certificate)?;
    // A version, if any; serial number, algorithm, issuer; then the times.
    let (tag, _, rest) = element(body)?;
    let mut rest = if tag == 0xa0 { rest } else { body };
    for _ in 0..3 {
        (_, _, rest) = element(rest)?;
    }
    let (_, times, _) = element(rest)?;
    let (from_tag, from, rest) = element(times)?;
    let (to_tag, to, _) = element(rest)?;
    Some((time(from_tag, from)?, time(to_tag, to)?))
}

/// Tag, content and what follows of the first DER element.
fn element(der: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&tag, rest) = der.split_first()?;
    let (&first, rest) = rest.split_first()?;
    let (length, rest) = match first {
        0..=0x7f => (usize::from(first), rest),
        0x81..=0x84 => {
            let (bytes, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
            (bytes.iter().fold(0, |length, byte| length << 8 | usize::from(*byte)), rest)
        }
        _ => return None,
    };
    let (content, rest) = rest.split_at_checked(length)?;
    Some((tag, content, rest))
}

/// A UTCTime or GeneralizedTime, both in UTC and with seconds in certificates.
fn time(tag: u8, text: &[u8]) -> Option<i64> {
    let text = std::str::from_utf8(text).ok()?.strip_suffix('Z')?;
    let (year, rest) = match tag {
        // Two digits of the year are between 1950 and 2049.
        0x17 => {
            let (year, rest) = text.split_at_checked(2)?;
            let year: i64 = year.parse().ok()?;
            (if year < 50 { 2000 + year } else { 1900 + year }, rest)
        }
        0x18 => {
            let (year, rest) = text.split_at_checked(4)?;
            (year.parse().ok()?, rest)
        }
        _ => return None,
    };
    let part = |index: usize| rest.get(2 * index..2 * index + 2)?.parse::<i64>().ok();
    let (month, day) = (part(0)?, part(1)?);
    if !(1..=12).contains(&month) || !(1..=31).contains(&day) {
        return None;
    }
    let seconds = part(2)? * 3600 + part(3)? * 60 + part(4)?;
    Some(date::days(year, month, day) * 86_400 + seconds)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tagged(tag: u8, content: &[u8]) -> Vec<u8> {
        let length = content.len();
        let mut out = vec![tag];
        match length {
            0..0x80 => out.push(length as u8),
            _ => out.extend([0x82, (length >> 8) as u8, length as u8]),
        }
        out.extend(content);
        out
    }

    #[test]
    fn times_of_a_certificate_are_found() {
        let times = [tagged(0x17, b"240229120000Z"), tagged(0x18, b"20500101000001Z")].concat();
        let names = tagged(0x30, &[7; 300]);
        for version in [tagged(0xa0, &[2, 1, 2]), Vec::new()] {
            let serial = tagged(0x02, &[1]);
            let algorithm = tagged(0x30, &[]);
            let times = tagged(0x30, &times);
            let body = [version, serial, algorithm.clone(), names.clone(), times].concat();
            let der = tagged(0x30, &[tagged(0x30, &body), algorithm].concat());
            assert_eq!(validity(&der), Some((1_709_208_000, 2_524_608_001)));
            for cut in 0..der.len() {
                let _ = validity(&der[..cut]);
            }
        }
        assert_eq!(time(0x17, b"700101000000Z"), Some(0));
        assert_eq!(time(0x17, b"701301000000Z"), None);
        assert_eq!(time(0x17, "é00101000000Z".as_bytes()), None);
    }

    #[test]
    fn files_that_are_not_there_are_named() {
        let mut config = Config::default();
        assert!(files(&config, SystemTime::now()).is_empty());
        config.http_api.https.enabled = true;
        config.http_api.https.cert = "/nonexistent/a.crt".into();
        let findings = files(&config, SystemTime::now());
        assert_eq!(findings[0].status, Status::Fail);
        assert!(findings[0].found.contains("/nonexistent/a.crt"), "{findings:?}");
        assert!(findings[0].fix.contains("http_api.https.key"));
        config.http_server.https.enabled = true;
        let findings = files(&config, SystemTime::now());
        assert_eq!(findings.len(), 2);
        assert!(findings[0].fix.contains("http_server.https.key"));
    }
}

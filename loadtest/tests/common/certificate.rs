//! Certificates for servers on this machine.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use super::process::Process;
use super::scratch;

/// A certificate for every address of tests that is not its own authority's, and its key. The files
/// go with the value.
pub struct Certificate {
    pub cert: PathBuf,
    pub key: PathBuf,
}

impl Certificate {
    /// Makes one; two of a test program have different names.
    pub fn make(name: &str) -> Certificate {
        let file = |suffix| scratch::path(&format!("{name}.{suffix}"));
        let made = Certificate { cert: file("crt"), key: file("key") };
        let names = "subjectAltName=IP:127.0.0.1,DNS:tls.test";
        let mut command = Command::new("openssl");
        command.args(["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"]);
        command.args(["-subj", &format!("/CN={name}"), "-addext", names]);
        command.args(["-addext", "basicConstraints=critical,CA:FALSE"]);
        command.arg("-keyout").arg(&made.key).arg("-out").arg(&made.cert);
        let process = Process::start("openssl", &mut command);
        process.finish(Duration::from_secs(30)).expect_success("openssl makes a certificate");
        made
    }

    /// Puts the files of another one in the place of these.
    pub fn become_like(&self, other: &Certificate) {
        std::fs::copy(&other.cert, &self.cert).expect("copied");
        std::fs::copy(&other.key, &self.key).expect("copied");
    }
}

impl Drop for Certificate {
    fn drop(&mut self) {
        for file in [&self.cert, &self.key] {
            let _ = std::fs::remove_file(file);
        }
    }
}

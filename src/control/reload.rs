//! Reload: by signal, by the API, by a changed file; the same for all of them.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::config::{ConfigErrors, Current, Reloaded};
use crate::fault::Fault;
use crate::log::LogHandle;
use crate::shard::{Letter, Post};
use crate::systemd;

use super::tls::Identity;

/// How the last reload went, for who has started it without waiting.
#[derive(Clone, Debug, Default)]
pub struct LastReload {
    /// How many there were.
    pub number: u64,
    /// What was wrong; empty when nothing was.
    pub error: String,
}

impl LastReload {
    fn note(&mut self, result: &Result<Reloaded, ConfigErrors>) {
        self.number += 1;
        self.error = result.as_ref().err().map(ToString::to_string).unwrap_or_default();
    }
}

/// Exchanges the configuration and tells everybody who keeps parts of it.
#[derive(Clone, Debug)]
pub struct Reloader<W> {
    last: Arc<Mutex<LastReload>>,
    current: Arc<Current>,
    post: Post<W>,
    log: LogHandle,
    identities: Arc<[Arc<Identity>]>,
}

impl<W: uring::Wake> Reloader<W> {
    /// For these shards, this log and these certificates.
    pub fn new(
        current: Arc<Current>,
        post: Post<W>,
        log: LogHandle,
        identities: Arc<[Arc<Identity>]>,
    ) -> Reloader<W> {
        Reloader { last: Arc::default(), current, post, log, identities }
    }

    /// How the last reload went.
    pub fn last(&self) -> MutexGuard<'_, LastReload> {
        // Plain data; a panic leaves it as it was.
        self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads the configuration anew; `cause` says in the log who wants it. Connections go on. It
    /// reads a file, and so takes as long as the disk does.
    ///
    /// # Errors
    /// What is wrong with the new configuration, each of it logged. Nothing has changed.
    pub fn reload(&self, cause: &str) -> Result<Reloaded, ConfigErrors> {
        systemd::notify(systemd::State::Reloading);
        let result = self.current.reload();
        self.reload_certificates();
        systemd::notify(systemd::State::Ready);
        self.last().note(&result);
        let reloaded = match result {
            Ok(reloaded) => reloaded,
            Err(errors) => {
                for line in errors.to_string().lines() {
                    tracing::error!(
                        reason = Fault::ConfigInvalid.name(),
                        cause,
                        "configuration not reloaded: {line}"
                    );
                }
                return Err(errors);
            }
        };
        self.log.set_level(self.current.load().log.level);
        self.post.tell_all(&Letter::Reloaded);
        for warning in &reloaded.warnings {
            tracing::warn!(reason = Fault::ConfigDoubtful.name(), "{warning}");
        }
        for change in reloaded.applied() {
            tracing::info!("configuration: {change}");
        }
        for path in reloaded.need_restart() {
            tracing::warn!(
                reason = Fault::ConfigNeedsRestart.name(),
                "configuration: {path} differs from the file and takes a restart"
            );
        }
        let changes = reloaded.changes.len();
        tracing::info!(cause, changes, "configuration reloaded");
        Ok(reloaded)
    }

    /// Reads certificates and keys again: they are renewed by programs that know no configuration.
    fn reload_certificates(&self) {
        for identity in self.identities.iter() {
            match identity.reload() {
                Ok(true) => tracing::info!("certificate {} reloaded", identity.name()),
                Ok(false) => {}
                Err(why) => tracing::error!(
                    reason = Fault::TlsUnusable.name(),
                    "certificate not reloaded, the one before stays: {why}"
                ),
            }
        }
    }
}

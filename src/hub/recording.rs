//! What is known of a stream's recording; the recorder writes it, everybody may look.

use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicI64, AtomicU8, AtomicU64, Ordering::Relaxed};

use super::feed::Format;

/// Where a recording stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum RecordingState {
    /// There is nothing to write yet.
    Waiting,
    /// It is written.
    Writing,
    /// The disk takes longer than it should; nothing is lost yet.
    Slow,
    /// The disk is full: nothing is written.
    Full,
    /// The disk fails: nothing is written.
    Failing,
    /// The stream cannot be recorded as configured.
    Refused,
}

impl RecordingState {
    /// All of them.
    pub const ALL: [RecordingState; 6] = [
        RecordingState::Waiting,
        RecordingState::Writing,
        RecordingState::Slow,
        RecordingState::Full,
        RecordingState::Failing,
        RecordingState::Refused,
    ];

    /// Its name in the API and in metrics.
    pub fn name(self) -> &'static str {
        match self {
            RecordingState::Waiting => "waiting",
            RecordingState::Writing => "writing",
            RecordingState::Slow => "slow",
            RecordingState::Full => "disk_full",
            RecordingState::Failing => "disk_failed",
            RecordingState::Refused => "refused",
        }
    }

    /// True while the stream goes on without being recorded, although it should be.
    pub fn is_failure(self) -> bool {
        use RecordingState::*;
        matches!(self, Full | Failing | Refused)
    }
}

/// One recording.
#[derive(Debug, Default)]
pub struct Recording {
    state: AtomicU8,
    /// When it began, ms since 1970.
    pub since_ms: AtomicI64,
    /// Bytes written, all files together.
    pub bytes: AtomicU64,
    /// Files that are whole.
    pub files: AtomicU64,
    /// Times it fell behind or could not be written, so that something is missing.
    pub gaps: AtomicU64,
    /// Stream time that is missing, ms.
    pub lost_ms: AtomicU64,
    /// The file that is being written, and what was last wrong.
    texts: Mutex<(String, String)>,
}

impl Recording {
    /// Where it stands.
    pub fn state(&self) -> RecordingState {
        let state = usize::from(self.state.load(Relaxed));
        RecordingState::ALL.get(state).copied().unwrap_or(RecordingState::Waiting)
    }

    /// Says where it stands. True when that is news.
    pub fn set_state(&self, state: RecordingState) -> bool {
        self.state.swap(state as u8, Relaxed) != state as u8
    }

    /// Path of the file that is being written.
    pub fn file(&self) -> String {
        self.texts().0.clone()
    }

    /// Says which file is being written.
    pub fn set_file(&self, path: &str) {
        path.clone_into(&mut self.texts().0);
    }

    /// What was last wrong; empty when nothing was.
    pub fn detail(&self) -> String {
        self.texts().1.clone()
    }

    /// Says what is wrong.
    pub fn set_detail(&self, why: &str) {
        why.clone_into(&mut self.texts().1);
    }

    fn texts(&self) -> std::sync::MutexGuard<'_, (String, String)> {
        // Each change is a single assignment.
        self.texts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The format that a path of recordings asks for.
pub fn format(path: &str) -> Format {
    match path.rsplit_once('.') {
        Some((_, "mp4")) => Format::Fmp4,
        Some((_, "ts")) => Format::Ts,
        _ => Format::Flv,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_are_told_once() {
        let recording = Recording::default();
        assert_eq!(recording.state(), RecordingState::Waiting);
        for state in RecordingState::ALL.into_iter().skip(1) {
            assert!(recording.set_state(state) && !recording.set_state(state));
            assert_eq!(recording.state(), state);
        }
        assert_eq!(format("x/[stream].mp4"), Format::Fmp4);
        assert_eq!(format("x.ts"), Format::Ts);
        assert_eq!(format("folder/"), Format::Flv);
    }
}

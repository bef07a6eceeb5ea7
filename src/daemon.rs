//! Running in the background.
//!
//! The classic double fork cannot be had without unsafe code, so the command starts itself once
//! more: the second process leads a session of its own and reports through its standard output
//! when it serves. Until then its messages reach the terminal, and the first process waits, so
//! that a script that starts the server knows whether it runs.

use std::fs::OpenOptions;
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::process::{Command, ExitCode, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

/// Marks the second process, with the id of the first: what the server itself starts later
/// inherits the variable, and is not meant.
const MARK: &str = "RINGCAST_INTERNAL_BACKGROUND";
/// The line by which it reports.
const SERVING: &str = "ringcast: serving in the background";

/// Which of the two processes this is.
#[derive(Debug)]
pub enum Detached {
    /// The first one: it ends now, with this status.
    Foreground(ExitCode),
    /// The second one: it serves, and reports as soon as it does.
    Background(Report),
}

/// The background process's duty to report that it serves.
#[derive(Debug)]
#[must_use = "the command that started the server waits for the report"]
pub struct Report(());

/// Why the background process could not be started or did not serve.
#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    /// The system refused something.
    #[error("cannot run in the background: {0}; set `daemon` to false to run in the foreground")]
    System(#[from] io::Error),
    /// It neither served nor ended in time, and was ended.
    #[error("the background process did not serve within {0:?} and was ended; see its log")]
    Late(Duration),
}

/// Goes into the background: starts this command once more and waits, at most `limit`, until
/// that process serves or ends. In that process it returns [`Detached::Background`].
///
/// Call it before any thread, listener or file exists, and only when `daemon` is on.
///
/// # Errors
/// When the system refuses, or when the background process is late.
pub fn detach(limit: Duration) -> Result<Detached, DaemonError> {
    if is_second() {
        rustix::process::setsid().map_err(io::Error::from)?;
        return Ok(Detached::Background(Report(())));
    }
    let mut args = std::env::args_os();
    let _own_name = args.next();
    let mut command = Command::new(std::env::current_exe()?);
    command.args(args);
    start(command, limit).map(Detached::Foreground)
}

/// True in the process that [`start`] made.
fn is_second() -> bool {
    let first = std::env::var(MARK).ok().and_then(|pid| pid.parse::<i32>().ok());
    let parent = rustix::process::getppid().map(|pid| pid.as_raw_nonzero().get());
    first.is_some() && first == parent
}

impl Report {
    /// Tells the waiting command that the server serves, and lets go of its terminal.
    ///
    /// # Errors
    /// When the standard streams cannot be pointed away. That nobody waits any more is no error.
    pub fn serving(self) -> io::Result<()> {
        let _ = writeln!(io::stdout(), "{SERVING} (pid {})", std::process::id());
        let _ = io::stdout().flush();
        let null = OpenOptions::new().read(true).write(true).open("/dev/null")?;
        rustix::stdio::dup2_stdout(&null)?;
        rustix::stdio::dup2_stderr(&null)?;
        Ok(())
    }
}

/// Starts the background process and waits for its report. What it prints before is passed on.
fn start(mut command: Command, limit: Duration) -> Result<ExitCode, DaemonError> {
    command.env(MARK, std::process::id().to_string()).stdin(Stdio::null()).stdout(Stdio::piped());
    let mut child = command.spawn()?;
    let output = child.stdout.take().expect("it was asked for");
    // Closed without a line: the process has ended.
    let (sender, lines) = mpsc::sync_channel(16);
    std::thread::spawn(move || {
        for line in BufReader::new(output).lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                break;
            }
        }
    });
    let deadline = Instant::now() + limit;
    loop {
        match lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(line) => {
                // Whether anybody reads our own output decides nothing.
                let _ = writeln!(io::stdout(), "{line}");
                if line.starts_with(SERVING) {
                    return Ok(ExitCode::SUCCESS);
                }
            }
            Err(mpsc::RecvTimeoutError::Disconnected) => {
                let code = child.wait()?.code().and_then(|code| u8::try_from(code).ok());
                // Ending without serving is a failure whatever the process says.
                return Ok(ExitCode::from(code.filter(|code| *code != 0).unwrap_or(1)));
            }
            Err(mpsc::RecvTimeoutError::Timeout) => {
                child.kill()?;
                child.wait()?;
                return Err(DaemonError::Late(limit));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", script]);
        command
    }

    #[test]
    fn success_failure_and_silence() {
        let limit = Duration::from_secs(20);
        // The test harness shows no `PartialEq` for `ExitCode`; its text tells them apart.
        let code = |script| format!("{:?}", start(shell(script), limit).unwrap());
        let serving = format!("echo first; echo '{SERVING} (pid 1)'; exec sleep 0.1");
        let begun = Instant::now();
        assert_eq!(code(&serving), format!("{:?}", ExitCode::SUCCESS));
        assert_eq!(code("exit 3"), format!("{:?}", ExitCode::from(3)));
        assert_eq!(code("exit 0"), format!("{:?}", ExitCode::from(1)));
        assert_eq!(code("kill -9 $$"), format!("{:?}", ExitCode::from(1)));
        assert!(begun.elapsed() < limit);
        let late = start(shell("exec sleep 60"), Duration::from_millis(100));
        assert!(matches!(late, Err(DaemonError::Late(_))));
    }

    /// Where the processes of the test below write what they are.
    const OUT: &str = "RINGCAST_INTERNAL_OUT";

    /// Runs as the server's command when the test below starts it, and then once more.
    #[test]
    fn both_processes() {
        let Some(out) = std::env::var_os(OUT).map(std::path::PathBuf::from) else { return };
        match detach(Duration::from_secs(20)).unwrap() {
            Detached::Foreground(code) => {
                std::fs::write(out.join("foreground"), format!("{code:?}")).unwrap();
            }
            Detached::Background(report) => {
                report.serving().unwrap();
                println!("into the void");
                let session = rustix::process::getsid(None).unwrap();
                let leads = session == rustix::process::getpid();
                std::fs::write(out.join("background"), leads.to_string()).unwrap();
            }
        }
    }

    #[test]
    fn the_command_starts_itself_and_the_second_process_leads_its_session() {
        let out = std::env::temp_dir().join(format!("ringcast-daemon-{}", std::process::id()));
        std::fs::create_dir_all(&out).unwrap();
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "daemon::tests::both_processes", "--nocapture"]);
        let output = command.env(OUT, &out).output().unwrap();
        let shown = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && shown.contains(SERVING), "{shown}");
        assert!(!shown.contains("void"), "{shown}");
        let read = |name| {
            let deadline = Instant::now() + Duration::from_secs(20);
            loop {
                match std::fs::read_to_string(out.join(name)) {
                    Ok(text) if !text.is_empty() => return text,
                    _ => assert!(Instant::now() < deadline, "no {name} process"),
                }
                std::thread::sleep(Duration::from_millis(10));
            }
        };
        assert_eq!(read("foreground"), format!("{:?}", ExitCode::SUCCESS));
        assert_eq!(read("background"), "true");
        std::fs::remove_dir_all(out).unwrap();
    }
}

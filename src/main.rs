//! The `ringcast` program: command line in, exit status out.
#![forbid(unsafe_code)]

use std::io::{self, Write as _};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use mimalloc::MiMalloc;
use ringcast::cli::{self, Command, ConfigForm};
use ringcast::config::{self, Current, Loaded, Sources};
use ringcast::control::serve::{Handle, ServeError};
use ringcast::control::{self, demo, listen::Listeners};
use ringcast::daemon::{self, Detached};
use ringcast::pidfile::PidFileError;
use ringcast::{doctor, limits, log, pidfile, privileges, systemd};

/// Sessions come and go by the thousand on every shard; their small allocations are where a
/// general allocator fragments. Built without transparent huge pages: after churn they kept twice
/// the memory resident, and how much was a matter of luck.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

fn main() -> ExitCode {
    let invocation = cli::parse();
    if let (Command::Import, Some(file)) = (invocation.command, &invocation.sources.file) {
        return match config::import(file) {
            Ok(text) => print(&text),
            Err(errors) => complain(&errors),
        };
    }
    let loaded = match config::load(&invocation.sources) {
        Ok(loaded) => loaded,
        Err(errors) => return complain(&errors),
    };
    for warning in &loaded.warnings {
        eprintln!("ringcast: warning: {warning}");
    }
    match invocation.command {
        Command::Serve => serve(loaded, invocation.sources, false),
        Command::Demo => serve(loaded, invocation.sources, true),
        // Without its file, which the command line does not allow.
        Command::Import => ExitCode::from(cli::EXIT_USAGE),
        Command::Test => print(&test_line(&loaded)),
        Command::Config(form) => print(&match form {
            ConfigForm::Toml => config::to_toml(&loaded.config),
            ConfigForm::Json => config::to_json(&loaded.config),
            ConfigForm::Reference => config::reference(),
        }),
        Command::Doctor { json } => {
            let findings = doctor::examine(&loaded.config);
            let text = if json { doctor::to_json(&findings) } else { doctor::to_text(&findings) };
            let printed = print(&text);
            match doctor::worst(&findings) {
                doctor::Status::Fail => ExitCode::from(cli::EXIT_FAILURE),
                _ => printed,
            }
        }
    }
}

/// Serves until a signal. Every failure is one line that says what to do.
fn serve(loaded: Loaded, sources: Sources, demo: bool) -> ExitCode {
    // Where the system gives huge pages to everybody (`always`), to this process it shall not;
    // those for media memory are asked for by name.
    let _ = rustix::thread::disable_transparent_huge_pages(true);
    let open_files = config::raise_open_files();
    let (_, note) = config::fit_connections(loaded.config.max_connections, open_files);
    let current = Arc::new(Current::new(loaded, sources, open_files));
    let config = current.load();
    let mut report = None;
    if config.daemon {
        match daemon::detach(Duration::from_secs(limits::DAEMON_START_SECONDS)) {
            Ok(Detached::Foreground(status)) => return status,
            Ok(Detached::Background(duty)) => report = Some(duty),
            Err(error) => return fail(&error),
        }
    }
    if let Err(why) = std::env::set_current_dir(&config.work_dir) {
        return fail(&format!("cannot change to work_dir {}: {why}", config.work_dir.display()));
    }
    // Held until the end: its lock keeps a second server out.
    let _pid_file = match config.pid.as_os_str().is_empty() {
        true => None,
        false => match pidfile::acquire(&config.pid) {
            Ok(file) => Some(file),
            Err(error) => {
                fail(&error);
                return ExitCode::from(match error {
                    PidFileError::Held { .. } => cli::EXIT_PID_HELD,
                    PidFileError::Unusable { .. } => cli::EXIT_FAILURE,
                });
            }
        },
    };
    // Everything up to here, and the ports, takes the rights that the process was started with.
    let listeners = match Listeners::bind(&config) {
        Ok(listeners) => listeners,
        Err(error) => return fail(&error),
    };
    if let Err(error) = privileges::drop_to(&config.user, &config.group) {
        return fail(&error);
    }
    let log = match log::start(&config.log) {
        Ok(log) => log,
        Err(why) => return fail(&format!("cannot open the log: {why}; check log.file")),
    };
    if let Some(note) = note {
        tracing::warn!("{note}");
    }
    let on_ready = {
        let config = config.clone();
        move |_: &Handle| {
            if let Some(report) = report
                && let Err(why) = report.serving()
            {
                tracing::warn!("cannot leave the terminal: {why}");
            }
            systemd::notify(systemd::State::Ready);
            if demo {
                print(&format!(
                    "Playing the test stream {}:\n{}",
                    demo::STREAM,
                    demo::urls(&config)
                ));
                std::thread::spawn(move || demo::publish(&config));
            }
        }
    };
    let outcome = control::serve::serve(current, listeners, log.clone(), on_ready);
    log.flush();
    match outcome {
        Ok(()) => ExitCode::from(cli::EXIT_OK),
        Err(error @ ServeError::ParentGone) => {
            fail(&error);
            ExitCode::from(cli::EXIT_PARENT_GONE)
        }
        Err(error) => fail(&error),
    }
}

fn complain(errors: &config::ConfigErrors) -> ExitCode {
    for line in errors.to_string().lines() {
        eprintln!("ringcast: {line}");
    }
    ExitCode::from(cli::EXIT_CONFIG)
}

fn fail(error: &dyn std::fmt::Display) -> ExitCode {
    eprintln!("ringcast: {error}");
    ExitCode::from(cli::EXIT_FAILURE)
}

fn test_line(loaded: &Loaded) -> String {
    match &loaded.file {
        Some(file) => format!("ringcast: configuration {} is ok\n", file.display()),
        None => "ringcast: configuration is ok\n".into(),
    }
}

/// Prints to standard output. A reader that went away, such as `head`, is no failure.
fn print(text: &str) -> ExitCode {
    match io::stdout().write_all(text.as_bytes()) {
        Err(why) if why.kind() != io::ErrorKind::BrokenPipe => {
            eprintln!("ringcast: cannot print: {why}");
            ExitCode::from(cli::EXIT_FAILURE)
        }
        _ => ExitCode::from(cli::EXIT_OK),
    }
}

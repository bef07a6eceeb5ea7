//! The `ringcast` program: command line in, exit status out.
#![forbid(unsafe_code)]

use std::io::{self, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use mimalloc::MiMalloc;
use ringcast::cli::{self, Command, ConfigForm, Invocation};
use ringcast::config::{self, Current, Loaded, Sources};
use ringcast::control::recorder::recover;
use ringcast::control::serve::Handle;
use ringcast::control::{self, demo, listen::Listeners};
use ringcast::daemon::{self, Detached};
use ringcast::fault::Fault;
use ringcast::pidfile::PidFileError;
use ringcast::{doctor, errors, limits, log, pidfile, privileges, systemd, top, version};

/// Sessions come and go by the thousand on every shard; their small allocations are where a
/// general allocator fragments. Built without transparent huge pages: after churn they kept twice
/// the memory resident, and how much was a matter of luck.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

fn main() -> ExitCode {
    match cli::parse() {
        Invocation::With(command, sources) => with_configuration(command, sources),
        Invocation::Top(options) => match top::run(&options) {
            Ok(()) => ExitCode::from(cli::EXIT_OK),
            Err(error) => {
                eprintln!("ringcast: {error}");
                ExitCode::from(cli::EXIT_FAILURE)
            }
        },
        Invocation::Import(file) => match config::import(&file) {
            Ok(text) => print(&text),
            Err(errors) => complain(&errors),
        },
        Invocation::Explain(None) => print(&errors::list()),
        Invocation::Explain(Some(name)) => match &errors::find(&name)[..] {
            [] => {
                eprintln!("ringcast: there is no error {name}; `ringcast explain` lists them all");
                ExitCode::from(cli::EXIT_USAGE)
            }
            found => print(&found.iter().map(errors::explain).collect::<String>()),
        },
        Invocation::Recover(files) => recover_all(&files),
        Invocation::Signature => print(&format!("ringcast/{}\n", version::VERSION)),
    }
}

fn recover_all(files: &[PathBuf]) -> ExitCode {
    let mut code = cli::EXIT_OK;
    for file in files {
        match recover::recover(file) {
            Ok(done) => {
                let name = done.path.display();
                match &done.from {
                    Some(from) => {
                        println!("{name}: made from {}, {} bytes", from.display(), done.len);
                    }
                    None => {
                        println!(
                            "{name}: whole, {} bytes; {} bytes were cut off",
                            done.len, done.cut
                        );
                    }
                }
                if !done.holds.is_empty() {
                    println!("{name}: {}", done.holds);
                }
            }
            Err(why) => {
                eprintln!("ringcast: {}: {why}", file.display());
                code = cli::EXIT_FAILURE;
            }
        }
    }
    ExitCode::from(code)
}

fn with_configuration(command: Command, sources: Sources) -> ExitCode {
    let loaded = match config::load(&sources) {
        Ok(loaded) => loaded,
        Err(errors) => return complain(&errors),
    };
    for warning in &loaded.warnings {
        eprintln!("ringcast: warning: {warning}");
    }
    match command {
        Command::Serve => serve(loaded, sources, false),
        Command::Demo => serve(loaded, sources, true),
        Command::Test => print(&test_line(&loaded)),
        Command::Config(form) => print(&match form {
            ConfigForm::Toml => config::to_toml(&loaded.config),
            ConfigForm::Json => config::to_json(&loaded.config),
            ConfigForm::Reference => config::reference(),
        }),
        Command::Doctor { json, address } => {
            let findings = doctor::examine(&loaded.config, address.as_deref());
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
    let https = loaded.config.serves_https();
    let (_, note) = config::fit_connections(loaded.config.max_connections, open_files, https);
    let current = Arc::new(Current::new(loaded, sources, open_files));
    let config = current.load();
    let mut report = None;
    if config.daemon {
        match daemon::detach(Duration::from_secs(limits::DAEMON_START_SECONDS)) {
            Ok(Detached::Foreground(status)) => return status,
            Ok(Detached::Background(duty)) => report = Some(duty),
            Err(error) => return fail(Fault::DaemonFailed, &error),
        }
    }
    if let Err(why) = std::env::set_current_dir(&config.work_dir) {
        let text = format!("cannot change to work_dir {}: {why}", config.work_dir.display());
        return fail(Fault::WorkDirUnusable, &text);
    }
    // Held until the end: its lock keeps a second server out.
    let _pid_file = match config.pid.as_os_str().is_empty() {
        true => None,
        false => match pidfile::acquire(&config.pid) {
            Ok(file) => Some(file),
            Err(error @ PidFileError::Held { .. }) => return fail(Fault::PidHeld, &error),
            Err(error @ PidFileError::Unusable { .. }) => return fail(Fault::PidUnusable, &error),
        },
    };
    // Everything up to here, and the ports, takes the rights that the process was started with.
    let listeners = match Listeners::bind(&config) {
        Ok(listeners) => listeners,
        Err(error) => return fail(error.fault(), &error),
    };
    if let Err(error) = privileges::drop_to(&config.user, &config.group) {
        return fail(Fault::PrivilegesKept, &error);
    }
    let log = match log::start(&config.log) {
        Ok(log) => log,
        Err(why) => return fail(Fault::LogUnusable, &why),
    };
    if let Some(note) = note {
        tracing::warn!(reason = Fault::ConfigDoubtful.name(), "{note}");
    }
    let on_ready = {
        let config = config.clone();
        move |_: &Handle| {
            if let Some(report) = report
                && let Err(why) = report.serving()
            {
                let reason = Fault::DaemonFailed.name();
                tracing::warn!(reason, "cannot leave the terminal: {why}");
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
        Err(error) => fail(error.fault(), &error),
    }
}

fn complain(errors: &config::ConfigErrors) -> ExitCode {
    for line in errors.to_string().lines() {
        eprintln!("ringcast: {line}");
    }
    name(Fault::ConfigInvalid)
}

fn fail(fault: Fault, error: &dyn std::fmt::Display) -> ExitCode {
    eprintln!("ringcast: {error}");
    name(fault)
}

/// Says where there is more to read, and gives the status to end with.
fn name(fault: Fault) -> ExitCode {
    let name = fault.name();
    eprintln!("ringcast: {name}: `ringcast explain {name}` says more");
    ExitCode::from(cli::exit_status(fault))
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

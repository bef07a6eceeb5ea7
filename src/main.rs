//! The `ringcast` program: command line in, exit status out.
#![forbid(unsafe_code)]

use std::io::{self, Write as _};
use std::process::ExitCode;

use ringcast::cli::{self, Command, ConfigForm};
use ringcast::config::{self, Loaded};
use ringcast::doctor;

fn main() -> ExitCode {
    let invocation = cli::parse();
    let loaded = match config::load(&invocation.sources) {
        Ok(loaded) => loaded,
        Err(errors) => {
            for line in errors.to_string().lines() {
                eprintln!("ringcast: {line}");
            }
            return ExitCode::from(cli::EXIT_FAILURE);
        }
    };
    for warning in &loaded.warnings {
        eprintln!("ringcast: warning: {warning}");
    }
    match invocation.command {
        Command::Serve | Command::Demo => {
            eprintln!("ringcast: this build cannot serve yet; it has -t, doctor and config");
            ExitCode::from(cli::EXIT_FAILURE)
        }
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

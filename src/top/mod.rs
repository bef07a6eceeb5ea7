//! `ringcast top`: what the server does, in a terminal. It asks the HTTP API as the console does,
//! so it works from another machine, and with whatever rights the API asks for.
//!
//! One thread asks (`ask`), the other draws and reads keys (`screen`); without a terminal, or when
//! asked to, it prints once and ends (`report`).

mod ask;
mod model;
mod report;
mod screen;
mod text;

use std::io::{self, IsTerminal as _};
use std::time::Duration;

/// What the command line says.
#[derive(Clone, Debug, PartialEq, Eq, clap::Args)]
pub struct TopOptions {
    /// Where the API is
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:1985")]
    pub url: String,

    /// Name, where the API asks for one
    #[arg(long, value_name = "NAME", env = "RINGCAST_API_USER")]
    pub user: Option<String>,

    /// Password; better given in RINGCAST_API_PASSWORD, which no process list shows
    #[arg(long, value_name = "PASSWORD", env = "RINGCAST_API_PASSWORD", hide_env_values = true)]
    pub password: Option<String>,

    /// Token, where the API asks for one; better given in RINGCAST_API_TOKEN
    #[arg(
        long,
        value_name = "TOKEN",
        env = "RINGCAST_API_TOKEN",
        hide_env_values = true,
        conflicts_with = "user"
    )]
    pub token: Option<String>,

    /// Do not check the certificate of an https URL
    #[arg(long)]
    pub insecure: bool,

    /// Seconds between two looks
    #[arg(long, value_name = "SECONDS", default_value_t = 2,
        value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub interval: u64,

    /// Print once and end, which is also what happens where there is no terminal
    #[arg(long)]
    pub once: bool,

    /// Print once, as JSON, and end
    #[arg(long)]
    pub json: bool,
}

impl TopOptions {
    fn interval(&self) -> Duration {
        Duration::from_secs(self.interval)
    }
}

/// Why there is nothing to show.
#[derive(Debug, thiserror::Error)]
pub enum TopError {
    /// The URL cannot be used.
    #[error("--url {0}: {1}")]
    Url(String, String),
    /// Nobody answers.
    #[error("no server answers at {url}: {why}; is it running, and http_api.enabled?")]
    NotThere {
        /// Where it was looked for.
        url: String,
        /// What went wrong.
        why: String,
    },
    /// The API wants to know who asks.
    #[error("the API at {0} asks who you are; give --user and --password, or --token")]
    Unauthorized(String),
    /// Something answers that is no API.
    #[error("what answers at {url} is not the API: {why}")]
    NotTheApi {
        /// Where.
        url: String,
        /// What it said.
        why: String,
    },
    /// The API refused something.
    #[error("{0}")]
    Refused(String),
    /// The terminal cannot be used.
    #[error("the terminal: {0}")]
    Terminal(#[from] io::Error),
}

/// Shows the server until a person has seen enough.
///
/// # Errors
/// It could not be shown at all; later failures are part of what is shown.
pub fn run(options: &TopOptions) -> Result<(), TopError> {
    let terminal = io::stdout().is_terminal() && io::stdin().is_terminal();
    if options.json || options.once || !terminal {
        let snapshot = ask::once(options)?;
        let text = if options.json { report::json(&snapshot) } else { report::text(&snapshot) };
        return print(&text);
    }
    screen::run(options)
}

/// A reader that went away, such as `head`, is no failure.
fn print(text: &str) -> Result<(), TopError> {
    match io::Write::write_all(&mut io::stdout(), text.as_bytes()) {
        Err(why) if why.kind() != io::ErrorKind::BrokenPipe => Err(why.into()),
        _ => Ok(()),
    }
}

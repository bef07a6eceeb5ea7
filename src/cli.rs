//! The command line.

use std::path::PathBuf;

use clap::{ArgAction, Args, CommandFactory, Parser, Subcommand, error::ErrorKind};

use crate::config::{Environment, Sources};
use crate::fault::Fault;
use crate::top::TopOptions;

/// Exit status when everything went well.
pub const EXIT_OK: u8 = 0;
/// Exit status of a failure that SRS has no number for.
pub const EXIT_FAILURE: u8 = 1;
/// Exit status when the command line cannot be understood; what the parser itself uses.
pub const EXIT_USAGE: u8 = 2;

/// Exit status of a fault: as in SRS, the last 8 bits of its number.
pub fn exit_status(fault: Fault) -> u8 {
    fault.srs().map_or(EXIT_FAILURE, |number| (number & 0xff) as u8)
}

const EXAMPLES: &str = "\
Examples:
  ringcast                               serve: RTMP on 1935, HTTP on 8080, API on 1985
  ringcast demo                          the same with a test stream to look at
  ringcast -c conf/live.toml             serve with a configuration file
  ringcast --set listen=1936 --set shards=1
                                         override single settings
  ringcast -t -c live.toml               test a configuration and exit
  SRS_LISTEN=1936 ringcast -e            read SRS_* variables; HTTP is off unless switched on
  ringcast top                           watch a running server in the terminal
  ringcast doctor                        check kernel, limits and ports, with a fix for each
  ringcast -c srs.conf                   serve with a configuration of SRS
  ringcast import srs.conf > live.toml   write it as TOML
  ringcast config > all.toml             print every setting with its meaning
  ringcast explain stream_busy           what an error in the log means, and what to do

Publish: ffmpeg -re -i in.mp4 -c copy -f flv rtmp://localhost/live/one
Play:    ffplay rtmp://localhost/live/one   or   http://localhost:8080/live/one.flv

Signals: TERM, INT stop at once; QUIT lets players finish; HUP reads the configuration anew;
USR1 reopens the log file.
Exit status: 0 done, 1 failed, 2 wrong command line; as in SRS: 255 wrong configuration,
234 a port cannot be had, 11 another server holds the pid file, 49 the parent is gone (asprocess).";

const DOCTOR_EXAMPLES: &str = "\
Examples:
  ringcast doctor                                   this machine, with the default settings
  ringcast doctor -c ringcast.toml                  for a configuration
  ringcast doctor --address live.example.com        is this name reachable, is there NAT
  ringcast doctor --json | jq '.checks[] | select(.status != \"ok\")'

Exit status: 1 when a check fails, else 0.";

const TOP_EXAMPLES: &str = "\
Examples:
  ringcast top                                    the server on this machine
  ringcast top --url https://live.example.com:1990 --user admin
                                                  password from RINGCAST_API_PASSWORD
  ringcast top --once | grep live/                plain text, once
  ringcast top --json | jq '.streams[].url'       what the API answers, as one object

Keys: arrows pick a row, tab shows clients, enter those of a stream, s sorts, r reverses,
k disconnects after a question, ? explains, q quits.
Exit status: 0 done, 1 no server or not allowed, 2 wrong command line.";

/// What the command line asks for.
#[derive(Clone, Debug)]
pub enum Invocation {
    /// Something with the configuration of these sources.
    With(Command, Sources),
    /// Print this configuration in SRS's grammar as TOML.
    Import(PathBuf),
    /// Print name and version as SRS does (`-g`).
    Signature,
    /// Print what an error means; all of them without a name.
    Explain(Option<String>),
    /// Make recordings whole whose writing was cut off.
    Recover(Vec<PathBuf>),
    /// Show what a running server does.
    Top(TopOptions),
}

/// What to do with a configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Serve until a signal.
    Serve,
    /// Serve and publish the built-in test stream.
    Demo,
    /// Test the configuration (`-t`).
    Test,
    /// Check this machine.
    Doctor {
        /// Print JSON.
        json: bool,
        /// The name or address that clients are told to use.
        address: Option<String>,
    },
    /// Print the settings.
    Config(ConfigForm),
}

/// How the settings are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConfigForm {
    /// A commented configuration file with the values in force.
    Toml,
    /// The reference page.
    Reference,
    /// JSON with the values in force.
    Json,
}

/// Reads the command line of this process. Prints and exits on `--help`, `--version` (status 0)
/// and on mistakes (status 2).
pub fn parse() -> Invocation {
    let outcome = parse_from(std::env::args_os(), Environment::of_process());
    outcome.unwrap_or_else(|error| error.exit())
}

fn parse_from<T: Into<std::ffi::OsString> + Clone>(
    args: impl IntoIterator<Item = T>,
    environment: Environment,
) -> Result<Invocation, clap::Error> {
    let line = Line::try_parse_from(args)?;
    if line.test && line.command.is_some() {
        let why = "-t tests the configuration of the server and stands without a command";
        return Err(Line::command().error(ErrorKind::ArgumentConflict, why));
    }
    if line.signature {
        return Ok(Invocation::Signature);
    }
    let mut common = line.common;
    let command = match line.command {
        None if line.test => Command::Test,
        None => Command::Serve,
        Some(Sub::Demo { common: more }) => {
            common.extend(more);
            Command::Demo
        }
        Some(Sub::Doctor { json, address, common: more }) => {
            common.extend(more);
            Command::Doctor { json, address }
        }
        Some(Sub::Import { file }) => return Ok(Invocation::Import(file)),
        Some(Sub::Explain { name }) => return Ok(Invocation::Explain(name)),
        Some(Sub::Recover { files }) => return Ok(Invocation::Recover(files)),
        Some(Sub::Top { options }) => return Ok(Invocation::Top(options)),
        Some(Sub::Config { reference, json, common: more }) => {
            common.extend(more);
            Command::Config(match (reference, json) {
                (true, _) => ConfigForm::Reference,
                (_, true) => ConfigForm::Json,
                _ => ConfigForm::Toml,
            })
        }
    };
    let (file, env, set) = (common.config, common.env, common.set);
    let sources = Sources { file, env, set, environment, directory: None };
    Ok(Invocation::With(command, sources))
}

/// Realtime video server: publish by RTMP, play by RTMP, HTTP-FLV and WebSocket.
///
/// Without a command it serves.
#[derive(Parser)]
#[command(name = "ringcast", version, after_help = EXAMPLES)]
#[command(disable_version_flag = true, disable_help_flag = true)]
struct Line {
    #[command(flatten)]
    common: Common,

    /// Test the configuration and exit
    #[arg(short = 't', long = "test")]
    test: bool,

    /// Print the version
    #[arg(short = 'V', short_alias = 'v', long = "version", action = ArgAction::Version)]
    version: Option<bool>,

    /// Print name and version in SRS's short form
    #[arg(short = 'g', short_alias = 'G', long = "signature")]
    signature: bool,

    /// Print help
    #[arg(short = 'h', short_alias = '?', long = "help", action = ArgAction::Help)]
    help: Option<bool>,

    #[command(subcommand)]
    command: Option<Sub>,
}

#[derive(Args, Default)]
struct Common {
    /// Configuration file: TOML when its name ends in .toml, else SRS's grammar
    #[arg(short = 'c', long = "config", value_name = "FILE")]
    config: Option<PathBuf>,

    /// Set one setting, over file and environment; may be repeated
    #[arg(long = "set", value_name = "KEY=VALUE")]
    set: Vec<String>,

    /// Read settings from SRS_* and RINGCAST_* environment variables
    #[arg(short = 'e', long = "env")]
    env: bool,
}

impl Common {
    /// Adds what was written after the command to what was written before it.
    fn extend(&mut self, after: Common) {
        self.config = after.config.or(self.config.take());
        self.set.extend(after.set);
        self.env |= after.env;
    }
}

#[derive(Subcommand)]
enum Sub {
    /// Serve and publish a built-in test stream
    Demo {
        #[command(flatten)]
        common: Common,
    },
    /// Check machine, network and configuration, and print a fix for each finding
    ///
    /// Kernel, limits, memory, ports, clock, files, addresses, and whether the servers of hooks,
    /// key sets and heartbeat answer. Nothing is changed; others have three seconds to answer.
    #[command(after_help = DOCTOR_EXAMPLES)]
    Doctor {
        /// Print JSON
        #[arg(long)]
        json: bool,
        /// The name or address that clients are told to use: see whether it leads here
        #[arg(long, value_name = "NAME")]
        address: Option<String>,
        #[command(flatten)]
        common: Common,
    },
    /// Print a configuration in SRS's grammar as TOML
    Import {
        /// The file, for example /usr/local/srs/conf/srs.conf
        file: PathBuf,
    },
    /// Make recordings whole whose writing was cut off (FILE.tmp)
    ///
    /// What is no whole frame at the end is cut off; duration and index of FLV and the index of MP4
    /// are made from what is there. FILE.tmp is called FILE then. Not for files that a running
    /// server writes.
    ///
    /// Of an MPEG program stream, as cameras record them (.ps, .mpg, .vob; told by its content),
    /// NAME.mp4 is made beside it: pictures of H.264 or H.265, and AAC, MP3 or G.711. The file
    /// itself stays as it is.
    Recover {
        /// The files
        #[arg(required = true)]
        files: Vec<PathBuf>,
    },
    /// Print what an error means and what to do about it
    Explain {
        /// Its name in the log, or a number of SRS; all of them without
        name: Option<String>,
    },
    /// Show streams, clients, rates and load of a running server, as `top` does
    #[command(after_help = TOP_EXAMPLES)]
    Top {
        #[command(flatten)]
        options: TopOptions,
    },
    /// Print every setting with its meaning and its value
    Config {
        /// Print the reference page (Markdown)
        #[arg(long, conflicts_with = "json")]
        reference: bool,
        /// Print JSON
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        common: Common,
    },
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn invoked(line: &str) -> Result<Invocation, clap::Error> {
        let words = std::iter::once("ringcast").chain(line.split_whitespace());
        parse_from(words, Environment::default())
    }

    fn parsed(line: &str) -> Result<(Command, Sources), clap::Error> {
        invoked(line).map(|invocation| match invocation {
            Invocation::With(command, sources) => (command, sources),
            other => panic!("{line}: {other:?}"),
        })
    }

    #[test]
    fn the_grammar_is_sound() {
        Line::command().debug_assert();
    }

    #[test]
    fn commands_and_options() {
        assert_eq!(parsed("").unwrap().0, Command::Serve);
        assert_eq!(parsed("-t").unwrap().0, Command::Test);
        assert_eq!(parsed("demo").unwrap().0, Command::Demo);
        assert_eq!(
            parsed("doctor --json").unwrap().0,
            Command::Doctor { json: true, address: None }
        );
        let form = |line| parsed(line).unwrap().0;
        assert_eq!(form("config"), Command::Config(ConfigForm::Toml));
        assert_eq!(form("config --json"), Command::Config(ConfigForm::Json));
        assert_eq!(form("config --reference"), Command::Config(ConfigForm::Reference));
        let Invocation::Top(top) = invoked("top --url h:1 --once").unwrap() else {
            panic!("no top");
        };
        assert_eq!((top.url.as_str(), top.once, top.json, top.interval), ("h:1", true, false, 2));
        let import = invoked("import x.conf").unwrap();
        assert!(matches!(import, Invocation::Import(file) if file == Path::new("x.conf")));
        assert!(matches!(invoked("-G").unwrap(), Invocation::Signature));
        let sources = parsed("-c a.toml --set a=1 --set b=2 -e").unwrap().1;
        assert_eq!(sources.file, Some("a.toml".into()));
        assert_eq!(sources.set, ["a=1", "b=2"]);
        assert!(sources.env);
    }

    #[test]
    fn options_stand_before_or_after_the_command() {
        let sources = parsed("--set a=1 -e demo --set b=2 -c x.toml").unwrap().1;
        assert_eq!(sources.set, ["a=1", "b=2"]);
        assert!(sources.env && sources.file == Some("x.toml".into()));
    }

    #[test]
    fn mistakes_have_the_usage_status() {
        for line in [
            "--nothing",
            "-t demo",
            "config --json --reference",
            "-c",
            "serve",
            "import",
            "top --interval 0",
            "top --user a --token b",
        ] {
            let error = parsed(line).unwrap_err();
            assert_eq!(error.exit_code(), i32::from(EXIT_USAGE), "{line}");
        }
        for line in ["--help", "-h", "--version", "-V", "-v"] {
            assert_eq!(parsed(line).unwrap_err().exit_code(), i32::from(EXIT_OK), "{line}");
        }
        assert!(parsed("--help").unwrap_err().to_string().contains("Examples:"));
        let version = parsed("-v").unwrap_err().to_string();
        assert_eq!(version.trim(), concat!("ringcast ", env!("CARGO_PKG_VERSION")));
    }
}

//! The log: `tracing` events as text or JSON lines, written by a thread of their own.
//!
//! A thread that logs formats its line and puts it into a bounded channel, no more: a full disk
//! or a stuck terminal must never hold up a frame. Lines that find the channel full are dropped,
//! counted, and reported by the writer as soon as there is room again.

use std::fs::{File, OpenOptions};
use std::io::{self, IsTerminal as _, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use crossbeam::channel::{Receiver, Sender, TrySendError, bounded, select_biased};
use tracing::{Level, Subscriber};
use tracing_subscriber::filter::{LevelFilter, filter_fn};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::{Registry, fmt, reload};

use crate::config::{Log, LogLevel, LogTank};
use crate::fault::Fault;
use crate::limits::LOG_LINES_WAITING;
use format::{Lines, Said};

mod format;

/// Bytes of lines that are gathered for one system call.
const BATCH_BYTES: usize = 64 << 10;
/// How long [`LogHandle::flush`] waits at most.
const FLUSH_WAIT: Duration = Duration::from_secs(2);

/// The running log. Clones are the same log.
#[derive(Clone, Debug)]
pub struct LogHandle {
    control: Sender<Control>,
    counters: Arc<Counters>,
    level: reload::Handle<LevelFilter, Registry>,
}

#[derive(Debug, Default)]
struct Counters {
    /// Dropped because the channel was full, since the start.
    dropped: AtomicU64,
    /// Lost because they could not be written, since the start.
    unwritten: AtomicU64,
}

enum Control {
    Reopen,
    Flush(Sender<()>),
}

/// Starts the log for the whole process.
///
/// # Errors
/// When the file of `log.file` cannot be opened, or when a log was started before.
pub fn start(config: &Log) -> io::Result<LogHandle> {
    let sink = Sink::open(config)?;
    let (subscriber, handle) = build(config, sink, LOG_LINES_WAITING)?;
    tracing::subscriber::set_global_default(subscriber).map_err(io::Error::other)?;
    Ok(handle)
}

impl LogHandle {
    /// Opens the log file anew, after it was renamed. Returns at once.
    pub fn reopen(&self) {
        // A full control channel already holds a wish to reopen, or the process is ending.
        let _ = self.control.try_send(Control::Reopen);
    }

    /// Changes the level.
    pub fn set_level(&self, level: LogLevel) {
        // Fails only when the subscriber is gone, and the log with it.
        let _ = self.level.reload(filter(level));
    }

    /// Waits, for two seconds at most, until every line logged so far is written. For the end of
    /// the process; never call it on a shard.
    pub fn flush(&self) {
        let (done, wait) = bounded(1);
        if self.control.send_timeout(Control::Flush(done), FLUSH_WAIT).is_ok() {
            let _ = wait.recv_timeout(FLUSH_WAIT);
        }
    }

    /// Lines dropped since the start because the writer could not keep up.
    pub fn dropped(&self) -> u64 {
        self.counters.dropped.load(Ordering::Relaxed)
    }

    /// Lines lost since the start because they could not be written, for example to a full disk.
    pub fn unwritten(&self) -> u64 {
        self.counters.unwritten.load(Ordering::Relaxed)
    }
}

fn build(
    config: &Log,
    sink: Sink,
    waiting: usize,
) -> io::Result<(impl Subscriber + Send + Sync + use<>, LogHandle)> {
    let (lines_in, lines) = bounded(waiting);
    let (control_in, control) = bounded(16);
    let counters = Arc::new(Counters::default());
    // Whoever reads debug lines wants to know which module speaks.
    let target = matches!(config.level, LogLevel::Trace | LogLevel::Debug);
    let form = Lines { json: config.json, colour: sink.colour(), target };
    let writer = Writer { sink, form, counters: counters.clone(), reported: 0 };
    std::thread::Builder::new().name("log".into()).spawn(move || writer.run(&lines, &control))?;

    let (level, level_handle) = reload::Layer::new(filter(config.level));
    let tail = Tail { lines: lines_in, counters: counters.clone() };
    let output = move || tail.clone();
    let lines = fmt::layer().event_format(form).with_writer(output);
    // The store's library tells of every retry; the uploads have lines of their own.
    let ours = filter_fn(|event| !event.target().starts_with("object_store"));
    let subscriber = Registry::default().with(level).with(ours).with(lines);
    Ok((subscriber, LogHandle { control: control_in, counters, level: level_handle }))
}

fn filter(level: LogLevel) -> LevelFilter {
    match level {
        LogLevel::Trace => LevelFilter::TRACE,
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Error => LevelFilter::ERROR,
    }
}

/// The end of the channel that logging threads write into, one whole line per write.
#[derive(Clone)]
struct Tail {
    lines: Sender<Vec<u8>>,
    counters: Arc<Counters>,
}

impl Write for Tail {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        match self.lines.try_send(line.to_vec()) {
            Ok(()) => {}
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => {
                self.counters.dropped.fetch_add(1, Ordering::Relaxed);
            }
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The writer thread.
struct Writer {
    sink: Sink,
    form: Lines,
    counters: Arc<Counters>,
    /// Dropped lines that were reported so far.
    reported: u64,
}

impl Writer {
    fn run(mut self, lines: &Receiver<Vec<u8>>, control: &Receiver<Control>) {
        loop {
            select_biased! {
                recv(control) -> message => match message {
                    Ok(Control::Reopen) => {
                        self.drain(lines);
                        self.reopen();
                    }
                    Ok(Control::Flush(done)) => {
                        self.drain(lines);
                        let _ = done.try_send(());
                    }
                    // Every handle is gone; the lines go on as long as somebody logs.
                    Err(_) => return self.run_lines(lines),
                },
                recv(lines) -> line => match line {
                    Ok(line) => {
                        self.write_with(line, lines);
                    }
                    Err(_) => return,
                },
            }
        }
    }

    fn run_lines(mut self, lines: &Receiver<Vec<u8>>) {
        while let Ok(line) = lines.recv() {
            self.write_with(line, lines);
        }
    }

    /// Writes what waits now; lines that come meanwhile are not waited for.
    fn drain(&mut self, lines: &Receiver<Vec<u8>>) {
        let mut left = lines.len() as u64;
        while left > 0 {
            let Ok(line) = lines.try_recv() else { break };
            left = left.saturating_sub(self.write_with(line, lines));
        }
        self.report_dropped();
    }

    /// Writes a line together with what waits behind it, up to a batch. Returns the lines.
    fn write_with(&mut self, line: Vec<u8>, lines: &Receiver<Vec<u8>>) -> u64 {
        let mut batch = line;
        let mut count = 1;
        for _ in 0..lines.len() {
            if batch.len() >= BATCH_BYTES {
                break;
            }
            let Ok(line) = lines.try_recv() else { break };
            batch.extend_from_slice(&line);
            count += 1;
        }
        self.write(&batch, count);
        self.report_dropped();
        count
    }

    fn write(&mut self, bytes: &[u8], count: u64) {
        if let Err(why) = self.sink.write_all(bytes) {
            let before = self.counters.unwritten.fetch_add(count, Ordering::Relaxed);
            if before == 0 {
                // Once: the terminal, if any, is all that is left to tell.
                let _ = writeln!(io::stderr(), "ringcast: cannot write the log: {why}");
            }
        }
    }

    fn report_dropped(&mut self) {
        let dropped = self.counters.dropped.load(Ordering::Relaxed);
        let new = dropped - self.reported;
        if new == 0 {
            return;
        }
        self.reported = dropped;
        self.note("log lines dropped here: they came faster than they could be written", new);
    }

    /// Writes a warning of the log's own, in the form of all lines.
    fn note(&mut self, message: &str, count: u64) {
        let said = Said::new(message.into(), Fault::LogLinesLost.name(), "count", count);
        let line = self.form.line(SystemTime::now(), Level::WARN, None, &said);
        self.write(line.as_bytes(), 1);
    }

    fn reopen(&mut self) {
        if let Err(why) = self.sink.reopen() {
            self.note(&format!("the old log file goes on: {why}"), 1);
        }
    }
}

/// Where the lines end up.
enum Sink {
    Console,
    File {
        path: PathBuf,
        file: File,
    },
    #[cfg(test)]
    Test(Box<dyn Write + Send>),
}

impl Sink {
    fn open(config: &Log) -> io::Result<Self> {
        match config.tank {
            LogTank::Console => Ok(Sink::Console),
            LogTank::File => {
                // Absolute, so that rotation finds it when the working directory has changed.
                let path = std::path::absolute(&config.file)?;
                if let (true, Some(folder)) = (config.file.is_relative(), path.parent()) {
                    // Such as SRS's `./objs`; whether it is there shows in the next line.
                    let _ = std::fs::create_dir_all(folder);
                }
                let file = append_to(&path)?;
                Ok(Sink::File { path, file })
            }
        }
    }

    fn colour(&self) -> bool {
        let wanted = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        matches!(self, Sink::Console) && wanted && io::stderr().is_terminal()
    }

    fn reopen(&mut self) -> io::Result<()> {
        if let Sink::File { path, file } = self {
            *file = append_to(path)?;
        }
        Ok(())
    }

    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Sink::Console => io::stderr().write_all(bytes),
            Sink::File { file, .. } => file.write_all(bytes),
            #[cfg(test)]
            Sink::Test(output) => output.write_all(bytes),
        }
    }
}

fn append_to(path: &Path) -> io::Result<File> {
    let open = OpenOptions::new().append(true).create(true).open(path);
    open.map_err(|why| {
        let text = format!("cannot open the log file {}: {why}; change log.file", path.display());
        io::Error::new(why.kind(), text)
    })
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::sync::{Condvar, Mutex};

    use super::*;

    fn file_config(name: &str) -> Log {
        let name = format!("ringcast-log-{}-{name}", std::process::id());
        Log { tank: LogTank::File, file: std::env::temp_dir().join(name), ..Log::default() }
    }

    #[test]
    fn text_lines_arrive_with_fields_and_session() {
        let config = file_config("text");
        let (subscriber, handle) =
            build(&config, Sink::open(&config).unwrap(), LOG_LINES_WAITING).unwrap();
        tracing::subscriber::with_default(subscriber, || {
            tracing::info!(id = %"a1", stream = "live/one", "publish");
            tracing::debug!("not at this level");
        });
        handle.flush();
        let text = fs::read_to_string(&config.file).unwrap();
        assert!(text.ends_with("][a1] publish stream=live/one\n"), "{text}");
        assert!(text.contains(&format!("[INFO][{}][a1]", std::process::id())), "{text}");
        assert_eq!(text.lines().count(), 1);
        fs::remove_file(config.file).unwrap();
    }

    #[test]
    fn json_lines_are_json() {
        let config = Log { json: true, ..file_config("json") };
        let (subscriber, handle) =
            build(&config, Sink::open(&config).unwrap(), LOG_LINES_WAITING).unwrap();
        tracing::subscriber::with_default(subscriber, || {
            tracing::warn!(id = "a1", bytes = 7, reason = "bug", "a \"quoted\"\nword");
        });
        handle.flush();
        let text = fs::read_to_string(&config.file).unwrap();
        let line: serde_json::Value = serde_json::from_str(text.trim_end()).unwrap();
        assert_eq!(line["message"], "a \"quoted\"\nword");
        assert_eq!((&line["bytes"], &line["level"]), (&7.into(), &"WARN".into()));
        assert_eq!((&line["id"], &line["reason"]), (&"a1".into(), &"bug".into()));
        fs::remove_file(config.file).unwrap();
    }

    #[test]
    fn the_level_changes_while_running() {
        let config = file_config("level");
        let (subscriber, handle) =
            build(&config, Sink::open(&config).unwrap(), LOG_LINES_WAITING).unwrap();
        tracing::subscriber::with_default(subscriber, || {
            for level in [LogLevel::Error, LogLevel::Debug] {
                handle.set_level(level);
                tracing::debug!("at {level}");
            }
        });
        handle.flush();
        let text = fs::read_to_string(&config.file).unwrap();
        assert!(text.contains("at debug") && !text.contains("at error"), "{text}");
        fs::remove_file(config.file).unwrap();
    }

    #[test]
    fn rotation_loses_no_line() {
        let config = file_config("rotate");
        let old = config.file.with_extension("1");
        let (subscriber, handle) =
            build(&config, Sink::open(&config).unwrap(), LOG_LINES_WAITING).unwrap();
        tracing::subscriber::with_default(subscriber, || {
            tracing::info!("before");
            handle.flush();
            fs::rename(&config.file, &old).unwrap();
            tracing::info!("between");
            handle.reopen();
            handle.flush();
            tracing::info!("after");
        });
        handle.flush();
        let (first, second) =
            (fs::read_to_string(&old).unwrap(), fs::read_to_string(&config.file).unwrap());
        assert!(first.contains("before") && first.contains("between"), "{first}");
        assert!(second.contains("after") && second.lines().count() == 1, "{second}");
        fs::remove_file(old).unwrap();
        fs::remove_file(config.file).unwrap();
    }

    #[derive(Clone, Default)]
    struct Stuck(Arc<Gate>);

    /// Whether writing goes on, and what was written.
    #[derive(Default)]
    struct Gate {
        state: Mutex<(bool, Vec<u8>)>,
        opened: Condvar,
    }

    impl Write for Stuck {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let mut state = self.0.state.lock().unwrap();
            while !state.0 {
                state = self.0.opened.wait(state).unwrap();
            }
            state.1.extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_stuck_output_blocks_nobody_and_the_loss_is_told() {
        let output = Stuck::default();
        let sink = Sink::Test(Box::new(output.clone()));
        let (subscriber, handle) = build(&Log::default(), sink, 8).unwrap();
        let begun = std::time::Instant::now();
        tracing::subscriber::with_default(subscriber, || {
            for n in 0..1000 {
                tracing::info!(n, "line");
            }
        });
        assert!(begun.elapsed() < Duration::from_secs(5));
        let dropped = handle.dropped();
        // One batch may be with the writer and eight lines in the channel.
        assert!((1000 - 8 - 9..=1000 - 8).contains(&dropped), "{dropped}");
        output.0.state.lock().unwrap().0 = true;
        output.0.opened.notify_all();
        handle.flush();
        let text = String::from_utf8(output.0.state.lock().unwrap().1.clone()).unwrap();
        let kept = text.lines().filter(|line| line.contains("line n=")).count() as u64;
        assert_eq!(kept + dropped, 1000);
        let told = text.lines().filter(|line| line.contains("log lines dropped here"));
        let counts = told.map(|line| line.rsplit_once("count=").unwrap().1.parse::<u64>().unwrap());
        assert_eq!(counts.sum::<u64>(), dropped, "{text}");
    }

    #[test]
    fn a_full_disk_is_counted() {
        let config = Log { file: "/dev/full".into(), ..file_config("full") };
        let (subscriber, handle) = build(&config, Sink::open(&config).unwrap(), 8).unwrap();
        tracing::subscriber::with_default(subscriber, || tracing::info!("lost"));
        handle.flush();
        assert_eq!(handle.unwritten(), 1);
    }

    #[test]
    fn an_unusable_file_is_explained() {
        let config = Log { file: "/nonexistent/x.log".into(), ..file_config("bad") };
        let why = Sink::open(&config).err().unwrap().to_string();
        assert!(why.starts_with("cannot open the log file /nonexistent/x.log: "), "{why}");
    }
}

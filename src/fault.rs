//! What can go wrong with the program as a whole, by the names that the log and the command line
//! use. What goes wrong with single clients is `hub::Reason`; `errors` is the index of both.

macro_rules! faults {
    ($($(#[doc = $doc:literal])+ $name:ident = $text:literal, $srs:expr, $remedy:literal;)*) => {
        /// What went wrong with the program.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Fault { $($(#[doc = $doc])+ $name,)* }

        impl Fault {
            /// Every fault, in the order of the table.
            pub const ALL: &'static [Fault] = &[$(Fault::$name,)*];

            /// Name in the log and for `ringcast explain`.
            pub fn name(self) -> &'static str {
                match self { $(Fault::$name => $text,)* }
            }

            /// The number that SRS has for it, where it has one.
            pub fn srs(self) -> Option<u16> {
                match self { $(Fault::$name => $srs,)* }
            }

            /// What it means.
            pub fn meaning(self) -> &'static str {
                match self { $(Fault::$name => concat!($($doc),+),)* }
            }

            /// What to do about it.
            pub fn remedy(self) -> &'static str {
                match self { $(Fault::$name => $remedy,)* }
            }
        }
    };
}

faults! {
    /// The configuration has mistakes: nothing was started, or on reload nothing was changed.
    ConfigInvalid = "config_invalid", Some(1023),
        "Mend the lines that are named; `ringcast -t -c FILE` checks without starting.";
    /// The configuration works, but something in it is without effect or unwise.
    ConfigDoubtful = "config_doubtful", None,
        "Do what the line says, or leave it: the server runs.";
    /// A setting was changed that a running server does not take.
    ConfigNeedsRestart = "config_needs_restart", None,
        "Restart when it suits; until then the old value is in force.";
    /// Another server holds the pid file.
    PidHeld = "pid_held", Some(1035),
        "Stop the other server, whose process id is named, or give this one a `pid` of its own.";
    /// The pid file cannot be written.
    PidUnusable = "pid_unusable", Some(1034),
        "Make the folder of `pid` writable for the user who starts the server, or change `pid`.";
    /// The process that started the server is gone, and `asprocess` is on.
    ParentGone = "parent_gone", Some(1073),
        "Nothing, when that was the intention; otherwise turn `asprocess` off.";
    /// The kernel does not let the program use io_uring.
    IoUringUnavailable = "io_uring_unavailable", None,
        "`ringcast doctor` names the cause: kernel, sysctl or the container's seccomp profile.";
    /// An address cannot be listened on.
    ListenFailed = "listen_failed", Some(1002),
        "Stop the program that has the port (`ss -ltnp`), or change the setting that is named.";
    /// A service manager handed over a socket that no setting asks for.
    SocketUnexpected = "socket_unexpected", None,
        "Let the socket unit and the `listen` settings name the same addresses.";
    /// Media memory cannot be reserved.
    MemoryUnavailable = "memory_unavailable", None,
        "Lower `media_memory`; `ringcast doctor` says what fits.";
    /// The certificate or the key of HTTPS cannot be used.
    TlsUnusable = "tls_unusable", None,
        "Name PEM files that belong together; `ringcast doctor` says what is wrong with them.";
    /// The process cannot become `user` and `group`.
    PrivilegesKept = "privileges_kept", None,
        "Start it as root, name a user and a group that exist, or leave both settings empty.";
    /// The log file cannot be opened.
    LogUnusable = "log_unusable", None,
        "Make the folder of `log.file` writable for the server's user, or change `log.file`.";
    /// Log lines were lost because they came faster than they could be written.
    LogLinesLost = "log_lines_lost", None,
        "Raise `log.level`, or put the log on a faster disk. The stream is not touched by it.";
    /// The server cannot change into `work_dir`.
    WorkDirUnusable = "work_dir_unusable", None,
        "Create the folder or change `work_dir`.";
    /// The server cannot go to the background.
    DaemonFailed = "daemon_failed", None,
        "Start it in the foreground (`daemon = false`) to see why.";
    /// The kernel refuses something that the server does without.
    KernelRefused = "kernel_refused", None,
        "Do what the line says for more speed, or switch the setting off that asks for it.";
    /// A hook, a heartbeat or a key set could not be had from its server.
    CallFailed = "call_failed", None,
        "Check the URL from this machine; `ringcast doctor` tries every one.";
    /// Hooks about ends were not delivered when the server stopped.
    HooksUndelivered = "hooks_undelivered", None,
        "Tell the hook's server by hand who is gone, and see why it did not answer.";
    /// Recordings were not closed when the server stopped.
    RecordingsUnfinished = "recordings_unfinished", None,
        "See what the disk does; `ringcast recover` makes the files that end in .tmp whole.";
    /// The server has so much to do that it leaves out what can wait, or lets nobody in.
    LoadHigh = "load_high", None,
        "Add cores (`shards`) or a server; `circuit_breaker` says from which load on.";
    /// So many programs (`vhost.exec`) run that no more are started.
    ProgramsAtLimit = "programs_at_limit", None,
        "Start fewer programs (`vhost.exec.publish`) or publish fewer streams.";
    /// A stream has a codec that a container which somebody asked for has no place for.
    ContainerUnfit = "container_unfit", None,
        "Publish with another codec, or play the stream as FLV or fragmented MP4.";
    /// A part of the server that is no shard failed to start or ended.
    PartFailed = "part_failed", None,
        "The line says which and why; restart the server if it does not come back by itself.";
    /// A shard failed: the server ends.
    ShardFailed = "shard_failed", None,
        "Let the service manager restart it, and please report the log around that time.";
    /// The system refused something that the server cannot do without.
    SystemFailed = "system_failed", None,
        "The line holds what the system said; `ringcast doctor` checks the usual causes.";
}

//! Where commands print: standard output and standard error, with the bars of a terminal below.

use std::io::{self, Write};

use dkms_engine::machine::Machine;

use crate::output::bars::{Above, Screen};
use crate::output::loudness::Loudness;
use crate::output::progress::Progress;

/// The output of this process.
#[derive(Debug)]
pub struct Console {
    loudness: Loudness,
    screen: Option<Screen>,
}

impl Console {
    /// Sets up the output of this process, and the log, which is part of standard error.
    #[must_use]
    pub fn of_this_process(loudness: Loudness, debug: bool) -> Self {
        let screen = Screen::of_this_process(loudness);
        let level = match (loudness, debug) {
            (Loudness::Quiet, _) => log::LevelFilter::Off,
            (_, true) => log::LevelFilter::Debug,
            (_, false) => log::LevelFilter::Warn,
        };
        let log = Above::new(io::stderr(), screen.clone());
        let _ = env_logger::Builder::new()
            .filter_level(level)
            .parse_default_env()
            .target(env_logger::Target::Pipe(Box::new(log)))
            .format(|line, record| {
                writeln!(line, "dkms: {}: {}", severity(record.level()), record.args())
            })
            .try_init();
        Self { loudness, screen }
    }

    /// Prints as with `--verbose` from now on, except with `-q`.
    pub fn be_verbose(&mut self) {
        if self.loudness == Loudness::Plain {
            *self = Self { loudness: Loudness::Verbose, screen: None };
        }
    }

    /// Whether nothing is printed (`-q`).
    #[must_use]
    pub fn is_quiet(&self) -> bool {
        self.loudness == Loudness::Quiet
    }

    /// Returns what a command reports its work to.
    #[must_use]
    pub fn progress<'a>(&self, machine: &'a Machine) -> Progress<'a> {
        let out = Above::new(io::stdout(), self.screen.clone());
        let errors = Above::new(io::stderr(), self.screen.clone());
        Progress::new(out, errors, self.loudness, &machine.trees, &machine.arch)
            .with_bars(self.screen.clone())
    }

    /// Writes text to standard output. A reader that stopped reading is no error.
    pub fn print(&self, text: &str) {
        if self.loudness != Loudness::Quiet {
            let _ = io::stdout().write_all(text.as_bytes());
        }
    }

    /// Writes an error to standard error.
    pub fn error(&self, text: &str) {
        self.complain("error", text);
    }

    /// Writes a warning to standard error.
    pub fn warn(&self, text: &str) {
        self.complain("warning", text);
    }

    fn complain(&self, severity: &str, text: &str) {
        if self.loudness != Loudness::Quiet {
            let _ = writeln!(io::stderr(), "dkms: {severity}: {text}");
        }
    }
}

/// The word for a level of the log.
fn severity(level: log::Level) -> &'static str {
    match level {
        log::Level::Error => "error",
        log::Level::Warn => "warning",
        log::Level::Info => "info",
        log::Level::Debug | log::Level::Trace => "debug",
    }
}

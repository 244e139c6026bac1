//! Writes to standard output and standard error, with progress bars below the text on a terminal.

use std::io::{self, IsTerminal, Write};

use dkms_engine::machine::Machine;

use crate::output::bars::{AboveBars, Screen};
use crate::output::progress::Progress;
use crate::output::verbosity::Verbosity;

/// The standard output and standard error of this process.
#[derive(Debug)]
pub struct Console {
    verbosity: Verbosity,
    screen: Option<Screen>,
}

impl Console {
    /// Creates the console of this process, and sends the log to standard error. With `debug`, the
    /// log includes debug messages.
    #[must_use]
    pub fn of_this_process(verbosity: Verbosity, debug: bool) -> Self {
        let screen = Screen::of_this_process(verbosity);
        let level = match (verbosity, debug) {
            (Verbosity::Quiet, _) => log::LevelFilter::Off,
            (_, true) => log::LevelFilter::Debug,
            (_, false) => log::LevelFilter::Warn,
        };
        let log = AboveBars::new(io::stderr(), screen.clone());
        let _ = env_logger::Builder::new()
            .filter_level(level)
            .parse_default_env()
            .target(env_logger::Target::Pipe(Box::new(log)))
            .format(|line, record| {
                writeln!(line, "dkms: {}: {}", severity(record.level()), record.args())
            })
            .try_init();
        Self { verbosity, screen }
    }

    /// Raises the verbosity to that of `--verbose`, unless `-q` was given.
    pub fn be_verbose(&mut self) {
        if self.verbosity == Verbosity::Normal {
            *self = Self { verbosity: Verbosity::Verbose, screen: None };
        }
    }

    /// Returns true if nothing is to be printed (`-q`).
    #[must_use]
    pub fn is_quiet(&self) -> bool {
        self.verbosity == Verbosity::Quiet
    }

    /// Returns true if standard output is a terminal.
    #[must_use]
    pub fn is_terminal(&self) -> bool {
        io::stdout().is_terminal()
    }

    /// Returns true if standard output is a terminal with colours, and the environment does not
    /// forbid them (`NO_COLOR`, `CLICOLOR=0`, `TERM=dumb`).
    #[must_use]
    pub fn has_colours(&self) -> bool {
        console::colors_enabled()
    }

    /// Returns a printer for the progress of a command on `machine`.
    #[must_use]
    pub fn progress<'a>(&self, machine: &'a Machine) -> Progress<'a> {
        let out = AboveBars::new(io::stdout(), self.screen.clone());
        let errors = AboveBars::new(io::stderr(), self.screen.clone());
        Progress::new(out, errors, self.verbosity, &machine.trees, &machine.arch)
            .with_bars(self.screen.clone())
    }

    /// Writes text to standard output, except with `-q`. Ignores errors, such as a closed pipe.
    pub fn print(&self, text: &str) {
        if self.verbosity != Verbosity::Quiet {
            let _ = io::stdout().write_all(text.as_bytes());
        }
    }

    /// Writes an error to standard error, except with `-q`.
    pub fn error(&self, text: &str) {
        self.complain("error", text);
    }

    /// Writes a warning to standard error, except with `-q`.
    pub fn warn(&self, text: &str) {
        self.complain("warning", text);
    }

    fn complain(&self, severity: &str, text: &str) {
        if self.verbosity != Verbosity::Quiet {
            let _ = writeln!(io::stderr(), "dkms: {severity}: {text}");
        }
    }
}

/// Returns the word for a log level in messages.
fn severity(level: log::Level) -> &'static str {
    match level {
        log::Level::Error => "error",
        log::Level::Warn => "warning",
        log::Level::Info => "info",
        log::Level::Debug | log::Level::Trace => "debug",
    }
}

//! What can be wrong with a conf, said so that its reader can do something about it.

use std::path::PathBuf;
use std::time::Duration;

use crate::failure::Failure;

/// A conf (or another file that bash reads for us) that cannot be used. It concerns one module; the
/// next file is read as if nothing had happened.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfError {
    /// It is not there, not a file, or may not be read.
    #[error("{} cannot be read: {reason}", file.display())]
    Unreadable {
        /// The file.
        file: PathBuf,
        /// What the system says.
        reason: String,
    },
    /// It ended the shell that read it: by `exit`, `exec`, a failure under `set -e`.
    #[error("{} was not read to its end: it leaves the shell that reads it{}",
        file.display(), said(complaint))]
    NoAnswer {
        /// The file.
        file: PathBuf,
        /// What was written to standard error meanwhile; may be empty.
        complaint: String,
    },
    /// It took longer than it may.
    #[error("{} was not read to its end within {} s: it waits for something or never ends",
        file.display(), after.as_secs_f32())]
    TimedOut {
        /// The file.
        file: PathBuf,
        /// How long it was waited for.
        after: Duration,
    },
    /// Its values are longer than any sensible ones.
    #[error("{} sets values of several megabytes", file.display())]
    TooMuch {
        /// The file.
        file: PathBuf,
    },
    /// A value is not UTF-8, and could neither be written to a record nor shown.
    #[error("{}: the value of {directive} is not UTF-8", file.display())]
    NotUtf8 {
        /// The file.
        file: PathBuf,
        /// The directive, with its index.
        directive: String,
    },
    /// It could be read, but says what cannot be done.
    #[error("{} cannot be used:{}", file.display(), list(problems))]
    Invalid {
        /// The file.
        file: PathBuf,
        /// All that is wrong, each a sentence naming the directive.
        problems: Vec<String>,
    },
    /// There is no bash to read it.
    #[error("{} cannot be read: {reason}", file.display())]
    NoReader {
        /// The file.
        file: PathBuf,
        /// Why not.
        reason: String,
    },
}

impl ConfError {
    /// The exit status that dkms has for this (dkms-behaviour 9).
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::NoReader { .. } => 1,
            Self::Unreadable { .. } => 4,
            // A conf that does not answer has no PACKAGE_NAME for dkms, which makes it invalid.
            Self::NoAnswer { .. }
            | Self::TimedOut { .. }
            | Self::TooMuch { .. }
            | Self::NotUtf8 { .. }
            | Self::Invalid { .. } => 8,
        }
    }
}

impl ConfError {
    /// What to do about it, in one line.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Unreadable { .. } => Some("reinstall the package it belongs to".into()),
            Self::NoAnswer { file, .. } | Self::TimedOut { file, .. } | Self::TooMuch { file } => {
                Some(format!("run: bash -x {}", file.display()))
            }
            Self::NotUtf8 { .. } => Some("write it in UTF-8".into()),
            Self::Invalid { .. } => {
                Some("see: dkms.conf(5); an override in /etc/dkms can mend it".into())
            }
            Self::NoReader { .. } => None,
        }
    }
}

impl From<&ConfError> for Failure {
    fn from(error: &ConfError) -> Self {
        Self { hint: error.hint(), ..Self::new(error.exit_code(), error.to_string()) }
    }
}

fn said(complaint: &str) -> String {
    let complaint: Vec<_> = complaint.lines().take(5).collect();
    if complaint.is_empty() {
        String::new()
    } else {
        format!("; it says: {}", complaint.join("\n  "))
    }
}

fn list(problems: &[String]) -> String {
    problems.iter().map(|problem| format!("\n  {problem}")).collect()
}

//! The failure type of the engine and of every program.

use std::fmt;
use std::io::ErrorKind;
use std::path::PathBuf;

use crate::os::bash::BashError;
use crate::os::durable::FileError;

/// Something that failed: a command as a whole, or one module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// What failed, where and why; may have several lines.
    pub message: String,
    /// The first error of the compiler or another program, in one line.
    pub cause: Option<String>,
    /// The file with the whole output.
    pub log: Option<PathBuf>,
    /// What to do about it, in one line.
    pub hint: Option<String>,
    /// dkms's exit code for it (dkms-behaviour section 9).
    pub code: u8,
    /// The machine failed (a full disk, a killed build), not the module: the work stays pending,
    /// and the next run tries again.
    pub transient: bool,
    /// The build was killed by the OOM killer, or could not allocate memory; retry it alone.
    pub out_of_memory: bool,
}

impl Failure {
    /// A failure of the module or of the command itself, without a log.
    #[must_use]
    pub fn new(code: u8, message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            cause: None,
            log: None,
            hint: None,
            code,
            transient: false,
            out_of_memory: false,
        }
    }

    /// A failure of the machine, which the next run may not meet.
    #[must_use]
    pub(crate) fn transient(code: u8, message: impl Into<String>) -> Self {
        Self { transient: true, ..Self::new(code, message) }
    }

    /// The same with a line that says what to do.
    #[must_use]
    pub fn with_hint(self, hint: impl Into<String>) -> Self {
        Self { hint: Some(hint.into()), ..self }
    }
}

impl fmt::Display for Failure {
    /// Writes the message, then the hint on a line of its own.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        self.hint.iter().try_for_each(|hint| write!(f, "\n  {hint}"))
    }
}

impl std::error::Error for Failure {}

impl From<FileError> for Failure {
    /// A file that cannot be read or written is the machine's failure, unless the file is of a kind
    /// that has no place in a source or a build.
    fn from(error: FileError) -> Self {
        let kind = error.source.kind();
        let transient = !matches!(kind, ErrorKind::InvalidInput | ErrorKind::InvalidData);
        let hint = error.is_disk_full().then(|| MAKE_ROOM.to_owned());
        Self { transient, hint, ..Self::new(1, error.to_string()) }
    }
}

impl From<&BashError> for Failure {
    /// dkms's exit codes for a conf (dkms-behaviour 9): one that is not read to its end has no
    /// PACKAGE_NAME, which makes it invalid.
    fn from(error: &BashError) -> Self {
        let (code, hint) = match error {
            BashError::NoReader { .. } => (1, None),
            BashError::Unreadable { .. } => (4, Some("reinstall the package it belongs to".into())),
            BashError::Unfinished { file, .. }
            | BashError::TimedOut { file, .. }
            | BashError::TooMuch { file } => (8, Some(format!("run: bash -x {}", file.display()))),
            BashError::NotUtf8 { .. } => (8, Some("write it in UTF-8".into())),
            BashError::Invalid { .. } => {
                (8, Some("see: dkms.conf(5); an override in /etc/dkms can mend it".into()))
            }
        };
        Self { hint, ..Self::new(code, error.to_string()) }
    }
}

/// The hint for a full disk.
pub(crate) const MAKE_ROOM: &str = "free some space, then run: dkms autoinstall";

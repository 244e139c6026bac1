//! The failure type shared by the engine and every program.

use std::fmt;
use std::io::ErrorKind;
use std::path::PathBuf;

use crate::os::bash::BashError;
use crate::os::durable::FileError;

/// A failure of a whole command or of one module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// The subject, the problem and the reason; may have several lines.
    pub message: String,
    /// The error line in the log that best explains the failure.
    pub cause: Option<String>,
    /// The meaning of the cause for the user. Boxed to keep the results that contain failures
    /// small.
    pub means: Option<Box<str>>,
    /// The log file of the failed build.
    pub log: Option<PathBuf>,
    /// One line of advice, usually a command.
    pub hint: Option<String>,
    /// The exit code that dkms uses for this failure (dkms-behaviour 9).
    pub code: u8,
    /// True if the machine, not the module, caused the failure (a full disk, a killed build). The
    /// work then stays pending, and the next run retries it.
    pub transient: bool,
    /// True if the OOM killer killed the build or an allocation failed. The same run then retries
    /// the build while no other build is running.
    pub out_of_memory: bool,
}

impl Failure {
    /// Creates a failure that is not transient and has no cause, log or hint.
    #[must_use]
    pub fn new(code: u8, message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            cause: None,
            means: None,
            log: None,
            hint: None,
            code,
            transient: false,
            out_of_memory: false,
        }
    }

    /// Creates a failure that the machine caused; the next run retries the work.
    #[must_use]
    pub(crate) fn transient(code: u8, message: impl Into<String>) -> Self {
        Self { transient: true, ..Self::new(code, message) }
    }

    /// Sets the line of advice.
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
    /// Converts an I/O error into a failure. The failure is transient unless the kind of error
    /// shows that the file itself is unsuitable, such as a FIFO in a source tree.
    fn from(error: FileError) -> Self {
        let kind = error.source.kind();
        let transient = !matches!(kind, ErrorKind::InvalidInput | ErrorKind::InvalidData);
        let hint = error.is_disk_full().then(|| MAKE_ROOM.to_owned());
        Self { transient, hint, ..Self::new(1, error.to_string()) }
    }
}

impl From<&BashError> for Failure {
    /// Converts an error in a conf into a failure with dkms's exit code (dkms-behaviour 9).
    ///
    /// A conf that is not evaluated to its end counts as invalid, because dkms would find no
    /// PACKAGE_NAME in it.
    fn from(error: &BashError) -> Self {
        let (code, hint) = match error {
            BashError::NoReader { .. } => (1, None),
            BashError::Unreadable { .. } => (4, Some("reinstall the package that owns it".into())),
            BashError::Unfinished { file, .. }
            | BashError::TimedOut { file, .. }
            | BashError::TooMuch { file } => (8, Some(format!("run: bash -x {}", file.display()))),
            BashError::NotUtf8 { .. } => (8, Some("convert the file to UTF-8".into())),
            BashError::Invalid { .. } => {
                (8, Some("see: dkms.conf(5); a file in /etc/dkms can override directives".into()))
            }
        };
        Self { hint, ..Self::new(code, error.to_string()) }
    }
}

/// The hint for a full disk.
pub(crate) const MAKE_ROOM: &str = "free disk space, then run: dkms autoinstall";

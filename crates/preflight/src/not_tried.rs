//! The reason why modules could not be test-built.

use std::fmt;

use alpm_hook::package_query::QueryError;
use dkms_engine::failure::Failure;
use dkms_engine::os::durable::FileError;
use serde::{Deserialize, Serialize};

/// The reason why modules could not be test-built. It is a note for the user, never a reason to
/// abort a transaction.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NotTried(String);

impl NotTried {
    pub(crate) fn new(why: impl Into<String>) -> Self {
        Self(why.into())
    }

    /// Returns the line for the output of a transaction.
    pub(crate) fn note(&self) -> String {
        format!("note: modules not test-built before the transaction: {self}")
    }
}

impl fmt::Display for NotTried {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<QueryError> for NotTried {
    fn from(error: QueryError) -> Self {
        match error {
            // The error's text contains the command line, which names all packages.
            QueryError::NotRun(_) => Self::new("cannot run alpm-query"),
            other => Self::new(other.to_string()),
        }
    }
}

impl From<Failure> for NotTried {
    fn from(failure: Failure) -> Self {
        Self(failure.message)
    }
}

impl From<FileError> for NotTried {
    fn from(error: FileError) -> Self {
        Self(error.to_string())
    }
}

//! BLAKE3 digests of bytes, files and trees.

use std::fmt;
use std::fs::File;
use std::io;
use std::path::Path;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::durable::FileError;

/// A BLAKE3 digest, written as 64 hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Digest(pub(super) blake3::Hash);

impl Digest {
    /// Returns the digest of `bytes`.
    #[must_use]
    pub fn of_bytes(bytes: &[u8]) -> Self {
        Self(blake3::hash(bytes))
    }

    /// Returns the digest of empty contents.
    #[must_use]
    pub(crate) fn of_nothing() -> Self {
        Self::of_bytes(b"")
    }

    /// Returns the digest of the content of the file `path`.
    ///
    /// # Errors
    /// [`FileError`] if the file cannot be read.
    pub fn of_file(path: &Path) -> Result<Self, FileError> {
        let mut hasher = blake3::Hasher::new();
        File::open(path)
            .and_then(|mut file| io::copy(&mut file, &mut hasher))
            .map_err(FileError::when("read", path))?;
        Ok(Self(hasher.finalize()))
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.to_hex())
    }
}

/// The error for text that is not a digest; contains the text.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid digest: {0:?} (expected 64 hexadecimal digits)")]
pub struct BadDigest(pub String);

impl FromStr for Digest {
    type Err = BadDigest;
    fn from_str(text: &str) -> Result<Self, BadDigest> {
        blake3::Hash::from_hex(text).map(Self).map_err(|_| BadDigest(text.to_owned()))
    }
}

impl TryFrom<String> for Digest {
    type Error = BadDigest;
    fn try_from(text: String) -> Result<Self, BadDigest> {
        text.parse()
    }
}

impl From<Digest> for String {
    fn from(digest: Digest) -> Self {
        digest.to_string()
    }
}

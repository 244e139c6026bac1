//! BLAKE3 digests of bytes, files and trees, and the SHA-256 digests that packages use.

use std::fmt;
use std::fs::File;
use std::io::{self, ErrorKind, Read};
use std::path::Path;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

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

/// Returns the SHA-256 digest of the content of the file `path`.
///
/// # Errors
/// [`FileError`] if the file cannot be read.
pub(crate) fn sha256_of_file(path: &Path) -> Result<[u8; 32], FileError> {
    let mut hasher = Sha256::new();
    let mut bytes = [0; 16 * 1024];
    let mut hash = |mut file: File| {
        loop {
            match file.read(&mut bytes) {
                Ok(0) => return Ok(()),
                Ok(count) => hasher.update(bytes.get(..count).unwrap_or_default()),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    };
    File::open(path).and_then(&mut hash).map_err(FileError::when("read", path))?;
    Ok(hasher.finalize().into())
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

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    /// The expected digests are the output of `sha256sum`.
    #[rstest]
    #[case::empty(0, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855")]
    #[case::short(3, "9834876dcfb05cb167a5c24953eba58c4ac89b1adf57f28f2f9d09af107ee8f0")]
    #[case::long(100_000, "6d1cf22d7cc09b085dfc25ee1a1f3ae0265804c607bc2074ad253bcc82fd81ee")]
    fn hashes_files_with_sha256(#[case] size: usize, #[case] want: &str) {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        std::fs::write(&file, vec![b'a'; size]).unwrap();
        let digest = sha256_of_file(&file).unwrap();
        let text: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(text, want);
        assert!(sha256_of_file(dir.path()).is_err());
    }
}

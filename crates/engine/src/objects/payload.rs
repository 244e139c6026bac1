//! Reads stored objects without their compression and signature.

use std::path::Path;

use super::modinfo::parse_modinfo;
use super::signer::signed_length;
use super::uncompressed::read_uncompressed;
use crate::os::digest::Digest;
use crate::os::process::{Environment, Tools};

/// The content of a stored object without its compression and signature.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Payload {
    /// The digest of the uncompressed object without its signature.
    pub(crate) digest: Digest,
    pub(crate) is_signed: bool,
}

impl Payload {
    /// Reads a stored object. Returns `None` if the file is not a complete kernel object.
    pub(crate) fn read(tools: &Tools, env: &Environment, object: &Path) -> Option<Self> {
        let bytes = read_uncompressed(tools, env, object)?;
        parse_modinfo(&*bytes, "").ok()?;
        let length = signed_length(&bytes).and_then(|length| usize::try_from(length).ok());
        let unsigned = length.and_then(|length| bytes.get(..length)).unwrap_or(&bytes);
        Some(Self { digest: Digest::of_bytes(unsigned), is_signed: length.is_some() })
    }
}

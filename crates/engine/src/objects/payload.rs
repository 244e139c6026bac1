//! Reads stored objects without their compression and signature.

use std::fs;
use std::path::Path;

use super::modinfo::{read_modinfo, unpack};
use super::signer::signed_length;
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
        let plain = unpack(tools, env, object)?;
        let plain = plain.as_ref().map_or(object, |file| file.path());
        read_modinfo(plain).ok()?;
        let bytes = fs::read(plain).ok()?;
        let length = signed_length(&bytes).and_then(|length| usize::try_from(length).ok());
        let unsigned = length.and_then(|length| bytes.get(..length)).unwrap_or(&bytes);
        Some(Self { digest: Digest::of_bytes(unsigned), is_signed: length.is_some() })
    }
}

//! The record of a build: its inputs, its objects and where they are placed.
//!
//! It is a TOML file in `T/M/V/K/A/`. dkms moves and deletes that directory as a whole, so a record
//! never outlives its objects. A build without a record was made by dkms.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::dkms_tree::Inputs;
use crate::machine::Trees;
use crate::names::{Arch, KernelRelease, ModuleId};
use crate::os::digest::Digest;
use crate::os::durable::FileError;
use crate::os::toml_file;

/// The name of the record file in `T/M/V/K/A/`.
pub(crate) const FILE_NAME: &str = "alpm-dkms.toml";

/// One kernel object of a module.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BuiltObject {
    /// The file name, such as `v4l2loopback.ko.zst`.
    pub name: String,
    /// blake3 of the stored file.
    pub digest: Digest,
    /// The directory below `L/K`, such as `updates/dkms`.
    pub location: String,
}

/// An object that we placed in a kernel's directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlacedObject {
    /// The path below `L/K`, such as `updates/dkms/v4l2loopback.ko.zst`.
    pub path: String,
    /// blake3 of the file as placed. A file with another digest is no longer ours.
    pub digest: Digest,
}

impl BuiltObject {
    /// Returns the object as it is placed.
    #[must_use]
    pub(crate) fn in_place(&self) -> PlacedObject {
        PlacedObject { path: format!("{}/{}", self.location, self.name), digest: self.digest }
    }
}

/// The record of a module built for a kernel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// The format version.
    pub(crate) format: u32,
    /// The module.
    pub(crate) module: ModuleId,
    /// The kernel.
    pub(crate) kernel: KernelRelease,
    /// The kernel's architecture.
    pub(crate) arch: Arch,
    /// Whether the build was adopted from dkms. Its inputs are those at adoption.
    #[serde(default)]
    pub(crate) adopted: bool,
    /// The duration of the build in whole seconds.
    pub(crate) build_seconds: u64,
    /// The first line of the compiler's version. Informational: a change does not cause a rebuild.
    #[serde(default)]
    pub(crate) compiler: String,
    /// The inputs.
    pub(crate) inputs: Inputs,
    /// The values of dkms.conf for this kernel, valid while the inputs are unchanged.
    pub(crate) values: crate::conf::Values,
    /// The objects stored beside this record.
    #[serde(default)]
    pub objects: Vec<BuiltObject>,
    /// The objects in the kernel's directory: those of the previous build until this one is
    /// installed.
    #[serde(default)]
    pub placed: Vec<PlacedObject>,
    /// blake3 of the certificate of the last signing, whether it succeeded or not. A failed signing
    /// is retried only with another key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) signing: Option<Digest>,
}

/// The current format version.
pub(crate) const FORMAT: u32 = 1;

impl Record {
    /// Returns the path of the record of a built module.
    #[must_use]
    pub fn path(trees: &Trees, id: &ModuleId, kernel: &KernelRelease, arch: &Arch) -> PathBuf {
        trees.built(id, kernel, arch).join(FILE_NAME)
    }

    /// Reads a record. Returns `None` if there is none or it is unusable; the build then counts as
    /// made by dkms.
    #[must_use]
    pub fn read(path: &Path) -> Option<Self> {
        toml_file::read::<Self>(path).filter(|record| record.format == FORMAT)
    }

    /// Writes the record to `path` atomically.
    ///
    /// # Errors
    /// [`FileError`] if the file cannot be written.
    pub(crate) fn write(&self, path: &Path) -> Result<(), FileError> {
        toml_file::write(path, self)
    }
}

#[cfg(test)]
use {super::KernelIdentity, std::collections::BTreeMap};

#[cfg(test)]
impl Record {
    /// Returns the record of a build without objects. The digest of its source is that of a text.
    pub(crate) fn sample(module: &str, kernel: &str, source: &str) -> Self {
        let kernel: KernelRelease = kernel.parse().expect("a release");
        let digest = Digest::of_bytes(source.as_bytes());
        let identity =
            KernelIdentity { release: kernel.clone(), config: None, symvers: None, headers: None };
        Self {
            format: FORMAT,
            module: module.parse().expect("a module"),
            kernel,
            arch: "x86_64".parse().expect("an architecture"),
            adopted: false,
            build_seconds: 3,
            compiler: String::new(),
            inputs: Inputs {
                source: digest,
                overrides: digest,
                conf: digest,
                kernel: identity,
                depends: BTreeMap::new(),
            },
            values: crate::conf::Values::default(),
            objects: Vec::new(),
            placed: Vec::new(),
            signing: None,
        }
    }
}

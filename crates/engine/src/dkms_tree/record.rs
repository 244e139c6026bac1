//! The record beside built objects: what they were made from and where they were placed.
//!
//! It is a TOML file in `T/M/V/K/A/`, a directory that dkms moves and deletes as a whole, so that a
//! record never outlives its objects. A tree without records was built by dkms.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::dkms_tree::Inputs;
use crate::machine::Trees;
use crate::names::{Arch, KernelRelease, ModuleId};
use crate::os::digest::Digest;
use crate::os::durable::FileError;
use crate::os::toml_file;

/// The file's name in `T/M/V/K/A/`.
pub(crate) const FILE_NAME: &str = "alpm-dkms.toml";

/// One kernel object of a module.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BuiltObject {
    /// Its file name, e.g. `v4l2loopback.ko.zst`.
    pub name: String,
    /// blake3 of the stored file.
    pub digest: Digest,
    /// The directory below `L/K` that it belongs to, e.g. `updates/dkms`.
    pub location: String,
}

/// A file that we placed in a kernel's directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlacedObject {
    /// Where, below `L/K`, e.g. `updates/dkms/v4l2loopback.ko.zst`.
    pub path: String,
    /// blake3 of the file as we placed it: what has another digest is not ours any more.
    pub digest: Digest,
}

impl BuiltObject {
    /// The object in its place.
    #[must_use]
    pub(crate) fn in_place(&self) -> PlacedObject {
        PlacedObject { path: format!("{}/{}", self.location, self.name), digest: self.digest }
    }
}

/// What is noted of one module built for one kernel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// The layout of this file.
    pub(crate) format: u32,
    /// The module.
    pub(crate) module: ModuleId,
    /// The kernel it was built for.
    pub(crate) kernel: KernelRelease,
    /// The kernel's architecture.
    pub(crate) arch: Arch,
    /// True where dkms built it and we took it over: the inputs are those found then.
    #[serde(default)]
    pub(crate) adopted: bool,
    /// How long the build took, in whole seconds.
    pub(crate) build_seconds: u64,
    /// The compiler, as it names itself in one line. For people; no reason to build.
    #[serde(default)]
    pub(crate) compiler: String,
    /// What it was made from.
    pub(crate) inputs: Inputs,
    /// The values of dkms.conf for this kernel, good as long as the inputs stay.
    pub(crate) values: crate::conf::Values,
    /// The objects, as they are kept beside this record.
    #[serde(default)]
    pub objects: Vec<BuiltObject>,
    /// What stands in the kernel's directory: these objects, or those of the build before as long
    /// as these have not been installed.
    #[serde(default)]
    pub placed: Vec<PlacedObject>,
    /// blake3 of the certificate that the objects were signed for, or should have been: what
    /// failed once is not tried again until the key is another one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) signing: Option<Digest>,
}

/// The layout that this version writes.
pub(crate) const FORMAT: u32 = 1;

impl Record {
    /// Where the record of a built module is.
    #[must_use]
    pub fn path(trees: &Trees, id: &ModuleId, kernel: &KernelRelease, arch: &Arch) -> PathBuf {
        trees.built(id, kernel, arch).join(FILE_NAME)
    }

    /// Reads a record. None if there is none or if it cannot be used: then the built objects
    /// count as dkms's, which loses nothing.
    #[must_use]
    pub fn read(path: &Path) -> Option<Self> {
        toml_file::read::<Self>(path).filter(|record| record.format == FORMAT)
    }

    /// Writes the record to `path`, whole or not at all.
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
    /// A record of a build without objects, whose source has the digest of a text.
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

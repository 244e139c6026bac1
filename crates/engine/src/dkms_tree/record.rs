//! The record of a build: its inputs and its objects.
//!
//! A record is a TOML file in `T/M/V/K/A/`. dkms moves and deletes that directory as a whole, so a
//! record never outlives its objects. A build without a record was made by dkms.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::dkms_tree::Inputs;
use crate::machine::Trees;
use crate::names::{Arch, KernelRelease, ModuleId};
use crate::os::digest::Digest;
use crate::os::durable::{Durability, FileError};
use crate::os::toml_file;

/// The name of the record file in `T/M/V/K/A/`.
pub(crate) const FILE_NAME: &str = "alpm-dkms.toml";

/// A kernel object of a finished build.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BuiltObject {
    /// The file name, such as `v4l2loopback.ko.zst`.
    pub name: String,
    /// The BLAKE3 digest of the file in the dkms tree.
    pub digest: Digest,
    /// The directory for the object, relative to the kernel's directory, such as `updates/dkms`.
    pub location: String,
    /// The kernel release in the object's vermagic; `None` if the object has not been read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) built_for: Option<String>,
}

/// An object that was not installed, because another file takes precedence or because the object is
/// obsolete for the kernel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefusedObject {
    /// The file name, as in [`BuiltObject::name`].
    pub name: String,
    /// The path of the file that takes precedence, relative to the kernel's directory; `None` if
    /// the object is obsolete for the kernel.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
    /// The reason, as part of a message.
    pub why: String,
}

impl RefusedObject {
    /// Returns the reasons of all `refused` objects as part of a message. Repeated reasons appear
    /// only once.
    pub(crate) fn reasons(refused: &[Self]) -> String {
        let mut reasons: Vec<&str> = Vec::new();
        for object in refused {
            if !reasons.contains(&object.why.as_str()) {
                reasons.push(&object.why);
            }
        }
        reasons.join("; ")
    }
}

impl BuiltObject {
    /// Returns the path of the installed object, relative to the kernel's directory.
    #[must_use]
    pub fn path(&self) -> String {
        format!("{}/{}", self.location, self.name)
    }
}

/// The record of the build of a module for a kernel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// The version of the file format.
    pub(crate) format: u32,
    pub(crate) module: ModuleId,
    pub(crate) kernel: KernelRelease,
    pub(crate) arch: Arch,
    /// Whether the build was adopted from dkms. If so, `inputs` are those at the time of adoption.
    #[serde(default)]
    pub(crate) adopted: bool,
    /// The duration of the build in whole seconds.
    pub(crate) build_seconds: u64,
    /// The first line of the compiler's version text. For information only: a change of compiler
    /// does not cause a rebuild.
    #[serde(default)]
    pub(crate) compiler: String,
    /// Whether the module's source changed during the build, usually because the build wrote into
    /// the source. If so, the module is not built for several kernels at the same time.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) changes_source: bool,
    pub(crate) inputs: Inputs,
    /// The dkms.conf values for this kernel. They are valid as long as the inputs do not change.
    pub(crate) values: crate::conf::Values,
    /// The objects of the build, in the dkms tree.
    #[serde(default)]
    pub objects: Vec<BuiltObject>,
    /// The objects that the last installation of this build left out.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) refused: Vec<RefusedObject>,
    /// The BLAKE3 digest of the certificate with which all objects are signed; `None` if at least
    /// one object is not signed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) signing: Option<Digest>,
}

/// The current version of the record format.
pub(crate) const FORMAT: u32 = 1;

impl Record {
    /// Returns the path of the record for the build of a module.
    #[must_use]
    pub fn path(trees: &Trees, id: &ModuleId, kernel: &KernelRelease, arch: &Arch) -> PathBuf {
        trees.built(id, kernel, arch).join(FILE_NAME)
    }

    /// Reads the record at `path`. Returns `None` if the file is missing, invalid or in another
    /// format; the build then counts as made by dkms.
    #[must_use]
    pub fn read(path: &Path) -> Option<Self> {
        toml_file::read::<Self>(path).filter(|record| record.format == FORMAT)
    }

    /// Writes the record to `path` atomically, and syncs the file and its directory.
    ///
    /// # Errors
    /// [`FileError`] if the file cannot be written.
    pub(crate) fn write(&self, path: &Path) -> Result<(), FileError> {
        self.write_with(path, Durability::Full)
    }

    /// Writes the record to `path` atomically, and syncs what `durability` says.
    ///
    /// # Errors
    /// [`FileError`] if the file cannot be written.
    pub(crate) fn write_with(&self, path: &Path, durability: Durability) -> Result<(), FileError> {
        toml_file::write_with(path, self, durability)
    }
}

#[cfg(test)]
use {super::KernelIdentity, std::collections::BTreeMap};

#[cfg(test)]
impl Record {
    /// Returns a record without objects. Every input digest is that of the text `source`.
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
            changes_source: false,
            inputs: Inputs {
                source: digest,
                overrides: digest,
                conf: digest,
                kernel: identity,
                depends: BTreeMap::new(),
            },
            values: crate::conf::Values::default(),
            objects: Vec::new(),
            refused: Vec::new(),
            signing: None,
        }
    }
}

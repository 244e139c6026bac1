//! What we note beside built objects: from what they were made and where they were placed.
//!
//! The record is a TOML file in `T/M/V/K/A/`, a directory that dkms moves and deletes as a whole,
//! so that a record never outlives its objects. A tree without records was built by dkms.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::digest::{Digest, KernelIdentity};
use crate::durable::FileError;
use crate::names::{Arch, KernelRelease, ModuleId, ModuleName};
use crate::page;
use crate::trees::Trees;

/// The file's name in `T/M/V/K/A/`.
pub const FILE_NAME: &str = "alpm-dkms.toml";

/// Everything that an object is made from. Equal inputs give an equal object, so they are never
/// built twice. All digests are blake3.
///
/// The compiler is not among them: Arch's gcc changes weekly, and a kernel takes modules of
/// another compiler.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Inputs {
    /// The source tree.
    pub source: Digest,
    /// The administrator's files for it: overrides, patches and scripts below `/etc/dkms`.
    pub overrides: Digest,
    /// The values that dkms.conf gives for this kernel.
    pub conf: Digest,
    /// The kernel that it is built for.
    pub kernel: KernelIdentity,
    /// The fingerprint of each module that BUILD_DEPENDS names and that dkms knows.
    #[serde(default)]
    pub depends: BTreeMap<ModuleName, Digest>,
}

/// Why objects that exist are not what would be built now, or why there are none.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reason {
    /// Nothing was built for this kernel yet.
    NotBuilt,
    /// The source tree changed.
    Source,
    /// An override, patch or script below `/etc/dkms` changed.
    Overrides,
    /// The values of dkms.conf changed.
    Conf,
    /// The kernel's configuration changed under the same release.
    KernelConfig,
    /// The kernel's exported symbols changed under the same release.
    KernelSymbols,
    /// The kernel's headers changed under the same release.
    KernelHeaders,
    /// A module that it builds upon changed.
    Dependency(ModuleName),
    /// dkms built it before the present source or headers came.
    OlderThanInputs,
    /// Built, but not installed.
    NotInstalled,
    /// Installed, but objects are missing from the kernel's directory or are not ours.
    Misplaced,
    /// An earlier run was interrupted.
    Interrupted,
    /// The kernel's modules are compressed in another way now.
    Compression,
    /// The objects for the kernel are signed with another key now.
    Signing,
    /// Asked for.
    Asked,
    /// Equal inputs were built before, and what came of them is in the cache: nothing is compiled.
    Cached,
}

impl std::fmt::Display for Reason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::NotBuilt => "not built yet",
            Self::Source => "its source changed",
            Self::Overrides => "its files in /etc/dkms changed",
            Self::Conf => "its dkms.conf has other values",
            Self::KernelConfig => "the kernel's configuration changed",
            Self::KernelSymbols => "the kernel's symbols changed (Module.symvers)",
            Self::KernelHeaders => "the kernel's headers changed",
            Self::Dependency(name) => return write!(f, "{name}, which it builds upon, changed"),
            Self::OlderThanInputs => "the source or the headers are newer than what dkms built",
            Self::NotInstalled => "built but not installed",
            Self::Misplaced => "its objects are not in the kernel's directory",
            Self::Interrupted => "an earlier run was interrupted",
            Self::Compression => "the kernel's modules are compressed in another way",
            Self::Signing => "modules are signed with another key",
            Self::Asked => "asked for",
            Self::Cached => "found in the cache",
        })
    }
}

impl Inputs {
    /// One digest over all inputs.
    #[must_use]
    pub fn fingerprint(&self) -> Digest {
        let kernel = &self.kernel;
        let part = |digest: &Option<Digest>| digest.as_ref().map(Digest::to_string);
        let mut parts = vec![
            self.source.to_string(),
            self.overrides.to_string(),
            self.conf.to_string(),
            kernel.release.to_string(),
        ];
        let of_kernel = [&kernel.config, &kernel.symvers, &kernel.headers];
        parts.extend(of_kernel.map(|digest| part(digest).unwrap_or_default()));
        for (name, fingerprint) in &self.depends {
            parts.extend([name.to_string(), fingerprint.to_string()]);
        }
        Digest::of_bytes(parts.join("\0").as_bytes())
    }

    /// What differs between these inputs and those something was built from.
    #[must_use]
    pub fn changed_since(&self, built: &Self) -> Vec<Reason> {
        let mut reasons = Vec::new();
        let mut differs = |equal: bool, reason: Reason| {
            if !equal {
                reasons.push(reason);
            }
        };
        differs(self.source == built.source, Reason::Source);
        differs(self.overrides == built.overrides, Reason::Overrides);
        // A conf that reads its kernel's or its own files has other values because they changed.
        let conf_alone = self.source == built.source
            && self.overrides == built.overrides
            && self.kernel == built.kernel;
        differs(self.conf == built.conf || !conf_alone, Reason::Conf);
        differs(self.kernel.config == built.kernel.config, Reason::KernelConfig);
        differs(self.kernel.symvers == built.kernel.symvers, Reason::KernelSymbols);
        differs(self.kernel.headers == built.kernel.headers, Reason::KernelHeaders);
        let names: std::collections::BTreeSet<_> =
            self.depends.keys().chain(built.depends.keys()).collect();
        for name in names {
            if self.depends.get(name) != built.depends.get(name) {
                reasons.push(Reason::Dependency(name.clone()));
            }
        }
        reasons
    }
}

/// One kernel object of a module.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Object {
    /// Its file name, e.g. `v4l2loopback.ko.zst`.
    pub name: String,
    /// blake3 of the stored file.
    pub digest: Digest,
    /// The directory below `L/K` that it belongs to, e.g. `updates/dkms`.
    pub location: String,
}

/// A file that we placed in a kernel's directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Placed {
    /// Where, below `L/K`, e.g. `updates/dkms/v4l2loopback.ko.zst`.
    pub path: String,
    /// blake3 of the file as we placed it: what has another digest is not ours any more.
    pub digest: Digest,
}

impl Object {
    /// The object in its place.
    #[must_use]
    pub fn in_place(&self) -> Placed {
        Placed { path: format!("{}/{}", self.location, self.name), digest: self.digest }
    }
}

/// What is noted of one module built for one kernel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// The layout of this file.
    pub format: u32,
    /// The module.
    pub module: ModuleId,
    /// The kernel it was built for.
    pub kernel: KernelRelease,
    /// The kernel's architecture.
    pub arch: Arch,
    /// True where dkms built it and we took it over: the inputs are those found then.
    #[serde(default)]
    pub adopted: bool,
    /// How long the build took, in whole seconds.
    pub build_seconds: u64,
    /// The compiler, as it names itself in one line. For people; no reason to build.
    #[serde(default)]
    pub compiler: String,
    /// What it was made from.
    pub inputs: Inputs,
    /// The values of dkms.conf for this kernel, good as long as the inputs stay.
    pub values: crate::conf::Values,
    /// The objects, as they are kept beside this record.
    #[serde(default)]
    pub objects: Vec<Object>,
    /// What stands in the kernel's directory: these objects, or those of the build before as long
    /// as these have not been installed.
    #[serde(default)]
    pub placed: Vec<Placed>,
    /// blake3 of the certificate that the objects were signed for, or should have been: what
    /// failed once is not tried again until the key is another one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signing: Option<Digest>,
}

/// The layout that this version writes.
pub const FORMAT: u32 = 1;

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
        page::read::<Self>(path).filter(|record| record.format == FORMAT)
    }

    /// Writes the record to `path`, whole or not at all.
    ///
    /// # Errors
    /// [`FileError`] if the file cannot be written.
    pub fn write(&self, path: &Path) -> Result<(), FileError> {
        page::write(path, self)
    }
}

pub use KnownFailure as Failure;

/// A build that failed, remembered so that the same inputs are not tried at every transaction.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KnownFailure {
    /// [`Inputs::fingerprint`] of what was tried.
    pub fingerprint: Digest,
    /// What went wrong, in one line.
    pub what: String,
    /// The log of that build.
    pub log: PathBuf,
}

impl KnownFailure {
    /// Where a failure is remembered: `T/.failed/M-V-K-A.toml`.
    #[must_use]
    pub fn path(trees: &Trees, id: &ModuleId, kernel: &KernelRelease, arch: &Arch) -> PathBuf {
        trees.failures().join(format!("{}-{kernel}-{arch}.toml", id.source_dir()))
    }

    /// The failure remembered for these, if there is one.
    #[must_use]
    pub fn read(path: &Path) -> Option<Self> {
        page::read(path)
    }

    /// Remembers the failure.
    ///
    /// # Errors
    /// [`FileError`] if the file cannot be written.
    pub fn write(&self, path: &Path) -> Result<(), FileError> {
        page::write(path, self)
    }
}

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

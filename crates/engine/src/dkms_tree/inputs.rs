//! The inputs of a build, and the reasons to rebuild a module.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::names::{KernelRelease, ModuleName};
use crate::os::digest::Digest;

/// The inputs of a build.
///
/// A module is rebuilt only if its inputs change. All digests are BLAKE3.
///
/// The compiler is not an input: gcc changes weekly on Arch Linux, and a kernel accepts modules
/// built with another compiler.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Inputs {
    /// The digest of the module's source.
    pub(crate) source: Digest,
    /// The digest of the administrator's overrides, patches and scripts for the module in
    /// `/etc/dkms`.
    pub(crate) overrides: Digest,
    /// The digest of the dkms.conf values for this kernel.
    pub(crate) conf: Digest,
    pub(crate) kernel: KernelIdentity,
    /// The fingerprints of the dependencies in BUILD_DEPENDS. A missing dependency has no entry.
    #[serde(default)]
    pub(crate) depends: BTreeMap<ModuleName, Digest>,
}

/// The reason for a step of a plan.
///
/// In the variants, "changed" means changed since the existing build was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reason {
    /// The module has not been built for this kernel yet.
    NotBuilt,
    /// The module's source changed.
    Source,
    /// An override, patch or script in `/etc/dkms` changed.
    Overrides,
    /// The dkms.conf values changed.
    Conf,
    /// The kernel's configuration changed, but its release did not.
    KernelConfig,
    /// The kernel's exported symbols changed, but its release did not.
    KernelSymbols,
    /// The kernel's headers changed, but its release did not.
    KernelHeaders,
    /// A dependency in BUILD_DEPENDS changed.
    Dependency(ModuleName),
    /// dkms built the objects, and the source or the headers have changed since.
    OlderThanInputs,
    /// The module is built but not installed.
    NotInstalled,
    /// The module is installed, but its objects are missing or come from another build.
    NotInPlace,
    /// An object of the build is missing from the dkms tree or damaged.
    Damaged,
    /// The kernel's directory contains the module, but the dkms tree does not.
    Lost,
    /// depmod's index of the kernel's modules is missing or older than an installed module.
    Index,
    /// An earlier run was interrupted during this step.
    Interrupted,
    /// The compression of the objects differs from that of the kernel's own modules.
    Compression,
    /// The signing key for the kernel changed.
    Signing,
    /// The user requested the step on the command line.
    Requested,
    /// The cache contains a build with equal inputs, so nothing is compiled.
    Cached,
}

impl std::fmt::Display for Reason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::NotBuilt => "not built yet",
            Self::Source => "source changed",
            Self::Overrides => "files in /etc/dkms changed",
            Self::Conf => "dkms.conf values changed",
            Self::KernelConfig => "kernel configuration changed",
            Self::KernelSymbols => "kernel symbols changed",
            Self::KernelHeaders => "kernel headers changed",
            Self::Dependency(name) => return write!(f, "dependency {name} changed"),
            Self::OlderThanInputs => "older than its source or the kernel headers",
            Self::NotInstalled => "built but not installed",
            Self::NotInPlace => "installed objects missing or outdated",
            Self::Damaged => "built objects missing or damaged",
            Self::Lost => "installed but missing from the dkms tree",
            Self::Index => "module index missing or outdated",
            Self::Interrupted => "not finished by an earlier run",
            Self::Compression => "module compression changed",
            Self::Signing => "signing key changed",
            Self::Requested => "requested",
            Self::Cached => "in the cache",
        })
    }
}

impl Inputs {
    /// Returns a single digest of all inputs.
    #[must_use]
    pub(crate) fn fingerprint(&self) -> Digest {
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

    /// Returns the reasons to rebuild a module that was built from the inputs `built`. The result
    /// is empty if no input changed.
    #[must_use]
    pub(crate) fn changed_since(&self, built: &Self) -> Vec<Reason> {
        let mut reasons = Vec::new();
        let mut differs = |equal: bool, reason: Reason| {
            if !equal {
                reasons.push(reason);
            }
        };
        differs(self.source == built.source, Reason::Source);
        differs(self.overrides == built.overrides, Reason::Overrides);
        // A conf may read files of the source or of the kernel. If such a file changed, that change
        // is the reason.
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

/// The parts of a kernel that affect builds. A part that the kernel lacks is `None`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KernelIdentity {
    pub(crate) release: KernelRelease,
    /// The digest of the kernel's configuration.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) config: Option<Digest>,
    /// The digest of `Module.symvers`, which lists the exported symbols with their checksums.
    ///
    /// This digest is not sufficient by itself, since all checksums can be zero.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) symvers: Option<Digest>,
    /// The digest of the headers in `include` and `arch/*/include`, which contain the kernel's
    /// build time and build number.
    ///
    /// In `include/config`, only the text files count. The directory also contains some ten
    /// thousand empty files, one for each enabled option, which repeat the configuration.
    ///
    /// Computed from the SHA-256 digests of the files, which pacman's database also contains.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) headers: Option<Digest>,
}

//! The inputs of a build, and how those of two builds differ.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::names::{KernelRelease, ModuleName};
use crate::os::digest::Digest;

/// Everything that an object is made from. Equal inputs give an equal object, so they are never
/// built twice. All digests are blake3.
///
/// The compiler is not among them: Arch's gcc changes weekly, and a kernel takes modules of
/// another compiler.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Inputs {
    /// The source tree.
    pub(crate) source: Digest,
    /// The administrator's files for it: overrides, patches and scripts below `/etc/dkms`.
    pub(crate) overrides: Digest,
    /// The values that dkms.conf gives for this kernel.
    pub(crate) conf: Digest,
    /// The kernel that it is built for.
    pub(crate) kernel: KernelIdentity,
    /// The fingerprint of each module that BUILD_DEPENDS names and that dkms knows.
    #[serde(default)]
    pub(crate) depends: BTreeMap<ModuleName, Digest>,
}

/// Why objects that exist are not what would be built now, or why there are none.
#[derive(Debug, Clone, PartialEq, Eq)]
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
    /// The command line asks for it.
    Requested,
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
            Self::Requested => "asked for",
            Self::Cached => "found in the cache",
        })
    }
}

impl Inputs {
    /// One digest over all inputs.
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

    /// What differs between these inputs and those something was built from.
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

/// What makes two kernels the same for a module. A part that a kernel does not have is missing
/// here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KernelIdentity {
    /// Its release.
    pub(crate) release: KernelRelease,
    /// Its configuration.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) config: Option<Digest>,
    /// `Module.symvers`: the symbols it exports, with their checksums. Not enough by itself,
    /// since these may all be zero.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) symvers: Option<Digest>,
    /// `include` and `arch/*/include`, the time and number of its compilation among them. Of
    /// `include/config` only the texts count: beside them lie some ten thousand empty files, one
    /// for each option that is set, which say what the configuration says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) headers: Option<Digest>,
}

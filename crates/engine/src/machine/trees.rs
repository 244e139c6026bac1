//! The trees of a machine, with the place of everything in them.

use std::path::{Path, PathBuf};

use crate::names::{Arch, KernelRelease, ModuleId, ModuleName};
use crate::os::paths;

/// The trees of one machine. Only the edge of a binary says `/`; everything below takes these.
///
/// The layout of [`Trees::dkms`] is dkms's own (so that dkms can read it), and what is only ours
/// starts with a dot there, which dkms's globs do not see.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trees {
    /// `/` of the machine that is worked on.
    pub root: PathBuf,
    /// `/usr/src`: module sources, `name-version/dkms.conf`.
    pub source: PathBuf,
    /// `/var/lib/dkms`: what is added and built.
    pub dkms: PathBuf,
    /// `/usr/lib/modules`: one directory for each kernel release.
    pub install: PathBuf,
    /// `/etc/dkms`: settings and overrides.
    pub etc: PathBuf,
}

impl Trees {
    /// The usual trees below `root`.
    #[must_use]
    pub fn under(root: &Path) -> Self {
        Self {
            root: root.to_owned(),
            source: root.join("usr/src"),
            dkms: root.join("var/lib/dkms"),
            install: root.join("usr/lib/modules"),
            etc: root.join("etc/dkms"),
        }
    }

    /// Where an absolute path of the machine is seen from here.
    #[must_use]
    pub(crate) fn inside(&self, path: &Path) -> PathBuf {
        paths::below(&self.root, path)
    }

    /// The directory of one kernel: `L/<release>`.
    #[must_use]
    pub(crate) fn kernel(&self, kernel: &KernelRelease) -> PathBuf {
        self.install.join(kernel)
    }

    /// The directory of one module in the dkms tree: `T/M`.
    #[must_use]
    pub(crate) fn module(&self, name: &ModuleName) -> PathBuf {
        self.dkms.join(name)
    }

    /// The directory of one module version: `T/M/V`.
    #[must_use]
    pub(crate) fn version(&self, id: &ModuleId) -> PathBuf {
        self.module(&id.name).join(&id.version)
    }

    /// The link that registers a module: `T/M/V/source`.
    #[must_use]
    pub fn source_link(&self, id: &ModuleId) -> PathBuf {
        self.version(id).join("source")
    }

    /// Where a module is compiled: `T/M/V/build`, the path that confs and scripts name.
    #[must_use]
    pub(crate) fn build(&self, id: &ModuleId) -> PathBuf {
        self.version(id).join("build")
    }

    /// Where each build that runs has its files, if not in [`Trees::build`]: `T/.build`.
    #[must_use]
    pub(crate) fn workplaces(&self) -> PathBuf {
        self.dkms.join(".build")
    }

    /// What was built for a kernel: `T/M/V/K/A`, with `module/` and `log/` inside.
    #[must_use]
    pub fn built(&self, id: &ModuleId, kernel: &KernelRelease, arch: &Arch) -> PathBuf {
        self.version(id).join(kernel).join(arch)
    }

    /// The link that says which version is installed: `T/M/kernel-K-A`, relative to `V/K/A`.
    #[must_use]
    pub(crate) fn installed_link(
        &self,
        name: &ModuleName,
        kernel: &KernelRelease,
        arch: &Arch,
    ) -> PathBuf {
        self.module(name).join(format!("kernel-{kernel}-{arch}"))
    }

    /// Where dkms put the kernel's own objects that it moved away: `T/M/original_module/K/A`.
    #[must_use]
    pub(crate) fn originals(
        &self,
        name: &ModuleName,
        kernel: &KernelRelease,
        arch: &Arch,
    ) -> PathBuf {
        self.all_originals(name).join(kernel).join(arch)
    }

    /// The kernels' own objects of one name, see [`Self::originals`]: `T/M/original_module`.
    #[must_use]
    pub(crate) fn all_originals(&self, name: &ModuleName) -> PathBuf {
        self.module(name).join("original_module")
    }

    /// The copy of a source that outlives its package: `T/.kept/M-V`.
    #[must_use]
    pub(crate) fn kept(&self, id: &ModuleId) -> PathBuf {
        self.dkms.join(".kept").join(id.source_dir())
    }

    /// Pending work, one small file each: `T/.pending`.
    #[must_use]
    pub(crate) fn pending(&self) -> PathBuf {
        self.dkms.join(".pending")
    }

    /// Copies of images, kept while they are regenerated: `T/.images`.
    #[must_use]
    pub fn images(&self) -> PathBuf {
        self.dkms.join(".images")
    }

    /// Remembered failures: `T/.failed`.
    #[must_use]
    pub(crate) fn failures(&self) -> PathBuf {
        self.dkms.join(".failed")
    }

    /// What can be made anew, but is quicker found again: `T/.cache`, with the digests of files
    /// under their stat signatures in it.
    #[must_use]
    pub(crate) fn cache(&self) -> PathBuf {
        self.dkms.join(".cache")
    }

    /// Builds that may come back: `T/.cache/objects`.
    #[must_use]
    pub(crate) fn cached_builds(&self) -> PathBuf {
        self.cache().join("objects")
    }

    /// The log of the last failed build for a kernel: `T/.log/M-V-K-A.log`.
    #[must_use]
    pub(crate) fn failure_log(
        &self,
        id: &ModuleId,
        kernel: &KernelRelease,
        arch: &Arch,
    ) -> PathBuf {
        self.dkms.join(".log").join(format!("{}-{kernel}-{arch}.log", id.source_dir()))
    }

    /// The lock of everything that changes the trees. Never replaced: two processes that hold
    /// two inodes hold nothing.
    #[must_use]
    pub(crate) fn lock(&self) -> PathBuf {
        self.dkms.join(".lock")
    }

    /// Programs that stand first in PATH while a module is built: `T/.bin`.
    #[must_use]
    pub(crate) fn build_programs(&self) -> PathBuf {
        self.dkms.join(".bin")
    }

    /// Programs with the names of the compilers that start those through a launcher:
    /// `T/.bin/compilers`.
    #[must_use]
    pub(crate) fn launching_compilers(&self) -> PathBuf {
        self.build_programs().join("compilers")
    }

    /// Programs with the names of the compilers that share results: `T/.bin/once`.
    #[must_use]
    pub(crate) fn sharing_compilers(&self) -> PathBuf {
        self.build_programs().join("once")
    }

    /// The results of compilers in this run: `T/.bin/once/.answers`.
    #[must_use]
    pub(crate) fn shared_results(&self) -> PathBuf {
        self.sharing_compilers().join(".answers")
    }
}

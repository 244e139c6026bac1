//! The paths of a machine's trees and of every file in them.

use std::path::{Path, PathBuf};

use crate::names::{Arch, KernelRelease, ModuleId, ModuleName};
use crate::os::paths;

/// The paths of the trees of one machine.
///
/// In comments, `T` is the dkms tree, `S` the source tree, `L` the install tree, `M` a module, `V`
/// its version, `K` a kernel release and `A` an architecture.
///
/// The dkms tree uses dkms's own layout, so that dkms can read it. The names of additional files
/// start with a dot, since dkms's globs do not match such names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trees {
    /// The root directory that contains the other paths, usually `/`.
    pub root: PathBuf,
    /// The source tree, usually `/usr/src`. It contains one directory `name-version` per source.
    pub source: PathBuf,
    /// The dkms tree, usually `/var/lib/dkms`. It contains the added and built modules.
    pub dkms: PathBuf,
    /// The install tree, usually `/usr/lib/modules`. It contains one directory per kernel release.
    pub install: PathBuf,
    /// The directory of settings and of overrides for confs, usually `/etc/dkms`.
    pub etc: PathBuf,
    /// The directory of the build cache; `None` for `T/.cache/objects`.
    ///
    /// A run on a copy of the dkms tree uses the cache of the real dkms tree. The path may name an
    /// open descriptor, as in `/proc/self/fd/3`.
    pub build_cache: Option<PathBuf>,
    /// The directory that contains the file lists of headers packages, in the format of pacman's
    /// database directory. `None` means pacman's database directory itself.
    ///
    /// Before a transaction, the file lists of arriving headers exist only in the arriving package
    /// files, not in pacman's database.
    pub package_lists: Option<PathBuf>,
}

impl Trees {
    /// Returns the default trees below `root`.
    #[must_use]
    pub fn under(root: &Path) -> Self {
        Self {
            root: root.to_owned(),
            source: root.join("usr/src"),
            dkms: root.join("var/lib/dkms"),
            install: root.join("usr/lib/modules"),
            etc: root.join("etc/dkms"),
            build_cache: None,
            package_lists: None,
        }
    }

    /// Returns `path`, an absolute path on the machine, with the root directory prepended.
    #[must_use]
    pub(crate) fn inside(&self, path: &Path) -> PathBuf {
        paths::below(&self.root, path)
    }

    /// Returns the directory of a kernel in the install tree: `L/K`.
    #[must_use]
    pub(crate) fn kernel(&self, kernel: &KernelRelease) -> PathBuf {
        self.install.join(kernel)
    }

    /// Returns the directory of a module in the dkms tree: `T/M`.
    #[must_use]
    pub(crate) fn module(&self, name: &ModuleName) -> PathBuf {
        self.dkms.join(name)
    }

    /// Returns the directory of a module version in the dkms tree: `T/M/V`.
    #[must_use]
    pub(crate) fn version(&self, id: &ModuleId) -> PathBuf {
        self.module(&id.name).join(&id.version)
    }

    /// Returns the path of the link to an added module's source: `T/M/V/source`.
    #[must_use]
    pub fn source_link(&self, id: &ModuleId) -> PathBuf {
        self.version(id).join("source")
    }

    /// Returns the build directory that confs and scripts name: `T/M/V/build`.
    #[must_use]
    pub(crate) fn build(&self, id: &ModuleId) -> PathBuf {
        self.version(id).join("build")
    }

    /// Returns the parent of the private build directories, one per module and kernel: `T/.build`.
    #[must_use]
    pub(crate) fn workplaces(&self) -> PathBuf {
        self.dkms.join(".build")
    }

    /// Returns the directory of a finished build: `T/M/V/K/A`. It contains `module/` and `log/`.
    #[must_use]
    pub fn built(&self, id: &ModuleId, kernel: &KernelRelease, arch: &Arch) -> PathBuf {
        self.version(id).join(kernel).join(arch)
    }

    /// Returns the path of the link to the installed version's build: `T/M/kernel-K-A`. The link's
    /// text is `V/K/A`.
    #[must_use]
    pub(crate) fn installed_link(
        &self,
        name: &ModuleName,
        kernel: &KernelRelease,
        arch: &Arch,
    ) -> PathBuf {
        self.module(name).join(format!("kernel-{kernel}-{arch}"))
    }

    /// Returns the directory of the original modules of one kernel: `T/M/original_module/K/A`.
    #[must_use]
    pub(crate) fn originals(
        &self,
        name: &ModuleName,
        kernel: &KernelRelease,
        arch: &Arch,
    ) -> PathBuf {
        self.all_originals(name).join(kernel).join(arch)
    }

    /// Returns the directory of the original modules of all kernels: `T/M/original_module`.
    #[must_use]
    pub(crate) fn all_originals(&self, name: &ModuleName) -> PathBuf {
        self.module(name).join("original_module")
    }

    /// Returns the path of a source's backup copy: `T/.kept/M-V`. Builds use the copy after the
    /// source has been removed.
    #[must_use]
    pub(crate) fn kept(&self, id: &ModuleId) -> PathBuf {
        self.dkms.join(".kept").join(id.source_dir())
    }

    /// Returns the directory of pending work: `T/.pending`. It contains one file per entry.
    #[must_use]
    pub(crate) fn pending(&self) -> PathBuf {
        self.dkms.join(".pending")
    }

    /// Returns the directory for copies of initramfs images during regeneration: `T/.images`.
    #[must_use]
    pub fn images(&self) -> PathBuf {
        self.dkms.join(".images")
    }

    /// Returns the path of the notice that is shown at login: `T/.notice`.
    #[must_use]
    pub fn notice(&self) -> PathBuf {
        self.dkms.join(".notice")
    }

    /// Returns the directory of the records of failed builds: `T/.failed`.
    #[must_use]
    pub(crate) fn failures(&self) -> PathBuf {
        self.dkms.join(".failed")
    }

    /// Returns the directory that contains all caches: `T/.cache`.
    #[must_use]
    pub(crate) fn cache(&self) -> PathBuf {
        self.dkms.join(".cache")
    }

    /// Returns the directory of the build cache, usually `T/.cache/objects`.
    #[must_use]
    pub(crate) fn cached_builds(&self) -> PathBuf {
        self.build_cache.clone().unwrap_or_else(|| self.cache().join("objects"))
    }

    /// Returns the path of the log of the last failed build: `T/.log/M-V-K-A.log`.
    #[must_use]
    pub(crate) fn failure_log(
        &self,
        id: &ModuleId,
        kernel: &KernelRelease,
        arch: &Arch,
    ) -> PathBuf {
        self.dkms.join(".log").join(format!("{}-{kernel}-{arch}.log", id.source_dir()))
    }

    /// Returns the path of the file that a run locks before it changes the trees: `T/.lock`.
    ///
    /// The file is never replaced, since processes that lock different inodes do not exclude each
    /// other.
    #[must_use]
    pub fn lock(&self) -> PathBuf {
        self.dkms.join(".lock")
    }

    /// Returns the directory of the wrapper programs: `T/.bin`. During a build, some of its
    /// subdirectories come first in PATH.
    #[must_use]
    pub(crate) fn build_programs(&self) -> PathBuf {
        self.dkms.join(".bin")
    }

    /// Returns the directory of the programs for builds in which `uname` names the target kernel:
    /// `T/.bin/target`.
    #[must_use]
    pub(crate) fn target_programs(&self) -> PathBuf {
        self.build_programs().join("target")
    }

    /// Returns the directory of the programs for builds in which `uname` names the running kernel:
    /// `T/.bin/running`.
    #[must_use]
    pub(crate) fn running_programs(&self) -> PathBuf {
        self.build_programs().join("running")
    }

    /// Returns the directory of compiler wrappers that call a launcher: `T/.bin/compilers`.
    #[must_use]
    pub(crate) fn launching_compilers(&self) -> PathBuf {
        self.build_programs().join("compilers")
    }

    /// Returns the directory of compiler wrappers that share their results: `T/.bin/once`.
    #[must_use]
    pub(crate) fn sharing_compilers(&self) -> PathBuf {
        self.build_programs().join("once")
    }

    /// Returns the directory of the compiler results of this run: `T/.bin/once/.answers`.
    #[must_use]
    pub(crate) fn shared_results(&self) -> PathBuf {
        self.sharing_compilers().join(".answers")
    }
}

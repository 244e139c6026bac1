//! A trial run, which builds modules for a transaction that may never be carried out.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Mutex;

use crate::machine::Lock;
use crate::names::{KernelRelease, ModuleId, ModuleName};
use crate::os::durable::FileError;
use crate::os::shared::lock;

/// The state of a trial run.
///
/// A trial run works on a scratch copy of the trees. It builds and installs modules there as usual,
/// but has no effects outside: it runs no scripts except those of builds, loads no modules, runs no
/// `post_transaction` command, and creates no signing key. It stores its builds in the cache, from
/// which the run after the transaction takes them.
#[derive(Debug, Default)]
pub struct Trial {
    /// The lock file of the machine, if the trial run takes the lock whenever it uses the cache.
    /// `None` if the lock is held for the whole run.
    lock_file: Option<PathBuf>,
    left_out: Mutex<LeftOut>,
    /// The reason that a build could not be stored in the cache; `None` if all builds could be
    /// stored.
    not_stored: Mutex<Option<String>>,
}

#[derive(Debug, Default)]
struct LeftOut {
    /// The module and the kernel of each script that was left out. The kernel is `None` for
    /// POST_ADD.
    scripts: BTreeSet<(ModuleName, Option<KernelRelease>)>,
    /// The module and the kernel of each build that may depend on a script left out before the
    /// build began.
    builds: BTreeSet<(ModuleName, KernelRelease)>,
}

impl Trial {
    /// Returns the initial state of a trial run. With a `lock_file`, the trial run holds the lock
    /// only while it uses the cache, and other runs may change the trees of the machine in between.
    #[must_use]
    pub fn new(lock_file: Option<PathBuf>) -> Self {
        Self { lock_file, ..Self::default() }
    }

    /// Acquires the lock that protects the machine's cache. Returns `None` if this run already
    /// holds the lock.
    pub(crate) fn lock_cache(&self) -> Result<Option<Lock>, FileError> {
        self.lock_file.as_deref().map(Lock::take_file).transpose()
    }

    /// Records why a build could not be stored in the cache.
    pub(crate) fn cannot_store(&self, why: String) {
        *lock(&self.not_stored) = Some(why);
    }

    /// Returns the reason that a build could not be stored in the cache, or `None` if all builds
    /// could be stored.
    #[must_use]
    pub fn not_stored(&self) -> Option<String> {
        lock(&self.not_stored).clone()
    }

    /// Returns true if this trial left out a script that would have run before the build of
    /// `module` for `kernel`: POST_ADD of the module itself, or any script of one of its
    /// dependencies.
    ///
    /// If so, a failure of this build proves nothing, and a successful build is not cached.
    #[must_use]
    pub fn left_out_scripts_of(&self, module: &ModuleId, kernel: &KernelRelease) -> bool {
        let left_out = lock(&self.left_out);
        left_out.scripts.contains(&(module.name.clone(), None))
            || left_out.builds.contains(&(module.name.clone(), kernel.clone()))
    }

    /// Records that a script of `module` was left out. `kernel` is `None` for POST_ADD.
    pub(crate) fn leave_out(&self, module: &ModuleId, kernel: Option<&KernelRelease>) {
        lock(&self.left_out).scripts.insert((module.name.clone(), kernel.cloned()));
    }

    /// Records that the build of `module` for `kernel` begins. The caller must install all modules
    /// in `depends` first.
    pub(crate) fn begins<'a>(
        &self,
        module: &ModuleId,
        kernel: &KernelRelease,
        depends: impl IntoIterator<Item = &'a ModuleName>,
    ) {
        let mut left_out = lock(&self.left_out);
        let concerns = |name: &ModuleName| {
            let of_kernel = (name.clone(), kernel.clone());
            left_out.builds.contains(&of_kernel)
                || left_out.scripts.contains(&(name.clone(), None))
                || left_out.scripts.contains(&(name.clone(), Some(kernel.clone())))
        };
        if depends.into_iter().any(concerns) {
            left_out.builds.insert((module.name.clone(), kernel.clone()));
        }
    }
}

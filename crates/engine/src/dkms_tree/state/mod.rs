//! The state of the dkms tree: which modules are added, built and installed.

mod module_dir;

use std::path::PathBuf;

use crate::machine::Trees;
use crate::names::{Arch, KernelRelease, ModuleId, ModuleName, ModuleVersion};
use crate::os::parallel::on_all_cores;
use module_dir::ModuleDir;
pub(super) use module_dir::{is_not_a_kernel, is_not_a_version};

/// The state of the dkms tree, as read from disk.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TreeState {
    /// All module versions that have a directory, sorted by name and version.
    pub modules: Vec<Added>,
    /// One message for each entry that could not be read.
    pub problems: Vec<String>,
}

/// A module version with a directory in the dkms tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Added {
    /// The module's name and version.
    pub id: ModuleId,
    /// The state of the module's source link.
    pub(crate) source: SourceState,
    /// Whether the directory `S/M-V` exists. If the module has no source link, dkms treats this
    /// directory as its source.
    pub(crate) has_source_dir: bool,
    /// The module's directories for kernels, sorted by release and architecture.
    pub kernels: Vec<BuiltFor>,
}

/// The state of a module's source link, `T/M/V/source`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SourceState {
    /// There is a symbolic link. If it leads to a directory, the module is added.
    Link {
        /// The path that the link contains, not resolved.
        target: PathBuf,
        /// The resolved path of the directory to which the link leads, or `None` if it does not
        /// lead to a directory.
        dir: Option<PathBuf>,
    },
    /// There is a directory in place of the link: the module was imported without its source.
    BinariesOnly,
    /// The link is missing, or another file is in its place.
    Missing,
}

/// A directory for the build of a module version, `T/M/V/K/A`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BuiltFor {
    /// The release of the kernel, from the directory `K`.
    pub kernel: KernelRelease,
    /// The architecture of the kernel, from the directory `A`.
    pub arch: Arch,
    /// Whether the directory contains `module/`. If so, the module counts as built.
    pub has_module_dir: bool,
    /// Whether the module is built and the link `T/M/kernel-K-A` leads to this directory.
    ///
    /// dkms compares the paths as text, which fails if the tree is reached through a link.
    /// alpm-dkms compares the directories.
    pub installed: bool,
}

impl Added {
    /// Returns true if dkms calls the module broken and refuses to work on it (dkms-behaviour 2.2).
    ///
    /// A module is broken if its source link is dangling, or if `S/M-V` exists but there is no
    /// source link.
    #[must_use]
    pub fn is_broken(&self) -> bool {
        match &self.source {
            SourceState::Link { dir, .. } => dir.is_none(),
            SourceState::BinariesOnly | SourceState::Missing => self.is_unlinked(),
        }
    }

    /// Returns true if the module is broken because its source link is missing. Adding the module
    /// again creates the link.
    #[must_use]
    pub(crate) fn is_unlinked(&self) -> bool {
        !matches!(self.source, SourceState::Link { .. }) && self.has_source_dir
    }

    /// Returns true if dkms counts the module as added.
    ///
    /// `dkms status` does not list a module that is neither added nor broken.
    #[must_use]
    pub fn is_added(&self) -> bool {
        matches!(self.source, SourceState::Link { dir: Some(_), .. })
    }

    /// Returns the build for `kernel` and `arch`, or `None` if there is none.
    #[must_use]
    pub(crate) fn built_for(&self, kernel: &KernelRelease, arch: &Arch) -> Option<&BuiltFor> {
        self.kernels
            .iter()
            .find(|built| built.has_module_dir && built.kernel == *kernel && built.arch == *arch)
    }
}

impl TreeState {
    /// Reads the dkms tree. A missing tree gives an empty state.
    ///
    /// Entries that cannot be read are skipped and reported in [`Self::problems`]. Names that start
    /// with a dot are ignored, since they belong to alpm-dkms.
    #[must_use]
    pub fn read(trees: &Trees) -> Self {
        let mut problems = Vec::new();
        let names = module_dir::dirs(&trees.dkms, |text| text.parse::<ModuleName>(), &mut problems);
        let modules = on_all_cores(&names, |(name, dir)| {
            let mut problems = Vec::new();
            let versions = ModuleDir { trees, name, dir }.versions(&mut problems);
            (versions, problems)
        });
        let mut state = Self { modules: Vec::new(), problems };
        for (added, problems) in modules {
            state.modules.extend(added);
            state.problems.extend(problems);
        }
        state.modules.sort_by(|a, b| a.id.cmp(&b.id));
        state
    }

    /// Returns the installed version of a module for a kernel, or `None` if no version is
    /// installed.
    #[must_use]
    pub fn installed_version(
        &self,
        name: &ModuleName,
        kernel: &KernelRelease,
        arch: &Arch,
    ) -> Option<&ModuleVersion> {
        self.modules
            .iter()
            .filter(|added| added.id.name == *name)
            .find(|added| added.built_for(kernel, arch).is_some_and(|built| built.installed))
            .map(|added| &added.id.version)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;
    use std::ffi::OsStr;
    use std::fs;
    use std::os::unix::ffi::OsStrExt;
    use std::os::unix::fs::symlink;
    use std::path::Path;

    const KERNEL: &str = "7.2-arch1";

    struct TestMachine {
        dir: tempfile::TempDir,
        trees: Trees,
    }

    impl TestMachine {
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            let trees = Trees::under(dir.path());
            fs::create_dir_all(&trees.dkms).unwrap();
            Self { dir, trees }
        }

        /// Creates a directory in the dkms tree.
        fn dir(&self, path: &str) -> PathBuf {
            let path = self.trees.dkms.join(path);
            fs::create_dir_all(&path).unwrap();
            path
        }

        /// Adds a module as dkms does, with an absolute source link.
        fn add(&self, id: &str) {
            let id: ModuleId = id.parse().unwrap();
            fs::create_dir_all(self.trees.source.join(id.source_dir())).unwrap();
            self.dir(&format!("{id}/build"));
            let source = Path::new("/usr/src").join(id.source_dir());
            symlink(source, self.trees.source_link(&id)).unwrap();
        }

        fn build(&self, id: &str) {
            self.dir(&format!("{id}/{KERNEL}/x86_64/module"));
        }

        fn install(&self, name: &str, target: &str) {
            symlink(target, self.trees.dkms.join(format!("{name}/kernel-{KERNEL}-x86_64")))
                .unwrap();
        }

        fn state(&self) -> TreeState {
            TreeState::read(&self.trees)
        }
    }

    #[test]
    fn reads_added_built_and_installed_modules() {
        let machine = TestMachine::new();
        for id in ["a/1", "a/2", "b/1"] {
            machine.add(id);
        }
        machine.build("a/1");
        machine.build("a/2");
        machine.install("a", &format!("2/{KERNEL}/x86_64"));
        machine.dir("a/original_module/7.2-arch1/x86_64");
        machine.dir("b/1/tarball/x");
        machine.dir(".kept/a-1");
        fs::write(machine.trees.dkms.join("mok.key"), "").unwrap();

        let state = machine.state();
        assert_eq!(state.problems, [""; 0]);
        let ids: Vec<_> = state.modules.iter().map(|added| added.id.to_string()).collect();
        assert_eq!(ids, ["a/1", "a/2", "b/1"]);
        assert!(state.modules.iter().all(|added| added.is_added() && !added.is_broken()));
        let kernels: Vec<_> = state.modules.iter().flat_map(|added| &added.kernels).collect();
        assert_eq!(kernels.len(), 2);
        assert_eq!(kernels.iter().map(|built| built.installed).collect::<Vec<_>>(), [false, true]);
        let (kernel, arch) = (KERNEL.parse().unwrap(), "x86_64".parse().unwrap());
        let installed = |name: &str| {
            state
                .installed_version(&name.parse().unwrap(), &kernel, &arch)
                .map(ModuleVersion::as_str)
        };
        assert_eq!((installed("a"), installed("b")), (Some("2"), None));
    }

    #[rstest]
    #[case::relative("1/7.2-arch1/x86_64", true)]
    #[case::absolute("/var/lib/dkms/a/1/7.2-arch1/x86_64", true)]
    #[case::through_a_link("/srv/dkms/a/1/7.2-arch1/x86_64", true)]
    #[case::other_version("2/7.2-arch1/x86_64", false)]
    #[case::dangling("3/7.2-arch1/x86_64", false)]
    fn finds_the_installed_version_by_its_link(#[case] target: &str, #[case] want: bool) {
        let machine = TestMachine::new();
        machine.add("a/1");
        machine.build("a/1");
        machine.build("a/2");
        machine.install("a", target);
        fs::create_dir(machine.dir.path().join("srv")).unwrap();
        symlink("../var/lib/dkms", machine.dir.path().join("srv/dkms")).unwrap();
        let state = machine.state();
        assert_eq!(state.modules[0].kernels[0].installed, want);
    }

    #[test]
    fn installed_module_without_objects_is_not_built() {
        let machine = TestMachine::new();
        machine.add("a/1");
        machine.dir(&format!("a/1/{KERNEL}/x86_64/log"));
        machine.install("a", &format!("1/{KERNEL}/x86_64"));
        let built = &machine.state().modules[0].kernels[0];
        assert_eq!((built.has_module_dir, built.installed), (false, false));
    }

    type Change = fn(&TestMachine);

    #[rstest]
    #[case::intact(|_: &TestMachine| {}, true, false)]
    #[case::source_gone(|m: &TestMachine| fs::remove_dir(m.trees.source.join("a-1")).unwrap(), false, true)]
    #[case::link_gone(|m: &TestMachine| fs::remove_file(m.trees.dkms.join("a/1/source")).unwrap(), false, true)]
    #[case::both_gone(|m: &TestMachine| {
        fs::remove_file(m.trees.dkms.join("a/1/source")).unwrap();
        fs::remove_dir(m.trees.source.join("a-1")).unwrap();
    }, false, false)]
    #[case::binaries_only(|m: &TestMachine| {
        fs::remove_file(m.trees.dkms.join("a/1/source")).unwrap();
        fs::remove_dir(m.trees.source.join("a-1")).unwrap();
        m.dir("a/1/source");
    }, false, false)]
    fn distinguishes_added_from_broken(
        #[case] change: Change,
        #[case] added: bool,
        #[case] broken: bool,
    ) {
        let machine = TestMachine::new();
        machine.add("a/1");
        change(&machine);
        let state = machine.state();
        let module = &state.modules[0];
        assert_eq!((module.is_added(), module.is_broken()), (added, broken));
    }

    #[test]
    fn skips_entries_with_invalid_names() {
        let machine = TestMachine::new();
        machine.add("a/1");
        machine.dir("a b/1");
        machine.dir("a/1/6.1 custom/x86_64/module");
        fs::create_dir(machine.trees.dkms.join(OsStr::from_bytes(b"bad\xff"))).unwrap();
        let state = machine.state();
        assert_eq!((state.modules.len(), state.problems.len()), (1, 3));
        assert!(state.problems.iter().all(|problem| problem.contains(": ignored: ")));
    }

    #[test]
    fn missing_tree_is_empty() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(TreeState::read(&Trees::under(dir.path())), TreeState::default());
    }
}

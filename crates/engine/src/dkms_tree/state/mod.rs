//! The state of the dkms tree: which modules are added, built and installed.

mod module_dir;

use std::path::PathBuf;

use crate::machine::Trees;
use crate::names::{Arch, KernelRelease, ModuleId, ModuleName, ModuleVersion};
use crate::os::parallel::on_all_cores;
use module_dir::ModuleDir;

/// The dkms tree as it was read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TreeState {
    /// All module versions that have a directory, in the order of name and version.
    pub modules: Vec<Added>,
    /// What could not be understood, a sentence each.
    pub problems: Vec<String>,
}

/// A module version with a directory in the dkms tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Added {
    /// Which one.
    pub id: ModuleId,
    /// What registers it.
    pub(crate) source: SourceState,
    /// Whether `S/M-V` is a directory: what dkms takes an unregistered module to come from.
    pub(crate) has_source_dir: bool,
    /// What is there for kernels, in the order of release and architecture.
    pub kernels: Vec<BuiltFor>,
}

/// What `T/M/V/source` is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SourceState {
    /// A link.
    Link {
        /// Its text.
        target: PathBuf,
        /// Whether it leads to a directory.
        resolves: bool,
    },
    /// A directory: the module was loaded without its source.
    BinariesOnly,
    /// Nothing, or something else.
    Missing,
}

/// A directory `T/M/V/K/A`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BuiltFor {
    /// The kernel.
    pub kernel: KernelRelease,
    /// Its architecture.
    pub arch: Arch,
    /// Whether `module/` is there, which makes it built.
    pub has_module_dir: bool,
    /// Whether it is built, and `T/M/kernel-K-A` leads here. dkms compares paths as text and so
    /// misses a tree that is reached through a link; here it is the directory that counts.
    pub installed: bool,
}

impl Added {
    /// Returns true if dkms calls it broken and refuses to work on it: its link leads nowhere, or
    /// there is no link although there is a source (dkms-behaviour 2.2).
    #[must_use]
    pub fn is_broken(&self) -> bool {
        match &self.source {
            SourceState::Link { resolves, .. } => !resolves,
            SourceState::BinariesOnly | SourceState::Missing => self.is_unlinked(),
        }
    }

    /// Returns true if it is broken for want of a link, which adding it again makes.
    #[must_use]
    pub(crate) fn is_unlinked(&self) -> bool {
        !matches!(self.source, SourceState::Link { .. }) && self.has_source_dir
    }

    /// Returns true if dkms counts it as added. What is neither added nor broken is hidden there.
    #[must_use]
    pub fn is_added(&self) -> bool {
        matches!(self.source, SourceState::Link { resolves: true, .. })
    }

    /// What is built for a kernel.
    #[must_use]
    pub(crate) fn built_for(&self, kernel: &KernelRelease, arch: &Arch) -> Option<&BuiltFor> {
        self.kernels
            .iter()
            .find(|built| built.has_module_dir && built.kernel == *kernel && built.arch == *arch)
    }
}

impl TreeState {
    /// Reads the dkms tree. One that is not there is empty; what cannot be read or understood is
    /// a problem of its own, and the rest is read. Entries that start with a dot are ours.
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

    /// The version of a module that is installed for a kernel.
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

        /// Makes a directory below the dkms tree.
        fn dir(&self, path: &str) -> PathBuf {
            let path = self.trees.dkms.join(path);
            fs::create_dir_all(&path).unwrap();
            path
        }

        /// Adds a module as dkms does, with an absolute link.
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
    fn reads_what_is_added_built_and_installed() {
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
    #[case::another("2/7.2-arch1/x86_64", false)]
    #[case::dangling("3/7.2-arch1/x86_64", false)]
    fn installed_is_where_the_link_leads(#[case] target: &str, #[case] want: bool) {
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
    fn what_was_installed_and_lost_its_objects_is_not_built() {
        let machine = TestMachine::new();
        machine.add("a/1");
        machine.dir(&format!("a/1/{KERNEL}/x86_64/log"));
        machine.install("a", &format!("1/{KERNEL}/x86_64"));
        let built = &machine.state().modules[0].kernels[0];
        assert_eq!((built.has_module_dir, built.installed), (false, false));
    }

    type Change = fn(&TestMachine);

    #[rstest]
    #[case::whole(|_: &TestMachine| {}, true, false)]
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
    fn tells_added_from_broken(#[case] change: Change, #[case] added: bool, #[case] broken: bool) {
        let machine = TestMachine::new();
        machine.add("a/1");
        change(&machine);
        let state = machine.state();
        let module = &state.modules[0];
        assert_eq!((module.is_added(), module.is_broken()), (added, broken));
    }

    #[test]
    fn reads_the_rest_beside_what_it_cannot_understand() {
        let machine = TestMachine::new();
        machine.add("a/1");
        machine.dir("a b/1");
        machine.dir("a/1/6.1 custom/x86_64/module");
        fs::create_dir(machine.trees.dkms.join(OsStr::from_bytes(b"bad\xff"))).unwrap();
        let state = machine.state();
        assert_eq!((state.modules.len(), state.problems.len()), (1, 3));
        assert!(state.problems.iter().all(|problem| problem.contains(" is passed over: ")));
    }

    #[test]
    fn a_tree_that_is_not_there_is_empty() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(TreeState::read(&Trees::under(dir.path())), TreeState::default());
    }
}

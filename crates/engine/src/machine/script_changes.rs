//! Distinguishes changes that a module's own scripts make to its source from changes by others.
//!
//! The digest of a source covers the files as they were before any script of the module ran.
//! Otherwise, a script that writes into the source would make each build outdated, even after a
//! rebuild.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use super::{Trees, WrittenFiles};
use crate::names::ModuleId;
use crate::os::digest::Digest;
use crate::os::durable::FileError;
use crate::os::shared::lock;
use crate::os::symlinks;
use crate::os::walk::{self, Contents, Walk};

/// A command that a module's dkms.conf defines. Changes to the module's source made while the
/// command runs are attributed to the command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Command {
    /// make, for a module whose make has not been seen to write into the source. New files are
    /// attributed to it, and so are changes to files that a script or an earlier make wrote. A
    /// change to any other file is probably the user's edit during the build.
    Make,
    /// A script of a build, or make for a module whose make has been seen to write into the source.
    InBuild,
    /// A script that runs outside builds, such as POST_INSTALL.
    OutsideBuild,
}

/// Watches the sources of modules while their scripts run.
#[derive(Debug, Default)]
pub(crate) struct ScriptChanges {
    sources: Mutex<BTreeMap<ModuleId, Arc<Mutex<Watched>>>>,
    /// Locked while the file of [`WrittenFiles`] is changed.
    file: Mutex<()>,
}

/// The source of one module, which several scripts can change at the same time.
#[derive(Debug, Default)]
struct Watched {
    /// The number of running scripts.
    running: usize,
    /// The number of scripts outside builds that are running, and the number of those that have
    /// been started.
    outside: (usize, usize),
    /// A snapshot of the source, taken when the first of the running scripts started; `None` if the
    /// source cannot be read.
    before: Option<Snapshot>,
    /// Whether a running script may have changed existing files.
    may_edit: bool,
    /// The contents of the files that earlier scripts had written, at the time of the snapshot
    /// `before`.
    written: Contents,
    /// A snapshot of the source, with contents, taken when the last script ended; `None` if the
    /// contents were not read.
    known: Option<Snapshot>,
}

#[derive(Debug)]
struct Snapshot {
    dir: PathBuf,
    walk: Walk,
    /// The contents; `None` unless a running script may change existing files. Entries that changed
    /// before they could be read are missing.
    contents: Option<Contents>,
}

/// The path of an entry in a source, and its states before and after scripts ran. A state is `None`
/// if the entry did not exist at that time.
type Change = (PathBuf, [Option<Digest>; 2]);

impl ScriptChanges {
    /// Calls `run`, which runs make or a script of the module `id`. Records the changes that it
    /// makes to the module's source.
    pub(crate) fn during<T>(
        &self,
        trees: &Trees,
        id: &ModuleId,
        command: Command,
        run: impl FnOnce() -> T,
    ) -> T {
        let watched = Arc::clone(lock(&self.sources).entry(id.clone()).or_default());
        let written = || WrittenFiles::read_all(trees).remove(&id.source_dir()).unwrap_or_default();
        lock(&watched).begins(command, || Snapshot::of(trees, id), || written().paths());
        let result = run();
        // Stays locked until the changes are recorded, so that their order is correct.
        let mut watched = lock(&watched);
        let recorded = watched.ends(command).and_then(|it| self.record(trees, id, &it));
        // This is only a warning: without the record, the next run merely rebuilds the module.
        if let Err(error) = recorded {
            log::warn!("{id}: cannot record what its scripts changed: {error}");
        }
        result
    }

    /// Returns a number that changes whenever a script of the module `id` runs outside a build.
    /// Returns `None` while such a script is running.
    pub(crate) fn scripts_outside_builds(&self, id: &ModuleId) -> Option<usize> {
        let watched = Arc::clone(lock(&self.sources).entry(id.clone()).or_default());
        let (running, started) = lock(&watched).outside;
        (running == 0).then_some(started)
    }

    fn record(&self, trees: &Trees, id: &ModuleId, changes: &[Change]) -> Result<(), FileError> {
        if changes.is_empty() {
            return Ok(());
        }
        let _guard = lock(&self.file);
        let mut all = WrittenFiles::read_all(trees);
        let written = all.entry(id.source_dir()).or_default();
        for (path, [before, after]) in changes {
            written.add(path, *before, *after);
        }
        WrittenFiles::write_all(&all, trees)
    }
}

impl Watched {
    fn begins(
        &mut self,
        command: Command,
        now: impl FnOnce() -> Option<Snapshot>,
        written: impl FnOnce() -> BTreeSet<PathBuf>,
    ) {
        let edits = command != Command::Make;
        self.running += 1;
        if command == Command::OutsideBuild {
            self.outside.0 += 1;
            self.outside.1 += 1;
        }
        if self.running == 1 {
            self.may_edit = edits;
            self.before = now().map(|now| match self.known.take() {
                Some(known) if known.is_same(&now) => known,
                _ => now,
            });
            let Some(before) = self.before.as_mut() else { return };
            self.written = before.walk.only(&written()).contents().unwrap_or_default();
            if edits && before.contents.is_none() {
                before.contents = before.walk.contents().ok();
            }
            return;
        }
        self.may_edit |= edits;
        if let Some(before) = self.before.as_mut().filter(|it| edits && it.contents.is_none())
            && let Some(now) = now()
        {
            let changed = now.walk.changed_since(&before.walk);
            let mut contents = now.walk.contents().unwrap_or_default();
            contents.retain(|path, _| !changed.contains(path));
            before.contents = Some(contents);
        }
    }

    /// Returns the changes that are attributed to the scripts. The list is empty while another
    /// script is running: the call for the last script returns all changes.
    fn ends(&mut self, command: Command) -> Result<Vec<Change>, FileError> {
        self.running -= 1;
        self.outside.0 -= usize::from(command == Command::OutsideBuild);
        let Some(before) = self.before.take_if(|_| self.running == 0) else {
            return Ok(Vec::new());
        };
        let Snapshot { dir, walk: earlier, contents } = before;
        let walk = Walk::over(&walk::whole(&dir))?;
        let changed = walk.changed_since(&earlier);
        let mut now = walk.only(&changed).contents()?;
        let existed = earlier.only(&changed).paths();
        let mut changes = Vec::new();
        for path in &changed {
            let known = contents.as_ref().filter(|_| self.may_edit);
            let was = known.and_then(|it| it.get(path)).or(self.written.get(path)).copied();
            let is_attributed = !existed.contains(path) || was.is_some();
            if is_attributed && was != now.get(path).copied() {
                changes.push((path.clone(), [was, now.get(path).copied()]));
            }
        }
        self.known = contents.map(|mut contents| {
            contents.retain(|path, _| !changed.contains(path));
            contents.append(&mut now);
            Snapshot { dir, walk, contents: Some(contents) }
        });
        Ok(changes)
    }
}

impl Snapshot {
    /// Returns the current state of the source of the module `id`. Returns `None` if it cannot be
    /// read.
    fn of(trees: &Trees, id: &ModuleId) -> Option<Self> {
        let dir = symlinks::resolve(&trees.root, &trees.source_link(id)).ok()?;
        let walk = Walk::over(&walk::whole(&dir)).ok()?;
        Some(Self { dir, walk, contents: None })
    }

    fn is_same(&self, other: &Self) -> bool {
        self.dir == other.dir && other.walk.changed_since(&self.walk).is_empty()
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use rstest::rstest;

    use super::*;

    /// A module with its source.
    struct Module {
        _root: tempfile::TempDir,
        trees: Trees,
        id: ModuleId,
        changes: ScriptChanges,
    }

    impl Module {
        fn new() -> Self {
            let root = tempfile::tempdir().unwrap();
            let trees = Trees::under(root.path());
            let id: ModuleId = "foo/1.0".parse().unwrap();
            fs::create_dir_all(trees.source.join("foo-1.0")).unwrap();
            fs::create_dir_all(trees.version(&id)).unwrap();
            symlink("/usr/src/foo-1.0", trees.source_link(&id)).unwrap();
            let module = Self { _root: root, trees, id, changes: ScriptChanges::default() };
            module.write("foo.c", "int a;\n");
            module.write("Makefile", "obj-m := foo.o\n");
            module
        }

        fn write(&self, file: &str, text: &str) {
            fs::write(self.trees.source.join("foo-1.0").join(file), text).unwrap();
        }

        fn remove(&self, file: &str) {
            fs::remove_file(self.trees.source.join("foo-1.0").join(file)).unwrap();
        }

        fn during<T>(&self, command: Command, run: impl FnOnce() -> T) -> T {
            self.changes.during(&self.trees, &self.id, command, run)
        }

        /// Returns the contents without the changes by scripts.
        fn original(&self) -> Contents {
            let written = WrittenFiles::read_all(&self.trees).remove("foo-1.0").unwrap_or_default();
            let snapshot = Snapshot::of(&self.trees, &self.id).unwrap();
            written.undo(snapshot.walk.contents().unwrap())
        }
    }

    #[test]
    fn script_during_make_may_change_any_file() {
        let module = Module::new();
        let before = module.original();
        module.during(Command::Make, || {
            module.write("early.h", "");
            module.during(Command::OutsideBuild, || {
                module.write("foo.c", "int b;\n");
                module.remove("Makefile");
                module.write("gen.h", "#define X\n");
            });
            module.write("late.h", "");
        });
        assert_eq!(module.original(), before);
        // The next script starts from this state.
        module.during(Command::InBuild, || {
            module.write("foo.c", "int c;\n");
            module.remove("gen.h");
            module.write("Makefile", "obj-m := bar.o\n");
        });
        assert_eq!(module.original(), before);
    }

    #[rstest]
    #[case::edit("foo.c", "int user;\n")]
    #[case::edit_of_a_generated_file("gen.h", "#define USER\n")]
    #[case::new_file("user.h", "")]
    fn change_between_two_scripts_is_not_attributed_to_them(
        #[case] file: &str,
        #[case] text: &str,
    ) {
        let module = Module::new();
        let before = module.original();
        let script = || {
            module.write("gen.h", "#define X\n");
            module.write("stamp", "");
        };
        module.during(Command::OutsideBuild, script);
        module.write(file, text);
        let edited = module.original();
        assert_ne!(edited, before);
        module.during(Command::OutsideBuild, || module.write("Makefile", "obj-m := bar.o\n"));
        module.during(Command::Make, || module.write("log", "made\n"));
        assert_eq!(module.original(), edited);
    }

    #[rstest]
    #[case::make(Command::Make, false)]
    #[case::script(Command::InBuild, true)]
    fn only_new_files_are_attributed_to_make(#[case] command: Command, #[case] is_same: bool) {
        let module = Module::new();
        let before = module.original();
        module.during(command, || {
            module.write("foo.c", "int user;\n");
            module.write("gen.h", "");
        });
        let after = module.original();
        assert_eq!(after == before, is_same);
        assert_eq!(after.len(), before.len(), "gen.h counts");
        module.write("foo.c", "int a;\n");
        assert_eq!(module.original(), before);
    }

    #[test]
    fn scripts_outside_builds_are_counted() {
        let module = Module::new();
        let count = || module.changes.scripts_outside_builds(&module.id);
        let before = count();
        module.during(Command::InBuild, || ());
        assert_eq!(count(), before);
        module.during(Command::OutsideBuild, || assert_eq!(count(), None));
        assert_ne!(count(), before);
    }
}

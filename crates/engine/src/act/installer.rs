//! Installs and uninstalls modules, and runs their scripts.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::interruption::complete_unless;
use super::pending_images;
use crate::conf::Confs;
use crate::dkms_tree::{
    BuiltObject, Inventory, NotedImages, PendingList, PendingWork, Placed, RefusedObject, Workplace,
};
use crate::facts::Facts;
use crate::failure::Failure;
use crate::installing::{self, BuiltModule, Choice, Refused};
use crate::machine::{Command, Machine};
use crate::module_scripts::{Ran, Script};
use crate::names::{KernelRelease, ModuleId};
use crate::os::durable::{Durability, FileError};
use crate::os::symlinks;
use crate::other_distributions::weak_modules::{self, WeakChange};
use crate::report::Outcome;

/// The parts of a run that are needed to install and uninstall modules. The main thread and the
/// installing thread each create their own installer.
pub(super) struct Installer<'a> {
    machine: &'a Machine,
    facts: &'a Facts,
    confs: &'a Confs<'a>,
    say: &'a mut dyn FnMut(&str),
}

impl<'a> Installer<'a> {
    /// Returns an installer that passes the output of scripts and checks to `say`, line by line.
    pub(super) fn new(
        machine: &'a Machine,
        facts: &'a Facts,
        confs: &'a Confs<'a>,
        say: &'a mut dyn FnMut(&str),
    ) -> Self {
        Self { machine, facts, confs, say }
    }

    /// Installs the module `new` in place of `replaces`, the installed version. Runs the scripts of
    /// the new version, and POST_REMOVE of the old one if its source has been removed. Returns
    /// [`Outcome::Declined`] if the kernel has the same or a newer module.
    pub(super) fn install(
        &mut self,
        mut new: BuiltModule<'_>,
        replaces: Option<&ModuleId>,
    ) -> Result<Outcome, Failure> {
        let (machine, module, kernel) = (self.machine, new.id, new.kernel);
        let old = replaces.map(|old| BuiltModule::read(machine, old, kernel));
        let departing = old.as_ref().filter(|old| self.departs(old.id));
        let old_script = departing.and_then(|old| self.directive(old, "POST_REMOVE"));
        if let Some(about) = self.facts.kernels.get(kernel) {
            installing::refinish(&mut new, &about.kernel)?;
            new.relocate(&about.kernel)?;
        }
        self.pre_install(&new)?;
        installing::restore_originals(machine, module, kernel)?;
        let mut inventory = new.inventory();
        if let Some(old) = &old {
            old.assume(&mut inventory);
        }
        let chosen = match self.chosen(&mut new, &inventory)? {
            Ok(chosen) => chosen,
            Err(why) => return Ok(Outcome::Declined(why)),
        };
        let work = PendingWork::install(module, kernel);
        let is_repeated = self.facts.pending.contains(&work);
        let changed = pending_images::of_install(&new, &inventory, &chosen, is_repeated);
        let noted = self.note_images(&new, &changed, Durability::None)?;
        let (mut said, mut cut_short) = (Vec::new(), false);
        let changed =
            self.undoing(noted, &new, |new| installing::place(new, &mut inventory, &chosen))?;
        said.extend(changed.iter().map(|path| not_removed(path, module)));
        let mut collect = |ran: Ran| {
            said.extend(ran.said);
            cut_short |= ran.cut_short;
        };
        if let (Some(old), Some(value)) = (replaces, &old_script) {
            collect(run_script(machine, old, kernel, "POST_REMOVE", value));
        }
        let told = self.wants_weak_modules(&new)
            && weak_modules::notify(
                machine,
                kernel,
                WeakChange::Added,
                &in_kernel(module, &inventory),
            );
        if let Some(value) = self.directive(&new, "POST_INSTALL") {
            collect(run_script(machine, module, kernel, "POST_INSTALL", &value));
        }
        self.say_all(&said);
        complete_unless(told || cut_short)?;
        Ok(Outcome::Done)
    }

    /// Returns true if the source of the replaced version `old` has been removed. As in dkms, a
    /// version with a source stays built, and its POST_REMOVE script does not run.
    fn departs(&self, old: &ModuleId) -> bool {
        self.facts.modules.get(old).is_none_or(|old| old.source_is_absent)
    }

    /// Signs the objects of an installed module, and installs them again if they have changed.
    pub(super) fn sign(&mut self, mut built: BuiltModule<'_>) -> Result<Outcome, Failure> {
        let before = built.record().cloned();
        if let Some(about) = self.facts.kernels.get(built.kernel) {
            installing::refinish(&mut built, &about.kernel)?;
        }
        if built.record() == before.as_ref() {
            return Ok(Outcome::Done);
        }
        self.install(built, None)
    }

    /// Runs the PRE_INSTALL script. Returns a failure with dkms's exit code 101 if the script
    /// fails, unless the installation is forced.
    fn pre_install(&mut self, new: &BuiltModule<'_>) -> Result<(), Failure> {
        let Some(value) = self.directive(new, "PRE_INSTALL") else { return Ok(()) };
        let ran = run_script(self.machine, new.id, new.kernel, "PRE_INSTALL", &value);
        // No object has been placed yet, so the installation can still be cancelled.
        complete_unless(self.machine.tools.stop.asked().is_some())?;
        // The last line says how the script failed.
        if let Some((problem, output)) = ran.said.split_last()
            && ran.status != 0
            && !self.machine.options.force_install
        {
            let of_module = format!("{}: ", new.id);
            let problem = problem.strip_prefix(&of_module).unwrap_or(problem);
            let output: String = output.iter().map(|line| format!("\n{line}")).collect();
            let message = format!("{problem}{output}");
            return Err(Failure::new(101, message).with_hint(force_install(new)));
        }
        self.say_all(&ran.said);
        Ok(())
    }

    /// Returns the built objects, each with the way in which it is installed (dkms-behaviour 5.3).
    /// Reports and records those that are not installed. If no object may be installed, returns the
    /// reason as `Ok(Err(…))`, or as a [`Failure`] if another module or version has installed one
    /// of the objects.
    fn chosen(
        &mut self,
        new: &mut BuiltModule<'_>,
        inventory: &Inventory,
    ) -> Result<Result<Vec<(BuiltObject, Choice)>, String>, Failure> {
        let obsolete_by = self.directive(new, "OBSOLETE_BY");
        let chosen = installing::choose(new, inventory, obsolete_by.as_deref());
        let refused: Vec<&Refused> = chosen
            .iter()
            .filter_map(|(_, choice)| match choice {
                Choice::Refuse(refused) => Some(refused),
                _ => None,
            })
            .collect();
        let all = !chosen.is_empty() && refused.len() == chosen.len();
        let line = |refused: &&Refused| {
            format!("{}: not installed: {}", refused.object.name, refused.object.why)
        };
        if all && refused.iter().any(|refused| refused.by_dkms) {
            let lines: Vec<String> = refused.iter().map(line).collect();
            return Err(Failure::new(6, lines.join("\n")).with_hint(force_install(new)));
        }
        if !all {
            let lines = refused.iter().map(|it| format!("note: {}: {}", new.id, line(it)));
            let mut lines: Vec<String> = lines.collect();
            lines.extend(chosen.iter().filter_map(|(object, choice)| match choice {
                Choice::Leave(why) => Some(format!(
                    "note: {}: {}: not replaced: {why}\n  {}",
                    new.id,
                    object.name,
                    force_install(new)
                )),
                _ => None,
            }));
            self.say_all(&lines);
        }
        let refused: Vec<RefusedObject> = refused.into_iter().map(|it| it.object.clone()).collect();
        let why = RefusedObject::reasons(&refused);
        new.change(|record| record.refused = refused)?;
        Ok(if all { Err(why) } else { Ok(chosen) })
    }

    /// Removes the objects of a module from a kernel's directory, and runs the POST_REMOVE script.
    pub(super) fn uninstall(
        &mut self,
        module: &ModuleId,
        kernel: &KernelRelease,
    ) -> Result<(), Failure> {
        let built = BuiltModule::read(self.machine, module, kernel);
        let mut cut_short = false;
        if self.wants_weak_modules(&built) {
            let files = in_kernel(module, &built.inventory());
            cut_short = weak_modules::notify(self.machine, kernel, WeakChange::Removed, &files);
        }
        // Noted first: once the objects are removed, nothing else shows that the images need a
        // check.
        let objects = pending_images::of_uninstall(&built);
        let noted = self.note_images(&built, &objects, Durability::Full)?;
        let foreign = self.undoing(noted, &built, installing::uninstall)?;
        if let Some(value) = self.directive(&built, "POST_REMOVE") {
            let ran = run_script(self.machine, module, kernel, "POST_REMOVE", &value);
            self.say_all(&ran.said);
            cut_short |= ran.cut_short;
        }
        let left: Vec<String> = foreign.iter().map(|path| not_removed(path, module)).collect();
        self.say_all(&left);
        complete_unless(cut_short)
    }

    /// Records that `objects` change, since the images of the kernel may contain them. Does nothing
    /// if `objects` is empty.
    fn note_images(
        &self,
        built: &BuiltModule<'_>,
        objects: &BTreeSet<String>,
        durability: Durability,
    ) -> Result<Option<NotedImages>, FileError> {
        if objects.is_empty() {
            return Ok(None);
        }
        pending_images::note(self.machine, self.facts, built.kernel, objects, durability)
    }

    /// Calls `change`, which changes the objects of a module. If `change` fails before it has
    /// changed any object, takes back the entry `noted`.
    fn undoing<T>(
        &self,
        noted: Option<NotedImages>,
        built: &BuiltModule<'_>,
        change: impl FnOnce(&BuiltModule<'_>) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        let inodes = || {
            let inventory = built.inventory();
            let placed = inventory.objects().filter(|it| it.module.name == built.id.name);
            let inode = |placed: &Placed| {
                let meta = fs::symlink_metadata(inventory.dir().join(&placed.path));
                (placed.path.clone(), meta.ok().map(|meta| meta.ino()))
            };
            placed.map(inode).collect::<BTreeMap<_, _>>()
        };
        let Some(noted) = noted else { return change(built) };
        let before = inodes();
        let result = change(built);
        if result.is_err()
            && before == inodes()
            && let Err(error) = PendingList::of(&self.machine.trees).take_back_images(noted)
        {
            log::info!("{error}");
        }
        result
    }

    fn say_all(&mut self, lines: &[String]) {
        lines.iter().for_each(|line| (self.say)(line));
    }

    fn wants_weak_modules(&self, built: &BuiltModule<'_>) -> bool {
        let value = self.directive(built, "NO_WEAK_MODULES");
        self.machine.trial.is_none()
            && !value.is_some_and(|value| value.trim().eq_ignore_ascii_case("yes"))
    }

    /// Returns the value of a directive: from the record of the build or, without a record, from
    /// dkms.conf. Returns `None` if the directive is not set or dkms.conf cannot be evaluated.
    fn directive(&self, built: &BuiltModule<'_>, directive: &str) -> Option<String> {
        if let Some(record) = built.record() {
            return record.values.text(directive, 0).map(str::to_owned);
        }
        let about = self.facts.kernels.get(built.kernel)?;
        let (values, _) = self.confs.evaluate(built.id, &about.kernel).ok()?;
        values.text(directive, 0).map(str::to_owned)
    }
}

/// Returns the hint for a module that `--force` would install.
fn force_install(new: &BuiltModule<'_>) -> String {
    format!("run: dkms install {} -k {} --force", new.id, new.kernel)
}

/// Returns the paths of a module's placed objects in the kernel's directory.
fn in_kernel(module: &ModuleId, inventory: &Inventory) -> Vec<PathBuf> {
    inventory.of(module).map(|placed| inventory.dir().join(&placed.path)).collect()
}

/// Returns the message for an object that has been replaced by another file.
fn not_removed(path: &Path, module: &ModuleId) -> String {
    format!("{}: not removed: not installed by {module}", path.display())
}

/// Runs the script in `value`, which is the value of `directive`. The script runs in the module's
/// source directory or, if the source has been removed, in the copy that alpm-dkms keeps. A trial
/// run skips the script.
pub(super) fn run_script(
    machine: &Machine,
    module: &ModuleId,
    kernel: &KernelRelease,
    directive: &'static str,
    value: &str,
) -> Ran {
    let link = machine.trees.source_link(module);
    // dkms runs scripts through the symbolic link `source`. Below another root, the link would lead
    // out of that root.
    let dir = match machine.trees.root == Path::new("/") {
        true => link,
        false => symlinks::resolve(&machine.trees.root, &link).unwrap_or(link),
    };
    let script = Script { directive, value, place: Workplace::open(dir) };
    if let Some(trial) = &machine.trial {
        if script.exists(machine, module) {
            trial.leave_out(module, (directive != "POST_ADD").then_some(kernel));
        }
        return Ran { said: Vec::new(), status: 0, cut_short: false };
    }
    machine.script_changes.during(&machine.trees, module, Command::OutsideBuild, || {
        script.run(machine, module, kernel)
    })
}

//! The part of a plan that makes modules known, and places them in a kernel's directory or takes
//! them out, with the scripts that belong to it.

use std::path::{Path, PathBuf};

use super::interruption::complete_unless;
use super::{Run, pending_images};
use crate::dkms_tree::{BuiltObject, Record, Workplace};
use crate::failure::Failure;

use crate::installing::{conflicts, place, refinish, uninstall};
use crate::machine::Machine;
use crate::module_scripts::{Ran, Script};
use crate::names::{KernelRelease, ModuleId};
use crate::os::{durable, symlinks};
use crate::other_distributions::weak_modules::{self, WeakChange};

impl Run<'_> {
    /// Makes a module known, and runs its POST_ADD. A command that only adds ends with that
    /// script's status; the module stays added in any case (dkms-behaviour 2.4).
    pub(super) fn register(&mut self, module: &ModuleId) -> Result<(), Failure> {
        let trees = &self.machine.trees;
        durable::create_dirs(&trees.build(module))?;
        let dir = self.facts.modules.get(module).map(|facts| facts.source_dir.clone());
        let source = trees.source.join(dir.unwrap_or_else(|| module.source_dir()));
        let target = symlinks::text_for(&trees.root, &source);
        durable::replace_link(&trees.source_link(module), &target)?;
        let pairs = self.facts.modules.get(module).into_iter().flat_map(|m| &m.pairs);
        let script = pairs
            .filter_map(|(kernel, pair)| Some((kernel, pair.values()?.text("POST_ADD", 0)?)))
            .next();
        let Some((kernel, value)) = script else { return Ok(()) };
        let ran = run_script(self.machine, module, kernel, "POST_ADD", value);
        if ran.status != 0 && self.machine.options.only_added {
            return Err(Failure::new(ran.status, ran.said.join("\n")));
        }
        self.say(&ran.said);
        Ok(())
    }

    pub(super) fn install(
        &mut self,
        module: &ModuleId,
        kernel: &KernelRelease,
        replaces: Option<&ModuleId>,
    ) -> Result<(), Failure> {
        let mut old_script = None;
        if let Some(old) = replaces {
            old_script = self.script_of(old, kernel, "POST_REMOVE");
        }
        let machine = self.machine;
        self.touched.insert(kernel.clone());
        if let Some(about) = self.facts.kernels.get(kernel) {
            refinish::objects(machine, module, &about.kernel)?;
            place::relocate(machine, module, &about.kernel)?;
        }
        self.pre_install(module, kernel)?;
        place::restore_originals(machine, module, kernel)?;
        let objects = self.allowed(module, kernel)?;
        self.note_images(
            module,
            kernel,
            &pending_images::of_install(machine, kernel, module, replaces, &objects),
        )?;
        let (mut said, mut cut_short) = (Vec::new(), false);
        let mut heed = |ran: Ran| {
            said.extend(ran.said);
            cut_short |= ran.cut_short;
        };
        place::place(machine, module, kernel, &objects, replaces, || {
            if let (Some(old), Some(value)) = (replaces, &old_script) {
                heed(run_script(machine, old, kernel, "POST_REMOVE", value));
            }
        })?;
        let told = self.wants_weak_modules(module, kernel)
            && weak_modules::tell(
                machine,
                kernel,
                WeakChange::Added,
                &in_kernel(machine, module, kernel),
            );
        if let Some(value) = self.script_of(module, kernel, "POST_INSTALL") {
            heed(run_script(machine, module, kernel, "POST_INSTALL", &value));
        }
        self.say(&said);
        complete_unless(told || cut_short)
    }

    /// Runs PRE_INSTALL, which may object (dkms's 101).
    fn pre_install(&mut self, module: &ModuleId, kernel: &KernelRelease) -> Result<(), Failure> {
        let Some(value) = self.script_of(module, kernel, "PRE_INSTALL") else { return Ok(()) };
        let ran = run_script(self.machine, module, kernel, "PRE_INSTALL", &value);
        // Nothing is placed yet: better not to begin.
        complete_unless(self.is_stopped())?;
        if ran.status != 0 && !self.machine.options.force_install {
            let mut message = format!(
                "its PRE_INSTALL script objects (exit status {}): {value}; to install it all the \
                 same: --force",
                ran.status
            );
            for line in &ran.said {
                message.push('\n');
                message.push_str(line);
            }
            return Err(Failure::new(101, message));
        }
        self.say(&ran.said);
        Ok(())
    }

    /// The built objects without those that must not be installed (dkms-behaviour 5.3).
    fn allowed(
        &mut self,
        module: &ModuleId,
        kernel: &KernelRelease,
    ) -> Result<Vec<BuiltObject>, Failure> {
        let mut objects = place::objects(self.machine, module, kernel);
        let obsolete_by = self.script_of(module, kernel, "OBSOLETE_BY");
        let refused =
            conflicts::refused(self.machine, module, kernel, obsolete_by.as_deref(), &objects);
        let all = !objects.is_empty() && refused.len() == objects.len();
        let lines: Vec<String> = refused
            .iter()
            .map(|refused| format!("{} is not installed: {}", refused.object, refused.why))
            .collect();
        if all {
            return Err(Failure::new(6, lines.join("\n")));
        }
        self.say(&lines);
        objects.retain(|object| refused.iter().all(|refused| refused.object != object.name));
        Ok(objects)
    }

    pub(super) fn uninstall(
        &mut self,
        module: &ModuleId,
        kernel: &KernelRelease,
    ) -> Result<(), Failure> {
        self.touched.insert(kernel.clone());
        let mut cut_short = false;
        if self.wants_weak_modules(module, kernel) {
            let going = in_kernel(self.machine, module, kernel);
            cut_short = weak_modules::tell(self.machine, kernel, WeakChange::Removed, &going);
        }
        self.note_images(
            module,
            kernel,
            &pending_images::of_uninstall(self.machine, kernel, module),
        )?;
        let foreign = uninstall::uninstall(self.machine, module, kernel)?;
        if let Some(value) = self.script_of(module, kernel, "POST_REMOVE") {
            let ran = run_script(self.machine, module, kernel, "POST_REMOVE", &value);
            self.say(&ran.said);
            cut_short |= ran.cut_short;
        }
        let left: Vec<String> = foreign
            .iter()
            .map(|path| format!("{} stays: it is not what {module} placed there", path.display()))
            .collect();
        self.say(&left);
        complete_unless(cut_short)
    }

    fn wants_weak_modules(&mut self, module: &ModuleId, kernel: &KernelRelease) -> bool {
        let value = self.script_of(module, kernel, "NO_WEAK_MODULES");
        !value.is_some_and(|value| value.trim().eq_ignore_ascii_case("yes"))
    }

    /// The value of a directive that matters when a module is installed: as recorded when the module was built, or as
    /// dkms.conf says now.
    pub(super) fn script_of(
        &mut self,
        module: &ModuleId,
        kernel: &KernelRelease,
        directive: &str,
    ) -> Option<String> {
        let path = Record::path(&self.machine.trees, module, kernel, &self.machine.arch);
        if let Some(record) = Record::read(&path) {
            return record.values.text(directive, 0).map(str::to_owned);
        }
        let about = self.facts.kernels.get(kernel)?;
        let (values, _) = self.confs.ask(module, &about.kernel).ok()?;
        values.text(directive, 0).map(str::to_owned)
    }
}

/// What stands of a module in a kernel's directory.
fn in_kernel(machine: &Machine, module: &ModuleId, kernel: &KernelRelease) -> Vec<PathBuf> {
    let dir = machine.trees.kernel(kernel);
    place::placed(machine, module, kernel).iter().map(|placed| dir.join(&placed.path)).collect()
}

/// Runs a script from the module's source, as it is or as it was kept.
fn run_script(
    machine: &Machine,
    module: &ModuleId,
    kernel: &KernelRelease,
    directive: &'static str,
    value: &str,
) -> Ran {
    let link = machine.trees.source_link(module);
    // By the name that dkms has for it; in another root that would lead out of there.
    let dir = match machine.trees.root == Path::new("/") {
        true => link,
        false => symlinks::resolve(&machine.trees.root, &link).unwrap_or(link),
    };
    Script { directive, value, place: Workplace::open(dir) }.run(machine, module, kernel)
}

//! Adds modules to the dkms tree, adopts builds made by dkms, and removes modules.

use std::collections::BTreeMap;

use super::Run;
use super::installer::run_script;
use crate::dkms_tree::{BuiltObject, FORMAT, Inputs, PendingWork, Record};
use crate::failure::Failure;
use crate::installing::{self, BuiltModule};
use crate::names::{KernelRelease, ModuleId, ModuleName};
use crate::objects::Payload;
use crate::os::digest::Digest;
use crate::os::durable::{self, Durability, FileError};
use crate::os::{copy_tree, symlinks};
use crate::report::Outcome;
use crate::{building, signing};

impl Run<'_> {
    /// Adds a module and runs its POST_ADD script.
    ///
    /// The module stays added even if the script fails. Returns a failure, with the exit code of
    /// the script, only if the command does nothing but add modules (dkms-behaviour 2.4).
    pub(super) fn register(&mut self, module: &ModuleId) -> Result<(), Failure> {
        let trees = &self.machine.trees;
        durable::create_dirs(&trees.build(module))?;
        self.pending.clear(&PendingWork::Remove(module.clone()))?;
        let dir = self.facts.modules.get(module).map(|facts| facts.source_dir.clone());
        let source = trees.source.join(dir.unwrap_or_else(|| module.source_dir()));
        let target = symlinks::text_for(&trees.root, &source);
        durable::replace_link_unsynced(&trees.source_link(module), &target)?;
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

    pub(super) fn use_kept(&self, module: &ModuleId) -> Result<(), Failure> {
        let trees = &self.machine.trees;
        let target = symlinks::text_for(&trees.root, &trees.kept(module));
        durable::replace_link_unsynced(&trees.source_link(module), &target)?;
        Ok(())
    }

    pub(super) fn adopt(
        &self,
        module: &ModuleId,
        kernel: &KernelRelease,
        depends: &BTreeMap<ModuleName, Digest>,
    ) -> Result<(), Failure> {
        let machine = self.machine;
        let pair = self.facts.pair(module, kernel);
        let (Some(inputs), Some(values)) =
            (pair.and_then(|p| p.inputs.clone()), pair.and_then(|p| p.values().cloned()))
        else {
            return Err(Failure::new(1, "cannot read the source or the kernel headers"));
        };
        let mut objects = BuiltModule::read(machine, module, kernel).objects().to_vec();
        if let Some(about) = self.facts.kernels.get(kernel) {
            installing::locate_by_conf(machine, module, &about.kernel, &values, &mut objects);
        }
        let module_dir = BuiltModule::read(machine, module, kernel).dir();
        let is_signed = |object: &BuiltObject| {
            let file = module_dir.join(&object.name);
            Payload::read(&machine.tools, &machine.env, &file).is_some_and(|it| it.is_signed)
        };
        // dkms signs its builds with the same key as alpm-dkms.
        let signing = self.facts.kernels.get(kernel);
        let signing = signing.and_then(|about| signing::certificate(machine, &about.kernel));
        let signing = signing.filter(|_| objects.iter().all(is_signed));
        let record = Record {
            format: FORMAT,
            module: module.clone(),
            kernel: kernel.clone(),
            arch: machine.arch.clone(),
            adopted: true,
            build_seconds: 0,
            compiler: String::new(),
            changes_source: false,
            inputs: Inputs { depends: depends.clone(), ..inputs },
            values,
            objects,
            refused: Vec::new(),
            signing,
        };
        installing::restore_originals(machine, module, kernel)?;
        let source = machine.trees.source_link(module);
        let source = symlinks::resolve(&machine.trees.root, &source)
            .map_err(FileError::when("find", &source))?;
        let kept = machine.trees.kept(module);
        if source != kept && !kept.exists() {
            // Hard links would change the ctimes of the source, and other builds by dkms would then
            // count as older than the source.
            building::keep(&source, &kept, copy_tree::take_tree)?;
        }
        let path = Record::path(&machine.trees, module, kernel, &machine.arch);
        record.write_with(&path, Durability::None)?;
        let built = BuiltModule::of(machine, module, kernel, Some(record));
        let mut inventory = built.inventory();
        inventory.examine(machine, kernel);
        inventory.write()?;
        Ok(())
    }

    pub(super) fn deregister(&mut self, module: &ModuleId) -> Result<Outcome, Failure> {
        let kernels = self.facts.modules.get(module).map(|m| &m.pairs);
        let kernels = kernels.into_iter().flat_map(|pairs| pairs.keys());
        let left = kernels.clone().find(|kernel| {
            let built = self.machine.trees.built(module, kernel, &self.machine.arch);
            built.join("module").is_dir()
        });
        if let Some(kernel) = left {
            return Ok(Outcome::Skipped(format!("still built for {kernel}")));
        }
        self.note_pending(PendingWork::Remove(module.clone()), Digest::of_nothing())?;
        let of_module = |work: &&PendingWork| matches!(work, PendingWork::Install { module: it, .. } if it == module);
        for work in self.facts.pending.iter().filter(of_module) {
            self.pending.clear(work)?;
        }
        installing::deregister(self.machine, module, kernels.cloned())?;
        Ok(Outcome::Done)
    }
}

//! Builds one module for one kernel and publishes the result as `T/M/V/K/A`.

mod blame;
mod causes;
mod compilers;
mod diagnose;
mod from_cache;
pub(crate) mod log_lines;
mod make;
mod make_log;
mod post_build;
mod products;
mod room;
mod tried;
mod working_copy;

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Instant;

use crate::conf::{Conf, ConfRequest, Confs, Excluded, Values};
use crate::dkms_tree::{
    FORMAT, Inputs, KnownFailure, Record, STAGING, TreeState, Workplace, forget_failure,
    remove_staging,
};
use crate::facts::{Facts, Fingerprints, SourceLink};
use crate::failure::Failure;
use crate::machine::{Command, Kernel, KernelConfig, Machine};
use crate::module_scripts::{self, Script};
use crate::names::{ModuleId, ModuleName, ModuleVersion};
use crate::os::digest::Digest;
use crate::os::durable::{self, FileError};
use crate::os::jobserver::Jobserver;
use crate::os::process::{Environment, Output};
use crate::os::shared::lock;
use crate::report::Phase;
use crate::version;

pub(crate) use blame::diagnose_last_step;
pub(crate) use causes::{Cause, CauseKind, CauseTexts};
pub(crate) use compilers::{compile_once, launcher};
pub(crate) use diagnose::Diagnosis;
pub(crate) use make::compiler as compiler_version;
pub(crate) use make_log::MakeLog;
pub(crate) use tried::{Attempt, Tried};
pub(crate) use working_copy::keep;

use blame::SCARCE;
use room::RoomWatch;

/// The build of one module for one kernel.
pub(crate) struct Build<'a> {
    pub machine: &'a Machine,
    pub id: &'a ModuleId,
    pub kernel: &'a Kernel,
    /// The fingerprints of the module's dependencies.
    pub depends: &'a BTreeMap<ModuleName, Digest>,
    /// The jobserver that limits the parallel jobs of make.
    pub jobserver: &'a Jobserver,
    /// Called at the start of each phase.
    pub report: &'a dyn Fn(Phase),
    /// Called with each line to show to the user.
    pub say: &'a dyn Fn(String),
    /// Whether the plan found the build in the cache.
    pub cached: bool,
    /// The number of objects that the whole run compiles for this kernel.
    pub objects: usize,
    /// The directory in which the module is built.
    pub workplace: Workplace,
    /// The state shared with the builds of this module for other kernels.
    pub shared: &'a Mutex<Shared>,
    /// The mode of this build: alone, or beside builds of the module for other kernels.
    pub attempt: Attempt,
    /// Whether builds of the module are known to write into its source.
    pub writes_source: bool,
}

/// The state shared by all builds of one module.
#[derive(Debug, Default)]
pub(crate) struct Shared {
    /// Whether this run has already stored a copy of the source.
    kept: bool,
    /// Whether this run has already reported problems of the source.
    reported: bool,
}

/// The data that a build reads when it starts.
pub(crate) struct Prepared {
    pub(crate) conf: Conf,
    pub(crate) excluded: Excluded,
    pub(crate) record: Record,
    pub(crate) headers: PathBuf,
    pub(crate) env: Environment,
    pub(crate) config: Option<Arc<KernelConfig>>,
    /// The newest added version of each dependency; empty unless BUILD_DEPENDS_REBUILD is set.
    pub(crate) dependencies: BTreeMap<ModuleName, ModuleVersion>,
}

impl Build<'_> {
    /// Builds the module, or restores it from the cache.
    ///
    /// The caller must [settle](Self::settle) the result if other builds of the module may run at
    /// the same time ([`Attempt::Beside`]).
    pub(crate) fn run(&self, facts: &Facts, confs: &Confs<'_>) -> Tried {
        if let Some(trial) = &self.machine.trial {
            trial.begins(self.id, &self.kernel.release, self.depends.keys());
        }
        let tried = self.attempt(facts, confs).unwrap_or_else(Tried::failed);
        if self.attempt == Attempt::Beside {
            return tried;
        }
        let source_changed = tried.source_changed;
        Tried { source_changed, ..Tried::settled(self.settle(tried)) }
    }

    fn attempt(&self, facts: &Facts, confs: &Confs<'_>) -> Result<Tried, Failure> {
        let started = Instant::now();
        (self.report)(Phase::Copying);
        if self.cached
            && let Some(record) = self.take_from_cache(facts)?
        {
            self.forget_failure()?;
            return Ok(Tried::settled(Ok(Box::new(record))));
        }
        let prepared = self.prepare(facts, confs)?;
        let planned = prepared.record.inputs.clone();
        // Keeping the source links its files, which changes their signatures.
        self.keep_source()?;
        // The installation for another kernel may write into the source.
        let others = || self.machine.script_changes.scripts_outside_builds(self.id);
        let (before, others_before) = (self.source_signature(), others());
        let env = prepared.env.clone();
        let tree = self.machine.trees.dkms.clone();
        let watch = RoomWatch::start(move || durable::free_space(&tree));
        let result = self.build(prepared, confs, started).map(Box::new);
        let used_others = result.as_ref().is_ok_and(|record| {
            let mut digests = Fingerprints::open(&self.machine.trees);
            record.inputs.source != planned.source
                || digests.has_changed(self.kernel, &planned.kernel, facts.started)
        });
        let lowest = watch.lowest();
        let result = result.map_err(|failed| match failed.transient || lowest >= SCARCE {
            true => failed,
            false => self.disk_full(failed, lowest),
        });
        // The build cannot have changed a source on a read-only file system. A concurrent run may
        // have changed the ctimes, because it hard-links the files to keep a copy.
        let is_writable = !self.source().is_ok_and(|source| durable::is_read_only(&source));
        let programs = match &result {
            Ok(_) => BTreeMap::new(),
            Err(_) => KnownFailure::programs_of(self.machine, &env, &self.log()),
        };
        Ok(Tried {
            result,
            inputs: Some(planned.fingerprint()),
            programs,
            used_others,
            source_changed: is_writable
                && others_before.is_some()
                && others_before == others()
                && before != self.source_signature(),
        })
    }

    /// Blocks other builds of the same module until the guard is dropped.
    fn alone(&self) -> MutexGuard<'_, Shared> {
        lock(self.shared)
    }

    fn forget_failure(&self) -> Result<(), FileError> {
        let _alone = self.alone();
        forget_failure(self.machine, self.id, &self.kernel.release)
    }

    fn log(&self) -> PathBuf {
        self.machine.trees.failure_log(self.id, &self.kernel.release, &self.machine.arch)
    }

    /// Reads the data that the build depends on.
    fn prepare(&self, facts: &Facts, confs: &Confs<'_>) -> Result<Prepared, Failure> {
        let Self { machine, id, kernel, .. } = self;
        let (values, conf) = self.conf(facts, confs)?;
        let headers = kernel.headers.clone().ok_or_else(|| {
            Failure::new(21, format!("{}: headers are no longer installed", kernel.release))
        })?;
        let mut inputs: Inputs = facts
            .pair(id, &kernel.release)
            .and_then(|pair| pair.inputs.clone())
            .ok_or_else(|| Failure::new(21, "cannot read the source or the kernel headers"))?;
        inputs.depends = self.depends.clone();
        inputs.conf = values.digest();
        let config = machine.kernel_config(kernel);
        let keeps_symbols = conf.records.iter().any(|record| !record.strip);
        let env = self.environment(config.as_deref(), keeps_symbols)?;
        let record = Record {
            format: FORMAT,
            module: (*id).clone(),
            kernel: kernel.release.clone(),
            arch: machine.arch.clone(),
            adopted: false,
            build_seconds: 0,
            compiler: make::compiler(machine, &env),
            changes_source: false,
            inputs,
            values,
            objects: Vec::new(),
            refused: Vec::new(),
            signing: None,
        };
        let dependencies = dependencies(machine, &conf);
        let excluded = confs.excluded(&conf, kernel);
        Ok(Prepared { excluded, conf, record, headers, env, config, dependencies })
    }

    /// Returns the values of dkms.conf.
    ///
    /// Evaluates dkms.conf again if its values may have changed since planning: dkms.conf can
    /// inspect the module's directory in the dkms tree, and the builds of dependencies.
    fn conf(&self, facts: &Facts, confs: &Confs<'_>) -> Result<(Values, Conf), Failure> {
        let Self { id, kernel, .. } = self;
        let evaluated = facts
            .modules
            .get(id)
            .filter(|module| module.link == SourceLink::Source && self.depends.is_empty())
            .and_then(|module| module.pairs.get(&kernel.release)?.evaluated.as_ref())
            .filter(|evaluated| evaluated.is_fresh && evaluated.source == confs.source_of(id));
        match evaluated {
            Some(evaluated) => confs.accept(evaluated.clone(), kernel),
            None => confs.evaluate(id, kernel),
        }
    }

    fn build(
        &self,
        mut prepared: Prepared,
        confs: &Confs<'_>,
        started: Instant,
    ) -> Result<Record, Failure> {
        let Self { machine, id, kernel, .. } = self;
        if let Some(used) = self.copy_source()? {
            prepared.record.inputs.source = used;
        }
        let log_path = self.log();
        if let Some(dir) = log_path.parent() {
            durable::create_dirs(dir)?;
        }
        let mut log = MakeLog::start(&log_path, id, &kernel.release, &machine.arch)?;
        self.link_log(&self.workplace.real)?;

        self.patch(&prepared, &mut log)?;
        self.script(
            "PRE_BUILD",
            prepared.conf.scripts.pre_build.as_deref(),
            &prepared.env,
            &mut log,
        )?;
        self.make(&prepared, &mut log)?;
        if prepared.conf.scripts.pre_build.is_some() {
            self.read_conf_again(&mut prepared, confs)?;
        }
        let products = self.check_objects(&prepared, &[])?;

        let parent = machine.trees.version(id).join(&kernel.release);
        durable::create_dirs(&parent)?;
        remove_staging(&parent)?;
        let prefix = format!("{}{}_", STAGING, machine.arch);
        let staging = tempfile::Builder::new()
            .prefix(&prefix)
            .tempdir_in(&parent)
            .map_err(FileError::when("create a directory in", &parent))?;
        let staged = self.stage(&mut prepared, &products, staging.path(), started, &log_path);
        if let Err(failed) = staged {
            drop(staging);
            // An empty directory `K` would look like a build for the kernel.
            let _ = fs::remove_dir(&parent);
            return Err(failed);
        }
        self.publish(&staging.keep(), prepared, confs, &mut log)
    }

    /// Evaluates dkms.conf again after a script of the build, and returns true if its values have
    /// changed. As in dkms, the installation uses the values that the conf has after the build,
    /// since a script may write the list of objects that the conf reads.
    fn read_conf_again(&self, prepared: &mut Prepared, confs: &Confs<'_>) -> Result<bool, Failure> {
        let Self { id, kernel, .. } = self;
        let source = confs.source_of(id);
        let values = confs
            .evaluate_at(&ConfRequest { id: (*id).clone(), kernel, source: source.clone() })?
            .values;
        if values == prepared.record.values {
            return Ok(false);
        }
        prepared.conf = confs.interpret(kernel, &source, &values)?;
        prepared.excluded = confs.excluded(&prepared.conf, kernel);
        prepared.record.inputs.conf = values.digest();
        prepared.record.values = values;
        Ok(true)
    }

    /// Calls `run`, which runs make or a script, and records the changes that the program makes to
    /// the source.
    fn watching_source<T>(&self, command: Command, run: impl FnOnce() -> T) -> T {
        self.machine.script_changes.during(&self.machine.trees, self.id, command, run)
    }

    fn script(
        &self,
        directive: &'static str,
        value: Option<&str>,
        env: &Environment,
        log: &mut MakeLog,
    ) -> Result<(), Failure> {
        let Some(value) = value else { return Ok(()) };
        let script = Script { directive, value, place: self.workplace.clone() };
        let Some(program) = script.program(self.machine, self.id, env) else {
            log::warn!("{}", script.missing(self.id));
            return Ok(());
        };
        (self.report)(Phase::Script(directive));
        let description = format!("Running the {} script", directive.to_lowercase());
        let ended = log
            .step(&description, &script.command(self.machine, self.id), |file| {
                let program = program.output(Output::Log(file));
                self.watching_source(Command::InBuild, || program.run())
            })
            .map_err(|error| self.not_run(error))?;
        self.note_killed(&ended, false);
        if ended.success() {
            return Ok(());
        }
        let code = module_scripts::exit_status(ended.how);
        let message = format!("{directive} script failed ({}): {value}", ended.how);
        Err(self.step_failed(log, code, &message))
    }
}

/// Returns the versions of the dependencies for the `.dep_*` files, which dkms reads.
///
/// Empty unless BUILD_DEPENDS_REBUILD is set. Always empty with `--force`, which builds without
/// dependencies.
fn dependencies(machine: &Machine, conf: &Conf) -> BTreeMap<ModuleName, ModuleVersion> {
    if !conf.rebuild_with_depends || conf.depends.is_empty() || machine.options.force {
        return BTreeMap::new();
    }
    let known = TreeState::read(&machine.trees).modules;
    let newest = |name: &ModuleName| {
        let versions = known.iter().filter(|added| added.id.name == *name).map(|it| &it.id.version);
        versions.max_by(|a, b| version::compare(a.as_str(), b.as_str())).cloned()
    };
    conf.depends.iter().filter_map(|name| Some((name.clone(), newest(name)?))).collect()
}

//! Compiling one module for one kernel, into a directory that becomes `T/M/V/K/A` when all is well.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Component, Path, PathBuf};
use std::time::{Duration, Instant};

use crate::conf::{Conf, Excluded, MakeChoice};
use crate::confs::Confs;
use crate::diagnose::{self, Cause};
use crate::digest::Digest;
use crate::durable::{self, FileError};
use crate::facts::Facts;
use crate::kernels::{Kernel, KernelConfig};
use crate::make_log::{MakeLog, StepError};
use crate::names::{KernelRelease, ModuleId, ModuleName};
use crate::record::{self, Failure, Inputs, Record};
use crate::report::Failed;
use crate::run::{Ended, Environment, How, Output, Program};
use crate::scripts::{self, Script};
use crate::site::Site;
use crate::{copy, publish, remove};

/// With less room than this, in bytes, a build that failed is one that the disk was too full for:
/// make deletes what it could not finish, so that some room is left again.
const SCARCE: u64 = 16 * 1024 * 1024;

/// One build.
pub(crate) struct Build<'a> {
    /// The machine.
    pub site: &'a Site,
    /// What is built.
    pub id: &'a ModuleId,
    /// For which kernel.
    pub kernel: &'a Kernel,
    /// The fingerprints of what it builds upon.
    pub depends: &'a BTreeMap<ModuleName, Digest>,
    /// The tokens of all make programs of this run.
    pub jobserver: &'a jobserver::Client,
}

/// What a build needs beyond its inputs, found when it begins.
pub(crate) struct Prepared {
    pub(crate) conf: Conf,
    pub(crate) excluded: Excluded,
    pub(crate) record: Record,
    pub(crate) headers: PathBuf,
    pub(crate) env: Environment,
    pub(crate) config: Option<KernelConfig>,
}

impl Build<'_> {
    /// Builds, and remembers a failure that the same inputs would only repeat.
    pub(crate) fn run(&self, facts: &Facts, confs: &mut Confs<'_>) -> Result<(), Failed> {
        let started = Instant::now();
        let prepared = self.prepare(facts, confs)?;
        let inputs = prepared.record.inputs.clone();
        let built = self.build(prepared, started);
        let failure =
            Failure::path(&self.site.trees, self.id, &self.kernel.release, &self.site.arch);
        match built {
            Ok(()) => {
                durable::remove_tree(&self.build_dir())?;
                forget_failure(self.site, self.id, &self.kernel.release)?;
                Ok(())
            }
            Err(failed) if failed.passing => {
                // What filled the disk must not keep it full.
                let _ = durable::remove_tree(&self.build_dir());
                Err(failed)
            }
            Err(failed) => {
                let known = Failure {
                    fingerprint: inputs.fingerprint(),
                    what: failed.cause.clone().unwrap_or_else(|| failed.message.clone()),
                    log: self.log(),
                };
                if let Err(error) = known.write(&failure) {
                    log::warn!("{error}");
                }
                Err(failed)
            }
        }
    }

    pub(crate) fn build_dir(&self) -> PathBuf {
        self.site.trees.build(self.id)
    }

    fn log(&self) -> PathBuf {
        self.site.trees.failure_log(self.id, &self.kernel.release, &self.site.arch)
    }

    /// Asks dkms.conf anew and gathers what the build depends on.
    fn prepare(&self, facts: &Facts, confs: &mut Confs<'_>) -> Result<Prepared, Failed> {
        let Self { site, id, kernel, .. } = self;
        let (values, conf) =
            confs.ask(id, kernel).map_err(|problem| Failed::new(problem.code, problem.message))?;
        let headers = kernel.headers.clone().ok_or_else(|| {
            Failed::new(21, format!("{} has no headers any more", kernel.release))
        })?;
        let mut inputs: Inputs = facts
            .pair(id, &kernel.release)
            .and_then(|pair| pair.inputs.clone())
            .ok_or_else(|| Failed::new(21, "its source or its kernel's headers cannot be read"))?;
        inputs.depends = self.depends.clone();
        inputs.conf = values.digest();
        let config = kernel.config_file().and_then(|path| KernelConfig::read(&path).ok());
        let env = self.environment(config.as_ref())?;
        let record = Record {
            format: record::FORMAT,
            module: (*id).clone(),
            kernel: kernel.release.clone(),
            arch: site.arch.clone(),
            adopted: false,
            build_seconds: 0,
            compiler: compiler(&env),
            inputs,
            values,
            objects: Vec::new(),
            placed: Vec::new(),
        };
        Ok(Prepared { excluded: confs.excluded(&conf, kernel), conf, record, headers, env, config })
    }

    /// What make and the scripts see (dkms-behaviour 4.2), with our `uname` first in PATH: it
    /// answers for the kernel that is built for, which is what a Makefile means to ask.
    fn environment(&self, config: Option<&KernelConfig>) -> Result<Environment, Failed> {
        let programs = crate::confs::build_programs(self.site)?;
        let mut env =
            scripts::environment(self.site, self.id, &self.kernel.release).first_in_path(&programs);
        if let Some(config) = config {
            let exists = |name: &str| in_path(name, &env);
            for (name, value) in config.compiler_environment(exists) {
                env = env.with(name, value);
            }
        }
        Ok(env)
    }

    fn build(&self, mut prepared: Prepared, started: Instant) -> Result<(), Failed> {
        let Self { site, id, kernel, .. } = self;
        self.keep_source()?;
        self.copy_source()?;
        let log_path = self.log();
        if let Some(dir) = log_path.parent() {
            durable::create_dirs(dir)?;
        }
        let mut log = MakeLog::start(&log_path, id, &kernel.release, &site.arch)?;
        let link = self.build_dir().join("make.log");
        durable::replace_link(&link, &crate::links::text_for(&site.trees.root, &log_path))?;

        self.patch(&prepared, &mut log)?;
        self.script(
            "PRE_BUILD",
            prepared.conf.scripts.pre_build.as_deref(),
            &prepared.env,
            &mut log,
        )?;
        self.make(&prepared, &mut log)?;
        let products = self.check_objects(&prepared)?;

        let parent = site.trees.version(id).join(&kernel.release);
        durable::create_dirs(&parent)?;
        remove::remove_staging(&parent)?;
        let prefix = format!("{}{}_", remove::STAGING, site.arch);
        let staging = tempfile::Builder::new()
            .prefix(&prefix)
            .tempdir_in(&parent)
            .map_err(FileError::when("make a directory in", &parent))?;
        let staged = self.stage(&mut prepared, &products, staging.path(), started, &log_path);
        if let Err(failed) = staged {
            drop(staging);
            // An empty `K` would look like a kernel that something was built for.
            let _ = fs::remove_dir(&parent);
            return Err(failed);
        }
        publish::publish(&staging.keep(), &parent.join(&site.arch))?;
        Ok(())
    }

    /// Keeps a copy of the source for the day its package is gone: scripts, siblings and a
    /// rebuild of an old version for a new kernel need it.
    fn keep_source(&self) -> Result<(), FileError> {
        let trees = &self.site.trees;
        let kept = trees.kept(self.id);
        let source = self.source()?;
        if source == kept {
            return Ok(());
        }
        keep(&source, &kept, copy::link_tree)
    }

    fn source(&self) -> Result<PathBuf, FileError> {
        let link = self.site.trees.source_link(self.id);
        crate::links::resolve(&self.site.trees.root, &link).map_err(FileError::when("find", &link))
    }

    fn copy_source(&self) -> Result<(), FileError> {
        let build = self.build_dir();
        durable::remove_tree(&build)?;
        copy::copy_tree(&self.source()?, &build)?;
        let patches = self.site.trees.etc.join(&self.id.name).join("patches");
        if patches.is_dir() {
            overlay(&patches, &build.join("patches"))?;
        }
        Ok(())
    }

    /// Applies the patches that are meant for this kernel (dkms-behaviour 3.4 and 4.1).
    fn patch(&self, prepared: &Prepared, log: &mut MakeLog) -> Result<(), Failed> {
        for patch in &prepared.conf.patches {
            let file = Path::new("./patches").join(patch);
            let leads_out = file.components().any(|part| part == Component::ParentDir);
            if leads_out || !self.build_dir().join(&file).is_file() {
                let what = format!("there is no patch {} in its source", file.display());
                return Err(self.failed(5, &what));
            }
            let program = Program::new("patch", &prepared.env)
                .args(["-p1", "-i"])
                .arg(&file)
                .cwd(self.build_dir())
                .deadline(self.site.settings.build_timeout())
                .confined(&self.site.tools);
            let command = format!("patch -p1 < {}", file.display());
            let ended = log
                .step(&format!("Applying patch {patch}"), &command, |file| {
                    program.output(Output::Log(file)).run()
                })
                .map_err(step_failed)?;
            if !ended.success() {
                return Err(self.failed(6, &format!("its patch {patch} does not fit")));
            }
        }
        Ok(())
    }

    fn script(
        &self,
        directive: &'static str,
        value: Option<&str>,
        env: &Environment,
        log: &mut MakeLog,
    ) -> Result<(), Failed> {
        let Some(value) = value else { return Ok(()) };
        let script = Script { directive, value, dir: self.build_dir() };
        let Some(program) = script.program(self.site, self.id, env) else {
            log::warn!("{}", script.missing(self.id));
            return Ok(());
        };
        let ended = log
            .step(&format!("Running the {directive} script"), value, |file| {
                program.output(Output::Log(file)).run()
            })
            .map_err(step_failed)?;
        if ended.success() {
            return Ok(());
        }
        let code = match ended.how {
            How::Exited(code) => u8::try_from(code).unwrap_or(1),
            _ => 1,
        };
        Err(self.failed(code, &format!("its {directive} script failed ({}): {value}", ended.how)))
    }

    fn make(&self, prepared: &Prepared, log: &mut MakeLog) -> Result<(), Failed> {
        let command = self.make_command(prepared);
        let program = Program::new(self.site.tools.bash.clone(), &prepared.env)
            .args(["--norc", "--noprofile", "-c"])
            .arg(&command)
            .cwd(self.build_dir())
            .deadline(self.site.settings.build_timeout())
            .jobserver(self.jobserver)
            .confined(&self.site.tools);
        let ended = log
            .step("Building module(s)", &command, |file| program.output(Output::Log(file)).run())
            .map_err(step_failed)?;
        if ended.success() { Ok(()) } else { Err(self.make_failed(&ended, &command)) }
    }

    /// dkms's rewriting (4.3), but only of the word `make` itself, and without `-j`: the
    /// jobserver gives the jobs.
    fn make_command(&self, prepared: &Prepared) -> String {
        let release = &self.kernel.release;
        let mut command = match &prepared.conf.make {
            MakeChoice::Generic => {
                format!("make -C {} M={}", prepared.headers.display(), self.build_dir().display())
            }
            MakeChoice::Text(text) => text.clone(),
        };
        if let Some(rest) = command.strip_prefix("make")
            && (rest.is_empty() || rest.starts_with([' ', '\t']))
        {
            command = format!("make KERNELRELEASE={release}{rest}");
        }
        if prepared.config.as_ref().is_some_and(KernelConfig::is_clang) {
            command.push_str(" LLVM=1");
        }
        command
    }

    fn make_failed(&self, ended: &Ended, command: &str) -> Failed {
        let mut failed = self.failed(10, &format!("make failed ({}): {command}", ended.how));
        match ended.how {
            How::TimedOut => {
                let limit = self.site.settings.build_timeout().as_secs();
                failed.message = format!(
                    "it was not finished after {limit} s, the limit of [build] timeout in \
                     /etc/dkms/alpm-dkms.toml"
                );
            }
            // Somebody else's signal: the kernel short of memory, or an administrator.
            How::Killed(_) => failed.passing = true,
            How::Exited(_) => {}
        }
        failed
    }

    /// A failure with what the log says about it.
    pub(crate) fn failed(&self, code: u8, message: &str) -> Failed {
        let log = self.log();
        let diagnosis = diagnose::read(&log, &self.build_dir());
        let left = durable::room(&self.site.trees.dkms).filter(|left| *left < SCARCE);
        // A full disk also swallows the line of the log that says so.
        let full =
            left.is_some() || diagnosis.as_ref().is_some_and(diagnose::Diagnosis::is_disk_full);
        // The machine's trouble, not the module's: the next run may have more luck.
        let machine = [Cause::Killed, Cause::TooManyFiles, Cause::MissingProgram];
        let passing =
            full || diagnosis.as_ref().is_some_and(|found| machine.contains(&found.cause));
        let mut failed = Failed {
            cause: diagnosis.map(|found| found.to_string()),
            log: Some(log),
            passing,
            ..Failed::new(code, message)
        };
        if full {
            let left = left.map(|left| format!(" ({} KiB are left)", left / 1024));
            failed.message = format!(
                "{message}; the disk is full{}: make room, then dkms autoinstall",
                left.unwrap_or_default()
            );
        }
        failed
    }
}

/// Keeps `source` at `kept`, in place of what was kept before, as `copy` does it.
pub(crate) fn keep(
    source: &Path,
    kept: &Path,
    copy: impl FnOnce(&Path, &Path) -> Result<(), FileError>,
) -> Result<(), FileError> {
    let unfinished = kept.with_file_name(format!(
        "{}{}",
        durable::UNFINISHED,
        kept.file_name().unwrap_or_default().to_string_lossy()
    ));
    if let Some(parent) = kept.parent() {
        durable::create_dirs(parent)?;
    }
    durable::remove_tree(&unfinished)?;
    copy(source, &unfinished)?;
    durable::remove_tree(kept)?;
    fs::rename(&unfinished, kept).map_err(FileError::when("keep", kept))
}

/// Removes what is remembered of failed builds of a module for a kernel, log and all.
pub(crate) fn forget_failure(
    site: &Site,
    id: &ModuleId,
    kernel: &KernelRelease,
) -> Result<(), FileError> {
    let trees = &site.trees;
    let failure = Failure::path(trees, id, kernel, &site.arch);
    let log = trees.failure_log(id, kernel, &site.arch);
    for file in [failure, log] {
        durable::remove_file_if_there(&file)?;
    }
    Ok(())
}

/// Copies a directory's files over another's.
fn overlay(from: &Path, to: &Path) -> Result<(), FileError> {
    durable::create_dirs(to)?;
    for entry in walkdir::WalkDir::new(from).min_depth(1) {
        let entry = entry.map_err(std::io::Error::from).map_err(FileError::when("read", from))?;
        let Ok(below) = entry.path().strip_prefix(from) else { continue };
        let place = to.join(below);
        if entry.file_type().is_dir() {
            durable::create_dirs(&place)?;
        } else {
            copy_file(entry.path(), &place)?;
        }
    }
    Ok(())
}

pub(crate) fn copy_file(from: &Path, to: &Path) -> Result<(), FileError> {
    fs::copy(from, to).map(|_| ()).map_err(FileError::when("write", to))
}

fn step_failed(error: StepError) -> Failed {
    match error {
        StepError::Log(error) => error.into(),
        StepError::Run(error) => Failed { passing: true, ..Failed::new(10, error.to_string()) },
    }
}

fn in_path(name: &str, env: &Environment) -> bool {
    env.get("PATH").is_some_and(|path| {
        std::env::split_paths(path).any(|dir| {
            dir.join(name)
                .metadata()
                .is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
        })
    })
}

/// How the compiler names itself, for the record.
fn compiler(env: &Environment) -> String {
    let cc = env.get("CC").unwrap_or("cc".as_ref());
    let asked = Program::new(cc, env).arg("--version").deadline(Duration::from_secs(5)).run();
    let output = asked.map(|ended| ended.output).unwrap_or_default();
    String::from_utf8_lossy(&output).lines().next().unwrap_or_default().to_owned()
}

//! Evaluates the dkms.conf files of one machine for its kernels.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use super::context::{ConfContext, ConfReply, reader};
use super::{Conf, Excluded, Values, directives};
use crate::failure::Failure;
use crate::machine::{Kernel, Machine, RunOptions, WITHIN_RUN, path_programs};
use crate::names::ModuleId;
use crate::os::bash::{BashError, BashReader};
use crate::os::digest::Digest;
use crate::os::parallel::on_all_cores_with;
use crate::os::symlinks;

/// The log target of warnings about deprecated directives. Hooks leave them out: only a module's
/// author can act on them.
pub const DEPRECATED: &str = "dkms_engine::deprecated";

/// The confs of one machine. Several threads may evaluate them at once.
pub(crate) struct Confs<'a> {
    machine: &'a Machine,
    /// The directory of our programs that confs find first. They are written before any of them can
    /// run: a file that is open for writing cannot be executed.
    programs: OnceLock<Option<PathBuf>>,
    /// Modules whose conf timed out once: it would again for each kernel.
    timed_out: Mutex<BTreeMap<ModuleId, Failure>>,
}

/// The values of a dkms.conf.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EvaluatedConf {
    /// The directory that it is in.
    pub source: PathBuf,
    /// Whether it was evaluated in this run; else the values are those of the build's record, and
    /// neither the conf nor the kernel has changed.
    pub is_fresh: bool,
    /// All its values.
    pub values: Values,
    /// Directives that dkms calls deprecated, each with the file that sets it.
    pub deprecated: Vec<(&'static str, PathBuf)>,
}

/// A request to evaluate a conf.
pub(crate) struct ConfRequest<'a> {
    /// The module.
    pub(crate) id: ModuleId,
    /// The kernel.
    pub(crate) kernel: &'a Kernel,
    /// The directory of the conf.
    pub(crate) source: PathBuf,
}

impl<'a> Confs<'a> {
    pub(crate) fn new(machine: &'a Machine) -> Self {
        Self { machine, programs: OnceLock::new(), timed_out: Mutex::default() }
    }

    /// Evaluates the conf of a module that dkms knows.
    pub(crate) fn evaluate(
        &self,
        id: &ModuleId,
        kernel: &Kernel,
    ) -> Result<(Values, Conf), Failure> {
        let source = self.source_of(id);
        let evaluated = self.evaluate_at(&ConfRequest { id: id.clone(), kernel, source })?;
        self.accept(evaluated, kernel)
    }

    /// Returns the source of a module that dkms knows.
    pub(crate) fn source_of(&self, id: &ModuleId) -> PathBuf {
        let trees = &self.machine.trees;
        let link = trees.source_link(id);
        symlinks::resolve(&trees.root, &link).unwrap_or(link)
    }

    /// Understands the values that a module is built by, and warns of its oddities.
    pub(crate) fn accept(
        &self,
        evaluated: EvaluatedConf,
        kernel: &Kernel,
    ) -> Result<(Values, Conf), Failure> {
        for (directive, file) in &evaluated.deprecated {
            log::warn!(target: DEPRECATED, "{directive} is deprecated: it is set in {}", file.display());
        }
        let conf = self.understand(kernel, &evaluated.source, &evaluated.values)?;
        if conf.records.is_empty() {
            let source = evaluated.source.display();
            log::warn!("{source}/dkms.conf names no objects: make is run, no more");
        }
        Ok((evaluated.values, conf))
    }

    /// Evaluates many confs; the results are in the order of the requests.
    pub(crate) fn evaluate_all(
        &self,
        requests: &[ConfRequest<'_>],
    ) -> Vec<Result<EvaluatedConf, Failure>> {
        // Each thread has its own, which is killed when the thread ends (`PR_SET_PDEATHSIG`).
        let reader = || self.reader();
        on_all_cores_with(requests, reader, |reader, request| self.evaluate_with(reader, request))
    }

    /// Evaluates the conf in a directory.
    pub(crate) fn evaluate_at(&self, request: &ConfRequest<'_>) -> Result<EvaluatedConf, Failure> {
        self.evaluate_with(&mut self.reader(), request)
    }

    fn evaluate_with(
        &self,
        reader: &mut BashReader,
        request: &ConfRequest<'_>,
    ) -> Result<EvaluatedConf, Failure> {
        let ConfRequest { id, kernel, source } = request;
        if let Some(problem) = locked(&self.timed_out).get(id) {
            return Err(problem.clone());
        }
        let machine = self.machine;
        let context = ConfContext {
            id,
            kernel: &kernel.release,
            arch: &machine.arch,
            kernel_source_dir: self.source_dir(kernel),
            kernel_config: kernel.config_file().unwrap_or_default(),
            conf_file: machine.options.conf_of(id, source),
            trees: &machine.trees,
            parallel_jobs: machine.settings.jobs(),
        };
        match context.read(reader) {
            Ok(reply) => {
                if !reply.complaint.trim().is_empty() {
                    log::info!("{}: {}", context.conf_file.display(), reply.complaint.trim());
                }
                let ConfReply { mut values, deprecated, .. } = reply;
                set_directives(&machine.options, &mut values);
                Ok(EvaluatedConf { source: source.clone(), is_fresh: true, values, deprecated })
            }
            Err(error) => {
                let problem = Failure::from(&error);
                if matches!(error, BashError::TimedOut { .. }) {
                    locked(&self.timed_out).insert(id.clone(), problem.clone());
                }
                Err(problem)
            }
        }
    }

    fn reader(&self) -> BashReader {
        let machine = self.machine;
        let programs = self.programs.get_or_init(|| path_programs(machine).ok());
        // A conf that calls dkms is part of this run.
        let env = machine.env.clone().with(WITHIN_RUN, "1");
        let mut reader = reader(machine.tools.clone(), env, programs.as_deref());
        reader.patience = machine.settings.conf_timeout();
        reader
    }

    /// The path by which a conf knows the headers of a kernel.
    fn source_dir(&self, kernel: &Kernel) -> PathBuf {
        let given = self.machine.options.kernel_source.clone();
        given.unwrap_or_else(|| kernel.dir.join("build"))
    }

    /// Understands the values of the conf in the directory `source`, present or recorded ones.
    pub(crate) fn understand(
        &self,
        kernel: &Kernel,
        source: &Path,
        values: &Values,
    ) -> Result<Conf, Failure> {
        let file = source.join("dkms.conf");
        let conf = Conf::from_values(values, &file, &kernel.release)
            .and_then(|conf| conf.check_strictly(&file).map(|()| conf));
        conf.map_err(|error| Failure::from(&error))
    }

    /// Which objects of a module are not for this kernel.
    pub(crate) fn excluded(&self, conf: &Conf, kernel: &Kernel) -> Excluded {
        // Some 10,000 lines, which few confs ask for.
        let config = if conf.needs_config() { self.machine.kernel_config(kernel) } else { None };
        conf.excluded(&kernel.release, &self.machine.arch, config.as_deref())
    }

    /// What the administrator lays over a module: `/etc/dkms/M*.conf` and all below `/etc/dkms/M`.
    pub(crate) fn overrides(&self, id: &ModuleId) -> Digest {
        let etc = &self.machine.trees.etc;
        let mut parts: BTreeMap<PathBuf, Digest> = BTreeMap::new();
        let prefix = [format!("{}.conf", id.name), format!("{}-", id.source_dir())];
        let short = [format!("{}.conf", id.source_dir()), format!("{}--", id.name)];
        for entry in fs::read_dir(etc).into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let ours = name == prefix[0]
                || name == short[0]
                || ((name.starts_with(&prefix[1]) || name.starts_with(&short[1]))
                    && name.ends_with(".conf"));
            if ours && let Ok(digest) = Digest::of_file(&entry.path()) {
                parts.insert(entry.path(), digest);
            }
        }
        let files = walkdir::WalkDir::new(etc.join(&id.name)).into_iter().flatten();
        for entry in files.filter(|entry| entry.file_type().is_file()) {
            if let Ok(digest) = Digest::of_file(entry.path()) {
                parts.insert(entry.into_path(), digest);
            }
        }
        if let Some(file) = self.machine.settings.build_environment()
            && let Ok(digest) = Digest::of_file(&self.machine.trees.inside(&file))
        {
            parts.insert(file, digest);
        }
        let text: Vec<String> =
            parts.iter().map(|(path, digest)| format!("{} {digest}", path.display())).collect();
        Digest::of_bytes(text.join("\n").as_bytes())
    }
}

/// Locks what is shared. A thread that panicked has left it whole.
fn locked<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The directives of the command line; names that are no directive are dropped, as in a conf.
pub(crate) fn known_directives(options: &RunOptions) -> impl Iterator<Item = (&str, &str)> {
    let known = options.directives.iter().filter(|(name, _)| directives::is_known(name));
    known.map(|(name, text)| (name.as_str(), text.as_str()))
}

/// Sets the directives of the command line, after all files.
fn set_directives(options: &RunOptions, values: &mut Values) {
    for (name, text) in &options.directives {
        values.set(name, 0, text.as_str());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directives_come_last_and_unknown_ones_are_dropped() {
        let mut values = Values::default();
        values.set("MAKE", 0, "make all");
        let options = RunOptions {
            directives: vec![
                ("MAKE".into(), "make x=1".into()),
                ("source_tree".into(), "/".into()),
            ],
            ..RunOptions::default()
        };
        set_directives(&options, &mut values);
        let all: Vec<_> = values.iter().collect();
        assert_eq!(all, [("MAKE", 0, "make x=1")]);
        assert_eq!(known_directives(&options).collect::<Vec<_>>(), [("MAKE", "make x=1")]);
    }
}

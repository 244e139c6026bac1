//! Evaluates the dkms.conf files of a machine for its kernels.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, OnceLock};

use super::context::{ConfContext, ConfReply, reader};
use super::{Conf, Excluded, Values, directives};
use crate::failure::Failure;
use crate::machine::{Kernel, Machine, Placement, RunOptions, Trees, WITHIN_RUN, path_programs};
use crate::names::ModuleId;
use crate::os::bash::{BashError, BashReader};
use crate::os::digest::Digest;
use crate::os::parallel::on_all_cores_with;
use crate::os::shared::lock;
use crate::os::symlinks;

/// The log target of warnings about deprecated directives.
///
/// Hooks do not show these warnings, since only the author of the module can act on them.
pub const DEPRECATED: &str = "dkms_engine::deprecated";

/// An evaluator for the confs of one machine. All threads share it.
pub(crate) struct Confs<'a> {
    machine: &'a Machine,
    /// The directory of the wrapper programs, or `None` if it could not be created.
    programs: OnceLock<Option<PathBuf>>,
    /// The failure of each module whose conf timed out. The same failure is returned for all other
    /// kernels, without evaluating the conf again.
    timed_out: Mutex<BTreeMap<ModuleId, Failure>>,
}

/// The values of a dkms.conf, which were evaluated in this run or read from a build's record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EvaluatedConf {
    /// The source directory, which contains the conf.
    pub source: PathBuf,
    /// Whether this run evaluated the conf. If false, the values come from a build's record, and
    /// neither the conf nor the kernel has changed since that build.
    pub is_fresh: bool,
    /// The values of all directives, with overrides applied.
    pub values: Values,
    /// The deprecated directives that are set, each with the path of the file that sets it.
    pub deprecated: Vec<(&'static str, PathBuf)>,
}

/// A request to evaluate a conf for one kernel.
pub(crate) struct ConfRequest<'a> {
    pub(crate) id: ModuleId,
    pub(crate) kernel: &'a Kernel,
    /// The source directory, which contains the conf.
    pub(crate) source: PathBuf,
}

impl<'a> Confs<'a> {
    pub(crate) fn new(machine: &'a Machine) -> Self {
        Self { machine, programs: OnceLock::new(), timed_out: Mutex::default() }
    }

    /// Evaluates and interprets the conf of an added module.
    pub(crate) fn evaluate(
        &self,
        id: &ModuleId,
        kernel: &Kernel,
    ) -> Result<(Values, Conf), Failure> {
        let source = self.source_of(id);
        let evaluated = self.evaluate_at(&ConfRequest { id: id.clone(), kernel, source })?;
        self.accept(evaluated, kernel)
    }

    /// Returns the source directory of an added module. If the link to the directory is broken,
    /// returns the path of the link.
    pub(crate) fn source_of(&self, id: &ModuleId) -> PathBuf {
        let trees = &self.machine.trees;
        let link = trees.source_link(id);
        symlinks::resolve(&trees.root, &link).unwrap_or(link)
    }

    /// Interprets the conf of a module that will be built. Logs a warning about each deprecated
    /// directive, and a warning if the conf has no records.
    pub(crate) fn accept(
        &self,
        evaluated: EvaluatedConf,
        kernel: &Kernel,
    ) -> Result<(Values, Conf), Failure> {
        for (directive, file) in &evaluated.deprecated {
            log::warn!(target: DEPRECATED, "{}: {directive} is deprecated", file.display());
        }
        let conf = self.interpret(kernel, &evaluated.source, &evaluated.values)?;
        if conf.records.is_empty() {
            let source = evaluated.source.display();
            log::warn!(
                "{source}/dkms.conf: no modules listed: make runs, but nothing is installed"
            );
        }
        Ok((evaluated.values, conf))
    }

    /// Evaluates confs in parallel. Returns one result per request, in the same order.
    pub(crate) fn evaluate_all(
        &self,
        requests: &[ConfRequest<'_>],
    ) -> Vec<Result<EvaluatedConf, Failure>> {
        // Each thread has its own bash, which is killed when the thread ends (`PR_SET_PDEATHSIG`).
        let reader = || self.reader();
        on_all_cores_with(requests, reader, |reader, request| self.evaluate_with(reader, request))
    }

    /// Evaluates one conf.
    pub(crate) fn evaluate_at(&self, request: &ConfRequest<'_>) -> Result<EvaluatedConf, Failure> {
        self.evaluate_with(&mut self.reader(), request)
    }

    fn evaluate_with(
        &self,
        reader: &mut BashReader,
        request: &ConfRequest<'_>,
    ) -> Result<EvaluatedConf, Failure> {
        let ConfRequest { id, kernel, source } = request;
        if let Some(problem) = lock(&self.timed_out).get(id) {
            return Err(problem.clone());
        }
        let machine = self.machine;
        let context = ConfContext {
            conf_file: machine.options.conf_of(id, source),
            ..context(machine, id, kernel, source)
        };
        match context.read(reader) {
            Ok(reply) => {
                if !reply.complaint.trim().is_empty() {
                    log::info!("{}: {}", context.conf_file.display(), reply.complaint.trim());
                }
                for (file, complaints) in &reply.complaints {
                    machine.warnings.about(file, complaints);
                }
                let ConfReply { mut values, deprecated, .. } = reply;
                set_directives(&machine.options, &mut values);
                Ok(EvaluatedConf { source: source.clone(), is_fresh: true, values, deprecated })
            }
            Err(error) => {
                let problem = Failure::from(&error);
                if matches!(error, BashError::TimedOut { .. }) {
                    lock(&self.timed_out).insert(id.clone(), problem.clone());
                }
                Err(problem)
            }
        }
    }

    fn reader(&self) -> BashReader {
        let machine = self.machine;
        let programs = self.programs.get_or_init(|| path_programs(machine, true).ok());
        // A dkms command in a conf must not wait for the lock of this run.
        let env = machine.env.clone().with(WITHIN_RUN, "1");
        let mut reader = reader(machine.tools.clone(), env, programs.as_deref());
        reader.patience = machine.settings.conf_timeout();
        reader
    }

    /// Interprets and validates `values`, which belong to the conf in the directory `source`.
    pub(crate) fn interpret(
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

    /// Returns the objects of `conf` that are excluded for `kernel`.
    pub(crate) fn excluded(&self, conf: &Conf, kernel: &Kernel) -> Excluded {
        // Only few confs need the configuration, which has about 10,000 lines.
        let config = if conf.needs_config() { self.machine.kernel_config(kernel) } else { None };
        conf.excluded(&kernel.release, &self.machine.arch, config.as_deref())
    }

    /// Returns a digest of all files outside a module's source that can change its conf or build.
    ///
    /// These are the overrides of the conf in `/etc/dkms`, the files below `/etc/dkms/M`, and the
    /// `build_environment` file.
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

/// Evaluates only the dkms.conf in the directory `source`, without overrides and wrapper programs.
/// Changes nothing on the machine.
///
/// # Errors
/// [`BashError`] if the dkms.conf cannot be evaluated.
pub(crate) fn read_source(
    machine: &Machine,
    id: &ModuleId,
    kernel: &Kernel,
    source: &Path,
) -> Result<ConfReply, BashError> {
    // No file can exist below this path, not even an override.
    let trees = Trees { etc: "/dev/null".into(), ..machine.trees.clone() };
    let context = ConfContext { trees: &trees, ..context(machine, id, kernel, source) };
    let env = machine.env.clone().with(WITHIN_RUN, "1");
    let mut reader = reader(machine.tools.clone(), env, None);
    reader.patience = machine.settings.conf_timeout();
    context.read(&mut reader)
}

/// Returns the context of the dkms.conf in the directory `source`.
fn context<'a>(
    machine: &'a Machine,
    id: &'a ModuleId,
    kernel: &'a Kernel,
    source: &Path,
) -> ConfContext<'a> {
    let headers = machine.options.kernel_source.clone();
    ConfContext {
        id,
        kernel: &kernel.release,
        arch: &machine.arch,
        kernel_source_dir: headers.unwrap_or_else(|| kernel.dir.join("build")),
        kernel_config: kernel.config_file().unwrap_or_default(),
        conf_file: source.join("dkms.conf"),
        dir: source.to_owned(),
        destination: match machine.placement() {
            Ok(Placement::Fixed(dir)) => Some(dir),
            Ok(Placement::FromConf) | Err(_) => None,
        },
        trees: &machine.trees,
        parallel_jobs: machine.settings.jobs(),
    }
}

/// Returns the names and values of the known directives on the command line. As in a conf, unknown
/// names are ignored.
pub(crate) fn known_directives(options: &RunOptions) -> impl Iterator<Item = (&str, &str)> {
    let known = options.directives.iter().filter(|(name, _)| directives::is_known(name));
    known.map(|(name, text)| (name.as_str(), text.as_str()))
}

/// Adds the directives from the command line to `values`, overriding the values from files.
fn set_directives(options: &RunOptions, values: &mut Values) {
    for (name, text) in &options.directives {
        values.set(name, 0, text.as_str());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn command_line_overrides_directives_and_ignores_unknown_names() {
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

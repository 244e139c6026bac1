//! Asks bash what the files of a module say about one kernel.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::worker::{Reply, Request, Trouble, Worker};
use super::{ConfError, Values, directives};
use crate::names::{Arch, KernelRelease, ModuleId};
use crate::run::{Environment, Tools};
use crate::trees::Trees;

/// How long one file may take if nobody says otherwise.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// Which module for which kernel, and what its conf can know about both.
#[derive(Debug, Clone)]
pub struct Question<'a> {
    /// The module as it is registered: `module` and `module_version` in the conf.
    pub id: &'a ModuleId,
    /// `kernelver` in the conf.
    pub kernel: &'a KernelRelease,
    /// `arch` in the conf.
    pub arch: &'a Arch,
    /// `kernel_source_dir` in the conf: the kernel's headers.
    pub kernel_source_dir: PathBuf,
    /// `kernel_config` in the conf: the kernel's configuration.
    pub kernel_config: PathBuf,
    /// The conf itself: `T/M/V/source/dkms.conf`, or `S/M-V/dkms.conf` before the module is added.
    pub conf_file: PathBuf,
    /// `dkms_tree`, `source_tree` and `install_tree` in the conf; `etc` holds the overrides.
    pub trees: &'a Trees,
    /// `parallel_jobs` in the conf: how many jobs a build may run at once.
    pub parallel_jobs: usize,
}

impl Question<'_> {
    /// The files that are read, in their order: the conf, then those of the overrides that are
    /// there. What a later one says replaces what an earlier one said (dkms-behaviour 3.1).
    #[must_use]
    pub fn files(&self) -> Vec<PathBuf> {
        let Self { id: ModuleId { name, version }, kernel, arch, .. } = self;
        let overrides = [
            format!("{name}.conf"),
            format!("{name}-{version}.conf"),
            format!("{name}-{version}-{kernel}.conf"),
            format!("{name}-{version}-{kernel}-{arch}.conf"),
            format!("{name}--{kernel}.conf"),
            format!("{name}--{kernel}-{arch}.conf"),
        ];
        let overrides = overrides.iter().map(|file| self.trees.etc.join(file));
        let present = overrides.filter(|file| file.is_file());
        std::iter::once(self.conf_file.clone()).chain(present).collect()
    }

    /// The variables that a conf finds set (dkms-behaviour 3.2).
    fn variables(&self) -> BTreeMap<&'static str, OsString> {
        BTreeMap::from([
            ("kernelver", self.kernel.as_str().into()),
            ("kernel_source_dir", self.kernel_source_dir.clone().into()),
            ("arch", self.arch.as_str().into()),
            ("dkms_tree", self.trees.dkms.clone().into()),
            ("source_tree", self.trees.source.clone().into()),
            ("install_tree", self.trees.install.clone().into()),
            ("module", self.id.name.as_str().into()),
            ("module_version", self.id.version.as_str().into()),
            ("kernel_config", self.kernel_config.clone().into()),
            ("parallel_jobs", self.parallel_jobs.to_string().into()),
        ])
    }
}

/// What the files of a module say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// Their values.
    pub values: Values,
    /// What bash or the commands in them wrote to standard error, e.g. about a syntax error
    /// (which dkms reads over, and so do we); cut, and empty for a sound conf.
    pub complaint: String,
    /// Deprecated directives, each with the file that sets it.
    pub deprecated: Vec<(&'static str, PathBuf)>,
}

/// Reads files with one bash after the other: a bash serves until a file gets it into trouble.
pub struct Reader {
    /// How long one file may take.
    pub patience: Duration,
    tools: Tools,
    env: Environment,
    worker: Option<Worker>,
}

impl Reader {
    /// A reader; its bash is started when the first file is read.
    ///
    /// `env` is what the files find as their environment; `first_in_path` holds programs that they
    /// find before all others, such as an `uname` that answers the kernel in `$kernelver`.
    #[must_use]
    pub fn new(tools: Tools, env: Environment, first_in_path: Option<&Path>) -> Self {
        let mut env = env.without("BASH_ENV").without("ENV").without("POSIXLY_CORRECT");
        for name in directives::ALL {
            env = env.without(name);
        }
        if let Some(dir) = first_in_path {
            env = env.first_in_path(dir);
        }
        Self { patience: PATIENCE, tools, env, worker: None }
    }

    /// Reads what the conf and its overrides say about one module for one kernel.
    ///
    /// # Errors
    /// [`ConfError`], for the first file that does not answer. The values are not judged here, see
    /// [`Conf::from_values`](super::Conf::from_values).
    pub fn read(&mut self, question: &Question<'_>) -> Result<Answer, ConfError> {
        let variables = question.variables();
        let lossy = |(name, value): (&&'static str, &OsString)| {
            (*name, value.to_string_lossy().into_owned())
        };
        let texts: BTreeMap<_, _> = variables.iter().map(lossy).collect();
        let mut answer =
            Answer { values: Values::default(), complaint: String::new(), deprecated: Vec::new() };
        for file in question.files() {
            // Each file in a shell of its own, as with dkms: it sees the directives of those
            // before, but not their helper variables.
            let given = variables.iter().map(|(name, value)| ((*name).to_owned(), value.clone()));
            let before = answer.values.iter();
            let before =
                before.map(|(name, index, text)| (format!("{name}[{index}]"), text.into()));
            let given = given.chain(before).collect();
            let reply = self.ask(&file, given, &directives::ALL)?;
            let mut values = Values::default();
            for (directive, index, text) in reply.variables {
                let element = format!("{directive}[{index}]");
                let Ok(number) = index.parse() else {
                    let problems = vec![format!("{element} is no element of an array")];
                    return Err(ConfError::Invalid { file, problems });
                };
                let Ok(mut text) = String::from_utf8(text) else {
                    return Err(ConfError::NotUtf8 { file, directive: element });
                };
                // A file written with DOS line ends gives every value one.
                text.truncate(text.strip_suffix('\r').unwrap_or(&text).len());
                values.set(&directive, number, text);
            }
            values.expand(&texts);
            answer.deprecated.extend(
                directives::DEPRECATED
                    .into_iter()
                    .filter(|name| values.elements(name).ne(answer.values.elements(name)))
                    .filter(|name| *name != "CLEAN" || !is_true(values.text(name, 0)))
                    .map(|name| (name, file.clone())),
            );
            answer.values = values;
            if !answer.complaint.is_empty() && !reply.complaint.is_empty() {
                answer.complaint.push('\n');
            }
            answer.complaint.push_str(&reply.complaint);
        }
        Ok(answer)
    }

    /// Lets bash read one file with some variables given and others asked for.
    ///
    /// # Errors
    /// [`ConfError`], if it does not answer.
    pub(crate) fn ask(
        &mut self,
        file: &Path,
        given: Vec<(String, OsString)>,
        wanted: &[&str],
    ) -> Result<Reply, ConfError> {
        check_readable(file)?;
        let mut worker = match self.worker.take().filter(Worker::is_alive) {
            Some(worker) => worker,
            None => Worker::start(&self.tools, &self.env).map_err(|error| ConfError::NoReader {
                file: file.to_owned(),
                reason: error.to_string(),
            })?,
        };
        let file = file.to_owned();
        match worker.ask(&Request { file: &file, given, wanted }, self.patience) {
            Ok(reply) => {
                self.worker = Some(worker);
                Ok(reply)
            }
            // The worker is dropped and killed, with whatever the file has left running.
            Err(Trouble::TimedOut) => Err(ConfError::TimedOut { file, after: self.patience }),
            Err(Trouble::TooMuch) => Err(ConfError::TooMuch { file }),
            Err(Trouble::Ended(complaint)) => Err(ConfError::NoAnswer { file, complaint }),
        }
    }
}

/// What stood in CLEAN when it had to be set, and did nothing.
fn is_true(value: Option<&str>) -> bool {
    matches!(value.map(str::trim), None | Some("true" | "/bin/true" | "/usr/bin/true"))
}

/// The most bytes that a file may have; bash takes a quarter of a minute for 50 MB.
const LARGEST: u64 = 8 << 20;

/// bash would wait for ever at a pipe, read nothing from a directory, and run what it finds in a
/// binary file.
fn check_readable(file: &Path) -> Result<(), ConfError> {
    let unreadable = |reason: String| ConfError::Unreadable { file: file.to_owned(), reason };
    let failed = |error: io::Error| unreadable(error.to_string());
    let about = file.metadata().map_err(failed)?;
    if !about.is_file() {
        return Err(unreadable("it is not a file".to_owned()));
    }
    if about.len() > LARGEST {
        let problems = vec![format!("it has {} bytes, and may have {LARGEST}", about.len())];
        return Err(ConfError::Invalid { file: file.to_owned(), problems });
    }
    let mut start = Vec::new();
    File::open(file).and_then(|f| f.take(64 * 1024).read_to_end(&mut start)).map_err(failed)?;
    if start.contains(&0) {
        let problems = vec!["it is not a text".to_owned()];
        return Err(ConfError::Invalid { file: file.to_owned(), problems });
    }
    Ok(())
}

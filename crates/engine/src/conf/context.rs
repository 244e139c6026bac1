//! Lets bash read the files of a module for one kernel.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use super::{Values, directives};
use crate::machine::Trees;
use crate::names::{Arch, KernelRelease, ModuleId};
use crate::os::bash::{BashError, BashReader};
use crate::os::process::{Environment, Tools};

/// Which module for which kernel, and what its conf can know about both.
#[derive(Debug, Clone)]
pub struct ConfContext<'a> {
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

impl ConfContext<'_> {
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

    /// Reads the conf and its overrides.
    ///
    /// # Errors
    /// [`BashError`] for the first file that cannot be read. The values are not checked here, see
    /// [`Conf::from_values`](super::Conf::from_values).
    pub fn read(&self, reader: &mut BashReader) -> Result<ConfReply, BashError> {
        let variables = self.variables();
        let lossy = |(name, value): (&&'static str, &OsString)| {
            (*name, value.to_string_lossy().into_owned())
        };
        let texts: BTreeMap<_, _> = variables.iter().map(lossy).collect();
        let mut all = ConfReply {
            values: Values::default(),
            complaint: String::new(),
            deprecated: Vec::new(),
        };
        for file in self.files() {
            // Each file in a shell of its own, as with dkms: it sees the directives of those
            // before, but not their helper variables.
            let given = variables.iter().map(|(name, value)| ((*name).to_owned(), value.clone()));
            let before = all.values.iter();
            let before =
                before.map(|(name, index, text)| (format!("{name}[{index}]"), text.into()));
            let given = given.chain(before).collect();
            let reply = reader.read(&file, given, &directives::ALL)?;
            let mut values = Values::default();
            for (directive, index, text) in reply.variables {
                let element = format!("{directive}[{index}]");
                let Ok(number) = index.parse() else {
                    let problems = vec![format!("{element} is no element of an array")];
                    return Err(BashError::Invalid { file, problems });
                };
                let Ok(mut text) = String::from_utf8(text) else {
                    return Err(BashError::NotUtf8 { file, directive: element });
                };
                // A file written with DOS line ends gives every value one.
                text.truncate(text.strip_suffix('\r').unwrap_or(&text).len());
                values.set(&directive, number, text);
            }
            values.expand(&texts);
            all.deprecated.extend(
                directives::DEPRECATED
                    .into_iter()
                    .filter(|name| values.elements(name).ne(all.values.elements(name)))
                    .filter(|name| *name != "CLEAN" || !is_true(values.text(name, 0)))
                    .map(|name| (name, file.clone())),
            );
            all.values = values;
            if !all.complaint.is_empty() && !reply.complaint.is_empty() {
                all.complaint.push('\n');
            }
            all.complaint.push_str(&reply.complaint);
        }
        Ok(all)
    }
}

/// What the files of a module say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfReply {
    /// Their values.
    pub values: Values,
    /// What bash or the commands in them wrote to standard error, e.g. about a syntax error
    /// (which dkms reads over, and so do we); cut, and empty for a sound conf.
    pub complaint: String,
    /// Deprecated directives, each with the file that sets it.
    pub deprecated: Vec<(&'static str, PathBuf)>,
}

/// A reader of confs, whose bash knows nothing of the caller's variables that are called like
/// directives. Programs in `first_in_path` are found before all others, such as an `uname` that
/// answers the kernel in `$kernelver`.
pub(crate) fn reader(tools: Tools, env: Environment, first_in_path: Option<&Path>) -> BashReader {
    let env = directives::ALL.iter().fold(env, |env, name| env.without(name));
    BashReader::new(tools, first_in_path.iter().fold(env, |env, dir| env.first_in_path(dir)))
}

/// What stood in CLEAN when it had to be set, and did nothing.
fn is_true(value: Option<&str>) -> bool {
    matches!(value.map(str::trim), None | Some("true" | "/bin/true" | "/usr/bin/true"))
}

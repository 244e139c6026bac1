//! Reads a module's conf and its overrides with bash, for one kernel.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use super::{Values, directives};
use crate::machine::Trees;
use crate::names::{Arch, KernelRelease, ModuleId};
use crate::os::bash::{BashError, BashReader};
use crate::os::process::{Environment, Tools};

/// The variable that `override_dest_module_location` in worker.sh prints.
const DESTINATION: &str = "alpm_dkms_destination";

/// The module, kernel and machine for which a conf is read.
#[derive(Debug, Clone)]
pub struct ConfContext<'a> {
    /// The name and version of the module: `module` and `module_version` in the conf.
    pub id: &'a ModuleId,
    /// The release of the target kernel: `kernelver` in the conf.
    pub kernel: &'a KernelRelease,
    /// The architecture of the target kernel: `arch` in the conf.
    pub arch: &'a Arch,
    /// The directory of the kernel's headers: `kernel_source_dir` in the conf.
    pub kernel_source_dir: PathBuf,
    /// The path of the kernel's configuration file: `kernel_config` in the conf.
    pub kernel_config: PathBuf,
    /// The path of the conf. It is usually `dkms.conf` in the module's source directory.
    pub conf_file: PathBuf,
    /// The module's source directory, in which the conf and its overrides are evaluated.
    pub dir: PathBuf,
    /// The directory in which the distribution installs every object, relative to the kernel's
    /// directory; `None` if DEST_MODULE_LOCATION determines the directory.
    pub destination: Option<PathBuf>,
    /// The trees: `dkms_tree`, `source_tree` and `install_tree` in the conf. The directory
    /// [`Trees::etc`] contains the overrides.
    pub trees: &'a Trees,
    /// The maximum number of parallel jobs: `parallel_jobs` in the conf.
    pub parallel_jobs: usize,
}

impl ConfContext<'_> {
    /// Returns the path of the conf, followed by the paths of the existing overrides. Each file
    /// takes precedence over those before it (dkms-behaviour 3.1).
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

    /// Returns the shell variables that are set while a conf is read (dkms-behaviour 3.2).
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
    /// Does not interpret or validate the values. For that, see
    /// [`Conf::from_values`](super::Conf::from_values).
    ///
    /// # Errors
    /// [`BashError`] for the first file that cannot be read, or whose values are not valid UTF-8 or
    /// have an invalid index.
    pub fn read(&self, reader: &mut BashReader) -> Result<ConfReply, BashError> {
        let variables = self.variables();
        let lossy = |(name, value): (&&'static str, &OsString)| {
            (*name, value.to_string_lossy().into_owned())
        };
        let texts: BTreeMap<_, _> = variables.iter().map(lossy).collect();
        let mut all = ConfReply::default();
        let destination = self
            .destination
            .iter()
            .map(|dir| (DESTINATION.to_owned(), Path::new("/").join(dir).into_os_string()));
        let destination: Vec<_> = destination.collect();
        for file in self.files() {
            // As in dkms, each file is read by a new shell. The shell starts with the directives
            // that earlier files have set, but without the helper variables of those files.
            let given = variables.iter().map(|(name, value)| ((*name).to_owned(), value.clone()));
            let before = all.values.iter();
            let before =
                before.map(|(name, index, text)| (format!("{name}[{index}]"), text.into()));
            let given = given.chain(before).chain(destination.iter().cloned()).collect();
            let reply = reader.read_in(&self.dir, &file, given, &directives::ALL)?;
            let complaints = reply.complaints_about(&file);
            if !complaints.is_empty() {
                all.complaints.push((file.clone(), complaints));
            }
            let mut values = Values::default();
            for (directive, index, text) in reply.variables {
                let element = format!("{directive}[{index}]");
                let Ok(number) = index.parse() else {
                    let problems = vec![format!("invalid array index: {element}")];
                    return Err(BashError::Invalid { file, problems });
                };
                let Ok(mut text) = String::from_utf8(text) else {
                    return Err(BashError::NotUtf8 { file, directive: element });
                };
                // In a file with DOS line endings, every value ends in a carriage return.
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

/// The result of reading a module's conf and its overrides.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ConfReply {
    /// The values of all directives, with overrides applied.
    pub values: Values,
    /// The standard error of bash and of the commands in the files, truncated if it is long.
    pub complaint: String,
    /// The files about which bash itself complained, each with bash's messages. As in dkms, errors
    /// such as a syntax error do not end the evaluation.
    pub complaints: Vec<(PathBuf, Vec<String>)>,
    /// The deprecated directives that are set, each with the path of the file that sets it.
    pub deprecated: Vec<(&'static str, PathBuf)>,
}

/// Creates a reader for confs.
///
/// The reader runs bash with the environment `env`, but without the variables that are named like a
/// directive. If `first_in_path` is given, that directory comes first in PATH.
pub(crate) fn reader(tools: Tools, env: Environment, first_in_path: Option<&Path>) -> BashReader {
    let env = directives::ALL.iter().fold(env, |env, name| env.without(name));
    BashReader::new(tools, first_in_path.iter().fold(env, |env, dir| env.first_in_path(dir)))
}

/// Returns true if `value`, the value of CLEAN, is unset or only runs `true`.
///
/// Old versions of dkms required CLEAN. Some modules therefore still set it to a command that does
/// nothing.
fn is_true(value: Option<&str>) -> bool {
    matches!(value.map(str::trim), None | Some("true" | "/bin/true" | "/usr/bin/true"))
}

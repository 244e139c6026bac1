//! The command line options that override a machine's settings and files.

use std::path::{Path, PathBuf};

use super::Kernel;
use crate::names::ModuleId;

/// The command line options that override settings and files. By default, they override nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RunOptions {
    /// The module that the command line names; `None` if it names no module or several.
    pub module: Option<ModuleId>,
    /// The file to read instead of the dkms.conf of [`Self::module`] (`-c`).
    pub conf: Option<PathBuf>,
    /// The configuration file to use for every kernel (`--config`).
    pub kernel_config: Option<PathBuf>,
    /// The directory of the headers to use for every kernel (`--kernelsourcedir`).
    pub kernel_source: Option<PathBuf>,
    /// The names and values of directives that override all files (`--directive`). A value replaces
    /// element 0 of an array.
    pub directives: Vec<(String, String)>,
    /// Whether to build even if dependencies are missing (`--force`). If true, the dependencies of
    /// builds are not recorded.
    pub force: bool,
    /// Whether to install despite newer versions, OBSOLETE_BY or a failing PRE_INSTALL (`--force`
    /// and `--rpm_safe_upgrade`).
    pub force_install: bool,
    /// Whether to replace a newer version of an object (`--force-version-override`).
    pub force_version: bool,
    /// Whether the command only adds modules. If true, a failed POST_ADD makes the command fail.
    pub only_added: bool,
    /// Whether systemd has started the command. If true, parked work stays parked, as in a hook.
    pub by_systemd: bool,
}

impl RunOptions {
    /// Returns the path of the conf of the module `id`, whose source directory is `source`.
    #[must_use]
    pub(crate) fn conf_of(&self, id: &ModuleId, source: &Path) -> PathBuf {
        let own = source.join("dkms.conf");
        let about = self.module.as_ref() == Some(id);
        self.conf.clone().filter(|_| about).unwrap_or(own)
    }

    /// Returns true if these options can change the directives of the module `id`.
    #[must_use]
    pub(crate) fn changes_conf_of(&self, id: &ModuleId) -> bool {
        !self.directives.is_empty() || (self.conf.is_some() && self.module.as_ref() == Some(id))
    }

    /// Replaces the headers and the configuration of `kernel` with those given on the command line.
    /// Headers without an `include` directory count as missing.
    pub(crate) fn equip(&self, kernel: &mut Kernel) {
        if let Some(dir) = &self.kernel_source {
            kernel.headers = dir.join("include").is_dir().then(|| dir.clone());
        }
        if self.kernel_config.is_some() {
            kernel.config.clone_from(&self.kernel_config);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conf_applies_only_to_the_named_module() {
        let foo: ModuleId = "foo/1".parse().unwrap();
        let bar: ModuleId = "bar/1".parse().unwrap();
        let options = RunOptions {
            module: Some(foo.clone()),
            conf: Some("/x.conf".into()),
            ..RunOptions::default()
        };
        let source = Path::new("/usr/src/it");
        assert_eq!(options.conf_of(&foo, source), Path::new("/x.conf"));
        assert_eq!(options.conf_of(&bar, source), Path::new("/usr/src/it/dkms.conf"));
        assert!(options.changes_conf_of(&foo) && !options.changes_conf_of(&bar));
    }
}

//! The options of one command that override what the machine has.

use std::path::{Path, PathBuf};

use super::Kernel;
use crate::names::ModuleId;

/// The options of one command line. [`RunOptions::default`] has none.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RunOptions {
    /// The module that the command is about; `None` if it is about several.
    pub module: Option<ModuleId>,
    /// A file to read in place of that module's own dkms.conf (`-c`).
    pub conf: Option<PathBuf>,
    /// The configuration of the kernels that are built for (`--config`).
    pub kernel_config: Option<PathBuf>,
    /// The headers of the kernels that are built for (`--kernelsourcedir`).
    pub kernel_source: Option<PathBuf>,
    /// Directives that are set after all files, by name (`--directive`); element 0 of arrays.
    pub directives: Vec<(String, String)>,
    /// Build without what the module builds upon, and take no note of it (`--force`).
    pub force: bool,
    /// Install in spite of versions, OBSOLETE_BY and a failing PRE_INSTALL (`--force`, and
    /// `--rpm_safe_upgrade`).
    pub force_install: bool,
    /// Place a module over a newer version of the same (`--force-version-override`).
    pub force_version: bool,
    /// Modules are added for their own sake, so that a failing POST_ADD is the command's failure.
    pub only_added: bool,
}

impl RunOptions {
    /// The conf of a module whose source is in the directory `source`.
    #[must_use]
    pub(crate) fn conf_of(&self, id: &ModuleId, source: &Path) -> PathBuf {
        let own = source.join("dkms.conf");
        let about = self.module.as_ref() == Some(id);
        self.conf.clone().filter(|_| about).unwrap_or(own)
    }

    /// Returns true if a conf says something else now than it says by itself.
    #[must_use]
    pub(crate) fn changes_conf_of(&self, id: &ModuleId) -> bool {
        !self.directives.is_empty() || (self.conf.is_some() && self.module.as_ref() == Some(id))
    }

    /// Gives a kernel the headers and the configuration of these options. Headers without
    /// `include` are none, as in its own directory.
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
    fn a_conf_is_for_the_module_that_was_named() {
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
